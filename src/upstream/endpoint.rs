//! Where an origin is dialled and how it is verified.
//!
//! Built by `server` (single-origin mode, configured stores) and by `request` for hosts that the allow-list lets
//! through; the key of the connection pools. A value is enough to connect: nothing else is asked.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// One origin as a connection sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The name or IP literal that is dialled; lower case, an IPv6 address without brackets.
    pub host: Box<str>,
    /// The port that is dialled, never 0.
    pub port: u16,
    /// The name sent as SNI and verified in the certificate; an IP literal is verified but not sent.
    pub server_name: Box<str>,
}

/// Why a text is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `http://` nor `https://`.
    #[error("an origin begins with http:// or https://")]
    Scheme,
    /// A path, query, fragment or user.
    #[error("an origin is scheme, host and port, nothing else")]
    Extra,
    /// No host, or one that is neither a name nor an address.
    #[error("the origin's host is invalid")]
    Host,
    /// Not 1 to 65535.
    #[error("the origin's port is invalid")]
    Port,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(formatter, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(formatter, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Endpoint {
    /// An endpoint verified under the name that is dialled.
    #[must_use]
    pub fn new(tls: bool, host: &str, port: u16) -> Arc<Self> {
        let host: Box<str> = host.to_ascii_lowercase().into();
        Arc::new(Self {
            tls,
            server_name: host.clone(),
            host,
            port,
        })
    }

    /// Parses `http(s)://host[:port]`; the port defaults to the scheme's.
    ///
    /// # Errors
    /// [`EndpointError`]: anything before or behind that, a path included.
    pub fn parse(url: &str) -> Result<Arc<Self>, EndpointError> {
        let (tls, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(EndpointError::Scheme),
        };
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(EndpointError::Extra);
        }
        let (host, port) = split_port(rest)?;
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(text) => parse_port(text)?,
        };
        Ok(Self::new(tls, host, port))
    }

    /// The address when the host is one, so that nothing is to be resolved.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn split_port(authority: &str) -> Result<(&str, Option<&str>), EndpointError> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']').ok_or(EndpointError::Host)?;
        host.parse::<Ipv6Addr>().map_err(|_| EndpointError::Host)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(EndpointError::Host),
        };
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if is_name(host) {
        Ok((host, port))
    } else {
        Err(EndpointError::Host)
    }
}

fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
}

fn parse_port(text: &str) -> Result<u16, EndpointError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EndpointError::Port);
    }
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(EndpointError::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_scheme_host_and_port() {
        let table = [
            ("http://127.0.0.1:9000", (false, "127.0.0.1", 9000)),
            ("https://S3.Example.com", (true, "s3.example.com", 443)),
            ("HTTP://a", (false, "a", 80)),
            ("https://[::1]:8443", (true, "::1", 8443)),
            ("http://[fe80::1]", (false, "fe80::1", 80)),
        ];
        for (url, (tls, host, port)) in table {
            let endpoint = Endpoint::parse(url).expect(url);
            assert_eq!(
                (endpoint.tls, &*endpoint.host, endpoint.port),
                (tls, host, port),
                "{url}"
            );
            assert_eq!(endpoint.server_name, endpoint.host);
        }
    }

    #[test]
    fn anything_more_or_less_is_refused() {
        use EndpointError::{Extra, Host, Port, Scheme};
        let table = [
            ("127.0.0.1:9000", Scheme),
            ("ftp://a", Scheme),
            ("http://a/", Extra),
            ("http://a/b", Extra),
            ("http://a?x", Extra),
            ("http://u@a", Extra),
            ("http://", Host),
            ("http://:80", Host),
            ("http://a b", Host),
            ("http://[::1", Host),
            ("http://[::1]x", Host),
            ("http://::1", Host),
            ("http://a:0", Port),
            ("http://a:65536", Port),
            ("http://a:", Port),
            ("http://a:+1", Port),
        ];
        for (url, error) in table {
            assert_eq!(Endpoint::parse(url), Err(error), "{url}");
        }
    }
}

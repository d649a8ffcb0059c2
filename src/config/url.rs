//! Where an origin is, and the host names under which clients ask: the two shapes of names in the settings.
//!
//! `value.rs` calls this. Names are lower-cased here, once, so that everyone else may compare bytes. Nothing is
//! resolved: that is the control thread's work.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// How an origin is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// Plain HTTP: allowed because the operator named it.
    Http,
    /// HTTP over TLS, the certificate verified.
    Https,
}

impl Scheme {
    /// The port that a URL without one means.
    #[must_use]
    pub const fn port_default(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// The word before `://`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// `http(s)://host[:port]`, parsed: no path, no query, no credentials.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginUrl {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Lower-cased DNS name or IP address; an IPv6 address is without its brackets.
    pub host: String,
    /// The port to dial, never 0.
    pub port: u16,
}

impl OriginUrl {
    /// The address when the host is one, so that nothing is to be resolved.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// `host[:port]` as a client would send it in `Host`: the scheme's own port is left out.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(_) => format!("[{}]", self.host),
            Err(_) => self.host.clone(),
        };
        match self.port == self.scheme.port_default() {
            true => host,
            false => format!("{host}:{}", self.port),
        }
    }

    /// Whether the host can only be this machine: a loopback address, `localhost` or a name below it (RFC 6761).
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.ip() {
            Some(ip) => ip.is_loopback(),
            None => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

/// Why a URL or a host name was refused. Never repeats the URL: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Neither `http://` nor `https://`.
    #[error("a URL begins with http:// or https://")]
    Scheme,
    /// `user:password@`.
    #[error("the URL holds credentials: millrace keeps none, clients sign their own requests")]
    Credentials,
    /// A path, a query or a fragment.
    #[error("only scheme, host and port are allowed: leave out \"{0}\"")]
    Path(String),
    /// Not a port from 1 to 65535.
    #[error("\"{0}\" is not a port (1 to 65535)")]
    Port(String),
    /// Not a DNS name and not an IP address.
    #[error("\"{0}\" is not a host name (letters, digits, '-', '_' and '.')")]
    Host(String),
    /// A domain written as a pattern.
    #[error("\"{0}\": write the domain without a leading '.' or '*.'")]
    Pattern(String),
}

/// Reads `http(s)://host[:port]`; a lone trailing slash is allowed.
pub fn parse_url(text: &str) -> Result<OriginUrl, NameError> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
        _ => return Err(NameError::Scheme),
    };
    if rest.contains('@') {
        return Err(NameError::Credentials);
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(at) = authority.find(['/', '?', '#']) {
        return Err(NameError::Path(authority[at..].to_owned()));
    }
    let (host, port) = split_port(authority)?;
    Ok(OriginUrl {
        scheme,
        host: parse_bare_host(host)?,
        port: port.unwrap_or(scheme.port_default()),
    })
}

/// Reads `host[:port]` as it stands in a request's `Host`, lower-cased; an IPv6 address keeps its brackets.
pub fn parse_host(text: &str) -> Result<String, NameError> {
    let (host, port) = split_port(text)?;
    let bare = parse_bare_host(host)?;
    let host = match bare.contains(':') {
        true => format!("[{bare}]"),
        false => bare,
    };
    Ok(match port {
        Some(port) => format!("{host}:{port}"),
        None => host,
    })
}

/// Reads a domain below which each bucket is a host name of its own; lower-cased, no port, not an address.
pub fn parse_domain(text: &str) -> Result<String, NameError> {
    if text.starts_with('.') || text.starts_with('*') {
        return Err(NameError::Pattern(text.to_owned()));
    }
    let domain = parse_bare_host(text)?;
    match domain.parse::<IpAddr>() {
        Ok(_) => Err(NameError::Host(text.to_owned())),
        Err(_) => Ok(domain),
    }
}

/// Splits `host[:port]`; the colons of an IPv6 address are inside brackets (RFC 3986 section 3.2.2).
fn split_port(authority: &str) -> Result<(&str, Option<u16>), NameError> {
    let after_brackets = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after_brackets..].find(':') else {
        return Ok((authority, None));
    };
    let (host, port) = authority.split_at(after_brackets + colon);
    let digits = &port[1..];
    let number = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u16>().ok().filter(|port| *port != 0),
        false => None,
    };
    match number {
        Some(number) => Ok((host, Some(number))),
        None => Err(NameError::Port(digits.to_owned())),
    }
}

/// Checks a host without port; gives an IPv6 address without its brackets, in its canonical text (RFC 5952).
pub(super) fn parse_bare_host(host: &str) -> Result<String, NameError> {
    let refused = || NameError::Host(host.to_owned());
    if let Some(inside) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let address: Ipv6Addr = inside.parse().map_err(|_| refused())?;
        return Ok(address.to_string());
    }
    // A name of digits and dots only is an IPv4 address or a mistake, never a name to resolve.
    let numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    if numeric && host.parse::<IpAddr>().is_err() {
        return Err(refused());
    }
    match host.len() <= 253 && host.split('.').all(is_label) {
        true => Ok(host.to_ascii_lowercase()),
        false => Err(refused()),
    }
}

/// RFC 1123 labels, and the underscore that bucket names of old may hold.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_scheme_host_and_port() {
        let url = parse_url("http://127.0.0.1:9000").unwrap();
        assert_eq!(
            (url.scheme, url.host.as_str(), url.port),
            (Scheme::Http, "127.0.0.1", 9000)
        );
        assert_eq!(url.to_string(), "http://127.0.0.1:9000");
        let url = parse_url("HTTPS://S3.Example.com/").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.authority().as_str()),
            ("s3.example.com", 443, "s3.example.com")
        );
        let url = parse_url("http://[::1]:9000").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("::1", 9000));
        assert_eq!(url.to_string(), "http://[::1]:9000");
        assert!(url.is_loopback());
    }

    #[test]
    fn a_url_with_anything_more_is_refused() {
        for text in [
            "",
            "127.0.0.1:9000",
            "ftp://host",
            "http://",
            "http:///",
            "http://host:0",
            "http://host:65536",
            "http://host:",
            "http://host:+80",
            "http://host/bucket",
            "http://host?x",
            "http://host#x",
            "http://ho st",
            "http://host//",
            "http://-host",
            "http://1.2.3",
            "http://300.1.1.1",
            "http://[::1",
            "http://::1",
            "http://host.",
            "http://[::1]x",
        ] {
            assert!(parse_url(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_repeated() {
        let error = parse_url("https://user:secret@host").unwrap_err();
        assert_eq!(error, NameError::Credentials);
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn hosts_and_domains_are_lower_cased() {
        assert_eq!(parse_host("S3.Local:9000").unwrap(), "s3.local:9000");
        assert_eq!(parse_host("[0::1]:80").unwrap(), "[::1]:80");
        assert_eq!(parse_domain("S3.Local").unwrap(), "s3.local");
        for text in [
            "*.s3.local",
            ".s3.local",
            "s3.local:80",
            "127.0.0.1",
            "",
            "a..b",
        ] {
            assert!(parse_domain(text).is_err(), "{text:?}");
        }
    }
}

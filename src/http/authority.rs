//! `host[:port]`: the value of `Host`, the authority of an absolute target, the target of CONNECT.
//!
//! Called by the request parser for validity and by routing for the parts. Stricter than RFC 3986:
//! no user information (RFC 9110, section 4.2.4), no percent-encoding and no sub-delimiters in a
//! host, no empty port. No store has a name with those, and what two parsers may read differently
//! must not become a cache key.

use std::net::Ipv6Addr;

/// The longest host, RFC 1035 (253) with its root dot and a little air.
const HOST_BYTES_MAX: usize = 255;

/// Why `host[:port]` was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// No host.
    #[error("the host is empty")]
    EmptyHost,
    /// More than 255 bytes.
    #[error("the host has {bytes} bytes")]
    HostTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A byte that no host name has, or an empty label.
    #[error("the host name is invalid")]
    InvalidHost,
    /// `[`…`]` does not hold an IPv6 address.
    #[error("the bracketed address is invalid")]
    InvalidAddress,
    /// Empty, not decimal, 0 or above 65535.
    #[error("the port is invalid")]
    InvalidPort,
}

/// A valid `host[:port]`, borrowed as sent.
#[derive(Debug, Clone, Copy)]
pub struct Authority<'b> {
    /// The host as sent, without the brackets of an IPv6 address.
    pub host: &'b str,
    /// The port, if one was sent.
    pub port: Option<u16>,
    /// Whether the host stood in brackets: it is an IPv6 address.
    pub bracketed: bool,
}

impl<'b> Authority<'b> {
    /// Splits and checks `host[:port]`.
    ///
    /// # Errors
    /// [`AuthorityError`], the first fault found.
    pub fn parse(text: &'b str) -> Result<Self, AuthorityError> {
        if let Some(inside) = text.strip_prefix('[') {
            let (host, behind) = inside
                .split_once(']')
                .ok_or(AuthorityError::InvalidAddress)?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| AuthorityError::InvalidAddress)?;
            let port = match behind.strip_prefix(':') {
                Some(digits) => Some(parse_port(digits)?),
                None if behind.is_empty() => None,
                None => return Err(AuthorityError::InvalidPort),
            };
            return Ok(Self {
                host,
                port,
                bracketed: true,
            });
        }
        let (host, port) = match memchr::memchr(b':', text.as_bytes()) {
            Some(colon) => (&text[..colon], Some(parse_port(&text[colon + 1..])?)),
            None => (text, None),
        };
        check_name(host)?;
        Ok(Self {
            host,
            port,
            bracketed: false,
        })
    }

    /// The port, or the scheme's one if none was sent.
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }

    /// Whether both name the same host, ASCII case ignored; ports are not compared. A trailing root
    /// dot counts.
    pub fn same_host(&self, other: &Authority<'_>) -> bool {
        self.bracketed == other.bracketed && self.host.eq_ignore_ascii_case(other.host)
    }

    /// Whether both name the same host and port, an absent port being `default_port`.
    pub fn same(&self, other: &Authority<'_>, default_port: u16) -> bool {
        self.same_host(other) && self.port_or(default_port) == other.port_or(default_port)
    }

    /// Appends the lower-cased `host[:port]`, brackets and port only if they were sent.
    pub fn write_lower(&self, out: &mut String) {
        if self.bracketed {
            out.push('[');
        }
        out.extend(self.host.chars().map(|c| c.to_ascii_lowercase()));
        if self.bracketed {
            out.push(']');
        }
        if let Some(port) = self.port {
            out.push(':');
            out.push_str(itoa::Buffer::new().format(port));
        }
    }
}

fn check_name(host: &str) -> Result<(), AuthorityError> {
    if host.is_empty() {
        return Err(AuthorityError::EmptyHost);
    }
    if host.len() > HOST_BYTES_MAX {
        return Err(AuthorityError::HostTooLong { bytes: host.len() });
    }
    // Starts as if behind a dot, so that a leading dot is an empty label too.
    let mut before = b'.';
    for byte in host.bytes() {
        let known = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if !known || (byte == b'.' && before == b'.') {
            return Err(AuthorityError::InvalidHost);
        }
        before = byte;
    }
    Ok(())
}

fn parse_port(digits: &str) -> Result<u16, AuthorityError> {
    // `str::parse` would take a plus sign.
    let decimal = digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse::<u16>() {
        Ok(port) if decimal && port != 0 => Ok(port),
        _ => Err(AuthorityError::InvalidPort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_authorities_are_split() {
        let table = [
            ("s3.amazonaws.com", "s3.amazonaws.com", None, false),
            (
                "My_Bucket.S3.example:9000",
                "My_Bucket.S3.example",
                Some(9000),
                false,
            ),
            ("10.0.0.1:80", "10.0.0.1", Some(80), false),
            ("localhost", "localhost", None, false),
            ("root.example.:443", "root.example.", Some(443), false),
            ("[::1]", "::1", None, true),
            ("[2001:DB8::1]:65535", "2001:DB8::1", Some(65535), true),
            ("a:00080", "a", Some(80), false),
        ];
        for (text, host, port, bracketed) in table {
            let parsed = Authority::parse(text).unwrap();
            assert_eq!(
                (parsed.host, parsed.port, parsed.bracketed),
                (host, port, bracketed),
                "{text}"
            );
        }
    }

    #[test]
    fn invalid_authorities_are_refused() {
        use AuthorityError::*;
        let table = [
            ("", EmptyHost),
            (":80", EmptyHost),
            ("a:", InvalidPort),
            ("a:0", InvalidPort),
            ("a:65536", InvalidPort),
            ("a:+80", InvalidPort),
            ("a:80:80", InvalidPort),
            ("a:000080", InvalidPort),
            ("::1", InvalidPort),
            ("user@a", InvalidHost),
            ("user:pass@a", InvalidPort),
            ("a b", InvalidHost),
            ("a,b", InvalidHost),
            ("a%2eb", InvalidHost),
            ("a/b", InvalidHost),
            ("a..b", InvalidHost),
            (".a", InvalidHost),
            (".", InvalidHost),
            ("b\u{fc}cher", InvalidHost),
            ("[]", InvalidAddress),
            ("[::1", InvalidAddress),
            ("[1.2.3.4]", InvalidAddress),
            ("[fe80::1%25eth0]", InvalidAddress),
            ("[v1.a]", InvalidAddress),
            ("[::1]80", InvalidPort),
            ("[::1]:", InvalidPort),
        ];
        for (text, error) in table {
            assert_eq!(Authority::parse(text).unwrap_err(), error, "{text}");
        }
        let long = "a".repeat(256);
        assert_eq!(
            Authority::parse(&long).unwrap_err(),
            HostTooLong { bytes: 256 }
        );
        assert!(Authority::parse(&long[..255]).is_ok());
    }

    #[test]
    fn hosts_compare_without_case_and_with_default_port() {
        let parse = |text| Authority::parse(text).unwrap();
        assert!(parse("A.example:80").same(&parse("a.EXAMPLE"), 80));
        assert!(!parse("a.example:81").same(&parse("a.example"), 80));
        assert!(parse("a.example:81").same_host(&parse("a.example")));
        assert!(!parse("a.example.").same_host(&parse("a.example")));
        assert!(parse("[::A]").same_host(&parse("[::a]")));
    }

    #[test]
    fn the_lower_cased_form_keeps_port_and_brackets() {
        for (text, want) in [
            ("A.Example:9000", "a.example:9000"),
            ("[::A]", "[::a]"),
            ("A", "a"),
        ] {
            let mut out = String::new();
            Authority::parse(text).unwrap().write_lower(&mut out);
            assert_eq!(out, want);
        }
    }
}

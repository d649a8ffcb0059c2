//! A host name with its port, normalised so that two spellings of one host compare equal.
//!
//! Called by `host` for the `Host` header, the authority of an absolute-form target and configured names.
//! Allocates only when a name is not lower-case already or is an IPv6 literal.
//!
//! Invariants: `name` is lower-case ASCII, has no port, no trailing dot, no empty label; IPv6 is in its
//! canonical spelling in brackets; port 80, the default of plain HTTP, reads as none.

use crate::http::{Authority, AuthorityError};
use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The port of `http`, which a name need not say.
const HTTP_PORT: u16 = 80;

/// What kind of name it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Dns,
    Address,
}

/// A normalised host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostName<'h> {
    pub(super) name: Cow<'h, str>,
    pub(super) port: Option<u16>,
    pub(super) kind: NameKind,
}

impl<'h> HostName<'h> {
    /// Parses `host[:port]`.
    ///
    /// # Errors
    /// [`AuthorityError`] for anything that is not exactly that.
    pub(super) fn parse(raw: &'h str) -> Result<Self, AuthorityError> {
        let authority = Authority::parse(raw)?;
        let port = authority.port.filter(|port| *port != HTTP_PORT);
        if authority.bracketed {
            let address: Ipv6Addr = authority
                .host
                .parse()
                .map_err(|_| AuthorityError::InvalidAddress)?;
            let name = Cow::Owned(format!("[{address}]"));
            return Ok(Self {
                name,
                port,
                kind: NameKind::Address,
            });
        }
        let name = authority.host.strip_suffix('.').unwrap_or(authority.host);
        let kind = if name.parse::<Ipv4Addr>().is_ok() {
            NameKind::Address
        } else {
            NameKind::Dns
        };
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(name.to_ascii_lowercase())
        } else {
            Cow::Borrowed(name)
        };
        Ok(Self { name, port, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(raw: &str) -> Option<(String, Option<u16>)> {
        HostName::parse(raw)
            .ok()
            .map(|host| (host.name.into_owned(), host.port))
    }

    #[test]
    fn spellings_of_one_host_are_one() {
        for raw in [
            "s3.amazonaws.com",
            "S3.AmazonAWS.com",
            "s3.amazonaws.com.",
            "s3.amazonaws.com:80",
            "s3.amazonaws.com:0080",
        ] {
            assert_eq!(
                parsed(raw),
                Some(("s3.amazonaws.com".to_owned(), None)),
                "{raw}"
            );
        }
    }

    /// Reference 2B.45 and 2B.46.
    #[test]
    fn ports_are_kept_and_an_ipv6_literal_is_not_split_at_its_colons() {
        assert_eq!(parsed("minio:9000"), Some(("minio".to_owned(), Some(9000))));
        assert_eq!(parsed("[::1]:9000"), Some(("[::1]".to_owned(), Some(9000))));
        assert_eq!(
            parsed("[0:0:0:0:0:0:0:1]"),
            Some(("[::1]".to_owned(), None))
        );
        assert_eq!(
            parsed("[2001:DB8::1]:80"),
            Some(("[2001:db8::1]".to_owned(), None))
        );
    }

    #[test]
    fn anything_else_is_no_host() {
        for raw in [
            "",
            ".",
            ":80",
            "a:",
            "a..b",
            ".a",
            "a b",
            "a,b",
            "user@host",
            "a/b",
            "a:99999",
            "a:0",
            "a:-1",
            "a:+80",
            "a:1:2",
            "::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[fe80::1%eth0]",
            "[]",
            "ä",
            "a%41",
        ] {
            assert_eq!(parsed(raw), None, "{raw}");
        }
        assert_eq!(parsed(&"a".repeat(256)), None);
    }

    #[test]
    fn a_lower_case_name_is_borrowed() {
        let host = HostName::parse("bucket.s3.amazonaws.com:443").expect("a host");
        assert!(matches!(host.name, Cow::Borrowed(_)));
    }
}

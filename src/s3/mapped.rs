//! Hosts that stand for a bucket, or a prefix of one: `cdn.example.com/a` is `/bucket/prefix/a` of an endpoint, for everybody.
//!
//! Built by `server` from the settings; asked by `request::mapped` before anything else is made of a request, and only if there are such hosts. Pure: from
//! a head to the bytes of the head that is served in its place, so that all that follows (identity, freshness, failures) is what it is for the
//! path-style request of the same object, and there is one copy.
//!
//! Invariants: what comes out never names an object outside the prefix, and never a sub-resource: the query does not go along.

use std::collections::HashMap;

use crate::http::{Method, RequestHead, TargetForm, Version};

use super::error_xml::ErrorCode;
use super::host_name::HostName;
use super::redact::is_secret_parameter;

/// One such host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedHost {
    /// `host[:port]` that leads to the store.
    pub endpoint: String,
    /// The bucket.
    pub bucket: String,
    /// What every key begins with; as in a path, without a slash in front.
    pub prefix: String,
    /// What is meant by a path that ends in a slash; empty: nothing else.
    pub index: String,
}

/// All of them, by name.
#[derive(Debug, Clone, Default)]
pub struct HostMap(HashMap<String, MappedHost>);

/// Why a request to such a host is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapRefusal {
    /// A signature covers the host that it came by, which is not the store's.
    Signed,
    /// It is no read.
    NotARead,
    /// It names no object.
    NoObject,
    /// Its path climbs, or cannot be read.
    BadPath,
}

impl MapRefusal {
    /// The answer, and why in words.
    #[must_use]
    pub fn answer(self) -> (ErrorCode, &'static str) {
        match self {
            Self::Signed => (
                ErrorCode::AccessDenied,
                "a signed request cannot come by this host: sign for the store's own",
            ),
            Self::NotARead => (
                ErrorCode::MethodNotAllowed,
                "this host is for reading objects",
            ),
            Self::NoObject => (ErrorCode::AccessDenied, "the request names no object"),
            Self::BadPath => (ErrorCode::InvalidUri, "the path cannot be read"),
        }
    }
}

impl HostMap {
    /// The map of these hosts. A name that is given twice is the last's; settings are checked before.
    #[must_use]
    pub fn new(hosts: impl IntoIterator<Item = (String, MappedHost)>) -> Self {
        Self(hosts.into_iter().collect())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `host`, the value of a `Host` header, stands for, whatever its port.
    #[must_use]
    pub fn find(&self, host: &str) -> Option<&MappedHost> {
        let parsed = HostName::parse(host).ok()?;
        self.0.get(parsed.name.as_ref())
    }
}

impl MappedHost {
    /// Writes the head that is served in the place of `head`.
    ///
    /// # Errors
    /// [`MapRefusal`].
    pub fn rewrite(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) -> Result<(), MapRefusal> {
        match head.method {
            // Browsers ask with OPTIONS first (CORS).
            Method::Get | Method::Head | Method::Options => {}
            _ => return Err(MapRefusal::NotARead),
        }
        if !head.body.is_empty() {
            return Err(MapRefusal::NotARead);
        }
        if !matches!(head.form, TargetForm::Origin | TargetForm::Absolute) {
            return Err(MapRefusal::BadPath);
        }
        if is_signed(head) {
            return Err(MapRefusal::Signed);
        }
        let path = head.path.strip_prefix('/').ok_or(MapRefusal::BadPath)?;
        if climbs(path) {
            return Err(MapRefusal::BadPath);
        }
        let names_folder = path.is_empty() || path.ends_with('/');
        let index = if names_folder {
            self.index.as_str()
        } else {
            ""
        };
        if path.is_empty() && index.is_empty() {
            return Err(MapRefusal::NoObject);
        }
        out.clear();
        for piece in [
            head.method_raw,
            " /",
            &self.bucket,
            "/",
            &self.prefix,
            path,
            index,
            match head.version {
                Version::Http11 => " HTTP/1.1\r\nHost: ",
                Version::Http10 => " HTTP/1.0\r\nHost: ",
            },
            &self.endpoint,
            "\r\n",
        ] {
            out.extend_from_slice(piece.as_bytes());
        }
        for (name, value) in head.headers.iter() {
            if name.eq_ignore_ascii_case("host") {
                continue;
            }
            for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(piece);
            }
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

/// Any sign of it, whether or not it could be read.
fn is_signed(head: &RequestHead<'_>) -> bool {
    let mut parameters = head.query.unwrap_or_default().split('&');
    let in_query = parameters.any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        is_secret_parameter(name)
    });
    in_query || head.headers.find("authorization").is_some()
}

/// Whether a store could take a part of the path for a step upwards, or read another path in it: also in escapes.
fn climbs(path: &str) -> bool {
    let decoded: Vec<u8> = percent_encoding::percent_decode_str(path).collect();
    let mut parts = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    parts.any(|part| matches!(part, b"." | b"..")) || decoded.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, parse_request};

    fn host(prefix: &str, index: &str) -> MappedHost {
        MappedHost {
            endpoint: "store.test:9000".to_owned(),
            bucket: "b".to_owned(),
            prefix: prefix.to_owned(),
            index: index.to_owned(),
        }
    }

    fn rewritten(host: &MappedHost, head: &str) -> Result<String, MapRefusal> {
        let limits = HeadLimits::default();
        let head = head.replace('\n', "\r\n");
        let parsed = parse_request(head.as_bytes(), &limits).expect("a head");
        let mut out = Vec::new();
        host.rewrite(&parsed.expect("a whole head"), &mut out)?;
        assert!(parse_request(&out, &limits).expect("a head").is_some());
        Ok(String::from_utf8(out).expect("text"))
    }

    fn path(host: &MappedHost, path: &str) -> Result<String, MapRefusal> {
        let head = rewritten(host, &format!("GET {path} HTTP/1.1\nHost: cdn.test\n\n"))?;
        Ok(head.split(' ').nth(1).expect("a path").to_owned())
    }

    #[test]
    fn a_read_becomes_that_of_the_stores_own_path() {
        let host = host("p/", "");
        let head = "GET /a%20b/c?v=1&acl HTTP/1.1\nHost: CDN.test\nRange: bytes=0-1\nX: y\n\n";
        assert_eq!(
            rewritten(&host, head).as_deref(),
            Ok(
                "GET /b/p/a%20b/c HTTP/1.1\r\nHost: store.test:9000\r\nRange: bytes=0-1\r\nX: y\r\n\r\n"
            )
        );
        let absolute = "HEAD http://cdn.test/x HTTP/1.1\nHost: cdn.test\n\n";
        let absolute = rewritten(&host, absolute).expect("a head");
        assert!(absolute.starts_with("HEAD /b/p/x HTTP/1.1\r\nHost: store.test:9000\r\n"));
    }

    #[test]
    fn a_folder_is_its_index_where_there_is_one() {
        let with = host("", "index.html");
        assert_eq!(path(&with, "/").as_deref(), Ok("/b/index.html"));
        assert_eq!(path(&with, "/a/").as_deref(), Ok("/b/a/index.html"));
        assert_eq!(path(&with, "/a").as_deref(), Ok("/b/a"));
        let without = host("p/", "");
        assert_eq!(path(&without, "/?list-type=2"), Err(MapRefusal::NoObject));
        assert_eq!(path(&without, "/a/").as_deref(), Ok("/b/p/a/"));
    }

    /// Nobody gets out of the prefix, however the way is written.
    #[test]
    fn a_path_that_climbs_is_refused() {
        let host = host("public/", "");
        for path_of in [
            "/../secret",
            "/a/../../secret",
            "/%2e%2e/secret",
            "/a/%2E%2e%2fsecret",
            "/..%5csecret",
            "/./a",
            "/a/..",
            "/a%00",
        ] {
            assert_eq!(path(&host, path_of), Err(MapRefusal::BadPath), "{path_of}");
        }
        assert_eq!(path(&host, "/..a/b..").as_deref(), Ok("/b/public/..a/b.."));
    }

    #[test]
    fn what_is_signed_or_writes_is_refused() {
        let host = host("", "");
        let refused = |head: &str| rewritten(&host, head).expect_err(head);
        for (line, why) in [
            (
                "GET /a HTTP/1.1\nAuthorization: AWS4-HMAC-SHA256 x",
                MapRefusal::Signed,
            ),
            (
                "GET /a HTTP/1.1\nAuthorization: Basic x",
                MapRefusal::Signed,
            ),
            ("GET /a?X-Amz-Signature=1 HTTP/1.1", MapRefusal::Signed),
            ("GET /a?x%2damz-signature=1 HTTP/1.1", MapRefusal::Signed),
            ("GET /a?Signature=1&Expires=2 HTTP/1.1", MapRefusal::Signed),
            ("PUT /a HTTP/1.1\nContent-Length: 0", MapRefusal::NotARead),
            ("DELETE /a HTTP/1.1", MapRefusal::NotARead),
            (
                "POST /a?delete HTTP/1.1\nContent-Length: 0",
                MapRefusal::NotARead,
            ),
            ("GET /a HTTP/1.1\nContent-Length: 3", MapRefusal::NotARead),
        ] {
            assert_eq!(
                refused(&format!("{line}\nHost: cdn.test\n\n")),
                why,
                "{line}"
            );
        }
    }

    #[test]
    fn a_host_is_found_whatever_its_case_and_port() {
        let map = HostMap::new([("cdn.test".to_owned(), host("", ""))]);
        for name in [
            "cdn.test",
            "CDN.Test",
            "cdn.test:80",
            "cdn.test:8080",
            "cdn.test.",
        ] {
            assert!(map.find(name).is_some(), "{name}");
        }
        for name in ["", "x.cdn.test", "cdn.test.evil", "test"] {
            assert!(map.find(name).is_none(), "{name}");
        }
    }
}

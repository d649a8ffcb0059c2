//! The headers of a request: which of them decide what it is, and the values that matter.
//!
//! Called by `operation` once per request; one pass, nothing allocated.
//!
//! Invariant: an `x-amz-*` header that is not on the allow list makes the request pass, as does any header
//! that would change the answer: what is not understood is never answered from the cache.
//!
//! Left to others: which facts may stand together (`operation`), the meaning of a signature (`auth`).

use super::conditional::Conditions;
use super::facts::Facts;
use super::range::{RangeHeader, RangeSpec};
use super::wishes::Wishes;

/// What the headers say.
#[derive(Default)]
pub(super) struct RequestHeaders<'b> {
    pub(super) facts: Facts,
    pub(super) authorization: Option<&'b [u8]>,
    /// More than one `Authorization`.
    pub(super) authorizations: bool,
    pub(super) range: Option<RangeSpec>,
    pub(super) conditions: Conditions<'b>,
    pub(super) wishes: Wishes,
}

/// `x-amz-*` headers of a read that change nothing about its answer.
const HARMLESS_AMZ: [&str; 6] = [
    // Sent by the SDK for C++ (pyarrow); the API has had one version since 2006.
    "api-version",
    "content-sha256",
    "date",
    "region-set",
    "security-token",
    "user-agent",
];

/// Prefixes of other stores' headers; each may change what a request means.
const OTHER_STORES: [&str; 9] = [
    "x-cos-", "x-emc-", "x-goog-", "x-ibm-", "x-minio-", "x-ms-", "x-obs-", "x-oss-", "x-rgw-",
];

/// Headers by which some servers take a request for another one: not S3, but perhaps what stands in front of
/// another store.
const OVERRIDES: [&str; 6] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Whether a header of an upload lets something else be stored than its body, or only for those with its key.
pub(super) fn changes_what_is_stored(name: &str) -> bool {
    let name = name.as_bytes();
    let is_one_of = |prefixes: &[&str]| prefixes.iter().any(|p| strip_prefix(name, p).is_some());
    let whole_or_not = [
        "content-range",
        "x-amz-copy-source",
        "x-amz-rename-source",
        "x-amz-server-side-encryption-customer-",
        "x-amz-write-offset-bytes",
    ];
    is_one_of(&whole_or_not) || is_one_of(&OTHER_STORES) || is_override(name)
}

impl<'b> RequestHeaders<'b> {
    /// Reads all headers.
    pub(super) fn parse(headers: impl Iterator<Item = (&'b [u8], &'b [u8])>) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            seen.observe(name, value);
        }
        seen
    }

    fn observe(&mut self, name: &[u8], value: &'b [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.first().map(u8::to_ascii_lowercase) {
            Some(b'x') => self.vendor(name, value),
            Some(b'i') => self.condition(name, value),
            Some(b'r') if is("range") => self.range(value),
            Some(b'o') if is("origin") => self.facts.insert(Facts::ORIGIN),
            Some(b'c') if is("cache-control") => self.wishes.take_control(value),
            Some(b'p') if is("pragma") => self.wishes.take_pragma(value),
            Some(b'a') if is("authorization") => {
                self.authorizations |= self.authorization.replace(value).is_some();
            }
            // Together with `Origin` the names of S3's `Vary`; no answer depends on them where they are not.
            Some(b'a') if strip_prefix(name, "access-control-request-").is_some() => {
                self.facts.insert(Facts::ORIGIN);
            }
            _ => {}
        }
    }

    fn vendor(&mut self, name: &[u8], value: &[u8]) {
        let Some(rest) = strip_prefix(name, "x-amz-") else {
            let other = OTHER_STORES
                .iter()
                .any(|prefix| strip_prefix(name, prefix).is_some());
            if other || is_override(name) {
                self.facts.insert(Facts::UNKNOWN_HEADER);
            }
            return;
        };
        let is = |known: &str| rest.eq_ignore_ascii_case(known.as_bytes());
        if HARMLESS_AMZ.iter().any(|known| is(known)) {
            return;
        }
        self.facts.insert(
            if is("checksum-mode") && value.eq_ignore_ascii_case(b"enabled") {
                Facts::CHECKSUM_MODE
            } else if is("copy-source") {
                Facts::COPY_SOURCE
            } else if is("rename-source") {
                Facts::RENAME_SOURCE
            } else if strip_prefix(rest, "server-side-encryption-customer-").is_some() {
                Facts::SSE_C
            } else {
                Facts::UNKNOWN_HEADER
            },
        );
    }

    fn condition(&mut self, name: &[u8], value: &'b [u8]) {
        if strip_prefix(name, "if-").is_none() {
            return;
        }
        self.facts.insert(match self.conditions.take(name, value) {
            true => Facts::CONDITIONS,
            false => Facts::CONDITIONAL,
        });
    }

    fn range(&mut self, value: &[u8]) {
        let any = Facts::RANGE | Facts::RANGES | Facts::RANGE_MALFORMED;
        if self.facts.without(any) != self.facts {
            self.facts.insert(Facts::RANGES);
            return;
        }
        self.facts.insert(match RangeHeader::parse(value) {
            RangeHeader::One(range) => {
                self.range = Some(range);
                Facts::RANGE
            }
            RangeHeader::Multiple => Facts::RANGES,
            RangeHeader::Malformed => Facts::RANGE_MALFORMED,
        });
    }
}

fn strip_prefix<'n>(name: &'n [u8], prefix: &str) -> Option<&'n [u8]> {
    let (start, rest) = name.split_at_checked(prefix.len())?;
    start
        .eq_ignore_ascii_case(prefix.as_bytes())
        .then_some(rest)
}

fn is_override(name: &[u8]) -> bool {
    OVERRIDES
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(lines: &[(&'static str, &'static str)]) -> Facts {
        RequestHeaders::parse(
            lines
                .iter()
                .map(|(name, value)| (name.as_bytes(), value.as_bytes())),
        )
        .facts
    }

    /// Reference 2B.39 and 4.26.
    #[test]
    fn headers_are_told_by_table() {
        let table = [
            ("Host", "b", Facts::NONE),
            ("User-Agent", "x", Facts::NONE),
            ("Accept-Encoding", "identity", Facts::NONE),
            ("amz-sdk-invocation-id", "1", Facts::NONE),
            ("amz-sdk-request", "attempt=1", Facts::NONE),
            ("X-Amz-Date", "20260101T000000Z", Facts::NONE),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD", Facts::NONE),
            ("x-amz-security-token", "t", Facts::NONE),
            ("X-Amz-User-Agent", "t", Facts::NONE),
            ("x-amz-region-set", "*", Facts::NONE),
            ("x-amzn-trace-id", "t", Facts::NONE),
            ("x-forwarded-for", "t", Facts::NONE),
            ("x-amz-checksum-mode", "ENABLED", Facts::CHECKSUM_MODE),
            ("x-amz-checksum-mode", "DISABLED", Facts::UNKNOWN_HEADER),
            ("x-amz-expected-bucket-owner", "1", Facts::UNKNOWN_HEADER),
            ("x-amz-request-payer", "requester", Facts::UNKNOWN_HEADER),
            ("x-amz-s3session-token", "t", Facts::UNKNOWN_HEADER),
            ("x-amz-", "t", Facts::UNKNOWN_HEADER),
            ("X-Amz-Date2", "t", Facts::UNKNOWN_HEADER),
            ("x-goog-user-project", "t", Facts::UNKNOWN_HEADER),
            ("X-Rewrite-URL", "/other", Facts::UNKNOWN_HEADER),
            ("x-http-method-override", "DELETE", Facts::UNKNOWN_HEADER),
            (
                "X-Amz-Server-Side-Encryption-Customer-Key",
                "k",
                Facts::SSE_C,
            ),
            (
                "x-amz-server-side-encryption-customer-algorithm",
                "AES256",
                Facts::SSE_C,
            ),
            ("x-amz-copy-source", "/b/k", Facts::COPY_SOURCE),
            ("x-amz-rename-source", "/b/k", Facts::RENAME_SOURCE),
            ("Origin", "https://page.example", Facts::ORIGIN),
            ("Range", "bytes=0-1", Facts::RANGE),
            ("RANGE", "bytes=0-1,3-4", Facts::RANGES),
            ("range", "bytes=5-2", Facts::RANGE_MALFORMED),
            ("If-Match", "\"a\"", Facts::CONDITIONS),
            ("if-none-match", "\"a\"", Facts::CONDITIONS),
            ("If-Modified-Since", "x", Facts::CONDITIONS),
            ("If-Unmodified-Since", "x", Facts::CONDITIONS),
            ("If-Range", "\"a\"", Facts::CONDITIONS),
            ("If-Anything", "x", Facts::CONDITIONAL),
            ("Cache-Control", "no-cache, No-Store", Facts::NONE),
            ("Access-Control-Request-Method", "PUT", Facts::ORIGIN),
            ("access-control-request-headers", "a", Facts::ORIGIN),
            ("access-control-allow-origin", "a", Facts::NONE),
        ];
        for (name, value, want) in table {
            assert_eq!(facts(&[(name, value)]), want, "{name}: {value}");
        }
    }

    #[test]
    fn a_header_that_comes_twice_is_not_a_single_one() {
        let twice = facts(&[("Range", "bytes=0-1"), ("range", "bytes=0-1")]);
        assert!(twice.has(Facts::RANGES));
        assert!(facts(&[("range", "x"), ("Range", "bytes=0-1")]).has(Facts::RANGES));
        assert!(facts(&[("If-Match", "\"a\""), ("if-match", "\"b\"")]).has(Facts::CONDITIONAL));
        let lines = [
            (b"Authorization".as_slice(), b"a".as_slice()),
            (b"authorization", b"b"),
        ];
        assert!(RequestHeaders::parse(lines.into_iter()).authorizations);
    }
}

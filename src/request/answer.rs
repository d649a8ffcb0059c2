//! The head of an answer from the cache: what S3 would have written, plus age and cache status.
//!
//! Called by `read`. Writes into the connection's reused buffer; allocates nothing once that has grown.

use std::ops::Range;

use crate::cache::Head;
use crate::http::{Version, http_date};

/// How an answer came about, for `Cache-Status` (RFC 9211) and `X-Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// Every byte was there.
    Hit,
    /// A fill that somebody else had started brings it.
    Collapsed,
    /// Nothing was there.
    Miss,
    /// Nothing was there, and the origin's answer is not kept.
    Unstored,
    /// Known, but too old to be used without asking.
    Stale,
    /// Some of it was there.
    Partial,
    /// Passed through: this request's answers are not kept.
    Bypass,
    /// Passed through: not a read.
    Method,
}

impl CacheStatus {
    /// The value of `Cache-Status`.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Hit => "millrace; hit",
            Self::Collapsed => "millrace; fwd=uri-miss; collapsed",
            Self::Miss => "millrace; fwd=uri-miss; stored",
            Self::Unstored => "millrace; fwd=uri-miss",
            Self::Stale => "millrace; fwd=stale; stored",
            Self::Partial => "millrace; fwd=partial; stored",
            Self::Bypass => "millrace; fwd=bypass",
            Self::Method => "millrace; fwd=method",
        }
    }

    /// The value of `X-Cache-Status`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Collapsed | Self::Miss | Self::Unstored => "MISS",
            Self::Stale => "EXPIRED",
            Self::Partial => "PARTIAL",
            Self::Bypass | Self::Method => "PASS",
        }
    }
}

/// What the head of an answer depends on.
pub struct Answer<'a> {
    /// What is known of the object.
    pub head: &'a Head,
    /// The part that is sent, or `None` for 200 with everything.
    pub part: Option<Range<u64>>,
    /// Whether checksums of the whole object were asked for.
    pub checksums: bool,
    /// How it came about.
    pub status: CacheStatus,
    /// Milliseconds since the origin confirmed it.
    pub age_ms: u64,
    /// Wall clock.
    pub unix_seconds: i64,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// The client's version.
    pub version: Version,
}

/// Appends `name: number CRLF`.
fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    let mut buffer = itoa::Buffer::new();
    line(out, name, buffer.format(value).as_bytes());
}

/// Appends `name: value CRLF`; both are our own or were checked when they were parsed.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends what says whether the connection goes on, where the version's default does not say it.
pub(super) fn connection(out: &mut Vec<u8>, version: Version, keep_alive: bool) {
    match (version, keep_alive) {
        (Version::Http11, true) | (Version::Http10, false) => {}
        (Version::Http11, false) => out.extend_from_slice(b"Connection: close\r\n"),
        (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
    }
}

impl Answer<'_> {
    /// Body bytes of the answer to a GET.
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.part
            .as_ref()
            .map_or(self.head.total(), |part| part.end - part.start)
    }

    /// Appends the head with its empty line; `request_id` is what the client may ask us about.
    pub fn write(&self, request_id: &[u8], out: &mut Vec<u8>) {
        match &self.part {
            None => out.extend_from_slice(b"HTTP/1.1 200 OK\r\n"),
            Some(_) => out.extend_from_slice(b"HTTP/1.1 206 Partial Content\r\n"),
        }
        line(out, "x-amz-request-id", request_id);
        line(out, "Date", &http_date(self.unix_seconds.max(0) as u64));
        out.extend_from_slice(self.head.lines());
        if let Some(part) = &self.part {
            self.content_range(part, out);
        } else if self.checksums {
            out.extend_from_slice(self.head.checksum_lines());
        }
        number(out, "Content-Length", self.body_bytes());
        number(out, "Age", self.age_ms / 1000);
        line(out, "Cache-Status", self.status.field().as_bytes());
        line(out, "X-Cache-Status", self.status.word().as_bytes());
        connection(out, self.version, self.keep_alive);
        out.extend_from_slice(b"\r\n");
    }

    fn content_range(&self, part: &Range<u64>, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(b"Content-Range: bytes ");
        out.extend_from_slice(buffer.format(part.start).as_bytes());
        out.push(b'-');
        out.extend_from_slice(buffer.format(part.end - 1).as_bytes());
        out.push(b'/');
        out.extend_from_slice(buffer.format(self.head.total()).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

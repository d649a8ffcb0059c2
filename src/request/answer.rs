//! The head of an answer from the cache: what S3 would have written, plus age and cache status.
//!
//! Called by `read`. Writes into the connection's reused buffer; allocates nothing once that has grown.

use std::ops::Range;
use std::sync::Arc;

use crate::cache::Head;
use crate::cache::head::lines_of;
use crate::cache::parts::Part;
use crate::http::{HTTP_DATE_BYTES, Headers, Version};
use crate::s3::{
    ErrorCode, Overrides, Unmet, is_overridden, write_invalid_range_xml,
    write_precondition_failed_xml,
};

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
    /// Known, but too old to be used without asking; fetched again, or more of it fetched.
    Stale,
    /// The same, and the origin's answer is not kept.
    StaleUnstored,
    /// Known, and the origin says that it still holds.
    Revalidated,
    /// The same, said by an origin that sent it again.
    RevalidatedAnew,
    /// Some of it was there.
    Partial,
    /// Every byte was there, past its time; the origin fails.
    StaleIfError,
    /// Every byte was there, past its time; the origin is asked meanwhile.
    StaleWhileRevalidate,
    /// Every byte was there, past its time, which the client does not mind.
    MaxStale,
    /// Passed through: this request's answers are not kept.
    Bypass,
    /// Passed through: not a read.
    Method,
}

impl CacheStatus {
    /// Known, and confirmed by the origin with this status.
    #[must_use]
    pub fn revalidated(status: u16) -> Self {
        match status {
            304 => Self::Revalidated,
            _ => Self::RevalidatedAnew,
        }
    }

    /// Appends the lines that say it, and that a fallback was asked in the place of its origin.
    pub fn write(self, by_fallback: bool, out: &mut Vec<u8>) {
        let lines = self.lines();
        let parts = by_fallback.then(|| lines.split_once("\r\n")).flatten();
        match parts {
            Some((first, rest)) if !first.contains("; detail=") => {
                for part in [first, "; detail=fallback\r\n", rest] {
                    out.extend_from_slice(part.as_bytes());
                }
            }
            _ => out.extend_from_slice(lines.as_bytes()),
        }
    }

    /// The lines that say it.
    #[must_use]
    fn lines(self) -> &'static str {
        match self {
            Self::Hit => "Cache-Status: millrace; hit\r\nX-Cache-Status: HIT\r\n",
            Self::Collapsed => {
                "Cache-Status: millrace; fwd=uri-miss; collapsed\r\nX-Cache-Status: MISS\r\n"
            }
            Self::Miss => {
                "Cache-Status: millrace; fwd=uri-miss; stored\r\nX-Cache-Status: MISS\r\n"
            }
            Self::Unstored => "Cache-Status: millrace; fwd=uri-miss\r\nX-Cache-Status: MISS\r\n",
            Self::Stale => {
                "Cache-Status: millrace; fwd=stale; stored\r\nX-Cache-Status: EXPIRED\r\n"
            }
            Self::StaleUnstored => {
                "Cache-Status: millrace; fwd=stale\r\nX-Cache-Status: EXPIRED\r\n"
            }
            Self::Revalidated => {
                "Cache-Status: millrace; fwd=stale; fwd-status=304\r\nX-Cache-Status: REVALIDATED\r\n"
            }
            Self::RevalidatedAnew => {
                "Cache-Status: millrace; fwd=stale; fwd-status=200\r\nX-Cache-Status: REVALIDATED\r\n"
            }
            Self::Partial => {
                "Cache-Status: millrace; fwd=partial; stored\r\nX-Cache-Status: PARTIAL\r\n"
            }
            Self::StaleIfError => {
                "Cache-Status: millrace; hit; detail=stale-if-error\r\nX-Cache-Status: STALE\r\n"
            }
            Self::StaleWhileRevalidate => {
                "Cache-Status: millrace; hit; detail=stale-while-revalidate\r\nX-Cache-Status: STALE\r\n"
            }
            Self::MaxStale => {
                "Cache-Status: millrace; hit; detail=max-stale\r\nX-Cache-Status: STALE\r\n"
            }
            Self::Bypass => "Cache-Status: millrace; fwd=bypass\r\nX-Cache-Status: PASS\r\n",
            Self::Method => "Cache-Status: millrace; fwd=method\r\nX-Cache-Status: PASS\r\n",
        }
    }
}

/// What conditions decide instead of an answer with the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The client has it.
    NotModified,
    /// A condition does not hold.
    Failed(Unmet),
    /// The object has no byte of the range.
    Unsatisfiable,
}

impl Reason {
    /// The status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NotModified => 304,
            Self::Failed(_) => ErrorCode::PreconditionFailed.status(),
            Self::Unsatisfiable => ErrorCode::InvalidRange.status(),
        }
    }
}

/// The stored lines that a 304 has (RFC 9110, section 15.4.5), and what S3 sends beside them.
const ON_304: [&str; 9] = [
    "cache-control",
    "content-location",
    "etag",
    "expires",
    "last-modified",
    "server",
    "vary",
    "x-amz-server-side-encryption",
    "x-amz-version-id",
];

/// Room for what an answer's head has beside the stored lines, and more.
const HEAD_BYTES: usize = 512;

/// What an answer's head has beside, or instead of, the stored lines; nothing for most reads.
#[derive(Default)]
pub struct Besides<'a> {
    /// Lines that the request wants otherwise.
    pub overrides: Option<&'a Overrides<'a>>,
    /// The part that was asked for by its number.
    pub part: Option<Arc<Part>>,
    /// The request's headers, for the text of a 416.
    pub headers: Option<&'a Headers<'a>>,
}

/// What the head of an answer depends on.
pub struct Answer<'a> {
    /// What is known of the object.
    pub head: &'a Head,
    /// The part that is sent, or `None` for 200 with everything.
    pub part: Option<Range<u64>>,
    /// Whether checksums were asked for.
    pub checksums: bool,
    /// What it has beside the stored lines.
    pub besides: Besides<'a>,
    /// How it came about.
    pub status: CacheStatus,
    /// Its age in milliseconds: since the origin confirmed it, and what it was old then where the origin decides.
    pub age_ms: u64,
    /// `Date`.
    pub date: [u8; HTTP_DATE_BYTES],
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

/// Appends stored lines with what the request wants otherwise in the place of its own.
fn write_overridden(lines: &[u8], overrides: &Overrides<'_>, out: &mut Vec<u8>) {
    let mask = overrides.mask();
    for line in lines_of(lines).filter(|line| !is_overridden(mask, line.name)) {
        out.extend_from_slice(line.raw);
    }
    overrides.write(out);
}

impl Answer<'_> {
    /// Appends the head with its empty line; `request_id` is what the client may ask us about.
    pub fn write(&self, request_id: &[u8], out: &mut Vec<u8>) {
        out.reserve(HEAD_BYTES + self.head.whole_lines(true).len());
        out.extend_from_slice(match &self.part {
            None => b"HTTP/1.1 200 OK\r\nx-amz-request-id: ",
            Some(_) => b"HTTP/1.1 206 Partial Content\r\nx-amz-request-id: ",
        });
        out.extend_from_slice(request_id);
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&self.date);
        out.extend_from_slice(b"\r\n");
        match (&self.part, self.besides.overrides) {
            (None, None) => out.extend_from_slice(self.head.whole_lines(self.checksums)),
            (None, Some(overrides)) => write_overridden(self.whole_lines(), overrides, out),
            (Some(_), None) => out.extend_from_slice(self.head.lines()),
            (Some(_), Some(overrides)) => write_overridden(self.head.lines(), overrides, out),
        }
        if let Some(part) = &self.part {
            self.content_range(part, out);
            number(out, "Content-Length", part.end - part.start);
        }
        if let Some(part) = &self.besides.part {
            self.part_lines(part, out);
        }
        self.end(out);
    }

    fn whole_lines(&self) -> &[u8] {
        self.head.whole_lines(self.checksums)
    }

    fn part_lines(&self, part: &Part, out: &mut Vec<u8>) {
        if let Some(count) = part.count {
            number(out, "x-amz-mp-parts-count", u64::from(count));
        }
        if let Some(lines) = part.checksums.as_deref().filter(|_| self.checksums) {
            out.extend_from_slice(lines);
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        number(out, "Age", self.age_ms / 1000);
        self.status.write(self.head.is_by_fallback(), out);
        connection(out, self.version, self.keep_alive);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a whole answer that conditions decide; gives the length of its body.
    pub fn write_without(
        &self,
        reason: Reason,
        request_id: &[u8],
        is_head: bool,
        out: &mut Vec<u8>,
    ) -> usize {
        out.extend_from_slice(match reason {
            Reason::NotModified => b"HTTP/1.1 304 Not Modified\r\nx-amz-request-id: ",
            Reason::Failed(_) => b"HTTP/1.1 412 Precondition Failed\r\nx-amz-request-id: ",
            Reason::Unsatisfiable => {
                b"HTTP/1.1 416 Requested Range Not Satisfiable\r\nx-amz-request-id: "
            }
        });
        out.extend_from_slice(request_id);
        out.extend_from_slice(b"\r\nDate: ");
        out.extend_from_slice(&self.date);
        out.extend_from_slice(b"\r\n");
        let id = std::str::from_utf8(request_id).unwrap_or_default();
        let mut body = Vec::new();
        match reason {
            Reason::NotModified => {
                let lines = lines_of(self.head.lines());
                lines
                    .filter(|line| ON_304.iter().any(|name| line.is(name)))
                    .for_each(|line| out.extend_from_slice(line.raw));
                self.end(out);
                return 0;
            }
            Reason::Failed(unmet) => write_precondition_failed_xml(&mut body, unmet.name(), id),
            Reason::Unsatisfiable => {
                let total = self.head.total();
                let range = self
                    .besides
                    .headers
                    .and_then(|headers| headers.find("range"));
                let range = range.unwrap_or_default();
                let range = String::from_utf8_lossy(range);
                write_invalid_range_xml(&mut body, &range, total, id);
                out.extend_from_slice(b"Content-Range: bytes */");
                out.extend_from_slice(itoa::Buffer::new().format(total).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        line(out, "Content-Type", b"application/xml");
        number(out, "Content-Length", body.len() as u64);
        self.end(out);
        if is_head {
            return 0;
        }
        out.extend_from_slice(&body);
        body.len()
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

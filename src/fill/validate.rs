//! Is this response what was asked for? Every 200 and 206 passes here before a byte is kept. Pure.
//!
//! Called by `open`. A response that is not exactly right is not an error: it is passed on to the client that asked, as the origin meant it,
//! and nothing of it is kept.

use std::ops::Range;
use std::sync::Arc;

use crate::cache::head::{HeadParts, version_digest};
use crate::cache::parts::{CHECKSUM_BYTES_MAX, Part};
use crate::http::{Method, ResponseBody, ResponseControl, ResponseHead};
use crate::s3::{ContentRange, RangeSpec, Resolved, is_checksum, is_overridden, is_stored};

use super::template::Ranged;

/// What was asked, as far as the answer depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// GET or HEAD.
    pub method: Method,
    /// The range that the origin saw.
    pub ranged: &'a Ranged,
    /// Whether checksums of the whole object were asked for.
    pub wants_checksums: bool,
    /// Whether a 200 with everything is as good: the range was put in for speed, and the origin does not know ranges.
    pub whole_will_do: bool,
    /// The largest object that is kept.
    pub object_bytes_max: u64,
    /// Whether the origin decides what is kept.
    pub by_origin: bool,
    /// Headers that the request has overridden: a mask of [`crate::s3::Overrides`].
    pub overridden: u8,
}

/// Why a successful response is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// No strong validator: versions could not be told apart.
    #[error("the response has no strong ETag")]
    NoStrongEtag,
    /// The body's length is not announced.
    #[error("the response does not announce its length")]
    NoLength,
    /// 200 to a range, or 206 without one being asked.
    #[error("status {status} is not the one for this request")]
    Status {
        /// What came.
        status: u16,
    },
    /// `Content-Range` is missing or not the one asked for.
    #[error("Content-Range is missing or not what was asked for")]
    ContentRange,
    /// `Content-Length` and `Content-Range` disagree.
    #[error("Content-Length {length} does not fit the range of {range} bytes")]
    Length {
        /// `Content-Length`.
        length: u64,
        /// Bytes of the range.
        range: u64,
    },
    /// `x-amz-mp-parts-count` cannot be read.
    #[error("x-amz-mp-parts-count of part {number} cannot be read")]
    PartsCount {
        /// The part that was asked for.
        number: u32,
    },
    /// Larger than what is kept.
    #[error("the object has {total} bytes, more than is kept")]
    TooLarge {
        /// Bytes of the object.
        total: u64,
    },
    /// The response varies by something else than its URL.
    #[error("the response varies by request headers")]
    Varies,
    /// The origin does not want it to be kept.
    #[error("the origin forbids shared caches to keep it")]
    Forbidden,
}

/// A response that may be kept.
#[derive(Debug)]
pub struct Fit {
    /// The head of the object's version (key and time are the caller's to fill in).
    pub parts: HeadParts,
    /// The absolute bytes that the body brings; empty for HEAD and empty objects.
    pub span: Range<u64>,
}

impl Fit {
    /// Digest of the version.
    #[must_use]
    pub fn version(&self) -> u128 {
        version_digest(&self.parts.etag, self.parts.total)
    }
}

/// Whether a 200 or 206 is exactly what was asked for.
///
/// # Errors
/// Why it is not kept.
pub fn validate(question: Question<'_>, head: &ResponseHead<'_>) -> Result<Fit, Unfit> {
    let etag = strong_etag(head).ok_or(Unfit::NoStrongEtag)?;
    if varies(head) {
        return Err(Unfit::Varies);
    }
    if question.by_origin && is_forbidden(head) {
        return Err(Unfit::Forbidden);
    }
    let mut part = None;
    let (span, total) = if let Some(number) = question.ranged.part() {
        let (found, total) = part_read(number, question, head)?;
        let span = match question.method {
            Method::Head => 0..0,
            _ => found.range.clone(),
        };
        part = Some(Arc::new(found));
        (span, total)
    } else if question.method == Method::Head {
        (0..0, declared_length(head)?)
    } else {
        body_span(question, head)?
    };
    if total > question.object_bytes_max {
        return Err(Unfit::TooLarge { total });
    }
    let (lines, checksum_lines) = stored_lines(head, question.overridden);
    let whole = head.status == 200;
    Ok(Fit {
        parts: HeadParts {
            etag: etag.into(),
            total,
            lines,
            checksum_lines: if whole {
                checksum_lines
            } else {
                Box::default()
            },
            checksums_known: whole && question.wants_checksums,
            lacks: question.overridden,
            part,
            ..HeadParts::default()
        },
        span,
    })
}

/// Whether the origin does not want a shared cache to keep this, 200, 206 or 304.
pub fn is_forbidden(head: &ResponseHead<'_>) -> bool {
    !ResponseControl::of(head.headers.find_all("cache-control")).may_be_kept()
}

/// The one ETag of an answer, if it is a strong one.
pub fn strong_etag<'h>(head: &ResponseHead<'h>) -> Option<&'h [u8]> {
    if head.headers.count("etag") != 1 {
        return None;
    }
    head.headers
        .find("etag")
        .filter(|etag| !etag.is_empty() && !etag.starts_with(b"W/"))
}

/// Whether an answer, 200, 206 or 304, is for those only who ask with the same headers.
pub fn varies(head: &ResponseHead<'_>) -> bool {
    !cors_vary_only(head)
}

/// S3 answers buckets with CORS rules with `Vary: Origin, Access-Control-Request-Headers, Access-Control-Request-Method` to everybody;
/// requests with `Origin` are never answered from the cache, so that this triple says nothing about what is kept.
/// All lines together are one list, and a list may have empty elements (RFC 9110, sections 5.3 and 5.6.1).
fn cors_vary_only(head: &ResponseHead<'_>) -> bool {
    head.headers.find_all("vary").all(|value| {
        value.split(|&byte| byte == b',').all(|token| {
            let token = token.trim_ascii();
            let names: [&[u8]; 3] = [
                b"origin",
                b"access-control-request-headers",
                b"access-control-request-method",
            ];
            token.is_empty() || names.iter().any(|name| token.eq_ignore_ascii_case(name))
        })
    })
}

/// `Content-Length` of a HEAD answer: the object's length, though no body follows.
fn declared_length(head: &ResponseHead<'_>) -> Result<u64, Unfit> {
    if head.status != 200 {
        return Err(Unfit::Status {
            status: head.status,
        });
    }
    let text = head
        .headers
        .find("content-length")
        .and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok())
        .ok_or(Unfit::NoLength)
}

fn body_span(question: Question<'_>, head: &ResponseHead<'_>) -> Result<(Range<u64>, u64), Unfit> {
    let ResponseBody::Length(length) = head.body else {
        return Err(Unfit::NoLength);
    };
    match (head.status, question.ranged.spec()) {
        (200, None) if head.headers.find("content-range").is_none() => Ok((0..length, length)),
        (200, Some(_))
            if question.whole_will_do && head.headers.find("content-range").is_none() =>
        {
            Ok((0..length, length))
        }
        (206, Some(spec)) => part_span(spec, length, head),
        (status, _) => Err(Unfit::Status { status }),
    }
}

fn part_span(
    spec: RangeSpec,
    length: u64,
    head: &ResponseHead<'_>,
) -> Result<(Range<u64>, u64), Unfit> {
    let (range, total) = content_range(head)?;
    if spec.resolve(total) != Resolved::Part(range.clone()) {
        return Err(Unfit::ContentRange);
    }
    fits_length(&range, length)?;
    Ok((range, total))
}

/// The bytes that a 206 says it has, and the object's length.
fn content_range(head: &ResponseHead<'_>) -> Result<(Range<u64>, u64), Unfit> {
    let value = head.headers.find("content-range");
    match value.and_then(ContentRange::parse) {
        Some(ContentRange::Part { range, total }) => Ok((range, total)),
        _ => Err(Unfit::ContentRange),
    }
}

fn fits_length(range: &Range<u64>, length: u64) -> Result<(), Unfit> {
    let bytes = range.end - range.start;
    if bytes != length {
        return Err(Unfit::Length {
            length,
            range: bytes,
        });
    }
    Ok(())
}

/// What an answer to `partNumber` says of the part, and the object's length. S3 answers a GET and a HEAD alike with 206 and `Content-Range`; a
/// `Content-Length` alone would be the part's and say nothing of the object.
fn part_read(
    number: u32,
    question: Question<'_>,
    head: &ResponseHead<'_>,
) -> Result<(Part, u64), Unfit> {
    if head.status != 206 {
        return Err(Unfit::Status {
            status: head.status,
        });
    }
    let length = declared_number(head, "content-length").ok_or(Unfit::NoLength)?;
    let is_head = question.method == Method::Head;
    if !is_head && head.body != ResponseBody::Length(length) {
        return Err(Unfit::NoLength);
    }
    let (range, total) = content_range(head)?;
    fits_length(&range, length)?;
    // Parts have numbers of their own choice: one may be larger than there are parts.
    let count = head.headers.find(PARTS_COUNT).map(|_| {
        let count = declared_number(head, PARTS_COUNT)?;
        u32::try_from(count).ok().filter(|count| *count > 0)
    });
    if count == Some(None) {
        return Err(Unfit::PartsCount { number });
    }
    let (_, lines) = stored_lines(head, 0);
    let checksums = question.wants_checksums && lines.len() <= CHECKSUM_BYTES_MAX;
    let part = Part {
        number,
        range,
        count: count.flatten(),
        checksums: checksums.then_some(lines),
    };
    Ok((part, total))
}

/// How many parts there are, on answers to reads of one.
const PARTS_COUNT: &str = "x-amz-mp-parts-count";

/// A header that comes once and is a number.
fn declared_number(head: &ResponseHead<'_>, name: &str) -> Option<u64> {
    let text = head
        .headers
        .find(name)
        .filter(|_| head.headers.count(name) == 1)?;
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

fn stored_lines(head: &ResponseHead<'_>, overridden: u8) -> (Box<[u8]>, Box<[u8]>) {
    let (mut lines, mut checksums) = (Vec::new(), Vec::new());
    for line in head.headers.lines() {
        if is_checksum(line.name) {
            checksums.extend_from_slice(line.raw);
        } else if is_stored(line.name)
            && !is_overridden(overridden, line.name.as_bytes())
            && !crate::http::is_hop_by_hop(line.name, &head.headers)
        {
            lines.extend_from_slice(line.raw);
        }
    }
    (lines.into_boxed_slice(), checksums.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, parse_response};

    fn check(ranged: &Ranged, method: Method, raw: &str) -> Result<Fit, Unfit> {
        let raw = raw.replace('\n', "\r\n") + "\r\n";
        let limits = HeadLimits {
            head_bytes_max: 8192,
            headers_max: 64,
        };
        let head = parse_response(raw.as_bytes(), method, &limits)
            .unwrap()
            .unwrap();
        validate(
            Question {
                method,
                ranged,
                wants_checksums: false,
                whole_will_do: false,
                object_bytes_max: 1 << 40,
                by_origin: raw.contains("By-Origin"),
                overridden: 0,
            },
            &head,
        )
    }
    fn part(first: u64, last: u64) -> Ranged {
        Ranged::Spec(RangeSpec::FromTo(first, last))
    }

    #[test]
    fn a_plain_200_with_length_and_etag_fits() {
        let raw = "HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 5\nx-amz-meta-A: b\nDate: x\nConnection: close\n";
        let fit = check(&Ranged::Whole, Method::Get, raw).unwrap();
        assert_eq!((fit.span, fit.parts.total), (0..5, 5));
        let lines = String::from_utf8(fit.parts.lines.to_vec()).unwrap();
        assert_eq!(lines, "ETag: \"e\"\r\nx-amz-meta-A: b\r\n");
    }

    #[test]
    fn a_206_must_be_the_range_that_was_asked_for() {
        let answer = |range: &str, length: u64| {
            format!(
                "HTTP/1.1 206 P\nETag: \"e\"\nContent-Length: {length}\nContent-Range: bytes {range}\n"
            )
        };
        let fit = check(&part(10, 19), Method::Get, &answer("10-19/100", 10)).unwrap();
        assert_eq!((fit.span, fit.parts.total), (10..20, 100));
        assert!(check(&part(90, 190), Method::Get, &answer("90-99/100", 10)).is_ok());
        for (range, length) in [
            ("11-19/100", 9),
            ("10-18/100", 9),
            ("10-19/15", 10),
            ("10-19/*", 10),
            ("10-19/100", 11),
        ] {
            assert!(
                check(&part(10, 19), Method::Get, &answer(range, length)).is_err(),
                "{range} {length}"
            );
        }
        assert!(check(&Ranged::Whole, Method::Get, &answer("0-9/10", 10)).is_err());
    }

    /// Reference 2B.36, 2B.37 and 2L.191.
    #[test]
    fn a_part_is_where_content_range_says_and_nowhere_else() {
        let answer = |status: u16, lines: &str| {
            format!("HTTP/1.1 {status} P\nETag: \"e-3\"\nContent-Length: 10\n{lines}")
        };
        let placed =
            "Content-Range: bytes 10-19/25\nx-amz-mp-parts-count: 3\nx-amz-checksum-crc32: a\n";
        for (method, span) in [(Method::Get, 10..20), (Method::Head, 0..0)] {
            let fit = check(&Ranged::Part(2), method, &answer(206, placed)).unwrap();
            assert_eq!((fit.span, fit.parts.total), (span, 25));
            let part = fit.parts.part.unwrap();
            assert_eq!(
                (part.number, part.range.clone(), part.count),
                (2, 10..20, Some(3))
            );
            // They were not asked for.
            assert_eq!(
                (&part.checksums, fit.parts.checksum_lines.len()),
                (&None, 0)
            );
        }
        for (status, lines) in [
            (200, placed),
            (206, "x-amz-mp-parts-count: 3\n"),
            (206, "Content-Range: bytes 10-18/25\n"),
            (206, "Content-Range: bytes */25\n"),
            (206, "Content-Range: bytes 10-9/25\n"),
            (
                206,
                "Content-Range: bytes 0-18446744073709551615/18446744073709551615\n",
            ),
            (
                206,
                "Content-Range: bytes 10-19/25\nx-amz-mp-parts-count: x\n",
            ),
            (
                206,
                "Content-Range: bytes 10-19/25\nx-amz-mp-parts-count: 0\n",
            ),
            (
                206,
                "Content-Range: bytes 10-19/25\nx-amz-mp-parts-count: 99999999999\n",
            ),
        ] {
            for method in [Method::Get, Method::Head] {
                let fit = check(&Ranged::Part(2), method, &answer(status, lines));
                assert!(fit.is_err(), "{status} {lines}");
            }
        }
    }

    #[test]
    fn a_200_to_a_range_is_not_stored_as_the_range() {
        let raw = "HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 10\n";
        assert!(matches!(
            check(&part(0, 9), Method::Get, raw),
            Err(Unfit::Status { status: 200 })
        ));
    }

    #[test]
    fn without_a_strong_etag_or_a_length_nothing_is_kept() {
        for raw in [
            "HTTP/1.1 200 OK\nContent-Length: 5\n",
            "HTTP/1.1 200 OK\nETag: W/\"e\"\nContent-Length: 5\n",
            "HTTP/1.1 200 OK\nETag: \"e\"\nETag: \"f\"\nContent-Length: 5\n",
            "HTTP/1.1 200 OK\nETag: \"e\"\nTransfer-Encoding: chunked\n",
            "HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 5\nVary: User-Agent\n",
        ] {
            assert!(check(&Ranged::Whole, Method::Get, raw).is_err(), "{raw}");
        }
    }

    /// RFC 9111, section 3.
    #[test]
    fn what_the_origin_forbids_is_not_kept_where_it_decides() {
        let check = |lines: &str| {
            let raw = format!("HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 5\n{lines}");
            check(&Ranged::Whole, Method::Get, &raw).map(|_| ())
        };
        for (control, kept) in [
            ("no-store", false),
            ("max-age=60\nCache-Control: private", false),
            ("no-cache", true),
            ("max-age=0", true),
        ] {
            let line = format!("Cache-Control: {control}\n");
            assert_eq!(check(&line), Ok(()), "{control}");
            let want = if kept { Ok(()) } else { Err(Unfit::Forbidden) };
            assert_eq!(check(&format!("{line}By-Origin: yes\n")), want, "{control}");
        }
    }

    #[test]
    fn a_head_answer_brings_the_length_and_no_bytes() {
        let raw = "HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 12345\n";
        let fit = check(&Ranged::Whole, Method::Head, raw).unwrap();
        assert_eq!((fit.span, fit.parts.total), (0..0, 12345));
    }

    #[test]
    fn every_line_of_vary_is_judged() {
        let vary = |lines: &str| {
            let raw = format!("HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 5\n{lines}");
            check(&Ranged::Whole, Method::Get, &raw).map(|_| ())
        };
        for lines in [
            "Vary:\nVary: User-Agent\n",
            "Vary: Origin\nVary: User-Agent\n",
            "Vary: User-Agent\nVary:\n",
            "Vary: ,Accept\n",
            "Vary:\nVary: *\n",
        ] {
            assert_eq!(vary(lines), Err(Unfit::Varies), "{lines}");
        }
        for lines in ["", "Vary:\n", "Vary:\nVary: Origin\n", "Vary: , Origin,\n"] {
            assert_eq!(vary(lines), Ok(()), "{lines}");
        }
    }

    #[test]
    fn the_cors_triple_does_not_keep_a_response_out() {
        let raw = "HTTP/1.1 200 OK\nETag: \"e\"\nContent-Length: 5\nVary: Origin, Access-Control-Request-Headers, Access-Control-Request-Method\n";
        assert!(check(&Ranged::Whole, Method::Get, raw).is_ok());
    }
}

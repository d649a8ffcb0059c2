//! What a 304 says of the version that is known: RFC 9111, sections 3.2 and 4.3.4. Pure.
//!
//! Called by `open`. A 304 renews the head it is about, with the headers it brings.

use crate::cache::Head;
use crate::cache::head::{HeadParts, lines_of};
use crate::http::{ResponseHead, is_hop_by_hop};
use crate::s3::{is_checksum, is_overridden, is_stored};

/// What the origin said with a 304.
#[derive(Debug)]
pub enum Confirmed {
    /// The version still holds; this is its head now (the time is the caller's to fill in).
    Same(HeadParts),
    /// The bytes still hold, but their object was written again: its headers may be others, and a 304 does not have them all.
    Rewritten,
    /// Another version is current.
    Other,
    /// It was said of the client's own condition, which does not tell which version is current.
    Unclear,
}

/// Headers of which a 304 has none, or its own instead of the object's.
const NOT_FROM_304: [&str; 3] = ["content-encoding", "content-type", "etag"];

/// Reads a 304. `own`: the condition was ours, on the version of `known` alone. `overridden`: headers that the request had otherwise.
#[must_use]
pub fn confirmed(known: &Head, answer: &ResponseHead<'_>, own: bool, overridden: u8) -> Confirmed {
    match answer.headers.find("etag") {
        Some(etag) if opaque(etag) != opaque(known.etag()) => return Confirmed::Other,
        None if !own => return Confirmed::Unclear,
        Some(_) | None => {}
    }
    let modified = answer.headers.find("last-modified");
    if modified.is_some_and(|date| known.line("last-modified").is_some_and(|old| old != date)) {
        return Confirmed::Rewritten;
    }
    Confirmed::Same(HeadParts {
        key: known.key().into(),
        etag: known.etag().into(),
        total: known.total(),
        lines: merged(known.lines(), answer, overridden),
        lacks: known.lacks(),
        checksum_lines: known.checksum_lines().into(),
        checksums_known: known.checksums_known(),
        ..HeadParts::default()
    })
}

/// A tag as it is compared here: some servers weaken it on a 304.
fn opaque(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

fn updates(name: &str, answer: &ResponseHead<'_>, overridden: u8) -> bool {
    is_stored(name)
        && !is_overridden(overridden, name.as_bytes())
        && !is_checksum(name)
        && !is_hop_by_hop(name, &answer.headers)
        && !NOT_FROM_304
            .iter()
            .any(|own| name.eq_ignore_ascii_case(own))
}

/// The stored lines with those of the answer in the place of the first of their name, or at the end.
fn merged(stored: &[u8], answer: &ResponseHead<'_>, overridden: u8) -> Box<[u8]> {
    let mut out = Vec::with_capacity(stored.len() + 128);
    let mut placed: Vec<&str> = Vec::new();
    let is_placed =
        |placed: &[&str], name: &str| placed.iter().any(|known| known.eq_ignore_ascii_case(name));
    for line in lines_of(stored) {
        let mut newer = answer
            .headers
            .lines()
            .filter(|new| line.is(new.name) && updates(new.name, answer, overridden))
            .peekable();
        let Some(first) = newer.peek().map(|new| new.name) else {
            out.extend_from_slice(line.raw);
            continue;
        };
        if !is_placed(&placed, first) {
            placed.push(first);
            newer.for_each(|new| out.extend_from_slice(new.raw));
        }
    }
    for new in answer.headers.lines() {
        if updates(new.name, answer, overridden) && !is_placed(&placed, new.name) {
            out.extend_from_slice(new.raw);
        }
    }
    out.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Method, parse_response};

    fn known() -> Head {
        let lines = "ETag: \"e\"\r\nLast-Modified: Wed, 12 Aug 2026 10:00:00 GMT\r\nContent-Type: text/csv\r\nx-amz-meta-A: 1\r\nX-Two: a\r\nX-Two: b\r\nServer: S\r\n";
        Head::new(
            7,
            HeadParts {
                key: (*b"b/k").into(),
                etag: (*b"\"e\"").into(),
                total: 10,
                lines: lines.as_bytes().into(),
                ..HeadParts::default()
            },
        )
    }

    fn read(lines: &str, own: bool) -> Confirmed {
        let raw = format!("HTTP/1.1 304 Not Modified\n{lines}\n").replace('\n', "\r\n");
        let limits = HeadLimits {
            head_bytes_max: 8192,
            headers_max: 64,
        };
        let head = parse_response(raw.as_bytes(), Method::Get, &limits)
            .unwrap()
            .unwrap();
        confirmed(&known(), &head, own, 0)
    }

    fn lines_after(lines: &str) -> String {
        match read(lines, true) {
            Confirmed::Same(parts) => String::from_utf8(parts.lines.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_304_renews_what_it_names_and_nothing_else() {
        let before = String::from_utf8(known().lines().to_vec()).unwrap();
        assert_eq!(
            lines_after("ETag: \"e\"\nDate: x\nx-amz-request-id: 1\n"),
            before
        );
        assert_eq!(lines_after(""), before);
        let after = lines_after(
            "x-amz-meta-a: 2\nX-Two: c\nX-New: n\nConnection: X-Hop\nX-Hop: 1\nContent-Type: application/xml\nContent-Length: 3\n",
        );
        assert_eq!(
            after,
            "ETag: \"e\"\r\nLast-Modified: Wed, 12 Aug 2026 10:00:00 GMT\r\nContent-Type: text/csv\r\nx-amz-meta-a: 2\r\nX-Two: c\r\nServer: S\r\nX-New: n\r\n"
        );
        assert!(lines_after("X-Two: c\nX-Two: d\n").contains("X-Two: c\r\nX-Two: d\r\nServer"));
    }

    #[test]
    fn which_version_a_304_is_about_by_table() {
        let same = "Last-Modified: Wed, 12 Aug 2026 10:00:00 GMT\n";
        assert!(matches!(read(same, true), Confirmed::Same(_)));
        assert!(matches!(read("ETag: W/\"e\"\n", true), Confirmed::Same(_)));
        assert!(matches!(read("ETag: \"e\"\n", false), Confirmed::Same(_)));
        assert!(matches!(read(same, false), Confirmed::Unclear));
        assert!(matches!(read("ETag: \"f\"\n", true), Confirmed::Other));
        let later = "Last-Modified: Wed, 12 Aug 2026 10:00:01 GMT\n";
        assert!(matches!(read(later, true), Confirmed::Rewritten));
    }
}

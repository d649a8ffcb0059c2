//! `Range` as S3 reads it: one range or the whole object.
//!
//! Called by the answers of the fault origin. Invariant: total; every value gives one of three outcomes. S3 answers a
//! malformed value and more than one range with 200 and the whole object, and a range that no byte satisfies with
//! 416 (RFC 9110 section 14). Left to others: `If-Range`, headers.

use std::ops::Range;

/// What a `Range` value asks of an object of a known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// 200: no range, a malformed one, or several.
    Whole,
    /// 206: this half-open interval, never empty.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

/// Reads a `Range` value against an object of `total` bytes.
pub fn wanted(value: Option<&str>, total: u64) -> Wanted {
    let Some(value) = value else {
        return Wanted::Whole;
    };
    let Some((unit, set)) = value.trim().split_once('=') else {
        return Wanted::Whole;
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return Wanted::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Number::Empty, Number::Is(suffix)) => match suffix.min(total) {
            0 => Wanted::Unsatisfiable,
            len => Wanted::Part(total - len..total),
        },
        (Number::Is(start), Number::Empty) => part(start, total, total),
        (Number::Is(start), Number::Is(end)) if start <= end => {
            part(start, end.saturating_add(1), total)
        }
        _ => Wanted::Whole,
    }
}

fn part(start: u64, end: u64, total: u64) -> Wanted {
    if start >= total {
        Wanted::Unsatisfiable
    } else {
        Wanted::Part(start..end.min(total))
    }
}

enum Number {
    Empty,
    Is(u64),
    Bad,
}

/// Digits only; what is too large for 64 bits is past every end.
fn number(text: &str) -> Number {
    if text.is_empty() {
        return Number::Empty;
    }
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Number::Bad;
    }
    Number::Is(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::Wanted::{Part, Unsatisfiable, Whole};
    use super::*;

    #[test]
    fn ranges_are_read_as_s3_reads_them() {
        let table: &[(Option<&str>, u64, Wanted)] = &[
            (None, 100, Whole),
            (Some("bytes=0-0"), 100, Part(0..1)),
            (Some("bytes=0-99"), 100, Part(0..100)),
            (Some("bytes=10-19"), 100, Part(10..20)),
            (Some("bytes=90-1000"), 100, Part(90..100)),
            (Some("bytes=99-"), 100, Part(99..100)),
            (Some("bytes=0-"), 100, Part(0..100)),
            (Some("bytes=-1"), 100, Part(99..100)),
            (Some("bytes=-100"), 100, Part(0..100)),
            (Some("bytes=-1000"), 100, Part(0..100)),
            (Some("BYTES=1-2"), 100, Part(1..3)),
            (Some(" bytes=1-2 "), 100, Part(1..3)),
            (Some("bytes=5-99999999999999999999999"), 100, Part(5..100)),
            (Some("bytes=100-"), 100, Unsatisfiable),
            (Some("bytes=100-200"), 100, Unsatisfiable),
            (Some("bytes=99999999999999999999999-"), 100, Unsatisfiable),
            (Some("bytes=-0"), 100, Unsatisfiable),
            (Some("bytes=0-"), 0, Unsatisfiable),
            (Some("bytes=0-0"), 0, Unsatisfiable),
            (Some("bytes=-5"), 0, Unsatisfiable),
            (Some("bytes=5-4"), 100, Whole),
            (Some("bytes=-"), 100, Whole),
            (Some("bytes="), 100, Whole),
            (Some("bytes=a-b"), 100, Whole),
            (Some("bytes=1"), 100, Whole),
            (Some("bytes=+1-2"), 100, Whole),
            (Some("bytes=1 -2"), 100, Whole),
            (Some("bytes 1-2"), 100, Whole),
            (Some("bytes=0-1,4-5"), 100, Whole),
            (Some("bytes=0-1,"), 100, Whole),
            (Some("items=0-1"), 100, Whole),
            (Some(""), 100, Whole),
        ];
        for (value, total, want) in table {
            assert_eq!(&wanted(*value, *total), want, "{value:?} of {total}");
        }
    }
}

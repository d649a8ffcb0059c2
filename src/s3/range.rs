//! Byte ranges: what a `Range` header asks for, what that means for an object of a known length, and the
//! `Content-Range` that says so.
//!
//! Called by `operation` for requests, by `request` and `fill` for answers. Inclusive bounds exist on the wire
//! only; inside everything is half-open.
//!
//! The rules are RFC 9110, section 14, as S3 applies them: a header that is malformed or names several ranges
//! is ignored (200 with the whole object), a single one is answered with 206 or 416.
//!
//! Left to others: conditions, and whether an ignored header may be answered here (`operation` lets it pass).

use std::fmt;
use std::ops::Range;

/// One range of bytes as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeSpec {
    /// `bytes=a-b`, both inclusive, `a <= b`.
    FromTo(u64, u64),
    /// `bytes=a-`
    From(u64),
    /// `bytes=-n`: the last `n` bytes.
    Suffix(u64),
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeHeader {
    /// A single range.
    One(RangeSpec),
    /// Several ranges: S3 ignores the header.
    Multiple,
    /// Not of the form that is certain: S3 ignores the header or reads it more leniently than we would.
    Malformed,
}

/// What a request gets of an object of known length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// 200 with everything.
    Full,
    /// 206 with these bytes, never empty.
    Part(Range<u64>),
    /// 416.
    Unsatisfiable,
}

impl RangeHeader {
    /// Reads the value of a `Range` header.
    ///
    /// Only the spelling that every server reads alike makes a range: no spaces, lower-case unit, numbers that
    /// fit 64 bits.
    pub fn parse(value: &[u8]) -> Self {
        let Some(set) = value.strip_prefix(b"bytes=") else {
            return Self::Malformed;
        };
        if memchr::memchr(b',', set).is_some() {
            return Self::Multiple;
        }
        parse_one(set).map_or(Self::Malformed, Self::One)
    }
}

fn parse_one(set: &[u8]) -> Option<RangeSpec> {
    let dash = memchr::memchr(b'-', set)?;
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    if first.is_empty() {
        return Some(RangeSpec::Suffix(decimal(last)?));
    }
    let first = decimal(first)?;
    if last.is_empty() {
        return Some(RangeSpec::From(first));
    }
    let last = decimal(last)?;
    (first <= last).then_some(RangeSpec::FromTo(first, last))
}

/// A non-empty run of digits that fits 64 bits; no sign, no space.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

impl RangeSpec {
    /// What this range means for an object of `total` bytes. A zero-byte object satisfies no range.
    pub fn resolve(self, total: u64) -> Resolved {
        let part = match self {
            Self::FromTo(first, last) if first < total => first..last.min(total - 1) + 1,
            Self::From(first) if first < total => first..total,
            Self::Suffix(length) if length > 0 && total > 0 => total.saturating_sub(length)..total,
            Self::FromTo(..) | Self::From(_) | Self::Suffix(_) => return Resolved::Unsatisfiable,
        };
        Resolved::Part(part)
    }

    /// The bytes this range certainly needs, known before the object's length is; `None` for a suffix.
    pub fn bounds(self) -> Option<Range<u64>> {
        match self {
            Self::FromTo(first, last) => Some(first..last.saturating_add(1)),
            Self::From(first) => Some(first..u64::MAX),
            Self::Suffix(_) => None,
        }
    }
}

impl fmt::Display for RangeSpec {
    /// The header's value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromTo(first, last) => write!(f, "bytes={first}-{last}"),
            Self::From(first) => write!(f, "bytes={first}-"),
            Self::Suffix(length) => write!(f, "bytes=-{length}"),
        }
    }
}

/// What a request with or without a range gets of an object of `total` bytes.
pub fn resolve(range: Option<RangeSpec>, total: u64) -> Resolved {
    range.map_or(Resolved::Full, |spec| spec.resolve(total))
}

/// A `Content-Range`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentRange {
    /// `bytes a-b/total`: half-open here, not empty, within the total.
    Part {
        /// The bytes of the body.
        range: Range<u64>,
        /// Length of the whole object.
        total: u64,
    },
    /// `bytes */total`, of a 416.
    Unsatisfied {
        /// Length of the whole object.
        total: u64,
    },
}

impl ContentRange {
    /// Reads the value of a `Content-Range` header. `None` for anything but the two forms, contradictions
    /// (end before start, end beyond the total) and an unknown total: such a body cannot be placed.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let rest = value.strip_prefix(b"bytes ")?;
        let slash = memchr::memchr(b'/', rest)?;
        let (span, total) = (&rest[..slash], decimal(&rest[slash + 1..])?);
        if span == b"*" {
            return Some(Self::Unsatisfied { total });
        }
        let dash = memchr::memchr(b'-', span)?;
        let (first, last) = (decimal(&span[..dash])?, decimal(&span[dash + 1..])?);
        (first <= last && last < total).then(|| Self::Part {
            range: first..last + 1,
            total,
        })
    }
}

impl fmt::Display for ContentRange {
    /// The header's value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part { range, total } => {
                write!(
                    f,
                    "bytes {}-{}/{total}",
                    range.start,
                    range.end.saturating_sub(1)
                )
            }
            Self::Unsatisfied { total } => write!(f, "bytes */{total}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RangeHeader::{Malformed, Multiple, One};
    use super::RangeSpec::{From, FromTo, Suffix};
    use super::Resolved::{Full, Part, Unsatisfiable};
    use super::*;
    use proptest::prelude::*;

    /// Reference 2C.71 and 4.22: what is not certain is not answered here.
    #[test]
    fn range_headers_are_read_by_table() {
        let table: &[(&str, RangeHeader)] = &[
            ("bytes=0-0", One(FromTo(0, 0))),
            ("bytes=0-8388607", One(FromTo(0, 8_388_607))),
            ("bytes=007-9", One(FromTo(7, 9))),
            ("bytes=5-", One(From(5))),
            ("bytes=-5", One(Suffix(5))),
            ("bytes=-0", One(Suffix(0))),
            ("bytes=18446744073709551615-", One(From(u64::MAX))),
            ("bytes=0-18446744073709551615", One(FromTo(0, u64::MAX))),
            ("bytes=18446744073709551616-", Malformed),
            ("bytes=0-99999999999999999999", Malformed),
            ("bytes=5-2", Malformed),
            ("bytes=-", Malformed),
            ("bytes=", Malformed),
            ("bytes", Malformed),
            ("", Malformed),
            ("bytes=a-b", Malformed),
            ("bytes=0x0-1", Malformed),
            ("bytes=+0-1", Malformed),
            ("bytes=0--1", Malformed),
            ("bytes=0-1-2", Malformed),
            ("bytes = 0-1", Malformed),
            ("bytes= 0-1", Malformed),
            ("bytes=0 - 1", Malformed),
            ("bytes=0-1 ", Malformed),
            ("Bytes=0-1", Malformed),
            ("items=0-1", Malformed),
            ("bytes=0-1,4-5", Multiple),
            ("bytes=0-1, 4-5", Multiple),
            ("bytes=0-1,", Multiple),
            ("bytes=,0-1", Multiple),
        ];
        for (value, want) in table {
            assert_eq!(RangeHeader::parse(value.as_bytes()), *want, "{value:?}");
        }
    }

    /// Reference 2C.56, 2C.70 and 2C.71.
    #[test]
    fn ranges_are_clamped_to_the_object_by_table() {
        let table = [
            (FromTo(0, 0), 10, Part(0..1)),
            (FromTo(0, 0), 1, Part(0..1)),
            (FromTo(9, 9), 10, Part(9..10)),
            (FromTo(0, 9), 10, Part(0..10)),
            (FromTo(5, 99), 10, Part(5..10)),
            (FromTo(0, u64::MAX), 10, Part(0..10)),
            (FromTo(0, u64::MAX), u64::MAX, Part(0..u64::MAX)),
            (FromTo(10, 11), 10, Unsatisfiable),
            (From(0), 10, Part(0..10)),
            (From(9), 10, Part(9..10)),
            (From(10), 10, Unsatisfiable),
            (From(u64::MAX), u64::MAX, Unsatisfiable),
            (Suffix(1), 10, Part(9..10)),
            (Suffix(10), 10, Part(0..10)),
            (Suffix(11), 10, Part(0..10)),
            (Suffix(u64::MAX), 10, Part(0..10)),
            (Suffix(0), 10, Unsatisfiable),
            (FromTo(0, 0), 0, Unsatisfiable),
            (From(0), 0, Unsatisfiable),
            (Suffix(5), 0, Unsatisfiable),
        ];
        for (spec, total, want) in table {
            assert_eq!(spec.resolve(total), want, "{spec} of {total}");
        }
        assert_eq!(resolve(None, 0), Full);
        assert_eq!(resolve(Some(From(0)), 3), Part(0..3));
    }

    #[test]
    fn bounds_are_half_open_and_never_overflow() {
        assert_eq!(FromTo(2, 4).bounds(), Some(2..5));
        assert_eq!(FromTo(2, u64::MAX).bounds(), Some(2..u64::MAX));
        assert_eq!(From(2).bounds(), Some(2..u64::MAX));
        assert_eq!(Suffix(2).bounds(), None);
    }

    #[test]
    fn content_ranges_are_read_by_table() {
        let table: &[(&str, Option<ContentRange>)] = &[
            (
                "bytes 0-0/1",
                Some(ContentRange::Part {
                    range: 0..1,
                    total: 1,
                }),
            ),
            (
                "bytes 5-9/10",
                Some(ContentRange::Part {
                    range: 5..10,
                    total: 10,
                }),
            ),
            ("bytes */10", Some(ContentRange::Unsatisfied { total: 10 })),
            ("bytes */0", Some(ContentRange::Unsatisfied { total: 0 })),
            ("bytes 5-10/10", None),
            ("bytes 6-5/10", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("bytes 0-1/*", None),
            ("bytes */*", None),
            ("bytes=0-1/2", None),
            ("bytes 0-1", None),
            ("bytes -1/2", None),
            ("bytes 0-/2", None),
            ("", None),
        ];
        for (value, want) in table {
            assert_eq!(ContentRange::parse(value.as_bytes()), *want, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn a_range_reads_back_as_written(first in any::<u64>(), more in any::<u64>()) {
            for spec in [FromTo(first, first.saturating_add(more)), From(first), Suffix(first)] {
                prop_assert_eq!(RangeHeader::parse(spec.to_string().as_bytes()), One(spec));
            }
        }

        #[test]
        fn a_resolved_part_is_inside_the_object_and_not_empty(value in "bytes=[0-9]{0,20}-[0-9]{0,20}", total in any::<u64>()) {
            if let One(spec) = RangeHeader::parse(value.as_bytes())
                && let Part(range) = spec.resolve(total)
            {
                prop_assert!(range.start < range.end && range.end <= total);
                let content = ContentRange::Part { range, total };
                prop_assert_eq!(ContentRange::parse(content.to_string().as_bytes()), Some(content));
            }
        }

        #[test]
        fn no_bytes_make_reading_panic(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _range = RangeHeader::parse(&value);
            let _content = ContentRange::parse(&value);
        }
    }
}

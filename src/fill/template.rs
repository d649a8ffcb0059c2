//! The request that goes to the origin, made once from what the client sent.
//!
//! Called by `request` (makes it) and `open` (renders it with the range that a fetch wants). What the client signed stays byte for byte;
//! only an unsigned `Range` and unsigned conditions are taken out, and `Range`, `If-Match` and `If-None-Match` are put in only where they are
//! not signed and not there.

use std::ops::Range;
use std::sync::Arc;

use crate::http::Method;
use crate::s3::RangeSpec;
use crate::upstream::Origin;

/// What is asked of the origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ranged {
    /// The whole object, no `Range` header.
    Whole,
    /// The client's own signed `Range`, which stands in the template.
    AsSent(RangeSpec),
    /// A range that we ask for.
    Spec(RangeSpec),
    /// The part of this number, which the template asks for; its bytes are not known yet.
    Part(u32),
}

impl Ranged {
    /// The bytes `range` (not empty) as a range that we ask for.
    #[must_use]
    pub fn bytes(range: &Range<u64>) -> Self {
        assert!(!range.is_empty(), "an empty range cannot be asked for");
        Self::Spec(RangeSpec::FromTo(range.start, range.end - 1))
    }

    /// The range that the origin will see.
    #[must_use]
    pub fn spec(&self) -> Option<RangeSpec> {
        match self {
            Self::Whole | Self::Part(_) => None,
            Self::AsSent(spec) | Self::Spec(spec) => Some(*spec),
        }
    }

    /// The part whose bytes are not known yet.
    #[must_use]
    pub fn part(&self) -> Option<u32> {
        match self {
            Self::Part(number) => Some(*number),
            Self::Whole | Self::AsSent(_) | Self::Spec(_) => None,
        }
    }
}

/// Under which condition the origin is to answer.
#[derive(Debug, Clone, Copy)]
pub enum Condition<'t> {
    /// The client's own, if it has any.
    Own,
    /// Only if this is still the version: more of it is wanted. The client's own have been judged.
    Match(&'t [u8]),
    /// None, as far as the client's own are not signed; they are judged here then.
    Nothing,
    /// Only if this is not the version any more, where that can be said; the client's own are judged here then.
    NoneMatch(&'t [u8]),
}

/// A request head up to, but without, its final empty line.
#[derive(Debug)]
pub struct Template {
    /// Request line and header lines, each with CRLF.
    pub lines: Box<[u8]>,
    /// GET or HEAD.
    pub method: Method,
    /// Whom to send it to.
    pub origin: Arc<Origin>,
    /// Whether the client signed `Range`, or asks for a part, so that no other range can be asked for with it.
    pub range_signed: bool,
    /// Whether an `If-Match` of the client stands in the lines, or may not be put in.
    pub has_if_match: bool,
    /// Whether an `If-None-Match` may be put in: none of the client's stands in the lines.
    pub may_revalidate: bool,
    /// The client's own conditions that are not signed, each line with CRLF, without `If-Range`.
    pub conditions: Box<[u8]>,
    /// The client's own conditions that are signed: they stand in the lines.
    pub signed_conditions: Box<[u8]>,
    /// Whether checksums of the whole object are asked for.
    pub wants_checksums: bool,
    /// Headers that the answer has otherwise than the object: a mask of [`crate::s3::Overrides`].
    pub overridden: u8,
}

impl Template {
    /// The whole head with `ranged` and conditions.
    #[must_use]
    pub fn render(&self, ranged: &Ranged, condition: Condition<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.lines.len() + 128);
        out.extend_from_slice(&self.lines);
        if let Ranged::Spec(spec) = ranged {
            assert!(!self.range_signed, "a signed range is never replaced");
            out.extend_from_slice(format!("Range: {spec}\r\n").as_bytes());
        }
        let line = |out: &mut Vec<u8>, name: &[u8], etag: &[u8]| {
            for part in [name, etag, b"\r\n"] {
                out.extend_from_slice(part);
            }
        };
        match condition {
            Condition::Match(_) if self.has_if_match => {}
            Condition::Match(etag) => line(&mut out, b"If-Match: ", etag),
            Condition::NoneMatch(etag) if self.may_revalidate => {
                line(&mut out, b"If-None-Match: ", etag);
            }
            Condition::Nothing => {}
            Condition::NoneMatch(_) | Condition::Own => out.extend_from_slice(&self.conditions),
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

//! The request that goes to the origin, made once from what the client sent.
//!
//! Called by `request` (makes it) and `open` (renders it with the range that a fetch wants). What the client signed stays byte for byte;
//! only an unsigned `Range` is taken out, and `Range` and `If-Match` are put in only where they are not signed and not there.

use std::ops::Range;
use std::sync::Arc;

use crate::http::Method;
use crate::s3::RangeSpec;
use crate::upstream::Endpoint;

/// What is asked of the origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Ranged {
    /// The whole object, no `Range` header.
    Whole,
    /// The client's own signed `Range`, which stands in the template.
    AsSent(RangeSpec),
    /// A range that we ask for.
    Spec(RangeSpec),
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
            Self::Whole => None,
            Self::AsSent(spec) | Self::Spec(spec) => Some(*spec),
        }
    }
}

/// A request head up to, but without, its final empty line.
#[derive(Debug)]
pub struct Template {
    /// Request line and header lines, each with CRLF.
    pub lines: Box<[u8]>,
    /// GET or HEAD.
    pub method: Method,
    /// Whom to send it to.
    pub endpoint: Arc<Endpoint>,
    /// Whether the client signed `Range`, so that no other range can be asked for with it.
    pub range_signed: bool,
    /// Whether an `If-Match` of the client stands in the lines.
    pub has_if_match: bool,
    /// Whether checksums of the whole object are asked for.
    pub wants_checksums: bool,
}

impl Template {
    /// The whole head with `ranged` and, unless the client brought one, an `If-Match`.
    #[must_use]
    pub fn render(&self, ranged: &Ranged, if_match: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.lines.len() + 128);
        out.extend_from_slice(&self.lines);
        if let Ranged::Spec(spec) = ranged {
            assert!(!self.range_signed, "a signed range is never replaced");
            out.extend_from_slice(format!("Range: {spec}\r\n").as_bytes());
        }
        if let Some(etag) = if_match.filter(|_| !self.has_if_match) {
            out.extend_from_slice(b"If-Match: ");
            out.extend_from_slice(etag);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

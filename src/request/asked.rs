//! What a read asks for beyond an object's bytes from here to there: a part by its number, headers otherwise than they are stored.
//!
//! Called by `read` and `stale` for each head that might answer a request. A part becomes the range that its version has for it, if that is known;
//! from there on it is like a range that is signed, since no other can be asked for in its name.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use crate::cache::Head;
use crate::cache::parts::Part;
use crate::s3::{RangeSpec, Resolved};

use super::answer::Besides;
use super::read::Read;

/// Which bytes of a version a request is about.
pub(super) enum Place {
    /// These, or all of them.
    At(Option<Range<u64>>),
    /// It has none of them: 416.
    Unsatisfiable,
    /// Where they are, or some line of the answer's head, only the origin can say.
    Unknown,
}

/// The part that a request names, in the version that was looked at last.
#[derive(Default)]
pub(super) struct Asked(RefCell<Option<Arc<Part>>>);

fn range_of(part: &Part) -> RangeSpec {
    RangeSpec::FromTo(part.range.start, part.range.end - 1)
}

impl Asked {
    /// The part as a range.
    pub(super) fn spec(&self) -> Option<RangeSpec> {
        self.0.borrow().as_deref().map(range_of)
    }
}

impl Read<'_, '_> {
    /// What `spec`, or the part that is asked for instead, means for this version.
    pub(super) fn place(&self, spec: Option<RangeSpec>, head: &Head) -> Place {
        let request = &self.exchange.request;
        if head.lacks() & !request.overrides.mask() != 0 {
            return Place::Unknown;
        }
        let Some(number) = request.part else {
            return match spec.map_or(Resolved::Full, |spec| spec.resolve(head.total())) {
                // Checksums are of the whole object.
                Resolved::Full if request.checksum_mode && !head.checksums_known() => {
                    Place::Unknown
                }
                Resolved::Full => Place::At(None),
                Resolved::Part(range) => Place::At(Some(range)),
                Resolved::Unsatisfiable => Place::Unsatisfiable,
            };
        };
        let part = self.shard().part_of(head, number);
        let part = part.filter(|part| !request.checksum_mode || part.checksums.is_some());
        let range = part.as_ref().map(|part| part.range.clone());
        self.asked.0.replace(part);
        range.map_or(Place::Unknown, |range| Place::At(Some(range)))
    }

    /// What the answer has beside the stored lines.
    pub(super) fn besides(&self) -> Besides<'_> {
        let request = &self.exchange.request;
        Besides {
            overrides: (request.overrides.mask() != 0).then_some(&request.overrides),
            part: match request.part {
                Some(_) => self.asked.0.borrow().clone(),
                None => None,
            },
            headers: Some(&self.exchange.head.headers),
        }
    }
}

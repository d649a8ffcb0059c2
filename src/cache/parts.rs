//! Parts of objects, as `partNumber` names them: which bytes of a version they are, how many there are, and what the origin says of their checksums.
//!
//! Made by `fill` from the origin's answers to reads of parts, published with the head of their version, kept by `cache::partition` in a table of fixed
//! size, read by `request` from any shard. They belong to a version, so that they are never wrong; what does not fit is asked for again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::Index;
use super::read_map::{MapWriter, ReadMap};

/// Longest checksum lines that are kept with a part.
pub const CHECKSUM_BYTES_MAX: usize = 512;

/// One part of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its number, from 1.
    pub number: u32,
    /// Its bytes in the object, not empty.
    pub range: Range<u64>,
    /// `x-amz-mp-parts-count`: how many parts there are; `None` if the object was not made of parts.
    pub count: Option<u32>,
    /// Its `x-amz-checksum-*` lines, each with its CRLF; `None` if the origin was not asked for them.
    pub checksums: Option<Box<[u8]>>,
}

/// Which part of which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartId {
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of `ETag` and length.
    pub version: u128,
    /// Number of the part.
    pub number: u32,
}

impl PartId {
    /// Where it is in a table.
    #[must_use]
    pub fn hash(&self) -> u64 {
        crate::base::prng::mix64(self.object as u64 ^ self.version as u64 ^ u64::from(self.number))
    }
}

/// A table of parts.
pub type PartMap = ReadMap<PartId, Arc<Part>>;

struct Parts(Arc<Index>);
impl AsRef<PartMap> for Parts {
    fn as_ref(&self) -> &PartMap {
        &self.0.parts
    }
}

/// The writing side of one shard's parts; the oldest makes way.
pub(super) struct PartWriter {
    map: MapWriter<PartId, Arc<Part>>,
    order: VecDeque<PartId>,
    parts_max: usize,
}

impl PartWriter {
    pub(super) fn new(index: &Arc<Index>, parts_max: usize) -> Self {
        Self {
            map: MapWriter::new(Arc::new(Parts(Arc::clone(index)))),
            order: VecDeque::new(),
            parts_max,
        }
    }

    /// Keeps what is known of a part; what is known of its checksums stays known.
    pub(super) fn insert(&mut self, id: PartId, part: &Arc<Part>) {
        let known = self.map.get(id.hash(), &id, |known| {
            known.checksums.is_some() && part.checksums.is_none() && known.range == part.range
        });
        if known == Some(true) {
            return;
        }
        if known.is_none() {
            self.order.push_back(id);
        }
        self.map.insert(id.hash(), id, Arc::clone(part));
        while self.order.len() > self.parts_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(oldest.hash(), &oldest);
        }
    }
}

impl Index {
    /// What is known of a part of a version.
    #[must_use]
    pub fn part(&self, id: &PartId) -> Option<Arc<Part>> {
        self.parts.get(id.hash(), |known| known == id, Arc::clone)
    }
}

//! Row 3: what is known and kept of objects. The index that any shard reads without a lock, freshness, eviction, and the partition: the
//! part of all this that one shard alone writes.
//!
//! Called by `fill` and `shard` (the owner's side) and `request` (lookups from any shard).

pub mod eviction;
pub mod head;
pub mod partition;
pub mod read_map;
pub mod stamps;

use std::sync::Arc;

use crate::ram::StripeId;
use crate::ram::extent::Extent;

pub use head::Head;
use read_map::ReadMap;

/// All extents known of one stripe, ordered by start; replaced as a whole by the owner.
pub type Extents = Box<[Arc<Extent>]>;

/// The readable side of one shard's partition.
pub struct Index {
    /// Heads by object digest.
    pub heads: ReadMap<u128, Arc<Head>>,
    /// Extents by stripe.
    pub stripes: ReadMap<StripeId, Extents>,
}

impl Index {
    /// The head of an object, compared by its whole key.
    #[must_use]
    pub fn head(&self, digest: u128, key: &[u8]) -> Option<Arc<Head>> {
        let found = self.heads.get(digest as u64, |k| *k == digest, |head| (head.key() == key).then(|| Arc::clone(head)));
        found.flatten()
    }

    /// The extent that holds, or will hold, the byte at `at` of a stripe; of several the one that reaches furthest.
    #[must_use]
    pub fn extent_at(&self, id: &StripeId, at: u32) -> Option<Arc<Extent>> {
        let covering = |extents: &Extents| {
            let candidates = extents.iter().filter(|extent| extent.start() <= at && at < extent.promised_end());
            candidates.max_by_key(|extent| extent.promised_end()).cloned()
        };
        self.stripes.get(id.hash(), |k| k == id, covering).flatten()
    }

    /// The end of the contiguous bytes from `at` on that are there or being filled; `at` itself if there are none.
    #[must_use]
    pub fn covered_until(&self, id: &StripeId, at: u32) -> u32 {
        let reach = |extents: &Extents| {
            let mut end = at;
            for extent in extents {
                if extent.start() > end {
                    break;
                }
                end = end.max(extent.promised_end());
            }
            end
        };
        self.stripes.get(id.hash(), |k| k == id, reach).unwrap_or(at)
    }
}

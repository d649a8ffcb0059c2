//! Row 3: what is known and kept of objects. The index that any shard reads without a lock, freshness, eviction, and the partition: the
//! part of all this that one shard alone writes.
//!
//! Called by `fill` and `shard` (the owner's side) and `request` (lookups from any shard).

mod disk_table;
pub mod eviction;
pub mod forbidden;
pub mod grants;
pub mod head;
pub mod holds;
pub mod on_disk;
pub mod partition;
pub mod parts;
pub mod read_map;
pub mod sequences;
pub mod stamps;
pub mod terms;

use std::sync::Arc;

use crate::ram::StripeId;
use crate::ram::extent::Extent;
use crate::ram::progress::FillState;

pub use head::Head;
use read_map::ReadMap;

/// All extents known of one stripe, ordered by start; replaced as a whole by the owner. One, as most have, needs no list of its own.
pub enum Extents {
    /// The usual case.
    One(Arc<Extent>),
    /// A list.
    Several(Box<[Arc<Extent>]>),
}

impl From<Box<[Arc<Extent>]>> for Extents {
    fn from(extents: Box<[Arc<Extent>]>) -> Self {
        match &*extents {
            [one] => Self::One(Arc::clone(one)),
            _ => Self::Several(extents),
        }
    }
}

impl std::ops::Deref for Extents {
    type Target = [Arc<Extent>];

    fn deref(&self) -> &Self::Target {
        match self {
            Self::One(extent) => std::slice::from_ref(extent),
            Self::Several(extents) => extents,
        }
    }
}

/// The readable side of one shard's partition.
pub struct Index {
    /// Heads by object digest.
    pub heads: ReadMap<u128, Arc<Head>>,
    /// Extents by stripe.
    pub stripes: ReadMap<StripeId, Extents>,
    /// Heads and extents that are on disk.
    pub on_disk: Arc<on_disk::OnDisk>,
    /// Parts by version and number, where the object's head is.
    pub parts: parts::PartMap,
    /// Which heads of single versions still hold.
    pub stamps: Arc<stamps::Stamps>,
}

impl Index {
    /// Calls `read` with the head of an object, compared by its whole key. What is removed while `read` runs stays alive for it.
    pub fn with_head<R>(
        &self,
        digest: u128,
        key: &[u8],
        read: impl FnOnce(&Arc<Head>) -> R,
    ) -> Option<R> {
        let found = self.heads.get(
            digest as u64,
            |k| *k == digest,
            |head| {
                self.stripes.peek(StripeId::chain_of(digest, 0), |extents| {
                    extents.first().inspect(|extent| extent.prefetch());
                });
                (head.is(key) && !head.is_sketch() && head.holds(&self.stamps)).then(|| read(head))
            },
        );
        found.flatten()
    }

    /// The sketch of an object that was written and not read since.
    #[must_use]
    pub fn sketch(&self, digest: u128, key: &[u8]) -> Option<Arc<Head>> {
        let found = self.heads.get(
            digest as u64,
            |k| *k == digest,
            |head| (head.key() == key && head.is_sketch()).then(|| Arc::clone(head)),
        );
        found.flatten()
    }

    /// Says that this object will be looked up, with its beginning: what leads to them comes from memory meanwhile.
    pub fn expect(&self, digest: u128) {
        self.heads.prefetch(digest as u64);
        self.stripes.prefetch(StripeId::chain_of(digest, 0));
    }

    /// The next step of what [`Index::expect`] began.
    pub fn approach(&self, digest: u128) {
        self.heads.prefetch_first(digest as u64);
        self.stripes.prefetch_first(StripeId::chain_of(digest, 0));
    }

    /// The head of an object, compared by its whole key.
    #[must_use]
    pub fn head(&self, digest: u128, key: &[u8]) -> Option<Arc<Head>> {
        self.with_head(digest, key, Arc::clone)
    }

    /// Calls `read` with the extents of a stripe. They stay alive for it, though nobody pins them.
    pub fn with_extents<R>(
        &self,
        id: &StripeId,
        read: impl FnOnce(&[Arc<Extent>]) -> R,
    ) -> Option<R> {
        self.stripes
            .get(id.chain(), |k| k == id, |extents| read(extents))
    }

    /// The extent that holds, or will hold, the byte at `at` of a stripe; of several the one that reaches furthest.
    #[must_use]
    pub fn extent_at(&self, id: &StripeId, at: u32) -> Option<Arc<Extent>> {
        let covering = |extents: &Extents| {
            let candidates = extents
                .iter()
                .filter(|extent| extent.start() <= at && at < extent.promised_end());
            candidates
                .max_by_key(|extent| extent.promised_end())
                .cloned()
        };
        self.stripes
            .get(id.chain(), |k| k == id, covering)
            .flatten()
    }

    /// The start of the next extent behind `at`, or `end` if none begins before it: the end of the gap at `at`.
    #[must_use]
    pub fn gap_until(&self, id: &StripeId, at: u32, end: u32) -> u32 {
        let next = |extents: &Extents| {
            let later = extents
                .iter()
                .filter(|extent| extent.start() > at && extent.promised_end() > extent.start());
            later.map(|extent| extent.start()).min()
        };
        self.stripes
            .get(id.chain(), |k| k == id, next)
            .flatten()
            .map_or(end, |start| start.min(end))
    }

    /// What there is of `[start, end)` of a stripe.
    #[must_use]
    pub fn reach(&self, id: &StripeId, start: u32, end: u32) -> Reach {
        let look = |extents: &Extents| {
            let mut reach = Reach {
                end: start,
                any: false,
                filling: false,
            };
            for extent in extents.iter().take_while(|extent| extent.start() < end) {
                let promised = extent.promised_end();
                if promised <= start {
                    continue;
                }
                reach.any = true;
                if extent.start() <= reach.end && promised > reach.end {
                    reach.end = promised;
                    // What is wanted of it may be here while more is on its way, or while its last word is.
                    let filling = extent.progress().state() == FillState::Filling
                        && extent.filled_end() < promised.min(end);
                    reach.filling |= filling && !extent.readers().from_disk();
                }
            }
            reach
        };
        self.stripes
            .get(id.chain(), |k| k == id, look)
            .unwrap_or(Reach {
                end: start,
                any: false,
                filling: false,
            })
    }
}

impl Index {
    /// What there is of `[start, end)` of a stripe in RAM and on disk together.
    #[must_use]
    pub fn reach_with_disk(&self, id: &StripeId, start: u32, end: u32) -> Reach {
        let mut reach = self.reach(id, start, end);
        while reach.end < end {
            let Some(extent) = self.on_disk.extent_at(id, reach.end) else {
                break;
            };
            let further = self.reach(id, extent.window.end, end);
            reach.any = true;
            reach.filling |= further.filling;
            reach.end = further.end.max(extent.window.end);
        }
        reach
    }
}

/// How far the bytes of a stripe go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// End of the contiguous bytes from the asked start on, there or being filled.
    pub end: u32,
    /// Whether any byte of the asked window is there.
    pub any: bool,
    /// Whether some of the contiguous bytes that were asked for are still being filled.
    pub filling: bool,
}

//! Which fetches an invalidation beats: a counter per group of objects.
//!
//! Called by `request` and `fill` (note the stamp before a fetch begins) and `cache::partition` (compares it when the fetch wants to
//! publish, bumps it on invalidation). A fetch whose stamp is no longer current began before an invalidation of its object, or of
//! another of the same group: its head is not stored and nobody new joins it. The table is fixed, so nothing has to be
//! remembered or forgotten; the price is a fetch in some ten thousand that is served but not kept.

use std::sync::atomic::{AtomicU64, Ordering};

const GROUPS: usize = 1 << 16;

/// The counters, shared by all shards; bumped by an object's owner, or for all objects at once.
pub struct Stamps(Box<[AtomicU64]>);

/// A moment of one group's counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64);

impl Default for Stamps {
    fn default() -> Self {
        Self((0..GROUPS).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Stamps {
    fn cell(&self, object: u128) -> &AtomicU64 {
        &self.0[(object >> 64) as usize & (GROUPS - 1)]
    }

    /// Says that [`Stamps::now`] will be asked for.
    pub fn prefetch(&self, object: u128) {
        crate::io::prefetch::prefetch(self.cell(object));
    }

    /// The current stamp of an object.
    #[must_use]
    pub fn now(&self, object: u128) -> Stamp {
        Stamp(self.cell(object).load(Ordering::SeqCst))
    }

    /// Whether no invalidation has come since `stamp` was taken.
    #[must_use]
    pub fn is_current(&self, object: u128, stamp: Stamp) -> bool {
        self.now(object) == stamp
    }

    /// An invalidation of unknown extent: everything that began before it is beaten.
    pub fn bump_all(&self) {
        for cell in &self.0 {
            cell.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// An invalidation: everything that began before it is beaten.
    pub fn bump(&self, object: u128) {
        self.cell(object).fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalidation_beats_what_began_before_it_only() {
        let stamps = Stamps::default();
        let before = stamps.now(5);
        stamps.bump(5);
        assert!(!stamps.is_current(5, before));
        assert!(stamps.is_current(5, stamps.now(5)));
        assert!(stamps.is_current(6 << 64, stamps.now(6 << 64)));
    }
}

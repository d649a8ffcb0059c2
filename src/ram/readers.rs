//! The readers of one fill, as the fill and eviction see them.
//!
//! Called by `request` (joins, says how far it is), `fill` (paces itself by the fastest, stops when nobody is left) and `cache`, which does not
//! evict what a reader has yet to take. All extents of a fill share one [`Readers`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Readers of one fill, seen by the fill: it paces itself by the fastest and stops when nobody is left.
#[derive(Debug, Default)]
pub struct Readers {
    count: AtomicU32,
    furthest: AtomicU64,
    position: AtomicU64,
    coming_until: AtomicU64,
    ended: AtomicBool,
}

impl Readers {
    /// A reader that follows the fill; leaving is dropping the guard.
    #[must_use]
    pub fn join(self: &Arc<Self>) -> Reading {
        self.count.fetch_add(1, Ordering::AcqRel);
        Reading(Arc::clone(self))
    }

    /// The fill will bring these absolute bytes, extent after extent.
    pub fn announce(&self, span: std::ops::Range<u64>) {
        self.position.store(span.start, Ordering::Release);
        self.coming_until.store(span.end, Ordering::Release);
    }

    /// The fill has come to this absolute offset: what lies before it has been brought and does not come again.
    pub fn pass(&self, offset: u64) {
        self.position.store(offset, Ordering::Release);
    }

    /// Up to which absolute offset the fill still brings bytes; 0 when it is over.
    #[must_use]
    pub fn coming_until(&self) -> u64 {
        if self.ended() {
            return 0;
        }
        self.coming_until.load(Ordering::Acquire)
    }

    /// Whether the fill is still going to bring the byte at an absolute offset.
    #[must_use]
    pub fn brings(&self, offset: u64) -> bool {
        self.position.load(Ordering::Acquire) <= offset && offset < self.coming_until()
    }

    /// Whether somebody follows the fill who has not come to `offset` yet.
    #[must_use]
    pub fn awaited_at(&self, offset: u64) -> bool {
        self.count() > 0 && self.furthest() < offset
    }

    /// The fill is over: no extent of it gets another byte.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether the fill is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// How many follow.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// The furthest absolute offset that any reader has taken.
    #[must_use]
    pub fn furthest(&self) -> u64 {
        self.furthest.load(Ordering::Acquire)
    }
}

/// One reader's membership.
#[derive(Debug)]
pub struct Reading(Arc<Readers>);

impl Reading {
    /// Says how far this reader has come (absolute offset in the object).
    pub fn advance(&self, offset: u64) {
        // Only the furthest writes: the fill and all its readers share the line.
        if self.0.furthest() < offset {
            self.0.furthest.fetch_max(offset, Ordering::AcqRel);
        }
    }

    /// Whether this membership is of the given fill.
    #[must_use]
    pub fn is_of(&self, readers: &Arc<Readers>) -> bool {
        Arc::ptr_eq(&self.0, readers)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
    }
}

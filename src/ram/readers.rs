//! The readers of one fill, as the fill and eviction see them.
//!
//! Called by `request` (joins, says how far it is), `fill` (paces itself by the fastest, stops when nobody is left) and `cache`, which does not
//! evict what a reader has yet to take. All extents of a fill share one [`Readers`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// How long the bytes of a fill that is over are kept for somebody who has yet to come: longer than a reader takes for the stripe before
/// them, and an end to what a reader who hardly reads can hold.
const AWAITED_MS: u64 = 30_000;

/// Readers of one fill, seen by the fill: it paces itself by the fastest and stops when nobody is left.
#[derive(Debug, Default)]
pub struct Readers {
    count: AtomicU32,
    furthest: AtomicU64,
    position: AtomicU64,
    coming_until: AtomicU64,
    /// When the fill was over; 0 before.
    ended_ms: AtomicU64,
    /// Lives as long as somebody wants these bytes, whether or not it has come to them.
    interest: Weak<()>,
    from_disk: bool,
}

impl Readers {
    /// Nobody follows yet; what the fill brings is wanted for as long as `interest` lives.
    #[must_use]
    pub fn wanted_by(interest: Weak<()>) -> Arc<Self> {
        Arc::new(Self {
            interest,
            ..Self::default()
        })
    }

    /// The same for bytes that come from the disk.
    #[must_use]
    pub fn of_disk(interest: Weak<()>) -> Arc<Self> {
        Arc::new(Self {
            interest,
            from_disk: true,
            ..Self::default()
        })
    }

    /// Whether the bytes come from the disk.
    #[must_use]
    pub fn from_disk(&self) -> bool {
        self.from_disk
    }

    /// Whether anybody follows, or will.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.count() > 0 || self.interest.strong_count() > 0
    }

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

    /// Whether somebody wants the bytes before `offset` and nobody has come to their end: who follows the fill, or who had them fetched ahead.
    #[must_use]
    pub fn awaited_at(&self, offset: u64, now_ms: u64) -> bool {
        if self.furthest() >= offset {
            return false;
        }
        let ended_ms = self.ended_ms.load(Ordering::Acquire);
        let soon = ended_ms == 0 || now_ms < ended_ms + AWAITED_MS;
        self.count() > 0 || (soon && self.interest.strong_count() > 0)
    }

    /// The fill is over: no extent of it gets another byte.
    pub fn end(&self, now_ms: u64) {
        if !self.ended() {
            self.ended_ms.store(now_ms.max(1), Ordering::Release);
        }
    }

    /// Whether the fill is over.
    #[must_use]
    pub fn ended(&self) -> bool {
        self.ended_ms.load(Ordering::Acquire) != 0
    }

    /// Says that a reader has taken everything before an absolute offset, whether it followed the fill or came later.
    pub fn advance(&self, offset: u64) {
        // Only the furthest writes: the fill and all its readers share the line.
        if self.furthest() < offset {
            self.furthest.fetch_max(offset, Ordering::AcqRel);
        }
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
        self.0.advance(offset);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_ahead_is_awaited_until_its_reader_has_passed_or_left() {
        let interest = Arc::new(());
        let readers = Readers::wanted_by(Arc::downgrade(&interest));
        readers.end(1_000);
        assert!(readers.wanted() && readers.ended());
        assert!(readers.awaited_at(100, 1_000));
        readers.advance(99);
        assert!(readers.awaited_at(100, 1_000));
        assert!(!readers.awaited_at(99, 1_000));
        drop(interest);
        assert!(!readers.awaited_at(100, 1_000));
        assert!(!readers.wanted());
    }

    #[test]
    fn a_reader_that_does_not_come_holds_what_was_fetched_ahead_for_a_while() {
        let interest = Arc::new(());
        let readers = Readers::wanted_by(Arc::downgrade(&interest));
        assert!(readers.awaited_at(1, u64::MAX), "the fill is not over");
        readers.end(1_000);
        assert!(readers.awaited_at(1, 1_000 + AWAITED_MS - 1));
        assert!(!readers.awaited_at(1, 1_000 + AWAITED_MS));
        let reading = readers.join();
        assert!(readers.awaited_at(1, u64::MAX), "who follows is waited for");
        reading.advance(1);
        assert!(!readers.awaited_at(1, 1_000));
    }
}

//! Objects whose answers the origin has forbidden to keep a moment ago: they are asked for once, as the client asks, not first as they would be
//! if they could be kept.
//!
//! Noted by fills, asked by `request` where nothing is known of an object. A fixed table of words that all shards write, each by itself: what
//! displaces something, or is taken for something else, costs a request more or a copy less for as long as a note holds, and never a wrong answer.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places; each has one object.
const PLACES: usize = 4096;
/// How long a note holds: so long an origin that changes its mind is not heard.
const HOLDS_S: u64 = 30;
/// Bits of a word that tell seconds; the others tell which object.
const SECOND_BITS: u32 = 24;
const SECONDS: u64 = (1 << SECOND_BITS) - 1;

/// The table.
pub struct Forbidden(Box<[AtomicU64]>);

impl Default for Forbidden {
    fn default() -> Self {
        Self((0..PLACES).map(|_| AtomicU64::new(0)).collect())
    }
}

/// The second of a note; 0 is none.
fn second(now_ms: u64) -> u64 {
    ((now_ms / 1000 + 1) & SECONDS).max(1)
}

impl Forbidden {
    fn place(&self, object: u128) -> (&AtomicU64, u64) {
        let place = object as usize % PLACES;
        (&self.0[place], (object >> 64) as u64 & !SECONDS)
    }

    /// The origin has forbidden it now.
    pub fn note(&self, object: u128, now_ms: u64) {
        let (place, name) = self.place(object);
        place.store(name | second(now_ms), Ordering::Relaxed);
    }

    /// Whether it has forbidden it a moment ago.
    #[must_use]
    pub fn has(&self, object: u128, now_ms: u64) -> bool {
        let (place, name) = self.place(object);
        let word = place.load(Ordering::Relaxed);
        let (noted, own) = (word & SECONDS, word & !SECONDS);
        let since_s = second(now_ms).wrapping_sub(noted) & SECONDS;
        noted != 0 && own == name && since_s < HOLDS_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_holds_for_its_object_and_its_time() {
        let forbidden = Forbidden::default();
        let (one, other) = (7 << 100 | 5, 9 << 100 | 5);
        for start_ms in [0, 999, 5_000_000, (SECONDS - 2) * 1000] {
            forbidden.note(one, start_ms);
            assert!(forbidden.has(one, start_ms), "{start_ms}");
            assert!(forbidden.has(one, start_ms + (HOLDS_S - 1) * 1000));
            assert!(!forbidden.has(one, start_ms + HOLDS_S * 1000));
            assert!(!forbidden.has(other, start_ms));
        }
        assert!(!Forbidden::default().has(0, 0));
        forbidden.note(other, 1000);
        assert!(forbidden.has(other, 1000) && !forbidden.has(one, 1000));
    }
}

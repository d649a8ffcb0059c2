//! The only source of randomness: a small seeded generator (xoshiro-style splitmix64), so that a seed replays a run.
//!
//! Called for request ids, for spreading connections over addresses and for jitter. Never for secrets.

use std::cell::Cell;

/// A seeded generator for one thread. Not for cryptography.
#[derive(Debug)]
pub struct Prng {
    state: Cell<u64>,
}

impl Prng {
    /// A generator that yields the same numbers for the same `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: Cell::new(seed),
        }
    }

    /// The next 64 bits (splitmix64, Steele, Lea and Flood 2014).
    pub fn next_u64(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(state);
        mix64(state)
    }

    /// A number in `0..bound`; `bound` must not be 0.
    pub fn below(&self, bound: usize) -> usize {
        assert!(bound > 0, "a range of nothing has no member");
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }
}

/// Spreads every bit of the input over the output (splitmix64's finaliser).
#[must_use]
pub fn mix64(input: u64) -> u64 {
    let mut z = input;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_replays() {
        let (a, b) = (Prng::new(7), Prng::new(7));
        for _ in 0..100 {
            assert_eq!(a.next_u64(), b.next_u64());
            assert!(a.below(3) < 3);
            b.next_u64();
        }
    }
}

//! The objects of a world: their names, and the bytes of their versions.
//!
//! Called by `reference` and `world`. Bytes are cut from one block of noise, so that a version of any length costs nothing to keep.

use std::ops::Range;
use std::sync::OnceLock;

/// Objects of a world.
pub const OBJECTS: usize = 6;

/// Digest of an object. Two share the hash of their head (low half), two share a group of stamps (high half).
pub fn digest(object: usize) -> u128 {
    const HALVES: [(u128, u128); OBJECTS] = [(1, 7), (2, 7), (3, 8), (3, 9), (4, 10), (5, 11)];
    HALVES[object].0 << 64 | HALVES[object].1
}

/// Encoded key of an object; three are in bucket `a`, three in `b`.
pub fn key(object: usize) -> Vec<u8> {
    let bucket = if object.is_multiple_of(2) { "a" } else { "b" };
    format!("{bucket}/{object}").into_bytes()
}

/// Bytes of one version of one object, different from all others at (nearly) every offset, and with no short period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    seed: u64,
}

/// A prime, so that no stripe, page or slot comes round to the same bytes.
const NOISE_BYTES: usize = 1_048_583;

fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let prng = millrace::base::prng::Prng::new(7);
        (0..NOISE_BYTES).map(|_| prng.next_u64() as u8).collect()
    })
}

impl Body {
    pub fn of(object: u128, version: u128) -> Self {
        let mix = millrace::base::prng::mix64;
        Self {
            seed: mix(version as u64 ^ mix((object >> 64) as u64 ^ mix(object as u64))) >> 8,
        }
    }

    /// The bytes from `at` on, as far as they come in one piece, at most `most`.
    fn piece(self, at: u64, most: usize) -> &'static [u8] {
        let start = ((self.seed + at) % NOISE_BYTES as u64) as usize;
        &noise()[start..(start + most).min(NOISE_BYTES)]
    }

    /// Writes the bytes from `at` on to `out`.
    pub fn write(self, mut at: u64, mut out: &mut [u8]) {
        while !out.is_empty() {
            let piece = self.piece(at, out.len());
            let (now, rest) = out.split_at_mut(piece.len());
            now.copy_from_slice(piece);
            (at, out) = (at + piece.len() as u64, rest);
        }
    }

    /// Whether `bytes` are those from `at` on.
    pub fn is(self, mut at: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let piece = self.piece(at, bytes.len());
            if !bytes.starts_with(piece) {
                return false;
            }
            (at, bytes) = (at + piece.len() as u64, &bytes[piece.len()..]);
        }
        true
    }
}

/// Which part of an object somebody wants.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// 0: all of it; 1: from somewhere; 2: around the end of its first stripe.
    pub kind: u8,
    pub at: u32,
    pub bytes: u32,
}

impl Wish {
    /// As a range of an object of `total` bytes, empty only if the object is.
    pub fn within(self, total: u64) -> Range<u64> {
        let start = match self.kind {
            0 => return 0..total,
            1 => u64::from(self.at),
            _ => (millrace::ram::STRIPE_BYTES - 100_000) + u64::from(self.at % 200_000),
        };
        let start = start % total.max(1);
        start..(start + 1 + u64::from(self.bytes)).min(total)
    }
}

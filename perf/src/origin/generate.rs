//! Content that is computed instead of stored: any size, any seed, no memory per object.
//!
//! Called by the fault origin to answer and by tests to know what the answer must have been. Invariants: the same
//! (size, seed) always gives the same bytes; the block repeats with a prime period, so two windows at different
//! multiples of any stripe or page size never hold the same bytes and a mix-up of offsets shows in a digest.
//! Left to others: names, ranges, headers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use md5::Md5;
use sha2::{Digest, Sha256};

use crate::sign::hex;

/// Bytes after which the content repeats: the largest prime below 1 MiB.
pub const PERIOD: usize = 1_048_573;

/// How many seeds' blocks stay in memory (2 MiB each).
const BLOCKS_MAX: usize = 32;

static BLOCKS: Mutex<VecDeque<(u64, Arc<[u8]>)>> = Mutex::new(VecDeque::new());

/// The bytes of one generated object.
#[derive(Debug, Clone)]
pub struct Content {
    size: u64,
    seed: u64,
    /// Two periods in a row, so that a whole period can be sliced from any offset.
    block: Arc<[u8]>,
}

impl Content {
    /// The content of this size and seed.
    pub fn new(size: u64, seed: u64) -> Self {
        Content {
            size,
            seed,
            block: block_of(seed),
        }
    }

    /// Whole length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The seed it was made from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Up to one [`PERIOD`] of bytes at `offset`; empty at the end.
    pub fn slice(&self, offset: u64, bytes_max: usize) -> &[u8] {
        let left = self.size.saturating_sub(offset);
        let len = left.min(bytes_max.min(PERIOD) as u64) as usize;
        let start = (offset % PERIOD as u64) as usize;
        &self.block[start..start + len]
    }

    /// The bytes of the half-open interval, for comparisons.
    pub fn bytes(&self, start: u64, end: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity((end - start) as usize);
        let mut at = start;
        while at < end {
            let piece = self.slice(at, (end - at).min(PERIOD as u64) as usize);
            assert!(
                !piece.is_empty(),
                "range {start}..{end} beyond the {} bytes there are",
                self.size
            );
            out.extend_from_slice(piece);
            at += piece.len() as u64;
        }
        out
    }

    /// The first offset at which `bytes`, read at `start`, differ.
    pub fn mismatch(&self, start: u64, bytes: &[u8]) -> Option<u64> {
        let mut at = 0;
        while at < bytes.len() {
            let want = self.slice(start + at as u64, bytes.len() - at);
            let have = &bytes[at..];
            if want.is_empty() {
                return Some(start + at as u64);
            }
            if want != &have[..want.len()] {
                let wrong = want
                    .iter()
                    .zip(have)
                    .position(|(a, b)| a != b)
                    .expect("they differ");
                return Some(start + (at + wrong) as u64);
            }
            at += want.len();
        }
        None
    }

    /// The hex SHA-256 of the whole.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        self.each(|piece| digest.update(piece));
        hex(&digest.finalize())
    }

    /// The CRC-32 of the whole.
    pub fn crc32(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        self.each(|piece| crc.update(piece));
        crc.finalize()
    }

    /// The strong ETag, quoted: not the MD5 of the bytes (that would cost a pass over them) but of what they are
    /// made from.
    pub fn etag(&self) -> String {
        format!(
            "\"{}\"",
            hex(&Md5::digest(format!(
                "generated {} {}",
                self.size, self.seed
            )))
        )
    }

    fn each(&self, mut take: impl FnMut(&[u8])) {
        let mut at = 0;
        while at < self.size {
            let piece = self.slice(at, PERIOD);
            take(piece);
            at += piece.len() as u64;
        }
    }
}

fn block_of(seed: u64) -> Arc<[u8]> {
    let mut blocks = BLOCKS.lock().expect("no panic while it is held");
    if let Some((_, block)) = blocks.iter().find(|(have, _)| *have == seed) {
        return Arc::clone(block);
    }
    let mut bytes = Vec::with_capacity(2 * PERIOD + 8);
    let mut state = seed ^ 0x6d69_6c6c_7261_6365;
    while bytes.len() < PERIOD {
        bytes.extend_from_slice(&splitmix(&mut state).to_le_bytes());
    }
    bytes.truncate(PERIOD);
    bytes.extend_from_within(..);
    let block: Arc<[u8]> = bytes.into();
    if blocks.len() == BLOCKS_MAX {
        blocks.pop_front();
    }
    blocks.push_back((seed, Arc::clone(&block)));
    block
}

/// SplitMix64: one output per step, good enough that no two windows look alike.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Reads a size as a path writes it: plain bytes, or a whole number of `KiB`, `MiB`, `GiB`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_size_and_seed_give_the_same_bytes_and_others_do_not() {
        let a = Content::new(3 << 20, 7);
        assert_eq!(
            a.bytes(0, 3 << 20),
            Content::new(3 << 20, 7).bytes(0, 3 << 20)
        );
        assert_ne!(a.bytes(0, 64), Content::new(3 << 20, 8).bytes(0, 64));
        assert_ne!(a.etag(), Content::new(3 << 20, 8).etag());
        assert_ne!(a.etag(), Content::new(3 << 19, 7).etag());
    }

    #[test]
    fn stripes_and_pages_never_look_alike() {
        let content = Content::new(1 << 30, 1);
        let first = content.bytes(0, 64);
        for stripe in 1..128 {
            assert_ne!(
                first,
                content.bytes(stripe * (8 << 20), stripe * (8 << 20) + 64)
            );
        }
        for page in 1..4096 {
            assert_ne!(first, content.bytes(page * 4096, page * 4096 + 64));
        }
    }

    #[test]
    fn slices_cross_the_period_and_stop_at_the_end() {
        let content = Content::new(2 * PERIOD as u64 + 10, 3);
        let whole = content.bytes(0, content.size());
        assert_eq!(
            content.slice(PERIOD as u64 - 5, 10),
            &whole[PERIOD - 5..PERIOD + 5]
        );
        assert_eq!(content.slice(2 * PERIOD as u64, 100).len(), 10);
        assert!(content.slice(content.size(), 1).is_empty());
        assert!(content.slice(u64::MAX, 1).is_empty());
    }

    #[test]
    fn mismatch_names_the_first_wrong_byte() {
        let content = Content::new(5 << 20, 9);
        let mut bytes = content.bytes(100, 3 << 20);
        assert_eq!(content.mismatch(100, &bytes), None);
        bytes[2_000_000] ^= 1;
        assert_eq!(content.mismatch(100, &bytes), Some(2_000_100));
        assert_eq!(
            Content::new(2, 9).mismatch(0, &content.bytes(0, 3)),
            Some(2)
        );
    }

    #[test]
    fn digest_is_that_of_the_bytes() {
        let content = Content::new(2_500_000, 4);
        assert_eq!(
            content.sha256(),
            hex(&Sha256::digest(content.bytes(0, 2_500_000)))
        );
        assert_eq!(
            content.crc32(),
            crc32fast::hash(&content.bytes(0, 2_500_000))
        );
    }

    #[test]
    fn sizes_are_read_as_written_in_paths() {
        assert_eq!(parse_size("1234"), Some(1234));
        assert_eq!(parse_size("8MiB"), Some(8 << 20));
        assert_eq!(parse_size("1GiB"), Some(1 << 30));
        assert_eq!(parse_size("1gb"), None);
        assert_eq!(parse_size(""), None);
        assert_eq!(parse_size("99999999999GiB"), None);
    }
}

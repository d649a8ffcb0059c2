//! Object contents for tests: a tile of random bytes whose length is prime, repeated.
//! A byte at a wrong place of a wrong object therefore never looks right, and a
//! gigabyte costs a megabyte of memory.

use ring::digest::{Context, SHA256};

/// A prime just above 1 MiB: no stripe, slot or frame boundary meets the same bytes again.
const TILE_LENGTH: usize = 1_048_583;

/// The content of one version of one object.
#[derive(Clone)]
pub struct Tile {
    bytes: std::sync::Arc<[u8]>,
}

impl Tile {
    /// Two seeds give unrelated contents.
    pub fn new(seed: u64) -> Tile {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1;
        let mut bytes = Vec::with_capacity(TILE_LENGTH + 8);
        while bytes.len() < TILE_LENGTH {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(TILE_LENGTH);
        Tile {
            bytes: bytes.into(),
        }
    }

    /// The longest piece at `position` that is contiguous in memory, at most `limit` bytes.
    pub fn piece(&self, position: u64, limit: usize) -> &[u8] {
        let start = (position % TILE_LENGTH as u64) as usize;
        let end = (start + limit).min(TILE_LENGTH);
        &self.bytes[start..end]
    }

    /// Bytes `start..end` of the content.
    pub fn slice(&self, start: u64, end: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity((end - start) as usize);
        self.each_piece(start, end, |piece| out.extend_from_slice(piece));
        out
    }

    pub fn each_piece(&self, start: u64, end: u64, mut sink: impl FnMut(&[u8])) {
        let mut position = start;
        while position < end {
            let piece = self.piece(position, (end - position).min(usize::MAX as u64) as usize);
            sink(piece);
            position += piece.len() as u64;
        }
    }

    /// Whether `bytes` is what stands at `position`.
    pub fn holds(&self, position: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        let mut at = position;
        while !rest.is_empty() {
            let piece = self.piece(at, rest.len());
            if piece != &rest[..piece.len()] {
                return false;
            }
            at += piece.len() as u64;
            rest = &rest[piece.len()..];
        }
        true
    }

    pub fn sha256_hex(&self, start: u64, end: u64) -> String {
        let mut context = Context::new(&SHA256);
        self.each_piece(start, end, |piece| context.update(piece));
        hex(context.finish().as_ref())
    }
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&SHA256, bytes).as_ref())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A SHA-256 that grows with a streamed body.
pub struct Digest(Context);

impl Digest {
    pub fn new() -> Digest {
        Digest(Context::new(&SHA256))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub fn hex(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

//! A batch of records and where each of them goes: small ones gathered into large writes, large ones straight from their slots.
//!
//! Called by the writer.

use std::sync::Arc;

use crate::io::file::AlignedBuf;
use crate::ram::extent::Extent;
use crate::ram::lent::Pinned;

use super::Described;
use super::format::fact::Place;
use super::format::record::{Kind, Layout, Record, header_bytes, stored_bytes};
use super::format::{BLOCK_BYTES, FRAME_BYTES};
use super::frames::Frames;

/// Gathered bytes are written at the latest when there are so many.
const GATHER_BYTES: usize = 1 << 20;
/// One write.
pub enum Piece {
    /// Gathered bytes, whole blocks.
    Copy(AlignedBuf),
    /// Whole blocks of a slot.
    Slot(Pinned),
}

/// Writes to one segment.
pub struct Plan {
    shard: u16,
    segment: u32,
    /// Offset behind everything planned.
    end: u64,
    gathered: Vec<u8>,
    gathered_at: u64,
    pieces: Vec<(u64, Piece)>,
}

/// The record of a head.
#[must_use]
pub fn head_record(head: &dyn Described, confirmed_unix_ms: u64) -> Record<'_> {
    Record {
        kind: Kind::Head,
        object: head.object(),
        version: head.version(),
        total: head.total(),
        stripe: 0,
        window: 0..0,
        confirmed_unix_ms,
        key: head.key(),
        etag: head.etag(),
        lines: head.lines(),
        checksum_lines: head.checksum_lines(),
        checksums_known: head.checksums_known(),
        dated: head.dated(),
        frames: Vec::new(),
    }
}

/// The record of an extent, its frames taken out of `frames`.
#[must_use]
pub fn extent_record<'h>(
    extent: &Extent,
    end: u32,
    head: &'h dyn Described,
    frames: &mut Frames,
) -> Record<'h> {
    Record {
        kind: Kind::Extent,
        stripe: extent.id().index,
        window: extent.start()..end,
        lines: b"",
        checksum_lines: b"",
        checksums_known: false,
        dated: None,
        frames: std::mem::take(&mut frames.table),
        ..head_record(head, 0)
    }
}

impl Plan {
    /// Writes from `start` on, a multiple of the block.
    #[must_use]
    pub fn new(shard: u16, segment: u32, start: u64) -> Self {
        Self {
            shard,
            segment,
            end: start,
            gathered: Vec::new(),
            gathered_at: start,
            pieces: Vec::new(),
        }
    }

    /// Offset behind everything planned.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    fn place(&self, layout: Layout) -> Place {
        Place {
            shard: self.shard,
            segment: self.segment,
            block: (self.end / BLOCK_BYTES) as u32,
            record_blocks: (u64::from(layout.record_bytes) / BLOCK_BYTES) as u32,
            header_blocks: layout.header_blocks(),
        }
    }

    /// Plans a record without frames.
    pub fn add_head(&mut self, record: &Record<'_>) -> Place {
        let layout = record.layout();
        let place = self.place(layout);
        record.encode(&mut self.gathered);
        self.end_record(layout);
        place
    }

    /// Plans the record of an extent.
    pub fn add_extent(
        &mut self,
        record: &Record<'_>,
        extent: &Arc<Extent>,
        frames: Frames,
    ) -> Place {
        let layout = record.layout();
        let place = self.place(layout);
        let begun = self.gathered.len();
        record.encode(&mut self.gathered);
        self.gathered.resize(begun + layout.data_offset as usize, 0);
        match frames.packed {
            Some(packed) => self.gathered.extend_from_slice(&packed),
            None => self.add_plain(record.window.clone(), extent),
        }
        self.end_record(layout);
        place
    }

    /// Plans a whole record as it is.
    pub fn add_copy(&mut self, record: &[u8], header_blocks: u32) -> Place {
        let layout = Layout {
            header_bytes: header_blocks * BLOCK_BYTES as u32,
            data_offset: 0,
            record_bytes: record.len() as u32,
        };
        let place = self.place(layout);
        self.gathered.extend_from_slice(record);
        self.end_record(layout);
        place
    }

    fn add_plain(&mut self, window: std::ops::Range<u32>, extent: &Arc<Extent>) {
        let large = window.len() > FRAME_BYTES as usize;
        let mut at = window.start;
        while let Some(piece) = Pinned::of(extent, at, window.end) {
            at += piece.len() as u32;
            let whole = piece.len() / BLOCK_BYTES as usize * BLOCK_BYTES as usize;
            if !large || whole == 0 {
                self.gathered.extend_from_slice(&piece);
                continue;
            }
            let rest = piece[whole..].to_vec();
            self.flush();
            self.pieces
                .push((self.gathered_at, Piece::Slot(piece.first(whole))));
            self.gathered_at += whole as u64;
            self.gathered.extend_from_slice(&rest);
        }
        assert!(at == window.end, "what was promised is there");
    }

    fn end_record(&mut self, layout: Layout) {
        let whole = self.gathered.len().next_multiple_of(BLOCK_BYTES as usize);
        self.gathered.resize(whole, 0);
        self.end += u64::from(layout.record_bytes);
        assert!(
            self.gathered_at + self.gathered.len() as u64 == self.end,
            "a record is as long as its layout says"
        );
        if self.gathered.len() >= GATHER_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let mut memory = AlignedBuf::new(self.gathered.len());
        let bytes = memory.len();
        memory[..self.gathered.len()].copy_from_slice(&self.gathered);
        self.gathered.clear();
        self.pieces.push((self.gathered_at, Piece::Copy(memory)));
        self.gathered_at += bytes as u64;
    }

    /// The writes, each with its offset.
    #[must_use]
    pub fn finish(mut self) -> Vec<(u64, Piece)> {
        self.flush();
        self.pieces
    }
}

/// Bytes that the record of an extent will take at most.
#[must_use]
pub fn record_bytes(head: &dyn Described, frames: &Frames) -> u64 {
    let header = header_bytes(head.key().len() + head.etag().len(), frames.table.len());
    (header as u64).next_multiple_of(BLOCK_BYTES)
        + stored_bytes(&frames.table).next_multiple_of(BLOCK_BYTES)
}

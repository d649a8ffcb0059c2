//! The frames of an extent as they are stored: checksums, and LZ4 where that is wanted and pays.
//!
//! Called by the writer. What pays: a frame is stored compressed if that saves an eighth of it, and a record has such frames only if they save an eighth of
//! the whole; else all of it is plain, which is read straight into slots and not copied. What was hit so often on disk that it is written a second time is
//! stored plain then ([`unpacked`]), unless it would take half as much again or more.

use std::sync::Arc;

use crate::base::checksum::crc32c;
use crate::io::breathe;
use crate::ram::extent::Extent;

use super::format::record::{Frame, Record, frame_bytes};
use super::format::{BLOCK_BYTES, FRAME_BYTES};

/// Compressing must save one byte in so many.
const SAVES_ONE_IN: usize = 8;
/// After a frame that did not get smaller, one in so many is tried: an object may change in its middle.
const TRIED_ONE_IN: usize = 8;
/// Frames that are compressed between two turns of the shard's other tasks: some half a millisecond.
const FRAMES_PER_TURN: usize = 4;

/// The frames of an extent, as they will be stored.
#[derive(Debug)]
pub struct Frames {
    pub(super) table: Vec<Frame>,
    /// The stored bytes of all frames, if any is compressed.
    pub(super) packed: Option<Vec<u8>>,
}

/// What it is worth being stored as.
fn is_smaller(stored: usize, plain: usize) -> bool {
    stored <= plain - plain.div_ceil(SAVES_ONE_IN)
}

impl Frames {
    /// Of the published bytes of an extent.
    pub async fn of(extent: &Arc<Extent>, end: u32, compress: bool) -> Self {
        if compress {
            let packed = Self::packed(extent, end).await;
            let stored = packed.packed.as_ref().map_or(usize::MAX, Vec::len);
            if is_smaller(stored, (end - extent.start()) as usize) {
                return packed;
            }
        }
        let frames = Self::plain(extent, end);
        breathe().await;
        frames
    }

    fn plain(extent: &Extent, end: u32) -> Self {
        let mut table = Vec::new();
        for_each_frame(extent, end, |plain| table.push(frame(plain, false)));
        Self {
            table,
            packed: None,
        }
    }

    async fn packed(extent: &Extent, end: u32) -> Self {
        let (mut table, mut packed) = (Vec::new(), Vec::new());
        let (mut at, mut failed, mut any) = (extent.start(), 0, false);
        while at < end {
            let until = end.min(at + FRAME_BYTES);
            let plain = frame_of(extent, at, until);
            at = until;
            let tried = failed % TRIED_ONE_IN == 0;
            let smaller = tried.then(|| lz4_flex::block::compress(&plain));
            let smaller = smaller.filter(|bytes| is_smaller(bytes.len(), plain.len()));
            failed = if smaller.is_some() { 0 } else { failed + 1 };
            any |= smaller.is_some();
            let stored = smaller.as_deref().unwrap_or(&plain);
            table.push(frame(stored, smaller.is_some()));
            packed.extend_from_slice(stored);
            if table.len().is_multiple_of(FRAMES_PER_TURN) {
                breathe().await;
            }
        }
        Self {
            table,
            packed: any.then_some(packed),
        }
    }
}

fn frame(stored: &[u8], lz4: bool) -> Frame {
    Frame {
        stored_bytes: stored.len() as u32,
        lz4,
        sum: crc32c(stored),
    }
}

/// Bytes of an extent that are published.
fn frame_of(extent: &Extent, start: u32, end: u32) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::with_capacity((end - start) as usize), start);
    while let Some(piece) = extent.piece(at, end) {
        bytes.extend_from_slice(piece.bytes());
        at += piece.bytes().len() as u32;
    }
    assert!(at == end, "what was promised is there");
    bytes
}

fn for_each_frame(extent: &Extent, end: u32, mut each: impl FnMut(&[u8])) {
    let mut at = extent.start();
    while at < end {
        let until = end.min(at + FRAME_BYTES);
        match extent.piece(at, until) {
            Some(piece) if piece.bytes().len() == (until - at) as usize => each(piece.bytes()),
            _ => each(&frame_of(extent, at, until)),
        }
        at = until;
    }
}

/// A whole record with compressed frames, with plain ones instead; `None` if it has none, if that would take half as much again, or if it is damaged.
#[must_use]
pub fn unpacked(memory: &[u8]) -> Option<Vec<u8>> {
    let (record, layout) = Record::decode(memory).ok()?;
    let length = record.window.len();
    let stored_bytes = layout.record_bytes as usize;
    let is_packed = record.frames.iter().any(|frame| frame.lz4);
    if !is_packed || length + length / 64 > stored_bytes + stored_bytes / 2 {
        return None;
    }
    let (mut table, mut data) = (Vec::new(), Vec::with_capacity(length));
    let mut at = layout.data_offset as usize;
    for (index, known) in record.frames.iter().enumerate() {
        let stored = memory.get(at..at + known.stored_bytes as usize)?;
        at += stored.len();
        if crc32c(stored) != known.sum {
            return None;
        }
        let whole = frame_bytes(length as u32, index as u32) as usize;
        let begun = data.len();
        match known.lz4 {
            true => data.extend_from_slice(&lz4_flex::block::decompress(stored, whole).ok()?),
            false => data.extend_from_slice(stored),
        }
        if data.len() - begun != whole {
            return None;
        }
        table.push(frame(&data[begun..], false));
    }
    let record = Record {
        frames: table,
        ..record
    };
    let layout = record.layout();
    let mut out = Vec::with_capacity(layout.record_bytes as usize);
    record.encode(&mut out);
    out.resize(layout.data_offset as usize, 0);
    out.extend_from_slice(&data);
    out.resize(out.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    assert!(
        out.len() == layout.record_bytes as usize,
        "as its layout says"
    );
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::format::record::Kind;
    use proptest::prelude::*;

    /// The record of these bytes with every frame compressed.
    fn record_of(data: &[u8], compress: bool) -> Vec<u8> {
        let stored: Vec<(Vec<u8>, bool)> = data
            .chunks(FRAME_BYTES as usize)
            .map(|plain| match compress {
                true => (lz4_flex::block::compress(plain), true),
                false => (plain.to_vec(), false),
            })
            .collect();
        let record = Record {
            kind: Kind::Extent,
            object: 1,
            version: 2,
            total: data.len() as u64,
            stripe: 0,
            window: 0..data.len() as u32,
            confirmed_unix_ms: 0,
            key: b"key",
            etag: b"etag",
            lines: b"",
            checksum_lines: b"",
            checksums_known: false,
            dated: None,
            frames: stored
                .iter()
                .map(|(bytes, lz4)| frame(bytes, *lz4))
                .collect(),
        };
        let layout = record.layout();
        let mut out = Vec::new();
        record.encode(&mut out);
        out.resize(layout.data_offset as usize, 0);
        stored
            .iter()
            .for_each(|(bytes, _)| out.extend_from_slice(bytes));
        out.resize(layout.record_bytes as usize, 0);
        out
    }

    /// Bytes of which about one in `of` is random.
    fn bytes(length: usize, seed: u64, of: u64) -> Vec<u8> {
        let prng = crate::base::prng::Prng::new(seed);
        let random = |_| match prng.next_u64() {
            word if word % of == 0 => (word >> 32) as u8,
            _ => b'a',
        };
        (0..length).map(random).collect()
    }

    #[test]
    fn a_record_that_is_written_again_is_plain() {
        let data = bytes(200_000, 7, 2);
        let packed = record_of(&data, true);
        assert!(packed.len() < data.len());
        assert_eq!(unpacked(&packed), Some(record_of(&data, false)));
        assert_eq!(unpacked(&record_of(&data, false)), None);
    }

    #[test]
    fn what_would_take_half_as_much_again_stays_small() {
        let data = bytes(1_000_000, 7, 1000);
        assert_eq!(unpacked(&record_of(&data, true)), None);
    }

    #[test]
    fn damage_stays_as_it_is() {
        let data = bytes(200_000, 9, 2);
        let good = record_of(&data, true);
        for at in (0..good.len()).step_by(997) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            let plain = unpacked(&bad);
            assert!(plain.is_none_or(|plain| plain == record_of(&data, false)));
        }
    }

    proptest! {
        #[test]
        fn plain_records_hold_the_same_bytes(length in 1..300_000_usize, seed: u64, of in 1..4_u64) {
            let data = bytes(length, seed, of);
            if let Some(plain) = unpacked(&record_of(&data, true)) {
                prop_assert_eq!(plain, record_of(&data, false));
            }
        }

        #[test]
        fn no_bytes_stop_it(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _unused = unpacked(&bytes);
        }
    }
}

//! A record of a segment: a self-describing header with the whole key, and the frames of an extent, or a head alone.
//!
//! Called by the writer (encodes), by the loader, the reclaim and the tools (decode). A record begins on a block and takes whole blocks. Frames that are all
//! plain begin on a block of their own unless the extent is one frame or less, so that direct I/O brings them to their slots without a copy.

use std::ops::Range;

use crate::base::checksum::crc32c;
use crate::ram::STRIPE_BYTES;

use super::super::Dated;
use super::{BLOCK_BYTES, FRAME_BYTES, Fields, FormatError, TEXT_BYTES_MAX, blocks};

/// First bytes of a record, its format version included.
const MAGIC: u32 = u32::from_le_bytes(*b"MRr\x01");
/// Bytes before key, ETag, lines and frame table.
const FIXED_BYTES: usize = 128;
/// Bytes of an entry of the frame table.
const FRAME_ENTRY_BYTES: usize = 8;
/// The mark of a compressed frame in its stored length.
const LZ4_MARK: u32 = 1 << 31;
/// The mark of a head that was asked for with checksums.
const CHECKSUMS_KNOWN: u32 = 1;
/// The mark of a head that says when its answer was made.
const DATED: u32 = 2;
/// Bytes before what it says.
const DATED_AT: usize = 108;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of an object.
    Extent,
    /// The head of a version.
    Head,
}

/// One frame as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes in the segment.
    pub stored_bytes: u32,
    /// Whether they are LZ4 (block format).
    pub lz4: bool,
    /// CRC-32C of the stored bytes.
    pub sum: u32,
}

/// The header of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of ETag and total length.
    pub version: u128,
    /// Bytes of the whole object.
    pub total: u64,
    /// Which stripe; 0 for a head.
    pub stripe: u32,
    /// Bytes of the stripe; empty for a head.
    pub window: Range<u32>,
    /// When the origin last confirmed the version, milliseconds since 1970.
    pub confirmed_unix_ms: u64,
    /// Encoded object key.
    pub key: &'a [u8],
    /// ETag as the origin sent it.
    pub etag: &'a [u8],
    /// A head's stored lines.
    pub lines: &'a [u8],
    /// A head's checksum lines.
    pub checksum_lines: &'a [u8],
    /// Whether the origin was asked for checksums.
    pub checksums_known: bool,
    /// When a head's answer was made, if that is known.
    pub dated: Option<Dated>,
    /// An extent's frames.
    pub frames: Vec<Frame>,
}

/// Where the parts of a record are, from its first byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the header.
    pub header_bytes: u32,
    /// Where the first frame begins.
    pub data_offset: u32,
    /// Bytes of the whole record: whole blocks.
    pub record_bytes: u32,
}

impl Layout {
    /// Blocks that hold the header.
    #[must_use]
    pub fn header_blocks(self) -> u32 {
        blocks(u64::from(self.header_bytes)) as u32
    }

    /// Whether frames lie at multiples of [`FRAME_BYTES`] from a block on.
    #[must_use]
    pub fn is_aligned(self) -> bool {
        u64::from(self.data_offset).is_multiple_of(BLOCK_BYTES)
    }
}

/// Bytes of a header with so many bytes of texts and so many frames.
#[must_use]
pub fn header_bytes(texts: usize, frames: usize) -> usize {
    FIXED_BYTES + texts + frames * FRAME_ENTRY_BYTES
}

/// Bytes of several frames, as they are stored.
#[must_use]
pub fn stored_bytes(frames: &[Frame]) -> u64 {
    frames
        .iter()
        .map(|frame| u64::from(frame.stored_bytes))
        .sum()
}

/// How many frames an extent of `bytes` has.
#[must_use]
pub fn frames_of(bytes: u32) -> u32 {
    bytes.div_ceil(FRAME_BYTES)
}

/// Bytes of frame `index` of an extent of `bytes`.
#[must_use]
pub fn frame_bytes(bytes: u32, index: u32) -> u32 {
    (bytes - index * FRAME_BYTES).min(FRAME_BYTES)
}

impl Record<'_> {
    fn texts(&self) -> [&[u8]; 4] {
        [self.key, self.etag, self.lines, self.checksum_lines]
    }

    /// How far the answer's own date is from when it came.
    fn date_offset_s(&self, dated: Dated) -> i32 {
        let came_unix_s = self.confirmed_unix_ms / 1000;
        let offset_s = i128::from(dated.date_unix_s) - i128::from(came_unix_s);
        offset_s.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
    }

    /// Where everything will be.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let texts: usize = self.texts().iter().map(|text| text.len()).sum();
        let header_bytes = header_bytes(texts, self.frames.len()) as u64;
        let aligned = self.frames.len() > 1 && self.frames.iter().all(|frame| !frame.lz4);
        let data_offset = match aligned {
            true => blocks(header_bytes) * BLOCK_BYTES,
            false => header_bytes,
        };
        Layout {
            header_bytes: header_bytes as u32,
            data_offset: data_offset as u32,
            record_bytes: (blocks(data_offset + stored_bytes(&self.frames)) * BLOCK_BYTES) as u32,
        }
    }

    /// Writes the header behind what `out` has.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (layout, start) = (self.layout(), out.len());
        let kind = match self.kind {
            Kind::Extent => 1u8,
            Kind::Head => 2,
        };
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&layout.header_bytes.to_le_bytes());
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&self.object.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.total.to_le_bytes());
        out.extend_from_slice(&self.confirmed_unix_ms.to_le_bytes());
        let flags = (u32::from(self.checksums_known) * CHECKSUMS_KNOWN)
            | (u32::from(self.dated.is_some()) * DATED);
        let numbers = [
            self.stripe,
            self.window.start,
            self.window.end,
            layout.data_offset,
            layout.record_bytes,
            self.frames.len() as u32,
            flags,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for text in self.texts() {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        }
        if let Some(dated) = self.dated {
            out.extend_from_slice(&self.date_offset_s(dated).to_le_bytes());
            out.extend_from_slice(&dated.age_ms.to_le_bytes());
        }
        out.resize(start + FIXED_BYTES, 0);
        for text in self.texts() {
            out.extend_from_slice(text);
        }
        for frame in &self.frames {
            let mark = if frame.lz4 { LZ4_MARK } else { 0 };
            out.extend_from_slice(&(frame.stored_bytes | mark).to_le_bytes());
            out.extend_from_slice(&frame.sum.to_le_bytes());
        }
        let sum = crc32c(&out[start + 8..]);
        out[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    }
}

impl<'a> Record<'a> {
    /// Reads the header at the front of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, Layout), FormatError> {
        let mut fields = Fields(bytes);
        if fields.u32()? != MAGIC {
            return Err(FormatError::Magic);
        }
        let sum = fields.u32()?;
        let header_bytes = fields.u32()?;
        if (header_bytes as usize) < FIXED_BYTES {
            return Err(FormatError::Field("header length"));
        }
        let header = bytes
            .get(..header_bytes as usize)
            .ok_or(FormatError::Short)?;
        if crc32c(&header[8..]) != sum {
            return Err(FormatError::Checksum);
        }
        let mut fields = Fields(&header[12..]);
        let kind = match fields.u32()? {
            1 => Kind::Extent,
            2 => Kind::Head,
            _ => return Err(FormatError::Field("kind")),
        };
        let (object, version) = (fields.u128()?, fields.u128()?);
        let (total, confirmed_unix_ms) = (fields.u64()?, fields.u64()?);
        let (stripe, start, end) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (data_offset, record_bytes) = (fields.u32()?, fields.u32()?);
        let (frames, flags) = (fields.u32()?, fields.u32()?);
        let lengths = [fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?];
        let dated = match flags & DATED {
            0 => None,
            _ => Some(dated_from(&header[DATED_AT..], confirmed_unix_ms)?),
        };
        let mut fields = Fields(&header[FIXED_BYTES..]);
        let mut texts = [&header[..0]; 4];
        for (text, bytes) in texts.iter_mut().zip(lengths) {
            if bytes > TEXT_BYTES_MAX {
                return Err(FormatError::Field("text length"));
            }
            *text = fields.text(bytes as usize)?;
        }
        let record = Self {
            kind,
            object,
            version,
            total,
            stripe,
            window: start..end,
            confirmed_unix_ms,
            key: texts[0],
            etag: texts[1],
            lines: texts[2],
            checksum_lines: texts[3],
            checksums_known: flags & CHECKSUMS_KNOWN != 0,
            dated,
            frames: decode_frames(fields, frames)?,
        };
        let layout = Layout {
            header_bytes,
            data_offset,
            record_bytes,
        };
        record.check(layout)?;
        Ok((record, layout))
    }

    fn check(&self, layout: Layout) -> Result<(), FormatError> {
        if self.layout() != layout {
            return Err(FormatError::Field("layout"));
        }
        if self.key.is_empty() {
            return Err(FormatError::Field("key"));
        }
        let Range { start, end } = self.window;
        let bytes = match self.kind {
            Kind::Head if (self.stripe, start, end) == (0, 0, 0) => 0,
            Kind::Extent if start < end && u64::from(end) <= STRIPE_BYTES => end - start,
            Kind::Head | Kind::Extent => return Err(FormatError::Field("window")),
        };
        if u64::from(self.stripe) * STRIPE_BYTES + u64::from(end) > self.total {
            return Err(FormatError::Field("window"));
        }
        if self.frames.len() != frames_of(bytes) as usize {
            return Err(FormatError::Field("frames"));
        }
        for (index, frame) in self.frames.iter().enumerate() {
            let plain = frame_bytes(bytes, index as u32);
            let fits = match frame.lz4 {
                true => frame.stored_bytes < plain,
                false => frame.stored_bytes == plain,
            };
            if !fits {
                return Err(FormatError::Field("frame length"));
            }
        }
        Ok(())
    }
}

/// What a head says of its answer's time.
fn dated_from(bytes: &[u8], confirmed_unix_ms: u64) -> Result<Dated, FormatError> {
    let mut fields = Fields(bytes);
    let offset_s = i64::from(fields.u32()?.cast_signed());
    Ok(Dated {
        date_unix_s: (confirmed_unix_ms / 1000).saturating_add_signed(offset_s),
        age_ms: fields.u64()?,
    })
}

fn decode_frames(mut fields: Fields<'_>, count: u32) -> Result<Vec<Frame>, FormatError> {
    if fields.0.len() != count as usize * FRAME_ENTRY_BYTES {
        return Err(FormatError::Field("frames"));
    }
    let mut frames = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (stored, sum) = (fields.u32()?, fields.u32()?);
        let frame = Frame {
            stored_bytes: stored & !LZ4_MARK,
            lz4: stored & LZ4_MARK != 0,
            sum,
        };
        if frame.stored_bytes > FRAME_BYTES {
            return Err(FormatError::Field("frame length"));
        }
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(bytes: u32, lz4: bool) -> Record<'static> {
        let frame = |index| Frame {
            stored_bytes: frame_bytes(bytes, index) - u32::from(lz4),
            lz4,
            sum: index * 77,
        };
        Record {
            kind: Kind::Extent,
            object: 1 << 100,
            version: 3 << 90,
            total: 100 << 20,
            stripe: 2,
            window: 5..5 + bytes,
            confirmed_unix_ms: 1_790_000_000_999,
            key: b"a key",
            etag: b"\"etag\"",
            lines: b"",
            checksum_lines: b"",
            checksums_known: false,
            dated: None,
            frames: (0..frames_of(bytes)).map(frame).collect(),
        }
    }

    fn head() -> Record<'static> {
        Record {
            kind: Kind::Head,
            stripe: 0,
            window: 0..0,
            lines: b"Content-Type: text/plain\r\n",
            checksum_lines: b"x-amz-checksum-crc32c: AAAA\r\n",
            checksums_known: true,
            dated: Some(Dated {
                date_unix_s: 1_789_999_000,
                age_ms: 1 << 40,
            }),
            frames: Vec::new(),
            ..extent(1, false)
        }
    }

    fn encoded(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode(&mut out);
        out
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        for record in [
            head(),
            extent(1, false),
            extent(65_536, false),
            extent(65_537, false),
            extent(8 << 20 >> 1, false),
            extent(1_000_000, true),
        ] {
            let mut bytes = encoded(&record);
            assert_eq!(bytes.len(), record.layout().header_bytes as usize);
            bytes.extend_from_slice(&[0xAA; 300]);
            assert_eq!(
                Record::decode(&bytes),
                Ok((record.clone(), record.layout()))
            );
        }
    }

    #[test]
    fn a_head_without_its_answers_time_is_read_as_before_there_was_one() {
        let record = Record {
            dated: None,
            ..head()
        };
        let bytes = encoded(&record);
        assert_eq!(bytes[DATED_AT..FIXED_BYTES], [0; FIXED_BYTES - DATED_AT]);
        assert_eq!(Record::decode(&bytes).map(|(read, _)| read), Ok(record));
    }

    #[test]
    fn a_date_beyond_what_can_be_told_is_cut() {
        for (date_unix_s, read_s) in [(u64::MAX, 1_790_000_000 + i32::MAX as u64), (0, 0)] {
            let dated = Dated {
                date_unix_s,
                age_ms: 0,
            };
            let record = Record {
                dated: Some(dated),
                ..head()
            };
            let bytes = encoded(&record);
            let (record, _) = Record::decode(&bytes).expect("a record");
            assert_eq!(record.dated.map(|dated| dated.date_unix_s), Some(read_s));
        }
    }

    #[test]
    fn large_plain_extents_lie_on_blocks_and_small_ones_behind_their_header() {
        assert!(extent(65_537, false).layout().is_aligned());
        assert_eq!(
            extent(65_537, false).layout().record_bytes,
            4096 + 65_536 + 4096
        );
        let small = extent(3000, false).layout();
        assert_eq!(
            (small.data_offset, small.record_bytes),
            (small.header_bytes, 4096)
        );
        assert_eq!(head().layout().record_bytes, 4096);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        for record in [head(), extent(200_000, true)] {
            let bytes = encoded(&record);
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Record::decode(&flipped).is_err(), "bit {bit}");
            }
            for length in 0..bytes.len() {
                assert!(Record::decode(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn numbers_that_contradict_each_other_are_refused_though_the_checksum_fits() {
        let wrong: [fn(&mut Record<'static>); 8] = [
            |record| record.key = b"",
            |record| record.window = 5..5,
            |record| record.window = 0..(8 << 20) + 1,
            |record| record.total = 10,
            |record| record.frames.truncate(1),
            |record| record.frames[0].stored_bytes -= 1,
            |record| record.frames[1].lz4 = true,
            |record| record.stripe = u32::MAX,
        ];
        for (number, change) in wrong.iter().enumerate() {
            let mut record = extent(200_000, false);
            change(&mut record);
            assert!(
                Record::decode(&encoded(&record)).is_err(),
                "change {number}"
            );
        }
    }
}

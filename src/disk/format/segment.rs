//! The first block of a segment, the first bytes of a journal and of a snapshot, and the file `FORMAT`.
//!
//! Called by the keeper (writes them), by the fold and the tools (check them).

use crate::base::checksum::crc32c;

use super::{BLOCK_BYTES, Fields, FormatError, VERSION};

/// First bytes of a segment.
const SEGMENT_MAGIC: &[u8; 8] = b"MRSEGMNT";
/// First bytes of a journal.
const JOURNAL_MAGIC: &[u8; 8] = b"MRJOURNL";
/// First bytes of a snapshot.
const SNAPSHOT_MAGIC: &[u8; 8] = b"MRSNAPSH";
/// First words of `FORMAT`.
const FORMAT_WORDS: &str = "millrace cache directory";

/// Bytes of the header of a journal. A segment's header takes a whole block.
pub const HEADER_BYTES: usize = 64;

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Number of the instance that wrote it.
    pub instance: u64,
    /// The shard that wrote it.
    pub shard: u16,
    /// Which of the shard's files.
    pub number: u32,
    /// Wall clock at its making, milliseconds since 1970.
    pub created_unix_ms: u64,
}

impl FileHeader {
    fn encode(&self, magic: &[u8; 8]) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(magic);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.instance.to_le_bytes());
        out[24..32].copy_from_slice(&self.created_unix_ms.to_le_bytes());
        out[32..36].copy_from_slice(&self.number.to_le_bytes());
        out[36..38].copy_from_slice(&self.shard.to_le_bytes());
        let sum = crc32c(&out[16..]);
        out[12..16].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8], magic: &[u8; 8]) -> Result<Self, FormatError> {
        let header = bytes.get(..HEADER_BYTES).ok_or(FormatError::Short)?;
        let mut fields = Fields(header);
        if fields.text(8)? != magic {
            return Err(FormatError::Magic);
        }
        let version = fields.u32()?;
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        if fields.u32()? != crc32c(&header[16..]) {
            return Err(FormatError::Checksum);
        }
        let (instance, created_unix_ms) = (fields.u64()?, fields.u64()?);
        Ok(Self {
            instance,
            created_unix_ms,
            number: fields.u32()?,
            shard: fields.u16()?,
        })
    }

    /// The first block of a segment.
    #[must_use]
    pub fn segment(&self) -> Vec<u8> {
        let mut block = self.encode(SEGMENT_MAGIC).to_vec();
        block.resize(BLOCK_BYTES as usize, 0);
        block
    }

    /// The first bytes of a journal.
    #[must_use]
    pub fn journal(&self) -> [u8; HEADER_BYTES] {
        self.encode(JOURNAL_MAGIC)
    }

    /// The first bytes of a snapshot.
    #[must_use]
    pub fn snapshot(&self) -> [u8; HEADER_BYTES] {
        self.encode(SNAPSHOT_MAGIC)
    }

    /// Reads a snapshot's first bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_snapshot(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::decode(bytes, SNAPSHOT_MAGIC)
    }

    /// Reads a segment's first bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_segment(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::decode(bytes, SEGMENT_MAGIC)
    }

    /// Reads a journal's first bytes.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_journal(bytes: &[u8]) -> Result<Self, FormatError> {
        Self::decode(bytes, JOURNAL_MAGIC)
    }
}

/// The text of the file `FORMAT`.
#[must_use]
pub fn format_text(stripe_bytes: u64) -> String {
    format!("{FORMAT_WORDS}\nversion {VERSION}\nstripe {stripe_bytes}\n")
}

/// Whether the text of a file `FORMAT` is one that this program may write beside.
///
/// # Errors
/// What is wrong with it.
pub fn check_format_text(text: &str, stripe_bytes: u64) -> Result<(), FormatError> {
    let mut lines = text.lines();
    if lines.next() != Some(FORMAT_WORDS) {
        return Err(FormatError::Magic);
    }
    let mut number = |name: &str| {
        let value = lines.next()?.strip_prefix(name)?.trim();
        value.parse::<u64>().ok()
    };
    let version = number("version ").ok_or(FormatError::Field("version"))?;
    if version != u64::from(VERSION) {
        return Err(FormatError::Version(version as u32));
    }
    match number("stripe ") {
        Some(bytes) if bytes == stripe_bytes => Ok(()),
        _ => Err(FormatError::Field("stripe size")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: FileHeader = FileHeader {
        instance: 0x1234_5678_9ABC,
        shard: 7,
        number: 42,
        created_unix_ms: 1_700_000_000_000,
    };

    #[test]
    fn headers_come_back_and_are_not_taken_for_each_other() {
        let (segment, journal) = (HEADER.segment(), HEADER.journal());
        assert_eq!(segment.len() as u64, BLOCK_BYTES);
        assert_eq!(FileHeader::of_segment(&segment), Ok(HEADER));
        assert_eq!(FileHeader::of_journal(&journal), Ok(HEADER));
        assert_eq!(FileHeader::of_segment(&journal), Err(FormatError::Magic));
        assert_eq!(FileHeader::of_journal(&segment), Err(FormatError::Magic));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let journal = HEADER.journal();
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = journal;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FileHeader::of_journal(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..HEADER_BYTES {
            assert_eq!(
                FileHeader::of_journal(&journal[..length]),
                Err(FormatError::Short)
            );
        }
    }

    #[test]
    fn a_directory_of_another_format_is_refused() {
        let text = format_text(8 << 20);
        assert_eq!(check_format_text(&text, 8 << 20), Ok(()));
        assert_eq!(
            check_format_text(&text, 4 << 20),
            Err(FormatError::Field("stripe size"))
        );
        let newer = text.replace("version 1", "version 2");
        assert_eq!(
            check_format_text(&newer, 8 << 20),
            Err(FormatError::Version(2))
        );
        assert_eq!(
            check_format_text("something else", 8 << 20),
            Err(FormatError::Magic)
        );
        assert_eq!(check_format_text("", 8 << 20), Err(FormatError::Magic));
    }
}

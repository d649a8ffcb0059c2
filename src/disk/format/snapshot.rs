//! A snapshot: what all journals from the first one up to some point say altogether, each head and each extent once.
//!
//! Called by `disk::snapshot` (writes and reads the file), by the tools and the fuzz targets. A header block, then blocks of 64 KiB, each with its own checksum, its
//! place in the file and the file's salt, so that a damaged, swapped or foreign block costs what is in it and nothing else. The first blocks, the lead,
//! say what it stands for: which journals, which segments, which invalidated prefixes. Entries are bodies of facts whose place names a
//! segment by its place in the lead's table.

use crate::base::checksum::crc32c;

use super::fact::{self, Fact};
use super::segment::{FileHeader, HEADER_BYTES};
use super::{BLOCK_BYTES, Fields, FormatError};

/// Bytes of the header block.
pub const LEAD_OFFSET: u64 = BLOCK_BYTES;
/// Bytes of a block behind the header.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a block before its entries.
const PIECE_HEADER_BYTES: usize = 16;
/// Bytes that entries may take in a block.
const ROOM_BYTES: usize = PIECE_BYTES - PIECE_HEADER_BYTES;
/// Longest prefix that a snapshot can hold.
pub const PREFIX_BYTES_MAX: usize = ROOM_BYTES - PREFIX_HEADER_BYTES;
const PREFIX_HEADER_BYTES: usize = 18;
const EXTENT_BYTES: usize = 60;
const HEAD_BYTES: usize = 56;

/// What a snapshot says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Who wrote it, when, and its number; the shard is zero.
    pub file: FileHeader,
    /// It stands for every journal of instances up to this number.
    pub through: u64,
    /// And for those journals of this younger one that the lead names; 0 for none.
    pub partial: u64,
    /// Blocks behind the header.
    pub pieces: u32,
    /// How many of them are the lead.
    pub lead: u32,
    /// In every block of this file.
    pub salt: u32,
    /// Extents in it.
    pub extents: u64,
    /// Heads in it.
    pub heads: u64,
}

impl SnapshotHeader {
    /// Bytes of the whole file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        LEAD_OFFSET + u64::from(self.pieces) * PIECE_BYTES as u64
    }

    /// The first block of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.file.snapshot().to_vec();
        out.extend_from_slice(&[0; 4]);
        for number in [self.pieces, self.lead, self.salt] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.through, self.partial, self.extents, self.heads] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(BLOCK_BYTES as usize, 0);
        let sum = crc32c(&out[HEADER_BYTES + 4..]);
        out[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads the first block of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let file = FileHeader::of_snapshot(bytes)?;
        let block = bytes.get(..BLOCK_BYTES as usize);
        let block = block.ok_or(FormatError::Short)?;
        let mut fields = Fields(&block[HEADER_BYTES..]);
        if fields.u32()? != crc32c(&block[HEADER_BYTES + 4..]) {
            return Err(FormatError::Checksum);
        }
        let (pieces, lead, salt) = (fields.u32()?, fields.u32()?, fields.u32()?);
        if lead > pieces {
            return Err(FormatError::Field("lead"));
        }
        Ok(Self {
            file,
            pieces,
            lead,
            salt,
            through: fields.u64()?,
            partial: fields.u64()?,
            extents: fields.u64()?,
            heads: fields.u64()?,
        })
    }
}

/// Something that a block holds. Blocks hold entries of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Of the younger instance, the journals of a shard with smaller numbers.
    Covered {
        /// The shard.
        shard: u16,
        /// The first journal that is not in.
        next: u32,
    },
    /// One of the segments that places name, from 0 on.
    Segment {
        /// Instance.
        instance: u64,
        /// Shard.
        shard: u16,
        /// Number.
        number: u32,
    },
    /// A prefix that was invalidated.
    Prefix {
        /// By which instance.
        instance: u64,
        /// When, milliseconds since 1970.
        unix_ms: u64,
        /// The beginning of encoded keys.
        prefix: &'a [u8],
    },
    /// An extent or a head. The place's segment is one of the table, its shard zero.
    Fact(Fact<'a>),
}

/// Kind of the blocks that a fact's own kind does not name.
const COVERED: u16 = 16;
const SEGMENTS: u16 = 17;
const PREFIXES: u16 = 18;

impl<'a> Entry<'a> {
    fn encode(&self, out: &mut Vec<u8>) -> u16 {
        match self {
            Self::Covered { shard, next } => {
                out.extend_from_slice(&shard.to_le_bytes());
                out.extend_from_slice(&[0; 2]);
                out.extend_from_slice(&next.to_le_bytes());
                COVERED
            }
            Self::Segment {
                instance,
                shard,
                number,
            } => {
                out.extend_from_slice(&instance.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
                out.extend_from_slice(&shard.to_le_bytes());
                out.extend_from_slice(&[0; 2]);
                SEGMENTS
            }
            Self::Prefix {
                instance,
                unix_ms,
                prefix,
            } => {
                assert!(prefix.len() <= PREFIX_BYTES_MAX, "a prefix fits a block");
                out.extend_from_slice(&instance.to_le_bytes());
                out.extend_from_slice(&unix_ms.to_le_bytes());
                out.extend_from_slice(&(prefix.len() as u16).to_le_bytes());
                out.extend_from_slice(prefix);
                PREFIXES
            }
            Self::Fact(fact) => u16::from(fact.encode_body(out)),
        }
    }

    fn decode(kind: u16, fields: &mut Fields<'a>) -> Result<Self, FormatError> {
        Ok(match kind {
            COVERED => {
                let (shard, _) = (fields.u16()?, fields.u16()?);
                let next = fields.u32()?;
                Self::Covered { shard, next }
            }
            SEGMENTS => {
                let (instance, number) = (fields.u64()?, fields.u32()?);
                let (shard, _) = (fields.u16()?, fields.u16()?);
                Self::Segment {
                    instance,
                    shard,
                    number,
                }
            }
            PREFIXES => {
                let (instance, unix_ms) = (fields.u64()?, fields.u64()?);
                let bytes = usize::from(fields.u16()?);
                Self::Prefix {
                    instance,
                    unix_ms,
                    prefix: fields.text(bytes)?,
                }
            }
            _ => {
                let (kind, bytes) = fact_kind(kind).ok_or(FormatError::Field("kind"))?;
                let fact = Fact::decode_body(kind, fields.text(bytes)?)?;
                Self::Fact(fact.ok_or(FormatError::Field("kind"))?)
            }
        })
    }
}

/// The kind of facts that blocks of a kind hold, and bytes of each.
fn fact_kind(kind: u16) -> Option<(u8, usize)> {
    if kind == u16::from(fact::EXTENT) {
        Some((fact::EXTENT, EXTENT_BYTES))
    } else if kind == u16::from(fact::HEAD) {
        Some((fact::HEAD, HEAD_BYTES))
    } else {
        None
    }
}

/// A block that is being filled.
#[derive(Debug, Default)]
pub struct Piece {
    entries: Vec<u8>,
    kind: u16,
    count: u16,
}

impl Piece {
    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Takes an entry; false: it is full, or of another kind, and as it was.
    pub fn push(&mut self, entry: &Entry<'_>) -> bool {
        let before = self.entries.len();
        let kind = entry.encode(&mut self.entries);
        let fits = self.entries.len() <= ROOM_BYTES && (self.count == 0 || kind == self.kind);
        if !fits {
            self.entries.truncate(before);
            return false;
        }
        self.kind = kind;
        self.count += 1;
        true
    }

    /// Writes the block behind what `out` has, and empties it.
    pub fn finish(&mut self, index: u32, salt: u32, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&salt.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.entries);
        out.resize(start + PIECE_BYTES, 0);
        let sum = crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
        self.entries.clear();
        self.count = 0;
    }
}

/// The entries of a block whose checksum, place and salt fit. Ends with an error at one that cannot be.
#[derive(Debug)]
pub struct Entries<'a> {
    fields: Fields<'a>,
    kind: u16,
    left: u16,
}

impl<'a> Entries<'a> {
    /// Of the block at a place of a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(bytes: &'a [u8], index: u32, salt: u32) -> Result<Self, FormatError> {
        let block = bytes.get(..PIECE_BYTES).ok_or(FormatError::Short)?;
        let mut fields = Fields(block);
        if fields.u32()? != crc32c(&block[4..]) {
            return Err(FormatError::Checksum);
        }
        if (fields.u32()?, fields.u32()?) != (index, salt) {
            return Err(FormatError::Field("place"));
        }
        let (kind, left) = (fields.u16()?, fields.u16()?);
        Ok(Self { fields, kind, left })
    }

    /// Whether this version knows what it holds. Blocks of other kinds are skipped, but for the lead.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.left == 0
            || matches!(self.kind, COVERED | SEGMENTS | PREFIXES)
            || fact_kind(self.kind).is_some()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let entry = Entry::decode(self.kind, &mut self.fields);
        if entry.is_err() {
            self.left = 0;
        }
        Some(entry)
    }
}

//! The formats of the cache directory, pure: bytes to facts and back, no I/O, no clock. `docs/DISK_FORMAT.md` describes them for strangers.
//!
//! Called by everything in `disk`, by the tools and by the fuzz targets. Nothing read from a disk is believed: every decoder is total, checks its checksum
//! first and its bounds after, and what does not hold is a miss to whoever asked. Integers are little-endian.

pub mod fact;
pub mod record;
pub mod segment;
pub mod snapshot;

/// The format's version: in `FORMAT`, in every segment, journal and record.
pub const VERSION: u32 = 1;
/// What records begin on and are multiples of.
pub const BLOCK_BYTES: u64 = 4096;
/// Bytes of an extent that are stored, checked and read as one; the last frame of an extent is what is left.
pub const FRAME_BYTES: u32 = 64 * 1024;
/// Longest key, ETag or head that is stored.
pub const TEXT_BYTES_MAX: u32 = 64 * 1024;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the structure has.
    #[error("it is cut short")]
    Short,
    /// Another kind of bytes altogether.
    #[error("it does not begin as it should")]
    Magic,
    /// A version that this program does not know.
    #[error("it is of format version {0}")]
    Version(u32),
    /// A checksum does not fit.
    #[error("its checksum does not fit")]
    Checksum,
    /// Numbers that contradict each other.
    #[error("its {0} cannot be")]
    Field(&'static str),
}

/// Reads integers and texts off the front of a slice.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn text(&mut self, bytes: usize) -> Result<&'a [u8], FormatError> {
        let (text, rest) = self.0.split_at_checked(bytes).ok_or(FormatError::Short)?;
        self.0 = rest;
        Ok(text)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(FormatError::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn u128(&mut self) -> Result<u128, FormatError> {
        self.array().map(u128::from_le_bytes)
    }
}

/// Blocks that `bytes` take.
#[must_use]
pub const fn blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES)
}

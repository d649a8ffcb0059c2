//! Memory of an extent that the kernel has for a while: room that a disk read writes into, and bytes that a disk write takes.
//!
//! Called by `disk`. Both pin their extent, so that a slot never goes home while an operation that was given up is still at it.

use std::sync::Arc;

use crate::io::file::{ALIGN_BYTES, Lend};

use super::extent::{Extent, Piece};

/// Room of an extent that is being written, above its watermark. Made by `ExtentWriter::lend` alone, each byte once.
pub struct Room {
    pointer: *mut u8,
    /// Bytes of the extent.
    used: usize,
    /// Bytes that may be overwritten: what direct I/O brings beyond the extent's end is of no use and does no harm.
    whole: usize,
    extent: Arc<Extent>,
}

impl Room {
    pub(super) fn new(
        extent: &Arc<Extent>,
        pointer: *mut u8,
        bytes: usize,
        slot_left: usize,
    ) -> Self {
        let rounded = bytes.next_multiple_of(ALIGN_BYTES);
        Self {
            pointer,
            used: bytes,
            whole: if rounded <= slot_left { rounded } else { bytes },
            extent: Arc::clone(extent),
        }
    }

    /// Bytes of the extent.
    #[must_use]
    pub fn bytes_of_extent(&self) -> usize {
        self.used
    }

    /// Whether direct I/O can write here: a small slot may be too small or lie between blocks.
    #[must_use]
    pub fn is_aligned(&self) -> bool {
        self.pointer.addr().is_multiple_of(ALIGN_BYTES) && self.whole.is_multiple_of(ALIGN_BYTES)
    }

    pub(super) fn is_of(&self, extent: &Arc<Extent>, position: u32) -> bool {
        Arc::ptr_eq(&self.extent, extent) && extent.position_of(self.pointer) == Some(position)
    }

    /// The bytes of the extent, as they are now.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped memory of a slot that the pin keeps out; only the holder of this room writes it.
        unsafe { std::slice::from_raw_parts(self.pointer, self.used) }
    }

    /// The bytes of the extent, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above; above the watermark nobody reads, and each byte is lent once.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.used) }
    }
}

// SAFETY: slots are mapped as long as the arena, which the extent holds; the pin keeps this one from being reused, and `ExtentWriter::lend` lends
// each byte once and above the watermark.
unsafe impl Lend for Room {
    fn pointer(&self) -> *mut u8 {
        self.pointer
    }

    fn bytes(&self) -> usize {
        self.whole
    }
}

/// Published bytes of an extent, pinned.
pub struct Pinned {
    pointer: *mut u8,
    bytes: usize,
    _extent: Arc<Extent>,
}

impl Pinned {
    /// The contiguous published bytes from stripe offset `at` on, not beyond `end`.
    #[must_use]
    pub fn of(extent: &Arc<Extent>, at: u32, end: u32) -> Option<Self> {
        let piece: Piece<'_> = extent.piece(at, end)?;
        let bytes = piece.bytes().len();
        let (slot, inside) = piece.slot();
        // SAFETY: a piece lies in its slot, and the slot inside the mapping.
        let pointer = unsafe { piece.extent().address(slot).add(inside) };
        Some(Self {
            pointer,
            bytes,
            _extent: Arc::clone(extent),
        })
    }

    /// Only its first `bytes`.
    #[must_use]
    pub fn first(mut self, bytes: usize) -> Self {
        assert!(bytes <= self.bytes, "a part is no larger than the whole");
        self.bytes = bytes;
        self
    }
}

impl std::ops::Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: below the watermark: written, and never again while the extent is pinned.
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }
}

// SAFETY: published bytes stay while the extent is pinned; they are lent to writes to disk only, which read them.
unsafe impl Lend for Pinned {
    fn pointer(&self) -> *mut u8 {
        self.pointer
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

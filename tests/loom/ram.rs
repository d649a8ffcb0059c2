//! The watermark and the extent over it, on a small arena of plain memory: the part of `ram` that is handed from thread to thread.
//!
//! An extent's own counters are not loom's, so it runs whole between two looks at the watermark; bytes of the arena are plain memory that loom
//! does not watch (`fills` has some that it does). What is explored here is the order in which a writer's calls let its readers see things.

#[path = "../../src/ram/extent.rs"]
pub mod extent;
#[path = "../../src/ram/progress.rs"]
pub mod progress;
#[path = "../../src/ram/readers.rs"]
pub mod readers;

#[path = "extents.rs"]
mod extents;
#[path = "fills.rs"]
mod fills;

/// As `ram::lent`: no model lends anything to a disk.
pub mod lent {
    use std::sync::Arc;

    use super::extent::Extent;

    pub struct Room(usize);

    impl Room {
        pub(super) fn new(_: &Arc<Extent>, _: *mut u8, bytes: usize, _: usize) -> Self {
            Self(bytes)
        }
        pub fn bytes_of_extent(&self) -> usize {
            self.0
        }
        pub(super) fn is_of(&self, _: &Arc<Extent>, _: u32) -> bool {
            true
        }
    }
}

/// As `ram::StripeId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StripeId {
    pub version: u128,
}

impl StripeId {
    pub fn base(&self) -> u64 {
        0
    }
}

/// As `ram::slab`, with pages of four bytes.
pub mod slab {
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub const PAGE_BYTES: usize = 4;

    /// One page.
    #[derive(Debug, Clone, Copy)]
    pub struct Slot(pub usize);

    impl Slot {
        pub fn offset(self) -> usize {
            self.0 * PAGE_BYTES
        }
        pub fn bytes(self) -> usize {
            PAGE_BYTES
        }
        pub fn page(self) -> u32 {
            self.0 as u32
        }
        pub fn may_be_lent(self) -> bool {
            true
        }
    }

    #[derive(Debug)]
    pub struct Memory(*mut u8, usize);

    // SAFETY: as the slab's mapping: whoever writes or reads through it keeps the one-writer rule.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    /// Counts the slots that came home.
    #[derive(Debug)]
    pub struct Arena {
        pub(super) memory: Memory,
        home: AtomicUsize,
    }

    impl Arena {
        pub fn new(pages: usize) -> Self {
            let memory = Box::leak(vec![0u8; pages * PAGE_BYTES].into_boxed_slice());
            Self {
                memory: Memory(memory.as_mut_ptr(), memory.len()),
                home: AtomicUsize::new(0),
            }
        }
        pub(super) fn give_back(&self, slots: Vec<Slot>, _by_reference: bool) {
            self.home.fetch_add(slots.len(), Ordering::SeqCst);
        }
        pub fn memory(&self) -> &Memory {
            &self.memory
        }
        pub(super) fn address(&self, slot: Slot) -> *mut u8 {
            assert!(slot.offset() + slot.bytes() <= self.memory.1);
            // SAFETY: inside the memory (asserted).
            unsafe { self.memory.0.add(slot.offset()) }
        }
        pub fn home(&self) -> usize {
            self.home.load(Ordering::SeqCst)
        }
    }

    impl Drop for Arena {
        fn drop(&mut self) {
            let memory = std::ptr::slice_from_raw_parts_mut(self.memory.0, self.memory.1);
            // SAFETY: leaked when it was made, and nobody has a piece of it any more.
            drop(unsafe { Box::from_raw(memory) });
        }
    }
}

//! Extents: runs of bytes inside one stripe of one version, in slots of one shard's slab.
//!
//! Called by `cache` (the index holds them), `fill` (writes through the one [`ExtentWriter`]) and `request` (reads and sends).
//! An `Arc<Extent>` is a pin: while it is held the bytes stay. When the last goes, the slots go home, on any thread.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use super::StripeId;
use super::lent::Room;
use super::progress::{FillState, Progress};
use super::readers::Readers;
use super::slab::{Arena, PAGE_BYTES, Slot};
use crate::io::lend::Lent;
use crate::io::prefetch::{prefetch, prefetch_bytes};

/// The most a hit counter says; S3-FIFO needs two bits.
pub const FREQUENCY_MAX: u8 = 3;
/// Beside the frequency: it was hit since [`Extent::take_hit`].
const HIT: u8 = 4;
/// Nobody has read it yet: the first read is what it was fetched for, and no hit.
const UNREAD: u8 = 8;

/// Bytes worth asking for in advance; the copy's own pace hides the others.
const PREFETCH_BYTES: usize = 4096;

/// A run of bytes `[start, start + capacity)` of a stripe, readable below its watermark. What a reader needs is on one cache line, away from
/// the pins of the `Arc` and from other extents: those are written by everybody.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Extent {
    start: u32,
    capacity: u32,
    progress: Progress,
    /// The first of `slots`: all there is of a small extent.
    first: Slot,
    frequency: AtomicU8,
    by_reference: AtomicBool,
    kept_slots: AtomicU32,
    arena: Arc<Arena>,
    slots: Box<[Slot]>,
    readers: Arc<Readers>,
    id: StripeId,
    /// The version that its bytes turned out to be.
    version: OnceLock<u128>,
}

impl Drop for Extent {
    fn drop(&mut self) {
        let mut slots = std::mem::take(&mut self.slots).into_vec();
        slots.truncate(*self.kept_slots.get_mut() as usize);
        self.arena.give_back(slots, *self.by_reference.get_mut());
    }
}

/// A contiguous piece of an extent, at least one byte, below the watermark. Made by [`Extent::piece`] alone.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'e> {
    extent: &'e Extent,
    slot: Slot,
    inside: usize,
    len: usize,
}

impl<'e> Piece<'e> {
    pub(super) fn extent(self) -> &'e Extent {
        self.extent
    }

    pub(super) fn slot(self) -> (Slot, usize) {
        (self.slot, self.inside)
    }

    /// Offset in the arena's memory.
    #[must_use]
    fn offset(self) -> u64 {
        (self.slot.offset() + self.inside) as u64
    }

    /// Says that its first bytes will be sent by copy: they come from memory while the head is written.
    pub fn prefetch(self) {
        let bytes = self.bytes();
        prefetch_bytes(&bytes[..bytes.len().min(PREFETCH_BYTES)]);
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> &'e [u8] {
        assert!(
            self.inside + self.len <= self.slot.bytes(),
            "a piece lies in its slot"
        );
        // SAFETY: the offset is inside the slot (asserted), and the slot inside the mapping.
        let pointer = unsafe { self.extent.arena.address(self.slot).add(self.inside) };
        // SAFETY: only `Extent::piece` makes a piece, and only below the watermark: its bytes are written, and nobody writes them again
        // while the extent lives, which is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts(pointer, self.len) }
    }

    /// Whether it may be sent by reference: its slot is one of those that are punched before they are used again.
    #[must_use]
    pub fn may_be_lent(self) -> bool {
        self.slot.may_be_lent()
    }

    /// Its bytes for sending by reference. The slot will not be written again before it has been punched.
    #[must_use]
    pub fn lend(self) -> Lent<'e> {
        assert!(self.may_be_lent(), "only what is punched is lent");
        if !self.extent.by_reference.load(Ordering::Relaxed) {
            self.extent.by_reference.store(true, Ordering::Release);
        }
        Lent::new(self.extent.arena.memory(), self.offset(), self.bytes())
    }
}

impl Extent {
    /// A new extent in `slots` and its one writer. `readers` is shared by all extents of one fill.
    #[must_use]
    pub fn create(
        id: StripeId,
        window: std::ops::Range<u32>,
        slots: Vec<Slot>,
        arena: &Arc<Arena>,
        readers: &Arc<Readers>,
    ) -> (Arc<Self>, ExtentWriter) {
        let capacity = window.end - window.start;
        let room: usize = slots.iter().map(|slot| slot.bytes()).sum();
        assert!(
            capacity > 0 && room >= capacity as usize,
            "an extent's slots hold all of it"
        );
        let extent = Arc::new(Self {
            id,
            version: OnceLock::new(),
            start: window.start,
            capacity,
            progress: Progress::default(),
            readers: Arc::clone(readers),
            first: slots[0],
            frequency: AtomicU8::new(UNREAD),
            by_reference: AtomicBool::new(false),
            kept_slots: AtomicU32::new(slots.len() as u32),
            slots: slots.into_boxed_slice(),
            arena: Arc::clone(arena),
        });
        let writer = ExtentWriter {
            extent: Arc::clone(&extent),
            filled: 0,
            lent: 0,
            settled: false,
        };
        (extent, writer)
    }

    /// Says that it will be looked at.
    pub fn prefetch(&self) {
        prefetch(self);
    }

    /// Which stripe it belongs to.
    #[must_use]
    pub fn id(&self) -> StripeId {
        let version = self.version.get().copied();
        StripeId {
            version: version.unwrap_or(self.id.version),
            ..self.id
        }
    }

    /// Owner only, while nobody else can find it: its bytes turned out to be this version's. False if they had been named before.
    #[must_use]
    pub fn name(&self, version: u128) -> bool {
        self.version.set(version).is_ok()
    }

    /// First byte's offset in the stripe.
    #[must_use]
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Offset in the stripe of the end of what it may come to hold.
    #[must_use]
    pub fn capacity_end(&self) -> u32 {
        self.start + self.capacity
    }

    /// Offset in the stripe up to which readers may count on bytes, now or (while it fills) later.
    #[must_use]
    pub fn promised_end(&self) -> u32 {
        match self.progress.state() {
            FillState::Filling => self.capacity_end(),
            FillState::Done | FillState::Failed => self.start + self.progress.filled(),
        }
    }

    /// Offset in the stripe up to which bytes are here.
    #[must_use]
    pub fn filled_end(&self) -> u32 {
        self.start + self.progress.filled()
    }

    /// Whether all of `[start, end)` of the stripe is here, and no fill brings it any more.
    #[must_use]
    pub fn holds(&self, start: u32, end: u32) -> bool {
        self.progress.state() != FillState::Filling
            && self.start <= start
            && end <= self.start + self.progress.filled()
    }

    /// Watermark, state, and who waits.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The readers that the fill of this extent watches.
    #[must_use]
    pub fn readers(&self) -> &Arc<Readers> {
        &self.readers
    }

    /// Bytes of memory that it holds.
    #[must_use]
    pub fn weight(&self) -> u64 {
        let kept = self.kept_slots.load(Ordering::Relaxed) as usize;
        self.slots[..kept]
            .iter()
            .map(|slot| slot.bytes() as u64)
            .sum()
    }

    /// Whether any of it lies in that page of its slab.
    #[must_use]
    pub fn touches_page(&self, page: u32) -> bool {
        self.slots.iter().any(|slot| slot.page() == page)
    }

    /// A read: all but the first are hits. Some bits are set and nothing moves; a line that is already hot is not written again.
    pub fn touch(&self) {
        let seen = self.frequency.load(Ordering::Relaxed);
        if seen & UNREAD != 0 {
            self.frequency.store(seen & !UNREAD, Ordering::Relaxed);
        } else if seen != FREQUENCY_MAX | HIT {
            let frequency = (seen & FREQUENCY_MAX) + 1;
            self.frequency
                .store(frequency.min(FREQUENCY_MAX) | HIT, Ordering::Relaxed);
        }
    }

    /// Owner only: whether it was hit since this was last asked. The copy on disk lives by it too.
    #[must_use]
    pub fn take_hit(&self) -> bool {
        let seen = self.frequency.load(Ordering::Relaxed);
        if seen & HIT != 0 {
            self.frequency.store(seen & !HIT, Ordering::Relaxed);
        }
        seen & HIT != 0
    }

    /// Hits since it was last asked to go.
    #[must_use]
    pub fn frequency(&self) -> u8 {
        self.frequency.load(Ordering::Relaxed) & FREQUENCY_MAX
    }

    /// It is kept for somebody who has yet to read it: it does not leave with what nobody reads.
    pub fn keep_for_reader(&self) {
        self.set_frequency(1);
    }

    /// Owner only, at eviction.
    pub fn set_frequency(&self, frequency: u8) {
        let marks = self.frequency.load(Ordering::Relaxed) & !FREQUENCY_MAX;
        self.frequency
            .store(frequency.min(FREQUENCY_MAX) | marks, Ordering::Relaxed);
    }

    /// Where a slot's byte is, for those who pin the extent.
    pub(super) fn address(&self, slot: Slot) -> *mut u8 {
        self.arena.address(slot)
    }

    /// Offset in the slots' order of memory at `pointer`, for checks.
    pub(super) fn position_of(&self, pointer: *const u8) -> Option<u32> {
        let found = self.slots.iter().position(|slot| {
            let start = self.arena.address(*slot).addr();
            (start..start + slot.bytes()).contains(&pointer.addr())
        })?;
        let inside = pointer.addr() - self.arena.address(self.slots[found]).addr();
        Some((found * PAGE_BYTES + inside) as u32)
    }

    /// The contiguous piece that holds the byte at stripe offset `at`, as far as it is filled and not beyond `end`; `None` when that
    /// byte is not there (yet).
    #[must_use]
    pub fn piece(&self, at: u32, end: u32) -> Option<Piece<'_>> {
        let end = end.min(self.filled_end());
        if at < self.start || at >= end {
            return None;
        }
        let position = (at - self.start) as usize;
        let slot = if position < PAGE_BYTES {
            self.first
        } else {
            self.slots[position / PAGE_BYTES]
        };
        let inside = position % PAGE_BYTES;
        Some(Piece {
            extent: self,
            slot,
            inside,
            len: (slot.bytes() - inside).min((end - at) as usize),
        })
    }
}

/// The right to write one extent, front to back. Dropped without a word it marks the fill as failed.
#[derive(Debug)]
pub struct ExtentWriter {
    extent: Arc<Extent>,
    filled: u32,
    /// Room that was lent, front to back; never less than what is filled.
    lent: u32,
    settled: bool,
}

impl ExtentWriter {
    /// The extent being written.
    #[must_use]
    pub fn extent(&self) -> &Arc<Extent> {
        &self.extent
    }

    /// Bytes still to come.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        self.extent.capacity - self.filled
    }

    /// The next contiguous room to write to; empty when the extent is full.
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        assert!(
            self.lent <= self.filled,
            "room that is lent is not written by somebody else"
        );
        let position = self.filled as usize;
        let left = self.remaining() as usize;
        if left == 0 {
            return &mut [];
        }
        let slot = self.extent.slots[position / PAGE_BYTES];
        let inside = position % PAGE_BYTES;
        let bytes = (slot.bytes() - inside).min(left);
        // SAFETY: `inside` is below the slot's length, and the slot inside the mapping.
        let pointer = unsafe { self.extent.arena.address(slot).add(inside) };
        // SAFETY: these bytes are above the watermark, so no reader looks at them, and this writer is the only one of the
        // extent's slots; the borrow of `self` keeps a second slice away.
        unsafe { std::slice::from_raw_parts_mut(pointer, bytes) }
    }

    /// Publishes `bytes` more, written to the front of [`ExtentWriter::room`], and calls `wake` for each shard that waits.
    pub fn advance(&mut self, bytes: usize, wake: impl FnMut(usize)) {
        assert!(
            bytes <= self.remaining() as usize,
            "a writer stays inside its extent"
        );
        self.filled += bytes as u32;
        self.extent.progress.publish(self.filled);
        self.extent.progress.take_interested(wake);
    }

    /// Lends the next room for at most `most` bytes of the extent, to be given back to [`ExtentWriter::accept`] in the same order. `None`: all is lent.
    pub fn lend(&mut self, most: usize) -> Option<Room> {
        self.lent = self.lent.max(self.filled);
        let position = self.lent as usize;
        let left = self.extent.capacity as usize - position;
        if left == 0 || most == 0 {
            return None;
        }
        let slot = self.extent.slots[position / PAGE_BYTES];
        let inside = position % PAGE_BYTES;
        let bytes = (slot.bytes() - inside).min(left).min(most);
        self.lent += bytes as u32;
        // SAFETY: `inside` is below the slot's length, and the slot inside the mapping.
        let pointer = unsafe { self.extent.arena.address(slot).add(inside) };
        Some(Room::new(
            &self.extent,
            pointer,
            bytes,
            slot.bytes() - inside,
        ))
    }

    /// Publishes the bytes that `room` has got.
    pub fn accept(&mut self, room: Room, wake: impl FnMut(usize)) {
        assert!(
            room.is_of(&self.extent, self.filled),
            "room comes back in order"
        );
        let bytes = room.bytes_of_extent();
        drop(room);
        self.advance(bytes, wake);
    }

    /// Ends the extent: full, or good up to here. Room that was not used goes home.
    pub fn finish(mut self, wake: impl FnMut(usize)) {
        self.settle(FillState::Done, wake);
    }

    /// Ends the extent as broken off; what was published stays good.
    pub fn fail(mut self, wake: impl FnMut(usize)) {
        self.settle(FillState::Failed, wake);
    }

    fn settle(&mut self, state: FillState, wake: impl FnMut(usize)) {
        self.settled = true;
        // Room that the kernel still has goes home with the extent, whose pin it holds.
        let used = (self.filled.max(self.lent) as usize).div_ceil(PAGE_BYTES);
        if used < self.extent.slots.len() {
            self.extent.kept_slots.store(used as u32, Ordering::Relaxed);
            self.extent
                .arena
                .give_back(self.extent.slots[used..].to_vec(), false);
        }
        self.extent.progress.settle(state);
        self.extent.progress.take_interested(wake);
    }
}

impl Drop for ExtentWriter {
    fn drop(&mut self) {
        if !self.settled {
            self.settle(FillState::Failed, |_| {});
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ram::slab::Slab;

    fn id() -> StripeId {
        StripeId {
            object: 1,
            version: 2,
            index: 3,
        }
    }

    fn create(slab: &mut Slab, window: std::ops::Range<u32>) -> (Arc<Extent>, ExtentWriter) {
        let slots = slab.allocate(window.len()).unwrap();
        Extent::create(id(), window, slots, slab.arena(), &Arc::default())
    }

    fn write(writer: &mut ExtentWriter, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = writer.room();
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            writer.advance(n, |_| {});
            bytes = &bytes[n..];
        }
    }

    #[test]
    fn readers_see_only_what_was_published() {
        let mut slab = Slab::new(8 << 20).unwrap();
        let (extent, mut writer) = create(&mut slab, 100..3_000_100);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        assert!(extent.piece(100, u32::MAX).is_none());
        write(&mut writer, &data[..1_500_000]);
        assert!(extent.piece(1_500_100, u32::MAX).is_none());
        assert_eq!(extent.promised_end(), 3_000_100);
        write(&mut writer, &data[1_500_000..]);
        writer.finish(|_| {});
        let (mut at, mut read) = (100, Vec::new());
        while let Some(piece) = extent.piece(at, u32::MAX) {
            read.extend_from_slice(piece.bytes());
            at += piece.bytes().len() as u32;
        }
        assert!(read == data);
    }

    #[test]
    fn slots_come_home_when_the_last_pin_goes() {
        let mut slab = Slab::new(8 << 20).unwrap();
        let (extent, mut writer) = create(&mut slab, 0..2_000_000);
        write(&mut writer, &[7; 1000]);
        writer.finish(|_| {});
        slab.collect();
        assert_eq!(
            slab.used_bytes(),
            PAGE_BYTES as u64,
            "unused room of a short fill is back"
        );
        assert_eq!(extent.promised_end(), 1000);
        let _ = extent.piece(0, 1).unwrap().lend();
        drop(extent);
        assert_eq!(slab.collect().punched, 1);
        assert_eq!(slab.used_bytes(), 0);
    }

    #[test]
    fn a_dropped_writer_is_a_failed_fill() {
        let mut slab = Slab::new(8 << 20).unwrap();
        let (extent, writer) = create(&mut slab, 0..10);
        drop(writer);
        assert_eq!(extent.progress().state(), FillState::Failed);
        assert_eq!(extent.promised_end(), 0);
    }
}

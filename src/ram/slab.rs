//! One shard's slab: an arena of blocks of 2 MiB, each of two pages of 1 MiB, each page cut into slots of one class.
//!
//! Called by `cache::partition`, the only owner of a [`Slab`]. Slots come back through a queue that any thread may push to.
//! A slot that was ever sent by reference is punched before it can be handed out again; if the punch fails, the slot is
//! lost for this run rather than reused. In a plain block (4 KiB pages) each slot is punched alone. A huge block is one folio, and a
//! hole in a part of it would change bytes that are still queued: there such a slot is *spent* until all of the block is home, and the
//! block is punched whole. Huge blocks are cheaper to fill and to send (one lookup in the kernel where there were 512), so pages and small slots
//! go there; slots between, which would leave many spent ones, go to plain blocks. Nothing here decides what to evict.

use std::io;
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::io::memory::HUGE_BYTES;
pub use crate::io::memory::Memory;

/// Bytes of a page of the slab and of the largest slot.
pub const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a block: what is made one huge page, and punched whole.
pub const BLOCK_BYTES: usize = HUGE_BYTES;
const PAGES_PER_BLOCK: usize = BLOCK_BYTES / PAGE_BYTES;
/// Slots from here on may be sent by reference; smaller ones are reused in place whatever their extent says.
pub const LEND_BYTES_MIN: usize = 16 * 1024;
/// Blocks made huge in one go when they are first used: the call has a fixed cost, and its caller serves nobody meanwhile.
const HUGE_AT_ONCE: usize = 4;
const GRAIN_BYTES: usize = 512;
/// Spent pages may be one in so many before their blocks are emptied first.
const SPENT_SHARE: usize = 16;
const PER_PAGE_MAX: usize = PAGE_BYTES / GRAIN_BYTES;

/// Slot sizes, ascending; from 4 KiB on whole kernel pages, so that each can be punched alone.
pub const CLASS_BYTES: [usize; 22] = [
    512, 1024, 2048, 4096, 8192, 12_288, 16_384, 20_480, 24_576, 32_768, 40_960, 49_152, 65_536,
    86_016, 102_400, 131_072, 172_032, 208_896, 262_144, 348_160, 524_288, PAGE_BYTES,
];
const CLASSES: usize = CLASS_BYTES.len();
/// Class of a page without a slot out.
const FREE_PAGE: u8 = u8::MAX;
/// Class of a page without a slot out that was sent by reference and waits for its block.
const SPENT_PAGE: u8 = u8::MAX - 1;
/// Class of a page that the kernel refused to punch.
const LOST_PAGE: u8 = u8::MAX - 2;

const _: () = assert!(
    CLASSES < LOST_PAGE as usize,
    "a class number fits beside the mark of a free page"
);
const _: () = assert!(
    PER_PAGE_MAX == 2048,
    "the bitmap of a page has one bit a grain"
);

/// A piece of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    grain: u32,
    class: u8,
    huge: bool,
}

impl Slot {
    /// Offset of the first byte in the arena.
    #[must_use]
    pub fn offset(self) -> usize {
        self.grain as usize * GRAIN_BYTES
    }

    /// Bytes of the slot.
    #[must_use]
    pub fn bytes(self) -> usize {
        CLASS_BYTES[self.class as usize]
    }

    /// Whether its block is one huge page: it is reached through that view.
    #[must_use]
    pub fn is_huge(self) -> bool {
        self.huge
    }

    /// Whether it may be sent by reference.
    #[must_use]
    pub fn may_be_lent(self) -> bool {
        self.bytes() >= LEND_BYTES_MIN
    }

    /// The page that the slot lies in.
    #[must_use]
    pub fn page(self) -> u32 {
        (self.offset() / PAGE_BYTES) as u32
    }
}

/// Slots on their way home.
#[derive(Debug)]
pub struct Returned {
    /// The slots; nobody reads them any more.
    pub slots: Vec<Slot>,
    /// Whether any byte of them was ever sent by reference.
    pub by_reference: bool,
}

/// What every thread may hold of a slab: the memory, and the way home for slots. The return queue is bounded by the number of slots.
#[derive(Debug)]
pub struct Arena {
    pub(super) memory: Memory,
    returns: SegQueue<Returned>,
}

impl Arena {
    pub(super) fn give_back(&self, slots: Vec<Slot>, by_reference: bool) {
        if !slots.is_empty() {
            self.returns.push(Returned {
                slots,
                by_reference,
            });
        }
    }

    /// The memory, for sending by reference.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Where a slot is mapped.
    pub(super) fn address(&self, slot: Slot) -> *mut u8 {
        assert!(
            slot.offset() + slot.bytes() <= self.memory.len(),
            "a slot lies in its arena"
        );
        let base = if slot.huge {
            self.memory.huge_base()
        } else {
            self.memory.base()
        };
        // SAFETY: inside the view, which is as long as the memory (asserted).
        unsafe { base.add(slot.offset()) }
    }
}

struct Page {
    class: u8,
    free: u16,
    spent: u16,
    map: [u64; PER_PAGE_MAX / 64],
}

impl Page {
    fn is_home(&self) -> bool {
        self.class >= LOST_PAGE
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backing {
    /// Nothing yet, or punched.
    Hole,
    /// Pages of 4 KiB, through the plain view.
    Plain,
    /// One folio, through the huge view (or what the kernel gave instead: treated alike).
    Huge,
}

/// What a call to [`Slab::collect`] did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Collected {
    /// Slots that came home.
    pub slots: usize,
    /// Holes punched for slots that had been sent by reference.
    pub punched: usize,
    /// Slots lost because the kernel refused the punch.
    pub lost: usize,
}

/// The allocator of one shard's arena; single-threaded.
pub struct Slab {
    arena: Arc<Arena>,
    pages: Vec<Page>,
    blocks: Vec<Backing>,
    /// Blocks with all pages free, by backing.
    holes: Vec<u32>,
    plain: Vec<u32>,
    huge: Vec<u32>,
    /// Free pages whose block has others out; entries that no longer fit are dropped when met.
    single_plain: Vec<u32>,
    single_huge: Vec<u32>,
    /// Pages that are out while the other page of their block is spent; may hold more than is true.
    stuck: Vec<u32>,
    spent_pages: usize,
    partial: [Vec<u32>; CLASSES],
    used_bytes: u64,
    wants_huge: bool,
    done: Collected,
}

/// The smallest class that holds `bytes`, or the largest there is.
fn class_for(bytes: usize) -> usize {
    CLASS_BYTES
        .partition_point(|&size| size < bytes)
        .min(CLASSES - 1)
}

/// Whole pages, and slots that are never sent by reference.
fn is_for_huge(class: usize) -> bool {
    CLASS_BYTES[class] == PAGE_BYTES || CLASS_BYTES[class] < LEND_BYTES_MIN
}

fn pages_of(block: u32) -> std::ops::Range<usize> {
    let first = block as usize * PAGES_PER_BLOCK;
    first..first + PAGES_PER_BLOCK
}

fn block_of(page: u32) -> u32 {
    page / PAGES_PER_BLOCK as u32
}

impl Slab {
    /// An arena of `bytes`, rounded down to whole pages, at least one; of 4 KiB pages until [`Slab::use_huge_pages`].
    ///
    /// # Errors
    /// The kernel's, when the memory cannot be mapped.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let count = (bytes as usize / PAGE_BYTES).max(1);
        let memory = Memory::new(count * PAGE_BYTES)?;
        let page = || Page {
            class: FREE_PAGE,
            free: 0,
            spent: 0,
            map: [0; PER_PAGE_MAX / 64],
        };
        let whole = (count / PAGES_PER_BLOCK) as u32;
        Ok(Self {
            arena: Arc::new(Arena {
                memory,
                returns: SegQueue::new(),
            }),
            pages: (0..count).map(|_| page()).collect(),
            blocks: vec![Backing::Hole; count.div_ceil(PAGES_PER_BLOCK)],
            holes: (0..whole).rev().collect(),
            plain: Vec::new(),
            huge: Vec::new(),
            // The page of an odd end has no other half: it is never huge.
            single_plain: (whole * PAGES_PER_BLOCK as u32..count as u32).collect(),
            single_huge: Vec::new(),
            stuck: Vec::new(),
            spent_pages: 0,
            partial: std::array::from_fn(|_| Vec::new()),
            used_bytes: 0,
            wants_huge: false,
            done: Collected::default(),
        })
    }

    /// Blocks are made huge from now on, where the kernel can. To be called only when the self-test has passed.
    pub fn use_huge_pages(&mut self) {
        self.wants_huge = true;
    }

    /// Has all of the arena's memory given by the kernel now rather than at its first use, where a fill and everybody beside it would wait
    /// for it. As far as the kernel does: what it refuses is asked for again when it is used.
    pub fn prefault(&mut self) {
        if self.wants_huge {
            while !self.holes.is_empty() {
                self.make_huge();
            }
        }
        while let Some(block) = self.holes.pop() {
            let offset = u64::from(block) * BLOCK_BYTES as u64;
            if let Err(error) = self.arena.memory.populate(offset, BLOCK_BYTES) {
                tracing::debug!(%error, "memory is not taken in advance");
                self.holes.push(block);
                return;
            }
            self.blocks[block as usize] = Backing::Plain;
            self.plain.push(block);
        }
    }

    /// How many pages there are.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// The shared side.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Bytes of slots that are out.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// Bytes of pages that wait for the other half of their huge block, and cannot be used before.
    #[must_use]
    pub fn spent_bytes(&self) -> u64 {
        (self.spent_pages * PAGE_BYTES) as u64
    }

    /// Slots for `bytes` in order: whole pages, then one slot of the class that fits the rest. `None` leaves the slab as it was.
    #[must_use]
    pub fn allocate(&mut self, bytes: usize) -> Option<Vec<Slot>> {
        assert!(bytes > 0, "an extent has at least one byte");
        let whole = bytes / PAGE_BYTES;
        let rest = bytes % PAGE_BYTES;
        let mut slots = Vec::with_capacity(whole + usize::from(rest > 0));
        let last = (rest > 0).then(|| class_for(rest));
        for class in std::iter::repeat_n(CLASSES - 1, whole).chain(last) {
            match self.take(class) {
                Some(slot) => slots.push(slot),
                None => {
                    slots.into_iter().for_each(|slot| self.put(slot, false));
                    return None;
                }
            }
        }
        Some(slots)
    }

    fn take(&mut self, class: usize) -> Option<Slot> {
        let number = self.page_with_room(class)?;
        let page = &mut self.pages[number as usize];
        let word = page
            .map
            .iter()
            .position(|&bits| bits != 0)
            .expect("a partial page has a free slot");
        let bit = page.map[word].trailing_zeros() as usize;
        page.map[word] &= page.map[word] - 1;
        page.free -= 1;
        if page.free == 0 {
            self.partial[class].pop();
        }
        self.used_bytes += CLASS_BYTES[class] as u64;
        let offset = number as usize * PAGE_BYTES + (word * 64 + bit) * CLASS_BYTES[class];
        Some(Slot {
            grain: (offset / GRAIN_BYTES) as u32,
            class: class as u8,
            huge: self.blocks[block_of(number) as usize] == Backing::Huge,
        })
    }

    fn page_with_room(&mut self, class: usize) -> Option<u32> {
        while let Some(&number) = self.partial[class].last() {
            let page = &self.pages[number as usize];
            if page.class as usize == class && page.free > 0 {
                return Some(number);
            }
            self.partial[class].pop();
        }
        let number = self.free_page(class)?;
        let page = &mut self.pages[number as usize];
        let count = PAGE_BYTES / CLASS_BYTES[class];
        page.class = class as u8;
        page.free = count as u16;
        page.spent = 0;
        for (index, word) in page.map.iter_mut().enumerate() {
            let bits = count.saturating_sub(index * 64).min(64);
            *word = if bits == 64 {
                u64::MAX
            } else {
                (1 << bits) - 1
            };
        }
        self.partial[class].push(number);
        Some(number)
    }

    /// A free page, of the backing that the class does best with if there is one.
    fn free_page(&mut self, class: usize) -> Option<u32> {
        if self.wants_huge && is_for_huge(class) {
            self.single(Backing::Huge)
                .or_else(|| self.block_for_huge().map(|block| self.split(block)))
                .or_else(|| self.plain.pop().map(|block| self.split(block)))
                .or_else(|| self.single(Backing::Plain))
        } else {
            self.single(Backing::Plain)
                .or_else(|| self.block_for_plain().map(|block| self.split(block)))
                .or_else(|| self.single(Backing::Huge))
        }
    }

    fn singles(&mut self, backing: Backing) -> &mut Vec<u32> {
        match backing {
            Backing::Huge => &mut self.single_huge,
            Backing::Plain | Backing::Hole => &mut self.single_plain,
        }
    }

    /// A free page whose block has others out.
    fn single(&mut self, backing: Backing) -> Option<u32> {
        loop {
            let page = self.singles(backing).pop()?;
            if self.is_single(page, backing) {
                return Some(page);
            }
        }
    }

    fn is_single(&self, page: u32, backing: Backing) -> bool {
        let block = block_of(page);
        let pages = pages_of(block);
        let alone = pages.end > self.pages.len();
        let huge = self.blocks[block as usize] == Backing::Huge;
        let others_out = |mut pages: std::ops::Range<usize>| {
            pages.any(|other| other != page as usize && self.pages[other].class != FREE_PAGE)
        };
        self.pages[page as usize].class == FREE_PAGE
            && huge == (backing == Backing::Huge)
            && (alone || others_out(pages))
    }

    /// Hands out the first page of a free block, and keeps the others for the next.
    fn split(&mut self, block: u32) -> u32 {
        let pages = pages_of(block);
        let others = pages.clone().skip(1).rev().map(|page| page as u32);
        self.singles(self.blocks[block as usize]).extend(others);
        pages.start as u32
    }

    fn block_for_huge(&mut self) -> Option<u32> {
        if self.huge.is_empty() {
            self.make_huge();
        }
        self.huge.pop()
    }

    /// Takes a few holes, neighbours if possible, and has them made huge.
    fn make_huge(&mut self) {
        let Some(first) = self.holes.pop() else {
            return;
        };
        let mut run = first..first + 1;
        while run.len() < HUGE_AT_ONCE && self.holes.last() == Some(&run.end) {
            self.holes.pop();
            run.end += 1;
        }
        let offset = u64::from(run.start) * BLOCK_BYTES as u64;
        let made = self.arena.memory.make_huge(offset, run.len() * BLOCK_BYTES);
        if let Err(error) = made {
            // What was got before the error is used all the same: a block is huge by how it is treated.
            tracing::debug!(%error, "no huge page: using what there is");
        }
        for block in run.rev() {
            self.blocks[block as usize] = Backing::Huge;
            self.huge.push(block);
        }
    }

    fn block_for_plain(&mut self) -> Option<u32> {
        if let Some(block) = self.plain.pop() {
            return Some(block);
        }
        if let Some(block) = self.holes.pop() {
            self.blocks[block as usize] = Backing::Plain;
            return Some(block);
        }
        let block = self.huge.pop()?;
        if self.punch_whole(block) {
            self.blocks[block as usize] = Backing::Plain;
            self.done.punched += 1;
        }
        // Else it stays huge: nothing of it was sent, and what will be is spent until all of it is home.
        Some(block)
    }

    fn punch_whole(&self, block: u32) -> bool {
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        self.arena.memory.punch(offset, BLOCK_BYTES).is_ok()
    }

    /// A block that is all free or spent becomes a hole; false if the kernel refused, and then it is lost.
    fn punch_block(&mut self, block: u32) -> bool {
        let done = self.punch_whole(block);
        for page in pages_of(block) {
            self.pages[page].class = if done { FREE_PAGE } else { LOST_PAGE };
        }
        if done {
            self.blocks[block as usize] = Backing::Hole;
            self.done.punched += 1;
        } else {
            self.done.lost += PAGES_PER_BLOCK;
        }
        done
    }

    /// A slot is home; one of a huge block that was sent by reference is `spent`, and waits for its block.
    fn put(&mut self, slot: Slot, spent: bool) {
        let number = slot.page();
        let page = &mut self.pages[number as usize];
        let class = slot.class as usize;
        assert_eq!(
            page.class, slot.class,
            "a slot comes home to a page of its class"
        );
        if spent {
            page.spent += 1;
        } else {
            let index = (slot.offset() - number as usize * PAGE_BYTES) / CLASS_BYTES[class];
            let mask = 1u64 << (index % 64);
            assert_eq!(page.map[index / 64] & mask, 0, "a slot comes home once");
            page.map[index / 64] |= mask;
            page.free += 1;
        }
        let first = !spent && page.free == 1;
        self.used_bytes -= CLASS_BYTES[class] as u64;
        if !self.came_home(number, class) && first {
            self.partial[class].push(number);
        }
    }

    /// If all slots of a page are home the page is free, or spent, and perhaps its block with it.
    fn came_home(&mut self, number: u32, class: usize) -> bool {
        let page = &mut self.pages[number as usize];
        if usize::from(page.free + page.spent) < PAGE_BYTES / CLASS_BYTES[class] {
            return false;
        }
        let spent = page.spent > 0;
        page.class = if spent { SPENT_PAGE } else { FREE_PAGE };
        (page.free, page.spent) = (0, 0);
        self.spent_pages += usize::from(spent);
        let block = block_of(number);
        let pages = pages_of(block);
        if pages.end > self.pages.len() {
            self.single_plain.push(number);
            return true;
        }
        if self.pages[pages.clone()].iter().all(Page::is_home) {
            self.block_home(block);
        } else if spent {
            let others = pages.filter(|&page| page != number as usize);
            self.stuck.extend(others.map(|page| page as u32));
            if self.stuck.len() > 2 * self.pages.len() {
                self.stuck.sort_unstable();
                self.stuck.dedup();
            }
        } else {
            self.singles(self.blocks[block as usize]).push(number);
        }
        true
    }

    fn block_home(&mut self, block: u32) {
        let pages = pages_of(block);
        let spent = pages
            .clone()
            .filter(|&page| self.pages[page].class == SPENT_PAGE)
            .count();
        self.spent_pages -= spent;
        if spent > 0 {
            if self.punch_block(block) {
                self.holes.push(block);
            }
            return;
        }
        match self.blocks[block as usize] {
            Backing::Huge => self.huge.push(block),
            Backing::Plain | Backing::Hole => self.plain.push(block),
        }
    }

    /// Takes home what readers have let go, punching what was sent by reference.
    pub fn collect(&mut self) -> Collected {
        while let Some(returned) = self.arena.returns.pop() {
            for slot in returned.slots {
                self.take_home(slot, returned.by_reference && slot.may_be_lent());
            }
        }
        std::mem::take(&mut self.done)
    }

    fn take_home(&mut self, slot: Slot, lent: bool) {
        let punchable = lent && !slot.huge;
        if punchable && !self.punch(slot) {
            self.done.lost += 1;
            return;
        }
        self.done.punched += usize::from(punchable);
        self.put(slot, lent && slot.huge);
        self.done.slots += 1;
    }

    fn punch(&self, slot: Slot) -> bool {
        self.arena
            .memory
            .punch(slot.offset() as u64, slot.bytes())
            .is_ok()
    }

    /// A page that is out and keeps the spent rest of its block from being used, once such rests are more than a share of the slab;
    /// emptying it gives a whole block. The caller asks again until nothing comes, or gives up.
    pub fn next_stuck(&mut self) -> Option<u32> {
        if self.spent_pages * SPENT_SHARE <= self.pages.len() {
            return None;
        }
        while let Some(page) = self.stuck.pop() {
            let mut others = pages_of(block_of(page)).filter(|&other| other != page as usize);
            let still = others.any(|other| self.pages[other].class == SPENT_PAGE);
            if still && !self.pages[page as usize].is_home() {
                return Some(page);
            }
        }
        None
    }

    /// The page in use with the largest share of free slots: the cheapest to empty.
    #[must_use]
    pub fn emptiest_page(&self) -> Option<u32> {
        let share = |page: &Page| {
            u64::from(page.free + page.spent) * CLASS_BYTES[page.class as usize] as u64
        };
        let gain = |number: usize| {
            let others = pages_of(block_of(number as u32)).filter(|&other| other != number);
            let spent = others
                .filter_map(|other| self.pages.get(other))
                .filter(|other| other.class == SPENT_PAGE)
                .count();
            share(&self.pages[number]) + (spent * PAGE_BYTES) as u64
        };
        let used = (0..self.pages.len()).filter(|&number| !self.pages[number].is_home());
        used.max_by_key(|&number| gain(number))
            .map(|number| number as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_extent_of_a_stripe_is_whole_pages_and_a_fitting_rest() {
        let mut slab = Slab::new(16 << 20).unwrap();
        let slots = slab.allocate(2 * PAGE_BYTES + 5000).unwrap();
        assert_eq!(
            slots.iter().map(|s| s.bytes()).collect::<Vec<_>>(),
            [PAGE_BYTES, PAGE_BYTES, 8192]
        );
    }

    #[test]
    fn a_full_slab_says_no_and_keeps_nothing() {
        let mut slab = Slab::new(2 << 20).unwrap();
        assert!(slab.allocate(3 << 20).is_none());
        assert_eq!(slab.used_bytes(), 0);
        assert!(slab.allocate(2 << 20).is_some());
    }

    #[test]
    fn pages_change_their_class_when_they_are_empty() {
        let mut slab = Slab::new(1 << 20).unwrap();
        let small: Vec<_> = (0..256).map(|_| slab.allocate(4096).unwrap()).collect();
        assert!(slab.allocate(1).is_none());
        for slots in small {
            slab.arena().give_back(slots, false);
        }
        assert_eq!(slab.collect().slots, 256);
        assert!(slab.allocate(PAGE_BYTES).is_some());
    }

    #[test]
    fn a_page_of_a_huge_block_waits_for_the_other_half() {
        let mut slab = Slab::new(4 << 20).unwrap();
        slab.use_huge_pages();
        let pages: Vec<_> = (0..4).map(|_| slab.allocate(PAGE_BYTES).unwrap()).collect();
        let numbers: Vec<_> = pages.iter().map(|slots| slots[0].page()).collect();
        let [a, b, c, d] = <[_; 4]>::try_from(pages).unwrap();
        assert_eq!(numbers, [0, 1, 2, 3]);
        slab.arena().give_back(a, true);
        assert_eq!(slab.collect().punched, 0);
        assert!(slab.allocate(PAGE_BYTES).is_none(), "spent");
        assert_eq!(slab.next_stuck(), Some(1));
        assert_eq!(slab.emptiest_page(), Some(1));
        slab.arena().give_back(c, false);
        slab.collect();
        let again = slab.allocate(PAGE_BYTES).unwrap();
        assert_eq!(again[0].page(), 2, "never lent, used again in place");
        slab.arena().give_back(b, false);
        assert_eq!(slab.collect().punched, 1, "the whole block");
        let both = slab.allocate(2 * PAGE_BYTES).unwrap();
        assert!(both.iter().all(|slot| slot.is_huge()));
        for slots in [d, again, both] {
            slab.arena().give_back(slots, true);
        }
        slab.collect();
        assert_eq!(slab.used_bytes(), 0);
        assert!(slab.allocate(4 * PAGE_BYTES).is_some());
    }

    #[test]
    fn a_block_that_the_kernel_does_not_punch_is_lost_if_it_was_lent_and_else_stays() {
        let mut slab = Slab::new(4 << 20).unwrap();
        slab.use_huge_pages();
        let lent = slab.allocate(2 * PAGE_BYTES).unwrap();
        let arena = Arc::get_mut(&mut slab.arena).expect("nobody else has it");
        arena.memory.refuse_punches();
        slab.arena().give_back(lent, true);
        let collected = slab.collect();
        assert_eq!((collected.punched, collected.lost), (0, 2));
        assert_eq!((slab.used_bytes(), slab.spent_bytes()), (0, 0));
        let rest = slab.allocate(2 * PAGE_BYTES).unwrap();
        let pages: Vec<_> = rest.iter().map(|slot| slot.page()).collect();
        assert_eq!(pages, [2, 3]);
        assert!(slab.allocate(1).is_none() && slab.emptiest_page().is_some());
        slab.arena().give_back(rest, false);
        slab.collect();
        let between = slab.allocate(65_536).expect("a block that was never lent");
        assert!(between[0].is_huge(), "it could not be made plain");
        assert_eq!(slab.collect().lost, 0);
        slab.arena().give_back(between, true);
        assert_eq!(slab.collect().lost, 2, "lent, and the block is all home");
        assert!(slab.allocate(1).is_none() && slab.emptiest_page().is_none());
    }

    #[test]
    fn slots_between_go_to_plain_blocks_and_are_punched_alone() {
        let mut slab = Slab::new(6 << 20).unwrap();
        slab.use_huge_pages();
        let page = slab.allocate(PAGE_BYTES).unwrap();
        let small = slab.allocate(4096).unwrap();
        assert!(page[0].is_huge() && small[0].is_huge());
        let mut slab = Slab::new(6 << 20).unwrap();
        slab.use_huge_pages();
        let between = slab.allocate(65_536).unwrap();
        assert!(!between[0].is_huge());
        slab.arena().give_back(between, true);
        assert_eq!(slab.collect().punched, 1);
        let small = slab.allocate(4096).unwrap();
        slab.arena().give_back(small, true);
        assert_eq!(slab.collect().punched, 0, "too small to have been lent");
    }

    #[test]
    fn memory_that_was_taken_at_start_is_there() {
        for huge in [false, true] {
            let mut slab = Slab::new(20 << 20).unwrap();
            if huge {
                slab.use_huge_pages();
            }
            let backed = |slab: &Slab| slab.arena().memory().backed_bytes().unwrap();
            assert_eq!(backed(&slab), 0);
            slab.prefault();
            assert_eq!(backed(&slab), 20 << 20);
            let all = slab.allocate(20 << 20).unwrap();
            assert!(all.iter().all(|slot| slot.is_huge() == huge));
            assert_eq!(backed(&slab), 20 << 20);
        }
    }

    proptest! {
        #[test]
        fn slots_that_are_out_never_overlap(steps in proptest::collection::vec((1usize..3_000_000, any::<bool>()), 1..60)) {
            let mut slab = Slab::new((16 + steps.len() as u64 % 2) << 20).unwrap();
            if steps.len() % 3 > 0 {
                slab.use_huge_pages();
            }
            let mut out: Vec<Vec<Slot>> = Vec::new();
            for (bytes, free) in steps {
                if free && !out.is_empty() {
                    let slots = out.swap_remove(bytes % out.len());
                    slab.arena().give_back(slots, bytes % 2 == 0);
                    slab.collect();
                } else if let Some(slots) = slab.allocate(bytes) {
                    prop_assert!(slots.iter().map(|s| s.bytes()).sum::<usize>() >= bytes);
                    out.push(slots);
                }
                let mut spans: Vec<_> = out.iter().flatten().map(|s| (s.offset(), s.offset() + s.bytes())).collect();
                spans.sort_unstable();
                prop_assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
                prop_assert!(spans.last().is_none_or(|span| span.1 <= 17 << 20));
                prop_assert_eq!(spans.iter().map(|s| (s.1 - s.0) as u64).sum::<u64>(), slab.used_bytes());
            }
        }
    }
}

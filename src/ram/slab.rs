//! One shard's slab: an arena cut into pages of 1 MiB, each page into slots of one class.
//!
//! Called by `cache::partition`, the only owner of a [`Slab`]. Slots come back through a queue that any thread may push to.
//! A slot that was ever sent by reference is punched before it can be handed out again; if the punch fails, the slot is
//! lost for this run rather than reused. Nothing here decides what to evict.

use std::io;
use std::sync::Arc;

use crossbeam::queue::SegQueue;

use crate::io::memory::Memory;

/// Bytes of a page of the slab and of the largest slot.
pub const PAGE_BYTES: usize = 1 << 20;
const GRAIN_BYTES: usize = 512;
/// The smallest slot that can be punched: a kernel page.
pub const PUNCH_BYTES: usize = crate::io::memory::PAGE_BYTES;
const PER_PAGE_MAX: usize = PAGE_BYTES / GRAIN_BYTES;

/// Slot sizes, ascending; from 4 KiB on whole kernel pages, so that each can be punched alone.
pub const CLASS_BYTES: [usize; 22] = [
    512, 1024, 2048, 4096, 8192, 12_288, 16_384, 20_480, 24_576, 32_768, 40_960, 49_152, 65_536,
    86_016, 102_400, 131_072, 172_032, 208_896, 262_144, 348_160, 524_288, PAGE_BYTES,
];
const CLASSES: usize = CLASS_BYTES.len();
const FREE_PAGE: u8 = u8::MAX;

const _: () = assert!(
    CLASSES < FREE_PAGE as usize,
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
}

struct Page {
    class: u8,
    free: u16,
    map: [u64; PER_PAGE_MAX / 64],
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
    free_pages: Vec<u32>,
    partial: [Vec<u32>; CLASSES],
    used_bytes: u64,
}

/// The smallest class that holds `bytes`, or the largest there is.
fn class_for(bytes: usize) -> usize {
    CLASS_BYTES
        .partition_point(|&size| size < bytes)
        .min(CLASSES - 1)
}

impl Slab {
    /// An arena of `bytes`, rounded down to whole pages, at least one.
    ///
    /// # Errors
    /// The kernel's, when the memory cannot be mapped.
    pub fn new(bytes: u64) -> io::Result<Self> {
        let count = (bytes as usize / PAGE_BYTES).max(1);
        let memory = Memory::new(count * PAGE_BYTES)?;
        let pages = (0..count)
            .map(|_| Page {
                class: FREE_PAGE,
                free: 0,
                map: [0; PER_PAGE_MAX / 64],
            })
            .collect();
        Ok(Self {
            arena: Arc::new(Arena {
                memory,
                returns: SegQueue::new(),
            }),
            pages,
            free_pages: (0..count as u32).rev().collect(),
            partial: std::array::from_fn(|_| Vec::new()),
            used_bytes: 0,
        })
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

    /// Slots for `bytes` in order: whole pages, then one slot of the class that fits the rest. `None` leaves the slab as it was.
    #[must_use]
    pub fn allocate(&mut self, bytes: usize) -> Option<Vec<Slot>> {
        assert!(bytes > 0, "an extent has at least one byte");
        let whole = bytes / PAGE_BYTES;
        let rest = bytes % PAGE_BYTES;
        let mut slots = Vec::with_capacity(whole + usize::from(rest > 0));
        // Whatever is sent by reference must be punchable: the end of a long extent is whole kernel pages too.
        let least = if whole > 0 { PUNCH_BYTES } else { 1 };
        let last = (rest > 0).then(|| class_for(rest.max(least)));
        for class in std::iter::repeat_n(CLASSES - 1, whole).chain(last) {
            match self.take(class) {
                Some(slot) => slots.push(slot),
                None => {
                    slots.into_iter().for_each(|slot| self.put(slot));
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
        let number = self.free_pages.pop()?;
        let page = &mut self.pages[number as usize];
        let count = PAGE_BYTES / CLASS_BYTES[class];
        page.class = class as u8;
        page.free = count as u16;
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

    fn put(&mut self, slot: Slot) {
        let number = slot.page();
        let page = &mut self.pages[number as usize];
        let class = slot.class as usize;
        assert_eq!(
            page.class, slot.class,
            "a slot comes home to a page of its class"
        );
        let index = (slot.offset() - number as usize * PAGE_BYTES) / CLASS_BYTES[class];
        let mask = 1u64 << (index % 64);
        assert_eq!(page.map[index / 64] & mask, 0, "a slot comes home once");
        page.map[index / 64] |= mask;
        page.free += 1;
        self.used_bytes -= CLASS_BYTES[class] as u64;
        if page.free as usize == PAGE_BYTES / CLASS_BYTES[class] {
            page.class = FREE_PAGE;
            page.free = 0;
            self.free_pages.push(number);
        } else if page.free == 1 {
            self.partial[class].push(number);
        }
    }

    /// Takes home what readers have let go, punching what was sent by reference.
    pub fn collect(&mut self) -> Collected {
        let mut done = Collected::default();
        while let Some(returned) = self.arena.returns.pop() {
            for slot in returned.slots {
                if returned.by_reference && !self.punch(slot) {
                    done.lost += 1;
                    continue;
                }
                done.punched += usize::from(returned.by_reference);
                self.put(slot);
                done.slots += 1;
            }
        }
        done
    }

    fn punch(&self, slot: Slot) -> bool {
        self.arena
            .memory
            .punch(slot.offset() as u64, slot.bytes())
            .is_ok()
    }

    /// The page in use with the largest share of free slots: the cheapest to empty.
    #[must_use]
    pub fn emptiest_page(&self) -> Option<u32> {
        let share = |page: &Page| u64::from(page.free) * CLASS_BYTES[page.class as usize] as u64;
        let used = self
            .pages
            .iter()
            .enumerate()
            .filter(|(_, page)| page.class != FREE_PAGE);
        used.max_by_key(|(_, page)| share(page))
            .map(|(number, _)| number as u32)
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

    proptest! {
        #[test]
        fn slots_that_are_out_never_overlap(steps in proptest::collection::vec((1usize..3_000_000, any::<bool>()), 1..60)) {
            let mut slab = Slab::new(16 << 20).unwrap();
            let mut out: Vec<Vec<Slot>> = Vec::new();
            for (bytes, free) in steps {
                if free && !out.is_empty() {
                    let slots = out.swap_remove(bytes % out.len());
                    let large = slots[0].bytes() >= PUNCH_BYTES;
                    slab.arena().give_back(slots, bytes % 2 == 0 && large);
                    slab.collect();
                } else if let Some(slots) = slab.allocate(bytes) {
                    prop_assert!(slots.iter().map(|s| s.bytes()).sum::<usize>() >= bytes);
                    out.push(slots);
                }
                let mut spans: Vec<_> = out.iter().flatten().map(|s| (s.offset(), s.offset() + s.bytes())).collect();
                spans.sort_unstable();
                prop_assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0));
                prop_assert!(spans.last().is_none_or(|span| span.1 <= 16 << 20));
                prop_assert_eq!(spans.iter().map(|s| (s.1 - s.0) as u64).sum::<u64>(), slab.used_bytes());
            }
        }
    }
}

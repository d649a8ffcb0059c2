//! A table that one writes and all read without a lock: names of 64 bits, each with any number of entries of three words.
//!
//! Called by `on_disk` alone. A look that meets a change may miss an entry, or see one that has just gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;

/// Parts of a table, each of which grows by itself: what growing copies at once is small.
const PARTS: usize = 64;
/// Slots of a part at first.
const SLOTS_MIN: usize = 16;
/// Mark of a slot that never had an entry.
const EMPTY: u64 = 0;
/// Mark of a slot whose entry was removed.
const REMOVED: u64 = 1;

/// An entry behind its name.
pub(super) type Words = [u64; 3];

/// One part: open addressing, linear probing.
struct Part(ArcSwap<Box<[[AtomicU64; 4]]>>);

impl Part {
    fn slots(count: usize) -> Arc<Box<[[AtomicU64; 4]]>> {
        let slot = || std::array::from_fn(|_| AtomicU64::new(EMPTY));
        Arc::new((0..count).map(|_| slot()).collect())
    }
}

/// A table of names, each with any number of entries.
pub(super) struct Table(Box<[Part]>);

/// The name of what has this hash: one that is no mark.
#[must_use]
pub fn name_of(hash: u64) -> u64 {
    hash.max(REMOVED + 1)
}

fn part_of(name: u64) -> usize {
    (name >> 32) as usize % PARTS
}

impl Table {
    pub(super) fn new() -> Self {
        Self(
            (0..PARTS)
                .map(|_| Part(ArcSwap::new(Part::slots(SLOTS_MIN))))
                .collect(),
        )
    }

    /// Calls `each` with the entries of a name until it says that it has seen enough.
    pub(super) fn visit(&self, name: u64, each: impl FnMut(Words) -> bool) {
        self.visit_like(name, u64::MAX, each);
    }

    /// The same for all names that are alike in the bits of `mask`, which those have that say where a name is.
    pub(super) fn visit_like(&self, name: u64, like: u64, mut each: impl FnMut(Words) -> bool) {
        let slots = self.0[part_of(name)].0.load();
        let mask = slots.len() - 1;
        for step in 0..slots.len() {
            let slot = &slots[(name as usize + step) & mask];
            let found = slot[0].load(Ordering::Acquire);
            if found == EMPTY {
                return;
            }
            if (found ^ name) & like != 0 || found == REMOVED {
                continue;
            }
            let words = std::array::from_fn(|word| slot[word + 1].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if slot[0].load(Ordering::Relaxed) == found && each(words) {
                return;
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        let slots = self.0.iter().map(|part| part.0.load().len() as u64);
        slots.sum::<u64>() * size_of::<[AtomicU64; 4]>() as u64
    }
}

/// The writing side's account of one part.
#[derive(Clone, Copy, Default)]
struct Account {
    live: usize,
    /// With those that were removed.
    used: usize,
}

pub(super) struct TableWriter {
    accounts: [Account; PARTS],
}

impl TableWriter {
    pub(super) fn new() -> Self {
        Self {
            accounts: [Account::default(); PARTS],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.accounts.iter().map(|account| account.live).sum()
    }

    fn put(slots: &[[AtomicU64; 4]], name: u64, words: Words) -> bool {
        let mask = slots.len() - 1;
        let mut step = 0;
        loop {
            let slot = &slots[(name as usize + step) & mask];
            let mark = slot[0].load(Ordering::Relaxed);
            if mark == EMPTY || mark == REMOVED {
                // A reader that still believes in the removed entry sees its name gone before it sees other words.
                fence(Ordering::Release);
                for (cell, word) in slot[1..].iter().zip(words) {
                    cell.store(word, Ordering::Relaxed);
                }
                slot[0].store(name, Ordering::Release);
                return mark == EMPTY;
            }
            step += 1;
        }
    }

    pub(super) fn insert(&mut self, table: &Table, name: u64, words: Words) {
        let part = &table.0[part_of(name)].0;
        let account = &mut self.accounts[part_of(name)];
        if (account.used + 1) * 4 > part.load().len() * 3 {
            let wanted = ((account.live + 1) * 2).next_power_of_two().max(SLOTS_MIN);
            let grown = Part::slots(wanted);
            for slot in part.load().iter() {
                let found = slot[0].load(Ordering::Relaxed);
                if found > REMOVED {
                    let words = std::array::from_fn(|word| slot[word + 1].load(Ordering::Relaxed));
                    Self::put(&grown, found, words);
                }
            }
            part.store(grown);
            account.used = account.live;
        }
        account.used += usize::from(Self::put(&part.load(), name, words));
        account.live += 1;
    }

    /// Replaces or removes the first entry of `name` that `is` knows.
    pub(super) fn change(
        &mut self,
        table: &Table,
        name: u64,
        is: impl Fn(Words) -> bool,
        change: impl FnOnce(Words) -> Option<Words>,
    ) -> Option<Words> {
        let slots = table.0[part_of(name)].0.load();
        let mask = slots.len() - 1;
        for step in 0..slots.len() {
            let slot = &slots[(name as usize + step) & mask];
            let found = slot[0].load(Ordering::Relaxed);
            if found == EMPTY {
                return None;
            }
            let words = std::array::from_fn(|word| slot[word + 1].load(Ordering::Relaxed));
            if found != name || !is(words) {
                continue;
            }
            match change(words) {
                None => {
                    slot[0].store(REMOVED, Ordering::Release);
                    self.accounts[part_of(name)].live -= 1;
                }
                Some(changed) => {
                    for (cell, word) in slot[1..].iter().zip(changed) {
                        cell.store(word, Ordering::Relaxed);
                    }
                }
            }
            return Some(words);
        }
        None
    }
}

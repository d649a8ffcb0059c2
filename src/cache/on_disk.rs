//! What is on disk, in RAM: 32 bytes for an extent and 32 for a head, in tables that any shard reads without a lock.
//!
//! Written by the owner alone ([`Writer`]), when the disk writer has stored something, by the fold at start, and when something turns out to be gone. Readers of other
//! shards take what they see as a hint: whether a wish to the owner is worth its way, and what an answer may promise. A look that
//! meets a change may miss an entry or see one that has just gone; the owner finds out, and every record says on disk whose it is.
//! Digests are kept by 64 bits here for the same reason.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::disk::format::fact::Place;
use crate::ram::StripeId;
use crate::ram::extent::FREQUENCY_MAX;

/// Parts of a table, each of which grows by itself: what growing copies at once is small.
const PARTS: usize = 64;
/// Slots of a part at first.
const SLOTS_MIN: usize = 16;
/// Mark of a slot that never had an entry.
const EMPTY: u64 = 0;
/// Mark of a slot whose entry was removed.
const REMOVED: u64 = 1;

/// An entry behind its name.
type Words = [u64; 3];

/// One part: open addressing, linear probing.
struct Part(ArcSwap<Box<[[AtomicU64; 4]]>>);

impl Part {
    fn slots(count: usize) -> Arc<Box<[[AtomicU64; 4]]>> {
        let slot = || std::array::from_fn(|_| AtomicU64::new(EMPTY));
        Arc::new((0..count).map(|_| slot()).collect())
    }
}

/// A table of names, each with any number of entries.
struct Table(Box<[Part]>);

/// Names that are no marks.
fn name_of(hash: u64) -> u64 {
    hash.max(REMOVED + 1)
}

fn part_of(name: u64) -> usize {
    (name >> 32) as usize % PARTS
}

impl Table {
    fn new() -> Self {
        Self(
            (0..PARTS)
                .map(|_| Part(ArcSwap::new(Part::slots(SLOTS_MIN))))
                .collect(),
        )
    }

    /// Calls `each` with the entries of a name until it says that it has seen enough.
    fn visit(&self, name: u64, mut each: impl FnMut(Words) -> bool) {
        let slots = self.0[part_of(name)].0.load();
        let mask = slots.len() - 1;
        for step in 0..slots.len() {
            let slot = &slots[(name as usize + step) & mask];
            let found = slot[0].load(Ordering::Acquire);
            if found == EMPTY {
                return;
            }
            if found != name {
                continue;
            }
            let words = std::array::from_fn(|word| slot[word + 1].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if slot[0].load(Ordering::Relaxed) == name && each(words) {
                return;
            }
        }
    }

    fn bytes(&self) -> u64 {
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

struct TableWriter {
    accounts: [Account; PARTS],
}

impl TableWriter {
    fn new() -> Self {
        Self {
            accounts: [Account::default(); PARTS],
        }
    }

    fn len(&self) -> usize {
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

    fn insert(&mut self, table: &Table, name: u64, words: Words) {
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
    fn change(
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

/// Where a record is, among the segments that this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The segment, by the process's own number.
    pub segment: u32,
    /// The record's first block.
    pub block: u32,
    /// Blocks of the record.
    pub record_blocks: u32,
    /// Blocks of its header.
    pub header_blocks: u32,
}

impl Spot {
    /// Of a fact, in a segment that this process calls `segment`.
    #[must_use]
    pub fn of(place: &Place, segment: u32) -> Self {
        Self {
            segment,
            block: place.block,
            record_blocks: place.record_blocks,
            header_blocks: place.header_blocks,
        }
    }

    /// Offset of the record's first byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        u64::from(self.block) * crate::disk::format::BLOCK_BYTES
    }

    fn word(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.block)
    }

    fn lengths(self) -> u64 {
        u64::from(self.record_blocks) << 8 | u64::from(self.header_blocks)
    }

    fn from(word: u64, lengths: u64) -> Self {
        Self {
            segment: (word >> 32) as u32,
            block: word as u32,
            record_blocks: (lengths >> 8 & 0xFFF) as u32,
            header_blocks: (lengths & 0xFF) as u32,
        }
    }

    /// Whether its numbers are small enough to be kept.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.record_blocks <= 0xFFF && self.header_blocks <= 0xFF
    }
}

/// An extent on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskExtent {
    /// Bytes of its stripe.
    pub window: Range<u32>,
    /// Where.
    pub spot: Spot,
    /// Times it was loaded, up to three.
    pub frequency: u8,
}

impl DiskExtent {
    // window.start 24 | window.end 24 | frequency 2, then lengths 20.
    fn words(&self) -> Words {
        let window = u64::from(self.window.start) << 32 | u64::from(self.window.end);
        [
            self.spot.word(),
            window,
            self.spot.lengths() << 8 | u64::from(self.frequency),
        ]
    }

    fn from(words: Words) -> Self {
        Self {
            window: (words[1] >> 32) as u32..words[1] as u32,
            spot: Spot::from(words[0], words[2] >> 8),
            frequency: (words[2] & 3) as u8,
        }
    }
}

/// A head on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskHead {
    /// The lower half of the version's digest.
    pub version: u64,
    /// When the origin confirmed it, in seconds since 1970.
    pub confirmed_unix_s: u32,
    /// Where.
    pub spot: Spot,
    /// Times it was loaded, up to three.
    pub frequency: u8,
}

impl DiskHead {
    fn words(&self) -> Words {
        let lengths = self.spot.lengths() << 2 | u64::from(self.frequency);
        [
            self.spot.word(),
            self.version,
            u64::from(self.confirmed_unix_s) << 32 | lengths,
        ]
    }

    fn from(words: Words) -> Self {
        Self {
            version: words[1],
            confirmed_unix_s: (words[2] >> 32) as u32,
            spot: Spot::from(words[0], words[2] >> 2 & 0x3FFF_FFFF),
            frequency: (words[2] & 3) as u8,
        }
    }
}

/// The readable side.
pub struct OnDisk {
    extents: Table,
    heads: Table,
}

impl OnDisk {
    /// The extent that holds the byte at `at` of a stripe; of several the one that reaches furthest.
    #[must_use]
    pub fn extent_at(&self, id: &StripeId, at: u32) -> Option<DiskExtent> {
        let mut best: Option<DiskExtent> = None;
        self.extents.visit(name_of(id.hash()), |words| {
            let extent = DiskExtent::from(words);
            let further = best
                .as_ref()
                .is_none_or(|best| best.window.end < extent.window.end);
            if extent.window.contains(&at) && further {
                best = Some(extent);
            }
            false
        });
        best
    }

    /// The start of the next extent behind `at`, or `end` if none begins before it.
    #[must_use]
    pub fn gap_until(&self, id: &StripeId, at: u32, end: u32) -> u32 {
        let mut until = end;
        self.extents.visit(name_of(id.hash()), |words| {
            let start = DiskExtent::from(words).window.start;
            if start > at && start < until {
                until = start;
            }
            false
        });
        until
    }

    /// The head of an object.
    #[must_use]
    pub fn head(&self, object: u128) -> Option<DiskHead> {
        let mut found = None;
        self.heads.visit(name_of(object as u64), |words| {
            found = Some(DiskHead::from(words));
            true
        });
        found
    }

    /// Bytes of the tables.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.extents.bytes() + self.heads.bytes()
    }
}

/// Names of what lies in one segment.
#[derive(Debug, Default)]
pub struct Residents {
    /// Of extents.
    pub extents: Vec<u64>,
    /// Of heads.
    pub heads: Vec<u64>,
}

/// The owner's side: there is one.
pub struct Writer {
    index: Arc<OnDisk>,
    extents: TableWriter,
    heads: TableWriter,
    residents: HashMap<u32, Residents>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            index: Arc::new(OnDisk {
                extents: Table::new(),
                heads: Table::new(),
            }),
            extents: TableWriter::new(),
            heads: TableWriter::new(),
            residents: HashMap::new(),
        }
    }
}

impl Writer {
    /// What every shard may read.
    #[must_use]
    pub fn index(&self) -> &Arc<OnDisk> {
        &self.index
    }

    /// Extents known.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.extents.len()
    }

    /// Heads known.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Notes an extent; one that covers it already, or that it covers, makes it or is made superfluous. True if it was noted.
    pub fn insert_extent(&mut self, id: &StripeId, extent: &DiskExtent) -> bool {
        let name = name_of(id.hash());
        let (mut covered, mut superfluous) = (false, Vec::new());
        self.index.extents.visit(name, |words| {
            let known = DiskExtent::from(words);
            let (ours, theirs) = (&extent.window, &known.window);
            covered |= theirs.start <= ours.start && ours.end <= theirs.end;
            if ours.start <= theirs.start && theirs.end <= ours.end {
                superfluous.push(known.spot);
            }
            covered
        });
        if covered || !extent.spot.fits() {
            return false;
        }
        for spot in superfluous {
            self.remove_extent_at(name, spot);
        }
        self.extents
            .insert(&self.index.extents, name, extent.words());
        self.residents
            .entry(extent.spot.segment)
            .or_default()
            .extents
            .push(name);
        true
    }

    fn remove_extent_at(&mut self, name: u64, spot: Spot) -> Option<DiskExtent> {
        let is = |words: Words| DiskExtent::from(words).spot == spot;
        let removed = self.extents.change(&self.index.extents, name, is, |_| None);
        removed.map(DiskExtent::from)
    }

    /// Forgets an extent; true if it was known there.
    pub fn remove_extent(&mut self, id: &StripeId, spot: Spot) -> bool {
        self.remove_extent_at(name_of(id.hash()), spot).is_some()
    }

    /// An extent was loaded.
    pub fn touch_extent(&mut self, id: &StripeId, spot: Spot) {
        let is = |words: Words| DiskExtent::from(words).spot == spot;
        let touch = |words: Words| {
            let mut extent = DiskExtent::from(words);
            extent.frequency = (extent.frequency + 1).min(FREQUENCY_MAX);
            Some(extent.words())
        };
        let _ = self
            .extents
            .change(&self.index.extents, name_of(id.hash()), is, touch);
    }

    /// Notes an object's head, in the place of an older one.
    pub fn insert_head(&mut self, object: u128, head: &DiskHead) {
        if !head.spot.fits() {
            return;
        }
        let name = name_of(object as u64);
        let replaced = self
            .heads
            .change(&self.index.heads, name, |_| true, |_| Some(head.words()));
        if replaced.is_none() {
            self.heads.insert(&self.index.heads, name, head.words());
        }
        let same_segment =
            replaced.is_some_and(|words| DiskHead::from(words).spot.segment == head.spot.segment);
        if !same_segment {
            self.residents
                .entry(head.spot.segment)
                .or_default()
                .heads
                .push(name);
        }
    }

    /// Forgets an object's head; true if there was one.
    pub fn remove_head(&mut self, object: u128) -> bool {
        let name = name_of(object as u64);
        self.heads
            .change(&self.index.heads, name, |_| true, |_| None)
            .is_some()
    }

    /// Forgets an object's head if it is at `spot`.
    pub fn remove_head_at(&mut self, object: u128, spot: Spot) -> bool {
        let name = name_of(object as u64);
        let is = |words: Words| DiskHead::from(words).spot == spot;
        self.heads
            .change(&self.index.heads, name, is, |_| None)
            .is_some()
    }

    /// The origin has confirmed the head that is on disk.
    pub fn confirm_head(&mut self, object: u128, confirmed_unix_s: u32) {
        let confirm = |words: Words| {
            let mut head = DiskHead::from(words);
            head.confirmed_unix_s = head.confirmed_unix_s.max(confirmed_unix_s);
            Some(head.words())
        };
        let _ = self
            .heads
            .change(&self.index.heads, name_of(object as u64), |_| true, confirm);
    }

    /// What would be lost with a segment and is perhaps worth keeping.
    #[must_use]
    pub fn hit_in(&self, segment: u32) -> Hit {
        let mut hit = Hit::default();
        let Some(residents) = self.residents.get(&segment) else {
            return hit;
        };
        for &name in &residents.extents {
            self.index.extents.visit(name, |words| {
                let extent = DiskExtent::from(words);
                let here = extent.spot.segment == segment && extent.frequency > 0;
                hit.extents.extend(here.then_some(extent));
                here
            });
        }
        for &name in &residents.heads {
            self.index.heads.visit(name, |words| {
                let head = DiskHead::from(words);
                let here = head.spot.segment == segment;
                hit.heads.extend(here.then_some(head));
                true
            });
        }
        hit
    }

    /// Forgets everything in a segment.
    pub fn remove_segment(&mut self, segment: u32) {
        let residents = self.residents.remove(&segment).unwrap_or_default();
        for name in residents.extents {
            let is = |words: Words| DiskExtent::from(words).spot.segment == segment;
            let _ = self.extents.change(&self.index.extents, name, is, |_| None);
        }
        for name in residents.heads {
            let is = |words: Words| DiskHead::from(words).spot.segment == segment;
            let _ = self.heads.change(&self.index.heads, name, is, |_| None);
        }
    }

    /// An extent is somewhere else now; false if it was not where it was said to be.
    pub fn move_extent(
        &mut self,
        id: &StripeId,
        (segment, block): (u32, u32),
        to: &DiskExtent,
    ) -> bool {
        let is = |words: Words| {
            let spot = DiskExtent::from(words).spot;
            (spot.segment, spot.block) == (segment, block)
        };
        let name = name_of(id.hash());
        let moved = |_| Some(to.words());
        let known = self.extents.change(&self.index.extents, name, is, moved);
        if known.is_some() {
            let residents = self.residents.entry(to.spot.segment).or_default();
            residents.extents.push(name);
        }
        known.is_some()
    }

    /// The same for a head; its confirmation stays.
    pub fn move_head(&mut self, object: u128, (segment, block): (u32, u32), to: Spot) -> bool {
        let is = |words: Words| {
            let spot = DiskHead::from(words).spot;
            (spot.segment, spot.block) == (segment, block)
        };
        let moved = |words: Words| {
            let mut head = DiskHead::from(words);
            head.spot = to;
            Some(head.words())
        };
        let name = name_of(object as u64);
        let known = self.heads.change(&self.index.heads, name, is, moved);
        if known.is_some() {
            let residents = self.residents.entry(to.segment).or_default();
            residents.heads.push(name);
        }
        known.is_some()
    }
}

/// What is in a segment that goes and should perhaps not be lost.
#[derive(Debug, Default)]
pub struct Hit {
    /// Extents that were loaded.
    pub extents: Vec<DiskExtent>,
    /// All heads: whether they are worth it depends on what there is of their objects.
    pub heads: Vec<DiskHead>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::{Prng, mix64};
    use std::collections::HashMap as Model;

    fn spot(segment: u32, block: u32) -> Spot {
        Spot {
            segment,
            block,
            record_blocks: 2049,
            header_blocks: 1,
        }
    }

    fn id(object: u128) -> StripeId {
        StripeId {
            object,
            version: 8,
            index: 3,
        }
    }

    fn extent(window: Range<u32>, spot: Spot) -> DiskExtent {
        DiskExtent {
            window,
            spot,
            frequency: 0,
        }
    }

    #[test]
    fn entries_come_back_as_they_were_put() {
        let words = DiskExtent {
            window: 5..8 << 20,
            spot: Spot {
                segment: u32::MAX,
                block: u32::MAX,
                record_blocks: 0xFFF,
                header_blocks: 0xFF,
            },
            frequency: 3,
        };
        assert_eq!(DiskExtent::from(words.words()), words);
        let head = DiskHead {
            version: u64::MAX,
            confirmed_unix_s: u32::MAX,
            spot: words.spot,
            frequency: 2,
        };
        assert_eq!(DiskHead::from(head.words()), head);
    }

    #[test]
    fn it_holds_what_a_plain_map_holds_while_it_grows_and_shrinks() {
        let (mut writer, mut model, prng) = (Writer::default(), Model::new(), Prng::new(3));
        for round in 0..60_000u32 {
            let object = u128::from(mix64(prng.below(5000) as u64));
            if prng.below(3) == 0 {
                assert_eq!(writer.remove_head(object), model.remove(&object).is_some());
            } else {
                let head = DiskHead {
                    version: u64::from(round),
                    confirmed_unix_s: round,
                    spot: spot(round % 7, round),
                    frequency: 0,
                };
                writer.insert_head(object, &head);
                model.insert(object, head);
            }
            let probe = u128::from(mix64(prng.below(5000) as u64));
            assert_eq!(writer.index().head(probe), model.get(&probe).copied());
            assert_eq!(writer.heads(), model.len());
        }
    }

    #[test]
    fn extents_of_one_stripe_are_found_by_their_bytes() {
        let mut writer = Writer::default();
        assert!(writer.insert_extent(&id(1), &extent(0..100, spot(1, 1))));
        assert!(writer.insert_extent(&id(1), &extent(200..300, spot(1, 2))));
        assert!(
            !writer.insert_extent(&id(1), &extent(210..300, spot(2, 3))),
            "it is there"
        );
        let index = Arc::clone(writer.index());
        assert_eq!(index.extent_at(&id(1), 99).map(|e| e.window), Some(0..100));
        assert_eq!(index.extent_at(&id(1), 100), None);
        assert_eq!(
            (
                index.gap_until(&id(1), 100, 500),
                index.gap_until(&id(1), 250, 500)
            ),
            (200, 500)
        );
        assert!(
            writer.insert_extent(&id(1), &extent(0..400, spot(2, 4))),
            "covers both"
        );
        assert_eq!(
            (
                writer.extents(),
                index.extent_at(&id(1), 250).map(|e| e.spot)
            ),
            (1, Some(spot(2, 4)))
        );
        assert_eq!(index.extent_at(&id(2), 0), None);
    }

    #[test]
    fn a_segment_that_goes_takes_its_entries_and_names_what_was_hit() {
        let mut writer = Writer::default();
        for object in 0..100 {
            writer.insert_extent(
                &id(object),
                &extent(0..10, spot(object as u32 % 2, object as u32 + 1)),
            );
        }
        writer.touch_extent(&id(4), spot(0, 5));
        let hit = writer.hit_in(0);
        assert_eq!(hit.extents.len(), 1);
        writer.remove_segment(0);
        assert_eq!((hit.extents[0].spot.block, writer.extents()), (5, 50));
        assert!(writer.index().extent_at(&id(4), 0).is_none());
        assert!(writer.index().extent_at(&id(5), 0).is_some());
    }
}

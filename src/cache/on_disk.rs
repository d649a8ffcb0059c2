//! What is on disk, in RAM: 32 bytes for an extent and 32 for a head, in tables that any shard reads without a lock.
//!
//! Written by the owner alone ([`Writer`]), when the disk writer has stored something, by the fold at start, and when something turns out to be gone. Readers of other
//! shards take what they see as a hint: whether a wish to the owner is worth its way, and what an answer may promise. A look that
//! meets a change may miss an entry or see one that has just gone; the owner finds out, and every record says on disk whose it is.
//! Digests are kept by 64 bits here for the same reason.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::disk::Segment;
use crate::disk::format::BLOCK_BYTES;
use crate::disk::format::fact::Place;
use crate::disk::reclaim::FREQUENCY_MAX;
use crate::ram::StripeId;

pub use super::disk_table::name_of;
use super::disk_table::{Table, TableWriter, Words};

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
        u64::from(self.block) * BLOCK_BYTES
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

    /// Bytes of the record.
    #[must_use]
    pub fn record_bytes(&self) -> u64 {
        u64::from(self.record_blocks) * BLOCK_BYTES
    }

    /// Whether its numbers are small enough to be kept.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.record_blocks <= 0xFFF && self.header_blocks <= 0xFF
    }
}

/// Extents that one stripe may have: a look at a stripe goes through all of them, and their size is the clients' choice.
pub const EXTENTS_PER_STRIPE_MAX: usize = 512;
/// Bits of an object's name that an extent's entry has.
const OBJECT_BITS: u64 = (1 << 42) - 1;

/// An extent on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskExtent {
    /// Bytes of its stripe.
    pub window: Range<u32>,
    /// Where.
    pub spot: Spot,
    /// Times it was hit, up to three.
    pub frequency: u8,
    /// Some bits of its object's name, by which its head is found.
    object: u64,
    /// Some bits of its version.
    version: u16,
}

impl DiskExtent {
    /// Nobody has hit it yet.
    #[must_use]
    pub fn new(id: &StripeId, window: Range<u32>, spot: Spot) -> Self {
        Self {
            window,
            spot,
            frequency: 0,
            object: name_of(id.object as u64) & OBJECT_BITS,
            version: id.version as u16,
        }
    }

    /// Whether it is of the version that this head of its object names.
    #[must_use]
    pub fn is_of(&self, head: &DiskHead) -> bool {
        self.version == head.version as u16
    }

    // version 16 | start 24 | end 24, then object 42 | lengths 20 | frequency 2.
    fn words(&self) -> Words {
        let window = u64::from(self.window.start) << 24 | u64::from(self.window.end);
        let lengths = self.spot.lengths() << 2 | u64::from(self.frequency);
        [
            self.spot.word(),
            u64::from(self.version) << 48 | window,
            self.object << 22 | lengths,
        ]
    }

    fn from(words: Words) -> Self {
        const MASK: u64 = 0xFF_FFFF;
        Self {
            window: (words[1] >> 24 & MASK) as u32..(words[1] & MASK) as u32,
            spot: Spot::from(words[0], words[2] >> 2 & 0xF_FFFF),
            frequency: (words[2] & 3) as u8,
            object: words[2] >> 22,
            version: (words[1] >> 48) as u16,
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

    /// The head of the object of an extent, if it is in this shard's table.
    #[must_use]
    pub fn head_of(&self, extent: &DiskExtent) -> Option<DiskHead> {
        let mut found = None;
        self.heads.visit_like(extent.object, OBJECT_BITS, |words| {
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

/// What is known of one segment.
#[derive(Debug, Default)]
struct Residents {
    /// Names of extents; some may be elsewhere by now, or twice here.
    extents: Vec<u64>,
    /// The same of heads.
    heads: Vec<u64>,
    /// The segment, once it is known.
    segment: Option<Arc<Segment>>,
    /// Bytes of the records that are known here.
    known_bytes: u64,
    /// Bytes of those that were of no use at the last look.
    useless_bytes: u64,
    /// When the next look is due.
    look_unix_s: u32,
}

impl Residents {
    fn came(&mut self, bytes: u64) {
        self.known_bytes += bytes;
        if let Some(segment) = &self.segment {
            segment.account.came(bytes);
        }
    }

    fn went(&mut self, bytes: u64) {
        self.known_bytes -= bytes;
        if let Some(segment) = &self.segment {
            segment.account.went(bytes);
        }
    }
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

    /// Notes an extent; one that covers it already, or that it covers, makes it or is made superfluous. Of too many in one stripe the smallest makes way.
    /// True if it was noted.
    pub fn insert_extent(&mut self, id: &StripeId, extent: &DiskExtent) -> bool {
        let name = name_of(id.hash());
        let (mut covered, mut superfluous) = (false, Vec::new());
        let mut others = 0;
        let mut smallest: Option<(usize, Spot)> = None;
        self.index.extents.visit(name, |words| {
            let known = DiskExtent::from(words);
            let (ours, theirs) = (&extent.window, &known.window);
            covered |= theirs.start <= ours.start && ours.end <= theirs.end;
            if ours.start <= theirs.start && theirs.end <= ours.end {
                superfluous.push(known.spot);
                return covered;
            }
            others += 1;
            if smallest.is_none_or(|(bytes, _)| theirs.len() < bytes) {
                smallest = Some((theirs.len(), known.spot));
            }
            covered
        });
        if covered || !extent.spot.fits() {
            return false;
        }
        if others >= EXTENTS_PER_STRIPE_MAX
            && let Some((bytes, spot)) = smallest
        {
            if bytes > extent.window.len() {
                return false;
            }
            superfluous.push(spot);
        }
        for spot in superfluous {
            self.remove_extent_at(name, spot);
        }
        self.extents
            .insert(&self.index.extents, name, extent.words());
        let residents = self.residents.entry(extent.spot.segment).or_default();
        residents.extents.push(name);
        residents.came(extent.spot.record_bytes());
        true
    }

    /// A segment that records may be said to be in.
    pub fn know(&mut self, segment: &Arc<Segment>) {
        let residents = self.residents.entry(segment.id).or_default();
        if residents.segment.is_none() {
            segment.account.came(residents.known_bytes);
            residents.segment = Some(Arc::clone(segment));
        }
    }

    fn went(&mut self, spot: Spot) {
        if let Some(residents) = self.residents.get_mut(&spot.segment) {
            residents.went(spot.record_bytes());
        }
    }

    /// Forgets the extent of that name at `spot`.
    pub fn remove_extent_at(&mut self, name: u64, spot: Spot) -> Option<DiskExtent> {
        let is = |words: Words| DiskExtent::from(words).spot == spot;
        let removed = self.extents.change(&self.index.extents, name, is, |_| None);
        if removed.is_some() {
            self.went(spot);
        }
        removed.map(DiskExtent::from)
    }

    /// Forgets an extent; true if it was known there.
    pub fn remove_extent(&mut self, id: &StripeId, spot: Spot) -> bool {
        self.remove_extent_at(name_of(id.hash()), spot).is_some()
    }

    /// An extent was hit.
    pub fn touch_extent(&mut self, id: &StripeId, spot: Spot) {
        self.touch_where(id, |extent| extent.spot == spot);
    }

    /// What holds the byte at `at` of a stripe was hit.
    pub fn touch_extent_at(&mut self, id: &StripeId, at: u32) {
        self.touch_where(id, |extent| extent.window.contains(&at));
    }

    fn touch_where(&mut self, id: &StripeId, is: impl Fn(&DiskExtent) -> bool) {
        let is = |words: Words| is(&DiskExtent::from(words));
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
        match replaced {
            Some(words) => self.went(DiskHead::from(words).spot),
            None => self.heads.insert(&self.index.heads, name, head.words()),
        }
        let residents = self.residents.entry(head.spot.segment).or_default();
        residents.came(head.spot.record_bytes());
        let same_segment =
            replaced.is_some_and(|words| DiskHead::from(words).spot.segment == head.spot.segment);
        if !same_segment {
            residents.heads.push(name);
        }
    }

    /// Forgets an object's head; true if there was one.
    pub fn remove_head(&mut self, object: u128) -> bool {
        self.remove_head_where(object, |_| true)
    }

    /// Forgets an object's head if it is at `spot`.
    pub fn remove_head_at(&mut self, object: u128, spot: Spot) -> bool {
        self.remove_head_where(object, |head| head.spot == spot)
    }

    fn remove_head_where(&mut self, object: u128, is: impl Fn(&DiskHead) -> bool) -> bool {
        let name = name_of(object as u64);
        let is = |words: Words| is(&DiskHead::from(words));
        let removed = self.heads.change(&self.index.heads, name, is, |_| None);
        if let Some(words) = removed {
            self.went(DiskHead::from(words).spot);
        }
        removed.is_some()
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

    /// Names of what is, or was, in a segment.
    #[must_use]
    pub fn names_in(&self, segment: u32) -> Names {
        let Some(residents) = self.residents.get(&segment) else {
            return Names::default();
        };
        let once = |names: &[u64]| {
            let mut names = names.to_vec();
            names.sort_unstable();
            names.dedup();
            names
        };
        Names {
            extents: once(&residents.extents),
            heads: once(&residents.heads),
        }
    }

    /// The extents of that name in a segment.
    pub fn extents_in(&self, segment: u32, name: u64, mut each: impl FnMut(DiskExtent)) {
        self.index.extents.visit(name, |words| {
            let extent = DiskExtent::from(words);
            if extent.spot.segment == segment {
                each(extent);
            }
            false
        });
    }

    /// The head of that name, if it is in a segment.
    #[must_use]
    pub fn head_in(&self, segment: u32, name: u64) -> Option<DiskHead> {
        let mut found = None;
        self.index.heads.visit(name, |words| {
            found = Some(DiskHead::from(words));
            true
        });
        found.filter(|head: &DiskHead| head.spot.segment == segment)
    }

    /// Segments that are to be looked at by now.
    #[must_use]
    pub fn due(&self, now_unix_s: u32) -> Vec<Arc<Segment>> {
        let due = self.residents.values();
        let due = due.filter(|residents| residents.look_unix_s <= now_unix_s);
        due.filter_map(|residents| residents.segment.clone())
            .collect()
    }

    /// So many bytes in a segment are of no use; the next look is at `look_unix_s`.
    pub fn judged(&mut self, segment: u32, useless_bytes: u64, look_unix_s: u32) {
        let Some(residents) = self.residents.get_mut(&segment) else {
            return;
        };
        let before = std::mem::replace(&mut residents.useless_bytes, useless_bytes);
        residents.look_unix_s = look_unix_s;
        if let Some(segment) = &residents.segment {
            segment.account.judged(before, useless_bytes);
        }
    }

    /// Bytes in a segment that this shard knows.
    #[must_use]
    pub fn bytes_in(&self, segment: u32) -> u64 {
        let residents = self.residents.get(&segment);
        residents.map_or(0, |residents| residents.known_bytes)
    }

    /// Forgets everything in a segment.
    pub fn remove_segment(&mut self, segment: u32) {
        self.judged(segment, 0, u32::MAX);
        let Some(residents) = self.residents.remove(&segment) else {
            return;
        };
        if let Some(segment) = &residents.segment {
            segment.account.went(residents.known_bytes);
        }
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
        if let Some(words) = known {
            self.went(DiskExtent::from(words).spot);
            let residents = self.residents.entry(to.spot.segment).or_default();
            residents.extents.push(name);
            residents.came(to.spot.record_bytes());
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
        if let Some(words) = known {
            self.went(DiskHead::from(words).spot);
            let residents = self.residents.entry(to.segment).or_default();
            residents.heads.push(name);
            residents.came(to.record_bytes());
        }
        known.is_some()
    }
}

/// What a segment's records are called, each once.
#[derive(Debug, Default)]
pub struct Names {
    /// Extents.
    pub extents: Vec<u64>,
    /// Heads.
    pub heads: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::{Prng, mix64};
    use crate::disk::Account;
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
        DiskExtent::new(&id(1), window, spot)
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
            object: OBJECT_BITS,
            version: u16::MAX,
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
    fn a_stripe_has_no_more_extents_than_a_look_can_go_through() {
        let mut writer = Writer::default();
        let most = EXTENTS_PER_STRIPE_MAX as u32;
        for at in 0..2 * most {
            writer.insert_extent(&id(1), &extent(at * 4..at * 4 + 2, spot(1, at + 1)));
        }
        assert_eq!(writer.extents(), EXTENTS_PER_STRIPE_MAX);
        let smaller = extent(3..4, spot(2, 1));
        assert!(!writer.insert_extent(&id(1), &smaller));
        let larger = extent(6 << 20..7 << 20, spot(2, 2));
        assert!(writer.insert_extent(&id(1), &larger));
        assert_eq!(writer.index().extent_at(&id(1), 6 << 20), Some(larger));
        assert_eq!(writer.extents(), EXTENTS_PER_STRIPE_MAX);
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

    fn segment(id: u32) -> Arc<Segment> {
        Arc::new(Segment {
            id,
            path: std::path::PathBuf::new(),
            instance: 1,
            shard: 0,
            number: id,
            account: Account::default(),
        })
    }

    #[test]
    fn a_segment_that_goes_takes_its_entries() {
        let mut writer = Writer::default();
        for object in 0..100 {
            writer.insert_extent(
                &id(object),
                &extent(0..10, spot(object as u32 % 2, object as u32 + 1)),
            );
        }
        writer.touch_extent(&id(4), spot(0, 5));
        let mut hit = Vec::new();
        for name in writer.names_in(0).extents {
            writer.extents_in(0, name, |extent| {
                hit.extend((extent.frequency > 0).then_some(extent.spot.block));
            });
        }
        writer.remove_segment(0);
        assert_eq!((hit, writer.extents()), (vec![5], 50));
        assert!(writer.index().extent_at(&id(4), 0).is_none());
        assert!(writer.index().extent_at(&id(5), 0).is_some());
    }

    #[test]
    fn the_account_of_a_segment_is_what_the_index_says() {
        let (mut writer, prng) = (Writer::default(), Prng::new(5));
        let segments: Vec<_> = (0..4).map(segment).collect();
        for round in 0..20_000u32 {
            let object = prng.below(200) as u128;
            let to = Spot {
                record_blocks: 1 + prng.below(9) as u32,
                ..spot(prng.below(4) as u32, round)
            };
            let found = writer.index().extent_at(&id(object), 0);
            let known_head = writer.index().head(object);
            match prng.below(8) {
                0 => writer.know(&segments[prng.below(4)]),
                1 => writer.remove_segment(to.segment),
                2 => drop(found.map(|found| writer.remove_extent(&id(object), found.spot))),
                3 => drop(found.map(|found| {
                    let from = (found.spot.segment, found.spot.block);
                    writer.move_extent(&id(object), from, &extent(0..10, to))
                })),
                4 => drop(known_head.map(|head| {
                    let from = (head.spot.segment, head.spot.block);
                    writer.move_head(object, from, to)
                })),
                5 => drop(writer.remove_head(object)),
                6 => writer.insert_head(
                    object,
                    &DiskHead {
                        version: 1,
                        confirmed_unix_s: 1,
                        spot: to,
                        frequency: 0,
                    },
                ),
                _ => drop(writer.insert_extent(&id(object), &extent(0..prng.below(20) as u32, to))),
            }
        }
        segments.iter().for_each(|segment| writer.know(segment));
        for segment in &segments {
            let mut bytes = 0;
            let names = writer.names_in(segment.id);
            for name in names.extents {
                writer.extents_in(segment.id, name, |extent| {
                    bytes += extent.spot.record_bytes()
                });
            }
            let heads = names.heads.into_iter();
            let heads = heads.filter_map(|name| writer.head_in(segment.id, name));
            bytes += heads.map(|head| head.spot.record_bytes()).sum::<u64>();
            assert!(bytes > 0);
            assert_eq!(writer.bytes_in(segment.id), bytes);
            // `know` may have come late, or a segment twice: then the account began anew.
            assert_eq!(segment.account.known_bytes(), bytes);
        }
    }

    #[test]
    fn the_head_of_an_extent_is_found_by_what_its_entry_has() {
        let (mut writer, prng) = (Writer::default(), Prng::new(11));
        let objects: Vec<u128> = (0..5000)
            .map(|_| u128::from(prng.next_u64()) << 64 | u128::from(prng.next_u64()))
            .collect();
        for (at, &object) in objects.iter().enumerate() {
            let head = DiskHead {
                version: 8,
                confirmed_unix_s: at as u32,
                spot: spot(1, at as u32),
                frequency: 0,
            };
            writer.insert_head(object, &head);
        }
        for (at, &object) in objects.iter().enumerate() {
            let extent = DiskExtent::new(&id(object), 0..1, spot(2, 2));
            let head = writer.index().head_of(&extent).expect("it is there");
            assert!(head.confirmed_unix_s == at as u32 && extent.is_of(&head));
        }
        let other = DiskExtent::new(&id(12), 0..1, spot(2, 2));
        assert!(writer.index().head_of(&other).is_none());
    }
}

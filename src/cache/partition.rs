//! The part of index, slab and eviction that one shard alone writes.
//!
//! Called by `shard` for its own messages and fills. All methods are synchronous and single-threaded; every shard reads the result through
//! [`Index`]. Holds the budget: an extent is given room only if eviction can make it, heads are bounded by count.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::base::clock;
use crate::ram::StripeId;
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::progress::FillState;
use crate::ram::readers::Readers;
use crate::ram::slab::{Arena, PAGE_BYTES, Slab, Slot};
use crate::s3::covers;

use super::eviction::{Resident, S3Fifo};
use super::head::Head;
use super::parts::{PartId, PartWriter};
use super::read_map::{self, MapWriter, ReadMap};
use super::stamps::{Stamp, Stamps};
use super::{Extents, Index, on_disk};

/// Most extents that one stripe may have; beyond it the oldest of the small ones make way.
pub const EXTENTS_PER_STRIPE_MAX: usize = 128;
/// There is room for one part to so many heads: a part is small, and few objects are read by their parts.
const HEADS_TO_A_PART: usize = 4;
/// How many times its own bytes are evicted for an extent before pages are emptied by force.
const EVICT_FACTOR: u64 = 4;
/// How long one search for room waits for looks at the index to end, which take some microseconds each.
const LOOKS_END_NS: u64 = 100_000;

/// What the partition has done, for metrics; counters only grow.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Extents evicted to make room.
    pub evicted: u64,
    /// Bytes of them.
    pub evicted_bytes: u64,
    /// Holes punched for slots that had been sent by reference.
    pub punched: u64,
    /// Slots lost to refused punches.
    pub lost: u64,
    /// Heads dropped by invalidations.
    pub invalidated: u64,
}

struct ExtentResident(Weak<Extent>);

impl Resident for ExtentResident {
    fn frequency(&self) -> Option<u8> {
        self.0.upgrade().map(|extent| extent.frequency())
    }
    fn set_frequency(&self, frequency: u8) {
        if let Some(extent) = self.0.upgrade() {
            extent.set_frequency(frequency);
        }
    }
    fn busy(&self) -> bool {
        self.0.upgrade().is_some_and(|extent| {
            let end = extent.id().base() + u64::from(extent.promised_end());
            extent.progress().state() == FillState::Filling
                || extent.readers().awaited_at(end, clock::now_ms())
        })
    }
}

struct HeadResident(Weak<Head>);

impl Resident for HeadResident {
    fn frequency(&self) -> Option<u8> {
        self.0.upgrade().map(|head| head.frequency())
    }
    fn set_frequency(&self, frequency: u8) {
        if let Some(head) = self.0.upgrade() {
            head.set_frequency(frequency);
        }
    }
    fn busy(&self) -> bool {
        false
    }
}

struct Heads(Arc<Index>);
impl AsRef<ReadMap<u128, Arc<Head>>> for Heads {
    fn as_ref(&self) -> &ReadMap<u128, Arc<Head>> {
        &self.0.heads
    }
}
struct Stripes(Arc<Index>);
impl AsRef<ReadMap<StripeId, Extents>> for Stripes {
    fn as_ref(&self) -> &ReadMap<StripeId, Extents> {
        &self.0.stripes
    }
}

/// The answer to a wish for room.
pub enum Lease {
    /// Room, and the one right to write it; readers find the extent already.
    Granted(ExtentWriter),
    /// Somebody else has these bytes or is fetching them.
    Have(Arc<Extent>),
    /// Everything is pinned or being filled, or [`Partition::room_is_coming`]: no room now.
    NoRoom,
}

/// One shard's writing side.
pub struct Partition {
    index: Arc<Index>,
    heads: MapWriter<u128, Arc<Head>>,
    stripes: MapWriter<StripeId, Extents>,
    head_policy: S3Fifo<HeadResident>,
    policy: S3Fifo<ExtentResident>,
    slab: Slab,
    /// See [`Partition::room_is_coming`].
    coming: bool,
    stamps: Arc<Stamps>,
    heads_max: usize,
    extents: usize,
    /// Who has each page that is one slot.
    page_owners: Vec<Weak<Extent>>,
    tally: Tally,
    parts: PartWriter,
    /// What is on disk.
    pub disk: on_disk::Writer,
}

impl Partition {
    /// A partition with a slab of `ram_bytes` and room for `heads_max` heads.
    ///
    /// # Errors
    /// The kernel's, when the slab cannot be mapped.
    pub fn new(ram_bytes: u64, heads_max: usize, stamps: Arc<Stamps>) -> io::Result<Self> {
        let slab = Slab::new(ram_bytes)?;
        let stripes = (ram_bytes / 16_384) as usize;
        let page_owners = (0..slab.pages()).map(|_| Weak::new()).collect();
        let disk = on_disk::Writer::default();
        let index = Arc::new(Index {
            on_disk: Arc::clone(disk.index()),
            heads: read_map::table(heads_max),
            stripes: read_map::table(stripes),
            parts: read_map::table(heads_max / HEADS_TO_A_PART),
            stamps: Arc::clone(&stamps),
        });
        let parts_max = heads_max / HEADS_TO_A_PART;
        Ok(Self {
            heads: MapWriter::new(Arc::new(Heads(Arc::clone(&index)))),
            stripes: MapWriter::new(Arc::new(Stripes(Arc::clone(&index)))),
            head_policy: S3Fifo::default(),
            policy: S3Fifo::default(),
            slab,
            coming: false,
            stamps,
            heads_max,
            extents: 0,
            page_owners,
            tally: Tally::default(),
            parts: PartWriter::new(&index, parts_max),
            index,
            disk,
        })
    }

    /// The slab is made of huge pages from now on, where the kernel can; only if the self-test has passed.
    pub fn use_huge_pages(&mut self) {
        self.slab.use_huge_pages();
    }

    /// Takes the slab's memory from the kernel now; to be called on the shard's own thread, whose memory is the nearest.
    pub fn prefault(&mut self) {
        self.slab.prefault();
    }

    /// What every shard may read.
    #[must_use]
    pub fn index(&self) -> &Arc<Index> {
        &self.index
    }

    /// The slab's shared side.
    #[must_use]
    pub fn arena(&self) -> &Arc<Arena> {
        self.slab.arena()
    }

    /// Counters for metrics.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Bytes of slots that are out.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.slab.used_bytes()
    }

    /// Bytes of pages that wait for the other half of their huge block.
    #[must_use]
    pub fn spent_bytes(&self) -> u64 {
        self.slab.spent_bytes()
    }

    /// Heads known.
    #[must_use]
    pub fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Extents known.
    #[must_use]
    pub fn extents(&self) -> usize {
        self.extents
    }

    /// Stores a head, unless its object was invalidated since `stamp`; gives back what is now known of that version. A version that was
    /// followed by another one while it was asked for is given back, but not stored.
    pub fn publish(&mut self, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        let object = head.object();
        if !self.stamps.is_current(object, stamp) {
            return None;
        }
        let older = self.heads.get(object as u64, &object, Arc::clone);
        let known = older.as_ref().is_some_and(|older| !older.is_sketch());
        if head.is_sketch() && known {
            return None;
        }
        if older.as_ref().is_some_and(|older| older.outlives(&head)) {
            return Some(Arc::new(head));
        }
        let mut head = match &older {
            Some(older) => head.inherit(older),
            None => head,
        };
        head.stored_at(stamp);
        let head = Arc::new(head);
        if let Some(part) = head.part() {
            let id = PartId {
                object,
                version: head.version(),
                number: part.number,
            };
            self.parts.insert(id, part);
        }
        // A confirmation does not make a hot object cold.
        head.set_frequency(older.map_or(0, |older| older.frequency()));
        self.head_policy.insert(
            HeadResident(Arc::downgrade(&head)),
            head.weight(),
            object as u64,
        );
        self.heads.insert(object as u64, object, Arc::clone(&head));
        while self.heads.len() > self.heads_max {
            if !self.evict_head() {
                break;
            }
        }
        Some(head)
    }

    /// Stores a newer head of the version that is known. If another one is known by now, or none, nothing is stored: what the origin said of
    /// this version was said before. `None` as in [`Partition::publish`].
    pub fn confirm(&mut self, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        let object = head.object();
        if !self.stamps.is_current(object, stamp) {
            return None;
        }
        let same = self.heads.get(object as u64, &object, |known| {
            known.version() == head.version()
        });
        match same {
            Some(true) => self.publish(head, stamp),
            Some(false) | None => Some(Arc::new(head)),
        }
    }

    fn evict_head(&mut self) -> bool {
        let Some(victim) = self.head_policy.evict() else {
            return false;
        };
        let Some(victim) = victim.0.upgrade() else {
            return true;
        };
        let object = victim.object();
        let current = self
            .heads
            .get(object as u64, &object, |head| Arc::ptr_eq(head, &victim));
        if current == Some(true) {
            self.heads.remove(object as u64, &object);
        }
        true
    }

    /// Drops what is known of an object and beats every fetch of it that is under way. Its extents are of an old version: nobody finds
    /// them any more, and eviction takes them in their turn.
    pub fn invalidate(&mut self, object: u128) {
        self.stamps.bump(object);
        if self.heads.remove(object as u64, &object) {
            self.tally.invalidated += 1;
        }
    }

    /// Drops every head whose key `pattern` covers, and beats every fetch under way that could bring one back.
    pub fn invalidate_pattern(&mut self, pattern: &[u8]) {
        let matching = self
            .index
            .heads
            .keys_where(|head| covers(pattern, head.key()));
        self.stamps.bump_all();
        for object in matching {
            if self.heads.remove(object as u64, &object) {
                self.tally.invalidated += 1;
            }
        }
    }

    /// Insertions that the ghost recognised.
    #[must_use]
    pub fn ghost_hits(&self) -> u64 {
        self.policy.ghost_hits()
    }

    /// Drops the head of an object if it satisfies `is`; true if it did.
    pub fn drop_head_if(&mut self, object: u128, is: impl Fn(&Head) -> bool) -> bool {
        let matches = self
            .heads
            .get(object as u64, &object, |head| is(head))
            .unwrap_or(false);
        matches && self.heads.remove(object as u64, &object)
    }

    /// Room for `window` of a stripe, unless somebody already has or fetches the window's first byte.
    pub fn lease(&mut self, id: StripeId, window: Range<u32>, readers: &Arc<Readers>) -> Lease {
        let wanted = window.start;
        self.lease_for(id, window, wanted, readers)
    }

    /// Room for `window` of a stripe, unless somebody already has or fetches the byte at `wanted`.
    pub fn lease_for(
        &mut self,
        id: StripeId,
        window: Range<u32>,
        wanted: u32,
        readers: &Arc<Readers>,
    ) -> Lease {
        if let Some(extent) = self.index.extent_at(&id, wanted) {
            return Lease::Have(extent);
        }
        let Some(slots) = self.make_room(window.len()) else {
            return Lease::NoRoom;
        };
        let whole_pages = slots.iter().filter(|slot| slot.bytes() == PAGE_BYTES);
        let whole_pages: Vec<u32> = whole_pages.map(|slot| slot.page()).collect();
        let (extent, writer) = Extent::create(id, window, slots, self.slab.arena(), readers);
        for page in whole_pages {
            self.page_owners[page as usize] = Arc::downgrade(&extent);
        }
        self.policy.insert(
            ExtentResident(Arc::downgrade(&extent)),
            extent.weight(),
            extent_fingerprint(&extent),
        );
        self.link(extent);
        Lease::Granted(writer)
    }

    fn link(&mut self, extent: Arc<Extent>) {
        let id = extent.id();
        let mut extents: Vec<_> = self
            .stripes
            .get(id.chain(), &id, |known| known.to_vec())
            .unwrap_or_default();
        self.extents -= extents.len();
        extents.retain(|known| known.promised_end() > known.start());
        if extents.len() >= EXTENTS_PER_STRIPE_MAX {
            let settled = extents
                .iter()
                .position(|known| known.progress().state() != FillState::Filling);
            extents.remove(settled.unwrap_or(0));
        }
        let at = extents.partition_point(|known| known.start() <= extent.start());
        extents.insert(at, extent);
        self.extents += extents.len();
        self.stripes
            .insert(id.chain(), id, extents.into_boxed_slice());
    }

    /// True if it was there.
    fn unlink(&mut self, extent: &Arc<Extent>) -> bool {
        let id = extent.id();
        let Some(mut extents) = self.stripes.get(id.chain(), &id, |known| known.to_vec()) else {
            return false;
        };
        let before = extents.len();
        extents.retain(|known| !Arc::ptr_eq(known, extent));
        let found = extents.len() < before;
        self.extents -= before - extents.len();
        if extents.is_empty() {
            self.stripes.remove(id.chain(), &id);
        } else {
            self.stripes
                .insert(id.chain(), id, extents.into_boxed_slice());
        }
        found
    }

    /// Bytes that were kept under a name of their own turned out to be those of `version`: from now on readers find them. What was
    /// evicted meanwhile stays gone. Gives how many bytes there are.
    pub fn adopt(&mut self, extents: &[Weak<Extent>], version: u128) -> u64 {
        let mut bytes = 0;
        for extent in extents.iter().filter_map(Weak::upgrade) {
            let found = self.unlink(&extent);
            let filled = u64::from(extent.promised_end() - extent.start());
            if found && filled > 0 && extent.name(version) {
                self.link(extent);
                bytes += filled;
            }
        }
        bytes
    }

    /// Bytes that were kept under a name of their own are of no use any more.
    pub fn discard(&mut self, extents: &[Weak<Extent>]) {
        for extent in extents.iter().filter_map(Weak::upgrade) {
            self.unlink(&extent);
        }
    }

    /// A fill has ended: an extent without a byte is of no use to anybody.
    pub fn settled(&mut self, extent: &Arc<Extent>) {
        if extent.promised_end() == extent.start() {
            self.unlink(extent);
            return;
        }
        self.drop_inside(extent);
    }

    /// What was fetched again, with what lay around it, is there once.
    fn drop_inside(&mut self, extent: &Arc<Extent>) {
        let id = extent.id();
        let inside = |known: &&Arc<Extent>| {
            !Arc::ptr_eq(known, extent)
                && extent.start() <= known.start()
                && known.promised_end() <= extent.promised_end()
                && known.progress().state() != FillState::Filling
        };
        let look = |known: &Extents| known.iter().filter(inside).cloned().collect::<Vec<_>>();
        let inside = self.stripes.get(id.chain(), &id, look).unwrap_or_default();
        for known in inside {
            self.unlink(&known);
        }
    }

    /// Whether an extent on disk, whose stripe has this name, was hit in RAM since this was last asked or its copy there went.
    pub fn take_ram_hit(&self, name: u64, on_disk: &on_disk::DiskExtent) -> bool {
        let look = |extents: &Extents| {
            let ours = &on_disk.window;
            let overlaps = |extent: &&Arc<Extent>| {
                extent.start() < ours.end && ours.start < extent.promised_end()
            };
            let hits = extents
                .iter()
                .filter(overlaps)
                .filter(|extent| extent.take_hit());
            hits.count() > 0
        };
        let is = |id: &StripeId| on_disk::name_of(id.hash()) == name;
        self.index.stripes.get(name, is, look).unwrap_or(false)
    }

    /// Heads of objects that `pattern` covers.
    #[must_use]
    pub fn heads_of(&self, pattern: &[u8]) -> Vec<Arc<Head>> {
        let heads = &self.index.heads;
        let objects = heads.keys_where(|head| covers(pattern, head.key()));
        let head = |object: &u128| heads.get(*object as u64, |known| known == object, Arc::clone);
        objects.iter().filter_map(head).collect()
    }

    /// Drops the bytes of a stripe; gives how many there were. A fill that brings some goes on for its readers.
    pub fn drop_stripe(&mut self, id: &StripeId) -> u64 {
        let found = self.stripes.get(id.chain(), id, |known| {
            let bytes = |extent: &Arc<Extent>| u64::from(extent.promised_end() - extent.start());
            (known.len(), known.iter().map(bytes).sum())
        });
        let Some((extents, bytes)) = found else {
            return 0;
        };
        self.extents -= extents;
        self.stripes.remove(id.chain(), id);
        bytes
    }

    /// Takes home the slots that readers have let go.
    pub fn collect(&mut self) {
        let collected = self.slab.collect();
        self.tally.punched += collected.punched as u64;
        self.tally.lost += collected.lost as u64;
    }

    /// Whether the last wish for room was refused only because looks at the index hold what was evicted: then it can be had soon.
    #[must_use]
    pub fn room_is_coming(&self) -> bool {
        self.coming
    }

    fn make_room(&mut self, bytes: usize) -> Option<Vec<Slot>> {
        self.collect();
        if let Some(slots) = self.slab.allocate(bytes) {
            return Some(slots);
        }
        let until_ns = clock::now_ns() + LOOKS_END_NS;
        let most_bytes = bytes.max(PAGE_BYTES) as u64 * EVICT_FACTOR;
        let mut evicted_bytes = 0;
        while evicted_bytes < most_bytes {
            // Nothing more goes while what has gone may be enough.
            if evicted_bytes == 0 || evicted_bytes >= bytes as u64 {
                match self.wait_for_room(bytes, until_ns) {
                    Some(slots) => return Some(slots),
                    None if self.coming => return None,
                    None => {}
                }
            }
            let victim = self.next_stuck().or_else(|| self.next_victim());
            let Some(extent) = victim else { break };
            evicted_bytes += self.evict_extent(&extent);
        }
        self.empty_pages(bytes, until_ns)
    }

    /// Tries until nothing comes home any more, or the time is over.
    fn wait_for_room(&mut self, bytes: usize, until_ns: u64) -> Option<Vec<Slot>> {
        loop {
            // Seen before the try: what comes home after it is still to be tried for.
            let held = self.stripes.is_held();
            read_map::free_retired();
            self.collect();
            let slots = self.slab.allocate(bytes);
            if slots.is_some() || !held || clock::now_ns() > until_ns {
                self.coming = held && slots.is_none();
                return slots;
            }
            // A look that lasts is one whose thread lost its core: perhaps to us.
            std::thread::yield_now();
        }
    }

    /// The owner of what keeps the spent half of a block from being used.
    fn next_stuck(&mut self) -> Option<Arc<Extent>> {
        while let Some(page) = self.slab.next_stuck() {
            let owner = self.page_owners[page as usize].upgrade();
            let Some(extent) = owner.filter(|extent| extent.touches_page(page)) else {
                continue;
            };
            if !ExtentResident(Arc::downgrade(&extent)).busy() {
                return Some(extent);
            }
        }
        None
    }

    fn next_victim(&mut self) -> Option<Arc<Extent>> {
        while let Some(victim) = self.policy.evict() {
            let extent = victim.0.upgrade();
            if extent.is_some() {
                return extent;
            }
        }
        None
    }

    fn evict_extent(&mut self, extent: &Arc<Extent>) -> u64 {
        let weight = extent.weight();
        if extent.take_hit() {
            self.disk.touch_extent_at(&extent.id(), extent.start());
        }
        self.unlink(extent);
        self.tally.evicted += 1;
        self.tally.evicted_bytes += weight;
        weight
    }

    /// Many small extents scattered over many pages can leave no page for a large one: empties the emptiest pages whole.
    fn empty_pages(&mut self, bytes: usize, until_ns: u64) -> Option<Vec<Slot>> {
        for _ in 0..=bytes.div_ceil(PAGE_BYTES) {
            let slots = self.wait_for_room(bytes, until_ns);
            if slots.is_some() || self.coming {
                return slots;
            }
            let page = self.slab.emptiest_page()?;
            let touches = |resident: &ExtentResident| {
                resident.0.upgrade().is_some_and(|e| e.touches_page(page))
            };
            for victim in self.policy.remove_where(touches) {
                if let Some(extent) = victim.0.upgrade() {
                    self.evict_extent(&extent);
                }
            }
        }
        None
    }
}

fn extent_fingerprint(extent: &Extent) -> u64 {
    extent.id().hash() ^ crate::base::prng::mix64(u64::from(extent.start()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::head::HeadParts;
    use crate::cache::parts::Part;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn partition(ram_bytes: u64) -> Partition {
        Partition::new(ram_bytes, 100, Arc::default()).unwrap()
    }
    fn id(index: u32) -> StripeId {
        StripeId {
            object: 7,
            version: 8,
            index,
        }
    }
    fn granted(lease: Lease) -> ExtentWriter {
        match lease {
            Lease::Granted(writer) => writer,
            Lease::Have(_) => panic!("somebody has it"),
            Lease::NoRoom => panic!("no room"),
        }
    }
    /// Asks as long as room is coming: looks of other tests at their own tables hold it up too.
    fn lease(partition: &mut Partition, id: StripeId, window: Range<u32>) -> Lease {
        loop {
            match partition.lease(id, window.clone(), &Arc::default()) {
                Lease::NoRoom if partition.room_is_coming() => std::thread::yield_now(),
                lease => return lease,
            }
        }
    }
    fn fill(partition: &mut Partition, id: StripeId, window: Range<u32>) {
        let mut writer = granted(lease(partition, id, window));
        while writer.remaining() > 0 {
            let n = writer.room().len();
            writer.advance(n, |_| {});
        }
        writer.finish(|_| {});
    }
    fn head(object: u128) -> Head {
        Head::new(
            object,
            HeadParts {
                key: (*b"k").into(),
                etag: (*b"\"e\"").into(),
                total: 1,
                ..HeadParts::default()
            },
        )
    }

    #[test]
    fn a_second_lease_of_bytes_being_fetched_joins_the_first() {
        let mut partition = partition(16 << 20);
        let writer = granted(partition.lease(id(0), 0..100_000, &Arc::default()));
        assert!(matches!(
            partition.lease(id(0), 50..100, &Arc::default()),
            Lease::Have(_)
        ));
        assert!(matches!(
            partition.lease(id(0), 100_000..100_100, &Arc::default()),
            Lease::Granted(_)
        ));
        drop(writer);
    }

    #[test]
    fn what_was_fetched_around_others_takes_their_place_when_it_has_settled() {
        let mut partition = partition(16 << 20);
        for start in [1000, 3000, 9000] {
            fill(&mut partition, id(0), start..start + 100);
        }
        let held = partition.index().extent_at(&id(0), 1000).unwrap();
        fill(&mut partition, id(0), 0..5000);
        assert_eq!(partition.extents(), 4);
        let around = partition.index().extent_at(&id(0), 0).unwrap();
        partition.settled(&around);
        assert_eq!(partition.extents(), 2);
        assert_eq!(partition.index().reach(&id(0), 0, 9100).end, 5000);
        assert!(partition.index().extent_at(&id(0), 9000).is_some());
        assert_eq!(held.promised_end(), 1100, "who reads it reads on");
    }

    #[test]
    fn parts_are_as_many_as_there_is_room_for_and_keep_their_checksums() {
        let stamps = Arc::<Stamps>::default();
        let mut partition = Partition::new(1 << 20, 100, Arc::clone(&stamps)).unwrap();
        let mut publish = |number: u32, checksums: Option<&[u8]>| {
            let part = Part {
                number,
                range: 0..1,
                count: Some(100),
                checksums: checksums.map(Into::into),
            };
            let parts = HeadParts {
                key: (*b"k").into(),
                etag: (*b"\"e\"").into(),
                total: 1,
                part: Some(Arc::new(part)),
                ..HeadParts::default()
            };
            let head = partition
                .publish(Head::new(7, parts), stamps.now(7))
                .unwrap();
            let id = |number| PartId {
                object: 7,
                version: head.version(),
                number,
            };
            let index = Arc::clone(partition.index());
            let known = (1..=100).filter(|number| index.part(&id(*number)).is_some());
            (
                known.count(),
                index.part(&id(number)).unwrap().checksums.is_some(),
            )
        };
        assert_eq!(publish(1, Some(b"x\r\n")), (1, true));
        assert_eq!(publish(1, None), (1, true));
        for number in 1..=100 {
            let (known, _) = publish(number, None);
            assert!(known <= 100 / HEADS_TO_A_PART);
        }
        assert_eq!(publish(100, Some(b"x\r\n")), (25, true));
    }

    #[test]
    fn a_head_of_one_version_ends_with_any_write_to_its_object() {
        let stamps = Arc::<Stamps>::default();
        let mut partition = Partition::new(1 << 20, 100, Arc::clone(&stamps)).unwrap();
        let key = b"\0\x01o\0\x01b\0\x01k\0\x02v1";
        let object = crate::s3::ObjectKeyRef::from_encoded(key)
            .unwrap()
            .digest()
            .0;
        let parts = || HeadParts {
            key: (*key).into(),
            etag: (*b"\"e\"").into(),
            ..HeadParts::default()
        };
        let before = stamps.now(object);
        partition
            .publish(Head::new(object, parts()), before)
            .unwrap();
        assert!(partition.index().head(object, key).is_some());
        // The object itself has another digest, and the same stamp.
        let current = crate::s3::ObjectKeyRef::from_encoded(&key[..9])
            .unwrap()
            .digest()
            .0;
        assert_ne!(current, object);
        partition.invalidate(current);
        assert!(partition.index().head(object, key).is_none());
        assert!(
            partition
                .publish(Head::new(object, parts()), before)
                .is_none()
        );
        partition
            .publish(Head::new(object, parts()), stamps.now(object))
            .unwrap();
        assert!(partition.index().head(object, key).is_some());
    }

    #[test]
    fn the_budget_holds_and_old_bytes_make_way() {
        let mut partition = partition(4 << 20);
        for index in 0..50 {
            fill(&mut partition, id(index), 0..(1 << 20));
            assert!(partition.used_bytes() <= 4 << 20);
        }
        assert!(partition.tally().evicted >= 46);
        assert!(partition.index().extent_at(&id(49), 0).is_some());
        assert!(partition.index().extent_at(&id(0), 0).is_none());
    }

    #[test]
    fn pinned_bytes_are_never_reused_and_room_is_refused_instead() {
        let mut partition = partition(2 << 20);
        fill(&mut partition, id(0), 0..(2 << 20));
        let pin = partition.index().extent_at(&id(0), 0).unwrap();
        let lease = lease(&mut partition, id(1), 0..(1 << 20));
        assert!(matches!(lease, Lease::NoRoom));
        drop(pin);
        fill(&mut partition, id(1), 0..(1 << 20));
    }

    /// Looks at the index all the time, for as long as it takes to send a small answer each.
    fn look_until(index: &Index, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let until_ns = clock::now_ns() + 20_000;
            index.with_head(1, b"k", |_| while clock::now_ns() < until_ns {});
        }
    }

    #[test]
    fn looks_at_the_index_cost_no_more_evictions_than_the_room_that_is_made() {
        let mut partition = partition(16 << 20);
        let stamp = partition.stamps.now(1);
        partition.publish(head(1), stamp);
        let index = Arc::clone(partition.index());
        let stop = AtomicBool::new(false);
        let mut refused = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| look_until(&index, &stop));
            for number in 0..1000 {
                let lease = lease(&mut partition, id(number), 0..(1 << 20));
                let Lease::Granted(mut writer) = lease else {
                    refused += 1;
                    continue;
                };
                let bytes = writer.room().len();
                writer.advance(bytes, |_| {});
                writer.finish(|_| {});
            }
            stop.store(true, Ordering::Relaxed);
        });
        let evicted = partition.tally().evicted;
        assert!(
            refused == 0 && evicted <= 1000,
            "{refused} refused, {evicted} evicted"
        );
    }

    #[test]
    fn small_objects_that_stay_do_not_keep_the_memory_of_lent_ones_that_went() {
        let mut partition = partition(64 << 20);
        partition.use_huge_pages();
        for round in 0..2000 {
            fill(&mut partition, id(100_000 + round), 0..(1 << 20));
            let index = Arc::clone(partition.index());
            if let Some(extent) = index.extent_at(&id(100_000 + round), 0) {
                let piece = extent.piece(0, 1 << 20).expect("all of it");
                assert_eq!(piece.lend().len(), 1 << 20);
            }
            for small in 0..8 {
                let id = id((round * 8 + small) % 4000);
                match index.extent_at(&id, 0) {
                    Some(extent) => extent.touch(),
                    None => fill(&mut partition, id, 0..4096),
                }
            }
            let spent = partition.spent_bytes();
            assert!(spent <= 8 << 20, "{spent} spent in round {round}");
        }
    }

    #[test]
    fn small_extents_make_way_for_large_ones() {
        let mut partition = partition(4 << 20);
        for index in 0..4000 {
            fill(&mut partition, id(index), 0..1000);
            if let Some(extent) = partition.index().extent_at(&id(index), 0) {
                extent.touch();
            }
        }
        fill(&mut partition, id(9999), 0..(2 << 20));
        assert!(partition.index().extent_at(&id(9999), 0).is_some());
    }

    #[test]
    fn a_fetch_that_began_before_an_invalidation_is_not_stored() {
        let mut partition = partition(2 << 20);
        let stamp = partition.stamps.now(1);
        assert!(partition.publish(head(1), stamp).is_some());
        partition.invalidate(1);
        assert!(partition.index().head(1, b"k").is_none());
        assert!(partition.publish(head(1), stamp).is_none());
        let stamp = partition.stamps.now(1);
        assert!(partition.publish(head(1), stamp).is_some());
        assert!(
            partition
                .index()
                .head(1, b"other key, same digest")
                .is_none()
        );
    }

    #[test]
    fn a_confirmation_brings_back_nothing_that_is_not_the_current_version() {
        let mut partition = partition(2 << 20);
        let stamp = partition.stamps.now(1);
        assert!(partition.confirm(head(1), stamp).is_some());
        assert!(partition.index().head(1, b"k").is_none(), "none was known");
        partition.publish(head(1), stamp);
        let newer = Head::new(
            1,
            HeadParts {
                key: (*b"k").into(),
                etag: (*b"\"f\"").into(),
                ..HeadParts::default()
            },
        );
        let version = newer.version();
        partition.publish(newer, stamp);
        assert!(partition.confirm(head(1), stamp).is_some());
        let current = partition.index().head(1, b"k").expect("a head");
        assert_eq!(current.version(), version);
        partition.invalidate(1);
        assert!(partition.confirm(head(1), stamp).is_none());
    }

    #[test]
    fn heads_are_bounded() {
        let mut partition = partition(2 << 20);
        for object in 0..1000 {
            let stamp = partition.stamps.now(object);
            partition.publish(head(object), stamp);
        }
        assert!(partition.heads() <= 100);
    }

    #[test]
    fn a_head_that_is_confirmed_again_and_again_costs_no_memory() {
        let mut partition = partition(2 << 20);
        let until_ms = clock::now_ms() + 10_000;
        let mut count = 0;
        // Looks of other tests at their own tables hold what is replaced here: then it takes some more.
        while count < 10_000 || (partition.head_policy.len() >= 2000 && clock::now_ms() < until_ms)
        {
            let stamp = partition.stamps.now(1);
            partition.publish(head(1), stamp);
            count += 1;
        }
        assert!(
            partition.head_policy.len() < 2000,
            "{} entries",
            partition.head_policy.len()
        );
    }

    #[test]
    fn an_extent_without_a_byte_is_forgotten() {
        let mut partition = partition(2 << 20);
        let writer = granted(partition.lease(id(0), 0..10, &Arc::default()));
        let extent = Arc::clone(writer.extent());
        drop(writer);
        partition.settled(&extent);
        assert_eq!(partition.extents(), 0);
    }
}

//! The part of index, slab and eviction that one shard alone writes.
//!
//! Called by `shard` for its own messages and fills. All methods are synchronous and single-threaded; every shard reads the result through
//! [`Index`]. Holds the budget: an extent is given room only if eviction can make it, heads are bounded by count.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};

use hashbrown::HashMap;

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
    /// Stripes in RAM by the name that they have on disk, where there is one.
    names: Option<HashMap<u64, StripeId>>,
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
            names: None,
            index,
            disk,
        })
    }

    /// The slab is made of huge pages from now on, where the kernel can; only if the self-test has passed.
    pub fn use_huge_pages(&mut self) {
        self.slab.use_huge_pages();
    }

    /// Hits in RAM are looked up for extents on disk from now on; to be called before there is anything.
    pub fn answer_for_disk(&mut self) {
        self.names = Some(HashMap::new());
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
        if let Some(names) = &mut self.names {
            names.insert(on_disk::name_of(id.hash()), id);
        }
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
            self.remove_stripe(&id);
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
                extent.keep_for_reader();
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
        let names = self.names.as_ref();
        let id = names.and_then(|names| names.get(&name));
        let stripes = &self.index.stripes;
        let found = id.and_then(|id| stripes.get(id.chain(), |known| known == id, look));
        found.unwrap_or(false)
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
        self.remove_stripe(id);
        bytes
    }

    fn remove_stripe(&mut self, id: &StripeId) {
        if let Some(names) = &mut self.names {
            names.remove(&on_disk::name_of(id.hash()));
        }
        self.stripes.remove(id.chain(), id);
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
#[path = "partition_tests.rs"]
mod tests;

//! The shard and its disk: what was filled goes there, what is wanted comes from there, what is not true any more is written down.
//!
//! Called by the dispatcher (news of the keeper, settled extents, wishes) and by a flight before it asks an origin. The disk itself is `crate::disk`; here it meets
//! heads, stamps and holds.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};

use hashbrown::{HashMap, HashSet};

use crate::base::clock;
use crate::cache::Head;
use crate::cache::head::{HeadParts, lines_of};
use crate::cache::on_disk::{DiskExtent, DiskHead, Spot, name_of};
use crate::cache::partition::Lease;
use crate::cache::stamps::Stamp;
use crate::config::Freshness;
use crate::disk::door::Door;
use crate::disk::fold::Prefix;
use crate::disk::format::BLOCK_BYTES;
use crate::disk::format::fact::{Fact, Place};
use crate::disk::format::record::{Kind, Record};
use crate::disk::journal::Journal;
use crate::disk::load::{self, Wanted, frames_around};
use crate::disk::reclaim::{Ghost, Stream};
use crate::disk::writer::{Item, Moved, Owner, Writer};
use crate::disk::{Ask, Batch, Dated, Described, DiskConfig, DiskError, Folded, News, Segment};
use crate::fill::{Came, Fetch, Ready};
use crate::http::Method;
use crate::io::{sleep_ms, spawn};
use crate::metrics::{Counter, DiskFailure, DiskWork, Gauge};
use crate::ram::extent::Extent;
use crate::ram::readers::Readers;
use crate::ram::{STRIPE_BYTES, StripeId};

use crate::s3::{Resolved, is_packed};

use super::message::{Answer, Message};
use super::{Shard, reclaim, routing};

/// Extents up to this size are loaded whole: it is one read in any case.
const WHOLE_BYTES: usize = 128 * 1024;
/// How soon a journal is asked for again.
const JOURNAL_MS: u64 = 1_000;
/// What has proved its worth waits in a queue of its own, a part of the size of the other: one of so many.
const PROVEN_PART: u64 = 4;
/// Confirmations nearer to each other than this are not written down.
const CONFIRM_S: u32 = 1;

/// Ages up to this are as good as none: dates are told in whole seconds.
const AGE_SLACK_MS: u64 = 2_000;

/// How an invalidation gets to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is there when the journal is flushed so far.
    At(u64),
    /// Not at all: too much waits for a journal already.
    Lost,
}

/// What a shard is given for its disk.
pub struct DiskParts {
    /// Bounds.
    pub config: Arc<DiskConfig>,
    /// The way to the keeper.
    pub asks: Sender<Ask>,
}

/// One shard's disk.
pub(super) struct Disk {
    pub(super) door: Rc<Door>,
    journal: Rc<Journal>,
    /// One for each stream.
    pub(super) writers: [Rc<Writer<HeadToken>>; 2],
    pub(super) asks: Sender<Ask>,
    pub(super) segment_bytes: u64,
    pub(super) active_expiry: bool,
    /// What was reclaimed a short while ago.
    pub(super) ghost: RefCell<Ghost>,
    /// Records on their way from one segment to another.
    pub(super) moving: Rc<Cell<usize>>,
    /// Facts of older journals may still come.
    pub(super) folding: Cell<bool>,
    /// An invalidation found no room, and never got to disk.
    lost: Cell<bool>,
    /// Objects that have been invalidated while they may.
    invalid: RefCell<HashSet<u128>>,
    /// Segments that have been reclaimed while they may.
    gone: RefCell<HashSet<u32>>,
    prefixes: RefCell<Vec<Prefix>>,
    /// The latest moment at which an origin has confirmed a head, by clocks that may have been set back since; milliseconds since 1970.
    confirmed_last_ms: Cell<u64>,
    journal_due: Cell<bool>,
    queued_heads: QueuedHeads,
    /// Objects that a write is under way to, with the number of writes: their heads do not go to disk.
    announced: RefCell<HashMap<u128, u32>>,
}

impl Disk {
    pub(super) fn new(shard: usize, parts: DiskParts) -> Self {
        let config = &parts.config;
        let door = Rc::new(Door::new(config.operations_max, config.deadline_ms));
        let journal = Rc::new(Journal::new(Rc::clone(&door), config.journal_bytes));
        let writers = Stream::ALL.map(|stream| {
            let queue_bytes = match stream {
                Stream::Fresh => config.queue_bytes_max,
                Stream::Proven => config.queue_bytes_max / PROVEN_PART,
            };
            let (place, asks) = ((shard, stream), parts.asks.clone());
            Rc::new(Writer::new(
                place,
                queue_bytes,
                config,
                (&door, &journal),
                asks,
            ))
        });
        Self {
            door,
            journal,
            writers,
            asks: parts.asks.clone(),
            segment_bytes: config.segment_bytes,
            active_expiry: config.active_expiry,
            ghost: RefCell::default(),
            moving: Rc::default(),
            folding: Cell::new(true),
            lost: Cell::new(false),
            invalid: RefCell::default(),
            gone: RefCell::default(),
            prefixes: RefCell::default(),
            confirmed_last_ms: Cell::new(0),
            journal_due: Cell::new(true),
            queued_heads: Rc::default(),
            announced: RefCell::default(),
        }
    }
}

impl Disk {
    pub(super) fn writer(&self, stream: Stream) -> &Rc<Writer<HeadToken>> {
        &self.writers[stream as usize]
    }

    /// The log for something new of that name.
    fn stream_for(&self, name: u64) -> Stream {
        match self.ghost.borrow_mut().recall(name) {
            true => Stream::Proven,
            false => Stream::Fresh,
        }
    }

    /// An origin confirmed a head then.
    fn confirmed(&self, unix_ms: u64) {
        self.confirmed_last_ms
            .set(self.confirmed_last_ms.get().max(unix_ms));
    }

    /// Whether a head was invalidated with all objects of some prefix.
    pub(super) fn is_beaten(&self, instance: u64, confirmed_unix_ms: u64, key: &[u8]) -> bool {
        let prefixes = self.prefixes.borrow();
        let mut prefixes = prefixes.iter();
        prefixes.any(|prefix| prefix.beats(instance, confirmed_unix_ms, key))
    }

    fn is_announced(&self, object: u128) -> bool {
        self.announced.borrow().contains_key(&object)
    }
}

/// A write that is under way to an object. While it is, nothing of what the object was before comes back from a disk, whatever happens to the process.
pub struct Announced {
    shard: Rc<Shard>,
    object: u128,
}

impl Drop for Announced {
    fn drop(&mut self) {
        let owner = routing::head_owner(self.object, self.shard.world.shards.len());
        self.shard.post(owner, Message::WriteOver(self.object));
    }
}

/// Of each object the head that is on its way to disk: the last one that was said to be current.
type QueuedHeads = Rc<RefCell<HashMap<u128, Arc<Head>>>>;

/// What the shard knows a queued head by.
pub(super) struct HeadToken {
    stamp: Stamp,
    head: Arc<Head>,
    queued: QueuedHeads,
}

impl HeadToken {
    /// Whether nothing else has been said of the object since.
    fn is_current(&self) -> bool {
        let queued = self.queued.borrow();
        let last = queued.get(&self.head.object());
        last.is_some_and(|last| Arc::ptr_eq(last, &self.head))
    }
}

impl Drop for HeadToken {
    fn drop(&mut self) {
        if self.is_current() {
            self.queued.borrow_mut().remove(&self.head.object());
        }
    }
}

/// The stored lines but for those that say how a cache behind us came by its answer.
fn of_object(head: &Head) -> impl Iterator<Item = &[u8]> {
    let lines = lines_of(head.lines()).filter(|line| !line.is("cache-status"));
    lines.map(|line| line.raw)
}

/// Whether answers from two heads are the same, the second one being the newer; a version that was copied in place keeps its ETag and changes its headers.
fn says_the_same(one: &Head, other: &Head) -> bool {
    one.version() == other.version()
        && (one.lines() == other.lines() || of_object(one).eq(of_object(other)))
        && one.checksum_lines() == other.checksum_lines()
        && counted_age_ms(other) <= counted_age_ms(one)
}

/// The age with which a head came, as it counts for what is on disk: what is there may say more than is true, never less.
fn counted_age_ms(head: &Head) -> u64 {
    head.terms().age_ms().max(AGE_SLACK_MS)
}

/// The writer's view of its shard.
struct Keeping(Rc<Shard>);

impl Owner for Keeping {
    type Token = HeadToken;

    fn extent_stored(
        &self,
        id: &StripeId,
        window: Range<u32>,
        place: &Place,
        segment: &Arc<Segment>,
    ) {
        let extent = DiskExtent::new(id, window, Spot::of(place, segment.id));
        let index = &mut self.0.partition.borrow_mut().disk;
        index.know(segment);
        index.insert_extent(id, &extent);
        self.0.metrics().count(Counter::DiskStored);
    }

    fn head_stored(
        &self,
        head: &dyn Described,
        confirmed_unix_ms: u64,
        token: &HeadToken,
        place: &Place,
        segment: &Arc<Segment>,
    ) -> bool {
        let object = head.object();
        let held = self.0.holds.borrow_mut().covers(object, clock::now_ms());
        let announced = self
            .0
            .disk
            .as_ref()
            .is_some_and(|disk| disk.is_announced(object));
        let current = token.is_current() && self.0.world.stamps.is_current(object, token.stamp);
        if held || announced || !current {
            return false;
        }
        let entry = DiskHead {
            version: head.version() as u64,
            confirmed_unix_s: (confirmed_unix_ms / 1000) as u32,
            spot: Spot::of(place, segment.id),
            frequency: u8::from(head.checksums_known()),
        };
        let index = &mut self.0.partition.borrow_mut().disk;
        index.know(segment);
        index.insert_head(object, &entry);
        self.0.metrics().count(Counter::DiskStored);
        true
    }

    fn moved(&self, record: &Moved, place: &Place, segment: &Arc<Segment>) -> bool {
        let index = &mut self.0.partition.borrow_mut().disk;
        let spot = Spot::of(place, segment.id);
        let from = (record.from_segment, record.from_block);
        index.know(segment);
        let moved = match record.kind {
            Kind::Head => index.move_head(record.id.object, from, spot),
            Kind::Extent => {
                let mut extent = DiskExtent::new(&record.id, record.window.clone(), spot);
                extent.frequency = record.frequency;
                index.move_extent(&record.id, from, &extent)
            }
        };
        let metrics = self.0.metrics();
        metrics.add(Counter::DiskMoved, u64::from(moved));
        // They were written, whether or not they are of use.
        metrics.add(Counter::DiskMovedBytes, spot.record_bytes());
        moved
    }

    fn written(&self, bytes: u64) {
        self.0.metrics().add(Counter::DiskWrittenBytes, bytes);
    }

    fn dropped(&self, copies: usize) {
        self.0.metrics().add(Counter::DiskDropped, copies as u64);
    }

    fn failed(&self, error: &DiskError) {
        self.0.disk_failed(DiskWork::Write, error);
    }
}

/// Milliseconds since 1970 of a moment of the monotonic clock.
fn unix_ms_of(monotonic_ms: i64) -> u64 {
    let age_ms = (clock::now_ms() as i64).saturating_sub(monotonic_ms).max(0);
    clock::unix_ms().saturating_sub(age_ms as u64)
}

/// A moment of the monotonic clock for one of the wall clock; a moment to come is now.
fn monotonic_ms_of(unix_ms: u64) -> i64 {
    let age_ms = clock::unix_ms().saturating_sub(unix_ms);
    clock::now_ms() as i64 - i64::try_from(age_ms).unwrap_or(i64::MAX / 2)
}

impl Shard {
    /// Begins to write, if there is a disk.
    pub(super) fn start_disk(self: &Rc<Self>) {
        let Some(disk) = &self.disk else { return };
        if let Err(error) = crate::io::runtime::raise_file_workers() {
            tracing::warn!(shard = self.id, %error, "the kernel's file workers stay at its own bound: a disk that hangs may hold up others");
        }
        for writer in &disk.writers {
            spawn(Rc::clone(writer).run(Keeping(Rc::clone(self))));
        }
        spawn(reclaim::look_around(Rc::clone(self)));
        spawn(journals(Rc::clone(self)));
    }

    pub(super) fn disk_failed(&self, work: DiskWork, error: &DiskError) {
        let kind = match error {
            DiskError::Busy => DiskFailure::Busy,
            DiskError::Late => DiskFailure::Late,
            DiskError::Io(_) => DiskFailure::Io,
            DiskError::Format(_) | DiskError::Other => DiskFailure::Damaged,
            DiskError::Gone => DiskFailure::Gone,
        };
        self.metrics().count(Counter::DiskErrors(work, kind));
        if matches!(
            error,
            DiskError::Io(_) | DiskError::Format(_) | DiskError::Other
        ) {
            tracing::debug!(shard = self.id, %error, "the disk failed");
        }
    }

    /// What the keeper or the fold says.
    pub(super) fn hear_of_disk(self: &Rc<Self>, news: News) {
        let Some(disk) = &self.disk else { return };
        match news {
            News::Journal(path, header) => {
                let shard = Rc::clone(self);
                spawn(async move {
                    let Some(disk) = &shard.disk else { return };
                    if let Err(error) = disk.journal.begin(&path, header).await {
                        shard.disk_failed(DiskWork::Write, &error);
                    }
                    disk.journal_due.set(false);
                });
            }
            News::Granted(segment) => disk.writer(segment.stream()).granted(Some(segment)),
            News::Refused(stream) => disk.writer(stream).granted(None),
            News::NoJournal => disk.journal_due.set(false),
            News::Reclaim(segment, why) => {
                if disk.folding.get() {
                    disk.gone.borrow_mut().insert(segment.id);
                }
                spawn(reclaim::segment(Rc::clone(self), segment, why));
            }
            News::Prefixes(prefixes) => {
                for prefix in prefixes {
                    prefix.note(&mut disk.prefixes.borrow_mut());
                }
            }
            News::Folded(batch) => self.folded(disk, batch),
            News::FoldEnded => {
                disk.folding.set(false);
                let _ = disk.asks.send(Ask::FoldEnded);
                disk.invalid.take();
                disk.gone.take();
            }
            News::Flush(done) => {
                let shard = Rc::clone(self);
                spawn(async move {
                    let Some(disk) = &shard.disk else { return };
                    let flushed = disk.journal.flush(disk.journal.appended(), true).await;
                    let _ = done.send(flushed.is_ok() && !disk.lost.get());
                });
            }
        }
    }

    fn folded(&self, disk: &Disk, mut batch: Batch) {
        let index = &mut self.partition.borrow_mut().disk;
        let (gone, invalid) = (disk.gone.borrow(), disk.invalid.borrow());
        for segment in &batch.segments {
            // One that has gone meanwhile is not to be known again.
            if !gone.contains(&segment.id) {
                disk.door.know(segment);
                index.know(segment);
            }
        }
        for fact in batch.facts.drain(..) {
            let (Folded::Extent { segment, place, .. } | Folded::Head { segment, place, .. }) =
                &fact;
            if gone.contains(segment) {
                continue;
            }
            if let Folded::Head {
                confirmed_unix_ms, ..
            } = &fact
            {
                disk.confirmed(*confirmed_unix_ms);
            }
            let spot = Spot::of(place, *segment);
            match fact {
                Folded::Extent { id, window, .. } => {
                    index.insert_extent(&id, &DiskExtent::new(&id, window, spot));
                }
                Folded::Head {
                    object,
                    version,
                    confirmed_unix_ms,
                    ..
                } if !invalid.contains(&object) && index.index().head(object).is_none() => {
                    let head = DiskHead {
                        version: version as u64,
                        confirmed_unix_s: (confirmed_unix_ms / 1000) as u32,
                        spot,
                        frequency: 0,
                    };
                    index.insert_head(object, &head);
                }
                // What this process knows itself is younger.
                Folded::Head { .. } => {}
            }
        }
    }

    /// An extent has got all it will get: it goes to disk, if it is not there.
    pub(super) fn settled(&self, extent: &Arc<Extent>) {
        self.partition.borrow_mut().settled(extent);
        let Some(disk) = &self.disk else { return };
        let (id, end) = (extent.id(), extent.promised_end());
        if end == extent.start() {
            return;
        }
        let known = self.world.shards[self.id]
            .index
            .on_disk
            .extent_at(&id, extent.start());
        if known.is_some_and(|known| known.window.end >= end) {
            return;
        }
        let head = self.index_of(id.object, 0).heads.get(
            id.object as u64,
            |object| *object == id.object,
            Arc::clone,
        );
        let known = |head: &Arc<Head>| head.version() == id.version && !head.is_sketch();
        let Some(head) = head.filter(known) else {
            return;
        };
        let policy = self.policy_of(&head);
        if !policy.disk {
            return;
        }
        let compress = policy.compress && !is_packed(head.lines(), head.key());
        let item = Item::Extent {
            extent: Arc::clone(extent),
            head,
            compress,
        };
        self.keep(disk, name_of(id.hash()), item);
    }

    /// Queues something new to be written.
    fn keep(&self, disk: &Disk, name: u64, item: Item<HeadToken>) {
        let stream = disk.stream_for(name);
        if !disk.writer(stream).push(item) {
            self.metrics().count(Counter::DiskDropped);
        } else if stream == Stream::Proven {
            self.metrics().count(Counter::DiskGhostHits);
        }
    }

    /// A head was published in the place of `older`: it goes to disk, or its confirmation does. What is on disk says the same as what was in RAM.
    pub(super) fn keep_head(&self, head: &Arc<Head>, older: Option<&Head>, stamp: Stamp) {
        let Some(disk) = &self.disk else { return };
        let object = head.object();
        // One version, asked for by its id: a write to its object need not name it, so that nothing would say on disk that it ended.
        // Nor is what a fallback says the origin's word for a later process.
        if disk.is_announced(object) || head.is_of_version() || head.is_by_fallback() {
            return;
        }
        // It is nobody's answer, and would look like one.
        if head.is_sketch() {
            return;
        }
        if head.lacks() != 0 {
            let _ = self.head_gone(disk, object);
            return;
        }
        let confirmed_unix_ms = unix_ms_of(head.confirmed_ms());
        disk.confirmed(confirmed_unix_ms);
        let confirmed_unix_s = (confirmed_unix_ms / 1000) as u32;
        let known = self.world.shards[self.id].index.on_disk.head(object);
        let same = known.filter(|known| known.version == head.version() as u64);
        let same = same.filter(|known| known.frequency > 0 || !head.checksums_known());
        let same = same.filter(|_| older.is_some_and(|older| says_the_same(older, head)));
        if let Some(known) = same {
            if confirmed_unix_s < known.confirmed_unix_s.saturating_add(CONFIRM_S) {
                return;
            }
            self.partition
                .borrow_mut()
                .disk
                .confirm_head(object, confirmed_unix_s);
            let _ = disk.journal.append(&Fact::Confirmed {
                object,
                version: head.version(),
                confirmed_unix_ms,
            });
            return;
        }
        // Every fetch of a large object publishes its head.
        let queued = disk.queued_heads.borrow().get(&object).cloned();
        if queued.is_some_and(|queued| says_the_same(&queued, head)) {
            return;
        }
        // Another version, or other headers: what is on disk, or on its way, or in journals that are not read yet, is not the current one from now on,
        // whether or not the new one gets there.
        let _ = self.head_gone(disk, object);
        if !self.policy_of(head).disk {
            return;
        }
        let queued = Rc::clone(&disk.queued_heads);
        queued.borrow_mut().insert(object, Arc::clone(head));
        let item = Item::Head {
            head: Arc::clone(head) as Arc<dyn Described>,
            confirmed_unix_ms,
            token: HeadToken {
                stamp,
                head: Arc::clone(head),
                queued,
            },
        };
        self.keep(disk, name_of(object as u64), item);
    }

    /// Writes down that something is not true any more.
    fn record(&self, disk: &Disk, fact: &Fact<'_>) -> Mark {
        let appended = disk.journal.append(fact);
        if appended.is_none() {
            disk.lost.set(true);
            self.metrics().count(Counter::DiskUnrecorded);
        }
        appended.map_or(Mark::Lost, Mark::At)
    }

    /// Forgets the head that is on disk, and writes that down; gives what to flush.
    fn head_gone(&self, disk: &Disk, object: u128) -> Option<Mark> {
        let known = self.partition.borrow_mut().disk.remove_head(object);
        disk.queued_heads.borrow_mut().remove(&object);
        if disk.folding.get() {
            disk.invalid.borrow_mut().insert(object);
        }
        if !known && !disk.folding.get() {
            return None;
        }
        Some(self.record(disk, &Fact::Invalidated { object }))
    }

    /// Says that a write to an object begins: what is on disk of it is not to be used from now on, which is on disk itself when this returns.
    pub async fn announce(self: &Rc<Self>, object: u128) -> Option<Announced> {
        self.disk.as_ref()?;
        let owner = routing::head_owner(object, self.world.shards.len());
        let (ticket, ask) = self.asks.open();
        self.post(owner, Message::WriteBegins(object, ticket));
        ask.await;
        Some(Announced {
            shard: Rc::clone(self),
            object,
        })
    }

    pub(super) fn write_begins(&self, object: u128) -> Option<Mark> {
        let disk = self.disk.as_ref()?;
        *disk.announced.borrow_mut().entry(object).or_default() += 1;
        self.head_gone(disk, object)
    }

    pub(super) fn write_over(&self, object: u128) {
        let Some(disk) = &self.disk else { return };
        let mut announced = disk.announced.borrow_mut();
        let left = announced.get_mut(&object).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            announced.remove(&object);
            drop(announced);
            self.keep_what_was_left(object);
        }
    }

    /// A write that its origin has refused leaves a copy in RAM, where origins decide: it goes to disk again.
    fn keep_what_was_left(&self, object: u128) {
        let index = &self.world.shards[self.id].index;
        let key = |known: &u128| *known == object;
        let Some(head) = index.heads.get(object as u64, key, Arc::clone) else {
            return;
        };
        if self.policy_of(&head).freshness == Freshness::Origin {
            self.keep_head(&head, None, self.world.stamps.now(object));
        }
    }

    /// What is known of an object on disk is not to be used; gives what to flush before anybody is told.
    pub(super) fn forget_on_disk(&self, object: u128) -> Option<Mark> {
        let disk = self.disk.as_ref()?;
        self.head_gone(disk, object)
    }

    /// A version is not the current one any more: neither on disk, nor on its way there, nor in journals that are not read yet.
    pub(super) fn forget_version_on_disk(&self, object: u128, version: u128) {
        let Some(disk) = &self.disk else { return };
        let known = self.world.shards[self.id].index.on_disk.head(object);
        let on_disk = known.is_some_and(|known| known.version == version as u64);
        let queued = disk.queued_heads.borrow().get(&object).cloned();
        let on_its_way = queued.is_some_and(|queued| queued.version() == version);
        if on_disk || on_its_way || known.is_none() && disk.folding.get() {
            let _ = self.head_gone(disk, object);
        }
    }

    /// What is known of the objects whose keys a pattern covers is not to be used.
    pub(super) fn forget_prefix_on_disk(&self, prefix: &[u8]) -> Option<Mark> {
        let disk = self.disk.as_ref()?;
        // A clock that was set back must not make what is known younger than this.
        let unix_ms = clock::unix_ms().max(disk.confirmed_last_ms.get());
        let own = Prefix {
            prefix: prefix.into(),
            instance: u64::MAX,
            unix_ms,
        };
        own.note(&mut disk.prefixes.borrow_mut());
        Some(self.record(disk, &Fact::InvalidatedPrefix { prefix, unix_ms }))
    }

    /// Waits until an invalidation is on disk, as long as an operation may take; false if it is not.
    pub(super) async fn recorded(&self, mark: Option<Mark>) -> bool {
        let (Some(mark), Some(disk)) = (mark, &self.disk) else {
            return true;
        };
        let Mark::At(mark) = mark else { return false };
        let flushed = disk.journal.flush(mark, true).await;
        if let Err(error) = &flushed {
            self.disk_failed(DiskWork::Write, error);
            self.metrics().count(Counter::DiskUnrecorded);
        }
        flushed.is_ok()
    }

    /// What a fetch asks for, if it is on disk.
    pub(super) async fn from_disk(self: &Rc<Self>, fetch: &Fetch) -> Option<Ready> {
        self.disk.as_ref()?;
        let (head, opening) = match &fetch.expected {
            Some(expected) => {
                let head = self
                    .index_of(fetch.object, 0)
                    .head(fetch.object, &fetch.key)?;
                (
                    Some(head).filter(|head| head.version() == expected.version)?,
                    false,
                )
            }
            None => {
                let known = self.known_or_on_disk(fetch.object, &fetch.key, fetch.stamp);
                let head = known.await?;
                (
                    Some(head).filter(|head| self.answers_opening(fetch, head))?,
                    true,
                )
            }
        };
        let total = head.total();
        let bounds = match fetch.ranged.spec().map(|spec| spec.resolve(total)) {
            None | Some(Resolved::Full) => Some(0..total),
            Some(Resolved::Part(range)) => Some(range),
            Some(Resolved::Unsatisfiable) => None,
        };
        let body = fetch.template.method == Method::Get;
        let extent = bounds.filter(|_| body).and_then(|bounds| {
            let wanted = fetch.wanted.max(bounds.start);
            let index = (wanted / STRIPE_BYTES) as u32;
            let here = routing::owner_of(fetch.object, index, self.world.shards.len()) == self.id;
            if !here || wanted >= total {
                return None;
            }
            let id = StripeId {
                object: fetch.object,
                version: head.version(),
                index,
            };
            let end = bounds.end.min(id.base() + STRIPE_BYTES);
            let window = (wanted - id.base()) as u32..(end - id.base()) as u32;
            self.load(id, window, fetch.interest.clone())
        });
        if extent.is_none() && !opening {
            return None;
        }
        Some(Ready {
            head,
            extent,
            fill: None,
            came: Came::Disk,
        })
    }

    /// Begins to load the bytes of a stripe that are wanted, from the first on as far as they go; gives the extent that they come to.
    pub(super) fn load(
        self: &Rc<Self>,
        id: StripeId,
        Range { start: at, end }: Range<u32>,
        interest: Weak<()>,
    ) -> Option<Arc<Extent>> {
        let disk = self.disk.as_ref()?;
        let found = self.world.shards[self.id]
            .index
            .on_disk
            .extent_at(&id, at)?;
        if disk.door.rests() || at >= end {
            self.disk_failed(DiskWork::Read, &DiskError::Busy);
            return None;
        }
        let whole = found.window.len() <= WHOLE_BYTES;
        let window = match whole {
            true => found.window.clone(),
            false => frames_around(&found.window, at, end.min(found.window.end)),
        };
        let readers = Readers::of_disk(interest);
        readers.announce(id.base() + u64::from(window.start)..id.base() + u64::from(window.end));
        let bytes = window.len() as u64;
        let lease = self
            .partition
            .borrow_mut()
            .lease_for(id, window, at, &readers);
        let writer = match lease {
            Lease::Granted(writer) => writer,
            Lease::Have(extent) => return Some(extent),
            Lease::NoRoom => {
                self.metrics().count(Counter::RamAllocationFailures);
                return None;
            }
        };
        self.metrics().count(Counter::DiskLoads);
        let extent = Arc::clone(writer.extent());
        let loaded = Arc::clone(&extent);
        let wanted = Wanted {
            id,
            window: found.window,
            segment: found.spot.segment,
            offset: found.spot.offset(),
            record_bytes: found.spot.record_blocks * BLOCK_BYTES as u32,
            header_blocks: found.spot.header_blocks,
        };
        let shard = Rc::clone(self);
        spawn(async move {
            let Some(disk) = &shard.disk else { return };
            let wake = |to, extent: &Arc<Extent>| shard.wake_readers(to, extent);
            let result = load::extent(&disk.door, &wanted, writer, wake).await;
            readers.end(clock::now_ms());
            // Without a byte it is of no use to anybody.
            shard.partition.borrow_mut().settled(&loaded);
            let index = &mut shard.partition.borrow_mut().disk;
            match result {
                Ok(()) => {
                    shard.metrics().add(Counter::DiskLoadedBytes, bytes);
                    index.touch_extent(&id, found.spot);
                }
                Err(error) => {
                    shard.disk_failed(DiskWork::Read, &error);
                    if !matches!(error, DiskError::Busy | DiskError::Late) {
                        index.remove_extent(&id, found.spot);
                    }
                }
            }
        });
        Some(extent)
    }

    /// The head of an object: known by now, or on its owner's disk.
    pub async fn known_or_on_disk(
        self: &Rc<Self>,
        object: u128,
        key: &[u8],
        stamp: Stamp,
    ) -> Option<Arc<Head>> {
        let owner = routing::head_owner(object, self.world.shards.len());
        let index = &self.world.shards[owner].index;
        if let Some(head) = index.head(object, key) {
            return Some(head);
        }
        index.on_disk.head(object)?;
        if owner == self.id {
            return self.load_head(object, key, stamp).await;
        }
        let (ticket, ask) = self.asks.open();
        self.post(owner, Message::LoadHead(object, key.into(), stamp, ticket));
        match ask.await {
            Answer::Published(head) => head,
            Answer::Fetched(_) | Answer::Leased(_) | Answer::Upload(_) | Answer::Done => {
                panic!("a wish for a head is answered by a head")
            }
        }
    }

    /// Reads a head of this shard from its disk into the index.
    pub(super) async fn load_head(
        &self,
        object: u128,
        key: &[u8],
        stamp: Stamp,
    ) -> Option<Arc<Head>> {
        let disk = self.disk.as_ref()?;
        let own = &self.world.shards[self.id].index;
        let entry = own.on_disk.head(object)?;
        let segment = disk.door.segment(entry.spot.segment)?;
        let spot = entry.spot;
        let read = load::record(
            &disk.door,
            spot.segment,
            spot.offset(),
            spot.record_blocks,
            |record| {
                let same = record.kind == Kind::Head
                    && record.object == object
                    && record.version as u64 == entry.version
                    && record.key == key;
                if !same {
                    return Err(DiskError::Other);
                }
                Ok(head_of(record, u64::from(entry.confirmed_unix_s) * 1000))
            },
        );
        let head = match read.await {
            Ok(head) => head,
            Err(error) => {
                self.disk_failed(DiskWork::Read, &error);
                if !matches!(error, DiskError::Busy | DiskError::Late) {
                    self.partition
                        .borrow_mut()
                        .disk
                        .remove_head_at(object, spot);
                }
                return None;
            }
        };
        self.metrics().count(Counter::DiskHeadsLoaded);
        let confirmed_unix_ms = u64::from(entry.confirmed_unix_s) * 1000;
        let beaten = disk.is_beaten(segment.instance, confirmed_unix_ms, key);
        // Somebody may have changed it while it was read.
        let still = own.on_disk.head(object).is_some_and(|now| now.spot == spot);
        let held = self.holds.borrow_mut().covers(object, clock::now_ms());
        if beaten {
            self.partition
                .borrow_mut()
                .disk
                .remove_head_at(object, spot);
        }
        if beaten || !still || held {
            return None;
        }
        if let Some(known) = own.head(object, key) {
            return Some(known);
        }
        self.partition.borrow_mut().publish(head, stamp)
    }

    pub(super) fn copy_disk_gauges(&self) {
        let Some(disk) = &self.disk else { return };
        let metrics = self.metrics();
        let index = &self.partition.borrow().disk;
        metrics.gauge_set(Gauge::DiskHeads, index.heads() as u64);
        metrics.gauge_set(Gauge::DiskExtents, index.extents() as u64);
        metrics.gauge_set(Gauge::DiskIndexBytes, index.index().bytes());
        let queued_bytes = disk
            .writers
            .iter()
            .map(|writer| writer.queued_bytes())
            .sum();
        metrics.gauge_set(Gauge::DiskQueuedBytes, queued_bytes);
        metrics.gauge_set(Gauge::DiskFoldsRunning, u64::from(disk.folding.get()));
    }
}

/// A record's date, when its version was confirmed again since: an answer that was made as long before it came.
fn dated_at(dated: Dated, came_unix_ms: u64, confirmed_unix_ms: u64) -> Dated {
    let later_s = (confirmed_unix_ms / 1000).saturating_sub(came_unix_ms / 1000);
    match later_s {
        0 => dated,
        _ => Dated {
            date_unix_s: dated.date_unix_s.saturating_add(later_s),
            age_ms: dated.age_ms.max(AGE_SLACK_MS),
        },
    }
}

fn head_of(record: &Record<'_>, confirmed_unix_ms: u64) -> Head {
    let parts = HeadParts {
        key: record.key.into(),
        etag: record.etag.into(),
        total: record.total,
        lines: record.lines.into(),
        checksum_lines: record.checksum_lines.into(),
        checksums_known: record.checksums_known,
        confirmed_ms: monotonic_ms_of(confirmed_unix_ms),
        asked_ms: monotonic_ms_of(confirmed_unix_ms),
        dated: record
            .dated
            .map(|dated| dated_at(dated, record.confirmed_unix_ms, confirmed_unix_ms)),
        ..HeadParts::default()
    };
    Head::new(record.object, parts)
}

/// Asks for a journal when there is none, and writes facts that nobody waits for.
async fn journals(shard: Rc<Shard>) {
    let Some(disk) = &shard.disk else { return };
    loop {
        sleep_ms(JOURNAL_MS).await;
        if disk.journal.is_full() {
            disk.journal.end().await;
        }
        if !disk.journal.is_open() && !disk.journal_due.replace(true) {
            let _ = disk.asks.send(Ask::Journal(shard.id));
        }
        if disk.journal.is_open()
            && let Err(error) = disk.journal.flush(disk.journal.appended(), false).await
        {
            shard.disk_failed(DiskWork::Write, &error);
        }
    }
}

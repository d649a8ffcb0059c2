//! The real thing under test: partitions, an index each, fills under way, slow readers and peers that have not taken their bytes yet.
//!
//! Called by `model`, step by step. It plays the parts of `fill` (cutting a body into leases) and `request` (reading and sending) on one thread,
//! through the same public calls, and asks `reference` what must come out. Every broken promise is a panic.

#[path = "judge.rs"]
pub mod judge;
#[path = "readers.rs"]
mod readers;

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::Arc;

use millrace::cache::head::HeadParts;
use millrace::cache::partition::{Lease, Partition};
use millrace::cache::stamps::{Stamp, Stamps};
use millrace::cache::{Head, Index};
use millrace::fill::plan::{self, Window};
use millrace::ram::StripeId;
use millrace::ram::extent::{Extent, ExtentWriter};
use millrace::ram::progress::FillState;
use millrace::ram::readers::Readers;
use millrace::shard::routing;

use crate::objects::{Body, Wish, digest, key};
use crate::reference::{Reference, Version};
use judge::judge_head;
use readers::{Peer, Pin};

/// Sizes of a world.
#[derive(Debug, Clone)]
pub struct Sizes {
    pub shards: usize,
    pub ram_bytes: u64,
    pub heads_max: usize,
    pub huge_pages: bool,
}

/// How a fill ends before its last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Nobody wants the rest.
    Finish,
    /// The origin broke off.
    Fail,
    /// Its task was dropped.
    Forget,
}

/// A fetch and what has become of it.
struct Fill {
    fetch: u64,
    object: usize,
    wish: Wish,
    stamp: Stamp,
    checksums: bool,
    phase: Phase,
}

enum Phase {
    Asked,
    Answered(Version),
    Filling(Flow),
    Over,
}

/// A body on its way into extents.
struct Flow {
    object: usize,
    version: u128,
    body: Body,
    span: Range<u64>,
    at: u64,
    writer: Option<ExtentWriter>,
    following: Option<Lease>,
    readers: Arc<Readers>,
}

/// Bytes that were there when their fill ended: they stay until something is evicted.
struct Kept {
    id: StripeId,
    range: Range<u32>,
    evicted: u64,
}

/// Who asked to be woken at the next change of an extent.
struct Interest {
    extent: Arc<Extent>,
    shards: BTreeSet<usize>,
}

pub struct World {
    reference: Reference,
    partitions: Vec<Partition>,
    stamps: Arc<Stamps>,
    sizes: Sizes,
    fills: Vec<Fill>,
    pins: Vec<Pin>,
    peers: Vec<Peer>,
    kept: Vec<Kept>,
    interests: Vec<Interest>,
    fetches: u64,
    recent: VecDeque<(usize, Wish)>,
    listener: TcpListener,
}

impl World {
    pub fn new(sizes: Sizes) -> Self {
        let stamps = Arc::<Stamps>::default();
        let partition = |_| {
            let made = Partition::new(sizes.ram_bytes, sizes.heads_max, Arc::clone(&stamps));
            let mut partition = made.expect("memory");
            if sizes.huge_pages {
                partition.use_huge_pages();
            }
            partition
        };
        Self {
            reference: Reference::new(),
            partitions: (0..sizes.shards).map(partition).collect(),
            stamps,
            sizes,
            fills: Vec::new(),
            pins: Vec::new(),
            peers: Vec::new(),
            kept: Vec::new(),
            interests: Vec::new(),
            fetches: 0,
            recent: VecDeque::new(),
            listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
        }
    }

    fn owner(&self, id: &StripeId) -> usize {
        routing::owner_of(id.object, id.index, self.sizes.shards)
    }

    fn index(&self, id: &StripeId) -> &Index {
        self.partitions[self.owner(id)].index()
    }

    fn head_owner(&self, object: usize) -> usize {
        routing::head_owner(digest(object), self.sizes.shards)
    }

    // What the origin and the writers do.

    pub fn put(&mut self, object: usize, etag: u8, total: u64, through_us: bool) {
        self.reference.put(object, etag, total);
        if through_us {
            self.invalidate(object);
        }
    }

    pub fn invalidate(&mut self, object: usize) {
        self.reference.invalidate(object);
        let owner = self.head_owner(object);
        self.partitions[owner].invalidate(digest(object));
    }

    pub fn invalidate_bucket(&mut self, prefix: &[u8]) {
        self.reference.invalidate_bucket(prefix);
        for partition in &mut self.partitions {
            partition.invalidate_pattern(prefix);
        }
    }

    /// A fill with `If-Match` was refused.
    pub fn version_gone(&mut self, object: usize) {
        let Some(known) = self.reference.head(object) else {
            return;
        };
        let version = known.version.digest();
        if *self.reference.origin(object) == known.version {
            return;
        }
        self.reference.version_gone(object, version);
        let owner = self.head_owner(object);
        self.partitions[owner].drop_head_if(digest(object), |head| head.version() == version);
    }

    // What fills do.

    pub fn begin(&mut self, object: usize, wish: Wish, checksums: bool) {
        self.fetches += 1;
        self.recent.push_front((object, wish));
        self.recent.truncate(8);
        self.reference.begin(self.fetches, object);
        self.fills.push(Fill {
            fetch: self.fetches,
            object,
            wish,
            stamp: self.stamps.now(digest(object)),
            checksums,
            phase: Phase::Asked,
        });
    }

    /// A fetch that nothing interrupts.
    pub fn fetch(&mut self, object: usize, wish: Wish) {
        self.begin(object, wish, false);
        let fetch = self.fetches;
        while let Some(which) = self.fills.iter().position(|fill| fill.fetch == fetch) {
            self.advance(which, usize::MAX);
        }
    }

    /// Takes a fill a step further; while its body comes, by `bytes`.
    pub fn advance(&mut self, which: usize, bytes: usize) {
        if self.fills.is_empty() {
            return;
        }
        let which = which % self.fills.len();
        let mut fill = self.fills.swap_remove(which);
        fill.phase = match std::mem::replace(&mut fill.phase, Phase::Over) {
            Phase::Asked => Phase::Answered(self.reference.origin(fill.object).clone()),
            Phase::Answered(version) => self.publish(&fill, version),
            Phase::Filling(flow) => self.pour(flow, bytes),
            Phase::Over => Phase::Over,
        };
        if !matches!(fill.phase, Phase::Over) {
            self.fills.push(fill);
        }
    }

    fn publish(&mut self, fill: &Fill, version: Version) -> Phase {
        let object = fill.object;
        let head = Head::new(digest(object), head_parts(fill, &version));
        let owner = self.head_owner(object);
        let stored = self.partitions[owner].publish(head, fill.stamp);
        let must = self.reference.publish(fill.fetch, &version, fill.checksums);
        match (&stored, must) {
            (Some(head), Some(known)) => judge_head(object, head, known),
            (None, None) => return Phase::Over,
            (Some(_), None) => panic!("a fetch that began before an invalidation was stored"),
            (None, Some(_)) => panic!("a fetch that nothing beat was not stored"),
        }
        let span = fill.wish.within(version.total);
        Phase::Filling(Flow {
            object,
            version: version.digest(),
            body: self.reference.body(object, version.digest()),
            at: span.start,
            span,
            writer: None,
            following: None,
            readers: Arc::default(),
        })
    }

    fn lease(&mut self, flow: &Flow, window: &Window) -> Lease {
        let id = window.id(digest(flow.object), flow.version);
        let owner = self.owner(&id);
        let lease = self.partitions[owner].lease(id, window.range.clone(), &flow.readers);
        match &lease {
            Lease::Granted(writer) => {
                let found = self.index(&id).extent_at(&id, window.range.start);
                let found = found.expect("readers find an extent as soon as it is granted");
                assert!(Arc::ptr_eq(&found, writer.extent()));
                assert_eq!(writer.remaining() as usize, window.range.len());
            }
            Lease::Have(extent) => {
                assert_eq!(extent.id(), id);
                assert!(extent.start() <= window.range.start);
                assert!(window.range.start < extent.promised_end());
            }
            Lease::NoRoom => {}
        }
        lease
    }

    /// As `fill::stream`: leases the window, and the next one ahead, then writes.
    fn pour(&mut self, mut flow: Flow, mut bytes: usize) -> Phase {
        while bytes > 0 {
            let Some(window) = plan::first_window(&(flow.at..flow.span.end)) else {
                self.close(&mut flow, End::Finish);
                return Phase::Over;
            };
            if flow.writer.is_none() {
                let lease = match flow.following.take() {
                    Some(Lease::NoRoom) | None => self.lease(&flow, &window),
                    Some(lease) => lease,
                };
                match lease {
                    Lease::Granted(writer) => flow.writer = Some(writer),
                    Lease::Have(extent) => {
                        let upto = extent.promised_end().min(window.range.end);
                        flow.at += u64::from(upto.saturating_sub(window.range.start)).max(1);
                        continue;
                    }
                    Lease::NoRoom => {
                        self.close(&mut flow, End::Finish);
                        return Phase::Over;
                    }
                }
                let next = plan::first_window(&(window.absolute().end..flow.span.end));
                flow.following = next.map(|next| self.lease(&flow, &next));
            }
            bytes -= self.write(&mut flow, bytes);
        }
        Phase::Filling(flow)
    }

    /// Writes up to `most` bytes where there is room in one piece.
    fn write(&mut self, flow: &mut Flow, most: usize) -> usize {
        let writer = flow.writer.as_mut().expect("a lease");
        let room = writer.room();
        let bytes = room.len().min(most);
        flow.body.write(flow.at, &mut room[..bytes]);
        let mut woken = BTreeSet::new();
        writer.advance(bytes, |shard| assert!(woken.insert(shard)));
        flow.at += bytes as u64;
        let extent = Arc::clone(writer.extent());
        let full = writer.remaining() == 0;
        self.expect_woken(&extent, &woken);
        if full {
            self.settle(flow, End::Finish);
        }
        bytes
    }

    fn expect_woken(&mut self, extent: &Arc<Extent>, woken: &BTreeSet<usize>) {
        let place = self
            .interests
            .iter()
            .position(|interest| Arc::ptr_eq(&interest.extent, extent));
        let asked = place.map(|place| self.interests.swap_remove(place).shards);
        assert_eq!(*woken, asked.unwrap_or_default(), "who asked is woken once");
    }

    fn settle(&mut self, flow: &mut Flow, end: End) {
        let Some(writer) = flow.writer.take() else {
            return;
        };
        let extent = Arc::clone(writer.extent());
        let mut woken = BTreeSet::new();
        match end {
            End::Finish => writer.finish(|shard| assert!(woken.insert(shard))),
            End::Fail => writer.fail(|shard| assert!(woken.insert(shard))),
            End::Forget => drop(writer),
        }
        if end == End::Forget {
            // As when a task is dropped: nobody is told, and readers look again by themselves.
            self.interests
                .retain(|interest| !Arc::ptr_eq(&interest.extent, &extent));
        } else {
            self.expect_woken(&extent, &woken);
            let owner = self.owner(&extent.id());
            self.partitions[owner].settled(&extent);
        }
        let done = end == End::Finish;
        assert_eq!(extent.progress().state() == FillState::Done, done);
        let base = extent.id().base();
        let range = extent.start()..extent.promised_end();
        let wrote = flow.at - base;
        assert!(range.is_empty() || u64::from(range.end) == wrote);
        let owner = self.owner(&extent.id());
        self.kept.push(Kept {
            id: extent.id(),
            range,
            evicted: self.partitions[owner].tally().evicted,
        });
    }

    fn close(&mut self, flow: &mut Flow, end: End) {
        self.settle(flow, end);
        if let Some(Lease::Granted(writer)) = flow.following.take() {
            let extent = Arc::clone(writer.extent());
            let mut woken = BTreeSet::new();
            writer.fail(|shard| assert!(woken.insert(shard)));
            self.expect_woken(&extent, &woken);
            let owner = self.owner(&extent.id());
            self.partitions[owner].settled(&extent);
        }
        flow.readers.end(1);
    }

    pub fn end(&mut self, which: usize, end: End) {
        if self.fills.is_empty() {
            return;
        }
        let fill = self.fills.swap_remove(which % self.fills.len());
        if let Phase::Filling(mut flow) = fill.phase {
            self.close(&mut flow, end);
        }
    }

    pub fn collect(&mut self) {
        self.partitions.iter_mut().for_each(Partition::collect);
    }
}

impl Fill {
    fn flow(&self) -> Option<&Flow> {
        match &self.phase {
            Phase::Filling(flow) => Some(flow),
            Phase::Asked | Phase::Answered(_) | Phase::Over => None,
        }
    }
}

fn head_parts(fill: &Fill, version: &Version) -> HeadParts {
    let checksums = |yes: bool| match yes {
        true => [b"x-amz-checksum-of: ", &version.etag[..], b"\r\n"].concat(),
        false => Vec::new(),
    };
    HeadParts {
        key: key(fill.object).into(),
        etag: version.etag.clone().into(),
        total: version.total,
        lines: format!("x-fetch: {}\r\n", fill.fetch).into_bytes().into(),
        checksum_lines: checksums(fill.checksums).into(),
        checksums_known: fill.checksums,
        confirmed_ms: fill.fetch as i64,
        asked_ms: fill.fetch as i64,
        ..HeadParts::default()
    }
}

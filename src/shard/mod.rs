//! Row 5: one core's world. Its partition, its mailbox, its questions and flights, its way to the origins.
//!
//! Called by `request` and `listener` (which run on the shard as tasks) and made by `server`. A [`Shard`] lives on one thread; [`World`] is what all
//! threads share. What changes something that another shard owns travels as a message and, where it matters, is answered.

pub mod asks;
pub mod disk;
mod dispatch;
pub mod doors;
pub mod doubt;
pub mod mailbox;
pub mod message;
mod peers;
pub mod purge;
mod reclaim;
pub mod routing;
pub mod staging;
pub mod strides;
pub mod uploads;
pub mod waits;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use crossbeam::utils::CachePadded;

use crate::access_log::ShardLog;
use crate::base::clock::{Moment, Wall};
use crate::base::places::Places;
use crate::base::prng::Prng;
use crate::cache::forbidden::Forbidden;
use crate::cache::grants::Grants;
use crate::cache::holds::Holds;
use crate::cache::partition::{Partition, Tally};
use crate::cache::parts::{Part, PartId};
use crate::cache::sequences::Sequences;
use crate::cache::stamps::Stamps;
use crate::cache::{Head, Index};
use crate::config::{ObjectPolicy, Rules};
use crate::fill::{Fetch, FillConfig, Outcome};
use crate::http::{HTTP_DATE_BYTES, HeadLimits, http_date};
use crate::io::lend::Lender;
use crate::io::splice::Pipes;
use crate::io::watchdog::Watchdog;
use crate::metrics::{Counter, Registry, ShardMetrics};
use crate::s3::{Destinations, HostMap, ObjectDigest, ObjectKeyRef, OriginMap};
use crate::tls::TlsScratch;
use crate::upstream::{Origin, Upstream};

use asks::{Asks, Ticket};
use doors::Doors;
use doubt::Doubt;
use mailbox::Mailbox;
use message::{Accepted, Answer, Message};
use waits::Waits;

pub use dispatch::run;

/// Request bodies that one shard copies beside their stream at a time; beyond it a multi-delete drops its whole bucket, and a completed
/// upload is not kept.
const BODY_COPIES_MAX: usize = 32;

/// Pipes of 1 MiB that the tunnels of all shards may have; with those that send by reference this is what the kernel lets one user have
/// (`fs.pipe-user-pages-soft`), and what bounds the memory of peers that do not read. Further ones are small.
const LARGE_PIPES_MAX: usize = 48;

/// What the request path needs to know of the configuration; plain numbers, computed once.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Stripes that one client's stream may have in flight.
    pub fanout: u32,
    /// Gaps of one stripe are fetched at once if there is no more than this between them.
    pub join_bytes: u64,
    /// How often one answer may fetch what is missing again.
    pub attempts: u32,
    /// Bodies from this size on go out by reference once they are hot; `None`: never.
    pub by_reference_min: Option<usize>,
    /// Bounds of fills.
    pub fill: FillConfig,
    /// Bounds of request heads.
    pub head_limits: HeadLimits,
    /// Time for a whole head.
    pub head_timeout_ms: u64,
    /// Time between requests.
    pub idle_timeout_ms: u64,
    /// Time in which a client must take or give a byte.
    pub send_timeout_ms: u64,
    /// Connections that all shards together may have.
    pub connections_max: usize,
    /// Time between the parts of a multipart upload that is kept.
    pub write_idle_ms: u64,
    /// Bounds of tunnels.
    pub tunnels: TunnelPolicy,
}

/// Bounds of tunnels.
#[derive(Debug, Clone, Copy)]
pub struct TunnelPolicy {
    /// Time for a whole TLS hello.
    pub hello_timeout_ms: u64,
    /// Time in which a byte must move.
    pub idle_timeout_ms: u64,
    /// Tunnels that one shard may have.
    pub tunnels_max: usize,
}

/// Where requests lead: hosts to origins, and whom to dial.
pub struct Routes {
    /// Hosts that stand for a bucket.
    pub hosts: HostMap,
    /// Hosts to origins.
    pub map: OriginMap,
    /// The origin of single-origin mode.
    pub single: Option<Arc<Origin>>,
    /// Configured origins, by index.
    pub custom: Vec<Arc<Origin>>,
    /// Where tunnels may lead besides.
    pub destinations: Destinations,
}

/// One shard as the others see it.
pub struct ShardShared {
    /// What it knows, readable without a lock.
    pub index: Arc<Index>,
    /// The way to it.
    pub mailbox: Mailbox<Message>,
    /// Client connections it has.
    pub connections: CachePadded<AtomicUsize>,
    /// Moves while the shard lives.
    pub heartbeat: Arc<AtomicU64>,
    /// A progress message found the mailbox full: wake all readers. On its own line: the dispatcher writes it, and everybody's lookups
    /// read what is beside it.
    pub sweep: CachePadded<AtomicBool>,
    /// The dispatcher has begun.
    pub up: AtomicBool,
    /// The last lines of the log are on their way; the process may end.
    pub drained: AtomicBool,
}

/// What all threads share.
pub struct World {
    /// The shards in order.
    pub shards: Box<[ShardShared]>,
    /// Which fetches an invalidation beats.
    pub stamps: Arc<Stamps>,
    /// Requests that the origin has accepted, where that is remembered.
    pub grants: Grants,
    /// Room for uploads that nobody can read yet.
    pub share: Arc<staging::Share>,
    /// Objects that their origin has just forbidden to keep.
    pub forbidden: Forbidden,
    /// Counters.
    pub registry: Arc<Registry>,
    /// Numbers of the request path.
    pub policy: Policy,
    /// The rules at start; each shard hears of newer ones.
    pub rules: Arc<Rules>,
    /// Hosts to origins.
    pub routes: Routes,
    /// Who may come in.
    pub doors: Doors,
    /// What this process calls itself to those it asks.
    pub name: Box<str>,
    /// Stop taking requests.
    pub draining: AtomicBool,
    /// The same, but the doors are still open, or another process's: a client that is between two requests is told with its next answer.
    pub leaving: AtomicBool,
    /// When the origin must be asked all the same.
    pub doubt: Doubt,
}

/// A fetch whose response head has not been read yet, and who waits for it.
struct Flight {
    fetch: Fetch,
    waiters: RefCell<Vec<Ticket>>,
}

/// One shard, on its thread.
pub struct Shard {
    /// Its number.
    pub id: usize,
    /// What all share.
    pub world: Arc<World>,
    /// Deadlines of its sockets.
    pub watchdog: Rc<Watchdog>,
    /// Its way to origins.
    pub upstream: Rc<Upstream>,
    /// Its way to send by reference.
    pub lender: Rc<Lender>,
    /// Pipes of its tunnels.
    pub pipes: Rc<Pipes>,
    /// Places for its tunnels.
    pub tunnels: Rc<Places>,
    /// Its access log.
    pub log: RefCell<ShardLog>,
    /// Readers that wait for fills.
    pub waits: Waits,
    /// Where sessions with clients encrypt and decrypt.
    pub tls_scratch: Rc<TlsScratch>,
    /// TLS handshakes with clients under way.
    pub handshakes: Cell<usize>,
    /// For request ids.
    pub prng: Prng,
    /// Lines of the access log or not.
    pub logs: bool,
    /// Places for copies of request bodies that have to be understood (multi-deletes, lists of parts).
    pub copies: Rc<Places>,
    /// Buffers of uploads.
    pub strides: strides::Strides,
    rules: RefCell<Arc<Rules>>,
    wall: Cell<Wall>,
    /// The `Date` of a second since 1970.
    date: Cell<(i64, [u8; HTTP_DATE_BYTES])>,
    partition: RefCell<Partition>,
    holds: RefCell<Holds>,
    uploads: RefCell<uploads::Uploads>,
    /// Who reads in order, of those who are served here.
    pub sequences: RefCell<Sequences>,
    tally: Cell<Tally>,
    ghost_hits: Cell<u64>,
    disk: Option<disk::Disk>,
    asks: Rc<Asks<Answer>>,
    flights: RefCell<Vec<Rc<Flight>>>,
}

/// What `server` brings together for one shard.
pub struct ShardParts {
    /// Its number.
    pub id: usize,
    /// What all share.
    pub world: Arc<World>,
    /// Its partition.
    pub partition: Partition,
    /// Deadlines of its sockets.
    pub watchdog: Rc<Watchdog>,
    /// Its way to origins.
    pub upstream: Rc<Upstream>,
    /// Its access log.
    pub log: ShardLog,
    /// Whether the access log is on.
    pub logs: bool,
    /// Seed of its generator.
    pub seed: u64,
    /// Its disk, if there is a cache directory.
    pub disk: Option<disk::DiskParts>,
}

impl Shard {
    /// Puts a shard together.
    #[must_use]
    pub fn new(parts: ShardParts) -> Rc<Self> {
        let shards = parts.world.shards.len().min(LARGE_PIPES_MAX);
        let tunnels_max = parts.world.policy.tunnels.tunnels_max;
        let write_idle_ms = parts.world.policy.write_idle_ms;
        let uploads = RefCell::new(uploads::Uploads::new(write_idle_ms));
        Rc::new(Self {
            id: parts.id,
            rules: RefCell::new(Arc::clone(&parts.world.rules)),
            world: parts.world,
            watchdog: parts.watchdog,
            upstream: parts.upstream,
            lender: Rc::new(Lender::new()),
            pipes: Pipes::new(LARGE_PIPES_MAX / shards),
            tunnels: Places::new(tunnels_max),
            log: RefCell::new(parts.log),
            logs: parts.logs,
            copies: Places::new(BODY_COPIES_MAX),
            strides: strides::Strides::default(),
            waits: Waits::new(parts.id),
            tls_scratch: Rc::default(),
            handshakes: Cell::default(),
            prng: Prng::new(parts.seed),
            wall: Cell::new(Wall::read()),
            date: Cell::new((0, http_date(0))),
            partition: RefCell::new(parts.partition),
            holds: RefCell::default(),
            uploads,
            sequences: RefCell::default(),
            tally: Cell::new(Tally::default()),
            ghost_hits: Cell::new(0),
            disk: parts.disk.map(|disk| disk::Disk::new(parts.id, disk)),
            asks: Asks::new(parts.id as u16),
            flights: RefCell::new(Vec::new()),
        })
    }

    /// This shard's metrics.
    #[must_use]
    pub fn metrics(&self) -> &ShardMetrics {
        self.world.registry.shard(self.id)
    }

    /// Tunnels that it has, those that are being opened included.
    #[must_use]
    pub fn tunnels_taken(&self) -> usize {
        self.policy().tunnels.tunnels_max - self.tunnels.free()
    }

    /// Numbers of the request path.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.world.policy
    }

    /// How the object of a head is treated.
    #[must_use]
    pub fn policy_of(&self, head: &Head) -> ObjectPolicy {
        let policy = head.policy(&self.rules.borrow());
        match self.is_in_doubt(head) {
            false => policy,
            true => policy.asked(),
        }
    }

    /// Whether another process may know better than a head.
    #[must_use]
    #[inline]
    pub fn is_in_doubt(&self, head: &Head) -> bool {
        let doubt = &self.world.doubt;
        doubt.is_about(head.confirmed_ms(), || head.asked_ms())
    }

    /// How an object is treated.
    #[must_use]
    pub fn policy_at(&self, object: ObjectKeyRef<'_>) -> ObjectPolicy {
        let rules = self.rules.borrow();
        rules.resolve(object.origin_id(), object.bucket(), object.key())
    }

    /// The wall clock, read a moment ago.
    #[must_use]
    pub fn wall(&self) -> Wall {
        self.wall.get()
    }

    /// The `Date` of answers that are written at `at`; formatted once a second.
    #[must_use]
    pub fn date(&self, at: Moment) -> [u8; HTTP_DATE_BYTES] {
        let seconds = self.wall.get().unix_seconds(at);
        let (known, date) = self.date.get();
        if known == seconds {
            return date;
        }
        let date = http_date(seconds as u64);
        self.date.set((seconds, date));
        date
    }

    /// The index of the shard that owns a stripe.
    #[must_use]
    pub fn index_of(&self, object: u128, stripe: u32) -> &Index {
        &self.world.shards[routing::owner_of(object, stripe, self.world.shards.len())].index
    }

    /// Says that this object will be looked up.
    pub fn expect(&self, object: ObjectDigest) {
        self.world.stamps.prefetch(object.0);
        self.index_of(object.0, 0).expect(object.0);
    }

    /// What is known of a part of a head's version.
    #[must_use]
    pub fn part_of(&self, head: &Head, number: u32) -> Option<Arc<Part>> {
        let id = PartId {
            object: head.object(),
            version: head.version(),
            number,
        };
        let known = self.index_of(head.object(), 0).part(&id);
        let just_read = || head.part().filter(|part| part.number == number).cloned();
        known.or_else(just_read)
    }

    /// The owner of a fetch: of the stripe of its first byte, or of the head where that is not known.
    #[must_use]
    pub fn fetch_owner(&self, fetch: &Fetch) -> usize {
        if fetch.known.is_some() {
            // All who ask whether a version still holds meet at its head.
            return routing::head_owner(fetch.object, self.world.shards.len());
        }
        let start = fetch
            .ranged
            .spec()
            .and_then(|spec| spec.bounds())
            .map_or(0, |bounds| bounds.start);
        routing::owner_of(
            fetch.object,
            (start / crate::ram::STRIPE_BYTES) as u32,
            self.world.shards.len(),
        )
    }

    /// Asks for bytes or a head and waits for what becomes of it.
    pub async fn fetch(self: &Rc<Self>, fetch: Fetch) -> Outcome {
        let owner = self.fetch_owner(&fetch);
        let (ticket, ask) = self.asks.open();
        if owner == self.id {
            self.start_fetch(fetch, Some(ticket));
        } else {
            self.post(owner, Message::Fetch(Box::new(fetch), Some(ticket)));
        }
        match ask.await {
            Answer::Fetched(outcome) => outcome,
            Answer::Published(_) | Answer::Leased(_) | Answer::Upload(_) | Answer::Done => {
                panic!("a fetch is answered by an outcome")
            }
        }
    }

    /// Asks for bytes that will be wanted soon; nobody waits.
    pub fn fetch_ahead(self: &Rc<Self>, fetch: Fetch) {
        let owner = self.fetch_owner(&fetch);
        if owner == self.id {
            self.start_fetch(fetch, None);
        } else {
            self.post(owner, Message::Fetch(Box::new(fetch), None));
        }
    }

    /// Drops what is known of an object, on every shard's view, before this returns; nothing of it is stored for `hold_ms`.
    pub async fn invalidate(self: &Rc<Self>, object: u128, hold_ms: u64) {
        let owner = routing::head_owner(object, self.world.shards.len());
        if owner == self.id {
            let mark = self.drop_object(object, hold_ms);
            let _counted = self.recorded(mark).await;
            return;
        }
        let (ticket, ask) = self.asks.open();
        self.post(owner, Message::Invalidate(object, hold_ms, ticket));
        ask.await;
    }

    /// Drops every object whose encoded key begins with `bucket`, before this returns; nothing is stored for `hold_ms`.
    pub async fn invalidate_bucket(self: &Rc<Self>, bucket: Arc<[u8]>, hold_ms: u64) {
        for owner in 0..self.world.shards.len() {
            if owner == self.id {
                let mark = self.drop_bucket(&bucket, hold_ms);
                let _counted = self.recorded(mark).await;
                continue;
            }
            let (ticket, ask) = self.asks.open();
            self.post(
                owner,
                Message::InvalidateBucket(Arc::clone(&bucket), hold_ms, ticket),
            );
            ask.await;
        }
    }

    /// Sends a message; a full mailbox is tried again until it takes it.
    pub fn post(self: &Rc<Self>, to: usize, message: Message) {
        let Err(message) = self.world.shards[to].mailbox.push(message) else {
            return;
        };
        self.metrics().count(Counter::MailboxFull);
        let world = Arc::clone(&self.world);
        crate::io::spawn(async move {
            let mut message = message;
            while let Err(back) = world.shards[to].mailbox.push(message) {
                message = back;
                crate::io::sleep_ms(1).await;
            }
        });
    }
}

/// Gives a connection to a shard from another thread; `None` when it took it.
#[must_use]
pub fn hand_over(world: &World, to: usize, accepted: Accepted) -> Option<Accepted> {
    match world.shards[to].mailbox.push(Message::Connection(accepted)) {
        Ok(()) => None,
        Err(Message::Connection(accepted)) => Some(accepted),
        Err(_) => panic!("a mailbox gives back what it was given"),
    }
}

//! The shard's dispatcher: takes messages out of the mailbox and acts on each without ever waiting, and the once-a-while chores.
//!
//! Called by `server` on the shard's thread. What takes time becomes a task of its own.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::clock::{self, Wall};
use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::cache::stamps::Stamp;
use crate::fill::{self, Came, Fetch, Outcome, Ready};
use crate::io::watchdog::SWEEP_MS;
use crate::io::{sleep_ms, spawn};
use crate::metrics::{Counter, Gauge, Invalidation};
use crate::ram::StripeId;
use crate::ram::readers::Readers;

use super::asks::Ticket;
use super::disk::Mark;
use super::message::{Accepted, Answer, Message, SentAnswer};
use super::peers::ShardPeers;
use super::{Flight, Shard};

/// Messages handled before other tasks get a turn.
const BATCH: usize = 256;
/// How often gauges are copied to the metrics and the log is flushed.
const CHORES_MS: u64 = 200;
/// How often room is asked for again that was coming: a look at the index may last as long as its thread is without a core.
const LEASE_TRIES_MAX: usize = 20;
const LEASE_PAUSE_MS: u64 = 1;
/// How often, and how long apart, it is looked whether the tunnels that were cut have ended.
const TUNNEL_ENDS_LOOKS: usize = 100;
const TUNNEL_ENDS_LOOK_MS: u64 = 5;

/// Runs the shard until the process ends. `connect` serves one client connection; `drained` is polled when the shard is asked to stop.
pub async fn run(shard: Rc<Shard>, connect: impl Fn(Rc<Shard>, Accepted) + 'static) {
    spawn(sweeps(Rc::clone(&shard)));
    spawn(chores(Rc::clone(&shard)));
    shard.start_disk();
    let world = Arc::clone(&shard.world);
    let shared = &world.shards[shard.id];
    let waiter = match shared.mailbox.waiter() {
        Ok(waiter) => waiter,
        Err(error) => panic!("a shard cannot listen to its mailbox: {error}"),
    };
    shared.up.store(true, Ordering::Release);
    loop {
        for _ in 0..BATCH {
            let Some(message) = shared.mailbox.pop() else {
                break;
            };
            shard.metrics().count(Counter::MailboxMessages);
            shard.receive(message, &connect);
        }
        // Looked at first: a store would take the line from every shard that has it. A flag set after the look is seen by `wait`.
        if shared.sweep.load(Ordering::SeqCst) && shared.sweep.swap(false, Ordering::SeqCst) {
            shard.waits.wake_all();
        }
        if shared.mailbox.is_empty() {
            shared
                .mailbox
                .wait(&waiter, || shared.sweep.load(Ordering::SeqCst))
                .await;
        } else {
            shared.mailbox.breathe(&waiter).await;
        }
    }
}

async fn sweeps(shard: Rc<Shard>) {
    loop {
        sleep_ms(SWEEP_MS).await;
        let now_ms = clock::now_ms();
        shard.wall.set(Wall::read());
        shard.watchdog.sweep(now_ms);
        let world = &shard.world;
        if world.draining.load(Ordering::Relaxed) && !world.leaving.load(Ordering::Relaxed) {
            shard.watchdog.end_idling();
        }
        shard.world.shards[shard.id]
            .heartbeat
            .store(now_ms, Ordering::Relaxed);
    }
}

async fn chores(shard: Rc<Shard>) {
    loop {
        shard.copy_gauges();
        shard.forget_idle_uploads();
        shard.log.borrow_mut().flush();
        shard.sequences.borrow_mut().expire(clock::now_ms());
        sleep_ms(CHORES_MS).await;
    }
}

impl Shard {
    fn receive(self: &Rc<Self>, message: Message, connect: &impl Fn(Rc<Self>, Accepted)) {
        match message {
            Message::Connection(accepted) => connect(Rc::clone(self), accepted),
            Message::Fetch(fetch, ticket) => self.start_fetch(*fetch, ticket),
            Message::Publish(publication, ticket) => {
                let (head, stamp, of_known) = *publication;
                let published = match of_known {
                    true => self.confirm(head, stamp),
                    false => self.publish(head, stamp),
                };
                self.reply(ticket, SentAnswer::Published(published));
            }
            Message::Lease(id, window, readers, ticket) => {
                if let Some(lease) = self.try_lease(id, &window, &readers) {
                    return self.reply(ticket, SentAnswer::Leased(lease));
                }
                let shard = Rc::clone(self);
                spawn(async move {
                    let lease = shard.lease(id, window, &readers).await;
                    shard.reply(ticket, SentAnswer::Leased(lease));
                });
            }
            Message::Settled(extent) => self.settled(&extent),
            Message::Write(news) => self.hear_of_write(news),
            Message::Invalidate(object, hold_ms, ticket) => {
                let mark = self.drop_object(object, hold_ms);
                self.reply_when_recorded(mark, ticket);
            }
            Message::InvalidateBucket(bucket, hold_ms, ticket) => {
                let mark = self.drop_bucket(&bucket, hold_ms);
                self.reply_when_recorded(mark, ticket);
            }
            Message::Purge(order) => self.purge(*order),
            Message::VersionGone(object, version, ticket) => {
                self.drop_version(object, version);
                self.reply(ticket, SentAnswer::Done);
            }
            Message::LoadHead(object, key, stamp, ticket) => {
                let shard = Rc::clone(self);
                spawn(async move {
                    let head = shard.load_head(object, &key, stamp).await;
                    shard.reply(ticket, SentAnswer::Published(head));
                });
            }
            Message::WriteBegins(object, ticket) => {
                let mark = self.write_begins(object);
                self.reply_when_recorded(mark, ticket);
            }
            Message::WriteOver(object) => self.write_over(object),
            Message::Disk(news) => self.hear_of_disk(news),
            Message::Progress(name) => self.waits.wake(name),
            Message::Answer(ticket, answer) => self.take_answer(ticket, answer),
            Message::Resolved(host, addresses) => {
                let known = addresses.as_deref().ok_or(());
                self.upstream.on_resolved(&host, known);
            }
            Message::Rules(rules) => drop(self.rules.replace(rules)),
            Message::Drain => self.drain(),
        }
    }

    /// Cuts the tunnels that are left, and says when the last line of the log is written.
    fn drain(self: &Rc<Self>) {
        let shard = Rc::clone(self);
        spawn(async move {
            shard.watchdog.end_tunnels();
            for _ in 0..TUNNEL_ENDS_LOOKS {
                if shard.tunnels_taken() == 0 {
                    break;
                }
                sleep_ms(TUNNEL_ENDS_LOOK_MS).await;
            }
            shard.log.borrow_mut().flush();
            shard.upstream.close_idle();
            shard.world.shards[shard.id]
                .drained
                .store(true, Ordering::Release);
        });
    }

    fn reply_when_recorded(self: &Rc<Self>, mark: Option<Mark>, ticket: Ticket) {
        if mark.is_none() {
            return self.reply(ticket, SentAnswer::Done);
        }
        let shard = Rc::clone(self);
        spawn(async move {
            let _counted = shard.recorded(mark).await;
            shard.reply(ticket, SentAnswer::Done);
        });
    }

    /// The origin says that this version is not the current one any more.
    pub(super) fn drop_version(&self, object: u128, version: u128) {
        let current = |head: &Head| head.version() == version;
        self.partition.borrow_mut().drop_head_if(object, current);
        self.forget_version_on_disk(object, version);
    }

    /// Gives what is to be recorded before anybody hears of it.
    pub(super) fn drop_object(&self, object: u128, hold_ms: u64) -> Option<Mark> {
        self.partition.borrow_mut().invalidate(object);
        if hold_ms > 0 {
            self.holds
                .borrow_mut()
                .add(object, clock::now_ms() + hold_ms);
        }
        self.forget_on_disk(object)
    }

    pub(super) fn drop_bucket(&self, bucket: &[u8], hold_ms: u64) -> Option<Mark> {
        self.partition.borrow_mut().invalidate_pattern(bucket);
        if hold_ms > 0 {
            self.holds
                .borrow_mut()
                .add_everything(clock::now_ms() + hold_ms);
        }
        self.forget_prefix_on_disk(bucket)
    }

    fn is_held(&self, head: &Head) -> bool {
        let mut holds = self.holds.borrow_mut();
        holds.covers(head.object(), clock::now_ms())
    }

    /// Stores a newer head of the version that is known; see [`crate::cache::partition::Partition::confirm`].
    pub(super) fn confirm(&self, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        if self.is_held(&head) {
            return None;
        }
        let older = self.known(&head);
        let head = self.partition.borrow_mut().confirm(head, stamp)?;
        self.keep_if_current(&head, older.as_deref(), stamp);
        Some(head)
    }

    /// What is known of a head's object.
    fn known(&self, head: &Head) -> Option<Arc<Head>> {
        let index = &self.world.shards[self.id].index;
        index.head(head.object(), head.key())
    }

    fn keep_if_current(&self, head: &Arc<Head>, older: Option<&Head>, stamp: Stamp) {
        let index = &self.world.shards[self.id].index;
        let current = index.with_head(head.object(), head.key(), |known| Arc::ptr_eq(known, head));
        if current == Some(true) {
            self.keep_head(head, older, stamp);
        }
    }

    /// Stores a head, unless it was beaten by an invalidation or its object is held.
    pub(super) fn publish(self: &Rc<Self>, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        if self.is_held(&head) {
            return None;
        }
        let older = self.known(&head);
        let written = self.world.shards[self.id]
            .index
            .sketch(head.object(), head.key())
            .is_some_and(|sketch| sketch.version() == head.version());
        let head = self.partition.borrow_mut().publish(head, stamp)?;
        self.keep_if_current(&head, older.as_deref(), stamp);
        if written && !head.is_sketch() {
            self.written_is_known(&head);
        }
        Some(head)
    }

    /// Room for a window, waited for while it is coming.
    pub(super) async fn lease(
        &self,
        id: StripeId,
        window: Range<u32>,
        readers: &Arc<Readers>,
    ) -> Lease {
        for _ in 0..LEASE_TRIES_MAX {
            if let Some(lease) = self.try_lease(id, &window, readers) {
                return lease;
            }
            sleep_ms(LEASE_PAUSE_MS).await;
        }
        self.metrics().count(Counter::RamAllocationFailures);
        Lease::NoRoom
    }

    /// `None`: room is coming, and is to be asked for again.
    fn try_lease(
        &self,
        id: StripeId,
        window: &Range<u32>,
        readers: &Arc<Readers>,
    ) -> Option<Lease> {
        let mut partition = self.partition.borrow_mut();
        let lease = partition.lease(id, window.clone(), readers);
        match &lease {
            Lease::Granted(writer) => {
                self.metrics().count(Counter::RamAdmitted);
                self.metrics()
                    .add(Counter::RamAdmittedBytes, u64::from(writer.remaining()));
            }
            Lease::Have(_) => self.metrics().count(Counter::FillsCoalesced),
            Lease::NoRoom if partition.room_is_coming() => return None,
            Lease::NoRoom => self.metrics().count(Counter::RamAllocationFailures),
        }
        Some(lease)
    }

    /// Joins a flight that brings the same, or starts one.
    pub(super) fn start_fetch(self: &Rc<Self>, fetch: Fetch, ticket: Option<Ticket>) {
        if let Some(ready) = self.already_here(&fetch) {
            if let Some(ticket) = ticket {
                self.reply_outcome(ticket, ready);
            }
            return;
        }
        let known = self
            .flights
            .borrow()
            .iter()
            .find(|flight| flight.fetch.same_flight(&fetch))
            .cloned();
        if let Some(flight) = known.filter(|flight| {
            self.world
                .stamps
                .is_current(flight.fetch.object, flight.fetch.stamp)
        }) {
            if let Some(ticket) = ticket {
                self.metrics().count(Counter::FillsCoalesced);
                flight.waiters.borrow_mut().push(ticket);
            }
            return;
        }
        let flight = Rc::new(Flight {
            fetch: fetch.clone(),
            waiters: std::cell::RefCell::new(ticket.into_iter().collect()),
        });
        self.flights.borrow_mut().push(Rc::clone(&flight));
        let shard = Rc::clone(self);
        let peers = Rc::new(ShardPeers(Rc::clone(self)));
        spawn(async move {
            if let Some(ready) = shard.from_disk(&fetch).await {
                return shard.opened(&flight, Outcome::Ready(ready));
            }
            let fetch = shard.with_known(fetch);
            fill::open::run(peers, fetch, |outcome| shard.opened(&flight, outcome)).await;
        });
    }

    /// A version that is known by now, though it was not when the wish was made (it was on disk), need not be fetched again.
    fn with_known(&self, mut fetch: Fetch) -> Fetch {
        if fetch.expected.is_none() && fetch.known.is_none() {
            let known = self
                .index_of(fetch.object, 0)
                .head(fetch.object, &fetch.key);
            fetch.known = known.filter(|head| self.suffices(&fetch, head));
        }
        fetch
    }

    /// What was wanted came between the reader's look and its message.
    fn already_here(&self, fetch: &Fetch) -> Option<Outcome> {
        let head = self
            .index_of(fetch.object, 0)
            .head(fetch.object, &fetch.key)?;
        let index = (fetch.wanted / crate::ram::STRIPE_BYTES) as u32;
        let id = StripeId {
            object: fetch.object,
            version: head.version(),
            index,
        };
        let at = (fetch.wanted % crate::ram::STRIPE_BYTES) as u32;
        let extent = self.index_of(fetch.object, index).extent_at(&id, at);
        let usable = match &fetch.expected {
            Some(expected) => head.version() == expected.version && extent.is_some(),
            None => self.answers_opening(fetch, &head),
        };
        let fill = None;
        usable.then_some(Outcome::Ready(Ready {
            head,
            extent,
            fill,
            came: Came::Known,
        }))
    }

    /// Whether a head that was published meanwhile is what an opening fetch would have brought.
    pub(super) fn answers_opening(&self, fetch: &Fetch, head: &Head) -> bool {
        self.suffices(fetch, head)
            && head.is_fresh(clock::now_ms(), fetch.fresh_ms_of(head))
            && !self.is_in_doubt(head)
            && self.world.stamps.is_current(fetch.object, fetch.stamp)
    }

    /// Whether a head knows what an opening fetch is to bring: checksums, all headers but the overridden ones, where a part is.
    fn suffices(&self, fetch: &Fetch, head: &Head) -> bool {
        let wants_checksums = fetch.template.wants_checksums;
        if let Some(number) = fetch.ranged.part() {
            let part = self.part_of(head, number);
            if part.is_none_or(|part| wants_checksums && part.checksums.is_none()) {
                return false;
            }
        } else if wants_checksums && fetch.ranged.spec().is_none() && !head.checksums_known() {
            return false;
        }
        head.lacks() & !fetch.template.overridden == 0
    }

    fn opened(self: &Rc<Self>, flight: &Rc<Flight>, outcome: Outcome) {
        self.flights
            .borrow_mut()
            .retain(|known| !Rc::ptr_eq(known, flight));
        let waiters = flight.waiters.take();
        let Some((&leader, followers)) = waiters.split_first() else {
            return;
        };
        for &follower in followers {
            let shared = match &outcome {
                Outcome::Ready(ready) if flight.fetch.is_shared(ready) => {
                    Outcome::Ready(ready.clone())
                }
                // What the origin said was said to another signature, or for one request.
                Outcome::Ready(_) | Outcome::Relay(_) | Outcome::Alone => Outcome::Alone,
                Outcome::Busy => Outcome::Busy,
                Outcome::Failed(error) => Outcome::Failed(Arc::clone(error)),
            };
            self.reply_outcome(follower, shared);
        }
        self.reply_outcome(leader, outcome);
    }

    fn reply_outcome(self: &Rc<Self>, ticket: Ticket, outcome: Outcome) {
        if usize::from(ticket.shard) == self.id {
            drop(self.asks.answer(ticket, Answer::Fetched(outcome)));
            return;
        }
        let answer = match outcome {
            Outcome::Ready(ready) => SentAnswer::Ready(ready),
            Outcome::Relay(response) => match response.detach() {
                Ok(response) => SentAnswer::Relay(Box::new(response)),
                Err(_) => SentAnswer::Alone,
            },
            Outcome::Alone => SentAnswer::Alone,
            Outcome::Busy => SentAnswer::Busy,
            Outcome::Failed(error) => SentAnswer::Failed(error),
        };
        self.post(usize::from(ticket.shard), Message::Answer(ticket, answer));
    }

    pub(super) fn reply(self: &Rc<Self>, ticket: Ticket, answer: SentAnswer) {
        if usize::from(ticket.shard) == self.id {
            self.take_answer(ticket, answer);
        } else {
            self.post(usize::from(ticket.shard), Message::Answer(ticket, answer));
        }
    }

    fn take_answer(self: &Rc<Self>, ticket: Ticket, answer: SentAnswer) {
        let answer = match answer {
            SentAnswer::Ready(ready) => Answer::Fetched(Outcome::Ready(ready)),
            SentAnswer::Relay(response) => match self.upstream.attach(*response) {
                Ok(response) => Answer::Fetched(Outcome::Relay(Box::new(response))),
                Err(_) => Answer::Fetched(Outcome::Alone),
            },
            SentAnswer::Alone => Answer::Fetched(Outcome::Alone),
            SentAnswer::Busy => Answer::Fetched(Outcome::Busy),
            SentAnswer::Failed(error) => Answer::Fetched(Outcome::Failed(error)),
            SentAnswer::Published(head) => Answer::Published(head),
            SentAnswer::Leased(lease) => Answer::Leased(lease),
            SentAnswer::Upload(answer) => Answer::Upload(*answer),
            SentAnswer::Done => Answer::Done,
        };
        drop(self.asks.answer(ticket, answer));
    }

    fn copy_gauges(&self) {
        let mut partition = self.partition.borrow_mut();
        partition.collect();
        let (metrics, tally, before) = (self.metrics(), partition.tally(), self.tally.get());
        self.tally.set(tally);
        metrics.add(Counter::RamEvictions, tally.evicted - before.evicted);
        metrics.add(
            Counter::RamEvictedBytes,
            tally.evicted_bytes - before.evicted_bytes,
        );
        metrics.add(Counter::RamPunches, tally.punched - before.punched);
        let lost = tally.lost - before.lost;
        if lost > 0 {
            tracing::error!(
                shard = self.id,
                slots = lost,
                "the kernel did not punch slots: their RAM is lost until the restart"
            );
        }
        metrics.add(
            Counter::Invalidations(Invalidation::Write),
            tally.invalidated - before.invalidated,
        );
        let ghost_hits = partition.ghost_hits();
        metrics.add(
            Counter::RamGhostHits,
            ghost_hits - self.ghost_hits.replace(ghost_hits),
        );
        if self.id == 0 {
            metrics.gauge_set(Gauge::StagedBytes, self.world.share.used());
        }
        metrics.gauge_set(Gauge::IndexHeads, partition.heads() as u64);
        metrics.gauge_set(Gauge::IndexExtents, partition.extents() as u64);
        metrics.gauge_set(Gauge::RamUsedBytes, partition.used_bytes());
        drop(partition);
        self.copy_disk_gauges();
        let idle = self.upstream.connections_idle();
        metrics.gauge_set(Gauge::UpstreamConnectionsIdle, idle as u64);
        metrics.gauge_set(Gauge::TunnelsOpen, self.tunnels_taken() as u64);
        metrics.gauge_set(Gauge::TunnelPipes, self.pipes.used() as u64);
        metrics.gauge_set(
            Gauge::UpstreamConnectionsActive,
            self.upstream.connections().saturating_sub(idle) as u64,
        );
        metrics.gauge_set(
            Gauge::UpstreamAddressesResting,
            self.upstream.addresses_resting() as u64,
        );
        metrics.gauge_set(
            Gauge::MailboxDepth,
            self.world.shards[self.id].mailbox.len() as u64,
        );
    }
}

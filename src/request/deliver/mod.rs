//! The body of an answer from the cache: piece by piece, from whatever has it, in the cheapest way the kernel has for it.
//!
//! Called by `read`. RAM extents are pinned one at a time and sent from their owner's slots; bytes that a fill is bringing are followed as
//! they come; what nobody has is asked for from its owner, some stripes ahead where `Range` is not signed. When bytes cannot
//! be had any more after the head has gone out, the connection is cut: a body that is not whole never looks whole.

mod direct;
pub(super) mod gaps;

use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::cache::Head;
use crate::cache::stamps::Stamp;
use crate::config::ObjectPolicy;
use crate::fill::plan::{self, Window};
use crate::fill::template::{Ranged, Template};
use crate::fill::{Expected, Fetch, Outcome, Ready};
use crate::io::socket::Cork;
use crate::io::{Either, race, sleep_ms};
use crate::metrics::{Gauge, SendPath, Source};
use crate::ram::STRIPE_BYTES;
use crate::ram::extent::{Extent, Piece};
use crate::ram::progress::FillState;
use crate::ram::readers::{Readers, Reading};
use crate::s3::RangeSpec;
use crate::shard::Shard;

use super::client::{Client, Gone};
use super::report::Report;
use gaps::Joining;

/// Hits after which bytes go out by reference.
const HOT_FREQUENCY: u8 = 1;
/// Stripes asked for ahead at first; doubled each time the client has to wait, up to the configured fan-out.
const AHEAD_FIRST: u32 = 2;
/// Bodies up to this size leave in one call with their head.
pub(super) const ONE_CALL_BYTES: usize = 16 * 1024;
/// Bodies from this size on leave in whole packets.
pub(super) const CORK_BYTES: u64 = 64 * 1024;
/// What a reader of a fill sends before every other reader of it has got its first bytes too.
const FIRST_PIECE_BYTES: u32 = 64 * 1024;
/// A beginning up to this length waits until the rest is sure to come.
const ASSURED_BYTES: u64 = 256 * 1024;
/// How often a reader looks for bytes that a fill will bring later.
const LOOK_MS: u64 = 2;
/// Progress after which the count of attempts begins anew.
const GOOD_PIECE_BYTES: u64 = 256 * 1024;

/// Why a body was not delivered to its end.
pub enum Stopped {
    /// The client.
    Gone(Gone),
    /// Nothing was sent yet: another way can still be taken.
    NotBegun(Outcome),
    /// Nothing was sent yet, and the origin does not give the bytes.
    Nothing(&'static str),
    /// The bytes cannot be had: cut.
    Cut(&'static str),
}

impl From<Gone> for Stopped {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// What is to be delivered.
pub struct Delivery<'a> {
    /// This shard.
    pub shard: &'a Rc<Shard>,
    /// The client.
    pub client: &'a Client,
    /// The version.
    pub head: &'a Head,
    /// Absolute bytes.
    pub range: Range<u64>,
    /// The range as the client wrote it.
    pub spec: Option<RangeSpec>,
    /// Stamp of the lookup.
    pub stamp: Stamp,
    /// Makes what is needed to ask for missing bytes; not called while nothing is missing, since a hit allocates nothing.
    pub asking: &'a dyn Fn() -> Option<Asking>,
}

/// How to ask for missing bytes.
#[derive(Clone)]
pub struct Asking {
    /// Encoded key.
    pub key: Arc<[u8]>,
    /// The request to send.
    pub template: Arc<Template>,
    /// How the object is treated.
    pub policy: ObjectPolicy,
    /// Keeps fills going that were asked for on behalf of this answer.
    pub interest: Arc<()>,
}

/// How far a delivery is.
pub(super) struct Progressing<'d, 'a, L> {
    delivery: &'d Delivery<'a>,
    report: &'d mut Report,
    /// The response head, until it has been sent with the first bytes.
    unsent_head: &'d [u8],
    status: u16,
    at: u64,
    reading: Option<Reading>,
    /// The fill that this reader follows, while it brings more.
    fill: Option<Arc<Readers>>,
    asking: Option<Asking>,
    ahead: u32,
    ahead_until: u64,
    /// Where the gaps begin that were asked for ahead and have not been come to.
    asked: VecDeque<u64>,
    /// Fetches that may still be made for the byte at `tried_at`.
    attempts_left: u32,
    tried_at: u64,
    leaves: Pin<&'d mut L>,
    /// Only while nothing has to be waited for but the client.
    cork: Option<Cork<'a>>,
}

impl<'a> Delivery<'a> {
    /// Sends `head_bytes` and the body. `first` is the extent of the first byte if the caller has it already; `asking` is given if something
    /// is known to be missing.
    ///
    /// # Errors
    /// See [`Stopped`].
    pub async fn run<L: Future<Output = ()>>(
        &self,
        status: u16,
        head_bytes: &[u8],
        (first, asking): (Option<Ready>, Option<Asking>),
        leaves: Pin<&mut L>,
        report: &mut Report,
    ) -> Result<(), Stopped> {
        let (first, fill) = first.map_or((None, None), |ready| (ready.extent, ready.fill));
        Progressing {
            delivery: self,
            report,
            unsent_head: head_bytes,
            status,
            at: self.range.start,
            reading: fill.as_ref().map(Readers::join),
            fill,
            asking,
            ahead: AHEAD_FIRST.min(self.shard.policy().fanout),
            ahead_until: self.range.start,
            asked: VecDeque::new(),
            attempts_left: self.shard.policy().attempts,
            tried_at: u64::MAX,
            leaves,
            cork: None,
        }
        .run(first)
        .await
    }

    fn fetch(&self, ranged: Ranged, wanted: u64, asking: &Asking) -> Fetch {
        Fetch {
            wanted,
            ..Self::wish(self.head, self.stamp, ranged, asking)
        }
    }

    /// The wish for more of a version, from its first byte on.
    pub fn wish(head: &Head, stamp: Stamp, ranged: Ranged, asking: &Asking) -> Fetch {
        let expected = Expected {
            version: head.version(),
            etag: head.etag().into(),
        };
        Fetch {
            key: Arc::clone(&asking.key),
            object: head.object(),
            stamp,
            template: Arc::clone(&asking.template),
            ranged,
            expected: Some(expected),
            wanted: 0,
            client_whole: false,
            interest: Arc::downgrade(&asking.interest),
            policy: asking.policy,
            faithful: false,
            known: None,
            fresh_ms: 0,
            spare: false,
            probe: None,
        }
    }

    fn index_lookup(&self, window: &Window) -> Option<Arc<Extent>> {
        let id = window.id(self.head.object(), self.head.version());
        self.shard
            .index_of(self.head.object(), window.index)
            .extent_at(&id, window.range.start)
    }

    /// The wish for the gap at the start of `window`.
    fn gap(&self, window: &Window, asking: &Asking) -> Fetch {
        if asking.template.range_signed {
            let ranged = self.spec.map_or(Ranged::Whole, Ranged::AsSent);
            return self.fetch(ranged, window.absolute().start, asking);
        }
        let id = window.id(self.head.object(), self.head.version());
        let index = self.shard.index_of(self.head.object(), window.index);
        let page_bytes = asking.policy.page_bytes;
        let small = self.range.end - self.range.start < page_bytes;
        let joining = Joining {
            join_bytes: self.shard.policy().join_bytes,
            page_bytes: if small { page_bytes } else { 0 },
            total: self.head.total(),
        };
        let missing = gaps::to_ask(index, &id, window, joining);
        self.fetch(Ranged::bytes(&missing), window.absolute().start, asking)
    }
}

impl<L: Future<Output = ()>> Progressing<'_, '_, L> {
    async fn run(&mut self, mut first: Option<Arc<Extent>>) -> Result<(), Stopped> {
        self.assure().await?;
        while let Some(window) = plan::first_window(&(self.at..self.delivery.range.end)) {
            self.read_ahead();
            let known = first.take().filter(|extent| covers(extent, &window));
            let extent = match known.or_else(|| self.delivery.index_lookup(&window)) {
                Some(extent) => extent,
                None => match self.obtain(&window).await? {
                    Some(extent) => extent,
                    None => continue,
                },
            };
            let before = self.at;
            self.follow(&extent, &window).await?;
            if self.at > before && extent.progress().state() == FillState::Done {
                // Nothing broke off here: many small gaps are no failures.
                self.tried_at = u64::MAX;
            }
        }
        Ok(())
    }

    /// A short beginning is not sent before the origin has said that it still has the version that the rest is to come of: an answer that breaks
    /// off is worse than one that begins a round trip later.
    async fn assure(&mut self) -> Result<(), Stopped> {
        let Some(asking) = self.asking.clone() else {
            return Ok(());
        };
        let delivery = self.delivery;
        let start = delivery.range.start;
        let soon = delivery.range.end.min(start.saturating_add(ASSURED_BYTES));
        let mut at = start;
        while at < soon {
            let Some(window) = plan::first_window(&(at..delivery.range.end)) else {
                break;
            };
            let base = at - u64::from(window.range.start);
            let id = window.id(delivery.head.object(), delivery.head.version());
            let index = delivery
                .shard
                .index_of(delivery.head.object(), window.index);
            let found = index.extent_at(&id, window.range.start);
            let on_disk = || index.on_disk.extent_at(&id, window.range.start);
            match found {
                Some(extent) if extent.filled_end() > window.range.start => {
                    at = base + u64::from(extent.promised_end());
                }
                // What begins with a gap is not sent before its answer anyway.
                _ if at == start => return Ok(()),
                None if self.fill.as_ref().is_some_and(|fill| fill.brings(at)) => return Ok(()),
                // Looked at again, whether or not it has.
                Some(extent) => {
                    self.begins(&extent, &window).await?;
                }
                None => match on_disk() {
                    Some(extent) => at = base + u64::from(extent.window.end),
                    None => return self.confirm(&window, &asking).await,
                },
            }
        }
        Ok(())
    }

    /// Waits until the first byte of `window` has come; false if it does not.
    async fn begins(&mut self, extent: &Extent, window: &Window) -> Result<bool, Stopped> {
        while extent.filled_end() <= window.range.start {
            if extent.progress().state() != FillState::Filling {
                return Ok(false);
            }
            let nap = std::pin::pin!(sleep_ms(LOOK_MS));
            if let Either::Second(()) = race(nap, self.leaves.as_mut()).await {
                return Err(self.delivery.client.gone().into());
            }
        }
        Ok(true)
    }

    /// Asks for a gap, and waits until its first byte has come: a place that was taken for it is no promise of the origin.
    async fn confirm(&mut self, gap: &Window, asking: &Asking) -> Result<(), Stopped> {
        let delivery = self.delivery;
        let asked = std::pin::pin!(delivery.shard.fetch(delivery.gap(gap, asking)));
        let ready = match race(asked, self.leaves.as_mut()).await {
            Either::First(Outcome::Ready(ready)) => ready,
            Either::First(outcome) => return Err(Stopped::NotBegun(outcome)),
            Either::Second(()) => return Err(delivery.client.gone().into()),
        };
        if ready.head.version() != delivery.head.version() {
            return Err(Stopped::NotBegun(Outcome::Ready(ready)));
        }
        let found = ready.extent.filter(|extent| covers(extent, gap));
        let Some(extent) = found.or_else(|| delivery.index_lookup(gap)) else {
            return Ok(());
        };
        match self.begins(&extent, gap).await? {
            true => Ok(()),
            false => Err(Stopped::NotBegun(Outcome::Alone)),
        }
    }

    /// Asks for what will be missing soon, once anything was: the gaps of this stripe and of those after it.
    fn read_ahead(&mut self) {
        let delivery = self.delivery;
        let Some(asking) = &self.asking else { return };
        if asking.template.range_signed || self.ahead <= 1 {
            return;
        }
        let horizon =
            plan::stripe_end(self.at).saturating_add(u64::from(self.ahead - 1) * STRIPE_BYTES);
        while self.asked.front().is_some_and(|start| *start <= self.at) {
            self.asked.pop_front();
        }
        // What a fill is going to bring is not fetched twice.
        let coming = self.fill.as_ref().map_or(0, |fill| fill.coming_until());
        let mut from = self.ahead_until.max(self.at).max(coming);
        let end = horizon.min(delivery.range.end);
        while self.asked.len() + 1 < self.ahead as usize
            && let Some(window) = plan::first_window(&(from..end.max(from)))
        {
            let start = from;
            if let Some(extent) = delivery.index_lookup(&window) {
                from = extent.id().base() + u64::from(extent.promised_end().min(window.range.end));
                continue;
            }
            let fetch = delivery.gap(&window, asking);
            let asked_for = fetch.ranged.spec().and_then(RangeSpec::bounds);
            from = asked_for.map_or(window.absolute().end, |bounds| bounds.end);
            // What is wanted now is asked for by who waits for it.
            if start > self.at {
                self.asked.push_back(start);
                delivery.shard.fetch_ahead(fetch);
            }
        }
        self.ahead_until = from;
    }

    /// Gets hold of bytes that the index does not have; `None` if it could only be done by sending them past the cache.
    async fn obtain(&mut self, window: &Window) -> Result<Option<Arc<Extent>>, Stopped> {
        self.cork = None;
        if let Some(extent) = self.coming(window).await? {
            return Ok(Some(extent));
        }
        // A fill that does not bring this byte any more must not wait for this reader.
        self.reading = None;
        loop {
            self.count_attempt()?;
            let asking = self.asking()?;
            let fetch = self.delivery.gap(window, &asking);
            let asked = std::pin::pin!(self.delivery.shard.fetch(fetch));
            let outcome = match race(asked, self.leaves.as_mut()).await {
                Either::First(outcome) => outcome,
                Either::Second(()) => return Err(self.delivery.client.gone().into()),
            };
            match outcome {
                Outcome::Ready(ready) if ready.head.version() == self.delivery.head.version() => {
                    if let Some(extent) = self.ready(ready, window).await? {
                        return Ok(Some(extent));
                    }
                }
                outcome if !self.unsent_head.is_empty() => return Err(Stopped::NotBegun(outcome)),
                // No room, or nothing that may be kept: the version may still be had, by this reader alone.
                Outcome::Busy | Outcome::Relay(_) | Outcome::Alone => {
                    self.past_the_cache(window).await?;
                    return Ok(None);
                }
                Outcome::Failed(_) => {}
                Outcome::Ready(_) => return Err(Stopped::Cut("the origin has another version")),
            }
        }
    }

    fn asking(&mut self) -> Result<Asking, Stopped> {
        if self.asking.is_none() {
            self.asking = (self.delivery.asking)();
        }
        self.asking
            .clone()
            .ok_or(Stopped::Cut("the host leads to no origin"))
    }

    /// The rest may be asked for a few times at one place; a good piece further on counts anew.
    fn count_attempt(&mut self) -> Result<(), Stopped> {
        if self.tried_at == u64::MAX || self.at >= self.tried_at.saturating_add(GOOD_PIECE_BYTES) {
            self.tried_at = self.at;
            self.attempts_left = self.delivery.shard.policy().attempts;
        }
        if self.attempts_left > 0 {
            self.attempts_left -= 1;
            return Ok(());
        }
        Err(if self.unsent_head.is_empty() {
            Stopped::Cut("the rest could not be fetched")
        } else {
            Stopped::Nothing("the origin answered and sent no body")
        })
    }

    /// The extent of `window`'s first byte, now or as soon as the fill comes to it; `None` if the fill ended without it.
    async fn ready(
        &mut self,
        ready: Ready,
        window: &Window,
    ) -> Result<Option<Arc<Extent>>, Stopped> {
        if let Some(extent) = ready.extent.filter(|extent| covers(extent, window)) {
            return Ok(Some(extent));
        }
        let Some(fill) = ready.fill else {
            return Ok(self.delivery.index_lookup(window));
        };
        let reading = fill.join();
        reading.advance(self.at);
        self.reading = Some(reading);
        self.fill = Some(fill);
        self.coming(window).await
    }

    /// Waits for the fill that this reader follows to come to `window`'s first byte; `None` if it does not go that far, or ended.
    async fn coming(&mut self, window: &Window) -> Result<Option<Arc<Extent>>, Stopped> {
        let Some(fill) = self.fill.clone() else {
            return Ok(None);
        };
        loop {
            let coming = fill.brings(self.at);
            if let Some(extent) = self.delivery.index_lookup(window) {
                return Ok(Some(extent));
            }
            if !coming {
                self.fill = None;
                return Ok(None);
            }
            let nap = std::pin::pin!(sleep_ms(LOOK_MS));
            if let Either::Second(()) = race(nap, self.leaves.as_mut()).await {
                return Err(self.delivery.client.gone().into());
            }
        }
    }

    /// Sends what `extent` has of `window`, and what it gets while it is being filled.
    async fn follow(&mut self, extent: &Arc<Extent>, window: &Window) -> Result<(), Stopped> {
        let base = extent.id().base();
        let was_filling = extent.progress().state() == FillState::Filling;
        if was_filling {
            self.join(extent);
        }
        extent.touch();
        let metrics = self.delivery.shard.metrics();
        metrics.gauge_add(Gauge::RamLeases, 1);
        let result = self
            .follow_inner(extent, base, window.range.end, was_filling)
            .await;
        metrics.gauge_add(Gauge::RamLeases, -1);
        result
    }

    async fn follow_inner(
        &mut self,
        extent: &Arc<Extent>,
        base: u64,
        end: u32,
        was_filling: bool,
    ) -> Result<(), Stopped> {
        loop {
            let position = (self.at - base) as u32;
            if position >= end {
                return Ok(());
            }
            let progress = extent.progress();
            let state = progress.state();
            let filled = progress.filled();
            let first = was_filling && !self.unsent_head.is_empty();
            let upto = match first {
                true => end.min(position.saturating_add(FIRST_PIECE_BYTES)),
                false => end,
            };
            if let Some(piece) = extent.piece(position, upto) {
                self.send(extent, piece, was_filling).await?;
                if first {
                    self.delivery.client.writable().await?;
                }
                continue;
            }
            if state != FillState::Filling {
                return Ok(());
            }
            self.wait(extent, filled).await?;
        }
    }

    fn join(&mut self, extent: &Arc<Extent>) {
        if self
            .reading
            .as_ref()
            .is_some_and(|reading| reading.is_of(extent.readers()))
        {
            return;
        }
        let reading = extent.readers().join();
        reading.advance(self.at);
        self.reading = Some(reading);
        self.fill = Some(Arc::clone(extent.readers()));
    }

    async fn wait(&mut self, extent: &Arc<Extent>, filled: u32) -> Result<(), Stopped> {
        let shard = self.delivery.shard;
        self.cork = None;
        self.ahead = (self.ahead * 2).min(shard.policy().fanout.max(1));
        self.read_ahead();
        shard.metrics().gauge_add(Gauge::FillWaiters, 1);
        let changed = std::pin::pin!(shard.waits.changed(extent, filled));
        let first = race(changed, self.leaves.as_mut()).await;
        shard.metrics().gauge_add(Gauge::FillWaiters, -1);
        match first {
            Either::First(()) => Ok(()),
            Either::Second(()) => Err(self.delivery.client.gone().into()),
        }
    }

    async fn send(
        &mut self,
        extent: &Extent,
        piece: Piece<'_>,
        was_filling: bool,
    ) -> Result<(), Stopped> {
        let (shard, client) = (self.delivery.shard, self.delivery.client);
        let head = std::mem::take(&mut self.unsent_head);
        if !head.is_empty() {
            self.report.head_sent(self.status);
        }
        let lent = by_reference(shard, extent, piece);
        let source = match (was_filling, extent.readers().from_disk()) {
            (true, true) => Source::Disk,
            (true, false) => Source::Fill,
            (false, _) => Source::Ram,
        };
        let bytes = piece.bytes();
        let after = self.at + bytes.len() as u64;
        let more = after < self.delivery.range.end;
        let more = more && !was_filling;
        if !was_filling && self.cork.is_none() && self.delivery.range.end - self.at >= CORK_BYTES {
            self.cork = Some(client.socket.cork());
        }
        let path = send_piece(client, head, piece, lent, more).await?;
        self.at = after;
        extent.readers().advance(after);
        if let Some(reading) = &self.reading {
            reading.advance(after);
        }
        self.report
            .sent(shard, source, Some(path), bytes.len() as u64);
        Ok(())
    }
}

/// Whether a piece of a settled extent is worth sending by reference: large, and read before.
pub(super) fn by_reference(shard: &Shard, extent: &Extent, piece: Piece<'_>) -> bool {
    let least = shard.policy().by_reference_min.unwrap_or(usize::MAX);
    extent.frequency() >= HOT_FREQUENCY
        && piece.may_be_lent()
        && piece.bytes().len() >= least.max(ONE_CALL_BYTES)
}

/// Sends one piece, by reference if it is `lent`, behind `head`.
pub(super) async fn send_piece(
    client: &Client,
    head: &[u8],
    piece: Piece<'_>,
    lent: bool,
    more: bool,
) -> Result<SendPath, Gone> {
    let bytes = piece.bytes();
    if !lent || client.is_tls() {
        client.send(head, bytes, more).await?;
        return Ok(SendPath::Copy);
    }
    client.send(head, &[], true).await?;
    client.send_by_reference(piece.lend()).await?;
    Ok(SendPath::Reference)
}

/// Whether the first byte of `window` is in an extent, now or later.
fn covers(extent: &Extent, window: &Window) -> bool {
    extent.id().index == window.index
        && extent.start() <= window.range.start
        && window.range.start < extent.promised_end()
}

/// How much of a range is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    /// Every byte, and none of it waits for a fill.
    Whole,
    /// Every byte is there or on its way.
    OnItsWay,
    /// Some.
    Partial,
    /// Nothing.
    None,
}

/// How much of `range` of a version the index has.
#[must_use]
pub fn coverage(shard: &Shard, head: &Head, range: &Range<u64>) -> Coverage {
    let (mut missing, mut present, mut filling) = (false, false, false);
    for window in plan::windows(range.clone()) {
        let id = window.id(head.object(), head.version());
        let reach = shard.index_of(head.object(), window.index).reach_with_disk(
            &id,
            window.range.start,
            window.range.end,
        );
        missing |= reach.end < window.range.end;
        present |= reach.any;
        filling |= reach.filling;
    }
    match (missing, present, filling) {
        (false, _, false) => Coverage::Whole,
        (false, _, true) => Coverage::OnItsWay,
        (true, true, _) => Coverage::Partial,
        (true, false, _) => Coverage::None,
    }
}

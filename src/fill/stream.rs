//! The body of a fill: from the origin straight into slots, stripe by stripe, with readers alongside.
//!
//! Called by `open` when the first room is there. Never further ahead of the fastest reader than the window; goes on without readers when the
//! stripe is nearly whole, else stops and keeps the prefix; a body that breaks off marks its extent as failed, and what was
//! published before stays good.

use std::ops::Range;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::partition::Lease;
use crate::io::{breathe, sleep_ms};
use crate::metrics::{Counter, FillEnd, Histogram, UpstreamKind};
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::readers::Readers;
use crate::upstream::{Response, UpstreamError};

use super::Peers;
use super::plan::{self, Window};

/// How long a fill goes on without a reader before it asks whether to go on: a reader needs a moment to arrive.
const GRACE_MS: u64 = 250;
/// The rest of a stripe that is always worth finishing.
const SMALL_REST_BYTES: u64 = 256 * 1024;
/// Bytes received between two turns of the other tasks. With several fills at once, and many readers, this is what a reader waits for.
const BREATH_BYTES: u64 = 1024 * 1024;
/// In the middle of a body, a receive that took all there was, and so much of it, is followed by a pause: each receive wakes the readers,
/// each of their sends a client, and an origin hardly slower than we are would have it done for every few records of TLS.
const GATHER_BYTES_MIN: usize = 16 * 1024;
const GATHER_MS: u64 = 1;
/// What of a body is neither its beginning nor its end: these go on at once.
const STEADY_BYTES: u64 = 1024 * 1024;
/// How often a fill that stands still looks again.
const PAUSE_MS: u64 = 2;

/// What a body is and who reads it.
pub struct Flow {
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of the version.
    pub version: u128,
    /// Absolute bytes that the body brings, not empty.
    pub span: Range<u64>,
    /// The readers of all extents of this fill.
    pub readers: Arc<Readers>,
    /// When the fetch began.
    pub started_ns: u64,
    /// A rest that is always worth finishing.
    pub rest_bytes: u64,
}

impl Flow {
    /// What of a span is always worth finishing: all of it, if it is a page or two that a small range was widened to.
    #[must_use]
    pub fn rest_bytes_of(span: &Range<u64>, page_bytes: u64) -> u64 {
        let bytes = span.end - span.start;
        match bytes <= 2 * page_bytes {
            true => bytes.max(SMALL_REST_BYTES),
            false => SMALL_REST_BYTES,
        }
    }
}

/// Tells the readers of a fill that it is over, however it ends.
struct EndGuard(Arc<Readers>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(clock::now_ms());
    }
}

enum Stop {
    /// Nobody needs the rest.
    Abandoned,
    /// The origin broke off.
    Broken(UpstreamError),
    /// No room for the next stripe.
    NoRoom,
}

/// Streams the body to its end. `first` is the lease of the span's first window.
pub(super) async fn stream<P: Peers>(
    peers: &P,
    response: Response,
    flow: Flow,
    first: Lease,
) -> FillEnd {
    let _end = EndGuard(Arc::clone(&flow.readers));
    let mut fill = Filler {
        peers,
        response,
        reader_seen_ms: clock::now_ms(),
        started_ns: flow.started_ns,
        at: flow.span.start,
        received: 0,
        // The first bytes go on at once.
        since_breath: BREATH_BYTES,
    };
    match fill.windows(&flow, first).await {
        Ok(()) => {
            fill.response.finish();
            FillEnd::Completed
        }
        Err(stop) => {
            if let Stop::Broken(error) = &stop {
                tracing::debug!(%error, at = fill.at, "a fill broke off");
            }
            match (stop, fill.received) {
                (_, 1..) => FillEnd::Salvaged,
                (Stop::Abandoned | Stop::NoRoom, 0) => FillEnd::Aborted,
                (Stop::Broken(_), 0) => FillEnd::Failed,
            }
        }
    }
}

struct Filler<'p, P: Peers> {
    peers: &'p P,
    response: Response,
    /// When a reader was last seen.
    reader_seen_ms: u64,
    started_ns: u64,
    /// Absolute offset of the next byte.
    at: u64,
    received: u64,
    since_breath: u64,
}

impl<P: Peers> Filler<'_, P> {
    async fn windows(&mut self, flow: &Flow, first: Lease) -> Result<(), Stop> {
        let mut next = Some(first);
        while let Some(window) = plan::first_window(&(self.at..flow.span.end)) {
            let lease = match next.take() {
                Some(Lease::NoRoom) | None => self.lease(flow, &window).await?,
                Some(lease) => lease,
            };
            match lease {
                Lease::Granted(writer) => next = self.write(flow, &window, writer).await?,
                Lease::Have(extent) => self.skip(flow, &extent, &window).await?,
                Lease::NoRoom => return Err(Stop::NoRoom),
            }
        }
        Ok(())
    }

    async fn lease(&mut self, flow: &Flow, window: &Window) -> Result<Lease, Stop> {
        let id = window.id(flow.object, flow.version);
        let until_ms = clock::now_ms() + self.peers.fill_config().room_wait_ms;
        loop {
            match self
                .peers
                .lease(id, window.range.clone(), Arc::clone(&flow.readers))
                .await
            {
                Lease::NoRoom => {}
                lease => return Ok(lease),
            }
            self.note_readers(flow);
            if clock::now_ms() > until_ms || self.nobody() {
                return Err(Stop::NoRoom);
            }
            sleep_ms(PAUSE_MS).await;
        }
    }

    /// Bytes that somebody else has already: taken from the origin and let go.
    async fn skip(
        &mut self,
        flow: &Flow,
        extent: &Arc<Extent>,
        window: &Window,
    ) -> Result<(), Stop> {
        let upto = extent.promised_end().min(window.range.end);
        let mut left = u64::from(upto.saturating_sub(window.range.start)).max(1);
        let mut sink = vec![0u8; 64 * 1024];
        while left > 0 {
            self.pace(flow, false).await?;
            let room = left.min(sink.len() as u64) as usize;
            let received = self
                .response
                .read(&mut sink[..room])
                .await
                .map_err(Stop::Broken)?;
            if received == 0 {
                return Ok(());
            }
            left -= received as u64;
            self.moved(flow, received as u64).await;
        }
        Ok(())
    }

    /// The fill has come so much further. Other tasks of the shard get a turn now and then: an origin may be faster than we are.
    async fn moved(&mut self, flow: &Flow, bytes: u64) {
        self.at += bytes;
        flow.readers.pass(self.at);
        self.since_breath += bytes;
        if self.since_breath >= BREATH_BYTES {
            self.since_breath = 0;
            breathe().await;
        }
    }

    /// Fills one window; gives the lease of the following one, asked for ahead so that readers find it when they come to the boundary.
    async fn write(
        &mut self,
        flow: &Flow,
        window: &Window,
        mut writer: ExtentWriter,
    ) -> Result<Option<Lease>, Stop> {
        let rest = window.absolute().end..flow.span.end;
        let mut following = None;
        if let Some(next) = plan::first_window(&rest) {
            let id = next.id(flow.object, flow.version);
            following = Some(
                self.peers
                    .lease(id, next.range, Arc::clone(&flow.readers))
                    .await,
            );
        }
        let result = self.receive(flow, &mut writer).await;
        let extent = Arc::clone(writer.extent());
        match &result {
            Ok(()) | Err(Stop::Abandoned) => writer.finish(|shard| self.peers.wake(shard, &extent)),
            Err(Stop::Broken(_) | Stop::NoRoom) => {
                writer.fail(|shard| self.peers.wake(shard, &extent))
            }
        }
        self.peers.settled(extent);
        if let Err(stop) = result {
            if let Some(Lease::Granted(writer)) = following {
                abandon(self.peers, writer);
            }
            return Err(stop);
        }
        Ok(following)
    }

    async fn receive(&mut self, flow: &Flow, writer: &mut ExtentWriter) -> Result<(), Stop> {
        while writer.remaining() > 0 {
            let percent = self.peers.fill_config().finish_percent;
            let worth = worth_finishing(writer, percent, flow.rest_bytes);
            self.pace(flow, worth).await?;
            let room_bytes = writer.room().len();
            let received = self
                .response
                .read(writer.room())
                .await
                .map_err(Stop::Broken)?;
            if received == 0 {
                // The length was checked against the span before the first byte was kept, so this is a broken promise.
                let (address, expected) = (
                    self.response.address(),
                    Some(self.received + u64::from(writer.remaining())),
                );
                return Err(Stop::Broken(UpstreamError::ShortBody {
                    address,
                    received: self.received,
                    expected,
                }));
            }
            if self.received == 0 {
                self.peers
                    .metrics()
                    .observe(Histogram::FillFirstByte, clock::now_ns() - self.started_ns);
            }
            self.received += received as u64;
            let extent = Arc::clone(writer.extent());
            writer.advance(received, |shard| self.peers.wake(shard, &extent));
            self.peers
                .metrics()
                .add(Counter::FillBytes, received as u64);
            self.peers.metrics().add(
                Counter::UpstreamReceivedBytes(UpstreamKind::Fill),
                received as u64,
            );
            self.moved(flow, received as u64).await;
            if received < room_bytes && received >= GATHER_BYTES_MIN && self.is_steady(flow) {
                sleep_ms(GATHER_MS).await;
            }
        }
        Ok(())
    }

    /// Neither at the beginning of a body nor near its end.
    fn is_steady(&self, flow: &Flow) -> bool {
        self.received >= STEADY_BYTES && flow.span.end - self.at >= STEADY_BYTES
    }

    fn note_readers(&mut self, flow: &Flow) {
        if flow.readers.wanted() {
            self.reader_seen_ms = clock::now_ms();
        }
    }

    fn nobody(&self) -> bool {
        clock::now_ms() > self.reader_seen_ms + GRACE_MS
    }

    /// Stands still while a whole window ahead of the fastest reader; stops when nobody is left and the rest is not worth it.
    async fn pace(&mut self, flow: &Flow, worth_finishing: bool) -> Result<(), Stop> {
        let config = self.peers.fill_config();
        let mut counted = false;
        loop {
            self.note_readers(flow);
            if self.nobody() && !worth_finishing {
                return Err(Stop::Abandoned);
            }
            let furthest = flow.readers.furthest().max(flow.span.start);
            if self.at < furthest.saturating_add(config.window_bytes) || self.nobody() {
                return Ok(());
            }
            if !counted {
                counted = true;
                self.peers.metrics().count(Counter::FillWindowWaits);
            }
            sleep_ms(PAUSE_MS).await;
        }
    }
}

/// Gives room back that will not be filled, and tells those who wait for it.
pub(super) fn abandon<P: Peers>(peers: &P, writer: ExtentWriter) {
    let extent = Arc::clone(writer.extent());
    writer.fail(|shard| peers.wake(shard, &extent));
    peers.settled(extent);
}

fn worth_finishing(writer: &ExtentWriter, finish_percent: u64, rest_bytes: u64) -> bool {
    let left = u64::from(writer.remaining());
    let extent = writer.extent();
    let whole = u64::from(extent.capacity_end() - extent.start());
    left <= rest_bytes || (whole - left) * 100 >= whole * finish_percent
}

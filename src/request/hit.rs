//! The answer that is there: its head is known and fresh, and one extent holds all of its body.
//!
//! Called by `read` while the index is being looked at, so that a small answer leaves in one call with nothing pinned, cloned or counted: the look
//! itself keeps head and bytes alive, and the call does not wait. What the client does not take at once, and what is too
//! large for one call, is pinned and sent as the client takes it.

use std::ops::Range;
use std::sync::Arc;

use crate::metrics::{Gauge, SendPath, Source};
use crate::ram::extent::Extent;

use super::client::Gone;
use super::deliver::{CORK_BYTES, ONE_CALL_BYTES, by_reference, send_piece};
use super::report::Report;
use super::{End, Exchange};

/// How far an answer has come without waiting.
pub(super) enum Begun {
    /// The client has all of it.
    Whole,
    /// There is more to send.
    Rest(Rest),
    /// There is no client.
    Gone(Gone),
}

/// What is left of an answer.
pub(super) struct Rest {
    status: u16,
    /// Bytes sent, of the head first.
    sent: usize,
    body: Option<Held>,
}

/// A body in one extent, pinned.
struct Held {
    extent: Arc<Extent>,
    window: Range<u32>,
}

/// Sends an answer that is its head alone.
pub(super) fn head(exchange: &Exchange<'_>, status: u16, out: &[u8], report: &mut Report) -> Begun {
    report.sent_at_once(status);
    match exchange.client.try_send(out, &[]) {
        Ok(sent) if sent == out.len() => Begun::Whole,
        Ok(sent) => Begun::Rest(Rest {
            status,
            sent,
            body: None,
        }),
        Err(gone) => Begun::Gone(gone),
    }
}

/// Says that a small body will be sent from `extent`.
pub(super) fn expect(extent: &Extent, window: &Range<u32>) {
    if let Some(piece) = extent.piece(window.start, window.end)
        && piece.bytes().len() <= ONE_CALL_BYTES
    {
        piece.prefetch();
    }
}

/// Sends head and body, if they are small. `extent` holds `window` of its stripe.
pub(super) fn body(
    exchange: &Exchange<'_>,
    (extent, window): (&Arc<Extent>, Range<u32>),
    status: u16,
    out: &[u8],
    report: &mut Report,
) -> Begun {
    report.sent_at_once(status);
    let whole = extent.piece(window.start, window.end).filter(|piece| {
        let bytes = piece.bytes().len();
        bytes == window.len()
            && bytes <= ONE_CALL_BYTES
            && !by_reference(exchange.shard, extent, *piece)
    });
    let sent = match whole.map(|piece| exchange.client.try_send(out, piece.bytes())) {
        None => 0,
        Some(Ok(sent)) => sent,
        Some(Err(gone)) => return Begun::Gone(gone),
    };
    if sent == out.len() + window.len() {
        let path = Some(SendPath::Copy);
        report.sent(exchange.shard, Source::Ram, path, window.len() as u64);
        return Begun::Whole;
    }
    let extent = Arc::clone(extent);
    Begun::Rest(Rest {
        status,
        sent,
        body: Some(Held { extent, window }),
    })
}

/// Sends what is left, as the client takes it.
pub(super) async fn rest(
    exchange: &Exchange<'_>,
    rest: Rest,
    out: &[u8],
    report: &mut Report,
) -> End {
    report.head_sent(rest.status);
    let head = &out[rest.sent.min(out.len())..];
    let result = match rest.body {
        None => exchange.client.send(head, &[], false).await,
        Some(held) => {
            let metrics = exchange.shard.metrics();
            metrics.gauge_add(Gauge::RamLeases, 1);
            let of_body = rest.sent.saturating_sub(out.len());
            let result = held.send(exchange, head, of_body, report).await;
            metrics.gauge_add(Gauge::RamLeases, -1);
            result
        }
    };
    match result {
        Ok(()) => exchange.end(),
        Err(gone) => End::gone(gone, report),
    }
}

impl Held {
    async fn send(
        &self,
        exchange: &Exchange<'_>,
        mut head: &[u8],
        sent: usize,
        report: &mut Report,
    ) -> Result<(), Gone> {
        let (shard, extent) = (exchange.shard, &*self.extent);
        if sent > 0 {
            report.sent(shard, Source::Ram, Some(SendPath::Copy), sent as u64);
        }
        let mut at = self.window.start + sent as u32;
        let large = u64::from(self.window.end - at) >= CORK_BYTES;
        let _cork = large.then(|| exchange.client.socket.cork());
        while at < self.window.end {
            let Some(piece) = extent.piece(at, self.window.end) else {
                panic!("a settled extent keeps the bytes it has");
            };
            let bytes = piece.bytes().len();
            at += bytes as u32;
            let lent = by_reference(shard, extent, piece);
            let more = at < self.window.end;
            let first = std::mem::take(&mut head);
            let path = send_piece(exchange.client, first, piece, lent, more).await?;
            report.sent(shard, Source::Ram, Some(path), bytes as u64);
        }
        Ok(())
    }
}

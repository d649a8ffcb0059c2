//! A request with a body, or with an effect, on its way to the origin: both directions at once, in bounded memory.
//!
//! Called by `pass`. The origin's side is read while the client still sends, so that an interim 100 or an early final answer reaches the
//! client at once; a deadline runs only against the side that is waited for.

use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;

use crate::base::places::Place;
use crate::http::ChunkError;
use crate::io::{Either, race};
use crate::metrics::Counter;
use crate::s3::Operation;
use crate::shard::strides::SHORT_BYTES;
use crate::upstream::{Awaiting, Conn, Endpoint, HeadRead, Response, Reuse, UpstreamError};

use super::Exchange;
use super::body::BodyPump;
use super::client::Gone;
use super::keep::Keeping;
use super::pass::LONG_ANSWER_MS;
use super::report::Report;

/// Bytes that go without a pause before other tasks of the shard get a turn.
const FAIR_BYTES: usize = 2 << 20;

/// What came of an upload.
pub(super) enum Uploaded {
    /// The origin answered; perhaps before it had the whole body.
    Answered {
        /// Its answer.
        response: Box<Response>,
        /// Whether the whole body went out.
        body_complete: bool,
    },
    /// The origin could not be asked, or broke off.
    Failed(UpstreamError),
    /// The client's chunked framing is broken.
    Malformed,
    /// The client left or was too slow.
    Gone(Gone),
}

enum Stop {
    Origin(UpstreamError),
    Malformed,
    Gone(Gone),
}

impl From<UpstreamError> for Stop {
    fn from(error: UpstreamError) -> Self {
        Self::Origin(error)
    }
}

impl From<Gone> for Stop {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

impl From<ChunkError> for Stop {
    fn from(_: ChunkError) -> Self {
        Self::Malformed
    }
}

/// Sends `request` and the client's body, with what is kept of it on the way; also gives the copy of the body, if one was asked for and fits.
pub(super) async fn run(
    exchange: &Exchange<'_>,
    endpoint: &Arc<Endpoint>,
    request: &[u8],
    (copy_bytes_max, keeping): (usize, Option<&mut Keeping>),
    report: &mut Report,
) -> (Uploaded, Option<Vec<u8>>) {
    let mut pump = BodyPump::new(exchange.head.body, copy_bytes_max);
    let result = upload(exchange, endpoint, request, &mut pump, keeping).await;
    exchange
        .shard
        .metrics()
        .add(Counter::ReceivedBytes, pump.received());
    exchange
        .shard
        .metrics()
        .add(Counter::UpstreamSentBytes, pump.received());
    let uploaded = match result {
        Ok(response) => {
            report.origin_status = Some(response.status());
            let body_complete = pump.is_sent();
            exchange.body_unread.set(!body_complete);
            Uploaded::Answered {
                response: Box::new(response),
                body_complete,
            }
        }
        Err(Stop::Origin(error)) => Uploaded::Failed(error),
        Err(Stop::Malformed) => Uploaded::Malformed,
        Err(Stop::Gone(gone)) => Uploaded::Gone(gone),
    };
    (uploaded, pump.into_copy())
}

async fn upload(
    exchange: &Exchange<'_>,
    endpoint: &Arc<Endpoint>,
    request: &[u8],
    pump: &mut BodyPump,
    keeping: Option<&mut Keeping>,
) -> Result<Response, Stop> {
    let mut conn = exchange
        .shard
        .upstream
        .checkout(endpoint, Reuse::Recent)
        .await?;
    conn.arm(Awaiting::Idle);
    let ours = pump.take(exchange.rest)?;
    exchange.body_bytes_buffered.set(ours);
    conn.send_all(request).await?;
    let mut flow = Flow {
        exchange,
        conn,
        pump,
        keeping,
        place: None,
        since_pause: 0,
        drained: false,
        writing: true,
    };
    flow.keep().await;
    let head = loop {
        match flow.conn.try_read_head(exchange.head.method)? {
            Some(HeadRead::Final(head)) => break head,
            Some(HeadRead::Interim { head, .. }) => flow.interim(&head).await?,
            None => while !flow.steps().await? {},
        }
    };
    let complete = flow.pump.is_sent();
    let mut conn = flow.conn;
    // Such an answer may begin long before it is known how it ends.
    if may_take_minutes(exchange.request.operation) {
        conn.may_idle(LONG_ANSWER_MS);
    }
    if !complete {
        conn.poison();
    }
    Ok(exchange.shard.upstream.response(conn, head))
}

/// Whether it was the first one.
fn which<A, B>(came: Either<Result<(), A>, Result<(), B>>) -> Result<bool, Stop>
where
    Stop: From<A> + From<B>,
{
    match came {
        Either::First(result) => Ok(result.map(|()| true)?),
        Either::Second(result) => Ok(result.map(|()| false)?),
    }
}

/// Whether the origin may need minutes for its answer, or for the rest of one that it has begun.
fn may_take_minutes(operation: Operation) -> bool {
    match operation {
        Operation::Copy
        | Operation::MultipartComplete
        | Operation::UploadPart
        | Operation::MultiDelete => true,
        Operation::GetObject
        | Operation::HeadObject
        | Operation::PartRead
        | Operation::ObjectWrite
        | Operation::MultipartCreate
        | Operation::MultipartAbort
        | Operation::Pass(_)
        | Operation::Refused(_) => false,
    }
}

struct Flow<'f, 'a> {
    exchange: &'f Exchange<'a>,
    conn: Conn,
    pump: &'f mut BodyPump,
    keeping: Option<&'f mut Keeping>,
    /// Of the long stride whose bytes the origin has not taken yet.
    place: Option<Place>,
    /// Bytes that have gone since others had their turn.
    since_pause: usize,
    /// The client's socket has just been emptied.
    drained: bool,
    /// The origin still takes bytes.
    writing: bool,
}

impl Flow<'_, '_> {
    async fn interim(&self, head: &[u8]) -> Result<(), Stop> {
        if self.exchange.head.version == crate::http::Version::Http11 {
            self.exchange.client.send(head, &[], false).await?;
            self.exchange.client.fed();
        }
        Ok(())
    }

    /// Moves what can be moved, then waits for whatever comes first. True: the origin may have said something.
    async fn steps(&mut self) -> Result<bool, Stop> {
        loop {
            let received = self.receive()?;
            if received {
                self.keep().await;
            }
            let sent = self.send();
            if let Some(buffer) = self.pump.unload(SHORT_BYTES) {
                self.exchange.shard.strides.give_back(buffer);
                self.place = None;
            }
            if !received && !sent {
                self.since_pause = 0;
                return self.wait().await;
            }
            if self.since_pause >= FAIR_BYTES {
                // The other connections of the shard go first.
                self.since_pause = 0;
                return self.room().await;
            }
        }
    }

    /// Waits until the origin takes more, or says something; the client, which nobody reads from meanwhile, may leave.
    async fn room(&mut self) -> Result<bool, Stop> {
        self.conn.arm(Awaiting::Idle);
        let answered = pin!(self.conn.readable());
        let room = pin!(self.conn.writable());
        let client = &self.exchange.client;
        let left = pin!(client.leaves_unread());
        let moved = pin!(race(answered, room));
        let came = race(moved, left).await;
        client.look_no_more();
        match came {
            Either::First(moved) => which(moved),
            Either::Second(()) => Err(Stop::Gone(client.gone())),
        }
    }

    /// Keeps what was received last, if the body is kept.
    async fn keep(&mut self) {
        if let Some(keeping) = &mut self.keeping {
            for bytes in self.pump.content() {
                keeping.take(bytes).await;
            }
        }
    }

    fn receive(&mut self) -> Result<bool, Stop> {
        if !self.pump.wants_more() || !self.pump.pending().is_empty() || !self.writing {
            return Ok(false);
        }
        // What is not known to be there is waited for; a try in vain costs as much as the wait.
        if std::mem::take(&mut self.drained) {
            return Ok(false);
        }
        let (buffer, place) = self.exchange.shard.strides.lend(self.pump.left());
        self.pump.load(buffer);
        self.place = place;
        match self.exchange.client.try_receive(self.pump.room()) {
            Ok(None) => Ok(false),
            Ok(Some(0)) | Err(_) => Err(Stop::Gone(self.exchange.client.gone())),
            Ok(Some(bytes)) => {
                self.exchange.client.fed();
                // A session may hold more that has been decrypted already.
                let short = bytes < self.pump.room().len();
                self.drained = short && !self.exchange.client.is_tls();
                self.pump.filled(bytes)?;
                let mut overread = self.exchange.overread.borrow_mut();
                overread.extend_from_slice(self.pump.surplus());
                Ok(true)
            }
        }
    }

    /// A failed write is not the end: the origin's answer may be there to read.
    fn send(&mut self) -> bool {
        if !self.writing {
            return false;
        }
        let pending = self.pump.pending();
        if pending.is_empty() {
            return match self.conn.try_flush() {
                Ok(_) => false,
                Err(_) => std::mem::replace(&mut self.writing, false),
            };
        }
        match self.conn.try_write(&[IoSlice::new(pending)]) {
            Ok(Some(bytes)) => {
                self.pump.advance(bytes);
                self.since_pause += bytes;
                true
            }
            Ok(None) => false,
            Err(_) => {
                self.writing = false;
                true
            }
        }
    }

    async fn wait(&mut self) -> Result<bool, Stop> {
        let blocked = self.writing
            && (!self.pump.pending().is_empty() || !self.conn.try_flush().unwrap_or(true));
        let hungry = self.writing && self.pump.wants_more() && self.pump.pending().is_empty();
        if blocked {
            return self.room().await;
        }
        let answered = pin!(self.conn.readable());
        if hungry {
            self.conn.disarm();
            let more = pin!(self.exchange.client.readable());
            let came = race(answered, more).await;
            // Whichever it was, nobody waits for the client now.
            self.exchange.client.socket.disarm();
            return which(came);
        }
        match may_take_minutes(self.exchange.request.operation) {
            true => self.conn.arm_for(Awaiting::FirstByte, LONG_ANSWER_MS),
            false => self.conn.arm(Awaiting::FirstByte),
        }
        let leaves = pin!(self.exchange.client.leaves());
        match race(answered, leaves).await {
            Either::First(result) => Ok(result.map(|()| true)?),
            Either::Second(()) => Err(Stop::Gone(self.exchange.client.gone())),
        }
    }
}

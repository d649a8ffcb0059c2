//! Row 6: ONE request, a file per step. Control flow is here, the steps compute.
//!
//! Called by `listener` for each request whose head is whole. receive (`receive`) → understand (`crate::s3`) → look up and answer from the
//! cache (`read`, `answer`, `hit`, `deliver`) or pass through (`pass`, `upload`, `relay`) → say what happened (`report`). Before all that a
//! request to a host that stands for a bucket is written anew (`mapped`), and a `CONNECT` becomes a tunnel (`connect`, `tunnel`). Every failure
//! becomes an answer in `failure`.

mod access;
mod ahead;
pub mod answer;
mod asked;
mod body;
pub mod chain;
pub mod client;
mod client_tls;
mod connect;
mod deliver;
pub mod failure;
mod forward;
mod hit;
mod interims;
mod keep;
mod mapped;
mod opening;
mod pass;
mod read;
pub mod receive;
mod relay;
pub mod report;
mod stale;
pub mod tunnel;
mod upload;
mod wishes;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::base::clock::Moment;
use crate::http::{Method, RequestError, RequestHead, parse_request};
use crate::metrics::{self, Counter};
use crate::s3::{Classified, HostRoute, Operation, classify_with};
use crate::shard::Shard;

use answer::CacheStatus;
use client::{Client, Gone};
use failure::Failure;
use report::Report;

/// How a request ended, for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The next request may come.
    KeepAlive,
    /// Answered; the connection closes.
    Close,
    /// The answer could not be finished: the connection is reset.
    Cut,
    /// The client left or was too slow.
    Gone(Gone),
    /// What follows goes through the tunnel in [`Connection::tunnel`].
    Tunnel,
}

impl End {
    /// After an answer of our own to a request whose body, if it has one, is not read.
    fn of_refusal(answered: Result<(), Gone>, keep_alive: bool) -> Self {
        match answered {
            Ok(()) if keep_alive => Self::KeepAlive,
            Ok(()) => Self::Close,
            Err(gone) => Self::Gone(gone),
        }
    }

    /// The client left in the middle.
    fn gone(gone: Gone, report: &mut Report) -> Self {
        report.error = Some(match gone {
            Gone::Left => "the client left",
            Gone::Slow => "the client was too slow",
        });
        Self::Gone(gone)
    }
}

/// One client connection and its reused buffers.
pub struct Connection {
    /// The client.
    pub client: Client,
    /// Received and not yet consumed.
    pub input: Vec<u8>,
    /// Heads are written here.
    out: Vec<u8>,
    /// Identities of objects are written here.
    key: Vec<u8>,
    /// When the connection began or its last answer ended.
    quiet_since: Moment,
    /// Opened by `CONNECT`.
    pub tunnel: Option<Box<tunnel::Tunnel>>,
}

/// Buffers that a request has blown up beyond this are given back.
const KEPT_BUFFER_BYTES: usize = 16 * 1024;

impl Connection {
    /// A connection without a request.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            input: Vec::new(),
            out: Vec::new(),
            key: Vec::new(),
            quiet_since: Moment::now(),
            tunnel: None,
        }
    }

    /// No further request comes.
    pub fn give_buffers_back(&mut self) {
        self.out = Vec::new();
        self.key = Vec::new();
    }
}

/// One request and what serves it.
struct Exchange<'a> {
    shard: &'a Rc<Shard>,
    client: &'a Client,
    head: &'a RequestHead<'a>,
    /// Received behind the head: body, or next requests.
    rest: &'a [u8],
    route: &'a HostRoute<'a>,
    request: &'a Classified<'a, 'a>,
    keep_alive: bool,
    /// Bytes of `rest` that were of this request's body.
    body_bytes_buffered: Cell<usize>,
    /// Received behind the body.
    overread: RefCell<Vec<u8>>,
    /// The client may still send body bytes that nobody reads.
    body_unread: Cell<bool>,
}

impl Exchange<'_> {
    fn end(&self) -> End {
        if self.keep_alive && !self.body_unread.get() {
            End::KeepAlive
        } else {
            End::Close
        }
    }

    /// Answers with an error of our own.
    async fn fail(&self, failure: &Failure, report: &mut Report, out: &mut Vec<u8>) -> End {
        if !self.head.body.is_empty() && self.body_bytes_buffered.get() == 0 {
            self.body_unread.set(true);
        }
        let keep_alive = self.end() == End::KeepAlive;
        let what = (failure, self.head.method, self.head.path);
        match fail(self.shard, self.client, what, keep_alive, report, out).await {
            Ok(()) => self.end(),
            Err(gone) => End::gone(gone, report),
        }
    }
}

async fn fail(
    shard: &Shard,
    client: &Client,
    (failure, method, resource): (&Failure, crate::http::Method, &str),
    keep_alive: bool,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> Result<(), Gone> {
    out.clear();
    let body_bytes = failure.write(
        report,
        (method, resource),
        keep_alive,
        shard.wall().unix_seconds(Moment::now()),
        out,
    );
    report.outcome = metrics::Outcome::Error;
    report.error = Some(failure.words);
    report.head_sent(failure.status);
    client.send(out, &[], false).await?;
    report.sent(shard, metrics::Source::Local, None, body_bytes as u64);
    Ok(())
}

/// Answers what is no request, or one that is refused before it is read; the connection closes.
pub async fn refuse(shard: &Rc<Shard>, connection: &mut Connection, failure: &Failure) {
    let mut report = Report::begin(shard);
    let mut out = std::mem::take(&mut connection.out);
    let what = (failure, crate::http::Method::Other, "");
    // The connection closes whether or not the client still takes the answer.
    let _ = fail(
        shard,
        &connection.client,
        what,
        false,
        &mut report,
        &mut out,
    )
    .await;
    connection.quiet_since = report.finish(shard, None, connection.client.peer);
    connection.out = out;
}

/// Serves the request at the start of `connection.input`, whose head is whole, and takes it out.
pub async fn serve(shard: &Rc<Shard>, connection: &mut Connection) -> End {
    let input = std::mem::take(&mut connection.input);
    let (end, consumed, overread) = match parse_request(&input, &shard.policy().head_limits) {
        Ok(Some(head)) if head.method == Method::Connect => {
            let end = Box::pin(connect::serve(shard, connection, &head)).await;
            (end, head.bytes, Vec::new())
        }
        Ok(Some(head)) if !shard.world.routes.hosts.is_empty() => {
            let rest = &input[head.bytes..];
            Box::pin(mapped::serve(shard, connection, &head, rest)).await
        }
        Ok(Some(head)) => serve_head(shard, connection, &head, &input[head.bytes..]).await,
        Ok(None) => (End::Close, input.len(), Vec::new()),
        Err(error) => {
            refuse_head(shard, connection, &error).await;
            (End::Close, input.len(), Vec::new())
        }
    };
    connection.input = input;
    if consumed == connection.input.len() {
        connection.input.clear();
    } else {
        connection.input.drain(..consumed);
    }
    connection.input.extend_from_slice(&overread);
    for buffer in [
        &mut connection.input,
        &mut connection.out,
        &mut connection.key,
    ] {
        if buffer.capacity() > KEPT_BUFFER_BYTES {
            buffer.shrink_to(KEPT_BUFFER_BYTES);
        }
    }
    end
}

/// Answers a head that cannot be understood.
pub async fn refuse_head(shard: &Rc<Shard>, connection: &mut Connection, error: &RequestError) {
    shard
        .metrics()
        .count(Counter::RequestsMalformed(failure::malformed(error)));
    refuse(shard, connection, &Failure::of_head(error)).await;
}

/// Answers a request that leads to no origin.
#[cold]
async fn refuse_request(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    failure: &Failure,
) -> End {
    let mut report = Report::begin(shard);
    let mut out = std::mem::take(&mut connection.out);
    let keep_alive = head.keep_alive && head.body.is_empty();
    let what = (failure, head.method, head.path);
    let client = &connection.client;
    let answered = fail(shard, client, what, keep_alive, &mut report, &mut out).await;
    connection.quiet_since = report.finish(shard, Some((head, None)), connection.client.peer);
    connection.out = out;
    End::of_refusal(answered, keep_alive)
}

async fn serve_head(
    shard: &Rc<Shard>,
    connection: &mut Connection,
    head: &RequestHead<'_>,
    rest: &[u8],
) -> (End, usize, Vec<u8>) {
    let map = &shard.world.routes.map;
    let route = match map.resolve_request(head.authority, head.host) {
        Ok(route) => route,
        Err(error) => {
            shard.metrics().count(Counter::RequestsForbidden);
            let failure = Failure::of_route(&error);
            let end = Box::pin(refuse_request(shard, connection, head, &failure)).await;
            return (end, head.bytes, Vec::new());
        }
    };
    let mut report = Report::begin(shard);
    let mut key = std::mem::take(&mut connection.key);
    let mut out = std::mem::take(&mut connection.out);
    out.clear();
    let request = classify_with(head, &route, &mut key, |object| shard.expect(object));
    let exchange = Exchange {
        shard,
        client: &connection.client,
        head,
        rest,
        route: &route,
        request: &request,
        keep_alive: head.keep_alive
            && !shard
                .world
                .draining
                .load(std::sync::atomic::Ordering::Relaxed),
        body_bytes_buffered: Cell::new(0),
        overread: RefCell::default(),
        body_unread: Cell::new(false),
    };
    report.operation = operation_name(request.operation);
    let end = decide(&exchange, &mut report, &mut out).await;
    let understood = Some((head, Some(&request.target)));
    connection.quiet_since = report.finish(shard, understood, connection.client.peer);
    let consumed = exchange.body_bytes_buffered.get();
    let overread = exchange.overread.take();
    connection.key = key;
    connection.out = out;
    (end, head.bytes + consumed, overread)
}

async fn decide(exchange: &Exchange<'_>, report: &mut Report, out: &mut Vec<u8>) -> End {
    match exchange.request.operation {
        Operation::Refused(refusal) => {
            let failure = Failure::new(refusal.code(), "the request is not for an origin");
            Box::pin(exchange.fail(&failure, report, out)).await
        }
        Operation::GetObject | Operation::HeadObject | Operation::PartRead
            if exchange.request.is_cacheable() && is_in_time(exchange, report) =>
        {
            read::serve(exchange, report, out).await
        }
        Operation::GetObject
        | Operation::HeadObject
        | Operation::PartRead
        | Operation::ObjectWrite
        | Operation::Copy
        | Operation::MultiDelete
        | Operation::MultipartCreate
        | Operation::UploadPart
        | Operation::MultipartComplete
        | Operation::MultipartAbort
        | Operation::Pass(_) => {
            Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await
        }
    }
}

/// Presigned requests out of their time are the origin's to refuse.
fn is_in_time(exchange: &Exchange<'_>, report: &Report) -> bool {
    let auth = &exchange.request.auth;
    let now_unix = || exchange.shard.wall().unix_seconds(report.started());
    !auth.is_presigned() || auth.presigned(now_unix()) == crate::s3::Presigned::InTime
}

fn operation_name(operation: Operation) -> &'static str {
    match operation {
        Operation::GetObject => "GetObject",
        Operation::HeadObject => "HeadObject",
        Operation::PartRead => "PartRead",
        Operation::ObjectWrite => "ObjectWrite",
        Operation::Copy => "Copy",
        Operation::MultiDelete => "MultiDelete",
        Operation::MultipartCreate => "MultipartCreate",
        Operation::UploadPart => "UploadPart",
        Operation::MultipartComplete => "MultipartComplete",
        Operation::MultipartAbort => "MultipartAbort",
        Operation::Pass(_) => "Pass",
        Operation::Refused(_) => "Refused",
    }
}

//! Requests that pass through: streamed both ways, signature intact, nothing kept. What they change is dropped from the cache before
//! their response reaches the client.
//!
//! Called by `mod` and, where the cache cannot answer, by `read`.

use std::sync::Arc;

use crate::config::Freshness;
use crate::fill::elsewhere::answers_a_read;
use crate::http::Method;
use crate::io::{Either, race};
use crate::metrics::{self, Counter, UpstreamKind};
use crate::s3::{
    ErrorCode, MULTI_DELETE_BYTES_MAX, ObjectKeyRef, Operation, PART_LIST_BYTES_MAX, Touches,
    parse_multi_delete,
};
use crate::shard::disk::Announced;
use crate::upstream::{Claim, Endpoint, Origin, Patience, Query, Response, UpstreamError};

use super::answer::CacheStatus;
use super::failure::Failure;
use super::interims::Interims;
use super::keep::{self, Completing, Keeping};
use super::relay::Relay;
use super::report::Report;
use super::upload::{self, Uploaded};
use super::{End, Exchange, chain, forward};

/// How long the origin may take to answer what can take minutes: a copy, the completion of a multipart upload, a large delete.
pub(super) const LONG_ANSWER_MS: u64 = 15 * 60 * 1000;

/// Passes one request through.
pub(super) async fn serve(
    exchange: &Exchange<'_>,
    status: CacheStatus,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    report.outcome = metrics::Outcome::Pass;
    out.clear();
    if let Some(failure) = chain::refusal(exchange.shard, exchange.head) {
        return exchange.fail(&failure, report, out).await;
    }
    let Some(origin) = forward::origin(&exchange.shard.world.routes, exchange.route) else {
        return exchange.fail(&Failure::no_origin(), report, out).await;
    };
    let head = exchange.head;
    exchange
        .shard
        .metrics()
        .count(Counter::UpstreamRequests(UpstreamKind::Pass));
    let mut request = forward::lines(exchange.shard, head, &exchange.request.auth, |_| true);
    request.extend_from_slice(b"\r\n");
    if exchange.request.touches == Touches::Nothing && head.body.is_empty() {
        return pass_read(exchange, &origin, &request, status, report, out).await;
    }
    pass_write(exchange, &origin.first, &request, status, report, out).await
}

/// Tells the disk tier that a write to an object begins.
async fn announce(exchange: &Exchange<'_>) -> Option<Announced> {
    if exchange.request.touches != Touches::Object {
        return None;
    }
    let shard = exchange.shard;
    let (object, digest) = exchange.request.object()?;
    if shard.policy_at(object).freshness == Freshness::Origin {
        // What is on disk alone would be forgotten, also if the origin refuses.
        let stamp = shard.world.stamps.now(digest);
        let _ = shard
            .known_or_on_disk(digest, object.encoded(), stamp)
            .await;
    }
    shard.announce(digest).await
}

/// A request without a body that changes nothing.
async fn pass_read(
    exchange: &Exchange<'_>,
    origin: &Origin,
    request: &[u8],
    status: CacheStatus,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    let leaves = std::pin::pin!(exchange.client.leaves());
    let interims = Interims::new(exchange);
    let relayed = |head: &[u8]| interims.relay(head);
    let query = Query {
        origin,
        request,
        method: exchange.head.method,
        patience: Patience::Full,
        hedge_after_ms: 0,
        takes: &answers_a_read,
        interim: Some(&relayed),
    };
    let asked = std::pin::pin!(exchange.shard.upstream.ask_origin(&query));
    let answered = race(asked, leaves).await;
    if let Err(gone) = interims.rest().await {
        return End::gone(gone, report);
    }
    match answered {
        Either::First(Ok(response)) => relay(exchange, response, status, report, out).await,
        Either::First(Err(error)) => failed(exchange, &error, report, out).await,
        Either::Second(()) => End::gone(exchange.client.gone(), report),
    }
}

async fn failed(
    exchange: &Exchange<'_>,
    error: &UpstreamError,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    tracing::debug!(%error, "an origin could not be asked");
    exchange
        .fail(&Failure::of_upstream(error), report, out)
        .await
}

/// Sends the origin's answer on.
pub(super) async fn relay(
    exchange: &Exchange<'_>,
    response: Response,
    status: CacheStatus,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    report.outcome = metrics::Outcome::Pass;
    Relay {
        exchange,
        status,
        body_complete: true,
        before_end: Touched::Nothing,
        completing: None,
    }
    .run(response, report, out)
    .await
}

/// What a request changed, ready to be dropped.
#[derive(Clone)]
pub(super) enum Touched {
    /// Nothing.
    Nothing,
    /// These objects.
    Objects(Vec<u128>),
    /// Every object of a bucket.
    Bucket(Arc<[u8]>),
}

/// How long nothing is stored of what a write may have changed whose end was not seen: the origin may yet do it.
const IN_DOUBT_MS: u64 = 2 * 60 * 1000;

impl Touched {
    /// Drops it on every shard; when this returns nobody finds it any more. `in_doubt`: the origin may do it later than now.
    pub(super) async fn drop_from_cache(&self, exchange: &Exchange<'_>, in_doubt: bool) {
        let hold_ms = match (in_doubt, takes_long(exchange.request.operation)) {
            (false, _) => 0,
            (true, false) => IN_DOUBT_MS,
            (true, true) => LONG_ANSWER_MS,
        };
        match self {
            Self::Nothing => {}
            Self::Objects(objects) => {
                for &object in objects {
                    exchange.shard.invalidate(object, hold_ms).await;
                }
            }
            Self::Bucket(prefix) => {
                exchange
                    .shard
                    .invalidate_bucket(Arc::clone(prefix), hold_ms)
                    .await
            }
        }
    }
}

/// Operations whose answer may begin long before, and end long after, they are done.
fn takes_long(operation: Operation) -> bool {
    matches!(operation, Operation::Copy | Operation::MultipartComplete)
}

/// Whether who answers a write has had no answer itself: the origin behind may yet do it.
fn is_doubtful(status: u16) -> bool {
    matches!(status, 502 | 504)
}

/// Whether the origin may do a write later than now.
fn is_in_doubt(result: &Uploaded) -> bool {
    match result {
        Uploaded::Answered { response, .. } => is_doubtful(response.status()),
        Uploaded::Failed(_) | Uploaded::Malformed | Uploaded::Gone(_) => true,
    }
}

/// Whether the origin has refused a write: what it answers for others, who may know less than it does, is in doubt (RFC 9111, section 4.4).
fn is_refusal(status: u16) -> bool {
    status >= 400 && !is_doubtful(status)
}

/// `refused`: whose origin decides about its copies keeps them.
fn touched(exchange: &Exchange<'_>, body: Option<&[u8]>, refused: bool) -> Touched {
    let goes = |object: &ObjectKeyRef<'_>| {
        !refused || exchange.shard.policy_at(*object).freshness == Freshness::Ttl
    };
    let target = &exchange.request.target;
    let bucket = || Touched::Bucket(target.bucket_prefix().into());
    match exchange.request.touches {
        Touches::Nothing => Touched::Nothing,
        Touches::Bucket => bucket(),
        Touches::Object => match exchange.request.object() {
            Some((object, digest)) if goes(&object) => Touched::Objects(vec![digest]),
            Some(_) => Touched::Nothing,
            None => bucket(),
        },
        Touches::Listed => {
            let Some(keys) = body.and_then(|body| parse_multi_delete(body).ok()) else {
                return bucket();
            };
            let mut buffer = Vec::new();
            let mut objects = Vec::with_capacity(keys.len());
            for key in &keys {
                match target.sibling(key, &mut buffer) {
                    Some(object) if goes(&object) => objects.push(object.digest().0),
                    Some(_) => {}
                    None => return bucket(),
                }
            }
            Touched::Objects(objects)
        }
    }
}

/// The origin has said nothing.
async fn unanswered(
    exchange: &Exchange<'_>,
    result: Uploaded,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    match result {
        Uploaded::Answered { .. } => panic!("it was answered"),
        Uploaded::Failed(error) => {
            exchange.body_unread.set(true);
            failed(exchange, &error, report, out).await
        }
        Uploaded::Malformed => {
            let malformed = Counter::RequestsMalformed(metrics::Malformed::Chunk);
            exchange.shard.metrics().count(malformed);
            exchange.body_unread.set(true);
            let failure = Failure::new(
                ErrorCode::InvalidRequest,
                "the body's chunked framing is broken",
            );
            exchange.fail(&failure, report, out).await
        }
        Uploaded::Gone(gone) => End::gone(gone, report),
    }
}

/// What was kept of an upload whose end is known.
async fn settle(exchange: &Exchange<'_>, keeping: Keeping, result: &Uploaded) {
    match result {
        Uploaded::Answered {
            response,
            body_complete: true,
        } => keeping.settle(exchange, Some(&response.head())).await,
        _ => keeping.settle(exchange, None).await,
    }
}

/// A request that changes something, or has a body: its own connection, both directions at once.
async fn pass_write(
    exchange: &Exchange<'_>,
    endpoint: &Arc<Endpoint>,
    request: &[u8],
    status: CacheStatus,
    report: &mut Report,
    out: &mut Vec<u8>,
) -> End {
    let upstream = &exchange.shard.upstream;
    // First, so that a write that is not sent drops nothing.
    let admitted = match upstream.admit(endpoint, Claim::Answer) {
        Ok(admitted) => admitted,
        Err(error) => return failed(exchange, &error, report, out).await,
    };
    let listed = exchange.request.touches == Touches::Listed;
    let completing = keep::wants_list(exchange).await;
    let copying = (listed || completing)
        .then(|| exchange.shard.copies.take())
        .flatten();
    let copy_bytes_max = match copying {
        Some(_) if completing => PART_LIST_BYTES_MAX,
        Some(_) => MULTI_DELETE_BYTES_MAX,
        None => 0,
    };
    let mut keeping = keep::begin(exchange).await;
    // Held until the answer is out: a process that dies in between must not bring back what was there before.
    let _announced = announce(exchange).await;
    let (result, copy) = upload::run(
        exchange,
        endpoint,
        request,
        (copy_bytes_max, keeping.as_mut()),
        report,
    )
    .await;
    drop(copying);
    match &result {
        Uploaded::Answered { response, .. } => {
            upstream.judge(endpoint, admitted, Ok(response));
        }
        Uploaded::Failed(error) => upstream.judge(endpoint, admitted, Err(error)),
        Uploaded::Malformed | Uploaded::Gone(_) => drop(admitted),
    }
    // Whatever came of it: the origin may have done it.
    let refused =
        matches!(&result, Uploaded::Answered { response, .. } if is_refusal(response.status()));
    let touched = touched(exchange, copy.as_deref(), refused);
    touched
        .drop_from_cache(exchange, is_in_doubt(&result))
        .await;
    if let Some(keeping) = keeping {
        settle(exchange, keeping, &result).await;
    }
    keep::give_up(exchange).await;
    let (response, body_complete) = match result {
        Uploaded::Answered {
            response,
            body_complete,
        } => (*response, body_complete),
        other => return unanswered(exchange, other, report, out).await,
    };
    let late = takes_long(exchange.request.operation);
    let before_end = if late { touched } else { Touched::Nothing };
    let completing = copy.filter(|_| completing);
    let completing = completing.and_then(|body| Completing::begin(exchange, &body));
    let status = if exchange.head.method == Method::Get {
        status
    } else {
        CacheStatus::Method
    };
    Relay {
        exchange,
        status,
        body_complete,
        before_end,
        completing,
    }
    .run(response, report, out)
    .await
}

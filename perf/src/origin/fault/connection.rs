//! One connection of the fault origin: read a request, find its faults, answer, and again.
//!
//! Spawned by the accept loop per connection. Invariants: requests are answered in order, so pipelining works; every
//! request whose head could be read is in the log; a request that is not HTTP gets 400 and the end. Left to others:
//! the meaning of requests (`answer`), the bytes of answers (`write`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::SystemTime;

use tokio::io::AsyncWriteExt;

use super::Shared;
use super::answer::{self, Answer};
use super::plan::{After, Framing as PlanFraming, Plan};
use super::request::{Body, Framing, Incoming, Request, RequestError, decode_aws_chunked};
use super::wire::Wire;
use super::write::{self, Ending};
use crate::net;
use crate::origin::stats::{LogEntry, RequestRecord};

/// The last request id given.
static LAST_ID: AtomicU64 = AtomicU64::new(0);

/// Serves the connection to its end.
pub async fn serve(mut wire: impl Wire, shared: Arc<Shared>) {
    let guard = shared.stats.connection();
    let mut incoming = Incoming::default();
    loop {
        let ending = match exchange(&mut wire, &mut incoming, &shared, guard.number()).await {
            Ok(Some(ending)) => ending,
            // The client ended between requests, or in one: nothing is owed to it.
            Ok(None) | Err(RequestError::Gone(_)) => return,
            Err(RequestError::Malformed(what)) => {
                let _ = bad_request(&mut wire, what).await;
                Ending::Close
            }
        };
        match ending {
            Ending::KeepOpen => {}
            Ending::Close => {
                let _ = wire.shutdown().await;
                return;
            }
            Ending::Reset => {
                let _ = net::reset_on_close(wire.tcp());
                return;
            }
        }
    }
}

async fn bad_request(wire: &mut impl Wire, what: &str) -> io::Result<()> {
    let answer = Answer::error(400, "BadRequest", what, "").with("Connection", "close");
    let length = (
        "Content-Length".to_string(),
        answer.payload.len().to_string(),
    );
    let headers: Vec<_> = answer.headers.iter().cloned().chain([length]).collect();
    wire.write_all(&write::head_bytes(400, &headers)).await?;
    wire.write_all(answer.payload.slice(0, usize::MAX >> 1))
        .await
}

/// One request and its answer; `None` when there is no further request.
async fn exchange(
    wire: &mut impl Wire,
    incoming: &mut Incoming,
    shared: &Shared,
    connection: u64,
) -> Result<Option<Ending>, RequestError> {
    let Some(head) = incoming.head(wire).await? else {
        return Ok(None);
    };
    let request = Request::parse(&head, &shared.domains)?;
    let actions = shared.faults.actions_for(&request);
    let record = shared
        .stats
        .request(&request.wire_key, log_entry(&request, connection, &actions));
    let mut plan = Plan::of(actions);
    if request.wants_close() && plan.after == After::KeepOpen {
        plan.after = After::Close;
    }
    if request.minor == 0 && matches!(plan.framing, PlanFraming::Chunked(..)) {
        plan.framing = PlanFraming::Close;
    }
    if plan.hang {
        incoming.until_closed(wire).await;
        return Ok(None);
    }
    let framing = request.framing()?;
    if let Some((status, drain)) = plan.early {
        return early(wire, incoming, (framing, status, drain), &plan, &record)
            .await
            .map(Some);
    }
    let body = match upload(wire, incoming, &request, &plan, &record).await? {
        Upload::Read(body) => body,
        Upload::Cut(ending) => return Ok(Some(ending)),
    };
    let id = LAST_ID.fetch_add(1, Relaxed) + 1;
    let answer = stamp(make_answer(shared, &request, &plan, body, id), id);
    let head_only = request.method == "HEAD";
    Ok(Some(
        write::answer(wire, &answer, &plan, head_only, &record).await?,
    ))
}

fn log_entry(request: &Request, connection: u64, actions: &[super::rules::Action]) -> LogEntry {
    let header = |name: &str| request.header(name).map(str::to_string);
    LogEntry {
        connection,
        method: request.method.clone(),
        target: request.target.clone(),
        host: header("host"),
        range: header("range"),
        if_match: header("if-match"),
        headers_count: request.headers.len(),
        headers: request.headers.clone(),
        faults: actions.iter().map(super::rules::Action::name).collect(),
        ..LogEntry::default()
    }
}

enum Upload {
    Read(Body),
    Cut(Ending),
}

/// Asks for the body if the client waits to be asked, and reads it.
async fn upload(
    wire: &mut impl Wire,
    incoming: &mut Incoming,
    request: &Request,
    plan: &Plan,
    record: &RequestRecord,
) -> Result<Upload, RequestError> {
    let framing = request.framing()?;
    let expects = request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    if expects && framing != Framing::None {
        wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        wire.flush().await?;
    }
    let bytes_max = plan.cut_upload.map_or(u64::MAX, |(at, _)| at);
    let body = incoming
        .body(wire, framing, bytes_max, |bytes| record.received(bytes))
        .await?;
    if let Some((_, rst)) = plan.cut_upload {
        return Ok(Upload::Cut(if rst { Ending::Reset } else { Ending::Close }));
    }
    if framing != Framing::None {
        record.edit(|entry| entry.body_sha256 = Some(body.sha256()));
    }
    Ok(Upload::Read(body))
}

/// Answers an upload before its body.
async fn early(
    wire: &mut impl Wire,
    incoming: &mut Incoming,
    (framing, status, drain): (Framing, u16, bool),
    plan: &Plan,
    record: &RequestRecord,
) -> Result<Ending, RequestError> {
    let id = LAST_ID.fetch_add(1, Relaxed) + 1;
    let mut plan = plan.clone();
    if !drain {
        plan.after = After::Close;
    }
    let ending = write::answer(
        wire,
        &stamp(Answer::of_status(status), id),
        &plan,
        false,
        record,
    )
    .await?;
    if drain {
        incoming
            .body(wire, framing, u64::MAX, |bytes| record.received(bytes))
            .await?;
        return Ok(ending);
    }
    // Closing with unread bytes would reset the connection and could take the answer with it.
    wire.shutdown().await?;
    incoming.until_closed(wire).await;
    Ok(Ending::Close)
}

fn make_answer(shared: &Shared, request: &Request, plan: &Plan, body: Body, id: u64) -> Answer {
    if let Some((code, retry_after_s)) = plan.status {
        let answer = Answer::of_status(code);
        return match retry_after_s {
            Some(seconds) => answer.with("Retry-After", seconds.to_string()),
            None => answer,
        };
    }
    if plan.new_version {
        shared.store.renew(&request.bucket, &request.key);
    }
    let answer = match request.is_aws_chunked() && !body.bytes.is_empty() {
        false => answer::answer(&shared.store, request, body.bytes),
        true => match decode_aws_chunked(&body.bytes) {
            Ok((data, trailers)) => {
                let mut request = request.clone();
                request.headers.extend(trailers);
                answer::answer(&shared.store, &request, data)
            }
            Err(error) => Answer::error(400, "IncompleteBody", &error.to_string(), ""),
        },
    };
    plan.edit(answer, request, id)
}

/// The headers that every answer of S3 has.
fn stamp(mut answer: Answer, id: u64) -> Answer {
    let mut headers = vec![
        ("x-amz-id-2".to_string(), format!("{id:032x}")),
        ("x-amz-request-id".to_string(), format!("{id:016X}")),
        (
            "Date".to_string(),
            httpdate::fmt_http_date(SystemTime::now()),
        ),
    ];
    headers.append(&mut answer.headers);
    headers.push(("Server".to_string(), "AmazonS3".to_string()));
    Answer { headers, ..answer }
}

//! Carries a plan out: the exact bytes of an answer on the socket, at the asked time and speed, up to the asked cut.
//!
//! Called by the connection. Invariants: the head goes out in one write unless it is trickled; body bytes are counted
//! as the socket takes them; generated content is written from its block without a copy. Left to others: what to
//! write. [`Ending`] says what becomes of the connection.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::Answer;
use super::plan::{After, Cut, Framing, Plan};
use super::wire::Wire;
use crate::origin::stats::RequestRecord;

/// Largest single write.
const WRITE_BYTES: usize = 1 << 20;
/// A reset drops what the socket still holds; this is the time it gets to send it.
const RESET_GRACE: Duration = Duration::from_millis(30);

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The next request.
    KeepOpen,
    /// An orderly end.
    Close,
    /// A reset.
    Reset,
}

fn cut_ending(rst: bool) -> Ending {
    if rst { Ending::Reset } else { Ending::Close }
}

/// Writes the answer. `head_only` leaves the body out, as for HEAD.
pub async fn answer(
    wire: &mut impl Wire,
    answer: &Answer,
    plan: &Plan,
    head_only: bool,
    record: &RequestRecord,
) -> io::Result<Ending> {
    sleep(Duration::from_millis(plan.delay_head_ms)).await;
    if let Some((Cut::BeforeHead, rst)) = plan.cut {
        return Ok(cut_ending(rst));
    }
    if let Some((bytes, keep_open)) = &plan.raw {
        wire.write_all(bytes).await?;
        wire.flush().await?;
        return Ok(if *keep_open {
            Ending::KeepOpen
        } else {
            Ending::Close
        });
    }
    for (status, headers) in &plan.interims {
        wire.write_all(&head_bytes(*status, headers)).await?;
        wire.flush().await?;
    }
    record.edit(|entry| entry.status = answer.status);
    write_head(wire, answer, plan).await?;
    if let Some((Cut::AfterHead, rst)) = plan.cut {
        return cut(wire, rst).await;
    }
    let ending = if head_only {
        Ending::KeepOpen
    } else {
        body(wire, answer, plan, record).await?
    };
    wire.flush().await?;
    match (ending, plan.after) {
        (Ending::KeepOpen, After::Close) => Ok(Ending::Close),
        (Ending::KeepOpen, After::CloseIdle(ms)) => {
            sleep(Duration::from_millis(ms)).await;
            Ok(Ending::Close)
        }
        (other, _) => Ok(other),
    }
}

async fn cut(wire: &mut impl Wire, rst: bool) -> io::Result<Ending> {
    wire.flush().await?;
    if rst {
        sleep(RESET_GRACE).await;
    }
    Ok(cut_ending(rst))
}

async fn write_head(wire: &mut impl Wire, answer: &Answer, plan: &Plan) -> io::Result<()> {
    let mut headers = answer.headers.clone();
    let length = answer.payload.len();
    match &plan.framing {
        // 204 and 304 have neither body nor length.
        _ if matches!(answer.status, 204 | 304) => {}
        Framing::Length => headers.push(("Content-Length".into(), length.to_string())),
        Framing::WrongLength(add) => {
            headers.push((
                "Content-Length".into(),
                length.saturating_add_signed(*add).to_string(),
            ));
        }
        Framing::Chunked(_, trailers) => {
            headers.push(("Transfer-Encoding".into(), "chunked".into()));
            if !trailers.is_empty() {
                let names: Vec<&str> = trailers.iter().map(|(name, _)| name.as_str()).collect();
                headers.push(("Trailer".into(), names.join(", ")));
            }
        }
        Framing::Close => headers.push(("Connection".into(), "close".into())),
    }
    if plan.after == After::Close {
        headers.push(("Connection".into(), "close".into()));
    }
    let bytes = head_bytes(answer.status, &headers);
    let Some((piece_bytes, ms)) = plan.trickle else {
        return wire.write_all(&bytes).await;
    };
    for piece in bytes.chunks(piece_bytes) {
        wire.write_all(piece).await?;
        wire.flush().await?;
        sleep(Duration::from_millis(ms)).await;
    }
    Ok(())
}

/// Status line and header lines of an answer.
pub fn head_bytes(status: u16, headers: &[(String, String)]) -> Vec<u8> {
    let reason = hyper::StatusCode::from_u16(status)
        .ok()
        .and_then(|s| s.canonical_reason())
        .unwrap_or("Fault");
    let mut text = format!("HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in headers {
        text.push_str(name);
        text.push_str(": ");
        text.push_str(value);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

async fn body(
    wire: &mut impl Wire,
    answer: &Answer,
    plan: &Plan,
    record: &RequestRecord,
) -> io::Result<Ending> {
    let total = answer.payload.len();
    let end = match plan.cut {
        Some((Cut::Body(at), _)) => at.min(total),
        _ => total,
    };
    let started = Instant::now();
    let mut delays = plan.delays.iter().peekable();
    let mut at = 0;
    loop {
        while let Some((_, ms)) = delays.next_if(|(when, _)| *when <= at) {
            wire.flush().await?;
            sleep(Duration::from_millis(*ms)).await;
        }
        if at == end {
            break;
        }
        let stop = delays.peek().map_or(end, |(when, _)| end.min(*when));
        let piece = answer.payload.slice(at, step_bytes(plan, stop - at));
        write_piece(wire, piece, at, plan).await?;
        at += piece.len() as u64;
        record.sent(piece.len() as u64);
        if let Some(rate) = plan.rate {
            wire.flush().await?;
            sleep_until(started + Duration::from_secs_f64(at as f64 / rate as f64)).await;
        }
    }
    if let Some((Cut::Body(_), rst)) = plan.cut {
        return cut(wire, rst).await;
    }
    finish(wire, plan).await
}

async fn finish(wire: &mut impl Wire, plan: &Plan) -> io::Result<Ending> {
    match &plan.framing {
        Framing::Length => Ok(Ending::KeepOpen),
        Framing::WrongLength(add) if *add <= 0 => Ok(Ending::KeepOpen),
        Framing::WrongLength(_) | Framing::Close => Ok(Ending::Close),
        Framing::Chunked(_, trailers) => {
            let lines: String = trailers
                .iter()
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            wire.write_all(format!("0\r\n{lines}\r\n").as_bytes())
                .await?;
            Ok(Ending::KeepOpen)
        }
    }
}

/// Bytes of the next write: smaller for chunks and for a rate, so that time passes evenly.
fn step_bytes(plan: &Plan, left: u64) -> usize {
    let mut step = (WRITE_BYTES as u64).min(left);
    if let Framing::Chunked(chunk_bytes, _) = plan.framing {
        step = step.min(chunk_bytes as u64);
    }
    if let Some(rate) = plan.rate {
        step = step.min((rate / 50).clamp(1, 64 << 10));
    }
    step as usize
}

async fn write_piece(wire: &mut impl Wire, piece: &[u8], at: u64, plan: &Plan) -> io::Result<()> {
    let flipped: Vec<u8>;
    let piece = match plan.corrupt {
        Some(wrong) if (at..at + piece.len() as u64).contains(&wrong) => {
            let mut copy = piece.to_vec();
            copy[(wrong - at) as usize] ^= 1;
            flipped = copy;
            flipped.as_slice()
        }
        _ => piece,
    };
    if matches!(plan.framing, Framing::Chunked(..)) {
        wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes())
            .await?;
        wire.write_all(piece).await?;
        return wire.write_all(b"\r\n").await;
    }
    wire.write_all(piece).await
}

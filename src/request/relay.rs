//! The origin's answer on its way to the client: its own bytes, re-framed for the client's connection, with our marks.
//!
//! Called by `pass` and `read`. A body that breaks off cuts the client's connection. The last bytes of an answer whose effect comes with its end
//! (a copy, a completed upload) wait until what it changed is dropped.

use std::pin::pin;

use crate::http::{
    LAST_CHUNK, Method, ResponseBody, ResponseHead, Version, is_hop_by_hop, write_chunk_header,
};
use crate::io::{Either, race};
use crate::metrics::{Counter, Source, UpstreamKind};
use crate::s3::{ANSWER_BYTES_MAX, LateAnswer, parse_late_answer};
use crate::upstream::{Response, UpstreamError};

use super::answer::{CacheStatus, connection};
use super::client::Gone;
use super::keep::Completing;
use super::pass::Touched;
use super::report::Report;
use super::{End, Exchange};

const BUFFER_BYTES: usize = 64 * 1024;

/// How the body is framed for the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// As announced by `Content-Length`, or none.
    Plain,
    /// Chunks.
    Chunked,
    /// Ends with the connection.
    Close,
}

/// One answer on its way.
pub(super) struct Relay<'r, 'a> {
    pub(super) exchange: &'r Exchange<'a>,
    pub(super) status: CacheStatus,
    /// Whether the whole request body went to the origin.
    pub(super) body_complete: bool,
    /// What is dropped before the last bytes go out.
    pub(super) before_end: Touched,
    /// The upload that this answer ends.
    pub(super) completing: Option<Completing>,
}

enum Broken {
    Origin(UpstreamError),
    Gone(Gone),
}

impl From<Gone> for Broken {
    fn from(gone: Gone) -> Self {
        Self::Gone(gone)
    }
}

/// White space says that the origin is at work, and nothing of what comes of it: it waits for nothing.
fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

impl Relay<'_, '_> {
    pub(super) async fn run(
        self,
        mut response: Response,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        report.origin_status = Some(response.status());
        report.by_fallback = response.is_by_fallback();
        out.clear();
        let (frame, keep_alive) = {
            let head = response.head();
            let frame = self.frame(&head);
            let keep_alive =
                self.exchange.keep_alive && self.body_complete && frame != Frame::Close;
            let marks = (keep_alive, response.is_by_fallback());
            self.write_head(&head, frame, marks, out);
            (frame, keep_alive)
        };
        let result = self.body(&mut response, frame, report, out).await;
        if result.is_err() {
            self.before_end.drop_from_cache(self.exchange, true).await;
        }
        match result {
            Ok(()) => {
                response.finish();
                if keep_alive {
                    self.exchange.end()
                } else {
                    End::Close
                }
            }
            Err(Broken::Gone(gone)) => End::gone(gone, report),
            Err(Broken::Origin(error)) => {
                tracing::debug!(%error, "an answer broke off");
                report.error = Some("the origin's answer broke off");
                report.outcome = crate::metrics::Outcome::Error;
                End::Cut
            }
        }
    }

    fn frame(&self, head: &ResponseHead<'_>) -> Frame {
        match (head.body, self.exchange.head.version) {
            (ResponseBody::None | ResponseBody::Length(_), _) => Frame::Plain,
            (ResponseBody::Chunked | ResponseBody::UntilClose, Version::Http11) => Frame::Chunked,
            (ResponseBody::Chunked | ResponseBody::UntilClose, Version::Http10) => Frame::Close,
        }
    }

    fn write_head(
        &self,
        head: &ResponseHead<'_>,
        frame: Frame,
        (keep_alive, by_fallback): (bool, bool),
        out: &mut Vec<u8>,
    ) {
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(buffer.format(head.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(head.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        let bodiless = head.status == 204 || head.status < 200;
        for header in head.headers.lines() {
            let ours = header.name.eq_ignore_ascii_case("x-cache-status");
            // RFC 9110, section 8.6.
            let no_length = bodiless && header.name.eq_ignore_ascii_case("content-length");
            if !ours && !no_length && !is_hop_by_hop(header.name, &head.headers) {
                out.extend_from_slice(header.raw);
            }
        }
        if frame == Frame::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        self.status.write(by_fallback, out);
        connection(out, self.exchange.head.version, keep_alive);
        out.extend_from_slice(b"\r\n");
    }

    async fn body(
        &self,
        response: &mut Response,
        frame: Frame,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        let client = self.exchange.client;
        report.head_sent(response.status());
        if response.body_length() == Some(0) {
            self.before_end.drop_from_cache(self.exchange, false).await;
            return Ok(client.send(out, &[], false).await?);
        }
        let hold = !matches!(self.before_end, Touched::Nothing);
        let mut held: Vec<u8> = Vec::new();
        let mut seen: Vec<u8> = Vec::new();
        let mut buffer = vec![0u8; BUFFER_BYTES];
        let mut leaves = pin!(client.leaves());
        // A head whose body is not there yet does not wait for it.
        let mut first = response.try_read(&mut buffer).map_err(Broken::Origin)?;
        if first.is_none() || hold {
            client.send(out, &[], false).await?;
            out.clear();
        }
        loop {
            let received = match first.take() {
                Some(received) => received,
                None => {
                    let read = pin!(response.read(&mut buffer));
                    match race(read, leaves.as_mut()).await {
                        Either::First(received) => received.map_err(Broken::Origin)?,
                        Either::Second(()) => return Err(Broken::Gone(client.gone())),
                    }
                }
            };
            if received == 0 {
                break;
            }
            self.count(received);
            let blank = is_blank(&seen) && is_blank(&buffer[..received]);
            if hold && (!blank || response.is_done()) {
                let room = ANSWER_BYTES_MAX - seen.len();
                seen.extend_from_slice(&buffer[..received.min(room)]);
                self.send(&held, frame, report, out).await?;
                held.clear();
                held.extend_from_slice(&buffer[..received]);
            } else {
                self.send(&buffer[..received], frame, report, out).await?;
            }
        }
        self.before_end.drop_from_cache(self.exchange, false).await;
        if hold && response.status() == 200 {
            self.late(&seen).await;
        }
        self.send(&held, frame, report, out).await?;
        self.end(response, frame, out).await
    }

    /// The end of an answer that may be an error inside of a 200.
    async fn late(&self, seen: &[u8]) {
        let answer = parse_late_answer(seen);
        if answer == LateAnswer::Error {
            self.exchange.shard.metrics().count(Counter::ErrorsLate);
        }
        if let Some(completing) = &self.completing {
            completing.settle(self.exchange, answer).await;
        }
    }

    fn count(&self, received: usize) {
        let metrics = self.exchange.shard.metrics();
        metrics.add(
            Counter::UpstreamReceivedBytes(UpstreamKind::Pass),
            received as u64,
        );
    }

    /// Sends what is in `out` (head or framing) and `data` in one call.
    async fn send(
        &self,
        data: &[u8],
        frame: Frame,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        if data.is_empty() {
            return Ok(());
        }
        if frame == Frame::Chunked {
            write_chunk_header(out, data.len());
        }
        self.exchange.client.send(out, data, false).await?;
        out.clear();
        if frame == Frame::Chunked {
            out.extend_from_slice(b"\r\n");
        }
        report.sent(self.exchange.shard, Source::Pass, None, data.len() as u64);
        Ok(())
    }

    async fn end(
        &self,
        response: &Response,
        frame: Frame,
        out: &mut Vec<u8>,
    ) -> Result<(), Broken> {
        if frame == Frame::Chunked {
            let trailers = response.trailers();
            if trailers.is_empty() {
                out.extend_from_slice(LAST_CHUNK);
            } else {
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(trailers);
                out.extend_from_slice(b"\r\n");
            }
        }
        self.exchange.client.send(out, &[], false).await?;
        debug_assert!(
            self.exchange.head.method != Method::Head,
            "an answer to HEAD has no body"
        );
        Ok(())
    }
}

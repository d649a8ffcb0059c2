//! One keep-alive connection of the load: sends a request, checks the answer, drops or compares its body.
//!
//! Driven by its worker whenever the socket is ready. Invariants: an answer counts only if its status and length were
//! right and its body came whole; a request is sent again only if a kept connection ended before the first byte of its
//! answer, and only once; one call moves a bounded amount, so that no connection starves the others. Left to others:
//! pacing, which key is next.

use std::io;

use sha2::{Digest, Sha256};

use super::Check;
use super::head::{self, AnswerHead};
use super::keys::Random;
use super::requests::{Asked, Method};
use super::target::{Target, Wire};
use super::worker::Shift;
use crate::sign::hex;

const HEAD_BYTES: usize = 8 << 10;
const TURN_READS: u32 = 16;
/// Sampled bodies up to this size are compared whole, larger ones in windows.
const WHOLE_MAX: u64 = 1 << 20;
const WINDOW_EVERY: u64 = 16 << 20;
const WINDOW_BYTES: u64 = 64 << 10;
const UPLOAD_PIECE: usize = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Sending,
    Head,
    Body,
}

/// How much of the body at hand is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Nothing,
    Windows,
    Whole,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The socket has nothing more, or enough was done for one turn.
    Waits,
    /// The socket takes no more: wait until it does.
    WaitsToSend,
    /// The request is over, well or not.
    Done,
    /// The connection ended: it must be made anew, then [`Connection::again`].
    Lost,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub wire: Wire,
    /// Whether `epoll` also waits for room to send.
    pub waits_to_send: bool,
    phase: Phase,
    asked: Asked,
    out: Vec<u8>,
    /// Bytes of the head and of the uploaded body that are sent.
    sent: u64,
    head: Box<[u8; HEAD_BYTES]>,
    filled: usize,
    /// Body bytes seen and to come.
    at: u64,
    left: u64,
    look: Look,
    wrong: u64,
    digest: Option<Sha256>,
    due_ns: u64,
    first_ns: u64,
    answered: u64,
    resent: bool,
    closes: bool,
}

impl Connection {
    pub fn connect(target: &Target) -> io::Result<Connection> {
        Ok(Connection {
            wire: Wire::connect(target)?,
            waits_to_send: false,
            phase: Phase::Idle,
            asked: Asked::default(),
            out: Vec::with_capacity(1024),
            sent: 0,
            head: Box::new([0; HEAD_BYTES]),
            filled: 0,
            at: 0,
            left: 0,
            look: Look::Nothing,
            wrong: 0,
            digest: None,
            due_ns: 0,
            first_ns: 0,
            answered: 0,
            resent: false,
            closes: false,
        })
    }

    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Whether the server said that this was the last answer.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// When the request at hand was due.
    pub fn due_ns(&self) -> u64 {
        self.due_ns
    }

    /// Takes the next request; [`Connection::turn`] sends it.
    pub fn begin(&mut self, key: u32, due_ns: u64, random: &mut Random, shift: &mut Shift<'_>) {
        self.asked = shift.job.requests.write(key, random, &mut self.out);
        self.due_ns = due_ns;
        self.resent = false;
        self.look = shift.look().map_or(Look::Nothing, |check| match check {
            Check::Sample { .. } if self.asked.bytes > WHOLE_MAX => Look::Windows,
            Check::Nothing => Look::Nothing,
            Check::Sample { .. } | Check::Whole | Check::Digest => Look::Whole,
        });
        self.digest = (shift.job.check == Check::Digest).then(Sha256::new);
        self.rewind();
    }

    fn rewind(&mut self) {
        self.phase = Phase::Sending;
        self.sent = 0;
        self.filled = 0;
        self.wrong = 0;
    }

    /// The same on a new connection, once; false if it must be given up.
    pub fn again(&mut self, wire: Wire) -> bool {
        self.wire = wire;
        self.waits_to_send = false;
        self.closes = false;
        let stale = self.is_stale();
        self.answered = 0;
        if stale && !self.resent {
            self.resent = true;
            self.rewind();
            return true;
        }
        self.phase = Phase::Idle;
        false
    }

    /// A kept connection that ended before the answer began: the server may have closed it while it rested.
    fn is_stale(&self) -> bool {
        let unanswered = matches!(self.phase, Phase::Sending | Phase::Head) && self.filled == 0;
        self.answered > 0 && unanswered
    }

    /// Does what can be done now.
    pub fn turn(&mut self, shift: &mut Shift<'_>) -> Turn {
        match self.advance(shift) {
            Ok(turn) => turn,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Turn::Waits,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Turn::Waits,
            Err(error) => {
                self.lost(shift, &error.to_string());
                Turn::Lost
            }
        }
    }

    fn lost(&self, shift: &mut Shift<'_>, why: &str) {
        if self.phase == Phase::Idle || (self.is_stale() && !self.resent) {
            return;
        }
        if self.phase == Phase::Body {
            shift.tally.wrong_bytes += self.left;
        }
        let (phase, at) = (self.phase, self.at);
        shift.tally.fail(|| match phase {
            Phase::Body => format!("the body ended short, after {at} bytes: {why}"),
            Phase::Idle | Phase::Sending | Phase::Head => format!("the connection ended: {why}"),
        });
    }

    fn advance(&mut self, shift: &mut Shift<'_>) -> io::Result<Turn> {
        for _ in 0..TURN_READS {
            let turn = match self.phase {
                Phase::Idle => self.read_nothing(shift)?,
                Phase::Sending => self.send(shift)?,
                Phase::Head => self.read_head(shift)?,
                Phase::Body => self.read_body(shift)?,
            };
            if let Some(turn) = turn {
                return Ok(turn);
            }
        }
        Ok(Turn::Waits)
    }

    /// An idle connection has nothing to say but its end.
    fn read_nothing(&mut self, shift: &mut Shift<'_>) -> io::Result<Option<Turn>> {
        match self.wire.receive(&mut shift.scratch[..1])? {
            0 => Ok(Some(Turn::Lost)),
            _ => Err(io::Error::other("bytes that nobody asked for")),
        }
    }

    fn send(&mut self, shift: &mut Shift<'_>) -> io::Result<Option<Turn>> {
        let head = self.out.len() as u64;
        let upload = match shift.job.requests.method {
            Method::Put => self.asked.bytes,
            Method::Get | Method::Head => 0,
        };
        while self.sent < head + upload {
            let piece = match self.sent.checked_sub(head) {
                None => &self.out[self.sent as usize..],
                Some(at) => shift
                    .job
                    .requests
                    .bodies
                    .slice(self.asked.key, at, UPLOAD_PIECE),
            };
            let taken = self.wire.send(piece)? as u64;
            if taken == 0 {
                return Ok(Some(Turn::WaitsToSend));
            }
            if self.sent >= head {
                shift.tally.bytes += taken;
            }
            self.sent += taken;
        }
        if self.wire.holds_back() {
            self.wire.send(&[])?;
            if self.wire.holds_back() {
                return Ok(Some(Turn::WaitsToSend));
            }
        }
        self.phase = Phase::Head;
        // The answer cannot be there yet.
        Ok(Some(Turn::Waits))
    }

    fn read_head(&mut self, shift: &mut Shift<'_>) -> io::Result<Option<Turn>> {
        let read = self.wire.receive(&mut self.head[self.filled..])?;
        if read == 0 {
            return Err(io::Error::other("closed before an answer"));
        }
        if self.filled == 0 {
            shift.look_at_clock();
            self.first_ns = shift.now_ns;
        }
        self.filled += read;
        match head::parse(&self.head[..self.filled]) {
            Err(_) => Err(io::Error::other("an answer that is not HTTP/1")),
            Ok(None) if self.filled == HEAD_BYTES => Err(io::Error::other("a head beyond 8 KiB")),
            Ok(None) => Ok(None),
            Ok(Some(head)) => self.take_head(head, shift),
        }
    }

    /// What is wrong with an answer's head.
    fn unfit(&self, status: u16, announced: Option<u64>, accepted: bool) -> String {
        let line = self.out.split(|&byte| byte == b'\r').next();
        let line = String::from_utf8_lossy(line.unwrap_or_default());
        let request = line.trim_end_matches(" HTTP/1.1");
        let length = announced.map_or("unknown length".to_string(), |bytes| {
            format!("{bytes} bytes")
        });
        match self.asked.bytes {
            0 => format!("{request}: answer {status} of {length}"),
            want if accepted => {
                format!("{request}: answer {status} of {length} where {want} are due")
            }
            _ => format!("{request}: answer {status}"),
        }
    }

    fn take_head(&mut self, head: AnswerHead, shift: &mut Shift<'_>) -> io::Result<Option<Turn>> {
        let requests = &shift.job.requests;
        self.closes = head.closes;
        if head.status == 100 {
            self.head.copy_within(head.bytes..self.filled, 0);
            self.filled -= head.bytes;
            return Ok(None);
        }
        let announced = head.length;
        let right_length = match requests.method {
            Method::Get if shift.job.check == Check::Digest => announced.is_some(),
            Method::Get | Method::Head => announced == Some(self.asked.bytes),
            Method::Put => true,
        };
        if !requests.accepts(head.status) || !right_length {
            if requests.method != Method::Put && requests.accepts(head.status) {
                let missing = self.asked.bytes.saturating_sub(announced.unwrap_or(0));
                shift.tally.wrong_bytes += missing;
            }
            let accepted = requests.accepts(head.status);
            shift
                .tally
                .fail(|| self.unfit(head.status, announced, accepted));
            // What follows is not the body that was asked for: a new connection is simplest.
            self.phase = Phase::Idle;
            return Ok(Some(Turn::Lost));
        }
        self.at = 0;
        self.left = match requests.method {
            Method::Head => 0,
            Method::Get | Method::Put => announced.unwrap_or(0),
        };
        self.phase = Phase::Body;
        let came = (self.filled - head.bytes) as u64;
        if came > self.left {
            return Err(io::Error::other("bytes behind the body"));
        }
        let came = &self.head[head.bytes..self.filled];
        let wrong = inspect(self.look, self.asked, 0, came, shift);
        if let Some(digest) = &mut self.digest {
            digest.update(came);
        }
        self.count(self.filled - head.bytes, wrong, shift);
        Ok((self.left == 0).then(|| self.finish(shift)))
    }

    fn read_body(&mut self, shift: &mut Shift<'_>) -> io::Result<Option<Turn>> {
        let into_window = self.at % WINDOW_EVERY;
        let (keep, most) = match self.look {
            Look::Nothing => (false, u64::MAX),
            Look::Whole => (true, u64::MAX),
            Look::Windows if into_window < WINDOW_BYTES => (true, WINDOW_BYTES - into_window),
            Look::Windows => (false, WINDOW_EVERY - into_window),
        };
        let want = self.left.min(most) as usize;
        let (read, wrong) = if keep {
            let want = want.min(shift.scratch.len());
            let read = self.wire.receive(&mut shift.scratch[..want])?;
            let scratch = std::mem::take(&mut shift.scratch);
            let wrong = inspect(Look::Whole, self.asked, self.at, &scratch[..read], shift);
            if let Some(digest) = &mut self.digest {
                digest.update(&scratch[..read]);
            }
            shift.scratch = scratch;
            (read, wrong)
        } else {
            let want = want.min(shift.sink.len());
            (self.wire.discard(&mut shift.sink[..want])?, 0)
        };
        if read == 0 {
            return Err(io::Error::other("closed inside the body"));
        }
        self.count(read, wrong, shift);
        if self.left > 0 {
            return Ok(None);
        }
        shift.look_at_clock();
        Ok(Some(self.finish(shift)))
    }

    fn count(&mut self, bytes: usize, wrong: u64, shift: &mut Shift<'_>) {
        self.at += bytes as u64;
        self.left -= bytes as u64;
        self.wrong += wrong;
        if shift.job.requests.method == Method::Get {
            shift.tally.bytes += bytes as u64;
        }
    }

    fn finish(&mut self, shift: &mut Shift<'_>) -> Turn {
        self.phase = Phase::Idle;
        self.answered += 1;
        let now = shift.now_ns;
        let (wrong, key) = (self.wrong, self.asked.key);
        let tally = &mut shift.tally;
        tally.last_ns = now;
        if self.look != Look::Nothing && shift.job.requests.method == Method::Get {
            tally.verified_bodies += 1;
        }
        if let Some(digest) = self.digest.take() {
            tally.digests.push((key, hex(&digest.finalize())));
            tally.lengths.push((key, self.at));
        }
        if wrong > 0 {
            tally.wrong_bytes += wrong;
            tally.fail(|| format!("{wrong} wrong bytes in the body of key {key}"));
        } else {
            tally.requests += 1;
            tally.latency.record_ns(now.saturating_sub(self.due_ns));
            tally
                .first_byte
                .record_ns(self.first_ns.saturating_sub(self.due_ns));
        }
        Turn::Done
    }
}

/// How many of the bytes at `at` of the body are wrong, where they are looked at.
fn inspect(look: Look, asked: Asked, at: u64, bytes: &[u8], shift: &Shift<'_>) -> u64 {
    match look {
        Look::Nothing => 0,
        Look::Windows | Look::Whole if shift.job.requests.method != Method::Get => 0,
        Look::Windows | Look::Whole => {
            shift
                .job
                .requests
                .bodies
                .wrong(asked.key, asked.start + at, bytes)
        }
    }
}

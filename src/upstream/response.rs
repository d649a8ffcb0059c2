//! One response: its head's bytes, and its body decoded into the caller's memory as it comes.
//!
//! Made by `exchange`; read by fills (into slots) and by the pass-through. Body bytes go from the socket, or from the TLS scratch
//! area, straight into the caller's slice; only what came along with the head is copied from there first.
//! A body that ends early is an error, never an end. The connection goes back to the pool with the last byte of a body that
//! is whole, whoever is slow afterwards; in every other case it closes with this value.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::http::{HeadLimits, Method, ResponseBody, ResponseHead, parse_response};

use super::Upstream;
use super::chunked_body::{ChunkedBody, Decoded, Received};
use super::conn::{Awaiting, Conn, DetachedConn, Piece};
use super::error::UpstreamError;
use super::heads::FinalHead;

/// How far the body is.
enum Body {
    /// Bytes announced, all of the body.
    Length(u64),
    Chunked(Box<ChunkedBody>),
    UntilClose,
    /// Whole, or none at all.
    Done,
    /// Broken off: every further read says so.
    Broken,
}

/// What moves between shards with the connection.
struct State {
    status: u16,
    method: Method,
    keep_alive: bool,
    length: Option<u64>,
    /// The head, and what came along with it from `body_at` on.
    bytes: Vec<u8>,
    head_bytes: usize,
    body_at: usize,
    body: Body,
    trailers: Vec<u8>,
    received: u64,
    address: SocketAddr,
    waited_ns: u64,
    by_fallback: bool,
}

/// A response whose head has come and whose body is being read.
pub struct Response {
    upstream: Rc<Upstream>,
    conn: Option<Conn>,
    state: State,
}

/// A response on its way to another shard: the connection with its TLS session, what was received, and how far it is.
pub struct DetachedResponse {
    conn: Option<DetachedConn>,
    state: State,
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<DetachedResponse>();
};

impl Response {
    pub(super) fn new(
        upstream: &Rc<Upstream>,
        mut conn: Conn,
        head: FinalHead,
        waited_ns: u64,
    ) -> Self {
        let mut bytes = std::mem::take(&mut conn.inbox);
        let (length, body) = match head.body {
            ResponseBody::None => (Some(0), Body::Done),
            ResponseBody::Length(0) => (Some(0), Body::Done),
            ResponseBody::Length(total) => (Some(total), Body::Length(total)),
            ResponseBody::UntilClose => (None, Body::UntilClose),
            ResponseBody::Chunked => {
                let wire = bytes.split_off(head.bytes);
                (None, Body::Chunked(Box::new(ChunkedBody::new(wire))))
            }
        };
        let state = State {
            status: head.status,
            method: head.method,
            keep_alive: head.keep_alive,
            length,
            bytes,
            head_bytes: head.bytes,
            body_at: head.bytes,
            body,
            trailers: Vec::new(),
            received: 0,
            address: conn.address(),
            waited_ns,
            by_fallback: false,
        };
        let mut response = Self {
            upstream: Rc::clone(upstream),
            conn: Some(conn),
            state,
        };
        response.release_if_done();
        response
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.state.status
    }

    /// The address that answered.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.state.address
    }

    /// Nanoseconds from the sent request to the head; 0 for a request that the caller sent itself.
    #[must_use]
    pub fn waited_ns(&self) -> u64 {
        self.state.waited_ns
    }

    /// Whether a fallback said it in the place of its origin.
    #[must_use]
    pub fn is_by_fallback(&self) -> bool {
        self.state.by_fallback
    }

    pub(super) fn set_by_fallback(&mut self) {
        self.state.by_fallback = true;
    }

    /// How old it was when it came, as a parent millrace says.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        super::chain::age_ms(&self.head())
    }

    /// The head as it came, with its blank line.
    #[must_use]
    pub fn head_bytes(&self) -> &[u8] {
        &self.state.bytes[..self.state.head_bytes]
    }

    /// The head, parsed again.
    #[must_use]
    pub fn head(&self) -> ResponseHead<'_> {
        let limits = HeadLimits {
            head_bytes_max: usize::MAX,
            headers_max: usize::MAX,
        };
        match parse_response(self.head_bytes(), self.state.method, &limits) {
            Ok(Some(head)) => head,
            Ok(None) | Err(_) => unreachable!("these bytes have been parsed before"),
        }
    }

    /// Bytes of the whole body if that is known: `Content-Length`, or 0 where there is no body.
    #[must_use]
    pub fn body_length(&self) -> Option<u64> {
        self.state.length
    }

    /// Body bytes read so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.state.received
    }

    /// Whether the whole body has been read.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.state.body, Body::Done)
    }

    /// The trailer lines behind a chunked body, as they came, each with its CRLF; there when the body is done.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.state.trailers
    }

    /// The connection is not to be used again, whatever the response says.
    pub fn poison(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.poison();
        }
    }

    /// Waits for the origin, for callers that wait for other things too: after [`Response::try_read`] said `None`. No deadline.
    ///
    /// # Errors
    /// [`UpstreamError::Reset`].
    pub async fn readable(&self) -> Result<(), UpstreamError> {
        match &self.conn {
            Some(conn) => conn.readable().await,
            None => Ok(()),
        }
    }

    /// Reads body bytes into `out` (not empty): 0 is the end of a whole body. The idle deadline runs only while this waits.
    ///
    /// # Errors
    /// [`UpstreamError::ShortBody`], [`UpstreamError::IdleTimeout`], [`UpstreamError::BadChunk`],
    /// [`UpstreamError::Reset`], [`UpstreamError::Tls`].
    pub async fn read(&mut self, out: &mut [u8]) -> Result<usize, UpstreamError> {
        loop {
            if let Some(bytes) = self.try_read(out)? {
                return Ok(bytes);
            }
            if let Some(conn) = &self.conn {
                let _armed = Armed::new(conn);
                conn.readable().await?;
            }
        }
    }

    /// As [`Response::read`], but `Ok(None)` instead of waiting.
    ///
    /// # Errors
    /// As [`Response::read`].
    pub fn try_read(&mut self, out: &mut [u8]) -> Result<Option<usize>, UpstreamError> {
        assert!(!out.is_empty(), "a read into nothing looks like the end");
        let outcome = match &self.state.body {
            Body::Done => return Ok(Some(0)),
            Body::Broken => return Err(self.short()),
            Body::Length(total) => {
                let left = *total - self.state.received;
                let room = usize::try_from(left).map_or(out.len(), |left| left.min(out.len()));
                self.read_raw(&mut out[..room], false)
            }
            Body::UntilClose => self.read_raw(out, true),
            Body::Chunked(_) => self.read_chunked(out),
        };
        match outcome {
            Ok(read) => {
                self.advance(read);
                Ok(read)
            }
            Err(error) => Err(self.break_off(error)),
        }
    }

    /// What came along with the head, then the connection.
    fn read_raw(
        &mut self,
        out: &mut [u8],
        end_is_fine: bool,
    ) -> Result<Option<usize>, UpstreamError> {
        let prefix = &self.state.bytes[self.state.body_at..];
        if !prefix.is_empty() {
            let fits = prefix.len().min(out.len());
            out[..fits].copy_from_slice(&prefix[..fits]);
            self.state.body_at += fits;
            return Ok(Some(fits));
        }
        let Some(conn) = &mut self.conn else {
            return Err(self.short());
        };
        match conn.try_receive(out)? {
            None => Ok(None),
            Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) if end_is_fine => Ok(Some(0)),
            Some(Piece::End | Piece::Cut) => Err(self.short()),
        }
    }

    fn read_chunked(&mut self, out: &mut [u8]) -> Result<Option<usize>, UpstreamError> {
        let address = self.state.address;
        let bad = |source| UpstreamError::BadChunk { address, source };
        let (Body::Chunked(chunked), Some(conn)) = (&mut self.state.body, &mut self.conn) else {
            return Err(self.short());
        };
        loop {
            match chunked.decode(out).map_err(bad)? {
                Decoded::Data(bytes) => return Ok(Some(bytes)),
                Decoded::End => return Ok(Some(0)),
                Decoded::NeedMore => {}
            }
            match chunked.receive(conn, out)? {
                Received::Data(bytes) => return Ok(Some(bytes)),
                Received::Wire => {}
                Received::WouldBlock => return Ok(None),
                Received::Ended => return Err(self.short()),
            }
        }
    }

    /// Counts what was read, and ends the body if it is whole.
    fn advance(&mut self, read: Option<usize>) {
        let Some(bytes) = read else { return };
        self.state.received += bytes as u64;
        let whole = match &self.state.body {
            Body::Length(total) => self.state.received == *total,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::UntilClose => bytes == 0,
            Body::Done | Body::Broken => false,
        };
        if !whole {
            return;
        }
        if let Body::Chunked(chunked) = std::mem::replace(&mut self.state.body, Body::Done) {
            if chunked.has_unread() {
                self.poison();
            }
            self.state.trailers = chunked.into_trailers();
        }
        self.release_if_done();
    }

    /// Parts with the connection when the body is whole: to the pool if it can carry another request.
    fn release_if_done(&mut self) {
        if !self.is_done() {
            return;
        }
        let Some(mut conn) = self.conn.take() else {
            return;
        };
        if !self.state.keep_alive || self.state.body_at < self.state.bytes.len() {
            conn.poison();
        }
        self.upstream.give_back(conn);
    }

    fn short(&self) -> UpstreamError {
        UpstreamError::ShortBody {
            address: self.state.address,
            received: self.state.received,
            expected: self.state.length,
        }
    }

    fn break_off(&mut self, error: UpstreamError) -> UpstreamError {
        self.state.body = Body::Broken;
        self.conn = None;
        let error = match error {
            UpstreamError::IdleTimeout {
                address, after_ms, ..
            } => UpstreamError::IdleTimeout {
                address,
                after_ms,
                received: self.state.received,
            },
            other => other,
        };
        self.upstream.shared.events.failed(&error);
        error
    }

    /// Lets the response go. A connection whose body was read to its end has gone back to the pool already; any other closes.
    pub fn finish(self) {}

    /// Takes the response off this shard.
    ///
    /// # Errors
    /// [`UpstreamError::Reset`] when descriptors have run out; the response is lost then.
    pub fn detach(self) -> Result<DetachedResponse, UpstreamError> {
        let conn = self.conn.map(Conn::detach).transpose()?;
        Ok(DetachedResponse {
            conn,
            state: self.state,
        })
    }

    pub(super) fn attach(
        upstream: &Rc<Upstream>,
        detached: DetachedResponse,
    ) -> Result<Self, UpstreamError> {
        let conn = detached
            .conn
            .map(|conn| upstream.attach_conn(conn))
            .transpose()?;
        Ok(Self {
            upstream: Rc::clone(upstream),
            conn,
            state: detached.state,
        })
    }
}

/// The idle deadline, while somebody waits for the origin: also a dropped wait ends it, so that a slow client never
/// runs out the origin's time.
struct Armed<'c>(&'c Conn);

impl<'c> Armed<'c> {
    fn new(conn: &'c Conn) -> Self {
        conn.arm(Awaiting::Idle);
        Self(conn)
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        self.0.disarm();
    }
}

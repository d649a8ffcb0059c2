//! One connection to an origin: plain or TLS, bytes in and out, deadlines.
//!
//! Made by `dial`; used by `heads`, `exchange` and by the request row for uploads, which sends a body and reads heads in turn.
//! Methods that move bytes return at once, `Ok(None)` means "would block: await `readable` or `writable`"; all waiting is
//! for readiness only, so every future of this file may be dropped at any moment and loses no byte.
//! Deadlines are the caller's to arm: a passed one cuts the connection and turns into the error that fits what was awaited.
//!
//! Invariant: a connection on which anything went wrong is poisoned and never pooled.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::now_ms;
use crate::io::Socket;
use crate::io::watchdog::OnExpiry;
use crate::tls::{ClientSession, TlsFailure};

use super::Shared;
use super::addresses::Lease;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::heads::HeadProgress;
use super::permits::Permit;

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaiting {
    /// The response head: [`UpstreamError::FirstByteTimeout`].
    FirstByte,
    /// The next bytes of a body, or room for them: [`UpstreamError::IdleTimeout`].
    Idle,
}

/// What a receive brought.
pub(super) enum Piece {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The peer's orderly end of stream.
    End,
    /// End of stream without the end of the TLS session.
    Cut,
}

/// One connection to an origin.
pub struct Conn {
    pub(super) shared: Rc<Shared>,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) address: SocketAddr,
    pub(super) opened_ms: u64,
    /// Received and not yet given to anybody.
    pub(super) inbox: Vec<u8>,
    pub(super) reused: bool,
    socket: Socket,
    tls: Option<Box<ClientSession>>,
    pub(super) heads: HeadProgress,
    pub(super) poisoned: bool,
    awaiting: Cell<Awaiting>,
    limit_ms: Cell<u64>,
    idle_ms: Cell<u64>,
    _lease: Lease,
    // Last: the permit is free when the socket is closed.
    _permit: Permit,
}

/// A connection on its way to another shard.
pub(super) struct DetachedConn {
    pub endpoint: Arc<Endpoint>,
    pub address: SocketAddr,
    fd: OwnedFd,
    tls: Option<Box<ClientSession>>,
    opened_ms: u64,
    poisoned: bool,
}

/// What bounds and counts a connection.
pub(super) struct Holding {
    pub lease: Lease,
    pub permit: Permit,
}

impl Conn {
    pub(super) fn new(
        shared: &Rc<Shared>,
        endpoint: &Arc<Endpoint>,
        address: SocketAddr,
        socket: Socket,
        tls: Option<Box<ClientSession>>,
        holding: Holding,
    ) -> Self {
        Self {
            shared: Rc::clone(shared),
            endpoint: Arc::clone(endpoint),
            address,
            opened_ms: now_ms(),
            inbox: Vec::new(),
            reused: false,
            socket,
            tls,
            heads: HeadProgress::default(),
            poisoned: false,
            awaiting: Cell::new(Awaiting::FirstByte),
            limit_ms: Cell::new(0),
            idle_ms: Cell::new(shared.config.idle_timeout_ms),
            _lease: holding.lease,
            _permit: holding.permit,
        }
    }

    /// The address that was dialled.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint that it leads to.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Whether it has carried another request before: then the origin may have closed it meanwhile.
    #[must_use]
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// It is to be closed after this exchange, e.g. because the request was not sent to its end.
    pub fn poison(&mut self) {
        self.poisoned = true;
    }

    /// Waits until bytes, the end or an error can be read. Bytes that are already here (after a head) do not count.
    ///
    /// # Errors
    /// [`UpstreamError::Reset`].
    pub async fn readable(&self) -> Result<(), UpstreamError> {
        self.socket
            .readable()
            .await
            .map_err(|error| self.broken(error))
    }

    /// Waits until bytes can be written, or the connection has failed.
    ///
    /// # Errors
    /// [`UpstreamError::Reset`].
    pub async fn writable(&self) -> Result<(), UpstreamError> {
        self.socket
            .writable()
            .await
            .map_err(|error| self.broken(error))
    }

    /// Starts the time that the settings give for what is awaited; replaces an earlier deadline. Disarm while it is the client
    /// who is waited for.
    pub fn arm(&self, awaiting: Awaiting) {
        self.arm_for(
            awaiting,
            match awaiting {
                Awaiting::FirstByte => self.shared.config.first_byte_timeout_ms,
                Awaiting::Idle => self.idle_ms.get(),
            },
        );
    }

    /// From now on, until it is pooled, the origin may pause so long.
    pub fn may_idle(&self, idle_ms: u64) {
        self.idle_ms.set(idle_ms);
    }

    /// Starts a time of the caller's own, for answers that may take minutes.
    pub fn arm_for(&self, awaiting: Awaiting, limit_ms: u64) {
        self.awaiting.set(awaiting);
        self.limit_ms.set(limit_ms);
        self.socket.arm(now_ms() + limit_ms, OnExpiry::Cut);
    }

    /// No deadline.
    pub fn disarm(&self) {
        self.socket.disarm();
    }

    /// Reads what is there into `out` (not empty), decrypted; `Ok(Some(0))` is the orderly end, `Ok(None)` would block.
    ///
    /// # Errors
    /// A passed deadline, [`UpstreamError::Reset`], [`UpstreamError::Tls`], and [`UpstreamError::ShortBody`] if the TLS
    /// connection ended without the end of its session.
    pub fn try_read(&mut self, out: &mut [u8]) -> Result<Option<usize>, UpstreamError> {
        if !self.inbox.is_empty() {
            let fits = out.len().min(self.inbox.len());
            out[..fits].copy_from_slice(&self.inbox[..fits]);
            self.inbox.drain(..fits);
            return Ok(Some(fits));
        }
        match self.try_receive(out)? {
            None => Ok(None),
            Some(Piece::Bytes(bytes)) => Ok(Some(bytes)),
            Some(Piece::End) => Ok(Some(0)),
            Some(Piece::Cut) => Err(UpstreamError::ShortBody {
                address: self.address,
                received: 0,
                expected: None,
            }),
        }
    }

    /// Receives past the inbox, straight into `out`, which must not be empty.
    pub(super) fn try_receive(&mut self, out: &mut [u8]) -> Result<Option<Piece>, UpstreamError> {
        assert!(!out.is_empty(), "a receive into nothing looks like the end");
        let received = match &mut self.tls {
            None => self.socket.try_recv(out).map_err(TlsFailure::Socket),
            Some(tls) => tls.try_read(&self.socket, &self.shared.scratch, out),
        };
        let piece = match received {
            Ok(None) => return Ok(None),
            Ok(Some(0)) => Piece::End,
            Ok(Some(bytes)) => {
                self.shared.events.received(bytes);
                return Ok(Some(Piece::Bytes(bytes)));
            }
            Err(TlsFailure::Truncated) => Piece::Cut,
            Err(error) => return Err(self.failed(error)),
        };
        self.poisoned = true;
        if self.socket.expired() {
            Err(self.timed_out())
        } else {
            Ok(Some(piece))
        }
    }

    /// Sends as much of `parts` as goes at once; `Ok(None)` would block. Under TLS what was taken may still wait in the session:
    /// see [`Conn::try_flush`]. After an error the origin's answer may still be there to read.
    ///
    /// # Errors
    /// A passed deadline, [`UpstreamError::Reset`], [`UpstreamError::Tls`].
    pub fn try_write(&mut self, parts: &[IoSlice<'_>]) -> Result<Option<usize>, UpstreamError> {
        let written = match &mut self.tls {
            None => self
                .socket
                .try_send(parts, false)
                .map_err(TlsFailure::Socket),
            Some(tls) => tls.try_write(&self.socket, parts),
        };
        match written {
            Ok(written) => {
                self.shared.events.sent(written.unwrap_or(0));
                Ok(written)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Sends what the TLS session still holds; true when it holds nothing. Without TLS always true.
    ///
    /// # Errors
    /// As [`Conn::try_write`].
    pub fn try_flush(&mut self) -> Result<bool, UpstreamError> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        let flushed = tls.try_flush(&self.socket);
        flushed.map_err(|error| self.failed(TlsFailure::Socket(error)))
    }

    /// Sends all of `bytes`. The caller arms the deadline.
    ///
    /// # Errors
    /// As [`Conn::try_write`].
    pub async fn send_all(&mut self, mut bytes: &[u8]) -> Result<(), UpstreamError> {
        while !bytes.is_empty() {
            match self.try_write(&[IoSlice::new(bytes)])? {
                Some(sent) => bytes = &bytes[sent..],
                None => self.writable().await?,
            }
        }
        while !self.try_flush()? {
            self.writable().await?;
        }
        Ok(())
    }

    /// Whether an idle connection can carry another request: open, and nothing came that nobody asked for.
    pub(super) fn is_alive(&mut self) -> bool {
        match (self.socket.peek(), &mut self.tls) {
            (Ok(None), _) => true,
            // Under TLS it may be a session ticket, which is no plaintext.
            (Ok(Some(1..)), Some(tls)) => {
                matches!(
                    tls.try_read(&self.socket, &self.shared.scratch, &mut [0]),
                    Ok(None)
                )
            }
            (Ok(Some(_)) | Err(_), _) => false,
        }
    }

    /// Whether it may be pooled after an exchange that ended well.
    pub(super) fn is_reusable(&mut self) -> bool {
        let settled = self.tls.as_mut().is_none_or(|tls| tls.is_settled());
        settled && !self.poisoned && self.inbox.is_empty() && !self.socket.expired()
    }

    /// Makes it ready to lie idle: no deadline, no buffers.
    pub(super) fn rest(&mut self) {
        self.socket.disarm();
        self.idle_ms.set(self.shared.config.idle_timeout_ms);
        self.inbox = Vec::new();
        self.heads = HeadProgress::default();
        if let Some(tls) = &mut self.tls {
            tls.shrink();
        }
    }

    /// Closes a connection that is between exchanges, the TLS session first.
    pub(super) fn retire(mut self) {
        if let Some(tls) = &mut self.tls
            && !self.poisoned
        {
            tls.close(&self.socket);
        }
    }

    pub(super) fn detach(self) -> Result<DetachedConn, UpstreamError> {
        self.socket.disarm();
        let address = self.address;
        let fd = self.socket.into_fd();
        let fd = fd.map_err(|source| UpstreamError::Reset { address, source })?;
        Ok(DetachedConn {
            endpoint: self.endpoint,
            address,
            fd,
            tls: self.tls,
            opened_ms: self.opened_ms,
            poisoned: self.poisoned,
        })
    }

    pub(super) fn attach(
        shared: &Rc<Shared>,
        detached: DetachedConn,
        holding: Holding,
    ) -> Result<Self, UpstreamError> {
        let address = detached.address;
        let socket = Socket::from_fd(detached.fd, &shared.watchdog);
        let socket = socket.map_err(|source| UpstreamError::Reset { address, source })?;
        let mut conn = Self::new(
            shared,
            &detached.endpoint,
            address,
            socket,
            detached.tls,
            holding,
        );
        conn.opened_ms = detached.opened_ms;
        conn.poisoned = detached.poisoned;
        Ok(conn)
    }

    fn failed(&mut self, error: TlsFailure) -> UpstreamError {
        self.poisoned = true;
        match error {
            TlsFailure::Socket(error) => self.broken(error),
            TlsFailure::Session(source) => UpstreamError::Tls {
                address: self.address,
                source,
            },
            TlsFailure::Truncated => self.broken(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }

    fn broken(&self, source: io::Error) -> UpstreamError {
        if self.socket.expired() {
            self.timed_out()
        } else {
            UpstreamError::Reset {
                address: self.address,
                source,
            }
        }
    }

    fn timed_out(&self) -> UpstreamError {
        let (address, after_ms) = (self.address, self.limit_ms.get());
        match self.awaiting.get() {
            Awaiting::FirstByte => UpstreamError::FirstByteTimeout { address, after_ms },
            Awaiting::Idle => UpstreamError::IdleTimeout {
                address,
                after_ms,
                received: 0,
            },
        }
    }
}

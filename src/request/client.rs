//! The client's connection as a request sees it: the socket, its session where it has one, its deadlines, and ways to send.
//!
//! Called by every step. All waiting is on readiness; a client that takes or gives no byte for `send_timeout` is cut by the watchdog, which
//! shows here as [`Gone`].

use std::cell::Cell;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::clock;
use crate::io::Socket;
use crate::io::lend::{LEND_BYTES_MAX, Lender, Lent};
use crate::io::watchdog::OnExpiry;
use crate::shard::Shard;
use crate::shard::message::DoorKind;
use crate::tls::TlsServer;

use super::tunnel::Near;

/// The client is not there any more, or too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// It closed or reset the connection.
    #[error("the client has gone")]
    Left,
    /// It took or gave no byte in time.
    #[error("the client was too slow")]
    Slow,
}

/// Who a client is, and how it came.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Its address; behind a balancer that says for whom it asks, that one.
    pub address: SocketAddr,
    /// The door.
    pub door: &'static str,
    /// The version of TLS; empty where there is none.
    pub tls: &'static str,
}

/// One client connection.
pub struct Client {
    /// Its socket.
    pub socket: Socket,
    /// Who it is.
    pub peer: Peer,
    /// Its session, at the TLS door.
    tls: Option<Box<TlsServer>>,
    lender: Rc<Lender>,
    /// Bytes of the next call that sends by reference.
    step_bytes: Cell<usize>,
    send_timeout_ms: u64,
    /// Since when bytes of a request body are waited for in vain.
    hungry_since_ms: Cell<Option<u64>>,
    /// Bytes sent since this connection last let others go first. An answer is sent in many pieces, so it is kept between them.
    since_pause: Cell<usize>,
}

/// Bytes sent without a pause before other tasks of the shard get a turn.
const FAIR_BYTES: usize = 2 << 20;
/// The most bytes given to one call that copies.
const STEP_BYTES: usize = 1 << 20;
/// The fewest bytes given to one call that sends by reference.
const STEP_BYTES_MIN: usize = 64 << 10;
/// How often a client that is not read from is looked at.
const LOOK_MS: u64 = 250;

impl Client {
    /// Takes over a connection.
    #[must_use]
    pub fn new(socket: Socket, address: SocketAddr, shard: &Rc<Shard>) -> Self {
        let (door, tls) = (DoorKind::Http.text(), "");
        Self {
            socket,
            peer: Peer { address, door, tls },
            tls: None,
            lender: Rc::clone(&shard.lender),
            step_bytes: Cell::new(LEND_BYTES_MAX),
            send_timeout_ms: shard.policy().send_timeout_ms,
            hungry_since_ms: Cell::new(None),
            since_pause: Cell::new(0),
        }
    }

    /// The same inside a TLS session.
    #[must_use]
    pub fn with_tls(mut self, tls: Box<TlsServer>) -> Self {
        self.peer.door = DoorKind::Tls.text();
        self.peer.tls = tls.version();
        self.tls = Some(tls);
        self
    }

    pub(super) fn session(&self) -> Option<&TlsServer> {
        self.tls.as_deref()
    }

    /// This end of a tunnel.
    #[must_use]
    pub fn near(&self) -> Near<'_> {
        Near {
            socket: &self.socket,
            session: self.session(),
        }
    }

    /// So many bytes went out.
    pub(super) fn sent(&self, bytes: usize) {
        self.since_pause.set(self.since_pause.get() + bytes);
    }

    /// Whether what is sent is encrypted, and so not sent by reference.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn gone(&self) -> Gone {
        if self.socket.expired() {
            Gone::Slow
        } else {
            Gone::Left
        }
    }

    /// Waits until the client takes bytes.
    ///
    /// # Errors
    /// The client left or was too slow.
    pub async fn writable(&self) -> Result<(), Gone> {
        self.since_pause.set(0);
        self.socket
            .arm(clock::now_ms() + self.send_timeout_ms, OnExpiry::Cut);
        let result = self.socket.writable().await;
        if self.socket.expired() {
            return Err(Gone::Slow);
        }
        self.socket.disarm();
        result.map_err(|_| self.gone())
    }

    /// Waits until the client gives bytes (a request body). What carries none, as a record of TLS can, wins no time: that ends with
    /// [`Client::fed`].
    ///
    /// # Errors
    /// The client left or was too slow.
    pub async fn readable(&self) -> Result<(), Gone> {
        let since_ms = self.hungry_since_ms.get().unwrap_or_else(clock::now_ms);
        self.hungry_since_ms.set(Some(since_ms));
        self.socket
            .arm(since_ms + self.send_timeout_ms, OnExpiry::Cut);
        let result = self.socket.readable().await;
        if self.socket.expired() {
            return Err(Gone::Slow);
        }
        self.socket.disarm();
        result.map_err(|_| self.gone())
    }

    /// It has given bytes, or was told something to go on by.
    pub(super) fn fed(&self) {
        self.hungry_since_ms.set(None);
    }

    /// Sends what the client takes now of `first` and then `second`, by copy; says how many bytes. In a session nothing: what is encrypted has to
    /// be waited for.
    ///
    /// # Errors
    /// The client left or was too slow.
    pub fn try_send(&self, first: &[u8], second: &[u8]) -> Result<usize, Gone> {
        if self.tls.is_some() {
            return Ok(0);
        }
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        let parts = if second.is_empty() {
            &parts[..1]
        } else {
            &parts[..]
        };
        let sent = self
            .socket
            .try_send(parts, false)
            .map_err(|_| self.gone())?;
        Ok(sent.unwrap_or(0))
    }

    /// Sends `first` and then `second` by copy; `more` says that more follows at once.
    ///
    /// # Errors
    /// The client left or was too slow.
    pub async fn send(&self, mut first: &[u8], mut second: &[u8], more: bool) -> Result<(), Gone> {
        if let Some(tls) = &self.tls {
            return self.send_encrypted(tls, first, second).await;
        }
        while !first.is_empty() || !second.is_empty() {
            self.take_turn().await?;
            let step = second.len().min(STEP_BYTES);
            let parts = [IoSlice::new(first), IoSlice::new(&second[..step])];
            let parts = if first.is_empty() {
                &parts[1..]
            } else {
                &parts[..]
            };
            let Some(sent) = self
                .socket
                .try_send(parts, more || step < second.len())
                .map_err(|_| self.gone())?
            else {
                self.writable().await?;
                continue;
            };
            let of_first = sent.min(first.len());
            first = &first[of_first..];
            second = &second[sent - of_first..];
            self.since_pause.set(self.since_pause.get() + sent);
        }
        Ok(())
    }

    /// Sends bytes of the slab by reference.
    ///
    /// # Errors
    /// The client left or was too slow.
    pub async fn send_by_reference(&self, mut lent: Lent<'_>) -> Result<(), Gone> {
        while !lent.is_empty() {
            self.take_turn().await?;
            let step = lent.len().min(self.step_bytes.get());
            match self
                .lender
                .send(&self.socket, lent, step)
                .map_err(|_| self.gone())?
            {
                Some(0) => return Err(Gone::Left),
                Some(sent) => {
                    lent = lent.skip(sent);
                    self.since_pause.set(self.since_pause.get() + sent);
                    self.stepped(step, sent);
                }
                None => self.writable().await?,
            }
        }
        Ok(())
    }

    /// Lets the other connections of the shard go first, when this one has sent its share.
    pub(super) async fn take_turn(&self) -> Result<(), Gone> {
        if self.since_pause.get() >= FAIR_BYTES {
            self.writable().await?;
        }
        Ok(())
    }

    /// The next step is what the client took of this one, or more if it took all: what it does not take was lent in vain.
    fn stepped(&self, step: usize, sent: usize) {
        let next = if sent < step {
            sent.next_power_of_two()
        } else {
            self.step_bytes.get() * 2
        };
        self.step_bytes
            .set(next.clamp(STEP_BYTES_MIN, LEND_BYTES_MAX));
    }

    /// Waits until the client leaves. Bytes of a next request do not count; then this never ends.
    pub async fn leaves(&self) {
        loop {
            if self.socket.readable().await.is_err() {
                return;
            }
            let seen = match &self.tls {
                None => self.socket.peek(),
                Some(tls) => tls.peek(&self.socket),
            };
            match seen {
                Ok(Some(0)) | Err(_) => return,
                Ok(Some(_)) => return std::future::pending().await,
                Ok(None) => {}
            }
        }
    }

    /// Waits until the client leaves, whatever it has sent before and nobody reads; noticed by a look now and then.
    pub async fn leaves_unread(&self) {
        while !self.socket.is_left() {
            self.socket.arm(clock::now_ms() + LOOK_MS, OnExpiry::Tell);
            self.socket.expiry().await;
            self.socket.forgive();
        }
    }

    /// Ends what [`Client::leaves_unread`] has begun.
    pub fn look_no_more(&self) {
        self.socket.disarm();
        self.socket.forgive();
    }

    /// Makes the coming close an error for the client: a body that is not whole must not look whole.
    pub fn cut(&self) {
        self.socket.reset_on_close();
    }
}

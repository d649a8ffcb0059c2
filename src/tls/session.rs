//! One TLS session over a non-blocking socket: ciphertext in large pieces, plaintext into the caller's slice. Either end of it.
//!
//! Called by `upstream::conn` (to origins) and by [`super::server`] (from clients). Uses rustls' unbuffered interface: records are
//! decrypted where they were received, in a scratch area that all sessions of a shard share, so that an idle session keeps no buffer and a
//! large body is received in few system calls. What the caller had no room for stays in the session: at most one record decrypted, and what
//! was received beyond it. `Send`, so that a session can move to another shard with its connection.
//!
//! Invariants: `outgoing` is sent before anything new is encrypted for it; once a record was refused every call says so.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};

use crate::io::Socket;

use super::TlsError;

/// The scratch area, and so the most that is received in one call.
pub(super) const SCRATCH_BYTES: usize = 256 * 1024;

/// Plaintext of one record at most, and ciphertext with its header (RFC 8446, section 5.2; RFC 5246, section 6.2.3).
const RECORD_PLAIN_BYTES: usize = 16 * 1024;
const RECORD_CIPHER_BYTES: usize = RECORD_PLAIN_BYTES + 2048 + 5;

/// Plaintext encrypted in one go; more is taken when it has been sent.
const WRITE_BYTES: usize = 64 * 1024;

/// Receives in one read at most, so that a fast origin does not keep the shard to itself.
const RECEIVES_MAX: usize = 8;

/// Ciphertext of one handshake flight at most; certificate chains are a few KiB.
const HANDSHAKE_BYTES_MAX: usize = 256 * 1024;

/// The area in which a shard's sessions decrypt, and in which those of clients encrypt.
#[derive(Default)]
pub struct TlsScratch(pub(super) RefCell<Vec<u8>>);

/// Which end of a session we are.
pub trait Side {
    /// What rustls keeps for that end.
    type Data;

    /// Lets the session look at what was received.
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both ends have.
    fn common(&self) -> &CommonState;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// Why a session's read or write failed.
#[derive(Debug)]
pub enum TlsFailure {
    /// The connection below.
    Socket(io::Error),
    /// The session itself.
    Session(TlsError),
    /// The connection ended without the session's own end: what came may be cut.
    Truncated,
}

impl From<io::Error> for TlsFailure {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<TlsError> for TlsFailure {
    fn from(error: TlsError) -> Self {
        Self::Session(error)
    }
}

impl From<rustls::Error> for TlsFailure {
    fn from(error: rustls::Error) -> Self {
        Self::Session(TlsError::Refused(error))
    }
}

/// What the handshake needs next.
enum Handshake {
    Established,
    Receive,
    Again,
}

/// Our session as a client of an origin.
pub type ClientSession = TlsSession<UnbufferedClientConnection>;
/// A client's session with us.
pub type ServerSession = TlsSession<UnbufferedServerConnection>;

/// A TLS session.
pub struct TlsSession<S: Side> {
    rustls: Box<S>,
    handshake_bytes_max: usize,
    /// Ciphertext received and not yet decrypted: mostly a part of a record.
    incoming: Vec<u8>,
    /// Ciphertext to send, from `sent` on.
    pub(super) outgoing: Vec<u8>,
    sent: usize,
    /// Plaintext that the caller had no room for, from `plain_at` on.
    pub(super) plain: Vec<u8>,
    pub(super) plain_at: usize,
    peer_closed: bool,
    refused: Option<TlsError>,
}

impl ClientSession {
    /// A session with the origin of this name, with nothing sent yet.
    ///
    /// # Errors
    /// The configuration does not fit.
    pub fn to(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        let side = UnbufferedClientConnection::new(config, name)?;
        Ok(Self::new(side, HANDSHAKE_BYTES_MAX))
    }
}

impl ServerSession {
    /// A session with whoever has connected.
    ///
    /// # Errors
    /// The configuration does not fit.
    pub fn from_client(
        config: Arc<ServerConfig>,
        handshake_bytes_max: usize,
    ) -> Result<Self, rustls::Error> {
        let side = UnbufferedServerConnection::new(config)?;
        Ok(Self::new(side, handshake_bytes_max))
    }
}

impl<S: Side> TlsSession<S> {
    fn new(side: S, handshake_bytes_max: usize) -> Self {
        Self {
            rustls: Box::new(side),
            handshake_bytes_max,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            sent: 0,
            plain: Vec::new(),
            plain_at: 0,
            peer_closed: false,
            refused: None,
        }
    }

    /// What rustls knows of the session.
    pub(super) fn common(&self) -> &CommonState {
        self.rustls.common()
    }

    /// Whether the handshake was the short one of a resumed session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.common().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Whether the session is between exchanges: open, and nothing that was received is left unread. Tickets and key updates
    /// that came behind the last byte read are dealt with.
    pub fn is_settled(&mut self) -> bool {
        let settled = self.incoming.is_empty() || self.with_write_traffic(|_, _| {}).is_ok();
        let unread = self.plain_at < self.plain.len() || !self.incoming.is_empty();
        settled && !unread && !self.peer_closed && self.refused.is_none()
    }

    /// Performs the handshake. May be dropped at any moment, with the connection.
    pub async fn handshake(&mut self, socket: &Socket) -> Result<(), TlsFailure> {
        loop {
            match self.handshake_step() {
                Ok(Handshake::Again) => {}
                Ok(Handshake::Established) if !self.common().is_handshaking() => {
                    return self.send_all(socket).await;
                }
                Ok(Handshake::Established | Handshake::Receive) => {
                    self.send_all(socket).await?;
                    self.receive_handshake(socket).await?;
                }
                Err(error) => {
                    self.alert(socket);
                    return Err(error.into());
                }
            }
        }
    }

    fn handshake_step(&mut self) -> Result<Handshake, TlsError> {
        let status = self.rustls.process(&mut self.incoming);
        let mut discard = status.discard;
        let next = match status.state.map_err(TlsError::Refused)? {
            ConnectionState::EncodeTlsData(data) => {
                encode(&mut self.outgoing, data);
                Handshake::Again
            }
            ConnectionState::TransmitTlsData(transmit) => {
                // It is queued in `outgoing`, which is sent before anything that follows.
                transmit.done();
                Handshake::Again
            }
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(TlsError::Refused)?;
                    discard += record.discard;
                    self.plain.extend_from_slice(record.payload);
                }
                Handshake::Again
            }
            // A server of TLS 1.3 could write before it has the client's last flight; nothing is to be said before that.
            ConnectionState::WriteTraffic(_) => Handshake::Established,
            ConnectionState::BlockedHandshake => Handshake::Receive,
            _ => return Err(TlsError::ClosedInHandshake),
        };
        self.incoming.drain(..discard);
        Ok(next)
    }

    async fn receive_handshake(&mut self, socket: &Socket) -> Result<(), TlsFailure> {
        let old = self.incoming.len();
        if old >= self.handshake_bytes_max {
            return Err(TlsError::ClosedInHandshake.into());
        }
        loop {
            let room = RECORD_PLAIN_BYTES.min(self.handshake_bytes_max - old);
            self.incoming.resize(old + room, 0);
            let received = socket.try_recv(&mut self.incoming[old..]);
            self.incoming
                .truncate(old + received.as_ref().map_or(0, |n| n.unwrap_or(0)));
            match received? {
                Some(0) => return Err(TlsError::ClosedInHandshake.into()),
                Some(_) => return Ok(()),
                None => socket.readable().await?,
            }
        }
    }

    /// Decrypted bytes into `out`, which must not be empty; `Ok(Some(0))` is the session's own end, `Ok(None)` would block.
    pub fn try_read(
        &mut self,
        socket: &Socket,
        scratch: &TlsScratch,
        out: &mut [u8],
    ) -> Result<Option<usize>, TlsFailure> {
        let mut at = self.take_plain(out);
        if at == out.len() || (at > 0 && self.refused.is_some()) {
            return Ok(Some(at));
        }
        if let Some(error) = &self.refused {
            return Err(error.clone().into());
        }
        let mut area = scratch.0.borrow_mut();
        let mut filled = self.incoming.len();
        let area_bytes = area
            .len()
            .max(SCRATCH_BYTES)
            .max(filled + RECORD_CIPHER_BYTES);
        area.resize(area_bytes, 0);
        area[..filled].copy_from_slice(&self.incoming);
        self.incoming.clear();
        let outcome = self.fill(socket, &mut area, &mut filled, out, &mut at);
        self.incoming.extend_from_slice(&area[..filled]);
        drop(area);
        self.try_flush(socket)?;
        match outcome {
            _ if at > 0 => Ok(Some(at)),
            Ok(()) if self.peer_closed => Ok(Some(0)),
            Ok(()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Receives and decrypts until `out` is full or the socket is empty; `area[..filled]` is the ciphertext that is left.
    fn fill(
        &mut self,
        socket: &Socket,
        area: &mut [u8],
        filled: &mut usize,
        out: &mut [u8],
        at: &mut usize,
    ) -> Result<(), TlsFailure> {
        let mut drained = false;
        let mut receives = 0;
        loop {
            let used = self.decrypt(&mut area[..*filled], out, at);
            let used = used.inspect_err(|error| self.refused = Some(error.clone()))?;
            area.copy_within(used..*filled, 0);
            *filled -= used;
            // What is left here is less than a record, or `out` is full: a caller that waits for the socket misses nothing.
            if *at == out.len() || self.peer_closed || drained || receives == RECEIVES_MAX {
                return Ok(());
            }
            let records = (out.len() - *at).div_ceil(RECORD_PLAIN_BYTES);
            let wanted = (records * RECORD_CIPHER_BYTES).max(*filled + RECORD_CIPHER_BYTES);
            let end = area.len().min(wanted);
            match socket.try_recv(&mut area[*filled..end])? {
                None => return Ok(()),
                Some(0) => return Err(TlsFailure::Truncated),
                Some(received) => {
                    drained = received < end - *filled;
                    *filled += received;
                    receives += 1;
                }
            }
        }
    }

    /// Decrypts whole records while `out` has room; how much ciphertext that took.
    fn decrypt(
        &mut self,
        cipher: &mut [u8],
        out: &mut [u8],
        at: &mut usize,
    ) -> Result<usize, TlsError> {
        let mut used = 0;
        while *at < out.len() {
            let status = self.rustls.process(&mut cipher[used..]);
            used += status.discard;
            match status.state.map_err(TlsError::Refused)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(TlsError::Refused)?;
                        used += record.discard;
                        let fits = record.payload.len().min(out.len() - *at);
                        let (now, later) = record.payload.split_at(fits);
                        out[*at..*at + fits].copy_from_slice(now);
                        *at += fits;
                        self.plain.extend_from_slice(later);
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(&mut self.outgoing, data),
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.peer_closed = true;
                    break;
                }
                _ => break,
            }
        }
        Ok(used)
    }

    fn take_plain(&mut self, out: &mut [u8]) -> usize {
        let fits = out.len().min(self.plain.len() - self.plain_at);
        out[..fits].copy_from_slice(&self.plain[self.plain_at..self.plain_at + fits]);
        self.plain_at += fits;
        if self.plain_at == self.plain.len() {
            self.plain.clear();
            self.plain_at = 0;
        }
        fits
    }

    /// Encrypts and sends as much of `parts` as is taken at once; `Ok(None)` would block. What was taken may still wait in the
    /// session: see [`TlsSession::try_flush`].
    pub fn try_write(
        &mut self,
        socket: &Socket,
        parts: &[IoSlice<'_>],
    ) -> Result<Option<usize>, TlsFailure> {
        if !self.try_flush(socket)? {
            return Ok(None);
        }
        let mut taken = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let piece = &part[..part.len().min(WRITE_BYTES - taken)];
            if piece.is_empty() {
                break;
            }
            self.encrypt(piece)?;
            taken += piece.len();
        }
        self.try_flush(socket)?;
        Ok(Some(taken))
    }

    fn encrypt(&mut self, piece: &[u8]) -> Result<(), TlsError> {
        let mut exhausted = false;
        self.with_write_traffic(|traffic, outgoing| {
            append(outgoing, |room| match traffic.encrypt(piece, room) {
                Ok(written) => Ok(written),
                Err(EncryptError::InsufficientSize(error)) => Err(error.required_size),
                Err(EncryptError::EncryptExhausted) => {
                    exhausted = true;
                    Ok(0)
                }
            });
        })?;
        if exhausted {
            Err(TlsError::Refused(rustls::Error::EncryptError))
        } else {
            Ok(())
        }
    }

    /// Brings the session into the state in which it encrypts; plaintext that comes to light on the way is kept.
    pub(super) fn with_write_traffic(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, S::Data>, &mut Vec<u8>),
    ) -> Result<(), TlsError> {
        loop {
            let status = self.rustls.process(&mut self.incoming);
            let mut discard = status.discard;
            match status.state.map_err(TlsError::Refused)? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    write(&mut traffic, &mut self.outgoing);
                    self.incoming.drain(..discard);
                    return Ok(());
                }
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(TlsError::Refused)?;
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(data) => encode(&mut self.outgoing, data),
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => self.peer_closed = true,
                _ => return Err(TlsError::ClosedInHandshake),
            }
            self.incoming.drain(..discard);
        }
    }

    /// Sends what waits; true when nothing does.
    pub fn try_flush(&mut self, socket: &Socket) -> io::Result<bool> {
        while self.sent < self.outgoing.len() {
            match socket.try_send(&[IoSlice::new(&self.outgoing[self.sent..])], false)? {
                Some(sent) => self.sent += sent,
                None => return Ok(false),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(true)
    }

    async fn send_all(&mut self, socket: &Socket) -> Result<(), TlsFailure> {
        while !self.try_flush(socket)? {
            socket.writable().await?;
        }
        Ok(())
    }

    /// Tells the peer why, as far as the socket takes it.
    pub(super) fn alert(&mut self, socket: &Socket) {
        // Asked first: with nothing to encode the session would go on with input that it has refused.
        while self.common().wants_write() {
            match self.rustls.process(&mut self.incoming).state {
                Ok(ConnectionState::EncodeTlsData(data)) => encode(&mut self.outgoing, data),
                _ => break,
            }
        }
        let _ = self.try_flush(socket);
    }

    /// Ends the session, as far as the socket takes it; the connection is about to close.
    pub fn close(&mut self, socket: &Socket) {
        if self.refused.is_some() {
            return;
        }
        let ended = self.with_write_traffic(|traffic, outgoing| {
            append(outgoing, |room| match traffic.queue_close_notify(room) {
                Ok(written) => Ok(written),
                Err(EncryptError::InsufficientSize(error)) => Err(error.required_size),
                Err(EncryptError::EncryptExhausted) => Ok(0),
            });
        });
        if ended.is_ok() {
            let _ = self.try_flush(socket);
        }
    }

    /// Gives back the memory of buffers that are empty: the connection goes idle.
    pub fn shrink(&mut self) {
        for buffer in [&mut self.incoming, &mut self.outgoing, &mut self.plain] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }
}

/// Appends a handshake message, an alert or a key update.
fn encode<D>(buffer: &mut Vec<u8>, mut data: EncodeTlsData<'_, D>) {
    append(buffer, |room| match data.encode(room) {
        Ok(written) => Ok(written),
        Err(EncodeError::InsufficientSize(error)) => Err(error.required_size),
        Err(EncodeError::AlreadyEncoded) => Ok(0),
    });
}

/// Lets `write` append to `buffer`; it answers with what it wrote, or with the room that it needs.
fn append(buffer: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) {
    let old = buffer.len();
    let mut room = 1024;
    for _ in 0..2 {
        buffer.resize(old + room, 0);
        match write(&mut buffer[old..]) {
            Ok(written) => {
                buffer.truncate(old + written);
                return;
            }
            Err(required) => room = required,
        }
    }
    buffer.truncate(old);
}

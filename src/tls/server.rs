//! A client's TLS session, from its first byte to its end.
//!
//! Made by `listener::arrive`, kept by `request::client`. All calls return at once but the handshake; ciphertext that the socket does not take
//! waits in the session, and nothing new is encrypted before it has gone. A client that takes its answer slowly is given less at a time, so that it
//! does not keep a quarter of a MiB.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use rustls::{AlertDescription, Error, ProtocolVersion, ServerConfig};

use crate::io::Socket;
use crate::metrics::TlsHandshake;

use super::TlsError;
use super::send::SEND_BYTES;
use super::session::{ServerSession, TlsFailure, TlsScratch};

/// Ciphertext that one handshake may make us keep: certificates of the client included, if it is asked for them.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;
/// The least that is encrypted at a time, where there is so much.
const STEP_BYTES_MIN: usize = 32 * 1024;

/// A handshake came to nothing.
#[derive(Debug)]
pub struct ShakeError {
    /// Why, for the metrics.
    pub reason: TlsHandshake,
    /// In words.
    pub words: String,
}

/// A client's session.
pub struct TlsServer {
    session: RefCell<ServerSession>,
    scratch: Rc<TlsScratch>,
    step_bytes: Cell<usize>,
}

impl TlsServer {
    /// Performs the handshake; the caller bounds the time. May be dropped at any moment, with the socket.
    ///
    /// # Errors
    /// [`ShakeError`]; the client has been told, as far as it takes it.
    pub async fn shake(
        config: Arc<ServerConfig>,
        socket: &Socket,
        scratch: &Rc<TlsScratch>,
    ) -> Result<Box<Self>, ShakeError> {
        let session = ServerSession::from_client(config, HANDSHAKE_BYTES_MAX);
        let mut session = session.map_err(|error| ShakeError {
            reason: TlsHandshake::Protocol,
            words: error.to_string(),
        })?;
        session.handshake(socket).await.map_err(refused)?;
        session.shrink();
        Ok(Box::new(Self {
            session: RefCell::new(session),
            scratch: Rc::clone(scratch),
            step_bytes: Cell::new(SEND_BYTES),
        }))
    }

    /// Whether the session is one of before, taken up again.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.session.borrow().is_resumed()
    }

    /// The version, as the access log says it.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.session.borrow().common().protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "",
        }
    }

    /// Reads what is there into `out`, which must not be empty; `Ok(Some(0))` is the end that the client said, `Ok(None)` would block.
    ///
    /// # Errors
    /// The connection's, what the session refuses, and an end that the client did not say.
    pub fn try_read(&self, socket: &Socket, out: &mut [u8]) -> io::Result<Option<usize>> {
        let mut session = self.session.borrow_mut();
        let read = session.try_read(socket, &self.scratch, out);
        if let Err(TlsFailure::Session(_)) = &read {
            session.alert(socket);
        }
        read.map_err(broken)
    }

    /// Sends what the client takes now; says how many bytes are on their way. `Ok(None)`: wait until it takes something.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_send(
        &self,
        socket: &Socket,
        first: &[u8],
        second: &[u8],
    ) -> io::Result<Option<usize>> {
        let mut session = self.session.borrow_mut();
        let step = self.step_bytes.get();
        let taken = session
            .try_send(socket, &self.scratch, [first, second], step)
            .map_err(broken)?;
        if taken.is_some() {
            let next = match session.is_waiting() {
                true => step / 2,
                false => step * 2,
            };
            self.step_bytes.set(next.clamp(STEP_BYTES_MIN, SEND_BYTES));
            if next < STEP_BYTES_MIN {
                session.trim(2 * STEP_BYTES_MIN);
            }
        }
        Ok(taken)
    }

    /// Whether the socket has not taken everything yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.session.borrow().is_waiting()
    }

    /// Sends what waits, as far as the socket takes it; true when nothing does.
    ///
    /// # Errors
    /// The connection's.
    pub fn try_flush(&self, socket: &Socket) -> io::Result<bool> {
        self.session.borrow_mut().try_flush(socket)
    }

    /// Looks whether the client has left: `Ok(Some(0))`; `Ok(None)`: nothing has come.
    ///
    /// # Errors
    /// It is gone.
    pub fn peek(&self, socket: &Socket) -> io::Result<Option<usize>> {
        let mut byte = [0u8; 1];
        let read = self.try_read(socket, &mut byte)?;
        if read == Some(1) {
            self.session.borrow_mut().unread(byte[0]);
        }
        Ok(read)
    }

    /// Says that no more will come, as far as the socket takes it.
    pub fn close(&self, socket: &Socket) {
        self.session.borrow_mut().close(socket);
    }

    /// Gives back memory: the connection goes idle.
    pub fn rest(&self) {
        self.session.borrow_mut().shrink();
    }
}

fn broken(failure: TlsFailure) -> io::Error {
    match failure {
        TlsFailure::Socket(error) => error,
        TlsFailure::Session(error) => io::Error::new(io::ErrorKind::InvalidData, error),
        TlsFailure::Truncated => io::ErrorKind::UnexpectedEof.into(),
    }
}

fn refused(failure: TlsFailure) -> ShakeError {
    let (reason, words) = match failure {
        TlsFailure::Socket(error) => (TlsHandshake::Closed, error.to_string()),
        TlsFailure::Truncated | TlsFailure::Session(TlsError::ClosedInHandshake) => {
            (TlsHandshake::Closed, "the client left".to_owned())
        }
        TlsFailure::Session(error) => {
            let words = format!("{error}{}", error.hint_of_client());
            match error {
                TlsError::Refused(error) => (reason_of(&error), words),
                TlsError::ServerName { .. } | TlsError::ClosedInHandshake => {
                    (TlsHandshake::Protocol, words)
                }
            }
        }
    };
    ShakeError { reason, words }
}

fn reason_of(error: &Error) -> TlsHandshake {
    match error {
        Error::NoCertificatesPresented | Error::InvalidCertificate(_) => TlsHandshake::Certificate,
        Error::AlertReceived(AlertDescription::CloseNotify) => TlsHandshake::Closed,
        Error::AlertReceived(_) => TlsHandshake::Alert,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsHandshake::Protocol,
        _ => TlsHandshake::Malformed,
    }
}

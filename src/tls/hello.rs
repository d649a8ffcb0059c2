//! The host that a TLS client names in its hello, read without touching the bytes.
//!
//! Called by `listener::tunnel` with each piece that has come; the alerts also by `listener::acceptor`. The parser is rustls' own (`Acceptor`):
//! it joins what is spread over records, takes hellos of any size that its peers send, and is strict about what another parser might read
//! differently (a name twice, lengths that do not agree), so that the destination cannot find another name in the same bytes. Pure;
//! `fuzz/fuzz_targets/hello.rs` gives it anything.

use rustls::server::Acceptor;

use crate::metrics::TunnelRefusal;

/// What a refused client is told: a fatal alert (RFC 8446, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// `handshake_failure`: the hello names no host.
    HandshakeFailure = 40,
    /// `decode_error`: what came is no hello.
    DecodeError = 50,
    /// `internal_error`: not now.
    InternalError = 80,
    /// `unrecognized_name`: the host is no destination.
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as it goes out.
    #[must_use]
    pub fn record(self) -> [u8; 7] {
        [0x15, 3, 3, 0, 2, 2, self as u8]
    }
}

/// Why a hello leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoHello {
    /// For the metrics.
    pub reason: TunnelRefusal,
    /// For the client.
    pub alert: Alert,
}

/// A hello on its way.
#[derive(Default)]
pub struct Hello {
    acceptor: Acceptor,
}

impl Hello {
    /// Takes the next bytes; the name when the hello is whole.
    ///
    /// # Errors
    /// It is no hello, or names no host.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<Option<Box<str>>, NoHello> {
        let not_tls = NoHello {
            reason: TunnelRefusal::NotTls,
            alert: Alert::DecodeError,
        };
        while !bytes.is_empty() {
            let taken = self.acceptor.read_tls(&mut bytes);
            if !matches!(taken, Ok(1..)) {
                return Err(not_tls);
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Err(_) => return Err(not_tls),
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    return match hello.server_name() {
                        Some(name) => Ok(Some(name.to_ascii_lowercase().into())),
                        None => Err(NoHello {
                            reason: TunnelRefusal::NoName,
                            alert: Alert::HandshakeFailure,
                        }),
                    };
                }
            }
        }
        Ok(None)
    }
}

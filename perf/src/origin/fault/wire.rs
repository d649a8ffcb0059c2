//! The byte stream of one connection, plain or TLS.
//!
//! Made by the accept loop. Invariant: whatever the layer, the TCP socket below can be reached, because a reset is
//! a property of the socket. Left to others: everything said over it.

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

/// A connection.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

//! Sockets of the harness: listening and connecting with the same TCP settings everywhere.
//!
//! Called by the origins, the client and the demo. Invariant: every socket asks for the congestion control `cubic`,
//! inherited by what a listener accepts, because bbr paces by timers on loopback and hides every difference; where
//! the kernel does not have it, the system's choice stays. Left to others: TLS, timeouts.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const CONGESTION: &[u8] = b"cubic";
const BACKLOG: i32 = 1024;

/// Binds a listening socket; port 0 takes a free one.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // A kernel without cubic keeps its own choice: a slower measurement, not a failure.
    let _ = socket.set_tcp_congestion(CONGESTION);
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Connects with `TCP_NODELAY`.
pub async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let _ = socket.set_tcp_congestion(CONGESTION);
    let stream = TcpSocket::from_std_stream(socket.into())
        .connect(addr)
        .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A loopback address whose port was free a moment ago, for a process that cannot report the port it was given.
pub fn free_loopback_addr() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Makes the next close of this socket a reset.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
}

//! Where the load goes and the wire to it: a plain socket, or TLS over one.
//!
//! Called by the connections of a worker. Invariants: a wire connects (and shakes hands) blocking, before anything is
//! measured, and never blocks after that; [`Wire::discard`] drops body bytes inside the kernel where the wire is
//! plain, so that the client copies nothing. Left to others: HTTP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::{Domain, Protocol, Socket, Type};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CONGESTION: &[u8] = b"cubic";

/// Why an endpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not an URL of a server.
    #[error("{0}: not http(s)://host[:port]")]
    Url(String),
    /// The name leads nowhere.
    #[error("{name}: {error}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// The trust anchors cannot be read.
    #[error("certificates to trust: {0}")]
    Anchors(String),
}

/// TLS to the target.
#[derive(Debug, Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// A server to ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its address.
    pub addr: SocketAddr,
    /// The value of `Host`.
    pub host: String,
    /// TLS, if the server speaks it.
    pub tls: Option<Tls>,
    /// Where the server is asked by `CONNECT` to lead each connection.
    pub through: Option<SocketAddr>,
}

impl Target {
    /// A server without TLS, named by its address.
    pub fn plain(addr: SocketAddr) -> Target {
        Target {
            addr,
            host: addr.to_string(),
            tls: None,
            through: None,
        }
    }

    /// The server at `addr`, reached through the proxy at `proxy`.
    pub fn through(proxy: SocketAddr, addr: SocketAddr) -> Target {
        Target {
            addr: proxy,
            through: Some(addr),
            ..Target::plain(addr)
        }
    }

    /// The server of `http(s)://host[:port]`; `ca` is a PEM file to trust instead of the system's store.
    pub fn parse(url: &str, ca: Option<&Path>) -> Result<Target, TargetError> {
        let wrong = || TargetError::Url(url.to_string());
        let (secure, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => return Err(wrong()),
        };
        let host = rest.trim_end_matches('/');
        if host.is_empty() || host.contains(['/', '@', '?', '#']) {
            return Err(wrong());
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => {
                (name, port.parse().map_err(|_| wrong())?)
            }
            _ => (host, if secure { 443 } else { 80 }),
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let failed = |error| TargetError::Name {
            name: name.to_string(),
            error,
        };
        let addr = (bare, port)
            .to_socket_addrs()
            .map_err(failed)?
            .next()
            .ok_or_else(|| failed(io::Error::other("no address")))?;
        let tls = secure.then(|| tls(bare, ca)).transpose()?;
        Ok(Target {
            addr,
            host: host.to_string(),
            tls,
            through: None,
        })
    }
}

fn tls(name: &str, ca: Option<&Path>) -> Result<Tls, TargetError> {
    let anchors = |error: &dyn std::fmt::Display| TargetError::Anchors(error.to_string());
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for cert in CertificateDer::pem_file_iter(path).map_err(|error| anchors(&error))? {
                let cert = cert.map_err(|error| anchors(&error))?;
                roots.add(cert).map_err(|error| anchors(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| anchors(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Tls {
        config: Arc::new(config),
        name: ServerName::try_from(name.to_string()).map_err(|error| anchors(&error))?,
    })
}

/// Asks for a tunnel; reads no byte behind the head of the answer.
fn open_tunnel(socket: &mut TcpStream, to: SocketAddr) -> io::Result<()> {
    socket.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    match head.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(io::Error::other("the tunnel was refused")),
    }
}

/// A connected socket that does not block.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Connects, and shakes hands where the target speaks TLS.
    pub fn connect(target: &Target) -> io::Result<Wire> {
        let domain = Domain::for_address(target.addr);
        let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        // Loopback under bbr hides every difference; away from it the server's side decides anyway.
        let _ = socket.set_tcp_congestion(CONGESTION);
        socket.connect_timeout(&target.addr.into(), CONNECT_TIMEOUT)?;
        socket.set_tcp_nodelay(true)?;
        let mut socket = TcpStream::from(socket);
        if let Some(to) = target.through {
            socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            open_tunnel(&mut socket, to)?;
        }
        let tls = match &target.tls {
            None => None,
            Some(tls) => {
                socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
                let session = ClientConnection::new(Arc::clone(&tls.config), tls.name.clone())
                    .map_err(io::Error::other)?;
                let mut session = Box::new(session);
                while session.is_handshaking() {
                    session.complete_io(&mut socket)?;
                }
                Some(session)
            }
        };
        socket.set_nonblocking(true)?;
        Ok(Wire { socket, tls })
    }

    /// The socket, for `epoll`.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Reads up to a buffer; 0 is the end, `WouldBlock` is for later.
    pub fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => Ok(rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT)?.1),
            Some(session) => receive_tls(session, &mut self.socket, buffer),
        }
    }

    /// Drops up to `scratch.len()` bytes. The kernel leaves the scratch alone where the wire is plain.
    pub fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => {
                let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC;
                Ok(rustix::net::recv(&self.socket, scratch, flags)?.1)
            }
            Some(session) => {
                let bytes = scratch.len().min(256 << 10);
                receive_tls(session, &mut self.socket, &mut scratch[..bytes])
            }
        }
    }

    /// Sends what the socket takes; 0 is for later.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            return match rustix::net::send(&self.socket, bytes, flags) {
                Err(rustix::io::Errno::AGAIN) => Ok(0),
                sent => Ok(sent?),
            };
        };
        let taken = if session.wants_write() {
            0
        } else {
            session.writer().write(bytes)?
        };
        while session.wants_write() {
            match session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Whether bytes taken by [`Wire::send`] still wait for the socket.
    pub fn holds_back(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

fn receive_tls(
    session: &mut ClientConnection,
    socket: &mut TcpStream,
    buffer: &mut [u8],
) -> io::Result<usize> {
    loop {
        match session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
        if session.read_tls(socket)? == 0 {
            return Ok(0);
        }
        session.process_new_packets().map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_scheme_host_and_port() {
        let plain = Target::parse("http://127.0.0.1:8080/", None).expect("plain");
        assert_eq!(
            (
                plain.addr.to_string(),
                plain.host.as_str(),
                plain.tls.is_none()
            ),
            ("127.0.0.1:8080".to_string(), "127.0.0.1:8080", true)
        );
        let six = Target::parse("http://[::1]", None).expect("IPv6");
        assert_eq!((six.addr.port(), six.host.as_str()), (80, "[::1]"));
        for wrong in [
            "127.0.0.1:80",
            "ftp://x",
            "http://",
            "http://a/b",
            "http://a:x",
        ] {
            assert!(
                matches!(Target::parse(wrong, None), Err(TargetError::Url(_))),
                "{wrong}"
            );
        }
    }
}

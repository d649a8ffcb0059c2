//! The far end of a tunnel, as raw sockets, and what a client sends first: real TLS hellos.

use super::{Millrace, PATIENCE, free_address, wait_for};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// The name that leads to the far end.
pub const NAME: &str = "store.test";

/// A listener whose connections the test handles itself.
pub struct Far {
    pub address: SocketAddr,
    listener: TcpListener,
}

impl Far {
    pub fn listen() -> Far {
        let listener = TcpListener::bind(free_address()).expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("its address");
        Far { address, listener }
    }

    /// The next connection.
    #[track_caller]
    pub fn accept(&self) -> TcpStream {
        let stream = wait_for("a connection", PATIENCE, || {
            self.listener.accept().ok().map(|accepted| accepted.0)
        });
        stream.set_nonblocking(false).expect("blocking");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Whether nobody has come.
    pub fn is_alone(&self) -> bool {
        self.listener.accept().is_err()
    }
}

/// A server with a tunnel door, [`NAME`] being the far end's; `more` is TOML behind `[tunnel]`.
pub fn tunnelling(far: SocketAddr, more: &str) -> (Millrace, SocketAddr) {
    let door = free_address();
    let server = Millrace::setup()
        .origin(&format!("https://{far}"))
        .settings(&format!(
            "[log]\naccess = \"@ACCESS_LOG@\"\n[routing]\nhosts = [\"{NAME}\"]\n[listener]\ntunnel = [\"{door}\"]\n[tunnel]\n{more}"
        ))
        .start(far);
    (server, door)
}

#[track_caller]
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// The first message of a real client for `name`.
pub fn hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// Exactly so many bytes.
#[track_caller]
pub fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("bytes");
    bytes
}

/// Everything up to the end.
#[track_caller]
pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an orderly end");
    bytes
}

//! A client of the TLS door: rustls over a plain socket, one request at a time, and an end that is looked at.

use super::wire::Head;
use super::{Ask, PATIENCE, Response};
use crate::harness::millrace::Scratch;
use crate::harness::s3s::perf_binary;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A new authority (`ca.pem`) and a certificate of it for `name` (`cert.pem`, `key.pem`).
pub fn certificates(name: &str) -> Scratch {
    let folder = Scratch::new();
    let done = Command::new(perf_binary())
        .arg("certs")
        .arg("--dir")
        .arg(&folder.path)
        .args(["--name", name])
        .status();
    assert!(done.is_ok_and(|status| status.success()), "perf certs");
    folder
}

/// Trust in the authority of `folder`; with a certificate of `own` to show.
pub fn trust(
    folder: &Path,
    own: Option<&Path>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(folder.join("ca.pem")).expect("ca.pem");
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::from_pem_file(own.join("cert.pem")).expect("cert.pem");
            let key = PrivateKeyDer::from_pem_file(own.join("key.pem")).expect("key.pem");
            builder
                .with_client_auth_cert(vec![chain], key)
                .expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// How what was read ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a `close_notify`.
    Said,
    /// Without: what came may be cut.
    Cut,
}

pub struct TlsConnection {
    stream: StreamOwned<ClientConnection, TcpStream>,
    peer: SocketAddr,
}

impl TlsConnection {
    /// Connects and shakes hands; the handshake's error otherwise.
    pub fn open(peer: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<TlsConnection> {
        let socket = TcpStream::connect(peer)?;
        Self::over(socket, peer, config)
    }

    /// The same over a socket on which something has been said.
    pub fn over(
        socket: TcpStream,
        peer: SocketAddr,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<TlsConnection> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::from(peer.ip());
        let session = ClientConnection::new(Arc::clone(config), name).expect("a session");
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(TlsConnection { stream, peer })
    }

    pub fn version(&self) -> rustls::ProtocolVersion {
        self.stream.conn.protocol_version().expect("a version")
    }

    pub fn protocol(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    pub fn send(&mut self, ask: &Ask) {
        let mut bytes = ask.head_bytes(self.peer);
        bytes.extend_from_slice(&ask.body);
        self.write(&bytes);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
        self.stream.flush().expect("sent");
    }

    pub fn head(&mut self) -> std::io::Result<Head> {
        let mut raw = Vec::new();
        let mut byte = [0u8; 1];
        while !raw.ends_with(b"\r\n\r\n") {
            if self.stream.read(&mut byte)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            raw.push(byte[0]);
        }
        Ok(Head::parse(&raw).expect("a head"))
    }

    pub fn response(&mut self, method: &str) -> std::io::Result<Response> {
        let head = self.head()?;
        let length = match method {
            "HEAD" => 0,
            _ => head.content_length().unwrap_or(0),
        };
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body)?;
        Ok(Response { head, body })
    }

    pub fn exchange(&mut self, ask: &Ask) -> std::io::Result<Response> {
        self.send(ask);
        self.response(&ask.method)
    }

    /// What one read gives, so many bytes at most.
    pub fn some(&mut self, most: usize) -> Vec<u8> {
        let mut piece = vec![0; most];
        let length = self.stream.read(&mut piece).expect("bytes");
        piece.truncate(length);
        piece
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).expect("bytes");
        bytes
    }

    /// Reads to the end; what came, and how it ended.
    pub fn rest(&mut self) -> (Vec<u8>, Ending) {
        let mut all = Vec::new();
        let ending = match self.stream.read_to_end(&mut all) {
            Ok(_) => Ending::Said,
            Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it stays open"),
            Err(_) => Ending::Cut,
        };
        (all, ending)
    }

    /// Sends a record that carries nothing; false when the connection has gone.
    pub fn say_nothing(&mut self) -> bool {
        let refreshed = self.stream.conn.refresh_traffic_keys();
        refreshed.expect("a key update");
        self.stream.flush().is_ok()
    }

    /// Whether the other side has closed the connection, or does within the time.
    pub fn closes_within(&mut self, time: std::time::Duration) -> bool {
        let set = self.stream.sock.set_read_timeout(Some(time));
        set.expect("a timeout");
        let read = self.stream.read(&mut [0u8; 1]);
        !matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock)
    }

    /// Ends our side of the session, and not the connection.
    pub fn say_end(&mut self) {
        self.stream.conn.send_close_notify();
        let _ = self.stream.flush();
    }

    /// Ends our side as a client does that is done.
    pub fn close(mut self) {
        self.say_end();
    }
}

/// One request on a connection of its own.
#[track_caller]
pub fn tls_fetch(peer: SocketAddr, config: &Arc<ClientConfig>, ask: &Ask) -> Response {
    let connection = TlsConnection::open(peer, config);
    let mut connection = connection.unwrap_or_else(|error| panic!("no session: {error}"));
    connection
        .exchange(ask)
        .unwrap_or_else(|error| panic!("{error} for {ask:?}"))
}

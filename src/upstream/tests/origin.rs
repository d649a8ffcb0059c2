//! A scripted origin: a listener on loopback, one thread for each connection, plain or TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The origin's end of one connection.
pub(super) struct Peer {
    stream: Wire,
    tcp: TcpStream,
    buffered: Vec<u8>,
}

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(out),
            Self::Tls(stream) => stream.read(out),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }
}

impl Peer {
    /// The next request's head, `None` when the client has closed.
    pub fn request(&mut self) -> Option<String> {
        loop {
            let end = self
                .buffered
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.buffered.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("text"));
            }
            if self.fill() == 0 {
                return None;
            }
        }
    }

    /// So many bytes of a request's body.
    pub fn body(&mut self, bytes: usize) -> Vec<u8> {
        while self.buffered.len() < bytes {
            assert!(self.fill() > 0, "the body is cut");
        }
        self.buffered.drain(..bytes).collect()
    }

    fn fill(&mut self) -> usize {
        let mut piece = [0; 16 * 1024];
        let bytes = self.stream.read(&mut piece).unwrap_or(0);
        self.buffered.extend_from_slice(&piece[..bytes]);
        bytes
    }

    /// Sends `bytes`; a client that has gone is not the origin's failure.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// A 200 with a length.
    pub fn ok(&mut self, body: &[u8]) {
        self.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ));
        self.send(body);
    }

    /// Holds the connection open until the client closes it.
    pub fn wait_closed(&mut self) {
        while self.fill() > 0 {}
    }

    /// Sends `bytes` in two parts, the second when the client has read the first. `received` counts what clients have read.
    pub fn send_split(&mut self, bytes: &[u8], split: usize, received: &AtomicUsize) {
        let before = received.load(Ordering::SeqCst);
        self.send(&bytes[..split]);
        while received.load(Ordering::SeqCst) < before + split {
            thread::yield_now();
        }
        self.send(&bytes[split..]);
    }

    /// Ends the connection below whatever session is on it.
    pub fn cut(&self) {
        let _ = self.tcp.shutdown(Shutdown::Both);
    }

    /// Says that the TLS session ends here.
    pub fn end_session(&mut self) {
        if let Wire::Tls(stream) = &mut self.stream {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }

    /// Changes the keys of a TLS 1.3 session.
    pub fn change_keys(&mut self) {
        if let Wire::Tls(stream) = &mut self.stream {
            stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
    }

    /// Answers every request with the same body.
    pub fn serve(&mut self, body: &[u8]) {
        while self.request().is_some() {
            self.ok(body);
        }
    }
}

/// A listening origin; dropped, it listens no more.
pub(super) struct Origin {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
}

impl Origin {
    /// Serves each connection with `serve`, which gets its number from 0.
    pub fn start(serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), None, serve)
    }

    /// The same behind TLS.
    pub fn start_tls(
        config: Arc<ServerConfig>,
        serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(
            "127.0.0.1:0".parse().expect("an address"),
            Some(config),
            serve,
        )
    }

    pub fn start_at(
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(usize, &mut Peer) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free address");
        let origin = Self {
            address: listener.local_addr().expect("bound"),
            accepted: Arc::default(),
            open: Arc::default(),
            closing: Arc::default(),
        };
        let serve = Arc::new(serve);
        let (accepted, open) = (Arc::clone(&origin.accepted), Arc::clone(&origin.open));
        let closing = Arc::clone(&origin.closing);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closing.load(Ordering::SeqCst) {
                    return;
                }
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (serve, open, tls) = (Arc::clone(&serve), Arc::clone(&open), tls.clone());
                thread::spawn(move || {
                    peer(stream, tls)
                        .iter_mut()
                        .for_each(|peer| serve(number, peer));
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        origin
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Connections whose script has not ended.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn peer(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Option<Peer> {
    stream.set_nodelay(true).ok()?;
    let tcp = stream.try_clone().ok()?;
    let stream = match tls {
        None => Wire::Plain(stream),
        Some(config) => {
            let mut session = ServerConnection::new(config).ok()?;
            let mut stream = stream;
            while session.is_handshaking() {
                session.complete_io(&mut stream).ok()?;
            }
            Wire::Tls(Box::new(StreamOwned::new(session, stream)))
        }
    };
    Some(Peer {
        stream,
        tcp,
        buffered: Vec::new(),
    })
}

/// A relay in front of `target` that passes on what comes from there in pieces of `piece` bytes at most.
pub(super) fn trickling(target: SocketAddr, piece: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let origin = TcpStream::connect(target).expect("the origin");
            client.set_nodelay(true).expect("a socket");
            let (mut up_from, mut up_to) = (
                client.try_clone().expect("a descriptor"),
                origin.try_clone().expect("a descriptor"),
            );
            thread::spawn(move || {
                let _ = std::io::copy(&mut up_from, &mut up_to);
                let _ = up_to.shutdown(Shutdown::Write);
            });
            thread::spawn(move || pass_pieces(origin, client, piece));
        }
    });
    address
}

fn pass_pieces(mut from: TcpStream, mut to: TcpStream, piece: usize) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(1..) = from.peek(&mut buffer[..1]) {
        let bytes = from.read(&mut buffer).unwrap_or(0);
        for part in buffer[..bytes].chunks(piece) {
            if to.write_all(part).is_err() {
                return;
            }
            thread::yield_now();
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// A port that nobody listens on.
pub(super) fn dead_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free address");
    listener.local_addr().expect("bound").port()
}

/// A certificate authority of the test's own and a server that it vouches for.
pub(super) struct Pki {
    /// PEM file of the authority.
    pub roots: PathBuf,
    /// Shows a certificate for `origin.test` and 127.0.0.1.
    pub server: Arc<ServerConfig>,
    /// Shows the authority's certificate as its own.
    pub server_with_ca: Arc<ServerConfig>,
    /// Sends its messages, those of the handshake too, in records of few bytes.
    pub server_in_fragments: Arc<ServerConfig>,
}

/// Makes it, in files with `name` in their names.
pub(super) fn pki(name: &str, versions: &[&'static rustls::SupportedProtocolVersion]) -> Pki {
    let names = vec!["origin.test".to_owned(), "127.0.0.1".to_owned()];
    let mut authority = rcgen::CertificateParams::new(names.clone()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Test Authority");
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let authority_certificate = authority.self_signed(&authority_key).expect("signed");
    let roots =
        std::env::temp_dir().join(format!("millrace-pki-{}-{name}.pem", std::process::id()));
    std::fs::write(&roots, authority_certificate.pem()).expect("a temporary file");

    let key = rcgen::KeyPair::generate().expect("a key");
    let issuer = rcgen::Issuer::from_params(&authority, &authority_key);
    let leaf = rcgen::CertificateParams::new(names).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("signed");
    let private =
        |key: &rcgen::KeyPair| PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let server = |certificate, key, fragment| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.ticketer = rustls::crypto::ring::Ticketer::new().expect("a ticketer");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.max_fragment_size = fragment;
        Arc::new(config)
    };
    Pki {
        server: server(leaf.der().clone(), private(&key), None),
        server_with_ca: server(
            authority_certificate.der().clone(),
            private(&authority_key),
            None,
        ),
        server_in_fragments: server(leaf.der().clone(), private(&key), Some(64)),
        roots,
    }
}

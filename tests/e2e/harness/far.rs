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

/// An extension of a hello.
pub fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&kind.to_be_bytes()[..], &length, body].concat()
}

/// `server_name` with these (type, name) entries.
pub fn server_name(entries: &[(u8, &[u8])]) -> Vec<u8> {
    let entry = |(kind, name): &(u8, &[u8])| {
        let length = (name.len() as u16).to_be_bytes();
        [&[*kind][..], &length, name].concat()
    };
    let list: Vec<u8> = entries.iter().flat_map(entry).collect();
    extension(0, &[&(list.len() as u16).to_be_bytes()[..], &list].concat())
}

/// What every hello of ours has besides its name: algorithms, groups, a GREASE value that no peer knows.
pub fn usual_extensions() -> Vec<u8> {
    [
        extension(0x1a1a, b""),
        extension(13, &[0, 4, 4, 3, 8, 4]),
        extension(10, &[0, 4, 0x0a, 0x0a, 0, 29]),
    ]
    .concat()
}

/// The handshake message of a TLS 1.2 hello with these extensions.
pub fn message(extensions: &[u8]) -> Vec<u8> {
    let body = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 4, 0x2a, 0x2a, 0xc0, 0x2f],
        &[1, 0],
        &(extensions.len() as u16).to_be_bytes(),
        extensions,
    ]
    .concat();
    let length = (body.len() as u32).to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

/// A handshake message in records of at most so many bytes.
pub fn records(message: &[u8], record_bytes: usize) -> Vec<u8> {
    let record = |piece: &[u8]| {
        let length = (piece.len() as u16).to_be_bytes();
        [&[0x16, 3, 1][..], &length, piece].concat()
    };
    message.chunks(record_bytes).flat_map(record).collect()
}

/// A hello of our own making for `name`.
pub fn crafted(name: &[u8]) -> Vec<u8> {
    let extensions = [server_name(&[(0, name)]), usual_extensions()].concat();
    records(&message(&extensions), 16_384)
}

/// Names to addresses, over UDP: `v4-<8 digits>` and `v6-<32 digits>` stand for themselves, others are as `known` says.
pub fn name_server(known: impl Fn(&str) -> Vec<std::net::IpAddr> + Send + 'static) -> SocketAddr {
    use std::net::{IpAddr, UdpSocket};
    let socket = UdpSocket::bind(free_address()).expect("a port");
    let address = socket.local_addr().expect("its address");
    std::thread::spawn(move || {
        let mut datagram = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut datagram) {
            let question = &datagram[..length];
            let mut labels = Vec::new();
            let mut at = 12;
            while question[at] != 0 {
                let end = at + 1 + usize::from(question[at]);
                labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
                at = end;
            }
            let is_v6 = question[at + 2] == 28;
            let first = labels[0].clone();
            let hex = |digits: &str| u128::from_str_radix(digits, 16).expect("digits");
            let found: Vec<IpAddr> = match first.split_once('-') {
                Some(("v4", digits)) => vec![std::net::Ipv4Addr::from(hex(digits) as u32).into()],
                Some(("v6", digits)) => vec![std::net::Ipv6Addr::from(hex(digits)).into()],
                _ => known(&labels.join(".")),
            };
            let found: Vec<IpAddr> = found
                .into_iter()
                .filter(|ip| ip.is_ipv6() == is_v6)
                .collect();
            let mut answer = question[..at + 5].to_vec();
            answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
            for ip in found {
                let bytes = match ip {
                    IpAddr::V4(v4) => v4.octets().to_vec(),
                    IpAddr::V6(v6) => v6.octets().to_vec(),
                };
                let kind = if ip.is_ipv6() { 28 } else { 1 };
                answer.extend_from_slice(&[0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60]);
                answer.extend_from_slice(&[0, bytes.len() as u8]);
                answer.extend_from_slice(&bytes);
            }
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

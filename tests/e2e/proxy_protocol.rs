//! Who may come in: networks of each door, and clients that a balancer names.

use crate::harness::far::{Far, connect, read};
use crate::harness::store::Object;
use crate::harness::tls_client::{TlsConnection, certificates, trust};
use crate::harness::{Ask, Connection, Millrace, PATIENCE, Store, Tile, free_address, wait_until};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client at `from`, with something beside it.
fn binary(from: [u8; 4], port: u16) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x21, 0x11, 0, 19]);
    header.extend_from_slice(&from);
    header.extend_from_slice(&[127, 0, 0, 1]);
    header.extend_from_slice(&port.to_be_bytes());
    header.extend_from_slice(&80u16.to_be_bytes());
    header.extend_from_slice(&[0x04, 0, 4, 1, 2, 3, 4]);
    header
}

/// What comes back when `bytes` are sent.
fn say(door: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(door).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = socket.write_all(bytes);
    let mut all = Vec::new();
    // A reset ends it too.
    let _ = socket.read_to_end(&mut all);
    all
}

fn request() -> Vec<u8> {
    b"GET /bucket/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_vec()
}

fn store() -> (Store, crate::harness::Stub) {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 100));
    let origin = store.serve();
    (store, origin)
}

fn refused(server: &Millrace, reason: &str) -> f64 {
    let metrics = server.metrics();
    metrics.sum("millrace_connections_refused_total", &[("reason", reason)])
}

#[test]
fn semantics_201_a_door_is_for_its_networks_alone() {
    let (_store, origin) = store();
    let tls = free_address();
    let folder = certificates(&tls.ip().to_string());
    let file = |name: &str| folder.path.join(name).to_string_lossy().into_owned();
    let settings = format!(
        "[listener]\nhttp_allow = [\"192.0.2.0/24\", \"2001:db8::/32\"]\ntls = [\"{tls}\"]\ntls_allow = [\"127.0.0.0/8\"]\n[tls]\ncert_file = {:?}\nkey_file = {:?}",
        file("cert.pem"),
        file("key.pem")
    );
    let server = Millrace::setup().settings(&settings).start(origin.address);
    assert!(say(server.door, &request()).is_empty());
    wait_until("it is counted", PATIENCE, || {
        refused(&server, "network") == 1.0
    });
    wait_until("and so is its end", PATIENCE, || {
        let (name, reason) = ("millrace_connections_closed_total", ("reason", "refused"));
        server.metrics().sum(name, &[reason]) == 1.0
    });
    let config = trust(&folder.path, None, &[&TLS13, &TLS12]);
    let mut session = TlsConnection::open(tls, &config).expect("a session");
    let response = session.exchange(&Ask::get("/bucket/k")).expect("an answer");
    response.assert_body(&Tile::new(1), 0, 100);
    drop(session);
    assert_eq!(origin.requests(), 1);
    server.finish();
}

/// Whom tunnels are not for does not get one by `CONNECT` at a door that is for everybody.
#[test]
fn connect_is_for_the_networks_of_tunnels() {
    let far = Far::listen();
    let server = Millrace::setup()
        .origin(&format!("https://{}", far.address))
        .settings("[listener]\nproxy_protocol_from = [\"127.0.0.0/8\"]\ntunnel_allow = [\"192.0.2.0/24\"]")
        .start(far.address);
    let ask = |client: &str| {
        let ask = format!(
            "PROXY TCP4 {client} 127.0.0.1 4711 80\r\nCONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n",
            far.address
        );
        let mut socket = connect(server.door);
        socket.write_all(ask.as_bytes()).expect("sent");
        let head = read(&mut socket, 12);
        (socket, head)
    };
    let (_open, head) = ask("192.0.2.1");
    assert_eq!(head, b"HTTP/1.1 200");
    let _origin = far.accept();
    let (_refused, head) = ask("198.51.100.1");
    assert_eq!(head, b"HTTP/1.1 403");
    assert!(far.is_alone(), "somebody was dialled");
    let tunnels = server.metrics();
    let refused = tunnels.sum("millrace_tunnels_refused_total", &[("reason", "network")]);
    assert_eq!(refused, 1.0);
}

#[test]
fn semantics_202_a_balancer_names_the_client() {
    let (_store, origin) = store();
    let tls = free_address();
    let folder = certificates(&tls.ip().to_string());
    let file = |name: &str| folder.path.join(name).to_string_lossy().into_owned();
    let settings = format!(
        "[listener]\nproxy_protocol_from = [\"127.0.0.0/8\"]\nhttp_allow = [\"192.0.2.0/24\", \"127.0.0.0/8\"]\ntls = [\"{tls}\"]\n[tls]\ncert_file = {:?}\nkey_file = {:?}\n[log]\naccess = \"@ACCESS_LOG@\"",
        file("cert.pem"),
        file("key.pem")
    );
    let server = Millrace::setup().settings(&settings).start(origin.address);
    let whole = |bytes: &[u8]| {
        let answer = say(server.door, bytes);
        assert!(
            answer.starts_with(b"HTTP/1.1 200 OK\r\n"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    };
    let logged = |client: &str, door: &str| {
        wait_until(client, PATIENCE, || {
            let words = format!(r#""client":"{client}","door":"{door}""#);
            let lines = server.access_log_lines();
            lines.iter().any(|line| line.contains(&words))
        });
    };
    let line = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    whole(&[&line[..], &request()].concat());
    logged("192.0.2.1:4711", "http");
    whole(&[binary([192, 0, 2, 2], 4712), request()].concat());
    logged("192.0.2.2:4712", "http");
    // A balancer's own checks.
    whole(&[&b"PROXY UNKNOWN\r\n"[..], &request()].concat());
    whole(&[SIGNATURE, &[0x20, 0, 0, 0], &request()].concat());
    // However it is cut.
    let mut slow = Connection::open(server.door);
    for byte in [binary([192, 0, 2, 3], 4713), request()].concat() {
        slow.send([byte]);
    }
    assert_eq!(slow.response("GET").expect("an answer").status(), 200);
    logged("192.0.2.3:4713", "http");
    drop(slow);
    // The network is the client's, not the balancer's.
    let stranger = [binary([198, 51, 100, 1], 1), request()].concat();
    assert!(say(server.door, &stranger).is_empty());
    wait_until("it is counted", PATIENCE, || {
        refused(&server, "network") == 1.0
    });
    let config = trust(&folder.path, None, &[&TLS13, &TLS12]);
    let mut socket = TcpStream::connect(tls).expect("connected");
    socket
        .write_all(&binary([203, 0, 113, 9], 4714))
        .expect("sent");
    let mut session = TlsConnection::over(socket, tls, &config).expect("a session");
    let response = session.exchange(&Ask::get("/bucket/k")).expect("an answer");
    response.assert_body(&Tile::new(1), 0, 100);
    logged("203.0.113.9:4714", "tls");
    drop(session);
    server.finish();
}

#[test]
fn semantics_203_a_header_that_is_missing_malformed_or_late_closes_the_connection() {
    let (_store, origin) = store();
    let settings =
        "[listener]\nproxy_protocol_from = [\"127.0.0.0/8\"]\nhead_timeout = \"500ms\"".to_owned();
    let server = Millrace::setup().settings(&settings).start(origin.address);
    let mut too_long = SIGNATURE.to_vec();
    too_long.extend_from_slice(&[0x21, 0x11, 0xff, 0xff]);
    let wrong: [&[u8]; 7] = [
        &request(),
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711\r\nGET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\n",
        b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
        &too_long,
        b"PROXY TCP4 192.",
        b"",
    ];
    let begun = Instant::now();
    for bytes in wrong {
        assert!(say(server.door, bytes).is_empty(), "{bytes:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    wait_until("they are counted", PATIENCE, || {
        refused(&server, "proxy_header") == 7.0
    });
    assert_eq!(origin.requests(), 0);
    server.finish();
}

#[test]
fn a_header_from_elsewhere_is_no_header() {
    let (_store, origin) = store();
    let settings = "[listener]\nproxy_protocol_from = [\"192.0.2.0/24\"]";
    let server = Millrace::setup().settings(settings).start(origin.address);
    let line = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let answer = say(server.door, &[&line[..], &request()].concat());
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    assert_eq!(server.get("/bucket/k").status(), 200);
    server.finish();
}

//! Tunnels by `CONNECT` inside a TLS session with the TLS door: `HTTPS_PROXY=https://…`.

use crate::harness::far::{Far, NAME, read, read_all};
use crate::harness::millrace::Scratch;
use crate::harness::tls_client::{Ending, TlsConnection, certificates, trust};
use crate::harness::wire::{reset_on_close, set_receive_buffer};
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Tile, free_address, wait_until};
use crate::upload_memory::memory;
use rustls::version::{TLS12, TLS13};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A server with a TLS door, [`NAME`] being the far end's.
struct Door {
    server: Millrace,
    address: SocketAddr,
    far: Far,
    folder: Scratch,
}

impl Door {
    fn open(more: &str) -> Door {
        let (far, address) = (Far::listen(), free_address());
        let folder = certificates(&address.ip().to_string());
        let file = |name: &str| folder.path.join(name).to_string_lossy().into_owned();
        let settings = format!(
            "[log]\naccess = \"@ACCESS_LOG@\"\n[routing]\nhosts = [\"{NAME}\"]\n[listener]\ntls = [\"{address}\"]\n\
             [tls]\ncert_file = {:?}\nkey_file = {:?}\n[tunnel]\n{more}\n",
            file("cert.pem"),
            file("key.pem")
        );
        let setup = Millrace::setup().origin(&format!("https://{}", far.address));
        let server = setup.settings(&settings).start(far.address);
        Door {
            server,
            address,
            far,
            folder,
        }
    }

    /// A session over `socket`.
    fn session(
        &self,
        socket: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> TlsConnection {
        let config = trust(&self.folder.path, None, versions);
        TlsConnection::over(socket, self.address, &Arc::clone(&config)).expect("a session")
    }

    fn socket(&self) -> TcpStream {
        TcpStream::connect_timeout(&self.address, PATIENCE).expect("a connection")
    }

    /// A tunnel and its far end, over `socket`; `early` comes with the request.
    fn tunnel_over(&self, socket: TcpStream, early: &[u8]) -> (TlsConnection, TcpStream) {
        self.tunnel_with(socket, BOTH, early)
    }

    fn tunnel_with(
        &self,
        socket: TcpStream,
        versions: &[&'static rustls::SupportedProtocolVersion],
        early: &[u8],
    ) -> (TlsConnection, TcpStream) {
        let mut client = self.session(socket, versions);
        let target = format!("{NAME}:443");
        let ask = format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"
        );
        client.write(&[ask.as_bytes(), early].concat());
        assert_eq!(client.exactly(ESTABLISHED.len()), ESTABLISHED);
        (client, self.far.accept())
    }

    fn tunnel(&self) -> (TlsConnection, TcpStream) {
        self.tunnel_over(self.socket(), b"")
    }

    fn closed(&self, end: &str) -> f64 {
        let metrics = self.server.metrics();
        metrics.sum("millrace_tunnels_closed_total", &[("end", end)])
    }

    /// Waits until so many tunnels have ended so.
    fn wait_closed(&self, end: &str, count: f64) {
        wait_until(end, PATIENCE, || self.closed(end) == count);
    }
}

fn assert_reset(stream: &mut TcpStream) {
    let mut bytes = vec![0; 1 << 20];
    let error = loop {
        match stream.read(&mut bytes) {
            Ok(0) => panic!("an orderly end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn semantics_211_connect_inside_tls_is_a_tunnel_like_any_other() {
    let door = Door::open("");
    let (up, down) = (Tile::new(1), Tile::new(2));
    for (number, version) in [&TLS13, &TLS12].into_iter().enumerate() {
        let (mut client, mut origin) = door.tunnel_with(door.socket(), &[version], b"early");
        client.write(b"later");
        assert_eq!(read(&mut origin, 10), b"earlylater");
        // Much, both ways at once.
        let bytes = 24 * MIB;
        let mut writer = origin.try_clone().expect("a clone");
        let answer = down.slice(0, bytes);
        let sending = std::thread::spawn(move || writer.write_all(&answer).expect("sent"));
        let mut reader = origin.try_clone().expect("a clone");
        let taking = std::thread::spawn(move || read(&mut reader, bytes as usize));
        let asked = up.slice(0, bytes);
        let mut came = Vec::new();
        for piece in asked.chunks(200_000) {
            client.write(piece);
            came.extend_from_slice(&client.some(100_000));
        }
        assert!(taking.join().expect("taken") == asked, "what went up");
        came.extend_from_slice(&client.exactly(bytes as usize - came.len()));
        sending.join().expect("sent");
        assert!(came == down.slice(0, bytes), "what came down");
        drop(origin);
        assert_eq!(client.rest(), (Vec::new(), Ending::Said));
        client.close();
        door.wait_closed("closed", (number + 1) as f64);
    }
    // A refusal is an answer inside the session, and the next request is served.
    let mut client = door.session(door.socket(), BOTH);
    for _ in 0..2 {
        let ask = Ask::new("CONNECT", "elsewhere.test:443").header("Host", "elsewhere.test:443");
        let refused = client.exchange(&ask).expect("an answer");
        refused.assert_s3_error(403, "AccessDenied");
    }
    client.close();
    let sum = |name, labels: &[(&str, &str)]| door.server.metrics().sum(name, labels);
    let opened = [("door", "connect")];
    assert_eq!(sum("millrace_tunnels_opened_total", &opened), 2.0);
    let bytes = |way| sum("millrace_tunnel_bytes_total", &[("way", way)]);
    assert_eq!(bytes("to_client"), 2.0 * (24 * MIB) as f64);
    assert_eq!(bytes("to_origin"), 2.0 * (24 * MIB + 10) as f64);
    wait_until("the lines", PATIENCE, || {
        let lines = door.server.access_log_lines();
        let says = |words: &str| lines.iter().filter(|line| line.contains(words)).count();
        says(r#""end":"closed""#) == 2 && says(r#""end":"refused""#) == 2
    });
    door.server.finish();
}

#[test]
fn semantics_212_inside_tls_an_end_is_said_and_what_is_cut_is_reset() {
    let door = Door::open("");
    // The client ends first, and the answer goes on.
    let (mut client, mut origin) = door.tunnel();
    client.write(b"all of it");
    client.say_end();
    assert_eq!(read_all(&mut origin), b"all of it");
    origin.write_all(&[7; 3_000_000]).expect("sent");
    drop(origin);
    let (came, ending) = client.rest();
    assert_eq!((came.len(), ending), (3_000_000, Ending::Said));
    // The destination ends first, and the question goes on.
    let (mut client, mut origin) = door.tunnel();
    origin.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(client.rest(), (Vec::new(), Ending::Said));
    client.write(&[8; 3_000_000]);
    client.say_end();
    assert_eq!(read_all(&mut origin).len(), 3_000_000);
    drop((client, origin));
    door.wait_closed("closed", 2.0);
    // A connection that ends and not its session has been cut; so has one that is reset.
    for (number, reset) in [false, true].into_iter().enumerate() {
        let socket = door.socket();
        let below = socket.try_clone().expect("a clone");
        let (mut client, mut origin) = door.tunnel_over(socket, b"");
        client.write(b"half of i");
        assert_eq!(read(&mut origin, 9), b"half of i");
        match reset {
            false => below.shutdown(Shutdown::Write).expect("a half-close"),
            true => reset_on_close(&below),
        }
        drop((client, below));
        assert_reset(&mut origin);
        door.wait_closed("client_reset", (number + 1) as f64);
    }
    // A record that does not hold is no end either.
    let socket = door.socket();
    let mut below = socket.try_clone().expect("a clone");
    let (client, mut origin) = door.tunnel_over(socket, b"");
    below.write_all(&[0x17, 3, 3, 0, 32]).expect("sent");
    below.write_all(&[0; 32]).expect("sent");
    assert_reset(&mut origin);
    door.wait_closed("client_reset", 3.0);
    drop((client, below));
    // The destination's reset is the client's, and says no end before it.
    let (mut client, mut origin) = door.tunnel();
    origin.write_all(b"half of i").expect("sent");
    assert_eq!(client.exactly(9), b"half of i");
    reset_on_close(&origin);
    drop(origin);
    assert_eq!(client.rest(), (Vec::new(), Ending::Cut));
    door.wait_closed("origin_reset", 1.0);
    door.server.finish();
}

#[test]
fn inside_tls_a_tunnel_in_which_nothing_moves_is_cut() {
    let door = Door::open("idle_timeout = \"400ms\"");
    let (mut client, mut origin) = door.tunnel();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(150));
        origin.write_all(b"x").expect("sent");
        assert_eq!(client.exactly(1), b"x");
    }
    let begun = Instant::now();
    assert_eq!(client.rest(), (Vec::new(), Ending::Cut));
    assert!(begun.elapsed() > Duration::from_millis(300), "too early");
    assert_reset(&mut origin);
    door.wait_closed("idle", 1.0);
    door.server.finish();
}

/// Of what comes in no more is taken than the other side takes, whichever way, and it all arrives in the end.
#[test]
fn inside_tls_heavy_a_slow_receiver_makes_the_sender_wait_and_memory_stays() {
    const SENT: usize = 64 << 20;
    let door = Door::open("");
    let socket = door.socket();
    set_receive_buffer(&socket, 64 << 10);
    let (mut client, mut origin) = door.tunnel_over(socket, b"");
    let resident = || memory(door.server.child.id(), "VmRSS");
    let before = resident();
    let bytes = |way| {
        let metrics = door.server.metrics();
        metrics.sum("millrace_tunnel_bytes_total", &[("way", way)])
    };
    let stands_still = |way| {
        let mut last = -1.0;
        wait_until("nothing moves", PATIENCE, || {
            let now = bytes(way);
            let still = now == last && now > 0.0;
            last = now;
            std::thread::sleep(Duration::from_millis(100));
            still
        });
        last
    };
    let mut writer = origin.try_clone().expect("a clone");
    let sending = std::thread::spawn(move || writer.write_all(&vec![5; SENT]).expect("sent"));
    assert!(stands_still("to_client") < 32e6, "taken before it could go");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for one slow reader");
    assert!(client.exactly(SENT).iter().all(|byte| *byte == 5));
    sending.join().expect("sent");
    // The other way: the destination reads nothing for a while.
    let taking = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        (read(&mut origin, SENT), origin)
    });
    let wanted = vec![6; SENT];
    let sending = std::thread::spawn(move || {
        client.write(&wanted);
        client
    });
    assert!(stands_still("to_origin") < 32e6, "taken before it could go");
    let grown = resident().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes for one slow destination");
    let (came, origin) = taking.join().expect("taken");
    assert!(came.iter().all(|byte| *byte == 6));
    drop(origin);
    sending.join().expect("sent").close();
    door.wait_closed("closed", 1.0);
    door.server.finish();
}

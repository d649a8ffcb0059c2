//! The TLS door: the same cache behind it, whole answers and none that only look
//! whole, certificates that change, and what comes that is no TLS.

use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::tls_client::{Ending, TlsConnection, certificates, tls_fetch, trust};
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Store, Tile, free_address, wait_until};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// A server with a TLS door, and what its clients need.
struct Door {
    server: Millrace,
    address: SocketAddr,
    folder: Scratch,
}

fn setting(address: SocketAddr, folder: &Scratch, tls: &str) -> String {
    let file = |name: &str| folder.path.join(name).to_string_lossy().into_owned();
    format!(
        "[listener]\ntls = [\"{address}\"]\n[tls]\ncert_file = {:?}\nkey_file = {:?}\n{tls}\n[log]\naccess = \"@ACCESS_LOG@\"\n",
        file("cert.pem"),
        file("key.pem")
    )
}

fn door(origin: SocketAddr, tls: &str, shards: u32) -> Door {
    let address = free_address();
    let folder = certificates(&address.ip().to_string());
    let settings = setting(address, &folder, tls);
    let setup = Millrace::setup().shards(shards).settings(&settings);
    let server = setup.start(origin);
    Door {
        server,
        address,
        folder,
    }
}

impl Door {
    fn handshakes(&self, result: &str) -> f64 {
        let metrics = self.server.metrics();
        metrics.sum("millrace_tls_handshakes_total", &[("result", result)])
    }
}

/// Reference 2J.168.
#[test]
fn semantics_195_a_tls_door_leads_to_the_same_cache() {
    let store = Store::new();
    let sizes = [0, 1, 700, 16_384, 16_385, 1_000_000, 20 * MIB + 7];
    for (number, size) in sizes.into_iter().enumerate() {
        store.insert(
            &format!("/bucket/{number}"),
            Object::tile(number as u64, size),
        );
    }
    let origin = store.serve();
    let door = door(origin.address, "", 2);
    for versions in [&[&TLS13][..], &[&TLS12][..]] {
        let config = trust(&door.folder.path, None, versions);
        let mut connection = TlsConnection::open(door.address, &config).expect("a session");
        assert_eq!(connection.protocol(), Some(&b"http/1.1"[..]));
        for (number, size) in sizes.into_iter().enumerate() {
            for _ in 0..3 {
                let response = connection.exchange(&Ask::get(&format!("/bucket/{number}")));
                let response = response.expect("an answer");
                assert_eq!(response.status(), 200, "{}", response.text());
                response.assert_body(&Tile::new(number as u64), 0, size);
            }
            let plain = door.server.get(&format!("/bucket/{number}"));
            assert_eq!(plain.cache_word(), "HIT");
        }
        let part = Ask::get("/bucket/6").range(9 * MIB, 9 * MIB + 100);
        let part = connection.exchange(&part).expect("a part");
        part.assert_body(&Tile::new(6), 9 * MIB, 9 * MIB + 100);
        let body = Tile::new(77).slice(0, 3 * MIB);
        let put = Ask::put("/bucket/new", body.clone());
        assert_eq!(connection.exchange(&put).expect("an answer").status(), 200);
        let seen = origin
            .seen()
            .into_iter()
            .rfind(|seen| seen.method() == "PUT");
        assert_eq!(seen.expect("a PUT").body.len(), body.len());
        connection.close();
    }
    // An empty object has no bytes to send.
    for number in 1..sizes.len() {
        store.assert_sent_once(&format!("/bucket/{number}"));
    }
    let resumed = trust(&door.folder.path, None, BOTH);
    for _ in 0..3 {
        tls_fetch(door.address, &resumed, &Ask::get("/bucket/1"));
    }
    assert!(door.handshakes("full") >= 3.0 && door.handshakes("resumed") >= 1.0);
    wait_until("the lines", PATIENCE, || {
        let lines = door.server.access_log_lines();
        let says = |words: &str| lines.iter().any(|line| line.contains(words));
        says(r#""door":"tls","tls":"1.3""#)
            && says(r#""door":"tls","tls":"1.2""#)
            && says(r#""door":"http","tls":null"#)
    });
    door.server.finish();
}

#[test]
fn semantics_196_a_certificate_that_does_not_hold_stops_the_start() {
    let origin = Store::new().serve();
    let folder = certificates("127.0.0.1");
    let other = certificates("127.0.0.1");
    std::fs::copy(other.path.join("key.pem"), folder.path.join("key.pem")).expect("a copy");
    let file = folder.path.join("millrace.toml");
    let run = || {
        std::fs::write(
            &file,
            setting(free_address(), &folder, "").replace("@ACCESS_LOG@", "off"),
        )
        .expect("a file");
        let listen = free_address().to_string();
        let mut command = crate::harness::millrace::command();
        command
            .args(["serve", "--listen", &listen, "--config"])
            .arg(&file);
        command.args(["--origin", &format!("http://{}", origin.address)]);
        command.args(["--admin", &free_address().to_string(), "--ram", "64MiB"]);
        let output = command.output().expect("millrace runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, words) = run();
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("the TLS doors cannot be opened"), "{words}");
    assert!(words.contains("key.pem cannot be used together"), "{words}");
    std::fs::remove_file(folder.path.join("cert.pem")).expect("removed");
    let (code, words) = run();
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("`tls.cert_file`: No such file"), "{words}");
}

#[test]
fn semantics_197_certificates_are_read_again_and_bad_ones_change_nothing() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let door = door(origin.address, "", 1);
    let gauge = |name: &str| door.server.metrics().sum(name, &[]);
    let first = trust(&door.folder.path, None, BOTH);
    let mut open = TlsConnection::open(door.address, &first).expect("a session");
    assert!(gauge("millrace_tls_certificate_not_after_seconds") > 1.7e9);
    let next = certificates(&door.address.ip().to_string());
    let second = trust(&next.path, None, BOTH);
    assert!(TlsConnection::open(door.address, &second).is_err());
    // The key alone does not fit the certificate that is there.
    let copy = |name: &str| {
        std::fs::copy(next.path.join(name), door.folder.path.join(name)).expect("a copy")
    };
    copy("key.pem");
    wait_until("it is refused", PATIENCE, || {
        gauge("millrace_tls_refused") == 1.0
    });
    let words = door.server.output();
    assert!(words.contains("key.pem cannot be used together"), "{words}");
    TlsConnection::open(door.address, &first).expect("the certificate of before");
    copy("cert.pem");
    wait_until("the new one", PATIENCE, || {
        TlsConnection::open(door.address, &second).is_ok()
    });
    assert_eq!(gauge("millrace_tls_refused"), 0.0);
    assert!(TlsConnection::open(door.address, &trust_of(&door)).is_err());
    let old = open.exchange(&Ask::get("/bucket/k")).expect("an answer");
    assert_eq!(old.status(), 200);
    // Without SIGHUP a change is taken after a second at the earliest.
    let at_once = (0..6).any(|turn| {
        let refused = f64::from(turn % 2 == 0);
        match turn % 2 {
            0 => std::fs::write(door.folder.path.join("cert.pem"), "nothing").expect("written"),
            _ => drop(copy("cert.pem")),
        }
        let begun = Instant::now();
        door.server.signal("HUP");
        wait_until("SIGHUP reads it", PATIENCE, || {
            gauge("millrace_tls_refused") == refused
        });
        begun.elapsed() < Duration::from_millis(900)
    });
    assert!(at_once, "SIGHUP does nothing");
    TlsConnection::open(door.address, &second).expect("the last good one");
    let old = open.exchange(&Ask::get("/bucket/k")).expect("an answer");
    assert_eq!(old.cache_word(), "HIT");
    drop(open);
    door.server.finish();
}

/// The authority of clients is one of the files.
#[test]
fn semantics_197_the_authority_of_clients_is_read_again() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let (first, second) = (client_certificate(), client_certificate());
    let authority = Scratch::new();
    let file = authority.path.join("ca.pem");
    let name = |from: &Scratch| {
        std::fs::copy(from.path.join("ca.pem"), &file).expect("a copy");
    };
    name(&first);
    let tls = format!("client_ca_file = {:?}", file.to_string_lossy());
    let door = door(origin.address, &tls, 1);
    let open = |own: &Scratch| {
        let config = trust(&door.folder.path, Some(&own.path), BOTH);
        let mut open = TlsConnection::open(door.address, &config).ok()?;
        let response = open.exchange(&Ask::get("/bucket/k")).ok()?;
        (response.status() == 200).then_some(open)
    };
    let mut old = open(&first).expect("a session");
    assert!(open(&second).is_none());
    name(&second);
    wait_until("the new authority", PATIENCE, || open(&second).is_some());
    assert!(open(&first).is_none());
    std::fs::write(&file, "nothing").expect("written");
    wait_until("it is refused", PATIENCE, || {
        door.server.metrics().sum("millrace_tls_refused", &[]) == 1.0
    });
    assert!(door.server.output().contains("ca.pem"));
    assert!(open(&second).is_some());
    let answer = old.exchange(&Ask::get("/bucket/k")).expect("an answer");
    assert_eq!(answer.status(), 200);
    drop(old);
    door.server.finish();
}

/// Trust in the authority that the folder still names.
fn trust_of(door: &Door) -> std::sync::Arc<rustls::ClientConfig> {
    trust(&door.folder.path, None, BOTH)
}

/// An authority (`ca.pem`) and a certificate of it that a client may show (`cert.pem`, `key.pem`).
fn client_certificate() -> Scratch {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    let folder = Scratch::new();
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("an authority");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let mut own = CertificateParams::new(vec!["client.example".to_owned()]).expect("parameters");
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| {
        std::fs::write(folder.path.join(name), text).expect("a file");
    };
    write("ca.pem", ca.pem());
    write("cert.pem", own.pem());
    write("key.pem", key.serialize_pem());
    folder
}

#[test]
fn semantics_198_client_certificates_are_verified() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let (clients, strangers) = (client_certificate(), client_certificate());
    let authority = clients.path.join("ca.pem");
    for (mode, anonymous) in [("required", false), ("optional", true)] {
        let tls = format!(
            "client_ca_file = {:?}\nclient_certificate = \"{mode}\"",
            authority.to_string_lossy()
        );
        let door = door(origin.address, &tls, 1);
        for versions in [&[&TLS13][..], &[&TLS12][..]] {
            let ask = |own: Option<&Scratch>| {
                let own = own.map(|own| own.path.as_path());
                let config = trust(&door.folder.path, own, versions);
                let open = TlsConnection::open(door.address, &config);
                open.and_then(|mut open| open.exchange(&Ask::get("/bucket/k")))
                    .is_ok_and(|response| response.status() == 200)
            };
            assert!(ask(Some(&clients)), "{mode}");
            assert!(!ask(Some(&strangers)), "{mode}");
            assert_eq!(ask(None), anonymous, "{mode}");
        }
        wait_until("they are counted", PATIENCE, || {
            door.handshakes("certificate") == if anonymous { 2.0 } else { 4.0 }
        });
        door.server.finish();
    }
}

#[test]
fn semantics_199_only_a_whole_answer_ends_as_if_it_were_whole() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 20 * MIB));
    let origin = store.serve();
    let door = door(origin.address, "", 1);
    let config = trust_of(&door);
    let mut whole = TlsConnection::open(door.address, &config).expect("a session");
    whole.send(&Ask::get("/bucket/k").header("Connection", "close"));
    let (bytes, ending) = whole.rest();
    assert_eq!(ending, Ending::Said);
    assert!(bytes.len() as u64 > 20 * MIB);
    // The origin breaks off in the middle, however often it is asked.
    let broken = crate::harness::Stub::start(|_, wire| {
        let _ = wire.send("HTTP/1.1 200 OK\r\nETag: \"e\"\r\nContent-Length: 1000000\r\n\r\n");
        let _ = wire.send(vec![b'x'; 100_000]);
        crate::harness::stub::After::Close
    });
    let cut = self::door(broken.address, "", 1);
    let config = trust_of(&cut);
    let mut short = TlsConnection::open(cut.address, &config).expect("a session");
    short.send(&Ask::get("/bucket/k"));
    let head = short.head().expect("a head");
    assert_eq!(head.status(), 200);
    let (bytes, ending) = short.rest();
    assert_eq!(ending, Ending::Cut);
    assert!(bytes.len() < 1_000_000);
    cut.server.finish();
    door.server.finish();
}

#[test]
fn semantics_200_what_is_no_handshake_is_told_so_or_closed_in_time() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let door = door(origin.address, "handshake_timeout = \"500ms\"", 1);
    let config = trust_of(&door);
    let say = |bytes: &[u8]| {
        let mut socket = TcpStream::connect(door.address).expect("connected");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.write_all(bytes).expect("sent");
        let mut all = Vec::new();
        let begun = Instant::now();
        // A reset ends it too.
        let _ = socket.read_to_end(&mut all);
        (all, begun.elapsed())
    };
    let (answer, _) = say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(door.handshakes("plain_http"), 1.0);
    for silent in [&b""[..], b"\x16\x03\x01"] {
        let (_, took) = say(silent);
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    wait_until("both are counted", PATIENCE, || {
        door.handshakes("timeout") == 2.0
    });
    let (_, took) = say(b"\x80\x01garbage garbage garbage garbage");
    assert!(took < Duration::from_secs(5));
    let (_, took) = say(&[0x16; 70_000]);
    assert!(took < Duration::from_secs(5));
    wait_until("garbage is counted", PATIENCE, || {
        door.handshakes("malformed") == 2.0
    });
    drop(TcpStream::connect(door.address).expect("connected"));
    wait_until("one that leaves is", PATIENCE, || {
        door.handshakes("closed") == 1.0
    });
    let stranger = certificates(&door.address.ip().to_string());
    let stranger = trust(&stranger.path, None, BOTH);
    assert!(TlsConnection::open(door.address, &stranger).is_err());
    wait_until("one that does not trust us", PATIENCE, || {
        door.handshakes("alert") == 1.0
    });
    // TLS at the plain door: closed at once, and nothing is said.
    let mut hello = TcpStream::connect(door.server.door).expect("connected");
    hello.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    hello
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .expect("sent");
    let mut all = Vec::new();
    let begun = Instant::now();
    hello.read_to_end(&mut all).expect("a clean end");
    drop(hello);
    assert!(all.is_empty() && begun.elapsed() < Duration::from_secs(5));
    let response = tls_fetch(door.address, &config, &Ask::get("/bucket/k"));
    assert_eq!(response.status(), 200);
    door.server.finish();
}

#[test]
fn semantics_200_a_handshake_has_a_bound_of_memory_and_each_is_counted() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let tls = "handshake_timeout = \"1m\"\nmin_version = \"1.3\"";
    let door = door(origin.address, tls, 1);
    let config = trust(&door.folder.path, None, &[&TLS13]);
    for _ in 0..2 {
        let response = tls_fetch(door.address, &config, &Ask::get("/bucket/k"));
        assert_eq!(response.status(), 200);
    }
    let old = trust(&door.folder.path, None, &[&TLS12]);
    assert!(TlsConnection::open(door.address, &old).is_err());
    // One hello of 60,000 bytes, spread over records that hold: what comes of it is not waited for.
    let mut long = vec![1, 0, 0xEA, 0x60, 3, 3];
    long.resize(4 + 60_000, 7);
    let records: Vec<u8> = long
        .chunks(8_000)
        .flat_map(|piece| {
            let length = u16::try_from(piece.len()).expect("a length").to_be_bytes();
            [&[0x16, 3, 1][..], &length, piece].concat()
        })
        .collect();
    let mut socket = TcpStream::connect(door.address).expect("connected");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket.write_all(&records[..40_000]).expect("sent");
    let begun = Instant::now();
    let _ = socket.read_to_end(&mut Vec::new());
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "it is waited for"
    );
    for (result, count) in [
        ("full", 1.0),
        ("resumed", 1.0),
        ("protocol", 1.0),
        ("closed", 1.0),
    ] {
        wait_until(result, PATIENCE, || door.handshakes(result) == count);
    }
    let all = door.server.metrics();
    assert_eq!(all.sum("millrace_tls_handshakes_total", &[]), 4.0);
    door.server.finish();
}

#[test]
fn a_session_of_many_requests_survives_pipelining_and_small_pieces() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 3000));
    let origin = store.serve();
    let door = door(origin.address, "", 1);
    let config = trust_of(&door);
    let mut connection = TlsConnection::open(door.address, &config).expect("a session");
    let head = Ask::get("/bucket/k").head_bytes(door.address);
    connection.write(&head.repeat(20));
    for _ in 0..20 {
        let response = connection.response("GET").expect("an answer");
        response.assert_body(&Tile::new(1), 0, 3000);
    }
    for byte in &head {
        connection.write(&[*byte]);
    }
    let response = connection.response("GET").expect("an answer");
    response.assert_body(&Tile::new(1), 0, 3000);
    connection.close();
    door.server.finish();
}

#[test]
fn a_client_that_leaves_is_noticed_and_one_that_reads_slowly_gets_every_byte() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 30 * MIB));
    let origin = store.serve();
    let door = door(origin.address, "", 1);
    let config = trust_of(&door);
    let open = || door.server.metrics().sum("millrace_connections_open", &[]);
    // While it waits for bytes that do not come: with a word, and without.
    store.shut_gate(MIB);
    let mut said = TlsConnection::open(door.address, &config).expect("a session");
    said.send(&Ask::get("/bucket/k"));
    said.head().expect("a head");
    let mut silent = TlsConnection::open(door.address, &config).expect("a session");
    silent.send(&Ask::get("/bucket/k"));
    silent.head().expect("a head");
    assert_eq!(open(), 2.0);
    said.close();
    drop(silent);
    wait_until("both are gone", PATIENCE, || open() == 0.0);
    store.open_gate();
    let mut slow = TlsConnection::open(door.address, &config).expect("a session");
    slow.send(&Ask::get("/bucket/k").header("Connection", "close"));
    let head = slow.head().expect("a head");
    let (mut body, tile) = (0u64, Tile::new(1));
    for _ in 0..20 {
        let piece = slow.some(64 * 1024);
        assert!(tile.holds(body, &piece), "a wrong byte near {body}");
        body += piece.len() as u64;
        std::thread::sleep(Duration::from_millis(20));
    }
    let (rest, ending) = slow.rest();
    assert!(tile.holds(body, &rest), "a wrong byte behind {body}");
    assert_eq!(Some(body + rest.len() as u64), head.content_length());
    assert_eq!(ending, Ending::Said);
    drop(slow);
    door.server.finish();
}

/// Records that carry nothing are no bytes: neither of a body nor of a next request.
#[test]
fn who_sends_records_that_carry_nothing_is_closed_in_time() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let address = free_address();
    let folder = certificates(&address.ip().to_string());
    let settings = setting(address, &folder, "");
    let times = "idle_timeout = \"1s\"\nsend_timeout = \"1s\"\n[tls]";
    let server = Millrace::setup()
        .settings(&settings.replace("[tls]", times))
        .start(origin.address);
    let config = trust(&folder.path, None, BOTH);
    for upload in [true, false] {
        let mut client = TlsConnection::open(address, &config).expect("a session");
        if upload {
            client.write(b"PUT /bucket/up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\nx");
        } else {
            let response = client.exchange(&Ask::get("/bucket/k"));
            assert_eq!(response.expect("an answer").status(), 200);
        }
        let begun = Instant::now();
        while client.say_nothing() && !client.closes_within(Duration::from_millis(200)) {
            assert!(begun.elapsed() < Duration::from_secs(3), "it stays open");
        }
        assert!(begun.elapsed() > Duration::from_millis(700));
    }
    server.finish();
}

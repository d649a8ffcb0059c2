//! Hellos and destinations that lead nowhere: each is refused with the answer that is stated for it, and nobody is dialled.

use crate::harness::far::{
    Far, NAME, connect, crafted, extension, hello, message, name_server, read, read_all, records,
    server_name, tunnelling, usual_extensions,
};
use crate::harness::{Ask, Millrace, PATIENCE, free_address, wait_until};
use std::io::Write;
use std::net::{IpAddr, Shutdown};
use std::time::Duration;

const HANDSHAKE_FAILURE: u8 = 40;
const DECODE_ERROR: u8 = 50;
const INTERNAL_ERROR: u8 = 80;
const UNRECOGNIZED_NAME: u8 = 112;

fn alert(description: u8) -> Vec<u8> {
    vec![0x15, 3, 3, 0, 2, 2, description]
}

/// A hello of these extensions and the usual ones, in one record.
fn with(extensions: &[u8]) -> Vec<u8> {
    records(
        &message(&[extensions, &usual_extensions()].concat()),
        16_384,
    )
}

fn patched(mut bytes: Vec<u8>, at: usize, value: &[u8]) -> Vec<u8> {
    bytes[at..at + value.len()].copy_from_slice(value);
    bytes
}

/// What, its bytes, the alert, the reason in the metric.
type Case = (&'static str, Vec<u8>, u8, &'static str);

fn not_tls(what: &'static str, bytes: Vec<u8>) -> Case {
    (what, bytes, DECODE_ERROR, "not_tls")
}

/// Bytes that are no TLS hello.
fn not_hellos() -> Vec<Case> {
    let hello = crafted(NAME.as_bytes());
    let at = |place, value: &[u8]| patched(hello.clone(), place, value);
    let cases = [
        (
            "plain HTTP",
            b"GET / HTTP/1.1\r\nHost: store.test\r\n\r\n".to_vec(),
        ),
        (
            "CONNECT",
            b"CONNECT store.test:443 HTTP/1.1\r\n\r\n".to_vec(),
        ),
        ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        (
            "an SSL 2 hello",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".repeat(4),
        ),
        ("an alert", vec![0x15, 3, 1, 0, 2, 2, 40]),
        ("application data", vec![0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
        ("a change of ciphers", vec![0x14, 3, 3, 0, 1, 1]),
        ("a server's hello", at(5, &[2])),
        ("a hello request", at(5, &[0])),
        (
            "a record longer than any",
            vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 1],
        ),
        ("a message longer than any", at(6, &[0xff])),
        ("a record of another protocol", at(1, &[9, 9])),
        ("a message shorter than its parts", at(6, &[0, 0, 40])),
        ("an empty message", vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
    ];
    cases.map(|(what, bytes)| not_tls(what, bytes)).to_vec()
}

/// Hellos whose names could be read in two ways, or by nobody.
fn misnamed() -> Vec<Case> {
    let name = NAME.as_bytes();
    let named = |name: &[u8]| server_name(&[(0, name)]);
    let overlong = [&[0, 0, 40, 0, 0, 200][..], name].concat();
    let extensions = [
        ("the name twice", [named(name), named(name)].concat()),
        (
            "another name behind it",
            [named(name), named(b"b.test")].concat(),
        ),
        (
            "two names in one",
            server_name(&[(0, name), (0, b"b.test")]),
        ),
        ("an empty list of names", server_name(&[])),
        ("an empty name", named(b"")),
        ("a name longer than its list", extension(0, &overlong)),
        ("an extension cut short", vec![0, 0, 0, 90]),
    ];
    let names: [(&str, &[u8]); 10] = [
        ("a name with a zero byte", b"store\0test"),
        ("a name with a space", b"store test"),
        ("a name that is not ASCII", "störe.test".as_bytes()),
        ("a name with a slash", b"store.test/x"),
        ("a name with a port", b"store.test:443"),
        ("a name longer than any", &[b'a'; 300]),
        ("labels that are empty", b"store..test"),
        ("an address as a number", b"2130706433"),
        ("an address in octal", b"0177.0.0.01"),
        ("an address that is a name too", b"1.2.3"),
    ];
    let odd = extensions.map(|(what, extensions)| not_tls(what, with(&extensions)));
    let names = names.map(|(what, name)| not_tls(what, crafted(name)));
    odd.into_iter().chain(names).collect()
}

/// Hellos that name nobody, or somebody else.
fn nowhere() -> Vec<Case> {
    let nameless = [
        ("no name", with(b"")),
        ("an IPv4 address for a name", crafted(b"127.0.0.1")),
        ("a hello for an address", hello("127.0.0.1")),
    ];
    let nameless = nameless.map(|(what, bytes)| (what, bytes, HANDSHAKE_FAILURE, "no_name"));
    let names: [(&str, &[u8]); 9] = [
        ("another host", b"elsewhere.test"),
        ("a host that begins like it", b"store.test.evil.test"),
        ("a host that ends like it", b"xstore.test"),
        ("a host below it", b"bucket.store.test"),
        ("this machine", b"localhost"),
        ("this machine, in full", b"localhost.localdomain"),
        ("a metadata service", b"metadata.google.internal"),
        (
            "what single-origin mode does not lead to",
            b"s3.amazonaws.com",
        ),
        ("one label", b"store"),
    ];
    let names = names.map(|(what, name)| (what, crafted(name), UNRECOGNIZED_NAME, "host"));
    let endless = records(&message(&extension(21, &[0; 60_000])), 16_384);
    let endless = (
        "padding without end",
        endless,
        DECODE_ERROR,
        "hello_too_large",
    );
    nameless.into_iter().chain(names).chain([endless]).collect()
}

#[test]
fn semantics_185_a_hello_that_leads_nowhere_is_answered_by_a_tls_alert() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "hello_timeout = \"700ms\"");
    let refused = |reason| {
        server
            .metrics()
            .sum("millrace_tunnels_refused_total", &[("reason", reason)])
    };
    let hostile = [not_hellos(), misnamed(), nowhere()].concat();
    for (what, bytes, description, reason) in hostile {
        let before = refused(reason);
        let mut client = connect(door);
        client.write_all(&bytes).expect("the hello");
        assert_eq!(read_all(&mut client), alert(description), "{what}");
        assert_eq!(refused(reason), before + 1.0, "{what}: {reason}");
    }
    // One that stands still, one that leaves, one that says nothing.
    let mut slow = connect(door);
    slow.write_all(&hello(NAME)[..50]).expect("half a hello");
    assert_eq!(read_all(&mut slow), alert(DECODE_ERROR));
    let mut gone = connect(door);
    gone.write_all(&hello(NAME)[..50]).expect("half a hello");
    gone.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(read_all(&mut gone), b"");
    let mut silent = connect(door);
    assert_eq!(read_all(&mut silent), alert(DECODE_ERROR));
    assert_eq!(
        (refused("hello_timeout"), refused("client_gone")),
        (2.0, 1.0)
    );
    assert!(far.is_alone(), "somebody was dialled");
    server.finish();
}

/// Odd, and right: what real clients send. Reference 2A.32.
#[test]
fn semantics_186_a_hello_may_be_spread_over_any_records_and_be_large() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let names = [server_name(&[(0, NAME.as_bytes())]), usual_extensions()].concat();
    let plain = message(&names);
    // As large as the key shares of the largest post-quantum schemes, and more.
    let large = message(&[extension(21, &[0; 20_000]), names].concat());
    let mut hellos: Vec<Vec<u8>> = [1, 2, 3, 5, 40, plain.len() - 1]
        .map(|bytes| records(&plain, bytes))
        .to_vec();
    hellos.push(records(&large, 16_384));
    hellos.push(records(&large, 700));
    hellos.push(crafted(b"STORE.Test"));
    for hello in hellos {
        let mut client = connect(door);
        for piece in hello.chunks(1000) {
            client.write_all(piece).expect("the hello");
        }
        let mut origin = far.accept();
        assert_eq!(read(&mut origin, hello.len()), hello);
    }
    server.finish();
}

/// `CONNECT` targets, each with its status; what is malformed is 400, what leads nowhere 403.
const TARGETS: [(&str, u16); 30] = [
    ("elsewhere.test:443", 403),
    ("store.test:22", 403),
    ("store.test:80", 403),
    ("store.test.:8443", 403),
    ("store.test.evil.test:443", 403),
    ("allowed.test:443", 403),
    ("x.allowed.test:22", 403),
    ("x.allowed.test:80", 403),
    ("s3.amazonaws.com:80", 403),
    ("s3.amazonaws.com:8443", 403),
    ("s3.amazonaws.com.evil.test:443", 403),
    ("ec2.amazonaws.com:443", 403),
    ("localhost:443", 403),
    ("127.0.0.1:443", 403),
    ("127.1:443", 403),
    ("0:443", 403),
    ("0x7f000001:443", 403),
    ("2130706433:443", 403),
    ("[::1]:443", 403),
    ("[::ffff:127.0.0.1]:443", 403),
    ("[64:ff9b::7f00:1]:443", 403),
    ("169.254.169.254:443", 403),
    ("169.254.169.254:80", 403),
    ("metadata:80", 403),
    ("store.test", 400),
    ("store.test:", 400),
    ("store.test:0", 400),
    ("store.test:99999", 400),
    ("user@store.test:443", 400),
    ("http://store.test:443", 400),
];

/// Names in the operator's list, and addresses that a tunnel does not lead to whoever has them.
const ADDRESSES: [&str; 28] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.254",
    "127.0.0.1",
    "127.9.9.9",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.168.0.1",
    "198.18.0.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "2001:0:4136:e378::1",
    "2002:7f00:1::1",
    "fd00::1",
    "fe80::1",
];

fn policed(far: &Far, more: &str) -> Millrace {
    let dns = name_server(|name| match name {
        "far.allowed.test" => vec!["127.0.0.7".parse().expect("an address")],
        _ => Vec::new(),
    });
    Millrace::setup()
        .origin("")
        .settings(&format!(
            "[upstream]\ndns_servers = [\"{dns}\"]\nretries = 4\n[destinations]\nallow = [\"*.allowed.test\"]\n{more}\n[[origin]]\nname = \"store\"\nurl = \"https://{}\"\nhosts = [\"store.test\"]",
            far.address
        ))
        .start(far.address)
}

fn connect_to(target: &str) -> Ask {
    Ask::new("CONNECT", target).header("Host", target)
}

fn named(ip: &str) -> String {
    match ip.parse().expect("an address") {
        IpAddr::V4(v4) => format!("v4-{:08x}.allowed.test", u32::from(v4)),
        IpAddr::V6(v6) => format!("v6-{:032x}.allowed.test", u128::from(v6)),
    }
}

/// The address itself is judged, private ones in every form of writing. Reference 2A.34.
#[test]
fn semantics_187_a_destination_that_is_not_allowed_is_403_and_is_not_dialled() {
    let far = Far::listen();
    let server = policed(&far, "");
    for (target, status) in TARGETS {
        let answer = server.fetch(&connect_to(target));
        assert_eq!(answer.status(), status, "{target}");
        assert!(answer.text().contains("<Code>"), "{target}");
    }
    for ip in ADDRESSES {
        let answer = server.fetch(&connect_to(&format!("{}:443", named(ip))));
        assert_eq!(answer.status(), 403, "{ip}: {}", answer.text());
    }
    let refused = |reason| {
        server
            .metrics()
            .sum("millrace_tunnels_refused_total", &[("reason", reason)])
    };
    assert_eq!(refused("address"), ADDRESSES.len() as f64);
    assert!(far.is_alone(), "somebody was dialled");
    // A name that nobody has, and a port at which nobody is.
    let nobody = server.fetch(&connect_to("nobody.allowed.test:443"));
    nobody.assert_s3_error(502, "BadGateway");
    assert_eq!(refused("dns"), 1.0);
    server.finish();
}

/// What the operator allows is dialled, one address after another; a port of the list, and no other.
#[test]
fn semantics_188_allowed_networks_and_ports_are_dialled_in_turn() {
    let far = Far::listen();
    let (ip, port) = (far.address.ip(), far.address.port());
    let more = format!("ports = [443, {port}]\nnetworks = [\"127.0.0.0/8\"]");
    let dns = name_server(move |_| {
        vec![
            "127.0.0.7".parse().expect("an address"),
            "10.0.0.1".parse().expect("an address"),
            ip,
        ]
    });
    let server = Millrace::setup()
        .origin("")
        .settings(&format!(
            "[upstream]\ndns_servers = [\"{dns}\"]\n[destinations]\nallow = [\"*.allowed.test\"]\n{more}"
        ))
        .start(far.address);
    for round in 0..8 {
        let target = format!("r{round}.allowed.test:{port}");
        let mut client = connect(server.door);
        let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        client.write_all(ask.as_bytes()).expect("a request");
        let head = read(&mut client, 12);
        assert_eq!(head, b"HTTP/1.1 200", "{target}");
        let _origin = far.accept();
    }
    let other = server.fetch(&connect_to(&format!("r.allowed.test:{}", port + 1)));
    other.assert_s3_error(403, "AccessDenied");
    server.finish();
}

/// A destination that is this server: by its doors' addresses, and by an address of this machine where a door is open on all. Reference 2J.165.
#[test]
fn semantics_189_a_tunnel_never_leads_back_here() {
    let far = Far::listen();
    // A port that nobody has at any address.
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").and_then(|one| one.local_addr());
    let (tunnel, everywhere) = (free_address(), everywhere.expect("a port").port());
    let dns = name_server(move |_| vec![tunnel.ip()]);
    let ports = format!("443, {}, {everywhere}", tunnel.port());
    let server = Millrace::setup()
        .origin("")
        .settings(&format!(
            "[listener]\ntunnel = [\"{tunnel}\", \"0.0.0.0:{everywhere}\"]\n[upstream]\ndns_servers = [\"{dns}\"]\n[destinations]\nallow = [\"*.allowed.test\", \"127.0.0.1\"]\nports = [{ports}]\nnetworks = [\"0.0.0.0/0\"]"
        ))
        .start(far.address);
    for target in [
        format!("me.allowed.test:{}", tunnel.port()),
        format!("me.allowed.test:{everywhere}"),
        format!("127.0.0.1:{everywhere}"),
        format!("{}.allowed.test:{everywhere}", "v4-00000000"),
    ] {
        let answer = server.fetch(&connect_to(&target));
        answer.assert_s3_error(403, "AccessDenied");
    }
    let mut client = connect(tunnel);
    client
        .write_all(&crafted(b"v4-7f000001.allowed.test"))
        .expect("the hello");
    let answer = read_all(&mut client);
    assert_eq!(answer, alert(INTERNAL_ERROR), "nobody is at its port 443");
    wait_until("nothing is held", PATIENCE + Duration::from_secs(1), || {
        server.metrics().held().is_empty()
    });
    server.finish();
}

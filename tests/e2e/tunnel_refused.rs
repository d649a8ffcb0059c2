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

type Case = (&'static str, Vec<u8>, u8, &'static str);

/// What, its bytes, the alert, the reason in the metric.
fn hostile() -> Vec<Case> {
    let name = NAME.as_bytes();
    let not_tls = |what, bytes| (what, bytes, DECODE_ERROR, "not_tls");
    let nowhere = |what, name: &[u8]| (what, crafted(name), UNRECOGNIZED_NAME, "host");
    let nameless = |what, bytes| (what, bytes, HANDSHAKE_FAILURE, "no_name");
    let overlong = [&[0, 0, 40, 0, 0, 200][..], name].concat();
    vec![
        not_tls(
            "plain HTTP",
            b"GET / HTTP/1.1\r\nHost: store.test\r\n\r\n".to_vec(),
        ),
        not_tls(
            "CONNECT",
            b"CONNECT store.test:443 HTTP/1.1\r\n\r\n".to_vec(),
        ),
        not_tls("SSH", b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        not_tls("zeros", vec![0; 64]),
        not_tls("ones", vec![0xff; 64]),
        not_tls(
            "an SSL 2 hello",
            b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10".repeat(4),
        ),
        not_tls("an alert", vec![0x15, 3, 1, 0, 2, 2, 40]),
        not_tls("application data", vec![0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]),
        not_tls("a change of ciphers", vec![0x14, 3, 3, 0, 1, 1]),
        not_tls("a server's hello", patched(crafted(name), 5, &[2])),
        not_tls("a hello request", patched(crafted(name), 5, &[0])),
        not_tls(
            "a record longer than any",
            vec![0x16, 3, 1, 0xff, 0xff, 1, 0, 0, 1],
        ),
        not_tls(
            "a message longer than any",
            patched(crafted(name), 6, &[0xff]),
        ),
        not_tls(
            "a record of another protocol",
            patched(crafted(name), 1, &[9, 9]),
        ),
        not_tls(
            "a message shorter than its parts",
            patched(crafted(name), 6, &[0, 0, 40]),
        ),
        not_tls("an empty message", vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
        not_tls(
            "the name twice",
            with(&[server_name(&[(0, name)]), server_name(&[(0, name)])].concat()),
        ),
        not_tls(
            "another name behind it",
            with(&[server_name(&[(0, name)]), server_name(&[(0, b"b.test")])].concat()),
        ),
        not_tls(
            "two names in one",
            with(&server_name(&[(0, name), (0, b"b.test")])),
        ),
        not_tls("an empty list of names", with(&server_name(&[]))),
        not_tls("an empty name", with(&server_name(&[(0, b"")]))),
        not_tls(
            "a name longer than its list",
            with(&extension(0, &overlong)),
        ),
        not_tls("an extension cut short", with(&[0, 0, 0, 90])),
        not_tls("a name with a zero byte", crafted(b"store\0test")),
        not_tls("a name with a space", crafted(b"store test")),
        not_tls("a name that is not ASCII", crafted("störe.test".as_bytes())),
        not_tls("a name with a slash", crafted(b"store.test/x")),
        not_tls("a name with a port", crafted(b"store.test:443")),
        not_tls("a name longer than any", crafted(&[b'a'; 300])),
        not_tls("labels that are empty", crafted(b"store..test")),
        nameless("no name", with(b"")),
        nameless("an IPv4 address for a name", crafted(b"127.0.0.1")),
        nameless("a hello for an address", hello("127.0.0.1")),
        nowhere("another host", b"elsewhere.test"),
        nowhere("a host that begins like it", b"store.test.evil.test"),
        nowhere("a host that ends like it", b"xstore.test"),
        nowhere("a host below it", b"bucket.store.test"),
        nowhere("this machine", b"localhost"),
        nowhere("this machine, in full", b"localhost.localdomain"),
        nowhere("a metadata service", b"metadata.google.internal"),
        nowhere(
            "an endpoint that single-origin mode does not lead to",
            b"s3.amazonaws.com",
        ),
        not_tls("an address as a number", crafted(b"2130706433")),
        not_tls("an address in octal", crafted(b"0177.0.0.01")),
        nowhere("one label", b"store"),
        (
            "padding without end",
            records(&message(&extension(21, &[0; 60_000])), 16_384),
            DECODE_ERROR,
            "hello_too_large",
        ),
    ]
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
    for (what, bytes, description, reason) in hostile() {
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

/// Odd, and right: what real clients send.
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

/// A destination that is this server: by its doors' addresses, and by an address of this machine where a door is open on all.
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

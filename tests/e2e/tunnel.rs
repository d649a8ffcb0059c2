//! Tunnels: by the name in a TLS hello and by CONNECT, both ways, ended as their sides end.

use crate::harness::far::{Far, NAME, connect, crafted, hello, read, read_all, tunnelling};
use crate::harness::store::Object;
use crate::harness::wire::{reset_on_close, send_urgent};
use crate::harness::{Ask, Millrace, PATIENCE, Store, wait_until};
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

#[test]
fn semantics_180_a_tls_connection_goes_unaltered_to_the_host_that_its_hello_names() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    // At once, byte by byte, and with early bytes behind it.
    for (piece, early) in [(hello.len(), 0), (1, 0), (77, 10_000)] {
        let sent = [hello.clone(), vec![0xee; early]].concat();
        let mut client = connect(door);
        for bytes in sent.chunks(piece) {
            client.write_all(bytes).expect("the hello");
        }
        let mut origin = far.accept();
        assert_eq!(read(&mut origin, sent.len()), sent);
        origin.write_all(b"from the origin").expect("a send");
        assert_eq!(read(&mut client, 15), b"from the origin");
        client.write_all(b"more").expect("a send");
        assert_eq!(read(&mut origin, 4), b"more");
        client.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(read_all(&mut origin), b"");
        origin.write_all(b"the rest").expect("a send");
        drop(origin);
        assert_eq!(read_all(&mut client), b"the rest");
    }
    wait_until("three ends", PATIENCE, || {
        let closed = [("end", "closed")];
        server
            .metrics()
            .sum("millrace_tunnels_closed_total", &closed)
            == 3.0
    });
    let bytes = |way| {
        server
            .metrics()
            .sum("millrace_tunnel_bytes_total", &[("way", way)])
    };
    assert_eq!(bytes("to_client"), 3.0 * 23.0);
    assert_eq!(bytes("to_origin"), (3 * hello.len() + 10_000 + 12) as f64);
    server.finish();
}

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

fn ask_connect(target: &str) -> String {
    format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"
    )
}

#[test]
fn semantics_181_connect_is_a_tunnel_to_the_host_that_it_names() {
    let far = Far::listen();
    let (server, _) = tunnelling(far.address, "");
    // By the origin's own host and port, by a name that leads to it, and with bytes that did not wait for the answer.
    for (target, early) in [
        (far.address.to_string(), &b""[..]),
        (format!("{NAME}:443"), b""),
        (format!("{NAME}:443"), b"early"),
    ] {
        let mut client = connect(server.door);
        client
            .write_all(&[ask_connect(&target).as_bytes(), early].concat())
            .expect("a request");
        assert_eq!(read(&mut client, ESTABLISHED.len()), ESTABLISHED);
        let mut origin = far.accept();
        client.write_all(b"later").expect("a send");
        let wanted = [early, b"later"].concat();
        // Nothing of the request itself, nor of what authenticates it to a proxy.
        assert_eq!(read(&mut origin, wanted.len()), wanted);
        origin.write_all(b"answer").expect("a send");
        drop(origin);
        assert_eq!(read_all(&mut client), b"answer");
    }
    let opened = [("door", "connect")];
    assert_eq!(
        server
            .metrics()
            .sum("millrace_tunnels_opened_total", &opened),
        3.0
    );
    server.finish();
}

/// A refusal is an answer, and the connection is good for a next request.
#[test]
fn a_connection_goes_on_after_a_refused_connect() {
    let far = Far::listen();
    let (server, _) = tunnelling(far.address, "");
    let mut client = server.connect();
    let ask = Ask::new("CONNECT", "elsewhere.test:443").header("Host", "elsewhere.test:443");
    for _ in 0..2 {
        let refused = client.exchange(&ask);
        refused.assert_s3_error(403, "AccessDenied");
    }
    let mut raw = connect(server.door);
    raw.write_all(ask_connect("elsewhere.test:443").as_bytes())
        .expect("a request");
    raw.write_all(ask_connect(&format!("{NAME}:443")).as_bytes())
        .expect("a request");
    let _origin = far.accept();
    drop(raw);
    drop(client);
    server.finish();
}

#[test]
fn semantics_182_a_reset_of_one_side_is_a_reset_of_the_other() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    let open = || {
        let mut client = connect(door);
        client.write_all(&hello).expect("the hello");
        let mut origin = far.accept();
        assert_eq!(read(&mut origin, hello.len()), hello);
        (client, origin)
    };
    let is_reset = |stream: &mut std::net::TcpStream| {
        let error = std::io::Read::read(stream, &mut [0; 16]).expect_err("no orderly end");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    };
    let (client, mut origin) = open();
    reset_on_close(&client);
    drop(client);
    is_reset(&mut origin);
    let (mut client, origin) = open();
    reset_on_close(&origin);
    drop(origin);
    is_reset(&mut client);
    // In the middle of a body that nobody takes.
    let (client, mut origin) = open();
    origin.set_nonblocking(true).expect("non-blocking");
    wait_until("the way is full", PATIENCE, || {
        origin.write(&[7; 65_536]).is_err()
            && server.metrics().sum("millrace_tunnel_pipes", &[]) == 1.0
    });
    origin.set_nonblocking(false).expect("blocking");
    reset_on_close(&client);
    drop(client);
    is_reset(&mut origin);
    let closed = |end| {
        server
            .metrics()
            .sum("millrace_tunnels_closed_total", &[("end", end)])
    };
    wait_until("three ends", PATIENCE, || {
        closed("client_reset") == 2.0 && closed("origin_reset") == 1.0
    });
    server.finish();
}

#[test]
fn semantics_183_a_tunnel_in_which_nothing_moves_is_cut() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "idle_timeout = \"400ms\"");
    let hello = hello(NAME);
    let mut client = connect(door);
    client.write_all(&hello).expect("the hello");
    let mut origin = far.accept();
    // What moves keeps it open, whichever way.
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(150));
        origin.write_all(b"x").expect("a send");
        assert_eq!(read(&mut client, 1), b"x");
    }
    // One side has ended, and the other rests.
    client.shutdown(Shutdown::Write).expect("a half-close");
    assert_eq!(read_all(&mut origin), hello);
    let begun = Instant::now();
    let error = std::io::Read::read(&mut client, &mut [0; 16]).expect_err("no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(begun.elapsed() > Duration::from_millis(300), "too early");
    let idle = [("end", "idle")];
    wait_until("it is counted", PATIENCE, || {
        server.metrics().sum("millrace_tunnels_closed_total", &idle) == 1.0
    });
    server.finish();
}

#[test]
fn semantics_184_tunnels_go_on_while_the_server_drains_and_are_cut_and_logged_then() {
    let far = Far::listen();
    let (mut server, door) = tunnelling(far.address, "[server]\ndrain = \"1500ms\"");
    let hello = hello(NAME);
    let mut client = connect(door);
    client.write_all(&hello).expect("the hello");
    let mut origin = far.accept();
    assert_eq!(read(&mut origin, hello.len()), hello);
    server.terminate();
    wait_until("it drains", PATIENCE, || server.ready_status() == Some(503));
    wait_until("the door is shut", PATIENCE, || {
        std::net::TcpStream::connect(door).is_err()
    });
    origin.write_all(b"still").expect("a send");
    assert_eq!(read(&mut client, 5), b"still");
    let error = std::io::Read::read(&mut client, &mut [0; 16]).expect_err("no orderly end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(server.await_exit().success(), "{}", server.output());
    let lines = server.access_log_lines();
    let line = lines.iter().find(|line| line.contains("\"drain\""));
    let line: serde_json::Value = serde_json::from_str(line.expect("a line")).expect("JSON");
    assert_eq!(line["bytes_sent"], 5);
    assert_eq!(line["bytes_received"], hello.len());
}

#[test]
fn semantics_190_each_tunnel_has_a_line_in_the_access_log() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    let mut client = connect(door);
    client.write_all(&hello).expect("the hello");
    let own = client.local_addr().expect("an address").to_string();
    let mut origin = far.accept();
    assert_eq!(read(&mut origin, hello.len()), hello);
    origin.write_all(&[9; 100_000]).expect("a send");
    drop(origin);
    assert_eq!(read_all(&mut client).len(), 100_000);
    drop(client);
    let mut refused = connect(door);
    refused
        .write_all(&crafted(b"elsewhere.test"))
        .expect("a hello");
    read_all(&mut refused);
    drop(refused);
    wait_until("two lines", PATIENCE, || {
        server.access_log_lines().len() == 2
    });
    let lines = server.access_log_lines();
    let lines: Vec<serde_json::Value> = lines
        .iter()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let whole = lines.iter().find(|line| line["client"] == own.as_str());
    let whole = whole.expect("a line of the first");
    assert_eq!(whole["tunnel"], "sni");
    assert_eq!(whole["destination"], far.address.to_string());
    assert_eq!(whole["address"], far.address.to_string());
    assert_eq!(whole["bytes_sent"], 100_000);
    assert_eq!(whole["bytes_received"], hello.len());
    let refused = lines.iter().find(|line| line["end"] == "refused");
    let refused = refused.expect("a line of the refused one");
    assert_eq!(refused["destination"], "elsewhere.test");
    assert_eq!(refused["error"], "host");
    server.finish();
}

#[test]
fn semantics_192_tunnels_are_bounded() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "tunnels_max = 2");
    let hello = hello(NAME);
    let open = || {
        let mut client = connect(door);
        client.write_all(&hello).expect("the hello");
        client
    };
    let (first, second) = (open(), open());
    let held = [far.accept(), far.accept()];
    let mut third = open();
    assert_eq!(read_all(&mut third), [0x15, 3, 3, 0, 2, 2, 80]);
    let ask = Ask::new("CONNECT", &format!("{NAME}:443")).header("Host", NAME);
    server.fetch(&ask).assert_s3_error(503, "SlowDown");
    drop((first, held));
    wait_until("a place is free", PATIENCE, || {
        let closed = server.metrics().sum("millrace_tunnels_closed_total", &[]);
        closed >= 1.0
    });
    drop(second);
    let client = open();
    let origin = far.accept();
    drop((client, third, origin));
    server.finish();
}

/// An absolute `https` target is served as the same object over plain HTTP is: by its host, and from the cache.
#[test]
fn semantics_194_an_absolute_https_target_is_answered_from_the_cache() {
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"bytes"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let host = origin.address.to_string();
    for (scheme, word) in [("http", "MISS"), ("https", "HIT"), ("HTTPS", "HIT")] {
        let ask = Ask::get(&format!("{scheme}://{host}/bucket/k")).header("Host", &host);
        let answer = server.fetch(&ask);
        assert_eq!((answer.status(), answer.cache_word()), (200, word));
        assert_eq!(answer.body, b"bytes");
    }
    server.finish();
}

/// The kernel does not splice past an urgent byte: such bytes, and what stands behind them, come through all the same, and the shard rests after.
#[test]
fn urgent_bytes_come_through_in_their_place() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    let mut client = connect(door);
    client.write_all(&hello).expect("the hello");
    let mut origin = far.accept();
    assert_eq!(read(&mut origin, hello.len()), hello);
    for round in 0..20 {
        client.write_all(b"before").expect("a send");
        send_urgent(&client, b'!');
        client.write_all(b"behind").expect("a send");
        assert_eq!(read(&mut origin, 13), b"before!behind", "round {round}");
    }
    client.write_all(&[7; 300_000]).expect("a send");
    assert_eq!(read(&mut origin, 300_000), [7; 300_000]);
    drop((client, origin));
    server.finish();
}

/// The same when the sender has ended behind them: the kernel's splice takes an urgent byte for the end then.
#[test]
fn urgent_bytes_right_before_the_end_are_not_taken_for_it() {
    let far = Far::listen();
    let (server, door) = tunnelling(far.address, "");
    let hello = hello(NAME);
    for round in 0..50 {
        let mut client = connect(door);
        client.write_all(&hello).expect("the hello");
        let mut origin = far.accept();
        assert_eq!(read(&mut origin, hello.len()), hello);
        client.write_all(b"before").expect("a send");
        send_urgent(&client, b'!');
        client.write_all(b"behind").expect("a send");
        client.shutdown(Shutdown::Write).expect("a half-close");
        assert_eq!(read_all(&mut origin), b"before!behind", "round {round}");
    }
    server.finish();
}

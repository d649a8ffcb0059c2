//! Clients that are broken, slow or malicious: a clear answer in S3's XML, a closed
//! connection where framing is in doubt, nothing at the origin, and everybody else
//! served as before.

use crate::harness::store::Object;
use crate::harness::{Ask, Broken, Connection, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::time::Duration;

/// What comes back for these raw bytes: the status, or nothing if the server only closed. Asserts that it closed.
#[track_caller]
fn answer_and_close(server: &Millrace, raw: &[u8]) -> Option<u16> {
    let mut connection = server.connect();
    connection.send(raw);
    let status = match connection.response("GET") {
        Ok(response) => {
            response.assert_refused();
            Some(response.status())
        }
        Err(Broken::Closed { .. } | Broken::Reset { .. }) => None,
        Err(other) => panic!("{other:?} for {:?}", String::from_utf8_lossy(raw)),
    };
    assert!(
        connection.closes(),
        "still open after {:?}",
        String::from_utf8_lossy(raw)
    );
    status
}

/// Requests whose framing is in doubt, or that are no requests.
const MALFORMED: &[(&str, &str)] = &[
    (
        "length with chunks",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "chunks with length",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    ),
    (
        "two lengths in one",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4, 5\r\n\r\nabcde",
    ),
    (
        "signed length",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: +4\r\n\r\nabcd",
    ),
    (
        "negative length",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: -4\r\n\r\nabcd",
    ),
    (
        "hexadecimal length",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 0x4\r\n\r\nabcd",
    ),
    (
        "empty length",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nabcd",
    ),
    (
        "length past 64 bits",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551617\r\n\r\na",
    ),
    (
        "unknown coding",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
    ),
    (
        "coding after chunks",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "disguised coding",
        "POST /b/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "space before the colon",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nContent-Length : 4\r\n\r\nabcd",
    ),
    (
        "tab before the colon",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX-A\t: 4\r\n\r\n",
    ),
    (
        "folded line",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n 2\r\n\r\n",
    ),
    ("bare line feeds", "GET /b/k HTTP/1.1\nHost: h\n\n"),
    (
        "one bare line feed",
        "GET /b/k HTTP/1.1\r\nHost: h\nX-A: 1\r\n\r\n",
    ),
    (
        "bare carriage return",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX-A: 1\r2\r\n\r\n",
    ),
    (
        "NUL in a value",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX-A: a\0b\r\n\r\n",
    ),
    (
        "NUL in the target",
        "GET /b/k\0x HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "no colon",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nNoColon\r\n\r\n",
    ),
    ("no name", "GET /b/k HTTP/1.1\r\nHost: h\r\n: value\r\n\r\n"),
    (
        "space in a name",
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX A: 1\r\n\r\n",
    ),
    (
        "header before the line",
        " GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("two spaces", "GET  /b/k HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("no version", "GET /b/k\r\nHost: h\r\n\r\n"),
    ("wrong version", "GET /b/k HTTP/2.0\r\nHost: h\r\n\r\n"),
    ("not a version", "GET /b/k HTTP/1.1x\r\nHost: h\r\n\r\n"),
    ("no host", "GET /b/k HTTP/1.1\r\n\r\n"),
    (
        "two hosts",
        "GET /b/k HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ),
    ("broken host", "GET /b/k HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (
        "target without a slash",
        "GET b/k HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("broken method", "G(T /b/k HTTP/1.1\r\nHost: h\r\n\r\n"),
    (
        "a TLS hello",
        "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03 some hello bytes\r\n\r\n",
    ),
];

#[test]
fn semantics_20_malformed_requests_get_400_and_a_closed_connection() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for (name, raw) in MALFORMED {
        let status = answer_and_close(&server, raw.as_bytes());
        assert!(
            matches!(status, Some(400 | 501 | 505)),
            "{name}: {status:?}"
        );
        assert_eq!(origin.requests(), 0, "{name} reached the origin");
    }
    assert_eq!(server.get("/b/k").text(), "fine");
    assert_eq!(
        server
            .metrics()
            .sum("millrace_requests_malformed_total", &[]) as usize,
        MALFORMED.len()
    );
    server.finish();
}

#[test]
fn semantics_21_nothing_can_be_smuggled_behind_a_body() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nsend_timeout = \"500ms\"")
        .start(origin.address);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    for size in [
        "zz",
        "",
        "-1",
        "+5",
        "0x5",
        "5 ",
        " 5",
        "5;a\n",
        "ffffffffffffffff",
        "10000000000000000",
        "5\r",
    ] {
        let mut connection = server.connect();
        connection.send(format!("PUT /b/n HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nhello\r\n0\r\n\r\n{smuggled}"));
        match connection.response("PUT") {
            Ok(response) => response.assert_refused(),
            Err(Broken::Closed { .. } | Broken::Reset { .. }) => {}
            Err(other) => panic!("{other:?} for chunk size {size:?}"),
        }
        assert!(connection.closes(), "still open after chunk size {size:?}");
    }
    let seen: Vec<String> = origin
        .seen()
        .iter()
        .map(|seen| seen.target().to_owned())
        .collect();
    assert!(
        !seen.iter().any(|target| target.contains("smuggled")),
        "{seen:?}"
    );
    assert!(
        store.object("/b/n").is_none(),
        "a body of broken chunks was taken for whole"
    );
    assert_eq!(server.get("/b/k").text(), "fine");
    server.finish();
}

#[test]
fn semantics_22_heads_have_a_size_and_a_count() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let long_value = format!(
        "GET /b/k HTTP/1.1\r\nHost: h\r\nX-A: {}\r\n\r\n",
        "a".repeat(100_000)
    );
    let long_name = format!(
        "GET /b/k HTTP/1.1\r\nHost: h\r\n{}: 1\r\n\r\n",
        "a".repeat(70_000)
    );
    let long_target = format!("GET /b/{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(100_000));
    let endless = "GET /b/k HTTP/1.1\r\nHost: h\r\n".to_owned() + &"X-A: b\r\n".repeat(20_000);
    let many = "GET /b/k HTTP/1.1\r\nHost: h\r\n".to_owned() + &"X-A: b\r\n".repeat(120) + "\r\n";
    for raw in [&long_value, &long_name, &long_target, &endless, &many] {
        let mut connection = server.connect();
        let _ = connection.try_send(raw);
        match connection.response("GET") {
            Ok(response) => {
                response.assert_refused();
                assert!(
                    matches!(response.status(), 431 | 414),
                    "{}",
                    response.status()
                );
            }
            Err(Broken::Reset { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        assert!(connection.closes());
    }
    assert_eq!(origin.requests(), 0);
    let near = Ask::get("/b/k").header("X-A", &"a".repeat(7_000));
    assert_eq!(server.fetch(&near).text(), "fine");
    server.finish();
}

#[test]
fn semantics_23_a_head_that_dribbles_in_is_408_in_time() {
    // (2A.31)
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nhead_timeout = \"400ms\"")
        .start(origin.address);
    let mut dribbling = server.connect();
    dribbling.patience(Duration::from_millis(20));
    let answer = 'dribble: {
        for byte in b"GET /b/k HTTP/1.1\r\nHost: h\r\nX-Slow: "
            .iter()
            .chain(std::iter::repeat_n(&b'a', 500))
        {
            if dribbling.try_send([*byte]).is_err() {
                break;
            }
            if !matches!(dribbling.reader.first_byte(), Err(Broken::TimedOut { .. })) {
                break 'dribble dribbling.response("GET");
            }
        }
        panic!("a dribbled head was never answered");
    };
    answer
        .expect("an answer")
        .assert_s3_error(408, "RequestTimeout");
    assert!(dribbling.closes());
    assert_eq!(server.get("/b/k").text(), "fine");
    drop(dribbling);
    server.finish();
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nidle_timeout = \"300ms\"")
        .start(origin.address);
    let mut used = server.connect();
    assert_eq!(used.exchange(&Ask::get("/b/k")).text(), "fine");
    let mut unused = server.connect();
    for connection in [&mut used, &mut unused] {
        assert!(matches!(
            connection.reader.head(),
            Err(Broken::Closed { received: 0 })
        ));
    }
    drop((used, unused));
    server.finish();
}

#[test]
fn semantics_24_one_connection_too_many_is_told_to_slow_down() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nconnections_max = 4")
        .start(origin.address);
    let mut kept: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut kept {
        assert_eq!(connection.exchange(&Ask::get("/b/k")).text(), "fine");
    }
    let mut refused = server.connect();
    let _ = refused.try_send(Ask::get("/b/k").head_bytes(server.door));
    let response = refused
        .response("GET")
        .expect("an answer, not a bare close");
    response.assert_s3_error(503, "SlowDown");
    let wait: u64 = response
        .header("retry-after")
        .expect("Retry-After")
        .parse()
        .expect("seconds");
    assert!((1..=60).contains(&wait));
    assert!(refused.closes());
    assert_eq!(
        kept[0].exchange(&Ask::get("/b/k")).text(),
        "fine",
        "who was there goes on"
    );
    kept.pop();
    wait_until("a place is free again", PATIENCE, || {
        let mut connection = server.connect();
        connection
            .try_exchange(&Ask::get("/b/k"))
            .is_ok_and(|response| response.status() == 200)
    });
    drop((kept, refused));
    server.finish();
}

#[test]
fn a_reader_that_reads_nothing_is_cut_and_harms_nobody() {
    let store = Store::new();
    store.insert("/b/big", Object::tile(60, 64 * MIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nsend_timeout = \"500ms\"")
        .start(origin.address);
    server.get("/b/big");
    let mut lazy = Connection::open_narrow(server.door, 16 << 10);
    lazy.send_ask(&Ask::get("/b/big"));
    let head = lazy.head().expect("a head");
    server
        .get("/b/big")
        .assert_body(&Tile::new(60), 0, 64 * MIB);
    wait_until("the lazy reader is cut", PATIENCE, || {
        server.metrics().sum("millrace_connections_open", &[]) == 0.0
    });
    assert!(
        lazy.check_body(&head, &Tile::new(60), 0).is_err(),
        "a cut body looked whole"
    );
    server.finish();
}

#[test]
fn a_body_that_stops_is_408_or_cut() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nsend_timeout = \"400ms\"")
        .start(origin.address);
    let mut connection = server.connect();
    connection.send("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    match connection.response("PUT") {
        Ok(response) => response.assert_refused(),
        Err(Broken::Closed { .. } | Broken::Reset { .. }) => {}
        Err(other) => panic!("{other:?}"),
    }
    assert!(connection.closes());
    assert!(store.object("/b/k").is_none());
    drop(connection);
    server.finish();
}

#[test]
fn a_body_cut_short_by_its_client_is_no_object() {
    // (2E.99)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    connection.send("PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    wait_until("the upload is under way", PATIENCE, || {
        origin.open_connections() == 1
    });
    drop(connection);
    wait_until("the origin's side is given up too", PATIENCE, || {
        origin.open_connections() == 0
    });
    assert!(store.object("/b/k").is_none());
    server.finish();
}

#[test]
fn random_bytes_stop_no_shard() {
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let noise = Tile::new(61);
    let valid = b"GET /b/k HTTP/1.1\r\nHost: h\r\nRange: bytes=0-1\r\nX-A: b\r\n\r\n";
    for round in 0..400u64 {
        let raw = if round % 2 == 0 {
            noise.slice(round * 1_000, round * 1_000 + 1 + round * 7)
        } else {
            let mut raw = valid.to_vec();
            for flip in 0..=(round % 3) {
                let dice = noise.slice(round * 64 + flip * 8, round * 64 + flip * 8 + 2);
                let at = dice[0] as usize % raw.len();
                raw[at] = dice[1];
            }
            raw
        };
        let mut connection = server.connect();
        connection.patience(Duration::from_millis(5));
        let _ = connection.try_send(&raw);
        let _ = connection.head();
    }
    assert_eq!(server.get("/b/k").text(), "fine");
    server.finish();
}

#[test]
fn an_unread_body_does_not_become_the_next_request() {
    // (2J.178)
    let store = Store::new();
    store.insert("/b/k", Object::bytes(b"fine"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut connection = server.connect();
    connection.send(format!(
        "GET /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    ));
    let response = connection.response("GET");
    assert!(response.is_ok_and(|response| matches!(response.status(), 200 | 400)));
    let next = connection.try_exchange(&Ask::get("/b/k"));
    assert!(next.is_err() || next.is_ok_and(|response| response.text() == "fine"));
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.target() != "/smuggled")
    );
    drop(connection);
    server.finish();
}

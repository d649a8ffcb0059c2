//! Origins that die, lie or stand still: the client sees an error or the true bytes,
//! never a short success, nothing false is kept, and the next request works.

use crate::harness::s3s::S3s;
use crate::harness::store::{Object, response_head};
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{
    Ask, Broken, Connection, MIB, Millrace, PATIENCE, Response, Store, Stub, Tile, free_address,
    wait_for,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LENGTH: u64 = 20 * MIB;
const SEED: u64 = 70;

const IMPATIENT: &str = "[upstream]\nconnect_timeout = \"1s\"\nfirst_byte_timeout = \"400ms\"\nidle_timeout = \"400ms\"\n";

/// The three ways a read reaches the origin.
fn reads() -> Vec<(Ask, u64, u64)> {
    let signature =
        "AWS4-HMAC-SHA256 Credential=A/1/r/s3/aws4_request, SignedHeaders=host;range, Signature=0";
    vec![
        (Ask::get("/bucket/k"), 0, LENGTH),
        (Ask::get("/bucket/k").range(MIB, 18 * MIB), MIB, 18 * MIB),
        (
            Ask::get("/bucket/k")
                .range(MIB, 18 * MIB)
                .header("Authorization", signature),
            MIB,
            18 * MIB,
        ),
        (Ask::get("/bucket/k").range(100, 200), 100, 200),
    ]
}

/// What a client may see of a failing origin: an error that it can tell, or all the right bytes.
#[track_caller]
fn assert_told_or_whole(
    what: &str,
    outcome: &Result<Response, Broken>,
    tile: &Tile,
    span: (u64, u64),
) {
    match outcome {
        Ok(response) if response.status() >= 400 => {
            assert!(
                response.text().contains("<Code>"),
                "{what}: an error without XML: {:?}",
                response.head
            );
        }
        Ok(response) if response.status() == 200 && span.1 - span.0 != LENGTH => {
            response.assert_body(tile, 0, LENGTH);
        }
        Ok(response) => {
            assert!(
                matches!(response.status(), 200 | 206),
                "{what}: {:?}",
                response.head
            );
            response.assert_body(tile, span.0, span.1);
        }
        Err(Broken::Closed { .. } | Broken::Reset { .. }) => {}
        Err(other) => panic!("{what}: {other:?}"),
    }
}

/// Lets an origin misbehave for good, then be healed: asserts what clients see before and after.
fn survives(
    what: &str,
    fault: impl Fn(&Object, &mut Seen, &mut Wire) -> After + Send + Sync + 'static,
) {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(SEED, LENGTH));
    let tile = Tile::new(SEED);
    let sick = Arc::new(AtomicBool::new(true));
    let origin = {
        let (store, sick) = (store.clone(), sick.clone());
        Stub::start(move |seen, wire| {
            if sick.load(Ordering::Acquire) {
                let object = store.object("/bucket/k").expect("the object");
                return fault(&object, seen, wire);
            }
            store.answer(seen, wire)
        })
    };
    let server = Millrace::setup().settings(IMPATIENT).start(origin.address);
    for (ask, first, end) in reads() {
        sick.store(true, Ordering::Release);
        let outcome = server.connect().try_exchange(&ask);
        assert_told_or_whole(what, &outcome, &tile, (first, end));
        sick.store(false, Ordering::Release);
        let healed = server.fetch(&ask);
        assert!(
            matches!(healed.status(), 200 | 206),
            "{what}: after healing {:?}\n{}",
            healed.head,
            healed.text()
        );
        healed.assert_body(&tile, first, end);
        server.fetch(&Ask::new("DELETE", "/bucket/k"));
        store.insert("/bucket/k", Object::tile(SEED, LENGTH));
    }
    server.finish();
}

/// First and one-past-last byte that a request asks for.
fn wanted(seen: &Seen) -> (u64, u64) {
    seen.range(LENGTH).unwrap_or((0, LENGTH))
}

fn is_partial(seen: &Seen) -> bool {
    seen.header("range").is_some()
}

/// Sends a right head and the first `share` of the body.
fn begin(object: &Object, seen: &Seen, wire: &mut Wire, share: (u64, u64)) {
    let (first, end) = wanted(seen);
    let stop = first + (end - first) * share.0 / share.1;
    let _ = wire.send(response_head(object, first, end, is_partial(seen)));
    let _ = wire.send(Tile::new(SEED).slice(first, stop));
}

/// The right head, with `from` replaced by `to`, and the whole body.
fn altered(
    object: &Object,
    seen: &Seen,
    wire: &mut Wire,
    alter: impl Fn(String) -> String,
) -> After {
    let (first, end) = wanted(seen);
    let head: String = response_head(object, first, end, is_partial(seen))
        .into_iter()
        .map(char::from)
        .collect();
    let bytes: Vec<u8> = alter(head).chars().map(|c| c as u8).collect();
    let _ = wire.send(bytes);
    let _ = wire.send(Tile::new(SEED).slice(first, end));
    After::Close
}

#[test]
fn semantics_25_an_origin_killed_before_its_head_is_an_error_and_the_next_request_works() {
    survives("reset before the head", |_, _, _| After::Reset);
    survives("closed before the head", |_, _, _| After::Close);
    survives("closed inside the head", |_, _, wire| {
        let _ = wire.send("HTTP/1.1 200 OK\r\nContent-Le");
        After::Close
    });
}

#[test]
fn semantics_26_an_origin_killed_after_its_head_is_never_a_short_success() {
    survives("reset after the head", |object, seen, wire| {
        begin(object, seen, wire, (0, 1));
        After::Reset
    });
    survives("closed after the head", |object, seen, wire| {
        begin(object, seen, wire, (0, 1));
        After::Close
    });
}

#[test]
fn semantics_27_an_origin_killed_in_the_body_is_never_a_short_success() {
    // (2C.57, 2C.59)
    survives("reset in the body", |object, seen, wire| {
        begin(object, seen, wire, (1, 2));
        After::Reset
    });
    survives("closed in the body", |object, seen, wire| {
        begin(object, seen, wire, (1, 2));
        After::Close
    });
    survives("closed one byte before the end", |object, seen, wire| {
        let length = wanted(seen).1 - wanted(seen).0;
        begin(object, seen, wire, (length - 1, length));
        After::Close
    });
}

#[test]
fn an_origin_that_stands_still_is_given_up_in_time() {
    // (2J.169)
    survives("hangs before the head", |_, _, wire| wire.hang());
    survives("hangs after the head", |object, seen, wire| {
        begin(object, seen, wire, (0, 1));
        wire.hang()
    });
    survives("hangs in the body", |object, seen, wire| {
        begin(object, seen, wire, (1, 2));
        wire.hang()
    });
}

#[test]
fn semantics_28_an_answer_of_wrong_length_or_range_is_not_believed() {
    // (2C.57, 2C.60, 2C.61)
    survives("announces too much", |object, seen, wire| {
        let (first, end) = wanted(seen);
        let (old, new) = (
            format!("Content-Length: {}", end - first),
            format!("Content-Length: {}", end - first + 5),
        );
        altered(object, seen, wire, move |head| head.replace(&old, &new))
    });
    survives("another start", |object, seen, wire| {
        let (first, end) = wanted(seen);
        let (old, new) = (
            format!("bytes {first}-{}", end - 1),
            format!("bytes {}-{end}", first + 1),
        );
        altered(object, seen, wire, move |head| head.replace(&old, &new))
    });
    survives("another end", |object, seen, wire| {
        let (first, end) = wanted(seen);
        let (old, new) = (
            format!("bytes {first}-{}/", end - 1),
            format!("bytes {first}-{}/", end - 2),
        );
        altered(object, seen, wire, move |head| head.replace(&old, &new))
    });
    survives("another unit", |object, seen, wire| {
        altered(object, seen, wire, |head| {
            head.replace("Content-Range: bytes", "Content-Range: lines")
        })
    });
    survives("206 without Content-Range", |object, seen, wire| {
        altered(object, seen, wire, |head| {
            head.replace("Content-Range", "X-Not-Range")
        })
    });
}

#[test]
fn a_206_to_a_whole_read_is_not_taken_for_the_object() {
    survives("206 unasked", |object, seen, wire| {
        if is_partial(seen) {
            begin(object, seen, wire, (1, 1));
            return After::KeepAlive;
        }
        let _ = wire.send(response_head(object, 0, MIB, true));
        let _ = wire.send(Tile::new(SEED).slice(0, MIB));
        After::KeepAlive
    });
}

#[test]
fn a_200_to_a_range_is_the_whole_object_and_nothing_else() {
    // (2C.60, 2C.61, 2C.66)
    survives("200 to a range", |object, _, wire| {
        let _ = wire.send(response_head(object, 0, LENGTH, false));
        let _ = wire.send(Tile::new(SEED).slice(0, LENGTH));
        After::KeepAlive
    });
}

#[test]
fn garbage_instead_of_http_is_502() {
    let garbage: [&'static [u8]; 6] = [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 two hundred OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A : b\r\nContent-Length: 0\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
    ];
    for bytes in garbage {
        let origin = Stub::start(move |seen, wire| {
            let _ = wire.read_body(&seen.head);
            let _ = wire.send(bytes);
            After::Close
        });
        let server = Millrace::setup().settings(IMPATIENT).start(origin.address);
        for ask in [
            Ask::get("/bucket/k"),
            Ask::get("/bucket?list-type=2"),
            Ask::put("/bucket/k", "x"),
        ] {
            match server.connect().try_exchange(&ask) {
                Ok(response) => {
                    assert_eq!(
                        response.status(),
                        502,
                        "{:?} as {:?}",
                        String::from_utf8_lossy(bytes),
                        response.head
                    );
                    assert!(response.text().contains("<Code>"));
                }
                Err(broken) => panic!("{broken:?} for {:?}", String::from_utf8_lossy(bytes)),
            }
        }
        server.finish();
    }
}

#[test]
fn broken_chunks_of_an_origin_never_look_whole() {
    for end in [
        "zz\r\nabc",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhelloX0\r\n\r\n",
    ] {
        let origin = Stub::start(move |_, wire| {
            let _ = wire.send(
                "HTTP/1.1 200 OK\r\nETag: \"e\"\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            );
            let _ = wire.send(end);
            After::Close
        });
        let server = Millrace::setup().settings(IMPATIENT).start(origin.address);
        for target in ["/bucket/k", "/bucket?list-type=2"] {
            if let Ok(response) = server.connect().try_exchange(&Ask::get(target)) {
                assert!(
                    response.status() >= 500,
                    "{end:?} on {target}: {:?} {}",
                    response.head,
                    response.text()
                );
            }
        }
        server.finish();
    }
}

#[test]
fn a_body_whose_end_is_only_a_close_is_not_kept() {
    // (2C.58)
    let origin = Stub::start(|seen, wire| {
        let _ = wire.send(format!(
            "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n\r\nanswer {}",
            seen.number
        ));
        After::Close
    });
    let server = Millrace::start(origin.address);
    let mut seen = 0;
    for _ in 0..3 {
        let response = server.get("/bucket/k");
        assert_eq!(response.status(), 200);
        assert_eq!(response.text(), format!("answer {}", origin.requests() - 1));
        assert!(
            origin.requests() > seen,
            "a body of unknown length was kept"
        );
        seen = origin.requests();
    }
    server.finish();
}

#[test]
fn semantics_29_an_object_that_changes_under_a_read_is_never_mixed() {
    // (2A.11, 2B.48, 2B.49, 2B.50)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(71, 64 * MIB));
    let origin = store.serve();
    let server = Millrace::setup().start(origin.address);
    let (old, new) = (Tile::new(71), Tile::new(72));
    server
        .fetch(&Ask::get("/bucket/k").range(0, 8 * MIB))
        .assert_body(&old, 0, 8 * MIB);
    // The origin is overwritten past the cache: the rest of the old version is gone.
    store.insert("/bucket/k", Object::tile(72, 64 * MIB));
    let mut connection = server.connect();
    connection.send_ask(&Ask::get("/bucket/k"));
    if let Ok(head) = connection.head() {
        assert_ne!(head.status(), 412, "the proxy's own If-Match leaked");
        if head.status() == 200 {
            let mut body = Vec::new();
            let whole = connection
                .reader
                .body(crate::harness::client::framing("GET", &head), |piece| {
                    body.extend_from_slice(piece)
                });
            let all_old = old.holds(0, &body);
            let all_new = new.holds(0, &body);
            assert!(all_old || all_new, "two versions in one body");
            assert!(whole.is_err() || all_new || body.len() as u64 == 64 * MIB);
        }
    }
    let after = server.get("/bucket/k");
    assert_eq!(after.status(), 200);
    after.assert_body(&new, 0, 64 * MIB);
    drop(connection);
    server.finish();
}

#[test]
fn an_origin_nobody_answers_at_is_502_or_503_in_xml() {
    let nobody = free_address();
    let server = Millrace::setup().settings(IMPATIENT).start(nobody);
    for ask in [
        Ask::get("/bucket/k"),
        Ask::head("/bucket/k"),
        Ask::get("/bucket?list-type=2"),
        Ask::put("/bucket/k", "x"),
    ] {
        let response = server.fetch(&ask);
        assert!(
            matches!(response.status(), 502..=504),
            "{ask:?} is answered {:?}",
            response.head
        );
        if ask.method != "HEAD" {
            assert!(response.text().contains("<Code>"), "{}", response.text());
        }
    }
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"there now"));
    let origin = { Stub::start_at(nobody, move |seen, wire| store.answer(seen, wire)) };
    crate::harness::wait_until("the origin is found again", Duration::from_secs(15), || {
        server.get("/bucket/k").text() == "there now"
    });
    drop(origin);
    server.finish();
}

#[test]
fn semantics_30_a_connection_that_the_origin_closed_costs_a_retry_not_an_error() {
    // (2J.172)
    let store = Store::new();
    for key in 0..40 {
        store.insert(&format!("/bucket/k{key}"), Object::bytes(b"x"));
    }
    let origin = {
        let store = store.clone();
        // Announces keep-alive by silence and closes all the same.
        Stub::start(move |seen, wire| match store.answer(seen, wire) {
            After::KeepAlive => After::Close,
            other => other,
        })
    };
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    for key in 0..20 {
        assert_eq!(
            connection
                .exchange(&Ask::get(&format!("/bucket/k{key}")))
                .status(),
            200
        );
        assert_eq!(
            connection
                .exchange(&Ask::get("/bucket?list-type=2"))
                .status(),
            404
        );
    }
    drop(connection);
    server.finish();
}

#[test]
fn errors_of_the_origin_pass_as_they_are_and_are_not_kept() {
    // (2C.60, 2D.83)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"well"));
    let sick = Arc::new(AtomicBool::new(true));
    let origin = {
        let (store, sick) = (store.clone(), sick.clone());
        Stub::start(move |seen, wire| {
            if sick.load(Ordering::Acquire) {
                wire.refuse("503 Slow Down", "SlowDown")
            } else {
                store.answer(seen, wire)
            }
        })
    };
    let server = Millrace::start(origin.address);
    let refused = server.get("/bucket/k");
    assert_eq!(refused.status(), 503);
    assert!(refused.text().contains("<Code>SlowDown</Code>"));
    sick.store(false, Ordering::Release);
    assert_eq!(server.get("/bucket/k").text(), "well");
    sick.store(true, Ordering::Release);
    assert_eq!(
        server.get("/bucket/k").text(),
        "well",
        "what is cached is served"
    );
    server.finish();
}

#[test]
fn semantics_31_a_killed_origin_process_cuts_its_readers_and_a_new_one_serves_the_next() {
    let mut origin = S3s::start();
    origin.create_bucket("bucket");
    let tile = Tile::new(73);
    origin.put_tile("/bucket/k", &tile, 128 * MIB);
    let server = Millrace::setup()
        .ram("512MiB")
        .settings(IMPATIENT)
        .start(origin.address);
    let signer = origin.signer(server.door);
    let mut reader = Connection::open_narrow(server.door, 64 << 10);
    reader.send_ask(&signer.sign(Ask::get("/bucket/k")));
    let head = reader.head().expect("a head");
    assert_eq!(head.status(), 200);
    reader.reader.first_byte().expect("a first byte");
    origin.kill();
    let outcome = reader.check_body(&head, &tile, 0);
    assert!(
        outcome.is_err(),
        "a body whose origin was killed looked whole"
    );
    origin.restart();
    // An origin that failed a few times in a row is not asked for a moment.
    let again = wait_for("the next one's answer", PATIENCE, || {
        let again = server.fetch(&signer.sign(Ask::get("/bucket/k")));
        let refused = again.status() == 503 && again.header("retry-after").is_some();
        (!refused).then_some(again)
    });
    assert_eq!(again.status(), 200, "{}", again.text());
    again.assert_body(&tile, 0, 128 * MIB);
    drop(reader);
    server.finish();
}

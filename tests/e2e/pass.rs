//! What is not a plain read goes through untouched, streamed both ways, and whatever
//! it may have changed is out of the cache before its answer reaches the client.

use crate::harness::store::Object;
use crate::harness::stub::After;
use crate::harness::{
    Ask, Broken, KIB, MIB, Millrace, PATIENCE, Store, Stub, Tile, sha256_hex, wait_until,
};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn semantics_14_a_put_streams_through_byte_for_byte() {
    // (2A.21, 2D.75, 2E.101)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().ram("64MiB").start(origin.address);
    let body = Tile::new(50).slice(0, 100 * MIB);
    let ask = Ask::put("/bucket/k?x-id=PutObject", body.clone())
        .header("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        .header("x-amz-meta-Note", "A  b")
        .header(
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=A/1/r/s3/aws4_request, SignedHeaders=host, Signature=0",
        );
    let response = server.fetch(&ask);
    assert_eq!((response.status(), response.cache_word()), (200, "PASS"));
    let seen = origin.seen().remove(0);
    assert_eq!(seen.target(), "/bucket/k?x-id=PutObject");
    assert_eq!(sha256_hex(&seen.body), sha256_hex(&body));
    assert_eq!(seen.header("x-amz-meta-note"), Some("A  b"));
    assert_eq!(seen.head.content_length(), Some(100 * MIB));
    server.finish();
}

#[test]
fn the_origin_has_the_begin_of_a_body_before_the_client_sends_its_end() {
    let (begun, has_begun) = channel();
    let begun = Mutex::new(begun);
    let origin = Stub::start(move |seen, wire| {
        let length = seen.head.content_length().expect("a length");
        let half = length / 2;
        let framing = crate::harness::client::Framing::Length;
        let first = wire.reader().body(framing(half), |_| {});
        begun
            .lock()
            .expect("the sender")
            .send(first.is_ok())
            .expect("the test listens");
        if wire.reader().body(framing(length - half), |_| {}).is_err() {
            return After::Close;
        }
        wire.respond("200 OK", &[("ETag", "\"x\"")], b"")
    });
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    connection.send("PUT /bucket/k HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
    connection.send(vec![b'a'; 100_000]);
    assert!(
        has_begun
            .recv_timeout(PATIENCE)
            .expect("half of the body reached the origin")
    );
    connection.send(vec![b'b'; 100_000]);
    assert_eq!(connection.response("PUT").expect("an answer").status(), 200);
    drop(connection);
    server.finish();
}

#[test]
fn semantics_15_a_chunked_body_keeps_its_content_and_has_one_framing() {
    // (2A.19, 2E.92, 2E.94; wire rule 14)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    connection.send("PUT /bucket/k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-amz-checksum-crc32\r\n\r\n");
    connection.send("5;ext=1\r\nhello\r\n");
    connection.send("6\r\n world\r\n0\r\nx-amz-checksum-crc32: AAAAAA==\r\n\r\n");
    assert_eq!(connection.response("PUT").expect("an answer").status(), 200);
    let seen = origin.seen().remove(0);
    assert_eq!(seen.body, b"hello world");
    assert_ne!(
        seen.head.is_chunked(),
        seen.head.content_length().is_some(),
        "{:?}",
        seen.head
    );
    let next = connection.exchange(&Ask::get("/bucket/k"));
    assert_eq!(
        next.text(),
        "hello world",
        "the connection is in step after trailers"
    );
    drop(connection);
    server.finish();
}

#[test]
fn aws_chunked_bodies_are_not_touched() {
    // (2A.28, 2E.92; wire rules 11, 12)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let framed = "5;chunk-signature=abc\r\nhello\r\n0;chunk-signature=def\r\n\r\n";
    let ask = Ask::put("/bucket/k", framed)
        .header("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
        .header("Content-Encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", "5");
    assert_eq!(server.fetch(&ask).status(), 200);
    assert_eq!(origin.seen()[0].body, framed.as_bytes());
    server.finish();
}

#[test]
fn semantics_16_expect_continue_is_answered_before_the_body_is_sent() {
    // (2A.20; wire rule 15)
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if seen.header("expect").is_some()
                && wire.send("HTTP/1.1 100 Continue\r\n\r\n").is_err()
            {
                return After::Close;
            }
            store.answer(seen, wire)
        })
    };
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    connection.send(
        "PUT /bucket/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let interim = connection.reader.head().expect("an interim answer");
    assert_eq!(interim.status(), 100);
    connection.send("hello");
    assert_eq!(connection.response("PUT").expect("an answer").status(), 200);
    assert_eq!(connection.exchange(&Ask::get("/bucket/k")).text(), "hello");
    drop(connection);
    server.finish();
}

#[test]
fn an_early_refusal_reaches_the_client_instead_of_a_broken_upload() {
    // (2A.20; wire rules 15, 16)
    let origin = Stub::start(|_, wire| {
        wire.refuse("403 Forbidden", "AccessDenied");
        After::Close
    });
    let server = Millrace::start(origin.address);
    let mut waiting = server.connect();
    waiting.send(
        "PUT /bucket/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    let answer = waiting.response("PUT").expect("the refusal instead of 100");
    assert_eq!(answer.status(), 403);
    assert!(answer.text().contains("AccessDenied"));
    let mut sending = server.connect();
    sending.send("PUT /bucket/k HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n");
    while sending.try_send(vec![b'x'; 64 * KIB as usize]).is_ok() {
        sending.patience(Duration::from_millis(1));
        if !matches!(sending.reader.first_byte(), Err(Broken::TimedOut { .. })) {
            break;
        }
    }
    sending.patience(PATIENCE);
    let answer = sending
        .response("PUT")
        .expect("the refusal while the body was going out");
    assert_eq!(answer.status(), 403);
    drop((waiting, sending));
    server.finish();
}

#[test]
fn semantics_17_what_is_not_a_plain_read_passes_every_time() {
    // (2A.6, 2A.7, 2A.8, 2A.24, 2A.25, 2B.37, 2B.38, 2B.39, 2L.192)
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| match seen.target() {
            "/bucket/k"
                if seen.method() == "GET"
                    && seen
                        .header("range")
                        .is_none_or(|range| !range.contains(',')) =>
            {
                store.answer(seen, wire)
            }
            _ => {
                let said = format!("{} {} {}", seen.method(), seen.target(), seen.number);
                wire.respond(
                    "200 OK",
                    &[("ETag", "\"pass\"")],
                    if seen.method() == "HEAD" {
                        b""
                    } else {
                        said.as_bytes()
                    },
                )
            }
        })
    };
    store.insert("/bucket/k", Object::tile(51, 1_000));
    let server = Millrace::start(origin.address);
    server.get("/bucket/k");
    let passed = [
        Ask::get("/"),
        Ask::get("/bucket"),
        Ask::get("/bucket/"),
        Ask::get("/bucket?list-type=2&prefix=k"),
        Ask::get("/bucket?location"),
        Ask::head("/bucket"),
        Ask::get("/bucket/k?uploadId=1"),
        Ask::get("/bucket/k?tagging"),
        Ask::get("/bucket/k?acl"),
        Ask::get("/bucket/k?torrent"),
        Ask::get("/bucket/k?attributes"),
        Ask::get("/bucket/k?versionId=%61bc"),
        Ask::get("/bucket/k?versionId=abc&versionId=abc"),
        Ask::get("/bucket/k?response-content-type=text%2Fhtml"),
        Ask::get("/bucket/k?unheard-of=1"),
        Ask::get("/bucket/k?partNumber=0"),
        Ask::get("/bucket/k?partNumber=1").header("Range", "bytes=0-1"),
        Ask::get("/bucket/k").header("Range", "bytes=0-1,5-6"),
        Ask::get("/bucket/k").header("x-amz-server-side-encryption-customer-key", "abc"),
        Ask::new("OPTIONS", "/bucket/k"),
        Ask::new("PROPFIND", "/bucket/k"),
    ];
    for ask in &passed {
        for _ in 0..2 {
            let before = origin.requests();
            let response = server.fetch(ask);
            assert_eq!(response.status(), 200, "{ask:?}");
            assert_eq!(response.cache_word(), "PASS", "{ask:?}");
            assert_eq!(origin.requests(), before + 1, "{ask:?}");
        }
    }
    server.finish();
}

#[test]
fn a_subresource_write_never_becomes_the_object() {
    // (2A.4, 2A.3, 2L.193)
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if seen.method() == "PUT" {
                let _ = wire.read_body(&seen.head);
                return wire.respond("200 OK", &[], b"<CopyObjectResult/>");
            }
            store.answer(seen, wire)
        })
    };
    store.insert("/bucket/k", Object::bytes(b"the object"));
    let server = Millrace::start(origin.address);
    for target in [
        "/bucket/k?tagging",
        "/bucket/k?acl",
        "/bucket/k?retention",
        "/bucket/k?legal-hold",
    ] {
        assert_eq!(server.get("/bucket/k").text(), "the object");
        assert_eq!(server.fetch(&Ask::put(target, "<Xml/>")).status(), 200);
        assert_eq!(
            server.get("/bucket/k").text(),
            "the object",
            "after PUT {target}"
        );
    }
    let copied =
        server.fetch(&Ask::put("/bucket/k", "").header("x-amz-copy-source", "/bucket/other"));
    assert_eq!(copied.text(), "<CopyObjectResult/>");
    assert_eq!(server.get("/bucket/k").text(), "the object");
    server.finish();
}

#[test]
fn semantics_18_a_write_is_seen_by_the_next_read_on_any_connection() {
    // (2A.2, 2A.9, 2E.85, 2E.95, 2G.199)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let mut readers: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let mut writer = server.connect();
    for round in 0..50 {
        let text = format!("round {round}");
        assert_eq!(
            writer
                .exchange(&Ask::put("/bucket/k", text.as_str()))
                .status(),
            200
        );
        for reader in &mut readers {
            assert_eq!(reader.exchange(&Ask::get("/bucket/k")).text(), text);
        }
        assert_eq!(writer.exchange(&Ask::get("/bucket/k")).text(), text);
    }
    assert_eq!(
        writer.exchange(&Ask::new("DELETE", "/bucket/k")).status(),
        204
    );
    for reader in &mut readers {
        assert_eq!(reader.exchange(&Ask::get("/bucket/k")).status(), 404);
    }
    drop((readers, writer));
    server.finish();
}

#[test]
fn every_kind_of_write_drops_what_is_cached_of_its_object() {
    // (2A.2, 2A.3, 2E.85, 2E.90)
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| match seen.method() {
            "GET" | "HEAD" => store.answer(seen, wire),
            _ => {
                let _ = wire.read_body(&seen.head);
                store.insert(
                    "/bucket/k",
                    Object::bytes(format!("after {}", seen.number).as_bytes()),
                );
                wire.respond("200 OK", &[("Content-Type", "application/xml")], b"<Done/>")
            }
        })
    };
    store.insert("/bucket/k", Object::bytes(b"first"));
    let server = Millrace::start(origin.address);
    let writes = [
        Ask::put("/bucket/k", "x"),
        Ask::put("/bucket/k", "").header("x-amz-copy-source", "/bucket/o"),
        Ask::new("DELETE", "/bucket/k"),
        Ask::new("DELETE", "/bucket/k?versionId=1"),
        Ask::new("POST", "/bucket/k?uploadId=u").body("<CompleteMultipartUpload/>"),
        Ask::new("POST", "/bucket/k?restore").body("<R/>"),
        Ask::put("/bucket/%6b", "x"),
        Ask::new("PATCH", "/bucket/k").body("x"),
    ];
    for write in &writes {
        let before = server.get("/bucket/k").text();
        assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
        assert_eq!(server.fetch(write).status(), 200, "{write:?}");
        assert_ne!(
            server.get("/bucket/k").text(),
            before,
            "old bytes after {write:?}"
        );
    }
    server.finish();
}

#[test]
fn a_multi_delete_passes_whole_and_drops_the_keys_it_lists() {
    // (2A.5, 2E.104)
    let store = Store::new();
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if seen.method() == "POST" {
                store.remove("/bucket/k%261");
                store.remove("/bucket/dir/k%2B2");
            }
            store.answer(seen, wire)
        })
    };
    let keys = ["/bucket/k%261", "/bucket/dir/k%2B2", "/bucket/kept"];
    for key in keys {
        store.insert(key, Object::bytes(key.as_bytes()));
    }
    let server = Millrace::start(origin.address);
    let filler: String = (0..1_000)
        .map(|n| format!("<Object><Key>none-{n}-{}</Key></Object>", "x".repeat(1_000)))
        .collect();
    let xml = format!(
        "<?xml version=\"1.0\"?><Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{filler}<Object><Key>k&amp;1</Key></Object><Object><Key>dir/k&#x2b;2</Key></Object></Delete>"
    );
    for key in keys {
        assert_eq!(server.get(key).text(), key);
    }
    let answer = server.fetch(&Ask::new("POST", "/bucket?delete").body(xml.clone()));
    assert_eq!(
        (answer.status(), answer.text().contains("<Result/>")),
        (200, true)
    );
    let posted = origin
        .seen()
        .into_iter()
        .find(|seen| seen.method() == "POST")
        .expect("the POST");
    assert!(
        posted.body == xml.as_bytes(),
        "{} bytes arrived of {}",
        posted.body.len(),
        xml.len()
    );
    for (key, status) in keys.into_iter().zip([404, 404, 200]) {
        assert_eq!(server.get(key).status(), status, "{key}");
    }
    server.finish();
}

#[test]
fn a_write_of_unknown_outcome_counts_as_done() {
    // (2L.202)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"old"));
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if seen.method() != "PUT" {
                return store.answer(seen, wire);
            }
            let body = wire.read_body(&seen.head).unwrap_or_default();
            store.insert("/bucket/k", Object::bytes(&body));
            After::Reset
        })
    };
    let server = Millrace::start(origin.address);
    assert_eq!(server.get("/bucket/k").text(), "old");
    let mut connection = server.connect();
    let _ = connection.try_exchange(&Ask::put("/bucket/k", "new"));
    assert_eq!(server.get("/bucket/k").text(), "new");
    drop(connection);
    server.finish();
}

#[test]
fn uploads_reuse_origin_connections() {
    // (2A.21)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    for round in 0..20 {
        let ask = Ask::put(&format!("/bucket/k{round}"), vec![b'x'; 10_000]);
        assert_eq!(connection.exchange(&ask).status(), 200);
    }
    assert!(
        origin.connections() <= 2,
        "{} connections for 20 uploads",
        origin.connections()
    );
    drop(connection);
    server.finish();
}

#[test]
fn the_head_of_a_slow_answer_comes_at_once() {
    // Complete and Copy send white space for minutes. (wire rule 18)
    let (release, released) = sync_channel::<()>(1);
    let released = Arc::new(Mutex::new(released));
    let origin = Stub::start(move |seen, wire| {
        let _ = wire.read_body(&seen.head);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n \r\n";
        if wire.send(head).is_err()
            || released
                .lock()
                .expect("the gate")
                .recv_timeout(PATIENCE)
                .is_err()
        {
            return After::Close;
        }
        wire.send("8\r\n<Error/>\r\n0\r\n\r\n")
            .map_or(After::Close, |()| After::KeepAlive)
    });
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    connection.send_ask(&Ask::new("POST", "/bucket/k?uploadId=1").body("<C/>"));
    let head = connection.head().expect("the head comes at once");
    release.send(()).expect("the origin waits");
    assert_eq!(
        connection.body("POST", &head).expect("a whole body"),
        b" <Error/>"
    );
    drop(connection);
    server.finish();
}

#[test]
fn semantics_19_hop_by_hop_headers_end_here() {
    // (2A.18; wire rule 7)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"x"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for (method, target) in [
        ("GET", "/bucket/k"),
        ("GET", "/bucket?list-type=2"),
        ("DELETE", "/bucket/none"),
    ] {
        let ask = Ask::new(method, target)
            .header("Connection", "keep-alive, X-Private")
            .header("X-Private", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Connection", "keep-alive")
            .header("Proxy-Authorization", "Basic eA==")
            .header("TE", "trailers")
            .header("Upgrade", "h2c");
        server.fetch(&ask);
        let seen = origin.seen().pop().expect("a request");
        for name in [
            "x-private",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "te",
            "upgrade",
        ] {
            assert!(
                seen.head.all(name).is_empty(),
                "{name} went to the origin of {method} {target}"
            );
        }
    }
    server.finish();
}

#[test]
fn answers_of_the_origin_are_relayed_and_not_kept() {
    // (2D.79, 2D.83, 2J.174, 2J.175)
    let store = Store::new();
    store.insert("/bucket/hinted", Object::bytes(b"at last"));
    let origin = Stub::start(move |seen, wire| match seen.target() {
        "/bucket/403" => wire.refuse("403 Forbidden", "AccessDenied"),
        "/bucket/404" => wire.refuse("404 Not Found", "NoSuchKey"),
        "/bucket/307" => wire.respond(
            "307 Temporary Redirect",
            &[("Location", "http://elsewhere/")],
            b"<R/>",
        ),
        "/bucket/301" => wire.respond(
            "301 Moved Permanently",
            &[("x-amz-bucket-region", "eu-west-1")],
            b"<R/>",
        ),
        "/bucket/500" => wire.refuse("500 Internal Server Error", "InternalError"),
        _ => {
            let _ = wire.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
            store.answer(seen, wire)
        }
    });
    let server = Millrace::start(origin.address);
    for (status, text) in [
        (403, "AccessDenied"),
        (404, "NoSuchKey"),
        (307, "<R/>"),
        (301, "<R/>"),
        (500, "InternalError"),
    ] {
        for _ in 0..2 {
            let before = origin.requests();
            let response = server.get(&format!("/bucket/{status}"));
            assert_eq!(response.status(), status);
            assert!(
                response.text().contains(text),
                "{status}: {}",
                response.text()
            );
            assert!(origin.requests() > before, "a {status} was kept");
            if status == 307 {
                assert_eq!(response.header("location"), Some("http://elsewhere/"));
            }
        }
    }
    for word in ["MISS", "HIT"] {
        let hinted = server.get("/bucket/hinted");
        assert_eq!(hinted.text(), "at last");
        assert_eq!(
            hinted.cache_word(),
            word,
            "{:?}",
            hinted.header("cache-status")
        );
    }
    server.finish();
}

#[test]
fn a_chunked_listing_reaches_every_kind_of_client() {
    let origin = Stub::start(|_, wire| {
        let text = "HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n<List/>\r\n0\r\n\r\n";
        wire.send(text).map_or(After::Close, |()| After::KeepAlive)
    });
    let server = Millrace::start(origin.address);
    let mut modern = server.connect();
    for _ in 0..2 {
        assert_eq!(
            modern.exchange(&Ask::get("/bucket?list-type=2")).text(),
            "<List/>"
        );
    }
    let mut old = server.connect();
    old.send("GET /bucket?list-type=2 HTTP/1.0\r\nHost: h\r\n\r\n");
    let response = old.response("GET").expect("an answer");
    assert!(
        !response.head.is_chunked(),
        "HTTP/1.0 knows no chunks: {:?}",
        response.head
    );
    assert_eq!(response.text(), "<List/>");
    drop((modern, old));
    server.finish();
}

#[test]
fn a_client_that_pauses_in_its_upload_is_not_blamed_on_the_origin() {
    // (2A.23)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[upstream]\nfirst_byte_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n")
        .start(origin.address);
    let mut connection = server.connect();
    connection.send("PUT /bucket/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhello");
    connection.patience(Duration::from_millis(900));
    assert!(
        matches!(connection.head(), Err(Broken::TimedOut { .. })),
        "answered while the client paused"
    );
    connection.patience(PATIENCE);
    connection.send("world");
    assert_eq!(connection.response("PUT").expect("an answer").status(), 200);
    wait_until("the object is there", PATIENCE, || {
        store.object("/bucket/k").is_some()
    });
    drop(connection);
    server.finish();
}

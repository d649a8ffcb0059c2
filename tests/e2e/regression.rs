//! Failures that other caching S3 proxies had, each as the test that would have caught
//! it, where no topic file holds it already. A bug of our own gets its test here first.

use crate::harness::s3s::S3s;
use crate::harness::store::Object;
use crate::harness::stub::After;
use crate::harness::{Ask, KIB, MIB, Millrace, Store, Stub, Tile};
use std::time::{Duration, SystemTime};

#[test]
fn semantics_49_two_hosts_never_share_an_object() {
    // (2A.1, 2B.40, 2B.45, 2B.46)
    let origin = Stub::start(|seen, wire| {
        let text = format!("for {}", seen.header("host").unwrap_or_default());
        wire.respond(
            "200 OK",
            &[("ETag", &format!("\"{}\"", text.len()))],
            text.as_bytes(),
        )
    });
    let server = Millrace::start(origin.address);
    let hosts = [
        "a.example",
        "b.example",
        "a.example:9000",
        "a.example:9001",
        "[::1]:9000",
        "bucket.a.example",
    ];
    for _ in 0..2 {
        for host in hosts {
            let response = server.fetch(&Ask::get("/bucket/k").header("Host", host));
            assert_eq!(response.text(), format!("for {host}"));
        }
    }
    server.finish();
}

#[test]
fn semantics_50_one_key_has_one_copy_however_it_is_spelled() {
    // (2A.13)
    let store = Store::new();
    for path in [
        "/bucket/a",
        "/bucket/%61",
        "/bucket/x%2Fy",
        "/bucket/x/y",
        "/bucket/p%2Bq",
        "/bucket/p%2bq",
    ] {
        store.insert(path, Object::bytes(b"same"));
    }
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for (one, other) in [
        ("/bucket/a", "/bucket/%61"),
        ("/bucket/x%2Fy", "/bucket/x/y"),
        ("/bucket/p%2Bq", "/bucket/p%2bq"),
    ] {
        assert_eq!(server.get(one).cache_word(), "MISS");
        assert_eq!(server.get(other).cache_word(), "HIT", "{one} and {other}");
        assert_eq!(server.fetch(&Ask::put(one, "new")).status(), 200);
        assert_ne!(
            server.get(other).cache_word(),
            "HIT",
            "a write of {one} left {other}"
        );
    }
    server.finish();
}

#[test]
fn a_raw_plus_is_read_by_the_origin_and_a_write_with_one_leaves_no_old_copy() {
    // A space to S3, a plus to other stores: here one of the first kind.
    let store = Store::new();
    let spellings = ["/bucket/p%20q", "/bucket/p+q"];
    let put = |text: &str| {
        for path in spellings {
            store.insert(path, Object::bytes(text.as_bytes()));
        }
    };
    put("old");
    store.insert("/bucket/p%2Bq", Object::bytes(b"a plus"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for _ in 0..2 {
        assert_eq!(server.get("/bucket/p%2Bq").text(), "a plus");
        assert_eq!(server.get("/bucket/p%20q").text(), "old");
        let raw = server.get("/bucket/p+q");
        assert_eq!(raw.text(), "old");
        assert_ne!(raw.cache_word(), "HIT");
    }
    assert_eq!(server.get("/bucket/p%20q").cache_word(), "HIT");
    assert_eq!(server.fetch(&Ask::put("/bucket/p+q", "new")).status(), 200);
    put("new");
    for path in ["/bucket/p%20q", "/bucket/p%2Bq"] {
        assert_ne!(server.get(path).cache_word(), "HIT", "{path}");
    }
    assert_eq!(server.get("/bucket/p%20q").text(), "new");
    server.finish();
}

#[test]
fn a_delete_that_names_its_bucket_in_an_unlisted_host_leaves_no_copy_of_that_host() {
    let store = Store::new();
    for path in ["/k", "/bucket/k"] {
        store.insert(path, Object::bytes(b"here"));
    }
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let read = |host: &str, path: &str| server.fetch(&Ask::get(path).header("Host", host));
    let kept = [
        ("b.unlisted.example", "/bucket/k"),
        ("other.example", "/bucket/k"),
    ];
    for (host, path) in kept {
        assert_eq!(read(host, path).text(), "here");
        assert_eq!(read(host, path).cache_word(), "HIT");
    }
    let list = "<Delete><Object><Key>bucket/k</Key></Object></Delete>";
    let delete = Ask::new("POST", "/?delete")
        .header("Host", "b.unlisted.example")
        .body(list);
    server.fetch(&delete);
    assert_ne!(read("b.unlisted.example", "/bucket/k").cache_word(), "HIT");
    assert_eq!(read("other.example", "/bucket/k").cache_word(), "HIT");
    server.finish();
}

#[test]
fn a_response_that_varies_in_its_second_vary_line_is_not_kept() {
    let origin = Stub::start(|seen, wire| {
        let text = seen.header("user-agent").unwrap_or_default().to_owned();
        let headers = [("ETag", "\"e\""), ("Vary", ""), ("Vary", "User-Agent")];
        wire.respond("200 OK", &headers, text.as_bytes())
    });
    let server = Millrace::start(origin.address);
    for agent in ["one", "two", "one"] {
        let response = server.fetch(&Ask::get("/bucket/k").header("User-Agent", agent));
        assert_eq!(response.text(), agent);
        assert_ne!(response.cache_word(), "HIT");
    }
    server.finish();
}

#[test]
fn keys_that_look_alike_are_different_objects() {
    // (2B.43, 2B.44)
    let store = Store::new();
    let paths = [
        "/bucket/a:range:0-9",
        "/bucket/a:part:1",
        "/bucket/a",
        "/bucket/a/",
        "/bucket//a",
        "/bucket/./a",
        "/bucket/b/../a",
        "/bucket/%2e%2e%2fa",
        "/bucket/a%00",
        "/bucket/A",
        "/bucket/a%20",
        "/bucket2/a",
    ];
    for path in paths {
        store.insert(path, Object::bytes(path.as_bytes()));
    }
    store.insert(
        &format!("/bucket/{}", "l".repeat(1_024)),
        Object::bytes(b"long"),
    );
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for _ in 0..2 {
        for path in paths {
            let response = server.get(path);
            assert!(
                response.status() >= 400 || response.text() == path,
                "{path} got {}",
                response.text()
            );
        }
    }
    assert_eq!(
        server.get(&format!("/bucket/{}", "l".repeat(1_024))).text(),
        "long"
    );
    server.finish();
}

#[test]
fn semantics_51_response_overrides_are_answered_by_the_origin_and_stay_with_their_request() {
    // (2A.8)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"plain"));
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if seen.target().contains("response-content-type=text%2Fhtml") {
                return wire.respond(
                    "200 OK",
                    &[("Content-Type", "text/html"), ("ETag", "\"e\"")],
                    b"plain",
                );
            }
            store.answer(seen, wire)
        })
    };
    let server = Millrace::start(origin.address);
    let overridden = "/bucket/k?response-content-type=text%2Fhtml";
    for _ in 0..2 {
        assert_eq!(
            server.get(overridden).header("content-type"),
            Some("text/html")
        );
        assert_eq!(
            server.get("/bucket/k").header("content-type"),
            Some("binary/octet-stream")
        );
    }
    server.finish();
}

#[test]
fn semantics_52_a_presigned_url_past_its_time_is_never_a_hit() {
    // (2A.26, 2A.27, 2D.76)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    origin.put("/bucket/k", b"for a while");
    let server = Millrace::start(origin.address);
    let signer = origin.signer(server.door);
    let now = SystemTime::now();
    let valid = server.fetch(&signer.presign("GET", "/bucket/k", 600, now));
    assert_eq!(
        (valid.status(), valid.text().as_str()),
        (200, "for a while")
    );
    let again = server.fetch(&signer.presign("GET", "/bucket/k", 500, now));
    assert_eq!(again.cache_word(), "HIT");
    let expired =
        server.fetch(&signer.presign("GET", "/bucket/k", 60, now - Duration::from_secs(3_600)));
    assert_eq!(expired.status(), 403, "{:?}", expired.head);
    assert!(
        expired.text().contains("<Code>AccessDenied</Code>"),
        "{}",
        expired.text()
    );
    assert!(!expired.text().contains("for a while"));
    server.finish();
}

#[test]
fn nonsense_in_a_presigned_query_is_the_origins_to_judge() {
    // (2A.26, 2D.77)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"x"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for query in [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=99999999T999999Z&X-Amz-Expires=5&X-Amz-Signature=0",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=19000101T000000Z&X-Amz-Expires=99999999999999999999&X-Amz-Signature=0",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=&X-Amz-Expires=-1&X-Amz-Signature=0",
        "AWSAccessKeyId=A&Signature=s&Expires=notanumber",
        "AWSAccessKeyId=A&Signature=s&Expires=1",
    ] {
        server.get("/bucket/k");
        let response = server.get(&format!("/bucket/k?{query}"));
        assert_ne!(response.cache_word(), "HIT", "{query}");
        assert!(
            matches!(response.status(), 200 | 400 | 403),
            "{query}: {:?}",
            response.head
        );
    }
    server.finish();
}

#[test]
fn semantics_53_a_refusal_of_one_client_changes_nothing_for_another() {
    // (2D.79, 2D.83, 2D.84, 2G.118)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(120, MIB));
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| match seen.header("x-who") {
            Some("stranger") => wire.refuse("403 Forbidden", "AccessDenied"),
            _ => store.answer(seen, wire),
        })
    };
    let server = Millrace::start(origin.address);
    let stranger = Ask::get("/bucket/k").header("x-who", "stranger");
    let friend = Ask::get("/bucket/k").header("x-who", "friend");
    assert_eq!(server.fetch(&stranger).status(), 403);
    server.fetch(&friend).assert_body(&Tile::new(120), 0, MIB);
    assert_eq!(server.fetch(&friend).cache_word(), "HIT");
    // With `access = "open"` what is fresh is whoever's who asks.
    assert_eq!(server.fetch(&stranger).cache_word(), "HIT");
    // Together on a cold object: each has the origin's answer to its own request.
    for round in 0..10 {
        let path = format!("/bucket/r{round}");
        store.insert(&path, Object::tile(round, MIB));
        let tile = Tile::new(round);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| server.fetch(&Ask::get(&path).header("x-who", "stranger")));
                scope.spawn(|| {
                    let response = server.fetch(&Ask::get(&path).header("x-who", "friend"));
                    assert_eq!(
                        response.status(),
                        200,
                        "a friend inherited {}",
                        response.text()
                    );
                    response.assert_body(&tile, 0, MIB);
                });
            }
        });
    }
    server.finish();
}

#[test]
fn a_part_request_never_shortens_its_object() {
    // (2B.36, 2B.37)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(121, 10 * KIB));
    let origin = {
        let store = store.clone();
        Stub::start(move |seen, wire| {
            if !seen.target().contains("partNumber") {
                return store.answer(seen, wire);
            }
            let object = store.object("/bucket/k").expect("it");
            let _ = wire.send(crate::harness::store::response_head(&object, 0, KIB, true));
            if seen.method() == "GET" {
                let _ = wire.send(Tile::new(121).slice(0, KIB));
            }
            After::KeepAlive
        })
    };
    let server = Millrace::start(origin.address);
    let tile = Tile::new(121);
    for _ in 0..2 {
        assert_eq!(
            server
                .fetch(&Ask::head("/bucket/k?partNumber=1"))
                .head
                .content_length(),
            Some(KIB)
        );
        server
            .get("/bucket/k?partNumber=1")
            .assert_body(&tile, 0, KIB);
        assert_eq!(
            server.fetch(&Ask::head("/bucket/k")).head.content_length(),
            Some(10 * KIB)
        );
        server.get("/bucket/k").assert_body(&tile, 0, 10 * KIB);
    }
    server.finish();
}

#[test]
fn a_version_and_the_object_are_kept_apart() {
    // (2B.38)
    let origin = Stub::start(|seen, wire| {
        let text = if seen.target().contains("versionId") {
            "the old version"
        } else {
            "the newest"
        };
        wire.respond(
            "200 OK",
            &[("ETag", &format!("\"{}\"", text.len()))],
            text.as_bytes(),
        )
    });
    let server = Millrace::start(origin.address);
    for _ in 0..2 {
        assert_eq!(
            server.get("/bucket/k?versionId=1").text(),
            "the old version"
        );
        assert_eq!(server.get("/bucket/k").text(), "the newest");
    }
    server.finish();
}

#[test]
fn a_customer_encrypted_object_is_never_kept() {
    // (2B.39)
    let origin = Stub::start(|seen, wire| {
        if seen
            .header("x-amz-server-side-encryption-customer-key")
            .is_none()
        {
            return wire.refuse("400 Bad Request", "InvalidRequest");
        }
        let headers = [
            ("ETag", "\"e\""),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ];
        wire.respond("200 OK", &headers, b"plaintext")
    });
    let server = Millrace::start(origin.address);
    let keyed = Ask::get("/bucket/k").header("x-amz-server-side-encryption-customer-key", "a2V5");
    for _ in 0..2 {
        assert_eq!(server.fetch(&keyed).text(), "plaintext");
        assert_eq!(
            server.get("/bucket/k").status(),
            400,
            "plaintext without the key"
        );
    }
    server.finish();
}

#[test]
fn an_object_larger_than_ram_streams_through_whole() {
    // (2C.69, 2I.161)
    let store = Store::new();
    store.insert("/bucket/huge", Object::tile(122, 160 * MIB));
    store.insert("/bucket/small", Object::tile(123, 10 * KIB));
    let origin = store.serve();
    let server = Millrace::setup().ram("64MiB").start(origin.address);
    let small = Tile::new(123);
    for _ in 0..4 {
        server.get("/bucket/small").assert_body(&small, 0, 10 * KIB);
    }
    for _ in 0..2 {
        server
            .get("/bucket/huge")
            .assert_body(&Tile::new(122), 0, 160 * MIB);
    }
    server
        .fetch(&Ask::get("/bucket/huge").range(100 * MIB, 130 * MIB))
        .assert_body(&Tile::new(122), 100 * MIB, 130 * MIB);
    server.get("/bucket/small").assert_body(&small, 0, 10 * KIB);
    server.finish();
}

#[test]
fn eviction_under_readers_gives_no_wrong_byte() {
    // (2C.62, 2C.63)
    let store = Store::new();
    for key in 0..12 {
        store.insert(&format!("/bucket/k{key}"), Object::tile(key, 12 * MIB));
    }
    let origin = store.serve();
    let server = Millrace::setup()
        .shards(2)
        .ram("64MiB")
        .start(origin.address);
    std::thread::scope(|scope| {
        for reader in 0..6u64 {
            let server = &server;
            scope.spawn(move || {
                let mut connection = server.connect();
                for step in 0..12 {
                    let key = (reader * 5 + step * 7) % 12;
                    let (first, end) = (step * 100_003, 12 * MIB - reader * 7_919);
                    let response = connection
                        .exchange(&Ask::get(&format!("/bucket/k{key}")).range(first, end));
                    response.assert_body(&Tile::new(key), first, end);
                }
            });
        }
    });
    server.finish();
}

#[test]
fn an_overwrite_past_the_cache_is_seen_when_a_gap_is_fetched() {
    // (2B.48, 2B.51)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(124, 20 * MIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    server
        .fetch(&Ask::get("/bucket/k").range(0, MIB))
        .assert_body(&Tile::new(124), 0, MIB);
    store.insert("/bucket/k", Object::tile(125, 15 * MIB));
    let gap = server.fetch(&Ask::get("/bucket/k").range(9 * MIB, 12 * MIB));
    assert_ne!(gap.status(), 412, "the proxy's own If-Match leaked");
    assert_eq!(gap.status(), 206);
    gap.assert_body(&Tile::new(125), 9 * MIB, 12 * MIB);
    assert_eq!(
        gap.header("content-range"),
        Some(format!("bytes {}-{}/{}", 9 * MIB, 12 * MIB - 1, 15 * MIB).as_str())
    );
    server
        .get("/bucket/k")
        .assert_body(&Tile::new(125), 0, 15 * MIB);
    server.finish();
}

#[test]
fn a_put_during_a_fill_is_not_undone_by_it() {
    // (2G.199, 2L.199)
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    for round in 0..10u64 {
        store.insert("/bucket/k", Object::tile(round, 8 * MIB));
        assert_eq!(
            server
                .fetch(&Ask::new("POST", "/bucket/k?restore").body("x"))
                .status(),
            200
        );
        store.shut_gate(4 * MIB);
        let mut reader = server.connect();
        reader.send_ask(&Ask::get("/bucket/k"));
        let head = reader.head().expect("a head");
        reader.reader.first_byte().expect("a byte");
        let text = format!("written in round {round}");
        assert_eq!(
            server.fetch(&Ask::put("/bucket/k", text.as_str())).status(),
            200
        );
        store.open_gate();
        // The old reader may end whole or be cut; its bytes are of the old version alone.
        let _ = reader.check_body(&head, &Tile::new(round), 0);
        assert_eq!(server.get("/bucket/k").text(), text);
        assert_eq!(server.get("/bucket/k").text(), text);
    }
    server.finish();
}

#[test]
fn a_weak_or_missing_etag_is_passed_and_never_mixed() {
    for tag in ["", "ETag: W/\"1\"\r\n"] {
        let origin = Stub::start(move |seen, wire| {
            let text = format!("answer {:04}", seen.number);
            let head = format!(
                "HTTP/1.1 200 OK\r\n{tag}Content-Length: {}\r\n\r\n{text}",
                text.len()
            );
            wire.send(head).map_or(After::Close, |()| After::KeepAlive)
        });
        let server = Millrace::start(origin.address);
        let first = server.get("/bucket/k").text();
        let second = server.get("/bucket/k").text();
        assert!(first.starts_with("answer ") && second.starts_with("answer "));
        server.finish();
    }
}

#[test]
fn a_presigned_put_keeps_its_query_and_is_verified() {
    // (2D.75, 2E.102)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = Millrace::start(origin.address);
    let signer = origin.signer(server.door);
    for (path, text) in [
        ("/bucket/k", "one"),
        ("/bucket/k", "two"),
        ("/bucket/dir/k%20%2B", "three"),
    ] {
        let put = signer
            .presign("PUT", path, 600, SystemTime::now())
            .body(text);
        let response = server.fetch(&put);
        assert_eq!(response.status(), 200, "{}", response.text());
        for _ in 0..2 {
            let get = signer.presign("GET", path, 600, SystemTime::now());
            assert_eq!(server.fetch(&get).text(), text);
        }
    }
    server.finish();
}

#[test]
fn with_ttl_zero_each_of_many_readers_is_judged_by_the_origin() {
    // (2D.78)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(126, MIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| server.get("/bucket/k").assert_body(&Tile::new(126), 0, MIB));
        }
    });
    assert_eq!(origin.requests(), 10);
    server.finish();
}

#[test]
fn hundreds_of_connections_are_served_side_by_side() {
    // (2J.173)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(127, 100 * KIB));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let tile = Tile::new(127);
    let mut connections: Vec<_> = (0..400).map(|_| server.connect()).collect();
    for _ in 0..2 {
        for connection in &mut connections {
            connection.send_ask(&Ask::get("/bucket/k"));
        }
        for connection in &mut connections {
            let response = connection.response("GET").expect("an answer");
            assert_eq!(response.status(), 200, "{}", response.text());
            response.assert_body(&tile, 0, 100 * KIB);
        }
    }
    store.assert_sent_once("/bucket/k");
    drop(connections);
    server.finish();
}

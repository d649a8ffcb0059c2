//! The shapes in which real clients speak HTTP: versions, target forms, keep-alive,
//! pipelining, and what a response head looks like.

use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, Store, Tile};

fn small_server() -> (Store, crate::harness::Stub, Millrace) {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(100, 70 * KIB));
    store.insert("/bucket/small", Object::bytes(b"small"));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    (store, origin, server)
}

#[test]
fn semantics_37_one_connection_serves_many_requests_of_every_kind() {
    let (_store, _origin, server) = small_server();
    let tile = Tile::new(100);
    let mut connection = server.connect();
    for _ in 0..3 {
        connection
            .exchange(&Ask::get("/bucket/k"))
            .assert_body(&tile, 0, 70 * KIB);
        connection
            .exchange(&Ask::get("/bucket/k").range(5, 50))
            .assert_body(&tile, 5, 50);
        assert_eq!(connection.exchange(&Ask::head("/bucket/k")).status(), 200);
        assert_eq!(
            connection.exchange(&Ask::put("/bucket/n", "new")).status(),
            200
        );
        assert_eq!(connection.exchange(&Ask::get("/bucket/none")).status(), 404);
        assert_eq!(
            connection
                .exchange(&Ask::get("/bucket/k").header("Range", "bytes=99999999-"))
                .status(),
            416
        );
        assert_eq!(
            connection
                .exchange(&Ask::new("DELETE", "/bucket/n"))
                .status(),
            204
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
fn semantics_38_pipelined_requests_are_answered_in_order() {
    let (_store, _origin, server) = small_server();
    let tile = Tile::new(100);
    let mut connection = server.connect();
    let mut raw = Vec::new();
    for round in 0..10u64 {
        raw.extend(
            Ask::get("/bucket/k")
                .range(round, round + 1_000)
                .head_bytes(server.door),
        );
        raw.extend(Ask::head("/bucket/small").head_bytes(server.door));
        let put = Ask::put("/bucket/p", "piped");
        raw.extend(put.head_bytes(server.door));
        raw.extend(&put.body);
        raw.extend(Ask::get("/bucket/small").head_bytes(server.door));
    }
    connection.send(&raw);
    for round in 0..10u64 {
        connection
            .response("GET")
            .expect("a range")
            .assert_body(&tile, round, round + 1_000);
        assert_eq!(
            connection
                .response("HEAD")
                .expect("a head")
                .head
                .content_length(),
            Some(5)
        );
        assert_eq!(connection.response("PUT").expect("a put").status(), 200);
        assert_eq!(
            connection.response("GET").expect("an object").text(),
            "small"
        );
    }
    drop(connection);
    server.finish();
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let (_store, _origin, server) = small_server();
    let mut connection = server.connect();
    for byte in Ask::get("/bucket/small").head_bytes(server.door) {
        connection.send([byte]);
    }
    assert_eq!(
        connection.response("GET").expect("an answer").text(),
        "small"
    );
    drop(connection);
    server.finish();
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let (_store, _origin, server) = small_server();
    for _ in 0..2 {
        let mut old = server.connect();
        old.send("GET /bucket/small HTTP/1.0\r\nHost: h\r\n\r\n");
        assert_eq!(old.response("GET").expect("an answer").text(), "small");
        assert!(old.closes());
    }
    let mut kept = server.connect();
    for _ in 0..2 {
        kept.send("GET /bucket/small HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(kept.response("GET").expect("an answer").text(), "small");
        if kept.closes_now() {
            break;
        }
    }
    drop(kept);
    server.finish();
}

#[test]
fn connection_close_is_honoured_and_said() {
    let (_store, _origin, server) = small_server();
    for target in ["/bucket/small", "/bucket?list-type=2", "/bucket/none"] {
        let mut connection = server.connect();
        let response = connection.exchange(&Ask::get(target).header("Connection", "close"));
        assert_eq!(response.header("connection"), Some("close"), "{target}");
        assert!(connection.closes());
    }
    server.finish();
}

#[test]
fn semantics_39_absolute_form_is_the_same_request() {
    // What HTTP_PROXY makes of it, also with an explicit port 80. (wire rules 2, 3)
    let (_store, origin, server) = small_server();
    let asks = [
        Ask::get("http://store.example/bucket/small").header("Host", "store.example"),
        Ask::get("http://store.example:80/bucket/small").header("Host", "store.example"),
        Ask::get("HTTP://store.example/bucket/small").header("Host", "store.example"),
    ];
    assert_eq!(server.fetch(&asks[0]).cache_word(), "MISS");
    for ask in &asks {
        let response = server.fetch(ask);
        assert_eq!(
            (response.text().as_str(), response.cache_word()),
            ("small", "HIT"),
            "{ask:?}"
        );
    }
    let seen = origin.seen();
    assert_eq!(
        (seen[0].target(), seen[0].header("host")),
        ("/bucket/small", Some("store.example"))
    );
    server.finish();
}

#[test]
fn an_authority_that_is_not_the_host_never_leads_elsewhere() {
    // (wire rule 3)
    let (_store, origin, server) = small_server();
    let response =
        server.fetch(&Ask::get("http://evil.example/bucket/small").header("Host", "store.example"));
    if response.status() == 200 {
        assert_eq!(
            origin.seen()[0].header("host"),
            Some("store.example"),
            "the signed Host was changed"
        );
    } else {
        response.assert_refused();
        assert_eq!(origin.requests(), 0);
    }
    server.finish();
}

#[test]
fn semantics_40_marks_tell_where_an_answer_came_from() {
    // RFC 9211, RFC 9111 section 5.1. (2A.29)
    let (store, _origin, server) = small_server();
    store.insert(
        "/bucket/marked",
        Object::bytes(b"x")
            .header("X-Cache", "HIT")
            .header("Age", "77777"),
    );
    let cold = server.get("/bucket/marked");
    let status = cold
        .header("cache-status")
        .expect("Cache-Status")
        .to_owned();
    assert!(
        status.starts_with("millrace; fwd=") && status.contains("stored"),
        "{status}"
    );
    assert_eq!(cold.cache_word(), "MISS");
    let warm = server.get("/bucket/marked");
    let status = warm.header("cache-status").expect("Cache-Status");
    assert!(status.starts_with("millrace; hit"), "{status}");
    assert_eq!(warm.cache_word(), "HIT");
    let age: u64 = warm.header("age").expect("Age").parse().expect("seconds");
    assert!(age < 30, "Age {age} is the origin's");
    let passed = server.get("/bucket?list-type=2");
    assert_eq!(passed.cache_word(), "PASS");
    assert!(
        passed
            .header("cache-status")
            .is_some_and(|status| status.starts_with("millrace; fwd="))
    );
    server.finish();
}

#[test]
fn semantics_41_a_hit_has_the_headers_the_origin_sent_in_order() {
    // (2A.15, 2A.17, 2C.64; wire rule 20)
    let (store, _origin, server) = small_server();
    let object = Object::bytes(b"x")
        .header("x-amz-meta-twice", "one")
        .header("x-amz-meta-twice", "two")
        .header("Cache-Control", "max-age=5")
        .header("Content-Disposition", "attachment; filename=\"a;b\"")
        .header("X-Amz-Version-Id", "v1")
        .header("x-amz-empty", "");
    store.insert("/bucket/headers", object);
    let own = [
        "age",
        "cache-status",
        "x-cache-status",
        "date",
        "x-amz-request-id",
        "x-amz-id-2",
        "connection",
        "content-length",
    ];
    let kept = |response: &crate::harness::Response| -> Vec<(String, String)> {
        response
            .head
            .headers
            .iter()
            .filter(|(name, _)| !own.contains(&name.to_lowercase().as_str()))
            .cloned()
            .collect()
    };
    let (cold, warm) = (server.get("/bucket/headers"), server.get("/bucket/headers"));
    assert_eq!(warm.cache_word(), "HIT");
    assert_eq!(kept(&cold), kept(&warm));
    assert_eq!(warm.head.all("x-amz-meta-twice"), ["one", "two"]);
    assert!(
        kept(&warm).contains(&("X-Amz-Version-Id".to_owned(), "v1".to_owned())),
        "case of names: {:?}",
        warm.head.headers
    );
    assert_eq!(warm.header("x-amz-meta-mixed"), Some("Case \u{e9} kept"));
    assert_eq!(warm.header("x-amz-empty"), Some(""));
    let ids = [
        warm.header("x-amz-request-id"),
        server.get("/bucket/headers").header("x-amz-request-id"),
    ]
    .map(|id| id.map(str::to_owned));
    assert!(
        ids[0].is_some() && ids[0] != ids[1],
        "request ids are replayed: {ids:?}"
    );
    assert_ne!(ids[0].as_deref(), Some("ORIGIN0REQUEST0"));
    let partial = server.fetch(&Ask::get("/bucket/headers").header("Range", "bytes=0-0"));
    assert_eq!(partial.header("content-range"), Some("bytes 0-0/1"));
    assert_eq!(partial.head.all("x-amz-meta-twice"), ["one", "two"]);
    server.finish();
}

#[test]
fn semantics_42_checksums_of_the_whole_come_only_with_the_whole() {
    // (2A.16, 2C.68)
    let (store, _origin, server) = small_server();
    store.insert(
        "/bucket/sum",
        Object::tile(101, MIB).header("x-amz-checksum-crc32", "AAAAAA=="),
    );
    let ask = Ask::get("/bucket/sum").header("x-amz-checksum-mode", "ENABLED");
    for _ in 0..2 {
        assert_eq!(
            server.fetch(&ask).header("x-amz-checksum-crc32"),
            Some("AAAAAA==")
        );
        let partial = server.fetch(&ask.clone().range(0, 100));
        assert_eq!(partial.status(), 206);
        if partial.cache_word() == "HIT" {
            assert_eq!(partial.header("x-amz-checksum-crc32"), None);
        }
    }
    server.finish();
}

#[test]
fn a_hit_of_every_size_class_is_framed_right() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let sizes = [
        1, 2, 511, 4_095, 4_096, 16_383, 16_384, 16_385, 65_536, 1_048_575, 1_048_577, 8_388_607,
        8_388_609,
    ];
    let mut connection = server.connect();
    for size in sizes {
        let path = format!("/bucket/size-{size}");
        store.insert(&path, Object::tile(size, size));
        for _ in 0..4 {
            let response = connection.exchange(&Ask::get(&path));
            assert_eq!(response.head.content_length(), Some(size));
            response.assert_body(&Tile::new(size), 0, size);
        }
    }
    drop(connection);
    server.finish();
}

/// What the ranged GETs of real clients carry besides `Host` and `Range`.
const CLIENT_HEADERS: &[(&str, &[(&str, &str)])] = &[
    (
        "boto3",
        &[
            ("User-Agent", "Boto3/1.44 md/Botocore ua/2.1"),
            ("Accept-Encoding", "identity"),
            ("x-amz-checksum-mode", "ENABLED"),
            ("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"),
            ("amz-sdk-invocation-id", "b\"a\""),
            ("amz-sdk-request", "attempt=1"),
        ],
    ),
    (
        "AWS SDK for C++",
        &[
            ("Accept", "*/*"),
            ("content-type", "application/xml"),
            ("x-amz-api-version", "2006-03-01"),
            ("x-amz-checksum-mode", "enabled"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ],
    ),
    (
        "AWS CRT",
        &[
            ("Accept", "*/*"),
            ("x-amz-security-token", "token"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ],
    ),
    (
        "rclone",
        &[
            ("Accept-Encoding", "gzip"),
            ("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD"),
        ],
    ),
    ("curl", &[("Accept", "*/*")]),
    (
        "a browser",
        &[
            ("Accept-Language", "en"),
            ("Referer", "http://x/"),
            ("Cookie", "a=b"),
        ],
    ),
    (
        "traced",
        &[
            ("traceparent", "00-1-1-01"),
            ("X-Amzn-Trace-Id", "Root=1"),
            ("x-forwarded-for", "10.0.0.1"),
        ],
    ),
];

#[test]
fn semantics_56_no_header_that_a_client_always_sends_keeps_it_from_hitting() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for (number, (client, headers)) in CLIENT_HEADERS.iter().enumerate() {
        let path = format!("/bucket/k{number}");
        let tile = Tile::new(number as u64);
        store.insert(&path, Object::tile(number as u64, MIB));
        let ask = headers.iter().fold(Ask::get(&path), |ask, (name, value)| {
            ask.header(name, value)
        });
        for word in ["MISS", "HIT"] {
            let response = server.fetch(&ask.clone().range(5, 500_000));
            assert_eq!(
                (response.status(), response.cache_word()),
                (206, word),
                "{client}"
            );
            response.assert_body(&tile, 5, 500_000);
        }
    }
    server.finish();
}

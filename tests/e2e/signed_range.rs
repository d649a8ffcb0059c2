//! Requests whose `Range` is signed reach the origin exactly as signed; what they bring
//! is cut into extents and serves other ranges, signed or not.

use crate::harness::s3s::S3s;
use crate::harness::sign::UNSIGNED;
use crate::harness::store::Object;
use crate::harness::{Ask, MIB, Millrace, Store, Tile, sha256_hex};

/// A signature in form only, for origins that do not verify.
fn signed(ask: Ask, names: &str) -> Ask {
    let value = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders={names}, Signature=00"
    );
    ask.header("Authorization", &value)
}

#[test]
fn semantics_12_a_signed_range_is_fetched_exactly_and_reused() {
    // (2C.55)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(40, 30 * MIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(40);
    let (first, end) = (MIB + 3, 19 * MIB + 5);
    let ask = |first, end| {
        signed(
            Ask::get("/bucket/k").range(first, end),
            "host;range;x-amz-date",
        )
    };
    let cold = server.fetch(&ask(first, end));
    assert_eq!((cold.status(), cold.cache_word()), (206, "MISS"));
    cold.assert_body(&tile, first, end);
    assert_eq!(store.sent("/bucket/k"), [(first, end)]);
    assert_eq!(origin.requests(), 1);
    for (first, end) in [
        (first, end),
        (first + 1, end - 1),
        (7 * MIB, 9 * MIB),
        (end - 1, end),
    ] {
        let warm = server.fetch(&ask(first, end));
        assert_eq!(warm.cache_word(), "HIT", "{first}..{end}");
        warm.assert_body(&tile, first, end);
        let unsigned = server.fetch(&Ask::get("/bucket/k").range(first, end));
        assert_eq!(unsigned.cache_word(), "HIT");
        unsigned.assert_body(&tile, first, end);
    }
    assert_eq!(origin.requests(), 1);
    server.finish();
}

#[test]
fn a_signed_range_that_is_partly_there_is_asked_for_as_signed() {
    for (first, end) in [
        (7 * MIB, 12 * MIB),
        (12 * MIB, 20 * MIB),
        (7 * MIB, 20 * MIB),
        (15 * MIB + 1, 16 * MIB + 1),
    ] {
        let store = Store::new();
        store.insert("/bucket/k", Object::tile(41, 30 * MIB));
        let origin = store.serve();
        let server = Millrace::setup().shards(2).start(origin.address);
        let tile = Tile::new(41);
        let middle = server.fetch(&Ask::get("/bucket/k").range(8 * MIB, 16 * MIB));
        middle.assert_body(&tile, 8 * MIB, 16 * MIB);
        let ask = signed(Ask::get("/bucket/k").range(first, end), "host;range");
        server.fetch(&ask).assert_body(&tile, first, end);
        let wanted = format!("bytes={first}-{}", end - 1);
        let asked = origin.seen().pop().expect("a request");
        assert_eq!(asked.header("range"), Some(wanted.as_str()));
        assert_eq!(origin.requests(), 2, "the signed range is asked for once");
        server.finish();
    }
}

#[test]
fn semantics_13_signed_headers_path_and_query_reach_the_origin_byte_for_byte() {
    // (2A.17, 2A.18, 2B.42, 2D.74; wire rules 1, 2, 4)
    let store = Store::new();
    store.insert("/bucket/a%2Fb//c+d/%C3%A9/..%2e/k", Object::tile(42, 100));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let target = "/bucket/a%2Fb//c+d/%C3%A9/..%2e/k?x-id=GetObject";
    let ask = signed(
        Ask::get(target)
            .header("Host", "Store.Example:9000")
            .header("User-Agent", "App/1 (x)  two  spaces")
            .header("Accept-Encoding", "identity")
            .header("Range", "bytes=1-9")
            .header("X-Amz-Date", "20260812T100000Z")
            .header("x-amz-content-SHA256", "UNSIGNED-PAYLOAD")
            .header("Referer", "about:blank")
            .header("amz-sdk-invocation-id", "ABC")
            .header("amz-sdk-request", "attempt=1; max=3")
            .header("connection", "keep-alive"),
        "accept-encoding;amz-sdk-invocation-id;amz-sdk-request;host;range;referer;user-agent;x-amz-content-sha256;x-amz-date",
    );
    let response = server.fetch(&ask);
    assert_eq!(response.status(), 206, "{}", response.text());
    let seen = origin.seen().remove(0);
    assert_eq!(seen.target(), target);
    let mut rest = seen.head.headers.iter();
    for (name, value) in ask.headers.iter().filter(|(name, _)| name != "connection") {
        let same = |own: &(String, String)| own.0.eq_ignore_ascii_case(name) && own.1 == *value;
        assert!(
            rest.any(same),
            "{name}: {value} is changed, missing or out of order in {:?}",
            seen.head.headers
        );
        assert_eq!(seen.head.all(name).len(), 1, "{name} is repeated");
    }
    let added: Vec<_> = seen
        .head
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-") && !ask.has(name))
        .collect();
    assert!(added.is_empty(), "headers were added: {added:?}");
    server.finish();
}

#[test]
fn the_names_of_signed_headers_are_compared_whole() {
    // `x-range` among the signed names does not make `Range` a signed one, and upper case does not hide it. (2D.72)
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let body = Tile::new(43).slice(0, 20 * MIB);
    origin.put("/bucket/k", &body);
    let server = Millrace::start(origin.address);
    let signer = origin.signer(server.door);
    let loose = signer
        .sign(Ask::get("/bucket/k").header("x-range", "bytes=0-1"))
        .header("Range", "bytes=9-9999999");
    let response = server.fetch(&loose);
    assert_eq!(response.status(), 206, "{}", response.text());
    assert_eq!(sha256_hex(&response.body), sha256_hex(&body[9..10_000_000]));
    server.finish();
}

#[test]
fn signed_ranges_verify_at_a_real_origin_cold_partly_warm_and_warm() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let body = Tile::new(44).slice(0, 20 * MIB);
    origin.put("/bucket/k", &body);
    let server = Millrace::setup().shards(2).start(origin.address);
    let signer = origin.signer(server.door);
    for (first, end) in [
        (0, 8 << 20),
        (4 << 20, 12 << 20),
        (16 << 20, 20 << 20),
        (1, 20 << 20),
    ] {
        for _ in 0..2 {
            let ask = signer.sign_with_payload(Ask::get("/bucket/k").range(first, end), UNSIGNED);
            let response = server.fetch(&ask);
            assert_eq!(response.status(), 206, "{}", response.text());
            assert!(
                response.body == body[first as usize..end as usize],
                "bytes of {first}..{end}"
            );
        }
    }
    origin.reset_stats();
    server.fetch(&signer.sign(Ask::get("/bucket/k")));
    assert_eq!(origin.stats().get_requests, 0);
    server.finish();
}

#[test]
fn sigv4a_counts_as_signed() {
    // (2D.73)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(45, 20 * MIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let value = "AWS4-ECDSA-P256-SHA256 Credential=AKID/20260812/s3/aws4_request, SignedHeaders=host;range;x-amz-date;x-amz-region-set, Signature=00";
    let ask = Ask::get("/bucket/k")
        .range(100, 9_000_000)
        .header("Authorization", value);
    server
        .fetch(&ask)
        .assert_body(&Tile::new(45), 100, 9_000_000);
    assert_eq!(store.sent("/bucket/k"), [(100, 9_000_000)]);
    server.finish();
}

#[test]
fn if_match_of_parallel_clients_is_cached_and_answered() {
    // The CRT and the AWS CLI send `If-Match` with every range. (2F.112)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(46, 24 * MIB));
    let etag = store.object("/bucket/k").expect("it").etag;
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(46);
    for word in ["MISS", "HIT"] {
        for part in 0..3 {
            let (first, end) = (part * 8 * MIB, (part + 1) * 8 * MIB);
            let ask = signed(
                Ask::get("/bucket/k")
                    .range(first, end)
                    .header("If-Match", &etag),
                "host;if-match;range",
            );
            let response = server.fetch(&ask);
            assert_eq!(
                (response.status(), response.cache_word()),
                (206, word),
                "part {part}"
            );
            response.assert_body(&tile, first, end);
        }
    }
    assert_eq!(origin.requests(), 3);
    let stranger = Ask::get("/bucket/k")
        .range(0, 10)
        .header("If-Match", "\"another\"");
    assert_eq!(server.fetch(&stranger).status(), 412);
    server.finish();
}

#[test]
fn conditions_on_a_copy_past_its_time_are_judged_by_the_origin() {
    // A local 304 or 412 from a stale validator would be wrong. (2C.65, 2C.67, 2F.111)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(47, 1_000));
    let etag = store.object("/bucket/k").expect("it").etag;
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    let tile = Tile::new(47);
    for _ in 0..2 {
        assert_eq!(
            server
                .fetch(&Ask::get("/bucket/k").header("If-None-Match", &etag))
                .status(),
            304
        );
        let changed = server.fetch(&Ask::get("/bucket/k").header("If-None-Match", "\"other\""));
        assert_eq!(changed.status(), 200);
        changed.assert_body(&tile, 0, 1_000);
        server.get("/bucket/k").assert_body(&tile, 0, 1_000);
    }
    store.insert("/bucket/k", Object::tile(48, 1_000));
    let changed = server.fetch(&Ask::get("/bucket/k").header("If-None-Match", &etag));
    assert_eq!(
        changed.status(),
        200,
        "an old validator was answered from an old copy"
    );
    changed.assert_body(&Tile::new(48), 0, 1_000);
    let old_tail = Ask::get("/bucket/k")
        .range(500, 1_000)
        .header("If-Range", &etag);
    let response = server.fetch(&old_tail);
    match response.status() {
        200 => response.assert_body(&Tile::new(48), 0, 1_000),
        206 => response.assert_body(&Tile::new(48), 500, 1_000),
        other => panic!("If-Range is answered {other}"),
    }
    server.finish();
}

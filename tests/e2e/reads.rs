//! Reads: the bytes are the origin's, the first time and from RAM after that, at every
//! size and for every kind of range; the second read asks the origin nothing.

use crate::harness::data::Digest;
use crate::harness::s3s::S3s;
use crate::harness::store::Object;
use crate::harness::{
    Ask, Connection, GIB, KIB, MIB, Millrace, Store, Tile, sha256_hex, wait_until,
};
use std::time::Duration;

#[test]
fn semantics_1_a_second_read_is_a_hit_that_asks_the_origin_nothing() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for (seed, length) in [
        (1, 1),
        (2, 4 * KIB),
        (3, 4 * KIB + 1),
        (4, 8 * MIB),
        (5, 8 * MIB + 1),
        (6, 20 * MIB + 7),
    ] {
        let path = format!("/bucket/object-{seed}");
        let tile = Tile::new(seed);
        store.insert(&path, Object::tile(seed, length));
        let cold = server.get(&path);
        assert_eq!((cold.status(), cold.cache_word()), (200, "MISS"));
        cold.assert_body(&tile, 0, length);
        store.assert_sent_once(&path);
        let asked = origin.requests();
        let warm = server.get(&path);
        assert_eq!((warm.status(), warm.cache_word()), (200, "HIT"));
        warm.assert_body(&tile, 0, length);
        assert_eq!(
            origin.requests(),
            asked,
            "a warm read of {length} bytes asked the origin"
        );
    }
    assert_eq!((server.results("miss"), server.results("hit")), (6, 6));
    server.finish();
}

#[test]
fn semantics_2_bytes_of_a_verifying_origin_come_back_with_its_checksum() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let server = Millrace::start(origin.address);
    let signer = origin.signer(server.door);
    for (seed, length) in [(11, 4 * KIB), (12, 8 * MIB)] {
        let path = format!("/bucket/object-{length}");
        let body = Tile::new(seed).slice(0, length);
        origin.put(&path, &body);
        origin.reset_stats();
        let cold = server.fetch(&signer.sign(Ask::get(&path)));
        assert_eq!(cold.status(), 200, "{}", cold.text());
        assert_eq!(sha256_hex(&cold.body), sha256_hex(&body));
        let after_cold = origin.stats();
        assert_eq!(after_cold.body_bytes_sent, length);
        for _ in 0..3 {
            let warm = server.fetch(&signer.sign(Ask::get(&path)));
            assert_eq!(warm.cache_word(), "HIT");
            assert_eq!(sha256_hex(&warm.body), sha256_hex(&body));
            let ranged = server.fetch(&signer.sign(Ask::get(&path).range(100, 2000)));
            assert_eq!((ranged.status(), ranged.cache_word()), (206, "HIT"));
            assert_eq!(ranged.body, body[100..2000]);
        }
        assert_eq!(origin.stats(), after_cold, "warm reads reached the origin");
    }
    server.finish();
}

#[test]
fn a_tampered_signature_is_refused_by_the_origin_and_the_refusal_not_kept() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    origin.put("/bucket/k", b"secret bytes");
    let server = Millrace::start(origin.address);
    let mut forger = origin.signer(server.door);
    forger.secret_key.push('x');
    let refused = server.fetch(&forger.sign(Ask::get("/bucket/k")));
    assert_eq!(refused.status(), 403, "{}", refused.text());
    let honest = server.fetch(&origin.signer(server.door).sign(Ask::get("/bucket/k")));
    assert_eq!(
        (honest.status(), honest.text().as_str()),
        (200, "secret bytes")
    );
    server.finish();
}

/// (spec, status, first, end) of an object of 10,000 bytes.
const RANGES: &[(&str, u16, u64, u64)] = &[
    ("bytes=0-0", 206, 0, 1),
    ("bytes=0-9999", 206, 0, 10_000),
    ("bytes=0-10000", 206, 0, 10_000),
    ("bytes=5-", 206, 5, 10_000),
    ("bytes=9999-", 206, 9_999, 10_000),
    ("bytes=-1", 206, 9_999, 10_000),
    ("bytes=-10000", 206, 0, 10_000),
    ("bytes=-99999", 206, 0, 10_000),
    ("bytes=4095-4097", 206, 4_095, 4_098),
    ("bytes=9999-99999999999999999", 206, 9_999, 10_000),
    ("bytes=10000-", 416, 0, 0),
    ("bytes=10000-10001", 416, 0, 0),
];

fn assert_range_answer(server: &Millrace, tile: &Tile, row: &(&str, u16, u64, u64)) {
    let (spec, status, first, end) = *row;
    let response = server.fetch(&Ask::get("/bucket/ranged").header("Range", spec));
    assert_eq!(response.status(), status, "{spec}");
    if status == 416 {
        return response.assert_s3_error(416, "InvalidRange");
    }
    let expected = format!("bytes {first}-{}/10000", end - 1);
    assert_eq!(
        response.header("content-range"),
        Some(expected.as_str()),
        "{spec}"
    );
    response.assert_body(tile, first, end);
}

#[test]
fn semantics_3_a_range_is_clamped_or_416_alike_cold_and_warm() {
    // (2B.47, 2C.56, 2C.70, 2C.71)
    let store = Store::new();
    store.insert("/bucket/ranged", Object::tile(20, 10_000));
    let tile = Tile::new(20);
    let origin = store.serve();
    for row in RANGES {
        let cold = Millrace::start(origin.address);
        assert_range_answer(&cold, &tile, row);
    }
    let warm = Millrace::start(origin.address);
    warm.get("/bucket/ranged").assert_body(&tile, 0, 10_000);
    let asked = origin.requests();
    for row in RANGES.iter().filter(|row| row.1 == 206) {
        assert_range_answer(&warm, &tile, row);
    }
    assert_eq!(origin.requests(), asked, "a warm range asked the origin");
    for row in RANGES.iter().filter(|row| row.1 == 416) {
        assert_range_answer(&warm, &tile, row);
    }
    warm.finish();
}

#[test]
fn ranges_that_mean_nothing_are_answered_as_the_origin_would() {
    // S3 takes a Range it cannot read for none at all, and gives the whole object. (2C.71)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(21, 5_000));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(21);
    for warm in [false, true] {
        for spec in [
            "bytes=5-2",
            "bytes = 0-1",
            "lines=0-1",
            "bytes=a-b",
            "bytes=",
            "bytes=-",
        ] {
            let response = server.fetch(&Ask::get("/bucket/k").header("Range", spec));
            match response.status() {
                200 => response.assert_body(&tile, 0, 5_000),
                206 => {
                    assert!(response.header("content-range").is_some() && !response.body.is_empty())
                }
                416 | 400 => assert!(response.text().contains("<Error>")),
                other => panic!("{spec} (warm: {warm}) is answered {other}"),
            }
        }
        server.get("/bucket/k").assert_body(&tile, 0, 5_000);
    }
    server.finish();
}

#[test]
fn semantics_4_a_zero_byte_object_is_cached_and_has_no_ranges() {
    // (2A.14, 2B.47, 2C.71)
    let store = Store::new();
    store.insert("/bucket/empty", Object::bytes(b""));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let cold = server.get("/bucket/empty");
    assert_eq!((cold.status(), cold.body.len()), (200, 0));
    let asked = origin.requests();
    let warm = server.get("/bucket/empty");
    assert_eq!(
        (
            warm.status(),
            warm.cache_word(),
            warm.header("content-length")
        ),
        (200, "HIT", Some("0"))
    );
    assert_eq!(origin.requests(), asked);
    server
        .fetch(&Ask::get("/bucket/empty").header("Range", "bytes=0-0"))
        .assert_s3_error(416, "InvalidRange");
    server
        .fetch(&Ask::get("/bucket/empty").header("Range", "bytes=-1"))
        .assert_s3_error(416, "InvalidRange");
    server.finish();
}

#[test]
fn a_range_over_stripe_borders_is_whole_cold_and_warm() {
    let store = Store::new();
    let length = 40 * MIB + 13;
    store.insert("/bucket/k", Object::tile(22, length));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(22);
    let spans = [
        (8 * MIB - 1, 8 * MIB + 1),
        (8 * MIB, 16 * MIB),
        (3, 33 * MIB),
        (length - 1, length),
        (32 * MIB - 5, length),
        (0, length),
    ];
    for (first, end) in spans {
        let response = server.fetch(&Ask::get("/bucket/k").range(first, end));
        assert_eq!(response.status(), 206);
        response.assert_body(&tile, first, end);
        let again = server.fetch(&Ask::get("/bucket/k").range(first, end));
        assert_eq!(again.cache_word(), "HIT", "{first}..{end}");
        again.assert_body(&tile, first, end);
    }
    server.finish();
}

#[test]
fn semantics_5_what_is_there_is_not_fetched_again() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(23, 24 * MIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(23);
    let middle = server.fetch(&Ask::get("/bucket/k").range(8 * MIB, 16 * MIB));
    middle.assert_body(&tile, 8 * MIB, 16 * MIB);
    let whole = server.get("/bucket/k");
    assert_eq!((whole.status(), whole.cache_word()), (200, "PARTIAL"));
    whole.assert_body(&tile, 0, 24 * MIB);
    store.assert_sent_once("/bucket/k");
    server.finish();
}

#[test]
fn forty_readers_of_different_ranges_each_get_their_own_bytes() {
    let store = Store::new();
    let length = 32 * MIB;
    store.insert("/bucket/k", Object::tile(24, length));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let tile = Tile::new(24);
    std::thread::scope(|scope| {
        for reader in 0..40u64 {
            let (server, tile) = (&server, &tile);
            scope.spawn(move || {
                let mut connection = server.connect();
                for step in 0..6 {
                    let first = (reader * 977_551 + step * 5_333_333) % (length - 1);
                    let end = (first + 1 + (reader * step * 131_071) % (3 * MIB)).min(length);
                    let response = connection.exchange(&Ask::get("/bucket/k").range(first, end));
                    assert_eq!(response.status(), 206);
                    response.assert_body(tile, first, end);
                }
            });
        }
    });
    server.finish();
}

#[test]
fn head_is_answered_from_what_a_get_brought() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(25, 70_000));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let cold = server.fetch(&Ask::head("/bucket/k"));
    assert_eq!(
        (cold.status(), cold.head.content_length(), cold.body.len()),
        (200, Some(70_000), 0)
    );
    server.get("/bucket/k");
    let asked = origin.requests();
    let warm = server.fetch(&Ask::head("/bucket/k"));
    assert_eq!(
        (warm.status(), warm.cache_word(), warm.head.content_length()),
        (200, "HIT", Some(70_000))
    );
    assert_eq!(origin.requests(), asked);
    server.finish();
}

#[test]
fn semantics_6_with_ttl_zero_every_read_asks_and_costs_no_body() {
    // (2F.108)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"one"));
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    assert_eq!(server.get("/bucket/k").text(), "one");
    let again = server.get("/bucket/k");
    assert_eq!(
        (again.text().as_str(), again.cache_word()),
        ("one", "REVALIDATED")
    );
    assert_eq!((origin.requests(), store.body_bytes()), (2, 3));
    store.insert("/bucket/k", Object::bytes(b"two"));
    let second = server.get("/bucket/k");
    assert_eq!(
        (second.text().as_str(), second.cache_word()),
        ("two", "EXPIRED")
    );
    assert_eq!((origin.requests(), store.body_bytes()), (3, 6));
    server.finish();
}

#[test]
fn semantics_7_a_copy_is_not_served_past_its_ttl() {
    // (2A.10, 2F.105)
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"old"));
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "1s"])
        .start(origin.address);
    assert_eq!(server.get("/bucket/k").text(), "old");
    store.insert("/bucket/k", Object::bytes(b"new"));
    wait_until("the new object is seen", Duration::from_secs(3), || {
        let response = server.get("/bucket/k");
        let age: u64 = response
            .header("age")
            .map_or(0, |age| age.parse().expect("a number"));
        assert!(age <= 1, "served at age {age}");
        response.text() == "new"
    });
    let asked = origin.requests();
    assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
    assert_eq!(
        origin.requests(),
        asked,
        "the refreshed copy is fresh again"
    );
    server.finish();
}

#[test]
fn heavy_a_gibibyte_is_right_full_ranged_and_concurrent() {
    let store = Store::new();
    store.insert("/bucket/big", Object::tile(26, GIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .shards(2)
        .ram("1536MiB")
        .start(origin.address);
    let tile = Tile::new(26);
    let mut connection = server.connect();
    connection.send_ask(&Ask::get("/bucket/big"));
    let head = connection.head().expect("a head");
    assert_eq!(head.header("x-cache-status"), Some("MISS"));
    assert_eq!(connection.check_body(&head, &tile, 0), Ok(GIB));
    store.assert_sent_once("/bucket/big");
    let asked = origin.requests();
    std::thread::scope(|scope| {
        for reader in 0..4u64 {
            let (server, tile) = (&server, &tile);
            scope.spawn(move || {
                let (first, end) = (reader * 100 * MIB + reader, GIB - reader * 7);
                let mut connection = server.connect();
                connection.send_ask(&Ask::get("/bucket/big").range(first, end));
                let head = connection.head().expect("a head");
                assert_eq!(head.header("x-cache-status"), Some("HIT"));
                assert_eq!(connection.check_body(&head, tile, first), Ok(end - first));
            });
        }
    });
    assert_eq!(origin.requests(), asked, "a warm gibibyte asked the origin");
    drop(connection);
    server.finish();
}

#[test]
fn heavy_a_gibibyte_of_a_verifying_origin_has_its_checksum() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let tile = Tile::new(27);
    origin.put_tile("/bucket/big", &tile, GIB);
    let server = Millrace::setup().ram("1536MiB").start(origin.address);
    let signer = origin.signer(server.door);
    let expected = tile.sha256_hex(0, GIB);
    for word in ["MISS", "HIT"] {
        origin.reset_stats();
        let mut connection: Connection = server.connect();
        connection.patience(Duration::from_secs(60));
        connection.send_ask(&signer.sign(Ask::get("/bucket/big")));
        let head = connection.head().expect("a head");
        assert_eq!(
            (head.status(), head.header("x-cache-status")),
            (200, Some(word))
        );
        let mut digest = Digest::new();
        let framing = crate::harness::client::framing("GET", &head);
        assert_eq!(
            connection
                .reader
                .body(framing, |piece| digest.update(piece)),
            Ok(GIB)
        );
        assert_eq!(digest.hex(), expected);
        let sent = origin.stats().body_bytes_sent;
        assert_eq!(sent, if word == "MISS" { GIB } else { 0 });
    }
    server.finish();
}

#[test]
fn a_read_across_many_small_pieces_and_gaps_is_whole() {
    let store = Store::new();
    store.insert("/bucket/pieces", Object::tile(77, 10_000));
    let tile = Tile::new(77);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[fill]\njoin = 0")
        .start(origin.address);
    for start in (0..10_000).step_by(1000) {
        let piece = server.fetch(&Ask::get("/bucket/pieces").range(start, start + 300));
        piece.assert_body(&tile, start, start + 300);
    }
    let whole = server.get("/bucket/pieces");
    assert_eq!((whole.status(), whole.cache_word()), (200, "PARTIAL"));
    whole.assert_body(&tile, 0, 10_000);
    store.assert_sent_once("/bucket/pieces");
    server.finish();
}

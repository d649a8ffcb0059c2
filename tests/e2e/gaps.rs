//! What is missing of an object, and how it is asked for: gaps joined and fetched side by side, small ranges widened to pages, bytes fetched ahead of a
//! client that reads in order.

use crate::harness::store::Object;
use crate::harness::stub::Seen;
use crate::harness::{Ask, KIB, MIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};

const PATH: &str = "/bucket/k";

/// Ranges that an origin was asked for, in the order of arrival.
fn ranges(origin: &Stub, from: usize) -> Vec<String> {
    let range = |seen: &Seen| seen.header("range").unwrap_or("none").to_owned();
    origin.seen()[from..].iter().map(range).collect()
}

fn sorted(mut ranges: Vec<String>) -> Vec<String> {
    ranges.sort();
    ranges
}

fn read(server: &Millrace, tile: &Tile, first: u64, end: u64) -> String {
    let response = server.fetch(&Ask::get(PATH).range(first, end));
    assert_eq!(response.status(), 206, "{}", response.text());
    response.assert_body(tile, first, end);
    response.cache_word().to_owned()
}

#[test]
fn semantics_110_near_gaps_are_one_request_and_far_ones_come_side_by_side() {
    let store = Store::new();
    store.insert(PATH, Object::tile(110, 6 * MIB));
    let tile = Tile::new(110);
    let origin = store.serve();
    let setup = |join: &str| Millrace::setup().settings(&format!("[fill]\njoin = '{join}'"));
    for (join, wanted) in [
        (
            "64KiB",
            vec![
                "bytes=0-1048575",
                "bytes=1310720-4194303",
                "bytes=4456448-6291455",
            ],
        ),
        ("1MiB", vec!["bytes=0-6291455"]),
        (
            "0",
            vec![
                "bytes=0-1048575",
                "bytes=1310720-2097151",
                "bytes=2162688-4194303",
                "bytes=4456448-6291455",
            ],
        ),
    ] {
        let server = setup(join).start(origin.address);
        // 256 KiB, 64 KiB and 256 KiB are there.
        for (first, bytes) in [(MIB, 256), (2 * MIB, 64), (4 * MIB, 256)] {
            read(&server, &tile, first, first + bytes * KIB);
        }
        let before = origin.requests();
        let whole = server.get(PATH);
        assert_eq!((whole.status(), whole.cache_word()), (200, "PARTIAL"));
        whole.assert_body(&tile, 0, 6 * MIB);
        assert_eq!(sorted(ranges(&origin, before)), wanted, "join = {join}");
        let etag = store.object(PATH).expect("it").etag;
        for seen in &origin.seen()[before..] {
            assert_eq!(seen.header("if-match"), Some(&*etag));
        }
        assert_eq!(server.get(PATH).cache_word(), "HIT");
        server.finish();
    }
}

#[test]
fn gaps_of_one_stripe_are_asked_for_before_the_first_has_come() {
    let store = Store::new();
    store.insert(PATH, Object::tile(111, 4 * MIB));
    let tile = Tile::new(111);
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    read(&server, &tile, MIB, 2 * MIB);
    let before = origin.requests();
    // No byte leaves the origin: who waits for the first gap must have asked for the second.
    store.shut_gate(0);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| server.get(PATH));
        wait_until("both gaps are asked for", PATIENCE, || {
            origin.requests() == before + 2
        });
        store.open_gate();
        reader
            .join()
            .expect("a reader")
            .assert_body(&tile, 0, 4 * MIB);
    });
    assert_eq!(
        sorted(ranges(&origin, before)),
        ["bytes=0-1048575", "bytes=2097152-4194303"]
    );
    store.assert_sent_once(PATH);
    server.finish();
}

#[test]
fn what_is_fetched_again_between_gaps_is_of_no_other_version() {
    // (2B.48)
    let store = Store::new();
    store.insert(PATH, Object::tile(112, MIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let old = Tile::new(112);
    for step in 0..8 {
        let first = step * 100_000 + 50_000;
        read(&server, &old, first, first + 1000);
    }
    store.insert(PATH, Object::tile(113, MIB));
    // The gaps are of the new version: all of the answer is.
    let whole = server.get(PATH);
    assert_eq!(whole.status(), 200);
    whole.assert_body(&Tile::new(113), 0, MIB);
    server.finish();
}

#[test]
fn semantics_111_a_small_unsigned_range_fetches_its_page() {
    // (2C.70)
    let store = Store::new();
    let length = 20 * MIB + 5;
    store.insert(PATH, Object::tile(114, length));
    store.insert("/bucket/empty", Object::bytes(b""));
    store.insert("/other/k", Object::tile(114, length));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[[rule]]\nmatch = 'bucket/**'\npage = '1MiB'")
        .start(origin.address);
    let tile = Tile::new(114);
    let mut before = 0;
    let mut next = |wanted: &[&str]| {
        assert_eq!(ranges(&origin, before), wanted);
        before = origin.requests();
    };
    // Cold, in the middle of a page; then all of the page is there.
    assert_eq!(read(&server, &tile, 100_000, 100_010), "MISS");
    next(&["bytes=0-1048575"]);
    assert_eq!(read(&server, &tile, 0, MIB), "HIT");
    // Known: over two pages, of which one is there.
    assert_eq!(read(&server, &tile, MIB - 1, MIB + 1), "PARTIAL");
    next(&["bytes=1048576-2097151"]);
    // The last page ends with the object.
    assert_eq!(read(&server, &tile, length - 1, length), "MISS");
    next(&[&format!("bytes={}-{}", 20 * MIB, length - 1)]);
    let last = server.fetch(&Ask::get(PATH).header("Range", "bytes=-7"));
    last.assert_body(&tile, length - 7, length);
    next(&[&format!("bytes={}-{}", 19 * MIB, 20 * MIB - 1)]);
    // Over the border of two stripes.
    assert_eq!(read(&server, &tile, 8 * MIB - 3, 8 * MIB + 3), "MISS");
    let mut asked = ranges(&origin, before);
    asked.sort();
    assert_eq!(asked, ["bytes=7340032-8388607", "bytes=8388608-9437183"]);
    before = origin.requests();
    let mut next = |wanted: &[&str]| {
        assert_eq!(ranges(&origin, before), wanted);
        before = origin.requests();
    };
    // Not a small one, and one that is signed: as they are.
    assert_eq!(read(&server, &tile, 3 * MIB + 1, 5 * MIB), "MISS");
    next(&["bytes=3145729-5242879"]);
    let signed = "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders=host;range, Signature=00";
    let ask = Ask::get(PATH)
        .range(6 * MIB + 1, 6 * MIB + 2)
        .header("Authorization", signed);
    server
        .fetch(&ask)
        .assert_body(&tile, 6 * MIB + 1, 6 * MIB + 2);
    next(&["bytes=6291457-6291457"]);
    // Where the rule does not say so: as it is.
    let other = server.fetch(&Ask::get("/other/k").range(10, 20));
    other.assert_body(&tile, 10, 20);
    next(&["bytes=10-19"]);
    // Beyond the object, and of one without a byte.
    for (path, range) in [
        (PATH, "bytes=99999999-99999999"),
        ("/bucket/empty", "bytes=0-0"),
    ] {
        let response = server.fetch(&Ask::get(path).header("Range", range));
        response.assert_s3_error(416, "InvalidRange");
    }
    server.finish();
    let cold = Millrace::setup()
        .settings("[cache]\npage = '1MiB'")
        .start(origin.address);
    // The page has bytes, the range has none.
    let late = Ask::get(PATH).range(length + 1, length + 2);
    cold.fetch(&late).assert_s3_error(416, "InvalidRange");
    assert_eq!(read(&cold, &tile, length - 1, length), "HIT");
    cold.fetch(&Ask::get(PATH).range(21 * MIB, 21 * MIB + 2))
        .assert_s3_error(416, "InvalidRange");
    cold.finish();
}

#[test]
fn a_page_is_finished_though_its_reader_has_left() {
    let store = Store::new();
    store.insert(PATH, Object::tile(115, 16 * MIB));
    store.limit_rate(4 * MIB);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\npage = '4MiB'")
        .start(origin.address);
    let tile = Tile::new(115);
    assert_eq!(read(&server, &tile, 0, 10), "MISS");
    wait_until("the page is there", PATIENCE, || {
        store.sent(PATH) == [(0, 4 * MIB)]
    });
    assert_eq!(read(&server, &tile, 4 * MIB - 10, 4 * MIB), "HIT");
    assert_eq!(origin.requests(), 1);
    server.finish();
}

/// Reads pieces in order, each of them once.
fn read_in_order(
    server: &Millrace,
    tile: &Tile,
    pieces: std::ops::Range<u64>,
    bytes: u64,
) -> usize {
    let mut connection = server.connect();
    let mut hits = 0;
    for piece in pieces {
        let (first, end) = (piece * bytes, (piece + 1) * bytes);
        let response = connection.exchange(&Ask::get(PATH).range(first, end));
        response.assert_body(tile, first, end);
        hits += usize::from(response.cache_word() == "HIT");
    }
    hits
}

#[test]
fn semantics_112_bytes_are_fetched_ahead_of_who_reads_in_order() {
    let store = Store::new();
    let length = 8 * MIB;
    store.insert(PATH, Object::tile(116, length));
    let tile = Tile::new(116);
    let origin = store.serve();
    for (shards, read_ahead) in [(1, true), (2, true), (1, false)] {
        let sent = store.body_bytes();
        let asked = origin.requests();
        let setting = if read_ahead {
            "read_ahead = '2MiB'"
        } else {
            ""
        };
        let server = Millrace::setup()
            .shards(shards)
            .settings(&format!(
                "[[rule]]\nmatch = 'bucket/**'\nttl = '1h'\n{setting}"
            ))
            .start(origin.address);
        read_in_order(&server, &tile, 0..128, 64 * KIB);
        let requests = origin.requests() - asked;
        match read_ahead {
            true => assert!(requests <= 20, "{requests} requests for 128 pieces"),
            false => assert_eq!(requests, 128),
        }
        assert_eq!(store.body_bytes() - sent, length, "each byte once");
        assert_eq!(
            server.metrics().sum("millrace_fills_read_ahead_total", &[]) > 0.0,
            read_ahead
        );
        assert_eq!(server.get(PATH).cache_word(), "HIT");
        server.finish();
    }
}

#[test]
fn who_does_not_read_in_order_has_nothing_fetched_ahead() {
    let store = Store::new();
    store.insert(PATH, Object::tile(117, 32 * MIB));
    let tile = Tile::new(117);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\nread_ahead = '8MiB'")
        .start(origin.address);
    for step in 0..20u64 {
        let first = step * 7_654_321 % (32 * MIB - KIB);
        read(&server, &tile, first, first + KIB);
    }
    assert_eq!(store.body_bytes(), 20 * KIB);
    // A signed range is asked for as it is signed, and tells nothing of others.
    let signed = "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders=host;range, Signature=00";
    for piece in 0..8u64 {
        let ask = Ask::get(PATH).range(MIB + piece * KIB, MIB + (piece + 1) * KIB);
        server.fetch(&ask.header("Authorization", signed));
    }
    assert_eq!(
        server.metrics().sum("millrace_fills_read_ahead_total", &[]),
        0.0
    );
    server.finish();
}

#[test]
fn what_was_fetched_ahead_is_given_up_when_its_reader_stops() {
    let store = Store::new();
    store.insert(PATH, Object::tile(118, 64 * MIB));
    let tile = Tile::new(118);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\nread_ahead = '32MiB'\n[fill]\nwindow = '8MiB'")
        .start(origin.address);
    store.shut_gate(3 * MIB);
    read_in_order(&server, &tile, 0..4, 64 * KIB);
    let fetching = || server.metrics().sum("millrace_fills_in_flight", &[]);
    wait_until("it is fetched ahead", PATIENCE, || fetching() > 0.0);
    store.open_gate();
    store.limit_rate(256 * KIB);
    // Of one stripe more than half was there: that one is finished.
    wait_until("it is given up", PATIENCE, || fetching() <= 1.0);
    store.limit_rate(0);
    wait_until("it is finished", PATIENCE, || fetching() == 0.0);
    assert!(
        store.body_bytes() < 32 * MIB,
        "{} bytes",
        store.body_bytes()
    );
    server.finish();
}

//! Many clients, one cold object: each byte leaves the origin once, nobody waits for
//! the whole, and who leaves takes nothing from the others.

use crate::harness::store::Object;
use crate::harness::{Ask, Connection, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// `count` readers of `path`, each checked byte by byte; `all_begun` runs when each has its first byte.
fn herd(
    server: &Millrace,
    tile: &Tile,
    ask: &Ask,
    span: (u64, u64),
    count: usize,
    all_begun: impl FnOnce(),
) {
    let begun = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..count {
            let begun = &begun;
            scope.spawn(move || {
                let mut connection = server.connect();
                connection.patience(Duration::from_secs(60));
                connection.send_ask(ask);
                let head = connection.head().expect("a head");
                assert!(matches!(head.status(), 200 | 206), "{head:?}");
                connection.reader.first_byte().expect("a first byte");
                begun.fetch_add(1, Ordering::AcqRel);
                assert_eq!(
                    connection.check_body(&head, tile, span.0),
                    Ok(span.1 - span.0)
                );
            });
        }
        wait_until("every client has its first byte", PATIENCE * 2, || {
            begun.load(Ordering::Acquire) == count
        });
        all_begun();
    });
}

#[test]
fn semantics_8_heavy_a_hundred_readers_of_one_cold_object_cost_each_byte_once() {
    // (2G.115, 2G.116, 2F.113)
    let length = 100 * MIB;
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(30, length));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    // The origin keeps the last byte back until every client has its first.
    store.shut_gate(length - 1);
    herd(
        &server,
        &Tile::new(30),
        &Ask::get("/bucket/k"),
        (0, length),
        100,
        || {
            assert!(
                store.body_bytes() < length,
                "the fill was done before every client began"
            );
            store.open_gate();
        },
    );
    store.assert_sent_once("/bucket/k");
    server.finish();
}

#[test]
fn semantics_9_readers_of_one_signed_range_cost_one_request() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(31, 64 * MIB));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let (first, end) = (5 * MIB + 1, 23 * MIB + 2);
    let signed = Ask::get("/bucket/k").range(first, end).header(
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=A/20260812/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-date, Signature=0",
    );
    store.shut_gate(end - 1);
    herd(&server, &Tile::new(31), &signed, (first, end), 30, || {
        store.open_gate()
    });
    assert_eq!(origin.requests(), 1, "{:?}", origin.seen());
    assert_eq!(
        origin.seen()[0].header("range"),
        Some(format!("bytes={first}-{}", end - 1).as_str())
    );
    assert_eq!(store.sent("/bucket/k"), [(first, end)]);
    server.finish();
}

#[test]
fn who_joins_late_gets_the_whole_and_costs_nothing() {
    let length = 16 * MIB;
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(32, length));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(32);
    store.shut_gate(6 * MIB);
    let mut early = server.connect();
    early.send_ask(&Ask::get("/bucket/k"));
    let early_head = early.head().expect("a head");
    early.reader.first_byte().expect("a byte");
    let mut late = server.connect();
    late.send_ask(&Ask::get("/bucket/k"));
    let late_head = late.head().expect("a head");
    late.reader
        .first_byte()
        .expect("the late reader begins while the fill stands still");
    store.open_gate();
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(early.check_body(&early_head, &tile, 0), Ok(length)));
        assert_eq!(late.check_body(&late_head, &tile, 0), Ok(length));
    });
    store.assert_sent_once("/bucket/k");
    drop((early, late));
    server.finish();
}

#[test]
fn semantics_10_who_asked_first_may_leave_and_the_others_read_on() {
    // (2G.117, 2J.172)
    let length = 8 * MIB;
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(33, length));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let tile = Tile::new(33);
    store.shut_gate(MIB);
    let mut first = server.connect();
    first.send_ask(&Ask::get("/bucket/k"));
    first.head().expect("a head");
    first.reader.first_byte().expect("a byte");
    let mut others: Vec<Connection> = (0..5).map(|_| server.connect()).collect();
    let heads: Vec<_> = others
        .iter_mut()
        .map(|other| {
            other.send_ask(&Ask::get("/bucket/k"));
            let head = other.head().expect("a head");
            other.reader.first_byte().expect("a byte");
            head
        })
        .collect();
    first.reset();
    wait_until("the first is gone", PATIENCE, || {
        server.metrics().sum("millrace_connections_open", &[]) as usize == others.len()
    });
    store.open_gate();
    std::thread::scope(|scope| {
        for (other, head) in others.iter_mut().zip(&heads) {
            let tile = &tile;
            scope.spawn(move || assert_eq!(other.check_body(head, tile, 0), Ok(length)));
        }
    });
    store.assert_sent_once("/bucket/k");
    drop(others);
    server.finish();
}

/// The value of `reading` once it has not changed for half a second.
fn settled(mut reading: impl FnMut() -> u64) -> u64 {
    let (mut value, mut since) = (reading(), Instant::now());
    wait_until("the value settles", PATIENCE, || {
        let now = reading();
        if now != value {
            (value, since) = (now, Instant::now());
        }
        since.elapsed() > Duration::from_millis(500)
    });
    value
}

#[test]
fn semantics_11_a_fill_runs_no_further_ahead_than_its_window() {
    // (2J.170, 2J.171)
    let length = 200 * MIB;
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(34, length));
    let origin = store.serve();
    let server = Millrace::setup().start(origin.address);
    let mut reader = Connection::open_narrow(server.door, 16 << 10);
    reader.send_ask(&Ask::get("/bucket/k"));
    let head = reader.head().expect("a head");
    let ahead = settled(|| store.body_bytes());
    // The window, and what the sockets between hold.
    assert!(
        ahead <= 80 * MIB,
        "the origin sent {} MiB to a reader that reads nothing",
        ahead / MIB
    );
    assert_eq!(reader.check_body(&head, &Tile::new(34), 0), Ok(length));
    drop(reader);
    server.finish();
}

#[test]
fn readers_of_different_objects_do_not_wait_for_each_other() {
    let store = Store::new();
    store.insert("/bucket/stuck", Object::tile(35, 8 * MIB));
    store.insert("/bucket/small", Object::tile(36, 1_000));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    store.shut_gate(MIB);
    let mut stuck = server.connect();
    stuck.send_ask(&Ask::get("/bucket/stuck"));
    let head = stuck.head().expect("a head");
    server
        .get("/bucket/small")
        .assert_body(&Tile::new(36), 0, 1_000);
    assert_eq!(server.get("/bucket/small").cache_word(), "HIT");
    store.open_gate();
    assert_eq!(stuck.check_body(&head, &Tile::new(35), 0), Ok(8 * MIB));
    drop(stuck);
    server.finish();
}

#[test]
fn a_stripe_fetched_ahead_stays_until_its_reader_comes() {
    // The slab is far smaller than the object, and the reader slower than the origin.
    let length = 192 * MIB;
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(37, length));
    let origin = store.serve();
    let server = Millrace::setup()
        .shards(1)
        .ram("64MiB")
        .start(origin.address);
    let mut reader = Connection::open_narrow(server.door, 64 << 10);
    reader.patience(PATIENCE * 3);
    reader.send_ask(&Ask::get("/bucket/k"));
    let head = reader.head().expect("a head");
    assert_eq!(reader.check_body(&head, &Tile::new(37), 0), Ok(length));
    store.assert_sent_once("/bucket/k");
    drop(reader);
    server.finish();
}

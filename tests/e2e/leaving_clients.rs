//! Clients that leave at any moment: what was held for them is back within a second,
//! and the object they left is served to the next one. (2A.22, 2G.117, 2L.200)

use crate::harness::store::Object;
use crate::harness::{Ask, Connection, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::time::{Duration, Instant};

const LENGTH: u64 = 32 * MIB;

fn warm_server() -> (Store, crate::harness::Stub, Millrace) {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(80, LENGTH));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    server
        .get("/bucket/k")
        .assert_body(&Tile::new(80), 0, LENGTH);
    (store, origin, server)
}

/// Leaves by reset or by close, in turn.
fn leave(connection: Connection, turn: u32) {
    if turn.is_multiple_of(2) {
        connection.reset();
    }
}

#[test]
fn semantics_32_who_leaves_amid_a_hit_leaves_nothing_behind() {
    let (_store, _origin, server) = warm_server();
    server.assert_nothing_held();
    let descriptors = server
        .metrics()
        .sum("millrace_process_open_descriptors", &[]);
    for turn in 0..40 {
        let mut connection = Connection::open_narrow(server.door, 32 << 10);
        connection.send_ask(&Ask::get("/bucket/k"));
        if turn % 4 != 3 {
            connection.head().expect("a head");
            connection.reader.first_byte().expect("a first byte");
        }
        leave(connection, turn);
    }
    server.assert_nothing_held();
    wait_until("descriptors are back", Duration::from_secs(2), || {
        server
            .metrics()
            .sum("millrace_process_open_descriptors", &[])
            <= descriptors + 4.0
    });
    let used = server.metrics().sum("millrace_ram_used_bytes", &[]);
    assert!(used <= 64.0 * MIB as f64, "slots leak: {used} bytes in use");
    server
        .get("/bucket/k")
        .assert_body(&Tile::new(80), 0, LENGTH);
    server.finish();
}

#[test]
fn semantics_33_who_leaves_amid_a_miss_leaves_nothing_behind() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for turn in 0..12u32 {
        let path = format!("/bucket/k{turn}");
        store.insert(&path, Object::tile(u64::from(turn), LENGTH));
        store.shut_gate(5 * MIB);
        let mut connection = server.connect();
        connection.send_ask(&Ask::get(&path));
        connection.head().expect("a head");
        connection.reader.first_byte().expect("a first byte");
        leave(connection, turn);
        wait_until("the server noticed", PATIENCE, || {
            server.metrics().sum("millrace_connections_open", &[]) == 0.0
        });
        store.open_gate();
        server.assert_nothing_held();
        server
            .get(&path)
            .assert_body(&Tile::new(u64::from(turn)), 0, LENGTH);
    }
    server.finish();
}

#[test]
fn who_leaves_before_the_origin_answered_leaves_nothing_behind() {
    let origin = crate::harness::Stub::start(|_, wire| wire.hang());
    let server = Millrace::setup()
        .settings("[upstream]\nfirst_byte_timeout = \"800ms\"\nretries = 0")
        .start(origin.address);
    for turn in 0..10u32 {
        let target = if turn % 3 == 0 {
            "/bucket?list-type=2".into()
        } else {
            format!("/bucket/k{turn}")
        };
        let mut connection = server.connect();
        connection.send_ask(&Ask::get(&target));
        wait_until("the origin is asked", PATIENCE, || {
            origin.requests() > turn as usize
        });
        leave(connection, turn);
    }
    wait_until(
        "nothing is held once the origin timed out",
        Duration::from_secs(4),
        || server.metrics().held().is_empty(),
    );
    server.finish();
}

#[test]
fn who_leaves_amid_an_upload_or_a_listing_leaves_nothing_behind() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(81, LENGTH));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    for turn in 0..10u32 {
        let mut upload = server.connect();
        upload.send(
            "PUT /bucket/up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nsome bytes",
        );
        wait_until("the upload is under way", PATIENCE, || {
            server
                .metrics()
                .sum("millrace_upstream_connections_active", &[])
                > 0.0
        });
        leave(upload, turn);
        let mut passed = Connection::open_narrow(server.door, 32 << 10);
        passed.send_ask(&Ask::get("/bucket/k?versionId=1"));
        passed.head().expect("a head");
        leave(passed, turn + 1);
        server.assert_nothing_held();
    }
    assert!(store.object("/bucket/up").is_none());
    server.finish();
}

#[test]
fn heavy_many_cancels_cost_no_slot_and_no_descriptor() {
    let cancels = if std::env::var_os("MILLRACE_TEST_FULL").is_some() {
        10_000
    } else {
        600
    };
    let (store, _origin, server) = warm_server();
    let begun = Instant::now();
    for turn in 0..cancels {
        let mut connection = Connection::open_narrow(server.door, 16 << 10);
        let ask = match turn % 3 {
            0 => Ask::get("/bucket/k"),
            1 => Ask::get("/bucket/k").range(u64::from(turn) * 1_000, LENGTH),
            _ => {
                let path = format!("/bucket/cold{}", turn % 50);
                store.insert(&path, Object::tile(u64::from(turn % 50), MIB));
                Ask::get(&path)
            }
        };
        connection.send_ask(&ask);
        if turn % 5 != 0 {
            let _ = connection.head();
        }
        leave(connection, turn);
    }
    println!("{cancels} cancels in {:?}", begun.elapsed());
    server.assert_nothing_held();
    let metrics = server.metrics();
    assert_eq!(
        metrics.sum("millrace_ram_allocation_failures_total", &[]),
        0.0
    );
    assert!(metrics.sum("millrace_process_open_descriptors", &[]) < 300.0);
    server
        .get("/bucket/k")
        .assert_body(&Tile::new(80), 0, LENGTH);
    server.finish();
}

/// Sends until the other side's kernel takes no more, `most` at most, while nobody reads; how much it has taken.
fn fill_up(upload: &Connection, most: usize) -> usize {
    use std::io::{ErrorKind, Write};
    let mut stream = &upload.reader.stream;
    stream.set_nonblocking(true).expect("non-blocking");
    let piece = [7u8; 64 << 10];
    let (mut given, mut taken, mut since) = (0, 0, Instant::now());
    while taken < most && since.elapsed() < Duration::from_millis(300) {
        let next = &piece[..piece.len().min(most - given)];
        match stream.write(next) {
            Ok(bytes) => given += bytes,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
        }
        let now = given.saturating_sub(crate::harness::wire::unsent(stream) as usize);
        if now > taken {
            (taken, since) = (now, Instant::now());
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    stream.set_nonblocking(false).expect("blocking");
    taken
}

/// The origin takes nothing, and so nothing is read of the client either.
#[test]
fn who_leaves_an_upload_that_stands_still_is_noticed_at_once() {
    let origin = crate::harness::Stub::start(|_, wire| {
        while !wire.is_stopping() {
            std::thread::sleep(Duration::from_millis(10));
        }
        crate::harness::stub::After::Close
    });
    let server = Millrace::start(origin.address);
    let begin = |number: usize| {
        let mut upload = server.connect();
        upload.send("PUT /bucket/up HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n");
        wait_until("the upload is under way", PATIENCE, || {
            origin.requests() == number
        });
        upload
    };
    let upload = begin(1);
    let mut fits = fill_up(&upload, 64 << 20);
    upload.reset();
    server.assert_nothing_held();
    // So little that its end gets through behind it, and more than the origin's side takes. What fits is not the same each time.
    for number in 2.. {
        let upload = begin(number);
        let wanted = fits - (64 << 10);
        fits = fill_up(&upload, wanted);
        let all_taken = fits >= wanted;
        match all_taken {
            true => drop(upload),
            false => upload.reset(),
        }
        server.assert_nothing_held();
        if all_taken {
            break;
        }
    }
    server.finish();
}

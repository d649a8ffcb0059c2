//! How soon stale copies are there while their origin is not. Figures go to standard error; what is asserted is loose, for busy machines.

use crate::disk::await_folded;
use crate::harness::millrace::{Scratch, Setup};
use crate::harness::store::Object;
use crate::harness::stub::{Seen, Wire};
use crate::harness::{Ask, Connection, KIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const OBJECTS: u64 = 500;
const SIZES: [u64; 5] = [1, 900, 16 * KIB, 100 * KIB, 700 * KIB];

fn path(number: u64) -> String {
    format!("/bucket/{number}")
}

fn size(number: u64) -> u64 {
    SIZES[(number % 5) as usize]
}

fn setup() -> Setup {
    Millrace::setup().shards(2).settings(
        "[cache]\nttl = '200ms'\nstale_if_error = '1h'\n[upstream]\nkeepalive = '0s'\nfirst_byte_timeout = '4s'\n",
    )
}

fn filled() -> Store {
    let store = Store::new();
    for number in 0..OBJECTS {
        store.insert(&path(number), Object::tile(number, size(number)));
    }
    store
}

/// Milliseconds to the first byte of each answer, sorted; each is checked to its last byte.
fn first_bytes(connection: &mut Connection, numbers: impl Iterator<Item = u64>) -> Vec<f64> {
    let mut waited: Vec<f64> = numbers
        .map(|number| {
            let begun = Instant::now();
            connection.send_ask(&Ask::get(&path(number)));
            let head = connection.head().expect("a head");
            let waited = begun.elapsed().as_secs_f64() * 1000.0;
            assert_eq!(head.status(), 200);
            assert_eq!(head.header("x-cache-status"), Some("STALE"));
            let body = connection.body("GET", &head).expect("a body");
            assert_eq!(body.len() as u64, size(number));
            assert!(Tile::new(number).holds(0, &body));
            waited
        })
        .collect();
    waited.sort_by(f64::total_cmp);
    waited
}

/// Asserts loosely and says what it was.
#[track_caller]
fn assert_quick(what: &str, waited: &[f64]) {
    let at = |share: f64| waited[((waited.len() - 1) as f64 * share) as usize];
    let (half, most, all) = (at(0.5), at(0.99), at(1.0));
    eprintln!(
        "first byte of {} stale reads {what}: p50 {half:.3} ms, p99 {most:.3} ms, max {all:.3} ms",
        waited.len()
    );
    assert!(half < 30.0, "p50 {half} ms {what}");
    assert!(most < 300.0, "p99 {most} ms {what}");
}

#[test]
fn semantics_151_stale_copies_in_ram_and_on_disk_are_there_within_milliseconds() {
    let (store, folder) = (filled(), Scratch::new());
    let origin = store.serve();
    let with_disk = || {
        let setup = setup().cache_dir(&folder.path);
        setup.arguments(&["--disk", "512MiB"])
    };
    let server = with_disk().start(origin.address);
    let mut connection = server.connect();
    for number in 0..OBJECTS {
        connection.exchange(&Ask::get(&path(number)));
    }
    wait_until("all is on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]);
        gauge("heads") >= OBJECTS as f64
            && gauge("extents") >= OBJECTS as f64
            && gauge("queued_bytes") == 0.0
    });
    let address = origin.address;
    drop(origin);
    std::thread::sleep(Duration::from_millis(250));
    let from_ram = first_bytes(&mut connection, (0..3000).map(|turn| turn * 7 % OBJECTS));
    assert_quick("from RAM", &from_ram);
    drop(connection);
    server.finish();
    let server = with_disk().start(address);
    await_folded(&server);
    let mut connection = server.connect();
    let from_disk = first_bytes(&mut connection, 0..OBJECTS);
    assert_quick("from disk, after a restart", &from_disk);
    let again = first_bytes(&mut connection, (0..1000).map(|turn| turn * 7 % OBJECTS));
    assert_quick("from RAM again", &again);
    drop(connection);
    server.finish();
}

/// Who comes while somebody waits for a silent origin waits no longer than that one.
#[test]
fn semantics_154_one_time_out_is_enough_for_all_who_have_a_copy() {
    let (store, silent) = (filled(), Arc::new(AtomicBool::new(false)));
    let (own, hangs) = (store.clone(), Arc::clone(&silent));
    let origin =
        Stub::start(
            move |seen: &mut Seen, wire: &mut Wire| match hangs.load(Ordering::Acquire) {
                true => wire.hang(),
                false => own.answer(seen, wire),
            },
        );
    let server = setup().start(origin.address);
    for number in 0..20 {
        server.get(&path(number));
    }
    silent.store(true, Ordering::Release);
    std::thread::sleep(Duration::from_millis(250));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let server = &server;
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(number * 180));
                let response = server.get(&path(number));
                assert_eq!(response.cache_word(), "STALE");
                response.assert_body(&Tile::new(number), 0, size(number));
            });
        }
    });
    let all = begun.elapsed();
    eprintln!(
        "20 readers of a silent origin, 180 ms apart, one time-out 4 s: all answered after {all:?}"
    );
    assert!(all < Duration::from_millis(6_500), "{all:?}");
    let mut connection = server.connect();
    let silent = first_bytes(&mut connection, (0..1000).map(|turn| turn % 20));
    assert_quick("while the origin is silent", &silent);
    drop(connection);
    wait_until("the last probe ends", PATIENCE, || {
        server.metrics().held().is_empty()
    });
    server.finish();
}

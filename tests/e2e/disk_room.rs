//! Room on disk: what it is given to, when it is given back, and that nobody who reads notices.

use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn start(dir: &Path, (shards, ram): (u32, &str), settings: &str, origin: SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(dir)
        .shards(shards)
        .ram(ram)
        .settings(settings)
        .arguments(&["--disk", "256MiB"])
        .start(origin)
}

/// Bytes of the filesystem that a folder takes with all that is in it.
fn taken_bytes(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let own = std::fs::metadata(dir).map_or(0, |folder| folder.blocks() * 512);
    let inside = entries.flatten().map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => taken_bytes(&entry.path()),
        _ => entry.metadata().map_or(0, |file| file.blocks() * 512),
    });
    own + inside.sum::<u64>()
}

fn count(server: &Millrace, name: &str) -> u64 {
    server.metrics().sum(&format!("millrace_disk_{name}"), &[]) as u64
}

#[track_caller]
fn read_new(server: &Millrace, store: &Store, (seed, length): (u64, u64)) {
    let path = format!("/bucket/object-{seed}");
    store.insert(&path, Object::tile(seed, length));
    let read = server.get(&path);
    read.assert_body(&Tile::new(seed), 0, length);
}

#[track_caller]
fn await_written(server: &Millrace) {
    wait_until("an empty queue", PATIENCE, || {
        count(server, "queued_bytes") == 0
    });
}

#[track_caller]
fn await_folded(server: &Millrace) {
    wait_until("the end of the fold", PATIENCE, || {
        count(server, "folding_shards") == 0
    });
}

#[test]
fn the_directory_is_never_larger_than_the_budget_while_it_fills() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let polls = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                most.fetch_max(taken_bytes(&folder.path), Ordering::Relaxed);
                polls.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        for shards in [2, 1] {
            let server = start(&folder.path, (shards, "64MiB"), "", origin.address);
            for seed in 0..250u64 {
                let length = [3 * KIB, 100 * KIB, 900 * KIB, 5 * MIB][seed as usize % 4];
                let first = u64::from(shards) * 10_000;
                read_new(&server, &store, (first + seed, length));
                // Some are read again and again: they are to be written again.
                let again = server.get(&format!("/bucket/object-{}", first + seed % 7));
                assert_eq!(again.status(), 200);
            }
            await_written(&server);
            server.finish();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let most = most.into_inner();
    assert!(most <= 256 * MIB, "{most} bytes were taken");
    assert!(most > 128 * MIB, "it never became full: {most}");
    assert!(polls.into_inner() > 100);
}

#[test]
fn semantics_87_what_is_hit_in_ram_stays_on_disk() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, (1, "512MiB"), "", origin.address);
    read_new(&server, &store, (7, 3 * MIB));
    for seed in 0..55 {
        read_new(&server, &store, (1000 + seed, 6 * MIB));
        assert_eq!(server.get("/bucket/object-7").cache_word(), "HIT");
        await_written(&server);
    }
    assert_eq!(
        count(&server, "loads_total"),
        0,
        "all hits were hits in RAM"
    );
    assert!(count(&server, "reclaimed_total") > 5);
    assert!(count(&server, "moved_bytes_total") >= 3 * MIB);
    server.kill();
    let server = start(&folder.path, (1, "512MiB"), "", origin.address);
    await_folded(&server);
    let asked = origin.requests();
    let hot = server.get("/bucket/object-7");
    hot.assert_body(&Tile::new(7), 0, 3 * MIB);
    assert_eq!((hot.cache_word(), origin.requests()), ("HIT", asked));
    let first_cold = server.get("/bucket/object-1000");
    assert_eq!(
        first_cold.cache_word(),
        "MISS",
        "it was in the same segment"
    );
    server.finish();
}

#[test]
fn semantics_88_expired_bytes_are_given_back_at_once_if_that_is_wanted() {
    let store = Store::new();
    let origin = store.serve();
    for expiry in ["active", "lazy"] {
        let folder = Scratch::new();
        let settings = format!("[cache]\nttl = \"3s\"\n[disk]\nexpiry = \"{expiry}\"");
        let server = start(&folder.path, (2, "256MiB"), &settings, origin.address);
        for seed in 0..12 {
            read_new(&server, &store, (seed, 4 * MIB));
        }
        await_written(&server);
        let full = taken_bytes(&folder.path);
        assert!(full > 48 * MIB);
        if expiry == "active" {
            wait_until("the room", PATIENCE, || {
                taken_bytes(&folder.path) < 16 * MIB
            });
            wait_until("an empty index", PATIENCE, || {
                count(&server, "extents") == 0 && count(&server, "heads") == 0
            });
        } else {
            std::thread::sleep(Duration::from_secs(9));
            assert!(taken_bytes(&folder.path) > 48 * MIB);
            assert_eq!(count(&server, "extents"), 12);
        }
        let again = server.get("/bucket/object-3");
        again.assert_body(&Tile::new(3), 0, 4 * MIB);
        server.finish();
    }
}

#[test]
fn what_is_fresh_in_a_segment_of_mostly_expired_bytes_stays() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let settings = "[cache]\nttl = \"6s\"\n[disk]\nexpiry = \"active\"";
    let server = start(&folder.path, (1, "256MiB"), settings, origin.address);
    // All in one segment of 16 MiB, of which the last is younger; what does not fit any more begins another.
    for seed in 0..6 {
        read_new(&server, &store, (seed, 2 * MIB));
    }
    std::thread::sleep(Duration::from_secs(3));
    read_new(&server, &store, (6, MIB));
    await_written(&server);
    read_new(&server, &store, (7, 5 * MIB));
    await_written(&server);
    wait_until("the end of the older ones", PATIENCE, || {
        count(&server, "moved_bytes_total") > 0
    });
    assert!(count(&server, "moved_bytes_total") >= MIB);
    wait_until("the end of all", PATIENCE, || {
        count(&server, "extents") == 0
    });
    server.finish();
}

#[test]
fn a_segment_that_goes_breaks_no_reader() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    const LENGTH: u64 = 40 * MIB;
    let server = start(&folder.path, (1, "64MiB"), "", origin.address);
    read_new(&server, &store, (1, LENGTH));
    await_written(&server);
    server.kill();
    let server = start(&folder.path, (1, "64MiB"), "", origin.address);
    await_folded(&server);
    let tile = Tile::new(1);
    let slow = || {
        let mut connection = crate::harness::Connection::open_narrow(server.door, 64 * 1024);
        connection.send_ask(&Ask::get("/bucket/object-1"));
        let head = connection.head().expect("a head");
        assert_eq!(head.status(), 200);
        let mut at = 0;
        let framing = crate::harness::client::framing("GET", &head);
        let whole = connection.reader.body(framing, |piece| {
            assert!(tile.holds(at, piece), "a wrong byte near {at}");
            at += piece.len() as u64;
            std::thread::sleep(Duration::from_micros(piece.len() as u64 / 16));
        });
        whole.expect("the whole body")
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(slow)).collect();
        wait_until("a load", PATIENCE, || count(&server, "loads_total") > 0);
        for seed in 0..60 {
            read_new(&server, &store, (1000 + seed, 6 * MIB));
        }
        // A slow disk drops copies: as many more as it takes.
        let mut seed = 2000;
        wait_until("the end of segments", PATIENCE, || {
            seed += 1;
            read_new(&server, &store, (seed, 6 * MIB));
            count(&server, "reclaimed_total") > 3
        });
        for reader in readers {
            assert_eq!(reader.join().expect("a reader"), LENGTH);
        }
    });
    server.finish();
}

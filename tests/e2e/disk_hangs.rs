//! Calls on the cache directory that never return: hits from RAM go on, what is on disk comes from the origin after the deadline,
//! calls in flight stay bounded, and SIGTERM ends the process.
//!
//! Through FUSE: see `harness/faultfs`. Figures are printed.

use crate::disk::await_folded;
use crate::harness::faultfs::{Fault, FaultFs};
use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const OPERATIONS_MAX: usize = 16;
const DEADLINE: Duration = Duration::from_millis(500);
const COLD: u64 = 24;
const COLD_BYTES: u64 = 2 * MIB + 5;
const HOT: u64 = 8;

fn start(dir: &Path, origin: SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(&dir.join("cache"))
        .ram("32MiB")
        .arguments(&["--disk", "512MiB"])
        .settings("[server]\ndrain = \"3s\"\n[disk]\ndeadline = \"500ms\"\noperations_max = 16")
        .start(origin)
}

fn cold(seed: u64) -> String {
    format!("/bucket/cold-{seed}")
}

fn hot(seed: u64) -> String {
    format!("/bucket/hot-{seed}")
}

struct Stuck {
    store: Store,
    origin: Stub,
    server: Millrace,
    fs: FaultFs,
    _folder: Scratch,
}

/// What was seen while calls hung.
#[derive(Debug, Default)]
struct Seen {
    hits: u64,
    hit_mean_us: u128,
    hit_most: Duration,
    cold_reads: u64,
    cold_most: Duration,
    held_most: usize,
}

impl Stuck {
    /// Cold objects on disk alone, hot ones in RAM, and a process that has opened no segment yet.
    fn new() -> Option<Stuck> {
        let folder = Scratch::new();
        let fs = FaultFs::under(&folder.path)?;
        let store = Store::new();
        let origin = store.serve();
        let server = start(&fs.mount, origin.address);
        for seed in 0..COLD {
            store.insert(&cold(seed), Object::tile(seed, COLD_BYTES));
            server.get(&cold(seed));
            wait_until("a copy on disk", PATIENCE, || {
                server.metrics().sum("millrace_disk_extents", &[]) as u64 == seed + 1
            });
        }
        server.kill();
        let server = start(&fs.mount, origin.address);
        await_folded(&server);
        for seed in 0..HOT {
            store.insert(&hot(seed), Object::tile(1000 + seed, 4000));
            // What is read once only is the first to leave RAM.
            (0..4).for_each(|_| drop(server.get(&hot(seed))));
        }
        Some(Stuck {
            store,
            origin,
            server,
            fs,
            _folder: folder,
        })
    }

    /// Eight clients read what is on disk, two make the disk write, one reads from RAM, for `seconds`.
    #[track_caller]
    fn load(&self, seconds: u64, new_from: u64) -> Seen {
        let mut seen = Seen::default();
        let (door, stop) = (self.server.door, Arc::new(AtomicBool::new(false)));
        let (reads, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..10u64)
            .map(|number| {
                let (stop, store) = (Arc::clone(&stop), self.store.clone());
                let (reads, most) = (Arc::clone(&reads), Arc::clone(&most));
                std::thread::spawn(move || {
                    let mut round = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let seed = match number < 8 {
                            true => (number * 3 + round) % COLD,
                            false => new_from + number * 1000 + round,
                        };
                        store.insert(&cold(seed), Object::tile(seed, COLD_BYTES));
                        round += 1;
                        let begun = Instant::now();
                        let read = crate::harness::fetch(door, &Ask::get(&cold(seed)));
                        let took = begun.elapsed().as_micros() as u64;
                        assert_eq!(read.status(), 200, "{}", read.text());
                        read.assert_body(&Tile::new(seed), 0, COLD_BYTES);
                        reads.fetch_add(1, Ordering::Relaxed);
                        most.fetch_max(took, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let (begun, mut sum) = (Instant::now(), Duration::ZERO);
        let mut connection = self.server.connect();
        while begun.elapsed() < Duration::from_secs(seconds) {
            let seed = seen.hits % HOT;
            let asked = Instant::now();
            let read = connection.exchange(&Ask::get(&hot(seed)));
            let took = asked.elapsed();
            read.assert_body(&Tile::new(1000 + seed), 0, 4000);
            seen.hits += 1;
            sum += took;
            seen.hit_most = seen.hit_most.max(took);
            std::thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::SeqCst);
        clients
            .into_iter()
            .for_each(|client| client.join().expect("right answers"));
        seen.hit_mean_us = sum.as_micros() / u128::from(seen.hits.max(1));
        seen.cold_reads = reads.load(Ordering::Relaxed);
        seen.cold_most = Duration::from_micros(most.load(Ordering::Relaxed));
        seen.held_most = self.fs.held().1;
        seen
    }

    #[track_caller]
    fn assert_goes_on(&self, what: &str, seen: &Seen) {
        println!("{what} hang: {seen:?}");
        assert!(
            seen.hits > 5 && seen.hit_mean_us < 1_000_000,
            "{what}: {seen:?}"
        );
        assert!(seen.hit_most < Duration::from_secs(2), "{what}: {seen:?}");
        // A head and its bytes, each after a deadline at most, and what the origin and a busy machine take.
        assert!(
            seen.cold_most < DEADLINE * 2 + Duration::from_secs(4),
            "{what}: {seen:?}"
        );
        assert!(seen.cold_reads > 10, "{what}: {seen:?}");
        // Reads, writes, the keeper and the fold.
        assert!(seen.held_most <= 2 * OPERATIONS_MAX + 2, "{what}: {seen:?}");
    }

    /// The disk works again: copies go there, and come from there.
    #[track_caller]
    fn assert_recovers(&self, what: &str, new_from: u64) {
        self.fs.heal();
        let counter = |name: &str| {
            let metrics = self.server.metrics();
            metrics.sum(&format!("millrace_disk_{name}_total"), &[]) as u64
        };
        let (stored, loads) = (counter("stored"), counter("loaded_bytes"));
        let mut seed = new_from;
        wait_until(&format!("copies after {what}"), PATIENCE, || {
            self.store
                .insert(&cold(seed), Object::tile(seed, COLD_BYTES));
            self.server
                .get(&cold(seed))
                .assert_body(&Tile::new(seed), 0, COLD_BYTES);
            seed += 1;
            std::thread::sleep(Duration::from_millis(100));
            counter("stored") > stored + 4
        });
        wait_until(&format!("hits after {what}"), PATIENCE, || {
            // More than RAM has room for.
            for seed in (0..COLD).chain(new_from..seed) {
                let read = self.server.get(&cold(seed));
                read.assert_body(&Tile::new(seed), 0, COLD_BYTES);
            }
            counter("loaded_bytes") > loads
        });
    }
}

#[track_caller]
fn assert_nothing_stops(calls: &[(&str, bool)]) {
    let Some(stuck) = Stuck::new() else { return };
    for (number, &(call, always)) in calls.iter().enumerate() {
        let new_from = 10_000 * (number as u64 + 1);
        stuck.fs.inject(call, Fault::Hang);
        let seen = stuck.load(5, new_from);
        assert!(seen.held_most > 0 || !always, "{call}: nothing hung");
        stuck.assert_goes_on(call, &seen);
        stuck.assert_recovers(call, new_from + 9_000);
    }
    let asked = stuck.origin.requests();
    assert!(asked > 0);
    stuck.server.finish();
}

#[test]
fn reads_that_never_return_stop_nothing() {
    assert_nothing_stops(&[("read", true), ("open", true)]);
}

#[test]
fn writes_that_never_return_stop_nothing() {
    assert_nothing_stops(&[("write", true), ("fsync", false)]);
}

#[test]
fn files_that_are_never_made_stop_nothing() {
    assert_nothing_stops(&[("statfs", true), ("create", true), ("unlink", false)]);
}

#[test]
fn with_everything_hanging_sigterm_still_ends_the_process() {
    let Some(mut stuck) = Stuck::new() else {
        return;
    };
    stuck.fs.inject("*", Fault::Hang);
    let seen = stuck.load(5, 10_000);
    stuck.assert_goes_on("all calls", &seen);
    // A client that is being served, and a write that wants the journal.
    let mut put = stuck.server.connect();
    put.send_ask(&Ask::put(&cold(3), b"newer".to_vec()));
    let begun = Instant::now();
    stuck.server.terminate();
    let stat = format!("/proc/{}/stat", stuck.server.child.id());
    let is_over = || {
        let text = std::fs::read_to_string(&stat).unwrap_or_default();
        let state = text
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        matches!(state, None | Some('Z'))
    };
    wait_until("the end", PATIENCE, is_over);
    let took = begun.elapsed();
    println!(
        "ended {took:?} after SIGTERM, {} calls hang",
        stuck.fs.held().0
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    // It is dead, and its parent hears of it when FUSE lets go of its calls, which no signal makes it do; NFS lets go at once.
    stuck.fs.heal();
    let status = stuck.server.await_exit();
    assert!(status.success(), "{status}: {}", stuck.server.output());
    let answer = put.response("PUT");
    println!(
        "the write under way got {:?}",
        answer.map(|answer| answer.status())
    );
}

#[test]
fn a_directory_that_hangs_at_start_keeps_nobody_from_being_served() {
    let folder = Scratch::new();
    let Some(fs) = FaultFs::under(&folder.path) else {
        return;
    };
    let store = Store::new();
    store.insert("/bucket/a", Object::tile(1, 3 * MIB));
    let origin = store.serve();
    for (size, call) in [("512MiB", "*"), ("0", "*"), ("512MiB", "create")] {
        fs.inject(call, Fault::Hang);
        let begun = Instant::now();
        let server = Millrace::setup()
            .cache_dir(&fs.mount.join("cache"))
            .arguments(&["--disk", size])
            .start(origin.address);
        println!(
            "disk.size {size}, {call} hangs: ready after {:?}",
            begun.elapsed()
        );
        for word in ["MISS", "HIT"] {
            let read = server.get("/bucket/a");
            read.assert_body(&Tile::new(1), 0, 3 * MIB);
            assert_eq!(read.cache_word(), word);
        }
        fs.heal();
        server.kill();
    }
}

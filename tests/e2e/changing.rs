//! Objects that are overwritten at the origin, past millrace, while many read: no answer mixes two versions, and none is older than it may be.

use crate::harness::store::Object;
use crate::harness::{Ask, Connection, Millrace, Store};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const READERS: u64 = 16;
const PATH: &str = "/bucket/changing";
const WORD: usize = 16;

fn content(version: u64, bytes: usize) -> Vec<u8> {
    format!("{version:015};")
        .bytes()
        .cycle()
        .take(bytes)
        .collect()
}

/// Lengths: in one stripe, and over its border; two versions in a row may have the same.
fn length(version: u64) -> usize {
    match version % 4 {
        0 | 1 => 200_000,
        2 => 400_000,
        _ => (8 << 20) + 160,
    }
}

/// The version that all of a body is of.
fn version_of(body: &[u8]) -> Option<u64> {
    let version = std::str::from_utf8(&body[..WORD - 1]).ok()?.parse().ok()?;
    (body == content(version, body.len())).then_some(version)
}

struct World {
    /// When each version was put, from 0 on.
    put: Mutex<Vec<Instant>>,
    stopping: AtomicBool,
    reads: AtomicU64,
    cuts: AtomicU64,
}

impl World {
    fn newest(&self) -> u64 {
        self.put.lock().expect("versions").len() as u64 - 1
    }

    fn write(&self, store: &Store) {
        let version = self.newest() + 1;
        // Until it is noted readers may see it already; never the other way round.
        store.insert(PATH, Object::bytes(&content(version, length(version))));
        self.put.lock().expect("versions").push(Instant::now());
    }

    fn reader(&self, door: SocketAddr, reader: u64, ttl: Duration) {
        let mut connection = Connection::open(door);
        let mut dice = reader * 7919;
        while !self.stopping.load(Ordering::SeqCst) {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695);
            self.read(&mut connection, dice >> 20, ttl);
        }
    }

    fn read(&self, connection: &mut Connection, dice: u64, ttl: Duration) {
        let begun = Instant::now();
        let least = self.newest();
        let mut ask = Ask::get(PATH);
        if !dice.is_multiple_of(4) {
            let start = dice % 12_000 * WORD as u64;
            let end = start + 16 + dice % 5_000_000 / WORD as u64 * WORD as u64;
            ask = ask.range(start, end);
        }
        let Ok(answer) = connection.try_exchange(&ask) else {
            *connection = Connection::open(connection.peer);
            let newest = self.newest();
            assert!(newest > 0, "a cut before any overwrite");
            self.cuts.fetch_add(1, Ordering::Relaxed);
            return;
        };
        assert!(matches!(answer.status(), 200 | 206), "{}", answer.text());
        let version = version_of(&answer.body).expect("one version in one body");
        let put = self.put.lock().expect("versions").clone();
        // What was followed by another version longer ago than its time may last is not served.
        let followed = put.get(version as usize + 1);
        let late = followed.is_some_and(|at| begun.saturating_duration_since(*at) > ttl);
        let old = if ttl.is_zero() { version < least } else { late };
        assert!(
            !old,
            "version {version} of {least}, marked {}",
            answer.cache_word()
        );
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn heavy_versions_that_change_under_sixteen_readers_are_never_mixed() {
    for (ttl, most) in [("0s", Duration::ZERO), ("1s", Duration::from_millis(1_500))] {
        let store = Store::new();
        let world = Arc::new(World {
            put: Mutex::default(),
            stopping: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            cuts: AtomicU64::new(0),
        });
        store.insert(PATH, Object::bytes(&content(0, length(0))));
        world.put.lock().expect("versions").push(Instant::now());
        let origin = store.serve();
        let settings = format!("[cache]\nttl = '{ttl}'\n");
        let server = Millrace::setup()
            .shards(2)
            .ram("256MiB")
            .settings(&settings)
            .start(origin.address);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let (world, door) = (&world, server.door);
                scope.spawn(move || world.reader(door, reader, most));
            }
            for _ in 0..24 {
                std::thread::sleep(Duration::from_millis(120));
                world.write(&store);
            }
            world.stopping.store(true, Ordering::SeqCst);
        });
        let [reads, cuts] = [&world.reads, &world.cuts].map(|count| count.load(Ordering::Relaxed));
        println!("ttl {ttl}: {reads} reads, {cuts} cuts, 25 versions");
        assert!(
            reads > 200 && cuts * 5 < reads,
            "{reads} reads, {cuts} cuts"
        );
        server.finish();
    }
}

//! The disk tier: what was read comes back after the process has died, byte for byte, and whatever is wrong on disk
//! is a miss.

use crate::harness::millrace::{Scratch, command};
use crate::harness::store::Object;
use crate::harness::{
    Ask, KIB, MIB, Millrace, PATIENCE, Store, Stub, Tile, free_address, wait_until,
};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn start(dir: &Path, shards: u32, origin: SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(dir)
        .shards(shards)
        .arguments(&["--disk", "512MiB"])
        .start(origin)
}

/// Waits until so many heads and extents are on disk, and in the journal.
#[track_caller]
pub fn await_written(server: &Millrace, heads: u64, extents: u64) {
    wait_until("records on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64;
        gauge("heads") == heads && gauge("extents") == extents && gauge("queued_bytes") == 0
    });
}

#[track_caller]
pub fn await_folded(server: &Millrace) {
    wait_until("the end of the fold", PATIENCE, || {
        server.metrics().sum("millrace_disk_folding_shards", &[]) == 0.0
    });
}

const SIZES: &[(u64, u64)] = &[
    (1, 1),
    (2, 3000),
    (3, 64 * KIB),
    (4, 64 * KIB + 1),
    (5, 300_000),
    (6, 8 * MIB),
    (7, 8 * MIB + 5),
    (8, 30 * MIB + 777),
];

fn path(seed: u64) -> String {
    format!("/bucket/object-{seed}")
}

#[test]
fn semantics_60_what_was_read_before_a_crash_is_a_hit_after_it() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    for shards in [1, 2] {
        let dir = folder.path.join(format!("cache-{shards}"));
        let server = start(&dir, shards, origin.address);
        for &(seed, length) in SIZES {
            store.insert(&path(seed), Object::tile(seed, length));
            let cold = server.get(&path(seed));
            assert_eq!((cold.status(), cold.cache_word()), (200, "MISS"));
        }
        // Heads, and extents of a stripe each.
        await_written(&server, SIZES.len() as u64, 12);
        server.kill();
        let asked = origin.requests();
        let server = start(&dir, 3 - shards, origin.address);
        await_folded(&server);
        for &(seed, length) in SIZES {
            let tile = Tile::new(seed);
            let middle = length / 3..length - length / 4;
            let part = server.fetch(&Ask::get(&path(seed)).range(middle.start, middle.end));
            assert_eq!((part.status(), part.cache_word()), (206, "HIT"), "{length}");
            part.assert_body(&tile, middle.start, middle.end);
            let whole = server.get(&path(seed));
            assert_eq!(
                (whole.status(), whole.cache_word()),
                (200, "HIT"),
                "{length}"
            );
            whole.assert_body(&tile, 0, length);
            assert_eq!(whole.header("x-amz-meta-Mixed"), Some("Case \u{e9} kept"));
        }
        assert_eq!(origin.requests(), asked, "a hit asked the origin");
        server.finish();
    }
}

/// Reads objects into the cache and waits until they are on disk.
#[track_caller]
pub fn fill(server: &Millrace, store: &Store, sizes: &[(u64, u64)]) {
    let mut extents = 0;
    for &(seed, length) in sizes {
        store.insert(&path(seed), Object::tile(seed, length));
        let cold = server.get(&path(seed));
        assert_eq!((cold.status(), cold.cache_word()), (200, "MISS"));
        extents += length.div_ceil(8 * MIB);
    }
    await_written(server, sizes.len() as u64, extents);
}

#[test]
fn semantics_61_an_overwritten_object_does_not_come_back_after_a_crash() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    let put = server.fetch(&Ask::put(&path(5), b"newer"));
    assert_eq!(put.status(), 200);
    let deleted = server.fetch(&Ask::new("DELETE", &path(3)));
    assert_eq!(deleted.status(), 204);
    server.kill();
    let server = start(&folder.path, 2, origin.address);
    await_folded(&server);
    let read = server.get(&path(5));
    assert_eq!((read.text().as_str(), read.cache_word()), ("newer", "MISS"));
    assert_eq!(server.get(&path(3)).status(), 404);
    let untouched = server.get(&path(6));
    assert_eq!(untouched.cache_word(), "HIT");
    server.finish();
}

#[test]
fn semantics_62_a_crash_in_the_middle_of_a_write_brings_no_old_copy_back() {
    let (store, folder) = (Store::new(), Scratch::new());
    let (begun, held) = (Arc::new(AtomicBool::new(false)), store.clone());
    let seen_put = Arc::clone(&begun);
    let origin = Stub::start(move |seen, wire| {
        if seen.method() != "PUT" {
            return held.answer(seen, wire);
        }
        // The origin does it, and its answer never comes.
        let body = wire.read_body(&seen.head).expect("the body");
        held.insert(&path(5), Object::bytes(&body));
        seen_put.store(true, Ordering::Release);
        wire.hang()
    });
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, &SIZES[..6]);
    let mut client = server.connect();
    client.send_ask(&Ask::put(&path(5), b"newer"));
    wait_until("the write at the origin", PATIENCE, || {
        begun.load(Ordering::Acquire)
    });
    server.kill();
    let server = start(&folder.path, 1, origin.address);
    await_folded(&server);
    assert_eq!(server.get(&path(5)).text(), "newer");
    assert_eq!(server.get(&path(6)).cache_word(), "HIT");
    server.finish();
}

/// Every file of the cache directory whose path contains `part`.
pub fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), part));
        } else if entry.path().to_string_lossy().contains(part) {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Starts on what is left of the directory and reads everything: right bytes, whatever was done to the files.
#[track_caller]
fn assert_all_right(dir: &Path, origin: SocketAddr) -> Millrace {
    let server = start(dir, 2, origin);
    await_folded(&server);
    for &(seed, length) in SIZES {
        let read = server.get(&path(seed));
        assert_eq!(read.status(), 200);
        read.assert_body(&Tile::new(seed), 0, length);
    }
    server
}

#[test]
fn semantics_63_whatever_is_wrong_on_disk_is_a_miss() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    type Damage = fn(&Path);
    let damages: [(&str, &str, Damage); 8] = [
        ("flipped bits in segments", "/seg/", |file| {
            let mut bytes = std::fs::read(file).expect("a segment");
            for at in (4096 + 70_000..bytes.len()).step_by(1_000_003) {
                bytes[at] ^= 0x10;
            }
            std::fs::write(file, bytes).expect("written");
        }),
        ("zeroed tails of segments", "/seg/", |file| {
            let mut bytes = std::fs::read(file).expect("a segment");
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
            std::fs::write(file, bytes).expect("written");
        }),
        ("segments cut short", "/seg/", |file| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(file)
                .expect("opened");
            file.set_len(3_000_000).expect("cut");
        }),
        ("empty segments", "/seg/", |file| {
            std::fs::write(file, b"").expect("written")
        }),
        ("missing segments", "/seg/", |file| {
            std::fs::remove_file(file).expect("removed")
        }),
        ("journals cut short", "/journal.", |file| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(file)
                .expect("opened");
            file.set_len(777).expect("cut");
        }),
        ("flipped bits in journals", "/journal.", |file| {
            let mut bytes = std::fs::read(file).expect("a journal");
            bytes[400] ^= 1;
            std::fs::write(file, bytes).expect("written");
        }),
        ("journals of a later format", "/journal.", |file| {
            let mut bytes = std::fs::read(file).expect("a journal");
            bytes[8] = 9;
            std::fs::write(file, bytes).expect("written");
        }),
    ];
    for (number, (what, part, damage)) in damages.iter().enumerate() {
        let dir = folder.path.join(number.to_string());
        let server = start(&dir, 2, origin.address);
        fill(&server, &store, SIZES);
        server.kill();
        let damaged = files(&dir, part);
        assert!(!damaged.is_empty());
        damaged.iter().for_each(|file| damage(file));
        let asked = origin.requests();
        let server = assert_all_right(&dir, origin.address);
        assert!(origin.requests() > asked, "{what}: nothing was missed");
        server.finish();
        let _ = std::fs::remove_dir_all(&dir);
    }
}

/// A directory whose journals are a snapshot: of a run that died after it had filled it, and of one that made the snapshot.
fn snapshotted(dir: &Path, store: &Store, origin: SocketAddr) -> PathBuf {
    let server = start(dir, 2, origin);
    fill(&server, store, SIZES);
    server.kill();
    let filled = files(dir, "/journal.");
    let server = start(dir, 2, origin);
    wait_until("a snapshot in the place of journals", PATIENCE, || {
        files(dir, "/snapshot.").len() == 1 && filled.iter().all(|journal| !journal.exists())
    });
    wait_until("the count of it", PATIENCE, || {
        server.metrics().sum("millrace_disk_snapshots_total", &[]) == 1.0
    });
    server.kill();
    files(dir, "/snapshot.").remove(0)
}

#[test]
fn a_snapshot_brings_back_what_journals_would_and_a_damaged_one_is_a_miss() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    snapshotted(&folder.path, &store, origin.address);
    let (code, verified) = tool(&["verify"], &folder.path);
    assert_eq!(code, 0, "{verified}");
    assert!(verified.starts_with("8 heads and 12 extents"), "{verified}");
    let asked = origin.requests();
    let server = assert_all_right(&folder.path, origin.address);
    assert_eq!(origin.requests(), asked, "everything is a hit");
    let metrics = server.metrics();
    let read = metrics.sum("millrace_disk_folded_bytes", &[]);
    assert_eq!(read, metrics.sum("millrace_disk_fold_bytes", &[]));
    assert!(read > 200_000.0, "{read}");
    server.finish();
    for (round, damage) in [
        (|bytes: &mut Vec<u8>| bytes.truncate(70_000)) as fn(&mut Vec<u8>),
        |bytes| bytes[70] ^= 1,
        |bytes| bytes[4096 + 100] ^= 1,
        |bytes| bytes.clear(),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = folder.path.join(format!("round-{round}"));
        let snapshot = snapshotted(&dir, &store, origin.address);
        let mut bytes = std::fs::read(&snapshot).expect("a snapshot");
        damage(&mut bytes);
        std::fs::write(&snapshot, bytes).expect("written");
        let asked = origin.requests();
        assert_all_right(&dir, origin.address).finish();
        assert!(
            origin.requests() > asked,
            "round {round}: nothing was missed"
        );
    }
}

#[test]
fn a_stale_head_does_not_make_what_is_on_disk_be_fetched_again() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, &[(9, 20 * MIB)]);
    let filled = std::time::Instant::now();
    server.kill();
    let server = Millrace::setup()
        .cache_dir(&folder.path)
        .arguments(&["--disk", "512MiB", "--ttl", "1s"])
        .start(origin.address);
    await_folded(&server);
    wait_until("the end of the time to live", PATIENCE, || {
        filled.elapsed().as_millis() > 1500
    });
    let asked = origin.requests();
    let read = server.get(&path(9));
    read.assert_body(&Tile::new(9), 0, 20 * MIB);
    let metrics = server.metrics();
    assert_eq!(origin.requests(), asked + 1, "the head is asked for");
    assert!(metrics.sum("millrace_disk_loads_total", &[]) >= 3.0);
    let filled = metrics.sum("millrace_fill_bytes_total", &[]);
    assert_eq!(filled, 0.0, "its bytes are not");
    server.finish();
}

#[test]
fn swapped_segments_are_noticed() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    server.kill();
    let segments = files(&folder.path, "/seg/");
    assert!(segments.len() > 1);
    let aside = folder.path.join("aside");
    std::fs::rename(&segments[0], &aside).expect("renamed");
    std::fs::rename(&segments[1], &segments[0]).expect("renamed");
    std::fs::rename(&aside, &segments[1]).expect("renamed");
    assert_all_right(&folder.path, origin.address).finish();
}

#[test]
fn a_directory_of_another_format_is_refused_at_start() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    std::fs::write(folder.path.join("FORMAT"), "something else\n").expect("written");
    let dir = folder.path.to_string_lossy().into_owned();
    let admin = free_address().to_string();
    let output = command()
        .args([
            "serve",
            "--origin",
            &format!("http://{}", origin.address),
            "--ram",
            "64MiB",
        ])
        .args(["--listen", &free_address().to_string(), "--admin", &admin])
        .args(["--shards", "1", "--cache-dir", &dir, "--disk", "256MiB"])
        .output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("is not one of format version 1"), "{error}");
}

#[test]
fn semantics_64_the_budget_holds_and_what_is_read_again_stays() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    const BUDGET: u64 = 256 * MIB;
    let server = Millrace::setup()
        .cache_dir(&folder.path)
        .ram("16MiB")
        .arguments(&["--disk", "256MiB"])
        .start(origin.address);
    let taken = || {
        let files = files(&folder.path, "/instances/");
        let bytes = |file: &PathBuf| std::fs::metadata(file).map_or(0, |file| file.len());
        files.iter().map(bytes).sum::<u64>()
    };
    store.insert("/bucket/hot", Object::tile(7, 3 * MIB));
    server
        .get("/bucket/hot")
        .assert_body(&Tile::new(7), 0, 3 * MIB);
    let written = |server: &Millrace| {
        let metrics = server.metrics();
        let count = |name: &str| metrics.sum(&format!("millrace_disk_{name}_total"), &[]) as u64;
        count("stored") + count("dropped")
    };
    for round in 0..60 {
        let (seed, path) = (1000 + round, format!("/bucket/cold-{round}"));
        store.insert(&path, Object::tile(seed, 6 * MIB));
        let before = written(&server);
        server.get(&path).assert_body(&Tile::new(seed), 0, 6 * MIB);
        wait_until("a head and an extent on disk", PATIENCE, || {
            written(&server) >= before + 2
        });
        let taken = taken();
        assert!(taken <= BUDGET, "{taken} bytes are taken in round {round}");
        let asked = origin.requests();
        let hot = server.get("/bucket/hot");
        hot.assert_body(&Tile::new(7), 0, 3 * MIB);
        let found = (hot.cache_word(), origin.requests());
        assert_eq!(found, ("HIT", asked), "round {round}");
    }
    let metrics = server.metrics();
    let count = |name: &str| metrics.sum(&format!("millrace_disk_{name}_total"), &[]) as u64;
    let counts = ["reclaimed", "moved", "stored", "dropped"].map(count);
    assert!(
        counts[0] > 5 && counts[1] > 1 && counts[3] < 5,
        "{counts:?}"
    );
    server.finish();
}

#[track_caller]
pub fn tool(arguments: &[&str], dir: &Path) -> (i32, String) {
    let (what, rest) = arguments.split_first().expect("a tool");
    let output = command()
        .args(["cache", what])
        .arg(dir)
        .args(rest)
        .output()
        .expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().expect("a code"), text)
}

#[test]
fn the_tools_say_what_a_directory_holds_and_whether_it_is_whole() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    server.get("/bucket/object-1");
    server.fetch(&Ask::new("DELETE", &path(2)));
    let (code, list) = tool(&["ls"], &folder.path);
    assert_eq!((code, list.lines().count()), (0, SIZES.len() - 1), "{list}");
    assert!(!list.contains("bucket/object-2") && list.contains("bucket/object-8"));
    assert_eq!(
        tool(&["ls", "bucket/object-8"], &folder.path)
            .1
            .lines()
            .count(),
        1
    );
    let (code, shown) = tool(&["stat", "bucket/object-8"], &folder.path);
    assert_eq!(code, 0);
    assert!(
        shown.contains(&format!("bytes      {}", 30 * MIB + 777)),
        "{shown}"
    );
    assert_eq!(
        shown.lines().filter(|line| line.contains("/seg/")).count(),
        4
    );
    assert_eq!(
        tool(&["stat", "bucket/none"], &folder.path),
        (3, String::new())
    );
    assert!(tool(&["du"], &folder.path).1.contains("7  bucket"));
    let (code, verified) = tool(&["verify"], &folder.path);
    assert_eq!(code, 0, "{verified}");
    assert!(verified.starts_with("7 heads and 12 extents"), "{verified}");
    server.kill();
    let line = shown.lines().find(|line| line.contains("/seg/"));
    let words: Vec<&str> = line.expect("an extent").split(' ').collect();
    let offset: usize = words[5].parse().expect("an offset");
    let mut bytes = std::fs::read(words[3]).expect("a segment");
    bytes[offset + 1_000_000] ^= 1;
    std::fs::write(words[3], bytes).expect("written");
    let (code, verified) = tool(&["verify"], &folder.path);
    assert_eq!(code, 3, "{verified}");
    assert!(verified.contains("1 damaged"), "{verified}");
}

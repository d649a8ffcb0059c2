//! The disk tier: what was read comes back after the process has died, byte for byte, and whatever is wrong on disk
//! is a miss.

use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::net::SocketAddr;
use std::path::Path;

fn start(dir: &Path, shards: u32, origin: SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(dir)
        .shards(shards)
        .arguments(&["--disk", "512MiB"])
        .start(origin)
}

/// Waits until so many heads and extents are on disk, and in the journal.
#[track_caller]
fn await_written(server: &Millrace, heads: u64, extents: u64) {
    wait_until("records on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64;
        gauge("heads") == heads && gauge("extents") == extents && gauge("queued_bytes") == 0
    });
}

#[track_caller]
fn await_folded(server: &Millrace) {
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

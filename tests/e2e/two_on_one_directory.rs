//! Two processes that were given one cache directory.

use std::path::Path;

use crate::disk::{await_folded, await_written};
use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{KIB, Millrace, Store, Tile};

/// So small that both reclaim, and fold their journals, while they run.
fn start(dir: &Path, origin: std::net::SocketAddr) -> Millrace {
    Millrace::setup()
        .shards(2)
        .ram("64MiB")
        .cache_dir(dir)
        .arguments(&["--disk", "512MiB"])
        .start(origin)
}

const OBJECTS: u64 = 60;

fn length(seed: u64) -> u64 {
    1 + seed * 7_919 % (400 * KIB)
}

/// Reference 2A.12.
#[test]
fn semantics_179_two_processes_on_one_directory_harm_nothing_that_the_other_reads() {
    let (store, folder) = (Store::new(), Scratch::new());
    for seed in 0..OBJECTS {
        store.insert(&format!("/bucket/{seed}"), Object::tile(seed, length(seed)));
    }
    let origin = store.serve();
    let check = |server: &Millrace| {
        for seed in 0..OBJECTS {
            let read = server.get(&format!("/bucket/{seed}"));
            read.assert_body(&Tile::new(seed), 0, length(seed));
        }
    };
    for round in 0..3 {
        let pair = [(); 2].map(|()| start(&folder.path, origin.address));
        std::thread::scope(|scope| {
            for server in &pair {
                scope.spawn(|| check(server));
            }
        });
        for server in &pair {
            await_written(server, OBJECTS, OBJECTS);
        }
        let [first, second] = pair;
        // One in an orderly way, which folds what it knows, the other not.
        match round {
            0 => first.finish(),
            _ => first.kill(),
        }
        check(&second);
        second.kill();
    }
    let last = start(&folder.path, origin.address);
    await_folded(&last);
    let sent = store.body_bytes();
    check(&last);
    let all: u64 = (0..OBJECTS).map(length).sum();
    let fetched = store.body_bytes() - sent;
    assert!(
        fetched < all / 2,
        "{fetched} of {all} bytes were fetched again"
    );
    last.finish();
    let (code, said) = crate::disk::tool(&["verify"], &folder.path);
    assert_eq!(code, 0, "{said}");
}

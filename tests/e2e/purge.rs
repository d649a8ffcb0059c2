//! What operators take out of the cache: through a running server, or in the directory of one that does not run.

use crate::disk::{await_folded, fill, start, tool};
use crate::harness::millrace::{Scratch, command};
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, Store, Tile, wait_until};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

const SIZES: &[(u64, u64)] = &[(1, 3000), (2, 300_000), (3, 8 * MIB + 5), (14, 70 * KIB)];

fn path(seed: u64) -> String {
    format!("/bucket/object-{seed}")
}

/// Whether each of these objects is a hit, and its bytes are right.
#[track_caller]
fn assert_hits(server: &Millrace, expected: &[(u64, bool)]) {
    for &(seed, hit) in expected {
        let length = SIZES
            .iter()
            .find(|size| size.0 == seed)
            .expect("one of them")
            .1;
        let read = server.get(&path(seed));
        assert_eq!(read.status(), 200);
        let word = if hit { "HIT" } else { "MISS" };
        assert_eq!(read.cache_word(), word, "object-{seed}");
        read.assert_body(&Tile::new(seed), 0, length);
    }
}

fn purge(arguments: &[&str]) -> (i32, String, String) {
    let output = command()
        .args(["cache", "purge"])
        .args(arguments)
        .output()
        .expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().expect("a code"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[track_caller]
fn purge_in(dir: &Path, name: &str) -> String {
    let dir = dir.to_string_lossy();
    let (code, said, failed) = purge(&[&dir, name]);
    assert_eq!((code, failed.as_str()), (0, ""), "{said}");
    said
}

fn ask_admin(admin: SocketAddr, ask: &Ask) -> (u16, String) {
    let answer = crate::harness::client::fetch(admin, ask);
    (answer.status(), answer.text())
}

#[test]
fn semantics_65_what_was_purged_asks_the_origin_again_and_stays_gone_after_a_crash() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    let said = purge_in(&folder.path, "bucket/object-3");
    let in_ram = format!("in RAM   1 objects, {} bytes\n", 8 * MIB + 5);
    assert!(said.starts_with(&in_ram), "{said}");
    assert!(said.contains("on disk  1 objects, 84"), "{said}");
    let said = purge_in(&folder.path, "bucket/object-1*");
    let in_ram = format!("in RAM   2 objects, {} bytes\n", 3000 + 70 * KIB);
    assert!(said.starts_with(&in_ram), "{said}");
    assert!(said.contains("on disk  2 objects, "), "{said}");
    // At once: what was purged is written down before the purge is answered.
    server.kill();
    let server = start(&folder.path, 1, origin.address);
    await_folded(&server);
    let gone = [(1, false), (3, false), (14, false), (2, true)];
    assert_hits(&server, &gone);
    assert_hits(&server, &gone.map(|(seed, _)| (seed, true)));
    wait_until("all in the journal again", PATIENCE, || {
        tool(&["ls"], &folder.path).1.lines().count() == 4
    });
    server.kill();
    let server = start(&folder.path, 2, origin.address);
    await_folded(&server);
    assert_hits(&server, &[(2, true)]);
    assert!(purge_in(&folder.path, "bucket/*").contains("on disk  4 objects"));
    assert_hits(&server, &gone.map(|(seed, _)| (seed, false)));
    assert_eq!(
        server
            .metrics()
            .sum("millrace_invalidations_total", &[("cause", "purge")]),
        1.0,
        "one was in RAM"
    );
    server.finish();
}

#[test]
fn semantics_66_a_fetch_that_began_before_a_purge_does_not_bring_back_what_it_fetched() {
    for name in ["bucket/k", "bucket/*"] {
        let (store, folder) = (Store::new(), Scratch::new());
        store.insert("/bucket/k", Object::tile(7, 6 * MIB));
        let origin = store.serve();
        let server = start(&folder.path, 2, origin.address);
        store.shut_gate(MIB);
        let mut reader = server.connect();
        reader.send_ask(&Ask::get("/bucket/k"));
        let head = reader.head().expect("a head");
        // Its head is published, and half of its bytes are on their way.
        purge_in(&folder.path, name);
        store.insert("/bucket/k", Object::tile(8, 6 * MIB));
        store.open_gate();
        reader
            .check_body(&head, &Tile::new(7), 0)
            .expect("the old version, to its end");
        let read = server.get("/bucket/k");
        assert_eq!(read.cache_word(), "MISS", "{name}");
        read.assert_body(&Tile::new(8), 0, 6 * MIB);
        drop(reader);
        server.finish();
    }
}

#[test]
fn semantics_67_a_directory_without_a_server_is_purged_by_what_is_written_into_it() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    server.kill();
    for name in ["bucket/object-3", "bucket/object-1*"] {
        let said = purge_in(&folder.path, name);
        assert!(said.starts_with("on disk  "), "{said}");
    }
    assert_eq!(tool(&["ls"], &folder.path).1.lines().count(), 1);
    assert!(purge_in(&folder.path, "bucket/object-3").contains("on disk  0 objects"));
    let server = start(&folder.path, 2, origin.address);
    await_folded(&server);
    let gone = [(1, false), (3, false), (14, false), (2, true)];
    assert_hits(&server, &gone);
    server.kill();
    let dir = folder.path.to_string_lossy();
    let one = ["--origin", "origin", &dir, "bucket/object-2"];
    assert_eq!(purge(&one).1, "on disk  1 objects, 311296 bytes\n");
    let server = start(&folder.path, 1, origin.address);
    await_folded(&server);
    assert_hits(&server, &[(2, false)]);
    server.finish();
}

/// The file that says how the running server is reached.
fn admin_file(dir: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir.join("instances"))
        .expect("instances")
        .map(|entry| entry.expect("an instance").path().join("admin"))
        .collect();
    found.sort();
    found.pop().expect("a server's")
}

#[test]
fn a_directory_whose_server_cannot_be_asked_is_left_alone() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 1, origin.address);
    fill(&server, &store, SIZES);
    let file = admin_file(&folder.path);
    let right = std::fs::read_to_string(&file).expect("its text");
    let dir = folder.path.to_string_lossy().into_owned();
    let nobody = crate::harness::free_address();
    let (_, run) = right.split_once(' ').expect("address and run");
    for (text, why) in [
        (format!("{nobody} {run}"), "cannot be asked"),
        (
            format!("{} of-another", server.admin),
            "another server is meant",
        ),
        (String::new(), "cannot be asked"),
    ] {
        std::fs::write(&file, text).expect("written");
        let (code, said, failed) = purge(&[&dir, "bucket/*"]);
        assert_eq!((code, said.as_str()), (3, ""));
        assert!(failed.contains(why), "{failed}");
    }
    assert_hits(&server, &[(1, true), (2, true), (3, true), (14, true)]);
    // Told where it is, it is asked.
    let (code, said, _) = purge(&["--admin", &server.admin.to_string(), &dir, "bucket/*"]);
    assert_eq!(code, 0);
    assert!(said.starts_with("in RAM   4 objects"), "{said}");
    assert_hits(&server, &[(1, false), (2, false), (3, false), (14, false)]);
    server.finish();
}

#[test]
fn the_admin_endpoint_purges_by_post_alone_and_for_no_browser() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let target = "/bucket/a%20%C3%A9";
    let admin = server.admin;
    store.insert(target, Object::tile(1, 1000));
    for (ask, status) in [
        (Ask::get("/purge?name=bucket/*"), 405),
        (Ask::new("POST", "/purge"), 400),
        (Ask::new("POST", "/purge?name=bucket"), 400),
        (Ask::new("POST", "/purge?nam=bucket/*"), 400),
        (Ask::new("POST", "/purge?name=bucket/*&run=other"), 421),
        (
            Ask::new("POST", "/purge?name=bucket/*").header("Origin", "http://evil.example"),
            403,
        ),
    ] {
        server.get(target);
        assert_eq!(server.get(target).cache_word(), "HIT");
        let (found, text) = ask_admin(admin, &ask);
        assert_eq!(found, status, "{} {}: {text}", ask.method, ask.target);
        assert_eq!(server.get(target).cache_word(), "HIT");
    }
    let ask = Ask::new("POST", "/purge?name=bucket/a%20%C3%A9");
    let answer = ask_admin(admin, &ask);
    assert_eq!(answer, (200, "objects 1\nbytes 1000\n".to_owned()));
    assert_eq!(server.get(target).cache_word(), "MISS");
    // Without a disk, the command finds the server by its address; a key is taken as it is.
    let admin = admin.to_string();
    let (code, said, _) = purge(&["--admin", &admin, "bucket/a \u{e9}"]);
    assert_eq!(
        (code, said.as_str()),
        (0, "in RAM   1 objects, 1000 bytes\n")
    );
    let other = ["--admin", &admin, "--origin", "other", "bucket/*"];
    server.get(target);
    assert_eq!(purge(&other).1, "in RAM   0 objects, 0 bytes\n");
    assert_eq!(server.get(target).cache_word(), "HIT");
    assert_eq!(
        purge(&["--admin", &admin, "*"]).1,
        "in RAM   1 objects, 1000 bytes\n"
    );
    server.finish();
}

#[test]
fn purges_while_clients_read_leave_every_answer_right() {
    let (store, folder) = (Store::new(), Scratch::new());
    let origin = store.serve();
    let server = start(&folder.path, 2, origin.address);
    fill(&server, &store, SIZES);
    let door = server.door;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(move || {
                    for round in 0..100 {
                        let (seed, length) = SIZES[round % SIZES.len()];
                        let read = crate::harness::client::fetch(door, &Ask::get(&path(seed)));
                        assert_eq!(read.status(), 200);
                        read.assert_body(&Tile::new(seed), 0, length);
                    }
                })
            })
            .collect();
        let admin = server.admin;
        for name in ["bucket/object-1", "bucket/object-3*", "bucket/*"]
            .iter()
            .cycle()
        {
            let (status, _) = ask_admin(admin, &Ask::new("POST", &format!("/purge?name={name}")));
            assert_eq!(status, 200);
            if readers.iter().all(|reader| reader.is_finished()) {
                break;
            }
        }
    });
    wait_until("the readers' leases to end", PATIENCE, || {
        server.metrics().held().is_empty()
    });
    server.finish();
}

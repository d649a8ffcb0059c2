//! `[[rule]]`: what holds for objects of some names.

use crate::disk::{await_folded, tool};
use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::path::Path;
use std::time::Duration;

/// Whether the second read of it is a hit.
#[track_caller]
fn is_kept(server: &Millrace, ask: impl Fn() -> Ask) -> bool {
    assert_eq!(server.fetch(&ask()).status(), 200);
    server.fetch(&ask()).cache_word() == "HIT"
}

#[test]
fn semantics_68_the_first_rule_that_says_something_about_a_field_decides_it() {
    let store = Store::new();
    for path in [
        "/a/never/k",
        "/a/short/k",
        "/a/large",
        "/a/heads",
        "/b/k",
        "/b/none",
    ] {
        store.insert(path, Object::tile(1, 100 * KIB));
    }
    let origin = store.serve();
    let rules = "
        [[rule]]\nmatch = 'a/never/**'\nttl = '0s'\nhead_ttl = '0s'
        [[rule]]\nmatch = 'a/short/*'\nttl = '200ms'
        [[rule]]\nmatch = 'a/large'\nobject_bytes_max = '64KiB'
        [[rule]]\nmatch = 'a/heads'\nhead_ttl = '0s'
        [[rule]]\nmatch = 'b/none'\ntiers = []
        [[rule]]\nmatch = 'a/**'\nttl = '1h'\nhead_ttl = '1h'
    ";
    let server = Millrace::setup()
        .shards(2)
        .settings(rules)
        .start(origin.address);
    let get = |path: &str| is_kept(&server, || Ask::get(path));
    assert!(!get("/a/never/k"));
    assert!(!get("/a/large") && !get("/b/none"));
    assert!(get("/a/heads") && get("/b/k"));
    assert!(!is_kept(&server, || Ask::head("/a/heads")));
    assert!(is_kept(&server, || Ask::head("/b/k")));
    server.get("/a/short/k");
    wait_until("the end of its time", PATIENCE, || {
        server.get("/a/short/k").cache_word() != "HIT"
    });
    assert!(server.get("/b/k").cache_word() == "HIT");
    server.finish();
}

#[test]
fn a_confirmation_holds_for_as_long_as_the_rule_says() {
    // By the rule, not by `[cache]`, which has an hour. (2F.106)
    let store = Store::new();
    store.insert("/a/short", Object::tile(2, 100 * KIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\nttl = '1h'\n[[rule]]\nmatch = 'a/short'\nttl = '300ms'\n")
        .start(origin.address);
    server.get("/a/short");
    for _ in 0..3 {
        for word in ["HIT", "REVALIDATED"] {
            wait_until(word, PATIENCE, || {
                server.get("/a/short").cache_word() == word
            });
        }
    }
    server.finish();
}

fn start(dir: &Path, rules: &str, origin: std::net::SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(dir)
        .shards(2)
        .arguments(&["--disk", "512MiB"])
        .settings(rules)
        .start(origin)
}

#[track_caller]
fn await_extents(server: &Millrace, extents: u64) {
    wait_until("records on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64;
        gauge("extents") == extents && gauge("queued_bytes") == 0
    });
}

#[test]
fn semantics_69_what_a_rule_keeps_from_the_disk_does_not_survive_a_restart() {
    let (store, folder) = (Store::new(), Scratch::new());
    store.insert("/a/ram", Object::tile(1, MIB));
    store.insert("/a/disk", Object::tile(2, MIB));
    let origin = store.serve();
    let rules = "[[rule]]\nmatch = '*/ram'\ntiers = ['ram']\n";
    let server = start(&folder.path, rules, origin.address);
    for path in ["/a/ram", "/a/disk"] {
        assert!(is_kept(&server, || Ask::get(path)));
    }
    await_extents(&server, 1);
    server.kill();
    let server = start(&folder.path, rules, origin.address);
    await_folded(&server);
    assert_eq!(server.get("/a/disk").cache_word(), "HIT");
    assert_eq!(server.get("/a/ram").cache_word(), "MISS");
    server.finish();
}

/// Text that LZ4 makes smaller.
fn text(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut line = seed;
    while bytes.len() < length {
        line = line.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend_from_slice(format!("{},{:x},a row of text\n", line >> 44, line).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[test]
fn semantics_70_what_is_compressed_on_disk_comes_back_as_it_was() {
    let (store, folder) = (Store::new(), Scratch::new());
    let lengths = [1, 700, 65_536, 65_537, 300_000, 9_000_001];
    let objects: Vec<(String, Vec<u8>)> = lengths
        .iter()
        .map(|&length| (format!("/text/{length}.csv"), text(length as u64, length)))
        .collect();
    for (path, bytes) in &objects {
        store.insert(path, Object::bytes(bytes));
    }
    let plain = text(5, 300_000);
    for path in ["/text/a.csv.gz", "/text/off.txt", "/text/typed"] {
        store.insert(
            path,
            Object::bytes(&plain).header("Content-Encoding-Not", "x"),
        );
    }
    let mut typed = Object::bytes(&plain);
    typed.headers.retain(|(name, _)| name != "Content-Type");
    store.insert("/text/typed", typed.header("Content-Type", "image/png"));
    store.insert("/text/random", Object::tile(3, 300_000));
    let origin = store.serve();
    let rules = "[disk]\ncompress = 'lz4'\n[[rule]]\nmatch = 'text/off.*'\ncompress = 'off'\n";
    let server = start(&folder.path, rules, origin.address);
    for (path, bytes) in &objects {
        assert!(server.get(path).body == *bytes, "{path}");
    }
    await_extents(&server, 7);
    let (_, usage) = tool(&["du"], &folder.path);
    let saved: u64 = saved_of(&usage);
    assert!(saved > 1_000_000, "{usage}");
    for path in [
        "/text/a.csv.gz",
        "/text/off.txt",
        "/text/typed",
        "/text/random",
    ] {
        server.get(path);
    }
    await_extents(&server, 11);
    let (_, usage) = tool(&["du"], &folder.path);
    assert_eq!(
        saved_of(&usage),
        saved,
        "something was compressed that should not be"
    );
    assert_eq!(tool(&["verify"], &folder.path).0, 0);
    server.kill();
    let server = start(&folder.path, "", origin.address);
    await_folded(&server);
    let asked = origin.requests();
    for (path, bytes) in &objects {
        let length = bytes.len() as u64;
        let (first, end) = (length / 3, length - length / 4);
        if first < end {
            let part = server.fetch(&Ask::get(path).range(first, end));
            assert_eq!((part.status(), part.cache_word()), (206, "HIT"), "{path}");
            assert!(part.body == bytes[first as usize..end as usize], "{path}");
        }
        let whole = server.get(path);
        assert_eq!((whole.status(), whole.cache_word()), (200, "HIT"), "{path}");
        assert!(whole.body == *bytes, "{path}");
        assert_eq!(whole.header("Content-Encoding"), None);
    }
    server
        .get("/text/random")
        .assert_body(&Tile::new(3), 0, 300_000);
    assert_eq!(origin.requests(), asked, "a hit asked the origin");
    server.finish();
}

/// Of the last line of `du`.
#[track_caller]
fn saved_of(usage: &str) -> u64 {
    let last = usage.lines().last().expect("a sum");
    let words: Vec<&str> = last.split_whitespace().collect();
    let at = words
        .iter()
        .position(|word| *word == "saved")
        .expect("saved");
    words[at - 1].parse().expect("a number")
}

#[test]
fn rules_of_a_server_without_any_hit_cost_no_wrong_answer_while_they_change() {
    let store = Store::new();
    store.insert("/a/k", Object::tile(1, 3 * MIB));
    let origin = store.serve();
    let rule = |ttl: &str| format!("[[rule]]\nmatch = 'a/*'\nttl = '{ttl}'\n");
    let server = Millrace::setup()
        .shards(2)
        .settings(&rule("1h"))
        .start(origin.address);
    for round in 0..20 {
        let ttl = if round % 2 == 0 { "0s" } else { "1h" };
        std::fs::write(server.settings_file(), rule(ttl)).expect("written");
        server.signal("HUP");
        for _ in 0..10 {
            let read = server.get("/a/k");
            assert_eq!(read.status(), 200);
            read.assert_body(&Tile::new(1), 0, 3 * MIB);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    server.finish();
}

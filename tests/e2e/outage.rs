//! Origins that fail: what was read stays readable, the rest gets its error at once, and nothing is masked that an origin said.

use crate::disk::await_folded;
use crate::harness::millrace::{Scratch, Setup};
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, KIB, MIB, Millrace, PATIENCE, Response, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATH: &str = "/bucket/k";
const HANGS: usize = 1;
const BREAKS: usize = 2;

/// A store that may answer nothing, break off, or refuse.
fn moody(store: &Store, mood: &Arc<AtomicUsize>) -> Stub {
    let (store, mood) = (store.clone(), Arc::clone(mood));
    Stub::start(
        move |seen: &mut Seen, wire: &mut Wire| match mood.load(Ordering::Acquire) {
            HANGS => wire.hang(),
            BREAKS => After::Close,
            403 => wire.refuse("403 Forbidden", "AccessDenied"),
            404 => wire.refuse("404 Not Found", "NoSuchKey"),
            503 => wire.refuse("503 Service Unavailable", "SlowDown"),
            _ => store.answer(seen, wire),
        },
    )
}

/// Copies that are past their time after 200 ms, and are served for an hour more while the origin fails.
fn short(more: &str) -> Setup {
    Millrace::setup().settings(&format!(
        "[cache]\nttl = '200ms'\nstale_if_error = '1h'\n\
         [upstream]\nkeepalive = '0s'\nfirst_byte_timeout = '600ms'\n\
         [outage]\ndelay = '300ms'\n{more}"
    ))
}

fn await_stale() {
    std::thread::sleep(Duration::from_millis(250));
}

#[track_caller]
fn assert_stale(response: &Response) {
    assert_eq!(response.cache_word(), "STALE");
    let status = response.header("cache-status").expect("Cache-Status");
    assert_eq!(status, "millrace; hit; detail=stale-if-error");
    assert!(response.header("age").is_some());
}

/// Whether the breaker of an origin is in this state.
fn is_out(server: &Millrace, state: &str) -> bool {
    let metrics = server.metrics();
    metrics.sum("millrace_upstream_breakers", &[("state", state)]) == 1.0
}

#[test]
fn semantics_90_what_was_read_is_served_while_the_origin_is_down() {
    let store = Store::new();
    let sizes = [0, 1, 5_000, MIB, 20 * MIB];
    let path = |size: u64| format!("/bucket/{size}");
    for size in sizes {
        store.insert(&path(size), Object::tile(90, size));
    }
    let origin = store.serve();
    let server = short("[log]\naccess = '@ACCESS_LOG@'\n")
        .shards(2)
        .start(origin.address);
    for size in sizes {
        server.get(&path(size)).assert_body(&Tile::new(90), 0, size);
    }
    drop(origin);
    await_stale();
    let mut waited = Vec::new();
    for round in 0..5 {
        for size in sizes {
            let begun = Instant::now();
            let head = server.fetch(&Ask::head(&path(size)));
            if round > 0 {
                waited.push(begun.elapsed());
            }
            assert_stale(&head);
            let whole = server.get(&path(size));
            assert_eq!(whole.status(), 200);
            assert_stale(&whole);
            whole.assert_body(&Tile::new(90), 0, size);
            if size > 100 {
                let part = server.fetch(&Ask::get(&path(size)).range(7, size - 5));
                assert_eq!(part.status(), 206);
                assert_stale(&part);
                part.assert_body(&Tile::new(90), 7, size - 5);
            }
        }
    }
    waited.sort_unstable();
    let median = waited[waited.len() / 2];
    assert!(median < Duration::from_millis(20), "{waited:?}");
    let etag = store.object(&path(5_000)).expect("it is there").etag;
    let known = server.fetch(&Ask::get(&path(5_000)).header("If-None-Match", &etag));
    assert_eq!((known.status(), known.cache_word()), (304, "STALE"));
    assert!(server.results("stale") >= 60);
    wait_until("lines of the log", PATIENCE, || {
        let lines = server.access_log_lines();
        lines.iter().any(|line| line.contains("\"stale\""))
    });
    server.finish();
}

#[test]
fn semantics_91_only_the_first_waits_for_an_origin_that_does_not_answer() {
    let (store, mood) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    let paths: Vec<String> = (0..6).map(|number| format!("/bucket/{number}")).collect();
    for path in &paths {
        store.insert(path, Object::tile(91, 100 * KIB));
    }
    let origin = moody(&store, &mood);
    let server = short("").shards(2).start(origin.address);
    for path in &paths {
        server.get(path);
    }
    mood.store(HANGS, Ordering::Release);
    await_stale();
    let mut waited = Vec::new();
    for path in paths.iter().chain(&paths) {
        let begun = Instant::now();
        let response = server.get(path);
        waited.push(begun.elapsed());
        assert_stale(&response);
        response.assert_body(&Tile::new(91), 0, 100 * KIB);
    }
    let timeout = Duration::from_millis(600);
    assert!(
        waited[0] < timeout * 2,
        "more than one time-out: {waited:?}"
    );
    assert!(
        waited[1..].iter().all(|waited| *waited < timeout / 2),
        "{waited:?}"
    );
    mood.store(0, Ordering::Release);
    wait_until("the origin is asked again", PATIENCE, || {
        let response = server.get(&paths[0]);
        response.cache_word() == "REVALIDATED" || response.cache_word() == "HIT"
    });
    server.finish();
}

#[test]
fn semantics_92_an_origin_that_fails_is_not_asked_until_a_probe_goes_well() {
    let (store, mood) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    store.insert(PATH, Object::tile(92, 50_000));
    let origin = moody(&store, &mood);
    let server = short("").shards(2).start(origin.address);
    server.get(PATH);
    mood.store(503, Ordering::Release);
    for number in 0..3 {
        let response = server.get(&format!("/bucket/none-{number}"));
        response.assert_s3_error(503, "SlowDown");
    }
    assert!(is_out(&server, "open"));
    assert_eq!(server.ready_status(), Some(200));
    let asked = origin.requests();
    let refused = server.get("/bucket/none");
    refused.assert_s3_error(503, "ServiceUnavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let put = server.fetch(&Ask::put("/bucket/new", "body"));
    put.assert_s3_error(503, "ServiceUnavailable");
    assert_eq!(origin.requests(), asked, "it was asked");
    std::thread::sleep(Duration::from_millis(350));
    // One probe fails, and the next pause is longer.
    server.get("/bucket/none").assert_s3_error(503, "SlowDown");
    server
        .get("/bucket/none")
        .assert_s3_error(503, "ServiceUnavailable");
    assert_eq!(origin.requests(), asked + 1);
    mood.store(0, Ordering::Release);
    await_stale();
    store.insert(PATH, Object::tile(93, 60_000));
    let fresh = || {
        let response = server.get(PATH);
        assert_eq!(response.status(), 200);
        match response.cache_word() {
            "STALE" => assert_eq!(response.header("age").map(str::is_empty), Some(false)),
            _ => response.assert_body(&Tile::new(93), 0, 60_000),
        }
        response.cache_word() != "STALE"
    };
    wait_until("the new version", PATIENCE, fresh);
    wait_until("the breaker closes", PATIENCE, || {
        server.fetch(&Ask::get("/bucket/none-at-all"));
        !is_out(&server, "open") && !is_out(&server, "half_open")
    });
    assert_eq!(server.fetch(&Ask::put("/bucket/new", "body")).status(), 200);
    server.finish();
}

#[test]
fn semantics_93_what_an_origin_says_of_a_client_or_an_object_is_not_masked() {
    let (store, mood) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    store.insert(PATH, Object::tile(94, 50_000));
    let origin = moody(&store, &mood);
    let server = short("").start(origin.address);
    server.get(PATH);
    await_stale();
    mood.store(403, Ordering::Release);
    for _ in 0..5 {
        server.get(PATH).assert_s3_error(403, "AccessDenied");
    }
    assert!(!is_out(&server, "open"));
    mood.store(503, Ordering::Release);
    assert_stale(&server.get(PATH));
    mood.store(404, Ordering::Release);
    wait_until("its end is known", PATIENCE, || {
        server.get(PATH).status() == 404
    });
    mood.store(503, Ordering::Release);
    server.get(PATH).assert_s3_error(503, "SlowDown");
    server.finish();
}

#[test]
fn semantics_94_copies_on_disk_are_served_after_a_restart_without_an_origin() {
    let (store, folder) = (Store::new(), Scratch::new());
    store.insert(PATH, Object::tile(95, 9 * MIB));
    let origin = store.serve();
    let setup = || {
        short("")
            .shards(2)
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
    };
    let server = setup().start(origin.address);
    server.get(PATH);
    wait_until("the copy is on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]);
        gauge("heads") >= 1.0 && gauge("extents") >= 2.0 && gauge("queued_bytes") == 0.0
    });
    server.finish();
    let address = origin.address;
    drop(origin);
    let server = setup().start(address);
    await_folded(&server);
    await_stale();
    for _ in 0..4 {
        let part = server.fetch(&Ask::get(PATH).range(8 * MIB - 9, 8 * MIB + 9));
        assert_stale(&part);
        part.assert_body(&Tile::new(95), 8 * MIB - 9, 8 * MIB + 9);
    }
    let whole = server.get(PATH);
    assert_stale(&whole);
    whole.assert_body(&Tile::new(95), 0, 9 * MIB);
    server.finish();
}

#[test]
fn semantics_95_stale_while_revalidate_answers_at_once_and_asks_once_behind_it() {
    let store = Store::new();
    store.insert(PATH, Object::tile(96, 50_000));
    let origin = store.serve();
    let rule = "[[rule]]\nmatch = 'bucket/*'\nttl = '300ms'\nstale_while_revalidate = '1h'\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(rule)
        .start(origin.address);
    server.get(PATH);
    std::thread::sleep(Duration::from_millis(350));
    store.insert(PATH, Object::tile(97, 60_000));
    let asked = origin.requests();
    let first = server.get(PATH);
    let status = first.header("cache-status").expect("Cache-Status");
    assert_eq!(status, "millrace; hit; detail=stale-while-revalidate");
    assert_eq!(first.cache_word(), "STALE");
    first.assert_body(&Tile::new(96), 0, 50_000);
    wait_until("the new version", PATIENCE, || {
        let response = server.get(PATH);
        match response.header("content-length") {
            Some("50000") => response.assert_body(&Tile::new(96), 0, 50_000),
            _ => response.assert_body(&Tile::new(97), 0, 60_000),
        }
        response.header("content-length") == Some("60000")
    });
    let question = &origin.seen()[asked];
    assert!(question.header("if-none-match").is_some());
    server.finish();
}

#[test]
fn semantics_96_what_is_not_all_here_or_too_old_gets_the_error() {
    let (store, mood) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    store.insert(PATH, Object::tile(98, 5 * MIB));
    store.insert("/old/k", Object::tile(99, 5_000));
    let origin = moody(&store, &mood);
    let rule = "[[rule]]\nmatch = 'old/*'\nstale_if_error = '0s'\n";
    let server = short(rule).start(origin.address);
    server.fetch(&Ask::get(PATH).range(0, MIB));
    server.get("/old/k");
    mood.store(BREAKS, Ordering::Release);
    await_stale();
    assert_stale(&server.fetch(&Ask::get(PATH).range(5, 900)));
    for _ in 0..2 {
        let gap = server.get(PATH);
        assert!(matches!(gap.status(), 502 | 503), "{}", gap.text());
        let old = server.get("/old/k");
        assert!(matches!(old.status(), 502 | 503), "{}", old.text());
    }
    server.finish();
}

/// A fresh copy of some of the bytes: those are a hit, and what goes beyond them is refused whole, not broken off in its middle.
#[test]
fn semantics_96_no_answer_begins_whose_rest_the_origin_would_have_to_bring() {
    let store = Store::new();
    store.insert(PATH, Object::tile(97, 20 * MIB));
    let origin = store.serve();
    let settings = "[upstream]\nkeepalive = '0s'\n[outage]\ndelay = '30s'\n";
    let server = Millrace::setup().settings(settings).start(origin.address);
    let some = Ask::get(PATH).range(0, MIB);
    server.fetch(&some).assert_body(&Tile::new(97), 0, MIB);
    drop(origin);
    wait_until("an open breaker", PATIENCE, || {
        server.get("/bucket/other");
        is_out(&server, "open")
    });
    for ask in [Ask::get(PATH), Ask::get(PATH).range(5, 9 * MIB)] {
        let begun = Instant::now();
        let refused = server.fetch(&ask);
        assert_eq!(refused.status(), 503, "{}", refused.text());
        assert!(refused.header("retry-after").is_some());
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    let hit = server.fetch(&some);
    assert_eq!((hit.status(), hit.cache_word()), (206, "HIT"));
    hit.assert_body(&Tile::new(97), 0, MIB);
    server.finish();
}

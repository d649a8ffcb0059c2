//! An origin that fails and has a fallback: another place with the same objects, which may lag behind.

use crate::harness::millrace::Setup;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Response, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATH: &str = "/bucket/k";
const WELL: usize = 0;
const HANGS: usize = 1;
const BREAKS: usize = 2;
/// Answers as if nothing had been asked under a condition.
const CARELESS: usize = 3;

/// Copies that stay fresh for the whole test.
const LONG: &str = "[[rule]]\nmatch = 'bucket/*'\nttl = '1h'\nhead_ttl = '1h'\n";
const LATER: &str = "Wed, 12 Aug 2026 11:00:00 GMT";
const EARLIER: &str = "Wed, 12 Aug 2026 09:00:00 GMT";

/// One place of a store that may fail in several ways.
struct Place {
    store: Store,
    mood: Arc<AtomicUsize>,
    stub: Stub,
}

impl Place {
    fn new(store: &Store) -> Place {
        let mood = Arc::new(AtomicUsize::new(WELL));
        let (own, feels) = (store.clone(), Arc::clone(&mood));
        let stub = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
            match feels.load(Ordering::Acquire) {
                HANGS => wire.hang(),
                BREAKS => After::Close,
                CARELESS => {
                    let conditional =
                        |(name, _): &(String, String)| name.to_ascii_lowercase().starts_with("if-");
                    seen.head.headers.retain(|line| !conditional(line));
                    own.answer(seen, wire)
                }
                403 => wire.refuse("403 Forbidden", "AccessDenied"),
                503 => wire.refuse("503 Service Unavailable", "SlowDown"),
                _ => own.answer(seen, wire),
            }
        });
        let store = store.clone();
        Place { store, mood, stub }
    }

    fn feel(&self, mood: usize) {
        self.mood.store(mood, Ordering::Release);
    }

    fn requests(&self) -> usize {
        self.stub.requests()
    }
}

/// Copies that are past their time after 300 ms.
fn setup(fallback: &Place, more: &str) -> Setup {
    Millrace::setup().shards(2).settings(&format!(
        "[routing]\nfallback = ['http://{}']\n[cache]\nttl = '300ms'\nhead_ttl = '300ms'\n{more}\n\
         [upstream]\nkeepalive = '0s'\nfirst_byte_timeout = '600ms'\n[outage]\ndelay = '200ms'\n\
         [log]\naccess = '@ACCESS_LOG@'\n",
        fallback.stub.address
    ))
}

fn await_stale() {
    std::thread::sleep(Duration::from_millis(350));
}

fn fallbacks(server: &Millrace, result: &str) -> f64 {
    let name = "millrace_upstream_fallbacks_total";
    server.metrics().sum(name, &[("result", result)])
}

#[track_caller]
fn assert_fallback(response: &Response) {
    let status = response.header("cache-status").expect("Cache-Status");
    assert!(status.ends_with("; detail=fallback"), "{status}");
}

/// Silent, broken off and busy alike.
#[test]
fn semantics_140_a_fallback_answers_reads_while_the_origin_fails() {
    for mood in [HANGS, BREAKS, 503] {
        let store = Store::new();
        store.insert(PATH, Object::tile(40, 20 * MIB));
        store.insert("/bucket/small", Object::tile(41, 700));
        let (first, second) = (Place::new(&store), Place::new(&store));
        let server = setup(&second, LONG).start(first.stub.address);
        first.feel(mood);
        let whole = server.get(PATH);
        assert_eq!(whole.status(), 200, "{mood}: {}", whole.text());
        whole.assert_body(&Tile::new(40), 0, 20 * MIB);
        assert_fallback(&whole);
        let part = server.fetch(&Ask::get(PATH).range(9 * MIB - 5, 9 * MIB + 5));
        assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
        assert_fallback(&part);
        part.assert_body(&Tile::new(40), 9 * MIB - 5, 9 * MIB + 5);
        let head = server.fetch(&Ask::head("/bucket/small"));
        assert_eq!(head.header("content-length"), Some("700"));
        assert_fallback(&head);
        let listed = server.get("/bucket/small?tagging");
        assert_eq!(listed.status(), 200);
        assert_fallback(&listed);
        let written = second.requests();
        let put = server.fetch(&Ask::put("/bucket/new", "body"));
        assert!(put.status() >= 500, "{}", put.text());
        assert_eq!(second.requests(), written, "a write went to the fallback");
        assert!(fallbacks(&server, "used") >= 3.0);
        wait_until("lines of the log", PATIENCE, || {
            let lines = server.access_log_lines();
            lines
                .iter()
                .filter(|line| line.contains("\"fallback\":true"))
                .count()
                >= 4
        });
        server.finish();
    }
}

#[test]
fn semantics_141_what_a_fallback_refuses_or_does_not_have_says_nothing_of_the_origin() {
    let (store, replica) = (Store::new(), Store::new());
    store.insert(PATH, Object::tile(42, 50_000));
    let (first, second) = (Place::new(&store), Place::new(&replica));
    let server = setup(&second, "stale_if_error = '1h'").start(first.stub.address);
    server.get(PATH);
    first.feel(503);
    await_stale();
    // It is not there yet: the copy stays and is served.
    let stale = server.get(PATH);
    assert_eq!((stale.status(), stale.cache_word()), (200, "STALE"));
    stale.assert_body(&Tile::new(42), 0, 50_000);
    second.feel(403);
    for path in [PATH, "/bucket/other", "/bucket/other?tagging"] {
        let response = server.get(path);
        match path {
            PATH => assert_eq!(response.cache_word(), "STALE"),
            _ => assert_eq!(response.status(), 503, "{}", response.text()),
        }
    }
    second.feel(WELL);
    for ask in [
        Ask::get("/bucket/other"),
        Ask::head("/bucket/other"),
        Ask::get("/bucket/other").range(0, 9),
        Ask::get(PATH).header("If-Match", "\"another\""),
    ] {
        let response = server.fetch(&ask);
        assert_eq!(response.status(), 503, "{}", response.text());
    }
    assert!(fallbacks(&server, "not_taken") >= 4.0);
    first.feel(WELL);
    wait_until("the origin's own word", PATIENCE, || {
        server.get(PATH).cache_word() != "STALE"
    });
    server.get(PATH).assert_body(&Tile::new(42), 0, 50_000);
    server.finish();
}

#[test]
fn semantics_142_bytes_of_a_fallback_are_added_only_to_the_same_version() {
    let (store, replica) = (Store::new(), Store::new());
    store.insert(PATH, Object::tile(43, 20 * MIB));
    replica.insert(PATH, Object::tile(43, 20 * MIB));
    let (first, second) = (Place::new(&store), Place::new(&replica));
    let server = setup(&second, LONG).start(first.stub.address);
    let some = Ask::get(PATH).range(0, MIB);
    server.fetch(&some).assert_body(&Tile::new(43), 0, MIB);
    first.feel(BREAKS);
    server.get("/bucket/none");
    let asked = second.requests();
    let whole = server.get(PATH);
    assert_eq!((whole.status(), whole.cache_word()), (200, "PARTIAL"));
    whole.assert_body(&Tile::new(43), 0, 20 * MIB);
    let seen = second.stub.seen();
    let gaps = seen[asked..].iter().filter(|seen| seen.target() == PATH);
    assert!(gaps.clone().count() >= 3);
    assert!(gaps.clone().all(|gap| gap.header("if-match").is_some()));
    server.finish();
    for mood in [WELL, CARELESS] {
        // The fallback has another version of the same length, and of another one.
        for (seed, length, modified) in [(44, 20 * MIB, LATER), (45, 19 * MIB, EARLIER)] {
            let other = Object::tile(seed, length).rewritten(modified, "x-amz-meta-a", "b");
            replica.insert(PATH, other);
            first.feel(WELL);
            let server = setup(&second, LONG).start(first.stub.address);
            server.fetch(&some).assert_body(&Tile::new(43), 0, MIB);
            first.feel(BREAKS);
            second.feel(mood);
            for ask in [Ask::get(PATH), Ask::get(PATH).range(MIB / 2, 9 * MIB)] {
                // Cut, or refused.
                if let Ok(response) = server.connect().try_exchange(&ask) {
                    assert!(response.status() >= 500, "{}", response.status());
                }
            }
            // What was known stays known.
            let hit = server.fetch(&some);
            assert_eq!((hit.status(), hit.cache_word()), (206, "HIT"));
            hit.assert_body(&Tile::new(43), 0, MIB);
            server.finish();
        }
    }
}

#[test]
fn semantics_142_a_fallback_that_lags_does_not_bring_an_older_version_back() {
    let (store, replica) = (Store::new(), Store::new());
    store.insert(
        PATH,
        Object::tile(46, 5_000).rewritten(LATER, "x-amz-meta-a", "new"),
    );
    replica.insert(PATH, Object::tile(47, 4_000));
    let (first, second) = (Place::new(&store), Place::new(&replica));
    let server = setup(&second, "").start(first.stub.address);
    server.get(PATH).assert_body(&Tile::new(46), 0, 5_000);
    await_stale();
    first.feel(503);
    let refused = server.get(PATH);
    assert_eq!(refused.status(), 503, "{}", refused.text());
    // What was written after it is a new version, as from anybody.
    replica.insert(
        PATH,
        Object::tile(48, 6_000).rewritten("Wed, 12 Aug 2026 12:00:00 GMT", "x-amz-meta-a", "b"),
    );
    let newer = server.get(PATH);
    newer.assert_body(&Tile::new(48), 0, 6_000);
    assert_fallback(&newer);
    server.finish();
}

#[test]
fn semantics_143_a_fallback_is_believed_only_while_the_origin_fails() {
    let (store, replica) = (Store::new(), Store::new());
    store.insert(PATH, Object::tile(49, 5_000));
    replica.insert(PATH, Object::tile(50, 4_000));
    let (first, second) = (Place::new(&store), Place::new(&replica));
    let server = setup(&second, LONG).start(first.stub.address);
    first.feel(503);
    for word in ["MISS", "HIT", "HIT"] {
        let response = server.get(PATH);
        response.assert_body(&Tile::new(50), 0, 4_000);
        assert_eq!(response.cache_word(), word);
        assert_fallback(&response);
    }
    assert_eq!(second.requests(), 1, "hits asked the fallback");
    first.feel(WELL);
    wait_until("the origin's own version", PATIENCE, || {
        let response = server.get(PATH);
        let own = response.body.len() == 5_000;
        if own {
            response.assert_body(&Tile::new(49), 0, 5_000);
            let status = response.header("cache-status").expect("Cache-Status");
            assert!(!status.contains("fallback"), "{status}");
        }
        own
    });
    wait_until("a closed breaker", PATIENCE, || {
        server.get("/bucket/none");
        let breakers = server.metrics();
        breakers.sum("millrace_upstream_breakers", &[("state", "open")]) == 0.0
            && breakers.sum("millrace_upstream_breakers", &[("state", "half_open")]) == 0.0
    });
    let asked = second.requests();
    for _ in 0..3 {
        server.get(PATH).assert_body(&Tile::new(49), 0, 5_000);
    }
    assert_eq!(second.requests(), asked);
    server.finish();
}

#[test]
fn semantics_144_nobody_waits_for_a_silent_origin_once_its_fallback_is_asked() {
    let store = Store::new();
    let path = |number: u64| format!("/bucket/{number}");
    for number in 0..60 {
        store.insert(&path(number), Object::tile(number, 3_000));
    }
    let (first, second) = (Place::new(&store), Place::new(&store));
    let server = setup(&second, "").start(first.stub.address);
    first.feel(HANGS);
    let timeout = Duration::from_millis(600);
    let mut waited = Vec::new();
    for number in 0..40 {
        let begun = Instant::now();
        let response = server.get(&path(number));
        waited.push(begun.elapsed());
        response.assert_body(&Tile::new(number), 0, 3_000);
        std::thread::sleep(Duration::from_millis(20));
    }
    let slow = waited
        .iter()
        .filter(|waited| **waited > timeout / 2)
        .count();
    assert!(slow <= 3, "{waited:?}");
    assert!(waited[0] < timeout * 2, "{:?}", waited[0]);
    // The probes went out behind: the origin is asked again when it is well.
    first.feel(WELL);
    wait_until("the origin is asked again", PATIENCE, || {
        let response = server.get(&path(50));
        let status = response.header("cache-status").expect("Cache-Status");
        !status.contains("fallback")
    });
    server.finish();
}

/// What a fallback said is of no time once the origin is well: it is here, and not fresh.
#[test]
fn who_wants_only_what_is_here_does_not_get_a_fallbacks_word_when_the_origin_is_well() {
    let (store, behind) = (Store::new(), Store::new());
    store.insert(PATH, Object::bytes(b"new"));
    behind.insert(PATH, Object::bytes(b"old"));
    store.insert("/bucket/other", Object::bytes(b"x"));
    let (first, second) = (Place::new(&store), Place::new(&behind));
    let server = setup(&second, LONG).start(first.stub.address);
    first.feel(503);
    assert_eq!(server.get(PATH).text(), "old");
    let cached = || server.fetch(&Ask::get(PATH).header("Cache-Control", "only-if-cached"));
    assert_eq!((cached().status(), cached().text().as_str()), (200, "old"));
    first.feel(WELL);
    wait_until("an origin that is well", PATIENCE, || {
        server.get("/bucket/other?tagging").header("cache-status") == Some("millrace; fwd=bypass")
    });
    let answer = cached();
    assert_eq!(answer.status(), 504, "{}", answer.text());
    assert_eq!(server.get(PATH).text(), "new");
    server.finish();
}

//! A second request beside one whose answer is slow to begin.

use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATH: &str = "/bucket/k";
const RULE: &str = "[[rule]]\nmatch = 'bucket/*'\nhedge_after = '100ms'\n";

/// An origin that hangs on each first request for the same thing, while it is slow.
struct Slow {
    store: Store,
    slow: Arc<AtomicBool>,
    hung: Arc<AtomicUsize>,
    stub: Stub,
}

impl Slow {
    fn new() -> Slow {
        let (store, slow, hung) = (Store::new(), Arc::default(), Arc::default());
        let asked = std::sync::Mutex::new(std::collections::BTreeMap::<String, usize>::new());
        let (own, is_slow, hangs): (Store, Arc<AtomicBool>, Arc<AtomicUsize>) =
            (store.clone(), Arc::clone(&slow), Arc::clone(&hung));
        let stub = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
            let what = format!("{:?} {:?}", seen.head.first_line, seen.header("range"));
            let times = {
                let mut asked = asked.lock().expect("the count");
                let times = asked.entry(what).or_default();
                *times += 1;
                *times
            };
            if is_slow.load(Ordering::Acquire) && times % 2 == 1 {
                hangs.fetch_add(1, Ordering::AcqRel);
                let after = wire.hang();
                hangs.fetch_sub(1, Ordering::AcqRel);
                return after;
            }
            own.answer(seen, wire)
        });
        Slow {
            store,
            slow,
            hung,
            stub,
        }
    }

    fn start(&self, settings: &str) -> Millrace {
        let setup = Millrace::setup().shards(2).settings(settings);
        self.slow.store(true, Ordering::Release);
        setup.start(self.stub.address)
    }
}

fn hedges(server: &Millrace, result: &str) -> f64 {
    let name = "millrace_upstream_hedges_total";
    server.metrics().sum(name, &[("result", result)])
}

/// Reference 2G.119: the one that loses leaves nothing behind.
#[test]
fn semantics_152_the_first_answer_is_used_and_the_other_leaves_no_trace() {
    let origin = Slow::new();
    origin.store.insert(PATH, Object::tile(52, 20 * MIB));
    let server = origin.start(&format!("{RULE}[outage]\nfall = 1\n"));
    let begun = Instant::now();
    let whole = server.get(PATH);
    assert_eq!((whole.status(), whole.cache_word()), (200, "MISS"));
    whole.assert_body(&Tile::new(52), 0, 20 * MIB);
    assert!(begun.elapsed() < Duration::from_secs(5), "it hung");
    // Three stripes, each of them twice, and each byte once.
    assert_eq!(origin.stub.requests(), 6);
    origin.store.assert_sent_once(PATH);
    assert_eq!(hedges(&server, "won"), 3.0);
    let metrics = server.metrics();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert_eq!(sum("millrace_upstream_requests_total", &[]), 3.0);
    assert_eq!(sum("millrace_fills_started_total", &[]), 3.0);
    assert_eq!(sum("millrace_upstream_errors_total", &[]), 0.0);
    assert_eq!(sum("millrace_upstream_breaker_turns_total", &[]), 0.0);
    wait_until("the losers' connections close", PATIENCE, || {
        origin.hung.load(Ordering::Acquire) == 0
    });
    server.get(PATH).assert_body(&Tile::new(52), 0, 20 * MIB);
    assert_eq!(origin.stub.requests(), 6);
    let head = Ask::head("/bucket/head");
    origin.store.insert("/bucket/head", Object::tile(53, 500));
    assert_eq!(server.fetch(&head).header("content-length"), Some("500"));
    assert_eq!(hedges(&server, "won"), 4.0);
    server.finish();
}

/// Also where a gap of a known version is fetched: it is the same question.
#[test]
fn semantics_152_gaps_and_questions_about_a_copy_are_asked_twice_too() {
    let origin = Slow::new();
    origin.store.insert(PATH, Object::tile(54, 5 * MIB));
    let server = origin.start(&format!("{RULE}ttl = '200ms'\n"));
    let some = server.fetch(&Ask::get(PATH).range(0, MIB));
    some.assert_body(&Tile::new(54), 0, MIB);
    server.get(PATH).assert_body(&Tile::new(54), 0, 5 * MIB);
    std::thread::sleep(Duration::from_millis(250));
    let again = server.get(PATH);
    again.assert_body(&Tile::new(54), 0, 5 * MIB);
    assert_eq!(again.cache_word(), "REVALIDATED");
    assert!(hedges(&server, "won") >= 3.0);
    assert_eq!(hedges(&server, "won") * 2.0, origin.stub.requests() as f64);
    server.finish();
}

/// Reference 2G.120: before the first byte only, and only for what has no effect.
#[test]
fn semantics_153_only_slow_reads_of_a_rule_are_asked_twice_and_only_a_share_of_them() {
    let origin = Slow::new();
    for path in ["/bucket/a", "/other/a"] {
        origin.store.insert(path, Object::tile(55, 3_000));
    }
    let settings = format!(
        "{RULE}[upstream]\nfirst_byte_timeout = '500ms'\nretries = 0\n[outage]\nfall = 0\n"
    );
    let server = origin.start(&settings);
    let put = server.fetch(&Ask::put("/bucket/new", "body"));
    assert!(put.status() >= 500, "{}", put.text());
    assert_eq!(server.get("/other/a").status(), 504, "no rule says so");
    assert_eq!(server.get("/bucket/a?tagging").status(), 504);
    assert_eq!(origin.stub.requests(), 3);
    // Answers that begin in time are asked once, however long they take to end.
    origin.slow.store(false, Ordering::Release);
    origin.store.limit_rate(10_000);
    server
        .get("/bucket/a")
        .assert_body(&Tile::new(55), 0, 3_000);
    assert_eq!(origin.stub.requests(), 4);
    let all = ["won", "lost", "failed", "refused"];
    assert!(all.iter().all(|result| hedges(&server, result) == 0.0));
    server.finish();

    // Twenty at a time, of which a tenth may be asked twice.
    let stub = Stub::start(|_: &mut Seen, wire: &mut Wire| wire.hang());
    let settings = format!(
        "{RULE}[upstream]\nfirst_byte_timeout = '800ms'\nretries = 0\n[outage]\nfall = 0\n"
    );
    let server = Millrace::setup().settings(&settings).start(stub.address);
    std::thread::scope(|scope| {
        for number in 0..20 {
            let server = &server;
            scope.spawn(move || {
                let response = server.get(&format!("/bucket/{number}"));
                assert_eq!(response.status(), 504);
            });
        }
    });
    assert!(stub.requests() <= 22, "{}", stub.requests());
    assert!(stub.requests() > 20, "nothing was asked twice");
    assert!(hedges(&server, "refused") >= 18.0);
    server.finish();

    let off = format!(
        "{RULE}[upstream]\nfirst_byte_timeout = '500ms'\nretries = 0\nhedge_percent_max = 0\n"
    );
    let server = Millrace::setup().settings(&off).start(stub.address);
    let before = stub.requests();
    assert_eq!(server.get("/bucket/off").status(), 504);
    assert_eq!(stub.requests(), before + 1);
    server.finish();
}

/// Whichever comes first, late or broken: one answer, of one version, and nothing is held.
#[test]
fn semantics_152_whatever_the_two_answers_do_the_client_gets_one() {
    let store = Store::new();
    for number in 0..40 {
        store.insert(&format!("/bucket/{number}"), Object::tile(number, 2_000));
    }
    let own = store.clone();
    let stub = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        // Delays around the moment of the second request, breaks, errors: by number.
        let mood = (seen.number * 7 + seen.target().len() * 3) % 6;
        std::thread::sleep(Duration::from_millis([0, 5, 95, 100, 105, 180][mood]));
        match seen.number % 5 {
            4 => After::Reset,
            3 if mood == 5 => After::Close,
            _ => own.answer(seen, wire),
        }
    });
    let server = Millrace::setup()
        .shards(2)
        .settings(&format!(
            "{RULE}[outage]\nfall = 0\n[upstream]\nretries = 5\n"
        ))
        .start(stub.address);
    std::thread::scope(|scope| {
        for from in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for number in (from..40).step_by(4) {
                    let response = server.get(&format!("/bucket/{number}"));
                    assert_eq!(response.status(), 200, "{}", response.text());
                    response.assert_body(&Tile::new(number), 0, 2_000);
                }
            });
        }
    });
    let all = ["won", "lost", "failed", "refused"];
    let sum: f64 = all.iter().map(|result| hedges(&server, result)).sum();
    assert!(sum > 0.0, "nothing was slow");
    server.finish();
}

//! A millrace in front of another: the edge asks the core, the core asks the store.

use crate::harness::millrace::Setup;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{
    Ask, MIB, Millrace, PATIENCE, Response, Store, Stub, Tile, free_address, wait_until,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATH: &str = "/bucket/k";
/// What an address as `Host` leads to in every single-origin server of a chain: bucket first.
const HOST: &str = "s3.chain.test";

/// A server whose clients ask for [`HOST`].
fn setup(more: &str) -> Setup {
    Millrace::setup().shards(2).settings(&format!(
        "[routing]\nhosts = ['{HOST}']\n{more}\n[outage]\ndelay = '200ms'\n[upstream]\nkeepalive = '0s'\n"
    ))
}

fn ask(server: &Millrace, ask: Ask) -> Response {
    server.fetch(&ask.header("Host", HOST))
}

fn get(server: &Millrace, path: &str) -> Response {
    ask(server, Ask::get(path))
}

/// The members of `Cache-Status`, over all its lines.
fn members(response: &Response) -> Vec<String> {
    let lines = response.head.all("cache-status").join(", ");
    lines.split(", ").map(str::to_owned).collect()
}

fn age(response: &Response) -> u64 {
    let age = response.header("age").expect("Age");
    age.parse().expect("a number")
}

#[test]
fn semantics_145_a_chain_hits_at_the_edge_and_in_the_core_and_ages_add_up() {
    let store = Store::new();
    store.insert(PATH, Object::tile(60, 20 * MIB));
    let origin = store.serve();
    let core = setup("").start(origin.address);
    let edge = setup("").start(core.door);
    let other = setup("").start(core.door);
    let first = get(&edge, PATH);
    first.assert_body(&Tile::new(60), 0, 20 * MIB);
    assert_eq!(
        members(&first),
        [
            "millrace; fwd=uri-miss; stored",
            "millrace; fwd=uri-miss; stored"
        ]
    );
    store.assert_sent_once(PATH);
    let asked = origin.requests();
    std::thread::sleep(Duration::from_millis(2_100));
    let in_core = get(&other, PATH);
    in_core.assert_body(&Tile::new(60), 0, 20 * MIB);
    assert_eq!(
        members(&in_core),
        ["millrace; hit", "millrace; fwd=uri-miss; stored"]
    );
    assert_eq!(in_core.cache_word(), "MISS");
    assert!(age(&in_core) >= 2, "{}", age(&in_core));
    std::thread::sleep(Duration::from_millis(1_100));
    let at_edge = get(&other, PATH);
    assert_eq!(at_edge.cache_word(), "HIT");
    assert_eq!(members(&at_edge), ["millrace; hit", "millrace; hit"]);
    assert!((3..60).contains(&age(&at_edge)), "{}", age(&at_edge));
    let part = ask(&other, Ask::get(PATH).range(9 * MIB, 9 * MIB + 7));
    assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
    part.assert_body(&Tile::new(60), 9 * MIB, 9 * MIB + 7);
    assert_eq!(origin.requests(), asked);
    store.assert_sent_once(PATH);
    for server in [edge, other, core] {
        server.finish();
    }
}

/// What is old in the core is as old at the edge: times to live do not add up.
#[test]
fn semantics_145_a_copy_is_no_younger_for_having_come_by_a_cache() {
    let store = Store::new();
    store.insert(PATH, Object::tile(61, 5_000));
    let origin = store.serve();
    let core = setup("[cache]\nttl = '1h'\n").start(origin.address);
    get(&core, PATH);
    std::thread::sleep(Duration::from_millis(1_100));
    let edge = setup("[cache]\nttl = '1s'\n").start(core.door);
    get(&edge, PATH).assert_body(&Tile::new(61), 0, 5_000);
    let again = get(&edge, PATH);
    assert_eq!(again.cache_word(), "REVALIDATED");
    again.assert_body(&Tile::new(61), 0, 5_000);
    assert_eq!(origin.requests(), 1);
    edge.finish();
    core.finish();
}

#[test]
fn semantics_146_a_write_through_the_edge_is_seen_behind_every_cache_it_passes() {
    let store = Store::new();
    store.insert(PATH, Object::tile(62, 5_000));
    let origin = store.serve();
    let core = setup("").start(origin.address);
    let edge = setup("").start(core.door);
    for server in [&edge, &core] {
        get(server, PATH).assert_body(&Tile::new(62), 0, 5_000);
    }
    let put = ask(&edge, Ask::put(PATH, "new bytes"));
    assert_eq!(put.status(), 200, "{}", put.text());
    for server in [&edge, &core] {
        assert_eq!(get(server, PATH).text(), "new bytes");
    }
    let gone = ask(&edge, Ask::new("DELETE", PATH));
    assert_eq!(gone.status(), 204);
    for server in [&edge, &core] {
        assert_eq!(get(server, PATH).status(), 404);
    }
    edge.finish();
    core.finish();
}

/// A ring of two, and one that finds itself through a name of its own.
#[test]
fn semantics_147_a_request_that_comes_round_is_refused() {
    let (one, two) = (free_address(), free_address());
    let listen = |address: std::net::SocketAddr| {
        setup("[fill]\nfanout = 1").arguments(&["--listen", &address.to_string()])
    };
    let first = listen(one).start(two);
    let second = listen(two).start(one);
    let begun = Instant::now();
    for request in [
        Ask::get(PATH),
        Ask::head(PATH),
        Ask::get("/bucket?list-type=2"),
        Ask::put(PATH, "body"),
        Ask::new("DELETE", PATH),
    ] {
        let method = request.method.clone();
        let response = ask(&first, request);
        assert_eq!(response.status(), 508, "{method} {}", response.text());
        if method != "HEAD" {
            response.assert_s3_error(508, "InvalidRequest");
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    for server in [first, second] {
        let turned = server.metrics();
        assert_eq!(
            turned.sum("millrace_upstream_breaker_turns_total", &[]),
            0.0
        );
        assert!(turned.sum("millrace_upstream_requests_total", &[]) < 40.0);
        server.finish();
    }
}

#[test]
fn semantics_147_whoever_asks_names_itself_unless_that_is_signed() {
    let store = Store::new();
    store.insert(PATH, Object::tile(63, 500));
    let origin = store.serve();
    let server = setup("").start(origin.address);
    get(&server, PATH);
    ask(
        &server,
        Ask::get("/bucket/other").header("CDN-Loop", "cdn.example; a=b"),
    );
    let signed = "AWS4-HMAC-SHA256 Credential=AK/20260812/us-east-1/s3/aws4_request, \
                  SignedHeaders=cdn-loop;host;x-amz-date, Signature=00";
    let request = Ask::get("/bucket/signed")
        .header("CDN-Loop", "cdn.example")
        .header("x-amz-date", "20260812T000000Z")
        .header("Authorization", signed);
    ask(&server, request);
    let seen = origin.seen();
    let named = |path: &str| {
        let request = seen.iter().find(|seen| seen.target() == path);
        let lines = request.expect("it was asked").head.all("cdn-loop");
        lines
            .iter()
            .map(|&line| line.to_owned())
            .collect::<Vec<_>>()
    };
    let own = named(PATH);
    assert!(own.len() == 1 && own[0].starts_with("millrace-"), "{own:?}");
    assert_eq!(named("/bucket/other"), ["cdn.example; a=b", &own[0]]);
    assert_eq!(named("/bucket/signed"), ["cdn.example"]);
    server.finish();
}

#[test]
fn semantics_148_errors_and_cuts_behind_the_core_reach_the_client_and_do_not_count_against_the_core()
 {
    let (store, broken) = (Store::new(), Arc::new(AtomicBool::new(false)));
    store.insert(PATH, Object::tile(64, 5 * MIB));
    store.insert("/bucket/warm", Object::tile(65, 5_000));
    let (own, breaks) = (store.clone(), Arc::clone(&broken));
    let origin = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        match (breaks.load(Ordering::Acquire), seen.target()) {
            (true, _) => wire.refuse("503 Service Unavailable", "SlowDown"),
            (_, "/bucket/cut") => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nETag: \"c\"\r\n\r\nshort";
                let _ = wire.send(head);
                After::Reset
            }
            _ => own.answer(seen, wire),
        }
    });
    let core = setup("").start(origin.address);
    let edge = setup("").start(core.door);
    let missing = get(&edge, "/bucket/none");
    missing.assert_s3_error(404, "NoSuchKey");
    assert_eq!(members(&missing).len(), 2);
    let cut = edge
        .connect()
        .try_exchange(&Ask::get("/bucket/cut").header("Host", HOST));
    assert!(cut.is_err() || cut.is_ok_and(|response| response.status() >= 500));
    get(&core, "/bucket/warm");
    broken.store(true, Ordering::Release);
    for number in 0..6 {
        let failed = get(&edge, &format!("/bucket/none-{number}"));
        assert_eq!(failed.status(), 503, "{}", failed.text());
    }
    let turns = |server: &Millrace| {
        let metrics = server.metrics();
        metrics.sum(
            "millrace_upstream_breaker_turns_total",
            &[("state", "open")],
        )
    };
    assert_eq!((turns(&edge), turns(&core) >= 1.0), (0.0, true));
    // What the core has can still be had at the edge.
    get(&edge, "/bucket/warm").assert_body(&Tile::new(65), 0, 5_000);
    edge.finish();
    core.finish();
}

#[test]
fn semantics_149_an_edge_asks_the_store_itself_while_its_core_is_down() {
    let store = Store::new();
    store.insert(PATH, Object::tile(66, 20 * MIB));
    store.insert("/bucket/later", Object::tile(67, 5_000));
    let origin = store.serve();
    let core = setup("").start(origin.address);
    let plain = format!("fallback = ['http://{}']", origin.address);
    let edge = setup(&plain).start(core.door);
    let some = ask(&edge, Ask::get(PATH).range(0, MIB));
    some.assert_body(&Tile::new(66), 0, MIB);
    let door = core.door;
    core.kill();
    let whole = get(&edge, PATH);
    assert_eq!(whole.cache_word(), "PARTIAL");
    whole.assert_body(&Tile::new(66), 0, 20 * MIB);
    let later = get(&edge, "/bucket/later");
    later.assert_body(&Tile::new(67), 0, 5_000);
    assert_eq!(
        members(&later),
        ["millrace; fwd=uri-miss; stored; detail=fallback"]
    );
    assert!(ask(&edge, Ask::put(PATH, "body")).status() >= 500);
    let back = setup("").arguments(&["--listen", &door.to_string()]);
    let core = back.start(origin.address);
    wait_until("the core is asked again", PATIENCE, || {
        let response = get(&edge, "/bucket/later");
        response.assert_body(&Tile::new(67), 0, 5_000);
        members(&response).len() == 2
    });
    edge.finish();
    core.finish();
}

#[test]
fn semantics_150_what_is_stale_in_the_core_is_not_fresh_at_the_edge() {
    let store = Store::new();
    store.insert(PATH, Object::tile(68, 5_000));
    let origin = store.serve();
    let stale = "[cache]\nttl = '1s'\nstale_if_error = '1h'\n";
    let core = setup(stale).start(origin.address);
    get(&core, PATH);
    drop(origin);
    std::thread::sleep(Duration::from_millis(1_200));
    let edge = setup("[cache]\nttl = '1s'\n").start(core.door);
    for _ in 0..3 {
        let response = get(&edge, PATH);
        response.assert_body(&Tile::new(68), 0, 5_000);
        assert_eq!(
            members(&response)[0],
            "millrace; hit; detail=stale-if-error"
        );
        assert_ne!(response.cache_word(), "HIT");
        assert!(age(&response) >= 1);
    }
    // And when the core is gone too, the edge says for itself that it is stale.
    edge.finish();
    let edge = setup(stale).start(core.door);
    get(&edge, PATH);
    core.kill();
    let response = get(&edge, PATH);
    response.assert_body(&Tile::new(68), 0, 5_000);
    assert_eq!(response.cache_word(), "STALE");
    assert_eq!(
        members(&response).last().map(String::as_str),
        Some("millrace; hit; detail=stale-if-error")
    );
    edge.finish();
}

//! Freshness: what is too old is asked about with the client's own signature, once, and costs no body while it holds.

use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, MIB, Millrace, Response, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PATH: &str = "/bucket/k";

/// A server whose copies are to be asked about soon, and one object read.
fn aged(store: &Store, shards: u32, origin: &Stub) -> Millrace {
    let server = Millrace::setup()
        .shards(shards)
        .arguments(&["--ttl", "300ms"])
        .start(origin.address);
    assert!(store.object(PATH).is_some());
    server.get(PATH);
    await_stale(&server);
    server
}

fn await_stale(_server: &Millrace) {
    std::thread::sleep(Duration::from_millis(350));
}

fn signed(ask: Ask, names: &str) -> Ask {
    let value = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders={names}, Signature=00"
    );
    ask.header("Authorization", &value)
}

#[track_caller]
fn assert_revalidated(response: &Response) {
    assert_eq!(response.cache_word(), "REVALIDATED");
    let status = response.header("cache-status").expect("Cache-Status");
    assert_eq!(status, "millrace; fwd=stale; fwd-status=304");
    assert_eq!(response.header("age"), Some("0"));
}

#[test]
fn semantics_73_an_old_copy_is_asked_about_without_its_body_and_is_fresh_again() {
    // (2A.10, 2F.109)
    let store = Store::new();
    let object = Object::tile(73, 20 * MIB);
    store.insert(PATH, object.clone());
    let origin = store.serve();
    let server = aged(&store, 2, &origin);
    let (asked, bytes) = (origin.requests(), store.body_bytes());
    let response = server.get(PATH);
    assert_eq!(response.status(), 200);
    assert_revalidated(&response);
    response.assert_body(&Tile::new(73), 0, 20 * MIB);
    assert_eq!((origin.requests(), store.body_bytes()), (asked + 1, bytes));
    let question = &origin.seen()[asked];
    assert_eq!(question.header("if-none-match"), Some(&*object.etag));
    let again = server.get(PATH);
    assert!(again.cache_word() == "HIT" || origin.requests() > asked + 1);
    await_stale(&server);
    let part = server.fetch(&Ask::get(PATH).range(9 * MIB, 10 * MIB));
    assert_eq!(part.status(), 206);
    assert_revalidated(&part);
    part.assert_body(&Tile::new(73), 9 * MIB, 10 * MIB);
    assert_eq!(store.body_bytes(), bytes);
    assert!(server.results("revalidated") >= 2);
    let counted = server.metrics();
    let confirmed = [("result", "confirmed")];
    assert!(counted.sum("millrace_revalidations_total", &confirmed) >= 2.0);
    server.finish();
}

#[test]
fn semantics_74_many_readers_of_an_old_copy_ask_once() {
    // (2F.113)
    let store = Store::new();
    store.insert(PATH, Object::tile(74, 9 * MIB));
    let slow = Arc::new(AtomicBool::new(false));
    let (answers, delay) = (store.clone(), Arc::clone(&slow));
    let origin = Stub::start(move |seen, wire| {
        if delay.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(500));
        }
        answers.answer(seen, wire)
    });
    let server = Millrace::setup()
        .shards(2)
        .arguments(&["--ttl", "2s"])
        .start(origin.address);
    server.get(PATH);
    std::thread::sleep(Duration::from_millis(2_100));
    slow.store(true, Ordering::Release);
    let (asked, bytes) = (origin.requests(), store.body_bytes());
    std::thread::scope(|scope| {
        for reader in 0..32u64 {
            let server = &server;
            scope.spawn(move || {
                let first = reader * 8_191;
                let ask = Ask::get(PATH).range(first, first + MIB);
                let response = server.fetch(&ask);
                assert_eq!(response.status(), 206);
                // A late one finds the copy fresh again.
                assert!(["REVALIDATED", "HIT"].contains(&response.cache_word()));
                response.assert_body(&Tile::new(74), first, first + MIB);
            });
        }
    });
    assert_eq!((origin.requests(), store.body_bytes()), (asked + 1, bytes));
    server.finish();
}

#[test]
fn semantics_75_a_copy_in_place_that_changes_only_metadata_shows() {
    // The ETag is the same, so a 304 comes; its `Last-Modified` tells. (2B.53, 2L.201)
    let store = Store::new();
    let object = Object::tile(75, 3 * MIB);
    store.insert(PATH, object.clone());
    let origin = store.serve();
    let server = aged(&store, 1, &origin);
    let later = "Thu, 13 Aug 2026 10:00:00 GMT";
    store.insert(PATH, object.rewritten(later, "x-amz-meta-new", "1"));
    let bytes = store.body_bytes();
    let response = server.get(PATH);
    assert_eq!(
        (response.status(), response.cache_word()),
        (200, "REVALIDATED")
    );
    assert_eq!(response.header("x-amz-meta-new"), Some("1"));
    assert_eq!(response.header("last-modified"), Some(later));
    response.assert_body(&Tile::new(75), 0, 3 * MIB);
    let head = server.fetch(&Ask::head(PATH));
    assert_eq!(head.header("x-amz-meta-new"), Some("1"));
    let wasted = store.body_bytes() - bytes;
    assert!(wasted <= 3 * MIB, "{wasted} bytes");
    server.finish();
}

#[test]
fn a_304_renews_the_headers_that_it_brings() {
    // RFC 9111, section 4.3.4.
    let number = AtomicUsize::new(0);
    let origin = Stub::start(move |seen, wire| {
        let count = number.fetch_add(1, Ordering::AcqRel).to_string();
        let headers = [
            ("ETag", "\"e\""),
            ("Content-Type", "text/csv"),
            ("x-amz-meta-n", &*count),
        ];
        match seen.header("if-none-match") {
            Some(_) => wire.respond("304 Not Modified", &[headers[0], headers[2]], b""),
            None => wire.respond("200 OK", &headers, b"body"),
        }
    });
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    for count in ["0", "1", "2"] {
        let response = server.get(PATH);
        assert_eq!(response.header("x-amz-meta-n"), Some(count));
        assert_eq!(response.header("content-type"), Some("text/csv"));
        assert_eq!(response.text(), "body");
    }
    server.finish();
}

#[test]
fn semantics_76_a_new_version_is_served_at_once_and_the_old_one_never_again() {
    // Both are of the same second. (2B.52)
    let store = Store::new();
    store.insert(PATH, Object::tile(76, 2 * MIB));
    let origin = store.serve();
    let server = aged(&store, 2, &origin);
    let new = Object::tile(77, 2 * MIB + 5);
    let of_old = store.object(PATH).expect("the old version");
    assert_eq!(new.last_modified(), of_old.last_modified());
    store.insert(PATH, new);
    let response = server.get(PATH);
    assert_eq!((response.status(), response.cache_word()), (200, "EXPIRED"));
    response.assert_body(&Tile::new(77), 0, 2 * MIB + 5);
    for _ in 0..3 {
        let part = server.fetch(&Ask::get(PATH).range(7, 900));
        part.assert_body(&Tile::new(77), 7, 900);
    }
    server.finish();
}

/// A store in front of which one client may be refused, or everything may break.
fn moody(store: &Store, mood: &Arc<AtomicUsize>) -> Stub {
    let (store, mood) = (store.clone(), Arc::clone(mood));
    Stub::start(
        move |seen: &mut Seen, wire: &mut Wire| match mood.load(Ordering::Acquire) {
            403 if seen.header("x-amz-date") == Some("revoked") => {
                wire.refuse("403 Forbidden", "AccessDenied")
            }
            503 => wire.refuse("503 Service Unavailable", "SlowDown"),
            404 => wire.refuse("404 Not Found", "NoSuchKey"),
            _ => store.answer(seen, wire),
        },
    )
}

#[test]
fn semantics_77_refusals_and_errors_of_the_origin_leave_the_copy_alone_and_404_drops_it() {
    // (2D.79, 2D.83)
    let store = Store::new();
    store.insert(PATH, Object::tile(78, 50_000));
    let mood = Arc::new(AtomicUsize::new(0));
    let origin = moody(&store, &mood);
    let server = aged(&store, 1, &origin);
    let bytes = store.body_bytes();
    mood.store(403, Ordering::Release);
    let revoked = Ask::get(PATH).header("x-amz-date", "revoked");
    server.fetch(&revoked).assert_s3_error(403, "AccessDenied");
    assert_revalidated(&server.get(PATH));
    await_stale(&server);
    mood.store(503, Ordering::Release);
    let failed = server.get(PATH);
    failed.assert_s3_error(503, "SlowDown");
    mood.store(0, Ordering::Release);
    assert_revalidated(&server.get(PATH));
    assert_eq!(store.body_bytes(), bytes, "the copy was there all the time");
    await_stale(&server);
    mood.store(404, Ordering::Release);
    server.get(PATH).assert_s3_error(404, "NoSuchKey");
    mood.store(0, Ordering::Release);
    let back = server.get(PATH);
    assert_eq!(back.status(), 200);
    let question = origin.seen().pop().expect("a request");
    assert_eq!(
        question.header("if-none-match"),
        None,
        "the copy is dropped"
    );
    server.finish();
}

#[test]
fn semantics_78_an_origin_that_ignores_the_question_confirms_and_no_body_is_read_in_vain() {
    let body_bytes = Arc::new(AtomicUsize::new(0));
    let sent = Arc::clone(&body_bytes);
    let origin = Stub::start(move |seen, wire| {
        let (first, end) = seen.range(64 * MIB).unwrap_or((0, 64 * MIB));
        let object = Object::tile(79, 64 * MIB);
        let partial = seen.header("range").is_some();
        let head = crate::harness::store::response_head(&object, first, end, partial);
        let tile = Tile::new(79);
        let mut at = first;
        let mut result = wire.send(head);
        while at < end && result.is_ok() {
            let piece = tile.piece(at, (end - at).min(64 * 1024) as usize);
            result = wire.send(piece);
            at += piece.len() as u64;
            sent.fetch_add(piece.len(), Ordering::AcqRel);
        }
        match result {
            Ok(()) => After::KeepAlive,
            Err(_) => After::Close,
        }
    });
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    // As signed, so that one request is for all of it.
    let ask = signed(Ask::get(PATH).range(5, 60 * MIB), "host;range");
    server.fetch(&ask).assert_body(&Tile::new(79), 5, 60 * MIB);
    let before = body_bytes.load(Ordering::Acquire);
    let again = server.fetch(&ask);
    assert_eq!((again.status(), again.cache_word()), (206, "REVALIDATED"));
    let status = again.header("cache-status").expect("Cache-Status");
    assert!(status.contains("fwd-status=200") || status.contains("fwd-status=206"));
    again.assert_body(&Tile::new(79), 5, 60 * MIB);
    let wasted = body_bytes.load(Ordering::Acquire) - before;
    assert!(
        wasted < 16 * MIB as usize,
        "{wasted} bytes were sent in vain"
    );
    server.finish();
}

fn assert_judged_by_itself(server: &Millrace, revoked: bool) {
    let date = if revoked {
        "revoked"
    } else {
        "20260812T100000Z"
    };
    let response = server.fetch(&Ask::get(PATH).header("x-amz-date", date));
    if revoked {
        return response.assert_s3_error(403, "AccessDenied");
    }
    assert_eq!(response.status(), 200);
    response.assert_body(&Tile::new(80), 0, MIB);
}

#[test]
fn semantics_79_with_ttl_zero_every_waiter_is_judged_by_its_own_signature() {
    // (2D.78)
    let store = Store::new();
    store.insert(PATH, Object::tile(80, MIB));
    let mood = Arc::new(AtomicUsize::new(403));
    let origin = moody(&store, &mood);
    let server = Millrace::setup()
        .shards(2)
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    for round in 0..2 {
        let asked = origin.requests();
        std::thread::scope(|scope| {
            for reader in 0..16 {
                let server = &server;
                scope.spawn(move || assert_judged_by_itself(server, reader % 4 == 0));
            }
        });
        assert!(
            origin.requests() >= asked + 16,
            "round {round}: somebody was not asked about"
        );
    }
    // One more round costs no body: the copy is whole.
    let bytes = store.body_bytes();
    assert_revalidated(&server.get(PATH));
    assert_eq!(store.body_bytes(), bytes);
    server.finish();
}

#[test]
fn semantics_80_answers_without_a_body_have_their_own_time() {
    // (2F.109)
    let store = Store::new();
    let object = Object::tile(81, 5_000);
    let etag = object.etag.clone();
    store.insert(PATH, object);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\nttl = '1h'\nhead_ttl = '1s'")
        .start(origin.address);
    server.get(PATH);
    let asked = origin.requests();
    assert_eq!(server.fetch(&Ask::head(PATH)).cache_word(), "HIT");
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(server.get(PATH).cache_word(), "HIT");
    assert_eq!(origin.requests(), asked);
    let head = server.fetch(&Ask::head(PATH));
    assert_eq!(
        (head.status(), head.head.content_length()),
        (200, Some(5_000))
    );
    assert_revalidated(&head);
    assert_eq!(origin.requests(), asked + 1);
    std::thread::sleep(Duration::from_millis(1_100));
    let not_modified = server.fetch(&Ask::get(PATH).header("If-None-Match", &etag));
    assert_eq!(not_modified.status(), 304);
    assert_revalidated(&not_modified);
    assert_eq!(origin.requests(), asked + 2);
    // What a HEAD shows counts for reads too.
    store.insert(PATH, Object::tile(82, 6_000));
    std::thread::sleep(Duration::from_millis(1_100));
    let head = server.fetch(&Ask::head(PATH));
    assert_eq!(head.head.content_length(), Some(6_000));
    server.get(PATH).assert_body(&Tile::new(82), 0, 6_000);
    server.finish();
}

#[test]
fn semantics_81_signed_conditions_and_ranges_are_asked_about_as_signed() {
    let store = Store::new();
    let object = Object::tile(83, 10 * MIB);
    let etag = object.etag.clone();
    store.insert(PATH, object);
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    server.get(PATH);
    let bytes = store.body_bytes();
    let range = signed(Ask::get(PATH).range(MIB, 9 * MIB), "host;range");
    let response = server.fetch(&range);
    assert_eq!(response.status(), 206);
    assert_revalidated(&response);
    response.assert_body(&Tile::new(83), MIB, 9 * MIB);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!(seen.header("range"), Some("bytes=1048576-9437183"));
    assert_eq!(seen.header("if-none-match"), Some(&*etag));
    let names = "host;if-none-match";
    let own = signed(Ask::get(PATH).header("If-None-Match", &etag), names);
    let not_modified = server.fetch(&own);
    assert_eq!(not_modified.status(), 304);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!(seen.head.all("if-none-match").len(), 1);
    assert_eq!(store.body_bytes(), bytes);
    let other = signed(Ask::get(PATH).header("If-None-Match", "\"x\""), names);
    let whole = server.fetch(&other);
    assert_eq!((whole.status(), whole.cache_word()), (200, "REVALIDATED"));
    whole.assert_body(&Tile::new(83), 0, 10 * MIB);
    let seen = origin.seen().pop().expect("a request");
    assert_eq!(seen.header("if-none-match"), Some("\"x\""));
    let failed = signed(Ask::get(PATH).header("If-Match", "\"x\""), "host;if-match");
    server
        .fetch(&failed)
        .assert_s3_error(412, "PreconditionFailed");
    server.finish();
}

#[test]
fn a_copy_on_disk_that_is_too_old_is_asked_about_and_not_fetched_again() {
    let store = Store::new();
    store.insert(PATH, Object::tile(84, 3 * MIB));
    let origin = store.serve();
    let folder = crate::harness::millrace::Scratch::new();
    let setup = || {
        Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB", "--ttl", "300ms"])
    };
    let server = setup().start(origin.address);
    server.get(PATH);
    wait_until("the copy is on disk", Duration::from_secs(10), || {
        let metrics = server.metrics();
        metrics.sum("millrace_disk_heads", &[]) >= 1.0
            && metrics.sum("millrace_disk_extents", &[]) >= 1.0
            && metrics.sum("millrace_disk_queued_bytes", &[]) == 0.0
    });
    server.finish();
    let (asked, bytes) = (origin.requests(), store.body_bytes());
    let server = setup().start(origin.address);
    wait_until("the fold is over", Duration::from_secs(10), || {
        server.metrics().sum("millrace_disk_folding_shards", &[]) == 0.0
    });
    await_stale(&server);
    let response = server.get(PATH);
    assert_eq!(response.status(), 200);
    response.assert_body(&Tile::new(84), 0, 3 * MIB);
    assert_eq!((origin.requests(), store.body_bytes()), (asked + 1, bytes));
    assert_revalidated(&response);
    server.finish();
}

#[test]
fn metadata_that_changed_in_place_is_not_the_old_one_after_a_restart() {
    // The version is the same: what is on disk of its head is not. (201)
    let store = Store::new();
    let object = Object::tile(87, 3 * MIB);
    store.insert(PATH, object.clone());
    let origin = store.serve();
    let folder = crate::harness::millrace::Scratch::new();
    let setup = |ttl: &'static str| {
        Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB", "--ttl", ttl])
    };
    let is_written = |server: &Millrace| {
        let metrics = server.metrics();
        let loaded = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]);
        loaded("heads") == 1.0 && loaded("extents") == 1.0 && loaded("queued_bytes") == 0.0
    };
    let server = setup("300ms").start(origin.address);
    server.get(PATH);
    wait_until("the copy is on disk", Duration::from_secs(10), || {
        is_written(&server)
    });
    await_stale(&server);
    let later = "Thu, 13 Aug 2026 10:00:00 GMT";
    store.insert(PATH, object.rewritten(later, "x-amz-meta-new", "1"));
    let asked = server.get(PATH);
    assert_eq!(asked.header("x-amz-meta-new"), Some("1"));
    wait_until("the new head is on disk", Duration::from_secs(10), || {
        let stored = server.metrics().sum("millrace_disk_stored_total", &[]);
        stored >= 3.0 && is_written(&server)
    });
    server.finish();
    let server = setup("1h").start(origin.address);
    wait_until("the fold is over", Duration::from_secs(10), || {
        server.metrics().sum("millrace_disk_folding_shards", &[]) == 0.0
    });
    let response = server.get(PATH);
    assert_eq!(response.header("x-amz-meta-new"), Some("1"));
    response.assert_body(&Tile::new(87), 0, 3 * MIB);
    server.finish();
}

/// One answer of one version, or a connection that was cut because the version went in the middle; the version's number.
#[track_caller]
fn one_version(server: &Millrace, first: u64, end: u64) -> Option<u64> {
    let ask = Ask::get(PATH).range(first, end);
    let response = server.connect().try_exchange(&ask).ok()?;
    assert_eq!(response.status(), 206, "{}", response.text());
    let etag = response.header("etag").expect("an ETag");
    let seed = u64::from_str_radix(etag.trim_matches('"'), 16).expect("the seed");
    response.assert_body(&Tile::new(seed), first, end);
    Some(seed)
}

fn read_versions(server: &Millrace, reader: u64, over: &AtomicBool) -> (u64, u64) {
    let (mut whole, mut youngest) = (0, 0);
    for step in 0.. {
        if over.load(Ordering::Acquire) {
            break;
        }
        // Some within a stripe, some over its border.
        let first = (reader * 1_777_777 + step * 777_777) % (8 * MIB);
        let end = (first + 1 + (step % 7) * 300_000).min(9 * MIB);
        if let Some(seed) = one_version(server, first, end) {
            whole += 1;
            youngest = youngest.max(seed);
        }
    }
    (whole, youngest)
}

#[test]
fn versions_that_change_under_load_are_never_mixed() {
    for ttl in ["0s", "1s"] {
        let store = Store::new();
        store.insert(PATH, Object::tile(1_000, 9 * MIB));
        let origin = store.serve();
        let server = Millrace::setup()
            .shards(2)
            .arguments(&["--ttl", ttl])
            .start(origin.address);
        let over = AtomicBool::new(false);
        let (whole, youngest) = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..16)
                .map(|reader| {
                    let (server, over) = (&server, &over);
                    scope.spawn(move || read_versions(server, reader, over))
                })
                .collect();
            for seed in 1_001..1_031 {
                std::thread::sleep(Duration::from_millis(100));
                store.insert(PATH, Object::tile(seed, 9 * MIB));
            }
            over.store(true, Ordering::Release);
            let ended = readers
                .into_iter()
                .map(|reader| reader.join().expect("a reader"));
            ended.fold((0, 0), |(sum, most), (whole, youngest)| {
                (sum + whole, most.max(youngest))
            })
        });
        assert!(whole > 50, "{whole} whole answers with ttl {ttl}");
        assert!(
            youngest > 1_010,
            "no newer version was seen than {youngest}"
        );
        std::thread::sleep(Duration::from_millis(1_100));
        assert_eq!(one_version(&server, 0, 100), Some(1_030), "ttl {ttl}");
        server.finish();
    }
}

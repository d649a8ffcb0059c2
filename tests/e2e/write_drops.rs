//! What a write drops: whatever it names is out of the cache before its answer, also where the origin's answer is an error or never comes, and
//! what began to be fetched before it does not bring the old version back.

use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Connection, KIB, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How the origin ends a write that it has done.
const OUTCOMES: [&str; 4] = ["200 OK", "500 Internal Server Error", "reset", "close"];

/// An origin that does every write, whatever it is, by making another version of `path`, and ends it as `OUTCOMES` says.
fn doing_everything(store: &Store, path: &'static str, outcome: &Arc<AtomicUsize>) -> Stub {
    let (store, outcome) = (store.clone(), Arc::clone(outcome));
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        if matches!(seen.method(), "GET" | "HEAD") {
            return store.answer(seen, wire);
        }
        let _ = wire.read_body(&seen.head);
        let text = format!("version {}", seen.number);
        store.insert(path, Object::bytes(text.as_bytes()));
        match OUTCOMES[outcome.load(Ordering::Acquire)] {
            "reset" => After::Reset,
            "close" => After::Close,
            status => wire.respond(status, &[("Content-Type", "application/xml")], b"<Done/>"),
        }
    })
}

fn form(key: &str) -> Ask {
    let part = |name: &str, value: &str| {
        format!("--xx\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let file = "--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"k\"\r\nContent-Type: text/plain\r\n\r\nnew\r\n--xx--\r\n";
    let body = [part("key", key), part("policy", "e30="), file.to_owned()].concat();
    Ask::new("POST", "/bucket")
        .header("Content-Type", "multipart/form-data; boundary=xx")
        .body(body)
}

fn with_target(mut ask: Ask, target: &str) -> Ask {
    target.clone_into(&mut ask.target);
    ask
}

/// Every write that names `/bucket/k`, or may.
fn writes() -> Vec<Ask> {
    let multi_delete = "<Delete><Object><Key>k</Key></Object></Delete>";
    let mut writes = vec![
        Ask::put("/bucket/k", "x"),
        Ask::put("/bucket/k", ""),
        Ask::put("/bucket/%6B?x-id=PutObject", "x"),
        Ask::put(
            "/bucket/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101%2Fr%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=00",
            "x",
        ),
        Ask::put("/bucket/k", "x").header("If-None-Match", "*"),
        Ask::put("/bucket/k", "x").header("If-Match", "\"e\""),
        Ask::put("/bucket/k", "x").header("x-amz-write-offset-bytes", "5"),
        Ask::put("/bucket/k", "").header("x-amz-copy-source", "/bucket/o"),
        Ask::put("/bucket/other", "").header("x-amz-rename-source", "/bucket/k"),
        Ask::put("/bucket/k?partNumber=1&uploadId=u", "x"),
        Ask::put("/bucket/k?partNumber=1&uploadId=u", "").header("x-amz-copy-source", "/b/o"),
        Ask::new("POST", "/bucket/k?uploads"),
        Ask::new("POST", "/bucket/k?uploadId=u").body("<CompleteMultipartUpload/>"),
        Ask::new("DELETE", "/bucket/k?uploadId=u"),
        Ask::new("DELETE", "/bucket/k"),
        Ask::new("DELETE", "/bucket/k?versionId=1"),
        Ask::new("DELETE", "/bucket/k").header("If-Match", "\"e\""),
        Ask::new("POST", "/bucket?delete").body(multi_delete),
        Ask::new("POST", "/bucket/?delete=&x-id=DeleteObjects").body(multi_delete),
        Ask::new("POST", "/bucket?delete").body("no list"),
        Ask::new("POST", "/bucket/k?restore").body("<RestoreRequest/>"),
        Ask::new("POST", "/bucket/k?restore&versionId=3").body("<RestoreRequest/>"),
        Ask::new("POST", "/bucket/k?select&select-type=2").body("<S/>"),
        Ask::new("POST", "/bucket/k").body("x"),
        Ask::new("POST", "/bucket/k?append&position=0").body("x"),
        Ask::new("PATCH", "/bucket/k").body("x"),
        Ask::new("MOVE", "/bucket/k").header("Destination", "/bucket/o"),
        Ask::new("DELETE", "/bucket"),
        form("k"),
        form("${filename}"),
        with_target(form("k"), "/bucket/"),
        with_target(form("k"), "/bucket?x=y"),
        // The bucket in a host that nobody listed: its path says nothing of it.
        with_target(form("k"), "/"),
    ];
    for subresource in [
        "acl",
        "tagging",
        "retention",
        "legal-hold",
        "torrent",
        "encryption",
        "annotation",
        "renameObject",
        "x-unknown",
    ] {
        writes.push(Ask::put(&format!("/bucket/k?{subresource}"), "<Xml/>"));
        writes.push(Ask::new("DELETE", &format!("/bucket/k?{subresource}")));
    }
    writes
}

/// Reference 2A.2, 2A.3, 2A.4, 2A.5 and 2A.9.
#[test]
fn semantics_168_whatever_a_write_names_is_dropped_before_its_answer_however_it_ends() {
    let (store, outcome) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    let path = "/bucket/k";
    let origin = doing_everything(&store, path, &outcome);
    let settings = "[cache]\nwrite_through = true\n[outage]\nfall = 0\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(settings)
        .start(origin.address);
    let mut readers: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    let mut cached = 0;
    for (number, end) in OUTCOMES.into_iter().enumerate() {
        outcome.store(number, Ordering::Release);
        for write in &writes() {
            let before = Object::bytes(format!("before {number}").as_bytes());
            store.insert(path, before);
            let old = server.get(path);
            // After a write in doubt reads pass for a while.
            cached += usize::from(server.get(path).cache_word() == "HIT");
            let mut writer = server.connect();
            match writer.try_exchange(write) {
                Ok(answer) if number == 0 => assert_eq!(answer.status(), 200, "{write:?}"),
                Ok(answer) => assert!(answer.status() >= 500, "{write:?}: {}", answer.status()),
                Err(broken) => panic!("{write:?}: {broken:?}"),
            }
            let now = store.object(path).expect("it is there").etag;
            for reader in &mut readers {
                let read = reader.exchange(&Ask::get(path));
                assert_ne!(read.body, old.body, "{end} after {write:?}");
                assert_eq!(Object::bytes(&read.body).etag, now, "{end} after {write:?}");
            }
        }
        if number == 0 {
            assert_eq!(
                cached,
                writes().len(),
                "what is not cached cannot be dropped"
            );
        }
    }
    drop(readers);
    server.finish();
}

/// What was under way when a write came is the reader's who asked for it, and nobody else's.
#[test]
fn semantics_170_a_fetch_that_began_before_a_write_brings_nothing_back() {
    let (store, outcome) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    let path = "/bucket/k";
    let origin = doing_everything(&store, path, &outcome);
    let server = Millrace::setup()
        .shards(2)
        .settings("[outage]\nfall = 0\n")
        .start(origin.address);
    let writes = [
        Ask::put(path, "x"),
        Ask::put(path, "").header("x-amz-copy-source", "/bucket/o"),
        Ask::new("POST", "/bucket/k?uploadId=u").body("<CompleteMultipartUpload/>"),
        Ask::new("DELETE", path),
        Ask::new("POST", "/bucket?delete").body("<Delete><Object><Key>k</Key></Object></Delete>"),
        Ask::new("POST", "/bucket/k?restore").body("<R/>"),
        form("k"),
    ];
    for (turn, write) in writes.iter().enumerate() {
        let (seed, length) = (turn as u64 + 1, 600 * KIB);
        assert_eq!(server.fetch(&Ask::put(path, "before")).status(), 200);
        store.insert(path, Object::tile(seed, length));
        store.shut_gate(200 * KIB);
        let mut reader = server.connect();
        reader.send_ask(&Ask::get(path));
        let head = reader.head().expect("a head");
        assert_eq!(head.status(), 200);
        assert_eq!(server.fetch(write).status(), 200, "{write:?}");
        store.open_gate();
        let tile = Tile::new(seed);
        if let Ok(length_read) = reader.check_body(&head, &tile, 0) {
            assert_eq!(length_read, length);
        }
        drop(reader);
        wait_until("that the fetch has ended", PATIENCE, || {
            server.metrics().sum("millrace_fills_in_flight", &[]) == 0.0
        });
        let now = store.object(path).expect("the new one").etag;
        for _ in 0..2 {
            let read = server.get(path);
            assert_eq!(Object::bytes(&read.body).etag, now, "after {write:?}");
        }
    }
    server.finish();
}

/// A read that begins as soon as the status of a write is there sees it, on another connection of another shard.
#[test]
fn a_read_behind_the_status_line_of_a_write_is_not_too_early() {
    let (store, outcome) = (Store::new(), Arc::new(AtomicUsize::new(0)));
    let path = "/bucket/k";
    let origin = doing_everything(&store, path, &outcome);
    let server = Millrace::setup().shards(2).start(origin.address);
    let mut readers: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    store.insert(path, Object::bytes(b"first"));
    for write in writes().iter().cycle().take(200) {
        for reader in &mut readers {
            reader.exchange(&Ask::get(path));
        }
        let mut writer = server.connect();
        writer.send_ask(write);
        writer.head().expect("a status");
        let now = store.object(path).expect("the new one").etag;
        for reader in &mut readers {
            reader.send_ask(&Ask::get(path));
        }
        for reader in &mut readers {
            let read = reader.response("GET").expect("an answer");
            assert_eq!(Object::bytes(&read.body).etag, now, "after {write:?}");
        }
    }
    drop(readers);
    server.finish();
}

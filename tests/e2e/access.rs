//! Who may read what is cached: everybody, whom the origin lets each time, or whose very request it has let before.

use crate::harness::millrace::Scratch;
use crate::harness::sign::amz_date;
use crate::harness::store::Object;
use crate::harness::stub::After;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Response, Store, Stub, Tile, wait_until};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

const PATH: &str = "/bucket/k";

/// In the list: the origin answers nobody.
const DOWN: &str = "everybody";

/// Who may not read any more, by access key id.
type Revoked = Arc<Mutex<Vec<String>>>;

/// An origin that knows whom it lets read, and when a presigned URL is over; it verifies nothing.
fn guarded(store: &Store) -> (Stub, Revoked) {
    let revoked = Revoked::default();
    let (answers, list) = (store.clone(), Arc::clone(&revoked));
    let origin = Stub::start(move |seen, wire| {
        let says = format!(
            "{} {}",
            seen.target(),
            seen.header("authorization").unwrap_or("Credential=nobody/")
        );
        let is_revoked = |id: &String| {
            says.contains(&format!("Credential={id}/"))
                || says.contains(&format!("Credential={id}%2F"))
        };
        let list = list.lock().expect("the list").clone();
        if list.iter().any(|id| id == DOWN) {
            return After::Close;
        }
        match list.iter().any(is_revoked) {
            true => wire.refuse("403 Forbidden", "AccessDenied"),
            false => answers.answer(seen, wire),
        }
    });
    (origin, revoked)
}

fn revoke(revoked: &Revoked, id: &str) {
    revoked.lock().expect("the list").push(id.to_owned());
}

fn restore(revoked: &Revoked) {
    revoked.lock().expect("the list").clear();
}

/// A signature in form only, dated `age` ago.
fn signed_at(ask: Ask, id: &str, names: &str, age: Duration) -> Ask {
    let date = amz_date(SystemTime::now() - age);
    let day = &date[..8];
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={id}/{day}/us-east-1/s3/aws4_request, SignedHeaders={names}, Signature=5e"
    );
    ask.header("x-amz-date", &date)
        .header("Authorization", &value)
}

fn signed(ask: Ask, id: &str) -> Ask {
    signed_at(ask, id, "host;x-amz-date", Duration::ZERO)
}

fn presigned(method: &str, id: &str, seconds: u64) -> Ask {
    let date = amz_date(SystemTime::now());
    let target = format!(
        "{PATH}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={id}%2F20260812%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host&X-Amz-Signature=5e"
    );
    Ask::new(method, &target)
}

fn start(access: &str, shards: u32, origin: &Stub) -> Millrace {
    Millrace::setup()
        .shards(shards)
        .settings(&format!("[cache]\naccess = '{access}'\n"))
        .start(origin.address)
}

/// A server whose copy of one object of 20 MiB is whole, read by `owner`.
fn filled(seed: u64, access: &str, shards: u32) -> (Store, Stub, Revoked, Millrace) {
    let store = Store::new();
    store.insert(PATH, Object::tile(seed, 20 * MIB));
    let (origin, revoked) = guarded(&store);
    let server = start(access, shards, &origin);
    let cold = server.fetch(&signed(Ask::get(PATH), "owner"));
    assert_eq!((cold.status(), cold.cache_word()), (200, "MISS"));
    cold.assert_body(&Tile::new(seed), 0, 20 * MIB);
    (store, origin, revoked, server)
}

#[track_caller]
fn events(server: &Millrace, event: &str) -> u64 {
    let metrics = server.metrics();
    metrics.sum("millrace_access_total", &[("event", event)]) as u64
}

/// Fetches, and says by how many requests the origin was asked.
fn asked_by(server: &Millrace, origin: &Stub, ask: &Ask) -> (Response, usize) {
    let before = origin.requests();
    let response = server.fetch(ask);
    (response, origin.requests() - before)
}

#[test]
fn semantics_100_under_revalidate_every_read_is_asked_about_and_costs_no_body() {
    let (store, origin, revoked, server) = filled(100, "revalidate", 2);
    let bytes = store.body_bytes();
    revoke(&revoked, "mallory");
    for round in 0..2 {
        let (whole, asked) = asked_by(&server, &origin, &signed(Ask::get(PATH), "alice"));
        assert_eq!((whole.status(), whole.cache_word()), (200, "REVALIDATED"));
        whole.assert_body(&Tile::new(100), 0, 20 * MIB);
        assert_eq!(asked, 1, "round {round}");
        let range = signed(Ask::get(PATH).range(7 * MIB, 9 * MIB), "bob");
        let (part, asked) = asked_by(&server, &origin, &range);
        assert_eq!((part.status(), part.cache_word()), (206, "REVALIDATED"));
        part.assert_body(&Tile::new(100), 7 * MIB, 9 * MIB);
        assert_eq!(asked, 1);
        let (head, asked) = asked_by(&server, &origin, &signed(Ask::head(PATH), "alice"));
        assert_eq!((head.status(), head.cache_word()), (200, "REVALIDATED"));
        assert_eq!(asked, 1);
        let seen = origin.seen().pop().expect("a question");
        assert!(seen.header("if-none-match").is_some());
        // One client is refused while the others read.
        for ask in [
            Ask::get(PATH),
            Ask::get(PATH).range(5, 10),
            presigned("GET", "mallory", 600),
        ] {
            let ask = match ask.target == PATH {
                true => signed(ask, "mallory"),
                false => ask,
            };
            server.fetch(&ask).assert_s3_error(403, "AccessDenied");
        }
        let head = server.fetch(&signed(Ask::head(PATH), "mallory"));
        assert_eq!(head.status(), 403);
    }
    assert_eq!(store.body_bytes(), bytes, "a body was fetched again");
    assert_eq!(events(&server, "refused"), 8);
    assert_eq!(events(&server, "asked"), 15);
    server.finish();
}

#[test]
fn semantics_101_under_revalidate_waiters_share_no_answer_and_a_revoked_client_is_out_at_once() {
    // (2D.80)
    let (store, origin, revoked, server) = filled(101, "revalidate", 2);
    let bytes = store.body_bytes();
    let ask = signed(Ask::get(PATH).range(0, MIB), "alice");
    assert_eq!(server.fetch(&ask).status(), 206);
    revoke(&revoked, "alice");
    server.fetch(&ask).assert_s3_error(403, "AccessDenied");
    let before = origin.requests();
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let server = &server;
            scope.spawn(move || {
                let id = if reader % 4 == 0 { "alice" } else { "bob" };
                let response = server.fetch(&signed(Ask::get(PATH).range(0, MIB), id));
                if id == "alice" {
                    return response.assert_s3_error(403, "AccessDenied");
                }
                assert_eq!(response.status(), 206);
                response.assert_body(&Tile::new(101), 0, MIB);
            });
        }
    });
    assert!(
        origin.requests() >= before + 16,
        "somebody was not asked about"
    );
    assert_eq!(store.body_bytes(), bytes);
    // Cold, too.
    store.insert("/bucket/cold", Object::tile(5, MIB));
    std::thread::scope(|scope| {
        for reader in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let id = if reader % 2 == 0 { "alice" } else { "bob" };
                let response = server.fetch(&signed(Ask::get("/bucket/cold"), id));
                match id {
                    "alice" => response.assert_s3_error(403, "AccessDenied"),
                    _ => response.assert_body(&Tile::new(5), 0, MIB),
                }
            });
        }
    });
    server.finish();
}

#[test]
fn semantics_102_under_exact_the_same_request_is_a_hit_and_any_other_is_asked_about() {
    let (store, origin, revoked, server) = filled(102, "exact", 1);
    let bytes = store.body_bytes();
    let plain = || {
        let ask = Ask::get(PATH).header("Host", &server.door.to_string());
        ask.header("User-Agent", "reader/1").range(MIB, 3 * MIB)
    };
    let at = Duration::from_secs(20);
    let names = "host;x-amz-content-sha256;x-amz-date";
    let ask = signed_at(
        plain().header("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        "alice",
        names,
        at,
    );
    let (first, asked) = asked_by(&server, &origin, &ask);
    assert_eq!((first.cache_word(), asked), ("REVALIDATED", 1));
    for _ in 0..3 {
        let (again, asked) = asked_by(&server, &origin, &ask);
        assert_eq!((again.status(), again.cache_word(), asked), (206, "HIT", 0));
        again.assert_body(&Tile::new(102), MIB, 3 * MIB);
    }
    revoke(&revoked, "alice");
    let changed = |name: &str, from: &str, to: &str| {
        let mut other = ask.clone();
        let header = other.headers.iter_mut().find(|(own, _)| own == name);
        let value = &mut header.expect("the header").1;
        assert!(value.contains(from), "{value}");
        *value = value.replace(from, to);
        other
    };
    let date = amz_date(SystemTime::now());
    let mut others = vec![
        changed("Authorization", "Signature=5e", "Signature=5f"),
        changed("Authorization", "us-east-1", "us-east-2"),
        changed("Authorization", "host;x-amz-content", "x-amz-content"),
        changed("x-amz-content-sha256", "UNSIGNED-PAYLOAD", "0"),
        changed("x-amz-date", "Z", "Z "),
        changed("User-Agent", "reader/1", "reader/2"),
        ask.clone().header("X-Forwarded-For", "192.0.2.1"),
        ask.clone().header("Referer", "https://page.example/"),
        ask.clone().header("x-amz-security-token", "t"),
    ];
    let mut dated = ask.clone();
    dated
        .headers
        .iter_mut()
        .filter(|(name, _)| name == "x-amz-date")
        .for_each(|header| header.1.clone_from(&date));
    others.push(dated);
    let mut query = ask.clone();
    query.target.push_str("?x-id=GetObject");
    let mut path = ask.clone();
    path.target = "/bucket/%6B".to_owned();
    let mut method = ask.clone();
    method.method = "HEAD".to_owned();
    others.extend([query, path, method]);
    for (number, other) in others.iter().enumerate() {
        let (refused, asked) = asked_by(&server, &origin, other);
        assert_eq!((refused.status(), asked), (403, 1), "{number}: {other:?}");
    }
    let host = changed("Host", &server.door.to_string(), "other:9000");
    let (refused, asked) = asked_by(&server, &origin, &host);
    assert_eq!(refused.status(), 403);
    assert!(asked > 0);
    // None of this is of consequence for the one that was accepted.
    assert_eq!(asked_by(&server, &origin, &ask).1, 0);
    assert_eq!(store.body_bytes(), bytes);
    assert!(events(&server, "known") >= 4 && events(&server, "remembered") == 2);
    server.finish();
}

#[test]
fn semantics_103_under_exact_one_check_serves_all_unsigned_ranges_of_a_presigned_url() {
    let (store, origin, revoked, server) = filled(103, "exact", 2);
    let bytes = store.body_bytes();
    let url = presigned("GET", "alice", 600);
    let (first, asked) = asked_by(&server, &origin, &url.clone().range(0, 100));
    assert_eq!((first.status(), asked), (206, 1));
    revoke(&revoked, "alice");
    for (first, end) in [(0, 100), (5, 9 * MIB), (19 * MIB, 20 * MIB), (7, 8)] {
        let ask = url.clone().range(first, end);
        let ask = ask.header("Accept-Encoding", "identity");
        let (part, asked) = asked_by(&server, &origin, &ask);
        assert_eq!((part.status(), part.cache_word(), asked), (206, "HIT", 0));
        part.assert_body(&Tile::new(103), first, end);
    }
    let (whole, asked) = asked_by(&server, &origin, &url);
    assert_eq!((whole.status(), whole.cache_word(), asked), (200, "HIT", 0));
    let etag = whole.header("etag").expect("an ETag").to_owned();
    let ask = url.clone().header("If-None-Match", &etag);
    let (unchanged, asked) = asked_by(&server, &origin, &ask);
    assert_eq!((unchanged.status(), asked), (304, 0));
    // A HEAD has a signature of its own.
    let head = Ask::head(&url.target);
    let (refused, asked) = asked_by(&server, &origin, &head);
    assert_eq!((refused.status(), asked), (403, 1));
    // Nor is a range that is signed another one.
    restore(&revoked);
    let names = "host;range;x-amz-date";
    let ask = |end| signed_at(Ask::get(PATH).range(0, end), "bob", names, Duration::ZERO);
    let one = ask(100);
    assert_eq!(asked_by(&server, &origin, &one).1, 1);
    assert_eq!(asked_by(&server, &origin, &one).1, 0);
    assert_eq!(asked_by(&server, &origin, &ask(101)).1, 1);
    assert_eq!(store.body_bytes(), bytes);
    server.finish();
}

#[test]
fn semantics_104_what_is_remembered_ends_with_its_signature() {
    let (_store, origin, revoked, server) = filled(104, "exact", 1);
    // 15 minutes from its date; for a presigned URL what it says.
    let age = Duration::from_secs(15 * 60 - 4);
    let by_header = signed_at(Ask::get(PATH), "alice", "host;x-amz-date", age);
    let by_query = presigned("GET", "alice", 4);
    for ask in [&by_header, &by_query] {
        assert_eq!(asked_by(&server, &origin, ask).1, 1);
    }
    revoke(&revoked, "alice");
    for ask in [&by_header, &by_query] {
        let (held, asked) = asked_by(&server, &origin, ask);
        assert_eq!((held.status(), asked), (200, 0), "within its validity");
    }
    std::thread::sleep(Duration::from_millis(5_500));
    for ask in [&by_header, &by_query] {
        let (refused, asked) = asked_by(&server, &origin, ask);
        refused.assert_s3_error(403, "AccessDenied");
        assert_eq!(asked, 1, "it is the origin's to refuse");
    }
    server.finish();
}

#[test]
fn semantics_105_what_has_no_signature_with_an_end_is_asked_about_each_time() {
    let (store, origin, revoked, server) = filled(105, "exact", 1);
    let bytes = store.body_bytes();
    let v2 = Ask::get(PATH).header("Authorization", "AWS AKID:c2ln");
    let undated = Ask::get(PATH).header(
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=alice/1/r/s3/aws4_request, SignedHeaders=host, Signature=5e",
    );
    for ask in [Ask::get(PATH), Ask::head(PATH), v2, undated] {
        for _ in 0..2 {
            let (read, asked) = asked_by(&server, &origin, &ask);
            assert_eq!((read.status(), asked), (200, 1), "{ask:?}");
        }
    }
    revoke(&revoked, "nobody");
    server.get(PATH).assert_s3_error(403, "AccessDenied");
    assert_eq!(store.body_bytes(), bytes);
    server.finish();
}

#[test]
fn semantics_106_access_is_a_rule_of_names_and_holds_as_soon_as_it_is_read() {
    let store = Store::new();
    for path in ["/a/open/k", "/a/exact/k", "/a/each/k"] {
        store.insert(path, Object::tile(106, MIB));
    }
    let (origin, _revoked) = guarded(&store);
    let rules = "[cache]\naccess = 'revalidate'\n\
        [[rule]]\nmatch = 'a/open/**'\naccess = 'open'\n\
        [[rule]]\nmatch = 'a/exact/**'\naccess = 'exact'\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(rules)
        .start(origin.address);
    let (alice, bob) = (
        |path: &str| signed(Ask::get(path), "alice"),
        |path: &str| signed(Ask::get(path), "bob"),
    );
    // (path, whether the same client is asked about again, whether another is)
    for (path, again, other) in [
        ("/a/open/k", 0, 0),
        ("/a/exact/k", 0, 1),
        ("/a/each/k", 1, 1),
    ] {
        let ask = alice(path);
        assert_eq!(server.fetch(&ask).status(), 200);
        assert_eq!(asked_by(&server, &origin, &ask).1, again, "{path}");
        assert_eq!(asked_by(&server, &origin, &bob(path)).1, other, "{path}");
    }
    std::fs::write(server.settings_file(), "[cache]\naccess = 'revalidate'\n").expect("written");
    server.signal("HUP");
    wait_until("the new rules", PATIENCE, || {
        asked_by(&server, &origin, &alice("/a/open/k")).1 == 1
    });
    server.finish();
}

#[test]
fn semantics_107_what_one_shard_has_heard_all_know_and_a_no_takes_it_back() {
    let store = Store::new();
    store.insert(PATH, Object::tile(107, MIB));
    let (origin, revoked) = guarded(&store);
    let settings = "[cache]\naccess = 'exact'\nttl = '3s'\nhead_ttl = '3s'\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(settings)
        .start(origin.address);
    // A connection on each shard.
    let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let alice = signed(Ask::get(PATH), "alice");
    for connection in &mut connections {
        assert_eq!(connection.exchange(&alice).status(), 200);
    }
    assert_eq!(origin.requests(), 1, "a shard had not heard of it");
    std::thread::sleep(Duration::from_millis(3_100));
    // The copy is too old: the origin is asked, and says no.
    revoke(&revoked, "alice");
    let refused = connections[0].exchange(&alice);
    refused.assert_s3_error(403, "AccessDenied");
    let bytes = store.body_bytes();
    let bob = server.fetch(&signed(Ask::get(PATH), "bob"));
    assert_eq!((bob.status(), bob.cache_word()), (200, "REVALIDATED"));
    assert_eq!(store.body_bytes(), bytes, "the copy was left alone");
    // The copy is fresh, and still nobody lets her in.
    drop(connections);
    let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
    for connection in &mut connections {
        let refused = connection.exchange(&alice);
        refused.assert_s3_error(403, "AccessDenied");
    }
    drop(connections);
    server.finish();
}

#[test]
fn semantics_108_nothing_of_it_survives_the_process() {
    let (store, folder) = (Store::new(), Scratch::new());
    store.insert(PATH, Object::tile(108, MIB));
    let (origin, revoked) = guarded(&store);
    let setup = || {
        Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
            .settings("[cache]\naccess = 'exact'\n")
    };
    let server = setup().start(origin.address);
    let alice = signed(Ask::get(PATH), "alice");
    server.fetch(&alice);
    assert_eq!(asked_by(&server, &origin, &alice).1, 0);
    wait_until("the copy is on disk", PATIENCE, || {
        let metrics = server.metrics();
        let gauge = |name: &str| metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64;
        gauge("heads") == 1 && gauge("extents") == 1 && gauge("queued_bytes") == 0
    });
    server.finish();
    let server = setup().start(origin.address);
    crate::disk::await_folded(&server);
    let bytes = store.body_bytes();
    revoke(&revoked, "alice");
    server.fetch(&alice).assert_s3_error(403, "AccessDenied");
    restore(&revoked);
    let (read, asked) = asked_by(&server, &origin, &alice);
    assert_eq!((read.status(), asked), (200, 1));
    read.assert_body(&Tile::new(108), 0, MIB);
    assert_eq!(store.body_bytes(), bytes, "the copy on disk was not used");
    server.finish();
}

#[test]
fn semantics_109_while_the_origin_cannot_be_asked_only_those_read_whom_it_has_let() {
    for (access, remembered) in [("revalidate", false), ("exact", true)] {
        let (_store, _origin, revoked, server) = filled(109, access, 1);
        let alice = signed(Ask::get(PATH).range(0, 1000), "alice");
        assert_eq!(server.fetch(&alice).status(), 206);
        revoke(&revoked, DOWN);
        let again = server.fetch(&alice);
        match remembered {
            true => {
                assert_eq!((again.status(), again.cache_word()), (206, "HIT"));
                again.assert_body(&Tile::new(109), 0, 1000);
            }
            false => assert!(again.status() >= 500, "{access}: {}", again.status()),
        }
        let other = server.fetch(&signed(Ask::get(PATH), "bob"));
        assert!(other.status() >= 500, "{access}: {}", other.status());
        assert!(server.get(PATH).status() >= 500);
        server.finish();
    }
}

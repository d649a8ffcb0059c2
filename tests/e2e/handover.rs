//! A new process takes over the listening sockets: nobody is refused, nothing is cut,
//! and what is read is true although two processes serve for a while.

use crate::harness::millrace::{Millrace, Scratch, admin_status, signal};
use crate::harness::store::Object;
use crate::harness::stub::{Seen, Wire};
use crate::harness::{Ask, Connection, KIB, MIB, PATIENCE, Store, Stub, Tile, wait_until};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The program under a name of its own, so that a test can put another in its place.
pub fn program(folder: &Scratch) -> PathBuf {
    let path = folder.path.join("millrace-program");
    let built = crate::harness::millrace::binary();
    std::fs::hard_link(&built, &path)
        .or_else(|_| std::fs::copy(&built, &path).map(drop))
        .expect("a program");
    path
}

pub fn replace(path: &Path, script: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, script).expect("a script");
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    std::fs::rename(&next, path).expect("in its place");
}

/// The process that serves now, by what it says in the log.
pub fn successor(server: &Millrace) -> u32 {
    let output = server.output();
    let line = output
        .lines()
        .rfind(|line| line.contains("handed over"))
        .expect("a line");
    let pid = line.split("pid=").nth(1).expect("a process");
    let digits: String = pid.chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Ends the process that took over, by its number.
pub struct Heir(pub u32);

impl Drop for Heir {
    fn drop(&mut self) {
        signal(self.0, "TERM");
    }
}

#[test]
fn semantics_206_a_hand_over_under_load_fails_no_request() {
    let store = Store::new();
    for number in 0..64u64 {
        store.insert(&format!("/bucket/{number}"), Object::tile(number, 64 * KIB));
    }
    store.insert("/bucket/large", Object::tile(99, 40 * MIB));
    let origin = store.serve();
    let folder = Scratch::new();
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .shards(2)
        .settings("[server]\ndrain = \"2s\"")
        .start(origin.address);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let door = server.door;
    let mut heir = None;
    std::thread::scope(|scope| {
        for number in 0..64u64 {
            let (stop, done) = (&stop, &done);
            scope.spawn(move || load(door, number, stop, done));
        }
        // A long answer that is under way at the hand-over.
        let long = scope.spawn(move || {
            let mut reader = Connection::open(door);
            reader.send_ask(&Ask::get("/bucket/large"));
            let head = reader.head().expect("a head");
            std::thread::sleep(Duration::from_millis(1500));
            reader.check_body(&head, &Tile::new(99), 0)
        });
        wait_until("some load", PATIENCE, || {
            done.load(Ordering::Relaxed) > 2_000
        });
        server.signal("USR2");
        wait_until("a new process", PATIENCE, || {
            server.output().contains("handed over")
        });
        heir = Some(Heir(successor(&server)));
        let before = done.load(Ordering::Relaxed);
        wait_until("load on the new one", PATIENCE, || {
            done.load(Ordering::Relaxed) > before + 2_000
        });
        assert_eq!(long.join().expect("a reader"), Ok(40 * MIB));
        let status = server.await_exit();
        assert!(status.success(), "{}", server.output());
        let before = done.load(Ordering::Relaxed);
        wait_until("load when the old one has gone", PATIENCE, || {
            done.load(Ordering::Relaxed) > before + 2_000
        });
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(admin_status(server.admin, "/readyz"), Some(200));
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        admin_status(server.admin, "/readyz").is_none()
    });
}

/// One client: keeps its connection as long as it is told to, and takes no failure.
fn load(door: SocketAddr, number: u64, stop: &AtomicBool, done: &AtomicU64) {
    let path = format!("/bucket/{number}");
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Connection::open(door);
        for round in 0..200 {
            let mut ask = Ask::get(&path);
            let last = round == 199 || stop.load(Ordering::Relaxed);
            if last {
                ask = ask.header("Connection", "close");
            }
            let response = connection.exchange(&ask);
            assert_eq!(response.status(), 200);
            response.assert_body(&Tile::new(number), 0, 64 * KIB);
            done.fetch_add(1, Ordering::Relaxed);
            let told = response
                .header("connection")
                .is_some_and(|word| word.eq_ignore_ascii_case("close"));
            if told || last {
                break;
            }
        }
    }
}

#[test]
fn semantics_207_a_new_process_that_does_not_come_up_changes_nothing() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let folder = Scratch::new();
    let path = program(&folder);
    let setup = Millrace::setup().program(&path);
    let server = setup
        .settings("[server]\nhandover = \"1m\"")
        .start(origin.address);
    assert_eq!(server.get("/bucket/k").cache_word(), "MISS");
    let failed = || server.metrics().sum("millrace_handovers_failed_total", &[]);
    replace(&path, "#!/bin/sh\nexit 7\n");
    server.signal("USR2");
    wait_until("it is told", PATIENCE, || failed() == 1.0);
    assert!(server.output().contains("exit status: 7"));
    std::fs::remove_file(&path).expect("removed");
    server.signal("USR2");
    wait_until("it is told again", PATIENCE, || failed() == 2.0);
    // One that comes up with settings that do not hold.
    std::fs::hard_link(crate::harness::millrace::binary(), &path).expect("a program");
    std::fs::write(server.settings_file(), "[server]\nshards = -1\n").expect("written");
    server.signal("USR2");
    wait_until("and again", PATIENCE, || failed() == 3.0);
    assert_eq!(server.ready_status(), Some(200));
    assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
    server.finish();
}

/// A new process that is told to open its doors, is not heard of any more and lives on: what is written through it until it is ended is seen here.
#[test]
fn while_a_new_process_that_failed_still_lives_every_copy_is_asked_about() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let folder = Scratch::new();
    let path = program(&folder);
    let server = Millrace::setup().program(&path).start(origin.address);
    assert_eq!(server.get("/bucket/k").status(), 200);
    assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
    let said = folder.path.join("said");
    // Its sockets are those of the door, of the admin address, and the line.
    let script = format!(
        "#!/bin/sh\nprintf 'ready\\n' >&5\nread word <&5\necho $word > {0}.next\nexec 5>&-\nmv {0}.next {0}\nexec sleep 60\n",
        said.display()
    );
    replace(&path, &script);
    server.signal("USR2");
    wait_until("it was told to open", PATIENCE, || said.exists());
    assert_eq!(std::fs::read_to_string(&said).expect("a word"), "go\n");
    let failed = || server.metrics().sum("millrace_handovers_failed_total", &[]);
    let mut number = 10;
    while failed() == 0.0 {
        number += 1;
        store.insert("/bucket/k", Object::tile(number, 1000));
        let seen = server.get("/bucket/k");
        seen.assert_body(&Tile::new(number), 0, 1000);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(number > 20, "it was ended at once");
    assert_eq!(server.get("/bucket/k").status(), 200);
    assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
    server.finish();
}

#[test]
fn semantics_208_what_is_written_through_either_process_is_seen_through_both() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    store.insert("/bucket/j", Object::tile(2, 1000));
    let origin = store.serve();
    let folder = Scratch::new();
    let cache = Scratch::new();
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .cache_dir(&cache.path)
        .settings("[server]\ndrain = \"30s\"\n[disk]\nsize = \"256MiB\"")
        .start(origin.address);
    let mut old: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    for connection in &mut old {
        connection.exchange(&Ask::get("/bucket/k"));
        let hit = connection.exchange(&Ask::get("/bucket/j"));
        assert_eq!(hit.status(), 200);
    }
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = Heir(successor(&server));
    // Through the new one, seen through the old one.
    let mut new = server.connect();
    assert_eq!(new.exchange(&Ask::get("/bucket/k")).status(), 200);
    assert_eq!(new.exchange(&Ask::get("/bucket/j")).status(), 200);
    let body = Tile::new(5).slice(0, 500);
    let begun = Instant::now();
    assert_eq!(new.exchange(&Ask::put("/bucket/k", body)).status(), 200);
    assert!(begun.elapsed() < Duration::from_secs(2), "a write waited");
    let seen = old[0].exchange(&Ask::get("/bucket/k"));
    seen.assert_body(&Tile::new(5), 0, 500);
    assert_eq!(seen.header("connection"), Some("close"));
    // Through the old one, seen through the new one: at once, and when the old one has gone.
    let body = Tile::new(6).slice(0, 600);
    assert_eq!(old[1].exchange(&Ask::put("/bucket/j", body)).status(), 200);
    let seen = new.exchange(&Ask::get("/bucket/j"));
    seen.assert_body(&Tile::new(6), 0, 600);
    assert!(old[0].closes() && old[1].closes());
    drop(old);
    let status = server.await_exit();
    assert!(status.success(), "{}", server.output());
    for path in ["/bucket/k", "/bucket/j"] {
        let (tile, length) = if path.ends_with('k') {
            (5, 500)
        } else {
            (6, 600)
        };
        let seen = new.exchange(&Ask::get(path));
        seen.assert_body(&Tile::new(tile), 0, length);
    }
    wait_until("the directory is the new one's", PATIENCE, || {
        server
            .output()
            .matches("the cache directory is open")
            .count()
            == 2
    });
    wait_until("copies are trusted again", PATIENCE, || {
        new.exchange(&Ask::get("/bucket/k")).cache_word() == "HIT"
    });
    drop(new);
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        admin_status(server.admin, "/readyz").is_none()
    });
}

/// What was asked before the last write through the old process, and is answered only when that has gone, is asked about again.
#[test]
fn an_answer_older_than_the_last_write_of_the_old_process_is_not_trusted() {
    const SLOW: Duration = Duration::from_millis(1200);
    let version = Arc::new(AtomicU64::new(1));
    let asked = Arc::new(AtomicU64::new(0));
    let (written, seen_gets) = (Arc::clone(&version), Arc::clone(&asked));
    let origin = Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        if seen.method() == "PUT" {
            let _ = wire.read_body(&seen.head);
            written.fetch_add(1, Ordering::SeqCst);
            return wire.respond("200 OK", &[("ETag", "\"put\"")], b"");
        }
        let now = written.load(Ordering::SeqCst);
        if seen_gets.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(SLOW);
        }
        let etag = format!("\"v{now}\"");
        wire.respond(
            "200 OK",
            &[("ETag", &etag)],
            format!("version {now}").as_bytes(),
        )
    });
    let folder = Scratch::new();
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .settings("[server]\ndrain = \"30s\"")
        .start(origin.address);
    let mut old = server.connect();
    assert_eq!(
        old.exchange(&Ask::put("/bucket/j", b"x".to_vec())).status(),
        200
    );
    version.store(1, Ordering::SeqCst);
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = Heir(successor(&server));
    let mut new = server.connect();
    let slow = std::thread::spawn(move || {
        let first = new.exchange(&Ask::get("/bucket/k"));
        (first, new)
    });
    wait_until("the origin is asked", PATIENCE, || {
        asked.load(Ordering::SeqCst) == 1
    });
    let put = old.exchange(&Ask::put("/bucket/k", b"x".to_vec()));
    assert_eq!(put.status(), 200);
    drop(old);
    assert!(server.await_exit().success(), "{}", server.output());
    let (first, mut new) = slow.join().expect("an answer");
    assert_eq!(first.text(), "version 1", "it was asked before the write");
    assert_eq!(new.exchange(&Ask::get("/bucket/k")).text(), "version 2");
    drop(new);
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        admin_status(server.admin, "/readyz").is_none()
    });
}

/// What is overwritten through the new process before it has the cache directory is written down nowhere, and that is known.
#[test]
fn an_old_copy_on_disk_is_not_trusted_when_the_new_process_has_died_before_the_old_one() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    store.insert("/bucket/j", Object::tile(2, 1000));
    let origin = store.serve();
    let (folder, cache) = (Scratch::new(), Scratch::new());
    let path = program(&folder);
    let setup = || {
        let setup = Millrace::setup().program(&path).cache_dir(&cache.path);
        setup.settings("[server]\ndrain = \"30s\"\n[disk]\nsize = \"256MiB\"")
    };
    let server = setup().start(origin.address);
    let mut old = server.connect();
    for path in ["/bucket/k", "/bucket/j"] {
        assert_eq!(old.exchange(&Ask::get(path)).status(), 200);
    }
    crate::disk::await_written(&server, 2, 2);
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = successor(&server);
    let body = Tile::new(5).slice(0, 500);
    assert_eq!(server.fetch(&Ask::put("/bucket/k", body)).status(), 200);
    assert!(signal(heir, "KILL"));
    assert_eq!(old.exchange(&Ask::get("/bucket/j")).status(), 200);
    server.kill();
    let mut second = setup().start(origin.address);
    crate::disk::await_folded(&second);
    second.get("/bucket/k").assert_body(&Tile::new(5), 0, 500);
    let asked = origin.requests();
    let seen = second.get("/bucket/j");
    seen.assert_body(&Tile::new(2), 0, 1000);
    assert_eq!(origin.requests(), asked + 1, "it was not asked about");
    assert_eq!(second.get("/bucket/j").cache_word(), "HIT");
    assert_eq!(origin.requests(), asked + 1);
    // A hand-over that comes to its end leaves nothing in doubt but that.
    second.signal("USR2");
    assert!(second.await_exit().success(), "{}", second.output());
    let heir = successor(&second);
    wait_until("its mark is settled", PATIENCE, || {
        let mark = std::fs::read_to_string(cache.path.join("unrecorded"));
        mark.is_ok_and(|mark| mark.ends_with(" settled\n"))
    });
    assert!(signal(heir, "KILL"));
}

/// Who asks for a hand-over may ask all processes of a service, the one that is being started too.
#[test]
fn the_signal_does_not_end_the_new_process_before_it_listens() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    let folder = Scratch::new();
    let path = program(&folder);
    let mut server = Millrace::setup().program(&path).start(origin.address);
    let built = crate::harness::millrace::binary();
    let script = format!(
        "#!/bin/sh\nkill -USR2 $$\nexec {} \"$@\"\n",
        built.display()
    );
    replace(&path, &script);
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = Heir(successor(&server));
    assert!(server.await_exit().success(), "{}", server.output());
    assert_eq!(admin_status(server.admin, "/readyz"), Some(200));
    assert_eq!(
        Connection::open(server.door)
            .exchange(&Ask::get("/bucket/k"))
            .status(),
        200
    );
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        admin_status(server.admin, "/readyz").is_none()
    });
}

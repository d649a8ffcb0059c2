//! A hand-over that ends at each of its steps, by the death or the stop of either process: one of the two serves, or none that was not told to stop.

use crate::handover::{Heir, program, replace, successor};
use crate::harness::millrace::{Scratch, Setup, signal};
use crate::harness::store::Object;
use crate::harness::{
    Ask, Connection, Millrace, PATIENCE, Store, Stub, Tile, free_address, wait_until,
};
use crate::notify::bound_for;
use command_fds::{CommandFdExt, FdMapping};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn origin() -> (Store, Stub) {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(1, 1000));
    let origin = store.serve();
    (store, origin)
}

/// The part of the process that hands over, played by the test.
struct Before {
    line: UnixStream,
    door: TcpListener,
    _admin: TcpListener,
}

impl Before {
    fn say(&self, word: &str) {
        writeln!(&self.line, "{word}").expect("said");
    }

    /// The next word, or nothing when the other has ended.
    fn hear(&self) -> String {
        let mut word = String::new();
        let _ = BufReader::with_capacity(1, &self.line).read_line(&mut word);
        word.trim_end().to_owned()
    }

    fn serves(&self) -> bool {
        self.door.set_nonblocking(true).expect("set");
        let address = self.door.local_addr().expect("an address");
        let client = TcpStream::connect_timeout(&address, Duration::from_secs(1));
        client.is_ok() && self.door.accept().is_ok()
    }
}

/// A server that is started with the sockets of another.
fn heir() -> (Setup, Receiver<Before>) {
    let (to_test, before) = channel();
    let prepare = move |command: &mut Command| {
        let (door, admin) = (
            bound_for(command, "--listen"),
            bound_for(command, "--admin"),
        );
        let (line, theirs) = UnixStream::pair().expect("a pair");
        line.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let passed: [OwnedFd; 3] = [
            door.try_clone().expect("a handle").into(),
            admin.try_clone().expect("a handle").into(),
            theirs.into(),
        ];
        let mappings = passed.into_iter().zip(3..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .env("LISTEN_PID", std::process::id().to_string())
            .env("LISTEN_FDS", "3")
            .env("LISTEN_FDNAMES", "http:admin:handover")
            .fd_mappings(mappings.collect())
            .expect("mapped");
        let before = Before {
            line,
            door,
            _admin: admin,
        };
        to_test.send(before).expect("a test that listens");
    };
    (Millrace::setup().prepare(prepare), before)
}

#[test]
fn a_new_process_goes_on_alone_when_the_old_one_dies_at_whatever_step() {
    let (_store, origin) = origin();
    for steps in 0..=4 {
        let (setup, before) = heir();
        let old = std::thread::spawn(move || {
            let before = before.recv().expect("a predecessor");
            for step in 0..steps {
                match step {
                    0 => assert_eq!(before.hear(), "ready"),
                    1 => before.say("go"),
                    2 => assert_eq!(before.hear(), "open"),
                    _ => before.say("yours"),
                }
            }
        });
        let server = setup
            .settings("[server]\ndrain = \"100ms\"")
            .start(origin.address);
        old.join().expect("it died in order");
        server.get("/bucket/k").assert_body(&Tile::new(1), 0, 1000);
        wait_until("it knows that it is alone", PATIENCE, || {
            server.get("/bucket/k").cache_word() == "HIT"
        });
        server.finish();
    }
}

#[test]
fn a_new_process_that_is_told_to_end_leaves_the_sockets_unharmed() {
    let (_store, origin) = origin();
    // Instead of `go`, and after `open`.
    for opens in [false, true] {
        let (setup, before) = heir();
        let mut server = setup
            .settings("[server]\ndrain = \"100ms\"")
            .spawn(origin.address);
        let before = before.recv().expect("a predecessor");
        assert_eq!(before.hear(), "ready");
        if opens {
            before.say("go");
            assert_eq!(before.hear(), "open");
            let mut client = server.connect();
            assert_eq!(client.exchange(&Ask::get("/bucket/k")).status(), 200);
            // What the old one knows may be newer for as long as it lives.
            assert_ne!(client.exchange(&Ask::get("/bucket/k")).cache_word(), "HIT");
        }
        before.say("end");
        assert_eq!(server.await_exit().success(), opens, "{}", server.output());
        assert!(before.serves());
    }
}

#[test]
fn a_new_process_that_is_stopped_before_it_opens_leaves_the_doors_to_the_old_one() {
    let (_store, origin) = origin();
    let (setup, before) = heir();
    let mut server = setup.spawn(origin.address);
    let before = before.recv().expect("a predecessor");
    assert_eq!(before.hear(), "ready");
    server.terminate();
    std::thread::sleep(Duration::from_millis(100));
    before.say("go");
    assert_eq!(before.hear(), "", "it opened its doors");
    assert!(!server.await_exit().success());
    assert!(before.serves());
}

/// What a new process of the old one's own making does: its sockets are those of the door, of the admin address, and the line.
fn script(folder: &Scratch, lines: &str) -> String {
    let said = folder.path.join("said");
    format!(
        "#!/bin/sh\nprintf 'ready\\n' >&5\nread word <&5\n{lines}\necho $$ $word > {0}.next\nmv {0}.next {0}\nexec sleep 60\n",
        said.display()
    )
}

#[test]
fn an_old_process_whose_successor_dies_behind_its_last_word_goes_on() {
    let (_store, origin) = origin();
    let folder = Scratch::new();
    let path = program(&folder);
    let server = Millrace::setup().program(&path).start(origin.address);
    // The old one stands still until the line is closed.
    let lines =
        "kill -STOP $PPID\nprintf 'open\\n' >&5\nexec 5>&-\n(sleep 0.2; kill -CONT $PPID) &";
    replace(&path, &script(&folder, lines));
    server.signal("USR2");
    let failed = || server.output().contains("there is no hand-over");
    wait_until("it is told", PATIENCE, failed);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("millrace_handovers_failed_total", &[]), 1.0);
    assert_eq!(server.get("/bucket/k").status(), 200);
    assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
    server.finish();
}

#[test]
fn a_stop_beside_the_last_step_leaves_no_deaf_successor() {
    let (_store, origin) = origin();
    for _ in 0..6 {
        let folder = Scratch::new();
        let path = program(&folder);
        let setup = Millrace::setup().program(&path);
        let mut server = setup
            .settings("[server]\ndrain = \"100ms\"\nhandover = \"100ms\"")
            .start(origin.address);
        let lines = "kill -STOP $PPID\nprintf 'open\\n' >&5\nkill -TERM $PPID\nkill -CONT $PPID\nread word <&5";
        replace(&path, &script(&folder, lines));
        server.signal("USR2");
        assert!(server.await_exit().success(), "{}", server.output());
        let said = folder.path.join("said");
        wait_until("it was told something", PATIENCE, || said.exists());
        let said = std::fs::read_to_string(said).expect("words");
        let (pid, word) = said.trim_end().split_once(' ').expect("a word");
        let _heir = Heir(pid.parse().expect("a number"));
        // Who was given the doors has them; who was not is told so.
        let taken = TcpStream::connect(server.door).is_ok();
        match word {
            "yours" => assert!(taken, "the doors were shut behind it"),
            "end" => assert!(!taken, "nobody serves there"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_nobody_serves_after_a_hand_over_is_refused_and_not_left_waiting() {
    let (_store, origin) = origin();
    let folder = Scratch::new();
    let tunnel = free_address();
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .settings(&format!(
            "[server]\ndrain = \"30s\"\n[listener]\ntunnel = [\"{tunnel}\"]"
        ))
        .start(origin.address);
    let mut old = server.connect();
    assert_eq!(old.exchange(&Ask::get("/bucket/k")).status(), 200);
    assert!(TcpStream::connect(tunnel).is_ok());
    // A door that is in the settings no more.
    std::fs::write(server.settings_file(), "[server]\ndrain = \"1s\"\n").expect("written");
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let refuses = |address: SocketAddr| TcpStream::connect(address).is_err();
    wait_until("it is refused there", PATIENCE, || refuses(tunnel));
    assert_eq!(server.get("/bucket/k").status(), 200);
    // A successor that dies while the old one still has clients: the next server has the address at once.
    assert!(signal(successor(&server), "KILL"));
    wait_until("it is refused there too", PATIENCE, || refuses(server.door));
    drop(TcpListener::bind(server.door).expect("the address is free"));
    drop(TcpListener::bind(server.admin).expect("the address is free"));
    let answer = old.exchange(&Ask::get("/bucket/k"));
    assert_eq!(answer.header("connection"), Some("close"));
    drop(old);
    assert!(server.await_exit().success(), "{}", server.output());
}

/// Whoever waits at a socket that the settings do not know would wait for ever, since systemd keeps it open.
#[test]
fn a_socket_that_systemd_passes_and_that_is_no_door_stops_the_start() {
    let (_store, origin) = origin();
    let stray = TcpListener::bind(free_address()).expect("bound");
    let address = stray.local_addr().expect("an address");
    let setup = Millrace::setup();
    let prepare = crate::notify::activated(&[("millrace.socket", &stray)]);
    let mut server = setup.prepare(prepare).spawn(origin.address);
    assert!(!server.await_exit().success());
    let wanted = format!("\"millrace.socket\" at {address} that was passed at start is no door");
    assert!(server.output().contains(&wanted), "{}", server.output());
}

/// The admin address of a socket that systemd passed is the successor's too, whatever the settings say of one.
#[test]
fn the_passed_admin_socket_goes_on_to_the_successor() {
    let (_store, origin) = origin();
    let folder = Scratch::new();
    let admin = TcpListener::bind(free_address()).expect("bound");
    let address = admin.local_addr().expect("an address");
    let prepare = crate::notify::activated(&[("admin", &admin)]);
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .prepare(prepare)
        .spawn(origin.address);
    let stated = std::mem::replace(&mut server.admin, address);
    wait_until("it is ready", PATIENCE, || {
        server.output().contains("ready")
    });
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = Heir(successor(&server));
    assert!(server.await_exit().success(), "{}", server.output());
    assert_eq!(server.ready_status(), Some(200));
    assert!(TcpStream::connect(stated).is_err());
    let mut client = Connection::open(server.door);
    assert_eq!(client.exchange(&Ask::get("/bucket/k")).status(), 200);
    drop(client);
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        TcpStream::connect(server.door).is_err()
    });
}

/// A program that is slow to begin: the old one, killed or stopped, is gone before the new one looks at what it was given.
#[test]
fn a_new_process_whose_old_one_ends_before_it_has_begun_serves_unless_both_were_stopped() {
    let (_store, origin) = origin();
    for stopped in [false, true] {
        let folder = Scratch::new();
        let path = program(&folder);
        let mut server = Millrace::setup()
            .program(&path)
            .settings("[server]\ndrain = \"100ms\"")
            .start(origin.address);
        let (begun, built) = (
            folder.path.join("begun"),
            crate::harness::millrace::binary(),
        );
        let (begun, built) = (begun.display(), built.display());
        let script = format!(
            "#!/bin/sh\necho $$ > {begun}.next\nmv {begun}.next {begun}\nwhile kill -0 $PPID 2>/dev/null; do sleep 0.01; done\nexec {built} \"$@\"\n"
        );
        replace(&path, &script);
        server.signal("USR2");
        let begun = folder.path.join("begun");
        wait_until("a new process", PATIENCE, || begun.exists());
        let pid = std::fs::read_to_string(begun).expect("a number");
        let heir = Heir(pid.trim_end().parse().expect("a number"));
        match stopped {
            true => server.terminate(),
            false => server.child.kill().expect("kill -9"),
        }
        assert_eq!(server.await_exit().success(), stopped);
        if stopped {
            let lives = format!("/proc/{}/exe", heir.0);
            let lives = std::path::Path::new(&lives);
            wait_until("the new one ends too", PATIENCE, || !lives.exists());
            continue;
        }
        wait_until("the new one serves", PATIENCE, || {
            server.ready_status() == Some(200)
        });
        server.get("/bucket/k").assert_body(&Tile::new(1), 0, 1000);
        drop(heir);
        wait_until("the new one ends", PATIENCE, || {
            server.ready_status().is_none()
        });
    }
}

/// Whoever stops a service stops all its processes.
#[test]
fn semantics_206_an_old_process_that_is_stopped_ends_when_the_drain_is_over() {
    let (store, origin) = origin();
    store.insert("/bucket/large", Object::tile(2, 40 << 20));
    let folder = Scratch::new();
    let mut server = Millrace::setup()
        .program(&program(&folder))
        .settings("[server]\ndrain = \"1s\"\nhandover = \"1h\"")
        .start(origin.address);
    let mut slow = server.connect();
    slow.send_ask(&Ask::get("/bucket/large"));
    let head = slow.head().expect("a head");
    server.signal("USR2");
    wait_until("a new process", PATIENCE, || {
        server.output().contains("handed over")
    });
    let heir = Heir(successor(&server));
    std::thread::sleep(Duration::from_millis(1200));
    assert!(server.child.try_wait().expect("a state").is_none());
    server.terminate();
    assert!(server.await_exit().success(), "{}", server.output());
    assert!(slow.check_body(&head, &Tile::new(2), 0).is_err());
    assert_eq!(server.get("/bucket/k").status(), 200);
    drop(heir);
    wait_until("the new one ends too", PATIENCE, || {
        server.ready_status().is_none()
    });
}

/// There is one admin address.
#[test]
fn a_second_admin_socket_that_systemd_passes_stops_the_start() {
    let (_store, origin) = origin();
    let [first, second] = [(); 2].map(|()| TcpListener::bind(free_address()).expect("bound"));
    let prepare = crate::notify::activated(&[("admin", &first), ("admin", &second)]);
    let mut server = Millrace::setup().prepare(prepare).spawn(origin.address);
    assert!(!server.await_exit().success());
    let address = second.local_addr().expect("an address");
    let wanted = format!("\"admin\" at {address} that was passed at start is no door");
    assert!(server.output().contains(&wanted), "{}", server.output());
}

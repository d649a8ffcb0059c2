//! SIGTERM: readiness fails first, what is under way ends whole, idle connections are
//! let go, the deadline holds, and the exit code is 0.

use crate::harness::store::Object;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Store, Tile, wait_until};
use std::net::TcpStream;
use std::time::{Duration, Instant};

#[test]
fn semantics_36_a_drain_fails_readiness_ends_requests_and_exits_with_0() {
    // (2K.189)
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(90, 20 * MIB));
    let origin = store.serve();
    let mut server = Millrace::start(origin.address);
    store.shut_gate(10 * MIB);
    let mut reader = server.connect();
    reader.send_ask(&Ask::get("/bucket/k"));
    let head = reader.head().expect("a head");
    reader.reader.first_byte().expect("a first byte");
    let mut idle = server.connect();
    idle.exchange(&Ask::head("/bucket/k"));
    server.terminate();
    wait_until("readiness fails", PATIENCE, || {
        server.ready_status() != Some(200)
    });
    assert_eq!(
        server.ready_status(),
        Some(503),
        "while a request is under way the admin door still answers"
    );
    assert!(idle.closes(), "an idle connection holds the drain up");
    assert!(
        server.child.try_wait().expect("its state").is_none(),
        "it left a request behind"
    );
    store.open_gate();
    assert_eq!(reader.check_body(&head, &Tile::new(90), 0), Ok(20 * MIB));
    assert!(reader.closes(), "a drained connection stays open");
    let status = server.await_exit();
    assert_eq!(status.code(), Some(0), "{}", server.output());
}

#[test]
fn a_drain_ends_at_its_deadline_and_no_cut_body_looks_whole() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(91, 20 * MIB));
    let origin = store.serve();
    let mut server = Millrace::setup()
        .settings("[server]\ndrain = \"500ms\"")
        .start(origin.address);
    store.shut_gate(10 * MIB);
    let mut reader = server.connect();
    reader.send_ask(&Ask::get("/bucket/k"));
    let head = reader.head().expect("a head");
    let begun = Instant::now();
    server.terminate();
    assert!(reader.check_body(&head, &Tile::new(91), 0).is_err());
    let status = server.await_exit();
    assert_eq!(status.code(), Some(0), "{}", server.output());
    assert!(begun.elapsed() < Duration::from_secs(10));
}

/// A balancer takes its time to notice that `/readyz` fails.
#[test]
fn semantics_36_who_comes_before_the_doors_close_is_served() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(92, 1000));
    let origin = store.serve();
    let setup = Millrace::setup().settings("[server]\ndrain = \"10s\"");
    let mut server = setup.start(origin.address);
    let mut idle = server.connect();
    assert_eq!(idle.exchange(&Ask::get("/bucket/k")).status(), 200);
    server.terminate();
    wait_until("it drains", PATIENCE, || server.ready_status() == Some(503));
    for _ in 0..20 {
        let mut late = server.connect();
        std::thread::sleep(Duration::from_millis(2));
        let response = late.exchange(&Ask::get("/bucket/k"));
        response.assert_body(&Tile::new(92), 0, 1000);
        assert_eq!(response.header("connection"), Some("close"));
    }
    assert!(idle.closes(), "an idle connection holds the drain up");
    assert!(server.await_exit().success(), "{}", server.output());
}

#[test]
fn doors_are_shut_once_drained() {
    let store = Store::new();
    let origin = store.serve();
    let mut server = Millrace::setup().doors(2).start(origin.address);
    server.terminate();
    assert!(server.await_exit().success());
    for door in &server.doors {
        assert!(TcpStream::connect_timeout(door, Duration::from_secs(1)).is_err());
    }
}

#[test]
fn an_interrupt_drains_too() {
    let store = Store::new();
    let origin = store.serve();
    let mut server = Millrace::start(origin.address);
    server.signal("INT");
    assert!(server.await_exit().success(), "{}", server.output());
}

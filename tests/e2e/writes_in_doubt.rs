//! Writes whose end nobody sees: the origin may do them after their client, or its answer, is gone.

use crate::harness::store::Object;
use crate::harness::stub::After;
use crate::harness::{Ask, Millrace, Store, Stub};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// An origin that takes the whole body of a PUT, does it only when told, and never answers it.
fn late_origin(
    store: &Store,
) -> (
    Stub,
    std::sync::mpsc::Receiver<()>,
    std::sync::mpsc::SyncSender<()>,
) {
    let (taken, has_taken) = sync_channel::<()>(1);
    let (go, may_go) = sync_channel::<()>(1);
    let may_go = Arc::new(Mutex::new(may_go));
    let store = store.clone();
    let origin = Stub::start(move |seen, wire| {
        if seen.method() != "PUT" {
            return store.answer(seen, wire);
        }
        let _ = wire.read_body(&seen.head);
        let _ = taken.send(());
        let _ = may_go.lock().expect("the gate").recv_timeout(PATIENCE);
        store.insert("/bucket/k", Object::bytes(b"new"));
        let _ = taken.send(());
        After::Close
    });
    (origin, has_taken, go)
}

#[test]
fn semantics_57_a_write_whose_end_is_not_seen_lets_no_old_copy_back() {
    for client_leaves in [true, false] {
        let store = Store::new();
        store.insert("/bucket/k", Object::bytes(b"old"));
        let (origin, taken, go) = late_origin(&store);
        let settings = "[upstream]\nfirst_byte_timeout = \"300ms\"\nretries = 0\n";
        let server = Millrace::setup()
            .shards(2)
            .settings(settings)
            .start(origin.address);
        assert_eq!(server.get("/bucket/k").text(), "old");
        assert_eq!(server.get("/bucket/k").cache_word(), "HIT");
        let mut writer = server.connect();
        writer.send_ask(&Ask::put("/bucket/k", "new"));
        taken
            .recv_timeout(PATIENCE)
            .expect("the origin has the body");
        if client_leaves {
            writer.reset();
            server.assert_nothing_held();
        } else {
            let answer = writer.response("PUT").expect("an answer");
            assert_eq!(answer.status(), 504);
            drop(writer);
        }
        for _ in 0..2 {
            let between = server.get("/bucket/k");
            assert_eq!(between.text(), "old", "the origin has not done it yet");
            assert_ne!(between.cache_word(), "HIT");
        }
        go.send(()).expect("the origin waits");
        taken
            .recv_timeout(PATIENCE)
            .expect("the origin has done it");
        assert_eq!(server.get("/bucket/k").text(), "new");
        server.finish();
    }
}

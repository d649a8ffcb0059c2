//! Several shards: a connection stays where it was accepted, hits are served there
//! whoever owns the bytes, and connections are spread evenly.

use crate::harness::store::Object;
use crate::harness::{Ask, Connection, MIB, Millrace, Store, Tile};

fn per_shard(server: &Millrace, name: &str, labels: &[(&str, &str)]) -> [f64; 2] {
    let metrics = server.metrics();
    ["0", "1"].map(|shard| {
        let mut labels = labels.to_vec();
        labels.push(("shard", shard));
        metrics.sum(name, &labels)
    })
}

#[test]
fn semantics_34_hits_are_counted_on_the_shard_that_accepted_the_connection() {
    let store = Store::new();
    for key in 0..8 {
        store.insert(&format!("/bucket/k{key}"), Object::tile(key, 9 * MIB));
    }
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    for key in 0..8 {
        server
            .get(&format!("/bucket/k{key}"))
            .assert_body(&Tile::new(key), 0, 9 * MIB);
    }
    server.assert_nothing_held();
    let before = per_shard(&server, "millrace_requests_total", &[("result", "hit")]);
    // Two connections, one a shard; each reads objects that both shards own.
    let mut connections: Vec<Connection> = Vec::new();
    for _ in 0..2 {
        let mut connection = server.connect();
        assert_eq!(connection.exchange(&Ask::head("/bucket/k0")).status(), 200);
        connections.push(connection);
    }
    assert_eq!(
        per_shard(&server, "millrace_connections_open", &[]),
        [1.0, 1.0]
    );
    let asked = origin.requests();
    let (busy, idle) = (12, 4);
    for round in 0..busy.max(idle) {
        for (connection, rounds) in connections.iter_mut().zip([busy, idle]) {
            if round < rounds {
                let key = round % 8;
                let response = connection.exchange(&Ask::get(&format!("/bucket/k{key}")));
                assert_eq!(response.cache_word(), "HIT");
                response.assert_body(&Tile::new(key), 0, 9 * MIB);
            }
        }
    }
    assert_eq!(origin.requests(), asked);
    let after = per_shard(&server, "millrace_requests_total", &[("result", "hit")]);
    let mut grown = [after[0] - before[0], after[1] - before[1]];
    grown.sort_by(f64::total_cmp);
    // One HEAD each besides.
    assert_eq!(
        grown,
        [idle as f64 + 1.0, busy as f64 + 1.0],
        "hits travelled between shards"
    );
    drop(connections);
    server.finish();
}

#[test]
fn semantics_35_a_new_connection_goes_to_the_shard_with_the_fewest() {
    let store = Store::new();
    store.insert("/bucket/k", Object::bytes(b"x"));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let mut connections = Vec::new();
    for count in 1..=20 {
        let mut connection = server.connect();
        assert_eq!(connection.exchange(&Ask::get("/bucket/k")).text(), "x");
        connections.push(connection);
        let [left, right] = per_shard(&server, "millrace_connections_open", &[]);
        assert_eq!(left + right, f64::from(count));
        assert!((left - right).abs() <= 1.0, "{left} and {right} of {count}");
    }
    drop(connections);
    server.finish();
}

#[test]
fn a_miss_is_streamed_to_readers_on_every_shard() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    for key in 0..6 {
        let path = format!("/bucket/k{key}");
        store.insert(&path, Object::tile(key, 20 * MIB));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| server.get(&path).assert_body(&Tile::new(key), 0, 20 * MIB));
            }
        });
        store.assert_sent_once(&path);
    }
    server.finish();
}

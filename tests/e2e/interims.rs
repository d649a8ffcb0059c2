//! Interim answers (1xx) on their way to the client.

use crate::harness::store::Object;
use crate::harness::{Ask, Connection, Millrace, Store, Stub, Tile};

const HINTS: &str =
    "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nx-one: 1\r\n\r\n";

/// An origin that says something before each answer to a read.
fn hinting(store: &Store) -> Stub {
    let store = store.clone();
    Stub::start(move |seen, wire| {
        if matches!(seen.method(), "GET" | "HEAD" | "OPTIONS") {
            let sent = wire.send(format!("{HINTS}HTTP/1.1 102 Processing\r\n\r\n"));
            sent.expect("the peer is there");
        }
        store.answer(seen, wire)
    })
}

/// The first lines of all heads that come, and the body of the last.
#[track_caller]
fn heads(connection: &mut Connection, ask: &Ask) -> (Vec<String>, Vec<u8>) {
    connection.send_ask(ask);
    let mut lines = Vec::new();
    loop {
        let head = connection.reader.head().expect("a head");
        lines.push(head.first_line.clone());
        if head.status() == 103 {
            assert_eq!(head.header("link"), Some("</style.css>; rel=preload"));
        }
        if head.status() >= 200 {
            let body = connection.body(&ask.method, &head).expect("a body");
            return (lines, body);
        }
    }
}

#[test]
fn semantics_131_interim_answers_reach_the_client_whose_request_passes() {
    // RFC 9110, section 15.2; RFC 8297.
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(131, 5000));
    let origin = hinting(&store);
    let server = Millrace::start(origin.address);
    let mut connection = server.connect();
    for ask in [
        Ask::get("/bucket/k?tagging"),
        Ask::get("/bucket/k").header("Origin", "https://page.example"),
        Ask::head("/bucket/k?tagging"),
        Ask::new("OPTIONS", "/bucket/k"),
        Ask::get("/bucket?list-type=2"),
    ] {
        let (lines, body) = heads(&mut connection, &ask);
        assert_eq!(lines.len(), 3, "{ask:?} {lines:?}");
        assert_eq!(lines[0], "HTTP/1.1 103 Early Hints");
        assert_eq!(lines[1], "HTTP/1.1 102 Processing");
        if ask.target == "/bucket/k?tagging" && ask.method == "GET" {
            assert!(Tile::new(131).holds(0, &body) && body.len() == 5000);
        }
    }
    // What the cache fetches is a request of its own, which may be for many.
    for _ in 0..2 {
        let (lines, body) = heads(&mut connection, &Ask::get("/bucket/k"));
        assert_eq!(lines, ["HTTP/1.1 200 OK"]);
        assert!(Tile::new(131).holds(0, &body) && body.len() == 5000);
    }
    // HTTP/1.0 knows none.
    let mut old = server.connect();
    let mut ask = Ask::get("/bucket/k?tagging").header("Host", &server.door.to_string());
    ask.version = "HTTP/1.0";
    let (lines, _) = heads(&mut old, &ask);
    assert_eq!(lines.len(), 1, "{lines:?}");
    drop((connection, old));
    server.finish();
}

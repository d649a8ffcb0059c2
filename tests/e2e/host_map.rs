//! A host that stands for a bucket: public objects under a name of their own, one copy
//! with the store's own name, and nothing beside them.

use crate::harness::store::Object;
use crate::harness::{Ask, Millrace, Store, Tile};
use std::net::SocketAddr;

fn server(origin: SocketAddr) -> Millrace {
    let settings = format!(
        "[[host]]\nname = \"cdn.example.com\"\nendpoint = \"{origin}\"\nbucket = \"site\"\nprefix = \"public/\"\nindex = \"index.html\"\n\
         [[host]]\nname = \"files.example.com\"\nendpoint = \"{origin}\"\nbucket = \"site\"\n"
    );
    Millrace::setup().settings(&settings).start(origin)
}

fn at(host: &str, target: &str) -> Ask {
    Ask::get(target).header("Host", host)
}

#[test]
fn semantics_209_a_mapped_host_serves_the_objects_of_its_prefix_as_one_copy() {
    let store = Store::new();
    store.insert("/site/public/a/b.bin", Object::tile(1, 20_000));
    store.insert("/site/public/index.html", Object::tile(2, 200));
    store.insert("/site/public/a/index.html", Object::tile(3, 300));
    store.insert("/site/other", Object::tile(4, 400));
    let origin = store.serve();
    let server = server(origin.address);
    let first = server.fetch(&at("cdn.example.com", "/a/b.bin?v=17"));
    assert_eq!((first.status(), first.cache_word()), (200, "MISS"));
    first.assert_body(&Tile::new(1), 0, 20_000);
    let seen = origin.seen();
    let asked = seen.last().expect("a request");
    assert_eq!(asked.target(), "/site/public/a/b.bin");
    assert_eq!(
        asked.header("host"),
        Some(origin.address.to_string().as_str())
    );
    // The store's own name of it, and another host that leads there.
    for ask in [
        Ask::get("/site/public/a/b.bin"),
        at("files.example.com", "/public/a/b.bin"),
        at("CDN.example.com:8080", "/a/b.bin"),
        at("cdn.example.com", "http://cdn.example.com/a/b.bin"),
    ] {
        let hit = server.fetch(&ask);
        assert_eq!(hit.cache_word(), "HIT", "{ask:?}");
        hit.assert_body(&Tile::new(1), 0, 20_000);
    }
    store.assert_sent_once("/site/public/a/b.bin");
    let part = server.fetch(&at("cdn.example.com", "/a/b.bin").range(100, 200));
    assert_eq!(part.status(), 206);
    part.assert_body(&Tile::new(1), 100, 200);
    let index = server.fetch(&at("cdn.example.com", "/"));
    index.assert_body(&Tile::new(2), 0, 200);
    let index = server.fetch(&at("cdn.example.com", "/a/"));
    index.assert_body(&Tile::new(3), 0, 300);
    let preflight = Ask::new("OPTIONS", "/a/b.bin").header("Host", "cdn.example.com");
    server.fetch(&preflight);
    let seen = origin.seen();
    let asked = seen.last().expect("a request");
    let line = (asked.method(), asked.target());
    assert_eq!(line, ("OPTIONS", "/site/public/a/b.bin"));
    // Several requests on one connection, mapped and not.
    let mut connection = server.connect();
    for _ in 0..3 {
        let mapped = connection.exchange(&at("cdn.example.com", "/a/b.bin"));
        mapped.assert_body(&Tile::new(1), 0, 20_000);
        let own = connection.exchange(&Ask::get("/site/other"));
        own.assert_body(&Tile::new(4), 0, 400);
    }
    drop(connection);
    server.finish();
}

#[test]
fn semantics_210_a_mapped_host_refuses_what_is_signed_writes_or_climbs() {
    let store = Store::new();
    store.insert("/site/public/k", Object::tile(1, 100));
    store.insert("/site/secret", Object::tile(2, 100));
    let origin = store.serve();
    let server = server(origin.address);
    let signature =
        "AWS4-HMAC-SHA256 Credential=a/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=0";
    let signed = at("cdn.example.com", "/k").header("Authorization", signature);
    server.fetch(&signed).assert_s3_error(403, "AccessDenied");
    let presigned = at(
        "cdn.example.com",
        "/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=1",
    );
    server
        .fetch(&presigned)
        .assert_s3_error(403, "AccessDenied");
    let host = |ask: Ask| ask.header("Host", "cdn.example.com");
    for write in [
        Ask::put("/k", "x"),
        Ask::new("DELETE", "/k"),
        Ask::new("POST", "/k?uploads"),
    ] {
        let answer = server.fetch(&host(write));
        answer.assert_s3_error(405, "MethodNotAllowed");
    }
    for climb in ["/../secret", "/a/%2e%2e/%2e%2e/secret", "/..%2fsecret"] {
        let answer = server.fetch(&at("cdn.example.com", climb));
        answer.assert_s3_error(400, "InvalidURI");
    }
    let listing = server.fetch(&at("files.example.com", "/?list-type=2"));
    listing.assert_s3_error(403, "AccessDenied");
    assert_eq!(origin.requests(), 0, "nothing of this goes to the store");
    let forbidden = "millrace_requests_forbidden_total";
    let unknown_hosts = server.metrics().sum(forbidden, &[]);
    assert_eq!(unknown_hosts, 0.0, "such a host leads to the store");
    server.finish();
}

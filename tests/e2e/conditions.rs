//! Conditions: answered from the cache where the answer is certain, by the origin where it is not.

use crate::harness::store::Object;
use crate::harness::stub::After;
use crate::harness::{Ask, Millrace, Response, Store, Stub, Tile};

const PATH: &str = "/bucket/k";
const MODIFIED: &str = "Wed, 12 Aug 2026 10:00:00 GMT";
const BEFORE: &str = "Wed, 12 Aug 2026 09:59:59 GMT";

fn warm() -> (Store, Stub, Millrace, String) {
    let store = Store::new();
    let object = Object::tile(70, 1_000).header("Cache-Control", "max-age=60");
    let etag = object.etag.clone();
    store.insert(PATH, object);
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    server.get(PATH);
    (store, origin, server, etag)
}

#[track_caller]
fn assert_304(response: &Response, etag: &str) {
    assert_eq!(response.status(), 304, "{:?}", response.head);
    assert_eq!(response.header("etag"), Some(etag));
    assert_eq!(response.header("last-modified"), Some(MODIFIED));
    assert_eq!(response.header("cache-control"), Some("max-age=60"));
    for name in [
        "content-length",
        "content-type",
        "transfer-encoding",
        "x-amz-meta-mixed",
    ] {
        assert_eq!(response.header(name), None, "{name}");
    }
    for name in ["date", "x-amz-request-id", "age"] {
        assert!(response.header(name).is_some(), "{name}");
    }
}

#[test]
fn semantics_84_conditions_that_a_fresh_copy_decides_are_answered_from_it() {
    // (2C.65, 2C.67)
    let (_store, origin, server, etag) = warm();
    let asked = origin.requests();
    let list = format!("\"x\", {etag}");
    let not_modified = [
        [("If-None-Match", &*etag), ("Accept", "*/*")],
        [("If-None-Match", &list), ("Accept", "*/*")],
        [("If-None-Match", "*"), ("Accept", "*/*")],
        [("If-Modified-Since", MODIFIED), ("Accept", "*/*")],
        [("If-None-Match", &etag), ("If-Modified-Since", BEFORE)],
        [("If-Match", &etag), ("If-None-Match", &etag)],
        [("If-None-Match", &etag), ("Range", "bytes=5-9")],
    ];
    let with = |ask: Ask, lines: &[(&str, &str)]| {
        let ask = lines
            .iter()
            .fold(ask, |ask, (name, value)| ask.header(name, value));
        server.fetch(&ask)
    };
    for lines in &not_modified {
        let response = with(Ask::get(PATH), lines);
        assert_304(&response, &etag);
        assert_eq!(response.cache_word(), "HIT");
        if lines[1].0 != "Range" {
            assert_304(&with(Ask::head(PATH), lines), &etag);
        }
    }
    let failed = with(Ask::get(PATH), &[("If-Unmodified-Since", BEFORE)]);
    failed.assert_s3_error(412, "PreconditionFailed");
    assert!(
        failed
            .text()
            .contains("<Condition>If-Unmodified-Since</Condition>")
    );
    assert_eq!(failed.cache_word(), "HIT");
    let head = with(Ask::head(PATH), &[("If-Unmodified-Since", BEFORE)]);
    assert_eq!((head.status(), head.body.len()), (412, 0));
    let proceed = [
        [("If-Match", &*etag), ("If-Unmodified-Since", BEFORE)],
        [("If-Match", "*"), ("If-None-Match", "\"x\"")],
        [
            ("If-Modified-Since", BEFORE),
            ("If-Unmodified-Since", MODIFIED),
        ],
    ];
    let tile = Tile::new(70);
    for lines in &proceed {
        let response = with(Ask::get(PATH), lines);
        assert_eq!((response.status(), response.cache_word()), (200, "HIT"));
        response.assert_body(&tile, 0, 1_000);
    }
    let part = with(Ask::get(PATH).range(100, 200), &[("If-Range", &etag)]);
    assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
    part.assert_body(&tile, 100, 200);
    assert_eq!(origin.requests(), asked, "an answer was certain");
    server.finish();
}

#[test]
fn semantics_85_a_condition_that_names_another_version_is_asked_of_the_origin() {
    // The client may know a younger version than the cache. (2F.111)
    let (store, origin, server, etag) = warm();
    let asked = origin.requests();
    let stranger = Ask::get(PATH).header("If-Match", "\"another\"");
    let failed = server.fetch(&stranger);
    failed.assert_s3_error(412, "PreconditionFailed");
    assert_eq!(origin.requests(), asked + 1);
    let other_range = Ask::get(PATH).range(5, 9).header("If-Range", "\"another\"");
    let whole = server.fetch(&other_range);
    assert_eq!((whole.status(), whole.cache_word()), (200, "REVALIDATED"));
    whole.assert_body(&Tile::new(70), 0, 1_000);
    assert_eq!(store.body_bytes(), 1_000, "no body was needed");
    // Overwritten past the server: whoever names the new version gets it, and so does everybody after.
    let newer = Object::tile(71, 1_000);
    store.insert(PATH, newer.clone());
    server.get(PATH).assert_body(&Tile::new(70), 0, 1_000);
    let fresh = server.fetch(&Ask::get(PATH).header("If-Match", &newer.etag));
    assert_eq!((fresh.status(), fresh.cache_word()), (200, "EXPIRED"));
    fresh.assert_body(&Tile::new(71), 0, 1_000);
    let hit = server.get(PATH);
    assert_eq!(hit.cache_word(), "HIT");
    hit.assert_body(&Tile::new(71), 0, 1_000);
    let old = server.fetch(&Ask::get(PATH).header("If-Match", &etag));
    old.assert_s3_error(412, "PreconditionFailed");
    server.finish();
}

#[test]
fn semantics_86_a_condition_on_what_is_not_known_goes_along_and_the_answer_is_kept() {
    // (2F.112)
    let store = Store::new();
    let object = Object::tile(72, 30_000);
    let etag = object.etag.clone();
    store.insert(PATH, object);
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let current = server.fetch(&Ask::get(PATH).header("If-None-Match", &etag));
    assert_eq!((current.status(), current.body.len()), (304, 0));
    assert_eq!(current.header("etag"), Some(&*etag));
    assert_eq!((origin.requests(), store.body_bytes()), (1, 0));
    let failed = server.fetch(&Ask::get(PATH).header("If-Match", "\"x\""));
    failed.assert_s3_error(412, "PreconditionFailed");
    let older = server.fetch(&Ask::get(PATH).header("If-None-Match", "\"older\""));
    assert_eq!((older.status(), older.cache_word()), (200, "MISS"));
    older.assert_body(&Tile::new(72), 0, 30_000);
    let asked = origin.requests();
    for seen in origin.seen() {
        let own = seen.header("if-none-match").or(seen.header("if-match"));
        assert!(
            own.is_some(),
            "the client's condition was left out: {seen:?}"
        );
    }
    assert_eq!(server.get(PATH).cache_word(), "HIT");
    let hit = server.fetch(&Ask::get(PATH).header("If-None-Match", &etag));
    assert_eq!((hit.status(), hit.cache_word()), (304, "HIT"));
    assert_eq!(origin.requests(), asked);
    server.finish();
}

#[test]
fn conditions_in_doubt_pass_as_they_came() {
    let (_store, origin, server, etag) = warm();
    let weak = format!("W/{etag}");
    let doubts = [
        ("If-None-Match", &*weak),
        ("If-Modified-Since", "2026-08-12T10:00:00Z"),
        ("If-Modified-Since", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("If-Unmodified-Since", "yesterday"),
        ("If-Match", ""),
    ];
    for (name, value) in doubts {
        let asked = origin.requests();
        let response = server.fetch(&Ask::get(PATH).header(name, value));
        assert_eq!(response.cache_word(), "PASS", "{name}: {value}");
        assert_eq!(origin.requests(), asked + 1);
        assert_eq!(origin.seen()[asked].header(name), Some(value));
    }
    server.finish();
}

#[test]
fn an_origin_that_does_not_know_conditions_is_believed_when_cold() {
    // Some stores ignore `If-Match` of a read.
    let origin = Stub::start(|_, wire| {
        let headers = [("ETag", "\"e\""), ("Last-Modified", MODIFIED)];
        wire.respond("200 OK", &headers, b"body");
        After::KeepAlive
    });
    let server = Millrace::start(origin.address);
    for (name, value) in [("If-Match", "\"x\""), ("If-None-Match", "\"e\"")] {
        let path = format!("/bucket/{name}");
        let response = server.fetch(&Ask::get(&path).header(name, value));
        assert_eq!((response.status(), response.text().as_str()), (200, "body"));
    }
    server.finish();
}

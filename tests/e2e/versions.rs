//! Reads whose query changes what they are about or what their answer's head says: `versionId`, `response-…`; and ranges that nothing satisfies.

use crate::harness::s3s::S3s;
use crate::harness::sign::amz_date;
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, Millrace, Response, Store, Stub, Tile};
use std::time::SystemTime;

const PATH: &str = "/bucket/k";
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";

const DATE: &str = "Wed%2C%2012%20Aug%202026%2010%3A00%3A00%20GMT";
const EXPIRES: &str = "Wed, 12 Aug 2026 10:00:00 GMT";

fn version(id: &str) -> String {
    format!("{PATH}?versionId={id}")
}

#[test]
fn semantics_114_a_version_is_cached_under_its_own_name() {
    // (2B.38)
    let store = Store::new();
    store.insert(PATH, Object::tile(130, 90 * KIB));
    store.insert(&version("old"), Object::tile(131, 80 * KIB));
    store.insert(&version("null"), Object::tile(132, 70 * KIB));
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let reads = [
        (PATH.to_owned(), 130, 90),
        (version("old"), 131, 80),
        (version("null"), 132, 70),
    ];
    for word in ["MISS", "HIT"] {
        for (target, seed, kib) in &reads {
            let whole = server.get(target);
            assert_eq!(
                (whole.status(), whole.cache_word()),
                (200, word),
                "{target}"
            );
            whole.assert_body(&Tile::new(*seed), 0, kib * KIB);
            let part = server.fetch(&Ask::get(target).range(5, 500));
            assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
            part.assert_body(&Tile::new(*seed), 5, 500);
            let head = server.fetch(&Ask::head(target));
            assert_eq!(head.head.content_length(), Some(kib * KIB));
        }
    }
    assert_eq!(origin.requests(), 3);
    for (_, kib) in [("old", 80), ("null", 70)] {
        assert!(store.body_bytes() >= kib * KIB);
    }
    server.finish();
}

#[test]
fn semantics_115_any_write_to_an_object_ends_what_is_known_of_its_versions() {
    let store = Store::new();
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    let delete = |body: &str| Ask::new("POST", "/bucket?delete").body(body);
    let writes = [
        Ask::new("DELETE", &version("v1")),
        Ask::new("DELETE", &version("%761")),
        Ask::put(PATH, "new"),
        Ask::put(&format!("{PATH}?tagging&versionId=v1"), "<Tagging/>"),
        delete("<Delete><Object><Key>k</Key><VersionId>v1</VersionId></Object></Delete>"),
        Ask::new("DELETE", "/bucket"),
    ];
    for (number, write) in writes.iter().enumerate() {
        let seed = 140 + number as u64;
        store.insert(&version("v1"), Object::tile(seed, KIB));
        server
            .get(&version("v1"))
            .assert_body(&Tile::new(seed), 0, KIB);
        assert_eq!(server.get(&version("v1")).cache_word(), "HIT");
        store.insert(&version("v1"), Object::tile(seed + 1, KIB));
        assert!(server.fetch(write).status() < 300, "{write:?}");
        let after = server.get(&version("v1"));
        after.assert_body(&Tile::new(seed + 1), 0, KIB);
    }
    // A write to another object ends nothing.
    let before = origin.requests();
    server.fetch(&Ask::put("/bucket/other", "x"));
    assert_eq!(server.get(&version("v1")).cache_word(), "HIT");
    assert_eq!(origin.requests(), before + 1);
    server.finish();
}

#[test]
fn a_version_that_is_gone_is_not_served() {
    let store = Store::new();
    store.insert(&version("v1"), Object::tile(150, KIB));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    server
        .get(&version("v1"))
        .assert_body(&Tile::new(150), 0, KIB);
    server.fetch(&Ask::new("DELETE", &version("v1")));
    store.remove(&version("v1"));
    server.get(&version("v1")).assert_s3_error(404, "NoSuchKey");
    server.finish();
}

/// A read with overrides, signed in form only, within its time.
fn overridden(query: &str) -> Ask {
    Ask::get(&format!("{PATH}?{query}"))
        .header("x-amz-date", &amz_date(SystemTime::now()))
        .header("Authorization", SIGNED)
}

#[track_caller]
fn assert_type(response: &Response, status: u16, content_type: &str) {
    assert_eq!(response.status(), status, "{}", response.text());
    assert_eq!(response.head.all("content-type"), [content_type]);
}

#[test]
fn semantics_116_overrides_are_applied_to_hits_and_stay_with_their_request() {
    // (2A.8)
    let own = "binary/octet-stream";
    for first in ["plain", "overridden"] {
        let store = Store::new();
        store.insert(PATH, Object::tile(151, 90 * KIB));
        let tile = Tile::new(151);
        let origin = store.serve();
        let server = Millrace::setup().shards(2).start(origin.address);
        let html = overridden(&format!(
            "response-content-type=text%2Fhtml&response-expires={DATE}"
        ));
        if first == "plain" {
            assert_type(&server.get(PATH), 200, own);
        } else {
            // Cold: the origin's own answer, whose bytes are kept, and of whose head what was not overridden.
            let cold = server.fetch(&html);
            assert_type(&cold, 200, "text/html");
            assert_eq!(
                (cold.header("expires"), cold.cache_word()),
                (Some(EXPIRES), "MISS")
            );
        }
        let head = Ask {
            method: "HEAD".into(),
            ..html.clone()
        };
        // The origin has its say about each signature once.
        for ask in [&html, &head] {
            assert_type(&server.fetch(ask), 200, "text/html");
        }
        let asked = origin.requests();
        for _ in 0..2 {
            let hit = server.fetch(&html);
            assert_type(&hit, 200, "text/html");
            assert_eq!(
                (hit.header("expires"), hit.cache_word()),
                (Some(EXPIRES), "HIT")
            );
            hit.assert_body(&tile, 0, 90 * KIB);
            let part = server.fetch(&html.clone().range(10, 20));
            assert_type(&part, 206, "text/html");
            part.assert_body(&tile, 10, 20);
            assert_type(&server.fetch(&head), 200, "text/html");
        }
        assert_eq!(origin.requests(), asked, "{first}");
        // What was overridden for one is not for another, and costs no body.
        for _ in 0..2 {
            let plain = server.get(PATH);
            assert_type(&plain, 200, own);
            assert_eq!(plain.header("expires"), None);
            plain.assert_body(&tile, 0, 90 * KIB);
        }
        let after = origin.requests();
        assert!(after <= asked + 1);
        let other = overridden("response-cache-control=no-store");
        for word in ["REVALIDATED", "HIT"] {
            let other = server.fetch(&other);
            assert_type(&other, 200, own);
            assert_eq!(
                (other.header("cache-control"), other.cache_word()),
                (Some("no-store"), word)
            );
        }
        assert_eq!(origin.requests(), after + 1);
        server.finish();
    }
}

#[test]
fn overrides_never_become_the_objects_own_when_it_is_confirmed_or_its_gaps_are_fetched() {
    // (2A.8, 2F.106)
    let store = Store::new();
    store.insert(
        PATH,
        Object::tile(152, 900 * KIB).header("Cache-Control", "max-age=7"),
    );
    let tile = Tile::new(152);
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[cache]\nttl = '200ms'")
        .start(origin.address);
    let ask = overridden("response-cache-control=no-store&response-content-type=a%2Fb");
    server.fetch(&Ask::get(PATH).range(0, KIB));
    // The rest comes by a request with overrides.
    server.fetch(&ask).assert_body(&tile, 0, 900 * KIB);
    for _ in 0..3 {
        let plain = server.get(PATH);
        assert_type(&plain, 200, "binary/octet-stream");
        assert_eq!(plain.head.all("cache-control"), ["max-age=7"]);
        std::thread::sleep(std::time::Duration::from_millis(250));
        // So does the confirmation.
        let confirmed = server.fetch(&ask);
        assert_eq!(confirmed.cache_word(), "REVALIDATED");
        assert_eq!(confirmed.head.all("cache-control"), ["no-store"]);
    }
    server.finish();
}

#[test]
fn semantics_117_overrides_without_a_signature_are_the_origins_to_refuse() {
    let store = Store::new();
    store.insert(PATH, Object::tile(153, KIB));
    let origin = {
        let store = store.clone();
        Stub::start(
            move |seen, wire| match seen.header("x-amz-security-token") {
                Some(_) => wire.refuse("403 Forbidden", "AccessDenied"),
                None => store.answer(seen, wire),
            },
        )
    };
    let server = Millrace::start(origin.address);
    server.get(PATH);
    for _ in 0..2 {
        let refused = server.get(&format!("{PATH}?response-content-type=text%2Fhtml"));
        refused.assert_s3_error(400, "InvalidRequest");
    }
    assert_eq!(origin.requests(), 3);
    // Who only looks signed chooses no header either.
    let forged = overridden("response-content-type=text%2Fhtml");
    let forged = forged.header("x-amz-security-token", "forged");
    for _ in 0..2 {
        server.fetch(&forged).assert_s3_error(403, "AccessDenied");
        assert_eq!(server.get(PATH).cache_word(), "HIT");
    }
    // A header cannot be broken out of.
    let split = server.fetch(&overridden("response-content-type=a%0d%0aX-Evil:%201"));
    assert_eq!(split.cache_word(), "PASS");
    server.finish();
}

#[test]
fn overrides_of_a_presigned_url_are_signed_and_pass_a_verifying_origin() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    origin.put(PATH, b"bytes of a download");
    let server = Millrace::start(origin.address);
    let signer = origin.signer(server.door);
    let query = "response-content-disposition=attachment%3B%20filename%3D%22a.txt%22";
    let ask = signer.sign(Ask::get(&format!("{PATH}?{query}")));
    for word in ["MISS", "HIT"] {
        let response = server.fetch(&ask);
        assert_eq!(
            (response.status(), response.cache_word()),
            (200, word),
            "{}",
            response.text()
        );
        let wanted = "attachment; filename=\"a.txt\"";
        assert_eq!(response.header("content-disposition"), Some(wanted));
    }
    server.finish();
}

#[test]
fn semantics_118_a_range_that_nothing_satisfies_is_416_from_a_fresh_copy() {
    // (2C.56, 2C.71)
    let store = Store::new();
    store.insert(PATH, Object::tile(154, 10_000));
    store.insert("/bucket/empty", Object::bytes(b""));
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    server.get(PATH);
    server.get("/bucket/empty");
    let asked = origin.requests();
    for (path, range, total) in [
        (PATH, "bytes=10000-", 10_000),
        (PATH, "bytes=010000-10005", 10_000),
        (PATH, "bytes=-0", 10_000),
        (PATH, "bytes=18446744073709551615-", 10_000),
        ("/bucket/empty", "bytes=0-0", 0),
        ("/bucket/empty", "bytes=-5", 0),
    ] {
        let response = server.fetch(&Ask::get(path).header("Range", range));
        response.assert_s3_error(416, "InvalidRange");
        assert_eq!(response.cache_word(), "HIT", "{range}");
        let wanted = format!("bytes */{total}");
        assert_eq!(response.header("content-range"), Some(&*wanted));
        let text = response.text();
        assert!(
            text.contains(&format!("<RangeRequested>{range}</RangeRequested>")),
            "{text}"
        );
        assert!(
            text.contains(&format!("<ActualObjectSize>{total}</ActualObjectSize>")),
            "{text}"
        );
    }
    assert_eq!(origin.requests(), asked);
    // Conditions come first.
    let etag = store.object(PATH).expect("it").etag;
    let late = Ask::get(PATH).header("Range", "bytes=10000-");
    let same = server.fetch(&late.clone().header("If-None-Match", &etag));
    assert_eq!(same.status(), 304);
    let other = server.fetch(&late.clone().header("If-Match", "\"x\""));
    other.assert_s3_error(412, "PreconditionFailed");
    // It has grown meanwhile: asked when the copy is past its time.
    let longer = Object::tile(155, 20_000);
    let server = {
        server.finish();
        Millrace::setup()
            .settings("[cache]\nhead_ttl = '0s'")
            .start(origin.address)
    };
    server.get(PATH);
    store.insert(PATH, longer);
    let grown = server.fetch(&late);
    assert_eq!(grown.status(), 206);
    grown.assert_body(&Tile::new(155), 10_000, 20_000);
    server.finish();
}

#[test]
fn semantics_120_who_may_read_is_asked_for_parts_versions_and_overrides_as_for_other_reads() {
    // (2D.79, 2D.83)
    let store = Store::new();
    for name in [PATH.to_owned(), version("v1")] {
        let mut object = Object::tile(156, 90 * KIB);
        object.parts = vec![50 * KIB, 40 * KIB];
        store.insert(&name, object);
    }
    let origin = {
        let store = store.clone();
        Stub::start(
            move |seen, wire| match seen.header("x-amz-security-token") {
                Some(_) => wire.refuse("403 Forbidden", "AccessDenied"),
                None => store.answer(seen, wire),
            },
        )
    };
    let server = Millrace::setup()
        .shards(2)
        .settings("[cache]\naccess = 'revalidate'")
        .start(origin.address);
    for query in [
        "partNumber=2",
        "versionId=v1",
        "response-content-type=text%2Fhtml",
    ] {
        let mine = overridden(query);
        let theirs = mine.clone().header("x-amz-security-token", "denied");
        server.fetch(&mine);
        let sent = store.body_bytes();
        for _ in 0..2 {
            let asked = origin.requests();
            server.fetch(&theirs).assert_s3_error(403, "AccessDenied");
            let again = server.fetch(&mine);
            assert_eq!(again.cache_word(), "REVALIDATED", "{query}");
            assert_eq!(origin.requests(), asked + 2, "{query}");
        }
        assert_eq!(store.body_bytes(), sent, "{query}");
    }
    // Nor is it told how long an object is.
    let late = Ask::get(PATH).header("Range", "bytes=99999999-");
    server
        .fetch(&late.header("x-amz-security-token", "denied"))
        .assert_s3_error(403, "AccessDenied");
    server.finish();
}

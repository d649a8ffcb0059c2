//! `partNumber`: a part is the range that its version has for it, remembered from the first answer; its bytes are the object's.

use crate::harness::store::Object;
use crate::harness::{Ask, KIB, MIB, Millrace, Response, Store, Tile};

const PATH: &str = "/bucket/k";
const LENGTH: u64 = 21 * MIB + 100;
const PARTS: [u64; 4] = [10 * MIB, 5 * MIB + 1, 6 * MIB + 98, 1];

fn made_of_parts(seed: u64) -> Object {
    let mut object = Object::tile(seed, LENGTH);
    object.parts = PARTS.to_vec();
    object
}

fn bounds(number: usize) -> (u64, u64) {
    let first = PARTS[..number - 1].iter().sum();
    (first, first + PARTS[number - 1])
}

fn target(number: usize) -> String {
    format!("{PATH}?partNumber={number}")
}

#[track_caller]
fn assert_part(response: &Response, number: usize) {
    let (first, end) = bounds(number);
    assert_eq!(response.status(), 206, "{}", response.text());
    let wanted = format!("bytes {first}-{}/{LENGTH}", end - 1);
    assert_eq!(response.header("content-range"), Some(&*wanted));
    assert_eq!(response.header("x-amz-mp-parts-count"), Some("4"));
    assert_eq!(response.head.content_length(), Some(end - first));
}

#[test]
fn semantics_113_a_part_is_read_from_the_cache_once_its_bounds_are_known() {
    // (2B.36, 2B.37)
    let store = Store::new();
    store.insert(PATH, made_of_parts(120));
    let tile = Tile::new(120);
    let origin = store.serve();
    let server = Millrace::setup().shards(2).start(origin.address);
    for number in [2, 1, 4, 3] {
        let (first, end) = bounds(number);
        let cold = server.get(&target(number));
        assert_part(&cold, number);
        cold.assert_body(&tile, first, end);
        assert_eq!(cold.cache_word(), "MISS");
        let asked = origin.requests();
        let warm = server.get(&target(number));
        assert_part(&warm, number);
        warm.assert_body(&tile, first, end);
        assert_eq!(warm.cache_word(), "HIT");
        let head = server.fetch(&Ask::head(&target(number)));
        assert_part(&head, number);
        assert_eq!((head.body.len(), head.cache_word()), (0, "HIT"));
        assert_eq!(warm.header("etag"), head.header("etag"));
        assert_eq!(origin.requests(), asked, "part {number}");
    }
    // The bytes are the object's, and the object's length is none of a part's.
    let asked = origin.requests();
    let whole = server.get(PATH);
    assert_eq!((whole.status(), whole.cache_word()), (200, "HIT"));
    whole.assert_body(&tile, 0, LENGTH);
    assert_eq!(whole.header("x-amz-mp-parts-count"), None);
    assert_eq!(
        server.fetch(&Ask::head(PATH)).head.content_length(),
        Some(LENGTH)
    );
    assert_eq!(origin.requests(), asked);
    store.assert_sent_once(PATH);
    // There is no such part: the origin says so each time.
    for _ in 0..2 {
        server
            .get(&target(5))
            .assert_s3_error(416, "InvalidPartNumber");
    }
    assert_eq!(origin.requests(), asked + 2);
    server.finish();
}

#[test]
fn a_part_that_a_head_has_found_is_read_with_the_bytes_that_are_there() {
    // (2B.36)
    let store = Store::new();
    store.insert(PATH, made_of_parts(121));
    let tile = Tile::new(121);
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let head = server.fetch(&Ask::head(&target(1)));
    assert_part(&head, 1);
    let object = server.fetch(&Ask::head(PATH));
    assert_eq!(
        (object.status(), object.head.content_length()),
        (200, Some(LENGTH))
    );
    // A part that is partly there is asked for by its number, since nothing else can be asked for in its name.
    let (first, end) = bounds(1);
    server
        .fetch(&Ask::get(PATH).range(first, first + MIB))
        .assert_body(&tile, first, first + MIB);
    let before = origin.requests();
    let part = server.get(&target(1));
    assert_part(&part, 1);
    part.assert_body(&tile, first, end);
    assert_eq!(part.cache_word(), "PARTIAL");
    let asked = origin.seen().pop().expect("a request");
    assert_eq!(asked.target(), target(1));
    assert_eq!(
        (asked.header("range"), asked.header("if-match").is_some()),
        (None, true)
    );
    assert_eq!(origin.requests(), before + 1);
    server.finish();
}

#[test]
fn an_object_that_was_not_made_of_parts_is_its_only_one() {
    let store = Store::new();
    store.insert(PATH, Object::tile(122, 70 * KIB));
    store.insert("/bucket/empty", Object::bytes(b""));
    let tile = Tile::new(122);
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    server.get(PATH);
    for word in ["MISS", "HIT"] {
        let part = server.get(&target(1));
        assert_eq!((part.status(), part.cache_word()), (206, word));
        part.assert_body(&tile, 0, 70 * KIB);
        assert_eq!(part.header("x-amz-mp-parts-count"), None);
        assert_eq!(part.header("content-range"), Some("bytes 0-71679/71680"));
    }
    server
        .get(&target(2))
        .assert_s3_error(416, "InvalidPartNumber");
    server.finish();
}

#[test]
fn a_part_belongs_to_its_version() {
    // (2B.48)
    let store = Store::new();
    store.insert(PATH, made_of_parts(123));
    let origin = store.serve();
    let server = Millrace::setup()
        .arguments(&["--ttl", "0s"])
        .start(origin.address);
    for (seed, parts) in [
        (123, vec![]),
        (124, vec![MIB, LENGTH - MIB]),
        (125, vec![2 * MIB, LENGTH - 2 * MIB]),
    ] {
        let mut object = made_of_parts(seed);
        if !parts.is_empty() {
            object.parts = parts;
        }
        let first: u64 = object.parts[0];
        let second: u64 = object.parts[1];
        store.insert(PATH, object);
        for word in ["", "REVALIDATED", "REVALIDATED"] {
            let part = server.get(&target(2));
            part.assert_body(&Tile::new(seed), first, first + second);
            assert!(
                word.is_empty() || part.cache_word() == word,
                "{}",
                part.cache_word()
            );
        }
    }
    server.finish();
}

#[test]
fn conditions_and_checksums_of_parts_are_their_own() {
    // (2A.16, 2C.68)
    let store = Store::new();
    store.insert(PATH, made_of_parts(126));
    let etag = store.object(PATH).expect("it").etag;
    let origin = store.serve();
    let server = Millrace::start(origin.address);
    let ask = |number| Ask::get(&target(number));
    let checked = |number| ask(number).header("x-amz-checksum-mode", "ENABLED");
    let checksum = |response: &Response| response.header("x-amz-checksum-crc32").map(str::to_owned);
    assert_eq!(checksum(&server.fetch(&ask(2))), None);
    // It is known without its checksum.
    for word in ["MISS", "HIT"] {
        let part = server.fetch(&checked(2));
        assert_part(&part, 2);
        assert_eq!(
            (part.cache_word(), checksum(&part).as_deref()),
            (word, Some("part-2"))
        );
    }
    let plain = server.fetch(&ask(2));
    assert_eq!((plain.cache_word(), checksum(&plain)), ("HIT", None));
    let asked = origin.requests();
    let same = server.fetch(&ask(2).header("If-None-Match", &etag));
    assert_eq!((same.status(), same.body.len()), (304, 0));
    assert_part(&server.fetch(&ask(2).header("If-Match", &etag)), 2);
    assert_eq!(origin.requests(), asked);
    let other = server.fetch(&ask(2).header("If-Match", "\"other\""));
    other.assert_s3_error(412, "PreconditionFailed");
    server.finish();
}

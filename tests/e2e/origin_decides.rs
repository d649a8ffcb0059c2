//! `freshness = "origin"`: what the origin says of its answers decides how long they are used, and whether they are kept (RFC 9111).

use crate::harness::sign::amz_date;
use crate::harness::store::Object;
use crate::harness::teller::SEED;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Store, Teller, Tile, date_in, wait_until};
use std::time::SystemTime;

pub const ORIGIN_DECIDES: &str = "[cache]\nfreshness = 'origin'\n";
const PATH: &str = "/bucket/k";

#[track_caller]
pub fn start(origin: &Teller, further: &str) -> Millrace {
    Millrace::setup()
        .settings(&format!("{ORIGIN_DECIDES}{further}"))
        .start(origin.address())
}

/// How the second read of an object is answered whose first answer has these lines.
#[track_caller]
fn second(server: &Millrace, origin: &Teller, path: &str, lines: &str) -> String {
    origin.says(path, lines);
    for (read, word) in [(1, "MISS"), (2, "")] {
        let response = server.get(path);
        assert_eq!(response.status(), 200, "{lines}");
        response.assert_body(&Tile::new(SEED), 0, 1000);
        match read {
            1 => assert_eq!(response.cache_word(), word, "{lines}"),
            _ => return response.cache_word().to_owned(),
        }
    }
    unreachable!()
}

#[test]
fn semantics_125_the_origin_says_how_long_its_answers_are_fresh() {
    // (2F.105)
    let origin = Teller::start(1000);
    // What the settings say does not count.
    let server = start(&origin, "ttl = '1h'\nhead_ttl = '1h'\n");
    let (soon, past, now) = (date_in(100), date_in(-100), date_in(0));
    let fresh = [
        "Cache-Control: max-age=60\n".to_owned(),
        "Cache-Control: public, MAX-AGE=\"60\"\n".to_owned(),
        "Cache-Control: max-age=0, s-maxage=60\n".to_owned(),
        "Cache-Control: max-age=60\nExpires: 0\n".to_owned(),
        "Cache-Control: max-age=60\nAge: 10\n".to_owned(),
        "Cache-Control: max-age=600\nAge: 100\n".to_owned() + &format!("Date: {past}\n"),
        "Cache-Control: max-age=60, must-revalidate\n".to_owned(),
        "Cache-Control: max-age=60\nPragma: no-cache\n".to_owned(),
        format!("Expires: {soon}\n"),
        format!("Date: {now}\nExpires: {soon}\n"),
        // By the origin's own clock: one that is behind looks like age, one that is ahead like none.
        format!("Date: {}\nCache-Control: max-age=9999\n", date_in(-3600)),
        format!("Date: {}\nExpires: {}\n", date_in(3600), date_in(3660)),
    ];
    let stale = [
        String::new(),
        "Cache-Control: public\n".to_owned(),
        "Cache-Control: max-age=0\n".to_owned(),
        "Cache-Control: max-age=60, s-maxage=0\n".to_owned(),
        "Cache-Control: no-cache, max-age=60\n".to_owned(),
        "Cache-Control: no-cache=\"Set-Cookie\", max-age=60\n".to_owned(),
        "Cache-Control: max-age=sixty\n".to_owned(),
        "Cache-Control: max-age=60, max-age=61\n".to_owned(),
        "Cache-Control: max-age=60\nAge: 60\n".to_owned(),
        format!("Cache-Control: max-age=60\nDate: {past}\n"),
        format!("Expires: {past}\n"),
        "Expires: 0\n".to_owned(),
        format!("Expires: {soon}\nExpires: 0\n"),
        format!("Date: {}\nExpires: {}\n", date_in(3600), date_in(1800)),
    ];
    for (number, lines) in fresh.iter().enumerate() {
        let path = format!("/bucket/fresh-{number}");
        assert_eq!(second(&server, &origin, &path, lines), "HIT", "{lines}");
        let asked = origin.requests();
        assert_eq!(server.fetch(&Ask::head(&path)).cache_word(), "HIT");
        assert_eq!(origin.requests(), asked);
    }
    for (number, lines) in stale.iter().enumerate() {
        let path = format!("/bucket/stale-{number}");
        let word = second(&server, &origin, &path, lines);
        assert_eq!(word, "REVALIDATED", "{lines}");
        assert_eq!(origin.last().header("if-none-match"), Some("\"v0\""));
        let head = server.fetch(&Ask::head(&path));
        assert_eq!(head.cache_word(), "REVALIDATED");
    }
    server.finish();
}

#[test]
fn an_answer_is_used_up_to_its_end_and_its_age_counts_from_where_it_was_made() {
    let origin = Teller::start(1000);
    origin.says(PATH, "Cache-Control: max-age=62\nAge: 60\n");
    let server = start(&origin, "");
    let age = |response: &crate::harness::Response| -> u64 {
        let age = response.header("age").expect("Age");
        age.parse().expect("seconds")
    };
    assert_eq!(age(&server.get(PATH)), 60);
    let warm = server.get(PATH);
    assert_eq!(warm.cache_word(), "HIT");
    assert!((60..62).contains(&age(&warm)), "{:?}", warm.head);
    wait_until("the end of its time", PATIENCE, || {
        let response = server.get(PATH);
        match response.cache_word() {
            "HIT" => assert!(age(&response) < 62, "{:?}", response.head),
            word => assert_eq!(word, "REVALIDATED"),
        }
        response.cache_word() != "HIT"
    });
    server.finish();
}

#[test]
fn what_an_answer_does_not_say_is_as_default_ttl_says() {
    let origin = Teller::start(1000);
    let server = start(&origin, "default_ttl = '1h'\n");
    let silent = second(&server, &origin, "/bucket/silent", "");
    assert_eq!(silent, "HIT");
    for (path, lines) in [
        ("/bucket/zero", "Cache-Control: max-age=0\n"),
        ("/bucket/asked", "Cache-Control: no-cache\n"),
        ("/bucket/past", "Expires: 0\n"),
    ] {
        assert_eq!(
            second(&server, &origin, path, lines),
            "REVALIDATED",
            "{lines}"
        );
    }
    server.finish();
}

#[test]
fn semantics_126_what_the_origin_forbids_to_keep_is_not_kept_nor_is_what_was_there() {
    let origin = Teller::start(1000);
    let server = start(&origin, "");
    for (number, control) in [
        "no-store",
        "max-age=60, no-store",
        "private",
        "private, max-age=60",
        "private=\"x\", s-maxage=60",
    ]
    .iter()
    .enumerate()
    {
        let path = format!("/bucket/{number}");
        origin.says(&path, &format!("Cache-Control: {control}\n"));
        for _ in 0..2 {
            let response = server.get(&path);
            assert_eq!(response.cache_word(), "PASS", "{control}");
            response.assert_body(&Tile::new(SEED), 0, 1000);
            let part = server.fetch(&Ask::get(&path).range(5, 50));
            assert_eq!((part.status(), part.header("age")), (206, None));
            part.assert_body(&Tile::new(SEED), 5, 50);
        }
    }
    // Once it is known, the origin is asked for it once, as the client asks.
    let asked = origin.requests();
    server.get("/bucket/0");
    server.fetch(&Ask::get("/bucket/0").range(5, 50));
    assert_eq!(origin.requests(), asked + 2);
    let understood = "Cache-Control: must-understand, no-store, max-age=60\n";
    assert_eq!(
        second(&server, &origin, "/bucket/understood", understood),
        "HIT"
    );
    // What was kept goes when a later answer forbids it, by a 304 or by another version.
    for renewed in [false, true] {
        let path = format!("/bucket/was-there-{renewed}");
        assert_eq!(
            second(&server, &origin, &path, "Cache-Control: max-age=0\n"),
            "REVALIDATED"
        );
        origin.says(&path, "Cache-Control: no-store\n");
        if renewed {
            origin.renews();
        }
        for _ in 0..2 {
            let response = server.get(&path);
            assert_eq!(response.header("cache-control"), Some("no-store"));
            assert_eq!(response.header("age"), None);
            response.assert_body(&Tile::new(SEED), 0, 1000);
        }
        origin.fails(Some(503));
        assert_eq!(server.get(&path).status(), 503);
        origin.fails(None);
    }
    let metrics = server.metrics();
    assert!(metrics.sum("millrace_fills_forbidden_total", &[]) >= 7.0);
    server.finish();
}

#[test]
fn semantics_127_a_304_renews_the_time_and_the_headers() {
    // RFC 9111, section 4.3.4. (2F.106)
    let origin = Teller::start(1000);
    let server = start(&origin, "");
    let path = "/bucket/longer";
    let first = second(
        &server,
        &origin,
        path,
        "Cache-Control: max-age=0\nX-Say: 1\n",
    );
    assert_eq!(first, "REVALIDATED");
    origin.says(path, "Cache-Control: max-age=60\nX-Say: 2\n");
    let renewed = server.get(path);
    assert_eq!(renewed.cache_word(), "REVALIDATED");
    assert_eq!(renewed.header("x-say"), Some("2"));
    let warm = server.get(path);
    assert_eq!(
        (warm.cache_word(), warm.header("x-say")),
        ("HIT", Some("2"))
    );
    assert_eq!(warm.header("cache-control"), Some("max-age=60"));
    // A 304 that is old itself renews less.
    let path = "/bucket/aged";
    assert_eq!(
        second(&server, &origin, path, "Cache-Control: max-age=0\n"),
        "REVALIDATED"
    );
    origin.says(path, "Cache-Control: max-age=60\nAge: 70\n");
    for _ in 0..2 {
        let response = server.get(path);
        assert_eq!(response.cache_word(), "REVALIDATED");
        assert_eq!(response.header("age"), Some("70"));
    }
    // A HEAD tells as much.
    let path = "/bucket/head";
    assert_eq!(
        second(&server, &origin, path, "Cache-Control: max-age=0\n"),
        "REVALIDATED"
    );
    origin.says(path, "Cache-Control: max-age=60\n");
    assert_eq!(server.fetch(&Ask::head(path)).cache_word(), "REVALIDATED");
    assert_eq!(server.get(path).cache_word(), "HIT");
    server.finish();
}

#[test]
fn semantics_129_parts_are_kept_used_again_and_put_together() {
    // RFC 9111, sections 3.3 and 3.4.
    let length = 20 * MIB;
    let origin = Teller::start(length);
    origin.says(PATH, "Cache-Control: max-age=600\n");
    let server = start(&origin, "");
    let tile = Tile::new(SEED);
    let part = |start: u64, end: u64| {
        let response = server.fetch(&Ask::get(PATH).range(start, end));
        assert_eq!(response.status(), 206);
        response.assert_body(&tile, start, end);
        response.cache_word().to_owned()
    };
    assert_eq!(part(1000, 5000), "MISS");
    assert_eq!(part(2000, 3000), "HIT");
    assert_eq!(part(3000, 9000), "PARTIAL");
    assert_eq!(part(1000, 9000), "HIT");
    assert_eq!(part(9 * MIB, 10 * MIB), "MISS");
    let whole = server.get(PATH);
    assert_eq!((whole.status(), whole.cache_word()), (200, "PARTIAL"));
    whole.assert_body(&tile, 0, length);
    let asked = origin.requests();
    assert_eq!(part(7 * MIB, 17 * MIB), "HIT");
    assert_eq!(server.get(PATH).cache_word(), "HIT");
    assert_eq!(origin.requests(), asked);
    // Past its time one question is enough for any part of it.
    let path = "/bucket/asked";
    origin.says(path, "Cache-Control: no-cache\n");
    server.get(path).assert_body(&tile, 0, length);
    let asked = origin.requests();
    let again = server.fetch(&Ask::get(path).range(MIB, 18 * MIB));
    assert_eq!(again.cache_word(), "REVALIDATED");
    again.assert_body(&tile, MIB, 18 * MIB);
    assert_eq!(origin.requests(), asked + 1);
    server.finish();
}

#[test]
fn semantics_134_an_answer_that_is_asked_for_each_time_is_shared_by_nobody() {
    // RFC 9111, section 4: readers who came together. (2F.113, 2D.78)
    let origin = Teller::start(3 * MIB);
    origin.says("/bucket/fresh", "Cache-Control: max-age=600\n");
    origin.says("/bucket/asked", "Cache-Control: no-cache\n");
    origin.says("/bucket/forbidden", "Cache-Control: no-store\n");
    let server = Millrace::setup()
        .shards(2)
        .settings(ORIGIN_DECIDES)
        .start(origin.address());
    let readers = 8;
    let herd = |path: &str| {
        let before = origin.requests();
        std::thread::scope(|scope| {
            for _ in 0..readers {
                let server = &server;
                scope.spawn(move || {
                    let response = server.get(path);
                    assert_eq!(response.status(), 200);
                    response.assert_body(&Tile::new(SEED), 0, 3 * MIB);
                });
            }
        });
        origin.requests() - before
    };
    assert_eq!(herd("/bucket/fresh"), 1);
    // One brings it, and each of the others asks about it.
    assert_eq!(herd("/bucket/asked"), readers);
    assert!(herd("/bucket/forbidden") >= readers);
    let bodies = origin.stub.seen();
    let of_asked = bodies
        .iter()
        .filter(|seen| seen.target() == "/bucket/asked");
    let unconditional = of_asked.filter(|seen| seen.header("if-none-match").is_none());
    assert_eq!(unconditional.count(), 1, "bytes that came twice");
    server.finish();
}

/// What was read with another `Cache-Control` than its own says nothing of how long it is fresh.
#[test]
fn a_cache_control_that_was_overridden_is_no_word_of_the_origins() {
    let store = Store::new();
    let object = |seed| Object::tile(seed, 1000).header("Cache-Control", "max-age=0");
    store.insert(PATH, object(1));
    let origin = store.serve();
    let settings = format!("{ORIGIN_DECIDES}default_ttl = '3650d'\n");
    let server = Millrace::setup().settings(&settings).start(origin.address);
    let signed = "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";
    for name in [
        "cache-control=no-transform",
        "expires=Wed%2C%2012%20Aug%202026%2010%3A00%3A00%20GMT",
    ] {
        let ask = Ask::get(&format!("{PATH}?response-{name}"))
            .header("x-amz-date", &amz_date(SystemTime::now()))
            .header("Authorization", signed);
        store.insert(PATH, object(1));
        server.fetch(&ask).assert_body(&Tile::new(1), 0, 1000);
        store.insert(PATH, object(2));
        server.fetch(&ask).assert_body(&Tile::new(2), 0, 1000);
    }
    server.finish();
}

/// A `Vary` that comes with a 304 is the answer's own, as one that comes with a 200.
#[test]
fn what_begins_to_vary_is_not_kept_as_if_it_were_everybodys() {
    let origin = Teller::start(1000);
    let server = Millrace::setup().start(origin.address());
    server.get(PATH).assert_body(&Tile::new(SEED), 0, 1000);
    origin.says(PATH, "Vary: Accept-Language\n");
    let asked = server.fetch(&Ask::get(PATH).header("Cache-Control", "no-cache"));
    assert_eq!(asked.header("vary"), Some("Accept-Language"));
    let other = server.get(PATH);
    assert!(
        other.cache_word() != "HIT" || other.header("vary").is_none(),
        "an answer that varies is nobody else's"
    );
    server.finish();
}

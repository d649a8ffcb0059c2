//! What clients ask of the cache: `Cache-Control` and `Pragma` of requests, as far as `cache.client_control` lets them count.

use crate::disk::{await_folded, await_written};
use crate::harness::millrace::Scratch;
use crate::harness::teller::SEED;
use crate::harness::{Ask, MIB, Millrace, PATIENCE, Response, Teller, Tile, wait_until};
use crate::origin_decides::ORIGIN_DECIDES;

const PATH: &str = "/bucket/k";

fn start(origin: &Teller, settings: &str) -> Millrace {
    Millrace::setup().settings(settings).start(origin.address())
}

fn asking(control: &str) -> Ask {
    Ask::get(PATH).header("Cache-Control", control)
}

/// A request whose signature covers these headers.
fn signed(ask: Ask, names: &str) -> Ask {
    let value = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders={names}, Signature=00"
    );
    ask.header("Authorization", &value)
}

#[track_caller]
fn word(server: &Millrace, ask: &Ask) -> String {
    let response = server.fetch(ask);
    assert_eq!(response.status(), 200, "{ask:?}");
    if ask.method == "GET" {
        response.assert_body(&Tile::new(SEED), 0, 1000);
    }
    response.cache_word().to_owned()
}

#[test]
fn semantics_136_a_client_may_ask_for_what_the_origin_has_confirmed() {
    // RFC 9111, sections 5.2.1.1, 5.2.1.3, 5.2.1.4 and 5.4. (2F.110)
    let origin = Teller::start(1000);
    let server = start(&origin, "");
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    for (name, value, want) in [
        ("Cache-Control", "no-cache", "REVALIDATED"),
        ("Cache-Control", "max-age=0", "REVALIDATED"),
        ("Cache-Control", "No-Cache, x", "REVALIDATED"),
        ("Cache-Control", "min-fresh=99999", "REVALIDATED"),
        ("Pragma", "no-cache", "REVALIDATED"),
        ("Cache-Control", "max-age=1000", "HIT"),
        ("Cache-Control", "min-fresh=1000", "HIT"),
        ("Cache-Control", "no-transform", "HIT"),
        ("Pragma", "x", "HIT"),
    ] {
        let asked = origin.requests();
        let ask = Ask::get(PATH).header(name, value);
        assert_eq!(word(&server, &ask), want, "{name}: {value}");
        let questions = usize::from(want == "REVALIDATED");
        assert_eq!(origin.requests(), asked + questions, "{name}: {value}");
        if questions > 0 {
            let last = origin.last();
            assert_eq!(last.header("if-none-match"), Some("\"v0\""));
            assert_eq!(last.header(name), Some(value), "it goes on as it came");
        }
        assert_eq!(word(&server, &Ask::get(PATH)), "HIT");
    }
    let head = Ask::head(PATH).header("Cache-Control", "no-cache");
    assert_eq!(word(&server, &head), "REVALIDATED");
    // What has changed is fetched and kept, once.
    origin.renews();
    assert_eq!(word(&server, &Ask::get(PATH)), "HIT");
    let asked = origin.requests();
    assert_eq!(word(&server, &asking("no-cache")), "EXPIRED");
    assert_eq!(server.get(PATH).header("etag"), Some("\"v1\""));
    assert_eq!(origin.requests(), asked + 1);
    server.finish();
}

#[test]
fn an_age_that_a_client_does_not_want_is_asked_about() {
    let origin = Teller::start(1000);
    let server = start(&origin, ORIGIN_DECIDES);
    origin.says(PATH, "Cache-Control: max-age=600\nAge: 100\n");
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    for (control, want) in [
        ("max-age=200", "HIT"),
        ("max-age=90", "REVALIDATED"),
        ("min-fresh=400", "HIT"),
        ("min-fresh=550", "REVALIDATED"),
    ] {
        assert_eq!(word(&server, &asking(control)), want, "{control}");
    }
    let server = start(&origin, "");
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    wait_until("a copy of more than a second", PATIENCE, || {
        word(&server, &asking("max-age=1")) == "REVALIDATED"
    });
    server.finish();
}

#[track_caller]
fn assert_not_here(response: &Response) {
    response.assert_s3_error(504, "GatewayTimeout");
    assert_eq!(response.cache_word(), "ERROR");
}

#[test]
fn semantics_137_who_wants_only_what_is_here_gets_it_or_504() {
    // RFC 9111, section 5.2.1.7.
    let (origin, folder) = (Teller::start(20 * MIB), Scratch::new());
    let begin = || {
        Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB", "--ttl", "1h"])
            .start(origin.address())
    };
    let server = begin();
    let cached = |ask: Ask| server.fetch(&ask.header("Cache-Control", "only-if-cached"));
    assert_not_here(&cached(Ask::get(PATH)));
    assert_eq!(cached(Ask::head(PATH)).status(), 504);
    assert_eq!(origin.requests(), 0);
    server.fetch(&Ask::get(PATH).range(0, 1000));
    let asked = origin.requests();
    let part = cached(Ask::get(PATH).range(10, 900));
    assert_eq!((part.status(), part.cache_word()), (206, "HIT"));
    part.assert_body(&Tile::new(SEED), 10, 900);
    assert_eq!(cached(Ask::head(PATH)).cache_word(), "HIT");
    // Not all of it is here.
    assert_not_here(&cached(Ask::get(PATH)));
    assert_not_here(&cached(Ask::get(PATH).range(10, 9 * MIB)));
    // Nor is what is to be asked about.
    assert_not_here(&cached(
        Ask::get(PATH)
            .range(10, 900)
            .header("If-Match", "\"other\""),
    ));
    let both = Ask::get(PATH)
        .range(10, 900)
        .header("Cache-Control", "no-cache");
    assert_not_here(&cached(both));
    let known = cached(Ask::get(PATH).header("If-None-Match", "\"v0\""));
    assert_eq!(known.status(), 304);
    assert_eq!(origin.requests(), asked);
    server.get(PATH).assert_body(&Tile::new(SEED), 0, 20 * MIB);
    await_written(&server, 1, 4);
    server.kill();
    // What is on disk is here.
    let server = begin();
    await_folded(&server);
    let asked = origin.requests();
    let ask = Ask::get(PATH).header("Cache-Control", "only-if-cached");
    let whole = server.fetch(&ask);
    assert_eq!((whole.status(), whole.cache_word()), (200, "HIT"));
    whole.assert_body(&Tile::new(SEED), 0, 20 * MIB);
    assert_eq!(origin.requests(), asked);
    server.finish();
}

#[test]
fn semantics_138_who_does_not_mind_gets_a_copy_past_its_time() {
    // RFC 9111, section 5.2.1.2.
    let origin = Teller::start(1000);
    let server = start(&origin, ORIGIN_DECIDES);
    for (control, wish, want) in [
        ("max-age=10", "max-stale=60", "STALE"),
        ("max-age=10", "max-stale", "STALE"),
        ("max-age=10", "max-stale=2", "REVALIDATED"),
        ("max-age=10", "max-stale=60, max-age=5", "REVALIDATED"),
        ("max-age=10", "max-stale=60, no-cache", "REVALIDATED"),
        ("max-age=10", "max-age=60", "REVALIDATED"),
        ("public", "max-stale", "STALE"),
        ("max-age=10, must-revalidate", "max-stale", "REVALIDATED"),
        ("max-age=10, proxy-revalidate", "max-stale", "REVALIDATED"),
        ("s-maxage=10", "max-stale", "REVALIDATED"),
        ("no-cache", "max-stale", "REVALIDATED"),
    ] {
        let path = format!("/bucket/{control}-{wish}").replace([' ', ',', '='], "_");
        origin.says(&path, &format!("Cache-Control: {control}\nAge: 15\n"));
        assert_eq!(word(&server, &Ask::get(&path)), "MISS");
        let asked = origin.requests();
        let ask = Ask::get(&path).header("Cache-Control", wish);
        let response = server.fetch(&ask);
        response.assert_body(&Tile::new(SEED), 0, 1000);
        assert_eq!(response.cache_word(), want, "{control} {wish}");
        if want == "STALE" {
            let status = response.header("cache-status");
            assert_eq!(status, Some("millrace; hit; detail=max-stale"));
            assert_eq!(origin.requests(), asked);
        }
    }
    // Whom the origin is to be asked about gets nothing without it.
    let server = start(&origin, "[cache]\nttl = '1h'\naccess = 'revalidate'\n");
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    assert_eq!(word(&server, &asking("max-stale")), "REVALIDATED");
    let server = start(&origin, "[cache]\nttl = '0s'\n");
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    assert_eq!(word(&server, &asking("max-stale")), "REVALIDATED");
    server.finish();
}

#[test]
fn semantics_139_client_control_says_whose_wishes_count() {
    let table = [
        ("", "unsigned", true),
        ("", "signed", false),
        ("client_control = 'unsigned'", "signed", false),
        ("client_control = 'all'", "unsigned", true),
        ("client_control = 'all'", "signed", true),
        ("client_control = 'ignore'", "unsigned", false),
        ("client_control = 'ignore'", "signed", false),
    ];
    for (setting, whose, counts) in table {
        let origin = Teller::start(1000);
        let server = start(&origin, &format!("[cache]\n{setting}\n"));
        let ask = |control: &str| match whose {
            "signed" => signed(asking(control), "cache-control;host"),
            _ => signed(asking(control), "host"),
        };
        // Nothing is kept of what is not to be kept.
        let first = word(&server, &ask("no-store"));
        assert_eq!(
            first,
            if counts { "PASS" } else { "MISS" },
            "{setting} {whose}"
        );
        assert_eq!(origin.last().header("cache-control"), Some("no-store"));
        let next = word(&server, &Ask::get(PATH));
        assert_eq!(next, if counts { "MISS" } else { "HIT" });
        let reload = word(&server, &ask("no-cache"));
        assert_eq!(reload, if counts { "REVALIDATED" } else { "HIT" });
        let status = server.fetch(&ask("no-cache, only-if-cached")).status();
        assert_eq!(status, if counts { 504 } else { 200 });
        server.finish();
    }
    // By rule.
    let origin = Teller::start(1000);
    let rule = "[[rule]]\nmatch = 'bucket/*'\nclient_control = 'ignore'\n";
    let server = start(&origin, rule);
    assert_eq!(word(&server, &Ask::get(PATH)), "MISS");
    assert_eq!(word(&server, &asking("no-cache")), "HIT");
    server.finish();
}

//! `freshness = "origin"`: what may be used past its time, writes, restarts, and who may read.

use crate::disk::await_folded;
use crate::harness::millrace::Scratch;
use crate::harness::teller::SEED;
use crate::harness::{Ask, Millrace, PATIENCE, Response, Teller, Tile, wait_until};
use crate::origin_decides::{ORIGIN_DECIDES, start};

const PATH: &str = "/bucket/k";

#[track_caller]
fn whole(server: &Millrace, path: &str) -> Response {
    let response = server.get(path);
    if response.status() == 200 {
        response.assert_body(&Tile::new(SEED), 0, 1000);
    }
    response
}

#[test]
fn semantics_128_the_origin_says_what_may_be_used_past_its_time() {
    // RFC 5861; RFC 9111, section 4.2.4.
    let origin = Teller::start(1000);
    let outage = "[outage]\nfall = 0\n";
    let server = start(&origin, outage);
    // Of an age at which its own time is over, and what is said beside it is not.
    let table = [
        ("max-age=10, stale-if-error=60", "STALE"),
        ("s-maxage=10, stale-if-error=60", "STALE"),
        ("max-age=10, stale-if-error=3", ""),
        ("max-age=10", ""),
        ("max-age=10, stale-if-error=60, must-revalidate", ""),
        ("max-age=10, stale-if-error=60, proxy-revalidate", ""),
        ("no-cache, max-age=10, stale-if-error=60", ""),
    ];
    let path = |number: usize| format!("/bucket/{number}");
    for (number, (control, _)) in table.iter().enumerate() {
        origin.says(
            &path(number),
            &format!("Cache-Control: {control}\nAge: 15\n"),
        );
        assert_eq!(whole(&server, &path(number)).cache_word(), "MISS");
        assert_eq!(whole(&server, &path(number)).cache_word(), "REVALIDATED");
    }
    origin.fails(Some(503));
    for (number, (control, word)) in table.iter().enumerate() {
        let response = whole(&server, &path(number));
        match *word {
            "" => assert_eq!(response.status(), 503, "{control}"),
            word => {
                assert_eq!((response.status(), response.cache_word()), (200, word));
                let status = response.header("cache-status");
                assert_eq!(status, Some("millrace; hit; detail=stale-if-error"));
                let age: u64 = response.header("age").expect("Age").parse().expect("s");
                assert!((15..30).contains(&age), "Age {age}");
            }
        }
    }
    origin.fails(None);
    // A clean answer, and what is used while the origin is asked.
    let path = "/bucket/meanwhile";
    origin.says(
        path,
        "Cache-Control: max-age=10, stale-while-revalidate=60\nAge: 15\n",
    );
    assert_eq!(whole(&server, path).cache_word(), "MISS");
    let asked = origin.requests();
    let stale = whole(&server, path);
    assert_eq!(stale.cache_word(), "STALE");
    let status = stale.header("cache-status");
    assert_eq!(status, Some("millrace; hit; detail=stale-while-revalidate"));
    wait_until("a question", PATIENCE, || origin.requests() > asked);
    origin.says(path, "Cache-Control: max-age=10\n");
    wait_until("a fresh copy", PATIENCE, || {
        whole(&server, path).cache_word() == "HIT"
    });
    server.finish();
}

#[test]
fn what_the_settings_allow_past_its_time_holds_where_the_origin_does_not_forbid_it() {
    let origin = Teller::start(1000);
    let server = start(&origin, "stale_if_error = '1h'\n[outage]\nfall = 0\n");
    let table = [
        ("/bucket/silent", "", 200),
        ("/bucket/max-age", "Cache-Control: max-age=0\n", 200),
        (
            "/bucket/none",
            "Cache-Control: max-age=0, stale-if-error=0\n",
            503,
        ),
        (
            "/bucket/must",
            "Cache-Control: max-age=0, must-revalidate\n",
            503,
        ),
        ("/bucket/shared", "Cache-Control: s-maxage=0\n", 503),
        ("/bucket/asked", "Cache-Control: no-cache\n", 503),
    ];
    for (path, lines, _) in table {
        origin.says(path, lines);
        assert_eq!(whole(&server, path).status(), 200);
    }
    origin.fails(Some(500));
    for (path, lines, status) in table {
        let response = whole(&server, path);
        let want = if status == 200 { 200 } else { 500 };
        assert_eq!(response.status(), want, "{lines}");
    }
    server.finish();
}

#[test]
fn semantics_130_a_write_that_the_origin_refuses_leaves_the_copy() {
    // RFC 9111, section 4.4.
    let origin = Teller::start(1000);
    let server = start(&origin, "");
    let word_after = |status: u16, ask: Ask| {
        let path = ask.target.clone();
        origin.says(&path, "Cache-Control: max-age=600\n");
        whole(&server, &path);
        assert_eq!(whole(&server, &path).cache_word(), "HIT");
        origin.answers_writes(status);
        let answer = server.fetch(&ask);
        if status > 0 {
            assert_eq!(answer.status(), status);
        }
        whole(&server, &path).cache_word().to_owned()
    };
    for status in [400, 403, 404, 405, 409, 412, 500, 501, 503] {
        assert_eq!(
            word_after(status, Ask::put(PATH, b"new")),
            "HIT",
            "{status}"
        );
    }
    for method in ["DELETE", "POST", "PATCH"] {
        assert_eq!(word_after(403, Ask::new(method, PATH)), "HIT", "{method}");
        assert_ne!(word_after(200, Ask::new(method, PATH)), "HIT", "{method}");
    }
    for status in [200, 201, 204, 303] {
        let word = word_after(status, Ask::put(PATH, b"new"));
        assert_ne!(word, "HIT", "{status}");
    }
    // What a gateway says is in doubt for a while.
    for status in [502, 504] {
        let path = format!("/bucket/{status}");
        let word = word_after(status, Ask::put(&path, b"new"));
        assert_ne!(word, "HIT", "{status}");
    }
    // Nobody knows what became of it.
    assert_ne!(word_after(0, Ask::put(PATH, b"new")), "HIT");
    server.finish();
}

#[test]
fn a_copy_on_disk_stays_too_when_the_origin_refuses_a_write() {
    let (origin, folder) = (Teller::start(1000), Scratch::new());
    origin.says(PATH, "Cache-Control: max-age=600\n");
    let begin = || {
        let server = Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
            .settings(ORIGIN_DECIDES)
            .start(origin.address());
        await_folded(&server);
        server
    };
    let written = |server: &Millrace| {
        server
            .metrics()
            .sum("millrace_disk_written_bytes_total", &[])
    };
    let put = |server: &Millrace, status: u16| {
        let before = written(server);
        origin.answers_writes(status);
        let answer = server.fetch(&Ask::put(PATH, b"new"));
        assert_eq!(answer.status(), status);
        if status >= 400 {
            wait_until("the head on disk again", PATIENCE, || {
                written(server) > before
            });
            crate::disk::await_written(server, 1, 1);
        }
    };
    let server = begin();
    whole(&server, PATH);
    crate::disk::await_written(&server, 1, 1);
    // From RAM and, in the next process, from disk alone.
    put(&server, 403);
    server.kill();
    let server = begin();
    put(&server, 412);
    server.kill();
    let server = begin();
    assert_eq!(whole(&server, PATH).cache_word(), "HIT");
    put(&server, 200);
    server.kill();
    let server = begin();
    assert_eq!(whole(&server, PATH).cache_word(), "MISS");
    server.finish();
}

#[test]
fn without_the_origins_say_a_refused_write_drops_the_copy_too() {
    let origin = Teller::start(1000);
    let server = Millrace::start(origin.address());
    whole(&server, PATH);
    assert_eq!(whole(&server, PATH).cache_word(), "HIT");
    origin.answers_writes(403);
    server.fetch(&Ask::put(PATH, b"new"));
    assert_ne!(whole(&server, PATH).cache_word(), "HIT");
    server.finish();
}

#[test]
fn semantics_133_what_the_origin_said_survives_a_restart() {
    // (2F.114)
    let (origin, folder) = (Teller::start(1000), Scratch::new());
    let table = [
        ("/bucket/fresh", "Cache-Control: max-age=600\n", "HIT"),
        ("/bucket/expires", "Cache-Control: public\n", "HIT"),
        (
            "/bucket/old",
            "Cache-Control: max-age=600\nAge: 599\n",
            "REVALIDATED",
        ),
        ("/bucket/asked", "Cache-Control: no-cache\n", "REVALIDATED"),
        ("/bucket/silent", "", "REVALIDATED"),
    ];
    let begin = || {
        Millrace::setup()
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
            .settings(ORIGIN_DECIDES)
            .start(origin.address())
    };
    let server = begin();
    for (path, lines, _) in table {
        let expires = format!(
            "{lines}Date: {}\nExpires: {}\n",
            crate::harness::date_in(-5),
            crate::harness::date_in(600)
        );
        let lines = if path.ends_with("expires") {
            &expires
        } else {
            lines
        };
        origin.says(path, lines);
        assert_eq!(whole(&server, path).cache_word(), "MISS");
    }
    let count = table.len() as u64;
    crate::disk::await_written(&server, count, count);
    server.kill();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let server = begin();
    await_folded(&server);
    for (path, lines, word) in table {
        let response = whole(&server, path);
        assert_eq!(response.cache_word(), word, "{path} {lines}");
        if path == "/bucket/expires" {
            let age: u64 = response.header("age").expect("Age").parse().expect("s");
            assert!((6..60).contains(&age), "Age {age}");
        }
    }
    server.finish();
}

fn signed(id: &str) -> Ask {
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={id}/20260812/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=00"
    );
    Ask::get(PATH).header("Authorization", &value)
}

#[test]
fn semantics_135_who_may_read_what_a_signed_request_brought_is_for_access_to_say() {
    // RFC 9111, section 3.5.
    for (access, lines, word) in [
        ("open", "Cache-Control: max-age=600\n", "HIT"),
        ("open", "Cache-Control: public, max-age=600\n", "HIT"),
        ("open", "Cache-Control: private, max-age=600\n", "PASS"),
        (
            "revalidate",
            "Cache-Control: public, max-age=600\n",
            "REVALIDATED",
        ),
        (
            "exact",
            "Cache-Control: public, max-age=600\n",
            "REVALIDATED",
        ),
    ] {
        let origin = Teller::start(1000);
        origin.says(PATH, lines);
        let server = start(&origin, &format!("access = '{access}'\n"));
        server
            .fetch(&signed("ONE"))
            .assert_body(&Tile::new(SEED), 0, 1000);
        let other = server.fetch(&signed("OTHER"));
        assert_eq!(other.cache_word(), word, "{access} {lines}");
        other.assert_body(&Tile::new(SEED), 0, 1000);
        let own = origin.last();
        if word != "HIT" {
            let authorization = own.header("authorization").expect("a signature");
            assert!(authorization.contains("OTHER"), "{authorization}");
        }
        server.finish();
    }
}

#[test]
fn semantics_132_what_varies_is_not_kept_and_no_page_gets_the_cors_headers_of_another() {
    // RFC 9111, section 4.1.
    let triple = "Vary: Origin, Access-Control-Request-Headers, Access-Control-Request-Method\n";
    for settings in ["", ORIGIN_DECIDES] {
        let origin = Teller::start(1000);
        let server = Millrace::setup().settings(settings).start(origin.address());
        for (number, (vary, word)) in [
            ("", "HIT"),
            (triple, "HIT"),
            ("Vary: origin\nVary:\n", "HIT"),
            ("Vary: *\n", "PASS"),
            ("Vary: Accept-Encoding\n", "PASS"),
            ("Vary: Origin, Authorization\n", "PASS"),
            ("Vary: Origin\nVary: Cookie\n", "PASS"),
        ]
        .into_iter()
        .enumerate()
        {
            let path = format!("/bucket/{number}");
            origin.says(&path, &format!("Cache-Control: max-age=600\n{vary}"));
            whole(&server, &path);
            assert_eq!(whole(&server, &path).cache_word(), word, "{vary}");
        }
        // A kept copy is for who sends none of the three; whoever sends one is answered by the origin, and what it says is for that one.
        origin.says(
            "/bucket/page",
            &format!("Cache-Control: max-age=600\n{triple}"),
        );
        whole(&server, "/bucket/page");
        for name in [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ] {
            let allowed = format!("Access-Control-Allow-Origin: https://{name}.example\n");
            origin.says("/bucket/page", &format!("{triple}{allowed}"));
            let ask = Ask::get("/bucket/page").header(name, "https://page.example");
            let page = server.fetch(&ask);
            assert_eq!(page.cache_word(), "PASS", "{name}");
            let said = page.header("access-control-allow-origin");
            assert_eq!(said, Some(&*format!("https://{name}.example")));
            let plain = whole(&server, "/bucket/page");
            assert_eq!(plain.cache_word(), "HIT");
            assert_eq!(plain.header("access-control-allow-origin"), None);
        }
        server.finish();
    }
}

#[test]
fn a_change_of_who_decides_holds_for_what_is_cached() {
    // (2F.108)
    let origin = Teller::start(1000);
    let server = Millrace::setup()
        .settings("[cache]\nfreshness = 'ttl'\n")
        .start(origin.address());
    let table = [
        ("/bucket/asked", "Cache-Control: no-cache\n", "REVALIDATED"),
        (
            "/bucket/old",
            "Cache-Control: max-age=60\nAge: 70\n",
            "REVALIDATED",
        ),
        ("/bucket/fresh", "Cache-Control: max-age=600\n", "HIT"),
    ];
    for (path, lines, _) in table {
        origin.says(path, lines);
        whole(&server, path);
        assert_eq!(whole(&server, path).cache_word(), "HIT", "{lines}");
    }
    std::fs::write(server.settings_file(), ORIGIN_DECIDES).expect("written");
    wait_until("the change", PATIENCE, || {
        whole(&server, "/bucket/asked").cache_word() == "REVALIDATED"
    });
    for (path, lines, word) in table {
        assert_eq!(whole(&server, path).cache_word(), word, "{lines}");
    }
    server.finish();
}

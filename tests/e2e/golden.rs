//! Golden answers: for every shape of a read in the table, what comes through millrace, cold, warm in RAM and warm on disk, is what the
//! origin says itself: status, headers but for the listed ones, and bytes.
//!
//! Two origins. `s3s-fs` is a real S3 server that verifies every signature; it ignores conditions of a read, `partNumber` and
//! `versionId` (S3 does not), and refuses several ranges and malformed ones with 400 where S3 sends the whole object. The other one is the
//! tests' own store, which judges conditions as S3 does. Where an origin differs from S3, millrace is held to what the origin says.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::harness::millrace::Scratch;
use crate::harness::s3s::S3s;
use crate::harness::sign::amz_date;
use crate::harness::store::Object;
use crate::harness::{Ask, Millrace, PATIENCE, Response, Store, Tile, fetch, wait_until};

/// Headers that may differ: of one answer, of one hop, or marks.
const MAY_DIFFER: [&str; 9] = [
    "age",
    "cache-status",
    "connection",
    "date",
    "server",
    "transfer-encoding",
    "x-amz-id-2",
    "x-amz-request-id",
    "x-cache-status",
];

const LENGTH: u64 = 10_000;
const ETAG: &str = "@ETAG@";
const LIST: &str = "\"x\", @ETAG@";
const BARE: &str = "@BARE@";
const WEAK: &str = "W/@ETAG@";
const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";
const MODIFIED: &str = "Wed, 12 Aug 2026 10:00:00 GMT";
const BEFORE: &str = "Wed, 12 Aug 2026 09:59:59 GMT";
const AFTER: &str = "Wed, 12 Aug 2026 10:00:01 GMT";
const RANGE: (&str, &str) = ("Range", "bytes=100-299");
const CHECKSUMS: (&str, &str) = ("x-amz-checksum-mode", "ENABLED");

/// One shape: method, which object, query, headers.
struct Shape {
    method: &'static str,
    object: &'static str,
    query: String,
    headers: Vec<(String, String)>,
}

fn shape(
    method: &'static str,
    object: &'static str,
    query: &str,
    headers: &[(&str, &str)],
) -> Shape {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Shape {
        method,
        object,
        query: query.to_owned(),
        headers,
    }
}

/// Longer suffixes than the object: s3s-fs fails with 500 when it comes to read them, S3 sends the whole object as a part.
const LONG_SUFFIXES: [&str; 2] = ["bytes=-10001", "bytes=-99999999999"];

const RANGES: [&str; 32] = [
    "bytes=0-0",
    "bytes=0-1",
    "bytes=0-9998",
    "bytes=0-9999",
    "bytes=0-10000",
    "bytes=0-99999999",
    "bytes=1-1",
    "bytes=4095-4096",
    "bytes=5000-",
    "bytes=0-",
    "bytes=9999-",
    "bytes=9999-9999",
    "bytes=9999-10000",
    "bytes=007-9",
    "bytes=-1",
    "bytes=-2",
    "bytes=-9999",
    "bytes=-10000",
    "bytes=10000-",
    "bytes=10000-10000",
    "bytes=99999999-",
    "bytes=-0",
    "bytes=5-2",
    "bytes=",
    "bytes=-",
    "bytes=a-b",
    "bytes = 0-1",
    "items=0-1",
    "0-1",
    "bytes=0-1,4-5",
    "bytes=0-1, -2",
    "bytes=0--1",
];

/// What both origins are asked.
fn plain_shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for range in RANGES {
        shapes.push(shape("GET", "k", "", &[("Range", range)]));
    }
    for range in [
        "bytes=0-0",
        "bytes=5000-",
        "bytes=-1",
        "bytes=10000-",
        "bytes=5-2",
    ] {
        shapes.push(shape("HEAD", "k", "", &[("Range", range)]));
    }
    // No suffix of nothing: s3s-fs panics at it, S3 says 416.
    for range in ["bytes=0-0", "bytes=0-", "bytes=-0", "bytes=1-", "bytes=5-2"] {
        shapes.push(shape("GET", "empty", "", &[("Range", range)]));
    }
    for range in [
        "bytes=0-0",
        "bytes=0-1",
        "bytes=-1",
        "bytes=1-",
        "bytes=1-1",
    ] {
        shapes.push(shape("GET", "one", "", &[("Range", range)]));
    }
    for object in ["k", "empty", "one", "none"] {
        for method in ["GET", "HEAD"] {
            shapes.push(shape(method, object, "", &[]));
        }
    }
    shapes.extend(shapes_by_query());
    shapes.extend(shapes_by_header());
    shapes
}

fn shapes_by_query() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let queries = [
        "x-id=GetObject",
        "versionId=null",
        "partNumber=1",
        "partNumber=2",
        "response-content-type=text%2Fhtml",
        "response-cache-control=no-cache&response-expires=0",
        "response-content-disposition=attachment",
        "response-content-encoding=x&response-content-language=de",
        "tagging",
        "acl",
        "unknown=1",
    ];
    for query in queries {
        shapes.push(shape("GET", "k", query, &[]));
        shapes.push(shape("GET", "k", query, &[RANGE]));
    }
    for query in [
        "x-id=HeadObject",
        "versionId=null",
        "partNumber=1",
        "unknown",
    ] {
        shapes.push(shape("HEAD", "k", query, &[]));
    }
    shapes
}

fn shapes_by_header() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let headers: [&[(&str, &str)]; 14] = [
        &[CHECKSUMS],
        &[CHECKSUMS, RANGE],
        &[("Cache-Control", "no-cache")],
        &[("Cache-Control", "no-store")],
        &[("Pragma", "no-cache")],
        &[("Accept-Encoding", "gzip")],
        &[("Accept-Encoding", "identity")],
        &[("Accept", "application/json")],
        &[("User-Agent", "golden")],
        &[("Origin", "https://page.example")],
        &[("x-amz-expected-bucket-owner", "123456789012")],
        &[("x-amz-request-payer", "requester")],
        &[("amz-sdk-request", "attempt=1")],
        &[("Accept-Language", "de")],
    ];
    for lines in headers {
        shapes.push(shape("GET", "k", "", lines));
        if lines != [CHECKSUMS, RANGE] {
            shapes.push(shape("HEAD", "k", "", lines));
        }
    }
    shapes
}

/// What only an origin that judges conditions is asked.
fn conditional_shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let alone = [
        ("If-Match", ETAG),
        ("If-Match", LIST),
        ("If-Match", BARE),
        ("If-Match", "*"),
        ("If-Match", OTHER),
        ("If-None-Match", ETAG),
        ("If-None-Match", LIST),
        ("If-None-Match", BARE),
        ("If-None-Match", "*"),
        ("If-None-Match", OTHER),
        ("If-None-Match", WEAK),
        ("If-Modified-Since", BEFORE),
        ("If-Modified-Since", MODIFIED),
        ("If-Modified-Since", AFTER),
        ("If-Modified-Since", "x"),
        ("If-Unmodified-Since", BEFORE),
        ("If-Unmodified-Since", MODIFIED),
        ("If-Unmodified-Since", AFTER),
        ("If-Unmodified-Since", "x"),
    ];
    for line in alone {
        shapes.push(shape("GET", "k", "", &[line]));
        shapes.push(shape("GET", "k", "", &[line, RANGE]));
        shapes.push(shape("HEAD", "k", "", &[line]));
    }
    for if_range in [ETAG, OTHER, WEAK, MODIFIED, BEFORE] {
        let line = ("If-Range", if_range);
        shapes.push(shape("GET", "k", "", &[line, RANGE]));
        shapes.push(shape("GET", "k", "", &[line]));
        shapes.push(shape("GET", "k", "", &[line, RANGE, ("If-Match", ETAG)]));
    }
    let pairs = [
        [("If-Match", ETAG), ("If-Unmodified-Since", BEFORE)],
        [("If-Match", OTHER), ("If-Unmodified-Since", AFTER)],
        [("If-None-Match", ETAG), ("If-Modified-Since", BEFORE)],
        [("If-None-Match", OTHER), ("If-Modified-Since", BEFORE)],
        [("If-None-Match", OTHER), ("If-Modified-Since", AFTER)],
        [("If-Match", ETAG), ("If-None-Match", ETAG)],
        [("If-Match", OTHER), ("If-None-Match", ETAG)],
        [
            ("If-Unmodified-Since", BEFORE),
            ("If-Modified-Since", AFTER),
        ],
    ];
    for pair in &pairs {
        shapes.push(shape("GET", "k", "", pair));
        shapes.push(shape("HEAD", "k", "", pair));
    }
    for suffix in LONG_SUFFIXES {
        shapes.push(shape("GET", "k", "", &[("Range", suffix)]));
    }
    let late = ("Range", "bytes=10000-");
    shapes.push(shape("GET", "k", "", &[("If-None-Match", ETAG), late]));
    shapes.push(shape("GET", "k", "", &[("If-Match", OTHER), late]));
    shapes.push(shape("GET", "k", "", &[("If-Match", ETAG), late]));
    shapes.push(shape("GET", "empty", "", &[("If-None-Match", "*")]));
    shapes.push(shape("GET", "none", "", &[("If-None-Match", "*")]));
    shapes.push(shape("GET", "none", "", &[("If-Match", "*")]));
    shapes
}

/// What only an origin is asked that knows parts, versions and overridden headers as S3 does; signed, but in form only.
fn queried_shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let parts = [
        "partNumber=1",
        "partNumber=2",
        "partNumber=3",
        "partNumber=0",
        "partNumber=x",
        "partNumber=10001",
    ];
    let versions = [
        "versionId=v1",
        "versionId=none",
        "versionId=v1&partNumber=2",
        "versionId=%761",
        "versionId=",
    ];
    let overrides = [
        "response-content-type=text%2Fhtml",
        "response-content-type=a%2Fb&response-content-language=de&response-content-encoding=x",
        "response-cache-control=no-cache&response-expires=Wed%2C%2012%20Aug%202026%2010%3A00%3A00%20GMT",
        "response-content-disposition=attachment%3B%20filename%3D%22a%20b%22",
        "versionId=v1&response-content-type=text%2Fhtml",
        "partNumber=2&response-content-type=text%2Fhtml",
    ];
    for query in parts.into_iter().chain(versions).chain(overrides) {
        shapes.push(shape("GET", "k", query, &[]));
        shapes.push(shape("HEAD", "k", query, &[]));
        shapes.push(shape("GET", "k", query, &[CHECKSUMS]));
        shapes.push(shape("GET", "k", query, &[RANGE]));
        shapes.push(shape("GET", "k", query, &[("Range", "bytes=10000-")]));
        shapes.push(shape("GET", "k", query, &[("If-None-Match", ETAG)]));
        shapes.push(shape("GET", "k", query, &[("If-Match", OTHER)]));
    }
    for query in [
        "partNumber=1",
        "versionId=v1",
        "response-content-type=text%2Fhtml",
    ] {
        shapes.push(shape("GET", "one", query, &[]));
        shapes.push(shape("GET", "none", query, &[]));
        shapes.push(shape("GET", "k", query, &[("If-Range", ETAG), RANGE]));
    }
    for range in RANGES {
        shapes.push(shape("GET", "k", "", &[("Range", range)]));
        shapes.push(shape("GET", "empty", "", &[("Range", range)]));
    }
    shapes
}

/// An origin under comparison, and how to ask it.
struct Subject<'s> {
    origin: SocketAddr,
    /// Signs for whom it is asked through.
    sign: &'s dyn Fn(Ask, SocketAddr) -> Ask,
    etag: String,
}

impl Subject<'_> {
    fn ask(&self, shape: &Shape, number: usize, at: SocketAddr) -> Ask {
        let query = match shape.query.as_str() {
            "" => String::new(),
            query => format!("?{query}"),
        };
        let target = format!("{}{query}", path(number, shape.object));
        let bare = self.etag.trim_matches('"');
        let fill = |value: &str| value.replace(ETAG, &self.etag).replace(BARE, bare);
        let ask = shape
            .headers
            .iter()
            .fold(Ask::new(shape.method, &target), |ask, (name, value)| {
                ask.header(name, &fill(value))
            });
        (self.sign)(ask, at)
    }

    fn direct(&self, shape: &Shape, number: usize) -> Response {
        fetch(self.origin, &self.ask(shape, number, self.origin))
    }

    fn through(&self, server: &Millrace, shape: &Shape, number: usize) -> Response {
        server.fetch(&self.ask(shape, number, server.door))
    }
}

fn path(number: usize, object: &str) -> String {
    format!("/bucket/{number}-{object}")
}

/// What two answers are compared by.
fn essence(response: &Response) -> String {
    let mut lines: Vec<String> = response
        .head
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !MAY_DIFFER.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    lines.sort();
    let mut text = format!("{}\n{}\n", response.status(), lines.join("\n"));
    let is_error = response.status() >= 400;
    // An error's text names the request.
    match is_error {
        true => {
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| !line.starts_with("content-"))
                .collect();
            text = lines.join("\n");
            let code = response.text();
            let code = code
                .split("<Code>")
                .nth(1)
                .and_then(|rest| rest.split('<').next());
            let _ = write!(text, "\n{}", code.unwrap_or_default());
        }
        false => {
            let _ = write!(
                text,
                "{} bytes {}",
                response.body.len(),
                crate::harness::sha256_hex(&response.body)
            );
        }
    }
    text
}

/// Asks every shape directly and through the server, and says where the answers differ.
fn compare(subject: &Subject<'_>, server: &Millrace, shapes: &[Shape], how: &str) -> Vec<String> {
    let mut differences = Vec::new();
    for (number, shape) in shapes.iter().enumerate() {
        let (mine, own) = (
            essence(&subject.through(server, shape, number)),
            essence(&subject.direct(shape, number)),
        );
        if mine != own {
            differences.push(format!(
                "{how}: {} {} ?{} {:?}\n--- the origin:\n{own}\n--- through millrace:\n{mine}\n",
                shape.method, shape.object, shape.query, shape.headers
            ));
        }
    }
    differences
}

/// Reads every object whole, so that it is in RAM.
fn warm(subject: &Subject<'_>, server: &Millrace, shapes: &[Shape]) {
    for (number, shape) in shapes.iter().enumerate() {
        let whole = Shape {
            method: "GET",
            object: shape.object,
            query: String::new(),
            headers: vec![(CHECKSUMS.0.to_owned(), CHECKSUMS.1.to_owned())],
        };
        subject.through(server, &whole, number);
    }
}

fn run(subject: &Subject<'_>, shapes: &[Shape]) {
    let folder = Scratch::new();
    let setup = || {
        Millrace::setup()
            .shards(2)
            .cache_dir(&folder.path)
            .arguments(&["--disk", "512MiB"])
    };
    let mut differences = Vec::new();
    let cold = Millrace::setup().shards(2).start(subject.origin);
    differences.extend(compare(subject, &cold, shapes, "cold"));
    cold.finish();
    let server = setup().start(subject.origin);
    warm(subject, &server, shapes);
    differences.extend(compare(subject, &server, shapes, "warm in RAM"));
    differences.extend(compare(subject, &server, shapes, "again in RAM"));
    let known = shapes.iter().filter(|shape| shape.object != "none").count() as f64;
    wait_until("the objects are on disk", PATIENCE, || {
        let metrics = server.metrics();
        metrics.sum("millrace_disk_heads", &[]) >= known
            && metrics.sum("millrace_disk_queued_bytes", &[]) == 0.0
    });
    server.finish();
    let server = setup().start(subject.origin);
    wait_until("the end of the fold", PATIENCE, || {
        server.metrics().sum("millrace_disk_folding_shards", &[]) == 0.0
    });
    differences.extend(compare(subject, &server, shapes, "warm on disk"));
    assert!(
        server
            .metrics()
            .sum("millrace_disk_heads_loaded_total", &[])
            > 0.0
    );
    server.finish();
    assert!(
        differences.is_empty(),
        "{} of {} answers differ:\n{}",
        differences.len(),
        4 * shapes.len(),
        differences.join("\n")
    );
}

fn bodies() -> [(&'static str, Vec<u8>); 3] {
    let tile = Tile::new(90);
    [
        ("k", tile.slice(0, LENGTH)),
        ("empty", Vec::new()),
        ("one", tile.slice(0, 1)),
    ]
}

#[test]
fn semantics_82_plain_reads_are_answered_as_a_real_origin_answers_them() {
    let origin = S3s::start();
    origin.create_bucket("bucket");
    let shapes = plain_shapes();
    assert!(shapes.len() >= 100, "{} shapes", shapes.len());
    let mut etag = String::new();
    for (number, shape) in shapes.iter().enumerate() {
        for (object, body) in bodies() {
            if object == shape.object {
                let put = origin.put(&path(number, object), &body);
                if object == "k" {
                    etag = put.header("etag").expect("an ETag").to_owned();
                }
            }
        }
    }
    let subject = Subject {
        origin: origin.address,
        sign: &|ask, at| origin.signer(at).sign(ask),
        etag,
    };
    run(&subject, &shapes);
}

#[test]
fn semantics_83_conditional_reads_are_answered_as_an_origin_with_s3s_rules_answers_them() {
    let store = Store::new();
    let shapes = conditional_shapes();
    assert!(shapes.len() >= 80, "{} shapes", shapes.len());
    let mut etag = String::new();
    for (number, shape) in shapes.iter().enumerate() {
        for (object, body) in bodies() {
            if object == shape.object {
                let stored = Object::bytes(&body).header("Cache-Control", "max-age=7");
                if object == "k" {
                    etag.clone_from(&stored.etag);
                }
                store.insert(&path(number, object), stored);
            }
        }
    }
    let origin = store.serve();
    let subject = Subject {
        origin: origin.address,
        sign: &|ask, _| ask,
        etag,
    };
    run(&subject, &shapes);
}

#[test]
fn semantics_119_parts_versions_overrides_and_odd_ranges_are_answered_as_s3_answers_them() {
    let store = Store::new();
    let shapes = queried_shapes();
    assert!(shapes.len() >= 150, "{} shapes", shapes.len());
    let mut etag = String::new();
    for (number, shape) in shapes.iter().enumerate() {
        for (object, body) in bodies() {
            if object != shape.object {
                continue;
            }
            let mut stored = Object::bytes(&body).header("Cache-Control", "max-age=7");
            if object == "k" {
                stored.parts = vec![4_000, 6_000];
                etag.clone_from(&stored.etag);
            }
            store.insert(&path(number, object), stored);
            let mut version = Object::tile(91, LENGTH / 2).header("x-amz-version-id", "v1");
            version.parts = vec![1_000, 3_000, 1_000];
            store.insert(&format!("{}?versionId=v1", path(number, object)), version);
        }
    }
    let origin = store.serve();
    // The same all the time, so that who was accepted once is answered without asking.
    let date = amz_date(SystemTime::now());
    let signature = "AWS4-HMAC-SHA256 Credential=AKID/20260812/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00";
    let subject = Subject {
        origin: origin.address,
        sign: &|ask, _| {
            ask.header("x-amz-date", &date)
                .header("Authorization", signature)
        },
        etag,
    };
    run(&subject, &shapes);
}

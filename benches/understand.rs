//! What a request means: host, target, signature, range, identity: `cargo bench --bench understand`.
//!
//! See `heads.rs` for what these are good for.

#![allow(missing_docs, reason = "criterion's macros make an undocumented item")]

mod samples;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

use millrace::cache::Head;
use millrace::cache::head::HeadParts;
use millrace::config::{Rules, Settings, Sources};
use millrace::fill::plan;
use millrace::fill::template::Ranged;
use millrace::fill::validate::{Question, validate};
use millrace::http::{HeadLimits, Method, parse_response};
use millrace::s3::{
    ContentRange, ObjectKeyRef, OriginMap, RangeHeader, Target, classify, is_stored,
};

fn hosts(c: &mut Criterion) {
    let mut group = c.benchmark_group("host");
    let (aws, single) = (samples::aws_map(), samples::single_map());
    let cases: [(&str, &OriginMap, &str); 5] = [
        (
            "a bucket of AWS",
            &aws,
            "training-sets.s3.eu-central-1.amazonaws.com",
        ),
        ("an endpoint of AWS", &aws, "s3.eu-central-1.amazonaws.com"),
        (
            "a bucket of another store",
            &aws,
            "sets.buckets.store-7.example:9000",
        ),
        ("not allowed", &aws, "www.example.com"),
        ("the one origin", &single, "127.0.0.1:8080"),
    ];
    for (name, map, host) in cases {
        group.bench_function(name, |b| b.iter(|| map.resolve(black_box(host)).is_ok()));
    }
    group.finish();
}

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("classify");
    let map = samples::aws_map();
    let single = samples::single_map();
    let cases = [
        ("a signed range", &map, samples::SMALL),
        ("boto3's, 20 lines", &map, samples::BOTO3),
        ("a presigned URL", &map, samples::PRESIGNED),
        ("nobody's, by path", &single, samples::ANONYMOUS),
        ("a part of an upload", &map, samples::UPLOAD_PART),
    ];
    for (name, map, text) in cases {
        let head = samples::parsed(text);
        let route = map.resolve_request(head.authority, head.host);
        let route = route.expect("an allowed host");
        let mut key = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| classify(black_box(&head), &route, &mut key).is_cacheable());
        });
    }
    group.bench_function("is the presigned one in time?", |b| {
        let head = samples::parsed(samples::PRESIGNED);
        let route = map.resolve_request(head.authority, head.host);
        let route = route.expect("an allowed host");
        let mut key = Vec::new();
        let request = classify(&head, &route, &mut key);
        b.iter(|| request.auth.presigned(black_box(1_767_225_600)));
    });
    group.finish();
}

fn targets(c: &mut Criterion) {
    let mut group = c.benchmark_group("target");
    let map = samples::aws_map();
    let route = map.resolve("s3.eu-central-1.amazonaws.com");
    let route = route.expect("an allowed host");
    let mut key = Vec::new();
    for (name, path) in [
        ("by path", "/training-sets/data/train/shard-000042.tar"),
        (
            "with escapes",
            "/training-sets/%C3%A4/data%20of/train/shard%2B000042.tar",
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let target = Target::parse(&route, black_box(path), &mut key);
                target.expect("valid").object_key().is_some()
            });
        });
    }
    let long = format!("/training-sets/{}", "k".repeat(1000));
    for (name, path) in [
        (
            "digest of an identity",
            "/training-sets/data/shard-000042.tar",
        ),
        ("digest of the longest", long.as_str()),
    ] {
        let target = Target::parse(&route, path, &mut key).expect("valid");
        let object = target.object_key().expect("an object");
        group.bench_function(name, |b| b.iter(|| black_box(&object).digest()));
    }
    group.finish();
}

fn ranges(c: &mut Criterion) {
    let mut group = c.benchmark_group("range");
    group.bench_function("Range, and what it means", |b| {
        b.iter(
            || match RangeHeader::parse(black_box(b"bytes=8388608-16777215")) {
                RangeHeader::One(spec) => spec.resolve(167_772_160),
                other => panic!("{other:?}"),
            },
        );
    });
    group.bench_function("Content-Range", |b| {
        b.iter(|| ContentRange::parse(black_box(b"bytes 8388608-16777215/167772160")));
    });
    group.bench_function("the windows of 100 MiB", |b| {
        b.iter(|| plan::windows(black_box(1_000_000..105_857_600)).count());
    });
    group.finish();
}

fn responses(c: &mut Criterion) {
    let mut group = c.benchmark_group("response");
    let limits = HeadLimits::default();
    let head = parse_response(samples::RESPONSE.as_bytes(), Method::Get, &limits);
    let head = head.expect("valid").expect("whole");
    let ranged = Ranged::bytes(&(8_388_608..16_777_216));
    group.bench_function("may it be kept?", |b| {
        b.iter(|| {
            let question = Question {
                overridden: 0,
                method: Method::Get,
                ranged: &ranged,
                wants_checksums: false,
                whole_will_do: false,
                object_bytes_max: 1 << 50,
                by_origin: false,
            };
            validate(question, black_box(&head)).is_ok()
        });
    });
    group.bench_function("which lines are kept?", |b| {
        b.iter(|| {
            let lines = black_box(&head).headers.iter();
            lines.filter(|(name, _)| is_stored(name)).count()
        });
    });
    group.finish();
}

/// What rules cost: a hit compares two numbers, a miss matches all globs.
fn rules(c: &mut Criterion) {
    let rule =
        |number| format!("[[rule]]\nmatch = 'bucket-{number}/logs/**/*.csv'\nttl = '{number}s'\n");
    let ten: String = (1..=10).map(rule).collect();
    let mut group = c.benchmark_group("rules");
    for (name, text) in [("none", String::new()), ("ten", ten)] {
        let sources = Sources {
            file: Some(("bench.toml".into(), text)),
            ..Sources::default()
        };
        let settings = Settings::load(sources).expect("settings").settings;
        let rules = Rules::of(&settings, 1);
        let mut key = Vec::new();
        for part in ["origin", "bucket-7", "logs/2026/11/21/part-00017.csv"] {
            key.extend_from_slice(&(part.len() as u16).to_be_bytes());
            key.extend_from_slice(part.as_bytes());
        }
        let parts = HeadParts {
            key: key.as_slice().into(),
            ..HeadParts::default()
        };
        let head = Head::new(1, parts);
        group.bench_function(format!("{name}, a hit"), |b| {
            b.iter(|| black_box(&head).policy(black_box(&rules)));
        });
        let object = ObjectKeyRef::from_encoded(&key).expect("an identity");
        group.bench_function(format!("{name}, a miss"), |b| {
            b.iter(|| rules.resolve(object.origin_id(), object.bucket(), black_box(object.key())));
        });
    }
    group.finish();
}

criterion_group!(
    understand, hosts, requests, targets, ranges, responses, rules
);
criterion_main!(understand);

//! The pure code on the way of a hit and of a fill, piece by piece: `cargo bench --bench hot_paths`.
//!
//! `cargo bench --bench hot_paths -- --test` runs each once, so that none can rot. What these say is for comparing two builds on one
//! machine; what the server as a whole does is measured in `perf/`.

#![allow(
    missing_docs,
    reason = "criterion's macros write functions without documents"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use millrace::cache::head::{Head, HeadParts, version_digest};
use millrace::cache::partition::{Lease, Partition};
use millrace::http::{HeadLimits, parse_request};
use millrace::ram::StripeId;
use millrace::ram::slab::Slab;
use millrace::s3::{OriginMap, OriginMapConfig, classify};

const REQUEST: &[u8] = b"GET /genomes/hg38/chr1.fa.gz HTTP/1.1\r\n\
Host: s3.eu-west-1.amazonaws.com\r\n\
Accept-Encoding: identity\r\n\
User-Agent: Boto3/1.43.0 md/Botocore#1.43.0 ua/2.0 os/linux\r\n\
Range: bytes=8388608-16777215\r\n\
X-Amz-Date: 20260812T100000Z\r\n\
X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
Authorization: AWS4-HMAC-SHA256 Credential=A/20260812/eu-west-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=0\r\n\
amz-sdk-invocation-id: 3f0c8a0e\r\n\
amz-sdk-request: attempt=1\r\n\r\n";

fn limits() -> HeadLimits {
    HeadLimits {
        head_bytes_max: 32 * 1024,
        headers_max: 100,
    }
}

fn request(c: &mut Criterion) {
    c.bench_function("http: parse a signed request", |b| {
        b.iter(|| parse_request(black_box(REQUEST), &limits()).is_ok());
    });
    let map = OriginMap::new(OriginMapConfig {
        aws: true,
        ..OriginMapConfig::default()
    })
    .expect("a map");
    let head = parse_request(REQUEST, &limits())
        .expect("a valid head")
        .expect("a whole head");
    c.bench_function("s3: resolve the host", |b| {
        b.iter(|| {
            map.resolve_request(black_box(head.authority), black_box(head.host))
                .is_ok()
        });
    });
    let route = map
        .resolve_request(head.authority, head.host)
        .expect("an AWS host");
    let mut key = Vec::new();
    c.bench_function("s3: classify a signed ranged read", |b| {
        b.iter(|| classify(black_box(&head), &route, &mut key).is_cacheable());
    });
    let classified = classify(&head, &route, &mut key);
    let object = classified.target.object_key().expect("an object");
    c.bench_function("s3: digest of an object key", |b| {
        b.iter(|| black_box(&object).digest())
    });
}

fn index(c: &mut Criterion) {
    let stamps = Arc::default();
    let mut partition = Partition::new(64 << 20, 4096, Arc::clone(&stamps)).expect("a memfd");
    let parts = HeadParts {
        key: (*b"key").into(),
        etag: (*b"\"e\"").into(),
        total: 4096,
        ..HeadParts::default()
    };
    partition.publish(Head::new(7, parts), stamps.now(7));
    let id = StripeId {
        object: 7,
        version: version_digest(b"\"e\"", 4096),
        index: 0,
    };
    if let Lease::Granted(mut writer) = partition.lease(id, 0..4096, &Arc::default()) {
        writer.room().fill(1);
        writer.advance(4096, |_| {});
        writer.finish(|_| {});
    }
    let index = Arc::clone(partition.index());
    c.bench_function("cache: look up a head", |b| {
        b.iter(|| index.head(black_box(7), b"key").is_some())
    });
    c.bench_function("cache: look up and pin an extent", |b| {
        b.iter(|| index.extent_at(black_box(&id), 0).is_some());
    });
}

fn slab(c: &mut Criterion) {
    let mut slab = Slab::new(64 << 20).expect("a memfd");
    let mut held = Vec::new();
    c.bench_function("ram: allocate 64 KiB", |b| {
        b.iter(|| match slab.allocate(black_box(65_536)) {
            Some(slots) => held.push(slots),
            None => {
                held.clear();
                slab = Slab::new(64 << 20).expect("a memfd");
            }
        });
    });
}

criterion_group!(hot_paths, request, index, slab);
criterion_main!(hot_paths);

//! The pure code on the way of a hit and of a fill, piece by piece: `cargo bench --bench hot_paths`.
//!
//! `cargo bench --bench hot_paths -- --test` runs each once, so that none can rot. What these say is for comparing two builds on one
//! machine; what the server as a whole does is measured by `perf`.

#![allow(missing_docs, reason = "criterion's macros make an undocumented item")]

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use millrace::cache::Head;
use millrace::cache::eviction::{Resident, S3Fifo};
use millrace::cache::head::HeadParts;
use millrace::cache::partition::{Lease, Partition};
use millrace::cache::stamps::Stamps;
use millrace::http::{HeadLimits, Version, parse_request};
use millrace::ram::extent::Extent;
use millrace::ram::slab::Slab;
use millrace::ram::{STRIPE_BYTES, StripeId};
use millrace::request::answer::{Answer, CacheStatus};
use millrace::s3::{ObjectKeyRef, OriginMap, OriginMapConfig, classify};

/// What a signing client sends for a ranged read.
const REQUEST: &str = "GET /data/train/shard-000042.tar?x-id=GetObject HTTP/1.1\r\n\
    Host: training-sets.s3.eu-central-1.amazonaws.com\r\n\
    Accept-Encoding: identity\r\n\
    User-Agent: Boto3/1.42.0 md/Botocore#1.42.0 ua/2.1 os/linux#6.18 lang/python#3.13\r\n\
    Range: bytes=8388608-16777215\r\n\
    X-Amz-Date: 20260101T000000Z\r\n\
    X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-central-1/s3/aws4_request, \
    SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
    Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
    amz-sdk-invocation-id: 5f2c0a52-9b1e-4c0d-8a55-0d6f0a1b2c3d\r\n\
    amz-sdk-request: attempt=1\r\n\r\n";

fn parse(c: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = c.benchmark_group("http");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("parse a request head", |b| {
        b.iter(|| {
            let head = parse_request(black_box(REQUEST.as_bytes()), &limits);
            head.expect("valid").expect("whole").bytes
        });
    });
    group.finish();
}

fn understand(c: &mut Criterion) {
    let config = OriginMapConfig {
        aws: true,
        ..OriginMapConfig::default()
    };
    let map = OriginMap::new(config).expect("a map");
    let head = parse_request(REQUEST.as_bytes(), &HeadLimits::default());
    let head = head.expect("valid").expect("whole");
    let mut key = Vec::new();
    let mut group = c.benchmark_group("s3");
    group.bench_function("resolve the host", |b| {
        b.iter(|| {
            map.resolve_request(head.authority, black_box(head.host))
                .is_ok()
        });
    });
    let route = map.resolve_request(head.authority, head.host);
    let route = route.expect("a route");
    group.bench_function("classify a request", |b| {
        b.iter(|| {
            let request = classify(black_box(&head), &route, &mut key);
            assert!(request.is_cacheable());
        });
    });
    let encoded = classify(&head, &route, &mut key);
    let encoded = encoded.target.object_key().expect("an object").encoded();
    let object = ObjectKeyRef::from_encoded(encoded).expect("encoded");
    group.bench_function("digest an object's key", |b| {
        b.iter(|| black_box(&object).digest());
    });
    group.finish();
}

fn head(object: u128) -> Head {
    let lines = b"ETag: \"9b2cf535f27731c974343645a3985328\"\r\n\
        Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n\
        Content-Type: application/x-tar\r\nServer: AmazonS3\r\nx-amz-server-side-encryption: AES256\r\n";
    let parts = HeadParts {
        key: (*b"training-sets/data/train/shard-000042.tar").into(),
        etag: (*b"\"9b2cf535f27731c974343645a3985328\"").into(),
        total: 20 * STRIPE_BYTES,
        lines: (*lines).into(),
        ..HeadParts::default()
    };
    Head::new(object, parts)
}

/// A partition full of small extents with a head each, as after a day of small objects.
fn full_partition() -> (Partition, Vec<StripeId>) {
    const OBJECTS: u64 = 10_000;
    let stamps = Arc::<Stamps>::default();
    let made = Partition::new(256 << 20, OBJECTS as usize, Arc::clone(&stamps));
    let mut partition = made.expect("memory");
    let mut ids = Vec::new();
    for number in 0..OBJECTS {
        let spread = millrace::base::prng::mix64(number);
        let object = u128::from(spread) << 64 | u128::from(millrace::base::prng::mix64(spread));
        let head = partition.publish(head(object), stamps.now(object));
        let id = StripeId {
            object,
            version: head.expect("nothing beats it").version(),
            index: 0,
        };
        fill(&mut partition, id, 16 * 1024);
        ids.push(id);
    }
    (partition, ids)
}

fn fill(partition: &mut Partition, id: StripeId, bytes: u32) -> Arc<Extent> {
    let Lease::Granted(mut writer) = partition.lease(id, 0..bytes, &Arc::default()) else {
        panic!("there is room");
    };
    while writer.remaining() > 0 {
        let room = writer.room();
        room.fill(7);
        let bytes = room.len();
        writer.advance(bytes, |_| {});
    }
    let extent = Arc::clone(writer.extent());
    writer.finish(|_| {});
    extent
}

fn look_up(c: &mut Criterion) {
    let (partition, ids) = full_partition();
    let index = Arc::clone(partition.index());
    let next = Cell::new(0);
    let id = || {
        next.set((next.get() + 4099) % ids.len());
        ids[next.get()]
    };
    let key = b"training-sets/data/train/shard-000042.tar";
    let mut group = c.benchmark_group("index");
    group.bench_function("find a head", |b| {
        b.iter(|| index.head(black_box(id().object), key).is_some());
    });
    group.bench_function("find an extent", |b| {
        b.iter(|| index.extent_at(black_box(&id()), 100).is_some());
    });
    group.bench_function("see how far the bytes go", |b| {
        b.iter(|| index.reach(black_box(&id()), 100, 16 * 1024).end);
    });
    group.finish();
}

fn ram(c: &mut Criterion) {
    let made = Partition::new(32 << 20, 16, Arc::default());
    let mut partition = made.expect("memory");
    let id = StripeId {
        object: 1,
        version: 1,
        index: 0,
    };
    let extent = fill(&mut partition, id, STRIPE_BYTES as u32);
    let mut group = c.benchmark_group("ram");
    group.bench_function("the next piece of an extent", |b| {
        b.iter(|| {
            let piece = extent.piece(black_box(3_000_000), STRIPE_BYTES as u32);
            piece.expect("it is there").bytes().len()
        });
    });
    group.bench_function("fill and evict an extent of 4 KiB", |b| {
        let made = Partition::new(4 << 20, 16, Arc::default());
        let mut partition = made.expect("memory");
        let mut index = 0;
        b.iter(|| {
            index += 1;
            fill(&mut partition, StripeId { index, ..id }, 4096)
        });
    });
    group.bench_function("allocate and free 64 KiB of the slab", |b| {
        let mut slab = Slab::new(64 << 20).expect("memory");
        let arena = Arc::clone(slab.arena());
        b.iter(|| {
            let slots = slab.allocate(black_box(64 * 1024)).expect("room");
            let bytes = 0..64 * 1024;
            drop(Extent::create(id, bytes, slots, &arena, &Arc::default()));
            slab.collect()
        });
    });
    group.finish();
}

/// As the partition's entries: hits in a byte, and gone when nobody else has it.
struct Entry(Rc<Cell<u8>>);

impl Resident for Entry {
    fn frequency(&self) -> Option<u8> {
        Some(self.0.get())
    }
    fn set_frequency(&self, frequency: u8) {
        self.0.set(frequency);
    }
    fn busy(&self) -> bool {
        false
    }
}

fn evict(c: &mut Criterion) {
    c.bench_function("eviction: one in, one out, a third hit", |b| {
        let mut fifo = S3Fifo::default();
        let entry = |number: u64| Entry(Rc::new(Cell::new(u8::from(number.is_multiple_of(3)))));
        (0..10_000).for_each(|number| fifo.insert(entry(number), 4096, number));
        let mut number = 10_000;
        b.iter(|| {
            number += 1;
            fifo.insert(entry(number), 4096, number % 20_000);
            fifo.evict().is_some()
        });
    });
}

fn answer(c: &mut Criterion) {
    let head = head(1);
    let mut out = Vec::new();
    c.bench_function("answer: the head of a 206", |b| {
        b.iter(|| {
            out.clear();
            let answer = Answer {
                head: black_box(&head),
                part: Some(STRIPE_BYTES..2 * STRIPE_BYTES),
                checksums: false,
                status: CacheStatus::Hit,
                age_ms: 123_456,
                unix_seconds: 1_767_225_600,
                keep_alive: true,
                version: Version::Http11,
            };
            answer.write(b"0123456789ABCDEF", &mut out);
            out.len()
        });
    });
}

criterion_group!(hot_paths, parse, understand, look_up, ram, evict, answer);
criterion_main!(hot_paths);

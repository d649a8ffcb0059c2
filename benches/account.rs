//! What is noted of a request: its line of the access log, its metrics, the time: `cargo bench --bench account`.
//!
//! See `heads.rs` for what these are good for.

#![allow(missing_docs, reason = "criterion's macros make an undocumented item")]

mod samples;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use millrace::base::{clock, prng::Prng};
use millrace::metrics::{
    Counter, Gauge, Histogram, Method, Outcome, Registry, SendPath, Source, StatusClass,
};

fn log(c: &mut Criterion) {
    let hostile = "\u{1}\"\\\u{e9}".repeat(200);
    let cases = [
        ("an SDK's read", samples::READ),
        ("hostile texts", [hostile.as_str(); 2]),
    ];
    let mut group = c.benchmark_group("access log");
    let mut out = Vec::new();
    for (name, texts) in cases {
        out.clear();
        let record = samples::record(texts);
        record.write(0, &mut out);
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                black_box(&record).write(0, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn metrics(c: &mut Criterion) {
    let registry = Registry::new(2);
    let mut group = c.benchmark_group("metrics");
    group.bench_function("count", |b| {
        b.iter(|| {
            let counter = Counter::Requests(Method::Get, black_box(Outcome::Hit));
            black_box(&registry).shard(1).count(counter);
        });
    });
    group.bench_function("observe", |b| {
        b.iter(|| {
            let histogram = Histogram::RequestDuration(black_box(Outcome::Hit));
            registry.shard(1).observe(histogram, black_box(56_789));
        });
    });
    group.bench_function("all of a hit", |b| {
        b.iter(|| {
            let shard = black_box(&registry).shard(1);
            shard.gauge_add(Gauge::RequestsInFlight, 1);
            shard.gauge_add(Gauge::RamLeases, 1);
            shard.add(Counter::SentBytes(Source::Ram), 4096);
            shard.add(Counter::SentBytesBy(SendPath::Copy), 4096);
            shard.gauge_add(Gauge::RamLeases, -1);
            shard.gauge_add(Gauge::RequestsInFlight, -1);
            shard.count(Counter::Requests(Method::Get, Outcome::Hit));
            shard.count(Counter::Responses(StatusClass::of(black_box(200))));
            shard.observe(Histogram::RequestDuration(Outcome::Hit), black_box(56_789));
            shard.observe(Histogram::ResponseBytes(Outcome::Hit), black_box(4096));
            shard.observe(Histogram::RequestFirstByte(Outcome::Hit), black_box(45_678));
        });
    });
    group.bench_function("render all", |b| b.iter(|| registry.render().len()));
    group.finish();
}

fn time(c: &mut Criterion) {
    let mut group = c.benchmark_group("base");
    group.bench_function("read the monotonic clock", |b| b.iter(clock::now_ns));
    group.bench_function("read the wall clock", |b| b.iter(clock::unix_seconds));
    let prng = Prng::new(7);
    group.bench_function("a request's number", |b| b.iter(|| prng.next_u64()));
    group.finish();
}

criterion_group!(account, log, metrics, time);
criterion_main!(account);

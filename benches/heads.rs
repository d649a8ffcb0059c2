//! HTTP heads, bodies in chunks, and what is written of them: `cargo bench --bench heads`.
//!
//! `cargo test --benches` runs each of these once, so that none can rot. What they say is for comparing two builds on one machine; what the
//! server as a whole does is measured by `perf`.

#![allow(missing_docs, reason = "criterion's macros make an undocumented item")]

mod samples;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use millrace::http::{
    CRLF, ChunkStep, ChunkedDecoder, HeadLimits, LAST_CHUNK, Method, RequestWriter, ResponseWriter,
    head_complete, http_date, parse_http_date, parse_request, parse_response, write_chunk_header,
};
use millrace::ram::STRIPE_BYTES;

fn request_heads(c: &mut Criterion) {
    let limits = HeadLimits::default();
    let hostile = samples::hostile();
    let heads = [
        ("a small SDK's", samples::SMALL),
        ("boto3's, 20 lines", samples::BOTO3),
        ("a presigned URL", samples::PRESIGNED),
        ("hostile, 90 long lines", &hostile),
    ];
    let mut group = c.benchmark_group("request head");
    for (name, text) in heads {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let head = parse_request(black_box(text.as_bytes()), &limits);
                head.expect("valid").expect("whole").bytes
            });
        });
    }
    let refused = hostile.replacen("x-00000089:", "x-00000089 :", 1);
    group.bench_function("refused in its last line", |b| {
        b.iter(|| parse_request(black_box(refused.as_bytes()), &limits).is_err());
    });
    group.bench_function("is it whole?", |b| {
        b.iter(|| head_complete(black_box(samples::BOTO3.as_bytes()), 0));
    });
    group.finish();
}

fn response_heads(c: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = c.benchmark_group("response head");
    group.throughput(Throughput::Bytes(samples::RESPONSE.len() as u64));
    group.bench_function("S3's 206", |b| {
        b.iter(|| {
            let text = black_box(samples::RESPONSE.as_bytes());
            let head = parse_response(text, Method::Get, &limits);
            head.expect("valid").expect("whole").bytes
        });
    });
    group.finish();
}

/// 16 chunks of 64 KiB.
fn chunks() -> Vec<u8> {
    let mut wire = Vec::new();
    for _ in 0..16 {
        write_chunk_header(&mut wire, 64 * 1024);
        wire.resize(wire.len() + 64 * 1024, b'd');
        wire.extend_from_slice(CRLF);
    }
    wire.extend_from_slice(LAST_CHUNK);
    wire
}

/// Counts the data of a body that comes in pieces of `step` bytes.
fn decoded(wire: &[u8], step: usize) -> usize {
    let mut decoder = ChunkedDecoder::new();
    let (mut at, mut end, mut data) = (0, step, 0);
    loop {
        match decoder.step(&wire[at..end.min(wire.len())]) {
            Ok(ChunkStep::NeedMore) => end += step,
            Ok(ChunkStep::Skip(bytes) | ChunkStep::Trailer { bytes }) => at += bytes,
            Ok(ChunkStep::Data { bytes }) => {
                data += bytes;
                at += bytes;
            }
            Ok(ChunkStep::End { .. }) => return data,
            Err(error) => panic!("the body is valid: {error}"),
        }
    }
}

fn chunked(c: &mut Criterion) {
    let wire = chunks();
    let mut group = c.benchmark_group("chunked");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    for (name, step) in [
        ("1 MiB, 16 KiB at a time", 16 * 1024),
        ("1 MiB at once", usize::MAX / 2),
    ] {
        group.bench_function(name, |b| b.iter(|| decoded(black_box(&wire), step)));
    }
    group.finish();
}

fn writers(c: &mut Criterion) {
    let mut group = c.benchmark_group("write");
    let mut out = Vec::new();
    let request = samples::parsed(samples::BOTO3);
    group.bench_function("boto3's head for the origin", |b| {
        b.iter(|| {
            out.clear();
            let head = black_box(&request);
            let mut writer = RequestWriter::new(&mut out, head.method_raw, head.path, head.query)
                .expect("valid");
            for (name, value) in head.headers.iter() {
                writer.header(name, value).expect("valid");
            }
            writer.finish();
        });
    });
    group.bench_function("a relayed head of 12 lines", |b| {
        let limits = HeadLimits::default();
        let head = parse_response(samples::RESPONSE.as_bytes(), Method::Get, &limits);
        let head = head.expect("valid").expect("whole");
        b.iter(|| {
            out.clear();
            let mut writer = ResponseWriter::new(&mut out, black_box(206)).expect("valid");
            writer.raw_lines(head.headers.raw()).expect("valid");
            writer.finish();
        });
    });
    group.finish();
}

fn answers(c: &mut Criterion) {
    let head = samples::head(1);
    let mut out = Vec::new();
    let mut group = c.benchmark_group("answer");
    let parts = [
        ("the head of a 200", None),
        ("the head of a 206", Some(STRIPE_BYTES..2 * STRIPE_BYTES)),
    ];
    for (name, part) in parts {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                let answer = samples::answer(black_box(&head), part.clone());
                answer.write(b"0123456789ABCDEF", &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn dates(c: &mut Criterion) {
    let mut group = c.benchmark_group("date");
    group.bench_function("write", |b| b.iter(|| http_date(black_box(1_767_225_600))));
    let text = http_date(1_767_225_600);
    group.bench_function("read", |b| b.iter(|| parse_http_date(black_box(&text))));
    group.finish();
}

criterion_group!(
    heads,
    request_heads,
    response_heads,
    chunked,
    writers,
    answers,
    dates
);
criterion_main!(heads);

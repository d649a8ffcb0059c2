//! Hit ratios of what goes from RAM and from disk, beside LRU and the theoretical best: `cargo bench --bench hit_ratio`.
//!
//! Drives the very code that the server's tiers ask (`cache::eviction`, `disk::reclaim`) with synthetic requests, and prints a table. Run once by the tests with few requests,
//! it judges itself: neither policy may fall behind LRU by more than a little, and nobody may beat the future.

#![allow(missing_docs, reason = "a program of its own")]

#[path = "hit_ratio/caches.rs"]
mod caches;
#[path = "hit_ratio/traces.rs"]
mod traces;

use caches::{Belady, Cache, Log, Lru, Ram};
use traces::{Load, Sizes, Trace};

/// Points of hit ratio that a policy may be behind LRU.
const BEHIND_MAX: f64 = 2.5;

/// What a cache did, the first quarter of the requests left out.
struct Score {
    requests: f64,
    bytes: f64,
    /// Bytes written again for each that came from the origin.
    again: f64,
}

fn run(cache: &mut dyn Cache, trace: &Trace) -> Score {
    let (mut hits, mut hit_bytes, mut count, mut all_bytes, mut missed_bytes) = (0, 0, 0, 0, 0);
    let warm = trace.requests.len() / 4;
    for (at, &object) in trace.requests.iter().enumerate() {
        let bytes = trace.bytes[object as usize];
        let hit = cache.read(object, bytes);
        missed_bytes += if hit { 0 } else { bytes };
        if at >= warm {
            count += 1;
            all_bytes += bytes;
            hits += u64::from(hit);
            hit_bytes += if hit { bytes } else { 0 };
        }
    }
    Score {
        requests: hits as f64 / f64::from(count) * 100.0,
        bytes: hit_bytes as f64 / all_bytes as f64 * 100.0,
        again: cache.again_bytes() as f64 / missed_bytes as f64,
    }
}

/// One line of the table; gives by how much the worse of the two policies is behind LRU.
fn compare(trace: &Trace, percent: u64, footprint: u64) -> f64 {
    let bytes = footprint * percent / 100;
    let lru = run(&mut Lru::new(bytes), trace);
    let ram = run(&mut Ram::new(bytes), trace);
    let log = run(&mut Log::new(bytes), trace);
    let best = run(&mut Belady::new(bytes, &trace.requests), trace);
    println!(
        "| {} | {percent} % | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} |",
        trace.name,
        lru.requests,
        ram.requests,
        log.requests,
        best.requests,
        lru.bytes,
        ram.bytes,
        log.bytes,
        best.bytes,
        log.again
    );
    for score in [&lru, &ram, &log] {
        assert!(
            score.requests <= best.requests + 0.1,
            "nobody knows the future"
        );
    }
    let behind = |score: &Score| (lru.requests - score.requests).max(lru.bytes - score.bytes);
    behind(&ram).max(behind(&log))
}

fn loads(scale: (usize, usize)) -> Vec<Trace> {
    let of = |load: Load, name, sizes| load.trace(name, scale, sizes);
    vec![
        of(Load::Zipf(0.7), "Zipf 0.7", Sizes::Equal),
        of(Load::Zipf(0.9), "Zipf 0.9", Sizes::Equal),
        of(Load::Zipf(1.1), "Zipf 1.1", Sizes::Equal),
        of(Load::Scans(0.9), "Zipf 0.9 and scans", Sizes::Equal),
        of(Load::Drift(0.9), "Zipf 0.9, drifting", Sizes::Equal),
        of(Load::Loop, "loop", Sizes::Equal),
        of(Load::Recent, "loop and repeats", Sizes::Equal),
        of(Load::Zipf(0.7), "Zipf 0.7, mixed sizes", Sizes::Mixed),
        of(Load::Zipf(0.9), "Zipf 0.9, mixed sizes", Sizes::Mixed),
        of(Load::Zipf(1.1), "Zipf 1.1, mixed sizes", Sizes::Mixed),
        of(
            Load::Scans(0.9),
            "Zipf 0.9 and scans, mixed sizes",
            Sizes::Mixed,
        ),
        of(
            Load::Drift(0.9),
            "Zipf 0.9, drifting, mixed sizes",
            Sizes::Mixed,
        ),
    ]
}

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let scale = if full {
        (100_000, 1_500_000)
    } else {
        (20_000, 120_000)
    };
    println!(
        "| load | cache | LRU | RAM | disk | best | LRU | RAM | disk | best | written again |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut worst: f64 = 0.0;
    for trace in loads(scale) {
        let footprint = trace.bytes[..scale.0].iter().sum();
        for percent in [10, 40] {
            worst = worst.max(compare(&trace, percent, footprint));
        }
    }
    assert!(worst <= BEHIND_MAX, "{worst:.1} points behind LRU");
}

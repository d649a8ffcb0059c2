//! The pure code on the way of a hit and of a fill, piece by piece: `cargo bench --bench hot_paths`.
//!
//! `cargo bench --bench hot_paths -- --test` runs each once, so that none can rot. What these say is for comparing two builds on one
//! machine; what the server as a whole does is measured in `perf/`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use millrace::ram::slab::Slab;

fn slab(c: &mut Criterion) {
    c.bench_function("slab: allocate and free 64 KiB", |b| {
        let mut slab = Slab::new(64 << 20).expect("a memfd");
        b.iter(|| {
            let slots = slab.allocate(black_box(65_536)).expect("room");
            black_box(slots);
        });
    });
}

criterion_group!(hot_paths, slab);
criterion_main!(hot_paths);

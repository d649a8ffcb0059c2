//! The index, eviction, and the slab: `cargo bench --bench cache`.
//!
//! See `heads.rs` for what these are good for. The table of a million entries is made only where time is taken, not where each runs once.

#![allow(missing_docs, reason = "criterion's macros make an undocumented item")]

mod samples;

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};

use millrace::base::prng::mix64;
use millrace::cache::eviction::{Resident, S3Fifo};
use millrace::cache::partition::Partition;
use millrace::cache::read_map::{MapWriter, ReadMap, table};
use millrace::cache::stamps::Stamps;
use millrace::ram::extent::Extent;
use millrace::ram::slab::Slab;
use millrace::ram::{STRIPE_BYTES, StripeId};

type Map = ReadMap<u64, u64>;

/// A table with as many chains as entries, and its one writer.
fn full_table(entries: u64) -> (Arc<Map>, MapWriter<u64, u64>) {
    let map: Arc<Map> = Arc::new(table(entries as usize));
    let holder: Arc<dyn AsRef<Map> + Send + Sync> = Arc::clone(&map) as _;
    let mut writer = MapWriter::new(holder);
    for number in 0..entries {
        writer.insert(mix64(number), number, number);
    }
    (map, writer)
}

fn tables(c: &mut Criterion) {
    let timing = std::env::args().any(|argument| argument == "--bench");
    let sizes = [("1,000", 1_000), ("1,000,000", 1_000_000)];
    let mut group = c.benchmark_group("table");
    for (name, entries) in sizes {
        let entries = if timing { entries } else { 1_000 };
        let (map, mut writer) = full_table(entries);
        let next = Cell::new(0);
        let turn = || {
            // A step that shares no factor with the sizes, so that every entry has its turn.
            next.set((next.get() + 387_421) % entries);
            next.get()
        };
        group.bench_function(format!("hit among {name}"), |b| {
            b.iter(|| {
                let number = black_box(turn());
                map.get(mix64(number), |key| *key == number, |value| *value)
            });
        });
        group.bench_function(format!("miss among {name}"), |b| {
            b.iter(|| {
                let number = black_box(turn()) + entries;
                map.get(mix64(number), |key| *key == number, |value| *value)
            });
        });
        group.bench_function(format!("replace among {name}"), |b| {
            b.iter(|| {
                let number = black_box(turn());
                writer.insert(mix64(number), number, number)
            });
        });
    }
    group.finish();
}

fn index(c: &mut Criterion) {
    let (partition, ids) = samples::full_partition(10_000);
    let index = Arc::clone(partition.index());
    let next = Cell::new(0);
    let id = || {
        next.set((next.get() + 4099) % ids.len());
        ids[next.get()]
    };
    let mut group = c.benchmark_group("index");
    group.bench_function("find a head", |b| {
        b.iter(|| index.head(black_box(id().object), samples::KEY).is_some());
    });
    group.bench_function("find no head", |b| {
        b.iter(|| index.head(black_box(!id().object), samples::KEY).is_some());
    });
    group.bench_function("find an extent", |b| {
        b.iter(|| index.extent_at(black_box(&id()), 100).is_some());
    });
    group.bench_function("see how far the bytes go", |b| {
        b.iter(|| index.reach(black_box(&id()), 100, 16 * 1024).end);
    });
    let stamps = Stamps::default();
    group.bench_function("take a stamp", |b| {
        b.iter(|| stamps.now(black_box(id().object)));
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
    c.bench_function("eviction/one in, one out, a third hit", |b| {
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

fn ram(c: &mut Criterion) {
    let made = Partition::new(32 << 20, 16, Arc::default());
    let mut partition = made.expect("memory");
    let id = StripeId {
        object: 1,
        version: 1,
        index: 0,
    };
    let extent = samples::fill(&mut partition, id, STRIPE_BYTES as u32);
    let mut group = c.benchmark_group("ram");
    group.bench_function("pin and let go", |b| {
        b.iter(|| drop(Arc::clone(black_box(&extent))));
    });
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
            samples::fill(&mut partition, StripeId { index, ..id }, 4096)
        });
    });
    for (name, bytes) in [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("8 MiB", 8 << 20)] {
        let mut slab = Slab::new(64 << 20).expect("memory");
        let arena = Arc::clone(slab.arena());
        group.bench_function(format!("allocate and free {name} of the slab"), |b| {
            b.iter(|| {
                let slots = slab.allocate(black_box(bytes)).expect("room");
                let window = 0..bytes as u32;
                drop(Extent::create(id, window, slots, &arena, &Arc::default()));
                slab.collect()
            });
        });
    }
    group.finish();
}

criterion_group!(cache, tables, index, evict, ram);
criterion_main!(cache);

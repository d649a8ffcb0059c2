//! Readers on other threads beside the one writer: what they find they judge by themselves, since a version's bytes follow from its names.
//!
//! Called by `model`. The writer publishes, fills, breaks off, invalidates and evicts as fast as it can; the readers read, pin and come back to
//! what they pinned.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace::base::prng::Prng;
use millrace::cache::head::HeadParts;
use millrace::cache::partition::{Lease, Partition};
use millrace::cache::stamps::Stamps;
use millrace::cache::{Head, Index};
use millrace::fill::plan;
use millrace::ram::extent::Extent;
use millrace::ram::progress::FillState;
use millrace::ram::readers::Readers;

use crate::objects::{Body, OBJECTS, Wish, digest, key};
use crate::world::judge::{come_home, judge_bytes, overwrite};

const RAM_BYTES: u64 = 3 << 20;
/// Pins that a reader comes back to.
const PINS: usize = 3;

/// What writer and readers share.
struct Shared {
    index: Arc<Index>,
    /// Fetches up to this one were beaten by an invalidation of the object.
    beaten: [AtomicU64; OBJECTS],
    stop: AtomicBool,
    judged_bytes: AtomicU64,
}

fn random_wish(prng: &Prng) -> Wish {
    Wish {
        kind: prng.below(3) as u8,
        at: prng.below(20_000_000) as u32,
        bytes: prng.below([2000, 100_000, 700_000][prng.below(3)]) as u32,
    }
}

/// Runs `steps` of a writer beside two readers.
pub fn read_beside_a_writer(seed: u64, steps: usize) {
    let stamps = Arc::<Stamps>::default();
    let mut partition = Partition::new(RAM_BYTES, 100, Arc::clone(&stamps)).expect("memory");
    partition.use_huge_pages();
    let shared = Arc::new(Shared {
        index: Arc::clone(partition.index()),
        beaten: Default::default(),
        stop: AtomicBool::new(false),
        judged_bytes: AtomicU64::new(0),
    });
    let readers: Vec<_> = (1..=2)
        .map(|number| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || read_until_told(&shared, &Prng::new(seed + number)))
        })
        .collect();
    let mut writer = Writer {
        shared: &shared,
        stamps: &stamps,
        partition: &mut partition,
        prng: Prng::new(seed),
        fetches: 0,
    };
    (0..steps).for_each(|_| writer.step());
    shared.stop.store(true, Ordering::Release);
    for reader in readers {
        reader.join().expect("a reader found nothing wrong");
    }
    assert!(shared.judged_bytes.load(Ordering::Relaxed) > 0);
    overwrite(&mut partition, RAM_BYTES);
    come_home(&mut partition);
}

struct Writer<'w> {
    shared: &'w Shared,
    stamps: &'w Stamps,
    partition: &'w mut Partition,
    prng: Prng,
    fetches: u64,
}

impl Writer<'_> {
    fn step(&mut self) {
        let object = self.prng.below(OBJECTS);
        match self.prng.below(10) {
            0 => self.invalidate(object),
            1 => self.lose_a_race(object),
            _ => self.fetch(object),
        }
    }

    fn head(&mut self, object: usize) -> Head {
        self.fetches += 1;
        let etag = format!("\"{}\"", self.prng.below(3));
        let parts = HeadParts {
            key: key(object).into(),
            etag: etag.into_bytes().into(),
            total: [1000, 300_000, 20_000_000][self.prng.below(3)],
            confirmed_ms: self.fetches as i64,
            ..HeadParts::default()
        };
        Head::new(digest(object), parts)
    }

    fn invalidate(&mut self, object: usize) {
        self.partition.invalidate(digest(object));
        // Of the two that share a group of stamps, each beats the other's fetches too, but not the other's head.
        self.shared.beaten[object].store(self.fetches, Ordering::Release);
    }

    fn lose_a_race(&mut self, object: usize) {
        let stamp = self.stamps.now(digest(object));
        let head = self.head(object);
        self.invalidate(object);
        assert!(self.partition.publish(head, stamp).is_none());
    }

    fn fetch(&mut self, object: usize) {
        let head = self.head(object);
        let (version, total) = (head.version(), head.total());
        let stamp = self.stamps.now(digest(object));
        let stored = self.partition.publish(head, stamp);
        assert!(stored.is_some(), "nothing beat it");
        let body = Body::of(digest(object), version);
        let readers = Arc::<Readers>::default();
        for window in plan::windows(random_wish(&self.prng).within(total)) {
            let id = window.id(digest(object), version);
            let lease = self.partition.lease(id, window.range.clone(), &readers);
            let Lease::Granted(mut writer) = lease else {
                continue;
            };
            let mut at = window.absolute().start;
            let gives_up = self.prng.below(4) == 0;
            while writer.remaining() > 0 && !(gives_up && self.prng.below(4) == 0) {
                let room = writer.room();
                let bytes = room.len().min(1 + self.prng.below(200_000));
                body.write(at, &mut room[..bytes]);
                writer.advance(bytes, |_| {});
                at += bytes as u64;
            }
            let extent = Arc::clone(writer.extent());
            if gives_up {
                writer.fail(|_| {});
            } else {
                writer.finish(|_| {});
            }
            self.partition.settled(&extent);
        }
        readers.end(1);
    }
}

/// Part of an extent, what it must be, and where the extent ends if that was settled.
type Pin = (Arc<Extent>, Body, Range<u32>, Option<u32>);

fn settled_end(extent: &Extent) -> Option<u32> {
    let settled = extent.progress().state() != FillState::Filling;
    settled.then(|| extent.promised_end())
}

fn read_until_told(shared: &Shared, prng: &Prng) {
    let mut pins: VecDeque<Pin> = VecDeque::new();
    while !shared.stop.load(Ordering::Acquire) {
        let object = prng.below(OBJECTS);
        let beaten = shared.beaten[object].load(Ordering::Acquire);
        let Some(head) = shared.index.head(digest(object), &key(object)) else {
            continue;
        };
        // The age is counted from the fetch's number.
        let fetch = u64::MAX - head.age_ms(u64::MAX);
        assert!(fetch > beaten, "a head outlived its invalidation");
        let body = Body::of(digest(object), head.version());
        for window in plan::windows(random_wish(prng).within(head.total())) {
            let id = window.id(digest(object), head.version());
            let Some(extent) = shared.index.extent_at(&id, window.range.start) else {
                continue;
            };
            assert_eq!(extent.id(), id);
            judge_bytes(&extent, body, window.range.clone());
            let judged = u64::from(extent.promised_end() - extent.start());
            shared.judged_bytes.fetch_add(judged, Ordering::Relaxed);
            extent.touch();
            let end = settled_end(&extent);
            pins.push_back((extent, body, window.range, end));
        }
        while pins.len() > PINS {
            let (extent, body, range, end) = pins.pop_front().expect("more than none");
            judge_bytes(&extent, body, range);
            assert!(
                end.is_none() || end == settled_end(&extent),
                "the end moved"
            );
        }
    }
}

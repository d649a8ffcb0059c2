//! The watermark: bytes below it are visible, a final one is final, and a reader that slept is woken for every change.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::explore;
use crate::progress::{FillState, Progress};

/// Bytes of the modelled extent.
const BYTES: usize = 2;

/// One extent without its slab: progress, its bytes, and a place to sleep for each shard.
struct Fill {
    progress: Progress,
    bytes: [UnsafeCell<u8>; BYTES],
    shards: Vec<Sleeper>,
}

/// As `shard::waits` behind a mailbox: a wake is remembered until somebody sleeps.
#[derive(Default)]
struct Sleeper {
    roused: Mutex<bool>,
    changed: Condvar,
}

impl Sleeper {
    fn wake(&self) {
        *self.roused.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn sleep(&self) {
        let mut roused = self.roused.lock().unwrap();
        while !*roused {
            roused = self.changed.wait(roused).unwrap();
        }
        *roused = false;
    }
}

// SAFETY: a byte is written before the watermark passes it and read only below the watermark (loom checks that).
#[allow(unsafe_code, reason = "as the slab it stands in for")]
unsafe impl Sync for Fill {}

impl Fill {
    fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            progress: Progress::default(),
            bytes: std::array::from_fn(|_| UnsafeCell::new(0)),
            shards: (0..shards).map(|_| Sleeper::default()).collect(),
        })
    }

    /// As `ExtentWriter::advance` for one byte, then at `upto` bytes as `ExtentWriter::settle`.
    fn write(&self, upto: usize, end: FillState) {
        // Shards of different words of the set: 0, 64, ...
        let wake = |shard: usize| self.shards[shard / 64].wake();
        for at in 0..upto {
            // SAFETY: above the watermark.
            self.bytes[at].with_mut(|byte| unsafe { *byte = at as u8 + 1 });
            self.progress.publish(at as u32 + 1);
            self.progress.take_interested(wake);
        }
        self.progress.settle(end);
        self.progress.take_interested(wake);
    }

    /// As `request::deliver` over `shard::waits`: what there is, then sleep until there is more; returns how much there was and how it ended.
    fn follow(&self, shard: usize) -> (usize, FillState) {
        let mut at = 0;
        loop {
            let state = self.progress.state();
            let filled = self.progress.filled() as usize;
            while at < filled {
                // SAFETY: below the watermark.
                let byte = self.bytes[at].with(|byte| unsafe { *byte });
                assert_eq!(usize::from(byte), at + 1);
                at += 1;
            }
            if state != FillState::Filling {
                return (at, state);
            }
            let moved = || {
                self.progress.state() != FillState::Filling
                    || self.progress.filled() as usize > filled
            };
            if moved() {
                continue;
            }
            self.progress.subscribe(shard * 64);
            if !moved() {
                self.shards[shard].sleep();
            }
        }
    }
}

#[test]
fn a_reader_gets_every_byte_and_the_end_without_a_lost_wake() {
    explore(4, || {
        let fill = Fill::new(1);
        let writer = Arc::clone(&fill);
        let thread = thread::spawn(move || writer.write(BYTES, FillState::Done));
        assert_eq!(fill.follow(0), (BYTES, FillState::Done));
        thread.join().unwrap();
    });
}

#[test]
fn a_fill_that_breaks_off_ends_its_readers_with_what_was_good() {
    explore(4, || {
        let fill = Fill::new(1);
        let writer = Arc::clone(&fill);
        let thread = thread::spawn(move || writer.write(1, FillState::Failed));
        assert_eq!(fill.follow(0), (1, FillState::Failed));
        thread.join().unwrap();
    });
}

#[test]
fn readers_on_two_shards_are_both_woken() {
    explore(3, || {
        let fill = Fill::new(2);
        let (writer, other) = (Arc::clone(&fill), Arc::clone(&fill));
        let threads = [
            thread::spawn(move || writer.write(1, FillState::Done)),
            thread::spawn(move || assert_eq!(other.follow(1), (1, FillState::Done))),
        ];
        assert_eq!(fill.follow(0), (1, FillState::Done));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

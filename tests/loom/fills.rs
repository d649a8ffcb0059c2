//! The watermark: bytes below it are visible, a final one is final, and a reader that slept is woken for every change.

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use super::progress::{FillState, Progress};
use crate::explore;

/// Bytes of the modelled extent.
const BYTES: usize = 2;

/// One extent without its slab: progress, its bytes, and a place to sleep for each shard that reads.
struct Fill {
    progress: Progress,
    bytes: [UnsafeCell<u8>; BYTES],
    shards: Vec<(usize, Sleeper)>,
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
unsafe impl Sync for Fill {}

impl Fill {
    fn new(shards: &[usize]) -> Arc<Self> {
        let sleeper = |&shard: &usize| (shard, Sleeper::default());
        Arc::new(Self {
            progress: Progress::default(),
            bytes: std::array::from_fn(|_| UnsafeCell::new(0)),
            shards: shards.iter().map(sleeper).collect(),
        })
    }

    fn sleeper(&self, shard: usize) -> &Sleeper {
        let mut known = self.shards.iter();
        &known.find(|(number, _)| *number == shard).unwrap().1
    }

    /// As `ExtentWriter::advance`, byte by byte.
    fn write(&self, upto: usize) {
        for at in 0..upto {
            // SAFETY: above the watermark.
            self.bytes[at].with_mut(|byte| unsafe { *byte = at as u8 + 1 });
            self.progress.publish(at as u32 + 1);
            self.progress
                .take_interested(|shard| self.sleeper(shard).wake());
        }
    }

    /// As `ExtentWriter::settle`.
    fn settle(&self, end: FillState) {
        self.progress.settle(end);
        self.progress
            .take_interested(|shard| self.sleeper(shard).wake());
    }

    /// As `request::deliver` over `shard::waits`: what there is, then sleep until there is more. Returns how much there was, and how it ended
    /// if `enough` bytes did not come first.
    fn follow(&self, shard: usize, enough: usize) -> (usize, FillState) {
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
            if state != FillState::Filling || at >= enough {
                return (at, state);
            }
            let moved = || {
                self.progress.state() != FillState::Filling
                    || self.progress.filled() as usize > filled
            };
            if moved() {
                continue;
            }
            self.progress.subscribe(shard);
            if !moved() {
                self.sleeper(shard).sleep();
            }
        }
    }
}

/// More than any fill of a model has.
const ALL: usize = BYTES + 1;

#[test]
fn a_reader_gets_every_byte_and_the_end_without_a_lost_wake() {
    explore(4, || {
        let fill = Fill::new(&[0]);
        let writer = Arc::clone(&fill);
        let thread = thread::spawn(move || {
            writer.write(BYTES);
            writer.settle(FillState::Done);
        });
        assert_eq!(fill.follow(0, ALL), (BYTES, FillState::Done));
        thread.join().unwrap();
    });
}

#[test]
fn every_byte_wakes_its_reader_also_when_no_more_comes() {
    explore(4, || {
        let fill = Fill::new(&[0]);
        let writer = Arc::clone(&fill);
        let thread = thread::spawn(move || writer.write(BYTES));
        assert_eq!(fill.follow(0, BYTES), (BYTES, FillState::Filling));
        thread.join().unwrap();
    });
}

#[test]
fn a_fill_that_breaks_off_ends_its_readers_with_what_was_good() {
    explore(4, || {
        let fill = Fill::new(&[0]);
        let writer = Arc::clone(&fill);
        let thread = thread::spawn(move || {
            writer.write(1);
            writer.settle(FillState::Failed);
        });
        assert_eq!(fill.follow(0, ALL), (1, FillState::Failed));
        thread.join().unwrap();
    });
}

/// Both shards read all that comes, however their bits lie in the set of who is interested.
fn both_are_woken(shards: [usize; 2], bytes: usize) {
    explore(2, move || {
        let fill = Fill::new(&shards);
        let (writer, other) = (Arc::clone(&fill), Arc::clone(&fill));
        let threads = [
            thread::spawn(move || writer.write(bytes)),
            thread::spawn(move || assert_eq!(other.follow(shards[1], bytes).0, bytes)),
        ];
        assert_eq!(fill.follow(shards[0], bytes).0, bytes);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn readers_on_two_shards_of_one_word_are_both_woken() {
    both_are_woken([0, 1], BYTES);
}

#[test]
fn readers_on_two_shards_of_two_words_are_both_woken() {
    both_are_woken([63, 64], 1);
}

//! The table with one writer: a reader sees a whole value that was current while it looked, nothing is freed under it, and everything is
//! dropped once. Included by the two `table_over_` files, each of which says what reclaims.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Count;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::read_map::{self, MapWriter, ReadMap};
use crate::explore;

/// Values made and dropped in all executions of one model.
#[derive(Default)]
struct Census {
    made: Count,
    dropped: Count,
}

impl Census {
    fn check(&self) {
        let made = self.made.load(Ordering::SeqCst);
        assert!(made > 0);
        assert_eq!(
            made,
            self.dropped.load(Ordering::SeqCst),
            "everything is dropped once"
        );
    }
}

/// A value in two halves. Loom reports a drop that is not ordered after every read of it.
struct Value {
    halves: UnsafeCell<[usize; 2]>,
    census: Arc<Census>,
}

// SAFETY: written when made and when dropped only (loom checks that nobody reads meanwhile).
unsafe impl Sync for Value {}

const DEAD: usize = usize::MAX;

impl Value {
    fn new(number: usize, census: &Arc<Census>) -> Self {
        census.made.fetch_add(1, Ordering::SeqCst);
        let value = Self {
            halves: UnsafeCell::new([0; 2]),
            census: Arc::clone(census),
        };
        // A write of its own: loom does not take the making of a cell for one.
        // SAFETY: nobody else knows it yet.
        value
            .halves
            .with_mut(|halves| unsafe { *halves = [number, number + 100] });
        value
    }

    fn number(&self) -> usize {
        // SAFETY: a reader holds it through the table.
        let halves = self.halves.with(|halves| unsafe { *halves });
        assert_eq!(halves[1], halves[0] + 100, "a whole value");
        halves[0]
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: nobody else can reach it any more.
        let before = self
            .halves
            .with_mut(|halves| unsafe { std::mem::replace(&mut *halves, [DEAD; 2]) });
        assert_ne!(before[0], DEAD, "dropped once");
        self.census.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A step of the writer.
#[derive(Clone, Copy)]
pub enum Step {
    Insert(u32, usize),
    Remove(u32),
    Free,
}

/// One table whose keys all share a chain, and how far its writer has come.
struct Table {
    map: Arc<ReadMap<u32, Value>>,
    begun: AtomicUsize,
    done: AtomicUsize,
    steps: &'static [Step],
}

impl Table {
    /// After `before` of `steps`, which no reader sees happen.
    fn new(steps: &'static [Step], before: usize, census: &Arc<Census>) -> (Arc<Self>, Writer) {
        let map = Arc::new(read_map::table(16));
        let table = Arc::new(Self {
            map: Arc::clone(&map),
            begun: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
            steps,
        });
        let mut writer = Writer {
            writer: MapWriter::new(map),
            table: Arc::clone(&table),
            census: Arc::clone(census),
        };
        writer.run(0, before);
        (table, writer)
    }

    /// What a key has after `steps` steps.
    fn after(&self, steps: usize, key: u32) -> Option<usize> {
        self.steps[..steps]
            .iter()
            .fold(None, |now, step| match *step {
                Step::Insert(k, number) if k == key => Some(number),
                Step::Remove(k) if k == key => None,
                Step::Insert(..) | Step::Remove(_) | Step::Free => now,
            })
    }

    /// Looks a key up and judges what was seen.
    fn read(&self, key: u32) {
        let first = self.done.load(Ordering::Acquire);
        let seen = self.map.get(0, |k| *k == key, Value::number);
        let last = self.begun.load(Ordering::Acquire);
        let mut allowed = (first..=last.max(first)).map(|steps| self.after(steps, key));
        assert!(
            allowed.any(|number| number == seen),
            "key {key}: {seen:?} was not current between steps {first} and {last}"
        );
    }
}

/// The one writer of a table.
struct Writer {
    writer: MapWriter<u32, Value>,
    table: Arc<Table>,
    census: Arc<Census>,
}

impl Writer {
    fn run(&mut self, from: usize, to: usize) {
        for number in from..to {
            self.table.begun.store(number + 1, Ordering::Release);
            match self.table.steps[number] {
                Step::Insert(key, value) => {
                    self.writer.insert(0, key, Value::new(value, &self.census));
                }
                Step::Remove(key) => assert!(self.writer.remove(0, &key)),
                Step::Free => read_map::free_retired(),
            }
            self.table.done.store(number + 1, Ordering::Release);
        }
    }
}

/// Runs the steps from `before` on beside readers of the given keys.
pub fn beside(
    preemptions: usize,
    steps: &'static [Step],
    before: usize,
    readers: &'static [&'static [u32]],
) {
    let census = Arc::<Census>::default();
    let counted = Arc::clone(&census);
    explore(preemptions, move || {
        let (table, mut writer) = Table::new(steps, before, &counted);
        let threads: Vec<_> = readers
            .iter()
            .map(|keys| {
                let table = Arc::clone(&table);
                thread::spawn(move || keys.iter().for_each(|&key| table.read(key)))
            })
            .collect();
        writer.run(before, steps.len());
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
    census.check();
}

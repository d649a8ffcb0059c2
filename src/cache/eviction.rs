//! S3-FIFO (Yang et al., SOSP 2023), weighted by bytes: a small queue that most things leave at once, a main queue for what was hit, and a
//! ghost of fingerprints of what left the small queue and would be welcome back.
//!
//! Called by `cache::partition`, once for extents and once for heads. Pure: entries answer for themselves through [`Resident`]. A hit moves
//! nothing; entries that are gone already are skipped when their turn comes, and taken out each time the queues have doubled, so that the
//! queues are never longer than twice what is really there.

use std::collections::VecDeque;

use hashbrown::HashMap;

/// What the policy asks of what it orders.
pub trait Resident {
    /// Hits since it was last asked to go, 0 to 3; `None` when it is gone already.
    fn frequency(&self) -> Option<u8>;
    /// Sets the hits that are left to it.
    fn set_frequency(&self, frequency: u8);
    /// Whether it may not go now (it is being filled).
    fn busy(&self) -> bool;
}

struct Entry<E> {
    item: E,
    weight: u64,
    fingerprint: u64,
}

struct Queue<E> {
    entries: VecDeque<Entry<E>>,
    bytes: u64,
}

impl<E> Queue<E> {
    fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, entry: Entry<E>) {
        self.bytes += entry.weight;
        self.entries.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry<E>> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.weight;
        Some(entry)
    }
}

/// Fingerprints in order of leaving; bounded by count.
#[derive(Default)]
struct Ghost {
    order: VecDeque<u64>,
    counts: HashMap<u64, u32>,
}

impl Ghost {
    fn remember(&mut self, fingerprint: u64, most: usize) {
        self.order.push_back(fingerprint);
        *self.counts.entry(fingerprint).or_insert(0) += 1;
        while self.order.len() > most {
            let oldest = self.order.pop_front().expect("longer than `most`");
            self.forget_one(oldest);
        }
    }

    fn forget_one(&mut self, fingerprint: u64) {
        if let Some(count) = self.counts.get_mut(&fingerprint) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&fingerprint);
            }
        }
    }

    fn knows(&self, fingerprint: u64) -> bool {
        self.counts.contains_key(&fingerprint)
    }
}

/// What became of the entry whose turn it was.
enum Answer<E> {
    /// It goes.
    Goes(E),
    /// It may not go now.
    Busy,
    /// It was hit, or is gone already.
    Stays,
}

/// The order in which things go.
pub struct S3Fifo<E> {
    small: Queue<E>,
    main: Queue<E>,
    ghost: Ghost,
    ghost_hits: u64,
    /// Entries from which on the next insertion takes out what is gone.
    sweep_at: usize,
}

impl<E: Resident> Default for S3Fifo<E> {
    fn default() -> Self {
        Self {
            small: Queue::new(),
            main: Queue::new(),
            ghost: Ghost::default(),
            ghost_hits: 0,
            sweep_at: SWEEP_MIN,
        }
    }
}

/// Share of the bytes that the small queue is held at, in percent.
const SMALL_PERCENT: u64 = 10;
/// Queues shorter than this are not worth looking through.
const SWEEP_MIN: usize = 1024;

impl<E: Resident> S3Fifo<E> {
    /// A new entry: to the main queue if it left the small one not long ago, else to the small one.
    pub fn insert(&mut self, item: E, weight: u64, fingerprint: u64) {
        if self.len() >= self.sweep_at {
            self.take_out_gone();
        }
        let entry = Entry {
            item,
            weight,
            fingerprint,
        };
        if self.ghost.knows(fingerprint) {
            self.ghost_hits += 1;
            self.main.push(entry);
        } else {
            self.small.push(entry);
        }
    }

    /// The turn of a gone entry never comes while nothing has to make room: a head that is confirmed every second would queue one a second.
    fn take_out_gone(&mut self) {
        for queue in [&mut self.small, &mut self.main] {
            queue
                .entries
                .retain(|entry| entry.item.frequency().is_some());
            queue.bytes = queue.entries.iter().map(|entry| entry.weight).sum();
        }
        self.sweep_at = (2 * self.len()).max(SWEEP_MIN);
    }

    /// Entries, gone ones included until they are taken out.
    #[must_use]
    pub fn len(&self) -> usize {
        self.small.entries.len() + self.main.entries.len()
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Insertions that the ghost recognised.
    #[must_use]
    pub fn ghost_hits(&self) -> u64 {
        self.ghost_hits
    }

    /// The next to go. `None` when nothing may: every entry is busy, gone, or there is none.
    pub fn evict(&mut self) -> Option<E> {
        // Each entry can be asked up to four times before its hits are used up.
        let mut turns = self.len() * 5 + 1;
        // Busy entries met in a row: a queue of nothing else must not keep the other from being asked.
        let (mut small_busy, mut main_busy) = (0, 0);
        while turns > 0 {
            turns -= 1;
            let total = self.small.bytes + self.main.bytes;
            let small_may = small_busy < self.small.entries.len();
            let main_may = main_busy < self.main.entries.len();
            let over = self.small.bytes * 100 > total * SMALL_PERCENT;
            let (answer, busy) = match (small_may, main_may) {
                (false, false) => return None,
                (true, true) if over => (self.step_small(), &mut small_busy),
                (true, false) => (self.step_small(), &mut small_busy),
                (_, true) => (self.step_main(), &mut main_busy),
            };
            match answer {
                Answer::Goes(item) => return Some(item),
                Answer::Busy => *busy += 1,
                Answer::Stays => *busy = 0,
            }
        }
        None
    }

    fn step_small(&mut self) -> Answer<E> {
        let Some(entry) = self.small.pop() else {
            return Answer::Stays;
        };
        let Some(frequency) = entry.item.frequency() else {
            return Answer::Stays;
        };
        if entry.item.busy() {
            self.small.push(entry);
            return Answer::Busy;
        }
        if frequency > 0 {
            entry.item.set_frequency(0);
            self.main.push(entry);
            return Answer::Stays;
        }
        let most = self.main.entries.len().max(1024);
        self.ghost.remember(entry.fingerprint, most);
        Answer::Goes(entry.item)
    }

    fn step_main(&mut self) -> Answer<E> {
        let Some(entry) = self.main.pop() else {
            return Answer::Stays;
        };
        let Some(frequency) = entry.item.frequency() else {
            return Answer::Stays;
        };
        if entry.item.busy() {
            self.main.push(entry);
            return Answer::Busy;
        }
        if frequency > 0 {
            // Halved and not one less: what was hot and is not any more stays a round less.
            entry.item.set_frequency(frequency / 2);
            self.main.push(entry);
            return Answer::Stays;
        }
        Answer::Goes(entry.item)
    }

    /// Takes out every entry that `unwanted` names.
    pub fn remove_where(&mut self, unwanted: impl Fn(&E) -> bool) -> Vec<E> {
        let mut out = Vec::new();
        for queue in [&mut self.small, &mut self.main] {
            for _ in 0..queue.entries.len() {
                let entry = queue.pop().expect("counted");
                if unwanted(&entry.item) && !entry.item.busy() {
                    out.push(entry.item);
                } else {
                    queue.push(entry);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[derive(Clone)]
    struct Thing(u64, Rc<Cell<u8>>, Rc<Cell<bool>>);
    impl Resident for Thing {
        fn frequency(&self) -> Option<u8> {
            Some(self.1.get())
        }
        fn set_frequency(&self, frequency: u8) {
            self.1.set(frequency);
        }
        fn busy(&self) -> bool {
            self.2.get()
        }
    }
    fn thing(n: u64) -> Thing {
        Thing(n, Rc::default(), Rc::default())
    }

    #[test]
    fn what_was_hit_outlives_a_scan() {
        let mut fifo = S3Fifo::default();
        let hot = thing(0);
        fifo.insert(hot.clone(), 1, 0);
        hot.1.set(1);
        for n in 1..100 {
            fifo.insert(thing(n), 1, n);
        }
        let evicted: Vec<u64> = (0..80).map(|_| fifo.evict().unwrap().0).collect();
        assert!(!evicted.contains(&0));
    }

    #[test]
    fn what_comes_back_soon_goes_to_the_main_queue() {
        let mut fifo = S3Fifo::default();
        fifo.insert(thing(1), 1, 1);
        assert_eq!(fifo.evict().unwrap().0, 1);
        fifo.insert(thing(1), 1, 1);
        assert_eq!(fifo.ghost_hits(), 1);
        assert_eq!(fifo.main.entries.len(), 1);
    }

    #[test]
    fn what_is_gone_does_not_fill_the_queues() {
        struct Gone(bool);
        impl Resident for Gone {
            fn frequency(&self) -> Option<u8> {
                (!self.0).then_some(0)
            }
            fn set_frequency(&self, _: u8) {}
            fn busy(&self) -> bool {
                false
            }
        }
        let mut fifo = S3Fifo::default();
        for n in 0..100_000 {
            fifo.insert(Gone(n % 100 != 0), 1, n);
        }
        assert!(fifo.len() <= 2 * 1000 + SWEEP_MIN, "{} entries", fifo.len());
        assert!((0..1000).all(|_| fifo.evict().is_some()));
        assert!(fifo.evict().is_none());
    }

    #[test]
    fn a_queue_of_busy_entries_does_not_shield_the_other() {
        let mut fifo = S3Fifo::default();
        let hit = thing(1);
        hit.1.set(1);
        fifo.insert(hit, 1, 1);
        let busy = thing(2);
        busy.2.set(true);
        fifo.insert(busy.clone(), 8, 2);
        assert_eq!(fifo.evict().unwrap().0, 1, "from the main queue");
        assert!(fifo.evict().is_none());
        busy.2.set(false);
        busy.1.set(1);
        fifo.insert(thing(3), 1, 3);
        assert_eq!(fifo.evict().unwrap().0, 3);
        busy.2.set(true);
        for n in 4..100 {
            fifo.insert(thing(n), 1, n);
            assert_eq!(fifo.evict().unwrap().0, n, "from the small queue");
        }
        let small = thing(100);
        fifo.insert(small, 0, 100);
        assert_eq!(fifo.evict().unwrap().0, 100, "though it is small enough");
    }

    #[test]
    fn nothing_goes_while_all_are_busy_and_the_search_ends() {
        let mut fifo = S3Fifo::default();
        for n in 0..10 {
            let busy = thing(n);
            busy.2.set(true);
            busy.1.set(3);
            fifo.insert(busy, 1, n);
        }
        assert!(fifo.evict().is_none());
        assert_eq!(fifo.len(), 10);
    }
}

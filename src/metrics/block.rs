//! The cells in which is counted: one block for each shard, and one for all other threads.
//!
//! Called by whoever counts. Invariants: the cells of a [`ShardMetrics`] are written by its shard's thread alone, so
//! a count is a load and a store and no locked instruction (debug builds catch a second writer at work); those of
//! [`GlobalMetrics`] by any thread. Reading is racy between cells, never torn within one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::histogram::{self, SUM, WIDTH};
use super::table::{Cells, Counter, Gauge, Histogram};

const GAUGES_FROM: usize = Counter::CELLS;
const HISTOGRAMS_FROM: usize = GAUGES_FROM + Gauge::CELLS;
const ALL_CELLS: usize = HISTOGRAMS_FROM + Histogram::CELLS * WIDTH;

/// The first cell of a kind in a block.
pub(super) const fn first(cells: Cells) -> usize {
    match cells {
        Cells::Counters => 0,
        Cells::Gauges => GAUGES_FROM,
        Cells::Histograms => HISTOGRAMS_FROM,
    }
}

/// Every cell once.
#[derive(Debug)]
pub(super) struct Block([AtomicU64; ALL_CELLS]);

impl Block {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; ALL_CELLS])
    }

    pub(super) fn read(&self, cell: usize) -> u64 {
        self.0[cell].load(Relaxed)
    }
}

/// The counts of one shard. Written only by the thread of that shard.
#[derive(Debug)]
pub struct ShardMetrics(pub(super) Block);

/// The counts of every thread that is not a shard: acceptors, control, log, and whoever starts the shards.
#[derive(Debug)]
pub struct GlobalMetrics(pub(super) Block);

impl ShardMetrics {
    /// Adds by load and store: nobody else writes the cell. Wraps, so a gauge may go below zero here.
    #[inline(always)]
    fn bump(&self, cell: usize, by: u64) {
        let cell = &self.0.0[cell];
        let before = cell.load(Relaxed);
        let after = before.wrapping_add(by);
        if cfg!(debug_assertions) {
            let one_writer = cell
                .compare_exchange(before, after, Relaxed, Relaxed)
                .is_ok();
            assert!(one_writer, "two threads write the metrics of one shard");
        } else {
            cell.store(after, Relaxed);
        }
    }

    /// Sets a gauge's cell of this shard. Units are those of the gauge's name.
    #[inline]
    pub fn gauge_set(&self, gauge: Gauge, value: u64) {
        self.0.0[GAUGES_FROM + gauge.position()].store(value, Relaxed);
    }
}

impl GlobalMetrics {
    fn bump(&self, cell: usize, by: u64) {
        self.0.0[cell].fetch_add(by, Relaxed);
    }

    /// Sets the cell that no shard owns of a gauge. Units are those of the gauge's name.
    pub fn gauge_set(&self, gauge: Gauge, value: u64) {
        self.0.0[GAUGES_FROM + gauge.position()].store(value, Relaxed);
    }
}

macro_rules! counting {
    ($block:ident) => {
        impl $block {
            /// Adds `n` to a counter.
            #[inline(always)]
            pub fn add(&self, counter: Counter, n: u64) {
                self.bump(counter.position(), n);
            }

            /// Adds one to a counter.
            #[inline(always)]
            pub fn count(&self, counter: Counter) {
                self.add(counter, 1);
            }

            /// Moves a gauge. What one block adds another may take back: the sum over all blocks is shown.
            #[inline(always)]
            pub fn gauge_add(&self, gauge: Gauge, by: i64) {
                self.bump(GAUGES_FROM + gauge.position(), by.cast_unsigned());
            }

            /// Observes a duration in nanoseconds, or a size in bytes, as the histogram's name says.
            #[inline]
            pub fn observe(&self, histogram: Histogram, value: u64) {
                let first = HISTOGRAMS_FROM + histogram.position() * WIDTH;
                let bounds = histogram::bounds(histogram.family().shape);
                self.bump(first + histogram::bucket(bounds, value), 1);
                self.bump(first + SUM, value);
            }
        }
    };
}
counting!(ShardMetrics);
counting!(GlobalMetrics);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::labels::{Method, Outcome};

    #[test]
    fn counts_of_different_labels_do_not_meet() {
        let shard = ShardMetrics(Block::new());
        shard.count(Counter::Requests(Method::Get, Outcome::Hit));
        shard.add(Counter::Requests(Method::Get, Outcome::Miss), 3);
        assert_eq!(
            shard
                .0
                .read(Counter::Requests(Method::Get, Outcome::Hit).position()),
            1
        );
        assert_eq!(
            shard
                .0
                .read(Counter::Requests(Method::Get, Outcome::Miss).position()),
            3
        );
        let all: u64 = (0..ALL_CELLS).map(|cell| shard.0.read(cell)).sum();
        assert_eq!(all, 4);
    }

    #[test]
    fn an_observation_is_one_bucket_and_the_sum() {
        let shard = ShardMetrics(Block::new());
        shard.observe(Histogram::FillDuration, 30_000);
        let first = HISTOGRAMS_FROM + Histogram::FillDuration.position() * WIDTH;
        assert_eq!(shard.0.read(first + 2), 1);
        assert_eq!(shard.0.read(first + SUM), 30_000);
        let all: u64 = (0..ALL_CELLS).map(|cell| shard.0.read(cell)).sum();
        assert_eq!(all, 30_001);
    }

    #[test]
    fn many_threads_may_write_the_global_block() {
        let global = GlobalMetrics(Block::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| global.count(Counter::AccessLogLines)));
            }
        });
        assert_eq!(global.0.read(Counter::AccessLogLines.position()), 4_000);
    }
}

//! Metrics: counted by every thread without a lock, shown as OpenMetrics text.
//!
//! Called by every module that has something to count; the admin door renders. Invariants: written to, never asked:
//! nothing in millrace decides by a metric; no series is made at run time; one table ([`table`]) is the only list of
//! metrics. What an event means is left to the module that counts it.

mod block;
mod document;
mod exposition;
mod histogram;
mod labels;
mod table;

use std::sync::Arc;

use crossbeam::utils::CachePadded;

pub use block::{GlobalMetrics, ShardMetrics};
pub use document::markdown;
pub use exposition::CONTENT_TYPE;
pub use labels::{
    AccessEvent, BreakerState, Close, DiskFailure, DiskWork, DnsResult, FallbackResult, FillEnd,
    HedgeResult, Invalidation, Malformed, Method, Outcome, Refusal, ReloadResult, Revalidation,
    SendPath, Source, StatusClass, TlsHandshake, TlsSession, TunnelDoor, TunnelEnd, TunnelRefusal,
    TunnelWay, UpstreamFailure, UpstreamKind, Written,
};
pub use table::{Counter, Gauge, Histogram};

use block::Block;
use exposition::Exporter;
use histogram::WIDTH;
use table::{Cells, FAMILIES, Shape};

/// The blocks of all shards and of everybody else.
#[derive(Debug)]
struct Blocks {
    shards: Box<[CachePadded<ShardMetrics>]>,
    global: CachePadded<GlobalMetrics>,
}

impl Blocks {
    fn sum(&self, cell: usize) -> u64 {
        let shards = self.shards.iter().map(|shard| shard.0.read(cell));
        shards.fold(self.global.0.read(cell), u64::wrapping_add)
    }
}

/// Every metric of the process.
#[derive(Debug)]
pub struct Registry {
    blocks: Arc<Blocks>,
    exporter: Exporter,
}

impl Registry {
    /// Takes the memory for `shards` blocks and the global one, all zero.
    pub fn new(shards: usize) -> Arc<Self> {
        let blocks = Arc::new(Blocks {
            shards: (0..shards)
                .map(|_| CachePadded::new(ShardMetrics(Block::new())))
                .collect(),
            global: CachePadded::new(GlobalMetrics(Block::new())),
        });
        let exporter = Exporter::new(Arc::clone(&blocks));
        Arc::new(Self { blocks, exporter })
    }

    /// The block of shard `index`, for the thread of that shard alone to write. Panics when there is no such shard.
    pub fn shard(&self, index: usize) -> &ShardMetrics {
        &self.blocks.shards[index]
    }

    /// The block for threads that are not shards.
    pub fn global(&self) -> &GlobalMetrics {
        &self.blocks.global
    }

    /// How many shards there are blocks for.
    pub fn shards(&self) -> usize {
        self.blocks.shards.len()
    }

    /// All metrics as OpenMetrics text, to be sent as [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        self.exporter.render()
    }

    /// A counter summed over all blocks, for tests and for the line at shutdown.
    pub fn total(&self, counter: Counter) -> u64 {
        self.blocks
            .sum(block::first(Cells::Counters) + counter.position())
    }

    /// A gauge summed over all blocks, for tests and for the line at shutdown.
    pub fn level(&self, gauge: Gauge) -> i64 {
        self.blocks
            .sum(block::first(Cells::Gauges) + gauge.position())
            .cast_signed()
    }

    /// How often a histogram was observed, summed over all blocks.
    pub fn observations(&self, histogram: Histogram) -> u64 {
        let first = block::first(Cells::Histograms) + histogram.position() * WIDTH;
        let buckets = histogram::bounds(histogram.family().shape).len() + 1;
        (0..buckets)
            .map(|bucket| self.blocks.sum(first + bucket))
            .sum()
    }
}

/// The names of the gauges that are zero when nothing is being served: what is above zero then has leaked.
pub fn gauges_zero_at_rest() -> impl Iterator<Item = &'static str> {
    FAMILIES
        .iter()
        .flat_map(|(_, table)| table.iter())
        .filter(|family| matches!(family.shape, Shape::Flow | Shape::ShardFlow))
        .map(|family| family.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_raised_on_one_shard_may_be_lowered_on_another() {
        let registry = Registry::new(2);
        registry.shard(0).gauge_add(Gauge::RamLeases, 2);
        registry.shard(1).gauge_add(Gauge::RamLeases, -1);
        assert_eq!(registry.level(Gauge::RamLeases), 1);
        registry.shard(1).gauge_add(Gauge::RamLeases, -1);
        assert_eq!(registry.level(Gauge::RamLeases), 0);
    }

    #[test]
    fn totals_are_summed_over_shards_and_the_rest() {
        let registry = Registry::new(3);
        for shard in 0..registry.shards() {
            registry.shard(shard).count(Counter::FillsStarted);
            registry
                .shard(shard)
                .observe(Histogram::FillDuration, 1_000_000);
        }
        registry.global().count(Counter::FillsStarted);
        assert_eq!(registry.total(Counter::FillsStarted), 4);
        assert_eq!(registry.observations(Histogram::FillDuration), 3);
    }

    #[test]
    fn what_is_zero_at_rest_is_known_by_name() {
        let names: Vec<_> = gauges_zero_at_rest().collect();
        assert!(names.contains(&"millrace_connections_open"));
        assert!(names.contains(&"millrace_ram_leases"));
        assert!(!names.contains(&"millrace_ram_slab_bytes"));
    }
}

//! Every bound of the server, derived once from the configuration and the machine.
//!
//! Called by `boot`. Says what a setting of "all" or "a quarter" means here.

use crate::config::{Expiry, Settings, ZeroCopy};
use crate::disk::DiskConfig;
use crate::disk::format::BLOCK_BYTES;
use crate::fill::FillConfig;
use crate::http::HeadLimits;
use crate::io::probe;
use crate::ram::progress::SHARDS_MAX;
use crate::shard::{Policy, TunnelPolicy};

use super::ServerError;

/// Bytes of slab per head that the index has room for: the smallest kernel page.
const SLAB_BYTES_PER_HEAD: u64 = 4096;
const HEADS_MIN: u64 = 4096;
/// How long a fill waits for room in the slab.
const ROOM_WAIT_MS: u64 = 10_000;
/// Part of the machine's memory that the slabs get by default.
const MEMORY_SHARE: u64 = 4;

/// Shards, cores and memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The core of each shard.
    pub cores: Vec<usize>,
    /// Bytes of each shard's slab.
    pub slab_bytes: u64,
    /// Heads that each shard knows at most.
    pub heads_max: usize,
    /// Bytes that uploads under way may take of all slabs.
    pub write_bytes_max: u64,
}

impl Limits {
    /// Derives them; `usable` are the cores that this process may run on.
    ///
    /// # Errors
    /// A configured core that may not be used.
    pub fn derive(settings: &Settings, usable: &[usize]) -> Result<Self, ServerError> {
        for &core in &settings.server.cores {
            if !usable.contains(&core) {
                let usable = usable
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(",");
                return Err(ServerError::Core { core, usable });
            }
        }
        let from = if settings.server.cores.is_empty() {
            usable
        } else {
            &settings.server.cores
        };
        let count = if settings.server.shards == 0 {
            from.len().clamp(1, SHARDS_MAX)
        } else {
            settings.server.shards
        };
        let cores: Vec<usize> = from.iter().copied().cycle().take(count).collect();
        let ram_bytes = match settings.ram.size_bytes {
            0 => probe::memory_bytes() / MEMORY_SHARE,
            bytes => bytes,
        };
        let slab_bytes = (ram_bytes / count as u64).max(1 << 20);
        let heads_max = (slab_bytes / SLAB_BYTES_PER_HEAD).max(HEADS_MIN) as usize;
        let percent = u64::from(settings.cache.write_percent_max);
        Ok(Self {
            write_bytes_max: slab_bytes * cores.len() as u64 / 100 * percent,
            cores,
            slab_bytes,
            heads_max,
        })
    }
}

/// Descriptors beyond clients, origins, tunnels and shards: logs, doors, the control thread.
const SPARE_DESCRIPTORS: u64 = 256;
/// Of each shard beyond its connections: its ring, slab and mailbox, and segments that are open.
const SHARD_DESCRIPTORS: u64 = 320;
/// Of a tunnel beyond its client: the connection to its host, and both ends of a pipe each way.
const TUNNEL_DESCRIPTORS: u64 = 5;

/// Descriptors that the settings let be open at once.
#[must_use]
pub fn descriptors(settings: &Settings, shards: usize) -> u64 {
    let shards = shards as u64;
    let clients = settings.listener.connections_max as u64;
    // Every tunnel is a client too.
    let tunnels = (settings.tunnel.tunnels_max as u64 * shards).min(clients);
    let origins = settings.upstream.connections_max as u64 * shards;
    clients
        + origins
        + tunnels * TUNNEL_DESCRIPTORS
        + shards * SHARD_DESCRIPTORS
        + SPARE_DESCRIPTORS
}

/// Part of what is free that the disk tier takes by default: three of so many.
const DISK_SHARES: u64 = 4;
/// Segments that each shard's part of the budget is divided into, where that gives no extreme size.
const SEGMENTS_PER_SHARD: u64 = 32;
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=256 << 20;
/// Segments that each shard must have room for: one that is written, one granted ahead, one that may be reclaimed.
const SEGMENTS_MIN: u64 = 3;

/// Part of the budget that the journals of all shards may take while they are written, where that gives no extreme size: one of so many.
const JOURNALS_PART: u64 = 64;
const JOURNAL_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=16 << 20;

/// The bounds of the disk tier; `None` without a cache directory. `free_bytes`: of the filesystem, with what the cache has there already.
///
/// # Errors
/// A budget that is too small for so many shards.
pub fn disk(
    settings: &Settings,
    limits: &Limits,
    free_bytes: u64,
) -> Result<Option<DiskConfig>, ServerError> {
    let disk = &settings.disk;
    let Some(dir) = disk.dir.clone() else {
        return Ok(None);
    };
    let shards = limits.cores.len() as u64;
    let budget_bytes = match disk.size_bytes {
        0 => free_bytes / DISK_SHARES * 3,
        bytes => bytes,
    };
    let segment_bytes = match disk.segment_bytes {
        0 => (budget_bytes / shards / SEGMENTS_PER_SHARD)
            .clamp(*SEGMENT_BYTES.start(), *SEGMENT_BYTES.end()),
        bytes => bytes,
    };
    let least_bytes = shards * segment_bytes * SEGMENTS_MIN;
    if budget_bytes < least_bytes {
        return Err(ServerError::DiskTooSmall {
            budget_bytes,
            least_bytes,
        });
    }
    Ok(Some(DiskConfig {
        dir,
        budget_bytes,
        reserve_bytes: disk.reserve_bytes,
        segment_bytes: segment_bytes / BLOCK_BYTES * BLOCK_BYTES,
        journal_bytes: (budget_bytes / JOURNALS_PART / shards)
            .clamp(*JOURNAL_BYTES.start(), *JOURNAL_BYTES.end()),
        deadline_ms: disk.deadline_ms,
        operations_max: disk.operations_max,
        queue_bytes_max: disk.queue_bytes.min(limits.slab_bytes / 2),
        shards: limits.cores.len(),
        active_expiry: disk.expiry == Expiry::Active,
        contact: String::new(),
    }))
}

/// The numbers of the request path. `by_reference` is what the self-test proved.
#[must_use]
pub fn policy(settings: &Settings, by_reference: bool) -> Policy {
    let wanted = by_reference && settings.ram.zero_copy == ZeroCopy::Auto;
    Policy {
        fanout: settings.fill.fanout as u32,
        join_bytes: settings.fill.join_bytes,
        attempts: settings.fill.attempts,
        by_reference_min: wanted.then_some(settings.ram.zero_copy_min_bytes),
        fill: FillConfig {
            window_bytes: settings.fill.window_bytes,
            finish_percent: u64::from(settings.fill.finish_percent),
            room_wait_ms: ROOM_WAIT_MS,
        },
        head_limits: HeadLimits {
            head_bytes_max: settings.listener.head_bytes_max,
            headers_max: settings.listener.headers_max,
        },
        head_timeout_ms: settings.listener.head_timeout_ms,
        idle_timeout_ms: settings.listener.idle_timeout_ms,
        send_timeout_ms: settings.listener.send_timeout_ms,
        connections_max: settings.listener.connections_max,
        tunnels: TunnelPolicy {
            hello_timeout_ms: settings.tunnel.hello_timeout_ms,
            idle_timeout_ms: settings.tunnel.idle_timeout_ms,
            tunnels_max: settings.tunnel.tunnels_max,
        },
        write_idle_ms: settings.cache.write_idle_timeout_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usable_core_gets_a_shard_by_default() {
        let limits = Limits::derive(&Settings::default(), &[0, 3]).unwrap();
        assert_eq!(limits.cores, [0, 3]);
        assert!(limits.slab_bytes >= 1 << 20);
    }

    #[test]
    fn a_machine_of_more_cores_than_there_may_be_shards_leaves_cores_free() {
        let usable: Vec<usize> = (0..SHARDS_MAX + 128).collect();
        let limits = Limits::derive(&Settings::default(), &usable).unwrap();
        assert_eq!(limits.cores.len(), SHARDS_MAX);
    }

    #[test]
    fn a_core_that_may_not_be_used_is_an_error_that_names_it() {
        let mut settings = Settings::default();
        settings.server.cores = vec![7];
        let error = Limits::derive(&settings, &[0, 1]).unwrap_err().to_string();
        assert!(error.contains("core 7") && error.contains("0,1"), "{error}");
    }

    #[test]
    fn what_is_allowed_to_each_shard_counts_for_each() {
        let mut settings = Settings::default();
        settings.listener.connections_max = 10_000;
        settings.upstream.connections_max = 1_000;
        settings.tunnel.tunnels_max = 100;
        let fixed = |shards: u64| SPARE_DESCRIPTORS + shards * SHARD_DESCRIPTORS;
        assert_eq!(descriptors(&settings, 1), 10_000 + 1_000 + 500 + fixed(1));
        assert_eq!(
            descriptors(&settings, 8),
            10_000 + 8_000 + 8 * 500 + fixed(8)
        );
        // There are no more tunnels than clients.
        settings.tunnel.tunnels_max = 1_000_000;
        assert_eq!(
            descriptors(&settings, 8),
            10_000 + 8_000 + 10_000 * 5 + fixed(8)
        );
    }

    #[test]
    fn the_ram_is_divided_among_the_shards() {
        let mut settings = Settings::default();
        settings.server.shards = 4;
        settings.ram.size_bytes = 64 << 20;
        let limits = Limits::derive(&settings, &[0]).unwrap();
        assert_eq!((limits.cores.len(), limits.slab_bytes), (4, 16 << 20));
    }
}

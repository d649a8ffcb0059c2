//! The shard threads: pinned, each with its runtime, its partition and its way to origins.
//!
//! Called by `boot`. A shard that ends, ends the process with a message: its part of the keyspace would answer nobody.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use crate::access_log::ShardLog;
use crate::cache::partition::Partition;
use crate::io::runtime::ShardRuntime;
use crate::io::watchdog::Watchdog;
use crate::listener::connection;
use crate::shard::disk::DiskParts;
use crate::shard::{Shard, ShardParts, World};
use crate::upstream::{TlsConfig, Upstream, UpstreamConfig};

use super::events::ShardEvents;

/// What one shard thread is given.
pub(super) struct Seat {
    pub(super) id: usize,
    pub(super) core: usize,
    pub(super) world: Arc<World>,
    pub(super) partition: Partition,
    /// Whether the partition takes its memory before the shard is up.
    pub(super) prefault: bool,
    pub(super) log: ShardLog,
    pub(super) logs: bool,
    pub(super) upstream: Arc<UpstreamConfig>,
    pub(super) tls: Arc<TlsConfig>,
    /// Names to resolve, to the control thread.
    pub(super) names: Sender<Box<str>>,
    pub(super) seed: u64,
    pub(super) disk: Option<DiskParts>,
}

/// The shard's whole life.
pub(super) fn run(seat: Seat) {
    let id = seat.id;
    if !core_affinity::set_for_current(core_affinity::CoreId { id: seat.core }) {
        tracing::warn!(
            shard = id,
            core = seat.core,
            "the shard could not be pinned to its core"
        );
    }
    let mut runtime = match ShardRuntime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(shard = id, %error, "a shard has no ring");
            std::process::abort();
        }
    };
    runtime.block_on(live(seat));
    tracing::error!(shard = id, "a shard has ended, and so does the process");
    std::process::abort();
}

async fn live(mut seat: Seat) {
    if seat.disk.is_some() {
        seat.partition.answer_for_disk();
    }
    if seat.prefault {
        seat.partition.prefault();
    }
    let watchdog = Watchdog::new();
    let names = seat.names;
    // A full queue means that the name is asked for already, or will be again.
    let resolve = Rc::new(move |host: &str| drop(names.try_send(host.into())));
    let events = Rc::new(ShardEvents {
        registry: Arc::clone(&seat.world.registry),
        shard: seat.id,
    });
    let upstream = Upstream::new(
        seat.upstream,
        seat.tls,
        Rc::clone(&watchdog),
        resolve,
        events,
    );
    let shard = Shard::new(ShardParts {
        id: seat.id,
        world: seat.world,
        partition: seat.partition,
        watchdog,
        upstream,
        log: seat.log,
        logs: seat.logs,
        seed: seat.seed,
        disk: seat.disk,
    });
    crate::shard::run(shard, connection::start).await;
}

//! Row 8: boot order, every bound derived once from the configuration, and the end.
//!
//! Called by `main`. Order: limits → kernel probe → self-test → TLS and routes → doors bound → partitions → threads → ready. Everything that can
//! fail does so before the first client is taken.

mod boot;
mod certificates;
mod control;
mod disk;
mod doors;
mod events;
mod guard;
pub mod limits;
mod reload;
mod threads;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use crate::access_log::{AccessLog, AccessLogError};
use crate::admin::{Readiness, State};
use crate::base::clock;
use crate::config::Loaded;
use crate::shard::World;
use crate::shard::message::Message;

/// Why the server did not start, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Something that the kernel does not grant.
    #[error(transparent)]
    Ring(#[from] crate::io::probe::RingError),
    /// A shard's thread hangs, or its core has no time for it.
    #[error("a shard did not come up within {waited_ms} ms")]
    ShardsNotUp {
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// A door or the admin address.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A core that does not exist.
    #[error("server.cores names core {core}, which this process may not use; it may use {usable}")]
    Core {
        /// The core.
        core: usize,
        /// Those that may be used.
        usable: String,
    },
    /// Roots of trust.
    #[error("TLS to origins cannot be set up: {0}")]
    Tls(#[from] crate::upstream::TlsSetupError),
    /// What the TLS doors show.
    #[error("the TLS doors cannot be opened: {0}")]
    TlsDoor(#[from] crate::tls::door::DoorError),
    /// Hosts and origins.
    #[error("the origins cannot be used: {0}")]
    Routes(#[from] crate::s3::OriginMapError),
    /// The cache directory.
    #[error(transparent)]
    Directory(#[from] crate::disk::keeper::DirectoryError),
    /// A budget that has no room for what is written at once.
    #[error(
        "the disk's budget of {budget_bytes} bytes is too small for this many shards: at least {least_bytes} are needed (disk.size, disk.segment, server.shards)"
    )]
    DiskTooSmall {
        /// As configured, or as found.
        budget_bytes: u64,
        /// What is needed.
        least_bytes: u64,
    },
    /// The access log.
    #[error("the access log cannot be written: {0}")]
    AccessLog(#[from] AccessLogError),
    /// Memory, threads, descriptors.
    #[error("{what}: {source}")]
    Resource {
        /// What was wanted.
        what: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// What the control thread tells the main thread.
pub(crate) enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reopen,
}

/// How long doors stay open after `/readyz` has begun to fail, so that a balancer can notice.
const NOTICE_MS_MAX: u64 = 1000;
const LOOK: Duration = Duration::from_millis(10);

/// Runs the server until it is told to stop and has drained.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(loaded: Loaded) -> Result<(), ServerError> {
    let loaded = Arc::new(loaded);
    let settings = &loaded.settings;
    boot::start_log(settings.log.level);
    let running = boot::start(&loaded)?;
    while let Ok(Event::Reopen) = running.events.recv() {
        running.log.rotation().reopen();
    }
    drain(running, settings.server.drain_ms)
}

/// The parts of a running server that its end needs.
pub(crate) struct Running {
    world: Arc<World>,
    readiness: Arc<Readiness>,
    doors: Vec<doors::Door>,
    events: mpsc::Receiver<Event>,
    log: AccessLog,
}

fn drain(running: Running, drain_ms: u64) -> Result<(), ServerError> {
    tracing::info!(drain_ms, "draining");
    let deadline_ms = clock::now_ms() + drain_ms;
    running.readiness.set(State::Draining);
    running.world.draining.store(true, Ordering::Relaxed);
    wait_until(clock::now_ms() + (drain_ms / 10).min(NOTICE_MS_MAX), || {
        false
    });
    running
        .doors
        .iter()
        .for_each(|door| door.listener.shutdown());
    let busy = || {
        running
            .world
            .shards
            .iter()
            .map(|shard| shard.connections.load(Ordering::Relaxed))
            .sum::<usize>()
    };
    wait_until(deadline_ms, || busy() == 0);
    if busy() > 0 {
        tracing::warn!(
            connections = busy(),
            "the time to drain is over; the rest is cut"
        );
    }
    for shard in &running.world.shards {
        let _ = shard.mailbox.push(Message::Drain);
    }
    let flushed = || {
        running
            .world
            .shards
            .iter()
            .all(|shard| shard.drained.load(Ordering::Acquire))
    };
    wait_until(clock::now_ms() + 1000, flushed);
    running.log.shutdown(Duration::from_secs(1))?;
    tracing::info!("stopped");
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the main thread: nothing else runs on it"
)]
fn wait_until(deadline_ms: u64, done: impl Fn() -> bool) {
    while !done() && clock::now_ms() < deadline_ms {
        std::thread::sleep(LOOK);
    }
}

//! Row 8: boot order, every bound derived once from the configuration, hand-over to another process, and the end.
//!
//! Called by `main`. Order: what was passed → kernel probe → self-test → limits → TLS to origins → doors bound → certificates → partitions and routes →
//! threads → ready. Everything that can fail does so before the first client is taken.

mod boot;
mod certificates;
mod control;
mod disk;
mod doors;
mod drain;
mod events;
mod guard;
mod handover;
pub mod limits;
mod notify;
mod origins;
mod reload;
mod threads;

use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::access_log::{AccessLog, AccessLogError};
use crate::admin::Readiness;
use crate::base::clock;
use crate::config::Loaded;
use crate::metrics::Counter;
use crate::shard::World;

use handover::{HandoverError, Heir};

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
    /// A socket that was passed and that is none of ours.
    #[error("the socket {name:?} that was passed at start cannot be used: {source}")]
    Passed {
        /// Its name, or its address.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// A TLS door that was passed, and nothing to show at it.
    #[error("a socket for TLS was passed, and tls.cert_file or tls.key_file is not set")]
    NoCertificate,
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
    /// A `[[host]]` that leads nowhere.
    #[error("the endpoint of the [[host]] {name}: {source}")]
    HostLeadsNowhere {
        /// The host.
        name: String,
        /// Why.
        source: crate::s3::RouteError,
    },
    /// Before a process that hands over has let go of the doors: that one goes on.
    #[error("this process was told to stop before it had opened its doors")]
    Stopped,
    /// A socket that nobody would serve, and whoever passed it keeps open.
    #[error(
        "the socket {name:?} at {address} that was passed at start is no door of the settings: its clients would wait for ever"
    )]
    NoDoor {
        /// Its name.
        name: String,
        /// Where it listens.
        address: std::net::SocketAddr,
    },
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

/// What the main thread is told.
pub(crate) enum Event {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reopen,
    /// SIGUSR2.
    HandOver,
    /// A new process has opened its doors.
    Opened(Child),
    /// A new process has not.
    Failed(HandoverError),
}

/// The parts of a running server that its end needs.
pub(crate) struct Running {
    world: Arc<World>,
    readiness: Arc<Readiness>,
    doors: Vec<doors::Door>,
    admin: doors::AdminSocket,
    /// Whether no process before this one takes from the same sockets.
    settled: Arc<AtomicBool>,
    admin_leaves: Arc<tokio::sync::Notify>,
    events: mpsc::Sender<Event>,
    events_end: mpsc::Receiver<Event>,
    log: AccessLog,
}

/// How long the main thread pauses between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Runs the server until it is told to stop, or has handed over, and has drained.
///
/// # Errors
/// Whatever keeps it from starting.
pub fn run(loaded: Loaded) -> Result<(), ServerError> {
    let loaded = Arc::new(loaded);
    let settings = &loaded.settings;
    boot::start_log(settings.log.level);
    let running = boot::start(&loaded)?;
    let fed_no_more = Arc::new(AtomicBool::new(false));
    notify::feed(&running.world, &fed_no_more);
    notify::ready();
    let mut heir: Option<Heir> = None;
    loop {
        match running.events_end.recv() {
            Ok(Event::Reopen) => {
                notify::reloading();
                running.log.rotation().reopen();
                notify::ready();
            }
            Ok(Event::HandOver) if heir.is_some() => {
                tracing::warn!("a new process is being started already");
            }
            Ok(Event::HandOver) => match running.hand_over() {
                Ok(started) => heir = Some(started),
                Err(error) => drop(running.events.send(Event::Failed(error))),
            },
            Ok(Event::Failed(error)) => {
                heir = None;
                let metrics = running.world.registry.global();
                metrics.count(Counter::HandoversFailed);
                tracing::error!(%error, "there is no hand-over: this process goes on");
            }
            Ok(Event::Opened(child)) => {
                let pid = child.id();
                // It comes once, before a failure could.
                let Some(started) = &heir else { continue };
                if let Err(error) = started.give(child, &running.world) {
                    let _ = running.events.send(Event::Failed(error));
                    continue;
                }
                fed_no_more.store(true, Ordering::Relaxed);
                notify::succeeded_by(pid);
                let result = drain::leave(running, pid, &settings.server);
                drop(heir);
                return result;
            }
            Ok(Event::Stop) | Err(_) => {
                notify::stopping();
                running.world.draining.store(true, Ordering::SeqCst);
                // One that has not been given the doors goes too.
                if let Some(heir) = &heir {
                    heir.dismiss();
                }
                return drain::stop(running, settings.server.drain_ms);
            }
        }
    }
}

impl Running {
    fn hand_over(&self) -> Result<Heir, HandoverError> {
        let estate = handover::Estate {
            doors: &self.doors,
            admin: &self.admin,
            world: &self.world,
        };
        estate.pass_on(&self.events)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the main thread: nothing else runs on it"
)]
fn wait_until(deadline_ms: u64, mut done: impl FnMut() -> bool) {
    while !done() && clock::now_ms() < deadline_ms {
        std::thread::sleep(LOOK);
    }
}

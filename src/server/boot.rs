//! The start: everything that can fail, in an order in which each failure says what is wrong.
//!
//! Called by `server::run`.

use std::io::IsTerminal;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crossbeam::utils::CachePadded;
use tokio::sync::Notify;
use tracing_subscriber::EnvFilter;

use crate::access_log::{AccessLog, ShardLog, Target};
use crate::admin::{self, AdminState, Purger, Readiness, State};
use crate::base::clock;
use crate::cache::forbidden::Forbidden;
use crate::cache::grants::Grants;
use crate::cache::partition::Partition;
use crate::cache::stamps::Stamps;
use crate::config::{AccessLog as AccessLogSetting, HugePages, Level, Loaded, Rules, Settings};
use crate::io::probe;
use crate::listener::acceptor;
use crate::metrics::{Gauge, Registry};
use crate::ram::selftest;
use crate::request::chain::NAME_PREFIX;
use crate::shard::doors::Doors;
use crate::shard::doubt::Doubt;
use crate::shard::mailbox::Mailbox;
use crate::shard::staging::Share;
use crate::shard::{ShardShared, World};
use crate::upstream::dns::{Resolver, ResolverConfig};
use crate::upstream::{BreakerConfig, Outages, Overrides, TlsConfig, UpstreamConfig};

use super::certificates::Certificates;
use super::disk::DiskThreads;
use super::doors::{self, AdminSocket, Door, Inheritance};
use super::guard::Guard;
use super::handover::Predecessor;
use super::limits::{self, Limits};
use super::reload::Reloader;
use super::threads::{self, Seat};
use super::{Event, Running, ServerError, control, origins};

/// Names that may wait for the resolver.
const NAMES_MAX: usize = 1024;
/// Time for the shards to come up.
const START_MS: u64 = 30_000;
/// And for each GiB that a shard takes before; a virtual machine whose host gives memory at its first use took two to three seconds.
const PREFAULT_GIB_MS: u64 = 10_000;

/// Sends our own log to standard error.
pub(super) fn start_log(level: Level) {
    // What rustls warns of are other people's bytes, which we count: nobody fills the log by sending some.
    let filter = EnvFilter::new(format!("warn,rustls=error,millrace={}", level.as_str()));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    std::panic::set_hook(Box::new(|info| {
        eprintln!("millrace: a programming error, the process ends: {info}");
        std::process::abort();
    }));
}

pub(super) fn resource(what: &'static str) -> impl Fn(std::io::Error) -> ServerError {
    move |source| ServerError::Resource { what, source }
}

fn probe_kernel(settings: &Settings) -> Result<(), ServerError> {
    probe::ring()?;
    let loopback = settings
        .listener
        .http
        .iter()
        .any(|address| address.ip().is_loopback());
    if settings.tcp.congestion.is_none() && loopback && probe::system_congestion() == "bbr" {
        tracing::warn!(
            "the system's TCP congestion control is bbr, which paces loopback to a tenth of its speed: set tcp.congestion = \"cubic\""
        );
    }
    Ok(())
}

fn raise_descriptors(settings: &Settings, shards: usize) -> Result<(), ServerError> {
    let descriptors =
        probe::raise_nofile().map_err(resource("the limit of open descriptors cannot be read"))?;
    let wanted = limits::descriptors(settings, shards);
    if descriptors < wanted {
        tracing::warn!(
            descriptors,
            wanted,
            shards,
            "fewer descriptors than listener.connections_max, and upstream.connections_max and tunnel.tunnels_max of every shard, can need: raise the limit (ulimit -n, LimitNOFILE=)"
        );
    }
    Ok(())
}

fn proves_by_reference() -> bool {
    match selftest::by_reference_is_safe() {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!(
                "this kernel changes queued bytes after a punch: bodies are sent by copy"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the self-test of sending by reference could not run: bodies are sent by copy");
            false
        }
    }
}

fn proves_huge_pages(settings: &Settings) -> bool {
    if settings.ram.huge_pages == HugePages::Off {
        return false;
    }
    match selftest::huge_is_safe() {
        Ok(true) => true,
        Ok(false) => {
            tracing::warn!(
                "this kernel changes queued bytes of punched huge pages: the cache is of 4 KiB pages"
            );
            false
        }
        Err(error) => {
            tracing::info!(%error, "no huge pages for the cache: it is of 4 KiB pages");
            false
        }
    }
}

/// What tells this process from all other millraces that a request may come by.
fn name() -> Result<Box<str>, ServerError> {
    let secret = probe::secret().map_err(resource("the kernel gives no random bytes"))?;
    let digits: String = secret[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(format!("{NAME_PREFIX}{digits}").into())
}

fn outages(settings: &Settings) -> Arc<Outages> {
    let outage = &settings.outage;
    Outages::new(BreakerConfig {
        fall: outage.fall,
        rise: outage.rise,
        delay_ms: outage.delay_ms,
    })
}

fn upstream_config(
    settings: &Settings,
    seed: u64,
    outages: Arc<Outages>,
    guard: &Arc<Guard>,
) -> UpstreamConfig {
    let upstream = &settings.upstream;
    UpstreamConfig {
        connect_timeout_ms: upstream.connect_timeout_ms,
        first_byte_timeout_ms: upstream.first_byte_timeout_ms,
        idle_timeout_ms: upstream.idle_timeout_ms,
        keepalive_ms: upstream.keepalive_ms,
        pool_idle_max: upstream.pool_idle_max,
        connections_max: upstream.connections_max,
        retries: upstream.retries,
        hedge_percent_max: upstream.hedge_percent_max,
        failures_to_rest: upstream.failures_to_rest,
        rest_ms: upstream.rest_ms,
        congestion: settings.tcp.congestion.clone().unwrap_or_default(),
        seed,
        outages,
        overrides: Arc::clone(&guard.overrides),
        allow: guard.of_requests(),
        allow_tunnel: guard.of_tunnels(),
        ..UpstreamConfig::default()
    }
}

fn world(
    settings: &Settings,
    limits: &Limits,
    by_reference: bool,
    (registry, doors): (&Arc<Registry>, Doors),
) -> Result<(Arc<World>, Vec<Partition>), ServerError> {
    let stamps = Arc::<Stamps>::default();
    let mut partitions = Vec::new();
    let mut shards = Vec::new();
    let huge_pages = proves_huge_pages(settings);
    for _ in &limits.cores {
        let mut partition =
            Partition::new(limits.slab_bytes, limits.heads_max, Arc::clone(&stamps))
                .map_err(resource("the slab cannot be mapped; make ram.size smaller"))?;
        if huge_pages {
            partition.use_huge_pages();
        }
        shards.push(ShardShared {
            index: Arc::clone(partition.index()),
            mailbox: Mailbox::new().map_err(resource("no descriptor for a mailbox"))?,
            connections: CachePadded::new(AtomicUsize::new(0)),
            heartbeat: Arc::new(AtomicU64::new(0)),
            sweep: AtomicBool::new(false).into(),
            up: AtomicBool::new(false),
            drained: AtomicBool::new(false),
        });
        partitions.push(partition);
    }
    let world = World {
        shards: shards.into_boxed_slice(),
        stamps,
        forbidden: Forbidden::default(),
        grants: Grants::new(probe::secret().map_err(resource("the kernel gives no random bytes"))?),
        share: Share::new(limits.write_bytes_max),
        registry: Arc::clone(registry),
        policy: limits::policy(settings, by_reference),
        rules: Arc::new(Rules::of(settings, 1)),
        routes: origins::routes(settings)?,
        doors,
        name: name()?,
        draining: AtomicBool::new(false),
        leaving: AtomicBool::new(false),
        doubt: Doubt::default(),
    };
    Ok((Arc::new(world), partitions))
}

/// Brings everything up; returns when the doors are open.
pub(super) fn start(loaded: &Arc<Loaded>) -> Result<Running, ServerError> {
    let settings = &loaded.settings;
    let begun_ms = clock::now_ms() as i64;
    let inheritance = Inheritance::take()?;
    probe_kernel(settings)?;
    let by_reference = proves_by_reference();
    let limits = Limits::derive(settings, &usable_cores())?;
    raise_descriptors(settings, limits.cores.len())?;
    let tls = origins::tls(settings)?;
    let overrides = origins::overrides(settings);
    let registry = Registry::new(limits.cores.len());
    let doors::Bound {
        doors,
        admin: admin_listener,
        admin_kept,
        predecessor,
    } = doors::bind(settings, inheritance)?;
    let (entry, certificates) = doors::entry(settings, &doors, &registry)?;
    let admin_address = admin_listener.local_addr();
    let admin_address = admin_address.unwrap_or(settings.admin.listen);
    let admin = AdminSocket::of(&admin_listener, admin_kept)?;
    let (world, partitions) = world(settings, &limits, by_reference, (&registry, entry))?;
    note_start(&registry, &limits, &world);
    let (log, shard_logs) = start_access_log(settings, &registry)?;
    let outages = outages(settings);
    let readiness = Arc::new(Readiness::new(Arc::clone(&outages)));
    let contact = Contact::of(&admin_listener);
    let desk = (admin_listener, contact.run.clone());
    let control = start_control(loaded, &world, &readiness, desk, certificates)?;
    let names = control.names.clone();
    let own = (admin_address, &doors[..]);
    let guard = guard(settings, own, &world, overrides);
    let mut disk = DiskThreads::open(settings, &limits, contact.text())?;
    let seats = Seats {
        disk: disk.as_ref(),
        settings,
        limits: &limits,
        world: &world,
        tls: &tls,
        names: &names,
        outages: &outages,
        guard: &guard,
    };
    seats.start(partitions, shard_logs)?;
    let took_over = predecessor.is_some();
    let disk = disk.as_mut();
    let settled = open_all((&doors, predecessor), &world, disk, (begun_ms, &control))?;
    readiness.set(State::Ready);
    let addresses = doors.iter().map(|door| door.listener.address().to_string());
    tracing::info!(
        doors = addresses.collect::<Vec<_>>().join(","),
        shards = limits.cores.len(),
        slab_bytes = limits.slab_bytes,
        took_over,
        "ready"
    );
    Ok(Running {
        world,
        readiness,
        doors,
        admin,
        settled,
        admin_leaves: control.admin_leaves,
        events: control.events,
        events_end: control.events_end,
        log,
    })
}

fn usable_cores() -> Vec<usize> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    cores.iter().map(|core| core.id).collect()
}

fn note_start(registry: &Registry, limits: &Limits, world: &World) {
    let global = registry.global();
    global.gauge_set(Gauge::ProcessStartTime, clock::unix_seconds() as u64);
    global.gauge_set(
        Gauge::RamSlabBytes,
        limits.slab_bytes * limits.cores.len() as u64,
    );
    global.gauge_set(
        Gauge::RamZeroCopy,
        u64::from(world.policy.by_reference_min.is_some()),
    );
}

fn start_access_log(
    settings: &Settings,
    registry: &Arc<Registry>,
) -> Result<(AccessLog, Vec<ShardLog>), ServerError> {
    let target = match &settings.log.access {
        AccessLogSetting::Off => Target::Off,
        AccessLogSetting::Stdout => Target::Stdout,
        AccessLogSetting::File(path) => Target::File(path.clone()),
    };
    Ok(AccessLog::start(&target, Arc::clone(registry))?)
}

/// How the tools find this process.
struct Contact {
    admin: String,
    run: String,
}

impl Contact {
    fn of(admin: &TcpListener) -> Self {
        let admin = admin.local_addr().map(|address| address.to_string());
        Self {
            admin: admin.unwrap_or_default(),
            run: format!("{:x}-{:x}", clock::unix_ms(), std::process::id()),
        }
    }

    fn text(&self) -> String {
        format!("{} {}\n", self.admin, self.run)
    }
}

/// The ways to the control thread.
struct Control {
    names: tokio::sync::mpsc::Sender<Box<str>>,
    events: mpsc::Sender<Event>,
    events_end: mpsc::Receiver<Event>,
    admin_leaves: Arc<Notify>,
}

impl Control {
    /// Whether that is among what waits to be looked at.
    fn was_told_to_stop(&self) -> bool {
        let waiting: Vec<_> = self.events_end.try_iter().collect();
        let told = waiting.iter().any(|event| matches!(event, Event::Stop));
        for event in waiting {
            let _ = self.events.send(event);
        }
        told
    }
}

fn start_control(
    loaded: &Arc<Loaded>,
    world: &Arc<World>,
    readiness: &Arc<Readiness>,
    (listener, run): (TcpListener, String),
    certificates: Option<Certificates>,
) -> Result<Control, ServerError> {
    let heartbeats = world
        .shards
        .iter()
        .map(|shard| Arc::clone(&shard.heartbeat))
        .collect();
    let registry = Arc::clone(&world.registry);
    let admin = AdminState::new(
        Arc::clone(readiness),
        Arc::clone(&registry),
        heartbeats,
        admin::Limits::default(),
    );
    let world_of_purger = Arc::clone(world);
    let admin = admin.with_purger(Purger {
        world: world_of_purger,
        run,
    });
    let upstream = &loaded.settings.upstream;
    let resolver = Resolver::new(ResolverConfig {
        servers: upstream.dns_servers.clone(),
        ttl_min: Duration::from_millis(upstream.dns_ttl_min_ms),
        ttl_max: Duration::from_millis(upstream.dns_ttl_max_ms),
        hosts_file: upstream.dns_hosts_file,
    });
    let (names, names_end) = tokio::sync::mpsc::channel(NAMES_MAX);
    let (events, events_end) = mpsc::channel();
    let admin_leaves = Arc::new(Notify::new());
    let desk = control::Desk {
        world: Arc::clone(world),
        admin: Arc::new(admin),
        listener,
        resolver,
        names: names_end,
        registry,
        events: events.clone(),
        admin_leaves: Arc::clone(&admin_leaves),
        certificates,
        reloader: Reloader {
            started: Arc::clone(loaded),
            world: Arc::clone(world),
            readiness: Arc::clone(readiness),
        },
    };
    let body = move || {
        if let Err(error) = control::run(desk) {
            tracing::error!(%error, "the control thread has ended, and so does the process");
            std::process::abort();
        }
    };
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(body)
        .map_err(resource("no thread for control"))?;
    Ok(Control {
        names,
        events,
        events_end,
        admin_leaves,
    })
}

struct Seats<'a> {
    disk: Option<&'a DiskThreads>,
    settings: &'a Settings,
    limits: &'a Limits,
    world: &'a Arc<World>,
    tls: &'a Arc<TlsConfig>,
    names: &'a tokio::sync::mpsc::Sender<Box<str>>,
    outages: &'a Arc<Outages>,
    guard: &'a Arc<Guard>,
}

impl Seats<'_> {
    fn start(&self, partitions: Vec<Partition>, logs: Vec<ShardLog>) -> Result<(), ServerError> {
        let seed = clock::unix_ms() ^ (u64::from(std::process::id()) << 32);
        for (id, (partition, log)) in partitions.into_iter().zip(logs).enumerate() {
            let seed = crate::base::prng::mix64(seed + id as u64);
            let seat = Seat {
                id,
                core: self.limits.cores[id],
                world: Arc::clone(self.world),
                partition,
                prefault: self.settings.ram.prefault,
                log,
                logs: self.settings.log.access != AccessLogSetting::Off,
                upstream: Arc::new(upstream_config(
                    self.settings,
                    seed,
                    Arc::clone(self.outages),
                    self.guard,
                )),
                tls: Arc::clone(self.tls),
                names: self.names.clone(),
                seed,
                disk: self.disk.map(DiskThreads::parts),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{id}"));
            thread
                .spawn(move || threads::run(seat))
                .map_err(resource("no thread for a shard"))?;
        }
        let all_up = || {
            self.world
                .shards
                .iter()
                .all(|shard| shard.up.load(Ordering::Acquire))
        };
        let prefaulted = self.settings.ram.prefault;
        let prefault_ms = u64::from(prefaulted) * (self.limits.slab_bytes >> 30) * PREFAULT_GIB_MS;
        let waited_ms = START_MS + prefault_ms;
        super::wait_until(clock::now_ms() + waited_ms, all_up);
        if all_up() {
            Ok(())
        } else {
            Err(ServerError::ShardsNotUp { waited_ms })
        }
    }
}

fn open_each(doors: &[Door], world: &Arc<World>) -> Result<(), ServerError> {
    doors.iter().try_for_each(|door| open(door, world))
}

/// Opens the doors, and the cache directory: before them, or when the process that hands over has ended. Says whether the sockets are this
/// process's alone.
fn open_all(
    (doors, predecessor): (&[Door], Option<Predecessor>),
    world: &Arc<World>,
    disk: Option<&mut DiskThreads>,
    started: (i64, &Control),
) -> Result<Arc<AtomicBool>, ServerError> {
    if let Some(predecessor) = predecessor {
        let settled = predecessor.settled();
        take_over((doors, predecessor), world, disk, started)?;
        return Ok(settled);
    }
    if let Some(disk) = disk {
        disk.start(world, None)?;
    }
    open_each(doors, world)?;
    Ok(Arc::new(AtomicBool::new(true)))
}

/// Opens the doors beside the process that hands over, and the cache directory when that has ended.
fn take_over(
    (doors, mut predecessor): (&[Door], Predecessor),
    world: &Arc<World>,
    mut disk: Option<&mut DiskThreads>,
    (begun_ms, control): (i64, &Control),
) -> Result<(), ServerError> {
    let lost = resource("the process that hands over cannot be followed");
    world.doubt.all();
    predecessor.ready().map_err(&lost)?;
    if control.was_told_to_stop() {
        return Err(ServerError::Stopped);
    }
    if let Some(disk) = &mut disk {
        disk.mark()?;
    }
    open_each(doors, world)?;
    let events = control.events.clone();
    let opened = predecessor.open(world, begun_ms, events);
    let (opened, gone) = opened.map_err(&lost)?;
    if let Some(disk) = disk {
        disk.start(world, Some(gone))?;
    }
    opened.say();
    Ok(())
}

/// What may be dialled: nothing of our own.
fn guard(
    settings: &Settings,
    (admin, doors): (SocketAddr, &[Door]),
    world: &World,
    overrides: Arc<Overrides>,
) -> Arc<Guard> {
    let named = world.routes.single.iter().chain(&world.routes.custom);
    let named = named.flat_map(|origin| std::iter::once(&origin.first).chain(&origin.fallbacks));
    let mut own: Vec<_> = doors.iter().map(|door| door.listener.address()).collect();
    own.push(admin);
    Arc::new(Guard {
        doors: own,
        named: named.map(Arc::clone).collect(),
        overrides,
        networks: settings.destinations.networks.clone(),
    })
}

fn open(door: &Door, world: &Arc<World>) -> Result<(), ServerError> {
    let (listener, kind, world) = (Arc::clone(&door.listener), door.kind, Arc::clone(world));
    let thread = std::thread::Builder::new().name("acceptor".to_owned());
    thread
        .spawn(move || acceptor::run(&listener, kind, &world))
        .map_err(resource("no thread for a door"))?;
    Ok(())
}

//! Names to addresses, on the control thread, by our own resolver.
//!
//! Run by the server ([`Resolver::run`]); shards send it host names and get the answers through a callback, the first
//! time when the name is asked for, later each time it was looked up again. Invariants: the hosts file is not read
//! unless the operator asked for it, so that an entry which points at this proxy cannot make it dial itself; the
//! number of names, the look-ups under way and their time are bounded; addresses once known stay until newer ones
//! are; `localhost` is loopback whatever a server says (RFC 6761 section 6.3). Which addresses may be dialled, and
//! which of them is, is left to the dialler.

mod lookup;
#[cfg(test)]
mod test_server;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use crate::base::clock;
use crate::metrics::{Counter, DnsResult, Gauge, Histogram, Registry};

use lookup::{Answer, Family, Servers};

/// Names kept resolved. The answer to one more is [`DnsError::TooManyHosts`].
const HOSTS_MAX: usize = 10_000;

/// Look-ups under way at once; the next ones wait for their turn.
const LOOKUPS_MAX: usize = 32;

/// RFC 1035 section 2.3.4, without the root's dot.
const NAME_BYTES_MAX: usize = 253;

/// Where and how often names are looked up.
#[derive(Debug, Clone)]
pub struct ResolverConfig {
    /// DNS servers; if empty, those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// A name is looked up again no earlier than this, whatever TTL its records have.
    pub ttl_min: Duration,
    /// A name is looked up again no later than this.
    pub ttl_max: Duration,
    /// Whether `/etc/hosts` is asked before the servers.
    pub hosts_file: bool,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one, IPv4 first, in the order of the answer, none twice.
    pub addresses: Arc<[IpAddr]>,
    /// When they are looked up again, counted from their look-up.
    pub ttl: Duration,
}

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// It is neither a host name nor an IP address. The asker's fault.
    #[error("not a host name")]
    InvalidName,
    /// No such name exists.
    #[error("no such name")]
    NotFound,
    /// The name exists, but has no address.
    #[error("the name has no address")]
    NoAddresses,
    /// The servers answered with an error; asking again may help.
    #[error("the DNS server answered with code {code}")]
    ServerFailure {
        /// The RCODE (RFC 6895 section 2.3); 2 is SERVFAIL, 5 REFUSED.
        code: u16,
    },
    /// No server answered in time; asking again may help.
    #[error("no DNS server answered in time")]
    Timeout,
    /// No server could be reached; asking again may help.
    #[error("no DNS server could be reached: {kind}")]
    Unreachable {
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// The servers' answer could not be used.
    #[error("the DNS server's answer could not be used")]
    Protocol,
    /// No DNS server is set, nor found in `/etc/resolv.conf`.
    #[error("no DNS server is known")]
    NoServers,
    /// So many names are in use already.
    #[error("more than {hosts_max} names are in use")]
    TooManyHosts {
        /// The bound.
        hosts_max: usize,
    },
}

impl DnsError {
    /// Whether the servers said for certain that there are no addresses.
    pub fn is_certain(&self) -> bool {
        match self {
            Self::InvalidName | Self::NotFound | Self::NoAddresses => true,
            Self::ServerFailure { .. }
            | Self::Timeout
            | Self::Unreachable { .. }
            | Self::Protocol
            | Self::NoServers
            | Self::TooManyHosts { .. } => false,
        }
    }

    fn label(&self) -> DnsResult {
        match self {
            Self::InvalidName | Self::NotFound | Self::NoAddresses => DnsResult::NotFound,
            Self::Timeout => DnsResult::Timeout,
            Self::ServerFailure { .. }
            | Self::Unreachable { .. }
            | Self::Protocol
            | Self::NoServers
            | Self::TooManyHosts { .. } => DnsResult::Failed,
        }
    }
}

/// How long everything may take.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// One try at the servers.
    attempt: Duration,
    /// Tries after the first one.
    attempts: usize,
    /// A whole look-up, the search list included.
    whole: Duration,
    /// How long the first family's addresses wait for the second.
    grace: Duration,
    /// Wait after the first failure; doubled with each one in a row.
    backoff_min: Duration,
    backoff_max: Duration,
    /// A name that was not asked for this long is forgotten.
    idle: Duration,
    /// The same for a name that has never had an address.
    idle_unresolved: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(2),
            attempts: 2,
            whole: Duration::from_secs(10),
            grace: Duration::from_millis(100),
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            idle_unresolved: Duration::from_secs(60),
        }
    }
}

/// Looks names up, and keeps those that are in use up to date.
#[derive(Debug)]
pub struct Resolver {
    config: ResolverConfig,
    timing: Timing,
    hosts_max: usize,
}

impl Resolver {
    /// Nothing is asked yet. A system without DNS servers is found out by the first name that needs one.
    pub fn new(config: ResolverConfig) -> Self {
        assert!(
            config.ttl_min <= config.ttl_max,
            "the settings are checked before"
        );
        Self {
            config,
            timing: Timing::default(),
            hosts_max: HOSTS_MAX,
        }
    }

    /// Takes host names from `asked` and gives what is found to `answer`, until all senders are gone. To be run on
    /// the control thread's runtime, with I/O and time enabled.
    ///
    /// A name in use must be asked for again at least every few minutes: one that nobody asked for in ten is
    /// forgotten. Asking for a known name is cheap and is answered at once. `answer` gets the name as it was asked
    /// for, and must not block.
    pub async fn run(
        self,
        mut asked: mpsc::Receiver<Box<str>>,
        registry: Arc<Registry>,
        answer: impl Fn(&str, Result<Resolved, DnsError>),
    ) {
        let servers = Servers::new(&self.config, &self.timing);
        let mut table = Table {
            resolver: self,
            registry,
            answer,
            hosts: HashMap::new(),
            due: BTreeSet::new(),
        };
        let mut lookups = JoinSet::new();
        loop {
            table.start_due(&servers, &mut lookups);
            let next = (lookups.len() < LOOKUPS_MAX)
                .then(|| table.until_due())
                .flatten();
            tokio::select! {
                host = asked.recv() => match host {
                    Some(host) => table.ask(&host),
                    None => return,
                },
                Some(ended) = lookups.join_next() => table.finish(ended),
                () = sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
    }
}

/// One name that is kept resolved.
#[derive(Debug)]
struct Host {
    asked_ms: u64,
    /// When it is looked up next; `None` while it is being looked up.
    due_ms: Option<u64>,
    /// Somebody waits for the look-up under way, or the next one.
    waiting: bool,
    /// Failures in a row.
    failures: u32,
    /// The last addresses known.
    good: Option<Resolved>,
    /// Why the last look-up failed, if it did.
    error: Option<DnsError>,
}

/// What a look-up task returns: the name, what was said, and how many nanoseconds it took.
type Ended = (Arc<str>, Answer, u64);

/// All names, and when each is looked up next.
struct Table<F> {
    resolver: Resolver,
    registry: Arc<Registry>,
    answer: F,
    hosts: HashMap<Arc<str>, Host>,
    /// Every host that is not being looked up, by its `due_ms`.
    due: BTreeSet<(u64, Arc<str>)>,
}

impl<F: Fn(&str, Result<Resolved, DnsError>)> Table<F> {
    fn ask(&mut self, asked: &str) {
        if let Some(addresses) = without_lookup(asked) {
            let ttl = self.resolver.config.ttl_max;
            (self.answer)(asked, Ok(Resolved { addresses, ttl }));
            return;
        }
        let now_ms = clock::now_ms();
        if let Some(host) = self.hosts.get_mut(asked) {
            host.asked_ms = now_ms;
            match (&host.good, &host.error, host.due_ms) {
                (Some(good), _, _) => (self.answer)(asked, Ok(good.clone())),
                // A failure is not asked for again before its back-off is over.
                (None, Some(error), Some(due_ms)) if now_ms < due_ms => {
                    (self.answer)(asked, Err(error.clone()))
                }
                (None, _, _) => host.waiting = true,
            }
            return;
        }
        if !is_host_name(asked) {
            (self.answer)(asked, Err(DnsError::InvalidName));
            return;
        }
        let hosts_max = self.resolver.hosts_max;
        if self.hosts.len() >= hosts_max {
            (self.answer)(asked, Err(DnsError::TooManyHosts { hosts_max }));
            return;
        }
        let host = Host {
            asked_ms: now_ms,
            due_ms: Some(now_ms),
            waiting: true,
            failures: 0,
            good: None,
            error: None,
        };
        let name: Arc<str> = Arc::from(asked);
        self.due.insert((now_ms, Arc::clone(&name)));
        self.hosts.insert(name, host);
        self.registry
            .global()
            .gauge_set(Gauge::DnsHosts, self.hosts.len() as u64);
    }

    /// How long until the next name is due.
    fn until_due(&self) -> Option<Duration> {
        let (due_ms, _) = self.due.first()?;
        Some(Duration::from_millis(
            due_ms.saturating_sub(clock::now_ms()),
        ))
    }

    /// Starts the look-ups that are due, as many as may be under way; forgets what nobody asks for any more.
    fn start_due(&mut self, servers: &Result<Servers, DnsError>, lookups: &mut JoinSet<Ended>) {
        let now_ms = clock::now_ms();
        while lookups.len() < LOOKUPS_MAX {
            let Some((_, name)) = self.due.first().filter(|(due_ms, _)| *due_ms <= now_ms) else {
                return;
            };
            let name = Arc::clone(name);
            self.due.pop_first();
            let host = self
                .hosts
                .get_mut(&name)
                .expect("every due name is in the table");
            if host.is_forgotten(now_ms, &self.resolver.timing) {
                self.hosts.remove(&name);
                self.registry
                    .global()
                    .gauge_set(Gauge::DnsHosts, self.hosts.len() as u64);
                continue;
            }
            host.due_ms = None;
            let (servers, timing) = (servers.clone(), self.resolver.timing);
            lookups.spawn(async move {
                let start_ns = clock::now_ns();
                let answer = match servers {
                    Ok(servers) => servers.look_up(&name, &timing).await,
                    Err(error) => Answer::failed(error),
                };
                (name, answer, clock::now_ns() - start_ns)
            });
        }
    }

    fn finish(&mut self, ended: Result<Ended, JoinError>) {
        let (name, answer, took_ns) = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let host = self
            .hosts
            .get_mut(&name)
            .expect("a name stays while it is looked up");
        let result = conclude(&self.resolver, answer, host.good.as_ref());
        let label = result
            .as_ref()
            .map_or_else(|(error, _)| error.label(), |_| DnsResult::Found);
        self.registry.global().count(Counter::DnsLookups(label));
        self.registry
            .global()
            .observe(Histogram::DnsDuration, took_ns);
        let wait = match result {
            Ok(found) => {
                host.failures = 0;
                host.error = None;
                host.waiting = false;
                let ttl = found.ttl;
                (self.answer)(&name, Ok(host.good.insert(found).clone()));
                ttl
            }
            Err((error, believed)) => {
                host.failures = host.failures.saturating_add(1);
                if std::mem::take(&mut host.waiting) {
                    // Who asked before there were addresses got none since: known ones are answered when asked.
                    (self.answer)(&name, Err(error.clone()));
                }
                tracing::debug!(host = %name, %error, failures = host.failures, "dns: look-up failed");
                host.error = Some(error);
                backoff(&self.resolver.timing, host.failures, believed)
            }
        };
        let due_ms = clock::now_ms() + wait.as_millis() as u64;
        host.due_ms = Some(due_ms);
        self.due.insert((due_ms, name));
    }
}

impl Host {
    fn is_forgotten(&self, now_ms: u64, timing: &Timing) -> bool {
        let idle = Duration::from_millis(now_ms.saturating_sub(self.asked_ms));
        match (&self.good, &self.error) {
            (Some(_), _) => idle >= timing.idle,
            // Nobody waits: whoever asks for it next starts a look-up of its own.
            (None, Some(error)) if error.is_certain() => !self.waiting,
            (None, _) => idle >= timing.idle_unresolved,
        }
    }
}

/// The addresses of what needs no look-up: IP literals and `localhost` with all names below it.
fn without_lookup(host: &str) -> Option<Arc<[IpAddr]>> {
    let literal = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Some(Arc::new([address]));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let last_label = name.rsplit('.').next().unwrap_or(name);
    last_label.eq_ignore_ascii_case("localhost").then(|| {
        Arc::new([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]) as Arc<[IpAddr]>
    })
}

/// Whether a server may be asked for it: letters, digits, `-`, `_` and dots, and no number as last label: what looks
/// like `127.1` or `2130706433` is an address to other software, and no name (RFC 3696 section 2).
fn is_host_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(allowed)
    };
    let last_label = name.rsplit('.').next().unwrap_or(name);
    name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
        && !last_label.bytes().all(|byte| byte.is_ascii_digit())
}

/// One answer of two: addresses, or the reason why there are none and for how long the server wants that believed.
/// A family that failed while the other was found keeps the addresses that `known` has of it: its failure says nothing
/// about them, and it is asked again soon.
fn conclude(
    resolver: &Resolver,
    answer: Answer,
    known: Option<&Resolved>,
) -> Result<Resolved, (DnsError, Option<Duration>)> {
    let known = known.map_or(&[][..], |known| &known.addresses);
    let mut addresses: Vec<IpAddr> = Vec::new();
    let mut ttl = resolver.config.ttl_max;
    let mut found_any = false;
    let mut reason = None;
    for (family, is_v4) in [(answer.v4, true), (answer.v6, false)] {
        match family {
            Family::Found(found, found_ttl) => {
                found_any = true;
                addresses.extend(found);
                ttl = ttl.min(found_ttl);
            }
            Family::None(error, believed) => {
                reason.get_or_insert((error, believed));
            }
            Family::Failed(error) => {
                addresses.extend(known.iter().filter(|address| address.is_ipv4() == is_v4));
                ttl = ttl.min(resolver.timing.backoff_max);
                // What failed outweighs what is certainly not there.
                reason = Some((error, None));
            }
        }
    }
    if let Some(reason) = reason
        && !found_any
    {
        return Err(reason);
    }
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    let ttl = ttl.clamp(resolver.config.ttl_min, resolver.config.ttl_max);
    Ok(Resolved {
        addresses: addresses.into(),
        ttl,
    })
}

/// How long to wait after so many failures in a row; longer if the server wants its answer believed for longer.
fn backoff(timing: &Timing, failures: u32, believed: Option<Duration>) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let wait = timing.backoff_min.saturating_mul(1 << doublings);
    wait.max(believed.unwrap_or_default())
        .min(timing.backoff_max)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as std_mpsc;

    use super::test_server::{DnsServer, Reply};
    use super::*;

    const SOON: Duration = Duration::from_secs(10);
    const NOT_YET: Duration = Duration::from_millis(150);

    type Answered = (String, Result<Resolved, DnsError>);

    /// A resolver that runs on a thread of its own, as the control thread would run it.
    struct Running {
        asked: Option<mpsc::Sender<Box<str>>>,
        answers: std_mpsc::Receiver<Answered>,
        registry: Arc<Registry>,
        thread: Option<std::thread::JoinHandle<()>>,
    }

    impl Running {
        fn start(resolver: Resolver) -> Self {
            let (asked, asked_receiver) = mpsc::channel(64);
            let (answered, answers) = std_mpsc::channel();
            let registry = Registry::new(1);
            let counted = Arc::clone(&registry);
            let thread = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let answer = |host: &str, result| {
                    answered
                        .send((host.to_owned(), result))
                        .expect("the test listens");
                };
                runtime
                    .expect("a runtime")
                    .block_on(resolver.run(asked_receiver, counted, answer));
            });
            Self {
                asked: Some(asked),
                answers,
                registry,
                thread: Some(thread),
            }
        }

        fn ask(&self, host: &str) {
            let asked = self.asked.as_ref().expect("running");
            asked.blocking_send(host.into()).expect("running");
        }

        fn next(&self) -> Answered {
            self.answers.recv_timeout(SOON).expect("an answer")
        }

        fn resolve(&self, host: &str) -> Result<Resolved, DnsError> {
            self.ask(host);
            let (answered, result) = self.next();
            assert_eq!(answered, host);
            result
        }

        fn counted(&self, result: DnsResult) -> u64 {
            self.registry.total(Counter::DnsLookups(result))
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            drop(self.asked.take());
            let ended = self.thread.take().map(std::thread::JoinHandle::join);
            assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
        }
    }

    fn resolver(servers: &[&DnsServer]) -> Resolver {
        let mut resolver = Resolver::new(ResolverConfig {
            servers: servers.iter().map(|server| server.address()).collect(),
            ttl_min: Duration::from_millis(20),
            ttl_max: Duration::from_secs(60),
            hosts_file: false,
        });
        resolver.timing.attempt = Duration::from_secs(1);
        resolver.timing.attempts = 0;
        resolver.timing.grace = Duration::from_secs(1);
        resolver.timing.backoff_min = Duration::from_millis(20);
        resolver
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn addresses(result: Result<Resolved, DnsError>) -> Vec<IpAddr> {
        result.expect("resolved").addresses.to_vec()
    }

    #[test]
    fn a_name_has_the_addresses_of_both_families() {
        let server = DnsServer::start(|name, _| {
            assert_eq!(name, "bucket.s3.test");
            Reply::addresses(30, &["10.0.0.1", "10.0.0.2", "10.0.0.1", "2001:db8::1"])
        });
        let running = Running::start(resolver(&[&server]));
        let resolved = running.resolve("bucket.s3.test").expect("resolved");
        assert_eq!(
            *resolved.addresses,
            [ip("10.0.0.1"), ip("10.0.0.2"), ip("2001:db8::1")]
        );
        assert_eq!(resolved.ttl, Duration::from_secs(30));
        assert_eq!(running.counted(DnsResult::Found), 1);
        assert_eq!(running.registry.level(Gauge::DnsHosts), 1);
    }

    #[test]
    fn a_known_name_is_answered_without_asking_a_server_again() {
        let server = DnsServer::start(|_, _| Reply::addresses(30, &["10.0.0.1"]));
        let running = Running::start(resolver(&[&server]));
        for _ in 0..5 {
            assert_eq!(addresses(running.resolve("s3.test")), [ip("10.0.0.1")]);
        }
        assert_eq!(server.questions(), 2);
    }

    #[test]
    fn a_name_is_looked_up_again_when_its_ttl_is_over() {
        let server = DnsServer::start(|_, nth| match nth {
            0 => Reply::addresses(1, &["10.0.0.1"]),
            _ => Reply::addresses(60, &["10.0.0.2"]),
        });
        let running = Running::start(resolver(&[&server]));
        assert_eq!(addresses(running.resolve("s3.test")), [ip("10.0.0.1")]);
        assert!(running.answers.recv_timeout(NOT_YET).is_err());
        assert_eq!(addresses(running.next().1), [ip("10.0.0.2")]);
    }

    #[test]
    fn ttls_are_kept_within_their_bounds() {
        let server = DnsServer::start(|name, _| match name {
            "short.test" => Reply::addresses(0, &["10.0.0.1"]),
            _ => Reply::addresses(86_400, &["10.0.0.1"]),
        });
        let running = Running::start(resolver(&[&server]));
        assert_eq!(
            running.resolve("long.test").expect("resolved").ttl,
            Duration::from_secs(60)
        );
        assert_eq!(
            running.resolve("short.test").expect("resolved").ttl,
            Duration::from_millis(20)
        );
    }

    #[test]
    fn addresses_once_known_stay_through_every_kind_of_failure() {
        for failure in [
            Reply::Code(2),
            Reply::Code(3),
            Reply::Silence,
            Reply::addresses(1, &[]),
        ] {
            let later = failure.clone();
            let server = DnsServer::start(move |_, nth| match nth {
                0 => Reply::addresses(0, &["10.0.0.1", "2001:db8::1"]),
                _ => later.clone(),
            });
            let running = Running::start(resolver(&[&server]));
            let known = addresses(running.resolve("s3.test"));
            server.until_asked(6);
            assert!(
                running.answers.try_recv().is_err(),
                "{failure:?} is no answer"
            );
            assert_eq!(addresses(running.resolve("s3.test")), known, "{failure:?}");
        }
    }

    #[test]
    fn each_failure_says_what_it_is() {
        let failures = [
            (
                Reply::Code(2),
                DnsError::ServerFailure { code: 2 },
                DnsResult::Failed,
            ),
            (
                Reply::Code(5),
                DnsError::ServerFailure { code: 5 },
                DnsResult::Failed,
            ),
            (Reply::Code(3), DnsError::NotFound, DnsResult::NotFound),
            (
                Reply::addresses(1, &[]),
                DnsError::NoAddresses,
                DnsResult::NotFound,
            ),
            (Reply::Silence, DnsError::Timeout, DnsResult::Timeout),
        ];
        for (reply, error, result) in failures {
            let server = DnsServer::start(move |_, _| reply.clone());
            let running = Running::start(resolver(&[&server]));
            assert_eq!(running.resolve("s3.test"), Err(error));
            assert_eq!(running.counted(result), 1);
        }
    }

    #[test]
    fn a_failed_name_is_asked_for_again_with_growing_pauses_and_heals() {
        let server = DnsServer::start(|_, nth| match nth {
            0..3 => Reply::Code(2),
            _ => Reply::addresses(60, &["10.0.0.1"]),
        });
        let running = Running::start(resolver(&[&server]));
        assert_eq!(
            running.resolve("s3.test"),
            Err(DnsError::ServerFailure { code: 2 })
        );
        assert_eq!(addresses(running.next().1), [ip("10.0.0.1")]);
        assert_eq!(running.counted(DnsResult::Failed), 3);
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_respect_what_the_server_says() {
        let timing = Timing::default();
        assert_eq!(backoff(&timing, 1, None), Duration::from_millis(250));
        assert_eq!(backoff(&timing, 4, None), Duration::from_secs(2));
        assert_eq!(backoff(&timing, u32::MAX, None), Duration::from_secs(30));
        assert_eq!(
            backoff(&timing, 1, Some(Duration::from_secs(7))),
            Duration::from_secs(7)
        );
        assert_eq!(
            backoff(&timing, 1, Some(Duration::from_secs(900))),
            Duration::from_secs(30)
        );
    }

    #[test]
    fn a_family_that_is_not_answered_holds_the_other_up_for_a_moment_only() {
        let server = DnsServer::start_by_type(|_, is_v6, _| match is_v6 {
            true => Reply::Silence,
            false => Reply::addresses(60, &["10.0.0.1"]),
        });
        let mut resolver = resolver(&[&server]);
        resolver.timing.attempt = SOON * 2;
        resolver.timing.whole = SOON * 2;
        resolver.timing.grace = Duration::from_millis(50);
        let running = Running::start(resolver);
        assert_eq!(addresses(running.resolve("s3.test")), [ip("10.0.0.1")]);
    }

    #[test]
    fn a_family_that_fails_keeps_its_known_addresses() {
        let server = DnsServer::start_by_type(|_, is_v6, nth| match (is_v6, nth) {
            (false, 0) => Reply::addresses(0, &["10.0.0.1"]),
            (false, _) => Reply::Code(2),
            (true, 0) => Reply::addresses(0, &["2001:db8::1"]),
            (true, _) => Reply::addresses(60, &["2001:db8::2"]),
        });
        let running = Running::start(resolver(&[&server]));
        running.resolve("s3.test").expect("resolved");
        assert_eq!(
            addresses(running.next().1),
            [ip("10.0.0.1"), ip("2001:db8::2")]
        );
    }

    #[test]
    fn the_second_server_answers_when_the_first_does_not() {
        let silent = DnsServer::start(|_, _| Reply::Silence);
        let server = DnsServer::start(|_, _| Reply::addresses(60, &["10.0.0.1"]));
        let running = Running::start(resolver(&[&silent, &server]));
        assert_eq!(addresses(running.resolve("s3.test")), [ip("10.0.0.1")]);
    }

    #[test]
    fn literals_and_localhost_need_no_server() {
        let server = DnsServer::start(|_, _| Reply::addresses(60, &["10.66.66.66"]));
        let running = Running::start(resolver(&[&server]));
        for (host, first) in [
            ("127.0.0.1", "127.0.0.1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("::1", "::1"),
            ("localhost", "127.0.0.1"),
            ("LocalHost.", "127.0.0.1"),
            ("bucket.s3.localhost", "127.0.0.1"),
        ] {
            assert_eq!(addresses(running.resolve(host))[0], ip(first), "{host}");
        }
        assert_eq!(
            addresses(running.resolve("notlocalhost")),
            [ip("10.66.66.66")]
        );
        assert_eq!(server.questions(), 2);
    }

    #[test]
    fn what_is_no_host_name_is_never_asked_for() {
        let server = DnsServer::start(|_, _| Reply::addresses(60, &["10.66.66.66"]));
        let running = Running::start(resolver(&[&server]));
        let long = format!("{}.test", "a.".repeat(125));
        let label = format!("{}.test", "a".repeat(64));
        for host in [
            "",
            ".",
            "a..b",
            "127.1",
            "2130706433",
            "a b",
            "a/b",
            "\u{e9}.test",
            &long,
            &label,
        ] {
            assert_eq!(running.resolve(host), Err(DnsError::InvalidName), "{host}");
        }
        assert_eq!(server.questions(), 0);
    }

    #[test]
    fn names_beyond_the_bound_are_refused_and_forgotten_names_make_room() {
        let server = DnsServer::start(|_, _| Reply::addresses(0, &["10.0.0.1"]));
        let mut resolver = resolver(&[&server]);
        resolver.hosts_max = 2;
        resolver.timing.idle = Duration::from_secs(1);
        let running = Running::start(resolver);
        running.resolve("a.test").expect("resolved");
        running.resolve("b.test").expect("resolved");
        running.ask("c.test");
        let refused = running
            .answers
            .iter()
            .find(|(host, _)| host == "c.test")
            .map(|(_, result)| result);
        assert_eq!(refused, Some(Err(DnsError::TooManyHosts { hosts_max: 2 })));
        // Both are looked up again and again until nobody has asked for them for the idle time.
        while running.registry.level(Gauge::DnsHosts) > 0 {
            std::thread::yield_now();
        }
        running.ask("c.test");
        assert!(
            running
                .answers
                .iter()
                .any(|(host, result)| host == "c.test" && result.is_ok())
        );
    }

    #[test]
    fn a_name_that_does_not_exist_takes_no_room_for_long() {
        let server = DnsServer::start(|_, _| Reply::Code(3));
        let running = Running::start(resolver(&[&server]));
        assert_eq!(running.resolve("s3.test"), Err(DnsError::NotFound));
        while running.registry.level(Gauge::DnsHosts) > 0 {
            std::thread::yield_now();
        }
    }

    #[test]
    fn many_names_at_once_are_all_answered() {
        let server = DnsServer::start(|_, _| Reply::addresses(60, &["10.0.0.1"]));
        let running = Running::start(resolver(&[&server]));
        let hosts = || (0..200).map(|number| format!("bucket-{number}.s3.test"));
        let mut answered = HashSet::new();
        for host in hosts() {
            running.ask(&host);
        }
        for _ in hosts() {
            let (host, result) = running.next();
            assert_eq!(addresses(result), [ip("10.0.0.1")]);
            answered.insert(host);
        }
        assert_eq!(answered, hosts().collect());
    }

    #[test]
    fn the_hosts_file_is_not_asked_unless_that_is_set() {
        // Every machine's hosts file names localhost; the resolver must be the one to know, not the file.
        let config = ResolverConfig {
            servers: vec![SocketAddr::from(([127, 0, 0, 1], 53))],
            ttl_min: Duration::ZERO,
            ttl_max: Duration::ZERO,
            hosts_file: false,
        };
        let servers = Servers::new(&config, &Timing::default()).expect("servers");
        assert!(!servers.reads_hosts_file());
        let with_file = ResolverConfig {
            hosts_file: true,
            ..config
        };
        let servers = Servers::new(&with_file, &Timing::default()).expect("servers");
        assert!(servers.reads_hosts_file());
    }
}

//! One look-up of one name: both address families, the search list, and what a failure means.
//!
//! Called by [`super::Resolver`] for every name that is due. Invariants: every look-up asks a server (nothing is
//! cached here: the table above decides when to ask again); no hosts file is read unless the operator asked for it;
//! a family that does not answer holds the other one up only for a short grace; a look-up ends in bounded time.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig as ServerConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as ProtocolError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::timeout;

use super::{DnsError, ResolverConfig, Timing};

/// Addresses taken of one answer and family; S3 gives eight.
const ADDRESSES_MAX: usize = 64;

/// Search domains tried; the limit of resolv.conf(5) was six for decades.
const SEARCH_MAX: usize = 6;

/// Look-ups that one server's connection carries at once: those of all names under way, both families each.
const ACTIVE_REQUESTS_MAX: usize = 2 * super::LOOKUPS_MAX;

/// What one family said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Family {
    /// Addresses, and the smallest TTL of the records on the way to them.
    Found(Vec<IpAddr>, Duration),
    /// The name has none of this family ([`DnsError::NoAddresses`]) or does not exist ([`DnsError::NotFound`]), and
    /// for how long that may be believed, if the server said so.
    None(DnsError, Option<Duration>),
    /// It is not known what the name has.
    Failed(DnsError),
}

/// What both families said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

impl Answer {
    pub(super) fn failed(error: DnsError) -> Self {
        Self {
            v4: Family::Failed(error.clone()),
            v6: Family::Failed(error),
        }
    }

    fn says_not_found(&self) -> bool {
        matches!(
            self,
            Self {
                v4: Family::None(DnsError::NotFound, _),
                v6: Family::None(DnsError::NotFound, _)
            }
        )
    }
}

/// Where names are looked up.
#[derive(Debug, Clone)]
pub(super) struct Servers {
    resolver: TokioResolver,
    search: Vec<Name>,
}

impl Servers {
    /// The servers of `config`, or the system's. The search list is used with the latter only: it belongs to them.
    pub(super) fn new(config: &ResolverConfig, timing: &Timing) -> Result<Self, DnsError> {
        let (servers, search) = if config.servers.is_empty() {
            let (system, _) = read_system_conf().map_err(|error| {
                tracing::warn!(%error, "dns: no servers are set and none are found in /etc/resolv.conf");
                DnsError::NoServers
            })?;
            let (_, search, servers) = system.into_parts();
            (servers, search)
        } else {
            (config.servers.iter().map(server).collect(), Vec::new())
        };
        let mut options = ResolverOpts::default();
        options.timeout = timing.attempt;
        options.attempts = timing.attempts;
        options.cache_size = 0;
        options.max_active_requests = ACTIVE_REQUESTS_MAX;
        options.use_hosts_file = if config.hosts_file {
            ResolveHosts::Always
        } else {
            ResolveHosts::Never
        };
        let servers = ServerConfig::from_name_servers(servers);
        let resolver = TokioResolver::builder_with_config(servers, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .map_err(|error| failure(&error))?;
        Ok(Self { resolver, search })
    }

    #[cfg(test)]
    pub(super) fn reads_hosts_file(&self) -> bool {
        matches!(self.resolver.options().use_hosts_file, ResolveHosts::Always)
    }

    /// Looks `host` up as it stands; only if it does not exist so, below the search domains in turn. (The other order
    /// would ask for every S3 host below every search domain first, and believe what it finds there.)
    pub(super) async fn look_up(&self, host: &str, timing: &Timing) -> Answer {
        let searched = async {
            let Ok(mut name) = Name::from_ascii(host) else {
                return Answer::failed(DnsError::InvalidName);
            };
            let relative = !name.is_fqdn();
            name.set_fqdn(true);
            let mut answer = self.both_families(name.clone(), timing).await;
            for domain in self.search.iter().filter(|_| relative).take(SEARCH_MAX) {
                if !answer.says_not_found() {
                    break;
                }
                // A name that gets too long below this domain does not exist there.
                if let Ok(name) = name.clone().append_domain(domain) {
                    answer = self.both_families(name, timing).await;
                }
            }
            answer
        };
        timeout(timing.whole, searched)
            .await
            .unwrap_or_else(|_| Answer::failed(DnsError::Timeout))
    }

    /// Some servers drop questions for AAAA, some networks one family's packets: whoever has answered with addresses
    /// waits only `grace` for the other (RFC 8305 section 3).
    async fn both_families(&self, name: Name, timing: &Timing) -> Answer {
        self.resolver.clear_cache();
        let mut v4 = Box::pin(self.family(name.clone(), RecordType::A));
        let mut v6 = Box::pin(self.family(name, RecordType::AAAA));
        tokio::select! {
            v4 = &mut v4 => {
                let v6 = second(&v4, v6, timing.grace).await;
                Answer { v4, v6 }
            }
            v6 = &mut v6 => {
                let v4 = second(&v6, v4, timing.grace).await;
                Answer { v4, v6 }
            }
        }
    }

    async fn family(&self, name: Name, record_type: RecordType) -> Family {
        match self.resolver.lookup(name, record_type).await {
            Ok(lookup) => {
                let answers = lookup.answers();
                let addresses = answers.iter().filter_map(|record| record.data.ip_addr());
                let addresses: Vec<IpAddr> = addresses.take(ADDRESSES_MAX).collect();
                let ttl = answers
                    .iter()
                    .map(|record| record.ttl)
                    .min()
                    .unwrap_or_default();
                let ttl = Duration::from_secs(u64::from(ttl));
                if addresses.is_empty() {
                    return Family::None(DnsError::NoAddresses, Some(ttl));
                }
                Family::Found(addresses, ttl)
            }
            Err(NetError::Dns(ProtocolError::NoRecordsFound(none))) => {
                let ttl = none
                    .negative_ttl
                    .map(|seconds| Duration::from_secs(u64::from(seconds)));
                let nothing = NetError::Dns(ProtocolError::NoRecordsFound(none));
                let error = if nothing.is_nx_domain() {
                    DnsError::NotFound
                } else {
                    DnsError::NoAddresses
                };
                Family::None(error, ttl)
            }
            Err(error) => Family::Failed(failure(&error)),
        }
    }
}

/// The other family: as long as it takes, or for `grace` if there are addresses already.
async fn second(first: &Family, second: impl Future<Output = Family>, grace: Duration) -> Family {
    match first {
        Family::Found(..) => timeout(grace, second)
            .await
            .unwrap_or(Family::Failed(DnsError::Timeout)),
        Family::None(..) | Family::Failed(_) => second.await,
    }
}

fn server(address: &std::net::SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![
        at_port(ConnectionConfig::udp()),
        at_port(ConnectionConfig::tcp()),
    ];
    NameServerConfig::new(address.ip(), true, connections)
}

fn failure(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::NoConnections => DnsError::NoServers,
        NetError::Io(error) => DnsError::Unreachable { kind: error.kind() },
        NetError::Dns(ProtocolError::ResponseCode(code)) => DnsError::ServerFailure {
            code: u16::from(*code),
        },
        // The library's list is open: whatever else it is, the servers' answer could not be used.
        _ => DnsError::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_server::{DnsServer, Reply};
    use super::*;

    fn look_up(server: &DnsServer, host: &str) -> Answer {
        let config = ResolverConfig {
            servers: vec![server.address()],
            ttl_min: Duration::ZERO,
            ttl_max: Duration::ZERO,
            hosts_file: false,
        };
        let timing = Timing::default();
        let mut servers = Servers::new(&config, &timing).expect("servers");
        let domains = ["cluster.test", "corp.test"];
        servers.search = domains
            .iter()
            .filter_map(|domain| Name::from_ascii(domain).ok())
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .expect("a runtime")
            .block_on(servers.look_up(host, &timing))
    }

    fn found(answer: &Answer) -> bool {
        matches!(answer.v4, Family::Found(..))
    }

    #[test]
    fn a_name_that_exists_as_it_stands_is_never_searched_for() {
        let server = DnsServer::start(|name, _| {
            assert_eq!(name, "bucket.s3.test");
            Reply::addresses(60, &["10.0.0.1"])
        });
        assert!(found(&look_up(&server, "bucket.s3.test")));
        assert_eq!(server.questions(), 2);
    }

    #[test]
    fn a_name_that_does_not_exist_as_it_stands_is_searched_for_in_order() {
        let server = DnsServer::start(|name, _| match name {
            "minio.corp.test" => Reply::addresses(60, &["10.0.0.1"]),
            _ => Reply::Code(3),
        });
        assert!(found(&look_up(&server, "minio")));
        assert_eq!(server.questions(), 6);
        assert!(look_up(&server, "minio.").says_not_found());
        assert_eq!(server.questions(), 8);
    }

    #[test]
    fn a_server_that_fails_does_not_make_another_name_of_it() {
        let server = DnsServer::start(|name, _| match name {
            "minio" => Reply::Code(2),
            _ => Reply::addresses(60, &["10.0.0.1"]),
        });
        let failed = Family::Failed(DnsError::ServerFailure { code: 2 });
        assert_eq!(
            look_up(&server, "minio"),
            Answer {
                v4: failed.clone(),
                v6: failed
            }
        );
    }

    #[test]
    fn a_second_lookup_asks_the_server_again() {
        let server = DnsServer::start(|_, _| Reply::addresses(3_600, &["10.0.0.1"]));
        let config = ResolverConfig {
            servers: vec![server.address()],
            ttl_min: Duration::ZERO,
            ttl_max: Duration::ZERO,
            hosts_file: false,
        };
        let timing = Timing::default();
        let servers = Servers::new(&config, &timing).expect("servers");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            for _ in 0..3 {
                servers.look_up("s3.test", &timing).await;
            }
        });
        // The second family's question may still be under way when the first one's grace is over.
        server.until_asked(6);
    }
}

//! The fault origin: a small S3 with exact conditionals and ranges that fails when and how it is told to.
//!
//! Run by `perf origin` as a process, or started in-process by tests. It speaks HTTP/1.1 by hand over TCP or TLS,
//! because a fault is a matter of exact bytes. It checks no signature. Invariants: without rules it behaves as S3
//! does for what it knows, the rest is 501; all state is in memory and goes with it.
//! Reading order: `request`, `rules`, `plan`, `answer` (`condition`, `range`, `bucket`, `write_ops`), `write`.

pub mod answer;
mod bucket;
pub mod condition;
mod connection;
pub mod plan;
pub mod range;
pub mod request;
pub mod rules;
pub mod store;
pub mod wire;
mod write;
mod write_ops;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use self::rules::{Faults, Rule, RuleError};
use self::store::{Definition, Store};
use super::side::{self, Side, SideAnswer};
use super::stats::{LogEntry, Snapshot, Stats};
use super::tls::{TlsError, acceptor};
use crate::net;

/// How to start a fault origin.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it serves; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its side port is, if any.
    pub stats: Option<SocketAddr>,
    /// PEM chain and key: serves TLS instead of plain TCP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Suffixes of virtual-hosted names: `bucket.<domain>`.
    pub domains: Vec<String>,
}

impl Config {
    /// Plain, on free loopback ports.
    pub fn loopback() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Config {
            listen: any,
            stats: Some(any),
            tls: None,
            domains: Vec::new(),
        }
    }
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("binding: {0}")]
    Bind(#[from] io::Error),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What connections share.
#[derive(Debug, Default)]
struct Shared {
    store: Store,
    faults: Faults,
    stats: Arc<Stats>,
    domains: Vec<String>,
}

impl Side for Shared {
    fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    fn route(&self, method: &str, path: &str, body: &[u8]) -> Option<SideAnswer> {
        let done = SideAnswer::ok(&serde_json::json!({}));
        Some(match (method, path) {
            ("GET", "/faults") => SideAnswer::ok(&self.faults.states()),
            ("POST", "/faults") => match self.faults.set_json(body) {
                Ok(()) => done,
                Err(error) => SideAnswer::error(400, &error.to_string()),
            },
            ("DELETE", "/faults") => {
                self.faults.set(Vec::new()).expect("no rule, no error");
                done
            }
            ("POST", "/objects") => match serde_json::from_slice::<Vec<Definition>>(body) {
                Ok(definitions) => {
                    definitions
                        .iter()
                        .for_each(|definition| self.store.define(definition));
                    done
                }
                Err(error) => SideAnswer::error(400, &format!("not a list of objects: {error}")),
            },
            _ => return None,
        })
    }
}

/// A running fault origin; dropped, it closes its port and every connection.
#[derive(Debug)]
pub struct FaultOrigin {
    /// Where it serves.
    pub addr: SocketAddr,
    /// Its side port.
    pub stats_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    _side: Option<JoinSet<()>>,
}

impl FaultOrigin {
    /// Binds and serves on the current tokio runtime.
    pub fn start(config: Config) -> Result<FaultOrigin, StartError> {
        let tls = config
            .tls
            .as_ref()
            .map(|(cert, key)| acceptor(cert, key))
            .transpose()?;
        let listener = net::listen(config.listen)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            domains: config.domains,
            ..Shared::default()
        });
        let side = match config.stats {
            Some(addr) => Some(side::serve(addr, Arc::clone(&shared) as Arc<dyn Side>)?),
            None => None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&shared)));
        let (stats_addr, side) = side.unzip();
        Ok(FaultOrigin {
            addr,
            stats_addr,
            shared,
            tasks,
            _side: side,
        })
    }

    /// Serves until the process ends.
    pub async fn wait(mut self) {
        self.tasks.join_next().await;
    }

    /// The counters now.
    pub fn stats(&self) -> Snapshot {
        self.shared.stats.snapshot()
    }

    /// The requests since the last reset.
    pub fn log(&self) -> Vec<LogEntry> {
        self.shared.stats.log()
    }

    /// Counters to zero, log empty.
    pub fn reset(&self) {
        self.shared.stats.reset();
    }

    /// Replaces all fault rules.
    pub fn set_faults(&self, rules: Vec<Rule>) -> Result<(), RuleError> {
        self.shared.faults.set(rules)
    }

    /// The objects, to put and look at directly.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(super::ACCEPT_RETRY).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let _ = stream.set_nodelay(true);
        let shared = Arc::clone(&shared);
        match tls.clone() {
            None => connections.spawn(connection::serve(stream, shared)),
            Some(tls) => connections.spawn(async move {
                // A handshake that fails is the client's verdict on the certificate; there is nothing to answer.
                if let Ok(stream) = tls.accept(stream).await {
                    connection::serve(stream, shared).await;
                }
            }),
        };
    }
}

//! What the settings say about connections to origins, and what the shard wants to be told of them.
//!
//! Built by `server` from the settings, once, and shared by all shards. The numbers are for each shard.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::http::HeadLimits;
use crate::metrics::{FallbackResult, HedgeResult};

use super::breaker::Phase;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::outages::Outages;
use super::overrides::Overrides;

/// Decides about the very address that is about to be dialled. Called on the shard's thread: it must not block.
pub type AddressRule = Arc<dyn Fn(&Endpoint, SocketAddr) -> bool + Send + Sync>;

/// Limits and times of connections to origins.
#[derive(Clone)]
pub struct UpstreamConfig {
    /// Time for a connection to one address, TLS handshake included; also for a name's first answer and for a place under
    /// `connections_max`.
    pub connect_timeout_ms: u64,
    /// Time from the sent request to the whole response head.
    pub first_byte_timeout_ms: u64,
    /// How long an origin may send no byte of a body while somebody waits for one.
    pub idle_timeout_ms: u64,
    /// How long an unused connection is kept; 0 keeps none.
    pub keepalive_ms: u64,
    /// Unused connections kept for each address; 0 keeps none.
    pub pool_idle_max: usize,
    /// Connections at a time, idle ones included.
    pub connections_max: usize,
    /// How often a safe request is sent again.
    pub retries: u32,
    /// Share of the requests in flight that may be asked a second time beside the first.
    pub hedge_percent_max: u32,
    /// Failures in a row after which an address rests; at least 1.
    pub failures_to_rest: u32,
    /// The first rest; each further one is twice as long, up to 64 times this.
    pub rest_ms: u64,
    /// TCP congestion control by name; empty for the system's.
    pub congestion: String,
    /// Limits of response heads.
    pub head_limits: HeadLimits,
    /// Spreads connections over addresses; another one for each shard.
    pub seed: u64,
    /// Addresses that no name server is asked for.
    pub overrides: Arc<Overrides>,
    /// Which origins fail; shared by all shards.
    pub outages: Arc<Outages>,
    /// Which addresses may be dialled.
    pub allow: AddressRule,
    /// Which addresses may be dialled for tunnels.
    pub allow_tunnel: AddressRule,
}

impl Default for UpstreamConfig {
    /// The defaults of the settings, every address allowed.
    fn default() -> Self {
        Self {
            connect_timeout_ms: 3_000,
            first_byte_timeout_ms: 15_000,
            idle_timeout_ms: 20_000,
            keepalive_ms: 50_000,
            pool_idle_max: 64,
            connections_max: 1024,
            retries: 2,
            hedge_percent_max: 10,
            failures_to_rest: 3,
            rest_ms: 5_000,
            congestion: String::new(),
            head_limits: HeadLimits::default(),
            seed: 0,
            overrides: Arc::default(),
            outages: Arc::default(),
            allow: Arc::new(|_, _| true),
            allow_tunnel: Arc::new(|_, _| true),
        }
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("UpstreamConfig")
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("first_byte_timeout_ms", &self.first_byte_timeout_ms)
            .field("idle_timeout_ms", &self.idle_timeout_ms)
            .field("keepalive_ms", &self.keepalive_ms)
            .field("pool_idle_max", &self.pool_idle_max)
            .field("connections_max", &self.connections_max)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

/// What is worth counting. All methods do nothing unless overridden; none may call back into [`super::Upstream`].
pub trait UpstreamEvents {
    /// A connection is ready: TCP and, where there is one, the TLS handshake. `took_ns` from dialling.
    fn opened(&self, _took_ns: u64) {}
    /// A TLS handshake is done, the short way if `resumed`.
    fn handshaken(&self, _resumed: bool) {}
    /// A kept connection carries another request.
    fn reused(&self) {}
    /// A kept connection turned out to be closed by the origin.
    fn stale(&self) {}
    /// A request was sent, whole.
    fn requested(&self) {}
    /// A response head came, so many nanoseconds after the request.
    fn responded(&self, _status: u16, _waited_ns: u64) {}
    /// One try failed, or a body broke off.
    fn failed(&self, _error: &UpstreamError) {}
    /// The request is sent again.
    fn retried(&self) {}
    /// An address begins to rest.
    fn rested(&self, _address: SocketAddr, _error: &UpstreamError) {}
    /// An address that rested takes connections again.
    fn recovered(&self, _address: SocketAddr) {}
    /// The breaker of an origin has turned.
    fn turned(&self, _endpoint: &Endpoint, _before: Phase, _after: Phase) {}
    /// A request was not sent because the breaker of its origin is open.
    fn refused(&self) {}
    /// A fallback was asked in the place of an origin.
    fn fell_back(&self, _fallback: &Endpoint, _result: FallbackResult) {}
    /// A request had, or should have had, a second try beside the first.
    fn hedged(&self, _result: HedgeResult) {}
    /// Plain bytes went to an origin.
    fn sent(&self, _bytes: usize) {}
    /// Plain bytes came from an origin.
    fn received(&self, _bytes: usize) {}
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;

impl UpstreamEvents for NoEvents {}

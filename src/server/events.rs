//! What happens on the way to origins, counted.
//!
//! Called by `upstream` through its trait, on the shard's thread.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::metrics::{
    BreakerState, Counter, FallbackResult, Gauge, HedgeResult, Histogram, Registry, ShardMetrics,
    StatusClass, TlsSession, UpstreamFailure,
};
use crate::upstream::{Endpoint, Phase, UpstreamError, UpstreamEvents};

fn state_of(phase: Phase) -> BreakerState {
    match phase {
        Phase::Closed => BreakerState::Closed,
        Phase::HalfOpen => BreakerState::HalfOpen,
        Phase::Open => BreakerState::Open,
    }
}

/// The counters of one shard.
pub(super) struct ShardEvents {
    pub(super) registry: Arc<Registry>,
    pub(super) shard: usize,
}

impl ShardEvents {
    fn metrics(&self) -> &ShardMetrics {
        self.registry.shard(self.shard)
    }
}

impl UpstreamEvents for ShardEvents {
    fn opened(&self, took_ns: u64) {
        self.metrics().count(Counter::UpstreamConnectionsOpened);
        self.metrics().observe(Histogram::UpstreamConnect, took_ns);
    }

    fn handshaken(&self, resumed: bool) {
        let session = if resumed {
            TlsSession::Resumed
        } else {
            TlsSession::Full
        };
        self.metrics()
            .count(Counter::UpstreamTlsHandshakes(session));
    }

    fn reused(&self) {
        self.metrics().count(Counter::UpstreamConnectionsReused);
    }

    fn stale(&self) {
        self.metrics().count(Counter::UpstreamConnectionsStale);
    }

    fn responded(&self, status: u16, _waited_ns: u64) {
        self.metrics()
            .count(Counter::UpstreamResponses(StatusClass::of(status)));
        if status >= 500 {
            self.metrics()
                .count(Counter::UpstreamErrors(UpstreamFailure::Status5xx));
        }
    }

    fn failed(&self, error: &UpstreamError) {
        if let Some(kind) = error.failure() {
            self.metrics().count(Counter::UpstreamErrors(kind));
        }
    }

    fn retried(&self) {
        self.metrics().count(Counter::UpstreamRetries);
    }

    fn turned(&self, endpoint: &Endpoint, before: Phase, after: Phase) {
        let gauge = |phase, by| {
            if phase != Phase::Closed {
                let gauge = Gauge::UpstreamBreakers(state_of(phase));
                self.metrics().gauge_add(gauge, by);
            }
        };
        gauge(before, -1);
        gauge(after, 1);
        let state = state_of(after);
        self.metrics().count(Counter::UpstreamBreakerTurns(state));
        match after {
            Phase::Open => tracing::warn!(origin = %endpoint, "an origin fails and is not asked"),
            Phase::HalfOpen => tracing::info!(origin = %endpoint, "an origin is probed"),
            Phase::Closed => tracing::info!(origin = %endpoint, "an origin is back"),
        }
    }

    fn refused(&self) {
        self.metrics().count(Counter::UpstreamRefused);
    }

    fn fell_back(&self, fallback: &Endpoint, result: FallbackResult) {
        self.metrics().count(Counter::UpstreamFallbacks(result));
        tracing::debug!(%fallback, ?result, "a fallback was asked");
    }

    fn hedged(&self, result: HedgeResult) {
        self.metrics().count(Counter::UpstreamHedges(result));
    }

    fn rested(&self, address: SocketAddr, error: &UpstreamError) {
        tracing::warn!(%address, %error, "an origin address fails and rests");
    }

    fn recovered(&self, address: SocketAddr) {
        tracing::info!(%address, "an origin address is back");
    }
}

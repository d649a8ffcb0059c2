//! Connections to origins: names, addresses and their health, pools, TLS, exchanges; and passages, which tunnels go through.
//!
//! Called by `fill` and `request` on their shard; `server` builds one [`Upstream`] for each shard and one [`TlsConfig`] for all.
//! Everything here belongs to one shard's thread; only [`DetachedResponse`] may travel.
//!
//! Invariants:
//! - No more connections than `connections_max`, idle ones included; each closes or is pooled, also when the future that
//!   held it is dropped.
//! - A connection is pooled only after a whole exchange that left nothing unread.
//! - A body that ends early is an error. Only requests without effect are sent twice.
//! - No `RefCell` is borrowed across an await.
//!
//! Left to others: which origin a request goes to and what its bytes are (`request`), what an error means to a client
//! (`request::failure`), resolving names (`dns`, on the control thread).

mod addresses;
mod breaker;
mod chain;
mod chunked_body;
mod config;
mod conn;
mod dial;
pub mod dns;
mod endpoint;
mod error;
mod exchange;
mod fallback;
mod heads;
mod hedge;
mod names;
mod outages;
mod overrides;
mod passage;
mod permits;
mod pool;
mod response;
#[cfg(test)]
mod tests;
mod tls;
mod wait;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::prng::Prng;
use crate::io::watchdog::Watchdog;
use crate::tls::TlsScratch;

pub use breaker::{BreakerConfig, Claim, Phase};
pub use config::{AddressRule, NoEvents, UpstreamConfig, UpstreamEvents};
pub use conn::{Awaiting, Conn};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Fault, UpstreamError};
pub use exchange::Patience;
pub use fallback::{Origin, Query};
pub use heads::{FinalHead, HeadRead};
pub use outages::{Admitted, Health, Outages, is_outage};
pub use overrides::Overrides;
pub use passage::Passage;
pub use response::{DetachedResponse, Response};
pub use tls::{TlsConfig, TlsProfile, TlsRoots, TlsSetupError, TlsVersions};

use addresses::RestPolicy;
use hedge::InFlight;
use names::Names;
use permits::Permits;
use pool::IdlePool;

/// Requests of one shard that may wait for one of `connections_max`.
const WAITING_MAX: usize = 4096;

/// Which kept connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any: the request may be sent again if the origin had closed it.
    Any,
    /// One that was in use a moment ago: the request should not be sent twice.
    Recent,
    /// None.
    Never,
}

/// What connections need of their shard, without the pool that may hold them.
struct Shared {
    config: Arc<UpstreamConfig>,
    watchdog: Rc<Watchdog>,
    events: Rc<dyn UpstreamEvents>,
    permits: Rc<Permits>,
    scratch: TlsScratch,
}

/// One shard's way to all origins.
pub struct Upstream {
    shared: Rc<Shared>,
    tls: Arc<TlsConfig>,
    names: Names,
    pool: RefCell<IdlePool<Conn>>,
    prng: Prng,
    in_flight: InFlight,
    sweeping: Cell<bool>,
}

impl Upstream {
    /// An upstream without connections. `resolve` asks the control thread for a name, whose answer the shard passes to
    /// [`Upstream::on_resolved`]. The shard sweeps `watchdog`.
    #[must_use]
    pub fn new(
        config: Arc<UpstreamConfig>,
        tls: Arc<TlsConfig>,
        watchdog: Rc<Watchdog>,
        resolve: Rc<dyn Fn(&str)>,
        events: Rc<dyn UpstreamEvents>,
    ) -> Rc<Self> {
        let policy = RestPolicy {
            failures_to_rest: config.failures_to_rest.max(1),
            rest_ms: config.rest_ms.max(1),
        };
        Rc::new(Self {
            tls,
            names: Names::new(resolve, policy, Arc::clone(&config.overrides)),
            pool: RefCell::new(IdlePool::new(config.pool_idle_max, config.keepalive_ms)),
            prng: Prng::new(config.seed),
            in_flight: InFlight::default(),
            sweeping: Cell::new(false),
            shared: Rc::new(Shared {
                watchdog,
                events,
                permits: Permits::new(config.connections_max, WAITING_MAX),
                scratch: TlsScratch::default(),
                config,
            }),
        })
    }

    /// What the control thread found for `host`, asked for or found anew when its TTL ended: wakes who waits for it. A failure
    /// keeps the addresses that were known.
    pub fn on_resolved(&self, host: &str, result: Result<&[IpAddr], ()>) {
        self.names.answer(host, result);
    }

    /// Connections that exist, idle ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.permits.taken()
    }

    /// Connections kept for reuse.
    #[must_use]
    pub fn connections_idle(&self) -> usize {
        self.pool.borrow().len()
    }

    /// Addresses that are not dialled now because they failed.
    #[must_use]
    pub fn addresses_resting(&self) -> usize {
        self.names.resting()
    }

    /// Closes all idle connections: the process drains.
    pub fn close_idle(&self) {
        let idle = self.pool.borrow_mut().take_all();
        for conn in idle {
            conn.retire();
        }
    }
}

//! How a connection is had: from the pool, or from the address that is best now.
//!
//! Called by `exchange` and, through [`Upstream::checkout`], by uploads. Every way out of here, also a dropped future, gives its
//! permit and its lease back. The wait for a place under `connections_max`, for a name's first answer and for each
//! address is bounded by `connect_timeout_ms`.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::{now_ms, now_ns};
use crate::io::{Socket, spawn, timeout_ms};
use crate::tls::{ClientSession, TlsFailure};

use super::addresses::Lease;
use super::config::AddressRule;
use super::conn::{Conn, DetachedConn, Holding};
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::names::Name;
use super::permits::Permit;
use super::{Reuse, Upstream};

/// Addresses that this machine has no way to are passed over without counting as tries, this many at most.
const UNROUTABLE_MAX: usize = 32;

/// A request that may not be sent twice goes out only on a connection that was in use so recently.
const RECENT_MS: u64 = 2_000;

/// Idle connections are looked at so often.
const SWEEP_IDLE_MS: u64 = 1_000;

/// What the tries for one request have come to.
pub(super) struct Tries {
    left: u32,
    pub avoid: Vec<IpAddr>,
    unroutable: usize,
}

impl Tries {
    pub fn new(retries: u32) -> Self {
        Self {
            left: retries,
            avoid: Vec::new(),
            unroutable: 0,
        }
    }

    /// Whether there is another try after `error`, and takes it.
    pub fn take(&mut self, error: &UpstreamError) -> bool {
        if let Some(address) = error.blamed()
            && !self.avoid.contains(&address.ip())
        {
            self.avoid.push(address.ip());
        }
        if error.is_unroutable() && self.unroutable < UNROUTABLE_MAX {
            self.unroutable += 1;
            return true;
        }
        if self.left == 0 || !error.may_retry() {
            return false;
        }
        self.left -= 1;
        true
    }
}

impl Upstream {
    /// A connection for a request that the caller sends itself. Addresses are tried as often as `retries` says.
    ///
    /// # Errors
    /// [`UpstreamError::Busy`], [`UpstreamError::Resolve`], [`UpstreamError::ResolveTimeout`],
    /// [`UpstreamError::AddressRefused`], [`UpstreamError::Connect`], [`UpstreamError::ConnectTimeout`],
    /// [`UpstreamError::Tls`]: nothing was sent of the request.
    pub async fn checkout(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        reuse: Reuse,
    ) -> Result<Conn, UpstreamError> {
        let once = async |avoid: &[IpAddr]| self.open(endpoint, reuse, avoid).await;
        self.tried(endpoint, once).await
    }

    /// Does `once`, which is given the addresses to avoid, as often as `retries` says.
    pub(super) async fn tried<T>(
        &self,
        endpoint: &Arc<Endpoint>,
        once: impl AsyncFn(&[IpAddr]) -> Result<T, UpstreamError>,
    ) -> Result<T, UpstreamError> {
        let mut tries = Tries::new(self.shared.config.retries);
        loop {
            let error = match once(&tries.avoid).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            self.note_failure(endpoint, &error);
            if !tries.take(&error) {
                return Err(error);
            }
            self.shared.events.retried();
        }
    }

    /// One try: a kept connection, or a new one to one address.
    pub(super) async fn open(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        reuse: Reuse,
        avoid: &[IpAddr],
    ) -> Result<Conn, UpstreamError> {
        let permits = &self.shared.permits;
        let give_up_ms = now_ms() + self.shared.config.connect_timeout_ms;
        // Who comes later than somebody who waits does not go first.
        let mut may_go = !permits.is_wanted();
        loop {
            if may_go {
                if let Some(conn) = self.pooled(endpoint, reuse) {
                    return Ok(conn);
                }
                if let Some(permit) = permits.try_take() {
                    return self.dial_best(endpoint, avoid, permit).await;
                }
                if self.evict_oldest() {
                    continue;
                }
            }
            let left_ms = give_up_ms.saturating_sub(now_ms());
            self.wait_for_place(left_ms).await?;
            may_go = true;
        }
    }

    fn pooled(&self, endpoint: &Arc<Endpoint>, reuse: Reuse) -> Option<Conn> {
        let age_ms = match reuse {
            Reuse::Any => u64::MAX,
            Reuse::Recent => RECENT_MS,
            Reuse::Never => return None,
        };
        loop {
            let mut conn = self.pool.borrow_mut().take(endpoint, age_ms, now_ms())?;
            if conn.is_alive() {
                conn.reused = true;
                self.shared.events.reused();
                return Some(conn);
            }
            self.shared.events.stale();
        }
    }

    fn evict_oldest(&self) -> bool {
        let oldest = self.pool.borrow_mut().take_oldest();
        let found = oldest.is_some();
        if let Some(conn) = oldest {
            conn.retire();
        }
        found
    }

    async fn wait_for_place(&self, limit_ms: u64) -> Result<(), UpstreamError> {
        let permits = &self.shared.permits;
        let busy = || UpstreamError::Busy {
            limit: permits.limit(),
        };
        let place = permits.queue().ok_or_else(busy)?;
        timeout_ms(limit_ms, place).await.ok_or_else(busy)
    }

    async fn dial_best(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        avoid: &[IpAddr],
        permit: Permit,
    ) -> Result<Conn, UpstreamError> {
        let name = self
            .names
            .resolved(endpoint, self.shared.config.connect_timeout_ms)
            .await?;
        self.probe_if_due(endpoint, &name);
        let (ip, lease) = self.choose(endpoint, &name, avoid, &self.shared.config.allow)?;
        self.dial(endpoint, ip, Holding { lease, permit }).await
    }

    /// The best of the addresses that may be dialled.
    pub(super) fn choose(
        &self,
        endpoint: &Endpoint,
        name: &Name,
        avoid: &[IpAddr],
        allow: &AddressRule,
    ) -> Result<(IpAddr, Lease), UpstreamError> {
        let may = |ip| allow(endpoint, SocketAddr::new(ip, endpoint.port));
        let chosen = name.with(endpoint.port, |set| {
            set.choose(avoid, &self.prng, may)
                .ok_or_else(|| set.first())
        });
        chosen.map_err(|refused| match refused {
            Some(ip) => UpstreamError::AddressRefused {
                address: SocketAddr::new(ip, endpoint.port),
            },
            None => UpstreamError::Resolve {
                host: endpoint.host.clone(),
            },
        })
    }

    /// Connects, within the time that the settings give for it.
    async fn dial(
        &self,
        endpoint: &Arc<Endpoint>,
        ip: IpAddr,
        holding: Holding,
    ) -> Result<Conn, UpstreamError> {
        let config = &self.shared.config;
        let address = SocketAddr::new(ip, endpoint.port);
        if !(config.allow)(endpoint, address) {
            return Err(UpstreamError::AddressRefused { address });
        }
        let begun_ns = now_ns();
        let after_ms = config.connect_timeout_ms;
        let connected = timeout_ms(after_ms, self.connect(endpoint, address)).await;
        let (socket, tls) =
            connected.unwrap_or(Err(UpstreamError::ConnectTimeout { address, after_ms }))?;
        self.shared.events.opened(now_ns() - begun_ns);
        let policy = &self.names.policy;
        if self.names.with(endpoint, |set| set.connected(ip, policy)) == Some(true) {
            self.shared.events.recovered(address);
        }
        Ok(Conn::new(
            &self.shared,
            endpoint,
            address,
            socket,
            tls,
            holding,
        ))
    }

    async fn connect(
        &self,
        endpoint: &Endpoint,
        address: SocketAddr,
    ) -> Result<(Socket, Option<Box<ClientSession>>), UpstreamError> {
        let shared = &self.shared;
        let socket = Socket::connect(address, &shared.config.congestion, &shared.watchdog).await;
        let socket = socket.map_err(|source| UpstreamError::Connect { address, source })?;
        if !endpoint.tls {
            return Ok((socket, None));
        }
        let session = self.tls.session(endpoint);
        let mut session =
            Box::new(session.map_err(|source| UpstreamError::Tls { address, source })?);
        session
            .handshake(&socket)
            .await
            .map_err(|error| match error {
                TlsFailure::Session(source) => UpstreamError::Tls { address, source },
                TlsFailure::Socket(source) => UpstreamError::Reset { address, source },
                TlsFailure::Truncated => UpstreamError::ClosedBeforeHead {
                    address,
                    received: 0,
                },
            })?;
        shared.events.handshaken(session.is_resumed());
        Ok((socket, Some(session)))
    }

    /// Starts one connection in the background to an address whose rest is over: no client waits for the outcome.
    fn probe_if_due(self: &Rc<Self>, endpoint: &Arc<Endpoint>, name: &Name) {
        let now = now_ms();
        let policy = self.names.policy;
        let Some((ip, lease)) = name.with(endpoint.port, |set| set.take_due_probe(now)) else {
            return;
        };
        let Some(permit) = self.shared.permits.try_take() else {
            name.with(endpoint.port, |set| set.postpone(ip, now, &policy));
            return;
        };
        let (upstream, endpoint) = (Rc::clone(self), Arc::clone(endpoint));
        spawn(async move {
            match upstream
                .dial(&endpoint, ip, Holding { lease, permit })
                .await
            {
                Ok(conn) => upstream.give_back(conn),
                Err(error) => {
                    upstream.note_failure(&endpoint, &error);
                    // Also what does not blame the address leaves no probe for ever under way.
                    upstream
                        .names
                        .with(&endpoint, |set| set.postpone(ip, now_ms(), &policy));
                }
            }
        });
    }

    /// Puts what failed to the account of its address, and tells the metrics.
    pub(super) fn note_failure(&self, endpoint: &Arc<Endpoint>, error: &UpstreamError) {
        self.shared.events.failed(error);
        let Some(address) = error.blamed() else {
            return;
        };
        let (ip, now, policy) = (address.ip(), now_ms(), &self.names.policy);
        let rests = self.names.with(endpoint, |set| {
            if !error.is_of_connecting() {
                set.left_unanswered(ip);
            }
            if error.is_unroutable() {
                set.unroutable(ip, now, policy)
            } else {
                set.failed(ip, now, policy)
            }
        });
        if rests != Some(true) {
            return;
        }
        self.shared.events.rested(address, error);
        let idle = self.pool.borrow_mut().take_address(endpoint, ip);
        for conn in idle {
            conn.retire();
        }
    }

    pub(super) fn note_answer(&self, conn: &Conn) {
        self.names
            .with(&conn.endpoint, |set| set.answered(conn.address.ip()));
    }

    /// Takes a connection back after an exchange: to the pool if it can carry another request.
    pub(super) fn give_back(self: &Rc<Self>, mut conn: Conn) {
        let now = now_ms();
        if !conn.is_reusable() || self.is_outdated(&conn, now) {
            conn.retire();
            return;
        }
        conn.rest();
        let (endpoint, ip) = (Arc::clone(&conn.endpoint), conn.address.ip());
        let gone = self.pool.borrow_mut().put(&endpoint, ip, conn, now);
        if let Some(gone) = gone {
            gone.retire();
        }
        if self.shared.permits.is_wanted() {
            self.shared.permits.wake_one();
        }
        self.start_sweep();
    }

    /// A connection to an address that its name does not have any more is used for a while, not for ever.
    fn is_outdated(&self, conn: &Conn, now_ms: u64) -> bool {
        let old = now_ms.saturating_sub(conn.opened_ms) > self.shared.config.keepalive_ms;
        old && self
            .names
            .with(&conn.endpoint, |set| set.is_listed(conn.address.ip()))
            == Some(false)
    }

    /// While something is idle one task looks after it: closes what is too old, and what the origin has closed.
    fn start_sweep(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let upstream = Rc::downgrade(self);
        spawn(async move {
            loop {
                crate::io::sleep_ms(SWEEP_IDLE_MS).await;
                let Some(upstream) = upstream.upgrade() else {
                    return;
                };
                let dead = upstream
                    .pool
                    .borrow_mut()
                    .take_dead(now_ms(), Conn::is_alive);
                for conn in dead {
                    conn.retire();
                }
                if upstream.pool.borrow().len() == 0 {
                    upstream.sweeping.set(false);
                    return;
                }
            }
        });
    }

    pub(super) fn attach_conn(&self, detached: DetachedConn) -> Result<Conn, UpstreamError> {
        let ip = detached.address.ip();
        let lease = self.names.with(&detached.endpoint, |set| set.lease(ip));
        let lease = lease.unwrap_or_else(Lease::unlisted);
        // It exists already: refusing it here would not make one connection less.
        let permit = self.shared.permits.take_beyond();
        Conn::attach(&self.shared, detached, Holding { lease, permit })
    }
}

//! Connections for tunnels: TCP alone, to the best address of a name, never pooled.
//!
//! Called by `request::tunnel` through [`Upstream::open_passage`]. Names, their health and their rests are those of all other connections; the
//! rule for addresses is the one for tunnels. A passage takes no place under `connections_max`, since it may last for hours: the
//! shard counts its tunnels itself.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::{now_ms, now_ns};
use crate::io::{Socket, spawn, timeout_ms};

use super::Upstream;
use super::addresses::Lease;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::names::Name;

/// A connection through which a client's own bytes go.
pub struct Passage {
    /// The connection.
    pub socket: Socket,
    /// The address that was dialled.
    pub address: SocketAddr,
    _lease: Lease,
}

impl Upstream {
    /// Connects to `endpoint` and sends nothing. Addresses are tried as often as `retries` says.
    ///
    /// # Errors
    /// [`UpstreamError::Resolve`], [`UpstreamError::ResolveTimeout`], [`UpstreamError::AddressRefused`], [`UpstreamError::Connect`],
    /// [`UpstreamError::ConnectTimeout`].
    pub async fn open_passage(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
    ) -> Result<Passage, UpstreamError> {
        let config = &self.shared.config;
        let name = self
            .names
            .resolved(endpoint, config.connect_timeout_ms)
            .await
            .inspect_err(|error| self.note_failure(endpoint, error))?;
        self.try_resting(endpoint, &name);
        let once = async |avoid: &[IpAddr]| {
            let (ip, lease) = self.choose(endpoint, &name, avoid, &config.allow_tunnel)?;
            let address = SocketAddr::new(ip, endpoint.port);
            self.connect_passage(endpoint, address, lease).await
        };
        self.tried(endpoint, once).await
    }

    async fn connect_passage(
        &self,
        endpoint: &Arc<Endpoint>,
        address: SocketAddr,
        lease: Lease,
    ) -> Result<Passage, UpstreamError> {
        let config = &self.shared.config;
        // The address of a probe was not chosen by the rule.
        if !(config.allow_tunnel)(endpoint, address) {
            return Err(UpstreamError::AddressRefused { address });
        }
        let begun_ns = now_ns();
        let after_ms = config.connect_timeout_ms;
        let connecting = Socket::connect(address, &config.congestion, &self.shared.watchdog);
        let socket = match timeout_ms(after_ms, connecting).await {
            Some(Ok(socket)) => socket,
            Some(Err(source)) => return Err(UpstreamError::Connect { address, source }),
            None => return Err(UpstreamError::ConnectTimeout { address, after_ms }),
        };
        self.shared.events.opened(now_ns() - begun_ns);
        let (ip, policy) = (address.ip(), &self.names.policy);
        let set = |set: &mut super::addresses::AddressSet| {
            let recovered = set.connected(ip, policy);
            set.reached(ip);
            recovered
        };
        if self.names.with(endpoint, set) == Some(true) {
            self.shared.events.recovered(address);
        }
        Ok(Passage {
            socket,
            address,
            _lease: lease,
        })
    }

    /// Connects in the background to an address whose rest is over, and closes again.
    fn try_resting(self: &Rc<Self>, endpoint: &Arc<Endpoint>, name: &Name) {
        let due = name.with(endpoint.port, |set| set.take_due_probe(now_ms()));
        let Some((ip, lease)) = due else { return };
        let (upstream, endpoint) = (Rc::clone(self), Arc::clone(endpoint));
        spawn(async move {
            let address = SocketAddr::new(ip, endpoint.port);
            let probed = upstream.connect_passage(&endpoint, address, lease).await;
            if let Err(error) = probed {
                upstream.note_failure(&endpoint, &error);
                let policy = upstream.names.policy;
                let postpone =
                    |set: &mut super::addresses::AddressSet| set.postpone(ip, now_ms(), &policy);
                upstream.names.with(&endpoint, postpone);
            }
        });
    }
}

//! Who may come in by which door, and what the doors need to let them in.
//!
//! Made by `server`, read by `listener` for each connection.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::tls::door::TlsDoor;

use super::message::DoorKind;

/// What the doors need.
#[derive(Default)]
pub struct Doors {
    /// Networks that the HTTP doors are for; none: all.
    pub http_allow: Vec<IpNet>,
    /// The same of the TLS doors.
    pub tls_allow: Vec<IpNet>,
    /// The same of the tunnel doors.
    pub tunnel_allow: Vec<IpNet>,
    /// Balancers, whose connections begin with a PROXY header.
    pub balancers: Vec<IpNet>,
    /// What the TLS doors show.
    pub tls: Option<Arc<TlsDoor>>,
    /// Time for a TLS handshake.
    pub handshake_timeout_ms: u64,
}

impl Doors {
    /// Whether a client at `address` may come in.
    #[must_use]
    pub fn admits(&self, door: DoorKind, address: IpAddr) -> bool {
        let allow = match door {
            DoorKind::Http => &self.http_allow,
            DoorKind::Tls => &self.tls_allow,
            DoorKind::Tunnel => &self.tunnel_allow,
        };
        allow.is_empty() || holds(allow, address)
    }

    /// Whether `address` is a balancer's, which says for whom it asks.
    #[must_use]
    pub fn is_balancer(&self, address: IpAddr) -> bool {
        !self.balancers.is_empty() && holds(&self.balancers, address)
    }
}

/// An IPv4 client of a door that is bound to `::` comes as `::ffff:a.b.c.d`.
fn holds(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_of_the_network_of_its_own() {
        let doors = Doors {
            http_allow: vec!["10.0.0.0/8".parse().expect("a network")],
            balancers: vec!["fd00::/8".parse().expect("a network")],
            ..Doors::default()
        };
        let at = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(doors.admits(DoorKind::Http, at("::ffff:10.1.2.3")));
        assert!(doors.admits(DoorKind::Http, at("10.1.2.3")));
        assert!(!doors.admits(DoorKind::Http, at("11.1.2.3")));
        assert!(!doors.admits(DoorKind::Http, at("::1")));
        for other in [DoorKind::Tls, DoorKind::Tunnel] {
            assert!(doors.admits(other, at("::1")));
        }
        assert!(doors.is_balancer(at("fd00::1")) && !doors.is_balancer(at("10.0.0.1")));
    }
}

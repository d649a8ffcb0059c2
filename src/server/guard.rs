//! Which addresses may be dialled: asked for the very address, right before it is dialled.
//!
//! Made by `boot`, called by `upstream`. Never our own doors (a name that leads back here would loop until descriptors run out). An origin that
//! the operator named may be anywhere else; a name that a client's Host brought (an AWS endpoint) never leads to this machine,
//! to its links or to a group.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::upstream::{AddressRule, Endpoint};

/// The rule for doors bound at `doors`; `named` are the operator's own origins.
pub(super) fn address_rule(doors: Vec<SocketAddr>, named: Vec<Arc<Endpoint>>) -> AddressRule {
    Arc::new(move |endpoint: &Endpoint, address: SocketAddr| {
        if doors.iter().any(|door| leads_to(*door, address)) {
            return false;
        }
        named.iter().any(|origin| **origin == *endpoint) || is_elsewhere(address.ip())
    })
}

fn leads_to(door: SocketAddr, address: SocketAddr) -> bool {
    let everywhere =
        door.ip().is_unspecified() && (is_local(address.ip()) || address.ip().is_unspecified());
    door.port() == address.port() && (door.ip() == address.ip().to_canonical() || everywhere)
}

fn is_local(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

fn is_elsewhere(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn our_own_doors_are_never_dialled() {
        let origin = Endpoint::new(false, "127.0.0.1", 8080);
        let rule = address_rule(
            vec![at("127.0.0.1:8080"), at("0.0.0.0:80")],
            vec![Arc::clone(&origin)],
        );
        assert!(!rule(&origin, at("127.0.0.1:8080")));
        assert!(!rule(&origin, at("127.0.0.5:80")));
        assert!(!rule(&origin, at("[::ffff:127.0.0.1]:8080")));
        assert!(rule(&origin, at("127.0.0.1:9000")));
    }

    #[test]
    fn a_name_from_a_client_never_leads_to_this_machine() {
        let rule = address_rule(Vec::new(), Vec::new());
        let aws = Endpoint::new(true, "bucket.s3.amazonaws.com", 443);
        for inside in [
            "127.0.0.1:443",
            "[::1]:443",
            "169.254.169.254:443",
            "0.0.0.0:443",
            "224.0.0.1:443",
            "[fe80::1]:443",
            "[::ffff:127.0.0.1]:443",
        ] {
            assert!(!rule(&aws, at(inside)), "{inside}");
        }
        assert!(rule(&aws, at("52.216.1.1:443")) && rule(&aws, at("10.1.2.3:443")));
    }
}

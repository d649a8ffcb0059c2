//! Which addresses may be dialled: asked for the very address, right before it is dialled.
//!
//! Made by `boot`, called by `upstream`. Never our own doors, by whatever address of this machine (a name that leads back here would loop until
//! descriptors run out). An origin that the operator named may be anywhere else. A name that a client brought never leads to this
//! machine, to its links, to a group, nor through a translator, unless `destinations.networks` says so; a tunnel does not lead to private
//! networks either, while a request for an endpoint of Amazon S3 may: that is what the operator's own name server says of PrivateLink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::base::reach::{Reach, reach};
use crate::io::probe;
use crate::upstream::{AddressRule, Endpoint, Overrides};

/// What the rules are made of.
pub(super) struct Guard {
    /// Our own doors.
    pub doors: Vec<SocketAddr>,
    /// The operator's own origins.
    pub named: Vec<Arc<Endpoint>>,
    /// Addresses that the operator gives to hosts.
    pub overrides: Arc<Overrides>,
    /// Networks that are allowed although they are not public.
    pub networks: Vec<IpNet>,
}

impl Guard {
    /// The rule for requests.
    pub(super) fn of_requests(self: &Arc<Self>) -> AddressRule {
        let guard = Arc::clone(self);
        Arc::new(move |endpoint, address| {
            guard.may(endpoint, address, |whose| whose != Reach::Special)
        })
    }

    /// The rule for tunnels.
    pub(super) fn of_tunnels(self: &Arc<Self>) -> AddressRule {
        let guard = Arc::clone(self);
        Arc::new(move |endpoint, address| {
            guard.may(endpoint, address, |whose| whose == Reach::Public)
        })
    }

    fn may(&self, endpoint: &Endpoint, address: SocketAddr, may: fn(Reach) -> bool) -> bool {
        let ip = address.ip().to_canonical();
        if self
            .doors
            .iter()
            .any(|door| leads_to(*door, ip, address.port()))
        {
            return false;
        }
        let given = self.overrides.addresses(&endpoint.host);
        self.named.iter().any(|origin| **origin == *endpoint)
            || given.is_some_and(|given| given.contains(&address.ip()))
            || may(reach(ip))
            || self.networks.iter().any(|network| network.contains(&ip))
    }
}

fn leads_to(door: SocketAddr, ip: IpAddr, port: u16) -> bool {
    if door.port() != port {
        return false;
    }
    // Who dials no address is led to the loopback one.
    let ip = match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        _ => ip,
    };
    let here = || ip.is_loopback() || probe::is_own_address(ip);
    door.ip().to_canonical() == ip || door.ip().is_unspecified() && here()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn guard(doors: &[&str], named: &[&Arc<Endpoint>], networks: &[&str]) -> Arc<Guard> {
        Arc::new(Guard {
            doors: doors.iter().map(|door| at(door)).collect(),
            named: named.iter().map(|&origin| Arc::clone(origin)).collect(),
            overrides: Arc::new(Overrides::new([(
                "*.endpoint.test".to_owned(),
                vec![at("127.0.0.9:0").ip()],
            )])),
            networks: networks.iter().map(|net| net.parse().unwrap()).collect(),
        })
    }

    #[test]
    fn our_own_doors_are_never_dialled() {
        let origin = Endpoint::new(false, "127.0.0.1", 8080);
        let doors = ["127.0.0.1:8080", "0.0.0.0:80", "[::]:443", "[::1]:8081"];
        let guard = guard(&doors, &[&origin], &["0.0.0.0/0", "::/0"]);
        for rule in [guard.of_requests(), guard.of_tunnels()] {
            assert!(!rule(&origin, at("127.0.0.1:8080")));
            assert!(!rule(&origin, at("127.0.0.5:80")));
            assert!(!rule(&origin, at("0.0.0.0:80")));
            assert!(!rule(&origin, at("[::ffff:127.0.0.1]:8080")));
            assert!(!rule(&origin, at("[::1]:443")));
            assert!(!rule(&origin, at("0.0.0.0:8080")));
            assert!(!rule(&origin, at("[::ffff:0.0.0.0]:8080")));
            assert!(!rule(&origin, at("[::]:8081")));
            assert!(!rule(&origin, at("127.0.0.1:443")));
            assert!(rule(&origin, at("127.0.0.1:9000")));
            assert!(rule(&origin, at("127.0.0.5:8080")));
        }
    }

    /// A door on all addresses is reached by each of them.
    #[test]
    fn every_address_of_this_machine_is_a_door_that_is_open_on_all() {
        let origin = Endpoint::new(true, "store", 443);
        let guard = guard(&["0.0.0.0:443"], &[&origin], &[]);
        let route = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        // Nothing is sent: this only asks by which address this machine would.
        if route.connect("192.0.2.1:9").is_err() {
            eprintln!("no address but loopback here");
            return;
        }
        let own = route.local_addr().unwrap().ip();
        assert!(!guard.of_tunnels()(&origin, SocketAddr::new(own, 443)));
        assert!(guard.of_tunnels()(&origin, SocketAddr::new(own, 444)));
        assert!(guard.of_tunnels()(&origin, at("192.0.2.1:443")));
    }

    #[test]
    fn a_name_from_a_client_never_leads_to_this_machine() {
        let guard = guard(&[], &[], &[]);
        let aws = Endpoint::new(true, "bucket.s3.amazonaws.com", 443);
        for inside in [
            "127.0.0.1:443",
            "[::1]:443",
            "169.254.169.254:443",
            "0.0.0.0:443",
            "224.0.0.1:443",
            "100.64.1.1:443",
            "[fe80::1]:443",
            "[64:ff9b::7f00:1]:443",
            "[::ffff:127.0.0.1]:443",
        ] {
            assert!(!guard.of_requests()(&aws, at(inside)), "{inside}");
            assert!(!guard.of_tunnels()(&aws, at(inside)), "{inside}");
        }
        for private in ["10.1.2.3:443", "192.168.0.1:443", "[fd00::1]:443"] {
            assert!(guard.of_requests()(&aws, at(private)), "{private}");
            assert!(!guard.of_tunnels()(&aws, at(private)), "{private}");
        }
        assert!(guard.of_tunnels()(&aws, at("52.216.1.1:443")));
    }

    #[test]
    fn networks_that_the_operator_allows_are_no_secret() {
        let guard = guard(&["0.0.0.0:8080"], &[], &["10.0.0.0/8", "64:ff9b::/96"]);
        let aws = Endpoint::new(true, "bucket.s3.amazonaws.com", 443);
        for allowed in ["10.1.2.3:443", "[64:ff9b::102:304]:443"] {
            assert!(guard.of_tunnels()(&aws, at(allowed)), "{allowed}");
            assert!(guard.of_requests()(&aws, at(allowed)), "{allowed}");
        }
        for refused in ["172.16.0.1:443", "127.0.0.1:443", "[64:ff9b:1::1]:443"] {
            assert!(!guard.of_tunnels()(&aws, at(refused)), "{refused}");
        }
    }

    #[test]
    fn an_address_that_the_operator_gives_is_that_hosts_alone() {
        let guard = guard(&["127.0.0.9:8080"], &[], &[]);
        for rule in [guard.of_requests(), guard.of_tunnels()] {
            let given = Endpoint::new(true, "s3.endpoint.test", 443);
            assert!(rule(&given, at("127.0.0.9:443")));
            assert!(!rule(&given, at("127.0.0.8:443")));
            assert!(!rule(&given, at("127.0.0.9:8080")));
            let other = Endpoint::new(true, "s3.amazonaws.com", 443);
            assert!(!rule(&other, at("127.0.0.9:443")));
        }
    }

    #[test]
    fn an_origin_of_the_operators_may_be_on_this_machine() {
        let origin = Endpoint::new(false, "127.0.0.1", 9000);
        let guard = guard(&["127.0.0.1:8080"], &[&origin], &[]);
        for rule in [guard.of_requests(), guard.of_tunnels()] {
            assert!(rule(&origin, at("127.0.0.1:9000")));
            let other = Endpoint::new(true, "s3.amazonaws.com", 9000);
            assert!(!rule(&other, at("127.0.0.1:9000")));
        }
    }
}

//! Whose an IP address is: the internet's, a private network's, or nobody's that a stranger may be led to.
//!
//! Called by `server::guard` for the very address that is about to be dialled. Pure. After the registries of special-purpose addresses
//! (RFC 6890 and its updates). An address that carries another inside (mapped, translated, 6to4, Teredo) is not judged by what it
//! carries: only the mapped one, which the kernel dials as the IPv4 address that it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Reachable from anywhere.
    Public,
    /// A private network's: RFC 1918, and unique local addresses (RFC 4193).
    Private,
    /// This machine's, its links', a provider's, a translator's, a group's, or reserved.
    Special,
}

/// Whose `ip` is.
#[must_use]
pub fn reach(ip: IpAddr) -> Reach {
    match ip.to_canonical() {
        IpAddr::V4(v4) => of_v4(v4),
        IpAddr::V6(v6) => of_v6(v6),
    }
}

fn of_v4(ip: Ipv4Addr) -> Reach {
    if ip.is_private() {
        return Reach::Private;
    }
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 127 | 224..=255, ..)      // this network, loopback, groups, reserved, broadcast
            | (100, 64..=127, _)       // shared with a provider (RFC 6598)
            | (169, 254, _)            // link-local
            | (192, 0, 0 | 2)          // protocol assignments, documentation
            | (192, 31, 196)           // AS112
            | (192, 52, 193)           // AMT relays
            | (192, 88, 99)            // 6to4 relays
            | (192, 175, 48)           // AS112
            | (198, 18 | 19, _)        // benchmarks
            | (198, 51, 100)           // documentation
            | (203, 0, 113) // documentation
    );
    if special {
        Reach::Special
    } else {
        Reach::Public
    }
}

fn of_v6(ip: Ipv6Addr) -> Reach {
    let parts = ip.segments();
    if parts[0] & 0xfe00 == 0xfc00 {
        return Reach::Private;
    }
    // Of all that is not 2000::/3 nothing is given out: loopback, link-local, groups, NAT64 (64:ff9b::/96 and 64:ff9b:1::/48) are there.
    let given_out = parts[0] & 0xe000 == 0x2000;
    let protocols = parts[0] == 0x2001 && parts[1] < 0x0200; // Teredo, benchmarks, ORCHID
    let documentation =
        parts[0] == 0x2001 && parts[1] == 0x0db8 || parts[0] == 0x3fff && parts[1] < 0x1000;
    let six_to_four = parts[0] == 0x2002;
    if given_out && !protocols && !documentation && !six_to_four {
        Reach::Public
    } else {
        Reach::Special
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_whose_the_registries_say() {
        use Reach::{Private, Public, Special};
        let table = [
            ("1.1.1.1", Public),
            ("52.216.1.1", Public),
            ("100.63.255.255", Public),
            ("100.128.0.0", Public),
            ("172.15.0.1", Public),
            ("172.32.0.1", Public),
            ("198.20.0.1", Public),
            ("223.255.255.255", Public),
            ("10.0.0.1", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("0.0.0.0", Special),
            ("0.1.2.3", Special),
            ("127.0.0.1", Special),
            ("127.255.255.254", Special),
            ("100.64.0.1", Special),
            ("100.127.255.255", Special),
            ("169.254.169.254", Special),
            ("192.0.0.8", Special),
            ("192.0.2.1", Special),
            ("192.88.99.1", Special),
            ("198.18.0.1", Special),
            ("198.51.100.7", Special),
            ("203.0.113.7", Special),
            ("224.0.0.1", Special),
            ("239.255.255.250", Special),
            ("240.0.0.1", Special),
            ("255.255.255.255", Special),
            ("2600:1fa0::1", Public),
            ("2a05:d018::1", Public),
            ("2001:4860::8888", Public),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("::", Special),
            ("::1", Special),
            ("::1.2.3.4", Special),
            ("::ffff:127.0.0.1", Special),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:1.1.1.1", Public),
            ("::ffff:0:1.1.1.1", Special),
            ("64:ff9b::7f00:1", Special),
            ("64:ff9b::102:304", Special),
            ("64:ff9b:1::1", Special),
            ("100::1", Special),
            ("2001::1", Special),
            ("2001:2::1", Special),
            ("2001:db8::1", Special),
            ("2002:7f00:1::", Special),
            ("3fff::1", Special),
            ("5f00::1", Special),
            ("fe80::1", Special),
            ("fec0::1", Special),
            ("ff02::1", Special),
            ("ff0e::1", Special),
        ];
        for (ip, whose) in table {
            assert_eq!(reach(ip.parse().expect(ip)), whose, "{ip}");
        }
    }
}

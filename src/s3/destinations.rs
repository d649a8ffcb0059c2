//! Which hosts a tunnel may lead to: those of the map of origins, and what the operator allows besides.
//!
//! Called by `request::tunnel` with the host of a TLS hello or of a `CONNECT`. Built once from the settings. Pure: the check of the address that
//! is dialled is `server::guard`'s. Invariant: nothing here is a guess; a host that nobody named leads nowhere.

use crate::base::hosts::covers;

use super::aws;
use super::host::OriginMap;
use super::host_name::{HostName, NameKind};
use super::route::OriginSel;

/// The port of `https`.
pub const HTTPS_PORT: u16 = 443;

/// What is allowed besides the map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Names, addresses, and `*.suffix`; lower-case.
    pub allow: Vec<String>,
    /// Ports of those.
    pub ports: Vec<u16>,
}

/// Where a tunnel leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To a configured origin.
    Origin(OriginSel),
    /// To this host itself.
    Host {
        /// Lower-case name, or an address without brackets.
        name: Box<str>,
        /// Its port.
        port: u16,
    },
}

/// Why a host is no destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDestination {
    /// It is none at any port.
    Host,
    /// It is one, at another port.
    Port,
}

impl Destinations {
    /// Where `host` leads, which a client asks for at `port`, or by its name alone.
    ///
    /// # Errors
    /// It leads nowhere.
    pub fn resolve(
        &self,
        map: &OriginMap,
        host: &str,
        port: Option<u16>,
    ) -> Result<Destination, NoDestination> {
        let parsed = HostName::parse(host).map_err(|_| NoDestination::Host)?;
        if parsed.port.is_some() {
            return Err(NoDestination::Host);
        }
        if let Some(origin) = map.named_origin(&parsed, port) {
            return Ok(Destination::Origin(origin));
        }
        let aws =
            map.has_aws() && parsed.kind == NameKind::Dns && aws::parse(&parsed.name).is_some();
        let name = parsed.name.trim_matches(['[', ']']);
        let allowed = self.allow.iter().any(|allowed| covers(allowed, name));
        let port = port.unwrap_or(HTTPS_PORT);
        let to_aws = aws && port == HTTPS_PORT;
        match to_aws || allowed && self.ports.contains(&port) {
            true => Ok(Destination::Host {
                name: name.into(),
                port,
            }),
            false if aws || allowed => Err(NoDestination::Port),
            false => Err(NoDestination::Host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::origin_config::{CustomOrigin, OriginMapConfig, SingleOrigin};

    fn map() -> OriginMap {
        let custom = |name: &str, hosts: &[&str], domains: &[&str]| CustomOrigin {
            name: name.to_owned(),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
            domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        };
        OriginMap::new(OriginMapConfig {
            single_origin: None,
            aws: true,
            custom: vec![
                custom("a", &["store.corp"], &["store.corp"]),
                custom("b", &["minio.corp:9000", "10.0.0.7:9000"], &[]),
            ],
        })
        .expect("a map")
    }

    fn destinations() -> Destinations {
        Destinations {
            allow: [
                "sts.amazonaws.com",
                "*.allowed.test",
                "192.0.2.9",
                "2001:db8::9",
            ]
            .map(str::to_owned)
            .to_vec(),
            ports: vec![443, 8443],
        }
    }

    #[test]
    fn hosts_lead_where_the_operator_says_and_nowhere_else() {
        use NoDestination::{Host, Port};
        let to = |name: &str, port| {
            Ok(Destination::Host {
                name: name.into(),
                port,
            })
        };
        let origin = |index| Ok(Destination::Origin(OriginSel::Custom(index)));
        let table = [
            (
                "bucket.s3.us-east-1.amazonaws.com",
                None,
                to("bucket.s3.us-east-1.amazonaws.com", 443),
            ),
            ("S3.Amazonaws.COM.", Some(443), to("s3.amazonaws.com", 443)),
            ("s3.amazonaws.com", Some(80), Err(Port)),
            ("s3.amazonaws.com", Some(8443), Err(Port)),
            ("s3.amazonaws.com.evil.test", None, Err(Host)),
            ("evils3.amazonaws.com.test", None, Err(Host)),
            ("ec2.us-east-1.amazonaws.com", None, Err(Host)),
            ("store.corp", None, origin(0)),
            ("photos.store.corp", None, origin(0)),
            ("a.b.store.corp", Some(443), origin(0)),
            ("store.corp", Some(8443), Err(Host)),
            ("xstore.corp", None, Err(Host)),
            ("minio.corp", None, origin(1)),
            ("minio.corp", Some(9000), origin(1)),
            ("minio.corp", Some(443), Err(Host)),
            ("10.0.0.7", Some(9000), origin(1)),
            ("10.0.0.7", Some(443), Err(Host)),
            ("sts.amazonaws.com", None, to("sts.amazonaws.com", 443)),
            (
                "sts.amazonaws.com",
                Some(8443),
                to("sts.amazonaws.com", 8443),
            ),
            ("sts.amazonaws.com", Some(22), Err(Port)),
            ("x.allowed.test", Some(443), to("x.allowed.test", 443)),
            ("x.y.allowed.test", Some(443), to("x.y.allowed.test", 443)),
            ("allowed.test", Some(443), Err(Host)),
            (".allowed.test", Some(443), Err(Host)),
            ("192.0.2.9", Some(443), to("192.0.2.9", 443)),
            ("[2001:db8::9]", Some(443), to("2001:db8::9", 443)),
            ("[2001:0db8:0::9]", Some(443), to("2001:db8::9", 443)),
            ("[2001:db8::10]", Some(443), Err(Host)),
            ("2001:db8::9", Some(443), Err(Host)),
            ("127.0.0.1", Some(443), Err(Host)),
            ("0x7f.1", Some(443), Err(Host)),
            ("2130706433", Some(443), Err(Host)),
            ("localhost", Some(443), Err(Host)),
            ("", None, Err(Host)),
            ("*", None, Err(Host)),
            ("store.corp:443", None, Err(Host)),
            ("store.corp\0.evil", None, Err(Host)),
        ];
        for (host, port, wanted) in table {
            let found = destinations().resolve(&map(), host, port);
            assert_eq!(found, wanted, "{host} {port:?}");
        }
    }

    #[test]
    fn a_single_origin_is_known_by_its_names_alone() {
        let map = OriginMap::new(OriginMapConfig {
            single_origin: Some(SingleOrigin {
                authority: "store.corp:8443".to_owned(),
                hosts: vec!["alias.corp".to_owned()],
                domains: vec!["s3.corp".to_owned()],
            }),
            aws: true,
            custom: Vec::new(),
        })
        .expect("a map");
        let single = Ok(Destination::Origin(OriginSel::Single));
        let destinations = Destinations::default();
        for (host, port, wanted) in [
            ("store.corp", None, single.clone()),
            ("store.corp", Some(8443), single.clone()),
            ("alias.corp", Some(443), single.clone()),
            ("alias.corp", Some(1234), single.clone()),
            ("bucket.s3.corp", None, single),
            ("s3.amazonaws.com", None, Err(NoDestination::Host)),
            ("localhost", Some(443), Err(NoDestination::Host)),
            ("127.0.0.1", Some(8443), Err(NoDestination::Host)),
        ] {
            let found = destinations.resolve(&map, host, port);
            assert_eq!(found, wanted, "{host} {port:?}");
        }
    }
}

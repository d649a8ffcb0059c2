//! From a request's host to the store it addresses, through the map of allowed origins.
//!
//! Called by `listener` and `request` once per request, before a target is read. The map is built once from the
//! configuration and then only read.
//!
//! Invariants:
//! - Two stores never share an [`super::OriginId`]; two spellings of one S3 bucket always do.
//! - A host that the map does not name leads nowhere: [`RouteError`], never a guess.
//! - The host that is dialled is derived from the signed `Host` alone, so a client's signature never
//!   reaches a server it was not made for.
//!
//! Left to others: DNS, the check of the dialled address, TLS (`upstream`); what a path means (`target`).

use super::aws;
use super::destinations::HTTPS_PORT;
use super::host_name::{HostName, NameKind};
use super::origin_config::{ORIGIN_NAME_BYTES_MAX, OriginMapConfig, OriginMapError};
use super::route::{HostRoute, Kind, OriginSel, RouteError};
use std::collections::HashMap;

/// One name may be claimed by several stores on different ports.
type Claims = HashMap<String, Vec<(Option<u16>, usize)>>;

#[derive(Debug, Clone, Default)]
struct Names {
    hosts: Claims,
    domains: Claims,
}

/// Whether a claim without a port fits a host with one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    Exact,
    AnyIfUnnamed,
}

/// The allowed origins. Built once, then read by every shard.
#[derive(Debug, Clone)]
pub struct OriginMap {
    single: bool,
    aws: bool,
    custom_names: Vec<String>,
    names: Names,
}

impl OriginMap {
    /// Builds the map.
    ///
    /// # Errors
    /// A name that is no host, or one that two origins claim.
    pub fn new(config: OriginMapConfig) -> Result<Self, OriginMapError> {
        let mut names = Names::default();
        if let Some(single) = &config.single_origin {
            claim(&mut names.hosts, &single.authority, 0)?;
            for host in &single.hosts {
                claim_again(&mut names.hosts, host)?;
            }
            for domain in &single.domains {
                claim_again(&mut names.domains, domain)?;
            }
            return Ok(Self {
                single: true,
                aws: false,
                custom_names: Vec::new(),
                names,
            });
        }
        let mut custom_names = Vec::with_capacity(config.custom.len());
        for (index, origin) in config.custom.into_iter().enumerate() {
            let length_ok = (1..=ORIGIN_NAME_BYTES_MAX).contains(&origin.name.len());
            if !length_ok || custom_names.contains(&origin.name) {
                return Err(OriginMapError::BadName { name: origin.name });
            }
            for host in &origin.hosts {
                claim(&mut names.hosts, host, index)?;
            }
            for domain in &origin.domains {
                claim(&mut names.domains, domain, index)?;
            }
            custom_names.push(origin.name);
        }
        Ok(Self {
            single: false,
            aws: config.aws,
            custom_names,
            names,
        })
    }

    /// Where `host`, the value of a `Host` header, leads.
    ///
    /// # Errors
    /// [`RouteError::Malformed`] and [`RouteError::NotAllowed`].
    pub fn resolve<'h>(&'h self, host: &'h str) -> Result<HostRoute<'h>, RouteError> {
        let Ok(parsed) = HostName::parse(host) else {
            return Err(if host.is_empty() {
                RouteError::Missing
            } else {
                RouteError::Malformed {
                    host: excerpt(host),
                }
            });
        };
        if self.single {
            return Ok(self.resolve_single(parsed));
        }
        if let Some(claim) = find(&self.names, &parsed, Ports::Exact) {
            let kind = Kind::Custom {
                index: claim.origin,
                name: &self.custom_names[claim.origin],
            };
            return Ok(route(parsed, kind, claim.bucket_len));
        }
        self.resolve_aws(parsed)
            .ok_or_else(|| RouteError::NotAllowed {
                host: excerpt(host),
            })
    }

    /// Where a request leads that has a `Host` header and perhaps an absolute-form target: to the signed
    /// `Host`, if the target's authority does not contradict it.
    ///
    /// # Errors
    /// All of [`RouteError`].
    pub fn resolve_request<'h>(
        &'h self,
        authority: Option<&'h str>,
        host: Option<&'h str>,
    ) -> Result<HostRoute<'h>, RouteError> {
        let host = host.ok_or(RouteError::Missing)?;
        let route = self.resolve(host)?;
        let Some(authority) = authority.filter(|authority| *authority != host) else {
            return Ok(route);
        };
        let named = self.resolve(authority)?;
        if named.same_store(&route) {
            return Ok(route);
        }
        Err(RouteError::Disagree {
            authority: excerpt(authority),
            host: excerpt(host),
        })
    }

    /// Whether Amazon's endpoints are allowed.
    #[must_use]
    pub fn has_aws(&self) -> bool {
        self.aws
    }

    /// The configured store that a tunnel to `host` leads to; `port` is none where the client names the host alone.
    pub(super) fn named_origin(&self, host: &HostName<'_>, port: Option<u16>) -> Option<OriginSel> {
        let at = |port| {
            let host = HostName {
                port,
                ..host.clone()
            };
            let ports = match self.single {
                true => Ports::AnyIfUnnamed,
                false => Ports::Exact,
            };
            find(&self.names, &host, ports)
        };
        let claim = match port {
            Some(HTTPS_PORT) => at(None).or_else(|| at(port)),
            Some(_) => at(port),
            None => at(None)
                .or_else(|| at(Some(HTTPS_PORT)))
                .or_else(|| self.only_claim(&host.name)),
        }?;
        Some(match self.single {
            true => OriginSel::Single,
            false => OriginSel::Custom(claim.origin),
        })
    }

    /// The claim on a name at whatever port, if there is one alone.
    fn only_claim(&self, name: &str) -> Option<Claim> {
        let at_host = self.names.hosts.get(name);
        let above = memchr::memchr_iter(b'.', name.as_bytes());
        let mut above = above.filter_map(|dot| self.names.domains.get(&name[dot + 1..]));
        match at_host.or_else(|| above.next())?.as_slice() {
            [(_, origin)] => Some(Claim {
                origin: *origin,
                bucket_len: 0,
            }),
            _ => None,
        }
    }

    fn resolve_aws<'h>(&self, host: HostName<'h>) -> Option<HostRoute<'h>> {
        if !self.aws || !matches!(host.port, None | Some(443)) {
            return None;
        }
        let name = aws::parse(&host.name)?;
        let kind = Kind::Aws(name.kind, name.partition);
        Some(HostRoute {
            region: name.region,
            ..route(host, kind, name.bucket_len)
        })
    }

    fn resolve_single<'h>(&self, host: HostName<'h>) -> HostRoute<'h> {
        let known = host.kind == NameKind::Address || host.name == "localhost";
        if known {
            return route(host, Kind::Single, 0);
        }
        match find(&self.names, &host, Ports::AnyIfUnnamed) {
            Some(claim) => route(host, Kind::Single, claim.bucket_len),
            None => route(host, Kind::Host, 0),
        }
    }
}

fn route<'h>(host: HostName<'h>, kind: Kind<'h>, bucket_len: usize) -> HostRoute<'h> {
    HostRoute {
        name: host.name,
        port: host.port,
        kind,
        bucket_len,
        region: 0..0,
    }
}

struct Claim {
    origin: usize,
    bucket_len: usize,
}

/// The host itself if it is claimed, else the longest claimed domain above it.
fn find(names: &Names, host: &HostName<'_>, ports: Ports) -> Option<Claim> {
    if let Some(origin) = claimed(&names.hosts, &host.name, host.port, ports) {
        return Some(Claim {
            origin,
            bucket_len: 0,
        });
    }
    if names.domains.is_empty() {
        return None;
    }
    memchr::memchr_iter(b'.', host.name.as_bytes()).find_map(|dot| {
        let origin = claimed(&names.domains, &host.name[dot + 1..], host.port, ports)?;
        Some(Claim {
            origin,
            bucket_len: dot,
        })
    })
}

fn claimed(claims: &Claims, name: &str, port: Option<u16>, ports: Ports) -> Option<usize> {
    let fits =
        |wanted: Option<u16>| wanted == port || (wanted.is_none() && ports == Ports::AnyIfUnnamed);
    claims
        .get(name)?
        .iter()
        .find(|(wanted, _)| fits(*wanted))
        .map(|(_, origin)| *origin)
}

fn claim(claims: &mut Claims, host: &str, origin: usize) -> Result<(), OriginMapError> {
    let Ok(parsed) = HostName::parse(host) else {
        return Err(OriginMapError::BadHost {
            host: host.to_owned(),
        });
    };
    let ports = claims.entry(parsed.name.into_owned()).or_default();
    if ports.iter().any(|(port, _)| *port == parsed.port) {
        return Err(OriginMapError::Claimed {
            host: host.to_owned(),
        });
    }
    ports.push((parsed.port, origin));
    Ok(())
}

/// In single-origin mode a name said twice means the same both times.
fn claim_again(claims: &mut Claims, host: &str) -> Result<(), OriginMapError> {
    match claim(claims, host, 0) {
        Err(OriginMapError::Claimed { .. }) => Ok(()),
        other => other,
    }
}

/// A host from outside as a fact of an error, bounded.
fn excerpt(host: &str) -> Box<str> {
    host.chars().take(256).collect::<String>().into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::aws::PassOnly;
    use crate::s3::error_xml::ErrorCode;
    use crate::s3::origin_config::{CustomOrigin, SingleOrigin};
    use crate::s3::route::{HostStyle, OriginId, OriginSel};

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn several() -> OriginMap {
        let minio = CustomOrigin {
            name: "minio".to_owned(),
            hosts: strings(&["minio.local:9000", "10.0.0.5:9000"]),
            domains: strings(&["minio.local:9000"]),
        };
        let other = CustomOrigin {
            name: "other".to_owned(),
            hosts: strings(&["minio.local:9001", "deep.minio.local:9000"]),
            domains: strings(&["r2.example", "deep.minio.local:9000"]),
        };
        OriginMap::new(OriginMapConfig {
            single_origin: None,
            aws: true,
            custom: vec![minio, other],
        })
        .expect("a map")
    }

    fn single() -> OriginMap {
        let single_origin = SingleOrigin {
            authority: "store.test:9000".to_owned(),
            hosts: strings(&["alias.test", "pinned.test:7000"]),
            domains: strings(&["buckets.test"]),
        };
        OriginMap::new(OriginMapConfig {
            single_origin: Some(single_origin),
            aws: true,
            custom: vec![],
        })
        .expect("a map")
    }

    /// (origin id, bucket or access point) as text.
    fn identity(map: &OriginMap, host: &str) -> Option<(String, String)> {
        let route = map.resolve(host).ok()?;
        let mut id = Vec::new();
        route.origin_id().write_into(&mut id);
        let bucket = match route.style() {
            HostStyle::Path => "",
            HostStyle::Virtual { bucket } => bucket,
            HostStyle::AccessPoint { name } => name,
        };
        Some((String::from_utf8(id).expect("text"), bucket.to_owned()))
    }

    /// Reference 2A.1 and 2B.40.
    #[test]
    fn all_spellings_of_an_aws_bucket_are_one_identity() {
        let map = several();
        for host in [
            "b.s3.amazonaws.com",
            "B.S3.Amazonaws.COM",
            "b.s3.amazonaws.com.",
            "b.s3.amazonaws.com:80",
            "b.s3.amazonaws.com:443",
            "b.s3.us-west-2.amazonaws.com",
            "b.s3-us-west-2.amazonaws.com",
            "b.s3.dualstack.us-west-2.amazonaws.com",
            "b.s3-fips.us-west-2.amazonaws.com",
            "b.s3-fips.dualstack.us-west-2.amazonaws.com",
            "b.s3-accelerate.amazonaws.com",
            "b.s3-accelerate.dualstack.amazonaws.com",
            "b.bucket.vpce-1a2b3c4d-5e6f.s3.us-west-2.vpce.amazonaws.com",
        ] {
            assert_eq!(
                identity(&map, host),
                Some(("aws".to_owned(), "b".to_owned())),
                "{host}"
            );
        }
    }

    #[test]
    fn partitions_of_aws_are_separate_stores() {
        let map = several();
        let id = |host| identity(&map, host).expect(host).0;
        assert_eq!(id("b.s3.us-east-1.amazonaws.com"), "aws");
        assert_eq!(id("b.s3.us-gov-west-1.amazonaws.com"), "aws-us-gov");
        assert_eq!(id("b.s3.cn-north-1.amazonaws.com.cn"), "aws-cn");
        assert_eq!(id("b.s3.eusc-de-east-1.amazonaws.eu"), "aws-eusc");
    }

    /// Reference 2B.41 and 2B.54.
    #[test]
    fn an_access_point_is_never_a_bucket() {
        let map = several();
        let name = "p-123456789012".to_owned();
        let point = identity(
            &map,
            "p-123456789012.s3-accesspoint.us-east-1.amazonaws.com",
        );
        assert_eq!(point, Some(("aws-ap:us-east-1".to_owned(), name.clone())));
        let fips = "p-123456789012.s3-accesspoint-fips.dualstack.us-east-1.amazonaws.com";
        assert_eq!(identity(&map, fips), point);
        let elsewhere = "p-123456789012.s3-accesspoint.us-east-2.amazonaws.com";
        assert_ne!(identity(&map, elsewhere), point);
        let bucket = identity(&map, "p-123456789012.s3.us-east-1.amazonaws.com");
        assert_eq!(bucket, Some(("aws".to_owned(), name)));
        let alias = identity(&map, "m4l1.accesspoint.s3-global.amazonaws.com");
        assert_eq!(alias, Some(("aws-mrap:aws".to_owned(), "m4l1".to_owned())));
    }

    /// Reference 2A.1 and 2B.45.
    #[test]
    fn custom_origins_are_told_apart_by_host_and_port() {
        let map = several();
        let pair = |id: &str, bucket: &str| Some((id.to_owned(), bucket.to_owned()));
        assert_eq!(identity(&map, "minio.local:9000"), pair("custom:minio", ""));
        assert_eq!(identity(&map, "10.0.0.5:9000"), pair("custom:minio", ""));
        assert_eq!(identity(&map, "MINIO.local:9001"), pair("custom:other", ""));
        assert_eq!(
            identity(&map, "a.b.minio.local:9000"),
            pair("custom:minio", "a.b")
        );
        assert_eq!(identity(&map, "b.r2.example"), pair("custom:other", "b"));
        assert_eq!(
            identity(&map, "deep.minio.local:9000"),
            pair("custom:other", "")
        );
        assert_eq!(
            identity(&map, "b.deep.minio.local:9000"),
            pair("custom:other", "b")
        );
        assert_eq!(
            map.resolve("b.r2.example").map(|route| route.origin()),
            Ok(OriginSel::Custom(1))
        );
    }

    #[test]
    fn a_host_that_leads_nowhere_is_access_denied() {
        let map = several();
        for host in [
            "example.com",
            "s3.amazonaws.com.evil.example",
            "evils3.amazonaws.com",
            "s3.amazonaws.com:8080",
            "minio.local",
            "minio.local:9002",
            "evilminio.local:9000",
            "r2.example",
            "10.0.0.5",
            "169.254.169.254",
            "localhost",
            "[::1]",
        ] {
            let error = map.resolve(host).expect_err(host);
            assert_eq!(error, RouteError::NotAllowed { host: host.into() });
            assert_eq!(error.code(), ErrorCode::AccessDenied);
        }
    }

    #[test]
    fn aws_is_refused_where_it_is_not_allowed() {
        let map = OriginMap::new(OriginMapConfig::default()).expect("a map");
        assert!(matches!(
            map.resolve("b.s3.amazonaws.com"),
            Err(RouteError::NotAllowed { .. })
        ));
    }

    #[test]
    fn a_missing_or_malformed_host_is_a_bad_request() {
        let map = several();
        assert_eq!(map.resolve_request(None, None), Err(RouteError::Missing));
        assert_eq!(map.resolve(""), Err(RouteError::Missing));
        assert_eq!(RouteError::Missing.code(), ErrorCode::MissingHostHeader);
        for host in [
            "a b",
            "user@minio.local:9000",
            "minio.local:9000,evil",
            "a..s3.amazonaws.com",
        ] {
            let error = map.resolve(host).expect_err(host);
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{host}");
        }
    }

    #[test]
    fn single_origin_takes_every_host_and_conflates_none() {
        let map = single();
        let pair = |id: &str, bucket: &str| Some((id.to_owned(), bucket.to_owned()));
        for host in [
            "127.0.0.1:8080",
            "10.1.2.3",
            "[::1]:8080",
            "localhost",
            "LOCALHOST:8080",
            "store.test:9000",
            "alias.test",
            "alias.test:8080",
            "pinned.test:7000",
        ] {
            assert_eq!(identity(&map, host), pair("origin", ""), "{host}");
        }
        assert_eq!(identity(&map, "b.buckets.test:8080"), pair("origin", "b"));
        assert_eq!(
            identity(&map, "Elsewhere.test"),
            pair("host:elsewhere.test", "")
        );
        assert_eq!(
            identity(&map, "elsewhere.test:80"),
            pair("host:elsewhere.test", "")
        );
        assert_eq!(
            identity(&map, "elsewhere.test:81"),
            pair("host:elsewhere.test:81", "")
        );
        assert_eq!(identity(&map, "pinned.test"), pair("host:pinned.test", ""));
        assert_eq!(
            identity(&map, "buckets.test"),
            pair("host:buckets.test", "")
        );
        assert_eq!(
            identity(&map, "b.s3.amazonaws.com"),
            pair("host:b.s3.amazonaws.com", "")
        );
    }

    /// Reference 4.2 and 4.3: clients on the CRT send absolute-form with an explicit port 80.
    #[test]
    fn an_authority_that_agrees_with_the_host_is_accepted() {
        let map = several();
        for (authority, host) in [
            (
                "b.s3.us-east-1.amazonaws.com:80",
                "b.s3.us-east-1.amazonaws.com",
            ),
            (
                "B.s3.us-east-1.amazonaws.com",
                "b.s3.us-east-1.amazonaws.com.",
            ),
            ("s3.amazonaws.com", "s3.us-west-2.amazonaws.com"),
            ("10.0.0.5:9000", "minio.local:9000"),
        ] {
            let route = map
                .resolve_request(Some(authority), Some(host))
                .expect(host);
            let parsed = HostName::parse(host).expect(host);
            assert_eq!(
                route.name(),
                parsed.name,
                "the signed host is the one that counts"
            );
        }
    }

    /// Reference 4.3 and 4.33.
    #[test]
    fn an_authority_that_leads_elsewhere_than_the_host_is_an_error() {
        let map = several();
        for (authority, host) in [
            ("a.s3.amazonaws.com", "b.s3.amazonaws.com"),
            ("s3.amazonaws.com", "b.s3.amazonaws.com"),
            ("minio.local:9000", "minio.local:9001"),
            ("minio.local:9000", "s3.amazonaws.com"),
            (
                "s3.us-gov-west-1.amazonaws.com",
                "s3.us-west-1.amazonaws.com",
            ),
        ] {
            let error = map
                .resolve_request(Some(authority), Some(host))
                .expect_err(host);
            let want = RouteError::Disagree {
                authority: authority.into(),
                host: host.into(),
            };
            assert_eq!(error, want);
            assert_eq!(error.code(), ErrorCode::InvalidRequest);
        }
        assert!(matches!(
            map.resolve_request(Some("evil.example"), Some("s3.amazonaws.com")),
            Err(RouteError::NotAllowed { .. })
        ));
    }

    /// Reference 4.34.
    #[test]
    fn a_dotted_bucket_is_dialled_at_its_endpoint() {
        let map = several();
        let dialled = |host: &str| map.resolve(host).expect("a route").dial_name().to_owned();
        assert_eq!(
            dialled("a.b.s3.eu-west-1.amazonaws.com"),
            "s3.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            dialled("ab.s3.eu-west-1.amazonaws.com:443"),
            "ab.s3.eu-west-1.amazonaws.com"
        );
        assert_eq!(
            dialled("s3.eu-west-1.amazonaws.com"),
            "s3.eu-west-1.amazonaws.com"
        );
        let outpost = "p-123456789012.op-0123.s3-outposts.us-east-1.amazonaws.com";
        assert_eq!(dialled(outpost), outpost);
    }

    #[test]
    fn pass_only_endpoints_are_marked() {
        let map = several();
        let express = "b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com";
        let route = map.resolve(express).expect("a route");
        assert_eq!(route.pass_only(), Some(PassOnly::Express));
        assert_eq!(
            map.resolve("b.s3.amazonaws.com")
                .expect("a route")
                .pass_only(),
            None
        );
    }

    #[test]
    fn a_contradicting_map_is_refused() {
        let custom = |name: &str, host: &str| CustomOrigin {
            name: name.to_owned(),
            hosts: strings(&[host]),
            domains: vec![],
        };
        let build = |custom| {
            OriginMap::new(OriginMapConfig {
                single_origin: None,
                aws: true,
                custom,
            })
        };
        assert!(matches!(
            build(vec![custom("a", "h:1"), custom("b", "H.:1")]),
            Err(OriginMapError::Claimed { .. })
        ));
        assert!(matches!(
            build(vec![custom("a", "h:1"), custom("a", "h:2")]),
            Err(OriginMapError::BadName { .. })
        ));
        assert!(matches!(
            build(vec![custom("a", "*.h")]),
            Err(OriginMapError::BadHost { .. })
        ));
        assert!(matches!(
            build(vec![custom("", "h")]),
            Err(OriginMapError::BadName { .. })
        ));
        assert!(build(vec![custom("a", "h:1"), custom("b", "h:2")]).is_ok());
    }

    #[test]
    fn routes_of_ids_do_not_depend_on_the_form_of_the_host() {
        let map = several();
        let route = map.resolve("s3.amazonaws.com").expect("a route");
        assert_eq!(
            route.origin_id(),
            OriginId::Aws(crate::s3::aws::Partition::Commercial)
        );
        assert_eq!(route.origin(), OriginSel::Aws);
        assert_eq!(route.port(), None);
    }
}

//! Origins as the settings name them: where hosts lead, whom to dial, and how TLS with each is.
//!
//! Called by `boot`. Files are read here, so only at start.

use std::sync::Arc;

use crate::config::{OriginUrl, Scheme, Settings, TlsVersion};
use crate::s3::{
    CustomOrigin, Destinations, HostMap, MappedHost, OriginMap, OriginMapConfig, SingleOrigin,
};
use crate::shard::Routes;
use crate::upstream::{Endpoint, Origin, Overrides, TlsConfig, TlsProfile, TlsRoots, TlsVersions};

use super::ServerError;

/// Where hosts lead.
pub(super) fn routes(settings: &Settings) -> Result<Routes, ServerError> {
    let single = settings.routing.origin.as_ref();
    let map = OriginMap::new(OriginMapConfig {
        single_origin: single.map(|url| SingleOrigin {
            authority: url.authority(),
            hosts: settings.routing.hosts.clone(),
            domains: settings.routing.domains.clone(),
        }),
        aws: settings.routing.aws,
        custom: settings.origins.iter().map(custom_origin).collect(),
    })?;
    let named = settings.origins.iter();
    Ok(Routes {
        hosts: host_map(settings, &map)?,
        map,
        single: single.map(|url| origin(url, &settings.routing.fallback)),
        custom: named
            .map(|named| origin(&named.url, &named.fallback))
            .collect(),
        destinations: Destinations {
            allow: settings.destinations.allow.clone(),
            ports: settings.destinations.ports.clone(),
        },
    })
}

fn host_map(settings: &Settings, map: &OriginMap) -> Result<HostMap, ServerError> {
    for host in &settings.hosts {
        map.resolve(&host.endpoint)
            .map_err(|source| ServerError::HostLeadsNowhere {
                name: host.name.clone(),
                source,
            })?;
    }
    let hosts = settings.hosts.iter().map(|host| {
        let mapped = MappedHost {
            endpoint: host.endpoint.clone(),
            bucket: host.bucket.clone(),
            prefix: host.prefix.clone(),
            index: host.index.clone(),
        };
        (host.name.clone(), mapped)
    });
    Ok(HostMap::new(hosts))
}

fn origin(first: &OriginUrl, fallbacks: &[OriginUrl]) -> Arc<Origin> {
    Arc::new(Origin {
        first: endpoint(first),
        fallbacks: fallbacks.iter().map(endpoint).collect(),
    })
}

fn endpoint(url: &OriginUrl) -> Arc<Endpoint> {
    Endpoint::new(url.scheme == Scheme::Https, &url.host, url.port)
}

fn custom_origin(origin: &crate::config::Origin) -> CustomOrigin {
    let mut hosts = origin.hosts.clone();
    if hosts.is_empty() && origin.domains.is_empty() {
        hosts.push(origin.url.authority());
    }
    CustomOrigin {
        name: origin.name.clone(),
        hosts,
        domains: origin.domains.clone(),
    }
}

/// Addresses that the operator gives to hosts.
pub(super) fn overrides(settings: &Settings) -> Arc<Overrides> {
    let endpoints = settings.endpoints.iter();
    let entries = endpoints.map(|one| (one.host.clone(), one.addresses.clone()));
    Arc::new(Overrides::new(entries))
}

/// How TLS with all of them is.
pub(super) fn tls(settings: &Settings) -> Result<Arc<TlsConfig>, ServerError> {
    let upstream = &settings.upstream;
    let profile = |ca_file: &Option<_>, name: &Option<String>, min: Option<_>, max: Option<_>| {
        let roots = ca_file.as_ref().or(upstream.ca_file.as_ref());
        let (min, max) = (
            min.unwrap_or(upstream.tls_min),
            max.unwrap_or(upstream.tls_max),
        );
        let speaks = |version| (min..=max).contains(&version);
        TlsProfile {
            roots: roots.cloned().map_or(TlsRoots::System, TlsRoots::File),
            versions: TlsVersions {
                tls12: speaks(TlsVersion::Tls12),
                tls13: speaks(TlsVersion::Tls13),
            },
            verify_name: name.as_deref().map(Into::into),
        }
    };
    let mut places = Vec::new();
    if let Some(single) = &settings.routing.origin {
        let name = &settings.routing.verify_name;
        if name.is_some() {
            places.push((endpoint(single), profile(&None, name, None, None)));
        }
    }
    for one in &settings.origins {
        let says_name = one.ca_file.is_some() || one.verify_name.is_some();
        if !says_name && one.tls_min.is_none() && one.tls_max.is_none() {
            // What an [[endpoint]] says of its host holds.
            continue;
        }
        let own = profile(&one.ca_file, &one.verify_name, one.tls_min, one.tls_max);
        let urls = std::iter::once(&one.url).chain(&one.fallback);
        places.extend(urls.map(|url| (endpoint(url), own.clone())));
    }
    let hosts = settings.endpoints.iter().map(|one| {
        let own = profile(&one.ca_file, &one.verify_name, one.tls_min, one.tls_max);
        (one.host.as_str(), own)
    });
    let hosts: Vec<_> = hosts.collect();
    let places: Vec<_> = places
        .iter()
        .map(|(place, own)| (&**place, own.clone()))
        .collect();
    let usual = profile(&None, &None, None, None);
    Ok(TlsConfig::with_profiles(&usual, &places, &hosts)?)
}

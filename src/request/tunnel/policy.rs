//! Where a tunnel leads: a host that a client names to the endpoint that is dialled, and what refuses it.
//!
//! Called by `tunnel`. Pure. An origin is meant by one of its hosts or domains, or by the very host and port of its URL; who means it is led to
//! its URL's host, as requests are. The address that the host has is checked when it is dialled (`server::guard`).

use std::sync::Arc;

use crate::metrics::{TunnelRefusal, UpstreamFailure};
use crate::s3::{Destination, NoDestination, OriginSel};
use crate::shard::Routes;
use crate::upstream::{Endpoint, Origin, UpstreamError};

/// What is dialled for `host`.
pub(super) fn endpoint(
    routes: &Routes,
    host: &str,
    port: Option<u16>,
) -> Result<Arc<Endpoint>, TunnelRefusal> {
    if let Some(endpoint) = port.and_then(|port| place(routes, host, port)) {
        return Ok(endpoint);
    }
    let found = routes.destinations.resolve(&routes.map, host, port);
    let origin = match found {
        Ok(Destination::Host { name, port }) => return Ok(Endpoint::new(true, &name, port)),
        Ok(Destination::Origin(OriginSel::Custom(index))) => routes.custom.get(index),
        Ok(Destination::Origin(OriginSel::Single)) => routes.single.as_ref(),
        Ok(Destination::Origin(OriginSel::Aws)) | Err(NoDestination::Host) => None,
        Err(NoDestination::Port) => return Err(TunnelRefusal::Port),
    };
    // TLS to an origin that speaks plain text would end in nothing.
    match origin.filter(|origin| origin.first.tls) {
        Some(origin) => Ok(Arc::clone(&origin.first)),
        None => Err(TunnelRefusal::Host),
    }
}

/// The place of an origin that has this very host and port.
fn place(routes: &Routes, host: &str, port: u16) -> Option<Arc<Endpoint>> {
    let bare = host.trim_matches(['[', ']']);
    let places = |origin: &'_ Arc<Origin>| {
        let mut places = std::iter::once(&origin.first).chain(&origin.fallbacks);
        let is_meant =
            |place: &&Arc<Endpoint>| place.port == port && place.host.eq_ignore_ascii_case(bare);
        places.find(is_meant).map(Arc::clone)
    };
    routes.single.iter().chain(&routes.custom).find_map(places)
}

/// `host:port`, for the log.
pub(super) fn destination(endpoint: &Endpoint) -> Box<str> {
    let text = endpoint.to_string();
    let text = text.split_once("://").map_or("", |(_, rest)| rest);
    text.into()
}

/// The label of a failed dial.
pub(super) fn reason(error: &UpstreamError) -> TunnelRefusal {
    if matches!(error, UpstreamError::AddressRefused { .. }) {
        return TunnelRefusal::Address;
    }
    if matches!(error, UpstreamError::ConnectTimeout { .. }) {
        return TunnelRefusal::Timeout;
    }
    match error.failure() {
        Some(UpstreamFailure::Dns) => TunnelRefusal::Dns,
        _ => TunnelRefusal::Connect,
    }
}

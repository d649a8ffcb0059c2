//! The doors: their sockets, and what they need to let clients in.
//!
//! Called by `boot`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::config::{ClientCertificate, Settings, TlsVersion};
use crate::io::listen::Listener;
use crate::metrics::Registry;
use crate::shard::doors::Doors;
use crate::shard::message::DoorKind;
use crate::tls::door::{DoorFiles, TlsDoor};

use super::ServerError;
use super::certificates::Certificates;

/// A door that is bound.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) kind: DoorKind,
}

/// Every door of the settings.
fn wanted(settings: &Settings) -> Vec<(DoorKind, SocketAddr)> {
    let listener = &settings.listener;
    let lists = [
        (DoorKind::Http, &listener.http),
        (DoorKind::Tls, &listener.tls),
    ];
    let doors = lists
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |address| (kind, *address)));
    doors.collect()
}

/// Binds every door and the admin address.
pub(super) fn bind(settings: &Settings) -> Result<(Vec<Door>, TcpListener), ServerError> {
    let congestion = settings.tcp.congestion.as_deref().unwrap_or_default();
    let mut doors = Vec::new();
    for (kind, address) in wanted(settings) {
        let listener = Listener::bind(address, settings.listener.backlog, congestion)
            .map_err(|source| ServerError::Bind { address, source })?;
        let listener = Arc::new(listener);
        doors.push(Door { listener, kind });
    }
    let address = settings.admin.listen;
    let admin =
        TcpListener::bind(address).map_err(|source| ServerError::Bind { address, source })?;
    Ok((doors, admin))
}

/// Who may come in, and the TLS doors' certificate, if there are such doors, with what watches its files.
pub(super) fn entry(
    settings: &Settings,
    registry: &Arc<Registry>,
) -> Result<(Doors, Option<Certificates>), ServerError> {
    let listener = &settings.listener;
    let tls = &settings.tls;
    let mut doors = Doors {
        http_allow: listener.http_allow.clone(),
        tls_allow: listener.tls_allow.clone(),
        balancers: listener.proxy_protocol_from.clone(),
        tls: None,
        handshake_timeout_ms: tls.handshake_timeout_ms,
    };
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        return Ok((doors, None));
    };
    if listener.tls.is_empty() {
        return Ok((doors, None));
    }
    let (door, text, not_after) = TlsDoor::open(DoorFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: tls.client_ca_file.clone(),
        client_optional: tls.client_certificate == ClientCertificate::Optional,
        tls12: tls.min_version == TlsVersion::V12,
    })?;
    doors.tls = Some(Arc::clone(&door));
    let registry = Arc::clone(registry);
    let certificates = Certificates::new(door, text, not_after, registry);
    Ok((doors, Some(certificates)))
}

//! The doors: their sockets, and what they need to let clients in.
//!
//! Called by `boot`.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::config::{ClientCertificate, Settings, TlsVersion};
use crate::io::inherit::{self, HANDOVER};
use crate::io::listen::{Listener, local_address};
use crate::metrics::Registry;
use crate::shard::doors::Doors;
use crate::shard::message::DoorKind;
use crate::tls::door::{DoorFiles, TlsDoor};

use super::ServerError;
use super::boot::resource;
use super::certificates::Certificates;
use super::handover::Predecessor;

/// What the admin address is called among passed sockets.
pub(super) const ADMIN: &str = "admin";
/// What follows a name whose socket somebody else goes on with after us: systemd.
pub(super) const KEPT: &str = ".kept";

/// A door that is bound.
pub(super) struct Door {
    pub(super) listener: Arc<Listener>,
    pub(super) kind: DoorKind,
}

impl Door {
    /// What it is called among passed sockets.
    pub(super) fn name(&self) -> &'static str {
        self.kind.text()
    }
}

/// The admin address's socket, to pass on.
pub(super) struct AdminSocket {
    pub(super) fd: OwnedFd,
    /// Somebody else goes on with it after us.
    pub(super) kept: bool,
}

impl AdminSocket {
    pub(super) fn of(listener: &TcpListener, kept: bool) -> Result<Self, ServerError> {
        let copied = listener.try_clone();
        let copied = copied.map_err(resource("no descriptor for the admin address"))?;
        let fd = copied.into();
        Ok(Self { fd, kept })
    }
}

/// All sockets.
pub(super) struct Bound {
    pub(super) doors: Vec<Door>,
    pub(super) admin: TcpListener,
    /// Whether somebody else goes on with that after us.
    pub(super) admin_kept: bool,
    pub(super) predecessor: Option<Predecessor>,
}

/// A socket that was passed.
struct Socket {
    name: String,
    kept: bool,
    address: SocketAddr,
    fd: OwnedFd,
}

/// What was passed to this process.
#[derive(Default)]
pub(super) struct Inheritance {
    sockets: Vec<Socket>,
    predecessor: Option<Predecessor>,
}

impl Inheritance {
    /// Takes it; nothing the second time.
    pub(super) fn take() -> Result<Self, ServerError> {
        let passed =
            inherit::take().map_err(resource("a descriptor that was passed is not there"))?;
        let (between, sockets): (Vec<_>, Vec<_>) = passed
            .into_iter()
            .partition(|passed| passed.name == HANDOVER);
        let predecessor = between.into_iter().next();
        let predecessor = predecessor.map(|passed| Predecessor::new(passed.fd));
        // What systemd passes, systemd keeps.
        let by_systemd = predecessor.is_none();
        let sockets = sockets.into_iter().map(|passed| {
            let address = local_address(&passed.fd).map_err(|source| ServerError::Passed {
                name: passed.name.clone(),
                source,
            })?;
            let short = passed.name.strip_suffix(KEPT);
            Ok(Socket {
                kept: by_systemd || short.is_some(),
                name: short.unwrap_or(&passed.name).to_owned(),
                address,
                fd: passed.fd,
            })
        });
        Ok(Self {
            sockets: sockets.collect::<Result<_, ServerError>>()?,
            predecessor,
        })
    }

    /// The socket for an address of the settings: of this name, or of no name of ours. Port 0 takes any.
    fn at(&mut self, name: &str, wanted: SocketAddr) -> Option<Socket> {
        let fits = |socket: &Socket| {
            let address = socket.address;
            let same = address == wanted || (wanted.port() == 0 && address.ip() == wanted.ip());
            same && (socket.name == name || !is_ours(&socket.name))
        };
        let found = self.sockets.iter().position(fits)?;
        Some(self.sockets.swap_remove(found))
    }

    /// Whether somebody who keeps them says which sockets are of this name; then the settings do not.
    fn names(&self, name: &str) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|socket| socket.kept && socket.name == name)
    }

    fn kept(&mut self, name: &str) -> Vec<Socket> {
        let (kept, others) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|socket| socket.kept && socket.name == name);
        self.sockets = others;
        kept
    }
}

fn is_ours(name: &str) -> bool {
    name == ADMIN || KINDS.iter().any(|kind| kind.text() == name)
}

const KINDS: [DoorKind; 3] = [DoorKind::Http, DoorKind::Tls, DoorKind::Tunnel];

fn wanted(settings: &Settings, kind: DoorKind) -> &[SocketAddr] {
    match kind {
        DoorKind::Http => &settings.listener.http,
        DoorKind::Tls => &settings.listener.tls,
        DoorKind::Tunnel => &settings.listener.tunnel,
    }
}

/// Binds every door and the admin address, or takes their sockets where they were passed.
pub(super) fn bind(
    settings: &Settings,
    mut inheritance: Inheritance,
) -> Result<Bound, ServerError> {
    let congestion = settings.tcp.congestion.as_deref().unwrap_or_default();
    let adopt = |socket: Socket| {
        let name = format!("{} at {}", socket.name, socket.address);
        Listener::adopt(socket.fd, socket.kept, congestion)
            .map_err(|source| ServerError::Passed { name, source })
    };
    let mut doors = Vec::new();
    for kind in KINDS {
        let name = kind.text();
        let mut listeners = Vec::new();
        if inheritance.names(name) {
            for socket in inheritance.kept(name) {
                listeners.push(adopt(socket)?);
            }
        } else {
            for &address in wanted(settings, kind) {
                let bind = || {
                    Listener::bind(address, settings.listener.backlog, congestion)
                        .map_err(|source| ServerError::Bind { address, source })
                };
                let passed = inheritance.at(name, address);
                listeners.push(passed.map_or_else(bind, adopt)?);
            }
        }
        let listeners = listeners.into_iter().map(Arc::new);
        doors.extend(listeners.map(|listener| Door { listener, kind }));
    }
    let address = settings.admin.listen;
    let mut named = inheritance.kept(ADMIN).into_iter();
    let first = named.next();
    inheritance.sockets.extend(named);
    let passed = first.or_else(|| inheritance.at(ADMIN, address));
    let admin_kept = passed.as_ref().is_some_and(|socket| socket.kept);
    let admin = match passed {
        Some(socket) => TcpListener::from(socket.fd),
        None => {
            TcpListener::bind(address).map_err(|source| ServerError::Bind { address, source })?
        }
    };
    for socket in std::mem::take(&mut inheritance.sockets) {
        let Socket {
            name,
            kept,
            address,
            ..
        } = socket;
        if kept {
            return Err(ServerError::NoDoor { name, address });
        }
        tracing::warn!(name, %address, "a socket that was passed is no door of the settings, and is closed");
    }
    let predecessor = inheritance.predecessor;
    Ok(Bound {
        doors,
        admin,
        admin_kept,
        predecessor,
    })
}

/// Who may come in, and the TLS doors' certificate, if there are such doors, with what watches its files.
pub(super) fn entry(
    settings: &Settings,
    bound: &[Door],
    registry: &Arc<Registry>,
) -> Result<(Doors, Option<Certificates>), ServerError> {
    let listener = &settings.listener;
    let tls = &settings.tls;
    let mut doors = Doors {
        http_allow: listener.http_allow.clone(),
        tls_allow: listener.tls_allow.clone(),
        tunnel_allow: listener.tunnel_allow.clone(),
        balancers: listener.proxy_protocol_from.clone(),
        tls: None,
        handshake_timeout_ms: tls.handshake_timeout_ms,
    };
    if !bound.iter().any(|door| door.kind == DoorKind::Tls) {
        return Ok((doors, None));
    }
    let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) else {
        // Settings with such doors are checked; this one was passed.
        return Err(ServerError::NoCertificate);
    };
    let (door, text, not_after) = TlsDoor::open(DoorFiles {
        cert: cert.clone(),
        key: key.clone(),
        client_ca: tls.client_ca_file.clone(),
        client_optional: tls.client_certificate == ClientCertificate::Optional,
        tls12: tls.min_version == TlsVersion::Tls12,
    })?;
    doors.tls = Some(Arc::clone(&door));
    let registry = Arc::clone(registry);
    let certificates = Certificates::new(door, text, not_after, registry);
    Ok((doors, Some(certificates)))
}

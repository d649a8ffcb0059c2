//! One connection of a tunnel door: the TLS hello is read, and everything goes to the host that it names.
//!
//! Called by `connection::start`. The hello is kept as it came and sent on as it came. A client that is refused is told so by a TLS alert.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::clock::{self, Moment};
use crate::io::Socket;
use crate::io::watchdog::OnExpiry;
use crate::metrics::{Close, Counter, Refusal, TunnelDoor, TunnelRefusal};
use crate::request::tunnel::{self, Asked, Near};
use crate::shard::Shard;
use crate::tls::hello::{Alert, Hello, NoHello};

use super::connection::linger;

/// The longest hello, its records' headers and what came right behind it included. With the largest key shares in use it has two to three KiB.
const HELLO_BYTES_MAX: usize = 32 << 10;
/// Room offered to each receive.
const PIECE_BYTES: usize = 4 << 10;

/// Serves the connection to its end.
pub(super) async fn serve(
    shard: &Rc<Shard>,
    socket: &Socket,
    peer: SocketAddr,
    over_limit: bool,
) -> Close {
    let begun = Moment::now();
    let came = (peer, begun);
    if over_limit {
        shard
            .metrics()
            .count(Counter::ConnectionsRefused(Refusal::Connections));
        tunnel::refused_unnamed(shard, TunnelDoor::Sni, came, TunnelRefusal::Busy);
        return refuse(socket, Alert::InternalError).await;
    }
    let mut bytes = Vec::new();
    let name = match hello(shard, socket, &mut bytes).await {
        Ok(name) => name,
        Err(no) => {
            tunnel::refused_unnamed(shard, TunnelDoor::Sni, came, no.reason);
            return match no.reason {
                TunnelRefusal::ClientGone => Close::ClientGone,
                TunnelRefusal::HelloTimeout => {
                    refuse(socket, no.alert).await;
                    Close::HeadTimeout
                }
                _ => {
                    refuse(socket, no.alert).await;
                    Close::Malformed
                }
            };
        }
    };
    let asked = Asked {
        door: TunnelDoor::Sni,
        client: peer,
        begun,
        host: &name,
        port: None,
    };
    match tunnel::open(shard, asked).await {
        Ok(tunnel) => {
            let session = None;
            closed(tunnel.run(shard, Near { socket, session }, bytes).await)
        }
        Err(refused) => refuse(socket, alert(refused.reason)).await,
    }
}

/// How a tunnel's connection closes, the tunnel being over.
pub(super) fn closed(has_ended: bool) -> Close {
    match has_ended {
        true => Close::Client,
        false => Close::ResponseCut,
    }
}

/// Reads the hello into `bytes`, and what has come with it.
async fn hello(
    shard: &Rc<Shard>,
    socket: &Socket,
    bytes: &mut Vec<u8>,
) -> Result<Box<str>, NoHello> {
    let no = |reason| NoHello {
        reason,
        alert: Alert::DecodeError,
    };
    let mut hello = Hello::default();
    let deadline_ms = clock::now_ms() + shard.policy().tunnels.hello_timeout_ms;
    socket.arm(deadline_ms, OnExpiry::StopReceiving);
    loop {
        let had = bytes.len();
        bytes.resize(had + PIECE_BYTES, 0);
        let came = socket.try_recv(&mut bytes[had..]);
        bytes.truncate(had + came.as_ref().map_or(0, |came| came.unwrap_or(0)));
        match came {
            _ if socket.expired() => return Err(no(TunnelRefusal::HelloTimeout)),
            Ok(Some(0)) | Err(_) => return Err(no(TunnelRefusal::ClientGone)),
            Ok(None) => socket
                .readable()
                .await
                .map_err(|_| no(TunnelRefusal::ClientGone))?,
            Ok(Some(_)) => {
                if let Some(name) = hello.read(&bytes[had..])? {
                    socket.disarm();
                    return Ok(name);
                }
                if bytes.len() > HELLO_BYTES_MAX {
                    return Err(no(TunnelRefusal::HelloTooLarge));
                }
            }
        }
    }
}

fn alert(reason: TunnelRefusal) -> Alert {
    match reason {
        TunnelRefusal::Host | TunnelRefusal::Port | TunnelRefusal::Address => {
            Alert::UnrecognizedName
        }
        _ => Alert::InternalError,
    }
}

/// Tells the client why, and closes.
async fn refuse(socket: &Socket, alert: Alert) -> Close {
    let _ = socket.try_send(&[std::io::IoSlice::new(&alert.record())], false);
    linger(socket).await;
    Close::Refused
}

//! From an accepted connection to a client: for whom a balancer asks, whether they may come in, and the TLS handshake.
//!
//! Called by `connection` first of all. What waits here is bounded in time, in bytes and, for handshakes, in number.

use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::clock;
use crate::io::Socket;
use crate::io::watchdog::OnExpiry;
use crate::metrics::{Close, Counter, Gauge, Refusal, TlsHandshake};
use crate::request::client::Client;
use crate::shard::Shard;
use crate::shard::message::{Accepted, DoorKind};
use crate::tls::{ShakeError, TlsServer};

use super::proxy_header::{Header, V1_BYTES_MAX, V2_REST_BYTES_MAX, parse};

/// Handshakes that one shard has under way at a time; each keeps some 40 KiB.
const HANDSHAKES_MAX: usize = 2048;

/// What a client of plain HTTP is told at the TLS door.
const PLAIN_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 45\r\nConnection: close\r\n\r\nThis door speaks HTTPS: use https:// for it.\n";

/// A connection that is not served, and why.
pub struct NotServed(pub Close);

/// What a connection is, behind its door.
pub enum Arrived {
    /// One that makes requests.
    Client(Client),
    /// One that begins a tunnel, and the client's address.
    Tunnel(Socket, SocketAddr),
}

/// Takes over a connection.
///
/// # Errors
/// It is not to be served, or has gone; it has been counted why.
pub async fn client(shard: &Rc<Shard>, accepted: Accepted) -> Result<Arrived, NotServed> {
    let doors = &shard.world.doors;
    let socket = Socket::from_fd(accepted.fd, &shard.watchdog).map_err(|error| {
        tracing::debug!(%error, "a connection was gone before it was served");
        NotServed(Close::Error)
    })?;
    let mut address = accepted.peer;
    if doors.is_balancer(address.ip()) {
        let deadline_ms = clock::now_ms() + shard.policy().head_timeout_ms;
        socket.arm(deadline_ms, OnExpiry::Cut);
        let named = Box::pin(take_proxy_header(&socket)).await;
        socket.disarm();
        match named {
            Ok(named) => address = named.unwrap_or(address),
            Err(words) => {
                tracing::debug!(balancer = %address, words, "a balancer's connection is closed");
                return Err(refused(shard, Refusal::ProxyHeader));
            }
        }
    }
    if !doors.admits(accepted.door, address.ip()) {
        socket.reset_on_close();
        return Err(refused(shard, Refusal::Network));
    }
    match accepted.door {
        DoorKind::Http => Ok(Arrived::Client(Client::new(socket, address, shard))),
        DoorKind::Tls => {
            let client = Box::pin(shake(shard, socket, address)).await?;
            Ok(Arrived::Client(client))
        }
        DoorKind::Tunnel => Ok(Arrived::Tunnel(socket, address)),
    }
}

fn refused(shard: &Shard, reason: Refusal) -> NotServed {
    shard.metrics().count(Counter::ConnectionsRefused(reason));
    NotServed(Close::Refused)
}

/// Takes the PROXY header, and not a byte more, that `socket` must begin with. `None`: the balancer asks for itself. The caller bounds the time.
///
/// # Errors
/// No header, or none that holds.
async fn take_proxy_header(socket: &Socket) -> Result<Option<SocketAddr>, &'static str> {
    let mut taken = Vec::new();
    let mut room = [0u8; 256];
    loop {
        if taken.len() > V2_REST_BYTES_MAX + V1_BYTES_MAX {
            return Err("a PROXY header without end");
        }
        let seen = match socket.peek_into(&mut room) {
            Ok(Some(0)) | Err(_) => return Err("it ended before its PROXY header"),
            Ok(Some(seen)) => seen,
            Ok(None) => {
                let waited = socket.readable().await;
                waited.map_err(|_| "the connection is lost")?;
                continue;
            }
        };
        let old = taken.len();
        taken.extend_from_slice(&room[..seen]);
        let (bytes, client) = match parse(&taken) {
            Header::Incomplete => (taken.len(), None),
            Header::Whole { bytes, client } => (bytes, Some(client)),
            Header::Malformed => return Err("its PROXY header is missing or malformed"),
        };
        // What was seen is there: it is taken at once, the header's part of it alone.
        match socket.try_recv(&mut room[..bytes - old]) {
            Ok(Some(received)) if received == bytes - old => {}
            _ => return Err("the connection is lost"),
        }
        if let Some(client) = client {
            return Ok(client);
        }
    }
}

async fn shake(
    shard: &Rc<Shard>,
    socket: Socket,
    address: SocketAddr,
) -> Result<Client, NotServed> {
    let metrics = shard.metrics();
    let under_way = shard.handshakes.get();
    if under_way >= HANDSHAKES_MAX {
        metrics.count(Counter::TlsHandshakes(TlsHandshake::Busy));
        return Err(NotServed(Close::Refused));
    }
    shard.handshakes.set(under_way + 1);
    metrics.gauge_add(Gauge::TlsHandshakesInFlight, 1);
    let deadline_ms = clock::now_ms() + shard.world.doors.handshake_timeout_ms;
    socket.arm(deadline_ms, OnExpiry::Cut);
    let shaken = session(shard, &socket).await;
    let in_time = !socket.expired();
    socket.disarm();
    metrics.gauge_add(Gauge::TlsHandshakesInFlight, -1);
    shard.handshakes.set(shard.handshakes.get() - 1);
    match shaken {
        Ok(tls) => {
            let result = match tls.is_resumed() {
                true => TlsHandshake::Resumed,
                false => TlsHandshake::Full,
            };
            metrics.count(Counter::TlsHandshakes(result));
            Ok(Client::new(socket, address, shard).with_tls(tls))
        }
        Err(error) => {
            let reason = match in_time {
                true => error.reason,
                false => TlsHandshake::Timeout,
            };
            metrics.count(Counter::TlsHandshakes(reason));
            tracing::debug!(client = %address, words = error.words, "a TLS handshake failed");
            let close = match reason {
                TlsHandshake::Timeout => Close::HeadTimeout,
                TlsHandshake::Closed => Close::ClientGone,
                _ => Close::Malformed,
            };
            if close == Close::Malformed {
                super::connection::linger(&socket).await;
            }
            Err(NotServed(close))
        }
    }
}

async fn session(shard: &Rc<Shard>, socket: &Socket) -> Result<Box<TlsServer>, ShakeError> {
    let failed = |reason, words: &str| ShakeError {
        reason,
        words: words.to_owned(),
    };
    let Some(door) = &shard.world.doors.tls else {
        return Err(failed(TlsHandshake::Protocol, "there is no TLS here"));
    };
    let mut first = [0u8; 1];
    let seen = loop {
        match socket.peek_into(&mut first) {
            Ok(None) => {}
            seen => break seen,
        }
        let waited = socket.readable().await;
        waited.map_err(|error| failed(TlsHandshake::Closed, &error.to_string()))?;
    };
    match seen {
        // A record of TLS begins with its type, which is no letter.
        Ok(Some(1)) if first[0].is_ascii_alphabetic() => {
            // Whether or not the client still takes it, the connection closes.
            let _ = socket.try_send(&[std::io::IoSlice::new(PLAIN_ANSWER)], false);
            Err(failed(TlsHandshake::PlainHttp, "it spoke plain HTTP"))
        }
        Ok(Some(1)) => TlsServer::shake(door.config(), socket, &shard.tls_scratch).await,
        _ => Err(failed(TlsHandshake::Closed, "the client left")),
    }
}

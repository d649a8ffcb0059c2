//! One client connection from its arrival to its end; of one that makes requests, the loop: receive a head, serve it, again, until one side has had
//! enough.
//!
//! Called by the shard's dispatcher for each accepted connection, as a task of its own. What arrives is `arrive`'s to say, tunnels are `tunnel`'s.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::base::clock;
use crate::io::watchdog::OnExpiry;
use crate::io::{Socket, spawn};
use crate::metrics::{Close, Counter, Gauge, Malformed, Refusal};
use crate::request::client::Gone;
use crate::request::failure::Failure;
use crate::request::receive::{self, Received};
use crate::request::{self, Connection, End};
use crate::shard::Shard;
use crate::shard::message::Accepted;

use super::arrive::{self, Arrived, NotServed};
use super::tunnel;

/// Bytes and time spent on taking out what a client still sends after its last answer, so that the close does not reset that answer away.
const LINGER_BYTES: usize = 1 << 20;
const LINGER_MS: u64 = 2000;

/// Starts serving a connection.
pub fn start(shard: Rc<Shard>, accepted: Accepted) {
    spawn(async move {
        shard.metrics().count(Counter::ConnectionsAccepted);
        shard.metrics().gauge_add(Gauge::ConnectionsOpen, 1);
        let over_limit = accepted.over_limit;
        let why = match arrive::client(&shard, accepted).await {
            Ok(Arrived::Tunnel(socket, peer)) => {
                Box::pin(tunnel::serve(&shard, &socket, peer, over_limit)).await
            }
            Ok(Arrived::Client(client)) => {
                let mut connection = Connection::new(client);
                let why = serve(&shard, &mut connection, over_limit).await;
                // What is not whole must not end as if it were.
                if !matches!(
                    why,
                    Close::ResponseCut | Close::SlowClient | Close::ClientGone
                ) {
                    connection.client.end().await;
                }
                why
            }
            Err(NotServed(why)) => why,
        };
        shard.metrics().count(Counter::ConnectionsClosed(why));
        shard.metrics().gauge_add(Gauge::ConnectionsOpen, -1);
        shard.world.shards[shard.id]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
    });
}

async fn serve(shard: &Rc<Shard>, connection: &mut Connection, over_limit: bool) -> Close {
    if over_limit {
        shard
            .metrics()
            .count(Counter::ConnectionsRefused(Refusal::Connections));
        request::refuse(
            shard,
            connection,
            &Failure::slow_down("too many connections"),
        )
        .await;
        farewell(connection).await;
        return Close::Refused;
    }
    loop {
        let world = &shard.world;
        if world.draining.load(Ordering::Relaxed)
            && connection.input.is_empty()
            && !world.leaving.load(Ordering::Relaxed)
        {
            return Close::Drain;
        }
        match receive::head(shard, connection).await {
            Received::Head => {}
            none => return Box::pin(without_head(shard, connection, none)).await,
        }
        match request::serve(shard, connection).await {
            End::KeepAlive => {}
            End::Close => {
                farewell(connection).await;
                return Close::Client;
            }
            End::Cut => {
                connection.client.cut();
                return Close::ResponseCut;
            }
            End::Tunnel => {
                let Some(tunnel) = connection.tunnel.take() else {
                    return Close::Error;
                };
                connection.give_buffers_back();
                let first = std::mem::take(&mut connection.input);
                let near = connection.client.near();
                return tunnel::closed(Box::pin(tunnel.run(shard, near, first)).await);
            }
            End::Gone(Gone::Left) => return Close::ClientGone,
            End::Gone(Gone::Slow) => {
                connection.client.cut();
                return Close::SlowClient;
            }
        }
    }
}

/// No request came, or none that can be served.
#[cold]
async fn without_head(shard: &Rc<Shard>, connection: &mut Connection, none: Received) -> Close {
    let malformed = |what| shard.metrics().count(Counter::RequestsMalformed(what));
    match none {
        Received::Head | Received::Closed => Close::Client,
        Received::Idle => Close::Idle,
        Received::Left => {
            malformed(Malformed::Truncated);
            Close::ClientGone
        }
        Received::HeadTimeout => {
            request::refuse(shard, connection, &Failure::head_timeout()).await;
            farewell(connection).await;
            Close::HeadTimeout
        }
        Received::Tls => {
            malformed(Malformed::Tls);
            linger(&connection.client.socket).await;
            Close::Malformed
        }
        Received::Refused(error) => {
            request::refuse_head(shard, connection, &error).await;
            farewell(connection).await;
            Close::Malformed
        }
    }
}

async fn farewell(connection: &mut Connection) {
    connection.client.end().await;
    linger(&connection.client.socket).await;
}

/// Ends our side and takes out, within bounds, what the client still sends.
pub(super) async fn linger(socket: &Socket) {
    socket.shutdown_send();
    socket.arm(clock::now_ms() + LINGER_MS, OnExpiry::Cut);
    let mut sink = [0u8; 4096];
    let mut taken = 0;
    while taken < LINGER_BYTES {
        match socket.try_recv(&mut sink) {
            Ok(Some(0)) | Err(_) => return,
            Ok(Some(bytes)) => taken += bytes,
            Ok(None) => {
                if socket.readable().await.is_err() || socket.expired() {
                    return;
                }
            }
        }
    }
}

//! What is said of a tunnel when it has ended, or was refused: a metric and one line of the access log.
//!
//! Called by `tunnel`.

use crate::access_log::TunnelRecord;
use crate::base::clock::Moment;
use crate::metrics::{Counter, TunnelEnd, TunnelRefusal, TunnelWay};
use crate::shard::Shard;

use super::{Asked, Tunnel};

pub(super) fn ended(shard: &Shard, tunnel: &Tunnel, end: TunnelEnd) {
    shard.metrics().count(Counter::TunnelsClosed(end));
    if !shard.logs {
        return;
    }
    let sent = |way: TunnelWay| tunnel.sent[way as usize].get();
    shard.log.borrow_mut().record_tunnel(&TunnelRecord {
        time_unix_ms: shard.wall().unix_ms(tunnel.begun),
        client: tunnel.client,
        door: tunnel.door.text(),
        destination: tunnel.destination.as_bytes(),
        address: Some(tunnel.passage.address),
        bytes_sent: sent(TunnelWay::ToClient),
        bytes_received: sent(TunnelWay::ToOrigin),
        end: end.text(),
        duration_us: Moment::now().since_ns(tunnel.begun) / 1000,
        error: None,
    });
}

pub(super) fn refused(shard: &Shard, asked: Asked<'_>, reason: TunnelRefusal) {
    shard.metrics().count(Counter::TunnelsRefused(reason));
    if !shard.logs {
        return;
    }
    let destination = match asked.port {
        Some(port) => format!("{}:{port}", asked.host),
        None => asked.host.to_owned(),
    };
    shard.log.borrow_mut().record_tunnel(&TunnelRecord {
        time_unix_ms: shard.wall().unix_ms(asked.begun),
        client: asked.client,
        door: asked.door.text(),
        destination: destination.as_bytes(),
        address: None,
        bytes_sent: 0,
        bytes_received: 0,
        end: "refused",
        duration_us: Moment::now().since_ns(asked.begun) / 1000,
        error: Some(reason.text()),
    });
}

//! One thread per door: takes connections and gives each to the shard that has the fewest.
//!
//! Called by `server`. A thread of its own that waits for its socket: `SO_REUSEPORT` hashing would leave few connections unevenly spread, and a
//! dropped accept of the runtime leaks descriptors. Over the limit, or with descriptors running out, a client is told so in its door's own words
//! instead of left waiting; at the TLS door, where there is no session yet, its connection closes.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::io::listen::{AcceptError, Listener, ReserveFd};
use crate::metrics::{Counter, Refusal};
use crate::s3::{ErrorCode, write_xml};
use crate::shard::message::{Accepted, DoorKind};
use crate::shard::{World, hand_over};
use crate::tls::hello::Alert;

/// Pause when descriptors have run out.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Reads of 4 KiB spent on what a refused client has sent: more than one request head.
const SINK_READS_MAX: usize = 16;

/// Accepts until the listener is shut down.
pub fn run(listener: &Listener, door: DoorKind, world: &Arc<World>) {
    let mut reserve = ReserveFd::new();
    loop {
        match listener.accept() {
            Ok((fd, peer)) => admit(
                world,
                Accepted {
                    fd,
                    peer,
                    door,
                    over_limit: false,
                },
            ),
            Err(AcceptError::Closed) => return,
            Err(AcceptError::Lost(error)) => {
                tracing::debug!(%error, "a connection was lost before it was taken")
            }
            Err(AcceptError::Exhausted(error)) => {
                tracing::warn!(%error, "no descriptor for a new connection: raise the limit (ulimit -n, LimitNOFILE=)");
                reserve.release();
                if let Ok((fd, _)) = listener.accept() {
                    refuse(world, (fd, door), Refusal::Descriptors);
                }
                reserve.retake();
                std::thread::park_timeout(BACK_OFF);
            }
        }
    }
}

fn admit(world: &Arc<World>, mut accepted: Accepted) {
    let counts = world
        .shards
        .iter()
        .map(|shard| shard.connections.load(Ordering::Relaxed));
    let total: usize = counts.clone().sum();
    let most = world.policy.connections_max;
    if total >= most + most / 8 + 16 {
        return refuse(world, (accepted.fd, accepted.door), Refusal::Connections);
    }
    // A little over the limit there is time to tell the client properly, on a shard.
    accepted.over_limit = total >= most;
    let Some((fewest, _)) = counts.enumerate().min_by_key(|(_, count)| *count) else {
        return;
    };
    world.shards[fewest]
        .connections
        .fetch_add(1, Ordering::Relaxed);
    if let Some(back) = hand_over(world, fewest, accepted) {
        world.shards[fewest]
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        refuse(world, (back.fd, back.door), Refusal::Connections);
    }
}

/// 503 `SlowDown`, which every SDK answers by trying again later, in plain HTTP; where a tunnel begins, an alert.
fn refuse(world: &World, (fd, door): (OwnedFd, DoorKind), reason: Refusal) {
    world
        .registry
        .global()
        .count(Counter::ConnectionsRefused(reason));
    match door {
        DoorKind::Http => {}
        // There is no session to say it in.
        DoorKind::Tls => return,
        DoorKind::Tunnel => return tell(fd, &Alert::InternalError.record()),
    }
    let mut body = Vec::new();
    write_xml(&mut body, ErrorCode::SlowDown, None, "", "0000000000000000");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nRetry-After: 5\r\nConnection: close\r\n\r\n",
        body.len()
    );
    tell(fd, &[head.as_bytes(), &body].concat());
}

fn tell(fd: OwnedFd, answer: &[u8]) {
    let mut stream = TcpStream::from(fd);
    let _ = stream.write_all(answer);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    // What the client has sent already is taken out, or the close would reset the answer away; one that sends without end does not
    // hold up the door.
    let mut sink = [0u8; 4096];
    for _ in 0..SINK_READS_MAX {
        if !matches!(std::io::Read::read(&mut stream, &mut sink), Ok(1..)) {
            return;
        }
    }
}

//! A tunnel: a client's own bytes to the destination that it names and back, inside the kernel. Nothing is read of them.
//!
//! Called by `listener::tunnel` (the name in a TLS hello) and by `connect` (`CONNECT`). policy (`policy`) → dial (`crate::upstream`) → what came
//! first is sent on → both ways until both have ended (`way`; `inside` for a client of the TLS door) → metrics and a line of the access
//! log (`ended`).
//!
//! Invariants: a tunnel that rests has two descriptors, one task and no pipe; a side that ends is ended on the other side, one that is
//! reset is reset there; a tunnel ends with its client's connection.

mod ended;
mod inside;
mod policy;
mod way;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::clock::{self, Moment};
use crate::base::places::Place;
use crate::io::watchdog::OnExpiry;
use crate::io::{Either, Socket, race};
use crate::metrics::{Counter, TunnelDoor, TunnelEnd, TunnelRefusal, TunnelWay};
use crate::shard::Shard;
use crate::shard::message::DoorKind;
use crate::tls::TlsServer;
use crate::upstream::{Passage, UpstreamError};

use inside::Inside;
use way::{Broken, Way};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// How it asked.
    pub door: TunnelDoor,
    /// Its address.
    pub client: SocketAddr,
    /// When it came.
    pub begun: Moment,
    /// The host that it names, an IPv6 address in brackets.
    pub host: &'a str,
    /// The port, if it names one.
    pub port: Option<u16>,
}

/// A tunnel that was not opened.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: TunnelRefusal,
    /// What failed, if it came to that.
    pub error: Option<UpstreamError>,
}

/// The client's end of a tunnel.
#[derive(Clone, Copy)]
pub struct Near<'c> {
    /// Its connection.
    pub socket: &'c Socket,
    /// Its session with us, if the tunnel is inside one.
    pub session: Option<&'c TlsServer>,
}

/// A tunnel that is open.
pub struct Tunnel {
    door: TunnelDoor,
    client: SocketAddr,
    begun: Moment,
    /// `host:port` as it is dialled.
    destination: Box<str>,
    passage: Passage,
    /// Bytes given to the destination, and to the client.
    sent: [Cell<u64>; 2],
    _place: Place,
}

/// Opens a tunnel: nothing is sent through it yet. A refusal is counted and logged here.
///
/// # Errors
/// Why it is refused.
pub async fn open(shard: &Rc<Shard>, asked: Asked<'_>) -> Result<Tunnel, Refused> {
    let opened = dial(shard, asked).await;
    match &opened {
        Ok(_) => shard.metrics().count(Counter::TunnelsOpened(asked.door)),
        Err(refused) => ended::refused(shard, asked, refused.reason),
    }
    opened
}

async fn dial(shard: &Rc<Shard>, asked: Asked<'_>) -> Result<Tunnel, Refused> {
    let refuse = |reason| Refused {
        reason,
        error: None,
    };
    let client = asked.client.ip();
    if !shard.world.doors.admits(DoorKind::Tunnel, client) {
        return Err(refuse(TunnelRefusal::Network));
    }
    let endpoint = policy::endpoint(&shard.world.routes, asked.host, asked.port).map_err(refuse)?;
    let place = shard.tunnels.take();
    let place = place.ok_or_else(|| refuse(TunnelRefusal::Busy))?;
    let dialled = shard.upstream.open_passage(&endpoint).await;
    let passage = dialled.map_err(|error| Refused {
        reason: policy::reason(&error),
        error: Some(error),
    })?;
    Ok(Tunnel {
        door: asked.door,
        client: asked.client,
        begun: asked.begun,
        destination: policy::destination(&endpoint),
        passage,
        sent: Default::default(),
        _place: place,
    })
}

/// Counts and logs a tunnel that was refused before it was known where to.
pub fn refused_unnamed(
    shard: &Shard,
    door: TunnelDoor,
    (client, begun): (SocketAddr, Moment),
    reason: TunnelRefusal,
) {
    let asked = Asked {
        door,
        client,
        begun,
        host: "",
        port: None,
    };
    ended::refused(shard, asked, reason);
}

impl Tunnel {
    /// Sends `first` to the destination, then everything both ways, until the tunnel has ended. The caller closes the client's connection, which
    /// is told of no end if this says that there was none: false.
    pub async fn run(self, shard: &Rc<Shard>, near: Near<'_>, first: Vec<u8>) -> bool {
        let client = near.socket;
        self.touch(shard, client);
        client.take_urgent_inline();
        self.passage.socket.take_urgent_inline();
        let end = {
            let mut expiry = std::pin::pin!(client.expiry());
            let mut moving = std::pin::pin!(self.both_ways(shard, near, first));
            match race(expiry.as_mut(), moving.as_mut()).await {
                Either::Second(Ok(())) => TunnelEnd::Closed,
                Either::Second(Err(end)) => end,
                Either::First(())
                    if shard
                        .world
                        .draining
                        .load(std::sync::atomic::Ordering::Relaxed) =>
                {
                    TunnelEnd::Drain
                }
                Either::First(()) => TunnelEnd::Idle,
            }
        };
        if end != TunnelEnd::Closed {
            // Who waits for more bytes must not take what is missing for the end.
            client.reset_on_close();
            self.passage.socket.reset_on_close();
        }
        ended::ended(shard, &self, end);
        end == TunnelEnd::Closed
    }

    /// The client left before anything went through.
    pub fn abandon(self, shard: &Shard) {
        self.passage.socket.reset_on_close();
        ended::ended(shard, &self, TunnelEnd::ClientReset);
    }

    async fn both_ways(
        &self,
        shard: &Rc<Shard>,
        near: Near<'_>,
        first: Vec<u8>,
    ) -> Result<(), TunnelEnd> {
        let (client, origin) = (near.socket, &self.passage.socket);
        let up = |bytes| self.moved(shard, client, TunnelWay::ToOrigin, bytes);
        let down = |bytes| self.moved(shard, client, TunnelWay::ToClient, bytes);
        if !first.is_empty() {
            let sent = origin.send_all(&first, false).await;
            sent.map_err(|_| TunnelEnd::OriginReset)?;
            up(first.len());
            drop(first);
        }
        let pipes = &shard.pipes;
        match near.session {
            None => {
                let up = Way {
                    from: client,
                    to: origin,
                    pipes,
                    moved: up,
                };
                let down = Way {
                    from: origin,
                    to: client,
                    pipes,
                    moved: down,
                };
                until_both_ended(up.pump(), down.pump()).await
            }
            Some(session) => {
                let inside = Inside {
                    client,
                    session,
                    origin,
                };
                until_both_ended(inside.up(up), inside.down(down)).await
            }
        }
    }

    fn moved(&self, shard: &Shard, client: &Socket, way: TunnelWay, bytes: usize) {
        let sent = &self.sent[way as usize];
        sent.set(sent.get() + bytes as u64);
        shard.metrics().add(Counter::TunnelBytes(way), bytes as u64);
        self.touch(shard, client);
    }

    /// Something moves: the idle time begins anew.
    fn touch(&self, shard: &Shard, client: &Socket) {
        let deadline_ms = clock::now_ms() + shard.policy().tunnels.idle_timeout_ms;
        client.arm(deadline_ms, OnExpiry::Tell);
    }
}

async fn until_both_ended(
    up: impl Future<Output = Result<(), Broken>>,
    down: impl Future<Output = Result<(), Broken>>,
) -> Result<(), TunnelEnd> {
    let mut up = std::pin::pin!(up);
    let mut down = std::pin::pin!(down);
    match race(up.as_mut(), down.as_mut()).await {
        Either::First(ended) => {
            ended.map_err(of_upload)?;
            down.await.map_err(of_download)
        }
        Either::Second(ended) => {
            ended.map_err(of_download)?;
            up.await.map_err(of_upload)
        }
    }
}

fn of_upload(broken: Broken) -> TunnelEnd {
    match broken {
        Broken::From => TunnelEnd::ClientReset,
        Broken::To => TunnelEnd::OriginReset,
        Broken::Here => TunnelEnd::Error,
    }
}

fn of_download(broken: Broken) -> TunnelEnd {
    match broken {
        Broken::From => TunnelEnd::OriginReset,
        Broken::To => TunnelEnd::ClientReset,
        Broken::Here => TunnelEnd::Error,
    }
}

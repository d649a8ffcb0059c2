//! What shards say to each other.
//!
//! Called by `Shard` (sends) and `dispatch` (receives). Every message is plain data or a handle that may change threads; a connection to an
//! origin travels as a detached response.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::cache::stamps::Stamp;
use crate::config::Rules;
use crate::disk::News;
use crate::fill::{Fetch, Outcome, Ready};
use crate::ram::StripeId;
use crate::ram::extent::Extent;
use crate::ram::readers::Readers;
use crate::upstream::{DetachedResponse, UpstreamError};

use super::asks::Ticket;
use super::purge::Order;
use super::staging::WriteNews;
use super::uploads::UploadAnswer;

/// What is spoken at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoorKind {
    /// Plain HTTP.
    Http,
    /// HTTP inside TLS, which ends here.
    Tls,
    /// TLS that is led on by the name in its hello.
    Tunnel,
}

impl DoorKind {
    /// Its word: in the access log, and among the names of passed sockets.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tunnel => "tunnel",
        }
    }
}

/// A client's connection on its way from an acceptor to its shard.
#[derive(Debug)]
pub struct Accepted {
    /// Connected, close-on-exec, non-blocking.
    pub fd: OwnedFd,
    /// The client.
    pub peer: SocketAddr,
    /// The door it came by.
    pub door: DoorKind,
    /// It is one too many: told so, and closed.
    pub over_limit: bool,
}

/// To a shard.
pub enum Message {
    /// A new client.
    Connection(Accepted),
    /// Bytes or a head that the index does not have; no ticket: fetched ahead, nobody waits.
    Fetch(Box<Fetch>, Option<Ticket>),
    /// Store a head; if the last is true, only in the place of an older one of the same version.
    Publish(Box<(Head, Stamp, bool)>, Ticket),
    /// Room for part of a stripe.
    Lease(StripeId, std::ops::Range<u32>, Arc<Readers>, Ticket),
    /// An extent has got all it will get.
    Settled(Arc<Extent>),
    /// Something about uploads.
    Write(WriteNews),
    /// Drop what is known of an object, and store nothing of it for so many milliseconds.
    Invalidate(u128, u64, Ticket),
    /// The same for every object of a bucket.
    InvalidateBucket(Arc<[u8]>, u64, Ticket),
    /// An operator wants something gone.
    Purge(Box<Order>),
    /// The head of an object, from disk.
    LoadHead(u128, Arc<[u8]>, Stamp, Ticket),
    /// The keeper of the cache directory, or the fold, has something to say.
    Disk(News),
    /// A write to an object goes to the origin; nothing of it on disk may be used any more.
    WriteBegins(u128, Ticket),
    /// That write is over.
    WriteOver(u128),
    /// Drop an object if this is still its version.
    VersionGone(u128, u128, Ticket),
    /// A fill has moved; wake its readers.
    Progress(usize),
    /// An answer to a ticket of this shard.
    Answer(Ticket, SentAnswer),
    /// The addresses of a name, or that there are none.
    Resolved(Arc<str>, Option<Arc<[IpAddr]>>),
    /// The settings have been read again.
    Rules(Arc<Rules>),
    /// The last request is over: flush the log, close what is pooled.
    Drain,
}

/// An answer within a shard.
pub enum Answer {
    /// To `Fetch`.
    Fetched(Outcome),
    /// To `Publish` and `LoadHead`.
    Published(Option<Arc<Head>>),
    /// To `Lease`.
    Leased(Lease),
    /// To `Upload`.
    Upload(UploadAnswer),
    /// To `Invalidate`, `InvalidateBucket` and `VersionGone`.
    Done,
}

/// An answer between shards.
pub enum SentAnswer {
    /// Just as within a shard.
    Ready(Ready),
    /// The origin's answer, with its connection.
    Relay(Box<DetachedResponse>),
    /// Ask the origin by yourself.
    Alone,
    /// No room in RAM now.
    Busy,
    /// The origin could not be asked.
    Failed(Arc<UpstreamError>),
    /// To `Publish`.
    Published(Option<Arc<Head>>),
    /// To `Lease`.
    Leased(Lease),
    /// To `Upload`.
    Upload(Box<UploadAnswer>),
    /// To `Invalidate`, `InvalidateBucket` and `VersionGone`.
    Done,
}

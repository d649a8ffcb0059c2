//! The body of an upload, kept beside its stream until the origin has said which version it became.
//!
//! Called by `request` for objects that a rule keeps when they are written. The bytes lie in extents of their owners like all others, under a
//! version of their own that no reader knows; when the origin has taken the whole body, the owners give them the version that it
//! named. Whatever goes wrong, they are given back and the upload goes on: what is not kept is fetched by whoever reads it. All uploads
//! together take no more than their share of the RAM.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::cache::Head;
use crate::cache::head::HeadParts;
use crate::cache::partition::Lease;
use crate::fill::{Peers, plan};
use crate::metrics::{Counter, Written};
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::readers::Readers;

use super::asks::Ticket;
use super::message::{Message, SentAnswer};
use super::peers::ShardPeers;
use super::uploads::UploadAsk;
use super::{Shard, routing};

/// What a shard says to another of uploads.
pub enum WriteNews {
    /// Bytes of an upload turned out to be of this version.
    Adopt(Vec<Weak<Extent>>, u128, Ticket),
    /// An upload came to nothing.
    Discard(Vec<Weak<Extent>>),
    /// A question about a multipart upload.
    Upload(Box<UploadAsk>, Ticket),
    /// The head of an object that was written is known now.
    Known(Arc<Head>),
}

/// Bytes of uploads that no reader can find yet.
#[derive(Debug, Default)]
pub struct Share {
    used: AtomicU64,
    bytes_max: u64,
}

impl Share {
    /// At most so many bytes at a time.
    #[must_use]
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicU64::new(0),
            bytes_max,
        })
    }

    /// Takes a part of it; `None` if it is not there.
    #[must_use]
    pub fn take(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let within = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, within)
            .ok()?;
        Some(Held {
            share: Arc::clone(self),
            bytes,
        })
    }

    /// What is taken of it.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Acquire)
    }
}

/// A part of the share, given back when dropped.
#[derive(Debug)]
pub struct Held {
    share: Arc<Share>,
    bytes: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// A whole body, kept; not yet to be found.
#[derive(Debug)]
pub struct Staged {
    /// Whose it is.
    pub object: u128,
    /// Offset of its first byte in the object.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
    extents: Vec<Weak<Extent>>,
    _held: Held,
}

#[cfg(test)]
impl Staged {
    /// Without a byte.
    pub(super) fn nothing(object: u128, start: u64, bytes: u64, held: Held) -> Self {
        Self {
            object,
            start,
            bytes,
            extents: Vec::new(),
            _held: held,
        }
    }
}

/// A body on its way.
pub struct Staging {
    peers: ShardPeers,
    object: u128,
    /// What the bytes are called until they have a name.
    version: u128,
    start: u64,
    at: u64,
    end: u64,
    writer: Option<ExtentWriter>,
    readers: Arc<Readers>,
    extents: Vec<Weak<Extent>>,
    held: Option<Held>,
}

impl Shard {
    /// Makes ready to keep `bytes` of an object that will lie at `start`; `None` if the share does not allow for them.
    #[must_use]
    pub fn stage(self: &Rc<Self>, object: u128, start: u64, bytes: u64) -> Option<Staging> {
        let Some(held) = self.world.share.take(bytes) else {
            self.metrics().count(Counter::Written(Written::NoRoom));
            return None;
        };
        let random = [self.prng.next_u64(), self.prng.next_u64()].map(u128::from);
        Some(Staging {
            peers: ShardPeers(Rc::clone(self)),
            object,
            version: random[0] << 64 | random[1],
            start,
            at: start,
            end: start + bytes,
            writer: None,
            readers: Readers::wanted_by(Weak::new()),
            extents: Vec::new(),
            held: Some(held),
        })
    }

    /// The origin has made `head`'s version of these bytes: whoever reads it finds them from now on. To be called when what was known of the
    /// object before has been dropped.
    pub async fn adopt(self: &Rc<Self>, staged: Vec<Staged>, head: HeadParts) {
        let Some(object) = staged.first().map(|staged| staged.object) else {
            return;
        };
        let stamp = self.world.stamps.now(object);
        let head = Head::sketch(object, head);
        let version = head.version();
        let extents = staged.iter().flat_map(|staged| &staged.extents);
        for (owner, extents) in self.by_owner(extents) {
            if owner == self.id {
                self.adopt_here(&extents, version);
                continue;
            }
            let (ticket, ask) = self.asks.open();
            self.post(
                owner,
                Message::Write(WriteNews::Adopt(extents, version, ticket)),
            );
            ask.await;
        }
        drop(staged);
        let known = ShardPeers(Rc::clone(self)).publish(head, stamp).await;
        self.metrics().count(Counter::Written(match known {
            Some(_) => Written::Kept,
            None => Written::Beaten,
        }));
    }

    /// What another shard says of uploads.
    pub(super) fn hear_of_write(self: &Rc<Self>, news: WriteNews) {
        match news {
            WriteNews::Adopt(extents, version, ticket) => {
                self.adopt_here(&extents, version);
                self.reply(ticket, SentAnswer::Done);
            }
            WriteNews::Discard(extents) => self.partition.borrow_mut().discard(&extents),
            WriteNews::Upload(ask, ticket) => {
                let answer = Box::new(self.hear_of_upload(*ask));
                self.reply(ticket, SentAnswer::Upload(answer));
            }
            WriteNews::Known(head) => self.keep_written(&head),
        }
    }

    fn adopt_here(&self, extents: &[Weak<Extent>], version: u128) {
        let bytes = self.partition.borrow_mut().adopt(extents, version);
        self.metrics().add(Counter::WrittenBytes, bytes);
    }

    /// Gives back what was kept of an upload that came to nothing.
    pub fn discard(self: &Rc<Self>, staged: Staged) {
        self.discard_extents(&staged.extents);
    }

    /// Those that are still there, by the shard that has them.
    fn by_owner<'e>(
        &self,
        extents: impl Iterator<Item = &'e Weak<Extent>>,
    ) -> BTreeMap<usize, Vec<Weak<Extent>>> {
        let mut owners = BTreeMap::<usize, Vec<_>>::new();
        for extent in extents {
            let Some(id) = extent.upgrade().map(|extent| extent.id()) else {
                continue;
            };
            let owner = routing::owner_of(id.object, id.index, self.world.shards.len());
            owners.entry(owner).or_default().push(Weak::clone(extent));
        }
        owners
    }

    fn discard_extents(self: &Rc<Self>, extents: &[Weak<Extent>]) {
        for (owner, extents) in self.by_owner(extents.iter()) {
            if owner == self.id {
                self.partition.borrow_mut().discard(&extents);
            } else {
                self.post(owner, Message::Write(WriteNews::Discard(extents)));
            }
        }
    }

    /// The first reader of an object that was written has learnt its head: what is in RAM may go to disk.
    pub(super) fn written_is_known(self: &Rc<Self>, head: &Arc<Head>) {
        if self.disk.is_none() {
            return;
        }
        for owner in 0..self.world.shards.len() {
            if owner == self.id {
                self.keep_written(head);
            } else {
                self.post(owner, Message::Write(WriteNews::Known(Arc::clone(head))));
            }
        }
    }

    /// Offers the bytes of a version that lie here to the disk.
    fn keep_written(&self, head: &Head) {
        let (shards, index) = (self.world.shards.len(), &self.world.shards[self.id].index);
        for window in plan::windows(0..head.total()) {
            if routing::owner_of(head.object(), window.index, shards) != self.id {
                continue;
            }
            let id = window.id(head.object(), head.version());
            let extents = index.with_extents(&id, |extents| extents.to_vec());
            for extent in extents.into_iter().flatten() {
                self.settled(&extent);
            }
        }
    }
}

impl Staging {
    /// Keeps the next bytes. False: no more will be kept, and what was is to be dropped with this.
    #[must_use]
    pub async fn write(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let Some(writer) = self.room().await else {
                return false;
            };
            let room = writer.room();
            let taken = room.len().min(bytes.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            writer.advance(taken, |_| {});
            let full = writer.remaining() == 0;
            bytes = &bytes[taken..];
            self.at += taken as u64;
            if full {
                self.settle();
            }
        }
        true
    }

    async fn room(&mut self) -> Option<&mut ExtentWriter> {
        if self.writer.is_none() {
            let window = plan::first_window(&(self.at..self.end))?;
            let id = window.id(self.object, self.version);
            let readers = Arc::clone(&self.readers);
            match self.peers.lease(id, window.range, readers).await {
                Lease::Granted(writer) => self.writer = Some(writer),
                Lease::Have(_) | Lease::NoRoom => {
                    let metrics = self.peers.metrics();
                    metrics.count(Counter::Written(Written::NoRoom));
                    return None;
                }
            }
        }
        self.writer.as_mut()
    }

    fn settle(&mut self) {
        if let Some(writer) = self.writer.take() {
            // Parts wait for their last one, and all for the origin's answer.
            writer.extent().keep_for_reader();
            self.extents.push(Arc::downgrade(writer.extent()));
            writer.finish(|_| {});
        }
    }

    /// All of the body, or `None` if some of it is missing.
    #[must_use]
    pub fn finish(mut self) -> Option<Staged> {
        if self.at < self.end {
            return None;
        }
        self.settle();
        Some(Staged {
            object: self.object,
            start: self.start,
            bytes: self.end - self.start,
            extents: std::mem::take(&mut self.extents),
            _held: self.held.take()?,
        })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.settle();
        let extents = std::mem::take(&mut self.extents);
        self.peers.0.discard_extents(&extents);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference 2E.100.
    #[test]
    fn a_share_is_never_exceeded_and_comes_back() {
        let share = Share::new(10);
        let held = share.take(6).expect("there is room");
        assert!(share.take(5).is_none() && share.take(u64::MAX).is_none());
        let rest = share.take(4).expect("there is room");
        assert_eq!(share.used(), 10);
        drop((held, rest));
        assert_eq!(share.used(), 0);
    }
}

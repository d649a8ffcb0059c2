//! The world's readers: those that look and go, those that hold on, and those that were sent bytes by reference and read them late.
//!
//! Called by `model`, step by step; plays the part of `request`.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;

use millrace::cache::Head;
use millrace::fill::plan::{self, Window};
use millrace::io::lend::{LEND_BYTES_MAX, Lender};
use millrace::ram::StripeId;
use millrace::ram::extent::Extent;
use millrace::ram::progress::FillState;
use millrace::ram::readers::Reading;

use super::judge::{judge_bytes, judge_head};
use super::{Interest, World};
use crate::objects::{Body, Wish, digest, key};

/// A part of an extent that somebody wants, and whose bytes it must be.
pub struct Pin {
    extent: Arc<Extent>,
    body: Body,
    upto: u32,
    from: u32,
    pub(super) reading: Option<Reading>,
}

/// Bytes sent by reference to a peer that has not read them; nothing pins them any more.
pub struct Peer {
    stream: TcpStream,
    body: Body,
    at: u64,
    bytes: usize,
}

impl World {
    pub(super) fn head(&self, object: usize) -> Option<Arc<Head>> {
        let index = self.partitions[self.head_owner(object)].index();
        assert!(
            index.head(digest(object), b"c/other").is_none(),
            "a head is found by its whole key"
        );
        let head = index.head(digest(object), &key(object));
        match (&head, self.reference.head(object)) {
            (Some(head), Some(known)) => judge_head(object, head, known),
            (None, None) => {}
            (Some(_), None) => panic!("a head of object {object} outlived its invalidation"),
            (None, Some(_)) => panic!("a head of object {object} got lost"),
        }
        head
    }

    /// The windows of a wish in what is known of an object now, with its bytes.
    fn windows(&self, object: usize, wish: Wish) -> Vec<(StripeId, Window, Body)> {
        let Some(head) = self.head(object) else {
            return Vec::new();
        };
        let body = self.reference.body(object, head.version());
        let windows = plan::windows(wish.within(head.total()));
        windows
            .map(|window| (window.id(digest(object), head.version()), window, body))
            .collect()
    }

    /// Reads all there is of a wish.
    pub fn read(&self, object: usize, wish: Wish, touch: bool) {
        for (id, window, body) in self.windows(object, wish) {
            let index = self.index(&id);
            let Range { start, end } = window.range;
            let (mut at, mut contiguous) = (start, start);
            while at < end {
                let Some(extent) = index.extent_at(&id, at) else {
                    at = index.gap_until(&id, at, end);
                    continue;
                };
                assert_eq!(extent.id(), id);
                let promised = extent.promised_end().min(end);
                assert!(extent.start() <= at && at < promised);
                judge_bytes(&extent, body, at..promised);
                if touch {
                    extent.touch();
                }
                if contiguous == at {
                    contiguous = promised;
                }
                at = promised;
            }
            let reach = index.reach(&id, start, end);
            assert_eq!(reach.end.min(end), contiguous, "how far the bytes go");
        }
    }

    /// A slow reader: pins what there is of a recent wish, follows what is being filled, and marks it as sent by reference if `lend`.
    pub fn hold(&mut self, recent: usize, shard: usize, lend: bool) {
        let Some(&(object, wish)) = self.recent.get(recent) else {
            return;
        };
        for (id, window, body) in self.windows(object, wish) {
            let found = self.index(&id).extent_at(&id, window.range.start);
            let Some(extent) = found else { continue };
            let filling = extent.progress().state() == FillState::Filling;
            let piece = extent.piece(window.range.start, window.range.end);
            if let Some(piece) = piece.filter(|piece| lend && piece.may_be_lent()) {
                let _ = piece.lend();
            }
            if filling {
                extent.progress().subscribe(shard);
                self.note_interest(&extent, shard);
            }
            self.pins.push(Pin {
                body,
                from: window.range.start,
                upto: extent.promised_end().min(window.range.end),
                reading: filling.then(|| extent.readers().join()),
                extent,
            });
        }
    }

    fn note_interest(&mut self, extent: &Arc<Extent>, shard: usize) {
        let known = self
            .interests
            .iter_mut()
            .find(|interest| Arc::ptr_eq(&interest.extent, extent));
        match known {
            Some(interest) => {
                interest.shards.insert(shard);
            }
            None => self.interests.push(Interest {
                extent: Arc::clone(extent),
                shards: BTreeSet::from([shard]),
            }),
        }
    }

    /// Sends what there is of a recent wish by reference, to a peer that does not read yet, and lets go of it at once.
    pub fn send(&mut self, recent: usize) {
        let Some(&(object, wish)) = self.recent.get(recent) else {
            return;
        };
        for (id, window, body) in self.windows(object, wish) {
            let at = window.range.start;
            let found = self.index(&id).extent_at(&id, at);
            let Some(extent) = found else { continue };
            let piece = extent.piece(at, window.range.end);
            let Some(piece) = piece.filter(|piece| piece.may_be_lent()) else {
                continue;
            };
            let address = self.listener.local_addr().expect("a port");
            let sender = TcpStream::connect(address).expect("loopback");
            let (stream, _) = self.listener.accept().expect("loopback");
            sender.set_nonblocking(true).expect("loopback");
            let sent = Lender::new().send(&sender, piece.lend(), LEND_BYTES_MAX);
            self.peers.push(Peer {
                stream,
                body,
                at: id.base() + u64::from(at),
                bytes: sent.expect("loopback").unwrap_or(0),
            });
        }
    }

    /// A slow reader is done.
    pub fn release(&mut self, which: usize) {
        if self.pins.is_empty() {
            return;
        }
        let pin = self.pins.swap_remove(which % self.pins.len());
        judge_bytes(&pin.extent, pin.body, pin.from..pin.upto);
    }

    /// A peer reads at last.
    pub fn receive(&mut self, which: usize) {
        if self.peers.is_empty() {
            return;
        }
        let mut peer = self.peers.swap_remove(which % self.peers.len());
        let mut bytes = Vec::with_capacity(peer.bytes);
        peer.stream.read_to_end(&mut bytes).expect("loopback");
        assert_eq!(bytes.len(), peer.bytes);
        assert!(peer.body.is(peer.at, &bytes), "queued bytes have changed");
    }
}

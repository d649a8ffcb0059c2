//! What must hold: of a head, of an extent's bytes, of the world after every step, and of its memory at the end.
//!
//! Called by the other files of the model. Every broken promise is a panic.

use std::ops::Range;
use std::sync::Arc;

use millrace::base::clock;
use millrace::cache::Head;
use millrace::cache::partition::{Lease, Partition};
use millrace::cache::read_map;
use millrace::ram::extent::{Extent, ExtentWriter};
use millrace::ram::progress::FillState;
use millrace::ram::{STRIPE_BYTES, StripeId};

use super::{End, Fill, Kept, World};
use crate::objects::{Body, OBJECTS, digest, key};
use crate::reference::Known;

pub fn judge_head(object: usize, head: &Head, known: &Known) {
    let lines = format!("x-fetch: {}\r\n", known.fetch);
    assert_eq!(head.lines(), lines.as_bytes(), "the head of the last fetch");
    assert_eq!(head.object(), digest(object));
    assert_eq!(head.version(), known.version.digest());
    assert_eq!(head.etag(), known.version.etag);
    assert_eq!(head.total(), known.version.total);
    assert_eq!(head.age_ms(known.fetch + 5), 5);
    assert_eq!(head.checksums_known(), known.checksums);
    assert!(head.checksum_lines().is_empty() != known.checksums);
    if known.checksums {
        assert!(head.checksum_lines()[19..].starts_with(&known.version.etag));
    }
}

/// What is there of a part of an extent: the right bytes, and once it is settled all that it promises.
pub fn judge_bytes(extent: &Extent, body: Body, part: Range<u32>) {
    let state = extent.progress().state();
    let end = part.end.min(extent.promised_end());
    let mut at = part.start;
    while let Some(piece) = extent.piece(at, part.end) {
        let absolute = extent.id().base() + u64::from(at);
        assert!(body.is(absolute, piece.bytes()), "a wrong byte");
        at += piece.bytes().len() as u32;
    }
    assert!(
        at >= end || state == FillState::Filling,
        "a byte is missing"
    );
}

impl World {
    pub fn check(&mut self) {
        for object in 0..OBJECTS {
            let index = self.partitions[self.head_owner(object)].index();
            let found = index.head(digest(object), &key(object));
            if found.is_none() && self.sizes.heads_max < OBJECTS {
                self.reference.evicted(object);
            }
            self.head(object);
        }
        for partition in &self.partitions {
            assert!(partition.used_bytes() <= self.sizes.ram_bytes, "the budget");
            assert!(partition.heads() <= self.sizes.heads_max);
            assert_eq!(partition.tally().lost, 0, "no slot was lost");
        }
        for flow in self.fills.iter().filter_map(Fill::flow) {
            let following = self
                .pins
                .iter()
                .filter_map(|pin| pin.reading.as_ref())
                .filter(|reading| reading.is_of(&flow.readers));
            assert_eq!(flow.readers.count() as usize, following.count());
            let Some(writer) = &flow.writer else { continue };
            let (id, start) = (writer.extent().id(), writer.extent().start());
            let found = self.index(&id).extent_at(&id, start);
            assert!(found.is_some(), "what is being filled is found");
        }
        let mut kept = std::mem::take(&mut self.kept);
        kept.retain(|kept| self.is_kept(kept));
        self.kept = kept;
    }

    /// False when it may have gone by now.
    fn is_kept(&self, kept: &Kept) -> bool {
        let partition = &self.partitions[self.owner(&kept.id)];
        if partition.tally().evicted != kept.evicted {
            return false;
        }
        let index = partition.index();
        let reach = index.reach(&kept.id, kept.range.start, kept.range.end);
        assert!(reach.end >= kept.range.end, "bytes went without eviction");
        let gap = index.gap_until(&kept.id, 0, kept.range.end);
        let begins_later = kept.range.start > 0 && !kept.range.is_empty();
        assert!(!begins_later || gap <= kept.range.start, "a gap is shorter");
        true
    }

    /// Ends everything: all memory is taken once more and overwritten, then every peer reads, and every slot comes home.
    pub fn close_down(mut self) {
        while !self.fills.is_empty() {
            self.end(0, End::Fail);
        }
        assert!(self.interests.is_empty());
        while !self.pins.is_empty() {
            self.release(0);
        }
        for partition in &mut self.partitions {
            overwrite(partition, self.sizes.ram_bytes);
        }
        while !self.peers.is_empty() {
            self.receive(0);
        }
        for partition in &mut self.partitions {
            come_home(partition);
        }
    }
}

/// How long memory may take to come home: a thread of another test that was stopped in the middle of a look holds reclamation up.
const WAIT_MS: u64 = 10_000;

/// Takes all memory of a partition, which takes that everything was let go, and writes to it.
pub fn overwrite(partition: &mut Partition, ram_bytes: u64) {
    let mut writers = Vec::new();
    let mut left = ram_bytes;
    while left > 0 {
        let id = StripeId {
            object: 99 << 64,
            version: 99,
            index: writers.len() as u32,
        };
        let bytes = left.min(STRIPE_BYTES);
        writers.push(lease_surely(partition, id, bytes as u32));
        left -= bytes;
    }
    assert_eq!(partition.used_bytes(), ram_bytes);
    for mut writer in writers {
        while writer.remaining() > 0 {
            let room = writer.room();
            room.fill(0xEE);
            let bytes = room.len();
            writer.advance(bytes, |_| panic!("nobody reads it"));
        }
        drop(writer);
    }
}

fn lease_surely(partition: &mut Partition, id: StripeId, bytes: u32) -> ExtentWriter {
    let until_ms = clock::now_ms() + WAIT_MS;
    while clock::now_ms() < until_ms {
        match partition.lease(id, 0..bytes, &Arc::default()) {
            Lease::Granted(writer) => return writer,
            Lease::Have(_) => panic!("nobody else has this object"),
            Lease::NoRoom => std::thread::yield_now(),
        }
    }
    panic!(
        "nothing is pinned, and yet there is no room for {bytes} bytes: {} used, {:?}",
        partition.used_bytes(),
        partition.tally()
    );
}

/// Everything is evicted by a last lease that is given back unused: no slot is out.
pub fn come_home(partition: &mut Partition) {
    let ram_bytes = partition.used_bytes();
    assert!(ram_bytes > 0);
    let mut extents = Vec::new();
    let mut left = ram_bytes;
    while left > 0 {
        let id = StripeId {
            object: 98 << 64,
            version: 98,
            index: extents.len() as u32,
        };
        let bytes = left.min(STRIPE_BYTES);
        let writer = lease_surely(partition, id, bytes as u32);
        extents.push(writer);
        left -= bytes;
    }
    for writer in extents {
        let extent = Arc::clone(writer.extent());
        writer.fail(|_| panic!("nobody reads it"));
        partition.settled(&extent);
    }
    let until_ms = clock::now_ms() + WAIT_MS;
    while clock::now_ms() < until_ms {
        read_map::free_retired();
        partition.collect();
        if partition.used_bytes() == 0 {
            return;
        }
        std::thread::yield_now();
    }
    panic!("{} bytes never came home", partition.used_bytes());
}

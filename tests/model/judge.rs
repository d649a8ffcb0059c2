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
        // What begins at zero may have come to hold it.
        let begins_later = kept.range.start > 0
            && !kept.range.is_empty()
            && index.extent_at(&kept.id, 0).is_none();
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
    let writers = take_all(partition, ram_bytes, 99);
    assert_eq!(partition.used_bytes() + partition.spent_bytes(), ram_bytes);
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

/// All that can be had. A page of a huge block that was sent by reference cannot be had while somebody has the other one.
fn take_all(partition: &mut Partition, ram_bytes: u64, object: u128) -> Vec<ExtentWriter> {
    let mut writers: Vec<ExtentWriter> = Vec::new();
    let mut left = ram_bytes;
    loop {
        let id = StripeId {
            object: object << 64,
            version: object,
            index: writers.len() as u32,
        };
        let wanted = |partition: &Partition| {
            let free = left.saturating_sub(partition.spent_bytes());
            free.min(STRIPE_BYTES) as u32
        };
        let Some(writer) = lease_surely(partition, id, wanted) else {
            return writers;
        };
        left -= u64::from(writer.remaining());
        writers.push(writer);
    }
}

/// `None` once nothing is wanted.
fn lease_surely(
    partition: &mut Partition,
    id: StripeId,
    wanted: impl Fn(&Partition) -> u32,
) -> Option<ExtentWriter> {
    let until_ms = clock::now_ms() + WAIT_MS;
    while clock::now_ms() < until_ms {
        let bytes = wanted(partition);
        if bytes == 0 {
            return None;
        }
        match partition.lease(id, 0..bytes, &Arc::default()) {
            Lease::Granted(writer) => return Some(writer),
            Lease::Have(_) => panic!("nobody else has this object"),
            Lease::NoRoom => std::thread::yield_now(),
        }
    }
    panic!(
        "nothing is pinned, and yet there is no room for {} bytes: {} used, {} spent, {:?}",
        wanted(partition),
        partition.used_bytes(),
        partition.spent_bytes(),
        partition.tally()
    );
}

/// Everything is evicted by a last lease that is given back unused: no slot is out.
pub fn come_home(partition: &mut Partition) {
    let ram_bytes = partition.used_bytes() + partition.spent_bytes();
    assert!(ram_bytes > 0);
    let extents = take_all(partition, ram_bytes, 98);
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

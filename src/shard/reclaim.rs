//! The shard's part of reclaim: says what of a segment is of use, moves what is worth it to another one, and forgets the rest.
//!
//! Called by `disk` (a segment is to go) and run as one task (looks at segments from time to time, so that the keeper knows which are
//! garbage). What goes and what stays is decided by `disk::reclaim`; here hits, heads and times are gathered for it.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::on_disk::{DiskExtent, DiskHead, Spot};
use crate::disk::format::BLOCK_BYTES;
use crate::disk::format::record::{Kind, Record};
use crate::disk::load;
use crate::disk::reclaim::{self, FREQUENCY_MAX, Sorted, Stream, Why};
use crate::disk::writer::{Item, Moved, Moving};
use crate::disk::{Ask, DiskError, Segment};
use crate::io::{breathe, sleep_ms};
use crate::metrics::{Counter, DiskWork};
use crate::ram::{STRIPE_BYTES, StripeId};

use super::disk::Disk;
use super::{Shard, routing};

/// Entries of the index that are looked at without a pause.
const CHUNK: usize = 256;
/// How often a record that is to be moved looks for room in the queue, and for how long.
const MOVE_MS: u64 = 5;
const MOVE_WAIT_MS: u64 = 2_000;
/// Stripes that are looked for when a head is to be moved.
const STRIPES_LOOKED_AT: u64 = 16;
/// How often it is seen which segments are to be looked at, and how many entries at most in one go.
const LOOK_MS: u64 = 1_000;
const LOOKS_MAX: usize = 64 * 1024;
/// How long a segment is not looked at again at most; one that is being written, where expired bytes are to go at once.
const LOOK_AGAIN_S: u32 = 60;
const LOOK_AT_OPEN_S: u32 = 2;

fn now_unix_s() -> u32 {
    (clock::unix_ms() / 1000) as u32
}

/// What became of a record that was to be moved.
enum Fate {
    /// It is on its way.
    Queued,
    /// It is not worth it, or not to be had.
    Goes,
    /// The disk is not up to it now.
    Stopped,
}

/// A record, and when it is of no use any more, in seconds since 1970.
struct Judged<R> {
    record: R,
    until_unix_s: u32,
}

impl Shard {
    /// Until when a head on disk is fresh.
    fn fresh_until(&self, head: &DiskHead) -> u32 {
        // An entry does not say whose it is: of several rules the most patient counts.
        let ttl_s = match self.rules.borrow().ttl_ms_longest() {
            // Nothing is fresh, so that age says nothing of what is of use.
            None => u64::MAX,
            Some(ttl_ms) => ttl_ms.div_ceil(1000),
        };
        head.confirmed_unix_s
            .saturating_add(u32::try_from(ttl_s).unwrap_or(u32::MAX))
    }

    /// Until when an extent on disk is of use: as long as the head of its object, if that is of the same version.
    fn useful_until(&self, extent: &DiskExtent) -> u32 {
        let shards = self.world.shards.iter();
        let mut heads = shards.filter_map(|shard| shard.index.on_disk.head_of(extent));
        match heads.next() {
            Some(head) if extent.is_of(&head) => self.fresh_until(&head),
            _ => 0,
        }
    }

    /// What this shard knows to be in a segment, gathered without keeping clients waiting.
    async fn in_segment(
        &self,
        segment: u32,
    ) -> (Vec<Judged<(u64, DiskExtent)>>, Vec<Judged<(u64, DiskHead)>>) {
        let names = self.partition.borrow().disk.names_in(segment);
        let (mut extents, mut heads) = (Vec::new(), Vec::new());
        for chunk in names.extents.chunks(CHUNK) {
            let from = extents.len();
            for &name in chunk {
                let partition = self.partition.borrow();
                partition.disk.extents_in(segment, name, |extent| {
                    extents.push(Judged {
                        record: (name, extent),
                        until_unix_s: 0,
                    });
                });
            }
            for judged in &mut extents[from..] {
                judged.until_unix_s = self.useful_until(&judged.record.1);
            }
            breathe().await;
        }
        for chunk in names.heads.chunks(CHUNK) {
            for &name in chunk {
                let head = self.partition.borrow().disk.head_in(segment, name);
                heads.extend(head.map(|head| Judged {
                    record: (name, head),
                    until_unix_s: self.fresh_until(&head),
                }));
            }
            breathe().await;
        }
        (extents, heads)
    }
}

/// Looks at segments whose time has come, until the process ends.
pub(super) async fn look_around(shard: Rc<Shard>) {
    let Some(disk) = &shard.disk else { return };
    loop {
        sleep_ms(LOOK_MS).await;
        // Before all journals are read, heads may be missing that are there.
        if disk.folding.get() {
            continue;
        }
        let due = shard.partition.borrow().disk.due(now_unix_s());
        let mut looks = 0;
        for segment in due {
            if looks >= LOOKS_MAX {
                break;
            }
            looks += look_at(&shard, disk, &segment).await;
        }
    }
}

/// Says how much of a segment is of no use, and when to look again; gives how many entries were seen.
async fn look_at(shard: &Shard, disk: &Disk, segment: &Arc<Segment>) -> usize {
    let (extents, heads) = shard.in_segment(segment.id).await;
    let extents = extents
        .iter()
        .map(|judged| (judged.until_unix_s, judged.record.1.spot));
    let heads = heads
        .iter()
        .map(|judged| (judged.until_unix_s, judged.record.1.spot));
    let mut records: Vec<(u32, u64)> = extents
        .chain(heads)
        .map(|(until, spot)| (until, spot.record_bytes()))
        .collect();
    let now_s = now_unix_s();
    let known: u64 = records.iter().map(|(_, bytes)| bytes).sum();
    let expired = records.iter().filter(|(until, _)| *until <= now_s);
    let useless: u64 = expired.map(|(_, bytes)| bytes).sum();
    let mut writers = disk.writers.iter();
    let open = writers.find(|writer| writer.is_writing(segment.id));
    let mut again_s = LOOK_AGAIN_S;
    if let Some(writer) = open.filter(|_| disk.active_expiry) {
        again_s = LOOK_AT_OPEN_S;
        if known > 0 && useless == known {
            writer.seal_idle(segment.id);
        }
    }
    // When it becomes garbage, and when nothing of it is left.
    records.sort_unstable();
    let (mut useful, mut next_s) = (known, now_s.saturating_add(again_s));
    let file_bytes = segment.account.file_bytes();
    for (until, bytes) in &records {
        useful -= bytes;
        let telling = useful == 0 || reclaim::is_garbage_of(useful, file_bytes);
        if telling && *until > now_s {
            next_s = next_s.min(*until);
        }
    }
    let next_s = next_s.max(now_s + 1);
    let index = &mut shard.partition.borrow_mut().disk;
    index.judged(segment.id, useless, next_s);
    records.len()
}

/// Moves what is worth it out of a segment that is to go, and forgets the rest.
pub(super) async fn segment(shard: Rc<Shard>, segment: Arc<Segment>, why: Why) {
    let Some(disk) = &shard.disk else { return };
    let (extents, heads) = shard.in_segment(segment.id).await;
    let now_s = now_unix_s();
    let folding = disk.folding.get();
    let useful = |until_s: u32| folding || until_s > now_s;
    let (extents, dead): (Vec<_>, Vec<_>) = extents
        .into_iter()
        .partition(|judged| useful(judged.until_unix_s));
    for Judged {
        record: (name, extent),
        ..
    } in dead
    {
        let _ = shard
            .partition
            .borrow_mut()
            .disk
            .remove_extent_at(name, extent.spot);
    }
    let sorted = sort_out(&shard, disk, (&segment, why), extents);
    for (name, extent) in sorted.go {
        if segment.stream() == Stream::Fresh && why == Why::Turn {
            disk.remember(&shard, name);
        }
        let _ = shard
            .partition
            .borrow_mut()
            .disk
            .remove_extent_at(name, extent.spot);
    }
    let stream = sorted.stream;
    for ((_, extent), left) in sorted.stay {
        if let Fate::Stopped = move_out(&shard, extent.spot, (stream, left), 0).await {
            break;
        }
    }
    for Judged {
        record: (name, head),
        until_unix_s,
    } in heads
    {
        if !useful(until_unix_s) {
            continue;
        }
        let confirmed_unix_ms = u64::from(head.confirmed_unix_s) * 1000;
        match move_out(&shard, head.spot, (stream, 0), confirmed_unix_ms).await {
            Fate::Queued => {}
            Fate::Goes => disk.remember(&shard, name),
            Fate::Stopped => break,
        }
    }
    let until_ms = clock::now_ms() + MOVE_WAIT_MS;
    while disk.moving.get() > 0 && clock::now_ms() < until_ms {
        sleep_ms(MOVE_MS).await;
    }
    shard.partition.borrow_mut().disk.remove_segment(segment.id);
    disk.door.forget(segment.id);
    shard.metrics().count(Counter::DiskReclaimed);
    let _ = disk.asks.send(Ask::Released(segment.id, shard.id));
}

impl Disk {
    fn remember(&self, shard: &Shard, name: u64) {
        let known = shard.partition.borrow().disk.extents();
        self.ghost.borrow_mut().remember(name, known);
    }
}

/// Which of the useful extents of a segment that goes stay. What was hit in RAM counts as hit on disk.
fn sort_out(
    shard: &Shard,
    disk: &Disk,
    (segment, why): (&Segment, Why),
    extents: Vec<Judged<(u64, DiskExtent)>>,
) -> Sorted<(u64, DiskExtent)> {
    let partition = shard.partition.borrow();
    let hits = |name: u64, extent: &DiskExtent| {
        let in_ram = u8::from(partition.take_ram_hit(name, extent));
        (extent.frequency + in_ram).min(FREQUENCY_MAX)
    };
    let records: Vec<_> = extents
        .into_iter()
        .map(
            |Judged {
                 record: (name, extent),
                 ..
             }| {
                let (bytes, hits) = (extent.spot.record_bytes(), hits(name, &extent));
                ((name, extent), bytes, hits)
            },
        )
        .collect();
    // A segment of an older process may hold what several shards know: each has its part of what may be written again.
    let all = segment.account.known_bytes().max(1);
    let ours = partition.disk.bytes_in(segment.id).min(all);
    let most = reclaim::again_bytes_max(why, disk.segment_bytes);
    let part = u128::from(most) * u128::from(ours) / u128::from(all);
    reclaim::sort_out(records, (segment.stream(), why), part as u64)
}

/// Whether there is anything on disk of the first stripes of a version.
fn has_bytes(shard: &Shard, id: StripeId, total: u64) -> bool {
    let stripes = total.div_ceil(STRIPE_BYTES).min(STRIPES_LOOKED_AT) as u32;
    (0..stripes).any(|index| {
        let owner = routing::owner_of(id.object, index, shard.world.shards.len());
        let stripe = StripeId { index, ..id };
        let on_disk = &shard.world.shards[owner].index.on_disk;
        on_disk.extent_at(&stripe, 0).is_some()
            || on_disk.gap_until(&stripe, 0, u32::MAX) < u32::MAX
    })
}

/// Queues a record to be written again.
async fn move_out(
    shard: &Rc<Shard>,
    spot: Spot,
    (stream, frequency): (Stream, u8),
    confirmed_unix_ms: u64,
) -> Fate {
    let Some(disk) = &shard.disk else {
        return Fate::Stopped;
    };
    let bytes = spot.record_blocks as usize * BLOCK_BYTES as usize;
    let look = |record: &Record<'_>| {
        let id = StripeId {
            object: record.object,
            version: record.version,
            index: record.stripe,
        };
        let moved = Moved {
            kind: record.kind,
            id,
            window: record.window.clone(),
            confirmed_unix_ms,
            from_segment: spot.segment,
            from_block: spot.block,
            header_blocks: spot.header_blocks,
            frequency,
        };
        // A head that moves is one of this instance from then on: one that older instances have invalidated must not.
        let instance = disk.door.segment(spot.segment).map(|from| from.instance);
        let is_true = |from| !disk.is_beaten(from, confirmed_unix_ms, record.key);
        let worth_it = record.kind == Kind::Extent
            || instance.is_some_and(is_true) && has_bytes(shard, id, record.total);
        worth_it.then_some(moved)
    };
    let read = load::whole(&disk.door, spot.segment, spot.offset(), bytes, look).await;
    let (moved, memory) = match read {
        Ok((Some(moved), memory)) => (moved, memory),
        Ok((None, _)) => return Fate::Goes,
        Err(error) => {
            shard.disk_failed(DiskWork::Read, &error);
            return match error {
                DiskError::Busy | DiskError::Late => Fate::Stopped,
                _ => Fate::Goes,
            };
        }
    };
    let writer = disk.writer(stream);
    let until_ms = clock::now_ms() + MOVE_WAIT_MS;
    while !writer.has_room(memory.len() as u64) && clock::now_ms() < until_ms {
        sleep_ms(MOVE_MS).await;
    }
    match writer.push(Item::Copy(moved, memory, Moving::one(&disk.moving))) {
        true => Fate::Queued,
        false => Fate::Stopped,
    }
}

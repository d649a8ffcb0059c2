//! The caches that are compared: millrace's two policies as the server drives them, LRU, and Belady's look into the future.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use millrace::base::prng::mix64;
use millrace::cache::eviction::{Resident, S3Fifo};
use millrace::disk::reclaim::{self, FREQUENCY_MAX, Ghost, Standing, Stream, Why};

/// A cache of a fixed number of bytes.
pub trait Cache {
    /// Reads an object, which is kept from then on if the cache likes; true if it was there.
    fn read(&mut self, object: u32, bytes: u64) -> bool;
    /// Bytes written again because they were worth it.
    fn again_bytes(&self) -> u64 {
        0
    }
}

/// The one that was read longest ago goes.
pub struct Lru {
    left_bytes: u64,
    turns: BTreeMap<u64, (u32, u64)>,
    known: HashMap<u32, u64>,
    now: u64,
}

impl Lru {
    pub fn new(bytes: u64) -> Self {
        Self {
            left_bytes: bytes,
            turns: BTreeMap::new(),
            known: HashMap::new(),
            now: 0,
        }
    }
}

impl Cache for Lru {
    fn read(&mut self, object: u32, bytes: u64) -> bool {
        self.now += 1;
        let turn = self.known.insert(object, self.now);
        if let Some(turn) = turn {
            self.turns.remove(&turn);
        } else {
            while self.left_bytes < bytes {
                let (_, (oldest, freed)) = self.turns.pop_first().expect("something is there");
                self.known.remove(&oldest);
                self.left_bytes += freed;
            }
            self.left_bytes -= bytes;
        }
        self.turns.insert(self.now, (object, bytes));
        turn.is_some()
    }
}

struct InRam {
    object: u32,
    bytes: u64,
    hits: Rc<Cell<u8>>,
}

impl Resident for InRam {
    fn frequency(&self) -> Option<u8> {
        Some(self.hits.get())
    }
    fn set_frequency(&self, frequency: u8) {
        self.hits.set(frequency);
    }
    fn busy(&self) -> bool {
        false
    }
}

/// What the RAM tier does: room is made first, then the new entry is queued.
pub struct Ram {
    left_bytes: u64,
    policy: S3Fifo<InRam>,
    known: HashMap<u32, Rc<Cell<u8>>>,
}

impl Ram {
    pub fn new(bytes: u64) -> Self {
        Self {
            left_bytes: bytes,
            policy: S3Fifo::default(),
            known: HashMap::new(),
        }
    }
}

impl Cache for Ram {
    fn read(&mut self, object: u32, bytes: u64) -> bool {
        if let Some(hits) = self.known.get(&object) {
            hits.set((hits.get() + 1).min(FREQUENCY_MAX));
            return true;
        }
        while self.left_bytes < bytes {
            let victim = self.policy.evict().expect("something is there");
            self.known.remove(&victim.object);
            self.left_bytes += victim.bytes;
        }
        self.left_bytes -= bytes;
        let hits: Rc<Cell<u8>> = Rc::default();
        self.known.insert(object, Rc::clone(&hits));
        let entry = InRam {
            object,
            bytes,
            hits,
        };
        self.policy.insert(entry, bytes, mix64(u64::from(object)));
        false
    }
}

struct Segment {
    stream: Stream,
    file_bytes: u64,
    end: u64,
    records: Vec<(u32, u64)>,
}

/// What the disk tier does with one shard's segments, of which there is a 32nd of the budget each. Blocks, headers, and the segments that are held free are
/// paid for out of the same bytes as everything else.
pub struct Log {
    budget_bytes: u64,
    segment_bytes: u64,
    used_bytes: u64,
    segments: BTreeMap<u32, Segment>,
    open: [Option<u32>; 2],
    known: HashMap<u32, (u32, u8)>,
    ghost: Ghost,
    again_bytes: u64,
    next: u32,
}

const BLOCK_BYTES: u64 = 4096;
const SEGMENTS: u64 = 32;

impl Log {
    pub fn new(bytes: u64) -> Self {
        Self {
            budget_bytes: bytes,
            // The largest object and its header fit.
            segment_bytes: (bytes / SEGMENTS).max(16 << 20),
            used_bytes: 0,
            segments: BTreeMap::new(),
            open: [None; 2],
            known: HashMap::new(),
            ghost: Ghost::default(),
            again_bytes: 0,
            next: 0,
        }
    }

    fn has_room(&self, held_segments: u64) -> bool {
        self.used_bytes + (held_segments + 1) * self.segment_bytes <= self.budget_bytes
    }

    /// Where a record finds room; what is written again may take the room that is held for it, and does without if that is gone.
    fn place(&mut self, stream: Stream, record_bytes: u64, again: bool) -> Option<u32> {
        loop {
            if let Some(open) = self.open[stream as usize] {
                let segment = self.segments.get_mut(&open)?;
                if self.segment_bytes - segment.end >= record_bytes {
                    return Some(open);
                }
                self.open[stream as usize] = None;
                self.used_bytes -= segment.file_bytes - segment.end;
                segment.file_bytes = segment.end;
            }
            if self.has_room(u64::from(!again)) {
                self.begin(stream);
            } else if again {
                return None;
            } else {
                self.reclaim();
            }
        }
    }

    fn begin(&mut self, stream: Stream) {
        self.used_bytes += self.segment_bytes;
        let segment = Segment {
            stream,
            file_bytes: self.segment_bytes,
            end: BLOCK_BYTES,
            records: Vec::new(),
        };
        self.segments.insert(self.next, segment);
        self.open[stream as usize] = Some(self.next);
        self.next += 1;
    }

    fn append(&mut self, id: u32, object: u32, record_bytes: u64, hits: u8) {
        let segment = self.segments.get_mut(&id).expect("it is open");
        segment.end += record_bytes;
        segment.records.push((object, record_bytes));
        self.known.insert(object, (id, hits));
    }

    fn live(&self, id: u32) -> impl Iterator<Item = (u32, u64, u8)> {
        self.segments[&id]
            .records
            .iter()
            .filter_map(move |&(object, bytes)| {
                let (segment, hits) = self.known.get(&object)?;
                (*segment == id).then_some((object, bytes, *hits))
            })
    }

    fn reclaim(&mut self) {
        let standing = |(&id, segment): (&u32, &Segment)| Standing {
            id,
            stream: segment.stream,
            bytes: segment.file_bytes,
            useful_bytes: self.live(id).map(|(_, bytes, _)| bytes).sum(),
        };
        let bytes_of = |stream| {
            let ours = self
                .segments
                .values()
                .filter(move |segment| segment.stream == stream);
            ours.map(|segment| segment.file_bytes).sum::<u64>()
        };
        let whole = self
            .segments
            .iter()
            .filter(|(id, _)| !self.open.contains(&Some(**id)));
        let victim = reclaim::victim(
            whole.map(standing),
            bytes_of(Stream::Fresh),
            self.budget_bytes,
        );
        let (id, why) = victim.expect("there is one that is not open");
        let records: Vec<_> = self.live(id).collect();
        let segment = self.segments.remove(&id).expect("it was chosen");
        let most_bytes = reclaim::again_bytes_max(why, segment.file_bytes);
        let bytes: HashMap<u32, u64> = segment.records.iter().copied().collect();
        let sorted = reclaim::sort_out(records, (segment.stream, why), most_bytes);
        let proven = self.known.len();
        for object in sorted.go {
            self.known.remove(&object);
            if segment.stream == Stream::Fresh && why == Why::Turn {
                self.ghost.remember(mix64(u64::from(object)), proven);
            }
        }
        for (object, left) in sorted.stay {
            let Some(id) = self.place(sorted.stream, bytes[&object], true) else {
                self.known.remove(&object);
                continue;
            };
            self.again_bytes += bytes[&object];
            self.append(id, object, bytes[&object], left);
        }
        // It goes only when what stays has been written.
        self.used_bytes -= segment.file_bytes;
    }
}

impl Cache for Log {
    fn read(&mut self, object: u32, bytes: u64) -> bool {
        if let Some((_, hits)) = self.known.get_mut(&object) {
            *hits = (*hits + 1).min(FREQUENCY_MAX);
            return true;
        }
        let record_bytes = (bytes + 256).next_multiple_of(BLOCK_BYTES);
        let stream = match self.ghost.recall(mix64(u64::from(object))) {
            true => Stream::Proven,
            false => Stream::Fresh,
        };
        let id = self
            .place(stream, record_bytes, false)
            .expect("reclaim makes room");
        self.append(id, object, record_bytes, 0);
        false
    }

    fn again_bytes(&self) -> u64 {
        self.again_bytes
    }
}

/// What is read again last goes, or is not kept in the first place. With equal sizes nothing does better; with sizes that differ, nobody knows
/// the best in reasonable time, and this is what it is usually approached by.
pub struct Belady {
    left_bytes: u64,
    /// The next request for the object that each request names.
    next_use: Vec<u32>,
    at: usize,
    order: BTreeSet<(u32, u32)>,
    known: HashMap<u32, (u32, u64)>,
}

impl Belady {
    pub fn new(bytes: u64, requests: &[u32]) -> Self {
        let mut next_use = vec![u32::MAX; requests.len()];
        let mut seen = HashMap::new();
        for (at, &object) in requests.iter().enumerate().rev() {
            if let Some(later) = seen.insert(object, at as u32) {
                next_use[at] = later;
            }
        }
        Self {
            left_bytes: bytes,
            next_use,
            at: 0,
            order: BTreeSet::new(),
            known: HashMap::new(),
        }
    }
}

impl Cache for Belady {
    fn read(&mut self, object: u32, bytes: u64) -> bool {
        let next = self.next_use[self.at];
        self.at += 1;
        let known = self.known.remove(&object);
        if let Some((due, _)) = known {
            self.order.remove(&(due, object));
            self.left_bytes += bytes;
        }
        if next == u32::MAX {
            return known.is_some();
        }
        self.order.insert((next, object));
        self.known.insert(object, (next, bytes));
        self.left_bytes = self.left_bytes.wrapping_sub(bytes);
        while self.left_bytes > u64::MAX / 2 {
            let (_, last) = self.order.pop_last().expect("the new one is there");
            let (_, freed) = self.known.remove(&last).expect("it was in the order");
            self.left_bytes = self.left_bytes.wrapping_add(freed);
        }
        known.is_some()
    }
}

//! What the byte budget is spent on, and what is to be done next about wishes for more.
//!
//! Kept by the keeper, which carries out what is said here. Pure: no I/O, no clock; free bytes of the filesystem are an argument. Promises: what is taken
//! never exceeds the budget, whatever the order of events; a segment is asked to go at most one at a time; a wish is answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Segment;
use super::reclaim::{self, Standing, Stream, Why};

/// What must hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes that everything may take.
    pub budget_bytes: u64,
    /// Bytes of the filesystem that stay free.
    pub reserve_bytes: u64,
    /// Bytes of a new segment.
    pub segment_bytes: u64,
    /// Shards that write, and that must know nothing of a segment before it goes.
    pub shards: usize,
    /// Whether what is expired goes though nobody needs its room.
    pub active: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A shard appends to it.
    Open,
    /// It may be read.
    Whole,
    /// So many shards have not said yet that they know nothing of it.
    Going(usize),
}

#[derive(Debug)]
struct Held {
    segment: Arc<Segment>,
    bytes: u64,
    state: State,
}

/// What is to be done.
#[derive(Debug)]
pub enum Deed {
    /// A segment for that shard: say [`Ledger::made`], or tell the shard that there is none.
    Make(usize, Stream),
    /// That shard gets none now.
    Refuse(usize, Stream),
    /// All shards are to forget that segment.
    Reclaim(Arc<Segment>, Why),
}

/// The account.
#[derive(Debug)]
pub struct Ledger {
    bounds: Bounds,
    /// By age.
    segments: BTreeMap<u32, Held>,
    /// Numbers are never given twice: a load, or a record on its way, may still speak of a segment that has gone.
    next_id: u32,
    used_bytes: u64,
    other_bytes: u64,
    wishes: VecDeque<(usize, Stream)>,
    /// Shards that do not know yet what older journals say.
    folding: usize,
    /// Instances whose segments are not ours to remove.
    spared: Vec<u64>,
}

/// Part of the budget that is kept free ahead of wishes at most.
const AHEAD_PART: u64 = 4;

impl Ledger {
    /// Nothing is there.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            segments: BTreeMap::new(),
            next_id: 0,
            used_bytes: 0,
            other_bytes: 0,
            wishes: VecDeque::new(),
            folding: bounds.shards,
            spared: Vec::new(),
        }
    }

    /// A segment that was there at the start.
    pub fn found(&mut self, segment: Arc<Segment>, bytes: u64) {
        self.insert(segment, bytes, State::Whole);
    }

    /// A segment was made as [`Deed::Make`] said.
    pub fn made(&mut self, segment: Arc<Segment>) {
        self.insert(segment, self.bounds.segment_bytes, State::Open);
    }

    fn insert(&mut self, segment: Arc<Segment>, bytes: u64, state: State) {
        segment.account.set_file_bytes(bytes);
        self.next_id = self.next_id.max(segment.id + 1);
        self.used_bytes += bytes;
        let held = Held {
            segment,
            bytes,
            state,
        };
        self.segments.insert(held.segment.id, held);
    }

    /// The number of the next segment.
    #[must_use]
    pub fn next_id(&self) -> u32 {
        self.next_id
    }

    /// All segments, the oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.values().map(|held| &held.segment)
    }

    /// Bytes of whole segments that are of no use to anybody.
    #[must_use]
    pub fn useless_bytes(&self) -> u64 {
        let whole = self
            .segments
            .values()
            .filter(|held| held.state == State::Whole);
        whole.map(|held| held.bytes - self.useful_bytes(held)).sum()
    }

    fn useful_bytes(&self, held: &Held) -> u64 {
        // Before the fold has ended nothing is known to be garbage.
        let useful = match self.folding {
            0 => held.segment.account.useful_bytes(),
            _ => held.bytes,
        };
        useful.min(held.bytes)
    }

    /// Bytes of journals and whatever else counts.
    pub fn set_other_bytes(&mut self, bytes: u64) {
        self.other_bytes = bytes;
    }

    /// Instances of processes that live.
    pub fn set_spared(&mut self, instances: Vec<u64>) {
        self.spared = instances;
    }

    /// A shard has heard all that older journals say.
    pub fn fold_ended(&mut self) {
        self.folding = self.folding.saturating_sub(1);
    }

    /// Bytes that are taken.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        self.used_bytes + self.other_bytes
    }

    /// A shard wants a segment.
    pub fn wish(&mut self, shard: usize, stream: Stream) {
        self.wishes.push_back((shard, stream));
    }

    /// Where that segment's file is, if it is whole or open, and how long it is.
    #[must_use]
    pub fn file(&self, id: u32) -> Option<(Arc<Segment>, u64)> {
        let held = self.segments.get(&id)?;
        Some((Arc::clone(&held.segment), held.bytes))
    }

    /// Whether nobody appends to that segment and it is not going.
    #[must_use]
    pub fn is_whole(&self, id: u32) -> bool {
        self.segments
            .get(&id)
            .is_some_and(|held| held.state == State::Whole)
    }

    /// Nobody appends to a segment any more, whose file has so many bytes now.
    pub fn sealed(&mut self, id: u32, bytes: u64) {
        let Some(held) = self.segments.get_mut(&id) else {
            return;
        };
        let bytes = bytes.min(held.bytes);
        self.used_bytes -= held.bytes - bytes;
        held.bytes = bytes;
        held.segment.account.set_file_bytes(bytes);
        if held.state == State::Open {
            held.state = State::Whole;
        }
    }

    /// A shard knows nothing of a segment any more; true if nobody does: it is to be removed.
    pub fn released(&mut self, id: u32) -> bool {
        let Some(held) = self.segments.get_mut(&id) else {
            return false;
        };
        let State::Going(left) = held.state else {
            return false;
        };
        held.state = State::Going(left.saturating_sub(1));
        left <= 1
    }

    /// A segment's file is gone.
    pub fn removed(&mut self, id: u32) {
        if let Some(held) = self.segments.remove(&id) {
            self.used_bytes -= held.bytes;
        }
    }

    /// Whether a segment is on its way out.
    #[must_use]
    pub fn is_going(&self) -> bool {
        let mut held = self.segments.values();
        held.any(|held| matches!(held.state, State::Going(_)))
    }

    /// Whether there is room for one more segment. What is moved out of a segment that goes must always find some: new bytes leave it alone.
    fn has_room(&self, stream: Stream, free_bytes: u64) -> bool {
        let wanted = self.bounds.segment_bytes;
        let held = match stream {
            Stream::Fresh => wanted,
            Stream::Proven => 0,
        };
        self.taken_bytes() + wanted + held <= self.bounds.budget_bytes
            && free_bytes >= self.bounds.reserve_bytes.saturating_add(wanted)
    }

    /// What to do next, with so many bytes of the filesystem free. To be asked until there is nothing.
    pub fn next_deed(&mut self, free_bytes: u64) -> Option<Deed> {
        if let Some(&(shard, stream)) = self.wishes.front() {
            if self.has_room(stream, free_bytes) {
                self.wishes.pop_front();
                return Some(Deed::Make(shard, stream));
            }
            if self.is_going() {
                return None;
            }
            return self.relieve().or_else(|| {
                self.wishes.pop_front();
                Some(Deed::Refuse(shard, stream))
            });
        }
        if self.is_going() {
            return None;
        }
        let ahead = self.bounds.segment_bytes * (self.bounds.shards as u64 + 1);
        let ahead = ahead.min(self.bounds.budget_bytes / AHEAD_PART);
        if self.taken_bytes() + ahead > self.bounds.budget_bytes
            || free_bytes < self.bounds.reserve_bytes
        {
            return self.relieve();
        }
        if self.bounds.active {
            return self.reclaim(true);
        }
        None
    }

    /// Has a segment go, if there is one that may.
    pub fn relieve(&mut self) -> Option<Deed> {
        self.reclaim(false)
    }

    fn reclaim(&mut self, garbage_only: bool) -> Option<Deed> {
        let standing = |held: &Held| Standing {
            id: held.segment.id,
            stream: held.segment.stream(),
            bytes: held.bytes,
            useful_bytes: self.useful_bytes(held),
        };
        let may_go = |held: &&Held| {
            held.state == State::Whole && !self.spared.contains(&held.segment.instance)
        };
        let candidates = self.segments.values().filter(may_go).map(standing);
        let wanted = |standing: &Standing| !garbage_only || reclaim::is_garbage(standing);
        let fresh = self
            .segments
            .values()
            .filter(|held| held.segment.stream() == Stream::Fresh);
        let fresh_bytes = fresh.map(|held| held.bytes).sum();
        let all_bytes = self.bounds.budget_bytes;
        let (id, why) = reclaim::victim(candidates.filter(wanted), fresh_bytes, all_bytes)?;
        let held = self.segments.get_mut(&id)?;
        held.state = State::Going(self.bounds.shards);
        Some(Deed::Reclaim(Arc::clone(&held.segment), why))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Account;
    use super::*;
    use proptest::prelude::*;

    const SEGMENT: u64 = 100;

    fn segment(id: u32, stream: Stream, instance: u64) -> Arc<Segment> {
        Arc::new(Segment {
            id,
            path: std::path::PathBuf::new(),
            instance,
            shard: 0,
            number: stream.number(id),
            account: Account::default(),
        })
    }

    #[test]
    fn the_number_of_a_segment_is_never_given_again() {
        let mut ledger = Ledger::new(Bounds {
            budget_bytes: 100 * SEGMENT,
            reserve_bytes: 0,
            segment_bytes: SEGMENT,
            shards: 1,
            active: false,
        });
        ledger.found(segment(0, Stream::Fresh, 1), SEGMENT);
        ledger.found(segment(1, Stream::Fresh, 1), SEGMENT);
        ledger.removed(1);
        assert_eq!(ledger.next_id(), 2);
    }

    /// Something happens to the keeper.
    #[derive(Debug, Clone)]
    enum Event {
        Wish(usize, bool),
        /// The shard that appends seals its segment after so many percent.
        Seal(prop::sample::Index, u64),
        /// A shard has released what is going.
        Release,
        Useful(prop::sample::Index, u64),
        Journals(u64),
        FoldEnded,
        /// Somebody else takes bytes of the filesystem.
        Free(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        let any_segment = any::<prop::sample::Index>;
        prop_oneof![
            8 => (0..3usize, any::<bool>()).prop_map(|(shard, proven)| Event::Wish(shard, proven)),
            5 => (any_segment(), 0..=100u64).prop_map(|(at, percent)| Event::Seal(at, percent)),
            9 => Just(Event::Release),
            5 => (any_segment(), 0..=100u64).prop_map(|(at, bytes)| Event::Useful(at, bytes)),
            2 => (0..60u64).prop_map(Event::Journals),
            1 => Just(Event::FoldEnded),
            1 => (0..3000u64).prop_map(Event::Free),
        ]
    }

    /// The world that the keeper's deeds are done in.
    struct World {
        ledger: Ledger,
        files: BTreeMap<u32, u64>,
        open: Vec<u32>,
        going: Option<(u32, usize)>,
        journals: u64,
        other_free: u64,
        unanswered: usize,
    }

    impl World {
        fn taken(&self) -> u64 {
            self.files.values().sum::<u64>() + self.journals
        }

        fn act(&mut self, bounds: &Bounds) {
            for turn in 0.. {
                assert!(turn < 100, "deeds without end");
                let free = self.other_free.saturating_sub(self.taken());
                let Some(deed) = self.ledger.next_deed(free) else {
                    break;
                };
                match deed {
                    Deed::Make(_, stream) => {
                        let id = self.ledger.next_id();
                        self.files.insert(id, bounds.segment_bytes);
                        self.open.push(id);
                        self.ledger.made(segment(id, stream, 9));
                        self.unanswered -= 1;
                        assert!(free >= bounds.reserve_bytes + SEGMENT, "the reserve");
                    }
                    Deed::Refuse(..) => self.unanswered -= 1,
                    Deed::Reclaim(segment, _) => {
                        assert!(self.going.is_none(), "one at a time");
                        assert_ne!(segment.instance, 7, "it is another process's");
                        assert!(!self.open.contains(&segment.id), "it is written");
                        self.going = Some((segment.id, bounds.shards));
                    }
                }
                assert!(
                    self.taken() <= bounds.budget_bytes,
                    "{} taken",
                    self.taken()
                );
            }
        }

        fn release(&mut self) {
            let Some((id, left)) = self.going else {
                return;
            };
            let last = self.ledger.released(id);
            assert_eq!(last, left == 1);
            self.going = Some((id, left - 1)).filter(|_| !last);
            if last {
                self.files.remove(&id);
                self.ledger.removed(id);
            }
        }

        fn happen(&mut self, event: Event, bounds: &Bounds) {
            let known: Vec<u32> = self.files.keys().copied().collect();
            match event {
                Event::Wish(shard, proven) => {
                    self.unanswered += 1;
                    self.ledger.wish(shard, Stream::ALL[usize::from(proven)]);
                }
                Event::Seal(at, percent) if !self.open.is_empty() => {
                    let id = self.open.swap_remove(at.index(self.open.len()));
                    let bytes = SEGMENT * percent / 100;
                    self.files.insert(id, bytes);
                    self.ledger.sealed(id, bytes);
                }
                Event::Release => self.release(),
                Event::Useful(at, bytes) if !known.is_empty() => {
                    let id = known[at.index(known.len())];
                    let (segment, _) = self.ledger.file(id).expect("it has a file");
                    segment.account.set_for_test(bytes);
                }
                // Journals take what there is room for, as they are made by the keeper too.
                Event::Journals(bytes) => {
                    if self.taken() - self.journals + bytes <= bounds.budget_bytes {
                        self.journals = bytes;
                        self.ledger.set_other_bytes(bytes);
                    }
                }
                Event::FoldEnded => self.ledger.fold_ended(),
                Event::Free(bytes) => self.other_free = bytes,
                Event::Seal(..) | Event::Useful(..) => {}
            }
            assert_eq!(self.ledger.taken_bytes(), self.taken());
        }
    }

    proptest! {
        #[test]
        fn the_budget_holds_whatever_happens(
            events in prop::collection::vec(event(), 1..300),
            (shards, active) in (1..4usize, any::<bool>()),
        ) {
            let bounds = Bounds {
                budget_bytes: 1600,
                reserve_bytes: 150,
                segment_bytes: SEGMENT,
                shards,
                active,
            };
            let mut world = World {
                ledger: Ledger::new(bounds),
                files: BTreeMap::new(),
                open: Vec::new(),
                going: None,
                journals: 0,
                other_free: 3000,
                unanswered: 0,
            };
            world.ledger.set_spared(vec![7]);
            for id in 0..4u32 {
                world.files.insert(id, 80);
                let instance = 6 + u64::from(id % 2);
                world.ledger.found(segment(id, Stream::Fresh, instance), 80);
            }
            for event in events {
                world.happen(event, &bounds);
                world.act(&bounds);
            }
            // Whoever was to forget does so in the end: then every wish has its answer.
            for _ in 0..400 {
                world.happen(Event::Release, &bounds);
                world.act(&bounds);
            }
            prop_assert_eq!(world.unanswered, 0);
        }
    }

    #[test]
    fn what_is_expired_goes_at_once_only_if_that_is_wanted() {
        for active in [false, true] {
            let bounds = Bounds {
                budget_bytes: 1600,
                reserve_bytes: 0,
                segment_bytes: SEGMENT,
                shards: 1,
                active,
            };
            let mut ledger = Ledger::new(bounds);
            ledger.found(segment(0, Stream::Fresh, 1), 100);
            assert!(ledger.next_deed(u64::MAX).is_none(), "nothing is known yet");
            ledger.fold_ended();
            let deed = ledger.next_deed(u64::MAX);
            assert_eq!(matches!(deed, Some(Deed::Reclaim(_, Why::Garbage))), active);
        }
    }

    #[test]
    fn others_who_fill_the_filesystem_make_the_cache_smaller() {
        let mut ledger = Ledger::new(Bounds {
            budget_bytes: 1600,
            reserve_bytes: 500,
            segment_bytes: SEGMENT,
            shards: 1,
            active: false,
        });
        ledger.found(segment(0, Stream::Fresh, 1), 100);
        assert!(ledger.next_deed(500).is_none());
        assert!(matches!(ledger.next_deed(499), Some(Deed::Reclaim(..))));
    }
}

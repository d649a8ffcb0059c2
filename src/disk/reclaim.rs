//! What goes when room is needed: S3-FIFO (Yang et al., SOSP 2023) over a log, whose unit of removal is a segment.
//!
//! Called by the keeper's planner (which segment) and by `shard` (which of its records stay). Pure: no I/O, no clock. Each shard appends to two
//! segments: what is new goes to a fresh one, what has proved its worth to a proven one. Fresh segments are held at a tenth of all bytes; of one that goes, what was hit
//! moves to the proven ones and the rest leaves its fingerprint, so that it is proven if it comes back soon. Of a proven one that goes, what was hit is
//! written again with half its hits. A segment of mostly garbage goes before all others, and what is good in it stays.

use hashbrown::HashSet;

/// Which of a shard's two logs a record is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// For what is new.
    Fresh,
    /// For what was hit, and for what came back soon.
    Proven,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Fresh, Self::Proven];

    /// The stream of a segment: the lowest bit of its number says it.
    #[must_use]
    pub fn of_number(number: u32) -> Self {
        Self::ALL[(number & 1) as usize]
    }

    /// The number of a stream's `count`th segment.
    #[must_use]
    pub fn number(self, count: u32) -> u32 {
        count << 1 | self as u32
    }
}

/// Why a segment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is its turn.
    Turn,
    /// Little of it is of use.
    Garbage,
}

/// What is known of a segment that may go.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Its number; the smaller the older.
    pub id: u32,
    /// Its stream.
    pub stream: Stream,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of records that are known, true and not expired.
    pub useful_bytes: u64,
}

/// A segment of whose bytes no more than one in so many is of use is garbage.
const USEFUL_ONE_IN: u64 = 4;
/// Share of all bytes that fresh segments are held at, in percent.
const FRESH_PERCENT: u64 = 10;
/// Of a segment that goes in its turn, at most one byte in so many is written again.
const AGAIN_ONE_IN: u64 = 2;
/// Fingerprints that are remembered at least.
const GHOSTS_MIN: usize = 1024;
/// The most hits that count.
pub const FREQUENCY_MAX: u8 = 3;

/// Whether little of a segment is of use.
#[must_use]
pub fn is_garbage(standing: &Standing) -> bool {
    is_garbage_of(standing.useful_bytes, standing.bytes)
}

/// The same, for a segment of so many bytes.
#[must_use]
pub fn is_garbage_of(useful_bytes: u64, file_bytes: u64) -> bool {
    useful_bytes.saturating_mul(USEFUL_ONE_IN) <= file_bytes
}

/// The segment that goes next. `fresh_bytes` and `all_bytes` are those of all segments, those included that may not go.
pub fn victim(
    candidates: impl Iterator<Item = Standing>,
    fresh_bytes: u64,
    all_bytes: u64,
) -> Option<(u32, Why)> {
    let mut oldest: [Option<u32>; 2] = [None; 2];
    let mut emptiest: Option<(u64, u32)> = None;
    for standing in candidates {
        let place = &mut oldest[standing.stream as usize];
        *place = Some(place.map_or(standing.id, |id| id.min(standing.id)));
        if is_garbage(&standing) {
            let waste = standing.bytes - standing.useful_bytes.min(standing.bytes);
            // The older of two that are alike.
            if emptiest.is_none_or(|(most, _)| waste > most) {
                emptiest = Some((waste, standing.id));
            }
        }
    }
    if let Some((_, id)) = emptiest {
        return Some((id, Why::Garbage));
    }
    let [fresh, proven] = oldest;
    let over = fresh_bytes * 100 > all_bytes * FRESH_PERCENT;
    let id = if over {
        fresh.or(proven)
    } else {
        proven.or(fresh)
    };
    id.map(|id| (id, Why::Turn))
}

/// What becomes of the records of a segment that goes.
#[derive(Debug)]
pub struct Sorted<R> {
    /// To be written again, the most useful first, with the hits that are left to each.
    pub stay: Vec<(R, u8)>,
    /// The stream they are written to.
    pub stream: Stream,
    /// They go.
    pub go: Vec<R>,
}

/// Bytes of a segment of so many that may be written again.
#[must_use]
pub fn again_bytes_max(why: Why, bytes: u64) -> u64 {
    match why {
        Why::Turn => bytes / AGAIN_ONE_IN,
        Why::Garbage => bytes / USEFUL_ONE_IN,
    }
}

/// Sorts the useful records of a segment that goes; each comes with its bytes and hits. No more than `most_bytes` are written again: the work is bounded, and
/// room is won, also if everything is hot.
#[must_use]
pub fn sort_out<R>(
    mut records: Vec<(R, u64, u8)>,
    (stream, why): (Stream, Why),
    most_bytes: u64,
) -> Sorted<R> {
    let to = match why {
        Why::Turn => Stream::Proven,
        Why::Garbage => stream,
    };
    let mut sorted = Sorted {
        stay: Vec::new(),
        stream: to,
        go: Vec::new(),
    };
    records.sort_by_key(|(.., frequency)| std::cmp::Reverse(*frequency));
    let mut bytes = 0;
    for (record, record_bytes, frequency) in records {
        let stays = match (why, stream) {
            (Why::Garbage, _) => Some(frequency),
            (Why::Turn, Stream::Fresh) => (frequency > 0).then_some(0),
            (Why::Turn, Stream::Proven) => (frequency > 0).then_some(frequency / 2),
        };
        match stays {
            Some(left) if bytes + record_bytes <= most_bytes => {
                bytes += record_bytes;
                sorted.stay.push((record, left));
            }
            _ => sorted.go.push(record),
        }
    }
    sorted
}

/// Fingerprints of what went from fresh segments, in two generations: when the younger one is full, the older one is forgotten.
#[derive(Debug, Default)]
pub struct Ghost {
    young: HashSet<u32>,
    old: HashSet<u32>,
}

impl Ghost {
    fn fingerprint(hash: u64) -> u32 {
        (hash ^ hash >> 32) as u32
    }

    /// Remembers one; about as many are kept as there are records in proven segments, `proven`.
    pub fn remember(&mut self, hash: u64, proven: usize) {
        if self.young.len() >= (proven / 2).max(GHOSTS_MIN) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(Self::fingerprint(hash));
    }

    /// Whether it went not long ago; it is forgotten.
    pub fn recall(&mut self, hash: u64) -> bool {
        let fingerprint = Self::fingerprint(hash);
        // Both, so that one that is recalled does not count twice.
        self.young.remove(&fingerprint) | self.old.remove(&fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(id: u32, stream: Stream, useful_bytes: u64) -> Standing {
        Standing {
            id,
            stream,
            bytes: 100,
            useful_bytes,
        }
    }

    #[test]
    fn the_number_of_a_segment_tells_its_stream() {
        for stream in Stream::ALL {
            for count in [0, 1, 77] {
                assert_eq!(Stream::of_number(stream.number(count)), stream);
            }
        }
        assert!(Stream::Fresh.number(1) > Stream::Proven.number(0));
    }

    #[test]
    fn garbage_goes_first_then_fresh_ones_over_their_share_then_the_oldest() {
        let segments = [
            standing(1, Stream::Proven, 90),
            standing(2, Stream::Fresh, 90),
            standing(3, Stream::Proven, 90),
        ];
        let go = |segments: &[Standing], fresh| victim(segments.iter().copied(), fresh, 1000);
        assert_eq!(go(&segments, 101), Some((2, Why::Turn)));
        assert_eq!(go(&segments, 100), Some((1, Why::Turn)));
        assert_eq!(
            go(&segments[..1], 900),
            Some((1, Why::Turn)),
            "no fresh one"
        );
        assert_eq!(
            go(&segments[1..2], 0),
            Some((2, Why::Turn)),
            "no proven one"
        );
        assert_eq!(go(&[], 500), None);
        let mut wasted = segments.to_vec();
        wasted.push(standing(4, Stream::Proven, 25));
        wasted.push(standing(5, Stream::Fresh, 3));
        wasted.push(standing(6, Stream::Fresh, 3));
        assert_eq!(go(&wasted, 500), Some((5, Why::Garbage)));
    }

    #[test]
    fn what_was_hit_stays_and_the_bytes_written_again_are_bounded() {
        let records = |frequency| (0..10u32).map(|n| (n, 10, frequency)).collect::<Vec<_>>();
        let turn = |stream| (stream, Why::Turn);
        let sorted = sort_out(records(0), turn(Stream::Fresh), 50);
        assert_eq!((sorted.stay.len(), sorted.go.len()), (0, 10));
        let sorted = sort_out(records(3), turn(Stream::Proven), 50);
        assert_eq!((sorted.stay.len(), sorted.go.len()), (5, 5));
        assert!(sorted.stay.iter().all(|(_, left)| *left == 1));
        let mut mixed = records(1);
        mixed[9].2 = 2;
        let sorted = sort_out(mixed, turn(Stream::Proven), 15);
        assert_eq!(sorted.stay, [(9, 1)], "the hottest first");
        let sorted = sort_out(records(0), (Stream::Fresh, Why::Garbage), 100);
        assert_eq!((sorted.stay.len(), sorted.stream), (10, Stream::Fresh));
    }

    #[test]
    fn everything_hot_ends_too() {
        let mut hot: Vec<(u32, u64, u8)> = (0..100).map(|n| (n, 1, FREQUENCY_MAX)).collect();
        let mut rounds = 0;
        while !hot.is_empty() {
            let sorted = sort_out(hot, (Stream::Proven, Why::Turn), 50);
            hot = sorted
                .stay
                .into_iter()
                .map(|(n, left)| (n, 1, left))
                .collect();
            rounds += 1;
        }
        assert!(rounds <= 4, "{rounds} rounds");
    }

    #[test]
    fn a_ghost_remembers_for_a_while() {
        let mut ghost = Ghost::default();
        ghost.remember(7, 0);
        assert!(ghost.recall(7) && !ghost.recall(7));
        ghost.remember(7, 0);
        for other in 0..3 * GHOSTS_MIN as u64 {
            ghost.remember(other << 32 | 1 << 20, 0);
        }
        assert!(!ghost.recall(7));
        assert!(ghost.young.len() + ghost.old.len() <= 2 * GHOSTS_MIN);
    }
}

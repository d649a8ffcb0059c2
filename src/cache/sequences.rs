//! Who reads an object piece by piece and in order, so that the next pieces can be fetched before they are asked for.
//!
//! Called by `request` for reads whose rule has read-ahead, on the shard that serves the connection; `shard` lets go of those that have stopped. A fixed
//! table: whoever has not read for the longest makes way. A client whose connections are on several shards leaves gaps in what one of them sees,
//! which is allowed for. Pure: the time is an argument.

use std::ops::Range;
use std::sync::{Arc, Weak};

use crate::base::prng::mix64;

const SETS: usize = 256;
const WAYS: usize = 4;
/// Pieces in a row, besides the first, that make a sequence.
const RUN_MIN: u32 = 2;
/// How far from where the last piece ended the next one may begin, in lengths of it.
const SLACK_PIECES: u64 = 8;
/// Who has not read for so long does not come for what was fetched ahead.
const IDLE_MS: u64 = 5_000;

/// Which bytes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reader {
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of the version.
    pub version: u128,
    /// Bytes of the whole object.
    pub total: u64,
}

/// What is to be fetched ahead.
#[derive(Debug)]
pub struct Ahead {
    /// Absolute bytes, not empty.
    pub range: Range<u64>,
    /// Lives as long as the sequence goes on.
    pub interest: Weak<()>,
}

#[derive(Debug, Clone, Default)]
struct Sequence {
    object: u128,
    version: u128,
    /// The end of the furthest piece.
    next: u64,
    run: u32,
    /// Up to where bytes have been asked for ahead.
    asked_until: u64,
    seen_ms: u64,
    interest: Option<Arc<()>>,
}

/// The sequences that one shard sees.
#[derive(Debug, Default)]
pub struct Sequences(Vec<Sequence>);

impl Sequences {
    /// Notes that `piece` is read now; what is to be fetched beyond it, if it goes on a sequence, no further than `ahead_bytes`.
    pub fn note(
        &mut self,
        reader: Reader,
        piece: &Range<u64>,
        ahead_bytes: u64,
        now_ms: u64,
    ) -> Option<Ahead> {
        if self.0.is_empty() {
            self.0.resize(SETS * WAYS, Sequence::default());
        }
        let set = mix64(reader.object as u64) as usize % SETS * WAYS;
        let set = &mut self.0[set..set + WAYS];
        let slack = (piece.end - piece.start)
            .saturating_mul(SLACK_PIECES)
            .min(ahead_bytes);
        let near = |known: &Sequence| {
            known.seen_ms > 0
                && (known.object, known.version) == (reader.object, reader.version)
                && piece.start <= known.next.saturating_add(slack)
                && piece.end.saturating_add(slack) >= known.next
        };
        let Some(known) = set.iter_mut().find(|known| near(known)) else {
            let oldest = set.iter_mut().min_by_key(|known| known.seen_ms)?;
            *oldest = Sequence {
                object: reader.object,
                version: reader.version,
                next: piece.end,
                run: 0,
                asked_until: 0,
                seen_ms: now_ms.max(1),
                interest: None,
            };
            return None;
        };
        known.seen_ms = now_ms.max(1);
        // One that was overtaken, or is read again.
        if piece.end <= known.next {
            return None;
        }
        known.next = piece.end;
        known.run = known.run.saturating_add(1);
        if known.run < RUN_MIN {
            return None;
        }
        known.ahead(reader.total, ahead_bytes)
    }

    /// Lets go of what was fetched for those who have stopped.
    pub fn expire(&mut self, now_ms: u64) {
        for known in &mut self.0 {
            if known.interest.is_some() && now_ms > known.seen_ms + IDLE_MS {
                *known = Sequence::default();
            }
        }
    }
}

impl Sequence {
    /// Half of what is to be ahead is asked for at once, so that a client of small pieces does not make small requests.
    fn ahead(&mut self, total: u64, ahead_bytes: u64) -> Option<Ahead> {
        let from = self.asked_until.max(self.next);
        let until = self.next.saturating_add(ahead_bytes).min(total);
        let enough = from - self.next > ahead_bytes / 2;
        if enough || from >= until {
            return None;
        }
        self.asked_until = until;
        let interest = self.interest.get_or_insert_with(|| Arc::new(()));
        Some(Ahead {
            range: from..until,
            interest: Arc::downgrade(interest),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;
    const AHEAD: u64 = 1024 * KIB;

    fn reader(object: u128) -> Reader {
        Reader {
            object,
            version: 1,
            total: 100 * AHEAD,
        }
    }

    #[test]
    fn the_third_piece_in_a_row_begins_it_and_half_of_it_goes_on() {
        let mut sequences = Sequences::default();
        let mut asked = Vec::new();
        for piece in 0..64 {
            let range = piece * 64 * KIB..(piece + 1) * 64 * KIB;
            asked.extend(
                sequences
                    .note(reader(7), &range, AHEAD, 10)
                    .map(|ahead| ahead.range),
            );
        }
        assert_eq!(asked[0], 192 * KIB..192 * KIB + AHEAD);
        for pair in asked.windows(2) {
            assert_eq!(
                pair[0].end, pair[1].start,
                "without a gap and without a byte twice"
            );
            assert!(pair[1].end - pair[1].start >= AHEAD / 2);
        }
        assert!(asked.last().expect("some").end >= 64 * 64 * KIB);
    }

    #[test]
    fn who_jumps_about_makes_no_sequence() {
        let mut sequences = Sequences::default();
        for step in 0..1000u64 {
            let start = mix64(step) % (99 * AHEAD);
            let ahead = sequences.note(reader(7), &(start..start + KIB), AHEAD, 10);
            assert!(ahead.is_none(), "step {step}");
        }
    }

    #[test]
    fn pieces_that_another_shard_has_seen_may_be_missing_and_come_out_of_order() {
        let mut sequences = Sequences::default();
        let mut asked = 0;
        for piece in [0u64, 3, 2, 6, 9, 8] {
            let range = piece * KIB..(piece + 1) * KIB;
            asked += u32::from(sequences.note(reader(7), &range, AHEAD, 10).is_some());
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn it_ends_with_the_object_and_with_the_reader() {
        let mut sequences = Sequences::default();
        let note = |sequences: &mut Sequences, piece: u64| {
            let range = piece * KIB..(piece + 1) * KIB;
            let total = 5 * KIB;
            sequences.note(Reader { total, ..reader(7) }, &range, AHEAD, 10)
        };
        assert!(note(&mut sequences, 0).is_none() && note(&mut sequences, 1).is_none());
        let ahead = note(&mut sequences, 2).expect("a sequence");
        assert_eq!(ahead.range, 3 * KIB..5 * KIB);
        assert!(note(&mut sequences, 3).is_none() && note(&mut sequences, 4).is_none());
        sequences.expire(10 + IDLE_MS);
        assert!(ahead.interest.upgrade().is_some());
        sequences.expire(11 + IDLE_MS);
        assert!(ahead.interest.upgrade().is_none());
    }

    #[test]
    fn two_readers_of_one_object_and_another_version_are_told_apart() {
        let mut sequences = Sequences::default();
        let mut found = Vec::new();
        for piece in 0..3u64 {
            for (at, version) in [(0, 1), (50 * AHEAD, 1), (0, 2)] {
                let range = at + piece * KIB..at + (piece + 1) * KIB;
                let ahead = sequences.note(
                    Reader {
                        version,
                        ..reader(7)
                    },
                    &range,
                    AHEAD,
                    10,
                );
                found.extend(ahead.map(|ahead| (ahead.range.start - 3 * KIB, version)));
            }
        }
        assert_eq!(found, [(0, 1), (50 * AHEAD, 1), (0, 2)]);
        // The table does not grow, and the oldest make way.
        for object in 0..10_000 {
            sequences.note(reader(object), &(0..KIB), AHEAD, 20);
        }
        assert_eq!(sequences.0.len(), SETS * WAYS);
    }
}

//! What of a version is missing, and how it is asked for: gaps of one stripe, near ones joined, small ranges widened to pages.
//!
//! Called by `deliver` for what an answer needs, and by `ahead` for what it may need next. What is asked for again between two gaps, or around them, is of
//! the same version (`If-Match`), so that it changes nothing about what is there.

use std::ops::Range;

use crate::cache::Index;
use crate::fill::plan::{self, Window};
use crate::ram::{STRIPE_BYTES, StripeId};

/// How gaps are made into requests.
#[derive(Debug, Clone, Copy)]
pub struct Joining {
    /// No more than this between two gaps that are fetched at once.
    pub join_bytes: u64,
    /// Whole pages of this size are fetched; 0: just what is missing.
    pub page_bytes: u64,
    /// Bytes of the whole object.
    pub total: u64,
}

/// The end of the gap at `at` of a stripe, at most `end`; nothing of it is in RAM or on disk.
fn gap_end(index: &Index, id: &StripeId, at: u32, end: u32) -> u32 {
    let end = index.gap_until(id, at, end);
    index.on_disk.gap_until(id, at, end)
}

/// The start of what is missing before `at`, from `from` on.
fn gap_start(index: &Index, id: &StripeId, from: u32, at: u32) -> u32 {
    let mut start = from;
    while start < at {
        let there = index.reach_with_disk(id, start, at).end.min(at);
        if there == start {
            let end = gap_end(index, id, start, at);
            if end >= at {
                return start;
            }
            start = end;
        } else {
            start = there;
        }
    }
    at
}

/// The absolute bytes to be asked for, so that the first byte of `window` comes, which is not in RAM. What is on disk comes from there alone.
pub fn to_ask(index: &Index, id: &StripeId, window: &Window, joining: Joining) -> Range<u64> {
    let base = id.base();
    let absolute = |range: Range<u32>| base + u64::from(range.start)..base + u64::from(range.end);
    let Range { start: at, mut end } = window.range;
    if index.on_disk.extent_at(id, at).is_some() {
        return absolute(at..index.gap_until(id, at, end));
    }
    let mut from = at;
    if joining.page_bytes > 0 {
        let pages = plan::pages(&window.absolute(), joining.page_bytes);
        from = (pages.start - base) as u32;
        end = (pages.end.min(joining.total).max(base) - base).min(STRIPE_BYTES) as u32;
        end = end.max(window.range.end);
    }
    let mut until = gap_end(index, id, at, end);
    while until < end && joining.join_bytes > 0 {
        let there = index.reach_with_disk(id, until, end).end;
        let further = gap_end(index, id, there.min(end), end);
        if there >= end || u64::from(there - until) > joining.join_bytes || further <= until {
            break;
        }
        until = further;
    }
    absolute(gap_start(index, id, from, at)..until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::partition::{Lease, Partition};
    use proptest::prelude::*;
    use std::sync::Arc;

    const BYTES: u32 = 64 << 10;
    const STRIPE: u32 = 3;

    fn id() -> StripeId {
        StripeId {
            object: 7,
            version: 8,
            index: STRIPE,
        }
    }

    /// An index that has these bytes of a stripe, and which it has: what begins in others gets no room of its own.
    fn index_with(there: &[Range<u32>]) -> (Arc<Index>, Vec<Range<u32>>) {
        let mut partition = Partition::new(8 << 20, 16, Arc::default()).expect("a slab");
        let mut has = Vec::new();
        for run in there {
            let Lease::Granted(mut writer) = partition.lease(id(), run.clone(), &Arc::default())
            else {
                continue;
            };
            while writer.remaining() > 0 {
                let bytes = writer.room().len();
                writer.advance(bytes, |_| {});
            }
            writer.finish(|_| {});
            has.push(run.clone());
        }
        (Arc::clone(partition.index()), has)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_asked_for_is_missing_but_for_what_lies_between_near_gaps(
            runs in prop::collection::vec((0..BYTES - 1, 1u32..9000), 0..8),
            window in (0..BYTES - 1, 1u32..BYTES),
            join_bytes in prop::sample::select(vec![0u64, 1, 500, 5000, 1 << 20]),
            page_bytes in prop::sample::select(vec![0u64, 4096, 10_000, 1 << 20]),
            total in 1u64..u64::from(BYTES),
        ) {
            let there: Vec<_> = runs.iter().map(|(at, bytes)| *at..(at + bytes).min(BYTES)).collect();
            let (index, there) = index_with(&there);
            let has = |at: u32| there.iter().any(|run| run.contains(&at));
            let (at, end) = (window.0, (window.0 + window.1).min(BYTES));
            let base = id().base();
            let total = base + total.max(u64::from(end));
            prop_assume!(!has(at));
            let window = Window { index: STRIPE, range: at..end };
            let joining = Joining { join_bytes, page_bytes, total };
            let asked = to_ask(&index, &id(), &window, joining);
            let (first, until) = ((asked.start - base) as u32, (asked.end - base) as u32);
            prop_assert!(first <= at && at < until && asked.end <= total);
            prop_assert!((first..at).all(|byte| !has(byte)));
            prop_assert!(!has(until - 1), "it ends with what is missing");
            if page_bytes == 0 {
                prop_assert!(first == at && until <= end);
            } else {
                prop_assert!(u64::from(at - first) < page_bytes);
                let last_page = u64::from(end).div_ceil(page_bytes) * page_bytes;
                prop_assert!(u64::from(until) <= last_page);
                prop_assert!(first == 0 || has(first - 1) || u64::from(first) % page_bytes == 0);
            }
            let mut run = 0;
            for byte in first..until {
                run = if has(byte) { run + 1 } else { 0 };
                prop_assert!(run <= join_bytes);
            }
        }
    }
}

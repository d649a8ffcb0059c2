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

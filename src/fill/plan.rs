//! Cutting ranges of an object into stripe windows. Pure.
//!
//! Called by `stream` (where the next bytes belong) and `request` (which stripes an answer needs). Half-open intervals everywhere.

use std::ops::Range;

use crate::ram::{STRIPE_BYTES, StripeId};

/// The part of one stripe that a range touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Which stripe.
    pub index: u32,
    /// Bytes of it, relative to the stripe.
    pub range: Range<u32>,
}

impl Window {
    /// Absolute range in the object.
    #[must_use]
    pub fn absolute(&self) -> Range<u64> {
        let base = u64::from(self.index) * STRIPE_BYTES;
        base + u64::from(self.range.start)..base + u64::from(self.range.end)
    }

    /// The stripe's id for a version of an object.
    #[must_use]
    pub fn id(&self, object: u128, version: u128) -> StripeId {
        StripeId {
            object,
            version,
            index: self.index,
        }
    }
}

/// The window that begins at `range.start`; `None` for an empty range.
#[must_use]
pub fn first_window(range: &Range<u64>) -> Option<Window> {
    if range.is_empty() {
        return None;
    }
    let index = range.start / STRIPE_BYTES;
    let base = index * STRIPE_BYTES;
    let end = range.end.min(base + STRIPE_BYTES);
    Some(Window {
        index: index as u32,
        range: (range.start - base) as u32..(end - base) as u32,
    })
}

/// All windows of a range, in order.
pub fn windows(range: Range<u64>) -> impl Iterator<Item = Window> {
    let mut rest = range;
    std::iter::from_fn(move || {
        let window = first_window(&rest)?;
        rest.start = window.absolute().end;
        Some(window)
    })
}

/// The end of the stripe that holds `offset`.
#[must_use]
pub fn stripe_end(offset: u64) -> u64 {
    (offset / STRIPE_BYTES + 1).saturating_mul(STRIPE_BYTES)
}

/// The pages of `page_bytes` that a range of one stripe touches, as far as the stripe goes. Pages are counted from the stripe's start.
#[must_use]
pub fn pages(range: &Range<u64>, page_bytes: u64) -> Range<u64> {
    let base = range.start / STRIPE_BYTES * STRIPE_BYTES;
    let start = (range.start - base) / page_bytes * page_bytes;
    let end = (range.end - base)
        .div_ceil(page_bytes)
        .saturating_mul(page_bytes);
    base + start..base.saturating_add(end.min(STRIPE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_are_counted_from_the_stripes_start_and_end_with_it() {
        const PAGE: u64 = 3 << 20;
        let stripe = 5 * STRIPE_BYTES;
        for (range, wanted) in [
            (0..1, 0..PAGE),
            (PAGE - 1..PAGE + 1, 0..2 * PAGE),
            (PAGE..2 * PAGE, PAGE..2 * PAGE),
            (7 << 20..8 << 20, 6 << 20..8 << 20),
        ] {
            let at = |range: &Range<u64>| stripe + range.start..stripe + range.end;
            assert_eq!(pages(&at(&range), PAGE), at(&wanted));
        }
    }

    proptest! {
        #[test]
        fn windows_cover_a_range_exactly_and_in_order(start in 0u64..100_000_000, bytes in 0u64..100_000_000) {
            let mut at = start;
            for window in windows(start..start + bytes) {
                let absolute = window.absolute();
                prop_assert_eq!(absolute.start, at);
                prop_assert!(absolute.end <= stripe_end(absolute.start));
                prop_assert!(!absolute.is_empty());
                at = absolute.end;
            }
            prop_assert_eq!(at, start + bytes);
        }
    }
}

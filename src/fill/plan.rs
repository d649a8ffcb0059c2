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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

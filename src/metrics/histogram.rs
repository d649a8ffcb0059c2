//! The fixed buckets of a distribution, and which cell an observed value belongs to.
//!
//! Called by the blocks when something is observed and by the exporter. Invariant: bounds rise, and each value falls
//! into exactly one bucket. The cells of one label combination are: one per bound, one for what lies above, the sum.

use super::table::Shape;

/// Bounds of durations in nanoseconds: 1, 2.5 and 5 of each power of ten from 10 µs to 100 s.
pub(super) const NANOSECONDS: [u64; 22] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    25_000_000_000,
    50_000_000_000,
    100_000_000_000,
];

/// Bounds of sizes in bytes: powers of four from 1 KiB to 16 GiB.
pub(super) const BYTES: [u64; 13] = [
    1 << 10,
    1 << 12,
    1 << 14,
    1 << 16,
    1 << 18,
    1 << 20,
    1 << 22,
    1 << 24,
    1 << 26,
    1 << 28,
    1 << 30,
    1 << 32,
    1 << 34,
];

/// Cells of one label combination: the bounds of the finer kind, the bucket above them, and the sum.
pub(super) const WIDTH: usize = NANOSECONDS.len() + 2;
const _: () = assert!(BYTES.len() <= NANOSECONDS.len());

/// The cell of the sum.
pub(super) const SUM: usize = WIDTH - 1;

/// Nanoseconds of a second, as the exporter divides by it.
const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// The upper bounds of a shape's buckets, in the unit that is observed; the bucket above them has none.
pub(super) const fn bounds(shape: Shape) -> &'static [u64] {
    match shape {
        Shape::Seconds => &NANOSECONDS,
        Shape::Bytes => &BYTES,
        Shape::Counter | Shape::ShardCounter | Shape::Flow | Shape::ShardFlow | Shape::Level => &[],
    }
}

/// An observed amount in the unit that is shown.
pub(super) fn shown(shape: Shape, observed: u64) -> f64 {
    match shape {
        Shape::Seconds => observed as f64 / NANOSECONDS_PER_SECOND,
        Shape::Bytes
        | Shape::Counter
        | Shape::ShardCounter
        | Shape::Flow
        | Shape::ShardFlow
        | Shape::Level => observed as f64,
    }
}

/// The bucket of `value`: the first whose upper bound is not below it.
#[inline]
pub(super) fn bucket(bounds: &[u64], value: u64) -> usize {
    bounds.partition_point(|bound| *bound < value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        assert_eq!(bucket(&NANOSECONDS, 0), 0);
        assert_eq!(bucket(&NANOSECONDS, 10_000), 0);
        assert_eq!(bucket(&NANOSECONDS, 10_001), 1);
        assert_eq!(bucket(&BYTES, 1 << 34), BYTES.len() - 1);
        assert_eq!(bucket(&BYTES, u64::MAX), BYTES.len());
    }

    #[test]
    fn bounds_rise() {
        assert!(NANOSECONDS.is_sorted_by(|a, b| a < b));
        assert!(BYTES.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn durations_are_shown_in_seconds() {
        assert_eq!(shown(Shape::Seconds, 2_500_000_000), 2.5);
        assert_eq!(shown(Shape::Bytes, 4_096), 4_096.0);
    }
}

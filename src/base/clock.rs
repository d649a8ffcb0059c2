//! The only place that reads a clock.
//!
//! Called by everything that needs a time. Two clocks: a monotonic one in milliseconds or nanoseconds
//! since the process started (deadlines, ages, durations) and the wall clock in seconds or milliseconds
//! since 1970 (HTTP dates, logs, the expiry of presigned requests). Values are plain integers so that pure
//! modules take them as arguments and tests choose them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// One reading of the monotonic clock, for all that is asked of the time at one step of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(u64);

impl Moment {
    /// Reads the clock.
    #[must_use]
    pub fn now() -> Self {
        Self(now_ns())
    }

    /// Nanoseconds, as [`now_ns`] would have said.
    #[must_use]
    pub fn ns(self) -> u64 {
        self.0
    }

    /// Milliseconds, as [`now_ms`] would have said; never 0.
    #[must_use]
    pub fn ms(self) -> u64 {
        self.0 / 1_000_000 + 1
    }

    /// Nanoseconds since an earlier moment; 0 if it was not earlier.
    #[must_use]
    pub fn since_ns(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the wall clock says at a [`Moment`], without reading it: right to the age of this value, in which somebody may have set the clock.
#[derive(Debug, Clone, Copy)]
pub struct Wall {
    /// Nanoseconds since 1970 at the monotonic clock's beginning.
    start_ns: i64,
}

impl Wall {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        let unix_ns = i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX);
        Self {
            start_ns: unix_ns.saturating_sub(now_ns() as i64),
        }
    }

    fn unix_ns(self, at: Moment) -> u64 {
        self.start_ns.saturating_add(at.0 as i64).max(0) as u64
    }

    /// Whole seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_seconds(self, at: Moment) -> i64 {
        (self.unix_ns(at) / 1_000_000_000) as i64
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn unix_ms(self, at: Moment) -> u64 {
        self.unix_ns(at) / 1_000_000
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this module is the one door to the clock"
)]
fn since_start() -> std::time::Duration {
    let start = START.get_or_init(Instant::now);
    start.elapsed()
}

/// Monotonic milliseconds since the first reading in this process, never 0.
#[must_use]
pub fn now_ms() -> u64 {
    Moment::now().ms()
}

/// Monotonic nanoseconds since the first reading in this process.
#[must_use]
pub fn now_ns() -> u64 {
    since_start().as_nanos() as u64
}

#[allow(
    clippy::disallowed_methods,
    reason = "this module is the one door to the clock"
)]
fn since_epoch() -> std::time::Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Wall clock, whole seconds since 1970-01-01T00:00:00Z; 0 on a clock set before that.
#[must_use]
pub fn unix_seconds() -> i64 {
    since_epoch().as_secs() as i64
}

/// Wall clock, milliseconds since 1970-01-01T00:00:00Z.
#[must_use]
pub fn unix_ms() -> u64 {
    since_epoch().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_is_never_zero() {
        let first = now_ms();
        assert!(first > 0);
        assert!(now_ms() >= first);
        assert!(now_ns() <= now_ns());
    }

    #[test]
    fn a_moment_says_what_the_clocks_said() {
        let (wall, before_ms, before) = (Wall::read(), now_ms(), unix_ms());
        let at = Moment::now();
        assert!(before_ms <= at.ms() && at.ms() <= now_ms());
        assert!(before.saturating_sub(1) <= wall.unix_ms(at) && wall.unix_ms(at) <= unix_ms() + 1);
        assert_eq!(wall.unix_seconds(at), (wall.unix_ms(at) / 1000) as i64);
        assert_eq!(at.since_ns(Moment::now()), 0);
    }
}

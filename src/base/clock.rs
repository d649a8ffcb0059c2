//! The only place that reads a clock.
//!
//! Called by everything that needs a time. Two clocks: a monotonic one in milliseconds or nanoseconds
//! since the process started (deadlines, ages, durations) and the wall clock in seconds or milliseconds
//! since 1970 (HTTP dates, logs, the expiry of presigned requests). Values are plain integers so that pure
//! modules take them as arguments and tests choose them.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

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
    since_start().as_millis() as u64 + 1
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
}

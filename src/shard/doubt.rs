//! When the origin must be asked although a copy is fresh: while two processes serve the same clients, neither knows what is written through the
//! other.
//!
//! Set by `server` around a hand-over, read at every look at a copy. Invariant: what was confirmed in doubt stays in doubt until the origin
//! has confirmed it again; and what was asked in doubt counts as confirmed in doubt, however late the answer came.

use std::sync::atomic::{AtomicI64, Ordering};

/// No answer takes longer.
const ANSWER_MS: i64 = 15 * 60 * 1000;

/// Copies that were confirmed in this time are asked about; monotonic milliseconds.
#[derive(Debug)]
pub struct Doubt {
    from_ms: AtomicI64,
    /// Not included.
    until_ms: AtomicI64,
}

impl Default for Doubt {
    fn default() -> Self {
        Self {
            from_ms: AtomicI64::new(0),
            until_ms: AtomicI64::new(i64::MIN),
        }
    }
}

impl Doubt {
    /// Whether a copy that was confirmed then, and asked for then, is to be asked about.
    #[must_use]
    #[inline]
    pub fn is_about(&self, confirmed_ms: i64, asked_ms: impl FnOnce() -> i64) -> bool {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        confirmed_ms < until_ms.saturating_add(ANSWER_MS)
            && confirmed_ms >= self.from_ms.load(Ordering::Relaxed)
            && (confirmed_ms < until_ms || asked_ms() < until_ms)
    }

    /// Whether every copy is: another process lives beside this one.
    #[must_use]
    pub fn is_about_all(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) == i64::MAX
    }

    /// Every copy is.
    pub fn all(&self) {
        self.until_ms.store(i64::MAX, Ordering::SeqCst);
        self.from_ms.store(i64::MIN, Ordering::SeqCst);
    }

    /// Only those that were confirmed in this time, from now on.
    pub fn only(&self, from_ms: i64, until_ms: i64) {
        self.until_ms.store(until_ms, Ordering::SeqCst);
        self.from_ms.store(from_ms, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_is_about_nothing_everything_or_a_time() {
        let doubt = Doubt::default();
        let about = |doubt: &Doubt| [-5, 0, 9, 10, 19, 20].map(|at| doubt.is_about(at, || at));
        assert_eq!(about(&doubt), [false; 6]);
        doubt.all();
        assert_eq!(about(&doubt), [true; 6]);
        assert!(doubt.is_about_all());
        doubt.only(10, 20);
        assert_eq!(about(&doubt), [false, false, false, true, true, false]);
        assert!(doubt.is_about(25, || 19) && !doubt.is_about(25, || 20));
    }
}

//! When requests are due: as soon as a connection is free (closed loop), or by a schedule (open loop).
//!
//! Asked by a worker between its waits. Pure: times are nanoseconds since the start of the run. Invariant: an open
//! schedule never slips, whatever the server does. A request that was due and found no connection is still due, and
//! its latency counts from when it was due: that is what "no coordinated omission" means.

/// How requests are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each connection asks again once it has its answer.
    Closed,
    /// So many requests are due each second, all connections together.
    Open {
        /// Requests per second.
        rate: f64,
    },
}

/// One worker's part of an open schedule.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    interval_ns: f64,
    /// This worker's share: every `stride`-th request from `next` on.
    next: u64,
    stride: u64,
    end_ns: u64,
}

impl Schedule {
    /// The share of worker `index` of `workers`, up to `end_ns`.
    pub fn new(rate: f64, index: usize, workers: usize, end_ns: u64) -> Schedule {
        Schedule {
            interval_ns: 1e9 / rate,
            next: index as u64,
            stride: workers as u64,
            end_ns,
        }
    }

    /// When the next request is due; `None` after the end.
    pub fn due_ns(&self) -> Option<u64> {
        let due = (self.next as f64 * self.interval_ns) as u64;
        (due < self.end_ns).then_some(due)
    }

    /// Takes the next request if it is due.
    pub fn take(&mut self, now_ns: u64) -> Option<u64> {
        let due = self.due_ns().filter(|due| *due <= now_ns)?;
        self.next += self.stride;
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_does_not_slip_when_nobody_takes() {
        let mut schedule = Schedule::new(1000.0, 0, 1, 5_000_000);
        assert_eq!(schedule.take(0), Some(0));
        assert_eq!(schedule.take(999_999), None);
        // The server was stuck: three requests are due at once, each from its own time.
        let late: Vec<Option<u64>> = (0..4).map(|_| schedule.take(3_500_000)).collect();
        assert_eq!(
            late,
            [Some(1_000_000), Some(2_000_000), Some(3_000_000), None]
        );
        assert_eq!(schedule.take(u64::MAX), Some(4_000_000));
        assert_eq!((schedule.take(u64::MAX), schedule.due_ns()), (None, None));
    }

    #[test]
    fn workers_share_one_schedule() {
        let mut all = Vec::new();
        for index in 0..3 {
            let mut schedule = Schedule::new(10.0, index, 3, 1_000_000_000);
            all.extend(std::iter::from_fn(|| schedule.take(u64::MAX)));
        }
        all.sort_unstable();
        let want: Vec<u64> = (0..10).map(|at| at * 100_000_000).collect();
        assert_eq!(all, want);
    }
}

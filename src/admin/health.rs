//! Whether the process lives, and whether it wants requests.
//!
//! Called by the server (readiness), by [`super::serve`] (the check once a second) and by the endpoints. Invariants:
//! each shard moves its own heartbeat and nobody else's; a shard is called stalled only after several checks in a row
//! saw its heartbeat unmoved, so that a control thread which was held up itself accuses nobody.

use arc_swap::ArcSwap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::upstream::Outages;

/// What the doors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not all doors are open yet.
    Starting,
    /// All doors are open.
    Ready,
    /// Requests under way are finished, new ones should go elsewhere.
    Draining,
}

impl State {
    const ALL: [Self; 3] = [Self::Starting, Self::Ready, Self::Draining];

    const fn text(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// Whether requests are wanted. Set by the server on any thread.
#[derive(Debug)]
pub struct Readiness {
    state: AtomicU8,
    /// What an operator should see to, though requests are served.
    remarks: ArcSwap<Vec<String>>,
    /// Which origins fail.
    outages: Arc<Outages>,
}

impl Readiness {
    /// Starts as [`State::Starting`].
    pub fn new(outages: Arc<Outages>) -> Self {
        Self {
            state: AtomicU8::new(State::Starting as u8),
            remarks: ArcSwap::default(),
            outages,
        }
    }

    /// Says what the doors do from now on.
    pub fn set(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// What the doors do.
    pub fn state(&self) -> State {
        State::ALL[usize::from(self.state.load(Ordering::Acquire))]
    }

    /// Lines that `/readyz` shows from now on before its word.
    pub fn remark(&self, lines: Vec<String>) {
        self.remarks.store(Arc::new(lines));
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

/// How the shards' heartbeats are watched.
#[derive(Debug)]
pub(super) struct Liveness {
    /// One for each shard, moved by it.
    beats: Vec<Arc<AtomicU64>>,
    /// What each beat was at the last check, and for how many checks in a row.
    seen: Vec<Seen>,
    checks_unmoved_max: u32,
}

#[derive(Debug, Default)]
struct Seen {
    beat: AtomicU64,
    checks_unmoved: AtomicU32,
}

impl Liveness {
    pub(super) fn new(beats: Vec<Arc<AtomicU64>>, checks_unmoved_max: u32) -> Self {
        let seen = beats.iter().map(|_| Seen::default()).collect();
        Self {
            beats,
            seen,
            checks_unmoved_max,
        }
    }

    /// Looks at every heartbeat once. Called at a fixed interval by one task.
    pub(super) fn check(&self) {
        for (beat, seen) in self.beats.iter().zip(&self.seen) {
            let beat = beat.load(Ordering::Relaxed);
            let moved = seen.beat.swap(beat, Ordering::Relaxed) != beat;
            let before = seen.checks_unmoved.load(Ordering::Relaxed);
            let unmoved = if moved { 0 } else { before.saturating_add(1) };
            seen.checks_unmoved.store(unmoved, Ordering::Relaxed);
        }
    }

    /// The shards whose heartbeat stood still for too many checks.
    pub(super) fn stalled(&self) -> impl Iterator<Item = usize> {
        let unmoved = self
            .seen
            .iter()
            .map(|seen| seen.checks_unmoved.load(Ordering::Relaxed));
        unmoved
            .enumerate()
            .filter(|(_, unmoved)| *unmoved >= self.checks_unmoved_max)
            .map(|(shard, _)| shard)
    }

    /// One line for each stalled shard.
    pub(super) fn report(&self) -> Report {
        let mut report = Report {
            good: true,
            text: String::new(),
        };
        for shard in self.stalled() {
            report.good = false;
            report.line(format_args!("shard {shard}: no heartbeat"));
        }
        report
    }
}

/// The answer to a question about health: lines of detail, the last one says it in one word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) good: bool,
    pub(super) text: String,
}

impl Report {
    /// Whether the process lives.
    pub(super) fn live(liveness: &Liveness) -> Self {
        let mut report = liveness.report();
        let word = if report.good { "live" } else { "stalled" };
        report.line(format_args!("{word}"));
        report
    }

    /// Whether requests are wanted: the doors say so, and no shard is stalled.
    pub(super) fn ready(readiness: &Readiness, liveness: &Liveness) -> Self {
        let mut report = liveness.report();
        for line in readiness.remarks.load().iter() {
            report.line(format_args!("{line}"));
        }
        for line in readiness.outages.lines() {
            report.line(format_args!("{line}"));
        }
        let state = readiness.state();
        let word = if report.good || state != State::Ready {
            state.text()
        } else {
            "stalled"
        };
        report.good &= state == State::Ready;
        report.line(format_args!("{word}"));
        report
    }

    fn line(&mut self, text: std::fmt::Arguments) {
        writeln!(self.text, "{text}").expect("a String takes every byte");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn liveness(shards: usize) -> Liveness {
        Liveness::new((0..shards).map(|_| Arc::default()).collect(), 3)
    }

    #[test]
    fn a_shard_that_stands_still_is_named() {
        let liveness = liveness(2);
        for _ in 0..3 {
            liveness.beats[0].fetch_add(1, Ordering::Relaxed);
            liveness.check();
        }
        assert_eq!(liveness.stalled().collect::<Vec<_>>(), [1]);
        let report = Report::live(&liveness);
        assert_eq!(
            (report.good, report.text.as_str()),
            (false, "shard 1: no heartbeat\nstalled\n")
        );
    }

    #[test]
    fn a_shard_that_moves_again_is_live_again() {
        let liveness = liveness(1);
        (0..9).for_each(|_| liveness.check());
        assert!(!Report::live(&liveness).good);
        liveness.beats[0].fetch_add(1, Ordering::Relaxed);
        liveness.check();
        assert_eq!(Report::live(&liveness).text, "live\n");
    }

    #[test]
    fn requests_are_wanted_only_between_start_and_drain_and_when_no_shard_is_stalled() {
        let (readiness, liveness) = (Readiness::default(), liveness(1));
        let ready = || {
            let report = Report::ready(&readiness, &liveness);
            (report.good, report.text)
        };
        assert_eq!(ready(), (false, String::from("starting\n")));
        readiness.set(State::Ready);
        assert_eq!(ready(), (true, String::from("ready\n")));
        (0..3).for_each(|_| liveness.check());
        assert_eq!(
            ready(),
            (false, String::from("shard 0: no heartbeat\nstalled\n"))
        );
        readiness.set(State::Draining);
        assert_eq!(
            ready(),
            (false, String::from("shard 0: no heartbeat\ndraining\n"))
        );
    }
}

//! The load client: asks a server for many objects in a controlled way and counts what comes.
//!
//! Used by `perf bench` and `perf compare`. It must cost far less than the server it measures: one thread per core
//! with its own `epoll`, requests built beforehand, bodies dropped in the kernel unless they are in the sample that is
//! compared. Invariants: every answer's status and length are checked; open-loop latencies count from the schedule;
//! CPU of the client itself is part of the outcome, because a busy client measures itself. Reading order: `target`,
//! `requests`, `keys`, `pace`, `head`, `connection`, `worker`, `tally`.

mod connection;
mod head;
pub mod keys;
pub mod pace;
pub mod requests;
pub mod tally;
pub mod target;
mod worker;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier, OnceLock};
use std::time::{Duration, Instant};

use self::keys::Picks;
use self::pace::Pace;
use self::requests::Requests;
use self::tally::Tally;
use self::target::Target;

/// When a run ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stop {
    /// After so many requests; everything is measured.
    Count {
        /// How many.
        requests: u64,
    },
    /// After a warm-up, not measured, and a time that is.
    After {
        /// Not measured.
        warm_up: Duration,
        /// Measured.
        duration: Duration,
    },
}

/// How bodies are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Dropped; only their length counts.
    Nothing,
    /// Every so many-th body is compared: whole up to 1 MiB, in windows (64 KiB of each 16 MiB) above.
    Sample {
        /// One of so many.
        every: u32,
    },
    /// Every body is compared whole.
    Whole,
    /// Every body is digested (SHA-256), whatever its length.
    Digest,
}

/// One run of the load.
#[derive(Debug, Clone)]
pub struct Job {
    /// Who is asked.
    pub target: Target,
    /// What can be asked.
    pub requests: Arc<Requests>,
    /// Which of it is asked next.
    pub picks: Picks,
    /// Keep-alive connections, all threads together.
    pub connections: u32,
    /// When requests are due.
    pub pace: Pace,
    /// When it ends.
    pub stop: Stop,
    /// How bodies are looked at.
    pub check: Check,
    /// The cores to run on, one thread each.
    pub cores: Vec<u32>,
    /// Of the random numbers.
    pub seed: u64,
}

impl Job {
    /// Asks for every key once, in order, and compares every byte of what comes.
    pub fn each_once(
        target: Target,
        requests: Arc<Requests>,
        connections: u32,
        cores: &[u32],
    ) -> Job {
        let count = requests.count();
        Job {
            target,
            requests,
            picks: Picks::InOrder { count },
            connections: connections.clamp(1, count),
            pace: Pace::Closed,
            stop: Stop::Count {
                requests: u64::from(count),
            },
            check: Check::Whole,
            cores: cores.to_vec(),
            seed: 0,
        }
    }
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection could not be made.
    #[error("connecting: {0}")]
    Io(#[from] io::Error),
    /// Nothing moved.
    #[error("no byte for {0} s: the server is stuck")]
    Stalled(u64),
    /// It made no sense to go on.
    #[error("too many errors: {0}")]
    Errors(String),
}

/// An edge of the measured window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// It begins.
    Start,
    /// It ends.
    End,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// All threads together.
    pub tally: Tally,
    /// Measured seconds: the window, or until the last answer ended.
    pub seconds: f64,
    /// CPU seconds of the client's threads while measured.
    pub cpu_s: f64,
    /// Share of the client's cores that its busiest thread used, 0 to 1.
    pub busy: f64,
}

/// Where workers meet: all connect, then all begin at once.
#[derive(Debug)]
struct Gate {
    connected: Barrier,
    opened: Barrier,
    base: OnceLock<Instant>,
    start_ns: AtomicU64,
    end_ns: AtomicU64,
    tickets: AtomicU64,
}

/// Runs a job; `watch` is called at the edges of the measured window, on the calling thread.
pub fn run(job: &Job, watch: &mut dyn FnMut(Edge)) -> Result<Outcome, LoadError> {
    let threads = job.cores.len().clamp(1, job.connections.max(1) as usize);
    let mut job = job.clone();
    job.cores.truncate(threads);
    if job.cores.is_empty() {
        job.cores.push(0);
    }
    let job = &job;
    let gate = Gate {
        connected: Barrier::new(threads + 1),
        opened: Barrier::new(threads + 1),
        base: OnceLock::new(),
        start_ns: AtomicU64::new(0),
        end_ns: AtomicU64::new(u64::MAX),
        tickets: AtomicU64::new(0),
    };
    let (tallies, seconds) = std::thread::scope(|scope| {
        let gate = &gate;
        let spawn = |index| scope.spawn(move || worker::work(job, gate, index));
        let workers: Vec<_> = (0..threads).map(spawn).collect();
        gate.connected.wait();
        let seconds = open(gate, job.stop, watch);
        let tallies: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect();
        if seconds.is_none() {
            watch(Edge::End);
        }
        (tallies, seconds)
    });
    let tallies: Vec<Tally> = tallies.into_iter().collect::<Result<_, _>>()?;
    let busiest_ns = tallies.iter().map(|tally| tally.cpu_ns).max().unwrap_or(0);
    let mut total = Tally::default();
    for tally in tallies {
        total.merge(tally);
    }
    let seconds = seconds.unwrap_or(total.last_ns as f64 / 1e9).max(1e-6);
    Ok(Outcome {
        seconds,
        cpu_s: total.cpu_ns as f64 / 1e9,
        busy: (busiest_ns as f64 / 1e9 / seconds).min(1.0),
        tally: total,
    })
}

/// Opens the gate; for a window of time also sees it through, and says how long it was.
fn open(gate: &Gate, stop: Stop, watch: &mut dyn FnMut(Edge)) -> Option<f64> {
    let set_base = || {
        let base = Instant::now();
        gate.base.set(base).expect("opened once");
        base
    };
    match stop {
        Stop::Count { .. } => {
            watch(Edge::Start);
            set_base();
            gate.opened.wait();
            None
        }
        Stop::After { warm_up, duration } => {
            let base = set_base();
            let end = warm_up + duration;
            gate.start_ns.store(warm_up.as_nanos() as u64, Relaxed);
            gate.end_ns.store(end.as_nanos() as u64, Relaxed);
            gate.opened.wait();
            std::thread::sleep(warm_up.saturating_sub(base.elapsed()));
            watch(Edge::Start);
            let started = base.elapsed();
            std::thread::sleep(end.saturating_sub(base.elapsed()));
            let seconds = (base.elapsed() - started).as_secs_f64();
            watch(Edge::End);
            Some(seconds)
        }
    }
}

//! One thread of the load: its connections, its `epoll`, its part of the schedule.
//!
//! Started by [`super::run`], pinned to one core. Invariants: it sleeps in the kernel when there is nothing to do (so
//! that its CPU time says how busy it was); what it counts before the measured window is thrown away at the window's
//! start. Left to others: HTTP (`connection`), adding up (`tally`).

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{ClockId, clock_gettime};

use super::connection::{Connection, Turn};
use super::keys::Random;
use super::pace::{Pace, Schedule};
use super::tally::Tally;
use super::{Check, Gate, Job, LoadError, Stop};

const SCRATCH_BYTES: usize = 256 << 10;
/// Asked for at once when bytes are dropped; the kernel never writes there, so it costs no memory.
const SINK_BYTES: usize = 8 << 20;
const EVENTS_MAX: usize = 256;
/// Longest sleep, so that the edges of the window are seen in time.
const SLEEP_MAX_NS: u64 = 20_000_000;
/// Without any byte for so long, the server is stuck.
const STALL_NS: u64 = 30_000_000_000;
/// How long after its end an open schedule waits for the answers that are due.
const DRAIN_NS: u64 = 5_000_000_000;
const ERRORS_MAX: u64 = 10_000;

/// What a worker and its connections share.
#[derive(Debug)]
pub(super) struct Shift<'a> {
    pub job: &'a Job,
    pub tally: Tally,
    pub scratch: Vec<u8>,
    pub sink: Vec<u8>,
    /// Nanoseconds since the start of the run, as of the last look.
    pub now_ns: u64,
    base: Instant,
    asked: u64,
}

impl Shift<'_> {
    pub fn look_at_clock(&mut self) {
        self.now_ns = self.base.elapsed().as_nanos() as u64;
    }

    /// How the next body is looked at.
    pub fn look(&mut self) -> Option<Check> {
        self.asked += 1;
        match self.job.check {
            Check::Sample { every } if !self.asked.is_multiple_of(u64::from(every)) => None,
            check => Some(check),
        }
    }
}

struct Worker<'a> {
    shift: Shift<'a>,
    gate: &'a Gate,
    random: Random,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    schedule: Option<Schedule>,
    measuring: bool,
    cpu_start_ns: u64,
    moved_ns: u64,
    moved: (u64, u64, u64),
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The life of worker `index`: connects, waits for the others at the gate, works, and returns what it counted.
pub(super) fn work(job: &Job, gate: &Gate, index: usize) -> Result<Tally, LoadError> {
    // A core that is not there to pin to costs accuracy, not correctness.
    let _ = crate::machine::pin_to(&[job.cores[index]]);
    let connected = Worker::connect(job, gate, index);
    gate.connected.wait();
    gate.opened.wait();
    let mut worker = connected?;
    worker.shift.base = *gate.base.get().expect("set before the gate opens");
    if let (Pace::Open { rate }, Stop::After { .. }) = (job.pace, job.stop) {
        let workers = job.cores.len();
        worker.schedule = Some(Schedule::new(
            rate,
            index,
            workers,
            gate.end_ns.load(Relaxed),
        ));
    }
    worker.run()
}

impl<'a> Worker<'a> {
    fn connect(job: &'a Job, gate: &'a Gate, index: usize) -> Result<Worker<'a>, LoadError> {
        let workers = job.cores.len() as u32;
        let share =
            job.connections / workers + u32::from((index as u32) < job.connections % workers);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut worker = Worker {
            shift: Shift {
                job,
                tally: Tally::default(),
                scratch: vec![0; SCRATCH_BYTES],
                sink: vec![0; SINK_BYTES],
                now_ns: 0,
                base: Instant::now(),
                asked: index as u64,
            },
            gate,
            random: Random::new(job.seed.wrapping_mul(31).wrapping_add(index as u64)),
            epoll,
            connections: Vec::with_capacity(share as usize),
            idle: Vec::new(),
            schedule: None,
            measuring: false,
            cpu_start_ns: 0,
            moved_ns: 0,
            moved: (0, 0, 0),
        };
        for at in 0..share as usize {
            worker.connections.push(Connection::connect(&job.target)?);
            worker.register(at)?;
            worker.idle.push(at);
        }
        Ok(worker)
    }

    fn register(&self, at: usize) -> io::Result<()> {
        let socket = self.connections[at].wire.socket();
        let data = epoll::EventData::new_u64(at as u64);
        Ok(epoll::add(
            &self.epoll,
            socket,
            data,
            epoll::EventFlags::IN,
        )?)
    }

    fn wait_to_send(&mut self, at: usize, wanted: bool) -> io::Result<()> {
        let connection = &mut self.connections[at];
        if connection.waits_to_send == wanted {
            return Ok(());
        }
        connection.waits_to_send = wanted;
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, wanted);
        let data = epoll::EventData::new_u64(at as u64);
        Ok(epoll::modify(
            &self.epoll,
            connection.wire.socket(),
            data,
            flags,
        )?)
    }

    fn run(mut self) -> Result<Tally, LoadError> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            self.shift.look_at_clock();
            self.edge();
            self.hand_out()?;
            if self.is_over() {
                break;
            }
            let timeout = self.timeout();
            let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout));
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            self.shift.look_at_clock();
            self.edge();
            for event in events.drain(..) {
                self.drive(event.data.u64() as usize)?;
            }
            self.watch_for_trouble()?;
        }
        if !self.measuring {
            self.cpu_start_ns = thread_cpu_ns();
        }
        self.shift.tally.cpu_ns = thread_cpu_ns() - self.cpu_start_ns;
        self.give_up_the_rest();
        Ok(self.shift.tally)
    }

    /// Begins the measured window when it is time.
    fn edge(&mut self) {
        if !self.measuring && self.shift.now_ns >= self.gate.start_ns.load(Relaxed) {
            self.measuring = true;
            let messages = std::mem::take(&mut self.shift.tally.messages);
            let (errors, wrong) = (self.shift.tally.errors, self.shift.tally.wrong_bytes);
            // Time is thrown away, wrongness never.
            self.shift.tally = Tally {
                errors,
                wrong_bytes: wrong,
                messages,
                ..Tally::default()
            };
            self.cpu_start_ns = thread_cpu_ns();
        }
    }

    /// Gives idle connections what is due.
    fn hand_out(&mut self) -> Result<(), LoadError> {
        while let Some(at) = self.idle.last().copied() {
            let Some((key, due_ns)) = self.next() else {
                return Ok(());
            };
            self.idle.pop();
            let connection = &mut self.connections[at];
            connection.begin(key, due_ns, &mut self.random, &mut self.shift);
            self.drive(at)?;
        }
        Ok(())
    }

    /// The next request: its key and when it was due.
    fn next(&mut self) -> Option<(u32, u64)> {
        let job = self.shift.job;
        let now = self.shift.now_ns;
        let due = match &mut self.schedule {
            Some(schedule) => schedule.take(now)?,
            None => now,
        };
        let ticket = match job.stop {
            Stop::Count { requests } => {
                let ticket = self.gate.tickets.fetch_add(1, Relaxed);
                (ticket < requests).then_some(ticket)?
            }
            Stop::After { .. }
                if self.schedule.is_none() && now >= self.gate.end_ns.load(Relaxed) =>
            {
                return None;
            }
            Stop::After { .. } => self.shift.asked,
        };
        Some((job.picks.draw(ticket, &mut self.random), due))
    }

    /// Lets one connection do what it can, with as many requests as come to their end.
    fn drive(&mut self, at: usize) -> Result<(), LoadError> {
        loop {
            match self.connections[at].turn(&mut self.shift) {
                Turn::Waits => return Ok(self.wait_to_send(at, false)?),
                Turn::WaitsToSend => return Ok(self.wait_to_send(at, true)?),
                Turn::Done if self.connections[at].closes() => {
                    self.connect_anew(at)?;
                }
                Turn::Done => {}
                Turn::Lost => {
                    let idle = self.connections[at].is_idle() && self.idle.contains(&at);
                    if self.connect_anew(at)? {
                        continue;
                    }
                    if idle {
                        return Ok(());
                    }
                }
            }
            match self.next() {
                Some((key, due_ns)) => {
                    let connection = &mut self.connections[at];
                    connection.begin(key, due_ns, &mut self.random, &mut self.shift);
                }
                None => {
                    self.idle.push(at);
                    return Ok(());
                }
            }
        }
    }

    /// A new connection in the place of one that ended; true if its request goes on.
    fn connect_anew(&mut self, at: usize) -> Result<bool, LoadError> {
        let wire = super::target::Wire::connect(&self.shift.job.target)?;
        let goes_on = self.connections[at].again(wire);
        self.register(at)?;
        Ok(goes_on)
    }

    fn is_over(&self) -> bool {
        let now = self.shift.now_ns;
        let all_idle = self.idle.len() == self.connections.len();
        match self.shift.job.stop {
            Stop::Count { requests } => all_idle && self.gate.tickets.load(Relaxed) >= requests,
            Stop::After { .. } => {
                let end = self.gate.end_ns.load(Relaxed);
                match &self.schedule {
                    None => now >= end,
                    Some(schedule) => {
                        let answered = all_idle && schedule.due_ns().is_none();
                        now >= end && (answered || now >= end + DRAIN_NS)
                    }
                }
            }
        }
    }

    fn timeout(&self) -> Timespec {
        let now = self.shift.now_ns;
        let mut until = now + SLEEP_MAX_NS;
        let window = [&self.gate.start_ns, &self.gate.end_ns];
        for edge in window.map(|edge| edge.load(Relaxed)) {
            if edge > now {
                until = until.min(edge);
            }
        }
        let due = self.schedule.as_ref().and_then(Schedule::due_ns);
        if let Some(due) = due.filter(|_| !self.idle.is_empty()) {
            until = until.min(due.max(now));
        }
        Timespec {
            tv_sec: 0,
            tv_nsec: (until - now) as i64,
        }
    }

    fn watch_for_trouble(&mut self) -> Result<(), LoadError> {
        let tally = &self.shift.tally;
        if tally.errors > ERRORS_MAX {
            return Err(LoadError::Errors(tally.messages.join("; ")));
        }
        let moved = (tally.requests, tally.bytes, tally.errors);
        let resting = self.idle.len() == self.connections.len();
        if moved != self.moved || resting {
            self.moved = moved;
            self.moved_ns = self.shift.now_ns;
        } else if self.shift.now_ns > self.moved_ns + STALL_NS {
            return Err(LoadError::Stalled(STALL_NS / 1_000_000_000));
        }
        Ok(())
    }

    /// Requests of an open schedule that were due and never answered count with the time they have waited.
    fn give_up_the_rest(&mut self) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        let now = self.shift.now_ns;
        let pending = self
            .connections
            .iter()
            .filter(|connection| !connection.is_idle());
        let mut due: Vec<u64> = pending.map(Connection::due_ns).collect();
        due.extend(std::iter::from_fn(|| schedule.take(u64::MAX)));
        for due_ns in due {
            self.shift
                .tally
                .latency
                .record_ns(now.saturating_sub(due_ns));
            self.shift.tally.fail(|| "never answered".to_string());
        }
    }
}

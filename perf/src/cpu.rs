//! Whose CPU time it was: a server's with all its processes and threads, ours, and everybody else's.
//!
//! Read by the bench at the edges of the measured window, from `/proc`. Invariants: a process counts with its threads
//! (io_uring workers too, which the kernel accounts to it) and its descendants; what neither a known process nor we
//! used is foreign, and a run with much of it says little. Ticks are 10 ms: short runs are coarse.

use std::collections::HashMap;
use std::fs;
use std::time::Instant;

use crate::results::Cpu;

/// CPU used up to one moment.
#[derive(Debug, Clone)]
struct Moment {
    when: Instant,
    server: Cpu,
    /// Of us and of the other processes that belong to the measurement.
    known_s: f64,
    busy_s: f64,
    steal_s: f64,
}

/// CPU used between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Of the server.
    pub server: Cpu,
    /// Cores kept busy by processes that do not belong here.
    pub foreign_cores: f64,
    /// Cores that the hypervisor took.
    pub steal: f64,
}

/// Watches processes between two moments.
#[derive(Debug)]
pub struct Watch {
    server: Vec<u32>,
    others: Vec<u32>,
    start: Option<Moment>,
}

impl Watch {
    /// Of a server's processes, and of others that belong to the measurement; we always do.
    pub fn new(server: Vec<u32>, others: Vec<u32>) -> Watch {
        let start = None;
        Watch {
            server,
            others,
            start,
        }
    }

    /// The first moment.
    pub fn start(&mut self) {
        self.start = Some(self.moment());
    }

    /// The second; `None` without a first.
    pub fn end(&self) -> Option<Usage> {
        let (from, to) = (self.start.as_ref()?, self.moment());
        let seconds = (to.when - from.when).as_secs_f64().max(1e-6);
        let server = Cpu {
            user_s: to.server.user_s - from.server.user_s,
            system_s: to.server.system_s - from.server.system_s,
        };
        let known = server.user_s + server.system_s + to.known_s - from.known_s;
        Some(Usage {
            server,
            foreign_cores: ((to.busy_s - from.busy_s - known) / seconds).max(0.0),
            steal: (to.steal_s - from.steal_s) / seconds,
        })
    }

    fn moment(&self) -> Moment {
        let processes = processes();
        let sum = |roots: &[u32]| {
            let mut cpu = Cpu::default();
            for pid in tree(&processes, roots) {
                cpu.user_s += processes[&pid].cpu.user_s;
                cpu.system_s += processes[&pid].cpu.system_s;
            }
            cpu
        };
        let server = sum(&self.server);
        let others = sum(&self.others);
        let own = processes
            .get(&std::process::id())
            .map_or(Cpu::default(), |process| process.cpu);
        let (busy_s, steal_s) = machine();
        Moment {
            when: Instant::now(),
            server,
            known_s: others.user_s + others.system_s + own.user_s + own.system_s,
            busy_s,
            steal_s,
        }
    }
}

/// The processes below these, themselves included.
pub fn descendants(roots: &[u32]) -> Vec<u32> {
    tree(&processes(), roots)
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Process {
    parent: u32,
    cpu: Cpu,
}

fn tick_s() -> f64 {
    1.0 / rustix::param::clock_ticks_per_second() as f64
}

fn processes() -> HashMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, parse_stat(&stat)?))
    })
    .collect()
}

/// Parent, user and system ticks; what stands before the last `)` may hold anything.
fn parse_stat(text: &str) -> Option<Process> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        cpu: Cpu {
            user_s: ticks(11)? as f64 * tick_s(),
            system_s: ticks(12)? as f64 * tick_s(),
        },
    })
}

fn tree(processes: &HashMap<u32, Process>, roots: &[u32]) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let known = roots
        .iter()
        .copied()
        .filter(|pid| processes.contains_key(pid));
    let mut open: Vec<u32> = known.collect();
    while let Some(pid) = open.pop() {
        if found.contains(&pid) {
            continue;
        }
        found.push(pid);
        let children = processes
            .iter()
            .filter(|(_, process)| process.parent == pid);
        open.extend(children.map(|(child, _)| *child));
    }
    found
}

/// Busy and stolen seconds of all cores since boot.
fn machine() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_machine(&text).unwrap_or_default()
}

fn parse_machine(text: &str) -> Option<(f64, f64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq, steal: what is not idle is busy.
    let (running, rest) = ticks.split_at_checked(3)?;
    let interrupts = rest.get(2..4)?;
    let busy: u64 = running.iter().chain(interrupts).sum();
    Some((busy as f64 * tick_s(), *rest.get(4)? as f64 * tick_s()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_mislead() {
        let text = "7 (a) S 3) R 42 7 7 0 -1 4194560 1 2 3 4 250 150 5 6 20 0 1 0 9 9 9";
        let process = parse_stat(text).expect("a process");
        assert_eq!(process.parent, 42);
        assert!((process.cpu.user_s - 250.0 * tick_s()).abs() < 1e-9);
        assert!((process.cpu.system_s - 150.0 * tick_s()).abs() < 1e-9);
    }

    #[test]
    fn busy_is_what_is_not_idle() {
        let (busy, steal) = parse_machine("cpu  1 2 3 100 50 4 5 6 0 0\ncpu0 1").expect("a line");
        assert!((busy - 15.0 * tick_s()).abs() < 1e-9);
        assert!((steal - 6.0 * tick_s()).abs() < 1e-9);
    }

    #[test]
    fn descendants_are_found_through_their_parents() {
        let of = |parent| Process {
            parent,
            cpu: Cpu::default(),
        };
        let processes = HashMap::from([(10, of(1)), (11, of(10)), (12, of(11)), (13, of(1))]);
        let mut found = tree(&processes, &[10, 99]);
        found.sort_unstable();
        assert_eq!(found, [10, 11, 12]);
    }

    #[test]
    fn our_own_work_is_not_foreign() {
        let mut watch = Watch::new(vec![std::process::id()], Vec::new());
        assert!(watch.end().is_none());
        watch.start();
        let begun = Instant::now();
        while begun.elapsed().as_millis() < 100 {
            std::hint::spin_loop();
        }
        let usage = watch.end().expect("started");
        assert!(usage.server.user_s + usage.server.system_s > 0.0);
    }
}

//! The machine of a measurement: its facts, its cores, and a network of our own with one congestion control.
//!
//! Called by the bench before anything is started. On loopback, bbr paces by timers and hides every difference, and
//! not every server can choose; so all parties run in a network namespace whose routes carry the choice
//! (`ip route … congctl cubic`), which a socket takes over from its route. Invariant: what is reported is what sockets
//! say, never what was asked for. Left to others: starting servers.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::Command;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::results::Machine;

/// What every party shall use.
pub const CONGESTION: &str = "cubic";

/// Pins the calling thread, and what it starts, to these cores.
pub fn pin_to(cores: &[u32]) -> io::Result<()> {
    Ok(sched_setaffinity(None, &set_of(cores))?)
}

/// Pins a running process, all its threads.
pub fn pin_process(pid: u32, cores: &[u32]) -> io::Result<()> {
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(thread) = thread.and_then(rustix::process::Pid::from_raw) {
            sched_setaffinity(Some(thread), &set_of(cores))?;
        }
    }
    Ok(())
}

fn set_of(cores: &[u32]) -> CpuSet {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core as usize);
    }
    set
}

/// The cores that we may run on.
pub fn cores() -> Vec<u32> {
    let Ok(set) = sched_getaffinity(None) else {
        return vec![0];
    };
    let all = 0..CpuSet::MAX_CPU as u32;
    all.filter(|core| set.is_set(*core as usize)).collect()
}

/// Splits the cores: `wanted` for the server, the rest for the client and the origin. Where none would be left, all
/// share all.
pub fn split(cores: &[u32], wanted: usize) -> (Vec<u32>, Vec<u32>) {
    let (server, client) = cores.split_at(wanted.min(cores.len()));
    let client = if client.is_empty() { server } else { client };
    (server.to_vec(), client.to_vec())
}

/// Why there is no network of our own.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// It takes rights that we do not have.
    #[error("a network namespace of our own: {0}")]
    Namespace(io::Error),
    /// It could not be set up.
    #[error("`ip {arguments}`: {reason}")]
    Ip {
        /// What was asked for.
        arguments: String,
        /// What it said.
        reason: String,
    },
}

/// Moves the calling thread, and what it starts from now on, into a network that has only loopback, where every
/// connection uses [`CONGESTION`]. Call it before there are other threads.
pub fn enter_own_network() -> Result<(), NetworkError> {
    #[expect(
        deprecated,
        reason = "unsafe only for CLONE_FILES, which is not asked for"
    )]
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET)
        .map_err(|error| NetworkError::Namespace(error.into()))?;
    ip(&["link", "set", "lo", "up"])?;
    for prefix in ["127.0.0.0/8", "127.0.0.1"] {
        let words = format!(
            "route replace local {prefix} dev lo proto kernel scope host src 127.0.0.1 table local \
             congctl {CONGESTION}"
        );
        let words: Vec<&str> = words.split_ascii_whitespace().collect();
        ip(&words)?;
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), NetworkError> {
    let failed = |reason: String| NetworkError::Ip {
        arguments: arguments.join(" "),
        reason,
    };
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_string(),
        )),
    }
}

/// The congestion controls of this network's established connections, as the kernel tells; empty where `ss` is
/// missing.
pub fn congestion_in_force() -> BTreeSet<String> {
    let output = Command::new("ss")
        .args(["-Htin", "state", "established"])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    congestion_of(&String::from_utf8_lossy(&text))
}

/// The second line of each connection is `\t cubic wscale:…`.
fn congestion_of(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('\t'))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.find(|word| {
                !word.contains(':') && *word != "ts" && *word != "sack" && *word != "ecn"
            })
        })
        .map(str::to_string)
        .collect()
}

/// The facts of this machine.
pub fn describe(server_cores: &[u32], client_cores: &[u32]) -> Machine {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let memory_kib = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    Machine {
        cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_string(),
        memory_bytes: memory_kib << 10,
        congestion: String::new(),
        server_cores: server_cores.to_vec(),
        client_cores: client_cores.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_client_never_share_a_core_if_there_are_two() {
        assert_eq!(split(&[0, 1], 1), (vec![0], vec![1]));
        assert_eq!(split(&[0, 1], 2), (vec![0, 1], vec![0, 1]));
        assert_eq!(split(&[2, 3, 6, 7], 2), (vec![2, 3], vec![6, 7]));
        assert_eq!(split(&[5], 1), (vec![5], vec![5]));
    }

    #[test]
    fn congestion_is_read_from_what_sockets_say() {
        let text = "0 0 127.0.0.1:80 127.0.0.1:9\n\t ts sack cubic wscale:7,7 rto:201\n\
                    0 0 127.0.0.1:9 127.0.0.1:80\n\t bbr wscale:7,7 bbr:(bw:1)\n";
        let want: BTreeSet<String> = ["bbr", "cubic"].map(str::to_string).into();
        assert_eq!(congestion_of(text), want);
    }
}

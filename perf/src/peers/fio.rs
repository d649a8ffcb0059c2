//! fio: not a peer but what the disk itself gives, read past the page cache as millrace reads it.
//!
//! A party of scenarios whose state is `disk`: a file of the object's size, read from its first byte to its last on the server's core. It serves nobody, so its
//! CPU says what reading alone costs. Its memory is huge pages where enough of them are free (`vm.nr_hugepages`): a disk that is given pieces of 4 KiB may be much slower.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use super::{Peer, PeerError, Setup, failed, kept, program, version, words};
use crate::load::requests::SEED;
use crate::machine;
use crate::origin::generate::Content;
use crate::results::{Cpu, Party, Quantiles, Run};
use crate::scenario::State;

const NAME: &str = "fio";
/// One read of millrace's loader, and how many of them a stripe has in flight.
const BLOCK: &str = "256k";
const DEPTH: &str = "16";
/// Huge pages that its memory fits into.
const HUGE_PAGES: u64 = 4;

pub(super) fn start(setup: &Setup<'_>) -> Result<Peer, PeerError> {
    let binary = program(NAME)?;
    if setup.scenario.load.state != State::Disk {
        return Err(PeerError::Unable {
            name: NAME.to_string(),
            reason: "only reads a disk",
        });
    }
    let folder = setup.folder(NAME).map_err(failed(NAME))?;
    let file = folder.join("file");
    let size = setup.scenario.objects.size.0;
    write(&file, size).map_err(failed(NAME))?;
    Ok(Peer {
        party: Party {
            name: NAME.to_string(),
            version: version(&binary, "--version"),
            command: kept(&words(&command(&file)?), setup.dir),
            config: String::new(),
        },
        addr: None,
        process: None,
        start: None,
        reads: Some(file),
    })
}

/// Its own content, on the disk when this returns.
fn write(path: &Path, size: u64) -> io::Result<()> {
    let content = Content::new(size, SEED);
    let mut file = std::fs::File::create(path)?;
    let mut at = 0;
    while at < size {
        let piece = content.slice(at, (size - at).min(1 << 20) as usize);
        file.write_all(piece)?;
        at += piece.len() as u64;
    }
    file.sync_all()
}

fn command(file: &Path) -> Result<Command, PeerError> {
    let mut command = Command::new(program(NAME)?);
    command.args([
        "--name=disk",
        "--rw=read",
        "--direct=1",
        "--ioengine=io_uring",
    ]);
    command.arg(format!("--bs={BLOCK}"));
    command.arg(format!("--iodepth={DEPTH}"));
    command.args(["--thread=1", "--output-format=json"]);
    command.arg(format!("--filename={}", file.display()));
    if huge_pages_free() >= HUGE_PAGES {
        command.args(["--iomem=mmaphuge", "--hugepage-size=2m"]);
    }
    Ok(command)
}

/// Huge pages that nobody uses.
fn huge_pages_free() -> u64 {
    let said = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = said.lines().find(|line| line.starts_with("HugePages_Free"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Reads the file once, on these cores.
pub fn run(file: &Path, cores: &[u32]) -> Result<Run, PeerError> {
    let mut command = command(file)?;
    let cores = cores.to_owned();
    let start = std::thread::spawn(move || {
        // A child takes over the cores of the thread that starts it.
        machine::pin_to(&cores)?;
        command.output()
    });
    let output = start.join().expect("starting does not panic");
    let output = output.map_err(failed(NAME))?;
    parse(&output.stdout).ok_or_else(|| PeerError::NotServing {
        name: NAME.to_string(),
        why: String::from_utf8_lossy(&output.stderr).trim().to_string(),
    })
}

/// What fio says of its one job.
fn parse(said: &[u8]) -> Option<Run> {
    let said: serde_json::Value = serde_json::from_slice(said).ok()?;
    let job = &said["jobs"][0];
    let read = &job["read"];
    let seconds = read["runtime"].as_f64()? / 1e3;
    let share = |name: &str| Some(job[name].as_f64()? / 100.0 * seconds);
    if seconds <= 0.0 {
        return None;
    }
    Some(Run {
        party: NAME.to_string(),
        round: 0,
        position: 0,
        seconds,
        requests: 1,
        bytes: read["io_bytes"].as_u64()?,
        errors: u64::from(job["error"].as_u64()? != 0),
        wrong_bytes: 0,
        verified_bodies: 0,
        latency: Quantiles::default(),
        first_byte: Quantiles::default(),
        last_byte_s: None,
        histogram: String::new(),
        server_cpu: Some(Cpu {
            user_s: share("usr_cpu")?,
            system_s: share("sys_cpu")?,
        }),
        client_cpu_s: 0.0,
        client_busy: 0.0,
        origin: None,
        foreign_cores: 0.0,
        steal: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fio_says_is_a_run() {
        let said = br#"{"jobs": [{"error": 0, "usr_cpu": 1.0, "sys_cpu": 9.0,
            "read": {"io_bytes": 1073741824, "runtime": 500}}]}"#;
        let run = parse(said).expect("a job");
        assert_eq!((run.bytes, run.errors), (1 << 30, 0));
        let cpu = run.server_cpu.expect("its own");
        assert!((cpu.user_s + cpu.system_s - 0.05).abs() < 1e-9);
        assert!((run.seconds - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_report_is_no_run() {
        for said in [&b""[..], b"{}", br#"{"jobs": [{"read": {"runtime": 0}}]}"#] {
            assert!(parse(said).is_none());
        }
    }
}

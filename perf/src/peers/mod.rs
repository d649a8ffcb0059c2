//! The parties of a measurement: millrace and its peers, each started on loopback with a generated configuration.
//!
//! Called by the bench. Invariants: every peer is set up as its friends would (each file says how and why); all get
//! the same cores, the same origin, the same memory; a peer that is not installed is skipped and said so, never
//! replaced. Left to others: load, counting.

mod ats;
mod bare;
pub mod fio;
mod haproxy;
mod millrace;
mod nginx;
pub mod origin;
pub mod process;
mod varnish;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::origin::Origin;
use self::process::Process;
use crate::results::Party;
use crate::scenario::{Scenario, Variant};

/// Memory of each peer's cache, GiB; millrace's is in the scenario.
const CACHE_GIB: u64 = 2;

/// Peers by name, besides the variants of millrace.
pub const NAMES: &[&str] = &[
    "direct", "bare", "nginx", "haproxy", "varnish", "ats", "fio",
];

/// Why a party is not there.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// There is no such peer.
    #[error("no peer {0}; there are {list}", list = NAMES.join(", "))]
    Unknown(String),
    /// Its program is not on this machine.
    #[error("{0} is not installed")]
    Missing(String),
    /// It cannot do this scenario.
    #[error("{name} {reason}")]
    Unable {
        /// The peer.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// Its configuration or its start failed.
    #[error("starting {name}: {error}")]
    Start {
        /// The party.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// It was started and does not serve.
    #[error("{name} does not serve: {why}")]
    NotServing {
        /// The party.
        name: String,
        /// What is known.
        why: String,
    },
}

impl PeerError {
    /// Whether the measurement may go on without this party.
    pub fn is_skip(&self) -> bool {
        matches!(self, PeerError::Missing(_) | PeerError::Unable { .. })
    }
}

/// What a party is started with.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The folder for configuration and disk caches.
    pub dir: &'a Path,
    /// Who is asked for what is not cached.
    pub origin: &'a Origin,
    /// What will be measured.
    pub scenario: &'a Scenario,
    /// The cores of servers.
    pub cores: &'a [u32],
    /// The millrace binary.
    pub millrace: &'a Path,
}

impl Setup<'_> {
    /// A folder of this party's own.
    fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.dir.join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// A running party.
#[derive(Debug)]
pub struct Peer {
    /// What is kept about it.
    pub party: Party,
    /// Where it serves; `None` is the origin itself, or nobody.
    pub addr: Option<SocketAddr>,
    /// Its process; `None` where it is the origin's, or where there is none between runs.
    pub process: Option<Process>,
    /// What started it, where that is a process.
    start: Option<Start>,
    /// It reads this file instead of serving.
    pub reads: Option<PathBuf>,
}

/// How a process is started again.
#[derive(Debug)]
struct Start {
    command: Command,
    dir: PathBuf,
    cores: Vec<u32>,
}

impl Peer {
    /// Ends it, drops the kernel's copies of its files, and starts it again: what it kept is then on disk alone.
    pub fn restart_on_disk(&mut self) -> Result<(), PeerError> {
        self.process = None;
        let name = &self.party.name;
        if let Some(file) = &self.reads {
            return drop_page_cache(file).map_err(failed(name));
        }
        let (Some(start), Some(addr)) = (&mut self.start, self.addr) else {
            return Ok(());
        };
        drop_page_cache(&start.dir.join(name)).map_err(failed(name))?;
        let mut process = Process::spawn(name, &mut start.command, &start.dir, &start.cores)?;
        process.wait_until_open(addr)?;
        self.process = Some(process);
        Ok(())
    }
}

/// Makes the kernel forget the pages of a file, or of all files below a folder.
fn drop_page_cache(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            drop_page_cache(&entry?.path())?;
        }
        return Ok(());
    }
    if !path.is_file() {
        return Ok(());
    }
    let file = std::fs::File::open(path)?;
    // Only clean pages can be dropped.
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// What starts a party: its command and what is kept about it.
#[derive(Debug)]
struct Plan {
    command: Command,
    version: String,
    config: String,
    addr: SocketAddr,
}

/// Starts a peer by name.
pub fn start(name: &str, setup: &Setup<'_>) -> Result<Peer, PeerError> {
    let plan = match name {
        "direct" => return Ok(direct(setup)),
        "bare" => bare::plan(setup),
        "nginx" => nginx::plan(setup),
        "haproxy" => haproxy::plan(setup),
        "varnish" => varnish::plan(setup),
        "ats" => ats::plan(setup),
        "fio" => return fio::start(setup),
        _ => return Err(PeerError::Unknown(name.to_string())),
    };
    run(name, plan?, setup, setup.cores)
}

/// Starts a variant of millrace.
pub fn start_millrace(variant: &Variant, setup: &Setup<'_>) -> Result<Peer, PeerError> {
    let cores = &setup.cores[..setup.cores.len().min(variant.shards as usize)];
    run(
        &variant.name,
        millrace::plan(variant, setup, cores)?,
        setup,
        cores,
    )
}

fn direct(setup: &Setup<'_>) -> Peer {
    let party = Party {
        name: "direct".to_string(),
        ..setup.origin.party.clone()
    };
    Peer {
        party,
        addr: None,
        process: None,
        start: None,
        reads: None,
    }
}

fn run(name: &str, plan: Plan, setup: &Setup<'_>, cores: &[u32]) -> Result<Peer, PeerError> {
    let mut command = plan.command;
    let party = Party {
        name: name.to_string(),
        version: plan.version,
        command: kept(&words(&command), setup.dir),
        config: kept(&plan.config, setup.dir),
    };
    let mut process = Process::spawn(name, &mut command, setup.dir, cores)?;
    process.wait_until_open(plan.addr)?;
    Ok(Peer {
        party,
        addr: Some(plan.addr),
        process: Some(process),
        start: Some(Start {
            command,
            dir: setup.dir.to_owned(),
            cores: cores.to_owned(),
        }),
        reads: None,
    })
}

/// Where the run's folder lay is this machine's business, too.
fn kept(text: &str, dir: &Path) -> String {
    text.replace(&dir.display().to_string(), "SCRATCH")
}

fn words(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), value?.display())));
    // Where the program lies is this machine's business; its version is kept beside.
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let program = [program].into_iter().chain(command.get_args());
    let words: Vec<String> = set
        .chain(program.map(|word| word.display().to_string()))
        .collect();
    words.join(" ")
}

/// Finds a program; the folders of system programs count also where the path leaves them out.
fn program(name: &str) -> Result<PathBuf, PeerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    let mut files = folders
        .map(|folder| folder.join(name))
        .filter(|file| file.is_file());
    files
        .next()
        .ok_or_else(|| PeerError::Missing(name.to_string()))
}

/// The first line that a program says about its version.
fn version(program: &Path, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return String::new();
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    said.lines().next().unwrap_or_default().trim().to_string()
}

fn failed(name: &str) -> impl Fn(io::Error) -> PeerError + '_ {
    move |error| PeerError::Start {
        name: name.to_string(),
        error,
    }
}

fn free_addr(name: &str) -> Result<SocketAddr, PeerError> {
    crate::net::free_loopback_addr().map_err(failed(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_missing_is_a_skip() {
        let missing = program("no-such-program-anywhere").expect_err("it is not there");
        assert!(missing.is_skip());
        assert!(program("sh").is_ok());
    }

    #[test]
    fn commands_are_kept_as_they_could_be_typed() {
        let mut command = Command::new("/some/where/serve");
        command.env("A", "1").args(["--x", "y"]);
        assert_eq!(words(&command), "A=1 serve --x y");
    }
}

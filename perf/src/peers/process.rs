//! A server process of a measurement: started on its cores, waited for, ended with all that came of it.
//!
//! Used for the origin and for every party. Invariants: a process that was started is ended, also when the bench fails
//! half way or is told to end; only processes that were started here are ended, by their number. Left to others:
//! configuration.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::PeerError;
use crate::{cpu, machine};

const OPEN_WITHIN: Duration = Duration::from_secs(30);
const END_WITHIN: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(10);
const REMOVALS_MAX: u32 = 100;

/// What must go when we are told to end: processes and folders.
static LEFT: Mutex<(Vec<u32>, Vec<PathBuf>)> = Mutex::new((Vec::new(), Vec::new()));

/// Ends every process that was started here and takes its folders away: for a process that is told to end itself.
pub fn clean_up() {
    let (pids, folders) = std::mem::take(&mut *LEFT.lock().expect("no panic while it is held"));
    end_all(&cpu::descendants(&pids), Signal::KILL);
    for folder in folders {
        // A process that is just ending may still write.
        for _ in 0..REMOVALS_MAX {
            let _ = fs::remove_dir_all(&folder);
            if !folder.exists() {
                break;
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Remembers a folder for [`clean_up`].
pub fn remember_folder(folder: &Path) {
    let mut left = LEFT.lock().expect("no panic while it is held");
    left.1.push(folder.to_path_buf());
}

fn end_all(pids: &[u32], signal: Signal) {
    for pid in pids {
        if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command pinned to these cores; what it says goes to `<name>.log` in `dir`.
    pub fn spawn(
        name: &str,
        command: &mut Command,
        dir: &Path,
        cores: &[u32],
    ) -> Result<Process, PeerError> {
        let failed = |error| PeerError::Start {
            name: name.to_string(),
            error,
        };
        let path = dir.join(format!("{name}.log"));
        let log = File::create(&path).map_err(failed)?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        // A child takes over the cores of the thread that starts it.
        let child = std::thread::scope(|scope| {
            let start = scope.spawn(|| {
                machine::pin_to(cores)?;
                command.spawn()
            });
            start.join().expect("starting does not panic")
        });
        let child = child.map_err(failed)?;
        LEFT.lock()
            .expect("no panic while it is held")
            .0
            .push(child.id());
        Ok(Process {
            name: name.to_string(),
            child,
            log: path,
        })
    }

    /// Its process id; what it started has others.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it said.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Moves it, with all it started, to other cores.
    pub fn pin(&self, cores: &[u32]) -> io::Result<()> {
        for pid in cpu::descendants(&[self.id()]) {
            machine::pin_process(pid, cores)?;
        }
        Ok(())
    }

    /// Waits until it answers: a port may be open long before somebody serves it.
    pub fn wait_until_open(&mut self, addr: SocketAddr) -> Result<(), PeerError> {
        let begun = Instant::now();
        while begun.elapsed() < OPEN_WITHIN {
            if answers(addr).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failure(&format!("it ended: {status}")));
            }
            std::thread::sleep(POLL);
        }
        Err(self.failure("its port did not open"))
    }

    fn failure(&self, why: &str) -> PeerError {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let from = said.len().saturating_sub(1500);
        let said = said.get(from..).unwrap_or(&said);
        PeerError::NotServing {
            name: self.name.clone(),
            why: format!("{why}; it said: {}", said.trim().replace('\n', " | ")),
        }
    }
}

/// Asks for anything and waits for the first byte of the answer, whatever it is, or for the end: who hangs up serves, too.
fn answers(addr: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(OPEN_WITHIN))?;
    write!(
        stream,
        "HEAD / HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n"
    )?;
    stream.read(&mut [0]).map(drop)
}

impl Drop for Process {
    fn drop(&mut self) {
        let all = cpu::descendants(&[self.id()]);
        end_all(&all[..all.len().min(1)], Signal::TERM);
        let begun = Instant::now();
        while begun.elapsed() < END_WITHIN {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(POLL);
        }
        // Only what is still below us: a number may have been given to another process since.
        let below = cpu::descendants(&[std::process::id()]);
        let rest: Vec<u32> = all.into_iter().filter(|pid| below.contains(pid)).collect();
        end_all(&rest, Signal::KILL);
        let _ = self.child.wait();
        let mut left = LEFT.lock().expect("no panic while it is held");
        left.0.retain(|pid| *pid != self.child.id());
    }
}

//! Handing over to another millrace without a client noticing: the new one is started with the listening sockets, says that it is up, and takes what
//! comes from then on; the old one ends what it has begun, and goes.
//!
//! Both sides are here. They talk over a socket, a line each: `ready` (all is there, no client taken yet), `go` (the old one asks the origin about every
//! copy from now on), `open` (clients are taken). The old one keeps its end open as long as it lives: the new one waits for that before it opens
//! the cache directory, and until then asks the origin about every copy too, since it does not hear of writes through the other. A new one that fails at any point
//! is ended, and the old one goes on.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};

use crate::base::clock;
use crate::io::inherit::{FIRST_FD, HANDOVER};
use crate::io::signals;
use crate::shard::World;

use super::doors::{ADMIN, Door, KEPT};
use super::{Event, wait_until};

/// How long a new process may take to come up, and to open its doors then.
const READY: Duration = Duration::from_secs(120);
const OPEN: Duration = Duration::from_secs(10);
/// What looked at a copy before the doubt began has begun its answer after so long.
const SETTLE_MS: u64 = 50;
/// What comes back from disk says in whole seconds when it was confirmed.
const GRAIN_MS: i64 = 1000;

/// What a new process is given.
pub(super) struct Estate<'a> {
    pub(super) doors: &'a [Door],
    pub(super) admin: &'a OwnedFd,
    pub(super) world: &'a Arc<World>,
}

/// What may go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    /// Two are enough.
    #[error("the process before this one has not ended yet")]
    Crowded,
    /// Before or while it was started.
    #[error("the new process cannot be started: {0}")]
    Start(#[from] std::io::Error),
    /// It has ended.
    #[error("the new process did not come up: {0}")]
    Ended(std::process::ExitStatus),
    /// It did not come up in time.
    #[error("the new process did not come up within {}s, and was ended", READY.as_secs())]
    Late,
}

impl Estate<'_> {
    /// Starts a new process of the same command; what comes of it is an event. Gives the line to it: who shuts that before it has opened its doors
    /// ends it.
    ///
    /// # Errors
    /// It could not be started.
    pub(super) fn pass_on(&self, events: &Sender<Event>) -> Result<UnixStream, HandoverError> {
        if self.world.doubt.is_about_all() {
            return Err(HandoverError::Crowded);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let line = ours.try_clone()?;
        let mut names = Vec::new();
        let mut passed = Vec::new();
        for door in self.doors {
            let kept = if door.listener.is_kept() { KEPT } else { "" };
            names.push(format!("{}{kept}", door.name()));
            passed.push(door.listener.duplicate()?);
        }
        names.push(ADMIN.to_owned());
        passed.push(self.admin.try_clone()?);
        names.push(HANDOVER.to_owned());
        passed.push(theirs.into());
        let mut command = command();
        command
            .env("LISTEN_FDS", names.len().to_string())
            .env("LISTEN_FDNAMES", names.join(":"))
            .env("LISTEN_PID", std::process::id().to_string())
            .env_remove("WATCHDOG_PID")
            .stdin(Stdio::null());
        let mappings = passed.into_iter().zip(FIRST_FD..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mappings.collect())
            .map_err(std::io::Error::other)?;
        let child = signals::deaf_to_hand_over(|| command.spawn())?;
        // Their end is theirs alone, or its end would not be seen.
        drop(command);
        let pid = child.id();
        tracing::info!(pid, "a new process is started to hand over to");
        let (world, events) = (Arc::clone(self.world), events.clone());
        let body = move || {
            let event = match accompany(child, &ours, &world) {
                // Kept open for as long as this process lives.
                Ok(()) => Event::Succeeded { pid, line: ours },
                Err(error) => Event::Failed(error),
            };
            let _ = events.send(event);
        };
        let thread = std::thread::Builder::new().name("handover".to_owned());
        thread.spawn(body)?;
        Ok(line)
    }
}

/// This program, as it was started: a path that names another file now starts that one.
fn command() -> Command {
    let mut arguments = std::env::args_os();
    let program = arguments
        .next()
        .unwrap_or_else(|| OsString::from("millrace"));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn accompany(child: Child, line: &UnixStream, world: &World) -> Result<(), HandoverError> {
    let begun_ms = clock::now_ms();
    if talk(line, world).is_ok() {
        return Ok(());
    }
    let error = end(child, begun_ms);
    if world.doubt.is_about_all() {
        // It may have taken writes for as long as it lived.
        world.doubt.only(i64::MIN, clock::now_ms() as i64);
    }
    error
}

/// Ends a process that has not come up.
fn end(mut child: Child, begun_ms: u64) -> Result<(), HandoverError> {
    let ended = child.try_wait().ok().flatten();
    let took_ms = clock::now_ms() - begun_ms;
    if ended.is_none() && u128::from(took_ms) >= READY.as_millis() {
        let _ = child.kill();
        let _ = child.wait();
        return Err(HandoverError::Late);
    }
    wait_until(clock::now_ms() + 5_000, || {
        !matches!(child.try_wait(), Ok(None))
    });
    let _ = child.kill();
    Err(HandoverError::Ended(child.wait()?))
}

fn talk(line: &UnixStream, world: &World) -> std::io::Result<()> {
    line.set_read_timeout(Some(READY))?;
    expect(line, "ready")?;
    world.doubt.all();
    open(line)
}

fn open(mut line: &UnixStream) -> std::io::Result<()> {
    wait_until(clock::now_ms() + SETTLE_MS, || false);
    line.write_all(b"go\n")?;
    line.set_read_timeout(Some(OPEN))?;
    expect(line, "open")
}

fn expect(line: &UnixStream, word: &str) -> std::io::Result<()> {
    let mut said = String::new();
    // One byte at a time: nothing behind the line is taken.
    BufReader::with_capacity(1, line.take(16)).read_line(&mut said)?;
    match said.trim_end() == word {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The process that hands over to this one.
pub(super) struct Predecessor {
    line: UnixStream,
}

impl Predecessor {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { line: fd.into() }
    }

    /// All is there; waits until the doors may be opened.
    pub(super) fn ready(&mut self) -> std::io::Result<()> {
        self.line.write_all(b"ready\n")?;
        self.line.set_read_timeout(Some(OPEN))?;
        expect(&self.line, "go")
    }

    /// The doors are open. When the other has ended, copies are trusted again, and whoever waits for that hears of it.
    pub(super) fn open(mut self, world: &Arc<World>, begun_ms: i64) -> std::io::Result<Gone> {
        self.line.write_all(b"open\n")?;
        self.line.set_read_timeout(None)?;
        let (gone, gone_end) = channel();
        let world = Arc::clone(world);
        let body = move || {
            let mut sink = [0u8; 16];
            while matches!(self.line.read(&mut sink), Ok(1..)) {}
            world
                .doubt
                .only(begun_ms - GRAIN_MS, clock::now_ms() as i64);
            tracing::info!("the process before this one has ended");
            let _ = gone.send(());
        };
        let thread = std::thread::Builder::new().name("handover".to_owned());
        thread.spawn(body)?;
        Ok(Gone(gone_end))
    }
}

/// What waits for the end of the process before.
pub(super) struct Gone(Receiver<()>);

impl Gone {
    /// Waits for it.
    pub(super) fn wait(self) {
        let _ = self.0.recv();
    }
}

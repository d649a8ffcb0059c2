//! Handing over to another millrace without a client noticing: the new one is started with the listening sockets, says that it is up, and takes what
//! comes from then on; the old one ends what it has begun, and goes.
//!
//! Both sides are here. They talk over a socket, a line each: `ready` (all is there, no client taken yet), `go` (the old one asks the origin about every
//! copy from now on), `open` (clients are taken), `yours` (the old one takes no more). The old one keeps its end open as long as it lives: the new one waits for that
//! before it opens the cache directory, and until then asks the origin about every copy too, since it does not hear of writes through the other.
//!
//! Invariant: whatever becomes of either, one of them serves, unless the old one is told to stop. The old one's main thread alone decides, by what it
//! hears first: `yours`, and it leaves the sockets; or `end`, and the new one goes without harming them. A new one that fails is ended. The line
//! closes without a word only when a process dies: then the other one goes on alone.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};

use crate::base::clock;
use crate::io::inherit::{FIRST_FD, HANDOVER};
use crate::io::signals;
use crate::shard::World;

use super::doors::{ADMIN, AdminSocket, Door, KEPT};
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
    pub(super) admin: &'a AdminSocket,
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
    /// Starts a new process of the same command; what comes of it is an event.
    ///
    /// # Errors
    /// It could not be started.
    pub(super) fn pass_on(&self, events: &Sender<Event>) -> Result<Heir, HandoverError> {
        if self.world.doubt.is_about_all() {
            return Err(HandoverError::Crowded);
        }
        let (ours, theirs) = UnixStream::pair()?;
        let heir = Heir {
            line: ours.try_clone()?,
        };
        let mut names = Vec::new();
        let mut passed = Vec::new();
        for door in self.doors {
            names.push(passed_name(door.name(), door.listener.is_kept()));
            passed.push(door.listener.duplicate()?);
        }
        names.push(passed_name(ADMIN, self.admin.kept));
        passed.push(self.admin.fd.try_clone()?);
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
                Ok(child) => Event::Opened(child),
                Err(error) => Event::Failed(error),
            };
            let _ = events.send(event);
        };
        let thread = std::thread::Builder::new().name("handover".to_owned());
        if let Err(error) = thread.spawn(body) {
            // Nobody would tell it anything else.
            heir.dismiss();
            return Err(error.into());
        }
        Ok(heir)
    }
}

fn passed_name(name: &str, kept: bool) -> String {
    format!("{name}{}", if kept { KEPT } else { "" })
}

/// The line to a new process, kept open for as long as this one lives.
pub(super) struct Heir {
    line: UnixStream,
}

impl Heir {
    /// It has opened its doors: tells it that this process takes no client any more.
    ///
    /// # Errors
    /// It has ended: this process goes on.
    pub(super) fn give(&self, mut child: Child, world: &World) -> Result<(), HandoverError> {
        if (&self.line).write_all(b"yours\n").is_ok() {
            return Ok(());
        }
        let _ = child.kill();
        let ended = child.wait();
        trust_again(world);
        Err(HandoverError::Ended(ended?))
    }

    /// It is not to serve, whatever it has done already.
    pub(super) fn dismiss(&self) {
        let _ = (&self.line).write_all(b"end\n");
        let _ = self.line.shutdown(std::net::Shutdown::Both);
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

fn accompany(mut child: Child, line: &UnixStream, world: &World) -> Result<Child, HandoverError> {
    let begun_ms = clock::now_ms();
    if talk(line, world).is_ok() {
        return Ok(child);
    }
    if world.draining.load(Ordering::SeqCst) {
        // It has been told to end, and drains as this process does.
        return Err(HandoverError::Ended(child.wait()?));
    }
    let _ = (&*line).write_all(b"end\n");
    let error = end(child, begun_ms);
    trust_again(world);
    Err(error)
}

/// No other process lives beside this one; but it may have taken writes for as long as it did.
fn trust_again(world: &World) {
    if world.doubt.is_about_all() {
        world.doubt.only(i64::MIN, clock::now_ms() as i64);
    }
}

/// Ends a process that has not come up.
fn end(mut child: Child, begun_ms: u64) -> HandoverError {
    let ended = child.try_wait().ok().flatten();
    let took_ms = clock::now_ms() - begun_ms;
    if ended.is_none() && u128::from(took_ms) >= READY.as_millis() {
        let _ = child.kill();
        let _ = child.wait();
        return HandoverError::Late;
    }
    wait_until(clock::now_ms() + 5_000, || {
        !matches!(child.try_wait(), Ok(None))
    });
    let _ = child.kill();
    child
        .wait()
        .map_or_else(HandoverError::Start, HandoverError::Ended)
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
    match hear(line)? == word {
        true => Ok(()),
        false => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The next word; an empty one if the other process has ended.
fn hear(line: &UnixStream) -> std::io::Result<String> {
    let mut said = String::new();
    // One byte at a time: nothing behind the line is taken.
    let heard = BufReader::with_capacity(1, line.take(16)).read_line(&mut said);
    match heard {
        Ok(_) => Ok(said.trim_end().to_owned()),
        // It has ended, and had not read all.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// The process that hands over to this one.
pub(super) struct Predecessor {
    line: UnixStream,
    settled: Arc<AtomicBool>,
}

impl Predecessor {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            line: fd.into(),
            settled: Arc::default(),
        }
    }

    /// Whether the sockets are this process's: the other one takes no more clients, or has ended.
    pub(super) fn settled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.settled)
    }

    /// All is there; waits until the doors may be opened. They may if the other process has died, too.
    ///
    /// # Errors
    /// The other process goes on.
    pub(super) fn ready(&mut self) -> std::io::Result<()> {
        // If it cannot be said, what is heard says why.
        let _ = self.line.write_all(b"ready\n");
        self.line.set_read_timeout(Some(OPEN))?;
        match hear(&self.line)?.as_str() {
            "go" => Ok(()),
            "" => {
                tracing::warn!("the process that hands over has died: this one goes on alone");
                Ok(())
            }
            _ => Err(std::io::Error::other("it goes on itself, or stops")),
        }
    }

    /// The doors are open. When the other has ended, copies are trusted again, and whoever waits for that hears of it; that this process is not to
    /// serve after all is an event.
    pub(super) fn open(
        self,
        world: &Arc<World>,
        begun_ms: i64,
        events: Sender<Event>,
    ) -> std::io::Result<(Opened, Gone)> {
        let Self { line, settled } = self;
        line.set_read_timeout(None)?;
        let (gone, gone_end) = channel();
        let world = Arc::clone(world);
        let ears = line.try_clone()?;
        let body = move || {
            loop {
                match hear(&ears).as_deref() {
                    Ok("yours") => settled.store(true, Ordering::SeqCst),
                    Ok("end") => {
                        // The other one drains or serves, so nothing is trusted.
                        tracing::warn!("the process that hands over does not: this one ends");
                        let _ = events.send(Event::Stop);
                        return;
                    }
                    Ok("") | Err(_) => break,
                    Ok(_) => {}
                }
            }
            settled.store(true, Ordering::SeqCst);
            world
                .doubt
                .only(begun_ms - GRAIN_MS, clock::now_ms() as i64);
            tracing::info!("the process before this one has ended");
            let _ = gone.send(());
        };
        let thread = std::thread::Builder::new().name("handover".to_owned());
        thread.spawn(body)?;
        Ok((Opened { line }, Gone(gone_end)))
    }
}

/// Doors that the process before does not know to be open yet.
pub(super) struct Opened {
    line: UnixStream,
}

impl Opened {
    /// Tells it: nothing can fail here any more.
    pub(super) fn say(mut self) {
        // If it has died, that is heard.
        let _ = self.line.write_all(b"open\n");
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

//! Bytes from one socket to another inside the kernel: `splice(2)` through a pipe, non-blocking.
//!
//! Called by `request::tunnel`. A [`Pipe`] is taken from its shard's [`Pipes`] when a socket has something to read, and goes back when it is
//! empty: a tunnel that rests has none. One that is dropped with bytes in it is closed, not given to anybody else. The ring's own splice
//! operation is not used: it parks a kernel thread for each socket that has nothing to read.
//! A peer that has gone raises SIGPIPE here, which `splice` has no flag against: Rust's runtime ignores the signal from the start.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;

use super::Socket;
use super::socket::outcome;

/// What a pipe holds at most; nobody needs a privilege for so much.
pub const PIPE_BYTES: usize = 1 << 20;
/// What a pipe holds where the kernel grants no more (`fs.pipe-user-pages-soft`), or there are many.
const SMALL_BYTES: usize = 64 << 10;
/// Empty pipes that are kept.
const KEPT_MAX: usize = 16;

/// One shard's pipes.
#[derive(Debug)]
pub struct Pipes {
    kept: RefCell<Vec<Ends>>,
    /// Pipes that are large may be so many.
    large_max: Cell<usize>,
    large: Cell<usize>,
    used: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    is_large: bool,
}

/// A pipe on loan, and how many bytes are in it.
#[derive(Debug)]
pub struct Pipe {
    home: Rc<Pipes>,
    ends: Option<Ends>,
    held: usize,
}

impl Pipes {
    /// No pipe yet. Beyond `large_max` at a time they are small.
    #[must_use]
    pub fn new(large_max: usize) -> Rc<Self> {
        Rc::new(Self {
            kept: RefCell::default(),
            large_max: Cell::new(large_max),
            large: Cell::new(0),
            used: Cell::new(0),
        })
    }

    /// Pipes on loan.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.get()
    }

    /// An empty pipe.
    ///
    /// # Errors
    /// The kernel's: descriptors or memory have run out.
    pub fn take(self: &Rc<Self>) -> io::Result<Pipe> {
        let ends = match self.kept() {
            Some(ends) => ends,
            None => self.open()?,
        };
        self.used.set(self.used.get() + 1);
        Ok(Pipe {
            home: Rc::clone(self),
            ends: Some(ends),
            held: 0,
        })
    }

    /// One that is kept, if no better one can be had.
    fn kept(&self) -> Option<Ends> {
        let mut kept = self.kept.borrow_mut();
        let may_be_large = self.large.get() < self.large_max.get();
        match kept.last() {
            Some(ends) if ends.is_large || !may_be_large => kept.pop(),
            _ => None,
        }
    }

    fn open(&self) -> io::Result<Ends> {
        let mut raw = [0; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(raw.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let read = unsafe { OwnedFd::from_raw_fd(raw[0]) };
        // SAFETY: as above.
        let write = unsafe { OwnedFd::from_raw_fd(raw[1]) };
        let large = self.large.get();
        let is_large = large < self.large_max.get() && resize(&write, PIPE_BYTES);
        if is_large {
            self.large.set(large + 1);
        } else {
            // The kernel grants no more of them: it is not asked again.
            self.large_max.set(large);
            // Tiny or not, bytes get through.
            resize(&write, SMALL_BYTES);
        }
        Ok(Ends {
            read,
            write,
            is_large,
        })
    }

    fn close(&self, ends: Ends) {
        if ends.is_large {
            self.large.set(self.large.get() - 1);
        }
        drop(ends);
    }
}

fn resize(pipe: &OwnedFd, bytes: usize) -> bool {
    // SAFETY: plain system call on our own descriptor.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) >= 0 }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.home.used.set(self.home.used.get() - 1);
        let Some(ends) = self.ends.take() else { return };
        let mut kept = self.home.kept.borrow_mut();
        // Bytes that are left in it would come out of somebody else's tunnel.
        if self.held == 0 && kept.len() < KEPT_MAX {
            // The large ones are at the end, where they are taken.
            let at = if ends.is_large { kept.len() } else { 0 };
            kept.insert(at, ends);
        } else {
            drop(kept);
            self.home.close(ends);
        }
    }
}

impl Pipe {
    /// Bytes in it.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes up to `bytes_max` of what has arrived at `from` into the empty pipe; `Ok(Some(0))` is end of stream, `Ok(None)` would block.
    ///
    /// # Errors
    /// The connection's: reset, timed out.
    pub fn pull(&mut self, from: &Socket, bytes_max: usize) -> io::Result<Option<usize>> {
        assert!(
            self.held == 0,
            "a full pipe would look like an empty socket"
        );
        let ends = self.ends.as_ref().expect("taken only when dropped");
        let pulled = outcome(splice(
            from.as_raw_fd(),
            ends.write.as_raw_fd(),
            bytes_max.min(PIPE_BYTES),
        ))?;
        self.held = pulled.unwrap_or(0);
        Ok(pulled)
    }

    /// Gives what `to` takes now of the bytes in the pipe; `Ok(None)` would block.
    ///
    /// # Errors
    /// The connection's: reset, closed by the peer.
    pub fn push(&mut self, to: &Socket) -> io::Result<Option<usize>> {
        let ends = self.ends.as_ref().expect("taken only when dropped");
        let pushed = outcome(splice(ends.read.as_raw_fd(), to.as_raw_fd(), self.held))?;
        if pushed == Some(0) {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held -= pushed.unwrap_or(0);
        Ok(pushed)
    }
}

fn splice(from: i32, to: i32, bytes: usize) -> isize {
    let none = std::ptr::null_mut();
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    // SAFETY: both descriptors are open; null offsets are the streams' own.
    unsafe { libc::splice(from, none, to, none, bytes, flags) }
}

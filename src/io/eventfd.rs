//! An eventfd: how another thread wakes a sleeping shard.
//!
//! Called by the mailboxes. Written from any thread; waited on by the one shard that owns it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The writing side and owner of the descriptor; shared by all threads.
#[derive(Debug)]
pub struct EventFd(OwnedFd);

impl EventFd {
    /// A new counter at zero, close-on-exec and non-blocking.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn raw(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }

    /// Wakes the waiter. A full counter is a wake already under way.
    pub fn notify(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes on our stack; the kernel copies them before it returns.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// The reading side for the shard that owns the mailbox.
    ///
    /// # Errors
    /// The kernel's, when the descriptor cannot be duplicated.
    pub fn waiter(&self) -> io::Result<EventWaiter> {
        let fd = self.0.try_clone()?;
        // The stream type is only the runtime's handle for readiness; no socket call is made on it.
        let stream = monoio::net::TcpStream::from_std(std::net::TcpStream::from(fd))?;
        Ok(EventWaiter(std::rc::Rc::new(stream)))
    }
}

/// The reading side; belongs to one shard's thread.
#[derive(Clone)]
pub struct EventWaiter(std::rc::Rc<monoio::net::TcpStream>);

impl EventWaiter {
    /// Waits until the counter is not zero, and leaves it so.
    pub async fn ready(&self) {
        let _ = self.0.readable(false).await;
    }

    /// Waits until somebody called [`EventFd::notify`] since the last return, then clears the counter.
    pub async fn wait(&self) {
        let _ = self.0.readable(false).await;
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes on our stack; the descriptor is non-blocking.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

//! Sending memory by reference: the kernel queues the pages themselves and nothing is copied.
//!
//! Called by `request` through [`Lender::send`], and by the self-test of `ram` at start. The pages go through a pipe (`vmsplice`, then `splice`),
//! which costs a fifth less than `sendfile` from a memfd: that looks each page up in the file, this walks the mapping. One pipe
//! serves a whole shard, because a send never leaves a byte in it: what the socket does not take is let go at once, and lent again when
//! the socket can be written to. Without a pipe `sendfile` does the work.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::memory::Memory;
use super::socket::outcome;

/// The most bytes that one call may send: what a pipe holds that nobody needs a privilege for.
pub const LEND_BYTES_MAX: usize = 1 << 20;

/// A run of bytes of a [`Memory`] that may be sent by reference: it is not written again before it was punched out.
#[derive(Debug, Clone, Copy)]
pub struct Lent<'m> {
    memory: &'m Memory,
    offset: u64,
    bytes: &'m [u8],
}

impl<'m> Lent<'m> {
    /// `bytes` are those at `offset` of `memory`, seen through one of its views.
    #[must_use]
    pub fn new(memory: &'m Memory, offset: u64, bytes: &'m [u8]) -> Self {
        Self {
            memory,
            offset,
            bytes,
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Without the first `bytes`, which have been sent.
    #[must_use]
    pub fn skip(self, bytes: usize) -> Self {
        Self {
            offset: self.offset + bytes as u64,
            bytes: &self.bytes[bytes..],
            ..self
        }
    }
}

/// One shard's way to send by reference.
#[derive(Debug)]
pub struct Lender {
    pipe: RefCell<Option<Pipe>>,
}

impl Lender {
    /// With a pipe, if the kernel gives one.
    #[must_use]
    pub fn new() -> Self {
        let pipe = Pipe::new();
        if let Err(error) = &pipe {
            tracing::info!(%error, "no pipe for sending by reference: sendfile is used");
        }
        Self {
            pipe: RefCell::new(pipe.ok()),
        }
    }

    /// Without one, for the self-test of what is used then.
    #[must_use]
    pub fn without_pipe() -> Self {
        Self {
            pipe: RefCell::new(None),
        }
    }

    /// Sends up to `bytes_max` of `lent` to a non-blocking socket; `Ok(None)` would block.
    ///
    /// # Errors
    /// The connection's: reset, closed by the peer.
    pub fn send(
        &self,
        to: &impl AsRawFd,
        lent: Lent<'_>,
        bytes_max: usize,
    ) -> io::Result<Option<usize>> {
        let bytes = lent.len().min(bytes_max).min(LEND_BYTES_MAX);
        let mut place = self.pipe.borrow_mut();
        let queued = place.as_ref().map(|pipe| pipe.fill(&lent.bytes[..bytes]));
        let (Some(pipe), Some(Ok(queued))) = (place.as_ref(), queued) else {
            return sendfile(to.as_raw_fd(), lent, bytes);
        };
        let sent = outcome(pipe.splice(to.as_raw_fd(), queued));
        let left = queued - sent.as_ref().map_or(0, |sent| sent.unwrap_or(0));
        if pipe.empty(left).is_err() {
            // A pipe that is not known to be empty would put these bytes into somebody else's answer.
            *place = Pipe::new().ok();
        }
        sent
    }
}

impl Default for Lender {
    fn default() -> Self {
        Self::new()
    }
}

fn sendfile(to: RawFd, lent: Lent<'_>, bytes: usize) -> io::Result<Option<usize>> {
    let mut at = lent.offset as libc::off_t;
    // SAFETY: both descriptors are open; `at` is a valid pointer for the call.
    outcome(unsafe { libc::sendfile(to, lent.memory.fd(), &raw mut at, bytes) })
}

/// A pipe that is empty between two calls, and where to let go what was not sent.
#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    nowhere: File,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let read = unsafe { OwnedFd::from_raw_fd(ends[0]) };
        // SAFETY: as above.
        let write = unsafe { OwnedFd::from_raw_fd(ends[1]) };
        let size = LEND_BYTES_MAX as libc::c_int;
        // A refusal leaves it smaller, and each call sends less.
        // SAFETY: plain system call on our own descriptor.
        unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, size) };
        Ok(Self {
            read,
            write,
            nowhere,
        })
    }

    /// Puts references to the pages of `bytes` into the empty pipe, as many as it takes.
    fn fill(&self, bytes: &[u8]) -> io::Result<usize> {
        let part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let flags = libc::SPLICE_F_NONBLOCK;
        // SAFETY: the kernel reads the one iovec during the call, and takes references to pages that stay mapped for it.
        let taken = unsafe { libc::vmsplice(self.write.as_raw_fd(), &raw const part, 1, flags) };
        match taken {
            1.. => Ok(taken as usize),
            0 => Err(io::ErrorKind::WriteZero.into()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn splice(&self, to: RawFd, bytes: usize) -> isize {
        let none = std::ptr::null_mut();
        // SAFETY: both descriptors are open; null offsets are the streams' own.
        unsafe {
            libc::splice(
                self.read.as_raw_fd(),
                none,
                to,
                none,
                bytes,
                libc::SPLICE_F_NONBLOCK,
            )
        }
    }

    /// Lets go the `left` bytes that are in it.
    fn empty(&self, mut left: usize) -> io::Result<()> {
        while left > 0 {
            match self.splice(self.nowhere.as_raw_fd(), left) {
                gone @ 1.. => left -= gone as usize,
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => return Err(io::Error::last_os_error()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sender.set_nonblocking(true).unwrap();
        (sender, listener.accept().unwrap().0)
    }

    fn painted(bytes: usize) -> Memory {
        let memory = Memory::new(bytes).unwrap();
        for at in 0..bytes {
            // SAFETY: inside the mapping.
            let byte = unsafe { memory.base().add(at) };
            // SAFETY: as above, and nobody else uses it.
            unsafe { byte.write((at / 3 % 251) as u8) };
        }
        memory
    }

    fn slice(memory: &Memory) -> &[u8] {
        // SAFETY: the whole mapping, which nobody writes while the test reads.
        unsafe { std::slice::from_raw_parts(memory.base(), memory.len()) }
    }

    /// A socket that is full gives back what it did not take, and the pipe is empty for the next answer.
    fn two_answers_through(lender: &Lender) {
        let memory = painted(8 << 20);
        let all = slice(&memory);
        for (start, end) in [(0, all.len()), (777, 5_000_001), (4095, 4097)] {
            let (sender, mut receiver) = connection();
            let mut left = Lent::new(&memory, start as u64, &all[start..end]);
            while let Some(sent) = lender.send(&sender, left, LEND_BYTES_MAX).unwrap() {
                left = left.skip(sent);
                if left.is_empty() {
                    break;
                }
            }
            let reader = std::thread::spawn(move || {
                let mut got = Vec::new();
                receiver.read_to_end(&mut got).unwrap();
                got
            });
            while !left.is_empty() {
                match lender.send(&sender, left, LEND_BYTES_MAX).unwrap() {
                    Some(sent) => left = left.skip(sent),
                    None => std::thread::yield_now(),
                }
            }
            drop(sender);
            assert!(reader.join().unwrap() == all[start..end]);
        }
    }

    #[test]
    fn bytes_arrive_through_the_pipe_whatever_the_socket_takes() {
        let lender = Lender::new();
        assert!(lender.pipe.borrow().is_some());
        two_answers_through(&lender);
    }

    #[test]
    fn bytes_arrive_without_a_pipe() {
        two_answers_through(&Lender::without_pipe());
    }

    #[test]
    fn a_peer_that_has_gone_is_an_error_and_leaves_nothing_behind() {
        let lender = Lender::new();
        let memory = painted(1 << 20);
        let lent = Lent::new(&memory, 0, slice(&memory));
        let (sender, receiver) = connection();
        drop(receiver);
        let mut calls = 0;
        while lender.send(&sender, lent, LEND_BYTES_MAX).is_ok() {
            calls += 1;
            assert!(calls < 10_000, "a closed connection takes bytes for ever");
        }
        two_answers_through(&lender);
    }
}

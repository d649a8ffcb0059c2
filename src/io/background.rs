//! A second ring of a shard, for writes to files, and for reads where no block device of this machine answers them: they are handed to the kernel's workers at
//! once, so that submitting one never waits.
//!
//! Called by `file`. monoio offers no flags for its operations, and some filesystems read and write on the submitting thread whatever the ring asks (FUSE,
//! kernel 6.18: a server that did not answer stopped the shard). Completions wake one task through an eventfd. Memory belongs to the ring until its operation is
//! done, whether or not somebody still waits for it.

use std::any::Any;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use io_uring::{IoUring, opcode, squeue, types};

use super::eventfd::EventFd;

/// Operations in flight; more wait for a place in the queue.
const ENTRIES: u32 = 512;

/// One operation under way.
struct Pending {
    waker: Option<Waker>,
    result: Option<i32>,
    /// Nobody waits any more: what it holds goes when the kernel is done.
    abandoned: bool,
    held: Box<dyn Any>,
}

struct Ring {
    ring: IoUring,
    /// What the kernel counts completions on; the ring has its number.
    _event: EventFd,
    pending: Vec<Option<Pending>>,
    free: Vec<usize>,
}

thread_local! {
    static RING: RefCell<Option<Rc<RefCell<Ring>>>> = const { RefCell::new(None) };
}

/// The ring of this thread, made when it is first used.
fn ring() -> io::Result<Rc<RefCell<Ring>>> {
    RING.with(|slot| {
        if let Some(ring) = &*slot.borrow() {
            return Ok(Rc::clone(ring));
        }
        let ring = IoUring::new(ENTRIES)?;
        let event = EventFd::new()?;
        ring.submitter().register_eventfd(event.raw())?;
        let waiter = event.waiter()?;
        let ring = Rc::new(RefCell::new(Ring {
            ring,
            _event: event,
            pending: Vec::new(),
            free: Vec::new(),
        }));
        *slot.borrow_mut() = Some(Rc::clone(&ring));
        let theirs = Rc::clone(&ring);
        super::spawn(async move {
            loop {
                waiter.wait().await;
                theirs.borrow_mut().reap();
            }
        });
        Ok(ring)
    })
}

impl Ring {
    fn reap(&mut self) {
        let done: Vec<(usize, i32)> = self
            .ring
            .completion()
            .map(|entry| (entry.user_data() as usize, entry.result()))
            .collect();
        for (place, result) in done {
            let Some(pending) = self.pending.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            pending.result = Some(result);
            if let Some(waker) = pending.waker.take() {
                waker.wake();
            }
            if pending.abandoned {
                self.forget(place);
            }
        }
    }

    fn forget(&mut self, place: usize) {
        self.pending[place] = None;
        self.free.push(place);
    }

    fn submit(&mut self, entry: squeue::Entry, held: Box<dyn Any>) -> io::Result<usize> {
        let place = self.free.pop().unwrap_or_else(|| {
            self.pending.push(None);
            self.pending.len() - 1
        });
        let entry = entry.flags(squeue::Flags::ASYNC).user_data(place as u64);
        // SAFETY: what the entry points to is in `held`, which stays until its completion has been seen.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.free.push(place);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.pending[place] = Some(Pending {
            waker: None,
            result: None,
            abandoned: false,
            held,
        });
        if let Err(error) = self.ring.submit() {
            // It may still go out with the next one.
            if let Some(pending) = &mut self.pending[place] {
                pending.abandoned = true;
            }
            return Err(error);
        }
        Ok(place)
    }
}

/// An operation's wait; dropping it leaves the operation to the kernel.
struct Wait {
    ring: Rc<RefCell<Ring>>,
    place: usize,
}

impl Wait {
    /// What the operation held, now that it is over.
    fn take(&self) -> Box<dyn Any> {
        let mut ring = self.ring.borrow_mut();
        match &mut ring.pending[self.place] {
            Some(pending) => std::mem::replace(&mut pending.held, Box::new(())),
            None => panic!("an operation is kept while somebody waits for it"),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut ring = self.ring.borrow_mut();
        let done = match &mut ring.pending[self.place] {
            Some(pending) => {
                pending.abandoned = true;
                pending.result.is_some()
            }
            None => false,
        };
        if done {
            ring.forget(self.place);
        }
    }
}

/// What is done with memory and a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Read,
    Write,
}

/// Reads or writes `bytes` bytes at `pointer`, from `offset` of a file on; `held` keeps the memory at its place, and the file open, and comes back.
///
/// # Safety
/// `held` owns what `pointer` names, at one place, until it is dropped, and keeps `fd` open; for a read nobody else looks at the memory meanwhile.
pub(super) async unsafe fn operate<H: 'static>(
    work: Work,
    fd: RawFd,
    (pointer, bytes): (*mut u8, usize),
    offset: u64,
    held: Box<H>,
) -> io::Result<(io::Result<usize>, Box<H>)> {
    let ring = ring()?;
    let fd = types::Fd(fd);
    let entry = match work {
        Work::Read => opcode::Read::new(fd, pointer, bytes as u32)
            .offset(offset)
            .build(),
        Work::Write => opcode::Write::new(fd, pointer, bytes as u32)
            .offset(offset)
            .build(),
    };
    let place = ring.borrow_mut().submit(entry, held)?;
    let wait = Wait { ring, place };
    let result = poll_fn(|context| {
        let mut ring = wait.ring.borrow_mut();
        match &mut ring.pending[wait.place] {
            Some(pending) => match pending.result {
                Some(result) => Poll::Ready(result),
                None => {
                    pending.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            },
            None => panic!("an operation is kept while somebody waits for it"),
        }
    })
    .await;
    let held = wait.take();
    let Ok(held) = held.downcast() else {
        panic!("what an operation held is what it was given")
    };
    let result = match result {
        0.. => Ok(result as usize),
        _ => Err(io::Error::from_raw_os_error(-result)),
    };
    Ok((result, held))
}

//! Deadlines of sockets without a timer per operation.
//!
//! Called by `socket` (every socket has an entry) and by the shard (one task sweeps every [`SWEEP_MS`]). Arming is a store to a
//! cell, so a hit pays nothing for its deadlines; a deadline that passes shuts the socket down, which completes whatever waits
//! on it, and the waiter finds `expired()`. Grain: [`SWEEP_MS`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How often a shard looks for passed deadlines.
pub const SWEEP_MS: u64 = 50;

/// What a passed deadline does to the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExpiry {
    /// Shut the receiving side; nothing is under way on this connection, so a drain may do it at once.
    StopIdling,
    /// Shut the receiving side: a waiting receive returns end of stream, an answer can still be sent.
    StopReceiving,
    /// Shut both sides: every waiter wakes with an error or end of stream.
    Cut,
    /// Leave the socket alone and wake who waits for its deadline ([`super::Socket::expiry`]): a tunnel.
    Tell,
}

/// One socket's deadline.
#[derive(Debug)]
pub struct WatchEntry {
    fd: Cell<i32>,
    deadline_ms: Cell<u64>,
    action: Cell<OnExpiry>,
    expired: Cell<bool>,
    told: RefCell<Option<Waker>>,
}

impl WatchEntry {
    pub(super) fn new(fd: i32) -> Self {
        Self {
            fd: Cell::new(fd),
            deadline_ms: Cell::new(u64::MAX),
            action: Cell::new(OnExpiry::Cut),
            expired: Cell::new(false),
            told: RefCell::default(),
        }
    }

    pub(super) fn arm(&self, deadline_ms: u64, action: OnExpiry) {
        self.deadline_ms.set(deadline_ms);
        self.action.set(action);
    }

    pub(super) fn disarm(&self) {
        self.deadline_ms.set(u64::MAX);
    }

    pub(super) fn expired(&self) -> bool {
        self.expired.get()
    }

    pub(super) fn forgive(&self) {
        self.expired.set(false);
    }

    /// Ready when the deadline has passed; wakes the last who asked.
    pub(super) fn poll_expiry(&self, context: &Context<'_>) -> Poll<()> {
        if self.expired.get() {
            return Poll::Ready(());
        }
        *self.told.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// The socket is about to close: its number may soon name another.
    pub(super) fn forget(&self) {
        self.fd.set(-1);
    }

    fn fire(&self) {
        self.expired.set(true);
        self.deadline_ms.set(u64::MAX);
        let how = match self.action.get() {
            OnExpiry::StopIdling | OnExpiry::StopReceiving => libc::SHUT_RD,
            OnExpiry::Cut => libc::SHUT_RDWR,
            OnExpiry::Tell => {
                let told = self.told.borrow_mut().take();
                return told.into_iter().for_each(Waker::wake);
            }
        };
        // SAFETY: plain system call; the socket that owns this number has not closed it (`forget` runs before).
        unsafe { libc::shutdown(self.fd.get(), how) };
    }
}

/// All sockets of one shard.
#[derive(Debug, Default)]
pub struct Watchdog {
    entries: RefCell<Vec<Rc<WatchEntry>>>,
}

impl Watchdog {
    /// An empty watch list for one shard.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self::default())
    }

    pub(super) fn watch(&self, fd: i32) -> Rc<WatchEntry> {
        let entry = Rc::new(WatchEntry::new(fd));
        self.entries.borrow_mut().push(Rc::clone(&entry));
        entry
    }

    /// Fires every socket that waits idle, whatever its deadline; the server drains.
    pub fn end_idling(&self) {
        self.end(OnExpiry::StopIdling);
    }

    /// Fires every tunnel, whatever its deadline; the time to drain is over.
    pub fn end_tunnels(&self) {
        self.end(OnExpiry::Tell);
    }

    fn end(&self, action: OnExpiry) {
        for entry in self.entries.borrow().iter() {
            let waits = entry.fd.get() >= 0 && entry.deadline_ms.get() != u64::MAX;
            if waits && entry.action.get() == action {
                entry.fire();
            }
        }
    }

    /// Fires what has passed at `now_ms` and drops closed sockets; returns how many fired.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let mut fired = 0;
        self.entries.borrow_mut().retain(|entry| {
            if entry.fd.get() < 0 {
                return false;
            }
            if now_ms >= entry.deadline_ms.get() {
                entry.fire();
                fired += 1;
            }
            true
        });
        fired
    }
}

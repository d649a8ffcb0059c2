//! How other threads reach a shard: a bounded lock-free queue, and an eventfd that is written only when the shard sleeps.
//!
//! Called by every shard and the control thread (senders) and by `dispatch` (the one receiver). A full queue never loses a message: the
//! sender keeps it and tries again; a lost wake is prevented by a fence between "I sleep" and "look again" on one side, "pushed" and
//! "does it sleep?" on the other.

use std::io;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use crate::io::eventfd::{EventFd, EventWaiter};

/// Messages that wait for one shard at most.
pub const MAILBOX_MAX: usize = 4096;

/// One shard's mailbox.
pub struct Mailbox<M> {
    queue: ArrayQueue<M>,
    sleeping: CachePadded<AtomicBool>,
    event: EventFd,
}

impl<M> Mailbox<M> {
    /// An empty mailbox.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            queue: ArrayQueue::new(MAILBOX_MAX),
            sleeping: CachePadded::new(AtomicBool::new(false)),
            event: EventFd::new()?,
        })
    }

    /// Puts a message in, or gives it back when the mailbox is full.
    ///
    /// # Errors
    /// The message.
    pub fn push(&self, message: M) -> Result<(), M> {
        self.queue.push(message)?;
        self.rouse();
        Ok(())
    }

    /// Wakes the shard if it sleeps.
    pub fn rouse(&self) {
        fence(Ordering::SeqCst);
        let claim = || {
            self.sleeping
                .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed)
        };
        if self.sleeping.load(Ordering::Relaxed) && claim().is_ok() {
            self.event.notify();
        }
    }

    /// Messages waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The receiver's side; make one, on the shard's thread.
    ///
    /// # Errors
    /// The kernel's, when descriptors have run out.
    pub fn waiter(&self) -> io::Result<EventWaiter> {
        self.event.waiter()
    }

    /// Receiver only: the next message, if there is one.
    #[must_use]
    pub fn pop(&self) -> Option<M> {
        self.queue.pop()
    }

    /// Receiver only: waits until there may be a message.
    pub async fn wait(&self, waiter: &EventWaiter, also: impl Fn() -> bool) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !self.queue.is_empty() || also() {
            self.sleeping.store(false, Ordering::Relaxed);
            return;
        }
        waiter.wait().await;
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Receiver only: lets every other task of the shard run once, through the ring (waking oneself would starve them).
    pub async fn breathe(&self, waiter: &EventWaiter) {
        self.event.notify();
        waiter.wait().await;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::io::runtime::ShardRuntime;
    use std::sync::Arc;

    #[test]
    fn every_message_from_another_thread_arrives_in_order() {
        let mailbox = Arc::new(Mailbox::<u64>::new().unwrap());
        let sender = Arc::clone(&mailbox);
        let thread = std::thread::spawn(move || {
            for n in 0..100_000u64 {
                let mut message = n;
                while let Err(back) = sender.push(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut runtime = ShardRuntime::new().unwrap();
        runtime.block_on(async {
            let waiter = mailbox.waiter().unwrap();
            let mut expected = 0;
            while expected < 100_000 {
                match mailbox.pop() {
                    Some(n) => {
                        assert_eq!(n, expected);
                        expected += 1;
                    }
                    None => mailbox.wait(&waiter, || false).await,
                }
            }
        });
        thread.join().unwrap();
    }
}

//! The mailbox: a shard that goes to sleep while messages are being sent never sleeps on one.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::explore;
use crate::io::eventfd::EventWaiter;
use crate::mailbox::Mailbox;

/// Sleeps as the shard's dispatcher does; the stand-in of the eventfd blocks, so a wait is over when it was polled.
fn sleep(mailbox: &Mailbox<u32>, waiter: &EventWaiter, also: impl Fn() -> bool) {
    let waiting = pin!(mailbox.wait(waiter, also));
    let polled = waiting.poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(polled, Poll::Ready(()));
}

/// The receiver's loop of `shard::dispatch`, until it has `count` messages.
fn receive(mailbox: &Mailbox<u32>, count: usize) -> Vec<u32> {
    let waiter = mailbox.waiter().unwrap();
    let mut received = Vec::new();
    while received.len() < count {
        match mailbox.pop() {
            Some(message) => received.push(message),
            None if mailbox.is_empty() => sleep(mailbox, &waiter, || false),
            None => thread::yield_now(),
        }
    }
    received
}

#[test]
fn no_wake_of_one_sender_is_lost() {
    explore(4, || {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let sender = Arc::clone(&mailbox);
        let thread = thread::spawn(move || {
            sender.push(1).unwrap();
            sender.push(2).unwrap();
        });
        assert_eq!(receive(&mailbox, 2), [1, 2]);
        thread.join().unwrap();
    });
}

#[test]
fn no_wake_of_two_senders_is_lost() {
    explore(3, || {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let threads = [1, 2].map(|message| {
            let sender = Arc::clone(&mailbox);
            thread::spawn(move || sender.push(message).unwrap())
        });
        let mut received = receive(&mailbox, 2);
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

/// A message that found the mailbox full leaves a mark (`sweep`) and rouses: the mark is seen before the shard sleeps, or the shard wakes.
#[test]
fn a_mark_beside_the_queue_is_never_slept_through() {
    explore(4, || {
        let mailbox = Arc::new(Mailbox::<u32>::new().unwrap());
        let mark = Arc::new(AtomicBool::new(false));
        let (sender, marked) = (Arc::clone(&mailbox), Arc::clone(&mark));
        let thread = thread::spawn(move || {
            marked.store(true, Ordering::SeqCst);
            sender.rouse();
        });
        let waiter = mailbox.waiter().unwrap();
        while !mark.load(Ordering::SeqCst) {
            sleep(&mailbox, &waiter, || mark.load(Ordering::SeqCst));
        }
        thread.join().unwrap();
    });
}

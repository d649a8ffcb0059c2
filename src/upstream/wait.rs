//! Tasks of one shard that wait for one thing, woken first come, first served.
//!
//! Called by `names` (a name being resolved) and `permits` (a connection coming free). Invariants: a waiter that is
//! dropped is forgotten at once, and a wake that it had already got goes on to the next one, so that none is lost.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    woken: Cell<bool>,
}

/// A queue of waiting tasks.
#[derive(Default)]
pub(super) struct WaitList {
    queue: RefCell<VecDeque<Rc<Waiter>>>,
}

impl WaitList {
    /// Queues the calling task, now; the future ends at its wake.
    pub fn wait(self: &Rc<Self>) -> Wait {
        let waiter = Rc::new(Waiter::default());
        self.queue.borrow_mut().push_back(Rc::clone(&waiter));
        Wait {
            list: Rc::clone(self),
            waiter,
            consumed: false,
        }
    }

    /// Tasks that wait.
    pub fn len(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Wakes the task that has waited longest.
    pub fn wake_one(&self) {
        let first = self.queue.borrow_mut().pop_front();
        if let Some(waiter) = first {
            waiter.wake();
        }
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        let all = self.queue.take();
        for waiter in all {
            waiter.wake();
        }
    }
}

impl Waiter {
    fn wake(&self) {
        self.woken.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// One task's place in the queue.
pub(super) struct Wait {
    list: Rc<WaitList>,
    waiter: Rc<Waiter>,
    consumed: bool,
}

impl Future for Wait {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.waiter.woken.get() {
            self.consumed = true;
            return Poll::Ready(());
        }
        *self.waiter.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.consumed {
            return;
        }
        if self.waiter.woken.get() {
            self.list.wake_one();
        } else {
            self.list
                .queue
                .borrow_mut()
                .retain(|other| !Rc::ptr_eq(other, &self.waiter));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(wait: &mut Wait) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(wait).poll(&mut context).is_ready()
    }

    #[test]
    fn the_longest_waiter_is_woken_first() {
        let list = Rc::new(WaitList::default());
        let (mut first, mut second) = (list.wait(), list.wait());
        assert!(!poll(&mut first) && !poll(&mut second));
        list.wake_one();
        assert!(!poll(&mut second) && poll(&mut first));
        list.wake_all();
        assert!(poll(&mut second));
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn a_wake_given_to_a_dropped_waiter_goes_to_the_next() {
        let list = Rc::new(WaitList::default());
        let (first, mut second) = (list.wait(), list.wait());
        list.wake_one();
        drop(first);
        assert!(poll(&mut second));
    }

    #[test]
    fn a_dropped_waiter_leaves_the_queue() {
        let list = Rc::new(WaitList::default());
        let first = list.wait();
        assert_eq!(list.len(), 1);
        drop(first);
        assert_eq!(list.len(), 0);
    }
}

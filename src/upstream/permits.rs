//! The bound on connections of one shard.
//!
//! Called by `dial`. Every connection, idle ones included, holds a [`Permit`] from before it is dialled until
//! after it is closed. When all are out, tasks wait in a queue that is itself bounded.

use std::cell::Cell;
use std::rc::Rc;

use super::wait::{Wait, WaitList};

/// How many connections there are and may be.
pub(super) struct Permits {
    limit: usize,
    waiting_max: usize,
    taken: Cell<usize>,
    waiting: Rc<WaitList>,
}

/// The right to one connection; returned when dropped.
pub(super) struct Permit(Rc<Permits>);

impl Permits {
    /// At most `limit` permits out, and `waiting_max` tasks in the queue.
    pub fn new(limit: usize, waiting_max: usize) -> Rc<Self> {
        Rc::new(Self {
            limit,
            waiting_max,
            taken: Cell::new(0),
            waiting: Rc::default(),
        })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    pub fn try_take(self: &Rc<Self>) -> Option<Permit> {
        (self.taken.get() < self.limit).then(|| self.take_beyond())
    }

    /// A permit even beyond the limit: for a connection that exists already and comes from another shard.
    pub fn take_beyond(self: &Rc<Self>) -> Permit {
        self.taken.set(self.taken.get() + 1);
        Permit(Rc::clone(self))
    }

    /// Whether anybody waits.
    pub fn is_wanted(&self) -> bool {
        self.waiting.len() > 0
    }

    /// A place in the queue; `None` when it is full.
    pub fn queue(&self) -> Option<Wait> {
        (self.waiting.len() < self.waiting_max).then(|| self.waiting.wait())
    }

    /// A connection may have come free, or become idle: the longest waiter looks.
    pub fn wake_one(&self) {
        self.waiting.wake_one();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let taken = self.0.taken.get();
        assert!(taken > 0, "a permit is returned once");
        self.0.taken.set(taken - 1);
        self.0.wake_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_limit() {
        let permits = Permits::new(2, 0);
        let first = permits.try_take();
        let second = permits.try_take();
        assert!(first.is_some() && second.is_some() && permits.try_take().is_none());
        drop(first);
        assert_eq!(permits.taken(), 1);
        assert!(permits.try_take().is_some());
    }

    #[test]
    fn the_queue_is_bounded_too() {
        let permits = Permits::new(1, 1);
        let first = permits.queue();
        assert!(first.is_some() && permits.is_wanted() && permits.queue().is_none());
        drop(first);
        assert!(!permits.is_wanted());
    }
}

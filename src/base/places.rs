//! A bounded number of places on one thread: for what may be under way at the same time.
//!
//! Called by `shard` (copies of request bodies). A place comes back when it is dropped.

use std::cell::Cell;
use std::rc::Rc;

/// A bounded number of places.
pub struct Places {
    free: Cell<usize>,
}

/// One place; dropping it gives it back.
pub struct Place(Rc<Places>);

impl Places {
    /// So many of them, all free.
    #[must_use]
    pub fn new(count: usize) -> Rc<Self> {
        Rc::new(Self {
            free: Cell::new(count),
        })
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.get()
    }

    /// A place, if one is free.
    #[must_use]
    pub fn take(self: &Rc<Self>) -> Option<Place> {
        let free = self.free.get().checked_sub(1)?;
        self.free.set(free);
        Some(Place(Rc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
    }
}

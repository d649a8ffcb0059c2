//! Tasks of one shard that wait for something of the same shard to change.
//!
//! Called by the journal and the writer. A task looks, and sleeps if it has seen nothing; whoever changes something rings, and all look again.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The sleepers.
#[derive(Debug, Default)]
pub struct Bell(RefCell<Vec<Waker>>);

impl Bell {
    /// Wakes everybody.
    pub fn ring(&self) {
        let sleepers = self.0.take();
        sleepers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `look` gives something; it is asked now, and after each ring.
    pub async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|context| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                self.0.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

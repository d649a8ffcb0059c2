//! Readers of this shard that have caught up with a fill and sleep until it moves.
//!
//! Called by `request` (wait) and by the shard's dispatcher and fills (wake). Keyed by the extent's address, which cannot be reused while
//! somebody waits because the waiter holds the extent.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use hashbrown::HashMap;

use crate::ram::extent::Extent;
use crate::ram::progress::FillState;

/// The sleeping readers of one shard.
pub struct Waits {
    shard: usize,
    sleepers: RefCell<HashMap<usize, Vec<Waker>>>,
}

/// What an extent is called between shards.
#[must_use]
pub fn name_of(extent: &Arc<Extent>) -> usize {
    Arc::as_ptr(extent) as usize
}

impl Waits {
    /// Nobody sleeps yet.
    #[must_use]
    pub fn new(shard: usize) -> Self {
        Self {
            shard,
            sleepers: RefCell::default(),
        }
    }

    /// Waits until more than `filled` bytes are there or the fill has ended.
    pub async fn changed(&self, extent: &Arc<Extent>, filled: u32) {
        let progress = extent.progress();
        let moved = || progress.state() != FillState::Filling || progress.filled() > filled;
        poll_fn(|context| {
            progress.subscribe(self.shard);
            if moved() {
                return Poll::Ready(());
            }
            // Nobody on this thread can wake in between: wakes from elsewhere come as messages.
            self.sleepers
                .borrow_mut()
                .entry(name_of(extent))
                .or_default()
                .push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes the readers of one extent.
    pub fn wake(&self, name: usize) {
        let wakers = self.sleepers.borrow_mut().remove(&name);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Wakes everybody: a message may have been lost in a full mailbox.
    pub fn wake_all(&self) {
        let all = std::mem::take(&mut *self.sleepers.borrow_mut());
        all.into_values().flatten().for_each(Waker::wake);
    }
}

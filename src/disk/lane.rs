//! Places among the operations in flight: first come, first served, and nobody waits for operations that were given up.
//!
//! Called by the door, which has one lane for what a reader waits for and one for what nobody waits for. A place belongs to its operation until the kernel is done with
//! it, also when it was given up at its deadline; while all places are held by such ones, the disk is busy at once.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::io::timeout_ms;

use super::DiskError;

/// A bounded number of places.
pub struct Lane {
    places: Arc<Semaphore>,
    count: usize,
    /// Places of operations that were given up and are still under way.
    given_up: Rc<Cell<usize>>,
}

/// A place; it goes with its operation.
pub struct Place {
    _permit: OwnedSemaphorePermit,
    stub: Stub,
    given_up: Rc<Cell<usize>>,
}

/// What whoever waits for an operation keeps of its place.
#[derive(Clone)]
pub struct Stub(Rc<Cell<bool>>);

impl Lane {
    /// So many places, all free.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(count)),
            count,
            given_up: Rc::default(),
        }
    }

    /// Whether every place is held by an operation that was given up.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.given_up.get() >= self.count
    }

    /// A place, as soon as one is free and within the deadline.
    ///
    /// # Errors
    /// Busy.
    pub async fn take(&self, deadline_ms: u64) -> Result<(Place, Stub), DiskError> {
        if self.is_stuck() {
            return Err(DiskError::Busy);
        }
        let free = Arc::clone(&self.places).try_acquire_owned();
        let permit = match free {
            Ok(permit) => permit,
            Err(_) => {
                let waits = Arc::clone(&self.places).acquire_owned();
                let came = timeout_ms(deadline_ms, waits).await;
                came.and_then(Result::ok).ok_or(DiskError::Busy)?
            }
        };
        let stub = Stub(Rc::default());
        let place = Place {
            _permit: permit,
            stub: stub.clone(),
            given_up: Rc::clone(&self.given_up),
        };
        Ok((place, stub))
    }

    /// Nobody waits any more for the operation that has this place.
    pub fn give_up(&self, stub: &Stub) {
        // Its place may have come back by now, unseen.
        if Rc::strong_count(&stub.0) > 1 && !stub.0.replace(true) {
            self.given_up.set(self.given_up.get() + 1);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.stub.0.get() {
            self.given_up.set(self.given_up.get() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime::ShardRuntime;
    use crate::io::{sleep_ms, spawn};

    const SOON_MS: u64 = 20;

    fn on_a_shard(test: impl Future<Output = ()>) {
        ShardRuntime::new().unwrap().block_on(test);
    }

    #[test]
    fn who_finds_no_place_waits_for_one() {
        on_a_shard(async {
            let lane = Lane::new(1);
            let (first, _) = lane.take(SOON_MS).await.unwrap();
            assert!(matches!(lane.take(SOON_MS).await, Err(DiskError::Busy)));
            spawn(async move {
                sleep_ms(SOON_MS).await;
                drop(first);
            });
            assert!(lane.take(1_000 * SOON_MS).await.is_ok());
        });
    }

    #[test]
    fn nobody_waits_for_operations_that_were_given_up() {
        on_a_shard(async {
            let lane = Lane::new(2);
            let (first, first_stub) = lane.take(SOON_MS).await.unwrap();
            let (second, second_stub) = lane.take(SOON_MS).await.unwrap();
            lane.give_up(&first_stub);
            lane.give_up(&first_stub);
            assert!(!lane.is_stuck());
            lane.give_up(&second_stub);
            assert!(lane.is_stuck());
            assert!(matches!(
                lane.take(u64::MAX / 2).await,
                Err(DiskError::Busy)
            ));
            drop(first);
            assert!(!lane.is_stuck() && lane.take(SOON_MS).await.is_ok());
            drop(second);
            assert_eq!(lane.given_up.get(), 0);
        });
    }

    #[test]
    fn giving_up_what_has_ended_changes_nothing() {
        on_a_shard(async {
            let lane = Lane::new(1);
            let (place, stub) = lane.take(SOON_MS).await.unwrap();
            drop(place);
            lane.give_up(&stub);
            assert!(!lane.is_stuck() && lane.take(SOON_MS).await.is_ok());
        });
    }
}

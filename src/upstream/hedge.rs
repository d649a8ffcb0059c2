//! A second try beside the first one when an answer is slow to begin: whichever head comes first is the answer.
//!
//! Called by `exchange`, for requests without effect whose rule says so. The one that loses is dropped: its connection closes, and nobody
//! hears of it, neither a breaker nor the account of an address. A share of the requests in flight may have a second try at a time, so that an
//! origin that is slow because it is busy is not asked twice for everything.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::io::{Either, race, sleep_ms};
use crate::metrics::HedgeResult;

use super::endpoint::Endpoint;
use super::exchange::{Asked, Failed, is_stale};
use super::response::Response;
use super::{Reuse, Upstream};

/// How many requests wait for their heads, and how many of them twice.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    asked: Cell<u32>,
    hedged: Cell<u32>,
}

/// One place in a count, given back when dropped.
struct Counted<'c>(&'c Cell<u32>);

impl<'c> Counted<'c> {
    fn new(count: &'c Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl InFlight {
    /// A place for a second try: one at least, no more than `percent` of what is asked.
    fn hedge(&self, percent: u32) -> Option<Counted<'_>> {
        let hedged = u64::from(self.hedged.get());
        let allowed = u64::from(self.asked.get()) * u64::from(percent) / 100;
        (percent > 0 && hedged < allowed.max(1)).then(|| Counted::new(&self.hedged))
    }
}

/// Which kept connections will do, and which addresses have failed.
pub(super) type Way<'w> = (Reuse, &'w [IpAddr]);

impl Upstream {
    /// One try, and another beside it if its answer has not begun after `after_ms` (0: none).
    pub(super) async fn attempt_hedged(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        asked: Asked<'_>,
        (reuse, avoid): Way<'_>,
        after_ms: u64,
    ) -> Result<Response, Failed> {
        let _counted = Counted::new(&self.in_flight.asked);
        let dialled = Cell::new(None);
        let first = self.attempt(endpoint, asked, (reuse, avoid), &dialled);
        if after_ms == 0 {
            return first.await;
        }
        let mut first = pin!(first);
        let nap = pin!(sleep_ms(after_ms));
        if let Either::First(result) = race(first.as_mut(), nap).await {
            return result;
        }
        let events = &self.shared.events;
        let Some(_hedged) = self.in_flight.hedge(self.shared.config.hedge_percent_max) else {
            events.hedged(HedgeResult::Refused);
            return first.await;
        };
        let mut elsewhere = avoid.to_vec();
        elsewhere.extend(dialled.get());
        let nowhere = Cell::new(None);
        let way = (Reuse::Never, &*elsewhere);
        let second = pin!(self.attempt(endpoint, asked, way, &nowhere));
        self.first_head(endpoint, first, second).await
    }

    /// The answer that begins first. A try that fails is no answer while the other may bring one.
    async fn first_head(
        &self,
        endpoint: &Arc<Endpoint>,
        mut first: std::pin::Pin<&mut impl Future<Output = Result<Response, Failed>>>,
        mut second: std::pin::Pin<&mut impl Future<Output = Result<Response, Failed>>>,
    ) -> Result<Response, Failed> {
        let events = &self.shared.events;
        match race(first.as_mut(), second.as_mut()).await {
            Either::First(Ok(response)) => {
                events.hedged(HedgeResult::Lost);
                Ok(response)
            }
            Either::Second(Ok(response)) => {
                events.hedged(HedgeResult::Won);
                Ok(response)
            }
            Either::First(Err(Failed::Sent {
                error,
                reused: true,
            })) if is_stale(&error) => {
                events.hedged(HedgeResult::Lost);
                Err(Failed::Sent {
                    error,
                    reused: true,
                })
            }
            Either::First(Err(failed)) => {
                self.note_failure(endpoint, failed.error());
                let result = second.await;
                events.hedged(match result {
                    Ok(_) => HedgeResult::Won,
                    Err(_) => HedgeResult::Failed,
                });
                result
            }
            Either::Second(Err(failed)) => {
                self.note_failure(endpoint, failed.error());
                events.hedged(HedgeResult::Failed);
                first.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_tries_are_a_share_of_those_in_flight() {
        let flight = InFlight::default();
        assert!(flight.hedge(0).is_none());
        let asked: Vec<_> = (0..30).map(|_| Counted::new(&flight.asked)).collect();
        let held: Vec<_> = (0..30).map_while(|_| flight.hedge(10)).collect();
        assert_eq!(held.len(), 3);
        drop((asked, held));
        let _one = Counted::new(&flight.asked);
        let first = flight.hedge(10);
        assert!(first.is_some() && flight.hedge(10).is_none());
        drop(first);
        assert_eq!((flight.asked.get(), flight.hedged.get()), (1, 0));
    }
}

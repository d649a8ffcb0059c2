//! The breakers of all origins, shared by all shards: only origins that fail are in it, and nobody waits for a lock.
//!
//! Called by `exchange` and `request` before a request is sent to an origin and when its answer, or none, has come; read by `admin`. A hit asks
//! nothing of it; a miss reads one list that is empty while every origin is well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::base::clock::now_ms;

use super::Upstream;
use super::breaker::{Admission, Breaker, BreakerConfig, Claim, Phase};
use super::chain::is_of_parent;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::response::Response;

/// Origins that fail at a time and have a breaker. Their names may come from clients' `Host`.
const ORIGINS_MAX: usize = 1024;
/// From so many on, those that are well again are forgotten.
const KEPT_MAX: usize = 64;

/// One origin that failed.
#[derive(Debug)]
struct Ailing {
    endpoint: Arc<Endpoint>,
    /// A [`Breaker`] in one word.
    state: AtomicU64,
}

impl Ailing {
    fn state(&self) -> Breaker {
        Breaker::unpack(self.state.load(Ordering::Acquire))
    }

    /// Changes it; gives what it was and what it is.
    fn update(&self, change: impl Fn(Breaker) -> Breaker) -> (Breaker, Breaker) {
        let change = |word| change(Breaker::unpack(word)).pack();
        let mut before = self.state.load(Ordering::Acquire);
        loop {
            let after = change(before);
            let swapped = self.state.compare_exchange_weak(
                before,
                after,
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return (Breaker::unpack(before), Breaker::unpack(after)),
                Err(now) => before = now,
            }
        }
    }
}

/// The breakers of all origins.
#[derive(Debug, Default)]
pub struct Outages {
    config: BreakerConfig,
    ailing: ArcSwap<Vec<Arc<Ailing>>>,
}

/// Whether an origin is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Well,
    /// It failed last, or its breaker is open.
    Ailing {
        /// Whether it may be asked now by somebody who does not wait for the answer.
        may_probe: bool,
    },
}

/// The right to send one request. Dropped without a verdict, it says nothing of the origin.
#[derive(Debug, Default)]
pub struct Admitted {
    probe: Option<Arc<Ailing>>,
}

impl Admitted {
    /// Whether others wait for what becomes of this request.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(ailing) = self.probe.take() {
            ailing.update(Breaker::released);
        }
    }
}

impl Outages {
    /// All origins are well.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            ailing: ArcSwap::default(),
        })
    }

    fn find(&self, endpoint: &Endpoint) -> Option<Arc<Ailing>> {
        let ailing = self.ailing.load();
        let found = ailing.iter().find(|one| *one.endpoint == *endpoint);
        found.cloned()
    }

    fn find_or_add(&self, endpoint: &Arc<Endpoint>) -> Option<Arc<Ailing>> {
        if let Some(known) = self.find(endpoint) {
            return Some(known);
        }
        let new = Arc::new(Ailing {
            endpoint: Arc::clone(endpoint),
            state: AtomicU64::new(Breaker::CALM.pack()),
        });
        self.ailing.rcu(|before| {
            let mut all = Vec::clone(before);
            if all.len() >= KEPT_MAX {
                all.retain(|one| !one.state().is_calm());
            }
            let known = all.iter().any(|one| *one.endpoint == **endpoint);
            if !known && all.len() < ORIGINS_MAX {
                all.push(Arc::clone(&new));
            }
            all
        });
        self.find(endpoint)
    }

    /// Whether an origin is well.
    #[must_use]
    pub fn health(&self, endpoint: &Endpoint) -> Health {
        let state = self.find(endpoint).map_or(Breaker::CALM, |one| one.state());
        if state.is_calm() {
            return Health::Well;
        }
        let (_, admission) = state.admit(now_ms(), Claim::Spare);
        Health::Ailing {
            may_probe: admission != Admission::Refused,
        }
    }

    /// That an origin is not asked now, not even for the rest of an answer.
    #[must_use]
    pub fn refusal(&self, endpoint: &Endpoint) -> Option<UpstreamError> {
        let (state, now_ms) = (self.find(endpoint)?.state(), now_ms());
        state
            .refuses(now_ms)
            .then(|| refused(endpoint, state, now_ms))
    }

    /// One line for each origin whose breaker is not closed.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let ailing = self.ailing.load();
        let out = ailing.iter().filter_map(|one| {
            let state = match one.state().phase() {
                Phase::Closed => return None,
                Phase::HalfOpen => "being probed",
                Phase::Open => "not asked",
            };
            Some(format!("origin {} fails and is {state}", one.endpoint))
        });
        out.collect()
    }
}

fn refused(endpoint: &Endpoint, state: Breaker, now_ms: u64) -> UpstreamError {
    UpstreamError::Out {
        host: endpoint.host.clone(),
        pause_ms: state.pause_ms(now_ms),
    }
}

impl Upstream {
    /// Asks for one request to be sent to an origin.
    ///
    /// # Errors
    /// [`UpstreamError::Out`]: the origin's breaker is open.
    pub fn admit(&self, endpoint: &Arc<Endpoint>, claim: Claim) -> Result<Admitted, UpstreamError> {
        let Some(ailing) = self.shared.config.outages.find(endpoint) else {
            return Ok(Admitted::default());
        };
        let now_ms = now_ms();
        let (before, after) = ailing.update(|state| state.admit(now_ms, claim).0);
        self.note_phase(endpoint, before, after);
        match before.admit(now_ms, claim).1 {
            Admission::Sent => Ok(Admitted::default()),
            Admission::Probe => Ok(Admitted {
                probe: Some(ailing),
            }),
            Admission::Refused => {
                self.shared.events.refused();
                Err(refused(endpoint, before, now_ms))
            }
        }
    }

    /// Says how a request fared that was admitted: with its answer, or the error. What a parent cache says of its own origin says nothing of itself.
    pub fn judge(
        &self,
        endpoint: &Arc<Endpoint>,
        mut admitted: Admitted,
        result: Result<&Response, &UpstreamError>,
    ) {
        let failed = match result {
            Ok(response) => is_outage(response.status()) && !is_of_parent(&response.head()),
            Err(error) if error.tells_of_origin() => true,
            Err(_) => return,
        };
        let outages = &self.shared.config.outages;
        let probe = admitted.probe.take();
        let (is_probe, now_ms) = (probe.is_some(), now_ms());
        let known = probe.or_else(|| match failed {
            true => outages.find_or_add(endpoint),
            false => outages.find(endpoint),
        });
        let Some(ailing) = known else { return };
        let (before, after) = ailing.update(|state| match failed {
            true => state.failed(is_probe, now_ms, &outages.config),
            false => state.succeeded(is_probe, &outages.config),
        });
        self.note_phase(endpoint, before, after);
    }

    fn note_phase(&self, endpoint: &Endpoint, before: Breaker, after: Breaker) {
        let (before, after) = (before.phase(), after.phase());
        if before != after {
            self.shared.events.turned(endpoint, before, after);
        }
    }

    /// Whether an origin is well.
    #[must_use]
    pub fn health(&self, endpoint: &Endpoint) -> Health {
        self.shared.config.outages.health(endpoint)
    }

    /// That an origin is not asked now, not even for the rest of an answer.
    #[must_use]
    pub fn refusal(&self, endpoint: &Endpoint) -> Option<UpstreamError> {
        self.shared.config.outages.refusal(endpoint)
    }
}

/// Statuses that say that the origin is in trouble, whoever asks for whatever (RFC 5861, section 4).
#[must_use]
pub fn is_outage(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_fails_is_kept_and_what_is_well_again_makes_way() {
        let outages = Outages::default();
        let origin = |number: usize| Endpoint::new(false, &format!("h{number}"), 80);
        for number in 0..ORIGINS_MAX + 9 {
            let Some(ailing) = outages.find_or_add(&origin(number)) else {
                assert!(number >= ORIGINS_MAX);
                continue;
            };
            ailing.update(|state| state.failed(false, 0, &outages.config));
        }
        assert_eq!(outages.ailing.load().len(), ORIGINS_MAX);
        assert_eq!(outages.health(&origin(ORIGINS_MAX + 1)), Health::Well);
        let probe = Health::Ailing { may_probe: true };
        assert_eq!(outages.health(&origin(5)), probe);
        for one in outages.ailing.load().iter() {
            one.update(|state| state.succeeded(false, &outages.config));
        }
        assert!(outages.find_or_add(&origin(ORIGINS_MAX + 1)).is_some());
        assert_eq!(outages.ailing.load().len(), 1);
    }

    #[test]
    fn a_probe_that_is_dropped_makes_way_for_the_next() {
        let outages = Outages::new(BreakerConfig {
            fall: 3,
            ..BreakerConfig::default()
        });
        let origin = Endpoint::new(false, "h", 80);
        let ailing = outages.find_or_add(&origin).expect("there is room");
        (0..3).for_each(|_| {
            ailing.update(|state| state.failed(false, 0, &outages.config));
        });
        assert_eq!(
            outages.lines(),
            ["origin http://h:80 fails and is not asked"]
        );
        let (_, state) = ailing.update(|state| state.admit(5_000, Claim::Answer).0);
        assert_eq!(state.phase(), Phase::HalfOpen);
        let refused = Health::Ailing { may_probe: false };
        assert_eq!(outages.health(&origin), refused);
        drop(Admitted {
            probe: Some(ailing),
        });
        let probe = Health::Ailing { may_probe: true };
        assert_eq!(outages.health(&origin), probe);
    }
}

//! One origin that may be asked in more than one place: the first, and its fallbacks while the first fails.
//!
//! Called by fills and by reads that pass. Only requests without effect come here; a write goes to the first place or nowhere. The request
//! goes out byte for byte as it would to the first: a fallback is of use where it takes that `Host` and that signature.
//!
//! Invariants:
//! - A fallback's answer is used only if the caller takes it ([`Query::takes`]); else the first one's own answer or error stands.
//! - Nobody waits for a probe of the first place while there is a fallback: the probe goes out behind the request.
//! - Each place has a breaker of its own.

use std::rc::Rc;
use std::sync::Arc;

use crate::http::Method;
use crate::io::spawn;
use crate::metrics::FallbackResult;

use super::Upstream;
use super::breaker::Claim;
use super::endpoint::Endpoint;
use super::error::{Fault, UpstreamError};
use super::exchange::{Asked, OnInterim, Patience, is_safe};
use super::outages::{Admitted, Health, is_outage};
use super::response::Response;

/// Where the objects of one store are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Asked first, and for everything that has an effect.
    pub first: Arc<Endpoint>,
    /// Asked in this order while the first fails.
    pub fallbacks: Box<[Arc<Endpoint>]>,
}

impl Origin {
    /// An origin in one place.
    #[must_use]
    pub fn alone(first: Arc<Endpoint>) -> Arc<Self> {
        Arc::new(Self {
            first,
            fallbacks: Box::default(),
        })
    }
}

/// One question to an origin.
pub struct Query<'q> {
    /// Whom to ask.
    pub origin: &'q Origin,
    /// The whole request head.
    pub request: &'q [u8],
    /// The method in it.
    pub method: Method,
    /// How long the answer is worth waiting for.
    pub patience: Patience,
    /// After how long without an answer it is asked once more; 0: not.
    pub hedge_after_ms: u64,
    /// Whether what a fallback says may be taken for the first place's word.
    pub takes: &'q dyn Fn(&Response) -> bool,
    /// Who hears of interim answers.
    pub interim: Option<OnInterim<'q>>,
}

impl<'q> Query<'q> {
    fn asked(&self) -> Asked<'q> {
        Asked {
            request: self.request,
            method: self.method,
            interim: self.interim,
        }
    }
}

/// Whether what came of asking the first place is a reason to ask another.
fn fails(result: &Result<Response, UpstreamError>) -> bool {
    match result {
        Ok(response) => is_outage(response.status()),
        Err(error) => error.fault() == Fault::Origin,
    }
}

impl Upstream {
    /// Asks the first place of an origin, and its fallbacks if that fails.
    ///
    /// # Errors
    /// That of the first place.
    pub async fn ask_origin(self: &Rc<Self>, query: &Query<'_>) -> Result<Response, UpstreamError> {
        let origin = query.origin;
        let alone = origin.fallbacks.is_empty() || !is_safe(query.method);
        if alone || query.patience == Patience::Spare {
            return self.ask_with(&origin.first, query, query.patience).await;
        }
        let said = self.ask_first(query).await;
        if !fails(&said) {
            return said;
        }
        for place in &origin.fallbacks {
            let asked = self.ask_with(place, query, Patience::Once).await;
            let result = match &asked {
                Ok(response) if is_outage(response.status()) => FallbackResult::Failed,
                Ok(response) if (query.takes)(response) => FallbackResult::Used,
                Ok(_) => FallbackResult::NotTaken,
                Err(_) => FallbackResult::Failed,
            };
            self.shared.events.fell_back(place, result);
            if let (FallbackResult::Used, Ok(mut response)) = (result, asked) {
                response.set_by_fallback();
                return Ok(response);
            }
        }
        said
    }

    async fn ask_with(
        self: &Rc<Self>,
        place: &Arc<Endpoint>,
        query: &Query<'_>,
        patience: Patience,
    ) -> Result<Response, UpstreamError> {
        let after_ms = query.hedge_after_ms;
        self.ask_hedged(place, query.asked(), patience, after_ms)
            .await
    }

    /// There is somebody else to ask: one time-out will do, and a probe is nothing to wait for.
    async fn ask_first(self: &Rc<Self>, query: &Query<'_>) -> Result<Response, UpstreamError> {
        let first = &query.origin.first;
        if self.health(first) == Health::Well {
            return self.ask_with(first, query, Patience::Once).await;
        }
        let admitted = self.admit(first, Claim::Answer)?;
        if admitted.is_probe() {
            self.probe_behind(query, admitted);
            return Err(UpstreamError::Out {
                host: first.host.clone(),
                pause_ms: 0,
            });
        }
        let what = query.asked();
        // Not left before its time-out, since that is what opens the breaker.
        let asked = self.fetch_admitted(first, what, Patience::Once, query.hedge_after_ms);
        let result = asked.await;
        self.judge(first, admitted, result.as_ref());
        result
    }

    fn probe_behind(self: &Rc<Self>, query: &Query<'_>, admitted: Admitted) {
        let (upstream, first) = (Rc::clone(self), Arc::clone(&query.origin.first));
        let (request, method) = (query.request.to_vec(), query.method);
        spawn(async move {
            let what = Asked {
                request: &request,
                method,
                interim: None,
            };
            let asked = upstream.fetch_admitted(&first, what, Patience::Spare, 0);
            let result = asked.await;
            upstream.judge(&first, admitted, result.as_ref());
        });
    }

    /// Whether some place of an origin is to be asked.
    #[must_use]
    pub fn is_reachable(&self, origin: &Origin) -> bool {
        let well = |place: &Arc<Endpoint>| self.health(place) == Health::Well;
        well(&origin.first) || origin.fallbacks.iter().any(well)
    }

    /// That no place of an origin is asked now, not even for the rest of an answer.
    #[must_use]
    pub fn refusal_of(&self, origin: &Origin) -> Option<UpstreamError> {
        let refusal = self.refusal(&origin.first)?;
        let all = origin.fallbacks.iter();
        let mut all = all.map(|place| self.refusal(place).is_some());
        all.all(|refused| refused).then_some(refusal)
    }
}

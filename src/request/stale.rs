//! Copies past their time: served while their origin fails, or while it is asked behind them.
//!
//! Called by `read`. Who asks for a copy that may be served at once does not wait for the origin; it is asked in the background, with that
//! client's own signature, as far as its breaker lets through. Never instead of an answer about the object or about who asks for it.

use std::ops::Range;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::Head;
use crate::config::{Freshness, ObjectPolicy};
use crate::fill::{Came, Outcome, Ready};
use crate::s3::{Unmet, Verdict};
use crate::upstream::{Fault, Health, Origin, UpstreamError, is_outage};

use super::answer::{CacheStatus, Reason};
use super::asked::Place;
use super::failure::Failure;
use super::read::{Read, outcome_of};
use super::report::Report;
use super::{End, chain, forward};

/// What a copy that is all here says to a request.
pub(super) enum Plan {
    /// All of it, or this part.
    Object(Option<Range<u64>>),
    /// What conditions decide.
    Without(Reason),
}

impl Read<'_, '_> {
    /// Known, and past its time.
    pub(super) async fn stale(
        &self,
        (known, fresh_ms): (Arc<Head>, u64),
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let health = self.health();
        if let Some(status) = self.at_once(&known, fresh_ms, health)
            && let Some(plan) = self.plan(&known)
        {
            let wished = status == CacheStatus::MaxStale;
            if !wished && !matches!(health, Health::Ailing { may_probe: false }) {
                self.ask_behind(&known, fresh_ms);
            }
            return self.serve_stale(known, plan, status, report, out).await;
        }
        let known = Some((known, fresh_ms));
        self.open(CacheStatus::Stale, known, report, out).await
    }

    /// Not known in RAM: while the origin fails, what is on disk may do.
    pub(super) async fn absent(
        &self,
        status: CacheStatus,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let policy = self.policy();
        // Where the origin decides, only the head says.
        let by_origin = policy.freshness == Freshness::Origin && policy.ttl_ms > 0;
        if (policy.stale_if_error_ms > 0 || by_origin) && self.fails() {
            let key = self.object.encoded();
            let shard = self.shard();
            let known = shard.known_or_on_disk(self.digest, key, self.stamp).await;
            if let Some(known) = known {
                let fresh_ms = self.policy_for(&known).ttl_ms_of(self.is_head());
                if !known.is_fresh(clock::now_ms(), fresh_ms) {
                    return self.stale((known, fresh_ms), report, out).await;
                }
            }
        }
        self.open(status, None, report, out).await
    }

    /// Whether the origin is well in its first place.
    pub(super) fn health(&self) -> Health {
        let upstream = &self.exchange.shard.upstream;
        let health = |origin: Arc<Origin>| upstream.health(&origin.first);
        self.origin().map_or(Health::Well, health)
    }

    /// Whether the origin fails wherever it may be asked.
    fn fails(&self) -> bool {
        let upstream = &self.exchange.shard.upstream;
        self.origin()
            .is_some_and(|origin| !upstream.is_reachable(&origin))
    }

    /// That the origin is not asked now.
    pub(super) fn refusal(&self) -> Option<UpstreamError> {
        let origin = self.origin()?;
        self.exchange.shard.upstream.refusal_of(&origin)
    }

    /// Why the origin cannot be asked for the rest of an answer.
    pub(super) fn no_rest(&self) -> Option<Failure> {
        let looped = chain::refusal(self.exchange.shard, self.exchange.head);
        looped.or_else(|| Some(Failure::of_upstream(&self.refusal()?)))
    }

    /// How long a head is used without asking.
    pub(super) fn fresh_ms(&self, head: &Head, policy: ObjectPolicy) -> u64 {
        match head.is_by_fallback() {
            true => 0,
            false => policy.ttl_ms_of(self.is_head()),
        }
    }

    fn origin(&self) -> Option<Arc<Origin>> {
        let exchange = self.exchange;
        forward::origin(&exchange.shard.world.routes, exchange.route)
    }

    /// Whether a copy may be served without waiting for its origin, and why.
    fn at_once(&self, head: &Head, fresh_ms: u64, health: Health) -> Option<CacheStatus> {
        let (policy, now_ms) = (self.policy_for(head), clock::now_ms());
        // A fallback's word holds as long as the first place cannot be asked.
        let fresh = head.is_fresh(now_ms, policy.ttl_ms_of(self.is_head()));
        if head.is_by_fallback() && health != Health::Well && fresh {
            return Some(CacheStatus::Hit);
        }
        let until_ms = policy.stale_if_error_until();
        if health != Health::Well && head.is_fresh(now_ms, until_ms) && self.fails() {
            return Some(CacheStatus::StaleIfError);
        }
        if self.accepts(head) {
            return Some(CacheStatus::MaxStale);
        }
        // With a time of zero everybody is asked about; so is who names another version.
        let longer_ms = policy.stale_while_revalidate_ms;
        let meanwhile = fresh_ms > 0 && longer_ms > 0;
        let usable = meanwhile && head.is_fresh(now_ms, fresh_ms.saturating_add(longer_ms));
        usable.then_some(CacheStatus::StaleWhileRevalidate)
    }

    /// What a copy says to this request, if it is all here and the answer is certain but for its age.
    pub(super) fn plan(&self, head: &Arc<Head>) -> Option<Plan> {
        let request = &self.exchange.request;
        let mut spec = self.spec();
        if request.conditions.any() {
            match self.verdict(head, clock::Moment::now()) {
                Verdict::Proceed => {}
                Verdict::Whole => spec = None,
                Verdict::NotModified => return Some(Plan::Without(Reason::NotModified)),
                // There may be a younger version that the client has.
                Verdict::Doubt | Verdict::Failed(Unmet::IfMatch) => return None,
                Verdict::Failed(unmet) => return Some(Plan::Without(Reason::Failed(unmet))),
            }
        }
        let part = match self.place(spec, head) {
            Place::At(part) => part,
            Place::Unsatisfiable => return Some(Plan::Without(Reason::Unsatisfiable)),
            Place::Unknown => return None,
        };
        let bodiless = self.is_head() || (part.is_none() && head.total() == 0);
        // An answer that would break off in its middle is worse than an error.
        let whole = bodiless
            || matches!(
                self.status_of(head, part.as_ref()),
                CacheStatus::Hit | CacheStatus::Collapsed
            );
        whole.then_some(Plan::Object(part))
    }

    /// The copy that is served instead of what came of asking the origin, if that says nothing but that the origin fails.
    pub(super) fn instead_of(
        &self,
        outcome: &Outcome,
        report: &mut Report,
    ) -> Option<(Arc<Head>, Plan)> {
        if matches!(outcome, Outcome::Ready(_) | Outcome::Busy) {
            return None;
        }
        let index = self.shard().index_of(self.digest, 0);
        let head = index.head(self.digest, self.object.encoded())?;
        let policy = self.policy_for(&head);
        let origin_fails = match outcome {
            Outcome::Failed(error) => error.fault() == Fault::Origin,
            Outcome::Relay(response) => is_outage(response.status()),
            Outcome::Alone => policy.stale_if_error_ms > 0 && self.fails(),
            Outcome::Ready(_) | Outcome::Busy => false,
        };
        if !origin_fails || policy.stale_if_error_ms == 0 {
            return None;
        }
        let usable = head.is_fresh(clock::now_ms(), policy.stale_if_error_until());
        let plan = usable.then(|| self.plan(&head)).flatten()?;
        match outcome {
            Outcome::Relay(response) => report.origin_status = Some(response.status()),
            Outcome::Failed(error) => report.error = Some(words_of(error)),
            Outcome::Ready(_) | Outcome::Alone | Outcome::Busy => {}
        }
        Some((head, plan))
    }

    /// Asks the origin whether a copy still holds; nobody waits.
    fn ask_behind(&self, known: &Arc<Head>, fresh_ms: u64) {
        let Some(asking) = self.asking() else { return };
        let mut fetch = self.opening(&asking);
        fetch.known = Some(Arc::clone(known));
        // Whoever asks behind a copy asks for all.
        fetch.fresh_ms = fresh_ms.max(1);
        fetch.spare = true;
        self.shard().fetch_ahead(fetch);
    }

    /// Answers with a copy that is all here, whatever its age.
    pub(super) async fn serve_stale(
        &self,
        head: Arc<Head>,
        plan: Plan,
        status: CacheStatus,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        report.outcome = outcome_of(status);
        report.by_fallback = head.is_by_fallback();
        head.touch();
        match plan {
            Plan::Without(reason) => {
                let ready = Ready {
                    head,
                    extent: None,
                    fill: None,
                    came: Came::Known,
                };
                self.without(&ready, (status, reason), report, out).await
            }
            Plan::Object(part) if self.is_head() || (part.is_none() && head.total() == 0) => {
                self.head_only(&head, part, status, report, out).await
            }
            Plan::Object(part) => {
                let how = (status, None, None);
                self.body(&head, part, how, report, out).await
            }
        }
    }
}

/// What the access log says of a copy that was served instead.
fn words_of(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Out { .. } => "the origin fails and is not asked",
        _ if error.is_timeout() => "the origin did not answer in time",
        _ => "the origin failed",
    }
}

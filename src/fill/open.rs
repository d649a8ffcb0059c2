//! A fetch up to the origin's response head: send, check, publish, get room; then the body streams.
//!
//! Called by `shard` as a task of its own. `opened` is called exactly once, as soon as it is known what the readers get.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::Head;
use crate::cache::head::HeadParts;
use crate::cache::partition::Lease;
use crate::http::Method;
use crate::metrics::{
    Counter, FillEnd, Gauge, Histogram, Revalidation, UpstreamFailure, UpstreamKind,
};
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::readers::Readers;
use crate::upstream::{Query, Response, UpstreamError};

use super::confirm::{Confirmed, confirmed};
use super::dated::dated;
use super::stream::{self, Flow};
use super::template::{Condition, Ranged};
use super::validate::{Fit, Question, Unfit, is_forbidden, validate, varies};
use super::{Came, Fetch, Outcome, Peers, Ready, elsewhere, plan};

/// Fewer bytes are there sooner than a new connection in the place of one whose answer is not read.
const LOAD_BYTES_MIN: usize = 256 << 10;

/// Runs a fetch to its end. `opened` hands the outcome to whoever waits.
pub async fn run<P: Peers>(peers: Rc<P>, fetch: Fetch, opened: impl FnOnce(Outcome)) {
    let started_ns = clock::now_ns();
    let metrics = peers.metrics();
    metrics.gauge_add(Gauge::FillsInFlight, 1);
    metrics.count(Counter::FillsStarted);
    let readers = Readers::wanted_by(fetch.interest.clone());
    let mut opening = Opening {
        peers: &*peers,
        fetch,
        opened: Some(opened),
        started_ns,
        readers,
        early: None,
        conditional: true,
    };
    let end = opening.attempt().await;
    opening.release_early();
    opening.readers.end(clock::now_ms());
    metrics.count(Counter::FillsEnded(end));
    metrics.gauge_add(Gauge::FillsInFlight, -1);
    metrics.observe(Histogram::FillDuration, clock::now_ns() - started_ns);
}

struct Opening<'p, P: Peers, F: FnOnce(Outcome)> {
    peers: &'p P,
    fetch: Fetch,
    opened: Option<F>,
    started_ns: u64,
    readers: Arc<Readers>,
    /// Room that was taken before the origin was asked.
    early: Option<ExtentWriter>,
    /// Whether the version that is known is named to the origin.
    conditional: bool,
}

/// The rest of an unwanted body that is read rather than its connection closed.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;

impl<P: Peers, F: FnOnce(Outcome)> Opening<'_, P, F> {
    fn tell(&mut self, outcome: Outcome) {
        let opened = self.opened.take();
        opened.expect("an outcome is told once")(outcome);
    }

    async fn attempt(&mut self) -> FillEnd {
        if let Some(end) = self.reserve().await {
            return end;
        }
        let mut asked = self.exchange().await;
        if let Ok(response) = &asked
            && self.says_too_little(response)
        {
            self.conditional = false;
            asked = self.exchange().await;
        }
        if let Some(probe) = self.fetch.probe.take()
            && let Ok(response) = &asked
            && matches!(response.status(), 206 | 416)
            && self.version_of(response) != Some(probe.version)
        {
            (self.fetch.ranged, self.fetch.faithful) = (probe.ranged, probe.faithful);
            asked = self.exchange().await;
        }
        // A range that we put in for speed must not change the answer: a zero-byte object satisfies no range.
        let for_speed = self.fetch.expected.is_none()
            && !self.fetch.faithful
            && self.fetch.ranged != Ranged::Whole;
        if for_speed
            && self.fetch.client_whole
            && asked
                .as_ref()
                .is_ok_and(|response| response.status() == 416)
        {
            self.fetch.ranged = Ranged::Whole;
            self.fetch.faithful = true;
            asked = self.exchange().await;
        }
        match asked {
            Ok(response) => self.judge(response).await,
            Err(error) => {
                self.revalidated(Revalidation::Failed);
                self.tell(Outcome::Failed(Arc::new(error)));
                FillEnd::Failed
            }
        }
    }

    /// Counts what became of a question whether the known version still holds.
    fn revalidated(&self, result: Revalidation) {
        if self.fetch.known.is_some() {
            self.peers.metrics().count(Counter::Revalidations(result));
        }
    }

    /// What a 304 says of the version that is known.
    fn confirmation(&self, response: &Response) -> Option<Confirmed> {
        let known = self.fetch.known.as_deref()?;
        let own = self.fetch.template.may_revalidate;
        let is_304 = response.status() == 304 && self.conditional;
        let overridden = self.fetch.template.overridden;
        is_304.then(|| {
            let head = response.head();
            match varies(&head) || self.fetch.by_origin() && is_forbidden(&head) {
                // What the origin says with the whole answer decides.
                true => Confirmed::Rewritten,
                false => confirmed(known, &head, own, overridden),
            }
        })
    }

    /// A 304 to our own condition that leaves open what the object is like now: it is asked for without one.
    fn says_too_little(&self, response: &Response) -> bool {
        let own = self.fetch.template.may_revalidate;
        let confirmation = self.confirmation(response).filter(|_| own);
        matches!(
            confirmation,
            Some(Confirmed::Rewritten | Confirmed::Other | Confirmed::Unclear)
        )
    }

    /// Takes room before the origin is asked, where it is known what will come: no byte is fetched that could not be kept.
    async fn reserve(&mut self) -> Option<FillEnd> {
        let version = self.fetch.expected.as_ref()?.version;
        let Ranged::Spec(spec) = self.fetch.ranged else {
            return None;
        };
        let bounds = spec.bounds()?;
        let window =
            plan::first_window(&bounds).filter(|window| window.absolute().end == bounds.end)?;
        let id = window.id(self.fetch.object, version);
        self.readers.announce(bounds);
        match self
            .peers
            .lease(id, window.range, Arc::clone(&self.readers))
            .await
        {
            Lease::Granted(writer) => {
                self.early = Some(writer);
                None
            }
            Lease::Have(extent) => {
                let known = self.peers.known_head(self.fetch.object, &self.fetch.key);
                let ready = known.filter(|head| head.version() == version);
                self.tell(match ready {
                    Some(head) => Outcome::Ready(Ready {
                        head,
                        extent: Some(extent),
                        fill: None,
                        came: Came::Known,
                    }),
                    None => Outcome::Alone,
                });
                Some(FillEnd::Completed)
            }
            Lease::NoRoom => {
                self.tell(Outcome::Busy);
                Some(FillEnd::Aborted)
            }
        }
    }

    fn release_early(&mut self) {
        if let Some(writer) = self.early.take() {
            stream::abandon(self.peers, writer);
        }
    }

    async fn exchange(&self) -> Result<Response, UpstreamError> {
        let (peers, fetch) = (self.peers, &self.fetch);
        let known = fetch.known.as_deref().filter(|_| self.conditional);
        let condition = match (&fetch.expected, known) {
            (Some(expected), _) => Condition::Match(&expected.etag),
            (None, Some(known)) => Condition::NoneMatch(known.etag()),
            // All that is to be known, to be judged here.
            (None, None) if fetch.known.is_some() => Condition::Nothing,
            (None, None) => Condition::Own,
        };
        let head = fetch.template.render(&fetch.ranged, condition);
        let kind = match fetch.template.method {
            _ if fetch.known.is_some() => UpstreamKind::Revalidate,
            Method::Head => UpstreamKind::Head,
            _ => UpstreamKind::Fill,
        };
        peers.metrics().count(Counter::UpstreamRequests(kind));
        let question = self.question();
        let conditional = self.conditional;
        let query = Query {
            origin: &fetch.template.origin,
            request: &head,
            method: fetch.template.method,
            patience: fetch.patience(clock::now_ms()),
            hedge_after_ms: fetch.policy.hedge_after_ms,
            takes: &|response| elsewhere::takes(fetch, question, conditional, response),
            interim: None,
        };
        let asked = peers.upstream().ask_origin(&query).await;
        if let Ok(response) = &asked {
            peers
                .metrics()
                .observe(Histogram::UpstreamFirstByte(kind), response.waited_ns());
        }
        asked
    }

    /// The answer is not kept: on to the client that asked, if it is an answer to just what that client asked.
    fn give_up(&mut self, response: Response) -> FillEnd {
        let faithful = self.fetch.faithful;
        self.tell(if faithful {
            Outcome::Relay(Box::new(response))
        } else {
            Outcome::Alone
        });
        FillEnd::Aborted
    }

    async fn judge(&mut self, response: Response) -> FillEnd {
        if response.status() == 412
            && let Some(expected) = &self.fetch.expected
        {
            self.peers
                .version_gone(self.fetch.object, expected.version)
                .await;
            return self.give_up(response);
        }
        if let Some(confirmation) = self.confirmation(&response) {
            return self.not_modified(response, confirmation).await;
        }
        if !matches!(response.status(), 200 | 206) {
            return self.refused(response).await;
        }
        let verdict = validate(self.question(), &response.head());
        match verdict {
            Ok(fit) => self.keep(response, fit).await,
            Err(Unfit::Forbidden) => self.forbidden(response).await,
            Err(reason) => {
                tracing::debug!(%reason, status = response.status(), "a response is passed on and not kept");
                self.peers
                    .metrics()
                    .count(Counter::UpstreamErrors(UpstreamFailure::Validation));
                self.give_up(response)
            }
        }
    }

    fn question(&self) -> Question<'_> {
        Question {
            method: self.fetch.template.method,
            ranged: &self.fetch.ranged,
            wants_checksums: self.fetch.template.wants_checksums,
            whole_will_do: self.fetch.client_whole && self.fetch.expected.is_none(),
            object_bytes_max: self.fetch.policy.object_bytes_max,
            by_origin: self.fetch.by_origin(),
            overridden: self.fetch.template.overridden,
        }
    }

    /// The version that an answer is of, if it may be kept.
    fn version_of(&self, response: &Response) -> Option<u128> {
        let fit = validate(self.question(), &response.head()).ok()?;
        Some(fit.version())
    }

    /// The origin does not want it to be kept; nor, then, what is known already.
    async fn forbidden(&mut self, response: Response) -> FillEnd {
        self.known_is_gone().await;
        if let Some(expected) = &self.fetch.expected {
            let (object, version) = (self.fetch.object, expected.version);
            self.peers.version_gone(object, version).await;
        }
        self.peers.forbidden(self.fetch.object);
        self.peers.metrics().count(Counter::FillsForbidden);
        self.give_up(response)
    }

    /// What an answer is bringing, if it is one window, worth a connection, and all of it on disk.
    fn on_disk(
        &self,
        window: &plan::Window,
        version: u128,
        span: &Range<u64>,
    ) -> Option<Arc<Extent>> {
        let whole = window.absolute() == *span && window.range.len() >= LOAD_BYTES_MIN;
        let opening = self.fetch.expected.is_none();
        let id = window.id(self.fetch.object, version);
        (whole && opening)
            .then(|| {
                self.peers
                    .load(id, window.range.clone(), &self.fetch.interest)
            })
            .flatten()
    }

    /// The version that is known still holds, or the origin answers the client's own condition.
    async fn not_modified(&mut self, response: Response, confirmation: Confirmed) -> FillEnd {
        let Confirmed::Same(mut parts) = confirmation else {
            if !matches!(confirmation, Confirmed::Unclear) {
                self.known_is_gone().await;
            }
            self.revalidated(Revalidation::Refused);
            self.fetch.faithful = true;
            return self.give_up(response);
        };
        let status = response.status();
        date(&mut parts, &response);
        response.finish();
        self.revalidated(Revalidation::Confirmed);
        let head = Head::new(self.fetch.object, parts);
        match self.peers.confirm(head, self.fetch.stamp).await {
            Some(head) => self.ready(head, None, false, Came::Confirmed(status)),
            None => self.tell(Outcome::Alone),
        }
        FillEnd::Completed
    }

    /// Neither bytes nor a confirmation.
    async fn refused(&mut self, response: Response) -> FillEnd {
        let status = response.status();
        self.revalidated(match status {
            404 | 410 => Revalidation::Gone,
            _ => Revalidation::Refused,
        });
        // 416: the origin would have said 304 if the version that is known held; or it does not know conditions.
        if matches!(status, 404 | 410 | 416) {
            self.known_is_gone().await;
        }
        // A range that was put in for speed changes nothing about a redirect or an error, but for 416.
        self.fetch.faithful |= self.fetch.expected.is_none() && status != 416;
        self.give_up(response)
    }

    async fn known_is_gone(&self) {
        if let Some(known) = &self.fetch.known {
            let version = known.version();
            self.peers.version_gone(self.fetch.object, version).await;
        }
    }

    fn ready(&mut self, head: Arc<Head>, extent: Option<Arc<Extent>>, fills: bool, came: Came) {
        let fill = fills.then(|| Arc::clone(&self.readers));
        self.tell(Outcome::Ready(Ready {
            head,
            extent,
            fill,
            came,
        }));
    }

    /// How a 200 or 206 with this version came about.
    fn came(&self, status: u16, version: u128) -> Came {
        match &self.fetch.known {
            None => Came::Fetched(status),
            Some(known) if known.version() == version => {
                self.revalidated(Revalidation::Confirmed);
                Came::Confirmed(status)
            }
            Some(_) => {
                self.revalidated(Revalidation::Changed);
                Came::Changed(status)
            }
        }
    }

    /// Stores the head of a response that fits; `None` if it may not be kept.
    async fn published(&self, mut parts: HeadParts) -> Option<Arc<Head>> {
        parts.key = (*self.fetch.key).into();
        let head = Head::new(self.fetch.object, parts);
        let stamp = self.fetch.stamp;
        let expected = self
            .fetch
            .expected
            .as_ref()
            .map(|expected| expected.version);
        let known = self.fetch.known.as_ref().map(|known| known.version());
        match expected.or(known) {
            // A fallback brings bytes of a version that the origin has spoken of: its word stays.
            Some(_) if expected.is_some() && head.is_by_fallback() => {
                let known = self.peers.known_head(self.fetch.object, &self.fetch.key);
                let known = known.filter(|known| known.version() == head.version());
                Some(known.unwrap_or_else(|| Arc::new(head)))
            }
            // The version that was known: it may have been followed by another one since.
            Some(version) if version == head.version() => self.peers.confirm(head, stamp).await,
            Some(_) | None => self.peers.publish(head, stamp).await,
        }
    }

    async fn room(&mut self, window: &plan::Window, version: u128, span: &Range<u64>) -> Lease {
        let id = window.id(self.fetch.object, version);
        let early = self.early.take_if(|writer| writer.extent().id() == id);
        match (early, self.on_disk(window, version, span)) {
            (Some(writer), _) => Lease::Granted(writer),
            // The version is the one that was there before: what is left of the answer is not read.
            (None, Some(extent)) => Lease::Have(extent),
            (None, None) => {
                let readers = Arc::clone(&self.readers);
                self.peers.lease(id, window.range.clone(), readers).await
            }
        }
    }

    async fn keep(&mut self, response: Response, mut fit: Fit) -> FillEnd {
        date(&mut fit.parts, &response);
        let span = fit.span.clone();
        let version = fit.version();
        let Some(head) = self.published(fit.parts).await else {
            return self.give_up(response);
        };
        let came = self.came(response.status(), version);
        let opens = self.fetch.expected.is_none();
        // Reading the answer costs less than another connection, unless there is much of it or hardly any.
        let cheap = (DRAIN_BYTES_MAX..LOAD_BYTES_MIN as u64).contains(&(span.end - span.start));
        let is_here = || !cheap && self.peers.has(self.fetch.object, version, &span);
        let Some(window) = plan::first_window(&span).filter(|_| !(opens && is_here())) else {
            let window = plan::first_window(&span);
            let extent = window.and_then(|window| self.on_disk(&window, version, &span));
            self.ready(head, extent, false, came);
            drain(response).await;
            return FillEnd::Completed;
        };
        self.readers.announce(span.clone());
        let lease = self.room(&window, version, &span).await;
        let (extent, enough) = match &lease {
            Lease::Granted(writer) => (writer.extent(), false),
            // Somebody else has these bytes already: reading them again would fetch a byte twice for nothing.
            Lease::Have(extent) => (
                extent,
                extent.promised_end() >= window.range.end && window.absolute().end == span.end,
            ),
            Lease::NoRoom => {
                self.peers.metrics().count(Counter::FillsUnstored);
                if self.fetch.faithful {
                    return self.give_up(response);
                }
                self.tell(Outcome::Busy);
                return FillEnd::Aborted;
            }
        };
        let extent = Some(Arc::clone(extent));
        self.ready(head, extent, !enough, came);
        if enough {
            return FillEnd::Completed;
        }
        let flow = Flow {
            object: self.fetch.object,
            version,
            rest_bytes: Flow::rest_bytes_of(&span, self.fetch.policy.page_bytes),
            span,
            readers: Arc::clone(&self.readers),
            started_ns: self.started_ns,
        };
        stream::stream(self.peers, response, flow, lease).await
    }
}

/// Notes when a head was asked for, that it came now, and from whom.
fn date(parts: &mut HeadParts, response: &Response) {
    let now_ms = clock::now_ms() as i64;
    let waited_ms = response.waited_ns() / 1_000_000;
    parts.confirmed_ms = now_ms;
    parts.asked_ms = now_ms - waited_ms as i64 - 1;
    parts.age_before_ms = response.age_ms();
    parts.by_fallback = response.is_by_fallback();
    let mut dated = dated(&response.head(), waited_ms, clock::unix_ms());
    // What a millrace behind us says of its age counts once.
    dated.age_ms = dated.age_ms.saturating_sub(parts.age_before_ms);
    parts.dated = Some(dated);
}

/// Lets go of a body that is not wanted: a small rest is read, for the sake of the connection.
async fn drain(mut response: Response) {
    let left = response
        .body_length()
        .map(|length| length - response.received());
    if left.is_some_and(|left| left <= DRAIN_BYTES_MAX) {
        let mut sink = vec![0u8; 16 * 1024];
        // Whatever goes wrong, the connection is closed.
        while matches!(response.read(&mut sink).await, Ok(1..)) {}
    }
    response.finish();
}

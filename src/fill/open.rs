//! A fetch up to the origin's response head: send, check, publish, get room; then the body streams.
//!
//! Called by `shard` as a task of its own. `opened` is called exactly once, as soon as it is known what the readers get.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::http::Method;
use crate::metrics::{Counter, FillEnd, Gauge, Histogram, UpstreamFailure, UpstreamKind};
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::readers::Readers;
use crate::upstream::{Response, UpstreamError};

use super::stream::{self, Flow};
use super::template::Ranged;
use super::validate::{Fit, Question, validate};
use super::{Fetch, Outcome, Peers, Ready, plan};

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
}

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
                self.tell(Outcome::Failed(Arc::new(error)));
                FillEnd::Failed
            }
        }
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
                        from_disk: false,
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
        let etag = fetch.expected.as_ref().map(|expected| &*expected.etag);
        let head = fetch.template.render(&fetch.ranged, etag);
        let kind = match fetch.template.method {
            Method::Head => UpstreamKind::Head,
            _ => UpstreamKind::Fill,
        };
        peers.metrics().count(Counter::UpstreamRequests(kind));
        let asked = peers
            .upstream()
            .fetch(&fetch.template.endpoint, &head, fetch.template.method)
            .await;
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
        if !matches!(response.status(), 200 | 206) {
            // A range that was put in for speed changes nothing about a redirect or an error, but for 416.
            self.fetch.faithful |= self.fetch.expected.is_none() && response.status() != 416;
            return self.give_up(response);
        }
        let question = Question {
            method: self.fetch.template.method,
            ranged: &self.fetch.ranged,
            wants_checksums: self.fetch.template.wants_checksums,
            whole_will_do: self.fetch.client_whole && self.fetch.expected.is_none(),
            object_bytes_max: self.fetch.policy.object_bytes_max,
        };
        let verdict = validate(question, &response.head());
        match verdict {
            Ok(fit) => self.keep(response, fit).await,
            Err(reason) => {
                tracing::debug!(%reason, status = response.status(), "a response is passed on and not kept");
                self.peers
                    .metrics()
                    .count(Counter::UpstreamErrors(UpstreamFailure::Validation));
                self.give_up(response)
            }
        }
    }

    /// What an answer is bringing, if it is one window, worth a connection, and all of it on disk.
    fn on_disk(
        &self,
        window: &plan::Window,
        version: u128,
        span: &std::ops::Range<u64>,
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

    async fn keep(&mut self, response: Response, fit: Fit) -> FillEnd {
        let span = fit.span.clone();
        let version = fit.version();
        let mut parts = fit.parts;
        parts.key = (*self.fetch.key).into();
        parts.confirmed_ms = clock::now_ms() as i64;
        let head = Head::new(self.fetch.object, parts);
        let Some(head) = self.peers.publish(head, self.fetch.stamp).await else {
            return self.give_up(response);
        };
        let Some(window) = plan::first_window(&span) else {
            self.tell(Outcome::Ready(Ready {
                head,
                extent: None,
                fill: None,
                from_disk: false,
            }));
            response.finish();
            return FillEnd::Completed;
        };
        self.readers.announce(span.clone());
        let early = self
            .early
            .take_if(|writer| writer.extent().id() == window.id(self.fetch.object, version));
        let lease = match (early, self.on_disk(&window, version, &span)) {
            (Some(writer), _) => Lease::Granted(writer),
            // The version is the one that was there before: what is left of the answer is not read.
            (None, Some(extent)) => Lease::Have(extent),
            (None, None) => {
                let id = window.id(self.fetch.object, version);
                self.peers
                    .lease(id, window.range.clone(), Arc::clone(&self.readers))
                    .await
            }
        };
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
        let fill = (!enough).then(|| Arc::clone(&self.readers));
        let extent = Some(Arc::clone(extent));
        self.tell(Outcome::Ready(Ready {
            head,
            extent,
            fill,
            from_disk: false,
        }));
        if enough {
            return FillEnd::Completed;
        }
        let flow = Flow {
            object: self.fetch.object,
            version,
            span,
            readers: Arc::clone(&self.readers),
            started_ns: self.started_ns,
        };
        stream::stream(self.peers, response, flow, lease).await
    }
}

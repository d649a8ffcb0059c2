//! A fetch up to the origin's response head: send, check, publish, get room; then the body streams.
//!
//! Called by `shard` as a task of its own. `opened` is called exactly once, as soon as it is known what the readers get.

use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::http::Method;
use crate::metrics::{Counter, Gauge, Histogram, UpstreamFailure, UpstreamKind};
use crate::ram::extent::Readers;
use crate::upstream::{Response, UpstreamError};

use super::stream::{Flow, stream};
use super::template::Ranged;
use super::validate::{Fit, Question, validate};
use super::{Fetch, Outcome, Peers, Ready, plan};

/// Runs a fetch to its end. `opened` hands the outcome to whoever waits.
pub async fn run<P: Peers>(peers: Rc<P>, fetch: Fetch, opened: impl FnOnce(Outcome)) {
    let started_ns = clock::now_ns();
    peers.metrics().gauge_add(Gauge::FillsInFlight, 1);
    peers.metrics().count(Counter::FillsStarted);
    let end = attempt(&*peers, fetch, opened, started_ns).await;
    peers.metrics().count(Counter::FillsEnded(end));
    peers.metrics().gauge_add(Gauge::FillsInFlight, -1);
    peers
        .metrics()
        .observe(Histogram::FillDuration, clock::now_ns() - started_ns);
}

async fn attempt<P: Peers>(
    peers: &P,
    mut fetch: Fetch,
    opened: impl FnOnce(Outcome),
    started_ns: u64,
) -> crate::metrics::FillEnd {
    let mut response = match exchange(peers, &fetch).await {
        Ok(response) => response,
        Err(error) => {
            opened(Outcome::Failed(Arc::new(error)));
            return crate::metrics::FillEnd::Failed;
        }
    };
    // A range that we put in for speed must not change the answer: a zero-byte object satisfies no range.
    if response.status() == 416
        && fetch.expected.is_none()
        && !fetch.faithful
        && fetch.ranged != Ranged::Whole
    {
        fetch.ranged = Ranged::Whole;
        fetch.faithful = true;
        drop(response);
        response = match exchange(peers, &fetch).await {
            Ok(response) => response,
            Err(error) => {
                opened(Outcome::Failed(Arc::new(error)));
                return crate::metrics::FillEnd::Failed;
            }
        };
    }
    judge(peers, fetch, response, opened, started_ns).await
}

async fn exchange<P: Peers>(peers: &P, fetch: &Fetch) -> Result<Response, UpstreamError> {
    let etag = fetch.expected.as_ref().map(|expected| &*expected.etag);
    let head = fetch.template.render(&fetch.ranged, etag);
    let kind = if fetch.template.method == Method::Head {
        UpstreamKind::Head
    } else {
        UpstreamKind::Fill
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

fn give_up(
    fetch: &Fetch,
    response: Response,
    opened: impl FnOnce(Outcome),
) -> crate::metrics::FillEnd {
    opened(if fetch.faithful {
        Outcome::Relay(Box::new(response))
    } else {
        Outcome::Alone
    });
    crate::metrics::FillEnd::Aborted
}

async fn judge<P: Peers>(
    peers: &P,
    fetch: Fetch,
    response: Response,
    opened: impl FnOnce(Outcome),
    started_ns: u64,
) -> crate::metrics::FillEnd {
    if response.status() == 412
        && let Some(expected) = &fetch.expected
    {
        peers.version_gone(fetch.object, expected.version).await;
        return give_up(
            &Fetch {
                faithful: fetch.faithful && fetch.template.has_if_match,
                ..fetch
            },
            response,
            opened,
        );
    }
    if !matches!(response.status(), 200 | 206) {
        return give_up(&fetch, response, opened);
    }
    let question = Question {
        method: fetch.template.method,
        ranged: &fetch.ranged,
        wants_checksums: fetch.template.wants_checksums,
        whole_will_do: fetch.client_whole && fetch.expected.is_none(),
        object_bytes_max: peers.fill_config().object_bytes_max,
    };
    let verdict = validate(question, &response.head());
    match verdict {
        Ok(fit) => keep(peers, &fetch, (response, fit), opened, started_ns).await,
        Err(reason) => {
            tracing::debug!(%reason, status = response.status(), "a response is passed on and not kept");
            peers
                .metrics()
                .count(Counter::UpstreamErrors(UpstreamFailure::Validation));
            give_up(&fetch, response, opened)
        }
    }
}

async fn keep<P: Peers>(
    peers: &P,
    fetch: &Fetch,
    (response, fit): (Response, Fit),
    opened: impl FnOnce(Outcome),
    started_ns: u64,
) -> crate::metrics::FillEnd {
    let span = fit.span.clone();
    let version = fit.version();
    let mut parts = fit.parts;
    parts.key = (*fetch.key).into();
    parts.confirmed_ms = clock::now_ms();
    let Some(head) = peers
        .publish(Head::new(fetch.object, parts), fetch.stamp)
        .await
    else {
        return give_up(fetch, response, opened);
    };
    let Some(window) = plan::first_window(&span) else {
        opened(Outcome::Ready(Ready {
            head,
            extent: None,
            fill: None,
        }));
        response.finish();
        return crate::metrics::FillEnd::Completed;
    };
    let readers = Arc::<Readers>::default();
    let id = window.id(fetch.object, version);
    let lease = peers
        .lease(id, window.range.clone(), Arc::clone(&readers))
        .await;
    match &lease {
        Lease::Granted(writer) => {
            let extent = Some(Arc::clone(writer.extent()));
            opened(Outcome::Ready(Ready {
                head,
                extent,
                fill: Some(Arc::clone(&readers)),
            }));
        }
        Lease::Have(extent) => {
            // Somebody else has these bytes already: reading them again would fetch a byte twice for nothing.
            let enough =
                extent.promised_end() >= window.range.end && window.absolute().end == span.end;
            let fill = (!enough).then(|| Arc::clone(&readers));
            opened(Outcome::Ready(Ready {
                head,
                extent: Some(Arc::clone(extent)),
                fill,
            }));
            if enough {
                return crate::metrics::FillEnd::Completed;
            }
        }
        Lease::NoRoom => {
            peers.metrics().count(Counter::FillsUnstored);
            if fetch.faithful {
                return give_up(fetch, response, opened);
            }
            opened(Outcome::Busy);
            return crate::metrics::FillEnd::Aborted;
        }
    }
    debug_assert!(fetch.template.method != Method::Head, "a HEAD has no span");
    let flow = Flow {
        object: fetch.object,
        version,
        span,
        readers,
        started_ns,
        interest: fetch.interest.clone(),
    };
    stream(peers, response, flow, lease).await
}

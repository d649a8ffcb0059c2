//! GET and HEAD of an object: from the cache if it is known and fresh, through a fetch if not.
//!
//! Called by `mod`. Decides what the client gets and says so in the head; `deliver` sends the bytes.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::Moment;
use crate::cache::Head;
use crate::cache::stamps::Stamp;
use crate::fill::plan;
use crate::fill::template::{Ranged, Template};
use crate::fill::{Fetch, Outcome, Ready};
use crate::http::Method;
use crate::io::{Either, race};
use crate::metrics;
use crate::s3::{ObjectKeyRef, RangeSpec, Resolved};
use crate::shard::Shard;

use super::answer::{Answer, CacheStatus};
use super::client::Gone;
use super::deliver::{Asking, Coverage, Delivery, Stopped, coverage};
use super::failure::Failure;
use super::hit::Begun;
use super::report::Report;
use super::{End, Exchange, forward, hit, pass};

/// Offsets from here on are of no object that is kept; stripe numbers below it fit their type.
const OFFSET_MAX: u64 = 1 << 54;

/// What the index says of a request.
enum Found {
    /// Known and fresh, and all there in one place: the answer is on its way.
    Begun(Begun),
    /// Known and fresh, and the answer is certain; its bytes are not all in one place.
    Fresh(Arc<Head>, Option<Range<u64>>),
    /// Not known, or too old: ask the origin and keep what it says.
    Absent(CacheStatus),
    /// Only the origin can answer this one.
    Ask,
}

/// Serves one GET or HEAD of an object.
pub(super) async fn serve(exchange: &Exchange<'_>, report: &mut Report, out: &mut Vec<u8>) -> End {
    let Some(object) = exchange.request.target.object_key() else {
        return Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await;
    };
    let digest = object.digest().0;
    exchange.shard.index_of(digest, 0).expect_head(digest);
    // The stamp comes first: a head found after it was not beaten by an invalidation before it.
    let stamp = exchange.shard.world.stamps.now(digest);
    let read = Read {
        exchange,
        object,
        digest,
        stamp,
    };
    match read.look_up(report, out) {
        Found::Begun(Begun::Whole) => exchange.end(),
        Found::Begun(Begun::Rest(rest)) => hit::rest(exchange, rest, out, report).await,
        Found::Begun(Begun::Gone(gone)) => End::gone(gone, report),
        Found::Fresh(head, part) => read.known(head, part, report, out).await,
        // Boxed, so that the state of a hit stays small.
        Found::Absent(_) if !read.is_kept() => {
            Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await
        }
        Found::Absent(status) => Box::pin(read.open(status, report, out)).await,
        Found::Ask => Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await,
    }
}

struct Read<'e, 'a> {
    exchange: &'e Exchange<'a>,
    object: ObjectKeyRef<'e>,
    digest: u128,
    stamp: Stamp,
}

impl Read<'_, '_> {
    fn shard(&self) -> &Rc<Shard> {
        self.exchange.shard
    }

    fn is_head(&self) -> bool {
        self.exchange.head.method == Method::Head
    }

    fn spec(&self) -> Option<RangeSpec> {
        self.exchange.request.range
    }

    /// Whether what the origin says would be kept.
    fn is_kept(&self) -> bool {
        let policy = self.shard().policy_at(self.object);
        policy.ttl_ms_of(self.is_head()) > 0
    }

    /// One look at the index. A hit in one place is answered from inside of it.
    fn look_up(&self, report: &mut Report, out: &mut Vec<u8>) -> Found {
        let index = self.shard().index_of(self.digest, 0);
        index
            .with_head(self.digest, self.object.encoded(), |head| {
                self.judge(head, report, out)
            })
            .unwrap_or(Found::Absent(CacheStatus::Miss))
    }

    fn judge(&self, head: &Arc<Head>, report: &mut Report, out: &mut Vec<u8>) -> Found {
        let ttl_ms = self.shard().policy_of(head).ttl_ms_of(self.is_head());
        if !head.is_fresh(report.started().ms(), ttl_ms) {
            return Found::Absent(CacheStatus::Stale);
        }
        let request = &self.exchange.request;
        if request
            .if_match
            .is_some_and(|condition| !condition.matches(head.etag()))
        {
            return Found::Ask;
        }
        match resolve(self.spec(), head.total()) {
            None => Found::Ask,
            Some(None) if request.checksum_mode && !head.checksums_known() => {
                Found::Absent(CacheStatus::Miss)
            }
            Some(part) => {
                head.touch();
                self.begin(head, part, report, out)
            }
        }
    }

    /// Answers what is there in one place.
    fn begin(
        &self,
        head: &Arc<Head>,
        part: Option<Range<u64>>,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> Found {
        let range = part.clone().unwrap_or(0..head.total());
        let status = if part.is_some() { 206 } else { 200 };
        let window = plan::first_window(&range).filter(|_| !self.is_head());
        let Some(window) = window else {
            report.outcome = metrics::Outcome::Hit;
            self.write(head, part, report, out);
            return Found::Begun(hit::head(self.exchange, status, out, report));
        };
        let index = self.shard().index_of(head.object(), window.index);
        let id = window.id(head.object(), head.version());
        let one_place = window.absolute().end == range.end;
        let begun = index.with_extents(&id, |extents| {
            let Range { start, end } = window.range;
            let extent = extents
                .iter()
                .find(|extent| one_place && extent.holds(start, end))?;
            extent.touch();
            hit::expect(extent, &window.range);
            report.outcome = metrics::Outcome::Hit;
            self.write(head, part.clone(), report, out);
            let held = (extent, window.range.clone());
            Some(hit::body(self.exchange, held, status, out, report))
        });
        match begun.flatten() {
            Some(begun) => Found::Begun(begun),
            None => Found::Fresh(Arc::clone(head), part),
        }
    }

    /// The head of a hit, of the moment at which its request was whole.
    fn write(&self, head: &Head, part: Option<Range<u64>>, report: &Report, out: &mut Vec<u8>) {
        self.answer(head, part, CacheStatus::Hit, report.started())
            .write(report.id(), out);
    }

    fn answer<'h>(
        &self,
        head: &'h Head,
        part: Option<Range<u64>>,
        status: CacheStatus,
        now: Moment,
    ) -> Answer<'h> {
        Answer {
            head,
            part,
            checksums: self.exchange.request.checksum_mode,
            status,
            age_ms: head.age_ms(now.ms()),
            date: self.shard().date(now),
            keep_alive: self.exchange.keep_alive,
            version: self.exchange.head.version,
        }
    }

    /// Known and fresh: the head goes out now, the bytes as they are there.
    async fn known(
        &self,
        head: Arc<Head>,
        part: Option<Range<u64>>,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let status = self.status_of(&head, part.as_ref());
        report.outcome = outcome_of(status);
        let asking = if status == CacheStatus::Hit {
            None
        } else {
            self.asking()
        };
        self.body(&head, part, (status, asking, None), report, out)
            .await
    }

    /// What an answer from the cache says of itself.
    fn status_of(&self, head: &Head, part: Option<&Range<u64>>) -> CacheStatus {
        let range = part.cloned().unwrap_or(0..head.total());
        match coverage(self.shard(), head, &range) {
            Coverage::Whole => CacheStatus::Hit,
            Coverage::OnItsWay => CacheStatus::Collapsed,
            Coverage::Partial => CacheStatus::Partial,
            Coverage::None => CacheStatus::Miss,
        }
    }

    async fn head_only(
        &self,
        head: &Head,
        part: Option<Range<u64>>,
        status: CacheStatus,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let answer = self.answer(head, part, status, Moment::now());
        let code = if answer.part.is_some() { 206 } else { 200 };
        answer.write(report.id(), out);
        report.head_sent(code);
        match self.exchange.client.send(out, &[], false).await {
            Ok(()) => self.exchange.end(),
            Err(gone) => End::gone(gone, report),
        }
    }

    /// What is needed to ask the origin; `None` if the host leads to none.
    fn asking(&self) -> Option<Asking> {
        let Exchange {
            shard,
            head,
            route,
            request,
            ..
        } = self.exchange;
        let template = forward::template(shard, head, route, request)?;
        Some(Asking {
            key: self.object.encoded().into(),
            template,
            policy: shard.policy_at(self.object),
            interest: Arc::new(()),
        })
    }

    /// Not known: one exchange brings the head and the first bytes.
    async fn open(&self, status: CacheStatus, report: &mut Report, out: &mut Vec<u8>) -> End {
        report.outcome = metrics::Outcome::Miss;
        let Some(asking) = self.asking() else {
            let failure = Failure::new(
                crate::s3::ErrorCode::AccessDenied,
                "the host leads to no origin",
            );
            return self.exchange.fail(&failure, report, out).await;
        };
        let fetch = self.opening(&asking);
        let mut leaves = std::pin::pin!(self.exchange.client.leaves());
        let asked = std::pin::pin!(self.shard().fetch(fetch));
        let outcome = match race(asked, leaves.as_mut()).await {
            Either::First(outcome) => outcome,
            Either::Second(()) => return End::gone(self.exchange.client.gone(), report),
        };
        match outcome {
            Outcome::Ready(ready) => {
                report.origin_status = (!ready.from_disk).then_some(200);
                self.opened(ready, status, asking, report, out).await
            }
            outcome => self.otherwise(outcome, report, out).await,
        }
    }

    async fn opened(
        &self,
        ready: Ready,
        status: CacheStatus,
        asking: Asking,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let head = Arc::clone(&ready.head);
        let condition_holds = self
            .exchange
            .request
            .if_match
            .is_none_or(|condition| condition.matches(head.etag()));
        let part = match resolve(self.spec(), head.total()) {
            Some(part) if condition_holds => part,
            _ => {
                return Box::pin(pass::serve(self.exchange, CacheStatus::Bypass, report, out))
                    .await;
            }
        };
        let empty = part.is_none() && head.total() == 0;
        let status = match ready.from_disk {
            true if self.is_head() || empty => CacheStatus::Hit,
            true => self.status_of(&head, part.as_ref()),
            false => status,
        };
        report.outcome = outcome_of(status);
        if self.is_head() || empty {
            return self.head_only(&head, part, status, report, out).await;
        }
        self.body(
            &head,
            part,
            (status, Some(asking), Some(ready)),
            report,
            out,
        )
        .await
    }

    /// The wish of a request whose object is not known.
    fn opening(&self, asking: &Asking) -> Fetch {
        let (ranged, faithful) = self.opening_range(&asking.template);
        Fetch {
            key: Arc::clone(&asking.key),
            object: self.digest,
            stamp: self.stamp,
            template: Arc::clone(&asking.template),
            ranged,
            expected: None,
            wanted: self
                .spec()
                .and_then(RangeSpec::bounds)
                .map_or(0, |bounds| bounds.start),
            client_whole: self.spec().is_none(),
            interest: Arc::downgrade(&asking.interest),
            policy: asking.policy,
            faithful,
        }
    }

    fn opening_range(&self, template: &Template) -> (Ranged, bool) {
        let fans_out = self.shard().policy().fanout > 1 && !template.range_signed;
        match self.spec() {
            Some(spec) if template.range_signed => (Ranged::AsSent(spec), true),
            // The first stripe first; the others follow from their owners when the length is known.
            // No object reaches so far: the origin says so.
            Some(spec)
                if spec
                    .bounds()
                    .is_some_and(|bounds| bounds.start >= OFFSET_MAX) =>
            {
                (Ranged::Spec(spec), true)
            }
            Some(RangeSpec::FromTo(first, last)) if fans_out => {
                let whole = last.saturating_add(1);
                let end = whole.min(plan::stripe_end(first));
                (Ranged::bytes(&(first..end)), end == whole)
            }
            Some(RangeSpec::From(first)) if fans_out => {
                (Ranged::bytes(&(first..plan::stripe_end(first))), false)
            }
            Some(spec) => (Ranged::Spec(spec), true),
            // Whole-body checksums come only with a 200.
            None if fans_out && !self.is_head() && !template.wants_checksums => {
                (Ranged::bytes(&(0..crate::ram::STRIPE_BYTES)), false)
            }
            None => (Ranged::Whole, true),
        }
    }

    async fn body(
        &self,
        head: &Arc<Head>,
        part: Option<Range<u64>>,
        (status, asking, first): (CacheStatus, Option<Asking>, Option<Ready>),
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let range = part.clone().unwrap_or(0..head.total());
        let answer = self.answer(head, part, status, Moment::now());
        let code = if answer.part.is_some() { 206 } else { 200 };
        answer.write(report.id(), out);
        let ask = || self.asking();
        let delivery = Delivery {
            shard: self.shard(),
            client: self.exchange.client,
            head,
            range,
            spec: self.spec(),
            stamp: self.stamp,
            asking: &ask,
        };
        let leaves = std::pin::pin!(self.exchange.client.leaves());
        let stopped = match delivery
            .run(code, out, (first, asking), leaves, report)
            .await
        {
            Ok(()) => return self.exchange.end(),
            Err(stopped) => stopped,
        };
        match stopped {
            Stopped::Gone(gone) => End::gone(gone, report),
            Stopped::NotBegun(outcome) => {
                out.clear();
                Box::pin(self.otherwise(outcome, report, out)).await
            }
            Stopped::Nothing(words) => {
                out.clear();
                let failure = Failure::new(crate::s3::ErrorCode::GatewayTimeout, words);
                Box::pin(self.exchange.fail(&failure, report, out)).await
            }
            Stopped::Cut(words) => {
                report.outcome = metrics::Outcome::Error;
                report.error = Some(words);
                End::Cut
            }
        }
    }

    /// The fetch brought no bytes for the cache and nothing was sent yet.
    async fn otherwise(&self, outcome: Outcome, report: &mut Report, out: &mut Vec<u8>) -> End {
        match outcome {
            Outcome::Relay(response) => {
                Box::pin(pass::relay(
                    self.exchange,
                    *response,
                    CacheStatus::Unstored,
                    report,
                    out,
                ))
                .await
            }
            Outcome::Ready(_) | Outcome::Alone | Outcome::Busy => {
                Box::pin(pass::serve(self.exchange, CacheStatus::Bypass, report, out)).await
            }
            Outcome::Failed(error) => {
                tracing::debug!(%error, "an origin could not be asked");
                self.exchange
                    .fail(&Failure::of_upstream(&error), report, out)
                    .await
            }
        }
    }
}

/// What the client's range means for an object of `total` bytes: `None` if only the origin can say (416), `Some(None)` for everything.
fn resolve(spec: Option<RangeSpec>, total: u64) -> Option<Option<Range<u64>>> {
    let Some(spec) = spec else { return Some(None) };
    match spec.resolve(total) {
        Resolved::Full => Some(None),
        Resolved::Part(range) => Some(Some(range)),
        Resolved::Unsatisfiable => None,
    }
}

fn outcome_of(status: CacheStatus) -> metrics::Outcome {
    match status {
        CacheStatus::Hit => metrics::Outcome::Hit,
        CacheStatus::Collapsed | CacheStatus::Miss | CacheStatus::Stale => metrics::Outcome::Miss,
        CacheStatus::Partial => metrics::Outcome::Partial,
        CacheStatus::Unstored | CacheStatus::Bypass | CacheStatus::Method => metrics::Outcome::Pass,
    }
}

impl End {
    /// The client left in the middle.
    pub(super) fn gone(gone: Gone, report: &mut Report) -> Self {
        report.error = Some(match gone {
            Gone::Left => "the client left",
            Gone::Slow => "the client was too slow",
        });
        Self::Gone(gone)
    }
}

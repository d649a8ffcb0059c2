//! GET and HEAD of an object: from the cache if it is known and fresh, through a fetch if not.
//!
//! Called by `mod`. Decides what the client gets and says so in the head; `deliver` sends the bytes.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::Moment;
use crate::cache::Head;
use crate::cache::sequences::Ahead;
use crate::cache::stamps::Stamp;
use crate::config::{Access, ObjectPolicy};
use crate::fill::plan;
use crate::fill::template::Template;
use crate::fill::{Came, Fetch, Outcome, Ready};
use crate::http::Method;
use crate::io::{Either, race};
use crate::metrics;
use crate::s3::{ErrorCode, ObjectKeyRef, RangeSpec, Unmet, Verdict};
use crate::shard::Shard;

use super::access::Right;
use super::answer::{Answer, CacheStatus, Reason};
use super::asked::{Asked, Place};
use super::deliver::{Asking, Coverage, Delivery, Stopped, coverage};
use super::failure::Failure;
use super::hit::Begun;
use super::report::Report;
use super::{End, Exchange, chain, forward, hit, pass};

/// What the index says of a request.
pub(super) enum Found {
    /// Known and fresh, and all there in one place: the answer is on its way.
    Begun(Begun),
    /// Known and fresh, and the answer is certain; its bytes are not all in one place.
    Fresh(Arc<Head>, Option<Range<u64>>),
    /// Not known, or not enough of it: ask the origin and keep what it says.
    Absent(CacheStatus),
    /// Known, but to be used only if the origin says that it still holds; it would have been used at an age below this one.
    Stale(Arc<Head>, u64),
    /// Only the origin can answer this one.
    Ask,
}

/// Serves one GET or HEAD of an object.
pub(super) async fn serve(exchange: &Exchange<'_>, report: &mut Report, out: &mut Vec<u8>) -> End {
    let Some((object, digest)) = exchange.request.object() else {
        return Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await;
    };
    exchange.shard.index_of(digest, 0).approach(digest);
    // The stamp comes first: a head found after it was not beaten by an invalidation before it.
    let stamp = exchange.shard.world.stamps.now(digest);
    let read = Read {
        exchange,
        object,
        digest,
        stamp,
        right: Cell::new(None),
        asked: Asked::default(),
        ahead: Cell::new(None),
    };
    if read.wants_no_store() {
        return Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await;
    }
    let found = read.look_up(report, out);
    read.go_ahead();
    let end = match found {
        Found::Begun(Begun::Whole) => exchange.end(),
        Found::Begun(Begun::Rest(rest)) => hit::rest(exchange, rest, out, report).await,
        Found::Begun(Begun::Gone(gone)) => End::gone(gone, report),
        found if read.wants_only_cached() => Box::pin(read.only_cached(found, report, out)).await,
        Found::Fresh(head, part) => read.known(head, part, report, out).await,
        // Boxed, so that the state of a hit stays small.
        Found::Absent(_) if !read.may_keep() => {
            Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await
        }
        Found::Absent(status) => Box::pin(read.absent(status, report, out)).await,
        Found::Stale(known, fresh_ms) => Box::pin(read.stale((known, fresh_ms), report, out)).await,
        Found::Ask => Box::pin(pass::serve(exchange, CacheStatus::Bypass, report, out)).await,
    };
    read.heard(report);
    end
}

pub(super) struct Read<'e, 'a> {
    pub(super) exchange: &'e Exchange<'a>,
    pub(super) object: ObjectKeyRef<'e>,
    pub(super) digest: u128,
    pub(super) stamp: Stamp,
    /// What is known of the client's right, once it has been asked for.
    pub(super) right: Cell<Option<Right>>,
    /// What the answer is to have that is not in every answer.
    pub(super) asked: Asked,
    /// What is to be fetched ahead of this read.
    pub(super) ahead: Cell<Option<(Arc<Head>, Ahead)>>,
}

impl Read<'_, '_> {
    pub(super) fn shard(&self) -> &Rc<Shard> {
        self.exchange.shard
    }

    pub(super) fn is_head(&self) -> bool {
        self.exchange.head.method == Method::Head
    }

    pub(super) fn spec(&self) -> Option<RangeSpec> {
        self.exchange.request.range.or_else(|| self.asked.spec())
    }

    /// What is known of the client's right to what is cached.
    pub(super) fn right(&self, policy: ObjectPolicy) -> Right {
        if let Some(right) = self.right.get() {
            return right;
        }
        // A header of the client's own choice is its signature's to vouch for, also where reading is everybody's.
        let access = match policy.access {
            Access::Open if self.exchange.request.overrides.mask() != 0 => Access::Exact,
            access => access,
        };
        let right = Right::of(self.exchange, self.digest, access);
        self.right.set(Some(right));
        right
    }

    /// Notes what the origin said of the client's right, if it was asked. A fallback's yes is for one request.
    fn heard(&self, report: &Report) {
        if report.by_fallback {
            return;
        }
        if let (Some(right), Some(status)) = (self.right.get(), report.origin_status) {
            let right = right.heard(self.shard(), status);
            self.right.set(Some(right));
        }
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
        let policy = self.policy_for(head);
        if !policy.kept {
            return Found::Ask;
        }
        let request = &self.exchange.request;
        let (mut spec, mut fresh_ms) = (self.spec(), self.fresh_ms(head, policy));
        let mut instead = None;
        if request.conditions.any() {
            let head_ttl_ms = policy.head_ttl_ms;
            match self.verdict(head, report.started()) {
                Verdict::Proceed => {}
                Verdict::Doubt => return Found::Ask,
                // The client names a version that is not known: it may be a younger one.
                Verdict::Whole => (spec, fresh_ms) = (None, 0),
                Verdict::Failed(Unmet::IfMatch) => fresh_ms = 0,
                Verdict::NotModified => {
                    (instead, fresh_ms) = (Some(Reason::NotModified), fresh_ms.min(head_ttl_ms));
                }
                Verdict::Failed(unmet) => {
                    (instead, fresh_ms) = (Some(Reason::Failed(unmet)), fresh_ms.min(head_ttl_ms));
                }
            }
        }
        let started_ms = report.started().ms();
        let fresh = head.is_fresh(started_ms, fresh_ms);
        if let Some(reason) = instead.filter(|_| fresh) {
            head.touch();
            return self.begin_without(head, reason, report, out);
        }
        match self.place(spec, head) {
            Place::Unsatisfiable if fresh && head.is_fresh(started_ms, policy.head_ttl_ms) => {
                head.touch();
                self.begin_without(head, Reason::Unsatisfiable, report, out)
            }
            Place::Unsatisfiable if fresh || fresh_ms == 0 => Found::Ask,
            Place::Unsatisfiable => Found::Absent(CacheStatus::Stale),
            Place::Unknown if fresh => Found::Absent(CacheStatus::Miss),
            Place::Unknown => Found::Absent(CacheStatus::Stale),
            Place::At(_) if !fresh => Found::Stale(Arc::clone(head), fresh_ms),
            Place::At(part) => {
                head.touch();
                if let Some(range) = &part {
                    self.note(head, range, policy.read_ahead_bytes);
                }
                self.begin(head, part, report, out)
            }
        }
    }

    /// What the request's conditions say of a version. A range that is signed cannot be left out to fetch the rest.
    pub(super) fn verdict(&self, head: &Head, now: Moment) -> Verdict {
        let request = &self.exchange.request;
        let now_unix = self.shard().wall().unix_seconds(now);
        let ranged = self.spec().is_some();
        match request
            .conditions
            .judge(&head.validators(), ranged, now_unix)
        {
            Verdict::Whole if request.auth.signs("range") || request.auth.signs("if-range") => {
                Verdict::Doubt
            }
            verdict => verdict,
        }
    }

    /// An answer that conditions decide, without a body of the object.
    fn begin_without(
        &self,
        head: &Head,
        reason: Reason,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> Found {
        report.outcome = metrics::Outcome::Hit;
        let answer = self.answer(head, None, CacheStatus::Hit, report.started());
        let body_bytes = answer.write_without(reason, report.id(), self.is_head(), out);
        let begun = hit::head(self.exchange, reason.status(), out, report);
        report.sent(
            self.shard(),
            metrics::Source::Local,
            None,
            body_bytes as u64,
        );
        Found::Begun(begun)
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
        &'h self,
        head: &'h Head,
        part: Option<Range<u64>>,
        status: CacheStatus,
        now: Moment,
    ) -> Answer<'h> {
        Answer {
            head,
            part,
            besides: self.besides(),
            checksums: self.exchange.request.checksum_mode,
            status,
            age_ms: self.age_ms(head, now.ms()),
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
        // An answer that would break off in its middle is worse than an error.
        if matches!(status, CacheStatus::Partial | CacheStatus::Miss)
            && let Some(failure) = self.no_rest()
        {
            return Box::pin(self.exchange.fail(&failure, report, out)).await;
        }
        let asking = if status == CacheStatus::Hit {
            None
        } else {
            self.asking()
        };
        self.body(&head, part, (status, asking, None), report, out)
            .await
    }

    /// What an answer from the cache says of itself.
    pub(super) fn status_of(&self, head: &Head, part: Option<&Range<u64>>) -> CacheStatus {
        let range = part.cloned().unwrap_or(0..head.total());
        match coverage(self.shard(), head, &range) {
            Coverage::Whole => CacheStatus::Hit,
            Coverage::OnItsWay => CacheStatus::Collapsed,
            Coverage::Partial => CacheStatus::Partial,
            Coverage::None => CacheStatus::Miss,
        }
    }

    pub(super) async fn head_only(
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
    pub(super) fn asking(&self) -> Option<Asking> {
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
            policy: self.policy(),
            interest: Arc::new(()),
        })
    }

    /// Not known, or too old: one exchange brings the head and the first bytes, or the word that what is known still holds.
    pub(super) async fn open(
        &self,
        status: CacheStatus,
        known: Option<(Arc<Head>, u64)>,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        report.outcome = metrics::Outcome::Miss;
        let Some(asking) = self.asking() else {
            let failure = Failure::no_origin();
            return self.exchange.fail(&failure, report, out).await;
        };
        if let Some(failure) = chain::refusal(self.shard(), self.exchange.head) {
            return self.exchange.fail(&failure, report, out).await;
        }
        let mut fetch = self.opening(&asking);
        if let Some((head, fresh_ms)) = known {
            (fetch.known, fetch.fresh_ms) = (Some(head), fresh_ms);
        }
        let mut leaves = std::pin::pin!(self.exchange.client.leaves());
        loop {
            let asked = std::pin::pin!(self.shard().fetch(fetch.clone()));
            let outcome = match race(asked, leaves.as_mut()).await {
                Either::First(outcome) => outcome,
                Either::Second(()) => return End::gone(self.exchange.client.gone(), report),
            };
            if let Some((head, plan)) = self.instead_of(&outcome, report) {
                let status = CacheStatus::StaleIfError;
                return self.serve_stale(head, plan, status, report, out).await;
            }
            match outcome {
                Outcome::Ready(ready) => {
                    report.origin_status = ready.came.origin_status();
                    report.by_fallback = ready.head.is_by_fallback();
                    // Nobody but the origin may say yes.
                    if report.origin_status.is_none() && !self.right(asking.policy).is_known() {
                        return self.otherwise(Outcome::Alone, status, report, out).await;
                    }
                    self.heard(report);
                    return self.opened(ready, status, asking, report, out).await;
                }
                // What the origin said to somebody else's signature is not for this one: it asks by itself.
                Outcome::Alone if fetch.known.is_some() && fetch.fresh_ms > 0 => fetch.fresh_ms = 0,
                // Nor is what is to be asked for each time: by now there is something to ask about.
                Outcome::Alone
                    if fetch.by_origin() && fetch.fresh_ms > 0 && self.known_by_now(&mut fetch) => {
                }
                outcome => return self.otherwise(outcome, status, report, out).await,
            }
        }
    }

    /// Asks by itself about what has come meanwhile, if anything has.
    fn known_by_now(&self, fetch: &mut Fetch) -> bool {
        let index = self.shard().index_of(self.digest, 0);
        fetch.known = index.head(self.digest, self.object.encoded());
        fetch.fresh_ms = 0;
        fetch.known.is_some()
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
        let spec = match self.verdict_after(&ready, &asking.template) {
            Verdict::Proceed => Some(self.spec()),
            Verdict::Whole => Some(None),
            Verdict::NotModified => {
                let what = (status, Reason::NotModified);
                return self.without(&ready, what, report, out).await;
            }
            Verdict::Failed(unmet) => {
                let what = (status, Reason::Failed(unmet));
                return self.without(&ready, what, report, out).await;
            }
            Verdict::Doubt => None,
        };
        let part = match spec.map(|spec| self.place(spec, &head)) {
            Some(Place::At(part)) => part,
            Some(Place::Unsatisfiable) => {
                let what = (status, Reason::Unsatisfiable);
                return self.without(&ready, what, report, out).await;
            }
            Some(Place::Unknown) | None => {
                return Box::pin(pass::serve(self.exchange, CacheStatus::Bypass, report, out))
                    .await;
            }
        };
        let bodiless = self.is_head() || (part.is_none() && head.total() == 0);
        let status = match bodiless {
            true => status_without_body(ready.came, status),
            false => self.status_with_body(&ready, part.as_ref(), status),
        };
        if let Some(range) = &part {
            self.note(&head, range, asking.policy.read_ahead_bytes);
            self.go_ahead();
        }
        report.outcome = outcome_of(status);
        if bodiless {
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

    /// What the conditions say when a version has come. What the origin judged itself has been judged.
    fn verdict_after(&self, ready: &Ready, template: &Template) -> Verdict {
        let request = &self.exchange.request;
        if !request.conditions.any() {
            return Verdict::Proceed;
        }
        // `If-Range` is left out where it may be.
        let left_out = request.conditions.has_if_range() && !request.auth.signs("if-range");
        let sent_as_they_came = match ready.came {
            Came::Fetched(_) => !left_out,
            Came::Changed(_) | Came::Confirmed(200 | 206) => !template.may_revalidate && !left_out,
            Came::Known | Came::Disk | Came::Confirmed(_) => false,
        };
        match self.verdict(&ready.head, Moment::now()) {
            Verdict::NotModified | Verdict::Failed(_) | Verdict::Doubt if sent_as_they_came => {
                Verdict::Proceed
            }
            verdict => verdict,
        }
    }

    /// Sends what conditions decide, without a body of the object.
    pub(super) async fn without(
        &self,
        ready: &Ready,
        (status, reason): (CacheStatus, Reason),
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let status = status_without_body(ready.came, status);
        report.outcome = outcome_of(status);
        let answer = self.answer(&ready.head, None, status, Moment::now());
        let body_bytes = answer.write_without(reason, report.id(), self.is_head(), out);
        report.head_sent(reason.status());
        if let Err(gone) = self.exchange.client.send(out, &[], false).await {
            return End::gone(gone, report);
        }
        report.sent(
            self.shard(),
            metrics::Source::Local,
            None,
            body_bytes as u64,
        );
        self.exchange.end()
    }

    fn status_with_body(
        &self,
        ready: &Ready,
        part: Option<&Range<u64>>,
        status: CacheStatus,
    ) -> CacheStatus {
        match (ready.came, status) {
            (Came::Disk, _) => self.status_of(&ready.head, part),
            (Came::Confirmed(code), _) => match self.status_of(&ready.head, part) {
                CacheStatus::Hit | CacheStatus::Collapsed => CacheStatus::revalidated(code),
                CacheStatus::Partial => CacheStatus::Partial,
                _ => CacheStatus::Stale,
            },
            // Somebody else has asked a moment ago.
            (Came::Known, CacheStatus::Stale) => match self.status_of(&ready.head, part) {
                CacheStatus::Miss => CacheStatus::Stale,
                status => status,
            },
            (Came::Changed(_), _) => CacheStatus::Stale,
            (Came::Known | Came::Fetched(_), status) => status,
        }
    }

    pub(super) async fn body(
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
                Box::pin(self.otherwise(outcome, status, report, out)).await
            }
            Stopped::Nothing(words) => {
                out.clear();
                let failure = Failure::new(ErrorCode::GatewayTimeout, words);
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
    async fn otherwise(
        &self,
        outcome: Outcome,
        status: CacheStatus,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        match outcome {
            Outcome::Relay(response) => {
                let status = match status {
                    CacheStatus::Stale => CacheStatus::StaleUnstored,
                    _ => CacheStatus::Unstored,
                };
                Box::pin(pass::relay(self.exchange, *response, status, report, out)).await
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

pub(super) fn outcome_of(status: CacheStatus) -> metrics::Outcome {
    match status {
        CacheStatus::Hit => metrics::Outcome::Hit,
        CacheStatus::Revalidated | CacheStatus::RevalidatedAnew => metrics::Outcome::Revalidated,
        CacheStatus::Collapsed | CacheStatus::Miss | CacheStatus::Stale => metrics::Outcome::Miss,
        CacheStatus::StaleIfError | CacheStatus::StaleWhileRevalidate | CacheStatus::MaxStale => {
            metrics::Outcome::Stale
        }
        CacheStatus::Partial => metrics::Outcome::Partial,
        CacheStatus::Unstored
        | CacheStatus::StaleUnstored
        | CacheStatus::Bypass
        | CacheStatus::Method => metrics::Outcome::Pass,
    }
}

/// What an answer without a body says of itself; `status` is what it says if the origin sent the head just now.
fn status_without_body(came: Came, status: CacheStatus) -> CacheStatus {
    match came {
        Came::Disk => CacheStatus::Hit,
        Came::Known if status == CacheStatus::Stale => CacheStatus::Hit,
        Came::Confirmed(code) => CacheStatus::revalidated(code),
        Came::Changed(_) => CacheStatus::Stale,
        Came::Known | Came::Fetched(_) => status,
    }
}

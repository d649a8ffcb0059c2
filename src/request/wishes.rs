//! What a client asks of this cache (`Cache-Control` and `Pragma` of a request), as far as it counts: RFC 9111, section 5.2.1.
//!
//! Called by `read` and `stale`. A wish makes a copy's time shorter, or lets it be used past its time; it never gives more than the client's
//! right and the origin's own words allow, and it goes to the origin as it came.

use crate::base::clock;
use crate::cache::Head;
use crate::config::{Freshness, ObjectPolicy};
use crate::http::RequestControl;
use crate::s3::ErrorCode;
use crate::upstream::Health;

use super::End;
use super::answer::CacheStatus;
use super::failure::Failure;
use super::read::{Found, Read};
use super::report::Report;
use super::stale::Plan;

/// A policy as it holds for a client with this wish, of a copy that was `age_ms` old when it came.
fn limit(policy: ObjectPolicy, wish: &RequestControl, age_ms: u64) -> ObjectPolicy {
    if wish.no_cache {
        return policy.asked();
    }
    let ms = |seconds: u32| u64::from(seconds) * 1000;
    let mut policy = policy;
    if let Some(seconds) = wish.max_age_s {
        policy = policy.within(ms(seconds).saturating_sub(age_ms));
        policy.stale_while_revalidate_ms = 0;
    }
    if let Some(seconds) = wish.min_fresh_s {
        let head_ttl_ms = policy.head_ttl_ms.saturating_sub(ms(seconds));
        policy = policy.within(policy.ttl_ms.saturating_sub(ms(seconds)));
        policy.head_ttl_ms = head_ttl_ms;
        policy.stale_while_revalidate_ms = 0;
    }
    policy
}

/// How old a copy was when it came, as far as that counts.
fn age_before_ms(policy: ObjectPolicy, head: &Head) -> u64 {
    match policy.freshness {
        Freshness::Ttl => 0,
        Freshness::Origin => head.terms().age_ms(),
    }
}

impl Read<'_, '_> {
    /// What the client wants that counts.
    fn wish(&self, policy: ObjectPolicy) -> RequestControl {
        let request = self.exchange.request;
        request
            .wishes
            .honoured(policy.client_control, &request.auth)
    }

    /// How the object is treated, as this client may have it and wants it.
    pub(super) fn policy(&self) -> ObjectPolicy {
        let policy = self.shard().policy_at(self.object);
        let policy = self.right(policy).limit(policy);
        match self.exchange.request.wishes.any() {
            false => policy,
            true => limit(policy, &self.wish(policy), 0),
        }
    }

    /// The same where its head is known.
    pub(super) fn policy_for(&self, head: &Head) -> ObjectPolicy {
        let policy = self.shard().policy_of(head);
        if !policy.kept {
            return policy.asked();
        }
        let policy = self.right(policy).limit(head.terms().limit(policy));
        match self.exchange.request.wishes.any() {
            false => policy,
            true => limit(policy, &self.wish(policy), age_before_ms(policy, head)),
        }
    }

    /// Whether what the origin answers may be kept, as far as that is known before it is asked.
    pub(super) fn may_keep(&self) -> bool {
        let policy = self.policy();
        let forbidden = || {
            self.shard()
                .world
                .forbidden
                .has(self.digest, clock::now_ms())
        };
        policy.kept && (policy.freshness == Freshness::Ttl || !forbidden())
    }

    /// How old a copy is, as its answer says.
    pub(super) fn age_ms(&self, head: &Head, now_ms: u64) -> u64 {
        let before_ms = age_before_ms(self.shard().policy_of(head), head);
        head.age_ms(now_ms).saturating_add(before_ms)
    }

    /// Whether the client wants no answer to be kept.
    pub(super) fn wants_no_store(&self) -> bool {
        let any = self.exchange.request.wishes.any();
        any && self.wish(self.shard().policy_at(self.object)).no_store
    }

    /// Whether the client wants what is here, or nothing.
    pub(super) fn wants_only_cached(&self) -> bool {
        let any = self.exchange.request.wishes.any();
        any && self
            .wish(self.shard().policy_at(self.object))
            .only_if_cached
    }

    /// Whether the client wants a copy although it is past its time, and may have it so.
    pub(super) fn accepts(&self, head: &Head) -> bool {
        if !self.exchange.request.wishes.any() {
            return false;
        }
        let policy = self.shard().policy_of(head);
        let wish = self.wish(policy);
        let Some(stale_s) = wish.max_stale_s.filter(|_| !wish.no_cache) else {
            return false;
        };
        if !self.right(policy).is_known() {
            return false;
        }
        let longer_ms = match stale_s {
            u32::MAX => u64::MAX,
            seconds => u64::from(seconds) * 1000,
        };
        let mut usable_ms = head.terms().wished_until_ms(policy, longer_ms);
        if let Some(seconds) = wish.max_age_s {
            let before_ms = age_before_ms(policy, head);
            usable_ms = usable_ms.min((u64::from(seconds) * 1000).saturating_sub(before_ms));
        }
        head.is_fresh(clock::now_ms(), usable_ms)
    }

    /// Answers from what is here, or with 504 (section 5.2.1.7).
    pub(super) async fn only_cached(
        &self,
        found: Found,
        report: &mut Report,
        out: &mut Vec<u8>,
    ) -> End {
        let known = match found {
            Found::Fresh(head, _) | Found::Stale(head, _) => Some(head),
            Found::Absent(_) => {
                let key = self.object.encoded();
                let head = self.shard().known_or_on_disk(self.digest, key, self.stamp);
                head.await
            }
            Found::Begun(_) | Found::Ask => None,
        };
        let usable = known.and_then(|head| {
            let policy = Some(self.policy_for(&head)).filter(|policy| policy.kept)?;
            let plan = self.plan(&head)?;
            let fresh_ms = match &plan {
                // A fallback's word is of no time where the first place can be asked.
                _ if head.is_by_fallback() && self.health() == Health::Well => 0,
                Plan::Object(_) => policy.ttl_ms_of(self.is_head()),
                Plan::Without(_) => policy.head_ttl_ms,
            };
            let status = match head.is_fresh(clock::now_ms(), fresh_ms) {
                true => Some(CacheStatus::Hit),
                false => self.accepts(&head).then_some(CacheStatus::MaxStale),
            };
            Some((head, plan, status?))
        });
        if let Some((head, plan, status)) = usable {
            return self.serve_stale(head, plan, status, report, out).await;
        }
        let words = "it is not here, and only what is here was asked for";
        let failure = Failure::new(ErrorCode::GatewayTimeout, words);
        self.exchange.fail(&failure, report, out).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientControl;

    const HOUR: u64 = 3_600_000;

    fn policy() -> ObjectPolicy {
        ObjectPolicy {
            client_control: ClientControl::All,
            head_ttl_ms: 60_000,
            stale_if_error_ms: HOUR,
            stale_while_revalidate_ms: HOUR,
            ..ObjectPolicy::of_ttl(HOUR)
        }
    }

    #[test]
    fn a_wish_makes_times_shorter_by_table() {
        let wish = |line: &str| {
            let mut wish = RequestControl::default();
            wish.take(line.as_bytes());
            wish
        };
        for (line, age_s, ttl_s, head_ttl_s) in [
            ("no-cache", 0, 0, 0),
            ("max-age=0", 0, 0, 0),
            ("max-age=30", 0, 30, 30),
            ("max-age=30", 10, 20, 20),
            ("max-age=30", 40, 0, 0),
            ("max-age=90", 0, 90, 60),
            ("max-age=7200", 0, 3600, 60),
            ("min-fresh=30", 0, 3570, 30),
            ("min-fresh=90", 0, 3510, 0),
            ("min-fresh=7200", 0, 0, 0),
            ("min-fresh=x", 0, 0, 0),
            ("max-age=100, min-fresh=30", 0, 70, 30),
            ("max-stale", 0, 3600, 60),
            ("no-store", 0, 3600, 60),
        ] {
            let limited = limit(policy(), &wish(line), age_s * 1000);
            let times = (limited.ttl_ms / 1000, limited.head_ttl_ms / 1000);
            assert_eq!(times, (ttl_s, head_ttl_s), "{line} {age_s}");
            let until_ms = match line {
                "no-cache" => 0,
                _ => policy().stale_if_error_until(),
            };
            assert_eq!(limited.stale_if_error_until(), until_ms, "{line}");
        }
    }
}

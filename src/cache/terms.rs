//! What an answer said of its own reuse, in a form that a hit can compare with: RFC 9111, section 4.2, and RFC 5861. Pure.
//!
//! Made by `head` when a head is stored, or read from disk; asked at every read, because what counts (`cache.freshness`) is a rule's to say and
//! may change. Where it is `"origin"`, [`Terms::limit`] makes of an object's policy the one that the origin wants for this head; where it is
//! `"ttl"`, nothing.
//!
//! Left to others: what may be kept at all (`fill::validate`), who may read it (`request::access`), what a client asks for (`request::wishes`).

use crate::config::{Freshness, ObjectPolicy};
use crate::disk::Dated;
use crate::http::{ResponseControl, parse_http_date};
use crate::s3::is_overridden;

use super::head::StoredLine;

/// What an answer said of its own reuse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long it is fresh from when it was made; 0 also if it is to be asked for each time. `None`: it does not say.
    lifetime_s: Option<u32>,
    /// How long past that it may be used while the origin is asked.
    stale_while_revalidate_s: Option<u32>,
    /// How long past that it may be used while the origin fails.
    stale_if_error_s: Option<u32>,
    /// How old it was when it came.
    age_ms: u64,
    /// Whether nobody may have it past its time, also who asks for that.
    strict: bool,
}

fn ms(seconds: u32) -> u64 {
    u64::from(seconds) * 1000
}

/// `Expires` less `Date` (section 4.2.1); 0 if it cannot be read, or is told in several ways.
fn until_expires<'h>(
    mut expires: impl Iterator<Item = StoredLine<'h>>,
    dated: Option<Dated>,
) -> Option<u32> {
    let first = expires.next()?;
    let same = expires.all(|other| other.value == first.value);
    let until_unix_s = parse_http_date(first.value).filter(|_| same);
    let lifetime_s = until_unix_s
        .zip(dated)
        .map(|(until, dated)| until.saturating_sub(dated.date_unix_s));
    Some(lifetime_s.map_or(0, |seconds| u32::try_from(seconds).unwrap_or(u32::MAX)))
}

impl Terms {
    /// What these stored lines say. `dated`: when the answer was made, if that is known.
    pub fn of<'h>(
        lines: impl Iterator<Item = StoredLine<'h>> + Clone,
        dated: Option<Dated>,
    ) -> Self {
        let named = |name: &'static str| lines.clone().filter(move |line| line.is(name));
        let control = ResponseControl::of(named("cache-control").map(|line| line.value));
        let lifetime_s = control
            .shared_max_age_s
            .or(control.max_age_s)
            .or_else(|| until_expires(named("expires"), dated));
        let asked_each_time = control.no_cache || !control.may_be_kept();
        let never_stale = control.must_revalidate || asked_each_time;
        // `s-maxage` forbids what is past its time too, but not what stands beside it in so many words.
        let strict = never_stale || control.shared_max_age_s.is_some();
        let stale = |told: Option<u32>| match (never_stale, strict) {
            (true, _) => Some(0),
            (false, true) => told.or(Some(0)),
            (false, false) => told,
        };
        Self {
            lifetime_s: if asked_each_time { Some(0) } else { lifetime_s },
            stale_while_revalidate_s: stale(control.stale_while_revalidate_s),
            stale_if_error_s: stale(control.stale_if_error_s),
            age_ms: dated.map_or(0, |dated| dated.age_ms),
            strict,
        }
    }

    /// The same of an answer to a request that had some headers overridden: what the origin says in them is not known, and what cannot be read
    /// is no time at all.
    #[must_use]
    pub fn lacking(self, overridden: u8) -> Self {
        let control = is_overridden(overridden, b"cache-control");
        let expires = self.lifetime_s.is_none() && is_overridden(overridden, b"expires");
        match control || expires {
            true => Self {
                lifetime_s: Some(0),
                stale_while_revalidate_s: Some(0),
                stale_if_error_s: Some(0),
                age_ms: self.age_ms,
                strict: true,
            },
            false => self,
        }
    }

    /// How old it was when it came.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        self.age_ms
    }

    /// A policy as it holds for an answer with these terms; its times count from when the answer came.
    #[must_use]
    pub fn limit(&self, policy: ObjectPolicy) -> ObjectPolicy {
        // Without a time to live somebody else has said already that the origin is to be asked.
        if policy.freshness == Freshness::Ttl || policy.ttl_ms == 0 {
            return policy;
        }
        let lifetime_ms = self.lifetime_s.map_or(policy.default_ttl_ms, ms);
        let left_ms = |from_made_ms: u64| from_made_ms.saturating_sub(self.age_ms);
        let longer = |told: Option<u32>, otherwise_ms: u64| {
            let longer_ms = told.map_or(otherwise_ms, ms);
            let until_ms = left_ms(lifetime_ms.saturating_add(longer_ms));
            until_ms - left_ms(lifetime_ms)
        };
        let meanwhile_ms = longer(
            self.stale_while_revalidate_s,
            policy.stale_while_revalidate_ms,
        );
        // With a time of zero everybody is asked about; with this word everybody need not be.
        let ttl_ms = left_ms(lifetime_ms).max(u64::from(meanwhile_ms > 0));
        ObjectPolicy {
            ttl_ms: policy.ttl_ms.min(ttl_ms),
            head_ttl_ms: policy.head_ttl_ms.min(ttl_ms),
            stale_if_error_ms: longer(self.stale_if_error_s, policy.stale_if_error_ms),
            stale_while_revalidate_ms: meanwhile_ms,
            ..policy
        }
    }

    /// Until when a client may have it that asks for it so long past its time; 0: not at all.
    #[must_use]
    pub fn wished_until_ms(&self, policy: ObjectPolicy, longer_ms: u64) -> u64 {
        match policy.freshness {
            Freshness::Ttl if policy.ttl_ms == 0 => 0,
            Freshness::Ttl => policy.ttl_ms.saturating_add(longer_ms),
            Freshness::Origin if self.strict => 0,
            Freshness::Origin => {
                let lifetime_ms = self.lifetime_s.map_or(policy.default_ttl_ms, ms);
                let until_ms = lifetime_ms.saturating_add(longer_ms);
                until_ms.saturating_sub(self.age_ms)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::head::lines_of;

    /// Wed, 12 Aug 2026 10:00:00 GMT
    const NOON: u64 = 1_786_528_800;

    fn policy(freshness: Freshness) -> ObjectPolicy {
        ObjectPolicy {
            freshness,
            ..ObjectPolicy::of_ttl(u64::MAX)
        }
    }

    /// Terms of an answer of this `Date` and age.
    fn terms(lines: &str, age_ms: u64) -> Terms {
        let lines = lines.replace('\n', "\r\n");
        let date_unix_s = NOON;
        Terms::of(
            lines_of(lines.as_bytes()),
            Some(Dated {
                date_unix_s,
                age_ms,
            }),
        )
    }

    /// Fresh for, and until when it may be used while the origin is asked, or fails; seconds.
    fn times(lines: &str, age_s: u64, policy: ObjectPolicy) -> (u64, u64, u64) {
        let policy = terms(lines, age_s * 1000).limit(policy);
        let meanwhile_ms = policy.ttl_ms + policy.stale_while_revalidate_ms;
        (
            policy.ttl_ms / 1000,
            meanwhile_ms / 1000,
            policy.stale_if_error_until() / 1000,
        )
    }

    /// RFC 9111, sections 4.2.1 and 5.2.2. Reference 2F.105 and 2F.107.
    #[test]
    fn how_long_an_answer_is_fresh_by_table() {
        for (lines, fresh_s) in [
            ("", 0),
            ("Cache-Control: public\n", 0),
            ("Cache-Control: max-age=60\n", 60),
            (
                "cache-control: max-age=60\nCache-Control: s-maxage=10\n",
                10,
            ),
            ("Cache-Control: s-maxage=100, max-age=60\n", 100),
            ("Cache-Control: s-maxage=x, max-age=60\n", 0),
            ("Cache-Control: max-age=60, max-age=61\n", 0),
            ("Expires: Wed, 12 Aug 2026 10:01:00 GMT\n", 60),
            ("Expires: Wednesday, 12-Aug-26 10:01:00 GMT\n", 60),
            ("Expires: Wed Aug 12 10:01:00 2026\n", 60),
            ("Expires: Wed, 12 Aug 2026 10:00:00 GMT\n", 0),
            ("Expires: Wed, 12 Aug 2026 09:00:00 GMT\n", 0),
            ("Expires: 0\n", 0),
            ("Expires: \n", 0),
            ("Expires: tomorrow\n", 0),
            ("Expires: Wed, 12 Aug 2026 10:01:00 GMT\nExpires: 0\n", 0),
            (
                "Expires: Wed, 12 Aug 2026 10:01:00 GMT\nExpires: Wed, 12 Aug 2026 10:01:00 GMT\n",
                60,
            ),
            // The words of `Cache-Control` count before it.
            (
                "Cache-Control: max-age=5\nExpires: Wed, 12 Aug 2026 10:01:00 GMT\n",
                5,
            ),
            (
                "Cache-Control: max-age=0\nExpires: Wed, 12 Aug 2026 10:01:00 GMT\n",
                0,
            ),
            ("Cache-Control: max-age=5\nExpires: 0\n", 5),
            ("Cache-Control: no-cache, max-age=60\n", 0),
            (
                "Cache-Control: max-age=60\nCache-Control: no-cache=\"a\"\n",
                0,
            ),
            ("Cache-Control: max-age=60, no-store\n", 0),
            ("Cache-Control: private, max-age=60\n", 0),
            ("Cache-Control: must-revalidate, max-age=60\n", 60),
            ("Pragma: no-cache\nCache-Control: max-age=60\n", 60),
        ] {
            let (fresh, _, _) = times(lines, 0, policy(Freshness::Origin));
            assert_eq!(fresh, fresh_s, "{lines}");
            assert_eq!(
                terms(lines, 0).limit(policy(Freshness::Ttl)),
                policy(Freshness::Ttl)
            );
        }
    }

    #[test]
    fn what_it_was_old_when_it_came_is_taken_off_and_what_is_silent_has_the_default() {
        let origin = policy(Freshness::Origin);
        assert_eq!(
            times("Cache-Control: max-age=60\n", 20, origin),
            (40, 40, 0)
        );
        assert_eq!(times("Cache-Control: max-age=60\n", 60, origin), (0, 0, 0));
        assert_eq!(
            times("Cache-Control: max-age=60\n", u64::MAX / 1000, origin).0,
            0
        );
        let silent = ObjectPolicy {
            default_ttl_ms: 9000,
            ..origin
        };
        assert_eq!(times("", 4, silent).0, 5);
        assert_eq!(times("Cache-Control: no-cache\n", 0, silent).0, 0);
        assert_eq!(times("Cache-Control: max-age=1\n", 0, silent).0, 1);
        assert_eq!(times("Expires: -1\n", 0, silent).0, 0);
        let undated = Terms::of(
            lines_of(b"Expires: Wed, 12 Aug 2026 10:01:00 GMT\r\n"),
            None,
        );
        assert_eq!(undated.limit(silent).ttl_ms, 0);
    }

    /// RFC 5861, and RFC 9111, section 4.2.4.
    #[test]
    fn how_long_it_is_used_past_its_time_by_table() {
        let origin = policy(Freshness::Origin);
        let ours = ObjectPolicy {
            stale_while_revalidate_ms: 3000,
            stale_if_error_ms: 7000,
            ..origin
        };
        let both = "Cache-Control: max-age=10, stale-while-revalidate=20, stale-if-error=40\n";
        for (lines, age_s, policy, want) in [
            ("Cache-Control: max-age=10\n", 0, origin, (10, 10, 0)),
            ("Cache-Control: max-age=10\n", 0, ours, (10, 13, 17)),
            (both, 0, origin, (10, 30, 50)),
            (both, 0, ours, (10, 30, 50)),
            (both, 15, origin, (0, 15, 35)),
            (both, 29, origin, (0, 1, 21)),
            (both, 60, origin, (0, 0, 0)),
            (
                "Cache-Control: max-age=10, stale-if-error=0\n",
                0,
                ours,
                (10, 13, 0),
            ),
            (
                "Cache-Control: max-age=10, stale-if-error=x\n",
                0,
                ours,
                (10, 13, 0),
            ),
            (
                "Cache-Control: max-age=10, must-revalidate\n",
                0,
                ours,
                (10, 10, 0),
            ),
            (
                "Cache-Control: max-age=10, proxy-revalidate, stale-if-error=9\n",
                0,
                ours,
                (10, 10, 0),
            ),
            (
                "Cache-Control: no-cache, stale-if-error=9\n",
                0,
                ours,
                (0, 0, 0),
            ),
            ("Cache-Control: s-maxage=10\n", 0, ours, (10, 10, 0)),
            (
                "Cache-Control: s-maxage=10, stale-while-revalidate=5\n",
                0,
                ours,
                (10, 15, 0),
            ),
        ] {
            assert_eq!(times(lines, age_s, policy), want, "{lines} {age_s}");
        }
        let at_once =
            terms("Cache-Control: max-age=0, stale-while-revalidate=5\n", 0).limit(origin);
        assert_eq!(
            (at_once.ttl_ms, at_once.stale_while_revalidate_ms),
            (1, 5000)
        );
        let asked = ObjectPolicy {
            ttl_ms: 0,
            ..origin
        };
        assert_eq!(
            terms(both, 0).limit(asked),
            asked,
            "nobody gives what another took"
        );
    }

    #[test]
    fn who_asks_for_an_old_one_gets_it_unless_the_answer_forbids_that() {
        for (lines, want) in [
            ("", true),
            ("Cache-Control: max-age=1\n", true),
            ("Cache-Control: s-maxage=1\n", false),
            ("Cache-Control: no-cache\n", false),
            ("Cache-Control: must-revalidate\n", false),
        ] {
            let until_ms = terms(lines, 0).wished_until_ms(policy(Freshness::Origin), u64::MAX);
            assert_eq!(until_ms > 0, want, "{lines}");
            let ours = ObjectPolicy {
                ttl_ms: 5,
                ..policy(Freshness::Ttl)
            };
            assert_eq!(terms(lines, 0).wished_until_ms(ours, 7), 12);
        }
        let always = ObjectPolicy {
            ttl_ms: 0,
            ..policy(Freshness::Ttl)
        };
        assert_eq!(terms("", 0).wished_until_ms(always, 9), 0);
        let aged = terms("Cache-Control: max-age=10\n", 15_000);
        let until_ms = |longer_ms| aged.wished_until_ms(policy(Freshness::Origin), longer_ms);
        assert_eq!((until_ms(2000), until_ms(7000)), (0, 2000));
    }
}

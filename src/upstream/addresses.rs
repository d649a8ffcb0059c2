//! The addresses of one name and port, and how each has fared: which is dialled next.
//!
//! Called by `names`. Pure: time and randomness are arguments. An address that fails `failures_to_rest` times in a row rests; when
//! its rest is over one probe connection decides, and a failed probe doubles the rest up to a bound. If all rest, the least
//! bad is dialled, so that there is never a total outage of our own making. What failed stays known through a new answer
//! of the name server, so that a refresh does not bring a dead address back.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;

use crate::base::prng::Prng;

/// A rest is at most `rest_ms` doubled so many times.
const REST_DOUBLINGS_MAX: u32 = 6;

/// Addresses remembered for their failures although the name does not list them now.
const UNLISTED_MAX: usize = 64;

/// When an address rests and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct RestPolicy {
    pub failures_to_rest: u32,
    pub rest_ms: u64,
}

impl RestPolicy {
    fn rest_max_ms(&self) -> u64 {
        self.rest_ms << REST_DOUBLINGS_MAX
    }
}

/// Open connections to one address of this shard: what new ones are spread by.
#[derive(Debug)]
pub(super) struct Lease(Rc<Cell<u32>>);

impl Lease {
    fn new(open: &Rc<Cell<u32>>) -> Self {
        open.set(open.get() + 1);
        Self(Rc::clone(open))
    }

    /// For a connection whose address is in no table (any more).
    pub fn unlisted() -> Self {
        Self::new(&Rc::default())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    /// Not dialled before `until_ms` unless all rest.
    Resting {
        until_ms: u64,
    },
    /// The rest is over and a probe is under way.
    Probing {
        until_ms: u64,
    },
}

#[derive(Debug)]
struct Entry {
    ip: IpAddr,
    listed: bool,
    open: Rc<Cell<u32>>,
    failures: u32,
    /// Whether some of them are of requests that a connection was there for: then another connection proves nothing.
    unanswered: bool,
    /// The last rest, 0 if an answer has come since.
    rest_ms: u64,
    health: Health,
}

impl Entry {
    fn new(ip: IpAddr) -> Self {
        Self {
            ip,
            listed: true,
            open: Rc::default(),
            failures: 0,
            unanswered: false,
            rest_ms: 0,
            health: Health::Up,
        }
    }

    fn rest(&mut self, now_ms: u64, policy: &RestPolicy) {
        self.rest_ms = (self.rest_ms * 2).clamp(policy.rest_ms, policy.rest_max_ms());
        self.health = Health::Resting {
            until_ms: now_ms + self.rest_ms,
        };
    }
}

/// The addresses of one name and port.
#[derive(Debug, Default)]
pub(super) struct AddressSet {
    entries: Vec<Entry>,
}

impl AddressSet {
    /// Takes the name server's newest answer.
    pub fn replace(&mut self, listed: &[IpAddr]) {
        for entry in &mut self.entries {
            entry.listed = listed.contains(&entry.ip);
        }
        let mut spare = UNLISTED_MAX;
        self.entries.retain(|entry| {
            let kept = entry.listed || (entry.health != Health::Up && spare > 0);
            spare -= usize::from(kept && !entry.listed);
            kept
        });
        for ip in listed {
            if !self.entries.iter().any(|entry| entry.ip == *ip) {
                self.entries.push(Entry::new(*ip));
            }
        }
    }

    pub fn is_listed(&self, ip: IpAddr) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.listed && entry.ip == ip)
    }

    /// The address to dial of those that `may` be: up, not in `avoid`, with the fewest connections; or else the least bad. `None` only
    /// if the name lists none that may.
    pub fn choose(
        &self,
        avoid: &[IpAddr],
        prng: &Prng,
        may: impl Fn(IpAddr) -> bool,
    ) -> Option<(IpAddr, Lease)> {
        let badness = |entry: &&Entry| {
            let rest = match entry.health {
                Health::Up => 0,
                Health::Resting { until_ms } | Health::Probing { until_ms } => until_ms,
            };
            let avoided = avoid.contains(&entry.ip);
            (rest > 0, avoided, rest, entry.open.get(), prng.next_u64())
        };
        let best = self
            .entries
            .iter()
            .filter(|entry| entry.listed && may(entry.ip))
            .min_by_key(badness)?;
        Some((best.ip, Lease::new(&best.open)))
    }

    /// One of the addresses that the name lists.
    pub fn first(&self) -> Option<IpAddr> {
        let mut listed = self.entries.iter().filter(|entry| entry.listed);
        listed.next().map(|entry| entry.ip)
    }

    /// The address whose rest is over and that should be probed now; it counts as being probed from here on.
    pub fn take_due_probe(&mut self, now_ms: u64) -> Option<(IpAddr, Lease)> {
        let others_up = self
            .entries
            .iter()
            .any(|entry| entry.listed && entry.health == Health::Up);
        let due = |entry: &&mut Entry| matches!(entry.health, Health::Resting { until_ms } if entry.listed && until_ms <= now_ms);
        // With none up, the request at hand dials the least bad itself.
        let entry = self.entries.iter_mut().filter(|_| others_up).find(due)?;
        entry.health = Health::Probing { until_ms: now_ms };
        Some((entry.ip, Lease::new(&entry.open)))
    }

    /// A lease on an address for a connection that came from another shard.
    pub fn lease(&self, ip: IpAddr) -> Lease {
        let found = self.entries.iter().find(|entry| entry.ip == ip);
        found.map_or_else(Lease::unlisted, |entry| Lease::new(&entry.open))
    }

    /// A new connection to `ip` is ready; true if that ends its rest. It is on trial: one more failure and it rests again, longer.
    pub fn connected(&mut self, ip: IpAddr, policy: &RestPolicy) -> bool {
        let Some(entry) = self.find(ip) else {
            return false;
        };
        if entry.health == Health::Up {
            return false;
        }
        entry.health = Health::Up;
        entry.failures = policy.failures_to_rest.saturating_sub(1);
        true
    }

    /// `ip` has answered a request.
    pub fn answered(&mut self, ip: IpAddr) {
        if let Some(entry) = self.find(ip)
            && entry.health == Health::Up
        {
            entry.failures = 0;
            entry.unanswered = false;
            entry.rest_ms = 0;
        }
    }

    /// `ip` has taken the connection of a tunnel, and no answer is to follow: it is well, unless requests that were sent there have failed since
    /// the last answer.
    pub fn reached(&mut self, ip: IpAddr) {
        if self.find(ip).is_some_and(|entry| !entry.unanswered) {
            self.answered(ip);
        }
    }

    /// `ip` has taken a connection, and has failed on it. [`AddressSet::failed`] follows.
    pub fn left_unanswered(&mut self, ip: IpAddr) {
        if let Some(entry) = self.find(ip) {
            entry.unanswered = true;
        }
    }

    /// `ip` has failed; true if it rests from now on. Failures of connections that were under way when it began to rest do
    /// not lengthen its rest.
    pub fn failed(&mut self, ip: IpAddr, now_ms: u64, policy: &RestPolicy) -> bool {
        let Some(entry) = self.find(ip) else {
            return false;
        };
        match entry.health {
            Health::Up => {
                entry.failures += 1;
                let rests = entry.failures >= policy.failures_to_rest;
                if rests {
                    entry.rest(now_ms, policy);
                }
                rests
            }
            Health::Resting { until_ms } if now_ms < until_ms => false,
            Health::Resting { .. } | Health::Probing { .. } => {
                entry.rest(now_ms, policy);
                false
            }
        }
    }

    /// This machine has no way to `ip`: it rests at once; true if it does from now on.
    pub fn unroutable(&mut self, ip: IpAddr, now_ms: u64, policy: &RestPolicy) -> bool {
        let Some(entry) = self.find(ip) else {
            return false;
        };
        let was_up = entry.health == Health::Up;
        entry.failures = policy.failures_to_rest;
        entry.rest(now_ms, policy);
        was_up
    }

    /// A probe was taken but could not be made: its address goes on resting, no longer than before.
    pub fn postpone(&mut self, ip: IpAddr, now_ms: u64, policy: &RestPolicy) {
        if let Some(entry) = self.find(ip)
            && matches!(entry.health, Health::Probing { .. })
        {
            entry.health = Health::Resting {
                until_ms: now_ms + policy.rest_ms,
            };
        }
    }

    /// Listed addresses, and how many of them rest.
    pub fn counts(&self) -> (usize, usize) {
        let listed = self.entries.iter().filter(|entry| entry.listed);
        let resting = listed.clone().filter(|entry| entry.health != Health::Up);
        (listed.count(), resting.count())
    }

    fn find(&mut self, ip: IpAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.ip == ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RestPolicy = RestPolicy {
        failures_to_rest: 3,
        rest_ms: 100,
    };

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn set(count: u8) -> AddressSet {
        let mut set = AddressSet::default();
        set.replace(&(1..=count).map(ip).collect::<Vec<_>>());
        set
    }

    fn fail(set: &mut AddressSet, last: u8, times: u32, now_ms: u64) -> bool {
        (0..times).fold(false, |_, _| set.failed(ip(last), now_ms, &POLICY))
    }

    #[test]
    fn connections_spread_over_all_addresses() {
        let (set, prng) = (set(4), Prng::new(1));
        let leases: Vec<_> = (0..40)
            .filter_map(|_| set.choose(&[], &prng, |_| true))
            .collect();
        for last in 1..=4 {
            assert_eq!(
                leases
                    .iter()
                    .filter(|(chosen, _)| *chosen == ip(last))
                    .count(),
                10
            );
        }
        drop(leases);
        assert!(set.entries.iter().all(|entry| entry.open.get() == 0));
    }

    #[test]
    fn a_retry_goes_to_another_address_where_there_is_one() {
        let prng = Prng::new(2);
        let two = set(2);
        for _ in 0..20 {
            assert_eq!(
                two.choose(&[ip(1)], &prng, |_| true).map(|chosen| chosen.0),
                Some(ip(2))
            );
        }
        assert_eq!(
            set(1)
                .choose(&[ip(1)], &prng, |_| true)
                .map(|chosen| chosen.0),
            Some(ip(1))
        );
        assert!(AddressSet::default().choose(&[], &prng, |_| true).is_none());
    }

    #[test]
    fn an_address_that_fails_three_times_in_a_row_rests() {
        let (mut set, prng) = (set(2), Prng::new(3));
        assert!(!fail(&mut set, 1, 2, 1000));
        set.answered(ip(1));
        assert!(!fail(&mut set, 1, 2, 1000));
        assert!(fail(&mut set, 1, 1, 1000));
        assert_eq!(set.counts(), (2, 1));
        for _ in 0..20 {
            assert_eq!(
                set.choose(&[], &prng, |_| true).map(|chosen| chosen.0),
                Some(ip(2))
            );
        }
    }

    #[test]
    fn one_probe_decides_when_the_rest_is_over() {
        let (mut set, prng) = (set(2), Prng::new(4));
        fail(&mut set, 1, 3, 1000);
        assert!(set.take_due_probe(1099).is_none());
        let probe = set.take_due_probe(1100);
        assert_eq!(probe.as_ref().map(|probe| probe.0), Some(ip(1)));
        assert!(set.take_due_probe(1100).is_none(), "only one");
        assert_eq!(
            set.choose(&[], &prng, |_| true).map(|chosen| chosen.0),
            Some(ip(2))
        );
        assert!(set.connected(ip(1), &POLICY));
        assert_eq!(set.counts(), (2, 0));
        assert!(fail(&mut set, 1, 1, 1200), "it is on trial");
        assert!(
            set.take_due_probe(1399).is_none(),
            "and rests twice as long"
        );
        assert!(set.take_due_probe(1400).is_some());
    }

    #[test]
    fn a_tunnels_connection_makes_up_for_failed_connections_and_not_for_failed_requests() {
        let mut set = set(2);
        fail(&mut set, 1, 2, 1000);
        set.reached(ip(1));
        assert!(!fail(&mut set, 1, 2, 1000));
        set.reached(ip(1));
        for _ in 0..2 {
            set.left_unanswered(ip(1));
            assert!(!fail(&mut set, 1, 1, 1000));
            set.reached(ip(1));
        }
        set.left_unanswered(ip(1));
        assert!(fail(&mut set, 1, 1, 1000), "it rests");
        // Its rest over, it is on trial, and rests twice as long if it fails.
        assert!(set.take_due_probe(1100).is_some() && set.connected(ip(1), &POLICY));
        set.reached(ip(1));
        assert!(fail(&mut set, 1, 1, 1100));
        assert!(set.take_due_probe(1299).is_none() && set.take_due_probe(1300).is_some());
        assert!(set.connected(ip(1), &POLICY));
        set.answered(ip(1));
        set.reached(ip(1));
        assert!(!fail(&mut set, 1, 2, 2000));
    }

    #[test]
    fn rests_double_up_to_a_bound() {
        let mut set = set(2);
        let mut now_ms = 1000;
        fail(&mut set, 1, 3, now_ms);
        let mut rest_ms = 100;
        for _ in 0..20 {
            assert!(set.take_due_probe(now_ms + rest_ms - 1).is_none());
            now_ms += rest_ms;
            assert!(set.take_due_probe(now_ms).is_some());
            set.failed(ip(1), now_ms, &POLICY);
            rest_ms = (rest_ms * 2).min(6400);
        }
    }

    #[test]
    fn many_failures_at_once_are_one_rest() {
        let mut set = set(2);
        fail(&mut set, 1, 100, 1000);
        assert!(set.take_due_probe(1100).is_some());
    }

    #[test]
    fn when_all_rest_the_least_bad_is_dialled() {
        let (mut set, prng) = (set(3), Prng::new(5));
        for (last, now_ms) in [(1, 1000), (2, 900), (3, 1100)] {
            fail(&mut set, last, 3, now_ms);
        }
        assert_eq!(
            set.choose(&[], &prng, |_| true).map(|chosen| chosen.0),
            Some(ip(2))
        );
        assert_eq!(
            set.choose(&[ip(2)], &prng, |_| true).map(|chosen| chosen.0),
            Some(ip(1))
        );
        assert!(
            set.take_due_probe(5000).is_none(),
            "the request itself is the probe"
        );
        assert!(set.connected(ip(2), &POLICY));
    }

    #[test]
    fn a_new_answer_does_not_bring_a_dead_address_back() {
        let (mut set, prng) = (set(2), Prng::new(6));
        fail(&mut set, 1, 3, 1000);
        set.replace(&[ip(2), ip(3)]);
        assert!(!set.is_listed(ip(1)));
        set.replace(&[ip(1), ip(3)]);
        for _ in 0..20 {
            assert_eq!(
                set.choose(&[], &prng, |_| true).map(|chosen| chosen.0),
                Some(ip(3))
            );
        }
    }

    #[test]
    fn what_is_unroutable_rests_at_once() {
        let mut set = set(2);
        assert!(set.unroutable(ip(1), 1000, &POLICY));
        assert_eq!(set.counts(), (2, 1));
    }

    #[test]
    fn a_postponed_probe_is_due_again_later() {
        let mut set = set(2);
        fail(&mut set, 1, 3, 1000);
        assert!(set.take_due_probe(1100).is_some());
        set.postpone(ip(1), 1100, &POLICY);
        assert!(set.take_due_probe(1150).is_none() && set.take_due_probe(1200).is_some());
    }
}

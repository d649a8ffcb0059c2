//! The bars: what millrace promises against its peers, as data, judged by the latest results.
//!
//! Called by the page and by the terminal's summary. Invariants: a clause is judged by the median of the ratios of
//! paired runs; where an answer of either side was wrong it is not judged at all; what was not measured is said to be
//! so. Left to others: measuring.

use super::derive::{self, Doubts, Measure, Spread};
use crate::results::Results;

/// What the figure of millrace is held against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// At least so many times the peer's.
    AtLeast(f64, &'static str),
    /// At most so many times the peer's.
    AtMost(f64, &'static str),
    /// At most so much more than the peer's, in the measure's unit.
    AtMostMore(f64, &'static str),
    /// At most this, in the measure's unit.
    Within(f64),
}

impl Limit {
    /// The peer that must have been measured too.
    pub fn peer(self) -> Option<&'static str> {
        match self {
            Limit::AtLeast(_, peer) | Limit::AtMost(_, peer) | Limit::AtMostMore(_, peer) => {
                Some(peer)
            }
            Limit::Within(_) => None,
        }
    }

    fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtLeast(least, _) => value >= least,
            Limit::AtMost(most, _) | Limit::AtMostMore(most, _) | Limit::Within(most) => {
                value <= most
            }
        }
    }
}

/// One promise.
#[derive(Debug, Clone, Copy)]
pub struct Bar {
    /// The scenario that shows it.
    pub scenario: &'static str,
    /// The figure.
    pub measure: Measure,
    /// Its limit.
    pub limit: Limit,
}

const fn bar(scenario: &'static str, measure: Measure, limit: Limit) -> Bar {
    Bar {
        scenario,
        measure,
        limit,
    }
}

/// The party of a scenario with two variants of millrace that has one shard.
pub const ONE_SHARD: &str = "millrace-1-shard";
/// The party of a scenario with two variants of millrace that has nothing on disk.
const RAM_ONLY: &str = "millrace-ram";

use Limit::{AtLeast, AtMost, AtMostMore, Within};
use Measure::{
    CpuPerGib, CpuPerRequest, Fetched, FirstByte, LastByte, LatencyP50, LatencyP99, RequestRate,
    Throughput,
};

/// All of them. Bytes fetched may exceed 1.00 by what rounds to it.
pub const BARS: &[Bar] = &[
    bar("hit-1g", Throughput, AtLeast(1.0, "nginx")),
    bar("hit-1g", CpuPerGib, AtMost(1.0, "nginx")),
    bar("hit-1m-64", Throughput, AtLeast(1.0, "nginx")),
    bar("hit-1m-64", CpuPerGib, AtMost(1.0, "nginx")),
    bar("hit-4k-64", RequestRate, AtLeast(1.5, "nginx")),
    bar("hit-4k-64", CpuPerRequest, AtMost(0.67, "nginx")),
    bar("hit-4k-64", LatencyP99, AtMost(1.0, "nginx")),
    bar("hit-4k-64", CpuPerRequest, AtMost(1.25, "bare")),
    bar("head-4k-64", RequestRate, AtLeast(1.5, "nginx")),
    bar("head-4k-64", CpuPerRequest, AtMost(0.67, "nginx")),
    bar("head-4k-64", LatencyP99, AtMost(1.0, "nginx")),
    bar("range-64m-1", Throughput, AtLeast(1.0, "nginx")),
    bar("range-64m-1", CpuPerGib, AtMost(1.0, "nginx")),
    bar("range-64m-32", Throughput, AtLeast(1.0, "nginx")),
    bar("range-64m-32", CpuPerGib, AtMost(1.0, "nginx")),
    bar("cold-1g-tls", Throughput, AtLeast(1.0, "nginx")),
    bar("cold-1g-tls", Throughput, AtLeast(0.95, "direct")),
    bar("herd-100m", Fetched, Within(1.005)),
    bar("herd-100m", FirstByte, AtMostMore(5.0, "direct")),
    bar("herd-100m", LastByte, AtMost(1.0, "nginx")),
    bar("cold-1g", CpuPerGib, Within(0.6)),
    bar("cold-1g", Throughput, AtLeast(1.0, "ats")),
    bar("shards-2", RequestRate, AtLeast(1.8, ONE_SHARD)),
    bar("disk-1g", Throughput, AtLeast(0.9, "fio")),
    bar("fill-1g", LatencyP50, AtMost(1.05, RAM_ONLY)),
    bar("fill-1g", CpuPerGib, Within(0.6)),
    bar("put-1m", Throughput, AtLeast(0.95, "direct")),
    bar("tunnel-1g", Throughput, AtLeast(0.95, "haproxy")),
    bar("tunnel-1g", CpuPerGib, AtMost(1.0, "haproxy")),
    bar("tunnel-1m-64", Throughput, AtLeast(0.95, "haproxy")),
    bar("tunnel-1m-64", CpuPerGib, AtMost(1.0, "haproxy")),
];

/// What the results say of a bar.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// No results with both parties.
    NotMeasured,
    /// There are, and an answer was wrong; names whose.
    Wrong(String),
    /// It holds, or not.
    Judged(Judged),
}

/// The figures of a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Whether it holds.
    pub met: bool,
    /// What is compared with the limit: a ratio, a difference or the figure itself.
    pub compared: Spread,
    /// The figure of millrace.
    pub own: Spread,
    /// The figure of the peer.
    pub peer: Option<Spread>,
    /// Whether the client had no CPU left in a run of millrace, which then could have been faster.
    pub client_bound: bool,
    /// Whether others used the machine meanwhile.
    pub disturbed: bool,
}

impl Bar {
    /// By the first of these documents that has what it takes; give the latest first.
    pub fn judge(&self, latest_first: &[&Results]) -> Verdict {
        let of_scenario = latest_first
            .iter()
            .filter(|results| results.scenario.name == self.scenario);
        of_scenario
            .map(|results| self.judge_one(results))
            .find(|verdict| *verdict != Verdict::NotMeasured)
            .unwrap_or(Verdict::NotMeasured)
    }

    fn judge_one(&self, results: &Results) -> Verdict {
        let Some(own_name) = derive::subject(results) else {
            return Verdict::NotMeasured;
        };
        let has = |name: &str| derive::runs_of(results, name).next().is_some();
        let parties: Vec<&str> = [Some(own_name), self.limit.peer()]
            .into_iter()
            .flatten()
            .collect();
        if !parties.iter().all(|name| has(name)) {
            return Verdict::NotMeasured;
        }
        let doubts = |name: &str| Doubts::of(results, name);
        if let Some(name) = parties.iter().find(|name| doubts(name).is_wrong()) {
            return Verdict::Wrong((*name).to_string());
        }
        let spread = |name: &str| derive::spread(results, name, self.measure);
        let compared = match self.limit {
            AtLeast(_, peer) | AtMost(_, peer) => {
                derive::ratio(results, (own_name, peer), self.measure)
            }
            AtMostMore(_, peer) => {
                derive::paired(results, (own_name, peer), self.measure, |own, peer| {
                    own - peer
                })
            }
            Within(_) => spread(own_name),
        };
        let (Some(compared), Some(own)) = (compared, spread(own_name)) else {
            return Verdict::NotMeasured;
        };
        Verdict::Judged(Judged {
            met: self.limit.holds(compared.median),
            compared,
            own,
            peer: self.limit.peer().and_then(spread),
            client_bound: doubts(own_name).client_bound > 0,
            disturbed: parties.iter().any(|name| doubts(name).disturbed > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{results, run};
    use crate::results::Run;

    const RATE: Bar = bar("hit-4k-64", RequestRate, AtLeast(1.5, "nginx"));

    fn pair(own: f64, peer: f64) -> Vec<Run> {
        vec![run("millrace", 1, own), run("nginx", 1, peer)]
    }

    fn judged(verdict: Verdict) -> Judged {
        match verdict {
            Verdict::Judged(judged) => judged,
            other => panic!("not judged: {other:?}"),
        }
    }

    #[test]
    fn a_bar_is_met_at_its_threshold_and_missed_below() {
        let met = results("hit-4k-64", pair(150.0, 100.0));
        assert!(judged(RATE.judge(&[&met])).met);
        let missed = results("hit-4k-64", pair(149.0, 100.0));
        let missed = judged(RATE.judge(&[&missed]));
        assert!(!missed.met);
        assert!((missed.compared.median - 1.49).abs() < 1e-9);
    }

    #[test]
    fn a_cost_is_met_when_it_is_lower() {
        let cost = bar("hit-4k-64", CpuPerRequest, AtMost(0.67, "nginx"));
        // The CPU of a made-up run is fixed: twice the requests, half the cost.
        let results = results("hit-4k-64", pair(200.0, 100.0));
        let judged = judged(cost.judge(&[&results]));
        assert!(judged.met && (judged.compared.median - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_difference_is_held_against_its_own_unit() {
        let bar = bar("herd-100m", FirstByte, AtMostMore(5.0, "direct"));
        let mut own = run("millrace", 1, 10.0);
        own.first_byte.p50_us = 5_100;
        let direct = run("direct", 1, 10.0);
        let results = |own| results("herd-100m", vec![own, direct.clone()]);
        assert!(judged(bar.judge(&[&results(own.clone())])).met);
        own.first_byte.p50_us = 5_101;
        assert!(!judged(bar.judge(&[&results(own)])).met);
    }

    #[test]
    fn without_the_peer_it_is_not_measured_and_older_results_may_have_it() {
        let alone = results("hit-4k-64", vec![run("millrace", 1, 10.0)]);
        assert_eq!(RATE.judge(&[&alone]), Verdict::NotMeasured);
        assert_eq!(RATE.judge(&[]), Verdict::NotMeasured);
        let older = results("hit-4k-64", pair(200.0, 100.0));
        assert!(judged(RATE.judge(&[&alone, &older])).met);
    }

    #[test]
    fn a_wrong_answer_spoils_the_bar_however_fast() {
        let mut runs = pair(200.0, 100.0);
        runs[1].errors = 1;
        let results = results("hit-4k-64", runs);
        assert_eq!(RATE.judge(&[&results]), Verdict::Wrong("nginx".to_string()));
    }

    #[test]
    fn doubts_travel_with_the_verdict() {
        let mut runs = pair(200.0, 100.0);
        runs[0].client_busy = 1.0;
        runs[1].foreign_cores = 0.4;
        let judged = judged(RATE.judge(&[&results("hit-4k-64", runs)]));
        assert!(judged.client_bound && judged.disturbed);
    }
}

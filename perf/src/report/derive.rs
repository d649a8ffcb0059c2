//! Numbers derived from runs: what one run shows, its spread over the rounds, ratios of two parties.
//!
//! Called by the tables, the plots, the bars and the model. Pure. Invariants: a figure that a run cannot show (a rate
//! of no requests, CPU of a server elsewhere) is missing, never zero; a ratio pairs the runs of one round, which were
//! measured minutes apart at most, so that the machine's drift cancels. Left to others: words and pictures.

use crate::results::{Cpu, Results, Run};

/// Bytes in a GiB.
pub const GIB: f64 = (1_u64 << 30) as f64;

/// More CPU than this, in cores, used by others or stolen, and a run counts as disturbed.
pub const FOREIGN_CORES_MAX: f64 = 0.15;

/// A client busier than this share of its cores may be what is measured.
pub const CLIENT_BUSY_MAX: f64 = 0.90;

/// A figure that one run shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    /// Body bytes per second, GiB/s.
    Throughput,
    /// Requests per second.
    RequestRate,
    /// Server CPU seconds per GiB of bodies.
    CpuPerGib,
    /// Server CPU microseconds per request.
    CpuPerRequest,
    /// Median latency to the last byte, ms.
    LatencyP50,
    /// 99 % of latencies to the last byte, ms.
    LatencyP99,
    /// Median latency to the first byte, ms.
    FirstByte,
    /// When the last client of a herd had its last byte, seconds.
    LastByte,
    /// Bytes the origin sent per byte of one body.
    Fetched,
}

impl Measure {
    /// All of them, in the order of columns.
    pub const ALL: [Measure; 9] = [
        Measure::Throughput,
        Measure::RequestRate,
        Measure::CpuPerGib,
        Measure::CpuPerRequest,
        Measure::LatencyP50,
        Measure::LatencyP99,
        Measure::FirstByte,
        Measure::LastByte,
        Measure::Fetched,
    ];

    /// Head of a column: what, and its unit.
    pub fn title(self) -> &'static str {
        match self {
            Measure::Throughput => "GiB/s",
            Measure::RequestRate => "requests/s",
            Measure::CpuPerGib => "server CPU, s/GiB",
            Measure::CpuPerRequest => "server CPU, µs/request",
            Measure::LatencyP50 => "p50, ms",
            Measure::LatencyP99 => "p99, ms",
            Measure::FirstByte => "first byte p50, ms",
            Measure::LastByte => "last client done, s",
            Measure::Fetched => "fetched per byte",
        }
    }

    /// What a run shows; none where it cannot.
    pub fn of(self, run: &Run) -> Option<f64> {
        let requests = run.requests as f64;
        let bytes = run.bytes as f64;
        let cpu = run.server_cpu.map(cpu_seconds);
        let per_request = |us: u64| (run.requests > 0 && us > 0).then_some(us as f64 / 1e3);
        let value = match self {
            Measure::Throughput => positive(bytes)? / GIB / run.seconds,
            Measure::RequestRate => requests / run.seconds,
            Measure::CpuPerGib => cpu? * GIB / positive(bytes)?,
            Measure::CpuPerRequest => cpu? * 1e6 / positive(requests)?,
            Measure::LatencyP50 => per_request(run.latency.p50_us)?,
            Measure::LatencyP99 => per_request(run.latency.p99_us)?,
            Measure::FirstByte => per_request(run.first_byte.p50_us)?,
            Measure::LastByte => run.last_byte_s?,
            Measure::Fetched => {
                run.origin?.body_bytes as f64 / (positive(bytes)? / positive(requests)?)
            }
        };
        value.is_finite().then_some(value)
    }
}

fn positive(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn cpu_seconds(cpu: Cpu) -> f64 {
    cpu.user_s + cpu.system_s
}

/// Median and extremes over rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Median; between the two middle values where their number is even.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
    /// How many values.
    pub count: usize,
}

impl Spread {
    /// Of some values; none of none.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Spread {
            median: f64::midpoint(values[(count - 1) / 2], values[count / 2]),
            min,
            max,
            count,
        })
    }
}

/// The runs of a party.
pub fn runs_of<'a>(results: &'a Results, party: &'a str) -> impl Iterator<Item = &'a Run> {
    results.runs.iter().filter(move |run| run.party == party)
}

/// A party's figure over its rounds.
pub fn spread(results: &Results, party: &str, measure: Measure) -> Option<Spread> {
    let values = runs_of(results, party).filter_map(|run| measure.of(run));
    Spread::of(values.collect())
}

/// `compute(party's, peer's)` for each round in which both show the figure, over the rounds.
pub fn paired(
    results: &Results,
    (party, peer): (&str, &str),
    measure: Measure,
    compute: impl Fn(f64, f64) -> f64,
) -> Option<Spread> {
    let of_peer = |round: u32| {
        let run = runs_of(results, peer).find(|run| run.round == round)?;
        measure.of(run)
    };
    let values = runs_of(results, party).filter_map(|run| {
        let value = compute(measure.of(run)?, of_peer(run.round)?);
        value.is_finite().then_some(value)
    });
    Spread::of(values.collect())
}

/// How many times the peer's figure a party's is.
pub fn ratio(results: &Results, pair: (&str, &str), measure: Measure) -> Option<Spread> {
    paired(results, pair, measure, |party, peer| party / peer)
}

/// The party that the others are held against: millrace; where it has another name, the first.
pub fn subject(results: &Results) -> Option<&str> {
    let names = || results.parties.iter().map(|party| party.name.as_str());
    let proxy = names().find(|name| matches!(*name, "millrace" | "proxy"));
    proxy
        .or_else(|| names().find(|name| name.starts_with("millrace")))
        .or_else(|| names().next())
}

/// What must be known of a party's runs before one of its figures is believed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Doubts {
    /// Runs there are.
    pub runs: usize,
    /// Requests without a right answer, all runs together.
    pub errors: u64,
    /// Body bytes that were wrong, all runs together.
    pub wrong_bytes: u64,
    /// Runs without a single right answer.
    pub empty: usize,
    /// Runs while others used CPU.
    pub disturbed: usize,
    /// Runs in which the client had no CPU left.
    pub client_bound: usize,
}

impl Doubts {
    /// Of a party.
    pub fn of(results: &Results, party: &str) -> Doubts {
        let mut doubts = Doubts::default();
        for run in runs_of(results, party) {
            doubts.runs += 1;
            doubts.errors += run.errors;
            doubts.wrong_bytes += run.wrong_bytes;
            doubts.empty += usize::from(run.requests == 0);
            doubts.disturbed += usize::from(run.foreign_cores + run.steal > FOREIGN_CORES_MAX);
            doubts.client_bound += usize::from(run.client_busy > CLIENT_BUSY_MAX);
        }
        doubts
    }

    /// Whether the answers themselves were wrong, so that speed means nothing.
    pub fn is_wrong(&self) -> bool {
        self.errors > 0 || self.wrong_bytes > 0 || self.empty > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{results, run};

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let odd = Spread::of(vec![3.0, 1.0, 2.0]).expect("three");
        assert!(near(odd.median, 2.0) && near(odd.min, 1.0) && near(odd.max, 3.0));
        let even = Spread::of(vec![4.0, 1.0, 2.0, 3.0]).expect("four");
        assert!(near(even.median, 2.5) && even.count == 4);
        let one = Spread::of(vec![7.0]).expect("one");
        assert!(near(one.median, 7.0) && near(one.min, one.max));
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn ratios_pair_the_runs_of_a_round_so_that_drift_cancels() {
        // The machine gets slower by half each round; the ratio stays.
        let runs = [(1, 100.0), (2, 50.0), (3, 25.0)].into_iter();
        let runs = runs.flat_map(|(round, rate)| {
            [
                run("millrace", round, 2.0 * rate),
                run("nginx", round, rate),
            ]
        });
        let results = results("hit-4k-64", runs.collect());
        let got = ratio(&results, ("millrace", "nginx"), Measure::RequestRate).expect("pairs");
        assert!(near(got.median, 2.0) && near(got.min, 2.0) && near(got.max, 2.0));
        assert_eq!(got.count, 3);
    }

    #[test]
    fn a_round_without_the_peer_gives_no_ratio() {
        let runs = vec![run("millrace", 1, 10.0), run("nginx", 2, 10.0)];
        let results = results("hit-4k-64", runs);
        let pair = ("millrace", "nginx");
        assert_eq!(ratio(&results, pair, Measure::RequestRate), None);
        let absent = ("millrace", "varnish");
        assert_eq!(ratio(&results, absent, Measure::RequestRate), None);
    }

    #[test]
    fn what_a_run_cannot_show_is_missing_and_not_zero() {
        let mut odd = run("millrace", 1, 0.0);
        odd.bytes = 0;
        for measure in Measure::ALL {
            if measure != Measure::RequestRate {
                assert_eq!(measure.of(&odd), None, "{measure:?}");
            }
        }
        assert_eq!(Measure::RequestRate.of(&odd), Some(0.0));
        let mut elsewhere = run("millrace", 1, 10.0);
        elsewhere.server_cpu = None;
        assert_eq!(Measure::CpuPerGib.of(&elsewhere), None);
        elsewhere.seconds = 0.0;
        assert_eq!(Measure::Throughput.of(&elsewhere), None);
    }

    #[test]
    fn cpu_is_counted_per_gib_and_per_request() {
        // 10 requests/s for 2 s, each 4 KiB, 0.001 s of CPU in all.
        let run = run("millrace", 1, 10.0);
        let per_request = Measure::CpuPerRequest.of(&run).expect("there");
        assert!(near(per_request, 50.0), "{per_request}");
        let per_gib = Measure::CpuPerGib.of(&run).expect("there");
        assert!(near(per_gib, 50e-6 * GIB / 4096.0), "{per_gib}");
    }

    #[test]
    fn doubts_add_up() {
        let mut bad = run("nginx", 1, 10.0);
        bad.errors = 3;
        bad.foreign_cores = 0.5;
        bad.client_busy = 0.99;
        let mut none = run("nginx", 2, 0.0);
        none.bytes = 0;
        let results = results("hit-4k-64", vec![bad, none, run("millrace", 1, 10.0)]);
        let want = Doubts {
            runs: 2,
            errors: 3,
            wrong_bytes: 0,
            empty: 1,
            disturbed: 1,
            client_bound: 1,
        };
        assert_eq!(Doubts::of(&results, "nginx"), want);
        assert!(want.is_wrong());
        assert!(!Doubts::of(&results, "millrace").is_wrong());
    }

    #[test]
    fn the_subject_is_millrace_wherever_it_stands() {
        let runs = |names: &[&str]| names.iter().map(|name| run(name, 1, 1.0)).collect();
        let named = results("x", runs(&["direct", "millrace-1-shard", "millrace"]));
        assert_eq!(subject(&named), Some("millrace"));
        let variants = results("x", runs(&["direct", "millrace-ram"]));
        assert_eq!(subject(&variants), Some("millrace-ram"));
        assert_eq!(subject(&results("x", runs(&["other"]))), Some("other"));
        assert_eq!(subject(&results("x", Vec::new())), None);
    }
}

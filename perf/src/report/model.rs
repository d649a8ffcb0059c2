//! What a 32-core host with a 100 Gbit/s card would do, computed from the costs measured here.
//!
//! Called by the page's assembly. Pure. Invariants: every figure is a measured cost times stated constants; a cost that
//! was not measured leaves its row empty. Left to others: the assumptions in words, which `model.md` holds.

use std::fmt::Write as _;

use super::bars::ONE_SHARD;
use super::derive::{self, Doubts, GIB, Measure, Spread};
use super::{figures, markdown};
use crate::results::Results;

const LINE_BYTES_PER_S: f64 = 100e9 / 8.0;

/// Payload and whole length on the wire of a full frame: Ethernet's 38 bytes, 40 of IP and TCP, 12 of timestamps.
const FRAME_1500: (f64, f64) = (1448.0, 1538.0);
const FRAME_9000: (f64, f64) = (8948.0, 9038.0);

/// What the head of an answer takes on the wire, beside the body of a small one.
const RESPONSE_HEAD_BYTES: f64 = 500.0;

/// Where the processor's name does not tell its clock.
const ASSUMED_CLOCK_GHZ: f64 = 2.6;

const CORES: f64 = 32.0;

/// A kind of work and the scenario that measured its cost.
struct Work {
    what: &'static str,
    scenario: &'static str,
}

const LARGE: &[Work] = &[
    Work {
        what: "1 GiB GETs, hits",
        scenario: "hit-1g",
    },
    Work {
        what: "1 GiB GETs on 8 connections, hits",
        scenario: "hit-1g-8",
    },
    Work {
        what: "1 MiB GETs, hits",
        scenario: "hit-1m-64",
    },
    Work {
        what: "fills from a TLS origin",
        scenario: "cold-1g-tls",
    },
    Work {
        what: "fills from a plain-HTTP origin",
        scenario: "cold-1g",
    },
];

const SMALL: &[Work] = &[
    Work {
        what: "4 KiB GETs, hits",
        scenario: "hit-4k-64",
    },
    Work {
        what: "HEADs, hits",
        scenario: "head-4k-64",
    },
];

/// How the cost grows with cores, as two shards against one showed it.
struct Scaling {
    /// 1: twice the cores do twice the work.
    efficiency: f64,
    /// Where it comes from.
    basis: String,
}

/// The computed part of the section; `latest_first` as for the bars.
pub fn tables(latest_first: &[&Results]) -> String {
    let scaling = scaling(latest_first);
    let clocks = clock(latest_first);
    let mut text = format!("{}\n\n{}\n\n", clocks.1, scaling.basis);
    text.push_str(&cores_table(latest_first, &scaling, clocks.0));
    let _ = write!(
        text,
        "\nGoodput of the line: {} GiB/s with frames of 1,500 bytes, {} GiB/s with 9,000: more to serve in the \
         same time, and fewer frames to do it with, which the model does not count.\n\n",
        figures::number(goodput(FRAME_1500)),
        figures::number(goodput(FRAME_9000))
    );
    text.push_str(&rates_table(latest_first, &scaling));
    let fit = goodput(FRAME_1500) * GIB / (4096.0 + RESPONSE_HEAD_BYTES);
    let _ = write!(
        text,
        "\nThe line itself carries {} answers of 4 KiB each second, their heads counted with {RESPONSE_HEAD_BYTES} \
         bytes; a HEAD is far from it.\n",
        figures::number(fit)
    );
    text
}

/// GiB of payload each second on a full line.
fn goodput((payload, frame): (f64, f64)) -> f64 {
    LINE_BYTES_PER_S * payload / frame / GIB
}

fn measured(latest_first: &[&Results], scenario: &str, measure: Measure) -> Option<Spread> {
    let mut documents = latest_first
        .iter()
        .filter(|one| one.scenario.name == scenario);
    documents.find_map(|results| {
        let own = derive::subject(results)?;
        let right = !Doubts::of(results, own).is_wrong();
        right
            .then(|| derive::spread(results, own, measure))
            .flatten()
    })
}

/// GHz, and a sentence about it.
fn clock(latest_first: &[&Results]) -> (f64, String) {
    let cpu = latest_first
        .first()
        .map_or("", |results| &results.machine.cpu);
    let told = cpu.rsplit_once('@').and_then(|(_, clock)| {
        let ghz = clock.trim().strip_suffix("GHz")?;
        ghz.trim().parse::<f64>().ok().filter(|ghz| *ghz > 0.0)
    });
    let ghz = told.unwrap_or(ASSUMED_CLOCK_GHZ);
    let source = match (told, cpu) {
        (Some(_), _) => format!("`{cpu}` names its clock"),
        (None, "") => "assumed, since nothing is measured yet".to_string(),
        (None, _) => format!("assumed, since `{cpu}` does not name its clock"),
    };
    let cpu = format!(
        "Cycles are core seconds times {ghz} GHz ({source}); the cores of the host are taken to do as much per\n\
         second as those measured: for others, divide by the ratio of their speed."
    );
    (ghz, cpu)
}

/// By requests each second where one client could load both, else by what a request costs the server.
fn scaling(latest_first: &[&Results]) -> Scaling {
    let found = latest_first.iter().find(|one| {
        one.scenario.name == "shards-2" && derive::runs_of(one, ONE_SHARD).next().is_some()
    });
    let computed = found.and_then(|results| {
        let own = derive::subject(results)?;
        let machine = &results.machine;
        let shared = machine.server_cores.iter().any(|core| machine.client_cores.contains(core));
        let pair = (own, ONE_SHARD);
        let bound = Doubts::of(results, own).client_bound > 0;
        let rate = derive::ratio(results, pair, Measure::RequestRate)?.median;
        let cost = derive::ratio(results, pair, Measure::CpuPerRequest)?.median;
        let (efficiency, why) = match shared || bound {
            true => (1.0 / cost, "the client had no cores of its own, so the cost counts"),
            false => (rate / 2.0, "the client had cores left, so the rate counts"),
        };
        Some(Scaling {
            efficiency: efficiency.clamp(0.5, 1.0),
            basis: format!(
                "Two shards did {rate:.2} times the requests of one, each at {cost:.2} times the CPU; {why}: \
                 efficiency {:.2} per doubling.",
                efficiency.clamp(0.5, 1.0)
            ),
        })
    });
    computed.unwrap_or(Scaling {
        efficiency: 1.0,
        basis: "Two shards against one are not measured yet: efficiency 1.00 is assumed."
            .to_string(),
    })
}

impl Scaling {
    /// What `cores` do, in cores of one that works alone, if each doubling loses the same again.
    fn work_of(&self, cores: f64) -> f64 {
        cores * self.efficiency.powf(cores.max(1.0).log2())
    }

    /// The cores for work that one core alone would need `cores` for.
    fn cores_for(&self, cores: f64) -> f64 {
        // n · e^log2(n) = n^(1 + log2 e)
        cores
            .max(1.0)
            .powf(1.0 / (1.0 + self.efficiency.log2()))
            .max(cores)
            * cores.min(1.0)
    }
}

fn cores_table(latest_first: &[&Results], scaling: &Scaling, ghz: f64) -> String {
    let head = [
        "work at 100 Gbit/s",
        "measured, CPU s/GiB",
        "cycles per byte",
        "cores, ideal",
        "cores, scaling as measured",
        "the same, 9,000-byte frames",
        "share of 32 cores",
    ];
    let mut rows = Vec::new();
    let mut row = |what: &str, cost: Option<f64>| {
        let cores = |frame| cost.map(|cost| cost * goodput(frame));
        let scaled = |frame| cores(frame).map(|cores| scaling.cores_for(cores));
        let show = |value: Option<f64>| value.map_or(figures::NONE.to_string(), figures::number);
        let share = scaled(FRAME_1500).map(|cores| format!("{:.0} %", cores / CORES * 100.0));
        rows.push(vec![
            what.to_string(),
            show(cost),
            show(cost.map(|cost| cost * ghz * 1e9 / GIB)),
            show(cores(FRAME_1500)),
            show(scaled(FRAME_1500)),
            show(scaled(FRAME_9000)),
            share.unwrap_or(figures::NONE.to_string()),
        ]);
    };
    for work in LARGE {
        let cost = measured(latest_first, work.scenario, Measure::CpuPerGib);
        row(work.what, cost.map(|cost| cost.median));
    }
    let small = measured(latest_first, "hit-4k-64", Measure::CpuPerRequest);
    let per_gib = small.map(|cost| cost.median / 1e6 * GIB / (4096.0 + RESPONSE_HEAD_BYTES));
    row("4 KiB GETs, hits (a GiB with their heads)", per_gib);
    figures::table(&head.map(str::to_string), &rows)
}

fn rates_table(latest_first: &[&Results], scaling: &Scaling) -> String {
    let head = [
        "requests/s",
        "CPU µs/request",
        "1 shard",
        "8 shards",
        "16 shards",
        "32 shards",
    ];
    let show = |cost: Option<f64>, shards: f64| {
        let Some(cost) = cost else {
            return figures::NONE.to_string();
        };
        let (ideal, scaled) = (shards * 1e6 / cost, scaling.work_of(shards) * 1e6 / cost);
        match shards > 1.0 {
            true => format!(
                "{} (ideal {})",
                figures::number(scaled),
                figures::number(ideal)
            ),
            false => figures::number(scaled),
        }
    };
    let rows = SMALL.iter().map(|work| {
        let cost = measured(latest_first, work.scenario, Measure::CpuPerRequest);
        let cost = cost.map(|cost| cost.median).filter(|cost| *cost > 0.0);
        let mut row = vec![
            work.what.to_string(),
            cost.map_or(figures::NONE.to_string(), figures::number),
        ];
        row.extend([1.0, 8.0, 16.0, 32.0].map(|shards| show(cost, shards)));
        row
    });
    figures::table(&head.map(str::to_string), &rows.collect::<Vec<_>>())
}

/// Machines that the model's figures come from, for its first line.
pub fn source(latest_first: &[&Results]) -> String {
    match latest_first.first() {
        None => "Nothing is measured yet; the tables fill with the first results.".to_string(),
        Some(results) => format!("Measured on {}.", markdown::machine(&results.machine)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{results, run};

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.01
    }

    #[test]
    fn goodput_is_the_line_without_headers() {
        assert!(near(goodput(FRAME_1500), 10.96));
        assert!(near(goodput(FRAME_9000), 11.53));
    }

    #[test]
    fn without_loss_cores_and_work_are_the_same() {
        let ideal = Scaling {
            efficiency: 1.0,
            basis: String::new(),
        };
        for cores in [0.5, 1.0, 7.0, 32.0] {
            assert!(near(ideal.work_of(cores), cores), "{cores}");
            assert!(near(ideal.cores_for(cores), cores), "{cores}");
        }
    }

    #[test]
    fn each_doubling_loses_again() {
        let lossy = Scaling {
            efficiency: 0.9,
            basis: String::new(),
        };
        assert!(near(lossy.work_of(8.0), 8.0 * 0.729));
        assert!(near(lossy.cores_for(8.0 * 0.729), 8.0));
        assert!(near(lossy.cores_for(0.6), 0.6), "one core loses nothing");
    }

    #[test]
    fn nothing_measured_leaves_every_row_empty() {
        let text = tables(&[]);
        assert!(text.contains("| 1 GiB GETs, hits | – | – |"), "{text}");
        assert!(text.contains("not measured yet"));
    }

    #[test]
    fn costs_and_scaling_come_from_the_results() {
        // 50 µs each; two shards: 45 µs of the peer's 50.
        let small = results("hit-4k-64", vec![run("millrace", 1, 10.0)]);
        let two = [run("millrace", 1, 10.0), run(ONE_SHARD, 1, 11.0)];
        let mut two = results("shards-2", two.to_vec());
        two.machine.client_cores = vec![0, 1];
        let text = tables(&[&small, &two]);
        assert!(
            text.contains("| 4 KiB GETs, hits | 50.0 | 20,000 |"),
            "{text}"
        );
        assert!(text.contains("efficiency 0.91 per doubling"), "{text}");
    }

    #[test]
    fn a_clock_is_read_where_it_is_named() {
        let mut one = results("x", Vec::new());
        one.machine.cpu = "Some CPU @ 3.10GHz".to_string();
        assert!(near(clock(&[&one]).0, 3.1));
        assert!(near(clock(&[]).0, ASSUMED_CLOCK_GHZ));
    }
}

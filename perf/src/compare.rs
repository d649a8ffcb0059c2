//! `perf compare`: is the proxy faster than the store itself, here, for these objects?
//!
//! Called by `main`. Reads the same existing objects from both, first to compare every byte (SHA-256), then in
//! interleaved rounds against the clock; writes nothing anywhere. Invariant: no verdict on speed where a byte differs.
//! Left to others: everything about servers; both run somewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::load::requests::{Bodies, Method, Recipe, Requests};
use crate::load::target::Target;
use crate::load::{self, Check, Job, LoadError, Outcome};
use crate::sign::{Signer, object_path};

const GIB: f64 = (1_u64 << 30) as f64;
const NAMES: [&str; 2] = ["direct", "proxy"];

/// What to compare.
#[derive(Debug)]
pub struct Options {
    /// The store itself, then the proxy.
    pub targets: [Target; 2],
    /// Where the objects are; `None`: each key begins with its bucket.
    pub bucket: Option<String>,
    /// Existing objects.
    pub keys: Vec<String>,
    /// Credentials.
    pub signer: Option<Signer>,
    /// Keep-alive connections.
    pub connections: u32,
    /// Interleaved rounds.
    pub rounds: u32,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// Nothing to read.
    #[error("no keys: give --key or --keys")]
    NoKeys,
    /// One of them could not be asked.
    #[error("{0}: {1}")]
    Load(&'static str, LoadError),
    /// One of them did not answer well.
    #[error("{0}: {1}")]
    Answers(&'static str, String),
    /// The bytes differ.
    #[error("different bytes through the proxy: {0}")]
    Different(String),
}

/// One side's rounds.
#[derive(Debug, Default)]
struct Side {
    seconds: Vec<f64>,
    first_byte_us: Vec<f64>,
    latency_us: Vec<f64>,
    longest_us: Vec<f64>,
}

/// What both sides hold.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    /// By key: length and digest.
    objects: BTreeMap<u32, (u64, String)>,
}

/// Compares, and returns what to print.
pub fn run(options: &Options) -> Result<String, CompareError> {
    if options.keys.is_empty() {
        return Err(CompareError::NoKeys);
    }
    let cores = crate::machine::cores();
    let unknown = Arc::new(Bodies::Sized(vec![0; options.keys.len()]));
    let mut firsts = Vec::new();
    for side in 0..2 {
        let outcome = read(options, side, &unknown, Check::Digest, &cores)?;
        firsts.push((contents(&outcome), outcome.seconds));
    }
    let [(direct, direct_s), (proxy, proxy_s)] = firsts.try_into().expect("two sides");
    let differing = differing(options, &direct, &proxy);
    if !differing.is_empty() {
        return Err(CompareError::Different(differing.join(", ")));
    }
    let sizes = direct.objects.values().map(|(bytes, _)| *bytes).collect();
    let sized = Arc::new(Bodies::Sized(sizes));
    let mut sides = [Side::default(), Side::default()];
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let outcome = read(options, side, &sized, Check::Nothing, &cores)?;
            sides[side].add(&outcome);
        }
    }
    let bytes: u64 = direct.objects.values().map(|(bytes, _)| bytes).sum();
    Ok(told(options, &sides, bytes, [direct_s, proxy_s]))
}

/// Reads every key once from one side.
fn read(
    options: &Options,
    side: usize,
    bodies: &Arc<Bodies>,
    check: Check,
    cores: &[u32],
) -> Result<Outcome, CompareError> {
    let target = options.targets[side].clone();
    let path = |key: &String| match &options.bucket {
        Some(bucket) => object_path(bucket, key),
        None => {
            let (bucket, key) = key.split_once('/').unwrap_or((key, ""));
            object_path(bucket, key)
        }
    };
    let paths: Vec<String> = options.keys.iter().map(path).collect();
    let recipe = Recipe {
        method: Method::Get,
        host: &options.targets[side].host,
        paths: &paths,
        range_bytes: None,
        signer: options.signer.as_ref(),
    };
    let requests = Arc::new(Requests::build(recipe, Arc::clone(bodies)));
    let job = Job {
        check,
        ..Job::each_once(target, requests, options.connections, cores)
    };
    let outcome =
        load::run(&job, &mut |_| ()).map_err(|error| CompareError::Load(NAMES[side], error))?;
    match outcome.tally.messages.first() {
        None => Ok(outcome),
        Some(message) => Err(CompareError::Answers(NAMES[side], message.clone())),
    }
}

fn contents(outcome: &Outcome) -> Contents {
    let tally = &outcome.tally;
    let lengths = tally.lengths.iter().map(|(_, bytes)| *bytes);
    let digests = tally.digests.iter().cloned().zip(lengths);
    Contents {
        objects: digests
            .map(|((key, digest), bytes)| (key, (bytes, digest)))
            .collect(),
    }
}

fn differing(options: &Options, direct: &Contents, proxy: &Contents) -> Vec<String> {
    let keys = options.keys.iter().zip(0_u32..);
    keys.filter(|(_, at)| direct.objects.get(at) != proxy.objects.get(at))
        .map(|(key, _)| key.clone())
        .collect()
}

impl Side {
    fn add(&mut self, outcome: &Outcome) {
        let latency = outcome.tally.latency.quantiles();
        self.seconds.push(outcome.seconds);
        self.first_byte_us
            .push(outcome.tally.first_byte.quantiles().p50_us as f64);
        self.latency_us.push(latency.p50_us as f64);
        self.longest_us.push(latency.p99_us as f64);
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count => (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0,
    }
}

fn told(options: &Options, sides: &[Side; 2], bytes: u64, first_s: [f64; 2]) -> String {
    let count = options.keys.len();
    let mut text = format!(
        "{count} objects, {:.3} GiB, the same bytes from both (SHA-256); {} connections, medians of {} rounds\n\n\
         {:<8} {:>10} {:>10} {:>10} {:>15} {:>12} {:>12} {:>14}\n",
        bytes as f64 / GIB,
        options.connections,
        options.rounds,
        "",
        "seconds",
        "GiB/s",
        "objects/s",
        "first byte ms",
        "p50 ms",
        "p99 ms",
        "first read s"
    );
    for (name, (side, first)) in NAMES.iter().zip(sides.iter().zip(first_s)) {
        let seconds = median(&side.seconds);
        let _ = writeln!(
            text,
            "{name:<8} {seconds:>10.4} {:>10.3} {:>10.1} {:>15.3} {:>12.3} {:>12.3} {first:>14.4}",
            bytes as f64 / GIB / seconds,
            count as f64 / seconds,
            median(&side.first_byte_us) / 1000.0,
            median(&side.latency_us) / 1000.0,
            median(&side.longest_us) / 1000.0,
        );
    }
    let ratio = median(&sides[0].seconds) / median(&sides[1].seconds);
    let verdict = match ratio {
        ratio if ratio > 1.05 => {
            format!("Yes: the proxy is {ratio:.2} times as fast as the store itself, here.")
        }
        ratio if ratio < 0.95 => format!(
            "No: the proxy takes {:.2} times as long as the store itself, here.",
            1.0 / ratio
        ),
        ratio => format!("Neither: proxy and store are alike here (factor {ratio:.2})."),
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(seconds: f64) -> Side {
        Side {
            seconds: vec![seconds],
            first_byte_us: vec![1000.0],
            latency_us: vec![2000.0],
            longest_us: vec![3000.0],
        }
    }

    #[test]
    fn the_verdict_follows_the_medians() {
        let target = Target::plain(([127, 0, 0, 1], 1).into());
        let options = Options {
            targets: [target.clone(), target],
            bucket: None,
            keys: vec!["b/k".to_string()],
            signer: None,
            connections: 1,
            rounds: 1,
        };
        let told =
            |direct, proxy| told(&options, &[side(direct), side(proxy)], 1 << 30, [1.0, 1.0]);
        assert!(told(2.0, 1.0).contains("Yes: the proxy is 2.00 times as fast"));
        assert!(told(1.0, 4.0).contains("No: the proxy takes 4.00 times as long"));
        assert!(told(1.0, 1.01).contains("Neither"));
    }
}

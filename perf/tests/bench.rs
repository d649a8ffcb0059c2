//! The load client against origins that fail on purpose, the scenario files, `perf bench` and `perf compare` as
//! processes.
//!
//! In-process origins; `perf bench` runs the millrace that stands beside the test's `perf`, built if it is missing.
//! Nothing here asserts how fast anything was.

#![allow(
    clippy::disallowed_methods,
    reason = "a test of processes waits by the wall clock"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use perf::load::keys::Picks;
use perf::load::pace::Pace;
use perf::load::requests::{Bodies, Method, Recipe, Requests};
use perf::load::target::Target;
use perf::load::{self, Check, Job, Outcome, Stop};
use perf::origin::fault::rules::Rule;
use perf::origin::fault::{self, FaultOrigin};
use perf::origin::s3s::{self, S3sOrigin};
use perf::results::Results;
use perf::scenario::{BUILT_IN, Scenario};
use perf::sign::Signer;

const KEYS: u32 = 6;

/// An origin that holds `KEYS` generated objects, and the load to read them.
struct Bench {
    origin: FaultOrigin,
    bodies: Arc<Bodies>,
    target: Target,
}

fn paths() -> Vec<String> {
    (0..KEYS).map(|key| format!("/bkt/k{key}")).collect()
}

fn requests(
    target: &Target,
    method: Method,
    bodies: &Arc<Bodies>,
    signer: Option<&Signer>,
) -> Arc<Requests> {
    let recipe = Recipe {
        method,
        host: &target.host,
        paths: &paths(),
        range_bytes: None,
        signer,
    };
    Arc::new(Requests::build(recipe, Arc::clone(bodies)))
}

fn once(target: &Target, requests: Arc<Requests>, check: Check) -> Job {
    Job {
        target: target.clone(),
        requests,
        picks: Picks::InOrder { count: KEYS },
        connections: 2,
        pace: Pace::Closed,
        stop: Stop::Count {
            requests: u64::from(KEYS),
        },
        check,
        cores: vec![0],
        seed: 1,
    }
}

/// The load blocks: it runs beside the origin's runtime.
async fn run(job: Job) -> Outcome {
    let ended = tokio::task::spawn_blocking(move || load::run(&job, &mut |_| ()));
    ended.await.expect("no panic").expect("it runs")
}

impl Bench {
    async fn start(size: u64) -> Bench {
        let origin = FaultOrigin::start(fault::Config::loopback()).expect("it starts");
        let bench = Bench {
            target: Target::plain(origin.addr),
            bodies: Arc::new(Bodies::generated(size, 3)),
            origin,
        };
        let put = run(bench.once(Method::Put, Check::Nothing)).await;
        assert_eq!(
            (put.tally.requests, put.tally.errors),
            (u64::from(KEYS), 0),
            "{put:?}"
        );
        assert_eq!(put.tally.bytes, size * u64::from(KEYS));
        bench
    }

    fn once(&self, method: Method, check: Check) -> Job {
        let requests = requests(&self.target, method, &self.bodies, None);
        once(&self.target, requests, check)
    }

    fn fault(&self, rule: &str) {
        let rule: Rule = serde_json::from_str(rule).expect("a rule");
        self.origin.set_faults(vec![rule]).expect("it is possible");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_body_is_counted_and_compared() {
    let bench = Bench::start(300_000).await;
    let outcome = run(bench.once(Method::Get, Check::Whole)).await;
    let tally = &outcome.tally;
    assert_eq!(
        (tally.requests, tally.errors, tally.wrong_bytes),
        (6, 0, 0),
        "{tally:?}"
    );
    assert_eq!((tally.bytes, tally.verified_bodies), (1_800_000, 6));
    assert_eq!((tally.latency.count(), tally.first_byte.count()), (6, 6));
    let heads = run(bench.once(Method::Head, Check::Whole)).await;
    assert_eq!(
        (heads.tally.requests, heads.tally.bytes, heads.tally.errors),
        (6, 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_byte_is_found_and_dropped_bodies_are_not_looked_at() {
    let bench = Bench::start(300_000).await;
    bench.fault(r#"{"match": {"key": "k2$"}, "action": {"kind": "corrupt", "at": 123456}}"#);
    let outcome = run(bench.once(Method::Get, Check::Whole)).await;
    let tally = &outcome.tally;
    assert_eq!(
        (tally.requests, tally.errors, tally.wrong_bytes),
        (5, 1, 1),
        "{tally:?}"
    );
    assert!(tally.messages[0].contains("key 2"), "{tally:?}");
    let dropped = run(bench.once(Method::Get, Check::Nothing)).await;
    assert_eq!((dropped.tally.requests, dropped.tally.wrong_bytes), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_compared_in_windows() {
    let bench = Bench::start(17 << 20).await;
    let every = |every| Check::Sample { every };
    bench.fault(r#"{"match": {"key": "k1$"}, "action": {"kind": "corrupt", "at": 16778000}}"#);
    let seen = run(bench.once(Method::Get, every(1))).await;
    assert_eq!(
        (seen.tally.errors, seen.tally.wrong_bytes),
        (1, 1),
        "{seen:?}"
    );
    bench.fault(r#"{"match": {"key": "k1$"}, "action": {"kind": "corrupt", "at": 9000000}}"#);
    let between = run(bench.once(Method::Get, every(1))).await;
    assert_eq!(
        (between.tally.errors, between.tally.verified_bodies),
        (0, 6)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn short_bodies_and_wrong_lengths_are_errors_with_missing_bytes() {
    let bench = Bench::start(300_000).await;
    bench.fault(r#"{"match": {"key": "k3$"}, "action": {"kind": "cut_body", "at": 100000}}"#);
    let cut = run(bench.once(Method::Get, Check::Nothing)).await;
    assert_eq!(
        (cut.tally.requests, cut.tally.errors, cut.tally.wrong_bytes),
        (5, 1, 200_000),
        "{cut:?}"
    );
    bench.fault(r#"{"match": {"key": "k3$"}, "action": {"kind": "content_length", "add": -7}}"#);
    let less = run(bench.once(Method::Get, Check::Nothing)).await;
    assert_eq!(
        (
            less.tally.requests,
            less.tally.errors,
            less.tally.wrong_bytes
        ),
        (5, 1, 7),
        "{less:?}"
    );
    bench.fault(r#"{"match": {"key": "k3$"}, "action": {"kind": "status", "code": 503}}"#);
    let refused = run(bench.once(Method::Get, Check::Nothing)).await;
    assert_eq!(
        (refused.tally.requests, refused.tally.errors),
        (5, 1),
        "{refused:?}"
    );
    assert!(refused.tally.messages[0].contains("503"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_was_closed_is_made_anew() {
    let bench = Bench::start(1000).await;
    bench.fault(r#"{"action": {"kind": "close_idle"}}"#);
    let outcome = run(bench.once(Method::Get, Check::Whole)).await;
    assert_eq!(
        (outcome.tally.requests, outcome.tally.errors),
        (6, 0),
        "{outcome:?}"
    );
    bench.fault(r#"{"action": {"kind": "close"}}"#);
    let outcome = run(bench.once(Method::Get, Check::Whole)).await;
    assert_eq!(
        (outcome.tally.requests, outcome.tally.errors),
        (6, 0),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_counts_from_the_schedule() {
    let bench = Bench::start(1000).await;
    bench.fault(r#"{"count": 1, "action": {"kind": "delay_head", "ms": 400}}"#);
    let open = Job {
        connections: 1,
        pace: Pace::Open { rate: 100.0 },
        stop: Stop::After {
            warm_up: Duration::ZERO,
            duration: Duration::from_millis(500),
        },
        ..bench.once(Method::Get, Check::Nothing)
    };
    let tally = run(open).await.tally;
    // Fifty are due. The first takes 400 ms; the forty behind it on the only connection have waited from when they
    // were due, so that half of all waited for some 150 ms and more. A closed loop would have seen one slow request.
    assert_eq!((tally.requests, tally.errors), (50, 0), "{tally:?}");
    assert!(
        tally.latency.quantiles().p50_us > 100_000,
        "{:?}",
        tally.latency.quantiles()
    );
    assert!(
        tally.latency.quantiles().max_us > 390_000,
        "{:?}",
        tally.latency.quantiles()
    );
}

#[test]
fn every_scenario_file_parses_and_is_built_in() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    let mut built_in: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    built_in.sort_unstable();
    assert_eq!(names, built_in);
    for name in names {
        let scenario = Scenario::find(&name).unwrap_or_else(|error| panic!("{error}"));
        assert!(
            scenario
                .against
                .iter()
                .all(|peer| perf::peers::NAMES.contains(&peer.as_str()))
        );
        let quick = scenario.quick();
        assert!(quick.objects.size.0 * u64::from(quick.objects.count) < 64 << 20);
    }
}

/// The millrace of `PERF_MILLRACE`, or the one beside the test's `perf`.
fn millrace() -> PathBuf {
    if let Some(path) = std::env::var_os("PERF_MILLRACE") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_BIN_EXE_perf")).with_file_name("millrace");
    if !path.is_file() {
        let mut build = Command::new(std::env::var("CARGO").unwrap_or("cargo".to_string()));
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the workspace");
        build
            .args(["build", "--bin", "millrace"])
            .current_dir(folder);
        assert!(build.status().expect("cargo runs").success());
    }
    path
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn bench(scenarios: &[&str], against: &str) -> (String, Vec<Results>) {
    let out = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_perf"))
        .arg("bench")
        .args(scenarios)
        .args(["--quick", "--rounds", "2", "--against", against])
        .arg("--millrace")
        .arg(millrace())
        .arg("--out")
        .arg(out.path())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", told(&output));
    let mut results: Vec<Results> = std::fs::read_dir(out.path())
        .expect("the folder")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"))
        .map(|bytes| serde_json::from_slice(&bytes).expect("results"))
        .collect();
    results.sort_by(|a, b| a.started.cmp(&b.started));
    (told(&output), results)
}

#[test]
fn a_bench_measures_hits_and_keeps_what_it_saw() {
    let (told, results) = bench(&["hit-4k-64"], "direct");
    let [results] = results.as_slice() else {
        panic!("one document: {told}");
    };
    assert_eq!(
        (results.schema, results.scenario.name.as_str()),
        (1, "hit-4k-64")
    );
    assert_eq!(results.runs.len(), 4, "{told}");
    let parties: Vec<&str> = results.runs.iter().map(|run| run.party.as_str()).collect();
    assert_eq!(parties, ["millrace", "direct", "direct", "millrace"]);
    for run in &results.runs {
        assert_eq!((run.errors, run.wrong_bytes), (0, 0), "{told}");
        assert!(run.requests > 0 && run.verified_bodies > 0 && run.bytes >= run.requests * 4096);
        assert!(run.server_cpu.is_some() && !run.histogram.is_empty());
    }
    let hits = results.runs.iter().filter(|run| run.party == "millrace");
    for run in hits {
        assert_eq!(run.origin.map(|origin| origin.requests), Some(0), "{told}");
    }
}

#[test]
fn a_bench_measures_cold_herd_put_head_and_ranges() {
    let scenarios = [
        "cold-1g",
        "cold-1g-tls",
        "herd-100m",
        "put-1m",
        "head-4k-64",
        "range-64m-32",
    ];
    let (told, results) = bench(&scenarios, "direct");
    assert_eq!(results.len(), scenarios.len(), "{told}");
    for run in results.iter().flat_map(|results| &results.runs) {
        assert_eq!((run.errors, run.wrong_bytes), (0, 0), "{told}");
        assert!(run.requests > 0 && run.verified_bodies > 0, "{told}");
    }
    let of = |name: &str| {
        let found = results.iter().find(|results| results.scenario.name == name);
        let runs = &found.expect("measured").runs;
        runs.iter()
            .find(|run| run.party == "millrace")
            .expect("a run")
    };
    let fetched = of("herd-100m").origin.expect("counted").body_bytes;
    assert_eq!(fetched, 3 << 20, "one fetch for the whole herd: {told}");
    assert!(of("herd-100m").last_byte_s.is_some());
    assert_eq!(
        of("cold-1g").origin.expect("counted").body_bytes,
        3 << 20,
        "{told}"
    );
}

async fn store(root: &Path, seed: u64, signer: &Signer) -> S3sOrigin {
    std::fs::create_dir_all(root.join("bkt")).expect("a bucket");
    let origin = S3sOrigin::start(s3s::Config {
        root: root.to_path_buf(),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        stats: None,
        access_key: signer.access_key.clone(),
        secret_key: signer.secret_key.clone(),
        domains: Vec::new(),
        tls: None,
    })
    .expect("it starts");
    let target = Target::plain(origin.addr);
    let bodies = Arc::new(Bodies::generated(50_000, seed));
    let put = requests(&target, Method::Put, &bodies, Some(signer));
    let put = run(once(&target, put, Check::Nothing)).await;
    assert_eq!((put.tally.requests, put.tally.errors), (6, 0), "{put:?}");
    origin
}

async fn compare(direct: SocketAddr, proxy: SocketAddr, signer: &Signer) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf"));
    command.arg("compare");
    command.args([
        "--direct",
        &format!("http://{direct}"),
        "--proxy",
        &format!("http://{proxy}"),
    ]);
    command.args(["--bucket", "bkt", "--rounds", "2", "--connections", "2"]);
    command.args([
        "--access-key",
        &signer.access_key,
        "--secret-key",
        &signer.secret_key,
    ]);
    for key in 0..KEYS {
        command.args(["--key", &format!("k{key}")]);
    }
    let ran = tokio::task::spawn_blocking(move || command.output());
    ran.await.expect("no panic").expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_signs_and_wants_the_same_bytes() {
    let signer = Signer::s3("key", "secret", "us-east-1");
    let root = tempfile::tempdir().expect("a folder");
    let one = store(&root.path().join("1"), 1, &signer).await;
    let other = store(&root.path().join("2"), 2, &signer).await;
    let same = compare(one.addr, one.addr, &signer).await;
    let text = told(&same);
    assert!(same.status.success(), "{text}");
    assert!(
        text.contains("6 objects") && text.contains("the same bytes"),
        "{text}"
    );
    assert!(text.contains("here"), "{text}");
    let different = compare(one.addr, other.addr, &signer).await;
    assert!(!different.status.success());
    assert!(
        told(&different).contains("different bytes through the proxy: k0, k1"),
        "{}",
        told(&different)
    );
    let wrong = Signer::s3("key", "another", "us-east-1");
    let refused = compare(one.addr, one.addr, &wrong).await;
    assert!(
        !refused.status.success() && told(&refused).contains("403"),
        "{}",
        told(&refused)
    );
}

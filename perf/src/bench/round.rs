//! One run of one party: the state is checked, the clock runs, the counters are read.
//!
//! Called by the session and for an endpoint. Invariants: before a warm run some bodies are read whole and compared,
//! and the origin must not have been asked for them; after a cold run, and one from disk, the object is read again whole; both outside the
//! measured time. Nor may the origin be asked during a run from disk. Left to others: order, repetition.

use std::sync::Arc;

use super::BenchError;
use crate::cpu::Watch;
use crate::load::requests::{Bodies, Method, Recipe, Requests};
use crate::load::target::Target;
use crate::load::{self, Check, Edge, Job, Outcome, Stop};
use crate::peers::origin::{self, Origin};
use crate::results::{Origin as Counted, Run};
use crate::scenario::{Scenario, State};
use crate::sign::Signer;

const FILL_CONNECTIONS: u32 = 8;
/// What is read whole before each warm run, at most (but one object at least).
const CHECK_BYTES_MAX: u64 = 32 << 20;
const CHECK_KEYS_MAX: u32 = 256;
const SETTLES_MAX: u32 = 20;

/// How a party is asked.
#[derive(Debug)]
pub(super) struct Asker<'a> {
    pub party: &'a str,
    pub scenario: &'a Scenario,
    pub target: Target,
    pub bucket: &'a str,
    pub signer: Option<&'a Signer>,
    pub bodies: Arc<Bodies>,
    pub cores: Vec<u32>,
}

impl Asker<'_> {
    pub fn requests(
        &self,
        method: Method,
        range: Option<u64>,
        fresh: Option<&str>,
    ) -> Arc<Requests> {
        let keys = 0..self.scenario.objects.count;
        let paths: Vec<String> = keys
            .map(|key| origin::path(self.bucket, key, fresh))
            .collect();
        let recipe = Recipe {
            method,
            host: &self.target.host,
            paths: &paths,
            range_bytes: range,
            signer: self.signer,
        };
        Arc::new(Requests::build(recipe, Arc::clone(&self.bodies)))
    }

    /// Asks for keys from the first on, each once, and compares every byte (or uploads each).
    pub fn each_once(&self, requests: Arc<Requests>, count: u32) -> Result<Outcome, BenchError> {
        let first = Stop::Count {
            requests: u64::from(count),
        };
        let job = Job {
            stop: first,
            ..Job::each_once(
                self.target.clone(),
                requests,
                FILL_CONNECTIONS.min(count),
                &self.cores,
            )
        };
        self.load(&job, &mut |_| ())
    }

    /// Reads every object whole and compares it.
    pub fn read_all(&self, fresh: Option<&str>) -> Result<Outcome, BenchError> {
        let requests = self.requests(Method::Get, None, fresh);
        self.each_once(requests, self.scenario.objects.count)
    }

    /// Reads as many objects as make sense before each run.
    fn read_some(&self) -> Result<Outcome, BenchError> {
        let fit = CHECK_BYTES_MAX / self.scenario.objects.size.0;
        let count = self
            .scenario
            .objects
            .count
            .min(CHECK_KEYS_MAX)
            .min(fit.max(1) as u32);
        self.each_once(self.requests(Method::Get, None, None), count)
    }

    fn load(&self, job: &Job, watch: &mut dyn FnMut(Edge)) -> Result<Outcome, BenchError> {
        load::run(job, watch).map_err(|error| BenchError::Load {
            party: self.party.to_string(),
            error,
        })
    }
}

/// One run.
#[derive(Debug)]
pub(super) struct Round<'a> {
    pub asker: Asker<'a>,
    /// The key nobody has asked for, of a cold run.
    pub fresh: Option<&'a str>,
    pub server: Vec<u32>,
    pub others: Vec<u32>,
    pub origin: Option<&'a Origin>,
    pub warnings: Vec<String>,
}

impl Round<'_> {
    pub fn run(&mut self) -> Result<Run, BenchError> {
        let scenario = self.asker.scenario;
        let mut checks = Vec::new();
        self.forget_what_came_before();
        if scenario.load.state == State::Warm && scenario.load.method != Method::Put {
            checks.push(self.asker.read_some()?);
        }
        let before = self.counted();
        self.judge_warmth(before);
        let mut watch = Watch::new(self.server.clone(), self.others.clone());
        let mut usage = None;
        let job = self.job();
        let outcome = self.asker.load(&job, &mut |edge| match edge {
            Edge::Start => watch.start(),
            Edge::End => usage = watch.end(),
        })?;
        let counted = self.counted();
        if scenario.load.state == State::Disk {
            self.judge_warmth(counted);
        }
        if scenario.load.state != State::Warm {
            checks.push(self.asker.read_all(self.fresh)?);
        } else if scenario.load.method == Method::Put {
            checks.push(self.asker.read_some()?);
        }
        // What the check brought from the origin belongs to nobody's run.
        self.counted();
        self.tell_errors(&outcome, &checks);
        let mut run = self.summed(&outcome, &checks, counted);
        if let Some(usage) = usage {
            run.server_cpu = (!self.server.is_empty()).then_some(usage.server);
            run.foreign_cores = usage.foreign_cores;
            run.steal = usage.steal;
        }
        Ok(run)
    }

    fn job(&self) -> Job {
        let (scenario, asker) = (self.asker.scenario, &self.asker);
        let range = scenario.load.range.map(|size| size.0);
        Job {
            target: asker.target.clone(),
            requests: asker.requests(scenario.load.method, range, self.fresh),
            picks: scenario.picks(),
            connections: scenario.load.connections,
            pace: scenario.pace(),
            stop: scenario.stop(),
            check: Check::Sample {
                every: scenario.load.verify_every,
            },
            cores: asker.cores.clone(),
            seed: 1,
        }
    }

    /// Requests that others had under way reach the origin's counters late.
    fn forget_what_came_before(&self) {
        for _ in 0..SETTLES_MAX {
            if self.counted().is_none_or(|counted| counted.requests == 0) {
                return;
            }
        }
    }

    fn counted(&self) -> Option<Counted> {
        self.origin.and_then(|origin| origin.counted().ok())
    }

    fn judge_warmth(&mut self, asked: Option<Counted>) {
        let scenario = self.asker.scenario;
        let keeps = !scenario.load.tunnel && scenario.load.method != Method::Put;
        let warm = !scenario.is_cold() && keeps;
        let own_origin = self.asker.party == "direct";
        if let Some(asked) = asked.filter(|asked| asked.requests > 0)
            && warm
            && !own_origin
        {
            let (party, times) = (self.asker.party, asked.requests);
            self.warnings.push(format!(
                "{party} was not warm: it asked the origin {times} times"
            ));
        }
    }

    fn tell_errors(&mut self, outcome: &Outcome, checks: &[Outcome]) {
        let all = [outcome].into_iter().chain(checks);
        let told = all.flat_map(|outcome| outcome.tally.messages.first());
        let party = self.asker.party;
        self.warnings
            .extend(told.map(|message| format!("{party}: {message}")));
    }

    fn summed(&self, outcome: &Outcome, checks: &[Outcome], origin: Option<Counted>) -> Run {
        let tally = &outcome.tally;
        let checked = checks.iter().map(|check| &check.tally);
        let sum =
            |of: fn(&load::tally::Tally) -> u64| of(tally) + checked.clone().map(of).sum::<u64>();
        let herd = self.asker.scenario.load.state == State::Herd;
        Run {
            party: self.asker.party.to_string(),
            round: 0,
            position: 0,
            seconds: outcome.seconds,
            requests: tally.requests,
            bytes: tally.bytes,
            errors: sum(|tally| tally.errors),
            wrong_bytes: sum(|tally| tally.wrong_bytes),
            verified_bodies: sum(|tally| tally.verified_bodies),
            latency: tally.latency.quantiles(),
            first_byte: tally.first_byte.quantiles(),
            last_byte_s: herd.then_some(tally.last_ns as f64 / 1e9),
            histogram: tally.latency.encoded(),
            server_cpu: None,
            client_cpu_s: outcome.cpu_s,
            client_busy: outcome.busy,
            origin,
            foreign_cores: 0.0,
            steal: 0.0,
        }
    }
}

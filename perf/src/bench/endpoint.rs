//! A server that already runs: its objects are uploaded where they are missing, then it is measured like a party.
//!
//! Called by the bench for `--endpoint`. Invariants: an object that is there in the right size is believed to be the
//! one that was uploaded before, and every byte of it is compared all the same; nothing is deleted. Left to others:
//! the server's CPU, unless its process id is given.

use std::sync::Arc;

use super::round::{Asker, Round};
use super::{BenchError, Options, show};
use crate::load::requests::{Bodies, Method, SEED};
use crate::load::target::Target;
use crate::results::{Party, Results};
use crate::scenario::{Scenario, State};
use crate::sign::Signer;

const NAME: &str = "endpoint";

/// Where it is and how it is asked.
#[derive(Debug)]
pub struct Endpoint {
    /// Where.
    pub target: Target,
    /// As it was given.
    pub url: String,
    /// The bucket that may be written to.
    pub bucket: String,
    /// Credentials.
    pub signer: Option<Signer>,
    /// Its process, where it runs on this machine.
    pub pid: Option<u32>,
}

impl Endpoint {
    /// Uploads what is missing and runs all rounds.
    pub(super) fn measure(
        &self,
        scenario: &Scenario,
        options: &Options,
        results: &mut Results,
    ) -> Result<(), BenchError> {
        if scenario.load.state == State::Disk {
            let why = "a server that was not started here cannot be restarted";
            return Err(BenchError::Wrong(why.to_string()));
        }
        results.parties.push(Party {
            name: NAME.to_string(),
            version: String::new(),
            command: self.url.clone(),
            config: String::new(),
        });
        if self.pid.is_none() {
            let told = "without --pid the CPU of a server on this machine counts as others'";
            results.warnings.push(told.to_string());
        }
        let bodies = Arc::new(Bodies::generated(scenario.objects.size.0, SEED));
        let asker = || Asker {
            party: NAME,
            scenario,
            target: self.target.clone(),
            bucket: &self.bucket,
            signer: self.signer.as_ref(),
            bodies: Arc::clone(&bodies),
            cores: results.machine.client_cores.clone(),
        };
        if scenario.load.state == State::Warm {
            self.upload(&asker(), None)?;
            for _ in 0..2 {
                asker().read_all(None)?;
            }
        }
        let mut runs = Vec::new();
        let mut warnings = Vec::new();
        for round in 1..=options.rounds {
            let fresh = format!("{}.{round}", results.started.replace(':', "-"));
            let fresh = (scenario.load.state != State::Warm).then_some(fresh.as_str());
            if fresh.is_some() {
                self.upload(&asker(), fresh)?;
            }
            let mut one = Round {
                asker: asker(),
                fresh,
                server: self.pid.into_iter().collect(),
                others: Vec::new(),
                origin: None,
                warnings: Vec::new(),
            };
            let mut run = one.run()?;
            run.round = round;
            println!("  {}", show::line(&run));
            warnings.append(&mut one.warnings);
            runs.push(run);
        }
        results.runs = runs;
        results.warnings.extend(warnings);
        Ok(())
    }

    fn upload(&self, asker: &Asker<'_>, fresh: Option<&str>) -> Result<(), BenchError> {
        let count = asker.scenario.objects.count;
        let there = asker.each_once(asker.requests(Method::Head, None, fresh), count)?;
        if there.tally.errors == 0 {
            return Ok(());
        }
        let put = asker.each_once(asker.requests(Method::Put, None, fresh), count)?;
        match put.tally.messages.first() {
            None => Ok(()),
            Some(message) => Err(BenchError::Wrong(format!(
                "uploading to {}: {message}",
                self.url
            ))),
        }
    }
}

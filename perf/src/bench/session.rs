//! One scenario: objects, origin and parties are made, the rounds are run, everything is taken away.
//!
//! Called by the bench for each scenario. Invariants: all parties are up during all rounds, and the one that is not
//! measured rests; a peer that cannot take part is left out with a warning, millrace never is; dropped at any point,
//! the session ends its processes and removes its folder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::round::{Asker, Round};
use super::{BenchError, Options, file, show};
use crate::load::requests::{Bodies, SEED};
use crate::load::target::Target;
use crate::machine::{self, CONGESTION};
use crate::peers::origin::{self, Origin};
use crate::peers::{self, Peer, PeerError, Setup, fio, process};
use crate::results::{Results, Run};
use crate::scenario::{Scenario, State};

/// More CPU of others than this, and a run is repeated.
const FOREIGN_MAX: f64 = 0.15;
const TRIES: u32 = 3;
const BUSY_MAX: f64 = 0.9;
/// A virtual disk gives more for a moment after it has rested: every run from disk begins with the same.
const DISK_RESTS: Duration = Duration::from_secs(3);

/// A scenario under way.
#[derive(Debug)]
pub(super) struct Session<'a> {
    scenario: &'a Scenario,
    rounds: u32,
    /// Dropped before the origin, and both before the folder.
    peers: Vec<Peer>,
    origin: Origin,
    bodies: Arc<Bodies>,
    congestion: BTreeSet<String>,
    _folder: TempDir,
}

impl<'a> Session<'a> {
    /// Makes the objects and starts everybody.
    pub fn start(
        scenario: &'a Scenario,
        options: &Options,
        results: &mut Results,
    ) -> Result<Session<'a>, BenchError> {
        let folder = tempfile::Builder::new()
            .prefix("perf-bench-")
            .tempdir_in(&options.scratch)
            .map_err(file(&options.scratch))?;
        process::remember_folder(folder.path());
        let bodies = Arc::new(Bodies::generated(scenario.objects.size.0, SEED));
        let client_cores = results.machine.client_cores.clone();
        let origin = Origin::start(origin::Recipe {
            kind: options.origin,
            dir: folder.path(),
            scenario,
            bodies: &bodies,
            cores: &client_cores,
        })?;
        let cores = results.machine.server_cores.clone();
        let setup = Setup {
            dir: folder.path(),
            origin: &origin,
            scenario,
            cores: &cores,
            millrace: &options.millrace,
        };
        let mut parties = Vec::new();
        for variant in &scenario.millrace {
            parties.push(peers::start_millrace(variant, &setup)?);
        }
        for name in options.against.as_ref().unwrap_or(&scenario.against) {
            match peers::start(name, &setup) {
                Ok(peer) => parties.push(peer),
                Err(error) if error.is_skip() || !matches!(error, PeerError::Unknown(_)) => {
                    warn(results, format!("{name} was left out: {error}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if cores == client_cores {
            warn(results, "server and client share their cores".to_string());
        }
        results.parties = parties.iter().map(|peer| peer.party.clone()).collect();
        Ok(Session {
            scenario,
            rounds: options.rounds,
            peers: parties,
            origin,
            bodies,
            congestion: BTreeSet::new(),
            _folder: folder,
        })
    }

    /// Runs all rounds.
    pub fn measure(mut self, results: &mut Results) -> Result<(), BenchError> {
        if !self.scenario.is_cold() && !self.scenario.load.tunnel {
            for at in 0..self.peers.len() {
                self.warm(at, results)?;
            }
        }
        for round in 1..=self.rounds {
            let mut order: Vec<usize> = (0..self.peers.len()).collect();
            if round % 2 == 0 {
                order.reverse();
            }
            for (position, at) in order.into_iter().enumerate() {
                if let Some(run) = self.run(at, round, position as u32, results)? {
                    println!("  {}", show::line(&run));
                    results.runs.push(run);
                }
            }
        }
        let in_force: Vec<String> = self.congestion.iter().cloned().collect();
        results.machine.congestion = in_force.join(", ");
        if self.congestion.iter().any(|name| name != CONGESTION) {
            let text = format!(
                "connections used {}, not {CONGESTION}",
                results.machine.congestion
            );
            warn(results, text);
        }
        Ok(())
    }

    fn asker(&self, at: usize, results: &Results) -> Result<Asker<'_>, BenchError> {
        let peer = &self.peers[at];
        let is_ours = at < self.scenario.millrace.len();
        let target = match (peer.addr, &self.origin.ca) {
            (Some(addr), _) if is_ours && self.scenario.load.tunnel => {
                Target::through(addr, self.origin.addr)
            }
            (Some(addr), _) => Target::plain(addr),
            (None, None) => Target::plain(self.origin.addr),
            (None, Some(ca)) => Target::parse(&format!("https://{}", self.origin.addr), Some(ca))?,
        };
        Ok(Asker {
            party: &peer.party.name,
            scenario: self.scenario,
            target,
            bucket: origin::BUCKET,
            signer: None,
            bodies: Arc::clone(&self.bodies),
            cores: results.machine.client_cores.clone(),
        })
    }

    /// Fills a cache with everything, every byte compared, until the origin is not asked any more.
    fn warm(&mut self, at: usize, results: &mut Results) -> Result<(), BenchError> {
        if self.peers[at].reads.is_some() {
            return Ok(());
        }
        for pass in 0..3 {
            if pass > 0 && self.scenario.load.state == State::Disk {
                self.peers[at].restart_on_disk()?;
            }
            // A party is asked for something, to see that it serves, and passes it on.
            self.origin.counted()?;
            let asker = self.asker(at, results)?;
            let name = &self.peers[at].party.name;
            let outcome = match asker.read_all(None) {
                Ok(outcome) => outcome,
                Err(error) => {
                    warn(results, format!("{name} while it was filled: {error}"));
                    return Ok(());
                }
            };
            if let Some(message) = outcome.tally.messages.first() {
                warn(results, format!("{name} while it was filled: {message}"));
            }
            let asked = self.origin.counted()?;
            if self.peers[at].addr.is_none() || (pass > 0 && asked.requests == 0) {
                return Ok(());
            }
        }
        let name = &self.peers[at].party.name;
        warn(
            results,
            format!("{name} still asks the origin after everything was read three times"),
        );
        Ok(())
    }

    /// One run, repeated while others disturb it; `None` where a peer fails.
    fn run(
        &mut self,
        at: usize,
        round: u32,
        position: u32,
        results: &mut Results,
    ) -> Result<Option<Run>, BenchError> {
        let mut best: Option<Run> = None;
        for attempt in 0..TRIES {
            let run = match self.attempt(at, round, attempt, results) {
                Ok(run) => run,
                Err(error) if at >= self.scenario.millrace.len() => {
                    warn(results, format!("round {round}: {error}"));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            };
            let quiet = run.foreign_cores <= FOREIGN_MAX;
            if best
                .as_ref()
                .is_none_or(|best| run.foreign_cores < best.foreign_cores)
            {
                best = Some(run);
            }
            if quiet {
                break;
            }
        }
        let mut run = best.expect("there was at least one attempt");
        run.round = round;
        run.position = position;
        let name = &run.party;
        if run.foreign_cores > FOREIGN_MAX {
            let text = format!(
                "{name}, round {round}: others used {:.2} cores",
                run.foreign_cores
            );
            warn(results, text);
        }
        if run.client_busy >= BUSY_MAX {
            let share = run.client_busy * 100.0;
            warn(
                results,
                format!("{name}, round {round}: the client is the bottleneck ({share:.0} % busy)"),
            );
        }
        Ok(Some(run))
    }

    fn attempt(
        &mut self,
        at: usize,
        round: u32,
        attempt: u32,
        results: &mut Results,
    ) -> Result<Run, BenchError> {
        if self.scenario.load.state == State::Disk {
            self.peers[at].restart_on_disk()?;
            std::thread::sleep(DISK_RESTS);
        }
        let peer = &self.peers[at];
        if let Some(file) = &peer.reads {
            return Ok(fio::run(file, &results.machine.server_cores)?);
        }
        let direct = peer.addr.is_none();
        let own = self.origin.process.id();
        let (server, others) = match &peer.process {
            Some(process) => (vec![process.id()], vec![own]),
            None => (vec![own], Vec::new()),
        };
        let others: Vec<u32> = others
            .into_iter()
            .chain(
                self.peers
                    .iter()
                    .filter_map(|other| Some(other.process.as_ref()?.id())),
            )
            .filter(|pid| !server.contains(pid))
            .collect();
        let machine = &results.machine;
        let pin = |cores: &[u32]| {
            let origin = &self.origin.process;
            origin.pin(cores).map_err(file(origin.log()))
        };
        if direct {
            pin(&machine.server_cores)?;
        }
        let asker = self.asker(at, results)?;
        let fresh = format!("{}.{round}.{attempt}", peer.party.name);
        let fresh = self.scenario.is_cold().then_some(fresh);
        if let Some(fresh) = &fresh {
            self.origin.make_fresh(fresh, &self.bodies)?;
        }
        let mut round = Round {
            asker,
            fresh: fresh.as_deref(),
            server,
            others,
            origin: Some(&self.origin),
            warnings: Vec::new(),
        };
        let run = round.run();
        let congestion = machine::congestion_in_force();
        let warnings = std::mem::take(&mut round.warnings);
        if direct {
            pin(&machine.client_cores)?;
        }
        self.congestion.extend(congestion);
        for warning in warnings {
            warn(results, warning);
        }
        run
    }
}

/// Says it now and keeps it, once.
fn warn(results: &mut Results, text: String) {
    if !results.warnings.contains(&text) {
        println!("  warning: {text}");
        results.warnings.push(text);
    }
}

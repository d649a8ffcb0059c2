//! `perf bench`: measures millrace and its peers under a scenario, in interleaved rounds, and keeps what it saw.
//!
//! Called by `main`. Invariants: every party runs on the same cores, against the same origin, under the same
//! congestion control, in an order that is swapped each round; a run disturbed by other processes is repeated; wrong
//! bytes make the whole bench fail. Reading order: `session` (one scenario), `round` (one run), `endpoint` (a server
//! that already runs), `show`.

mod endpoint;
mod round;
mod session;
mod show;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::endpoint::Endpoint;
use self::session::Session;
use crate::load::LoadError;
use crate::load::target::TargetError;
use crate::machine;
use crate::peers::{PeerError, origin, process};
use crate::report;
use crate::results::{Results, ResultsError, SCHEMA, ScenarioInfo};
use crate::scenario::{Scenario, ScenarioError};

/// What to do.
#[derive(Debug)]
pub struct Options {
    /// Names or paths.
    pub scenarios: Vec<String>,
    /// Peers; the scenario's own list if `None`.
    pub against: Option<Vec<String>>,
    /// Interleaved rounds.
    pub rounds: u32,
    /// A server that already runs, instead of starting parties.
    pub endpoint: Option<Endpoint>,
    /// The millrace binary.
    pub millrace: PathBuf,
    /// The folder for results.
    pub out: PathBuf,
    /// Where objects and disk caches are kept meanwhile.
    pub scratch: PathBuf,
    /// Which origin serves the objects.
    pub origin: origin::Kind,
    /// Small sizes and short times.
    pub quick: bool,
}

/// Why a bench came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A party that must be there is not.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The endpoint cannot be used.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The load failed.
    #[error("{party}: {error}")]
    Load {
        /// Who was asked.
        party: String,
        /// Why it failed.
        error: LoadError,
    },
    /// Files.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The results could not be kept.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// Bytes were wrong, or answers missing.
    #[error("{0}")]
    Wrong(String),
}

fn file(path: &Path) -> impl Fn(io::Error) -> BenchError + '_ {
    move |error| BenchError::File {
        path: path.to_path_buf(),
        error,
    }
}

/// Measures all scenarios and prints what came out. Call it before there are other threads.
pub fn run(options: &Options) -> Result<(), BenchError> {
    let scenarios = options.scenarios.iter().map(|name| Scenario::find(name));
    let scenarios: Vec<Scenario> = scenarios.collect::<Result<_, _>>()?;
    let mut warnings = Vec::new();
    if options.endpoint.is_none()
        && let Err(error) = machine::enter_own_network()
    {
        warnings.push(format!("congestion control is not forced: {error}"));
    }
    end_children_when_told();
    let mut wrong = Vec::new();
    for scenario in scenarios {
        let scenario = if options.quick {
            scenario.quick()
        } else {
            scenario
        };
        let mut results = blank(&scenario, &warnings);
        println!("{}: {}", scenario.name, scenario.title);
        match &options.endpoint {
            Some(endpoint) => endpoint.measure(&scenario, options, &mut results)?,
            None => Session::start(&scenario, options, &mut results)?.measure(&mut results)?,
        }
        let path = results.write_new(&options.out)?;
        println!("\n{}", report::summary(&results).trim_end());
        println!("kept in {}\n", path.display());
        wrong.extend(show::wrongs(&results));
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(BenchError::Wrong(wrong.join("; "))),
    }
}

/// Ctrl-C and SIGTERM end what was started, then us.
fn end_children_when_told() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        let told = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                ended = tokio::signal::ctrl_c() => ended,
                _ = terminate.recv() => Ok(()),
            }
        });
        if told.is_ok() {
            process::clean_up();
            std::process::exit(130);
        }
    });
}

fn blank(scenario: &Scenario, warnings: &[String]) -> Results {
    let now = OffsetDateTime::now_utc().truncate_to_second();
    let (server, client) = machine::split(&machine::cores(), scenario.server_cores());
    Results {
        schema: SCHEMA,
        started: now.format(&Rfc3339).expect("UTC has RFC 3339"),
        commit: commit(),
        machine: machine::describe(&server, &client),
        scenario: ScenarioInfo {
            name: scenario.name.clone(),
            title: scenario.title.clone(),
            toml: scenario.toml.clone(),
        },
        parties: Vec::new(),
        runs: Vec::new(),
        warnings: warnings.to_vec(),
    }
}

/// The commit of the tree this was built from, marked where the tree has changes; empty without git.
fn commit() -> String {
    let output = Command::new("git")
        .args([
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_string()
        }
        _ => String::new(),
    }
}

//! What a benchmark measured, as it is kept: one JSON document per invocation, append-only.
//!
//! Written by `perf bench`, read by the report. Invariants: only what was measured is stored; rates, costs per byte and
//! per request, medians and ratios are computed from the runs by whoever shows them. A file that is there is never
//! written again. Left to others: measuring, showing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The schema of this version.
pub const SCHEMA: u32 = 1;

/// Why results could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The file system refused; a file that exists already is such a case.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The file does not hold results.
    #[error("{path}: {error}", path = .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        error: serde_json::Error,
    },
    /// The file was written by another version.
    #[error("{path}: schema {schema}, this version reads {SCHEMA}", path = .path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// What it says.
        schema: u32,
    },
}

/// One invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it began, UTC, RFC 3339.
    pub started: String,
    /// The commit of the tree, or empty.
    pub commit: String,
    /// Where it was measured.
    pub machine: Machine,
    /// What was asked.
    pub scenario: ScenarioInfo,
    /// Who was asked.
    pub parties: Vec<Party>,
    /// In the order in which they were measured.
    pub runs: Vec<Run>,
    /// What the reader should know before believing a number.
    pub warnings: Vec<String>,
}

impl Results {
    /// Reads one document.
    pub fn read(path: &Path) -> Result<Results, ResultsError> {
        let path = || path.to_path_buf();
        let bytes = fs::read(path()).map_err(|error| ResultsError::File {
            path: path(),
            error,
        })?;
        let results: Results =
            serde_json::from_slice(&bytes).map_err(|error| ResultsError::Malformed {
                path: path(),
                error,
            })?;
        match results.schema {
            SCHEMA => Ok(results),
            schema => Err(ResultsError::Schema {
                path: path(),
                schema,
            }),
        }
    }

    /// Reads all documents (`*.json`) of a folder with their file names, by name, which is by time; a folder that is
    /// not there holds none.
    pub fn read_all(dir: &Path) -> Result<Vec<(String, Results)>, ResultsError> {
        let failed = |error| ResultsError::File {
            path: dir.to_path_buf(),
            error,
        };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy().into_owned();
            if name.ends_with(".json") {
                names.push(name);
            }
        }
        names.sort();
        let read = |name: String| Ok((name.clone(), Results::read(&dir.join(name))?));
        names.into_iter().map(read).collect()
    }

    /// Keeps the document as `<UTC date-time>-<scenario>.json` in a folder, which is made where it is not there. A file of
    /// that name is an error and stays as it is.
    pub fn write_new(&self, dir: &Path) -> Result<PathBuf, ResultsError> {
        let path = dir.join(self.file_name());
        let failed = |error| ResultsError::File {
            path: path.clone(),
            error,
        };
        let mut text = serde_json::to_string_pretty(self).expect("plain data has a JSON form");
        text.push('\n');
        fs::create_dir_all(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(path)
    }

    /// Sorts by time: `20260102T030405Z-hit-4k-64.json`.
    fn file_name(&self) -> String {
        let second = self.started.split(['.', 'Z']).next().unwrap_or_default();
        let stamp: String = second.chars().filter(|c| !"-:".contains(*c)).collect();
        let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        format!("{stamp}Z-{}.json", self.scenario.name)
            .chars()
            .map(|c| if kept(c) { c } else { '-' })
            .collect()
    }
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// TCP congestion control that the sockets said was in force.
    pub congestion: String,
    /// Cores of the servers.
    pub server_cores: Vec<u32>,
    /// Cores of the client and of the origin.
    pub client_cores: Vec<u32>,
}

/// The scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioInfo {
    /// Its name.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The text of its file.
    pub toml: String,
}

/// One server that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Party {
    /// Its name.
    pub name: String,
    /// Its version, in its own words.
    pub version: String,
    /// The command line.
    pub command: String,
    /// Its generated configuration.
    pub config: String,
}

/// One run of one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Name of the party.
    pub party: String,
    /// From 1.
    pub round: u32,
    /// Place within the round, from 0.
    pub position: u32,
    /// Length of the measured time, seconds.
    pub seconds: f64,
    /// Right answers within the measured time.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
    /// Requests without a right answer.
    pub errors: u64,
    /// Body bytes that were wrong or missing, of those that were compared.
    pub wrong_bytes: u64,
    /// Bodies that were compared byte by byte.
    pub verified_bodies: u64,
    /// From when a request was due to its last byte, microseconds.
    pub latency: Quantiles,
    /// From when a request was due to the first byte of its answer, microseconds.
    pub first_byte: Quantiles,
    /// Herd: when the last client ended, seconds from the start.
    pub last_byte_s: Option<f64>,
    /// The latencies in µs as HDR V2, deflated, base64.
    pub histogram: String,
    /// CPU of the server, all its processes and threads; none where it is not on this machine.
    pub server_cpu: Option<Cpu>,
    /// CPU of the client, seconds.
    pub client_cpu_s: f64,
    /// How busy the client was, 0 to 1 of its cores.
    pub client_busy: f64,
    /// What reached the origin, where it is ours.
    pub origin: Option<Origin>,
    /// CPU that other processes used while measured, in cores.
    pub foreign_cores: f64,
    /// Stolen by the hypervisor, in cores.
    pub steal: f64,
}

/// Latencies, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Median.
    pub p50_us: u64,
    /// 90 %.
    pub p90_us: u64,
    /// 99 %.
    pub p99_us: u64,
    /// 99.9 %.
    pub p999_us: u64,
    /// Longest.
    pub max_us: u64,
    /// Mean.
    pub mean_us: f64,
}

/// CPU seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// In user mode.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
}

/// What an origin served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Requests.
    pub requests: u64,
    /// Body bytes of answers and uploads.
    pub body_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Results {
        Results {
            schema: SCHEMA,
            started: "2026-01-02T03:04:05.678Z".to_string(),
            commit: String::new(),
            machine: Machine {
                cpu: String::new(),
                cores: 2,
                kernel: String::new(),
                memory_bytes: 1 << 30,
                congestion: "cubic".to_string(),
                server_cores: vec![0],
                client_cores: vec![1],
            },
            scenario: ScenarioInfo {
                name: "a b/c".to_string(),
                title: String::new(),
                toml: String::new(),
            },
            parties: Vec::new(),
            runs: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_kept_document_reads_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = document().write_new(dir.path()).expect("new");
        assert!(path.ends_with("20260102T030405Z-a-b-c.json"), "{path:?}");
        assert_eq!(Results::read(&path).expect("reads"), document());
        let before = fs::read(&path).expect("there");
        assert!(matches!(
            document().write_new(dir.path()),
            Err(ResultsError::File { .. })
        ));
        assert_eq!(fs::read(&path).expect("still there"), before);
        assert_eq!(Results::read_all(dir.path()).expect("all").len(), 1);
    }

    #[test]
    fn no_folder_is_no_results_and_another_schema_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let none = Results::read_all(&dir.path().join("none"));
        assert!(none.expect("empty").is_empty());
        let other = Results {
            schema: SCHEMA + 1,
            ..document()
        };
        let path = other.write_new(dir.path()).expect("new");
        assert!(matches!(
            Results::read(&path),
            Err(ResultsError::Schema { .. })
        ));
    }
}

//! What a benchmark measured, as it is kept: one JSON document per invocation, append-only.
//!
//! Written by `perf bench`, read by the report. Invariant: only what was measured is stored; rates, costs per byte and
//! per request, medians and ratios are computed from the runs by whoever shows them. Left to others: both of that.

use serde::{Deserialize, Serialize};

/// The schema of this version.
pub const SCHEMA: u32 = 1;

/// One invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it began, RFC 3339.
    pub started: String,
    /// The commit of the tree, or empty.
    pub commit: String,
    /// Where.
    pub machine: Machine,
    /// What.
    pub scenario: ScenarioInfo,
    /// Who.
    pub parties: Vec<Party>,
    /// In the order in which they were measured.
    pub runs: Vec<Run>,
    /// What the reader should know before believing a number.
    pub warnings: Vec<String>,
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
    /// Memory.
    pub memory_bytes: u64,
    /// TCP congestion control that was in force.
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
    /// Its name.
    pub party: String,
    /// From 1.
    pub round: u32,
    /// Place within the round, from 0.
    pub position: u32,
    /// Measured seconds.
    pub seconds: f64,
    /// Right answers.
    pub requests: u64,
    /// Body bytes.
    pub bytes: u64,
    /// Requests without a right answer.
    pub errors: u64,
    /// Bytes that were wrong or missing.
    pub wrong_bytes: u64,
    /// Bodies that were compared.
    pub verified_bodies: u64,
    /// To the last byte.
    pub latency: Quantiles,
    /// To the first byte.
    pub first_byte: Quantiles,
    /// Herd: when the last client ended, seconds.
    pub last_byte_s: Option<f64>,
    /// Latencies in µs, HDR V2 deflated, base64.
    pub histogram: String,
    /// CPU of the server, all its processes and threads.
    pub server_cpu: Option<Cpu>,
    /// CPU seconds of the client.
    pub client_cpu_s: f64,
    /// How busy the client was, 0 to 1 of its cores.
    pub client_busy: f64,
    /// What reached the origin.
    pub origin: Option<Origin>,
    /// CPU that others used while measured, in cores.
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

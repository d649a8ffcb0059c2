//! Small made-up results for the tests of the report; never kept as results.

use crate::results::{Cpu, Machine, Origin, Party, Quantiles, Results, Run, SCHEMA, ScenarioInfo};

/// Two seconds of 4 KiB answers at this rate, with 1 ms of server CPU in all whatever the rate.
pub(crate) fn run(party: &str, round: u32, rate: f64) -> Run {
    let requests = (rate * 2.0) as u64;
    let latency = Quantiles {
        p50_us: 100,
        p90_us: 200,
        p99_us: 300,
        p999_us: 400,
        max_us: 500,
        mean_us: 120.0,
    };
    Run {
        party: party.to_string(),
        round,
        position: 0,
        seconds: 2.0,
        requests,
        bytes: requests * 4096,
        errors: 0,
        wrong_bytes: 0,
        verified_bodies: requests,
        latency,
        first_byte: latency,
        last_byte_s: None,
        histogram: String::new(),
        server_cpu: Some(Cpu {
            user_s: 0.0004,
            system_s: 0.0006,
        }),
        client_cpu_s: 0.1,
        client_busy: 0.5,
        origin: Some(Origin::default()),
        foreign_cores: 0.0,
        steal: 0.0,
    }
}

/// Results of these runs, each party listed once.
pub(crate) fn results(scenario: &str, runs: Vec<Run>) -> Results {
    let mut parties: Vec<Party> = Vec::new();
    for run in &runs {
        if !parties.iter().any(|party| party.name == run.party) {
            parties.push(Party {
                name: run.party.clone(),
                version: format!("{} 1.0", run.party),
                command: run.party.clone(),
                config: String::new(),
            });
        }
    }
    Results {
        schema: SCHEMA,
        started: "2026-01-02T03:04:05Z".to_string(),
        commit: "0123456789abcdef".to_string(),
        machine: Machine {
            cpu: "made up".to_string(),
            cores: 2,
            kernel: "6.0".to_string(),
            memory_bytes: 8 << 30,
            congestion: "cubic".to_string(),
            server_cores: vec![0],
            client_cores: vec![1],
        },
        scenario: ScenarioInfo {
            name: scenario.to_string(),
            title: format!("made-up {scenario}"),
            toml: String::new(),
        },
        parties,
        runs,
        warnings: Vec::new(),
    }
}

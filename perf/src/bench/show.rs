//! What the bench prints while it measures: a line per run; what makes it fail at the end.
//!
//! Called by the bench. Pure. Left to others: the summary (`report`).

use std::fmt::Write as _;

use crate::results::{Results, Run};

const GIB: f64 = (1_u64 << 30) as f64;

/// One run in one line.
pub(super) fn line(run: &Run) -> String {
    let requests = run.requests.max(1) as f64;
    let mut text = format!(
        "{:<16} {:>9.0} req/s {:>7.3} GiB/s  p50 {:>7} p99 {:>7} first {:>7} µs",
        format!("{} {}", run.round, run.party),
        run.requests as f64 / run.seconds,
        run.bytes as f64 / GIB / run.seconds,
        run.latency.p50_us,
        run.latency.p99_us,
        run.first_byte.p50_us,
    );
    if let Some(cpu) = run.server_cpu {
        let seconds = cpu.user_s + cpu.system_s;
        let _ = write!(text, "  CPU {:>7.2} µs/req", seconds * 1e6 / requests);
        if run.bytes > 0 {
            let _ = write!(text, " {:>6.3} s/GiB", seconds * GIB / run.bytes as f64);
        }
    }
    let _ = write!(
        text,
        "  client {:>3.0} % foreign {:.2}",
        run.client_busy * 100.0,
        run.foreign_cores
    );
    if let Some(last) = run.last_byte_s {
        let _ = write!(text, " last {last:.3} s");
    }
    if let Some(origin) = run.origin.filter(|origin| origin.requests > 0) {
        let _ = write!(
            text,
            " origin {} ({:.3} GiB)",
            origin.requests,
            origin.body_bytes as f64 / GIB
        );
    }
    if run.errors > 0 || run.wrong_bytes > 0 {
        let _ = write!(
            text,
            " ERRORS {} WRONG BYTES {}",
            run.errors, run.wrong_bytes
        );
    }
    text
}

/// What must make the bench fail, in words.
pub(super) fn wrongs(results: &Results) -> Vec<String> {
    let wrong = results.runs.iter().filter(|run| run.wrong_bytes > 0);
    wrong
        .map(|run| {
            format!(
                "{}, round {}: {} wrong bytes",
                run.party, run.round, run.wrong_bytes
            )
        })
        .collect()
}

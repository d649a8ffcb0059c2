//! What the bench prints: a line per run, a table of medians at the end.

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

/// A table of medians.
pub(super) fn summary(results: &Results) -> String {
    let mut text = format!(
        "{:<18} {:>10} {:>8} {:>9} {:>9} {:>10} {:>9}\n",
        "medians", "req/s", "GiB/s", "p50 µs", "p99 µs", "CPU µs/req", "CPU s/GiB"
    );
    for party in &results.parties {
        let runs: Vec<&Run> = results
            .runs
            .iter()
            .filter(|run| run.party == party.name)
            .collect();
        let median = |of: &dyn Fn(&Run) -> f64| median(runs.iter().map(|run| of(run)).collect());
        let cpu = |run: &Run| {
            run.server_cpu
                .map_or(f64::NAN, |cpu| cpu.user_s + cpu.system_s)
        };
        let _ = writeln!(
            text,
            "{:<18} {:>10.0} {:>8.3} {:>9.0} {:>9.0} {:>10.2} {:>9.4}",
            party.name,
            median(&|run| run.requests as f64 / run.seconds),
            median(&|run| run.bytes as f64 / GIB / run.seconds),
            median(&|run| run.latency.p50_us as f64),
            median(&|run| run.latency.p99_us as f64),
            median(&|run| cpu(run) * 1e6 / run.requests.max(1) as f64),
            median(&|run| cpu(run) * GIB / run.bytes.max(1) as f64),
        );
    }
    text.truncate(text.trim_end().len());
    text
}

/// Median; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count => (values[(count - 1) / 2] + values[count / 2]) / 2.0,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(Vec::new()).is_nan());
    }
}

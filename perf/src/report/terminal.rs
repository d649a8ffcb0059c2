//! The summary that the terminal shows after a benchmark: figures, ratios, doubts, bars.
//!
//! Called by `perf bench` and `perf report`. Pure.

use std::fmt::Write as _;

use super::bars::{BARS, Verdict};
use super::derive::{self, Measure};
use super::{figures, markdown};
use crate::results::Results;

/// Some lines of plain text about one document.
pub fn summary(results: &Results) -> String {
    let columns = markdown::columns(results);
    let own = derive::subject(results).unwrap_or_default();
    let mut head = vec![results.scenario.name.clone()];
    head.extend(columns.iter().map(|measure| measure.title().to_string()));
    let mut rows = vec![head];
    for party in &results.parties {
        let spread = |measure: &Measure| derive::spread(results, &party.name, *measure);
        let mut row = vec![party.name.clone()];
        row.extend(
            columns
                .iter()
                .map(|measure| figures::spread(spread(measure))),
        );
        rows.push(row);
    }
    for peer in results.parties.iter().filter(|party| party.name != own) {
        let ratio = |measure: &Measure| match measure {
            Measure::Fetched => String::new(),
            _ => figures::ratio(derive::ratio(results, (own, &peer.name), *measure)),
        };
        let mut row = vec![format!("{own} ÷ {}", peer.name)];
        row.extend(columns.iter().map(ratio));
        rows.push(row);
    }
    let mut text = aligned(&rows);
    for party in &results.parties {
        for (loud, line) in markdown::party_doubts(results, &party.name) {
            let _ = writeln!(
                text,
                "{}{line}",
                if loud { "!!! WRONG: " } else { "note: " }
            );
        }
    }
    for warning in &results.warnings {
        let _ = writeln!(text, "note: {warning}");
    }
    for bar in BARS
        .iter()
        .filter(|bar| bar.scenario == results.scenario.name)
    {
        let word = match bar.judge(&[results]) {
            Verdict::NotMeasured => continue,
            Verdict::Wrong(party) => format!("not judged, {party} answered wrong"),
            Verdict::Judged(judged) => {
                let word = if judged.met { "met" } else { "MISSED" };
                format!("{word} with {}", figures::number(judged.compared.median))
            }
        };
        let _ = writeln!(text, "bar: {}: {word}", markdown::promise(bar));
    }
    text
}

/// Columns of equal width, the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up::{results, run};

    #[test]
    fn a_summary_has_figures_ratios_doubts_and_bars() {
        let mut runs = vec![run("millrace", 1, 100.0), run("nginx", 1, 100.0)];
        runs[0].client_busy = 1.0;
        let text = summary(&results("hit-4k-64", runs));
        assert!(
            text.contains("requests/s") && text.contains("millrace ÷ nginx"),
            "{text}"
        );
        assert!(text.contains("note: millrace: the client was more than 90 % busy"));
        assert!(
            text.contains("bar: requests/s ≥ 1.50 × nginx: MISSED with 1.00"),
            "{text}"
        );
    }

    #[test]
    fn a_single_party_and_no_runs_are_fine() {
        let text = summary(&results("hit-4k-64", vec![run("millrace", 1, 100.0)]));
        assert!(text.contains("100") && !text.contains('÷'));
        assert!(summary(&results("hit-4k-64", Vec::new())).starts_with("hit-4k-64"));
    }
}

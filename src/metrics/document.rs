//! `docs/METRICS.md`, written from the table.
//!
//! Called by the test below, which holds the document fresh, and by whoever prints it. Run it with
//! `MILLRACE_BLESS=1` to write the document anew.

use std::fmt::Write;

use super::histogram;
use super::table::{COUNTERS, Family, GAUGES, HISTOGRAMS, Shape};

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from src/metrics/table.rs: change it there, then `MILLRACE_BLESS=1 cargo test metrics`. -->

`GET /metrics` on the admin address answers with OpenMetrics text. Every value is in base units (seconds, bytes), every
label is one of the values listed here, and nothing that a client or an origin sends ever becomes a label.

What is marked *per shard* has one more label, `shard`: the number of the shard, or `none` for the threads beside the
shards; its counters appear with their first count. Every other series is there from the start, at zero.

`millrace_build_info{version}` is 1 and names the version that runs.
";

/// The whole document.
pub fn markdown() -> String {
    let mut out = String::from(INTRODUCTION);
    section(
        &mut out,
        "Counters",
        "They only grow, from zero at start.",
        COUNTERS,
    );
    section(
        &mut out,
        "Gauges",
        "*Zero at rest* means: when nothing is being served, any other value is a leak.",
        GAUGES,
    );
    let buckets = format!(
        "Upper bounds of the buckets of durations, in seconds: {}. Of sizes, in bytes: {}.",
        bounds(Shape::Seconds),
        bounds(Shape::Bytes)
    );
    section(&mut out, "Histograms", &buckets, HISTOGRAMS);
    out
}

fn section(out: &mut String, title: &str, text: &str, table: &[Family]) {
    line(out, format_args!("\n## {title}\n\n{text}\n"));
    line(
        out,
        format_args!("| Name | Labels | Meaning |\n|---|---|---|"),
    );
    for family in table {
        let labels = family
            .labels
            .iter()
            .map(|(key, values)| format!("`{key}`: {}", values.join(", ")));
        let labels = labels.collect::<Vec<_>>().join("; ");
        let mark = mark(family.shape);
        line(
            out,
            format_args!("| `{}` | {labels} | {}{mark} |", family.name, family.help),
        );
    }
}

fn mark(shape: Shape) -> &'static str {
    match shape {
        Shape::Counter | Shape::Level | Shape::Seconds | Shape::Bytes => "",
        Shape::ShardCounter => " *Per shard.*",
        Shape::Flow => " *Zero at rest.*",
        Shape::ShardFlow => " *Per shard. Zero at rest.*",
    }
}

fn bounds(shape: Shape) -> String {
    let shown = histogram::bounds(shape)
        .iter()
        .map(|bound| histogram::shown(shape, *bound).to_string());
    shown.collect::<Vec<_>>().join(", ")
}

fn line(out: &mut String, text: std::fmt::Arguments) {
    writeln!(out, "{text}").expect("a String takes every byte");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_metrics_md_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            std::fs::write(path, markdown()).expect("docs/ can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == markdown(),
            "docs/METRICS.md is stale: run again with MILLRACE_BLESS=1"
        );
    }

    #[test]
    fn every_row_of_the_table_is_documented() {
        let document = markdown();
        for family in [COUNTERS, GAUGES, HISTOGRAMS].into_iter().flatten() {
            assert_eq!(
                document.matches(&format!("| `{}` |", family.name)).count(),
                1,
                "{}",
                family.name
            );
        }
    }
}

//! The tables of the page: bars, one section per scenario, the history.
//!
//! Called by the page's assembly. Pure. Invariants: wrong answers, a busy client and a disturbed machine are said
//! beside the figures they spoil; nothing here depends on when or where it runs. Left to others: pictures, prose.

use std::fmt::Write as _;

use super::bars::{BARS, Bar, Limit, Verdict};
use super::derive::{self, Doubts, Measure};
use super::{Document, figures, plots};
use crate::results::{Machine, Results};

/// Bodies from this size on are told in bytes, below in requests.
const LARGE_BODY_BYTES: f64 = 65_536.0;

/// The figures worth a column: those that some party shows and that say something about this size of body.
pub fn columns(results: &Results) -> Vec<Measure> {
    let cached = |name: &str| name != "direct";
    let shown = |measure: Measure| {
        let spreads = |wanted: fn(&str) -> bool| {
            let parties = results
                .parties
                .iter()
                .filter(move |party| wanted(&party.name));
            parties.filter_map(move |party| derive::spread(results, &party.name, measure))
        };
        let large = is_large(results);
        match measure {
            Measure::Throughput | Measure::CpuPerGib => large && spreads(|_| true).count() > 0,
            Measure::RequestRate | Measure::CpuPerRequest => {
                !large && spreads(|_| true).count() > 0
            }
            // A small answer comes with its first byte.
            Measure::FirstByte => large && spreads(|_| true).count() > 0,
            Measure::Fetched => spreads(cached).any(|spread| spread.max > 0.0),
            _ => spreads(|_| true).count() > 0,
        }
    };
    Measure::ALL.into_iter().filter(|m| shown(*m)).collect()
}

/// Whether its bodies are so large that bytes count, not requests.
pub fn is_large(results: &Results) -> bool {
    let sum = |of: fn(&crate::results::Run) -> u64| results.runs.iter().map(of).sum::<u64>() as f64;
    sum(|run| run.bytes) >= LARGE_BODY_BYTES * sum(|run| run.requests).max(1.0)
}

/// One scenario in full.
pub fn section(document: &Document, slug: &str) -> String {
    let results = &document.results;
    let scenario = &results.scenario;
    let mut text = format!("### {}\n\n", scenario.name);
    let _ = writeln!(
        text,
        "{}. {}; commit {}; {}. Raw: `{}`.\n",
        figures::cell(&scenario.title),
        date(results),
        commit(results),
        machine(&results.machine),
        document.file
    );
    text.push_str(&doubts(results));
    text.push_str(&party_table(results));
    text.push('\n');
    text.push_str(&ratio_table(results));
    for (kind, alt) in plots::kinds(results) {
        let _ = writeln!(
            text,
            "![{alt} of {}](performance/{slug}-{kind}.svg)\n",
            scenario.name
        );
    }
    text.push_str(&versions(results));
    text
}

/// What spoils the figures, loudest first.
fn doubts(results: &Results) -> String {
    let mut lines = Vec::new();
    for party in &results.parties {
        lines.extend(
            party_doubts(results, &party.name)
                .into_iter()
                .map(|(loud, line)| {
                    let line = figures::cell(&line);
                    if loud {
                        format!("- **WRONG: {line}**")
                    } else {
                        format!("- {line}")
                    }
                }),
        );
    }
    lines.sort_by_key(|line| !line.starts_with("- **"));
    lines.extend(
        results
            .warnings
            .iter()
            .map(|line| format!("- {}", figures::cell(line))),
    );
    match lines.len() {
        0 => String::new(),
        _ => format!("{}\n\n", lines.join("\n")),
    }
}

/// In words what spoils a party's figures; `true` where its answers were wrong.
pub fn party_doubts(results: &Results, party: &str) -> Vec<(bool, String)> {
    let found = Doubts::of(results, party);
    let of = |count: usize| match (count, found.runs) {
        (count, runs) if count == runs => "in every run".to_string(),
        (count, runs) => format!("in {count} of {runs} runs"),
    };
    let mut lines = Vec::new();
    if found.runs == 0 {
        lines.push((false, format!("{party}: no run")));
    }
    if found.errors > 0 {
        lines.push((
            true,
            format!("{party}: {} requests without a right answer", found.errors),
        ));
    }
    if found.wrong_bytes > 0 {
        lines.push((true, format!("{party}: {} wrong bytes", found.wrong_bytes)));
    }
    if found.empty > 0 {
        lines.push((
            true,
            format!("{party}: no answer at all {}", of(found.empty)),
        ));
    }
    if found.disturbed > 0 {
        let share = derive::FOREIGN_CORES_MAX;
        let runs = of(found.disturbed);
        lines.push((
            false,
            format!("{party}: others used more than {share} cores {runs}"),
        ));
    }
    if found.client_bound > 0 {
        let share = derive::CLIENT_BUSY_MAX * 100.0;
        let runs = of(found.client_bound);
        lines.push((
            false,
            format!(
                "{party}: the client was more than {share:.0} % busy {runs}, the server could be faster than shown: compare its CPU"
            ),
        ));
    }
    lines
}

fn party_table(results: &Results) -> String {
    let columns = columns(results);
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|measure| measure.title().to_string()));
    head.push("runs".to_string());
    let rows = results.parties.iter().map(|party| {
        let doubts = Doubts::of(results, &party.name);
        let mark = if doubts.is_wrong() { " (WRONG)" } else { "" };
        let name = figures::cell(&party.name);
        let name = match derive::subject(results) == Some(&party.name) {
            true => format!("**{name}**{mark}"),
            false => format!("{name}{mark}"),
        };
        let figure = |measure: &Measure| derive::spread(results, &party.name, *measure);
        let mut row = vec![name];
        row.extend(
            columns
                .iter()
                .map(|measure| figures::spread(figure(measure))),
        );
        row.push(doubts.runs.to_string());
        row
    });
    figures::table(&head, &rows.collect::<Vec<_>>())
}

/// The subject's figures as multiples of each peer's, paired by round.
fn ratio_table(results: &Results) -> String {
    let Some(own) = derive::subject(results) else {
        return String::new();
    };
    let columns: Vec<Measure> = columns(results)
        .into_iter()
        .filter(|measure| *measure != Measure::Fetched)
        .collect();
    let peers = results.parties.iter().filter(|party| party.name != own);
    let rows: Vec<Vec<String>> = peers
        .map(|peer| {
            let ratio = |measure: &Measure| derive::ratio(results, (own, &peer.name), *measure);
            let mut row = vec![format!("÷ {}", figures::cell(&peer.name))];
            row.extend(columns.iter().map(|measure| figures::ratio(ratio(measure))));
            row
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut head = vec![figures::cell(own)];
    head.extend(columns.iter().map(|measure| {
        let title = measure.title();
        title
            .split_once(", ")
            .map_or(title, |(what, _)| what)
            .to_string()
    }));
    format!("{}\n", figures::table(&head, &rows))
}

fn versions(results: &Results) -> String {
    let parties = results
        .parties
        .iter()
        .filter(|party| !party.version.is_empty());
    let versions: Vec<String> = parties
        .map(|party| {
            format!(
                "{} is {}",
                figures::cell(&party.name),
                figures::cell(&party.version)
            )
        })
        .collect();
    match versions.len() {
        0 => String::new(),
        _ => format!("{}.\n\n", versions.join("; ")),
    }
}

/// The first digits of the commit, and whether the tree had changes beside it.
pub fn commit(results: &Results) -> String {
    let (commit, changed) = match results.commit.strip_suffix("-dirty") {
        Some(commit) => (commit, " with changes"),
        None => (results.commit.as_str(), ""),
    };
    match commit.get(..10).unwrap_or(commit) {
        "" => "unknown".to_string(),
        short => format!("`{short}`{changed}"),
    }
}

/// Day and minute of the start.
fn date(results: &Results) -> String {
    let started = &results.started;
    let minute = started.get(..16).unwrap_or(started);
    format!("{} UTC", minute.replace('T', " "))
}

/// The machine in one line.
pub fn machine(machine: &Machine) -> String {
    let list = |cores: &[u32]| {
        cores
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>()
            .join(",")
    };
    let congestion = match machine.congestion.as_str() {
        "" => "unknown congestion control",
        known => known,
    };
    format!(
        "{}, {} cores, {} GiB, Linux {}, {congestion}, server on core {}, client on core {}",
        figures::cell(&machine.cpu),
        machine.cores,
        machine.memory_bytes.div_ceil(1 << 30),
        machine.kernel,
        list(&machine.server_cores),
        list(&machine.client_cores)
    )
}

/// The table of bars.
pub fn bars(latest_first: &[&Results]) -> String {
    let head = ["scenario", "bar", "", "measured", "millrace", "peer"].map(str::to_string);
    let rows: Vec<Vec<String>> = BARS.iter().map(|bar| bar_row(bar, latest_first)).collect();
    figures::table(&head, &rows)
}

fn bar_row(bar: &Bar, latest_first: &[&Results]) -> Vec<String> {
    let unknown = || vec![figures::NONE.to_string(); 3];
    let (word, cells) = match bar.judge(latest_first) {
        Verdict::NotMeasured => ("not measured".to_string(), unknown()),
        Verdict::Wrong(party) => (format!("**not judged: {party} answered wrong**"), unknown()),
        Verdict::Judged(judged) => {
            let compared = Some(judged.compared);
            let measured = match bar.limit {
                Limit::AtLeast(..) | Limit::AtMost(..) => figures::ratio(compared),
                Limit::AtMostMore(..) | Limit::Within(_) => figures::spread(compared),
            };
            let mut word = if judged.met { "met" } else { "**missed**" }.to_string();
            if judged.client_bound {
                word.push_str(", client busy");
            }
            if judged.disturbed {
                word.push_str(", disturbed");
            }
            let peer = figures::median(judged.peer);
            (
                word,
                vec![measured, figures::median(Some(judged.own)), peer],
            )
        }
    };
    let mut row = vec![bar.scenario.to_string(), promise(bar), word];
    row.extend(cells);
    row
}

/// A bar in words.
pub fn promise(bar: &Bar) -> String {
    let what = bar.measure.title();
    match bar.limit {
        Limit::AtLeast(times, peer) => format!("{what} ≥ {times:.2} × {peer}"),
        Limit::AtMost(times, peer) => format!("{what} ≤ {times:.2} × {peer}"),
        Limit::AtMostMore(more, peer) => format!("{what} ≤ {peer} + {more:.0}"),
        Limit::Within(most) => format!("{what} ≤ {most:.2}"),
    }
}

/// One line per document and party: the two figures that matter most, with commit and date.
pub fn history(documents: &[&Document]) -> String {
    let head = [
        "date",
        "commit",
        "scenario",
        "party",
        "speed",
        "server CPU",
        "runs",
    ];
    let mut rows = Vec::new();
    for document in documents {
        let results = &document.results;
        let (speed, cost) = headline(results);
        for party in &results.parties {
            let figure = |measure: Measure| {
                let spread = derive::spread(results, &party.name, measure);
                let (_, unit) = measure
                    .title()
                    .split_once(", ")
                    .unwrap_or(("", measure.title()));
                spread.map_or(figures::NONE.to_string(), |_| {
                    format!("{} {unit}", figures::spread(spread))
                })
            };
            let doubts = Doubts::of(results, &party.name);
            let wrong = if doubts.is_wrong() { " (WRONG)" } else { "" };
            rows.push(vec![
                date(results),
                commit(results),
                results.scenario.name.clone(),
                format!("{}{wrong}", figures::cell(&party.name)),
                figure(speed),
                figure(cost),
                doubts.runs.to_string(),
            ]);
        }
    }
    figures::table(&head.map(str::to_string), &rows)
}

/// Speed and cost as this scenario's size of body tells them best.
pub fn headline(results: &Results) -> (Measure, Measure) {
    match is_large(results) {
        true => (Measure::Throughput, Measure::CpuPerGib),
        false => (Measure::RequestRate, Measure::CpuPerRequest),
    }
}

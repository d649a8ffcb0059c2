//! The report: `docs/PERFORMANCE.md` and its pictures, written from all results that are kept; a summary for the terminal.
//!
//! Called by `perf report`, by `perf bench` for its last words, and by the test that holds the page fresh. Invariants:
//! the same results give the same bytes; no figure is typed by hand; the latest results of each scenario and set of
//! parties are shown in full, older ones in the history. Left to others: measuring, keeping.

pub mod bars;
pub mod derive;
pub mod figures;
#[cfg(test)]
pub(crate) mod made_up;
pub mod markdown;
pub mod model;
pub mod plots;
mod terminal;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::results::{Results, ResultsError};

pub use terminal::summary;

/// The folder of pictures, beside the page.
pub const PLOTS: &str = "performance";

/// The page's hand-written parts, in which these stand for what is computed.
const PAGE: &str = include_str!("page.md");
const READING: &str = include_str!("reading.md");
const METHOD: &str = include_str!("method.md");
const MODEL: &str = include_str!("model.md");
const TUNING: &str = include_str!("tuning.md");

/// Scenarios come in this order, others after them by name.
const ORDER: &[&str] = &[
    "hit-", "range-", "head-", "open-", "shards-", "cold-", "herd-", "put-",
];

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Results could not be read.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A file could not be read or written.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// Results and the file that keeps them.
#[derive(Debug, Clone)]
pub struct Document {
    /// Name of the file, without its folder.
    pub file: String,
    /// Its content.
    pub results: Results,
}

/// The report as text: the page, and the pictures by file name.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Markdown.
    pub page: String,
    /// SVG by file name.
    pub plots: BTreeMap<String, String>,
}

/// The report of all results in a folder.
pub fn of_folder(dir: &Path) -> Result<Rendered, ReportError> {
    let documents = Results::read_all(dir)?.into_iter();
    let documents: Vec<Document> = documents
        .map(|(file, results)| Document { file, results })
        .collect();
    Ok(render(&documents))
}

/// The report of some results.
pub fn render(documents: &[Document]) -> Rendered {
    let mut latest_first: Vec<&Document> = documents.iter().collect();
    latest_first.sort_by(|a, b| {
        let key = |one: &Document| (one.results.started.clone(), one.file.clone());
        key(b).cmp(&key(a))
    });
    let mut seen = BTreeSet::new();
    let (mut shown, older): (Vec<&Document>, Vec<&Document>) = latest_first
        .iter()
        .partition(|document| seen.insert(identity(document)));
    shown.sort_by_key(|document| (place(document), identity(document)));
    let results: Vec<&Results> = latest_first
        .iter()
        .map(|document| &document.results)
        .collect();

    let mut sections = Vec::new();
    let mut plots = BTreeMap::new();
    for (document, slug) in slugs(&shown) {
        sections.push(markdown::section(document, &slug));
        for (kind, _) in plots::kinds(&document.results) {
            plots.insert(
                format!("{slug}-{kind}.svg"),
                plots::draw(&document.results, kind),
            );
        }
    }
    let none = |text: String, none: &str| {
        if text.is_empty() {
            none.to_string()
        } else {
            text
        }
    };
    let model = MODEL
        .replace("{{source}}", &model::source(&results))
        .replace("{{tables}}", model::tables(&results).trim_end());
    let page = PAGE
        .replace("{{reading}}", READING.trim_end())
        .replace("{{bars}}", markdown::bars(&results).trim_end())
        .replace(
            "{{scenarios}}",
            none(sections.concat(), "Nothing is measured yet.").trim_end(),
        )
        .replace("{{method}}", METHOD.trim_end())
        .replace("{{model}}", model.trim_end())
        .replace("{{tuning}}", TUNING.trim_end())
        .replace("{{history}}", none(history(&older), "None yet.").trim_end());
    Rendered { page, plots }
}

fn history(older: &[&Document]) -> String {
    match older.is_empty() {
        true => String::new(),
        false => markdown::history(older),
    }
}

/// What makes two documents tell of the same thing: the scenario and who took part.
fn identity(document: &Document) -> (String, Vec<String>) {
    let results = &document.results;
    let mut parties: Vec<String> = results
        .parties
        .iter()
        .map(|party| party.name.clone())
        .collect();
    parties.sort();
    (results.scenario.name.clone(), parties)
}

fn place(document: &Document) -> usize {
    let name = &document.results.scenario.name;
    let known = ORDER.iter().position(|start| name.starts_with(start));
    known.unwrap_or(ORDER.len())
}

/// A name for the files of each: the scenario's, and a number from the second set of parties on.
fn slugs<'a>(shown: &[&'a Document]) -> Vec<(&'a Document, String)> {
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    let slug = |document: &&'a Document| {
        let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = document.results.scenario.name.chars().map(kept).collect();
        let count = count.entry(name.clone()).or_default();
        *count += 1;
        match *count {
            1 => (*document, name),
            more => (*document, format!("{name}-{more}")),
        }
    };
    shown.iter().map(slug).collect()
}

impl Rendered {
    /// Writes the page and the pictures, takes away pictures that no results give any more, and tells what changed.
    pub fn write(&self, page: &Path) -> Result<Vec<PathBuf>, ReportError> {
        let changed = self.differences(page)?;
        for path in &changed {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let text = match path == page {
                true => Some(&self.page),
                false => self.plots.get(name.as_ref()),
            };
            let folder = path.parent().unwrap_or(Path::new("."));
            let done = match text {
                Some(text) => fs::create_dir_all(folder).and_then(|()| fs::write(path, text)),
                None => fs::remove_file(path),
            };
            done.map_err(|error| failed(path, error))?;
        }
        Ok(changed)
    }

    /// The files that are not as this report has them: other bytes, missing, or pictures too many.
    pub fn differences(&self, page: &Path) -> Result<Vec<PathBuf>, ReportError> {
        let folder = page.parent().unwrap_or(Path::new(".")).join(PLOTS);
        let mut wanted: BTreeMap<PathBuf, &str> = BTreeMap::new();
        wanted.insert(page.to_path_buf(), &self.page);
        for (name, svg) in &self.plots {
            wanted.insert(folder.join(name), svg);
        }
        let mut different = Vec::new();
        for (path, text) in &wanted {
            match fs::read(path) {
                Ok(there) if there == text.as_bytes() => {}
                Ok(_) => different.push(path.clone()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    different.push(path.clone())
                }
                Err(error) => return Err(failed(path, error)),
            }
        }
        let there = match fs::read_dir(&folder) {
            Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
            Err(_) => Vec::new(),
        };
        let mut extra: Vec<PathBuf> = there
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "svg"))
            .filter(|path| !wanted.contains_key(path))
            .collect();
        extra.sort();
        different.extend(extra);
        Ok(different)
    }
}

fn failed(path: &Path, error: io::Error) -> ReportError {
    ReportError::File {
        path: path.to_path_buf(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use made_up::{results, run};

    fn document(file: &str, started: &str, parties: &[&str]) -> Document {
        let runs = parties.iter().map(|party| run(party, 1, 100.0)).collect();
        let mut results = results("hit-4k-64", runs);
        results.started = started.to_string();
        Document {
            file: file.to_string(),
            results,
        }
    }

    #[test]
    fn the_latest_of_a_scenario_and_its_parties_is_shown_and_the_rest_is_history() {
        let documents = [
            document("old.json", "2026-01-01T00:00:00Z", &["millrace", "nginx"]),
            document("new.json", "2026-01-02T00:00:00Z", &["nginx", "millrace"]),
            document("other.json", "2026-01-01T12:00:00Z", &["millrace"]),
        ];
        let rendered = render(&documents);
        assert!(rendered.page.contains("Raw: `new.json`"));
        assert!(rendered.page.contains("Raw: `other.json`"));
        assert!(!rendered.page.contains("Raw: `old.json`"));
        assert!(rendered.page.contains("| 2026-01-01 00:00 UTC |"));
        assert!(rendered.plots.contains_key("hit-4k-64-speed.svg"));
        assert!(rendered.plots.contains_key("hit-4k-64-2-speed.svg"));
        let mut backwards = documents.to_vec();
        backwards.reverse();
        assert_eq!(render(&backwards), rendered);
    }

    #[test]
    fn no_results_give_a_page_without_gaps() {
        let rendered = render(&[]);
        assert!(rendered.plots.is_empty());
        assert!(!rendered.page.contains("{{"), "{}", rendered.page);
        assert!(rendered.page.contains("not measured"));
    }

    #[test]
    fn wrong_answers_are_loud_and_a_disturbed_machine_is_said() {
        let mut document = document("a.json", "2026-01-01T00:00:00Z", &["millrace", "nginx"]);
        document.results.runs[1].errors = 7;
        document.results.runs[0].foreign_cores = 0.5;
        let page = render(&[document]).page;
        assert!(
            page.contains("**WRONG: nginx: 7 requests without a right answer**"),
            "{page}"
        );
        assert!(page.contains("nginx (WRONG)"));
        assert!(page.contains("millrace: others used more than 0.15 cores in every run"));
        assert!(page.contains("**not judged: nginx answered wrong**"));
    }

    #[test]
    fn writing_leaves_nothing_stale() {
        let dir = tempfile::tempdir().expect("a folder");
        let page = dir.path().join("docs/PERFORMANCE.md");
        let some = render(&[document("a.json", "2026-01-01T00:00:00Z", &["millrace"])]);
        assert_eq!(
            some.write(&page).expect("written").len(),
            1 + some.plots.len()
        );
        assert!(some.differences(&page).expect("read").is_empty());
        let none = render(&[]);
        none.write(&page).expect("written");
        assert!(none.differences(&page).expect("read").is_empty());
        let plots = page.with_file_name(PLOTS);
        assert_eq!(fs::read_dir(plots).expect("there").count(), 0);
    }
}

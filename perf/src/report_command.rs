//! `perf report` as flags.
//!
//! Called by `main`.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use perf::report;

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Folder of the results; perf/results of the source tree if not given
    #[arg(long)]
    results: Option<PathBuf>,
    /// The page to write, with its pictures in `performance/` beside it; docs/PERFORMANCE.md of the source tree if
    /// not given
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Writes the page and names the files that changed.
pub fn report(args: ReportArgs) -> Result<(), Box<dyn Error>> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let results = args.results.unwrap_or_else(|| tree.join("results"));
    let page = args
        .out
        .unwrap_or_else(|| tree.join("../docs/PERFORMANCE.md"));
    let changed = report::of_folder(&results)?.write(&page)?;
    let mut text: String = changed
        .iter()
        .map(|path| format!("{}\n", path.display()))
        .collect();
    if changed.is_empty() {
        text = format!("{} is fresh\n", page.display());
    }
    // A reader that left (`| head`) does not undo what is written.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

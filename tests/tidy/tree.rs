//! Finds the files that `tidy.rs` judges: the Rust sources of the server with the
//! module each belongs to, and every text file of the tree. Leaves judging to its caller.

use std::path::{Path, PathBuf};

/// One Rust file under `src/`.
pub struct Source {
    /// Path from the repository's root, with `/`.
    pub name: String,
    /// The top-level module it belongs to; `lib` and `main` for the two roots.
    pub module: String,
    /// Length of its module path: `src/a/mod.rs` has 1, `src/a/b.rs` has 2.
    pub depth: usize,
    pub text: String,
}

/// One text file anywhere in the tree.
pub struct TextFile {
    pub name: String,
    pub text: String,
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        let skipped = [
            "target",
            ".git",
            ".venv",
            "__pycache__",
            "corpus",
            "artifacts",
            "Cargo.lock",
        ];
        if skipped.iter().any(|skip| name == *skip) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(repository())
        .expect("below the root")
        .to_string_lossy()
        .replace('\\', "/")
}

/// Every file of the tree that is valid UTF-8, sorted by name.
pub fn text_files() -> Vec<TextFile> {
    let mut paths = Vec::new();
    walk(&repository(), &mut paths);
    paths.sort();
    paths
        .iter()
        .filter_map(|path| {
            Some(TextFile {
                name: relative(path),
                text: std::fs::read_to_string(path).ok()?,
            })
        })
        .collect()
}

/// Every Rust file under `src/` that is not wholly a test module.
pub fn sources() -> Vec<Source> {
    text_files()
        .into_iter()
        .filter(|file| file.name.starts_with("src/") && file.name.ends_with(".rs"))
        .filter(|file| !is_test_file(&file.name))
        .map(|file| {
            let path = file.name.trim_start_matches("src/").trim_end_matches(".rs");
            let parts: Vec<&str> = path.split('/').filter(|part| *part != "mod").collect();
            let module = parts[0].to_owned();
            Source {
                module,
                depth: parts.len(),
                name: file.name,
                text: file.text,
            }
        })
        .collect()
}

/// `tests.rs`, `…_tests.rs`, `loom.rs` and files below a `tests/` folder hold tests only.
fn is_test_file(name: &str) -> bool {
    let stem = name
        .rsplit('/')
        .next()
        .unwrap_or(name)
        .trim_end_matches(".rs");
    stem == "tests" || stem.ends_with("_tests") || stem == "loom" || name.contains("/tests/")
}

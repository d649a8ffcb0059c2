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
    let files: Vec<TextFile> = text_files()
        .into_iter()
        .filter(|file| file.name.starts_with("src/") && file.name.ends_with(".rs"))
        .collect();
    let test_modules: Vec<String> = files.iter().flat_map(test_modules).collect();
    let is_test = |name: &str| {
        test_modules
            .iter()
            .any(|module| name == format!("{module}.rs") || name.starts_with(&format!("{module}/")))
    };
    files
        .into_iter()
        .filter(|file| !is_test(&file.name))
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

/// Paths, without `.rs`, of the modules that `file` declares for tests only.
fn test_modules(file: &TextFile) -> Vec<String> {
    let path = file.name.trim_end_matches(".rs");
    let (folder, stem) = path.rsplit_once('/').unwrap_or(("", path));
    let home = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        _ => path.to_owned(),
    };
    let declared = file.text.split("#[cfg(").skip(1).filter_map(|rest| {
        let (condition, item) = rest.split_once(")]")?;
        let for_tests = ["test", "loom"].iter().any(|word| condition.contains(word));
        let name = item.trim_start().strip_prefix("mod ")?.split_once(';')?.0;
        let is_name = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        (for_tests && is_name && !condition.contains("not(")).then(|| format!("{home}/{name}"))
    });
    declared.collect()
}

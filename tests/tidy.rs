//! Holds the style of the tree against its own text: who may use whom, how long a
//! file may grow, which module may name the kernel, and that every numbered promise
//! of `docs/SEMANTICS.md` has a test of the same number.
//!
//! Run by `cargo test --test tidy`; reads files only, builds nothing. The scanner in
//! `tidy/lexer.rs` blanks comments, strings and test-only items, so a rule is
//! about code and never about prose.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/tree.rs"]
mod tree;

use lexer::{Code, has_word};
use std::collections::{BTreeMap, BTreeSet};
use tree::{Source, repository, sources, text_files};

/// Modules from the top of the house to its ground. A module uses only modules of rows below its own.
const ROWS: &[&[&str]] = &[
    &["main"],
    &["server"],
    &["listener", "admin", "tools"],
    &["request"],
    &["shard"],
    &["fill"],
    &["cache", "upstream"],
    &["disk"],
    &["ram", "access_log"],
    &["s3"],
    &["http"],
    &["tls"],
    &["io"],
    &["config"],
    &["metrics"],
    &["base"],
];

/// What a row would allow but the module's purity forbids: (module, used path, why).
const NEVER: &[(&str, &str, &str)] = &[
    ("http", "io", "the codec sees no I/O"),
    ("s3", "io", "request understanding sees no I/O"),
    ("http", "base::clock", "the codec sees no clock"),
    (
        "s3",
        "base::clock",
        "request understanding sees no clock: `now` is an argument",
    ),
    ("ram", "s3", "RAM knows digests and bytes"),
    ("ram", "http", "RAM knows digests and bytes"),
    ("disk", "s3", "the disk knows digests and bytes"),
    ("disk", "http", "the disk knows digests and bytes"),
];

/// A name that only some places may say in code.
struct Reserved {
    words: &'static [&'static str],
    homes: &'static [&'static str],
    why: &'static str,
}

/// Threads that are not the data plane: they may block, lock and sleep.
const CONTROL: &[&str] = &[
    "src/admin/",
    "src/access_log/",
    "src/disk/keeper",
    "src/upstream/dns",
    "src/server/",
    "src/main.rs",
];

const RESERVED: &[Reserved] = &[
    Reserved {
        words: &["monoio", "io_uring", "libc"],
        homes: &["src/io/"],
        why: "only io/ names the runtime, the ring and libc",
    },
    Reserved {
        words: &[
            "rustls",
            "rustls_native_certs",
            "webpki_roots",
            "rustls_pki_types",
        ],
        homes: &["src/upstream/tls", "src/tls/"],
        why: "only upstream/tls and tls/ name the TLS crate",
    },
    Reserved {
        words: &["unsafe"],
        homes: &["src/io/", "src/ram/", "src/cache/read_map.rs"],
        why: "unsafe lives in io, ram and the one lock-free structure",
    },
    Reserved {
        words: &["Instant::now", "SystemTime::now"],
        homes: &["src/base/clock"],
        why: "time comes from base/clock only, so that a seed replays",
    },
    Reserved {
        words: &["thread::sleep"],
        homes: CONTROL,
        why: "the data plane never sleeps a thread",
    },
    Reserved {
        words: &["Mutex", "RwLock", "Condvar"],
        homes: CONTROL,
        why: "no lock in the data plane",
    },
    Reserved {
        words: &["todo!", "unimplemented!", "dbg!", "#[ignore"],
        homes: &[],
        why: "unfinished work is not committed",
    },
];

const FILE_LINES_WALL: usize = 1000;
const FILE_LINES_WANTED: usize = 400;

fn row_of(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

fn fail_with(title: &str, problems: &[String]) {
    assert!(problems.is_empty(), "{title}:\n  {}", problems.join("\n  "));
}

/// The crate-level paths that a file's code names, without the leading `crate::`.
fn crate_paths(source: &Source, code: &Code) -> Vec<(usize, String)> {
    let mut found = lexer::paths_after(code, "crate");
    if source.module == "main" {
        found.extend(lexer::paths_after(code, "millrace"));
    }
    found
}

#[test]
fn a_module_uses_only_modules_below_it() {
    let mut problems = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue;
        }
        let code = Code::of(&source.text);
        let Some(own_row) = row_of(&source.module) else {
            problems.push(format!(
                "{}: module `{}` has no row",
                source.name, source.module
            ));
            continue;
        };
        for (line, path) in crate_paths(&source, &code) {
            let used = path.split("::").next().unwrap_or_default();
            let Some(row) = row_of(used) else { continue };
            if used != source.module && row <= own_row {
                problems.push(format!(
                    "{}:{line}: {} may not use crate::{path}",
                    source.name, source.module
                ));
            }
            for (module, forbidden, why) in NEVER {
                if *module == source.module
                    && (path == *forbidden || path.starts_with(&format!("{forbidden}::")))
                {
                    problems.push(format!("{}:{line}: crate::{path}: {why}", source.name));
                }
            }
        }
    }
    fail_with("dependency rows", &problems);
}

#[test]
fn no_path_climbs_out_of_its_module_by_super() {
    let mut problems = Vec::new();
    for source in sources() {
        let code = Code::of(&source.text);
        for (line, supers) in code.super_chains() {
            if supers >= source.depth {
                problems.push(format!(
                    "{}:{line}: say crate:: instead of super:: × {supers}",
                    source.name
                ));
            }
        }
    }
    fail_with("a way around the rows", &problems);
}

#[test]
fn every_top_module_has_a_row_and_lib_lists_them_in_reading_order() {
    let lib = std::fs::read_to_string(repository().join("src/lib.rs")).expect("src/lib.rs");
    let listed: Vec<usize> = Code::of(&lib)
        .lines()
        .filter_map(|(_, line)| line.trim().trim_start_matches("pub ").strip_prefix("mod "))
        .map(|rest| rest.trim_end_matches(';').trim().to_owned())
        .map(|module| row_of(&module).unwrap_or_else(|| panic!("module `{module}` has no row")))
        .collect();
    assert!(
        listed.is_sorted(),
        "`mod` lines of lib.rs follow the rows from the top down: {listed:?}"
    );
}

#[test]
fn reserved_names_are_said_only_at_home() {
    let mut problems = Vec::new();
    for source in sources() {
        let code = Code::of(&source.text);
        for reserved in RESERVED {
            if reserved
                .homes
                .iter()
                .any(|home| source.name.starts_with(home))
            {
                continue;
            }
            for (line, text) in code.lines() {
                for word in reserved.words.iter().filter(|word| has_word(text, word)) {
                    problems.push(format!(
                        "{}:{line}: `{word}`: {}",
                        source.name, reserved.why
                    ));
                }
            }
        }
    }
    fail_with("reserved names", &problems);
}

#[test]
fn files_have_a_header_and_stay_under_the_wall() {
    let mut problems = Vec::new();
    for source in text_files()
        .into_iter()
        .filter(|file| file.name.ends_with(".rs"))
    {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_WALL {
            problems.push(format!(
                "{}: {lines} lines, the wall is {FILE_LINES_WALL}",
                source.name
            ));
        } else if lines > FILE_LINES_WANTED {
            println!(
                "{}: {lines} lines, wanted are {FILE_LINES_WANTED} at most",
                source.name
            );
        }
        if !source.text.starts_with("//! ") {
            problems.push(format!("{}: begins without a `//!` header", source.name));
        }
    }
    fail_with("file shape", &problems);
}

#[test]
fn no_unfinished_marks_in_the_tree() {
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    let mut problems = Vec::new();
    for file in text_files() {
        for (number, line) in file.text.lines().enumerate() {
            for mark in marks.iter().filter(|mark| has_word(line, mark)) {
                problems.push(format!("{}:{}: {mark}", file.name, number + 1));
            }
        }
    }
    fail_with("unfinished marks", &problems);
}

#[test]
fn no_machine_paths_and_no_registry_hosts_in_the_tree() {
    let banned: Vec<String> = [
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
        ["index.cra", "tes.io"],
        ["static.cra", "tes.io"],
        ["pypi", ".org"],
        ["python", "hosted.org"],
        ["deb.deb", "ian.org"],
        ["registry.npm", "js.org"],
        ["download.pytor", "ch.org"],
    ]
    .iter()
    .map(|halves| halves.concat())
    .collect();
    let mut problems = Vec::new();
    for file in text_files() {
        for (number, line) in file.text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(word.as_str())) {
                problems.push(format!("{}:{}: names {word}", file.name, number + 1));
            }
        }
    }
    fail_with("names of this machine or of registries", &problems);
}

/// Numbers of the promises: lines that begin `N.` (also as a heading or in bold).
fn promised_numbers() -> BTreeSet<u32> {
    let text =
        std::fs::read_to_string(repository().join("docs/SEMANTICS.md")).expect("docs/SEMANTICS.md");
    text.lines()
        .filter_map(|line| {
            let line = line.trim_start_matches(['#', '*', ' ']);
            let digits = line.bytes().take_while(u8::is_ascii_digit).count();
            let followed = line[digits..].starts_with('.') || line[digits..].starts_with("**");
            line[..digits].parse().ok().filter(|_| followed)
        })
        .collect()
}

/// Numbers of the tests that hold them: functions named `semantics_<n>_…`.
fn tested_numbers() -> BTreeMap<u32, String> {
    let mut tested = BTreeMap::new();
    for file in text_files()
        .into_iter()
        .filter(|file| file.name.ends_with(".rs") || file.name.ends_with(".py"))
    {
        for line in file.text.lines().map(str::trim_start) {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let name = line
                .strip_prefix("fn semantics_")
                .or_else(|| line.strip_prefix("def test_semantics_"));
            let Some(number) = name
                .and_then(|name| name.split('_').next())
                .and_then(|n| n.parse().ok())
            else {
                continue;
            };
            tested.insert(number, file.name.clone());
        }
    }
    tested
}

#[test]
fn every_promise_has_a_test_of_its_number_and_every_such_test_a_promise() {
    let (promised, tested) = (promised_numbers(), tested_numbers());
    assert!(
        !promised.is_empty(),
        "docs/SEMANTICS.md numbers its promises as `N. …`"
    );
    let mut problems: Vec<String> = promised
        .iter()
        .filter(|number| !tested.contains_key(number))
        .map(|number| format!("promise {number} has no test `semantics_{number}_…`"))
        .collect();
    problems.extend(
        tested
            .iter()
            .filter(|(number, _)| !promised.contains(number))
            .map(|(number, file)| format!("{file}: semantics_{number}_… tests no promise")),
    );
    fail_with("docs/SEMANTICS.md and the tests", &problems);
}

#[test]
fn public_items_and_names_follow_the_habits() {
    let mut problems = Vec::new();
    for source in sources() {
        let code = Code::of(&source.text);
        for (line, text) in code.lines() {
            let text = text.trim();
            for word in ["Manager", "Helper", "Util"] {
                let declares = ["struct ", "enum ", "trait "]
                    .iter()
                    .any(|kind| text.contains(kind));
                if declares
                    && text
                        .split(|c: char| !c.is_alphanumeric())
                        .any(|name| name.ends_with(word))
                {
                    problems.push(format!("{}:{line}: a type named …{word}", source.name));
                }
            }
            if text.contains("fn get_") {
                problems.push(format!("{}:{line}: accessors carry no `get_`", source.name));
            }
        }
    }
    fail_with("names", &problems);
}

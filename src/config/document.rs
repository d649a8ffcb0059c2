//! What is written from the table: `config/reference.toml`, `docs/CONFIG.md`, and `check-config --print`.
//!
//! Tests below hold the two files fresh; with `MILLRACE_BLESS=1` they rewrite them. `cli.rs` calls [`effective`].
//! Everything written as TOML here reads back as the same settings.

use std::fmt::Write as _;

use super::environment::PREFIX;
use super::load::{Effective, LIVE, Loaded};
use super::shape::Shape;
use super::table::{Initial, SECTIONS, Section, Setting};
use super::value::{Kind, Value};

/// Columns of a comment in the reference file.
const WIDTH: usize = 100;

/// Column of the comment that tells where a printed value came from.
const SOURCE_COLUMN: usize = 43;

const REFERENCE_HEAD: &str = "\
# Every setting of millrace with its default. Nothing here is required: without any file, millrace runs on these.
# To change a setting, take away the \"# \" before its key.
# A variable overrides this file, a flag overrides both. `millrace check-config --print` shows what is in effect.
# Written from the table in src/config/table.rs: edit that, then run the tests with MILLRACE_BLESS=1.
";

const MANUAL_HEAD: &str = "\
# Settings

Written from the table in `src/config/table.rs`: edit that, then run the tests with `MILLRACE_BLESS=1`.
`config/reference.toml` holds the same as a file to start from.

- **Sources.** Defaults, then the TOML file named by `--config` or `MILLRACE_CONFIG`, then `MILLRACE_…` variables, then
  flags: the later overrides. No file is needed. Lists in variables are separated by commas; `--listen` may be repeated.
  Sections in double brackets (`[[rule]]`) can be given in the file only.
- **Errors.** All at once, one line each, `file:line:column: …`, `VARIABLE: …` or `--flag: …`, and exit code 1 before anything
  is bound. An unknown key or `MILLRACE_…` variable is an error; the nearest known one is named. Not ours, and passed over, are
  the variables that Kubernetes and Docker set for a service named `millrace` (`MILLRACE_SERVICE_HOST`,
  `MILLRACE_PORT_8080_TCP` and their like).
- **Durations** are words with a unit: `\"500ms\"`, `\"90s\"`, `\"5m\"`, `\"1h30m\"`, `\"2d\"`; nothing is `\"0s\"`. **Sizes**:
  `\"64MiB\"` (powers of 1024), `\"1GB\"` (powers of 1000); a plain number is bytes. **Addresses** are `ip:port`, with brackets for
  IPv6; port 0 takes any free port.
- **Check.** `millrace check-config` reads everything as `serve` would and says what is wrong; with `--print` it writes the
  settings in effect, each with the place it came from, as a file that may be used again.
- **Reload.** The file is read again when it has changed (it is looked at every second) and on SIGHUP. `[[rule]]`, {live}
  hold from then on, for every request that comes; what is cached is judged anew. A change of anything else waits for a restart,
  which the log and `/readyz` say. A file with errors changes nothing: the settings before it stay, and the log,
  `millrace_config_refused` and `/readyz` say so.
- **Exit codes.** 0 done, 1 configuration, 2 usage, 3 a failure at start or while running.
";

/// The text of `config/reference.toml`.
#[must_use]
pub fn reference() -> String {
    let mut out = REFERENCE_HEAD.to_owned();
    for section in SECTIONS {
        out.push('\n');
        comment(&mut out, section.text);
        let open = if section.repeated { "# " } else { "" };
        line(&mut out, &format!("{open}{}", section.header()));
        for setting in section.settings {
            out.push('\n');
            comment(&mut out, setting.text);
            comment(&mut out, &facts(section, setting).join("; "));
            line(
                &mut out,
                &format!("# {} = {}", setting.name, setting.example()),
            );
        }
    }
    out
}

/// The text of `docs/CONFIG.md`.
#[must_use]
pub fn manual() -> String {
    let live = LIVE.map(|key| format!("`{key}`")).join(", ");
    let mut out = MANUAL_HEAD.replace("{live}", &live);
    for section in SECTIONS {
        let _ = write!(out, "\n## `{}`\n\n{}\n\n", section.header(), section.text);
        out.push_str("| Key | Type and bounds | Default | Overridden by | Meaning |\n");
        out.push_str("|---|---|---|---|---|\n");
        for setting in section.settings {
            let cells = [
                format!("`{}`", setting.name),
                type_and_bounds(setting),
                match setting.initial {
                    Initial::Given(_) => format!("`{}`", setting.initial_value()),
                    Initial::Required(_) => "required".to_owned(),
                    Initial::Unset(_) => "not given".to_owned(),
                },
                overrides(section, setting)
                    .iter()
                    .map(|name| format!("`{name}`"))
                    .collect::<Vec<_>>()
                    .join(" "),
                setting.text.to_owned(),
            ];
            line(&mut out, &format!("| {} |", cells.map(cell).join(" | ")));
        }
    }
    out
}

/// The settings in effect as a file, each with the place it came from.
#[must_use]
pub fn effective(loaded: &Loaded) -> String {
    let mut out = "# The settings in effect, and where each came from.\n".to_owned();
    let mut open = None;
    let given = loaded.values.iter();
    for value in given.filter(|value| value.value != Value::Unset) {
        let section = section_of(value);
        if open != Some((section.name, value.table)) {
            open = Some((section.name, value.table));
            let _ = write!(out, "\n{}\n", section.header());
        }
        let text = format!("{} = {}", value.setting.name, value.value);
        let _ = writeln!(out, "{text:<SOURCE_COLUMN$} # {}", value.place);
    }
    out
}

fn section_of(value: &Effective) -> &'static Section {
    SECTIONS
        .iter()
        .find(|section| section.settings.iter().any(|s| s.key == value.setting.key))
        .expect("every setting stands in a section")
}

fn facts(section: &Section, setting: &Setting) -> Vec<String> {
    let mut facts = vec![type_and_bounds(setting)];
    if matches!(setting.initial, Initial::Required(_)) {
        facts.push("required".to_owned());
    }
    facts.extend(overrides(section, setting));
    facts
}

fn type_and_bounds(setting: &Setting) -> String {
    let bounds = setting.kind.bounds();
    match setting.kind.shape() {
        Shape::OneOf(_) | Shape::DiskDir if matches!(setting.kind, Kind::One(_)) => bounds,
        _ if bounds.is_empty() => setting.kind.type_words(),
        _ => format!("{}, {bounds}", setting.kind.type_words()),
    }
}

/// What overrides the file: the flag, the variable.
fn overrides(section: &Section, setting: &Setting) -> Vec<String> {
    if section.repeated {
        return Vec::new();
    }
    debug_assert!(setting.variable().starts_with(PREFIX));
    let flag = setting.flag.map(str::to_owned);
    flag.into_iter().chain([setting.variable()]).collect()
}

/// Writes a comment, broken between words.
fn comment(out: &mut String, text: &str) {
    let mut current = String::from("#");
    for word in text.split_whitespace() {
        if current.len() + 1 + word.len() > WIDTH {
            line(out, &current);
            current = String::from("#");
        }
        current.push(' ');
        current.push_str(word);
    }
    line(out, &current);
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

/// A bar would end the cell.
fn cell(text: String) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Settings, Sources};

    /// Holds a generated file fresh, or rewrites it.
    fn fresh(path: &str, text: &str) {
        let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            std::fs::write(&path, text).expect("the file can be written");
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{path} is stale: run the tests with MILLRACE_BLESS=1"
        );
    }

    fn loaded_rules(settings: &Settings) -> usize {
        settings.rules.len()
    }

    fn load(text: String) -> Loaded {
        let file = Some(("millrace.toml".into(), text));
        let sources = Sources {
            file,
            ..Sources::default()
        };
        Settings::load(sources).expect("a configuration that holds")
    }

    #[test]
    fn the_generated_documents_are_fresh() {
        fresh("config/reference.toml", &reference());
        fresh("docs/CONFIG.md", &manual());
    }

    #[test]
    fn the_reference_file_changes_nothing_as_it_is() {
        assert_eq!(load(reference()).settings, Settings::default());
    }

    #[test]
    fn the_reference_file_with_every_comment_taken_away_is_the_defaults() {
        let uncommented: Vec<String> = reference()
            .lines()
            .map(|line| line.strip_prefix("# ").unwrap_or(line))
            .filter(|line| line.starts_with('[') || line.contains(" = ") && !line.contains(": "))
            .map(str::to_owned)
            .collect();
        let loaded = load(uncommented.join("\n"));
        let rows = SECTIONS.iter().flat_map(|section| section.settings);
        assert_eq!(loaded.values.len(), rows.count());
        let given = loaded.values.iter();
        assert!(
            given
                .clone()
                .all(|v| v.place != crate::config::Place::Default)
        );
        assert_eq!(loaded.settings.origins.len(), 1);
        let mut settings = loaded.settings;
        assert_eq!(loaded_rules(&settings), 1);
        settings.origins.clear();
        settings.rules.clear();
        assert_eq!(settings.hosts.len(), 1);
        settings.hosts.clear();
        assert_eq!(settings.endpoints.len(), 1);
        settings.endpoints.clear();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn every_key_is_documented_in_both_documents() {
        let (reference, manual) = (reference(), manual());
        for setting in SECTIONS.iter().flat_map(|section| section.settings) {
            assert!(reference.contains(&format!("\n# {} = ", setting.name)));
            assert!(manual.contains(&format!("| `{}` |", setting.name)));
            assert!(setting.text.ends_with('.'), "{}", setting.key);
        }
    }

    #[test]
    fn what_check_config_prints_reads_back_as_the_same_settings() {
        let file = "
            [routing]\naws = false
            [upstream]\nca_file = 'C:\\\"ca\".pem'\ndns_servers = ['10.0.0.2', '::1']
            [log]\naccess = './access.log'
            [[origin]]\nname = 'a'\nurl = 'https://a.example.com:8443'\nhosts = ['A.example.com']
            [[origin]]\nname = 'b'\nurl = 'http://[::1]:9000'\ndomains = ['b.example.com', 'c.example.com']
        ";
        let sources = Sources {
            file: Some(("millrace.toml".into(), file.to_owned())),
            env: vec![("MILLRACE_RAM_SIZE".into(), "10GB".into())],
            flags: Flags::default()
                .with("--cores", "0,4-7")
                .with("--ttl", "1h30m"),
        };
        let loaded = Settings::load(sources).expect("a configuration that holds");
        let printed = effective(&loaded);
        assert_eq!(load(printed.clone()).settings, loaded.settings);
        let unpadded: Vec<String> = printed
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for line in [
            "size = \"10GB\" # MILLRACE_RAM_SIZE",
            "cores = \"0,4-7\" # --cores",
            "ttl = \"90m\" # --ttl",
            "aws = false # millrace.toml:3:7",
            "shards = 0 # default",
            "dns_servers = [\"10.0.0.2:53\", \"[::1]:53\"] # millrace.toml:6:15",
        ] {
            assert!(unpadded.iter().any(|l| l == line), "{line}\n{printed}");
        }
    }
}

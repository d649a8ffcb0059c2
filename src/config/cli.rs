//! The command line: `serve`, `check-config`, and the flags that the table names.
//!
//! `main.rs` calls [`decide`] with the process's arguments and environment and does what it says. The flags are a
//! stable contract; those that override a setting are made from the table, so their values are parsed, and their
//! errors reported, with all others. Reading the configuration file is the only I/O here.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::document::effective;
use super::environment::{CONFIG, PREFIX};
use super::error::{ConfigError, Fault, Place};
use super::file::FILE_BYTES_MAX;
use super::load::{Flags, Loaded, Sources};
use super::table::{Setting, Settings, settings};
use super::value::{AccessLog, Kind, Value};

/// Everything went well.
pub const EXIT_OK: u8 = 0;
/// The configuration has errors.
pub const EXIT_CONFIG: u8 = 1;
/// The command line is not one of ours (clap's own code).
pub const EXIT_USAGE: u8 = 2;
/// The server could not start or failed while running.
pub const EXIT_FAILURE: u8 = 3;

/// What the process is to do.
#[derive(Debug)]
pub enum Decision {
    /// Serve with these settings.
    Serve(Box<Loaded>),
    /// Print and exit.
    Exit {
        /// The process's exit code.
        code: u8,
        /// For standard output.
        stdout: String,
        /// For standard error.
        stderr: String,
    },
    /// Usage error, help or version: clap prints it and knows the code.
    Usage(Box<clap::Error>),
}

/// The process's environment as far as it concerns us; text that is not UTF-8 is marked, to be refused later.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| {
            let text = |os: OsString| os.to_string_lossy().into_owned();
            (text(name), text(value))
        })
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Arguments (the program's name first) and environment to a decision.
#[must_use]
pub fn decide(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    env: Vec<(String, String)>,
) -> Decision {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(usage) => return Decision::Usage(Box::new(usage)),
    };
    match matches.subcommand() {
        Some(("serve", matches)) => match load(matches, env) {
            Ok(loaded) => Decision::Serve(Box::new(loaded)),
            Err(errors) => refusal(&errors),
        },
        Some(("check-config", matches)) => match load(matches, env) {
            Ok(loaded) => verdict(&loaded, matches.get_flag("print")),
            Err(errors) => refusal(&errors),
        },
        _ => unreachable!("clap asks for a subcommand that is declared"),
    }
}

/// The command line as clap knows it.
#[must_use]
pub fn command() -> Command {
    Command::new("millrace")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("serve")
                .about(
                    "Serve until SIGTERM; exit codes: 0 done, 1 configuration, 2 usage, 3 failure",
                )
                .args(overrides()),
        )
        .subcommand(
            Command::new("check-config")
                .about("Read the configuration as `serve` would and say what is wrong with it")
                .arg(
                    Arg::new("print")
                        .long("print")
                        .action(ArgAction::SetTrue)
                        .help("Print the settings in effect as TOML, each with its source"),
                )
                .args(overrides()),
        )
}

/// `--config` and one argument for each row of the table that has a flag.
fn overrides() -> Vec<Arg> {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(ValueParser::path_buf())
        .help(format!("Configuration file, TOML [env: {CONFIG}]"));
    let flags = settings().filter_map(|setting| Some((setting, setting.flag?)));
    let flags = flags.map(|(setting, flag)| {
        let name = flag.trim_start_matches('-');
        Arg::new(name)
            .long(name)
            .value_name(setting.kind.shape().value_name())
            .action(match setting.kind {
                Kind::One(_) => ArgAction::Set,
                Kind::List(..) => ArgAction::Append,
            })
            .allow_negative_numbers(true)
            .help(help(setting, first_sentence(setting.text)))
            .long_help(help(setting, setting.text))
    });
    [config].into_iter().chain(flags).collect()
}

fn help(setting: &Setting, text: &str) -> String {
    let default = setting.initial_value().to_string();
    let default = match default.replace(['"', '[', ']'], "").as_str() {
        "" => String::new(),
        plain => format!("[default: {plain}] "),
    };
    format!("{text} {default}[env: {}]", setting.variable())
}

fn first_sentence(text: &str) -> &str {
    text.find(". ").map_or(text, |end| &text[..end])
}

fn load(matches: &ArgMatches, env: Vec<(String, String)>) -> Result<Loaded, Vec<ConfigError>> {
    let mut env_paths = env
        .iter()
        .filter(|(name, path)| name == CONFIG && !path.is_empty());
    let by_env = env_paths.next();
    let path = matches
        .get_one::<PathBuf>("config")
        .cloned()
        .or_else(|| by_env.map(|(_, path)| PathBuf::from(path)));
    let (file, unread) = match path.map(|path| (read(&path), path)) {
        None => (None, None),
        Some((Ok(text), path)) => (Some((path, text)), None),
        Some((Err(error), _)) => (None, Some(error)),
    };
    let mut flags = Flags::default();
    for flag in settings().filter_map(|setting| setting.flag) {
        let values = matches.get_many::<String>(flag.trim_start_matches('-'));
        if let Some(values) = values {
            let values: Vec<&str> = values.map(String::as_str).collect();
            flags = flags.with(flag, &values.join(","));
        }
    }
    let loaded = Settings::load(Sources { file, env, flags });
    match (unread, loaded) {
        (None, Ok(loaded)) => files_exist(loaded),
        (None, Err(errors)) => Err(errors),
        (Some(error), Ok(_)) => Err(vec![*error]),
        (Some(error), Err(errors)) => Err([*error].into_iter().chain(errors).collect()),
    }
}

/// Settings that name files are tried before anything is bound, so that a mistyped path is a configuration error.
fn files_exist(loaded: Loaded) -> Result<Loaded, Vec<ConfigError>> {
    let mut errors = Vec::new();
    for effective in &loaded.values {
        let tried = match &effective.value {
            Value::Path(Some(path)) => std::fs::File::open(path).map(drop),
            Value::AccessLog(AccessLog::File(path)) => writable_place(path),
            _ => Ok(()),
        };
        if let Err(io) = tried {
            errors.push(ConfigError {
                place: effective.place.clone(),
                fault: Fault::File {
                    key: effective.setting.key,
                    reason: io.to_string(),
                },
            });
        }
    }
    match errors.is_empty() {
        true => Ok(loaded),
        false => Err(errors),
    }
}

/// Whether a file may stand there: its directory exists and the name is not a directory's. Nothing is created, for
/// `check-config` comes through here too.
fn writable_place(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    let directory = path.parent().unwrap_or(path);
    match std::fs::metadata(directory)?.is_dir() {
        true => Ok(()),
        false => Err(std::io::ErrorKind::NotADirectory.into()),
    }
}

/// Reads a configuration file whole.
pub fn read(path: &Path) -> Result<String, Box<ConfigError>> {
    let path: Arc<Path> = Arc::from(path);
    let error = |line, column, fault| {
        let path = Arc::clone(&path);
        let place = Place::File { path, line, column };
        Box::new(ConfigError { place, fault })
    };
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|io| {
            let reason = io.to_string();
            error(0, 0, Fault::Unreadable { reason })
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let max_bytes = FILE_BYTES_MAX;
        return Err(error(0, 0, Fault::TooLarge { max_bytes }));
    }
    String::from_utf8(bytes).map_err(|invalid| {
        let good = &invalid.as_bytes()[..invalid.utf8_error().valid_up_to()];
        let good = String::from_utf8_lossy(good);
        let column = good
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count())
            + 1;
        error(good.matches('\n').count() + 1, column, Fault::NotUtf8)
    })
}

fn refusal(errors: &[ConfigError]) -> Decision {
    let mut stderr = String::new();
    for error in errors {
        let _ = writeln!(stderr, "{error}");
    }
    let plural = if errors.len() == 1 { "" } else { "s" };
    let _ = writeln!(
        stderr,
        "millrace: {} error{plural} in the configuration",
        errors.len()
    );
    Decision::Exit {
        code: EXIT_CONFIG,
        stdout: String::new(),
        stderr,
    }
}

fn verdict(loaded: &Loaded, print: bool) -> Decision {
    Decision::Exit {
        code: EXIT_OK,
        stdout: match print {
            true => effective(loaded),
            false => "the configuration holds\n".to_owned(),
        },
        stderr: warnings(loaded),
    }
}

/// The warnings as lines for standard error.
#[must_use]
pub fn warnings(loaded: &Loaded) -> String {
    let mut lines = String::new();
    for warning in &loaded.warnings {
        let _ = writeln!(lines, "millrace: warning: {warning}");
    }
    lines
}

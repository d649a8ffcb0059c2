//! The command line: `serve`, `check-config`, and the flags that the table names.
//!
//! `main.rs` calls [`decide`] with the process's arguments and environment and does what it says. The flags are a
//! stable contract; those that override a setting are made from the table, so their values are parsed, and their
//! errors reported, with all others. I/O on files is `files.rs`, printing is `main.rs`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::document::effective;
use super::environment::{CONFIG, PREFIX};
use super::error::ConfigError;
use super::files;
use super::load::{Flags, Loaded, Sources};
use super::table::{Setting, Settings, settings};
use super::value::Kind;

/// Everything went well.
pub const EXIT_OK: u8 = 0;
/// The configuration has errors.
pub const EXIT_CONFIG: u8 = 1;
/// The command line is not one of ours (clap's own code).
pub const EXIT_USAGE: u8 = 2;
/// The server could not start or failed while running.
pub const EXIT_FAILURE: u8 = 3;

/// What is asked of a cache directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tool {
    /// The objects, or those whose `bucket/key` begins so.
    List {
        /// The cache directory.
        dir: PathBuf,
        /// The beginning.
        prefix: String,
    },
    /// Everything about the objects of this `bucket/key`, one for each origin.
    Show {
        /// The cache directory.
        dir: PathBuf,
        /// `bucket/key`.
        name: String,
    },
    /// Bytes by bucket, and what is of no use any more.
    Usage {
        /// The cache directory.
        dir: PathBuf,
    },
    /// Reads and checks everything.
    Verify {
        /// The cache directory.
        dir: PathBuf,
    },
    /// Takes objects out.
    Purge(Purge),
}

/// What is to go, and whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The cache directory; the server that has it is asked, if there is one.
    pub dir: Option<PathBuf>,
    /// The admin address of the server to ask.
    pub admin: Option<SocketAddr>,
    /// At which origin; everywhere if not given.
    pub origin: Option<String>,
    /// `bucket/key`, `bucket/prefix*` or `*`.
    pub name: Vec<u8>,
}

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
    /// Look at a cache directory.
    Cache(Tool),
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
        Some(("cache", matches)) => Decision::Cache(tool(matches)),
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
        .subcommand(cache_command())
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

/// `millrace cache …`.
fn cache_command() -> Command {
    let dir = || {
        Arg::new("dir")
            .value_name("DIR")
            .required(true)
            .value_parser(ValueParser::path_buf())
            .help("The cache directory")
    };
    let name = |name, help| Arg::new(name).value_name("BUCKET/KEY").help(help);
    let of = |name: &'static str, about: &'static str| Command::new(name).about(about).arg(dir());
    Command::new("cache")
        .about("Look at a cache directory; exit code 3 if something is not found or damaged")
        .subcommand_required(true)
        .subcommand(
            of("ls", "List objects: bytes, bytes on disk, name")
                .arg(name("prefix", "Only names that begin so")),
        )
        .subcommand(
            of("stat", "Show what is known of an object")
                .arg(name("name", "The object").required(true)),
        )
        .subcommand(of("du", "Show bytes by bucket"))
        .subcommand(of("verify", "Read and check everything"))
        .subcommand(purge_command())
}

/// `millrace cache purge …`.
fn purge_command() -> Command {
    Command::new("purge")
        .about("Take objects out of RAM and disk, through the server if one runs")
        .allow_missing_positional(true)
        .arg(
            Arg::new("dir")
                .value_name("DIR")
                .value_parser(ValueParser::path_buf())
                .required_unless_present("admin")
                .help("The cache directory; the server that has it is asked, if there is one"),
        )
        .arg(
            Arg::new("name")
                .value_name("BUCKET/KEY")
                .value_parser(ValueParser::os_string())
                .required(true)
                .help("The object; `BUCKET/PREFIX*` for all that begin so, `BUCKET/*`, `*`"),
        )
        .arg(
            Arg::new("admin")
                .long("admin")
                .value_name("ADDR")
                .value_parser(clap::value_parser!(SocketAddr))
                .help("The server's admin address, instead of the one that the directory tells"),
        )
        .arg(
            Arg::new("origin")
                .long("origin")
                .value_name("NAME")
                .help("Only at this [[origin]], or the origin that `stat` shows"),
        )
}

fn purge(matches: &ArgMatches) -> Purge {
    use std::os::unix::ffi::OsStringExt as _;
    let name = matches.get_one::<OsString>("name").cloned();
    Purge {
        dir: matches.get_one::<PathBuf>("dir").cloned(),
        admin: matches.get_one::<SocketAddr>("admin").copied(),
        origin: matches.get_one::<String>("origin").cloned(),
        name: name.unwrap_or_default().into_vec(),
    }
}

fn tool(matches: &ArgMatches) -> Tool {
    let Some((name, matches)) = matches.subcommand() else {
        unreachable!("clap asks for a subcommand that is declared")
    };
    if name == "purge" {
        return Tool::Purge(purge(matches));
    }
    let dir = matches
        .get_one::<PathBuf>("dir")
        .cloned()
        .unwrap_or_default();
    let text = |id| matches.get_one::<String>(id).cloned().unwrap_or_default();
    match name {
        "ls" => Tool::List {
            dir,
            prefix: text("prefix"),
        },
        "stat" => Tool::Show {
            dir,
            name: text("name"),
        },
        "du" => Tool::Usage { dir },
        _ => Tool::Verify { dir },
    }
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
    let text = text.replace('`', "");
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
    let (file, unread) = match path.map(|path| (files::read(&path), path)) {
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
        (None, Ok(loaded)) => files::check(loaded),
        (None, Err(errors)) => Err(errors),
        (Some(error), Ok(_)) => Err(vec![*error]),
        (Some(error), Err(errors)) => Err([*error].into_iter().chain(errors).collect()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file::FILE_BYTES_MAX;
    use std::collections::BTreeSet;

    fn run(args: &[&str], env: &[(&str, &str)]) -> Decision {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let args = ["millrace"].iter().chain(args);
        decide(args, env.iter().map(owned).collect())
    }

    fn exit(args: &[&str], env: &[(&str, &str)]) -> (u8, String, String) {
        match run(args, env) {
            Decision::Exit {
                code,
                stdout,
                stderr,
            } => (code, stdout, stderr),
            other => panic!("{other:?}"),
        }
    }

    /// A file of this test's own, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let name = format!("millrace-config-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, bytes).expect("a scratch file");
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().expect("UTF-8")
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_flags_of_the_contract_are_all_there_is() {
        let command = command();
        let serve = command.find_subcommand("serve").expect("serve");
        let flags: BTreeSet<&str> = serve.get_arguments().filter_map(Arg::get_long).collect();
        let contract = [
            "config",
            "listen",
            "admin",
            "origin",
            "ram",
            "cache-dir",
            "disk",
            "shards",
            "cores",
            "ttl",
        ];
        assert_eq!(flags, BTreeSet::from(contract));
        command.debug_assert();
    }

    #[test]
    fn every_flag_of_the_contract_reaches_its_setting() {
        let args = [
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "[::1]:2",
            "--admin",
            "127.0.0.1:3",
            "--origin",
            "http://127.0.0.1:9000",
            "--ram",
            "64MiB",
            "--cache-dir",
            "none",
            "--disk",
            "0",
            "--shards",
            "2",
            "--cores",
            "0,1",
            "--ttl",
            "0s",
        ];
        let Decision::Serve(loaded) = run(&args, &[]) else {
            panic!("it holds");
        };
        let settings = &loaded.settings;
        assert_eq!(settings.listener.http.len(), 2);
        assert_eq!(settings.admin.listen.port(), 3);
        let origin = settings.routing.origin.as_ref().map(ToString::to_string);
        assert_eq!(origin.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(settings.ram.size_bytes, 64 << 20);
        assert_eq!(
            (settings.server.shards, settings.server.cores.len()),
            (2, 2)
        );
        assert_eq!(settings.cache.ttl_ms, 0);
    }

    #[test]
    fn a_wrong_flag_value_is_a_configuration_error_and_all_are_told() {
        let args = [
            "serve",
            "--shards",
            "-1",
            "--ram",
            "lots",
            "--cache-dir",
            "x",
        ];
        let (code, stdout, stderr) = exit(&args, &[("MILLRACE_RAM", "1")]);
        assert_eq!((code, stdout.as_str()), (EXIT_CONFIG, ""));
        assert_eq!(
            stderr,
            "MILLRACE_RAM: unknown variable; did you mean `MILLRACE_RAM_SIZE`?\n\
             --cache-dir: `disk.dir`: \"x\" is neither \"none\" nor a path: a path contains a '/'\n\
             --ram: `ram.size`: \"lots\" is not a size such as \"64MiB\", in whole numbers\n\
             --shards: `server.shards`: -1 is out of bounds (0 to 256)\n\
             millrace: 4 errors in the configuration\n"
        );
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error() {
        for args in [
            &["serve", "--bogus"][..],
            &["serve", "--ram"],
            &["serve", "--ram", "1GiB", "--ram", "2GiB"],
            &["serve", "extra"],
            &["bogus"],
            &[],
        ] {
            match run(args, &[]) {
                Decision::Usage(usage) => {
                    assert_eq!(usage.exit_code(), i32::from(EXIT_USAGE), "{args:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn help_and_version_end_well() {
        for args in [&["--help"][..], &["serve", "--help"], &["--version"]] {
            match run(args, &[]) {
                Decision::Usage(usage) => assert_eq!(usage.exit_code(), i32::from(EXIT_OK)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn check_config_says_that_it_holds_and_prints_it_when_asked() {
        let (code, stdout, stderr) = exit(&["check-config"], &[]);
        assert_eq!(
            (code, stdout.as_str(), stderr.as_str()),
            (0, "the configuration holds\n", "")
        );
        let args = ["check-config", "--print", "--listen", "0.0.0.0:80"];
        let (code, stdout, stderr) = exit(&args, &[]);
        assert_eq!(code, EXIT_OK);
        assert!(stdout.contains("http = [\"0.0.0.0:80\"]"));
        assert!(stderr.starts_with("millrace: warning: listener.http 0.0.0.0:80 "));
        assert_eq!(stderr.lines().count(), 1);
    }

    #[test]
    fn the_file_is_named_by_flag_or_variable_and_the_flag_wins() {
        let by_flag = Scratch::new("by-flag", b"[ram]\nsize = '32MiB'\n");
        let by_env = Scratch::new("by-env", b"[ram]\nsize = '64MiB'\n");
        let ram = |args: &[&str], env: &[(&str, &str)]| match run(args, env) {
            Decision::Serve(loaded) => loaded.settings.ram.size_bytes,
            other => panic!("{other:?}"),
        };
        let env = [("MILLRACE_CONFIG", by_env.path())];
        assert_eq!(ram(&["serve"], &env), 64 << 20);
        assert_eq!(ram(&["serve", "--config", by_flag.path()], &env), 32 << 20);
        assert_eq!(ram(&["serve"], &[("MILLRACE_CONFIG", "")]), 0);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_with_all_other_errors() {
        let args = ["check-config", "--config", "/nonexistent", "--ttl", "x"];
        let (code, _, stderr) = exit(&args, &[]);
        assert_eq!(code, EXIT_CONFIG);
        assert_eq!(
            stderr,
            "/nonexistent: cannot read the file: No such file or directory (os error 2)\n\
             --ttl: `cache.ttl`: \"x\" is not a duration such as \"90s\"\n\
             millrace: 2 errors in the configuration\n"
        );
        let binary = Scratch::new("binary", b"[ram]\n# \xc3\xa4 \xff\n");
        let (_, _, stderr) = exit(&["check-config", "--config", binary.path()], &[]);
        assert!(stderr.contains(":2:5: not valid UTF-8"), "{stderr}");
        let large = Scratch::new("large", &vec![b'#'; FILE_BYTES_MAX as usize + 1]);
        let (_, _, stderr) = exit(&["check-config", "--config", large.path()], &[]);
        assert!(stderr.contains("larger than 1048576 bytes"), "{stderr}");
    }

    #[test]
    fn files_that_settings_name_are_tried_before_anything_is_bound() {
        let env = [
            ("MILLRACE_UPSTREAM_CA_FILE", "/nonexistent.pem"),
            ("MILLRACE_LOG_ACCESS", "/nonexistent/access.log"),
        ];
        let (code, _, stderr) = exit(&["serve"], &env);
        assert_eq!(code, EXIT_CONFIG);
        assert_eq!(
            stderr,
            "MILLRACE_UPSTREAM_CA_FILE: `upstream.ca_file`: No such file or directory (os error 2)\n\
             MILLRACE_LOG_ACCESS: `log.access`: No such file or directory (os error 2)\n\
             millrace: 2 errors in the configuration\n"
        );
        let log = std::env::temp_dir().join("access.log");
        let env = [("MILLRACE_LOG_ACCESS", log.to_str().expect("UTF-8"))];
        assert_eq!(exit(&["check-config"], &env).0, EXIT_OK);
        assert!(!log.exists(), "check-config creates nothing");
    }
}

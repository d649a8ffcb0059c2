//! The program: arguments to settings, settings to a running server, its end to an exit code.
//!
//! What the arguments mean is `config::cli`; what the server does is `server`. Nothing is bound, started or pinned
//! before the whole configuration is known to hold. Exit codes: 0 done, 1 configuration, 2 usage, 3 failure.

// `tests/loom.rs` is built without the library.
#![cfg_attr(loom, allow(unused))]

use std::io::Write;
use std::process::ExitCode;

#[cfg(not(loom))]
use millrace::config::cli::{self, Decision};

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
fn main() -> ExitCode {
    match cli::decide(std::env::args_os(), cli::environment()) {
        Decision::Usage(usage) => usage.exit(),
        Decision::Exit {
            code,
            stdout,
            stderr,
        } => {
            write(std::io::stdout(), &stdout);
            write(std::io::stderr(), &stderr);
            ExitCode::from(code)
        }
        Decision::Cache(tool) => match millrace::tools::run(&tool) {
            Ok(answer) => {
                write(std::io::stdout(), &answer.text);
                ExitCode::from(if answer.good {
                    cli::EXIT_OK
                } else {
                    cli::EXIT_FAILURE
                })
            }
            Err(failure) => {
                write(std::io::stderr(), &format!("millrace: {failure}\n"));
                ExitCode::from(cli::EXIT_FAILURE)
            }
        },
        Decision::Serve(loaded) => {
            write(std::io::stderr(), &cli::warnings(&loaded));
            match millrace::server::run(*loaded) {
                Ok(()) => ExitCode::from(cli::EXIT_OK),
                Err(failure) => {
                    write(std::io::stderr(), &format!("millrace: {failure}\n"));
                    ExitCode::from(cli::EXIT_FAILURE)
                }
            }
        }
    }
}

/// A reader that has gone away (`millrace check-config --print | head`) is no failure of ours.
fn write(mut to: impl Write, text: &str) {
    let _ = to.write_all(text.as_bytes()).and_then(|()| to.flush());
}

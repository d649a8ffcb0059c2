//! The millrace process of the demo: found or built, started, waited for, ended.
//!
//! Called by the demo. Invariants: a child that was started is ended, by SIGTERM and after a grace by SIGKILL, also
//! when the demo fails half way; a child that ends by itself is reported with its exit, not waited for. Left to
//! others: what is asked of it.

use std::env;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::client::{self, Request};

/// Time a child gets to drain after SIGTERM.
const STOP_GRACE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The build failed.
    #[error("`cargo build --release --bin millrace` failed ({0}); its messages are above")]
    Build(ExitStatus),
    /// The build told no path.
    #[error("cargo built no binary named millrace")]
    NoBinary,
    /// A program could not be run.
    #[error("running {program}: {error}")]
    Run {
        /// The program.
        program: String,
        /// Why not.
        error: io::Error,
    },
    /// It ended before it was ready.
    #[error("millrace ended before it was ready: {0}")]
    Ended(ExitStatus),
    /// It did not get ready.
    #[error("http://{admin}/readyz did not answer 200 within {within:?}")]
    NotReady {
        /// The admin address.
        admin: SocketAddr,
        /// How long it was waited for.
        within: Duration,
    },
}

/// The binary beside this program, or a fresh build of it. Under `cargo run` it is always built, because cargo then
/// has looked after this package only and a neighbour may be older than its source.
pub async fn find_or_build() -> Result<PathBuf, ChildError> {
    let neighbour = env::current_exe()
        .ok()
        .map(|path| path.with_file_name("millrace"))
        .filter(|path| path.is_file());
    match (neighbour, env::var_os("CARGO")) {
        (Some(path), None) => Ok(path),
        (_, cargo) => build(&cargo.map_or(PathBuf::from("cargo"), PathBuf::from)).await,
    }
}

async fn build(cargo: &Path) -> Result<PathBuf, ChildError> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    eprintln!("building millrace …");
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--bin",
            "millrace",
            "--message-format",
            "json-render-diagnostics",
        ])
        .current_dir(workspace)
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| ChildError::Run {
            program: cargo.display().to_string(),
            error,
        })?;
    if !output.status.success() {
        return Err(ChildError::Build(output.status));
    }
    built_binary(&output.stdout).ok_or(ChildError::NoBinary)
}

/// Finds the path of the binary in cargo's JSON messages.
fn built_binary(messages: &[u8]) -> Option<PathBuf> {
    messages.split(|byte| *byte == b'\n').find_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let named = message["target"]["name"] == "millrace";
        message["executable"]
            .as_str()
            .filter(|_| named)
            .map(PathBuf::from)
    })
}

/// A running proxy.
#[derive(Debug)]
pub struct Millrace {
    /// Its admin address.
    pub admin: SocketAddr,
    child: Child,
}

impl Millrace {
    /// Starts it in single-origin mode with nothing on disk; its messages go to our stderr.
    pub fn start(
        binary: &Path,
        listen: SocketAddr,
        admin: SocketAddr,
        origin: SocketAddr,
        ram: &str,
    ) -> Result<Millrace, ChildError> {
        let child = Command::new(binary)
            .args([
                "serve",
                "--listen",
                &listen.to_string(),
                "--admin",
                &admin.to_string(),
            ])
            .args([
                "--origin",
                &format!("http://{origin}"),
                "--ram",
                ram,
                "--cache-dir",
                "none",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| ChildError::Run {
                program: binary.display().to_string(),
                error,
            })?;
        Ok(Millrace { admin, child })
    }

    /// Waits until `/readyz` answers 200.
    pub async fn ready(&mut self, within: Duration) -> Result<(), ChildError> {
        let started = Instant::now();
        while started.elapsed() < within {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(ChildError::Ended(status));
            }
            let answer = client::once(self.admin, &Request::new("GET", "/readyz")).await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(ChildError::NotReady {
            admin: self.admin,
            within,
        })
    }

    /// Waits until it ends, and says how.
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Asks it to end and waits; after the grace it is killed.
    pub async fn stop(&mut self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(STOP_GRACE, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_found_in_cargos_messages() {
        let messages =
            br#"{"reason":"compiler-artifact","target":{"name":"perf"},"executable":"/t/perf"}
{"reason":"compiler-artifact","target":{"name":"millrace"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"millrace"},"executable":"/t/release/millrace"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            built_binary(messages),
            Some(PathBuf::from("/t/release/millrace"))
        );
        assert_eq!(built_binary(b"not json\n"), None);
    }

    #[tokio::test]
    async fn a_child_that_ends_is_reported_and_not_waited_for() {
        let any = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut child =
            Millrace::start(Path::new("/bin/false"), any, any, any, "1MiB").expect("it runs");
        assert!(matches!(
            child.ready(Duration::from_secs(10)).await,
            Err(ChildError::Ended(_))
        ));
    }
}

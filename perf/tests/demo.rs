//! `perf demo` as a process, with a stand-in for the proxy: the table, the exit code, the end of the child.
//!
//! The stand-in is a Python script that takes millrace's flags, so these tests need no build of millrace and can
//! make the proxy fail on purpose. The demo with the real binary is part of the product's own end-to-end tests.

#![allow(
    clippy::disallowed_methods,
    reason = "a test of processes waits by the wall clock"
)]

use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn demo(mode: &str) -> Command {
    let standin = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/standin.py");
    let mut command = Command::new(env!("CARGO_BIN_EXE_perf"));
    command
        .arg("demo")
        .arg("--millrace")
        .arg(standin)
        .env("STANDIN", mode)
        .stdin(Stdio::null());
    command
}

fn once(mode: &str) -> Output {
    demo(mode).arg("--once").output().expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn hits_and_right_bytes_are_a_success_and_the_origin_is_asked_once() {
    let output = once("");
    let text = stdout(&output);
    assert!(output.status.success(), "{text}{}", stderr(&output));
    let lines: Vec<&str> = text.lines().collect();
    let reads = |how: &str| {
        lines
            .iter()
            .filter(|line| line.split_whitespace().any(|w| w == how))
            .count()
    };
    assert_eq!(
        (reads("direct"), reads("cold"), reads("warm")),
        (5, 5, 5),
        "{text}"
    );
    let warm: Vec<&&str> = lines
        .iter()
        .filter(|line| line.split_whitespace().next() == Some("warm"))
        .collect();
    assert!(
        warm.iter()
            .all(|line| line.contains(" HIT ") && line.ends_with(" 0")),
        "{text}"
    );
    assert!(text.contains("268435456"), "{text}");
}

#[test]
fn a_warm_read_that_is_no_hit_is_a_failure() {
    let output = once("never-hit");
    assert!(!output.status.success());
    assert!(
        stdout(&output).contains("not a hit, X-Cache-Status is MISS"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_wrong_byte_is_a_failure() {
    let output = once("wrong-byte");
    assert!(!output.status.success());
    assert!(
        stdout(&output).contains("GET 4KiB.bin warm: wrong bytes"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn a_proxy_that_ends_early_is_reported_at_once() {
    let output = once("die");
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("ended before it was ready: exit status: 7"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_demo_that_stays_prints_a_line_to_paste_and_takes_its_child_along() {
    let mut demo = demo("").stdout(Stdio::piped()).spawn().expect("it runs");
    // Kept open to the end: the demo has more to say behind the line to paste.
    let mut lines = BufReader::new(demo.stdout.take().expect("piped")).lines();
    let mut proxy = None;
    for line in lines.by_ref() {
        let line = line.expect("text");
        if let Some((_, rest)) = line.split_once("aws --endpoint-url http://") {
            proxy = rest.split_whitespace().next().map(str::to_string);
            break;
        }
    }
    let proxy = proxy.expect("a line to paste");
    assert!(std::net::TcpStream::connect(&proxy).is_ok());
    let pid = rustix::process::Pid::from_raw(demo.id().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it is ours");
    assert!(demo.wait().expect("it ends").success());
    let since = Instant::now();
    while std::net::TcpStream::connect(&proxy).is_ok() {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "the child outlived the demo"
        );
    }
}

/// Runs the demo with a reader that leaves before the first line.
fn unheard(mode: &str, arguments: &[&str]) -> Output {
    let mut command = demo(mode);
    command.args(arguments).stderr(Stdio::piped());
    let mut demo = command.stdout(Stdio::piped()).spawn().expect("it runs");
    drop(demo.stdout.take());
    demo.wait_with_output().expect("it ends")
}

#[test]
fn a_reader_that_leaves_early_ends_the_demo_without_a_panic() {
    let output = unheard("", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_reader_that_leaves_early_does_not_hide_a_failure() {
    let output = unheard("wrong-byte", &["--once"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        stderr(&output).starts_with("perf: ") && !stderr(&output).contains("panicked"),
        "{}",
        stderr(&output)
    );
    assert!(unheard("", &["--once"]).status.success());
}

#[test]
fn under_cargo_the_proxy_is_built_and_the_built_one_is_run() {
    let dir = tempfile::tempdir().expect("a folder");
    let cargo = dir.path().join("cargo");
    let standin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin.py");
    let message = format!(
        r#"{{"reason":"compiler-artifact","target":{{"name":"millrace"}},"executable":"{}"}}"#,
        standin.display()
    );
    let script = format!(
        "#!/bin/sh\ntest \"$1 $2 $3 $4\" = 'build --release --bin millrace' && echo '{message}'\n"
    );
    std::fs::write(&cargo, script).expect("a script");
    std::fs::set_permissions(&cargo, Permissions::from_mode(0o755)).expect("executable");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_perf"));
    demo.args(["demo", "--once"])
        .env("CARGO", cargo)
        .env("STANDIN", "die");
    let output = demo.output().expect("it runs");
    assert!(
        stderr(&output).contains("exit status: 7"),
        "{}",
        stderr(&output)
    );
}

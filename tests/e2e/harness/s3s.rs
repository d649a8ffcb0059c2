//! A real S3 server as an own process: `perf s3s`, which verifies every signature and
//! counts what it sends.

use super::client::{Ask, Response, fetch};
use super::millrace::{Scratch, admin_status};
use super::sign::{Signer, UNSIGNED};
use super::{Connection, PATIENCE, Tile, free_address, wait_until};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub const ACCESS_KEY: &str = "AKIAMILLRACETEST0001";
pub const SECRET_KEY: &str = "millrace/test+secret/0123456789abcdefghij";

/// A running `perf s3s`; ends with its test.
pub struct S3s {
    pub address: SocketAddr,
    stats: SocketAddr,
    child: Child,
    root: Scratch,
}

/// What the origin counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub get_requests: u64,
    pub body_bytes_sent: u64,
}

impl S3s {
    #[track_caller]
    pub fn start() -> S3s {
        let (address, stats, root) = (free_address(), free_address(), Scratch::new());
        let child = spawn(address, stats, &root);
        S3s {
            address,
            stats,
            child,
            root,
        }
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().expect("the origin is killed");
        self.child.wait().expect("the origin is gone");
    }

    /// Starts it again on the same folder and port.
    #[track_caller]
    pub fn restart(&mut self) {
        self.child = spawn(self.address, self.stats, &self.root);
    }

    /// Signs for this store as seen through `host`.
    pub fn signer(&self, host: SocketAddr) -> Signer {
        Signer {
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            region: "us-east-1".into(),
            host,
        }
    }

    /// Makes a bucket, past the server under test.
    #[track_caller]
    pub fn create_bucket(&self, bucket: &str) {
        let ask = self
            .signer(self.address)
            .sign(Ask::put(&format!("/{bucket}"), ""));
        assert_eq!(fetch(self.address, &ask).status(), 200);
    }

    /// Puts an object, past the server under test.
    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) -> Response {
        let response = fetch(
            self.address,
            &self.signer(self.address).sign(Ask::put(path, body)),
        );
        assert_eq!(response.status(), 200, "{}", response.text());
        response
    }

    /// Puts bytes `0..length` of `tile` as they are made, past the server under test.
    #[track_caller]
    pub fn put_tile(&self, path: &str, tile: &Tile, length: u64) {
        let ask = Ask::new("PUT", path).header("Content-Length", &length.to_string());
        let ask = self.signer(self.address).sign_with_payload(ask, UNSIGNED);
        let mut connection = Connection::open(self.address);
        connection.patience(PATIENCE * 3);
        connection.send(ask.head_bytes(self.address));
        tile.each_piece(0, length, |piece| connection.send(piece));
        let response = connection.response("PUT").expect("an answer to the PUT");
        assert_eq!(response.status(), 200, "{}", response.text());
    }

    #[track_caller]
    pub fn stats(&self) -> Stats {
        let text = fetch(self.stats, &Ask::get("/stats")).text();
        let number = |name: &str| {
            let key = format!("\"{name}\":");
            let at = text
                .find(&key)
                .unwrap_or_else(|| panic!("no {name} in {text}"))
                + key.len();
            let digits: String = text[at..]
                .trim_start()
                .chars()
                .take_while(char::is_ascii_digit)
                .collect();
            digits
                .parse()
                .unwrap_or_else(|_| panic!("{name} in {text}"))
        };
        Stats {
            get_requests: number("get_requests"),
            body_bytes_sent: number("body_bytes_sent"),
        }
    }

    #[track_caller]
    pub fn reset_stats(&self) {
        assert!(fetch(self.stats, &Ask::new("POST", "/reset")).status() < 300);
    }

    /// The folder that the store keeps its objects in.
    pub fn root(&self) -> &std::path::Path {
        &self.root.path
    }
}

impl Drop for S3s {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn spawn(address: SocketAddr, stats: SocketAddr, root: &Scratch) -> Child {
    let child = Command::new(perf_binary())
        .args(["s3s", "--root", &root.path.to_string_lossy()])
        .args([
            "--listen",
            &address.to_string(),
            "--stats",
            &stats.to_string(),
        ])
        .args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY])
        // Its standard input ends with the test's process, however that ends.
        .arg("--with-stdin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("perf s3s starts");
    wait_until("the origin answers", PATIENCE, || {
        admin_status(stats, "/stats") == Some(200)
    });
    child
}

/// `perf` beside the server's own binary; built on demand when a bare `cargo test` runs.
pub fn perf_binary() -> PathBuf {
    if let Some(given) = std::env::var_os("PERF_BIN") {
        return given.into();
    }
    let server = PathBuf::from(env!("CARGO_BIN_EXE_millrace"));
    let binary = server.with_file_name("perf");
    if !binary.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "perf", "--bin", "perf"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        if server
            .parent()
            .is_some_and(|folder| folder.ends_with("release"))
        {
            build.arg("--release");
        }
        if let Some(target) = server.parent().and_then(|profile| profile.parent()) {
            build.env("CARGO_TARGET_DIR", target);
        }
        assert!(
            build.status().expect("cargo runs").success(),
            "building perf"
        );
    }
    binary
}

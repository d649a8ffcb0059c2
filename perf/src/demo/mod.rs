//! The demo: an S3 server and millrace on loopback, real files through it, a table of direct, cold and warm reads.
//!
//! Called by `perf demo`. Steps: origin in this process, millrace as a child, upload through the proxy, read each
//! object direct, cold and warm with signed requests, compare every body by SHA-256 after the clock stopped, print.
//! Invariants: the exit is a failure if a byte was wrong, a status was not 200 or a warm read was not a hit; the
//! child ends with us. Left to others: starting processes (`child`), the look of the table (`table`).

pub mod child;
pub mod table;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use self::child::{ChildError, Millrace};
use self::table::{Reading, Row};
use crate::client::{Answer, ClientError, Connection, Request, Take};
use crate::net;
use crate::origin::generate::Content;
use crate::origin::s3s::{self, S3sOrigin};
use crate::sign::{Payload, Signer, Target, hex, object_path};

/// The demo's credentials: nothing secret, they open the demo's own origin only.
pub const ACCESS_KEY: &str = "demo";
/// The secret that goes with it.
pub const SECRET_KEY: &str = "demosecret";
/// The bucket the files go to.
pub const BUCKET: &str = "demo";
const REGION: &str = "us-east-1";
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The files: name, bytes.
const FILES: [(&str, u64); 5] = [
    ("4KiB.bin", 4 << 10),
    ("1MiB.bin", 1 << 20),
    ("8MiB.bin", 8 << 20),
    ("64MiB.bin", 64 << 20),
    ("256MiB.bin", 256 << 20),
];

/// What to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the proxy shall listen; a free loopback port if not given.
    pub listen: Option<SocketAddr>,
    /// The millrace binary; found or built if not given.
    pub millrace: Option<PathBuf>,
    /// The proxy's RAM.
    pub ram: String,
}

/// Why the demo could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The origin did not start.
    #[error("the origin did not start: {0}")]
    Origin(#[from] s3s::StartError),
    /// The proxy did not start.
    #[error(transparent)]
    Proxy(#[from] ChildError),
    /// A request failed on the wire.
    #[error("{what}: {error}")]
    Request {
        /// Which request.
        what: String,
        /// How it failed.
        error: ClientError,
    },
    /// A request was refused.
    #[error("{what}: status {status}: {text}")]
    Refused {
        /// Which request.
        what: String,
        /// The status.
        status: u16,
        /// The start of the answer's body.
        text: String,
    },
    /// Files or ports.
    #[error("this machine: {0}")]
    Io(#[from] io::Error),
}

/// A demo that is up.
#[derive(Debug)]
pub struct Demo {
    origin: S3sOrigin,
    proxy: Millrace,
    listen: SocketAddr,
    _root: tempfile::TempDir,
}

/// The outcome of the reads.
#[derive(Debug)]
pub struct Outcome {
    /// One per file.
    pub rows: Vec<Row>,
    /// What was not as promised, a sentence each.
    pub failures: Vec<String>,
    /// Hex SHA-256 of the file that the line to paste reads.
    pub paste_sha256: String,
}

impl Demo {
    /// Starts origin and proxy and waits until the proxy is ready.
    pub async fn start(config: &Config) -> Result<Demo, DemoError> {
        let root = tempfile::Builder::new().prefix("perf-demo-").tempdir()?;
        std::fs::create_dir(root.path().join(BUCKET))?;
        let origin = S3sOrigin::start(s3s::Config {
            root: root.path().to_path_buf(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            stats: None,
            access_key: ACCESS_KEY.into(),
            secret_key: SECRET_KEY.into(),
            domains: Vec::new(),
            tls: None,
        })?;
        let listen = match config.listen {
            Some(listen) => listen,
            None => net::free_loopback_addr()?,
        };
        let binary = match &config.millrace {
            Some(path) => path.clone(),
            None => child::find_or_build().await?,
        };
        let proxy = Millrace::start(
            &binary,
            listen,
            net::free_loopback_addr()?,
            origin.addr,
            &config.ram,
        )?;
        let mut demo = Demo {
            origin,
            proxy,
            listen,
            _root: root,
        };
        demo.proxy.ready(READY_WITHIN).await?;
        Ok(demo)
    }

    /// Uploads every file and reads it three times.
    pub async fn run(&self) -> Result<Outcome, DemoError> {
        let mut outcome = Outcome {
            rows: Vec::new(),
            failures: Vec::new(),
            paste_sha256: String::new(),
        };
        // One buffer for all bodies, touched before the first clock starts: page faults are not the proxy's time.
        let largest = FILES
            .iter()
            .map(|(_, bytes)| *bytes)
            .max()
            .unwrap_or_default() as usize;
        let mut buffer = vec![1_u8; largest];
        for (index, (name, bytes)) in FILES.iter().enumerate() {
            let body = Content::new(*bytes, index as u64 + 1).bytes(0, *bytes);
            let sha256 = hex(&Sha256::digest(&body));
            self.upload(name, body).await?;
            let mut readings = Vec::with_capacity(3);
            for (how, addr) in [
                ("direct", self.origin.addr),
                ("cold", self.listen),
                ("warm", self.listen),
            ] {
                let what = format!("GET {name} {how}");
                let (reading, right) = self.read(addr, name, &what, &sha256, &mut buffer).await?;
                if !right {
                    outcome.failures.push(format!("{what}: wrong bytes"));
                }
                readings.push(reading);
            }
            let [direct, cold, warm] = readings.try_into().expect("three reads");
            if warm.cache_status.as_deref() != Some("HIT") {
                let status = warm.cache_status.as_deref().unwrap_or("missing");
                outcome.failures.push(format!(
                    "{name}: the warm read was not a hit, X-Cache-Status is {status}"
                ));
            }
            outcome.paste_sha256 = sha256;
            outcome.rows.push(Row {
                name: (*name).to_string(),
                bytes: *bytes,
                direct,
                cold,
                warm,
            });
        }
        Ok(outcome)
    }

    /// A command that reads the largest file through the proxy, as it can be pasted into a shell.
    pub fn paste_line(&self) -> String {
        let (name, _) = FILES[FILES.len() - 1];
        format!(
            "AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY} AWS_REGION={REGION} \
             aws --endpoint-url http://{} s3 cp s3://{BUCKET}/{name} - | sha256sum",
            self.listen
        )
    }

    /// Where the origin, the proxy and its admin port are.
    pub fn addresses(&self) -> (SocketAddr, SocketAddr, SocketAddr) {
        (self.origin.addr, self.listen, self.proxy.admin)
    }

    /// Waits until the proxy ends by itself; a demo that is up should not see that.
    pub async fn proxy_ended(&mut self) -> String {
        self.proxy.ended().await
    }

    /// Ends the proxy, the origin and the files.
    pub async fn stop(mut self) {
        self.proxy.stop().await;
    }

    async fn upload(&self, name: &str, body: Vec<u8>) -> Result<(), DemoError> {
        let what = format!("PUT {name} through the proxy");
        let payload = Payload::of(&body);
        let request = signed(self.listen, "PUT", name, &payload).body(body);
        let answer = exchange(self.listen, &request, &what, Vec::new()).await?;
        check(&answer, &what)
    }

    /// Reads a file into the buffer and says whether the bytes are those of the digest.
    async fn read(
        &self,
        addr: SocketAddr,
        name: &str,
        what: &str,
        sha256: &str,
        buffer: &mut Vec<u8>,
    ) -> Result<(Reading, bool), DemoError> {
        let before = self.origin.stats().body_bytes_sent;
        let request = signed(addr, "GET", name, &Payload::Empty);
        let answer = exchange(addr, &request, what, std::mem::take(buffer)).await?;
        check(&answer, what)?;
        let reading = Reading {
            elapsed: answer.elapsed,
            first_byte: answer.head.first_byte,
            cache_status: answer.header("x-cache-status").map(str::to_string),
            origin_bytes: self.origin.stats().body_bytes_sent - before,
        };
        let right = hex(&Sha256::digest(&answer.body)) == sha256;
        *buffer = answer.body;
        Ok((reading, right))
    }
}

fn signed(addr: SocketAddr, method: &str, name: &str, payload: &Payload) -> Request {
    let host = addr.to_string();
    let path = object_path(BUCKET, name);
    let target = Target {
        method,
        host: &host,
        path: &path,
        query: "",
    };
    let signer = Signer::s3(ACCESS_KEY, SECRET_KEY, REGION);
    Request::new(method, &path).headers(signer.sign(
        target,
        &[],
        payload,
        OffsetDateTime::now_utc(),
    ))
}

async fn exchange(
    addr: SocketAddr,
    request: &Request,
    what: &str,
    buffer: Vec<u8>,
) -> Result<Answer, DemoError> {
    let failed = |error| DemoError::Request {
        what: what.to_string(),
        error,
    };
    let mut connection = Connection::connect(addr).await.map_err(failed)?;
    let head = connection.send(request).await.map_err(failed)?;
    connection
        .finish_into(head, Take::Keep, buffer)
        .await
        .map_err(failed)
}

fn check(answer: &Answer, what: &str) -> Result<(), DemoError> {
    match answer.status() {
        200 => Ok(()),
        status => Err(DemoError::Refused {
            what: what.to_string(),
            status,
            text: answer.text().chars().take(400).collect(),
        }),
    }
}

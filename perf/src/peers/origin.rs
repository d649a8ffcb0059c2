//! The origin of a measurement: nginx with files that hold the scenario's objects, or `perf origin` without nginx.
//!
//! Started by the bench on the client's cores; the party `direct` is this server moved to the server's cores.
//! Invariants: objects are the bytes that the client expects; a path with `~` and a word behind it is a fresh key for
//! the same object, so that a cold run needs no empty cache; requests and body bytes are counted. Left to others: when
//! to ask.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use super::process::Process;
use super::{PeerError, failed, free_addr, nginx, program, version};
use crate::client::{self, Request};
use crate::load::requests::{self, Bodies, Method, Requests};
use crate::load::target::Target;
use crate::load::{self, Job};
use crate::origin::stats::Snapshot;
use crate::origin::tls;
use crate::results::{Origin as Counted, Party};
use crate::scenario::Scenario;

const NAME: &str = "origin";
/// The bucket of all objects.
pub const BUCKET: &str = "bench";
/// How long the log is waited for: nginx writes a line when the connection of the request lets go of it.
const LOG_SETTLES: Duration = Duration::from_millis(30);
const OWN_CONNECTIONS: u32 = 8;

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// nginx with files: the faster.
    Nginx,
    /// `perf origin`.
    Own,
}

impl Kind {
    /// nginx, if it is installed.
    pub fn of_this_machine() -> Kind {
        match program(nginx::NAME) {
            Ok(_) => Kind::Nginx,
            Err(_) => Kind::Own,
        }
    }
}

/// Where it counts.
#[derive(Debug)]
enum Counter {
    /// nginx's access log.
    Log(PathBuf),
    /// The side port of `perf origin`.
    Side(SocketAddr),
}

/// A running origin.
#[derive(Debug)]
pub struct Origin {
    /// Where it serves.
    pub addr: SocketAddr,
    /// The certificate authority to trust, if it speaks TLS.
    pub ca: Option<PathBuf>,
    /// What is kept about it.
    pub party: Party,
    /// Its process.
    pub process: Process,
    counter: Counter,
}

/// What an origin is made of.
#[derive(Debug, Clone, Copy)]
pub struct Recipe<'a> {
    /// Which server.
    pub kind: Kind,
    /// The folder to put it in.
    pub dir: &'a Path,
    /// What will be measured.
    pub scenario: &'a Scenario,
    /// The objects.
    pub bodies: &'a Arc<Bodies>,
    /// The cores to run on.
    pub cores: &'a [u32],
}

impl Origin {
    /// Makes the objects and serves them.
    pub fn start(recipe: Recipe<'_>) -> Result<Origin, PeerError> {
        let dir = recipe.dir.join(NAME);
        fs::create_dir_all(&dir).map_err(failed(NAME))?;
        let tls = recipe.scenario.origin.tls;
        let ca = tls.then(|| certificates(&dir)).transpose()?;
        match recipe.kind {
            Kind::Nginx => Origin::start_nginx(&dir, ca, recipe),
            Kind::Own => Origin::start_own(&dir, ca, recipe),
        }
    }

    fn start_nginx(
        dir: &Path,
        ca: Option<PathBuf>,
        recipe: Recipe<'_>,
    ) -> Result<Origin, PeerError> {
        let data = dir.join("data").join(BUCKET);
        fs::create_dir_all(&data).map_err(failed(NAME))?;
        for key in 0..recipe.scenario.objects.count {
            write_object(&data.join(name(key)), recipe.bodies, key).map_err(failed(NAME))?;
        }
        let addr = free_addr(NAME)?;
        let config = nginx::wrap(dir, &server(dir, addr, ca.is_some()));
        fs::write(dir.join("nginx.conf"), &config).map_err(failed(NAME))?;
        let mut command = nginx::command(dir)?;
        let party = Party {
            name: NAME.to_string(),
            version: version(&program(nginx::NAME)?, "-v"),
            command: super::kept(&super::words(&command), dir),
            config: super::kept(&config, dir),
        };
        let mut process = Process::spawn(NAME, &mut command, dir, recipe.cores)?;
        process.wait_until_open(addr)?;
        Ok(Origin {
            addr,
            ca,
            party,
            process,
            counter: Counter::Log(dir.join("access.log")),
        })
    }

    fn start_own(dir: &Path, ca: Option<PathBuf>, recipe: Recipe<'_>) -> Result<Origin, PeerError> {
        let (addr, side) = (free_addr(NAME)?, free_addr(NAME)?);
        let binary = std::env::current_exe().map_err(failed(NAME))?;
        let mut command = Command::new(&binary);
        command.arg("origin");
        command.args(["--listen", &addr.to_string(), "--stats", &side.to_string()]);
        if ca.is_some() {
            command.arg("--tls-cert").arg(dir.join("cert.pem"));
            command.arg("--tls-key").arg(dir.join("key.pem"));
        }
        let party = Party {
            name: NAME.to_string(),
            version: version(&binary, "--version"),
            command: super::kept(&super::words(&command), dir),
            config: String::new(),
        };
        let mut process = Process::spawn(NAME, &mut command, dir, recipe.cores)?;
        process.wait_until_open(addr)?;
        let origin = Origin {
            addr,
            ca,
            party,
            process,
            counter: Counter::Side(side),
        };
        match recipe.scenario.objects.count {
            1 => origin.define(side, None, recipe.bodies)?,
            _ => origin.upload(recipe)?,
        }
        Ok(origin)
    }

    /// Makes a fresh key ask for the first object. nginx knows all of them already.
    pub fn make_fresh(&self, word: &str, bodies: &Bodies) -> Result<(), PeerError> {
        match self.counter {
            Counter::Log(_) => Ok(()),
            Counter::Side(side) => self.define(side, Some(word), bodies),
        }
    }

    /// The first object begins where its content begins, so that it needs no memory under any name.
    fn define(
        &self,
        side: SocketAddr,
        word: Option<&str>,
        bodies: &Bodies,
    ) -> Result<(), PeerError> {
        let Bodies::Generated { size, content } = bodies else {
            return Ok(());
        };
        let key = path(BUCKET, 0, word);
        let object = serde_json::json!([{
            "key": key.trim_start_matches('/'), "size": size, "seed": content.seed()
        }]);
        let request = Request::new("POST", "/objects").body(object.to_string());
        ask(side, &request).map(|_| ())
    }

    fn upload(&self, recipe: Recipe<'_>) -> Result<(), PeerError> {
        let error =
            |error: &dyn std::fmt::Display| failed(NAME)(io::Error::other(error.to_string()));
        let count = recipe.scenario.objects.count;
        let target = match &self.ca {
            None => Target::plain(self.addr),
            Some(ca) => {
                Target::parse(&format!("https://{}", self.addr), Some(ca)).map_err(|e| error(&e))?
            }
        };
        let paths: Vec<String> = (0..count).map(|key| path(BUCKET, key, None)).collect();
        let put = requests::Recipe {
            method: Method::Put,
            host: &target.host,
            paths: &paths,
            range_bytes: None,
            signer: None,
        };
        let requests = Arc::new(Requests::build(put, Arc::clone(recipe.bodies)));
        let job = Job::each_once(target, requests, OWN_CONNECTIONS, recipe.cores);
        let outcome = load::run(&job, &mut |_| ()).map_err(|e| error(&e))?;
        match outcome.tally.messages.first() {
            None => Ok(()),
            Some(message) => Err(error(message)),
        }
    }

    /// What it served since it was asked last.
    pub fn counted(&self) -> Result<Counted, PeerError> {
        std::thread::sleep(LOG_SETTLES);
        match &self.counter {
            Counter::Log(log) => {
                let text = fs::read_to_string(log).map_err(failed(NAME))?;
                // nginx appends, so that what was counted can be cut away.
                let file = File::options()
                    .write(true)
                    .open(log)
                    .map_err(failed(NAME))?;
                file.set_len(0).map_err(failed(NAME))?;
                Ok(count(&text))
            }
            Counter::Side(side) => {
                let stats = ask(*side, &Request::new("GET", "/stats"))?;
                let stats: Snapshot =
                    serde_json::from_slice(&stats).map_err(|error| failed(NAME)(error.into()))?;
                ask(*side, &Request::new("POST", "/reset"))?;
                Ok(Counted {
                    requests: stats.requests,
                    body_bytes: stats.body_bytes_sent + stats.body_bytes_received,
                })
            }
        }
    }
}

/// Asks a side port.
fn ask(side: SocketAddr, request: &Request) -> Result<Vec<u8>, PeerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let asked = runtime
        .map_err(failed(NAME))?
        .block_on(client::once(side, request));
    match asked {
        Ok(answer) if answer.status() == 200 => Ok(answer.body),
        Ok(answer) => Err(failed(NAME)(io::Error::other(answer.text()))),
        Err(error) => Err(failed(NAME)(io::Error::other(error))),
    }
}

/// The name of an object.
pub fn name(key: u32) -> String {
    format!("o{key:06}")
}

/// The path of an object on the wire; with a word, a key that nobody has asked for yet.
pub fn path(bucket: &str, key: u32, fresh: Option<&str>) -> String {
    match fresh {
        None => format!("/{bucket}/{}", name(key)),
        Some(word) => format!("/{bucket}/{}~{word}", name(key)),
    }
}

fn write_object(path: &Path, bodies: &Bodies, key: u32) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut at = 0;
    loop {
        let piece = bodies.slice(key, at, 1 << 20);
        if piece.is_empty() {
            return file.flush();
        }
        file.write_all(piece)?;
        at += piece.len() as u64;
    }
}

fn certificates(dir: &Path) -> Result<PathBuf, PeerError> {
    let names = ["localhost", "127.0.0.1"].map(str::to_string);
    tls::write_certificates(dir, &names).map_err(|error| failed(NAME)(io::Error::other(error)))?;
    Ok(dir.join("ca.pem"))
}

fn server(dir: &Path, addr: SocketAddr, tls: bool) -> String {
    let dir = dir.display();
    let (ssl, certificate) = match tls {
        false => ("", String::new()),
        true => (
            " ssl",
            format!(
                "ssl_certificate {dir}/cert.pem;\nssl_certificate_key {dir}/key.pem;\n\
                 ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:tls:1m;\n"
            ),
        ),
    };
    format!(
        "log_format counted '$request_method $status $body_bytes_sent $content_length';\n\
         access_log {dir}/access.log counted;\n\
         server {{\nlisten {addr}{ssl} backlog=4096;\n{certificate}root {dir}/data;\n\
         location ~ \"^/{BUCKET}/([^~]+)~\" {{ alias {dir}/data/{BUCKET}/$1; }}\n\
         location / {{ dav_methods PUT; }}\n}}\n"
    )
}

fn count(text: &str) -> Counted {
    let mut counted = Counted::default();
    for line in text.lines() {
        let mut words = line.split(' ');
        let (method, _status) = (words.next(), words.next());
        let mut bytes = || {
            words
                .next()
                .and_then(|word| word.parse::<u64>().ok())
                .unwrap_or(0)
        };
        let (sent, received) = (bytes(), bytes());
        counted.requests += 1;
        counted.body_bytes += match method {
            Some("PUT") => received,
            _ => sent,
        };
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_requests_and_bytes() {
        let counted = count("GET 200 4096 -\nHEAD 200 0 -\nPUT 201 0 1048576\nGET 206 10 -\n");
        assert_eq!(
            (counted.requests, counted.body_bytes),
            (4, 4096 + 1_048_576 + 10)
        );
    }

    #[test]
    fn fresh_keys_are_keys_of_the_same_object() {
        assert_eq!(path("bench", 7, None), "/bench/o000007");
        assert_eq!(path("bench", 7, Some("r1")), "/bench/o000007~r1");
    }
}

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
use std::time::Duration;

use super::process::Process;
use super::{PeerError, failed, free_addr, nginx, program, version};
use crate::load::requests::Bodies;
use crate::origin::fault::wire;
use crate::results::{Origin as Counted, Party};
use crate::scenario::Scenario;

const NAME: &str = "origin";
/// The bucket of all objects.
pub const BUCKET: &str = "bench";
/// How long the log is waited for: nginx writes a line when the connection of the request lets go of it.
const LOG_SETTLES: Duration = Duration::from_millis(30);

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
    /// The access log and how much of it was counted.
    log: PathBuf,
}

impl Origin {
    /// Makes the objects and serves them.
    pub fn start(
        dir: &Path,
        scenario: &Scenario,
        bodies: &Bodies,
        cores: &[u32],
    ) -> Result<Origin, PeerError> {
        let dir = dir.join(NAME);
        let data = dir.join("data").join(BUCKET);
        fs::create_dir_all(&data).map_err(failed(NAME))?;
        for key in 0..scenario.objects.count {
            write_object(&data.join(name(key)), bodies, key).map_err(failed(NAME))?;
        }
        let tls = scenario
            .origin
            .tls
            .then(|| certificates(&dir))
            .transpose()?;
        let addr = free_addr(NAME)?;
        let log = dir.join("access.log");
        let config = nginx::wrap(&dir, &server(&dir, addr, tls.is_some()));
        fs::write(dir.join("nginx.conf"), &config).map_err(failed(NAME))?;
        let mut command: Command = nginx::command(&dir)?;
        let party = Party {
            name: NAME.to_string(),
            version: version(&program(nginx::NAME)?, "-v"),
            command: super::words(&command),
            config,
        };
        let mut process = Process::spawn(NAME, &mut command, &dir, cores)?;
        process.wait_until_open(addr)?;
        Ok(Origin {
            addr,
            ca: tls,
            party,
            process,
            log,
        })
    }

    /// What it served since it was asked last.
    pub fn counted(&self) -> io::Result<Counted> {
        std::thread::sleep(LOG_SETTLES);
        let text = fs::read_to_string(&self.log)?;
        // nginx appends, so that what was counted can be cut away.
        File::options().write(true).open(&self.log)?.set_len(0)?;
        Ok(count(&text))
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
    wire::write_certificates(dir, &names).map_err(|error| failed(NAME)(io::Error::other(error)))?;
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

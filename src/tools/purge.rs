//! `millrace cache purge`: through the server if one runs, else by a fact in the directory.
//!
//! Called by the tools. The server is found by the directory (the file `admin` of the instance whose lease is held) or by `--admin`. If one holds the
//! directory and cannot be asked, nothing is done: it would go on serving what was purged behind its back. What was on disk is
//! counted in the journals as they were before.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

use crate::base::clock;
use crate::config::cli::Purge;
use crate::disk::format::fact::Fact;
use crate::disk::keeper::{self, DirectoryError};
use crate::disk::names::{self, InstanceName};
use crate::disk::note::Note;
use crate::s3::{NamePattern, covers};

use super::bars::Bars;
use super::picture::Picture;
use super::{Answer, ToolError};

/// How long the server may take to answer: a little more than it gives its shards.
const PATIENCE: Duration = Duration::from_secs(12);
/// Most bytes of an answer that are read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// What was in RAM.
#[derive(Debug, Default, Clone, Copy)]
struct InRam {
    objects: u64,
    bytes: u64,
}

/// Whom to ask.
struct Server {
    address: SocketAddr,
    /// What it must call itself.
    run: Option<String>,
}

/// What the journals say is on disk under a pattern.
#[derive(Debug, Default, Clone, Copy)]
struct OnDisk {
    objects: u64,
    bytes: u64,
    /// The latest confirmation of any head.
    confirmed_last_ms: u64,
}

pub(super) fn run(purge: &Purge) -> Result<Answer, ToolError> {
    let origin = purge.origin.as_deref().map(origin_id);
    let pattern = NamePattern::parse(&purge.name, origin.as_deref())?;
    let on_disk = match &purge.dir {
        None => None,
        Some(dir) => Some(count(dir, &pattern)?),
    };
    let query = query_of(purge, origin.as_deref());
    let in_ram = match (&purge.dir, purge.admin) {
        (_, Some(address)) => Some(ask(&Server { address, run: None }, &query)?),
        (None, None) => return Err(ToolError::Nowhere),
        (Some(dir), None) => through_directory(dir, &query, &pattern, on_disk)?,
    };
    let mut text = String::new();
    if let Some(ram) = in_ram {
        text = format!("in RAM   {} objects, {} bytes\n", ram.objects, ram.bytes);
    }
    if let Some(disk) = on_disk {
        text += &format!("on disk  {} objects, {} bytes\n", disk.objects, disk.bytes);
    }
    Ok(Answer { text, good: true })
}

/// The name of an `[[origin]]`, or an origin id as `millrace cache stat` shows it.
fn origin_id(name: &str) -> Vec<u8> {
    let is_id = name.contains(':') || name == "origin";
    let id = if is_id {
        name.to_owned()
    } else {
        format!("custom:{name}")
    };
    id.into_bytes()
}

fn query_of(purge: &Purge, origin: Option<&[u8]>) -> String {
    let encode = |bytes| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
    let mut query = format!("name={}", encode(&purge.name));
    if let Some(origin) = origin {
        query += &format!("&origin={}", encode(origin));
    }
    query
}

fn through_directory(
    dir: &Path,
    query: &str,
    pattern: &NamePattern,
    on_disk: Option<OnDisk>,
) -> Result<Option<InRam>, ToolError> {
    if let Some(ram) = ask_living(dir, query)? {
        return Ok(Some(ram));
    }
    // A clock that was set back must not make what is known younger than this.
    let known_ms = on_disk.map_or(0, |disk| disk.confirmed_last_ms);
    let fact = match pattern.object() {
        Some(object) => Fact::Invalidated { object: object.0 },
        None => Fact::InvalidatedPrefix {
            prefix: pattern.bytes(),
            unix_ms: clock::unix_ms().max(known_ms),
        },
    };
    let _note = Note::write(dir, &[fact])?;
    // A server that began meanwhile has seen the fact, or holds its lease by now.
    ask_living(dir, query)
}

/// Asks every server that holds a lease of the directory; `None`: there is none.
fn ask_living(dir: &Path, query: &str) -> Result<Option<InRam>, ToolError> {
    let mut sum: Option<InRam> = None;
    for name in keeper::instances(dir)? {
        if !keeper::is_alive(dir, &name) {
            continue;
        }
        let Some(server) = server_of(dir, &name)? else {
            continue;
        };
        let ram = ask(&server, query)?;
        let sum = sum.get_or_insert_default();
        sum.objects += ram.objects;
        sum.bytes += ram.bytes;
    }
    Ok(sum)
}

/// `None`: another `millrace cache purge` that is about to end.
fn server_of(dir: &Path, name: &InstanceName) -> Result<Option<Server>, ToolError> {
    let path = name.folder(dir).join(names::ADMIN);
    let unreachable = |source| ToolError::Unreachable {
        who: format!("the server of {}", name.text()),
        source,
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match has_segments(dir, name) {
                true => Err(unreachable(error)),
                false => Ok(None),
            };
        }
        Err(error) => return Err(unreachable(error)),
    };
    let mut words = text.split_whitespace();
    let address = words.next().and_then(|word| word.parse().ok());
    let address = address.ok_or_else(|| unreachable(io::ErrorKind::InvalidData.into()))?;
    let run = words.next().map(str::to_owned);
    Ok(Some(Server { address, run }))
}

/// A server has a folder for segments from its start on, a note never has.
fn has_segments(dir: &Path, name: &InstanceName) -> bool {
    name.folder(dir).join(names::SEGMENTS).is_dir()
}

/// An address that listens everywhere is asked here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(server: &Server, query: &str) -> Result<InRam, ToolError> {
    let address = reachable(server.address);
    let unreachable = |source| ToolError::Unreachable {
        who: format!("the server at {address}"),
        source,
    };
    let run = server.run.as_ref().map(|run| format!("&run={run}"));
    let run = run.unwrap_or_default();
    let request = format!(
        "POST /purge?{query}{run} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(address, &request).map_err(unreachable)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        let said = body.trim().escape_debug().to_string();
        let who = format!("the server at {address}");
        let status = status.escape_debug().to_string();
        return Err(ToolError::Refused { who, status, said });
    }
    let number = |word: &str| {
        let line = body.lines().find_map(|line| line.strip_prefix(word));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    Ok(InRam {
        objects: number("objects "),
        bytes: number("bytes "),
    })
}

fn exchange(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

/// What the journals say; heads are read where their names are needed.
fn count(dir: &Path, pattern: &NamePattern) -> Result<OnDisk, DirectoryError> {
    let bars = Bars::new();
    let picture = Picture::read(dir, &bars)?;
    let heads = picture.heads.values();
    let confirmed_last_ms = heads.map(|head| head.confirmed_unix_ms).max();
    let mut sum = OnDisk {
        confirmed_last_ms: confirmed_last_ms.unwrap_or(0),
        ..OnDisk::default()
    };
    let one = pattern.object().map(|object| object.0);
    for object in picture.objects_where(&bars, move |object| one.is_none_or(|one| one == object)) {
        if covers(pattern.bytes(), &object.key) {
            sum.objects += 1;
            let stored: u64 = object.extents.iter().map(|e| e.record_bytes()).sum();
            sum.bytes += object.head_bytes + stored;
        }
    }
    Ok(sum)
}

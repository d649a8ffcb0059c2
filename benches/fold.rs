//! What a start on a full cache directory costs: `cargo bench --bench fold`. Prints two tables.
//!
//! The fold of 1 and 10 million extents, each with a head of its own, from journals and from a snapshot: time with and without the index, memory of the index, and
//! the most that the process ever had. Each line is a process of its own. Then the server itself: from its start to the first hit, of an object that is
//! the oldest thing in a directory with a million younger extents. Without `--bench` everything runs once, small.

#![allow(missing_docs, reason = "a program")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use millrace::base::clock;
use millrace::base::prng::mix64;
use millrace::cache::on_disk::{DiskExtent, DiskHead, Spot, Writer};
use millrace::disk::compact::Compactor;
use millrace::disk::fold::{Fold, Listener, Prefix, Tally};
use millrace::disk::format::fact::{Fact, Place};
use millrace::disk::format::segment::FileHeader;
use millrace::disk::keeper::{self, Registry};
use millrace::disk::names::{self, InstanceName};
use millrace::disk::{Folded, Segment};

const JOURNAL_BYTES: usize = 16 << 20;
const PER_SEGMENT: u64 = 8000;

/// A folder that goes with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let base =
            std::env::var_os("FOLD_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let path = base.join(format!(
            "millrace-fold-{}-{}",
            std::process::id(),
            clock::now_ns()
        ));
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn digest(number: u64) -> u128 {
    u128::from(mix64(number)) << 64 | u128::from(mix64(number ^ 0xABCD_0000_0000))
}

/// Writes what a run leaves that has stored so many small objects: empty segments, and true journals.
fn synthesize(dir: &Path, instance: u64, extents: u64) {
    let name = InstanceName {
        number: instance,
        random: 1,
    };
    let folder = name.folder(dir);
    fs::create_dir_all(folder.join(names::SEGMENTS)).expect("a folder");
    let (mut bytes, mut number) = (Vec::new(), 0);
    let begin = |number| {
        let header = FileHeader {
            instance,
            shard: 0,
            number,
            created_unix_ms: 0,
        };
        header.journal().to_vec()
    };
    bytes.extend(begin(0));
    for object in 0..extents {
        let (segment, at) = ((object / PER_SEGMENT) as u32, object % PER_SEGMENT);
        if at == 0 {
            let path = folder
                .join(names::SEGMENTS)
                .join(names::segment(0, segment));
            fs::write(path, b"").expect("a segment");
        }
        let place = |block: u64| Place {
            shard: 0,
            segment,
            block: block as u32,
            record_blocks: 2,
            header_blocks: 1,
        };
        let (object, version) = (digest(object), digest(!object));
        let head = Fact::Head {
            object,
            version,
            confirmed_unix_ms: 1_700_000_000_000,
            place: place(1 + at * 4),
        };
        head.encode(&mut bytes);
        let extent = Fact::Extent {
            object,
            version,
            stripe: 0,
            window: 0..5000,
            place: place(3 + at * 4),
        };
        extent.encode(&mut bytes);
        if bytes.len() >= JOURNAL_BYTES {
            fs::write(folder.join(names::journal(0, number)), &bytes).expect("a journal");
            number += 1;
            bytes = begin(number);
        }
    }
    fs::write(folder.join(names::journal(0, number)), &bytes).expect("a journal");
}

#[derive(Default)]
struct Into {
    index: Option<Writer>,
}

impl Listener for Into {
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>) {
        let Some(index) = &mut self.index else { return };
        match fact {
            Folded::Extent {
                id, window, place, ..
            } => {
                let extent = DiskExtent {
                    window,
                    spot: Spot::of(&place, segment.id),
                    frequency: 0,
                };
                index.insert_extent(&id, &extent);
            }
            Folded::Head {
                object,
                version,
                place,
                ..
            } => {
                let head = DiskHead {
                    version: version as u64,
                    confirmed_unix_s: 1_700_000_000,
                    spot: Spot::of(&place, segment.id),
                    frequency: 0,
                };
                index.insert_head(object, &head);
            }
        }
    }

    fn prefix(&mut self, _: &Prefix) {}

    fn progress(&mut self, _: &Tally) {}
}

fn registry(dir: &Path) -> Registry {
    let instances = keeper::instances(dir).expect("instances");
    let found = keeper::segments(dir, &instances).expect("segments");
    let found = found.into_iter();
    found
        .map(|found| (found.segment.name(), found.segment))
        .collect()
}

/// A line of `/proc/self/status`, in MiB.
fn status(name: &str) -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn seconds_since(begun_ns: u64) -> f64 {
    (clock::now_ns() - begun_ns) as f64 / 1e9
}

/// In a process of its own: folds a directory, and says what it cost.
fn measure(dir: &Path, what: &str) {
    let registry = registry(dir);
    let before = status("VmRSS:");
    let into = Into {
        index: (what == "index").then(Writer::default),
    };
    let begun = clock::now_ns();
    let mut fold = Fold::new(&registry, into);
    fold.directory(dir, u64::MAX).expect("a fold");
    let tally = fold.tally();
    let (into, _) = fold.finish();
    let took = seconds_since(begun);
    let index = into.index.map_or(0, |index| {
        let entries = (index.extents() + index.heads()) as u64;
        index.index().bytes() / entries.max(1)
    });
    println!(
        "{took} {} {} {} {index}",
        tally.bytes,
        tally.facts,
        status("VmHWM:") - before
    );
}

fn again(arguments: &[&str]) -> Vec<f64> {
    let own = std::env::current_exe().expect("this program");
    let output = Command::new(own).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect()
}

fn line(extents: u64, from: &str, dir: &Path) {
    let dir = dir.to_string_lossy();
    let alone = again(&["--measure", "alone", &dir]);
    let index = again(&["--measure", "index", &dir]);
    assert_eq!(index[2], 2.0 * extents as f64, "everything was told");
    println!(
        "{extents:>10} {from:>9} {:>9.1} {:>10.3} {:>10.3} {:>12.3} {:>10.1} {:>12} {:>10.1}",
        index[1] / 1e6,
        alone[0],
        index[0],
        index[0] / (extents as f64 / 1e6),
        alone[3],
        index[4],
        index[3],
    );
}

fn folds(sizes: &[u64]) {
    println!(
        "one head for each extent; one thread; MB of files, seconds, MiB of memory beyond that at the start"
    );
    println!(
        "{:>10} {:>9} {:>9} {:>10} {:>10} {:>12} {:>10} {:>12} {:>10}",
        "extents",
        "from",
        "MB",
        "fold s",
        "+ index s",
        "s / million",
        "fold MiB",
        "bytes/entry",
        "with index"
    );
    for &extents in sizes {
        let folder = Folder::new();
        synthesize(&folder.0, 1, extents);
        line(extents, "journals", &folder.0);
        let own = InstanceName {
            number: 2,
            random: 1,
        };
        fs::create_dir_all(own.folder(&folder.0)).expect("a folder");
        let begun = clock::now_ns();
        let done = Compactor::new(&folder.0, &own).eager().turn(|_| true);
        let done = done.expect("a snapshot").expect("something to do");
        let took = seconds_since(begun);
        assert_eq!((done.extents, done.heads), (extents, extents));
        line(extents, "snapshot", &folder.0);
        println!("{extents:>10} compacted in {took:.3} s");
    }
}

/// One request on a connection of its own: the whole answer, if there is one.
fn ask(address: SocketAddr, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn metric(admin: SocketAddr, name: &str) -> f64 {
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let text = ask(admin, request).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(-1.0)
}

/// An origin that has one object, whatever it is asked for.
fn origin(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"1\"\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
    listener.local_addr().expect("an address")
}

struct Server {
    process: Child,
    door: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    fn start(dir: &Path, origin: SocketAddr) -> Self {
        let (door, admin) = (free_address(), free_address());
        let process = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args([
                "serve",
                "--origin",
                &format!("http://{origin}"),
                "--ram",
                "256MiB",
            ])
            .args(["--listen", &door.to_string(), "--admin", &admin.to_string()])
            .args(["--shards", "2", "--disk", "4GiB", "--cache-dir"])
            .arg(dir)
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        Self {
            process,
            door,
            admin,
        }
    }

    fn read(&self) -> Option<String> {
        let request = "GET /bucket/object HTTP/1.1\r\nHost: store\r\nConnection: close\r\n\r\n";
        ask(self.door, request)
    }

    fn until<T>(&self, mut look: impl FnMut(&Self) -> Option<T>) -> (f64, T) {
        let begun = clock::now_ns();
        loop {
            if let Some(found) = look(self) {
                return (seconds_since(begun), found);
            }
            assert!(seconds_since(begun) < 120.0, "it never came");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// From the start of the process to an answer of the object's bytes out of the cache, and to the end of the fold.
fn first_hit(dir: &Path, origin: SocketAddr) -> (f64, f64) {
    let begun = clock::now_ns();
    let server = Server::start(dir, origin);
    // Nobody is asked before the entry is there: a miss would fetch it.
    server.until(|server| (metric(server.admin, "millrace_disk_heads") > 0.0).then_some(()));
    server.until(|server| {
        let listening = metric(server.admin, "millrace_disk_folding_shards") >= 0.0;
        listening.then_some(())
    });
    server.until(|server| {
        (metric(server.admin, "millrace_disk_folding_shards") == 0.0).then_some(())
    });
    let folded = seconds_since(begun);
    let (_, answer) = server.until(Server::read);
    assert!(
        answer.contains("X-Cache-Status: HIT") || answer.contains("x-cache-status: HIT"),
        "{answer}"
    );
    assert!(answer.ends_with("the body of it"), "{answer}");
    (folded, seconds_since(begun))
}

fn starts(extents: u64) {
    let folder = Folder::new();
    let origin = origin("the body of it");
    let server = Server::start(&folder.0, origin);
    server.until(|server| server.read().filter(|answer| answer.contains("200 OK")));
    server.until(|server| {
        let stored = metric(server.admin, "millrace_disk_extents") >= 1.0
            && metric(server.admin, "millrace_disk_heads") >= 1.0;
        stored.then_some(())
    });
    // Facts that nobody waits for are written within a second or two.
    std::thread::park_timeout(Duration::from_secs(3));
    drop(server);
    let youngest = keeper::instances(&folder.0).expect("instances").pop();
    synthesize(&folder.0, youngest.expect("one").number + 1, extents);
    println!(
        "seconds from the start of the server to the first hit, {extents} extents being younger than it"
    );
    let (folded, hit) = first_hit(&folder.0, origin);
    println!("from journals: fold ended {folded:.3}, hit {hit:.3}");
    let server = Server::start(&folder.0, origin);
    server.until(|server| {
        (metric(server.admin, "millrace_disk_snapshots_total") >= 0.0).then_some(())
    });
    server.until(|server| {
        let snapshots = Path::new(&folder.0).join(names::INSTANCES);
        let found = fs::read_dir(snapshots)
            .ok()?
            .flatten()
            .any(|instance| instance.path().join(names::snapshot(0)).exists());
        let _ = server;
        found.then_some(())
    });
    drop(server);
    let (folded, hit) = first_hit(&folder.0, origin);
    println!("from a snapshot: fold ended {folded:.3}, hit {hit:.3}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let after = |name: &str| arguments.iter().position(|argument| argument == name);
    if let Some(at) = after("--measure") {
        return measure(Path::new(&arguments[at + 2]), &arguments[at + 1]);
    }
    let timing = after("--bench").is_some();
    let (sizes, started): (&[u64], u64) = match timing {
        true => (&[1_000_000, 10_000_000], 1_000_000),
        false => (&[20_000], 20_000),
    };
    folds(sizes);
    starts(started);
}

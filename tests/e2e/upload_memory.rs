//! What uploads cost in memory: the largest that S3 takes, and a thousand slow ones at a time.

use crate::harness::client::Framing;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Connection, GIB, KIB, MIB, Millrace, PATIENCE, Stub, Tile, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What one upload may cost, all buffers and tasks of it together.
const BYTES_MAX: u64 = 64 * KIB;
const UPLOADS: u64 = 1_000;
/// What may be allocated for something else meanwhile.
const SPARE_BYTES: u64 = 24 * MIB;
const SEED: u64 = 501;

/// A line of `/proc/<process>/status`, in bytes.
#[track_caller]
pub fn memory(process: u32, name: &str) -> u64 {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(path).expect("the memory of our child");
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"));
    let kib: u64 = kib.expect("a size").parse().expect("a number");
    kib * KIB
}

/// Compares each byte of a body with what it must be, and keeps none. Parts are `part` long.
fn comparing(part: u64, taken: &Arc<AtomicU64>) -> Stub {
    let taken = Arc::clone(taken);
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        let number = seen.target().split_once("partNumber=");
        let number = number.and_then(|(_, rest)| rest.split('&').next()?.parse::<u64>().ok());
        let (tile, begin) = (Tile::new(SEED), (number.unwrap_or(1) - 1) * part);
        let framing = match seen.head.is_chunked() {
            true => Framing::Chunked,
            false => Framing::Length(seen.head.content_length().unwrap_or(0)),
        };
        let (mut at, mut right) = (begin, true);
        let read = wire.reader().body(framing, |bytes| {
            right &= seen.method() != "PUT" || tile.holds(at, bytes);
            at += bytes.len() as u64;
        });
        if read.is_err() {
            return After::Close;
        }
        taken.fetch_add(at - begin, Ordering::AcqRel);
        let xml =
            "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
        match (right, seen.method()) {
            (false, _) => wire.refuse("400 Bad Request", "BadDigest"),
            (true, "PUT") => wire.respond("200 OK", &[("ETag", "\"part\"")], b""),
            (true, _) => wire.respond("200 OK", &[], xml.as_bytes()),
        }
    })
}

/// Sends `start..end` of the content as the body of a PUT; chunked if told so.
fn put(client: &mut Connection, target: &str, (start, end): (u64, u64), chunked: bool) {
    let tile = Tile::new(SEED);
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", end - start),
    };
    client.send(format!(
        "PUT {target} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
    ));
    let mut chunk = Vec::new();
    tile.each_piece(start, end, |piece| match chunked {
        true => {
            chunk.clear();
            chunk.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            chunk.extend_from_slice(piece);
            chunk.extend_from_slice(b"\r\n");
            client.send(&chunk);
        }
        false => client.send(piece),
    });
    if chunked {
        client.send("0\r\n\r\n");
    }
    let answer = client.response("PUT").expect("an answer");
    assert_eq!(answer.status(), 200, "{}", answer.text());
}

fn multipart(server: &Millrace, path: &str, length: u64, part: u64) {
    let parts = length.div_ceil(part);
    std::thread::scope(|scope| {
        for lane in 0..4 {
            scope.spawn(move || {
                let mut client = server.connect();
                for number in (lane..parts).step_by(4) {
                    let target = format!("{path}?partNumber={}&uploadId=u", number + 1);
                    let bounds = (number * part, length.min((number + 1) * part));
                    put(&mut client, &target, bounds, false);
                }
            });
        }
    });
    let list: String = (1..=parts)
        .map(|number| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>\"part\"</ETag></Part>")
        })
        .collect();
    let xml = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
    let done = server.fetch(&Ask::new("POST", &format!("{path}?uploadId=u")).body(xml));
    assert_eq!(done.status(), 200, "{}", done.text());
}

/// Reference 2E.101.
#[test]
fn semantics_173_heavy_an_upload_of_5_gib_takes_no_more_memory_than_a_small_one() {
    let full = std::env::var_os("MILLRACE_TEST_FULL").is_some();
    let length = if full { 5 * GIB } else { 400 * MIB };
    let part = if full { 64 * MIB } else { 8 * MIB };
    for (write_through, slab_bytes) in [(false, 0), (true, 128 * MIB)] {
        let taken = Arc::new(AtomicU64::new(0));
        let origin = comparing(part, &taken);
        let settings =
            format!("[cache]\nwrite_through = {write_through}\nwrite_percent_max = 25\n");
        let server = Millrace::setup()
            .shards(2)
            .ram("128MiB")
            .settings(&settings)
            .start(origin.address);
        let process = server.child.id();
        put(&mut server.connect(), "/bucket/warm", (0, MIB), false);
        let (before, begun) = (memory(process, "VmRSS"), Instant::now());
        put(&mut server.connect(), "/bucket/one", (0, length), false);
        put(&mut server.connect(), "/bucket/chunked", (0, length), true);
        multipart(&server, "/bucket/parts", length, part);
        let most = memory(process, "VmHWM");
        println!(
            "3 x {} MiB in {:?}, write_through {write_through}: {} KiB resident before, {} KiB at most",
            length / MIB,
            begun.elapsed(),
            before / KIB,
            most / KIB,
        );
        let list_bytes = length.div_ceil(part) * 70 + 30;
        let took = taken.load(Ordering::Acquire);
        assert!((3 * length + MIB..=3 * length + MIB + list_bytes).contains(&took));
        assert!(
            most <= before + slab_bytes + SPARE_BYTES,
            "{before} bytes grew to {most}"
        );
        let kept = server.metrics();
        let no_room = kept.sum("millrace_writes_kept_total", &[("result", "no_room")]);
        assert_eq!(no_room > 0.0, write_through, "nothing was too large");
        server.finish();
    }
}

/// An origin that reads no body before it is told to, nor waits for the end of one.
fn reluctant(reads: &Arc<AtomicBool>, taken: &Arc<AtomicU64>) -> Stub {
    let (reads, taken) = (Arc::clone(reads), Arc::clone(taken));
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        while !reads.load(Ordering::Acquire) && !wire.is_stopping() {
            std::thread::sleep(Duration::from_millis(20));
        }
        let length = seen.head.content_length().unwrap_or(0);
        let read = wire.reader().body(Framing::Length(length), |bytes| {
            taken.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        });
        match read {
            Ok(_) => wire.respond("200 OK", &[("ETag", "\"e\"")], b""),
            Err(_) => After::Close,
        }
    })
}

/// Sends until nothing more goes.
fn push(client: &mut Connection, bytes: &[u8]) -> u64 {
    use std::io::Write;
    let stream = &client.reader.stream;
    stream.set_nonblocking(true).expect("a socket");
    let mut sent = 0;
    while let Ok(more @ 1..) = (&*stream).write(&bytes[sent..]) {
        sent += more;
    }
    stream.set_nonblocking(false).expect("a socket");
    sent as u64
}

struct Slow {
    server: Millrace,
    clients: Vec<Connection>,
    before: u64,
}

impl Slow {
    /// Opens as many uploads of `length` bytes as there are to be.
    fn begin(origin: &Stub, write_through: bool, length: u64) -> Slow {
        ::millrace::io::probe::raise_nofile().expect("the limit of descriptors");
        let settings = format!(
            "[cache]\nwrite_through = {write_through}\nwrite_percent_max = 1\n[upstream]\nconnections_max = 4000\nidle_timeout = '20s'\nconnect_timeout = '20s'\n[listener]\nconnections_max = 4000\nsend_timeout = '20s'\n"
        );
        let server = Millrace::setup()
            .shards(2)
            .settings(&settings)
            .start(origin.address);
        let process = server.child.id();
        let warm: Vec<Connection> = (0..50).map(|_| server.connect()).collect();
        drop(warm);
        server.assert_nothing_held();
        let before = memory(process, "VmRSS");
        let begun = origin.requests();
        let clients = (0..UPLOADS).map(|number| {
            // The origin takes connections one by one, and its queue is short.
            if number % 50 == 49 {
                std::thread::sleep(Duration::from_millis(20));
            }
            let mut client = server.connect();
            client.send(format!(
                "PUT /bucket/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
            ));
            client
        });
        let clients = clients.collect();
        // One that is still being dialled would be in flight for as long as that may take, its client gone or not.
        wait_until("that the origin has heard of all", PATIENCE * 6, || {
            origin.requests() - begun == UPLOADS as usize
        });
        Slow {
            clients,
            before,
            server,
        }
    }

    /// All leave at once.
    fn end(mut self) {
        for client in self.clients.drain(..) {
            client.reset();
        }
        wait_until("that all have gone", PATIENCE * 2, || {
            self.server.metrics().held().is_empty()
        });
        self.server.finish();
    }

    #[track_caller]
    fn assert_growth(&self, when: &str) {
        let resident = memory(self.server.child.id(), "VmRSS");
        let each = resident.saturating_sub(self.before) / UPLOADS;
        println!("{when}: {each} bytes resident for each of {UPLOADS} uploads");
        assert!(each <= BYTES_MAX, "{when}: {each} bytes an upload");
    }
}

#[test]
fn semantics_174_heavy_a_thousand_slow_uploads_cost_64_kib_each_at_most() {
    let tile = Tile::new(SEED);
    let body = tile.slice(0, 8 * MIB);
    // Slow clients: each gives a little, and then a little more.
    let (reads, taken) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let origin = reluctant(&reads, &taken);
    let mut slow = Slow::begin(&origin, false, body.len() as u64);
    for (round, bytes) in [(1, 300), (2, 200 * 1024)] {
        for client in &mut slow.clients {
            client.send(&body[..bytes]);
        }
        let sent = if round == 1 { 300 } else { 300 + 200 * 1024 } * UPLOADS;
        wait_until("that it has come", PATIENCE * 6, || {
            taken.load(Ordering::Acquire) == sent
        });
        slow.assert_growth(&format!("clients that pause after {bytes} bytes"));
    }
    slow.end();
    // An origin that takes nothing: what is on its way waits here.
    let (reads, taken) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let origin = reluctant(&reads, &taken);
    let mut slow = Slow::begin(&origin, false, body.len() as u64);
    let mut sent = 0;
    for _ in 0..3 {
        for client in &mut slow.clients {
            sent += push(client, &body);
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    println!("{sent} bytes pushed");
    assert!(sent > UPLOADS * 100 * KIB, "{sent}");
    slow.assert_growth("an origin that takes nothing");
    reads.store(true, Ordering::Release);
    slow.end();
}

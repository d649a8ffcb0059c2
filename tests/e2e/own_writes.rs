//! Reading one's own writes, and everybody's: each key is a register, and no read may see less than the last write that was acknowledged
//! before it began.

use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Connection, Millrace, Store, Stub};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 32;
const KEYS: u64 = 12;
/// A machine that stands still for a while is no violation.
const SETTINGS: &str = "[cache]\nttl = '1h'\nwrite_through = true\n[upstream]\nfirst_byte_timeout = '10m'\nidle_timeout = '10m'\n[listener]\nsend_timeout = '10m'\n";
/// Of one part of a multipart upload.
const PART: usize = 5 << 20;

/// One key: what was sent, and what of it was acknowledged. Writers of one key take turns, so that a larger number is a later write.
#[derive(Default)]
struct Register {
    turn: Mutex<()>,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// The last acknowledged write was a removal.
    removed: RwLock<Vec<u64>>,
}

struct World {
    registers: Vec<Register>,
    store: Store,
    door: SocketAddr,
    reads: AtomicU64,
    /// Answers that broke off, and were not judged.
    cuts: AtomicU64,
    /// Rounds of all clients that have begun.
    rounds: AtomicU64,
    /// How much is done.
    task: Task,
    /// Body bytes that the clients received.
    received: AtomicU64,
}

/// When it is enough: after so many rounds of all clients, or so long, whichever comes first.
#[derive(Clone, Copy)]
struct Task {
    rounds: u64,
    until: Option<Instant>,
}

impl Task {
    /// `MILLRACE_TEST_ROUNDS` (of all clients together) and `MILLRACE_TEST_SECONDS`; where neither is given, as many as fit into a run of all tests.
    fn of_environment() -> Task {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(text.parse::<u64>().expect("a number"))
        };
        let full = std::env::var_os("MILLRACE_TEST_FULL").is_some();
        let seconds = number("MILLRACE_TEST_SECONDS").map(Duration::from_secs);
        let few = if full { 800 } else { 12 } * CLIENTS;
        let most = if seconds.is_some() { u64::MAX } else { few };
        Task {
            rounds: number("MILLRACE_TEST_ROUNDS").unwrap_or(most),
            until: seconds.map(|seconds| Instant::now() + seconds),
        }
    }
}

/// A store that knows copies and multipart uploads, each of which is done at one moment.
fn with_uploads(store: &Store) -> Stub {
    type Parts = BTreeMap<(String, u32), Vec<u8>>;
    let (store, parts) = (store.clone(), Arc::new(Mutex::new(Parts::new())));
    let uploads = AtomicU64::new(0);
    Stub::start(move |seen: &mut Seen, wire: &mut Wire| {
        let target = seen.target().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(own, _)| *own == name)
                .map(|(_, value)| value.to_owned())
        };
        match (seen.method(), value("uploadId"), value("partNumber")) {
            ("POST", None, _) => {
                let upload = uploads.fetch_add(1, Ordering::Relaxed);
                let xml = format!("<R><UploadId>{upload}</UploadId></R>");
                wire.respond("200 OK", &[], xml.as_bytes())
            }
            ("PUT", Some(upload), Some(part)) => {
                let Ok(body) = wire.read_body(&seen.head) else {
                    return After::Close;
                };
                let etag = Object::bytes(&body).etag;
                let name = (upload, part.parse().expect("a number"));
                parts.lock().expect("parts").insert(name, body);
                wire.respond("200 OK", &[("ETag", &etag)], b"")
            }
            ("POST", Some(upload), _) => {
                if wire.read_body(&seen.head).is_err() {
                    return After::Close;
                }
                let mut parts = parts.lock().expect("parts");
                let own = parts.extract_if((upload.clone(), 0)..=(upload, u32::MAX), |_, _| true);
                let whole: Vec<u8> = own.flat_map(|(_, body)| body).collect();
                drop(parts);
                let object = Object::bytes(&whole);
                let xml = format!(
                    "<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>",
                    object.etag
                );
                store.insert(path, object);
                wire.respond("200 OK", &[], xml.as_bytes())
            }
            ("PUT", ..) if seen.header("x-amz-copy-source").is_some() => {
                let source = seen.header("x-amz-copy-source").expect("a source");
                let object = store.object(source).expect("the source");
                store.insert(path, object);
                wire.respond("200 OK", &[], b"<CopyObjectResult></CopyObjectResult>")
            }
            _ => store.answer(seen, wire),
        }
    })
}

/// The body of a write: its number, again and again.
fn body_of(key: u64, number: u64, bytes: usize) -> Vec<u8> {
    let word = format!("{key:04}:{number:010};");
    word.bytes().cycle().take(bytes).collect()
}

/// The write that a body is of; every byte of it is of that one.
fn number_of(key: u64, body: &[u8]) -> u64 {
    let text = std::str::from_utf8(&body[5..15]).expect("a number");
    let number = text.parse().expect("a number");
    assert!(
        body == body_of(key, number, body.len()),
        "a mixed body of key {key}, write {number}"
    );
    number
}

fn path(key: u64) -> String {
    format!("/bucket/register-{key}")
}

impl World {
    /// A write, acknowledged when this returns.
    fn write(&self, connection: &mut Connection, key: u64, kind: u64) {
        let register = &self.registers[key as usize];
        let turn = register.turn.lock().expect("a turn");
        let number = register.sent.fetch_add(1, Ordering::SeqCst) + 1;
        match kind % 8 {
            0 => {
                register.removed.write().expect("removals").push(number);
                let gone = connection.exchange(&Ask::new("DELETE", &path(key)));
                assert_eq!(gone.status(), 204, "{}", gone.text());
            }
            1 => self.copy(connection, key, number),
            2 => self.multipart(connection, key, number),
            _ => {
                let bytes = 40 + (number as usize * 7919) % 200_000;
                self.put(connection, &path(key), body_of(key, number, bytes));
            }
        }
        register.acknowledged.store(number, Ordering::SeqCst);
        drop(turn);
    }

    fn put(&self, connection: &mut Connection, path: &str, body: Vec<u8>) -> String {
        let answer = connection.exchange(&Ask::put(path, body));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.header("etag").expect("an ETag").to_owned()
    }

    fn copy(&self, connection: &mut Connection, key: u64, number: u64) {
        let source = format!("/bucket/source-{key}-{number}");
        let body = body_of(key, number, 3_000);
        self.store.insert(&source, Object::bytes(&body));
        let ask = Ask::new("PUT", &path(key)).header("x-amz-copy-source", &source);
        let copied = connection.exchange(&ask);
        assert_eq!(copied.status(), 200, "{}", copied.text());
    }

    fn multipart(&self, connection: &mut Connection, key: u64, number: u64) {
        let begin = Ask::new("POST", &format!("{}?uploads", path(key)));
        let text = connection.exchange(&begin).text();
        let (_, rest) = text.split_once("<UploadId>").expect("an upload id");
        let upload = rest.split_once('<').expect("its end").0;
        let whole = body_of(key, number, PART + 1_000);
        let mut list = String::new();
        for (index, part) in whole.chunks(PART).enumerate() {
            let target = format!("{}?partNumber={}&uploadId={upload}", path(key), index + 1);
            let etag = self.put(connection, &target, part.to_vec());
            list += &format!(
                "<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>",
                index + 1
            );
        }
        let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let ask = Ask::new("POST", &format!("{}?uploadId={upload}", path(key))).body(body);
        let done = connection.exchange(&ask);
        assert_eq!(done.status(), 200, "{}", done.text());
        assert!(done.text().contains("<ETag>"), "{}", done.text());
    }

    /// A read, judged by what was acknowledged before it began and sent before it ended.
    fn read(&self, connection: &mut Connection, key: u64, ranged: bool) {
        let register = &self.registers[key as usize];
        let least = register.acknowledged.load(Ordering::SeqCst);
        let mut ask = Ask::get(&path(key));
        if ranged {
            ask = ask.header("Range", "bytes=0-29");
        }
        let tried = connection.try_exchange(&ask);
        let most = register.sent.load(Ordering::SeqCst);
        let Ok(answer) = tried else {
            // A body whose version the origin has no more is cut, for its client to ask again; nothing else is.
            assert!(most > least, "key {key}: a cut without a write");
            self.cuts.fetch_add(1, Ordering::Relaxed);
            *connection = self.connect();
            return;
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        let bytes = answer.body.len() as u64;
        self.received.fetch_add(bytes, Ordering::Relaxed);
        match answer.status() {
            200 | 206 => {
                let number = number_of(key, &answer.body);
                assert!(
                    (least..=most).contains(&number),
                    "key {key}: read {number}, acknowledged {least}, sent {most}, marked {}",
                    answer.cache_word()
                );
            }
            404 => {
                let removed = register.removed.read().expect("removals");
                let fits = least == 0 || removed.iter().any(|gone| (least..=most).contains(gone));
                assert!(fits, "key {key}: 404, acknowledged {least}, sent {most}");
            }
            status => panic!("key {key}: {status} {}", answer.text()),
        }
    }

    fn connect(&self) -> Connection {
        let mut connection = Connection::open(self.door);
        connection.patience(Duration::from_secs(600));
        connection
    }

    fn goes_on(&self) -> bool {
        let in_time = self.task.until.is_none_or(|until| Instant::now() < until);
        in_time && self.rounds.fetch_add(1, Ordering::Relaxed) < self.task.rounds
    }

    fn client(&self, client: u64) {
        let mut connection = self.connect();
        for round in 0.. {
            if !self.goes_on() {
                return;
            }
            let dice = (client * 2_654_435_761 + round * 40_503) ^ (round << 3);
            let key = dice % KEYS;
            self.write(&mut connection, key, dice / KEYS);
            self.read(&mut connection, key, false);
            self.read(&mut connection, key, true);
            self.read(
                &mut connection,
                (key + 1 + client) % KEYS,
                dice.is_multiple_of(2),
            );
        }
    }
}

/// Reference 2A.20, 2E.90 and 2E.96.
#[test]
fn semantics_165_heavy_every_read_sees_the_last_acknowledged_write_or_a_later_one() {
    let store = Store::new();
    let origin = with_uploads(&store);
    let server = Millrace::setup()
        .shards(2)
        .ram("256MiB")
        .settings(SETTINGS)
        .start(origin.address);
    let world = World {
        registers: (0..KEYS).map(|_| Register::default()).collect(),
        store,
        door: server.door,
        reads: AtomicU64::new(0),
        cuts: AtomicU64::new(0),
        rounds: AtomicU64::new(0),
        task: Task::of_environment(),
        received: AtomicU64::new(0),
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let world = &world;
            scope.spawn(move || world.client(client));
        }
    });
    let [reads, cuts] = [&world.reads, &world.cuts].map(|count| count.load(Ordering::Relaxed));
    let (rounds, sent) = ((reads + cuts) / 3, world.store.body_bytes());
    let received = world.received.load(Ordering::Relaxed);
    let metrics = server.metrics();
    let kept = |result| metrics.sum("millrace_writes_kept_total", &[("result", result)]);
    println!(
        "{rounds} rounds in {:?}: {reads} reads, {cuts} cuts, no violation; {} uploads kept, {} beaten; {received} body bytes read, {sent} of them sent by the origin",
        begun.elapsed(),
        kept("kept"),
        kept("beaten"),
    );
    assert_eq!(reads + cuts, rounds * 3);
    assert!(rounds >= CLIENTS, "every client has done something");
    assert!(cuts * 100 < reads, "{cuts} cuts for {reads} reads");
    assert!(server.results("hit") > 0, "nothing was read from the cache");
    // Copies are read from the origin, and what was beaten by another write while it was kept.
    assert!(
        sent * 3 < received,
        "{sent} of {received} bytes came from the origin"
    );
    server.finish();
}

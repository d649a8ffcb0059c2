//! Writes that break off: whichever side leaves, and wherever it does, no byte of them stays, no connection leaks, and the next read is right.

use crate::harness::client::Framing;
use crate::harness::store::Object;
use crate::harness::stub::{After, Seen, Wire};
use crate::harness::{Ask, Connection, Millrace, PATIENCE, Store, Stub, Tile, wait_until};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a write breaks off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    BeforeHead,
    InHead,
    InBody,
    AfterBody,
    InAnswerHead,
    InAnswerBody,
}

const STAGES: [Stage; 6] = [
    Stage::BeforeHead,
    Stage::InHead,
    Stage::InBody,
    Stage::AfterBody,
    Stage::InAnswerHead,
    Stage::InAnswerBody,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    /// With an orderly end.
    OriginCloses,
    OriginResets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Put,
    AwsChunked,
    Part,
    Complete,
    Abort,
}

/// What the origin does with the next write.
#[derive(Clone, Copy, Debug)]
struct Script {
    stage: Stage,
    side: Side,
}

struct World {
    store: Store,
    origin: Stub,
    script: Arc<Mutex<Option<Script>>>,
    /// Writes that have come to their stage.
    reached: Arc<AtomicU64>,
    server: Millrace,
}

/// The place of the break, where it is the client's turn to leave: says so and waits for it.
fn leave_to(side: Side, reached: &AtomicU64, wire: &mut Wire) -> After {
    reached.fetch_add(1, Ordering::AcqRel);
    match side {
        Side::Client => wire.hang(),
        Side::OriginCloses => After::Close,
        Side::OriginResets => After::Reset,
    }
}

/// Does a write as far as the script says.
fn scripted(
    store: &Store,
    script: Script,
    reached: &AtomicU64,
    seen: &mut Seen,
    wire: &mut Wire,
) -> After {
    let Script { stage, side } = script;
    if matches!(stage, Stage::BeforeHead | Stage::InHead) {
        return leave_to(side, reached, wire);
    }
    if stage == Stage::InBody {
        let half = seen.head.content_length().unwrap_or(0) / 2;
        let _ = wire.reader().body(Framing::Length(half), |_| {});
        return leave_to(side, reached, wire);
    }
    let Ok(body) = wire.read_body(&seen.head) else {
        return After::Close;
    };
    let (path, query) = seen.target().split_once('?').unwrap_or((seen.target(), ""));
    if seen.method() == "POST" || (seen.method() == "PUT" && query.is_empty()) {
        store.insert(path, Object::bytes(&content_of(seen, &body)));
    }
    let head = "HTTP/1.1 200 OK\r\nETag: \"0123\"\r\nContent-Length: 100\r\n\r\n";
    let _ = match stage {
        Stage::InAnswerHead => wire.send(&head[..30]),
        Stage::InAnswerBody => wire.send([head.as_bytes(), &[b' '; 40]].concat()),
        _ => Ok(()),
    };
    leave_to(side, reached, wire)
}

/// What the origin makes of a body.
fn content_of(seen: &Seen, body: &[u8]) -> Vec<u8> {
    let framed = seen.header("x-amz-decoded-content-length").is_some();
    let end = body.iter().position(|byte| *byte == b'\n');
    match end {
        Some(end) if framed => body[end + 1..body.len() - FRAME_END.len()].to_vec(),
        _ => body.to_vec(),
    }
}

fn world() -> World {
    let store = Store::new();
    let script: Arc<Mutex<Option<Script>>> = Arc::default();
    let reached: Arc<AtomicU64> = Arc::default();
    let origin = {
        let (store, script, reached) = (store.clone(), script.clone(), reached.clone());
        Stub::start(move |seen, wire| {
            let script = *script.lock().expect("the script");
            match (seen.method(), script) {
                ("GET" | "HEAD", _) | (_, None) if !seen.target().contains('?') => {
                    store.answer(seen, wire)
                }
                (_, Some(script)) => scripted(&store, script, &reached, seen, wire),
                (_, None) => match wire.read_body(&seen.head) {
                    Ok(_) => wire.respond("200 OK", &[("ETag", "\"p\"")], b""),
                    Err(_) => After::Close,
                },
            }
        })
    };
    let settings = "[cache]\nwrite_through = true\n[upstream]\nfirst_byte_timeout = '5s'\nretries = 0\n[outage]\nfall = 0\n";
    let server = Millrace::setup()
        .shards(2)
        .settings(settings)
        .start(origin.address);
    World {
        store,
        origin,
        script,
        reached,
        server,
    }
}

const FRAME_END: &[u8] = b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";

fn ask_of(kind: Kind, path: &str, seed: u64) -> Ask {
    let body = Tile::new(seed).slice(0, 900_000 + seed);
    match kind {
        Kind::Put => Ask::put(path, body),
        Kind::AwsChunked => {
            let size = format!("{:x}\r\n", body.len());
            let framed = [size.as_bytes(), &body, FRAME_END].concat();
            Ask::put(path, framed)
                .header("Content-Encoding", "aws-chunked")
                .header("x-amz-trailer", "x-amz-checksum-crc32")
                .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
                .header("x-amz-decoded-content-length", &body.len().to_string())
        }
        Kind::Part => Ask::put(&format!("{path}?partNumber=2&uploadId=u"), body),
        Kind::Complete => {
            let part = "<Part><PartNumber>1</PartNumber><ETag>\"p\"</ETag></Part>";
            let xml = format!("<CompleteMultipartUpload>{part}</CompleteMultipartUpload>");
            Ask::new("POST", &format!("{path}?uploadId=u")).body(xml)
        }
        Kind::Abort => Ask::new("DELETE", &format!("{path}?uploadId=u")),
    }
}

fn staged_bytes(server: &Millrace) -> f64 {
    server.metrics().sum("millrace_writes_staged_bytes", &[])
}

impl World {
    fn say(&self, script: Option<Script>) {
        *self.script.lock().expect("the script") = script;
    }

    /// The client does what it does before it leaves; waits until the origin is where it should be.
    fn leave(&self, ask: &Ask, stage: Stage) {
        let mut client = self.server.connect();
        let before = self.reached.load(Ordering::Acquire);
        let head = ask.head_bytes(self.server.door);
        match stage {
            Stage::BeforeHead => {}
            Stage::InHead => client.send(&head[..head.len() / 2]),
            Stage::InBody => client.send([&head, &ask.body[..ask.body.len() / 2]].concat()),
            Stage::AfterBody | Stage::InAnswerHead | Stage::InAnswerBody => client.send_ask(ask),
        }
        // A request without a body that can be cut comes whole, or not at all.
        let half_of_nothing = stage == Stage::InBody && ask.body.is_empty();
        if !matches!(stage, Stage::BeforeHead | Stage::InHead) && !half_of_nothing {
            wait_until("the origin at its stage", PATIENCE, || {
                self.reached.load(Ordering::Acquire) > before
            });
        }
        if stage == Stage::InAnswerBody {
            assert_eq!(client.head().expect("the head of the answer").status(), 200);
        }
        client.reset();
    }

    /// The origin leaves: its client is told, or cut.
    fn be_left(&self, ask: &Ask, stage: Stage) {
        let mut client = self.server.connect();
        let _ = client.try_send([ask.head_bytes(self.server.door), ask.body.clone()].concat());
        match client.response(&ask.method) {
            Ok(answer) => assert!(
                matches!(answer.status(), 502..=504) && stage != Stage::InAnswerBody,
                "{stage:?}: {} {}",
                answer.status(),
                answer.text()
            ),
            Err(_) => assert_eq!(stage, Stage::InAnswerBody, "a cut without a word"),
        }
    }

    fn run(&self, kind: Kind, stage: Stage, side: Side, seed: u64) {
        let path = format!("/bucket/{seed}");
        let what = format!("{kind:?} {stage:?} {side:?}");
        self.store
            .insert(&path, Object::bytes(format!("old {seed}").as_bytes()));
        assert_eq!(self.server.get(&path).status(), 200);
        if matches!(kind, Kind::Part | Kind::Complete | Kind::Abort) {
            let first = format!("{path}?partNumber=1&uploadId=u");
            let first = Ask::put(&first, Tile::new(seed).slice(0, 300_000));
            assert_eq!(self.server.fetch(&first).status(), 200);
            wait_until(&format!("the first part: {what}"), PATIENCE, || {
                staged_bytes(&self.server) == 300_000.0
            });
        }
        self.say(Some(Script { stage, side }));
        let ask = ask_of(kind, &path, seed);
        match side {
            Side::Client => self.leave(&ask, stage),
            Side::OriginCloses | Side::OriginResets => self.be_left(&ask, stage),
        }
        self.server.assert_nothing_held();
        self.say(None);
        let truth = self.store.object(&path).expect("the object");
        let length = truth.content.length();
        for _ in 0..2 {
            let read = self.server.get(&path);
            assert_eq!(read.status(), 200, "{what}");
            assert_eq!(read.body.len() as u64, length, "{what}");
            let etag = Object::bytes(&read.body).etag;
            assert_eq!(etag, truth.etag, "{what}: other bytes than the origin's");
        }
        // What was staged before is of an upload that goes on, until somebody ends it.
        let never_came = side == Side::Client && matches!(stage, Stage::BeforeHead | Stage::InHead);
        let ended = kind == Kind::Abort && !never_came;
        if matches!(kind, Kind::Part | Kind::Complete | Kind::Abort) && !ended {
            let give_up = ask_of(Kind::Abort, &path, seed);
            assert_eq!(self.server.fetch(&give_up).status(), 200);
        }
        wait_until(&format!("no staged bytes: {what}"), PATIENCE, || {
            staged_bytes(&self.server) == 0.0
        });
    }
}

/// Reference 2E.91 and 2E.99.
#[test]
fn semantics_166_a_write_that_breaks_off_anywhere_leaves_nothing_behind() {
    let world = world();
    let mut seed = 0;
    for kind in [
        Kind::Put,
        Kind::AwsChunked,
        Kind::Part,
        Kind::Complete,
        Kind::Abort,
    ] {
        for stage in STAGES {
            for side in [Side::Client, Side::OriginCloses, Side::OriginResets] {
                seed += 1;
                world.run(kind, stage, side, seed);
            }
        }
    }
    wait_until("only idle connections", PATIENCE, || {
        world.origin.open_connections() <= 4
    });
    let metrics = world.server.metrics();
    assert!(metrics.sum("millrace_process_open_descriptors", &[]) < 100.0);
    let kept = metrics.sum("millrace_writes_kept_total", &[("result", "kept")]);
    // Those whose 200 was there before the rest of the answer was lost; their readers found another ETag.
    assert_eq!(kept, 6.0);
    world.server.finish();
}

#[test]
fn semantics_167_uploads_that_nobody_goes_on_with_are_forgotten() {
    let store = Store::new();
    let origin = Stub::start({
        let store = store.clone();
        move |seen: &mut Seen, wire: &mut Wire| match seen.target().contains('?') {
            true => match wire.read_body(&seen.head) {
                Ok(_) => wire.respond("200 OK", &[("ETag", "\"p\"")], b""),
                Err(_) => After::Close,
            },
            false => store.answer(seen, wire),
        }
    });
    let server = Millrace::setup()
        .shards(2)
        .settings("[cache]\nwrite_through = true\nwrite_idle_timeout = '1s'\n")
        .start(origin.address);
    for number in 0..50 {
        let target = format!("/bucket/{number}?partNumber=1&uploadId=u");
        let part = Ask::put(&target, Tile::new(number).slice(0, 200_000));
        assert_eq!(server.fetch(&part).status(), 200);
    }
    wait_until("that they are kept", PATIENCE, || {
        staged_bytes(&server) > 0.0
    });
    wait_until("that all are forgotten", Duration::from_secs(10), || {
        staged_bytes(&server) == 0.0
    });
    wait_until("that no extent is left of them", PATIENCE, || {
        server.metrics().sum("millrace_index_extents", &[]) == 0.0
    });
    // One that is ended later than that is what the origin makes of it.
    let body = Tile::new(99).slice(0, 5_000);
    store.insert("/bucket/7", Object::bytes(&body));
    let xml = "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"p\"</ETag></Part></CompleteMultipartUpload>";
    let late = Ask::new("POST", "/bucket/7?uploadId=u").body(xml);
    assert_eq!(Connection::open(server.door).exchange(&late).status(), 200);
    server
        .get("/bucket/7")
        .assert_body(&Tile::new(99), 0, 5_000);
    server.finish();
}

//! A small S3 behind the stub: objects with versions, exact conditionals and ranges,
//! PUT, DELETE, and an account of which bytes left it. Faults are the caller's: it
//! wraps `answer` or stops it at a gate.

use super::Tile;
use super::conditions::{Judged, judge};
use super::queries::{Queried, part_bounds, refuse_range};
use super::stub::{After, Seen, Stub, Wire};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One version of one object.
#[derive(Clone)]
pub struct Object {
    pub content: Content,
    pub etag: String,
    /// Further response headers, in order.
    pub headers: Vec<(String, String)>,
    /// Lengths of the parts that it was made of; empty if it was not.
    pub parts: Vec<u64>,
}

#[derive(Clone)]
pub enum Content {
    Tile(Tile, u64),
    Bytes(Arc<[u8]>),
}

impl Content {
    pub fn length(&self) -> u64 {
        match self {
            Content::Tile(_, length) => *length,
            Content::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// The longest piece at `position` before `end`, at most `limit` bytes.
    fn piece(&self, position: u64, end: u64, limit: u64) -> &[u8] {
        let take = (end - position).min(limit) as usize;
        match self {
            Content::Tile(tile, _) => tile.piece(position, take),
            Content::Bytes(bytes) => &bytes[position as usize..position as usize + take],
        }
    }
}

impl Object {
    pub fn tile(seed: u64, length: u64) -> Object {
        Object::of(
            Content::Tile(Tile::new(seed), length),
            &format!("\"{seed:032x}\""),
        )
    }

    pub fn bytes(bytes: &[u8]) -> Object {
        let etag = format!("\"{}\"", &super::sha256_hex(bytes)[..32]);
        Object::of(Content::Bytes(bytes.into()), &etag)
    }

    fn of(content: Content, etag: &str) -> Object {
        let headers = [
            ("Content-Type", "binary/octet-stream"),
            ("Last-Modified", "Wed, 12 Aug 2026 10:00:00 GMT"),
            ("x-amz-meta-Mixed", "Case \u{e9} kept"),
            ("x-amz-storage-class", "STANDARD"),
        ];
        let headers = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Object {
            content,
            etag: etag.to_owned(),
            headers,
            parts: Vec::new(),
        }
    }

    pub fn last_modified(&self) -> &str {
        let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("last-modified");
        self.headers
            .iter()
            .find(named)
            .map_or("", |(_, value)| value)
    }

    /// The same bytes written again at another time, with other metadata.
    pub fn rewritten(mut self, last_modified: &str, name: &str, value: &str) -> Object {
        self.headers
            .retain(|(own, _)| !own.eq_ignore_ascii_case("last-modified"));
        self.header("Last-Modified", last_modified)
            .header(name, value)
    }

    pub fn header(mut self, name: &str, value: &str) -> Object {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Body bytes of GET answers that were sent: (path, first, one past last).
    sent: Mutex<Vec<(String, u64, u64)>>,
    body_bytes: AtomicU64,
    /// While shut, no byte at or beyond the position is sent.
    gate: Mutex<Option<u64>>,
    bytes_per_second: AtomicU64,
    stopped: AtomicBool,
}

/// The store; clones share it.
#[derive(Clone, Default)]
pub struct Store(Arc<State>);

impl Store {
    pub fn new() -> Store {
        Store::default()
    }

    /// A stub that answers from this store.
    pub fn serve(&self) -> Stub {
        let store = self.clone();
        Stub::start(move |seen, wire| store.answer(seen, wire))
    }

    pub fn insert(&self, path: &str, object: Object) {
        self.0
            .objects
            .lock()
            .expect("objects")
            .insert(path.to_owned(), object);
    }

    pub fn remove(&self, path: &str) {
        self.0.objects.lock().expect("objects").remove(path);
    }

    pub fn object(&self, path: &str) -> Option<Object> {
        self.0.objects.lock().expect("objects").get(path).cloned()
    }

    /// Holds back every byte at or beyond `position`, of every object, until `open_gate`.
    pub fn shut_gate(&self, position: u64) {
        *self.0.gate.lock().expect("gate") = Some(position);
    }

    pub fn open_gate(&self) {
        *self.0.gate.lock().expect("gate") = None;
    }

    /// Limits each answer's body; 0 lifts the limit.
    pub fn limit_rate(&self, bytes_per_second: u64) {
        self.0
            .bytes_per_second
            .store(bytes_per_second, Ordering::Release);
    }

    /// Body bytes of all GET answers.
    pub fn body_bytes(&self) -> u64 {
        self.0.body_bytes.load(Ordering::Acquire)
    }

    /// What was sent of `path`, sorted, adjoining runs joined, with overlaps as they were.
    pub fn sent(&self, path: &str) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = self
            .0
            .sent
            .lock()
            .expect("sent")
            .iter()
            .filter(|(own, first, end)| own == path && first < end)
            .map(|(_, first, end)| (*first, *end))
            .collect();
        runs.sort_unstable();
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for (first, end) in runs {
            match joined.last_mut() {
                Some(last) if last.1 == first => last.1 = end,
                _ => joined.push((first, end)),
            }
        }
        joined
    }

    /// Asserts that each byte of `path` left the store exactly once.
    #[track_caller]
    pub fn assert_sent_once(&self, path: &str) {
        let length = self.object(path).expect("the object").content.length();
        assert_eq!(
            self.sent(path),
            [(0, length)],
            "bytes of {path} that the origin sent"
        );
    }

    pub fn answer(&self, seen: &mut Seen, wire: &mut Wire) -> After {
        let path = seen
            .target()
            .split('?')
            .next()
            .unwrap_or_default()
            .to_owned();
        // Whatever the method, the body belongs to this request and not to the next.
        let Ok(body) = wire.read_body(&seen.head) else {
            return After::Close;
        };
        seen.body = body;
        match seen.method() {
            "GET" | "HEAD" => self.read(&path, seen, wire),
            "PUT" => {
                let object = Object::bytes(&seen.body);
                let etag = object.etag.clone();
                self.insert(&path, object);
                wire.respond("200 OK", &[("ETag", &etag)], b"")
            }
            "DELETE" => {
                self.remove(&path);
                wire.respond("204 No Content", &[], b"")
            }
            _ => {
                let xml = b"<?xml version=\"1.0\"?>\n<Result/>";
                wire.respond("200 OK", &[("Content-Type", "application/xml")], xml)
            }
        }
    }

    fn read(&self, path: &str, seen: &Seen, wire: &mut Wire) -> After {
        let queried = Queried::of(seen);
        let Some(object) = self.object(&queried.name(path)) else {
            if seen.method() == "HEAD" {
                return wire
                    .respond("404 Not Found", &[("Connection", "close")], b"")
                    .min_close();
            }
            return wire.refuse("404 Not Found", "NoSuchKey");
        };
        if queried.overrides_without_signature(seen) {
            return wire.refuse("400 Bad Request", "InvalidRequest");
        }
        let object = queried.overridden(object);
        let modified = object.last_modified().to_owned();
        let judged = judge(seen, &object.etag, &modified);
        match judged {
            Judged::AsAsked | Judged::Whole => {}
            Judged::NotModified => {
                let mut headers = vec![("ETag", &*object.etag), ("Last-Modified", &*modified)];
                let control = |(name, _): &&(String, String)| name == "Cache-Control";
                let control = object.headers.iter().find(control);
                headers.extend(control.map(|(name, value)| (&**name, &**value)));
                return wire.respond("304 Not Modified", &headers, b"");
            }
            Judged::Failed if seen.method() == "HEAD" => {
                return wire
                    .respond("412 Precondition Failed", &[("Connection", "close")], b"")
                    .min_close();
            }
            Judged::Failed => {
                return wire.refuse("412 Precondition Failed", "PreconditionFailed");
            }
        }
        let length = object.content.length();
        if queried.part.is_some() && seen.header("range").is_some() {
            return wire.refuse("400 Bad Request", "InvalidRequest");
        }
        let part = queried.part.map(|number| part_bounds(&object, number));
        let asked = match part {
            Some(None) => {
                return wire.refuse("416 Requested Range Not Satisfiable", "InvalidPartNumber");
            }
            Some(part) => part,
            None => (judged == Judged::AsAsked && seen.method() == "GET")
                .then(|| seen.range(length))
                .flatten(),
        };
        let object = queried.with_part_headers(object, seen);
        let (first, end) = match asked {
            Some((first, end)) if first >= end => {
                return refuse_range(seen, length, wire);
            }
            Some(range) => range,
            None => (0, length),
        };
        let head = response_head(&object, first, end, asked.is_some());
        if wire.send(head).is_err() {
            return After::Close;
        }
        if seen.method() == "HEAD" {
            return After::KeepAlive;
        }
        self.send_body(path, &object.content, (first, end), wire)
    }

    fn send_body(
        &self,
        path: &str,
        content: &Content,
        range: (u64, u64),
        wire: &mut Wire,
    ) -> After {
        let (first, end) = range;
        let mut position = first;
        let mut after = After::KeepAlive;
        while position < end {
            let open_to = self.open_to(end, position, wire);
            let rate = self.0.bytes_per_second.load(Ordering::Acquire);
            let limit = if rate == 0 { 1 << 20 } else { 16 << 10 };
            let piece = if open_to > position {
                content.piece(position, open_to, limit)
            } else {
                &[]
            };
            if piece.is_empty() || wire.send(piece).is_err() {
                after = After::Close;
                break;
            }
            position += piece.len() as u64;
            self.0
                .body_bytes
                .fetch_add(piece.len() as u64, Ordering::AcqRel);
            if rate > 0 {
                std::thread::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64));
            }
        }
        self.0
            .sent
            .lock()
            .expect("sent")
            .push((path.to_owned(), first, position));
        after
    }

    /// How far a body may go now; waits at the gate. `position` itself when the test ended.
    fn open_to(&self, end: u64, position: u64, wire: &Wire) -> u64 {
        loop {
            let gate = self.0.gate.lock().expect("gate").unwrap_or(u64::MAX);
            if gate > position {
                return end.min(gate);
            }
            if wire.is_stopping() || self.0.stopped.load(Ordering::Acquire) {
                return position;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl After {
    /// Closes after an answer that said so.
    fn min_close(self) -> After {
        if self == After::KeepAlive {
            After::Close
        } else {
            self
        }
    }
}

/// The head of a 200 or 206 for bytes `first..end` of `object`.
pub fn response_head(object: &Object, first: u64, end: u64, partial: bool) -> Vec<u8> {
    let length = object.content.length();
    let mut head = String::from(if partial {
        "HTTP/1.1 206 Partial Content\r\n"
    } else {
        "HTTP/1.1 200 OK\r\n"
    });
    head.push_str("x-amz-id-2: abc=\r\nx-amz-request-id: ORIGIN0REQUEST0\r\n");
    head.push_str("Date: Wed, 12 Aug 2026 10:00:01 GMT\r\n");
    head.push_str(&format!(
        "ETag: {}\r\nAccept-Ranges: bytes\r\n",
        object.etag
    ));
    if partial {
        head.push_str(&format!(
            "Content-Range: bytes {first}-{}/{length}\r\n",
            end - 1
        ));
    }
    let mut bytes = head.into_bytes();
    for (name, value) in &object.headers {
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend(
            value
                .chars()
                .map(|c| u8::try_from(u32::from(c)).expect("a Latin-1 value")),
        );
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(
        format!(
            "Content-Length: {}\r\nServer: AmazonS3\r\n\r\n",
            end - first
        )
        .as_bytes(),
    );
    bytes
}

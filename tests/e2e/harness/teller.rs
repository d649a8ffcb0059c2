//! An origin that says of its answers what a test wants: header lines by path, that may change; ranges, conditions, and failures by order.

use super::Tile;
use super::stub::{After, Seen, Stub, Wire};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

/// Seed of what every path of it holds.
pub const SEED: u64 = 9111;

#[derive(Default)]
struct Said {
    /// Header lines of answers, each ending in a newline, by path.
    lines: BTreeMap<String, String>,
    /// Every request is answered so.
    failing: Option<u16>,
    /// What writes are answered; 0: never.
    writes: Option<u16>,
    version: u64,
}

/// The origin; ends with its test.
pub struct Teller {
    pub stub: Stub,
    said: Arc<Mutex<Said>>,
}

impl Teller {
    /// An origin with `length` bytes at every path.
    pub fn start(length: u64) -> Teller {
        let said: Arc<Mutex<Said>> = Arc::default();
        let own = Arc::clone(&said);
        let stub = Stub::start(move |seen, wire| answer(&own, length, seen, wire));
        Teller { stub, said }
    }

    pub fn address(&self) -> SocketAddr {
        self.stub.address
    }

    /// From now on answers for `path` have these lines: `Name: value`, each with a newline.
    pub fn says(&self, path: &str, lines: &str) {
        let mut said = self.said.lock().expect("what is said");
        said.lines.insert(path.to_owned(), lines.to_owned());
    }

    /// From now on every read is answered with this status, if any.
    pub fn fails(&self, status: Option<u16>) {
        self.said.lock().expect("what is said").failing = status;
    }

    /// From now on writes are answered with this status; 0: not at all.
    pub fn answers_writes(&self, status: u16) {
        self.said.lock().expect("what is said").writes = Some(status);
    }

    /// From now on every path has another version, of the same bytes.
    pub fn renews(&self) {
        self.said.lock().expect("what is said").version += 1;
    }

    pub fn requests(&self) -> usize {
        self.stub.requests()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.stub.seen().pop().expect("a request")
    }
}

/// A `Date` or `Expires` so many seconds from now.
pub fn date_in(seconds: i64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let date = millrace::http::http_date(now.as_secs().saturating_add_signed(seconds));
    String::from_utf8_lossy(&date).into_owned()
}

fn answer(said: &Mutex<Said>, length: u64, seen: &mut Seen, wire: &mut Wire) -> After {
    let Ok(body) = wire.read_body(&seen.head) else {
        return After::Close;
    };
    seen.body = body;
    let (lines, failing, writes, version) = {
        let said = said.lock().expect("what is said");
        let path = seen.target().split('?').next().unwrap_or_default();
        let lines = said.lines.get(path).cloned().unwrap_or_default();
        (lines, said.failing, said.writes, said.version)
    };
    if !matches!(seen.method(), "GET" | "HEAD") {
        return match writes.unwrap_or(200) {
            0 => After::Reset,
            status if status < 400 => wire.respond(&format!("{status} Done"), &[], b""),
            status => wire.refuse(&format!("{status} No"), "No"),
        };
    }
    if let Some(status) = failing {
        return wire.refuse(&format!("{status} No"), "No");
    }
    let etag = format!("\"v{version}\"");
    let mut headers: Vec<(&str, &str)> = lines
        .lines()
        .map(|line| line.split_once(':').expect("a header line"))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    headers.push(("ETag", &etag));
    if seen.header("if-none-match") == Some(&*etag) {
        return wire.respond("304 Not Modified", &headers, b"");
    }
    if seen.header("if-match").is_some_and(|known| known != etag) {
        return wire.refuse("412 Precondition Failed", "PreconditionFailed");
    }
    let range = seen.range(length).filter(|(first, end)| first < end);
    let (first, end) = range.unwrap_or((0, length));
    let status = if range.is_some() {
        "206 Partial"
    } else {
        "200 OK"
    };
    let content_range = format!("bytes {first}-{}/{length}", end.saturating_sub(1));
    if range.is_some() {
        headers.push(("Content-Range", &content_range));
    }
    if seen.method() == "HEAD" {
        let mut head = String::from("HTTP/1.1 200 OK\r\n");
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
        return wire.send(head).map_or(After::Close, |()| After::KeepAlive);
    }
    let bytes = Tile::new(SEED).slice(first, end);
    wire.respond(status, &headers, &bytes)
}

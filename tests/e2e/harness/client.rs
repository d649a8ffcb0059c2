//! The raw client: what a test writes is what goes out, byte for byte, and what comes
//! back is kept byte for byte. One connection, blocking, no redirects, no retries.

use super::wire::Reader;
pub use super::wire::{Broken, Framing, Head};
use super::{PATIENCE, Tile};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A request to be put on the wire exactly so.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: String,
    pub target: String,
    pub version: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn new(method: &str, target: &str) -> Ask {
        let (method, target) = (method.to_owned(), target.to_owned());
        Ask {
            method,
            target,
            version: "HTTP/1.1",
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(target: &str) -> Ask {
        Ask::new("GET", target)
    }

    pub fn head(target: &str) -> Ask {
        Ask::new("HEAD", target)
    }

    pub fn put(target: &str, body: impl Into<Vec<u8>>) -> Ask {
        Ask::new("PUT", target).body(body)
    }

    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A `Range` of bytes `start..end`.
    pub fn range(self, start: u64, end: u64) -> Ask {
        self.header("Range", &format!("bytes={start}-{}", end - 1))
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Ask {
        self.body = body.into();
        self
    }

    pub fn has(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// Head alone; `Host` and `Content-Length` are added where they are missing and needed.
    pub fn head_bytes(&self, host: SocketAddr) -> Vec<u8> {
        let mut out = format!("{} {} {}\r\n", self.method, self.target, self.version);
        if !self.has("host") && self.version == "HTTP/1.1" {
            out.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        let sends_body = !self.body.is_empty() || matches!(self.method.as_str(), "PUT" | "POST");
        if sends_body && !self.has("content-length") && !self.has("transfer-encoding") {
            out.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        out.push_str("\r\n");
        out.into_bytes()
    }
}

/// A whole response.
#[derive(Debug)]
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Response {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The word of `X-Cache-Status`.
    #[track_caller]
    pub fn cache_word(&self) -> &str {
        self.header("x-cache-status").expect("X-Cache-Status")
    }

    #[track_caller]
    pub fn assert_body(&self, tile: &Tile, start: u64, end: u64) {
        assert_eq!(self.body.len() as u64, end - start, "length of the body");
        assert!(
            tile.holds(start, &self.body),
            "a wrong byte in {start}..{end}"
        );
    }

    /// An error as S3 would say it: XML with this code, a message and a request id.
    #[track_caller]
    pub fn assert_s3_error(&self, status: u16, code: &str) {
        let text = self.text();
        assert_eq!(self.status(), status, "{:?}\n{text}", self.head);
        let kind = self.header("content-type").unwrap_or_default();
        assert!(
            kind.starts_with("application/xml"),
            "Content-Type of an error is {kind:?}"
        );
        assert!(
            text.starts_with("<?xml") && text.contains("<Error>"),
            "not S3's XML: {text}"
        );
        assert!(
            text.contains(&format!("<Code>{code}</Code>")),
            "no code {code} in {text}"
        );
        assert!(text.contains("<Message>"), "no message in {text}");
        assert!(text.contains("<RequestId>"), "no request id in {text}");
    }

    /// A refusal of the request as such, as S3 would say it: 4xx, or 501 and 505 for what HTTP knows and we do not.
    #[track_caller]
    pub fn assert_refused(&self) {
        let text = self.text();
        let status = self.status();
        assert!(
            matches!(status, 400..=499 | 501 | 505),
            "{:?}\n{text}",
            self.head
        );
        assert!(
            text.contains("<Code>") && text.contains("<RequestId>"),
            "not S3's XML: {text}"
        );
    }
}

/// One client connection.
pub struct Connection {
    pub peer: SocketAddr,
    pub reader: Reader,
}

impl Connection {
    #[track_caller]
    pub fn open(peer: SocketAddr) -> Connection {
        let stream =
            TcpStream::connect_timeout(&peer, Duration::from_secs(5)).expect("a connection");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a write timeout");
        Connection {
            peer,
            reader: Reader::new(stream, PATIENCE),
        }
    }

    /// A connection whose receive buffer is small, so that a client that does not read is felt soon.
    pub fn open_narrow(peer: SocketAddr, receive_buffer: i32) -> Connection {
        let connection = Connection::open(peer);
        super::wire::set_receive_buffer(&connection.reader.stream, receive_buffer);
        connection
    }

    pub fn patience(&mut self, patience: Duration) {
        self.reader
            .stream
            .set_read_timeout(Some(patience))
            .expect("a read timeout");
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("bytes sent");
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.reader.stream.write_all(bytes.as_ref())
    }

    pub fn send_ask(&mut self, ask: &Ask) {
        let mut bytes = ask.head_bytes(self.peer);
        bytes.extend_from_slice(&ask.body);
        self.send(bytes);
    }

    /// The head of the final response; interim ones are skipped.
    pub fn head(&mut self) -> Result<Head, Broken> {
        loop {
            let head = self.reader.head()?;
            match head.status() {
                0 => return Err(Broken::Malformed(head.first_line)),
                100..=199 => {}
                _ => return Ok(head),
            }
        }
    }

    /// The body that belongs to `head`, whole or an error.
    pub fn body(&mut self, method: &str, head: &Head) -> Result<Vec<u8>, Broken> {
        let mut body = Vec::new();
        self.reader
            .body(framing(method, head), |piece| body.extend_from_slice(piece))?;
        Ok(body)
    }

    pub fn response(&mut self, method: &str) -> Result<Response, Broken> {
        let head = self.head()?;
        let body = self.body(method, &head)?;
        Ok(Response { head, body })
    }

    pub fn try_exchange(&mut self, ask: &Ask) -> Result<Response, Broken> {
        self.send_ask(ask);
        self.response(&ask.method)
    }

    #[track_caller]
    pub fn exchange(&mut self, ask: &Ask) -> Response {
        self.try_exchange(ask)
            .unwrap_or_else(|broken| panic!("{broken:?} for {ask:?}"))
    }

    /// Reads a body against what it must be, without keeping it. Returns its length.
    #[track_caller]
    pub fn check_body(&mut self, head: &Head, tile: &Tile, start: u64) -> Result<u64, Broken> {
        let mut position = start;
        self.reader.body(framing("GET", head), |piece| {
            assert!(tile.holds(position, piece), "a wrong byte near {position}");
            position += piece.len() as u64;
        })
    }

    /// Whether the server ends the connection now.
    pub fn closes(&mut self) -> bool {
        self.reader.closes()
    }

    /// Whether the server has ended the connection already; a silent one counts as open.
    pub fn closes_now(&mut self) -> bool {
        self.patience(Duration::from_millis(50));
        let closed = matches!(
            self.reader.first_byte(),
            Err(Broken::Closed { .. } | Broken::Reset { .. })
        );
        self.patience(PATIENCE);
        closed
    }

    /// Leaves as a killed process would: with a reset.
    pub fn reset(self) {
        super::wire::reset_on_close(&self.reader.stream);
    }
}

/// The body framing of a response to `method`.
pub fn framing(method: &str, head: &Head) -> Framing {
    let status = head.status();
    if method == "HEAD" || status == 204 || status == 304 || status < 200 {
        return Framing::Length(0);
    }
    if head.is_chunked() {
        assert!(
            head.content_length().is_none(),
            "chunked and a length: {head:?}"
        );
        return Framing::Chunked;
    }
    head.content_length()
        .map_or(Framing::UntilClose, Framing::Length)
}

/// One request on a connection of its own.
#[track_caller]
pub fn fetch(peer: SocketAddr, ask: &Ask) -> Response {
    Connection::open(peer).exchange(ask)
}

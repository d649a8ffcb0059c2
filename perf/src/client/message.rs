//! What the client sends and gets: requests, heads, answers.
//!
//! Used by the client and everybody who asks with it. Invariant: header lines keep their order, case and duplicates.
//! Left to others: the connection.

use std::time::Duration;

use super::ClientError;
use crate::Headers;

const HEADERS_MAX: usize = 256;

/// A request, as it goes out.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// Header lines in order.
    pub headers: Headers,
    /// Body; sent as it is, also when the headers say chunked.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A request without headers.
    pub fn new(method: &str, target: &str) -> Self {
        Request {
            method: method.into(),
            target: target.into(),
            ..Request::default()
        }
    }

    /// Adds a header line.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Adds header lines.
    pub fn headers(mut self, lines: Headers) -> Self {
        self.headers.extend(lines);
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|(have, _)| have.eq_ignore_ascii_case(name))
    }

    pub(super) fn head(&self, host: &str) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if !self.has("host") {
            text.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body
            && !self.has("content-length")
            && !self.has("transfer-encoding")
        {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// The head of an answer.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// Status of the final answer.
    pub status: u16,
    /// Header lines in order.
    pub headers: Headers,
    /// Statuses of the interim answers before it.
    pub interims: Vec<u16>,
    /// From the start of sending to the first byte of the final head.
    pub first_byte: Duration,
}

impl Head {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// What to do with body bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Count them.
    Count,
    /// Count and digest them.
    Digest,
    /// Keep them, undigested: the fastest way to have them checked after the clock stopped.
    Keep,
}

/// A whole answer.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Status, headers, first-byte time.
    pub head: Head,
    /// Body bytes.
    pub bytes: u64,
    /// The body, with [`Take::Keep`].
    pub body: Vec<u8>,
    /// Hex SHA-256 of the body, with [`Take::Digest`].
    pub sha256: Option<String>,
    /// From the start of sending to the last byte.
    pub elapsed: Duration,
}

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text, for error documents.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Parses a whole head.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Head, ClientError> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut lines);
    match parsed.parse(bytes) {
        Ok(status) if status.is_complete() => {}
        _ => return Err(ClientError::Malformed("head")),
    }
    let headers = parsed.headers.iter();
    Ok(Head {
        status: parsed.code.ok_or(ClientError::Malformed("status"))?,
        headers: headers
            .map(|line| {
                (
                    line.name.to_string(),
                    String::from_utf8_lossy(line.value).into_owned(),
                )
            })
            .collect(),
        ..Head::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_length_are_added() {
        let request = Request::new("PUT", "/b/k").header("x-A", "1").body("abc");
        assert_eq!(
            request.head("h:1"),
            b"PUT /b/k HTTP/1.1\r\nHost: h:1\r\nx-A: 1\r\nContent-Length: 3\r\n\r\n"
        );
        let own = Request::new("GET", "/").header("host", "other");
        assert_eq!(own.head("h"), b"GET / HTTP/1.1\r\nhost: other\r\n\r\n");
    }
}

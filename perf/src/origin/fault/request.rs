//! One request as the fault origin reads it off the socket: head, names, body.
//!
//! Called by the connection. Invariants: header names and values keep their order, case and duplicates; the key in
//! its raw form is what counters and fault rules see, the decoded one what objects are stored under. Left to
//! others: what to answer. Requests come from a proxy under test: what is not HTTP ends in an error, never a panic.

use std::io;

use bytes::{Bytes, BytesMut};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::Headers;
use crate::sign::hex;

const HEADERS_MAX: usize = 256;
/// Largest head.
pub const HEAD_BYTES_MAX: usize = 256 << 10;
/// Largest chunk-size or trailer line.
const LINE_BYTES_MAX: usize = 16 << 10;
const READ_BYTES: usize = 256 << 10;

/// Why a request could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not HTTP/1.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// Ended or failed in the middle.
    #[error("the client went away: {0}")]
    Gone(#[from] io::Error),
}

/// How long the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request head.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method as sent.
    pub method: String,
    /// Target as sent.
    pub target: String,
    /// HTTP/1.x.
    pub minor: u8,
    /// Header lines in order.
    pub headers: Headers,
    /// Raw query without `?`.
    pub query: String,
    /// `bucket/key` as on the wire.
    pub wire_key: String,
    /// Decoded bucket, empty for the service itself.
    pub bucket: String,
    /// Decoded key, empty for the bucket itself.
    pub key: String,
}

impl Request {
    /// Parses a whole head. `domains` are the suffixes of virtual-hosted names.
    pub fn parse(head: &[u8], domains: &[String]) -> Result<Request, RequestError> {
        let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut parsed = httparse::Request::new(&mut lines);
        let status = parsed
            .parse(head)
            .map_err(|_| RequestError::Malformed("head"))?;
        if status.is_partial() {
            return Err(RequestError::Malformed("unfinished head"));
        }
        let headers: Headers = parsed
            .headers
            .iter()
            .map(|line| {
                (
                    line.name.to_string(),
                    String::from_utf8_lossy(line.value).into_owned(),
                )
            })
            .collect();
        let target = parsed.path.unwrap_or("/").to_string();
        let (authority, path, query) = split_target(&target);
        let host = find(&headers, "host").or(authority).unwrap_or("");
        let wire_key = match virtual_bucket(host, domains) {
            Some(bucket) => format!("{bucket}{path}"),
            None => path.trim_start_matches('/').to_string(),
        };
        let (bucket, key) = wire_key.split_once('/').unwrap_or((&wire_key, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Ok(Request {
            method: parsed.method.unwrap_or("").to_string(),
            minor: parsed.version.unwrap_or(1),
            query: query.to_string(),
            bucket: decode(bucket),
            key: decode(key),
            wire_key,
            target,
            headers,
        })
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The decoded value of a query parameter; empty when it has none.
    pub fn param(&self, name: &str) -> Option<String> {
        self.params()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value)
    }

    /// All query parameters, decoded.
    pub fn params(&self) -> impl Iterator<Item = (String, String)> {
        let decode = |text: &str| {
            percent_decode_str(&text.replace('+', " "))
                .decode_utf8_lossy()
                .into_owned()
        };
        self.query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(move |pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decode(name), decode(value))
            })
    }

    /// How the body is delimited.
    pub fn framing(&self) -> Result<Framing, RequestError> {
        if let Some(coding) = self.header("transfer-encoding") {
            return match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunked),
                false => Err(RequestError::Malformed("transfer coding")),
            };
        }
        match self.header("content-length").map(str::parse::<u64>) {
            None | Some(Ok(0)) => Ok(Framing::None),
            Some(Ok(length)) => Ok(Framing::Length(length)),
            Some(Err(_)) => Err(RequestError::Malformed("content length")),
        }
    }

    /// True when the client asks to close after this exchange.
    pub fn wants_close(&self) -> bool {
        let connection = self.header("connection").unwrap_or("").to_ascii_lowercase();
        connection.contains("close") || (self.minor == 0 && !connection.contains("keep-alive"))
    }

    /// True when the body is wrapped in S3's own chunk format.
    pub fn is_aws_chunked(&self) -> bool {
        self.header("x-amz-content-sha256")
            .is_some_and(|value| value.starts_with("STREAMING-"))
            || self
                .header("content-encoding")
                .is_some_and(|value| value.contains("aws-chunked"))
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(have, _)| have.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Authority of an absolute-form target, path, query.
fn split_target(target: &str) -> (Option<&str>, &str, &str) {
    let (authority, rest) = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            (Some(&rest[..at]), &rest[at..])
        }
        _ => (None, target),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    (authority, if path.is_empty() { "/" } else { path }, query)
}

/// The bucket that a virtual-hosted name carries.
fn virtual_bucket<'a>(host: &'a str, domains: &[String]) -> Option<&'a str> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    domains
        .iter()
        .find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))
}

/// The bytes of one connection, read ahead.
#[derive(Debug, Default)]
pub struct Incoming {
    buffer: BytesMut,
}

impl Incoming {
    /// The next request head; `None` when the client closed between requests.
    pub async fn head(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Bytes>, RequestError> {
        loop {
            while self.buffer.starts_with(b"\r\n") {
                let _ = self.buffer.split_to(2);
            }
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                return Ok(Some(self.buffer.split_to(at + 4).freeze()));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(RequestError::Malformed("head too large"));
            }
            if self.fill(stream).await? == 0 {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(RequestError::Gone(io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }

    async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        stream.read_buf(&mut self.buffer).await
    }

    async fn must_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), RequestError> {
        match self.fill(stream).await? {
            0 => Err(RequestError::Gone(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Bytes, RequestError> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = self.buffer.split_to(at).freeze();
                let _ = self.buffer.split_to(2);
                return Ok(line);
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(RequestError::Malformed("line too long"));
            }
            self.must_fill(stream).await?;
        }
    }

    /// Waits until the client closes, whatever it still sends.
    pub async fn until_closed(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        loop {
            self.buffer.clear();
            if !matches!(self.fill(stream).await, Ok(1..)) {
                return;
            }
        }
    }

    /// Moves what is at hand into the body, up to `left` bytes; reads first when nothing is.
    async fn take(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        left: u64,
        body: &mut Body,
    ) -> Result<u64, RequestError> {
        if self.buffer.is_empty() {
            self.must_fill(stream).await?;
        }
        let take = left.min(self.buffer.len() as u64) as usize;
        body.push(&self.buffer.split_to(take));
        Ok(take as u64)
    }

    async fn trailers(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), RequestError> {
        while !self.line(stream).await?.is_empty() {}
        Ok(())
    }

    /// Reads the body, at most `bytes_max` of it; `progress` hears of every piece.
    pub async fn body(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        framing: Framing,
        bytes_max: u64,
        mut progress: impl FnMut(u64),
    ) -> Result<Body, RequestError> {
        let mut body = Body::default();
        let (mut left, chunked) = match framing {
            Framing::None => (0, false),
            Framing::Length(length) => (length, false),
            Framing::Chunked => (0, true),
        };
        loop {
            if chunked && left == 0 {
                left = chunk_size(&self.line(stream).await?)?;
                if left == 0 {
                    self.trailers(stream).await?;
                    return Ok(body);
                }
            }
            while left > 0 {
                if body.bytes.len() as u64 >= bytes_max {
                    return Ok(body);
                }
                let took = self
                    .take(
                        stream,
                        left.min(bytes_max - body.bytes.len() as u64),
                        &mut body,
                    )
                    .await?;
                left -= took;
                progress(took);
            }
            if !chunked {
                return Ok(body);
            }
            if !self.line(stream).await?.is_empty() {
                return Err(RequestError::Malformed("chunk end"));
            }
        }
    }
}

/// A request body that was read.
#[derive(Debug, Default)]
pub struct Body {
    /// Without transfer chunks.
    pub bytes: Vec<u8>,
    digest: Sha256,
}

impl Body {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        self.digest.update(piece);
    }

    /// Hex SHA-256 of what came over the wire, without transfer chunks.
    pub fn sha256(&self) -> String {
        hex(&self.digest.clone().finalize())
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, RequestError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let text = std::str::from_utf8(digits).map_err(|_| RequestError::Malformed("chunk size"))?;
    u64::from_str_radix(text.trim(), 16).map_err(|_| RequestError::Malformed("chunk size"))
}

/// Takes S3's own chunk format apart: data and the trailers behind it. Chunk signatures are not verified.
pub fn decode_aws_chunked(wire: &[u8]) -> Result<(Vec<u8>, Headers), RequestError> {
    let mut rest = wire;
    let mut data = Vec::with_capacity(wire.len());
    let line = |rest: &mut &[u8]| -> Result<Vec<u8>, RequestError> {
        let at = rest
            .windows(2)
            .position(|window| window == b"\r\n")
            .ok_or(RequestError::Malformed("aws chunk"))?;
        let line = rest[..at].to_vec();
        *rest = &rest[at + 2..];
        Ok(line)
    };
    loop {
        let size = chunk_size(&line(&mut rest)?)? as usize;
        if size == 0 {
            break;
        }
        let chunk = rest
            .get(..size)
            .ok_or(RequestError::Malformed("aws chunk data"))?;
        data.extend_from_slice(chunk);
        rest = rest
            .get(size + 2..)
            .ok_or(RequestError::Malformed("aws chunk end"))?;
    }
    let mut trailers = Vec::new();
    while let Ok(text) = line(&mut rest) {
        if let Some((name, value)) = String::from_utf8_lossy(&text).split_once(':') {
            trailers.push((name.trim().to_string(), value.trim().to_string()));
        }
    }
    Ok((data, trailers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str, domains: &[&str]) -> Request {
        let domains: Vec<String> = domains.iter().map(ToString::to_string).collect();
        Request::parse(head.as_bytes(), &domains).expect("well formed")
    }

    #[test]
    fn path_style_virtual_hosted_and_absolute_form_name_the_same_object() {
        for (head, domains) in [
            ("GET /b/a%20k?x=1 HTTP/1.1\r\nHost: h:80\r\n\r\n", vec![]),
            (
                "GET /a%20k?x=1 HTTP/1.1\r\nHost: b.s3.test:80\r\n\r\n",
                vec!["s3.test"],
            ),
            (
                "GET http://h:80/b/a%20k?x=1 HTTP/1.1\r\nHost: h\r\n\r\n",
                vec![],
            ),
        ] {
            let request = parse(head, &domains);
            assert_eq!(request.wire_key, "b/a%20k", "{head}");
            assert_eq!(
                (request.bucket.as_str(), request.key.as_str()),
                ("b", "a k")
            );
            assert_eq!(request.param("x").as_deref(), Some("1"));
        }
        let root = parse("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &[]);
        assert_eq!((root.bucket.as_str(), root.key.as_str()), ("", ""));
    }

    #[test]
    fn headers_keep_order_case_and_duplicates() {
        let request = parse("GET / HTTP/1.1\r\nX-b: 1\r\nx-A: 2\r\nX-B: 3\r\n\r\n", &[]);
        let names: Vec<&str> = request
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["X-b", "x-A", "X-B"]);
        assert_eq!(request.header("x-b"), Some("1"));
    }

    #[tokio::test]
    async fn pipelined_requests_and_both_framings_are_read_apart() {
        let wire = b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
            2;x=y\r\nde\r\n1\r\nf\r\n0\r\nT: v\r\n\r\nGET /c HTTP/1.1\r\n\r\n";
        let mut stream = &wire[..];
        let mut incoming = Incoming::default();
        for want in ["abc", "def", ""] {
            let head = incoming
                .head(&mut stream)
                .await
                .expect("a head")
                .expect("not the end");
            let request = Request::parse(&head, &[]).expect("well formed");
            let framing = request.framing().expect("well formed");
            let body = incoming
                .body(&mut stream, framing, u64::MAX, |_| {})
                .await
                .expect("a body");
            assert_eq!(body.bytes, want.as_bytes());
            assert_eq!(body.sha256(), hex(&Sha256::digest(want)));
        }
        assert!(
            incoming
                .head(&mut stream)
                .await
                .expect("a clean end")
                .is_none()
        );
    }

    #[test]
    fn aws_chunks_are_taken_apart() {
        let wire =
            b"3;chunk-signature=00\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n";
        let (data, trailers) = decode_aws_chunked(wire).expect("well formed");
        assert_eq!(data, b"abcde");
        assert_eq!(
            trailers,
            [("x-amz-checksum-crc32".to_string(), "AAAA".to_string())]
        );
        assert!(decode_aws_chunked(b"9\r\nabc\r\n0\r\n\r\n").is_err());
    }
}

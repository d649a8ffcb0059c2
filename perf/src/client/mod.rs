//! An HTTP/1.1 client for tests, the demo and measurements: one connection, every header in the caller's hand.
//!
//! Invariants: nothing is sent that the caller did not write except `Host` and `Content-Length` where they are
//! missing; a body that ends before its announced end is [`ClientError::Short`], never a short success; after an
//! error the connection must be dropped. Left to others: signing (`sign`), pools, redirects, retries (there are none,
//! so that each answer is seen as it came).

mod message;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use self::message::parse_head;
pub use self::message::{Answer, Head, Request, Take};
use crate::net;
use crate::sign::hex;

const HEAD_BYTES_MAX: usize = 256 << 10;
const READ_BYTES: usize = 1 << 20;
const HEAD_READ_BYTES: usize = 16 << 10;

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection failed; a reset shows here.
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    /// The connection ended before a whole head.
    #[error("the connection ended after {bytes} bytes of a head")]
    NoHead {
        /// What came of it.
        bytes: usize,
    },
    /// The connection ended inside the body.
    #[error("the body ended after {received} bytes, announced: {announced:?}")]
    Short {
        /// Body bytes that came.
        received: u64,
        /// `Content-Length`; `None` when chunked.
        announced: Option<u64>,
    },
    /// Not HTTP/1.
    #[error("malformed answer: {0}")]
    Malformed(&'static str),
    /// Nothing came for so long.
    #[error("no byte for {0:?}")]
    Timeout(Duration),
}

/// What is left of the body being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Bytes(u64),
    /// Bytes left of the chunk at hand; 0 before a chunk-size line.
    Chunk(u64),
    UntilClose,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One connection.
pub struct Connection {
    stream: Box<dyn Duplex>,
    host: String,
    /// Read and not yet used.
    buffer: Vec<u8>,
    left: Left,
    announced: Option<u64>,
    received: u64,
    started: Instant,
    idle: Duration,
    reusable: bool,
}

impl Connection {
    /// Connects over TCP. `Host` is the address unless a request says otherwise.
    pub async fn connect(addr: SocketAddr) -> Result<Connection, ClientError> {
        Ok(Connection::over(
            net::connect(addr).await?,
            &addr.to_string(),
        ))
    }

    /// A connection over any stream, TLS for example.
    pub fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        host: &str,
    ) -> Connection {
        Connection {
            stream: Box::new(stream),
            host: host.to_string(),
            buffer: Vec::new(),
            left: Left::Bytes(0),
            announced: None,
            received: 0,
            started: Instant::now(),
            idle: Duration::from_secs(30),
            reusable: true,
        }
    }

    /// How long to wait for the next byte; 30 s unless set.
    pub fn idle_timeout(mut self, idle: Duration) -> Connection {
        self.idle = idle;
        self
    }

    /// False once an answer said or showed that no further request can follow.
    pub fn is_reusable(&self) -> bool {
        self.reusable
    }

    /// Sends a request and reads the whole answer.
    pub async fn exchange(&mut self, request: &Request, take: Take) -> Result<Answer, ClientError> {
        let head = self.send(request).await?;
        self.finish(head, take).await
    }

    /// Sends a request and reads the head; the body is then read by [`Connection::read`] or [`Connection::finish`].
    /// With `Expect: 100-continue` the body waits for the interim answer.
    pub async fn send(&mut self, request: &Request) -> Result<Head, ClientError> {
        self.started = Instant::now();
        self.write(&request.head(&self.host.clone())).await?;
        let mut interims = Vec::new();
        if let Some(body) = &request.body {
            if request.has("expect") {
                let head = self.read_head(&request.method).await?;
                if head.status != 100 {
                    return Ok(head);
                }
                interims.push(100);
            }
            // An origin may answer early and stop reading: what it said counts, not the failed write.
            if let Err(error) = self.write(body).await
                && self.read_some(HEAD_READ_BYTES).await.is_err()
            {
                return Err(error);
            }
        }
        loop {
            let head = self.read_head(&request.method).await?;
            if head.status >= 200 || head.status == 101 {
                return Ok(Head { interims, ..head });
            }
            interims.push(head.status);
        }
    }

    /// Writes raw bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let idle = self.idle;
        let written = tokio::time::timeout(idle, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        Ok(written.await.map_err(|_| ClientError::Timeout(idle))??)
    }

    /// Ends the sending side.
    pub async fn shutdown(&mut self) -> Result<(), ClientError> {
        Ok(self.stream.shutdown().await?)
    }

    /// Reads one head, interim or final, of an answer to this method.
    pub async fn read_head(&mut self, method: &str) -> Result<Head, ClientError> {
        if self.buffer.is_empty() {
            self.must_read_some(HEAD_READ_BYTES).await?;
        }
        let first_byte = self.started.elapsed();
        let end = loop {
            if let Some(at) = self
                .buffer
                .windows(4)
                .position(|window| window == b"\r\n\r\n")
            {
                break at + 4;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(ClientError::Malformed("head too large"));
            }
            self.must_read_some(HEAD_READ_BYTES).await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let head = Head {
            first_byte,
            ..parse_head(&head)?
        };
        self.frame(&head, method)?;
        Ok(head)
    }

    /// Reads the rest of the body.
    pub async fn finish(&mut self, head: Head, take: Take) -> Result<Answer, ClientError> {
        self.finish_into(head, take, Vec::new()).await
    }

    /// Reads the rest of the body; with [`Take::Keep`] into this buffer, whose content goes and whose memory is used
    /// again.
    pub async fn finish_into(
        &mut self,
        head: Head,
        take: Take,
        mut buffer: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        buffer.clear();
        let mut answer = Answer {
            head,
            body: buffer,
            ..Answer::default()
        };
        let mut digest = Sha256::new();
        if let (Take::Keep, Left::Bytes(length)) = (take, self.left) {
            answer.body.reserve(length as usize);
        }
        let mut piece = Vec::new();
        loop {
            let read = match take {
                Take::Keep => self.read(&mut answer.body).await?,
                Take::Count | Take::Digest => {
                    piece.clear();
                    self.read(&mut piece).await?
                }
            };
            if read == 0 {
                break;
            }
            answer.bytes += read as u64;
            if take == Take::Digest {
                digest.update(&piece);
            }
        }
        answer.elapsed = self.started.elapsed();
        answer.sha256 = (take == Take::Digest).then(|| hex(&digest.finalize()));
        Ok(answer)
    }

    /// Appends some body bytes to `out`; 0 is the clean end of the body.
    pub async fn read(&mut self, out: &mut Vec<u8>) -> Result<usize, ClientError> {
        let bytes_max = match self.left {
            Left::Bytes(0) => return Ok(0),
            Left::Bytes(left) => left.min(READ_BYTES as u64) as usize,
            Left::UntilClose => READ_BYTES,
            Left::Chunk(0) => match self.next_chunk().await? {
                0 => {
                    self.left = Left::Bytes(0);
                    return Ok(0);
                }
                left => left.min(READ_BYTES as u64) as usize,
            },
            Left::Chunk(left) => left.min(READ_BYTES as u64) as usize,
        };
        let read = self.take(out, bytes_max).await?;
        self.received += read as u64;
        match &mut self.left {
            Left::UntilClose => {}
            _ if read == 0 => {
                return Err(ClientError::Short {
                    received: self.received,
                    announced: self.announced,
                });
            }
            Left::Bytes(left) => *left -= read as u64,
            Left::Chunk(left) => {
                *left -= read as u64;
                if *left == 0 {
                    self.line().await?;
                }
            }
        }
        Ok(read)
    }

    /// The size of the next chunk; 0 after the last one, whose trailers are read as well.
    async fn next_chunk(&mut self) -> Result<u64, ClientError> {
        let line = self.line().await?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size =
            u64::from_str_radix(digits, 16).map_err(|_| ClientError::Malformed("chunk size"))?;
        if size == 0 {
            while !self.line().await?.is_empty() {}
        }
        self.left = Left::Chunk(size);
        Ok(size)
    }

    async fn line(&mut self) -> Result<String, ClientError> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).take(at).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(ClientError::Malformed("line too long"));
            }
            if self.read_some(HEAD_READ_BYTES).await? == 0 {
                return Err(ClientError::Short {
                    received: self.received,
                    announced: self.announced,
                });
            }
        }
    }

    /// Moves up to `bytes_max` bytes to `out`, from the buffer or straight from the socket.
    async fn take(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<usize, ClientError> {
        if !self.buffer.is_empty() {
            let take = bytes_max.min(self.buffer.len());
            out.extend(self.buffer.drain(..take));
            return Ok(take);
        }
        let small = matches!(self.left, Left::Chunk(_)) && bytes_max < HEAD_READ_BYTES;
        if small {
            return match self.read_some(READ_BYTES).await? {
                0 => Ok(0),
                _ => {
                    let take = bytes_max.min(self.buffer.len());
                    out.extend(self.buffer.drain(..take));
                    Ok(take)
                }
            };
        }
        out.reserve(bytes_max);
        let mut limited = (&mut self.stream).take(bytes_max as u64);
        let read = tokio::time::timeout(self.idle, limited.read_buf(out)).await;
        Ok(read.map_err(|_| ClientError::Timeout(self.idle))??)
    }

    async fn read_some(&mut self, bytes: usize) -> Result<usize, ClientError> {
        self.buffer.reserve(bytes);
        let read = tokio::time::timeout(self.idle, self.stream.read_buf(&mut self.buffer)).await;
        Ok(read.map_err(|_| ClientError::Timeout(self.idle))??)
    }

    async fn must_read_some(&mut self, bytes: usize) -> Result<(), ClientError> {
        match self.read_some(bytes).await? {
            0 => Err(ClientError::NoHead {
                bytes: self.buffer.len(),
            }),
            _ => Ok(()),
        }
    }

    /// Finds out how the body of this answer ends (RFC 9112 section 6.3).
    fn frame(&mut self, head: &Head, method: &str) -> Result<(), ClientError> {
        self.received = 0;
        self.announced = match head.header("content-length").map(str::parse) {
            None => None,
            Some(Ok(length)) => Some(length),
            Some(Err(_)) => return Err(ClientError::Malformed("content length")),
        };
        let chunked = head
            .header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        self.left = match self.announced {
            _ if method == "HEAD" || head.status < 200 || matches!(head.status, 204 | 304) => {
                Left::Bytes(0)
            }
            _ if chunked => Left::Chunk(0),
            Some(length) => Left::Bytes(length),
            None => Left::UntilClose,
        };
        let close = head
            .header("connection")
            .is_some_and(|value| value.to_ascii_lowercase().contains("close"));
        self.reusable = self.reusable && !close && self.left != Left::UntilClose;
        Ok(())
    }
}

/// Connects, sends, reads the whole answer, closes.
pub async fn once(addr: SocketAddr, request: &Request) -> Result<Answer, ClientError> {
    Connection::connect(addr)
        .await?
        .exchange(request, Take::Keep)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(wire: &str, method: &str) -> Result<Answer, ClientError> {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        let mut connection = Connection::over(near, "h");
        far.write_all(wire.as_bytes()).await.expect("it fits");
        drop(far);
        let head = connection.read_head(method).await?;
        connection.finish(head, Take::Keep).await
    }

    #[tokio::test]
    async fn each_framing_ends_where_it_should() {
        for (wire, method, want) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcXX",
                "GET",
                "abc",
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n1\r\nc\r\n0\r\nT: v\r\n\r\n",
                "GET",
                "abc",
            ),
            ("HTTP/1.1 200 OK\r\n\r\nabc", "GET", "abc"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD", ""),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
                "GET",
                "",
            ),
        ] {
            assert_eq!(
                read(wire, method).await.expect("a good answer").text(),
                want,
                "{wire}"
            );
        }
    }

    #[tokio::test]
    async fn a_short_body_is_an_error() {
        for wire in [
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
        ] {
            let error = read(wire, "GET").await.expect_err("it is short");
            assert!(
                matches!(error, ClientError::Short { received: 3, .. }),
                "{wire}: {error}"
            );
        }
        assert!(matches!(
            read("HTTP/1.1 200 O", "GET").await,
            Err(ClientError::NoHead { bytes: 14 })
        ));
    }
}

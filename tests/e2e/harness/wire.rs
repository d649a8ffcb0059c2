//! HTTP/1.1 as it lies on the wire, for both ends of the tests: heads with their raw
//! bytes, bodies by length, chunks or close. Deliberately strict: whatever the server
//! under test sends that is not plain HTTP is an error here.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::Duration;

/// Why a message could not be read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// The peer closed in an orderly way; so many bytes of the wanted piece had come.
    Closed {
        received: u64,
    },
    /// The peer reset the connection.
    Reset {
        received: u64,
    },
    TimedOut {
        received: u64,
    },
    Malformed(String),
}

/// A head with every header in order, names as sent.
#[derive(Debug, Clone)]
pub struct Head {
    pub first_line: String,
    pub headers: Vec<(String, String)>,
    pub raw: Vec<u8>,
}

impl Head {
    pub fn parse(raw: &[u8]) -> Result<Head, Broken> {
        let malformed =
            |what: &str| Broken::Malformed(format!("{what} in {:?}", String::from_utf8_lossy(raw)));
        let text: String = raw.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text
            .strip_suffix("\r\n\r\n")
            .ok_or_else(|| malformed("no end"))?
            .split("\r\n");
        let first_line = lines.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| malformed("a header without a colon"))?;
            if name.is_empty() || name.contains([' ', '\t', '\n']) || value.contains('\n') {
                return Err(malformed("a broken header"));
            }
            headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
        Ok(Head {
            first_line,
            headers,
            raw: raw.to_vec(),
        })
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .filter(named)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that must not be repeated.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(
            all.len() <= 1,
            "{name} comes {} times: {:?}",
            all.len(),
            self.headers
        );
        all.first().copied()
    }

    /// Status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        let mut words = self.first_line.split(' ');
        match words.next() {
            Some("HTTP/1.1" | "HTTP/1.0") => {
                words.next().and_then(|word| word.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub fn content_length(&self) -> Option<u64> {
        self.header("content-length")
            .map(|value| value.parse().expect("a Content-Length is a number"))
    }

    pub fn is_chunked(&self) -> bool {
        self.header("transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }
}

/// How the end of a body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Reads messages from a socket and keeps what came too early.
pub struct Reader {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
}

const READ_STEP: usize = 256 * 1024;
const HEAD_MAX: usize = 1 << 20;

impl Reader {
    pub fn new(stream: TcpStream, patience: Duration) -> Reader {
        stream
            .set_read_timeout(Some(patience))
            .expect("a read timeout");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Reader {
            stream,
            buffer: Vec::new(),
            start: 0,
        }
    }

    fn pending(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn fill(&mut self, received: u64) -> Result<(), Broken> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        let old = self.buffer.len();
        self.buffer.resize(old + READ_STEP, 0);
        let outcome = self.stream.read(&mut self.buffer[old..]);
        self.buffer
            .truncate(old + outcome.as_ref().copied().unwrap_or(0));
        match outcome {
            Ok(0) => Err(Broken::Closed { received }),
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Broken::TimedOut { received }),
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Err(Broken::Reset { received })
                }
                ErrorKind::Interrupted => Ok(()),
                _ => Err(Broken::Malformed(error.to_string())),
            },
        }
    }

    /// The raw bytes up to and with the first occurrence of `end`.
    fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, Broken> {
        let mut searched = 0;
        loop {
            let pending = self.pending();
            let from = searched.min(pending.len());
            if let Some(at) = pending[from..]
                .windows(end.len())
                .position(|window| window == end)
            {
                let length = from + at + end.len();
                let out = pending[..length].to_vec();
                self.start += length;
                return Ok(out);
            }
            if pending.len() > HEAD_MAX {
                return Err(Broken::Malformed("no end in a megabyte".into()));
            }
            searched = pending.len().saturating_sub(end.len());
            let received = pending.len() as u64;
            self.fill(received)?;
        }
    }

    pub fn head(&mut self) -> Result<Head, Broken> {
        Head::parse(&self.until(b"\r\n\r\n")?)
    }

    /// Gives the body to `sink` piece by piece; returns its length.
    pub fn body(&mut self, framing: Framing, mut sink: impl FnMut(&[u8])) -> Result<u64, Broken> {
        match framing {
            Framing::Length(length) => self.exactly(length, 0, &mut sink).map(|()| length),
            Framing::Chunked => self.chunks(&mut sink),
            Framing::UntilClose => self.until_close(&mut sink),
        }
    }

    fn exactly(
        &mut self,
        length: u64,
        before: u64,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(), Broken> {
        let mut left = length;
        while left > 0 {
            if self.pending().is_empty() {
                self.fill(before + length - left)?;
                continue;
            }
            let take = (self.pending().len() as u64).min(left) as usize;
            sink(&self.buffer[self.start..self.start + take]);
            self.start += take;
            left -= take as u64;
        }
        Ok(())
    }

    fn chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<u64, Broken> {
        let mut total = 0;
        loop {
            let line = self.until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line[..line.len() - 2]).into_owned();
            let digits = text.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(digits, 16)
                .map_err(|_| Broken::Malformed(format!("chunk size {text:?}")))?;
            if size == 0 {
                while self.until(b"\r\n")?.len() > 2 {}
                return Ok(total);
            }
            self.exactly(size, total, sink)?;
            total += size;
            if self.until(b"\r\n")?.len() != 2 {
                return Err(Broken::Malformed("a chunk longer than its size".into()));
            }
        }
    }

    fn until_close(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<u64, Broken> {
        let mut total = 0;
        loop {
            let pending = self.pending().len();
            if pending > 0 {
                sink(&self.buffer[self.start..]);
                total += pending as u64;
                self.start += pending;
            }
            match self.fill(total) {
                Ok(()) => {}
                Err(Broken::Closed { .. }) => return Ok(total),
                Err(other) => return Err(other),
            }
        }
    }

    /// Waits until at least one byte lies in the buffer.
    pub fn first_byte(&mut self) -> Result<(), Broken> {
        if self.pending().is_empty() {
            self.fill(0)
        } else {
            Ok(())
        }
    }

    /// Whether the peer closes without sending another byte.
    pub fn closes(&mut self) -> bool {
        self.pending().is_empty()
            && matches!(
                self.fill(0),
                Err(Broken::Closed { .. } | Broken::Reset { .. })
            )
    }
}

/// Makes the close of `stream` a reset, so that the peer cannot take it for an end.
#[expect(unsafe_code, reason = "std has no stable call for SO_LINGER")]
pub fn reset_on_close(stream: &TcpStream) {
    use std::os::fd::AsRawFd;
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the descriptor is open for as long as `stream` is borrowed and the option
    // value is a live `linger` of the size that is passed with it.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0, "SO_LINGER");
}

/// Sends one byte as urgent data.
#[expect(unsafe_code, reason = "std has no call for MSG_OOB")]
pub fn send_urgent(stream: &TcpStream, byte: u8) {
    use std::os::fd::AsRawFd;
    let bytes = [byte];
    // SAFETY: the descriptor is open for as long as `stream` is borrowed and the one byte is readable.
    let sent = unsafe { libc::send(stream.as_raw_fd(), bytes.as_ptr().cast(), 1, libc::MSG_OOB) };
    assert_eq!(sent, 1, "MSG_OOB");
}

/// Lets 4,096 connections wait to be accepted; std asks for 128.
#[expect(unsafe_code, reason = "std has no call for listen")]
pub fn let_many_wait(listener: &std::net::TcpListener) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `listener` is borrowed.
    let outcome = unsafe { libc::listen(listener.as_raw_fd(), 4096) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}

/// Bytes that the peer's kernel has not taken yet.
#[expect(unsafe_code, reason = "std has no call for SIOCOUTQ")]
pub fn unsent(stream: &TcpStream) -> i32 {
    use std::os::fd::AsRawFd;
    let mut bytes: i32 = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and the kernel writes one `i32`.
    let outcome = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(outcome, 0, "SIOCOUTQ");
    bytes
}

/// Sets the kernel's receive buffer of `stream`.
#[expect(unsafe_code, reason = "std has no call for SO_RCVBUF")]
pub fn set_receive_buffer(stream: &TcpStream, bytes: i32) {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed and the option
    // value is a live `i32` of the size that is passed with it.
    let outcome = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            std::ptr::from_ref(&bytes).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    assert_eq!(outcome, 0, "SO_RCVBUF");
}

//! The HTTP/1.1 codec: bytes to heads and chunk steps, heads and chunks to bytes.
//!
//! Callers: `listener` and `request` parse what clients send and write what they get, `upstream`
//! does the same towards the origin, `s3` reads the parsed head, `admin` does not come here. Pure:
//! no I/O, no clock, and parsing allocates nothing; a parsed head borrows from the caller's buffer.
//!
//! Invariants:
//! - A head is accepted only if every recipient must read the same message out of it (RFC 9112):
//!   exact CRLF line ends, one framing, one valid `Host`. Whatever is ambiguous is refused and the
//!   connection closes.
//! - `bytes` of a head never exceeds the buffer nor [`HeadLimits::head_bytes_max`].
//! - Header order, names' case, values' bytes and duplicates survive, so a client's signature does
//!   too.
//!
//! Left to others: timeouts, buffers, what a method or a target means (`s3`), Range and conditional
//! headers (`s3`), where a request goes (`upstream`).

mod authority;
mod cache_control;
mod chunked;
mod date;
mod framing;
mod headers;
mod hop;
#[cfg(test)]
mod hostile;
mod line;
mod request;
mod response;
mod target;
mod write;

pub use authority::{Authority, AuthorityError};
pub use cache_control::{RequestControl, ResponseControl};
pub use chunked::{
    CHUNK_LINE_BYTES_MAX, CRLF, ChunkError, ChunkStep, ChunkedDecoder, LAST_CHUNK,
    TRAILER_BYTES_MAX, write_chunk_header,
};
pub use date::{HTTP_DATE_BYTES, http_date, parse_http_date};
pub use framing::FramingError;
pub use headers::{FindAll, HeaderIter, HeaderLine, HeaderLines, Headers};
pub use hop::is_hop_by_hop;
pub use line::{LineError, LineFault, head_complete};
pub use request::{RequestBody, RequestError, RequestHead, parse_request};
pub use response::{ResponseBody, ResponseError, ResponseHead, parse_response};
pub use target::{TargetError, TargetForm};
pub use write::{RequestWriter, ResponseWriter, WriteError, standard_reason};

/// The most header lines a head may have: the size of the table inside [`Headers`].
pub const HEADERS_MAX: usize = 128;

/// The largest head that can be parsed at all: header positions are kept as 16-bit offsets.
pub const HEAD_BYTES_CEILING: usize = 64 * 1024;

/// How much head a peer may send before it is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the whole head with its blank line; values above [`HEAD_BYTES_CEILING`] count as
    /// that.
    pub head_bytes_max: usize,
    /// Header lines; values above [`HEADERS_MAX`] count as that.
    pub headers_max: usize,
}

impl HeadLimits {
    fn bytes(&self) -> usize {
        self.head_bytes_max.min(HEAD_BYTES_CEILING)
    }

    fn headers(&self) -> usize {
        self.headers_max.min(HEADERS_MAX)
    }
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            head_bytes_max: 32 * 1024,
            headers_max: HEADERS_MAX,
        }
    }
}

/// The methods that S3 and proxying give a meaning to; the token as sent is kept beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `PUT`
    Put,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `CONNECT`
    Connect,
    /// Any other token. Methods are case-sensitive (RFC 9110, section 9.1): `get` is one of these.
    Other,
}

impl Method {
    /// The method a token names.
    pub fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// The protocol version of a message; all others are refused with 505.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

impl Version {
    /// From the minor version httparse gives: it accepts only 1.0 and 1.1.
    fn from_minor(minor: Option<u8>) -> Self {
        match minor {
            Some(1) => Self::Http11,
            _ => Self::Http10,
        }
    }
}

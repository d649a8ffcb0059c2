//! The request head: bytes from a client to [`RequestHead`], or the answer it gets instead.
//!
//! Called by `listener` for each request on a connection. Nothing is allocated: the head borrows
//! from the buffer. Every error means the answer [`RequestError::status`] and then the end of the
//! connection, since where the next request would begin is no longer known. Left to the caller:
//! waiting for more bytes (by [`head_complete`](super::head_complete)), deadlines, and comparing
//! `Host` with an absolute target's authority.

use std::mem::MaybeUninit;

use super::authority::{Authority, AuthorityError};
use super::framing::{Facts, Framing, FramingError};
use super::line::{
    LineError, LineFault, first_fault, is_token, is_visible, leading_crlf_bytes, refused_fault,
};
use super::target::{Target, TargetError, TargetForm};
use super::{HEADERS_MAX, HeadLimits, Headers, Method, Version};

/// Why a request was refused. The connection closes after the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The head is longer than the limit, or is not complete when the limit is reached.
    #[error("the request head exceeds {bytes_max} bytes")]
    HeadTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// More header lines than the limit.
    #[error("the request has more than {headers_max} header lines")]
    TooManyHeaders {
        /// The limit.
        headers_max: usize,
    },
    /// A line that is malformed.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The method is no token.
    #[error("the method is invalid")]
    InvalidMethod,
    /// The request line is not `method SP target SP version`.
    #[error("the request line is invalid")]
    InvalidRequestLine,
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// A version other than 1.0 and 1.1.
    #[error("HTTP/{major}.{minor} is not spoken here")]
    UnsupportedVersion {
        /// Its first digit.
        major: u8,
        /// Its second digit.
        minor: u8,
    },
    /// An HTTP/1.1 request without `Host`.
    #[error("the request has no Host")]
    MissingHost,
    /// More than one `Host`.
    #[error("the request has {count} Host lines")]
    RepeatedHost {
        /// How many.
        count: u32,
    },
    /// `Host` is not `host[:port]`.
    #[error("the Host: {0}")]
    InvalidHost(AuthorityError),
    /// The framing of the body.
    #[error("the request has {0}")]
    Framing(#[from] FramingError),
    /// A CONNECT that announces a body: whether it or the tunnel comes next is anyone's guess.
    #[error("the CONNECT request has a body")]
    ConnectBody,
}

impl RequestError {
    /// The status to answer with: 400, 431, 501 or 505.
    pub fn status(&self) -> u16 {
        match self {
            Self::HeadTooLarge { .. } | Self::TooManyHeaders { .. } => 431,
            Self::UnsupportedVersion { .. } => 505,
            Self::Framing(FramingError::UnknownCoding) => 501,
            Self::Framing(_) | Self::Line(_) | Self::Target(_) => 400,
            Self::InvalidMethod | Self::InvalidRequestLine | Self::ConnectBody => 400,
            Self::MissingHost | Self::RepeatedHost { .. } | Self::InvalidHost(_) => 400,
        }
    }
}

/// The body that follows a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestBody {
    /// No body was announced.
    None,
    /// Exactly so many bytes; 0 if the client said so.
    Length(u64),
    /// Chunks, read with [`ChunkedDecoder`](super::ChunkedDecoder).
    Chunked,
}

impl RequestBody {
    /// Whether no byte follows the head.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

/// A request head that was accepted, borrowed from the buffer it arrived in.
#[derive(Clone)]
pub struct RequestHead<'b> {
    /// The method, if it is one we know.
    pub method: Method,
    /// The method as sent.
    pub method_raw: &'b str,
    /// The target as sent.
    pub target: &'b str,
    /// The form of the target.
    pub form: TargetForm,
    /// The scheme as sent, `http` or `https` in any case; "" unless the form is absolute.
    pub scheme: &'b str,
    /// The valid authority of an absolute target or of CONNECT, as sent.
    pub authority: Option<&'b str>,
    /// The raw path. "/" if an absolute target has none, "*" in asterisk form, "" in authority
    /// form.
    pub path: &'b str,
    /// The raw query without its `?`; `Some("")` for a lone `?`.
    pub query: Option<&'b str>,
    /// The protocol version.
    pub version: Version,
    /// The header lines.
    pub headers: Headers<'b>,
    /// Length of the head with leading empty lines and the blank line: the body begins here.
    pub bytes: usize,
    /// What follows the head.
    pub body: RequestBody,
    /// Whether the client wants to send another request behind this one.
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends its body (never without a body or in
    /// HTTP/1.0).
    pub expect_continue: bool,
    /// The valid `Host` as sent. `None` only in HTTP/1.0.
    pub host: Option<&'b str>,
}

/// No header values and no query: they carry credentials, and this ends in logs.
impl std::fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestHead")
            .field("method", &self.method_raw)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("headers", &self.headers)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// Parses the request head at the start of `buf`; `None` means that more bytes are wanted.
///
/// # Errors
/// [`RequestError`], also for a head that is not complete yet and can no longer become valid. With
/// more bytes behind it, the same head gets the same answer.
pub fn parse_request<'b>(
    buf: &'b [u8],
    limits: &HeadLimits,
) -> Result<Option<RequestHead<'b>>, RequestError> {
    let window = &buf[..buf.len().min(limits.bytes())];
    let start = leading_crlf_bytes(window);
    if matches!(window.get(start), Some(b'\r' | b'\n')) {
        return empty_line(window, start, limits);
    }
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(&window[start..], &mut lines[..limits.headers()]) {
        Ok(httparse::Status::Complete(bytes)) => {
            build(&window[..start + bytes], start, &parsed).map(Some)
        }
        Ok(httparse::Status::Partial) => incomplete(window, start, limits),
        Err(error) => refuse(window, start, limits, error),
    }
}

fn build<'b>(
    head: &'b [u8],
    start: usize,
    parsed: &httparse::Request<'_, 'b>,
) -> Result<RequestHead<'b>, RequestError> {
    let mut headers = Headers::empty();
    headers.fill(head, start, parsed.headers)?;
    let method_raw = parsed.method.ok_or(RequestError::InvalidMethod)?;
    let target = parsed.path.ok_or(RequestError::InvalidRequestLine)?;
    let version = Version::from_minor(parsed.version);
    let method = Method::from_token(method_raw);
    let Target {
        form,
        scheme,
        authority,
        path,
        query,
    } = Target::parse(method, target)?;
    let facts = Facts::gather(parsed.headers);
    let host = valid_host(&facts, version)?;
    let body = match facts.framing(version)? {
        Framing::Length(0) | Framing::Undeclared if method == Method::Connect => RequestBody::None,
        Framing::Length(_) | Framing::Chunked if method == Method::Connect => {
            return Err(RequestError::ConnectBody);
        }
        Framing::Undeclared => RequestBody::None,
        Framing::Length(length) => RequestBody::Length(length),
        Framing::Chunked => RequestBody::Chunked,
    };
    Ok(RequestHead {
        method,
        method_raw,
        target,
        form,
        scheme,
        authority,
        path,
        query,
        version,
        headers,
        bytes: head.len(),
        body,
        keep_alive: facts.keep_alive(version),
        // An HTTP/1.0 expectation is ignored (RFC 9110, section 10.1.1).
        expect_continue: facts.expect_continue && version == Version::Http11 && !body.is_empty(),
        host,
    })
}

fn valid_host<'b>(facts: &Facts<'b>, version: Version) -> Result<Option<&'b str>, RequestError> {
    if facts.hosts > 1 {
        return Err(RequestError::RepeatedHost { count: facts.hosts });
    }
    let Some(value) = facts.host else {
        return match version {
            Version::Http11 => Err(RequestError::MissingHost),
            Version::Http10 => Ok(None),
        };
    };
    let invalid = RequestError::InvalidHost(AuthorityError::InvalidHost);
    let host = std::str::from_utf8(value).map_err(|_| invalid)?;
    Authority::parse(host).map_err(RequestError::InvalidHost)?;
    Ok(Some(host))
}

/// CR or LF where the start line should begin, and it is not one of the tolerated empty lines.
fn empty_line<'b>(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Option<RequestHead<'b>>, RequestError> {
    let fault = match &window[start..] {
        [b'\r'] => return incomplete(window, start, limits),
        [b'\r', b'\n', ..] => LineFault::EmptyLines,
        [b'\r', ..] => LineFault::BareCr,
        _ => LineFault::BareLf,
    };
    Err(LineError { line: 0, fault }.into())
}

/// The answer to a head without its blank line: wait, unless that cannot help any more.
fn incomplete<'b>(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Option<RequestHead<'b>>, RequestError> {
    if let Some(fault) = first_fault(&window[start..]) {
        return Err(fault.into());
    }
    if window.len() == limits.bytes() {
        return Err(RequestError::HeadTooLarge {
            bytes_max: limits.bytes(),
        });
    }
    Ok(None)
}

#[cold]
fn refuse<'b>(
    window: &[u8],
    start: usize,
    limits: &HeadLimits,
    error: httparse::Error,
) -> Result<Option<RequestHead<'b>>, RequestError> {
    let head = &window[start..];
    let headers_max = limits.headers();
    if let Some(fault) = refused_fault(head, error, headers_max) {
        return Err(fault.into());
    }
    match error {
        httparse::Error::TooManyHeaders => Err(RequestError::TooManyHeaders { headers_max }),
        httparse::Error::Version | httparse::Error::Token => match start_line_fault(head) {
            Some(error) => Err(error),
            None => incomplete(window, start, limits),
        },
        httparse::Error::NewLine | httparse::Error::Status => Err(RequestError::InvalidRequestLine),
        // Header faults have been found above; these cannot be left.
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            Err(RequestError::InvalidRequestLine)
        }
    }
}

/// What is wrong with the request line; `None` if that shows only when more of it has come.
fn start_line_fault(head: &[u8]) -> Option<RequestError> {
    let end = memchr::memchr2(b'\r', b'\n', head);
    let line = &head[..end.unwrap_or(head.len())];
    let mut words = line.splitn(3, |byte| *byte == b' ');
    if !is_token(words.next().unwrap_or_default()) {
        return Some(RequestError::InvalidMethod);
    }
    let target = words.next().unwrap_or_default();
    let valid = std::str::from_utf8(target).is_ok() && target.iter().all(|byte| is_visible(*byte));
    if !valid {
        return Some(TargetError::InvalidByte.into());
    }
    if target.is_empty() && words.next().is_some() {
        return Some(RequestError::InvalidRequestLine);
    }
    let version = words.next().unwrap_or_default();
    // Before its line end, a wrong version may still become another kind of wrong.
    memchr::memchr(b'\n', head)?;
    match version {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            major @ b'0'..=b'9',
            b'.',
            minor @ b'0'..=b'9',
        ] => {
            let (major, minor) = (major - b'0', minor - b'0');
            Some(RequestError::UnsupportedVersion { major, minor })
        }
        _ => Some(RequestError::InvalidRequestLine),
    }
}

//! The response head: bytes from the origin to [`ResponseHead`].
//!
//! Called by `upstream` for each response. Interim (1xx) heads are returned like final ones, the
//! caller goes on reading behind them. Nothing is allocated. Every error means that the origin's
//! connection closes; whether the request may be sent again is the caller's question.

use std::mem::MaybeUninit;

use super::framing::{Facts, Framing, FramingError};
use super::line::{LineError, LineFault, first_fault, refused_fault};
use super::{HEADERS_MAX, HeadLimits, Headers, Method, Version};

/// Why a response was refused. Its connection cannot be used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// The head is longer than the limit, or is not complete when the limit is reached.
    #[error("the response head exceeds {bytes_max} bytes")]
    HeadTooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// More header lines than the limit.
    #[error("the response has more than {headers_max} header lines")]
    TooManyHeaders {
        /// The limit.
        headers_max: usize,
    },
    /// A line that is malformed.
    #[error(transparent)]
    Line(#[from] LineError),
    /// Not `HTTP/1.x SP status [SP reason]` with a status from 100 to 999.
    #[error("the status line is invalid")]
    InvalidStatusLine,
    /// The framing of the body.
    #[error("the response has {0}")]
    Framing(#[from] FramingError),
}

/// The body that follows a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseBody {
    /// None, whatever the headers say: HEAD, 1xx, 204, 304, and 2xx to CONNECT (then the tunnel
    /// follows).
    None,
    /// Exactly so many bytes.
    Length(u64),
    /// Chunks, read with [`ChunkedDecoder`](super::ChunkedDecoder).
    Chunked,
    /// All bytes until the connection closes. A cut cannot be told from the end.
    UntilClose,
}

/// A response head that was accepted, borrowed from the buffer it arrived in.
#[derive(Clone, Debug)]
pub struct ResponseHead<'b> {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; "" if there is none or it is not ASCII.
    pub reason: &'b str,
    /// The protocol version.
    pub version: Version,
    /// The header lines.
    pub headers: Headers<'b>,
    /// Length of the head with its blank line: the body begins here.
    pub bytes: usize,
    /// What follows the head.
    pub body: ResponseBody,
    /// Whether the connection can carry another request behind this response.
    pub keep_alive: bool,
}

impl ResponseHead<'_> {
    /// Whether another head follows for the same request: 1xx, but not 101, behind which the
    /// protocol changes.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }
}

/// Parses the response head at the start of `buf`; `None` means that more bytes are wanted.
///
/// `request_method` is the method of the request it answers, which decides whether a body follows.
///
/// # Errors
/// [`ResponseError`], also for a head that is not complete yet and can no longer become valid.
pub fn parse_response<'b>(
    buf: &'b [u8],
    request_method: Method,
    limits: &HeadLimits,
) -> Result<Option<ResponseHead<'b>>, ResponseError> {
    let window = &buf[..buf.len().min(limits.bytes())];
    // Empty lines before a response are leftovers of something else, never a courtesy.
    match window {
        [b'\r', b'\n', ..] => {
            return Err(LineError {
                line: 0,
                fault: LineFault::EmptyLines,
            }
            .into());
        }
        [b'\r' | b'\n', ..] => return Err(ResponseError::InvalidStatusLine),
        _ => {}
    }
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let outcome = config.parse_response_with_uninit_headers(
        &mut parsed,
        window,
        &mut lines[..limits.headers()],
    );
    match outcome {
        Ok(httparse::Status::Complete(bytes)) => {
            build(&window[..bytes], request_method, &parsed).map(Some)
        }
        Ok(httparse::Status::Partial) => match first_fault(window) {
            Some(fault) => Err(fault.into()),
            None if window.len() == limits.bytes() => Err(ResponseError::HeadTooLarge {
                bytes_max: limits.bytes(),
            }),
            None => Ok(None),
        },
        Err(error) => Err(refuse(window, limits, error)),
    }
}

fn build<'b>(
    head: &'b [u8],
    request_method: Method,
    parsed: &httparse::Response<'_, 'b>,
) -> Result<ResponseHead<'b>, ResponseError> {
    let mut headers = Headers::empty();
    headers.fill(head, 0, parsed.headers)?;
    let status = parsed
        .code
        .filter(|code| *code >= 100)
        .ok_or(ResponseError::InvalidStatusLine)?;
    let version = Version::from_minor(parsed.version);
    let facts = Facts::gather(parsed.headers);
    let framing = facts.framing(version)?;
    let tunnel = request_method == Method::Connect && (200..300).contains(&status);
    let bare = status < 200 || status == 204;
    let body = match framing {
        _ if bare || tunnel || status == 304 || request_method == Method::Head => {
            ResponseBody::None
        }
        Framing::Undeclared => ResponseBody::UntilClose,
        Framing::Length(length) => ResponseBody::Length(length),
        Framing::Chunked => ResponseBody::Chunked,
    };
    // A 1xx or 204 must not announce a body (RFC 9112, section 6.1). If it does, one may come.
    let stray_body = bare && !matches!(framing, Framing::Undeclared | Framing::Length(0));
    Ok(ResponseHead {
        status,
        reason: parsed.reason.unwrap_or_default(),
        version,
        headers,
        bytes: head.len(),
        body,
        keep_alive: facts.keep_alive(version) && body != ResponseBody::UntilClose && !stray_body,
    })
}

#[cold]
fn refuse(window: &[u8], limits: &HeadLimits, error: httparse::Error) -> ResponseError {
    match (refused_fault(window, error, limits.headers()), error) {
        (Some(fault), _) => fault.into(),
        (None, httparse::Error::TooManyHeaders) => ResponseError::TooManyHeaders {
            headers_max: limits.headers(),
        },
        (None, _) => ResponseError::InvalidStatusLine,
    }
}

//! Heads from values to bytes, appended to a buffer of the caller's.
//!
//! Called where a request goes to the origin and where a response goes to a client. Nothing is
//! allocated besides the buffer's growth. Invariant: a value can never end its line, so what is
//! written parses back to what was given. Which headers belong into a head is the caller's
//! decision.

use super::line::{is_token, is_visible};

/// Why something was not written. The buffer is as it was before the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The method is no token.
    #[error("the method is no token")]
    InvalidMethod,
    /// The target is empty, or has whitespace or control characters.
    #[error("the target has an invalid byte")]
    InvalidTarget,
    /// The status is not 100 to 999.
    #[error("status {status}")]
    InvalidStatus {
        /// It.
        status: u16,
    },
    /// A header name that is no token.
    #[error("the header name is no token")]
    InvalidName,
    /// CR, LF or NUL in a value or a reason phrase.
    #[error("byte {byte:#04x} in a header value")]
    InvalidValue {
        /// The byte.
        byte: u8,
    },
    /// Raw lines that do not end in CRLF or have a bare CR or LF.
    #[error("raw lines without exact line ends")]
    InvalidLines,
}

/// Writes a request head. Call [`finish`](Self::finish) at the end.
#[must_use = "a head without its blank line is not finished"]
pub struct RequestWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> RequestWriter<'o> {
    /// Writes `method path[?query] HTTP/1.1`. For a target in another form than the origin's, give
    /// it as `path`.
    ///
    /// # Errors
    /// [`WriteError::InvalidMethod`], [`WriteError::InvalidTarget`].
    pub fn new(
        out: &'o mut Vec<u8>,
        method: &str,
        path: &str,
        query: Option<&str>,
    ) -> Result<Self, WriteError> {
        if !is_token(method.as_bytes()) {
            return Err(WriteError::InvalidMethod);
        }
        let clean = |part: &str| part.bytes().all(is_visible);
        if path.is_empty() || !clean(path) || !query.is_none_or(clean) {
            return Err(WriteError::InvalidTarget);
        }
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(Self { out })
    }

    /// Writes one header line.
    ///
    /// # Errors
    /// [`WriteError::InvalidName`], [`WriteError::InvalidValue`].
    pub fn header(&mut self, name: &str, value: &[u8]) -> Result<(), WriteError> {
        write_header(self.out, name, value)
    }

    /// Writes one header line with a number.
    ///
    /// # Errors
    /// [`WriteError::InvalidName`].
    pub fn header_u64(&mut self, name: &str, value: u64) -> Result<(), WriteError> {
        write_header(self.out, name, itoa::Buffer::new().format(value).as_bytes())
    }

    /// Writes header lines as they are, each with its CRLF, such as
    /// [`HeaderLine::raw`](super::HeaderLine::raw).
    ///
    /// # Errors
    /// [`WriteError::InvalidLines`].
    pub fn raw_lines(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        write_raw_lines(self.out, lines)
    }

    /// Writes the blank line.
    pub fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Writes a response head. Call [`finish`](Self::finish) at the end.
#[must_use = "a head without its blank line is not finished"]
pub struct ResponseWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> ResponseWriter<'o> {
    /// Writes `HTTP/1.1 status reason` with the [`standard_reason`].
    ///
    /// # Errors
    /// [`WriteError::InvalidStatus`].
    pub fn new(out: &'o mut Vec<u8>, status: u16) -> Result<Self, WriteError> {
        Self::with_reason(out, status, standard_reason(status))
    }

    /// Writes `HTTP/1.1 status reason` with the reason phrase given, the origin's for example.
    ///
    /// # Errors
    /// [`WriteError::InvalidStatus`], [`WriteError::InvalidValue`].
    pub fn with_reason(
        out: &'o mut Vec<u8>,
        status: u16,
        reason: &str,
    ) -> Result<Self, WriteError> {
        if !(100..=999).contains(&status) {
            return Err(WriteError::InvalidStatus { status });
        }
        check_value(reason.as_bytes())?;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        // The space stands even before an empty reason (RFC 9112, section 4).
        out.push(b' ');
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(Self { out })
    }

    /// Writes one header line.
    ///
    /// # Errors
    /// [`WriteError::InvalidName`], [`WriteError::InvalidValue`].
    pub fn header(&mut self, name: &str, value: &[u8]) -> Result<(), WriteError> {
        write_header(self.out, name, value)
    }

    /// Writes one header line with a number.
    ///
    /// # Errors
    /// [`WriteError::InvalidName`].
    pub fn header_u64(&mut self, name: &str, value: u64) -> Result<(), WriteError> {
        write_header(self.out, name, itoa::Buffer::new().format(value).as_bytes())
    }

    /// Writes header lines as they are, each with its CRLF.
    ///
    /// # Errors
    /// [`WriteError::InvalidLines`].
    pub fn raw_lines(&mut self, lines: &[u8]) -> Result<(), WriteError> {
        write_raw_lines(self.out, lines)
    }

    /// Writes the blank line.
    pub fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

fn write_header(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), WriteError> {
    if !is_token(name.as_bytes()) {
        return Err(WriteError::InvalidName);
    }
    check_value(value)?;
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn check_value(value: &[u8]) -> Result<(), WriteError> {
    match memchr::memchr3(b'\r', b'\n', 0, value) {
        Some(at) => Err(WriteError::InvalidValue { byte: value[at] }),
        None => Ok(()),
    }
}

/// Every CR and LF is part of a CRLF, no line is empty (it would end the head), and the last one is
/// ended.
fn write_raw_lines(out: &mut Vec<u8>, lines: &[u8]) -> Result<(), WriteError> {
    let mut at = 0;
    for lf in memchr::memchr_iter(b'\n', lines) {
        let content = lines[at..lf]
            .strip_suffix(b"\r")
            .ok_or(WriteError::InvalidLines)?;
        if content.is_empty() || memchr::memchr2(b'\r', 0, content).is_some() {
            return Err(WriteError::InvalidLines);
        }
        at = lf + 1;
    }
    if at != lines.len() {
        return Err(WriteError::InvalidLines);
    }
    out.extend_from_slice(lines);
    Ok(())
}

/// The reason phrase of a status (RFC 9110, section 15, and RFC 6585); "" for one that has none
/// there.
pub fn standard_reason(status: u16) -> &'static str {
    match status {
        100..=199 => informational_reason(status),
        200..=299 => success_reason(status),
        300..=399 => redirect_reason(status),
        400..=499 => client_error_reason(status),
        500..=599 => server_error_reason(status),
        _ => "",
    }
}

fn informational_reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        _ => "",
    }
}

fn success_reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        _ => "",
    }
}

fn redirect_reason(status: u16) -> &'static str {
    match status {
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        _ => "",
    }
}

fn client_error_reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        _ => "",
    }
}

fn server_error_reason(status: u16) -> &'static str {
    match status {
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Method, parse_request, parse_response};

    #[test]
    fn a_written_request_parses_to_what_was_given() {
        let mut out = b"before".to_vec();
        let mut writer =
            RequestWriter::new(&mut out, "GET", "/b//k", Some("x-id=GetObject")).unwrap();
        writer.header("Host", b"h:9000").unwrap();
        writer.raw_lines(b"X-A:  1\r\nx-a:2 \r\n").unwrap();
        writer.header_u64("Content-Length", u64::MAX).unwrap();
        writer.finish();
        let want =
            b"beforeGET /b//k?x-id=GetObject HTTP/1.1\r\nHost: h:9000\r\nX-A:  1\r\nx-a:2 \r\n\
            Content-Length: 18446744073709551615\r\n\r\n";
        assert_eq!(
            out.escape_ascii().to_string(),
            want.escape_ascii().to_string()
        );
        let head = parse_request(&out[6..], &HeadLimits::default())
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.path, head.query, head.bytes),
            ("/b//k", Some("x-id=GetObject"), out.len() - 6)
        );
        assert_eq!(
            head.headers.find_all("x-a").collect::<Vec<_>>(),
            [b"1", b"2"]
        );
    }

    #[test]
    fn a_written_response_parses_to_what_was_given() {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, 206).unwrap();
        writer.header("ETag", b"\"a\"").unwrap();
        writer.header("x-amz-meta-a", b"\xc3\xa9\xff").unwrap();
        writer.header_u64("content-length", 3).unwrap();
        writer.finish();
        let head = parse_response(&out, Method::Get, &HeadLimits::default())
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.status, head.reason, head.bytes),
            (206, "Partial Content", out.len())
        );
        assert_eq!(
            head.headers.find("x-amz-meta-a"),
            Some(&b"\xc3\xa9\xff"[..])
        );
    }

    #[test]
    fn a_status_without_standard_reason_keeps_its_space() {
        let mut out = Vec::new();
        ResponseWriter::new(&mut out, 299).unwrap().finish();
        assert_eq!(out, b"HTTP/1.1 299 \r\n\r\n");
        out.clear();
        ResponseWriter::with_reason(&mut out, 503, "Slow Down")
            .unwrap()
            .finish();
        assert_eq!(out, b"HTTP/1.1 503 Slow Down\r\n\r\n");
    }

    #[test]
    fn what_would_end_a_line_is_refused_and_nothing_is_written() {
        let mut out = Vec::new();
        let mut writer = ResponseWriter::new(&mut out, 200).unwrap();
        for byte in [b'\r', b'\n', 0] {
            assert_eq!(
                writer.header("a", &[b'x', byte]),
                Err(WriteError::InvalidValue { byte })
            );
        }
        for name in ["", "a b", "a:", "a\r\n", "\u{e9}"] {
            assert_eq!(
                writer.header(name, b"x"),
                Err(WriteError::InvalidName),
                "{name:?}"
            );
        }
        let lines: [&[u8]; 8] = [
            b"a: 1",
            b"a: 1\n",
            b"\r\n",
            b"a: 1\r\n\r\n",
            b"a\rb\r\n",
            b"a: 1\r\nb",
            b"a\0\r\n",
            b"\n",
        ];
        for raw in lines {
            assert_eq!(
                writer.raw_lines(raw),
                Err(WriteError::InvalidLines),
                "{raw:?}"
            );
        }
        writer.raw_lines(b"").unwrap();
        writer.finish();
        assert_eq!(out, b"HTTP/1.1 200 OK\r\n\r\n");
    }

    #[test]
    fn a_bad_start_line_is_refused() {
        let mut out = Vec::new();
        let mut request =
            |method, path, query| RequestWriter::new(&mut out, method, path, query).err();
        assert_eq!(request("G T", "/", None), Some(WriteError::InvalidMethod));
        assert_eq!(request("", "/", None), Some(WriteError::InvalidMethod));
        for path in ["", "/a b", "/a\r\n", "/\x7f"] {
            assert_eq!(
                request("GET", path, None),
                Some(WriteError::InvalidTarget),
                "{path:?}"
            );
        }
        assert_eq!(
            request("GET", "/", Some("a b")),
            Some(WriteError::InvalidTarget)
        );
        assert_eq!(request("GET", "/\u{e9}{}", Some("")), None);
        let status = |status| ResponseWriter::new(&mut Vec::new(), status).err();
        assert_eq!(status(99), Some(WriteError::InvalidStatus { status: 99 }));
        assert_eq!(
            status(1000),
            Some(WriteError::InvalidStatus { status: 1000 })
        );
        let reason = ResponseWriter::with_reason(&mut Vec::new(), 200, "a\r\nb").err();
        assert_eq!(reason, Some(WriteError::InvalidValue { byte: b'\r' }));
    }
}

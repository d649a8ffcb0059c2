//! The head of an answer, read as cheaply as its checks allow: status, length, whether the connection stays.
//!
//! Called for every answer the load client gets. Pure. Invariant: a head is reported only when it is whole. Left to
//! others: every other header, and answers without `Content-Length`, which are an error to the load client.

/// What matters of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// Bytes of the head, the empty line included.
    pub bytes: usize,
    pub status: u16,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// `Connection: close`.
    pub closes: bool,
}

/// A head that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotHttp;

/// Reads the head at the start of `bytes`; `None` until it is whole.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<AnswerHead>, NotHttp> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..end + 2];
    if !head.starts_with(b"HTTP/1.")
        || head.len() < 14
        || !head[9..12].iter().all(u8::is_ascii_digit)
    {
        return Err(NotHttp);
    }
    let digit = |at: usize| u16::from(head[at] - b'0');
    let mut found = AnswerHead {
        bytes: end + 4,
        status: digit(9) * 100 + digit(10) * 10 + digit(11),
        length: None,
        closes: false,
    };
    let mut line_start = 0;
    for line_end in memchr::memchr_iter(b'\n', head) {
        let line = &head[line_start..line_end];
        line_start = line_end + 1;
        if line.first().is_none_or(|byte| byte | 0x20 != b'c') {
            continue;
        }
        if let Some(value) = value_of(line, b"content-length:") {
            found.length = std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse().ok());
        } else if let Some(value) = value_of(line, b"connection:") {
            found.closes = value.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Some(found))
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (have, value) = line.split_at_checked(name.len())?;
    have.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_length_and_close_are_read_and_nothing_before_the_end() {
        let text = b"HTTP/1.1 206 Partial Content\r\nServer: x\r\ncontent-LENGTH: 42\r\nConnection: Close\r\n\r\nbody";
        for cut in 0..text.len() - 4 {
            assert_eq!(parse(&text[..cut]), Ok(None));
        }
        let head = AnswerHead {
            bytes: text.len() - 4,
            status: 206,
            length: Some(42),
            closes: true,
        };
        assert_eq!(parse(text), Ok(Some(head)));
    }

    #[test]
    fn what_is_not_http_is_said_so() {
        assert_eq!(parse(b"SSH-2.0\r\n\r\n"), Err(NotHttp));
        assert_eq!(parse(b"HTTP/1.1 2x0 OK\r\n\r\n"), Err(NotHttp));
        let none = parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n");
        assert_eq!(none.map(|head| head.expect("whole").length), Ok(None));
    }
}

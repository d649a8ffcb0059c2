//! Lines of a head: where a head ends, and what is wrong with a line that was refused.
//!
//! Called by the head parsers and the chunked decoder of this module, and by connections that wait
//! for the rest of a head. httparse reads the lines that are right; it also reads bare LF as a line
//! end, which this file refuses, and it does not say where a fault is, which this file finds out on
//! the cold path. Invariant: a fault is the first one in byte order, so a longer buffer never
//! changes the answer.

use memchr::memchr;

/// Empty lines tolerated before a request line (RFC 9112, section 2.2).
const LEADING_CRLF_MAX: usize = 4;

/// What is wrong with one line of a head or of a trailer section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// LF without CR before it.
    #[error("a bare LF")]
    BareLf,
    /// CR without LF behind it.
    #[error("a bare CR")]
    BareCr,
    /// The line continues the one before it (obs-fold, RFC 9112, section 5.2).
    #[error("line folding")]
    Folded,
    /// No colon, or nothing before it.
    #[error("no field name")]
    NoName,
    /// Whitespace between name and colon (RFC 9112, section 5.1).
    #[error("whitespace before the colon")]
    SpaceBeforeColon,
    /// A byte in the name that is no token character.
    #[error("an invalid field name")]
    Name,
    /// A control character in the value.
    #[error("an invalid field value")]
    Value,
    /// Too many empty lines before the start line.
    #[error("too many empty lines")]
    EmptyLines,
    /// No line end where a stored block ends.
    #[error("no line end")]
    Unfinished,
    /// More lines or bytes than the table of header positions holds.
    #[error("no room left for it")]
    BeyondCeiling,
}

/// A fault and the line it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the head has {fault}")]
pub struct LineError {
    /// 0 is the start line.
    pub line: usize,
    /// What is wrong with it.
    pub fault: LineFault,
}

/// The bytes of a token (RFC 9110, section 5.6.2).
pub(super) const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let c = byte as u8;
        table[byte] = c.is_ascii_alphanumeric()
            || matches!(
                c,
                b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
            )
            || matches!(c, b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Whether a byte may stand in a field value, a reason phrase or a chunk extension.
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether a byte may stand in a request target: no control characters, no whitespace.
pub(super) fn is_visible(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

/// Where a message head ends: the offset behind its blank line, `None` while that has not come.
///
/// `from` is how many bytes an earlier call has already seen, so that a head which trickles in is
/// not scanned again and again. It also answers at a bare LF, with the offset behind it: in both
/// cases the parser has something final to say. The parser, not this scan, enforces the size limit;
/// call it too when the buffer has reached the limit.
pub fn head_complete(buf: &[u8], from: usize) -> Option<usize> {
    let start = leading_crlf_bytes(buf);
    // An LF is judged by the two bytes before it, and the first unseen byte may be the LF.
    let mut at = from.min(buf.len()).max(start);
    while let Some(found) = memchr(b'\n', &buf[at..]) {
        let lf = at + found;
        let before = &buf[start..lf];
        if !before.ends_with(b"\r") || before.ends_with(b"\n\r") {
            return Some(lf + 1);
        }
        at = lf + 1;
    }
    None
}

/// Bytes of the empty lines before the start line, at most [`LEADING_CRLF_MAX`] of them.
pub(super) fn leading_crlf_bytes(buf: &[u8]) -> usize {
    let empty = buf
        .chunks_exact(2)
        .take(LEADING_CRLF_MAX)
        .take_while(|pair| *pair == b"\r\n");
    2 * empty.count()
}

/// The first fault of a head that httparse refused or called incomplete. `head` begins at the start
/// line and is cut at the size limit; its last line may be incomplete. `None` if every line looks
/// well, and then the start line is to blame (its own grammar is the parsers' business).
pub(super) fn first_fault(head: &[u8]) -> Option<LineError> {
    let mut rest = head;
    let mut line = 0;
    loop {
        let (text, ended) = match memchr(b'\n', rest) {
            Some(lf) => (&rest[..lf], true),
            None => (rest, false),
        };
        if let Some(fault) = line_fault(text, ended, line == 0) {
            return Some(LineError { line, fault });
        }
        if !ended || text == b"\r" {
            return None;
        }
        rest = &rest[text.len() + 1..];
        line += 1;
    }
}

/// The first fault of a head that httparse refused with `error`: only the lines it read are judged,
/// so that what follows them does not change the answer.
pub(super) fn refused_fault(
    head: &[u8],
    error: httparse::Error,
    headers_max: usize,
) -> Option<LineError> {
    let lines = match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue => return first_fault(head),
        // The start line, the lines that fit and one more.
        httparse::Error::TooManyHeaders => headers_max + 2,
        // `NewLine` also stands for the blank line, which only a bare CR can spoil.
        httparse::Error::NewLine => return first_fault(head),
        httparse::Error::Status | httparse::Error::Token | httparse::Error::Version => 1,
    };
    match memchr::memchr_iter(b'\n', head).nth(lines - 1) {
        Some(lf) => first_fault(&head[..=lf]),
        None => first_fault(head),
    }
}

fn line_fault(text: &[u8], ended: bool, start_line: bool) -> Option<LineFault> {
    let content = text.strip_suffix(b"\r").unwrap_or(text);
    if let Some(cr) = memchr(b'\r', content) {
        let field = if start_line {
            None
        } else {
            field_fault(&content[..cr], false)
        };
        return Some(field.unwrap_or(LineFault::BareCr));
    }
    let ended_well = ended && content.len() < text.len();
    let field = if start_line || content.is_empty() {
        None
    } else {
        field_fault(content, content.len() < text.len())
    };
    field.or_else(|| (ended && !ended_well).then_some(LineFault::BareLf))
}

/// What is wrong with one `name: value` without its line end. An incomplete one (`whole` is false)
/// is judged by what is there.
pub(super) fn field_fault(line: &[u8], whole: bool) -> Option<LineFault> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Some(LineFault::Folded);
    }
    let Some(stop) = line.iter().position(|byte| !TOKEN[usize::from(*byte)]) else {
        return whole.then_some(LineFault::NoName);
    };
    match line[stop] {
        b':' if stop == 0 => Some(LineFault::NoName),
        b':' => (!line[stop + 1..].iter().all(|byte| is_text(*byte))).then_some(LineFault::Value),
        b' ' | b'\t' => Some(LineFault::SpaceBeforeColon),
        _ => Some(LineFault::Name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_complete_at_its_blank_line() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\r\n\r\n";
        assert_eq!(head_complete(head, 0), Some(27));
        assert_eq!(head_complete(&head[..26], 0), None);
        assert_eq!(head_complete(b"", 0), None);
    }

    #[test]
    fn a_resumed_scan_finds_the_same_end() {
        let head = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for seen in 0..head.len() {
            assert_eq!(head_complete(&head[..seen], 0), None, "{seen}");
            assert_eq!(head_complete(head, seen), Some(head.len()), "{seen}");
        }
    }

    #[test]
    fn leading_empty_lines_are_not_a_complete_head() {
        assert_eq!(head_complete(b"\r\n\r\nGET / HTTP/1.1\r\n", 0), None);
        assert_eq!(head_complete(b"\r\n\r\n", 0), None);
        assert_eq!(head_complete(b"\r\n\r\n\r", 4), None);
    }

    #[test]
    fn a_bare_lf_ends_the_waiting() {
        assert_eq!(head_complete(b"GET / HTTP/1.1\nHo", 0), Some(15));
        assert_eq!(head_complete(b"\nGET", 0), Some(1));
        assert_eq!(head_complete(b"\r\n\nGET", 0), Some(3));
    }

    #[test]
    fn the_first_fault_is_named_with_its_line() {
        let fault = |head: &[u8]| first_fault(head).map(|error| (error.line, error.fault));
        assert_eq!(fault(b"G / X\r\nA: 1\r\n\r\n"), None);
        assert_eq!(fault(b"G / X\nA: 1\r\n\r\n"), Some((0, LineFault::BareLf)));
        assert_eq!(fault(b"G / \rX\r\n"), Some((0, LineFault::BareCr)));
        assert_eq!(fault(b"G\r\nA: 1\r\n B\r\n"), Some((2, LineFault::Folded)));
        assert_eq!(
            fault(b"G\r\nA : 1\r\n"),
            Some((1, LineFault::SpaceBeforeColon))
        );
        assert_eq!(fault(b"G\r\nA\r\n"), Some((1, LineFault::NoName)));
        assert_eq!(fault(b"G\r\n: 1\r\n"), Some((1, LineFault::NoName)));
        assert_eq!(fault(b"G\r\nA(: 1\r\n"), Some((1, LineFault::Name)));
        assert_eq!(fault(b"G\r\nA: \x00\r\n"), Some((1, LineFault::Value)));
        assert_eq!(fault(b"G\r\nA: 1\n"), Some((1, LineFault::BareLf)));
        assert_eq!(fault(b"G\r\nA: 1\rB\r\n"), Some((1, LineFault::BareCr)));
        assert_eq!(fault(b"G\r\nA"), None);
    }
}

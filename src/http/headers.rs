//! The header lines of one head, in order, as slices of the buffer they arrived in.
//!
//! Made by the head parsers (and by [`Headers::parse`] for a stored block of lines), read by
//! everybody who needs a header. A table of 16-bit positions instead of slices, in place for as many
//! lines as clients usually send: it is moved once per request. Invariants: every position lies inside `buf`,
//! names are tokens, values have no control characters and no whitespace around them, every line
//! ends in CRLF.

use smallvec::SmallVec;

use super::line::{LineError, LineFault, first_fault};
use super::{HEAD_BYTES_CEILING, HEADERS_MAX};

/// Where one line's name and value are, from the start of the buffer.
#[derive(Clone, Copy)]
struct Slot {
    name_at: u16,
    name_bytes: u16,
    value_at: u16,
    value_bytes: u16,
}

/// Lines that need no memory of their own: boto3 sends up to 20.
const LINES_IN_PLACE: usize = 24;

// A position is below the ceiling, a length is below it by at least the line end.
const _: () = assert!(HEAD_BYTES_CEILING <= u16::MAX as usize + 1);

/// The headers of a message, ordered as sent, with names' case, values' bytes and duplicates as
/// sent.
#[derive(Clone)]
pub struct Headers<'b> {
    buf: &'b [u8],
    /// Behind the last header line: where the blank line begins.
    end: usize,
    /// Whether a `Connection` line lists header names (its usual `close` and `keep-alive` are none),
    /// so that most messages skip the search for them.
    pub(super) lists_names: bool,
    slots: SmallVec<[Slot; LINES_IN_PLACE]>,
}

impl<'b> Headers<'b> {
    /// No headers at all.
    pub fn empty() -> Self {
        Self {
            buf: &[],
            end: 0,
            lists_names: false,
            slots: SmallVec::new(),
        }
    }

    /// Reads a block of header lines, each ending in CRLF, without start line and blank line:
    /// stored response headers, for example.
    ///
    /// # Errors
    /// [`LineError`] for the first bad line; a block over [`HEAD_BYTES_CEILING`] bytes or
    /// [`HEADERS_MAX`] lines is bad at the line that goes too far.
    pub fn parse(block: &'b [u8]) -> Result<Self, LineError> {
        let mut headers = Self::empty();
        headers.buf = block;
        let mut at = 0;
        while at < block.len() {
            let line = headers.len();
            let Some(lf) = memchr::memchr(b'\n', &block[at..]) else {
                return Err(LineError {
                    line,
                    fault: LineFault::Unfinished,
                });
            };
            let end = at + lf + 1;
            if end > HEAD_BYTES_CEILING || line == HEADERS_MAX {
                return Err(LineError {
                    line,
                    fault: LineFault::BeyondCeiling,
                });
            }
            let Some(content) = block[at..end].strip_suffix(b"\r\n") else {
                return Err(LineError {
                    line,
                    fault: LineFault::BareLf,
                });
            };
            if let Some(fault) = super::line::field_fault(content, true) {
                return Err(LineError { line, fault });
            }
            headers.push_line(at, content);
            at = end;
        }
        headers.end = at;
        Ok(headers)
    }

    /// Takes over what httparse read. `head` is the buffer up to the end of the head, `start_line_at`
    /// where its start line begins. Fills in place, since a table returned by value is copied.
    ///
    /// # Errors
    /// [`LineFault::BareLf`], which httparse takes for a line end.
    pub(super) fn fill(
        &mut self,
        head: &'b [u8],
        start_line_at: usize,
        parsed: &[httparse::Header<'b>],
    ) -> Result<(), LineError> {
        let base = head.as_ptr() as usize;
        self.buf = head;
        self.end = head.len() - 2;
        let mut exact = head.ends_with(b"\r\n") && head[..self.end].ends_with(b"\r\n");
        self.slots.reserve(parsed.len());
        for header in parsed {
            let name_at = header.name.as_ptr() as usize - base;
            // httparse ended the line before at the LF in front of this name.
            exact &= head[name_at - 2] == b'\r';
            self.slots.push(Slot {
                name_at: name_at as u16,
                name_bytes: header.name.len() as u16,
                value_at: (header.value.as_ptr() as usize - base) as u16,
                value_bytes: header.value.len() as u16,
            });
            self.lists_names |= lists_names(header.name.as_bytes(), header.value);
        }
        if exact {
            return Ok(());
        }
        let first = first_fault(&head[start_line_at..]);
        Err(first.unwrap_or(LineError {
            line: parsed.len() + 1,
            fault: LineFault::BareLf,
        }))
    }

    fn push_line(&mut self, at: usize, content: &[u8]) {
        let colon = content
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(content.len() - 1);
        let behind = &content[colon + 1..];
        let value = trim(behind);
        let lead = behind.len() - behind.trim_ascii_start().len();
        self.lists_names |= lists_names(&content[..colon], value);
        self.slots.push(Slot {
            name_at: at as u16,
            name_bytes: colon as u16,
            value_at: (at + colon + 1 + lead) as u16,
            value_bytes: value.len() as u16,
        });
    }

    /// How many header lines there are.
    #[allow(
        clippy::len_without_is_empty,
        reason = "nobody asks, and `is_empty` would be dead code"
    )]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Every line as (name as sent, value), in order.
    pub fn iter(&self) -> HeaderIter<'_, 'b> {
        HeaderIter {
            headers: self,
            next: 0,
        }
    }

    /// The same with names as bytes: nobody has to look whether they are text.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (&'b [u8], &'b [u8])> {
        (0..self.len()).map(|index| (self.name_bytes(index), self.value(index)))
    }

    /// Every line with its raw bytes, in order: what a forwarder copies.
    pub fn lines(&self) -> HeaderLines<'_, 'b> {
        HeaderLines {
            headers: self,
            next: 0,
        }
    }

    /// The header lines as they are in the buffer, each with its CRLF, without start line and blank
    /// line.
    pub fn raw(&self) -> &'b [u8] {
        match self.slots.first() {
            Some(first) => &self.buf[usize::from(first.name_at)..self.end],
            None => &[],
        }
    }

    /// The value of the first line with this name, ASCII case ignored.
    pub fn find(&self, name: &str) -> Option<&'b [u8]> {
        self.find_all(name).next()
    }

    /// The values of all lines with this name, in order.
    pub fn find_all<'h, 'n>(&'h self, name: &'n str) -> FindAll<'h, 'b, 'n> {
        FindAll {
            headers: self,
            name,
            next: 0,
        }
    }

    /// How many lines have this name.
    pub fn count(&self, name: &str) -> usize {
        self.find_all(name).count()
    }

    /// Whether a comma-separated list header has this token, ASCII case ignored, in any of its
    /// lines.
    pub fn contains_token(&self, name: &str, token: &str) -> bool {
        self.find_all(name)
            .any(|value| list_has(value, token.as_bytes()))
    }

    fn name_bytes(&self, index: usize) -> &'b [u8] {
        let slot = self.slots[index];
        &self.buf[usize::from(slot.name_at)..][..usize::from(slot.name_bytes)]
    }

    fn name(&self, index: usize) -> &'b str {
        std::str::from_utf8(self.name_bytes(index)).expect("a name is a token, hence ASCII")
    }

    fn value(&self, index: usize) -> &'b [u8] {
        let slot = self.slots[index];
        &self.buf[usize::from(slot.value_at)..][..usize::from(slot.value_bytes)]
    }

    fn raw_line(&self, index: usize) -> &'b [u8] {
        let next = self.slots.get(index + 1);
        let end = next.map_or(self.end, |slot| usize::from(slot.name_at));
        &self.buf[usize::from(self.slots[index].name_at)..end]
    }
}

/// Names only: values carry credentials, and this ends in logs.
impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.iter().map(|(name, _)| name))
            .finish()
    }
}

impl<'h, 'b> IntoIterator for &'h Headers<'b> {
    type Item = (&'b str, &'b [u8]);
    type IntoIter = HeaderIter<'h, 'b>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterates over (name, value); see [`Headers::iter`].
pub struct HeaderIter<'h, 'b> {
    headers: &'h Headers<'b>,
    next: usize,
}

impl<'b> Iterator for HeaderIter<'_, 'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        if index == self.headers.len() {
            return None;
        }
        self.next += 1;
        Some((self.headers.name(index), self.headers.value(index)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.headers.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for HeaderIter<'_, '_> {}

/// One header line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderLine<'b> {
    /// The name as sent.
    pub name: &'b str,
    /// The value without the whitespace around it.
    pub value: &'b [u8],
    /// The whole line as sent, CRLF included. Lines that follow each other are adjacent in memory.
    pub raw: &'b [u8],
}

/// Iterates over whole lines; see [`Headers::lines`].
pub struct HeaderLines<'h, 'b> {
    headers: &'h Headers<'b>,
    next: usize,
}

impl<'b> Iterator for HeaderLines<'_, 'b> {
    type Item = HeaderLine<'b>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        if index == self.headers.len() {
            return None;
        }
        self.next += 1;
        Some(HeaderLine {
            name: self.headers.name(index),
            value: self.headers.value(index),
            raw: self.headers.raw_line(index),
        })
    }
}

/// Iterates over the values of one name; see [`Headers::find_all`].
pub struct FindAll<'h, 'b, 'n> {
    headers: &'h Headers<'b>,
    name: &'n str,
    next: usize,
}

impl<'b> Iterator for FindAll<'_, 'b, '_> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.headers.len() {
            let index = self.next;
            self.next += 1;
            let same_size = usize::from(self.headers.slots[index].name_bytes) == self.name.len();
            if same_size
                && self
                    .headers
                    .name_bytes(index)
                    .eq_ignore_ascii_case(self.name.as_bytes())
            {
                return Some(self.headers.value(index));
            }
        }
        None
    }
}

fn lists_names(name: &[u8], value: &[u8]) -> bool {
    let option = |member: &[u8]| {
        member.eq_ignore_ascii_case(b"close") || member.eq_ignore_ascii_case(b"keep-alive")
    };
    name.eq_ignore_ascii_case(b"connection") && !list(value).all(option)
}

/// Without optional whitespace around it (SP and HTAB; other kinds never get into a value).
pub(super) fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

/// The members of a comma-separated list; empty ones are left out (RFC 9110, section 5.6.1).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

pub(super) fn list_has(value: &[u8], token: &[u8]) -> bool {
    list(value).any(|member| member.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] =
        b"Host: b.example\r\nx-amz-meta-a:  one \t\r\nX-Amz-Meta-A: two\r\nEmpty:\r\n\
        Connection: keep-alive, X-Hop\r\nraw: \xc3\xa9 , \xff\r\n";

    #[test]
    fn order_case_values_and_duplicates_survive() {
        let headers = Headers::parse(BLOCK).unwrap();
        let seen: Vec<_> = headers.iter().collect();
        let want: Vec<(&str, &[u8])> = vec![
            ("Host", b"b.example"),
            ("x-amz-meta-a", b"one"),
            ("X-Amz-Meta-A", b"two"),
            ("Empty", b""),
            ("Connection", b"keep-alive, X-Hop"),
            ("raw", b"\xc3\xa9 , \xff"),
        ];
        assert_eq!(seen, want);
        assert_eq!(headers.len(), 6);
        assert_eq!(headers.iter().len(), 6);
    }

    #[test]
    fn find_ignores_case_and_takes_the_first() {
        let headers = Headers::parse(BLOCK).unwrap();
        assert_eq!(headers.find("HOST"), Some(&b"b.example"[..]));
        assert_eq!(headers.find("X-AMZ-META-A"), Some(&b"one"[..]));
        assert_eq!(
            headers.find_all("x-amz-meta-a").collect::<Vec<_>>(),
            [&b"one"[..], b"two"]
        );
        assert_eq!(headers.count("x-amz-meta-a"), 2);
        assert_eq!(headers.find("empty"), Some(&b""[..]));
        assert_eq!(headers.find("hos"), None);
        assert_eq!(headers.find(""), None);
    }

    #[test]
    fn list_tokens_are_found_in_any_line_and_case() {
        let headers = Headers::parse(b"Connection: close\r\nconnection:,Foo ,\tBAR,,\r\n").unwrap();
        for token in ["close", "CLOSE", "foo", "bar"] {
            assert!(headers.contains_token("connection", token), "{token}");
        }
        for token in ["fo", "", "foo ,", "clos", "closed"] {
            assert!(!headers.contains_token("connection", token), "{token}");
        }
    }

    #[test]
    fn raw_lines_add_up_to_the_raw_block() {
        let headers = Headers::parse(BLOCK).unwrap();
        assert_eq!(headers.raw(), BLOCK);
        let mut all = Vec::new();
        for line in headers.lines() {
            assert!(line.raw.starts_with(line.name.as_bytes()) && line.raw.ends_with(b"\r\n"));
            all.extend_from_slice(line.raw);
        }
        assert_eq!(all, BLOCK);
        assert_eq!(Headers::empty().raw(), b"");
        assert_eq!(Headers::parse(b"").unwrap().len(), 0);
    }

    #[test]
    fn a_bad_block_is_refused_with_its_line() {
        let bad = |block: &[u8]| Headers::parse(block).unwrap_err();
        assert_eq!(
            bad(b"a: 1\r\nb: 2\n"),
            LineError {
                line: 1,
                fault: LineFault::BareLf
            }
        );
        assert_eq!(
            bad(b"a: 1\r\nb: 2"),
            LineError {
                line: 1,
                fault: LineFault::Unfinished
            }
        );
        assert_eq!(
            bad(b"a: 1\r\n b\r\n"),
            LineError {
                line: 1,
                fault: LineFault::Folded
            }
        );
        assert_eq!(
            bad(b"\r\n"),
            LineError {
                line: 0,
                fault: LineFault::NoName
            }
        );
        let over = LineError {
            line: HEADERS_MAX,
            fault: LineFault::BeyondCeiling,
        };
        assert_eq!(bad(&b"a: 1\r\n".repeat(HEADERS_MAX + 1)), over);
        assert_eq!(
            Headers::parse(&b"a: 1\r\n".repeat(HEADERS_MAX))
                .unwrap()
                .len(),
            HEADERS_MAX
        );
    }

    #[test]
    fn debug_output_has_no_values() {
        let headers = Headers::parse(b"Authorization: secret\r\n").unwrap();
        assert_eq!(format!("{headers:?}"), "[\"Authorization\"]");
    }
}

//! What a head says about its body's length and its connection's life (RFC 9112, sections 6 and
//! 9.3).
//!
//! Called by the request and response parsers. One pass over the header lines gathers the facts;
//! the rules are strict, since two readers that frame one message differently are how requests get
//! smuggled.

use super::Version;
use super::headers::list_has;

/// Why the framing of a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// `Content-Length` together with `Transfer-Encoding`.
    #[error("both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// More than one `Content-Length`, be they equal or not.
    #[error("{count} Content-Length lines")]
    RepeatedLength {
        /// How many.
        count: u32,
    },
    /// Not a plain decimal number of at most 64 bits; a list is none.
    #[error("an invalid Content-Length")]
    InvalidLength,
    /// More than one `Transfer-Encoding`.
    #[error("{count} Transfer-Encoding lines")]
    RepeatedCoding {
        /// How many.
        count: u32,
    },
    /// `Transfer-Encoding` in an HTTP/1.0 message.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingBeforeHttp11,
    /// A transfer coding other than exactly `chunked`.
    #[error("an unknown transfer coding")]
    UnknownCoding,
}

/// The body length a head declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Undeclared,
    Length(u64),
    Chunked,
}

/// The headers that decide framing, persistence and the target, gathered in one pass.
#[derive(Default)]
pub(super) struct Facts<'b> {
    pub host: Option<&'b [u8]>,
    pub hosts: u32,
    pub expect_continue: bool,
    length: Option<&'b [u8]>,
    lengths: u32,
    coding: Option<&'b [u8]>,
    codings: u32,
    close: bool,
    keep_alive: bool,
}

impl<'b> Facts<'b> {
    pub fn gather(parsed: &[httparse::Header<'b>]) -> Self {
        let mut facts = Self::default();
        for header in parsed {
            // The length alone rules most headers out.
            match header.name.len() {
                4 | 6 | 10 | 14 | 17 => facts.note(header.name.as_bytes(), header.value),
                _ => {}
            }
        }
        facts
    }

    fn note(&mut self, name: &[u8], value: &'b [u8]) {
        if name.eq_ignore_ascii_case(b"host") {
            self.host = Some(value);
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"expect") {
            self.expect_continue |= list_has(value, b"100-continue");
        } else if name.eq_ignore_ascii_case(b"connection") {
            self.close |= list_has(value, b"close");
            self.keep_alive |= list_has(value, b"keep-alive");
        } else if name.eq_ignore_ascii_case(b"content-length") {
            self.length = Some(value);
            self.lengths += 1;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.coding = Some(value);
            self.codings += 1;
        }
    }

    pub fn framing(&self, version: Version) -> Result<Framing, FramingError> {
        if self.codings > 1 {
            return Err(FramingError::RepeatedCoding {
                count: self.codings,
            });
        }
        if self.lengths > 1 {
            return Err(FramingError::RepeatedLength {
                count: self.lengths,
            });
        }
        match (self.coding, self.length) {
            (Some(_), Some(_)) => Err(FramingError::LengthAndCoding),
            (Some(_), None) if version == Version::Http10 => Err(FramingError::CodingBeforeHttp11),
            (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (Some(_), None) => Err(FramingError::UnknownCoding),
            (None, Some(length)) => parse_length(length)
                .map(Framing::Length)
                .ok_or(FramingError::InvalidLength),
            (None, None) => Ok(Framing::Undeclared),
        }
    }

    /// Whether the peer keeps the connection open after this message.
    pub fn keep_alive(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.close,
            Version::Http10 => self.keep_alive && !self.close,
        }
    }
}

/// `1*DIGIT` within 64 bits; `str::parse` would take a plus sign.
fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'b>(lines: &[(&'b str, &'b str)]) -> Facts<'b> {
        let parsed: Vec<_> = lines
            .iter()
            .map(|(name, value)| httparse::Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        Facts::gather(&parsed)
    }

    #[test]
    fn lengths_are_plain_decimals_of_64_bits() {
        let table = [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("", None),
            ("+3", None),
            ("-1", None),
            ("3, 3", None),
            ("3,", None),
            ("0x3", None),
            ("3 3", None),
            ("3.0", None),
            ("\u{663}", None),
        ];
        for (text, want) in table {
            assert_eq!(parse_length(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn framing_headers_are_found_in_any_case() {
        let framing =
            |lines: &[(&'static str, &'static str)]| facts(lines).framing(Version::Http11);
        assert_eq!(framing(&[]), Ok(Framing::Undeclared));
        assert_eq!(
            framing(&[("CONTENT-length", "12")]),
            Ok(Framing::Length(12))
        );
        assert_eq!(
            framing(&[("transfer-ENCODING", "Chunked")]),
            Ok(Framing::Chunked)
        );
        assert_eq!(
            framing(&[("Content_Length", "1"), ("Content-Lengthy", "2")]),
            Ok(Framing::Undeclared)
        );
    }

    #[test]
    fn connection_options_decide_persistence_by_version() {
        let table = [
            (&[][..], true, false),
            (&[("Connection", "close")][..], false, false),
            (&[("connection", "Keep-Alive")][..], true, true),
            (&[("Connection", "x, CLOSE")][..], false, false),
            (
                &[("Connection", "keep-alive"), ("Connection", "close")][..],
                false,
                false,
            ),
            (&[("Connection", "closed")][..], true, false),
            (&[("Proxy-Connection", "close")][..], true, false),
        ];
        for (lines, http11, http10) in table {
            assert_eq!(
                facts(lines).keep_alive(Version::Http11),
                http11,
                "{lines:?}"
            );
            assert_eq!(
                facts(lines).keep_alive(Version::Http10),
                http10,
                "{lines:?}"
            );
        }
    }
}

//! `response-…` parameters: headers of an answer that a request wants otherwise than they are stored.
//!
//! Read by `query`, applied by `request` to answers from the cache; `fill` leaves what an origin has overridden out of what is kept. S3 has six of
//! them, for GET and HEAD that are signed.
//!
//! Invariant: [`Overrides::write`] writes only what [`Overrides::take`] has found to be legal in a header. A value whose meaning is not certain
//! (a raw `+`, bytes that are no visible ASCII, spaces around it, nothing at all) is not taken.

use crate::http::parse_http_date;

/// Parameter and header, in the order of the bits of a mask.
const NAMES: [(&str, &str); 6] = [
    ("response-content-type", "Content-Type"),
    ("response-content-language", "Content-Language"),
    ("response-expires", "Expires"),
    ("response-cache-control", "Cache-Control"),
    ("response-content-disposition", "Content-Disposition"),
    ("response-content-encoding", "Content-Encoding"),
];

/// Whether the header `name` is one of those in `mask`.
#[must_use]
pub fn is_overridden(mask: u8, name: &[u8]) -> bool {
    mask != 0
        && NAMES.iter().enumerate().any(|(bit, (_, header))| {
            mask & 1 << bit != 0 && name.eq_ignore_ascii_case(header.as_bytes())
        })
}

/// The overrides of one request; values are raw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides<'b>([Option<&'b str>; NAMES.len()]);

impl<'b> Overrides<'b> {
    /// Notes a parameter; false if only the origin can say what it means.
    pub(super) fn take(&mut self, name: &str, value: &'b str) -> bool {
        let Some(at) = NAMES.iter().position(|(known, _)| *known == name) else {
            return false;
        };
        let first = self.0[at].replace(value).is_none();
        // Some origins take nothing but a date, and S3's own clients send no other.
        let dated = name != "response-expires" || is_date(value);
        first && dated && is_certain(value)
    }

    /// Which headers they are about: one bit each, 0 if there are none.
    #[must_use]
    pub fn mask(&self) -> u8 {
        let bits = self.0.iter().enumerate();
        bits.fold(0, |mask, (bit, value)| {
            mask | u8::from(value.is_some()) << bit
        })
    }

    /// Appends the header lines.
    pub fn write(&self, out: &mut Vec<u8>) {
        for ((_, header), value) in NAMES.iter().zip(&self.0) {
            let Some(value) = value else { continue };
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(decoded(value).flatten());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// The bytes that a value stands for; `None` for an escape that is none.
fn decoded(value: &str) -> impl Iterator<Item = Option<u8>> {
    let mut rest = value.as_bytes();
    std::iter::from_fn(move || {
        let (&first, behind) = rest.split_first()?;
        rest = behind;
        if first != b'%' {
            return Some(Some(first));
        }
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        let byte = digit(0)
            .zip(digit(1))
            .map(|(high, low)| (high * 16 + low) as u8);
        rest = behind.get(2..).unwrap_or_default();
        Some(byte)
    })
}

fn is_date(value: &str) -> bool {
    let text: Option<Vec<u8>> = decoded(value).collect();
    text.is_some_and(|text| parse_http_date(&text).is_some())
}

fn is_certain(value: &str) -> bool {
    let is_space = |byte: Option<Option<u8>>| byte == Some(Some(b' '));
    let legal = |byte: Option<u8>| byte.is_some_and(|byte| matches!(byte, b' '..=b'~'));
    let around = is_space(decoded(value).next()) || is_space(decoded(value).last());
    !value.is_empty() && !value.contains('+') && !around && decoded(value).all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(parameters: &[(&str, &str)]) -> Option<String> {
        let mut overrides = Overrides::default();
        let certain = parameters
            .iter()
            .all(|(name, value)| overrides.take(name, value));
        let mut out = Vec::new();
        overrides.write(&mut out);
        certain.then(|| String::from_utf8(out).expect("ASCII"))
    }

    #[test]
    fn what_is_certain_is_written_decoded() {
        let written = lines(&[
            (
                "response-content-disposition",
                "attachment%3B%20filename%3D%22a%20b.txt%22",
            ),
            ("response-content-type", "text/html"),
        ]);
        let wanted =
            "Content-Type: text/html\r\nContent-Disposition: attachment; filename=\"a b.txt\"\r\n";
        assert_eq!(written.as_deref(), Some(wanted));
        assert_eq!(lines(&[]).as_deref(), Some(""));
    }

    /// Reference 2A.8.
    #[test]
    fn what_is_not_certain_is_not_taken() {
        for value in [
            "",
            "a+b",
            "a%",
            "a%2",
            "a%zz",
            "a%0d%0aX:%201",
            "%00",
            "%ff",
            "ü",
            "%20a",
            "a%20",
            "a%7f",
        ] {
            assert_eq!(lines(&[("response-content-type", value)]), None, "{value}");
        }
        let date = "Wed,%2012%20Aug%202026%2010:00:00%20GMT";
        assert!(lines(&[("response-expires", date)]).is_some());
        assert_eq!(lines(&[("response-expires", "0")]), None);
        assert_eq!(lines(&[("response-content-length", "1")]), None);
        assert_eq!(lines(&[("Response-Expires", "1")]), None);
        assert_eq!(
            lines(&[("response-expires", "1"), ("response-expires", "1")]),
            None
        );
    }

    #[test]
    fn a_mask_names_the_headers() {
        let mut overrides = Overrides::default();
        assert!(overrides.take("response-content-encoding", "0"));
        let mask = overrides.mask();
        assert!(is_overridden(mask, b"CONTENT-Encoding") && !is_overridden(mask, b"content-type"));
        assert!(!is_overridden(0, b"content-encoding"));
    }

    proptest! {
        #[test]
        fn no_value_breaks_out_of_its_line(value in "[ -~%0-9A-Fé]{0,30}") {
            if let Some(text) = lines(&[("response-content-type", &value)]) {
                prop_assert_eq!(text.matches('\n').count(), 1);
                prop_assert!(text.ends_with("\r\n"));
            }
        }
    }
}

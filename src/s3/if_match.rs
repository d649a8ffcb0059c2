//! `If-Match` as a condition on an ETag, by strong comparison (RFC 9110, sections 8.8.3.2 and 13.1.1).
//!
//! Made by `operation`, asked by `request` when a cached version is known. The value stays raw.
//!
//! Left to others: what to do on a mismatch.

/// The value of one `If-Match` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch<'b> {
    raw: &'b [u8],
}

impl<'b> IfMatch<'b> {
    /// Takes the header's value.
    pub fn new(raw: &'b [u8]) -> Self {
        Self {
            raw: raw.trim_ascii(),
        }
    }

    /// The value as sent.
    pub fn raw(&self) -> &'b [u8] {
        self.raw
    }

    /// True for `*`: any version.
    pub fn is_any(&self) -> bool {
        self.raw == b"*"
    }

    /// True if the condition holds for a stored object with this `ETag` value. A weak tag matches nothing; a
    /// tag without quotes, which S3 takes, matches the one with them.
    pub fn matches(&self, etag: &[u8]) -> bool {
        let Some(etag) = opaque(etag) else {
            return false;
        };
        self.is_any() || Tags(self.raw).any(|tag| opaque(tag) == Some(etag))
    }
}

/// A strong tag without its quotes; `None` for a weak one.
fn opaque(tag: &[u8]) -> Option<&[u8]> {
    if tag.starts_with(b"W/") || tag.is_empty() {
        return None;
    }
    let inner = tag
        .strip_prefix(b"\"")
        .and_then(|tag| tag.strip_suffix(b"\""));
    Some(inner.unwrap_or(tag))
}

/// The tags of a list. A comma inside quotes belongs to its tag.
struct Tags<'b>(&'b [u8]);

impl<'b> Iterator for Tags<'b> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<&'b [u8]> {
        let start = self
            .0
            .iter()
            .position(|byte| !matches!(byte, b',' | b' ' | b'\t'))?;
        let mut quoted = false;
        let ends = |byte: &u8| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        };
        let rest = &self.0[start..];
        let end = rest.iter().position(ends).unwrap_or(rest.len());
        self.0 = &rest[end..];
        Some(rest[..end].trim_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reference 2C.67 and 4.24.
    #[test]
    fn if_match_compares_strongly_by_table() {
        let table = [
            ("\"a\"", "\"a\"", true),
            ("\"a\"", "\"b\"", false),
            ("\"A\"", "\"a\"", false),
            ("a", "\"a\"", true),
            ("*", "\"a\"", true),
            ("\"*\"", "\"a\"", false),
            ("\"x\", \"a\"", "\"a\"", true),
            ("\"x\",\"a\"", "\"a\"", true),
            ("\"x\" ,, \"y\"", "\"a\"", false),
            ("\"x,\"a\"", "\"a\"", false),
            ("\"p,q\", \"a\"", "\"p,q\"", true),
            ("W/\"a\"", "\"a\"", false),
            ("\"a\"", "W/\"a\"", false),
            ("*", "W/\"a\"", false),
            (
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                true,
            ),
            (
                "\"9bb58f26192e4ba00f01e2e7b136bbd8\"",
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                false,
            ),
            ("", "\"a\"", false),
            ("\"a\"", "", false),
            (",", "\"a\"", false),
        ];
        for (condition, etag, want) in table {
            let holds = IfMatch::new(condition.as_bytes()).matches(etag.as_bytes());
            assert_eq!(holds, want, "{condition} against {etag}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_matching_panic_or_loop(raw in prop::collection::vec(any::<u8>(), 0..60), etag in prop::collection::vec(any::<u8>(), 0..8)) {
            let _holds = IfMatch::new(&raw).matches(&etag);
        }
    }
}

//! A list of entity tags as `If-Match` and `If-None-Match` have it (RFC 9110, section 8.8.3).
//!
//! Called by `conditional`. The value stays raw.
//!
//! Left to others: which comparison a condition wants, and what follows from it.

/// How a list compares with the tag of a stored version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// `*`: any version.
    Any,
    /// One of the tags is the stored one.
    Strong,
    /// Only a weak tag has the same text: equal by the weak comparison alone.
    Weak,
    /// None of the tags.
    None,
    /// There is no tag at all.
    Empty,
}

/// Compares a header's value with the `ETag` of a stored version, which is strong. A tag without quotes, which S3 takes, equals the one with
/// them.
pub(super) fn compare(list: &[u8], etag: &[u8]) -> Match {
    let list = list.trim_ascii();
    if list == b"*" {
        return Match::Any;
    }
    let known = opaque(etag);
    let mut found = Match::Empty;
    for tag in Tags(list) {
        let (weak, text) = match tag.strip_prefix(b"W/") {
            Some(text) => (true, text),
            None => (false, tag),
        };
        found = match (opaque(text) == known, weak) {
            (true, false) => return Match::Strong,
            (true, true) => Match::Weak,
            (false, _) if found == Match::Weak => Match::Weak,
            (false, _) => Match::None,
        };
    }
    found
}

/// A tag without its quotes.
fn opaque(tag: &[u8]) -> &[u8] {
    let inner = tag
        .strip_prefix(b"\"")
        .and_then(|tag| tag.strip_suffix(b"\""));
    inner.unwrap_or(tag)
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
    fn lists_compare_by_table() {
        let table = [
            ("\"a\"", "\"a\"", Match::Strong),
            ("\"a\"", "\"b\"", Match::None),
            ("\"A\"", "\"a\"", Match::None),
            ("a", "\"a\"", Match::Strong),
            ("*", "\"a\"", Match::Any),
            (" * ", "\"a\"", Match::Any),
            ("\"*\"", "\"a\"", Match::None),
            ("\"x\", \"a\"", "\"a\"", Match::Strong),
            ("\"x\",\"a\"", "\"a\"", Match::Strong),
            ("\"x\" ,, \"y\"", "\"a\"", Match::None),
            ("\"x,\"a\"", "\"a\"", Match::None),
            ("\"p,q\", \"a\"", "\"p,q\"", Match::Strong),
            ("W/\"a\"", "\"a\"", Match::Weak),
            ("W/\"a\", \"b\"", "\"a\"", Match::Weak),
            ("W/\"a\", \"a\"", "\"a\"", Match::Strong),
            ("W/\"b\"", "\"a\"", Match::None),
            (
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                Match::Strong,
            ),
            (
                "\"9bb58f26192e4ba00f01e2e7b136bbd8\"",
                "\"9bb58f26192e4ba00f01e2e7b136bbd8-3\"",
                Match::None,
            ),
            ("", "\"a\"", Match::Empty),
            (",", "\"a\"", Match::Empty),
        ];
        for (list, etag, want) in table {
            let found = compare(list.as_bytes(), etag.as_bytes());
            assert_eq!(found, want, "{list} against {etag}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_comparing_panic_or_loop(list in prop::collection::vec(any::<u8>(), 0..60), etag in prop::collection::vec(any::<u8>(), 0..8)) {
            let _found = compare(&list, &etag);
        }
    }
}

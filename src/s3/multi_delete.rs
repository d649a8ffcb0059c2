//! The keys in the body of a `POST /bucket?delete`, so that what is deleted can be dropped from the cache.
//!
//! Called by `request` with the buffered body before the response goes to the client. A reader for this one
//! document, not for XML at large: it takes every document that S3 takes, and refuses whatever it is not sure of.
//!
//! Invariants:
//! - No key that S3 would delete is missing from the answer: on any error the caller drops the whole bucket.
//! - Memory is bounded by the body, whose length is bounded.
//!
//! Left to others: buffering, identities ([`super::Target::sibling`]), whether the origin deleted anything.

use memchr::{memchr, memmem};

/// The longest body that is read: S3's thousand keys of 1 KiB with their markup.
pub const MULTI_DELETE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The most keys that are read; S3 takes a thousand.
pub const MULTI_DELETE_KEYS_MAX: usize = 10_000;

/// How deep elements may be nested; the document needs three.
const DEPTH_MAX: usize = 16;

/// Why the keys of a body are not known. The answer is the same for all: drop the bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MultiDeleteError {
    /// Longer than [`MULTI_DELETE_BYTES_MAX`].
    #[error("the body has {bytes} bytes")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// More keys than [`MULTI_DELETE_KEYS_MAX`].
    #[error("the body names too many keys")]
    TooManyKeys,
    /// Not the XML that is understood here.
    #[error("the body cannot be read at byte {at}")]
    Malformed {
        /// How far reading came.
        at: usize,
    },
    /// A document that names no key.
    #[error("the body names no key")]
    NoKeys,
}

/// Reads the decoded keys of a multi-object delete. A key with white space around it is given twice, with and
/// without: which of the two is meant depends on the origin.
///
/// # Errors
/// [`MultiDeleteError`]: which objects the request names is not known.
pub fn parse_multi_delete(body: &[u8]) -> Result<Vec<Vec<u8>>, MultiDeleteError> {
    if body.len() > MULTI_DELETE_BYTES_MAX {
        return Err(MultiDeleteError::TooLong { bytes: body.len() });
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut reader = Reader {
        body,
        at: 0,
        open: Vec::new(),
        text: None,
        keys: Vec::new(),
        roots: 0,
    };
    while reader.at < body.len() {
        if reader.step().is_none() {
            return Err(MultiDeleteError::Malformed { at: reader.at });
        }
        if reader.keys.len() > MULTI_DELETE_KEYS_MAX {
            return Err(MultiDeleteError::TooManyKeys);
        }
    }
    if !reader.open.is_empty() || reader.roots != 1 {
        return Err(MultiDeleteError::Malformed { at: body.len() });
    }
    if reader.keys.is_empty() {
        return Err(MultiDeleteError::NoKeys);
    }
    Ok(reader.keys)
}

struct Reader<'d> {
    body: &'d [u8],
    at: usize,
    /// The full names of the elements around the position.
    open: Vec<&'d [u8]>,
    /// The text of the `Key` element around the position.
    text: Option<Vec<u8>>,
    keys: Vec<Vec<u8>>,
    roots: usize,
}

impl<'d> Reader<'d> {
    /// Reads text up to the next markup, and that markup. `None` for what is not understood.
    fn step(&mut self) -> Option<()> {
        let rest = &self.body[self.at..];
        let markup = memchr(b'<', rest).unwrap_or(rest.len());
        self.characters(&rest[..markup])?;
        self.at += markup;
        let rest = &rest[markup..];
        if rest.is_empty() {
            return Some(());
        }
        if rest.starts_with(b"<!--") {
            let length = memmem::find(&rest[4..], b"-->")? + 7;
            self.at += length;
            return Some(());
        }
        if rest.starts_with(b"<![CDATA[") {
            let length = memmem::find(rest, b"]]>")?;
            push_lines(self.text.as_mut()?, &rest[9..length]);
            self.at += length + 3;
            return Some(());
        }
        if rest.starts_with(b"<?") {
            return self.instruction(rest);
        }
        let length = tag_bytes(rest)?;
        self.at += length;
        self.tag(&rest[1..length - 1])
    }

    /// The declaration. Any encoding but UTF-8 would spell keys in other bytes.
    fn instruction(&mut self, rest: &[u8]) -> Option<()> {
        let length = memmem::find(rest, b"?>")?;
        let text = rest[..length].to_ascii_lowercase();
        if let Some(at) = memmem::find(&text, b"encoding") {
            let value = text[at + 8..].trim_ascii_start().strip_prefix(b"=")?;
            let value = value.trim_ascii_start();
            let quote = value.first().filter(|byte| matches!(byte, b'"' | b'\''))?;
            let name = value[1..].split(|byte| byte == quote).next()?;
            [b"utf-8".as_slice(), b"us-ascii"]
                .contains(&name)
                .then_some(())?;
        }
        self.at += length + 2;
        Some(())
    }

    fn characters(&mut self, raw: &[u8]) -> Option<()> {
        match &mut self.text {
            Some(text) => unescape(raw, text),
            // Text outside a key matters only in that there is none outside the document.
            None if self.open.is_empty() => raw.trim_ascii().is_empty().then_some(()),
            None => Some(()),
        }
    }

    /// `inner` is what stands between the angle brackets.
    fn tag(&mut self, inner: &'d [u8]) -> Option<()> {
        if let Some(name) = inner.strip_prefix(b"/") {
            return self.close(name.trim_ascii_end());
        }
        let (inner, empty) = inner
            .strip_suffix(b"/")
            .map_or((inner, false), |inner| (inner, true));
        let end = inner
            .iter()
            .position(u8::is_ascii_whitespace)
            .unwrap_or(inner.len());
        let name = &inner[..end];
        let name_ok =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte) || *byte >= 0x80;
        // A key holds no elements, and a document begins only once. `<!DOCTYPE` is no name.
        let fits = self.text.is_none() && self.open.len() < DEPTH_MAX;
        if name.is_empty() || !name.iter().all(name_ok) || !fits {
            return None;
        }
        self.roots += usize::from(self.open.is_empty());
        self.open.push(name);
        if local(name) == b"Key" {
            self.text = Some(Vec::new());
        }
        if empty { self.close(name) } else { Some(()) }
    }

    fn close(&mut self, name: &[u8]) -> Option<()> {
        if self.open.pop()? != name {
            return None;
        }
        if let Some(key) = self.text.take() {
            let trimmed = key.trim_ascii();
            if trimmed.len() != key.len() {
                self.keys.push(trimmed.to_vec());
            }
            self.keys.push(key);
        }
        Some(())
    }
}

/// The name behind its namespace prefix.
fn local(name: &[u8]) -> &[u8] {
    memchr(b':', name).map_or(name, |colon| &name[colon + 1..])
}

/// Bytes of the tag that begins `rest`, with its brackets; a bracket inside a quoted attribute is text.
fn tag_bytes(rest: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in rest.iter().enumerate().skip(1) {
        match (quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'<') => return None,
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Appends text with its line ends as XML reads them: CR LF and CR are LF.
fn push_lines(out: &mut Vec<u8>, text: &[u8]) {
    let mut rest = text;
    while let Some(at) = memchr(b'\r', rest) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\n');
        rest = &rest[at + 1..];
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    out.extend_from_slice(rest);
}

/// Appends text with its references replaced.
fn unescape(raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = raw;
    while let Some(at) = memchr(b'&', rest) {
        push_lines(out, &rest[..at]);
        let reference = &rest[at + 1..];
        let end = memchr(b';', reference)?;
        let character = referenced(&reference[..end])?;
        out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = &reference[end + 1..];
    }
    push_lines(out, rest);
    Some(())
}

fn referenced(name: &[u8]) -> Option<char> {
    let name = std::str::from_utf8(name).ok()?;
    let number = |digits: &str, radix| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
        u32::from_str_radix(digits, radix)
            .ok()
            .filter(|_| plain)
            .and_then(char::from_u32)
    };
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let digits = name.strip_prefix('#')?;
            match digits.strip_prefix('x') {
                Some(digits) => number(digits, 16),
                None => number(digits, 10),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(body: &str) -> Result<Vec<String>, MultiDeleteError> {
        let keys = parse_multi_delete(body.as_bytes())?;
        Ok(keys
            .into_iter()
            .map(|key| String::from_utf8(key).expect("text"))
            .collect())
    }

    fn escape(text: &str) -> String {
        text.chars()
            .map(|character| match character {
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '&' => "&amp;".to_owned(),
                '\r' => "&#13;".to_owned(),
                '\n' => "&#xA;".to_owned(),
                other => other.to_string(),
            })
            .collect()
    }

    /// Reference 2A.5.
    #[test]
    fn the_keys_of_what_sdks_send_are_found() {
        let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Object><Key>a/b.txt</Key></Object><Object><Key>c d+e</Key><VersionId>v1</VersionId></Object><Quiet>true</Quiet></Delete>\n";
        assert_eq!(
            keys(body),
            Ok(vec!["a/b.txt".to_owned(), "c d+e".to_owned()])
        );
        let indented = "<Delete>\r\n  <Object>\r\n    <Key>k</Key>\r\n  </Object>\r\n</Delete>";
        assert_eq!(keys(indented), Ok(vec!["k".to_owned()]));
    }

    #[test]
    fn references_and_character_data_are_decoded() {
        let body = "<Delete><Object><Key>a&amp;b&lt;c&gt;&quot;&apos;&#65;&#x42;&#x1F600;</Key></Object><Object><Key><![CDATA[<a>&b]]></Key></Object><Object><Key>%41</Key></Object></Delete>";
        assert_eq!(
            keys(body),
            Ok(vec![
                "a&b<c>\"'AB😀".to_owned(),
                "<a>&b".to_owned(),
                "%41".to_owned()
            ])
        );
    }

    #[test]
    fn prefixes_attributes_and_comments_do_not_hide_a_key() {
        let body = "\u{feff}<!-- <Key>no</Key> --><s3:Delete xmlns:s3='x>y'><s3:Object a=\"/>\"><s3:Key\n b='1' >k</s3:Key ></s3:Object></s3:Delete>";
        assert_eq!(keys(body), Ok(vec!["k".to_owned()]));
    }

    #[test]
    fn white_space_around_a_key_names_both_spellings() {
        let body = "<Delete><Object><Key> a </Key></Object></Delete>";
        assert_eq!(keys(body), Ok(vec!["a".to_owned(), " a ".to_owned()]));
        let lines = "<Delete><Object><Key>a\r\nb\rc&#13;d</Key></Object></Delete>";
        assert_eq!(keys(lines), Ok(vec!["a\nb\nc\rd".to_owned()]));
    }

    #[test]
    fn an_empty_key_is_a_key() {
        assert_eq!(
            keys("<Delete><Object><Key/></Object></Delete>"),
            Ok(vec![String::new()])
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for body in [
            "",
            "   ",
            "not xml",
            "<Delete>",
            "<Delete><Object><Key>a</Key></Object>",
            "<Delete><Object><Key>a</Object></Key></Delete>",
            "<Delete><Object><Key>a<b/></Key></Object></Delete>",
            "<Delete><Object><Key>&custom;</Key></Object></Delete>",
            "<Delete><Object><Key>&amp</Key></Object></Delete>",
            "<Delete><Object><Key>&#0x41;</Key></Object></Delete>",
            "<Delete><Object><Key>&#xD800;</Key></Object></Delete>",
            "<Delete><Object><Key>&#+65;</Key></Object></Delete>",
            "<!DOCTYPE d [<!ENTITY k \"x\">]><Delete><Object><Key>a</Key></Object></Delete>",
            "<?xml version='1.0' encoding='UTF-16'?><Delete><Object><Key>a</Key></Object></Delete>",
            "<?xml version='1.0' encoding='latin1' x='utf-8'?><Delete><Object><Key>a</Key></Object></Delete>",
            "<Delete><Object><Key>a</Key></Object></Delete><Delete/>",
            "<Delete><Object><Key>a</Key></Object></Delete>tail",
            "54;chunk-signature=0\r\n<Delete><Object><Key>a</Key></Object></Delete>\r\n0\r\n\r\n",
            "<Delete><Object><Key>a</Key></Object></Delete",
            "<Delete><![CDATA[x]]></Delete>",
            "<Delete><!-- ",
        ] {
            assert!(
                matches!(
                    keys(body),
                    Err(MultiDeleteError::Malformed { .. } | MultiDeleteError::NoKeys)
                ),
                "{body}"
            );
        }
        assert_eq!(keys("<Delete></Delete>"), Err(MultiDeleteError::NoKeys));
        assert!(matches!(
            parse_multi_delete(b"\xfe\xff\0<"),
            Err(MultiDeleteError::Malformed { .. })
        ));
    }

    /// Reference 2A.5: S3 takes a thousand keys of 1 KiB.
    #[test]
    fn bodies_are_bounded_above_what_s3_takes() {
        let object = format!(
            "<Object><Key>{}</Key><VersionId>{}</VersionId></Object>",
            "k".repeat(1024),
            "v".repeat(32)
        );
        let body = format!("<Delete>{}</Delete>", object.repeat(1000));
        assert_eq!(keys(&body).map(|keys| keys.len()), Ok(1000));
        let long = vec![b' '; MULTI_DELETE_BYTES_MAX + 1];
        assert_eq!(
            parse_multi_delete(&long),
            Err(MultiDeleteError::TooLong { bytes: long.len() })
        );
        let many = format!(
            "<Delete>{}</Delete>",
            "<Key>k</Key>".repeat(MULTI_DELETE_KEYS_MAX + 1)
        );
        assert_eq!(keys(&many), Err(MultiDeleteError::TooManyKeys));
        let deep = "<a>".repeat(100);
        assert!(matches!(
            keys(&deep),
            Err(MultiDeleteError::Malformed { .. })
        ));
    }

    proptest! {
        #[test]
        fn every_key_that_is_written_is_read(names in prop::collection::vec("\\PC{1,30}", 1..20)) {
            let objects: String = names.iter().map(|name| format!("<Object><Key>{}</Key></Object>", escape(name))).collect();
            let found = keys(&format!("<Delete>{objects}</Delete>")).expect("keys");
            for name in names {
                prop_assert!(found.contains(&name));
            }
        }

        #[test]
        fn no_body_makes_reading_panic(body in "[<>/!\\[\\]&;#x?A-C\"'=\\- Key:]{0,60}") {
            let _keys = parse_multi_delete(body.as_bytes());
        }
    }
}

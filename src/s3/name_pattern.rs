//! Patterns of identities: which objects an operator, or a write of unknown extent, means.
//!
//! Made from `bucket/key` or `bucket/prefix*` by the admin endpoint and the tools ([`NamePattern::parse`]); compared by the index, the disk and the
//! tools ([`covers`]). A pattern is bytes, as an identity is, so that it goes into a journal as it is. What an encoded identity begins
//! with (a bucket, an origin) is a pattern too: the lengths that stand for "any" and "begins with" are longer than any part.

pub use crate::base::pattern::covers;
use crate::base::pattern::{ANY, BEGINS};

use super::object_key::{BUCKET_BYTES_MAX, KEY_BYTES_MAX, ObjectDigest, ObjectKeyRef};

const _: () = assert!(KEY_BYTES_MAX < BEGINS as usize);

/// Why a text names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No `/` behind the bucket.
    #[error(
        "it is not `bucket/key`, nor `bucket/prefix*` (`bucket/*` for a bucket, `*` for everything)"
    )]
    NoKey,
    /// Longer than any bucket's name.
    #[error("no bucket's name is that long")]
    Bucket,
    /// Longer than any key.
    #[error("no key is that long")]
    Key,
}

/// Objects of one name, or of all names that begin with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    bytes: Box<[u8]>,
    one: bool,
}

fn push(out: &mut Vec<u8>, length: u16, part: &[u8]) {
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(part);
}

impl NamePattern {
    /// Reads `bucket/key`, `bucket/prefix*` or `*`; `origin_id` as `millrace cache stat` shows it, `None` for all.
    ///
    /// # Errors
    /// Why it names nothing.
    pub fn parse(name: &[u8], origin_id: Option<&[u8]>) -> Result<Self, NameError> {
        let mut bytes = Vec::new();
        match origin_id {
            Some(id) if id.len() <= 2 * BUCKET_BYTES_MAX => push(&mut bytes, id.len() as u16, id),
            Some(_) => return Err(NameError::Bucket),
            None if name == b"*" => {}
            None => push(&mut bytes, ANY, b""),
        }
        if name == b"*" {
            let bytes = bytes.into_boxed_slice();
            return Ok(Self { bytes, one: false });
        }
        let slash = memchr::memchr(b'/', name).filter(|at| *at > 0);
        let (bucket, key) = name.split_at(slash.ok_or(NameError::NoKey)?);
        if bucket.len() > BUCKET_BYTES_MAX {
            return Err(NameError::Bucket);
        }
        push(&mut bytes, bucket.len() as u16, bucket);
        let key = &key[1..];
        let (length, key) = match key.strip_suffix(b"*") {
            Some(b"") => (None, key),
            Some(prefix) => (Some(BEGINS), prefix),
            None if key.is_empty() => return Err(NameError::NoKey),
            None => (Some(key.len() as u16), key),
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(NameError::Key);
        }
        if let Some(length) = length {
            push(&mut bytes, length, key);
        }
        Ok(Self {
            bytes: bytes.into_boxed_slice(),
            one: origin_id.is_some() && length.is_some_and(|length| length != BEGINS),
        })
    }

    /// The pattern, as it is compared and written down.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The one object that is meant, if it is one.
    #[must_use]
    pub fn object(&self) -> Option<ObjectDigest> {
        let object = ObjectKeyRef::from_encoded(&self.bytes).filter(|_| self.one);
        object.map(|object| object.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(origin: &[u8], bucket: &[u8], key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in [origin, bucket, key] {
            push(&mut out, part.len() as u16, part);
        }
        out
    }

    fn means(name: &str, origin: Option<&str>, identity: [&str; 3]) -> bool {
        let origin = origin.map(str::as_bytes);
        let pattern = NamePattern::parse(name.as_bytes(), origin).expect("a name");
        let [origin, bucket, key] = identity.map(str::as_bytes);
        covers(pattern.bytes(), &encode(origin, bucket, key))
    }

    #[test]
    fn a_name_means_its_object_at_every_origin_or_at_one() {
        for (name, origin, identity, is_meant) in [
            ("b/k", None, ["o", "b", "k"], true),
            ("b/k", None, ["other", "b", "k"], true),
            ("b/k", None, ["o", "b", "kk"], false),
            ("b/k", None, ["o", "bb", "k"], false),
            ("b/k", Some("o"), ["o", "b", "k"], true),
            ("b/k", Some("o"), ["other", "b", "k"], false),
            ("b/a/b*", None, ["o", "b", "a/b"], true),
            ("b/a/b*", None, ["o", "b", "a/bc/d"], true),
            ("b/a/b*", None, ["o", "b", "a/c"], false),
            ("b/*", None, ["o", "b", "anything"], true),
            ("b/*", None, ["o", "c", "anything"], false),
            ("*", None, ["o", "c", "anything"], true),
            ("*", Some("o"), ["o", "c", "anything"], true),
            ("*", Some("o"), ["p", "c", "anything"], false),
            ("b/**", None, ["o", "b", "*x"], true),
            ("b/**", None, ["o", "b", "x"], false),
        ] {
            assert_eq!(
                means(name, origin, identity),
                is_meant,
                "{name} {origin:?} {identity:?}"
            );
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        let parse = |name: &[u8]| NamePattern::parse(name, None).map(|_| ());
        for name in [&b""[..], b"bucket", b"bucket/", b"/key", b"buck*"] {
            assert_eq!(parse(name), Err(NameError::NoKey));
        }
        assert_eq!(
            parse(&[b"b/", &[b'k'; 1025][..]].concat()),
            Err(NameError::Key)
        );
        assert_eq!(
            parse(&[&[b'b'; 256][..], b"/k"].concat()),
            Err(NameError::Bucket)
        );
    }

    #[test]
    fn one_object_has_its_digest() {
        let one = NamePattern::parse(b"b/k", Some(b"o")).expect("a name");
        let identity = encode(b"o", b"b", b"k");
        let object = ObjectKeyRef::from_encoded(&identity).expect("an identity");
        assert_eq!(one.object(), Some(object.digest()));
        for (name, origin) in [(&b"b/k"[..], None), (b"b/k*", Some(&b"o"[..]))] {
            let many = NamePattern::parse(name, origin).expect("a name");
            assert_eq!(many.object(), None);
        }
    }

    proptest! {
        #[test]
        fn patterns_mean_what_their_text_says(
            origin in prop::collection::vec(any::<u8>(), 0..4),
            bucket in "[ab]{1,3}",
            key in prop::collection::vec(prop::sample::select(b"ab/*".to_vec()), 1..6),
            prefix in prop::collection::vec(prop::sample::select(b"ab/*".to_vec()), 0..4),
        ) {
            let identity = encode(&origin, bucket.as_bytes(), &key);
            let name = [bucket.as_bytes(), b"/", &prefix, b"*"].concat();
            let pattern = NamePattern::parse(&name, None).expect("a name");
            prop_assert_eq!(covers(pattern.bytes(), &identity), key.starts_with(&prefix));
        }

        #[test]
        fn what_an_identity_begins_with_covers_it(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 3),
            parts_known in 0..3_usize,
        ) {
            let identity = encode(&parts[0], &parts[1], &parts[2]);
            let mut end = 0;
            for part in &parts[..parts_known] {
                end += 2 + part.len();
            }
            prop_assert!(covers(&identity[..end], &identity));
        }

        #[test]
        fn no_bytes_stop_a_comparison(
            pattern in prop::collection::vec(any::<u8>(), 0..24),
            identity in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let _unused = covers(&pattern, &identity);
        }
    }
}

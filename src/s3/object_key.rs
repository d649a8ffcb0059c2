//! The identity of an object: (origin id, bucket, decoded key) as one string of bytes, and its digest. One version that was asked for by its
//! `versionId` is an object of its own, with that id as a fourth part.
//!
//! Built by `target` into a buffer that a connection reuses, read by the index, the disk and the journals.
//!
//! Invariants: the encoding is unambiguous (each part has its length in front, 16 bits, big-endian), so no
//! two identities share their bytes whatever bytes are in a key; all buckets' objects begin with their
//! bucket's bytes. Digests are BLAKE3 of the encoding, cut to 128 bits: names of files and index entries
//! come from them, never from a key. The digests of an object and of all its versions have their upper half in common: what belongs to
//! them has one owner, and one invalidation beats them all.
//!
//! Left to others: where the parts come from (`route`, `target`).

use std::fmt;

/// The longest key S3 has, in decoded bytes; a longer one has no identity and is never cached.
pub const KEY_BYTES_MAX: usize = 1024;

/// The longest bucket name there is (S3 once allowed 255).
pub const BUCKET_BYTES_MAX: usize = 255;

const LENGTH_BYTES: usize = 2;

/// The digest of an object's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectDigest(pub u128);

/// The digest of a bucket's identity, for dropping all of its objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketDigest(pub u128);

impl BucketDigest {
    /// Of the encoding up to the bucket's end.
    pub(super) fn of_prefix(prefix: &[u8]) -> Self {
        Self(digest(prefix))
    }
}

/// An object's identity, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectKeyRef<'k> {
    encoded: &'k [u8],
    /// Where the bucket's name and the key begin in `encoded`, and where the key ends.
    bucket_at: u16,
    key_at: u16,
    key_end: u16,
}

impl<'k> ObjectKeyRef<'k> {
    /// Reads an encoded identity back, from a journal for example. `None` if it is not exactly one.
    pub fn from_encoded(encoded: &'k [u8]) -> Option<Self> {
        let (origin_id, rest) = take(encoded)?;
        let (bucket, rest) = take(rest)?;
        let (key, mut rest) = take(rest)?;
        let mut sizes_ok = bucket.len() <= BUCKET_BYTES_MAX && key.len() <= KEY_BYTES_MAX;
        if !rest.is_empty() {
            let (version, behind) = take(rest)?;
            sizes_ok &= !version.is_empty() && version.len() <= KEY_BYTES_MAX;
            rest = behind;
        }
        if !rest.is_empty() || !sizes_ok || origin_id.len() > BUCKET_BYTES_MAX * 2 {
            return None;
        }
        let bucket_at = origin_id.len() + 2 * LENGTH_BYTES;
        let key_at = bucket_at + bucket.len() + LENGTH_BYTES;
        Some(Self {
            encoded,
            bucket_at: bucket_at as u16,
            key_at: key_at as u16,
            key_end: (key_at + key.len()) as u16,
        })
    }

    /// The whole encoding.
    pub fn encoded(&self) -> &'k [u8] {
        self.encoded
    }

    /// The origin id's bytes.
    pub fn origin_id(&self) -> &'k [u8] {
        &self.encoded[LENGTH_BYTES..usize::from(self.bucket_at) - LENGTH_BYTES]
    }

    /// The bucket (or access point).
    pub fn bucket(&self) -> &'k [u8] {
        &self.encoded[usize::from(self.bucket_at)..usize::from(self.key_at) - LENGTH_BYTES]
    }

    /// The decoded key.
    pub fn key(&self) -> &'k [u8] {
        &self.encoded[usize::from(self.key_at)..usize::from(self.key_end)]
    }

    /// Whether this is one version, asked for by its `versionId`, rather than whatever is current.
    pub fn is_version(&self) -> bool {
        usize::from(self.key_end) < self.encoded.len()
    }

    /// Appends the encoding to a buffer.
    pub fn write_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.encoded);
    }

    /// The digest of the whole identity.
    pub fn digest(&self) -> ObjectDigest {
        let object = digest(&self.encoded[..usize::from(self.key_end)]);
        if !self.is_version() {
            return ObjectDigest(object);
        }
        const LOWER: u128 = u64::MAX as u128;
        ObjectDigest(object & !LOWER | digest(self.encoded) & LOWER)
    }

    /// The digest of origin and bucket: equal for all objects of a bucket.
    pub fn bucket_digest(&self) -> BucketDigest {
        BucketDigest::of_prefix(&self.encoded[..usize::from(self.key_at) - LENGTH_BYTES])
    }

    /// An owned copy, to travel to another shard.
    pub fn to_owned(&self) -> ObjectKey {
        ObjectKey {
            encoded: self.encoded.into(),
            bucket_at: self.bucket_at,
            key_at: self.key_at,
            key_end: self.key_end,
        }
    }
}

impl fmt::Debug for ObjectKeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (origin_id, bucket) = (
            self.origin_id().escape_ascii(),
            self.bucket().escape_ascii(),
        );
        write!(f, "{origin_id}/{bucket}/{}", self.key().escape_ascii())?;
        if !self.is_version() {
            return Ok(());
        }
        let version = &self.encoded[usize::from(self.key_end) + LENGTH_BYTES..];
        write!(f, "?versionId={}", version.escape_ascii())
    }
}

/// An object's identity, owned.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    encoded: Box<[u8]>,
    bucket_at: u16,
    key_at: u16,
    key_end: u16,
}

impl ObjectKey {
    /// The identity, borrowed, with all accessors.
    pub fn borrow(&self) -> ObjectKeyRef<'_> {
        let Self {
            encoded,
            bucket_at,
            key_at,
            key_end,
        } = self;
        ObjectKeyRef {
            encoded,
            bucket_at: *bucket_at,
            key_at: *key_at,
            key_end: *key_end,
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.borrow().fmt(f)
    }
}

/// A name of 128 bits for any bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> u128 {
    let hash = blake3::hash(bytes);
    let [first, ..] = hash.as_bytes().as_chunks::<16>().0 else {
        unreachable!("a BLAKE3 hash has 32 bytes")
    };
    u128::from_be_bytes(*first)
}

fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Begins a part whose length is not known yet; returns where it begins.
pub(super) fn begin_part(out: &mut Vec<u8>) -> usize {
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.len()
}

/// Ends the part that began at `start` and writes its length in front of it.
pub(super) fn end_part(out: &mut [u8], start: usize) {
    let bytes = u16::try_from(out.len() - start).expect("parts are bounded by the longest head");
    out[start - LENGTH_BYTES..start].copy_from_slice(&bytes.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(parts: [&[u8]; 3]) -> Vec<u8> {
        let mut out = Vec::new();
        for part in parts {
            let start = begin_part(&mut out);
            out.extend_from_slice(part);
            end_part(&mut out, start);
        }
        out
    }

    /// Reference 2B.43: no byte of a key can be taken for a separator.
    #[test]
    fn parts_that_join_to_the_same_text_are_different_identities() {
        let parts: [[&[u8]; 3]; 5] = [
            [b"aws", b"b", b"/k"],
            [b"aws", b"b/", b"k"],
            [b"aws", b"b", b"k:range:0"],
            [b"aws:b", b"", b"k"],
            [b"aw", b"sb", b"/k"],
        ];
        for (at, one) in parts.iter().enumerate() {
            for other in &parts[at + 1..] {
                assert_ne!(encode(*one), encode(*other));
            }
        }
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        let good = encode([b"aws", b"b", b"k"]);
        assert!(ObjectKeyRef::from_encoded(&good).is_some());
        for bytes in 0..good.len() {
            assert!(ObjectKeyRef::from_encoded(&good[..bytes]).is_none());
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert!(ObjectKeyRef::from_encoded(&longer).is_none());
        let long_key = vec![b'k'; KEY_BYTES_MAX + 1];
        assert!(ObjectKeyRef::from_encoded(&encode([b"aws", b"b", &long_key])).is_none());
    }

    #[test]
    fn objects_of_a_bucket_share_its_digest_and_nothing_else() {
        let (one, two) = (encode([b"aws", b"b", b"k1"]), encode([b"aws", b"b", b"k2"]));
        let other = encode([b"aws", b"c", b"k1"]);
        let key = |bytes| ObjectKeyRef::from_encoded(bytes).expect("an identity");
        assert_eq!(key(&one).bucket_digest(), key(&two).bucket_digest());
        assert_ne!(key(&one).digest(), key(&two).digest());
        assert_ne!(key(&one).bucket_digest(), key(&other).bucket_digest());
    }

    proptest! {
        #[test]
        fn an_identity_reads_back_as_written(
            origin_id in prop::collection::vec(any::<u8>(), 0..200),
            bucket in prop::collection::vec(any::<u8>(), 0..=BUCKET_BYTES_MAX),
            object in prop::collection::vec(any::<u8>(), 0..=KEY_BYTES_MAX),
        ) {
            let encoded = encode([&origin_id, &bucket, &object]);
            let key = ObjectKeyRef::from_encoded(&encoded).expect("an identity");
            prop_assert_eq!(key.origin_id(), &origin_id);
            prop_assert_eq!(key.bucket(), &bucket);
            prop_assert_eq!(key.key(), &object);
            let owned = key.to_owned();
            prop_assert_eq!(owned.borrow(), key);
            prop_assert_eq!(owned.borrow().digest(), key.digest());
        }

        #[test]
        fn no_bytes_make_reading_an_identity_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _unused = ObjectKeyRef::from_encoded(&bytes);
        }
    }
}

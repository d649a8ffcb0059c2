//! From a raw path and the host's route to the bucket and key it names.
//!
//! Called by `operation` for each request. The path is percent-decoded once, as S3 does: `//`, `.` and `..` are
//! bytes of the key. A raw `+` is a space to S3 and a plus to other stores, so that a key with one is marked. What is forwarded is always the raw path; only the identity is decoded.
//!
//! Invariants: two raw paths without a mark give one identity exactly if S3 takes them for one object. Nothing is allocated
//! for a path that clients really send: the identity is written into the caller's buffer.
//!
//! Left to others: query and headers (`operation`).

use super::object_key::{
    BUCKET_BYTES_MAX, BucketDigest, KEY_BYTES_MAX, ObjectKeyRef, begin_part, end_part,
};
use super::route::{HostRoute, HostStyle};
use memchr::memchr;

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// The service: no bucket.
    Service,
    /// A bucket.
    Bucket,
    /// An object.
    Object,
}

/// A reason why a target, though it names something, has no place in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oddity {
    /// The key is longer than [`KEY_BYTES_MAX`].
    KeyTooLong,
    /// The bucket is spelled so that origins may disagree about it (escapes, an empty first segment) or
    /// is no bucket name.
    Bucket,
    /// The key is spelled with a raw `+`, which S3 reads as a space and other stores as a plus (SDKs
    /// send `%2B`): which object it names is the origin's to say.
    Plus,
}

/// Why a path cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The path does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A percent sign without two hexadecimal digits behind it.
    #[error("an invalid percent-encoding")]
    BadEscape,
}

/// A path taken apart. The identity lives in the caller's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'k> {
    place: Place,
    odd: Option<Oddity>,
    /// Length-prefixed origin id and, if one is named, bucket. Empty for [`Target::NOTHING`] alone, for
    /// an empty prefix would be that of every key.
    bucket: &'k [u8],
    object: Option<ObjectKeyRef<'k>>,
}

impl<'k> Target<'k> {
    /// A target that names nothing.
    pub const NOTHING: Self = Self {
        place: Place::Service,
        odd: None,
        bucket: &[],
        object: None,
    };

    /// Reads `path` (raw, without query) as seen through `route`, writing the identity into `buf`, which
    /// is cleared first.
    ///
    /// # Errors
    /// [`TargetError`]: S3 answers these paths with 400 `InvalidURI` too.
    pub fn parse(
        route: &HostRoute<'_>,
        path: &str,
        buf: &'k mut Vec<u8>,
    ) -> Result<Self, TargetError> {
        Self::parse_version(route, path, None, buf)
    }

    /// The same for one version of an object.
    ///
    /// # Errors
    /// As [`Target::parse`].
    pub fn parse_version(
        route: &HostRoute<'_>,
        path: &str,
        version: Option<&str>,
        buf: &'k mut Vec<u8>,
    ) -> Result<Self, TargetError> {
        let path = path
            .strip_prefix('/')
            .ok_or(TargetError::NotAbsolute)?
            .as_bytes();
        buf.clear();
        let start = begin_part(buf);
        route.origin_id().write_into(buf);
        end_part(buf, start);
        match route.style() {
            HostStyle::Virtual { bucket } | HostStyle::AccessPoint { name: bucket } => {
                push_part(buf, bucket.as_bytes());
                Self::with_key(path, version, buf)
            }
            HostStyle::Path => Self::path_style(path, version, buf),
        }
    }

    fn path_style(
        path: &[u8],
        version: Option<&str>,
        buf: &'k mut Vec<u8>,
    ) -> Result<Self, TargetError> {
        let (bucket, key) = split(path, memchr(b'/', path));
        if is_bucket_name(bucket) {
            push_part(buf, bucket);
            return Self::with_key(key, version, buf);
        }
        if path.is_empty() {
            return Ok(Self::service(None, buf));
        }
        Self::odd_path_style(path, buf)
    }

    /// A path whose first segment is no plain bucket name. Reads of it pass; writes still name the object
    /// that a lenient origin could take it for: an invalidation too many costs one miss.
    fn odd_path_style(path: &[u8], buf: &'k mut Vec<u8>) -> Result<Self, TargetError> {
        let odd = Some(plus(path).unwrap_or(Oddity::Bucket));
        let mut decoded = Vec::with_capacity(path.len());
        decode(path, &mut decoded, usize::MAX)?;
        let slashes = decoded.iter().take_while(|byte| **byte == b'/').count();
        let path = &decoded[slashes..];
        let (bucket, key) = split(path, memchr(b'/', path));
        if bucket.is_empty() || bucket.len() > BUCKET_BYTES_MAX {
            return Ok(Self::service(odd, buf));
        }
        push_part(buf, bucket);
        let bucket_end = buf.len();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            let place = if key.is_empty() {
                Place::Bucket
            } else {
                Place::Object
            };
            return Ok(Self {
                place,
                odd,
                bucket: &buf[..bucket_end],
                object: None,
            });
        }
        push_part(buf, key);
        Ok(Self::object(buf, bucket_end, odd))
    }

    /// No bucket: `origin` is the length-prefixed origin id alone.
    fn service(odd: Option<Oddity>, origin: &'k [u8]) -> Self {
        Self {
            place: Place::Service,
            odd,
            bucket: origin,
            object: None,
        }
    }

    /// Adds the key, whose raw bytes are `raw`, to origin id and bucket in `buf`.
    fn with_key(
        raw: &[u8],
        version: Option<&str>,
        buf: &'k mut Vec<u8>,
    ) -> Result<Self, TargetError> {
        let bucket_end = buf.len();
        if raw.is_empty() {
            return Ok(Self {
                place: Place::Bucket,
                odd: None,
                bucket: &buf[..bucket_end],
                object: None,
            });
        }
        let start = begin_part(buf);
        if decode(raw, buf, KEY_BYTES_MAX)? == Decoded::TooLong {
            let odd = Some(Oddity::KeyTooLong);
            return Ok(Self {
                place: Place::Object,
                odd,
                bucket: &buf[..bucket_end],
                object: None,
            });
        }
        end_part(buf, start);
        if let Some(version) = version {
            push_part(buf, version.as_bytes());
        }
        Ok(Self::object(buf, bucket_end, plus(raw)))
    }

    fn object(buf: &'k [u8], bucket_end: usize, odd: Option<Oddity>) -> Self {
        let object = ObjectKeyRef::from_encoded(buf).expect("a key that was just encoded");
        Self {
            place: Place::Object,
            odd,
            bucket: &buf[..bucket_end],
            object: Some(object),
        }
    }

    /// What the path names.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Why reads of it pass, if they do for the path's sake.
    pub fn oddity(&self) -> Option<Oddity> {
        self.odd
    }

    /// What every encoded key of the bucket begins with; where no bucket is named, every one of the origin.
    pub fn bucket_prefix(&self) -> &'k [u8] {
        self.bucket
    }

    /// The bucket or access point, if one is named.
    pub fn bucket(&self) -> Option<&'k [u8]> {
        if self.place == Place::Service {
            return None;
        }
        let origin_id_bytes = self.bucket.first_chunk::<2>()?;
        let bucket_at = usize::from(u16::from_be_bytes(*origin_id_bytes)) + 4;
        self.bucket.get(bucket_at..)
    }

    /// The decoded key, if an object is named and its key is not too long.
    pub fn key(&self) -> Option<&'k [u8]> {
        self.object.map(|object| object.key())
    }

    /// The object's identity, if an object is named and its key is not too long.
    pub fn object_key(&self) -> Option<ObjectKeyRef<'k>> {
        self.object
    }

    /// The digest of the bucket's identity, for dropping all of its objects.
    pub fn bucket_digest(&self) -> Option<BucketDigest> {
        (self.place != Place::Service).then(|| BucketDigest::of_prefix(self.bucket))
    }

    /// The identity of the object `key` (decoded) in the same bucket, written into `buf`; `None` if no
    /// bucket is named or the key is empty or too long to be cached.
    pub fn sibling<'s>(&self, key: &[u8], buf: &'s mut Vec<u8>) -> Option<ObjectKeyRef<'s>> {
        if self.place == Place::Service || key.is_empty() || key.len() > KEY_BYTES_MAX {
            return None;
        }
        buf.clear();
        buf.extend_from_slice(self.bucket);
        push_part(buf, key);
        ObjectKeyRef::from_encoded(buf)
    }
}

fn split(path: &[u8], slash: Option<usize>) -> (&[u8], &[u8]) {
    slash.map_or((path, &[]), |at| (&path[..at], &path[at + 1..]))
}

fn push_part(buf: &mut Vec<u8>, part: &[u8]) {
    let start = begin_part(buf);
    buf.extend_from_slice(part);
    end_part(buf, start);
}

fn plus(raw: &[u8]) -> Option<Oddity> {
    memchr(b'+', raw).map(|_| Oddity::Plus)
}

/// A name every origin reads the same way. S3's own rules for new buckets are narrower, those for old
/// ones as wide as this.
fn is_bucket_name(name: &[u8]) -> bool {
    let byte_ok = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let dots = matches!(name, b"." | b"..");
    !name.is_empty() && name.len() <= BUCKET_BYTES_MAX && !dots && name.iter().all(byte_ok)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decoded {
    Whole,
    TooLong,
}

/// Percent-decodes `raw` once onto `out`, at most `bytes_max` bytes; the rest is checked, not written.
fn decode(raw: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<Decoded, TargetError> {
    let mut room = bytes_max;
    let mut rest = raw;
    let mut fits = true;
    while let Some(at) = memchr(b'%', rest) {
        let (plain, escape) = rest.split_at(at);
        let byte = match escape {
            [_, high, low, ..] => hex_pair(*high, *low).ok_or(TargetError::BadEscape)?,
            _ => return Err(TargetError::BadEscape),
        };
        fits &= plain.len() < room;
        if fits {
            out.extend_from_slice(plain);
            out.push(byte);
            room -= plain.len() + 1;
        }
        rest = &escape[3..];
    }
    fits &= rest.len() <= room;
    if !fits {
        return Ok(Decoded::TooLong);
    }
    out.extend_from_slice(rest);
    Ok(Decoded::Whole)
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    Some((digit(high)? * 16 + digit(low)?) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::{OriginMap, OriginMapConfig, SingleOrigin};
    use proptest::prelude::*;

    fn aws() -> OriginMap {
        OriginMap::new(OriginMapConfig {
            aws: true,
            ..OriginMapConfig::default()
        })
        .expect("a map")
    }

    fn single() -> OriginMap {
        let single = SingleOrigin {
            authority: "store:9000".to_owned(),
            ..SingleOrigin::default()
        };
        let config = OriginMapConfig {
            single_origin: Some(single),
            ..OriginMapConfig::default()
        };
        OriginMap::new(config).expect("a map")
    }

    /// The encoded identity of what a path names, if an object.
    fn identity(map: &OriginMap, host: &str, path: &str) -> Option<Vec<u8>> {
        let route = map.resolve(host).expect("a route");
        let mut buf = Vec::new();
        let target = Target::parse(&route, path, &mut buf).expect("a target");
        target.object_key().map(|key| key.encoded().to_vec())
    }

    fn parts(host: &str, path: &str) -> (Place, Option<Oddity>, Vec<u8>, Option<Vec<u8>>) {
        let map = aws();
        let route = map.resolve(host).expect("a route");
        let mut buf = b"left over".to_vec();
        let target = Target::parse(&route, path, &mut buf).expect("a target");
        let bucket = target.bucket().unwrap_or_default().to_vec();
        (
            target.place(),
            target.oddity(),
            bucket,
            target.key().map(<[u8]>::to_vec),
        )
    }

    const PATH: &str = "s3.us-east-1.amazonaws.com";
    const VIRTUAL: &str = "b.s3.us-east-1.amazonaws.com";

    /// Reference 2A.13: the key is the decoded one, so that every spelling names one object.
    #[test]
    fn spellings_of_one_key_are_one_identity() {
        let map = aws();
        let want = identity(&map, PATH, "/b/a/b c%2B~");
        assert!(want.is_some());
        for path in [
            "/b/a%2Fb c%2b~",
            "/b/a%2fb%20c%2B%7E",
            "/b/%61/b%20c%2B~",
            "/b/a/b%20c%2b~",
        ] {
            assert_eq!(identity(&map, PATH, path), want, "{path}");
        }
        assert_eq!(identity(&map, VIRTUAL, "/a%2Fb%20c%2B~"), want);
        assert_ne!(
            identity(&map, PATH, "/b/a/b%2Bc%2B~"),
            want,
            "a plus is no space"
        );
    }

    /// S3 reads it as a space, other stores as a plus.
    #[test]
    fn a_key_spelled_with_a_raw_plus_is_marked() {
        for (host, path) in [
            (PATH, "/b/a+b"),
            (PATH, "/b/+"),
            (PATH, "/%62/a+b"),
            (VIRTUAL, "/a/b+"),
        ] {
            let (place, odd, bucket, _) = parts(host, path);
            let want = (Place::Object, Some(Oddity::Plus), &b"b"[..]);
            assert_eq!((place, odd, bucket.as_slice()), want, "{path}");
        }
        assert_eq!(parts(PATH, "/b/a%2Bb%2b").1, None);
    }

    #[test]
    fn the_key_is_decoded_exactly_once() {
        assert_eq!(parts(PATH, "/b/%2561").3.as_deref(), Some(&b"%61"[..]));
        assert_ne!(
            identity(&aws(), PATH, "/b/%2561"),
            identity(&aws(), PATH, "/b/a")
        );
    }

    /// Reference 4.1: S3 does not normalise.
    #[test]
    fn slashes_and_dots_are_bytes_of_the_key() {
        for (path, key) in [
            ("/b//k", "/k"),
            ("/b/k/", "k/"),
            ("/b/./k", "./k"),
            ("/b/../k", "../k"),
            ("/b/a//b", "a//b"),
            ("/b/%2E%2e/k", "../k"),
            ("/b/?", "?"),
        ] {
            assert_eq!(
                parts(PATH, path).3.as_deref(),
                Some(key.as_bytes()),
                "{path}"
            );
        }
        assert_eq!(parts(VIRTUAL, "//k").3.as_deref(), Some(&b"/k"[..]));
        assert_eq!(parts(VIRTUAL, "/b/k").3.as_deref(), Some(&b"b/k"[..]));
    }

    /// Reference 2B.44: no byte of a key is special, not even NUL.
    #[test]
    fn keys_may_hold_any_byte() {
        assert_eq!(
            parts(PATH, "/b/%00%ff%0A:range:").3.as_deref(),
            Some(&b"\0\xff\n:range:"[..])
        );
        assert_eq!(parts(PATH, "/b/ü").3.as_deref(), Some("ü".as_bytes()));
    }

    #[test]
    fn service_bucket_and_object_are_told_apart() {
        assert_eq!(parts(PATH, "/").0, Place::Service);
        for path in ["/b", "/b/"] {
            assert_eq!(
                parts(PATH, path),
                (Place::Bucket, None, b"b".to_vec(), None),
                "{path}"
            );
        }
        assert_eq!(
            parts(VIRTUAL, "/"),
            (Place::Bucket, None, b"b".to_vec(), None)
        );
        assert_eq!(parts(PATH, "/b/k").0, Place::Object);
        assert_eq!(parts(VIRTUAL, "/k").0, Place::Object);
    }

    #[test]
    fn an_invalid_escape_is_refused_wherever_it_stands() {
        let map = aws();
        let route = map.resolve(PATH).expect("a route");
        let long = format!("/b/{}%zz", "k".repeat(2000));
        for path in [
            "/b/%",
            "/b/%4",
            "/b/%4g",
            "/b/a%%41",
            "/%zz/k",
            "/b/%u0041",
            "/b/% 1",
            "/b/%+1",
            long.as_str(),
        ] {
            let mut buf = Vec::new();
            let parsed = Target::parse(&route, path, &mut buf);
            assert_eq!(parsed, Err(TargetError::BadEscape), "{path}");
        }
        assert_eq!(
            Target::parse(&route, "b/k", &mut Vec::new()),
            Err(TargetError::NotAbsolute)
        );
        assert_eq!(
            Target::parse(&route, "", &mut Vec::new()),
            Err(TargetError::NotAbsolute)
        );
    }

    #[test]
    fn a_key_has_at_most_1024_decoded_bytes() {
        let longest = "%6B".repeat(KEY_BYTES_MAX);
        let (place, odd, _, key) = parts(PATH, &format!("/b/{longest}"));
        assert_eq!(
            (place, odd, key.map(|key| key.len())),
            (Place::Object, None, Some(1024))
        );
        for one_more in ["k", "%6B"] {
            let (place, odd, bucket, key) = parts(PATH, &format!("/b/{longest}{one_more}"));
            assert_eq!(
                (place, odd, key),
                (Place::Object, Some(Oddity::KeyTooLong), None)
            );
            assert_eq!(bucket, b"b");
        }
    }

    #[test]
    fn a_bucket_spelled_oddly_is_named_but_marked() {
        let map = aws();
        let plain = identity(&map, PATH, "/bucket/key");
        for path in [
            "/%62ucket/key",
            "/bucket%2Fkey",
            "//bucket/key",
            "/%2Fbucket/key",
        ] {
            assert_eq!(parts(PATH, path).1, Some(Oddity::Bucket), "{path}");
            assert_eq!(identity(&map, PATH, path), plain, "{path}");
        }
        for path in [
            "/arn:aws:s3:us-east-1:1:accesspoint/p/k",
            "/../b/k",
            "/a b/k",
        ] {
            assert_eq!(parts(PATH, path).1, Some(Oddity::Bucket), "{path}");
        }
        assert_eq!(parts(PATH, "//").0, Place::Service);
        assert_eq!(parts(PATH, "/%62").0, Place::Bucket);
    }

    /// Reference 2B.40 and 2B.41.
    #[test]
    fn the_same_path_in_two_stores_is_two_objects() {
        let (aws, single) = (aws(), single());
        let ids = [
            identity(&aws, PATH, "/b/k"),
            identity(&aws, "c.s3.us-east-1.amazonaws.com", "/b/k"),
            identity(&aws, "s3.us-gov-west-1.amazonaws.com", "/b/k"),
            identity(
                &aws,
                "b-123456789012.s3-accesspoint.us-east-1.amazonaws.com",
                "/k",
            ),
            identity(&aws, "b-123456789012.s3.us-east-1.amazonaws.com", "/k"),
            identity(&single, "localhost", "/b/k"),
            identity(&single, "b.elsewhere", "/b/k"),
            identity(&single, "c.elsewhere", "/b/k"),
            identity(&single, "c.elsewhere:9000", "/b/k"),
        ];
        for (at, one) in ids.iter().enumerate() {
            assert!(ids[at + 1..].iter().all(|other| other != one), "{at}");
        }
    }

    #[test]
    fn the_service_is_all_of_its_origin_and_no_bucket() {
        let map = single();
        let route = map.resolve("c.elsewhere:9000").expect("a route");
        let long = format!("/{}/k", "b".repeat(BUCKET_BYTES_MAX + 1));
        for path in ["/", "//", long.as_str()] {
            let (mut buf, mut other) = (Vec::new(), Vec::new());
            let target = Target::parse(&route, path, &mut buf).expect("a target");
            assert_eq!(target.place(), Place::Service, "{path}");
            assert_eq!((target.bucket(), target.key()), (None, None));
            assert!(target.bucket_digest().is_none() && target.object_key().is_none());
            assert!(target.sibling(b"k", &mut other).is_none());
            let prefix = target.bucket_prefix();
            let key = |host: &str| identity(&map, host, "/b/k").expect("a key");
            assert!(!prefix.is_empty() && key("c.elsewhere:9000").starts_with(prefix));
            for host in ["c.elsewhere", "d.elsewhere:9000", "localhost"] {
                assert!(!key(host).starts_with(prefix), "{host}");
            }
        }
    }

    #[test]
    fn a_sibling_is_what_its_own_path_would_name() {
        let map = aws();
        let route = map.resolve(PATH).expect("a route");
        let mut buf = Vec::new();
        let target = Target::parse(&route, "/b?delete".trim_end_matches("?delete"), &mut buf)
            .expect("a target");
        let mut other = Vec::new();
        let sibling = target.sibling(b"a/b c", &mut other).expect("a key");
        assert_eq!(
            Some(sibling.encoded().to_vec()),
            identity(&map, PATH, "/b/a%2Fb%20c")
        );
        assert_eq!(Some(sibling.bucket_digest()), target.bucket_digest());
        assert!(target.sibling(b"", &mut other).is_none());
        assert!(Target::NOTHING.sibling(b"k", &mut other).is_none());
    }

    proptest! {
        #[test]
        fn decoding_agrees_with_the_percent_encoding_crate(key in prop::collection::vec(any::<u8>(), 1..300), all in any::<bool>()) {
            // CONTROLS leaves '%' alone, which would not be an encoding of the key.
            const FEW: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');
            let set = if all { percent_encoding::NON_ALPHANUMERIC } else { FEW };
            let raw = percent_encoding::percent_encode(&key, set).to_string();
            let (_, _, _, decoded) = parts(PATH, &format!("/b/{raw}"));
            prop_assert_eq!(decoded, Some(key));
        }

        #[test]
        fn no_path_makes_parsing_panic(path in "/?[a-b%/.:0-9A-Fé]{0,40}") {
            let (aws, single) = (aws(), single());
            for route in [aws.resolve(PATH), aws.resolve(VIRTUAL), single.resolve("h:1")] {
                let mut buf = Vec::new();
                if let Ok(target) = Target::parse(&route.expect("a route"), &path, &mut buf) {
                    prop_assert_eq!(target.key().is_some(), target.object_key().is_some());
                    prop_assert!(target.key().is_none() || target.place() == Place::Object);
                    prop_assert!(!target.bucket_prefix().is_empty());
                    prop_assert_eq!(target.bucket().is_none(), target.place() == Place::Service);
                }
            }
        }
    }
}

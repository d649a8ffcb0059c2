//! What is known of an object's current version: the response head as the origin sent it, its length, its validators, and when the
//! origin last confirmed it.
//!
//! Called by `fill` (made from a validated response), `cache::partition` (stored) and `request` (answered from). Immutable but for its hit
//! counter; a newer confirmation is a new head. Bytes belong to (object, version), so only a head can be stale.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::config::{ObjectPolicy, Rules};
use crate::disk::Dated;
use crate::http::parse_http_date;
use crate::io::prefetch::{LINE_BYTES, prefetch, prefetch_bytes};
use crate::ram::extent::FREQUENCY_MAX;
use crate::s3::{ObjectKeyRef, Validators};

use super::parts::Part;
use super::stamps::{Stamp, Stamps};
use super::terms::Terms;

/// The parts a head is made of.
#[derive(Debug, Clone, Default)]
pub struct HeadParts {
    /// Encoded object key.
    pub key: Box<[u8]>,
    /// ETag as sent, quotes included.
    pub etag: Box<[u8]>,
    /// Bytes of the whole object.
    pub total: u64,
    /// Stored header lines in order, each with its CRLF, without checksums.
    pub lines: Box<[u8]>,
    /// `x-amz-checksum-*` lines of the whole object, each with its CRLF.
    pub checksum_lines: Box<[u8]>,
    /// Whether the origin was asked for checksums of the whole object when it sent this head.
    pub checksums_known: bool,
    /// When the origin confirmed it, in monotonic milliseconds; below zero if that was before this process.
    pub confirmed_ms: i64,
    /// When the origin was asked for it: what it said is not older than this.
    pub asked_ms: i64,
    /// When the answer was made that it is of, if that is known.
    pub dated: Option<Dated>,
    /// How old it was when it came: caches behind us had it for so long.
    pub age_before_ms: u64,
    /// Whether a fallback said it in the place of the origin.
    pub by_fallback: bool,
    /// Headers whose own lines are not known, since the request had them overridden: a mask of [`crate::s3::Overrides`].
    pub lacks: u8,
    /// The part that was asked for, if it was one.
    pub part: Option<Arc<Part>>,
}

/// The head of one version of an object. All its bytes are in one block, those that an answer copies next to each other.
/// What a hit needs is on its first two cache lines, away from the pins of the `Arc`.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Head {
    /// Key, ETag, stored lines, the line of the whole object's length, checksum lines.
    bytes: Box<[u8]>,
    ends: Ends,
    total: u64,
    confirmed_ms: i64,
    age_before_ms: u64,
    /// Generation of the rules that were asked last, and the number of the policy that they gave.
    class: AtomicU64,
    version: u128,
    object: u128,
    /// Of a head that was asked for by `versionId`: the stamp with which it was stored.
    stored: Option<Stamp>,
    checksums_known: bool,
    sketch: bool,
    lacks: u8,
    frequency: AtomicU8,
    by_fallback: bool,
    asked_ms: i64,
    terms: Terms,
    dated: Option<Dated>,
    part: Option<Arc<Part>>,
}

const _: () = assert!(
    std::mem::offset_of!(Head, by_fallback) < 2 * LINE_BYTES,
    "what a hit needs is on two lines"
);
/// Bytes of key and lines worth asking for in advance.
const PREFETCH_BYTES: usize = 512;

/// Where the parts of a head's bytes end; the last one ends with them.
#[derive(Debug, Clone, Copy)]
struct Ends {
    key: u32,
    etag: u32,
    lines: u32,
    length_line: u32,
}

impl Ends {
    /// Where parts of these lengths end, one behind the other.
    fn of(lengths: [usize; 4]) -> Self {
        let mut end = 0;
        let [key, etag, lines, length_line] = lengths.map(|bytes| {
            end += bytes;
            assert!(end <= u32::MAX as usize, "a head is small");
            end as u32
        });
        Self {
            key,
            etag,
            lines,
            length_line,
        }
    }
}

/// One stored header line.
#[derive(Debug, Clone, Copy)]
pub struct StoredLine<'h> {
    /// As it was sent.
    pub name: &'h [u8],
    /// Without the spaces around it.
    pub value: &'h [u8],
    /// All of it, with its CRLF.
    pub raw: &'h [u8],
}

impl StoredLine<'_> {
    /// Whether it has this name, in any case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Stored lines, one by one.
pub fn lines_of(mut lines: &[u8]) -> impl Iterator<Item = StoredLine<'_>> + Clone {
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', lines)? + 1;
        let (raw, rest) = lines.split_at(end);
        lines = rest;
        let colon = memchr::memchr(b':', raw).unwrap_or(raw.len() - 1);
        Some(StoredLine {
            name: &raw[..colon],
            value: raw[colon + 1..].trim_ascii(),
            raw,
        })
    })
}

/// Digest of a version: ETag and total length.
#[must_use]
pub fn version_digest(etag: &[u8], total: u64) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&total.to_le_bytes());
    hasher.update(etag);
    let mut out = [0u8; 16];
    out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_le_bytes(out)
}

impl Head {
    /// The head of the object with digest `object`.
    #[must_use]
    pub fn new(object: u128, parts: HeadParts) -> Self {
        let length_line = format!("Content-Length: {}\r\n", parts.total);
        let bytes = [
            &*parts.key,
            &*parts.etag,
            &*parts.lines,
            length_line.as_bytes(),
            &*parts.checksum_lines,
        ];
        Self {
            total: parts.total,
            confirmed_ms: parts.confirmed_ms,
            ends: Ends::of([
                bytes[0].len(),
                bytes[1].len(),
                bytes[2].len(),
                bytes[3].len(),
            ]),
            bytes: bytes.concat().into_boxed_slice(),
            checksums_known: parts.checksums_known,
            sketch: false,
            frequency: AtomicU8::new(0),
            class: AtomicU64::new(0),
            version: version_digest(&parts.etag, parts.total),
            object,
            asked_ms: parts.asked_ms,
            terms: Terms::of(lines_of(&parts.lines), parts.dated).lacking(parts.lacks),
            dated: parts.dated,
            age_before_ms: parts.age_before_ms,
            by_fallback: parts.by_fallback,
            lacks: parts.lacks,
            part: parts.part,
            stored: None,
        }
    }

    /// What is known of an object that was just written: which version it became. It answers nobody; whoever reads the object first learns the
    /// rest from the origin.
    #[must_use]
    pub fn sketch(object: u128, parts: HeadParts) -> Self {
        Self {
            sketch: true,
            ..Self::new(object, parts)
        }
    }

    /// Whether it is a [`Head::sketch`].
    #[must_use]
    pub fn is_sketch(&self) -> bool {
        self.sketch
    }

    /// Whether this is the head of one version, asked for by its `versionId`.
    #[must_use]
    pub fn is_of_version(&self) -> bool {
        ObjectKeyRef::from_encoded(self.key()).is_some_and(|object| object.is_version())
    }

    /// Notes when it was stored, if that is what ends it: nobody says which versions a write to an object changes or removes, so it beats them all.
    pub(super) fn stored_at(&mut self, stamp: Stamp) {
        self.stored = self.is_of_version().then_some(stamp);
    }

    /// Whether no write has come to its object since it was stored, where that is what ends it.
    #[must_use]
    pub fn holds(&self, stamps: &Stamps) -> bool {
        self.stored
            .is_none_or(|stamp| stamps.is_current(self.object, stamp))
    }

    /// Headers whose own lines are not known: a mask of [`crate::s3::Overrides`].
    #[must_use]
    pub fn lacks(&self) -> u8 {
        self.lacks
    }

    /// The part that was asked for when this head came, if it was one.
    #[must_use]
    pub fn part(&self) -> Option<&Arc<Part>> {
        self.part.as_ref()
    }

    fn between(&self, start: u32, end: u32) -> &[u8] {
        &self.bytes[start as usize..end as usize]
    }

    /// Whether it is the head of this key. What an answer copies from it comes from memory meanwhile.
    #[must_use]
    pub fn is(&self, key: &[u8]) -> bool {
        prefetch(&raw const self.by_fallback);
        let ahead = (self.ends.length_line as usize).min(PREFETCH_BYTES);
        prefetch_bytes(&self.bytes[..ahead]);
        self.key() == key
    }

    /// Encoded object key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        self.between(0, self.ends.key)
    }

    /// Digest of the object's key.
    #[must_use]
    pub fn object(&self) -> u128 {
        self.object
    }

    /// Digest of ETag and length.
    #[must_use]
    pub fn version(&self) -> u128 {
        self.version
    }

    /// ETag as the origin sent it.
    #[must_use]
    pub fn etag(&self) -> &[u8] {
        self.between(self.ends.key, self.ends.etag)
    }

    /// Bytes of the whole object.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Stored header lines, without checksums.
    #[must_use]
    pub fn lines(&self) -> &[u8] {
        self.between(self.ends.etag, self.ends.lines)
    }

    /// All stored lines of an answer with the whole object: `Content-Length`, and checksums if they were asked for.
    #[must_use]
    pub fn whole_lines(&self, checksums: bool) -> &[u8] {
        let end = if checksums {
            self.bytes.len() as u32
        } else {
            self.ends.length_line
        };
        self.between(self.ends.etag, end)
    }

    /// Checksum lines of the whole object.
    #[must_use]
    pub fn checksum_lines(&self) -> &[u8] {
        &self.bytes[self.ends.length_line as usize..]
    }

    /// Whether an answer that was asked for checksums can be given.
    #[must_use]
    pub fn checksums_known(&self) -> bool {
        self.checksums_known
    }

    /// When the origin was asked for it.
    #[must_use]
    pub fn asked_ms(&self) -> i64 {
        self.asked_ms
    }

    /// When the origin confirmed it, in monotonic milliseconds: to us, or to the caches behind us.
    #[must_use]
    pub fn confirmed_ms(&self) -> i64 {
        let before_ms = i64::try_from(self.age_before_ms).unwrap_or(i64::MAX);
        self.confirmed_ms.saturating_sub(before_ms)
    }

    /// Whether a fallback said it in the place of the origin: then it is nobody's word once the origin can be asked.
    #[must_use]
    pub fn is_by_fallback(&self) -> bool {
        self.by_fallback
    }

    /// Milliseconds since the origin confirmed it.
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        let here_ms = (now_ms as i64).saturating_sub(self.confirmed_ms).max(0) as u64;
        here_ms.saturating_add(self.age_before_ms)
    }

    /// Whether it may be used without asking; the TTL is evaluated now, not when it was stored.
    #[must_use]
    pub fn is_fresh(&self, now_ms: u64, ttl_ms: u64) -> bool {
        self.age_ms(now_ms) < ttl_ms
    }

    /// Bytes of memory, about.
    #[must_use]
    pub fn weight(&self) -> u64 {
        (size_of::<Self>() + 64 + self.bytes.len()) as u64
    }

    /// A newer head of the same version, with what `older` knows of checksums and headers if it does not know itself.
    #[must_use]
    pub fn inherit(self, older: &Self) -> Self {
        let checksums = !self.checksums_known && older.checksums_known;
        // Bytes that were written again may have other headers.
        let modified = self.line("last-modified");
        let same = modified.is_some() && modified == older.line("last-modified");
        let headers = self.lacks != 0 && older.lacks == 0 && same;
        if self.version != older.version || !(checksums || headers) {
            return self;
        }
        let (lines, lacks) = match headers {
            true => (older.lines(), 0),
            false => (self.lines(), self.lacks),
        };
        let (checksum_lines, checksums_known) = match checksums {
            true => (older.checksum_lines(), true),
            false => (self.checksum_lines(), self.checksums_known),
        };
        let parts = HeadParts {
            key: self.key().into(),
            etag: self.etag().into(),
            total: self.total,
            lines: lines.into(),
            checksum_lines: checksum_lines.into(),
            checksums_known,
            confirmed_ms: self.confirmed_ms,
            asked_ms: self.asked_ms,
            dated: self.dated,
            age_before_ms: self.age_before_ms,
            by_fallback: self.by_fallback,
            lacks,
            part: self.part.clone(),
        };
        Self::new(self.object, parts)
    }

    /// Whether this stays the current version although the origin has now said `other`: `other` was asked for before this one had come, so that
    /// either may be the later one, and this one was written later.
    #[must_use]
    pub fn outlives(&self, other: &Self) -> bool {
        let written = |head: &Self| parse_http_date(head.line("last-modified")?);
        self.version != other.version
            && other.asked_ms < self.confirmed_ms
            && written(self) > written(other)
    }

    /// The value of the first stored line of a name.
    #[must_use]
    pub fn line(&self, name: &str) -> Option<&[u8]> {
        lines_of(self.lines())
            .find(|line| line.is(name))
            .map(|line| line.value)
    }

    /// What the origin knows this version by.
    #[must_use]
    pub fn validators(&self) -> Validators<'_> {
        Validators {
            etag: self.etag(),
            last_modified: self.line("last-modified"),
        }
    }

    /// What its answer said of its own reuse.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// How the object is treated; matched once for these rules, then remembered.
    #[must_use]
    pub fn policy(&self, rules: &Rules) -> ObjectPolicy {
        if let Some(policy) = rules.plain() {
            return policy;
        }
        let noted = self.class.load(Ordering::Relaxed);
        if (noted >> 32) as u32 == rules.generation()
            && let Some(policy) = rules.policy(noted as u32)
        {
            return policy;
        }
        let object = ObjectKeyRef::from_encoded(self.key());
        let policy = object.map_or_else(
            || rules.resolve(b"", b"", b""),
            |object| rules.resolve(object.origin_id(), object.bucket(), object.key()),
        );
        if let Some(class) = rules.class_of(policy) {
            let noted = u64::from(rules.generation()) << 32 | u64::from(class);
            self.class.store(noted, Ordering::Relaxed);
        }
        policy
    }

    /// A hit.
    pub fn touch(&self) {
        let frequency = self.frequency.load(Ordering::Relaxed);
        if frequency < FREQUENCY_MAX {
            self.frequency.store(frequency + 1, Ordering::Relaxed);
        }
    }

    /// Hits since it was last asked to go.
    #[must_use]
    pub fn frequency(&self) -> u8 {
        self.frequency.load(Ordering::Relaxed)
    }

    /// Owner only, at eviction.
    pub fn set_frequency(&self, frequency: u8) {
        self.frequency.store(frequency, Ordering::Relaxed);
    }
}

impl crate::disk::Described for Head {
    fn key(&self) -> &[u8] {
        self.key()
    }
    fn object(&self) -> u128 {
        self.object
    }
    fn version(&self) -> u128 {
        self.version
    }
    fn etag(&self) -> &[u8] {
        self.etag()
    }
    fn total(&self) -> u64 {
        self.total
    }
    fn lines(&self) -> &[u8] {
        self.lines()
    }
    fn checksum_lines(&self) -> &[u8] {
        self.checksum_lines()
    }
    fn checksums_known(&self) -> bool {
        self.checksums_known
    }
    fn dated(&self) -> Option<Dated> {
        self.dated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(etag: &[u8], total: u64) -> HeadParts {
        HeadParts {
            etag: etag.into(),
            total,
            confirmed_ms: 1000,
            ..HeadParts::default()
        }
    }

    #[test]
    fn a_version_is_etag_and_length() {
        let base = Head::new(1, parts(b"\"a\"", 10)).version();
        assert_eq!(base, Head::new(2, parts(b"\"a\"", 10)).version());
        assert_ne!(base, Head::new(1, parts(b"\"a\"", 11)).version());
        assert_ne!(base, Head::new(1, parts(b"\"b\"", 10)).version());
    }

    #[test]
    fn the_ttl_is_evaluated_at_the_read() {
        let head = Head::new(1, parts(b"\"a\"", 10));
        assert!(head.is_fresh(1999, 1000));
        assert!(!head.is_fresh(2000, 1000));
        assert!(!head.is_fresh(1000, 0));
        assert!(
            head.is_fresh(500, 1),
            "a clock that seems to go back gives age 0"
        );
    }

    #[test]
    fn of_two_answers_at_the_same_time_the_version_written_later_stays() {
        let head = |etag: &[u8], second: u8, asked_ms: i64, confirmed_ms: i64| {
            let line = format!("Last-Modified: Wed, 12 Aug 2026 10:00:0{second} GMT\r\n");
            Head::new(
                1,
                HeadParts {
                    lines: line.into_bytes().into_boxed_slice(),
                    asked_ms,
                    confirmed_ms,
                    ..parts(etag, 10)
                },
            )
        };
        let current = head(b"\"b\"", 5, 100, 120);
        assert!(current.outlives(&head(b"\"a\"", 4, 90, 130)));
        assert!(current.outlives(&head(b"\"a\"", 4, 119, 130)));
        assert!(
            !current.outlives(&head(b"\"a\"", 4, 120, 130)),
            "asked afterwards"
        );
        assert!(!current.outlives(&head(b"\"c\"", 5, 90, 130)));
        assert!(!current.outlives(&head(b"\"c\"", 6, 90, 130)));
        assert!(
            !current.outlives(&head(b"\"b\"", 4, 90, 130)),
            "the same version"
        );
    }

    #[test]
    fn checksums_of_the_same_version_are_kept_when_a_newer_head_brings_none() {
        let older = Head::new(
            1,
            HeadParts {
                checksums_known: true,
                checksum_lines: (*b"x\r\n").into(),
                ..parts(b"\"a\"", 10)
            },
        );
        let newer = Head::new(
            1,
            HeadParts {
                confirmed_ms: 5000,
                ..parts(b"\"a\"", 10)
            },
        )
        .inherit(&older);
        assert_eq!(newer.checksum_lines(), b"x\r\n");
        assert_eq!((newer.age_ms(5001), newer.version()), (1, older.version()));
        let other = Head::new(1, parts(b"\"b\"", 10)).inherit(&older);
        assert!(!other.checksums_known());
    }

    #[test]
    fn headers_of_the_same_writing_are_kept_when_a_newer_head_lacks_them() {
        let head = |lines: &str, lacks: u8| {
            let lines = lines.as_bytes().into();
            let base = parts(b"\"a\"", 10);
            Head::new(
                1,
                HeadParts {
                    lines,
                    lacks,
                    ..base
                },
            )
        };
        let own = "Last-Modified: x\r\nContent-Type: text/csv\r\n";
        let older = head(own, 0);
        let newer = head("Last-Modified: x\r\n", 1).inherit(&older);
        assert_eq!((newer.lines(), newer.lacks()), (own.as_bytes(), 0));
        for lines in ["Last-Modified: y\r\n", "X: y\r\n"] {
            let newer = head(lines, 1).inherit(&older);
            assert_eq!((newer.lines(), newer.lacks()), (lines.as_bytes(), 1));
        }
        let lacking = head("Last-Modified: x\r\n", 2);
        assert_eq!(head("Last-Modified: x\r\n", 1).inherit(&lacking).lacks(), 1);
        assert_eq!(head("Last-Modified: x\r\n", 0).inherit(&lacking).lacks(), 0);
    }

    #[test]
    fn the_parts_come_back_as_they_were_given() {
        let head = Head::new(
            1,
            HeadParts {
                key: (*b"b/key").into(),
                lines: (*b"ETag: \"a\"\r\n").into(),
                checksum_lines: (*b"x-sum: 1\r\n").into(),
                ..parts(b"\"a\"", 10)
            },
        );
        assert_eq!((head.key(), head.etag()), (&b"b/key"[..], &b"\"a\""[..]));
        assert_eq!(head.lines(), b"ETag: \"a\"\r\n");
        assert_eq!(head.checksum_lines(), b"x-sum: 1\r\n");
        assert_eq!(
            head.whole_lines(false),
            b"ETag: \"a\"\r\nContent-Length: 10\r\n"
        );
        assert!(head.whole_lines(true).ends_with(b"10\r\nx-sum: 1\r\n"));
    }
}

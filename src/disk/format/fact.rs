//! A fact of a journal: what was stored where, what is not true any more. Checksummed one by one, so that a torn end costs the torn fact alone.
//!
//! Called by the journal (encodes), by the fold and the tools (decode). A fact of an unknown kind whose checksum fits is skipped: later versions may add kinds.
//! The first bytes that are no fact end the journal.

use std::ops::Range;

use crate::base::checksum::crc32c;

use super::{Fields, FormatError, TEXT_BYTES_MAX};

/// Bytes before a fact's own: checksum, length, kind.
pub const FRAMING_BYTES: usize = 8;

/// Where a record begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The shard that wrote the segment.
    pub shard: u16,
    /// Which of its segments.
    pub segment: u32,
    /// Which block of it.
    pub block: u32,
    /// Blocks of the whole record.
    pub record_blocks: u32,
    /// Blocks that hold its header.
    pub header_blocks: u32,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact<'a> {
    /// Bytes of a version are in a segment.
    Extent {
        /// Digest of the object's key.
        object: u128,
        /// Digest of the version.
        version: u128,
        /// Which stripe.
        stripe: u32,
        /// Bytes of the stripe.
        window: Range<u32>,
        /// Where.
        place: Place,
    },
    /// The head of an object's current version is in a segment.
    Head {
        /// Digest of the object's key.
        object: u128,
        /// Digest of the version.
        version: u128,
        /// When the origin confirmed it, milliseconds since 1970.
        confirmed_unix_ms: u64,
        /// Where.
        place: Place,
    },
    /// The origin confirmed the version that is known.
    Confirmed {
        /// Digest of the object's key.
        object: u128,
        /// Digest of the version.
        version: u128,
        /// When, milliseconds since 1970.
        confirmed_unix_ms: u64,
    },
    /// What was known of an object before this fact is not to be used.
    Invalidated {
        /// Digest of the object's key.
        object: u128,
    },
    /// The same for every object whose encoded key begins so.
    InvalidatedPrefix {
        /// The beginning.
        prefix: &'a [u8],
        /// When, milliseconds since 1970.
        unix_ms: u64,
    },
}

pub(super) const EXTENT: u8 = 1;
pub(super) const HEAD: u8 = 2;
const CONFIRMED: u8 = 3;
const INVALIDATED: u8 = 4;
const INVALIDATED_PREFIX: u8 = 5;

impl Place {
    fn encode(self, out: &mut Vec<u8>) {
        for number in [self.segment, self.block, self.record_blocks] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&(self.header_blocks as u16).to_le_bytes());
    }

    fn decode(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let (segment, block, record_blocks) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let (shard, header_blocks) = (fields.u16()?, u32::from(fields.u16()?));
        if block == 0 || header_blocks == 0 || header_blocks > record_blocks {
            return Err(FormatError::Field("place"));
        }
        Ok(Self {
            shard,
            segment,
            block,
            record_blocks,
            header_blocks,
        })
    }
}

impl Fact<'_> {
    /// Writes it behind what `out` has.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; FRAMING_BYTES]);
        let kind = self.encode_body(out);
        let bytes = (out.len() - start - FRAMING_BYTES) as u16;
        out[start + 4..start + 6].copy_from_slice(&bytes.to_le_bytes());
        out[start + 6] = kind;
        let sum = crc32c(&out[start + 4..]);
        out[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Writes its fields alone; gives its kind.
    pub(super) fn encode_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Extent {
                object,
                version,
                stripe,
                window,
                place,
            } => {
                out.extend_from_slice(&object.to_le_bytes());
                out.extend_from_slice(&version.to_le_bytes());
                for number in [*stripe, window.start, window.end] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                place.encode(out);
                EXTENT
            }
            Self::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
            } => {
                out.extend_from_slice(&object.to_le_bytes());
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&confirmed_unix_ms.to_le_bytes());
                place.encode(out);
                HEAD
            }
            Self::Confirmed {
                object,
                version,
                confirmed_unix_ms,
            } => {
                out.extend_from_slice(&object.to_le_bytes());
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&confirmed_unix_ms.to_le_bytes());
                CONFIRMED
            }
            Self::Invalidated { object } => {
                out.extend_from_slice(&object.to_le_bytes());
                INVALIDATED
            }
            Self::InvalidatedPrefix { prefix, unix_ms } => {
                assert!(
                    prefix.len() < TEXT_BYTES_MAX as usize - 8,
                    "a prefix is a key's"
                );
                out.extend_from_slice(&unix_ms.to_le_bytes());
                out.extend_from_slice(prefix);
                INVALIDATED_PREFIX
            }
        }
    }
}

impl<'a> Fact<'a> {
    /// Reads its fields; `None` for a kind that is not known.
    pub(super) fn decode_body(kind: u8, body: &'a [u8]) -> Result<Option<Self>, FormatError> {
        let mut fields = Fields(body);
        let fact = match kind {
            EXTENT => {
                let (object, version, stripe) = (fields.u128()?, fields.u128()?, fields.u32()?);
                let window = fields.u32()?..fields.u32()?;
                let place = Place::decode(&mut fields)?;
                if window.start >= window.end || u64::from(window.end) > crate::ram::STRIPE_BYTES {
                    return Err(FormatError::Field("window"));
                }
                Self::Extent {
                    object,
                    version,
                    stripe,
                    window,
                    place,
                }
            }
            HEAD => Self::Head {
                object: fields.u128()?,
                version: fields.u128()?,
                confirmed_unix_ms: fields.u64()?,
                place: Place::decode(&mut fields)?,
            },
            CONFIRMED => Self::Confirmed {
                object: fields.u128()?,
                version: fields.u128()?,
                confirmed_unix_ms: fields.u64()?,
            },
            INVALIDATED => Self::Invalidated {
                object: fields.u128()?,
            },
            INVALIDATED_PREFIX => {
                let unix_ms = fields.u64()?;
                Self::InvalidatedPrefix {
                    prefix: std::mem::take(&mut fields.0),
                    unix_ms,
                }
            }
            _ => return Ok(None),
        };
        if fields.0.is_empty() {
            Ok(Some(fact))
        } else {
            Err(FormatError::Field("length"))
        }
    }
}

/// The facts of a journal, in order; ends at the first bytes that are no fact.
pub struct Facts<'a> {
    bytes: &'a [u8],
    at: usize,
    skipped: u64,
}

impl<'a> Facts<'a> {
    /// Of the bytes behind a journal's header.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            skipped: 0,
        }
    }

    /// Bytes of whole facts so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// Facts of unknown kinds so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    fn one(&mut self) -> Result<Option<Fact<'a>>, FormatError> {
        let mut fields = Fields(&self.bytes[self.at..]);
        let sum = fields.u32()?;
        let checked = fields.0;
        let bytes = usize::from(fields.u16()?);
        let (kind, _) = (fields.u8()?, fields.u8()?);
        let body = fields.text(bytes)?;
        // Zeros, as preallocated room is, are no fact: the checksum of four zeros is not zero.
        if crc32c(&checked[..FRAMING_BYTES - 4 + bytes]) != sum {
            return Err(FormatError::Checksum);
        }
        let fact = Fact::decode_body(kind, body)?;
        self.at += FRAMING_BYTES + bytes;
        Ok(fact)
    }
}

impl<'a> Iterator for Facts<'a> {
    type Item = Fact<'a>;

    fn next(&mut self) -> Option<Fact<'a>> {
        loop {
            match self.one() {
                Ok(Some(fact)) => return Some(fact),
                Ok(None) => self.skipped += 1,
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        shard: 3,
        segment: 9,
        block: 77,
        record_blocks: 2049,
        header_blocks: 1,
    };

    fn all() -> Vec<Fact<'static>> {
        let (object, version, confirmed_unix_ms) = (1 << 99, 5 << 70, 1_700_000_000_123);
        vec![
            Fact::Extent {
                object,
                version,
                stripe: 4,
                window: 0..8 << 20,
                place: PLACE,
            },
            Fact::Head {
                object,
                version,
                confirmed_unix_ms,
                place: PLACE,
            },
            Fact::Confirmed {
                object,
                version,
                confirmed_unix_ms,
            },
            Fact::Invalidated { object },
            Fact::InvalidatedPrefix {
                prefix: b"origin/bucket/",
                unix_ms: 5,
            },
        ]
    }

    fn encoded(facts: &[Fact<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        facts.iter().for_each(|fact| fact.encode(&mut out));
        out
    }

    #[test]
    fn facts_come_back_in_order() {
        let bytes = encoded(&all());
        let mut facts = Facts::new(&bytes);
        assert!(facts.by_ref().eq(all()));
        assert_eq!((facts.position(), facts.skipped()), (bytes.len(), 0));
    }

    #[test]
    fn a_journal_cut_anywhere_gives_the_whole_facts_before_the_cut() {
        let bytes = encoded(&all());
        let ends: Vec<usize> = (1..=all().len())
            .map(|n| encoded(&all()[..n]).len())
            .collect();
        for length in 0..bytes.len() {
            let mut zeroed = bytes.clone();
            zeroed[length..].fill(0);
            for cut in [&bytes[..length], &zeroed] {
                let is_whole = |end: &&usize| cut.get(..**end) == Some(&bytes[..**end]);
                let whole = ends.iter().filter(is_whole).count();
                assert!(
                    Facts::new(cut).eq(all().into_iter().take(whole)),
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_before_the_fact_it_is_in() {
        let (bytes, first) = (encoded(&all()), encoded(&all()[..1]).len());
        for bit in 0..first * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Facts::new(&flipped).next(), None, "bit {bit}");
        }
    }

    #[test]
    fn kinds_of_later_versions_are_skipped() {
        let mut bytes = encoded(&all()[3..4]);
        bytes[6] = 200;
        let sum = crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes.extend(encoded(&all()));
        let mut facts = Facts::new(&bytes);
        assert!(facts.by_ref().eq(all()));
        assert_eq!(facts.skipped(), 1);
    }
}

//! Row 2: the disk tier. Segments of records and journals of facts, single-writer and append-only, in a directory that survives anything.
//!
//! Called by `cache` (its index says where records are), `shard` (hands over what was filled, asks for what is wanted) and `server` (starts the keeper and the fold).
//! Order of a write: data on disk, then its fact in the journal. A reader that meets a missing file, a torn record, a wrong checksum or a late answer
//! has a miss, never an error and never wrong bytes. Shards reach the disk only through their ring, with a bound on operations in flight and a
//! deadline for each; what blocks is done by the keeper's own thread. Knows digests and bytes, nothing of S3 or HTTP.

pub mod bell;
pub mod compact;
pub mod door;
pub mod fold;
#[cfg(test)]
mod fold_tests;
pub mod format;
pub mod frames;
pub mod journal;
pub mod keeper;
pub mod lane;
pub mod ledger;
pub mod load;
pub mod names;
pub mod note;
pub mod plan;
pub mod reclaim;
pub mod snapshot;
pub mod sources;
pub mod unrecorded;
pub mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use crate::ram::StripeId;
use format::FormatError;
use format::fact::Place;
use reclaim::{Stream, Why};

/// Bounds of the disk tier, derived once.
#[derive(Debug, Clone)]
pub struct DiskConfig {
    /// The cache directory.
    pub dir: PathBuf,
    /// Bytes that segments and journals may take.
    pub budget_bytes: u64,
    /// Bytes of the filesystem that stay free.
    pub reserve_bytes: u64,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Bytes after which a journal ends and the next one begins.
    pub journal_bytes: u64,
    /// How long an operation may take.
    pub deadline_ms: u64,
    /// Operations that one shard may have in flight, those that were given up included.
    pub operations_max: usize,
    /// Bytes that may wait to be written, for each shard.
    pub queue_bytes_max: u64,
    /// Shards of this process.
    pub shards: usize,
    /// Whether the room of what is expired is given back at once.
    pub active_expiry: bool,
    /// What the tools are told about how to reach this process.
    pub contact: String,
}

/// What is in a segment, by bytes, as far as indexes know. Written by the shards that own what is in it, read by the keeper.
#[derive(Debug, Default)]
pub struct Account {
    file: AtomicU64,
    known: AtomicU64,
    useless: AtomicU64,
}

impl Account {
    /// A record of so many bytes is known.
    pub fn came(&self, bytes: u64) {
        self.known.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A record of so many bytes is not known any more.
    pub fn went(&self, bytes: u64) {
        self.known.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Of what one shard knows, so many bytes were of no use before and so many are not now: expired, or of a version that is not the current one.
    pub fn judged(&self, before: u64, now: u64) {
        self.useless.fetch_add(now, Ordering::Relaxed);
        self.useless.fetch_sub(before, Ordering::Relaxed);
    }

    /// Bytes of records that are known.
    #[must_use]
    pub fn known_bytes(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Those of them that are of use.
    #[must_use]
    pub fn useful_bytes(&self) -> u64 {
        let useless = self.useless.load(Ordering::Relaxed);
        self.known_bytes().saturating_sub(useless)
    }

    /// Bytes of the file.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.file.load(Ordering::Relaxed)
    }

    /// The file has so many bytes.
    pub fn set_file_bytes(&self, bytes: u64) {
        self.file.store(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    fn set_for_test(&self, useful: u64) {
        self.known.store(useful, Ordering::Relaxed);
        self.useless.store(0, Ordering::Relaxed);
    }
}

/// A segment that this process knows.
#[derive(Debug)]
pub struct Segment {
    /// The process's own number for it; a larger one is younger.
    pub id: u32,
    /// Its file.
    pub path: PathBuf,
    /// Number of the instance that wrote it.
    pub instance: u64,
    /// The shard that wrote it.
    pub shard: u16,
    /// Which of that shard's.
    pub number: u32,
    /// What is in it.
    pub account: Account,
}

impl Segment {
    /// Instance, shard and number.
    #[must_use]
    pub fn name(&self) -> (u64, u16, u32) {
        (self.instance, self.shard, self.number)
    }

    /// Which of its shard's logs it belongs to.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::of_number(self.number)
    }
}

/// Why something did not come from the disk, or did not get there.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Too many operations are in flight, or the disk rests after it was late.
    #[error("the disk is busy")]
    Busy,
    /// An operation took longer than its deadline; it may still be under way.
    #[error("the disk did not answer in time")]
    Late,
    /// The kernel's answer.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What was read is not what was stored.
    #[error("a record cannot be used: {0}")]
    Format(#[from] FormatError),
    /// The record is of something else.
    #[error("a record is of something else")]
    Other,
    /// Nobody knows the segment any more.
    #[error("the segment is gone")]
    Gone,
}

/// When an answer was made, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// Its `Date`, or when it came where it has none.
    pub date_unix_s: u64,
    /// How old it was when it came (RFC 9111, section 4.2.3).
    pub age_ms: u64,
}

/// The texts of a head, as the disk sees them.
pub trait Described {
    /// Encoded object key.
    fn key(&self) -> &[u8];
    /// Digest of the key.
    fn object(&self) -> u128;
    /// Digest of ETag and total length.
    fn version(&self) -> u128;
    /// ETag as the origin sent it.
    fn etag(&self) -> &[u8];
    /// Bytes of the whole object.
    fn total(&self) -> u64;
    /// Stored header lines.
    fn lines(&self) -> &[u8];
    /// Checksum lines.
    fn checksum_lines(&self) -> &[u8];
    /// Whether the origin was asked for checksums.
    fn checksums_known(&self) -> bool;
    /// When the answer was made that it is of; `None` if that is not known.
    fn dated(&self) -> Option<Dated>;
}

/// What the keeper and the fold tell a shard.
pub enum News {
    /// The journal of this shard, and the header that it has.
    Journal(PathBuf, [u8; format::segment::HEADER_BYTES]),
    /// Room for records.
    Granted(Arc<Segment>),
    /// There is no room for records now; ask again later.
    Refused(Stream),
    /// No journal can be made now; ask again later.
    NoJournal,
    /// A segment is to go: nothing of it may be known any more.
    Reclaim(Arc<Segment>, Why),
    /// Prefixes that were invalidated in older journals; any head that they may beat comes later.
    Prefixes(Vec<fold::Prefix>),
    /// What older journals say.
    Folded(Batch),
    /// Older journals have been read.
    FoldEnded,
    /// Everything that was invalidated so far is to be on disk: says whether it is.
    Flush(Sender<bool>),
}

/// Facts of older journals on their way to one shard. The memory goes back when the shard is done with it, so that the fold is never far ahead.
#[derive(Debug)]
pub struct Batch {
    /// The facts.
    pub facts: Vec<Folded>,
    /// The segments that they are about.
    pub segments: Vec<Arc<Segment>>,
    /// Which shard.
    pub shard: usize,
    /// Where the memory goes.
    pub back: Sender<(usize, Vec<Folded>)>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.facts.clear();
        let _ = self
            .back
            .send((self.shard, std::mem::take(&mut self.facts)));
    }
}

/// A fact of an older journal that still holds, as far as the journals read so far say.
#[derive(Debug, Clone)]
pub enum Folded {
    /// Bytes of a version.
    Extent {
        /// Which stripe.
        id: StripeId,
        /// Bytes of it.
        window: std::ops::Range<u32>,
        /// Where.
        place: Place,
        /// In which segment, by the process's number.
        segment: u32,
    },
    /// The head of an object's current version.
    Head {
        /// Digest of the object's key.
        object: u128,
        /// Digest of the version.
        version: u128,
        /// When the origin confirmed it.
        confirmed_unix_ms: u64,
        /// Where.
        place: Place,
        /// In which segment, by the process's number.
        segment: u32,
    },
}

/// What a shard asks of the keeper.
#[derive(Debug)]
pub enum Ask {
    /// A new segment for one of a shard's logs.
    Segment(usize, Stream),
    /// A shard has heard all that older journals say.
    FoldEnded,
    /// A new journal for a shard.
    Journal(usize),
    /// A segment of this process gets no more records; it has so many bytes.
    Sealed(u32, u64),
    /// As far as older journals know, a segment of an older instance has so many bytes.
    Trim(u32, u64),
    /// Room for a snapshot of at most so many bytes; the answer may take its time.
    Snapshot(u64, Sender<bool>),
    /// Journals and snapshots have come or gone.
    Compacted,
    /// A shard knows nothing of a segment any more.
    Released(u32, usize),
}

//! What the journals of a directory say altogether: heads that hold, and the extents of their versions.
//!
//! Called by the tools. The same fold as the server's, with everything kept.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use hashbrown::HashMap;

use super::bars::Bars;
use crate::disk::fold::{Fold, Listener, Prefix, Tally};
use crate::disk::format::BLOCK_BYTES;
use crate::disk::format::fact::Place;
use crate::disk::format::record::{Kind, Record};
use crate::disk::keeper::{self, DirectoryError};
use crate::disk::{Folded, Segment};
use crate::ram::{STRIPE_BYTES, StripeId};

/// Bytes of a version in a segment.
#[derive(Debug, Clone)]
pub(super) struct StoredExtent {
    pub(super) id: StripeId,
    pub(super) window: std::ops::Range<u32>,
    pub(super) place: Place,
    pub(super) segment: Arc<Segment>,
}

impl StoredExtent {
    pub(super) fn bytes(&self) -> u64 {
        self.window.len() as u64
    }

    /// Bytes of the object: first, and one past the last.
    pub(super) fn range(&self) -> (u64, u64) {
        let base = u64::from(self.id.index) * STRIPE_BYTES;
        (
            base + u64::from(self.window.start),
            base + u64::from(self.window.end),
        )
    }

    pub(super) fn offset(&self) -> u64 {
        u64::from(self.place.block) * BLOCK_BYTES
    }

    pub(super) fn record_bytes(&self) -> u64 {
        u64::from(self.place.record_blocks) * BLOCK_BYTES
    }

    /// Bytes that the record is shorter than the bytes it holds: what compression has saved, at least.
    pub(super) fn saved_bytes(&self) -> u64 {
        self.bytes().saturating_sub(self.record_bytes())
    }
}

/// A head in a segment.
#[derive(Debug, Clone)]
pub(super) struct StoredHead {
    pub(super) version: u128,
    pub(super) confirmed_unix_ms: u64,
    pub(super) place: Place,
    pub(super) segment: Arc<Segment>,
}

impl StoredHead {
    pub(super) fn record_bytes(&self) -> u64 {
        u64::from(self.place.record_blocks) * BLOCK_BYTES
    }
}

/// An object whose head could be read.
pub(super) struct Object {
    pub(super) key: Vec<u8>,
    pub(super) etag: Vec<u8>,
    pub(super) total: u64,
    pub(super) confirmed_unix_ms: u64,
    pub(super) head_bytes: u64,
    pub(super) extents: Vec<StoredExtent>,
}

/// Everything that the journals say.
pub(super) struct Picture {
    pub(super) heads: HashMap<u128, StoredHead>,
    pub(super) extents: Vec<StoredExtent>,
    pub(super) prefixes: Vec<Prefix>,
    pub(super) tally: Tally,
    pub(super) segments: usize,
    pub(super) segment_bytes: u64,
}

/// What a fold tells.
#[derive(Default)]
struct Found {
    heads: HashMap<u128, StoredHead>,
    extents: Vec<StoredExtent>,
}

impl Listener for Found {
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>) {
        let segment = Arc::clone(segment);
        match fact {
            Folded::Extent {
                id, window, place, ..
            } => self.extents.push(StoredExtent {
                id,
                window,
                place,
                segment,
            }),
            Folded::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
                ..
            } => {
                let head = StoredHead {
                    version,
                    confirmed_unix_ms,
                    place,
                    segment,
                };
                // What is told first is the youngest.
                self.heads.entry(object).or_insert(head);
            }
        }
    }

    fn prefix(&mut self, _: &Prefix) {}

    fn progress(&mut self, _: &Tally) {}
}

/// Reads so many blocks of a segment.
pub(super) fn read(segment: &Segment, block: u32, blocks: u32) -> io::Result<Vec<u8>> {
    let mut memory = vec![0; blocks as usize * BLOCK_BYTES as usize];
    File::open(&segment.path)?.read_exact_at(&mut memory, u64::from(block) * BLOCK_BYTES)?;
    Ok(memory)
}

impl Picture {
    pub(super) fn read(dir: &Path, bars: &Bars) -> Result<Self, DirectoryError> {
        keeper::check(dir)?;
        let instances = keeper::instances(dir)?;
        let found = keeper::segments(dir, &instances)?;
        let registry = found
            .iter()
            .map(|found| (found.segment.name(), Arc::clone(&found.segment)));
        let registry = registry.collect();
        let bar = bars.of("reading journals", instances.len() as u64);
        let mut fold = Fold::new(&registry, Found::default());
        fold.directory(dir, u64::MAX)?;
        drop(bar);
        let tally = fold.tally();
        let (told, prefixes) = fold.finish();
        Ok(Self {
            heads: told.heads,
            extents: told.extents,
            prefixes,
            tally,
            segments: found.len(),
            segment_bytes: found.iter().map(|found| found.bytes).sum(),
        })
    }

    /// Whether a head with that key was invalidated with its prefix.
    fn is_beaten(&self, head: &StoredHead, key: &[u8]) -> bool {
        let (instance, confirmed) = (head.segment.instance, head.confirmed_unix_ms);
        let mut prefixes = self.prefixes.iter();
        prefixes.any(|prefix| prefix.beats(instance, confirmed, key))
    }

    /// Objects whose heads can be read, with the extents of their version.
    pub(super) fn objects(&self, bars: &Bars) -> impl Iterator<Item = Object> + '_ {
        self.objects_where(bars, |_| true)
    }

    /// The same for those whose digest satisfies `is`.
    pub(super) fn objects_where(
        &self,
        bars: &Bars,
        is: impl Fn(u128) -> bool + 'static,
    ) -> impl Iterator<Item = Object> + '_ {
        let bar = bars.of("reading heads", self.heads.len() as u64);
        let mut by_version: HashMap<(u128, u128), Vec<StoredExtent>> = HashMap::new();
        for extent in &self.extents {
            let name = (extent.id.object, extent.id.version);
            by_version.entry(name).or_default().push(extent.clone());
        }
        self.heads.iter().filter_map(move |(object, head)| {
            bar.inc(1);
            if !is(*object) {
                return None;
            }
            let place = &head.place;
            let memory = read(&head.segment, place.block, place.record_blocks).ok()?;
            let (record, layout) = Record::decode(&memory).ok()?;
            let same = record.kind == Kind::Head
                && (record.object, record.version) == (*object, head.version);
            if !same || self.is_beaten(head, record.key) {
                return None;
            }
            let mut extents = by_version
                .get(&(*object, head.version))
                .cloned()
                .unwrap_or_default();
            extents.sort_by_key(|extent| extent.range());
            Some(Object {
                key: record.key.to_vec(),
                etag: record.etag.to_vec(),
                total: record.total,
                confirmed_unix_ms: head.confirmed_unix_ms,
                head_bytes: u64::from(layout.record_bytes),
                extents,
            })
        })
    }
}

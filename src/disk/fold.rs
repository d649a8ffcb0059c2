//! The fold: a snapshot and all journals that it does not stand for, to one picture of what is on disk, while clients are served.
//!
//! Run by `server` on a thread of its own, by `compact` to make the next snapshot, and by the tools. Goes from the youngest journal to the oldest and to the snapshot last, so that what
//! it finds is true from the moment it is told: an object that a younger fact decides is not listened to in an older one. Within a journal facts about heads are taken
//! from its end. A fact about a segment that is not there is nothing. Memory: one journal, and eight bytes for each head of the journals; none for the snapshot's.

use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use crate::base::pattern::covers;

use super::format::BLOCK_BYTES;
use super::format::fact::{Fact, Facts, Place};
use super::format::segment::{FileHeader, HEADER_BYTES};
use super::keeper::{DirectoryError, Registry};
use super::snapshot::Snapshot;
use super::sources::{JournalFile, Sources};
use super::{Folded, Segment};
use crate::ram::StripeId;

/// Prefixes that are kept apart; beyond it one that is the beginning of all stands for them.
pub const PREFIXES_MAX: usize = 256;
/// Bytes of a journal that are read at most: the writer ends one long before.
const JOURNAL_READ_BYTES_MAX: u64 = 256 << 20;
/// How often a directory is looked at again in which files went while they were to be read.
const ROUNDS_MAX: usize = 3;

/// What the fold has read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Journals.
    pub journals: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of the files read so far.
    pub bytes: u64,
    /// Bytes of all files that are to be read.
    pub of_bytes: u64,
    /// Facts, and entries of snapshots.
    pub facts: u64,
    /// Files that could not be read, end in the middle of a fact, or have damaged blocks.
    pub torn: u64,
    /// Of these, such that could not be read at all.
    pub unread: u64,
}

/// Who hears what the fold finds.
pub trait Listener {
    /// A fact that holds, and its segment.
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>);
    /// A prefix that was invalidated; told before any head that it may beat, perhaps again with a later time.
    fn prefix(&mut self, prefix: &Prefix);
    /// How far it is; told several times for each file.
    fn progress(&mut self, tally: &Tally);
}

/// A prefix that was invalidated: heads of its instance or older ones are to be compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The beginning of encoded keys.
    pub prefix: Box<[u8]>,
    /// Of which instance; `u64::MAX` for this process's own, which beats by time alone.
    pub instance: u64,
    /// When.
    pub unix_ms: u64,
}

impl Prefix {
    /// Whether a head is not to be used: one of an older instance, or one that was confirmed before (a record that moved is of a younger one).
    #[must_use]
    pub fn beats(&self, instance: u64, confirmed_unix_ms: u64, key: &[u8]) -> bool {
        self.may_beat(instance, confirmed_unix_ms) && covers(&self.prefix, key)
    }

    /// The same without its key.
    #[must_use]
    pub fn may_beat(&self, instance: u64, confirmed_unix_ms: u64) -> bool {
        let older = instance < self.instance && self.instance != u64::MAX;
        older || confirmed_unix_ms <= self.unix_ms
    }

    fn is_own(&self) -> bool {
        self.instance == u64::MAX
    }

    /// Adds it to others, each text once; gives what was noted.
    pub fn note(self, among: &mut Vec<Self>) -> &Self {
        let same = |known: &Self| known.prefix == self.prefix && known.is_own() == self.is_own();
        let at = match among.iter().position(same) {
            Some(at) => {
                among[at].instance = among[at].instance.max(self.instance);
                among[at].unix_ms = among[at].unix_ms.max(self.unix_ms);
                at
            }
            None if among.len() < PREFIXES_MAX => {
                among.push(self);
                among.len() - 1
            }
            None => {
                among.push(self);
                let instances = among.iter().filter(|prefix| !prefix.is_own());
                let all = Self {
                    prefix: Box::default(),
                    instance: instances.map(|prefix| prefix.instance).max().unwrap_or(0),
                    unix_ms: among.iter().map(|prefix| prefix.unix_ms).max().unwrap_or(0),
                };
                *among = vec![all];
                0
            }
        };
        &among[at]
    }
}

/// Digests are hashes already.
#[derive(Debug, Default, Clone, Copy)]
pub struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk::<8>();
        self.0 = first.map_or(0, |first| u64::from_le_bytes(*first));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn write_u128(&mut self, number: u128) {
        self.0 = number as u64;
    }
}

type Plain = BuildHasherDefault<Itself>;
/// Instance, shard and number.
type SegmentName = (u64, u16, u32);

/// The state of a fold.
pub struct Fold<'f, L: Listener> {
    registry: &'f Registry,
    listener: L,
    /// Objects that younger facts have decided, by half of their digest: two that share it cost a miss.
    settled: HashSet<u64, Plain>,
    /// Objects whose head younger facts confirm and older ones are to name: version and time.
    confirmed: HashMap<u128, (u128, u64), Plain>,
    prefixes: Vec<Prefix>,
    /// Where the known records of a segment end.
    ends: HashMap<u32, u64>,
    /// The segment that was spoken of last, and where its records end.
    last: Option<(SegmentName, Arc<Segment>, u64)>,
    tally: Tally,
}

impl<'f, L: Listener> Fold<'f, L> {
    /// Nothing read yet.
    pub fn new(registry: &'f Registry, listener: L) -> Self {
        Self {
            registry,
            listener,
            settled: HashSet::default(),
            confirmed: HashMap::default(),
            prefixes: Vec::new(),
            ends: HashMap::new(),
            last: None,
            tally: Tally::default(),
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Who has listened, and the prefixes that were invalidated.
    #[must_use]
    pub fn finish(self) -> (L, Vec<Prefix>) {
        (self.listener, self.prefixes)
    }

    /// Where the records of each segment end that journals know.
    #[must_use]
    pub fn ends(&mut self) -> Vec<(u32, u64)> {
        self.leave_segment();
        let end = |id: u32| self.ends.get(&id).copied().unwrap_or(BLOCK_BYTES);
        let ids = self.registry.values().map(|segment| segment.id);
        ids.map(|id| (id, end(id))).collect()
    }

    /// Reads everything that a directory has. `older`: of instances with smaller numbers alone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn directory(&mut self, dir: &Path, older: u64) -> Result<(), DirectoryError> {
        for _ in 0..ROUNDS_MAX {
            let mut sources = Sources::look(dir)?;
            sources.journals.retain(|journal| journal.instance < older);
            if self.sources(sources) {
                break;
            }
            // Somebody has made a snapshot meanwhile. What was told is true; the rest is told now.
            self.settled.clear();
            self.confirmed.clear();
        }
        Ok(())
    }

    /// Reads these files; false if one has gone.
    pub fn sources(&mut self, sources: Sources) -> bool {
        self.tally.of_bytes += sources.bytes();
        let mut whole = true;
        for journal in &sources.journals {
            whole &= self.journal_file(journal);
        }
        for mut snapshot in sources.snapshots {
            if self.snapshot(&mut snapshot) {
                return whole;
            }
            // What it stands for may still be there, and says the same.
            for journal in &sources.covered {
                self.journal_file(journal);
            }
        }
        whole
    }

    fn journal_file(&mut self, journal: &JournalFile) -> bool {
        let mut bytes = Vec::with_capacity(journal.bytes.min(JOURNAL_READ_BYTES_MAX) as usize + 1);
        let read = std::fs::File::open(&journal.path)
            .and_then(|file| file.take(JOURNAL_READ_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => self.journal(journal.instance, &bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                tracing::warn!(%error, path = %journal.path.display(), "a journal cannot be read");
                self.tally.torn += 1;
                self.tally.unread += 1;
            }
        }
        self.tally.bytes += journal.bytes;
        self.listener.progress(&self.tally);
        true
    }

    /// Reads one journal of an instance; call it for younger ones first.
    pub fn journal(&mut self, instance: u64, bytes: &[u8]) {
        self.tally.journals += 1;
        let header = FileHeader::of_journal(bytes);
        if !header.is_ok_and(|header| header.instance == instance) {
            self.tally.torn += 1;
            return;
        }
        let body = &bytes[HEADER_BYTES..];
        let mut facts = Facts::new(body);
        let mut of_heads: Vec<u32> = Vec::new();
        loop {
            let at = facts.position();
            let Some(fact) = facts.next() else { break };
            self.tally.facts += 1;
            match fact {
                Fact::Extent { place, .. } => self.extent(instance, &fact, place),
                Fact::InvalidatedPrefix { prefix, unix_ms } => self.prefix(Prefix {
                    prefix: prefix.into(),
                    instance,
                    unix_ms,
                }),
                Fact::Head { .. } | Fact::Confirmed { .. } | Fact::Invalidated { .. } => {
                    of_heads.push(at as u32);
                }
            }
        }
        let rest = &body[facts.position()..];
        self.tally.torn += u64::from(rest.iter().any(|&byte| byte != 0));
        // From the end: the last fact about an object decides.
        for at in of_heads.into_iter().rev() {
            if let Some(fact) = Facts::new(&body[at as usize..]).next() {
                self.of_head(instance, &fact);
            }
        }
    }

    fn prefix(&mut self, prefix: Prefix) {
        let noted = prefix.note(&mut self.prefixes);
        self.listener.prefix(noted);
    }

    fn leave_segment(&mut self) {
        if let Some((_, segment, end)) = self.last.take() {
            let known = self.ends.entry(segment.id).or_default();
            *known = end.max(*known);
        }
    }

    /// Makes the segment of a place the last one; false if it is not there.
    fn enter_segment(&mut self, name: (u64, u16, u32), place: &Place) -> bool {
        if self.last.as_ref().is_none_or(|last| last.0 != name) {
            self.leave_segment();
            let Some(segment) = self.registry.get(&name) else {
                return false;
            };
            self.last = Some((name, Arc::clone(segment), 0));
        }
        if let Some((_, _, end)) = &mut self.last {
            let blocks = u64::from(place.block) + u64::from(place.record_blocks);
            *end = (*end).max(blocks * BLOCK_BYTES);
        }
        true
    }

    fn tell(&mut self, fact: impl FnOnce(u32) -> Folded) {
        if let Some((_, segment, _)) = &self.last {
            self.listener.fact(fact(segment.id), segment);
        }
    }

    fn extent(&mut self, instance: u64, fact: &Fact<'_>, place: Place) {
        let Fact::Extent {
            object,
            version,
            stripe,
            ref window,
            ..
        } = *fact
        else {
            return;
        };
        if self.enter_segment((instance, place.shard, place.segment), &place) {
            let id = StripeId {
                object,
                version,
                index: stripe,
            };
            self.tell(|segment| Folded::Extent {
                id,
                window: window.clone(),
                place,
                segment,
            });
        }
    }

    /// A fact about a head; younger ones have been told.
    fn of_head(&mut self, instance: u64, fact: &Fact<'_>) {
        let (Fact::Head { object, .. }
        | Fact::Confirmed { object, .. }
        | Fact::Invalidated { object }) = *fact
        else {
            return;
        };
        if self.settled.contains(&(object as u64)) {
            return;
        }
        let younger = match self.confirmed.is_empty() {
            true => None,
            false => self.confirmed.get(&object).copied(),
        };
        let other_version = |version| younger.is_some_and(|(confirmed, _)| confirmed != version);
        match *fact {
            Fact::Confirmed {
                version,
                confirmed_unix_ms,
                ..
            } if !other_version(version) => {
                let latest = younger.map_or(0, |(_, latest)| latest);
                let noted = (version, confirmed_unix_ms.max(latest));
                self.confirmed.insert(object, noted);
                return;
            }
            Fact::Head {
                version,
                confirmed_unix_ms,
                place,
                ..
            } if !other_version(version) => {
                let latest = younger.map_or(0, |(_, latest)| latest);
                let confirmed_unix_ms = confirmed_unix_ms.max(latest);
                self.head(instance, (object, version), confirmed_unix_ms, place);
            }
            _ => {}
        }
        if younger.is_some() {
            self.confirmed.remove(&object);
        }
        self.settled.insert(object as u64);
    }

    fn head(
        &mut self,
        instance: u64,
        (object, version): (u128, u128),
        confirmed_unix_ms: u64,
        place: Place,
    ) {
        // What could not be read may have been that it is not true any more: the origin is to be asked.
        let confirmed_unix_ms = match self.tally.torn {
            0 => confirmed_unix_ms,
            _ => 0,
        };
        if self.enter_segment((instance, place.shard, place.segment), &place) {
            self.tell(|segment| Folded::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
                segment,
            });
        }
    }

    /// Reads a snapshot; false if something of it is damaged.
    fn snapshot(&mut self, snapshot: &mut Snapshot) -> bool {
        self.tally.snapshots += 1;
        for prefix in std::mem::take(&mut snapshot.prefixes) {
            self.prefix(prefix);
        }
        let segments = std::mem::take(&mut snapshot.segments);
        let lead_bytes = snapshot.lead_bytes();
        self.tally.bytes += lead_bytes;
        let mut whole = true;
        loop {
            let result = snapshot.next(|fact| self.entry(&segments, &fact));
            match result {
                Ok(0) => break,
                Ok(bytes) => self.tally.bytes += bytes,
                Err(error) => {
                    if whole {
                        tracing::warn!(%error, path = %snapshot.path.display(), "a snapshot is damaged");
                        self.tally.torn += 1;
                    }
                    whole = false;
                }
            }
            self.listener.progress(&self.tally);
        }
        whole
    }

    fn entry(&mut self, segments: &[(u64, u16, u32)], fact: &Fact<'_>) {
        let (Fact::Extent { place, .. } | Fact::Head { place, .. }) = *fact else {
            return;
        };
        let Some(&(instance, shard, number)) = segments.get(place.segment as usize) else {
            return;
        };
        self.tally.facts += 1;
        let place = Place {
            shard,
            segment: number,
            ..place
        };
        match *fact {
            Fact::Head {
                object,
                version,
                confirmed_unix_ms,
                ..
            } => {
                let fact = Fact::Head {
                    object,
                    version,
                    confirmed_unix_ms,
                    place,
                };
                // Once in a snapshot, and nothing is older: it need not be remembered.
                self.last_head(instance, &fact);
            }
            _ => self.extent(instance, fact, place),
        }
    }

    fn last_head(&mut self, instance: u64, fact: &Fact<'_>) {
        let Fact::Head {
            object,
            version,
            confirmed_unix_ms,
            place,
        } = *fact
        else {
            return;
        };
        if self.settled.contains(&(object as u64)) {
            return;
        }
        let latest = match self.confirmed.get(&object) {
            None => 0,
            Some(&(confirmed, latest)) if confirmed == version => latest,
            Some(_) => return,
        };
        let confirmed_unix_ms = confirmed_unix_ms.max(latest);
        self.head(instance, (object, version), confirmed_unix_ms, place);
    }
}

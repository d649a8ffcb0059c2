//! The fold: all journals of older instances to one picture of what is on disk, while clients are served.
//!
//! Runs on a thread of its own, started by `server`. Goes from the youngest journal to the oldest, so that what it finds is true from the moment it is told: an object that a
//! younger journal knows, or calls invalid, is not listened to in an older one. Within a journal the last fact wins. What is told goes to `tell`
//! in small batches; a fact about a segment that is not there is nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::format::BLOCK_BYTES;
use super::format::fact::{Fact, Facts, Place};
use super::format::segment::{FileHeader, HEADER_BYTES};
use super::keeper::{self, Registry};
use super::names::{self, InstanceName};
use super::{Folded, Segment};
use crate::ram::StripeId;

/// What the fold has read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Journals.
    pub journals: u64,
    /// Bytes of facts.
    pub bytes: u64,
    /// Facts.
    pub facts: u64,
    /// Journals that could not be read, or end in the middle of a fact.
    pub torn: u64,
}

/// What is known of an object in one journal.
#[derive(Debug, Clone, Copy)]
enum Known {
    Head {
        version: u128,
        confirmed_unix_ms: u64,
        place: Place,
    },
    /// A confirmation of a head that an older journal has.
    Confirmed {
        version: u128,
        confirmed_unix_ms: u64,
    },
    Invalid,
}

/// A prefix that was invalidated: heads of its instance or older ones are to be compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The beginning of encoded keys.
    pub prefix: Box<[u8]>,
    /// Of which instance.
    pub instance: u64,
    /// When.
    pub unix_ms: u64,
}

/// The state of a fold.
pub struct Fold<'f, T: FnMut(Folded)> {
    registry: &'f Registry,
    tell: T,
    /// What younger journals say of objects whose head they do not have.
    younger: HashMap<u128, Known>,
    prefixes: Vec<Prefix>,
    /// Where the known records of a segment end.
    ends: HashMap<u32, u64>,
    tally: Tally,
}

impl<'f, T: FnMut(Folded)> Fold<'f, T> {
    /// Nothing read yet.
    pub fn new(registry: &'f Registry, tell: T) -> Self {
        Self {
            registry,
            tell,
            younger: HashMap::new(),
            prefixes: Vec::new(),
            ends: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Where the records of each segment end that journals know.
    #[must_use]
    pub fn ends(&self) -> Vec<(u32, u64)> {
        let end = |id: u32| self.ends.get(&id).copied().unwrap_or(BLOCK_BYTES);
        let ids = self.registry.values().map(|segment| segment.id);
        ids.map(|id| (id, end(id))).collect()
    }

    /// The segment of a place, if it is there.
    fn segment(&mut self, instance: u64, place: &Place) -> Option<Arc<Segment>> {
        let name = (instance, place.shard, place.segment);
        let segment = Arc::clone(self.registry.get(&name)?);
        let end = (u64::from(place.block) + u64::from(place.record_blocks)) * BLOCK_BYTES;
        let known = self.ends.entry(segment.id).or_default();
        *known = end.max(*known);
        Some(segment)
    }

    /// Prefixes that were invalidated.
    #[must_use]
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// Reads the journals of one instance; call it for the youngest first.
    pub fn instance(&mut self, dir: &Path, name: &InstanceName) {
        let mut journals =
            keeper::files(&name.folder(dir), names::parse_journal).unwrap_or_default();
        journals.reverse();
        for (_, _, path, _) in journals {
            match std::fs::read(&path) {
                Ok(bytes) => self.journal(name.number, &bytes),
                Err(_) => self.tally.torn += 1,
            }
        }
    }

    /// Reads one journal of an instance.
    pub fn journal(&mut self, instance: u64, bytes: &[u8]) {
        self.tally.journals += 1;
        let header = FileHeader::of_journal(bytes);
        if !header.is_ok_and(|header| header.instance == instance) {
            self.tally.torn += 1;
            return;
        }
        let mut objects: HashMap<u128, Known> = HashMap::new();
        let mut facts = Facts::new(&bytes[HEADER_BYTES..]);
        for fact in facts.by_ref() {
            self.tally.facts += 1;
            self.take(instance, fact, &mut objects);
        }
        let read = facts.position();
        self.tally.bytes += read as u64;
        let rest = &bytes[HEADER_BYTES + read..];
        self.tally.torn += u64::from(rest.iter().any(|&byte| byte != 0));
        for (object, known) in objects {
            self.object(instance, object, known);
        }
    }

    fn take(&mut self, instance: u64, fact: Fact<'_>, objects: &mut HashMap<u128, Known>) {
        match fact {
            Fact::Extent {
                object,
                version,
                stripe,
                window,
                place,
            } => {
                let id = StripeId {
                    object,
                    version,
                    index: stripe,
                };
                if let Some(segment) = self.segment(instance, &place) {
                    (self.tell)(Folded::Extent {
                        id,
                        window,
                        place,
                        segment,
                    });
                }
            }
            Fact::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
            } => {
                let known = Known::Head {
                    version,
                    confirmed_unix_ms,
                    place,
                };
                objects.insert(object, known);
            }
            Fact::Confirmed {
                object,
                version,
                confirmed_unix_ms,
            } => confirm(objects.entry(object), version, confirmed_unix_ms),
            Fact::Invalidated { object } => {
                objects.insert(object, Known::Invalid);
            }
            Fact::InvalidatedPrefix { prefix, unix_ms } => self.prefixes.push(Prefix {
                prefix: prefix.into(),
                instance,
                unix_ms,
            }),
        }
    }

    /// What one journal says of an object in the end.
    fn object(&mut self, instance: u64, object: u128, known: Known) {
        let younger = self.younger.get(&object).copied();
        let Known::Head {
            version,
            mut confirmed_unix_ms,
            place,
        } = known
        else {
            if younger.is_none() {
                self.younger.insert(object, known);
            }
            return;
        };
        let segment = self.segment(instance, &place);
        match younger {
            Some(Known::Confirmed {
                version: confirmed,
                confirmed_unix_ms: later,
            }) if confirmed == version => confirmed_unix_ms = confirmed_unix_ms.max(later),
            Some(_) => return,
            None => {}
        }
        self.younger.insert(object, Known::Invalid);
        let Some(segment) = segment else {
            return;
        };
        // What could not be read may have been that it is not true any more: the origin is to be asked.
        if self.tally.torn > 0 {
            confirmed_unix_ms = 0;
        }
        (self.tell)(Folded::Head {
            object,
            version,
            confirmed_unix_ms,
            place,
            segment,
        });
    }
}

fn confirm(entry: Entry<'_, u128, Known>, version: u128, later: u64) {
    match entry {
        Entry::Vacant(vacant) => {
            vacant.insert(Known::Confirmed {
                version,
                confirmed_unix_ms: later,
            });
        }
        Entry::Occupied(mut occupied) => match occupied.get_mut() {
            Known::Head {
                version: known,
                confirmed_unix_ms,
                ..
            }
            | Known::Confirmed {
                version: known,
                confirmed_unix_ms,
            } if *known == version => *confirmed_unix_ms = later.max(*confirmed_unix_ms),
            // Of another version than the one that is known: the known one is not the current one any more.
            known => *known = Known::Invalid,
        },
    }
}

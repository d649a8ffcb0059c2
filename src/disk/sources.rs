//! What there is to be folded: the best snapshot, and the journals that it does not stand for, youngest first.
//!
//! Called by the fold and by `compact`. A snapshot stands for a run of journals from the very first on, so of several the furthest is enough; one that cannot be read
//! is no snapshot.

use std::path::{Path, PathBuf};

use super::keeper::{self, DirectoryError};
use super::names::{self, InstanceName};
use super::snapshot::Snapshot;

/// A journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFile {
    /// Number of the instance that wrote it.
    pub instance: u64,
    /// Shard.
    pub shard: u16,
    /// Number.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// A snapshot's file, not read yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotFile {
    /// Number of the instance that wrote it.
    pub instance: u64,
    /// Its number.
    pub number: u32,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
}

/// The files of a directory.
#[derive(Debug, Default)]
pub struct Sources {
    /// Journals that no snapshot stands for, youngest first.
    pub journals: Vec<JournalFile>,
    /// Snapshots that can be read, the furthest first.
    pub snapshots: Vec<Snapshot>,
    /// Journals that the first snapshot stands for, youngest first.
    pub covered: Vec<JournalFile>,
    /// Snapshots that are of no use beside the first, and files that are none.
    pub useless: Vec<SnapshotFile>,
}

/// The snapshots of an instance.
///
/// # Errors
/// The folder cannot be read.
pub fn snapshots(dir: &Path, name: &InstanceName) -> Result<Vec<SnapshotFile>, DirectoryError> {
    let parse = |text: &str| names::parse_snapshot(text).map(|number| (0, number));
    let found = keeper::files(&name.folder(dir), parse)?;
    let file = |(_, number, path, bytes)| SnapshotFile {
        instance: name.number,
        number,
        path,
        bytes,
    };
    Ok(found.into_iter().map(file).collect())
}

/// The journals of an instance, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn journals(dir: &Path, name: &InstanceName) -> Result<Vec<JournalFile>, DirectoryError> {
    let found = keeper::files(&name.folder(dir), names::parse_journal)?;
    let file = |(shard, number, path, bytes)| JournalFile {
        instance: name.number,
        shard,
        number,
        path,
        bytes,
    };
    Ok(found.into_iter().map(file).collect())
}

impl Sources {
    /// Looks what a directory has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn look(dir: &Path) -> Result<Self, DirectoryError> {
        let mut sources = Self::default();
        let mut all = Vec::new();
        for name in keeper::instances(dir)? {
            all.extend(journals(dir, &name)?);
            sources.useless.extend(snapshots(dir, &name)?);
        }
        all.reverse();
        for file in &sources.useless {
            match Snapshot::open(file) {
                Ok(snapshot) => sources.snapshots.push(snapshot),
                Err(error) => {
                    tracing::warn!(%error, path = %file.path.display(), "a snapshot cannot be used");
                }
            }
        }
        sources
            .snapshots
            .sort_by_key(|snapshot| std::cmp::Reverse(snapshot.reach()));
        let Some(best) = sources.snapshots.first() else {
            sources.journals = all;
            return Ok(sources);
        };
        sources.useless.retain(|file| file.path != best.path);
        let covers = |journal: &JournalFile| {
            best.covers
                .has(journal.instance, journal.shard, journal.number)
        };
        (sources.covered, sources.journals) = all.into_iter().partition(covers);
        Ok(sources)
    }

    /// Bytes that are to be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let journals: u64 = self.journals.iter().map(|journal| journal.bytes).sum();
        let snapshot = self.snapshots.first();
        journals + snapshot.map_or(0, |snapshot| snapshot.header.file_bytes())
    }
}

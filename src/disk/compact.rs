//! Compaction: what the journals of a directory say is written to one snapshot, and they go.
//!
//! Run by the thread of the fold, when it has ended and from then on again and again; never by a shard. The single writer of this instance's snapshots. Order: the snapshot is
//! on disk under its name, then older snapshots go, then the journals that it stands for, oldest first: what is left after a crash at any moment says the same, and if the
//! snapshot should be damaged later, the youngest journals that are left are true by themselves. Room for the new file is asked of the keeper before a byte is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fold::{Fold, Listener, Prefix, Tally};
use super::format::segment::FileHeader;
use super::keeper::{self, DirectoryError, Registry};
use super::names::{self, InstanceName};
use super::snapshot::{Covers, Snapshot, SnapshotWriter};
use super::sources::{self, Sources};
use super::{Folded, Segment};
use crate::base::{clock, prng};

/// Fewer bytes of journals are not worth a snapshot.
const BYTES_MIN: u64 = 1 << 20;
/// A snapshot is written again when journals have this part of its bytes: one of so many.
const PART: u64 = 4;
/// Or when there are so many of them, for each shard.
const JOURNALS_MAX: usize = 64;
/// What headers and blocks that are not full add to a snapshot.
const SLACK_BYTES: u64 = 1 << 20;

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The directory cannot be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The kernel's answer.
    #[error("a snapshot cannot be written: {0}")]
    Io(#[from] std::io::Error),
    /// The budget has no room for it.
    #[error("there is no room for a snapshot of {0} bytes")]
    NoRoom(u64),
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Journals that the new snapshot stands for and older ones did not.
    pub journals: usize,
    /// Bytes of the snapshot.
    pub bytes: u64,
    /// Extents in it.
    pub extents: u64,
    /// Heads in it.
    pub heads: u64,
}

/// Makes snapshots for one instance.
#[derive(Debug)]
pub struct Compactor {
    dir: PathBuf,
    own: InstanceName,
    /// The next snapshot's number.
    number: u32,
    /// Bytes of journals that are worth a snapshot.
    bytes_min: u64,
    /// What there was when it was not worth it.
    looked_at: Option<Covers>,
}

/// What is to be written.
struct Work {
    covers: Covers,
    sources: Sources,
    bytes_max: u64,
}

/// Writes down what a fold tells.
struct Writing(SnapshotWriter);

impl Listener for Writing {
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>) {
        self.0.add(&fact, segment);
    }

    fn prefix(&mut self, _: &Prefix) {}

    fn progress(&mut self, _: &Tally) {}
}

impl Compactor {
    /// For the instance of this process, which has no snapshot yet.
    #[must_use]
    pub fn new(dir: &Path, own: &InstanceName) -> Self {
        Self {
            dir: dir.to_owned(),
            own: own.clone(),
            number: 0,
            bytes_min: BYTES_MIN,
            looked_at: None,
        }
    }

    /// The same, but whatever there is is worth a snapshot.
    #[must_use]
    pub fn eager(self) -> Self {
        Self {
            bytes_min: 0,
            ..self
        }
    }

    /// All journals of earlier instances, and of this one those that are closed: a shard's next one is made when the one before it has ended for good. An
    /// instance that lives ends the run: what comes after it cannot be folded with what comes before.
    fn covers(&self) -> Result<Covers, DirectoryError> {
        let mut covers = Covers::default();
        for name in keeper::instances(&self.dir)? {
            if name == self.own {
                covers.partial = name.number;
                break;
            }
            if keeper::is_alive(&self.dir, &name) {
                return Ok(covers);
            }
            covers.through = name.number;
        }
        for journal in sources::journals(&self.dir, &self.own)? {
            match covers.next.iter_mut().find(|next| next.0 == journal.shard) {
                Some(next) => next.1 = next.1.max(journal.number),
                None => covers.next.push((journal.shard, journal.number)),
            }
        }
        Ok(covers)
    }

    /// What is to be done, if it is worth it.
    fn work(&mut self) -> Result<Option<Work>, DirectoryError> {
        let covers = self.covers()?;
        if self.looked_at.as_ref() == Some(&covers) {
            return Ok(None);
        }
        let mut sources = Sources::look(&self.dir)?;
        sources
            .journals
            .retain(|journal| covers.has(journal.instance, journal.shard, journal.number));
        // Of another process, which has gone further: ours would be none beside it.
        let further = |best: &Snapshot| {
            let theirs = (best.covers.through, best.covers.partial);
            theirs > (covers.through, covers.partial)
        };
        if sources.snapshots.first().is_some_and(further) {
            return Ok(None);
        }
        let fresh: u64 = sources.journals.iter().map(|journal| journal.bytes).sum();
        let base = sources.bytes() - fresh;
        let many = sources.journals.len() > JOURNALS_MAX * covers.next.len().max(1);
        let least = match self.bytes_min {
            0 => 0,
            least => least.max(base / PART),
        };
        let worth = many || fresh >= least;
        let leftovers = !sources.covered.is_empty() || !sources.useless.is_empty();
        if sources.journals.is_empty() || !worth {
            if leftovers && !sources.snapshots.is_empty() {
                self.remove(&sources, false);
            }
            self.looked_at = Some(covers);
            return Ok(None);
        }
        let bytes_max = sources.bytes() + SLACK_BYTES;
        Ok(Some(Work {
            covers,
            sources,
            bytes_max,
        }))
    }

    /// Makes a snapshot if it is worth it. `room`: whether the budget gives so many bytes; `wrote` of them is told afterwards by the caller.
    ///
    /// # Errors
    /// There is no new snapshot; everything else is as it was.
    pub fn turn(
        &mut self,
        room: impl FnOnce(u64) -> bool,
    ) -> Result<Option<Compacted>, CompactError> {
        let Some(work) = self.work()? else {
            return Ok(None);
        };
        if !room(work.bytes_max) {
            return Err(CompactError::NoRoom(work.bytes_max));
        }
        let registry = self.registry()?;
        let header = FileHeader {
            instance: self.own.number,
            shard: 0,
            number: self.number,
            created_unix_ms: clock::unix_ms(),
        };
        let salt = prng::mix64(clock::now_ns() ^ self.own.number) as u32;
        let folder = self.own.folder(&self.dir);
        let writer = SnapshotWriter::create(&folder, header, salt)?;
        let mut fold = Fold::new(&registry, Writing(writer));
        let journals = work.sources.journals.len();
        let whole = fold.sources(work.sources);
        let tally = fold.tally();
        let (Writing(writer), prefixes) = fold.finish();
        // A journal that is there and cannot be read now must not go.
        if !whole || tally.unread > 0 {
            let path = folder.join(names::unfinished_snapshot(header.number));
            let _ = fs::remove_file(path);
            return Err(std::io::Error::other("a journal could not be read").into());
        }
        let done = writer.finish(&work.covers, &prefixes)?;
        self.number += 1;
        let sources = Sources::look(&self.dir)?;
        self.remove(&sources, true);
        Ok(Some(Compacted {
            journals,
            bytes: done.file_bytes(),
            extents: done.extents,
            heads: done.heads,
        }))
    }

    fn registry(&self) -> Result<Registry, DirectoryError> {
        let instances = keeper::instances(&self.dir)?;
        let found = keeper::segments(&self.dir, &instances)?;
        let named = |found: keeper::Found| (found.segment.name(), found.segment);
        Ok(found.into_iter().map(named).collect())
    }

    /// Removes what the best snapshot makes superfluous. `ours`: it is the one just written.
    fn remove(&self, sources: &Sources, ours: bool) {
        let Some(best) = sources.snapshots.first() else {
            return;
        };
        let is_ours = best.header.file.instance == self.own.number;
        if ours && !is_ours {
            return;
        }
        let older = sources.useless.iter();
        let older = older.filter(|file| file.instance <= self.own.number);
        let files = older.map(|file| &file.path);
        let journals = sources.covered.iter().rev().map(|journal| &journal.path);
        for path in files.chain(journals) {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, path = %path.display(), "a journal cannot be removed");
                return;
            }
        }
    }

    /// Removes what dead instances have left unfinished.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn clean(&self) -> Result<(), DirectoryError> {
        let parse = |text: &str| names::parse_unfinished_snapshot(text).map(|number| (0, number));
        for name in keeper::instances(&self.dir)? {
            if name == self.own || keeper::is_alive(&self.dir, &name) {
                continue;
            }
            for (_, _, path, _) in keeper::files(&name.folder(&self.dir), parse)? {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }
}

//! The file of a snapshot: written once under another name, synced, put into its place by a rename, and never changed.
//!
//! Called by `compact` (writes) and by the fold (reads). Blocks; never on a shard's thread. A reader believes the length, the header and the lead before anything else;
//! any surprise there means that there is no snapshot.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashbrown::HashMap;

use super::fold::Prefix;
use super::format::FormatError;
use super::format::fact::{Fact, Place};
use super::format::segment::FileHeader;
use super::format::snapshot::{
    Entries, Entry, LEAD_OFFSET, PIECE_BYTES, PREFIX_BYTES_MAX, Piece, SnapshotHeader,
};
use super::sources::SnapshotFile;
use super::{DiskError, Folded, Segment, names};
use crate::io::mapped::Windows;

/// Blocks that are read, and written, at once.
const PIECES_AT_ONCE: u32 = 16;
/// Bytes between syncs of a file that is being written: what a crash of the disk's cache would have to write at once.
const SYNC_BYTES: u64 = 32 << 20;

/// Which journals a snapshot stands for: all of instances up to one, and the first ones of a younger instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Covers {
    /// All journals of instances up to this number.
    pub through: u64,
    /// A younger instance; 0 for none.
    pub partial: u64,
    /// Of that, for each shard the first journal that is not in.
    pub next: Vec<(u16, u32)>,
}

impl Covers {
    /// Whether a journal is one of them.
    #[must_use]
    pub fn has(&self, instance: u64, shard: u16, number: u32) -> bool {
        let next = self.next.iter().find(|next| next.0 == shard);
        instance <= self.through
            || instance == self.partial && next.is_some_and(|next| number < next.1)
    }
}

/// A snapshot whose lead was read.
#[derive(Debug)]
pub struct Snapshot {
    /// Its file.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: SnapshotHeader,
    /// What it stands for.
    pub covers: Covers,
    /// The segments that places name.
    pub segments: Vec<(u64, u16, u32)>,
    /// Prefixes that were invalidated.
    pub prefixes: Vec<Prefix>,
    windows: Windows,
    /// The next block.
    at: u32,
}

impl Snapshot {
    /// Reads header and lead.
    ///
    /// # Errors
    /// It is no snapshot.
    pub fn open(file: &SnapshotFile) -> Result<Self, DiskError> {
        Self::open_with(file, true)
    }

    /// The same; `may_map`: mapped where that is safe.
    ///
    /// # Errors
    /// As `open`.
    pub fn open_with(file: &SnapshotFile, may_map: bool) -> Result<Self, DiskError> {
        let mut windows = Windows::open(&file.path, may_map)?;
        let header = SnapshotHeader::decode(windows.window(0, LEAD_OFFSET as usize)?)?;
        let wrong = |what| Err(DiskError::Format(FormatError::Field(what)));
        if header.file_bytes() != windows.bytes() {
            return wrong("length");
        }
        if (header.file.instance, header.file.number) != (file.instance, file.number) {
            return wrong("name");
        }
        let mut snapshot = Self {
            path: file.path.clone(),
            header,
            covers: Covers {
                through: header.through,
                partial: header.partial,
                next: Vec::new(),
            },
            segments: Vec::new(),
            prefixes: Vec::new(),
            windows,
            at: 0,
        };
        for index in header.pieces - header.lead..header.pieces {
            snapshot.read_lead(index)?;
        }
        Ok(snapshot)
    }

    fn offset(index: u32) -> u64 {
        LEAD_OFFSET + u64::from(index) * PIECE_BYTES as u64
    }

    fn read_lead(&mut self, index: u32) -> Result<(), DiskError> {
        let bytes = self.windows.window(Self::offset(index), PIECE_BYTES)?;
        for entry in Entries::of(bytes, index, self.header.salt)? {
            match entry? {
                Entry::Covered { shard, next } => self.covers.next.push((shard, next)),
                Entry::Segment {
                    instance,
                    shard,
                    number,
                } => self.segments.push((instance, shard, number)),
                Entry::Prefix {
                    instance,
                    unix_ms,
                    prefix,
                } => self.prefixes.push(Prefix {
                    prefix: prefix.into(),
                    instance,
                    unix_ms,
                }),
                Entry::Fact(_) => return Err(FormatError::Field("lead").into()),
            }
        }
        Ok(())
    }

    /// By which of two snapshots the one is known that stands for all that the other stands for.
    #[must_use]
    pub fn reach(&self) -> (u64, u64, u64, u32) {
        let (covers, file) = (&self.covers, self.header.file);
        (covers.through, covers.partial, file.instance, file.number)
    }

    /// Bytes that `open` has read.
    #[must_use]
    pub fn lead_bytes(&self) -> u64 {
        Self::offset(self.header.lead)
    }

    /// Whether it is read through a mapping.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        self.windows.maps()
    }

    /// Reads the next blocks, and gives their entries to `each`; how many bytes were read, 0 at the end. The place in an entry names a segment of the table.
    ///
    /// # Errors
    /// Some of these blocks cannot be read or are damaged: what they had is lost, the next call goes on behind them.
    pub fn next(&mut self, mut each: impl FnMut(Fact<'_>)) -> Result<u64, DiskError> {
        let (first, salt) = (self.at, self.header.salt);
        let count = PIECES_AT_ONCE.min(self.header.pieces - self.header.lead - first);
        self.at += count;
        if count == 0 {
            return Ok(0);
        }
        let bytes = count as usize * PIECE_BYTES;
        let window = self.windows.window(Self::offset(first), bytes)?;
        let mut damaged = None;
        for (index, piece) in (first..).zip(window.chunks_exact(PIECE_BYTES)) {
            let entries = match Entries::of(piece, index, salt) {
                Ok(entries) if entries.is_known() => entries,
                Ok(_) => continue,
                Err(error) => {
                    damaged = Some(error);
                    continue;
                }
            };
            for entry in entries {
                match entry {
                    Ok(Entry::Fact(fact)) => each(fact),
                    Ok(_) => damaged = Some(FormatError::Field("kind")),
                    Err(error) => damaged = Some(error),
                }
            }
        }
        match damaged {
            None => Ok(bytes as u64),
            Some(error) => Err(error.into()),
        }
    }
}

/// A snapshot that is being written.
#[derive(Debug)]
pub struct SnapshotWriter {
    file: File,
    folder: PathBuf,
    header: SnapshotHeader,
    extents: Piece,
    heads: Piece,
    /// Blocks that are not written.
    out: Vec<u8>,
    offset: u64,
    synced: u64,
    /// Places in the table of segments, by the process's number.
    table: HashMap<u32, u32>,
    segments: Vec<Arc<Segment>>,
    /// The oldest head: instance, and when it was confirmed.
    oldest_head: (u64, u64),
    error: Option<io::Error>,
}

impl SnapshotWriter {
    /// Begins a file in an instance's folder.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(folder: &Path, file: FileHeader, salt: u32) -> io::Result<Self> {
        let path = folder.join(names::unfinished_snapshot(file.number));
        let header = SnapshotHeader {
            file,
            through: 0,
            partial: 0,
            pieces: 0,
            lead: 0,
            salt,
            extents: 0,
            heads: 0,
        };
        Ok(Self {
            file: File::create(path)?,
            folder: folder.to_owned(),
            header,
            extents: Piece::default(),
            heads: Piece::default(),
            out: Vec::new(),
            offset: LEAD_OFFSET,
            synced: 0,
            table: HashMap::new(),
            segments: Vec::new(),
            oldest_head: (u64::MAX, u64::MAX),
            error: None,
        })
    }

    fn index_of(&mut self, segment: &Arc<Segment>) -> u32 {
        let next = self.segments.len() as u32;
        *self.table.entry(segment.id).or_insert_with(|| {
            self.segments.push(Arc::clone(segment));
            next
        })
    }

    /// Takes a fact that holds. An error is told by `finish`.
    pub fn add(&mut self, fact: &Folded, segment: &Arc<Segment>) {
        if self.error.is_some() {
            return;
        }
        let index = self.index_of(segment);
        let local = |place: &Place| Place {
            shard: 0,
            segment: index,
            ..*place
        };
        let result = match fact {
            Folded::Extent {
                id, window, place, ..
            } => {
                self.header.extents += 1;
                let entry = Entry::Fact(Fact::Extent {
                    object: id.object,
                    version: id.version,
                    stripe: id.index,
                    window: window.clone(),
                    place: local(place),
                });
                self.put(|writer| &mut writer.extents, &entry)
            }
            Folded::Head {
                object,
                version,
                confirmed_unix_ms,
                place,
                ..
            } => {
                self.header.heads += 1;
                let (instance, confirmed) = &mut self.oldest_head;
                *instance = segment.instance.min(*instance);
                *confirmed = (*confirmed_unix_ms).min(*confirmed);
                let entry = Entry::Fact(Fact::Head {
                    object: *object,
                    version: *version,
                    confirmed_unix_ms: *confirmed_unix_ms,
                    place: local(place),
                });
                self.put(|writer| &mut writer.heads, &entry)
            }
        };
        self.error = result.err();
    }

    fn put(
        &mut self,
        piece: impl Fn(&mut Self) -> &mut Piece,
        entry: &Entry<'_>,
    ) -> io::Result<()> {
        if piece(self).push(entry) {
            return Ok(());
        }
        self.end_piece(&piece)?;
        assert!(piece(self).push(entry), "an entry fits an empty block");
        Ok(())
    }

    fn end_piece(&mut self, piece: impl Fn(&mut Self) -> &mut Piece) -> io::Result<()> {
        if piece(self).is_empty() {
            return Ok(());
        }
        let (index, salt) = (self.header.pieces, self.header.salt);
        let mut out = std::mem::take(&mut self.out);
        piece(self).finish(index, salt, &mut out);
        self.out = out;
        self.header.pieces += 1;
        if self.out.len() >= PIECES_AT_ONCE as usize * PIECE_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.out, self.offset)?;
        self.offset += self.out.len() as u64;
        self.out.clear();
        // What the disk refuses is noticed here, and nobody else's writes wait behind hundreds of megabytes.
        if self.offset - self.synced >= SYNC_BYTES {
            self.file.sync_data()?;
            self.synced = self.offset;
        }
        Ok(())
    }

    fn write_lead(&mut self, covers: &Covers, prefixes: &[Prefix]) -> io::Result<()> {
        let first = self.header.pieces;
        for &(shard, next) in &covers.next {
            self.put(|writer| &mut writer.heads, &Entry::Covered { shard, next })?;
        }
        self.end_piece(|writer| &mut writer.heads)?;
        for segment in std::mem::take(&mut self.segments) {
            let (instance, shard, number) = segment.name();
            let entry = Entry::Segment {
                instance,
                shard,
                number,
            };
            self.put(|writer| &mut writer.heads, &entry)?;
        }
        self.end_piece(|writer| &mut writer.heads)?;
        for prefix in prefixes {
            // Every head is younger: nothing is left that it could beat.
            if !prefix.may_beat(self.oldest_head.0, self.oldest_head.1) {
                continue;
            }
            // A shorter one beats more, which costs misses.
            let text = &prefix.prefix[..prefix.prefix.len().min(PREFIX_BYTES_MAX)];
            let entry = Entry::Prefix {
                instance: prefix.instance,
                unix_ms: prefix.unix_ms,
                prefix: text,
            };
            self.put(|writer| &mut writer.heads, &entry)?;
        }
        self.end_piece(|writer| &mut writer.heads)?;
        self.header.lead = self.header.pieces - first;
        Ok(())
    }

    /// Writes the rest, and puts the file into its place; what it stands for may go then.
    ///
    /// # Errors
    /// The kernel's: there is no snapshot.
    pub fn finish(mut self, covers: &Covers, prefixes: &[Prefix]) -> io::Result<SnapshotHeader> {
        let number = self.header.file.number;
        let unfinished = self.folder.join(names::unfinished_snapshot(number));
        let result = self.finish_file(covers, prefixes, &unfinished);
        if result.is_err() {
            let _ = fs::remove_file(&unfinished);
        }
        result.map(|()| self.header)
    }

    fn finish_file(
        &mut self,
        covers: &Covers,
        prefixes: &[Prefix],
        unfinished: &Path,
    ) -> io::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.end_piece(|writer| &mut writer.extents)?;
        self.end_piece(|writer| &mut writer.heads)?;
        self.write_lead(covers, prefixes)?;
        self.flush()?;
        (self.header.through, self.header.partial) = (covers.through, covers.partial);
        self.file.write_all_at(&self.header.encode(), 0)?;
        self.file.flush()?;
        self.file.sync_all()?;
        let name = names::snapshot(self.header.file.number);
        fs::rename(unfinished, self.folder.join(name))?;
        File::open(&self.folder)?.sync_all()
    }
}

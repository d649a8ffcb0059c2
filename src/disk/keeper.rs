//! The keeper of the cache directory: makes and removes files, keeps the budget, says that this instance lives.
//!
//! Runs on a thread of its own, since all it does may block; started by `server`. Segments are granted only while the budget and the filesystem have room for a
//! whole one; to make room the oldest segments go, after every shard has said that it knows nothing of them any more. A keeper that hangs costs copies: shards wait for
//! nothing it does.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use crate::base::clock;
use crate::io::file;
use crate::ram::STRIPE_BYTES;

use super::format::segment::{FileHeader, check_format_text, format_text};
use super::format::{FormatError, VERSION};
use super::ledger::{Bounds, Deed, Ledger};
use super::names::{self, InstanceName};
use super::reclaim::Stream;
use super::{Account, Ask, DiskConfig, News, Segment};

/// How often room is looked for at least.
const TICK: Duration = Duration::from_secs(1);
/// How often the lease is rewritten.
const RENEW_MS: u64 = 2_000;
/// How long a lease lasts that is not locked.
const LEASE_MS: u64 = 10_000;
/// Digits of a lease's time.
const LEASE_DIGITS: usize = 13;
/// How often the lock of a new lease is tried, and how soon again.
const HOLD_TRIES_MAX: usize = 200;
const HOLD_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a journal's first blocks, taken at once so that an invalidation finds room on a full disk.
const JOURNAL_BYTES: u64 = 1 << 20;

/// Why a directory cannot be a cache directory.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The kernel's answer.
    #[error("the cache directory {path}: {source}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// It belongs to another program or version.
    #[error("the cache directory {path} is not one of format version {VERSION}: {source}")]
    Format {
        /// The file `FORMAT`.
        path: PathBuf,
        /// What is wrong with it.
        source: FormatError,
    },
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + '_ {
    |source| DirectoryError::Io {
        path: path.to_owned(),
        source,
    }
}

/// All segments of a directory by instance, shard and number.
pub type Registry = HashMap<(u64, u16, u32), Arc<Segment>>;

/// The directory, opened.
pub struct Keeper {
    config: DiskConfig,
    own: InstanceName,
    folder: PathBuf,
    /// Kept locked while this process lives.
    lease: file::Blocks,
    /// Others, oldest first.
    others: Vec<InstanceName>,
    ledger: Ledger,
    /// Of journals and snapshots; what is being written counts as long as it may become.
    journal_bytes: u64,
    /// Room that a snapshot that is being written was given.
    snapshot_bytes: u64,
    snapshot_wish: Option<(u64, Sender<bool>)>,
    /// Segments made so far, of each shard's logs.
    numbers: Vec<[u32; 2]>,
    journals: Vec<u32>,
    renewed_ms: u64,
}

/// Writes `FORMAT` if nobody has, and checks it. It appears whole; an empty one is of somebody who died over it, and counts as none.
fn claim(dir: &Path) -> Result<(), DirectoryError> {
    let path = dir.join(names::FORMAT);
    let is_there = match fs::metadata(&path) {
        Ok(found) => found.len() > 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(at(&path)(error)),
    };
    if !is_there {
        let unfinished = dir.join(format!("{}.{}", names::FORMAT, std::process::id()));
        let text = format_text(STRIPE_BYTES);
        let made = fs::File::create(&unfinished)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
            })
            .and_then(|()| fs::rename(&unfinished, &path));
        made.map_err(|error| {
            let _ = fs::remove_file(&unfinished);
            at(&path)(error)
        })?;
    }
    check(dir)
}

/// Takes the lock of a lease for as long as it is open. Somebody may be looking whether it is held ([`is_alive`]) and have it for a moment: a server that
/// went without would be dead to all others. A filesystem without locks has a lease with a time only.
pub(super) fn hold(lease: &fs::File) -> bool {
    for _ in 0..HOLD_TRIES_MAX {
        match lease.try_lock() {
            Ok(()) => return true,
            Err(fs::TryLockError::Error(_)) => return false,
            Err(fs::TryLockError::WouldBlock) => std::thread::park_timeout(HOLD_PAUSE),
        }
    }
    false
}

/// The instances of a directory, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn instances(dir: &Path) -> Result<Vec<InstanceName>, DirectoryError> {
    let folder = dir.join(names::INSTANCES);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(at(&folder))? {
        let entry = entry.map_err(at(&folder))?;
        found.extend(entry.file_name().to_str().and_then(InstanceName::parse));
    }
    found.sort();
    Ok(found)
}

/// The files of a folder whose names `parse` knows, with their length, in order of number and shard.
///
/// # Errors
/// The folder cannot be read.
pub fn files(
    folder: &Path,
    parse: impl Fn(&str) -> Option<(u16, u32)>,
) -> Result<Vec<(u16, u32, PathBuf, u64)>, DirectoryError> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(at(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(at(folder))?;
        let Some((shard, number)) = entry.file_name().to_str().and_then(&parse) else {
            continue;
        };
        // A file that goes while it is looked at is not there.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        found.push((shard, number, entry.path(), metadata.len()));
    }
    found.sort_by_key(|&(shard, number, ..)| (number, shard));
    Ok(found)
}

/// A segment that somebody has left.
pub struct Found {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Bytes of its file.
    pub bytes: u64,
}

/// The segments of these instances, in their order, numbered from 0.
///
/// # Errors
/// A folder cannot be read.
pub fn segments(dir: &Path, instances: &[InstanceName]) -> Result<Vec<Found>, DirectoryError> {
    let mut found = Vec::new();
    for name in instances {
        let folder = name.folder(dir).join(names::SEGMENTS);
        for (shard, number, path, bytes) in files(&folder, names::parse_segment)? {
            let segment = Arc::new(Segment {
                id: found.len() as u32,
                path,
                instance: name.number,
                shard,
                number,
                account: Account::default(),
            });
            found.push(Found { segment, bytes });
        }
    }
    Ok(found)
}

/// Whether a directory is one that this program can read.
///
/// # Errors
/// It is not there, or of another format.
pub fn check(dir: &Path) -> Result<(), DirectoryError> {
    let path = dir.join(names::FORMAT);
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    check_format_text(&text, STRIPE_BYTES).map_err(|source| DirectoryError::Format { path, source })
}

/// Whether a process holds the lease of an instance: has it locked, or, where a server has the files or there are no locks, has rewritten it a moment ago.
#[must_use]
pub fn is_alive(dir: &Path, name: &InstanceName) -> bool {
    let Ok(lease) = fs::File::open(name.folder(dir).join(names::LEASE)) else {
        return false;
    };
    if file::is_on_a_device(lease.as_raw_fd()) {
        match lease.try_lock() {
            Ok(()) => return false,
            Err(fs::TryLockError::WouldBlock) => return true,
            Err(fs::TryLockError::Error(_)) => {}
        }
    }
    let mut text = [0; LEASE_DIGITS];
    let read = lease.read_exact_at(&mut text, 0);
    let text = read.ok().and_then(|()| std::str::from_utf8(&text).ok());
    let renewed_ms = text.and_then(|text| text.parse::<u64>().ok());
    renewed_ms.is_some_and(|renewed_ms| clock::unix_ms().abs_diff(renewed_ms) < LEASE_MS)
}

fn lease_text() -> String {
    format!("{:013}\n", clock::unix_ms())
}

impl Keeper {
    /// Opens the directory, makes this process's folder, and looks at what others have left.
    ///
    /// # Errors
    /// It cannot be read or written, or is of another format.
    pub fn open(config: DiskConfig) -> Result<Self, DirectoryError> {
        let top = config.dir.join(names::INSTANCES);
        fs::create_dir_all(&top).map_err(at(&top))?;
        claim(&config.dir)?;
        let youngest = instances(&config.dir)?;
        let youngest = youngest.last().map_or(0, |name| name.number);
        let own = InstanceName {
            number: clock::unix_ms().max(youngest + 1),
            random: crate::base::prng::mix64(clock::now_ns() ^ u64::from(std::process::id()) << 32)
                as u32,
        };
        let folder = own.folder(&config.dir);
        let segments = folder.join(names::SEGMENTS);
        fs::create_dir_all(&segments).map_err(at(&segments))?;
        let lease_path = folder.join(names::LEASE);
        let lease = file::Blocks::create(&lease_path).map_err(at(&lease_path))?;
        lease
            .write_first(lease_text().as_bytes())
            .map_err(at(&lease_path))?;
        // Giving a lock back asks a server, and a process whose server is gone would not end: there the time in the lease says who lives.
        if file::is_on_a_device(lease.file().as_raw_fd()) {
            let _or_by_time = hold(lease.file());
        }
        let admin_path = folder.join(names::ADMIN);
        fs::write(&admin_path, &config.contact).map_err(at(&admin_path))?;
        // Looked at behind the lock: who writes facts while no server holds a lease looks for one again afterwards.
        let mut others = instances(&config.dir)?;
        others.retain(|name| *name != own);
        let shards = config.shards;
        let ledger = Ledger::new(Bounds {
            budget_bytes: config.budget_bytes,
            reserve_bytes: config.reserve_bytes,
            segment_bytes: config.segment_bytes,
            shards,
            active: config.active_expiry,
        });
        let mut keeper = Self {
            config,
            own,
            folder,
            lease,
            others,
            ledger,
            journal_bytes: 0,
            snapshot_bytes: 0,
            snapshot_wish: None,
            numbers: vec![[0; 2]; shards],
            journals: vec![0; shards],
            renewed_ms: 0,
        };
        keeper.renew();
        keeper.take_stock()?;
        keeper.spare();
        Ok(keeper)
    }

    fn take_stock(&mut self) -> Result<(), DirectoryError> {
        for Found { segment, bytes } in segments(&self.config.dir, &self.others)? {
            self.ledger.found(segment, bytes);
        }
        self.count_journals();
        Ok(())
    }

    /// Counts journals and snapshots; what cannot be looked at is as it was.
    fn count_journals(&mut self) {
        let mut bytes = 0;
        for name in self.others.iter().chain([&self.own]) {
            let Ok(found) = files(&name.folder(&self.config.dir), parse_telling) else {
                return;
            };
            for (shard, number, _, length) in found {
                let next = self.journals.get(usize::from(shard)).copied();
                let open = *name == self.own && next == Some(number + 1);
                bytes += match open {
                    true => length.max(self.config.journal_bytes),
                    false => length,
                };
            }
        }
        self.journal_bytes = bytes;
    }

    fn taken_bytes(&mut self) -> u64 {
        self.ledger
            .set_other_bytes(self.journal_bytes + self.snapshot_bytes);
        self.ledger.taken_bytes()
    }

    /// Room for a snapshot, if there is some by now or no segment can go for it.
    fn answer_snapshot(&mut self, tell: &impl Fn(usize, News)) {
        let Some((bytes, _)) = self.snapshot_wish else {
            return;
        };
        let within = self.taken_bytes() + bytes <= self.config.budget_bytes;
        let space = file::space(&self.folder).map_or(0, |space| space.free_bytes);
        let fits = within && space >= self.config.reserve_bytes + bytes;
        if !fits && bytes <= self.config.budget_bytes / 2 && self.reclaim_one(tell) {
            return;
        }
        if let Some((_, answer)) = self.snapshot_wish.take() {
            let told = answer.send(fits).is_ok();
            self.snapshot_bytes = if fits && told { bytes } else { 0 };
        }
    }

    /// Instances whose journals are to be read, oldest first.
    #[must_use]
    pub fn others(&self) -> &[InstanceName] {
        &self.others
    }

    /// The instance of this process.
    #[must_use]
    pub fn own(&self) -> &InstanceName {
        &self.own
    }

    /// Every segment there is.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let all = self.ledger.segments();
        all.map(|segment| (segment.name(), Arc::clone(segment)))
            .collect()
    }

    /// Serves shards until the process ends.
    pub fn run(mut self, asks: &Receiver<Ask>, tell: impl Fn(usize, News), note: impl Fn(&Ledger)) {
        self.remove_empty();
        for shard in 0..self.config.shards {
            self.give_journal(shard, &tell);
        }
        loop {
            match asks.recv_timeout(TICK) {
                Ok(ask) => self.answer(ask, &tell),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if clock::now_ms() >= self.renewed_ms + RENEW_MS {
                self.renew();
                self.spare();
                self.count_journals();
            }
            self.answer_snapshot(&tell);
            self.settle(&tell);
            note(&self.ledger);
        }
    }

    fn answer(&mut self, ask: Ask, tell: &impl Fn(usize, News)) {
        match ask {
            Ask::Journal(shard) => self.give_journal(shard, tell),
            Ask::Segment(shard, stream) => self.ledger.wish(shard, stream),
            Ask::FoldEnded => self.ledger.fold_ended(),
            Ask::Sealed(id, bytes) => self.sealed(id, bytes),
            Ask::Trim(id, bytes) => self.trim(id, bytes),
            Ask::Snapshot(bytes, answer) => self.snapshot_wish = Some((bytes, answer)),
            Ask::Compacted => {
                self.snapshot_bytes = 0;
                self.remove_empty();
                self.remove_hollow();
                self.count_journals();
            }
            Ask::Released(id, _) => {
                if self.ledger.released(id) {
                    self.remove(id);
                }
            }
        }
    }

    /// Segments of processes that live are not ours to remove.
    fn spare(&mut self) {
        let dir = &self.config.dir;
        let alive = self.others.iter().filter(|name| is_alive(dir, name));
        let alive = alive.map(|name| name.number).collect();
        self.ledger.set_spared(alive);
    }

    fn renew(&mut self) {
        self.renewed_ms = clock::now_ms();
        let text = lease_text();
        if let Err(error) = self.lease.write_first(text.as_bytes()) {
            tracing::warn!(%error, "the lease of the cache directory cannot be written");
        }
    }

    /// The header of a new file of this run.
    fn header(&self, shard: usize, number: u32) -> FileHeader {
        FileHeader {
            instance: self.own.number,
            shard: shard as u16,
            number,
            created_unix_ms: clock::unix_ms(),
        }
    }

    fn give_journal(&mut self, shard: usize, tell: &impl Fn(usize, News)) {
        let number = self.journals[shard];
        self.journals[shard] += 1;
        let path = self.folder.join(names::journal(shard as u16, number));
        let header = self.header(shard, number).journal();
        match new_file(&path, &header, JOURNAL_BYTES) {
            Ok(()) => {
                self.count_journals();
                tell(shard, News::Journal(path, header));
            }
            Err(error) => {
                tracing::warn!(%error, "no journal can be made: nothing is kept on disk");
                tell(shard, News::NoJournal);
            }
        }
    }

    /// Does what the ledger says.
    fn settle(&mut self, tell: &impl Fn(usize, News)) {
        loop {
            self.taken_bytes();
            // If that cannot be said, nothing is granted, and nothing goes for it.
            let space = file::space(&self.folder);
            let free_bytes = space.map_or(self.config.reserve_bytes, |space| space.free_bytes);
            let Some(deed) = self.ledger.next_deed(free_bytes) else {
                return;
            };
            self.carry_out(deed, tell);
        }
    }

    fn carry_out(&mut self, deed: Deed, tell: &impl Fn(usize, News)) {
        match deed {
            Deed::Refuse(shard, stream) => tell(shard, News::Refused(stream)),
            Deed::Reclaim(segment, why) => {
                for shard in 0..self.config.shards {
                    tell(shard, News::Reclaim(Arc::clone(&segment), why));
                }
            }
            Deed::Make(shard, stream) => match self.new_segment(shard, stream) {
                Ok(segment) => tell(shard, News::Granted(segment)),
                Err(error) => {
                    tracing::warn!(%error, "no segment can be made: copies are dropped");
                    tell(shard, News::Refused(stream));
                    self.reclaim_one(tell);
                }
            },
        }
    }

    /// Has a segment go; false if there is none that can.
    fn reclaim_one(&mut self, tell: &impl Fn(usize, News)) -> bool {
        if self.ledger.is_going() {
            return true;
        }
        let Some(deed) = self.ledger.relieve() else {
            return false;
        };
        self.carry_out(deed, tell);
        true
    }

    fn new_segment(
        &mut self,
        shard: usize,
        stream: Stream,
    ) -> Result<Arc<Segment>, DirectoryError> {
        let count = &mut self.numbers[shard][stream as usize];
        let number = stream.number(*count);
        *count += 1;
        let header = self.header(shard, number);
        let path = self
            .folder
            .join(names::SEGMENTS)
            .join(names::segment(shard as u16, number));
        new_file(&path, &header.segment(), self.config.segment_bytes)?;
        let segment = Arc::new(Segment {
            id: self.ledger.next_id(),
            path,
            instance: self.own.number,
            shard: shard as u16,
            number,
            account: Account::default(),
        });
        self.ledger.made(Arc::clone(&segment));
        Ok(segment)
    }

    fn sealed(&mut self, id: u32, bytes: u64) {
        let Some((segment, room)) = self.ledger.file(id) else {
            return;
        };
        let cut = fs::OpenOptions::new()
            .write(true)
            .open(&segment.path)
            .and_then(|file| file.set_len(bytes));
        match cut {
            Ok(()) => self.ledger.sealed(id, bytes),
            Err(error) => {
                tracing::warn!(%error, "a segment keeps more room than it needs");
                self.ledger.sealed(id, room);
            }
        }
    }

    /// A process that died had taken room for more than it wrote.
    fn trim(&mut self, id: u32, bytes: u64) {
        let Some((segment, room)) = self.ledger.file(id) else {
            return;
        };
        let instance = segment.instance;
        let dir = &self.config.dir;
        let alive = |name: &&InstanceName| name.number == instance && is_alive(dir, name);
        let whole = self.ledger.is_whole(id);
        if whole && bytes < room && !self.others.iter().any(|name| alive(&name)) {
            self.sealed(id, bytes);
        }
    }

    fn remove(&mut self, id: u32) {
        let Some((segment, _)) = self.ledger.file(id) else {
            return;
        };
        match fs::remove_file(&segment.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(%error, "a segment cannot be removed"),
        }
        self.ledger.removed(id);
        self.remove_empty();
    }

    /// Instances go that have neither segments, nor journals, nor a snapshot.
    fn remove_hollow(&mut self) {
        let dir = &self.config.dir;
        let ledger = &self.ledger;
        self.others.retain(|name| {
            let told = files(&name.folder(dir), parse_telling);
            let used = !told.is_ok_and(|told| told.is_empty())
                || ledger
                    .segments()
                    .any(|segment| segment.instance == name.number)
                || is_alive(dir, name);
            if !used && let Err(error) = fs::remove_dir_all(name.folder(dir)) {
                tracing::warn!(%error, "an old instance's folder cannot be removed");
            }
            used
        });
    }

    /// The oldest instances go when they have no segment left: what their journals say is of no use to anybody.
    fn remove_empty(&mut self) {
        while let Some(oldest) = self.others.first() {
            let of_it = |segment: &Arc<Segment>| segment.instance == oldest.number;
            let has_segments = self.ledger.segments().any(of_it);
            if has_segments || is_alive(&self.config.dir, oldest) {
                return;
            }
            let folder = oldest.folder(&self.config.dir);
            if let Err(error) = fs::remove_dir_all(&folder) {
                tracing::warn!(%error, "an old instance's folder cannot be removed");
            }
            self.others.remove(0);
            self.count_journals();
        }
    }
}

/// Shard and number of a journal, or nothing much and the number of a snapshot.
fn parse_telling(text: &str) -> Option<(u16, u32)> {
    let snapshot = names::parse_snapshot(text).map(|number| (u16::MAX, number));
    names::parse_journal(text).or(snapshot)
}

fn new_file(path: &Path, first: &[u8], bytes: u64) -> Result<(), DirectoryError> {
    let file = file::Blocks::create(path).map_err(at(path))?;
    let made = file::preallocate(file.file(), bytes)
        .and_then(|()| file.write_first(first))
        .and_then(|()| file.file().sync_all());
    made.map_err(|error| {
        let _ = fs::remove_file(path);
        at(path)(error)
    })
}

/// Bytes that the segments of a directory take; 0 where there is none.
#[must_use]
pub fn taken_bytes(dir: &Path) -> u64 {
    let folders = instances(dir).unwrap_or_default();
    let folders = folders
        .iter()
        .map(|name| name.folder(dir).join(names::SEGMENTS));
    let segments =
        folders.flat_map(|folder| files(&folder, names::parse_segment).unwrap_or_default());
    segments.map(|(.., bytes)| bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("millrace-keeper-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_directory_whose_maker_died_over_its_format_is_one_all_the_same() {
        let dir = folder("format");
        fs::write(dir.join(names::FORMAT), "").unwrap();
        claim(&dir).unwrap();
        check(&dir).unwrap();
        fs::write(dir.join(names::FORMAT), "something else\n").unwrap();
        assert!(claim(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_lease_is_held_though_somebody_looked_at_it_at_that_moment() {
        let dir = folder("lease");
        let path = dir.join(names::LEASE);
        let lease = fs::File::create(&path).unwrap();
        let look = fs::File::open(&path).unwrap();
        look.try_lock().unwrap();
        let looking = std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(30));
            drop(look);
        });
        assert!(hold(&lease));
        looking.join().unwrap();
        assert!(fs::File::open(&path).unwrap().try_lock().is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}

//! The threads of the disk tier: the keeper, which does what blocks, and the fold, which reads what older instances left.
//!
//! Called by `boot`. Both reach shards only through their mailboxes. A directory that does not answer at start is opened behind the server's back: clients are served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::base::clock;
use crate::config::Settings;
use crate::disk::compact::Compactor;
use crate::disk::fold::{Fold, Listener, Prefix, Tally};
use crate::disk::keeper::{Keeper, Registry};
use crate::disk::names::InstanceName;
use crate::disk::unrecorded::Unrecorded;
use crate::disk::{Ask, Batch, DiskConfig, Folded, News, Segment};
use crate::io::file;
use crate::metrics::{Counter, Gauge};
use crate::shard::disk::DiskParts;
use crate::shard::message::Message;
use crate::shard::{World, routing};

use super::boot::resource;
use super::handover::Gone;
use super::limits::{self, Limits};
use super::{ServerError, wait_until};

/// How long the start waits for the directory.
const OPEN_MS: u64 = 5_000;
/// Facts in one message, and messages that a shard may have of them: what it takes in without keeping clients waiting.
const BATCH: usize = 256;
const BATCHES: usize = 4;
/// How often the fold says how far it is.
const SAY_MS: u64 = 2_000;
/// How often journals are looked at, and how soon again after a snapshot could not be made.
const COMPACT_MS: u64 = 5_000;
const COMPACT_AGAIN_MS: u64 = 60_000;
/// How often it is looked whether what was overwritten during a hand-over is on disk, and how soon again.
const SETTLE_TRIES_MAX: u32 = 100;
const SETTLE_MS: u64 = 500;
/// How long the keeper may take to make room for a snapshot.
const ROOM_MS: u64 = 30_000;

/// What the thread of the fold talks to: shards, and the keeper.
type Ends<'e> = (&'e World, &'e Sender<Ask>);

/// The disk tier of a server that starts.
pub(super) struct DiskThreads {
    config: Arc<DiskConfig>,
    asks: Sender<Ask>,
    asks_end: Option<Receiver<Ask>>,
    unrecorded: Option<Unrecorded>,
}

/// Bytes that the filesystem of a directory that may not be there yet has free.
fn free_bytes(dir: &Path) -> u64 {
    let existing = dir.ancestors().find(|path| path.exists());
    let space = file::space(existing.unwrap_or(Path::new(".")));
    let own = crate::disk::keeper::taken_bytes(dir);
    space.map_or(0, |space| space.free_bytes) + own
}

/// The same, if the directory answers; what asks it is left to it otherwise.
fn free_bytes_in_time(dir: PathBuf) -> Option<u64> {
    let (found, end) = channel();
    let body = move || {
        let _ = found.send(free_bytes(&dir));
    };
    let asking = std::thread::Builder::new()
        .name("disk".to_owned())
        .spawn(body);
    asking.ok()?;
    end.recv_timeout(Duration::from_millis(OPEN_MS)).ok()
}

impl DiskThreads {
    /// `None` without a cache directory. `contact`: how the tools find this process.
    pub(super) fn open(
        settings: &Settings,
        limits: &Limits,
        contact: String,
    ) -> Result<Option<Self>, ServerError> {
        let free = match (&settings.disk.dir, settings.disk.size_bytes) {
            (Some(dir), 0) => match free_bytes_in_time(dir.clone()) {
                Some(free) => free,
                None => {
                    tracing::error!(
                        dir = %dir.display(),
                        "the cache directory does not answer, and disk.size does not say what may be taken: there is no disk tier"
                    );
                    return Ok(None);
                }
            },
            _ => 0,
        };
        let Some(config) = limits::disk(settings, limits, free)? else {
            return Ok(None);
        };
        let config = DiskConfig { contact, ..config };
        let (asks, asks_end) = channel();
        Ok(Some(Self {
            config: Arc::new(config),
            asks,
            asks_end: Some(asks_end),
            unrecorded: None,
        }))
    }

    /// What one shard is given.
    pub(super) fn parts(&self) -> DiskParts {
        DiskParts {
            config: Arc::clone(&self.config),
            asks: self.asks.clone(),
        }
    }

    /// Marks the directory for those who come after this process, which is about to take writes while another one has the directory.
    ///
    /// # Errors
    /// It cannot be written. One that does not answer keeps nobody waiting for longer.
    pub(super) fn mark(&mut self) -> Result<(), ServerError> {
        let (made, made_end) = channel();
        let dir = self.config.dir.clone();
        let body = move || {
            let _ = made.send(Unrecorded::begin(&dir));
        };
        let thread = std::thread::Builder::new().name("disk".to_owned());
        let thread = thread.spawn(body);
        thread.map_err(resource("no thread for the disk"))?;
        match made_end.recv_timeout(Duration::from_millis(OPEN_MS)) {
            Ok(mark) => {
                let mark = mark.map_err(resource("the cache directory cannot be marked"))?;
                self.unrecorded = Some(mark);
            }
            Err(_) => tracing::warn!(
                "the cache directory does not answer: if this process dies before it does, old copies there can come back"
            ),
        }
        Ok(())
    }

    /// Opens the directory, and starts to keep and to fold it: when the process before this one has ended, if there is one.
    pub(super) fn start(
        &mut self,
        world: &Arc<World>,
        after: Option<Gone>,
    ) -> Result<(), ServerError> {
        let Some(asks) = self.asks_end.take() else {
            return Ok(());
        };
        let (opened, opened_end) = channel();
        let (config, world) = (Arc::clone(&self.config), Arc::clone(world));
        let trims = self.asks.clone();
        let at_once = after.is_none();
        let mark = self.unrecorded.take();
        let body = move || {
            if let Some(after) = after {
                after.wait();
            }
            keep((&config, mark), &world, (&asks, &trims), &opened);
        };
        std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(body)
            .map_err(|source| ServerError::Resource {
                what: "no thread for the disk",
                source,
            })?;
        if !at_once {
            return Ok(());
        }
        match opened_end.recv_timeout(Duration::from_millis(OPEN_MS)) {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(
                    "the cache directory does not answer: nothing is on disk until it does"
                );
                Ok(())
            }
        }
    }
}

fn keep(
    (config, mark): (&DiskConfig, Option<Unrecorded>),
    world: &Arc<World>,
    (asks, trims): (&Receiver<Ask>, &Sender<Ask>),
    opened: &Sender<Result<(), ServerError>>,
) {
    let keeper = match Keeper::open(config.clone()) {
        Ok(keeper) => keeper,
        Err(error) => {
            tracing::error!(%error, "there is no disk tier");
            let _ = opened.send(Err(error.into()));
            return;
        }
    };
    tracing::info!(
        dir = %config.dir.display(),
        budget_bytes = config.budget_bytes,
        segment_bytes = config.segment_bytes,
        instances = keeper.others().len(),
        "the cache directory is open"
    );
    doubt(&config.dir, mark.as_ref(), world);
    let _ = opened.send(Ok(()));
    let (registry, own) = (keeper.registry(), keeper.own().clone());
    let (folding, there) = (Arc::clone(world), config.clone());
    let trims = trims.clone();
    let body = move || {
        fold(&there, &own, &registry, (&folding, &trims));
        drop(registry);
        if let Some(mark) = mark {
            settle(mark, &folding);
        }
        compact(&there, &own, (&folding, &trims));
    };
    if let Err(error) = std::thread::Builder::new()
        .name("fold".to_owned())
        .spawn(body)
    {
        tracing::error!(%error, "no thread for the fold: what is on disk is not found");
    }
    let world = Arc::clone(world);
    let registry = Arc::clone(&world.registry);
    keeper.run(
        asks,
        |shard, news| tell(&world, shard, news),
        |ledger| {
            let metrics = registry.global();
            metrics.gauge_set(Gauge::DiskUsedBytes, ledger.taken_bytes());
            metrics.gauge_set(Gauge::DiskUselessBytes, ledger.useless_bytes());
        },
    );
}

/// What is on disk may be older than what a process that has died was told: all of it is asked about.
fn doubt(dir: &Path, mark: Option<&Unrecorded>, world: &World) {
    let until_ms = match mark {
        Some(mark) => mark.is_behind_another().then(clock::unix_ms),
        None => Unrecorded::found(dir),
    };
    let Some(until_ms) = until_ms else { return };
    tracing::info!(
        "a hand-over was cut off here: copies of before are asked about before they are used"
    );
    // While another process takes over everything is in doubt anyway, and afterwards too.
    if !world.doubt.is_about_all() {
        let age_ms = clock::unix_ms().saturating_sub(until_ms);
        world
            .doubt
            .only(i64::MIN, clock::now_ms() as i64 - age_ms as i64);
    }
}

/// Takes the mark away when all shards have written down what they were told before they had journals.
fn settle(mark: Unrecorded, world: &World) {
    for _ in 0..SETTLE_TRIES_MAX {
        let flushed = |shard| {
            let (done, done_end) = channel();
            tell(world, shard, News::Flush(done));
            done_end.recv().unwrap_or(false)
        };
        // The next process may be making its own mark.
        if (0..world.shards.len()).all(flushed) && !world.doubt.is_about_all() {
            if let Err(error) = mark.settle() {
                tracing::warn!(%error, "the mark of the hand-over stays");
            }
            return;
        }
        wait_until(clock::now_ms() + SETTLE_MS, || false);
    }
    tracing::warn!("not all that was overwritten during the hand-over is on disk: its mark stays");
}

fn tell(world: &World, shard: usize, news: News) {
    let mut message = Message::Disk(news);
    while let Err(back) = world.shards[shard].mailbox.push(message) {
        message = back;
        wait_until(clock::now_ms() + 1, || false);
    }
}

/// Facts on their way to the shards that own what they are about.
struct Batches<'w> {
    world: &'w World,
    waiting: Vec<Vec<Folded>>,
    segments: Vec<Vec<Arc<Segment>>>,
    /// Memory that came back, for each shard.
    free: Vec<Vec<Vec<Folded>>>,
    back: Sender<(usize, Vec<Folded>)>,
    back_end: Receiver<(usize, Vec<Folded>)>,
    begun_ms: u64,
    said_ms: u64,
}

impl<'w> Batches<'w> {
    fn new(world: &'w World) -> Self {
        let shards = world.shards.len();
        let (back, back_end) = channel();
        let buffers = || (0..BATCHES).map(|_| Vec::with_capacity(BATCH)).collect();
        Self {
            world,
            waiting: (0..shards).map(|_| Vec::with_capacity(BATCH)).collect(),
            segments: vec![Vec::new(); shards],
            free: (0..shards).map(|_| buffers()).collect(),
            back,
            back_end,
            begun_ms: clock::now_ms(),
            said_ms: clock::now_ms(),
        }
    }

    /// Memory for a shard; waits until that shard has taken in what it was sent.
    fn buffer(&mut self, shard: usize) -> Vec<Folded> {
        loop {
            while let Ok((whose, memory)) = self.back_end.try_recv() {
                self.free[whose].push(memory);
            }
            if let Some(memory) = self.free[shard].pop() {
                return memory;
            }
            if let Ok((whose, memory)) = self.back_end.recv() {
                self.free[whose].push(memory);
            }
        }
    }

    fn send(&mut self, shard: usize) {
        if self.waiting[shard].is_empty() {
            return;
        }
        let next = self.buffer(shard);
        let facts = std::mem::replace(&mut self.waiting[shard], next);
        let count = facts.len() as u64;
        let batch = Batch {
            facts,
            segments: std::mem::take(&mut self.segments[shard]),
            shard,
            back: self.back.clone(),
        };
        tell(self.world, shard, News::Folded(batch));
        let metrics = self.world.registry.global();
        metrics.add(Counter::DiskFolded, count);
    }

    fn all(&mut self) {
        (0..self.waiting.len()).for_each(|shard| self.send(shard));
    }
}

impl Listener for Batches<'_> {
    fn fact(&mut self, fact: Folded, segment: &Arc<Segment>) {
        let shards = self.world.shards.len();
        let owner = match &fact {
            Folded::Extent { id, .. } => routing::owner_of(id.object, id.index, shards),
            Folded::Head { object, .. } => routing::head_owner(*object, shards),
        };
        let known = &mut self.segments[owner];
        // Facts come a segment at a time: looking at the last few is enough, and one too many does no harm.
        if !known
            .iter()
            .rev()
            .take(4)
            .any(|known| known.id == segment.id)
        {
            known.push(Arc::clone(segment));
        }
        self.waiting[owner].push(fact);
        if self.waiting[owner].len() >= BATCH {
            self.send(owner);
        }
    }

    fn prefix(&mut self, prefix: &Prefix) {
        for shard in 0..self.waiting.len() {
            tell(self.world, shard, News::Prefixes(vec![prefix.clone()]));
        }
    }

    fn progress(&mut self, tally: &Tally) {
        let metrics = self.world.registry.global();
        let percent = tally.bytes.min(tally.of_bytes) * 100 / tally.of_bytes.max(1);
        metrics.gauge_set(Gauge::DiskFoldBytes, tally.of_bytes);
        metrics.gauge_set(Gauge::DiskFoldedBytes, tally.bytes);
        let now_ms = clock::now_ms();
        if now_ms >= self.said_ms + SAY_MS {
            self.said_ms = now_ms;
            tracing::info!(
                percent,
                journals = tally.journals,
                snapshots = tally.snapshots,
                bytes = tally.bytes,
                of_bytes = tally.of_bytes,
                facts = tally.facts,
                took_ms = now_ms - self.begun_ms,
                "reading what is on disk"
            );
        }
    }
}

/// Tells the shards what journals and snapshots say; true if all of them could be read.
fn fold(config: &DiskConfig, own: &InstanceName, registry: &Registry, (world, asks): Ends<'_>) {
    let mut fold = Fold::new(registry, Batches::new(world));
    if let Err(error) = fold.directory(&config.dir, own.number) {
        tracing::error!(%error, "what is on disk is not found");
    }
    let (tally, ends) = (fold.tally(), fold.ends());
    // A segment is cut behind what is known of it, if everything is known that is there to be known.
    if tally.unread + tally.torn == 0 {
        for (segment, bytes) in ends {
            let _ = asks.send(Ask::Trim(segment, bytes));
        }
    }
    let (mut batches, _) = fold.finish();
    batches.all();
    for shard in 0..world.shards.len() {
        tell(world, shard, News::FoldEnded);
    }
    let metrics = world.registry.global();
    metrics.gauge_set(Gauge::DiskFoldBytes, tally.bytes);
    metrics.add(Counter::DiskTorn, tally.torn);
    tracing::info!(
        journals = tally.journals,
        snapshots = tally.snapshots,
        facts = tally.facts,
        bytes = tally.bytes,
        torn = tally.torn,
        took_ms = clock::now_ms() - batches.begun_ms,
        "what is on disk is known"
    );
}

/// Makes snapshots of journals that are closed, until the process ends.
fn compact(config: &DiskConfig, own: &InstanceName, (world, asks): Ends<'_>) {
    let metrics = world.registry.global();
    let mut compactor = Compactor::new(&config.dir, own);
    if let Err(error) = compactor.clean() {
        tracing::warn!(%error, "unfinished snapshots stay");
    }
    loop {
        let begun_ms = clock::now_ms();
        let room = |bytes| {
            let (answer, answer_end) = channel();
            let _ = asks.send(Ask::Snapshot(bytes, answer));
            let wait = Duration::from_millis(ROOM_MS);
            answer_end.recv_timeout(wait).unwrap_or(false)
        };
        let done = compactor.turn(room);
        if !matches!(done, Ok(None)) {
            let _ = asks.send(Ask::Compacted);
        }
        let pause_ms = match done {
            Ok(None) => COMPACT_MS,
            Ok(Some(done)) => {
                metrics.count(Counter::DiskSnapshots);
                metrics.add(Counter::DiskSnapshotBytes, done.bytes);
                tracing::info!(
                    journals = done.journals,
                    extents = done.extents,
                    heads = done.heads,
                    bytes = done.bytes,
                    took_ms = clock::now_ms() - begun_ms,
                    "journals are one snapshot now"
                );
                COMPACT_MS
            }
            Err(error) => {
                metrics.count(Counter::DiskSnapshotFailures);
                tracing::warn!(%error, "journals stay as they are");
                COMPACT_AGAIN_MS
            }
        };
        wait_until(clock::now_ms() + pause_ms, || false);
    }
}

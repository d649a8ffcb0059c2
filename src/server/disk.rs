//! The threads of the disk tier: the keeper, which does what blocks, and the fold, which reads what older instances left.
//!
//! Called by `boot`. Both reach shards only through their mailboxes. A directory that does not answer at start is opened behind the server's back: clients are served.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::base::clock;
use crate::config::Settings;
use crate::disk::fold::{Fold, Prefix};
use crate::disk::keeper::{Keeper, Registry};
use crate::disk::names::InstanceName;
use crate::disk::{Ask, DiskConfig, Folded, News};
use crate::io::file;
use crate::metrics::Gauge;
use crate::shard::disk::DiskParts;
use crate::shard::message::Message;
use crate::shard::{World, routing};

use super::limits::{self, Limits};
use super::{ServerError, wait_until};

/// How long the start waits for the directory.
const OPEN_MS: u64 = 5_000;
/// Facts in one message: what a shard takes in without keeping clients waiting.
const BATCH: usize = 512;
/// How often the fold says how far it is.
const SAY_MS: u64 = 2_000;

/// The disk tier of a server that starts.
pub(super) struct DiskThreads {
    config: Arc<DiskConfig>,
    asks: Sender<Ask>,
    asks_end: Option<Receiver<Ask>>,
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
    /// `None` without a cache directory.
    pub(super) fn open(settings: &Settings, limits: &Limits) -> Result<Option<Self>, ServerError> {
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
        let (asks, asks_end) = channel();
        Ok(Some(Self {
            config: Arc::new(config),
            asks,
            asks_end: Some(asks_end),
        }))
    }

    /// What one shard is given.
    pub(super) fn parts(&self) -> DiskParts {
        DiskParts {
            config: Arc::clone(&self.config),
            asks: self.asks.clone(),
        }
    }

    /// Opens the directory, and starts to keep and to fold it.
    pub(super) fn start(&mut self, world: &Arc<World>) -> Result<(), ServerError> {
        let Some(asks) = self.asks_end.take() else {
            return Ok(());
        };
        let (opened, opened_end) = channel();
        let (config, world) = (Arc::clone(&self.config), Arc::clone(world));
        let trims = self.asks.clone();
        let body = move || keep(&config, &world, (&asks, &trims), &opened);
        std::thread::Builder::new()
            .name("disk".to_owned())
            .spawn(body)
            .map_err(|source| ServerError::Resource {
                what: "no thread for the disk",
                source,
            })?;
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
    config: &DiskConfig,
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
    let _ = opened.send(Ok(()));
    let (registry, others) = (keeper.registry(), keeper.others().to_vec());
    let (dir, folding) = (config.dir.clone(), Arc::clone(world));
    let trims = trims.clone();
    let body = move || fold(&dir, &others, &registry, (&folding, &trims));
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
        |bytes| registry.global().gauge_set(Gauge::DiskUsedBytes, bytes),
    );
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
}

impl Batches<'_> {
    fn add(&mut self, fact: Folded) {
        let shards = self.world.shards.len();
        let owner = match &fact {
            Folded::Extent { id, .. } => routing::owner_of(id.object, id.index, shards),
            Folded::Head { object, .. } => routing::head_owner(*object, shards),
        };
        self.waiting[owner].push(fact);
        if self.waiting[owner].len() >= BATCH {
            self.send(owner);
        }
    }

    fn send(&mut self, shard: usize) {
        let facts = std::mem::take(&mut self.waiting[shard]);
        if !facts.is_empty() {
            tell(self.world, shard, News::Folded(facts));
        }
    }
}

fn fold(
    dir: &Path,
    others: &[InstanceName],
    registry: &Registry,
    (world, trims): (&World, &Sender<Ask>),
) {
    let begun_ms = clock::now_ms();
    let shards = world.shards.len();
    let mut batches = Batches {
        world,
        waiting: (0..shards).map(|_| Vec::new()).collect(),
    };
    let mut fold = Fold::new(registry, |fact| batches.add(fact));
    let mut said_ms = begun_ms;
    for (read, name) in others.iter().rev().enumerate() {
        fold.instance(dir, name);
        if clock::now_ms() > said_ms + SAY_MS {
            said_ms = clock::now_ms();
            tracing::info!(
                instances = read + 1,
                of = others.len(),
                facts = fold.tally().facts,
                "reading journals"
            );
        }
    }
    for (segment, bytes) in fold.ends() {
        let _ = trims.send(Ask::Trim(segment, bytes));
    }
    let (tally, prefixes): (_, Vec<Prefix>) = (fold.tally(), fold.prefixes().to_vec());
    (0..shards).for_each(|shard| batches.send(shard));
    for shard in 0..shards {
        tell(world, shard, News::FoldEnded(prefixes.clone()));
    }
    tracing::info!(
        journals = tally.journals,
        facts = tally.facts,
        bytes = tally.bytes,
        torn = tally.torn,
        took_ms = clock::now_ms() - begun_ms,
        "the journals are read"
    );
}

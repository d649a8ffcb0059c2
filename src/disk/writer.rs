//! One shard's way to disk: what was filled waits in a bounded queue, pinned, and is written in batches behind the clients' backs.
//!
//! Called by `shard` (queue, news of the keeper) and run as one task. Order: data, then its fact. A queue that is full, a disk that is slow, full or broken loses
//! copies, which are counted; nobody ever waits for a write.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Poll;

use crate::io::file::{Access, AlignedBuf, File};
use crate::io::{breathe, sleep_ms, timeout_ms};
use crate::ram::StripeId;
use crate::ram::extent::Extent;

use super::bell::Bell;
use super::door::Door;
use super::format::BLOCK_BYTES;
use super::format::fact::{Fact, Place};
use super::format::record::Kind;
use super::frames::{self, Frames};
use super::journal::Journal;
use super::plan::{self, Piece, Plan};
use super::reclaim::Stream;
use super::{Ask, Described, DiskError, Segment};

/// Bytes of one batch.
const BATCH_BYTES: u64 = 16 << 20;
/// A batch below this waits a moment for more.
const GATHER_BYTES: u64 = 1 << 20;
/// How long.
const GATHER_MS: u64 = 20;
/// How long the writer waits for a segment, and leaves the keeper alone when there is none.
const SEGMENT_MS: u64 = 2_000;
/// Writes of one batch in flight.
const DEPTH: usize = 16;
/// Bytes that a queued head counts for.
const HEAD_BYTES: u64 = 4096;

/// Something to be written.
pub enum Item<T> {
    /// A settled extent, and the head of its version.
    Extent {
        /// The bytes.
        extent: Arc<Extent>,
        /// Whose they are.
        head: Arc<dyn Described>,
        /// Whether compressing it is worth a try.
        compress: bool,
    },
    /// A head.
    Head {
        /// The head.
        head: Arc<dyn Described>,
        /// When the origin confirmed it.
        confirmed_unix_ms: u64,
        /// By which the owner knows whether it is still true.
        token: T,
    },
    /// A record out of a segment that goes, as it was.
    Copy(Moved, AlignedBuf, Moving),
}

/// Counts the records on their way from one segment to another.
pub struct Moving(Rc<Cell<usize>>);

impl Moving {
    /// One more, until this is dropped.
    #[must_use]
    pub fn one(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A record that moves from one segment to another.
#[derive(Debug, Clone)]
pub struct Moved {
    /// What it holds.
    pub kind: Kind,
    /// Object, version and stripe; stripe 0 for a head.
    pub id: StripeId,
    /// Bytes of the stripe; empty for a head.
    pub window: std::ops::Range<u32>,
    /// When the origin confirmed the head.
    pub confirmed_unix_ms: u64,
    /// The segment that goes, by the process's number.
    pub from_segment: u32,
    /// The record's first block there.
    pub from_block: u32,
    /// Blocks of its header.
    pub header_blocks: u32,
    /// The hits that are left to it.
    pub frequency: u8,
}

impl Moved {
    fn fact(&self, place: Place) -> Fact<'static> {
        let (object, version) = (self.id.object, self.id.version);
        match self.kind {
            Kind::Extent => Fact::Extent {
                object,
                version,
                stripe: self.id.index,
                window: self.window.clone(),
                place,
            },
            Kind::Head => Fact::Head {
                object,
                version,
                confirmed_unix_ms: self.confirmed_unix_ms,
                place,
            },
        }
    }
}

impl<T> Item<T> {
    fn bytes(&self) -> u64 {
        match self {
            Self::Extent { extent, .. } => extent.weight(),
            Self::Head { .. } => HEAD_BYTES,
            Self::Copy(_, memory, _) => memory.len() as u64,
        }
    }
}

/// Who has the index.
pub trait Owner {
    /// What it knows a head by.
    type Token;
    /// An extent is on disk.
    fn extent_stored(
        &self,
        id: &StripeId,
        window: std::ops::Range<u32>,
        place: &Place,
        segment: &Arc<Segment>,
    );
    /// A head is on disk; false if it is not true any more, so that nobody may hear of it.
    fn head_stored(
        &self,
        head: &dyn Described,
        confirmed_unix_ms: u64,
        token: &Self::Token,
        place: &Place,
        segment: &Arc<Segment>,
    ) -> bool;
    /// A record has moved; false if it is not true any more where it was.
    fn moved(&self, record: &Moved, place: &Place, segment: &Arc<Segment>) -> bool;
    /// So many bytes are on disk.
    fn written(&self, bytes: u64);
    /// So many copies were not kept.
    fn dropped(&self, copies: usize);
    /// Something went wrong.
    fn failed(&self, error: &DiskError);
}

/// The segment that records are appended to.
struct Open {
    segment: Arc<Segment>,
    file: Rc<File>,
    end: u64,
}

/// The writer of one of a shard's logs.
pub struct Writer<T> {
    shard: usize,
    stream: Stream,
    segment_bytes: u64,
    queue_bytes_max: u64,
    door: Rc<Door>,
    journal: Rc<Journal>,
    asks: Sender<Ask>,
    queue: RefCell<VecDeque<Item<T>>>,
    queued_bytes: Cell<u64>,
    open: RefCell<Option<Open>>,
    /// A segment that was asked for and not begun yet; the answer may come when nobody waits for it any more.
    granted: RefCell<Option<Arc<Segment>>>,
    /// The keeper was asked for a segment and has not answered.
    asked: Cell<bool>,
    /// A batch is being written.
    busy: Cell<bool>,
    bell: Bell,
}

type Writing<'f> = Pin<Box<dyn Future<Output = Result<(), DiskError>> + 'f>>;

/// Waits until at least one of several writes has ended.
async fn some(writes: &mut Vec<Writing<'_>>) -> Result<(), DiskError> {
    poll_fn(|context| {
        let before = writes.len();
        let mut result = Ok(());
        writes.retain_mut(|write| match write.as_mut().poll(context) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => {
                result = Err(error);
                false
            }
            Poll::Pending => true,
        });
        match writes.len() < before {
            true => Poll::Ready(result),
            false => Poll::Pending,
        }
    })
    .await
}

/// What a batch came to.
enum Planned<T> {
    Extent(StripeId, std::ops::Range<u32>, Place),
    Head(Arc<dyn Described>, u64, T, Place),
    Copy(Moved, Moving, Place),
}

impl<T: 'static> Writer<T> {
    /// A writer without a segment.
    #[must_use]
    pub fn new(
        (shard, stream): (usize, Stream),
        queue_bytes_max: u64,
        config: &super::DiskConfig,
        (door, journal): (&Rc<Door>, &Rc<Journal>),
        asks: Sender<Ask>,
    ) -> Self {
        Self {
            shard,
            stream,
            segment_bytes: config.segment_bytes,
            queue_bytes_max,
            door: Rc::clone(door),
            journal: Rc::clone(journal),
            asks,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            open: RefCell::default(),
            granted: RefCell::default(),
            asked: Cell::new(false),
            busy: Cell::new(false),
            bell: Bell::default(),
        }
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes.get()
    }

    /// Whether something of `bytes` finds room in the queue now.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        // One always finds room, however large.
        self.queued_bytes.get() == 0 || self.queued_bytes.get() + bytes <= self.queue_bytes_max
    }

    /// Takes something to be written; false: the queue is full, or the disk cannot take anything.
    pub fn push(&self, item: Item<T>) -> bool {
        let bytes = item.bytes();
        if !self.has_room(bytes) || self.journal.has_ended() || self.door.rests() {
            return false;
        }
        self.queued_bytes.set(self.queued_bytes.get() + bytes);
        self.queue.borrow_mut().push_back(item);
        self.bell.ring();
        true
    }

    /// The keeper's answer to the wish for a segment.
    pub fn granted(&self, segment: Option<Arc<Segment>>) {
        self.asked.set(false);
        if let Some(segment) = segment
            && let Some(earlier) = self.granted.replace(Some(segment))
        {
            self.give_back(&earlier);
        }
        self.bell.ring();
    }

    /// Whether records are being appended to that segment.
    #[must_use]
    pub fn is_writing(&self, id: u32) -> bool {
        self.open
            .borrow()
            .as_ref()
            .is_some_and(|open| open.segment.id == id)
    }

    /// Writes until the process ends.
    pub async fn run(self: Rc<Self>, owner: impl Owner<Token = T>) {
        loop {
            self.bell
                .until(|| (!self.queue.borrow().is_empty()).then_some(()))
                .await;
            if self.queued_bytes.get() < GATHER_BYTES {
                sleep_ms(GATHER_MS).await;
            }
            // At start the journal may come later than the first fill.
            while !self.journal.is_open() && !self.journal.has_ended() {
                sleep_ms(GATHER_MS).await;
            }
            let batch = self.take();
            let (copies, bytes) = (batch.len(), batch.iter().map(Item::bytes).sum::<u64>());
            self.busy.set(true);
            if let Err(error) = self.write(batch, &owner).await {
                owner.failed(&error);
                owner.dropped(copies);
                // What was written of it is unknown: any error ends the file.
                self.seal();
            }
            self.busy.set(false);
            self.queued_bytes.set(self.queued_bytes.get() - bytes);
        }
    }

    fn take(&self) -> Vec<Item<T>> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut queue = self.queue.borrow_mut();
        while let Some(item) = queue.front() {
            bytes += item.bytes();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            batch.extend(queue.pop_front());
        }
        batch
    }

    /// Ends a segment before it is full, if nothing is being written to it now.
    pub fn seal_idle(&self, id: u32) {
        if self.is_writing(id) && !self.busy.get() {
            self.seal();
        }
    }

    fn seal(&self) {
        if let Some(open) = self.open.take() {
            let _ = self.asks.send(Ask::Sealed(open.segment.id, open.end));
        }
    }

    /// A segment that nothing was written to: the keeper may have its room for another.
    fn give_back(&self, segment: &Segment) {
        let _ = self.asks.send(Ask::Sealed(segment.id, BLOCK_BYTES));
    }

    async fn write(
        &self,
        batch: Vec<Item<T>>,
        owner: &impl Owner<Token = T>,
    ) -> Result<(), DiskError> {
        let mut batch = batch.into_iter().peekable();
        while batch.peek().is_some() {
            let (segment, file, start) = self.segment().await?;
            let mut plan = Plan::new(segment.shard, segment.number, start);
            let mut planned = Vec::new();
            let mut full = false;
            while let Some(item) = batch.next() {
                let left = self.segment_bytes - plan.end();
                match self.plan(&mut plan, item, left).await {
                    Ok(done) => planned.push(done),
                    Err(item) => {
                        // The first of a new segment always fits.
                        full = true;
                        let rest: Vec<_> = std::iter::once(item).chain(batch).collect();
                        batch = rest.into_iter().peekable();
                        break;
                    }
                }
            }
            let end = plan.end();
            self.write_all(&file, plan.finish()).await?;
            if let Some(open) = self.open.borrow_mut().as_mut() {
                open.end = end;
            }
            owner.written(end - start);
            self.note(planned, &segment, owner).await?;
            if full {
                self.seal();
            }
        }
        Ok(())
    }

    async fn plan(&self, plan: &mut Plan, item: Item<T>, left: u64) -> Result<Planned<T>, Item<T>> {
        match item {
            Item::Head {
                head,
                confirmed_unix_ms,
                token,
            } => {
                let record = plan::head_record(&*head, confirmed_unix_ms);
                if u64::from(record.layout().record_bytes) > left {
                    drop(record);
                    return Err(Item::Head {
                        head,
                        confirmed_unix_ms,
                        token,
                    });
                }
                let place = plan.add_head(&record);
                drop(record);
                Ok(Planned::Head(head, confirmed_unix_ms, token, place))
            }
            Item::Copy(record, memory, moving) => {
                // What is read again and again is read faster plain.
                let memory = match frames::unpacked(&memory) {
                    Some(plain) => {
                        let mut memory = AlignedBuf::new(plain.len());
                        memory.copy_from_slice(&plain);
                        memory
                    }
                    None => memory,
                };
                breathe().await;
                if memory.len() as u64 > left {
                    return Err(Item::Copy(record, memory, moving));
                }
                let place = plan.add_copy(&memory, record.header_blocks);
                Ok(Planned::Copy(record, moving, place))
            }
            Item::Extent {
                extent,
                head,
                compress,
            } => {
                let end = extent.promised_end();
                let mut frames = Frames::of(&extent, end, compress).await;
                if plan::record_bytes(&*head, &frames) > left {
                    return Err(Item::Extent {
                        extent,
                        head,
                        compress,
                    });
                }
                let record = plan::extent_record(&extent, end, &*head, &mut frames);
                let place = plan.add_extent(&record, &extent, frames);
                Ok(Planned::Extent(extent.id(), extent.start()..end, place))
            }
        }
    }

    async fn write_all(&self, file: &Rc<File>, pieces: Vec<(u64, Piece)>) -> Result<(), DiskError> {
        let mut writes: Vec<Writing<'_>> = Vec::new();
        for (offset, piece) in pieces {
            while writes.len() >= DEPTH {
                some(&mut writes).await?;
            }
            writes.push(match piece {
                Piece::Copy(memory) => Box::pin(self.door.write(file, memory, offset)),
                Piece::Slot(memory) => Box::pin(self.door.write(file, memory, offset)),
            });
        }
        while !writes.is_empty() {
            some(&mut writes).await?;
        }
        if !self.door.is_direct() {
            self.door.sync(file).await?;
        }
        Ok(())
    }

    /// Tells the owner and the journal what is on disk now.
    async fn note(
        &self,
        planned: Vec<Planned<T>>,
        segment: &Arc<Segment>,
        owner: &impl Owner<Token = T>,
    ) -> Result<(), DiskError> {
        let mut mark = None;
        for done in planned {
            mark = match done {
                Planned::Extent(id, window, place) => {
                    owner.extent_stored(&id, window.clone(), &place, segment);
                    self.journal.append(&Fact::Extent {
                        object: id.object,
                        version: id.version,
                        stripe: id.index,
                        window,
                        place,
                    })
                }
                Planned::Copy(record, _moving, place) => {
                    if !owner.moved(&record, &place, segment) {
                        continue;
                    }
                    self.journal.append(&record.fact(place))
                }
                Planned::Head(head, confirmed_unix_ms, token, place) => {
                    if !owner.head_stored(&*head, confirmed_unix_ms, &token, &place, segment) {
                        continue;
                    }
                    self.journal.append(&Fact::Head {
                        object: head.object(),
                        version: head.version(),
                        confirmed_unix_ms,
                        place,
                    })
                }
            };
        }
        match mark {
            Some(mark) => self.journal.flush(mark, false).await,
            None => Ok(()),
        }
    }

    /// The segment to append to, its file, and where.
    async fn segment(&self) -> Result<(Arc<Segment>, Rc<File>, u64), DiskError> {
        if let Some(open) = &*self.open.borrow() {
            return Ok((Arc::clone(&open.segment), Rc::clone(&open.file), open.end));
        }
        let granted = || match self.granted.take() {
            Some(segment) => Some(Some(segment)),
            None => (!self.asked.get()).then_some(None),
        };
        // An earlier wish may still be unanswered, if the keeper hangs.
        if self.granted.borrow().is_none() && !self.asked.replace(true) {
            let _ = self.asks.send(Ask::Segment(self.shard, self.stream));
        }
        let answer = timeout_ms(SEGMENT_MS, self.bell.until(granted)).await;
        let Some(segment) = answer.flatten() else {
            return Err(DiskError::Busy);
        };
        let file = match self.door.open(&segment.path, Access::Write).await {
            Ok(file) => Rc::new(file),
            Err(error) => {
                self.give_back(&segment);
                return Err(error);
            }
        };
        self.door.know(&segment);
        *self.open.borrow_mut() = Some(Open {
            segment: Arc::clone(&segment),
            file: Rc::clone(&file),
            end: BLOCK_BYTES,
        });
        Ok((segment, file, BLOCK_BYTES))
    }
}

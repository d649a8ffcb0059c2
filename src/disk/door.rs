//! One shard's way to files: open segments, a bound on operations in flight, a deadline for each, and a rest for a disk that was late.
//!
//! Called by the loader, the writer and the journal. An operation that is given up keeps its memory and its place among those in flight until the kernel is done
//! with it: while all places are taken by such ones, everything else is told at once that the disk is busy.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::base::clock;
use crate::io::file::{Access, File, Lend};
use crate::io::{spawn, timeout_ms};

use super::bell::Bell;
use super::lane::{Lane, Place, Stub};
use super::{DiskError, Segment};

/// Segments that one shard keeps open for reading.
const OPEN_MAX: usize = 256;
/// How long a disk that was late is left alone.
const REST_MS: u64 = 2_000;

/// One shard's files.
pub struct Door {
    /// For what a reader waits for.
    lane: Lane,
    /// For what nobody waits for, so that neither keeps the other away.
    background: Lane,
    deadline_ms: u64,
    rest_until_ms: Cell<u64>,
    segments: RefCell<HashMap<u32, Arc<Segment>>>,
    open: RefCell<HashMap<u32, Rc<File>>>,
    opened: RefCell<VecDeque<u32>>,
    direct: Cell<bool>,
}

impl Door {
    /// With at most `operations_max` operations in flight.
    #[must_use]
    pub fn new(operations_max: usize, deadline_ms: u64) -> Self {
        Self {
            lane: Lane::new(operations_max),
            background: Lane::new(operations_max),
            deadline_ms,
            rest_until_ms: Cell::new(0),
            segments: RefCell::default(),
            open: RefCell::default(),
            opened: RefCell::default(),
            direct: Cell::new(true),
        }
    }

    /// Whether files are opened past the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.direct.get()
    }

    /// Whether the disk is left alone, since it was late a moment ago, or has given nothing back of all that was asked of it.
    #[must_use]
    pub fn rests(&self) -> bool {
        clock::now_ms() < self.rest_until_ms.get() || self.lane.is_stuck()
    }

    /// Makes a segment known.
    pub fn know(&self, segment: &Arc<Segment>) {
        let mut segments = self.segments.borrow_mut();
        if !segments.contains_key(&segment.id) {
            segments.insert(segment.id, Arc::clone(segment));
        }
    }

    /// The segment of that number.
    #[must_use]
    pub fn segment(&self, id: u32) -> Option<Arc<Segment>> {
        self.segments.borrow().get(&id).cloned()
    }

    /// Forgets a segment; operations on it that are under way end as they end.
    pub fn forget(&self, id: u32) {
        let file = self.open.borrow_mut().remove(&id);
        self.segments.borrow_mut().remove(&id);
        drop(file);
    }

    async fn place(&self, lane: &Lane) -> Result<(Place, Stub), DiskError> {
        if clock::now_ms() < self.rest_until_ms.get() {
            return Err(DiskError::Busy);
        }
        lane.take(self.deadline_ms).await
    }

    async fn in_time<F: Future>(
        &self,
        (lane, stub): (&Lane, Stub),
        work: F,
    ) -> Result<F::Output, DiskError> {
        match timeout_ms(self.deadline_ms, work).await {
            Some(output) => Ok(output),
            None => {
                lane.give_up(&stub);
                self.rest_until_ms.set(clock::now_ms() + REST_MS);
                Err(DiskError::Late)
            }
        }
    }

    /// Work that lends no memory, as a task of its own: when it is given up it keeps its place until it has ended.
    async fn detached<T: 'static>(
        &self,
        lane: &Lane,
        (place, stub): (Place, Stub),
        work: impl Future<Output = T> + 'static,
    ) -> Result<T, DiskError> {
        let result = Rc::new((RefCell::new(None), Bell::default()));
        let theirs = Rc::clone(&result);
        spawn(async move {
            let output = work.await;
            *theirs.0.borrow_mut() = Some(output);
            theirs.1.ring();
            drop(place);
        });
        let taken = || result.0.borrow_mut().take();
        self.in_time((lane, stub), result.1.until(taken)).await
    }

    /// Opens a file, past the page cache where that is possible.
    ///
    /// # Errors
    /// Busy, late, or the kernel's.
    pub async fn open(&self, path: &Path, access: Access) -> Result<File, DiskError> {
        let among = match access {
            Access::Read => &self.lane,
            Access::Write => &self.background,
        };
        loop {
            let direct = self.direct.get();
            let (place, path) = (self.place(among).await?, path.to_owned());
            let opening = async move { File::open(&path, access, direct).await };
            match self.detached(among, place, opening).await? {
                Err(error) if direct && error.kind() == io::ErrorKind::InvalidInput => {
                    if self.direct.replace(false) {
                        tracing::info!(
                            "the cache directory's filesystem refuses direct I/O: the page cache is used"
                        );
                    }
                }
                opened => return Ok(opened?),
            }
        }
    }

    /// The open file of a segment.
    ///
    /// # Errors
    /// As `open`; gone if nobody knows the segment.
    pub async fn reader(&self, id: u32) -> Result<Rc<File>, DiskError> {
        if let Some(file) = self.open.borrow().get(&id) {
            return Ok(Rc::clone(file));
        }
        let segment = self.segment(id).ok_or(DiskError::Gone)?;
        let file = Rc::new(self.open(&segment.path, Access::Read).await?);
        let mut old = None;
        if self.segments.borrow().contains_key(&id) {
            let mut open = self.open.borrow_mut();
            let mut opened = self.opened.borrow_mut();
            if open.insert(id, Rc::clone(&file)).is_none() {
                opened.push_back(id);
            }
            if opened.len() > OPEN_MAX {
                old = opened.pop_front().and_then(|oldest| open.remove(&oldest));
            }
        }
        drop(old);
        Ok(file)
    }

    /// Reads into `memory` from `offset` as far as the file goes.
    ///
    /// # Errors
    /// Busy, late, or the kernel's; the memory is gone then, or comes back with nothing in it.
    pub async fn read<B: Lend>(
        &self,
        file: &Rc<File>,
        memory: B,
        offset: u64,
    ) -> Result<(usize, B), DiskError> {
        let (place, stub) = self.place(&self.lane).await?;
        let reading = file.read_at(memory, offset, place);
        Ok(self.in_time((&self.lane, stub), reading).await??)
    }

    /// Writes all of `memory` to `offset`.
    ///
    /// # Errors
    /// As `read`.
    pub async fn write<B: Lend>(
        &self,
        file: &Rc<File>,
        memory: B,
        offset: u64,
    ) -> Result<(), DiskError> {
        let (place, stub) = self.place(&self.background).await?;
        let writing = file.write_at(memory, offset, place);
        Ok(self.in_time((&self.background, stub), writing).await??)
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// As `read`.
    pub async fn sync(&self, file: &Rc<File>) -> Result<(), DiskError> {
        let (place, file) = (self.place(&self.background).await?, Rc::clone(file));
        let syncing = async move { file.sync().await };
        Ok(self.detached(&self.background, place, syncing).await??)
    }
}

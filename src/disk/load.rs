//! From a segment into slots: the frames that are wanted, read ahead of the readers, checked before anybody sees them.
//!
//! Called by `shard`, as a task for each load. Frames of large plain extents come to their slots by direct I/O; small and compressed ones through a buffer. What fails
//! fails the extent from there: what was published before stays good.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::base::checksum::crc32c;
use crate::io::breathe;
use crate::io::file::{AlignedBuf, File};
use crate::ram::StripeId;
use crate::ram::extent::{Extent, ExtentWriter};
use crate::ram::lent::Room;

use super::DiskError;
use super::door::Door;
use super::format::record::{Frame, Kind, Layout, Record, frame_bytes, stored_bytes};
use super::format::{BLOCK_BYTES, FRAME_BYTES, FormatError};

/// Records up to this size are read whole, in one operation.
const WHOLE_BYTES: u32 = 128 * 1024;
/// Bytes of one read of a large extent.
const PIECE_BYTES: usize = 256 * 1024;
/// Reads of one load in flight.
const DEPTH: usize = 16;
/// Reads of one load that may have ended and wait to be looked at, together with those in flight.
const BEGUN_MAX: usize = 2 * DEPTH;

/// An extent that is to be loaded.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its stripe.
    pub id: StripeId,
    /// Bytes of the stripe that the record holds.
    pub window: Range<u32>,
    /// The segment.
    pub segment: u32,
    /// Offset of the record.
    pub offset: u64,
    /// Bytes of the record.
    pub record_bytes: u32,
    /// Blocks of its header.
    pub header_blocks: u32,
}

impl Wanted {
    fn header_bytes(&self) -> u32 {
        self.header_blocks * BLOCK_BYTES as u32
    }

    /// Whether its frames lie plain behind the header's blocks: compressing saves more than a block, or is not done.
    fn is_plain(&self) -> bool {
        let plain = (self.window.len() as u32).next_multiple_of(BLOCK_BYTES as u32);
        self.record_bytes == self.header_bytes() + plain
    }
}

/// Bytes of `window` that must be read for `[start, end)`: whole frames.
#[must_use]
pub fn frames_around(window: &Range<u32>, start: u32, end: u32) -> Range<u32> {
    let first = (start - window.start) / FRAME_BYTES * FRAME_BYTES;
    let last = (end - window.start).next_multiple_of(FRAME_BYTES);
    window.start + first..window.end.min(window.start + last)
}

/// Reads what `writer` has room for. `wake` is told whom to wake at each step.
///
/// # Errors
/// Why the extent ends early; it is settled in any case.
pub async fn extent(
    door: &Door,
    wanted: &Wanted,
    mut writer: ExtentWriter,
    wake: impl Fn(usize, &Arc<Extent>),
) -> Result<(), DiskError> {
    let extent = Arc::clone(writer.extent());
    let result = fill(door, wanted, &mut writer, |shard| wake(shard, &extent)).await;
    match &result {
        Ok(()) => writer.finish(|shard| wake(shard, &extent)),
        Err(_) => writer.fail(|shard| wake(shard, &extent)),
    }
    result
}

async fn fill(
    door: &Door,
    wanted: &Wanted,
    writer: &mut ExtentWriter,
    wake: impl Fn(usize),
) -> Result<(), DiskError> {
    let file = door.reader(wanted.segment).await?;
    let skipped = writer.extent().start() - wanted.window.start;
    assert!(
        skipped.is_multiple_of(FRAME_BYTES),
        "a load begins with a frame"
    );
    let load = Load {
        door,
        file: &file,
        wanted,
        first_frame: (skipped / FRAME_BYTES) as usize,
    };
    if wanted.record_bytes <= WHOLE_BYTES {
        let memory = load
            .read(wanted.offset, wanted.record_bytes as usize)
            .await?;
        let (frames, layout) = load.check(&memory)?;
        return load.unpack(&memory, layout.data_offset as usize, &frames, writer, wake);
    }
    let header = load.read(wanted.offset, wanted.header_bytes() as usize);
    if wanted.is_plain() {
        return load.plain(header, writer, wake).await;
    }
    let (frames, layout) = load.check(&header.await?)?;
    load.packed(&frames, layout, writer, wake).await
}

struct Load<'l> {
    door: &'l Door,
    file: &'l Rc<File>,
    wanted: &'l Wanted,
    first_frame: usize,
}

type Reading<'f> = Pin<Box<dyn Future<Output = Result<Room, DiskError>> + 'f>>;

/// Reads of one load in the order of their bytes.
struct Reads<'f> {
    begun: VecDeque<Read<'f>>,
    /// Where the next one begins.
    at: u64,
}

enum Read<'f> {
    UnderWay(Reading<'f>),
    Ended(Result<Room, DiskError>),
}

impl<'f> Reads<'f> {
    fn may_begin(&self) -> bool {
        let under_way = |read: &&Read<'_>| matches!(read, Read::UnderWay(_));
        self.begun.len() < BEGUN_MAX && self.begun.iter().filter(under_way).count() < DEPTH
    }

    /// Begins as many as may be under way, and lets the ring take them.
    async fn top_up(&mut self, load: &'f Load<'_>, writer: &mut ExtentWriter) {
        let before = self.at;
        while self.may_begin()
            && let Some(room) = writer.lend(PIECE_BYTES)
        {
            let bytes = room.bytes_of_extent() as u64;
            let mut reading: Reading<'f> = Box::pin(load.read_room(room, self.at));
            let read = match looked_at(reading.as_mut()).await {
                Some(result) => Read::Ended(result),
                None => Read::UnderWay(reading),
            };
            self.begun.push_back(read);
            self.at += bytes;
        }
        if self.at > before {
            breathe().await;
        }
    }

    /// Waits until the first one has ended, if there is one, and looks at all of them.
    async fn first_ended(&mut self) {
        poll_fn(|context| {
            for read in &mut self.begun {
                if let Read::UnderWay(reading) = read
                    && let Poll::Ready(result) = reading.as_mut().poll(context)
                {
                    *read = Read::Ended(result);
                }
            }
            match self.begun.front() {
                Some(Read::UnderWay(_)) => Poll::Pending,
                Some(Read::Ended(_)) | None => Poll::Ready(()),
            }
        })
        .await;
    }

    /// The first one, if it has ended.
    fn pop(&mut self) -> Option<Result<Room, DiskError>> {
        match self.begun.pop_front()? {
            Read::Ended(result) => Some(result),
            under_way @ Read::UnderWay(_) => {
                self.begun.push_front(under_way);
                None
            }
        }
    }
}

/// Begins something, and gives what came of it if it has ended at once.
async fn looked_at<F: Future + ?Sized>(mut work: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| {
        Poll::Ready(match work.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

impl Load<'_> {
    async fn read(&self, offset: u64, bytes: usize) -> Result<AlignedBuf, DiskError> {
        let (read, memory) = self
            .door
            .read(self.file, AlignedBuf::new(bytes), offset)
            .await?;
        if read < bytes {
            return Err(FormatError::Short.into());
        }
        Ok(memory)
    }

    /// The frames of the record, if it is the one that is wanted.
    fn check(&self, memory: &[u8]) -> Result<(Vec<Frame>, Layout), DiskError> {
        let (record, layout) = Record::decode(memory)?;
        let id = self.wanted.id;
        let same = record.kind == Kind::Extent
            && (record.object, record.version, record.stripe) == (id.object, id.version, id.index)
            && record.window == self.wanted.window
            && layout.record_bytes == self.wanted.record_bytes;
        if !same {
            return Err(DiskError::Other);
        }
        Ok((record.frames, layout))
    }

    /// Frames of `memory`, which begins with the first wanted one at `at`, into slots.
    fn unpack(
        &self,
        memory: &[u8],
        data_offset: usize,
        frames: &[Frame],
        writer: &mut ExtentWriter,
        wake: impl Fn(usize),
    ) -> Result<(), DiskError> {
        let mut at = data_offset + stored_bytes(&frames[..self.first_frame]) as usize;
        for (index, frame) in frames.iter().enumerate().skip(self.first_frame) {
            if writer.remaining() == 0 {
                break;
            }
            let stored = memory
                .get(at..at + frame.stored_bytes as usize)
                .ok_or(FormatError::Short)?;
            at += stored.len();
            self.put(stored, *frame, index, writer, &wake)?;
        }
        Ok(())
    }

    fn put(
        &self,
        stored: &[u8],
        frame: Frame,
        index: usize,
        writer: &mut ExtentWriter,
        wake: impl Fn(usize),
    ) -> Result<(), DiskError> {
        if crc32c(stored) != frame.sum {
            return Err(FormatError::Checksum.into());
        }
        let whole = frame_bytes(self.wanted.window.len() as u32, index as u32);
        let unpacked;
        let mut plain = stored;
        if frame.lz4 {
            unpacked = lz4_flex::block::decompress(stored, whole as usize)
                .map_err(|_| FormatError::Field("compressed frame"))?;
            plain = &unpacked;
        }
        if plain.len() != whole as usize {
            return Err(FormatError::Field("frame length").into());
        }
        while !plain.is_empty() {
            let room = writer.room();
            let bytes = room.len().min(plain.len());
            room[..bytes].copy_from_slice(&plain[..bytes]);
            plain = &plain[bytes..];
            writer.advance(bytes, &wake);
        }
        Ok(())
    }

    /// Compressed frames: read as they lie, some at a time.
    async fn packed(
        &self,
        frames: &[Frame],
        layout: Layout,
        writer: &mut ExtentWriter,
        wake: impl Fn(usize),
    ) -> Result<(), DiskError> {
        let mut at = u64::from(layout.data_offset) + stored_bytes(&frames[..self.first_frame]);
        let mut index = self.first_frame;
        while index < frames.len() && writer.remaining() > 0 {
            let mut bytes = 0;
            let wanted =
                (writer.remaining().div_ceil(FRAME_BYTES) as usize).min(frames.len() - index);
            let batch = frames[index..index + wanted].iter().take_while(|frame| {
                let fits = bytes == 0 || bytes + frame.stored_bytes as usize <= PIECE_BYTES;
                bytes += frame.stored_bytes as usize;
                fits
            });
            let batch: Vec<Frame> = batch.copied().collect();
            let stored = stored_bytes(&batch);
            let from = at / BLOCK_BYTES * BLOCK_BYTES;
            let until = (at + stored).next_multiple_of(BLOCK_BYTES);
            let memory = self
                .read(self.wanted.offset + from, (until - from) as usize)
                .await?;
            let mut inside = (at - from) as usize;
            for frame in batch {
                let end = inside + frame.stored_bytes as usize;
                self.put(&memory[inside..end], frame, index, writer, &wake)?;
                inside = end;
                index += 1;
            }
            at += stored;
        }
        Ok(())
    }

    /// Plain frames of a large extent: straight into slots, several reads at a time, the first of them together with the header.
    async fn plain(
        &self,
        header: impl Future<Output = Result<AlignedBuf, DiskError>>,
        writer: &mut ExtentWriter,
        wake: impl Fn(usize),
    ) -> Result<(), DiskError> {
        let data_offset = self.wanted.header_bytes();
        let mut reads = Reads {
            at: self.wanted.offset
                + u64::from(data_offset)
                + self.first_frame as u64 * u64::from(FRAME_BYTES),
            begun: VecDeque::new(),
        };
        let mut header = std::pin::pin!(header);
        let early = looked_at(header.as_mut()).await;
        reads.top_up(self, writer).await;
        let memory = match early {
            Some(memory) => memory?,
            None => header.await?,
        };
        let (frames, layout) = self.check(&memory)?;
        if layout.data_offset != data_offset {
            return Err(FormatError::Field("data offset").into());
        }
        let mut index = self.first_frame;
        while !reads.begun.is_empty() {
            reads.first_ended().await;
            // The disk is to have work while sums are computed here and readers are served.
            reads.top_up(self, writer).await;
            while let Some(room) = reads.pop() {
                let room = room?;
                index += verify(room.as_slice(), &frames[index.min(frames.len())..])?;
                writer.accept(room, &wake);
            }
        }
        Ok(())
    }

    async fn read_room(&self, mut room: Room, offset: u64) -> Result<Room, DiskError> {
        let bytes = room.bytes_of_extent();
        if !room.is_aligned() {
            let memory = self.read(offset, bytes).await?;
            room.as_mut_slice().copy_from_slice(&memory[..bytes]);
            return Ok(room);
        }
        let (read, room) = self.door.read(self.file, room, offset).await?;
        if read < bytes {
            return Err(FormatError::Short.into());
        }
        Ok(room)
    }
}

/// Compares plain frames with their sums; says how many they are.
fn verify(stored: &[u8], frames: &[Frame]) -> Result<usize, FormatError> {
    let mut frames = frames.iter();
    let mut count = 0;
    for stored in stored.chunks(FRAME_BYTES as usize) {
        let frame = frames.next().ok_or(FormatError::Field("frames"))?;
        if stored.len() != frame.stored_bytes as usize || crc32c(stored) != frame.sum {
            return Err(FormatError::Checksum);
        }
        count += 1;
    }
    Ok(count)
}

/// Reads a whole record, and what it says of itself.
///
/// # Errors
/// Why it cannot be had.
pub async fn whole<R>(
    door: &Door,
    segment: u32,
    offset: u64,
    record_bytes: usize,
    look: impl FnOnce(&Record<'_>) -> R,
) -> Result<(R, AlignedBuf), DiskError> {
    let file = door.reader(segment).await?;
    let (read, memory) = door
        .read(&file, AlignedBuf::new(record_bytes), offset)
        .await?;
    let (record, layout) = Record::decode(&memory)?;
    if read < record_bytes || layout.record_bytes as usize != record_bytes {
        return Err(FormatError::Short.into());
    }
    let looked = look(&record);
    Ok((looked, memory))
}

/// Reads a record's first `record_blocks` blocks for `look`: a head, or the key of an extent.
///
/// # Errors
/// Why it cannot be had.
pub async fn record<R>(
    door: &Door,
    segment: u32,
    offset: u64,
    blocks: u32,
    look: impl FnOnce(&Record<'_>) -> Result<R, DiskError>,
) -> Result<R, DiskError> {
    let file = door.reader(segment).await?;
    let memory = AlignedBuf::new(blocks as usize * BLOCK_BYTES as usize);
    let bytes = memory.len();
    let (read, memory) = door.read(&file, memory, offset).await?;
    if read < bytes {
        return Err(FormatError::Short.into());
    }
    let (record, _) = Record::decode(&memory)?;
    look(&record)
}

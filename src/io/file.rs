//! Files of the cache directory, on the ring: no call here blocks the shard's thread, whatever the filesystem does.
//!
//! Called by `disk`. Memory is lent to an operation whole ([`Lend`]): it belongs to the operation until the kernel is done with it, also
//! when the future is dropped at a deadline. What else goes along with the memory (a place among the operations in flight) comes back at the same moment.
//! Dropping a [`File`] closes it on the ring: monoio's own drop leaks the descriptor where `close` waits (NFS, FUSE).

use std::alloc::{self, Layout};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;

use monoio::buf::IoBufMut;
use monoio::fs::OpenOptions;

use super::background::{self, Work};

/// What offsets, lengths and addresses of direct I/O are multiples of here; no filesystem wants more.
pub const ALIGN_BYTES: usize = 4096;

/// Memory that may be lent to an operation.
///
/// # Safety
/// Until the value is dropped, `pointer` names `bytes` bytes at one place that stay mapped, that nobody else writes, and, while they are lent to
/// a read, nobody else reads.
pub unsafe trait Lend: Unpin + 'static {
    /// Where it is.
    fn pointer(&self) -> *mut u8;
    /// How much it is.
    fn bytes(&self) -> usize;
}

/// Heap memory that direct I/O takes, zeroed.
#[derive(Debug)]
pub struct AlignedBuf {
    memory: NonNull<u8>,
    bytes: usize,
}

impl AlignedBuf {
    /// `bytes` of it, rounded up to whole blocks, at least one.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes.max(1).next_multiple_of(ALIGN_BYTES);
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let memory = NonNull::new(memory).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        Self { memory, bytes }
    }

    fn layout(bytes: usize) -> Layout {
        match Layout::from_size_align(bytes, ALIGN_BYTES) {
            Ok(layout) => layout,
            Err(_) => panic!("a buffer of {bytes} bytes is no buffer"),
        }
    }
}

impl std::ops::Deref for AlignedBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: all of it is allocated and was zeroed.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.bytes) }
    }
}

impl std::ops::DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the borrow is the only one.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.bytes) }
    }
}

impl Drop for AlignedBuf {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout, freed once.
        unsafe { alloc::dealloc(self.memory.as_ptr(), Self::layout(self.bytes)) };
    }
}

// SAFETY: the allocation is this value's own, and stays where it is when the value moves.
unsafe impl Lend for AlignedBuf {
    fn pointer(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Memory and what goes with it, while the kernel has them.
struct Lent<B, P> {
    memory: B,
    _with: P,
}

// SAFETY: `Lend` keeps the memory at its place, and everybody else away from memory that is lent to a read.
unsafe impl<B: Lend, P: Unpin + 'static> IoBufMut for Lent<B, P> {
    fn write_ptr(&mut self) -> *mut u8 {
        self.memory.pointer()
    }

    fn bytes_total(&mut self) -> usize {
        self.memory.bytes()
    }

    unsafe fn set_init(&mut self, _: usize) {}
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading what is there.
    Read,
    /// Writing into a file that is there.
    Write,
}

/// An open file of one shard.
#[allow(
    clippy::disallowed_types,
    reason = "this is the file type that others use: it never closes on the calling thread"
)]
pub struct File {
    file: Option<monoio::fs::File>,
    /// Whether a block device of this machine answers: then submitting a read does not wait.
    local: bool,
}

impl File {
    /// Opens a file that is there. `direct`: past the page cache; `InvalidInput` where the filesystem refuses that.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn open(path: &Path, access: Access, direct: bool) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        match access {
            Access::Read => options.read(true),
            Access::Write => options.write(true),
        };
        let flags = if direct { libc::O_DIRECT } else { 0 };
        options.custom_flags(flags);
        let file = options.open(path).await?;
        let local = is_on_a_device(file.as_raw_fd());
        Ok(Self {
            file: Some(file),
            local,
        })
    }

    #[allow(clippy::disallowed_types, reason = "as above")]
    fn inner(&self) -> &monoio::fs::File {
        let Some(file) = &self.file else {
            panic!("a file is open until it is dropped")
        };
        file
    }

    /// Reads into all of `memory` from `offset`, as far as the file goes. `with` goes when the kernel is done, as `memory` does where it does not come
    /// back. Never waits on this thread (`background`).
    ///
    /// # Errors
    /// The kernel's; the memory is gone then.
    pub async fn read_at<B: Lend, P: Unpin + 'static>(
        self: &Rc<Self>,
        memory: B,
        offset: u64,
        with: P,
    ) -> io::Result<(usize, B)> {
        if !self.local {
            let (read, memory) = self.operate(Work::Read, memory, offset, with).await?;
            return Ok((read?, memory));
        }
        let lent = Lent {
            memory,
            _with: with,
        };
        let (result, lent) = self.inner().read_at(lent, offset).await;
        Ok((result?, lent.memory))
    }

    /// Writes all of `memory` to `offset`; a short write is an error. Memory and `with` go when the kernel is done. Never waits on this
    /// thread, whatever the filesystem does (`background`).
    ///
    /// # Errors
    /// The kernel's.
    pub async fn write_at<B: Lend, P: 'static>(
        self: &Rc<Self>,
        memory: B,
        offset: u64,
        with: P,
    ) -> io::Result<()> {
        let bytes = memory.bytes();
        let (written, _memory) = self.operate(Work::Write, memory, offset, with).await?;
        if written? == bytes {
            Ok(())
        } else {
            Err(io::ErrorKind::WriteZero.into())
        }
    }

    async fn operate<B: Lend, P: 'static>(
        self: &Rc<Self>,
        work: Work,
        memory: B,
        offset: u64,
        with: P,
    ) -> io::Result<(io::Result<usize>, B)> {
        let (fd, whole) = (self.inner().as_raw_fd(), (memory.pointer(), memory.bytes()));
        let held = Box::new((memory, with, Rc::clone(self)));
        // SAFETY: `Lend` keeps the memory at its place, and to itself, while `held` has it, which has the file too.
        let (result, held) = unsafe { background::operate(work, fd, whole, offset, held) }.await?;
        let (memory, _with, _file) = *held;
        Ok((result, memory))
    }

    /// Waits until what was written, and the file's length, are on the disk.
    ///
    /// # Errors
    /// The kernel's; what was written before may then be lost, and a later call would not say so.
    pub async fn sync(&self) -> io::Result<()> {
        self.inner().sync_data().await
    }
}

/// Whether a file is on a block device of this machine, as far as the kernel knows without asking anybody.
#[must_use]
pub fn is_on_a_device(fd: RawFd) -> bool {
    // SAFETY: all zeros is a value of this plain structure.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty text, `found` is valid for the call.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), flags, 0, &raw mut found) };
    result == 0 && found.stx_dev_major != 0
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            super::spawn(async move {
                let _ = file.close().await;
            });
        }
    }
}

/// A file that a thread of its own writes, whole blocks only, past the page cache where that is possible: a process that leaves nothing in the page cache
/// of a mount whose server is gone can end.
#[derive(Debug)]
pub struct Blocks(std::fs::File);

impl Blocks {
    /// Makes the file, or opens it if it is there; blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn create(path: &Path) -> io::Result<Self> {
        let open = |flags| {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create(true).truncate(false);
            options.custom_flags(flags).open(path)
        };
        match open(libc::O_DIRECT) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => open(0),
            opened => opened,
        }
        .map(Self)
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &std::fs::File {
        &self.0
    }

    /// Writes the first blocks: `bytes`, and zeros behind it. Blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_first(&self, bytes: &[u8]) -> io::Result<()> {
        let mut memory = AlignedBuf::new(bytes.len());
        memory[..bytes.len()].copy_from_slice(bytes);
        self.0.write_all_at(&memory, 0)
    }
}

/// Room of a filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the whole filesystem.
    pub total_bytes: u64,
    /// Bytes that this process may still take.
    pub free_bytes: u64,
}

/// Room of the filesystem that `path` is on; blocks, so not on a shard's thread.
///
/// # Errors
/// The kernel's.
pub fn space(path: &Path) -> io::Result<Space> {
    let folder = std::fs::File::open(path)?;
    // SAFETY: all zeros is a value of this plain structure.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `found` valid for the call.
    if unsafe { libc::fstatvfs(folder.as_raw_fd(), &raw mut found) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let unit = found.f_frsize;
    Ok(Space {
        total_bytes: found.f_blocks.saturating_mul(unit),
        free_bytes: found.f_bavail.saturating_mul(unit),
    })
}

/// Takes `bytes` of the filesystem for a new file, so that writes into it do not run out of space. Blocks. A filesystem that cannot do it
/// is no error: then a write may fail later.
///
/// # Errors
/// The kernel's: no space.
pub fn preallocate(file: &std::fs::File, bytes: u64) -> io::Result<()> {
    // SAFETY: plain system call on an open descriptor.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_memory_is_aligned_whole_blocks_and_zero() {
        for wanted in [0, 1, 4096, 4097, 1 << 20] {
            let buffer = AlignedBuf::new(wanted);
            assert!(buffer.pointer().addr().is_multiple_of(ALIGN_BYTES));
            assert!(buffer.len() >= wanted && buffer.len().is_multiple_of(ALIGN_BYTES));
            assert!(buffer.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn what_was_written_is_read_and_the_place_in_flight_comes_back() {
        let path = std::env::temp_dir().join(format!("millrace-file-{}", std::process::id()));
        std::fs::write(&path, b"").unwrap();
        let mut runtime = crate::io::runtime::ShardRuntime::new().unwrap();
        runtime.block_on(async {
            let place = std::rc::Rc::new(());
            let file = File::open(&path, Access::Write, false).await.unwrap();
            let mut buffer = AlignedBuf::new(8192);
            buffer[5000] = 7;
            let file = Rc::new(file);
            let written = file.write_at(buffer, 4096, Rc::clone(&place)).await;
            written.unwrap();
            file.sync().await.unwrap();
            let file = File::open(&path, Access::Read, false).await.unwrap();
            let memory = AlignedBuf::new(1 << 14);
            let file = Rc::new(file);
            let read = file.read_at(memory, 0, std::rc::Rc::clone(&place)).await;
            let (read, memory) = read.unwrap();
            assert_eq!((read, memory[9096]), (12_288, 7));
            let again = file.operate(Work::Read, memory, 4096, Rc::clone(&place));
            let (read, memory) = again.await.unwrap();
            assert_eq!((read.unwrap(), memory[5000]), (8192, 7));
            assert_eq!(std::rc::Rc::strong_count(&place), 1);
        });
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_filesystem_has_room() {
        let space = space(&std::env::temp_dir()).unwrap();
        assert!(space.total_bytes >= space.free_bytes && space.total_bytes > 0);
    }
}

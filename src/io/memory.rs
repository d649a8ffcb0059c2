//! Memory that is a slice and a file at once: a memfd, mapped once.
//!
//! Called by `ram` (the slab's arena). The mapping is made of 4 KiB pages on purpose (`MADV_NOHUGEPAGE`): a hole punched
//! in part of a larger folio would let queued bytes of an earlier send change (measured on kernel 6.18).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use memmap2::{MmapOptions, MmapRaw};

/// The page size that offsets and lengths of punches are aligned to.
pub const PAGE_BYTES: usize = 4096;

/// A memfd and its one shared mapping.
#[derive(Debug)]
pub struct Memory {
    file: File,
    map: MmapRaw,
}

impl Memory {
    /// A zeroed region of `bytes` (a multiple of the page), not yet backed by pages.
    ///
    /// # Errors
    /// The kernel's, when memory or descriptors have run out.
    pub fn new(bytes: usize) -> io::Result<Self> {
        assert!(
            bytes > 0 && bytes.is_multiple_of(PAGE_BYTES),
            "memory comes in whole pages"
        );
        // SAFETY: the name is a NUL-terminated literal.
        let fd = unsafe { libc::memfd_create(c"millrace-slab".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes as u64)?;
        let map = MmapOptions::new().len(bytes).map_raw(&file)?;
        // SAFETY: the range is exactly our mapping; the advice changes no contents.
        unsafe { libc::madvise(map.as_mut_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
        Ok(Self { file, map })
    }

    /// Bytes of the region.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Never: a region has at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Start of the mapping; whoever writes or reads through it keeps the one-writer rule of `ram`.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Takes the pages of a range out of the file: later reads give zeros, later writes get fresh pages, and whatever the kernel
    /// still has queued of the old pages stays as it was.
    ///
    /// # Errors
    /// The kernel's; the range must then not be reused.
    pub fn punch(&self, offset: u64, bytes: usize) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(PAGE_BYTES as u64),
            "holes begin on a page"
        );
        assert!(bytes.is_multiple_of(PAGE_BYTES), "holes are whole pages");
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain system call on our own file.
        let result = unsafe {
            libc::fallocate(
                self.file.as_raw_fd(),
                mode,
                offset as libc::off_t,
                bytes as libc::off_t,
            )
        };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}

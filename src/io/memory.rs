//! Memory that is a slice and a file at once: a memfd, mapped twice.
//!
//! Called by `ram` (the slab's arena). The plain view is made of 4 KiB pages on purpose (`MADV_NOHUGEPAGE`): a hole punched
//! in part of a larger folio would let queued bytes of an earlier send change (measured on kernel 6.18). The huge view is aligned
//! so that blocks of 2 MiB can be made of one folio each ([`Memory::make_huge`]); which view a range is used through is the caller's to keep.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use memmap2::{MmapOptions, MmapRaw};

/// The page size that offsets and lengths of punches are aligned to.
pub const PAGE_BYTES: usize = 4096;
/// A huge page of x86-64 and of arm64 with 4 KiB pages.
pub const HUGE_BYTES: usize = 2 << 20;
/// `MADV_COLLAPSE`, Linux 6.1.
const MADV_COLLAPSE: libc::c_int = 25;

/// A memfd and its shared mappings.
#[derive(Debug)]
pub struct Memory {
    file: File,
    map: MmapRaw,
    huge: Option<HugeView>,
}

/// The same file at an address that is a multiple of a huge page.
#[derive(Debug)]
struct HugeView {
    /// Address space of the view and of what its alignment cost; unmapped with this value.
    reserved: MmapRaw,
    offset: usize,
}

/// Asks the kernel to back memory that has not been touched yet with huge pages, where whole ones fit.
pub fn prefer_huge_pages<T>(fresh: &mut [MaybeUninit<T>]) {
    let bytes = size_of_val(fresh);
    let start = fresh.as_mut_ptr().cast::<u8>();
    let lead = start.align_offset(HUGE_BYTES);
    let whole = bytes.saturating_sub(lead) / HUGE_BYTES * HUGE_BYTES;
    if whole == 0 {
        return;
    }
    // A refusal costs speed alone.
    // SAFETY: the range lies inside the slice; the advice changes no contents.
    unsafe { libc::madvise(start.wrapping_add(lead).cast(), whole, libc::MADV_HUGEPAGE) };
}

impl HugeView {
    fn new(file: &File, bytes: usize) -> io::Result<Self> {
        let reserved = MmapOptions::new()
            .len(bytes + HUGE_BYTES)
            .no_reserve_swap()
            .map_anon()?;
        let reserved = MmapRaw::from(reserved);
        let offset = reserved.as_ptr().align_offset(HUGE_BYTES);
        // SAFETY: `offset` is below HUGE_BYTES, so that the range lies inside the reservation.
        let start = unsafe { reserved.as_mut_ptr().add(offset) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        // SAFETY: replaces pages of our own reservation, which nobody has used.
        let mapped =
            unsafe { libc::mmap(start.cast(), bytes, protection, flags, file.as_raw_fd(), 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { reserved, offset })
    }

    fn base(&self) -> *mut u8 {
        self.reserved.as_mut_ptr().wrapping_add(self.offset)
    }
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
        let huge = HugeView::new(&file, bytes).ok();
        Ok(Self { file, map, huge })
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

    /// Start of the plain view; whoever writes or reads through it keeps the one-writer rule of `ram`.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Start of the view for ranges that were made huge, under the same rule; the plain one if there is none.
    #[must_use]
    pub fn huge_base(&self) -> *mut u8 {
        self.huge
            .as_ref()
            .map_or_else(|| self.base(), HugeView::base)
    }

    /// Backs a range that holds no pages (new, or punched) with zeroed huge pages. Works whatever the system's setting for shared
    /// memory is, short of `deny`.
    ///
    /// # Errors
    /// The kernel's: not supported (before Linux 6.1), or no contiguous memory. The range can still be used, page by page.
    pub fn make_huge(&self, offset: u64, bytes: usize) -> io::Result<()> {
        assert!(
            offset.is_multiple_of(HUGE_BYTES as u64) && bytes.is_multiple_of(HUGE_BYTES),
            "huge pages are whole"
        );
        assert!(offset as usize + bytes <= self.len(), "inside the region");
        let Some(view) = &self.huge else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        // SAFETY: inside the view (asserted).
        let start = unsafe { view.base().add(offset as usize) };
        // The kernel refuses a range without any page (6.18): one of each is brought in first.
        for at in (0..bytes).step_by(HUGE_BYTES) {
            // SAFETY: `at` is below the range's length.
            let first = unsafe { start.add(at) };
            // SAFETY: inside the view; the range holds nothing, so nobody reads it.
            unsafe { first.write_volatile(0) };
        }
        // SAFETY: inside the view; the advice changes no contents.
        let result = unsafe { libc::madvise(start.cast(), bytes, MADV_COLLAPSE) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
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

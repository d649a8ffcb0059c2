//! Memory that is a slice and a file at once: a memfd, mapped twice.
//!
//! Called by `ram` (the slab's arena). The plain view is made of 4 KiB pages on purpose (`MADV_NOHUGEPAGE`): a hole punched
//! in part of a larger folio would let queued bytes of an earlier send change (measured on kernel 6.18). The huge view is aligned
//! so that blocks of 2 MiB can be made of one folio each ([`Memory::make_huge`]); which view a range is used through is the caller's to keep.
//! It is of the whole file, so it is there only while the kernel makes no huge pages of shared memory unasked.

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

const NO_VIEW: &str = "shmem_enabled lets the kernel make huge pages of its own, or there is no address space for a second view";
/// The system's settings for huge pages of shared memory: of all sizes, and (Linux 6.11) of this one.
const SYSTEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const SYSTEM_THIS_SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/shmem_enabled";
/// `MADV_POPULATE_WRITE`, Linux 5.14.
const MADV_POPULATE_WRITE: libc::c_int = 23;

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

/// Whether khugepaged may make huge pages of a view that does not refuse them. It would of plain blocks too, whose slots are punched
/// alone; so there is no such view then.
fn kernel_makes_huge() -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    makes_huge(&read(SYSTEM), &read(SYSTEM_THIS_SIZE))
}

fn makes_huge(system: &str, this_size: &str) -> bool {
    let chosen = |setting: &str, word| setting.contains(word);
    let inherits = this_size.is_empty() || chosen(this_size, "[inherit]");
    let decides = if inherits { system } else { this_size };
    chosen(decides, "[always]") || chosen(decides, "[within_size]") || chosen(system, "[force]")
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
        let huge = if kernel_makes_huge() {
            None
        } else {
            HugeView::new(&file, bytes).ok()
        };
        Ok(Self { file, map, huge })
    }

    /// From now on the kernel refuses to punch: for tests of what happens then.
    #[cfg(test)]
    pub(crate) fn refuse_punches(&mut self) {
        let same = format!("/proc/self/fd/{}", self.fd());
        self.file = File::open(same).expect("our own file, to read only");
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
            return Err(io::Error::new(io::ErrorKind::Unsupported, NO_VIEW));
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

    /// Backs a range with pages of 4 KiB, as writing to each would.
    ///
    /// # Errors
    /// The kernel's: not supported (before Linux 5.14), or no memory. The range can still be used.
    pub fn populate(&self, offset: u64, bytes: usize) -> io::Result<()> {
        assert!(offset as usize + bytes <= self.len(), "inside the region");
        // SAFETY: inside the mapping (asserted).
        let start = unsafe { self.base().add(offset as usize) };
        // SAFETY: inside the mapping; the advice changes no contents.
        let result = unsafe { libc::madvise(start.cast(), bytes, MADV_POPULATE_WRITE) };
        if result < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Bytes that pages stand behind.
    ///
    /// # Errors
    /// The kernel's.
    pub fn backed_bytes(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.file.metadata()?.blocks() * 512)
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

#[cfg(test)]
mod tests {
    use super::makes_huge;

    #[test]
    fn only_a_kernel_that_waits_to_be_asked_gets_a_view_for_huge_pages() {
        let never = "always within_size advise [never] deny force\n";
        let always = "[always] within_size advise never deny force\n";
        let force = "always within_size advise never deny [force]\n";
        let inherit = "always [inherit] within_size advise never\n";
        let within_size = "always inherit [within_size] advise never\n";
        let advise = "always inherit within_size [advise] never\n";
        assert!(!makes_huge(never, inherit) && !makes_huge(never, "") && !makes_huge("", ""));
        assert!(makes_huge(always, inherit) && makes_huge(always, ""));
        assert!(makes_huge(never, within_size));
        assert!(!makes_huge(always, advise) && makes_huge(force, advise));
    }
}

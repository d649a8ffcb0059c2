//! A file that is complete and never changes, read window by window: mapped where that is safe, else copied by `read`.
//!
//! Called by `disk` for snapshots, on threads that may block. A mapping of a file that somebody else cuts short, or whose disk fails, would end the process
//! by SIGBUS. So: only on filesystems of this machine's own kernel; the length is checked before; every window is read in by
//! `MADV_POPULATE_READ`, which answers with an error where a touch would kill, and held in memory by `mlock` where the limit allows it. What is left is a person who
//! cuts a file of the cache directory on a local disk within the milliseconds that a window lives. Everywhere else, NFS and FUSE above all, it is `read`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use memmap2::{Advice, Mmap, MmapOptions};

/// `f_type` of ext2 to ext4, XFS, Btrfs, F2FS, ZFS and tmpfs.
const LOCAL: [u64; 6] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0x0102_1994,
];

/// A file of fixed length.
#[derive(Debug)]
pub struct Windows {
    file: File,
    bytes: u64,
    may_map: bool,
    map: Option<Mmap>,
    copy: Vec<u8>,
}

fn is_local(file: &File) -> bool {
    // SAFETY: all zeros is a value of this plain structure.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the descriptor is open and `found` valid for the call.
    let result = unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut found) };
    result == 0 && LOCAL.contains(&(found.f_type as u64 & 0xFFFF_FFFF))
}

impl Windows {
    /// Opens a file; `may_map`: unless its filesystem makes that unsafe.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(path: &Path, may_map: bool) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let may_map = may_map && is_local(&file);
        Ok(Self {
            file,
            bytes,
            may_map,
            map: None,
            copy: Vec::new(),
        })
    }

    /// Bytes of the file when it was opened.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether windows are mapped, as far as is known.
    #[must_use]
    pub fn maps(&self) -> bool {
        self.may_map
    }

    fn map(&self, offset: u64, bytes: usize) -> io::Result<Mmap> {
        let now = self.file.metadata()?.len();
        if now != self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the file is complete and nobody writes to it; what a cut or a broken disk would do is kept away as said on top.
        let map = unsafe { MmapOptions::new().offset(offset).len(bytes).map(&self.file) }?;
        map.advise(Advice::PopulateRead)?;
        // Beyond the limit of locked memory it goes without.
        let _ = map.lock();
        Ok(map)
    }

    /// `bytes` bytes from `offset`, a multiple of the page size. The window before it is gone.
    ///
    /// # Errors
    /// The kernel's, or the file is shorter than it was.
    pub fn window(&mut self, offset: u64, bytes: usize) -> io::Result<&[u8]> {
        if offset + bytes as u64 > self.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.map = None;
        if self.may_map {
            match self.map(offset, bytes) {
                Ok(map) => return Ok(self.map.insert(map)),
                // A kernel that cannot read in a mapping: then it is not mapped.
                Err(_) => self.may_map = false,
            }
        }
        self.copy.resize(bytes, 0);
        self.file.read_exact_at(&mut self.copy, offset)?;
        Ok(&self.copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_what_the_file_holds_mapped_or_not() {
        let path = std::env::temp_dir().join(format!("millrace-windows-{}", std::process::id()));
        let bytes: Vec<u8> = (0..40_000u32).map(|at| (at / 7) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        for may_map in [true, false] {
            let mut windows = Windows::open(&path, may_map).unwrap();
            assert_eq!(windows.bytes(), 40_000);
            assert_eq!(windows.window(4096, 30_000).unwrap(), &bytes[4096..34_096]);
            assert_eq!(windows.window(0, 10).unwrap(), &bytes[..10]);
            assert!(windows.window(36_864, 4096).is_err(), "behind its end");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_is_an_error_and_no_signal() {
        let path = std::env::temp_dir().join(format!("millrace-cut-{}", std::process::id()));
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        for may_map in [true, false] {
            let mut windows = Windows::open(&path, may_map).unwrap();
            assert_eq!(windows.window(0, 4096).unwrap()[4095], 7);
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(8192).unwrap();
            assert!(windows.window(65_536, 65_536).is_err());
            file.set_len(1 << 20).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
    }
}

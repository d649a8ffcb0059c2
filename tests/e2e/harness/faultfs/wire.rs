//! What the kernel's FUSE device speaks, as far as a cache directory needs it, and the mount itself.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;

pub const LOOKUP: u32 = 1;
pub const GETATTR: u32 = 3;
pub const SETATTR: u32 = 4;
pub const MKDIR: u32 = 9;
pub const UNLINK: u32 = 10;
pub const RMDIR: u32 = 11;
pub const RENAME: u32 = 12;
pub const LINK: u32 = 13;
pub const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
pub const STATFS: u32 = 17;
pub const RELEASE: u32 = 18;
pub const FSYNC: u32 = 20;
pub const FLUSH: u32 = 25;
pub const INIT: u32 = 26;
pub const OPENDIR: u32 = 27;
pub const READDIR: u32 = 28;
pub const RELEASEDIR: u32 = 29;
pub const FSYNCDIR: u32 = 30;
pub const CREATE: u32 = 35;
pub const INTERRUPT: u32 = 36;
pub const FALLOCATE: u32 = 43;
pub const RENAME2: u32 = 45;
/// Requests that have no answer: FORGET, BATCH_FORGET, DESTROY.
pub const SILENT: [u32; 3] = [2, 42, 38];

/// Bytes before a request's own.
const HEAD_BYTES: usize = 40;

/// One request.
pub struct Call<'r> {
    pub code: u32,
    pub unique: u64,
    pub node: u64,
    /// Arguments of fixed length, then names, then data.
    pub rest: &'r [u8],
}

impl<'r> Call<'r> {
    pub fn new(request: &'r [u8]) -> Call<'r> {
        let head = Call {
            code: 0,
            unique: 0,
            node: 0,
            rest: request,
        };
        Call {
            code: head.half(4),
            unique: head.number(8),
            node: head.number(16),
            rest: &request[HEAD_BYTES..],
        }
    }

    pub fn half(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.rest[at..at + 4].try_into().expect("four bytes"))
    }

    pub fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.rest[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The names behind `at` bytes of arguments.
    pub fn names(&self, at: usize) -> Vec<String> {
        let names = self.rest[at..].split(|&byte| byte == 0);
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        names.filter(|name| !name.is_empty()).map(text).collect()
    }

    /// Where the names begin that a request has.
    pub fn names_at(&self) -> Option<usize> {
        match self.code {
            LOOKUP | UNLINK | RMDIR => Some(0),
            MKDIR | RENAME | LINK => Some(8),
            RENAME2 | CREATE => Some(16),
            _ => None,
        }
    }

    pub fn name(&self) -> &'static str {
        match self.code {
            LOOKUP => "lookup",
            GETATTR => "getattr",
            SETATTR => "setattr",
            MKDIR => "mkdir",
            UNLINK => "unlink",
            RMDIR => "rmdir",
            RENAME | RENAME2 => "rename",
            LINK => "link",
            OPEN => "open",
            READ => "read",
            WRITE => "write",
            STATFS => "statfs",
            FSYNC | FSYNCDIR => "fsync",
            FLUSH => "flush",
            OPENDIR | READDIR => "readdir",
            CREATE => "create",
            FALLOCATE => "fallocate",
            _ => "other",
        }
    }

    /// Whether somebody waits for the answer.
    pub fn may_hang(&self) -> bool {
        self.code != INIT && !SILENT.contains(&self.code)
    }
}

/// Gives this thread a namespace of mounts of its own, and mounts the device that it returns.
#[expect(unsafe_code, reason = "std has no calls for namespaces and mounts")]
pub fn mount(at: &Path) -> std::io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,max_read=1048576",
        device.as_raw_fd()
    );
    let text = |text: &str| std::ffi::CString::new(text).expect("no zero in it");
    let (options, root, target) = (text(&options), text("/"), text(&at.to_string_lossy()));
    let (kind, none) = (text("fuse"), std::ptr::null());
    let checked = |result: i32| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: a plain system call.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the texts end with zeros and outlive the call; what is null may be.
    checked(unsafe { libc::mount(kind.as_ptr(), root.as_ptr(), none, private, none.cast()) })?;
    let (kind, target) = (kind.as_ptr(), target.as_ptr());
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    // SAFETY: as above.
    checked(unsafe { libc::mount(kind, target, kind, flags, options.as_ptr().cast()) })?;
    Ok(device)
}

/// Ends every request with an error and takes the mount away.
#[expect(unsafe_code, reason = "std has no call for it")]
pub fn unmount(at: &Path) {
    let target = std::ffi::CString::new(at.to_string_lossy().as_ref()).expect("no zero in it");
    for flags in [libc::MNT_FORCE, libc::MNT_DETACH] {
        // SAFETY: the text ends with a zero and outlives the call.
        let _ = unsafe { libc::umount2(target.as_ptr(), flags) };
    }
}

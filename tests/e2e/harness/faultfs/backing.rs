//! The calls of a healthy filesystem, done on a folder.

use super::wire::{
    CREATE, Call, FALLOCATE, FLUSH, FSYNC, FSYNCDIR, GETATTR, INIT, LOOKUP, MKDIR, OPEN, OPENDIR,
    READ, READDIR, RELEASE, RELEASEDIR, RENAME, RENAME2, RMDIR, SETATTR, SILENT, STATFS, UNLINK,
    WRITE,
};
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub type Reply = Result<Vec<u8>, i32>;

const ROOT: u64 = 1;
/// `FATTR_SIZE`.
const SET_SIZE: u32 = 1 << 3;
/// `FUSE_GETATTR_FH`.
const BY_HANDLE: u32 = 1;

#[derive(Default)]
struct Tables {
    /// Path of each node; the first two have no number that the kernel uses for others.
    paths: Vec<PathBuf>,
    nodes: HashMap<PathBuf, u64>,
    files: HashMap<u64, Arc<File>>,
    handles: u64,
}

/// The folder.
pub struct Backing {
    tables: Mutex<Tables>,
    pub refuse_direct: AtomicBool,
    pub free_bytes: AtomicU64,
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl Backing {
    pub fn new(root: &Path) -> Backing {
        let tables = Tables {
            paths: vec![PathBuf::new(), root.to_owned()],
            nodes: HashMap::from([(root.to_owned(), ROOT)]),
            ..Tables::default()
        };
        Backing {
            tables: Mutex::new(tables),
            refuse_direct: AtomicBool::new(false),
            free_bytes: AtomicU64::new(32 << 30),
        }
    }

    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().expect("the tables")
    }

    fn path(&self, node: u64) -> PathBuf {
        self.tables().paths[node as usize].clone()
    }

    /// The path that a request is about.
    pub fn described(&self, call: &Call<'_>) -> String {
        let mut path = self.path(call.node.max(ROOT));
        let name = call
            .names_at()
            .and_then(|at| call.names(at).into_iter().next());
        path.extend(name);
        path.to_string_lossy().into_owned()
    }

    /// Does it; nothing for what has no answer.
    pub fn act(&self, call: &Call<'_>, short: bool) -> Option<Reply> {
        if SILENT.contains(&call.code) {
            return None;
        }
        let result = match call.code {
            INIT => Ok(started(call)),
            LOOKUP | MKDIR | UNLINK | RMDIR | RENAME | RENAME2 | CREATE => self.on_names(call),
            GETATTR | SETATTR => self.attributes(call),
            OPEN | OPENDIR => self.open(call),
            READDIR => self.list(call),
            READ => self.read(call, short),
            WRITE => self.write(call, short),
            FSYNC | FLUSH | FSYNCDIR => Ok(Vec::new()),
            FALLOCATE => self.allocate(call),
            RELEASE | RELEASEDIR => {
                self.tables().files.remove(&call.number(0));
                Ok(Vec::new())
            }
            STATFS => Ok(self.space()),
            _ => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
        };
        Some(result.map_err(|error| errno(&error)))
    }

    fn on_names(&self, call: &Call<'_>) -> io::Result<Vec<u8>> {
        let folder = self.path(call.node);
        let names = call.names(call.names_at().unwrap_or(0));
        let path = folder.join(&names[0]);
        match call.code {
            LOOKUP => self.entry(&path),
            MKDIR => {
                std::fs::create_dir(&path)?;
                self.entry(&path)
            }
            UNLINK | RMDIR => {
                match call.code {
                    UNLINK => std::fs::remove_file(&path)?,
                    _ => std::fs::remove_dir(&path)?,
                }
                self.tables().nodes.remove(&path);
                Ok(Vec::new())
            }
            CREATE => {
                let mut options = OpenOptions::new();
                let file = options
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)?;
                let mut out = self.entry(&path)?;
                out.extend(self.opened(file));
                Ok(out)
            }
            _ => {
                let to = self.path(call.number(0)).join(&names[1]);
                std::fs::rename(&path, &to)?;
                let mut tables = self.tables();
                if let Some(node) = tables.nodes.remove(&path) {
                    tables.paths[node as usize] = to.clone();
                    tables.nodes.insert(to, node);
                }
                Ok(Vec::new())
            }
        }
    }

    fn entry(&self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = std::fs::symlink_metadata(path)?;
        let mut tables = self.tables();
        let node = match tables.nodes.get(path) {
            Some(node) => *node,
            None => {
                let node = tables.paths.len() as u64;
                tables.paths.push(path.to_owned());
                tables.nodes.insert(path.to_owned(), node);
                node
            }
        };
        // Nothing is cached: each call comes here.
        let mut out = Vec::new();
        for number in [node, 0, 0, 0, 0] {
            out.extend_from_slice(&u64::to_le_bytes(number));
        }
        out.extend(attributes_of(&metadata));
        Ok(out)
    }

    fn attributes(&self, call: &Call<'_>) -> io::Result<Vec<u8>> {
        if call.code == SETATTR && call.half(0) & SET_SIZE != 0 {
            let file = OpenOptions::new().write(true).open(self.path(call.node))?;
            file.set_len(call.number(16))?;
        }
        let by_handle = call.code == GETATTR && call.half(0) & BY_HANDLE != 0;
        let metadata = match by_handle {
            true => self.file(call.number(8))?.metadata()?,
            false => std::fs::symlink_metadata(self.path(call.node))?,
        };
        let mut out = vec![0; 16];
        out.extend(attributes_of(&metadata));
        Ok(out)
    }

    fn open(&self, call: &Call<'_>) -> io::Result<Vec<u8>> {
        let flags = call.half(0) as i32;
        if flags & libc::O_DIRECT != 0 && self.refuse_direct.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let path = self.path(call.node);
        let file = OpenOptions::new().read(true).write(writes).open(path)?;
        if flags & libc::O_TRUNC != 0 {
            file.set_len(0)?;
        }
        Ok(self.opened(file))
    }

    fn opened(&self, file: File) -> Vec<u8> {
        let mut tables = self.tables();
        tables.handles += 1;
        let handle = tables.handles;
        tables.files.insert(handle, Arc::new(file));
        let mut out = handle.to_le_bytes().to_vec();
        out.extend([0; 8]);
        out
    }

    fn file(&self, handle: u64) -> io::Result<Arc<File>> {
        let file = self.tables().files.get(&handle).map(Arc::clone);
        file.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    fn list(&self, call: &Call<'_>) -> io::Result<Vec<u8>> {
        let (from, room) = (call.number(8), call.half(16) as usize);
        let mut out = Vec::new();
        let entries = std::fs::read_dir(self.path(call.node))?;
        for (number, entry) in entries.enumerate().skip(from as usize) {
            let entry = entry?;
            let name = entry.file_name().into_encoded_bytes();
            let kind: u32 = if entry.file_type()?.is_dir() { 4 } else { 8 };
            if out.len() + (24 + name.len()).next_multiple_of(8) > room {
                break;
            }
            out.extend_from_slice(&u64::MAX.to_le_bytes());
            out.extend_from_slice(&(number as u64 + 1).to_le_bytes());
            out.extend_from_slice(&(name.len() as u32).to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            out.extend_from_slice(&name);
            out.resize(out.len().next_multiple_of(8), 0);
        }
        Ok(out)
    }

    fn read(&self, call: &Call<'_>, short: bool) -> io::Result<Vec<u8>> {
        let file = self.file(call.number(0))?;
        let wanted = call.half(16) as usize;
        let mut memory = vec![0; if short { wanted / 2 } else { wanted }];
        let mut read = 0;
        while read < memory.len() {
            match file.read_at(&mut memory[read..], call.number(8) + read as u64)? {
                0 => break,
                bytes => read += bytes,
            }
        }
        memory.truncate(read);
        Ok(memory)
    }

    fn write(&self, call: &Call<'_>, short: bool) -> io::Result<Vec<u8>> {
        let bytes = call.half(16) as usize;
        let bytes = if short { bytes / 2 } else { bytes };
        let file = self.file(call.number(0))?;
        file.write_all_at(&call.rest[40..40 + bytes], call.number(8))?;
        Ok((bytes as u64).to_le_bytes().to_vec())
    }

    fn allocate(&self, call: &Call<'_>) -> io::Result<Vec<u8>> {
        let file = self.file(call.number(0))?;
        let end = call.number(8) + call.number(16);
        if file.metadata()?.len() < end {
            file.set_len(end)?;
        }
        Ok(Vec::new())
    }

    fn space(&self) -> Vec<u8> {
        let block = 4096;
        let free = self.free_bytes.load(Ordering::SeqCst) / block;
        let mut out = Vec::new();
        for number in [(64 << 30) / block, free, free, 1 << 20, 1 << 20] {
            out.extend_from_slice(&u64::to_le_bytes(number));
        }
        for number in [block as u32, 255, block as u32, 0, 0, 0, 0, 0, 0, 0] {
            out.extend_from_slice(&u32::to_le_bytes(number));
        }
        out
    }
}

/// The answer to the first request: this version of the protocol, reads beside each other, writes of 1 MiB.
fn started(call: &Call<'_>) -> Vec<u8> {
    const ASYNC_READ: u32 = 1;
    const BIG_WRITES: u32 = 1 << 5;
    const PARALLEL_FOLDERS: u32 = 1 << 18;
    const MAX_PAGES: u32 = 1 << 22;
    let flags = call.half(12) & (ASYNC_READ | BIG_WRITES | PARALLEL_FOLDERS | MAX_PAGES);
    let mut out = Vec::new();
    for number in [7, 31, 1 << 20, flags] {
        out.extend_from_slice(&u32::to_le_bytes(number));
    }
    for number in [1024, 1024] {
        out.extend_from_slice(&u16::to_le_bytes(number));
    }
    for number in [1 << 20, 1] {
        out.extend_from_slice(&u32::to_le_bytes(number));
    }
    out.extend_from_slice(&256u16.to_le_bytes());
    out.resize(64, 0);
    out
}

fn attributes_of(metadata: &Metadata) -> Vec<u8> {
    let mut out = Vec::new();
    let times = [metadata.atime(), metadata.mtime(), metadata.ctime()];
    for number in [metadata.ino(), metadata.len(), metadata.blocks()] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for time in times {
        out.extend_from_slice(&time.to_le_bytes());
    }
    let links = metadata.nlink() as u32;
    for number in [0, 0, 0, metadata.mode(), links, 0, 0, 0, 4096, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out
}

//! The log thread: takes full buffers from all shards and writes them where the log goes.
//!
//! Called by [`super::AccessLog`], which starts and ends it. Invariants: what a shard handed over is written, or
//! counted as lost; after a write that failed halfway the next line begins on a line of its own; only this thread
//! holds the file.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{AccessLogError, Buffer, Shared};
use crate::metrics::Counter;

/// How long to let a reader of a full, non-blocking standard output catch up before trying again.
const RETRY: Duration = Duration::from_millis(10);

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nowhere: nothing is recorded.
    Off,
    /// The standard output.
    Stdout,
    /// A file, appended to; made readable and writable for its owner alone.
    File(PathBuf),
}

/// An open target.
#[derive(Debug)]
pub(super) struct Sink {
    file: File,
    /// Where to open it again; none for the standard output.
    path: Option<PathBuf>,
    /// The last write ended inside a line.
    torn: bool,
    /// The last write failed: said once, not for each buffer.
    failing: bool,
}

impl Sink {
    /// Opens the target, or says why not; `None` when the log is off.
    pub(super) fn open(target: &Target) -> Result<Option<Self>, AccessLogError> {
        let (file, path) = match target {
            Target::Off => return Ok(None),
            Target::Stdout => {
                let descriptor = io::stdout().as_fd().try_clone_to_owned();
                (
                    File::from(descriptor.map_err(AccessLogError::Stdout)?),
                    None,
                )
            }
            Target::File(path) => (append_to(path)?, Some(path.clone())),
        };
        Ok(Some(Self {
            file,
            path,
            torn: false,
            failing: false,
        }))
    }

    /// Opens the path again, after somebody renamed the file. Keeps the old file when that fails.
    fn reopen(&mut self) {
        let Some(path) = &self.path else {
            return;
        };
        match append_to(path) {
            Ok(file) => {
                self.file = file;
                self.torn = false;
            }
            Err(error) => {
                tracing::error!(%error, "access log: not reopened, writing on to the old file")
            }
        }
    }

    /// Writes all of `lines`; returns how many of its bytes were written when that fails.
    fn write(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        if self.torn {
            self.write_all(b"\n").map_err(|(_, error)| (0, error))?;
            self.torn = false;
        }
        let result = self.write_all(lines);
        if let Err((written, _)) = &result {
            self.torn = *written > 0 && lines[written - 1] != b'\n';
        }
        result
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < bytes.len() {
            match self.file.write(&bytes[written..]) {
                Ok(0) => return Err((written, ErrorKind::WriteZero.into())),
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::park_timeout(RETRY),
                Err(error) => return Err((written, error)),
            }
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> Result<File, AccessLogError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| AccessLogError::Open {
            path: path.to_owned(),
            source,
        })
}

/// Writes until told to stop, then what is left.
pub(super) fn run(shared: &Arc<Shared>, mut sink: Sink) {
    loop {
        // Read before draining: whoever asked to stop handed its last buffer over before.
        let stopping = shared.stop.load(Ordering::Acquire);
        if shared.reopen.swap(false, Ordering::AcqRel) {
            sink.reopen();
        }
        let wrote = drain(shared, &mut sink);
        if stopping {
            return;
        }
        if !wrote {
            thread::park();
        }
    }
}

/// Writes what all shards have handed over; one buffer of each in turn, so that no shard starves another.
fn drain(shared: &Shared, sink: &mut Sink) -> bool {
    let mut wrote = false;
    loop {
        let mut wrote_now = false;
        for lane in &shared.lanes {
            if let Some(mut buffer) = lane.full.pop() {
                write(shared, sink, &buffer);
                buffer.clear();
                lane.empty
                    .push(buffer)
                    .expect("a lane has room for all its buffers");
                wrote_now = true;
            }
        }
        if !wrote_now {
            return wrote;
        }
        wrote = true;
    }
}

fn write(shared: &Shared, sink: &mut Sink, buffer: &Buffer) {
    let metrics = shared.registry.global();
    match sink.write(&buffer.bytes) {
        Ok(()) => {
            metrics.add(Counter::AccessLogBytes, buffer.bytes.len() as u64);
            if sink.failing {
                sink.failing = false;
                tracing::info!("access log: written again");
            }
        }
        Err((written, error)) => {
            metrics.add(Counter::AccessLogBytes, written as u64);
            let lost = buffer.bytes[written..]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            metrics.add(Counter::AccessLogDropped, lost as u64);
            if !sink.failing {
                sink.failing = true;
                tracing::error!(%error, lost, "access log: lines are lost");
            }
        }
    }
}

//! The access log: one JSON line per request and per tunnel, written by its own thread.
//!
//! Called by `request/report` and `request/tunnel` on every shard ([`ShardLog::record`], [`ShardLog::record_tunnel`]), by the shard's tick once a second
//! ([`ShardLog::flush`]) and by the server at start and end ([`AccessLog`]). Invariants: recording never waits, takes
//! no lock and allocates nothing; each shard has a fixed number of buffers that circle between it and the log thread,
//! and when all of them wait to be written, lines are dropped and counted. Rotation (who renames, how many files are
//! kept) is left to the system's tools: they rename, then ask for [`Rotation::reopen`].

mod record;
mod tunnel;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::metrics::{Counter, Registry};

pub use record::Record;
pub use tunnel::TunnelRecord;
pub use writer::Target;

use record::LINE_BYTES_MAX;
use writer::Sink;

/// A buffer is handed over when it holds this much.
const BUFFER_BYTES: usize = 64 << 10;

/// Buffers of one shard: 1 MiB of lines may wait for a slow disk.
const BUFFERS_PER_SHARD: usize = 16;

/// Why there is no access log.
#[derive(Debug, thiserror::Error)]
pub enum AccessLogError {
    /// The file cannot be opened for appending.
    #[error("access log {}: {source}", path.display())]
    Open {
        /// The file as it is set.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The standard output cannot be used.
    #[error("access log on the standard output: {0}")]
    Stdout(io::Error),
    /// The log thread cannot be started.
    #[error("access log thread: {0}")]
    Thread(io::Error),
    /// At shutdown the log could not be written in time: what was not written is lost.
    #[error("access log: {unwritten} buffers were not written within {waited:?}")]
    Unwritten {
        /// How many buffers of up to 64 KiB.
        unwritten: usize,
        /// How long was waited.
        waited: Duration,
    },
}

/// Whole lines, handed between a shard and the log thread.
#[derive(Debug)]
struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    /// Room for a whole line behind a buffer that is just not full, so that it never grows.
    fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(BUFFER_BYTES + LINE_BYTES_MAX),
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// The way between one shard and the log thread.
#[derive(Debug)]
struct Lane {
    full: ArrayQueue<Buffer>,
    empty: ArrayQueue<Buffer>,
}

impl Lane {
    fn new() -> Self {
        let lane = Self {
            full: ArrayQueue::new(BUFFERS_PER_SHARD),
            empty: ArrayQueue::new(BUFFERS_PER_SHARD),
        };
        for _ in 0..BUFFERS_PER_SHARD {
            lane.empty
                .push(Buffer::new())
                .expect("an empty lane has room");
        }
        lane
    }
}

/// What the shards and the log thread share.
#[derive(Debug)]
struct Shared {
    lanes: Box<[Lane]>,
    registry: Arc<Registry>,
    stop: AtomicBool,
    reopen: AtomicBool,
}

/// The log thread, from the server's side.
#[derive(Debug)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// None when the log is off.
    thread: Option<LogThread>,
}

#[derive(Debug)]
struct LogThread {
    thread: Thread,
    /// Disconnected when the thread has ended.
    ended: mpsc::Receiver<()>,
}

/// One shard's end of the log. Used by the thread of that shard alone; hands its last lines over when dropped.
#[derive(Debug)]
pub struct ShardLog {
    shard: usize,
    /// The buffer being filled.
    current: Option<Buffer>,
    shared: Arc<Shared>,
    /// Whom to wake; none when the log is off.
    thread: Option<Thread>,
}

/// Asks the log thread to open its file again; may be cloned and called on any thread.
#[derive(Debug, Clone)]
pub struct Rotation {
    shared: Arc<Shared>,
    thread: Option<Thread>,
}

impl AccessLog {
    /// Opens `target` and starts the log thread; returns one [`ShardLog`] for each shard of `registry`.
    pub fn start(
        target: &Target,
        registry: Arc<Registry>,
    ) -> Result<(Self, Vec<ShardLog>), AccessLogError> {
        let sink = Sink::open(target)?;
        let lanes = if sink.is_some() { registry.shards() } else { 0 };
        let shards = registry.shards();
        let shared = Arc::new(Shared {
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
            registry,
            stop: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let thread = sink
            .map(|sink| LogThread::start(&shared, sink))
            .transpose()?;
        let waked = thread.as_ref().map(|log| log.thread.clone());
        let shard_log = |shard| ShardLog {
            shard,
            current: None,
            shared: Arc::clone(&shared),
            thread: waked.clone(),
        };
        let shard_logs = (0..shards).map(shard_log).collect();
        Ok((Self { shared, thread }, shard_logs))
    }

    /// A handle to have the file opened again.
    pub fn rotation(&self) -> Rotation {
        let thread = self.thread.as_ref().map(|log| log.thread.clone());
        Rotation {
            shared: Arc::clone(&self.shared),
            thread,
        }
    }

    /// Writes what was handed over and ends the thread. Call it when every [`ShardLog`] was dropped or flushed: then
    /// no line is lost, unless the target takes nothing for as long as `wait`.
    pub fn shutdown(self, wait: Duration) -> Result<(), AccessLogError> {
        let Some(log) = self.thread else {
            return Ok(());
        };
        self.shared.stop.store(true, Ordering::Release);
        log.thread.unpark();
        match log.ended.recv_timeout(wait) {
            Err(mpsc::RecvTimeoutError::Disconnected) | Ok(()) => Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let unwritten = self
                    .shared
                    .lanes
                    .iter()
                    .map(|lane| lane.full.len())
                    .sum::<usize>()
                    + 1;
                Err(AccessLogError::Unwritten {
                    unwritten,
                    waited: wait,
                })
            }
        }
    }
}

impl LogThread {
    fn start(shared: &Arc<Shared>, sink: Sink) -> Result<Self, AccessLogError> {
        let (alive, ended) = mpsc::channel();
        let shared = Arc::clone(shared);
        let run = move || {
            writer::run(&shared, sink);
            drop(alive);
        };
        let started = thread::Builder::new()
            .name(String::from("millrace-log"))
            .spawn(run);
        let thread = started.map_err(AccessLogError::Thread)?.thread().clone();
        Ok(Self { thread, ended })
    }
}

impl Rotation {
    /// What is written from now on goes to the file that is found, or made, at the path. The standard output stays.
    pub fn reopen(&self) {
        if let Some(thread) = &self.thread {
            self.shared.reopen.store(true, Ordering::Release);
            thread.unpark();
        }
    }
}

impl ShardLog {
    /// Records one request. When the log thread is behind by all buffers, the line is dropped and counted.
    pub fn record(&mut self, record: &Record<'_>) {
        self.line(|shard, out| record.write(shard, out));
    }

    /// Records one tunnel, in the same way.
    pub fn record_tunnel(&mut self, record: &TunnelRecord<'_>) {
        self.line(|shard, out| record.write(shard, out));
    }

    fn line(&mut self, write: impl FnOnce(usize, &mut Vec<u8>)) {
        if self.thread.is_none() {
            return;
        }
        let metrics = self.shared.registry.shard(self.shard);
        if self.current.is_none() {
            self.current = self.shared.lanes[self.shard].empty.pop();
        }
        let Some(buffer) = &mut self.current else {
            metrics.count(Counter::AccessLogDropped);
            return;
        };
        write(self.shard, &mut buffer.bytes);
        metrics.count(Counter::AccessLogLines);
        if buffer.bytes.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Hands the lines recorded so far to the log thread. To be called once a second, so that a quiet shard's lines
    /// are seen, and before the shard ends.
    pub fn flush(&mut self) {
        let Some(thread) = &self.thread else {
            return;
        };
        if let Some(buffer) = self.current.take() {
            self.shared.lanes[self.shard]
                .full
                .push(buffer)
                .expect("a lane has room for all its buffers");
            thread.unpark();
        }
    }
}

impl Drop for ShardLog {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::process::Command;

    use super::*;
    use crate::base::clock;
    use crate::metrics::Outcome;

    const SOON: Duration = Duration::from_secs(10);

    /// A directory of its own for one test, removed with it.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("millrace-log-{}-{test}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _gone_with_the_temporary_directory = fs::remove_dir_all(&self.0);
        }
    }

    fn record(key: &str) -> Record<'_> {
        Record {
            time_unix_ms: 0,
            client: "127.0.0.1:1".parse().expect("an address"),
            door: "http",
            tls: "",
            method: b"GET",
            host: b"localhost",
            bucket: b"b",
            key: key.as_bytes(),
            status: 200,
            bytes_sent: 0,
            range: b"",
            result: Outcome::Hit,
            origin_status: None,
            by_fallback: false,
            duration_us: 1,
            first_byte_us: None,
            request_id: b"",
            operation: "GetObject",
            user_agent: b"",
            error: None,
        }
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path)
            .unwrap_or_default()
            .lines()
            .map(String::from)
            .collect()
    }

    fn until(what: &str, condition: impl Fn() -> bool) {
        let deadline_ms = clock::now_ms() + SOON.as_millis() as u64;
        while !condition() {
            assert!(clock::now_ms() < deadline_ms, "{what}");
            thread::yield_now();
        }
    }

    /// Records numbered lines, as fast as the log thread returns buffers.
    fn record_lines(shard: &mut ShardLog, lines: usize) {
        for line in 0..lines {
            let lane = &shard.shared.lanes[shard.shard];
            while shard.current.is_none() && lane.empty.is_empty() {
                thread::yield_now();
            }
            shard.record(&record(&line.to_string()));
        }
    }

    #[test]
    fn shutdown_loses_no_line_of_any_shard() {
        const LINES: usize = 20_000;
        let directory = Directory::new("shutdown");
        let path = directory.file("log");
        let registry = Registry::new(3);
        let (log, shards) =
            AccessLog::start(&Target::File(path.clone()), Arc::clone(&registry)).expect("a log");
        thread::scope(|scope| {
            for mut shard in shards {
                scope.spawn(move || record_lines(&mut shard, LINES));
            }
        });
        log.shutdown(SOON).expect("written");
        let lines = lines(&path);
        assert_eq!(lines.len(), 3 * LINES);
        for shard in 0..3 {
            let mine = lines
                .iter()
                .filter(|line| line.contains(&format!("\"shard\":{shard},")));
            for (number, line) in mine.enumerate() {
                assert!(line.contains(&format!("\"key\":\"{number}\"")), "{line}");
            }
        }
        assert_eq!(registry.total(Counter::AccessLogLines), 3 * LINES as u64);
        assert_eq!(registry.total(Counter::AccessLogDropped), 0);
        let bytes = fs::metadata(&path).expect("a file").len();
        assert_eq!(registry.total(Counter::AccessLogBytes), bytes);
    }

    #[test]
    fn a_log_that_is_behind_drops_lines_and_counts_them() {
        let directory = Directory::new("behind");
        let path = directory.file("log");
        let registry = Registry::new(1);
        let (log, mut shards) =
            AccessLog::start(&Target::File(path.clone()), Arc::clone(&registry)).expect("a log");
        let shard = &mut shards[0];
        let held: Vec<_> = std::iter::from_fn(|| shard.shared.lanes[0].empty.pop()).collect();
        shard.record(&record("dropped"));
        shard.record(&record("dropped"));
        assert_eq!(registry.total(Counter::AccessLogDropped), 2);
        for buffer in held {
            shard.shared.lanes[0].empty.push(buffer).expect("room");
        }
        shard.record(&record("kept"));
        drop(shards);
        log.shutdown(SOON).expect("written");
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(registry.total(Counter::AccessLogLines), 1);
    }

    #[test]
    fn a_flushed_line_is_written_while_the_shard_goes_on() {
        let directory = Directory::new("flush");
        let path = directory.file("log");
        let (log, mut shards) =
            AccessLog::start(&Target::File(path.clone()), Registry::new(1)).expect("a log");
        shards[0].record(&record("quiet"));
        assert!(lines(&path).is_empty());
        shards[0].flush();
        until("the line is written", || lines(&path).len() == 1);
        drop(shards);
        log.shutdown(SOON).expect("written");
        assert_eq!(lines(&path).len(), 1);
    }

    #[test]
    fn rotation_writes_on_to_a_new_file_and_loses_nothing() {
        let directory = Directory::new("rotation");
        let (path, rotated) = (directory.file("log"), directory.file("log.1"));
        let (log, mut shards) =
            AccessLog::start(&Target::File(path.clone()), Registry::new(1)).expect("a log");
        shards[0].record(&record("before"));
        shards[0].flush();
        until("the first line is written", || lines(&path).len() == 1);
        fs::rename(&path, &rotated).expect("renamed");
        log.rotation().reopen();
        until("the file is made anew", || path.exists());
        shards[0].record(&record("after"));
        drop(shards);
        log.shutdown(SOON).expect("written");
        assert!(lines(&rotated)[0].contains("before"));
        assert!(lines(&path)[0].contains("after"));
        assert_eq!((lines(&rotated).len(), lines(&path).len()), (1, 1));
    }

    #[test]
    fn the_file_is_appended_to_and_for_its_owner_alone() {
        let directory = Directory::new("append");
        let path = directory.file("log");
        for start in 1..=2 {
            let (log, mut shards) =
                AccessLog::start(&Target::File(path.clone()), Registry::new(1)).expect("a log");
            shards[0].record(&record("again"));
            drop(shards);
            log.shutdown(SOON).expect("written");
            assert_eq!(lines(&path).len(), start);
        }
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }

    #[test]
    fn a_full_disk_costs_counted_lines_and_stops_nobody() {
        let registry = Registry::new(1);
        let full = Target::File(PathBuf::from("/dev/full"));
        let (log, mut shards) = AccessLog::start(&full, Arc::clone(&registry)).expect("a log");
        for _ in 0..3 {
            shards[0].record(&record("lost"));
        }
        drop(shards);
        log.shutdown(SOON).expect("ended");
        assert_eq!(registry.total(Counter::AccessLogDropped), 3);
    }

    #[test]
    fn a_target_that_takes_nothing_holds_shutdown_up_for_no_longer_than_allowed() {
        let directory = Directory::new("stuck");
        let path = directory.file("pipe");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo runs").success());
        // Each end of a FIFO waits for the other to be opened.
        let opening = thread::spawn({
            let path = path.clone();
            move || fs::File::open(path)
        });
        let (log, mut shards) =
            AccessLog::start(&Target::File(path), Registry::new(1)).expect("a log");
        let mut reader = opening.join().expect("opened").expect("a pipe");
        record_lines(&mut shards[0], 1_000);
        drop(shards);
        let error = log
            .shutdown(Duration::from_millis(50))
            .expect_err("nobody reads");
        assert!(matches!(
            error,
            AccessLogError::Unwritten { unwritten: 1.., .. }
        ));
        io::copy(&mut reader, &mut io::sink()).expect("the log thread ends when it can");
    }

    #[test]
    fn a_log_that_is_off_records_nothing_and_has_no_thread() {
        let registry = Registry::new(1);
        let (log, mut shards) =
            AccessLog::start(&Target::Off, Arc::clone(&registry)).expect("a log");
        shards[0].record(&record("nothing"));
        shards[0].flush();
        log.rotation().reopen();
        log.shutdown(SOON).expect("nothing to do");
        assert_eq!(registry.total(Counter::AccessLogLines), 0);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error_at_start() {
        let target = Target::File(PathBuf::from("/nowhere/log"));
        let error = AccessLog::start(&target, Registry::new(1)).expect_err("no such directory");
        assert!(
            error.to_string().starts_with("access log /nowhere/log: "),
            "{error}"
        );
    }

    #[test]
    fn recording_does_not_grow_a_buffer() {
        let directory = Directory::new("growth");
        let (log, mut shards) =
            AccessLog::start(&Target::File(directory.file("log")), Registry::new(1))
                .expect("a log");
        let key = "\u{1}".repeat(4_096);
        let before = Buffer::new().bytes.capacity();
        for _ in 0..100 {
            shards[0].record(&record(&key));
            if let Some(buffer) = &shards[0].current {
                assert_eq!(buffer.bytes.capacity(), before);
            }
        }
        drop(shards);
        log.shutdown(SOON).expect("written");
    }
}

//! What an origin counts: requests by method, connections, body bytes, all also per key, and a log of requests.
//!
//! Written by both origins on every request, read through the side port and in-process by tests. Invariants: bytes
//! are counted as they are handed to the socket, so a cut body counts what went out; a request that never gets its
//! answer is in the log from the moment its head was read. Keys are `bucket/key` as they were on the wire.
//! Bounds: [`KEYS_MAX`] keys (further ones count in the totals only), [`LOG_MAX`] log entries (the oldest go).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use crate::Headers;

/// Keys counted one by one.
pub const KEYS_MAX: usize = 100_000;
/// Log entries kept.
pub const LOG_MAX: usize = 100_000;

/// Counters of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCounts {
    /// GET requests.
    pub gets: u64,
    /// HEAD requests.
    pub heads: u64,
    /// PUT requests.
    pub puts: u64,
    /// Other requests.
    pub others: u64,
    /// Body bytes sent in answers.
    pub bytes: u64,
}

/// `GET /stats`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// All requests whose head was read.
    pub requests: u64,
    /// GET requests.
    pub get_requests: u64,
    /// HEAD requests.
    pub head_requests: u64,
    /// PUT requests.
    pub put_requests: u64,
    /// Requests of other methods.
    pub other_requests: u64,
    /// Body bytes handed to the socket, without heads and chunk framing.
    pub body_bytes_sent: u64,
    /// Request body bytes read, without chunk framing.
    pub body_bytes_received: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now; not touched by a reset.
    pub connections_open: u64,
    /// Log entries lost to the bound.
    pub log_dropped: u64,
    /// By `bucket/key`, as on the wire.
    pub keys: BTreeMap<String, KeyCounts>,
}

/// One request, `GET /log`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// Position since the last reset, from 0.
    pub serial: u64,
    /// Number of the connection, from 0 since the start of the origin.
    pub connection: u64,
    /// Method as sent.
    pub method: String,
    /// Request target as sent.
    pub target: String,
    /// `Host`.
    pub host: Option<String>,
    /// `Range`.
    pub range: Option<String>,
    /// `If-Match`.
    pub if_match: Option<String>,
    /// How many header lines there were.
    pub headers_count: usize,
    /// The header lines in order, names as sent.
    pub headers: Headers,
    /// Request body bytes read so far, without chunk framing.
    pub body_bytes: u64,
    /// Hex SHA-256 of those bytes, once the body was read to its end.
    pub body_sha256: Option<String>,
    /// Status answered; 0 while there is none.
    pub status: u16,
    /// Body bytes handed to the socket.
    pub sent: u64,
    /// Names of the faults that applied.
    pub faults: Vec<String>,
    /// True once the origin is done with it, whether well or by a cut.
    pub done: bool,
}

#[derive(Debug, Default)]
struct Totals {
    requests: [AtomicU64; 4],
    body_bytes_sent: AtomicU64,
    body_bytes_received: AtomicU64,
    connections: AtomicU64,
    connections_open: AtomicU64,
    connections_ever: AtomicU64,
}

#[derive(Debug, Default)]
struct KeyCell {
    requests: [AtomicU64; 4],
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Tables {
    keys: HashMap<String, Arc<KeyCell>>,
    log: VecDeque<Arc<Mutex<LogEntry>>>,
    log_next: u64,
    log_dropped: u64,
}

/// The counters of one origin.
#[derive(Debug, Default)]
pub struct Stats {
    totals: Totals,
    tables: Mutex<Tables>,
}

const GET: usize = 0;
const HEAD: usize = 1;
const PUT: usize = 2;
const OTHER: usize = 3;

fn class_of(method: &str) -> usize {
    match method {
        "GET" => GET,
        "HEAD" => HEAD,
        "PUT" => PUT,
        _ => OTHER,
    }
}

impl Stats {
    /// Counts a new connection until the guard goes.
    pub fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.totals.connections.fetch_add(1, Relaxed);
        self.totals.connections_open.fetch_add(1, Relaxed);
        let number = self.totals.connections_ever.fetch_add(1, Relaxed);
        ConnectionGuard {
            stats: Arc::clone(self),
            number,
        }
    }

    /// Counts a request and opens its log entry; `entry.serial` is set here.
    pub fn request(self: &Arc<Self>, key: &str, mut entry: LogEntry) -> RequestRecord {
        let class = class_of(&entry.method);
        self.totals.requests[class].fetch_add(1, Relaxed);
        let mut tables = self.tables.lock().expect("no panic while it is held");
        let cell = match tables.keys.get(key) {
            Some(cell) => Arc::clone(cell),
            None => {
                let cell = Arc::new(KeyCell::default());
                if tables.keys.len() < KEYS_MAX {
                    tables.keys.insert(key.to_string(), Arc::clone(&cell));
                }
                cell
            }
        };
        cell.requests[class].fetch_add(1, Relaxed);
        entry.serial = tables.log_next;
        tables.log_next += 1;
        let entry = Arc::new(Mutex::new(entry));
        if tables.log.len() == LOG_MAX {
            tables.log.pop_front();
            tables.log_dropped += 1;
        }
        tables.log.push_back(Arc::clone(&entry));
        RequestRecord {
            stats: Arc::clone(self),
            cell,
            entry,
        }
    }

    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let read = |cell: &AtomicU64| cell.load(Relaxed);
        let by_class = |class: usize| read(&self.totals.requests[class]);
        let tables = self.tables.lock().expect("no panic while it is held");
        let keys = tables.keys.iter().map(|(key, cell)| {
            let counts = KeyCounts {
                gets: read(&cell.requests[GET]),
                heads: read(&cell.requests[HEAD]),
                puts: read(&cell.requests[PUT]),
                others: read(&cell.requests[OTHER]),
                bytes: read(&cell.bytes),
            };
            (key.clone(), counts)
        });
        Snapshot {
            requests: (GET..=OTHER).map(by_class).sum(),
            get_requests: by_class(GET),
            head_requests: by_class(HEAD),
            put_requests: by_class(PUT),
            other_requests: by_class(OTHER),
            body_bytes_sent: read(&self.totals.body_bytes_sent),
            body_bytes_received: read(&self.totals.body_bytes_received),
            connections: read(&self.totals.connections),
            connections_open: read(&self.totals.connections_open),
            log_dropped: tables.log_dropped,
            keys: keys.collect(),
        }
    }

    /// The log, oldest first.
    pub fn log(&self) -> Vec<LogEntry> {
        let tables = self.tables.lock().expect("no panic while it is held");
        tables
            .log
            .iter()
            .map(|entry| entry.lock().expect("no panic while it is held").clone())
            .collect()
    }

    /// All counters to zero and the log empty. What is under way goes on counting in the totals.
    pub fn reset(&self) {
        let mut tables = self.tables.lock().expect("no panic while it is held");
        *tables = Tables::default();
        let totals = &self.totals;
        let cells = [
            &totals.body_bytes_sent,
            &totals.body_bytes_received,
            &totals.connections,
        ];
        for cell in totals.requests.iter().chain(cells) {
            cell.store(0, Relaxed);
        }
    }
}

/// One open connection.
#[derive(Debug)]
pub struct ConnectionGuard {
    stats: Arc<Stats>,
    number: u64,
}

impl ConnectionGuard {
    /// The connection's number, as in the log.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.stats.totals.connections_open.fetch_sub(1, Relaxed);
    }
}

/// One request under way.
#[derive(Debug)]
pub struct RequestRecord {
    stats: Arc<Stats>,
    cell: Arc<KeyCell>,
    entry: Arc<Mutex<LogEntry>>,
}

impl RequestRecord {
    /// Body bytes handed to the socket.
    pub fn sent(&self, bytes: u64) {
        self.stats.totals.body_bytes_sent.fetch_add(bytes, Relaxed);
        self.cell.bytes.fetch_add(bytes, Relaxed);
        self.edit(|entry| entry.sent += bytes);
    }

    /// Request body bytes read.
    pub fn received(&self, bytes: u64) {
        self.stats
            .totals
            .body_bytes_received
            .fetch_add(bytes, Relaxed);
        self.edit(|entry| entry.body_bytes += bytes);
    }

    /// Changes the log entry.
    pub fn edit(&self, change: impl FnOnce(&mut LogEntry)) {
        change(&mut self.entry.lock().expect("no panic while it is held"));
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.edit(|entry| entry.done = true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(method: &str) -> LogEntry {
        LogEntry {
            method: method.into(),
            target: "/b/k".into(),
            ..LogEntry::default()
        }
    }

    #[test]
    fn requests_and_bytes_count_in_total_and_per_key() {
        let stats = Arc::new(Stats::default());
        stats.request("b/k", entry("GET")).sent(100);
        stats.request("b/k", entry("HEAD"));
        stats.request("b/other", entry("PUT")).received(7);
        stats.request("b/k", entry("DELETE"));
        let now = stats.snapshot();
        assert_eq!(
            (
                now.requests,
                now.get_requests,
                now.head_requests,
                now.put_requests
            ),
            (4, 1, 1, 1)
        );
        assert_eq!(
            (
                now.other_requests,
                now.body_bytes_sent,
                now.body_bytes_received
            ),
            (1, 100, 7)
        );
        assert_eq!(
            now.keys["b/k"],
            KeyCounts {
                gets: 1,
                heads: 1,
                puts: 0,
                others: 1,
                bytes: 100
            }
        );
    }

    #[test]
    fn an_unfinished_request_is_in_the_log() {
        let stats = Arc::new(Stats::default());
        let record = stats.request("b/k", entry("GET"));
        assert_eq!((stats.log()[0].done, stats.log()[0].status), (false, 0));
        record.edit(|entry| entry.status = 200);
        drop(record);
        assert_eq!((stats.log()[0].done, stats.log()[0].status), (true, 200));
    }

    #[test]
    fn reset_zeroes_all_but_what_is_open() {
        let stats = Arc::new(Stats::default());
        let connection = stats.connection();
        stats.request("b/k", entry("GET")).sent(1);
        stats.reset();
        assert_eq!(
            stats.snapshot(),
            Snapshot {
                connections_open: 1,
                ..Snapshot::default()
            }
        );
        assert!(stats.log().is_empty());
        drop(connection);
        assert_eq!(stats.snapshot().connections_open, 0);
    }
}

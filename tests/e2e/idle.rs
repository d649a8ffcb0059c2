//! What a connection costs that waits for its next request: memory of the server's process, for each of ten thousand.

use super::harness::store::Object;
use super::harness::{Ask, Connection, KIB, Millrace, Store, Tile, wait_until};
use std::time::{Duration, Instant};

const CONNECTIONS: u64 = 10_000;
/// What one may cost, all buffers and tasks of it together.
const BYTES_MAX: u64 = 64 * KIB;
/// Descriptors of this process that are not the clients'.
const SPARE_DESCRIPTORS: u64 = 512;
/// A request head that makes every buffer of a connection grow: many signed headers.
const LONG_HEAD: usize = 14 * 1024;

/// Memory of a process, in bytes.
#[derive(Clone, Copy)]
struct Memory {
    resident: u64,
    proportional: u64,
    anonymous: u64,
}

impl Memory {
    #[track_caller]
    fn of(process: u32) -> Memory {
        let path = format!("/proc/{process}/smaps_rollup");
        let text = std::fs::read_to_string(path).expect("the memory of our child");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
            let kib: u64 = kib.expect("a size").parse().expect("a number");
            kib * KIB
        };
        Memory {
            resident: field("Rss:"),
            proportional: field("Pss:"),
            anonymous: field("Anonymous:"),
        }
    }

    /// Says how much each of `connections` has made it grow, and holds the resident set against the bound.
    #[track_caller]
    fn assert_growth(self, before: Memory, connections: u64, when: &str) {
        let each = |now: u64, then: u64| now.saturating_sub(then) / connections;
        let resident = each(self.resident, before.resident);
        println!(
            "{when}, {connections} idle connections cost each {resident} bytes resident ({} proportional, {} anonymous)",
            each(self.proportional, before.proportional),
            each(self.anonymous, before.anonymous),
        );
        assert!(
            resident <= BYTES_MAX,
            "{when}: {resident} bytes a connection"
        );
    }
}

/// As many connections as are wanted, or as this process may have descriptors for.
fn connections() -> u64 {
    let descriptors = ::millrace::io::probe::raise_nofile().expect("the limit of descriptors");
    let possible = descriptors.saturating_sub(SPARE_DESCRIPTORS);
    if std::env::var_os("MILLRACE_TEST_FULL").is_some() {
        assert!(possible >= CONNECTIONS, "raise the limit: ulimit -n");
    }
    CONNECTIONS.min(possible)
}

/// The kernel's memory for sockets, of the whole machine.
fn kernel_sockets() -> String {
    let text = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let tcp = text.lines().find(|line| line.starts_with("TCP:"));
    format!("{} (mem: kernel pages)", tcp.unwrap_or("TCP: ?"))
}

#[test]
fn heavy_ten_thousand_idle_connections_cost_64_kib_each_at_most() {
    let store = Store::new();
    store.insert("/bucket/k", Object::tile(90, 4 * KIB));
    let origin = store.serve();
    let server = Millrace::setup()
        .settings("[listener]\nconnections_max = 12000\nidle_timeout = \"10m\"")
        .start(origin.address);
    let tile = Tile::new(90);
    let small = Ask::get("/bucket/k");
    for _ in 0..100 {
        server.fetch(&small).assert_body(&tile, 0, 4 * KIB);
    }
    server.assert_nothing_held();
    let (process, begun) = (server.child.id(), Instant::now());
    let before = Memory::of(process);
    println!("before: {}", kernel_sockets());
    let mut clients: Vec<Connection> = Vec::new();
    for _ in 0..connections() {
        let mut client = Connection::open(server.door);
        client.exchange(&small).assert_body(&tile, 0, 4 * KIB);
        clients.push(client);
    }
    let open = clients.len() as u64;
    let all_open = || server.metrics().sum("millrace_connections_open", &[]) as u64 == open;
    wait_until(
        "all connections are counted",
        Duration::from_secs(5),
        all_open,
    );
    Memory::of(process).assert_growth(before, open, "after a small request");
    println!("with {open} connections: {}", kernel_sockets());
    let long = small.header("x-amz-meta-long", &"l".repeat(LONG_HEAD));
    for client in &mut clients {
        client.exchange(&long).assert_body(&tile, 0, 4 * KIB);
    }
    Memory::of(process).assert_growth(before, open, "after a long request head");
    println!("{open} connections in {:?}", begun.elapsed());
    drop(clients);
    server.finish();
}

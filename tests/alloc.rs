//! A hit from RAM allocates nothing and frees nothing: whole shards run in this process, under an allocator that counts what
//! their threads do, and no other's.
//!
//! `cargo test --test alloc`. What it finds it shows with a backtrace. The counts take in what a shard does beside its requests
//! (deadlines, chores, timers), so a count of nothing is of nothing at all.

#![allow(
    unsafe_code,
    reason = "a global allocator is an unsafe trait; each block names its reason"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests live in real time, and wait for each other"
)]
#![allow(missing_docs, reason = "a test's name is its document")]

#[allow(dead_code, unused_imports, reason = "written for the end-to-end tests")]
#[path = "e2e/harness/mod.rs"]
mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use harness::store::Object;
use harness::{Ask, Connection, KIB, MIB, PATIENCE, Store, Tile, free_address, wait_until};
use millrace::config::{Flags, Settings, Sources};

/// Requests before a count begins: buffers have grown, and the extents are hot enough to be sent by reference.
const WARM_REQUESTS: u64 = 50;
/// Hits before the first count: what the misses used (fills, their tasks and deadlines) has gone.
const SETTLE: Duration = Duration::from_millis(500);
/// Requests that are counted.
const REQUESTS: u64 = 1000;
/// The large object, in several stripes of both shards.
const LARGE: u64 = 32 * MIB;
/// Whole reads of the large object that are counted.
const LARGE_READS: u64 = 20;
/// Backtraces shown of one count.
const SHOWN: u64 = 5;

static TO_SHOW: AtomicU64 = AtomicU64::new(0);
static WATCHING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static FREES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this is a shard's thread; not known before the first event that is watched.
    static SHARD: Cell<Option<bool>> = const { Cell::new(None) };
    /// Showing an event allocates too.
    static SHOWING: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator as it came; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(&ALLOCATIONS, "allocates", layout.size());
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(&ALLOCATIONS, "allocates", layout.size());
        // SAFETY: the caller keeps `alloc_zeroed`'s contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        note(&ALLOCATIONS, "reallocates", bytes);
        // SAFETY: the caller keeps `realloc`'s contract.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(&FREES, "frees", layout.size());
        // SAFETY: the caller keeps `dealloc`'s contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn note(count: &AtomicU64, what: &str, bytes: usize) {
    if !WATCHING.load(Ordering::Relaxed) || SHOWING.get() || !on_shard() {
        return;
    }
    count.fetch_add(1, Ordering::Relaxed);
    let left = TO_SHOW.load(Ordering::Relaxed);
    if left > 0 {
        TO_SHOW.store(left - 1, Ordering::Relaxed);
        SHOWING.set(true);
        let backtrace = Backtrace::force_capture();
        eprintln!("a shard {what} {bytes} bytes:\n{backtrace}");
        SHOWING.set(false);
    }
}

fn on_shard() -> bool {
    if SHARD.get().is_none() {
        let mut name = [0u8; 16];
        // SAFETY: the kernel writes at most 16 bytes, its end included.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        SHARD.set(Some(name.starts_with(b"shard-")));
    }
    SHARD.get() == Some(true)
}

/// Runs `work` and says how often the shards allocated and freed meanwhile; shows where, the first few times.
fn counted(shown: u64, work: impl FnOnce()) -> (u64, u64) {
    TO_SHOW.store(shown, Ordering::Relaxed);
    ALLOCATIONS.store(0, Ordering::Relaxed);
    FREES.store(0, Ordering::Relaxed);
    WATCHING.store(true, Ordering::SeqCst);
    work();
    WATCHING.store(false, Ordering::SeqCst);
    (
        ALLOCATIONS.load(Ordering::Relaxed),
        FREES.load(Ordering::Relaxed),
    )
}

/// The counters are the process's: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Starts a server of two shards in this process, for as long as the process lives.
fn serve(origin: SocketAddr, further_settings: &str) -> SocketAddr {
    let (door, admin) = (free_address(), free_address());
    let text = format!(
        "listener.http = [\"{door}\"]\nadmin.listen = \"{admin}\"\nserver.shards = 2\n\
         routing.origin = \"http://{origin}\"\nram.size = \"256MiB\"\ntcp.congestion = \"reno\"\n{further_settings}\n"
    );
    let sources = Sources {
        file: Some((PathBuf::from("alloc.toml"), text)),
        env: Vec::new(),
        flags: Flags::default(),
    };
    let loaded = Settings::load(sources).expect("settings");
    let run = move || {
        let ended = millrace::server::run(loaded);
        panic!("the server has ended: {ended:?}");
    };
    std::thread::spawn(run);
    wait_until("the server is ready", PATIENCE, || {
        harness::millrace::admin_status(admin, "/readyz") == Some(200)
    });
    // The server's own hook ends the process at once; a failed test is to say what failed.
    drop(std::panic::take_hook());
    door
}

struct World {
    store: Store,
    connection: Connection,
}

/// One kind of request: its name, how often it is counted, and the `turn`th one with the bytes that are to come.
type Kind<'a> = (&'a str, u64, &'a dyn Fn(u64) -> (Ask, u64, u64));

impl World {
    fn hit(&mut self, tile: &Tile, (ask, start, end): &(Ask, u64, u64)) {
        let response = self.connection.exchange(ask);
        assert!(matches!(response.status(), 200 | 206), "{response:?}");
        assert_eq!(response.cache_word(), "HIT", "{ask:?}");
        response.assert_body(tile, *start, *end);
    }

    fn assert_nothing_allocated(&mut self, tile: &Tile, (name, requests, make): Kind<'_>) {
        let asked = self.store.body_bytes();
        for turn in 0..WARM_REQUESTS.min(requests) {
            self.hit(tile, &make(turn));
        }
        let (allocations, frees) = counted(SHOWN, || {
            (0..requests).for_each(|turn| self.hit(tile, &make(turn)))
        });
        println!("{name}: {requests} hits, {allocations} allocations, {frees} frees");
        assert_eq!((allocations, frees), (0, 0), "{requests} × {name}");
        assert_eq!(
            self.store.body_bytes(),
            asked,
            "{name}: the origin was asked"
        );
    }
}

fn range_of_large(turn: u64) -> (Ask, u64, u64) {
    // Steps that no slot, page or stripe divides.
    let start = turn * 1_234_577 % (LARGE - MIB);
    let ask = Ask::get("/bucket/large").range(start, start + MIB);
    (ask, start, start + MIB)
}

#[track_caller]
fn assert_hits_allocate_nothing(further_settings: &str) {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let store = Store::new();
    for (name, bytes) in [("small", 4 * KIB), ("middle", 100 * KIB), ("large", LARGE)] {
        store.insert(&format!("/bucket/{name}"), Object::tile(7, bytes));
    }
    let origin = store.serve();
    let door = serve(origin.address, further_settings);
    let tile = Tile::new(7);
    let mut world = World {
        store,
        connection: Connection::open(door),
    };
    for name in ["small", "middle", "large"] {
        let filled = world
            .connection
            .exchange(&Ask::get(&format!("/bucket/{name}")));
        assert_eq!(filled.cache_word(), "MISS");
    }
    let settled = Instant::now() + SETTLE;
    while Instant::now() < settled {
        world.hit(&tile, &range_of_large(0));
    }
    let kinds: [Kind<'_>; 6] = [
        ("GET of 4 KiB", REQUESTS, &|_| {
            (Ask::get("/bucket/small"), 0, 4 * KIB)
        }),
        ("GET of 100 KiB", REQUESTS, &|_| {
            (Ask::get("/bucket/middle"), 0, 100 * KIB)
        }),
        ("range of 1 MiB", REQUESTS, &range_of_large),
        ("HEAD", REQUESTS, &|_| (Ask::head("/bucket/large"), 0, 0)),
        ("GET of 32 MiB", LARGE_READS, &|_| {
            (Ask::get("/bucket/large"), 0, LARGE)
        }),
        ("GET of 4 KiB again", REQUESTS, &|_| {
            (Ask::get("/bucket/small"), 0, 4 * KIB)
        }),
    ];
    for kind in kinds {
        world.assert_nothing_allocated(&tile, kind);
    }
}

/// Reference 2A.33: what lies in RAM is plain, whatever it was on disk, and no hit waits for another's lock.
#[test]
fn a_hit_allocates_nothing() {
    assert_hits_allocate_nothing("log.access = \"off\"");
}

#[test]
fn a_hit_sent_by_copy_allocates_nothing() {
    assert_hits_allocate_nothing("log.access = \"off\"\nram.zero_copy = \"off\"");
}

#[test]
fn a_hit_that_is_logged_allocates_nothing() {
    let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("alloc-access.log");
    assert_hits_allocate_nothing(&format!("log.access = \"{}\"", log.display()));
    std::fs::remove_file(log).expect("the log was written");
}

#[test]
fn the_allocator_counts_what_a_shard_does_and_nobody_else() {
    let _turn = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    // So many that the chores of shards that other tests have left do not count.
    const MANY: u64 = 10_000;
    let allocate = || (0..MANY).for_each(|number| drop(std::hint::black_box(Box::new(number))));
    let (allocations, frees) = counted(0, allocate);
    assert!(allocations < MANY && frees < MANY);
    let shard = std::thread::Builder::new().name("shard-x".to_owned());
    let (allocations, frees) = counted(0, || {
        let shard = shard.spawn(allocate).expect("a thread");
        shard.join().expect("its end");
    });
    assert!(allocations >= MANY && frees >= MANY);
}

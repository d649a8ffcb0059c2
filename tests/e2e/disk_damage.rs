//! A small cache directory cut at every offset, and with a bit of every byte flipped: what the tools and the server
//! read of it is right or is not there, and nothing panics. Without MILLRACE_TEST_FULL=1 only some offsets of a segment
//! are tried: one in five near the start of a block, and one in 61 elsewhere.

use crate::disk::{await_folded, files};
use crate::harness::millrace::Scratch;
use crate::harness::store::Object;
use crate::harness::{Ask, KIB, Millrace, PATIENCE, Store, Tile, wait_until};
use millrace::config::cli::Tool;
use millrace::disk::format::record::Record;
use millrace::tools;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

const LENGTHS: [u64; 4] = [1, 900, 3000, 9 * KIB];

fn path(number: usize) -> String {
    format!("/bucket/small-{number}")
}

fn start(dir: &Path, origin: SocketAddr) -> Millrace {
    let setup = Millrace::setup()
        .cache_dir(dir)
        .arguments(&["--disk", "256MiB"]);
    setup.start(origin)
}

/// A directory of one instance, its segment and its journal, cut where their records and facts end.
struct Small {
    store: Store,
    folder: Scratch,
    segment: PathBuf,
    journal: PathBuf,
}

impl Small {
    fn new() -> Small {
        let (store, folder) = (Store::new(), Scratch::new());
        let origin = store.serve();
        let server = start(&folder.path, origin.address);
        for (number, &length) in LENGTHS.iter().enumerate() {
            store.insert(&path(number), Object::tile(number as u64, length));
            server.get(&path(number));
        }
        // One that was overwritten: its first version must not come back.
        store.insert("/bucket/over", Object::tile(99, 500));
        server.get("/bucket/over");
        wait_until("copies on disk", PATIENCE, || {
            server.metrics().sum("millrace_disk_extents", &[]) as usize == LENGTHS.len() + 1
                && server.metrics().sum("millrace_disk_heads", &[]) as usize == LENGTHS.len() + 1
        });
        server.fetch(&Ask::new("DELETE", "/bucket/over"));
        server.kill();
        let only = |part: &str| {
            let mut found = files(&folder.path, part);
            assert_eq!(found.len(), 1, "{found:?}");
            let path = found.remove(0);
            let mut bytes = std::fs::read(&path).expect("a file");
            let end = bytes
                .iter()
                .rposition(|&byte| byte != 0)
                .expect("something")
                + 1;
            // Records are whole blocks.
            let block = if part == "/seg/" { 4096 } else { 1 };
            bytes.truncate(end.next_multiple_of(block));
            std::fs::write(&path, bytes).expect("written");
            path
        };
        let (segment, journal) = (only("/seg/"), only("/journal."));
        Small {
            store,
            folder,
            segment,
            journal,
        }
    }

    fn run(&self, tool: &Tool) -> tools::Answer {
        tools::run(tool).expect("the directory can be read")
    }

    fn listed(&self) -> BTreeSet<String> {
        let list = Tool::List {
            dir: self.folder.path.clone(),
            prefix: String::new(),
        };
        let text = self.run(&list).text;
        // Without the bytes that are there: a head whose extent is gone has none.
        let name = |line: &str| line.split_whitespace().nth(2).map(str::to_owned);
        text.lines().filter_map(name).collect()
    }

    fn is_whole(&self) -> bool {
        let dir = self.folder.path.clone();
        self.run(&Tool::Verify { dir }).good
    }

    /// Starts on what is there: every answer is right.
    #[track_caller]
    fn assert_served(&self, what: &str) {
        let origin = self.store.serve();
        let copy = Scratch::new();
        let copied = std::process::Command::new("cp")
            .arg("-r")
            .arg(&self.folder.path)
            .arg(copy.path.join("cache"))
            .status();
        assert!(copied.expect("cp").success());
        let server = start(&copy.path.join("cache"), origin.address);
        await_folded(&server);
        for (number, &length) in LENGTHS.iter().enumerate() {
            let read = server.get(&path(number));
            assert_eq!(read.status(), 200, "{what}");
            read.assert_body(&Tile::new(number as u64), 0, length);
        }
        let over = server.get("/bucket/over");
        assert_eq!(over.status(), 404, "{what}: marked {}", over.cache_word());
        server.finish();
    }
}

/// Which of `found` are not among `known`.
fn strange(found: &BTreeSet<String>, known: &BTreeSet<String>) -> Vec<String> {
    found.difference(known).cloned().collect()
}

/// Where the records of names that end so lie.
fn records_of(segment: &[u8], name: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 4096);
    while let Ok((record, layout)) = Record::decode(&segment[at.min(segment.len())..]) {
        let end = at + layout.record_bytes as usize;
        if record.key.ends_with(name) {
            found.push(at..end);
        }
        at = end;
    }
    found
}

/// Offsets of a segment that are tried.
fn offsets(bytes: &[u8]) -> Vec<usize> {
    let all = std::env::var_os("MILLRACE_TEST_FULL").is_some();
    let tried =
        |at: &usize| all || at.is_multiple_of(211) || (at % 4096 < 64 && at.is_multiple_of(11));
    (0..bytes.len()).filter(tried).collect()
}

#[test]
fn a_segment_cut_at_any_offset_or_with_any_bit_flipped_is_noticed() {
    let small = Small::new();
    let bytes = std::fs::read(&small.segment).expect("a segment");
    let (whole, all) = (small.is_whole(), small.listed());
    assert!(whole && all.len() == LENGTHS.len(), "{all:?}");
    for end in offsets(&bytes) {
        std::fs::write(&small.segment, &bytes[..end]).expect("cut");
        assert!(!small.is_whole(), "cut at {end}");
        let listed = small.listed();
        assert!(
            strange(&listed, &all).is_empty(),
            "cut at {end}: {listed:?}"
        );
    }
    let unnamed = records_of(&bytes, b"over");
    assert!(!unnamed.is_empty(), "the deleted object has records");
    let (mut noticed, mut silent) = (0, 0);
    for at in offsets(&bytes) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&small.segment, &flipped).expect("flipped");
        let (good, listed) = (small.is_whole(), small.listed());
        assert!(strange(&listed, &all).is_empty(), "bit of {at}: {listed:?}");
        // The first block says whose file it is; records say so themselves. Nobody reads what no fact names.
        let said_nothing =
            at < 4096 || bytes[at] == 0 || unnamed.iter().any(|one| one.contains(&at));
        assert!(
            !good || said_nothing,
            "a bit of byte {at} was flipped, and nobody noticed"
        );
        noticed += usize::from(!good);
        silent += usize::from(good);
    }
    println!(
        "{} cuts, {noticed} flipped bits noticed, {silent} where nothing is",
        bytes.len()
    );
    let all = std::env::var_os("MILLRACE_TEST_FULL").is_some();
    for cut in (0..bytes.len())
        .step_by(if all { 4096 } else { 5 * 4096 })
        .flat_map(|at| [at, at + 1, at + 2048])
    {
        std::fs::write(&small.segment, &bytes[..cut.min(bytes.len())]).expect("cut");
        small.assert_served(&format!("a segment cut at {cut}"));
    }
}

#[test]
fn a_journal_cut_at_any_offset_or_with_any_bit_flipped_says_nothing_wrong() {
    let small = Small::new();
    let bytes = std::fs::read(&small.journal).expect("a journal");
    // What a cut journal may still say: the deleted object too, before the fact that it is.
    let mut may = small.listed();
    may.insert("bucket/over".to_owned());
    let mut most = BTreeSet::new();
    for end in 0..bytes.len() {
        std::fs::write(&small.journal, &bytes[..end]).expect("cut");
        let listed = small.listed();
        assert!(
            small.is_whole() && strange(&listed, &may).is_empty(),
            "cut at {end}: {listed:?}"
        );
        most.extend(listed);
    }
    assert_eq!(most, may);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(&small.journal, &flipped).expect("flipped");
        let listed = small.listed();
        assert!(
            small.is_whole() && strange(&listed, &may).is_empty(),
            "bit of {at}: {listed:?}"
        );
    }
    // Served, too: also where the fact is torn that says that an object is gone.
    for back in [1, 2, 10, 20, 30, 60, 100, 200] {
        std::fs::write(&small.journal, &bytes[..bytes.len() - back]).expect("cut");
        small.assert_served(&format!("a journal cut {back} bytes from its end"));
        let mut flipped = bytes.clone();
        flipped[bytes.len() - back] ^= 4;
        std::fs::write(&small.journal, &flipped).expect("flipped");
        small.assert_served(&format!("a flipped bit {back} bytes from a journal's end"));
    }
}

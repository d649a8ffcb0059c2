//! Calls on the cache directory that fail, each one, with each error that a disk or an NFS server has for it: no client
//! sees it, every byte is right, nothing on disk is damaged by it, and copies are made again when it is over.
//!
//! Through FUSE: see `harness/faultfs`.

use crate::disk::{await_folded, files, tool};
use crate::harness::faultfs::{Fault, FaultFs};
use crate::harness::millrace::{Scratch, command};
use crate::harness::store::Object;
use crate::harness::{
    Ask, KIB, MIB, Millrace, PATIENCE, Store, Stub, Tile, free_address, wait_until,
};
use std::net::SocketAddr;
use std::path::Path;

fn start(dir: &Path, origin: SocketAddr) -> Millrace {
    Millrace::setup()
        .cache_dir(&dir.join("cache"))
        .shards(2)
        .ram("64MiB")
        .arguments(&["--disk", "512MiB"])
        .settings("[disk]\ndeadline = \"2s\"")
        .start(origin)
}

/// A server whose cache directory can fail.
struct Patient {
    store: Store,
    origin: Stub,
    server: Option<Millrace>,
    fs: FaultFs,
    _folder: Scratch,
    next: u64,
}

const SIZES: [u64; 5] = [900, 70 * KIB, 200 * KIB, 3 * MIB, 9 * MIB + 77];

impl Patient {
    fn new() -> Option<Patient> {
        let folder = Scratch::new();
        let fs = FaultFs::under(&folder.path)?;
        let store = Store::new();
        let origin = store.serve();
        let server = start(&fs.mount, origin.address);
        Some(Patient {
            store,
            origin,
            server: Some(server),
            fs,
            _folder: folder,
            next: 1,
        })
    }

    fn server(&self) -> &Millrace {
        self.server.as_ref().expect("a server")
    }

    fn path(seed: u64) -> String {
        format!("/bucket/patient-{seed}")
    }

    fn length(seed: u64) -> u64 {
        SIZES[(seed % 5) as usize] + seed
    }

    /// One object of each size, seen for the first time; gives the first one's number.
    #[track_caller]
    fn read_new(&mut self) -> u64 {
        let first = self.next;
        self.next += 5;
        for seed in first..first + 5 {
            let length = Self::length(seed);
            self.store
                .insert(&Self::path(seed), Object::tile(seed, length));
            let whole = self.server().get(&Self::path(seed));
            assert_eq!(whole.status(), 200, "{}", whole.text());
            whole.assert_body(&Tile::new(seed), 0, length);
        }
        first
    }

    /// The same once more, whole and in part: how many bytes of the store were asked for is not said.
    #[track_caller]
    fn read_again(&self, first: u64) {
        for seed in first..first + 5 {
            let (path, length) = (Self::path(seed), Self::length(seed));
            let (start, end) = (length / 3, length - length / 4);
            let part = self.server().fetch(&Ask::get(&path).range(start, end));
            assert_eq!(part.status(), 206, "{}", part.text());
            part.assert_body(&Tile::new(seed), start, end);
            let whole = self.server().get(&path);
            assert_eq!(whole.status(), 200, "{}", whole.text());
            whole.assert_body(&Tile::new(seed), 0, length);
        }
    }

    fn counter(&self, name: &str) -> u64 {
        let metrics = self.server().metrics();
        metrics.sum(&format!("millrace_disk_{name}"), &[]) as u64
    }

    /// Reads new objects until their copies are on disk: heads and extents.
    #[track_caller]
    fn await_copies(&mut self, why: &str) -> u64 {
        let mut first = 0;
        wait_until(&format!("copies after {why}"), PATIENCE, || {
            let (stored, dropped) = (self.counter("stored_total"), self.counter("dropped_total"));
            first = self.read_new();
            // Five heads, and six stripes.
            let done =
                || self.counter("stored_total") - stored + self.counter("dropped_total") - dropped;
            wait_until("an end of copying", PATIENCE, || done() >= 11);
            // The facts go to the journal after the copies.
            std::thread::sleep(std::time::Duration::from_millis(300));
            wait_until("a quiet disk", PATIENCE, || {
                self.counter("queued_bytes") == 0
            });
            self.counter("dropped_total") == dropped
        });
        first
    }

    /// What the tools say of the files as they are, without faults.
    #[track_caller]
    fn assert_undamaged(&self, why: &str) {
        let (code, verified) = tool(&["verify"], &self.fs.back.join("cache"));
        assert_eq!(code, 0, "{why}: {verified}");
    }

    /// Dies, and another one finds what was read last.
    #[track_caller]
    fn restart_and_find(&mut self, first: u64, why: &str) {
        wait_until("facts in the journal", PATIENCE, || {
            let (_, listed) = tool(&["ls"], &self.fs.back.join("cache"));
            let named = |seed: u64| listed.contains(Self::path(seed).trim_start_matches('/'));
            (first..first + 5).all(named)
        });
        self.server.take().expect("a server").kill();
        self.assert_undamaged(why);
        self.server = Some(start(&self.fs.mount, self.origin.address));
        await_folded(self.server());
        let asked = self.origin.requests();
        self.read_again(first);
        assert_eq!(self.origin.requests(), asked, "{why}: not all was on disk");
    }
}

/// For each fault: meets it while old copies are read, new ones made, and objects overwritten.
#[track_caller]
fn assert_survives(faults: &[(&str, Fault)]) {
    let Some(mut patient) = Patient::new() else {
        return;
    };
    let mut old = patient.await_copies("the start");
    for &(call, fault) in faults {
        let why = format!("{call}: {fault:?}");
        patient.restart_and_find(old, &why);
        // Another one, with nothing in RAM and no file open.
        patient.server.take().expect("a server").kill();
        patient.server = Some(start(&patient.fs.mount, patient.origin.address));
        await_folded(patient.server());
        patient.fs.inject(call, fault);
        for _ in 0..2 {
            patient.read_again(old);
            let new = patient.read_new();
            patient.read_again(new);
        }
        let put = Ask::put(&Patient::path(old), b"overwritten".to_vec());
        assert_eq!(patient.server().fetch(&put).status(), 200, "{why}");
        let read = patient.server().get(&Patient::path(old));
        assert_eq!(read.text(), "overwritten", "{why}");
        let met = patient.fs.faults();
        let metrics = patient.server().metrics();
        let errors = metrics.sum("millrace_disk_errors_total", &[]) as u64;
        println!("{why}: {met} calls failed, {errors} errors counted");
        patient.fs.heal();
        old = patient.await_copies(&why);
    }
    patient.restart_and_find(old, "the end");
    patient.server.take().expect("a server").finish();
}

const EIO: Fault = Fault::Errno(libc::EIO);
const ENOSPC: Fault = Fault::Errno(libc::ENOSPC);
const ESTALE: Fault = Fault::Errno(libc::ESTALE);

#[test]
fn reads_of_the_directory_that_fail_are_misses() {
    assert_survives(&[
        ("read", EIO),
        ("read", ESTALE),
        ("read", Fault::Short),
        ("open", EIO),
        ("open", ESTALE),
        ("lookup", EIO),
        ("getattr", EIO),
        ("readdir", EIO),
    ]);
}

#[test]
fn writes_to_the_directory_that_fail_cost_copies() {
    assert_survives(&[
        ("write", EIO),
        ("write", ENOSPC),
        ("write", Fault::Short),
        ("fsync", EIO),
        ("fsync", ENOSPC),
        ("flush", EIO),
        ("setattr", EIO),
    ]);
}

#[test]
fn files_that_cannot_be_made_or_removed_cost_copies() {
    assert_survives(&[
        ("create", EIO),
        ("create", ENOSPC),
        ("fallocate", EIO),
        ("fallocate", ENOSPC),
        ("fallocate", Fault::Errno(libc::EOPNOTSUPP)),
        ("statfs", EIO),
        ("mkdir", EIO),
        ("unlink", EIO),
        ("rename", EIO),
        ("*", EIO),
    ]);
}

#[test]
fn without_direct_io_a_late_enospc_of_fsync_alone_loses_copies_and_no_more() {
    let Some(mut patient) = Patient::new() else {
        return;
    };
    patient.fs.refuse_direct();
    let first = patient.await_copies("the refusal of direct I/O");
    let said = patient.server().output();
    assert!(said.contains("refuses direct I/O"), "{said}");
    patient.fs.inject_after("fsync", "/seg/", ENOSPC, 0);
    let new = patient.read_new();
    patient.read_again(new);
    wait_until("a write that failed", PATIENCE, || {
        patient.fs.faults() > 0 && patient.counter("dropped_total") > 0
    });
    patient.fs.heal();
    patient.read_again(first);
    let last = patient.await_copies("fsync: ENOSPC");
    patient.restart_and_find(last, "a late ENOSPC");
    patient.server.take().expect("a server").finish();
}

#[test]
fn a_filesystem_that_fills_up_costs_copies_and_comes_back() {
    let Some(mut patient) = Patient::new() else {
        return;
    };
    let first = patient.await_copies("the start");
    // Less than `disk.reserve`: no new segment.
    patient.fs.set_free_bytes(1 << 20);
    wait_until("a full disk", PATIENCE, || {
        patient.read_new();
        patient.counter("dropped_total") > 0
    });
    patient.read_again(first);
    patient.fs.set_free_bytes(32 << 30);
    let last = patient.await_copies("a full disk");
    patient.restart_and_find(last, "a full disk");
    patient.server.take().expect("a server").finish();
}

#[test]
fn a_journal_that_cannot_be_read_brings_no_overwritten_object_back() {
    let Some(mut patient) = Patient::new() else {
        return;
    };
    let first = patient.await_copies("the start");
    patient.restart_and_find(first, "the start");
    let put = Ask::put(&Patient::path(first), b"overwritten".to_vec());
    assert_eq!(patient.server().fetch(&put).status(), 200);
    patient.server.take().expect("a server").kill();
    let journals = files(&patient.fs.back.join("cache"), "/journal.");
    let youngest = journals.last().and_then(|path| path.parent());
    let youngest = youngest.expect("an instance").file_name().expect("a name");
    patient.fs.inject_after(
        "read",
        &format!("{}/journal.", youngest.to_string_lossy()),
        EIO,
        0,
    );
    let server = start(&patient.fs.mount, patient.origin.address);
    await_folded(&server);
    assert!(patient.fs.faults() > 0, "the journal was not read");
    let read = server.get(&Patient::path(first));
    assert_eq!(read.text(), "overwritten", "marked {}", read.cache_word());
    for seed in first + 1..first + 5 {
        let read = server.get(&Patient::path(seed));
        read.assert_body(&Tile::new(seed), 0, Patient::length(seed));
    }
    server.finish();
}

#[test]
fn a_directory_that_fails_at_start_is_said_or_is_done_without() {
    let (folder, store) = (Scratch::new(), Store::new());
    let Some(fs) = FaultFs::under(&folder.path) else {
        return;
    };
    store.insert("/bucket/a", Object::tile(1, 9 * MIB));
    let origin = store.serve();
    start(&fs.mount, origin.address).kill();
    for call in [
        "mkdir",
        "create",
        "open",
        "read",
        "write",
        "fsync",
        "fallocate",
        "lookup",
        "getattr",
        "readdir",
        "statfs",
        "unlink",
        "*",
    ] {
        fs.inject(call, EIO);
        let mut child = command()
            .args(["serve", "--origin", &format!("http://{}", origin.address)])
            .args([
                "--ram",
                "16MiB",
                "--shards",
                "1",
                "--disk",
                "512MiB",
                "--cache-dir",
            ])
            .arg(fs.mount.join("cache"))
            .args(["--listen", &free_address().to_string()])
            .args(["--admin", &free_address().to_string()])
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut ended = None;
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(700);
        while ended.is_none() && std::time::Instant::now() < deadline {
            ended = child.try_wait().expect("its state");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = child.kill();
        let output = child.wait_with_output().expect("its output");
        let said =
            String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        println!("{call}: {ended:?}");
        assert!(!said.contains("panicked"), "{call}: {said}");
        if let Some(status) = ended {
            assert_eq!(status.code(), Some(3), "{call}: {said}");
            assert!(said.contains("cache directory"), "{call}: {said}");
        }
        fs.heal();
    }
    let server = start(&fs.mount, origin.address);
    server
        .get("/bucket/a")
        .assert_body(&Tile::new(1), 0, 9 * MIB);
    server.finish();
}

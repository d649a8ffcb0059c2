//! A folder behind FUSE whose calls can be made to fail, to fall short, or never to return: the kernel's own paths
//! meet the fault, not a stand-in of them. The server is this process; the mount lives in a namespace of the
//! test's thread, which the programs it starts inherit, so that none is ever left behind. Needs root and /dev/fuse.

mod backing;
mod wire;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use backing::{Backing, Reply};
use wire::{Call, INTERRUPT};

/// Largest request: a write of 1 MiB and its head.
const REQUEST_BYTES: usize = (1 << 20) + 4096;
/// Threads that take requests; one that is to hang is put aside and keeps none of them.
const THREADS: usize = 4;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends with this error.
    Errno(i32),
    /// It never ends.
    Hang,
    /// Half of the bytes are read or written.
    Short,
}

#[derive(Debug, Clone)]
struct Rule {
    call: String,
    part: String,
    fault: Fault,
    after: usize,
    met: usize,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    /// Calls that hang, whole.
    held: Vec<Vec<u8>>,
    faults: usize,
    held_most: usize,
}

struct Shared {
    device: File,
    backing: Backing,
    state: Mutex<State>,
}

/// The mount; it goes with its owner, and whatever hangs in it ends with an error then.
pub struct FaultFs {
    /// Where the faults are.
    pub mount: PathBuf,
    /// The same files without them.
    pub back: PathBuf,
    shared: Arc<Shared>,
}

impl FaultFs {
    /// Mounts one under `folder`. `None`, and a word on standard error, where that is not possible; with
    /// MILLRACE_TEST_FULL it must be.
    pub fn under(folder: &Path) -> Option<FaultFs> {
        let (mount, back) = (folder.join("mount"), folder.join("back"));
        for path in [&mount, &back] {
            std::fs::create_dir_all(path).expect("a folder");
        }
        let device = match wire::mount(&mount) {
            Ok(device) => device,
            Err(error) => {
                eprintln!("SKIPPED, NOTHING SHOWN: no FUSE mount here: {error}");
                assert!(std::env::var_os("MILLRACE_TEST_FULL").is_none(), "{error}");
                return None;
            }
        };
        let shared = Arc::new(Shared {
            device,
            backing: Backing::new(&back),
            state: Mutex::default(),
        });
        for _ in 0..THREADS {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.serve());
        }
        Some(FaultFs {
            mount,
            back,
            shared,
        })
    }

    /// From now on `call` ("*": each) on paths that contain `part` meets `fault`, after so many went well.
    pub fn inject_after(&self, call: &str, part: &str, fault: Fault, after: usize) {
        let rule = Rule {
            call: call.to_owned(),
            part: part.to_owned(),
            fault,
            after,
            met: 0,
        };
        self.state().rules.push(rule);
    }

    pub fn inject(&self, call: &str, fault: Fault) {
        self.inject_after(call, "", fault, 0);
    }

    /// Opens with `O_DIRECT` are refused from now on, as some filesystems do.
    pub fn refuse_direct(&self) {
        self.shared
            .backing
            .refuse_direct
            .store(true, Ordering::SeqCst);
    }

    /// What the filesystem says is free.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.shared
            .backing
            .free_bytes
            .store(bytes, Ordering::SeqCst);
    }

    /// No faults any more; what hangs goes on as if nothing had been.
    pub fn heal(&self) {
        let held = {
            let mut state = self.state();
            state.rules.clear();
            state.faults = 0;
            state.held_most = 0;
            std::mem::take(&mut state.held)
        };
        for request in held {
            self.shared.act(&Call::new(&request), false);
        }
    }

    /// Calls that met a fault since the last `heal`.
    pub fn faults(&self) -> usize {
        self.state().faults
    }

    /// Calls that hang now, and the most that ever did at once.
    pub fn held(&self) -> (usize, usize) {
        let state = self.state();
        (state.held.len(), state.held_most)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("the faults")
    }
}

impl Drop for FaultFs {
    fn drop(&mut self) {
        wire::unmount(&self.mount);
    }
}

impl Shared {
    fn serve(&self) {
        let mut memory = vec![0; REQUEST_BYTES];
        loop {
            match (&self.device).read(&mut memory) {
                Ok(bytes) => self.take(&memory[..bytes]),
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return,
                // A request that was given up while it was read.
                Err(_) => {}
            }
        }
    }

    fn take(&self, request: &[u8]) {
        let call = Call::new(request);
        // What hangs does not end for a signal.
        if call.code == INTERRUPT {
            return;
        }
        match self.fault(&call) {
            None => self.act(&call, false),
            Some(Fault::Short) => self.act(&call, true),
            Some(Fault::Errno(errno)) => self.reply(call.unique, &Err(errno)),
            Some(Fault::Hang) => {
                let mut state = self.state.lock().expect("the faults");
                // Healed since it was looked at: nobody comes for it any more.
                if state.rules.is_empty() {
                    drop(state);
                    return self.act(&call, false);
                }
                state.held.push(request.to_vec());
                state.held_most = state.held_most.max(state.held.len());
            }
        }
    }

    fn fault(&self, call: &Call<'_>) -> Option<Fault> {
        let path = self.backing.described(call);
        let mut state = self.state.lock().expect("the faults");
        let rule = state.rules.iter_mut().find(|rule| {
            (rule.call == "*" && call.may_hang() || rule.call == call.name())
                && path.contains(&rule.part)
        })?;
        rule.met += 1;
        let fault = (rule.met > rule.after).then_some(rule.fault);
        state.faults += usize::from(fault.is_some());
        fault
    }

    fn act(&self, call: &Call<'_>, short: bool) {
        if let Some(result) = self.backing.act(call, short) {
            self.reply(call.unique, &result);
        }
    }

    fn reply(&self, unique: u64, result: &Reply) {
        let (error, body): (i32, &[u8]) = match result {
            Ok(body) => (0, body),
            Err(errno) => (-errno, &[]),
        };
        let mut out = Vec::with_capacity(16 + body.len());
        out.extend_from_slice(&(16 + body.len() as u32).to_le_bytes());
        out.extend_from_slice(&error.to_le_bytes());
        out.extend_from_slice(&unique.to_le_bytes());
        out.extend_from_slice(body);
        // The asker may have gone.
        let _ = (&self.device).write(&out);
    }
}

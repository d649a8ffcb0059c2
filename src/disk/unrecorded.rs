//! A mark in the cache directory: somebody serves who cannot write down there what is overwritten through it, since the process before it has the directory.
//!
//! Made by `server` before a process that takes over opens its doors, and settled when its own journals say all of it. Who finds one that
//! was never settled does not know what its maker, which has died, was told: every copy that was confirmed before then is to be asked about.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::base::clock;

use super::names::UNRECORDED;

const OPEN: &str = "open";
const SETTLED: &str = "settled";

/// A mark of this process.
#[derive(Debug)]
pub struct Unrecorded {
    dir: PathBuf,
    /// What older marks say; 0 if there is none.
    until_ms: u64,
}

/// What a mark says: copies that were confirmed before are in doubt; nobody knows until when if it is open.
fn read(dir: &Path) -> Option<(u64, bool)> {
    let text = match fs::read_to_string(dir.join(UNRECORDED)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => return Some((0, true)),
    };
    let (until_ms, state) = text.trim_end().split_once(' ').unwrap_or_default();
    match until_ms.parse() {
        Ok(until_ms) if state == SETTLED => Some((until_ms, false)),
        Ok(until_ms) => Some((until_ms, true)),
        Err(_) => Some((0, true)),
    }
}

/// It appears whole, and is there after a power cut.
fn write(dir: &Path, until_ms: u64, state: &str) -> io::Result<()> {
    let unfinished = dir.join(format!("{UNRECORDED}.{}", std::process::id()));
    let mut file = fs::File::create(&unfinished)?;
    file.write_all(format!("{until_ms} {state}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(UNRECORDED))?;
    fs::File::open(dir)?.sync_all()
}

impl Unrecorded {
    /// Makes the mark; it is on disk when this returns.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let until_ms = match read(dir) {
            None => 0,
            Some((until_ms, false)) => until_ms,
            Some((_, true)) => clock::unix_ms(),
        };
        write(dir, until_ms, OPEN)?;
        let dir = dir.to_owned();
        Ok(Self { dir, until_ms })
    }

    /// Whether an older mark is about copies that are still there.
    #[must_use]
    pub fn is_behind_another(&self) -> bool {
        self.until_ms > 0
    }

    /// Everything is in journals that are on disk.
    ///
    /// # Errors
    /// The directory cannot be written: the mark stays.
    pub fn settle(self) -> io::Result<()> {
        match self.until_ms {
            0 => fs::remove_file(self.dir.join(UNRECORDED)),
            until_ms => write(&self.dir, until_ms, SETTLED),
        }
    }

    /// Looks for a mark that somebody has left: copies that were confirmed before this moment, in milliseconds since 1970, are in doubt. From now on
    /// that holds for those who come later too.
    #[must_use]
    pub fn found(dir: &Path) -> Option<u64> {
        let (until_ms, open) = read(dir)?;
        if !open {
            return Some(until_ms);
        }
        let now_ms = clock::unix_ms();
        if let Err(error) = write(dir, now_ms, SETTLED) {
            // Then the next one asks about more.
            tracing::warn!(%error, "the mark of a hand-over that was cut off stays open");
        }
        Some(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let name = format!("millrace-mark-{}-{}", std::process::id(), clock::now_ns());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_mark_that_was_not_settled_is_found_and_stays_known() {
        let folder = Folder::new();
        let dir = folder.0.clone();
        assert_eq!(Unrecorded::found(&dir), None);
        let mark = Unrecorded::begin(&dir).unwrap();
        assert!(!mark.is_behind_another());
        mark.settle().unwrap();
        assert_eq!(Unrecorded::found(&dir), None);
        let before_ms = clock::unix_ms();
        drop(Unrecorded::begin(&dir).unwrap());
        let found = Unrecorded::found(&dir).unwrap();
        assert!((before_ms..=clock::unix_ms()).contains(&found));
        assert_eq!(Unrecorded::found(&dir), Some(found));
        // A later hand-over that ends well does not make up for it.
        let mark = Unrecorded::begin(&dir).unwrap();
        assert!(mark.is_behind_another());
        mark.settle().unwrap();
        assert_eq!(Unrecorded::found(&dir), Some(found));
    }

    #[test]
    fn a_mark_that_cannot_be_read_is_an_open_one() {
        let folder = Folder::new();
        fs::create_dir(&folder.0).unwrap();
        for text in ["", "x", "12", "x settled", "12 open"] {
            fs::write(folder.0.join(UNRECORDED), text).unwrap();
            assert_eq!(read(&folder.0).map(|(_, open)| open), Some(true), "{text}");
        }
    }
}

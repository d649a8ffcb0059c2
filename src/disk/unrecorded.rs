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
    /// As it was written.
    text: String,
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
fn write(dir: &Path, text: &str) -> io::Result<()> {
    let unfinished = dir.join(format!("{UNRECORDED}.{}", std::process::id()));
    let put = || {
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, dir.join(UNRECORDED))
    };
    put().inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    fs::File::open(dir)?.sync_all()
}

fn settled(until_ms: u64) -> String {
    format!("{until_ms} {SETTLED}\n")
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
        // No other mark is the same.
        let maker = (std::process::id(), clock::now_ns());
        let text = format!("{until_ms} {OPEN} {}-{}\n", maker.0, maker.1);
        write(dir, &text)?;
        let dir = dir.to_owned();
        Ok(Self {
            dir,
            text,
            until_ms,
        })
    }

    /// Whether an older mark is about copies that are still there.
    #[must_use]
    pub fn is_behind_another(&self) -> bool {
        self.until_ms > 0
    }

    /// Everything is in journals that are on disk. Nothing is done if the mark is a later one: that says what is open since.
    ///
    /// # Errors
    /// The directory cannot be written: the mark stays.
    pub fn settle(self) -> io::Result<()> {
        if fs::read_to_string(self.dir.join(UNRECORDED))? != self.text {
            return Ok(());
        }
        match self.until_ms {
            0 => fs::remove_file(self.dir.join(UNRECORDED)),
            until_ms => write(&self.dir, &settled(until_ms)),
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
        if let Err(error) = write(dir, &settled(now_ms)) {
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

    /// Two hand-overs in a row: the first one's heir is still at it when it hands over itself.
    #[test]
    fn who_settles_its_mark_leaves_that_of_the_next_process_alone() {
        for behind_another in [false, true] {
            let folder = Folder::new();
            let dir = folder.0.clone();
            if behind_another {
                drop(Unrecorded::begin(&dir).unwrap());
            }
            let first = Unrecorded::begin(&dir).unwrap();
            let second = Unrecorded::begin(&dir).unwrap();
            first.settle().unwrap();
            assert!(read(&dir).is_some_and(|(_, open)| open));
            second.settle().unwrap();
            assert!(read(&dir).is_some_and(|(_, open)| !open));
        }
    }

    #[test]
    fn a_mark_that_cannot_be_made_leaves_nothing_behind() {
        let folder = Folder::new();
        fs::create_dir_all(folder.0.join(UNRECORDED)).unwrap();
        assert!(Unrecorded::begin(&folder.0).is_err());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
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

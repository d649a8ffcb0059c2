//! One shard's journal: facts in memory at once, on disk soon, and synced where somebody's answer depends on it.
//!
//! Called by the writer (what was stored) and by `shard` (what is not true any more). Written in whole blocks, the last one again and again until it is full, so that
//! direct I/O can do it. A write that fails or is late ends the file; what it had not got is written to the next one.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use crate::io::file::{Access, AlignedBuf, File};

use super::DiskError;
use super::bell::Bell;
use super::door::Door;
use super::format::BLOCK_BYTES;
use super::format::fact::Fact;
use super::format::segment::HEADER_BYTES;

/// Facts that may wait for a journal; beyond it they are lost.
const WAITING_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
struct State {
    file: Option<Rc<File>>,
    /// Where the block begins that is not full.
    offset: u64,
    /// What that block has.
    tail: Vec<u8>,
    /// Facts that are not written.
    waiting: Vec<u8>,
    /// Bytes of facts, ever.
    appended: u64,
    written: u64,
    synced: u64,
    busy: bool,
    /// There was a file, and there is none now.
    ended: bool,
}

/// One shard's journal.
pub struct Journal {
    door: Rc<Door>,
    /// Where a file ends and the next one begins.
    file_bytes: u64,
    state: RefCell<State>,
    bell: Bell,
}

impl Journal {
    /// Without a file: facts wait. A file ends after `file_bytes`.
    #[must_use]
    pub fn new(door: Rc<Door>, file_bytes: u64) -> Self {
        Self {
            door,
            file_bytes,
            state: RefCell::default(),
            bell: Bell::default(),
        }
    }

    /// Goes on in a new file that has its header.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn begin(&self, path: &Path, header: [u8; HEADER_BYTES]) -> Result<(), DiskError> {
        let file = self.door.open(path, Access::Write).await?;
        let mut state = self.state.borrow_mut();
        state.file = Some(Rc::new(file));
        state.ended = false;
        state.offset = 0;
        state.tail = header.to_vec();
        Ok(())
    }

    /// What to flush for all facts so far.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.state.borrow().appended
    }

    /// Whether facts can be written.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state.borrow().file.is_some()
    }

    /// Whether the file has ended and the next one has not begun.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.borrow().ended
    }

    /// Whether the file is so long that the next one should begin.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.state.borrow().offset >= self.file_bytes
    }

    /// Takes a fact; gives what to flush for it to be on disk. False: it is lost.
    pub fn append(&self, fact: &Fact<'_>) -> Option<u64> {
        let mut state = self.state.borrow_mut();
        if state.waiting.len() >= WAITING_BYTES_MAX {
            return None;
        }
        let before = state.waiting.len();
        fact.encode(&mut state.waiting);
        state.appended += (state.waiting.len() - before) as u64;
        Some(state.appended)
    }

    /// Waits until everything up to `mark` is written, and if `durable` synced.
    ///
    /// # Errors
    /// It is not; it will be written to the next file.
    pub async fn flush(&self, mark: u64, durable: bool) -> Result<(), DiskError> {
        loop {
            {
                let state = self.state.borrow();
                if state.written >= mark && (!durable || state.synced >= mark) {
                    return Ok(());
                }
            }
            let begun = self.bell.until(|| {
                let mut state = self.state.borrow_mut();
                if state.busy {
                    return None;
                }
                state.busy = state.file.is_some();
                Some(state.busy)
            });
            if !begun.await {
                return Err(DiskError::Gone);
            }
            let result = self.write(durable).await;
            self.state.borrow_mut().busy = false;
            self.bell.ring();
            result?;
        }
    }

    async fn write(&self, durable: bool) -> Result<(), DiskError> {
        let (file, offset, memory, facts) = {
            let mut state = self.state.borrow_mut();
            let facts = std::mem::take(&mut state.waiting);
            let Some(file) = state.file.clone() else {
                return Err(DiskError::Gone);
            };
            let mut memory = AlignedBuf::new(state.tail.len() + facts.len());
            memory[..state.tail.len()].copy_from_slice(&state.tail);
            memory[state.tail.len()..][..facts.len()].copy_from_slice(&facts);
            (file, state.offset, memory, facts)
        };
        let result = self
            .write_and_sync(&file, memory, offset, !facts.is_empty(), durable)
            .await;
        let mut state = self.state.borrow_mut();
        if let Err(error) = result {
            // What has been written of the next block is unknown: nothing more goes to this file.
            state.file = None;
            state.ended = true;
            let later = std::mem::replace(&mut state.waiting, facts);
            state.waiting.extend_from_slice(&later);
            return Err(error);
        }
        state.written += facts.len() as u64;
        if durable {
            state.synced = state.written;
        }
        state.tail.extend_from_slice(&facts);
        let whole = state.tail.len() / BLOCK_BYTES as usize * BLOCK_BYTES as usize;
        state.tail.drain(..whole);
        state.offset += whole as u64;
        Ok(())
    }

    async fn write_and_sync(
        &self,
        file: &Rc<File>,
        memory: AlignedBuf,
        offset: u64,
        any: bool,
        durable: bool,
    ) -> Result<(), DiskError> {
        if any {
            self.door.write(file, memory, offset).await?;
        }
        if durable {
            self.door.sync(file).await?;
        }
        Ok(())
    }

    /// Ends the file: the next one is to begin. Waits for a write that is under way: what the file gets later would be removed with it, unread, by
    /// whoever takes a journal for closed that has a younger one beside it.
    pub async fn end(&self) {
        self.bell
            .until(|| {
                let mut state = self.state.borrow_mut();
                if state.busy {
                    return None;
                }
                state.file = None;
                state.ended = true;
                Some(())
            })
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::format::fact::Facts;
    use crate::disk::format::segment::FileHeader;
    use crate::io::runtime::ShardRuntime;

    fn header(number: u32) -> [u8; HEADER_BYTES] {
        FileHeader {
            instance: 1,
            shard: 0,
            number,
            created_unix_ms: 1,
        }
        .journal()
    }

    #[test]
    fn a_journal_that_ends_while_it_is_written_takes_nothing_along() {
        let paths = [0, 1].map(|number| {
            let name = format!("millrace-journal-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, header(number)).unwrap();
            path
        });
        ShardRuntime::new().unwrap().block_on(async {
            let journal = Rc::new(Journal::new(Rc::new(Door::new(8, 10_000)), 1 << 20));
            journal.begin(&paths[0], header(0)).await.unwrap();
            let mut mark = 0;
            // More than a block.
            for object in 0..200 {
                mark = journal.append(&Fact::Invalidated { object }).unwrap();
            }
            let writing = async {
                journal.flush(mark, true).await.unwrap();
            };
            let next = async {
                journal.end().await;
                journal.begin(&paths[1], header(1)).await.unwrap();
            };
            tokio::join!(writing, next);
            let mark = journal.append(&Fact::Invalidated { object: 777 }).unwrap();
            journal.flush(mark, true).await.unwrap();
        });
        let [first, second] = paths.map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            bytes
        });
        assert_eq!(Facts::new(&first[HEADER_BYTES..]).count(), 200);
        let of_second: Vec<_> = Facts::new(&second[HEADER_BYTES..]).collect();
        assert_eq!(of_second, [Fact::Invalidated { object: 777 }]);
    }
}

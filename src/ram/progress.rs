//! How far a fill has come, and which shards want to hear of it: the lock-free hand-over between one writer and many readers.
//!
//! Called by `extent`. The writer stores the watermark, then looks who is interested; a reader declares its interest, then looks
//! at the watermark again. Both sides put a sequentially consistent fence in between, so at least one of them sees
//! the other: no wake is lost (checked by loom, `tests/loom.rs`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

/// The most shards one process can have: one bit each.
pub const SHARDS_MAX: usize = 256;
const WORDS: usize = SHARDS_MAX / 64;

/// What has become of the fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillState {
    /// More bytes may come.
    Filling,
    /// No more bytes will come; what is below the watermark stays good. It may be less than the capacity.
    Done,
    /// The fill broke off; what is below the watermark stays good.
    Failed,
}

/// Watermark, state and interested shards of one extent.
#[derive(Debug)]
pub struct Progress {
    filled: AtomicU32,
    state: AtomicU8,
    interested: [AtomicU64; WORDS],
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            filled: AtomicU32::new(0),
            state: AtomicU8::new(0),
            interested: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl Progress {
    /// Bytes that may be read. The bytes below the returned mark are visible to the caller.
    #[must_use]
    pub fn filled(&self) -> u32 {
        self.filled.load(Ordering::Acquire)
    }

    /// The fill's state; read it *before* [`Progress::filled`] to learn whether that mark is final.
    #[must_use]
    pub fn state(&self) -> FillState {
        match self.state.load(Ordering::Acquire) {
            0 => FillState::Filling,
            1 => FillState::Done,
            _ => FillState::Failed,
        }
    }

    /// Writer only: everything below `filled` may now be read.
    pub(super) fn publish(&self, filled: u32) {
        self.filled.store(filled, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Writer only: no more bytes will come.
    pub(super) fn settle(&self, state: FillState) {
        let code = match state {
            FillState::Filling => 0,
            FillState::Done => 1,
            FillState::Failed => 2,
        };
        self.state.store(code, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Reader: `shard` wants a wake at the next change. Look at the watermark again after this and before sleeping.
    pub fn subscribe(&self, shard: usize) {
        let (word, bit) = (&self.interested[shard / 64], 1 << (shard % 64));
        // Set already: the line stays with the writer. A writer that takes the bit after this look wakes, or has stored what is seen below.
        if word.load(Ordering::SeqCst) & bit == 0 {
            word.fetch_or(bit, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }

    /// Writer, after a change: takes the shards that want to hear of it and calls `wake` for each.
    pub fn take_interested(&self, mut wake: impl FnMut(usize)) {
        for (index, word) in self.interested.iter().enumerate() {
            if word.load(Ordering::SeqCst) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                wake(index * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_interested_shard_is_woken_once() {
        let progress = Progress::default();
        for shard in [0, 63, 64, 255, 63] {
            progress.subscribe(shard);
        }
        progress.publish(1);
        let mut woken = Vec::new();
        progress.take_interested(|shard| woken.push(shard));
        assert_eq!(woken, [0, 63, 64, 255]);
        progress.take_interested(|_| panic!("nobody is left"));
        assert_eq!(progress.filled(), 1);
    }
}

//! One shard's runtime: monoio on `io_uring`, and the few things a task may ask of it.
//!
//! Called by `server` (build and run) and by every task (spawn, sleep, deadline). A panic anywhere ends the process
//! (`panic = "abort"` in the profiles): a shard that is wrong must not serve.

use std::future::Future;
use std::io;
use std::time::Duration;

use monoio::time::TimeDriver;

use super::eventfd::{EventFd, EventWaiter};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};

/// Submission queue entries of a shard's ring. monoio unwraps on a full queue, so it is far larger than what a shard
/// submits between two turns.
pub const RING_ENTRIES: u32 = 4096;

/// One shard's runtime; lives and dies on its thread.
pub struct ShardRuntime(Runtime<TimeDriver<IoUringDriver>>);

impl ShardRuntime {
    /// Builds the ring with `SINGLE_ISSUER|DEFER_TASKRUN` (kernel 6.1), or without them where the kernel refuses.
    ///
    /// # Errors
    /// The kernel's error when no ring can be had at all (see `probe` for what to tell the operator).
    pub fn new() -> io::Result<Self> {
        let mut fast = io_uring::IoUring::builder();
        fast.setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun();
        let built = RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(fast)
            .enable_timer()
            .build();
        if let Ok(runtime) = built {
            return Ok(Self(runtime));
        }
        RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .enable_timer()
            .build()
            .map(Self)
    }

    /// Runs `main` and every task that it spawns, on this thread, until `main` ends.
    pub fn block_on<F: Future>(&mut self, main: F) -> F::Output {
        self.0.block_on(main)
    }
}

/// Workers of the kernel that one shard's blocking file operations may occupy. The kernel's own bound, four for each core, is used up by as many
/// operations on a server that does not answer, and then no file of any filesystem is opened or read by this thread any more.
const FILE_WORKERS: u32 = 512;

thread_local! {
    /// The kernel keeps the bound for the thread; a ring of ours is what it is asked through, since monoio's own cannot be reached.
    static WORKERS: std::cell::OnceCell<io_uring::IoUring> = const { std::cell::OnceCell::new() };
}

/// Lets this thread's file operations occupy many workers of the kernel (Linux 5.15).
///
/// # Errors
/// The kernel's: then its own bound stays.
pub fn raise_file_workers() -> io::Result<()> {
    let ring = io_uring::IoUring::new(2)?;
    ring.submitter()
        .register_iowq_max_workers(&mut [FILE_WORKERS, 0])?;
    WORKERS.with(|workers| {
        let _ = workers.set(ring);
    });
    Ok(())
}

/// Starts a task on this shard; it runs to its end unless the process stops.
pub fn spawn<F>(task: F)
where
    F: Future<Output = ()> + 'static,
{
    drop(monoio::spawn(task));
}

thread_local! {
    /// An eventfd that is always readable: many tasks may wait for it at once, and none can take it from another.
    static TURN: std::cell::OnceCell<EventWaiter> = const { std::cell::OnceCell::new() };
}

/// Lets every other task of this thread run once. Through the ring: waking oneself would starve them (monoio 0.2.4).
pub async fn breathe() {
    let turn = TURN.with(|turn| {
        if turn.get().is_none() {
            let event = EventFd::new().ok()?;
            event.notify();
            let _ = turn.set(event.waiter().ok()?);
        }
        turn.get().cloned()
    });
    match turn {
        Some(waiter) => waiter.ready().await,
        // Out of descriptors: a timer gives the others their turn too.
        None => sleep_ms(1).await,
    }
}

/// Waits at least `ms` milliseconds (the wheel's grain is 1 ms).
pub async fn sleep_ms(ms: u64) {
    monoio::time::sleep(Duration::from_millis(ms)).await;
}

/// Which of two futures ended first.
pub enum Either<A, B> {
    /// The first one.
    First(A),
    /// The second one.
    Second(B),
}

/// Waits for the first of two futures, asking `first` first; neither is dropped, so they can be waited for again.
pub async fn race<A: Future, B: Future>(
    mut first: std::pin::Pin<&mut A>,
    mut second: std::pin::Pin<&mut B>,
) -> Either<A::Output, B::Output> {
    std::future::poll_fn(move |context| {
        if let std::task::Poll::Ready(output) = first.as_mut().poll(context) {
            return std::task::Poll::Ready(Either::First(output));
        }
        second.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// `future`'s output, or `None` when it took longer than `ms`; the future is dropped then, so it must be one that may be.
pub async fn timeout_ms<F: Future>(ms: u64, future: F) -> Option<F::Output> {
    monoio::time::timeout(Duration::from_millis(ms), future)
        .await
        .ok()
}

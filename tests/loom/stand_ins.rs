//! What the included files use and loom cannot see through: the bounded queue and the eventfd.

pub mod queue {
    //! A bounded queue with one receiver and the orderings of crossbeam's: a slot is claimed by moving the tail, then stamped as written.

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    struct Slot<T> {
        written: AtomicUsize,
        value: UnsafeCell<Option<T>>,
    }

    /// As `crossbeam::queue::ArrayQueue`, for as few messages as a model sends: slots are not used twice.
    pub struct ArrayQueue<T> {
        head: AtomicUsize,
        tail: AtomicUsize,
        slots: Box<[Slot<T>]>,
    }

    // SAFETY: a slot is written by the thread that claimed it and taken by the one receiver after its stamp (loom checks that).
    unsafe impl<T: Send> Sync for ArrayQueue<T> {}

    /// Slots of a model's queue.
    const SLOTS: usize = 3;

    impl<T> ArrayQueue<T> {
        pub fn new(_capacity: usize) -> Self {
            let slot = |_| Slot {
                written: AtomicUsize::new(0),
                value: UnsafeCell::new(None),
            };
            Self {
                head: AtomicUsize::new(0),
                tail: AtomicUsize::new(0),
                slots: (0..SLOTS).map(slot).collect(),
            }
        }

        pub fn push(&self, value: T) -> Result<(), T> {
            let mut tail = self.tail.load(Ordering::Relaxed);
            loop {
                if tail == self.slots.len() {
                    return Err(value);
                }
                match self.tail.compare_exchange(
                    tail,
                    tail + 1,
                    Ordering::SeqCst,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => break,
                    Err(now) => tail = now,
                }
            }
            let slot = &self.slots[tail];
            // SAFETY: the slot was claimed by this thread alone and is not stamped yet.
            slot.value.with_mut(|place| unsafe { *place = Some(value) });
            slot.written.store(1, Ordering::Release);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            let head = self.head.load(Ordering::Relaxed);
            let slot = self.slots.get(head)?;
            if slot.written.load(Ordering::Acquire) == 0 {
                return None;
            }
            self.head.store(head + 1, Ordering::SeqCst);
            // SAFETY: stamped, so its writer is done; there is one receiver.
            slot.value.with_mut(|place| unsafe { (*place).take() })
        }

        pub fn len(&self) -> usize {
            self.tail.load(Ordering::SeqCst) - self.head.load(Ordering::SeqCst)
        }

        pub fn is_empty(&self) -> bool {
            self.tail.load(Ordering::SeqCst) == self.head.load(Ordering::SeqCst)
        }
    }
}

pub mod io {
    pub mod lend {
        //! As `io::lend`: no model sends anything.

        pub struct Lent<'m>(&'m [u8]);

        impl<'m> Lent<'m> {
            pub fn new<M>(_memory: &'m M, _offset: u64, bytes: &'m [u8]) -> Self {
                Self(bytes)
            }
        }
    }

    pub mod prefetch {
        //! As `io::prefetch`: hints, which order nothing.

        pub fn prefetch<T>(_at: *const T) {}
        pub fn prefetch_bytes(_bytes: &[u8]) {}
    }

    pub mod eventfd {
        //! The kernel's counter: a write adds to it, the one waiter sleeps while it is zero and clears it.

        use std::io;

        use loom::sync::{Arc, Condvar, Mutex};

        type Counter = Arc<(Mutex<u64>, Condvar)>;

        pub struct EventFd(Counter);
        pub struct EventWaiter(Counter);

        impl EventFd {
            pub fn new() -> io::Result<Self> {
                Ok(Self(Arc::new((Mutex::new(0), Condvar::new()))))
            }

            pub fn notify(&self) {
                *self.0.0.lock().unwrap() += 1;
                self.0.1.notify_one();
            }

            pub fn waiter(&self) -> io::Result<EventWaiter> {
                Ok(EventWaiter(Arc::clone(&self.0)))
            }
        }

        impl EventWaiter {
            /// Blocks its thread, as the shard's ring does when no task can run.
            pub async fn wait(&self) {
                let mut count = self.0.0.lock().unwrap();
                while *count == 0 {
                    count = self.0.1.wait(count).unwrap();
                }
                *count = 0;
            }
        }
    }
}

//! The simplest reclamation with the interface of crossbeam-epoch that the table uses: what was retired is freed when nobody is pinned.
//!
//! It says nothing about crossbeam-epoch, whose own code the models of one reader run. It has so few steps that models of two readers can be
//! explored whole: these are about the table's own orderings.

use std::marker::PhantomData;
use std::ops::Deref;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

type Free = unsafe fn(*mut ());

#[derive(Default)]
struct Registry {
    pinned: usize,
    retired: Vec<(*mut (), Free)>,
}

// SAFETY: retired pointers are touched only by whoever takes them out.
unsafe impl Send for Registry {}

impl Registry {
    fn free(&mut self) -> Vec<(*mut (), Free)> {
        match self.pinned {
            0 => std::mem::take(&mut self.retired),
            _ => Vec::new(),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.pinned, 0, "no guard outlives its model");
            run(self.free());
        }
    }
}

loom::lazy_static! {
    static ref REGISTRY: Mutex<Registry> = Mutex::new(Registry::default());
}

fn run(retired: Vec<(*mut (), Free)>) {
    for (node, free) in retired {
        // SAFETY: retired once, and nobody who could have seen it is pinned any more.
        unsafe { free(node) };
    }
}

/// Keeps what can be reached from being freed.
pub struct Guard {
    protects: bool,
}

pub fn pin() -> Guard {
    REGISTRY.lock().unwrap().pinned += 1;
    Guard { protects: true }
}

/// # Safety
/// As crossbeam's: nobody else uses the table any more.
pub unsafe fn unprotected() -> &'static Guard {
    static NONE: Guard = Guard { protects: false };
    &NONE
}

impl Guard {
    pub fn flush(&self) {}

    /// # Safety
    /// As crossbeam's: `free` may be called on any thread, once nobody is pinned who is now.
    pub unsafe fn defer_unchecked<F: FnOnce()>(&self, free: F) {
        unsafe fn call<F: FnOnce()>(free: *mut ()) {
            // SAFETY: made below, of the same type, and called once.
            let free = unsafe { Box::from_raw(free.cast::<F>()) };
            free();
        }
        let retired = (
            Box::into_raw(Box::new(free)).cast::<()>(),
            call::<F> as Free,
        );
        REGISTRY.lock().unwrap().retired.push(retired);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.protects {
            let mut registry = REGISTRY.lock().unwrap();
            registry.pinned -= 1;
            let retired = registry.free();
            drop(registry);
            run(retired);
        }
    }
}

/// A link. Loom tries the other order of two accesses only if the later one depends on the *latest* before it, so a writer that looks and then
/// stores would hide a reader's look between others: each look also counts, which makes looks depend on each other and orders nothing.
pub struct Atomic<T> {
    node: AtomicPtr<T>,
    looks: AtomicUsize,
}

impl<T> Atomic<T> {
    pub fn null() -> Self {
        Self {
            node: AtomicPtr::new(std::ptr::null_mut()),
            looks: AtomicUsize::new(0),
        }
    }

    pub fn load<'g>(&self, order: Ordering, _: &'g Guard) -> Shared<'g, T> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        Shared {
            node: self.node.load(order),
            guard: PhantomData,
        }
    }

    pub fn store(&self, node: impl Into<*mut T>, order: Ordering) {
        self.node.store(node.into(), order);
    }
}

/// A node that is not linked.
pub struct Owned<T>(Box<T>);

impl<T> Owned<T> {
    pub fn new(node: T) -> Self {
        Self(Box::new(node))
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> From<Owned<T>> for *mut T {
    fn from(node: Owned<T>) -> Self {
        Box::into_raw(node.0)
    }
}

/// A node that others may see.
pub struct Shared<'g, T> {
    node: *mut T,
    guard: PhantomData<&'g T>,
}

impl<T> Clone for Shared<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<'_, T> {}

impl<T> From<Shared<'_, T>> for *mut T {
    fn from(node: Shared<'_, T>) -> Self {
        node.node
    }
}

impl<'g, T> Shared<'g, T> {
    pub fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub fn as_raw(&self) -> *const T {
        self.node
    }

    /// # Safety
    /// As crossbeam's.
    pub unsafe fn as_ref(&self) -> Option<&'g T> {
        // SAFETY: the guard keeps it.
        unsafe { self.node.as_ref() }
    }

    /// # Safety
    /// As crossbeam's.
    pub unsafe fn deref(&self) -> &'g T {
        // SAFETY: the guard keeps it, and the caller knows that it is there.
        unsafe { &*self.node }
    }

    /// # Safety
    /// As crossbeam's.
    pub unsafe fn into_owned(self) -> Owned<T> {
        // SAFETY: made by `Owned::new`; the caller is its last user.
        Owned(unsafe { Box::from_raw(self.node) })
    }
}

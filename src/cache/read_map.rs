//! A hash table with one writer and any number of readers, none of whom ever waits.
//!
//! Called by `cache::Index` (readers on every shard) and `cache::partition` (the one writer). Chained buckets of a fixed number, chosen at
//! start from the configuration, so there is no moment of growth. Nodes are immutable but for their link; a replaced or removed node
//! is freed by crossbeam-epoch when no reader can still hold it. Values are cloned or read inside a closure: no guard leaves
//! this module, so none can be held across an await. What a closure does delays what is freed, so it does not wait.

#![allow(
    unsafe_code,
    reason = "the one lock-free structure; each block names its reason"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::io::prefetch::prefetch;

#[cfg(loom)]
use super::epoch::{self, Atomic, Guard, Owned, Shared};
#[cfg(not(loom))]
use crossbeam::epoch::{self, Atomic, Guard, Owned, Shared};

/// On a cache line of its own, if it fits on one: a lookup waits for memory once, and a neighbour's change costs it nothing.
#[repr(align(64))]
struct Node<K, V> {
    key: K,
    value: V,
    next: Atomic<Node<K, V>>,
}

/// The readable side.
pub struct ReadMap<K, V> {
    buckets: Box<[Atomic<Node<K, V>>]>,
}

impl<K, V> ReadMap<K, V> {
    fn bucket(&self, hash: u64) -> &Atomic<Node<K, V>> {
        &self.buckets[(hash as usize) & (self.buckets.len() - 1)]
    }

    /// Says that a key of this `hash` will be looked up: its chain's beginning comes from memory meanwhile.
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.bucket(hash));
    }

    /// The same of the first node of that chain, whose beginning is here by now.
    pub fn prefetch_first(&self, hash: u64) {
        // SAFETY: nothing is read through the pointer, so that nothing has to stay alive.
        let guard = unsafe { epoch::unprotected() };
        prefetch(self.bucket(hash).load(Ordering::Relaxed, guard).as_raw());
    }

    /// Calls `read` with the first value of the chain of `hash`, which need not be the one that is looked for.
    pub fn peek(&self, hash: u64, read: impl FnOnce(&V)) {
        let guard = epoch::pin();
        let first = self.bucket(hash).load(Ordering::Acquire, &guard);
        // SAFETY: as in `get`: the pinned guard keeps every node that can be reached from here.
        if let Some(node) = unsafe { first.as_ref() } {
            read(&node.value);
        }
    }

    /// Calls `read` with the value of the key that has this `hash` and satisfies `is`.
    pub fn get<R>(
        &self,
        hash: u64,
        is: impl Fn(&K) -> bool,
        read: impl FnOnce(&V) -> R,
    ) -> Option<R> {
        let guard = epoch::pin();
        let mut current = self.bucket(hash).load(Ordering::Acquire, &guard);
        // SAFETY: nodes are freed only after every guard that was pinned when they were unlinked has gone; ours is pinned.
        while let Some(node) = unsafe { current.as_ref() } {
            if is(&node.key) {
                return Some(read(&node.value));
            }
            current = node.next.load(Ordering::Acquire, &guard);
        }
        None
    }
}

impl<K: Clone, V> ReadMap<K, V> {
    /// The keys of all values that satisfy `is`; a walk over the whole table.
    pub fn keys_where(&self, is: impl Fn(&V) -> bool) -> Vec<K> {
        let guard = epoch::pin();
        let mut keys = Vec::new();
        for bucket in &self.buckets {
            let mut current = bucket.load(Ordering::Acquire, &guard);
            // SAFETY: as in `get`: the pinned guard keeps every node that can be reached from here.
            while let Some(node) = unsafe { current.as_ref() } {
                if is(&node.value) {
                    keys.push(node.key.clone());
                }
                current = node.next.load(Ordering::Acquire, &guard);
            }
        }
        keys
    }
}

impl<K, V> Drop for ReadMap<K, V> {
    fn drop(&mut self) {
        for bucket in &self.buckets {
            // SAFETY: `&mut self`: no reader and no writer is left.
            let guard = unsafe { epoch::unprotected() };
            let mut current = bucket.load(Ordering::Relaxed, guard);
            while !current.is_null() {
                // SAFETY: every node still linked is owned by this table and visited once.
                let node = unsafe { current.into_owned() };
                current = node.next.load(Ordering::Relaxed, guard);
            }
        }
    }
}

/// The writing side: there is one, and it cannot be cloned.
pub struct MapWriter<K, V> {
    map: Arc<dyn AsRef<ReadMap<K, V>> + Send + Sync>,
    len: usize,
    retired: Retired,
}

/// Nodes that were unlinked, and how many of them have been freed.
#[derive(Default)]
struct Retired {
    count: u64,
    freed: Arc<AtomicU64>,
}

impl Retired {
    /// Has a node freed that was just unlinked, when no look can hold it any more.
    fn retire<K, V>(&mut self, node: Shared<'_, Node<K, V>>, guard: &Guard)
    where
        K: Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        self.count += 1;
        let freed = Arc::clone(&self.freed);
        let free = move || {
            // SAFETY: whoever calls this says that nobody can reach the node; it is called once.
            drop(unsafe { node.into_owned() });
            freed.fetch_add(1, Ordering::Release);
        };
        // SAFETY: the node is no longer reachable from the table and is retired once; keys and values may be dropped on any thread,
        // at any time.
        unsafe { guard.defer_unchecked(free) };
    }
}

/// A table of at least `buckets` chains.
#[must_use]
pub fn table<K, V>(buckets: usize) -> ReadMap<K, V> {
    let count = buckets.max(16).next_power_of_two();
    let mut buckets = Vec::with_capacity(count);
    // A lookup goes to any of them: with small pages it would wait for the page's address too.
    #[cfg(not(loom))]
    crate::io::memory::prefer_huge_pages(buckets.spare_capacity_mut());
    buckets.resize_with(count, Atomic::null);
    ReadMap {
        buckets: buckets.into_boxed_slice(),
    }
}

impl<K, V> AsRef<Self> for ReadMap<K, V> {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Where a key's node hangs: the link that points to it, and the node.
struct Place<'g, K, V> {
    link: &'g Atomic<Node<K, V>>,
    node: Shared<'g, Node<K, V>>,
}

fn find<'g, K, V>(
    map: &'g ReadMap<K, V>,
    hash: u64,
    is: impl Fn(&K) -> bool,
    guard: &'g Guard,
) -> Option<Place<'g, K, V>> {
    let mut link = map.bucket(hash);
    loop {
        let node = link.load(Ordering::Acquire, guard);
        // SAFETY: only this thread unlinks nodes, and the guard keeps unlinked ones alive.
        let current = unsafe { node.as_ref() }?;
        if is(&current.key) {
            return Some(Place { link, node });
        }
        link = &current.next;
    }
}

impl<K: PartialEq + Send + Sync + 'static, V: Send + Sync + 'static> MapWriter<K, V> {
    /// The writer of a table that `holder` gives access to. Make one per table.
    pub fn new(holder: Arc<dyn AsRef<ReadMap<K, V>> + Send + Sync>) -> Self {
        Self {
            map: holder,
            len: 0,
            retired: Retired::default(),
        }
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads like any reader.
    pub fn get<R>(&self, hash: u64, key: &K, read: impl FnOnce(&V) -> R) -> Option<R> {
        (*self.map).as_ref().get(hash, |k| k == key, read)
    }

    /// Sets the value of `key`; true if it had one before.
    pub fn insert(&mut self, hash: u64, key: K, value: impl Into<V>) -> bool {
        let guard = epoch::pin();
        let map = (*self.map).as_ref();
        let place = find(map, hash, |k| *k == key, &guard);
        let fresh = Owned::new(Node {
            key,
            value: value.into(),
            next: Atomic::null(),
        });
        let Some(place) = place else {
            let bucket = map.bucket(hash);
            fresh
                .next
                .store(bucket.load(Ordering::Relaxed, &guard), Ordering::Relaxed);
            bucket.store(fresh, Ordering::Release);
            self.len += 1;
            return false;
        };
        // SAFETY: `find` returned a linked node, which only this thread could unlink.
        let old = unsafe { place.node.deref() };
        fresh
            .next
            .store(old.next.load(Ordering::Relaxed, &guard), Ordering::Relaxed);
        place.link.store(fresh, Ordering::Release);
        self.retired.retire(place.node, &guard);
        true
    }

    /// Whether something that was replaced or removed is held by looks still.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.retired.freed.load(Ordering::Acquire) != self.retired.count
    }

    /// Removes `key`; true if it was there.
    pub fn remove(&mut self, hash: u64, key: &K) -> bool {
        let guard = epoch::pin();
        let map = (*self.map).as_ref();
        let Some(place) = find(map, hash, |k| k == key, &guard) else {
            return false;
        };
        // SAFETY: `find` returned a linked node, which only this thread could unlink.
        let old = unsafe { place.node.deref() };
        place
            .link
            .store(old.next.load(Ordering::Relaxed, &guard), Ordering::Release);
        self.retired.retire(place.node, &guard);
        self.len -= 1;
        true
    }
}

/// Pushes what this thread retired to where it can be freed, and frees what no reader can hold any more.
pub fn free_retired() {
    epoch::pin().flush();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_holds_what_a_plain_map_holds() {
        let map = Arc::new(table::<u64, u64>(16));
        let mut writer =
            MapWriter::new(Arc::clone(&map) as Arc<dyn AsRef<ReadMap<u64, u64>> + Send + Sync>);
        let (mut model, prng) = (HashMap::new(), crate::base::prng::Prng::new(1));
        for _ in 0..20_000 {
            let (key, value) = (prng.below(300) as u64, prng.next_u64());
            let hash = key % 40;
            if value % 3 == 0 {
                assert_eq!(writer.remove(hash, &key), model.remove(&key).is_some());
            } else {
                assert_eq!(
                    writer.insert(hash, key, value),
                    model.insert(key, value).is_some()
                );
            }
            assert_eq!(writer.len(), model.len());
            let probe = prng.below(300) as u64;
            assert_eq!(
                map.get(probe % 40, |k| *k == probe, |v| *v),
                model.get(&probe).copied()
            );
        }
    }

    #[test]
    fn every_value_is_dropped_once() {
        let drops = Arc::new(AtomicUsize::new(0));
        let map = Arc::new(table::<u64, Counted>(16));
        let mut writer =
            MapWriter::new(Arc::clone(&map) as Arc<dyn AsRef<ReadMap<u64, Counted>> + Send + Sync>);
        for key in 0..100 {
            writer.insert(key, key % 50, Counted(Arc::clone(&drops)));
        }
        for key in 0..25 {
            writer.remove(key, &key);
        }
        drop(writer);
        drop(map);
        // Guards of other tests hold the process-wide epoch back for a while.
        let until_ms = crate::base::clock::now_ms() + 10_000;
        while drops.load(Ordering::Relaxed) < 100 && crate::base::clock::now_ms() < until_ms {
            free_retired();
            std::thread::yield_now();
        }
        assert_eq!(drops.load(Ordering::Relaxed), 100);
    }

    fn look_at_all(map: &ReadMap<u64, [u64; 8]>) {
        for key in 0..64u64 {
            let whole = |v: &[u64; 8]| assert!(v.iter().all(|x| *x == v[0] && x % 64 == key));
            map.get(key, |k| *k == key, whole);
        }
    }

    #[test]
    fn readers_on_other_threads_always_see_a_whole_value() {
        let map = Arc::new(table::<u64, [u64; 8]>(16));
        let mut writer = MapWriter::new(
            Arc::clone(&map) as Arc<dyn AsRef<ReadMap<u64, [u64; 8]>> + Send + Sync>
        );
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (map, stop) = (Arc::clone(&map), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        look_at_all(&map);
                    }
                })
            })
            .collect();
        for round in 0..50_000u64 {
            let key = round % 64;
            if round % 5 == 0 {
                writer.remove(key, &key);
            } else {
                writer.insert(key, key, [(round / 64) * 64 + key; 8]);
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers
            .into_iter()
            .for_each(|reader| reader.join().unwrap());
    }
}

//! What the cache must say, kept in plain maps: which bytes a version has, what the origin has now, which heads may be seen.
//!
//! Called by `world`, which asks it before and after everything it does to the real thing. It knows nothing of slabs, shards or locks.

use std::collections::{BTreeSet, HashMap};

use millrace::cache::head::version_digest;

use crate::objects::{Body, OBJECTS, digest, key};

/// What the origin has of an object at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub etag: Vec<u8>,
    pub total: u64,
}

impl Version {
    pub fn digest(&self) -> u128 {
        version_digest(&self.etag, self.total)
    }
}

/// The head that must be seen of an object, if any.
#[derive(Debug, Clone)]
pub struct Known {
    pub fetch: u64,
    pub version: Version,
    pub checksums: bool,
}

/// A fetch, from when it began.
#[derive(Debug)]
struct Fetch {
    object: usize,
    invalidations: u64,
}

/// The plain maps.
#[derive(Debug)]
pub struct Reference {
    origin: HashMap<usize, Version>,
    bytes: HashMap<(usize, u128), Body>,
    heads: HashMap<usize, Known>,
    fetches: HashMap<u64, Fetch>,
    invalidations: HashMap<u128, u64>,
}

impl Reference {
    pub fn new() -> Self {
        let mut reference = Self {
            origin: HashMap::new(),
            bytes: HashMap::new(),
            heads: HashMap::new(),
            fetches: HashMap::new(),
            invalidations: HashMap::new(),
        };
        const TOTALS: [u64; OBJECTS] = [0, 5000, 70_000, 2_500_000, 8_500_000, 20_000_000];
        for (object, total) in TOTALS.into_iter().enumerate() {
            reference.put(object, 0, total);
        }
        reference
    }

    /// The origin gets a new version; the cache is not told.
    pub fn put(&mut self, object: usize, etag: u8, total: u64) {
        let etag = format!("\"{etag}\"").into_bytes();
        let version = Version { etag, total };
        let digest_of_version = version.digest();
        let body = Body::of(digest(object), digest_of_version);
        self.bytes.insert((object, digest_of_version), body);
        self.origin.insert(object, version);
    }

    /// What the origin answers now.
    pub fn origin(&self, object: usize) -> &Version {
        &self.origin[&object]
    }

    /// The bytes of a version that the origin once had.
    pub fn body(&self, object: usize, version: u128) -> Body {
        self.bytes[&(object, version)]
    }

    fn group(object: usize) -> u128 {
        digest(object) >> 64
    }

    fn invalidations(&self, object: usize) -> u64 {
        let count = self.invalidations.get(&Self::group(object));
        count.copied().unwrap_or(0)
    }

    /// A fetch begins.
    pub fn begin(&mut self, fetch: u64, object: usize) {
        let invalidations = self.invalidations(object);
        self.fetches.insert(
            fetch,
            Fetch {
                object,
                invalidations,
            },
        );
    }

    /// A fetch wants to store the head it got; what is then known, or `None` if the object was invalidated since the fetch began.
    pub fn publish(&mut self, fetch: u64, version: &Version, checksums: bool) -> Option<&Known> {
        let began = &self.fetches[&fetch];
        let object = began.object;
        if began.invalidations != self.invalidations(object) {
            return None;
        }
        let older = self.heads.get(&object);
        let inherited = older.is_some_and(|older| older.version == *version && older.checksums);
        let known = Known {
            fetch,
            version: version.clone(),
            checksums: checksums || inherited,
        };
        self.heads.insert(object, known);
        self.heads.get(&object)
    }

    /// An object was written through the cache: what was known goes, and with it all that began before.
    pub fn invalidate(&mut self, object: usize) {
        *self.invalidations.entry(Self::group(object)).or_insert(0) += 1;
        self.heads.remove(&object);
    }

    /// A bucket went.
    pub fn invalidate_bucket(&mut self, prefix: &[u8]) {
        let groups: BTreeSet<u128> = (0..OBJECTS).map(Self::group).collect();
        for group in groups {
            *self.invalidations.entry(group).or_insert(0) += 1;
        }
        self.heads
            .retain(|&object, _| !key(object).starts_with(prefix));
    }

    /// The origin refused `version` as not current.
    pub fn version_gone(&mut self, object: usize, version: u128) {
        self.heads
            .retain(|&known, head| known != object || head.version.digest() != version);
    }

    /// The cache let a head go for want of room.
    pub fn evicted(&mut self, object: usize) {
        self.heads.remove(&object);
    }

    /// The head that must be seen.
    pub fn head(&self, object: usize) -> Option<&Known> {
        self.heads.get(&object)
    }
}

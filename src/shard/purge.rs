//! What an operator wants gone: heads first, on every shard and in the journals, then the bytes in RAM.
//!
//! Ordered by the admin endpoint through the mailbox of every shard ([`Order`]), in two rounds: names, which beat every fetch that began before; then the bytes
//! of the versions that the first round found. An order is answered when all that it says is done, and on disk where that
//! is needed for it to hold after a crash.

use std::rc::Rc;
use std::sync::Arc;

use crate::metrics::{Counter, Invalidation};
use crate::ram::{STRIPE_BYTES, StripeId};
use crate::s3::NamePattern;

use super::disk::Mark;
use super::{Shard, routing};

/// A version that was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Digest of the object's key.
    pub object: u128,
    /// Digest of `ETag` and length.
    pub version: u128,
    /// Bytes of the whole object.
    pub total: u64,
}

/// What is to go.
pub enum What {
    /// What is known of objects of these names.
    Names(Arc<NamePattern>),
    /// The bytes of these versions.
    Bytes(Arc<[Version]>),
}

/// What has gone from one shard.
#[derive(Debug, Default)]
pub struct Gone {
    /// Versions whose heads were in RAM.
    pub versions: Vec<Version>,
    /// Bytes that were in RAM.
    pub bytes: u64,
    /// It could not be written down: after a crash it may be there again.
    pub unrecorded: bool,
}

/// An order to one shard, and who is to hear that it is done.
pub struct Order {
    /// What is to go.
    pub what: What,
    /// Called once, on the shard's thread.
    pub done: Box<dyn FnOnce(Gone) + Send>,
}

impl Shard {
    pub(super) fn purge(self: &Rc<Self>, order: Order) {
        let done = order.done;
        let (gone, mark) = match order.what {
            What::Bytes(versions) => {
                let bytes = self.drop_bytes(&versions);
                return done(Gone {
                    bytes,
                    ..Gone::default()
                });
            }
            What::Names(pattern) => self.drop_names(&pattern),
        };
        let count = gone.versions.len() as u64;
        self.metrics()
            .add(Counter::Invalidations(Invalidation::Purge), count);
        // The partition counts what it drops; this was no write.
        let mut told = self.tally.get();
        told.invalidated += count;
        self.tally.set(told);
        if mark.is_none() {
            return done(gone);
        }
        let shard = Rc::clone(self);
        crate::io::spawn(async move {
            let unrecorded = !shard.recorded(mark).await;
            done(Gone { unrecorded, ..gone });
        });
    }

    fn drop_names(&self, pattern: &NamePattern) -> (Gone, Option<Mark>) {
        let object = pattern.object().map(|digest| digest.0);
        let heads = match object {
            None => self.partition.borrow().heads_of(pattern.bytes()),
            Some(object) if routing::head_owner(object, self.world.shards.len()) != self.id => {
                return (Gone::default(), None);
            }
            Some(object) => {
                let known = self.index_of(object, 0).head(object, pattern.bytes());
                known.into_iter().collect()
            }
        };
        let mark = match object {
            Some(object) => self.drop_object(object, 0),
            None => self.drop_bucket(pattern.bytes(), 0),
        };
        let version = |head: &Arc<crate::cache::Head>| Version {
            object: head.object(),
            version: head.version(),
            total: head.total(),
        };
        let versions = heads.iter().map(version).collect();
        let gone = Gone {
            versions,
            ..Gone::default()
        };
        (gone, mark)
    }

    fn drop_bytes(&self, versions: &[Version]) -> u64 {
        let mut partition = self.partition.borrow_mut();
        let mut bytes = 0;
        for known in versions {
            let stripes = known.total.div_ceil(STRIPE_BYTES) as u32;
            for index in 0..stripes {
                if routing::owner_of(known.object, index, self.world.shards.len()) != self.id {
                    continue;
                }
                bytes += partition.drop_stripe(&StripeId {
                    object: known.object,
                    version: known.version,
                    index,
                });
            }
        }
        bytes
    }
}

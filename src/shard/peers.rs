//! The other shards as a fill sees them: its own part directly, the rest by message.
//!
//! Called by `fill` through its trait.

use std::ops::Range;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::base::clock;
use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::cache::stamps::Stamp;
use crate::fill::{FillConfig, Peers, plan};
use crate::metrics::{Counter, Invalidation, ShardMetrics};
use crate::ram::StripeId;
use crate::ram::extent::Extent;
use crate::ram::readers::Readers;
use crate::upstream::Upstream;

use super::message::{Answer, Message};
use super::{Shard, routing, waits};

/// A shard's own handle, for its fills.
pub(super) struct ShardPeers(pub(super) Rc<Shard>);

impl Shard {
    /// Wakes the readers of `extent` on a shard.
    pub(super) fn wake_readers(&self, to: usize, extent: &Arc<Extent>) {
        let name = waits::name_of(extent);
        if to == self.id {
            self.waits.wake(name);
            return;
        }
        let other = &self.world.shards[to];
        if other.mailbox.push(Message::Progress(name)).is_err() {
            other.sweep.store(true, Ordering::SeqCst);
            other.mailbox.rouse();
        }
    }
}

impl ShardPeers {
    async fn publish_at(
        &self,
        owner: usize,
        publication: (Head, Stamp, bool),
    ) -> Option<Arc<Head>> {
        let shard = &self.0;
        let (ticket, ask) = shard.asks.open();
        shard.post(owner, Message::Publish(Box::new(publication), ticket));
        match ask.await {
            Answer::Published(head) => head,
            Answer::Fetched(_) | Answer::Leased(_) | Answer::Upload(_) | Answer::Done => {
                panic!("a publication is answered by a head")
            }
        }
    }
}

impl Peers for ShardPeers {
    async fn publish(&self, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        let shard = &self.0;
        match routing::head_owner(head.object(), shard.world.shards.len()) {
            owner if owner == shard.id => shard.publish(head, stamp),
            owner => self.publish_at(owner, (head, stamp, false)).await,
        }
    }

    async fn confirm(&self, head: Head, stamp: Stamp) -> Option<Arc<Head>> {
        let shard = &self.0;
        match routing::head_owner(head.object(), shard.world.shards.len()) {
            owner if owner == shard.id => shard.confirm(head, stamp),
            owner => self.publish_at(owner, (head, stamp, true)).await,
        }
    }

    fn has(&self, object: u128, version: u128, span: &Range<u64>) -> bool {
        plan::windows(span.clone()).all(|window| {
            let index = self.0.index_of(object, window.index);
            let Range { start, end } = window.range;
            index
                .reach_with_disk(&window.id(object, version), start, end)
                .end
                >= end
        })
    }

    fn forbidden(&self, object: u128) {
        self.0.world.forbidden.note(object, clock::now_ms());
    }

    fn known_head(&self, object: u128, key: &[u8]) -> Option<Arc<Head>> {
        self.0.index_of(object, 0).head(object, key)
    }

    async fn lease(&self, id: StripeId, window: Range<u32>, readers: Arc<Readers>) -> Lease {
        let shard = &self.0;
        let owner = routing::owner_of(id.object, id.index, shard.world.shards.len());
        if owner == shard.id {
            return shard.lease(id, window, &readers).await;
        }
        let (ticket, ask) = shard.asks.open();
        shard.post(owner, Message::Lease(id, window, readers, ticket));
        match ask.await {
            Answer::Leased(lease) => lease,
            Answer::Fetched(_) | Answer::Published(_) | Answer::Upload(_) | Answer::Done => {
                panic!("a wish for room is answered by a lease")
            }
        }
    }

    fn load(&self, id: StripeId, window: Range<u32>, interest: &Weak<()>) -> Option<Arc<Extent>> {
        let shard = &self.0;
        let owner = routing::owner_of(id.object, id.index, shard.world.shards.len());
        let on_disk = &shard.world.shards[owner].index.on_disk;
        let found = on_disk.extent_at(&id, window.start)?;
        let here = owner == shard.id && found.window.end >= window.end;
        here.then(|| shard.load(id, window, interest.clone()))
            .flatten()
    }

    fn settled(&self, extent: Arc<Extent>) {
        let shard = &self.0;
        let owner = routing::owner_of(
            extent.id().object,
            extent.id().index,
            shard.world.shards.len(),
        );
        if owner == shard.id {
            shard.settled(&extent);
        } else {
            shard.post(owner, Message::Settled(extent));
        }
    }

    async fn version_gone(&self, object: u128, version: u128) {
        let shard = &self.0;
        shard
            .metrics()
            .count(Counter::Invalidations(Invalidation::Changed));
        let owner = routing::head_owner(object, shard.world.shards.len());
        if owner == shard.id {
            return shard.drop_version(object, version);
        }
        let (ticket, ask) = shard.asks.open();
        shard.post(owner, Message::VersionGone(object, version, ticket));
        ask.await;
    }

    fn wake(&self, to: usize, extent: &Arc<Extent>) {
        self.0.wake_readers(to, extent);
    }

    fn upstream(&self) -> &Rc<Upstream> {
        &self.0.upstream
    }

    fn metrics(&self) -> &ShardMetrics {
        self.0.metrics()
    }

    fn fill_config(&self) -> FillConfig {
        self.0.policy().fill
    }
}

//! Row 4: fills. One upstream response turned into extents while clients read it.
//!
//! Called by `shard` (which keeps the table of flights and hands out the outcome). A fill belongs to the cache, not to the client that caused
//! it. It reaches other shards' partitions only through [`Peers`], and knows nothing of client connections.

pub mod confirm;
pub mod dated;
pub mod elsewhere;
pub mod open;
pub mod plan;
pub mod stream;
pub mod template;
pub mod validate;

use std::future::Future;
use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use crate::cache::Head;
use crate::cache::partition::Lease;
use crate::cache::stamps::Stamp;
use crate::config::{Freshness, ObjectPolicy};
use crate::metrics::ShardMetrics;
use crate::ram::StripeId;
use crate::ram::extent::Extent;
use crate::ram::readers::Readers;
use crate::upstream::{Patience, Response, Upstream, UpstreamError};

use template::{Ranged, Template};

/// Bounds of fills, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct FillConfig {
    /// How far a fill may run ahead of its fastest reader.
    pub window_bytes: u64,
    /// An abandoned fill is finished when so much of its stripe is there.
    pub finish_percent: u64,
    /// How long a fill waits for room in the slab before it gives up.
    pub room_wait_ms: u64,
}

/// The version that a fetch is for, when its head is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expected {
    /// Digest of ETag and length.
    pub version: u128,
    /// ETag for `If-Match`.
    pub etag: Box<[u8]>,
}

/// A wish for bytes or a head that the index does not have.
#[derive(Debug, Clone)]
pub struct Fetch {
    /// Encoded object key.
    pub key: Arc<[u8]>,
    /// Its digest.
    pub object: u128,
    /// When the wish was made, in invalidations.
    pub stamp: Stamp,
    /// The request to send.
    pub template: Arc<Template>,
    /// The range to send it with.
    pub ranged: Ranged,
    /// The version that the reader wants more of.
    pub expected: Option<Expected>,
    /// Absolute offset of the byte that the reader waits for; not the range's start where the client signed its `Range`.
    pub wanted: u64,
    /// Whether the client asked for the whole object, so that a 200 is right even if a range was put in for speed.
    pub client_whole: bool,
    /// Lives as long as somebody wants this though no reader has come yet.
    pub interest: Weak<()>,
    /// How the object is treated.
    pub policy: ObjectPolicy,
    /// Whether this is, to the origin, just what the client asked, so that any answer can be passed on to it.
    pub faithful: bool,
    /// A version that is known, but too old to be used without asking: the origin is asked whether it still holds.
    pub known: Option<Arc<Head>>,
    /// How long what is known may be used without asking; 0: not at all, and nobody shares the answer.
    pub fresh_ms: u64,
    /// Nobody waits for it: what is known was used without asking.
    pub spare: bool,
    /// What is asked for is only a byte, to learn the head.
    pub probe: Option<Probe>,
}

/// The bytes of an object that was written are here, but its head is not.
#[derive(Debug, Clone)]
pub struct Probe {
    /// The version that was written.
    pub version: u128,
    /// What is asked for if the origin has another one by now.
    pub ranged: Ranged,
    /// Whether that is just what the client asked.
    pub faithful: bool,
}

impl Fetch {
    /// How long the origin's answer is worth waiting for.
    #[must_use]
    pub fn patience(&self, now_ms: u64) -> Patience {
        let until_ms = |head: &Arc<Head>| head.terms().limit(self.policy).stale_if_error_until();
        let instead = |head: &Arc<Head>| head.is_fresh(now_ms, until_ms(head));
        match &self.known {
            _ if self.spare => Patience::Spare,
            _ if self.expected.is_some() => Patience::Rest,
            Some(head) if instead(head) => Patience::Once,
            Some(_) | None => Patience::Full,
        }
    }

    /// Whether the origin decides how long answers are used.
    #[must_use]
    pub fn by_origin(&self) -> bool {
        self.policy.freshness == Freshness::Origin
    }

    /// How long a head that came meanwhile may be used for this.
    #[must_use]
    pub fn fresh_ms_of(&self, head: &Head) -> u64 {
        match self.policy.freshness {
            Freshness::Ttl => self.fresh_ms,
            Freshness::Origin => self.fresh_ms.min(head.terms().limit(self.policy).ttl_ms),
        }
    }

    /// Whether others who wished for this too may use what came of it: an answer that is to be asked for each time is for one.
    #[must_use]
    pub fn is_shared(&self, ready: &Ready) -> bool {
        self.expected.is_some() || self.fresh_ms_of(&ready.head) > 0
    }

    /// Two fetches that can share one response.
    #[must_use]
    pub fn same_flight(&self, other: &Self) -> bool {
        self.object == other.object
            && self.stamp == other.stamp
            && self.same_question(other)
            && self.key == other.key
    }

    fn same_question(&self, other: &Self) -> bool {
        let (mine, theirs) = (&*self.template, &*other.template);
        let same_conditions = mine.signed_conditions == theirs.signed_conditions;
        let opening = self.expected.is_none();
        if opening && (self.fresh_ms == 0 || other.fresh_ms == 0) {
            return false;
        }
        // What one had overridden the other would miss.
        if opening && mine.overridden != theirs.overridden {
            return false;
        }
        match (&self.known, &other.known) {
            // Whoever asks, and for which bytes: one answer says whether the version still holds.
            (Some(mine), Some(theirs)) => mine.version() == theirs.version() && same_conditions,
            (Some(_), None) | (None, Some(_)) => false,
            // Conditions on a version that is expected have been judged.
            (None, None) => {
                mine.method == theirs.method
                    && mine.wants_checksums == theirs.wants_checksums
                    && self.ranged.spec() == other.ranged.spec()
                    && self.ranged.part() == other.ranged.part()
                    && self.expected == other.expected
                    && (self.expected.is_some()
                        || (same_conditions && mine.conditions == theirs.conditions))
            }
        }
    }
}

/// What a reader needs to begin.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The version that the bytes are of.
    pub head: Arc<Head>,
    /// The extent of the first wanted byte; `None` if there are no bytes or they come later in the fill.
    pub extent: Option<Arc<Extent>>,
    /// The fill that is under way for this fetch, if it still is.
    pub fill: Option<Arc<Readers>>,
    /// Where the head came from.
    pub came: Came,
}

/// How what a reader needs came about; with the origin's status where it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It was there already when the wish came.
    Known,
    /// From disk; nobody asked the origin.
    Disk,
    /// The origin sent what was not known.
    Fetched(u16),
    /// The origin said that the version which was known still holds.
    Confirmed(u16),
    /// The origin has another version than the one that was known.
    Changed(u16),
}

impl Came {
    /// The origin's status, if it was asked.
    #[must_use]
    pub fn origin_status(self) -> Option<u16> {
        match self {
            Self::Known | Self::Disk => None,
            Self::Fetched(status) | Self::Confirmed(status) | Self::Changed(status) => Some(status),
        }
    }
}

/// What became of a fetch when the origin's head had been read.
pub enum Outcome {
    /// The head is known, and so is where the bytes come from.
    Ready(Ready),
    /// The origin's answer is not kept; it goes to the client that asked.
    Relay(Box<Response>),
    /// Ask the origin by yourself, with your own request.
    Alone,
    /// No room in RAM now.
    Busy,
    /// The origin could not be asked.
    Failed(Arc<UpstreamError>),
}

/// The other shards, as a fill sees them; the shard that runs the fill answers for its own part directly.
pub trait Peers: 'static {
    /// Stores a head at its owner; `None` when its object was invalidated since `stamp`.
    fn publish(&self, head: Head, stamp: Stamp) -> impl Future<Output = Option<Arc<Head>>>;
    /// The same for a head of a version that is known, which is not brought back if another one is known by now.
    fn confirm(&self, head: Head, stamp: Stamp) -> impl Future<Output = Option<Arc<Head>>>;
    /// Whether all of `span` of a version is there or on its way.
    fn has(&self, object: u128, version: u128, span: &Range<u64>) -> bool;
    /// The origin does not want an object to be kept.
    fn forbidden(&self, object: u128);
    /// What is known of an object now.
    fn known_head(&self, object: u128, key: &[u8]) -> Option<Arc<Head>>;
    /// Asks the owner of a stripe for room.
    fn lease(
        &self,
        id: StripeId,
        window: Range<u32>,
        readers: Arc<Readers>,
    ) -> impl Future<Output = Lease>;
    /// Begins to load a whole window from this shard's disk, if all of it is there.
    fn load(
        &self,
        id: StripeId,
        window: Range<u32>,
        interest: &std::sync::Weak<()>,
    ) -> Option<Arc<Extent>>;
    /// Tells the owner that an extent has got all it will get.
    fn settled(&self, extent: Arc<Extent>);
    /// The origin says that this version is not the current one any more.
    fn version_gone(&self, object: u128, version: u128) -> impl Future<Output = ()>;
    /// Wakes the readers of `extent` on a shard.
    fn wake(&self, shard: usize, extent: &Arc<Extent>);
    /// This shard's way to origins.
    fn upstream(&self) -> &Rc<Upstream>;
    /// This shard's metrics.
    fn metrics(&self) -> &ShardMetrics;
    /// Bounds.
    fn fill_config(&self) -> FillConfig;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::head::HeadParts;
    use crate::cache::stamps::Stamps;
    use crate::http::Method;
    use crate::upstream::{Endpoint, Origin};

    fn fetch(first: u64, conditions: &str, known: Option<&[u8]>, fresh_ms: u64) -> Fetch {
        let head = |etag: &[u8]| {
            let parts = HeadParts {
                etag: etag.into(),
                ..HeadParts::default()
            };
            Arc::new(Head::new(7, parts))
        };
        let template = Template {
            lines: Box::default(),
            method: Method::Get,
            origin: Origin::alone(Endpoint::new(false, "h", 80)),
            range_signed: false,
            has_if_match: false,
            may_revalidate: true,
            conditions: conditions.as_bytes().into(),
            signed_conditions: Box::default(),
            wants_checksums: false,
            overridden: 0,
        };
        Fetch {
            key: Arc::from(*b"k"),
            object: 7,
            stamp: Stamps::default().now(7),
            template: Arc::new(template),
            ranged: Ranged::bytes(&(first..100)),
            expected: None,
            wanted: first,
            client_whole: false,
            interest: Weak::new(),
            policy: ObjectPolicy::of_ttl(fresh_ms),
            faithful: true,
            known: known.map(head),
            fresh_ms,
            spare: false,
            probe: None,
        }
    }

    /// Reference 2D.78, 2F.113 and 2G.121.
    #[test]
    fn who_may_share_an_answer_by_table() {
        let (a, b) = (Some(&b"\"a\""[..]), Some(&b"\"b\""[..]));
        let table = [
            (fetch(0, "", None, 1), fetch(0, "", None, 1), true),
            (fetch(0, "", None, 1), fetch(5, "", None, 1), false),
            (fetch(0, "", None, 0), fetch(0, "", None, 0), false),
            (fetch(0, "", None, 1), fetch(0, "", None, 0), false),
            (
                fetch(0, "If-Match: x", None, 1),
                fetch(0, "", None, 1),
                false,
            ),
            (
                fetch(0, "If-Match: x", None, 1),
                fetch(0, "If-Match: x", None, 1),
                true,
            ),
            (fetch(0, "", a, 1), fetch(5, "If-Match: x", a, 1), true),
            (fetch(0, "", a, 1), fetch(0, "", b, 1), false),
            (fetch(0, "", a, 1), fetch(0, "", None, 1), false),
            (fetch(0, "", a, 0), fetch(0, "", a, 0), false),
        ];
        for (row, (one, other, want)) in table.iter().enumerate() {
            assert_eq!(one.same_flight(other), *want, "row {row}");
            assert_eq!(other.same_flight(one), *want, "row {row}");
        }
    }
}

//! What a read asks its origin for first: the whole or a part, one stripe of it, whole pages, or one byte of what an upload left here.
//!
//! Called by `read` when a head has to come, and by `stale` when the origin is asked behind an answer. What follows once the length is
//! known is asked for by `deliver`.

use std::sync::Arc;

use crate::fill::template::{Ranged, Template};
use crate::fill::{Fetch, Probe, plan};
use crate::s3::{RangeSpec, Resolved};

use super::deliver::Asking;
use super::read::Read;

/// Offsets from here on are of no object that is kept; stripe numbers below it fit their type.
const OFFSET_MAX: u64 = 1 << 54;

impl Read<'_, '_> {
    /// The wish of a request whose object is not known.
    pub(super) fn opening(&self, asking: &Asking) -> Fetch {
        let page_bytes = asking.policy.page_bytes;
        let (mut ranged, mut faithful) = self.opening_range(&asking.template, page_bytes);
        let probe = self.written(&asking.template).map(|(version, byte)| Probe {
            version,
            ranged: std::mem::replace(&mut ranged, byte),
            faithful: std::mem::replace(&mut faithful, false),
        });
        Fetch {
            key: Arc::clone(&asking.key),
            object: self.digest,
            stamp: self.stamp,
            template: Arc::clone(&asking.template),
            ranged,
            expected: None,
            wanted: self
                .spec()
                .and_then(RangeSpec::bounds)
                .map_or(0, |bounds| bounds.start),
            client_whole: self.spec().is_none() && self.exchange.request.part.is_none(),
            interest: Arc::downgrade(&asking.interest),
            policy: asking.policy,
            faithful,
            known: None,
            fresh_ms: asking.policy.ttl_ms_of(self.is_head()),
            spare: false,
            probe,
        }
    }

    /// The bytes of an object that was written through here are in the cache, only its head is not: one byte brings it.
    fn written(&self, template: &Template) -> Option<(u128, Ranged)> {
        if self.is_head() || template.range_signed {
            return None;
        }
        let index = self.shard().index_of(self.digest, 0);
        let sketch = index.sketch(self.digest, self.object.encoded())?;
        let part = match self.spec().map(|spec| spec.resolve(sketch.total())) {
            None | Some(Resolved::Full) => None,
            Some(Resolved::Part(part)) => Some(part),
            Some(Resolved::Unsatisfiable) => return None,
        };
        if part.is_none() && template.wants_checksums && !sketch.checksums_known() {
            return None;
        }
        let at = part.map_or(0, |part| part.start);
        let window = plan::first_window(&(at..sketch.total()))?;
        let id = window.id(self.digest, sketch.version());
        let there = self.shard().index_of(self.digest, window.index);
        there.extent_at(&id, window.range.start)?;
        Some((sketch.version(), Ranged::bytes(&(at..at + 1))))
    }

    fn opening_range(&self, template: &Template, page_bytes: u64) -> (Ranged, bool) {
        let fans_out = self.shard().policy().fanout > 1 && !template.range_signed;
        if let Some(number) = self.exchange.request.part {
            return (Ranged::Part(number), true);
        }
        match self.spec() {
            Some(spec) if template.range_signed => (Ranged::AsSent(spec), true),
            // The first stripe first; the others follow from their owners when the length is known.
            // No object reaches so far: the origin says so.
            Some(spec)
                if spec
                    .bounds()
                    .is_some_and(|bounds| bounds.start >= OFFSET_MAX) =>
            {
                (Ranged::Spec(spec), true)
            }
            Some(RangeSpec::FromTo(first, last)) if last - first < page_bytes.saturating_sub(1) => {
                let asked = first..(last + 1).min(plan::stripe_end(first));
                let pages = plan::pages(&asked, page_bytes);
                let faithful = pages == (first..last + 1);
                (Ranged::bytes(&pages), faithful)
            }
            Some(RangeSpec::FromTo(first, last)) if fans_out => {
                let whole = last.saturating_add(1);
                let end = whole.min(plan::stripe_end(first));
                (Ranged::bytes(&(first..end)), end == whole)
            }
            Some(RangeSpec::From(first)) if fans_out => {
                (Ranged::bytes(&(first..plan::stripe_end(first))), false)
            }
            Some(spec) => (Ranged::Spec(spec), true),
            // Whole-body checksums come only with a 200.
            None if fans_out && !self.is_head() && !template.wants_checksums => {
                (Ranged::bytes(&(0..crate::ram::STRIPE_BYTES)), false)
            }
            None => (Ranged::Whole, true),
        }
    }
}

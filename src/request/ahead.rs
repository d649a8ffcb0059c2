//! Read-ahead: who reads an object in order finds the next bytes there.
//!
//! Called by `read` where an object's rule has it. What is fetched ahead is asked for with the client's own request, behind its answer, and nobody waits for
//! it; it is given up when the client does not come on (`cache::sequences`). Costs a read that makes no sequence one look at a small table.

use std::ops::Range;
use std::sync::Arc;

use crate::base::clock;
use crate::cache::Head;
use crate::cache::sequences::{Ahead, Reader};
use crate::fill::plan;
use crate::fill::template::Ranged;
use crate::metrics::Counter;

use super::deliver::Delivery;
use super::deliver::gaps::{Joining, to_ask};
use super::read::Read;

/// Requests that one read may cause ahead of it.
const REQUESTS_MAX: usize = 16;

impl Read<'_, '_> {
    /// Notes that `range` of a version is read; says whether anything is to be fetched ahead of it.
    pub(super) fn note(&self, head: &Arc<Head>, range: &Range<u64>, ahead_bytes: u64) {
        let request = &self.exchange.request;
        let fixed = request.part.is_some() || request.auth.signs("range");
        if ahead_bytes == 0 || request.range.is_none() || self.is_head() || fixed {
            return;
        }
        let reader = Reader {
            object: head.object(),
            version: head.version(),
            total: head.total(),
        };
        let mut sequences = self.shard().sequences.borrow_mut();
        if let Some(ahead) = sequences.note(reader, range, ahead_bytes, clock::now_ms()) {
            self.ahead.replace(Some((Arc::clone(head), ahead)));
        }
    }

    /// Asks for what is to be there when the client comes to it.
    pub(super) fn go_ahead(&self) {
        let Some((head, Ahead { range, interest })) = self.ahead.take() else {
            return;
        };
        // An origin that fails is not asked for what nobody waits for.
        if self.refusal().is_some() {
            return;
        }
        let Some(asking) = self.asking() else { return };
        if asking.template.range_signed {
            return;
        }
        let shard = self.shard();
        let joining = Joining {
            join_bytes: shard.policy().join_bytes,
            page_bytes: 0,
            total: head.total(),
        };
        let mut at = range.start;
        for _ in 0..REQUESTS_MAX {
            let Some(window) = plan::first_window(&(at..range.end)) else {
                return;
            };
            let id = window.id(head.object(), head.version());
            let index = shard.index_of(head.object(), window.index);
            if let Some(extent) = index.extent_at(&id, window.range.start) {
                at = id.base() + u64::from(extent.promised_end().min(window.range.end));
                continue;
            }
            let missing = to_ask(index, &id, &window, joining);
            at = missing.end;
            let wanted = missing.start;
            let mut fetch = Delivery::wish(&head, self.stamp, Ranged::bytes(&missing), &asking);
            fetch.wanted = wanted;
            fetch.interest = interest.clone();
            fetch.spare = true;
            shard.metrics().count(Counter::ReadAhead);
            shard.fetch_ahead(fetch);
        }
    }
}

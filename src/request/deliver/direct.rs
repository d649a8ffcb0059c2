//! The last way to bytes of an answer that has begun: from the origin to this client alone, past the cache.
//!
//! Called by `deliver` when there is no room in RAM, or when what comes may not be kept. The response is checked like one that is kept: it must
//! be of the version that the answer began with, or the answer is cut.

use std::future::Future;

use crate::fill::plan::Window;
use crate::fill::template::{Condition, Ranged};
use crate::fill::validate::{Question, validate};
use crate::io::{Either, race};
use crate::metrics::{Counter, Source, UpstreamKind};
use crate::ram::STRIPE_BYTES;
use crate::upstream::{Patience, Query, Response};

use super::{Progressing, Stopped};

const BUFFER_BYTES: usize = 64 * 1024;

impl<L: Future<Output = ()>> Progressing<'_, '_, L> {
    /// Sends the gap at the start of `window` (or, where the client signed its range, everything from there on).
    pub(super) async fn past_the_cache(&mut self, window: &Window) -> Result<(), Stopped> {
        let (response, span) = self.ask_directly(window).await?;
        let end = span.end.min(self.delivery.range.end);
        self.relay(response, span.start, end).await
    }

    async fn ask_directly(
        &mut self,
        window: &Window,
    ) -> Result<(Response, std::ops::Range<u64>), Stopped> {
        let asking = self.asking()?;
        let (shard, head, template) = (self.delivery.shard, &self.delivery.head, &asking.template);
        let ranged = match (template.range_signed, self.delivery.spec) {
            (true, Some(spec)) => Ranged::AsSent(spec),
            (true, None) => Ranged::Whole,
            (false, _) => Ranged::bytes(&(self.at..self.gap_end(window))),
        };
        let request = template.render(&ranged, Condition::Match(head.etag()));
        shard
            .metrics()
            .count(Counter::UpstreamRequests(UpstreamKind::Pass));
        let question = Question {
            method: template.method,
            ranged: &ranged,
            wants_checksums: template.wants_checksums,
            whole_will_do: false,
            object_bytes_max: u64::MAX,
            by_origin: false,
            overridden: template.overridden,
        };
        let fits = |response: &Response| {
            let fit = validate(question, &response.head()).ok()?;
            let fits = fit.version() == head.version() && fit.span.contains(&self.at);
            fits.then_some(fit.span)
        };
        let query = Query {
            origin: &template.origin,
            request: &request,
            method: template.method,
            patience: Patience::Full,
            hedge_after_ms: 0,
            takes: &|response| fits(response).is_some(),
            interim: None,
        };
        let asked = std::pin::pin!(shard.upstream.ask_origin(&query));
        let response = match race(asked, self.leaves.as_mut()).await {
            Either::First(Ok(response)) => response,
            Either::First(Err(_)) => return Err(Stopped::Cut("the rest could not be fetched")),
            Either::Second(()) => return Err(self.delivery.client.gone().into()),
        };
        match fits(&response) {
            Some(span) => Ok((response, span)),
            None => Err(Stopped::Cut(
                "the origin does not give the rest of this version",
            )),
        }
    }

    fn gap_end(&self, window: &Window) -> u64 {
        let head = &self.delivery.head;
        let id = window.id(head.object(), head.version());
        let index = self.delivery.shard.index_of(head.object(), window.index);
        let end = index.gap_until(&id, window.range.start, window.range.end);
        u64::from(window.index) * STRIPE_BYTES + u64::from(end)
    }

    /// Sends `[self.at, end)` of a body that begins at `start`.
    async fn relay(&mut self, mut response: Response, start: u64, end: u64) -> Result<(), Stopped> {
        let (shard, client) = (self.delivery.shard, self.delivery.client);
        let mut skip = self.at - start;
        let mut buffer = vec![0u8; BUFFER_BYTES];
        while self.at < end {
            let received = {
                let read = std::pin::pin!(response.read(&mut buffer));
                match race(read, self.leaves.as_mut()).await {
                    Either::First(Ok(received)) if received > 0 => received,
                    Either::First(_) => return Err(Stopped::Cut("the rest broke off")),
                    Either::Second(()) => return Err(client.gone().into()),
                }
            };
            shard.metrics().add(
                Counter::UpstreamReceivedBytes(UpstreamKind::Pass),
                received as u64,
            );
            let skipped = skip.min(received as u64);
            skip -= skipped;
            let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
            let data = &buffer[skipped as usize..received];
            let data = &data[..data.len().min(left)];
            client.send(data, &[], false).await?;
            let sent = data.len() as u64;
            self.at += sent;
            self.report.sent(shard, Source::Pass, None, sent);
        }
        if response.is_done() {
            response.finish();
        }
        Ok(())
    }
}

//! One request without a body and its response's head, sent again where that is right.
//!
//! Called by fills, head look-ups and the pass-through. A safe request (GET, HEAD, OPTIONS) is sent again on another address or
//! connection until its response head has come, as often as `retries` says; any other only if no byte of it was sent.
//! A kept connection that the origin had closed costs one more try that is not counted, and is no failure of anybody.

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::now_ns;
use crate::http::Method;
use crate::io::{Either, race, sleep_ms};

use super::breaker::Claim;
use super::conn::{Awaiting, Conn};
use super::dial::Tries;
use super::endpoint::Endpoint;
use super::error::UpstreamError;
use super::heads::{FinalHead, HeadRead};
use super::hedge::Way;
use super::outages::Health;
use super::response::{DetachedResponse, Response};
use super::{Reuse, Upstream};

/// How long who has something else to answer with waits before it looks how others fared.
const LEAVES_AFTER_MS: u64 = 1_000;
/// How often it looks then.
const LOOK_MS: u64 = 50;

/// How long an answer is worth waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as the settings say, also for another try.
    Full,
    /// There is something to answer with instead: one time-out will do.
    Once,
    /// As long as the settings say: the client has a part of the answer.
    Rest,
    /// Nobody waits for it.
    Spare,
}

/// Hears of an interim response head (1xx) as it came.
pub type OnInterim<'r> = &'r dyn Fn(&[u8]);

/// What is sent, and who hears of interim answers (1xx) to it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'r> {
    /// A whole head with its blank line.
    pub(super) request: &'r [u8],
    /// The one in it.
    pub(super) method: Method,
    pub(super) interim: Option<OnInterim<'r>>,
}

/// How one try failed.
pub(super) enum Failed {
    /// No byte of the request was sent.
    Unsent(UpstreamError),
    /// The origin may have it.
    Sent { error: UpstreamError, reused: bool },
}

impl Failed {
    pub(super) fn error(&self) -> &UpstreamError {
        match self {
            Self::Unsent(error) | Self::Sent { error, .. } => error,
        }
    }
}

/// Whether a request may reach an origin twice (RFC 9110, section 9.2.1).
pub(super) fn is_safe(method: Method) -> bool {
    match method {
        Method::Get | Method::Head | Method::Options => true,
        Method::Put | Method::Post | Method::Delete | Method::Connect | Method::Other => false,
    }
}

impl Upstream {
    /// Sends a request and waits for the final response head, as long as the answer is worth waiting for; asked once more beside the first time
    /// after `hedge_after_ms` without an answer (0: not).
    ///
    /// # Errors
    /// That of the last try, and nothing of a response was given to the caller; [`UpstreamError::Out`] if the origin is not to be asked now.
    pub(super) async fn ask_hedged(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        what: Asked<'_>,
        patience: Patience,
        hedge_after_ms: u64,
    ) -> Result<Response, UpstreamError> {
        let claim = match patience {
            Patience::Full | Patience::Once => Claim::Answer,
            Patience::Rest => Claim::Rest,
            Patience::Spare => Claim::Spare,
        };
        let admitted = self.admit(endpoint, claim)?;
        // Others wait for what becomes of a probe.
        let (patience, hedge_after_ms) = match admitted.is_probe() {
            true => (Patience::Spare, 0),
            false => (patience, hedge_after_ms),
        };
        let result = match patience {
            Patience::Once => self.fetch_or_leave(endpoint, what, hedge_after_ms).await,
            Patience::Full | Patience::Rest | Patience::Spare => {
                let fetched = self.fetch_admitted(endpoint, what, patience, hedge_after_ms);
                fetched.await
            }
        };
        self.judge(endpoint, admitted, result.as_ref());
        result
    }

    /// Who has something else to answer with does not wait any more once the origin has failed for somebody who waited longer.
    async fn fetch_or_leave(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        what: Asked<'_>,
        hedge_after_ms: u64,
    ) -> Result<Response, UpstreamError> {
        let fetched = self.fetch_admitted(endpoint, what, Patience::Once, hedge_after_ms);
        let mut fetched = pin!(fetched);
        let mut waits_ms = LEAVES_AFTER_MS.min(self.shared.config.first_byte_timeout_ms / 2);
        loop {
            let nap = pin!(sleep_ms(waits_ms));
            if let Either::First(result) = race(fetched.as_mut(), nap).await {
                return result;
            }
            if self.health(endpoint) != Health::Well {
                return Err(UpstreamError::Out {
                    host: endpoint.host.clone(),
                    pause_ms: 0,
                });
            }
            waits_ms = LOOK_MS;
        }
    }

    pub(super) async fn fetch_admitted(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        what: Asked<'_>,
        patience: Patience,
        hedge_after_ms: u64,
    ) -> Result<Response, UpstreamError> {
        let safe = is_safe(what.method);
        let hedge_after_ms = if safe { hedge_after_ms } else { 0 };
        let mut reuse = if safe { Reuse::Any } else { Reuse::Recent };
        let mut tries = Tries::new(self.shared.config.retries);
        loop {
            let way = (reuse, &*tries.avoid);
            let (error, may_repeat) = match self
                .attempt_hedged(endpoint, what, way, hedge_after_ms)
                .await
            {
                Ok(response) => return Ok(response),
                Err(Failed::Unsent(error)) => (error, true),
                Err(Failed::Sent {
                    error,
                    reused: true,
                }) if safe && is_stale(&error) => {
                    self.shared.events.stale();
                    reuse = Reuse::Never;
                    continue;
                }
                Err(Failed::Sent { error, .. }) => (error, safe),
            };
            self.note_failure(endpoint, &error);
            let enough = match patience {
                Patience::Full | Patience::Rest => false,
                Patience::Once => error.is_timeout(),
                Patience::Spare => !error.is_unroutable(),
            };
            if !may_repeat || enough || !tries.take(&error) {
                return Err(error);
            }
            self.shared.events.retried();
            // Another kept connection may lead to the address that has just failed.
            reuse = Reuse::Never;
        }
    }

    /// One try; says in `dialled` where it went.
    pub(super) async fn attempt(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        asked: Asked<'_>,
        (reuse, avoid): Way<'_>,
        dialled: &Cell<Option<IpAddr>>,
    ) -> Result<Response, Failed> {
        let conn = self
            .open(endpoint, reuse, avoid)
            .await
            .map_err(Failed::Unsent)?;
        dialled.set(Some(conn.address().ip()));
        let reused = conn.is_reused();
        let answered = self.exchange(conn, asked).await;
        answered.map_err(|error| Failed::Sent { error, reused })
    }

    async fn exchange(
        self: &Rc<Self>,
        mut conn: Conn,
        asked: Asked<'_>,
    ) -> Result<Response, UpstreamError> {
        conn.arm(Awaiting::FirstByte);
        let sent = conn.send_all(asked.request).await;
        let sent_ns = now_ns();
        if sent.is_ok() {
            self.shared.events.requested();
        }
        let head = match (final_head(&mut conn, asked).await, sent) {
            (Ok(head), Ok(())) => head,
            // Answered before it had all of the request: an answer, but the connection's last.
            (Ok(head), Err(_)) => {
                conn.poison();
                head
            }
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error),
        };
        conn.disarm();
        let waited_ns = now_ns() - sent_ns;
        self.shared.events.responded(head.status, waited_ns);
        self.note_answer(&conn);
        Ok(Response::new(self, conn, head, waited_ns))
    }

    /// The response to a request that the caller sent on `conn` itself. Poison the connection first if the request was not
    /// sent to its end.
    #[must_use]
    pub fn response(self: &Rc<Self>, conn: Conn, head: FinalHead) -> Response {
        conn.disarm();
        self.shared.events.responded(head.status, 0);
        self.note_answer(&conn);
        Response::new(self, conn, head, 0)
    }

    /// Takes over a response from another shard; its connection will be pooled here.
    ///
    /// # Errors
    /// [`UpstreamError::Reset`] when the descriptor cannot be used; the response is lost then.
    pub fn attach(self: &Rc<Self>, detached: DetachedResponse) -> Result<Response, UpstreamError> {
        Response::attach(self, detached)
    }
}

async fn final_head(conn: &mut Conn, asked: Asked<'_>) -> Result<FinalHead, UpstreamError> {
    loop {
        match conn.read_head(asked.method).await? {
            HeadRead::Final(head) => return Ok(head),
            // A sign of life: the time for the answer begins anew. Their number is bounded.
            HeadRead::Interim { head, .. } => {
                conn.arm(Awaiting::FirstByte);
                if let Some(interim) = asked.interim {
                    interim(&head);
                }
            }
        }
    }
}

/// What a kept connection says that the origin had closed before the request came: the end or a reset, and not a byte of an answer.
pub(super) fn is_stale(error: &UpstreamError) -> bool {
    matches!(
        error,
        UpstreamError::Reset { .. } | UpstreamError::ClosedBeforeHead { received: 0, .. }
    )
}

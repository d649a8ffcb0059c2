//! Interim answers (1xx) of an origin on their way to the client whose request passes: RFC 9110, section 15.2; 103 is RFC 8297.
//!
//! Called by `pass`. The origin is not kept waiting for a client that does not take them: what does not go out at once goes before the final
//! answer. A fetch of the cache is its own request, and may be for many; its interim answers end here.

use std::cell::RefCell;

use crate::http::Version;

use super::Exchange;
use super::client::{Client, Gone};

/// Interim answers that the client has not taken yet; beyond it further ones are left out, which they may be.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// The interim answers to one request.
pub(super) struct Interims<'e> {
    client: &'e Client,
    /// HTTP/1.0 knows none.
    wanted: bool,
    waiting: RefCell<Vec<u8>>,
}

impl<'e> Interims<'e> {
    pub(super) fn new(exchange: &Exchange<'e>) -> Self {
        Self {
            client: exchange.client,
            wanted: exchange.head.version == Version::Http11,
            waiting: RefCell::default(),
        }
    }

    /// Sends a whole head on, as far as the client takes it now.
    pub(super) fn relay(&self, head: &[u8]) {
        let mut waiting = self.waiting.borrow_mut();
        if !self.wanted || waiting.len() + head.len() > WAITING_BYTES_MAX {
            return;
        }
        waiting.extend_from_slice(head);
        // A client that has gone is noticed by who waits for the answer.
        let sent = self.client.offer(&waiting);
        waiting.drain(..sent);
    }

    /// Sends what is left.
    pub(super) async fn rest(&self) -> Result<(), Gone> {
        let waiting = self.waiting.take();
        self.client.send(&waiting, &[], false).await
    }
}

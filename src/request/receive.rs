//! Waiting for a request head: bytes until the blank line, within limits of size and time.
//!
//! Called by `listener::connection` before each request. One receive operation and no parsing but for the blank line on the usual way; a head
//! that can no longer become valid is refused early.

use std::rc::Rc;

use crate::base::clock;
use crate::http::{RequestError, head_complete, parse_request};
use crate::io::watchdog::OnExpiry;
use crate::shard::Shard;

use super::Connection;

/// What came.
pub enum Received {
    /// A whole head is at the start of the input.
    Head,
    /// The client closed between requests.
    Closed,
    /// Nothing came for the idle time.
    Idle,
    /// A head began and was not whole in time.
    HeadTimeout,
    /// The client left in the middle of a head.
    Left,
    /// It begins as TLS does.
    Tls,
    /// The head is malformed or too large.
    Refused(RequestError),
}

/// The first byte of a TLS client (RFC 8446, section 5.1), which no method begins with.
const TLS_HANDSHAKE: u8 = 0x16;
/// Room offered to each receive.
const ROOM_BYTES: usize = 4096;

/// Waits for the next head.
pub async fn head(shard: &Rc<Shard>, connection: &mut Connection) -> Received {
    let policy = shard.policy();
    let mut scanned = 0;
    let mut head_deadline_ms = None;
    loop {
        if !connection.input.is_empty() {
            if head_complete(&connection.input, scanned).is_some() {
                connection.client.socket.disarm();
                return Received::Head;
            }
            if connection.input[0] == TLS_HANDSHAKE && !connection.client.is_tls() {
                return Received::Tls;
            }
            if let Err(error) = early(&connection.input, scanned, shard) {
                return Received::Refused(error);
            }
            scanned = connection.input.len();
        }
        let began = !connection.input.is_empty();
        let (deadline_ms, action) = if began {
            // For the whole head, from the first wait for more of it: a trickle of bytes wins no time.
            let deadline_ms =
                *head_deadline_ms.get_or_insert_with(|| clock::now_ms() + policy.head_timeout_ms);
            (deadline_ms, OnExpiry::StopReceiving)
        } else {
            (
                connection.quiet_since.ms() + policy.idle_timeout_ms,
                OnExpiry::StopIdling,
            )
        };
        connection.client.socket.arm(deadline_ms, action);
        let input = std::mem::take(&mut connection.input);
        let (result, input) = connection.client.receive(input, ROOM_BYTES).await;
        connection.input = input;
        match (result, connection.client.socket.expired(), began) {
            (Ok(bytes), _, _) if bytes > 0 => {
                connection.client.socket.forgive();
            }
            (_, true, true) => return Received::HeadTimeout,
            (_, true, false) => return Received::Idle,
            (_, false, true) => return Received::Left,
            (_, false, false) => return Received::Closed,
        }
    }
}

/// Parses an incomplete head only when another line has come, so that a trickle of bytes costs no more than its lines.
fn early(input: &[u8], scanned: usize, shard: &Shard) -> Result<(), RequestError> {
    let limits = &shard.policy().head_limits;
    let line_ended = memchr::memchr(b'\n', &input[scanned..]).is_some();
    if line_ended || input.len() >= limits.head_bytes_max {
        parse_request(input, limits)?;
    }
    Ok(())
}

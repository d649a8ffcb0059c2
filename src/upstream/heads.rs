//! Response heads on a connection, one after another: interim ones, then the final one.
//!
//! Called by `exchange`, and by the request row for uploads, which relays `100 Continue` and must see an answer that comes before
//! the body was sent. Heads are parsed by `http`; what came behind one stays in the connection's inbox.

use crate::http::{HEAD_BYTES_CEILING, Method, ResponseBody, head_complete, parse_response};

use super::conn::{Conn, Piece};
use super::error::UpstreamError;

/// Room offered to one receive of a head; a small body comes along with it.
const HEAD_RECEIVE_BYTES: usize = 16 * 1024;

/// Longer heads are parsed only when they look complete, so that a trickle is not parsed over and over.
const PARSE_EAGERLY_BYTES: usize = 1024;

/// Interim responses to one request.
const INTERIMS_MAX: u32 = 64;

/// A response head that has come.
#[derive(Debug)]
pub enum HeadRead {
    /// 1xx; the final one is still to come.
    Interim {
        /// 100 or 102 to 199.
        status: u16,
        /// The whole head with its blank line.
        head: Vec<u8>,
    },
    /// The final head: hand it to [`super::Upstream::response`] with the connection.
    Final(FinalHead),
}

/// A final head, whose bytes are in the connection.
#[derive(Debug)]
pub struct FinalHead {
    pub(super) status: u16,
    pub(super) bytes: usize,
    pub(super) body: ResponseBody,
    pub(super) keep_alive: bool,
    pub(super) method: Method,
}

impl FinalHead {
    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }
}

/// How far the heads of one exchange are.
#[derive(Debug, Default)]
pub(super) struct HeadProgress {
    /// Bytes of the inbox that are known to hold no whole head.
    scanned: usize,
    interims: u32,
}

impl Conn {
    /// Reads the next response head if it is there; `Ok(None)` would block.
    ///
    /// # Errors
    /// A passed deadline, [`UpstreamError::ClosedBeforeHead`], [`UpstreamError::BadResponse`], [`UpstreamError::Reset`],
    /// [`UpstreamError::Tls`], [`UpstreamError::TooManyInterims`], [`UpstreamError::SwitchedProtocols`].
    pub fn try_read_head(&mut self, method: Method) -> Result<Option<HeadRead>, UpstreamError> {
        loop {
            if let Some(head) = self
                .parse_head(method)
                .inspect_err(|_| self.poisoned = true)?
            {
                return Ok(Some(head));
            }
            let old = self.inbox.len();
            self.inbox.resize(old + HEAD_RECEIVE_BYTES, 0);
            let mut inbox = std::mem::take(&mut self.inbox);
            let received = self.try_receive(&mut inbox[old..]);
            let bytes = match &received {
                Ok(Some(Piece::Bytes(bytes))) => *bytes,
                _ => 0,
            };
            inbox.truncate(old + bytes);
            self.inbox = inbox;
            match received? {
                None => {
                    // Who waits has no buffer.
                    if old == 0 {
                        self.inbox = Vec::new();
                    }
                    return Ok(None);
                }
                Some(Piece::Bytes(_)) => {}
                Some(Piece::End | Piece::Cut) => {
                    let address = self.address;
                    return Err(UpstreamError::ClosedBeforeHead {
                        address,
                        received: old,
                    });
                }
            }
        }
    }

    /// Waits for the next response head, interim or final. The caller arms the deadline.
    ///
    /// # Errors
    /// As [`Conn::try_read_head`].
    pub async fn read_head(&mut self, method: Method) -> Result<HeadRead, UpstreamError> {
        loop {
            match self.try_read_head(method)? {
                Some(head) => return Ok(head),
                None => self.readable().await?,
            }
        }
    }

    fn parse_head(&mut self, method: Method) -> Result<Option<HeadRead>, UpstreamError> {
        let limits = &self.shared.config.head_limits;
        let bytes_max = limits.head_bytes_max.min(HEAD_BYTES_CEILING);
        let large = self.inbox.len() > PARSE_EAGERLY_BYTES && self.inbox.len() < bytes_max;
        if self.inbox.is_empty()
            || (large && head_complete(&self.inbox, self.heads.scanned).is_none())
        {
            self.heads.scanned = self.inbox.len();
            return Ok(None);
        }
        let address = self.address;
        let parsed = parse_response(&self.inbox, method, limits);
        let Some(head) = parsed.map_err(|source| UpstreamError::BadResponse { address, source })?
        else {
            self.heads.scanned = self.inbox.len();
            return Ok(None);
        };
        self.heads.scanned = 0;
        let (status, bytes) = (head.status, head.bytes);
        if status == 101 {
            return Err(UpstreamError::SwitchedProtocols { address });
        }
        if !head.is_interim() {
            let (body, keep_alive) = (head.body, head.keep_alive);
            return Ok(Some(HeadRead::Final(FinalHead {
                status,
                bytes,
                body,
                keep_alive,
                method,
            })));
        }
        self.poisoned |= !head.keep_alive;
        self.heads.interims += 1;
        if self.heads.interims > INTERIMS_MAX {
            return Err(UpstreamError::TooManyInterims {
                address,
                limit: INTERIMS_MAX,
            });
        }
        let head = self.inbox.drain(..bytes).collect();
        Ok(Some(HeadRead::Interim { status, head }))
    }
}

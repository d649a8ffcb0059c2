//! What can go wrong between this process and an origin, each with its facts.
//!
//! Made by every file of this module; read by `request::failure`, the one map to S3 codes, and by fills that decide
//! whether to ask again. Each error answers three questions: whose fault, may the request be sent again, which
//! metric. No error carries bytes of a request or a response.

use std::io;
use std::net::SocketAddr;

use crate::http::{ChunkError, ResponseError};
use crate::metrics::UpstreamFailure;

use crate::tls::TlsError;

/// Who has to mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The origin, or the way to it.
    Origin,
    /// This process is at a limit of its own.
    Here,
    /// The settings forbid it.
    Settings,
}

/// Why an exchange with an origin failed.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The origin failed too often and is not asked for a while.
    #[error("{host} fails and is not asked for {pause_ms} ms")]
    Out {
        /// The name.
        host: Box<str>,
        /// Until it may be probed; 0 while a probe is under way.
        pause_ms: u64,
    },
    /// The name has no address.
    #[error("{host} has no address")]
    Resolve {
        /// The name.
        host: Box<str>,
    },
    /// The name was not resolved in time.
    #[error("{host} was not resolved within {after_ms} ms")]
    ResolveTimeout {
        /// The name.
        host: Box<str>,
        /// The limit.
        after_ms: u64,
    },
    /// The settings forbid to dial this address.
    #[error("{address} may not be dialled")]
    AddressRefused {
        /// The address, as it would have been dialled.
        address: SocketAddr,
    },
    /// Refused, unreachable, or out of descriptors.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address dialled.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection, TLS handshake included, was not there in time.
    #[error("no connection to {address} within {after_ms} ms")]
    ConnectTimeout {
        /// The address dialled.
        address: SocketAddr,
        /// The limit.
        after_ms: u64,
    },
    /// The handshake or a record failed.
    #[error("TLS with {address}: {source}{hint}", hint = .source.hint_of_origin())]
    Tls {
        /// The peer.
        address: SocketAddr,
        /// What was wrong.
        source: TlsError,
    },
    /// The response head was not there in time.
    #[error("no response from {address} within {after_ms} ms")]
    FirstByteTimeout {
        /// The peer.
        address: SocketAddr,
        /// The limit.
        after_ms: u64,
    },
    /// The body stood still.
    #[error("{address} sent nothing for {after_ms} ms after {received} bytes of the body")]
    IdleTimeout {
        /// The peer.
        address: SocketAddr,
        /// The limit.
        after_ms: u64,
        /// Body bytes that had come.
        received: u64,
    },
    /// The connection broke.
    #[error("the connection to {address} broke: {source}")]
    Reset {
        /// The peer.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The connection ended before a whole response head.
    #[error("{address} closed the connection before its response")]
    ClosedBeforeHead {
        /// The peer.
        address: SocketAddr,
        /// Bytes of a head that had come.
        received: usize,
    },
    /// The response head is not HTTP/1.1 that can be trusted.
    #[error("{address} sent a bad response: {source}")]
    BadResponse {
        /// The peer.
        address: SocketAddr,
        /// What was wrong.
        source: ResponseError,
    },
    /// More interim responses than any sane origin sends.
    #[error("{address} sent more than {limit} interim responses")]
    TooManyInterims {
        /// The peer.
        address: SocketAddr,
        /// The limit.
        limit: u32,
    },
    /// 101 to a request that asked for no other protocol.
    #[error("{address} switched to another protocol unasked")]
    SwitchedProtocols {
        /// The peer.
        address: SocketAddr,
    },
    /// The body ended before its announced end.
    #[error("{address} sent {received} bytes of a body of {}", Announced(*expected))]
    ShortBody {
        /// The peer.
        address: SocketAddr,
        /// Body bytes that had come.
        received: u64,
        /// `Content-Length`; `None` for a chunked body, or one that ends with its TLS session and was cut.
        expected: Option<u64>,
    },
    /// The chunked coding is broken.
    #[error("{address} sent a broken chunk: {source}")]
    BadChunk {
        /// The peer.
        address: SocketAddr,
        /// What was wrong.
        source: ChunkError,
    },
    /// All connections that this shard may have are in use, and none came free in time.
    #[error("all {limit} connections to origins are in use")]
    Busy {
        /// The limit.
        limit: usize,
    },
}

struct Announced(Option<u64>);

impl std::fmt::Display for Announced {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(bytes) => write!(formatter, "{bytes} bytes"),
            None => formatter.write_str("undeclared length"),
        }
    }
}

impl UpstreamError {
    /// Whether a GET or HEAD may be sent again: the failure belongs to one connection or address, not to the request.
    /// Whether bytes of the response have already gone to a client is the caller's knowledge.
    #[must_use]
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::FirstByteTimeout { .. }
            | Self::IdleTimeout { .. }
            | Self::Reset { .. }
            | Self::ClosedBeforeHead { .. }
            | Self::ShortBody { .. } => true,
            Self::Out { .. }
            | Self::Resolve { .. }
            | Self::ResolveTimeout { .. }
            | Self::AddressRefused { .. }
            | Self::BadResponse { .. }
            | Self::TooManyInterims { .. }
            | Self::SwitchedProtocols { .. }
            | Self::BadChunk { .. }
            | Self::Busy { .. } => false,
        }
    }

    /// Who has to mend it.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::AddressRefused { .. } => Fault::Settings,
            Self::Busy { .. } => Fault::Here,
            _ => Fault::Origin,
        }
    }

    /// Whether the origin was too slow, which a gateway answers with 504 and not 502.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::ResolveTimeout { .. }
                | Self::ConnectTimeout { .. }
                | Self::FirstByteTimeout { .. }
                | Self::IdleTimeout { .. }
        )
    }

    /// The metric's word for it; `None` when no origin was asked.
    #[must_use]
    pub fn failure(&self) -> Option<UpstreamFailure> {
        Some(match self {
            Self::Resolve { .. } | Self::ResolveTimeout { .. } => UpstreamFailure::Dns,
            Self::Connect { .. } => UpstreamFailure::Connect,
            Self::ConnectTimeout { .. } => UpstreamFailure::TimeoutConnect,
            Self::Tls { .. } => UpstreamFailure::Tls,
            Self::FirstByteTimeout { .. } => UpstreamFailure::TimeoutFirstByte,
            Self::IdleTimeout { .. } => UpstreamFailure::TimeoutIdle,
            Self::Reset { .. } | Self::ClosedBeforeHead { .. } => UpstreamFailure::Reset,
            Self::BadResponse { .. }
            | Self::TooManyInterims { .. }
            | Self::SwitchedProtocols { .. }
            | Self::BadChunk { .. } => UpstreamFailure::Protocol,
            Self::ShortBody { .. } => UpstreamFailure::ShortBody,
            Self::Out { .. } | Self::AddressRefused { .. } | Self::Busy { .. } => return None,
        })
    }

    /// Whether it counts as a failure of the origin, and not of this process or its settings.
    #[must_use]
    pub fn tells_of_origin(&self) -> bool {
        let local = matches!(self, Self::Connect { source, .. } if is_local(source));
        self.failure().is_some() && !local
    }

    /// The address whose health the failure speaks of.
    pub(super) fn blamed(&self) -> Option<SocketAddr> {
        match self {
            Self::Connect { address, source } if !is_local(source) => Some(*address),
            Self::ConnectTimeout { address, .. }
            | Self::Tls { address, .. }
            | Self::FirstByteTimeout { address, .. }
            | Self::Reset { address, .. }
            | Self::ClosedBeforeHead { address, .. } => Some(*address),
            _ => None,
        }
    }

    /// Whether there was no connection at all.
    pub(super) fn is_of_connecting(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }

    /// Whether this machine has no way at all to such an address (an IPv6 address on an IPv4 network): known at once, and true
    /// of the whole family.
    pub(super) fn is_unroutable(&self) -> bool {
        let Self::Connect { source, .. } = self else {
            return false;
        };
        let kind = source.kind();
        kind == io::ErrorKind::NetworkUnreachable || kind == io::ErrorKind::AddrNotAvailable
    }
}

/// Errors of this process, which say nothing about the address: descriptors or memory have run out.
fn is_local(error: &io::Error) -> bool {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    error.kind() == io::ErrorKind::OutOfMemory
        || matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    #[test]
    fn what_is_the_requests_own_fault_is_not_retried() {
        let bad = UpstreamError::BadResponse {
            address: address(),
            source: ResponseError::InvalidStatusLine,
        };
        assert!(!bad.may_retry() && bad.fault() == Fault::Origin);
        let busy = UpstreamError::Busy { limit: 3 };
        assert!(!busy.may_retry() && busy.fault() == Fault::Here && busy.failure().is_none());
        let timeout = UpstreamError::FirstByteTimeout {
            address: address(),
            after_ms: 5,
        };
        assert!(timeout.may_retry() && timeout.is_timeout());
    }

    #[test]
    fn own_shortage_does_not_blame_the_address() {
        let error = |code| UpstreamError::Connect {
            address: address(),
            source: io::Error::from_raw_os_error(code),
        };
        let (emfile, refused, unreachable) = (error(24), error(111), error(101));
        assert_eq!(emfile.blamed(), None);
        assert_eq!(refused.blamed(), Some(address()));
        assert!(unreachable.is_unroutable() && !refused.is_unroutable());
    }

    #[test]
    fn a_short_body_says_how_short() {
        let error = UpstreamError::ShortBody {
            address: address(),
            received: 3,
            expected: Some(10),
        };
        assert_eq!(
            error.to_string(),
            "127.0.0.1:9 sent 3 bytes of a body of 10 bytes"
        );
    }
}

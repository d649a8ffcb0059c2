//! Origins to run a proxy against: a real S3 with signatures, and one that fails on demand.
//!
//! [`s3s`] embeds `s3s-fs`: signatures are verified, objects are files; it ignores `If-Match` and has no versions.
//! [`fault`] is our own: exact conditionals and ranges, no signatures, faults by rule. Both count what they serve
//! ([`stats`]) and show it on a side port ([`side`]). [`generate`] is content that needs no storage, [`tls`] what both need to
//! serve TLS.

pub mod fault;
pub mod generate;
pub mod s3s;
pub mod side;
pub mod stats;
pub mod tls;

use std::time::Duration;

/// Pause after an accept that failed: when descriptors are out, trying again at once would spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

//! The harness beside the product: origins to serve from, a signer and a client to ask with, a demo to see it.
//!
//! Used by the end-to-end tests, by the demo, and by whoever judges a deployment. Ordinary libraries on tokio: none
//! of this is on the way of a request that millrace serves.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "nothing here replays from a seed: a test tool takes the clock and the locks of std"
)]

pub mod bare;
pub mod bench;
pub mod client;
pub mod compare;
pub mod cpu;
pub mod demo;
pub mod load;
pub mod machine;
pub mod net;
pub mod origin;
pub mod peers;
pub mod report;
pub mod results;
pub mod scenario;
pub mod sign;

/// Header lines in order, names and values as on the wire.
pub type Headers = Vec<(String, String)>;

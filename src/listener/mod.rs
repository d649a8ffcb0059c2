//! Row 7: the doors. The acceptor thread of each; on the shard what a connection is behind its door (PROXY header, networks, TLS handshake), the
//! loop of its requests, and the hello of a tunnel.
//!
//! Called by `server`.

pub mod acceptor;
mod arrive;
pub mod connection;
pub mod proxy_header;
mod tunnel;

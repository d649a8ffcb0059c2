//! Row 7: the doors. The acceptor thread of each, and the loop of one client connection on its shard.
//!
//! Called by `server`.

pub mod acceptor;
mod arrive;
pub mod connection;
pub mod proxy_header;
mod tunnel;

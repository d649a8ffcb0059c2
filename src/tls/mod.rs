//! TLS as both ends of it: sessions over our sockets, and what the TLS door shows its clients.
//!
//! Called by `upstream` (origins) and by `request::client`, `listener` and `server` (clients). With `upstream::tls`, which says whom we trust
//! as an origin, the only place that names the TLS crate.

pub mod door;
mod error;
pub mod hello;
mod send;
mod server;
mod session;

pub use error::TlsError;
pub use server::{ShakeError, TlsServer};
pub use session::{ClientSession, TlsFailure, TlsScratch};

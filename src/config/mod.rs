//! Settings: one table, read from a file, the environment and flags, handed on as one typed and checked value.
//!
//! `main.rs` calls [`cli::decide`]; everyone else only reads [`Settings`]. Precedence: defaults, file, `MILLRACE_…`
//! variables, flags. Invariants: a `Settings` is inside all bounds and without contradictions; every error of a
//! configuration is reported at once, with its place; nothing here reads the clock, the network or the process's
//! environment on its own. Whether the machine can do what is asked (cores, memory, ports) is `server`'s to find out.

mod check;
pub mod cli;
pub mod document;
pub mod environment;
pub mod error;
mod file;
pub mod files;
mod layers;
mod load;
pub mod rules;
pub mod shape;
mod suggest;
pub mod table;
pub mod url;
pub mod value;
pub mod warning;
pub mod words;

pub use error::{ConfigError, Contradiction, Fault, Place};
pub use load::{Again, Effective, Flags, Loaded, Sources};
pub use rules::{ObjectPolicy, Rules};
pub use table::{
    Access, Admin, Cache, ClientCertificate, ClientControl, Compress, Destinations, Disk,
    EndpointOverride, Expiry, Fill, Freshness, Host, HugePages, Level, Listener, Log, Origin, Ram,
    Routing, Rule, STRIPE_BYTES, Server, Settings, Tcp, Tier, Tls, TlsVersion, Tunnel, Upstream,
    ZeroCopy,
};
pub use url::{OriginUrl, Scheme};
pub use value::AccessLog;
pub use warning::Warning;

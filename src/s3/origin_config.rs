//! What the map of allowed origins is built from, and why it cannot be.
//!
//! Filled from the settings by `server`, read by `host` once. Names are `host[:port]`.
//!
//! Left to others: where to connect for an origin and by what protocol (`upstream`).

/// The longest name of a configured origin, so that an object key stays small.
pub const ORIGIN_NAME_BYTES_MAX: usize = 128;

/// The one origin of `--origin`: every request goes there, whatever its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SingleOrigin {
    /// `host[:port]` of the origin itself, spelled as clients do: without the default port of its scheme.
    pub authority: String,
    /// Further names for it that clients use path-style; without a port any port fits.
    pub hosts: Vec<String>,
    /// Names whose subdomains are buckets; without a port any port fits.
    pub domains: Vec<String>,
}

/// A store beside S3, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CustomOrigin {
    /// The name that separates its objects from those of all other stores.
    pub name: String,
    /// Hosts used path-style, `host[:port]`, matched with their port.
    pub hosts: Vec<String>,
    /// Names whose subdomains are buckets, `host[:port]`, matched with their port.
    pub domains: Vec<String>,
}

/// What an [`OriginMap`] is built from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OriginMapConfig {
    /// If set, everything goes there and the rest of the map is not asked.
    pub single_origin: Option<SingleOrigin>,
    /// Whether Amazon's endpoints are allowed.
    pub aws: bool,
    /// Other stores.
    pub custom: Vec<CustomOrigin>,
}

/// Why a map cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginMapError {
    /// A configured host or domain is not `name[:port]`.
    #[error("{host:?} is not a host name with an optional port")]
    BadHost {
        /// What was configured.
        host: String,
    },
    /// Two origins claim one host or domain, or one does twice.
    #[error("{host:?} is named by two origins")]
    Claimed {
        /// The host or domain.
        host: String,
    },
    /// An origin's name is empty, too long, or used twice.
    #[error(
        "the origin name {name:?} is empty, longer than {ORIGIN_NAME_BYTES_MAX} bytes, or used twice"
    )]
    BadName {
        /// The name.
        name: String,
    },
}

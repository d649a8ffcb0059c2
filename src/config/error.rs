//! What can be wrong with a configuration, and where: every error has a place and a fault.
//!
//! Every part of `config` makes these; `main.rs` prints them, one line each, and exits with 1. All are the
//! operator's to mend, none may be retried. Texts are part of what operators rely on: golden tests hold them.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::url::OriginUrl;
use super::value::ValueError;

/// Where a value came from. Ordered by precedence: what is greater overrides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The table's own default.
    Default,
    /// The configuration file; line and column (in characters) count from 1, 0 is the file as a whole.
    File {
        /// As the operator named it.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A command line flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One error of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {fault}")]
pub struct ConfigError {
    /// Where to look.
    pub place: Place,
    /// What is wrong there.
    #[source]
    pub fault: Fault,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file cannot be read.
    #[error("cannot read the file: {reason}")]
    Unreadable {
        /// The system's words.
        reason: String,
    },
    /// A file that a setting names cannot be used.
    #[error("`{key}`: {reason}")]
    File {
        /// Dotted.
        key: &'static str,
        /// The system's words.
        reason: String,
    },
    /// The file is not UTF-8.
    #[error("not valid UTF-8")]
    NotUtf8,
    /// The file is larger than any configuration.
    #[error("the file is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// Not TOML.
    #[error("{message}")]
    Syntax {
        /// The TOML parser's words.
        message: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}`{}", did_you_mean(.nearest.as_deref()))]
    UnknownKey {
        /// Dotted.
        key: String,
        /// What was most likely meant.
        nearest: Option<String>,
    },
    /// A `[section]` that does not exist.
    #[error("unknown section [{section}]{}", did_you_mean(.nearest.as_deref()))]
    UnknownSection {
        /// As written.
        section: String,
        /// What was most likely meant, with its brackets.
        nearest: Option<String>,
    },
    /// A `MILLRACE_…` variable that does not exist.
    #[error("unknown variable{}", did_you_mean(.nearest.as_deref()))]
    UnknownVariable {
        /// What was most likely meant.
        nearest: Option<String>,
    },
    /// A section that is written as something else.
    #[error("`{section}` cannot be {got}: write {header} on a line of its own")]
    NotASection {
        /// Its name.
        section: &'static str,
        /// What was found.
        got: &'static str,
        /// How to write it.
        header: String,
    },
    /// A value that does not fit its key.
    #[error("`{key}`: {error}")]
    Value {
        /// Dotted.
        key: &'static str,
        /// Why.
        #[source]
        error: ValueError,
    },
    /// A key without a default is not given.
    #[error("`{key}` is missing: every {header} needs one")]
    Missing {
        /// Dotted.
        key: &'static str,
        /// The table that needs it.
        header: String,
    },
    /// More `[[…]]` tables than the limit.
    #[error("more than {max} {header}")]
    TooManyTables {
        /// The limit.
        max: usize,
        /// The table.
        header: String,
    },
    /// Values that are each right and together wrong.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
}

/// Values that are each right and together wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// An item stands twice in one list.
    #[error("`{key}` lists {item} twice")]
    ListedTwice {
        /// The list.
        key: &'static str,
        /// As TOML.
        item: String,
    },
    /// Two doors on one port.
    #[error("`{key}`: {address} overlaps with {other}")]
    DoorsOverlap {
        /// The list of the later one.
        key: &'static str,
        /// The later one.
        address: SocketAddr,
        /// The earlier one.
        other: SocketAddr,
    },
    /// The admin address is a door's.
    #[error("`admin.listen`: {address} overlaps with the door {door} of `{key}`")]
    AdminIsDoor {
        /// The door's list.
        key: &'static str,
        /// The admin address.
        address: SocketAddr,
        /// The door.
        door: SocketAddr,
    },
    /// Two `[[host]]` of one name.
    #[error("`host.name`: {name} is given twice")]
    MappedTwice {
        /// The name.
        name: String,
    },
    /// A TLS door without what it shows.
    #[error("`listener.tls` needs `tls.cert_file` and `tls.key_file`, and `{key}` is not set")]
    TlsDoorWithout {
        /// What is missing.
        key: &'static str,
    },
    /// An origin that is a door or the admin address.
    #[error("`{key}`: {url} is millrace itself (it listens on {address}): every miss would loop")]
    OriginIsMillrace {
        /// The key that names the origin.
        key: &'static str,
        /// The origin.
        url: OriginUrl,
        /// What we listen on.
        address: SocketAddr,
    },
    /// No request could go anywhere.
    #[error(
        "no origin is reachable: `routing.aws` is false, and neither `routing.origin` nor an [[origin]] is given"
    )]
    NoOrigin,
    /// Single-origin mode beside named origins.
    #[error(
        "`routing.origin` sends every request to {url}, so no [[origin]] is ever asked: keep one of the two"
    )]
    SingleOriginAmongMany {
        /// The single origin.
        url: OriginUrl,
    },
    /// A key of single-origin mode without a single origin.
    #[error(
        "`{key}` belongs to `routing.origin`, which is not set: give it to an [[origin]] instead"
    )]
    WithoutSingleOrigin {
        /// The key.
        key: &'static str,
    },
    /// Two origins of one name.
    #[error("`origin.name`: \"{name}\" is taken by the origin at {first}")]
    OriginNameTwice {
        /// The name.
        name: String,
        /// Where it was first.
        first: Place,
    },
    /// A host that leads to two origins.
    #[error("`{key}`: {host} leads to the origin \"{first}\" already")]
    HostTwice {
        /// The key that names it again.
        key: &'static str,
        /// The host or domain.
        host: String,
        /// The name of the origin that had it.
        first: String,
    },
    /// Two endpoints of one host.
    #[error("`endpoint.host`: {host} is an [[endpoint]] already ({first})")]
    EndpointTwice {
        /// The host.
        host: String,
        /// Where it was first.
        first: Place,
    },
    /// The oldest version of TLS is newer than the newest.
    #[error("`tls_min` is above `tls_max`: no version of TLS is left")]
    NoTlsVersion,
    /// More shards than cores to pin them to.
    #[error(
        "`server.shards` is {shards}, but `server.cores` lists only {cores}: each shard needs a core of its own"
    )]
    ShardsWithoutCores {
        /// Shards asked for.
        shards: usize,
        /// Cores listed.
        cores: usize,
    },
    /// A smallest above its largest.
    #[error("`{low_key}` ({low}) is greater than `{high_key}` ({high})")]
    Inverted {
        /// The key that should be smaller.
        low_key: &'static str,
        /// Its value.
        low: String,
        /// The key that should be greater.
        high_key: &'static str,
        /// Its value.
        high: String,
    },
    /// A rule for an origin that is not there.
    #[error("`rule.origin`: there is no origin \"{name}\"{}", did_you_mean(.nearest.as_deref()))]
    RuleWithoutOrigin {
        /// As written.
        name: String,
        /// What was most likely meant.
        nearest: Option<String>,
    },
    /// What is on disk is read through memory.
    #[error("`rule.tiers`: what is on disk is read through memory: write [\"ram\", \"disk\"]")]
    DiskWithoutRam,
    /// A window that no stripe passes through.
    #[error("`fill.window` ({window}) is smaller than a stripe ({stripe})")]
    WindowBelowStripe {
        /// In words.
        window: String,
        /// In words.
        stripe: String,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |word| format!("; did you mean `{word}`?"))
}

//! What can be wrong with a configuration, and where: every error has a place and a fault.
//!
//! Every part of `config` makes these; `main.rs` prints them, one line each, and exits with 1. All are the
//! operator's to mend, none may be retried. Texts are part of what operators rely on: golden tests hold them.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::check::Contradiction;
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

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |word| format!("; did you mean `{word}`?"))
}

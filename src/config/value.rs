//! What a setting may hold: its shape, how text becomes a value of that shape, how the value is written back.
//!
//! `table.rs` gives every key a `Kind`; `file.rs`, `environment.rs` and the flags bring `Raw` values. A `Value` is
//! always inside its key's bounds, and its `Display` is TOML that reads back as the same value. Relations between
//! keys are `check.rs`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::shape::Shape;
use super::url::{NameError, OriginUrl};
use super::words::{format_duration, format_size};

/// Items of the longest list when the table names no lower bound.
const LIST_ITEMS_MAX: usize = 256;

/// A shape, alone or as a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One value.
    One(Shape),
    /// A list of values with the fewest and the most it may hold.
    List(Shape, usize, usize),
}

impl Kind {
    /// A list that may be empty.
    #[must_use]
    pub const fn list(shape: Shape) -> Self {
        Self::List(shape, 0, LIST_ITEMS_MAX)
    }

    /// The shape of the value or of each item.
    #[must_use]
    pub const fn shape(&self) -> Shape {
        match self {
            Self::One(shape) | Self::List(shape, ..) => *shape,
        }
    }

    /// What the key wants, for people: `list of addresses`.
    #[must_use]
    pub fn type_words(&self) -> String {
        match self {
            Self::One(shape) => shape.type_words().to_owned(),
            Self::List(shape, ..) => match shape.type_words() {
                "address" => "list of addresses".to_owned(),
                word => format!("list of {word}s"),
            },
        }
    }

    /// The bounds, for people; empty when the type says it all.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self {
            Self::One(shape) => shape.bounds(),
            Self::List(_, min, max) => format!("{min} to {max} items"),
        }
    }

    /// Reads a variable's or a flag's text; lists are separated by commas.
    pub fn parse_word(&self, word: &str) -> Result<Value, ValueError> {
        match self {
            Self::One(shape) => shape.parse(&Raw::Word(word)),
            Self::List(shape, ..) => {
                let words = word.split(',').map(str::trim).filter(|_| !word.is_empty());
                let items: Result<Vec<_>, _> = words.map(|w| shape.parse(&Raw::Word(w))).collect();
                self.assemble(items?)
            }
        }
    }

    /// The error of a TOML value that should have been a list.
    #[must_use]
    pub fn wants_a_list(&self, raw: &Raw<'_>) -> ValueError {
        let example = self.shape().wants();
        ValueError::WrongType {
            wants: format!("a list in brackets, each item {example}"),
            got: raw.type_words(),
        }
    }

    /// Makes a list of items that are parsed already.
    pub fn assemble(&self, items: Vec<Value>) -> Result<Value, ValueError> {
        match self {
            Self::List(_, min, max) if !(*min..=*max).contains(&items.len()) => {
                Err(ValueError::OutOfBounds {
                    value: format!("a list of {}", items.len()),
                    bounds: self.bounds(),
                })
            }
            _ => Ok(Value::List(items)),
        }
    }
}

/// A value as it was found, before its key's shape is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw<'a> {
    /// From a variable or a flag, where everything is text.
    Word(&'a str),
    /// A TOML string.
    Text(&'a str),
    /// A TOML integer: as written, and its value if it fits.
    Integer(String, Option<u64>),
    /// A TOML boolean.
    Bool(bool),
    /// Any other TOML type, by name.
    Other(&'static str),
}

impl Raw<'_> {
    /// Its type with an article.
    #[must_use]
    pub fn type_words(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "a string",
            Self::Integer(..) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::Other(name) => name,
        }
    }
}

/// A value that fits its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nobody has said anything.
    Unset,
    /// See [`Shape::Bool`].
    Bool(bool),
    /// See [`Shape::Int`].
    Int(u64),
    /// See [`Shape::Size`].
    Bytes(u64),
    /// See [`Shape::Duration`].
    Millis(u64),
    /// See [`Shape::OneOf`].
    Word(&'static str),
    /// See [`Shape::Address`], [`Shape::Door`] and [`Shape::Server`].
    Address(SocketAddr),
    /// See [`Shape::Network`].
    Network(IpNet),
    /// See [`Shape::Url`] and [`Shape::UrlOrNone`].
    Url(Option<OriginUrl>),
    /// See [`Shape::Host`], [`Shape::HostPattern`], [`Shape::Domain`], [`Shape::Name`].
    Text(String),
    /// See [`Shape::Congestion`].
    TextOrNone(Option<String>),
    /// See [`Shape::Cores`].
    Cores(Vec<usize>),
    /// See [`Shape::Path`].
    Path(Option<PathBuf>),
    /// See [`Shape::DiskDir`].
    DiskDir(Option<PathBuf>),
    /// See [`Shape::AccessLog`].
    AccessLog(AccessLog),
    /// See [`Kind::List`].
    List(Vec<Value>),
}

/// Where access log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Why a value does not fit its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Bytes that are no text.
    #[error("is not valid UTF-8")]
    NotUtf8,
    /// Another TOML type.
    #[error("wants {wants}, not {got}")]
    WrongType {
        /// The type with an example.
        wants: String,
        /// What was found.
        got: &'static str,
    },
    /// Text that is not of this shape.
    #[error("\"{text}\" is not {wants}")]
    Malformed {
        /// As written.
        text: String,
        /// The type with an example.
        wants: &'static str,
    },
    /// A duration that does not say of what.
    #[error("{number} has no unit: write \"{number}s\" (units: ms, s, m, h, d)")]
    DurationWithoutUnit {
        /// As written.
        number: String,
    },
    /// A unit that we do not know.
    #[error("unknown unit \"{unit}\" (units: {units})")]
    UnknownUnit {
        /// As written.
        unit: String,
        /// All we know.
        units: &'static str,
    },
    /// More than 64 bits hold.
    #[error("\"{text}\" is too large")]
    TooLarge {
        /// As written.
        text: String,
    },
    /// Beyond the key's bounds.
    #[error("{value} is out of bounds ({bounds})")]
    OutOfBounds {
        /// In words.
        value: String,
        /// In words.
        bounds: String,
    },
    /// Not one of the words.
    #[error("\"{text}\" is not one of {words}{}", did_you_mean(*.nearest))]
    NotOneOf {
        /// As written.
        text: String,
        /// All there are.
        words: String,
        /// What was most likely meant.
        nearest: Option<&'static str>,
    },
    /// A URL or host name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A directory that may be a mistyped word.
    #[error("\"{text}\" is neither \"none\" nor a path: a path contains a '/'")]
    NotDiskDir {
        /// As written.
        text: String,
    },
    /// A file name that may be a mistyped word.
    #[error("\"{text}\" is neither \"off\" nor \"stdout\" nor a path: a path contains a '/'")]
    NotAccessLog {
        /// As written.
        text: String,
    },
    /// A pattern that cannot be read, or matches nothing.
    #[error("\"{text}\": {reason}")]
    NotGlob {
        /// As written.
        text: String,
        /// In words.
        reason: String,
    },
    /// The same core twice.
    #[error("core {core} is listed twice")]
    CoreTwice {
        /// Its number.
        core: usize,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or(String::new(), |word| format!("; did you mean \"{word}\"?"))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unset => Ok(()),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Bytes(bytes) => write!(f, "\"{}\"", format_size(*bytes)),
            Self::Millis(ms) => write!(f, "\"{}\"", format_duration(*ms)),
            Self::Word(word) => write!(f, "\"{word}\""),
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Network(network) => write!(f, "\"{network}\""),
            Self::Url(url) => {
                let text = url.as_ref().map_or(String::new(), OriginUrl::to_string);
                write!(f, "\"{text}\"")
            }
            Self::Text(text) => write_string(f, text),
            Self::TextOrNone(text) => write_string(f, text.as_deref().unwrap_or("")),
            Self::Cores(cores) => write!(f, "\"{}\"", format_cores(cores)),
            Self::Path(path) => write_path(f, path.as_ref(), ""),
            Self::DiskDir(path) => write_path(f, path.as_ref(), "none"),
            Self::AccessLog(AccessLog::Off) => f.write_str("\"off\""),
            Self::AccessLog(AccessLog::Stdout) => f.write_str("\"stdout\""),
            Self::AccessLog(AccessLog::File(path)) => write_path(f, Some(path), ""),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(f, "[{}]", items.join(", "))
            }
        }
    }
}

fn write_path(f: &mut fmt::Formatter<'_>, path: Option<&PathBuf>, none: &str) -> fmt::Result {
    match path {
        Some(path) => write_string(f, &path.to_string_lossy()),
        None => write_string(f, none),
    }
}

/// Control characters never get here: `parse_text` refuses them.
fn write_string(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    write!(f, "\"{escaped}\"")
}

/// Writes runs of cores as ranges: `0,2-5`.
fn format_cores(cores: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *core => *last = *core,
            _ => runs.push((*core, *core)),
        }
    }
    let texts: Vec<String> = runs
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    texts.join(",")
}

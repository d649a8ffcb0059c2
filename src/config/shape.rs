//! The shapes of single values: how text or a TOML scalar becomes a value, and what its bounds are in words.
//!
//! `value.rs` calls this through a row's `Kind`, `file.rs` for each item of a list. Every function is total: bad
//! input gives a `ValueError`, never a panic and never a value out of bounds.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::rules::parse_glob;
use super::suggest::nearest;
use super::url::{parse_bare_host, parse_domain, parse_host, parse_url};
use super::value::{AccessLog, Raw, Value, ValueError};
use super::words::{format_duration, format_size, parse_duration, parse_size};

/// The port of a name server that is given without one.
const DNS_PORT: u16 = 53;

/// Core numbers end here: the kernel's `CPU_SETSIZE`.
const CORES_MAX: usize = 1024;

/// Longest text or path that is accepted, in bytes (`PATH_MAX`).
const TEXT_BYTES_MAX: usize = 4096;

/// What one value looks like, with its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// A whole number, bounds inclusive.
    Int {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Bytes, bounds inclusive.
    Size {
        /// Whether 0 is allowed although it is below `min`.
        zero: bool,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// Milliseconds, bounds inclusive.
    Duration {
        /// Shortest.
        min: u64,
        /// Longest.
        max: u64,
    },
    /// One of a few words.
    OneOf(&'static [&'static str]),
    /// IP address and port to listen on.
    Address,
    /// IP address to listen on, with or without port.
    Door {
        /// The port of one without.
        port: u16,
    },
    /// Addresses as `10.0.0.0/8`, or one alone.
    Network,
    /// IP address with or without port: a name server.
    Server,
    /// A host name or address, or `*.` and what names end with.
    HostPattern,
    /// URL of an origin.
    Url,
    /// URL of an origin, or nothing.
    UrlOrNone,
    /// `host[:port]`.
    Host,
    /// A domain with its buckets below it.
    Domain,
    /// The same, or nothing.
    DomainOrNone,
    /// An IP address.
    Ip,
    /// A bucket.
    Bucket,
    /// The beginning of keys as it stands in a path, or nothing.
    Prefix,
    /// Lower-case letters, digits and `-`: a name that we put into metrics and logs.
    Name,
    /// A congestion control algorithm of the kernel, or nothing.
    Congestion,
    /// A glob over `bucket/key`.
    Glob,
    /// Core numbers: `0,2-5`, or nothing.
    Cores,
    /// A file, or nothing.
    Path,
    /// The cache directory, or `none`.
    DiskDir,
    /// `off`, `stdout` or a file.
    AccessLog,
}

impl Shape {
    /// What it wants, for people.
    #[must_use]
    pub const fn type_words(&self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int { .. } => "integer",
            Self::Size { .. } => "size",
            Self::Duration { .. } => "duration",
            Self::OneOf(_) => "word",
            Self::Address => "address",
            Self::Door { .. } | Self::Server => "address",
            Self::Network => "network",
            Self::HostPattern => "host",
            Self::Url | Self::UrlOrNone => "URL",
            Self::Host => "host",
            Self::Domain | Self::DomainOrNone => "domain",
            Self::Ip => "address",
            Self::Bucket | Self::Name | Self::Congestion => "name",
            Self::Prefix => "key",
            Self::Glob => "glob",
            Self::Cores => "core list",
            Self::Path => "path",
            Self::DiskDir => "path or \"none\"",
            Self::AccessLog => "\"off\", \"stdout\" or path",
        }
    }

    /// The placeholder of a flag in `--help`.
    #[must_use]
    pub const fn value_name(&self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int { .. } => "N",
            Self::Size { .. } => "SIZE",
            Self::Duration { .. } => "DURATION",
            Self::OneOf(_) => "WORD",
            Self::Address | Self::Door { .. } | Self::Server => "ADDR",
            Self::Network => "NET",
            Self::Url | Self::UrlOrNone => "URL",
            Self::Host | Self::HostPattern => "HOST",
            Self::Domain | Self::DomainOrNone => "DOMAIN",
            Self::Ip => "IP",
            Self::Bucket | Self::Name | Self::Congestion => "NAME",
            Self::Prefix => "KEY",
            Self::Glob => "GLOB",
            Self::Cores => "LIST",
            Self::Path | Self::AccessLog => "FILE",
            Self::DiskDir => "DIR|none",
        }
    }

    /// The bounds, for people.
    #[must_use]
    pub fn bounds(&self) -> String {
        match self {
            Self::Int { min, max } => format!("{min} to {max}"),
            Self::Size { zero, min, max } => {
                let or_zero = if *zero { "0 or " } else { "" };
                format!("{or_zero}{} to {}", format_size(*min), format_size(*max))
            }
            Self::Duration { min, max } => {
                format!("{} to {}", format_duration(*min), format_duration(*max))
            }
            Self::OneOf(words) => quoted(words),
            _ => String::new(),
        }
    }

    /// The type with an example, as an error message names it.
    #[must_use]
    pub const fn wants(&self) -> &'static str {
        match self {
            Self::Bool => "true or false",
            Self::Int { .. } => "an integer",
            Self::Size { .. } => "a size such as \"64MiB\"",
            Self::Duration { .. } => "a duration such as \"90s\"",
            Self::OneOf(_) => "a word in quotes",
            Self::Address => "an IP address with port such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            Self::Door { .. } => {
                "an IP address with or without port such as \"0.0.0.0\" or \"[::]:8443\""
            }
            Self::Network => "a network such as \"10.0.0.0/8\" or an address",
            Self::Server => "an IP address with or without port such as \"10.0.0.2\"",
            Self::HostPattern => "a host such as \"sts.example.com\" or \"*.example.com\"",
            Self::Url | Self::UrlOrNone => "a URL such as \"https://s3.example.com\"",
            Self::Host => "a host such as \"s3.example.com\" or \"127.0.0.1:9000\"",
            Self::Domain | Self::DomainOrNone => "a domain such as \"s3.example.com\"",
            Self::Ip => "an IP address such as \"10.0.0.2\"",
            Self::Bucket => "the name of a bucket",
            Self::Prefix => {
                "the beginning of a key such as \"site/\": letters, digits and \"-_.~!$&'()*,;=:@/\", no '/' in front, no '.' or '..' between slashes"
            }
            Self::Name => "a name of 1 to 63 lower-case letters, digits and '-'",
            Self::Congestion => "the name of a congestion control such as \"cubic\"",
            Self::Glob => "a glob such as \"bucket/prefix/**\"",
            Self::Cores => "a list of cores such as \"0,2-5\"",
            Self::Path => "a path in quotes",
            Self::DiskDir => "a path or \"none\"",
            Self::AccessLog => "\"off\", \"stdout\" or a path",
        }
    }

    /// Reads a value and holds it to its bounds.
    pub fn parse(&self, raw: &Raw<'_>) -> Result<Value, ValueError> {
        match (self, raw) {
            (Self::Bool, Raw::Bool(value)) => Ok(Value::Bool(*value)),
            (Self::Bool, Raw::Word("true")) => Ok(Value::Bool(true)),
            (Self::Bool, Raw::Word("false")) => Ok(Value::Bool(false)),
            (Self::Bool, Raw::Word(word)) => Err(self.malformed(word)),
            (Self::Int { min, max }, Raw::Integer(text, value)) => {
                self.bounded(*value, text, *min, *max).map(Value::Int)
            }
            (Self::Int { min, max }, Raw::Word(word)) => {
                if !is_integer(word) {
                    return Err(self.malformed(word));
                }
                let value = word.parse().ok();
                self.bounded(value, word, *min, *max).map(Value::Int)
            }
            (Self::Size { .. }, Raw::Integer(text, value)) => self.sized(*value, text),
            (Self::Duration { .. }, Raw::Integer(text, _)) => {
                Err(ValueError::DurationWithoutUnit {
                    number: text.clone(),
                })
            }
            (Self::Bool | Self::Int { .. }, _) => Err(self.wrong_type(raw)),
            (_, Raw::Word(text) | Raw::Text(text)) => self.parse_text(text),
            (_, Raw::Integer(..) | Raw::Bool(_) | Raw::Other(_)) => Err(self.wrong_type(raw)),
        }
    }

    fn parse_text(&self, text: &str) -> Result<Value, ValueError> {
        if text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
            return Err(self.malformed(&text.chars().take(40).collect::<String>()));
        }
        match self {
            Self::Bool | Self::Int { .. } => Err(self.malformed(text)),
            Self::Size { .. } => self.sized(Some(parse_size(text)?), text),
            Self::Duration { min, max } => {
                let value = parse_duration(text)?;
                self.bounded(Some(value), text, *min, *max)
                    .map(Value::Millis)
            }
            Self::OneOf(words) => self.one_of(words, text),
            Self::Address => text
                .parse()
                .map(Value::Address)
                .map_err(|_| self.malformed(text)),
            Self::Door { port } => self.parse_server(text, *port),
            Self::Network => self.parse_network(text),
            Self::Server => self.parse_server(text, DNS_PORT),
            Self::HostPattern => match text.strip_prefix("*.") {
                Some(suffix) => Ok(Value::Text(format!("*.{}", parse_domain(suffix)?))),
                None => Ok(Value::Text(parse_bare_host(text)?)),
            },
            Self::UrlOrNone if text.is_empty() => Ok(Value::Url(None)),
            Self::Url | Self::UrlOrNone => Ok(Value::Url(Some(parse_url(text)?))),
            Self::Host => Ok(Value::Text(parse_host(text)?)),
            Self::DomainOrNone if text.is_empty() => Ok(Value::TextOrNone(None)),
            Self::DomainOrNone => Ok(Value::TextOrNone(Some(parse_domain(text)?))),
            Self::Domain => Ok(Value::Text(parse_domain(text)?)),
            Self::Ip => match text.parse::<IpAddr>() {
                Ok(ip) => Ok(Value::Text(ip.to_canonical().to_string())),
                Err(_) => Err(self.malformed(text)),
            },
            Self::Bucket if !text.is_empty() && is_in_path(text) && !text.contains('/') => {
                Ok(Value::Text(text.to_owned()))
            }
            Self::Prefix if is_in_path(text) => Ok(Value::Text(text.to_owned())),
            Self::Bucket | Self::Prefix => Err(self.malformed(text)),
            Self::Name if is_name(text) => Ok(Value::Text(text.to_owned())),
            Self::Name => Err(self.malformed(text)),
            Self::Congestion if text.is_empty() => Ok(Value::TextOrNone(None)),
            Self::Congestion if is_congestion(text) => Ok(Value::TextOrNone(Some(text.to_owned()))),
            Self::Congestion => Err(self.malformed(text)),
            Self::Glob => match parse_glob(text) {
                Ok(_) => Ok(Value::Text(text.to_owned())),
                Err(reason) => Err(ValueError::NotGlob {
                    text: text.to_owned(),
                    reason,
                }),
            },
            Self::Cores => self.parse_cores(text).map(Value::Cores),
            Self::Path => Ok(Value::Path((!text.is_empty()).then(|| text.into()))),
            Self::DiskDir if text == "none" => Ok(Value::DiskDir(None)),
            Self::DiskDir if text.contains('/') => Ok(Value::DiskDir(Some(text.into()))),
            Self::DiskDir => Err(ValueError::NotDiskDir {
                text: text.to_owned(),
            }),
            Self::AccessLog => parse_access_log(text),
        }
    }

    fn one_of(&self, words: &'static [&'static str], text: &str) -> Result<Value, ValueError> {
        match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Value::Word(word)),
            None => Err(ValueError::NotOneOf {
                text: text.to_owned(),
                words: quoted(words),
                nearest: nearest(text, words.iter().copied()),
            }),
        }
    }

    /// Bits beyond the prefix are a mistake: nobody knows which of the two was meant.
    fn parse_network(&self, text: &str) -> Result<Value, ValueError> {
        let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let network = text.parse::<IpNet>().ok().or_else(alone);
        match network.filter(|network| network.trunc() == *network) {
            Some(network) => Ok(Value::Network(network)),
            None => Err(self.malformed(text)),
        }
    }

    fn parse_server(&self, text: &str, port: u16) -> Result<Value, ValueError> {
        let any_port = matches!(self, Self::Door { .. });
        let with_port = text.parse::<SocketAddr>().ok();
        let with_port = with_port.filter(|address| any_port || address.port() != 0);
        let in_brackets = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let bare = in_brackets.unwrap_or(text);
        let alone = || Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, port));
        match with_port.or_else(alone) {
            Some(address) => Ok(Value::Address(address)),
            None => Err(self.malformed(text)),
        }
    }

    /// Reads `0,2-5`; the order is kept, for shard `i` runs on the `i`-th core.
    fn parse_cores(&self, text: &str) -> Result<Vec<usize>, ValueError> {
        let mut cores = Vec::new();
        for part in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (core_number(first), core_number(last)) else {
                return Err(self.malformed(text));
            };
            if first > last {
                return Err(self.malformed(text));
            }
            for core in first..=last {
                if cores.contains(&core) {
                    return Err(ValueError::CoreTwice { core });
                }
                cores.push(core);
            }
        }
        Ok(cores)
    }

    fn sized(&self, value: Option<u64>, text: &str) -> Result<Value, ValueError> {
        match self {
            Self::Size { zero: true, .. } if value == Some(0) => Ok(Value::Bytes(0)),
            Self::Size { min, max, .. } => self.bounded(value, text, *min, *max).map(Value::Bytes),
            _ => Err(self.malformed(text)),
        }
    }

    fn bounded(
        &self,
        value: Option<u64>,
        text: &str,
        min: u64,
        max: u64,
    ) -> Result<u64, ValueError> {
        match value {
            Some(value) if (min..=max).contains(&value) => Ok(value),
            _ => Err(ValueError::OutOfBounds {
                value: text.to_owned(),
                bounds: self.bounds(),
            }),
        }
    }

    fn malformed(&self, text: &str) -> ValueError {
        ValueError::Malformed {
            text: text.to_owned(),
            wants: self.wants(),
        }
    }

    fn wrong_type(&self, raw: &Raw<'_>) -> ValueError {
        ValueError::WrongType {
            wants: self.wants().to_owned(),
            got: raw.type_words(),
        }
    }
}

fn parse_access_log(text: &str) -> Result<Value, ValueError> {
    match text {
        "off" => Ok(Value::AccessLog(AccessLog::Off)),
        "stdout" => Ok(Value::AccessLog(AccessLog::Stdout)),
        path if path.contains('/') => Ok(Value::AccessLog(AccessLog::File(path.into()))),
        _ => Err(ValueError::NotAccessLog {
            text: text.to_owned(),
        }),
    }
}

fn core_number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match digits {
        true => text.parse().ok().filter(|core| *core < CORES_MAX),
        false => None,
    }
}

fn is_integer(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// No dot and no colon: a name can never be taken for a `host:port` that identifies an unnamed origin.
fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// What stands in a path as it is, and means to all stores what it says (RFC 3986, section 3.3, without `+`).
fn is_in_path(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*,;=:@/".contains(&byte);
    let mut parts = text.split('/');
    text.len() <= 512
        && text.bytes().all(known)
        && !text.starts_with('/')
        && !parts.any(|part| matches!(part, "." | ".."))
}

/// The kernel's `TCP_CA_NAME_MAX` is 16 with its terminating zero.
fn is_congestion(text: &str) -> bool {
    text.len() < 16
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shape: Shape, text: &str) -> Option<Value> {
        shape.parse(&Raw::Text(text)).ok()
    }

    #[test]
    fn cores_are_numbers_and_ranges_in_the_order_given() {
        let cores = |list| match text(Shape::Cores, list) {
            Some(Value::Cores(cores)) => Some(cores),
            _ => None,
        };
        assert_eq!(cores(""), Some(vec![]));
        assert_eq!(cores("0,2-5"), Some(vec![0, 2, 3, 4, 5]));
        assert_eq!(cores("7, 1-2"), Some(vec![7, 1, 2]));
        for wrong in [
            "a", "1,", "-1", "5-2", "1-1,1", "0-1024", "1--2", "+1", "1-2-3",
        ] {
            assert_eq!(cores(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_server_may_leave_its_port_out() {
        for (server, address) in [
            ("10.0.0.2", "10.0.0.2:53"),
            ("10.0.0.2:5353", "10.0.0.2:5353"),
            ("fd00::1", "[fd00::1]:53"),
            ("[fd00::1]", "[fd00::1]:53"),
            ("[fd00::1]:5353", "[fd00::1]:5353"),
        ] {
            let address = address.parse().ok().map(Value::Address);
            assert_eq!(text(Shape::Server, server), address, "{server}");
        }
        for wrong in [
            "",
            "dns.example.com",
            "10.0.0.2:0",
            "[10.0.0.2",
            "10.0.0.2]",
            "10.0.0.2:x",
        ] {
            assert_eq!(text(Shape::Server, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_door_may_leave_its_port_out_and_a_network_its_prefix() {
        let door = |door| text(Shape::Door { port: 443 }, door);
        let address = |address: &str| address.parse().ok().map(Value::Address);
        assert_eq!(door("0.0.0.0"), address("0.0.0.0:443"));
        assert_eq!(door("::"), address("[::]:443"));
        assert_eq!(door("127.0.0.1:0"), address("127.0.0.1:0"));
        assert_eq!(door("example.com"), None);
        let network = |network| text(Shape::Network, network).map(|value| value.to_string());
        assert_eq!(network("10.0.0.0/8"), Some("\"10.0.0.0/8\"".to_owned()));
        assert_eq!(network("::1"), Some("\"::1/128\"".to_owned()));
        for wrong in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0/8", "localhost"] {
            assert_eq!(network(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_prefix_is_what_a_path_may_say() {
        let is = |shape, wanted| text(shape, wanted).is_some();
        for good in ["", "site/", "a/b.c", "index.html", "..a/b"] {
            assert!(is(Shape::Prefix, good), "{good}");
        }
        for wrong in [
            "/a", "a b", "a?b", "a#", "a%20", "a+b", "../a", "a/./b", "ä",
        ] {
            assert!(!is(Shape::Prefix, wrong), "{wrong}");
        }
        assert!(is(Shape::Bucket, "b.c-1") && !is(Shape::Bucket, "") && !is(Shape::Bucket, "a/b"));
    }

    #[test]
    fn an_address_has_a_number_and_a_port() {
        for wrong in [
            "",
            "8080",
            ":8080",
            "localhost:8080",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:80",
        ] {
            assert_eq!(text(Shape::Address, wrong), None, "{wrong}");
        }
        assert!(text(Shape::Address, "[::1]:0").is_some());
    }

    #[test]
    fn bounds_are_inclusive() {
        let shape = Shape::Int { min: 1, max: 64 };
        for (word, fits) in [
            ("0", false),
            ("1", true),
            ("64", true),
            ("65", false),
            ("-1", false),
        ] {
            assert_eq!(shape.parse(&Raw::Word(word)).is_ok(), fits, "{word}");
        }
        let shape = Shape::Size {
            zero: true,
            min: 10,
            max: 20,
        };
        for (word, fits) in [
            ("0", true),
            ("9B", false),
            ("10B", true),
            ("20", true),
            ("21B", false),
        ] {
            assert_eq!(shape.parse(&Raw::Word(word)).is_ok(), fits, "{word}");
        }
    }

    #[test]
    fn a_file_says_its_types_and_a_variable_has_none() {
        let count = Shape::Int { min: 0, max: 9 };
        assert!(count.parse(&Raw::Text("5")).is_err());
        assert!(count.parse(&Raw::Word("5")).is_ok());
        assert!(Shape::Bool.parse(&Raw::Text("true")).is_err());
        assert!(Shape::Bool.parse(&Raw::Word("true")).is_ok());
        assert!(Shape::Bool.parse(&Raw::Word("yes")).is_err());
    }

    #[test]
    fn control_characters_and_endless_text_are_refused() {
        assert_eq!(text(Shape::Path, "a\nb"), None);
        assert_eq!(text(Shape::Path, &"a/".repeat(TEXT_BYTES_MAX)), None);
        let error = Shape::Path.parse(&Raw::Text(&"a".repeat(9999)));
        assert!(error.is_err_and(|error| error.to_string().len() < 100));
    }

    #[test]
    fn the_cache_directory_is_a_path_or_none() {
        assert_eq!(text(Shape::DiskDir, "none"), Some(Value::DiskDir(None)));
        for dir in ["/var/cache/millrace", "./cache"] {
            assert_eq!(
                text(Shape::DiskDir, dir),
                Some(Value::DiskDir(Some(dir.into())))
            );
        }
        for word in ["", "None", "cache"] {
            let error = Shape::DiskDir.parse(&Raw::Word(word));
            let error = error.map(|_| ()).map_err(|error| error.to_string());
            assert!(error.is_err_and(|text| text.contains("neither \"none\" nor a path")));
        }
    }
}

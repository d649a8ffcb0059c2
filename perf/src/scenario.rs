//! Scenarios: what is asked of a server and how, as files in `perf/scenarios/`.
//!
//! Read by `perf bench`; the files that come with this program are built into it, others are given by path. Pure.
//! Invariant: a file with an unknown key or an impossible mix is an error, not a surprise in the numbers. Left to
//! others: doing it.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::load::Stop;
use crate::load::keys::Picks;
use crate::load::pace::Pace;
use crate::load::requests::Method;
use crate::origin::generate::parse_size;

/// Name and text of the files that come along.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("hit-1g", include_str!("../scenarios/hit-1g.toml")),
    ("hit-1g-8", include_str!("../scenarios/hit-1g-8.toml")),
    ("hit-1m-64", include_str!("../scenarios/hit-1m-64.toml")),
    ("hit-4k-64", include_str!("../scenarios/hit-4k-64.toml")),
    ("head-4k-64", include_str!("../scenarios/head-4k-64.toml")),
    ("range-64m-1", include_str!("../scenarios/range-64m-1.toml")),
    (
        "range-64m-32",
        include_str!("../scenarios/range-64m-32.toml"),
    ),
    ("cold-1g", include_str!("../scenarios/cold-1g.toml")),
    ("cold-1g-tls", include_str!("../scenarios/cold-1g-tls.toml")),
    ("herd-100m", include_str!("../scenarios/herd-100m.toml")),
    ("put-1m", include_str!("../scenarios/put-1m.toml")),
    ("put-64m", include_str!("../scenarios/put-64m.toml")),
    ("open-4k", include_str!("../scenarios/open-4k.toml")),
    ("shards-2", include_str!("../scenarios/shards-2.toml")),
    ("disk-1g", include_str!("../scenarios/disk-1g.toml")),
    ("fill-1g", include_str!("../scenarios/fill-1g.toml")),
    ("tunnel-1g", include_str!("../scenarios/tunnel-1g.toml")),
    (
        "tunnel-1m-64",
        include_str!("../scenarios/tunnel-1m-64.toml"),
    ),
];

/// Why a scenario cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// There is none of that name, and no such file.
    #[error("no scenario {0}; there are: {1}")]
    Unknown(String, String),
    /// Its text is wrong.
    #[error("scenario {name}: {reason}")]
    Wrong {
        /// Its name.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// A number of bytes, written like `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let text = String::deserialize(deserializer)?;
        let size = parse_size(&text).map(Size);
        size.ok_or_else(|| serde::de::Error::custom(format!("{text} is no size like 64MiB")))
    }
}

/// What the cache has of the objects when the clock starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All of it.
    Warm,
    /// Nothing: each run asks for a key that nobody has asked for.
    Cold,
    /// Nothing, and all connections ask for the same key at once.
    Herd,
    /// All of it, on disk alone: each run follows a restart, and the kernel's copies of files are dropped.
    Disk,
}

/// How keys are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keys {
    /// All alike.
    Uniform,
    /// By rank, with `theta`.
    Zipf,
}

/// The objects.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objects {
    /// How many.
    pub count: u32,
    /// Size of each.
    pub size: Size,
}

/// The load.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// What is done.
    pub method: Method,
    /// Keep-alive connections.
    pub connections: u32,
    /// How keys are drawn.
    pub keys: Keys,
    /// Of Zipf.
    pub theta: f64,
    /// Ask for random aligned windows of this size.
    pub range: Option<Size>,
    /// Open loop: requests that are due each second.
    pub rate: Option<f64>,
    /// What the cache has.
    pub state: State,
    /// Not measured.
    pub warm_up_s: f64,
    /// Measured.
    pub duration_s: f64,
    /// One of so many bodies is compared.
    pub verify_every: u32,
    /// Nothing is cached: the bytes of the origin go through a tunnel, millrace's by `CONNECT`, the peers' as they forward TCP.
    pub tunnel: bool,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            method: Method::Get,
            connections: 1,
            keys: Keys::Uniform,
            theta: 0.99,
            range: None,
            rate: None,
            state: State::Warm,
            warm_up_s: 0.5,
            duration_s: 2.5,
            verify_every: 64,
            tunnel: false,
        }
    }
}

/// The origin.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OriginSettings {
    /// It speaks TLS.
    pub tls: bool,
}

/// One way to run millrace.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Variant {
    /// Name of the party.
    pub name: String,
    /// Memory of the cache.
    pub ram: String,
    /// Shards, each on a core of its own.
    pub shards: u32,
    /// What its cache directory may take, like `8GiB`; `None` is no cache directory.
    pub disk: Option<Size>,
}

impl Default for Variant {
    fn default() -> Self {
        Variant {
            name: "millrace".to_string(),
            ram: "2GiB".to_string(),
            shards: 1,
            disk: None,
        }
    }
}

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name; the file's.
    #[serde(skip)]
    pub name: String,
    /// The file's text.
    #[serde(skip)]
    pub toml: String,
    /// One line about it.
    pub title: String,
    /// Peers that can do it; the default of `--against`.
    pub against: Vec<String>,
    /// The objects.
    pub objects: Objects,
    /// The load.
    #[serde(default)]
    pub load: Load,
    /// The origin.
    #[serde(default)]
    pub origin: OriginSettings,
    /// Ways to run millrace; one if not given.
    #[serde(default)]
    pub millrace: Vec<Variant>,
}

impl Scenario {
    /// One of those that come along by name (or, where only one begins so, by the start of it), or a file by path.
    pub fn find(name: &str) -> Result<Scenario, ScenarioError> {
        let begins: Vec<_> = BUILT_IN
            .iter()
            .filter(|(have, _)| have.starts_with(name))
            .collect();
        let exact = BUILT_IN.iter().find(|(have, _)| *have == name);
        if let Some((name, text)) = exact.or(begins.first().filter(|_| begins.len() == 1).copied())
        {
            return Scenario::parse(name, text);
        }
        let path = Path::new(name);
        match (std::fs::read_to_string(path), path.file_stem()) {
            (Ok(text), Some(stem)) => Scenario::parse(&stem.to_string_lossy(), &text),
            _ => {
                let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
                Err(ScenarioError::Unknown(name.to_string(), names.join(", ")))
            }
        }
    }

    /// Reads a file's text.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, ScenarioError> {
        let wrong = |reason: String| ScenarioError::Wrong {
            name: name.to_string(),
            reason,
        };
        let mut scenario: Scenario =
            toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        scenario.name = name.to_string();
        scenario.toml = text.to_string();
        if scenario.millrace.is_empty() {
            scenario.millrace.push(Variant::default());
        }
        match scenario.contradiction() {
            Some(reason) => Err(wrong(reason.to_string())),
            None => Ok(scenario),
        }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let load = &self.load;
        if self.objects.count == 0 || self.objects.size.0 == 0 || load.connections == 0 {
            return Some("objects and connections are at least one");
        }
        if self.is_cold() && (self.objects.count > 1 || load.method != Method::Get) {
            return Some("cold and herd GET one object");
        }
        if load.state != State::Warm && load.rate.is_some() {
            return Some("cold, herd and disk know no rate");
        }
        if load.state == State::Disk
            && (load.method != Method::Get || self.millrace.iter().any(|one| one.disk.is_none()))
        {
            return Some("disk GETs, from variants of millrace with a disk");
        }
        if load.range.is_some() && load.method != Method::Get {
            return Some("only a GET has a range");
        }
        if load.tunnel && (load.state != State::Warm || self.origin.tls) {
            return Some("a tunnel leads to a warm origin in plain text");
        }
        if load.rate.is_some_and(|rate| rate <= 0.0) || load.verify_every == 0 {
            return Some("rate and verify_every are positive");
        }
        None
    }

    /// The same in small, to see whether it works at all.
    pub fn quick(mut self) -> Scenario {
        let size = &mut self.objects.size.0;
        *size = (*size).min(3 << 20);
        self.objects.count = self.objects.count.min(20);
        let load = &mut self.load;
        load.connections = load.connections.min(8);
        load.range = load.range.map(|range| Size(range.0.min(256 << 10)));
        load.rate = load.rate.map(|rate| rate.min(500.0));
        load.warm_up_s = 0.05;
        load.duration_s = 0.3;
        load.verify_every = 4;
        for variant in &mut self.millrace {
            variant.ram = "128MiB".to_string();
        }
        self
    }

    /// Whether each run asks for a key that nobody has asked for.
    pub fn is_cold(&self) -> bool {
        matches!(self.load.state, State::Cold | State::Herd)
    }

    /// The cores that a server may use.
    pub fn server_cores(&self) -> usize {
        let most = self.millrace.iter().map(|variant| variant.shards).max();
        most.unwrap_or(1) as usize
    }

    /// How keys are drawn.
    pub fn picks(&self) -> Picks {
        let count = self.objects.count;
        match (self.load.state, self.load.keys) {
            (State::Cold | State::Herd | State::Disk, _) => Picks::InOrder { count },
            (State::Warm, Keys::Uniform) => Picks::Uniform { count },
            (State::Warm, Keys::Zipf) => Picks::zipf(count, self.load.theta),
        }
    }

    /// When requests are due.
    pub fn pace(&self) -> Pace {
        self.load
            .rate
            .map_or(Pace::Closed, |rate| Pace::Open { rate })
    }

    /// When a run ends.
    pub fn stop(&self) -> Stop {
        match self.load.state {
            State::Warm => Stop::After {
                warm_up: Duration::from_secs_f64(self.load.warm_up_s),
                duration: Duration::from_secs_f64(self.load.duration_s),
            },
            State::Cold | State::Herd => Stop::Count {
                requests: u64::from(self.load.connections),
            },
            State::Disk => Stop::Count {
                requests: u64::from(self.objects.count),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "title = 't'\nagainst = []\n[objects]\ncount = 1\nsize = '1KiB'\n";

    #[test]
    fn names_may_be_short_where_they_are_clear() {
        assert_eq!(Scenario::find("hit-4k").expect("clear").name, "hit-4k-64");
        assert_eq!(Scenario::find("hit-1g").expect("exact").name, "hit-1g");
        assert!(matches!(
            Scenario::find("hit"),
            Err(ScenarioError::Unknown(..))
        ));
    }

    #[test]
    fn unknown_keys_and_contradictions_are_errors() {
        assert!(Scenario::parse("x", SMALL).is_ok());
        for wrong in [
            "[load]\nconections = 3",
            "[load]\nstate = 'herd'\nmethod = 'head'",
            "[load]\nrange = '64M'",
            "[load]\nrate = 0.0",
            "[[millrace]]\ncores = 1",
        ] {
            let text = format!("{SMALL}{wrong}");
            assert!(Scenario::parse("x", &text).is_err(), "{wrong}");
        }
    }
}

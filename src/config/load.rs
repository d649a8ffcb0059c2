//! Laying the sources over each other: defaults, file, variables, flags; then the checks; then the typed settings.
//!
//! `cli.rs` and tests call [`Settings::load`], which is pure: the file's text, the environment and the flags are data.
//! Every source is read to its end, whatever is wrong with it: one mistake gives one error, and all come together.

use std::path::PathBuf;
use std::sync::Arc;

use super::check;
use super::error::{ConfigError, Place};
use super::layers::Layers;
use super::table::{Setting, Settings, settings};
use super::value::Value;
use super::warning::{self, Warning};
use super::{environment, file, files};

/// Everything a configuration is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The file's path, as the operator named it, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The process's environment; only names that begin with `MILLRACE_` are looked at.
    pub env: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Flags,
}

/// What is needed to read a configuration again: all of its sources but the file's text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// The file, if there is one.
    pub path: Option<PathBuf>,
    env: Vec<(String, String)>,
    flags: Flags,
}

impl Again {
    /// The same sources with another text of the file.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn load(&self, text: String) -> Result<Loaded, Vec<ConfigError>> {
        let loaded = Settings::load(Sources {
            file: self.path.clone().map(|path| (path, text)),
            env: self.env.clone(),
            flags: self.flags.clone(),
        })?;
        files::check(loaded)
    }
}

/// Flags that override settings, with their unparsed values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags(Vec<(&'static Setting, String)>);

impl Flags {
    /// Adds a flag; several values of a list are given as one, separated by commas.
    ///
    /// # Panics
    ///
    /// When no row of the table has this flag: a programming error.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        let setting = settings()
            .find(|setting| setting.flag == Some(flag))
            .unwrap_or_else(|| panic!("no setting has the flag {flag}"));
        self.0.push((setting, value.to_owned()));
        self
    }
}

/// A configuration without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// What the program reads.
    pub settings: Settings,
    /// What the operator should know; not printed here.
    pub warnings: Vec<Warning>,
    /// Every value with the place it came from, in the order of the table.
    pub values: Vec<Effective>,
    /// How to read them again.
    pub again: Again,
}

impl Loaded {
    /// The keys whose values are others than in `before`, without those that hold at once; in the order of the table.
    #[must_use]
    pub fn waiting_for_restart(&self, before: &Self) -> Vec<&'static str> {
        type Plain = (&'static str, Option<usize>, Value);
        let values = |loaded: &Self| -> Vec<Plain> {
            let fixed = loaded.values.iter().filter(|value| !is_live(value.setting));
            let plain = fixed.map(|value| (value.setting.key, value.table, value.value.clone()));
            plain.collect()
        };
        let (now, then) = (values(self), values(before));
        let differs = |one: &[Plain], other: &[Plain]| -> Vec<&'static str> {
            let new = one.iter().filter(|value| !other.contains(value));
            new.map(|(key, ..)| *key).collect()
        };
        let mut keys = differs(&now, &then);
        keys.extend(differs(&then, &now));
        let order = |key: &&str| super::table::keys().position(|known| known == *key);
        keys.sort_by_key(order);
        keys.dedup();
        keys
    }
}

/// Settings whose change holds without a restart; those of a `[[rule]]` do too.
pub(super) const LIVE: [&str; 14] = [
    "cache.ttl",
    "cache.head_ttl",
    "cache.freshness",
    "cache.default_ttl",
    "cache.client_control",
    "cache.access",
    "cache.stale_if_error",
    "cache.stale_while_revalidate",
    "cache.hedge_after",
    "cache.object_bytes_max",
    "cache.write_through",
    "cache.page",
    "cache.read_ahead",
    "disk.compress",
];

fn is_live(setting: &Setting) -> bool {
    setting.key.starts_with("rule.") || LIVE.contains(&setting.key)
}

/// A value that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its row.
    pub setting: &'static Setting,
    /// Which of the repeated tables it stands in, counted from 0.
    pub table: Option<usize>,
    /// What it holds.
    pub value: Value,
    /// Who said so.
    pub place: Place,
}

impl Settings {
    /// Reads all sources. The errors are all there are, ordered by place.
    pub fn load(sources: Sources) -> Result<Loaded, Vec<ConfigError>> {
        let mut layers = Layers::new();
        let again = Again {
            path: sources.file.as_ref().map(|(path, _)| path.clone()),
            env: sources.env.clone(),
            flags: sources.flags.clone(),
        };
        if let Some((path, text)) = &sources.file {
            file::apply(&Arc::from(path.as_path()), text, &mut layers);
        }
        environment::apply(sources.env, &mut layers);
        for (setting, word) in sources.flags.0 {
            let place = Place::Flag(setting.flag.expect("only flags of the table are kept"));
            layers.set(setting, place, setting.kind.parse_word(&word));
        }
        let settings = layers.settings();
        if !layers.syntax_broken {
            let contradictions = check::contradictions(&settings, &layers);
            layers.errors.extend(contradictions);
        }
        if !layers.errors.is_empty() {
            layers.errors.sort_by(|a, b| a.place.cmp(&b.place));
            return Err(layers.errors);
        }
        Ok(Loaded {
            warnings: warning::warnings(&settings),
            settings,
            values: layers.effective(),
            again,
        })
    }
}

impl Default for Settings {
    /// The defaults of the table, which hold without any file.
    fn default() -> Self {
        Layers::new().settings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table::Initial;

    fn sources(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Sources {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let given = |flags: Flags, (flag, value): &(&str, &str)| flags.with(flag, value);
        Sources {
            file: Some(("millrace.toml".into(), file.to_owned())),
            env: env.iter().map(owned).collect(),
            flags: flags.iter().fold(Flags::default(), given),
        }
    }

    fn lines(errors: &[ConfigError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn without_any_source_the_defaults_hold() {
        let loaded = Settings::load(Sources::default()).expect("the defaults hold");
        assert_eq!(loaded.settings, Settings::default());
        assert!(loaded.warnings.is_empty());
        assert!(loaded.values.iter().all(|v| v.place == Place::Default));
        let settings = loaded.settings;
        assert_eq!(settings.listener.http[0].to_string(), "127.0.0.1:8080");
        assert_eq!(settings.listener.head_timeout_ms, 10_000);
        assert_eq!(settings.listener.head_bytes_max, 32 << 10);
        assert_eq!(settings.cache.ttl_ms, 3_600_000);
        assert_eq!(settings.cache.object_bytes_max, 5 << 40);
        assert_eq!(settings.fill.window_bytes, 16 << 20);
        assert_eq!(settings.ram.size_bytes, 0);
        assert!(settings.routing.aws && settings.routing.origin.is_none());
        assert!(settings.server.cores.is_empty() && settings.disk.dir.is_none());
    }

    #[test]
    fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
        let file = "[ram]\nsize = '1GiB'\n[cache]\nttl = '1s'\n[fill]\nfanout = 2\n";
        let env = [("MILLRACE_RAM_SIZE", "2GiB"), ("MILLRACE_CACHE_TTL", "2s")];
        let flags = [("--ram", "3GiB")];
        let loaded = Settings::load(sources(file, &env, &flags)).expect("it holds");
        assert_eq!(loaded.settings.ram.size_bytes, 3 << 30);
        assert_eq!(loaded.settings.cache.ttl_ms, 2000);
        assert_eq!(loaded.settings.fill.fanout, 2);
        assert_eq!(loaded.settings.fill.attempts, 3);
        let place = |key: &str| {
            let mut values = loaded.values.iter();
            let value = values.find(|value| value.setting.key == key);
            value.map(|value| value.place.to_string())
        };
        assert_eq!(place("ram.size").as_deref(), Some("--ram"));
        assert_eq!(place("cache.ttl").as_deref(), Some("MILLRACE_CACHE_TTL"));
        assert_eq!(place("fill.fanout").as_deref(), Some("millrace.toml:6:10"));
        assert_eq!(place("fill.attempts").as_deref(), Some("default"));
    }

    #[test]
    fn what_waits_for_a_restart_is_told_by_key() {
        let load = |file| Settings::load(sources(file, &[], &[])).expect("it holds");
        let before = load("[ram]\nsize = '64MiB'\n[cache]\nttl = '1s'\n");
        let after = "[ram]\nsize = '32MiB'\n[cache]\nttl = '2s'\n[[rule]]\nmatch = '**'\n\
                     [[origin]]\nname = 'a'\nurl = 'http://127.0.0.1:9000'\n";
        let keys = load(after).waiting_for_restart(&before);
        let origin = [
            "origin.name",
            "origin.url",
            "origin.hosts",
            "origin.domains",
            "origin.fallback",
            "origin.ca_file",
            "origin.verify_name",
            "origin.tls_min",
            "origin.tls_max",
        ];
        assert_eq!(keys, [&["ram.size"], &origin[..]].concat());
        assert!(before.waiting_for_restart(&before).is_empty());
    }

    #[test]
    fn a_section_that_names_one_key_keeps_the_defaults_of_the_others() {
        let loaded = Settings::load(sources("[upstream]\nretries = 0\n", &[], &[])).unwrap();
        let mut expected = Settings::default();
        expected.upstream.retries = 0;
        assert_eq!(loaded.settings, expected);
    }

    #[test]
    fn every_key_can_be_set_by_its_variable() {
        for setting in settings() {
            let Initial::Given(word) = setting.initial else {
                panic!("{} has a default", setting.key);
            };
            let variable = setting.variable();
            let loaded = Settings::load(sources("", &[(&variable, word)], &[])).expect("it holds");
            assert_eq!(loaded.settings, Settings::default());
            let given = loaded.values.iter().filter(|v| v.place != Place::Default);
            assert_eq!(given.count(), 1, "{variable}");
        }
    }

    #[test]
    fn lists_come_from_variables_with_commas() {
        let env = [("MILLRACE_LISTENER_HTTP", "127.0.0.1:1, [::1]:2")];
        let loaded = Settings::load(sources("", &env, &[])).expect("it holds");
        let doors: Vec<String> = loaded
            .settings
            .listener
            .http
            .iter()
            .map(|a| a.to_string())
            .collect();
        assert_eq!(doors, ["127.0.0.1:1", "[::1]:2"]);
    }

    #[test]
    fn origins_keep_their_order_and_their_lists() {
        let file = "
            [[origin]]\nname = 'a'\nurl = 'https://A.example.com'\nhosts = ['S3.example.com:80']
            [[origin]]\nurl = 'http://127.0.0.1:9000'\ndomains = ['b.example.com']\nname = 'b'
        ";
        let origins = Settings::load(sources(file, &[], &[]))
            .unwrap()
            .settings
            .origins;
        assert_eq!(origins.len(), 2);
        assert_eq!(
            (origins[0].name.as_str(), origins[1].name.as_str()),
            ("a", "b")
        );
        assert_eq!(origins[0].url.to_string(), "https://a.example.com");
        assert_eq!(origins[0].hosts, ["s3.example.com:80"]);
        assert_eq!(origins[1].url.port, 9000);
        assert_eq!(origins[1].domains, ["b.example.com"]);
    }

    #[test]
    fn all_errors_of_all_sources_come_at_once_in_order_of_place() {
        let file = include_str!("golden/errors.toml");
        let env = [
            ("MILLRACE_RAM_SIEZ", "1GiB"),
            ("MILLRACE_CACHE_TTL", "5"),
            ("MILLRACE_CONFIG", "millrace.toml"),
            ("MILLRACE_SERVICE_HOST", "10.0.0.1"),
            ("MILLRACE_TCP_CONGESTION", "cu\u{fffd}bic"),
            ("PATH", "/bin"),
        ];
        let flags = [
            ("--shards", "999"),
            ("--cores", "a"),
            ("--ttl", "3"),
            ("--cache-dir", "cache"),
        ];
        let errors = Settings::load(sources(file, &env, &flags)).expect_err("it is wrong");
        let found = lines(&errors).join("\n") + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/golden/errors.txt");
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            std::fs::write(path, &found).expect("the file can be written");
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == golden, "{found}");
    }

    #[test]
    fn a_syntax_error_keeps_the_errors_elsewhere_and_invents_none() {
        let file = "a = \n[ram]\nsize = 4GiB\nsizee = 1\n[cache]\nttl = '1h'\nttl = '2h'\n\
                    [log\nlevel = 'nope'\nx = 1\n[fill]\nfanout = 0\n[routing]\naws = false\n";
        let errors = Settings::load(sources(file, &[], &[("--ram", "x")])).expect_err("not TOML");
        let places: Vec<String> = errors.iter().map(|error| error.place.to_string()).collect();
        assert_eq!(
            places,
            [
                "millrace.toml:1:5",
                "millrace.toml:3:8",
                "millrace.toml:4:1",
                "millrace.toml:7:1",
                "millrace.toml:8:5",
                "millrace.toml:12:10",
                "--ram"
            ]
        );
        assert_eq!(
            errors[2].to_string(),
            "millrace.toml:4:1: unknown key `ram.sizee`; did you mean `ram.size`?"
        );
    }

    #[test]
    fn lines_and_columns_are_those_an_editor_shows() {
        for (file, place) in [
            ("x = 1", "millrace.toml:1:1"),
            ("\u{feff}x = 1", "millrace.toml:1:1"),
            ("# ä\r\n\r\n  x = 1\r\n", "millrace.toml:3:3"),
            (
                "[ram]\nsize = '16MiB' # ö\n'ü' = { x = 1 }",
                "millrace.toml:3:1",
            ),
            (
                "ram = { size = '64MiB', y = 'ä', z = 1 }",
                "millrace.toml:1:25",
            ),
            ("ram.size = '64MiB'\nram.sise = 1", "millrace.toml:2:5"),
        ] {
            let errors = Settings::load(sources(file, &[], &[])).expect_err(file);
            assert_eq!(errors[0].place.to_string(), place, "{file:?}");
        }
    }

    #[test]
    fn no_text_stops_the_reader() {
        let reference = crate::config::document::reference().replace("\n# ", "\n");
        let mut state: u32 = 1;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % limit
        };
        let spoilers = b"\"'[]{}=.,#\n\\ \0-0aT:";
        for _ in 0..500 {
            let mut bytes = reference.clone().into_bytes();
            for _ in 0..=below(8) {
                let (at, with) = (below(bytes.len()), spoilers[below(spoilers.len())]);
                bytes[at] = with;
            }
            bytes.truncate(below(reference.len()));
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Err(errors) = Settings::load(sources(&text, &[], &[])) {
                assert!(!lines(&errors).concat().contains('\n'), "one line each");
            }
        }
    }
}

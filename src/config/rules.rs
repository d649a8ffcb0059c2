//! Rules: what holds for objects of some names. All of `[[rule]]` compiled once, resolved to one small [`ObjectPolicy`] for an object.
//!
//! Made by `server` at start and when the file has changed, read by `cache`, `request` and `shard`. Of all rules that match, the first that says something about a
//! field decides it; what no rule says is what `[cache]` and `[disk]` say. To add a field: a row in `table.rs`, a field of
//! [`ObjectPolicy`], a line in [`Rules::of`] and one in `decide`. Matching is for misses: whoever has an object keeps the number of its policy
//! with it ([`Rules::class_of`]), so that a hit compares two numbers.

use std::sync::OnceLock;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::table::{Access, ClientControl, Compress, Freshness, Rule, Settings, Tier};

/// Offsets beyond it do not fit the numbers of stripes.
const OBJECT_BYTES_CEILING: u64 = 1 << 50;
/// Different policies that are numbered; objects of any further one are matched each time.
const CLASSES_MAX: usize = 256;
/// What a rule's `origin` may say besides the name of an `[[origin]]`.
pub const AWS: &str = "aws";

/// How one object is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectPolicy {
    /// Whether it is kept at all.
    pub kept: bool,
    /// Who may read it from here.
    pub access: Access,
    /// What decides how long it is served without asking.
    pub freshness: Freshness,
    /// Whose wishes of a request count.
    pub client_control: ClientControl,
    /// How long its bytes are served without asking; where its origin decides, no limit before its head is known.
    pub ttl_ms: u64,
    /// How long it is answered without a body without asking: HEAD, 304, 412.
    pub head_ttl_ms: u64,
    /// The same of an answer that says nothing of it, where its origin decides.
    pub default_ttl_ms: u64,
    /// The largest object that is kept.
    pub object_bytes_max: u64,
    /// Whether what is kept goes to disk.
    pub disk: bool,
    /// Whether it is compressed there where that pays.
    pub compress: bool,
    /// Whether it is kept when it is written.
    pub write_through: bool,
    /// How long past its time it is served while the origin fails.
    pub stale_if_error_ms: u64,
    /// How long past its time it is served while the origin is asked.
    pub stale_while_revalidate_ms: u64,
    /// After how long without an answer the origin is asked once more; 0: never.
    pub hedge_after_ms: u64,
    /// A shorter unsigned range is fetched as the whole pages of this size that it touches; 0: as it is.
    pub page_bytes: u64,
    /// How far ahead of a client that reads in order is fetched; 0: not at all.
    pub read_ahead_bytes: u64,
}

#[cfg(test)]
impl ObjectPolicy {
    /// What tests begin with: anything is kept in RAM and read by anybody for so long, and nothing else is asked for.
    pub const fn of_ttl(ttl_ms: u64) -> Self {
        Self {
            kept: true,
            access: Access::Open,
            freshness: Freshness::Ttl,
            client_control: ClientControl::Ignore,
            ttl_ms,
            head_ttl_ms: ttl_ms,
            default_ttl_ms: 0,
            object_bytes_max: u64::MAX,
            disk: false,
            compress: false,
            write_through: false,
            stale_if_error_ms: 0,
            stale_while_revalidate_ms: 0,
            hedge_after_ms: 0,
            page_bytes: 0,
            read_ahead_bytes: 0,
        }
    }
}

impl ObjectPolicy {
    /// Up to which age its bytes are served while the origin fails; 0: not at all.
    #[must_use]
    pub fn stale_if_error_until(&self) -> u64 {
        match self.stale_if_error_ms {
            0 => 0,
            longer_ms => self.ttl_ms.saturating_add(longer_ms),
        }
    }

    /// Where the origin decides, the settings' own times are no limit.
    fn boundless(self) -> Self {
        match self.freshness {
            Freshness::Ttl => self,
            Freshness::Origin => Self {
                ttl_ms: u64::MAX,
                head_ttl_ms: u64::MAX,
                ..self
            },
        }
    }

    /// The same with a shorter time to live; when it may not be used any more at all stays.
    #[must_use]
    pub fn within(self, ttl_ms: u64) -> Self {
        let longer = |past_ms: u64| match past_ms {
            0 => 0,
            _ => past_ms.saturating_add(self.ttl_ms.saturating_sub(ttl_ms)),
        };
        Self {
            ttl_ms: self.ttl_ms.min(ttl_ms),
            head_ttl_ms: self.head_ttl_ms.min(ttl_ms),
            stale_if_error_ms: longer(self.stale_if_error_ms),
            ..self
        }
    }

    /// The same for whom nobody but the origin may answer: a copy is of no age, also while the origin fails.
    #[must_use]
    pub fn asked(self) -> Self {
        Self {
            ttl_ms: 0,
            head_ttl_ms: 0,
            stale_if_error_ms: 0,
            stale_while_revalidate_ms: 0,
            ..self
        }
    }

    /// How long an answer to a HEAD, or to a GET, is used without asking.
    #[must_use]
    pub fn ttl_ms_of(&self, is_head: bool) -> u64 {
        match is_head {
            true => self.head_ttl_ms,
            false => self.ttl_ms,
        }
    }
}

/// Which objects a rule is about, besides its glob.
#[derive(Clone, Debug, PartialEq, Eq)]
enum AtOrigin {
    Any,
    Aws,
    /// The origin id.
    Id(Vec<u8>),
}

impl AtOrigin {
    fn of(rule: &Rule) -> Self {
        match rule.origin.as_deref() {
            None => Self::Any,
            Some(AWS) => Self::Aws,
            Some(name) => Self::Id(format!("custom:{name}").into_bytes()),
        }
    }

    fn is(&self, origin_id: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Aws => origin_id.starts_with(AWS.as_bytes()),
            Self::Id(id) => id == origin_id,
        }
    }
}

/// All rules.
#[derive(Debug)]
pub struct Rules {
    /// What holds where no rule says anything.
    base: ObjectPolicy,
    /// `cache.ttl`, whatever decides.
    ttl_ms: u64,
    /// `cache.head_ttl`, whatever `cache.ttl` is.
    head_ttl_ms: u64,
    globs: GlobSet,
    rules: Vec<(AtOrigin, Rule)>,
    /// Policies by number, in the order in which they were first found.
    classes: Box<[OnceLock<ObjectPolicy>]>,
    generation: u32,
}

/// Reads a glob over `bucket/key`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) fn parse_glob(text: &str) -> Result<Glob, String> {
    // Without a slash it could only be a bucket's name, which is no object's.
    if !text.contains('/') && text != "**" {
        return Err(format!(
            "it matches no object: a name is \"bucket/key\"; write \"**/{text}\", or \"{text}/**\" for a bucket"
        ));
    }
    let glob = GlobBuilder::new(text).literal_separator(true).build();
    glob.map_err(|error| error.kind().to_string())
}

impl Rules {
    /// The rules of these settings. `generation` tells them from all others of the process.
    #[must_use]
    pub fn of(settings: &Settings, generation: u32) -> Self {
        let mut globs = GlobSetBuilder::new();
        for rule in &settings.rules {
            globs.add(parse_glob(&rule.glob).expect("settings are checked"));
        }
        let cache = &settings.cache;
        let (ttl_ms, object_bytes_max) = (cache.ttl_ms, cache.object_bytes_max);
        let with_origin = |rule: &Rule| (AtOrigin::of(rule), rule.clone());
        Self {
            base: ObjectPolicy {
                kept: true,
                access: cache.access,
                freshness: cache.freshness,
                client_control: cache.client_control,
                ttl_ms,
                head_ttl_ms: cache.head_ttl_ms.min(ttl_ms),
                default_ttl_ms: cache.default_ttl_ms,
                object_bytes_max: object_bytes_max.min(OBJECT_BYTES_CEILING),
                disk: true,
                compress: settings.disk.compress == Compress::Lz4,
                write_through: cache.write_through,
                stale_if_error_ms: cache.stale_if_error_ms,
                stale_while_revalidate_ms: cache.stale_while_revalidate_ms,
                hedge_after_ms: cache.hedge_after_ms,
                page_bytes: cache.page_bytes,
                read_ahead_bytes: cache.read_ahead_bytes,
            }
            .boundless(),
            ttl_ms,
            head_ttl_ms: cache.head_ttl_ms,
            globs: globs.build().expect("globs that hold alone hold together"),
            rules: settings.rules.iter().map(with_origin).collect(),
            classes: (0..CLASSES_MAX).map(|_| OnceLock::new()).collect(),
            generation,
        }
    }

    /// What tells them from others of the process; never 0.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The policy of all objects, if no rule may say otherwise.
    #[must_use]
    pub fn plain(&self) -> Option<ObjectPolicy> {
        self.rules.is_empty().then_some(self.base)
    }

    /// The longest time that anything is served without asking; `None` if age does not tell: every answer is asked for, or origins decide.
    #[must_use]
    pub fn ttl_ms_longest(&self) -> Option<u64> {
        let rules = || self.rules.iter().map(|(_, rule)| rule);
        let origins = rules().filter_map(|rule| rule.freshness);
        if origins
            .chain([self.base.freshness])
            .any(|decides| decides == Freshness::Origin)
        {
            return None;
        }
        let told = rules().flat_map(|rule| [rule.ttl_ms, rule.head_ttl_ms]);
        let longest_ms = told.flatten().fold(self.base.ttl_ms, u64::max);
        Some(longest_ms).filter(|ttl_ms| *ttl_ms > 0)
    }

    /// How an object is treated.
    #[must_use]
    pub fn resolve(&self, origin_id: &[u8], bucket: &[u8], key: &[u8]) -> ObjectPolicy {
        if let Some(policy) = self.plain() {
            return policy;
        }
        use std::os::unix::ffi::OsStrExt as _;
        let name = [bucket, b"/", key].concat();
        let matching = self.globs.matches(std::ffi::OsStr::from_bytes(&name));
        let rules = matching.iter().map(|&index| &self.rules[index]);
        let rules = rules.filter(|(origin, _)| origin.is(origin_id));
        self.decide(rules.map(|(_, rule)| rule))
    }

    /// `rules`: those that match, in order.
    fn decide<'r>(&self, rules: impl Iterator<Item = &'r Rule> + Clone) -> ObjectPolicy {
        let base = self.base;
        let ttl_ms = rules.clone().find_map(|rule| rule.ttl_ms);
        let ttl_ms = ttl_ms.unwrap_or(self.ttl_ms);
        let freshness = rules.clone().find_map(|rule| rule.freshness);
        let client_control = rules.clone().find_map(|rule| rule.client_control);
        let default_ttl_ms = rules.clone().find_map(|rule| rule.default_ttl_ms);
        let head_ttl_ms = rules.clone().find_map(|rule| rule.head_ttl_ms);
        let largest = rules.clone().find_map(|rule| rule.object_bytes_max);
        let compress = rules.clone().find_map(|rule| rule.compress);
        let access = rules.clone().find_map(|rule| rule.access);
        let on_error_ms = rules.clone().find_map(|rule| rule.stale_if_error_ms);
        let meanwhile_ms = rules
            .clone()
            .find_map(|rule| rule.stale_while_revalidate_ms);
        let write_through = rules.clone().find_map(|rule| rule.write_through);
        let hedge_after_ms = rules.clone().find_map(|rule| rule.hedge_after_ms);
        let page_bytes = rules.clone().find_map(|rule| rule.page_bytes);
        let read_ahead_bytes = rules.clone().find_map(|rule| rule.read_ahead_bytes);
        let tiers = rules.clone().find_map(|rule| rule.tiers.as_deref());
        ObjectPolicy {
            kept: tiers.is_none_or(|tiers| tiers.contains(&Tier::Ram)),
            access: access.unwrap_or(base.access),
            freshness: freshness.unwrap_or(base.freshness),
            client_control: client_control.unwrap_or(base.client_control),
            ttl_ms,
            head_ttl_ms: head_ttl_ms.unwrap_or(self.head_ttl_ms).min(ttl_ms),
            default_ttl_ms: default_ttl_ms.unwrap_or(base.default_ttl_ms),
            object_bytes_max: largest
                .unwrap_or(base.object_bytes_max)
                .min(OBJECT_BYTES_CEILING),
            disk: tiers.is_none_or(|tiers| tiers.contains(&Tier::Disk)),
            compress: compress.map_or(base.compress, |word| word == Compress::Lz4),
            write_through: write_through.unwrap_or(base.write_through),
            stale_if_error_ms: on_error_ms.unwrap_or(base.stale_if_error_ms),
            stale_while_revalidate_ms: meanwhile_ms.unwrap_or(base.stale_while_revalidate_ms),
            hedge_after_ms: hedge_after_ms.unwrap_or(base.hedge_after_ms),
            page_bytes: page_bytes.unwrap_or(base.page_bytes),
            read_ahead_bytes: read_ahead_bytes.unwrap_or(base.read_ahead_bytes),
        }
        .boundless()
    }

    /// The number of a policy; `None` if there are too many.
    #[must_use]
    pub fn class_of(&self, policy: ObjectPolicy) -> Option<u32> {
        let known = |cell: &OnceLock<ObjectPolicy>| *cell.get_or_init(|| policy) == policy;
        let class = self.classes.iter().position(known);
        class.map(|class| class as u32)
    }

    /// The policy of a number that [`Rules::class_of`] of the same rules gave.
    #[must_use]
    pub fn policy(&self, class: u32) -> Option<ObjectPolicy> {
        self.classes.get(class as usize)?.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn rules(toml: &str) -> Rules {
        let sources = Sources {
            file: Some(("millrace.toml".into(), toml.to_owned())),
            ..Sources::default()
        };
        let loaded = Settings::load(sources).unwrap_or_else(|errors| panic!("{errors:?}"));
        Rules::of(&loaded.settings, 1)
    }

    fn resolve(rules: &Rules, origin_id: &str, name: &str) -> ObjectPolicy {
        let (bucket, key) = name.split_once('/').expect("bucket and key");
        rules.resolve(origin_id.as_bytes(), bucket.as_bytes(), key.as_bytes())
    }

    #[test]
    fn without_a_rule_the_settings_hold() {
        let rules = rules(
            "[cache]\nttl = '5s'\naccess = 'exact'\nobject_bytes_max = '1KiB'\n[disk]\ncompress = 'lz4'",
        );
        let policy = rules.plain().expect("no rule");
        let expected = ObjectPolicy {
            access: Access::Exact,
            client_control: ClientControl::Unsigned,
            object_bytes_max: 1024,
            disk: true,
            compress: true,
            ..ObjectPolicy::of_ttl(5000)
        };
        assert_eq!(policy, expected);
        assert_eq!(resolve(&rules, "origin", "b/k"), expected);
    }

    #[test]
    fn the_first_rule_that_says_something_decides_field_by_field() {
        let rules = rules(
            "[[rule]]\nmatch = 'b/hot/**'\nttl = '1d'\n\
             [[rule]]\nmatch = 'b/hot/tmp/**'\nttl = '1s'\ntiers = ['ram']\n\
             [[rule]]\nmatch = '**/*.csv'\ncompress = 'lz4'\nhead_ttl = '2s'\nstale_if_error = '3s'\n\
             [[rule]]\nmatch = 'secret/**'\ntiers = []\naccess = 'revalidate'\nobject_bytes_max = '1MiB'\n",
        );
        let at = |name| resolve(&rules, "origin", name);
        let plain = at("other/key");
        assert_eq!(
            (plain.ttl_ms, plain.disk, plain.compress),
            (3_600_000, true, false)
        );
        let tmp = at("b/hot/tmp/x/y.csv");
        assert_eq!((tmp.ttl_ms, tmp.head_ttl_ms), (86_400_000, 2000));
        assert_eq!((tmp.disk, tmp.compress), (false, true));
        assert_eq!(
            (tmp.stale_if_error_ms, tmp.stale_while_revalidate_ms),
            (3000, 0)
        );
        assert_eq!(at("b/hot/x").head_ttl_ms, 60_000);
        assert_eq!(at("b/hotter/x"), plain);
        let secret = at("secret/k.csv");
        assert!(plain.kept && !secret.kept && !secret.disk);
        assert_eq!(secret.object_bytes_max, 1 << 20);
        assert_eq!(
            (plain.access, secret.access),
            (Access::Open, Access::Revalidate)
        );
    }

    #[test]
    fn where_the_origin_decides_the_settings_times_do_not() {
        let rules = rules(
            "[cache]\nttl = '5s'\n[[rule]]\nmatch = 'b/cdn/**'\nfreshness = 'origin'\nttl = '1s'\ndefault_ttl = '2s'\nclient_control = 'ignore'\n\
             [[rule]]\nmatch = 'b/**'\nfreshness = 'ttl'\nclient_control = 'all'\n",
        );
        let (cdn, own) = (
            resolve(&rules, "origin", "b/cdn/k"),
            resolve(&rules, "origin", "b/k"),
        );
        assert_eq!(
            (cdn.freshness, own.freshness),
            (Freshness::Origin, Freshness::Ttl)
        );
        assert_eq!((cdn.ttl_ms, cdn.head_ttl_ms), (u64::MAX, u64::MAX));
        assert_eq!((own.ttl_ms, own.head_ttl_ms), (5000, 5000));
        assert_eq!((cdn.default_ttl_ms, own.default_ttl_ms), (2000, 0));
        assert_eq!(cdn.client_control, ClientControl::Ignore);
        assert_eq!(own.client_control, ClientControl::All);
        assert_eq!(rules.ttl_ms_longest(), None);
    }

    #[test]
    fn the_longest_time_is_of_all_rules() {
        let longest = |toml: &str| rules(toml).ttl_ms_longest();
        assert_eq!(longest(""), Some(3_600_000));
        assert_eq!(longest("[cache]\nttl = '0s'"), None);
        assert_eq!(
            longest("[cache]\nttl = '0s'\n[[rule]]\nmatch = 'b/**'\nttl = '2s'"),
            Some(2000)
        );
        assert_eq!(longest("[cache]\nfreshness = 'origin'"), None);
    }

    #[test]
    fn a_shorter_time_moves_nothing_else() {
        let policy = ObjectPolicy {
            ttl_ms: 10,
            head_ttl_ms: 7,
            stale_if_error_ms: 5,
            ..rules("").base
        };
        let within = policy.within(4);
        assert_eq!((within.ttl_ms, within.head_ttl_ms), (4, 4));
        assert_eq!(within.stale_if_error_until(), policy.stale_if_error_until());
        assert_eq!(policy.within(20), policy);
        assert_eq!(policy.asked().stale_if_error_until(), 0);
    }

    #[test]
    fn a_star_ends_at_a_slash_and_two_do_not() {
        for (glob, name, matches) in [
            ("b/*", "b/k", true),
            ("b/*", "b/d/k", false),
            ("b/**", "b/d/k", true),
            ("**", "b/d/k", true),
            ("**/*.gz", "b/d/k.gz", true),
            ("**/*.gz", "b/k.gz", true),
            ("**/*.gz", "b/k.gz2", false),
            ("b*/k", "bucket/k", true),
            ("b/{a,b}/?", "b/b/x", true),
            ("b/[0-9]*", "b/7x", true),
            ("b/K", "b/k", false),
            ("b/**", "b//k", true),
            ("b/**", "b/\n", true),
            ("b/**", "b/../k", true),
        ] {
            let rules = rules(&format!("[[rule]]\nmatch = '{glob}'\nttl = '7s'\n"));
            let found = resolve(&rules, "origin", name).ttl_ms == 7000;
            assert_eq!(found, matches, "{glob} {name:?}");
        }
    }

    #[test]
    fn a_key_need_not_be_text() {
        let rules = rules("[[rule]]\nmatch = 'b/**/z'\nttl = '7s'\n");
        let policy = rules.resolve(b"origin", b"b", b"\xff\x00/z");
        assert_eq!(policy.ttl_ms, 7000);
    }

    #[test]
    fn a_rule_may_be_of_one_origin() {
        let rules = rules(
            "[[origin]]\nname = 'a'\nurl = 'http://127.0.0.1:9000'\n\
             [[rule]]\nmatch = '**'\norigin = 'a'\nttl = '1s'\n\
             [[rule]]\nmatch = '**'\norigin = 'aws'\nttl = '2s'\n",
        );
        let ttl_ms = |id| resolve(&rules, id, "b/k").ttl_ms;
        assert_eq!(ttl_ms("custom:a"), 1000);
        assert_eq!(ttl_ms("aws:aws"), 2000);
        assert_eq!(ttl_ms("custom:aws"), 3_600_000);
    }

    #[test]
    fn policies_are_numbered_until_there_are_too_many() {
        let rules = rules("[[rule]]\nmatch = '**'\nttl = '1s'\n");
        let policy = |ttl_ms| ObjectPolicy {
            ttl_ms,
            ..rules.base
        };
        for ttl_ms in [5, 6, 5, 7] {
            let class = rules.class_of(policy(ttl_ms)).expect("a number");
            assert_eq!(rules.policy(class), Some(policy(ttl_ms)));
        }
        assert_eq!(rules.class_of(policy(6)), Some(1));
        let numbered = (100..1000).filter(|ttl_ms| rules.class_of(policy(*ttl_ms)).is_some());
        assert_eq!(numbered.count(), CLASSES_MAX - 3);
        assert_eq!(rules.policy(u32::MAX), None);
    }
}

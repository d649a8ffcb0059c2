//! Relations between settings: values that are each right and together wrong.
//!
//! `load.rs` calls this after all sources are read. Each check names the keys it looks at; where one of them holds
//! a value that did not fit, the check is silent, for its error has been told already. Types and bounds of single
//! keys are `shape.rs`; what works and may not be meant is `warning.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::error::{ConfigError, Contradiction, Place};
use super::layers::{Layers, Slot, Table};
use super::rules::AWS;
use super::suggest::nearest;
use super::table::{Origin, STRIPE_BYTES, Settings, Tier};
use super::url::OriginUrl;
use super::value::Value;
use super::words::{format_duration, format_size};

/// Everything in these settings that contradicts itself.
pub(super) fn contradictions(settings: &Settings, layers: &Layers) -> Vec<ConfigError> {
    let mut check = Check {
        settings,
        layers,
        errors: Vec::new(),
    };
    check.lists();
    check.doors();
    check.routing();
    check.origins();
    check.endpoints();
    check.loops();
    check.amounts();
    check.rules();
    check.hosts();
    check.errors
}

/// Every door: its list, its place in it, its address.
fn doors(settings: &Settings) -> Vec<(&'static str, usize, SocketAddr)> {
    let listener = &settings.listener;
    let lists = [
        ("listener.http", &listener.http),
        ("listener.tls", &listener.tls),
        ("listener.tunnel", &listener.tunnel),
    ];
    let doors = lists.into_iter().flat_map(|(key, list)| {
        let numbered = list.iter().copied().enumerate();
        numbered.map(move |(index, address)| (key, index, address))
    });
    doors.collect()
}

struct Check<'a> {
    settings: &'a Settings,
    layers: &'a Layers,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    /// Reports at the place that decides among these keys: the one whose source overrides the others.
    fn refuse(&mut self, keys: &[&str], contradiction: Contradiction) {
        let slots: Vec<&Slot> = keys.iter().map(|key| self.layers.slot(key)).collect();
        if slots.iter().any(|slot| slot.broken) {
            return;
        }
        let place = slots.iter().map(|slot| &slot.place).max();
        let place = place.cloned().unwrap_or(Place::Default);
        self.refuse_at(place, contradiction);
    }

    fn refuse_at(&mut self, place: Place, contradiction: Contradiction) {
        self.errors.push(ConfigError {
            place,
            fault: contradiction.into(),
        });
    }

    /// No list holds an item twice. Port 0 is any free port, so it may.
    fn lists(&mut self) {
        let layers = self.layers;
        let tables = layers.origins.iter().chain(&layers.endpoints);
        let tables = tables.chain(&layers.rules).chain(&layers.hosts);
        let tables = tables.flat_map(|table| &table.slots);
        for slot in layers
            .slots
            .iter()
            .chain(tables)
            .filter(|slot| !slot.broken)
        {
            let Value::List(items) = &slot.value else {
                continue;
            };
            for (index, item) in items.iter().enumerate() {
                let any_port = matches!(item, Value::Address(address) if address.port() == 0);
                if !any_port && items[..index].contains(item) {
                    let key = slot.setting.key;
                    let item = item.to_string();
                    let place = slot.item_place(index).clone();
                    self.refuse_at(place, Contradiction::ListedTwice { key, item });
                }
            }
        }
    }

    fn doors(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        let doors = doors(settings);
        for (at, (key, index, address)) in doors.iter().copied().enumerate() {
            let mut earlier = doors[..at].iter();
            let other = earlier.find(|(other_key, _, other)| {
                (*other != address || *other_key != key) && overlap(address, *other)
            });
            let slot = layers.slot(key);
            if let Some((_, _, other)) = other.copied().filter(|_| !slot.broken) {
                let place = slot.item_place(index).clone();
                let contradiction = Contradiction::DoorsOverlap {
                    key,
                    address,
                    other,
                };
                self.refuse_at(place, contradiction);
            }
        }
        let address = settings.admin.listen;
        let taken = doors.iter().find(|(_, _, door)| overlap(*door, address));
        if let Some((key, _, door)) = taken.copied() {
            let contradiction = Contradiction::AdminIsDoor { key, address, door };
            self.refuse(&["admin.listen", key], contradiction);
        }
        let needs = [
            ("tls.cert_file", &settings.tls.cert_file),
            ("tls.key_file", &settings.tls.key_file),
        ];
        let missing = needs.into_iter().filter(|(_, file)| file.is_none());
        for (key, _) in missing.filter(|_| !settings.listener.tls.is_empty()) {
            let contradiction = Contradiction::TlsDoorWithout { key };
            self.refuse(&["listener.tls", key], contradiction);
        }
    }

    /// Endpoints are told apart by their hosts, and versions of TLS leave one to speak.
    fn endpoints(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        let mut hosts: BTreeMap<&str, &Place> = BTreeMap::new();
        for (endpoint, table) in settings.endpoints.iter().zip(&layers.endpoints) {
            let slot = table.slot("host");
            match hosts.get(endpoint.host.as_str()) {
                Some(first) if !slot.broken => {
                    let contradiction = Contradiction::EndpointTwice {
                        host: endpoint.host.clone(),
                        first: (*first).clone(),
                    };
                    self.refuse_at(slot.place.clone(), contradiction);
                }
                Some(_) => {}
                None if slot.broken => {}
                None => {
                    hosts.insert(&endpoint.host, &table.place);
                }
            }
        }
        let upstream = &settings.upstream;
        let (min, max) = (upstream.tls_min, upstream.tls_max);
        if min > max {
            let keys = ["upstream.tls_min", "upstream.tls_max"];
            self.refuse(&keys, Contradiction::NoTlsVersion);
        }
        let origins = settings.origins.iter().zip(&layers.origins);
        let origins = origins.map(|(origin, table)| (origin.tls_min, origin.tls_max, table));
        let endpoints = settings.endpoints.iter().zip(&layers.endpoints);
        let endpoints = endpoints.map(|(one, table)| (one.tls_min, one.tls_max, table));
        for (own_min, own_max, table) in origins.chain(endpoints) {
            let says = own_min.is_some() || own_max.is_some();
            if says && own_min.unwrap_or(min) > own_max.unwrap_or(max) {
                self.refuse_at(table.place.clone(), Contradiction::NoTlsVersion);
            }
        }
    }

    fn routing(&mut self) {
        let settings = self.settings;
        let routing = &settings.routing;
        match &routing.origin {
            Some(url) if !settings.origins.is_empty() => {
                let url = url.clone();
                self.refuse(
                    &["routing.origin"],
                    Contradiction::SingleOriginAmongMany { url },
                );
            }
            Some(_) => {}
            None => {
                let lists = [
                    ("routing.hosts", routing.hosts.is_empty()),
                    ("routing.domains", routing.domains.is_empty()),
                    ("routing.fallback", routing.fallback.is_empty()),
                    ("routing.verify_name", routing.verify_name.is_none()),
                ];
                for (key, _) in lists.into_iter().filter(|(_, is_empty)| !is_empty) {
                    self.refuse(
                        &[key, "routing.origin"],
                        Contradiction::WithoutSingleOrigin { key },
                    );
                }
                if !routing.aws && settings.origins.is_empty() {
                    self.refuse(&["routing.aws", "routing.origin"], Contradiction::NoOrigin);
                }
            }
        }
    }

    /// Names and hosts of origins lead to one of them each.
    fn origins(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
        let mut hosts: BTreeMap<(bool, String), usize> = BTreeMap::new();
        for (index, (origin, table)) in settings.origins.iter().zip(&layers.origins).enumerate() {
            let name = table.slot("name");
            match names.get(origin.name.as_str()) {
                Some(first) if !name.broken => {
                    let contradiction = Contradiction::OriginNameTwice {
                        name: origin.name.clone(),
                        first: (*first).clone(),
                    };
                    self.refuse_at(name.place.clone(), contradiction);
                }
                Some(_) => {}
                None if name.broken => {}
                None => {
                    names.insert(&origin.name, &table.place);
                }
            }
            for (key, host, place) in named_hosts(origin, table) {
                let entry = hosts.entry((key == "origin.domains", host.clone()));
                let first = *entry.or_insert(index);
                if first != index {
                    let first = settings.origins[first].name.clone();
                    self.refuse_at(place, Contradiction::HostTwice { key, host, first });
                }
            }
        }
    }

    /// An origin that is an address of ours would be asked by us, for ever.
    fn loops(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        let admin = ("admin.listen", settings.admin.listen);
        let doors = doors(settings).into_iter();
        let mine: Vec<_> = doors
            .map(|(key, _, address)| (key, address))
            .chain([admin])
            .collect();
        let urls = settings.origins.iter().zip(&layers.origins);
        let named = urls.filter_map(|(origin, table)| {
            let slot = table.slot("url");
            let key = slot.setting.key;
            (!slot.broken).then(|| (key, &origin.url, Some(slot.place.clone())))
        });
        let single = settings.routing.origin.iter();
        let single = single.map(|url| ("routing.origin", url, None));
        let single = single.chain(fallbacks(
            &settings.routing.fallback,
            layers.slot("routing.fallback"),
        ));
        let others = settings.origins.iter().zip(&layers.origins);
        let others =
            others.flat_map(|(origin, table)| fallbacks(&origin.fallback, table.slot("fallback")));
        for (key, url, place) in single.chain(named).chain(others) {
            let Some((listens, address)) = mine.iter().find(|(_, own)| is_ours(url, *own)) else {
                continue;
            };
            let (url, address) = (url.clone(), *address);
            let contradiction = Contradiction::OriginIsMillrace { key, url, address };
            match place {
                None => self.refuse(&[key, listens], contradiction),
                Some(_) if layers.slot(listens).broken => {}
                Some(place) => self.refuse_at(place, contradiction),
            }
        }
    }

    fn amounts(&mut self) {
        let Settings {
            server,
            upstream,
            ram,
            fill,
            ..
        } = self.settings;
        let (shards, cores) = (server.shards, server.cores.len());
        if cores > 0 && shards > cores {
            self.refuse(
                &["server.shards", "server.cores"],
                Contradiction::ShardsWithoutCores { shards, cores },
            );
        }
        self.ordered(
            ("upstream.dns_ttl_min", upstream.dns_ttl_min_ms),
            ("upstream.dns_ttl_max", upstream.dns_ttl_max_ms),
            format_duration,
        );
        self.ordered(
            ("upstream.pool_idle_max", upstream.pool_idle_max as u64),
            ("upstream.connections_max", upstream.connections_max as u64),
            |number| number.to_string(),
        );
        if ram.size_bytes > 0 {
            self.ordered(
                ("fill.window", fill.window_bytes),
                ("ram.size", ram.size_bytes),
                format_size,
            );
        }
        if fill.window_bytes < STRIPE_BYTES {
            let window = format_size(fill.window_bytes);
            let stripe = format_size(STRIPE_BYTES);
            self.refuse(
                &["fill.window"],
                Contradiction::WindowBelowStripe { window, stripe },
            );
        }
    }

    /// Rules name origins that there are, and tiers that can be without others.
    fn rules(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        let single = settings.routing.origin.is_some();
        let names = settings.origins.iter().map(|origin| origin.name.as_str());
        let aws = (settings.routing.aws && !single).then_some(AWS);
        let known: Vec<&str> = names.chain(aws).collect();
        for (rule, table) in settings.rules.iter().zip(&layers.rules) {
            let slot = table.slot("origin");
            if let Some(name) = rule.origin.as_deref().filter(|name| !known.contains(name)) {
                let near = nearest(name, known.iter().copied());
                let contradiction = Contradiction::RuleWithoutOrigin {
                    name: name.to_owned(),
                    nearest: near.map(str::to_owned),
                };
                if !slot.broken {
                    self.refuse_at(slot.place.clone(), contradiction);
                }
            }
            let slot = table.slot("tiers");
            if rule.tiers.as_deref() == Some(&[Tier::Disk]) && !slot.broken {
                self.refuse_at(slot.place.clone(), Contradiction::DiskWithoutRam);
            }
        }
    }

    fn hosts(&mut self) {
        let (layers, settings) = (self.layers, self.settings);
        for (index, host) in settings.hosts.iter().enumerate() {
            let mut earlier = settings.hosts[..index].iter();
            let slot = layers.hosts[index].slot("name");
            if earlier.any(|other| other.name == host.name) && !slot.broken {
                let name = host.name.clone();
                self.refuse_at(slot.place.clone(), Contradiction::MappedTwice { name });
            }
        }
    }

    fn ordered(
        &mut self,
        (low_key, low): (&'static str, u64),
        (high_key, high): (&'static str, u64),
        format: fn(u64) -> String,
    ) {
        if low > high {
            let contradiction = Contradiction::Inverted {
                low_key,
                low: format(low),
                high_key,
                high: format(high),
            };
            self.refuse(&[low_key, high_key], contradiction);
        }
    }
}

/// The hosts and domains that lead to an origin, each with its key and place; its URL's host where it lists none.
fn named_hosts(origin: &Origin, table: &Table) -> Vec<(&'static str, String, Place)> {
    let mut found = Vec::new();
    let (hosts, domains) = (table.slot("hosts"), table.slot("domains"));
    for (slot, names) in [(hosts, &origin.hosts), (domains, &origin.domains)] {
        for (index, name) in names.iter().enumerate().filter(|_| !slot.broken) {
            let place = slot.item_place(index).clone();
            found.push((slot.setting.key, name.clone(), place));
        }
    }
    let url = table.slot("url");
    let lists_none = origin.hosts.is_empty() && origin.domains.is_empty();
    if lists_none && ![hosts, domains, url].iter().any(|slot| slot.broken) {
        found.push((url.setting.key, origin.url.authority(), url.place.clone()));
    }
    found
}

/// Where an origin is asked besides its first place, each with its key and where that is written.
fn fallbacks<'s>(
    urls: &'s [OriginUrl],
    slot: &'s Slot,
) -> impl Iterator<Item = (&'static str, &'s OriginUrl, Option<Place>)> {
    let urls = urls.iter().enumerate().filter(|_| !slot.broken);
    urls.map(|(index, url)| (slot.setting.key, url, Some(slot.item_place(index).clone())))
}

/// Whether binding both fails: one port, and one address or the wildcard of the same family. Port 0 is any free one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let meets = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_family && meets
}

/// Whether connecting to the URL reaches an address we listen on, as far as names tell.
fn is_ours(url: &OriginUrl, own: SocketAddr) -> bool {
    let own_ip = own.ip().to_canonical();
    let same_host = match url.ip().map(|ip| ip.to_canonical()) {
        Some(ip) => ip == own_ip || own_ip.is_unspecified() && is_this_host(ip),
        None => url.is_loopback() && (own_ip.is_loopback() || own_ip.is_unspecified()),
    };
    same_host && url.port == own.port()
}

fn is_this_host(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flags, Sources};

    fn errors(file: &str, flags: &[(&str, &str)]) -> Vec<String> {
        let given = |flags: Flags, (flag, value): &(&str, &str)| flags.with(flag, value);
        let sources = Sources {
            file: Some(("millrace.toml".into(), file.to_owned())),
            flags: flags.iter().fold(Flags::default(), given),
            ..Sources::default()
        };
        match Settings::load(sources) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn file(text: &str) -> Vec<String> {
        errors(text, &[])
    }

    fn flags(flags: &[(&str, &str)]) -> Vec<String> {
        errors("", flags)
    }

    #[test]
    fn a_door_stands_once() {
        assert_eq!(
            file("listener.http = ['127.0.0.1:80', '[::1]:80', '127.0.0.1:80']"),
            ["millrace.toml:1:46: `listener.http` lists \"127.0.0.1:80\" twice"]
        );
        assert_eq!(
            file("listener.http = ['127.0.0.1:80', '0.0.0.0:80']"),
            ["millrace.toml:1:34: `listener.http`: 0.0.0.0:80 overlaps with 127.0.0.1:80"]
        );
        for allowed in [
            "127.0.0.1:0,127.0.0.1:0",
            "0.0.0.0:80,[::]:80",
            "10.0.0.1:80,10.0.0.2:80",
        ] {
            assert!(flags(&[("--listen", allowed)]).is_empty(), "{allowed}");
        }
    }

    #[test]
    fn the_admin_address_is_no_door() {
        assert_eq!(
            flags(&[("--listen", "0.0.0.0:9180")]),
            [
                "--listen: `admin.listen`: 127.0.0.1:9180 overlaps with the door 0.0.0.0:9180 of `listener.http`"
            ]
        );
        assert!(flags(&[("--listen", "127.0.0.1:0"), ("--admin", "127.0.0.1:0")]).is_empty());
    }

    #[test]
    fn some_origin_is_reachable() {
        assert_eq!(
            file("[routing]\naws = false"),
            [
                "millrace.toml:2:7: no origin is reachable: `routing.aws` is false, and neither `routing.origin` nor an [[origin]] is given"
            ]
        );
        assert!(errors("routing.aws = false", &[("--origin", "http://a:9000")]).is_empty());
        assert!(file("routing.aws = false\n[[origin]]\nname = 'a'\nurl = 'http://a'").is_empty());
    }

    #[test]
    fn a_single_origin_is_the_only_one() {
        let named = "[[origin]]\nname = 'a'\nurl = 'http://a'";
        assert_eq!(
            errors(named, &[("--origin", "https://b")]),
            [
                "--origin: `routing.origin` sends every request to https://b, so no [[origin]] is ever asked: keep one of the two"
            ]
        );
    }

    #[test]
    fn hosts_of_the_single_origin_need_one() {
        let lists = "[routing]\nhosts = ['a.example.com']\ndomains = ['b.example.com']";
        assert_eq!(
            file(lists),
            [
                "millrace.toml:2:9: `routing.hosts` belongs to `routing.origin`, which is not set: give it to an [[origin]] instead",
                "millrace.toml:3:11: `routing.domains` belongs to `routing.origin`, which is not set: give it to an [[origin]] instead",
            ]
        );
        assert!(errors(lists, &[("--origin", "https://b")]).is_empty());
        let alone = "[routing]\nfallback = ['http://c']\n";
        assert_eq!(errors(alone, &[]).len(), 1);
        assert!(errors(alone, &[("--origin", "https://b")]).is_empty());
    }

    #[test]
    fn an_origin_has_a_name_a_url_and_hosts_of_its_own() {
        let text = "\
            [[origin]]\nname = 'a'\nurl = 'http://127.0.0.1:9000'\n\
            [[origin]]\nname = 'a'\nhosts = ['127.0.0.1:9000']\nfoo = 1\n\
            [[origin]]\nname = 'B'\nurl = 'http://c'\nhosts = ['127.0.0.1:9000', 'x', 'X']\n\
            [[origin]]\nname = 'd'\nurl = 'http://d'\ndomains = ['x']\n\
            [[origin]]\nname = 'e'\nurl = 'http://e'\ndomains = ['x']\n";
        assert_eq!(
            file(text),
            [
                "millrace.toml:4:1: `origin.url` is missing: every [[origin]] needs one",
                "millrace.toml:5:8: `origin.name`: \"a\" is taken by the origin at millrace.toml:1:1",
                "millrace.toml:6:10: `origin.hosts`: 127.0.0.1:9000 leads to the origin \"a\" already",
                "millrace.toml:7:1: unknown key `origin.foo`",
                "millrace.toml:9:8: `origin.name`: \"B\" is not a name of 1 to 63 lower-case letters, digits and '-'",
                "millrace.toml:11:10: `origin.hosts`: 127.0.0.1:9000 leads to the origin \"a\" already",
                "millrace.toml:11:33: `origin.hosts` lists \"x\" twice",
                "millrace.toml:19:12: `origin.domains`: x leads to the origin \"d\" already",
            ]
        );
    }

    #[test]
    fn an_origin_that_is_millrace_itself_is_refused() {
        for (listen, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("127.0.0.1:8080", "http://localhost:8080"),
            ("0.0.0.0:80", "http://127.0.0.2"),
            ("[::]:80", "http://[::1]"),
            ("10.0.0.1:443", "https://10.0.0.1"),
            ("127.0.0.1:1", "http://127.0.0.1:9180"),
        ] {
            let found = flags(&[("--listen", listen), ("--origin", origin)]);
            assert_eq!(found.len(), 1, "{listen} {origin} {found:?}");
            assert!(found[0].contains("every miss would loop"), "{found:?}");
        }
        for (listen, origin) in [
            ("127.0.0.1:8080", "http://127.0.0.1:9000"),
            ("0.0.0.0:80", "http://10.0.0.2"),
            ("127.0.0.1:80", "http://store"),
        ] {
            assert!(flags(&[("--listen", listen), ("--origin", origin)]).is_empty());
        }
        let named = file(
            "[[origin]]\nname = 'a'\nurl = 'http://b'\nfallback = ['http://c', 'http://127.0.0.1:8080']",
        );
        assert_eq!(
            named,
            [
                "millrace.toml:4:25: `origin.fallback`: http://127.0.0.1:8080 is millrace itself (it listens on 127.0.0.1:8080): every miss would loop"
            ]
        );
        let single = "[routing]\nfallback = ['http://127.0.0.1:8080']\n";
        assert_eq!(errors(single, &[("--origin", "https://b")]).len(), 1);
        let named = file("[[origin]]\nname = 'a'\nurl = 'http://127.0.0.1:8080'");
        assert_eq!(
            named,
            [
                "millrace.toml:3:7: `origin.url`: http://127.0.0.1:8080 is millrace itself (it listens on 127.0.0.1:8080): every miss would loop"
            ]
        );
    }

    #[test]
    fn a_tls_door_needs_a_certificate_and_an_address_of_its_own() {
        assert_eq!(
            file("[listener]\ntls = ['127.0.0.1']\n[tls]\ncert_file = 'c.pem'"),
            [
                "millrace.toml:2:7: `listener.tls` needs `tls.cert_file` and `tls.key_file`, and `tls.key_file` is not set"
            ]
        );
        let text = "[listener]\nhttp = ['0.0.0.0:443']\ntls = ['127.0.0.1']\n[tls]\ncert_file = 'c.pem'\nkey_file = 'k.pem'";
        assert_eq!(
            file(text),
            ["millrace.toml:3:8: `listener.tls`: 127.0.0.1:443 overlaps with 0.0.0.0:443"]
        );
    }

    #[test]
    fn amounts_agree_with_each_other() {
        assert_eq!(
            flags(&[("--shards", "3"), ("--cores", "0,1")]),
            [
                "--shards: `server.shards` is 3, but `server.cores` lists only 2: each shard needs a core of its own"
            ]
        );
        let text = "\
            [upstream]\ndns_ttl_min = '2m'\npool_idle_max = 10\nconnections_max = 5\n\
            [fill]\nwindow = '4MiB'\n[ram]\nsize = '16MiB'\n";
        assert_eq!(
            file(text),
            [
                "millrace.toml:2:15: `upstream.dns_ttl_min` (2m) is greater than `upstream.dns_ttl_max` (1m)",
                "millrace.toml:4:19: `upstream.pool_idle_max` (10) is greater than `upstream.connections_max` (5)",
                "millrace.toml:6:10: `fill.window` (4MiB) is smaller than a stripe (8MiB)",
            ]
        );
        assert_eq!(
            errors("fill.window = '1GiB'", &[("--ram", "512MiB")]),
            ["--ram: `fill.window` (1GiB) is greater than `ram.size` (512MiB)"]
        );
    }

    #[test]
    fn a_key_that_is_wrong_by_itself_is_not_told_twice() {
        assert_eq!(errors("fill.window = '4MB'", &[("--ram", "1")]).len(), 2);
        assert_eq!(
            errors("fill.window = '1KiB'", &[("--ram", "16MiB")]).len(),
            1
        );
        assert_eq!(errors("[routing]\naws = false\norigin = 'x'", &[]).len(), 1);
    }
}

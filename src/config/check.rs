//! Relations between settings: values that are each right and together wrong.
//!
//! `load.rs` calls this after all sources are read. Each check names the keys it looks at; where one of them holds
//! a value that did not fit, the check is silent, for its error has been told already. Types and bounds of single
//! keys are `shape.rs`; what works and may not be meant is `warning.rs`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::error::{ConfigError, Place};
use super::load::{Layers, Slot};
use super::table::{STRIPE_BYTES, Settings};
use super::url::OriginUrl;
use super::value::Value;
use super::words::{format_duration, format_size};

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
    #[error("`listener.http`: {address} overlaps with {other}")]
    DoorsOverlap {
        /// The later one.
        address: SocketAddr,
        /// The earlier one.
        other: SocketAddr,
    },
    /// The admin address is a door's.
    #[error("`admin.listen`: {address} overlaps with the door {door} of `listener.http`")]
    AdminIsDoor {
        /// The admin address.
        address: SocketAddr,
        /// The door.
        door: SocketAddr,
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
    /// A window that no stripe passes through.
    #[error("`fill.window` ({window}) is smaller than a stripe ({stripe})")]
    WindowBelowStripe {
        /// In words.
        window: String,
        /// In words.
        stripe: String,
    },
}

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
    check.loops();
    check.amounts();
    check.errors
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
        let tables = layers.origins.iter().flat_map(|table| &table.slots);
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
        let slot = layers.slot("listener.http");
        let doors = &settings.listener.http;
        for (index, address) in doors.iter().copied().enumerate() {
            let mut earlier = doors[..index].iter().copied();
            let other = earlier.find(|other| *other != address && overlap(address, *other));
            if let Some(other) = other.filter(|_| !slot.broken) {
                let place = slot.item_place(index).clone();
                self.refuse_at(place, Contradiction::DoorsOverlap { address, other });
            }
        }
        let address = settings.admin.listen;
        let taken = doors.iter().copied().find(|door| overlap(*door, address));
        if let Some(door) = taken {
            self.refuse(
                &["admin.listen", "listener.http"],
                Contradiction::AdminIsDoor { address, door },
            );
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
                    ("routing.hosts", &routing.hosts),
                    ("routing.domains", &routing.domains),
                ];
                for (key, _) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
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
        let doors = settings.listener.http.iter();
        let mine: Vec<_> = doors
            .map(|a| ("listener.http", *a))
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
        for (key, url, place) in single.chain(named) {
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
fn named_hosts(
    origin: &super::table::Origin,
    table: &super::load::Table,
) -> Vec<(&'static str, String, Place)> {
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

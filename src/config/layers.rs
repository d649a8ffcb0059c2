//! The values of a configuration while its sources are laid over each other, and all that was found wrong with them.
//!
//! `load.rs` makes one, `file.rs`, `environment.rs` and the flags write into it, `check.rs` reads it. There is exactly
//! one slot for each row of the table, in its order, whatever the sources hold. A value that does not fit leaves the
//! one below it standing and marks its slot as broken.

use super::error::{ConfigError, Fault, Place};
use super::load::Effective;
use super::table::{EndpointOverride, Host, Origin, Rule, Section, Setting, Settings, settings};
use super::value::{Value, ValueError};

/// A value on its way up through the layers.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub setting: &'static Setting,
    pub value: Value,
    pub place: Place,
    /// The place of each item of a list from the file.
    pub items: Vec<Place>,
    /// A source held something that does not fit.
    pub broken: bool,
}

impl Slot {
    pub fn new(setting: &'static Setting) -> Self {
        Self {
            setting,
            value: setting.initial_value(),
            place: Place::Default,
            items: Vec::new(),
            broken: false,
        }
    }

    /// Where item `index` of a list stands.
    pub fn item_place(&self, index: usize) -> &Place {
        self.items.get(index).unwrap_or(&self.place)
    }
}

/// One `[[origin]]`, `[[endpoint]]`, `[[rule]]` or `[[host]]`.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub place: Place,
    pub slots: Vec<Slot>,
}

impl Table {
    pub fn slot(&self, name: &str) -> &Slot {
        self.slots
            .iter()
            .find(|slot| slot.setting.name == name)
            .expect("a slot for each row")
    }
}

/// All values so far, and all that is wrong with them.
#[derive(Debug)]
pub(super) struct Layers {
    pub slots: Vec<Slot>,
    pub origins: Vec<Table>,
    pub endpoints: Vec<Table>,
    pub rules: Vec<Table>,
    pub hosts: Vec<Table>,
    pub errors: Vec<ConfigError>,
    /// The file is not TOML: what it meant to say is unknown, so nothing is concluded from what it does not say.
    pub syntax_broken: bool,
}

impl Layers {
    pub fn new() -> Self {
        Self {
            slots: settings().map(Slot::new).collect(),
            origins: Vec::new(),
            endpoints: Vec::new(),
            rules: Vec::new(),
            hosts: Vec::new(),
            errors: Vec::new(),
            syntax_broken: false,
        }
    }

    /// The tables of a section that may be given many times.
    pub fn tables(&mut self, section: &Section) -> &mut Vec<Table> {
        match section.name {
            "origin" => &mut self.origins,
            "endpoint" => &mut self.endpoints,
            "rule" => &mut self.rules,
            "host" => &mut self.hosts,
            name => panic!("{name} is no repeated section"),
        }
    }

    /// The slot of a key that is given once.
    pub fn slot(&self, key: &str) -> &Slot {
        self.slots
            .iter()
            .find(|slot| slot.setting.key == key)
            .unwrap_or_else(|| panic!("no setting has the key {key}"))
    }

    pub fn slot_mut(&mut self, setting: &Setting) -> &mut Slot {
        self.slots
            .iter_mut()
            .find(|slot| slot.setting.key == setting.key)
            .unwrap_or_else(|| panic!("no setting has the key {}", setting.key))
    }

    /// Lays a value over what is there.
    pub fn set(
        &mut self,
        setting: &'static Setting,
        place: Place,
        value: Result<Value, ValueError>,
    ) {
        let slot = self.slot_mut(setting);
        match value {
            Ok(value) => {
                slot.value = value;
                slot.place = place;
                slot.items.clear();
            }
            Err(error) => {
                slot.broken = true;
                let key = setting.key;
                self.fail(place, Fault::Value { key, error });
            }
        }
    }

    pub fn fail(&mut self, place: Place, fault: Fault) {
        self.errors.push(ConfigError { place, fault });
    }

    /// The typed settings as they stand; they hold only if there are no errors.
    pub fn settings(&self) -> Settings {
        let values = |table: &Table| -> Vec<Value> {
            table.slots.iter().map(|slot| slot.value.clone()).collect()
        };
        let origins = self.origins.iter().map(values);
        let origins = origins.map(|values| Origin::take(&mut values.into_iter()));
        let endpoints = self.endpoints.iter().map(values);
        let endpoints = endpoints.map(|values| EndpointOverride::take(&mut values.into_iter()));
        let rules = self.rules.iter().map(values);
        let rules = rules.map(|values| Rule::take(&mut values.into_iter()));
        let hosts = self.hosts.iter().map(values);
        let hosts = hosts.map(|values| Host::take(&mut values.into_iter()));
        Settings::take(
            &mut self.slots.iter().map(|slot| slot.value.clone()),
            origins.collect(),
            endpoints.collect(),
            rules.collect(),
            hosts.collect(),
        )
    }

    /// Every value with its place.
    pub fn effective(self) -> Vec<Effective> {
        let effective = |slot: Slot, table| Effective {
            setting: slot.setting,
            table,
            value: slot.value,
            place: slot.place,
        };
        let once = self.slots.into_iter().map(|slot| effective(slot, None));
        let origins = self.origins.into_iter().enumerate();
        let endpoints = self.endpoints.into_iter().enumerate();
        let rules = self.rules.into_iter().enumerate();
        let hosts = self.hosts.into_iter().enumerate();
        let tables = origins.chain(endpoints).chain(rules).chain(hosts);
        let repeated = tables.flat_map(|(index, table)| {
            let slots = table.slots.into_iter();
            slots.map(move |slot| effective(slot, Some(index)))
        });
        once.chain(repeated).collect()
    }
}

//! Laying the sources over each other: defaults, file, variables, flags; then the checks; then the typed settings.
//!
//! `cli.rs` and tests call [`Settings::load`]. A value that does not fit leaves the one below it standing and marks
//! its key as broken, so that checks which involve the key stay silent: one mistake gives one error.

use std::path::PathBuf;
use std::sync::Arc;

use super::check;
use super::error::{ConfigError, Fault, Place};
use super::table::{Origin, Setting, Settings, section, settings};
use super::value::{Value, ValueError};
use super::warning::{self, Warning};
use super::{environment, file};

/// Everything a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file's path, as the operator named it, and its text.
    pub file: Option<(PathBuf, String)>,
    /// The process's environment; only names that begin with `MILLRACE_` are looked at.
    pub env: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Flags,
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
        })
    }
}

impl Default for Settings {
    /// The defaults of the table, which hold without any file.
    fn default() -> Self {
        Layers::new().settings()
    }
}

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

/// One `[[origin]]`.
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
    pub errors: Vec<ConfigError>,
    /// The file is not TOML: what it meant to say is unknown, so nothing is concluded from what it does not say.
    pub syntax_broken: bool,
}

impl Layers {
    fn new() -> Self {
        Self {
            slots: settings().map(Slot::new).collect(),
            origins: Vec::new(),
            errors: Vec::new(),
            syntax_broken: false,
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

    fn settings(&self) -> Settings {
        let origins = self
            .origins
            .iter()
            .map(|table| Origin::take(&mut table.slots.iter().map(|slot| slot.value.clone())));
        Settings::take(
            &mut self.slots.iter().map(|slot| slot.value.clone()),
            origins.collect(),
        )
    }

    fn effective(self) -> Vec<Effective> {
        let effective = |slot: Slot, table| Effective {
            setting: slot.setting,
            table,
            value: slot.value,
            place: slot.place,
        };
        let once = self.slots.into_iter().map(|slot| effective(slot, None));
        let tables = self.origins.into_iter().enumerate();
        let repeated = tables.flat_map(|(index, table)| {
            let slots = table.slots.into_iter();
            slots.map(move |slot| effective(slot, Some(index)))
        });
        once.chain(repeated).collect()
    }
}

/// The rows of the repeated table.
pub(super) fn origin_rows() -> &'static [Setting] {
    section("origin").map_or(&[], |section| section.settings)
}

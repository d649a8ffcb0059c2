//! The configuration file: TOML text to values with their places.
//!
//! `load.rs` calls this. Only this file names the TOML parser's types. Unknown keys and values that do not fit are
//! errors, each at its own line and column; the text is walked to its end, so all are found at once.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{ConfigError, Fault, Place};
use super::layers::{Layers, Slot, Table};
use super::suggest::{nearest, nearest_key};
use super::table::{Initial, SECTIONS, Section, Setting, keys, section};
use super::value::{Kind, Raw, Value};

/// Largest file that is read: far more than any configuration, far less than memory.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most `[[origin]]` tables, and most `[[rule]]` tables.
const TABLES_MAX: usize = 256;

/// Lays the file's values over the defaults.
pub(super) fn apply(path: &Arc<Path>, text: &str, layers: &mut Layers) {
    let positions = Positions { path, text };
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    let before = layers.errors.len();
    for (key, value) in document.get_ref() {
        read_section(key, value, &positions, layers);
    }
    let unclear: Vec<ConfigError> = syntax_errors
        .iter()
        .map(|error| ConfigError {
            place: positions.at(error.span().map_or(0, |span| span.start)),
            fault: Fault::Syntax {
                message: error.message().replace('\n', " "),
            },
        })
        .collect();
    // What the parser guessed of a part that it could not read is not the operator's mistake.
    let guessed: Vec<Range<usize>> = unclear
        .iter()
        .map(|error| spoiled_lines(text, line_of(&error.place)))
        .collect();
    let mut found = layers.errors.split_off(before);
    found.retain(|error| {
        let line = line_of(&error.place);
        guessed.iter().all(|lines| !lines.contains(&line))
    });
    layers.errors.extend(found);
    layers.syntax_broken |= !unclear.is_empty();
    layers.errors.extend(unclear);
}

/// The lines whose meaning a syntax error on this line leaves open: the line itself, and below a section's header that
/// cannot be read everything up to the next header.
fn spoiled_lines(text: &str, line: usize) -> Range<usize> {
    let is_header = |text: &str| text.trim_start().starts_with('[');
    let mut below = text.lines().skip(line.saturating_sub(1));
    if !below.next().is_some_and(is_header) {
        return line..line + 1;
    }
    line..line + 1 + below.take_while(|text| !is_header(text)).count()
}

fn line_of(place: &Place) -> usize {
    match place {
        Place::File { line, .. } => *line,
        Place::Default | Place::Variable(_) | Place::Flag(_) => 0,
    }
}

type Key<'i> = Spanned<std::borrow::Cow<'i, str>>;
type Found<'i> = Spanned<DeValue<'i>>;

fn read_section(key: &Key<'_>, value: &Found<'_>, positions: &Positions<'_>, layers: &mut Layers) {
    let place = positions.at(key.span().start);
    let name = key.get_ref().as_ref();
    let Some(section) = section(name) else {
        return layers.fail(place, unknown_at_top(name, value.get_ref()));
    };
    match value.get_ref() {
        DeValue::Table(table) if !section.repeated => {
            read_settings(section, table, positions, layers);
        }
        DeValue::Array(tables) if section.repeated && tables_only(tables) => {
            read_tables(section, tables, positions, layers);
        }
        other => layers.fail(
            place,
            Fault::NotASection {
                section: section.name,
                got: with_article(other),
                header: section.header(),
            },
        ),
    }
}

/// A name at the top that is no section: a mistyped section, or a key that has lost its section.
fn unknown_at_top(name: &str, value: &DeValue<'_>) -> Fault {
    let is_section = match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => !items.is_empty() && tables_only(items),
        _ => false,
    };
    if !is_section {
        return Fault::UnknownKey {
            key: name.to_owned(),
            nearest: nearest_key(name, keys()).map(str::to_owned),
        };
    }
    let near = nearest(name, SECTIONS.iter().map(|section| section.name));
    Fault::UnknownSection {
        section: name.to_owned(),
        nearest: near.and_then(section).map(Section::header),
    }
}

fn read_settings(
    section: &Section,
    table: &DeTable<'_>,
    positions: &Positions<'_>,
    layers: &mut Layers,
) {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let Some(setting) = section.settings.iter().find(|row| row.name == name) else {
            layers.fail(positions.at(key.span().start), unknown(section, name));
            continue;
        };
        let mut slot = Slot::new(setting);
        read_value(&mut slot, value, positions, &mut layers.errors);
        *layers.slot_mut(setting) = slot;
    }
}

fn read_tables(
    section: &'static Section,
    tables: &DeArray<'_>,
    positions: &Positions<'_>,
    layers: &mut Layers,
) {
    for (index, found) in tables.iter().enumerate() {
        let place = positions.at(found.span().start);
        let header = section.header();
        if index == TABLES_MAX {
            let max = TABLES_MAX;
            return layers.fail(place, Fault::TooManyTables { max, header });
        }
        let DeValue::Table(table) = found.get_ref() else {
            continue;
        };
        let slots = section
            .settings
            .iter()
            .map(|setting| match table.get(setting.name) {
                Some(value) => {
                    let mut slot = Slot::new(setting);
                    read_value(&mut slot, value, positions, &mut layers.errors);
                    slot
                }
                None => absent(setting, &place, &header, &mut layers.errors),
            })
            .collect();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if section.settings.iter().all(|row| row.name != name) {
                layers.fail(positions.at(key.span().start), unknown(section, name));
            }
        }
        layers.tables(section).push(Table { place, slots });
    }
}

/// A key that its table does not hold.
fn absent(
    setting: &'static Setting,
    place: &Place,
    header: &str,
    errors: &mut Vec<ConfigError>,
) -> Slot {
    let mut slot = Slot::new(setting);
    if matches!(setting.initial, Initial::Required(_)) {
        slot.broken = true;
        errors.push(ConfigError {
            place: place.clone(),
            fault: Fault::Missing {
                key: setting.key,
                header: header.to_owned(),
            },
        });
    }
    slot
}

fn unknown(section: &Section, name: &str) -> Fault {
    let key = format!("{}.{name}", section.name);
    Fault::UnknownKey {
        nearest: nearest_key(&key, keys()).map(str::to_owned),
        key,
    }
}

/// Reads one value into its slot; each item of a list has its own place and its own error.
fn read_value(
    slot: &mut Slot,
    found: &Found<'_>,
    positions: &Positions<'_>,
    errors: &mut Vec<ConfigError>,
) {
    let place = positions.at(found.span().start);
    slot.place = place.clone();
    let kind = &slot.setting.kind;
    let before = errors.len();
    let mut fail = |place: Place, error| {
        let key = slot.setting.key;
        let fault = Fault::Value { key, error };
        errors.push(ConfigError { place, fault });
    };
    let value = match (kind, found.get_ref()) {
        (Kind::One(shape), value) => shape.parse(&raw(value)),
        (Kind::List(shape, ..), DeValue::Array(array)) => {
            let mut items: Vec<Value> = Vec::with_capacity(array.len());
            for item in array.iter() {
                let item_place = positions.at(item.span().start);
                match shape.parse(&raw(item.get_ref())) {
                    Ok(value) => items.push(value),
                    Err(error) => fail(item_place.clone(), error),
                }
                slot.items.push(item_place);
            }
            match items.len() == array.len() {
                true => kind.assemble(items),
                false => Ok(Value::List(items)),
            }
        }
        (Kind::List(..), value) => Err(kind.wants_a_list(&raw(value))),
    };
    match value {
        Ok(value) => slot.value = value,
        Err(error) => fail(place, error),
    }
    slot.broken = errors.len() > before;
}

fn raw<'a>(value: &'a DeValue<'_>) -> Raw<'a> {
    match value {
        DeValue::String(text) => Raw::Text(text),
        DeValue::Integer(integer) => Raw::Integer(
            integer.to_string(),
            u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
        ),
        DeValue::Boolean(value) => Raw::Bool(*value),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Raw::Other(with_article(value))
        }
    }
}

fn with_article(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn tables_only(array: &DeArray<'_>) -> bool {
    array
        .iter()
        .all(|item| matches!(item.get_ref(), DeValue::Table(_)))
}

/// Byte offsets to lines and columns.
struct Positions<'a> {
    path: &'a Arc<Path>,
    text: &'a str,
}

impl Positions<'_> {
    fn at(&self, offset: usize) -> Place {
        let mut end = offset.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place::File {
            path: Arc::clone(self.path),
            line: before.matches('\n').count() + 1,
            // A byte order mark is not a column that an editor shows.
            column: before[line_start..]
                .trim_start_matches('\u{feff}')
                .chars()
                .count()
                + 1,
        }
    }
}

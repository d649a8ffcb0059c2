//! The table over crossbeam-epoch's own code, with one reader.

pub use crossbeam_epoch as epoch;

#[path = "../../src/cache/read_map.rs"]
mod read_map;
#[path = "tables.rs"]
mod tables;

use tables::Step::{Free, Insert, Remove};
use tables::beside;

#[test]
fn a_replaced_value_is_freed_only_when_its_reader_is_done() {
    beside(
        2,
        &[Insert(1, 10), Insert(1, 11), Free, Free, Free],
        1,
        &[&[1]],
    );
}

#[test]
fn a_removed_value_is_freed_only_when_its_reader_is_done() {
    beside(2, &[Insert(1, 10), Remove(1), Free, Free, Free], 1, &[&[1]]);
}

#[test]
fn a_neighbour_in_the_chain_stays_found_while_keys_before_and_behind_it_change() {
    beside(
        1,
        &[
            Insert(1, 10),
            Insert(2, 20),
            Insert(3, 30),
            Insert(2, 21),
            Remove(3),
            Insert(3, 31),
            Free,
            Free,
        ],
        3,
        &[&[1, 2, 3]],
    );
}

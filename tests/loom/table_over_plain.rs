//! The table over the simplest reclamation, with two readers.

#[path = "plain_epoch.rs"]
pub mod epoch;

#[path = "../../src/cache/read_map.rs"]
mod read_map;
#[path = "tables.rs"]
mod tables;

use tables::Step::{Insert, Remove};
use tables::beside;

#[test]
fn two_readers_see_whole_values_that_are_current_while_keys_come_change_and_go() {
    beside(
        3,
        &[Insert(1, 10), Insert(2, 20), Insert(1, 11), Remove(2)],
        2,
        &[&[1, 2], &[2, 1]],
    );
}

#[test]
fn a_key_that_goes_and_comes_back_is_absent_only_in_between() {
    beside(
        3,
        &[Insert(1, 10), Insert(2, 20), Remove(1), Insert(1, 11)],
        2,
        &[&[1], &[2, 1]],
    );
}

#[test]
fn a_neighbour_stays_found_while_keys_before_and_behind_it_change() {
    beside(
        2,
        &[
            Insert(1, 10),
            Insert(2, 20),
            Insert(3, 30),
            Insert(2, 21),
            Remove(3),
            Insert(3, 31),
        ],
        3,
        &[&[1, 2], &[2, 3]],
    );
}

//! Row 0: what everything stands on. Clock, pseudo-random numbers, small bounded containers, patterns of hosts, whose an address is.
//!
//! Called by every module. Knows no word of the domain and does no I/O.

pub mod checksum;
pub mod clock;
pub mod hosts;
pub mod pattern;
pub mod places;
pub mod prng;
pub mod reach;

//! Millrace: a transparent caching proxy in front of Amazon S3 and every store that speaks its API.
//!
//! Read the modules downwards: each uses only those below it (`tests/tidy.rs` holds that).

pub mod cache;

pub mod ram;

pub mod io;

pub mod base;

//! Millrace: a transparent caching proxy in front of Amazon S3 and every store that speaks its API.
//!
//! Read the modules downwards: each uses only those below it (`tests/tidy.rs` holds that).

#![cfg(not(loom))]

pub mod server;

pub mod admin;
pub mod listener;
pub mod tools;

pub mod request;

pub mod shard;

pub mod fill;

pub mod cache;
pub mod upstream;

pub mod disk;

pub mod access_log;
pub mod ram;

pub mod s3;

pub mod http;

pub mod tls;

pub mod io;

pub mod config;
pub mod metrics;

pub mod base;

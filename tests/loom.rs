//! Every interleaving of the three lock-free hand-overs, run on the server's own source files: the watermark of a fill (`ram::progress`),
//! the table with one writer (`cache::read_map`) and the mailbox that wakes a sleeping shard (`shard::mailbox`).
//!
//! Compiled only under loom, without the rest of the crate (most dependencies have no loom of their own):
//!
//! ```text
//! RUSTFLAGS="--cfg loom --cfg crossbeam_loom" cargo test --test loom --release
//! ```
//!
//! The files are included by path, and find `crossbeam` in this crate: the real `crossbeam-epoch` in its own loom mode, and a stand-in for the
//! bounded queue with the queue's orderings, since that one has no loom mode. The eventfd is a counter behind loom's lock. What loom
//! sees of sequential consistency are fences, not accesses, which errs on the strict side.
#![cfg(loom)]
#![allow(dead_code, unused_imports, reason = "whole files are included, parts are used")]

extern crate self as crossbeam;

#[path = "../src/shard/mailbox.rs"]
mod mailbox;
#[path = "../src/ram/progress.rs"]
mod progress;
#[path = "../src/cache/read_map.rs"]
mod read_map;

#[path = "loom/stand_ins.rs"]
mod stand_ins;
pub use crossbeam_epoch as epoch;
pub use crossbeam_utils as utils;
pub use stand_ins::{io, queue};

#[path = "loom/fills.rs"]
mod fills;
#[path = "loom/tables.rs"]
mod tables;
#[path = "loom/wakes.rs"]
mod wakes;

/// Explores a model with at most `preemptions` switches away from a thread that could go on; what loom's papers call iterative context
/// bounding, and where its bugs are found. `LOOM_MAX_PREEMPTIONS` overrides.
fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = 20_000;
    builder.check(model);
}

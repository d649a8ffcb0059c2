//! Every interleaving of the three lock-free hand-overs, run on the server's own source files: a fill's bytes (`ram::progress`, `ram::extent`),
//! the table with one writer (`cache::read_map`) and the mailbox that wakes a sleeping shard (`shard::mailbox`).
//!
//! Compiled only under loom, without the rest of the crate (most dependencies have no loom of their own):
//!
//! ```text
//! RUSTFLAGS="--cfg loom --cfg crossbeam_loom" cargo test --test loom --release
//! ```
//!
//! The files are included by path. What they take from `crossbeam` they find in this crate: the table is run twice, with the real
//! `crossbeam-epoch` in its own loom mode (one reader, since that has very many steps) and with the simplest reclamation there is (two
//! readers); the bounded queue has a stand-in with its orderings, since it has no loom mode; the eventfd is a counter behind loom's lock.
//! Limits of loom: it takes `SeqCst` accesses for `AcqRel` (fences are exact), which errs on the strict side, and what is explored has a
//! bound on switches away from threads that could go on.
#![cfg(loom)]
#![allow(
    dead_code,
    missing_docs,
    unsafe_code,
    unused_imports,
    reason = "whole files are included, parts are used; memory that loom watches is plain memory"
)]

extern crate self as crossbeam;

#[path = "../src/shard/mailbox.rs"]
mod mailbox;

#[path = "loom/stand_ins.rs"]
mod stand_ins;
pub use crossbeam_utils as utils;
pub use stand_ins::{io, queue};

#[path = "loom/ram.rs"]
mod ram;
#[path = "loom/table_over_crossbeam.rs"]
mod table_over_crossbeam;
#[path = "loom/table_over_plain.rs"]
mod table_over_plain;
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

//! What the service manager is told (sd_notify(3)): ready, reloading, stopping, who is the main process, and that it lives.
//!
//! Called by `server`. Without `NOTIFY_SOCKET` nothing is said. The watchdog is fed only while every shard's heartbeat moves: a shard that hangs answers
//! nobody who was given to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::base::clock;
use crate::shard::World;

use super::wait_until;

/// A heartbeat that has not moved for so long has stopped; it moves every 50 ms.
const STILL_MS: u64 = 2_000;

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The doors are open.
pub(super) fn ready() {
    say(&[NotifyState::Ready]);
}

/// The settings are read again; [`ready`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

/// The drain has begun.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Another process goes on.
pub(super) fn succeeded_by(pid: u32) {
    say(&[NotifyState::MainPid(pid)]);
}

/// Feeds the watchdog, if there is one, until `over`.
pub(super) fn feed(world: &Arc<World>, over: &Arc<AtomicBool>) {
    let Some(every) = sd_notify::watchdog_enabled() else {
        return;
    };
    // Twice as often as it wants it, as sd_watchdog_enabled(3) says.
    let pause_ms = u64::try_from((every / 2).as_millis()).unwrap_or(u64::MAX);
    let (world, over) = (Arc::clone(world), Arc::clone(over));
    let body = move || {
        while !over.load(Ordering::Relaxed) {
            if all_move(&world) {
                say(&[NotifyState::Watchdog]);
            } else {
                tracing::error!("a shard hangs: the service manager's watchdog is not fed");
            }
            wait_until(clock::now_ms() + pause_ms.max(1), || {
                over.load(Ordering::Relaxed)
            });
        }
    };
    let name = "watchdog".to_owned();
    if let Err(error) = std::thread::Builder::new().name(name).spawn(body) {
        tracing::error!(%error, "no thread for the watchdog");
    }
    tracing::info!(
        every_ms = Duration::as_millis(&every) as u64,
        "the watchdog is fed"
    );
}

fn all_move(world: &World) -> bool {
    let now_ms = clock::now_ms();
    let mut shards = world.shards.iter();
    shards.all(|shard| now_ms.saturating_sub(shard.heartbeat.load(Ordering::Relaxed)) < STILL_MS)
}

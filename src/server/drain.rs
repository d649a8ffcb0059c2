//! The end of a server: what has begun is finished, within bounds, and nothing new begins.
//!
//! Called by `server::run` on the main thread, when the process is told to stop and when another has taken over.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::access_log::AccessLog;
use crate::admin::State;
use crate::base::clock;
use crate::config::Server;
use crate::shard::World;
use crate::shard::message::Message;

use super::{Event, Running, ServerError, wait_until};

/// How long doors stay open after `/readyz` has begun to fail, so that a balancer can notice.
const NOTICE_MS_MAX: u64 = 1000;

/// Who was let in last has so long to ask for something.
const LAST_MS: u64 = 100;

/// Told to stop: `/readyz` fails, then the doors close, then what is under way ends. Who comes before they close is served; where somebody else goes
/// on with a door, nobody is let in any more, and waits for that one.
pub(super) fn stop(running: Running, drain_ms: u64) -> Result<(), ServerError> {
    tracing::info!(drain_ms, "draining");
    let deadline_ms = clock::now_ms() + drain_ms;
    running.readiness.set(State::Draining);
    running.world.leaving.store(true, Ordering::Relaxed);
    running.world.draining.store(true, Ordering::Relaxed);
    let kept = running.doors.iter().filter(|door| door.listener.is_kept());
    kept.for_each(|door| door.listener.stop());
    wait_until(clock::now_ms() + (drain_ms / 10).min(NOTICE_MS_MAX), || {
        false
    });
    // A process that hands over, and may go on itself, has the same sockets.
    let settled = running.settled.load(Ordering::SeqCst);
    for door in &running.doors {
        match settled {
            true => door.listener.shutdown(),
            false => door.listener.stop(),
        }
    }
    wait_until(clock::now_ms() + LAST_MS, || {
        connections(&running.world) == 0
    });
    running.world.leaving.store(false, Ordering::Relaxed);
    finish(&running.world, running.log, deadline_ms)
}

/// Another process takes what comes: clients are told with their next answer, and those that ask nothing are let go after a while. Told to stop
/// meanwhile, this one takes no longer than it does otherwise.
pub(super) fn leave(running: Running, pid: u32, server: &Server) -> Result<(), ServerError> {
    let begun_ms = clock::now_ms();
    running.world.leaving.store(true, Ordering::Relaxed);
    running.world.draining.store(true, Ordering::Relaxed);
    running.doors.iter().for_each(|door| door.listener.stop());
    running.admin_leaves.notify_one();
    // A door that the other process does not have, or leaves open when it dies, must not keep clients waiting here.
    drop((running.doors, running.admin));
    tracing::info!(pid, "handed over");
    let world = &running.world;
    let mut stopped = false;
    let mut over = || {
        let mut told = running.events_end.try_iter();
        stopped |= told.any(|event| matches!(event, Event::Stop));
        stopped || connections(world) == 0
    };
    wait_until(begun_ms + server.drain_ms, &mut over);
    world.leaving.store(false, Ordering::Relaxed);
    let longest_ms = server.handover_ms.max(server.drain_ms);
    let mut deadline_ms = begun_ms + longest_ms;
    wait_until(deadline_ms, &mut over);
    if stopped {
        tracing::info!(drain_ms = server.drain_ms, "draining");
        deadline_ms = deadline_ms.min(clock::now_ms() + server.drain_ms);
    }
    finish(world, running.log, deadline_ms)
}

fn connections(world: &World) -> usize {
    let shards = world.shards.iter();
    shards
        .map(|shard| shard.connections.load(Ordering::Relaxed))
        .sum()
}

fn finish(world: &World, log: AccessLog, deadline_ms: u64) -> Result<(), ServerError> {
    wait_until(deadline_ms, || connections(world) == 0);
    let left = connections(world);
    if left > 0 {
        tracing::warn!(
            connections = left,
            "the time to drain is over; the rest is cut"
        );
    }
    for shard in &world.shards {
        let _ = shard.mailbox.push(Message::Drain);
    }
    let flushed = || {
        let mut shards = world.shards.iter();
        shards.all(|shard| shard.drained.load(Ordering::Acquire))
    };
    wait_until(clock::now_ms() + 1000, flushed);
    log.shutdown(Duration::from_secs(1))?;
    tracing::info!("stopped");
    Ok(())
}

//! The control thread: a tokio runtime of its own for what is not the data plane. Admin endpoints, DNS, signals, settings and
//! certificates that change.
//!
//! Called by `boot`. Reaches shards only through their mailboxes.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

use crate::admin::{self, AdminState};
use crate::metrics::Registry;
use crate::shard::World;
use crate::shard::message::Message;
use crate::upstream::dns::Resolver;

use super::Event;
use super::certificates::Certificates;
use super::reload::Reloader;

/// What the control thread is given.
pub(super) struct Desk {
    pub(super) world: Arc<World>,
    pub(super) admin: Arc<AdminState>,
    pub(super) listener: TcpListener,
    pub(super) resolver: Resolver,
    pub(super) names: Receiver<Box<str>>,
    pub(super) registry: Arc<Registry>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) reloader: Reloader,
    pub(super) certificates: Option<Certificates>,
    /// Another process serves the admin address from now on.
    pub(super) admin_leaves: Arc<Notify>,
}

/// Runs until the process ends.
pub(super) fn run(desk: Desk) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let stop = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ];
        let reopen = signal(SignalKind::hangup())?;
        let upgrade = signal(SignalKind::user_defined2())?;
        let reload = [(); 2].map(|()| Arc::new(Notify::new()));
        tokio::spawn(desk.reloader.run(Arc::clone(&reload[0])));
        if let Some(certificates) = desk.certificates {
            tokio::spawn(certificates.run(Arc::clone(&reload[1])));
        }
        tokio::spawn(signals(stop, [reopen, upgrade], desk.events, reload));
        let world = desk.world;
        let resolving = desk
            .resolver
            .run(desk.names, desk.registry, move |host, result| {
                let resolved = result.inspect_err(|error| {
                    tracing::warn!(host, %error, "an origin's name was not resolved");
                });
                let addresses = resolved.ok().map(|resolved| resolved.addresses);
                for shard in 0..world.shards.len() {
                    tell(
                        &world,
                        shard,
                        Message::Resolved(host.into(), addresses.clone()),
                    );
                }
            });
        let leaves = desk.admin_leaves;
        let left = async move { leaves.notified().await };
        let serving = admin::serve(desk.listener, desk.admin, left);
        let ((), served) = tokio::join!(resolving, serving);
        served
    })
}

fn tell(world: &Arc<World>, shard: usize, message: Message) {
    let Err(message) = world.shards[shard].mailbox.push(message) else {
        return;
    };
    let world = Arc::clone(world);
    tokio::spawn(async move {
        let mut message = message;
        while let Err(back) = world.shards[shard].mailbox.push(message) {
            message = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

async fn signals(
    [mut terminate, mut interrupt]: [Signal; 2],
    [mut hangup, mut upgrade]: [Signal; 2],
    events: mpsc::Sender<Event>,
    reload: [Arc<Notify>; 2],
) {
    loop {
        let event = tokio::select! {
            _ = terminate.recv() => Event::Stop,
            _ = interrupt.recv() => Event::Stop,
            _ = upgrade.recv() => Event::HandOver,
            _ = hangup.recv() => {
                reload.iter().for_each(|reload| reload.notify_one());
                Event::Reopen
            }
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

//! The settings file, read again: when it has changed, and on SIGHUP.
//!
//! Run on the control thread. The file is read every second and compared with what was read last: that sees every way to change it (in place, by rename,
//! through links) on every filesystem. What holds at once goes to the shards as one message each, so that no hit meets a lock; what does
//! not waits for a restart, and is told. A file with errors changes nothing.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::admin::Readiness;
use crate::config::{ConfigError, Loaded, Rules, files};
use crate::metrics::{Counter, Gauge, ReloadResult};
use crate::shard::World;
use crate::shard::message::Message;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Errors that `/readyz` names; the log has all.
const ERRORS_SHOWN: usize = 8;

/// What a file's text came to: itself, or why there is none.
type Text = Result<String, Box<ConfigError>>;

/// What reads the settings again.
pub(super) struct Reloader {
    /// As the process was started.
    pub(super) started: Arc<Loaded>,
    pub(super) world: Arc<World>,
    pub(super) readiness: Arc<Readiness>,
}

impl Reloader {
    /// Runs until the process ends. `asked` is notified by SIGHUP.
    pub(super) async fn run(self, asked: Arc<Notify>) {
        let Some(path) = self.started.again.path.clone() else {
            return;
        };
        let path: Arc<Path> = path.into();
        // Between the start and now it may have changed: the first look is compared with nothing, and changes nothing if it has not.
        let mut last: Option<Text> = None;
        let mut generation = self.world.rules.generation();
        loop {
            let by_signal = timeout(LOOK, asked.notified()).await.is_ok();
            let reading = Arc::clone(&path);
            let read = tokio::task::spawn_blocking(move || files::read(&reading)).await;
            let Ok(text) = read else { continue };
            let first = last.is_none();
            if !by_signal && last.as_ref() == Some(&text) {
                continue;
            }
            last = Some(text.clone());
            let loaded = match text {
                Ok(text) => self.started.again.load(text),
                Err(error) => Err(vec![*error]),
            };
            if first && !by_signal && self.is_as_started(&loaded) {
                continue;
            }
            generation += 1;
            self.apply(loaded, generation).await;
        }
    }

    fn is_as_started(&self, loaded: &Result<Loaded, Vec<ConfigError>>) -> bool {
        let settings = loaded.as_ref().map(|loaded| &loaded.settings);
        settings.is_ok_and(|settings| *settings == self.started.settings)
    }

    async fn apply(&self, loaded: Result<Loaded, Vec<ConfigError>>, generation: u32) {
        let metrics = self.world.registry.global();
        let refused = loaded.is_err();
        let (result, remarks) = match loaded {
            Err(errors) => (ReloadResult::Refused, refusal(&errors)),
            Ok(loaded) => {
                let waiting = loaded.waiting_for_restart(&self.started);
                metrics.gauge_set(Gauge::ConfigWaiting, waiting.len() as u64);
                let rules = Arc::new(Rules::of(&loaded.settings, generation));
                self.publish(&rules).await;
                tracing::info!(
                    rules = loaded.settings.rules.len(),
                    "the settings are read again"
                );
                let remarks = match waiting.as_slice() {
                    [] => Vec::new(),
                    keys => {
                        let keys = keys.join(", ");
                        tracing::warn!(keys, "a change of these settings waits for a restart");
                        vec![format!("config: waits for a restart: {keys}")]
                    }
                };
                (ReloadResult::Applied, remarks)
            }
        };
        self.readiness.remark(remarks);
        metrics.gauge_set(Gauge::ConfigRefused, u64::from(refused));
        metrics.count(Counter::ConfigReloads(result));
    }

    async fn publish(&self, rules: &Arc<Rules>) {
        for shard in &self.world.shards {
            let mut message = Message::Rules(Arc::clone(rules));
            while let Err(back) = shard.mailbox.push(message) {
                message = back;
                sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

fn refusal(errors: &[ConfigError]) -> Vec<String> {
    for error in errors {
        tracing::warn!("{error}");
    }
    tracing::warn!(
        errors = errors.len(),
        "the settings file has errors: the settings before stay in effect"
    );
    let shown = errors.iter().take(ERRORS_SHOWN);
    let mut lines: Vec<String> = shown.map(|error| format!("config: {error}")).collect();
    let left = errors.len().saturating_sub(ERRORS_SHOWN);
    if left > 0 {
        lines.push(format!("config: and {left} errors more"));
    }
    lines.push("config: refused; the settings before are in effect".to_owned());
    lines
}

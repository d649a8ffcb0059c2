//! The files of the TLS doors, read again: when they have changed, and on SIGHUP.
//!
//! Run on the control thread. They are read every second and compared with what was read last, which sees every way to change them. Certificate and key are
//! two files, and are not written at once: a change is taken when it has stood still from one look to the next. Files that do not hold
//! change nothing, and are told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::base::clock;
use crate::metrics::{Counter, Gauge, Registry, ReloadResult};
use crate::tls::door::{DoorError, DoorText, TlsDoor};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// A certificate that ends so soon is told at start and when it is read.
const SOON_SECONDS: i64 = 14 * 86_400;

/// What watches them.
pub(super) struct Certificates {
    door: Arc<TlsDoor>,
    /// What was last tried.
    tried: Option<DoorText>,
    registry: Arc<Registry>,
}

impl Certificates {
    pub(super) fn new(
        door: Arc<TlsDoor>,
        text: DoorText,
        not_after: i64,
        registry: Arc<Registry>,
    ) -> Self {
        let this = Self {
            door,
            tried: Some(text),
            registry,
        };
        this.note(not_after);
        this
    }

    /// Runs until the process ends. `asked` is notified by SIGHUP.
    pub(super) async fn run(mut self, asked: Arc<Notify>) {
        let mut seen: Option<DoorText> = None;
        loop {
            let by_signal = timeout(LOOK, asked.notified()).await.is_ok();
            let door = Arc::clone(&self.door);
            let read = tokio::task::spawn_blocking(move || door.files().read()).await;
            let Ok(read) = read else { continue };
            let text = match read {
                Ok(text) => text,
                Err(error) => {
                    // Told once: nothing is known to have been tried then.
                    if self.tried.take().is_some() || by_signal {
                        self.refuse(&error);
                    }
                    continue;
                }
            };
            let still = seen.as_ref() == Some(&text);
            let changed = self.tried.as_ref() != Some(&text);
            if by_signal || (changed && still) {
                self.take(text.clone());
            }
            seen = Some(text);
        }
    }

    fn take(&mut self, text: DoorText) {
        match self.door.renew(&text) {
            Ok(not_after) => {
                let metrics = self.registry.global();
                metrics.count(Counter::TlsReloads(ReloadResult::Applied));
                metrics.gauge_set(Gauge::TlsRefused, 0);
                tracing::info!("the certificate of the TLS doors is read again");
                self.note(not_after);
            }
            Err(error) => self.refuse(&error),
        }
        self.tried = Some(text);
    }

    fn refuse(&self, error: &DoorError) {
        let metrics = self.registry.global();
        metrics.count(Counter::TlsReloads(ReloadResult::Refused));
        metrics.gauge_set(Gauge::TlsRefused, 1);
        tracing::warn!(%error, "the files of the TLS doors do not hold: those before stay in effect");
    }

    fn note(&self, not_after: i64) {
        let shown = u64::try_from(not_after).unwrap_or_default();
        let metrics = self.registry.global();
        metrics.gauge_set(Gauge::TlsNotAfter, shown);
        let left_seconds = not_after - clock::unix_seconds();
        if left_seconds < SOON_SECONDS {
            tracing::warn!(
                left_seconds,
                "the certificate of the TLS doors has ended, or ends soon"
            );
        }
    }
}

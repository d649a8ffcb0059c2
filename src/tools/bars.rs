//! Progress of long work, on standard error while that is a terminal.
//!
//! Called by the tools. Where nobody looks (a pipe, a file, cron) nothing is written and nothing is counted.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// How often a bar is drawn again though nothing has happened, so that it is seen to live.
const BEAT: Duration = Duration::from_millis(200);
/// How often it is drawn at most, a second.
const DRAWN_MAX: u8 = 10;

/// Makes bars.
pub(super) struct Bars {
    seen: bool,
}

impl Bars {
    /// Seen if standard error is a terminal.
    pub(super) fn new() -> Self {
        Self {
            seen: std::io::stderr().is_terminal(),
        }
    }

    /// A bar up to `length` of `what`; it is gone when it is dropped.
    pub(super) fn of(&self, what: &str, length: u64) -> ProgressBar {
        let template =
            "{spinner} {msg} {wide_bar} {human_pos} of {human_len}, {per_sec}, {eta} left";
        self.bar(what, length, template)
    }

    /// The same for bytes.
    pub(super) fn of_bytes(&self, what: &str, length: u64) -> ProgressBar {
        let template =
            "{spinner} {msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
        self.bar(what, length, template)
    }

    fn bar(&self, what: &str, length: u64, template: &str) -> ProgressBar {
        if !self.seen {
            return ProgressBar::hidden();
        }
        let target = ProgressDrawTarget::stderr_with_hz(DRAWN_MAX);
        let bar = ProgressBar::with_draw_target(Some(length), target)
            .with_finish(ProgressFinish::AndClear);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(BEAT);
        bar
    }
}

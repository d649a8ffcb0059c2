//! The bare loop of `perf bare`: not a peer but the ground that a small hit stands on.

use std::process::Command;

use super::{PeerError, Plan, Setup, failed, free_addr, version};
use crate::load::requests::Method;
use crate::scenario::State;

const NAME: &str = "bare";
/// Answers are made before, kept, and sent in one piece: so large is each, and so much all together.
const OBJECT_BYTES_MAX: u64 = 64 << 10;
const BYTES_MAX: u64 = 1 << 30;

pub(super) fn plan(setup: &Setup<'_>) -> Result<Plan, PeerError> {
    let (objects, load) = (&setup.scenario.objects, &setup.scenario.load);
    let all = objects.size.0 * u64::from(objects.count);
    let small = objects.size.0 <= OBJECT_BYTES_MAX && all <= BYTES_MAX;
    if !small || load.state != State::Warm || load.method == Method::Put || load.range.is_some() {
        return Err(PeerError::Unable {
            name: NAME.to_string(),
            reason: "only answers warm reads of small whole objects",
        });
    }
    let addr = free_addr(NAME)?;
    let binary = std::env::current_exe().map_err(failed(NAME))?;
    let mut command = Command::new(&binary);
    command.args(["bare", "--listen", &addr.to_string()]);
    command.args(["--objects", &objects.count.to_string()]);
    command.args(["--bytes", &objects.size.0.to_string()]);
    Ok(Plan {
        command,
        version: version(&binary, "--version"),
        config: String::new(),
        addr,
    })
}

//! What every end-to-end test stands on: real processes on free ports, a raw HTTP
//! client that sends exactly the bytes it is told, a scriptable origin, and waiting
//! by condition. Nothing here knows a promise; the topic files do.

pub mod client;
pub mod conditions;
pub mod data;
pub mod far;
pub mod faultfs;
pub mod metrics;
pub mod millrace;
pub mod queries;
pub mod s3s;
pub mod sign;
pub mod store;
pub mod stub;
pub mod teller;
pub mod tls_client;
pub mod wire;

pub use client::{Ask, Broken, Connection, Response, fetch};
pub use data::{Tile, sha256_hex};
pub use millrace::Millrace;
pub use store::Store;
pub use stub::Stub;
pub use teller::{Teller, date_in};

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// How long a test waits for what must come soon on a loaded machine of two cores.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An address nobody else has: the loopback network has one for each process id, and
/// within the process a counter hands out ports, so no port is probed and lost again.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(port < 32_000, "ports run into the ephemeral range");
    let [_, a, b, c] = std::process::id().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 64 | (a & 0x3f), b, c), port))
}

/// Waits until `condition` gives a value; panics with `what` after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}

//! Exchanges over real sockets on loopback: an [`Upstream`] on a shard's runtime against small scripted origins.
//!
//! Each test runs in a runtime of its own and ends with every connection accounted for: none in use, and none at all
//! after the idle ones are closed.

mod body;
mod detach;
mod elsewhere;
mod exchange;
mod health;
mod origin;
mod tls;
mod upload;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::base::clock::now_ms;
use crate::http::{HeadLimits, Method};
use crate::io::runtime::ShardRuntime;
use crate::io::watchdog::{SWEEP_MS, Watchdog};
use crate::io::{sleep_ms, spawn};
use crate::metrics::HedgeResult;

use super::exchange::{Asked, Patience};
use super::{
    Endpoint, Response, TlsConfig, TlsRoots, Upstream, UpstreamConfig, UpstreamError,
    UpstreamEvents,
};

const GET: &[u8] = b"GET /b/k HTTP/1.1\r\nHost: origin.test\r\n\r\n";

/// What the metrics would have been told.
#[derive(Default)]
struct Counts {
    opened: Cell<u32>,
    full_handshakes: Cell<u32>,
    resumed: Cell<u32>,
    reused: Cell<u32>,
    stale: Cell<u32>,
    requested: Cell<u32>,
    failed: RefCell<Vec<String>>,
    retried: Cell<u32>,
    hedged: RefCell<Vec<HedgeResult>>,
    rested: Cell<u32>,
    recovered: Cell<u32>,
    /// Shared with origins that wait until the client has what they sent.
    received: Arc<AtomicUsize>,
}

fn bump(cell: &Cell<u32>) {
    cell.set(cell.get() + 1);
}

impl UpstreamEvents for Counts {
    fn opened(&self, _took_ns: u64) {
        bump(&self.opened);
    }
    fn handshaken(&self, resumed: bool) {
        bump(if resumed {
            &self.resumed
        } else {
            &self.full_handshakes
        });
    }
    fn reused(&self) {
        bump(&self.reused);
    }
    fn stale(&self) {
        bump(&self.stale);
    }
    fn requested(&self) {
        bump(&self.requested);
    }
    fn failed(&self, error: &UpstreamError) {
        self.failed.borrow_mut().push(error.to_string());
    }
    fn retried(&self) {
        bump(&self.retried);
    }
    fn hedged(&self, result: HedgeResult) {
        self.hedged.borrow_mut().push(result);
    }
    fn rested(&self, _address: SocketAddr, _error: &UpstreamError) {
        bump(&self.rested);
    }
    fn recovered(&self, _address: SocketAddr) {
        bump(&self.recovered);
    }
    fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes, Ordering::SeqCst);
    }
}

/// One shard with its upstream.
struct Shard {
    upstream: Rc<Upstream>,
    counts: Rc<Counts>,
}

fn config() -> UpstreamConfig {
    UpstreamConfig {
        connect_timeout_ms: 2_000,
        first_byte_timeout_ms: 2_000,
        idle_timeout_ms: 2_000,
        head_limits: HeadLimits {
            head_bytes_max: 32 * 1024,
            headers_max: 100,
        },
        ..UpstreamConfig::default()
    }
}

fn no_tls() -> Arc<TlsConfig> {
    TlsConfig::new(&TlsRoots::System).expect("roots")
}

/// Runs `test` on a shard, which must have no connection in use at its end.
fn on_shard(config: UpstreamConfig, tls: Arc<TlsConfig>, test: impl AsyncFnOnce(&Shard)) {
    let mut runtime = ShardRuntime::new().expect("a ring");
    runtime.block_on(async move {
        let watchdog = Watchdog::new();
        let counts = Rc::new(Counts::default());
        let upstream = Upstream::new(
            Arc::new(config),
            tls,
            Rc::clone(&watchdog),
            Rc::new(|_| {}),
            Rc::clone(&counts) as Rc<dyn UpstreamEvents>,
        );
        spawn(async move {
            loop {
                sleep_ms(SWEEP_MS).await;
                watchdog.sweep(now_ms());
            }
        });
        let shard = Shard { upstream, counts };
        test(&shard).await;
        let upstream = &shard.upstream;
        until(|| upstream.connections() == upstream.connections_idle()).await;
        upstream.close_idle();
        assert_eq!(
            (upstream.connections(), upstream.connections_idle()),
            (0, 0)
        );
    });
}

fn run(test: impl AsyncFnOnce(&Shard)) {
    on_shard(config(), no_tls(), test);
}

/// Waits for a condition, not for a time.
async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if condition() {
            return;
        }
        sleep_ms(2).await;
    }
    panic!("the condition has not come true");
}

impl Upstream {
    /// Asks one place, as long as the settings say.
    async fn fetch(
        self: &Rc<Self>,
        endpoint: &Arc<Endpoint>,
        request: &[u8],
        method: Method,
    ) -> Result<Response, UpstreamError> {
        let asked = Asked {
            request,
            method,
            interim: None,
        };
        self.ask_hedged(endpoint, asked, Patience::Full, 0).await
    }
}

impl Shard {
    async fn get(&self, address: SocketAddr) -> Result<Response, UpstreamError> {
        self.fetch(&at(address)).await
    }

    async fn fetch(&self, endpoint: &Arc<Endpoint>) -> Result<Response, UpstreamError> {
        self.upstream.fetch(endpoint, GET, Method::Get).await
    }

    /// A name with these addresses.
    async fn named(&self, port: u16, addresses: &[[u8; 4]]) -> Arc<Endpoint> {
        let endpoint = Endpoint::new(false, "origin.test", port);
        let upstream = Rc::clone(&self.upstream);
        let found: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::from).collect();
        spawn(async move { upstream.on_resolved("origin.test", Ok(&found)) });
        self.upstream
            .names
            .resolved(&endpoint, 1_000)
            .await
            .expect("resolved");
        endpoint
    }
}

fn at(address: SocketAddr) -> Arc<Endpoint> {
    Endpoint::new(false, &address.ip().to_string(), address.port())
}

/// Reads a body to its end, `room` bytes at a time.
async fn read_all(response: &mut Response, room: usize) -> Result<Vec<u8>, UpstreamError> {
    let mut body = Vec::new();
    let mut out = vec![0; room];
    loop {
        match response.read(&mut out).await? {
            0 => return Ok(body),
            bytes => body.extend_from_slice(&out[..bytes]),
        }
    }
}

/// Bytes in which every place is told from every other nearby.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at ^ (at >> 8) ^ (at >> 16)) as u8)
        .collect()
}

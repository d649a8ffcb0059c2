//! The admin door: metrics and health over HTTP, on an address of its own.
//!
//! Run by the server on the control thread ([`serve`]). Invariants: a GET only reads, and a purge is the one thing that changes what the
//! data plane has; it is never on the way of a client's request; connections and the time they take are bounded
//! ([`Limits`]). Who may reach the address is left to the operator (default: loopback).

mod door;
mod health;
mod process;
mod purge;

use std::future::IntoFuture;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::metrics::{self, Registry};

pub use health::{Readiness, State};
pub use purge::Purger;

use door::Door;
use health::{Liveness, Report};

/// Bounds of the admin door.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once; the next ones wait to be accepted.
    pub connections_max: usize,
    /// How long a connection may take for a request head, stay idle, or take nothing of a response.
    pub patience: Duration,
    /// How often the heartbeats are looked at.
    pub beat_check: Duration,
    /// A shard is stalled when so many checks in a row saw its heartbeat unmoved.
    pub beat_checks_unmoved_max: u32,
    /// How long answers under way are waited for at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            patience: Duration::from_secs(10),
            beat_check: Duration::from_secs(1),
            beat_checks_unmoved_max: 5,
            drain: Duration::from_secs(1),
        }
    }
}

/// What the endpoints show.
#[derive(Debug)]
pub struct AdminState {
    readiness: Arc<Readiness>,
    registry: Arc<Registry>,
    liveness: Liveness,
    limits: Limits,
    purger: Option<Purger>,
}

impl AdminState {
    /// `heartbeats` has one number for each shard; the shard changes it at least once a second while it lives.
    pub fn new(
        readiness: Arc<Readiness>,
        registry: Arc<Registry>,
        heartbeats: Vec<Arc<AtomicU64>>,
        limits: Limits,
    ) -> Self {
        let liveness = Liveness::new(heartbeats, limits.beat_checks_unmoved_max);
        Self {
            readiness,
            registry,
            liveness,
            limits,
            purger: None,
        }
    }

    /// The same, and purges.
    #[must_use]
    pub fn with_purger(mut self, purger: Purger) -> Self {
        self.purger = Some(purger);
        self
    }
}

/// Serves the admin endpoints on `listener` until `shutdown` is ready. To be run on the control thread's runtime, with
/// I/O and time enabled. Fails when the listener cannot be used; a connection's failure ends that connection alone.
pub async fn serve(
    listener: std::net::TcpListener,
    state: Arc<AdminState>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let limits = state.limits;
    let door = Door::new(
        TcpListener::from_std(listener)?,
        limits.connections_max,
        limits.patience,
    );
    let (stop, stopped) = oneshot::channel::<()>();
    let until_stopped = async move {
        let _sent_or_dropped = stopped.await;
    };
    let server =
        axum::serve(door, routes(Arc::clone(&state))).with_graceful_shutdown(until_stopped);
    let mut server = pin!(server.into_future());
    tokio::select! {
        result = &mut server => return result,
        () = watch(&state) => {}
        () = shutdown => {}
    }
    drop(stop);
    // Who is still reading after the drain time is cut: nothing here is worth holding the process up.
    timeout(limits.drain, server).await.unwrap_or(Ok(()))
}

/// Looks at the heartbeats for ever.
async fn watch(state: &AdminState) {
    let mut checks = interval(state.limits.beat_check);
    // A control thread that was held up does not check twice in a row: the shards had no time to move in between.
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        checks.tick().await;
        state.liveness.check();
    }
}

fn routes(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/livez", get(show_liveness))
        .route("/readyz", get(show_readiness))
        .route("/purge", post(purge))
        .fallback(async || {
            let paths = "/metrics\n/livez\n/readyz\n/purge (POST)\n";
            (StatusCode::NOT_FOUND, paths)
        })
        .with_state(state)
}

async fn show_metrics(Shared(state): Shared<Arc<AdminState>>) -> Response {
    process::observe(state.registry.global());
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        state.registry.render(),
    )
        .into_response()
}

async fn purge(
    Shared(state): Shared<Arc<AdminState>>,
    uri: Uri,
    headers: HeaderMap,
) -> (StatusCode, String) {
    match &state.purger {
        Some(purger) => purger.answer(&uri, &headers).await,
        None => (StatusCode::NOT_FOUND, "nothing is cached here\n".to_owned()),
    }
}

async fn show_liveness(Shared(state): Shared<Arc<AdminState>>) -> Response {
    answer(Report::live(&state.liveness))
}

async fn show_readiness(Shared(state): Shared<Arc<AdminState>>) -> Response {
    answer(Report::ready(&state.readiness, &state.liveness))
}

fn answer(report: Report) -> Response {
    let status = if report.good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [(header::CACHE_CONTROL, "no-store")], report.text).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::atomic::Ordering;
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::thread;

    use super::*;
    use crate::base::clock;
    use crate::metrics::{Counter, Method, Outcome};

    const SOON: Duration = Duration::from_secs(10);

    /// An admin door on loopback, on a thread of its own, shut down when dropped.
    struct Admin {
        address: SocketAddr,
        readiness: Arc<Readiness>,
        registry: Arc<Registry>,
        heartbeats: Vec<Arc<AtomicU64>>,
        stop: Option<oneshot::Sender<()>>,
        thread: Option<thread::JoinHandle<io::Result<()>>>,
    }

    impl Admin {
        fn start(limits: Limits) -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            let (readiness, registry) = (Arc::new(Readiness::default()), Registry::new(2));
            let heartbeats: Vec<Arc<AtomicU64>> = (0..2).map(|_| Arc::default()).collect();
            let state = AdminState::new(
                Arc::clone(&readiness),
                Arc::clone(&registry),
                heartbeats.clone(),
                limits,
            );
            let (stop, stopped) = oneshot::channel::<()>();
            let thread = thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                let shutdown = async {
                    let _sent_or_dropped = stopped.await;
                };
                runtime.block_on(serve(listener, Arc::new(state), shutdown))
            });
            Self {
                address,
                readiness,
                registry,
                heartbeats,
                stop: Some(stop),
                thread: Some(thread),
            }
        }

        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(self.address).expect("connected");
            stream.set_read_timeout(Some(SOON)).expect("a timeout");
            stream
        }

        /// The whole response to a request after which the connection is closed.
        fn ask(&self, method: &str, path: &str) -> String {
            let mut stream = self.connect();
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("sent");
            let mut response = String::new();
            stream.read_to_string(&mut response).expect("received");
            response
        }

        fn until(&self, path: &str, status: &str) -> String {
            let deadline_ms = clock::now_ms() + SOON.as_millis() as u64;
            loop {
                let response = self.ask("GET", path);
                if response.starts_with(&format!("HTTP/1.1 {status} ")) {
                    return response;
                }
                assert!(
                    clock::now_ms() < deadline_ms,
                    "{path} never answered {status}: {response}"
                );
            }
        }

        fn stop(&mut self) -> io::Result<()> {
            drop(self.stop.take());
            self.thread
                .take()
                .map_or(Ok(()), |thread| thread.join().expect("no panic"))
        }
    }

    impl Drop for Admin {
        fn drop(&mut self) {
            self.stop().expect("served to its end");
        }
    }

    #[test]
    fn metrics_are_openmetrics_text() {
        let admin = Admin::start(Limits::default());
        admin
            .registry
            .shard(1)
            .count(Counter::Requests(Method::Get, Outcome::Hit));
        let response = admin.ask("GET", "/metrics");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        ));
        let hits = "millrace_requests_total{shard=\"1\",method=\"get\",result=\"hit\"} 1\n";
        assert!(response.contains(hits), "{response}");
        assert!(!response.contains("millrace_process_open_descriptors 0\n"));
        assert!(response.ends_with("# EOF\n"));
    }

    #[test]
    fn readyz_is_200_only_while_the_doors_are_open() {
        let admin = Admin::start(Limits::default());
        let starting = admin.ask("GET", "/readyz");
        assert!(
            starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("\r\n\r\nstarting\n"),
            "{starting}"
        );
        admin.readiness.set(State::Ready);
        let ready = admin.ask("GET", "/readyz");
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready\n"),
            "{ready}"
        );
        admin.readiness.set(State::Draining);
        let draining = admin.ask("GET", "/readyz");
        assert!(
            draining.starts_with("HTTP/1.1 503 ") && draining.ends_with("\r\n\r\ndraining\n"),
            "{draining}"
        );
    }

    #[test]
    fn livez_names_a_shard_that_stands_still() {
        let limits = Limits {
            beat_check: Duration::from_millis(20),
            ..Limits::default()
        };
        let admin = Admin::start(limits);
        let stalled = admin.until("/livez", "503");
        assert!(
            stalled.contains("shard 0: no heartbeat\nshard 1: no heartbeat\n"),
            "{stalled}"
        );
        let beating = Arc::clone(&admin.heartbeats[0]);
        let (stop, stopped) = mpsc::channel::<()>();
        let beat = thread::spawn(move || {
            let tick = Duration::from_millis(1);
            while stopped.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                beating.fetch_add(1, Ordering::Relaxed);
            }
        });
        let deadline_ms = clock::now_ms() + SOON.as_millis() as u64;
        while admin.ask("GET", "/livez").contains("shard 0") {
            assert!(clock::now_ms() < deadline_ms, "shard 0 beats");
        }
        assert!(
            admin
                .ask("GET", "/livez")
                .contains("shard 1: no heartbeat\n")
        );
        drop(stop);
        beat.join().expect("no panic");
    }

    #[test]
    fn livez_is_200_while_no_check_was_missed() {
        let admin = Admin::start(Limits::default());
        assert!(admin.ask("GET", "/livez").ends_with("\r\n\r\nlive\n"));
    }

    #[test]
    fn other_methods_are_405_with_allow_and_other_paths_404() {
        let admin = Admin::start(Limits::default());
        for path in ["/metrics", "/livez", "/readyz"] {
            let response = admin.ask("POST", path).to_ascii_lowercase();
            assert!(response.starts_with("http/1.1 405 "), "{response}");
            assert!(response.contains("\r\nallow: get,head\r\n"), "{response}");
        }
        for path in ["/", "/metrics/", "/bucket/key"] {
            assert!(
                admin.ask("GET", path).starts_with("HTTP/1.1 404 "),
                "{path}"
            );
        }
        let head = admin.ask("HEAD", "/metrics");
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
    }

    #[test]
    fn a_head_that_is_dripped_is_cut() {
        let limits = Limits {
            patience: Duration::from_millis(200),
            ..Limits::default()
        };
        let admin = Admin::start(limits);
        let mut stream = admin.connect();
        let mut dripping = stream.try_clone().expect("a second handle");
        let drip = thread::spawn(move || {
            while dripping.write_all(b"G").is_ok() {
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        let mut response = Vec::new();
        let ended = stream.read_to_end(&mut response);
        assert!(ended.is_ok_and(|read| read == 0) || response.is_empty());
        drip.join().expect("the connection is gone");
    }

    #[test]
    fn connections_beyond_the_limit_wait_until_one_ends() {
        let limits = Limits {
            connections_max: 2,
            patience: Duration::from_millis(300),
            ..Limits::default()
        };
        let admin = Admin::start(limits);
        let _silent = [admin.connect(), admin.connect()];
        assert!(admin.ask("GET", "/livez").starts_with("HTTP/1.1 200 "));
    }

    #[test]
    fn a_connection_serves_several_requests() {
        let admin = Admin::start(Limits::default());
        let mut stream = admin.connect();
        for _ in 0..3 {
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: admin\r\n\r\n")
                .expect("sent");
            let mut response = Vec::new();
            while !response.ends_with(b"\r\n\r\nlive\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("received");
                response.push(byte[0]);
            }
        }
    }

    #[test]
    fn shutdown_waits_for_nobody_who_says_nothing() {
        let mut admin = Admin::start(Limits::default());
        let mut silent = admin.connect();
        silent.write_all(b"GET /livez HTTP/1.1\r\n").expect("sent");
        admin.until("/livez", "200");
        let start_ms = clock::now_ms();
        admin.stop().expect("served to its end");
        assert!(clock::now_ms() - start_ms < 5_000);
    }
}

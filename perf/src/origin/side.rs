//! The side port of an origin: counters, log, faults and objects as JSON over a second address.
//!
//! Started by both origins when asked for a `--stats` address. It answers from memory and never touches the port
//! that is being measured. Invariant: requests are small and answered at once, so one body bound is enough. What
//! the routes mean is the [`Side`] implementation's.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::task::JoinSet;

use super::stats::Stats;
use crate::net;

/// The largest body that may be posted.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A JSON answer.
#[derive(Debug, Clone)]
pub struct SideAnswer {
    /// HTTP status.
    pub status: u16,
    /// The JSON text.
    pub json: String,
}

impl SideAnswer {
    /// 200 with this value.
    pub fn ok(value: &impl Serialize) -> Self {
        SideAnswer {
            status: 200,
            json: serde_json::to_string(value).expect("plain data serialises"),
        }
    }

    /// An error with a sentence.
    pub fn error(status: u16, sentence: &str) -> Self {
        SideAnswer {
            status,
            json: serde_json::json!({ "error": sentence }).to_string(),
        }
    }
}

/// What answers on the side port beyond the routes every origin has.
pub trait Side: Send + Sync + 'static {
    /// The origin's counters.
    fn stats(&self) -> &Arc<Stats>;

    /// Other routes; `None` is 404.
    fn route(&self, method: &str, path: &str, body: &[u8]) -> Option<SideAnswer>;
}

/// Binds `addr` and serves until the returned set is dropped.
pub fn serve(addr: SocketAddr, side: Arc<dyn Side>) -> io::Result<(SocketAddr, JoinSet<()>)> {
    let listener = net::listen(addr)?;
    let bound = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => {
                        tokio::time::sleep(super::ACCEPT_RETRY).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            let side = Arc::clone(&side);
            connections.spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&side), request));
                // A client of the side port that leaves early is not an event.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok((bound, tasks))
}

async fn answer(
    side: Arc<dyn Side>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let method = request.method().as_str().to_string();
    let path = request.uri().path().to_string();
    let answer = match Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
    {
        Ok(body) => route(side.as_ref(), &method, &path, &body.to_bytes()),
        Err(error) => SideAnswer::error(400, &format!("the body could not be read: {error}")),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.json)));
    *response.status_mut() =
        hyper::StatusCode::from_u16(answer.status).expect("statuses are our own constants");
    response.headers_mut().insert(
        "content-type",
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

fn route(side: &dyn Side, method: &str, path: &str, body: &[u8]) -> SideAnswer {
    match (method, path) {
        ("GET", "/stats") => SideAnswer::ok(&side.stats().snapshot()),
        ("GET", "/log") => SideAnswer::ok(&side.stats().log()),
        ("POST", "/reset") => {
            side.stats().reset();
            SideAnswer::ok(&serde_json::json!({}))
        }
        _ => side
            .route(method, path, body)
            .unwrap_or_else(|| SideAnswer::error(404, &format!("no route {method} {path}"))),
    }
}

//! The embedded S3 server: `s3s-fs` behind hyper, with counters around it.
//!
//! Run by `perf s3s` as a process, started in-process by the demo. Signatures (header and presigned) are verified
//! against one access key. Invariant: what is counted is what hyper took from the answer's body. Writes with a condition are done one after
//! the other, since `s3s-fs` looks first and writes then. It ignores `If-Match` of reads, has no versions and answers several ranges with 400.
//! Left to others: reading bodies fast (`files`), faults (the other origin).

mod files;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::host::MultiDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use self::files::Files;
use super::side::{self, Side, SideAnswer};
use super::stats::{LogEntry, RequestRecord, Snapshot, Stats};
use super::tls::{TlsError, acceptor};
use crate::net;

/// How to start it.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder of the buckets; must exist.
    pub root: PathBuf,
    /// Where it serves; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its side port is, if any.
    pub stats: Option<SocketAddr>,
    /// The one access key it knows.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Suffixes of virtual-hosted names.
    pub domains: Vec<String>,
    /// PEM files of the certificate chain and its key, to serve TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// Why it did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("binding: {0}")]
    Bind(#[from] io::Error),
    /// The folder cannot be used.
    #[error("the folder {root}: {reason}")]
    Root {
        /// As configured.
        root: PathBuf,
        /// What the server says.
        reason: String,
    },
    /// A domain that is none.
    #[error("domains: {0}")]
    Domains(String),
    /// A certificate or key that cannot be used.
    #[error("{0}")]
    Tls(#[from] TlsError),
}

/// A running server; dropped, it closes its port and every connection.
#[derive(Debug)]
pub struct S3sOrigin {
    /// Where it serves.
    pub addr: SocketAddr,
    /// Its side port.
    pub stats_addr: Option<SocketAddr>,
    stats: Arc<Stats>,
    tasks: JoinSet<()>,
    _side: Option<JoinSet<()>>,
}

struct Counters(Arc<Stats>);

impl Side for Counters {
    fn stats(&self) -> &Arc<Stats> {
        &self.0
    }

    fn route(&self, _method: &str, _path: &str, _body: &[u8]) -> Option<SideAnswer> {
        None
    }
}

impl S3sOrigin {
    /// Binds and serves on the current tokio runtime.
    pub fn start(config: Config) -> Result<S3sOrigin, StartError> {
        let service = service(&config)?;
        let tls = config.tls.as_ref();
        let tls = tls.map(|(cert, key)| acceptor(cert, key)).transpose()?;
        let listener = net::listen(config.listen)?;
        let addr = listener.local_addr()?;
        let stats = Arc::new(Stats::default());
        let side = match config.stats {
            Some(addr) => Some(side::serve(addr, Arc::new(Counters(Arc::clone(&stats))))?),
            None => None,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, service, Arc::clone(&stats)));
        let (stats_addr, side) = side.unzip();
        Ok(S3sOrigin {
            addr,
            stats_addr,
            stats,
            tasks,
            _side: side,
        })
    }

    /// Serves until the process ends.
    pub async fn wait(mut self) {
        self.tasks.join_next().await;
    }

    /// The counters now.
    pub fn stats(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// The requests since the last reset.
    pub fn log(&self) -> Vec<LogEntry> {
        self.stats.log()
    }

    /// Counters to zero, log empty.
    pub fn reset(&self) {
        self.stats.reset();
    }
}

fn service(config: &Config) -> Result<S3Service, StartError> {
    let files = Files::new(&config.root).map_err(|error| StartError::Root {
        root: config.root.clone(),
        reason: format!("{error:?}"),
    })?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(
        config.access_key.clone(),
        config.secret_key.clone(),
    ));
    if !config.domains.is_empty() {
        let domains = MultiDomain::new(&config.domains)
            .map_err(|error| StartError::Domains(error.to_string()))?;
        builder.set_host(domains);
    }
    Ok(builder.build())
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: S3Service,
    stats: Arc<Stats>,
) {
    let mut connections = JoinSet::new();
    let turn = Arc::new(Mutex::new(()));
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
        let _ = stream.set_nodelay(true);
        let (service, stats) = (service.clone(), Arc::clone(&stats));
        let turn = Arc::clone(&turn);
        let tls = tls.clone();
        connections.spawn(async move {
            match tls {
                None => serve(stream, service, stats, turn).await,
                // A handshake that fails is the client's own affair too.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, service, stats, turn).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, service: S3Service, stats: Arc<Stats>, turn: Arc<Mutex<()>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guard = stats.connection();
    let number = guard.number();
    let counted = service_fn(|request: Request<Incoming>| {
        let record = Arc::new(stats.request(
            request.uri().path().trim_start_matches('/'),
            entry(&request, number),
        ));
        let body = Arc::clone(&record);
        let request = request.map(|inner| {
            s3s::Body::http_body_unsync(Counted {
                inner,
                record: body,
                sent: false,
            })
        });
        let service = service.clone();
        let turn = has_condition(&request).then(|| Arc::clone(&turn));
        async move {
            let _turn = match &turn {
                Some(turn) => Some(turn.lock().await),
                None => None,
            };
            let response = service.call(request).await?;
            record.edit(|entry| entry.status = response.status().as_u16());
            let response: Response<Counted<s3s::Body>> = response.map(|inner| Counted {
                inner,
                record: Arc::clone(&record),
                sent: true,
            });
            Ok::<_, s3s::HttpError>(response)
        }
    });
    // How a client leaves is its own affair; what was sent is counted.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), counted)
        .await;
}

/// Whether it writes only what is, or is not, there.
fn has_condition<B>(request: &Request<B>) -> bool {
    let names = ["if-match", "if-none-match"];
    request.method() == hyper::Method::PUT
        && names
            .iter()
            .any(|name| request.headers().contains_key(*name))
}

fn entry(request: &Request<Incoming>, connection: u64) -> LogEntry {
    let text =
        |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let header = |name: &str| request.headers().get(name).map(text);
    LogEntry {
        connection,
        method: request.method().to_string(),
        target: request.uri().to_string(),
        host: header("host"),
        range: header("range"),
        if_match: header("if-match"),
        headers_count: request.headers().len(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        ..LogEntry::default()
    }
}

/// A body whose bytes are counted as they pass.
struct Counted<B> {
    inner: B,
    record: Arc<RequestRecord>,
    sent: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match self.sent {
                true => self.record.sent(data.len() as u64),
                false => self.record.received(data.len() as u64),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

//! What is to be said of a request when it is over: metrics and one line of the access log.
//!
//! Called by every step (notes what happened) and by `mod` (finish, once per request).

use crate::access_log::Record;
use crate::base::clock;
use crate::http::RequestHead;
use crate::metrics::{self, Counter, Gauge, Histogram, Outcome, SendPath, Source, StatusClass};
use crate::s3::Target;
use crate::shard::Shard;

/// The notes of one request.
pub struct Report {
    id: [u8; 16],
    started_ns: u64,
    first_byte_ns: Option<u64>,
    /// How it was answered.
    pub outcome: Outcome,
    /// The status sent; 0 while none was.
    pub status: u16,
    /// Body bytes sent.
    pub bytes_sent: u64,
    /// The origin's status, when it was asked.
    pub origin_status: Option<u16>,
    /// What failed, in our own words.
    pub error: Option<&'static str>,
    /// The S3 operation's name.
    pub operation: &'static str,
}

impl Report {
    /// A new request on `shard`.
    #[must_use]
    pub fn begin(shard: &Shard) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let number = shard.prng.next_u64();
        shard.metrics().gauge_add(Gauge::RequestsInFlight, 1);
        Self {
            id: std::array::from_fn(|at| DIGITS[(number >> (60 - at * 4)) as usize & 15]),
            started_ns: clock::now_ns(),
            first_byte_ns: None,
            outcome: Outcome::Error,
            status: 0,
            bytes_sent: 0,
            origin_status: None,
            error: None,
            operation: "",
        }
    }

    /// The request id that the response carries.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// A response head goes out.
    pub fn head_sent(&mut self, status: u16) {
        self.status = status;
        self.first_byte_ns = Some(clock::now_ns());
    }

    /// Body bytes went out.
    pub fn sent(&mut self, shard: &Shard, source: Source, path: Option<SendPath>, bytes: u64) {
        self.bytes_sent += bytes;
        shard.metrics().add(Counter::SentBytes(source), bytes);
        if let Some(path) = path {
            shard.metrics().add(Counter::SentBytesBy(path), bytes);
        }
    }

    /// The request is over.
    pub fn finish(
        &self,
        shard: &Shard,
        request: Option<(&RequestHead<'_>, Option<&Target<'_>>)>,
        client: std::net::SocketAddr,
    ) {
        let metrics = shard.metrics();
        let now_ns = clock::now_ns();
        metrics.gauge_add(Gauge::RequestsInFlight, -1);
        let method = request.map_or(metrics::Method::Other, |(head, _)| {
            metrics::Method::of(head.method_raw.as_bytes())
        });
        metrics.count(Counter::Requests(method, self.outcome));
        if self.status != 0 {
            metrics.count(Counter::Responses(StatusClass::of(self.status)));
        }
        metrics.observe(
            Histogram::RequestDuration(self.outcome),
            now_ns - self.started_ns,
        );
        metrics.observe(Histogram::ResponseBytes(self.outcome), self.bytes_sent);
        if let Some(first_ns) = self.first_byte_ns {
            metrics.observe(
                Histogram::RequestFirstByte(self.outcome),
                first_ns.saturating_sub(self.started_ns),
            );
        }
        if shard.logs {
            self.log(shard, request, client, now_ns);
        }
    }

    fn log(
        &self,
        shard: &Shard,
        request: Option<(&RequestHead<'_>, Option<&Target<'_>>)>,
        client: std::net::SocketAddr,
        now_ns: u64,
    ) {
        let duration_ns = now_ns - self.started_ns;
        let head = request.map(|(head, _)| head);
        let target = request.and_then(|(_, target)| target);
        let host = head
            .and_then(|head| head.authority.or(head.host))
            .unwrap_or_default();
        let object = target.and_then(Target::object_key);
        let bucket = target.and_then(Target::bucket);
        shard.log.borrow_mut().record(&Record {
            time_unix_ms: clock::unix_ms().saturating_sub(duration_ns / 1_000_000),
            client,
            method: head.map_or(b"", |head| head.method_raw.as_bytes()),
            host: host.as_bytes(),
            bucket: bucket.unwrap_or_default(),
            key: object.map(|object| object.key()).unwrap_or_default(),
            status: self.status,
            bytes_sent: self.bytes_sent,
            range: head
                .and_then(|head| head.headers.find("range"))
                .unwrap_or_default(),
            result: self.outcome,
            origin_status: self.origin_status,
            duration_us: duration_ns / 1000,
            first_byte_us: self
                .first_byte_ns
                .map(|at| at.saturating_sub(self.started_ns) / 1000),
            request_id: &self.id,
            operation: self.operation,
            user_agent: head
                .and_then(|head| head.headers.find("user-agent"))
                .unwrap_or_default(),
            error: self.error,
        });
    }
}

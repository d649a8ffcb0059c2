//! What is to be said of a request when it is over: metrics and one line of the access log.
//!
//! Called by every step (notes what happened) and by `mod` (finish, once per request).

use crate::access_log::Record;
use crate::base::clock::Moment;
use crate::http::RequestHead;
use crate::metrics::{self, Counter, Gauge, Histogram, Outcome, SendPath, Source, StatusClass};
use crate::s3::Target;
use crate::shard::Shard;

use super::client::Peer;

/// When the first byte of the response head was given to the kernel.
#[derive(Clone, Copy)]
enum FirstByte {
    Never,
    At(Moment),
    /// With the last one.
    AtTheEnd,
}

/// The notes of one request.
pub struct Report {
    id: [u8; 16],
    started: Moment,
    first_byte: FirstByte,
    /// How it was answered.
    pub outcome: Outcome,
    /// The status sent; 0 while none was.
    pub status: u16,
    /// Body bytes sent.
    pub bytes_sent: u64,
    /// The origin's status, when it was asked.
    pub origin_status: Option<u16>,
    /// Whether what was said came from a fallback.
    pub by_fallback: bool,
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
            started: Moment::now(),
            first_byte: FirstByte::Never,
            outcome: Outcome::Error,
            status: 0,
            bytes_sent: 0,
            origin_status: None,
            by_fallback: false,
            error: None,
            operation: "",
        }
    }

    /// The request id that the response carries.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// When the request's head was whole.
    #[must_use]
    pub fn started(&self) -> Moment {
        self.started
    }

    /// A response head goes out.
    pub fn head_sent(&mut self, status: u16) {
        self.status = status;
        self.first_byte = FirstByte::At(Moment::now());
    }

    /// A whole response went out in one call: the clock is read once, when the request is over.
    pub fn sent_at_once(&mut self, status: u16) {
        self.status = status;
        self.first_byte = FirstByte::AtTheEnd;
    }

    /// Body bytes went out.
    pub fn sent(&mut self, shard: &Shard, source: Source, path: Option<SendPath>, bytes: u64) {
        self.bytes_sent += bytes;
        shard.metrics().add(Counter::SentBytes(source), bytes);
        if let Some(path) = path {
            shard.metrics().add(Counter::SentBytesBy(path), bytes);
        }
    }

    /// The request is over; says when.
    pub fn finish(
        &self,
        shard: &Shard,
        request: Option<(&RequestHead<'_>, Option<&Target<'_>>)>,
        client: Peer,
    ) -> Moment {
        let ended = self.finish_quietly(shard, request.map(|(head, _)| head));
        if shard.logs {
            self.log(shard, request, client, ended);
        }
        ended
    }

    /// The request is over, and something else has its line in the log; says when.
    pub fn finish_quietly(&self, shard: &Shard, head: Option<&RequestHead<'_>>) -> Moment {
        let metrics = shard.metrics();
        let ended = Moment::now();
        metrics.gauge_add(Gauge::RequestsInFlight, -1);
        let method = head.map_or(metrics::Method::Other, |head| {
            metrics::Method::of(head.method_raw.as_bytes())
        });
        metrics.count(Counter::Requests(method, self.outcome));
        if self.status != 0 {
            metrics.count(Counter::Responses(StatusClass::of(self.status)));
        }
        metrics.observe(
            Histogram::RequestDuration(self.outcome),
            ended.since_ns(self.started),
        );
        metrics.observe(Histogram::ResponseBytes(self.outcome), self.bytes_sent);
        let first_ns = self.first_byte_ns(ended);
        if let Some(first_ns) = first_ns {
            metrics.observe(Histogram::RequestFirstByte(self.outcome), first_ns);
        }
        ended
    }

    fn first_byte_ns(&self, ended: Moment) -> Option<u64> {
        match self.first_byte {
            FirstByte::Never => None,
            FirstByte::At(first) => Some(first.since_ns(self.started)),
            FirstByte::AtTheEnd => Some(ended.since_ns(self.started)),
        }
    }

    fn log(
        &self,
        shard: &Shard,
        request: Option<(&RequestHead<'_>, Option<&Target<'_>>)>,
        client: Peer,
        ended: Moment,
    ) {
        let duration_ns = ended.since_ns(self.started);
        let head = request.map(|(head, _)| head);
        let target = request.and_then(|(_, target)| target);
        let host = head
            .and_then(|head| head.authority.or(head.host))
            .unwrap_or_default();
        let object = target.and_then(Target::object_key);
        let bucket = target.and_then(Target::bucket);
        shard.log.borrow_mut().record(&Record {
            time_unix_ms: shard.wall().unix_ms(self.started),
            client: client.address,
            door: client.door,
            tls: client.tls,
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
            by_fallback: self.by_fallback,
            duration_us: duration_ns / 1000,
            first_byte_us: self.first_byte_ns(ended).map(|ns| ns / 1000),
            request_id: &self.id,
            operation: self.operation,
            user_agent: head
                .and_then(|head| head.headers.find("user-agent"))
                .unwrap_or_default(),
            error: self.error,
        });
    }
}

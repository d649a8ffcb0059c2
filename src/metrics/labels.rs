//! The label values of every metric: closed sets, so that the number of series is known when millrace is compiled.
//!
//! Called by every module that counts something; [`super::table`] names these types as labels. Invariant: a label
//! value is never built from bytes of a client or an origin. What a value means is said in the metric's help text.

/// A closed set of label values. `values()[self.position()]` is the text of `self`.
pub(super) trait Label: Copy {
    /// How many values there are.
    const COUNT: usize;
    /// The values in the order of their positions.
    const VALUES: &'static [&'static str];
}

macro_rules! labels {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$value_doc:meta])* $variant:ident = $text:literal ),+ $(,)? } )+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
            pub enum $name { $( $(#[$value_doc])* $variant ),+ }

            impl Label for $name {
                const COUNT: usize = [$( $text ),+].len();
                const VALUES: &'static [&'static str] = &[$( $text ),+];
            }

            impl $name {
                /// Every value, in the order in which metrics show them.
                pub const ALL: &'static [$name] = &[$( $name::$variant ),+];

                /// The value as it stands in the metrics.
                pub const fn text(self) -> &'static str {
                    match self { $( Self::$variant => $text ),+ }
                }
            }
        )+
    };
}

labels! {
    /// The method of a request; what is not named here is `Other`.
    Method {
        /// `GET`
        Get = "get",
        /// `HEAD`
        Head = "head",
        /// `PUT`
        Put = "put",
        /// `POST`
        Post = "post",
        /// `DELETE`
        Delete = "delete",
        /// `OPTIONS`
        Options = "options",
        /// Every other method, and a request whose method could not be read.
        Other = "other",
    }

    /// How a request was answered.
    Outcome {
        /// Every byte came from RAM or disk.
        Hit = "hit",
        /// No byte was there: the body came from a fill.
        Miss = "miss",
        /// Some bytes were there, a fill brought the rest.
        Partial = "partial",
        /// Passed through to the origin, nothing was looked up or kept.
        Pass = "pass",
        /// Millrace itself answered with an error, or cut the connection.
        Error = "error",
        /// Every byte was there, and the origin was asked whether it still holds.
        Revalidated = "revalidated",
        /// Every byte was there, past its time: the origin failed, or is asked meanwhile.
        Stale = "stale",
    }

    /// What the breaker of an origin lets through.
    BreakerState {
        /// Everything.
        Closed = "closed",
        /// One probe at a time.
        HalfOpen = "half_open",
        /// Nothing.
        Open = "open",
    }

    /// The first digit of a status code.
    StatusClass {
        /// 100–199
        Informational = "1xx",
        /// 200–299
        Success = "2xx",
        /// 300–399
        Redirection = "3xx",
        /// 400–499
        ClientError = "4xx",
        /// 500 and above
        ServerError = "5xx",
    }

    /// Where the bytes of a response body came from.
    Source {
        /// Slots filled before the request came.
        Ram = "ram",
        /// Slots that a read from disk fills.
        Disk = "disk",
        /// A fill in flight.
        Fill = "fill",
        /// The origin, passed through.
        Pass = "pass",
        /// Millrace's own error bodies.
        Local = "local",
    }

    /// The way bytes of a response body went to the kernel.
    SendPath {
        /// By copy: `sendmsg`.
        Copy = "copy",
        /// By reference: pages of the slab.
        Reference = "reference",
    }

    /// Why a client's connection was closed.
    Close {
        /// The client closed it between two requests, or asked for it with `Connection: close`.
        Client = "client",
        /// The client left, or reset it, before its response was whole.
        ClientGone = "client_gone",
        /// Nothing came for the idle time.
        Idle = "idle",
        /// A request head, a TLS handshake or the hello of a tunnel was not whole in time.
        HeadTimeout = "head_timeout",
        /// The client read, or sent its body, too slowly.
        SlowClient = "slow_client",
        /// The request's framing was in doubt, or it was malformed, or what came made no TLS session.
        Malformed = "malformed",
        /// It was not served: a limit, the door's networks, a PROXY header, no destination of a tunnel.
        Refused = "refused",
        /// The response could not be finished, or a tunnel was reset: what is short must not look whole.
        ResponseCut = "response_cut",
        /// The server is shutting down.
        Drain = "drain",
        /// A socket error.
        Error = "error",
    }

    /// Why a connection or a request was refused without being served.
    Refusal {
        /// The limit of connections is reached.
        Connections = "connections",
        /// No file descriptor was left.
        Descriptors = "descriptors",
        /// The client is in no network that this door is for.
        Network = "network",
        /// A balancer did not say, or not properly, for whom it asks.
        ProxyHeader = "proxy_header",
    }

    /// What came of a TLS handshake with a client.
    TlsHandshake {
        /// A new session.
        Full = "full",
        /// A session of before, taken up again.
        Resumed = "resumed",
        /// It was not over in time.
        Timeout = "timeout",
        /// The client left.
        Closed = "closed",
        /// The client spoke plain HTTP.
        PlainHttp = "plain_http",
        /// The client showed no certificate, or one that does not hold.
        Certificate = "certificate",
        /// No version, cipher or protocol in common.
        Protocol = "protocol",
        /// The client refused us: it does not trust our certificate, mostly.
        Alert = "alert",
        /// What came is no TLS, or not as it must be.
        Malformed = "malformed",
        /// Too many handshakes were under way.
        Busy = "busy",
    }

    /// How a client asked for a tunnel.
    TunnelDoor {
        /// By the name in its TLS hello, on a tunnel door.
        Sni = "sni",
        /// By `CONNECT` on an HTTP or TLS door.
        Connect = "connect",
    }

    /// Which way bytes of a tunnel went.
    TunnelWay {
        /// From the client to the destination.
        ToOrigin = "to_origin",
        /// From the destination to the client.
        ToClient = "to_client",
    }

    /// How a tunnel ended.
    TunnelEnd {
        /// Both sides said that they have no more to send.
        Closed = "closed",
        /// The client reset it, or could not be sent to.
        ClientReset = "client_reset",
        /// The destination reset it, or could not be sent to.
        OriginReset = "origin_reset",
        /// No byte moved for the idle time.
        Idle = "idle",
        /// The server is shutting down.
        Drain = "drain",
        /// Something failed here: descriptors or memory.
        Error = "error",
    }

    /// Why a tunnel was refused.
    TunnelRefusal {
        /// What came first is no TLS hello.
        NotTls = "not_tls",
        /// The hello names no host, or an address.
        NoName = "no_name",
        /// The hello is longer than any client's.
        HelloTooLarge = "hello_too_large",
        /// The hello was not whole in time.
        HelloTimeout = "hello_timeout",
        /// The client left before its hello was whole.
        ClientGone = "client_gone",
        /// Tunnels are not for the client's network.
        Network = "network",
        /// The host is no destination.
        Host = "host",
        /// The port is none of that host's.
        Port = "port",
        /// The host's address may not be dialled.
        Address = "address",
        /// The host's name has no address.
        Dns = "dns",
        /// No address of the host could be reached.
        Connect = "connect",
        /// No address of the host could be reached in time.
        Timeout = "timeout",
        /// There are too many tunnels, or connections.
        Busy = "busy",
    }

    /// Why a request was refused as malformed.
    Malformed {
        /// The request line cannot be read: method, target or their separators.
        RequestLine = "request_line",
        /// An HTTP version that is not served.
        Version = "version",
        /// The request target cannot be decoded.
        Target = "target",
        /// A header line: bad name, space before the colon, bare LF, NUL, folded line.
        Header = "header",
        /// `Host` missing, twice, or unreadable.
        Host = "host",
        /// `Content-Length` and `Transfer-Encoding` contradict each other or themselves.
        Framing = "framing",
        /// A chunk size or chunk end that cannot be read.
        Chunk = "chunk",
        /// TLS on a door of plain HTTP.
        Tls = "tls",
        /// The head is larger than the limit.
        HeadTooLarge = "head_too_large",
        /// More header lines than the limit.
        TooManyHeaders = "too_many_headers",
        /// The request ended before its head or body was whole.
        Truncated = "truncated",
        /// Anything else.
        Other = "other",
    }

    /// What a request to the origin is for.
    UpstreamKind {
        /// Bytes for the cache.
        Fill = "fill",
        /// A head alone for the cache.
        Head = "head",
        /// A client's request passed through.
        Pass = "pass",
        /// Whether a version that is known still holds.
        Revalidate = "revalidate",
    }

    /// How an exchange with the origin failed.
    UpstreamFailure {
        /// The name has no address.
        Dns = "dns",
        /// The connection was refused or unreachable.
        Connect = "connect",
        /// The connection was not there in time.
        TimeoutConnect = "timeout_connect",
        /// The response head did not come in time.
        TimeoutFirstByte = "timeout_first_byte",
        /// The body stood still for too long.
        TimeoutIdle = "timeout_idle",
        /// The connection was reset, or closed before the response head.
        Reset = "reset",
        /// The TLS handshake or a TLS record failed.
        Tls = "tls",
        /// The response is not HTTP/1.1 that can be trusted.
        Protocol = "protocol",
        /// The origin answered 5xx.
        Status5xx = "status_5xx",
        /// The body ended before its announced length.
        ShortBody = "short_body",
        /// The response is not what was asked for: range, length or ETag.
        Validation = "validation",
    }

    /// How a TLS session to the origin began.
    TlsSession {
        /// A full handshake.
        Full = "full",
        /// A resumed session.
        Resumed = "resumed",
    }

    /// How a fill ended.
    FillEnd {
        /// Every byte came.
        Completed = "completed",
        /// The origin failed; nothing was kept.
        Failed = "failed",
        /// Given up because nobody needed it any more; nothing was kept.
        Aborted = "aborted",
        /// It ended early, and the prefix that came was kept.
        Salvaged = "salvaged",
    }

    /// Why cached bytes or heads were dropped before eviction would have taken them.
    Invalidation {
        /// A request that writes went through.
        Write = "write",
        /// The origin has another version.
        Changed = "changed",
        /// An operator purged it.
        Purge = "purge",
    }

    /// What became of reads of objects that not everybody may read.
    AccessEvent {
        /// The origin was asked whether this client may.
        Asked = "asked",
        /// The origin had accepted the same request before.
        Known = "known",
        /// The origin said no.
        Refused = "refused",
        /// The origin said yes, which is remembered.
        Remembered = "remembered",
        /// What was remembered made way for another while it was valid.
        Displaced = "displaced",
    }

    /// What came of reading the settings again.
    ReloadResult {
        /// They hold from now on.
        Applied = "applied",
        /// They have errors; those before them stay.
        Refused = "refused",
    }

    /// What came of asking a fallback in the place of an origin.
    FallbackResult {
        /// It answered the request.
        Used = "used",
        /// What it said may not be taken for the origin's word: a 404, say, or another version.
        NotTaken = "not_taken",
        /// It failed too, or is not asked.
        Failed = "failed",
    }

    /// What came of a second request beside one whose answer was slow to begin.
    HedgeResult {
        /// Its answer was the first.
        Won = "won",
        /// The first request's answer was.
        Lost = "lost",
        /// It failed before the first request was answered.
        Failed = "failed",
        /// It was not sent: too many were in flight.
        Refused = "refused",
    }

    /// What the origin said of a version that was known, but too old to be used without asking.
    Revalidation {
        /// It still holds.
        Confirmed = "confirmed",
        /// There is another version.
        Changed = "changed",
        /// There is no such object any more.
        Gone = "gone",
        /// Something else, for the client that asked alone: 403, 412, 5xx.
        Refused = "refused",
        /// Nothing: the origin could not be asked.
        Failed = "failed",
    }

    /// What became of the body of an upload that was to be kept.
    Written {
        /// Whoever reads it finds it.
        Kept = "kept",
        /// No room in the share of uploads, or in the RAM.
        NoRoom = "no_room",
        /// The origin refused it, or its end was not seen.
        Refused = "refused",
        /// Somebody else wrote or read the object meanwhile.
        Beaten = "beaten",
    }

    /// What an operation on the disk was for.
    DiskWork {
        /// A load, or a head.
        Read = "read",
        /// A batch of records, or facts.
        Write = "write",
    }

    /// How an operation on the disk failed.
    DiskFailure {
        /// Too many operations were in flight, or the disk rested.
        Busy = "busy",
        /// It took too long.
        Late = "late",
        /// The kernel said so.
        Io = "io",
        /// A checksum, a length, or a record of something else.
        Damaged = "damaged",
        /// The segment has gone.
        Gone = "gone",
    }

    /// How a DNS lookup ended.
    DnsResult {
        /// At least one address.
        Found = "found",
        /// The name does not exist, or has no address.
        NotFound = "not_found",
        /// The servers answered with an error, or could not be reached.
        Failed = "failed",
        /// No server answered in time.
        Timeout = "timeout",
    }
}

impl Method {
    /// The label of a method as it stands in a request line.
    #[inline]
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"PUT" => Self::Put,
            b"POST" => Self::Post,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

impl StatusClass {
    /// The class of a status code; what lies outside 100–499 counts as a server's error.
    #[inline]
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_share_one_label() {
        assert_eq!(Method::of(b"GET"), Method::Get);
        assert_eq!(Method::of(b"get"), Method::Other);
        assert_eq!(Method::of(b"PROPFIND"), Method::Other);
    }

    #[test]
    fn every_status_code_has_a_class() {
        assert_eq!(StatusClass::of(206).text(), "2xx");
        assert_eq!(StatusClass::of(304).text(), "3xx");
        assert_eq!(StatusClass::of(431).text(), "4xx");
        assert_eq!(StatusClass::of(503).text(), "5xx");
        assert_eq!(StatusClass::of(999).text(), "5xx");
    }

    #[test]
    fn the_text_of_a_value_is_the_one_at_its_position() {
        for (position, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, position);
            assert_eq!(Outcome::VALUES[position], outcome.text());
        }
    }
}

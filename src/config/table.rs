//! The one table of settings: key, type, bounds, default, flag, text. Everything else about settings is made of it.
//!
//! The macro below turns each row into a typed field of [`Settings`] and into a [`Setting`] that the readers
//! (`file.rs`, `environment.rs`, `load.rs`, `cli.rs`) and the writers (`document.rs`) walk. To add a setting, add a
//! row and run the tests with `MILLRACE_BLESS=1`. A key carries no unit, since its value does (`"10s"`); the Rust
//! field carries it last (`head_timeout_ms`). Relations between keys are in `check.rs`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;

use super::shape::Shape;
use super::url::OriginUrl;
use super::value::{AccessLog, Kind, Value};

/// Bytes of a stripe: the unit of ownership, of coalescing and of parallel fetching.
pub const STRIPE_BYTES: u64 = 8 << 20;

/// What a key holds when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initial {
    /// This value, written as a variable would hold it.
    Given(&'static str),
    /// Nothing: the key must be given; the text is an example for the documents.
    Required(&'static str),
    /// Nothing: what others say holds; the text is an example for the documents.
    Unset(&'static str),
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Dotted key: `ram.size`.
    pub key: &'static str,
    /// Key inside its section: `size`.
    pub name: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Default or example.
    pub initial: Initial,
    /// The flag that overrides it, with its dashes.
    pub flag: Option<&'static str>,
    /// Documentation: what it does, what its special values mean.
    pub text: &'static str,
}

impl Setting {
    /// The environment variable that overrides it: `MILLRACE_RAM_SIZE`.
    #[must_use]
    pub fn variable(&self) -> String {
        let key = self.key.to_ascii_uppercase().replace('.', "_");
        format!("{}{key}", super::environment::PREFIX)
    }

    /// What it holds when nobody sets it; of a required key the example.
    #[must_use]
    pub fn initial_value(&self) -> Value {
        match self.initial {
            Initial::Unset(_) => Value::Unset,
            Initial::Given(_) | Initial::Required(_) => self.example(),
        }
    }

    /// The default, or an example where there is none, as a value.
    ///
    /// # Panics
    ///
    /// When the table's own text does not fit the row's shape: a programming error that every test meets.
    #[must_use]
    pub fn example(&self) -> Value {
        let (Initial::Given(text) | Initial::Required(text) | Initial::Unset(text)) = self.initial;
        match self.kind.parse_word(text) {
            Ok(value) => value,
            Err(error) => panic!("default of {}: {error}", self.key),
        }
    }
}

/// A `[section]` of the file, or a `[[table]]` that may be given many times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name in the file.
    pub name: &'static str,
    /// Whether it is an array of tables: then neither flags nor variables reach it.
    pub repeated: bool,
    /// Documentation.
    pub text: &'static str,
    /// Its keys, in order.
    pub settings: &'static [Setting],
}

impl Section {
    /// The line that opens it in the file.
    #[must_use]
    pub fn header(&self) -> String {
        match self.repeated {
            true => format!("[[{}]]", self.name),
            false => format!("[{}]", self.name),
        }
    }
}

/// How a typed field is taken from a value. A mismatch is a mistake in the table and panics; loading the defaults
/// meets it.
pub(super) trait FromValue {
    fn from_value(value: Value) -> Self;
}

macro_rules! from_value {
    ($($type:ty: $($pattern:pat => $result:expr),+;)+) => {$(
        impl FromValue for $type {
            fn from_value(value: Value) -> Self {
                match value {
                    $($pattern => $result,)+
                    other => panic!("the table gives {other} where {} is wanted", stringify!($type)),
                }
            }
        }
    )+};
}

from_value! {
    bool: Value::Bool(value) => value;
    u16: Value::Int(value) => u16::try_from(value).expect("bounds of the row fit 16 bits");
    u32: Value::Int(value) => u32::try_from(value).expect("bounds of the row fit 32 bits");
    u64: Value::Int(value) | Value::Bytes(value) | Value::Millis(value) => value;
    usize: Value::Int(value) | Value::Bytes(value) => usize::try_from(value).expect("64-bit only");
    String: Value::Text(text) => text;
    SocketAddr: Value::Address(address) => address;
    OriginUrl: Value::Url(Some(url)) => url;
    Option<OriginUrl>: Value::Url(url) => url;
    Option<String>: Value::TextOrNone(text) => text, Value::Text(text) => Some(text), Value::Unset => None;
    Option<u64>: Value::Bytes(value) | Value::Millis(value) => Some(value), Value::Unset => None;
    Option<Vec<Tier>>: Value::List(items) => Some(items.into_iter().map(FromValue::from_value).collect()), Value::Unset => None;
    Option<PathBuf>: Value::Path(path) | Value::DiskDir(path) => path;
    Vec<u16>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    Vec<IpAddr>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    IpAddr: Value::Text(text) => text.parse().expect("the row's shape is an address");
    Vec<usize>: Value::Cores(cores) => cores;
    Vec<SocketAddr>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    IpNet: Value::Network(network) => network;
    Vec<IpNet>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    Vec<OriginUrl>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    Vec<String>: Value::List(items) => items.into_iter().map(FromValue::from_value).collect();
    AccessLog: Value::AccessLog(log) => log;
}

macro_rules! perhaps {
    ($($type:ty),+) => {$(
        impl FromValue for Option<$type> {
            fn from_value(value: Value) -> Self {
                match value {
                    Value::Unset => None,
                    word => Some(FromValue::from_value(word)),
                }
            }
        }
    )+};
}

perhaps!(Compress, Access, Freshness, ClientControl, TlsVersion, bool);

macro_rules! words {
    ($($(#[doc = $text:literal])+ $name:ident { $($(#[doc = $word_text:literal])+ $variant:ident = $word:literal,)+ })+) => {$(
        $(#[doc = $text])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $word_text])+ $variant,)+ }

        impl $name {
            /// The words of the file, in order.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// The word of the file.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl FromValue for $name {
            fn from_value(value: Value) -> Self {
                match value {
                    $(Value::Word($word) => Self::$variant,)+
                    other => panic!("the table gives {other} where {} is wanted", stringify!($name)),
                }
            }
        }
    )+};
}

words! {
    /// Whether bodies may be sent by reference to the slab.
    ZeroCopy {
        /// Where the self-test at start proves it safe.
        Auto = "auto",
        /// Always by copy.
        Off = "off",
    }
    /// Whether the slab is made of huge pages.
    HugePages {
        /// Where the kernel can, and the self-test at start proves it safe.
        Auto = "auto",
        /// 4 KiB pages only.
        Off = "off",
    }
    /// What is compressed on disk.
    Compress {
        /// Nothing.
        Off = "off",
        /// What gets smaller.
        Lz4 = "lz4",
    }
    /// When the room of what is expired is given back.
    Expiry {
        /// When something else needs it.
        Lazy = "lazy",
        /// At once.
        Active = "active",
    }
    /// Where what is cached is kept.
    Tier {
        /// In memory.
        Ram = "ram",
        /// On disk.
        Disk = "disk",
    }
    /// Who may read what is cached.
    Access {
        /// Whoever reaches the port.
        Open = "open",
        /// Whom the origin lets, asked for every read.
        Revalidate = "revalidate",
        /// The same, or whose very request the origin has accepted before.
        Exact = "exact",
    }
    /// What decides how long a copy is served without asking.
    Freshness {
        /// The settings.
        Ttl = "ttl",
        /// What the origin says with each answer.
        Origin = "origin",
    }
    /// Whose `Cache-Control` and `Pragma` of a request count.
    ClientControl {
        /// Nobody's.
        Ignore = "ignore",
        /// Those that are not signed.
        Unsigned = "unsigned",
        /// Everybody's.
        All = "all",
    }
    /// A version of TLS.
    TlsVersion {
        /// RFC 5246.
        Tls12 = "1.2",
        /// RFC 8446.
        Tls13 = "1.3",
    }
    /// Whether clients must show a certificate.
    ClientCertificate {
        /// Without one there is no session.
        Required = "required",
        /// One that is shown must hold.
        Optional = "optional",
    }
    /// The least severe message that is logged.
    Level {
        /// Something failed.
        Error = "error",
        /// Something is wrong and was handled.
        Warn = "warn",
        /// Start, stop and changes of state.
        Info = "info",
        /// For developers.
        Debug = "debug",
        /// Every step.
        Trace = "trace",
    }
}

macro_rules! settings {
    (@structure $Section:ident $text:literal { $($field:ident: $type:ty = $doc:literal,)* }) => {
        #[doc = $text]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Section { $(#[doc = $doc] pub $field: $type,)* }

        impl $Section {
            /// Takes its fields, in the order of the table.
            pub(super) fn take(values: &mut impl Iterator<Item = Value>) -> Self {
                Self { $($field: FromValue::from_value(values.next().expect("a value for each row")),)* }
            }
        }
    };
    (@flag) => { None };
    (@flag $flag:literal) => { Some($flag) };
    (
        $($section:ident: $Section:ident = $text:literal {
            $($field:ident: $type:ty = $name:literal ($kind:expr, $default:literal $(, $flag:literal)?) $doc:literal;)*
        })*
        $(@repeated $repeated:ident: $Repeated:ident = $repeated_name:literal $repeated_text:literal {
            $($rfield:ident: $rtype:ty = $rname:literal ($rkind:expr, $rinitial:expr) $rdoc:literal;)*
        })*
    ) => {
        $(settings!(@structure $Section $text { $($field: $type = $doc,)* });)*
        $(settings!(@structure $Repeated $repeated_text { $($rfield: $rtype = $rdoc,)* });)*

        /// Every setting, typed and inside its bounds. Made by [`Settings::load`]; `default()` is for tests.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Settings {
            $(#[doc = $text] pub $section: $Section,)*
            $(#[doc = $repeated_text] pub $repeated: Vec<$Repeated>,)*
        }

        impl Settings {
            /// Takes the values of all sections in the order of the table, and the repeated tables.
            pub(super) fn take(values: &mut impl Iterator<Item = Value>, $($repeated: Vec<$Repeated>),*) -> Self {
                Self { $($section: $Section::take(values),)* $($repeated,)* }
            }
        }

        /// Every section of the file in the order of the documents; the repeated tables are the last.
        pub static SECTIONS: &[Section] = &[
            $(Section {
                name: stringify!($section),
                repeated: false,
                text: $text,
                settings: &[$(Setting {
                    key: concat!(stringify!($section), ".", $name),
                    name: $name,
                    kind: $kind,
                    initial: Initial::Given($default),
                    flag: settings!(@flag $($flag)?),
                    text: $doc,
                },)*],
            },)*
            $(Section {
                name: $repeated_name,
                repeated: true,
                text: $repeated_text,
                settings: &[$(Setting {
                    key: concat!($repeated_name, ".", $rname),
                    name: $rname,
                    kind: $rkind,
                    initial: $rinitial,
                    flag: None,
                    text: $rdoc,
                },)*],
            },)*
        ];
    };
}

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn int(min: u64, max: u64) -> Kind {
    Kind::One(Shape::Int { min, max })
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::One(Shape::Size {
        zero: false,
        min,
        max,
    })
}

const fn size_or_zero(min: u64, max: u64) -> Kind {
    Kind::One(Shape::Size {
        zero: true,
        min,
        max,
    })
}

const fn duration(min: u64, max: u64) -> Kind {
    Kind::One(Shape::Duration { min, max })
}

const fn one(shape: Shape) -> Kind {
    Kind::One(shape)
}

settings! {
    server: Server = "The process and its shards, one pinned thread each." {
        shards: usize = "shards" (int(0, 256), "0", "--shards")
            "Number of shards. 0: one for each core of `server.cores`, or for each core that the process may run on.";
        cores: Vec<usize> = "cores" (one(Shape::Cores), "", "--cores")
            "Cores the shards are pinned to, in order: \"0,2-5\". Empty: the cores that the process may run on.";
        drain_ms: u64 = "drain" (duration(0, HOUR), "30s")
            "How long requests may go on after SIGTERM before their connections are cut.";
        handover_ms: u64 = "handover" (duration(0, DAY), "10m")
            "After a hand-over (SIGUSR2) another process takes what comes, and this one ends what it has begun: how long that may take. Clients that ask nothing are let go after `server.drain`. Until it has ended the new process does without the cache directory.";
    }
    listener: Listener = "The doors that clients come to." {
        http: Vec<SocketAddr> = "http" (Kind::List(Shape::Address, 1, 64), "127.0.0.1:8080", "--listen")
            "Addresses of the HTTP doors. On an address that other hosts reach, whoever reaches it may read what is cached (see `cache.access`).";
        tunnel: Vec<SocketAddr> = "tunnel" (Kind::List(Shape::Door { port: 443 }, 0, 64), "")
            "Addresses of the tunnel doors. An address without a port is at 443. A TLS connection is led, as it is, to the host that its first message (SNI) names, if that is a destination: Amazon S3 where `routing.aws` says so, a configured origin, or one of `destinations.allow`. Nothing of it is cached. Empty: none; `CONNECT` on an HTTP or TLS door is a tunnel under the same rules.";
        tls: Vec<SocketAddr> = "tls" (Kind::List(Shape::Door { port: 443 }, 0, 64), "")
            "Addresses of the TLS doors: HTTP inside TLS that ends here, with the certificate of `tls.cert_file` and the key of `tls.key_file`, and the same cache behind it. An address without a port is at 443.";
        http_allow: Vec<IpNet> = "http_allow" (Kind::list(Shape::Network), "")
            "Networks whose clients the HTTP doors are for; a connection from elsewhere is reset before a byte of it is read. Empty: everybody.";
        tls_allow: Vec<IpNet> = "tls_allow" (Kind::list(Shape::Network), "")
            "As `listener.http_allow`, for the TLS doors.";
        tunnel_allow: Vec<IpNet> = "tunnel_allow" (Kind::list(Shape::Network), "")
            "As `listener.http_allow`, for tunnels: at their doors, and by `CONNECT` at the others.";
        proxy_protocol_from: Vec<IpNet> = "proxy_protocol_from" (Kind::list(Shape::Network), "")
            "Balancers that say for whom they ask: a connection from these networks must begin with a PROXY protocol header, version 1 or 2, at every door; the client is who it names, for the networks above and the access log. From elsewhere no such header is looked for.";
        backlog: u32 = "backlog" (int(1, 65_535), "4096")
            "Connections the kernel keeps waiting for each door; it may cut this to net.core.somaxconn.";
        connections_max: usize = "connections_max" (int(1, 1_000_000), "16384")
            "Client connections at a time, all doors together. One more is answered 503 SlowDown with Retry-After.";
        head_bytes_max: usize = "head_bytes_max" (size(8 * KIB, 64 * KIB), "32KiB")
            "Longest request head. A longer one is answered 431.";
        headers_max: usize = "headers_max" (int(16, 128), "100")
            "Most header lines of a request. More are answered 431.";
        head_timeout_ms: u64 = "head_timeout" (duration(100, 5 * MINUTE), "10s")
            "Time from a request's first byte to its whole head. A slower client is answered 408.";
        idle_timeout_ms: u64 = "idle_timeout" (duration(100, HOUR), "75s")
            "How long a client's connection may rest between two requests before it is closed.";
        send_timeout_ms: u64 = "send_timeout" (duration(100, HOUR), "60s")
            "How long a client may take no byte of its answer before it is cut.";
    }
    tunnel: Tunnel = "Tunnels: TLS through `listener.tunnel`, and `CONNECT`." {
        hello_timeout_ms: u64 = "hello_timeout" (duration(100, 5 * MINUTE), "10s")
            "Time for a client's whole first TLS message, which says where it wants to go.";
        idle_timeout_ms: u64 = "idle_timeout" (duration(100, DAY), "5m")
            "How long no byte may move either way before a tunnel is cut.";
        tunnels_max: usize = "tunnels_max" (int(1, 1_000_000), "4096")
            "Tunnels at a time, for each shard. They do not count against `upstream.connections_max`, but against `listener.connections_max`, and each takes two descriptors. One more is refused.";
    }
    destinations: Destinations = "Where tunnels may lead, and which addresses may be dialled." {
        allow: Vec<String> = "allow" (Kind::list(Shape::HostPattern), "")
            "Hosts that tunnels may lead to besides Amazon S3 and configured origins: names, addresses, or \"*.suffix\" for all names below one. Requests that are cached never go there.";
        ports: Vec<u16> = "ports" (Kind::List(Shape::Int { min: 1, max: 65_535 }, 1, 64), "443")
            "Ports that tunnels to the hosts of `allow` may lead to. Amazon S3 is at 443, a configured origin where its URL says.";
        networks: Vec<IpNet> = "networks" (Kind::list(Shape::Network), "")
            "Networks, such as \"10.0.0.0/8\", that may be dialled although they are not public: for tunnels those of RFC 1918 and fc00::/7, and for every host that clients name also loopback, link-local, shared (100.64.0.0/10), translated (NAT64, 6to4, Teredo), multicast and reserved ones. Origins and endpoints that the settings name may be anywhere; millrace's own doors are never dialled.";
    }
    tls: Tls = "What the TLS doors show. The files are read again when they change and on SIGHUP; files that do not hold leave those before in effect." {
        cert_file: Option<PathBuf> = "cert_file" (one(Shape::Path), "")
            "PEM file of the certificate, with those between it and its authority behind it.";
        key_file: Option<PathBuf> = "key_file" (one(Shape::Path), "")
            "PEM file of the certificate's key.";
        min_version: TlsVersion = "min_version" (one(Shape::OneOf(TlsVersion::WORDS)), "1.2")
            "The oldest version of TLS that is spoken with clients.";
        client_ca_file: Option<PathBuf> = "client_ca_file" (one(Shape::Path), "")
            "PEM file of the authorities that clients' certificates are verified against. Empty: clients are not asked for one.";
        client_certificate: ClientCertificate = "client_certificate" (one(Shape::OneOf(ClientCertificate::WORDS)), "required")
            "With `tls.client_ca_file`, whether a client without a certificate is refused. A certificate that does not hold is refused in any case.";
        handshake_timeout_ms: u64 = "handshake_timeout" (duration(100, 5 * MINUTE), "10s")
            "Time for a client's whole TLS handshake.";
    }
    tcp: Tcp = "Sockets." {
        congestion: Option<String> = "congestion" (one(Shape::Congestion), "")
            "TCP congestion control of the doors' connections, such as \"cubic\". Empty: the system's.";
    }
    admin: Admin = "Metrics and health, for operators." {
        listen: SocketAddr = "listen" (one(Shape::Address), "127.0.0.1:9180", "--admin")
            "Address of /metrics, /livez and /readyz. It has no authentication: keep it on a network of the operator's.";
    }
    routing: Routing = "Which origin a request's `Host` leads to." {
        origin: Option<OriginUrl> = "origin" (one(Shape::UrlOrNone), "", "--origin")
            "Single-origin mode: every request goes to this `http(s)://host[:port]`, its `Host` kept as the client signed it. Empty: routed by `Host`.";
        hosts: Vec<String> = "hosts" (Kind::list(Shape::Host), "")
            "Single-origin mode: hosts that are never a bucket's own name, so that the bucket is the first part of the path.";
        domains: Vec<String> = "domains" (Kind::list(Shape::Domain), "")
            "Single-origin mode: domains below which a host name is a bucket: with \"s3.example.com\", `photos.s3.example.com` is bucket `photos`.";
        fallback: Vec<OriginUrl> = "fallback" (Kind::list(Shape::Url), "")
            "Single-origin mode: where else a GET or HEAD goes, in this order, while the origin cannot be reached, does not answer in time, or answers 500, 502, 503 or 504. The request goes there as the client signed it, `Host` included: a parent proxy, the store behind one, or a replica under the same name. Writes never go there.";
        verify_name: Option<String> = "verify_name" (one(Shape::DomainOrNone), "")
            "Single-origin mode: the name that the origin's certificate has to hold, sent as SNI, where it is another than that of the URL. Empty: the URL's.";
        aws: bool = "aws" (one(Shape::Bool), "true")
            "Whether the hosts of Amazon S3 lead to Amazon S3, where no single origin is set.";
    }
    upstream: Upstream = "Connections to origins." {
        ca_file: Option<PathBuf> = "ca_file" (one(Shape::Path), "")
            "PEM file of the certificate authorities that origins are verified against. Empty: the system's.";
        tls_min: TlsVersion = "tls_min" (one(Shape::OneOf(TlsVersion::WORDS)), "1.2")
            "Oldest version of TLS that is spoken with origins.";
        tls_max: TlsVersion = "tls_max" (one(Shape::OneOf(TlsVersion::WORDS)), "1.3")
            "Newest version of TLS that is spoken with origins.";
        connect_timeout_ms: u64 = "connect_timeout" (duration(10, 5 * MINUTE), "3s")
            "Time for a connection to one address, TLS handshake included.";
        first_byte_timeout_ms: u64 = "first_byte_timeout" (duration(10, HOUR), "15s")
            "Time from the sent request to the first byte of the response.";
        idle_timeout_ms: u64 = "idle_timeout" (duration(10, HOUR), "20s")
            "How long an origin may send no byte of a body that it has begun.";
        keepalive_ms: u64 = "keepalive" (duration(0, HOUR), "50s")
            "How long an unused connection is kept for the next request. Shorter than the origin's own time: a connection it closed costs a retry.";
        pool_idle_max: usize = "pool_idle_max" (int(0, 65_536), "64")
            "Unused connections kept, for each shard and address.";
        connections_max: usize = "connections_max" (int(1, 65_536), "1024")
            "Connections to origins at a time, for each shard.";
        retries: u32 = "retries" (int(0, 10), "2")
            "How often a GET or HEAD is sent again, on another address where there is one, while no byte has gone to the client.";
        hedge_percent_max: u32 = "hedge_percent_max" (int(0, 100), "10")
            "How many of a shard's requests that wait for an answer may be sent a second time by `cache.hedge_after`, in percent; at least one, unless this is 0.";
        failures_to_rest: u32 = "failures_to_rest" (int(1, 100), "3")
            "Failures in a row after which an address rests.";
        rest_ms: u64 = "rest" (duration(100, HOUR), "5s")
            "How long an address rests before it is probed.";
        dns_servers: Vec<SocketAddr> = "dns_servers" (Kind::list(Shape::Server), "")
            "Name servers to ask, `ip[:port]`. Empty: those of /etc/resolv.conf.";
        dns_ttl_min_ms: u64 = "dns_ttl_min" (duration(SECOND, HOUR), "5s")
            "Shortest time a DNS answer is used, whatever its TTL.";
        dns_ttl_max_ms: u64 = "dns_ttl_max" (duration(SECOND, DAY), "60s")
            "Longest time a DNS answer is used, whatever its TTL.";
        dns_hosts_file: bool = "dns_hosts_file" (one(Shape::Bool), "false")
            "Whether /etc/hosts is read for origins. Leave it off where that file leads the origin's name to millrace itself: it would ask itself.";
    }
    outage: Outage = "Origins that fail: what is past its time is served if `cache.stale_if_error` says so, and the rest gets its error at once." {
        fall: u32 = "fall" (int(0, 1000), "3")
            "Requests to an origin that fail in a row (no connection, no answer in time, broken off before it, or 500, 502, 503, 504) until it is not asked any more, by any shard. 0: it is always asked.";
        rise: u32 = "rise" (int(1, 1000), "2")
            "Probes that must go well in a row until it is asked for everything again. A probe is a client's request, one at a time.";
        delay_ms: u64 = "delay" (duration(10, HOUR), "1s")
            "How long it is not asked before the first probe. Each probe that fails doubles this, up to 32 times it.";
    }
    ram: Ram = "The cache in memory." {
        size_bytes: u64 = "size" (size_or_zero(16 * MIB, 64 * TIB), "0", "--ram")
            "Memory for cached bytes, all shards together. 0: a quarter of the machine's memory.";
        zero_copy: ZeroCopy = "zero_copy" (one(Shape::OneOf(ZeroCopy::WORDS)), "auto")
            "\"auto\": bodies are sent by reference to the cache where a self-test at start proves it safe on this kernel. \"off\": always by copy.";
        zero_copy_min_bytes: usize = "zero_copy_min" (size(16 * KIB, MIB), "16KiB")
            "Shortest body that is sent by reference.";
        huge_pages: HugePages = "huge_pages" (one(Shape::OneOf(HugePages::WORDS)), "auto")
            "\"auto\": the cache's memory is made of 2 MiB pages where the kernel gives them (6.1, `shmem_enabled` at `never` or `advise`) and a self-test at start proves their reuse safe. \"off\": 4 KiB pages.";
        prefault: bool = "prefault" (one(Shape::Bool), "false")
            "Take all of the cache's memory from the kernel at start: the start takes longer, and fills do not wait for memory. Without it, memory is taken as it is used.";
    }
    disk: Disk = "The cache on disk, which survives restarts." {
        dir: Option<PathBuf> = "dir" (one(Shape::DiskDir), "none", "--cache-dir")
            "Cache directory, made if it is not there, or \"none\". One server at a time writes into it.";
        size_bytes: u64 = "size" (size_or_zero(256 * MIB, 1024 * TIB), "0", "--disk")
            "Bytes the cache may take on disk, all shards together; never exceeded. 0: three quarters of what is free at start or the cache's already.";
        reserve_bytes: u64 = "reserve" (size(0, 1024 * TIB), "1GiB")
            "Bytes of the filesystem that the cache leaves free for others.";
        segment_bytes: u64 = "segment" (size_or_zero(16 * MIB, GIB), "0")
            "Size of the files that the cache is made of, and what is reclaimed at once. 0: a 32nd of each shard's part, within 16 MiB and 256 MiB.";
        deadline_ms: u64 = "deadline" (duration(10, 5 * MINUTE), "5s")
            "Time for one operation on the disk. After it the request goes to the origin, and the disk is left alone for two seconds.";
        operations_max: usize = "operations_max" (int(8, 2048), "128")
            "Reads in flight, for each shard; writes have as many places of their own. What comes then waits, `deadline` at most, and after it the request goes to the origin.";
        queue_bytes: u64 = "queue" (size(16 * MIB, 16 * GIB), "256MiB")
            "Bytes in RAM that may wait to be written, for each shard, at most half of its RAM. What does not fit is not kept on disk.";
        compress: Compress = "compress" (one(Shape::OneOf(Compress::WORDS)), "off")
            "\"lz4\": what gets smaller by an eighth is compressed on disk. \"off\": plain, which is read without being copied.";
        expiry: Expiry = "expiry" (one(Shape::OneOf(Expiry::WORDS)), "lazy")
            "What is past the longest ttl of all rules on disk goes before anything else. \"lazy\": when room is needed. \"active\": within seconds, also if nothing needs the room.";
    }
    cache: Cache = "What is kept, for how long, for whom." {
        ttl_ms: u64 = "ttl" (duration(0, 3650 * DAY), "1h", "--ttl")
            "How long a cached object is served without asking the origin, counted from its last word. After it, or always with \"0s\", the origin is asked whether the copy still holds, with the client's own signature; if it does, the bytes come from here. The `Age` that an answer brings from a millrace behind this one counts.";
        head_ttl_ms: u64 = "head_ttl" (duration(0, 3650 * DAY), "1m")
            "The same for answers without a body: to a HEAD, and 304 and 412 to conditions. Never longer than for a body.";
        freshness: Freshness = "freshness" (one(Shape::OneOf(Freshness::WORDS)), "ttl")
            "What decides how long a copy is served without asking. \"ttl\": `ttl` and `head_ttl`, whatever the origin says. \"origin\": the Cache-Control, Expires, Age and Date of its answers, as RFC 9111 and RFC 5861 say; what they forbid to keep is not kept, `ttl` and `head_ttl` do not count, and a write that the origin refuses leaves the copy alone.";
        default_ttl_ms: u64 = "default_ttl" (duration(0, 3650 * DAY), "0s")
            "With freshness = \"origin\", the time of answers that say nothing of it. \"0s\": the origin is asked each time.";
        client_control: ClientControl = "client_control" (one(Shape::OneOf(ClientControl::WORDS)), "unsigned")
            "Whose Cache-Control and Pragma of a request count: no-cache, no-store, only-if-cached, max-age, max-stale, min-fresh. \"unsigned\": those that the request's signature does not cover, such as a browser's. \"all\": signed ones too. \"ignore\": nobody's. They go to the origin as they came, whatever this says.";
        access: Access = "access" (one(Shape::OneOf(Access::WORDS)), "open")
            "Who may read what is cached. \"open\": whoever reaches the port, without the origin being asked. \"revalidate\": for every read the origin is asked, with the client's own signature, whether this client may have it and whether the copy holds; the bytes come from here. \"exact\": the same, but a signed or presigned request that the origin has accepted needs no second question while its signature is valid, if it comes again byte for byte (an unsigned `Range` and unsigned conditions may differ).";
        stale_if_error_ms: u64 = "stale_if_error" (duration(0, 3650 * DAY), "0s")
            "How long past `ttl` a copy is served when its origin cannot be reached, does not answer in time, or answers 500, 502, 503 or 504; at once while it fails. Whoever reaches the port is answered so: the origin cannot be asked who they are. \"0s\": not at all.";
        stale_while_revalidate_ms: u64 = "stale_while_revalidate" (duration(0, 3650 * DAY), "0s")
            "How long past `ttl` a copy is served at once while the origin is asked behind it whether it still holds. Not where `ttl` is \"0s\".";
        hedge_after_ms: u64 = "hedge_after" (duration(0, 5 * MINUTE), "0s")
            "How long a fetch waits for the head of its answer before the same request is sent once more, to another address where there is one; the first answer is used. Only GET and HEAD. \"0s\": never.";
        object_bytes_max: u64 = "object_bytes_max" (size(1, 64 * TIB), "5TiB")
            "Largest object that is cached. Larger ones pass.";
        write_through: bool = "write_through" (one(Shape::Bool), "false")
            "Keep the body of an upload beside its stream, so that its first reader does not fetch it: the origin is asked for one byte, to learn the headers. The upload itself goes to the origin as ever.";
        write_percent_max: u32 = "write_percent_max" (int(1, 75), "25")
            "How much of `ram.size` the bodies of uploads under way may take. What does not fit is not kept.";
        write_idle_timeout_ms: u64 = "write_idle_timeout" (duration(SECOND, 7 * DAY), "15m")
            "How long the parts of a multipart upload are kept that nobody goes on with.";
        page_bytes: u64 = "page" (size_or_zero(4 * KIB, 8 * MIB), "0")
            "An unsigned `Range` that is shorter than this is fetched from the origin as the whole pages that it touches: many small reads near each other become few requests. The client gets what it asked for. 0: just what is asked for.";
        read_ahead_bytes: u64 = "read_ahead" (size_or_zero(64 * KIB, GIB), "0")
            "How far ahead of a client that reads an object piece by piece, in order and with unsigned `Range`s, is fetched behind its third read. 0: not at all, since what a client does not come to read is fetched and paid for in vain, and many clients read ahead themselves.";
    }
    fill: Fill = "Fetching from the origin into the cache." {
        fanout: usize = "fanout" (int(1, 64), "8")
            "Stripes of 8 MiB that one client's read fetches at the same time.";
        window_bytes: u64 = "window" (size(MIB, GIB), "16MiB")
            "How far a fill may run ahead of its fastest reader. At least one stripe, 8 MiB.";
        finish_percent: u32 = "finish_percent" (int(0, 100), "50")
            "A fill that all clients have left is finished when so much is there of what it was to bring of its stripe. 0: always; 100: never.";
        join_bytes: u64 = "join" (size_or_zero(1, 8 * MIB), "64KiB")
            "What a read misses of a stripe is asked for at once where no more than this is there between one gap and the next; that is fetched again. 0: each gap by itself.";
        attempts: u32 = "attempts" (int(1, 10), "3")
            "How often the rest of a broken fill is asked for at one place, the first time included; a quarter of a MiB further counts anew.";
    }
    log: Log = "What is written about the work." {
        level: Level = "level" (one(Shape::OneOf(Level::WORDS)), "info")
            "Least severe message that goes to standard error.";
        access: AccessLog = "access" (one(Shape::AccessLog), "off")
            "One JSON line for each request: \"off\", \"stdout\" or the path of a file that is appended to.";
    }
    @repeated origins: Origin = "origin" "A store besides Amazon S3, and the hosts that lead to it. May be given many times." {
        name: String = "name" (one(Shape::Name), Initial::Required("store"))
            "Its name in metrics, logs and cache keys: lower-case letters, digits and '-'.";
        url: OriginUrl = "url" (one(Shape::Url), Initial::Required("http://127.0.0.1:9000"))
            "Where it is: `http(s)://host[:port]`.";
        hosts: Vec<String> = "hosts" (Kind::list(Shape::Host), Initial::Given(""))
            "Hosts that lead to it, the bucket being the first part of the path. Where `domains` is empty too: the host of `url`.";
        domains: Vec<String> = "domains" (Kind::list(Shape::Domain), Initial::Given(""))
            "Domains below which a host name is a bucket of it.";
        fallback: Vec<OriginUrl> = "fallback" (Kind::list(Shape::Url), Initial::Given(""))
            "As `routing.fallback`.";
        ca_file: Option<PathBuf> = "ca_file" (one(Shape::Path), Initial::Given(""))
            "As `upstream.ca_file`, for `url` and `fallback`. Empty: as that says.";
        verify_name: Option<String> = "verify_name" (one(Shape::DomainOrNone), Initial::Given(""))
            "The name that its certificate has to hold, sent as SNI, where it is another than that of the URL.";
        tls_min: Option<TlsVersion> = "tls_min" (one(Shape::OneOf(TlsVersion::WORDS)), Initial::Unset("1.2"))
            "As `upstream.tls_min`.";
        tls_max: Option<TlsVersion> = "tls_max" (one(Shape::OneOf(TlsVersion::WORDS)), Initial::Unset("1.3"))
            "As `upstream.tls_max`.";
    }
    @repeated endpoints: EndpointOverride = "endpoint" "Where hosts are, whatever the name servers say: a VPC interface endpoint (PrivateLink), say. Holds for requests and tunnels, of origins and of Amazon S3. May be given many times; the host's own name counts before a `*.suffix`, and a longer one before a shorter." {
        host: String = "host" (one(Shape::HostPattern), Initial::Required("*.s3.us-east-1.amazonaws.com"))
            "The host that is dialled, or \"*.suffix\" for all names below one.";
        addresses: Vec<IpAddr> = "addresses" (Kind::list(Shape::Ip), Initial::Given(""))
            "Its addresses, used as those of a name server are: the ones that fail rest. They may be private. Empty: the name servers are asked, and only what follows holds.";
        ca_file: Option<PathBuf> = "ca_file" (one(Shape::Path), Initial::Given(""))
            "As `upstream.ca_file`. Empty: as that says.";
        verify_name: Option<String> = "verify_name" (one(Shape::DomainOrNone), Initial::Given(""))
            "The name that its certificate has to hold, sent as SNI, where it is another than that of `host`.";
        tls_min: Option<TlsVersion> = "tls_min" (one(Shape::OneOf(TlsVersion::WORDS)), Initial::Unset("1.2"))
            "As `upstream.tls_min`.";
        tls_max: Option<TlsVersion> = "tls_max" (one(Shape::OneOf(TlsVersion::WORDS)), Initial::Unset("1.3"))
            "As `upstream.tls_max`.";
    }
    @repeated rules: Rule = "rule" "What holds for objects of some names. Of all rules that match, the first that says something about a field decides it; what none says is as `[cache]` and `[disk]` say. May be given many times." {
        glob: String = "match" (one(Shape::Glob), Initial::Required("bucket/prefix/**"))
            "Which objects, by a glob over `bucket/key`: `*` and `?` end at a slash, `**` between slashes or at the end stands for any number of parts, `{a,b}` and `[0-9]` as in a shell.";
        origin: Option<String> = "origin" (one(Shape::Name), Initial::Unset("store"))
            "Only objects of the [[origin]] of this name, or of \"aws\". Not given: of all.";
        ttl_ms: Option<u64> = "ttl" (duration(0, 3650 * DAY), Initial::Unset("10m"))
            "As `cache.ttl`.";
        head_ttl_ms: Option<u64> = "head_ttl" (duration(0, 3650 * DAY), Initial::Unset("30s"))
            "As `cache.head_ttl`.";
        freshness: Option<Freshness> = "freshness" (one(Shape::OneOf(Freshness::WORDS)), Initial::Unset("origin"))
            "As `cache.freshness`.";
        default_ttl_ms: Option<u64> = "default_ttl" (duration(0, 3650 * DAY), Initial::Unset("10s"))
            "As `cache.default_ttl`.";
        client_control: Option<ClientControl> = "client_control" (one(Shape::OneOf(ClientControl::WORDS)), Initial::Unset("ignore"))
            "As `cache.client_control`.";
        stale_if_error_ms: Option<u64> = "stale_if_error" (duration(0, 3650 * DAY), Initial::Unset("1d"))
            "As `cache.stale_if_error`.";
        stale_while_revalidate_ms: Option<u64> = "stale_while_revalidate" (duration(0, 3650 * DAY), Initial::Unset("1m"))
            "As `cache.stale_while_revalidate`.";
        hedge_after_ms: Option<u64> = "hedge_after" (duration(0, 5 * MINUTE), Initial::Unset("250ms"))
            "As `cache.hedge_after`.";
        object_bytes_max: Option<u64> = "object_bytes_max" (size(1, 64 * TIB), Initial::Unset("5TiB"))
            "As `cache.object_bytes_max`.";
        page_bytes: Option<u64> = "page" (size_or_zero(4 * KIB, 8 * MIB), Initial::Unset("1MiB"))
            "As `cache.page`.";
        read_ahead_bytes: Option<u64> = "read_ahead" (size_or_zero(64 * KIB, GIB), Initial::Unset("16MiB"))
            "As `cache.read_ahead`.";
        tiers: Option<Vec<Tier>> = "tiers" (Kind::List(Shape::OneOf(Tier::WORDS), 0, 2), Initial::Unset("ram,disk"))
            "Where they are kept: [\"ram\", \"disk\"], [\"ram\"] or, not at all, []. What is on disk already stays there until it is reclaimed.";
        access: Option<Access> = "access" (one(Shape::OneOf(Access::WORDS)), Initial::Unset("revalidate"))
            "As `cache.access`.";
        compress: Option<Compress> = "compress" (one(Shape::OneOf(Compress::WORDS)), Initial::Unset("lz4"))
            "As `disk.compress`.";
        write_through: Option<bool> = "write_through" (one(Shape::Bool), Initial::Unset("true"))
            "As `cache.write_through`.";
    }
    @repeated hosts: Host = "host" "A host of public objects: an unsigned GET or HEAD of `http://name/path` is served as `/bucket/prefix/path` of the endpoint, one copy with all other ways to that object. What is signed is refused (a signature covers the host), and so is what is no read (but OPTIONS, which browsers ask first); a query does not go along. May be given many times." {
        name: String = "name" (one(Shape::Domain), Initial::Required("cdn.example.com"))
            "The host, on any port.";
        endpoint: String = "endpoint" (one(Shape::Host), Initial::Required("s3.eu-west-1.amazonaws.com"))
            "The store's own host, by which requests lead to it path-style: an endpoint of Amazon S3, or one of `origin.hosts`, or, in single-origin mode, the origin's.";
        bucket: String = "bucket" (one(Shape::Bucket), Initial::Required("public-objects"))
            "The bucket.";
        prefix: String = "prefix" (one(Shape::Prefix), Initial::Given(""))
            "What every key begins with, such as \"site/\"; nothing outside it is reached.";
        index: String = "index" (one(Shape::Prefix), Initial::Given(""))
            "What is read where the path ends in a slash, such as \"index.html\". Empty: the key as it is.";
    }
}

/// The section of this name.
#[must_use]
pub fn section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| section.name == name)
}

/// Every setting that is given once, in the order in which [`Settings`] takes them.
pub fn settings() -> impl Iterator<Item = &'static Setting> + Clone {
    SECTIONS
        .iter()
        .filter(|section| !section.repeated)
        .flat_map(|section| section.settings)
}

/// Every dotted key of the file.
pub fn keys() -> impl Iterator<Item = &'static str> + Clone {
    SECTIONS
        .iter()
        .flat_map(|section| section.settings)
        .map(|setting| setting.key)
}

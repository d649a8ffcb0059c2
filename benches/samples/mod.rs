//! What the benches work on: heads as SDKs and S3 send them, and a partition full of small objects.
//!
//! Each bench is a program of its own and uses a part of this.

#![allow(dead_code, reason = "no bench uses all of it")]

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use millrace::access_log::Record;
use millrace::base::prng::mix64;
use millrace::cache::Head;
use millrace::cache::head::HeadParts;
use millrace::cache::partition::{Lease, Partition};
use millrace::cache::stamps::Stamps;
use millrace::http::{HeadLimits, RequestHead, Version, parse_request};
use millrace::metrics::Outcome;
use millrace::ram::extent::Extent;
use millrace::ram::{STRIPE_BYTES, StripeId};
use millrace::request::answer::{Answer, Besides, CacheStatus};
use millrace::s3::{CustomOrigin, OriginMap, OriginMapConfig, SingleOrigin};

/// A ranged read as a small SDK signs it.
pub const SMALL: &str = "GET /data/train/shard-000042.tar HTTP/1.1\r\n\
    Host: training-sets.s3.eu-central-1.amazonaws.com\r\n\
    Range: bytes=8388608-16777215\r\n\
    x-amz-date: 20260101T000000Z\r\n\
    x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-central-1/s3/aws4_request, \
    SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
    Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\r\n";

/// The same through a proxy setting, of boto3 behind a balancer: 20 header lines.
pub const BOTO3: &str = "GET /training-sets/data/train/shard-000042.tar?x-id=GetObject HTTP/1.1\r\n\
    Host: s3.eu-central-1.amazonaws.com\r\n\
    Accept-Encoding: identity\r\n\
    User-Agent: Boto3/1.42.0 md/Botocore#1.42.0 md/awscrt#0.29.1 ua/2.1 os/linux#6.18.0 md/arch#x86_64 \
    lang/python#3.13.1 md/pyimpl#CPython m/Z,b,e,D,N cfg/retry-mode#standard Botocore/1.42.0\r\n\
    Range: bytes=8388608-16777215\r\n\
    X-Amz-Date: 20260101T000000Z\r\n\
    X-Amz-Content-SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\r\n\
    X-Amz-Checksum-Mode: ENABLED\r\n\
    X-Amz-Security-Token: IQoJb3JpZ2luX2VjEJr//////////wEaDGV1LWNlbnRyYWwtMSJHMEUCIQDexampleexampleexampleexampleexample\
    exampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexample\
    exampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexampleexample==\r\n\
    X-Amz-Request-Payer: requester\r\n\
    X-Amz-Expected-Bucket-Owner: 123456789012\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=ASIAEXAMPLEEXAMPLE00/20260101/eu-central-1/s3/aws4_request, \
    SignedHeaders=host;range;x-amz-checksum-mode;x-amz-content-sha256;x-amz-date;x-amz-expected-bucket-owner;\
    x-amz-request-payer;x-amz-security-token, \
    Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\
    amz-sdk-invocation-id: 5f2c0a52-9b1e-4c0d-8a55-0d6f0a1b2c3d\r\n\
    amz-sdk-request: attempt=1; max=3\r\n\
    X-Forwarded-For: 10.1.2.3\r\n\
    X-Forwarded-Proto: http\r\n\
    X-Request-Id: 5f2c0a529b1e4c0d8a550d6f0a1b2c3d\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    Accept: */*\r\n\
    Cache-Control: max-age=60\r\n\
    Connection: Keep-Alive\r\n\r\n";

/// A read by a presigned URL.
pub const PRESIGNED: &str = "GET /training-sets/data/train/shard-000042.tar?X-Amz-Algorithm=AWS4-HMAC-SHA256\
    &X-Amz-Credential=AKIDEXAMPLE%2F20260101%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z\
    &X-Amz-Expires=3600&X-Amz-SignedHeaders=host\
    &X-Amz-Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef HTTP/1.1\r\n\
    Host: s3.eu-central-1.amazonaws.com\r\nUser-Agent: curl/8.14.1\r\nAccept: */*\r\n\r\n";

/// A read without a signature, by path, as a test or a public bucket gets it.
pub const ANONYMOUS: &str =
    "GET /training-sets/data/train/shard-000042.tar HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";

/// A part of a multipart upload.
pub const UPLOAD_PART: &str = "PUT /training-sets/data/new.tar?partNumber=7&uploadId=VXBsb2FkSWQ HTTP/1.1\r\n\
    Host: s3.eu-central-1.amazonaws.com\r\nContent-Length: 8388608\r\nExpect: 100-continue\r\n\
    x-amz-date: 20260101T000000Z\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/eu-central-1/s3/aws4_request, \
    SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
    Signature=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n\r\n";

/// What S3 answers to a ranged read.
pub const RESPONSE: &str = "HTTP/1.1 206 Partial Content\r\n\
    x-amz-id-2: GxN0v2QpXrYq3Zt1mKsW8uLhRbTfYc5dEoPaJi7nVgB4kHxMzC6wQlSyDtUeIrOp\r\n\
    x-amz-request-id: 0123456789ABCDEF\r\n\
    Date: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Last-Modified: Wed, 31 Dec 2025 23:00:00 GMT\r\n\
    ETag: \"9b2cf535f27731c974343645a3985328\"\r\n\
    x-amz-server-side-encryption: AES256\r\n\
    Accept-Ranges: bytes\r\n\
    Content-Range: bytes 8388608-16777215/167772160\r\n\
    Content-Type: application/x-tar\r\n\
    Content-Length: 8388608\r\n\
    Server: AmazonS3\r\n\r\n";

/// Valid as far as it goes, and as long as a head may be: 90 lines with long values, one of them obsolete white space away from
/// being refused.
pub fn hostile() -> String {
    let mut head = String::from("GET /a HTTP/1.1\r\nHost: s3.amazonaws.com\r\n");
    for line in 0..90 {
        write!(head, "x-{line:08}: \t{}\t \r\n", "~\u{e9} ".repeat(70))
            .expect("a String takes all");
    }
    head + "\r\n"
}

/// A request head that is known to be whole.
pub fn parsed(text: &str) -> RequestHead<'_> {
    let head = parse_request(text.as_bytes(), &HeadLimits::default());
    head.expect("valid").expect("whole")
}

/// Amazon's endpoints and some stores beside them.
pub fn aws_map() -> OriginMap {
    let custom = (0..8).map(|number| CustomOrigin {
        name: format!("store-{number}"),
        hosts: vec![format!("s3.store-{number}.example:9000")],
        domains: vec![format!("buckets.store-{number}.example:9000")],
    });
    let config = OriginMapConfig {
        aws: true,
        custom: custom.collect(),
        ..OriginMapConfig::default()
    };
    OriginMap::new(config).expect("a map")
}

/// One origin for everything.
pub fn single_map() -> OriginMap {
    let single = SingleOrigin {
        authority: "127.0.0.1:9000".to_owned(),
        hosts: vec!["127.0.0.1".to_owned()],
        domains: Vec::new(),
    };
    let config = OriginMapConfig {
        single_origin: Some(single),
        ..OriginMapConfig::default()
    };
    OriginMap::new(config).expect("a map")
}

/// The key of every head that [`head`] makes.
pub const KEY: &[u8] = b"training-sets/data/train/shard-000042.tar";

/// What is known of an object of 20 stripes.
pub fn head(object: u128) -> Head {
    let lines = b"ETag: \"9b2cf535f27731c974343645a3985328\"\r\n\
        Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n\
        Content-Type: application/x-tar\r\nServer: AmazonS3\r\nx-amz-server-side-encryption: AES256\r\n";
    let parts = HeadParts {
        key: KEY.into(),
        etag: (*b"\"9b2cf535f27731c974343645a3985328\"").into(),
        total: 20 * STRIPE_BYTES,
        lines: (*lines).into(),
        ..HeadParts::default()
    };
    Head::new(object, parts)
}

/// The answer to a hit: all of an object, or `part` of it.
pub fn answer(head: &Head, part: Option<Range<u64>>) -> Answer<'_> {
    Answer {
        besides: Besides::default(),
        head,
        part,
        checksums: false,
        status: CacheStatus::Hit,
        age_ms: 123_456,
        date: *b"Thu, 01 Jan 2026 00:00:00 GMT",
        keep_alive: true,
        version: Version::Http11,
    }
}

/// Key and user agent of an SDK's read, for [`record`].
pub const READ: [&str; 2] = [
    "data/train/shard-000042.tar",
    "Boto3/1.42.0 md/Botocore#1.42.0 ua/2.1",
];

/// What the access log tells of a ranged hit.
pub fn record<'a>([key, user_agent]: [&'a str; 2]) -> Record<'a> {
    Record {
        time_unix_ms: 1_767_225_600_123,
        client: "10.1.2.3:45678".parse().expect("an address"),
        door: "http",
        tls: "",
        method: b"GET",
        host: b"training-sets.s3.eu-central-1.amazonaws.com",
        bucket: b"training-sets",
        key: key.as_bytes(),
        status: 206,
        bytes_sent: 8_388_608,
        range: b"bytes=8388608-16777215",
        result: Outcome::Hit,
        origin_status: None,
        by_fallback: false,
        duration_us: 1234,
        first_byte_us: Some(56),
        request_id: b"0123456789ABCDEF",
        operation: "GetObject",
        user_agent: user_agent.as_bytes(),
        error: None,
    }
}

/// The digest of the `number`th object.
pub fn digest(number: u64) -> u128 {
    let spread = mix64(number);
    u128::from(spread) << 64 | u128::from(mix64(spread))
}

/// A partition with a small extent and a head for each of `objects`, as after a day of small objects.
pub fn full_partition(objects: u64) -> (Partition, Vec<StripeId>) {
    let stamps = Arc::<Stamps>::default();
    let made = Partition::new(objects * 20 * 1024, objects as usize, Arc::clone(&stamps));
    let mut partition = made.expect("memory");
    let mut ids = Vec::new();
    for object in (0..objects).map(digest) {
        let head = partition.publish(head(object), stamps.now(object));
        let id = StripeId {
            object,
            version: head.expect("nothing beats it").version(),
            index: 0,
        };
        fill(&mut partition, id, 16 * 1024);
        ids.push(id);
    }
    (partition, ids)
}

/// Leases, fills and finishes an extent.
pub fn fill(partition: &mut Partition, id: StripeId, bytes: u32) -> Arc<Extent> {
    let Lease::Granted(mut writer) = partition.lease(id, 0..bytes, &Arc::default()) else {
        panic!("there is room");
    };
    while writer.remaining() > 0 {
        let room = writer.room();
        room.fill(7);
        let bytes = room.len();
        writer.advance(bytes, |_| {});
    }
    let extent = Arc::clone(writer.extent());
    writer.finish(|_| {});
    extent
}

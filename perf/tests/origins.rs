//! Both origins over real sockets: S3's answers, counters, the side port, TLS, and the signatures of the embedded one.
//!
//! In-process origins, the project's own client.

#![allow(
    clippy::disallowed_methods,
    reason = "presigned requests expire by the wall clock"
)]

use std::net::SocketAddr;
use std::sync::Arc;

use perf::client::{Answer, Connection, Request, Take, once};
use perf::net;
use perf::origin::fault::{self, FaultOrigin};
use perf::origin::generate::Content;
use perf::origin::s3s::{self, S3sOrigin};
use perf::origin::tls;
use perf::sign::{Payload, Signer, Target, object_path};
use time::{Duration, OffsetDateTime};

fn fault_origin() -> FaultOrigin {
    FaultOrigin::start(fault::Config::loopback()).expect("it starts")
}

async fn get(addr: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::new("GET", target);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    once(addr, &request).await.expect("an answer")
}

async fn put(addr: SocketAddr, target: &str, body: &str) -> Answer {
    once(addr, &Request::new("PUT", target).body(body))
        .await
        .expect("an answer")
}

#[tokio::test]
async fn ranges_are_206_416_or_the_whole() {
    let origin = fault_origin();
    let content = Content::new(1000, 3);
    for (range, status, content_range, window) in [
        ("bytes=0-0", 206, Some("bytes 0-0/1000"), 0..1),
        ("bytes=990-", 206, Some("bytes 990-999/1000"), 990..1000),
        ("bytes=-5", 206, Some("bytes 995-999/1000"), 995..1000),
        ("bytes=900-5000", 206, Some("bytes 900-999/1000"), 900..1000),
        ("bytes=0-1,5-6", 200, None, 0..1000),
        ("bytes=9-1", 200, None, 0..1000),
        ("junk", 200, None, 0..1000),
    ] {
        let answer = get(origin.addr, "/gen/1000/3/x", &[("Range", range)]).await;
        assert_eq!(
            (answer.status(), answer.header("content-range")),
            (status, content_range),
            "{range}"
        );
        assert_eq!(
            answer.body,
            content.bytes(window.start, window.end),
            "{range}"
        );
    }
    let answer = get(origin.addr, "/gen/1000/3/x", &[("Range", "bytes=1000-")]).await;
    assert_eq!(
        (answer.status(), answer.header("content-range")),
        (416, Some("bytes */1000"))
    );
    assert!(answer.text().contains("<Code>InvalidRange</Code>") && answer.header("etag").is_none());
    let empty = get(origin.addr, "/gen/0/3/x", &[("Range", "bytes=0-")]).await;
    assert_eq!(
        (empty.status(), empty.header("content-range")),
        (416, Some("bytes */0"))
    );
    assert_eq!(
        get(origin.addr, "/gen/0/3/x", &[])
            .await
            .header("content-length"),
        Some("0")
    );
}

#[tokio::test]
async fn conditions_are_304_412_or_not_in_the_way() {
    let origin = fault_origin();
    let whole = get(origin.addr, "/gen/1000/3/x", &[]).await;
    let (etag, date) = (
        whole.header("etag").expect("ETag"),
        whole.header("last-modified").expect("a date"),
    );
    let past = "Thu, 01 Jan 2004 00:00:00 GMT";
    for (headers, status) in [
        (vec![("If-Match", etag)], 200),
        (vec![("If-Match", "\"x\"")], 412),
        (vec![("If-None-Match", etag)], 304),
        (vec![("If-None-Match", "\"x\"")], 200),
        (vec![("If-Modified-Since", date)], 304),
        (vec![("If-Modified-Since", past)], 200),
        (vec![("If-Unmodified-Since", past)], 412),
        (vec![("If-Match", etag), ("If-Unmodified-Since", past)], 200),
        (
            vec![("If-None-Match", "\"x\""), ("If-Modified-Since", date)],
            200,
        ),
        (vec![("If-Match", etag), ("Range", "bytes=0-9")], 206),
        (vec![("If-Match", "\"x\""), ("Range", "bytes=5000-")], 412),
        (vec![("If-Range", etag), ("Range", "bytes=0-9")], 206),
        (vec![("If-Range", "\"x\""), ("Range", "bytes=0-9")], 200),
    ] {
        let answer = get(origin.addr, "/gen/1000/3/x", &headers).await;
        assert_eq!(answer.status(), status, "{headers:?}");
        if status == 304 {
            assert_eq!((answer.bytes, answer.header("etag")), (0, Some(etag)));
        }
        if status == 412 {
            assert!(answer.text().contains("<Code>PreconditionFailed</Code>"));
        }
    }
}

#[tokio::test]
async fn head_tells_what_get_would() {
    let origin = fault_origin();
    let mut connection = Connection::connect(origin.addr).await.expect("it listens");
    for target in ["/gen/1000/3/x", "/gen/nonsense"] {
        let head = connection
            .exchange(&Request::new("HEAD", target), Take::Keep)
            .await
            .expect("an answer");
        let get = connection
            .exchange(&Request::new("GET", target), Take::Keep)
            .await
            .expect("an answer");
        assert_eq!(
            (head.status(), head.header("content-length")),
            (get.status(), get.header("content-length"))
        );
        assert_eq!((head.header("etag"), head.bytes), (get.header("etag"), 0));
    }
    assert_eq!(origin.stats().connections, 1);
}

#[tokio::test]
async fn writes_are_seen_and_conditional_writes_judged() {
    let origin = fault_origin();
    let request = Request::new("PUT", "/b/k")
        .header("x-amz-meta-Tag", "v")
        .header("Content-Type", "text/x");
    let answer = once(origin.addr, &request.body("hello"))
        .await
        .expect("an answer");
    assert_eq!(
        answer.header("etag"),
        Some("\"5d41402abc4b2a76b9719d911017c592\"")
    );
    let read = get(origin.addr, "/b/k", &[("x-amz-checksum-mode", "ENABLED")]).await;
    assert_eq!(
        (read.text().as_str(), read.header("x-amz-meta-tag")),
        ("hello", Some("v"))
    );
    assert_eq!(
        (
            read.header("content-type"),
            read.header("x-amz-checksum-crc32")
        ),
        (Some("text/x"), Some("NhCmhg=="))
    );
    let part = get(
        origin.addr,
        "/b/k",
        &[("x-amz-checksum-mode", "ENABLED"), ("Range", "bytes=0-1")],
    )
    .await;
    assert_eq!(part.header("x-amz-checksum-crc32"), None);
    let once_only = Request::new("PUT", "/b/k")
        .header("If-None-Match", "*")
        .body("again");
    assert_eq!(
        once(origin.addr, &once_only)
            .await
            .expect("an answer")
            .status(),
        412
    );
    let copy = Request::new("PUT", "/b/copy")
        .header("x-amz-copy-source", "/b/k")
        .body("");
    assert_eq!(
        once(origin.addr, &copy).await.expect("an answer").status(),
        200
    );
    assert_eq!(get(origin.addr, "/b/copy", &[]).await.text(), "hello");
    assert_eq!(
        once(origin.addr, &Request::new("DELETE", "/b/k"))
            .await
            .expect("an answer")
            .status(),
        204
    );
    let gone = get(origin.addr, "/b/k", &[]).await;
    assert_eq!(
        (
            gone.status(),
            gone.text().contains("<Code>NoSuchKey</Code>")
        ),
        (404, true)
    );
}

#[tokio::test]
async fn expect_continue_is_asked_for_and_aws_chunks_are_taken_apart() {
    let origin = fault_origin();
    let request = Request::new("PUT", "/b/k")
        .header("Expect", "100-continue")
        .body("hello");
    let answer = once(origin.addr, &request).await.expect("an answer");
    assert_eq!(
        (answer.status(), answer.head.interims.as_slice()),
        (200, &[100][..])
    );
    let chunks = "5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n";
    let request = Request::new("PUT", "/b/k2")
        .header("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
        .header("Content-Encoding", "aws-chunked")
        .header("Transfer-Encoding", "chunked")
        .body(format!("{:x}\r\n{chunks}\r\n0\r\n\r\n", chunks.len()));
    assert_eq!(
        once(origin.addr, &request)
            .await
            .expect("an answer")
            .status(),
        200
    );
    let read = get(origin.addr, "/b/k2", &[("x-amz-checksum-mode", "enabled")]).await;
    assert_eq!(
        (read.text().as_str(), read.header("content-encoding")),
        ("hello", None)
    );
    assert_eq!(read.header("x-amz-checksum-crc32"), Some("NhCmhg=="));
}

#[tokio::test]
async fn parts_and_multipart_uploads_are_read_back() {
    let origin = fault_origin();
    let post = async |target: &str, body: &str| {
        once(origin.addr, &Request::new("POST", target).body(body))
            .await
            .expect("an answer")
            .text()
    };
    let started = post("/b/m?uploads", "").await;
    let id = started
        .split("<UploadId>")
        .nth(1)
        .and_then(|rest| rest.split('<').next())
        .expect("an id");
    for (number, body) in [(1, "first"), (2, "second")] {
        put(
            origin.addr,
            &format!("/b/m?partNumber={number}&uploadId={id}"),
            body,
        )
        .await;
    }
    let parts = "<Part><PartNumber>1</PartNumber></Part><Part><PartNumber>2</PartNumber></Part>";
    let done = post(&format!("/b/m?uploadId={id}"), parts).await;
    assert!(done.contains("-2&quot;</ETag>"), "{done}");
    assert_eq!(get(origin.addr, "/b/m", &[]).await.text(), "firstsecond");
    let part = get(origin.addr, "/b/m?partNumber=2", &[]).await;
    assert_eq!((part.status(), part.text().as_str()), (206, "second"));
    assert_eq!(
        (
            part.header("content-range"),
            part.header("x-amz-mp-parts-count")
        ),
        (Some("bytes 5-10/11"), Some("2"))
    );
    assert_eq!(
        get(origin.addr, "/b/m?partNumber=3", &[]).await.status(),
        416
    );
}

/// Posts to the side port and gives the status.
async fn post_side(origin: &FaultOrigin, target: &str, body: &str) -> u16 {
    let side = origin.stats_addr.expect("it has one");
    let request = Request::new("POST", target).body(body);
    once(side, &request).await.expect("an answer").status()
}

async fn get_side(origin: &FaultOrigin, target: &str) -> serde_json::Value {
    let side = origin.stats_addr.expect("it has one");
    serde_json::from_slice(&get(side, target, &[]).await.body).expect("JSON")
}

#[tokio::test]
async fn the_side_port_defines_objects_and_shows_counters_and_log() {
    let origin = fault_origin();
    let big = r#"[{"key":"b/big","size":1073741824,"seed":5}]"#;
    assert_eq!(post_side(&origin, "/objects", big).await, 200);
    let headers = [("Range", "bytes=-10"), ("If-Match", "*")];
    let tail = get(origin.addr, "/b/big", &headers).await;
    let content = Content::new(1 << 30, 5);
    assert_eq!(content.mismatch((1 << 30) - 10, &tail.body), None);
    let stats = get_side(&origin, "/stats").await;
    assert_eq!(
        (&stats["requests"], &stats["get_requests"]),
        (&1.into(), &1.into())
    );
    assert_eq!(stats["body_bytes_sent"], 10);
    assert_eq!(stats["keys"]["b/big"]["bytes"], 10);
    let log = get_side(&origin, "/log").await;
    assert_eq!(
        (&log[0]["range"], &log[0]["if_match"]),
        (&"bytes=-10".into(), &"*".into())
    );
    assert_eq!(
        (&log[0]["status"], &log[0]["headers_count"]),
        (&206.into(), &3.into())
    );
    assert_eq!(post_side(&origin, "/reset", "").await, 200);
    assert_eq!(get_side(&origin, "/stats").await["requests"], 0);
    assert_eq!(post_side(&origin, "/nothing", "").await, 404);
}

#[tokio::test]
async fn the_side_port_sets_and_ends_faults() {
    let origin = fault_origin();
    let bad = r#"[{"action":{"kind":"nonsense"}}]"#;
    assert_eq!(post_side(&origin, "/faults", bad).await, 400);
    let good = r#"[{"action":{"kind":"status","code":503}}]"#;
    assert_eq!(post_side(&origin, "/faults", good).await, 200);
    assert_eq!(get(origin.addr, "/gen/1/1/x", &[]).await.status(), 503);
    assert_eq!(get_side(&origin, "/faults").await[0]["applied"], 1);
    let side = origin.stats_addr.expect("it has one");
    let clear = Request::new("DELETE", "/faults");
    assert_eq!(once(side, &clear).await.expect("an answer").status(), 200);
    assert_eq!(get(origin.addr, "/gen/1/1/x", &[]).await.status(), 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = fault_origin();
    let mut connection = Connection::connect(origin.addr).await.expect("it listens");
    connection
        .write(b"GET /gen/3/1/x HTTP/1.1\r\n\r\nGET /gen/4/1/x HTTP/1.1\r\n\r\n")
        .await
        .expect("it reads");
    for bytes in [3, 4] {
        let head = connection.read_head("GET").await.expect("an answer");
        assert_eq!(
            connection
                .finish(head, Take::Count)
                .await
                .expect("a body")
                .bytes,
            bytes
        );
    }
}

#[tokio::test]
async fn tls_is_served_with_the_made_certificates() {
    let dir = tempfile::tempdir().expect("a folder");
    tls::write_certificates(dir.path(), &["localhost".to_string()]).expect("certificates");
    let tls = Some((dir.path().join("cert.pem"), dir.path().join("key.pem")));
    let origin = FaultOrigin::start(fault::Config {
        tls,
        ..fault::Config::loopback()
    })
    .expect("it starts");
    let mut roots = rustls::RootCertStore::empty();
    let ca =
        rustls::pki_types::pem::PemObject::from_pem_file(dir.path().join("ca.pem")).expect("a CA");
    roots.add(ca).expect("a CA");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let tcp = net::connect(origin.addr).await.expect("it listens");
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .expect("a handshake");
    let mut connection = Connection::over(tls, "localhost");
    let answer = connection
        .exchange(&Request::new("GET", "/gen/8MiB/1/x"), Take::Digest)
        .await
        .expect("an answer");
    assert_eq!(answer.sha256, Some(Content::new(8 << 20, 1).sha256()));
}

struct Embedded {
    origin: S3sOrigin,
    _root: tempfile::TempDir,
}

fn embedded() -> Embedded {
    let root = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(root.path().join("bucket")).expect("a bucket");
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let origin = S3sOrigin::start(s3s::Config {
        root: root.path().to_path_buf(),
        listen: any,
        stats: Some(any),
        access_key: "key".into(),
        secret_key: "secret".into(),
        domains: vec![],
        tls: None,
    });
    Embedded {
        origin: origin.expect("it starts"),
        _root: root,
    }
}

fn signed(
    addr: SocketAddr,
    method: &str,
    key: &str,
    secret: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Request {
    let (host, path) = (addr.to_string(), object_path("bucket", key));
    let target = Target {
        method,
        host: &host,
        path: &path,
        query: "",
    };
    let signer = Signer::s3("key", secret, "us-east-1");
    let added = signer.sign(
        target,
        headers,
        &Payload::of(body),
        OffsetDateTime::now_utc(),
    );
    let own = headers
        .iter()
        .map(|(name, value)| ((*name).to_string(), (*value).to_string()))
        .collect();
    let request = Request::new(method, &path).headers(own).headers(added);
    if method == "PUT" {
        request.body(body)
    } else {
        request
    }
}

#[tokio::test]
async fn the_embedded_server_verifies_signatures_and_serves_what_was_put() {
    let embedded = embedded();
    let addr = embedded.origin.addr;
    let content = Content::new(3 << 20, 1);
    let body = content.bytes(0, 3 << 20);
    let key = "folder/ü +&.bin";
    let put = signed(addr, "PUT", key, "secret", &[], &body);
    assert_eq!(once(addr, &put).await.expect("an answer").status(), 200);
    let answer = once(addr, &signed(addr, "GET", key, "secret", &[], b""))
        .await
        .expect("an answer");
    assert_eq!(
        (
            answer.status(),
            content.mismatch(0, &answer.body),
            answer.bytes
        ),
        (200, None, 3 << 20)
    );
    let range = [("Range", "bytes=1000000-2000000")];
    let part = once(addr, &signed(addr, "GET", key, "secret", &range, b""))
        .await
        .expect("an answer");
    assert_eq!((part.status(), part.bytes), (206, 1_000_001));
    assert_eq!(content.mismatch(1_000_000, &part.body), None);
    let wrong = once(addr, &signed(addr, "GET", key, "other", &[], b""))
        .await
        .expect("an answer");
    assert_eq!(wrong.status(), 403);
    let stats = embedded.origin.stats();
    assert_eq!((stats.get_requests, stats.put_requests), (3, 1));
    assert_eq!(stats.body_bytes_received, 3 << 20);
    let counted = &stats.keys[object_path("bucket", key).trim_start_matches('/')];
    assert_eq!(counted.bytes, (3 << 20) + 1_000_001 + wrong.bytes);
}

#[tokio::test]
async fn the_embedded_server_takes_presigned_requests_until_they_expire() {
    let embedded = embedded();
    let addr = embedded.origin.addr;
    once(addr, &signed(addr, "PUT", "k", "secret", &[], b"hello"))
        .await
        .expect("an answer");
    let host = addr.to_string();
    let target = Target {
        method: "GET",
        host: &host,
        path: "/bucket/k",
        query: "",
    };
    let signer = Signer::s3("key", "secret", "us-east-1");
    let at = |when: OffsetDateTime| format!("/bucket/k?{}", signer.presign(target, &[], 60, when));
    let now = OffsetDateTime::now_utc();
    let good = get(addr, &at(now), &[("Range", "bytes=1-2")]).await;
    assert_eq!((good.status(), good.text().as_str()), (206, "el"));
    assert_eq!(
        get(addr, &at(now - Duration::minutes(5)), &[])
            .await
            .status(),
        403
    );
    let tampered = at(now).replace("Expires=60", "Expires=61");
    assert!(get(addr, &tampered, &[]).await.status() >= 400);
}

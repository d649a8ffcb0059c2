//! Each fault of the fault origin, seen by a raw socket: the bytes that came, when, and how the connection ended.
//!
//! The origin runs in-process, one per test. What is asserted is what a proxy under test would meet.

#![allow(
    clippy::disallowed_methods,
    reason = "delays are measured by the wall clock"
)]

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use perf::client::{ClientError, Connection, Request, Take, once};
use perf::origin::fault::rules::{Action, Rule, Vary};
use perf::origin::fault::{Config, FaultOrigin};
use perf::origin::generate::Content;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: &str = "/gen/100000/7/x";
const GET: &str = "GET /gen/100000/7/x HTTP/1.1\r\nHost: h\r\n\r\n";

fn content() -> Content {
    Content::new(100_000, 7)
}

fn origin(rules: Vec<Rule>) -> FaultOrigin {
    let origin = FaultOrigin::start(Config::loopback()).expect("it starts");
    origin.set_faults(rules).expect("good rules");
    origin
}

fn failing(action: Action) -> FaultOrigin {
    origin(vec![Rule::always(action)])
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Fin,
    Reset,
    StillOpen,
}

/// What came over a socket.
struct Seen {
    bytes: Vec<u8>,
    end: End,
    elapsed: Duration,
}

impl Seen {
    fn head(&self) -> String {
        let at = self
            .bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .map_or(self.bytes.len(), |at| at + 4);
        String::from_utf8_lossy(&self.bytes[..at]).into_owned()
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head().len()..]
    }
}

/// Writes the request and reads until the connection ends, or nothing comes for 300 ms.
async fn raw(origin: &FaultOrigin, request: &str) -> Seen {
    let started = Instant::now();
    let mut stream = TcpStream::connect(origin.addr).await.expect("it listens");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut bytes = Vec::new();
    let end = loop {
        match tokio::time::timeout(Duration::from_millis(300), stream.read_buf(&mut bytes)).await {
            Err(_) => break End::StillOpen,
            Ok(Ok(0)) => break End::Fin,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                break End::Reset;
            }
        }
    };
    Seen {
        bytes,
        end,
        elapsed: started.elapsed(),
    }
}

#[tokio::test]
async fn without_rules_the_answer_is_whole_and_the_connection_stays() {
    let seen = raw(&origin(vec![]), GET).await;
    assert!(
        seen.head().starts_with("HTTP/1.1 200 OK\r\n"),
        "{}",
        seen.head()
    );
    assert!(seen.head().contains("Content-Length: 100000\r\n"));
    assert_eq!(
        (content().mismatch(0, seen.body()), seen.body().len()),
        (None, 100_000)
    );
    assert_eq!(seen.end, End::StillOpen);
}

#[tokio::test]
async fn delays_come_where_they_are_set() {
    let origin = failing(Action::DelayHead { ms: 150 });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("a late answer");
    assert!(answer.head.first_byte >= Duration::from_millis(150));
    let origin = failing(Action::DelayBody {
        at: 50_000,
        ms: 150,
    });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("a slow answer");
    assert!(
        answer.head.first_byte < Duration::from_millis(100),
        "{:?}",
        answer.head.first_byte
    );
    assert!(answer.elapsed >= Duration::from_millis(150));
    assert_eq!(answer.bytes, 100_000);
}

#[tokio::test]
async fn a_delayed_body_has_sent_exactly_what_comes_before() {
    let origin = failing(Action::DelayBody {
        at: 12_345,
        ms: 2_000,
    });
    assert_eq!(raw(&origin, GET).await.body().len(), 12_345);
}

#[tokio::test]
async fn a_trickled_head_comes_in_pieces() {
    let origin = failing(Action::TrickleHead { bytes: 64, ms: 10 });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("a slow head");
    assert_eq!((answer.status(), answer.bytes), (200, 100_000));
    assert!(
        answer.elapsed >= Duration::from_millis(40),
        "{:?}",
        answer.elapsed
    );
}

#[tokio::test]
async fn a_rate_is_kept_within_a_fifth() {
    let origin = failing(Action::Rate {
        bytes_per_s: 400_000,
    });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("a slow answer");
    let s = answer.elapsed.as_secs_f64();
    assert!((0.22..0.6).contains(&s), "{s}");
}

#[tokio::test]
async fn cuts_end_by_fin_or_reset_after_the_exact_byte() {
    let head = |seen: &Seen| seen.head().contains("200 OK");
    let seen = raw(&failing(Action::CutBeforeHead { rst: false }), GET).await;
    assert_eq!((seen.bytes.len(), seen.end), (0, End::Fin));
    let seen = raw(&failing(Action::CutBeforeHead { rst: true }), GET).await;
    assert_eq!((seen.bytes.len(), seen.end), (0, End::Reset));
    let seen = raw(&failing(Action::CutAfterHead { rst: false }), GET).await;
    assert_eq!(
        (head(&seen), seen.body().len(), seen.end),
        (true, 0, End::Fin)
    );
    let seen = raw(
        &failing(Action::CutBody {
            at: 777,
            rst: false,
        }),
        GET,
    )
    .await;
    assert_eq!(
        (head(&seen), seen.body().len(), seen.end),
        (true, 777, End::Fin)
    );
    let seen = raw(&failing(Action::CutBody { at: 777, rst: true }), GET).await;
    assert_eq!(
        (head(&seen), seen.body().len(), seen.end),
        (true, 777, End::Reset)
    );
}

#[tokio::test]
async fn a_cut_upload_ends_without_an_answer_and_counts_what_was_read() {
    let origin = failing(Action::CutUpload { at: 3, rst: true });
    let seen = raw(
        &origin,
        "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789",
    )
    .await;
    assert_eq!((seen.bytes.len(), seen.end), (0, End::Reset));
    assert_eq!(origin.stats().body_bytes_received, 3);
    assert!(origin.store().get("b", "k").is_none());
}

#[tokio::test]
async fn statuses_come_as_xml_and_leave_the_object_alone() {
    for (code, name) in [
        (500, "InternalError"),
        (503, "SlowDown"),
        (403, "AccessDenied"),
    ] {
        let origin = failing(Action::Status {
            code,
            retry_after_s: (code == 503).then_some(5),
        });
        let answer = once(origin.addr, &Request::new("GET", KEY))
            .await
            .expect("an answer");
        assert_eq!(answer.status(), code);
        assert!(
            answer.text().contains(&format!("<Code>{name}</Code>")),
            "{}",
            answer.text()
        );
        assert_eq!(answer.header("retry-after"), (code == 503).then_some("5"));
        assert_eq!(answer.header("etag"), None);
        let put = once(origin.addr, &Request::new("PUT", "/b/k").body("x"))
            .await
            .expect("an answer");
        assert_eq!(put.status(), code);
        assert!(origin.store().get("b", "k").is_none());
    }
}

#[tokio::test]
async fn wrong_lengths_are_announced_and_the_true_bytes_sent() {
    let seen = raw(&failing(Action::ContentLength { add: 10 }), GET).await;
    assert!(seen.head().contains("Content-Length: 100010\r\n"));
    assert_eq!((seen.body().len(), seen.end), (100_000, End::Fin));
    let seen = raw(&failing(Action::ContentLength { add: -10 }), GET).await;
    assert!(seen.head().contains("Content-Length: 99990\r\n"));
    assert_eq!((seen.body().len(), seen.end), (100_000, End::StillOpen));
}

#[tokio::test]
async fn content_range_can_lie_about_each_number() {
    let lie = |value: Option<&str>, start_add, end_add, total_add| Action::ContentRange {
        value: value.map(str::to_string),
        start_add,
        end_add,
        total_add,
    };
    for (action, want) in [
        (lie(None, 1, 0, 0), "bytes 11-19/100000"),
        (lie(None, 0, -1, 0), "bytes 10-18/100000"),
        (lie(None, 0, 0, 5), "bytes 10-19/100005"),
        (lie(Some("bytes */7"), 0, 0, 0), "bytes */7"),
    ] {
        let origin = failing(action);
        let request = Request::new("GET", KEY).header("Range", "bytes=10-19");
        let answer = once(origin.addr, &request).await.expect("an answer");
        assert_eq!((answer.status(), answer.bytes), (206, 10));
        assert_eq!(answer.header("content-range"), Some(want));
    }
}

#[tokio::test]
async fn an_ignored_range_is_200_and_whole() {
    let origin = failing(Action::IgnoreRange);
    let answer = once(
        origin.addr,
        &Request::new("GET", KEY).header("Range", "bytes=10-19"),
    )
    .await
    .expect("an answer");
    assert_eq!(
        (
            answer.status(),
            answer.bytes,
            answer.header("content-range")
        ),
        (200, 100_000, None)
    );
    assert_eq!(content().mismatch(0, &answer.body), None);
}

#[tokio::test]
async fn etags_can_be_missing_fixed_or_varying() {
    let etag = async |origin: &FaultOrigin, range: &str| {
        let request = Request::new("GET", KEY).header("Range", range);
        let answer = once(origin.addr, &request).await.expect("an answer");
        answer.header("etag").map(str::to_string)
    };
    let origin = failing(Action::MissingEtag);
    assert_eq!(etag(&origin, "bytes=0-1").await, None);
    let origin = failing(Action::Etag {
        value: Some("\"v\"".into()),
        vary: None,
    });
    assert_eq!(etag(&origin, "bytes=0-1").await.as_deref(), Some("\"v\""));
    let origin = failing(Action::Etag {
        value: None,
        vary: Some(Vary::Range),
    });
    assert_eq!(
        etag(&origin, "bytes=0-1").await,
        etag(&origin, "bytes=0-1").await
    );
    assert_ne!(
        etag(&origin, "bytes=0-1").await,
        etag(&origin, "bytes=2-3").await
    );
    let origin = failing(Action::Etag {
        value: None,
        vary: Some(Vary::Request),
    });
    assert_ne!(
        etag(&origin, "bytes=0-1").await,
        etag(&origin, "bytes=0-1").await
    );
}

#[tokio::test]
async fn a_new_version_has_other_bytes_and_fails_if_match_on_the_old_one() {
    let origin = origin(vec![Rule::always(Action::NewVersion).nth(2)]);
    let first = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    let etag = first.header("etag").expect("an ETag");
    let second = once(
        origin.addr,
        &Request::new("GET", KEY).header("If-Match", etag),
    )
    .await
    .expect("an answer");
    assert_eq!(second.status(), 412);
    let third = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    assert_eq!((third.status(), third.bytes), (200, first.bytes));
    assert_ne!(third.header("etag"), Some(etag));
    assert_ne!(third.body, first.body);
}

#[tokio::test]
async fn headers_can_be_set_and_removed() {
    let origin = origin(vec![
        Rule::always(Action::SetHeader {
            name: "Last-Modified".into(),
            value: "never".into(),
        }),
        Rule::always(Action::RemoveHeader {
            name: "accept-ranges".into(),
        }),
    ]);
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    assert_eq!(
        (
            answer.header("last-modified"),
            answer.header("accept-ranges")
        ),
        (Some("never"), None)
    );
}

#[tokio::test]
async fn chunked_answers_have_no_length_and_may_have_trailers() {
    let trailers = vec![("X-T".to_string(), "v".to_string())];
    let origin = failing(Action::Chunked {
        chunk_bytes: Some(30_000),
        trailers,
    });
    let seen = raw(&origin, GET).await;
    assert!(!seen.head().to_ascii_lowercase().contains("content-length"));
    assert!(seen.head().contains("Transfer-Encoding: chunked\r\n"));
    assert!(seen.body().starts_with(b"7530\r\n"));
    assert!(seen.body().ends_with(b"\r\n0\r\nX-T: v\r\n\r\n"));
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.bytes, content().mismatch(0, &answer.body)),
        (100_000, None)
    );
}

#[tokio::test]
async fn a_cut_chunked_body_has_no_last_chunk() {
    let chunked = Action::Chunked {
        chunk_bytes: None,
        trailers: vec![],
    };
    let origin = origin(vec![
        Rule::always(chunked),
        Rule::always(Action::CutBody { at: 5, rst: false }),
    ]);
    let error = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect_err("it is short");
    assert!(
        matches!(
            error,
            ClientError::Short {
                received: 5,
                announced: None
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_close_delimited_body_ends_with_the_connection() {
    let seen = raw(&failing(Action::CloseDelimited), GET).await;
    assert!(!seen.head().contains("Content-Length"));
    assert!(seen.head().contains("Connection: close\r\n"));
    assert_eq!((seen.body().len(), seen.end), (100_000, End::Fin));
}

#[tokio::test]
async fn an_idle_connection_is_closed_unannounced() {
    let seen = raw(&failing(Action::CloseIdle { ms: 0 }), GET).await;
    assert!(!seen.head().to_ascii_lowercase().contains("connection:"));
    assert_eq!((seen.body().len(), seen.end), (100_000, End::Fin));
    let seen = raw(&failing(Action::Close), GET).await;
    assert!(seen.head().contains("Connection: close\r\n"));
    assert_eq!(seen.end, End::Fin);
}

#[tokio::test]
async fn interims_come_before_the_answer() {
    let headers = vec![("Link".to_string(), "x".to_string())];
    let origin = failing(Action::Interim {
        status: 103,
        count: 2,
        headers,
    });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    assert_eq!(
        (answer.status(), answer.head.interims.as_slice()),
        (200, &[103, 103][..])
    );
}

#[tokio::test]
async fn an_early_answer_comes_before_the_upload_is_read() {
    let head = "PUT /b/k HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n";
    let origin = failing(Action::EarlyAnswer {
        status: 403,
        drain: false,
    });
    let seen = raw(&origin, head).await;
    assert!(seen.head().starts_with("HTTP/1.1 403 "), "{}", seen.head());
    assert!(seen.head().contains("Connection: close\r\n"));
    assert_eq!(seen.end, End::Fin);
    let origin = failing(Action::EarlyAnswer {
        status: 503,
        drain: true,
    });
    let mut connection = Connection::connect(origin.addr).await.expect("it listens");
    connection.write(head.as_bytes()).await.expect("it reads");
    assert_eq!(
        connection
            .read_head("PUT")
            .await
            .expect("an early answer")
            .status,
        503
    );
}

#[tokio::test]
async fn a_hanging_request_is_logged_and_never_answered() {
    let origin = failing(Action::Hang);
    let mut connection = Connection::connect(origin.addr)
        .await
        .expect("it listens")
        .idle_timeout(Duration::from_millis(200));
    let error = connection
        .exchange(&Request::new("GET", KEY), Take::Count)
        .await
        .expect_err("no answer");
    assert!(matches!(error, ClientError::Timeout(_)), "{error}");
    let log = origin.log();
    assert_eq!((log.len(), log[0].status, log[0].done), (1, 0, false));
    assert_eq!(log[0].faults, ["hang"]);
    drop(connection);
    while !origin.log()[0].done {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn garbage_and_raw_bytes_come_as_they_are() {
    let seen = raw(&failing(Action::Garbage), GET).await;
    assert!(!seen.bytes.starts_with(b"HTTP"));
    assert_eq!(seen.end, End::Fin);
    let text = "HTTP/1.1 200 OK\nbare: lf\u{ff}\r\n\r\n".to_string();
    let seen = raw(
        &failing(Action::Raw {
            text,
            keep_open: true,
        }),
        GET,
    )
    .await;
    assert_eq!(seen.bytes, b"HTTP/1.1 200 OK\nbare: lf\xff\r\n\r\n");
    assert_eq!(seen.end, End::StillOpen);
}

#[tokio::test]
async fn one_body_byte_can_be_flipped() {
    let origin = failing(Action::Corrupt { at: 54_321 });
    let answer = once(origin.addr, &Request::new("GET", KEY))
        .await
        .expect("an answer");
    assert_eq!(content().mismatch(0, &answer.body), Some(54_321));
    assert_eq!(content().mismatch(54_322, &answer.body[54_322..]), None);
}

#[tokio::test]
async fn faults_act_together_and_only_where_they_match() {
    let origin = origin(vec![
        Rule::for_key("^gen/100000/", Action::DelayHead { ms: 100 })
            .method("GET")
            .times(1),
        Rule::for_key("^gen/100000/", Action::CutBody { at: 9, rst: false }).nth(1),
    ]);
    let head = once(origin.addr, &Request::new("HEAD", "/gen/5/1/x"))
        .await
        .expect("no rule matches");
    assert_eq!(head.status(), 200);
    let seen = raw(&origin, GET).await;
    assert_eq!((seen.body().len(), seen.end), (9, End::Fin));
    assert!(seen.elapsed >= Duration::from_millis(100));
    assert_eq!(origin.log()[1].faults, ["delay_head", "cut_body"]);
    assert_eq!(raw(&origin, GET).await.body().len(), 100_000);
}

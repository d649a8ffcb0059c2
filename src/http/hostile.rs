//! Tests of the head parsers: hostile and odd heads with their stated answers, and properties over
//! any bytes.

use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 1024,
    headers_max: 16,
};

/// The answer to a request as a number: 0 for "more bytes wanted", 200 for accepted, or the error's
/// status.
fn answer(request: &[u8]) -> u16 {
    match parse_request(request, &LIMITS) {
        Ok(None) => 0,
        Ok(Some(head)) => {
            assert!(head.bytes <= request.len());
            200
        }
        Err(error) => error.status(),
    }
}

fn check(table: &[(&str, u16)]) {
    for (request, status) in table {
        assert_eq!(
            answer(request.as_bytes()),
            *status,
            "{}",
            request.escape_debug()
        );
        check_prefixes(request.as_bytes());
    }
}

/// A prefix is either unfinished or gets the answer of the whole; and so does the whole with bytes
/// behind it.
fn check_prefixes(request: &[u8]) {
    let whole = answer(request);
    for bytes in 0..request.len() {
        let early = answer(&request[..bytes]);
        assert!(
            early == 0 || early == whole,
            "{early} of {}",
            request[..bytes].escape_ascii()
        );
        if early == 0 && whole != 0 && head_complete(&request[..bytes], 0).is_some() {
            panic!(
                "complete but unanswered: {}",
                request[..bytes].escape_ascii()
            );
        }
    }
    if whole != 0 {
        for behind in [&b"\r\n"[..], b"x", b"\n", b": \r\n\r\n"] {
            assert_eq!(
                answer(&[request, behind].concat()),
                whole,
                "{}",
                request.escape_ascii()
            );
        }
    }
}

#[test]
fn request_lines_get_the_stated_answer() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        (
            "GET /%zz?a=%&&==;{}|\\^`\"<> HTTP/1.1\r\nHost: a\r\n\r\n",
            200,
        ),
        ("GET /\u{e9}\u{20ac} HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("M-SEARCH! / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET / HTTP/1.0\r\n\r\n", 200),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\x00b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /k#f HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("G\u{e9}T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET:/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\r\nHost: a\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / \r\nHost: a\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/+1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / ICY/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    ]);
}

#[test]
fn targets_get_the_stated_answer() {
    check(&[
        ("GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET http://a:80/b HTTP/1.1\r\nHost: b\r\n\r\n", 200),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 200),
        ("CONNECT a:443 HTTP/1.0\r\n\r\n", 200),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]);
}

#[test]
fn header_lines_get_the_stated_answer() {
    check(&[
        (
            "GET / HTTP/1.1\r\nhOST:a\r\nA:\r\nB: \t \r\nC: \u{e9}\t,\u{20ac} \r\n\r\n",
            200,
        ),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\rX", 400),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\tTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB[]: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB\u{e9}: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB\x00: c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB: c\x00\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB: c\x01d\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB: \x7f\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nB: \x0b\r\n\r\n", 400),
    ]);
}

#[test]
fn hosts_get_the_stated_answer() {
    check(&[
        ("GET / HTTP/1.1\r\nHost: B_a.S3:9000\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", 200),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: http://a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", 400),
        ("GET http://a/ HTTP/1.1\r\n\r\n", 400),
    ]);
}

#[test]
fn framing_gets_the_stated_answer() {
    let table = [
        ("Content-Length: 3", 200),
        ("Transfer-Encoding: Chunked", 200),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", 400),
        ("Transfer-Encoding: identity\r\nContent-Length: 3", 400),
        ("Content-Length: 3\r\nContent-Length: 4", 400),
        ("Content-Length: 3\r\nContent-Length: 3", 400),
        ("Content-Length: 3, 3", 400),
        ("Content-Length: 3,", 400),
        ("Content-Length: +3", 400),
        ("Content-Length: -1", 400),
        ("Content-Length:", 400),
        ("Content-Length: 0x3", 400),
        ("Content-Length: 3 3", 400),
        ("Content-Length: 18446744073709551616", 400),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            400,
        ),
        (
            "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            400,
        ),
        ("Transfer-Encoding: identity", 501),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding: chunked, chunked", 501),
        ("Transfer-Encoding: chunked,", 501),
        ("Transfer-Encoding: chunked;q=1", 501),
        ("Transfer-Encoding: \"chunked\"", 501),
        ("Transfer-Encoding: xchunked", 501),
        ("Transfer-Encoding: \u{e9}chunked", 501),
        ("Transfer-Encoding:", 501),
    ];
    for (lines, status) in table {
        let request = format!("PUT / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        check(&[(&request, status)]);
    }
    check(&[
        ("PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("PUT / HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", 200),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            200,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            400,
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
    ]);
}

#[test]
fn heads_over_the_limits_are_431_complete_or_not() {
    let start = "GET / HTTP/1.1\r\nHost: a\r\nB: ";
    let sized = |bytes: usize| format!("{start}{}\r\n\r\n", "b".repeat(bytes - start.len() - 4));
    check(&[(&sized(1024), 200), (&sized(1025), 431)]);
    assert_eq!(answer(&sized(1025).as_bytes()[..1023]), 0);
    assert_eq!(answer(&sized(1025).as_bytes()[..1024]), 431);
    assert_eq!(answer(&[b"GET /", &[b'a'; 2000][..]].concat()), 431);
    assert_eq!(answer(&[&b"G"[..], &[b'E'; 2000][..]].concat()), 431);
    let lines = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "B: c\r\n".repeat(count - 1)
        )
    };
    check(&[(&lines(16), 200), (&lines(17), 431), (&lines(60), 431)]);
    // A fault behind the line too many does not change the answer.
    check(&[(&lines(17).replace("\r\n\r\n", "\r\n x\n"), 431)]);
}

#[test]
fn limits_above_the_tables_are_the_tables() {
    let unlimited = HeadLimits {
        head_bytes_max: usize::MAX,
        headers_max: usize::MAX,
    };
    let lines =
        |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "B: c\r\n".repeat(count)).into_bytes();
    assert_eq!(
        parse_request(&lines(128), &unlimited)
            .unwrap()
            .unwrap()
            .headers
            .len(),
        128
    );
    let error = parse_request(&lines(129), &unlimited).unwrap_err();
    assert_eq!(error, RequestError::TooManyHeaders { headers_max: 128 });
    let start = "GET / HTTP/1.0\r\nA: ";
    let sized = |bytes: usize| {
        format!(
            "{start}{}\r\nC: d\r\n\r\n",
            "b".repeat(bytes - start.len() - 10)
        )
    };
    let largest = sized(HEAD_BYTES_CEILING);
    let head = parse_request(largest.as_bytes(), &unlimited)
        .unwrap()
        .unwrap();
    assert_eq!(head.bytes, HEAD_BYTES_CEILING);
    assert_eq!(head.headers.find("c"), Some(&b"d"[..]));
    assert_eq!(
        head.headers.find("a").map(<[u8]>::len),
        Some(HEAD_BYTES_CEILING - start.len() - 10)
    );
    assert_eq!(head.headers.raw().len(), HEAD_BYTES_CEILING - 18);
    let error = parse_request(sized(HEAD_BYTES_CEILING + 1).as_bytes(), &unlimited).unwrap_err();
    assert_eq!(
        error,
        RequestError::HeadTooLarge {
            bytes_max: HEAD_BYTES_CEILING
        }
    );
}

#[test]
fn errors_carry_the_facts() {
    let error = |request: &str| parse_request(request.as_bytes(), &LIMITS).unwrap_err();
    let folded = LineError {
        line: 2,
        fault: LineFault::Folded,
    };
    assert_eq!(
        error("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
        RequestError::Line(folded)
    );
    assert_eq!(error("G(T / HTTP/1.1\r\n\r\n"), RequestError::InvalidMethod);
    assert_eq!(
        error("GET / HTTP/2.0\r\n\r\n"),
        RequestError::UnsupportedVersion { major: 2, minor: 0 }
    );
    assert_eq!(
        error("GET /\x01 HTTP/1.1\r\n\r\n"),
        RequestError::Target(TargetError::InvalidByte)
    );
    let twice = "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n";
    assert_eq!(error(twice), RequestError::RepeatedHost { count: 2 });
    assert_eq!(error(twice).to_string(), "the request has 2 Host lines");
    let invalid = RequestError::InvalidHost(AuthorityError::InvalidPort);
    assert_eq!(error("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"), invalid);
}

#[test]
fn targets_that_are_not_utf8_are_400() {
    assert_eq!(answer(b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    assert_eq!(answer(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
}

const SIGNED: &[u8] = b"\r\nGET /bucket/a%20key//x?partNumber=3&x-id=GetObject HTTP/1.1\r\n\
    Host: S3.example:9000\r\nAccept-Encoding: identity\r\nRange: bytes=0-8388607\r\n\
    User-Agent: aws-cli/1.45 md/Botocore#1.43\r\nx-amz-checksum-mode: ENABLED\r\n\
    X-Amz-Date: 20261120T000000Z\r\nX-Amz-Content-SHA256: UNSIGNED-PAYLOAD\r\n\
    Authorization: AWS4-HMAC-SHA256 Credential=A/20261120/us-east-1/s3/aws4_request, \
    SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=abc\r\n\
    amz-sdk-invocation-id: 1\r\namz-sdk-request: attempt=1\r\nConnection: keep-alive\r\n\r\nnext";

#[test]
fn a_signed_request_is_taken_apart_and_nothing_is_changed() {
    let head = parse_request(SIGNED, &HeadLimits::default())
        .unwrap()
        .unwrap();
    assert_eq!((head.method, head.method_raw), (Method::Get, "GET"));
    assert_eq!(
        head.target,
        "/bucket/a%20key//x?partNumber=3&x-id=GetObject"
    );
    assert_eq!(
        (head.form, head.scheme, head.authority),
        (TargetForm::Origin, "", None)
    );
    assert_eq!(
        (head.path, head.query),
        ("/bucket/a%20key//x", Some("partNumber=3&x-id=GetObject"))
    );
    assert_eq!(
        (head.version, head.host),
        (Version::Http11, Some("S3.example:9000"))
    );
    assert_eq!(
        (head.body, head.keep_alive, head.expect_continue),
        (RequestBody::None, true, false)
    );
    assert_eq!(head.headers.len(), 11);
    assert_eq!(head.headers.find("range"), Some(&b"bytes=0-8388607"[..]));
    assert_eq!(&SIGNED[head.bytes..], b"next");
    let raw = head.headers.raw();
    assert!(raw.starts_with(b"Host: ") && raw.ends_with(b"keep-alive\r\n"));
    let debug = format!("{head:?}");
    assert!(
        !debug.contains("Signature") && !debug.contains("x-id"),
        "{debug}"
    );
}

#[test]
fn expectations_count_only_with_a_body_and_in_http_11() {
    let expects = |line: &str, rest: &str| {
        let request = format!("PUT / {line}\r\nHost: a\r\n{rest}\r\n\r\n");
        parse_request(request.as_bytes(), &LIMITS)
            .unwrap()
            .unwrap()
            .expect_continue
    };
    assert!(expects(
        "HTTP/1.1",
        "Expect: 100-Continue\r\nContent-Length: 1"
    ));
    assert!(expects(
        "HTTP/1.1",
        "Transfer-Encoding: chunked\r\nexpect: 100-continue"
    ));
    assert!(!expects("HTTP/1.1", "Expect: 100-continue"));
    assert!(!expects(
        "HTTP/1.1",
        "Expect: 100-continue\r\nContent-Length: 0"
    ));
    assert!(!expects(
        "HTTP/1.0",
        "Expect: 100-continue\r\nContent-Length: 1"
    ));
    assert!(!expects("HTTP/1.1", "Expect: 200-ok\r\nContent-Length: 1"));
}

#[test]
fn persistence_follows_version_and_connection() {
    let keeps = |version: &str, line: &str| {
        let request = format!("GET / {version}\r\nHost: a\r\n{line}\r\n");
        parse_request(request.as_bytes(), &LIMITS)
            .unwrap()
            .unwrap()
            .keep_alive
    };
    assert!(keeps("HTTP/1.1", ""));
    assert!(!keeps("HTTP/1.1", "Connection: x, Close\r\n"));
    assert!(!keeps("HTTP/1.0", ""));
    assert!(keeps("HTTP/1.0", "Connection: Keep-Alive\r\n"));
}

#[test]
fn pipelined_heads_follow_each_other() {
    let one = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let two = format!("{one}\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let first = parse_request(two.as_bytes(), &LIMITS).unwrap().unwrap();
    assert_eq!(first.body, RequestBody::Length(3));
    let second = parse_request(&two.as_bytes()[first.bytes + 3..], &LIMITS)
        .unwrap()
        .unwrap();
    assert_eq!((second.path, second.bytes), ("/2", 30));
}

fn response(head: &str, method: Method) -> Result<(u16, ResponseBody, bool), ResponseError> {
    let head = parse_response(head.as_bytes(), method, &LIMITS)?.expect("a complete head");
    Ok((head.status, head.body, head.keep_alive))
}

fn check_bodies(table: &[(Method, &str, ResponseBody, bool)]) {
    for (method, rest, body, keep_alive) in table {
        let (_, got, kept) = response(&format!("HTTP/1.1 {rest}\r\n\r\n"), *method).unwrap();
        assert_eq!((got, kept), (*body, *keep_alive), "{rest}");
    }
}

#[test]
fn response_bodies_follow_the_framing_headers() {
    use ResponseBody::{Chunked, Length, UntilClose};
    let get = Method::Get;
    check_bodies(&[
        (get, "200 OK\r\nContent-Length: 3", Length(3), true),
        (get, "200 OK\r\nContent-Length: 0", Length(0), true),
        (get, "200 OK\r\nTransfer-Encoding: chunked", Chunked, true),
        (get, "200 OK\r\nA: b", UntilClose, false),
        (get, "999 \r\nContent-Length: 1", Length(1), true),
        (get, "200\r\nContent-Length: 1", Length(1), true),
        (
            Method::Connect,
            "407 No\r\nContent-Length: 1",
            Length(1),
            true,
        ),
    ]);
    let closing = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(response(closing, get), Ok((200, Length(3), false)));
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n";
    assert_eq!(
        response(&format!("{old}\r\n"), get),
        Ok((200, Length(1), false))
    );
    let kept = format!("{old}Connection: keep-alive\r\n\r\n");
    assert_eq!(response(&kept, get), Ok((200, Length(1), true)));
}

#[test]
fn responses_that_have_no_body_have_none_whatever_they_announce() {
    let none = ResponseBody::None;
    check_bodies(&[
        (Method::Head, "200 OK\r\nContent-Length: 3", none, true),
        (
            Method::Head,
            "200 OK\r\nTransfer-Encoding: chunked",
            none,
            true,
        ),
        (Method::Head, "200 OK\r\nA: b", none, true),
        (
            Method::Get,
            "304 Not Modified\r\nContent-Length: 3",
            none,
            true,
        ),
        (Method::Delete, "204 No Content\r\nA: b", none, true),
        (
            Method::Delete,
            "204 No Content\r\nContent-Length: 0",
            none,
            true,
        ),
        (
            Method::Delete,
            "204 No Content\r\nContent-Length: 3",
            none,
            false,
        ),
        (
            Method::Delete,
            "204 No\r\nTransfer-Encoding: chunked",
            none,
            false,
        ),
        (Method::Put, "100 Continue\r\nA: b", none, true),
        (Method::Connect, "200 OK\r\nA: b", none, true),
    ]);
}

#[test]
fn interim_responses_are_told_from_final_ones() {
    for (status, interim) in [
        (100, true),
        (103, true),
        (101, false),
        (200, false),
        (500, false),
    ] {
        let text = format!("HTTP/1.1 {status} X\r\n\r\n");
        let head = parse_response(text.as_bytes(), Method::Put, &LIMITS)
            .unwrap()
            .unwrap();
        assert_eq!(head.is_interim(), interim, "{status}");
    }
}

#[test]
fn a_final_head_follows_an_interim_one() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let interim = parse_response(text, Method::Put, &LIMITS).unwrap().unwrap();
    assert_eq!((interim.bytes, interim.reason), (25, "Continue"));
    let last = parse_response(&text[25..], Method::Put, &LIMITS)
        .unwrap()
        .unwrap();
    assert_eq!((last.status, last.bytes), (200, text.len() - 25));
}

fn check_refused(table: &[(&str, ResponseError)]) {
    for (text, error) in table {
        assert_eq!(
            response(text, Method::Get),
            Err(*error),
            "{}",
            text.escape_debug()
        );
    }
}

#[test]
fn malformed_response_lines_are_refused() {
    let line = |line, fault| ResponseError::Line(LineError { line, fault });
    check_refused(&[
        ("HTTP/1.1 200 OK\nA: b\n\n", line(0, LineFault::BareLf)),
        (
            "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
            line(1, LineFault::BareLf),
        ),
        (
            "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            line(2, LineFault::Folded),
        ),
        (
            "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            line(1, LineFault::SpaceBeforeColon),
        ),
        (
            "HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n",
            line(1, LineFault::Value),
        ),
        ("HTTP/1.1 200 O\rK\r\n\r\n", line(0, LineFault::BareCr)),
        (
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            line(0, LineFault::EmptyLines),
        ),
        (
            "\nHTTP/1.1 200 OK\r\n\r\n",
            ResponseError::InvalidStatusLine,
        ),
        (
            "HTTP/1.1 200 O\x01K\r\n\r\n",
            ResponseError::InvalidStatusLine,
        ),
        ("HTTP/1.1 099 X\r\n\r\n", ResponseError::InvalidStatusLine),
        ("HTTP/1.1 20 X\r\n\r\n", ResponseError::InvalidStatusLine),
        ("HTTP/1.1 2000 X\r\n\r\n", ResponseError::InvalidStatusLine),
        ("HTTP/1.1  200 OK\r\n\r\n", ResponseError::InvalidStatusLine),
        ("HTTP/2.0 200 OK\r\n\r\n", ResponseError::InvalidStatusLine),
        ("<html>", ResponseError::InvalidStatusLine),
    ]);
}

#[test]
fn malformed_response_framing_is_refused() {
    use FramingError::*;
    let table = [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            LengthAndCoding,
        ),
        ("Content-Length: 3, 3", InvalidLength),
        (
            "Content-Length: 3\r\nContent-Length: 4",
            RepeatedLength { count: 2 },
        ),
        ("Transfer-Encoding: gzip, chunked", UnknownCoding),
    ];
    for (lines, error) in table {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        check_refused(&[(&text, error.into())]);
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    check_refused(&[(old, CodingBeforeHttp11.into())]);
}

#[test]
fn responses_over_the_limits_are_refused() {
    let large = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(17));
    check_refused(&[
        (&large, ResponseError::HeadTooLarge { bytes_max: 1024 }),
        (&many, ResponseError::TooManyHeaders { headers_max: 16 }),
    ]);
}

#[test]
fn incomplete_responses_wait() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    for bytes in 0..text.len() {
        assert!(
            parse_response(&text[..bytes], Method::Get, &LIMITS)
                .unwrap()
                .is_none(),
            "{bytes}"
        );
    }
}

/// Pieces that matter to an HTTP parser, so that random heads come close to valid ones.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            "\r\n", "\n", "\r", " ", "\t", ":", ",", "GET ", "PUT ", "CONNECT ", "/", "/k?q", "*", "http://a/",
            "a:80", " HTTP/1.1\r\n", " HTTP/1.0\r\n", " HTTP/2.0\r\n", "Host: a\r\n", "Host: b:80\r\n",
            "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n", "x: y\r\n", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 ", "204", "\r\n\r\n", "#",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_request_gets_the_same_answer_at_any_length(bytes in pieces()) {
        check_prefixes(&bytes);
    }

    #[test]
    fn an_accepted_request_written_again_parses_to_the_same(bytes in pieces()) {
        let Ok(Some(head)) = parse_request(&bytes, &LIMITS) else { return Ok(()) };
        let mut out = Vec::new();
        let mut writer = RequestWriter::new(&mut out, head.method_raw, head.target, None).unwrap();
        writer.raw_lines(head.headers.raw()).unwrap();
        writer.finish();
        if head.version == Version::Http11 {
            let again = parse_request(&out, &LIMITS).unwrap().unwrap();
            prop_assert!(again.headers.iter().eq(head.headers.iter()));
            prop_assert_eq!(again.body, head.body);
            prop_assert_eq!(again.bytes, out.len());
        }
    }

    #[test]
    fn any_response_gets_the_same_answer_at_any_length(bytes in pieces(), cut: prop::sample::Index) {
        let cut = cut.index(bytes.len() + 1);
        let whole = parse_response(&bytes, Method::Get, &LIMITS);
        match (parse_response(&bytes[..cut], Method::Get, &LIMITS), whole) {
            (Ok(None), _) => {}
            (Ok(Some(early)), Ok(Some(late))) => prop_assert_eq!(early.bytes, late.bytes),
            (Err(_), Err(_)) => {}
            (early, late) => prop_assert!(false, "{early:?} became {late:?}"),
        }
    }

    #[test]
    fn a_resumed_scan_ends_where_the_head_ends(bytes in pieces(), from: prop::sample::Index) {
        let from = from.index(bytes.len() + 1);
        let end = head_complete(&bytes, 0);
        if head_complete(&bytes[..from], 0).is_none() {
            prop_assert_eq!(head_complete(&bytes, from), end);
        }
        if let Ok(Some(head)) = parse_request(&bytes, &LIMITS) {
            prop_assert_eq!(end, Some(head.bytes));
        }
    }
}

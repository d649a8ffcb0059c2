//! Any bytes as a request head. The first byte says where the input is cut and where a scan resumes.
//!
//! Held: an answer given early is the answer of the whole, bytes behind a head change nothing, every slice
//! lies in the head, an accepted head written again parses to the same one, and the scan for the
//! end of the head agrees with the parser.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::http::{
    HeadLimits, RequestHead, RequestWriter, TargetForm, Version, head_complete, is_hop_by_hop,
    parse_http_date, parse_request,
};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 512,
    headers_max: 12,
};

fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let cut = usize::from(*first) * (bytes.len() + 1) / 256;
    let whole = parse_request(bytes, &LIMITS);
    match (parse_request(&bytes[..cut], &LIMITS), &whole) {
        (Ok(None), _) => {}
        (Ok(Some(early)), Ok(Some(late))) => assert_eq!(early.bytes, late.bytes),
        (Err(early), Err(late)) => assert_eq!(early.status(), late.status(), "{early} {late}"),
        (early, late) => panic!("{early:?} became {late:?}"),
    }
    let end = head_complete(bytes, 0);
    if head_complete(&bytes[..cut], 0).is_none() {
        assert_eq!(head_complete(bytes, cut), end);
    }
    match whole {
        Ok(None) => assert_eq!(end, None),
        Ok(Some(head)) => {
            assert_eq!(end, Some(head.bytes));
            check_head(bytes, &head);
            check_written_again(&head);
        }
        Err(error) => assert!([400, 431, 501, 505].contains(&error.status())),
    }
});

fn check_head(bytes: &[u8], head: &RequestHead<'_>) {
    assert!(head.bytes <= bytes.len().min(LIMITS.head_bytes_max));
    assert!(bytes[..head.bytes].ends_with(b"\r\n"));
    assert!(head.headers.len() <= LIMITS.headers_max);
    assert!(head.host.is_some() || head.version == Version::Http10);
    assert!(head.target.contains(head.path) || head.path == "/");
    assert!(!head.expect_continue || !head.body.is_empty());
    assert_eq!(
        head.authority.is_some(),
        matches!(head.form, TargetForm::Absolute | TargetForm::Authority)
    );
    let mut raw = Vec::new();
    for line in head.headers.lines() {
        assert!(head.headers.find(line.name).is_some());
        assert!(head.headers.count(line.name) >= 1);
        assert!(
            !line
                .value
                .iter()
                .any(|byte| matches!(byte, b'\r' | b'\n' | 0))
        );
        let _ = is_hop_by_hop(line.name, &head.headers);
        let _ = parse_http_date(line.value);
        raw.extend_from_slice(line.raw);
    }
    assert_eq!(raw, head.headers.raw());
}

fn check_written_again(head: &RequestHead<'_>) {
    let mut out = Vec::new();
    let mut writer = RequestWriter::new(&mut out, head.method_raw, head.target, None)
        .expect("what was parsed can be written");
    for (name, value) in &head.headers {
        writer
            .header(name, value)
            .expect("what was parsed can be written");
    }
    writer.finish();
    let limits = HeadLimits {
        head_bytes_max: 2048,
        ..LIMITS
    };
    match parse_request(&out, &limits) {
        Ok(Some(again)) => {
            assert_eq!(
                (again.method_raw, again.target),
                (head.method_raw, head.target)
            );
            assert_eq!((again.path, again.query), (head.path, head.query));
            assert_eq!((again.body, again.host), (head.body, head.host));
            assert!(again.headers.iter().eq(head.headers.iter()));
            assert_eq!(again.bytes, out.len());
        }
        // Written as HTTP/1.1, a request of HTTP/1.0 may lack its Host.
        other => assert!(head.version == Version::Http10, "{other:?}"),
    }
}

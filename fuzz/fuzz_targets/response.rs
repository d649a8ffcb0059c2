//! Any bytes as a response head. The first two bytes say where the input is cut and what was asked.
//!
//! Held: an answer given early is the answer of the whole, an accepted head written again parses to the same
//! one, and no body follows where none may.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millrace::http::{
    HeadLimits, Method, ResponseBody, ResponseHead, ResponseWriter, Version, head_complete,
    parse_response,
};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 512,
    headers_max: 12,
};

fuzz_target!(|input: &[u8]| {
    let [first, second, bytes @ ..] = input else {
        return;
    };
    let cut = usize::from(*first) * (bytes.len() + 1) / 256;
    let method = [Method::Get, Method::Head, Method::Connect][usize::from(*second) % 3];
    let whole = parse_response(bytes, method, &LIMITS);
    match (parse_response(&bytes[..cut], method, &LIMITS), &whole) {
        (Ok(None), _) | (Err(_), Err(_)) => {}
        (Ok(Some(early)), Ok(Some(late))) => assert_eq!(early.bytes, late.bytes),
        (early, late) => panic!("{early:?} became {late:?}"),
    }
    if let Ok(Some(head)) = whole {
        assert_eq!(head_complete(bytes, 0), Some(head.bytes));
        check_head(bytes, method, &head);
        check_written_again(method, &head);
    }
});

fn check_head(bytes: &[u8], method: Method, head: &ResponseHead<'_>) {
    assert!(head.bytes <= bytes.len().min(LIMITS.head_bytes_max));
    assert!((100..=999).contains(&head.status));
    if method == Method::Head || head.status < 200 || matches!(head.status, 204 | 304) {
        assert_eq!(head.body, ResponseBody::None);
    }
    assert!(!head.is_interim() || head.body == ResponseBody::None);
    assert!(!head.keep_alive || head.body != ResponseBody::UntilClose);
}

fn check_written_again(method: Method, head: &ResponseHead<'_>) {
    let mut out = Vec::new();
    let mut writer = ResponseWriter::with_reason(&mut out, head.status, head.reason)
        .expect("what was parsed can be written");
    writer
        .raw_lines(head.headers.raw())
        .expect("what was parsed can be written");
    writer.finish();
    let limits = HeadLimits {
        head_bytes_max: 2048,
        ..LIMITS
    };
    let again = parse_response(&out, method, &limits)
        .unwrap()
        .expect("a whole head");
    assert_eq!(
        (again.status, again.reason, again.body),
        (head.status, head.reason, head.body)
    );
    assert!(again.headers.iter().eq(head.headers.iter()));
    assert_eq!(again.bytes, out.len());
    assert!(again.keep_alive == head.keep_alive || head.version == Version::Http10);
}

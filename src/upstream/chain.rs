//! What another millrace between us and the origin says of itself.
//!
//! Called by `outages` (whose failure a status is) and by fills, through [`super::Response`]. Pure.

use crate::http::ResponseHead;

/// How this cache names itself in `Cache-Status`.
const NAME: &[u8] = b"millrace";
/// Greater ages are taken for this one (RFC 9111, section 1.2.2).
const AGE_MAX_SECONDS: u64 = 1 << 31;

/// Whether the nearest cache on the way of an answer is a millrace: the last member of its `Cache-Status` (RFC 9211, section 2). That it answers
/// says that it is well, whatever it says of the origin behind it.
pub(super) fn is_of_parent(head: &ResponseHead<'_>) -> bool {
    let last = head.headers.find_all("cache-status").last();
    let member = last.and_then(|line| line.rsplit(|byte| *byte == b',').next());
    member.is_some_and(|member| {
        let name = member.split(|byte| *byte == b';').next();
        name.unwrap_or_default().trim_ascii() == NAME
    })
}

/// `Age` of a parent's answer in milliseconds; 0 where it is missing, not a number, or there twice. Other origins' times to live are not ours:
/// what they say of age does not make a copy old that they have given as current.
pub(super) fn age_ms(head: &ResponseHead<'_>) -> u64 {
    if !is_of_parent(head) {
        return 0;
    }
    let mut ages = head.headers.find_all("age");
    let (Some(age), None) = (ages.next(), ages.next()) else {
        return 0;
    };
    if age.is_empty() || !age.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    let text = std::str::from_utf8(age).unwrap_or_default();
    // Only digits: what does not fit is very old.
    let seconds = text.parse::<u64>().unwrap_or(AGE_MAX_SECONDS);
    seconds.min(AGE_MAX_SECONDS) * 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Method, parse_response};

    fn with<T>(lines: &str, look: impl Fn(&ResponseHead<'_>) -> T) -> T {
        let text = format!("HTTP/1.1 503 No\r\nContent-Length: 0\r\n{lines}\r\n");
        let head = parse_response(text.as_bytes(), Method::Get, &HeadLimits::default());
        look(&head.expect("a head").expect("all of it"))
    }

    #[test]
    fn a_parent_is_who_spoke_last() {
        for (lines, parent) in [
            ("", false),
            ("Cache-Status: millrace; detail=error\r\n", true),
            ("Cache-Status: Other; hit, millrace; fwd=miss\r\n", true),
            ("Cache-Status: millrace; fwd=miss, Other; hit\r\n", false),
            ("Cache-Status: Other\r\ncache-status:  millrace\r\n", true),
            ("Cache-Status: millraces; hit\r\n", false),
            ("Cache-Status: \r\n", false),
        ] {
            assert_eq!(with(lines, is_of_parent), parent, "{lines:?}");
        }
    }

    #[test]
    fn an_age_is_a_number_of_seconds_given_once() {
        for (lines, ms) in [
            ("", 0),
            ("Age: 7\r\n", 7_000),
            ("Age: -7\r\n", 0),
            ("Age: +7\r\n", 0),
            ("Age: 1.5\r\n", 0),
            ("Age:\r\n", 0),
            ("Age: 1\r\nAge: 2\r\n", 0),
            ("Age: 99999999999999999999999999\r\n", (1 << 31) * 1000),
        ] {
            let of_parent = format!("{lines}Cache-Status: millrace; hit\r\n");
            assert_eq!(with(&of_parent, age_ms), ms, "{lines:?}");
            assert_eq!(with(lines, age_ms), 0, "{lines:?}");
        }
    }
}

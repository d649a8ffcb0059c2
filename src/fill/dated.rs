//! How old an answer was when it came: RFC 9111, section 4.2.3. Pure.
//!
//! Called by `open` for every answer whose head is stored.

use crate::disk::Dated;
use crate::http::{ResponseHead, parse_http_date};

/// The longest age there is.
const AGE_SECONDS_MAX: u64 = 1 << 31;

/// When an answer was made that came at `came_unix_ms`, `waited_ms` after it had been asked for.
#[must_use]
pub fn dated(head: &ResponseHead<'_>, waited_ms: u64, came_unix_ms: u64) -> Dated {
    let came_unix_s = came_unix_ms / 1000;
    let date_unix_s = head.headers.find("date").and_then(parse_http_date);
    // A date to come is a clock that is wrong, and says nothing of the age.
    let apparent_s = date_unix_s.map_or(0, |date| came_unix_s.saturating_sub(date));
    let age_s = head.headers.find("age").and_then(seconds).unwrap_or(0);
    Dated {
        date_unix_s: date_unix_s.unwrap_or(came_unix_s),
        age_ms: (apparent_s * 1000).max(age_s * 1000 + waited_ms),
    }
}

/// The first of a list; what is no number says nothing (section 5.1).
fn seconds(value: &[u8]) -> Option<u64> {
    let first = value.split(|byte| *byte == b',').next()?.trim_ascii();
    let digits = Some(first).filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0u64, |seconds, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some((seconds * 10 + digit).min(AGE_SECONDS_MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{HeadLimits, Method, parse_response};

    #[test]
    fn an_age_is_the_larger_of_what_is_told_and_what_the_date_shows() {
        // Wed, 12 Aug 2026 10:00:00 GMT and a half.
        let (came_unix_ms, noon) = (1_786_528_800_500, 1_786_528_800);
        for (lines, waited_ms, date_unix_s, age_ms) in [
            ("", 0, noon, 0),
            ("", 70, noon, 70),
            ("Age: 5\n", 70, noon, 5070),
            ("Date: Wed, 12 Aug 2026 10:00:00 GMT\n", 0, noon, 0),
            (
                "Date: Wed, 12 Aug 2026 09:59:50 GMT\n",
                70,
                noon - 10,
                10_000,
            ),
            (
                "Date: Wed, 12 Aug 2026 09:59:50 GMT\nAge: 3\n",
                70,
                noon - 10,
                10_000,
            ),
            (
                "Date: Wed, 12 Aug 2026 09:59:50 GMT\nAge: 20\n",
                70,
                noon - 10,
                20_070,
            ),
            // Clocks and words that are wrong.
            ("Date: Wed, 12 Aug 2026 11:00:00 GMT\n", 0, noon + 3600, 0),
            ("Date: now\nAge: 4\n", 0, noon, 4000),
            ("Age: x\n", 0, noon, 0),
            ("Age: -1\n", 0, noon, 0),
            ("Age:\n", 0, noon, 0),
            ("Age: 4, 5\n", 0, noon, 4000),
            ("Age: 99999999999999999999999\n", 0, noon, 1000 << 31),
        ] {
            let raw = format!("HTTP/1.1 200 OK\n{lines}\n").replace('\n', "\r\n");
            let limits = HeadLimits::default();
            let head = parse_response(raw.as_bytes(), Method::Get, &limits);
            let head = head.expect("a head").expect("a whole one");
            let want = Dated {
                date_unix_s,
                age_ms,
            };
            assert_eq!(dated(&head, waited_ms, came_unix_ms), want, "{lines}");
        }
    }
}

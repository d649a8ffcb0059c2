//! One request as one line of JSON.
//!
//! Called by [`super::ShardLog::record`]. Invariants: a line is valid JSON and UTF-8 whatever a client sent, has no
//! line break inside and at most [`LINE_BYTES_MAX`] bytes; every key is always there, `null` where nothing is known;
//! nothing is allocated. No query, no header but `Range` and `User-Agent` comes in here, and what could still carry a
//! secret (user information in a host, a query that was percent-encoded into a key) is cut out. Times are arguments.

use std::io::Write;
use std::net::SocketAddr;

use crate::metrics::Outcome;

/// The longest line, its end included. Longer fields are cut, with `…` in place of the rest.
pub(super) const LINE_BYTES_MAX: usize = 24 << 10;

/// Longest texts taken as they came, in bytes; S3's own limit of a key is 1024.
const METHOD_BYTES_MAX: usize = 32;
pub(super) const NAME_BYTES_MAX: usize = 256;
const KEY_BYTES_MAX: usize = 1024;

/// A byte of text becomes at most `\u0000`; what is no text is keys, numbers and one address.
const ESCAPED_BYTE_MAX: usize = 6;
const _: () = assert!(
    LINE_BYTES_MAX
        > 1024 + ESCAPED_BYTE_MAX * (METHOD_BYTES_MAX + KEY_BYTES_MAX + 10 * NAME_BYTES_MAX)
);

/// What is logged of one request. Texts are as they came; an empty one means that there is none.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// When the request's head was whole: milliseconds since 1970.
    pub time_unix_ms: u64,
    /// The client's end of the connection.
    pub client: SocketAddr,
    /// The door that the client came by.
    pub door: &'static str,
    /// The version of TLS it spoke; empty for none.
    pub tls: &'static str,
    /// As in the request line.
    pub method: &'a [u8],
    /// As in `Host`, or the authority of the request target.
    pub host: &'a [u8],
    /// The bucket that the host or path names.
    pub bucket: &'a [u8],
    /// The object key, percent-decoded, without a query.
    pub key: &'a [u8],
    /// The status sent; 0 when the connection ended before one was.
    pub status: u16,
    /// Body bytes given to the kernel.
    pub bytes_sent: u64,
    /// The value of `Range`.
    pub range: &'a [u8],
    /// How it was answered.
    pub result: Outcome,
    /// The origin's status, when it was asked.
    pub origin_status: Option<u16>,
    /// Whether the answer rests on what a fallback said in the place of its origin.
    pub by_fallback: bool,
    /// Whole request head to last byte of the response, microseconds.
    pub duration_us: u64,
    /// Whole request head to first byte of the response, microseconds.
    pub first_byte_us: Option<u64>,
    /// The id that the response carries.
    pub request_id: &'a [u8],
    /// The S3 operation's name.
    pub operation: &'static str,
    /// The value of `User-Agent`.
    pub user_agent: &'a [u8],
    /// What failed, in our own words: never a text that came from outside.
    pub error: Option<&'static str>,
}

impl Record<'_> {
    /// Appends the line, its end included, to `out`.
    pub fn write(&self, shard: usize, out: &mut Vec<u8>) {
        let before = out.len();
        begin(out, self.time_unix_ms, shard, self.client);
        out.extend_from_slice(b",\"door\":");
        text(out, self.door.as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"tls\":");
        text(out, self.tls.as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"method\":");
        text(out, self.method, METHOD_BYTES_MAX);
        out.extend_from_slice(b",\"host\":");
        text(out, without_user(self.host), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"bucket\":");
        text(out, self.bucket, NAME_BYTES_MAX);
        out.extend_from_slice(b",\"key\":");
        text(out, without_signature(self.key), KEY_BYTES_MAX);
        out.extend_from_slice(b",\"status\":");
        number(out, u64::from(self.status));
        out.extend_from_slice(b",\"bytes_sent\":");
        number(out, self.bytes_sent);
        out.extend_from_slice(b",\"range\":");
        text(out, self.range, NAME_BYTES_MAX);
        out.extend_from_slice(b",\"result\":");
        text(out, self.result.text().as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"origin_status\":");
        optional_number(out, self.origin_status.map(u64::from));
        out.extend_from_slice(b",\"fallback\":");
        out.extend_from_slice(if self.by_fallback { b"true" } else { b"false" });
        out.extend_from_slice(b",\"duration_us\":");
        number(out, self.duration_us);
        out.extend_from_slice(b",\"first_byte_us\":");
        optional_number(out, self.first_byte_us);
        out.extend_from_slice(b",\"request_id\":");
        text(out, self.request_id, NAME_BYTES_MAX);
        out.extend_from_slice(b",\"operation\":");
        text(out, self.operation.as_bytes(), NAME_BYTES_MAX);
        out.extend_from_slice(b",\"user_agent\":");
        text(out, self.user_agent, NAME_BYTES_MAX);
        out.extend_from_slice(b",\"error\":");
        text(
            out,
            self.error.unwrap_or_default().as_bytes(),
            NAME_BYTES_MAX,
        );
        end(out, before);
    }
}

/// What every line begins with.
pub(super) fn begin(out: &mut Vec<u8>, unix_ms: u64, shard: usize, client: SocketAddr) {
    out.extend_from_slice(b"{\"time\":\"");
    time(out, unix_ms);
    out.extend_from_slice(b"\",\"shard\":");
    number(out, shard as u64);
    out.extend_from_slice(b",\"client\":\"");
    write!(out, "{client}\"").expect("a Vec takes every byte");
}

/// Ends the line that began at `start`.
pub(super) fn end(out: &mut Vec<u8>, start: usize) {
    out.extend_from_slice(b"}\n");
    assert!(
        out.len() - start <= LINE_BYTES_MAX,
        "an access-log line has a bound"
    );
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn optional_number(out: &mut Vec<u8>, value: Option<u64>) {
    match value {
        Some(value) => number(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// A JSON string of what `bytes` says, cut behind `bytes_max`; `null` when it says nothing.
pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) {
    if bytes.is_empty() {
        out.extend_from_slice(b"null");
        return;
    }
    let shown = cut(bytes, bytes_max);
    out.push(b'"');
    for chunk in shown.utf8_chunks() {
        escape(out, chunk.valid().as_bytes());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    if shown.len() < bytes.len() {
        out.extend_from_slice("…".as_bytes());
    }
    out.push(b'"');
}

/// The first `bytes_max` bytes, less the beginning of a character that would not be whole.
fn cut(bytes: &[u8], bytes_max: usize) -> &[u8] {
    if bytes.len() <= bytes_max {
        return bytes;
    }
    let continues = |byte: u8| byte & 0b1100_0000 == 0b1000_0000;
    let start = (0..=bytes_max)
        .rev()
        .take(4)
        .find(|at| !continues(bytes[*at]));
    &bytes[..start.unwrap_or(bytes_max)]
}

/// Copies runs that need nothing, and escapes what JSON or a terminal would take as a command.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut copied = 0;
    for (at, byte) in text.iter().enumerate() {
        let plain = !matches!(byte, 0..=0x1f | b'"' | b'\\' | 0x7f);
        if plain {
            continue;
        }
        out.extend_from_slice(&text[copied..at]);
        copied = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                const DIGITS: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(control >> 4)]);
                out.push(DIGITS[usize::from(control & 0xf)]);
            }
        }
    }
    out.extend_from_slice(&text[copied..]);
}

/// A host without the `user:password@` that a URL may carry (RFC 3986 section 3.2.1).
fn without_user(host: &[u8]) -> &[u8] {
    match host.iter().rposition(|byte| *byte == b'@') {
        Some(at) => &host[at + 1..],
        None => host,
    }
}

/// A key without a presigned query: a client that encodes a whole URL twice sends it as a part of the path.
fn without_signature(key: &[u8]) -> &[u8] {
    let Some(at) = key.iter().position(|byte| *byte == b'?') else {
        return key;
    };
    let query = &key[at..];
    let says = |word: &[u8]| {
        query
            .windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    };
    if says(b"x-amz-") || says(b"signature") || says(b"awsaccesskeyid") {
        return &key[..at];
    }
    key
}

/// RFC 3339 in UTC with milliseconds. Gregorian date from the day number, by eras of 400 years.
fn time(out: &mut Vec<u8>, unix_ms: u64) {
    let seconds = unix_ms / 1_000;
    // Days since 0000-03-01: with the leap day at its end, a year's length needs no case of its own.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, seconds / 3_600 % 24, 2);
    out.push(b':');
    digits(out, seconds / 60 % 60, 2);
    out.push(b':');
    digits(out, seconds % 60, 2);
    out.push(b'.');
    digits(out, unix_ms % 1_000, 3);
    out.push(b'Z');
}

/// `value` with leading zeros up to `width` digits.
fn digits(out: &mut Vec<u8>, value: u64, width: usize) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value).as_bytes();
    out.extend(std::iter::repeat_n(
        b'0',
        width.saturating_sub(digits.len()),
    ));
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record<'static> {
        Record {
            time_unix_ms: 1_709_210_096_007,
            client: "[2001:db8::1]:4711".parse().expect("an address"),
            door: "http",
            tls: "",
            method: b"GET",
            host: b"bucket.s3.eu-central-1.amazonaws.com",
            bucket: b"bucket",
            key: b"a/b c.bin",
            status: 206,
            bytes_sent: 1024,
            range: b"bytes=0-1023",
            result: Outcome::Hit,
            origin_status: None,
            by_fallback: false,
            duration_us: 57,
            first_byte_us: Some(21),
            request_id: b"0123456789ABCDEF",
            operation: "GetObject",
            user_agent: b"aws-cli/2.0",
            error: None,
        }
    }

    fn line(record: &Record) -> String {
        let mut out = Vec::new();
        record.write(3, &mut out);
        String::from_utf8(out).expect("a line is UTF-8")
    }

    #[test]
    fn a_line_has_every_field_in_this_order() {
        assert_eq!(
            line(&record()),
            concat!(
                r#"{"time":"2024-02-29T12:34:56.007Z","shard":3,"client":"[2001:db8::1]:4711","door":"http","tls":null,"#,
                r#""method":"GET","host":"bucket.s3.eu-central-1.amazonaws.com","bucket":"bucket","#,
                r#""key":"a/b c.bin","status":206,"bytes_sent":1024,"range":"bytes=0-1023","#,
                r#""result":"hit","origin_status":null,"fallback":false,"duration_us":57,"first_byte_us":21,"#,
                r#""request_id":"0123456789ABCDEF","operation":"GetObject","#,
                r#""user_agent":"aws-cli/2.0","error":null}"#,
                "\n"
            )
        );
    }

    #[test]
    fn a_key_cannot_forge_a_line_or_a_field() {
        let forged = Record {
            key: b"a\r\n{\"status\":200}\x00\x1b[2J\x7f\\",
            ..record()
        };
        let line = line(&forged);
        assert!(
            line.contains(r#""key":"a\r\n{\"status\":200}\u0000\u001b[2J\u007f\\","#),
            "{line}"
        );
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        let line = line(&Record {
            key: b"caf\xe9/\xff\xfe\xc3\xbc",
            ..record()
        });
        assert!(
            line.contains("\"key\":\"caf\u{fffd}/\u{fffd}\u{fffd}ü\""),
            "{line}"
        );
    }

    #[test]
    fn a_long_field_is_cut_between_characters() {
        let key = "ü".repeat(KEY_BYTES_MAX);
        let line = line(&Record {
            key: key.as_bytes(),
            ..record()
        });
        let expected = format!("\"key\":\"{}…\"", "ü".repeat(KEY_BYTES_MAX / 2));
        assert!(line.contains(&expected), "{line}");
    }

    #[test]
    fn no_signature_credential_or_token_is_logged() {
        let secrets: [(&[u8], &[u8]); 3] = [
            (b"h", b"k?X-Amz-Credential=SECRET&X-Amz-Signature=SECRET"),
            (b"h", b"k?AWSAccessKeyId=SECRET&Signature=SECRET"),
            (b"user:SECRET@h", b"k"),
        ];
        for (host, key) in secrets {
            let line = line(&Record {
                host,
                key,
                ..record()
            });
            assert!(!line.contains("SECRET"), "{line}");
            assert!(line.contains("\"host\":\"h\""), "{line}");
            assert!(line.contains("\"key\":\"k\""), "{line}");
        }
        assert!(
            line(&Record {
                key: b"what?",
                ..record()
            })
            .contains("\"key\":\"what?\"")
        );
    }

    #[test]
    fn times_are_right_at_the_edges_of_years_and_leap_days() {
        let edges = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (978_307_199_999, "2000-12-31T23:59:59.999Z"),
            (1_740_787_200_000, "2025-03-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (unix_ms, expected) in edges {
            let mut out = Vec::new();
            time(&mut out, unix_ms);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        }
    }

    proptest! {
        #[test]
        fn every_line_is_one_bounded_line_without_control_bytes(
            texts in proptest::array::uniform7(proptest::collection::vec(any::<u8>(), 0..3_000)),
            numbers in any::<(u64, u64, u64, u16)>(),
        ) {
            let [method, host, bucket, key, range, request_id, user_agent] = &texts;
            let (time_unix_ms, bytes_sent, duration_us, status) = numbers;
            let whole = Record {
                time_unix_ms, bytes_sent, duration_us, status, method, host, bucket, key, range, request_id,
                user_agent, ..record()
            };
            let line = line(&whole);
            prop_assert!(line.len() <= LINE_BYTES_MAX);
            let body = line.strip_suffix("}\n").expect("a line ends");
            prop_assert!(!body.bytes().any(|byte| byte < 0x20 || byte == 0x7f));
        }
    }

    #[test]
    fn the_longest_line_keeps_within_its_bound() {
        let (worst, most) = (vec![1_u8; 70_000], u64::MAX);
        let whole = Record {
            time_unix_ms: most,
            client: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535"
                .parse()
                .expect("an address"),
            door: "http",
            tls: "1.3",
            method: &worst,
            host: &worst,
            bucket: &worst,
            key: &worst,
            status: u16::MAX,
            bytes_sent: most,
            range: &worst,
            result: Outcome::Partial,
            origin_status: Some(u16::MAX),
            by_fallback: false,
            duration_us: most,
            first_byte_us: Some(most),
            request_id: &worst,
            operation: "",
            user_agent: &worst,
            error: None,
        };
        assert!(line(&whole).len() <= LINE_BYTES_MAX);
    }
}

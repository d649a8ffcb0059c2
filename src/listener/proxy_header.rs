//! The PROXY protocol: what a balancer says of the client for which it connects. Version 1 is a line of text, version 2 is binary.
//!
//! Pure: bytes in, verdict out; `arrive` reads them. Strict, since what is said here decides who may come in: a header is what the
//! specification (haproxy.org/download/3.0/doc/proxy-protocol.txt) says byte for byte, or it is malformed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest line of version 1, its end included (section 2.1).
pub const V1_BYTES_MAX: usize = 107;
/// The longest rest of a header of version 2 that is taken: addresses, and what balancers tell beside them.
pub const V2_REST_BYTES_MAX: usize = 4096;

const V1_START: &[u8] = b"PROXY ";
const V2_START: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The beginning of a header; all of them are part of it.
    Incomplete,
    /// A header of so many bytes. The client is who it names, or the balancer itself where it names nobody.
    Whole {
        /// Its length.
        bytes: usize,
        /// The client.
        client: Option<SocketAddr>,
    },
    /// No header.
    Malformed,
}

/// Reads the header at the start of `input`.
#[must_use]
pub fn parse(input: &[u8]) -> Header {
    let begins = |start: &[u8]| {
        let known = input.len().min(start.len());
        input[..known] == start[..known]
    };
    if begins(V2_START) {
        return binary(input);
    }
    if begins(V1_START) {
        return line(input);
    }
    Header::Malformed
}

fn line(input: &[u8]) -> Header {
    let window = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        return match window.len() < V1_BYTES_MAX {
            true => Header::Incomplete,
            false => Header::Malformed,
        };
    };
    let words = window[..end].strip_suffix(b"\r");
    let words = words.and_then(|words| std::str::from_utf8(words).ok());
    match words.and_then(named) {
        Some(client) => Header::Whole {
            bytes: end + 1,
            client,
        },
        None => Header::Malformed,
    }
}

/// The client of a line; the outer `None` is for a line that is none.
fn named(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    let (Some("PROXY"), Some(family)) = (words.next(), words.next()) else {
        return None;
    };
    // What follows UNKNOWN is to be left alone.
    if family == "UNKNOWN" {
        return Some(None);
    }
    let address = |word: Option<&str>| -> Option<IpAddr> {
        match family {
            "TCP4" => word?.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let from = address(words.next())?;
    let _to = address(words.next())?;
    let from_port = port(words.next()?)?;
    let _to_port = port(words.next()?)?;
    if words.next().is_some() {
        return None;
    }
    Some(Some(SocketAddr::new(from, from_port)))
}

/// Digits alone, without a zero in front.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let led_by_zero = word.len() > 1 && word.starts_with('0');
    word.parse().ok().filter(|_| plain && !led_by_zero)
}

fn binary(input: &[u8]) -> Header {
    let Some(head) = input.first_chunk::<V2_HEAD_BYTES>() else {
        return Header::Incomplete;
    };
    let [.., version_command, family, high, low] = *head;
    let rest_bytes = usize::from(u16::from_be_bytes([high, low]));
    let local = match version_command {
        0x20 => true,
        0x21 => false,
        _ => return Header::Malformed,
    };
    let address_bytes = match family {
        // UNSPEC; UDP and UNIX sockets do not lead to a door of TCP.
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        _ => return Header::Malformed,
    };
    if rest_bytes > V2_REST_BYTES_MAX || (!local && rest_bytes < address_bytes) {
        return Header::Malformed;
    }
    let bytes = V2_HEAD_BYTES + rest_bytes;
    let Some(rest) = input.get(V2_HEAD_BYTES..bytes) else {
        return Header::Incomplete;
    };
    let client = match local {
        true => None,
        false => source(rest, address_bytes),
    };
    Header::Whole { bytes, client }
}

fn source(rest: &[u8], address_bytes: usize) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    match address_bytes {
        12 => Some((Ipv4Addr::from(*rest.first_chunk::<4>()?), port(8)?).into()),
        36 => Some((Ipv6Addr::from(*rest.first_chunk::<16>()?), port(32)?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = V2_START.to_vec();
        header.extend_from_slice(&[version_command, family]);
        header.extend_from_slice(&(rest.len() as u16).to_be_bytes());
        header.extend_from_slice(rest);
        header
    }

    fn whole(input: &[u8]) -> Option<(usize, Option<String>)> {
        match parse(input) {
            Header::Whole { bytes, client } => Some((bytes, client.map(|at| at.to_string()))),
            Header::Incomplete | Header::Malformed => None,
        }
    }

    const V4_REST: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 0, 80];

    #[test]
    fn both_versions_name_the_client() {
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\nGET / HTTP/1.1\r\n";
        assert_eq!(whole(line), Some((40, Some("192.0.2.1:4660".to_owned()))));
        let line = b"PROXY TCP6 2001:db8::1 ::1 65535 443\r\n\x16\x03\x01";
        assert_eq!(
            whole(line),
            Some((38, Some("[2001:db8::1]:65535".to_owned())))
        );
        let mut header = v2(0x21, 0x11, V4_REST);
        header.extend_from_slice(b"GET /");
        assert_eq!(
            whole(&header),
            Some((28, Some("192.0.2.1:4660".to_owned())))
        );
        let mut rest = [0u8; 36];
        rest[15] = 1;
        rest[33] = 7;
        let with_more = [&rest[..], &[4, 0, 1, 0]].concat();
        assert_eq!(
            whole(&v2(0x21, 0x21, &with_more)),
            Some((56, Some("[::1]:7".to_owned())))
        );
    }

    #[test]
    fn a_balancer_that_asks_for_itself_names_nobody() {
        assert_eq!(whole(b"PROXY UNKNOWN\r\n"), Some((15, None)));
        assert_eq!(whole(b"PROXY UNKNOWN ff:: fe:: 1 2\r\n"), Some((29, None)));
        assert_eq!(whole(&v2(0x20, 0x00, b"")), Some((16, None)));
        assert_eq!(whole(&v2(0x20, 0x11, V4_REST)), Some((28, None)));
        assert_eq!(whole(&v2(0x21, 0x00, b"xyz")), Some((19, None)));
    }

    #[test]
    fn what_is_not_said_exactly_so_is_malformed() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for line in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY  UNKNOWN\r\n",
            &long,
        ] {
            assert_eq!(parse(line.as_bytes()), Header::Malformed, "{line}");
        }
        for (version_command, family, rest) in [
            (0x11, 0x11, V4_REST),
            (0x22, 0x11, V4_REST),
            (0x21, 0x12, V4_REST),
            (0x21, 0x31, V4_REST),
            (0x21, 0x11, &V4_REST[1..]),
            (0x21, 0x21, V4_REST),
            (0x21, 0x11, &[0; V2_REST_BYTES_MAX + 1]),
        ] {
            let header = v2(version_command, family, rest);
            assert_eq!(parse(&header), Header::Malformed, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn a_header_that_is_cut_is_incomplete_and_never_another(rest in proptest::collection::vec(any::<u8>(), 12..200), cut in any::<prop::sample::Index>()) {
            for header in [v2(0x21, 0x11, &rest), b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 80\r\n".to_vec()] {
                let cut = cut.index(header.len());
                prop_assert_eq!(parse(&header[..cut]), Header::Incomplete);
                prop_assert!(matches!(parse(&header), Header::Whole { bytes, .. } if bytes == header.len()), "{:?}", header);
            }
        }

        #[test]
        fn any_bytes_have_a_verdict_within_bounds(input in proptest::collection::vec(any::<u8>(), 0..5000), how in 0..3u8) {
            let start: &[u8] = match how { 0 => b"", 1 => V1_START, _ => V2_START };
            let input = [start, &input].concat();
            match parse(&input) {
                Header::Whole { bytes, .. } => prop_assert!(bytes <= input.len()),
                Header::Incomplete => prop_assert!(input.len() < V2_HEAD_BYTES + V2_REST_BYTES_MAX),
                Header::Malformed => {}
            }
        }
    }
}

//! Which headers end at this hop and are not forwarded (RFC 9110, section 7.6.1).
//!
//! Called where a request or a response is copied to the other side. The caller still decides about
//! `Transfer-Encoding` (it writes its own framing) and keeps what a client signed.

use super::Headers;
use super::headers::list_has;

const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Names that stay although `Connection` lists them: without them the message would mean something
/// else on the other side than it meant to the cache.
const END_TO_END: [&str; 14] = [
    "accept-ranges",
    "age",
    "authorization",
    "cache-control",
    "date",
    "etag",
    "expires",
    "host",
    "last-modified",
    "location",
    "range",
    "server",
    "vary",
    "www-authenticate",
];
const END_TO_END_PREFIXES: [&str; 3] = ["content-", "if-", "x-amz-"];

/// Whether the header `name` is for this hop only: one of the fixed nine, or listed in the
/// `Connection` header of `connection_tokens` (the headers of the same message).
pub fn is_hop_by_hop(name: &str, connection_tokens: &Headers<'_>) -> bool {
    if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
        return true;
    }
    connection_tokens.lists_names && is_listed(name, connection_tokens) && !is_end_to_end(name)
}

fn is_listed(name: &str, headers: &Headers<'_>) -> bool {
    headers
        .find_all("connection")
        .any(|value| list_has(value, name.as_bytes()))
}

fn is_end_to_end(name: &str) -> bool {
    let starts_with = |prefix: &str| {
        name.as_bytes()
            .get(..prefix.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
    };
    END_TO_END
        .iter()
        .any(|kept| name.eq_ignore_ascii_case(kept))
        || END_TO_END_PREFIXES.iter().any(|prefix| starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_names_never_pass() {
        let none = Headers::empty();
        for name in HOP_BY_HOP {
            assert!(is_hop_by_hop(name, &none), "{name}");
            assert!(is_hop_by_hop(&name.to_uppercase(), &none), "{name}");
        }
        for name in [
            "host",
            "content-length",
            "etag",
            "x-connection",
            "expect",
            "",
            "t",
        ] {
            assert!(!is_hop_by_hop(name, &none), "{name}");
        }
    }

    #[test]
    fn names_listed_in_connection_do_not_pass() {
        let headers = Headers::parse(b"Connection: close, X-Hop\r\nconnection: y-hop\r\n").unwrap();
        for name in ["x-hop", "X-Hop", "Y-HOP", "close"] {
            assert!(is_hop_by_hop(name, &headers), "{name}");
        }
        assert!(!is_hop_by_hop("z-hop", &headers));
    }

    #[test]
    fn connection_cannot_take_what_a_response_means_away() {
        let kept = "ETag, Last-Modified, Vary, Accept-Ranges, Cache-Control, Expires, Location, Age, Server, WWW-Authenticate";
        let block = format!("Connection: {kept}, X-Hop\r\n");
        let headers = Headers::parse(block.as_bytes()).unwrap();
        for name in kept.split(", ") {
            assert!(!is_hop_by_hop(name, &headers), "{name}");
            assert!(!is_hop_by_hop(&name.to_lowercase(), &headers), "{name}");
        }
        assert!(is_hop_by_hop("x-hop", &headers));
    }

    #[test]
    fn connection_cannot_take_end_to_end_headers_away() {
        let block = b"Connection: Range, Host, authorization, If-Match, content-length, x-amz-date, Date\r\n";
        let headers = Headers::parse(block).unwrap();
        let kept = [
            "range",
            "Host",
            "Authorization",
            "IF-Match",
            "Content-Length",
            "X-Amz-Date",
            "date",
        ];
        for name in kept {
            assert!(!is_hop_by_hop(name, &headers), "{name}");
        }
    }
}

//! Errors as S3 spells them: code, status, message and the XML body that SDKs parse.
//!
//! Called by `request` (through its one map from failures) and by `listener` for requests that never became
//! one.
//!
//! Invariants: a code's status is one that SDKs treat as the code means it (500, 502, 503, 504 and
//! `RequestTimeout` are retried, other 4xx are not); whatever is written into the body is escaped and legal XML.
//!
//! Left to others: headers, the request id, which error is whose fault.

/// The table of codes: variant, status, text of `<Code>`, default text of `<Message>`.
macro_rules! error_codes {
    ($( $(#[$doc:meta])* $variant:ident = $status:literal $code:literal $message:literal; )+) => {
        /// An error code of S3, or one of the few that a proxy needs beside them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $( $(#[$doc])* $variant ),+ }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),+];

            /// The HTTP status.
            pub const fn status(self) -> u16 {
                match self { $( Self::$variant => $status ),+ }
            }

            /// The text of `<Code>`.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $code ),+ }
            }

            /// The text of `<Message>` where nothing better is known.
            pub const fn message(self) -> &'static str {
                match self { $( Self::$variant => $message ),+ }
            }
        }
    };
}

error_codes! {
    /// Not allowed: also a host that leads nowhere and a presigned URL past its time.
    AccessDenied = 403 "AccessDenied" "Access Denied";
    /// Well-formed, but not a request that can be answered.
    InvalidRequest = 400 "InvalidRequest" "The request is not valid.";
    /// A header or parameter with a value that is not allowed.
    InvalidArgument = 400 "InvalidArgument" "Invalid Argument";
    /// No `Host`, without which no signature is valid.
    MissingHostHeader = 400 "MissingHostHeader" "The request has no Host header.";
    /// A path that cannot be decoded.
    InvalidUri = 400 "InvalidURI" "Couldn't parse the specified URI.";
    /// A head or a framing that cannot be parsed.
    BadRequest = 400 "BadRequest" "An error occurred when parsing the HTTP request.";
    /// The client was too slow with its body; SDKs retry.
    RequestTimeout = 400 "RequestTimeout" "Your socket connection to the server was not read from or written to within the timeout period.";
    /// The client was too slow with its head.
    RequestHeadTimeout = 408 "RequestTimeout" "The request head did not arrive within the timeout period.";
    /// A method that this door does not take.
    MethodNotAllowed = 405 "MethodNotAllowed" "The specified method is not allowed against this resource.";
    /// A body without a length.
    MissingContentLength = 411 "MissingContentLength" "You must provide the Content-Length HTTP header.";
    /// `If-Match` does not hold.
    PreconditionFailed = 412 "PreconditionFailed" "At least one of the pre-conditions you specified did not hold";
    /// A body over the limit.
    EntityTooLarge = 413 "EntityTooLarge" "Your proposed upload exceeds the maximum allowed size.";
    /// A range beyond the object.
    InvalidRange = 416 "InvalidRange" "The requested range is not satisfiable";
    /// A head over the limit.
    RequestHeaderSectionTooLarge = 431 "RequestHeaderSectionTooLarge" "Your request header section exceeds the maximum allowed size.";
    /// Our own fault.
    InternalError = 500 "InternalError" "We encountered an internal error. Please try again.";
    /// A transfer coding that is not spoken.
    NotImplemented = 501 "NotImplemented" "A header you provided implies functionality that is not implemented.";
    /// The origin's fault.
    BadGateway = 502 "BadGateway" "The origin could not be reached or gave no valid answer.";
    /// A limit is reached: come back later.
    SlowDown = 503 "SlowDown" "Please reduce your request rate.";
    /// Shutting down, or the origin is known to be down.
    ServiceUnavailable = 503 "ServiceUnavailable" "Service is unable to handle request.";
    /// The origin's fault: too late.
    GatewayTimeout = 504 "GatewayTimeout" "The origin did not answer in time.";
    /// Neither HTTP/1.0 nor HTTP/1.1.
    HttpVersionNotSupported = 505 "HttpVersionNotSupported" "The HTTP version specified is not supported.";
}

/// Appends an error body. `message` replaces the code's own; `resource` is the raw path, never a query.
pub fn write_xml(
    out: &mut Vec<u8>,
    code: ErrorCode,
    message: Option<&str>,
    resource: &str,
    request_id: &str,
) {
    write_xml_with(
        out,
        code,
        message,
        &[("Resource", resource), ("RequestId", request_id)],
    );
}

/// Appends the body of S3's 416. `range` is the `Range` header as sent.
pub fn write_invalid_range_xml(
    out: &mut Vec<u8>,
    range: &str,
    object_bytes: u64,
    request_id: &str,
) {
    let bytes = object_bytes.to_string();
    let fields = [
        ("RangeRequested", range),
        ("ActualObjectSize", bytes.as_str()),
        ("RequestId", request_id),
    ];
    write_xml_with(out, ErrorCode::InvalidRange, None, &fields);
}

/// Appends the body of S3's 412. `condition` is the name of the header that did not hold.
pub fn write_precondition_failed_xml(out: &mut Vec<u8>, condition: &str, request_id: &str) {
    let fields = [("Condition", condition), ("RequestId", request_id)];
    write_xml_with(out, ErrorCode::PreconditionFailed, None, &fields);
}

fn write_xml_with(
    out: &mut Vec<u8>,
    code: ErrorCode,
    message: Option<&str>,
    fields: &[(&str, &str)],
) {
    out.extend_from_slice(b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    write_element(out, "Code", code.as_str());
    write_element(out, "Message", message.unwrap_or(code.message()));
    for (name, text) in fields {
        write_element(out, name, text);
    }
    out.extend_from_slice(b"</Error>");
}

fn write_element(out: &mut Vec<u8>, name: &str, text: &str) {
    for part in ["<", name, ">"] {
        out.extend_from_slice(part.as_bytes());
    }
    write_escaped(out, text);
    for part in ["</", name, ">"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Escapes text; what XML 1.0 cannot hold at all becomes U+FFFD.
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for character in text.chars() {
        let escaped = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&apos;",
            '\r' => "&#13;",
            '\n' | '\t' | ' '..='\u{7e}' => {
                out.push(character as u8);
                continue;
            }
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => "\u{fffd}",
            _ => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        };
        out.extend_from_slice(escaped.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    fn xml(message: Option<&str>, resource: &str) -> String {
        let mut out = Vec::new();
        write_xml(&mut out, ErrorCode::AccessDenied, message, resource, "ABC");
        String::from_utf8(out).expect("text")
    }

    /// Reference 2A.27 and 4.29.
    #[test]
    fn an_error_has_the_shape_that_sdks_parse() {
        assert_eq!(
            xml(Some("Request has expired"), "/b/k"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code><Message>Request has expired</Message><Resource>/b/k</Resource><RequestId>ABC</RequestId></Error>"
        );
        assert!(xml(None, "/").contains("<Message>Access Denied</Message>"));
    }

    /// Reference 4.21.
    #[test]
    fn an_unsatisfiable_range_names_the_range_and_the_size() {
        let mut out = Vec::new();
        write_invalid_range_xml(&mut out, "bytes=10-", 10, "ABC");
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>InvalidRange</Code><Message>The requested range is not satisfiable</Message><RangeRequested>bytes=10-</RangeRequested><ActualObjectSize>10</ActualObjectSize><RequestId>ABC</RequestId></Error>"
        );
    }

    #[test]
    fn text_of_a_client_cannot_leave_its_element() {
        let text = xml(None, "/b/<a>&\"'\u{0}\u{1b}\r\n</Resource>ü");
        assert!(text.contains("<Resource>/b/&lt;a&gt;&amp;&quot;&apos;\u{fffd}\u{fffd}&#13;\n&lt;/Resource&gt;ü</Resource>"));
    }

    #[test]
    fn codes_are_distinct_and_statuses_are_errors() {
        let names: HashSet<_> = ErrorCode::ALL
            .iter()
            .map(|code| (code.as_str(), code.status()))
            .collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        assert!(
            ErrorCode::ALL
                .iter()
                .all(|code| (400..600).contains(&code.status()))
        );
        assert!(ErrorCode::ALL.iter().all(|code| !code.message().is_empty()));
    }

    /// Reference 4.28 and 4.29.
    #[test]
    fn what_may_be_retried_has_a_status_that_is() {
        for (code, status) in [
            (ErrorCode::SlowDown, 503),
            (ErrorCode::ServiceUnavailable, 503),
            (ErrorCode::BadGateway, 502),
            (ErrorCode::GatewayTimeout, 504),
            (ErrorCode::InternalError, 500),
            (ErrorCode::RequestTimeout, 400),
        ] {
            assert_eq!(code.status(), status);
        }
    }

    proptest! {
        #[test]
        fn a_body_holds_only_its_own_markup(resource in "\\PC{0,40}") {
            let text = xml(None, &resource);
            prop_assert_eq!(text.matches('<').count(), 11);
            prop_assert!(text.ends_with("<RequestId>ABC</RequestId></Error>"));
        }
    }
}

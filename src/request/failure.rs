//! The one map from any failure to what the client gets: S3's code and status, and the words of the log.
//!
//! Called by `mod`, `read` and `pass`. Local errors are S3's XML with a request id; 502, 503 and 504 are what SDKs try again.

use crate::http::{Method, RequestError, http_date};
use crate::metrics::{Malformed, UpstreamFailure};
use crate::s3::{ErrorCode, RouteError, write_xml};
use crate::upstream::UpstreamError;

use super::answer::line;
use super::report::Report;

/// A failure as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// S3's code.
    pub code: ErrorCode,
    /// The status, where it is not the code's usual one.
    pub status: u16,
    /// For the log, in our own words.
    pub words: &'static str,
    /// Seconds for `Retry-After`.
    pub retry_after_seconds: Option<u32>,
}

impl Failure {
    /// A failure with the code's own status.
    #[must_use]
    pub fn new(code: ErrorCode, words: &'static str) -> Self {
        Self {
            code,
            status: code.status(),
            words,
            retry_after_seconds: None,
        }
    }

    /// A request head that was refused.
    #[must_use]
    pub fn of_head(error: &RequestError) -> Self {
        let status = error.status();
        let code = match status {
            431 => ErrorCode::RequestHeaderSectionTooLarge,
            _ if matches!(error, RequestError::MissingHost) => ErrorCode::MissingHostHeader,
            501 => ErrorCode::NotImplemented,
            505 => ErrorCode::HttpVersionNotSupported,
            _ => ErrorCode::InvalidRequest,
        };
        Self {
            status,
            ..Self::new(code, "malformed request")
        }
    }

    /// A host that leads nowhere.
    #[must_use]
    pub fn of_route(error: &RouteError) -> Self {
        Self::new(error.code(), "the host leads to no allowed origin")
    }

    /// A host that was allowed, and leads nowhere by now.
    #[must_use]
    pub fn no_origin() -> Self {
        Self::new(ErrorCode::AccessDenied, "the host leads to no origin")
    }

    /// An origin that could not be asked.
    #[must_use]
    pub fn of_upstream(error: &UpstreamError) -> Self {
        if matches!(error, UpstreamError::Busy { .. }) {
            return Self {
                retry_after_seconds: Some(1),
                ..Self::new(ErrorCode::SlowDown, "too many origin connections")
            };
        }
        if let UpstreamError::Out { pause_ms, .. } = error {
            let seconds = u32::try_from(pause_ms.div_ceil(1000)).unwrap_or(u32::MAX);
            return Self {
                retry_after_seconds: Some(seconds.max(1)),
                ..Self::new(
                    ErrorCode::ServiceUnavailable,
                    "the origin fails and is not asked",
                )
            };
        }
        if matches!(error, UpstreamError::AddressRefused { .. }) {
            return Self::new(
                ErrorCode::AccessDenied,
                "the origin's address may not be dialled",
            );
        }
        if error.is_timeout() {
            return Self::new(
                ErrorCode::GatewayTimeout,
                "the origin did not answer in time",
            );
        }
        match error.failure() {
            Some(UpstreamFailure::Dns) => Self::new(
                ErrorCode::BadGateway,
                "the origin's name could not be resolved",
            ),
            Some(UpstreamFailure::Tls) => {
                Self::new(ErrorCode::BadGateway, "TLS with the origin failed")
            }
            _ => Self::new(ErrorCode::BadGateway, "the origin failed"),
        }
    }

    /// Too many connections or requests.
    #[must_use]
    pub fn slow_down(words: &'static str) -> Self {
        Self {
            retry_after_seconds: Some(5),
            ..Self::new(ErrorCode::SlowDown, words)
        }
    }

    /// A head that did not come in time.
    #[must_use]
    pub fn head_timeout() -> Self {
        Self::new(
            ErrorCode::RequestHeadTimeout,
            "the request head was not whole in time",
        )
    }

    /// Writes the whole answer: head and, unless the method is HEAD, the XML. Returns the body's length.
    pub fn write(
        &self,
        report: &Report,
        (method, resource): (Method, &str),
        keep_alive: bool,
        unix_seconds: i64,
        out: &mut Vec<u8>,
    ) -> usize {
        let id = std::str::from_utf8(report.id()).unwrap_or_default();
        let mut body = Vec::with_capacity(512);
        write_xml(&mut body, self.code, None, resource, id);
        out.extend_from_slice(
            format!(
                "HTTP/1.1 {} {}\r\n",
                self.status,
                crate::http::standard_reason(self.status)
            )
            .as_bytes(),
        );
        line(out, "x-amz-request-id", report.id());
        line(out, "Date", &http_date(unix_seconds.max(0) as u64));
        line(out, "Content-Type", b"application/xml");
        line(out, "Content-Length", body.len().to_string().as_bytes());
        line(out, "Cache-Status", b"millrace; detail=error");
        line(out, "X-Cache-Status", b"ERROR");
        if let Some(seconds) = self.retry_after_seconds {
            line(out, "Retry-After", seconds.to_string().as_bytes());
        }
        if self.code == ErrorCode::MethodNotAllowed {
            line(out, "Allow", b"GET, HEAD, PUT, POST, DELETE, OPTIONS");
        }
        if !keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if method == Method::Head {
            return 0;
        }
        out.extend_from_slice(&body);
        body.len()
    }
}

/// The metric's label of a refused head.
#[must_use]
pub fn malformed(error: &RequestError) -> Malformed {
    match error {
        RequestError::HeadTooLarge { .. } => Malformed::HeadTooLarge,
        RequestError::TooManyHeaders { .. } => Malformed::TooManyHeaders,
        RequestError::MissingHost
        | RequestError::RepeatedHost { .. }
        | RequestError::InvalidHost(_) => Malformed::Host,
        RequestError::Framing(_) | RequestError::ConnectBody => Malformed::Framing,
        RequestError::Target(_) => Malformed::Target,
        RequestError::Line(_) => Malformed::Header,
        RequestError::InvalidMethod | RequestError::InvalidRequestLine => Malformed::RequestLine,
        RequestError::UnsupportedVersion { .. } => Malformed::Version,
    }
}

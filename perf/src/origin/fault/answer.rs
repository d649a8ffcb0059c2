//! Answers as S3 gives them: from a request and the store to status, headers and a window of bytes.
//!
//! Called by the connection once the request body is there. Invariants: pure but for the store; conditions come
//! before ranges (RFC 9110 section 13.2); an error never carries the object's headers. Left to others: bucket
//! operations (`bucket`), writes (`write_ops`), faults, framing.

use std::sync::Arc;

use super::condition::{Conditions, Outcome, Validators, evaluate, if_range_holds, to_http_date};
use super::range::{Wanted, wanted};
use super::request::Request;
use super::store::{Object, Store};
use super::{bucket, write_ops};
use crate::Headers;

/// The body of an answer.
#[derive(Debug, Clone)]
pub enum Payload {
    /// No body and no `Content-Length` (204, 304).
    None,
    /// These bytes.
    Text(String),
    /// A half-open window of an object.
    Window(Arc<Object>, u64, u64),
}

impl Payload {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Payload::None => 0,
            Payload::Text(text) => text.len() as u64,
            Payload::Window(_, start, end) => end - start,
        }
    }

    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some bytes from position `at` of the body, at most `bytes_max`; empty only at the end.
    pub fn slice(&self, at: u64, bytes_max: usize) -> &[u8] {
        match self {
            Payload::None => &[],
            Payload::Text(text) => {
                let start = at.min(text.len() as u64) as usize;
                &text.as_bytes()[start..text.len().min(start + bytes_max)]
            }
            Payload::Window(object, start, end) => {
                let left = (end - start).saturating_sub(at).min(bytes_max as u64) as usize;
                object.data.slice(start + at, left)
            }
        }
    }
}

/// An answer before faults and framing.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Without framing headers.
    pub headers: Headers,
    /// Not sent for HEAD, but its length is announced.
    pub payload: Payload,
}

impl Answer {
    /// An answer without body.
    pub fn empty(status: u16) -> Self {
        let payload = if matches!(status, 204 | 304) {
            Payload::None
        } else {
            Payload::Text(String::new())
        };
        Answer {
            status,
            headers: Vec::new(),
            payload,
        }
    }

    /// An XML document.
    pub fn xml(status: u16, inner: &str) -> Self {
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{inner}");
        let headers = vec![("Content-Type".to_string(), "application/xml".to_string())];
        Answer {
            status,
            headers,
            payload: Payload::Text(text),
        }
    }

    /// S3's error document. `extra` is XML that goes inside.
    pub fn error(status: u16, code: &str, message: &str, extra: &str) -> Self {
        Answer::xml(
            status,
            &format!("<Error><Code>{code}</Code><Message>{message}</Message>{extra}</Error>"),
        )
    }

    /// 412 with the condition that failed.
    pub fn precondition_failed(condition: &str) -> Self {
        let message = "At least one of the pre-conditions you specified did not hold";
        Answer::error(
            412,
            "PreconditionFailed",
            message,
            &format!("<Condition>{condition}</Condition>"),
        )
    }

    /// The error document that goes with a status that a fault asked for.
    pub fn of_status(status: u16) -> Self {
        let (code, message) = match status {
            403 => ("AccessDenied", "Access Denied"),
            404 => ("NoSuchKey", "The specified key does not exist."),
            412 => return Answer::precondition_failed("If-Match"),
            500 => (
                "InternalError",
                "We encountered an internal error. Please try again.",
            ),
            503 => ("SlowDown", "Please reduce your request rate."),
            _ => ("Fault", "A fault rule asked for this status."),
        };
        match status {
            204 | 304 => Answer::empty(status),
            _ => Answer::error(status, code, message, ""),
        }
    }

    /// Adds a header.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_string(), value.into()));
        self
    }

    /// Removes every line of that name.
    pub fn remove(&mut self, name: &str) {
        self.headers
            .retain(|(have, _)| !have.eq_ignore_ascii_case(name));
    }

    /// Replaces every line of that name by one.
    pub fn set(&mut self, name: &str, value: String) {
        self.remove(name);
        self.headers.push((name.to_string(), value));
    }

    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Answers a request; `body` is decoded from transfer chunks and from S3's own.
pub fn answer(store: &Store, request: &Request, body: Vec<u8>) -> Answer {
    let object = !request.bucket.is_empty() && !request.key.is_empty();
    match (request.method.as_str(), object) {
        ("GET" | "HEAD", true) => {
            match request.params().find_map(|(name, _)| sub_resource(&name)) {
                Some(xml) => Answer::xml(200, xml),
                None => read(store, request),
            }
        }
        (_, true) => write_ops::answer(store, request, body),
        (_, false) => bucket::answer(store, request, &body),
    }
}

/// Sub-resources of an object that are answered with a document, never with the object.
fn sub_resource(name: &str) -> Option<&'static str> {
    Some(match name {
        "tagging" => "<Tagging><TagSet></TagSet></Tagging>",
        "acl" => {
            "<AccessControlPolicy><AccessControlList></AccessControlList></AccessControlPolicy>"
        }
        "attributes" => "<GetObjectAttributesResponse></GetObjectAttributesResponse>",
        "legal-hold" => "<LegalHold><Status>OFF</Status></LegalHold>",
        "retention" => "<Retention></Retention>",
        "torrent" => "<Torrent></Torrent>",
        "uploadId" => "<ListPartsResult></ListPartsResult>",
        _ => return None,
    })
}

fn read(store: &Store, request: &Request) -> Answer {
    let version = request.param("versionId").filter(|id| id != "null");
    let found = match &version {
        Some(id) => store.version(&request.bucket, &request.key, id),
        None => store.get(&request.bucket, &request.key),
    };
    let Some(object) = found else {
        let (code, message) = match version {
            Some(_) => ("NoSuchVersion", "The specified version does not exist."),
            None => ("NoSuchKey", "The specified key does not exist."),
        };
        return Answer::error(
            404,
            code,
            message,
            &format!("<Key>{}</Key>", escape(&request.key)),
        );
    };
    let validators = Validators {
        etag: &object.etag,
        modified_s: object.modified_s,
    };
    match evaluate(conditions_of(request), &request.method, Some(validators)) {
        Outcome::Failed(condition) => return Answer::precondition_failed(condition),
        Outcome::NotModified => {
            return Answer {
                headers: validator_headers(&object),
                ..Answer::empty(304)
            };
        }
        Outcome::Go => {}
    }
    let answer = match request.param("partNumber") {
        Some(number) => read_part(request, &object, &number),
        None => read_range(request, &object, validators),
    };
    override_headers(request, answer)
}

/// The four conditional headers of a request.
pub fn conditions_of(request: &Request) -> Conditions<'_> {
    Conditions {
        if_match: request.header("if-match"),
        if_none_match: request.header("if-none-match"),
        if_modified_since: request.header("if-modified-since"),
        if_unmodified_since: request.header("if-unmodified-since"),
    }
}

fn read_range(request: &Request, object: &Arc<Object>, now: Validators<'_>) -> Answer {
    let total = object.data.len();
    let applies = request
        .header("if-range")
        .is_none_or(|value| if_range_holds(value, now));
    match wanted(request.header("range").filter(|_| applies), total) {
        Wanted::Whole => with_checksums(request, window(object, 200, 0, total), object),
        Wanted::Part(range) => window(object, 206, range.start, range.end).with(
            "Content-Range",
            content_range(range.start, range.end, total),
        ),
        Wanted::Unsatisfiable => {
            let asked = escape(request.header("range").unwrap_or_default());
            let extra = format!(
                "<RangeRequested>{asked}</RangeRequested><ActualObjectSize>{total}</ActualObjectSize>"
            );
            Answer::error(
                416,
                "InvalidRange",
                "The requested range is not satisfiable",
                &extra,
            )
            .with("Content-Range", format!("bytes */{total}"))
        }
    }
}

fn read_part(request: &Request, object: &Arc<Object>, number: &str) -> Answer {
    if request.header("range").is_some() {
        let message = "Cannot specify both Range header and partNumber query parameter";
        return Answer::error(400, "InvalidRequest", message, "");
    }
    let Some((start, end)) = number.parse().ok().and_then(|number| object.part(number)) else {
        let message = "The requested partnumber is not satisfiable";
        return Answer::error(416, "InvalidPartNumber", message, "");
    };
    let total = object.data.len();
    let mut answer = match total {
        0 => window(object, 200, 0, 0),
        _ => {
            window(object, 206, start, end).with("Content-Range", content_range(start, end, total))
        }
    };
    if !object.parts.is_empty() {
        answer = answer.with("x-amz-mp-parts-count", object.parts.len().to_string());
    }
    answer
}

fn content_range(start: u64, end: u64, total: u64) -> String {
    format!("bytes {start}-{}/{total}", end - 1)
}

fn validator_headers(object: &Object) -> Headers {
    vec![
        ("Last-Modified".into(), to_http_date(object.modified_s)),
        ("ETag".into(), object.etag.clone()),
    ]
}

fn window(object: &Arc<Object>, status: u16, start: u64, end: u64) -> Answer {
    let mut headers = validator_headers(object);
    headers.push(("Accept-Ranges".into(), "bytes".into()));
    headers.push(("x-amz-version-id".into(), object.version_id.clone()));
    headers.extend(object.headers.iter().cloned());
    Answer {
        status,
        headers,
        payload: Payload::Window(Arc::clone(object), start, end),
    }
}

/// S3 sends stored checksums only when asked, and only with the whole object.
fn with_checksums(request: &Request, mut answer: Answer, object: &Object) -> Answer {
    let asked = request
        .header("x-amz-checksum-mode")
        .is_some_and(|mode| mode.eq_ignore_ascii_case("ENABLED"));
    if asked && !object.checksums.is_empty() {
        answer.headers.extend(object.checksums.iter().cloned());
        answer = answer.with("x-amz-checksum-type", "FULL_OBJECT");
    }
    answer
}

/// `response-content-type=…` and its siblings.
fn override_headers(request: &Request, mut answer: Answer) -> Answer {
    for (name, value) in request.params() {
        let header = match name.as_str() {
            "response-content-type" => "Content-Type",
            "response-content-language" => "Content-Language",
            "response-content-disposition" => "Content-Disposition",
            "response-content-encoding" => "Content-Encoding",
            "response-cache-control" => "Cache-Control",
            "response-expires" => "Expires",
            _ => continue,
        };
        if answer.status < 300 {
            answer.set(header, value);
        }
    }
    answer
}

/// The whole object although a range was asked for: what a store that does not know ranges does.
pub fn whole_instead(answer: Answer) -> Answer {
    match answer {
        Answer {
            status: 206,
            payload: Payload::Window(object, _, _),
            ..
        } => {
            let total = object.data.len();
            window(&object, 200, 0, total)
        }
        other => other,
    }
}

/// XML text.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

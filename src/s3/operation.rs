//! What a request is: one allow-list table over method, place, query and headers.
//!
//! Called by `request` for each request, after the head was parsed and its host resolved. Total: every head gets
//! a [`Classified`], and what no row of the table knows passes through untouched.
//!
//! Invariants:
//! - Only rows of [`TABLE`] make an operation other than a pass; a row allows the facts it lists and no other.
//! - Whatever is not a GET, a HEAD or an OPTIONS (safe by RFC 9110, section 9.2.1) and names an object touches it.
//! - Nothing is allocated but for mixed-case hosts and oddly spelled buckets.
//!
//! Left to others: rules and TTLs, whether a presigned request is in its time ([`Auth::presigned`]), the answer.

use super::auth::{Auth, Scheme};
use super::classified::{Body, Classified, Operation, Refusal, Touches};
use super::conditional::Conditions;
use super::facts::Facts;
use super::object_key::ObjectDigest;
use super::query::Query;
use super::reason::PassReason;
use super::request_headers::RequestHeaders;
use super::route::HostRoute;
use super::target::{Oddity, Place, Target};
use crate::http::{Method, RequestHead, TargetForm};

/// One row: a request with one of the methods at the place, with all facts of `needs` and none outside `allows`.
struct Row {
    methods: &'static [Method],
    place: Place,
    needs: Facts,
    allows: Facts,
    operation: Operation,
}

const ANYTHING: Facts = Facts::NONE.complement();
const WRITES: &[Method] = &[Method::Put, Method::Post, Method::Delete, Method::Other];

/// What a cached answer can be given to.
const READ: Facts = Facts::PRESIGNED
    .and(Facts::CONDITIONS)
    .and(Facts::CHECKSUM_MODE)
    .and(Facts::VERSION_ID)
    .and(Facts::RESPONSE_OVERRIDE);

/// The first row that fits decides.
const TABLE: &[Row] = &[
    Row {
        methods: &[Method::Get],
        place: Place::Object,
        needs: Facts::NONE,
        allows: READ.and(Facts::X_ID_GET).and(Facts::RANGE),
        operation: Operation::GetObject,
    },
    Row {
        methods: &[Method::Head],
        place: Place::Object,
        needs: Facts::NONE,
        allows: READ.and(Facts::X_ID_HEAD),
        operation: Operation::HeadObject,
    },
    Row {
        methods: &[Method::Get],
        place: Place::Object,
        needs: Facts::PART_NUMBER,
        allows: READ.and(Facts::X_ID_GET).and(Facts::PART_NUMBER),
        operation: Operation::PartRead,
    },
    Row {
        methods: &[Method::Head],
        place: Place::Object,
        needs: Facts::PART_NUMBER,
        allows: READ.and(Facts::X_ID_HEAD).and(Facts::PART_NUMBER),
        operation: Operation::PartRead,
    },
    write(
        &[Method::Put],
        Facts::UPLOAD_ID.and(Facts::PART_NUMBER),
        Operation::UploadPart,
    ),
    write(&[Method::Put], Facts::COPY_SOURCE, Operation::Copy),
    write(&[Method::Post], Facts::UPLOADS, Operation::MultipartCreate),
    write(
        &[Method::Post],
        Facts::UPLOAD_ID,
        Operation::MultipartComplete,
    ),
    write(
        &[Method::Delete],
        Facts::UPLOAD_ID,
        Operation::MultipartAbort,
    ),
    write(WRITES, Facts::NONE, Operation::ObjectWrite),
    Row {
        methods: &[Method::Post],
        place: Place::Bucket,
        needs: Facts::DELETE,
        allows: ANYTHING,
        operation: Operation::MultiDelete,
    },
];

/// A row for what changes an object. It need not know everything about a request, which passes anyway.
const fn write(methods: &'static [Method], needs: Facts, operation: Operation) -> Row {
    Row {
        methods,
        place: Place::Object,
        needs,
        allows: ANYTHING,
        operation,
    }
}

/// Understands a request. `key_buf` is reused from request to request and holds the object's identity.
pub fn classify<'b, 'k>(
    head: &RequestHead<'b>,
    route: &HostRoute<'_>,
    key_buf: &'k mut Vec<u8>,
) -> Classified<'b, 'k> {
    classify_with(head, route, key_buf, |_| ())
}

/// The same; calls `named` with the digest of the object, if one is named, as soon as that is known.
pub fn classify_with<'b, 'k>(
    head: &RequestHead<'b>,
    route: &HostRoute<'_>,
    key_buf: &'k mut Vec<u8>,
    named: impl FnOnce(ObjectDigest),
) -> Classified<'b, 'k> {
    let query = Query::parse(head.query);
    let version = version_of(head.method, &query);
    let (target, refusal) = target_of(head, route, version, key_buf);
    let digest = target.object_key().map(|object| object.digest());
    if let Some(digest) = digest {
        named(digest);
    }
    let headers = RequestHeaders::parse(head.headers.iter_bytes());
    let auth = match headers.authorizations {
        true => Auth::MALFORMED,
        false => Auth::parse(headers.authorization, &query.presign),
    };
    let mut facts = query.facts | headers.facts | facts_of(&target, route, &auth);
    if facts.has(Facts::RESPONSE_OVERRIDE) && !may_override(&auth, facts) {
        facts.insert(Facts::OVERRIDE_ODD);
    }
    if !head.body.is_empty() {
        facts.insert(Facts::BODY);
    }
    let (operation, touches) = match refusal {
        Some(refusal) => (Operation::Refused(refusal), Touches::Nothing),
        None => (
            look_up(head.method, target.place(), facts),
            match target.place() {
                // Every bucket of AWS is named by its host or path, so nothing of any bucket is meant.
                Place::Service if route.is_aws() => Touches::Nothing,
                _ => touches(head.method, &target, facts),
            },
        ),
    };
    Classified {
        operation,
        touches,
        body: body_of(head.method, operation, facts),
        target,
        digest,
        auth,
        range: headers
            .range
            .filter(|_| facts.has(Facts::RANGE) && !facts.has(Facts::RANGES)),
        part: query.part,
        overrides: query.overrides,
        conditions: match facts.has(Facts::CONDITIONAL) {
            true => Conditions::default(),
            false => headers.conditions,
        },
        checksum_mode: facts.has(Facts::CHECKSUM_MODE),
        wishes: headers.wishes,
    }
}

/// The version whose identity a request is about. A write is about the object: it touches all of its versions.
fn version_of<'b>(method: Method, query: &Query<'b>) -> Option<&'b str> {
    let read = matches!(method, Method::Get | Method::Head);
    query
        .version
        .filter(|_| read && !query.facts.has(Facts::VERSION_ODD))
}

/// S3 refuses overrides of a request without a signature; what it sends beside an answer that conditions decide is not certain.
fn may_override(auth: &Auth<'_>, facts: Facts) -> bool {
    auth.scheme != Scheme::Anonymous && !facts.has(Facts::CONDITIONS)
}

fn target_of<'k>(
    head: &RequestHead<'_>,
    route: &HostRoute<'_>,
    version: Option<&str>,
    key_buf: &'k mut Vec<u8>,
) -> (Target<'k>, Option<Refusal>) {
    match head.form {
        TargetForm::Authority => (Target::NOTHING, Some(Refusal::Connect)),
        TargetForm::Asterisk => (Target::NOTHING, Some(Refusal::AsteriskForm)),
        TargetForm::Origin | TargetForm::Absolute => {
            match Target::parse_version(route, head.path, version, key_buf) {
                Ok(target) => (target, None),
                Err(error) => (Target::NOTHING, Some(Refusal::InvalidUri(error))),
            }
        }
    }
}

fn facts_of(target: &Target<'_>, route: &HostRoute<'_>, auth: &Auth<'_>) -> Facts {
    let mut facts = match target.oddity() {
        None => Facts::NONE,
        Some(Oddity::KeyTooLong) => Facts::KEY_TOO_LONG,
        Some(Oddity::Bucket) => Facts::ODD_BUCKET,
        Some(Oddity::Plus) => Facts::PLUS,
    };
    let reserved = target.bucket().is_some_and(super::aws::is_reserved_bucket);
    if route.pass_only().is_some() || (reserved && route.is_aws()) {
        facts.insert(Facts::PASS_ONLY);
    }
    if auth.malformed {
        facts.insert(Facts::AUTH_MALFORMED);
    }
    facts
}

fn look_up(method: Method, place: Place, facts: Facts) -> Operation {
    let fits = |row: &&Row| {
        row.place == place
            && row.methods.contains(&method)
            && facts.has(row.needs)
            && facts.only(row.allows)
    };
    match TABLE.iter().find(fits) {
        Some(row) => row.operation,
        None => Operation::Pass(reason(method, place, facts)),
    }
}

/// Why no row fits, for the metrics: what the row for whole objects does not allow.
fn reason(method: Method, place: Place, facts: Facts) -> PassReason {
    let whole = |row: &&Row| row.methods.contains(&method) && row.needs == Facts::NONE;
    match TABLE.iter().find(whole) {
        Some(row) if place == row.place => PassReason::of(facts.without(row.allows)),
        Some(_) if matches!(method, Method::Get | Method::Head) => PassReason::NoKey,
        Some(_) | None => PassReason::Method,
    }
}

fn touches(method: Method, target: &Target<'_>, facts: Facts) -> Touches {
    let safe = matches!(
        method,
        Method::Get | Method::Head | Method::Options | Method::Connect
    );
    match target.place() {
        _ if safe => Touches::Nothing,
        // The bucket may be in a host name that is not known as one: all of the origin.
        Place::Service => Touches::Bucket,
        // The source of a rename is gone too, and names any object of the bucket.
        Place::Object if facts.has(Facts::RENAME_SOURCE) => Touches::Bucket,
        // It names one object to S3 and another to other stores.
        Place::Object if target.oddity() == Some(Oddity::Plus) => Touches::Bucket,
        // Too long a key is never cached.
        Place::Object if target.object_key().is_none() => Touches::Nothing,
        Place::Object => Touches::Object,
        Place::Bucket if method == Method::Post && facts.has(Facts::DELETE) => Touches::Listed,
        Place::Bucket if configures_bucket(method, facts) => Touches::Nothing,
        // A form upload names its key in the body; a removed bucket has no objects.
        Place::Bucket => Touches::Bucket,
    }
}

/// What the body of a write becomes: an object or a part only if nothing else is said.
fn body_of(method: Method, operation: Operation, facts: Facts) -> Body {
    const PLAIN: Facts = Facts::PRESIGNED
        .and(Facts::X_ID_OTHER)
        .and(Facts::UNKNOWN_HEADER)
        .and(Facts::CHECKSUM_MODE)
        .and(Facts::CONDITIONS)
        .and(Facts::CONDITIONAL)
        .and(Facts::ORIGIN)
        .and(Facts::BODY);
    const PART: Facts = Facts::UPLOAD_ID.and(Facts::PART_NUMBER);
    match operation {
        Operation::ObjectWrite if method == Method::Put && facts.only(PLAIN) => Body::Object,
        Operation::UploadPart if facts.only(PLAIN.and(PART)) => Body::Part,
        _ => Body::Other,
    }
}

/// True for what creates or configures a bucket: a PUT or the DELETE of a sub-resource, with nothing unknown.
fn configures_bucket(method: Method, facts: Facts) -> bool {
    const ALLOWED: Facts = Facts::SUB_RESOURCE
        .and(Facts::PRESIGNED)
        .and(Facts::X_ID_OTHER)
        .and(Facts::UNKNOWN_HEADER)
        .and(Facts::CHECKSUM_MODE)
        .and(Facts::BODY)
        .and(Facts::ORIGIN)
        .and(Facts::PASS_ONLY);
    let fits =
        method == Method::Put || (method == Method::Delete && facts.has(Facts::SUB_RESOURCE));
    fits && facts.only(ALLOWED)
}

//! What a request means to S3: which object in which store, which operation, how it is signed; and where a tunnel may lead.
//!
//! Called by `listener` and `request` for each request, by `fill`, `cache` and `disk`'s callers for identities and
//! byte ranges. Pure: no I/O and no clock (`now` is an argument), and next to nothing is allocated.
//!
//! The way of a request through it: [`OriginMap::resolve_request`] → [`classify`] → [`Classified`]; before it, for a host
//! that stands for a bucket, [`MappedHost::rewrite`].
//!
//! Invariants:
//! - Two stores never share an object's identity; every spelling of one object does.
//! - What is not on the allow list passes through untouched, and what is no read drops what it names.
//! - No signature, credential or token is ever written by `Debug` or `Display`.
//!
//! Left to others: parsing the head (`http`), freshness and access rules (`cache`, `request`).

mod amz_date;
mod auth;
mod aws;
mod classified;
mod conditional;
mod destinations;
mod error_xml;
mod facts;
mod headers;
mod host;
mod host_name;
mod mapped;
mod multi_delete;
mod name_pattern;
mod object_key;
mod operation;
#[cfg(test)]
mod operation_tests;
mod origin_config;
mod overrides;
mod packed;
mod query;
mod range;
mod reason;
mod redact;
mod request_headers;
mod route;
mod tag_list;
mod target;
mod upload;
mod wishes;

pub use auth::{Auth, Presigned, Scheme};
pub use aws::{Partition, PassOnly};
pub use classified::{Body, Classified, Operation, Refusal, Touches};
pub use conditional::{Conditions, Unmet, Validators, Verdict};
pub use destinations::{Destination, Destinations, HTTPS_PORT, NoDestination};
pub use error_xml::{ErrorCode, write_invalid_range_xml, write_precondition_failed_xml, write_xml};
pub use headers::{is_checksum, is_secret, is_stored};
pub use host::OriginMap;
pub use mapped::{HostMap, MapRefusal, MappedHost};
pub use multi_delete::{
    MULTI_DELETE_BYTES_MAX, MULTI_DELETE_KEYS_MAX, MultiDeleteError, parse_multi_delete,
};
pub use name_pattern::{NameError, NamePattern, covers};
pub use object_key::{
    BUCKET_BYTES_MAX, BucketDigest, KEY_BYTES_MAX, ObjectDigest, ObjectKey, ObjectKeyRef, digest,
};
pub use operation::{classify, classify_with};
pub use origin_config::{
    CustomOrigin, ORIGIN_NAME_BYTES_MAX, OriginMapConfig, OriginMapError, SingleOrigin,
};
pub use overrides::{Overrides, is_overridden};
pub use packed::is_packed;
pub use range::{ContentRange, RangeHeader, RangeSpec, Resolved, resolve};
pub use reason::PassReason;
pub use redact::{is_secret_parameter, redact_target};
pub use route::{HostRoute, HostStyle, OriginId, OriginSel, RouteError};
pub use target::{Oddity, Place, Target, TargetError};
pub use upload::{
    ANSWER_BYTES_MAX, LateAnswer, PART_LIST_BYTES_MAX, UploadBody, parse_late_answer,
    parse_part_list, part_of, unquoted, upload_body, upload_of,
};
pub use wishes::Wishes;

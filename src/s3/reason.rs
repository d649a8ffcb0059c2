//! Why a request passes through instead of being answered from the cache: a closed set for metrics and logs.
//!
//! Made by `operation`.

use super::facts::Facts;

/// Why a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PassReason {
    /// The method is none of a read and names no object.
    Method,
    /// No object is named.
    NoKey,
    /// The endpoint's answers are never cached: directory buckets, Object Lambda, the control plane.
    Endpoint,
    /// The key is longer than S3's.
    KeyTooLong,
    /// The bucket's spelling is odd.
    OddBucket,
    /// A raw `+` in the key: a space or a plus, as the origin has it.
    Plus,
    /// The signature's parameters cannot be read.
    MalformedAuth,
    /// A customer's own encryption key.
    SseC,
    /// One version is asked for, in a way that only the origin can read.
    VersionId,
    /// A sub-resource.
    SubResource,
    /// The answer's headers are overridden in a way that only the origin can judge.
    ResponseOverride,
    /// A query parameter that is not known, or not with this method.
    UnknownQuery,
    /// A part together with something else.
    Part,
    /// Several ranges.
    MultiRange,
    /// A range that S3 ignores or reads its own way.
    MalformedRange,
    /// A range of a HEAD.
    RangeOnHead,
    /// A condition that is not of RFC 9110, or one that comes twice.
    Conditional,
    /// `Origin`.
    OriginHeader,
    /// A header that may change the answer.
    UnknownHeader,
    /// A GET or HEAD with a body.
    Body,
}

/// Which reason is named when there are several: the first.
const ORDER: [(Facts, PassReason); 24] = [
    (Facts::PASS_ONLY, PassReason::Endpoint),
    (Facts::KEY_TOO_LONG, PassReason::KeyTooLong),
    (Facts::ODD_BUCKET, PassReason::OddBucket),
    (Facts::PLUS, PassReason::Plus),
    (Facts::AUTH_MALFORMED, PassReason::MalformedAuth),
    (Facts::SSE_C, PassReason::SseC),
    (Facts::VERSION_ODD, PassReason::VersionId),
    (Facts::VERSION_ID, PassReason::VersionId),
    (Facts::UPLOAD_ID, PassReason::SubResource),
    (Facts::UPLOADS, PassReason::SubResource),
    (Facts::DELETE, PassReason::SubResource),
    (Facts::SUB_RESOURCE, PassReason::SubResource),
    (Facts::OVERRIDE_ODD, PassReason::ResponseOverride),
    (Facts::RESPONSE_OVERRIDE, PassReason::ResponseOverride),
    (Facts::UNKNOWN_QUERY, PassReason::UnknownQuery),
    (Facts::RANGES, PassReason::MultiRange),
    (Facts::RANGE_MALFORMED, PassReason::MalformedRange),
    (Facts::CONDITIONAL, PassReason::Conditional),
    (Facts::ORIGIN, PassReason::OriginHeader),
    (Facts::COPY_SOURCE, PassReason::UnknownHeader),
    (Facts::RENAME_SOURCE, PassReason::UnknownHeader),
    (Facts::UNKNOWN_HEADER, PassReason::UnknownHeader),
    (Facts::BODY, PassReason::Body),
    (Facts::PART_NUMBER, PassReason::Part),
];

impl PassReason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 20] = [
        Self::Method,
        Self::NoKey,
        Self::Endpoint,
        Self::KeyTooLong,
        Self::OddBucket,
        Self::Plus,
        Self::MalformedAuth,
        Self::SseC,
        Self::VersionId,
        Self::SubResource,
        Self::ResponseOverride,
        Self::UnknownQuery,
        Self::Part,
        Self::MultiRange,
        Self::MalformedRange,
        Self::RangeOnHead,
        Self::Conditional,
        Self::OriginHeader,
        Self::UnknownHeader,
        Self::Body,
    ];

    /// The reason for facts that a read of an object does not allow.
    pub(super) fn of(unwanted: Facts) -> Self {
        if let Some((_, reason)) = ORDER.iter().find(|(fact, _)| unwanted.has(*fact)) {
            return *reason;
        }
        // A GET allows a range, so only a HEAD has one left over; what remains is an `x-id` of another method.
        if unwanted.has(Facts::RANGE) {
            Self::RangeOnHead
        } else {
            Self::UnknownQuery
        }
    }

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::NoKey => "no_key",
            Self::Endpoint => "endpoint",
            Self::KeyTooLong => "key_too_long",
            Self::OddBucket => "odd_bucket",
            Self::Plus => "plus",
            Self::MalformedAuth => "malformed_auth",
            Self::SseC => "sse_c",
            Self::VersionId => "version_id",
            Self::SubResource => "sub_resource",
            Self::ResponseOverride => "response_override",
            Self::UnknownQuery => "unknown_query",
            Self::Part => "part",
            Self::MultiRange => "multi_range",
            Self::MalformedRange => "malformed_range",
            Self::RangeOnHead => "range_on_head",
            Self::Conditional => "conditional",
            Self::OriginHeader => "origin_header",
            Self::UnknownHeader => "unknown_header",
            Self::Body => "body",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_label() {
        let labels: HashSet<_> = PassReason::ALL
            .iter()
            .map(|reason| reason.as_str())
            .collect();
        assert_eq!(labels.len(), PassReason::ALL.len());
        for (position, reason) in PassReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position);
        }
    }
}

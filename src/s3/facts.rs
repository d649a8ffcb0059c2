//! The vocabulary of the classification table: one bit for each thing about a request that decides what it is.
//!
//! Written by `query` and `request_headers`, read by `operation`. A set of facts is one word, so that a row of
//! the table compares with a mask.

use std::ops::BitOr;

/// A set of facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Facts(u32);

impl Facts {
    pub(super) const NONE: Self = Self(0);

    // The query.
    /// Parameters of a presigned URL.
    pub(super) const PRESIGNED: Self = Self(1 << 0);
    /// `x-id=GetObject`
    pub(super) const X_ID_GET: Self = Self(1 << 1);
    /// `x-id=HeadObject`
    pub(super) const X_ID_HEAD: Self = Self(1 << 2);
    /// Any other `x-id`.
    pub(super) const X_ID_OTHER: Self = Self(1 << 3);
    /// `partNumber`
    pub(super) const PART_NUMBER: Self = Self(1 << 4);
    /// `uploadId`
    pub(super) const UPLOAD_ID: Self = Self(1 << 5);
    /// `uploads`
    pub(super) const UPLOADS: Self = Self(1 << 6);
    /// `delete`
    pub(super) const DELETE: Self = Self(1 << 7);
    /// One `versionId` of a plain spelling.
    pub(super) const VERSION_ID: Self = Self(1 << 8);
    /// `response-…` of the six names that S3 has, each once, whose value can be read: the answer's headers are changed.
    pub(super) const RESPONSE_OVERRIDE: Self = Self(1 << 9);
    /// A sub-resource or a listing parameter that S3 documents.
    pub(super) const SUB_RESOURCE: Self = Self(1 << 10);
    /// A name that is none of these.
    pub(super) const UNKNOWN_QUERY: Self = Self(1 << 11);

    // The headers.
    /// One range that can be read.
    pub(super) const RANGE: Self = Self(1 << 12);
    /// Several ranges, or several `Range` headers.
    pub(super) const RANGES: Self = Self(1 << 13);
    /// A `Range` that S3 ignores or reads differently.
    pub(super) const RANGE_MALFORMED: Self = Self(1 << 14);
    /// Conditions of RFC 9110, each once.
    pub(super) const CONDITIONS: Self = Self(1 << 15);
    /// Another condition, or one of these twice.
    pub(super) const CONDITIONAL: Self = Self(1 << 16);
    /// `x-amz-checksum-mode: ENABLED`, as header or presigned parameter.
    pub(super) const CHECKSUM_MODE: Self = Self(1 << 17);
    /// A customer's own encryption key.
    pub(super) const SSE_C: Self = Self(1 << 18);
    /// `x-amz-copy-source`
    pub(super) const COPY_SOURCE: Self = Self(1 << 19);
    /// `x-amz-rename-source`
    pub(super) const RENAME_SOURCE: Self = Self(1 << 20);
    /// An `x-amz-…` or other store's header that changes what the request means.
    pub(super) const UNKNOWN_HEADER: Self = Self(1 << 21);
    /// `Origin`: the answer has headers for that page.
    pub(super) const ORIGIN: Self = Self(1 << 22);
    /// A body.
    pub(super) const BODY: Self = Self(1 << 23);

    // Signature, host and path.
    /// The signature's parameters cannot be read.
    pub(super) const AUTH_MALFORMED: Self = Self(1 << 25);
    /// An endpoint whose answers are never cached.
    pub(super) const PASS_ONLY: Self = Self(1 << 26);
    /// The key is too long.
    pub(super) const KEY_TOO_LONG: Self = Self(1 << 27);
    /// The bucket's spelling is odd.
    pub(super) const ODD_BUCKET: Self = Self(1 << 28);
    /// A raw `+` in the key.
    pub(super) const PLUS: Self = Self(1 << 29);
    /// A `versionId` of another spelling, or several.
    pub(super) const VERSION_ODD: Self = Self(1 << 30);
    /// Another `response-…`, or one whose meaning is the origin's to say.
    pub(super) const OVERRIDE_ODD: Self = Self(1 << 31);

    /// Both sets.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Every fact that is not in this set.
    pub(super) const fn complement(self) -> Self {
        Self(!self.0)
    }

    /// Adds facts.
    pub(super) fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// True if all facts of `other` are here.
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// True if no fact outside `allowed` is here.
    pub(super) const fn only(self, allowed: Self) -> bool {
        self.0 & !allowed.0 == 0
    }

    /// The facts that are not in `other`.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Facts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.and(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_compare_as_sets() {
        let two = Facts::RANGE | Facts::CONDITIONS;
        assert!(
            two.has(Facts::RANGE) && two.has(Facts::NONE) && !two.has(Facts::RANGE | Facts::BODY)
        );
        assert!(
            two.only(two | Facts::BODY) && !two.only(Facts::RANGE) && Facts::NONE.only(Facts::NONE)
        );
        assert_eq!(two.without(Facts::RANGE), Facts::CONDITIONS);
    }
}

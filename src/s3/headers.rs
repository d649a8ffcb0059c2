//! Rules about header names: which response headers are stored and replayed, which belong to one hop or one
//! answer, which carry secrets.
//!
//! Called by `fill` when an answer is stored, by `request` when one is written, by `access_log` before one is
//! logged. Names compare without case.
//!
//! Left to others: names that a message's own `Connection` header lists (`http`), the values.

/// Headers of one answer or one connection: stored nowhere, written fresh or not at all.
const OF_ONE_ANSWER: &[&str] = &[
    // One hop (RFC 9110, section 7.6.1).
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // Written for each answer anew.
    "age",
    "content-length",
    "content-range",
    "date",
    "via",
    "x-amz-id-2",
    "x-amz-request-id",
    "x-cache",
    "x-cache-hits",
    "x-cache-lookup",
    "x-cache-status",
    // About the request that happened to fill the cache, not about the object.
    "alt-svc",
    "retry-after",
    "set-cookie",
    "www-authenticate",
    "x-amz-cf-id",
    "x-amz-cf-pop",
    "x-amz-mp-parts-count",
    "x-amz-request-charged",
];

/// Headers that no log, dump or error may show.
const SECRET: &[&str] = &[
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
    "x-amz-s3session-token",
    "x-amz-security-token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
];

fn is_one_of(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// True for response headers that are kept with an object and replayed on hits: all but those of one hop or
/// one answer. Checksums ([`is_checksum`]) are kept too, but replayed by their own rule.
pub fn is_stored(name: &str) -> bool {
    !is_one_of(OF_ONE_ANSWER, name)
}

/// True for checksums of the whole object. They are replayed only with a 200 and only if the request asks
/// with `x-amz-checksum-mode: ENABLED`; on a part they would make the client refuse the body.
pub fn is_checksum(name: &str) -> bool {
    const PREFIX: &str = "x-amz-checksum-";
    let starts = name.as_bytes().get(..PREFIX.len());
    starts.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
        && !name.eq_ignore_ascii_case("x-amz-checksum-mode")
}

/// True for headers whose values are never logged.
pub fn is_secret(name: &str) -> bool {
    is_one_of(SECRET, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference 2A.15 and 4.20.
    #[test]
    fn what_describes_the_object_is_stored() {
        for name in [
            "ETag",
            "Last-Modified",
            "Content-Type",
            "Content-Encoding",
            "Content-Disposition",
            "Content-Language",
            "Cache-Control",
            "Cache-Status",
            "Expires",
            "Accept-Ranges",
            "Server",
            "x-amz-meta-owner",
            "x-amz-version-id",
            "x-amz-server-side-encryption",
            "x-amz-server-side-encryption-aws-kms-key-id",
            "x-amz-storage-class",
            "x-amz-tagging-count",
            "x-amz-checksum-crc32",
        ] {
            assert!(is_stored(name), "{name}");
        }
    }

    /// Reference 2A.18 and 2A.29.
    #[test]
    fn what_belongs_to_one_answer_is_not_stored() {
        for name in [
            "Connection",
            "Keep-Alive",
            "Transfer-Encoding",
            "Date",
            "Content-Length",
            "Content-Range",
            "Age",
            "X-Cache",
            "X-CACHE-STATUS",
            "x-amz-request-id",
            "X-Amz-Id-2",
            "Set-Cookie",
            "x-amz-mp-parts-count",
        ] {
            assert!(!is_stored(name), "{name}");
        }
    }

    /// Reference 2A.16 and 2C.68.
    #[test]
    fn checksums_are_told_from_other_headers() {
        for name in [
            "x-amz-checksum-crc32",
            "X-Amz-Checksum-CRC64NVME",
            "x-amz-checksum-sha256",
            "x-amz-checksum-type",
        ] {
            assert!(is_checksum(name), "{name}");
        }
        for name in [
            "x-amz-checksum-mode",
            "x-amz-checksum",
            "content-md5",
            "etag",
            "x-amz-content-sha256",
        ] {
            assert!(!is_checksum(name), "{name}");
        }
    }

    /// Reference 2D.81.
    #[test]
    fn headers_that_carry_secrets_are_known() {
        for name in SECRET {
            assert!(is_secret(&name.to_ascii_uppercase()), "{name}");
        }
        assert!(!is_secret("x-amz-date") && !is_secret("range"));
    }
}

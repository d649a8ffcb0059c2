//! What the classification table promises, from the bytes of a request to its operation.
//!
//! The tests of `operation`, in a file of their own for their length. Each goes the whole way: parse the head,
//! resolve the host, classify.

use super::{
    Classified, Operation, OriginMap, OriginMapConfig, PassReason, RangeSpec, Refusal, Scheme,
    SingleOrigin, Touches, classify,
};
use crate::http::{HeadLimits, parse_request};
use proptest::prelude::*;

const HOST: &str = "s3.us-east-1.amazonaws.com";

fn aws() -> OriginMap {
    OriginMap::new(OriginMapConfig {
        aws: true,
        ..OriginMapConfig::default()
    })
    .expect("a map")
}

/// Classifies `line` (method and target) with `lines` of headers at `host` and hands the result on.
fn with<T>(host: &str, line: &str, lines: &str, then: impl FnOnce(Classified<'_, '_>) -> T) -> T {
    let text = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
    let head = parse_request(text.as_bytes(), &HeadLimits::default());
    let head = head.expect("a valid head").expect("a whole head");
    let map = aws();
    let route = map
        .resolve_request(head.authority, head.host)
        .expect("a route");
    then(classify(&head, &route, &mut Vec::new()))
}

fn operation(line: &str, lines: &str) -> Operation {
    with(HOST, line, lines, |classified| classified.operation)
}

fn touched(line: &str, lines: &str) -> (Operation, Touches) {
    with(HOST, line, lines, |classified| {
        (classified.operation, classified.touches)
    })
}

fn passes(line: &str, lines: &str, why: PassReason) {
    let seen = with(HOST, line, lines, |classified| {
        assert!(!classified.is_cacheable());
        (classified.operation, classified.touches)
    });
    assert_eq!(
        seen,
        (Operation::Pass(why), Touches::Nothing),
        "{line} {lines}"
    );
}

const SIGNED: &str = "Authorization: AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=5ec5e7\r\nx-amz-content-sha256: UNSIGNED-PAYLOAD\r\nX-Amz-Date: 20260101T000000Z\r\n";
const PRESIGNED: &str = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=5ec5e7";

#[test]
fn the_reads_that_clients_send_are_cacheable() {
    let crt = format!(
        "{SIGNED}Range: bytes=0-8388607\r\nIf-Match: \"a\"\r\nx-amz-checksum-mode: ENABLED\r\namz-sdk-invocation-id: 1\r\namz-sdk-request: attempt=1\r\nUser-Agent: x\r\nAccept-Encoding: identity\r\n"
    );
    for line in [
        "GET /b/k",
        "GET /b/k?",
        "GET /b/k?x-id=GetObject",
        "GET http://s3.us-east-1.amazonaws.com:80/b/k",
    ] {
        with(HOST, line, &crt, |classified| {
            assert_eq!(classified.operation, Operation::GetObject, "{line}");
            assert_eq!(classified.range, Some(RangeSpec::FromTo(0, 8_388_607)));
            assert!(classified.conditions.any() && !classified.conditions.has_if_none_match());
            assert!(classified.checksum_mode && !classified.wishes.any());
            assert!(classified.auth.signs("range") && !classified.auth.signs("if-match"));
            assert_eq!(classified.target.key(), Some(&b"k"[..]));
        });
    }
    assert_eq!(operation("HEAD /b/k", SIGNED), Operation::HeadObject);
    assert_eq!(
        operation("HEAD /b/k?x-id=HeadObject", SIGNED),
        Operation::HeadObject
    );
    assert_eq!(operation("GET /b/k", ""), Operation::GetObject, "anonymous");
}

/// Reference 4.6: presigned parameters are no part of the identity.
#[test]
fn presigned_reads_are_cacheable_under_the_plain_identity() {
    let identity = |line: &str| {
        with(HOST, line, "", |classified| {
            assert_eq!(classified.operation, Operation::GetObject, "{line}");
            classified.target.object_key().map(|key| key.digest())
        })
    };
    let plain = identity("GET /b/k");
    assert!(plain.is_some());
    for query in [
        PRESIGNED.to_owned(),
        format!(
            "{PRESIGNED}&x-id=GetObject&X-Amz-Security-Token=t&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD&x-amz-checksum-mode=ENABLED"
        ),
        PRESIGNED.replace("HMAC-SHA256", "ECDSA-P256-SHA256") + "&X-Amz-Region-Set=*",
        "AWSAccessKeyId=A&Signature=s%3D&Expires=1767225600".to_owned(),
        "AWSAccessKeyId=A&Signature=s%3D&Expires=1767225600&x-amz-security-token=t".to_owned(),
    ] {
        assert_eq!(identity(&format!("GET /b/k?{query}")), plain, "{query}");
    }
}

/// Reference 2A.26 and 2D.76: the caller is told when it ends, whatever the scheme.
#[test]
fn a_presigned_read_carries_its_expiry() {
    with(HOST, &format!("GET /b/k?{PRESIGNED}"), "", |classified| {
        assert_eq!(classified.auth.scheme, Scheme::SigV4Presigned);
        assert!(classified.auth.presigned_expired(1_767_225_600 + 3601));
    });
}

/// Reference 2A.26: what S3 might accept is not rejected but passed on.
#[test]
fn a_signature_that_cannot_be_read_passes() {
    for query in [
        PRESIGNED.replace("=3600", "=604801"),
        PRESIGNED.replace("=2026", "=1926"),
        "X-Amz-Signature=1".to_owned(),
    ] {
        passes(&format!("GET /b/k?{query}"), "", PassReason::MalformedAuth);
    }
    passes(
        "GET /b/k",
        "Authorization: Bearer x\r\n",
        PassReason::MalformedAuth,
    );
    passes("GET /b/k", &SIGNED.repeat(2), PassReason::MalformedAuth);
    passes(
        &format!("GET /b/k?{PRESIGNED}"),
        SIGNED,
        PassReason::MalformedAuth,
    );
}

/// Reference 2A.6: ListParts and every other sub-resource is no object.
#[test]
fn sub_resources_pass() {
    for query in [
        "uploadId=a",
        "acl",
        "tagging",
        "torrent",
        "attributes",
        "legal-hold",
        "retention",
        "uploads",
        "select&select-type=2",
        "restore",
        "delete",
    ] {
        passes(
            &format!("GET /b/k?{query}"),
            SIGNED,
            PassReason::SubResource,
        );
        passes(
            &format!("HEAD /b/k?{query}"),
            SIGNED,
            PassReason::SubResource,
        );
    }
    for query in [
        "anything",
        "x-id=HeadObject",
        "x-id=PutObject",
        "%61cl",
        "VersionId=1",
        "a=b&x-id=GetObject",
    ] {
        passes(
            &format!("GET /b/k?{query}"),
            SIGNED,
            PassReason::UnknownQuery,
        );
    }
    passes("HEAD /b/k?x-id=GetObject", SIGNED, PassReason::UnknownQuery);
}

/// Reference 2A.7 and 2L.192: without a key there is no object.
#[test]
fn reads_without_a_key_pass() {
    for target in [
        "/",
        "/b",
        "/b/",
        "/b?prefix=a",
        "/b?location",
        "/b?list-type=2",
        "/b?policy",
        "/b?cors",
        "//",
    ] {
        passes(&format!("GET {target}"), SIGNED, PassReason::NoKey);
        passes(&format!("HEAD {target}"), SIGNED, PassReason::NoKey);
    }
    with("b.s3.us-east-1.amazonaws.com", "HEAD /", "", |classified| {
        assert_eq!(classified.operation, Operation::Pass(PassReason::NoKey));
    });
}

/// Reference 2A.8.
#[test]
fn response_overrides_are_of_signed_requests_without_conditions() {
    let plain = "GET /b/k?response-content-type=text%2Fhtml";
    let presigned = format!("GET /b/k?response-content-disposition=a&{PRESIGNED}");
    for (line, headers) in [(plain, SIGNED), (&presigned, "")] {
        with("s3.amazonaws.com", line, headers, |classified| {
            assert_eq!(classified.operation, Operation::GetObject, "{line}");
            assert_ne!(classified.overrides.mask(), 0);
        });
    }
    let conditional = format!("{SIGNED}If-None-Match: x\r\n");
    for (line, headers) in [
        (plain, ""),
        (plain, &*conditional),
        ("GET /b/k?response-content-type=a+b", SIGNED),
        ("GET /b/k?response-expires=1&response-expires=1", SIGNED),
        ("HEAD /b/k?response-x=1", SIGNED),
    ] {
        passes(line, headers, PassReason::ResponseOverride);
    }
}

/// Reference 2B.38.
#[test]
fn a_version_is_an_object_of_its_own() {
    let identity = |line: &str| {
        let mut found = None;
        with("s3.amazonaws.com", line, SIGNED, |classified| {
            let object = classified.target.object_key().expect("an object");
            found = Some((
                classified.operation,
                object.encoded().to_vec(),
                object.digest().0,
            ));
        });
        found.expect("a request")
    };
    let current = identity("GET /b/k");
    let mut seen = vec![current.clone()];
    for query in ["versionId=1", "versionId=null", "versionId=k"] {
        let version = identity(&format!("GET /b/k?{query}&x-id=GetObject"));
        assert_eq!(version.0, Operation::GetObject);
        assert!(
            seen.iter()
                .all(|known| known.1 != version.1 && known.2 != version.2)
        );
        assert_eq!(version.2 >> 64, current.2 >> 64, "one owner, one stamp");
        seen.push(version);
    }
    // A write is about the object, whichever version it names.
    let write = identity("DELETE /b/k?versionId=1");
    assert_eq!((write.1, write.2), (current.1, current.2));
    for query in [
        "versionId=",
        "versionId",
        "versionId=%31",
        "versionId=1&versionId=1",
        "versionId=a+b",
    ] {
        passes(&format!("GET /b/k?{query}"), SIGNED, PassReason::VersionId);
    }
}

/// Reference 2B.39.
#[test]
fn a_customers_key_passes() {
    passes(
        "GET /b/k",
        "x-amz-server-side-encryption-customer-key: k\r\n",
        PassReason::SseC,
    );
    passes(
        "HEAD /b/k",
        "X-Amz-Server-Side-Encryption-Customer-Algorithm: AES256\r\n",
        PassReason::SseC,
    );
}

/// Reference 2B.36 and 2B.37: a part is never taken for the object.
#[test]
fn a_part_read_is_no_object_read() {
    for (query, part) in [
        ("1", Some(1)),
        ("10000", Some(10_000)),
        ("0", None),
        ("01", None),
        ("+1", None),
        ("10001", None),
        ("x", None),
    ] {
        with(
            "s3.amazonaws.com",
            &format!("GET /b/k?partNumber={query}"),
            SIGNED,
            |classified| {
                assert_eq!(
                    (classified.part, classified.is_cacheable()),
                    (part, part.is_some()),
                    "{query}"
                );
            },
        );
    }
    with(
        "s3.amazonaws.com",
        "GET /b/k?partNumber=1&partNumber=2",
        SIGNED,
        |classified| {
            assert!(!classified.is_cacheable());
        },
    );
    with(
        "s3.amazonaws.com",
        "GET /b/k?partNumber=1",
        "If-Range: x\r\n",
        |classified| {
            assert!(!classified.is_cacheable());
        },
    );
    for line in [
        "GET /b/k?partNumber=1",
        "HEAD /b/k?partNumber=1",
        "GET /b/k?partNumber=1&x-id=GetObject",
    ] {
        assert_eq!(
            touched(line, SIGNED),
            (Operation::PartRead, Touches::Nothing),
            "{line}"
        );
    }
    passes(
        "GET /b/k?partNumber=1&uploadId=a",
        SIGNED,
        PassReason::SubResource,
    );
    passes(
        "GET /b/k?partNumber=1",
        "Range: bytes=0-1\r\n",
        PassReason::Part,
    );
}

/// Reference 2A.24, 2C.71 and 4.22: S3 answers these with the whole object, in its own way.
#[test]
fn ranges_that_s3_ignores_pass() {
    passes(
        "GET /b/k",
        "Range: bytes=0-1,4-5\r\n",
        PassReason::MultiRange,
    );
    passes(
        "GET /b/k",
        "Range: bytes=0-1\r\nRange: bytes=0-1\r\n",
        PassReason::MultiRange,
    );
    for value in [
        "bytes=5-2",
        "bytes = 0-1",
        "Bytes=0-1",
        "x",
        "bytes=0-99999999999999999999",
    ] {
        passes(
            "GET /b/k",
            &format!("Range: {value}\r\n"),
            PassReason::MalformedRange,
        );
    }
    passes("HEAD /b/k", "Range: bytes=0-1\r\n", PassReason::RangeOnHead);
    assert_eq!(
        operation("GET /b/k", "Range: bytes=-0\r\n"),
        Operation::GetObject
    );
}

/// Reference 2C.65 and 2C.67.
#[test]
fn conditions_are_looked_up_if_each_comes_once() {
    for lines in [
        "If-None-Match: \"a\"\r\n",
        "If-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        "If-Unmodified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        "If-Range: \"a\"\r\nRange: bytes=0-1\r\n",
        "If-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n",
    ] {
        assert_eq!(
            operation("GET /b/k", lines),
            Operation::GetObject,
            "{lines}"
        );
    }
    for lines in [
        "If-Match: \"a\"\r\nIf-Match: \"b\"\r\n",
        "If-Schedule-Tag-Match: \"a\"\r\n",
    ] {
        passes("GET /b/k", lines, PassReason::Conditional);
    }
    assert_eq!(
        operation("HEAD /b/k", "If-Match: *\r\n"),
        Operation::HeadObject
    );
}

/// Reference 4.26: what cannot be judged here is asked of the origin.
#[test]
fn headers_that_may_change_the_answer_pass() {
    for name in [
        "x-amz-expected-bucket-owner",
        "x-amz-request-payer",
        "x-amz-object-lock-mode",
        "x-amz-optional-object-attributes",
        "x-amz-whatever",
        "x-goog-user-project",
        "x-amz-copy-source",
        "x-amz-rename-source",
    ] {
        passes(
            "GET /b/k",
            &format!("{name}: 1\r\n"),
            PassReason::UnknownHeader,
        );
    }
    passes(
        "GET /b/k",
        "x-amz-checksum-mode: DISABLED\r\n",
        PassReason::UnknownHeader,
    );
    passes(
        "GET /b/k",
        "Origin: https://page.example\r\n",
        PassReason::OriginHeader,
    );
    passes(
        "GET /b/k",
        "Access-Control-Request-Method: PUT\r\n",
        PassReason::OriginHeader,
    );
}

#[test]
fn what_a_client_asks_of_caches_does_not_make_it_pass() {
    with(
        HOST,
        "GET /b/k",
        "Cache-Control: no-cache, no-store\r\n",
        |classified| {
            assert!(classified.is_cacheable() && classified.wishes.any());
        },
    );
}

#[test]
fn a_read_with_a_body_passes() {
    passes("GET /b/k", "Content-Length: 1\r\n", PassReason::Body);
    passes(
        "HEAD /b/k",
        "Transfer-Encoding: chunked\r\n",
        PassReason::Body,
    );
    assert_eq!(
        operation("GET /b/k", "Content-Length: 0\r\n"),
        Operation::GetObject
    );
}

/// Reference 2A.2, 2A.3 and 2A.4: whatever is no read drops what it names, known or not.
#[test]
fn every_write_touches_the_object_it_names() {
    let copy = "x-amz-copy-source: /b/other\r\n";
    let table = [
        ("PUT /b/k", "", Operation::ObjectWrite),
        ("PUT /b/k?x-id=PutObject", SIGNED, Operation::ObjectWrite),
        ("PUT /b/k?tagging", "", Operation::ObjectWrite),
        ("PUT /b/k?acl", "", Operation::ObjectWrite),
        ("PUT /b/k?uploadId=a", "", Operation::ObjectWrite),
        (
            "PUT /b/k?anything=1",
            "x-amz-anything: 1\r\n",
            Operation::ObjectWrite,
        ),
        (
            "PUT /b/k",
            "Authorization: Bearer x\r\n",
            Operation::ObjectWrite,
        ),
        ("PUT /%62/k", "", Operation::ObjectWrite),
        ("PUT //b/k", "", Operation::ObjectWrite),
        ("DELETE /b/k", "", Operation::ObjectWrite),
        ("DELETE /b/k?versionId=1", "", Operation::ObjectWrite),
        ("DELETE /b/k?tagging", "", Operation::ObjectWrite),
        ("POST /b/k", "", Operation::ObjectWrite),
        ("POST /b/k?restore", "", Operation::ObjectWrite),
        ("POST /b/k?select&select-type=2", "", Operation::ObjectWrite),
        ("PATCH /b/k", "", Operation::ObjectWrite),
        ("get /b/k", "", Operation::ObjectWrite),
        ("PUT /b/k", copy, Operation::Copy),
        ("PUT /b/k?x-id=CopyObject", copy, Operation::Copy),
        (
            "PUT /b/k?partNumber=1&uploadId=a",
            "",
            Operation::UploadPart,
        ),
        (
            "PUT /b/k?uploadId=a&partNumber=1&x-id=UploadPartCopy",
            copy,
            Operation::UploadPart,
        ),
        ("POST /b/k?uploads", "", Operation::MultipartCreate),
        ("POST /b/k?uploads=", "", Operation::MultipartCreate),
        ("POST /b/k?uploadId=a", "", Operation::MultipartComplete),
        ("DELETE /b/k?uploadId=a", "", Operation::MultipartAbort),
    ];
    let read = with(HOST, "GET /b/k", "", |read| {
        read.target.object_key().map(|key| key.digest())
    });
    for (line, lines, want) in table {
        with(HOST, line, lines, |classified| {
            assert_eq!(
                (classified.operation, classified.touches),
                (want, Touches::Object),
                "{line}"
            );
            assert_eq!(
                classified.target.object_key().map(|key| key.digest()),
                read,
                "{line}"
            );
        });
    }
}

/// Reference 2A.5.
#[test]
fn a_multi_delete_touches_what_it_lists() {
    for line in [
        "POST /b?delete",
        "POST /b/?delete=",
        "POST /b?delete&x-id=DeleteObjects",
    ] {
        assert_eq!(
            touched(line, SIGNED),
            (Operation::MultiDelete, Touches::Listed),
            "{line}"
        );
    }
    with("b.s3.amazonaws.com", "POST /?delete", "", |classified| {
        assert_eq!(classified.operation, Operation::MultiDelete);
        let mut buf = Vec::new();
        let sibling = classified
            .target
            .sibling(b"k", &mut buf)
            .map(|key| key.digest());
        let read = with(HOST, "GET /b/k", "", |read| {
            read.target.object_key().map(|key| key.digest())
        });
        assert_eq!(sibling, read);
    });
}

#[test]
fn what_names_its_objects_elsewhere_touches_the_bucket() {
    for (line, lines) in [
        ("POST /b", "Content-Type: multipart/form-data\r\n"),
        ("POST /b?%64elete", ""),
        ("POST /b?anything", ""),
        ("DELETE /b", ""),
        ("PUT /b?anything", ""),
        ("PATCH /b", ""),
    ] {
        assert_eq!(
            touched(line, lines),
            (Operation::Pass(PassReason::Method), Touches::Bucket),
            "{line}"
        );
    }
    let rename = touched("PUT /b/k?renameObject", "x-amz-rename-source: /other\r\n");
    assert_eq!(rename, (Operation::ObjectWrite, Touches::Bucket));
}

/// Under a host that is not known to name a bucket, `POST /?delete` removes objects of one nevertheless.
#[test]
fn a_write_that_names_no_bucket_touches_all_of_its_origin_but_for_aws() {
    let map = OriginMap::new(OriginMapConfig {
        single_origin: Some(SingleOrigin {
            authority: "127.0.0.1:9000".to_owned(),
            ..SingleOrigin::default()
        }),
        ..OriginMapConfig::default()
    });
    let map = map.expect("a map");
    for line in ["POST /?delete", "POST /", "DELETE /", "PUT //"] {
        let text = format!("{line} HTTP/1.1\r\nHost: bucket.store.corp\r\n\r\n");
        let head = parse_request(text.as_bytes(), &HeadLimits::default());
        let head = head.expect("a valid head").expect("a whole head");
        let route = map
            .resolve_request(head.authority, head.host)
            .expect("a route");
        let mut key = Vec::new();
        let classified = classify(&head, &route, &mut key);
        assert_eq!(classified.touches, Touches::Bucket, "{line}");
        assert!(!classified.target.bucket_prefix().is_empty(), "{line}");
        with(HOST, line, "", |classified| {
            assert_eq!(classified.touches, Touches::Nothing, "{line}");
        });
    }
}

/// S3 reads a raw plus as a space, other stores as a plus; SDKs always send `%2B`.
#[test]
fn a_raw_plus_in_a_key_is_never_answered_from_the_cache_and_its_writes_touch_the_bucket() {
    for path in ["/b/a+b", "/b/+", "/%62/a+b"] {
        passes(&format!("GET {path}"), SIGNED, PassReason::Plus);
        passes(&format!("HEAD {path}"), SIGNED, PassReason::Plus);
        for line in ["PUT", "DELETE", "POST", "PATCH"] {
            let (_, touches) = touched(&format!("{line} {path}"), "");
            assert_eq!(touches, Touches::Bucket, "{line} {path}");
        }
        let part = touched(&format!("PUT {path}?partNumber=1&uploadId=a"), "");
        assert_eq!(part, (Operation::UploadPart, Touches::Bucket));
    }
    assert_eq!(operation("GET /b/a%2Bb", SIGNED), Operation::GetObject);
    assert_eq!(touched("PUT /b/a%2Bb", "").1, Touches::Object);
}

#[test]
fn what_changes_no_object_touches_nothing() {
    for line in [
        "PUT /b",
        "PUT /b?lifecycle",
        "PUT /b?policy&x-id=PutBucketPolicy",
        "DELETE /b?cors",
    ] {
        assert_eq!(
            touched(line, ""),
            (Operation::Pass(PassReason::Method), Touches::Nothing),
            "{line}"
        );
    }
    let long = format!("PUT /b/{}", "k".repeat(1025));
    assert_eq!(
        touched(&long, ""),
        (Operation::ObjectWrite, Touches::Nothing)
    );
}

/// Reference 2A.25: a preflight is passed on; it is safe and drops nothing.
#[test]
fn a_preflight_passes() {
    passes(
        "OPTIONS /b/k",
        "Origin: https://page.example\r\n",
        PassReason::Method,
    );
}

#[test]
fn keys_and_buckets_without_a_place_in_the_cache_pass() {
    passes(
        &format!("GET /b/{}", "k".repeat(1025)),
        SIGNED,
        PassReason::KeyTooLong,
    );
    passes("GET /%62/k", SIGNED, PassReason::OddBucket);
    passes("GET //b/k", SIGNED, PassReason::OddBucket);
    passes("GET /b--use1-az4--x-s3/k", SIGNED, PassReason::Endpoint);
    passes("GET /b--ol-s3/k", SIGNED, PassReason::Endpoint);
}

#[test]
fn a_pass_only_endpoint_is_never_cached_but_writes_still_touch() {
    let host = "b--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com";
    with(host, "GET /k", SIGNED, |classified| {
        assert_eq!(classified.operation, Operation::Pass(PassReason::Endpoint));
    });
    with(host, "PUT /k", SIGNED, |classified| {
        assert_eq!(classified.touches, Touches::Object);
    });
}

#[test]
fn reserved_names_are_ordinary_in_other_stores() {
    let single = SingleOrigin {
        authority: "store:9000".to_owned(),
        ..SingleOrigin::default()
    };
    let config = OriginMapConfig {
        single_origin: Some(single),
        ..OriginMapConfig::default()
    };
    let map = OriginMap::new(config).expect("a map");
    let text = "GET /b--x-s3/k HTTP/1.1\r\nHost: store:9000\r\n\r\n";
    let head = parse_request(text.as_bytes(), &HeadLimits::default())
        .expect("valid")
        .expect("whole");
    let route = map
        .resolve_request(head.authority, head.host)
        .expect("a route");
    assert!(classify(&head, &route, &mut Vec::new()).is_cacheable());
}

#[test]
fn what_is_for_no_origin_is_refused() {
    assert_eq!(
        operation("OPTIONS *", ""),
        Operation::Refused(Refusal::AsteriskForm)
    );
    let text = "CONNECT s3.amazonaws.com:443 HTTP/1.1\r\nHost: s3.amazonaws.com:443\r\n\r\n";
    let head = parse_request(text.as_bytes(), &HeadLimits::default())
        .expect("valid")
        .expect("whole");
    let map = aws();
    let route = map.resolve(HOST).expect("a route");
    let refused = classify(&head, &route, &mut Vec::new()).operation;
    assert_eq!(refused, Operation::Refused(Refusal::Connect));
    for line in ["GET /b/%zz", "PUT /b/k%", "HEAD /%4/k"] {
        let seen = touched(line, "");
        let Operation::Refused(refusal) = seen.0 else {
            panic!("{line}: {seen:?}")
        };
        assert_eq!(
            (refusal.code().status(), refusal.code().as_str()),
            (400, "InvalidURI")
        );
        assert_eq!(seen.1, Touches::Nothing);
    }
}

/// Reference 2D.81.
#[test]
fn debug_of_a_classified_request_shows_no_secret() {
    let lines = format!("{SIGNED}x-amz-security-token: 5ec5e7token\r\n");
    with(HOST, "GET /b/k", &lines, |classified| {
        assert!(!format!("{classified:?}").contains("5ec5e7"));
    });
    with(HOST, &format!("GET /b/k?{PRESIGNED}"), "", |classified| {
        assert!(!format!("{classified:?}").contains("5ec5e7"));
    });
}

const NAMES: [&str; 13] = [
    "acl",
    "x-id=GetObject",
    "partNumber=1",
    "uploadId=a",
    "uploads",
    "delete",
    "versionId=1",
    "response-expires=0",
    "list-type=2",
    "zzz",
    "X-Amz-Date=1",
    "Signature=1",
    "x-amz-checksum-mode=ENABLED",
];
const LINES: [&str; 10] = [
    "Range: bytes=0-1",
    "Range: x",
    "If-Match: a",
    "If-None-Match: a",
    "x-amz-date: 1",
    "x-amz-other: 1",
    "x-amz-copy-source: /b/k",
    "Origin: a",
    "Authorization: AWS a:b",
    "Content-Length: 1",
];

proptest! {
    /// Only a plain read is ever cacheable, and only a read or a preflight of an object drops nothing.
    #[test]
    fn the_table_keeps_its_promises(
        method in prop::sample::select(vec!["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"]),
        path in prop::sample::select(vec!["/", "/b", "/b/", "/b/k", "/b//k", "//b/k", "/%62/k"]),
        names in prop::sample::subsequence(NAMES.to_vec(), 0..4),
        lines in prop::sample::subsequence(LINES.to_vec(), 0..4),
    ) {
        let query = if names.is_empty() { String::new() } else { format!("?{}", names.join("&")) };
        let headers: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        // A part, a version and, where the request is signed, an override are read of a copy too.
        let readable = ["x-id=GetObject", "partNumber=1", "versionId=1", "response-expires=0"];
        let plain = |name: &&str| readable.contains(name);
        with(HOST, &format!("{method} {path}{query}"), &headers, |classified| {
            let read = matches!(method, "GET" | "HEAD");
            if classified.is_cacheable() {
                assert!(read && names.iter().all(plain) && classified.target.oddity().is_none());
                let allowed = ["Range: bytes=0-1", "If-Match: a", "If-None-Match: a", "x-amz-date: 1", "Authorization: AWS a:b"];
                assert!(lines.iter().all(|line| allowed.contains(line)));
                assert!(classified.target.key().is_some());
            }
            if !read && method != "OPTIONS" && classified.target.object_key().is_some() {
                assert_ne!(classified.touches, Touches::Nothing);
            }
            if read || method == "OPTIONS" {
                assert_eq!(classified.touches, Touches::Nothing);
            }
        });
    }
}

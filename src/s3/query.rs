//! The query of a request: which known parameters it has, and the values that a presigned URL needs.
//!
//! Called by `operation` once per request. Names are compared as they stand on the wire: an encoded or
//! differently cased spelling of a known name is an unknown one, and an unknown one is never answered from
//! the cache. Nothing is decoded and nothing allocated.
//!
//! Left to others: what the parameters mean together (`operation`, `auth`).

use super::facts::Facts;
use super::overrides::Overrides;

/// The values of a presigned URL's parameters, raw.
#[derive(Clone, Copy, Default)]
pub(super) struct Presign<'b> {
    pub(super) algorithm: Option<&'b str>,
    pub(super) credential: Option<&'b str>,
    pub(super) date: Option<&'b str>,
    pub(super) expires: Option<&'b str>,
    pub(super) signed_headers: Option<&'b str>,
    pub(super) signature: Option<&'b str>,
    /// `AWSAccessKeyId`, `Signature` and `Expires` of SigV2.
    pub(super) v2_key_id: Option<&'b str>,
    pub(super) v2_signature: Option<&'b str>,
    pub(super) v2_expires: Option<&'b str>,
    /// Any other parameter that only a presigned URL has.
    other: bool,
    /// One of them came twice.
    pub(super) repeated: bool,
}

impl Presign<'_> {
    /// True if anything looks like SigV4, also if incomplete.
    pub(super) fn any_v4(&self) -> bool {
        let named = [
            self.algorithm,
            self.credential,
            self.date,
            self.expires,
            self.signed_headers,
            self.signature,
        ];
        named.iter().any(Option::is_some) || (self.other && !self.any_v2())
    }

    /// True if anything looks like SigV2, also if incomplete.
    pub(super) fn any_v2(&self) -> bool {
        [self.v2_key_id, self.v2_signature, self.v2_expires]
            .iter()
            .any(Option::is_some)
    }
}

/// A query taken apart.
#[derive(Clone, Copy, Default)]
pub(super) struct Query<'b> {
    pub(super) facts: Facts,
    pub(super) presign: Presign<'b>,
    /// The value of the one plain `versionId`.
    pub(super) version: Option<&'b str>,
    /// The number of the one `partNumber`.
    pub(super) part: Option<u32>,
    pub(super) overrides: Overrides<'b>,
}

/// The longest `versionId` that S3 has.
const VERSION_BYTES_MAX: usize = 1024;
/// Parts are numbered from 1 to this.
const PART_NUMBER_MAX: u32 = 10_000;

impl<'b> Query<'b> {
    /// Reads a raw query, without its question mark.
    pub(super) fn parse(raw: Option<&'b str>) -> Self {
        let mut query = Self::default();
        let Some(raw) = raw.filter(|raw| !raw.is_empty()) else {
            return query;
        };
        for parameter in raw.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let fact = query.observe(name, value);
            query.facts.insert(fact);
        }
        query
    }

    fn observe(&mut self, name: &str, value: &'b str) -> Facts {
        let presign = &mut self.presign;
        let slot = match name {
            "X-Amz-Algorithm" => &mut presign.algorithm,
            "X-Amz-Credential" => &mut presign.credential,
            "X-Amz-Date" => &mut presign.date,
            "X-Amz-Expires" => &mut presign.expires,
            "X-Amz-SignedHeaders" => &mut presign.signed_headers,
            "X-Amz-Signature" => &mut presign.signature,
            "AWSAccessKeyId" => &mut presign.v2_key_id,
            "Signature" => &mut presign.v2_signature,
            "Expires" => &mut presign.v2_expires,
            "X-Amz-Security-Token"
            | "x-amz-security-token"
            | "X-Amz-Region-Set"
            | "X-Amz-Content-Sha256"
            | "X-Amz-User-Agent"
            | "x-amz-user-agent" => {
                presign.other = true;
                return Facts::PRESIGNED;
            }
            "x-amz-checksum-mode" | "X-Amz-Checksum-Mode" if value == "ENABLED" => {
                presign.other = true;
                return Facts::PRESIGNED | Facts::CHECKSUM_MODE;
            }
            _ => return self.plain(name, value),
        };
        presign.repeated |= slot.replace(value).is_some();
        Facts::PRESIGNED
    }

    /// The fact of a parameter that is no part of a signature.
    fn plain(&mut self, name: &str, value: &'b str) -> Facts {
        match name {
            "versionId" => {
                let first = self.version.replace(value).is_none();
                if first && is_plain_version(value) {
                    Facts::VERSION_ID
                } else {
                    Facts::VERSION_ID | Facts::VERSION_ODD
                }
            }
            "partNumber" => {
                // A second one, or one that is no number, is not known here.
                let first = !self.facts.has(Facts::PART_NUMBER);
                self.part = part_number(value).filter(|_| first);
                Facts::PART_NUMBER
            }
            _ if name.starts_with("response-") => match self.overrides.take(name, value) {
                true => Facts::RESPONSE_OVERRIDE,
                false => Facts::RESPONSE_OVERRIDE | Facts::OVERRIDE_ODD,
            },
            _ => constant(name, value),
        }
    }
}

/// A spelling that every origin decodes to itself.
fn is_plain_version(value: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    !value.is_empty() && value.len() <= VERSION_BYTES_MAX && value.bytes().all(plain)
}

/// A part's number in its only spelling.
fn part_number(value: &str) -> Option<u32> {
    let number: u32 = value.parse().ok()?;
    let plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
    (plain && number <= PART_NUMBER_MAX).then_some(number)
}

/// The fact of a parameter whose value says nothing more.
fn constant(name: &str, value: &str) -> Facts {
    match name {
        "x-id" => match value {
            "GetObject" => Facts::X_ID_GET,
            "HeadObject" => Facts::X_ID_HEAD,
            _ => Facts::X_ID_OTHER,
        },
        "uploadId" => Facts::UPLOAD_ID,
        "uploads" => Facts::UPLOADS,
        "delete" => Facts::DELETE,
        _ if SUB_RESOURCES.contains(&name) => Facts::SUB_RESOURCE,
        _ => Facts::UNKNOWN_QUERY,
    }
}

/// Sub-resources and listing parameters that S3 documents. Only used to name the reason of a pass and to
/// tell a bucket's configuration from what touches its objects: an unlisted name is no less safe.
const SUB_RESOURCES: &[&str] = &[
    "accelerate",
    "acl",
    "allow-unordered",
    "analytics",
    "attributes",
    "continuation-token",
    "cors",
    "delimiter",
    "encoding-type",
    "encryption",
    "fetch-owner",
    "id",
    "intelligent-tiering",
    "inventory",
    "key-marker",
    "legal-hold",
    "lifecycle",
    "list-type",
    "location",
    "logging",
    "marker",
    "max-keys",
    "max-parts",
    "max-uploads",
    "metadataConfiguration",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "part-number-marker",
    "policy",
    "policyStatus",
    "prefix",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "restore",
    "retention",
    "select",
    "select-type",
    "session",
    "start-after",
    "tagging",
    "torrent",
    "upload-id-marker",
    "version-id-marker",
    "versioning",
    "versions",
    "website",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(raw: &str) -> Facts {
        Query::parse(Some(raw)).facts
    }

    #[test]
    fn no_query_and_empty_parameters_are_nothing() {
        assert_eq!(Query::parse(None).facts, Facts::NONE);
        for raw in ["", "&", "&&"] {
            assert_eq!(facts(raw), Facts::NONE, "{raw}");
        }
    }

    /// Reference 2A.6 and 2A.8.
    #[test]
    fn parameters_are_told_by_table() {
        let table = [
            ("x-id=GetObject", Facts::X_ID_GET),
            ("x-id=HeadObject", Facts::X_ID_HEAD),
            ("x-id", Facts::X_ID_OTHER),
            ("partNumber=1", Facts::PART_NUMBER),
            (
                "partNumber=1&uploadId=a",
                Facts::PART_NUMBER.and(Facts::UPLOAD_ID),
            ),
            ("uploads", Facts::UPLOADS),
            ("uploads=", Facts::UPLOADS),
            ("versionId=null", Facts::VERSION_ID),
            ("delete", Facts::DELETE),
            ("response-content-type=a", Facts::RESPONSE_OVERRIDE),
            ("acl", Facts::SUB_RESOURCE),
            ("prefix=a", Facts::SUB_RESOURCE),
            ("list-type=2&prefix=a", Facts::SUB_RESOURCE),
            ("something", Facts::UNKNOWN_QUERY),
            ("=a", Facts::UNKNOWN_QUERY),
        ];
        for (raw, want) in table {
            assert_eq!(facts(raw), want, "{raw}");
        }
    }

    #[test]
    fn another_spelling_of_a_known_name_is_an_unknown_name() {
        for raw in [
            "versionid=1",
            "version%49d=1",
            "X-ID=GetObject",
            "x-amz-date=1",
            "X-Amz%2DDate=1",
            "ACL",
            "+acl",
            "signature=1",
        ] {
            assert_eq!(facts(raw), Facts::UNKNOWN_QUERY, "{raw}");
        }
        assert_eq!(facts("x-amz-checksum-mode=enabled"), Facts::UNKNOWN_QUERY);
    }

    #[test]
    fn presign_parameters_are_kept_raw() {
        let query = Query::parse(Some(
            "X-Amz-Credential=A%2F1&x-id=GetObject&X-Amz-Signature=a=b&x-amz-checksum-mode=ENABLED",
        ));
        assert_eq!(query.presign.credential, Some("A%2F1"));
        assert_eq!(query.presign.signature, Some("a=b"));
        assert!(query.facts.has(Facts::CHECKSUM_MODE) && query.facts.has(Facts::X_ID_GET));
        assert!(query.presign.any_v4() && !query.presign.any_v2() && !query.presign.repeated);
        assert!(Query::parse(Some("Expires=1&Expires=1")).presign.repeated);
    }
}

//! AWS Signature Version 4 for S3: signs a request by headers or by query (presigned).
//!
//! Called by the demo, the load client and the end-to-end tests. Pure: no clock, the time is an argument.
//! Invariant: what is signed is what goes on the wire; the caller passes the raw path and query it will send and
//! adds exactly the headers that come back. Which headers are signed is the caller's choice ([`Signer::sign`] takes
//! them), because whether `Range` is signed decides how a proxy may fetch. Left to others: SigV4A, chunk signatures.

use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::FormatItem;
use time::macros::format_description;

use crate::Headers;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: &[FormatItem<'_>] =
    format_description!("[year][month][day]T[hour][minute][second]Z");

/// RFC 3986 unreserved characters, the only ones SigV4 leaves as they are.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The same for a path: S3 keeps the slash.
const STRICT_PATH: &AsciiSet = &STRICT.remove(b'/');

/// The hex of SHA-256 of nothing, the payload hash of every GET.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What stands for the body in the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// No body: the digest of nothing.
    Empty,
    /// `UNSIGNED-PAYLOAD`.
    Unsigned,
    /// The lower-case hex SHA-256 of the body.
    Sha256(String),
}

impl Payload {
    /// The digest of these bytes.
    pub fn of(body: &[u8]) -> Self {
        Payload::Sha256(hex(&Sha256::digest(body)))
    }

    fn text(&self) -> &str {
        match self {
            Payload::Empty => EMPTY_SHA256,
            Payload::Unsigned => "UNSIGNED-PAYLOAD",
            Payload::Sha256(hex) => hex,
        }
    }
}

/// The parts of a request that a signature covers.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// The value of the `Host` header, as sent.
    pub host: &'a str,
    /// The raw path, percent-encoded as sent.
    pub path: &'a str,
    /// The raw query without `?`, empty when there is none.
    pub query: &'a str,
}

/// Credentials and scope.
#[derive(Debug, Clone)]
pub struct Signer {
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
    /// For temporary credentials.
    pub session_token: Option<String>,
    /// `us-east-1`, …
    pub region: String,
    /// `s3`.
    pub service: String,
}

impl Signer {
    /// A signer for S3 with long-term credentials.
    pub fn s3(access_key: &str, secret_key: &str, region: &str) -> Self {
        Signer {
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            session_token: None,
            region: region.into(),
            service: "s3".into(),
        }
    }

    /// Signs by headers. `headers` are those of the request that shall be signed besides `host`, `x-amz-date`,
    /// `x-amz-content-sha256` and the token, which always are. Returns the headers to add to the request
    /// (`Authorization` last); `Host` is not among them.
    pub fn sign(
        &self,
        target: Target<'_>,
        headers: &[(&str, &str)],
        payload: &Payload,
        now: OffsetDateTime,
    ) -> Headers {
        let date = amz_date(now);
        let mut added = vec![
            ("x-amz-date".to_string(), date.clone()),
            (
                "x-amz-content-sha256".to_string(),
                payload.text().to_string(),
            ),
        ];
        if let Some(token) = &self.session_token {
            added.push(("x-amz-security-token".into(), token.clone()));
        }
        let mut all: Vec<(&str, &str)> = vec![("host", target.host)];
        all.extend(
            headers
                .iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("host")),
        );
        all.extend(
            added
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let (canonical, names) = canonical_headers(&all);
        let request = format!(
            "{}\n{}\n{}\n{canonical}\n{names}\n{}",
            target.method,
            canonical_path(target.path),
            canonical_query(target.query),
            payload.text()
        );
        let signature = self.signature(&date, &request);
        let authorization = format!(
            "{ALGORITHM} Credential={}/{}, SignedHeaders={names}, Signature={signature}",
            self.access_key,
            self.scope(&date)
        );
        added.push(("Authorization".into(), authorization));
        added
    }

    /// Signs by query. `headers` besides `host` must then be sent by whoever uses the URL. Returns the whole query,
    /// without `?`, that replaces the target's. The payload is unsigned, as S3 asks of presigned requests.
    pub fn presign(
        &self,
        target: Target<'_>,
        headers: &[(&str, &str)],
        expires_s: u32,
        now: OffsetDateTime,
    ) -> String {
        let date = amz_date(now);
        let mut all: Vec<(&str, &str)> = vec![("host", target.host)];
        all.extend(
            headers
                .iter()
                .filter(|(name, _)| !name.eq_ignore_ascii_case("host")),
        );
        let (canonical, names) = canonical_headers(&all);
        let mut query = target.query.to_string();
        let mut add = |name: &str, value: &str| {
            if !query.is_empty() {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            query.push_str(&encode(value));
        };
        add("X-Amz-Algorithm", ALGORITHM);
        add(
            "X-Amz-Credential",
            &format!("{}/{}", self.access_key, self.scope(&date)),
        );
        add("X-Amz-Date", &date);
        add("X-Amz-Expires", &expires_s.to_string());
        if let Some(token) = &self.session_token {
            add("X-Amz-Security-Token", token);
        }
        add("X-Amz-SignedHeaders", &names);
        let request = format!(
            "{}\n{}\n{}\n{canonical}\n{names}\nUNSIGNED-PAYLOAD",
            target.method,
            canonical_path(target.path),
            canonical_query(&query)
        );
        let signature = self.signature(&date, &request);
        query.push_str("&X-Amz-Signature=");
        query.push_str(&signature);
        query
    }

    fn scope(&self, date: &str) -> String {
        format!(
            "{}/{}/{}/aws4_request",
            &date[..8],
            self.region,
            self.service
        )
    }

    fn signature(&self, date: &str, canonical_request: &str) -> String {
        let digest = hex(&Sha256::digest(canonical_request.as_bytes()));
        let text = format!("{ALGORITHM}\n{date}\n{}\n{digest}", self.scope(date));
        let mut key = mac(
            format!("AWS4{}", self.secret_key).as_bytes(),
            &date.as_bytes()[..8],
        );
        for part in [self.region.as_str(), self.service.as_str(), "aws4_request"] {
            key = mac(&key, part.as_bytes());
        }
        hex(&mac(&key, text.as_bytes()))
    }
}

/// `20130524T000000Z`.
pub fn amz_date(now: OffsetDateTime) -> String {
    now.to_offset(time::UtcOffset::UTC)
        .format(AMZ_DATE)
        .expect("the format has only fields that every time has")
}

/// An object's path on the wire, path style: `/bucket/key`, encoded as SigV4 wants it.
pub fn object_path(bucket: &str, key: &str) -> String {
    format!("/{bucket}/{}", percent_encode(key.as_bytes(), STRICT_PATH))
}

/// A query name or value, encoded as SigV4 wants it.
pub fn encode(text: &str) -> String {
    percent_encode(text.as_bytes(), STRICT).to_string()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble"));
    }
    text
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// S3 signs the path encoded once: decode what was sent, encode strictly.
fn canonical_path(raw: &str) -> String {
    let decoded: Vec<u8> = percent_decode(raw.as_bytes()).collect();
    percent_encode(&decoded, STRICT_PATH).to_string()
}

fn canonical_query(raw: &str) -> String {
    let reencode = |text: &str| {
        let decoded: Vec<u8> = percent_decode(text.as_bytes()).collect();
        percent_encode(&decoded, STRICT).to_string()
    };
    let mut pairs: Vec<(String, String)> = raw
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (reencode(name), reencode(value))
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Lower-case names sorted, values trimmed with inner runs of spaces made one, duplicates joined by comma.
fn canonical_headers(headers: &[(&str, &str)]) -> (String, String) {
    let mut sorted: Vec<(String, String)> = headers
        .iter()
        .map(|(name, value)| {
            let value: Vec<&str> = value.split_ascii_whitespace().collect();
            (name.to_ascii_lowercase(), value.join(" "))
        })
        .collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in sorted {
        match joined.last_mut() {
            Some(last) if last.0 == name => {
                last.1.push(',');
                last.1.push_str(&value);
            }
            _ => joined.push((name, value)),
        }
    }
    let names: Vec<&str> = joined.iter().map(|(name, _)| name.as_str()).collect();
    let lines: String = joined
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    (lines, names.join(";"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const WHEN: OffsetDateTime = datetime!(2013-05-24 00:00:00 UTC);
    const HOST: &str = "examplebucket.s3.amazonaws.com";

    /// The credentials of AWS's documented examples.
    fn example() -> Signer {
        Signer::s3(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "us-east-1",
        )
    }

    fn get<'a>(path: &'a str, query: &'a str) -> Target<'a> {
        Target {
            method: "GET",
            host: HOST,
            path,
            query,
        }
    }

    fn signature_of(headers: &[(String, String)]) -> &str {
        headers
            .last()
            .expect("Authorization")
            .1
            .rsplit_once("Signature=")
            .expect("a signature")
            .1
    }

    #[test]
    fn get_object_with_range_matches_the_documented_signature() {
        let headers = example().sign(
            get("/test.txt", ""),
            &[("Range", "bytes=0-9")],
            &Payload::Empty,
            WHEN,
        );
        assert_eq!(
            signature_of(&headers),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        assert!(
            headers
                .last()
                .unwrap()
                .1
                .contains("SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,")
        );
    }

    #[test]
    fn put_object_matches_the_documented_signature() {
        let target = Target {
            method: "PUT",
            path: "/test%24file.text",
            ..get("", "")
        };
        let headers = [
            ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ];
        let signed = example().sign(
            target,
            &headers,
            &Payload::of(b"Welcome to Amazon S3."),
            WHEN,
        );
        assert_eq!(
            signature_of(&signed),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
        );
    }

    #[test]
    fn sub_resource_without_value_matches_the_documented_signature() {
        let headers = example().sign(get("/", "lifecycle"), &[], &Payload::Empty, WHEN);
        assert_eq!(
            signature_of(&headers),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
    }

    #[test]
    fn list_with_query_matches_the_documented_signature() {
        let headers = example().sign(get("/", "prefix=J&max-keys=2"), &[], &Payload::Empty, WHEN);
        assert_eq!(
            signature_of(&headers),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn presigned_get_matches_the_documented_signature() {
        let query = example().presign(get("/test.txt", ""), &[], 86_400, WHEN);
        assert!(query.ends_with(
            "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        ));
        assert!(query.contains(
            "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request"
        ));
    }

    #[test]
    fn unsigned_range_does_not_change_the_signature() {
        let plain = example().sign(get("/test.txt", ""), &[], &Payload::Empty, WHEN);
        assert!(!plain.last().unwrap().1.contains("range"));
    }

    #[test]
    fn header_values_are_trimmed_folded_and_joined() {
        let (lines, names) = canonical_headers(&[("B", "  x   y "), ("a", "2"), ("A", "1")]);
        assert_eq!(lines, "a:2,1\nb:x y\n");
        assert_eq!(names, "a;b");
    }

    #[test]
    fn object_paths_keep_slashes_and_encode_the_rest() {
        assert_eq!(object_path("b", "a b/ü+~"), "/b/a%20b/%C3%BC%2B~");
        assert_eq!(canonical_path("/b/a%20b/%c3%bc"), "/b/a%20b/%C3%BC");
    }
}

//! How a request is signed, which of its headers the signature covers, and when it expires. Verifies nothing:
//! that is the origin's part.
//!
//! Called by `operation` for each request; `fill` and `upstream` ask [`Auth::signs`] before they add or drop a
//! header.
//!
//! Invariants:
//! - What S3 would accept is never rejected here: what cannot be read is *malformed*, which makes the request
//!   pass through untouched, with every header taken for signed.
//! - No `Debug` or `Display` writes a signature, a credential or a token.
//!
//! Left to others: comparing times with a clock (`now` is an argument).

use super::amz_date::parse_amz_date;
use super::query::Presign;
use memchr::{memchr, memchr2};
use std::fmt;

/// The longest life S3 gives a SigV4 presigned URL: seven days.
const PRESIGN_SECONDS_MAX: i64 = 604_800;

/// How far from S3's clock a signature may be dated.
const SKEW_SECONDS_MAX: i64 = 900;

const HMAC: &str = "AWS4-HMAC-SHA256";
const ECDSA: &str = "AWS4-ECDSA-P256-SHA256";

/// The way a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Not at all.
    Anonymous,
    /// `Authorization: AWS4-HMAC-SHA256 …`
    SigV4,
    /// `Authorization: AWS4-ECDSA-P256-SHA256 …`, valid in several regions.
    SigV4a,
    /// `X-Amz-Algorithm=AWS4-HMAC-SHA256` in the query.
    SigV4Presigned,
    /// `X-Amz-Algorithm=AWS4-ECDSA-P256-SHA256` in the query.
    SigV4aPresigned,
    /// `Authorization: AWS key:signature`
    SigV2,
    /// `AWSAccessKeyId`, `Signature` and `Expires` in the query.
    SigV2Presigned,
    /// Something else, or two of these at once.
    Unknown,
}

/// Which headers a signature covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signed<'b> {
    None,
    /// A header's list of names, separated by semicolons.
    List(&'b str),
    /// A query's: the semicolons perhaps as `%3B`.
    QueryList(&'b str),
    /// What SigV2 covers: a fixed set.
    V2,
    /// Not known, therefore all.
    All,
}

/// What is known of a request's signature without verifying it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'b> {
    /// The way it is signed.
    pub scheme: Scheme,
    /// When a presigned URL stops to be valid, in seconds since 1970; `None` for other schemes and if
    /// malformed.
    pub expires_at_unix: Option<i64>,
    /// When a SigV4 presigned URL was dated, in seconds since 1970.
    pub signed_at_unix: Option<i64>,
    /// True if the signature's parameters cannot be read: the origin decides.
    pub malformed: bool,
    signed: Signed<'b>,
    access_key_id: Option<&'b str>,
}

/// Whether a presigned request may be answered at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presigned {
    /// Within its time, or not presigned.
    InTime,
    /// Over: S3 answers 403.
    Expired,
    /// Dated ahead of the clock by more than S3 allows: the origin decides.
    TooEarly,
}

impl<'b> Auth<'b> {
    const ANONYMOUS: Self = Self {
        scheme: Scheme::Anonymous,
        expires_at_unix: None,
        signed_at_unix: None,
        malformed: false,
        signed: Signed::None,
        access_key_id: None,
    };

    /// What cannot be read.
    pub(super) const MALFORMED: Self = Self {
        scheme: Scheme::Unknown,
        malformed: true,
        signed: Signed::All,
        ..Self::ANONYMOUS
    };

    /// Reads the `Authorization` header's value, if there is one, and the query's presign parameters.
    pub(super) fn parse(authorization: Option<&'b [u8]>, presign: &Presign<'b>) -> Self {
        match (authorization, presign.any_v4(), presign.any_v2()) {
            (None, false, false) => Some(Self::ANONYMOUS),
            (Some(value), false, false) => Self::header(value),
            (None, true, false) => Self::presigned_v4(presign),
            (None, false, true) => Self::presigned_v2(presign),
            // S3 refuses two kinds at once; which one would count is not ours to guess.
            _ => None,
        }
        .unwrap_or(Self::MALFORMED)
    }

    fn header(value: &'b [u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let end = value.bytes().position(|byte| byte.is_ascii_whitespace())?;
        let (algorithm, parameters) = (&value[..end], &value[end + 1..]);
        let scheme = match algorithm {
            HMAC => Scheme::SigV4,
            ECDSA => Scheme::SigV4a,
            "AWS" => return Self::header_v2(parameters),
            _ => return None,
        };
        let [mut credential, mut signed_headers, mut signature] = [None; 3];
        for parameter in pieces(parameters, b',') {
            let parameter = parameter.trim_ascii();
            let equals = memchr(b'=', parameter.as_bytes())?;
            let (name, value) = (&parameter[..equals], &parameter[equals + 1..]);
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        signature.filter(|signature| !signature.is_empty())?;
        let access_key_id = access_key_id(credential?)?;
        let list = signed_headers.filter(|list| pieces(list, b';').all(is_token))?;
        Some(Self {
            scheme,
            signed: Signed::List(list),
            access_key_id: Some(access_key_id),
            ..Self::ANONYMOUS
        })
    }

    fn header_v2(parameters: &'b str) -> Option<Self> {
        let (key_id, signature) = parameters.trim_ascii().split_once(':')?;
        let ok = !key_id.is_empty() && !signature.is_empty();
        ok.then_some(Self {
            scheme: Scheme::SigV2,
            signed: Signed::V2,
            access_key_id: Some(key_id),
            ..Self::ANONYMOUS
        })
    }

    fn presigned_v4(presign: &Presign<'b>) -> Option<Self> {
        let scheme = match presign.algorithm? {
            HMAC => Scheme::SigV4Presigned,
            ECDSA => Scheme::SigV4aPresigned,
            _ => return None,
        };
        presign
            .signature
            .filter(|signature| !signature.is_empty() && !presign.repeated)?;
        let signed_at = parse_amz_date(presign.date?)?;
        let seconds = decimal(presign.expires?)?;
        if !(1..=PRESIGN_SECONDS_MAX).contains(&seconds) {
            return None;
        }
        let list = presign
            .signed_headers
            .filter(|list| listed(list).all(is_token))?;
        Some(Self {
            scheme,
            expires_at_unix: Some(signed_at.checked_add(seconds)?),
            signed_at_unix: Some(signed_at),
            malformed: false,
            signed: Signed::QueryList(list),
            access_key_id: Some(access_key_id(presign.credential?)?),
        })
    }

    fn presigned_v2(presign: &Presign<'b>) -> Option<Self> {
        let key_id = presign
            .v2_key_id
            .filter(|id| !id.is_empty() && !presign.repeated)?;
        presign
            .v2_signature
            .filter(|signature| !signature.is_empty())?;
        Some(Self {
            scheme: Scheme::SigV2Presigned,
            expires_at_unix: Some(decimal(presign.v2_expires?)?),
            signed: Signed::V2,
            access_key_id: Some(key_id),
            ..Self::ANONYMOUS
        })
    }

    /// True if the signature covers the header `name`, in any case: then its bytes may not be changed, nor
    /// may it be added or removed. Exact names only.
    pub fn signs(&self, name: &str) -> bool {
        match self.signed {
            Signed::None => false,
            Signed::All => true,
            Signed::List(list) => {
                pieces(list, b';').any(|signed| signed.eq_ignore_ascii_case(name))
            }
            Signed::QueryList(list) => listed(list).any(|signed| signed.eq_ignore_ascii_case(name)),
            Signed::V2 => {
                let fixed = ["content-md5", "content-type", "date"];
                fixed.iter().any(|signed| name.eq_ignore_ascii_case(signed)) || is_amz(name)
            }
        }
    }

    /// True if a header that the request does not have may be added for the origin. S3 wants every
    /// `x-amz-*` header signed, so those never.
    pub fn may_add(&self, name: &str) -> bool {
        !self.signs(name) && !is_amz(name)
    }

    /// The access key id the request claims. Unverified, and never to be logged: for equality only.
    pub fn access_key_id(&self) -> Option<&'b str> {
        self.access_key_id
    }

    /// True for the schemes that are in the query.
    pub fn is_presigned(&self) -> bool {
        match self.scheme {
            Scheme::SigV4Presigned | Scheme::SigV4aPresigned | Scheme::SigV2Presigned => true,
            Scheme::Anonymous
            | Scheme::SigV4
            | Scheme::SigV4a
            | Scheme::SigV2
            | Scheme::Unknown => false,
        }
    }

    /// Whether a presigned request is within its time at `now_unix`.
    pub fn presigned(&self, now_unix: i64) -> Presigned {
        let ahead = |at: i64| at > now_unix.saturating_add(SKEW_SECONDS_MAX);
        if self
            .expires_at_unix
            .is_some_and(|expires_at| now_unix > expires_at)
        {
            Presigned::Expired
        } else if self.signed_at_unix.is_some_and(ahead) {
            Presigned::TooEarly
        } else {
            Presigned::InTime
        }
    }

    /// When the signature stops to be valid, in seconds since 1970. `amz_date` is the request's one `x-amz-date` header. `None` where there is
    /// no signature, or its end is not known: SigV2 in a header, and what cannot be read.
    pub fn valid_until_unix(&self, amz_date: Option<&[u8]>) -> Option<i64> {
        match self.scheme {
            Scheme::SigV4Presigned | Scheme::SigV4aPresigned | Scheme::SigV2Presigned => {
                self.expires_at_unix
            }
            Scheme::SigV4 | Scheme::SigV4a => {
                let date = std::str::from_utf8(amz_date?).ok()?;
                parse_amz_date(date)?.checked_add(SKEW_SECONDS_MAX)
            }
            Scheme::Anonymous | Scheme::SigV2 | Scheme::Unknown => None,
        }
    }

    /// True if the request is presigned and its time is over at `now_unix`.
    pub fn presigned_expired(&self, now_unix: i64) -> bool {
        self.presigned(now_unix) == Presigned::Expired
    }
}

impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("scheme", &self.scheme)
            .field("expires_at_unix", &self.expires_at_unix)
            .field("malformed", &self.malformed)
            .finish_non_exhaustive()
    }
}

fn is_amz(name: &str) -> bool {
    name.as_bytes()
        .get(..6)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"x-amz-"))
}

/// What stands between `separator`s, which are ASCII.
fn pieces(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr(separator, text.as_bytes());
        rest = end.map(|end| &text[end + 1..]);
        Some(end.map_or(text, |end| &text[..end]))
    })
}

/// The access key id in front of a credential's scope; the slash is `%2F` in a query.
fn access_key_id(credential: &str) -> Option<&str> {
    let end = memchr2(b'/', b'%', credential.as_bytes())?;
    (end > 0).then(|| &credential[..end])
}

/// Bytes of a header's name. No percent sign, though a token may have one: in a query it begins an escape.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    loop {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.'
            )
            || matches!(byte, b'^' | b'_' | b'`' | b'|' | b'~');
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| TOKEN[usize::from(byte)])
}

/// The names of a query's list, separated by `;`, `%3B` or `%3b`.
fn listed(list: &str) -> impl Iterator<Item = &str> {
    list.split("%3B")
        .flat_map(|part| part.split("%3b"))
        .flat_map(|part| part.split(';'))
}

/// A non-empty run of digits that fits; no sign.
fn decimal(digits: &str) -> Option<i64> {
    let ok = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::query::Query;

    const V4: &str = "AWS4-HMAC-SHA256 Credential=AKIASECRETID/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=5ec5e7";

    fn header(value: &str) -> Auth<'_> {
        Auth::parse(Some(value.as_bytes()), &Presign::default())
    }

    fn query(raw: &str) -> Auth<'_> {
        Auth::parse(None, &Query::parse(Some(raw)).presign)
    }

    fn v4_query(date: &str, expires: &str, signed: &str) -> String {
        format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIASECRETID%2F20260101%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date={date}&X-Amz-Expires={expires}&X-Amz-SignedHeaders={signed}&X-Amz-Signature=5ec5e7"
        )
    }

    /// Reference 2D.72: names are compared whole, without case.
    #[test]
    fn signed_headers_are_an_exact_set_without_case() {
        let auth = header(V4);
        assert_eq!((auth.scheme, auth.malformed), (Scheme::SigV4, false));
        assert!(auth.signs("range") && auth.signs("Range") && auth.signs("X-AMZ-Date"));
        for name in [
            "rang",
            "range2",
            "x-amz",
            "date",
            "sha256",
            "",
            "if-match",
            "host;range",
            "referer",
        ] {
            assert!(!auth.signs(name), "{name}");
        }
        let named_like_one =
            header("AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host;x-my-range, Signature=5");
        assert!(!named_like_one.signs("range"));
    }

    #[test]
    fn every_spelling_of_the_header_that_s3_takes_is_read() {
        for value in [
            "AWS4-HMAC-SHA256 Credential=A/1/r/s3/aws4_request,SignedHeaders=host;range,Signature=5",
            "AWS4-HMAC-SHA256  Credential=A/1/r/s3/aws4_request ,  SignedHeaders=host;range ,Signature=5 ",
            "AWS4-HMAC-SHA256 Signature=5, SignedHeaders=Host;Range, Credential=A/1/r/s3/aws4_request",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host;range, Signature=5, Other=6",
        ] {
            let auth = header(value);
            assert_eq!(
                (auth.scheme, auth.malformed),
                (Scheme::SigV4, false),
                "{value}"
            );
            assert!(auth.signs("range"), "{value}");
            assert_eq!(auth.access_key_id(), Some("A"));
        }
    }

    /// Reference 2D.73.
    #[test]
    fn sigv4a_is_signed() {
        let auth = header(
            "AWS4-ECDSA-P256-SHA256 Credential=A/20260101/s3/aws4_request, SignedHeaders=host;range;x-amz-region-set, Signature=30",
        );
        assert_eq!(auth.scheme, Scheme::SigV4a);
        assert!(auth.signs("range") && !auth.may_add("range"));
    }

    #[test]
    fn what_cannot_be_read_is_malformed_and_signs_everything() {
        for value in [
            "",
            "AWS4-HMAC-SHA256",
            "AWS4-HMAC-SHA256 ",
            "AWS4-HMAC-SHA256 nonsense",
            "AWS4-HMAC-SHA256 Credential=A/1, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host;, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host%3Brange, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host, SignedHeaders=range, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host range, Signature=5",
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host",
            "AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=5",
            "AWS4-HMAC-SHA512 Credential=A/1, SignedHeaders=host, Signature=5",
            "aws4-hmac-sha256 Credential=A/1, SignedHeaders=host, Signature=5",
            "AWS nocolon",
            "AWS :sig",
            "Basic dXNlcjpwYXNz",
            "Bearer token",
        ] {
            let auth = header(value);
            assert!(auth.malformed && auth.scheme == Scheme::Unknown, "{value}");
            assert!(auth.signs("range") && auth.signs("anything"), "{value}");
        }
        assert!(Auth::parse(Some(b"AWS4-HMAC-SHA256 \xff"), &Presign::default()).malformed);
    }

    #[test]
    fn an_anonymous_request_signs_nothing() {
        let auth = Auth::parse(None, &Presign::default());
        assert_eq!((auth.scheme, auth.malformed), (Scheme::Anonymous, false));
        assert!(!auth.signs("host") && auth.may_add("range"));
        assert!(!auth.presigned_expired(i64::MAX));
    }

    /// Reference 4.5: S3 wants each `x-amz-*` header signed.
    #[test]
    fn only_unsigned_names_outside_x_amz_may_be_added() {
        let auth = header(V4);
        assert!(auth.may_add("If-Match") && auth.may_add("if-none-match"));
        assert!(!auth.may_add("Range") && !auth.may_add("X-Amz-Checksum-Mode"));
        assert!(!Auth::parse(None, &Presign::default()).may_add("x-amz-anything"));
    }

    /// Reference 2C.55 and 2D.74.
    #[test]
    fn what_is_signed_may_be_neither_added_nor_changed() {
        let auth = header(
            "AWS4-HMAC-SHA256 Credential=A/1, SignedHeaders=host;range;referer, Signature=5",
        );
        assert!(auth.signs("Range") && auth.signs("Referer"));
        assert!(!auth.may_add("referer") && auth.may_add("if-match"));
    }

    #[test]
    fn sigv2_covers_its_fixed_set() {
        let auth = header("AWS AKIASECRETID:c2ln");
        assert_eq!((auth.scheme, auth.malformed), (Scheme::SigV2, false));
        assert!(
            auth.signs("Date") && auth.signs("content-type") && auth.signs("X-Amz-Security-Token")
        );
        assert!(!auth.signs("range") && !auth.signs("if-match"));
    }

    /// Reference 2A.26: every scheme's own expiry counts.
    #[test]
    fn presigned_urls_expire_by_the_rule_of_their_scheme() {
        let v4 = v4_query("20260101T000000Z", "3600", "host");
        let at = 1_767_225_600;
        let auth = query(&v4);
        assert_eq!(auth.scheme, Scheme::SigV4Presigned);
        assert_eq!(auth.expires_at_unix, Some(at + 3600));
        assert!(!auth.presigned_expired(at + 3600) && auth.presigned_expired(at + 3601));
        assert!(!auth.signs("range") && auth.signs("host"));

        let v4a = v4.replace(HMAC, ECDSA);
        assert_eq!(query(&v4a).scheme, Scheme::SigV4aPresigned);
        assert!(query(&v4a).presigned_expired(at + 3601));

        let v2 = query("AWSAccessKeyId=AKIASECRETID&Signature=c2ln%3D&Expires=1767225600");
        assert_eq!((v2.scheme, v2.malformed), (Scheme::SigV2Presigned, false));
        assert!(!v2.presigned_expired(at) && v2.presigned_expired(at + 1));
        assert!(v2.is_presigned() && !v2.signs("range"));
    }

    #[test]
    fn the_end_of_a_signature_is_known_or_there_is_none() {
        let at = 1_767_225_600;
        let date = Some(&b"20260101T000000Z"[..]);
        assert_eq!(header(V4).valid_until_unix(date), Some(at + 900));
        let v4a = V4.replace(HMAC, ECDSA);
        assert_eq!(header(&v4a).valid_until_unix(date), Some(at + 900));
        for date in [None, Some(&b"20260101"[..]), Some(b""), Some(b"\xff")] {
            assert_eq!(header(V4).valid_until_unix(date), None);
        }
        let url = v4_query("20260101T000000Z", "60", "host");
        assert_eq!(query(&url).valid_until_unix(None), Some(at + 60));
        let v2 = query("AWSAccessKeyId=A&Signature=s&Expires=1767225600");
        assert_eq!(v2.valid_until_unix(None), Some(at));
        for auth in [header("AWS A:s"), header("nonsense"), query("")] {
            assert_eq!(auth.valid_until_unix(date), None);
        }
    }

    /// Reference 2D.77: no date wraps, and what is not certain is the origin's to judge.
    #[test]
    fn dates_and_lifetimes_out_of_bounds_are_malformed() {
        for (date, expires) in [
            ("20260101T000000Z", "0"),
            ("20260101T000000Z", "604801"),
            ("20260101T000000Z", "-1"),
            ("20260101T000000Z", "+1"),
            ("20260101T000000Z", ""),
            ("20260101T000000Z", "1.5"),
            ("20260101T000000Z", "99999999999999999999"),
            ("19691231T235959Z", "60"),
            ("20260229T000000Z", "60"),
            ("20261301T000000Z", "60"),
            ("20260101T240000Z", "60"),
            ("20260101", "60"),
            ("", "60"),
        ] {
            let raw = v4_query(date, expires, "host");
            assert!(query(&raw).malformed, "{date} {expires}");
            assert_eq!(query(&raw).expires_at_unix, None);
        }
        assert!(!query(&v4_query("20260101T000000Z", "604800", "host")).malformed);
        assert!(!query(&v4_query("99991231T235959Z", "604800", "host")).malformed);
        for expires in ["-1", "", "x", "99999999999999999999"] {
            let raw = format!("AWSAccessKeyId=A&Signature=s&Expires={expires}");
            assert!(query(&raw).malformed, "{expires}");
        }
    }

    #[test]
    fn a_url_dated_ahead_of_the_clock_is_not_answered_here() {
        let raw = v4_query("20260101T000000Z", "60", "host");
        let at = 1_767_225_600;
        assert_eq!(query(&raw).presigned(at - 901), Presigned::TooEarly);
        assert_eq!(query(&raw).presigned(at - 900), Presigned::InTime);
        assert_eq!(query(&raw).presigned(i64::MIN), Presigned::TooEarly);
        assert_eq!(query(&raw).presigned(i64::MAX), Presigned::Expired);
    }

    #[test]
    fn signed_headers_of_a_query_are_percent_encoded() {
        for signed in [
            "host%3Brange",
            "host%3brange",
            "host;range",
            "Host%3BRange%3bx-amz-date",
        ] {
            let raw = v4_query("20260101T000000Z", "60", signed);
            assert!(
                query(&raw).signs("range") && !query(&raw).signs("3brange"),
                "{signed}"
            );
        }
        for signed in ["", "%3B", "host%3B", "host%2Crange", "ho%73t", "host%3"] {
            assert!(
                query(&v4_query("20260101T000000Z", "60", signed)).malformed,
                "{signed}"
            );
        }
    }

    #[test]
    fn an_incomplete_or_doubled_signature_is_malformed() {
        let whole = v4_query("20260101T000000Z", "60", "host");
        for parameter in whole.split('&') {
            let rest: Vec<&str> = whole
                .split('&')
                .filter(|other| *other != parameter)
                .collect();
            assert!(query(&rest.join("&")).malformed, "without {parameter}");
            assert!(
                query(&format!("{whole}&{parameter}")).malformed,
                "twice {parameter}"
            );
        }
        assert!(query("Expires=1").malformed && query("Signature=1&Expires=1").malformed);
        assert!(query("X-Amz-Security-Token=x").malformed);
        let both = Query::parse(Some(&whole)).presign;
        assert!(Auth::parse(Some(V4.as_bytes()), &both).malformed);
        let mixed = format!("{whole}&AWSAccessKeyId=A&Signature=s&Expires=1");
        assert!(query(&mixed).malformed);
    }

    /// Reference 2D.81.
    #[test]
    fn debug_shows_no_credential() {
        let raw = format!(
            "{}&X-Amz-Security-Token=5ec5e7token",
            v4_query("20260101T000000Z", "60", "host")
        );
        for auth in [header(V4), query(&raw), header("AWS AKIASECRETID:5ec5e7")] {
            let shown = format!("{auth:?} {auth:#?}");
            assert!(
                !shown.contains("AKIASECRETID") && !shown.contains("5ec5e7"),
                "{shown}"
            );
            assert_eq!(auth.access_key_id(), Some("AKIASECRETID"));
        }
    }
}

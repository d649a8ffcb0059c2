//! AWS Signature Version 4 for the raw client, written for the tests alone so that an
//! error in the server's own understanding cannot hide in shared code.

use super::client::Ask;
use super::data::{hex, sha256_hex};
use ring::hmac;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Who signs, and for where.
#[derive(Clone, Debug)]
pub struct Signer {
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    /// The `Host` that is signed.
    pub host: SocketAddr,
}

impl Signer {
    /// Signs `ask` as it stands: every header it has is a signed one.
    pub fn sign(&self, ask: Ask) -> Ask {
        let hash = if ask.body.is_empty() {
            EMPTY_SHA256.to_owned()
        } else {
            sha256_hex(&ask.body)
        };
        self.sign_with_payload(ask, &hash)
    }

    /// Signs with this value of `x-amz-content-sha256`.
    pub fn sign_with_payload(&self, ask: Ask, payload: &str) -> Ask {
        let stamp = amz_date(SystemTime::now());
        let mut ask = ask
            .header("Host", &self.host.to_string())
            .header("x-amz-date", &stamp)
            .header("x-amz-content-sha256", payload);
        let names = signed_names(&ask);
        let signature = self.signature(&ask, &names, payload, &stamp, split_target(&ask.target).1);
        let scope = self.scope(&stamp);
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={}, Signature={signature}",
            self.access_key,
            names.join(";"),
        );
        ask.headers.push(("Authorization".into(), value));
        ask
    }

    /// A presigned form of `ask`, valid for `seconds`; only `Host` is signed.
    pub fn presign(&self, method: &str, path: &str, seconds: u64, at: SystemTime) -> Ask {
        let stamp = amz_date(at);
        let credential = format!("{}/{}", self.access_key, self.scope(&stamp)).replace('/', "%2F");
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={stamp}&X-Amz-Expires={seconds}&X-Amz-SignedHeaders=host"
        );
        let ask = Ask::new(method, path).header("Host", &self.host.to_string());
        let signature = self.signature(&ask, &["host".into()], UNSIGNED, &stamp, &query);
        Ask {
            target: format!("{path}?{query}&X-Amz-Signature={signature}"),
            ..ask
        }
    }

    fn scope(&self, stamp: &str) -> String {
        format!("{}/{}/s3/aws4_request", &stamp[..8], self.region)
    }

    fn signature(
        &self,
        ask: &Ask,
        names: &[String],
        payload: &str,
        stamp: &str,
        query: &str,
    ) -> String {
        let mut parameters: Vec<String> = query
            .split('&')
            .filter(|parameter| !parameter.is_empty())
            .map(|parameter| {
                if parameter.contains('=') {
                    parameter.to_owned()
                } else {
                    format!("{parameter}=")
                }
            })
            .collect();
        parameters.sort();
        let headers: String = names
            .iter()
            .map(|name| format!("{name}:{}\n", signed_value(ask, name)))
            .collect();
        let canonical = format!(
            "{}\n{}\n{}\n{headers}\n{}\n{payload}",
            ask.method,
            split_target(&ask.target).0,
            parameters.join("&"),
            names.join(";"),
        );
        let scope = self.scope(stamp);
        let text = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
            sha256_hex(canonical.as_bytes())
        );
        let mut key = format!("AWS4{}", self.secret_key).into_bytes();
        for part in scope.split('/') {
            key = mac(&key, part.as_bytes());
        }
        hex(&mac(&key, text.as_bytes()))
    }
}

fn split_target(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

fn signed_names(ask: &Ask) -> Vec<String> {
    let mut names: Vec<String> = ask
        .headers
        .iter()
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    names.sort();
    names.dedup();
    names
}

fn signed_value(ask: &Ask, name: &str) -> String {
    let values: Vec<String> = ask
        .headers
        .iter()
        .filter(|(own, _)| own.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    values.join(",")
}

fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text)
        .as_ref()
        .to_vec()
}

/// `YYYYMMDDTHHMMSSZ` in UTC.
pub fn amz_date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to a civil date, counted in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[test]
fn dates_are_civil() {
    let at = |seconds| amz_date(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    assert_eq!(at(0), "19700101T000000Z");
    assert_eq!(at(1_709_210_096), "20240229T123456Z");
    assert_eq!(at(1_798_761_599), "20261231T235959Z");
}

#[test]
fn the_published_example_signature_comes_out() {
    // "GET Object" of AWS's Signature Version 4 examples.
    let host = SocketAddr::from(([127, 0, 0, 1], 80));
    let signer = Signer {
        access_key: "AKIAIOSFODNN7EXAMPLE".into(),
        secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        region: "us-east-1".into(),
        host,
    };
    let ask = Ask::get("/test.txt")
        .header("Host", "examplebucket.s3.amazonaws.com")
        .header("Range", "bytes=0-9")
        .header("x-amz-content-sha256", EMPTY_SHA256)
        .header("x-amz-date", "20130524T000000Z");
    let signature = signer.signature(
        &ask,
        &signed_names(&ask),
        EMPTY_SHA256,
        "20130524T000000Z",
        "",
    );
    assert_eq!(
        signature,
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    );
}

//! Request targets as they may be logged: without signatures, credentials and tokens, and without any byte
//! that could forge a line.
//!
//! Called by `access_log` and by everything that names a target in a message.
//!
//! Invariants: the value of a parameter that [`is_secret_parameter`] knows is never written, however its name is
//! spelled; the output is printable ASCII without a double quote or a backslash of the client's own.

use std::fmt::{self, Write as _};

/// Query parameters whose values are never written, lower-case.
const SECRET: &[&str] = &[
    "awsaccesskeyid",
    "googleaccessid",
    "signature",
    "x-amz-credential",
    "x-amz-s3session-token",
    "x-amz-security-token",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// What is written in place of a secret.
const HIDDEN: &str = "REDACTED";

/// A raw request target as it may be logged.
pub fn redact_target(raw: &str) -> impl fmt::Display + '_ {
    Redacted(raw)
}

struct Redacted<'t>(&'t str);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, query) = match self.0.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.0, None),
        };
        write_path(f, path)?;
        let Some(query) = query else { return Ok(()) };
        for (at, parameter) in query.split('&').enumerate() {
            f.write_char(if at == 0 { '?' } else { '&' })?;
            write_parameter(f, parameter)?;
        }
        Ok(())
    }
}

/// User information in front of an absolute target's host is a credential too.
fn write_path(f: &mut fmt::Formatter<'_>, path: &str) -> fmt::Result {
    if let Some((scheme, rest)) = path.split_once("://") {
        let authority = rest.split('/').next().unwrap_or_default();
        if let Some((user, host)) = authority.rsplit_once('@') {
            let behind = &rest[user.len() + 1 + host.len()..];
            write_escaped(f, scheme)?;
            write!(f, "://{HIDDEN}@")?;
            write_escaped(f, host)?;
            return write_escaped(f, behind);
        }
    }
    write_escaped(f, path)
}

fn write_parameter(f: &mut fmt::Formatter<'_>, parameter: &str) -> fmt::Result {
    let (name, value) = match parameter.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (parameter, None),
    };
    write_escaped(f, name)?;
    let Some(value) = value else { return Ok(()) };
    f.write_char('=')?;
    if is_secret_parameter(name) {
        f.write_str(HIDDEN)
    } else {
        write_escaped(f, value)
    }
}

/// True if the raw name of a query parameter, percent-decoded and in any case, is one of a secret.
pub fn is_secret_parameter(raw_name: &str) -> bool {
    let decoded =
        || percent_encoding::percent_decode_str(raw_name).map(|byte| byte.to_ascii_lowercase());
    SECRET.iter().any(|secret| decoded().eq(secret.bytes()))
}

/// Everything but printable ASCII becomes `\xNN`, as do the quote and the backslash.
fn write_escaped(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => write!(f, "\\x{byte:02x}")?,
            0x20..=0x7e => f.write_char(char::from(byte))?,
            _ => write!(f, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redacted(raw: &str) -> String {
        redact_target(raw).to_string()
    }

    /// Reference 2D.81 and 4.32.
    #[test]
    fn secrets_of_a_query_are_hidden_and_the_rest_is_kept() {
        assert_eq!(
            redacted(
                "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101&X-Amz-Date=20260101T000000Z&X-Amz-Security-Token=tok%2Fen&X-Amz-Signature=abc"
            ),
            "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=REDACTED&X-Amz-Date=20260101T000000Z&X-Amz-Security-Token=REDACTED&X-Amz-Signature=REDACTED"
        );
        assert_eq!(
            redacted("/b/k?AWSAccessKeyId=AKIA&Signature=s%3D&Expires=1"),
            "/b/k?AWSAccessKeyId=REDACTED&Signature=REDACTED&Expires=1"
        );
        assert_eq!(
            redacted("/b/k?versionId=1&uploads"),
            "/b/k?versionId=1&uploads"
        );
        assert_eq!(redacted("/b/k?Signature"), "/b/k?Signature");
        assert_eq!(redacted("/b/k?"), "/b/k?");
    }

    #[test]
    fn a_disguised_name_hides_its_value_too() {
        for name in [
            "x-amz-signature",
            "X-AMZ-SIGNATURE",
            "X-Amz%2DSignature",
            "%58-Amz-Signature",
            "signatur%65",
        ] {
            assert!(
                !redacted(&format!("/k?a=1&{name}=tell")).contains("tell"),
                "{name}"
            );
        }
        assert!(!redacted("/k?x=1?Signature=2&Signature=a=tell").contains("tell"));
    }

    #[test]
    fn user_information_is_hidden() {
        assert_eq!(
            redacted("http://user:word@host:1/k?a=1"),
            "http://REDACTED@host:1/k?a=1"
        );
        assert_eq!(redacted("http://host/a@b"), "http://host/a@b");
    }

    /// Reference 2D.82.
    #[test]
    fn nothing_can_forge_a_line() {
        assert_eq!(
            redacted("/k\r\n200 OK\t\"\\\u{1b}ü"),
            "/k\\x0d\\x0a200 OK\\x09\\x22\\x5c\\x1b\\xc3\\xbc"
        );
    }

    proptest! {
        #[test]
        fn a_logged_target_is_printable_and_never_holds_a_signature(
            before in "\\PC{0,20}",
            name in prop::sample::select(SECRET),
            secret in "SECRET[0-9a-f]{8}",
        ) {
            let before = before.replace('?', "");
            let text = redacted(&format!("/{before}?x=1&{name}={secret}&y=2"));
            prop_assert!(!text.contains(&secret));
            prop_assert!(text.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'"'));
        }
    }
}

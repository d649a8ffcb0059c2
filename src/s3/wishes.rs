//! What a request asks of caches on its way, and whether that counts here: `Cache-Control` and `Pragma` (RFC 9111, sections 5.2.1 and 5.4).
//!
//! Made by `request_headers`, asked by `request`. Pure. What a request says goes to the origin as it came, whether or not it counts.
//!
//! Left to others: what a wish means for a copy (`request::wishes`).

use crate::config::ClientControl;
use crate::http::RequestControl;

use super::auth::Auth;

/// What a request asks of caches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wishes {
    control: RequestControl,
    /// Whether there is any `Cache-Control`: then `Pragma` means nothing.
    has_control: bool,
    /// `Pragma: no-cache`
    pragma: bool,
}

impl Wishes {
    /// Takes a `Cache-Control`.
    pub(super) fn take_control(&mut self, value: &[u8]) {
        self.has_control = true;
        self.control.take(value);
    }

    /// Takes a `Pragma`.
    pub(super) fn take_pragma(&mut self, value: &[u8]) {
        let mut words = value.split(|byte| *byte == b',');
        self.pragma |= words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"no-cache"));
    }

    /// Whether there are any, whoever's.
    #[inline]
    #[must_use]
    pub fn any(&self) -> bool {
        self.has_control || self.pragma
    }

    /// Those that count. A signed header cannot be taken out on its way, and who signs all that is sent may not mean this cache.
    #[must_use]
    pub fn honoured(&self, whose: ClientControl, auth: &Auth<'_>) -> RequestControl {
        let counts = |name: &str| match whose {
            ClientControl::Ignore => false,
            ClientControl::Unsigned => !auth.signs(name),
            ClientControl::All => true,
        };
        if self.has_control {
            return match counts("cache-control") {
                true => self.control,
                false => RequestControl::default(),
            };
        }
        RequestControl {
            no_cache: self.pragma && counts("pragma"),
            ..RequestControl::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::query::Presign;

    fn auth(signed: &str) -> Auth<'static> {
        let header = format!(
            "AWS4-HMAC-SHA256 Credential=A/20260812/us-east-1/s3/aws4_request, SignedHeaders={signed}, Signature=00"
        );
        let header: &'static str = Box::leak(header.into_boxed_str());
        Auth::parse(Some(header.as_bytes()), &Presign::default())
    }

    #[test]
    fn whose_wishes_count_by_table() {
        use ClientControl::{All, Ignore, Unsigned};
        let plain = auth("host;x-amz-date");
        let signed = auth("cache-control;host;pragma;x-amz-date");
        let pragma_signed = auth("host;pragma");
        let table = [
            (&["no-cache"][..], None, Ignore, &plain, false),
            (&["no-cache"], None, Unsigned, &plain, true),
            (&["no-cache"], None, All, &plain, true),
            (&["no-cache"], None, Unsigned, &signed, false),
            (&["no-cache"], None, All, &signed, true),
            (&["no-cache"], None, Unsigned, &pragma_signed, true),
            (&[], Some("no-cache"), Unsigned, &plain, true),
            (&[], Some("x, No-Cache"), Unsigned, &plain, true),
            (&[], Some("x-no-cache"), Unsigned, &plain, false),
            (&[], Some("no-cache"), Unsigned, &signed, false),
            (&[], Some("no-cache"), Unsigned, &pragma_signed, false),
            (&[], Some("no-cache"), All, &signed, true),
            (&[], Some("no-cache"), Ignore, &plain, false),
            // With a `Cache-Control`, whatever it says, `Pragma` means nothing.
            (&["max-stale"], Some("no-cache"), All, &plain, false),
        ];
        for (row, (control, pragma, whose, auth, want)) in table.into_iter().enumerate() {
            let mut wishes = Wishes::default();
            control
                .iter()
                .for_each(|line| wishes.take_control(line.as_bytes()));
            pragma
                .into_iter()
                .for_each(|line| wishes.take_pragma(line.as_bytes()));
            assert_eq!(wishes.honoured(whose, auth).no_cache, want, "row {row}");
        }
        assert!(!Wishes::default().any());
    }
}

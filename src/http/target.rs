//! The request target and its four forms (RFC 9112, section 3.2).
//!
//! Called by the request parser. Nothing is decoded, normalised or rewritten: what a client signed
//! are the bytes it sent. Bytes that RFC 3986 wants encoded but clients send (`{ } " | ^ \` and
//! UTF-8) pass.

use memchr::memchr;

use super::Method;
use super::authority::{Authority, AuthorityError};

/// The form of a request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`
    Origin,
    /// `http://host/path?query`: from a client that takes us for its proxy.
    Absolute,
    /// `host:port`, only with CONNECT.
    Authority,
    /// `*`, only with OPTIONS.
    Asterisk,
}

/// Why a target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A control character, whitespace, or bytes that are not UTF-8.
    #[error("the target has an invalid byte")]
    InvalidByte,
    /// `#`: fragments are never sent (RFC 9112, section 3.2).
    #[error("the target has a fragment")]
    Fragment,
    /// None of the four forms, or not the one its method asks for.
    #[error("the target has no valid form")]
    Form,
    /// An absolute target that is neither `http` nor `https`.
    #[error("the target's scheme is not http or https")]
    Scheme,
    /// CONNECT without a port.
    #[error("the target has no port")]
    NoPort,
    /// The authority of an absolute target or of CONNECT.
    #[error("the target's authority: {0}")]
    Authority(#[from] AuthorityError),
}

/// A target taken apart; see the fields of the same names in `RequestHead`.
#[derive(Clone, Copy)]
pub(super) struct Target<'b> {
    pub form: TargetForm,
    pub scheme: &'b str,
    pub authority: Option<&'b str>,
    pub path: &'b str,
    pub query: Option<&'b str>,
}

impl<'b> Target<'b> {
    pub fn parse(method: Method, text: &'b str) -> Result<Self, TargetError> {
        if memchr(b'#', text.as_bytes()).is_some() {
            return Err(TargetError::Fragment);
        }
        if method == Method::Connect {
            return Self::authority(text);
        }
        if text.starts_with('/') {
            let (path, query) = split_query(text);
            return Ok(Self {
                form: TargetForm::Origin,
                scheme: "",
                authority: None,
                path,
                query,
            });
        }
        if text == "*" && method == Method::Options {
            let form = TargetForm::Asterisk;
            return Ok(Self {
                form,
                scheme: "",
                authority: None,
                path: "*",
                query: None,
            });
        }
        Self::absolute(text)
    }

    fn authority(text: &'b str) -> Result<Self, TargetError> {
        if Authority::parse(text)?.port.is_none() {
            return Err(TargetError::NoPort);
        }
        let form = TargetForm::Authority;
        Ok(Self {
            form,
            scheme: "",
            authority: Some(text),
            path: "",
            query: None,
        })
    }

    fn absolute(text: &'b str) -> Result<Self, TargetError> {
        let (scheme, rest) = text.split_once("://").ok_or(TargetError::Form)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(TargetError::Scheme);
        }
        let end = rest
            .bytes()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        Authority::parse(authority)?;
        let (path, query) = split_query(behind);
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self {
            form: TargetForm::Absolute,
            scheme,
            authority: Some(authority),
            path,
            query,
        })
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match memchr(b'?', text.as_bytes()) {
        Some(mark) => (&text[..mark], Some(&text[mark + 1..])),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = (
        TargetForm,
        &'a str,
        Option<&'a str>,
        &'a str,
        Option<&'a str>,
    );

    fn parts(method: Method, text: &str) -> Result<Parts<'_>, TargetError> {
        Target::parse(method, text).map(|t| (t.form, t.scheme, t.authority, t.path, t.query))
    }

    #[test]
    fn origin_form_is_split_at_the_first_question_mark_and_kept_raw() {
        use TargetForm::Origin;
        let table = [
            ("/", "/", None),
            ("/b/k?", "/b/k", Some("")),
            ("/b/k?a=b?c", "/b/k", Some("a=b?c")),
            ("//b//../%2F+k", "//b//../%2F+k", None),
            ("/b/{\"|^\\`}<>?<>", "/b/{\"|^\\`}<>", Some("<>")),
            ("/b/\u{e9}\u{1f600}", "/b/\u{e9}\u{1f600}", None),
            ("/http://x", "/http://x", None),
        ];
        for (text, path, query) in table {
            assert_eq!(
                parts(Method::Get, text),
                Ok((Origin, "", None, path, query)),
                "{text}"
            );
        }
    }

    #[test]
    fn absolute_form_gives_authority_and_path() {
        use TargetForm::Absolute;
        let table = [
            ("http://h", "http", "h", "/", None),
            ("http://h?x", "http", "h", "/", Some("x")),
            (
                "HTTP://H:80/k?a=http://b/",
                "HTTP",
                "H:80",
                "/k",
                Some("a=http://b/"),
            ),
            ("https://[::1]:9/", "https", "[::1]:9", "/", None),
        ];
        for (text, scheme, authority, path, query) in table {
            let want = (Absolute, scheme, Some(authority), path, query);
            assert_eq!(parts(Method::Get, text), Ok(want), "{text}");
        }
    }

    #[test]
    fn connect_and_options_have_forms_of_their_own() {
        let connect = (TargetForm::Authority, "", Some("h:443"), "", None);
        assert_eq!(parts(Method::Connect, "h:443"), Ok(connect));
        let options = (TargetForm::Asterisk, "", None, "*", None);
        assert_eq!(parts(Method::Options, "*"), Ok(options));
    }

    #[test]
    fn every_other_target_is_refused() {
        use TargetError::*;
        let table = [
            (Method::Get, "/k#f", Fragment),
            (Method::Get, "http://h/#", Fragment),
            (Method::Get, "*", Form),
            (Method::Get, "k", Form),
            (Method::Get, "h:80", Form),
            (Method::Get, "?q", Form),
            (Method::Get, "http:/h/k", Form),
            (Method::Get, "ftp://h/k", Scheme),
            (Method::Get, "://h/k", Scheme),
            (
                Method::Get,
                "http:///k",
                Authority(AuthorityError::EmptyHost),
            ),
            (Method::Get, "http://", Authority(AuthorityError::EmptyHost)),
            (
                Method::Get,
                "http://u@h/k",
                Authority(AuthorityError::InvalidHost),
            ),
            (
                Method::Get,
                "http://h:x/k",
                Authority(AuthorityError::InvalidPort),
            ),
            (Method::Connect, "h", NoPort),
            (
                Method::Connect,
                "/k",
                Authority(AuthorityError::InvalidHost),
            ),
            (
                Method::Connect,
                "http://h:80",
                Authority(AuthorityError::InvalidPort),
            ),
            (Method::Connect, "*", Authority(AuthorityError::InvalidHost)),
        ];
        for (method, text, error) in table {
            assert_eq!(parts(method, text), Err(error), "{text}");
        }
    }
}

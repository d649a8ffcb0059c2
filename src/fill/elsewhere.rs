//! Whether what a fallback says may be taken for the word of its origin. Pure.
//!
//! Called by `open` and, for what goes past the cache, by `request`. A fallback may lag behind: that it does not have an object, refuses a client,
//! or holds another version than the one that is wanted says nothing of the origin, and changes nothing that is known.

use crate::cache::Head;
use crate::cache::head::{HeadParts, lines_of};
use crate::http::parse_http_date;
use crate::upstream::Response;

use super::Fetch;
use super::confirm::{Confirmed, confirmed};
use super::validate::{Question, validate};

/// Statuses that answer a read: the object, a part of it, or that the client has it.
#[must_use]
pub fn answers_a_read(response: &Response) -> bool {
    matches!(response.status(), 200 | 206 | 304)
}

fn written(lines: &[u8]) -> Option<u64> {
    let line = lines_of(lines).find(|line| line.is("last-modified"))?;
    parse_http_date(line.value)
}

/// Whether a version may follow the one that is known: it is the same, or was not written before it.
fn follows(parts: &HeadParts, version: u128, known: &Head) -> bool {
    version == known.version() || written(&parts.lines) >= written(known.lines())
}

/// Whether a fallback's answer to `fetch` is used. `conditional`: the version that is known was named to it.
#[must_use]
pub fn takes(
    fetch: &Fetch,
    question: Question<'_>,
    conditional: bool,
    response: &Response,
) -> bool {
    let head = response.head();
    match (response.status(), &fetch.known) {
        (304, Some(known)) if conditional => {
            match confirmed(
                known,
                &head,
                fetch.template.may_revalidate,
                fetch.template.overridden,
            ) {
                Confirmed::Same(_) => true,
                // It is asked for the whole head next.
                Confirmed::Rewritten => {
                    let date = head.headers.find("last-modified");
                    date.and_then(parse_http_date) >= written(known.lines())
                }
                Confirmed::Other | Confirmed::Unclear => false,
            }
        }
        (304, _) => fetch.expected.is_none(),
        (200 | 206, known) => match (validate(question, &head), &fetch.expected, known) {
            // What may not be kept goes to one client, and leaves no trace.
            (Err(_), expected, _) => expected.is_none(),
            (Ok(fit), Some(expected), _) => fit.version() == expected.version,
            (Ok(fit), None, Some(known)) => follows(&fit.parts, fit.version(), known),
            (Ok(_), None, None) => true,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_follows_what_was_not_written_after_it() {
        let parts = |second: &str| HeadParts {
            etag: second.as_bytes().into(),
            lines: match second {
                "" => Box::default(),
                _ => format!("Last-Modified: Wed, 12 Aug 2026 10:00:{second} GMT\r\n")
                    .into_bytes()
                    .into(),
            },
            ..HeadParts::default()
        };
        for (one, known, expected) in [
            ("05", "05", true),
            ("06", "05", true),
            ("04", "05", false),
            ("", "05", false),
            ("05", "", true),
            ("", "", true),
        ] {
            let known = Head::new(7, parts(known));
            assert_eq!(follows(&parts(one), 1, &known), expected);
        }
        let known = Head::new(7, parts("05"));
        assert!(follows(&parts("01"), known.version(), &known));
    }
}

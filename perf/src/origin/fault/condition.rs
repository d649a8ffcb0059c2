//! Conditional requests in the order of RFC 9110 section 13.2.2.
//!
//! Called by the answers of the fault origin, for reads and for conditional writes. Invariant: pure; the outcome
//! depends on the four headers, the method and the object's validators only. A date that cannot be read is as if
//! it were not there. Left to others: `If-Range` beyond [`if_range_holds`], headers of the answer.

use std::time::{Duration, UNIX_EPOCH};

/// The outcome of the preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Perform the request.
    Go,
    /// 304, for GET and HEAD.
    NotModified,
    /// 412, with the header that failed.
    Failed(&'static str),
}

/// The headers as sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a str>,
}

/// What they are compared with.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'a> {
    /// The quoted ETag.
    pub etag: &'a str,
    /// Unix seconds.
    pub modified_s: u64,
}

/// Evaluates the preconditions; `current` is `None` when there is no such object.
pub fn evaluate(
    conditions: Conditions<'_>,
    method: &str,
    current: Option<Validators<'_>>,
) -> Outcome {
    let reads = matches!(method, "GET" | "HEAD");
    if let Some(list) = conditions.if_match {
        if !current.is_some_and(|now| list_matches(list, now.etag, true)) {
            return Outcome::Failed("If-Match");
        }
    } else if let Some(since) = conditions.if_unmodified_since.and_then(http_date)
        && current.is_none_or(|now| now.modified_s > since)
    {
        return Outcome::Failed("If-Unmodified-Since");
    }
    if let Some(list) = conditions.if_none_match {
        if current.is_some_and(|now| list_matches(list, now.etag, false)) {
            return if reads {
                Outcome::NotModified
            } else {
                Outcome::Failed("If-None-Match")
            };
        }
    } else if reads
        && let Some(since) = conditions.if_modified_since.and_then(http_date)
        && current.is_some_and(|now| now.modified_s <= since)
    {
        return Outcome::NotModified;
    }
    Outcome::Go
}

/// `If-Range`: a strong ETag equal to the current one, or exactly the modification date.
pub fn if_range_holds(value: &str, now: Validators<'_>) -> bool {
    match value.trim() {
        tag if tag.starts_with('"') => tag == now.etag,
        tag if tag.starts_with("W/") => false,
        date => http_date(date) == Some(now.modified_s),
    }
}

/// A list of entity tags, or `*`. S3 takes tags without quotes as well.
fn list_matches(list: &str, etag: &str, strong: bool) -> bool {
    let bare = |tag: &str| tag.trim_matches('"').to_string();
    list.split(',')
        .map(str::trim)
        .any(|tag| match tag.strip_prefix("W/") {
            _ if tag == "*" => true,
            Some(weak) => !strong && bare(weak) == bare(etag),
            None => !tag.is_empty() && bare(tag) == bare(etag),
        })
}

/// An HTTP date as Unix seconds.
pub fn http_date(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim()).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Unix seconds as an HTTP date.
pub fn to_http_date(unix_s: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s))
}

#[cfg(test)]
mod tests {
    use super::Outcome::{Failed, Go, NotModified};
    use super::*;

    const ETAG: &str = "\"abc\"";
    const MODIFIED: u64 = 1_700_000_000;

    /// (If-Match, If-None-Match, If-Modified-Since offset, If-Unmodified-Since offset)
    type Row<'a> = (Option<&'a str>, Option<&'a str>, Option<i64>, Option<i64>);

    fn run(row: Row<'_>, method: &str, exists: bool) -> Outcome {
        let date = |offset: i64| to_http_date(MODIFIED.checked_add_signed(offset).expect("near"));
        let (since, unmodified) = (row.2.map(date), row.3.map(date));
        let conditions = Conditions {
            if_match: row.0,
            if_none_match: row.1,
            if_modified_since: since.as_deref(),
            if_unmodified_since: unmodified.as_deref(),
        };
        evaluate(
            conditions,
            method,
            exists.then_some(Validators {
                etag: ETAG,
                modified_s: MODIFIED,
            }),
        )
    }

    #[test]
    fn preconditions_of_reads_follow_rfc_9110_order() {
        let same = Some(ETAG);
        let other = Some("\"xyz\"");
        let table: &[(Row<'_>, Outcome)] = &[
            ((None, None, None, None), Go),
            ((same, None, None, None), Go),
            ((other, None, None, None), Failed("If-Match")),
            ((Some("*"), None, None, None), Go),
            ((Some("\"x\", \"abc\""), None, None, None), Go),
            ((Some("abc"), None, None, None), Go),
            ((Some("W/\"abc\""), None, None, None), Failed("If-Match")),
            ((None, same, None, None), NotModified),
            ((None, other, None, None), Go),
            ((None, Some("*"), None, None), NotModified),
            ((None, Some("W/\"abc\""), None, None), NotModified),
            ((None, Some("\"x\",\"abc\""), None, None), NotModified),
            ((None, None, Some(0), None), NotModified),
            ((None, None, Some(10), None), NotModified),
            ((None, None, Some(-10), None), Go),
            ((None, None, None, Some(0)), Go),
            ((None, None, None, Some(-10)), Failed("If-Unmodified-Since")),
            // If-Match decides, If-Unmodified-Since is then not looked at.
            ((same, None, None, Some(-10)), Go),
            // If-None-Match decides, If-Modified-Since is then not looked at.
            ((None, other, Some(10), None), Go),
            ((None, same, Some(-10), None), NotModified),
            // A failed If-Match comes before everything.
            ((other, same, Some(10), Some(-10)), Failed("If-Match")),
            ((same, same, None, None), NotModified),
            ((None, same, None, Some(-10)), Failed("If-Unmodified-Since")),
        ];
        for (row, want) in table {
            for method in ["GET", "HEAD"] {
                assert_eq!(run(*row, method, true), *want, "{method} {row:?}");
            }
        }
    }

    #[test]
    fn preconditions_of_writes_never_give_304() {
        assert_eq!(
            run((None, Some("*"), None, None), "PUT", true),
            Failed("If-None-Match")
        );
        assert_eq!(run((None, Some("*"), None, None), "PUT", false), Go);
        assert_eq!(
            run((Some(ETAG), None, None, None), "PUT", false),
            Failed("If-Match")
        );
        assert_eq!(run((Some(ETAG), None, None, None), "PUT", true), Go);
        assert_eq!(run((None, None, Some(10), None), "PUT", true), Go);
    }

    #[test]
    fn an_unreadable_date_is_no_condition() {
        let conditions = Conditions {
            if_modified_since: Some("tomorrow"),
            ..Conditions::default()
        };
        let now = Validators {
            etag: ETAG,
            modified_s: MODIFIED,
        };
        assert_eq!(evaluate(conditions, "GET", Some(now)), Go);
    }

    #[test]
    fn if_range_wants_the_strong_tag_or_the_exact_date() {
        let now = Validators {
            etag: ETAG,
            modified_s: MODIFIED,
        };
        assert!(if_range_holds(ETAG, now));
        assert!(!if_range_holds("W/\"abc\"", now));
        assert!(!if_range_holds("\"xyz\"", now));
        assert!(if_range_holds(&to_http_date(MODIFIED), now));
        assert!(!if_range_holds(&to_http_date(MODIFIED + 1), now));
    }
}

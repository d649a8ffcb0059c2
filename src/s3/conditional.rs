//! What the conditions of a read mean for a version whose validators are known: RFC 9110, section 13.2.2, as S3 combines them.
//!
//! Made by `request_headers`, asked by `request` when a version is known. Pure: the time is an argument.
//!
//! Invariant: what two servers may see differently is a [`Verdict::Doubt`], and the origin's to answer.
//!
//! Left to others: how fresh the known version must be for a verdict to be acted upon.

use crate::http::parse_http_date;

use super::tag_list::{Match, compare};

/// The conditions of one request, each value as sent. Each header stands at most once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions<'b> {
    present: bool,
    if_match: Option<&'b [u8]>,
    if_none_match: Option<&'b [u8]>,
    if_modified_since: Option<&'b [u8]>,
    if_unmodified_since: Option<&'b [u8]>,
    if_range: Option<&'b [u8]>,
}

/// What the origin knows a version by.
#[derive(Debug, Clone, Copy)]
pub struct Validators<'h> {
    /// `ETag`, strong.
    pub etag: &'h [u8],
    /// `Last-Modified` as sent.
    pub last_modified: Option<&'h [u8]>,
}

/// A condition that did not hold, as S3 names it in its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// `If-Match`: the client knows another version than this.
    IfMatch,
    /// `If-Unmodified-Since`: whatever version is current is younger than the client's date.
    IfUnmodifiedSince,
}

impl Unmet {
    /// The header's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::IfMatch => "If-Match",
            Self::IfUnmodifiedSince => "If-Unmodified-Since",
        }
    }
}

/// What a request gets of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// What it asks for.
    Proceed,
    /// All of it: the `Range` was for another version (RFC 9110, section 13.1.5).
    Whole,
    /// 304.
    NotModified,
    /// 412.
    Failed(Unmet),
    /// Only the origin can say.
    Doubt,
}

impl<'b> Conditions<'b> {
    /// Takes a header whose name begins with `If-`; false if it is none of these, or the second of its name.
    pub(super) fn take(&mut self, name: impl AsRef<[u8]>, value: &'b [u8]) -> bool {
        let is = |known: &str| name.as_ref().eq_ignore_ascii_case(known.as_bytes());
        let slot = if is("if-match") {
            &mut self.if_match
        } else if is("if-none-match") {
            &mut self.if_none_match
        } else if is("if-modified-since") {
            &mut self.if_modified_since
        } else if is("if-unmodified-since") {
            &mut self.if_unmodified_since
        } else if is("if-range") {
            &mut self.if_range
        } else {
            return false;
        };
        self.present = true;
        slot.replace(value.trim_ascii()).is_none()
    }

    /// Whether there is any.
    #[inline]
    pub fn any(&self) -> bool {
        self.present
    }

    /// Whether there is an `If-Range`.
    pub fn has_if_range(&self) -> bool {
        self.if_range.is_some()
    }

    /// Whether there is an `If-None-Match`.
    pub fn has_if_none_match(&self) -> bool {
        self.if_none_match.is_some()
    }

    /// What a request with these conditions gets of a version. `ranged`: it asks for a range.
    pub fn judge(&self, known: &Validators<'_>, ranged: bool, now_unix: i64) -> Verdict {
        match self.may_proceed(known) {
            Verdict::Proceed => {}
            other => return other,
        }
        match self.is_new(known, now_unix) {
            Verdict::Proceed => {}
            other => return other,
        }
        match self.if_range {
            Some(value) if ranged => for_range(value, known.etag),
            _ => Verdict::Proceed,
        }
    }

    /// `If-Match`, or where there is none `If-Unmodified-Since`.
    fn may_proceed(&self, known: &Validators<'_>) -> Verdict {
        if let Some(list) = self.if_match {
            return match compare(list, known.etag) {
                Match::Any | Match::Strong => Verdict::Proceed,
                Match::Weak | Match::None => Verdict::Failed(Unmet::IfMatch),
                Match::Empty => Verdict::Doubt,
            };
        }
        let Some(date) = self.if_unmodified_since else {
            return Verdict::Proceed;
        };
        match (seconds(Some(date)), seconds(known.last_modified)) {
            (Some(date), Some(modified)) if modified <= date => Verdict::Proceed,
            (Some(_), Some(_)) => Verdict::Failed(Unmet::IfUnmodifiedSince),
            _ => Verdict::Doubt,
        }
    }

    /// `If-None-Match`, or where there is none `If-Modified-Since`.
    fn is_new(&self, known: &Validators<'_>, now_unix: i64) -> Verdict {
        let by_date = self
            .if_modified_since
            .map(|date| is_modified(date, known.last_modified, now_unix));
        match (
            self.if_none_match.map(|list| compare(list, known.etag)),
            by_date,
        ) {
            // Also if the date says that it was modified.
            (Some(Match::Any | Match::Strong), _) => Verdict::NotModified,
            // Whether S3 compares weakly is not written down.
            (Some(Match::Weak | Match::Empty), _) => Verdict::Doubt,
            (Some(Match::None), None | Some(Some(true))) => Verdict::Proceed,
            // The date is to be ignored, which not every store does.
            (Some(Match::None), Some(_)) => Verdict::Doubt,
            (None, None | Some(Some(true))) => Verdict::Proceed,
            (None, Some(Some(false))) => Verdict::NotModified,
            (None, Some(None)) => Verdict::Doubt,
        }
    }
}

fn seconds(date: Option<&[u8]>) -> Option<u64> {
    parse_http_date(date?)
}

/// `None`: a date that cannot be read, or one to come, which S3 ignores.
fn is_modified(since: &[u8], modified: Option<&[u8]>, now_unix: i64) -> Option<bool> {
    let since = seconds(Some(since)).filter(|since| *since as i64 <= now_unix)?;
    Some(seconds(modified)? > since)
}

/// Dates are no strong validators in general, and tags without quotes may be dates.
fn for_range(value: &[u8], etag: &[u8]) -> Verdict {
    let one_tag = value.len() >= 2
        && value.starts_with(b"\"")
        && memchr::memchr(b'"', &value[1..]) == Some(value.len() - 2);
    match one_tag {
        true if value == etag => Verdict::Proceed,
        true => Verdict::Whole,
        false => Verdict::Doubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODIFIED: &str = "Wed, 12 Aug 2026 10:00:00 GMT";
    const BEFORE: &str = "Wed, 12 Aug 2026 09:59:59 GMT";
    const AFTER: &str = "Wed, 12 Aug 2026 10:00:01 GMT";
    const NOW: &str = "Wed, 12 Aug 2026 11:00:00 GMT";
    const TO_COME: &str = "Wed, 12 Aug 2026 11:00:01 GMT";
    const IM: &str = "If-Match";
    const INM: &str = "if-none-match";
    const IMS: &str = "If-Modified-Since";
    const IUS: &str = "If-Unmodified-Since";
    const IR: &str = "If-Range";
    const NO_MATCH: Verdict = Verdict::Failed(Unmet::IfMatch);
    const TOO_YOUNG: Verdict = Verdict::Failed(Unmet::IfUnmodifiedSince);
    use Verdict::{Doubt, NotModified, Proceed, Whole};

    fn judge(lines: &[(&str, &str)], last_modified: Option<&str>) -> Verdict {
        let mut conditions = Conditions::default();
        for (name, value) in lines {
            assert!(conditions.take(name, value.as_bytes()), "{name}");
        }
        let known = Validators {
            etag: b"\"a\"",
            last_modified: last_modified.map(str::as_bytes),
        };
        let now = parse_http_date(NOW.as_bytes()).expect("a date") as i64;
        conditions.judge(&known, true, now)
    }

    #[test]
    fn each_condition_alone_by_table() {
        let table = [
            (IM, "\"a\"", Proceed),
            (IM, "*", Proceed),
            (IM, "a", Proceed),
            (IM, "\"x\", \"a\"", Proceed),
            (IM, "\"x\"", NO_MATCH),
            (IM, "W/\"a\"", NO_MATCH),
            (IM, "", Doubt),
            (INM, "\"a\"", NotModified),
            (INM, "a", NotModified),
            (INM, "*", NotModified),
            (INM, "\"x\", \"a\"", NotModified),
            (INM, "\"x\"", Proceed),
            (INM, "W/\"x\"", Proceed),
            (INM, "W/\"a\"", Doubt),
            (INM, "", Doubt),
            (IMS, MODIFIED, NotModified),
            (IMS, AFTER, NotModified),
            (IMS, NOW, NotModified),
            (IMS, BEFORE, Proceed),
            (IMS, TO_COME, Doubt),
            (IMS, "Wednesday, 12-Aug-26 10:00:00 GMT", NotModified),
            (IMS, "Wed Aug 12 09:59:59 2026", Proceed),
            (IMS, "2026-08-12T10:00:00Z", Doubt),
            (IMS, "0", Doubt),
            (IMS, "", Doubt),
            (IUS, MODIFIED, Proceed),
            (IUS, AFTER, Proceed),
            (IUS, TO_COME, Proceed),
            (IUS, BEFORE, TOO_YOUNG),
            (IUS, "yesterday", Doubt),
            (IR, "\"a\"", Proceed),
            (IR, "\"x\"", Whole),
            (IR, "W/\"a\"", Doubt),
            (IR, "a", Doubt),
            (IR, "\"x\", \"a\"", Doubt),
            (IR, "\"", Doubt),
            (IR, MODIFIED, Doubt),
            (IR, "", Doubt),
        ];
        for (name, value, want) in table {
            assert_eq!(
                judge(&[(name, value)], Some(MODIFIED)),
                want,
                "{name}: {value}"
            );
        }
        assert_eq!(judge(&[], Some(MODIFIED)), Proceed);
    }

    #[test]
    fn without_a_date_of_the_version_date_conditions_are_in_doubt() {
        for name in [IMS, IUS] {
            assert_eq!(judge(&[(name, MODIFIED)], None), Doubt);
            assert_eq!(judge(&[(name, MODIFIED)], Some("x")), Doubt);
        }
        assert_eq!(judge(&[(IM, "\"a\"")], None), Proceed);
    }

    /// What one header says alone, each of them: absent, true, false, not to be read.
    fn values(name: &str) -> [Option<&'static str>; 4] {
        match name {
            IMS => [None, Some(BEFORE), Some(AFTER), Some("x")],
            IUS => [None, Some(AFTER), Some(BEFORE), Some("x")],
            IR => [None, Some("\"a\""), Some("\"x\""), Some("x")],
            IM => [None, Some("\"a\""), Some("\"x\""), Some("")],
            _ => [None, Some("\"x\""), Some("\"a\""), Some("")],
        }
    }

    /// Every combination of the five, against the order of RFC 9110 written down a second time.
    #[test]
    fn all_combinations_follow_the_order_of_the_rfc() {
        let mut seen = 0;
        for code in 0..4usize.pow(5) {
            let pick = |place: u32| code / 4usize.pow(place) % 4;
            let names = [IM, IUS, INM, IMS, IR];
            let picked: Vec<usize> = (0..5).map(pick).collect();
            let lines: Vec<_> = names
                .iter()
                .zip(&picked)
                .filter_map(|(name, at)| values(name)[*at].map(|value| (*name, value)))
                .collect();
            let [im, ius, inm, ims, range] = picked[..] else {
                unreachable!("five")
            };
            let first = match (im, ius) {
                (1, _) | (0, 0 | 1) => Proceed,
                (2, _) => NO_MATCH,
                (0, 2) => TOO_YOUNG,
                _ => Doubt,
            };
            let second = match (inm, ims) {
                (2, _) | (0, 2) => NotModified,
                (0 | 1, 0 | 1) => Proceed,
                _ => Doubt,
            };
            let third = [Proceed, Proceed, Whole, Doubt][range];
            let wants = [first, second, third];
            let want = wants
                .into_iter()
                .find(|verdict| *verdict != Proceed)
                .unwrap_or(Proceed);
            assert_eq!(judge(&lines, Some(MODIFIED)), want, "{lines:?}");
            seen += 1;
        }
        assert_eq!(seen, 1024);
    }

    /// S3's reference of GetObject.
    #[test]
    fn the_two_combinations_that_s3_writes_down() {
        let both = [(IM, "\"a\""), (IUS, BEFORE)];
        assert_eq!(judge(&both, Some(MODIFIED)), Proceed);
        let both = [(INM, "\"a\""), (IMS, BEFORE)];
        assert_eq!(judge(&both, Some(MODIFIED)), NotModified);
    }

    #[test]
    fn if_range_without_a_range_means_nothing() {
        let mut conditions = Conditions::default();
        assert!(conditions.take(IR, b"\"x\""));
        let known = Validators {
            etag: b"\"a\"",
            last_modified: None,
        };
        assert_eq!(conditions.judge(&known, false, 0), Proceed);
    }

    #[test]
    fn what_comes_twice_or_is_not_known_is_not_taken() {
        let mut conditions = Conditions::default();
        assert!(!conditions.any());
        assert!(!conditions.take("If-Schedule-Tag-Match", b"x") && !conditions.any());
        assert!(conditions.take("IF-MATCH", b"\"a\"") && conditions.any());
        assert!(!conditions.take("if-match", b"\"a\""));
    }

    proptest! {
        #[test]
        fn no_value_makes_judging_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 5)) {
            let mut conditions = Conditions::default();
            for (name, value) in [IM, INM, IMS, IUS, IR].iter().zip(&values) {
                conditions.take(name, value);
            }
            let known = Validators { etag: b"\"a\"", last_modified: Some(&values[0]) };
            let _verdict = conditions.judge(&known, true, 0);
        }
    }
}

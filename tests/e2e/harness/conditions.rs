//! The conditions of a read as S3 judges them, for origins under the tests' control: RFC 9110, section 13.2.2.
//! Written for the tests alone, so that an error in the server's own understanding cannot hide in shared code.

use super::stub::Seen;

/// What the conditions make of a request for a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    AsAsked,
    Whole,
    NotModified,
    Failed,
}

pub fn judge(seen: &Seen, etag: &str, last_modified: &str) -> Judged {
    let header = |name: &str| seen.header(name).map(str::trim);
    let named = |list: &str| {
        let bare = etag.trim_matches('"');
        list == "*"
            || list
                .split(',')
                .any(|tag| tag.trim().trim_matches('"') == bare)
    };
    let not_after = |date: &str| seconds(date).map(|date| seconds(last_modified) <= Some(date));
    if let Some(list) = header("if-match") {
        if !named(list) {
            return Judged::Failed;
        }
    } else if let Some(date) = header("if-unmodified-since")
        && not_after(date) == Some(false)
    {
        return Judged::Failed;
    }
    if let Some(list) = header("if-none-match") {
        if named(list) {
            return Judged::NotModified;
        }
    } else if let Some(date) = header("if-modified-since")
        && not_after(date) == Some(true)
    {
        return Judged::NotModified;
    }
    match header("if-range") {
        Some(value) if value != etag && value != last_modified => Judged::Whole,
        _ => Judged::AsAsked,
    }
}

/// Seconds of an IMF-fixdate, counted from nowhere in particular: for comparing.
fn seconds(date: &str) -> Option<u64> {
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (day, rest) = date.split_once(", ")?.1.split_once(' ')?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let [month, year, time, "GMT"] = fields[..] else {
        return None;
    };
    let month = months.iter().position(|name| *name == month)? as u64;
    let mut number = (year.parse::<u64>().ok()? * 12 + month) * 31 + day.parse::<u64>().ok()?;
    for part in time.split(':') {
        number = number * 60 + part.parse::<u64>().ok()?;
    }
    Some(number)
}

#[test]
fn dates_compare() {
    let order = [
        "Thu, 31 Dec 2025 23:59:59 GMT",
        "Wed, 12 Aug 2026 09:59:59 GMT",
        "Wed, 12 Aug 2026 10:00:00 GMT",
        "Tue, 01 Sep 2026 00:00:00 GMT",
    ];
    assert!(order.is_sorted_by(|a, b| seconds(a) < seconds(b)));
    assert_eq!(seconds("x"), None);
}

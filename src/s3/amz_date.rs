//! The basic ISO 8601 date of signatures, `20260101T000000Z`, as seconds since 1970.
//!
//! Called by `auth`. Pure calendar arithmetic (proleptic Gregorian, no leap seconds), checked by construction:
//! four digits of year cannot overflow.

/// Bytes of `YYYYMMDDTHHMMSSZ`.
const DATE_BYTES: usize = 16;

/// Reads a signature's date; `None` if it is not exactly of that form, names no real instant or one before
/// 1970.
pub(super) fn parse_amz_date(text: &str) -> Option<i64> {
    let bytes: &[u8; DATE_BYTES] = text.as_bytes().try_into().ok()?;
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let (year, month, day) = (
        digits(&bytes[..4])?,
        digits(&bytes[4..6])?,
        digits(&bytes[6..8])?,
    );
    let (hour, minute) = (digits(&bytes[9..11])?, digits(&bytes[11..13])?);
    let second = digits(&bytes[13..15])?;
    let time_ok = hour < 24 && minute < 60 && second < 60;
    if year < 1970 || !time_ok || !(1..=days_in_month(year, month)).contains(&day) {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Zero for a month that does not exist, so that no day is in it.
fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(is_leap(year)),
        _ => 0,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let months: i64 = (1..month).map(|month| days_in_month(year, month)).sum();
    years + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_by_table() {
        let table = [
            ("19700101T000000Z", Some(0)),
            ("19700101T000001Z", Some(1)),
            ("20000229T000000Z", Some(951_782_400)),
            ("20130524T000000Z", Some(1_369_353_600)),
            ("20240229T235959Z", Some(1_709_251_199)),
            ("20260101T000000Z", Some(1_767_225_600)),
            ("21000228T000000Z", Some(4_107_456_000)),
            ("99991231T235959Z", Some(253_402_300_799)),
            ("21000229T000000Z", None),
            ("20230229T000000Z", None),
            ("20260001T000000Z", None),
            ("20260100T000000Z", None),
            ("20260132T000000Z", None),
            ("20261301T000000Z", None),
            ("20260101T240000Z", None),
            ("20260101T006000Z", None),
            ("20260101T000060Z", None),
            ("19691231T235959Z", None),
            ("00000101T000000Z", None),
            ("2026-01-01T00:00", None),
            ("20260101t000000Z", None),
            ("20260101T000000z", None),
            ("+0260101T000000Z", None),
            ("20260101T000000Z ", None),
            ("", None),
        ];
        for (text, want) in table {
            assert_eq!(parse_amz_date(text), want, "{text:?}");
        }
    }

    #[test]
    fn every_day_is_one_after_the_day_before() {
        let mut expected = 0;
        for year in 1970..2401 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    assert_eq!(days_since_1970(year, month, day), expected);
                    expected += 1;
                }
            }
        }
    }
}

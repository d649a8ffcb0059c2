//! HTTP dates (RFC 9110, section 5.6.7): written in the one form, read in all three.
//!
//! Called for `Date`, `Last-Modified`, `Expires` and the date conditions. No clock here: seconds
//! since the epoch come from the caller.

/// Length of an IMF-fixdate.
pub const HTTP_DATE_BYTES: usize = 29;

const DAY_SECONDS: u64 = 24 * 60 * 60;
/// 31 December 9999, 23:59:59: the last moment four digits of year can name.
const LAST_SECOND: u64 = 253_402_300_799;

const WEEKDAYS: [&[u8; 3]; 7] = [b"Sun", b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat"];
const LONG_WEEKDAYS: [&[u8]; 7] = [
    b"Sunday",
    b"Monday",
    b"Tuesday",
    b"Wednesday",
    b"Thursday",
    b"Friday",
    b"Saturday",
];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// `Sun, 06 Nov 1994 08:49:37 GMT`. Times beyond the year 9999 give its last second.
pub fn http_date(unix_seconds: u64) -> [u8; HTTP_DATE_BYTES] {
    let seconds = unix_seconds.min(LAST_SECOND);
    let days = seconds / DAY_SECONDS;
    let (year, month, day) = civil_from_days(days);
    let of_day = seconds % DAY_SECONDS;
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // 1 January 1970 was a Thursday.
    out[..3].copy_from_slice(WEEKDAYS[((days + 4) % 7) as usize]);
    put_two(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    put_two(&mut out[12..14], year / 100);
    put_two(&mut out[14..16], year % 100);
    put_two(&mut out[17..19], of_day / 3600);
    put_two(&mut out[20..22], of_day / 60 % 60);
    put_two(&mut out[23..25], of_day % 60);
    out
}

/// Seconds since the epoch of an IMF-fixdate, an RFC 850 date or an asctime date; `None` for
/// anything else.
///
/// Without a clock, a two-digit year is of this century below 70 and of the last one from 70 on.
/// Moments before 1970 give 0: every object is younger, so conditions come out the same. The
/// weekday must be a weekday, not the right one.
pub fn parse_http_date(text: &[u8]) -> Option<u64> {
    let date = match memchr::memchr(b',', text) {
        Some(3) => imf_fixdate(text)?,
        Some(_) => rfc850_date(text)?,
        None => asctime_date(text)?,
    };
    date.unix_seconds()
}

#[derive(Clone, Copy)]
struct Date<'t> {
    year: u64,
    month: &'t [u8],
    day: u64,
    /// `08:49:37`
    time: &'t [u8],
}

impl Date<'_> {
    fn unix_seconds(&self) -> Option<u64> {
        let month = 1 + MONTHS.iter().position(|name| *name == self.month)? as u64;
        if self.day == 0 || self.day > days_in_month(self.year, month) {
            return None;
        }
        let &[h1, h0, b':', m1, m0, b':', s1, s0] = self.time else {
            return None;
        };
        let (hour, minute, second) = (number(&[h1, h0])?, number(&[m1, m0])?, number(&[s1, s0])?);
        // 60 is a leap second; it counts as the next one.
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let Some(days) = days_from_civil(self.year, month, self.day) else {
            return Some(0);
        };
        Some(days * DAY_SECONDS + hour * 3600 + minute * 60 + second)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
fn imf_fixdate(text: &[u8]) -> Option<Date<'_>> {
    let exact = text.len() == HTTP_DATE_BYTES
        && WEEKDAYS.iter().any(|name| *name == &text[..3])
        && [3, 4, 7, 11, 16, 25]
            .iter()
            .all(|at| text[*at] == if *at == 3 { b',' } else { b' ' })
        && &text[26..] == b"GMT";
    exact.then_some(())?;
    Some(Date {
        year: number(&text[12..16])?,
        month: &text[8..11],
        day: number(&text[5..7])?,
        time: &text[17..25],
    })
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`
fn rfc850_date(text: &[u8]) -> Option<Date<'_>> {
    let comma = memchr::memchr(b',', text)?;
    let rest = text[comma..].strip_prefix(b", ")?;
    let exact = LONG_WEEKDAYS.contains(&&text[..comma])
        && rest.len() == 22
        && rest[2] == b'-'
        && rest[6] == b'-'
        && rest[9] == b' '
        && &rest[18..] == b" GMT";
    exact.then_some(())?;
    let year = number(&rest[7..9])?;
    Some(Date {
        year: if year < 70 { 2000 + year } else { 1900 + year },
        month: &rest[3..6],
        day: number(&rest[..2])?,
        time: &rest[10..18],
    })
}

/// `Sun Nov  6 08:49:37 1994`
fn asctime_date(text: &[u8]) -> Option<Date<'_>> {
    let exact = text.len() == 24
        && WEEKDAYS.iter().any(|name| *name == &text[..3])
        && [3, 7, 10, 19].iter().all(|at| text[*at] == b' ');
    exact.then_some(())?;
    let day = match &text[8..10] {
        [b' ', digit] => number(&[*digit])?,
        digits => number(digits)?,
    };
    Some(Date {
        year: number(&text[20..])?,
        month: &text[4..7],
        day,
        time: &text[11..19],
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u64::from(byte - b'0'))
    })
}

fn put_two(out: &mut [u8], value: u64) {
    out[0] = b'0' + (value / 10) as u8;
    out[1] = b'0' + (value % 10) as u8;
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1 March of year 0 (proleptic Gregorian) to the epoch.
const DAYS_TO_EPOCH: u64 = 719_468;
const DAYS_PER_400_YEARS: u64 = 146_097;

/// Year, month and day of a day since the epoch. Years are counted from 1 March, so that the leap
/// day comes last and months have a closed form: (153 m + 2) / 5 days before month m.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_TO_EPOCH;
    let era = days / DAYS_PER_400_YEARS;
    let of_era = days % DAYS_PER_400_YEARS;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`]; `None` before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let of_era = year % 400;
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    let days = year / 400 * DAYS_PER_400_YEARS + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    Some(days - DAYS_TO_EPOCH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments_are_written() {
        let table = [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ];
        for (seconds, text) in table {
            assert_eq!(std::str::from_utf8(&http_date(seconds)), Ok(text));
        }
    }

    #[test]
    fn all_three_forms_are_read() {
        let table: [(&[u8], u64); 9] = [
            (b"Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777),
            (b"Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777),
            (b"Sun Nov  6 08:49:37 1994", 784_111_777),
            (b"Wed Nov 16 08:49:37 1994", 784_111_777 + 10 * DAY_SECONDS),
            (b"Friday, 01-Jan-69 00:00:00 GMT", 3_124_224_000),
            (b"Thursday, 01-Jan-70 00:00:01 GMT", 1),
            (b"Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_800),
            (b"Mon, 06 Nov 1950 08:49:37 GMT", 0),
            // The weekday is not checked against the date.
            (b"Mon, 06 Nov 1994 08:49:37 GMT", 784_111_777),
        ];
        for (text, seconds) in table {
            assert_eq!(
                parse_http_date(text),
                Some(seconds),
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn everything_else_is_none() {
        let table: [&[u8]; 20] = [
            b"",
            b"0",
            b",",
            b"Sun,",
            b"Sun, 06 Nov 1994 08:49:37",
            b"Sun, 06 Nov 1994 08:49:37 UTC",
            b"Sun, 06 Nov 1994 08:49:37 GMT ",
            b"Sun, 6 Nov 1994 08:49:37 GMT",
            b"sun, 06 Nov 1994 08:49:37 GMT",
            b"Sun, 06 nov 1994 08:49:37 GMT",
            b"Sun, 00 Nov 1994 08:49:37 GMT",
            b"Sun, 31 Nov 1994 08:49:37 GMT",
            b"Tue, 29 Feb 2023 08:49:37 GMT",
            b"Sun, 06 Nov 1994 24:49:37 GMT",
            b"Sun, 06 Nov 1994 08:60:37 GMT",
            b"Sun, 06 Nov 1994 08:49:61 GMT",
            b"Sun, 06 Nov 1994 08-49-37 GMT",
            b"Sun, +6 Nov 1994 08:49:37 GMT",
            b"Sunday, 06-Nov-1994 08:49:37 GMT",
            b"Sun Nov 06 08:49:37 94",
        ];
        for text in table {
            assert_eq!(parse_http_date(text), None, "{}", text.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn a_written_date_reads_back(seconds in 0..=LAST_SECOND) {
            prop_assert_eq!(parse_http_date(&http_date(seconds)), Some(seconds));
        }

        #[test]
        fn any_bytes_are_read_without_harm(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_http_date(&text);
        }

        #[test]
        fn damaged_dates_never_panic(seconds in 0..=LAST_SECOND, at in 0..29usize, byte: u8) {
            let mut text = http_date(seconds);
            text[at] = byte;
            let _ = parse_http_date(&text);
        }
    }
}

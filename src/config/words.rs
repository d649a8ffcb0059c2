//! Durations and sizes in words: `"90s"`, `"1h30m"`, `"64MiB"`, `"1GB"`.
//!
//! `value.rs` calls this for every duration and size, from wherever it comes. Writing a number and reading it again
//! gives the same number. Bounds are checked by the caller.

use super::value::ValueError;

/// The units of a duration, in milliseconds, largest first: a compound such as `1h30m` must descend.
const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// The units of a size, in bytes. `KiB` and its like are powers of 1024, `KB` and its like powers of 1000; a lone
/// `K` is refused because readers disagree on it.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];

const DURATION_UNIT_NAMES: &str = "ms, s, m, h, d";
const SIZE_UNIT_NAMES: &str = "B, KB, MB, GB, TB, KiB, MiB, GiB, TiB";

/// Reads a duration and gives milliseconds. A number without a unit is refused: it does not say of what.
pub fn parse_duration(text: &str) -> Result<u64, ValueError> {
    let malformed = || ValueError::Malformed {
        text: text.to_owned(),
        wants: "a duration such as \"90s\"",
    };
    if is_number(text) {
        return Err(ValueError::DurationWithoutUnit {
            number: text.to_owned(),
        });
    }
    let mut total: u64 = 0;
    let mut rest = text;
    let mut larger_than: usize = 0;
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit());
        let (unit, after) = split_while(after.trim_start_matches(' '), |c| c.is_alphabetic());
        if number.is_empty() || unit.is_empty() {
            return Err(malformed());
        }
        let Some(index) = DURATION_UNITS.iter().position(|(name, _)| *name == unit) else {
            return Err(unknown_unit(unit, DURATION_UNIT_NAMES));
        };
        if index < larger_than {
            return Err(malformed());
        }
        larger_than = index + 1;
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(DURATION_UNITS[index].1))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| ValueError::TooLarge {
                text: text.to_owned(),
            })?;
        rest = after;
    }
    if text.is_empty() {
        return Err(malformed());
    }
    Ok(total)
}

/// Reads a size and gives bytes. A number without a unit is bytes.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    let (number, unit) = split_while(text, |c| c.is_ascii_digit());
    let unit = unit.trim_start_matches(' ');
    if number.is_empty() || !unit.chars().all(char::is_alphabetic) {
        return Err(ValueError::Malformed {
            text: text.to_owned(),
            wants: "a size such as \"64MiB\", in whole numbers",
        });
    }
    let bytes = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, bytes)) => *bytes,
        None if unit.is_empty() => 1,
        None => return Err(unknown_unit(unit, SIZE_UNIT_NAMES)),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(bytes))
        .ok_or_else(|| ValueError::TooLarge {
            text: text.to_owned(),
        })
}

/// Writes milliseconds in the unit that gives the smallest whole number.
#[must_use]
pub fn format_duration(ms: u64) -> String {
    match ms {
        0 => "0s".to_owned(),
        _ => format_smallest(ms, &DURATION_UNITS),
    }
}

/// Writes bytes in the unit that gives the smallest whole number.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ => format_smallest(bytes, &SIZE_UNITS),
    }
}

fn format_smallest(amount: u64, units: &[(&str, u64)]) -> String {
    let (name, count) = units
        .iter()
        .filter(|(_, unit)| amount.is_multiple_of(*unit))
        .map(|(name, unit)| (*name, amount / unit))
        .min_by_key(|(_, count)| *count)
        .unwrap_or(("", amount));
    format!("{count}{name}")
}

fn unknown_unit(unit: &str, units: &'static str) -> ValueError {
    ValueError::UnknownUnit {
        unit: unit.to_owned(),
        units,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !keep(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_words_are_milliseconds() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("90 s", 90_000),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn a_number_is_not_a_duration_and_the_error_says_what_to_write() {
        let error = parse_duration("90").unwrap_err();
        assert_eq!(
            error.to_string(),
            "90 has no unit: write \"90s\" (units: ms, s, m, h, d)"
        );
    }

    #[test]
    fn malformed_durations_are_refused() {
        for text in [
            "", " ", "s", "-1s", "1.5h", "1s1h", "1s1s", "1x", "1 ", "0x10s", "１s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_in_words_are_bytes() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("10B", 10),
            ("32KiB", 32 << 10),
            ("64MiB", 64 << 20),
            ("4GiB", 4 << 30),
            ("1GB", 1_000_000_000),
            ("5TiB", 5 << 40),
            ("4 GiB", 4 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn malformed_sizes_are_refused() {
        for text in ["", "GiB", "-1", "1.5GiB", "1K", "1gib", "1GiB1MiB", "1MiB "] {
            assert!(parse_size(text).is_err(), "{text:?}");
        }
        assert_eq!(
            parse_size("4G").unwrap_err().to_string(),
            "unknown unit \"G\" (units: B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)"
        );
    }

    #[test]
    fn an_amount_beyond_64_bits_is_an_error_not_a_wrap() {
        for text in ["99999999999999999999B", "17000000TiB"] {
            assert!(matches!(parse_size(text), Err(ValueError::TooLarge { .. })));
        }
        for text in [
            "99999999999999999999s",
            "18446744073709551615s",
            "300000000000d1h",
        ] {
            assert!(
                matches!(parse_duration(text), Err(ValueError::TooLarge { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_number() {
        for number in [
            0,
            1,
            999,
            1000,
            1024,
            60_000,
            90_000,
            1 << 30,
            10_000_000_000,
            (1 << 40) + 1,
            u64::MAX,
        ] {
            assert_eq!(parse_duration(&format_duration(number)), Ok(number));
            assert_eq!(parse_size(&format_size(number)), Ok(number));
        }
        assert_eq!(format_size(10_000_000_000), "10GB");
        assert_eq!(format_duration(90_000), "90s");
    }
}

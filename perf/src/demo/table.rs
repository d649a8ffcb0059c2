//! The table of the demo: one row a file, three reads each.
//!
//! Called by the demo; pure text. Times are wall-clock from the first byte sent to the last byte received.

use std::fmt::Write;
use std::time::Duration;

/// One read of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Request sent to last byte received.
    pub elapsed: Duration,
    /// Request sent to first byte received.
    pub first_byte: Duration,
    /// `X-Cache-Status`.
    pub cache_status: Option<String>,
    /// Body bytes the origin sent meanwhile.
    pub origin_bytes: u64,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Read from the origin.
    pub direct: Reading,
    /// First read through the proxy.
    pub cold: Reading,
    /// Second read through the proxy.
    pub warm: Reading,
}

/// The table as text, a line a read.
pub fn render(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<12} {:<7} {:>11} {:>11} {:>9}  {:<15} {:>17}\n",
        "object", "read", "first byte", "time", "GiB/s", "X-Cache-Status", "bytes from origin"
    );
    for row in rows {
        for (how, reading) in [
            ("direct", &row.direct),
            ("cold", &row.cold),
            ("warm", &row.warm),
        ] {
            let status = reading.cache_status.as_deref().unwrap_or("-");
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<12} {how:<7} {:>11} {:>11} {:>9.3}  {status:<15} {:>17}",
                if how == "direct" {
                    row.name.as_str()
                } else {
                    ""
                },
                time(reading.first_byte),
                time(reading.elapsed),
                gib_per_s(row.bytes, reading.elapsed),
                reading.origin_bytes
            );
        }
    }
    text
}

fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        s if s >= 1.0 => format!("{s:.3} s"),
        s => format!("{:.3} ms", s * 1e3),
    }
}

fn gib_per_s(bytes: u64, elapsed: Duration) -> f64 {
    bytes as f64 / elapsed.as_secs_f64().max(1e-9) / (1_u64 << 30) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_three_lines_with_what_was_measured() {
        let reading = |ms, status: Option<&str>, origin_bytes| Reading {
            elapsed: Duration::from_millis(ms),
            first_byte: Duration::from_micros(500),
            cache_status: status.map(str::to_string),
            origin_bytes,
        };
        let row = Row {
            name: "x.bin".into(),
            bytes: 1 << 30,
            direct: reading(2000, None, 1 << 30),
            cold: reading(2500, Some("MISS"), 1 << 30),
            warm: reading(250, Some("HIT"), 0),
        };
        let text = render(&[row]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "x.bin",
                "direct",
                "0.500",
                "ms",
                "2.000",
                "s",
                "0.500",
                "-",
                "1073741824"
            ]
        );
        assert_eq!(
            lines[2],
            [
                "cold",
                "0.500",
                "ms",
                "2.500",
                "s",
                "0.400",
                "MISS",
                "1073741824"
            ]
        );
        assert_eq!(
            lines[3],
            ["warm", "0.500", "ms", "250.000", "ms", "4.000", "HIT", "0"]
        );
    }
}

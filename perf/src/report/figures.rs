//! Figures as text: three digits where they mean something, a spread in brackets.
//!
//! Called by the tables, the plots and the terminal's summary. Pure.

use super::derive::Spread;

/// What stands where there is no figure.
pub const NONE: &str = "–";

/// A number with about three digits, thousands apart.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        return thousands(value.round() as i64);
    }
    let digits = match size {
        _ if size >= 100.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 || size == 0.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// Median and extremes; the median alone where there is one value.
pub fn spread(spread: Option<Spread>) -> String {
    match spread {
        None => NONE.to_string(),
        Some(one) if one.count == 1 => number(one.median),
        Some(many) => format!(
            "{} ({}–{})",
            number(many.median),
            number(many.min),
            number(many.max)
        ),
    }
}

/// A ratio: median and extremes, always two digits after the point.
pub fn ratio(spread: Option<Spread>) -> String {
    match spread {
        None => NONE.to_string(),
        Some(one) if one.count == 1 => format!("{:.2} ×", one.median),
        Some(many) => format!("{:.2} × ({:.2}–{:.2})", many.median, many.min, many.max),
    }
}

/// The median alone.
pub fn median(spread: Option<Spread>) -> String {
    spread.map_or(NONE.to_string(), |spread| number(spread.median))
}

/// Text for a table's cell: on one line, no bar ends it.
pub fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|").replace('<', "&lt;")
}

/// A Markdown table.
pub fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        text.push_str("| ");
        text.push_str(&cells.join(" | "));
        text.push_str(" |\n");
    };
    line(head);
    line(&vec!["---".to_string(); head.len()]);
    for row in rows {
        line(row);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        let want = [
            (0.0, "0.00"),
            (0.0123, "0.0123"),
            (0.1234, "0.123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (123.4, "123"),
            (1234.0, "1,234"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
        ];
        for (value, text) in want {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn one_value_has_no_spread() {
        assert_eq!(spread(Spread::of(vec![2.0])), "2.00");
        assert_eq!(spread(Spread::of(vec![2.0, 4.0])), "3.00 (2.00–4.00)");
        assert_eq!(spread(None), NONE);
        assert_eq!(ratio(Spread::of(vec![2.0])), "2.00 ×");
    }

    #[test]
    fn a_cell_stays_a_cell() {
        assert_eq!(cell("a|b\nc <d>"), "a\\|b c &lt;d>");
    }
}

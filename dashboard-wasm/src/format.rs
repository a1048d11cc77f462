//! How figures are written for people.

use catchment_cells::Estimate;

/// Counts from here on are written in millions.
const MILLION: f64 = 1_000_000.0;
/// Currencies without a small coin, of ISO 4217.
const WHOLE: [&str; 10] = ["JPY", "KRW", "VND", "CLP", "ISK", "UGX", "XAF", "XOF", "XPF", "PYG"];

/// `12,345`, and `1.23M` from a million on.
pub fn count(value: f64) -> String {
    if value.abs() < MILLION {
        return grouped(value.round(), 0);
    }
    // What would be rounded to 1,000 million is a billion.
    let (scaled, unit) = if value.abs() < 999.5 * MILLION { (value / MILLION, "M") } else { (value / 1e9, "B") };
    let decimals = if scaled.abs() < 10.0 {
        2
    } else if scaled.abs() < 100.0 {
        1
    } else {
        0
    };
    format!("{}{unit}", grouped(scaled, decimals))
}

/// Every digit of a number that is or isn't whole: `12,345` or `12,345.6`.
pub fn full(value: f64) -> String {
    grouped(value, if value.fract() == 0.0 { 0 } else { 1 })
}

/// A share: `45%`, `<1%`.
pub fn percent(part: f64, whole: f64) -> String {
    if whole <= 0.0 || part <= 0.0 {
        return "0%".into();
    }
    let share = 100.0 * part / whole;
    if share < 1.0 { "<1%".into() } else { format!("{share:.0}%") }
}

/// Money, by its ISO 4217 code: `€1,234.50`, `CHF 20.00`, `-$3.00`.
pub fn money(value: f64, currency: &str) -> String {
    let symbol = match currency {
        "EUR" => "€",
        "USD" => "$",
        "GBP" => "£",
        "JPY" => "¥",
        "INR" => "₹",
        _ => "",
    };
    let amount = grouped(value.abs(), if WHOLE.contains(&currency) { 0 } else { 2 });
    let sign = if amount.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) && value < 0.0 { "-" } else { "" };
    if symbol.is_empty() { format!("{sign}{currency}\u{a0}{amount}") } else { format!("{sign}{symbol}{amount}") }
}

/// How long ago: `0.4 s ago`, `12 s ago`, `3 min ago`, `2 h ago`.
pub fn ago(ms: i64) -> String {
    let ms = ms.max(0);
    match ms / 1_000 {
        0..=9 => format!("{}.{} s ago", ms / 1_000, ms % 1_000 / 100),
        s @ 10..=59 => format!("{s} s ago"),
        s @ 60..=3_599 => format!("{} min ago", s / 60),
        s => format!("{} h ago", s / 3_600),
    }
}

/// Half of the bounds' width: `± 60`. Nothing where the value is known.
pub fn margin(estimate: &Estimate) -> Option<String> {
    let margin = (estimate.upper - estimate.value).max(estimate.value - estimate.lower);
    (!estimate.exact && margin >= 0.5).then(|| format!("± {}", count(margin)))
}

/// What the bounds mean, in a sentence.
pub fn meaning(estimate: &Estimate) -> String {
    if estimate.exact {
        return "Counted exactly.".into();
    }
    format!(
        "In 95 of 100 cases the true number is between {} and {}. Large crowds are estimated, so that nobody has to be kept on a list.",
        full(estimate.lower.floor()),
        full(estimate.upper.ceil())
    )
}

/// With commas between thousands.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    if value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte)) {
        out.push('-');
    }
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (value, expected) in [
            (0.0, "0"),
            (999.0, "999"),
            (1_000.0, "1,000"),
            (2_349.6, "2,350"),
            (999_999.0, "999,999"),
            (1_234_567.0, "1.23M"),
            (45_678_901.0, "45.7M"),
            (456_789_012.0, "457M"),
            (999_999_999.0, "1.00B"),
            (7.1e9, "7.10B"),
        ] {
            assert_eq!(count(value), expected);
        }
    }

    #[test]
    fn shares() {
        for (part, whole, expected) in
            [(0.0, 0.0, "0%"), (1.0, 1_000.0, "<1%"), (45.4, 100.0, "45%"), (3.0, 3.0, "100%")]
        {
            assert_eq!(percent(part, whole), expected);
        }
    }

    #[test]
    fn amounts() {
        for (value, currency, expected) in [
            (1_234.5, "EUR", "€1,234.50"),
            (20.0, "CHF", "CHF\u{a0}20.00"),
            (-3.0, "USD", "-$3.00"),
            (-0.001, "USD", "$0.00"),
            (1_200.0, "JPY", "¥1,200"),
        ] {
            assert_eq!(money(value, currency), expected);
        }
    }

    #[test]
    fn times_ago() {
        for (ms, expected) in [
            (-5, "0.0 s ago"),
            (449, "0.4 s ago"),
            (9_999, "9.9 s ago"),
            (12_345, "12 s ago"),
            (200_000, "3 min ago"),
            (7_300_000, "2 h ago"),
        ] {
            assert_eq!(ago(ms), expected);
        }
    }

    #[test]
    fn bounds_are_shown_where_there_are_any() {
        let estimate = Estimate { value: 2_349.6, lower: 2_290.2, upper: 2_409.0, exact: false };
        assert_eq!(margin(&estimate).as_deref(), Some("± 59"));
        assert!(meaning(&estimate).contains("between 2,290 and 2,409"));
        let known = Estimate { upper: 101.0, ..Estimate::exact(100.0) };
        assert_eq!(margin(&known), None);
        assert_eq!(meaning(&known), "Counted exactly.");
    }
}

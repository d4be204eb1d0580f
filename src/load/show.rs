//! Figures for people: three digits, and always a unit.

/// A time, in the unit that gives it one to three digits before the point.
#[must_use]
pub fn show_ns(ns: u64) -> String {
    let ns = ns as f64;
    match ns {
        _ if ns < 1e3 => format!("{ns:.0} ns"),
        _ if ns < 1e6 => format!("{} us", three_digits(ns / 1e3)),
        _ if ns < 1e9 => format!("{} ms", three_digits(ns / 1e6)),
        _ => format!("{} s", three_digits(ns / 1e9)),
    }
}

/// A count, its digits in groups of three.
#[must_use]
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    match bytes {
        _ if bytes < 1024.0 => format!("{bytes:.0} B"),
        _ if bytes < 1_048_576.0 => format!("{} KiB", three_digits(bytes / 1024.0)),
        _ if bytes < 1_073_741_824.0 => format!("{} MiB", three_digits(bytes / 1_048_576.0)),
        _ => format!("{} GiB", three_digits(bytes / 1_073_741_824.0)),
    }
}

/// A share, in percent.
#[must_use]
pub fn show_percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        0.0 => "0%".to_owned(),
        _ if percent < 0.01 => "less than 0.01%".to_owned(),
        _ => format!("{}%", three_digits(percent)),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let cases = [
            (7, "7 ns"),
            (1_500, "1.50 us"),
            (99_960, "100 us"),
            (43_210_000, "43.2 ms"),
            (1_000_000_000, "1.00 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(show_ns(ns), text);
        }
        assert_eq!((show_count(999), show_count(1_234_567)), ("999".into(), "1,234,567".into()));
        assert_eq!((show_bytes(64), show_bytes(16_384)), ("64 B".into(), "16.0 KiB".into()));
        assert_eq!((show_percent(0.0), show_percent(0.5)), ("0%".into(), "50.0%".into()));
        assert_eq!(show_percent(0.000_01), "less than 0.01%");
    }
}

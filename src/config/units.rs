//! Durations, sizes and permission bits as people write them: `250ms`, `1.5s`, `1m30s`, `64KiB`,
//! `0660`.
//!
//! Invariant: what a `show_*` function prints, its `parse_*` function reads back as the same value.

use std::time::Duration;

/// The longest duration that is taken: a hundred years of 365 days. Any moment that far away can be
/// reckoned with.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A text is not a quantity of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not numbers with units of time.
    #[error("`{0}` is not a duration such as 250ms, 1.5s, 10m, 1h, 1m30s or 30d")]
    Duration(String),
    /// More than [`MAX_DURATION`].
    #[error("`{0}` is too long: the longest duration is 36500d")]
    TooLong(String),
    /// Not a whole number and a unit of size.
    #[error("`{0}` is not a size such as 512B, 64KiB or 1MiB")]
    Size(String),
    /// Not permission bits.
    #[error("`{0}` is not a mode such as 0660")]
    Mode(String),
}

/// Days are read and not shown: `24h` is as good.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZE_UNITS: [(&str, u64); 3] = [("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A duration as a limit. Zero sets none.
#[must_use]
pub fn limit(duration: Duration) -> Option<Duration> {
    Some(duration).filter(|duration| !duration.is_zero())
}

/// The most digits that a part of a duration may have on either side of its point.
const MOST_DIGITS: usize = 15;

/// Reads a duration such as `250ms`, `1.5s`, `10m`, `1h` or `30d`, or several such parts, the largest
/// unit first, as in `1h30m`. Anything finer than a millisecond is refused.
///
/// # Errors
/// The text is anything else, or longer than [`MAX_DURATION`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    let mut sum = 0u64;
    let mut rest = text;
    let mut units = &DURATION_UNITS[..];
    while !rest.is_empty() || sum == 0 && units.len() == DURATION_UNITS.len() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let length = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (name, behind) = behind.split_at(length);
        let place = units.iter().position(|(unit, _)| *unit == name).ok_or_else(wrong)?;
        let part = milliseconds(number, units[place].1).ok_or_else(wrong)?;
        sum = sum.saturating_add(part);
        (rest, units) = (behind, &units[place + 1..]);
    }
    Some(Duration::from_millis(sum))
        .filter(|duration| *duration <= MAX_DURATION)
        .ok_or_else(|| UnitError::TooLong(text.to_owned()))
}

/// `number`, which may have a fraction, of a unit of so many milliseconds; `None` where it is no
/// number, or no whole number of milliseconds. What is too large to be told is as large as can be.
fn milliseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
        Some(_) => return None,
        None => (number, ""),
    };
    if whole.is_empty() || fraction.len() > MOST_DIGITS || fraction.contains('.') {
        return None;
    }
    let tenths = 10u128.pow(fraction.len() as u32);
    let part = fraction.bytes().fold(0, |sum, digit| 10 * sum + u128::from(digit - b'0'));
    let part = part * u128::from(unit);
    let part = (part % tenths == 0).then_some(part / tenths)?;
    let whole = whole.parse().unwrap_or(u64::MAX);
    Some(whole.saturating_mul(unit).saturating_add(part as u64))
}

/// The shortest exact form of a duration of whole milliseconds. Anything finer is dropped.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    match u64::try_from(duration.as_millis()).unwrap_or(u64::MAX) {
        0 => "0s".to_owned(),
        ms => show_unit(ms, &DURATION_UNITS[1..]),
    }
}

/// Reads a size in bytes such as `512B`, `64KiB` or `1MiB`.
///
/// # Errors
/// The text is anything else.
pub fn parse_size(text: &str) -> Result<usize, UnitError> {
    split_unit(text, &SIZE_UNITS)
        .and_then(|(count, unit)| usize::try_from(count.checked_mul(unit)?).ok())
        .ok_or_else(|| UnitError::Size(text.to_owned()))
}

/// The shortest exact form of a size in bytes.
#[must_use]
pub fn show_size(bytes: usize) -> String {
    show_unit(bytes as u64, &SIZE_UNITS)
}

/// Reads permission bits in octal, such as `0660`.
///
/// # Errors
/// The text is anything else, or has bits that are not permissions for owner, group and others.
pub fn parse_mode(text: &str) -> Result<u32, UnitError> {
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    octal
        .then(|| u32::from_str_radix(text, 8).ok())
        .flatten()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| UnitError::Mode(text.to_owned()))
}

/// Permission bits as four octal digits.
#[must_use]
pub fn show_mode(mode: u32) -> String {
    format!("{mode:04o}")
}

fn split_unit(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some((count.parse().ok()?, *factor))
}

fn show_unit(count: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().find(|(_, factor)| count.is_multiple_of(*factor));
    whole.map_or_else(|| count.to_string(), |(name, factor)| format!("{}{name}", count / factor))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [("250ms", 250), ("10s", 10_000), ("10m", 600_000), ("1h", 3_600_000)];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)));
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        let ten_years = Duration::from_secs(3650 * 86_400);
        assert_eq!(parse_duration("3650d"), Ok(ten_years));
        assert_eq!(show_duration(ten_years), "87600h");
        assert_eq!(parse_duration("0ms"), Ok(Duration::ZERO));
        assert_eq!(show_duration(Duration::ZERO), "0s");
        for text in ["", "s", "10", "-1s", "10 s", "10S", "1w"] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())));
        }
        for text in ["36501d", "876001h", "18446744073709551615h", "99999999999999999999s"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLong(text.to_owned())));
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [("4095B", 4095), ("64KiB", 65_536), ("1MiB", 1 << 20)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(show_size(bytes), text);
        }
        for text in ["", "64", "64KB", "64 KiB", "18446744073709551615MiB"] {
            assert_eq!(parse_size(text), Err(UnitError::Size(text.to_owned())));
        }
    }

    #[test]
    fn durations_have_fractions_and_parts() {
        let cases = [
            ("1.5s", 1500),
            ("0.25s", 250),
            ("1m30s", 90_000),
            ("1h0.5m", 3_630_000),
            ("1h2m3s4ms", 3_723_004),
            ("0h", 0),
            ("0.000s", 0),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        let wrong =
            ["1.s", ".5s", "1.5", "1.5ms", "1.2.3s", "30s1m", "1s1s", "1m 30s", "1m30", "-1s"];
        for text in wrong {
            assert_eq!(parse_duration(text), Err(UnitError::Duration(text.to_owned())));
        }
        for text in ["99999999999999999999s", "876000h1ms", "876000.5h"] {
            assert_eq!(parse_duration(text), Err(UnitError::TooLong(text.to_owned())));
        }
    }

    #[test]
    fn modes_are_read() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0000", 0), ("0777", 0o777)] {
            assert_eq!(parse_mode(text), Ok(mode));
        }
        for text in ["", "0", "0680", "1777", "00660", "u+rw"] {
            assert_eq!(parse_mode(text), Err(UnitError::Mode(text.to_owned())));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(ms in 0u64..=3_153_600_000_000, bytes: u32, mode in 0u32..=0o777) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
            let bytes = bytes as usize;
            prop_assert_eq!(parse_size(&show_size(bytes)), Ok(bytes));
            prop_assert_eq!(parse_mode(&show_mode(mode)), Ok(mode));
        }
    }
}

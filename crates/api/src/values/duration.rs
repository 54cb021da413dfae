//! Spans of time in the notation of Go, which Kubernetes uses.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A span of time of at least zero, such as `1h30m`, `2m`, `500ms` or `1.5h`.
///
/// Units: `ns`, `us` (or `µs`), `ms`, `s`, `m`, `h` as in Go, and `d` (24 hours) and `w` (7 days) besides. `0` needs no
/// unit. Resolution: one nanosecond; longest: about 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

/// Why a text is no [`Duration`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not follow the notation.
    #[error("{0:?} is not a duration: expected numbers with units, such as 1h30m, 90s, 500ms, 7d or 2w")]
    Syntax(String),
    /// The duration is below zero.
    #[error("{0:?} is not a duration: expected zero or more")]
    Negative(String),
    /// The duration does not fit.
    #[error("{0:?} is not a duration: expected at most 584 years")]
    TooLong(String),
}

const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

impl Duration {
    /// Zero.
    pub const ZERO: Self = Self(std::time::Duration::ZERO);

    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// As the standard library's type.
    pub const fn as_std(self) -> std::time::Duration {
        self.0
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self(duration)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let syntax = || DurationError::Syntax(text.to_owned());
        let too_long = || DurationError::TooLong(text.to_owned());
        if text.starts_with('-') {
            return Err(DurationError::Negative(text.to_owned()));
        }
        if text == "0" {
            return Ok(Self::ZERO);
        }
        if text.is_empty() {
            return Err(syntax());
        }
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(syntax)?;
            let (number, after) = rest.split_at(number_end);
            let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_end);
            let nanos = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, nanos)| *nanos).ok_or_else(syntax)?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
                return Err(syntax());
            }
            let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
            total = whole.checked_mul(nanos).and_then(|n| total.checked_add(n)).ok_or_else(too_long)?;
            // Digits below a nanosecond of the largest unit are past all use: u128 holds 18 digits times a week.
            let digits = fraction.get(..18).unwrap_or(fraction);
            if !digits.is_empty() {
                let value: u128 = digits.parse().map_err(|_| syntax())?;
                let scale = 10_u128.pow(u32::try_from(digits.len()).map_err(|_| syntax())?);
                let part = u64::try_from(value * u128::from(nanos) / scale).map_err(|_| too_long())?;
                total = total.checked_add(part).ok_or_else(too_long)?;
            }
            rest = after;
        }
        Ok(Self(std::time::Duration::from_nanos(total)))
    }
}

impl fmt::Display for Duration {
    /// As Go prints it: `1h30m0s` is shortened to `1h30m`, and less than a second is printed in its largest unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let nanos = self.0.subsec_nanos();
        if seconds == 0 && nanos > 0 {
            let (unit, scale) = match nanos {
                1_000_000.. => ("ms", 6),
                1_000.. => ("µs", 3),
                _ => ("ns", 0),
            };
            return write!(f, "{}{unit}", decimal(u64::from(nanos), scale));
        }
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let rest = seconds % 60 * 1_000_000_000 + u64::from(nanos);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if rest > 0 || seconds == 0 { write!(f, "{}s", decimal(rest, 9)) } else { Ok(()) }
    }
}

/// `value / 10^scale` without trailing zeros.
fn decimal(value: u64, scale: u32) -> String {
    let unit = 10_u64.pow(scale);
    let fraction = format!("{:0width$}", value % unit, width = scale as usize);
    let fraction = if scale == 0 { "" } else { fraction.trim_end_matches('0') };
    if fraction.is_empty() { format!("{}", value / unit) } else { format!("{}.{fraction}", value / unit) }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "holdfast-duration",
            "pattern": r"^(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|ms|s|m|h|d|w))+)$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("1h30m", 5_400_000_000_000, "1h30m"),
            ("2m", 120_000_000_000, "2m"),
            ("90s", 90_000_000_000, "1m30s"),
            ("500ms", 500_000_000, "500ms"),
            ("1.5h", 5_400_000_000_000, "1h30m"),
            (".5s", 500_000_000, "500ms"),
            ("1m0.25s", 60_250_000_000, "1m0.25s"),
            ("7d", 604_800_000_000_000, "168h"),
            ("2w", 1_209_600_000_000_000, "336h"),
            ("1h1s", 3_601_000_000_000, "1h1s"),
            ("1500us", 1_500_000, "1.5ms"),
            ("3µs", 3_000, "3µs"),
            ("7ns", 7, "7ns"),
            ("0.123456789123456789123s", 123_456_789, "123.456789ms"),
        ] {
            let duration: Duration = text.parse().unwrap();
            assert_eq!(duration.as_std().as_nanos(), nanos, "{text}");
            assert_eq!(duration.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(duration), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "5", "1", "h", "1h30", "1 h", "1y", "1.2.3s", ".s", "+1s", "1H", "s1", "1d-1h", "∞"] {
            assert_eq!(text.parse::<Duration>(), Err(DurationError::Syntax(text.to_owned())), "{text}");
        }
        assert_eq!("-1s".parse::<Duration>(), Err(DurationError::Negative("-1s".to_owned())));
        for text in ["600000000h", "99999999999999999999s", "1000y".replace('y', "0000w").as_str()] {
            assert_eq!(text.parse::<Duration>(), Err(DurationError::TooLong(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn the_error_shows_what_was_expected() {
        let error = serde_json::from_str::<Duration>("\"soon\"").unwrap_err().to_string();
        assert!(error.contains("\"soon\" is not a duration: expected numbers with units, such as 1h30m"), "{error}");
        assert!(serde_json::from_str::<Duration>("5").is_err());
    }
}

//! The formats of texts that schemas name, checked by the typed values: schedules, durations, quantities,
//! calendar spans, times and base64.

use crate::values::{CalendarSpan, Duration, Quantity, Schedule, TimeZone};

use super::finding::Finding;
use super::suggest::nearest;

/// The format of a quantity in this crate's schemas.
pub(super) const QUANTITY: &str = "holdfast-quantity";

/// Why a text is not of its format.
pub(super) struct Wrong {
    problem: &'static str,
    expected: String,
    suggestion: Option<String>,
}

impl Wrong {
    pub(super) fn describe(self, finding: Finding) -> Finding {
        let Self { problem, expected, suggestion } = self;
        Finding { problem: problem.to_owned(), ..finding }.expected(expected).suggest(suggestion)
    }
}

/// Checks a text against a format; a format that is not known passes.
pub(super) fn check(format: &str, text: &str) -> Option<Wrong> {
    let wrong = |problem, expected: &str, better: Option<String>| {
        let suggestion = better.map(|better| format!("did you mean {better:?}?"));
        Some(Wrong { problem, expected: expected.to_owned(), suggestion })
    };
    match format {
        QUANTITY if text.parse::<Quantity>().is_err() => {
            wrong("not a quantity", "a number with a suffix or none, such as 128Mi, 250m or 2", better_quantity(text))
        }
        "holdfast-duration" if text.parse::<Duration>().is_err() => {
            wrong("not a duration", "numbers with units, such as 90s, 1h30m or 2d", better_duration(text))
        }
        "holdfast-schedule" if text.parse::<Schedule>().is_err() => wrong(
            "not a schedule",
            "five cron fields (\"0 3 * * *\"), six with seconds first, \"@hourly\" or \"@every 1h30m\"",
            better_schedule(text),
        ),
        "holdfast-calendar-span" if text.parse::<CalendarSpan>().is_err() => {
            wrong("not a span of time", "years, months, days and hours, such as 1y6m7d12h", None)
        }
        "holdfast-time-zone" if text.parse::<TimeZone>().is_err() => {
            wrong("not a time zone", "an IANA name, such as Europe/Berlin or UTC", None)
        }
        "date-time" if text.parse::<jiff::Timestamp>().is_err() => {
            wrong("not a time", "a time as in RFC 3339, such as 2026-01-31T03:00:00Z", None)
        }
        "byte" if !is_base64(text) => wrong("not base64", "base64; plain text goes under stringData", None),
        _ => None,
    }
}

fn better_quantity(text: &str) -> Option<String> {
    let squeezed: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let end = squeezed.find(|c: char| c.is_alphabetic())?;
    let (number, unit) = squeezed.split_at(end);
    let unit = match unit.to_lowercase().as_str() {
        "b" | "bytes" => "",
        "k" | "kb" => "k",
        "m" | "mb" => "M",
        "g" | "gb" => "G",
        "t" | "tb" => "T",
        "ki" | "kib" => "Ki",
        "mi" | "mib" => "Mi",
        "gi" | "gib" => "Gi",
        "ti" | "tib" => "Ti",
        _ => return None,
    };
    Some(format!("{number}{unit}")).filter(|better| better.parse::<Quantity>().is_ok())
}

fn better_duration(text: &str) -> Option<String> {
    let mut better = String::new();
    for word in text.split_inclusive(|c: char| c.is_alphabetic()).flat_map(str::split_whitespace) {
        better.push_str(word);
    }
    // "1hour30minutes": of each word after a number, the first letter.
    let mut short = String::new();
    let mut letters = 0;
    for c in better.chars() {
        letters = if c.is_alphabetic() { letters + 1 } else { 0 };
        if letters <= 1 {
            short.extend(c.to_lowercase());
        }
    }
    Some(short).filter(|better| better.parse::<Duration>().is_ok())
}

fn better_schedule(text: &str) -> Option<String> {
    const NAMED: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    let text = text.trim();
    let bare = text.trim_start_matches('@').trim_start();
    if let Some(interval) = bare.strip_prefix("every") {
        let interval = interval.trim();
        let interval = match interval.parse::<Duration>() {
            Ok(_) => interval.to_owned(),
            Err(_) => better_duration(interval)?,
        };
        return Some(format!("@every {interval}")).filter(|better| better.parse::<Schedule>().is_ok());
    }
    if bare.parse::<Duration>().is_ok() {
        return Some(format!("@every {bare}"));
    }
    if bare.contains(char::is_whitespace) {
        return None;
    }
    nearest(&format!("@{bare}"), NAMED).map(str::to_owned)
}

fn is_base64(text: &str) -> bool {
    let text: Vec<u8> = text.bytes().filter(|b| !b"\r\n".contains(b)).collect();
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    text.len().is_multiple_of(4)
        && padding <= 2
        && text[..text.len() - padding].iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_better(format: &str, text: &str, want: Option<&str>) {
        let wrong = check(format, text).unwrap_or_else(|| panic!("{text:?} passes as {format}"));
        let want = want.map(|want| format!("did you mean {want:?}?"));
        assert_eq!(wrong.suggestion, want, "{text:?}");
    }

    #[test]
    fn what_is_right_passes() {
        for (format, text) in [
            (QUANTITY, "128Mi"),
            ("holdfast-duration", "1h30m"),
            ("holdfast-calendar-span", "1y6m"),
            ("date-time", "2026-01-31T03:00:00Z"),
            ("byte", "aGVsbG8="),
            ("byte", ""),
            ("no-such-format", "x"),
        ] {
            assert!(check(format, text).is_none(), "{text:?} as {format}");
        }
    }

    #[test]
    fn better_values_are_shown() {
        check_better(QUANTITY, "128MB", Some("128M"));
        check_better(QUANTITY, "1 GiB", Some("1Gi"));
        check_better(QUANTITY, "128mi", Some("128Mi"));
        check_better(QUANTITY, "lots", None);
        check_better("holdfast-duration", "1 hour 30 minutes", Some("1h30m"));
        check_better("holdfast-duration", "soon", None);
        check_better("byte", "plain text", None);
    }

    #[test]
    fn better_schedules_are_shown() {
        check_better("holdfast-schedule", "every 1h", Some("@every 1h"));
        check_better("holdfast-schedule", "@every 1 hour", Some("@every 1h"));
        check_better("holdfast-schedule", "1h", Some("@every 1h"));
        check_better("holdfast-schedule", "daily", Some("@daily"));
        check_better("holdfast-schedule", "@hourli", Some("@hourly"));
        check_better("holdfast-schedule", "61 * * * *", None);
    }
}

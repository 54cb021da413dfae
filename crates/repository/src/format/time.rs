//! Points in time as trees and snapshots hold them.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::go_text::write_padded;

const DAY_SECONDS: i64 = 86_400;

/// A point in time with nanoseconds, and the offset from UTC it is written with.
///
/// Two timestamps are equal when they name the same instant, whatever their offsets. The offset is kept so that
/// rewriting a snapshot does not change what it says.
#[derive(Clone, Copy)]
pub struct Timestamp {
    seconds: i64,
    nanoseconds: u32,
    offset_minutes: i16,
}

/// A text that is no RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an RFC 3339 time, expected a form like 2006-01-02T15:04:05.999999999Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// `seconds` since 1970-01-01T00:00:00Z (negative before) plus `nanoseconds` (below 1,000,000,000), in UTC.
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Self {
        Self { seconds, nanoseconds: nanoseconds.min(999_999_999), offset_minutes: 0 }
    }

    /// Seconds since 1970-01-01T00:00:00Z, rounded down.
    pub fn seconds(&self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Self::seconds`].
    pub fn nanoseconds(&self) -> u32 {
        self.nanoseconds
    }

    /// Minutes east of UTC that the time is written with.
    pub fn offset_minutes(&self) -> i16 {
        self.offset_minutes
    }

    /// The instant; `None` outside the years -9999 to 9999.
    pub fn instant(&self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::new(self.seconds, i32::try_from(self.nanoseconds).ok()?).ok()
    }

    /// Appends the time as Go's `RFC3339Nano` writes it: no trailing zeros in the fraction, `Z` for UTC.
    ///
    /// The format has four digits for the year: as restic does, a time before year 0 or after 9999 keeps all but
    /// its year, which becomes the nearest that can be written.
    pub fn write(&self, out: &mut Vec<u8>) {
        let local = self.seconds.saturating_add(i64::from(self.offset_minutes) * 60);
        let (year, mut month, mut day) = civil_from_days(local.div_euclid(DAY_SECONDS));
        let year = match year {
            ..0 => 0,
            0..=9999 => year,
            _ => {
                // Only a leap year has a 29th of February; 9999 is none, and Go's AddDate moves on to the 1st of March.
                if (month, day) == (2, 29) {
                    (month, day) = (3, 1);
                }
                9999
            }
        };
        let second = local.rem_euclid(DAY_SECONDS);
        let fields = [
            (year.unsigned_abs(), 4, b'-'),
            (month, 2, b'-'),
            (day, 2, b'T'),
            ((second / 3600) as u64, 2, b':'),
            ((second / 60 % 60) as u64, 2, b':'),
        ];
        for (value, width, separator) in fields {
            write_padded(out, value, width);
            out.push(separator);
        }
        write_padded(out, (second % 60) as u64, 2);
        if self.nanoseconds > 0 {
            out.push(b'.');
            write_padded(out, self.nanoseconds.into(), 9);
            while out.last() == Some(&b'0') {
                out.pop();
            }
        }
        if self.offset_minutes == 0 {
            out.push(b'Z');
        } else {
            out.push(if self.offset_minutes < 0 { b'-' } else { b'+' });
            let minutes = self.offset_minutes.unsigned_abs();
            write_padded(out, u64::from(minutes / 60), 2);
            out.push(b':');
            write_padded(out, u64::from(minutes % 60), 2);
        }
    }
}

/// Go's zero time, 0001-01-01T00:00:00Z: what restic writes where it knows no time.
impl Default for Timestamp {
    fn default() -> Self {
        Self::from_unix(-62_135_596_800, 0)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    fn from(time: jiff::Timestamp) -> Self {
        // jiff gives both parts the sign of the whole; here nanoseconds count forward from rounded-down seconds.
        let nanoseconds = time.subsec_nanosecond();
        if nanoseconds < 0 {
            Self::from_unix(time.as_second() - 1, (nanoseconds + 1_000_000_000).unsigned_abs())
        } else {
            Self::from_unix(time.as_second(), nanoseconds.unsigned_abs())
        }
    }
}

impl From<&jiff::Zoned> for Timestamp {
    fn from(time: &jiff::Zoned) -> Self {
        let minutes = time.offset().seconds() / 60;
        Self { offset_minutes: i16::try_from(minutes).unwrap_or(0), ..time.timestamp().into() }
    }
}

impl PartialEq for Timestamp {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timestamp {}

impl Ord for Timestamp {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.seconds, self.nanoseconds).cmp(&(other.seconds, other.nanoseconds))
    }
}

impl PartialOrd for Timestamp {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Timestamp {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.seconds, self.nanoseconds).hash(state);
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(35);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        parse(text.as_bytes()).ok_or_else(|| TimestampError(text.chars().take(60).collect()))
    }
}

fn parse(text: &[u8]) -> Option<Timestamp> {
    let (head, mut rest) = text.split_at_checked(19)?;
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators.iter().all(|&(at, separator)| head[at] == separator) {
        return None;
    }
    let (year, month, day) = (number(&head[..4])?, number(&head[5..7])?, number(&head[8..10])?);
    let (hour, minute, second) = (number(&head[11..13])?, number(&head[14..16])?, number(&head[17..])?);
    if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }

    let mut nanoseconds = 0;
    if let [b'.', tail @ ..] = rest {
        let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, tail) = tail.split_at(digits);
        let kept = &fraction[..digits.min(9)];
        nanoseconds = number(kept)? * 10i64.pow(9 - kept.len() as u32);
        rest = tail;
    }

    let offset_minutes = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), hour @ .., b':', ten, one] => {
            let (hour, minute) = (number(hour)?, number(&[*ten, *one])?);
            if rest.len() != 6 || hour > 23 || minute > 59 {
                return None;
            }
            (hour * 60 + minute) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let local = days_from_civil(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some(Timestamp {
        seconds: local - offset_minutes * 60,
        nanoseconds: u32::try_from(nanoseconds).ok()?,
        offset_minutes: i16::try_from(offset_minutes).ok()?,
    })
}

/// A number of one or more ASCII digits, few enough not to overflow.
fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar. Years start in March, so that the leap day is the
/// last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + i64::from(month >= 10);
    (year, ((month + 2) % 12 + 1) as u64, day as u64)
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 time")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for text in [
            "1970-01-01T00:00:00Z",
            "1960-01-02T03:04:05.123456789Z",
            "2026-11-21T08:03:08.3093Z",
            "2024-02-29T23:59:59.000000001Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2023-07-01T12:00:00.5+02:00",
            "2023-07-01T12:00:00-09:30",
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), text);
        }
        assert_eq!(Timestamp::default().to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn agrees_with_jiff() {
        for seconds in (-62_167_219_200..253_402_207_200).step_by(86_399 * 37) {
            let ours = Timestamp::from_unix(seconds, 0);
            let theirs = jiff::Timestamp::from_second(seconds).unwrap();
            assert_eq!(ours.to_string(), theirs.to_string());
            assert_eq!(ours.to_string().parse::<Timestamp>().unwrap().seconds(), seconds);
            assert_eq!(Timestamp::from(theirs), ours);
        }
        let before = jiff::Timestamp::new(-1, -500_000_000).unwrap();
        assert_eq!(Timestamp::from(before).to_string(), "1969-12-31T23:59:58.5Z");
        assert_eq!(Timestamp::from(before).instant(), Some(before));
    }

    #[test]
    fn equal_means_the_same_instant() {
        let parse = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(parse("2023-07-01T12:00:00+02:00"), parse("2023-07-01T10:00:00Z"));
        assert!(parse("2023-07-01T12:00:00+02:00") < parse("2023-07-01T11:00:00Z"));
    }

    #[test]
    fn years_that_do_not_fit_are_clamped() {
        let write = |seconds| Timestamp::from_unix(seconds, 0).to_string();
        assert_eq!(write(253_402_300_800), "9999-01-01T00:00:00Z");
        assert_eq!(write(-62_167_219_201), "0000-12-31T23:59:59Z");
        // The 29th of February of the year 12000, and of -4.
        assert_eq!(write(days_from_civil(12_000, 2, 29) * DAY_SECONDS), "9999-03-01T00:00:00Z");
        assert_eq!(write(days_from_civil(-4, 2, 29) * DAY_SECONDS), "0000-02-29T00:00:00Z");
        for extreme in [i64::MIN, i64::MAX] {
            write(extreme);
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "2023",
            "2023-07-01",
            "2023-07-01T12:00:00",
            "2023-07-01 12:00:00Z",
            "2023-13-01T12:00:00Z",
            "2023-02-29T12:00:00Z",
            "2023-07-01T24:00:00Z",
            "2023-07-01T12:00:00.Z",
            "2023-07-01T12:00:00+2:00",
            "2023-07-01T12:00:00+24:00",
            "2023-07-01T12:00:00Zx",
            "2023-07-01T12:00:00,5Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }
}

//! When something is due.
//!
//! # Daylight saving
//!
//! Cron fields are matched against the wall clock of a time zone, as cron itself does since the nineties:
//!
//! - A fixed time of day that a change skips runs at the first moment after the gap: in Europe/Berlin, `30 2 * * *`
//!   runs at 03:00 on the day the clock goes forward. It is not lost.
//! - A fixed time of day that a change repeats runs once, the first time.
//! - A schedule with a wildcard in the minute or hour field follows the wall clock: it is not made up for in a gap,
//!   and runs in both halves of a repeated hour.
//!
//! `@every` counts real time and knows no change.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, CronPattern, Weekday};
use jiff::{SignedDuration, Timestamp, ToSpan, civil};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Duration, DurationError, TimeZone};

/// When to do something again and again. Forms:
///
/// - five cron fields: minute, hour, day of month, month, day of week, such as `30 2 * * 1-5`;
/// - six cron fields, the first of which is the second;
/// - `@hourly`, `@daily` or `@midnight`, `@weekly` (Sunday), `@monthly`, `@yearly` or `@annually`: at their first moment;
/// - `@every` and a [`Duration`] of at least a second, counted from the start of the last run.
///
/// `CRON_TZ=Europe/Berlin` or `TZ=Europe/Berlin` before cron fields names the time zone they are read in.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Cron { cron: Box<Cron>, zone: Option<TimeZone> },
    Every(SignedDuration),
}

/// Why a text is no [`Schedule`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The number of fields is neither five nor six.
    #[error(
        "{text:?} is not a schedule: expected five cron fields (minute, hour, day of month, month, day of week), six with seconds first, @hourly or the like, or @every 1h30m, but found {found} fields"
    )]
    FieldCount {
        /// The whole text.
        text: String,
        /// Number of fields.
        found: usize,
    },
    /// A field cannot be read.
    #[error("{text:?} is not a schedule: {value:?} is not a {field}, expected {expected}")]
    Field {
        /// The whole text.
        text: String,
        /// The field.
        field: &'static str,
        /// What stands in it.
        value: String,
        /// What may stand in it.
        expected: &'static str,
    },
    /// The name after `@` is unknown.
    #[error(
        "{0:?} is not a schedule: expected @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @every"
    )]
    UnknownName(String),
    /// The interval of `@every` cannot be read.
    #[error("{text:?} is not a schedule: {error}")]
    Interval {
        /// The whole text.
        text: String,
        /// What is wrong with the interval.
        error: DurationError,
    },
    /// The interval of `@every` is below a second.
    #[error("{0:?} is not a schedule: expected an interval of at least 1s")]
    TooOften(String),
    /// The time zone is unknown.
    #[error("{text:?} is not a schedule: {zone:?} is not a time zone, expected an IANA name such as Europe/Berlin")]
    UnknownZone {
        /// The whole text.
        text: String,
        /// What stands for the zone.
        zone: String,
    },
    /// A time zone stands before `@every`, which has no use for it.
    #[error("{0:?} is not a schedule: @every counts from the last run and takes no time zone")]
    ZoneOfInterval(String),
    /// No moment fits all fields.
    #[error("{0:?} is not a schedule: no day of the calendar fits it")]
    NeverOccurs(String),
}

/// The cron fields, with what may stand in each.
const FIELDS: [(&str, &str); 6] = [
    ("second", "0 to 59, *, ranges, lists or steps"),
    ("minute", "0 to 59, *, ranges, lists or steps"),
    ("hour", "0 to 23, *, ranges, lists or steps"),
    ("day of month", "1 to 31, *, ?, L, ranges, lists or steps"),
    ("month", "1 to 12, JAN to DEC, *, ranges, lists or steps"),
    ("day of week", "0 to 7, SUN to SAT, *, ?, ranges, lists or steps"),
];

impl Schedule {
    /// The schedule of the object of this name: read in `zone` unless the text names one (default: UTC), with every
    /// start delayed by a part of `jitter` that depends on the name alone.
    pub fn timing(&self, zone: Option<&TimeZone>, jitter: Option<Duration>, name: &str) -> Timing {
        let own = match &self.rule {
            Rule::Cron { zone, .. } => zone.as_ref(),
            Rule::Every(_) => None,
        };
        Timing {
            rule: self.rule.clone(),
            zone: own.or(zone).cloned().unwrap_or_else(TimeZone::utc),
            delay: jitter.map_or(SignedDuration::ZERO, |jitter| delay_within(jitter, name)),
        }
    }
}

/// A schedule with its time zone and delay: answers when something is due.
#[derive(Clone, Debug)]
pub struct Timing {
    rule: Rule,
    zone: TimeZone,
    delay: SignedDuration,
}

/// Whether something is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is due now. It was to start at this moment, now or in the past.
    Now(Timestamp),
    /// It is due next at this moment in the future.
    At(Timestamp),
    /// It is never due again.
    Never,
}

/// A last run further ahead of the clock than this comes from a clock that was wrong and is taken as none.
const CLOCK_ERROR_MAX: SignedDuration = SignedDuration::from_hours(24);

impl Timing {
    /// Whether something is to be run at `now`, when its last run started at `last_run`.
    ///
    /// However many moments passed unused since the last run (or since `created`, without one), it is due once.
    /// Without a last run, cron fields wait for their next moment after `created`, and `@every` is due at once.
    pub fn due(&self, last_run: Option<Timestamp>, created: Timestamp, now: Timestamp) -> Due {
        let plausible = last_run.filter(|last| last.duration_since(now) <= CLOCK_ERROR_MAX);
        let start = match plausible {
            Some(last) => self.next_after(last),
            None => self.first_after(created),
        };
        match start {
            Some(start) if start <= now => Due::Now(start),
            Some(start) => Due::At(start),
            None => Due::Never,
        }
    }

    /// When the run after the one that started at `run` is to start.
    pub fn next_after(&self, run: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            // The delay is part of the first start, from which all others follow.
            Rule::Every(interval) => run.checked_add(*interval).ok(),
            Rule::Cron { cron, .. } => {
                let undelayed = run.checked_sub(self.delay).ok()?;
                let moment = cron.find_next_occurrence(&undelayed.to_zoned(self.zone.rules().clone()), false).ok()?;
                // The search keeps the fraction of the second it started from.
                let moment = Timestamp::from_second(moment.timestamp().as_second()).ok()?;
                moment.checked_add(self.delay).ok()
            }
        }
    }

    /// When the first run of something that exists since `created` is to start.
    fn first_after(&self, created: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every(_) => created.checked_add(self.delay).ok(),
            Rule::Cron { .. } => self.next_after(created),
        }
    }
}

/// A part of `jitter` that depends on `name` alone: the same in every process and version.
fn delay_within(jitter: Duration, name: &str) -> SignedDuration {
    // FNV-1a, and the finish of splitmix64, without which names that differ at the end lie close together.
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let hash = hash ^ (hash >> 31);
    let millis = jitter.as_std().as_millis().max(1);
    SignedDuration::from_millis(i64::try_from(u128::from(hash) % millis).unwrap_or(0))
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let (zone, rest) = match ["CRON_TZ=", "TZ="].iter().find_map(|prefix| text.strip_prefix(prefix)) {
            None => (None, text),
            Some(prefixed) => {
                let (zone, rest) = prefixed.split_once(char::is_whitespace).unwrap_or((prefixed, ""));
                let parsed = zone
                    .parse()
                    .map_err(|_| ScheduleError::UnknownZone { text: text.to_owned(), zone: zone.to_owned() })?;
                (Some(parsed), rest.trim_start())
            }
        };
        let rule = match rest.strip_prefix('@') {
            None => Rule::Cron { cron: Box::new(parse_fields(text, rest)?), zone },
            Some(named) => match named.strip_prefix("every").filter(|rest| rest.starts_with(char::is_whitespace)) {
                Some(_) if zone.is_some() => return Err(ScheduleError::ZoneOfInterval(text.to_owned())),
                Some(interval) => Rule::Every(parse_interval(text, interval.trim())?),
                None => {
                    let fields = match named {
                        "hourly" => "0 * * * *",
                        "daily" | "midnight" => "0 0 * * *",
                        "weekly" => "0 0 * * 0",
                        "monthly" => "0 0 1 * *",
                        "yearly" | "annually" => "0 0 1 1 *",
                        _ => return Err(ScheduleError::UnknownName(text.to_owned())),
                    };
                    Rule::Cron { cron: Box::new(parse_fields(text, fields)?), zone }
                }
            },
        };
        Ok(Self { text: text.to_owned(), rule })
    }
}

fn parse_interval(text: &str, interval: &str) -> Result<SignedDuration, ScheduleError> {
    let error = |error| ScheduleError::Interval { text: text.to_owned(), error };
    let interval: Duration = interval.parse().map_err(error)?;
    if interval < Duration::from_secs(1) {
        return Err(ScheduleError::TooOften(text.to_owned()));
    }
    SignedDuration::try_from(interval.as_std()).map_err(|_| error(DurationError::TooLong(text.to_owned())))
}

fn parse_fields(text: &str, fields: &str) -> Result<Cron, ScheduleError> {
    // `5/15` as in Go's cron: from 5, in steps of 15.
    let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Disallowed).sloppy_ranges(true).build();
    let mut values: Vec<&str> = fields.split_whitespace().collect();
    match values.len() {
        5 => values.insert(0, "0"),
        6 => {}
        found => return Err(ScheduleError::FieldCount { text: text.to_owned(), found }),
    }
    let wrong = |index: usize| {
        let (field, expected) = FIELDS[index];
        ScheduleError::Field { text: text.to_owned(), field, value: values[index].to_owned(), expected }
    };
    // Longer than any sensible field, and far below what a hostile text could make the parser work.
    if let Some(index) = values.iter().position(|value| value.len() > 200 || !value.is_ascii()) {
        return Err(wrong(index));
    }
    let never = || ScheduleError::NeverOccurs(text.to_owned());
    let Ok(cron) = parser.parse(&values.join(" ")) else {
        // Which field it is shows when each stands alone.
        let is_wrong = |&index: &usize| {
            let alone: Vec<&str> = (0..FIELDS.len()).map(|i| if i == index { values[i] } else { "*" }).collect();
            parser.parse(&alone.join(" ")).is_err()
        };
        return Err((0..FIELDS.len()).find(is_wrong).map_or_else(never, wrong));
    };
    if !fits_some_day(&cron.pattern) {
        return Err(never());
    }
    Ok(cron)
}

/// Whether any day fits. The calendar repeats itself after 28 years as far as months, days and weekdays go; searching
/// for a moment instead would go on to the year 5000.
fn fits_some_day(pattern: &CronPattern) -> bool {
    let first = civil::date(2000, 1, 1);
    first.series(1.day()).take_while(|day| day.year() < 2028).any(|day| {
        let (year, month, of_month) =
            (day.year().into(), day.month().unsigned_abs().into(), day.day().unsigned_abs().into());
        let weekday = Weekday::from_days_from_sunday(day.weekday().to_sunday_zero_offset().unsigned_abs().into());
        let fits =
            pattern.month_match(month).and_then(|fits| Ok(fits && pattern.day_match(year, month, of_month, weekday)?));
        fits.unwrap_or(false)
    })
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Schedule {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schedule".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "holdfast-schedule", "minLength": 1, "maxLength": 512})
    }
}

#[cfg(test)]
mod tests;

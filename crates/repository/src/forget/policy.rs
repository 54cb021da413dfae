//! Retention policies: pure, the moment is an argument.
//!
//! Source: restic's manual, "Removing snapshots according to a policy", and the answers of restic 0.19.

use std::fmt;
use std::str::FromStr;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use serde::Serialize;

use crate::format::snapshot::TagList;
use crate::format::time::Timestamp;
use crate::snapshots::SavedSnapshot;

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// So many; 0 turns the rule off.
    Of(u32),
    /// All that there are.
    Unlimited,
}

impl Default for Count {
    fn default() -> Self {
        Self::Of(0)
    }
}

/// A text that is no rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not a count.
    #[error("{0:?} is not a number of snapshots: expected 0, 1, 2… or `unlimited`")]
    Count(String),
    /// Not a duration.
    #[error("{0:?} is not a duration: expected a form like 1y5m7d2h, with years, months, days and hours")]
    Duration(String),
}

impl FromStr for Count {
    type Err = PolicyError;

    /// A number, or `unlimited` (also `-1`).
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "unlimited" | "-1" => Ok(Self::Unlimited),
            _ => text.parse().map(Self::Of).map_err(|_| PolicyError::Count(text.to_owned())),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(count) => write!(f, "{count}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

impl Count {
    fn is_on(self) -> bool {
        self != Self::Of(0)
    }

    fn take(&mut self) {
        if let Self::Of(count) = self {
            *count = count.saturating_sub(1);
        }
    }
}

/// A duration in units of the calendar. All zero turns a rule off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CalendarDuration {
    /// Years.
    pub years: u32,
    /// Months.
    pub months: u32,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u32,
}

impl FromStr for CalendarDuration {
    type Err = PolicyError;

    /// Numbers with the units `y`, `m`, `d` and `h`, in any order, each at most once.
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let error = || PolicyError::Duration(text.to_owned());
        let mut duration = Self::default();
        let mut seen = [false; 4];
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let number = rest[..digits].parse().map_err(|_| error())?;
            let (place, field) = match rest.as_bytes().get(digits) {
                Some(b'y') => (0, &mut duration.years),
                Some(b'm') => (1, &mut duration.months),
                Some(b'd') => (2, &mut duration.days),
                Some(b'h') => (3, &mut duration.hours),
                _ => return Err(error()),
            };
            if std::mem::replace(&mut seen[place], true) {
                return Err(error());
            }
            *field = number;
            rest = &rest[digits + 1..];
        }
        Ok(duration)
    }
}

impl fmt::Display for CalendarDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl CalendarDuration {
    fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The moment so long before `from`, by the calendar of its offset; `None` before all time.
    ///
    /// A day that a month does not have runs over into the next month: a month before 31 October is 1 October.
    fn before(self, from: Timestamp) -> Option<Timestamp> {
        let local = local(from)?;
        let months = i64::from(local.year()) * 12 + i64::from(local.month()) - 1;
        let months = months - i64::from(self.years) * 12 - i64::from(self.months);
        let year = i16::try_from(months.div_euclid(12)).ok()?;
        let first = jiff::civil::Date::new(year, (months.rem_euclid(12) + 1) as i8, 1).ok()?;
        let days = i64::from(local.day()) - 1 - i64::from(self.days);
        let date = first.checked_add(SignedDuration::from_hours(days * 24)).ok()?;
        let moment = date.to_datetime(local.time()).checked_sub(SignedDuration::from_hours(self.hours.into())).ok()?;
        let offset = jiff::tz::Offset::from_seconds(i32::from(from.offset_minutes()) * 60).ok()?;
        Some(offset.to_timestamp(moment).ok()?.into())
    }
}

/// The time as a clock at its own offset shows it.
fn local(time: Timestamp) -> Option<DateTime> {
    let offset = jiff::tz::Offset::from_seconds(i32::from(time.offset_minutes()) * 60).ok()?;
    Some(offset.to_datetime(time.instant()?))
}

/// What to keep. A snapshot is kept if any rule keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeepPolicy {
    /// The newest snapshots.
    pub last: Count,
    /// The newest of each hour that has one.
    pub hourly: Count,
    /// The newest of each day.
    pub daily: Count,
    /// The newest of each week (Monday to Sunday).
    pub weekly: Count,
    /// The newest of each month.
    pub monthly: Count,
    /// The newest of each year.
    pub yearly: Count,
    /// All that are at most so much older than the newest.
    pub within: CalendarDuration,
    /// As `hourly`, of those at most so much older than the newest.
    pub within_hourly: CalendarDuration,
    /// As `daily`, likewise.
    pub within_daily: CalendarDuration,
    /// As `weekly`, likewise.
    pub within_weekly: CalendarDuration,
    /// As `monthly`, likewise.
    pub within_monthly: CalendarDuration,
    /// As `yearly`, likewise.
    pub within_yearly: CalendarDuration,
    /// All that have every tag of any of these lists.
    pub tags: Vec<TagList>,
}

impl KeepPolicy {
    /// Whether there is no rule at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a policy says of one snapshot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The snapshot.
    pub saved: SavedSnapshot,
    /// Whether it stays.
    pub keep: bool,
    /// Why, in restic's words; empty for one that goes.
    pub reasons: Vec<String>,
}

/// A stretch of time of which one snapshot is kept.
#[derive(Clone, Copy)]
enum Period {
    Each,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// What tells one period from the next.
type PeriodKey = (i64, i8, i8, i8);

impl Period {
    fn name(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// The period that the snapshot number `position` of that local time is in.
    fn key(self, time: DateTime, position: usize) -> PeriodKey {
        let year = i64::from(time.year());
        match self {
            Self::Each => (position as i64, 0, 0, 0),
            Self::Hour => (year, time.month(), time.day(), time.hour()),
            Self::Day => (year, time.month(), time.day(), 0),
            Self::Week => {
                let week = time.date().iso_week_date();
                (week.year().into(), week.week(), 0, 0)
            }
            Self::Month => (year, time.month(), 0, 0),
            Self::Year => (year, 0, 0, 0),
        }
    }
}

/// A rule that keeps one snapshot of each period.
struct Rule {
    period: Period,
    last: Option<PeriodKey>,
}

impl Rule {
    fn new(period: Period) -> Self {
        Self { period, last: None }
    }

    /// Whether this snapshot is its period's, and the prefix of the reason. The oldest of all is kept, too: it makes
    /// the history as long as the rule allows.
    fn keeps(&mut self, time: DateTime, position: usize, is_oldest: bool) -> Option<&'static str> {
        let key = self.period.key(time, position);
        let is_new = self.last.replace(key) != Some(key);
        match (is_new, is_oldest) {
            (true, _) => Some(""),
            (false, true) => Some("oldest "),
            (false, false) => None,
        }
    }
}

/// Says of every snapshot of a group whether `policy` keeps it; newest first.
///
/// "Newest" is the newest that is not after `now`: a wrong clock must not push everything out of the window.
pub fn apply_policy(mut snapshots: Vec<SavedSnapshot>, policy: &KeepPolicy, now: jiff::Timestamp) -> Vec<Decision> {
    snapshots.sort_by(|a, b| b.snapshot.time.cmp(&a.snapshot.time).then(a.id.cmp(&b.id)));
    let now = Timestamp::from(now);
    let newest = snapshots.iter().map(|saved| saved.snapshot.time).find(|time| *time < now).unwrap_or_default();
    let oldest = snapshots.len().saturating_sub(1);
    let KeepPolicy { last, hourly, daily, weekly, monthly, yearly, .. } = *policy;
    let mut counted = [
        (last, Rule::new(Period::Each)),
        (hourly, Rule::new(Period::Hour)),
        (daily, Rule::new(Period::Day)),
        (weekly, Rule::new(Period::Week)),
        (monthly, Rule::new(Period::Month)),
        (yearly, Rule::new(Period::Year)),
    ];
    let mut within = [
        (policy.within_hourly, Rule::new(Period::Hour)),
        (policy.within_daily, Rule::new(Period::Day)),
        (policy.within_weekly, Rule::new(Period::Week)),
        (policy.within_monthly, Rule::new(Period::Month)),
        (policy.within_yearly, Rule::new(Period::Year)),
    ];
    let is_within = |duration: CalendarDuration, time: Timestamp| {
        !duration.is_zero() && duration.before(newest).is_none_or(|start| time > start)
    };
    let decide = |(position, saved): (usize, SavedSnapshot)| {
        let time = saved.snapshot.time;
        let is_oldest = position == oldest;
        let mut reasons = Vec::new();
        for list in policy.tags.iter().filter(|list| saved.snapshot.has_tags(list)) {
            reasons.push(format!("has tags [{}]", list.0.join(", ")));
        }
        if is_within(policy.within, time) {
            reasons.push(format!("within {}", policy.within));
        }
        // A time that no calendar has is kept by none of the rules below that count periods, save one for all such.
        let clock = local(time).unwrap_or_default();
        for (count, rule) in counted.iter_mut().filter(|(count, _)| count.is_on()) {
            if let Some(prefix) = rule.keeps(clock, position, is_oldest) {
                count.take();
                reasons.push(format!("{prefix}{} snapshot", rule.period.name()));
            }
        }
        for (duration, rule) in &mut within {
            if is_within(*duration, time)
                && let Some(prefix) = rule.keeps(clock, position, is_oldest)
            {
                reasons.push(format!("{prefix}{} within {duration}", rule.period.name()));
            }
        }
        Decision { saved, keep: !reasons.is_empty(), reasons }
    };
    snapshots.into_iter().enumerate().map(decide).collect()
}

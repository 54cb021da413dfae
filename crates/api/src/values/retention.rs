//! Which snapshots are kept.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Which snapshots a clean-up keeps: a snapshot that any rule keeps stays. The rules are those of `restic forget`.
///
/// A policy without any rule keeps everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionPolicy {
    /// Name by which `fileGroups` refer to the policy; elsewhere it is only a label for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Keep the last so many snapshots; -1 keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<KeepCount>,
    /// Keep the last snapshot of each of the last so many hours that have one; -1 keeps one for every hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<KeepCount>,
    /// Keep the last snapshot of each of the last so many days that have one; -1 keeps one for every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<KeepCount>,
    /// Keep the last snapshot of each of the last so many weeks that have one; -1 keeps one for every week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<KeepCount>,
    /// Keep the last snapshot of each of the last so many months that have one; -1 keeps one for every month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<KeepCount>,
    /// Keep the last snapshot of each of the last so many years that have one; -1 keeps one for every year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<KeepCount>,
    /// Keep snapshots that carry all tags of any of these lists; the tags of one list are separated by commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// Keep snapshots made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within: Option<CalendarSpan>,
    /// Keep one snapshot per hour made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within_hourly: Option<CalendarSpan>,
    /// Keep one snapshot per day made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within_daily: Option<CalendarSpan>,
    /// Keep one snapshot per week made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within_weekly: Option<CalendarSpan>,
    /// Keep one snapshot per month made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within_monthly: Option<CalendarSpan>,
    /// Keep one snapshot per year made within this span before the latest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_within_yearly: Option<CalendarSpan>,
    /// Also delete the data that no snapshot needs any more. Default: false, which frees no space.
    #[serde(default)]
    pub prune: bool,
    /// Only report what would be deleted. Default: false.
    #[serde(default)]
    pub dry_run: bool,
}

impl RetentionPolicy {
    /// Whether no rule is set, so that every snapshot stays. A count of zero sets no rule, as in restic.
    pub fn keeps_everything(&self) -> bool {
        let Self {
            name: _,
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
            keep_tags,
            keep_within,
            keep_within_hourly,
            keep_within_daily,
            keep_within_weekly,
            keep_within_monthly,
            keep_within_yearly,
            prune: _,
            dry_run: _,
        } = self;
        let counts = [keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly];
        let spans = [
            keep_within,
            keep_within_hourly,
            keep_within_daily,
            keep_within_weekly,
            keep_within_monthly,
            keep_within_yearly,
        ];
        keep_tags.is_empty()
            && counts.iter().all(|count| count.is_none_or(|count| count == KeepCount::Newest(0)))
            && spans.iter().all(|span| span.is_none_or(|span| span == CalendarSpan::default()))
    }
}

/// The retention policy of the first generation of `Restic`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyRetentionPolicy {
    /// Keep the last so many snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_last_snapshots: Option<KeepCount>,
    /// Keep one snapshot for each of the last so many hours that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_hourly_snapshots: Option<KeepCount>,
    /// Keep one snapshot for each of the last so many days that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_daily_snapshots: Option<KeepCount>,
    /// Keep one snapshot for each of the last so many weeks that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_weekly_snapshots: Option<KeepCount>,
    /// Keep one snapshot for each of the last so many months that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_monthly_snapshots: Option<KeepCount>,
    /// Keep one snapshot for each of the last so many years that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_yearly_snapshots: Option<KeepCount>,
    /// Keep snapshots that carry all tags of any of these lists; the tags of one list are separated by commas.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep_tags: Vec<String>,
    /// Apply the policy only to snapshots of this host. Default: all hosts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_hostname: Option<String>,
    /// Apply the policy only to snapshots that carry all of these tags. Default: all snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retain_tags: Vec<String>,
}

impl LegacyRetentionPolicy {
    /// The rules in today's form; `retainHostname` and `retainTags` select snapshots and are no rules.
    pub fn rules(&self) -> RetentionPolicy {
        RetentionPolicy {
            keep_last: self.keep_last_snapshots,
            keep_hourly: self.keep_hourly_snapshots,
            keep_daily: self.keep_daily_snapshots,
            keep_weekly: self.keep_weekly_snapshots,
            keep_monthly: self.keep_monthly_snapshots,
            keep_yearly: self.keep_yearly_snapshots,
            keep_tags: self.keep_tags.clone(),
            ..RetentionPolicy::default()
        }
    }
}

/// How many snapshots a rule keeps. Written as a number; -1 is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepCount {
    /// All of them.
    All,
    /// The newest so many.
    Newest(u32),
}

/// Why a number is no [`KeepCount`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} snapshots cannot be kept: expected 0 or more, or -1 for all")]
pub struct RetentionError(i64);

impl TryFrom<i64> for KeepCount {
    type Error = RetentionError;

    fn try_from(count: i64) -> Result<Self, RetentionError> {
        match count {
            -1 => Ok(Self::All),
            _ => u32::try_from(count).map(Self::Newest).map_err(|_| RetentionError(count)),
        }
    }
}

impl fmt::Display for KeepCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Newest(count) => count.fmt(f),
        }
    }
}

impl Serialize for KeepCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_i64(-1),
            Self::Newest(count) => serializer.serialize_u32(*count),
        }
    }
}

impl<'de> Deserialize<'de> for KeepCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        i64::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

impl JsonSchema for KeepCount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KeepCount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "format": "int64", "minimum": -1, "maximum": u32::MAX})
    }
}

/// A span of calendar units such as `1y6m7d12h`: years, months, days, hours, each once and in this order.
///
/// Here `m` is a month, as in restic; a [`super::Duration`] reads it as a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CalendarSpan {
    /// Years.
    pub years: u16,
    /// Months.
    pub months: u16,
    /// Days.
    pub days: u16,
    /// Hours.
    pub hours: u16,
}

/// Why a text is no [`CalendarSpan`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a span of years (y), months (m), days (d) and hours (h): expected numbers with units in this order, such as 1y6m7d12h"
)]
pub struct CalendarSpanError(String);

impl FromStr for CalendarSpan {
    type Err = CalendarSpanError;

    fn from_str(text: &str) -> Result<Self, CalendarSpanError> {
        let error = || CalendarSpanError(text.to_owned());
        let mut rest = text;
        let mut take = |unit| take_number(&mut rest, unit).ok_or_else(error);
        let (years, months, days, hours) = (take('y')?, take('m')?, take('d')?, take('h')?);
        if text.is_empty() || !rest.is_empty() {
            return Err(error());
        }
        Ok(Self { years, months, days, hours })
    }
}

/// Takes the number before `unit` off the front of `rest`; zero when another unit or none comes first.
fn take_number(rest: &mut &str, unit: char) -> Option<u16> {
    let (number, after) = rest.split_at(rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    match after.strip_prefix(unit) {
        Some(after) => {
            *rest = after;
            number.parse().ok()
        }
        None => Some(0),
    }
}

impl fmt::Display for CalendarSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::default() {
            return f.write_str("0h");
        }
        for (number, unit) in [(self.years, 'y'), (self.months, 'm'), (self.days, 'd'), (self.hours, 'h')] {
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for CalendarSpan {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CalendarSpan {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for CalendarSpan {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CalendarSpan".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "holdfast-calendar-span",
            "pattern": r"^([0-9]+y)?([0-9]+m)?([0-9]+d)?([0-9]+h)?$",
            "minLength": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_the_policy_of_both_generations() {
        let policy: RetentionPolicy =
            serde_json::from_value(json!({"name": "keep-last-5", "keepLast": 5, "keepWithin": "1y6m", "prune": true}))
                .unwrap();
        assert_eq!(policy.keep_last, Some(KeepCount::Newest(5)));
        assert!(policy.prune && !policy.keeps_everything());

        let legacy: LegacyRetentionPolicy = serde_json::from_value(
            json!({"keepLastSnapshots": 1, "keepHourlySnapshots": 2, "keepDailySnapshots": 3, "keepWeeklySnapshots": 4,
                "keepMonthlySnapshots": 5, "keepYearlySnapshots": 6, "keepTags": ["a,b"], "retainHostname": "h", "retainTags": ["t"]}),
        )
        .unwrap();
        let rules = legacy.rules();
        let counts = [
            rules.keep_last,
            rules.keep_hourly,
            rules.keep_daily,
            rules.keep_weekly,
            rules.keep_monthly,
            rules.keep_yearly,
        ];
        assert_eq!(counts, [1, 2, 3, 4, 5, 6].map(|n| Some(KeepCount::Newest(n))));
        assert_eq!(rules.keep_tags, ["a,b"]);
    }

    #[test]
    fn a_policy_without_rules_keeps_everything() {
        for given in [json!({}), json!({"prune": true, "name": "n"}), json!({"keepLast": 0, "keepWithin": "0d"})] {
            assert!(serde_json::from_value::<RetentionPolicy>(given.clone()).unwrap().keeps_everything(), "{given}");
        }
        for given in [json!({"keepLast": -1}), json!({"keepTags": ["x"]}), json!({"keepWithinYearly": "1y"})] {
            assert!(!serde_json::from_value::<RetentionPolicy>(given.clone()).unwrap().keeps_everything(), "{given}");
        }
    }

    #[test]
    fn counts_below_minus_one_are_errors() {
        assert_eq!(KeepCount::try_from(-1), Ok(KeepCount::All));
        assert_eq!(serde_json::to_value(KeepCount::All).unwrap(), json!(-1));
        let error = serde_json::from_value::<KeepCount>(json!(-2)).unwrap_err().to_string();
        assert_eq!(error, "-2 snapshots cannot be kept: expected 0 or more, or -1 for all");
        assert!(serde_json::from_value::<KeepCount>(json!(1_i64 << 40)).is_err());
    }

    #[test]
    fn spans_read_and_print() {
        for text in ["1y6m7d12h", "2y", "30d", "0h", "65535h"] {
            assert_eq!(text.parse::<CalendarSpan>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1w", "1d1y", "1d2d", "y", "-1d", "1 d", "65536d", "1é"] {
            assert_eq!(text.parse::<CalendarSpan>(), Err(CalendarSpanError(text.to_owned())), "{text}");
        }
    }
}

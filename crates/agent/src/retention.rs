//! Retention after a backup: which snapshots go, and the space they took.

use std::sync::Arc;

use holdfast_api::values::{CalendarSpan, KeepCount, RetentionPolicy};
use holdfast_plan::Retention;
use holdfast_repository::forget::{CalendarDuration, Count, ForgetOptions, KeepPolicy, forget};
use holdfast_repository::format::snapshot::{GroupBy, SnapshotFilter, TagList};
use holdfast_repository::prune::{PruneOptions, prune};
use holdfast_repository::{LockOptions, Monitor, Repository, Result};

/// Applies a policy; returns how many snapshots went.
pub fn apply(
    repository: &Arc<Repository>,
    retention: &Retention,
    lock: &LockOptions,
    monitor: &Monitor,
) -> Result<u64> {
    let Retention { host, tags, paths, policy } = retention;
    let options = ForgetOptions {
        policy: keep_policy(policy),
        filter: SnapshotFilter {
            hosts: vec![host.clone()],
            tags: if tags.is_empty() { Vec::new() } else { vec![TagList(tags.clone())] },
            paths: paths.clone(),
        },
        // All that the filter lets through is one history, whatever paths it had over time.
        group_by: GroupBy { host: false, paths: false, tags: false },
        dry_run: policy.dry_run,
        lock: lock.clone(),
        ..ForgetOptions::default()
    };
    let report = forget(repository, &options, monitor)?;
    if policy.prune && !policy.dry_run && !report.removed.is_empty() {
        prune(repository, &PruneOptions { lock: lock.clone(), ..PruneOptions::default() }, monitor)?;
    }
    Ok(if policy.dry_run { 0 } else { report.removed.len() as u64 })
}

fn keep_policy(policy: &RetentionPolicy) -> KeepPolicy {
    let count = |count: Option<KeepCount>| match count {
        None => Count::Of(0),
        Some(KeepCount::All) => Count::Unlimited,
        Some(KeepCount::Newest(newest)) => Count::Of(newest),
    };
    let span = |span: Option<CalendarSpan>| span.map_or_else(CalendarDuration::default, calendar_duration);
    KeepPolicy {
        last: count(policy.keep_last),
        hourly: count(policy.keep_hourly),
        daily: count(policy.keep_daily),
        weekly: count(policy.keep_weekly),
        monthly: count(policy.keep_monthly),
        yearly: count(policy.keep_yearly),
        within: span(policy.keep_within),
        within_hourly: span(policy.keep_within_hourly),
        within_daily: span(policy.keep_within_daily),
        within_weekly: span(policy.keep_within_weekly),
        within_monthly: span(policy.keep_within_monthly),
        within_yearly: span(policy.keep_within_yearly),
        // Tags with commas between them must all be there, as restic's --keep-tag has it.
        tags: policy.keep_tags.iter().map(|tags| TagList(tags.split(',').map(str::to_owned).collect())).collect(),
    }
}

fn calendar_duration(span: CalendarSpan) -> CalendarDuration {
    let CalendarSpan { years, months, days, hours } = span;
    CalendarDuration { years: years.into(), months: months.into(), days: days.into(), hours: hours.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_rule_of_a_policy_counts() {
        let schema = schemars::schema_for!(RetentionPolicy).to_value();
        let fields: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let rules = fields.into_iter().filter(|field| !["name", "prune", "dryRun"].contains(&field.as_str()));
        for field in rules {
            let policy = [json!(5), json!("1d"), json!(["a"])].into_iter().find_map(|value| {
                let policy = serde_json::from_value(json!({"name": "p", field: value}));
                policy.ok().map(|policy: RetentionPolicy| keep_policy(&policy))
            });
            assert!(policy.is_some_and(|policy| policy != KeepPolicy::default()), "{field}");
        }
    }
}

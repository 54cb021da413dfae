//! The keep rules, held against restic's own decisions.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::format::snapshot::{Snapshot, TagList};
use crate::format::time::Timestamp;

#[path = "../../tests/oracle/mod.rs"]
mod oracle;

fn snapshot(time: &str, tags: &[&str]) -> SavedSnapshot {
    let json = format!(r#"{{"time":"{time}","tree":"{}","paths":["/p"],"hostname":"h"}}"#, "0".repeat(64));
    let mut snapshot = Snapshot::parse(json.as_bytes()).unwrap();
    snapshot.add_tags(tags.iter().copied());
    SavedSnapshot { id: Id::of(format!("{time}{tags:?}").as_bytes()), snapshot }
}

#[track_caller]
fn check(times: &[&str], policy: KeepPolicy, want: &[(&str, &[&str])]) {
    let snapshots = times.iter().map(|time| snapshot(time, &[])).collect();
    let now = "2030-01-01T00:00:00Z".parse().unwrap();
    let kept: Vec<_> = apply_policy(snapshots, &policy, now)
        .into_iter()
        .filter(|decision| decision.keep)
        .map(|decision| (decision.saved.snapshot.time.to_string(), decision.reasons))
        .collect();
    let want: Vec<(String, Vec<String>)> =
        want.iter().map(|(time, why)| ((*time).into(), why.iter().map(|why| (*why).into()).collect())).collect();
    assert_eq!(kept, want);
}

#[test]
fn keeps_the_newest_of_each_period_and_the_oldest_of_all() {
    let times = ["2026-01-01T01:00:00Z", "2026-01-01T23:00:00Z", "2026-01-02T01:00:00Z", "2026-01-02T02:00:00Z"];
    check(
        &times,
        KeepPolicy { daily: Count::Of(3), ..KeepPolicy::default() },
        &[(times[3], &["daily snapshot"]), (times[1], &["daily snapshot"]), (times[0], &["oldest daily snapshot"])],
    );
}

#[test]
fn a_snapshot_of_the_future_does_not_move_the_window() {
    let times = ["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2040-01-01T00:00:00Z"];
    let within = "1d1h".parse().unwrap();
    check(
        &times,
        KeepPolicy { within, ..KeepPolicy::default() },
        &[(times[2], &["within 1d1h"]), (times[1], &["within 1d1h"])],
    );
}

#[test]
fn a_day_that_a_month_lacks_runs_over() {
    // A month before 31 March is "31 February", which is 3 March.
    let times = ["2026-03-03T00:00:00Z", "2026-03-03T00:00:01Z", "2026-03-31T00:00:00Z"];
    let within = "1m".parse().unwrap();
    let policy = KeepPolicy { within, ..KeepPolicy::default() };
    check(&times, policy, &[(times[2], &["within 1m"]), (times[1], &["within 1m"])]);
}

#[test]
fn durations_and_counts() {
    let duration: CalendarDuration = "2h1y5m7d".parse().unwrap();
    assert_eq!(duration.to_string(), "1y5m7d2h");
    for text in ["1", "y", "1x", "1y2y", "-1d", "99999999999d", "1d "] {
        assert!(text.parse::<CalendarDuration>().is_err(), "{text}");
    }
    assert_eq!("unlimited".parse(), Ok(Count::Unlimited));
    assert_eq!("7".parse(), Ok(Count::Of(7)));
    assert!("-2".parse::<Count>().is_err());
}

fn any_snapshot() -> impl Strategy<Value = (i64, i16, u8, u8)> {
    // Dense enough that many share an hour, a day, a week; the offset shifts their calendars.
    let time = prop_oneof![0i64..200_000, 0i64..6_000_000, 0i64..100_000_000];
    (time, prop_oneof![Just(0i16), Just(330), Just(-480)], 0u8..4, 0u8..2)
}

fn any_policy() -> impl Strategy<Value = KeepPolicy> {
    let count =
        || prop_oneof![3 => Just(Count::Of(0)), 2 => (1u32..6).prop_map(Count::Of), 1 => Just(Count::Unlimited)];
    let within =
        || {
            let some = (0u32..2, 0u32..8, 0u32..40, 0u32..50)
                .prop_map(|(years, months, days, hours)| CalendarDuration { years, months, days, hours });
            prop_oneof![3 => Just(CalendarDuration::default()), 1 => some]
        };
    let tags = prop_oneof![2 => Just(vec![]), 1 => Just(vec!["a"]), 1 => Just(vec!["a,b", "c"])];
    let counts = (count(), count(), count(), count(), count(), count());
    (counts, (within(), within(), within(), within(), within(), within()), tags).prop_map(|(counts, within, tags)| {
        let (last, hourly, daily, weekly, monthly, yearly) = counts;
        let (within, within_hourly, within_daily, within_weekly, within_monthly, within_yearly) = within;
        let tags = tags.iter().map(|tags| tags.parse::<TagList>().unwrap()).collect();
        KeepPolicy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
            within_hourly,
            within_daily,
            within_weekly,
            within_monthly,
            within_yearly,
            tags,
        }
    })
}

fn restic_options(policy: &KeepPolicy) -> Vec<String> {
    let counts = [
        ("last", policy.last),
        ("hourly", policy.hourly),
        ("daily", policy.daily),
        ("weekly", policy.weekly),
        ("monthly", policy.monthly),
        ("yearly", policy.yearly),
    ];
    let within = [
        ("within", policy.within),
        ("within-hourly", policy.within_hourly),
        ("within-daily", policy.within_daily),
        ("within-weekly", policy.within_weekly),
        ("within-monthly", policy.within_monthly),
        ("within-yearly", policy.within_yearly),
    ];
    let counts =
        counts.iter().filter(|(_, count)| *count != Count::Of(0)).map(|(name, count)| format!("--keep-{name}={count}"));
    let within = within.iter().filter(|(_, within)| *within != CalendarDuration::default());
    let within = within.map(|(name, within)| format!("--keep-{name}={within}"));
    let tags = policy.tags.iter().map(|tags| format!("--keep-tag={tags}"));
    counts.chain(within).chain(tags).collect()
}

/// Every snapshot of every group with its reasons; those that go have none.
type Verdict = std::collections::BTreeMap<String, Vec<String>>;

fn ours(repository: &Arc<Repository>, policy: &KeepPolicy, group_by: &str) -> Option<Verdict> {
    let options = ForgetOptions {
        policy: policy.clone(),
        group_by: group_by.parse().unwrap(),
        dry_run: true,
        ..ForgetOptions::default()
    };
    let report = match forget(repository, &options, &Monitor::default()) {
        Ok(report) => report,
        Err(Error::Selection(_)) => return None,
        Err(error) => panic!("{error}"),
    };
    let decisions = report.groups.into_iter().flat_map(|group| group.decisions);
    Some(decisions.map(|decision| (decision.saved.id.to_string(), decision.reasons)).collect())
}

fn restics(bench: &oracle::Bench, policy: &KeepPolicy, group_by: &str) -> Option<Verdict> {
    let group_by = format!("--group-by={group_by}");
    let options = restic_options(policy);
    let mut args = vec!["forget", "--dry-run", "--json", &group_by];
    args.extend(options.iter().map(String::as_str));
    let output = bench.restic(&args);
    if !output.status.success() {
        return None;
    }
    let groups: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut verdict = Verdict::new();
    for group in groups.as_array().unwrap() {
        for reason in group["reasons"].as_array().into_iter().flatten() {
            let matches = reason["matches"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned());
            let time = reason["snapshot"]["time"].as_str().unwrap();
            let kept = group["keep"].as_array().into_iter().flatten();
            let id = kept.filter(|kept| kept["time"] == time).map(|kept| kept["id"].as_str().unwrap()).next().unwrap();
            verdict.insert(id.to_owned(), matches.collect());
        }
        for removed in group["remove"].as_array().into_iter().flatten() {
            verdict.insert(removed["id"].as_str().unwrap().to_owned(), vec![]);
        }
    }
    Some(verdict)
}

#[test]
fn restic_decides_the_same_for_the_same_reasons() {
    let case = (prop::collection::vec(any_snapshot(), 1..40), prop::collection::vec(any_policy(), 6));
    let mut runner =
        TestRunner::new(Config { cases: 12, max_shrink_iters: 40, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&case, |(snapshots, policies)| {
        let bench = oracle::Bench::new(2);
        let repository = bench_repository(&bench);
        // Equal times would leave the order open.
        let mut seconds = std::collections::HashSet::new();
        for (after, offset, tags, host) in snapshots.into_iter().filter(|snapshot| seconds.insert(snapshot.0)) {
            let start: jiff::Timestamp = "2021-12-30T20:00:00Z".parse().unwrap();
            let zone = jiff::tz::TimeZone::fixed(jiff::tz::Offset::from_seconds(i32::from(offset) * 60).unwrap());
            let time = start + jiff::SignedDuration::from_secs(after);
            let time = Timestamp::from(&time.to_zoned(zone));
            let tags: &[&str] = [&["a"][..], &["a", "b"], &["c"], &[]][usize::from(tags)];
            let mut saved = snapshot("2020-01-01T00:00:00Z", tags).snapshot;
            saved.time = time;
            saved.hostname = format!("host{host}");
            repository.save_file(FileKind::Snapshot, &saved.to_json().unwrap()).unwrap();
        }
        for (policy, group_by) in policies.iter().zip(["host,paths", "", "tags", "host", "host,paths", "paths,tags"]) {
            let (ours, restics) = (ours(&repository, policy, group_by), restics(&bench, policy, group_by));
            prop_assert_eq!(ours, restics, "grouped by {:?}, {:?}", group_by, restic_options(policy));
        }
        Ok(())
    });
    outcome.unwrap();
}

/// The test's helper links the library as others see it; this opens the same repository from within.
fn bench_repository(bench: &oracle::Bench) -> Arc<Repository> {
    let store = Arc::new(holdfast_store::LocalStore::open(bench.repository_path()).unwrap());
    Arc::new(Repository::open(store, oracle::PASSWORD, crate::OpenOptions::default()).unwrap())
}

#[test]
fn a_policy_that_keeps_nothing_is_refused() {
    let bench = oracle::Bench::new(2);
    let repository = bench_repository(&bench);
    repository
        .save_file(FileKind::Snapshot, &snapshot("2020-01-01T00:00:00Z", &[]).snapshot.to_json().unwrap())
        .unwrap();
    let policy = KeepPolicy { tags: vec!["other".parse().unwrap()], ..KeepPolicy::default() };
    for options in [
        ForgetOptions::default(),
        ForgetOptions { policy: policy.clone(), ..ForgetOptions::default() },
        ForgetOptions { policy, allow_remove_all: true, ..ForgetOptions::default() },
        ForgetOptions { allow_remove_all: true, ..ForgetOptions::default() },
    ] {
        let error = forget(&repository, &options, &Monitor::default()).unwrap_err();
        assert!(error.to_string().contains("nothing was removed"), "{error}");
    }
    assert_eq!(repository.list(FileKind::Snapshot).unwrap().len(), 1);
    let filter = SnapshotFilter { hosts: vec!["h".into()], ..SnapshotFilter::default() };
    let options = ForgetOptions { allow_remove_all: true, filter, ..ForgetOptions::default() };
    assert_eq!(forget(&repository, &options, &Monitor::default()).unwrap().removed.len(), 1);
    assert!(repository.list(FileKind::Snapshot).unwrap().is_empty());
    assert!(repository.list(FileKind::Lock).unwrap().is_empty());
}

#[test]
fn named_snapshots_go_whether_or_not_they_can_be_read() {
    let bench = oracle::Bench::new(2);
    let repository = bench_repository(&bench);
    let save =
        |time| repository.save_file(FileKind::Snapshot, &snapshot(time, &[]).snapshot.to_json().unwrap()).unwrap();
    let ids = ["2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z", "2022-01-01T00:00:00Z"].map(save);
    let path = bench.repository_path().join(FileKind::Snapshot.path(&ids[0]));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "damaged").unwrap();
    let named = |names: &[String]| ForgetOptions { snapshots: names.to_vec(), ..ForgetOptions::default() };
    let forget = |options: &ForgetOptions| forget(&repository, options, &Monitor::default());
    // With one unreadable nobody can tell which is the latest.
    forget(&named(&["latest".into()])).unwrap_err();
    // One that is not there: nothing goes.
    forget(&named(&[ids[1].to_string(), "ffffffff".into()])).unwrap_err();
    assert_eq!(repository.list(FileKind::Snapshot).unwrap().len(), 3);
    assert_eq!(forget(&named(&[ids[0].to_string(), ids[0].short().to_string()])).unwrap().removed, [ids[0]]);
    assert_eq!(forget(&named(&["latest".into()])).unwrap().removed, [ids[2]]);
    assert_eq!(repository.list(FileKind::Snapshot).unwrap(), [ids[1]]);
}

//! Schedules against calendars with holes, repeats and missed runs.

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn timing(schedule: &str) -> Timing {
    schedule.parse::<Schedule>().unwrap().timing(None, None, "name")
}

/// The moments after `from`, one after the other.
fn check_next(schedule: &str, from: &str, expect: &[&str]) {
    let timing = timing(schedule);
    let mut run = at(from);
    for moment in expect {
        run = timing.next_after(run).unwrap();
        assert_eq!(run, at(moment), "{schedule}");
    }
}

#[test]
fn five_fields() {
    check_next("30 2 * * *", "2026-01-01T00:00:00Z", &["2026-01-01T02:30:00Z", "2026-01-02T02:30:00Z"]);
    check_next("*/15 * * * *", "2026-01-01T00:07:01.5Z", &["2026-01-01T00:15:00Z", "2026-01-01T00:30:00Z"]);
    check_next("5/20 * * * *", "2026-01-01T00:00:00Z", &["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"]);
    check_next("0 9 * JAN MON-FRI", "2026-01-02T09:00:00Z", &["2026-01-05T09:00:00Z"]);
    check_next("0 0 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-29T00:00:00Z"]);
    check_next("0 0 L * ?", "2026-02-01T00:00:00Z", &["2026-02-28T00:00:00Z"]);
    // As in every cron: with both days restricted, either fits.
    check_next(
        "0 0 13 * 5",
        "2026-01-01T00:00:00Z",
        &["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z", "2026-01-13T00:00:00Z"],
    );
}

#[test]
fn six_fields_start_with_the_second() {
    check_next("0 * * * * *", "2026-01-01T00:00:00Z", &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]);
    check_next(
        "*/20 0 0 * * *",
        "2026-01-01T00:00:00Z",
        &["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z", "2026-01-02T00:00:00Z"],
    );
}

#[test]
fn names() {
    let from = "2026-01-01T00:00:00Z"; // a Thursday
    check_next("@hourly", from, &["2026-01-01T01:00:00Z"]);
    check_next("@daily", from, &["2026-01-02T00:00:00Z"]);
    check_next("@midnight", from, &["2026-01-02T00:00:00Z"]);
    check_next("@weekly", from, &["2026-01-04T00:00:00Z"]);
    check_next("@monthly", from, &["2026-02-01T00:00:00Z"]);
    check_next("@yearly", from, &["2027-01-01T00:00:00Z"]);
    check_next("@annually", from, &["2027-01-01T00:00:00Z"]);
}

#[test]
fn every_counts_from_the_last_run() {
    check_next("@every 1h30m", "2026-01-01T00:07:13Z", &["2026-01-01T01:37:13Z", "2026-01-01T03:07:13Z"]);
    check_next("@every  2d", "2026-01-01T00:00:00Z", &["2026-01-03T00:00:00Z"]);
}

#[test]
fn the_time_zone_is_in_the_text_or_beside_it() {
    check_next("CRON_TZ=Europe/Berlin 0 3 * * *", "2026-01-01T00:00:00Z", &["2026-01-01T02:00:00Z"]);
    check_next("TZ=Asia/Tokyo @daily", "2026-01-01T00:00:00Z", &["2026-01-01T15:00:00Z"]);

    let berlin = "Europe/Berlin".parse().unwrap();
    let next = |schedule: &str| {
        let timing = schedule.parse::<Schedule>().unwrap().timing(Some(&berlin), None, "name");
        timing.next_after(at("2026-07-01T00:00:00Z")).unwrap()
    };
    assert_eq!(next("0 3 * * *"), at("2026-07-01T01:00:00Z"));
    assert_eq!(next("TZ=UTC 0 3 * * *"), at("2026-07-01T03:00:00Z"));
}

// In Berlin the clock goes from 02:00 to 03:00 on 2026-03-29 at 01:00 UTC, and from 03:00 to 02:00 on 2026-10-25 at
// 01:00 UTC.

#[test]
fn a_fixed_time_in_the_gap_of_spring_runs_once_right_after_it() {
    check_next(
        "TZ=Europe/Berlin 30 2 * * *",
        "2026-03-28T00:00:00Z",
        &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    );
}

#[test]
fn a_fixed_time_in_the_repeated_hour_of_autumn_runs_once() {
    check_next(
        "TZ=Europe/Berlin 30 2 * * *",
        "2026-10-24T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    );
}

#[test]
fn a_wildcard_follows_the_wall_clock() {
    check_next("TZ=Europe/Berlin 0 * * * *", "2026-03-29T00:00:00Z", &["2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z"]);
    check_next(
        "TZ=Europe/Berlin 0 * * * *",
        "2026-10-24T23:30:00Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
    );
}

#[test]
fn every_knows_no_change_of_the_clock() {
    let berlin = "Europe/Berlin".parse().unwrap();
    let timing = "@every 24h".parse::<Schedule>().unwrap().timing(Some(&berlin), None, "name");
    assert_eq!(timing.next_after(at("2026-03-28T12:00:00Z")), Some(at("2026-03-29T12:00:00Z")));
}

#[test]
fn midnight_that_does_not_exist_is_made_up_for() {
    // In Santiago the clock goes from 24:00 to 01:00 on 2026-09-06 at 04:00 UTC.
    check_next("TZ=America/Santiago @daily", "2026-09-05T12:00:00Z", &["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"]);
}

#[test]
fn runs_that_were_missed_are_due_once() {
    let timing = timing("0 * * * *");
    let (created, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-05T12:10:00Z"));
    assert_eq!(timing.due(Some(at("2026-01-01T03:00:00Z")), created, now), Due::Now(at("2026-01-01T04:00:00Z")));
    assert_eq!(timing.due(Some(now), created, now), Due::At(at("2026-01-05T13:00:00Z")));
    // Never run: the moments since its creation count.
    assert_eq!(timing.due(None, created, now), Due::Now(at("2026-01-01T01:00:00Z")));
    assert_eq!(timing.due(None, now, now), Due::At(at("2026-01-05T13:00:00Z")));
}

#[test]
fn the_moment_itself_is_due() {
    let timing = timing("0 * * * *");
    let last = Some(at("2026-01-01T00:00:00Z"));
    let created = at("2025-01-01T00:00:00Z");
    let due = at("2026-01-01T01:00:00Z");
    assert_eq!(timing.due(last, created, due), Due::Now(due));
    assert_eq!(timing.due(last, created, at("2026-01-01T00:59:59.999Z")), Due::At(due));
    assert_eq!(timing.due(Some(due), created, due), Due::At(at("2026-01-01T02:00:00Z")));
}

#[test]
fn an_interval_is_due_at_once_and_then_after_each_run() {
    let timing = timing("@every 1h");
    let created = at("2026-01-01T00:00:00Z");
    assert_eq!(timing.due(None, created, created), Due::Now(created));
    let last = Some(at("2026-01-01T00:00:05Z"));
    assert_eq!(timing.due(last, created, at("2026-01-01T01:00:00Z")), Due::At(at("2026-01-01T01:00:05Z")));
    assert_eq!(timing.due(last, created, at("2026-01-09T00:00:00Z")), Due::Now(at("2026-01-01T01:00:05Z")));
}

#[test]
fn a_last_run_far_in_the_future_is_taken_as_none() {
    let timing = timing("@every 1h");
    let (created, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    assert_eq!(timing.due(Some(at("2031-01-01T00:00:00Z")), created, now), Due::Now(created));
    let slightly = at("2026-01-02T00:00:01Z");
    assert_eq!(timing.due(Some(slightly), created, now), Due::At(at("2026-01-02T01:00:01Z")));
}

#[test]
fn jitter_delays_by_a_fixed_part_of_the_span() {
    let hourly: Schedule = "@hourly".parse().unwrap();
    let jitter = Some(Duration::from_secs(600));
    let from = at("2026-01-01T00:30:00Z");
    let mut delays = Vec::new();
    for name in ["demo/a", "demo/b", "demo/c", "demo/d"] {
        let timing = hourly.timing(None, jitter, name);
        let first = timing.next_after(from).unwrap();
        let delay = first.duration_since(at("2026-01-01T01:00:00Z"));
        assert!(delay >= SignedDuration::ZERO && delay < SignedDuration::from_secs(600), "{name}: {delay}");
        // A run that started on time is followed by the one an hour later, not by a second of the same hour.
        assert_eq!(timing.next_after(first), Some(first + SignedDuration::from_hours(1)), "{name}");
        delays.push(delay);
    }
    delays.sort();
    delays.dedup();
    assert_eq!(delays.len(), 4, "{delays:?}");
    // Written out: another version of the program must not shift everyone's backups.
    assert_eq!(delay_within(Duration::from_secs(600), "demo/a"), SignedDuration::from_millis(526_914));
}

#[test]
fn jitter_delays_only_the_first_run_of_an_interval() {
    let every: Schedule = "@every 1h".parse().unwrap();
    let timing = every.timing(None, Some(Duration::from_secs(600)), "demo/a");
    let created = at("2026-01-01T00:00:00Z");
    let Due::Now(first) = timing.due(None, created, at("2026-01-02T00:00:00Z")) else { panic!("not due") };
    assert!(first > created);
    assert_eq!(timing.next_after(first), Some(first + SignedDuration::from_hours(1)));
}

#[test]
fn prints_as_written_and_survives_serde() {
    for text in ["30 2 * * *", "0 * * * * *", "@every 1h30m", "CRON_TZ=Europe/Berlin @daily"] {
        let schedule: Schedule = serde_json::from_value(text.into()).unwrap();
        assert_eq!(serde_json::to_value(&schedule).unwrap(), text);
    }
    assert_eq!(" @daily ".parse::<Schedule>().unwrap().to_string(), "@daily");
}

#[test]
fn errors_say_what_was_expected() {
    for (text, expect) in [
        ("", "but found 0 fields"),
        ("* * * *", "expected five cron fields (minute, hour, day of month, month, day of week)"),
        ("* * * * * * 2026", "but found 7 fields"),
        ("61 * * * *", "\"61\" is not a minute, expected 0 to 59"),
        ("0 24 * * *", "\"24\" is not a hour, expected 0 to 23"),
        ("0 0 32 * *", "\"32\" is not a day of month, expected 1 to 31"),
        ("0 0 0 * *", "\"0\" is not a day of month, expected 1 to 31"),
        ("0 0 1 13 *", "\"13\" is not a month, expected 1 to 12"),
        ("0 0 * * 8", "\"8\" is not a day of week, expected 0 to 7"),
        ("60 * * * * *", "\"60\" is not a second, expected 0 to 59"),
        ("*/0 * * * *", "\"*/0\" is not a minute"),
        ("a * * * *", "\"a\" is not a minute"),
        ("5-1 * * * *", "\"5-1\" is not a minute"),
        ("0 0 30 2 *", "no day of the calendar fits it"),
        ("@often", "expected @hourly, @daily"),
        ("@Daily", "expected @hourly, @daily"),
        ("@everyone", "expected @hourly, @daily"),
        ("@every", "expected @hourly, @daily"),
        ("@every soon", "\"soon\" is not a duration"),
        ("@every 100ms", "expected an interval of at least 1s"),
        ("@every 0", "expected an interval of at least 1s"),
        ("TZ=Berlin 0 3 * * *", "\"Berlin\" is not a time zone"),
        ("TZ=UTC", "but found 0 fields"),
        ("TZ=UTC @every 1h", "takes no time zone"),
    ] {
        let error = text.parse::<Schedule>().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{text:?} is not a schedule: ")), "{error}");
        assert!(error.contains(expect), "{text:?}: {error}");
    }
}

#[test]
fn no_text_makes_the_parser_panic() {
    let alphabet: Vec<char> = "0159 */,-?LW#+@TZ=everySUNJAé\u{0}".chars().collect();
    let mut state = 42_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..1_500 {
        let text: String = (0..next(16)).map(|_| alphabet[next(alphabet.len())]).collect();
        let _ = text.parse::<Schedule>();
        let _ = format!("{} * * * *", text.replace(' ', "")).parse::<Schedule>();
        let _ = format!("0 0 {} * {}", text.replace(' ', ""), next(9)).parse::<Schedule>();
    }
}

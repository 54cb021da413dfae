//! Ten days of a made-up machine: runs take time, some fail, the program is killed in the middle of some and
//! stays down for hours. Over all of it no two runs share a repository, nothing runs more often than its schedule and
//! its tries allow, and nothing is forgotten.
//!
//! The seed of a failing history is in the message; `SEED=<n>` replays one.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use holdfast_api::manifest::{self, Outcome};
use holdfast_plan::{Observed, PlannedBackup, Settings, plan};
use jiff::{SignedDuration, Timestamp};

const HISTORIES: u64 = 10;
const DAYS: i64 = 10;
const SLOTS: usize = 2;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn minutes(&mut self, max: u64) -> SignedDuration {
        SignedDuration::from_secs(60 + i64::try_from(self.next() % (max * 60)).unwrap())
    }
}

/// Six backups of one workload into three repositories, two of which are one directory.
fn folder() -> Outcome {
    let mut text = String::from(
        "apiVersion: v1
kind: Secret
metadata: {name: s, namespace: demo}
stringData: {RESTIC_PASSWORD: x}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: main, image: x, volumeMounts: [{name: data, mountPath: /data}]}]
      volumes: [{name: data, hostPath: {path: /srv}}]
",
    );
    for (name, path) in [("one", "/r/1"), ("same", "/r/1/"), ("two", "/r/2")] {
        write!(
            text,
            "---
apiVersion: stash.appscode.com/v1alpha2
kind: Repository
metadata: {{name: {name}, namespace: demo}}
spec: {{backend: {{storageSecretName: s, local: {{mountPath: /r, hostPath: {{path: {path}}}}}}}}}
"
        )
        .unwrap();
    }
    let schedules = ["@every 1h", "0 * * * *", "*/30 * * * *", "0 3 * * *", "@every 7h", "@hourly"];
    for (number, schedule) in schedules.iter().enumerate() {
        let repository = ["one", "same", "two"][number % 3];
        write!(
            text,
            "---
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {{name: b{number}, namespace: demo}}
spec:
  schedule: '{schedule}'
  jitter: 5m
  repository: {{name: {repository}}}
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
  targetDirectories: [/data]
"
        )
        .unwrap();
    }
    manifest::read([("folder.yaml", text.as_bytes())])
}

struct Run {
    ends: Timestamp,
    succeeds: bool,
}

struct Machine {
    random: Random,
    observed: Observed,
    running: BTreeMap<String, Run>,
    starts: BTreeMap<String, Vec<Timestamp>>,
    now: Timestamp,
}

impl Machine {
    fn start(&mut self, PlannedBackup { id, revision, .. }: &PlannedBackup, location: &str) {
        let ends = self.now.checked_add(self.random.minutes(20)).unwrap();
        let succeeds = !self.random.one_in(3);
        self.running.insert(id.clone(), Run { ends, succeeds });
        self.starts.entry(id.clone()).or_default().push(self.now);
        let before = self.observed.running.insert(id.clone(), location.to_owned());
        assert_eq!(before, None, "{id} runs twice at once");
        self.observed.backups.entry(id.clone()).or_default().begin(revision, self.now);
        let locations: BTreeSet<&String> = self.observed.running.values().collect();
        assert_eq!(locations.len(), self.observed.running.len(), "two runs on one repository");
        assert!(self.observed.running.len() <= SLOTS, "too many runs at once");
    }

    fn end_finished(&mut self) {
        let now = self.now;
        let finished: Vec<String> =
            self.running.iter().filter(|(_, run)| run.ends <= now).map(|(id, _)| id.clone()).collect();
        for id in finished {
            let run = self.running.remove(&id).unwrap();
            self.observed.running.remove(&id);
            let history = self.observed.backups.entry(id).or_default();
            history.last_end = Some(run.ends);
            if run.succeeds {
                history.last_success = Some(run.ends);
                history.attempts = 0;
            }
        }
    }

    /// The program is killed: what ran leaves no end, and nothing happens for a while.
    fn kill(&mut self) {
        self.running.clear();
        self.observed.running.clear();
        self.now = self.now.checked_add(self.random.minutes(600)).unwrap();
    }
}

fn history(outcome: &Outcome, seed: u64) {
    let begin: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
    let end = begin.checked_add(SignedDuration::from_hours(24 * DAYS)).unwrap();
    let mut machine = Machine {
        random: Random(seed),
        observed: Observed::default(),
        running: BTreeMap::new(),
        starts: BTreeMap::new(),
        now: begin,
    };
    let mut backups: Vec<PlannedBackup> = Vec::new();
    while machine.now < end {
        machine.end_finished();
        let mut settings = Settings::new(machine.now, "/manifests", "/volumes", "node");
        settings.slots = SLOTS;
        let plan = plan(outcome, &machine.observed, &settings);
        assert_eq!(plan.errors, []);
        for backup in &plan.backups {
            let history = machine.observed.backups.entry(backup.id.clone()).or_default();
            history.first_seen.get_or_insert(machine.now);
        }
        for due in plan.due.iter().filter(|due| due.waits_for.is_none()) {
            let backup = plan.backups.iter().find(|backup| backup.id == due.id).unwrap();
            let repository = plan.repositories.iter().find(|other| other.id == backup.repository).unwrap();
            machine.start(backup, &repository.location);
        }
        backups = plan.backups;
        if machine.random.one_in(50) {
            machine.kill();
            continue;
        }
        let next_end = machine.running.values().map(|run| run.ends).min();
        machine.now = next_end.into_iter().chain(plan.next).min().expect("there is always something to wait for");
    }
    check_starts(&backups, &machine.starts);
}

/// Every backup ran, and no more often than its schedule and its tries allow.
fn check_starts(backups: &[PlannedBackup], starts: &BTreeMap<String, Vec<Timestamp>>) {
    for backup in backups {
        let schedule = backup.schedule.as_deref().unwrap();
        let per_day = match schedule {
            "*/30 * * * *" => 48,
            "0 3 * * *" => 1,
            "@every 7h" => 4,
            _ => 24,
        };
        let starts = starts.get(&backup.id).map_or(0, Vec::len);
        let most = usize::try_from(DAYS).unwrap() * per_day * (1 + backup.retry.tries_max as usize);
        assert!(starts <= most, "{}: {starts} starts of {schedule} in {DAYS} days", backup.id);
        assert!(starts >= 3, "{}: only {starts} starts of {schedule} in {DAYS} days", backup.id);
    }
}

#[test]
fn nothing_collides_and_nothing_is_forgotten() {
    let outcome = folder();
    assert_eq!(outcome.errors, []);
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..HISTORIES).collect(),
    };
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| history(&outcome, seed));
        assert!(ran.is_ok(), "replay with SEED={seed}");
    }
}

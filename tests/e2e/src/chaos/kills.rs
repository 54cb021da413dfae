//! The sidecar killed at any request of a backup, of removing old snapshots, of freeing space and of a check.

use std::time::{Duration, Instant};

use super::{Random, Rounds, kills, spread, tried_again};
use crate::harness::{Gate, Moment, Test, Value, test};

/// What the sidecar is at when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Backup,
    Forget,
    Prune,
    Check,
}

/// The folder of snapshots in a request.
const SAVED: &str = "/snapshots/";

/// After which request the work begins, and with how many it is done, by those of a run that was let alone.
fn extent(work: Work, requests: &[String]) -> Moment {
    let is = |request: &str, method: &str| request.starts_with(method) && request.contains(SAVED);
    let saved = requests.iter().position(|request| is(request, "PUT")).expect("a snapshot is stored");
    let forgotten = requests.iter().rposition(|request| is(request, "DELETE"));
    let forgotten = || forgotten.unwrap_or_else(|| panic!("no snapshot is removed: {requests:#?}"));
    let (after, others) = match work {
        Work::Backup => (None, requests.len()),
        Work::Forget => (Some(("PUT", SAVED)), forgotten() - saved),
        Work::Prune => (Some(("DELETE", SAVED)), requests.len() - forgotten() - 1),
        Work::Check => (Some(("PUT", SAVED)), requests.len() - saved - 1),
    };
    Moment { after, others }
}

/// What the Backup's only host tells.
fn host(backup: &Value) -> &Value {
    &backup["status"]["hosts"][0]
}

/// The run of the only host that began then and has ended; null when there is none.
fn run_of(backup: &Value, start: &Value) -> Value {
    let runs = host(backup)["runs"].as_array();
    runs.into_iter().flatten().find(|run| run["time"] == *start).cloned().unwrap_or_default()
}

struct Trial<'a> {
    t: &'a Test,
    gate: Gate,
    random: Random,
    rounds: Rounds,
    round: usize,
    /// The snapshot of the last run that succeeded.
    last: String,
    /// How long it took until a killed run was told as failed, and until the next had succeeded.
    told: Vec<Duration>,
    healed: Vec<Duration>,
    /// Snapshots that reached the store, triggers that asked for one, and runs that were killed with theirs stored.
    stored: usize,
    asked: usize,
    saved_before: usize,
}

impl<'a> Trial<'a> {
    async fn begin(t: &'a Test, name: &str, keep: usize) -> Self {
        t.operator().await;
        t.object_store().await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.protect_db("http://front:9000", keep).await;
        let (random, last) = (Random::new(name), String::new());
        let (rounds, told, healed) = (Rounds::new(), Vec::new(), Vec::new());
        Self { t, gate, random, rounds, round: 0, last, told, healed, stored: 0, asked: 0, saved_before: 0 }
    }

    /// A run with new data that nobody disturbs; its requests.
    async fn run(&mut self) -> Vec<String> {
        self.change_data().await;
        self.count();
        let trigger = self.trigger().await;
        self.t.condition(&format!("BackupTrigger/{trigger}"), "Complete").await;
        self.last = self.t.backed_up("db", &self.last).await;
        self.count()
    }

    async fn change_data(&mut self) {
        self.round += 1;
        self.t.condition("Pod/db-0", "Ready").await;
        self.t.change_data("db-0/app", &mut self.rounds, self.round).await;
    }

    async fn trigger(&mut self) -> String {
        let trigger = format!("round-{}", self.round);
        self.t.trigger(&trigger, "db").await;
        self.asked += 1;
        trigger
    }

    /// The requests since the last time.
    fn count(&mut self) -> Vec<String> {
        let requests = self.gate.take();
        self.stored += requests.iter().filter(|request| request.starts_with("PUT") && request.contains(SAVED)).count();
        requests
    }

    /// One run with new data, killed somewhere in `work`; false when it ended before.
    async fn strike(&mut self, work: Work, extent: &Moment) -> bool {
        let t = self.t;
        self.change_data().await;
        let moment = Moment { others: self.random.below(extent.others), ..extent.clone() };
        self.count();
        self.gate.hold_at(moment.clone());
        let trigger = self.trigger().await;
        tokio::select! {
            () = self.gate.held() => {}
            succeeded = t.answered(&trigger) => {
                assert!(succeeded, "nobody had killed the run of {trigger}");
                self.gate.open();
                self.last = t.backed_up("db", &self.last).await;
                return false;
            }
        }
        let saved = self.stored;
        self.count();
        self.saved_before += self.stored - saved;
        let running = |backup: &Value| host(backup)["running"]["start"].is_string();
        let start = host(&t.wait("Backup/db", "told as running", running).await)["running"]["start"].clone();
        let begun = Instant::now();
        let what = t.kill("db-0", "restic-sidecar").await;
        self.gate.open();
        let (backup, told) = t.told("Backup/db", |backup| !run_of(backup, &start).is_null()).await;
        let run = run_of(&backup, &start);
        assert!(run["phase"] == "Failed" && run["error"].is_string(), "a run that was killed says so: {run:#}");
        self.last = t.backed_up("db", &self.last).await;
        let healed = begun.elapsed();
        println!("{work:?} killed at {moment:?} ({what}): told {told:.1?}, backed up again {healed:.1?}");
        self.told.push(told);
        self.healed.push(healed);
        true
    }

    /// Kills a run in `work` as often as is asked for.
    async fn strike_often(&mut self, work: Work, extent: &Moment) {
        println!("{work:?} takes {} requests", extent.others);
        let (mut killed, mut tries) = (0, 0);
        while killed < kills() {
            tries += 1;
            assert!(tries <= 2 * kills() + 5, "the runs end before they can be killed: {killed} of {tries}");
            if work != Work::Check {
                killed += usize::from(self.strike(work, extent).await);
                continue;
            }
            // The first run into a repository checks it, and the runs of the next three days do not.
            let repository = format!("store-{tries}");
            self.t.repository("http://front:9000", &repository).await;
            self.t.backup("db", &repository, "StatefulSet/db", &tried_again(1000)).await;
            killed += usize::from(self.strike(work, extent).await);
            let checked = |repository: &Value| repository["status"]["integrity"] == true;
            self.t.wait(&format!("Repository/{repository}"), "checked", checked).await;
            if tries % 10 == 0 || killed == kills() {
                let store = self.t.object_store().await;
                self.t.judge(&self.t.url(store, &repository), &self.rounds).await;
            }
        }
    }

    /// Tells of the trial; each trigger led to one snapshot, also where the run was killed that had stored it.
    fn report(&mut self, what: &str, kills: usize) {
        self.count();
        let (told, healed) = (spread(&self.told), spread(&self.healed));
        let Self { asked, stored, saved_before, .. } = self;
        println!("{what}: {kills} kills, {saved_before} of them after the snapshot was stored, {asked} triggers");
        println!("{what}: told as failed after {told}; backed up again after {healed}");
        assert_eq!(stored, asked, "snapshots that were stored, and triggers");
    }
}

#[test]
fn a_backup_killed_at_any_request_is_made_up_for_once() {
    test(async |t| {
        let mut trial = Trial::begin(t, "backup", 1000).await;
        trial.run().await;
        let extent = extent(Work::Backup, &trial.run().await);
        trial.strike_often(Work::Backup, &extent).await;
        let store = t.object_store().await;
        let snapshots = t.judge(&t.url(store, "store"), &trial.rounds).await;
        trial.report("backup", kills());
        assert_eq!(snapshots.len(), trial.asked, "snapshots and triggers");
    });
}

#[test]
fn retention_killed_at_any_request_loses_nothing() {
    test(async |t| {
        let mut trial = Trial::begin(t, "retention", 2).await;
        for _ in 0..3 {
            trial.run().await;
        }
        let requests = trial.run().await;
        for work in [Work::Forget, Work::Prune] {
            trial.strike_often(work, &extent(work, &requests)).await;
        }
        trial.run().await;
        let store = t.object_store().await;
        let snapshots = t.judge(&t.url(store, "store"), &trial.rounds).await;
        trial.report("retention", 2 * kills());
        assert_eq!(snapshots.len(), 2, "the policy keeps two: {snapshots:?}");
        assert!(snapshots.iter().any(|snapshot| snapshot.starts_with(&trial.last)), "{} of {snapshots:?}", trial.last);
    });
}

#[test]
fn a_check_killed_at_any_request_is_made_up_for() {
    test(async |t| {
        let mut trial = Trial::begin(t, "check", 1000).await;
        let extent = extent(Work::Check, &trial.run().await);
        trial.strike_often(Work::Check, &extent).await;
        trial.report("check", kills());
    });
}

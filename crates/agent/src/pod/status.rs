//! What is remembered, as the status of objects, and back: a new pod of a host starts from what the last one wrote.
//!
//! Pure: nothing here knows when or how a status is written.

use holdfast_api::stash::{
    BackupRun, HostStatus, RecoveryHostStatus, RecoveryPhase, RecoveryStat, RepositoryFacts, RunPhase, RunningRun,
};
use holdfast_api::values::{Duration, Quantity};
use holdfast_plan::{BackupHistory, PlannedBackup, PlannedRecovery, RecoveryHistory, RecoveryState};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Identity;
use crate::state::{Outcome, RepositoryState, Run, Runs, State};

/// The longest text of an error or note in a status, in characters: an object has at most 1.5 MB for all hosts.
const TEXT_MAX: usize = 1_000;
/// What a run says that did not live to see its end.
pub(super) const CUT_OFF: &str = "the pod ended during the run";

/// A backup's entry of its host.
pub(super) fn of_backup(
    planned: &PlannedBackup,
    state: &State,
    identity: &Identity,
    limit: usize,
    repository: Option<RepositoryFacts>,
) -> HostStatus {
    let history = state.observed.backups.get(&planned.id).cloned().unwrap_or_default();
    // What Secrets hold is in a revision, as a hash; it stays in the memory of this program.
    let BackupHistory { first_seen, last_start, last_end, last_success, attempts, revision: _ } = history;
    let runs = state.runs.get(&planned.id);
    let running = state.running.contains_key(&planned.id).then(|| RunningRun {
        start: Time(last_start.unwrap_or_default()),
        triggers: names(state.serving.get(&planned.id).map_or(&[], Vec::as_slice)),
    });
    HostStatus {
        host: identity.host.clone(),
        pod: Some(identity.pod.clone()),
        pod_uid: Some(identity.uid.clone()),
        node: Some(identity.node.clone()),
        first_seen: first_seen.map(Time),
        last_start: last_start.map(Time),
        last_end: last_end.map(Time),
        last_success: last_success.map(Time),
        attempts,
        revision: None,
        count: runs.map_or(0, |runs| signed(runs.count)),
        running,
        cut_off_since: state.cut_off.get(&planned.id).copied().map(Time),
        // Whoever waits says so.
        waiting_since: None,
        next: planned.next.map(Time),
        repository,
        runs: runs.map_or_else(Vec::new, |runs| {
            runs.history.iter().take(limit).map(|run| of_run(run, &identity.host)).collect()
        }),
    }
}

/// Remembers what an entry says. A run that goes on by it has ended with its pod, and failed.
pub(super) fn remember_backup(state: &mut State, id: &str, namespace: &str, entry: &HostStatus) {
    let HostStatus {
        first_seen,
        last_start,
        last_end,
        last_success,
        attempts,
        count,
        running,
        cut_off_since,
        repository,
        runs,
        ..
    } = entry;
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let history = state.observed.backups.entry(id.to_owned()).or_default();
    *history = BackupHistory {
        first_seen: time(first_seen),
        last_start: time(last_start),
        last_end: time(last_end),
        last_success: time(last_success),
        attempts: *attempts,
        revision: None,
    };
    let runs = runs.iter().map(|run| to_run(run, namespace)).collect();
    let mut remembered = Runs { count: unsigned(*count), history: runs, ..Runs::default() };
    if let Some(RunningRun { start, triggers }) = running {
        history.last_end = history.last_end.max(Some(start.0));
        let triggers: Vec<String> = triggers.iter().map(|name| format!("{namespace}/{name}")).collect();
        for trigger in &triggers {
            state.observed.triggers.entry(trigger.clone()).or_default().insert(id.to_owned());
        }
        remembered.push(cut_off(start.0, triggers));
    }
    state.runs.insert(id.to_owned(), remembered);
    match cut_off_since {
        Some(since) => _ = state.cut_off.insert(id.to_owned(), since.0),
        None => _ = state.cut_off.remove(id),
    }
    if let (Some(facts), Some(instance)) = (repository, id.rsplit('/').next()) {
        state.repositories.insert(format!("{namespace}/{instance}"), to_repository(facts));
    }
}

/// A recovery's entry of its host.
pub(super) fn of_recovery(
    planned: &PlannedRecovery,
    state: &State,
    identity: &Identity,
    generation: Option<i64>,
) -> RecoveryHostStatus {
    let history = state.observed.recoveries.get(&planned.id).cloned().unwrap_or_default();
    let RecoveryHistory {
        recovered,
        restored,
        last_occasion,
        last_start,
        last_end,
        no_snapshot,
        attempts,
        revision: _,
    } = history;
    let runs = state.runs.get(&planned.id);
    let last = runs.and_then(|runs| runs.history.first());
    let running = state.running.contains_key(&planned.id);
    RecoveryHostStatus {
        host: identity.host.clone(),
        pod: Some(identity.pod.clone()),
        pod_uid: Some(identity.uid.clone()),
        node: Some(identity.node.clone()),
        observed_generation: generation,
        phase: Some(match (running, planned.state, last.map(|run| run.outcome)) {
            (true, ..) | (_, RecoveryState::Running, _) => RecoveryPhase::Running,
            (_, RecoveryState::Recovered, _) => RecoveryPhase::Succeeded,
            (_, RecoveryState::Failed, _) | (_, _, Some(Outcome::Failed | Outcome::Incomplete)) => {
                RecoveryPhase::Failed
            }
            (_, RecoveryState::Pending, _) => RecoveryPhase::Pending,
        }),
        recovered,
        restored,
        last_occasion,
        last_start: last_start.map(Time),
        last_end: last_end.map(Time),
        no_snapshot,
        waits_for_secret: planned.state == RecoveryState::Failed && state.of_secret.contains(&planned.id),
        attempts,
        count: runs.map_or(0, |runs| signed(runs.count)),
        running: running.then(|| RunningRun { start: Time(last_start.unwrap_or_default()), triggers: Vec::new() }),
        stats: last.map_or_else(Vec::new, |run| {
            let several = planned.restore.len() > 1;
            planned
                .restore
                .iter()
                .map(|restore| RecoveryStat {
                    path: restore.path.clone(),
                    phase: match run.outcome {
                        Outcome::Succeeded => RecoveryPhase::Succeeded,
                        Outcome::Incomplete | Outcome::Failed => RecoveryPhase::Failed,
                    },
                    duration: duration(run),
                    host: Some(identity.host.clone()),
                    snapshot: run.snapshots.first().cloned(),
                    // Counted for the run as a whole.
                    files_restored: (!several).then(|| signed(run.files)),
                    files_kept_newer: (!several).then(|| signed(run.kept)),
                    bytes_restored: (!several).then(|| signed(run.bytes)),
                    error: text(&run.error),
                })
                .collect()
        }),
        error: last.and_then(|run| text(&run.error)),
    }
}

/// Remembers what an entry says of a `Recovery` that has this generation by now.
pub(super) fn remember_recovery(state: &mut State, id: &str, entry: &RecoveryHostStatus, generation: Option<i64>) {
    let RecoveryHostStatus { recovered, restored, last_occasion, last_start, last_end, no_snapshot, attempts, .. } =
        entry;
    let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
    let mut history = RecoveryHistory {
        recovered: recovered.clone(),
        restored: restored.clone(),
        last_occasion: last_occasion.clone(),
        last_start: time(last_start),
        last_end: time(last_end),
        no_snapshot: *no_snapshot,
        attempts: *attempts,
        revision: None,
    };
    let mut runs = Runs { count: unsigned(entry.count), ..Runs::default() };
    if let Some(RunningRun { start, .. }) = &entry.running {
        history.last_end = history.last_end.max(Some(start.0));
        runs.push(cut_off(start.0, Vec::new()));
    }
    // Corrected, it is tried as if for the first time.
    let is_corrected = entry.observed_generation.is_some() && entry.observed_generation != generation;
    // So it is where a Secret was waited for: what that held when the last pod ended, nobody knows.
    if is_corrected || entry.waits_for_secret {
        history.attempts = 0;
    }
    state.observed.recoveries.insert(id.to_owned(), history);
    state.runs.insert(id.to_owned(), runs);
}

/// What a `BackupTrigger` says of the run on a host: one that goes on, or the last that served it.
pub(super) fn of_trigger(trigger: &str, id: &str, state: &State, host: &str) -> Option<BackupRun> {
    let serves = |triggers: &[String]| triggers.iter().any(|served| served == trigger);
    if state.serving.get(id).is_some_and(|triggers| serves(triggers)) {
        let start = state.observed.backups.get(id).and_then(|history| history.last_start).unwrap_or_default();
        return Some(empty_run(Time(start), RunPhase::Running, host));
    }
    let run = state.runs.get(id)?.history.iter().find(|run| serves(&run.triggers))?;
    Some(of_run(run, host))
}

/// What is known of a repository.
pub(super) fn of_repository(state: &RepositoryState) -> RepositoryFacts {
    let RepositoryState {
        integrity,
        findings,
        last_check,
        size_bytes,
        snapshot_count,
        snapshots_removed_on_last_cleanup,
        last_location,
        first_backup_time,
        last_backup_time,
    } = state;
    let seen = last_backup_time.is_some();
    RepositoryFacts {
        location: last_location.clone(),
        integrity: *integrity,
        total_size: seen.then(|| Quantity::from_units(*size_bytes)),
        snapshot_count: seen.then(|| signed(*snapshot_count)),
        snapshots_removed_on_last_cleanup: seen.then(|| signed(*snapshots_removed_on_last_cleanup)),
        first_backup_time: first_backup_time.map(Time),
        last_backup_time: last_backup_time.map(Time),
        last_check_time: last_check.map(Time),
        findings: findings.iter().filter_map(|finding| text(finding)).collect(),
    }
}

/// What is remembered of a repository.
pub(super) fn to_repository(facts: &RepositoryFacts) -> RepositoryState {
    let RepositoryFacts {
        location,
        integrity,
        total_size,
        snapshot_count,
        snapshots_removed_on_last_cleanup,
        first_backup_time,
        last_backup_time,
        last_check_time,
        findings,
    } = facts;
    RepositoryState {
        integrity: *integrity,
        findings: findings.clone(),
        last_check: last_check_time.as_ref().map(|time| time.0),
        size_bytes: total_size.as_ref().and_then(Quantity::units).unwrap_or_default(),
        snapshot_count: snapshot_count.map_or(0, unsigned),
        snapshots_removed_on_last_cleanup: snapshots_removed_on_last_cleanup.map_or(0, unsigned),
        last_location: location.clone(),
        first_backup_time: first_backup_time.as_ref().map(|time| time.0),
        last_backup_time: last_backup_time.as_ref().map(|time| time.0),
    }
}

/// Of two agents that know of one repository, what both know.
pub(super) fn merge_repository(ours: &RepositoryState, theirs: RepositoryState) -> RepositoryState {
    let newer = |ours: Option<Timestamp>, theirs: Option<Timestamp>| {
        ours.map(|time| time.as_second()) >= theirs.map(|time| time.as_second())
    };
    let mut merged = if newer(ours.last_backup_time, theirs.last_backup_time) { ours.clone() } else { theirs.clone() };
    let check = if newer(ours.last_check, theirs.last_check) { ours } else { &theirs };
    merged.integrity = check.integrity;
    merged.findings.clone_from(&check.findings);
    merged.last_check = check.last_check;
    merged.first_backup_time = [ours.first_backup_time, theirs.first_backup_time].into_iter().flatten().min();
    merged
}

fn of_run(run: &Run, host: &str) -> BackupRun {
    let Run { start, outcome, snapshots, files, bytes, bytes_added, forgotten, error, triggers, notes, .. } = run;
    let phase = match outcome {
        Outcome::Succeeded => RunPhase::Succeeded,
        Outcome::Incomplete | Outcome::Failed => RunPhase::Failed,
    };
    let saved = !snapshots.is_empty();
    BackupRun {
        duration: duration(run),
        snapshots: snapshots.clone(),
        files_total: saved.then(|| signed(*files)),
        bytes_total: saved.then(|| signed(*bytes)),
        bytes_new: saved.then(|| signed(*bytes_added)),
        snapshots_removed: (*forgotten > 0).then(|| signed(*forgotten)),
        triggers: names(triggers),
        error: text(error),
        notes: notes.iter().filter_map(|note| text(note)).collect(),
        ..empty_run(Time(*start), phase, host)
    }
}

fn empty_run(time: Time, phase: RunPhase, host: &str) -> BackupRun {
    BackupRun {
        time,
        phase,
        duration: None,
        host: host.to_owned(),
        snapshots: Vec::new(),
        files_total: None,
        bytes_total: None,
        bytes_new: None,
        snapshots_removed: None,
        triggers: Vec::new(),
        error: None,
        notes: Vec::new(),
    }
}

fn to_run(run: &BackupRun, namespace: &str) -> Run {
    let BackupRun {
        time,
        phase,
        duration,
        host,
        snapshots,
        files_total,
        bytes_total,
        bytes_new,
        snapshots_removed,
        triggers,
        error,
        notes,
    } = run;
    let took = duration.map(std::time::Duration::from).unwrap_or_default();
    let number = |number: &Option<i64>| number.map_or(0, unsigned);
    Run {
        start: time.0,
        end: time.0.checked_add(took).unwrap_or(time.0),
        outcome: match (phase, snapshots.is_empty()) {
            (RunPhase::Succeeded, _) => Outcome::Succeeded,
            (_, false) => Outcome::Incomplete,
            (_, true) => Outcome::Failed,
        },
        host: host.clone(),
        snapshots: snapshots.clone(),
        files: number(files_total),
        bytes: number(bytes_total),
        bytes_added: number(bytes_new),
        forgotten: number(snapshots_removed),
        kept: 0,
        error: error.clone().unwrap_or_default(),
        triggers: triggers.iter().map(|name| format!("{namespace}/{name}")).collect(),
        notes: notes.clone(),
    }
}

/// A run whose pod is gone.
fn cut_off(start: Timestamp, triggers: Vec<String>) -> Run {
    Run { error: CUT_OFF.to_owned(), triggers, ..Run::new(start, start, Outcome::Failed) }
}

fn duration(run: &Run) -> Option<Duration> {
    // Whole milliseconds: nobody reads more.
    let millis = u64::try_from(run.duration().as_millis()).ok()?;
    (run.end > run.start).then(|| Duration::from(std::time::Duration::from_millis(millis)))
}

/// The names of `namespace/name`.
fn names(triggers: &[String]) -> Vec<String> {
    triggers.iter().map(|id| id.rsplit('/').next().unwrap_or_default().to_owned()).collect()
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.chars().take(TEXT_MAX).collect())
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn identity() -> Identity {
        Identity {
            namespace: "demo".into(),
            pod: "db-0".into(),
            uid: "0-1".into(),
            node: "node-1".into(),
            host: "statefulset.db-0".into(),
        }
    }

    fn planned() -> PlannedBackup {
        let manifests = holdfast_api::manifest::read([(
            "a.yaml",
            b"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, namespace: demo}\nspec: {}\n---\napiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {name: r, namespace: demo}\nspec: {backend: {s3: {endpoint: s3.test, bucket: b}, storageSecretName: s}}\n---\napiVersion: stash.appscode.com/v1alpha2\nkind: Backup\nmetadata: {name: b, namespace: demo}\nspec: {repository: {name: r}, targetRef: {apiVersion: v1, kind: PersistentVolumeClaim, name: data}}\n"
                .as_slice(),
        )]);
        let place = holdfast_plan::Place::Pod { host: None, uid: "0-1".into() };
        let settings = holdfast_plan::Settings::on_cluster(at(100), place, "node-1");
        let plan = holdfast_plan::plan(&manifests, &holdfast_plan::Observed::default(), &settings);
        assert!(plan.errors.is_empty(), "{:?}", plan.errors);
        plan.backups.into_iter().next().unwrap()
    }

    fn run(start: i64, outcome: Outcome) -> Run {
        Run {
            end: at(start + 5),
            outcome,
            snapshots: if outcome == Outcome::Failed { Vec::new() } else { vec!["0a1b2c3d".into()] },
            files: 3,
            bytes: 30,
            error: if outcome == Outcome::Succeeded { String::new() } else { "it broke".into() },
            triggers: vec!["demo/now".into()],
            ..cut_off(at(start), Vec::new())
        }
    }

    #[test]
    fn what_is_remembered_survives_a_pod() {
        let planned = planned();
        let mut state = State::default();
        state.begin_backup(&planned, "s3:b", at(10));
        state.end_backup(&planned.id, run(10, Outcome::Incomplete));
        state.begin_backup(&planned, "s3:b", at(20));
        state.end_backup(&planned.id, run(20, Outcome::Succeeded));
        let entry = of_backup(&planned, &state, &identity(), 10, None);
        assert_eq!((entry.count, entry.runs.len(), entry.running.is_none()), (2, 2, true));
        let mut again = State::default();
        remember_backup(&mut again, &planned.id, "demo", &entry);
        let history = &again.observed.backups[&planned.id];
        assert_eq!((history.last_start, history.last_success, history.attempts), (Some(at(20)), Some(at(25)), 0));
        assert_eq!(of_backup(&planned, &again, &identity(), 10, None), entry);
    }

    #[test]
    fn a_run_whose_pod_is_gone_has_failed_and_is_tried_again() {
        let planned = planned();
        let mut state = State::default();
        state.begin_backup(&planned, "s3:b", at(10));
        state.serving.insert(planned.id.clone(), vec!["demo/now".into()]);
        let entry = of_backup(&planned, &state, &identity(), 10, None);
        assert_eq!(entry.running.as_ref().map(|running| running.triggers.clone()), Some(vec!["now".to_owned()]));
        let mut again = State::default();
        remember_backup(&mut again, &planned.id, "demo", &entry);
        let entry = of_backup(&planned, &again, &identity(), 10, None);
        assert!(entry.running.is_none() && again.running.is_empty());
        assert_eq!((entry.count, entry.attempts), (1, 1));
        assert_eq!((entry.runs[0].phase, entry.runs[0].error.as_deref()), (RunPhase::Failed, Some(CUT_OFF)));
        let trigger = of_trigger("demo/now", &planned.id, &again, "statefulset.db-0").unwrap();
        assert_eq!(trigger.phase, RunPhase::Failed);
    }

    #[test]
    fn a_run_that_was_stopped_is_remembered_until_one_ends() {
        let planned = planned();
        let mut state = State::default();
        state.begin_backup(&planned, "s3:b", at(10));
        state.take_back(&planned.id);
        let entry = of_backup(&planned, &state, &identity(), 10, None);
        assert_eq!((entry.count, entry.attempts, entry.running.is_none()), (0, 0, true));
        let mut again = State::default();
        remember_backup(&mut again, &planned.id, "demo", &entry);
        assert_eq!(again.cut_off.get(&planned.id), Some(&at(10)));
        assert_eq!(of_backup(&planned, &again, &identity(), 10, None), entry);
        again.begin_backup(&planned, "s3:b", at(20));
        again.end_backup(&planned.id, run(20, Outcome::Succeeded));
        let ended = of_backup(&planned, &again, &identity(), 10, None);
        remember_backup(&mut state, &planned.id, "demo", &ended);
        assert!(ended.cut_off_since.is_none() && state.cut_off.is_empty());
    }

    #[test]
    fn two_agents_of_one_repository_lose_nothing() {
        let ours = RepositoryState {
            first_backup_time: Some(at(50)),
            last_backup_time: Some(at(60)),
            snapshot_count: 7,
            ..RepositoryState::default()
        };
        let theirs = RepositoryState {
            integrity: Some(true),
            last_check: Some(at(40)),
            first_backup_time: Some(at(10)),
            last_backup_time: Some(at(40)),
            snapshot_count: 6,
            ..RepositoryState::default()
        };
        let merged = merge_repository(&ours, theirs);
        assert_eq!((merged.snapshot_count, merged.integrity, merged.first_backup_time), (7, Some(true), Some(at(10))));
        assert_eq!(to_repository(&of_repository(&merged)), merged);
    }
}

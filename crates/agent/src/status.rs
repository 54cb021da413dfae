//! What is protected, and how well: one view of plan and past for `/status`, `holdfast status` and `/metrics`.

use std::fmt::Write;

use holdfast_plan::{ObjectKey, Plan, PlannedBackup, PlannedRecovery, RecoveryState, Target};
use jiff::Timestamp;
use serde::Serialize;

use crate::state::{Outcome, RepositoryState, Run, State};

/// Everything.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When this was true.
    pub time: Timestamp,
    /// The backups.
    pub backups: Vec<BackupStatus>,
    /// The recoveries.
    pub recoveries: Vec<RecoveryStatus>,
    /// The repositories.
    pub repositories: Vec<RepositoryStatus>,
    /// When something is due next.
    pub next: Option<Timestamp>,
    /// What keeps objects from being carried out.
    pub errors: Vec<String>,
    /// What is carried out, but perhaps not as meant.
    pub warnings: Vec<String>,
}

/// How a backup of one host stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// The plan's id.
    pub id: String,
    /// The `Backup` or `Restic`.
    pub object: ObjectKey,
    /// What is backed up.
    pub target: Target,
    /// The host name of its snapshots.
    pub host: String,
    /// The repository's id.
    pub repository: String,
    /// The schedule as written.
    pub schedule: Option<String>,
    /// Whether the schedule rests.
    pub paused: bool,
    /// Whether it runs now.
    pub running: bool,
    /// When it last succeeded.
    pub last_success: Option<Timestamp>,
    /// How long ago that is, in seconds.
    pub last_success_age_seconds: Option<i64>,
    /// When it is due next; absent when it is due now.
    pub next: Option<Timestamp>,
    /// Bytes that its last successful run processed.
    pub size_bytes: Option<u64>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
    /// How many runs there were.
    pub runs: u64,
    /// The last of them, newest first.
    pub history: Vec<Run>,
}

/// How a recovery stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The plan's id.
    pub id: String,
    /// The `Recovery`.
    pub object: ObjectKey,
    /// The repository's id.
    pub repository: String,
    /// `Recovered`, `Pending`, `Running` or `Failed`.
    pub phase: RecoveryState,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
    /// The last runs, newest first.
    pub history: Vec<Run>,
}

/// How a repository stands.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The plan's id.
    pub id: String,
    /// Where it is.
    pub location: String,
    /// What is known of it.
    #[serde(flatten)]
    pub state: RepositoryState,
}

impl Status {
    /// Puts plan and past together.
    pub fn new(plan: &Plan, state: &State, now: Timestamp) -> Self {
        Self {
            time: now,
            backups: plan.backups.iter().map(|planned| backup(planned, state, now)).collect(),
            recoveries: plan.recoveries.iter().map(|planned| recovery(planned, state)).collect(),
            repositories: plan
                .repositories
                .iter()
                .map(|planned| RepositoryStatus {
                    id: planned.id.clone(),
                    location: planned.location.clone(),
                    state: state.repositories.get(&planned.id).cloned().unwrap_or_default(),
                })
                .collect(),
            next: plan.next,
            errors: plan.errors.iter().map(ToString::to_string).collect(),
            warnings: plan.warnings.iter().map(ToString::to_string).collect(),
        }
    }

    /// The metrics that dashboards of the seeds' users know, and those that alerts need, in Prometheus' text format.
    pub fn metrics(&self, state: &State) -> String {
        let mut metrics = Metrics::default();
        for backup in &self.backups {
            let namespace = backup.object.namespace.as_str();
            let labels = [
                ("namespace", namespace),
                ("kind", &backup.object.kind),
                ("name", &backup.object.name),
                ("host", &backup.host),
            ];
            let last = backup.history.first();
            let ok = last.map(|run| f64::from(u8::from(run.outcome == Outcome::Succeeded)));
            metrics.gauge("stash_appscode_com_backupsession_success", "1 if the last run succeeded", &labels, ok);
            metrics.gauge(
                "stash_appscode_com_backupsession_duration_seconds",
                "How long the last run took",
                &labels,
                last.map(|run| run.duration().as_secs_f64()),
            );
            metrics.gauge(
                "stash_appscode_com_backupsession_last_success_time_seconds",
                "When a run last succeeded, seconds since 1970",
                &labels,
                backup.last_success.map(|time| time.as_second() as f64),
            );
            metrics.gauge(
                "stash_appscode_com_backupsession_host_backup_success",
                "1 if the host's last run succeeded",
                &labels,
                ok,
            );
            metrics.gauge(
                "stash_appscode_com_backupsession_host_data_size_bytes",
                "Bytes that the last run processed",
                &labels,
                last.map(|run| run.bytes as f64),
            );
            metrics.gauge(
                "stash_appscode_com_backupsession_host_data_uploaded_bytes",
                "Bytes that the last run added to the repository",
                &labels,
                last.map(|run| run.bytes_added as f64),
            );
            if let Some(runs) = state.runs.get(&backup.id) {
                metrics.counter("restic_session_success", "Runs that succeeded", &labels, runs.succeeded as f64);
                metrics.counter("restic_session_fail", "Runs that failed", &labels, runs.failed as f64);
                metrics.counter(
                    "restic_session_duration_seconds_total",
                    "Seconds of all runs",
                    &labels,
                    runs.seconds_total,
                );
                metrics.gauge(
                    "restic_session_duration_seconds",
                    "How long the last run took",
                    &labels,
                    last.map(|run| run.duration().as_secs_f64()),
                );
            }
        }
        for recovery in &self.recoveries {
            let labels = [("namespace", recovery.object.namespace.as_str()), ("name", &recovery.object.name)];
            let last = recovery.history.first();
            metrics.gauge(
                "stash_appscode_com_restoresession_success",
                "1 if the last recovery succeeded",
                &labels,
                last.map(|run| f64::from(u8::from(run.outcome == Outcome::Succeeded))),
            );
            metrics.gauge(
                "stash_appscode_com_restoresession_duration_seconds",
                "How long the last recovery took",
                &labels,
                last.map(|run| run.duration().as_secs_f64()),
            );
        }
        for repository in &self.repositories {
            let (namespace, name) = repository.id.split_once('/').unwrap_or(("", &repository.id));
            let labels = [("namespace", namespace), ("name", name)];
            let state = &repository.state;
            let known = state.last_backup_time.map(|_| ());
            metrics.gauge(
                "stash_appscode_com_repository_integrity",
                "1 if the last check found the repository whole",
                &labels,
                state.integrity.map(|whole| f64::from(u8::from(whole))),
            );
            metrics.gauge(
                "stash_appscode_com_repository_size_bytes",
                "Bytes that the repository takes",
                &labels,
                known.map(|()| state.size_bytes as f64),
            );
            metrics.gauge(
                "stash_appscode_com_repository_snapshot_count",
                "How many snapshots it holds",
                &labels,
                known.map(|()| state.snapshot_count as f64),
            );
        }
        metrics.gauge("holdfast_manifest_errors", "Mistakes in the manifests", &[], Some(self.errors.len() as f64));
        metrics.text()
    }
}

fn backup(planned: &PlannedBackup, state: &State, now: Timestamp) -> BackupStatus {
    let runs = state.runs.get(&planned.id).cloned().unwrap_or_default();
    let last_success = state.observed.backups.get(&planned.id).and_then(|history| history.last_success);
    BackupStatus {
        id: planned.id.clone(),
        object: planned.object.clone(),
        target: planned.target.clone(),
        host: planned.host.clone(),
        repository: planned.repository.clone(),
        schedule: planned.schedule.clone(),
        paused: planned.paused,
        running: state.running.contains_key(&planned.id),
        last_success,
        last_success_age_seconds: last_success.map(|time| now.duration_since(time).as_secs()),
        next: planned.next,
        size_bytes: runs.last_success().map(|run| run.bytes),
        last_error: last_error(&runs.history),
        runs: runs.count,
        history: runs.history,
    }
}

fn recovery(planned: &PlannedRecovery, state: &State) -> RecoveryStatus {
    let history = state.runs.get(&planned.id).map(|runs| runs.history.clone()).unwrap_or_default();
    RecoveryStatus {
        id: planned.id.clone(),
        object: planned.object.clone(),
        repository: planned.repository.clone(),
        phase: planned.state,
        last_error: last_error(&history),
        history,
    }
}

fn last_error(history: &[Run]) -> Option<String> {
    history.first().map(|run| run.error.clone()).filter(|error| !error.is_empty())
}

/// Prometheus' text format.
#[derive(Default)]
struct Metrics {
    /// Name and text of each family, in order of first use: the samples of one must stand together.
    families: Vec<(&'static str, String)>,
}

impl Metrics {
    fn gauge(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: Option<f64>) {
        if let Some(value) = value {
            self.sample(name, "gauge", help, labels, value);
        }
    }

    fn counter(&mut self, name: &'static str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.sample(name, "counter", help, labels, value);
    }

    fn sample(&mut self, name: &'static str, kind: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        let known = self.families.iter().position(|(family, _)| *family == name);
        let at = known.unwrap_or_else(|| {
            self.families.push((name, format!("# HELP {name} {help}.\n# TYPE {name} {kind}\n")));
            self.families.len() - 1
        });
        let family = &mut self.families[at].1;
        family.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // Writing to a String does not fail.
            let _ = write!(family, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
        }
        if !labels.is_empty() {
            family.push('}');
        }
        let _ = writeln!(family, " {value}");
    }

    fn text(&self) -> String {
        self.families.iter().map(|(_, text)| text.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_family_stand_together_and_labels_are_escaped() {
        let mut metrics = Metrics::default();
        metrics.gauge("a", "first", &[("n", "x")], Some(1.0));
        metrics.gauge("b", "second", &[], Some(2.5));
        metrics.gauge("a", "first", &[("n", "q\"\\\n")], Some(3.0));
        metrics.gauge("c", "none", &[], None);
        let want = "# HELP a first.\n# TYPE a gauge\na{n=\"x\"} 1\na{n=\"q\\\"\\\\\\n\"} 3\n# HELP b second.\n# TYPE b gauge\nb 2.5\n";
        assert_eq!(metrics.text(), want);
    }
}

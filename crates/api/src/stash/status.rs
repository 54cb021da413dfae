//! What is known of a `Backup` or `Restic` and of its runs.
//!
//! [`HostStatus`] is written by the agent of each host and is all that the agent remembers: a new pod of the host starts
//! from it. Everything else is computed from the hosts by the operator, which nobody else writes.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RepositoryFacts;
use crate::values::Duration;

/// What is known of a `Backup` or `Restic`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// Generation of the object that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready` (everything it refers to exists), `BackedUp` (the last run succeeded).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Whether it can run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<BackupPhase>,
    /// When the first run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_backup_time: Option<Time>,
    /// When the last run started, whether it succeeded or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_time: Option<Time>,
    /// When the last run that succeeded started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_successful_backup_time: Option<Time>,
    /// How long the last run took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup_duration: Option<Duration>,
    /// When the next run is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_backup_time: Option<Time>,
    /// Number of runs so far, successful or not; it numbers the events.
    #[serde(default)]
    pub backup_count: i64,
    /// Number of runs that failed since the last that succeeded.
    #[serde(default)]
    pub consecutive_failures: i64,
    /// The last runs of all hosts, newest first, at most `backupHistoryLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<BackupRun>,
    /// What each host does and has done, written by its agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub hosts: Vec<HostStatus>,
    /// Whether its scheduled runs wait to be admitted, because only so many may go on at once: by the operator's
    /// `--max-concurrent-runs`, or by `maxConcurrentRuns` of the Repository.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
    /// The hosts whose runs were admitted, by the names in `hosts`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub admitted: BTreeMap<String, Admission>,
}

/// That a run which waits may begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Admission {
    /// The `waitingSince` that it answers.
    pub waiting_since: Time,
    /// When it was admitted.
    pub time: Time,
}

/// What is known of the backups of one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// The host: kind and name of the workload, or of its pod, or its node, such as `statefulset.db-0`.
    pub host: String,
    /// Name of the pod that wrote this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// UID of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Node of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When the host was first planned: its schedule counts from here until there is a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<Time>,
    /// When the last run started, whatever became of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<Time>,
    /// When the last finished run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<Time>,
    /// When the last run that succeeded ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success: Option<Time>,
    /// Runs begun since the last that succeeded.
    #[serde(default)]
    pub attempts: u32,
    /// What the last run depended on, as a fingerprint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Number of runs that ended, successful or not.
    #[serde(default)]
    pub count: i64,
    /// The run that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningRun>,
    /// When the first of the runs began that were stopped since the last one that ended: one of them may have stored a
    /// snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut_off_since: Option<Time>,
    /// Since when a run that is due waits to be admitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_since: Option<Time>,
    /// When the next run is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Time>,
    /// The repository, where it is this host's own and no `Repository` object tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryFacts>,
    /// The last runs, newest first, at most `backupHistoryLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<BackupRun>,
}

/// A run that goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningRun {
    /// When it started.
    pub start: Time,
    /// The `BackupTrigger`s that asked for it; empty when the schedule did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
}

/// Whether a backup can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BackupPhase {
    /// It follows its schedule.
    Ready,
    /// It waits for something that does not exist yet; the `Ready` condition says what.
    NotReady,
    /// It cannot be carried out as written; the `Ready` condition says why.
    Invalid,
    /// It is paused and runs only when triggered.
    Paused,
}

/// One run of a backup on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupRun {
    /// When the run started.
    pub time: Time,
    /// How the run ended.
    pub phase: RunPhase,
    /// How long the run took, with retention.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// The host, as in `hosts`.
    pub host: String,
    /// Ids of the snapshots it made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<String>,
    /// Number of files in the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,
    /// Size of all files of the snapshot, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Size that the run added to the repository, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_new: Option<i64>,
    /// Number of snapshots that the retention policy removed after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_removed: Option<i64>,
    /// The `BackupTrigger`s that asked for the run; empty when the schedule did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<String>,
    /// Why the run failed, was skipped, or what it could not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is worth knowing about it and no failure, such as a stale lock that was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunPhase {
    /// It goes on.
    Running,
    /// Everything was saved.
    Succeeded,
    /// Something was not saved.
    Failed,
    /// It did not start; the error says why.
    Skipped,
}

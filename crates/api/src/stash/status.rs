//! What is known of a `Backup` or `Restic` and of its runs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// The last runs, newest first, at most `backupHistoryLimit`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<BackupRun>,
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
    /// Host name under which the snapshot is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Id of the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Number of files in the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_total: Option<i64>,
    /// Number of files that are new or changed since the snapshot before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_new: Option<i64>,
    /// Size of all files of the snapshot, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<i64>,
    /// Size that the run added to the repository, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_new: Option<i64>,
    /// The `BackupTrigger` that asked for the run; absent when the schedule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger: Option<String>,
    /// Why the run failed, was skipped, or what it could not read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
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

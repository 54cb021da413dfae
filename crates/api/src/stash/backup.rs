//! `Backup`: what is saved, where to, when, and for how long it is kept.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackupStatus;
use crate::values::{
    AgentReference, ContainerAttributes, Duration, ObjectReference, PodAttributes, RetentionPolicy, Schedule,
    TargetReference, TimeZone,
};

/// Backs up directories of a workload's volumes, a claim, or a database, into a repository.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha2",
    kind = "Backup",
    plural = "backups",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    shortname = "bkp",
    category = "holdfast",
    doc = "Backs up directories of a workload's volumes, a claim, or a database, into a repository.",
    printcolumn(name = "Target", type_ = "string", json_path = ".spec.targetRef.name"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused", priority = "1"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Last-Success", type_ = "date", json_path = ".status.lastSuccessfulBackupTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct BackupSpec {
    /// The repository that takes the snapshots.
    pub repository: ObjectReference,
    /// The workload, PersistentVolumeClaim, PersistentVolume or AppBinding to back up.
    pub target_ref: TargetReference,
    /// Directories to back up, as the target's containers see them. Required for workloads. Default for a claim or a
    /// volume: all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_directories: Vec<String>,
    /// When and how to back up.
    #[serde(flatten)]
    pub settings: BackupSettings,
}

/// When and how to back up: what `Backup` and `BackupTemplate` have in common.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSettings {
    /// When to back up: five or six cron fields, `@every 1h30m`, `@hourly`, `@daily`, …
    /// Default: only when a `BackupTrigger` asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// IANA name of the time zone in which the schedule is read, such as `Europe/Berlin`. Default: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZone>,
    /// Every start is delayed by a fixed part of this span that depends on the object's name, so that many backups of
    /// one schedule do not start together. Default: 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    /// The `AgentTemplate` that does the work. Default: the built-in one for the kind of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_agent: Option<AgentReference>,
    /// Which snapshots are kept after each backup. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<RetentionPolicy>,
    /// Attributes of the container that backs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_attributes: Option<ContainerAttributes>,
    /// Attributes of the pod of a backup Job. A sidecar runs in the pod of its workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_attributes: Option<PodAttributes>,
    /// Whether the schedule rests. A `BackupTrigger` still works. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// Patterns of files and directories to leave out, in restic's notation, such as `*.tmp` or `/source/data/cache`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Whether directories marked by a `CACHEDIR.TAG` file are left out. Default: false.
    #[serde(default)]
    pub exclude_caches: bool,
    /// Tags put on the snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How hard data is compressed. Default: auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
    /// Whether and when a failed run is tried again before the next one is due. Default: three times, after 1m, 2m, 4m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
    /// How long one run may take before it is stopped and counts as failed. Default: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_out: Option<Duration>,
    /// How many runs the status remembers, 1 to 100. Default: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub backup_history_limit: Option<u32>,
}

impl BackupSettings {
    /// How many runs the status remembers.
    pub fn history_limit(&self) -> usize {
        self.backup_history_limit.map_or(10, |limit| limit.clamp(1, 100) as usize)
    }
}

/// How hard data is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Fast, at the level restic uses by default.
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// As small as possible; several times slower.
    Max,
}

/// Whether and when a failed run is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetryConfig {
    /// How often one run is tried again at most; 0 is never. Default: 3.
    #[serde(default = "RetryConfig::default_max_retry")]
    #[schemars(range(max = 100))]
    pub max_retry: u32,
    /// How long to wait before the first new try; the wait doubles with each further one. Default: 1m.
    #[serde(default = "RetryConfig::default_delay")]
    pub delay: Duration,
}

impl RetryConfig {
    fn default_max_retry() -> u32 {
        3
    }

    fn default_delay() -> Duration {
        Duration::from_secs(60)
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_retry: Self::default_max_retry(), delay: Self::default_delay() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_stand_beside_the_other_fields() {
        let given = json!({
            "repository": {"name": "r"},
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
            "targetDirectories": ["/data"],
            "schedule": "0 3 * * *",
            "timeZone": "Europe/Berlin",
            "jitter": "10m",
            "backupAgent": {"name": "a"},
            "paused": true,
            "exclude": ["*.tmp"],
            "excludeCaches": true,
            "tags": ["t"],
            "compression": "max",
            "retryConfig": {"maxRetry": 1, "delay": "30s"},
            "timeOut": "1h",
            "backupHistoryLimit": 3,
        });
        let spec: BackupSpec = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(spec.settings.history_limit(), 3);
        assert_eq!(serde_json::to_value(&spec).unwrap(), given);
    }

    #[test]
    fn retries_have_the_documented_defaults() {
        let retry: RetryConfig = serde_json::from_value(json!({})).unwrap();
        assert_eq!(retry, RetryConfig::default());
        assert_eq!((retry.max_retry, retry.delay), (3, Duration::from_secs(60)));
        assert_eq!(BackupSettings::default().history_limit(), 10);
    }

    #[test]
    fn a_wrong_value_says_which_and_why() {
        let error = serde_json::from_value::<BackupSettings>(json!({"schedule": "@every never"})).unwrap_err();
        assert!(
            error.to_string().contains("\"@every never\" is not a schedule: \"never\" is not a duration"),
            "{error}"
        );
    }
}

//! `BackupTrigger`: one run of a backup, now.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackupRun;
use crate::values::ObjectReference;

/// Runs a backup once, at once, whether it is paused or not.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha2",
    kind = "BackupTrigger",
    plural = "backuptriggers",
    namespaced,
    status = "BackupTriggerStatus",
    derive = "PartialEq",
    shortname = "bkptr",
    category = "holdfast",
    doc = "Runs a backup once, at once, whether it is paused or not.",
    printcolumn(name = "Backup", type_ = "string", json_path = ".spec.targetBackup.name"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct BackupTriggerSpec {
    /// The `Backup` of the same namespace to run.
    #[x_kube(validation = Rule::new("self == oldSelf").message("a trigger cannot be changed: create another one"))]
    pub target_backup: ObjectReference,
}

/// How a triggered run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupTriggerStatus {
    /// Generation of the object that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Complete` (every host's run succeeded), `Failed` (one of them did not).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How the run stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<TriggerPhase>,
    /// When the run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// The run on each host, written by its agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub runs: Vec<BackupRun>,
}

impl BackupTriggerStatus {
    /// Whether it has been carried out, well or badly: what comes later does not concern it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Some(TriggerPhase::Succeeded | TriggerPhase::Failed | TriggerPhase::Skipped))
    }
}

/// How a triggered run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TriggerPhase {
    /// It waits for its turn.
    Pending,
    /// It goes on.
    Running,
    /// Everything was saved.
    Succeeded,
    /// Something was not saved.
    Failed,
    /// It did not start, since a run of the same backup was under way.
    Skipped,
}

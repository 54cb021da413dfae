//! `Recovery`: what is restored, from where and into what.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::LocalObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RetryConfig, RunningRun};
use crate::values::{
    AgentReference, ContainerAttributes, Duration, ObjectReference, PodAttributes, TargetReference, VolumeSource,
};

/// Restores a snapshot into a volume, into the volumes of a workload, or into a database.
///
/// The fields of `v1alpha1` (`recoveredVolumes`, `nodeSelector`, `imagePullSecrets`) are accepted in both versions.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.recoverTo) != (has(self.recoveredVolumes) && size(self.recoveredVolumes) > 0)")
    .message("exactly one of recoverTo and recoveredVolumes must be set"))]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha2",
    kind = "Recovery",
    plural = "recoveries",
    namespaced,
    status = "RecoveryStatus",
    derive = "PartialEq",
    shortname = "rec",
    category = "holdfast",
    doc = "Restores a snapshot into a volume, into the volumes of a workload, or into a database.",
    printcolumn(name = "Repository", type_ = "string", json_path = ".spec.repository.name"),
    printcolumn(name = "Policy", type_ = "string", json_path = ".spec.recoveryPolicy"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct RecoverySpec {
    /// The repository that holds the snapshot.
    pub repository: ObjectReference,
    /// The `AgentTemplate` that does the work. Default: the built-in one for the kind of the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_agent: Option<AgentReference>,
    /// The snapshot: its id or a unique start of it, or `latest`. The name `<workload>-<8 hex digits>` of `v1alpha1`
    /// works as well. Default: the latest of each host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Host whose snapshots are considered. Default: that of the target; for a volume the one that has stored the path,
    /// and of several one must be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Directories to restore, as they stand in the snapshot. Default: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Patterns of what to restore, in restic's notation, matched against paths of the snapshot as those of a Backup's
    /// `exclude`: `/data/drafts`, or `*.md` anywhere. What matches nothing fails. Default: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Patterns of what not to restore, in restic's notation, matched as those of `include`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Where the data goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover_to: Option<RecoverTo>,
    /// Where the data goes, in the form of `v1alpha1`: each path is restored into the volume mounted at or above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recovered_volumes: Vec<RecoveredVolume>,
    /// Whether to restore once or at each start of the workload. Default: IfNotRecovered.
    #[serde(default)]
    pub recovery_policy: RecoveryPolicy,
    /// Whether files of the target that are newer than the snapshot may be overwritten. Default: false, which leaves
    /// them as they are and says so.
    #[serde(default)]
    pub overwrite_newer: bool,
    /// Whether files of the target that are not in the snapshot are deleted. Default: false.
    #[serde(default)]
    pub delete_extra: bool,
    /// Attributes of the container that restores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_attributes: Option<ContainerAttributes>,
    /// Attributes of the pod of a recovery Job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_attributes: Option<PodAttributes>,
    /// Whether and when a failed run is tried again. Default: three times, after 1m, 2m, 4m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_config: Option<RetryConfig>,
    /// How long one run may take before it is stopped and counts as failed. Default: without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_out: Option<Duration>,
    /// Labels a node must carry to run the Job (`v1alpha1`; now in `podAttributes`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Secrets with credentials for the image registry (`v1alpha1`; now in `podAttributes`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// Where restored data goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RecoverToFields", into = "RecoverToFields")]
pub enum RecoverTo {
    /// Into one volume.
    Volume(Box<RecoveredVolume>),
    /// Into the volumes of a workload, or into the database of an AppBinding.
    Workload(TargetReference),
}

/// A volume and where the snapshot's paths find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "RecoveredVolumeFields", into = "RecoveredVolumeFields")]
pub struct RecoveredVolume {
    /// Where the volume is mounted: the paths of the snapshot at or below it are restored into the volume.
    pub mount_path: String,
    /// The volume, written inline.
    pub volume: VolumeSource,
}

/// When to restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecoveryPolicy {
    /// Once; never again for the same `Recovery`.
    #[default]
    IfNotRecovered,
    /// At each start of the workload.
    Always,
}

/// The written form of [`RecoverTo`], in which both or none can stand.
#[derive(Clone, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.volume) != has(self.workload)")
    .message("exactly one of volume and workload must be set"))]
struct RecoverToFields {
    /// Into one volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<Box<RecoveredVolume>>,
    /// Into the volumes of a workload, or into the database of an AppBinding.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    workload: Option<TargetReference>,
}

impl TryFrom<RecoverToFields> for RecoverTo {
    type Error = &'static str;

    fn try_from(fields: RecoverToFields) -> Result<Self, Self::Error> {
        match (fields.volume, fields.workload) {
            (Some(volume), None) => Ok(Self::Volume(volume)),
            (None, Some(workload)) => Ok(Self::Workload(workload)),
            (None, None) => Err("recoverTo needs a volume or a workload"),
            (Some(_), Some(_)) => Err("recoverTo must have either a volume or a workload, but has both"),
        }
    }
}

impl From<RecoverTo> for RecoverToFields {
    fn from(recover_to: RecoverTo) -> Self {
        match recover_to {
            RecoverTo::Volume(volume) => Self { volume: Some(volume), workload: None },
            RecoverTo::Workload(workload) => Self { volume: None, workload: Some(workload) },
        }
    }
}

/// The written form of [`RecoveredVolume`], in which several sources or none can stand.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "RecoveredVolume")]
struct RecoveredVolumeFields {
    /// Where the volume is mounted: the paths of the snapshot at or below it are restored into the volume.
    #[schemars(length(min = 1))]
    mount_path: String,
    #[serde(flatten)]
    volume: VolumeSource,
}

impl TryFrom<RecoveredVolumeFields> for RecoveredVolume {
    type Error = String;

    fn try_from(RecoveredVolumeFields { mount_path, volume }: RecoveredVolumeFields) -> Result<Self, String> {
        volume.exactly_one("a recovered volume")?;
        Ok(Self { mount_path, volume })
    }
}

impl From<RecoveredVolume> for RecoveredVolumeFields {
    fn from(RecoveredVolume { mount_path, volume }: RecoveredVolume) -> Self {
        Self { mount_path, volume }
    }
}

/// How a recovery stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// Generation of the object that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: `Ready` (everything it refers to exists), `Complete` (everything is restored), `Failed` (it failed for
    /// good).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RecoveryPhase>,
    /// When the last run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// What was restored, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stats: Vec<RecoveryStat>,
    /// What was restored into each host, written by its agent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"]))]
    pub hosts: Vec<RecoveryHostStatus>,
}

/// What is known of the recoveries into one host, or into volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryHostStatus {
    /// The host: kind and name of the workload, or of its pod, or its node, such as `statefulset.db-0`; `volume` for a
    /// recovery into volumes.
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
    /// Generation of the `Recovery` that the last run carried out: with another one, earlier failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<RecoveryPhase>,
    /// The occasion of the last run that succeeded: it is not restored for that again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<String>,
    /// The paths that run restored: they are meant where neither `spec.paths` nor a `Backup` says which any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restored: Vec<String>,
    /// The occasion of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_occasion: Option<String>,
    /// When the last run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_start: Option<Time>,
    /// When the last finished run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_end: Option<Time>,
    /// Whether the last run found nothing to restore: no repository yet, or no snapshot that holds the paths.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_snapshot: bool,
    /// Whether it failed for good by what its Secret holds: then its pod waits an hour for another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_secret: bool,
    /// Runs begun for `lastOccasion`.
    #[serde(default)]
    pub attempts: u32,
    /// Number of runs that ended, successful or not.
    #[serde(default)]
    pub count: i64,
    /// The run that goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningRun>,
    /// What the last run restored, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stats: Vec<RecoveryStat>,
    /// Why the last run failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How the recovery of one path went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStat {
    /// The path, as it stands in the snapshot.
    pub path: String,
    /// How it stands.
    pub phase: RecoveryPhase,
    /// How long it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Host into whose volumes it was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Id of the snapshot it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Number of files that were written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_restored: Option<i64>,
    /// Number of files left as they were, since they are newer than the snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_kept_newer: Option<i64>,
    /// Size of the files that were written, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_restored: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// How a recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecoveryPhase {
    /// It waits for something, or for its turn.
    Pending,
    /// It goes on.
    Running,
    /// Everything was restored.
    Succeeded,
    /// Something was not restored.
    Failed,
    /// It is not known how it ended.
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn recover_to(given: Value) -> Result<RecoverTo, String> {
        serde_json::from_value(given).map_err(|error| error.to_string())
    }

    #[test]
    fn the_destination_is_a_volume_or_a_workload() {
        let volume = json!({"volume": {"mountPath": "/d", "persistentVolumeClaim": {"claimName": "c"}}});
        let workload = json!({"workload": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
        for given in [&volume, &workload] {
            assert_eq!(serde_json::to_value(recover_to(given.clone()).unwrap()).unwrap(), *given);
        }
        let both = json!({"volume": volume["volume"], "workload": workload["workload"]});
        assert_eq!(recover_to(both), Err("recoverTo must have either a volume or a workload, but has both".to_owned()));
        assert_eq!(recover_to(json!({})), Err("recoverTo needs a volume or a workload".to_owned()));
        assert_eq!(
            recover_to(json!({"volume": {"mountPath": "/d"}})),
            Err("a recovered volume needs a volume source such as hostPath or persistentVolumeClaim".to_owned())
        );
    }

    #[test]
    fn defaults_are_the_careful_ones() {
        let spec: RecoverySpec = serde_json::from_value(json!({"repository": {"name": "r"}})).unwrap();
        assert_eq!(spec.recovery_policy, RecoveryPolicy::IfNotRecovered);
        assert!(!spec.overwrite_newer && !spec.delete_extra);
    }

    #[test]
    fn the_older_version_is_read_too() {
        let recovery: Recovery = serde_json::from_value(json!({
            "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Recovery", "metadata": {"name": "r"},
            "spec": {
                "repository": {"name": "deployment.x", "namespace": "demo"},
                "snapshot": "deployment.x-0a1b2c3d",
                "paths": ["/source/data"],
                "recoveredVolumes": [{"mountPath": "/source/data", "hostPath": {"path": "/data"}}],
                "nodeSelector": {"disk": "ssd"},
                "imagePullSecrets": [{"name": "p"}],
            },
        }))
        .unwrap();
        assert_eq!(recovery.spec.recovered_volumes[0].volume.set_fields(), ["hostPath"]);
    }
}

//! `Restic`: backup by label (first generation) or by selector (second generation).

use k8s_openapi::api::core::v1::{LocalObjectReference, Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BackupStatus;
use crate::values::{Backend, LegacyRetentionPolicy, Resources, RetentionPolicy, Schedule};

/// Backs up every workload that carries the label `restic.appscode.com/config: <name>` (first generation: `source`,
/// `destination`, `retentionPolicy`) or that the selector matches (second: `selector`, `fileGroups`, `backend`).
///
/// The two forms cannot be mixed; [`ResticSpec::form`] tells them apart.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.source) == has(self.destination)")
    .message("source and destination belong together"))]
#[x_kube(validation = Rule::new("has(self.source) != has(self.backend)")
    .message("either source and destination, or selector, fileGroups and backend must be set"))]
#[x_kube(validation = Rule::new("!has(self.backend) || (has(self.selector) && has(self.fileGroups) && size(self.fileGroups) > 0)")
    .message("backend needs selector and fileGroups"))]
#[x_kube(validation = Rule::new(
    "!has(self.fileGroups) || self.fileGroups.all(g, !has(g.retentionPolicyName) || (has(self.retentionPolicies) && self.retentionPolicies.exists(p, has(p.name) && p.name == g.retentionPolicyName)))",
).message("a fileGroup names a retention policy that is not in retentionPolicies"))]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha1",
    kind = "Restic",
    plural = "restics",
    namespaced,
    status = "BackupStatus",
    derive = "PartialEq",
    shortname = "rst",
    category = "holdfast",
    doc = "Backs up every workload that carries its label or that its selector matches.",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused", priority = "1"),
    printcolumn(name = "Backups", type_ = "integer", json_path = ".status.backupCount"),
    printcolumn(name = "Last-Success", type_ = "date", json_path = ".status.lastSuccessfulBackupTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ResticSpec {
    /// First generation: what is backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<ResticSource>,
    /// First generation: the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<ResticDestination>,
    /// First generation: which snapshots are kept. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_policy: Option<LegacyRetentionPolicy>,
    /// First generation: tags put on the snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,

    /// Second generation: the workloads of the same namespace whose labels match are protected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// Second generation: the directories that are backed up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub file_groups: Vec<FileGroup>,
    /// Second generation: the policies to which file groups refer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub retention_policies: Vec<RetentionPolicy>,
    /// Second generation: the store; below its prefix each workload has a repository of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// Second generation: mounts of the workload's volumes in the sidecar. Default: those of the workload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Second generation: compute resources of the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Second generation: whether the workload runs while it is backed up. Default: online.
    #[serde(default, rename = "type")]
    pub restic_type: ResticType,
    /// Second generation: whether the schedule rests. Default: false.
    #[serde(default)]
    pub paused: bool,
    /// Second generation: Secrets with credentials for the image registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image_pull_secrets: Vec<LocalObjectReference>,

    /// When to back up: five or six cron fields (seconds first), `@every 1h30m`, `@hourly`, … Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// What the first generation backs up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticSource {
    /// Name of a volume of the workload.
    #[schemars(length(min = 1))]
    pub volume_name: String,
    /// Where the volume is mounted in the sidecar; everything below it is backed up.
    #[schemars(length(min = 1))]
    pub path: String,
}

/// Where the first generation keeps its repository.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResticDestination {
    /// Directory of the repository in the sidecar: the mount path of the volume.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Name of the Secret whose key `password` opens the repository.
    #[schemars(length(min = 1))]
    pub repository_secret_name: String,
    /// The volume that holds the repository.
    pub volume: Volume,
}

/// Directories that are backed up into snapshots of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileGroup {
    /// The directory, as the workload's containers see it.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Tags put on the snapshots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Name of one of the `retentionPolicies`. Default: none, so that all snapshots are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub retention_policy_name: Option<String>,
}

/// Whether the workload runs while it is backed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResticType {
    /// A sidecar backs up beside the running workload.
    #[default]
    Online,
    /// An init container backs up before the workload starts; the pods are restarted on the schedule.
    Offline,
}

/// The two forms of a `Restic`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResticForm<'a> {
    /// First generation: workloads name the `Restic` by label.
    Labelled {
        /// What is backed up.
        source: &'a ResticSource,
        /// The repository.
        destination: &'a ResticDestination,
        /// Which snapshots are kept.
        retention: Option<&'a LegacyRetentionPolicy>,
        /// Tags put on the snapshots.
        tags: &'a [String],
    },
    /// Second generation: the `Restic` selects workloads.
    Selected {
        /// Which workloads are protected.
        selector: &'a LabelSelector,
        /// The directories, each with the policy it names.
        file_groups: &'a [FileGroup],
        /// The store.
        backend: &'a Backend,
    },
}

/// Why a `Restic` has no form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResticFormError {
    /// Fields of both generations are set.
    #[error(
        "{0} and {1} belong to different generations of Restic: use either source and destination, or selector, fileGroups and backend"
    )]
    Mixed(&'static str, &'static str),
    /// A field of a generation is missing.
    #[error("{missing} is required beside {present}")]
    Missing {
        /// The field that is missing.
        missing: &'static str,
        /// A field of the same generation that is set.
        present: &'static str,
    },
    /// Nothing is set.
    #[error("nothing to back up: expected source and destination, or selector, fileGroups and backend")]
    Empty,
    /// A file group names a policy that does not exist.
    #[error("fileGroup {path:?} names the retention policy {name:?}, which is not in retentionPolicies")]
    UnknownPolicy {
        /// Path of the file group.
        path: String,
        /// Name of the policy.
        name: String,
    },
}

impl ResticSpec {
    /// Which of the two forms this is, or what it lacks.
    pub fn form(&self) -> Result<ResticForm<'_>, ResticFormError> {
        let first = [
            ("source", self.source.is_some()),
            ("destination", self.destination.is_some()),
            ("retentionPolicy", self.retention_policy.is_some()),
            ("tags", !self.tags.is_empty()),
        ];
        let second = [
            ("selector", self.selector.is_some()),
            ("fileGroups", !self.file_groups.is_empty()),
            ("backend", self.backend.is_some()),
            ("retentionPolicies", !self.retention_policies.is_empty()),
        ];
        let present = |fields: &[(&'static str, bool)]| fields.iter().find(|(_, set)| *set).map(|(name, _)| *name);
        let required =
            |fields: &[(&'static str, bool)], present: &'static str| match fields.iter().find(|(_, set)| !set) {
                Some((missing, _)) => Err(ResticFormError::Missing { missing, present }),
                None => Ok(()),
            };
        match (present(&first), present(&second)) {
            (Some(a), Some(b)) => return Err(ResticFormError::Mixed(a, b)),
            (None, None) => return Err(ResticFormError::Empty),
            (Some(a), None) => required(&first[..2], a)?,
            (None, Some(b)) => required(&second[..3], b)?,
        }
        if let (Some(source), Some(destination)) = (&self.source, &self.destination) {
            let retention = self.retention_policy.as_ref();
            return Ok(ResticForm::Labelled { source, destination, retention, tags: &self.tags });
        }
        let (Some(selector), Some(backend)) = (&self.selector, &self.backend) else {
            return Err(ResticFormError::Empty);
        };
        for group in &self.file_groups {
            if let Some(name) = &group.retention_policy_name
                && self.retention_policy_named(name).is_none()
            {
                return Err(ResticFormError::UnknownPolicy { path: group.path.clone(), name: name.clone() });
            }
        }
        Ok(ResticForm::Selected { selector, file_groups: &self.file_groups, backend })
    }

    /// The policy of this name.
    pub fn retention_policy_named(&self, name: &str) -> Option<&RetentionPolicy> {
        self.retention_policies.iter().find(|policy| policy.name.as_deref() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(spec: Value, expect: &str) {
        let spec: ResticSpec = serde_json::from_value(spec).unwrap();
        let form = match spec.form() {
            Ok(ResticForm::Labelled { .. }) => "labelled".to_owned(),
            Ok(ResticForm::Selected { .. }) => "selected".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(form, expect);
    }

    fn first() -> Value {
        json!({"source": {"volumeName": "v", "path": "/p"},
            "destination": {"path": "/r", "repositorySecretName": "s", "volume": {"name": "r", "emptyDir": {}}}})
    }

    fn second() -> Value {
        json!({"selector": {}, "fileGroups": [{"path": "/p"}], "backend": {"rest": {"url": "http://r"}}})
    }

    fn with(mut spec: Value, field: &str, value: Value) -> Value {
        spec[field] = value;
        spec
    }

    #[test]
    fn the_two_forms_are_told_apart() {
        check(first(), "labelled");
        check(with(first(), "tags", json!(["t"])), "labelled");
        check(second(), "selected");
        check(with(second(), "paused", json!(true)), "selected");
        let named = json!([{"path": "/p", "retentionPolicyName": "p"}]);
        let policies = json!([{"name": "p", "keepLast": 1}]);
        check(with(with(second(), "fileGroups", named), "retentionPolicies", policies), "selected");
    }

    #[test]
    fn what_is_no_form_says_why() {
        check(json!({}), "nothing to back up: expected source and destination, or selector, fileGroups and backend");
        check(json!({"tags": ["t"]}), "source is required beside tags");
        check(with(first(), "destination", Value::Null), "destination is required beside source");
        check(with(second(), "fileGroups", json!([])), "fileGroups is required beside selector");
        check(json!({"retentionPolicies": [{}]}), "selector is required beside retentionPolicies");
        check(
            with(second(), "fileGroups", json!([{"path": "/p", "retentionPolicyName": "q"}])),
            "fileGroup \"/p\" names the retention policy \"q\", which is not in retentionPolicies",
        );
        check(
            with(second(), "source", first()["source"].clone()),
            "source and selector belong to different generations of Restic: use either source and destination, or \
             selector, fileGroups and backend",
        );
    }
}

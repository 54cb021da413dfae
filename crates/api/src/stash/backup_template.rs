//! `BackupTemplate`: the default backup of every workload that asks for it by annotation.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::BackupSettings;
use crate::values::Backend;

/// From which a Repository and a Backup are made for each workload or AppBinding that names this template.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha2",
    kind = "BackupTemplate",
    plural = "backuptemplates",
    derive = "PartialEq",
    shortname = "bkpt",
    category = "holdfast",
    doc = "From which a Repository and a Backup are made for each workload or AppBinding that names this template.",
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct BackupTemplateSpec {
    /// The store of the repositories. Its prefix may hold variables of the target's fields, such as
    /// `${metadata.namespace}/${metadata.name}`; the Secret is looked up in the target's namespace.
    pub backend: Backend,
    /// When and how to back up.
    #[serde(flatten)]
    pub settings: BackupSettings,
}

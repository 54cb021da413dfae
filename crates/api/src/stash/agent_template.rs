//! `AgentTemplate`: the containers that do a backup or a recovery.

use k8s_openapi::api::core::v1::{Container, Volume};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The containers that do a backup or a recovery. Init containers run one after the other, then the containers.
///
/// `$(NAME)` in `args`, `command` and `env` is replaced by Kubernetes from the container's environment, to which
/// Holdfast adds `BACKUP_NAME` or `RECOVERY_NAME` and the like.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "stash.appscode.com",
    version = "v1alpha2",
    kind = "AgentTemplate",
    plural = "agenttemplates",
    derive = "PartialEq",
    shortname = "agt",
    category = "holdfast",
    doc = "The containers that do a backup or a recovery.",
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct AgentTemplateSpec {
    /// Containers that run one after the other before the others start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    /// Containers that run together; the work is done when all have ended.
    #[schemars(length(min = 1))]
    pub containers: Vec<Container>,
    /// Volumes that the containers share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
}

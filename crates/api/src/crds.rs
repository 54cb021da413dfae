//! The CustomResourceDefinitions of Holdfast's kinds, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::appcatalog::AppBinding;
use crate::stash::{AgentTemplate, Backup, BackupTemplate, BackupTrigger, Recovery, Repository, Restic};

/// The definitions, as an API server takes them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![
        Restic::crd(),
        Repository::crd(),
        Backup::crd(),
        Recovery::crd(),
        BackupTrigger::crd(),
        BackupTemplate::crd(),
        AgentTemplate::crd(),
        AppBinding::crd(),
    ]
}

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
        also_served_as(Recovery::crd(), "v1alpha1"),
        BackupTrigger::crd(),
        BackupTemplate::crd(),
        AgentTemplate::crd(),
        AppBinding::crd(),
    ]
}

/// Serves the stored version under an older name too. Both have the same schema, so nothing needs converting.
fn also_served_as(mut crd: CustomResourceDefinition, version: &str) -> CustomResourceDefinition {
    if let [stored] = crd.spec.versions.as_slice() {
        let mut older = stored.clone();
        older.name = version.to_owned();
        older.storage = false;
        crd.spec.versions.push(older);
    }
    crd
}

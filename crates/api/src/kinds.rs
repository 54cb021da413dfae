//! Which kinds Holdfast knows, and the JSON schema of each: its own, and those of Kubernetes that it protects or that
//! resolve the volumes of what it protects.

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Secret, Service,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::CustomResourceExt;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

use crate::appcatalog::{self, AppBinding};
use crate::stash::{self, AgentTemplate, Backup, BackupTemplate, BackupTrigger, Recovery, Repository, Restic};

/// A kind that Holdfast knows.
#[derive(Debug)]
pub struct KindInfo {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, such as `v1`.
    pub version: &'static str,
    /// Kind, such as `Deployment`.
    pub kind: &'static str,
    /// Plural in lower case, such as `deployments`.
    pub plural: &'static str,
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether it is one of Holdfast's own kinds and not one of Kubernetes.
    pub ours: bool,
    schema: LazyLock<Value>,
}

impl KindInfo {
    /// The value of `apiVersion`, such as `apps/v1` or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The JSON schema of an object of this kind; references are to its own `$defs`. Generated at the first call.
    ///
    /// Texts that one of [`crate::values`] parses have its `format`: `holdfast-schedule`, `holdfast-duration`,
    /// `holdfast-quantity`, `holdfast-calendar-span` or `holdfast-time-zone`.
    pub fn schema(&self) -> &Value {
        &self.schema
    }
}

/// Every kind that Holdfast knows.
pub static KNOWN: [KindInfo; 22] = [
    own::<Restic>(stash::GROUP, "v1alpha1", "Restic", "restics", true),
    own::<Repository>(stash::GROUP, "v1alpha2", "Repository", "repositories", true),
    own::<Backup>(stash::GROUP, "v1alpha2", "Backup", "backups", true),
    own::<Recovery>(stash::GROUP, "v1alpha2", "Recovery", "recoveries", true),
    // The fields of this version are a part of those of the next one.
    own::<Recovery>(stash::GROUP, "v1alpha1", "Recovery", "recoveries", true),
    own::<BackupTrigger>(stash::GROUP, "v1alpha2", "BackupTrigger", "backuptriggers", true),
    own::<BackupTemplate>(stash::GROUP, "v1alpha2", "BackupTemplate", "backuptemplates", false),
    own::<AgentTemplate>(stash::GROUP, "v1alpha2", "AgentTemplate", "agenttemplates", false),
    own::<AppBinding>(appcatalog::GROUP, "v1alpha1", "AppBinding", "appbindings", true),
    kubernetes::<Deployment>(true),
    kubernetes::<StatefulSet>(true),
    kubernetes::<DaemonSet>(true),
    kubernetes::<ReplicaSet>(true),
    kubernetes::<ReplicationController>(true),
    kubernetes::<Pod>(true),
    kubernetes::<PersistentVolumeClaim>(true),
    kubernetes::<PersistentVolume>(false),
    kubernetes::<ConfigMap>(true),
    kubernetes::<Secret>(true),
    kubernetes::<Namespace>(false),
    kubernetes::<Service>(true),
    kubernetes::<StorageClass>(false),
];

/// The kind of this `apiVersion` and `kind`.
pub fn find(api_version: &str, kind: &str) -> Option<&'static KindInfo> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    KNOWN.iter().find(|known| known.group == group && known.version == version && known.kind == kind)
}

const fn own<T: CustomResourceExt>(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    namespaced: bool,
) -> KindInfo {
    KindInfo { group, version, kind, plural, namespaced, ours: true, schema: LazyLock::new(own_schema::<T>) }
}

const fn kubernetes<T: k8s_openapi::Resource + JsonSchema>(namespaced: bool) -> KindInfo {
    KindInfo {
        group: T::GROUP,
        version: T::VERSION,
        kind: T::KIND,
        plural: T::URL_PATH_SEGMENT,
        namespaced,
        ours: false,
        schema: LazyLock::new(kubernetes_schema::<T>),
    }
}

fn own_schema<T: CustomResourceExt>() -> Value {
    let schema = T::crd().spec.versions.into_iter().next().and_then(|version| version.schema);
    schema
        .and_then(|schema| schema.open_api_v3_schema)
        .and_then(|schema| serde_json::to_value(schema).ok())
        .unwrap_or(Value::Bool(true))
}

fn kubernetes_schema<T: JsonSchema>() -> Value {
    SchemaSettings::default().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_schema_with_metadata_or_spec() {
        for known in &KNOWN {
            let properties = &known.schema()["properties"];
            assert!(properties.is_object(), "{} {}", known.api_version(), known.kind);
            assert_eq!(properties["spec"].is_object() && known.ours, known.ours, "{}", known.kind);
        }
    }

    #[test]
    fn own_kinds_agree_with_their_definitions() {
        let crds = crate::crds::crds();
        for known in KNOWN.iter().filter(|known| known.ours) {
            let crd = crds
                .iter()
                .find(|crd| crd.spec.group == known.group && crd.spec.names.kind == known.kind)
                .unwrap_or_else(|| panic!("no definition of {}", known.kind));
            assert_eq!(crd.spec.names.plural, known.plural);
            assert_eq!(crd.spec.scope == "Namespaced", known.namespaced, "{}", known.kind);
            assert!(crd.spec.versions.iter().any(|version| version.name == known.version), "{}", known.kind);
        }
    }

    #[test]
    fn kinds_are_found_by_api_version_and_kind() {
        assert_eq!(find("apps/v1", "Deployment").map(|known| known.plural), Some("deployments"));
        assert_eq!(find("v1", "PersistentVolume").map(|known| known.namespaced), Some(false));
        assert_eq!(find("stash.appscode.com/v1alpha1", "Recovery").map(|known| known.ours), Some(true));
        assert!(find("v1", "Deployment").is_none());
        assert!(find("apps/v2", "Deployment").is_none());
    }
}

//! The kinds that are watched and written, as the API server addresses them.

use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};

/// A kind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource {
    pub(crate) kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    /// Only objects with this label are watched; empty for all, none for none.
    pub(crate) watched: Option<&'static str>,
}

const OURS: &str = "app.kubernetes.io/managed-by=holdfast";
const STASH: &str = holdfast_api::stash::GROUP;
const RBAC: &str = "rbac.authorization.k8s.io";

/// Every kind.
pub(crate) const ALL: [Resource; 22] = [
    resource("Restic", STASH, "v1alpha1", "restics", Some("")),
    resource("Repository", STASH, "v1alpha2", "repositories", Some("")),
    resource("Backup", STASH, "v1alpha2", "backups", Some("")),
    resource("Recovery", STASH, "v1alpha2", "recoveries", Some("")),
    resource("BackupTrigger", STASH, "v1alpha2", "backuptriggers", Some("")),
    resource("BackupTemplate", STASH, "v1alpha2", "backuptemplates", Some("")),
    resource("AgentTemplate", STASH, "v1alpha2", "agenttemplates", Some("")),
    resource("AppBinding", holdfast_api::appcatalog::GROUP, "v1alpha1", "appbindings", Some("")),
    resource("Deployment", "apps", "v1", "deployments", Some("")),
    resource("StatefulSet", "apps", "v1", "statefulsets", Some("")),
    resource("DaemonSet", "apps", "v1", "daemonsets", Some("")),
    resource("ReplicaSet", "apps", "v1", "replicasets", Some("")),
    resource("ReplicationController", "", "v1", "replicationcontrollers", Some("")),
    resource("Pod", "", "v1", "pods", Some("")),
    resource("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", Some("")),
    resource("Namespace", "", "v1", "namespaces", Some("")),
    resource("Job", "batch", "v1", "jobs", Some(OURS)),
    resource("ServiceAccount", "", "v1", "serviceaccounts", Some(OURS)),
    resource("Role", RBAC, "v1", "roles", Some(OURS)),
    resource("RoleBinding", RBAC, "v1", "rolebindings", Some(OURS)),
    resource("Event", "", "v1", "events", None),
    resource("CustomResourceDefinition", "apiextensions.k8s.io", "v1", "customresourcedefinitions", None),
];

const fn resource(
    kind: &'static str,
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    watched: Option<&'static str>,
) -> Resource {
    Resource { kind, group, version, plural, watched }
}

impl Resource {
    /// The kind of this name.
    pub(crate) fn find(kind: &str) -> Option<Self> {
        ALL.into_iter().find(|resource| resource.kind == kind)
    }

    /// The kind with the version that an object says it has.
    fn api_resource(self) -> ApiResource {
        let Self { kind, group, version, plural, .. } = self;
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version,
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// The name of what defines it, as that of a CustomResourceDefinition.
    pub(crate) fn definition(self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The value of `apiVersion`.
    pub(crate) fn api_version(self) -> String {
        self.api_resource().api_version
    }

    /// Access to all objects of the kind, or to those of a namespace.
    pub(crate) fn api(self, client: &Client, namespace: &str) -> Api<DynamicObject> {
        match namespace {
            "" => Api::all_with(client.clone(), &self.api_resource()),
            namespace => Api::namespaced_with(client.clone(), namespace, &self.api_resource()),
        }
    }
}

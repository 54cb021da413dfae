//! Names of objects, as plain, ordered values: every list of a plan is sorted by them.

use std::fmt;

use serde::{Serialize, Serializer};

/// The kind, namespace and name of an object; written `Kind namespace/name`, or `Kind name` where the kind
/// lives outside namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The kind in CamelCase, for example `Backup`.
    pub kind: String,
    /// The namespace; empty for kinds outside namespaces.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// Names an object.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, namespace, name } = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The kinds whose data a backup can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetKind {
    /// apps/v1
    Deployment,
    /// apps/v1
    StatefulSet,
    /// apps/v1
    DaemonSet,
    /// apps/v1
    ReplicaSet,
    /// v1
    ReplicationController,
    /// v1
    Pod,
    /// v1
    PersistentVolumeClaim,
    /// v1, outside namespaces
    PersistentVolume,
    /// appcatalog.appscode.com/v1alpha1: a database
    AppBinding,
}

impl TargetKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::Pod,
        Self::PersistentVolumeClaim,
        Self::PersistentVolume,
        Self::AppBinding,
    ];

    /// The kind's name in CamelCase.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Pod => "Pod",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::PersistentVolume => "PersistentVolume",
            Self::AppBinding => "AppBinding",
        }
    }

    /// The kind as it stands in repository paths and generated names: lower case.
    pub fn path_segment(self) -> String {
        self.name().to_ascii_lowercase()
    }

    /// The API group; empty for the core group.
    pub fn group(self) -> &'static str {
        match self {
            Self::Deployment | Self::StatefulSet | Self::DaemonSet | Self::ReplicaSet => "apps",
            Self::ReplicationController | Self::Pod | Self::PersistentVolumeClaim | Self::PersistentVolume => "",
            Self::AppBinding => "appcatalog.appscode.com",
        }
    }

    /// The value of `apiVersion`.
    pub fn api_version(self) -> &'static str {
        match self.group() {
            "" => "v1",
            "apps" => "apps/v1",
            _ => "appcatalog.appscode.com/v1alpha1",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The workload or volume that a backup reads, or a recovery writes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// Its kind.
    pub kind: TargetKind,
    /// Its namespace; empty for a PersistentVolume.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Target {
    /// Names a target.
    pub fn new(kind: TargetKind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The same as an object's key.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind.name(), self.namespace.clone(), self.name.clone())
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.key())
    }
}

//! Objects as their own types.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController, Secret, Service,
};
use k8s_openapi::api::storage::v1::StorageClass;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, Value as Json};

use crate::appcatalog::AppBinding;
use crate::stash::{AgentTemplate, Backup, BackupTemplate, BackupTrigger, Recovery, Repository, Restic};

/// An object as its own type. It has no `Debug`, which would show what a Secret holds.
#[derive(Clone)]
#[expect(missing_docs, reason = "each variant is the kind of its name")]
pub enum Typed {
    Restic(Box<Restic>),
    Repository(Box<Repository>),
    Backup(Box<Backup>),
    Recovery(Box<Recovery>),
    BackupTrigger(Box<BackupTrigger>),
    BackupTemplate(Box<BackupTemplate>),
    AgentTemplate(Box<AgentTemplate>),
    AppBinding(Box<AppBinding>),
    Deployment(Box<Deployment>),
    StatefulSet(Box<StatefulSet>),
    DaemonSet(Box<DaemonSet>),
    ReplicaSet(Box<ReplicaSet>),
    ReplicationController(Box<ReplicationController>),
    Pod(Box<Pod>),
    PersistentVolumeClaim(Box<PersistentVolumeClaim>),
    PersistentVolume(Box<PersistentVolume>),
    ConfigMap(Box<ConfigMap>),
    Secret(Box<Secret>),
    Namespace(Box<Namespace>),
    Service(Box<Service>),
    StorageClass(Box<StorageClass>),
}

impl Typed {
    /// Reads an object of a known kind; both versions of `Recovery` are one type.
    pub(super) fn from_json(kind: &str, json: Json) -> Result<Self, Error> {
        match kind {
            "Restic" => read(json, Self::Restic),
            "Repository" => read(json, Self::Repository),
            "Backup" => read(json, Self::Backup),
            "Recovery" => read(json, Self::Recovery),
            "BackupTrigger" => read(json, Self::BackupTrigger),
            "BackupTemplate" => read(json, Self::BackupTemplate),
            "AgentTemplate" => read(json, Self::AgentTemplate),
            "AppBinding" => read(json, Self::AppBinding),
            "Deployment" => read(json, Self::Deployment),
            "StatefulSet" => read(json, Self::StatefulSet),
            "DaemonSet" => read(json, Self::DaemonSet),
            "ReplicaSet" => read(json, Self::ReplicaSet),
            "ReplicationController" => read(json, Self::ReplicationController),
            "Pod" => read(json, Self::Pod),
            "PersistentVolumeClaim" => read(json, Self::PersistentVolumeClaim),
            "PersistentVolume" => read(json, Self::PersistentVolume),
            "ConfigMap" => read(json, Self::ConfigMap),
            "Secret" => read(json, Self::Secret),
            "Namespace" => read(json, Self::Namespace),
            "Service" => read(json, Self::Service),
            "StorageClass" => read(json, Self::StorageClass),
            other => Err(Error::custom(format!("{other} has no type"))),
        }
    }
}

fn read<T: DeserializeOwned>(json: Json, wrap: fn(Box<T>) -> Typed) -> Result<Typed, Error> {
    serde_json::from_value(json).map(wrap)
}

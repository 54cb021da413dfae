//! The objects of one namespace, and of the cluster as far as they matter to it, by kind and name; and the part of them
//! that the planner reads.

use std::collections::BTreeMap;

use holdfast_api::manifest::{self, Outcome};
use holdfast_api::names::pod as names;
use holdfast_plan::{ObjectKey, Target, TargetKind};
use serde_json::{Value, json};

use crate::container::VOLUME_PREFIX;

/// The kinds of workloads that get a sidecar.
pub(crate) const WORKLOADS: [TargetKind; 5] = [
    TargetKind::Deployment,
    TargetKind::StatefulSet,
    TargetKind::DaemonSet,
    TargetKind::ReplicaSet,
    TargetKind::ReplicationController,
];

/// The kinds that the planner reads, besides workloads.
const PLANNED: [&str; 9] = [
    "Restic",
    "Repository",
    "Backup",
    "Recovery",
    "BackupTrigger",
    "BackupTemplate",
    "AgentTemplate",
    "AppBinding",
    "PersistentVolumeClaim",
];

/// Objects as the API server has them.
#[derive(Debug)]
pub(crate) struct World<'a> {
    /// The namespace that is decided on.
    pub(crate) namespace: &'a str,
    objects: BTreeMap<(&'a str, &'a str, &'a str), &'a Value>,
}

impl<'a> World<'a> {
    pub(crate) fn new(namespace: &'a str, objects: impl IntoIterator<Item = &'a Value>) -> Self {
        let key = |object: &'a Value| (text(object, "/kind"), text(object, "/metadata/namespace"), name(object));
        Self { namespace, objects: objects.into_iter().map(|object| (key(object), object)).collect() }
    }

    /// An object of the namespace.
    pub(crate) fn get(&self, kind: &str, name: &str) -> Option<&'a Value> {
        self.objects.get(&(kind, self.namespace, name)).copied()
    }

    /// An object of another namespace, or of none.
    pub(crate) fn elsewhere(&self, kind: &str, namespace: &str, name: &str) -> Option<&'a Value> {
        self.objects.get(&(kind, namespace, name)).copied()
    }

    /// The observed form of a planned object.
    pub(crate) fn of(&self, key: &ObjectKey) -> Option<&'a Value> {
        self.objects.get(&(key.kind.as_str(), key.namespace.as_str(), key.name.as_str())).copied()
    }

    /// The objects of a kind in the namespace, by name.
    pub(crate) fn all(&self, kind: &'a str) -> impl Iterator<Item = &'a Value> + '_ {
        let of_kind = self.objects.range((kind, self.namespace, "")..);
        of_kind.take_while(move |((k, n, _), _)| *k == kind && *n == self.namespace).map(|(_, object)| *object)
    }

    /// The objects of a kind wherever they are.
    pub(crate) fn everywhere(&self, kind: &'a str) -> impl Iterator<Item = &'a Value> + '_ {
        self.objects.range((kind, "", "")..).take_while(move |((k, _, _), _)| *k == kind).map(|(_, object)| *object)
    }

    /// The workloads of the namespace that may get a sidecar.
    pub(crate) fn workloads(&self) -> impl Iterator<Item = (Target, &'a Value)> + '_ {
        WORKLOADS.into_iter().flat_map(move |kind| {
            self.all(kind.name()).map(move |object| (Target::new(kind, self.namespace, name(object)), object))
        })
    }

    /// The namespace itself.
    fn itself(&self) -> Option<&'a Value> {
        self.elsewhere("Namespace", "", self.namespace)
    }

    /// Whether the namespace is being deleted: nothing can be made in it any more.
    pub(crate) fn is_terminating(&self) -> bool {
        self.itself().is_some_and(is_deleted)
    }

    /// Whether the namespace admits only pods of the level `restricted`.
    pub(crate) fn is_restricted(&self) -> bool {
        let level = self
            .itself()
            .and_then(|object| object.pointer("/metadata/labels")?.get("pod-security.kubernetes.io/enforce"));
        level.and_then(Value::as_str) == Some("restricted")
    }

    /// What the planner reads: our kinds without status, and workloads as their owners wrote them, without what we put
    /// in and without fields that no backup depends on and a newer server may have added.
    pub(crate) fn outcome(&self) -> Outcome {
        manifest::read_objects(self.objects.iter().filter_map(|((kind, _, _), object)| {
            if PLANNED.contains(kind) {
                Some(reduced(object))
            } else if WORKLOADS.iter().any(|workload| workload.name() == *kind) {
                Some(workload(object))
            } else {
                None
            }
        }))
    }
}

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The UID of an object.
pub(crate) fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether an object is being deleted.
pub(crate) fn is_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// The moment at a JSON pointer.
pub(crate) fn moment(object: &Value, pointer: &str) -> Option<jiff::Timestamp> {
    text(object, pointer).parse().ok()
}

/// Kind, name and UID of the controller of an object.
pub(crate) fn controller(object: &Value) -> Option<(&str, &str, &str)> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((text(owner, "/kind"), text(owner, "/name"), text(owner, "/uid")))
}

/// A reference by which `owner` owns an object of its namespace.
pub(crate) fn owner_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    })
}

/// What a person wrote of an object: its identity, labels, annotations and spec.
fn reduced(object: &Value) -> Value {
    let mut reduced = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "spec": object["spec"]});
    reduced["metadata"] = metadata(object);
    reduced
}

fn metadata(object: &Value) -> Value {
    let mut kept = serde_json::Map::new();
    for field in ["name", "namespace", "labels", "annotations", "ownerReferences", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            kept.insert(field.to_owned(), value.clone());
        }
    }
    Value::Object(kept)
}

fn workload(object: &Value) -> Value {
    let spec = &object["spec"];
    let mut kept = json!({"template": {"spec": pod_spec(&spec["template"]["spec"])}});
    for field in ["replicas", "ordinals", "selector", "serviceName"] {
        if let Some(value) = spec.get(field) {
            kept[field] = value.clone();
        }
    }
    if text(object, "/kind") == "StatefulSet" {
        // Scaled to nothing it is still protected: its pods come back with what they need.
        kept["replicas"] = json!(spec["replicas"].as_i64().unwrap_or(1).max(1));
        let templates = spec["volumeClaimTemplates"].as_array();
        let names = templates.into_iter().flatten().map(|claim| json!({"metadata": {"name": name(claim)}}));
        kept["volumeClaimTemplates"] = names.collect();
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata(object), "spec": kept})
}

fn pod_spec(spec: &Value) -> Value {
    let of = |field: &str| spec[field].as_array().into_iter().flatten();
    let containers = |field: &str| -> Value {
        let own = of(field).filter(|container| !is_ours(container));
        own.map(|container| {
            let mut kept = json!({"name": container["name"]});
            for field in ["image", "volumeMounts", "restartPolicy"] {
                if let Some(value) = container.get(field) {
                    kept[field] = value.clone();
                }
            }
            kept
        })
        .collect()
    };
    let volumes: Value = of("volumes").filter(|volume| !is_our_volume(volume)).cloned().collect();
    json!({"containers": containers("containers"), "initContainers": containers("initContainers"), "volumes": volumes})
}

/// Whether a container of an observed pod or template was put in by us.
pub(crate) fn is_ours(container: &Value) -> bool {
    container["env"].as_array().is_some_and(|env| env.iter().any(|variable| variable["name"] == names::TARGET))
}

/// The statuses of the containers of a pod that were put in by us, those before its start first.
pub(crate) fn statuses_of_ours(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = [("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")];
    lists.into_iter().flat_map(|(containers, statuses)| {
        let of = |of: &'static str, field: &'static str| pod[of][field].as_array().into_iter().flatten();
        let ours: Vec<&Value> = of("spec", containers).filter(|container| is_ours(container)).collect();
        of("status", statuses).filter(move |status| ours.iter().any(|container| container["name"] == status["name"]))
    })
}

/// How a container has failed, of its status, until it is tried again.
pub(crate) fn failure(status: &Value) -> Option<&Value> {
    let ended = &status["state"]["terminated"];
    ended["exitCode"].as_i64().is_some_and(|code| code != 0).then_some(ended)
}

/// What keeps a container from running, of its status: that it has failed and is tried again, or has no image.
pub(crate) fn hindrance(status: &Value) -> Option<&Value> {
    let waiting = &status["state"]["waiting"];
    (!matches!(text(waiting, "/reason"), "" | "PodInitializing" | "ContainerCreating")).then_some(waiting)
}

/// Whether a volume of an observed pod or template was put in by us.
pub(crate) fn is_our_volume(volume: &Value) -> bool {
    text(volume, "/name").starts_with(VOLUME_PREFIX)
}

//! What is kept of an object: what a decision may depend on, and nothing else.

use serde_json::{Map, Value, json};

use crate::world::is_ours;

/// Labels and annotations that count on objects that are not ours.
const OUR_DOMAINS: [&str; 4] =
    ["stash.appscode.com/", "restic.appscode.com/", "holdfast/", "pod-security.kubernetes.io/"];

/// Takes away what nothing depends on.
pub(crate) fn trim(kind: &str, object: &mut Value) {
    trim_metadata(object);
    let is_workload =
        matches!(kind, "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "ReplicationController");
    if is_workload {
        keep_annotations(object);
        remove(object, &["status"]);
        trim_workload(object);
    } else {
        match kind {
            "Pod" => trim_pod(object),
            "PersistentVolumeClaim" => {
                keep_annotations(object);
                let spec = keep(&object["spec"], &["accessModes", "volumeMode"]);
                object["spec"] = spec;
                remove(object, &["status"]);
            }
            "Namespace" => {
                remove(object, &["spec", "status"]);
                keep_annotations(object);
            }
            "Job" => {
                remove(object, &["spec"]);
                let status = keep(&object["status"], &["conditions"]);
                object["status"] = status;
            }
            _ => {}
        }
    }
}

fn trim_metadata(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "selfLink"] {
            metadata.remove(field);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    }
}

/// Keeps the annotations that are ours to read.
fn keep_annotations(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("generation");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| OUR_DOMAINS.iter().any(|domain| key.starts_with(domain)));
        }
    }
}

fn trim_workload(object: &mut Value) {
    let spec =
        keep(&object["spec"], &["replicas", "ordinals", "selector", "serviceName", "template", "volumeClaimTemplates"]);
    object["spec"] = spec;
    if let Some(claims) = object["spec"]["volumeClaimTemplates"].as_array_mut() {
        for claim in claims {
            *claim = json!({"metadata": {"name": claim["metadata"]["name"]}});
        }
    }
    let template = &mut object["spec"]["template"];
    keep_annotations(template);
    let pod = &mut template["spec"];
    let mut kept = keep(
        pod,
        &["containers", "initContainers", "volumes", "imagePullSecrets", "securityContext", "serviceAccountName"],
    );
    for field in ["containers", "initContainers"] {
        for container in kept[field].as_array_mut().into_iter().flatten() {
            // Ours are compared whole.
            if !is_ours(container) {
                *container = keep(container, &["name", "image", "restartPolicy", "securityContext", "volumeMounts"]);
            }
        }
        if kept[field].is_null() {
            remove(&mut kept, &[field]);
        }
    }
    *pod = kept;
}

fn trim_pod(object: &mut Value) {
    let metadata = &object["metadata"];
    let mut kept_metadata = keep(metadata, &["name", "namespace", "uid", "deletionTimestamp"]);
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners: Vec<Value> = owners
        .filter(|owner| owner["controller"] == true)
        .map(|owner| keep(owner, &["kind", "name", "uid", "controller"]))
        .collect();
    kept_metadata["ownerReferences"] = json!(owners);
    if let Some(annotation) = metadata["annotations"].get(crate::sidecar::SIDECAR_ANNOTATION) {
        kept_metadata["annotations"] = json!({crate::sidecar::SIDECAR_ANNOTATION: annotation});
    }
    let of = |field: &str| object["spec"][field].as_array().into_iter().flatten();
    let ours = |field: &str| -> Vec<Value> {
        let ours = of(field).filter(|container| is_ours(container));
        ours.map(|container| json!({"name": container["name"], "env": [{"name": holdfast_api::names::pod::TARGET}]}))
            .collect()
    };
    let claims: Vec<Value> = of("volumes")
        .filter(|volume| !volume["persistentVolumeClaim"].is_null())
        .map(|volume| keep(volume, &["persistentVolumeClaim"]))
        .collect();
    let mut spec = keep(&object["spec"], &["nodeName"]);
    let mut status = keep(&object["status"], &["phase", "reason"]);
    for (field, list) in [("containers", ours("containers")), ("initContainers", ours("initContainers"))] {
        let names: Vec<&Value> = list.iter().map(|container| &container["name"]).collect();
        let of_field = if field == "containers" { "containerStatuses" } else { "initContainerStatuses" };
        let statuses = object["status"][of_field].as_array().into_iter().flatten();
        let statuses: Vec<Value> = statuses
            .filter(|status| names.contains(&&status["name"]))
            .map(|status| keep(status, &["name", "state", "lastState"]))
            .collect();
        if !list.is_empty() {
            spec[field] = json!(list);
        }
        if !statuses.is_empty() {
            status[of_field] = json!(statuses);
        }
    }
    if !claims.is_empty() {
        spec["volumes"] = json!(claims);
    }
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let conditions: Vec<Value> = conditions
        .filter(|one| one["type"] == "Ready" || one["type"] == "PodScheduled" && one["status"] == "False")
        .map(|one| keep(one, if one["type"] == "Ready" { &["type", "status"] } else { &["type", "status", "message"] }))
        .collect();
    status["conditions"] = json!(conditions);
    *object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": kept_metadata, "spec": spec, "status": status});
}

fn keep(object: &Value, fields: &[&str]) -> Value {
    let kept = fields.iter().filter_map(|&field| Some((field.to_owned(), object.get(field)?.clone())));
    Value::Object(kept.collect::<Map<_, _>>())
}

fn remove(object: &mut Value, fields: &[&str]) {
    if let Some(object) = object.as_object_mut() {
        fields.iter().for_each(|&field| drop(object.remove(field)));
    }
}

//! What is kept of an object: what a decision may depend on, and nothing else.

use holdfast_api::names::pod as names;
use serde_json::{Map, Value, json};

use crate::world::{controller, is_ours};

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
        trim_status(object);
        // One that a controller made is never patched: it only says whose the pods are. A Deployment has many of them.
        if controller(object).is_some() {
            remove(object, &["spec"]);
        } else {
            trim_workload(object);
        }
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

/// Keeps of a workload's status that its pods cannot be made, and why.
fn trim_status(object: &mut Value) {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let failures: Vec<Value> = conditions
        .filter(|one| one["type"] == "ReplicaFailure" && one["status"] == "True")
        .map(|one| keep(one, &["type", "status", "message"]))
        .collect();
    remove(object, &["status"]);
    if !failures.is_empty() {
        object["status"] = json!({"conditions": failures});
    }
}

fn trim_workload(object: &mut Value) {
    let spec = &object["spec"];
    let fields =
        ["replicas", "ordinals", "selector", "serviceName", "template", "updateStrategy", "volumeClaimTemplates"];
    object["spec"] = keep(spec, &fields);
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
        ours.map(|container| json!({"name": container["name"], "env": whose(container)})).collect()
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

/// Of the variables of a container those that make it ours, and say what it carries out.
fn whose(container: &Value) -> Vec<Value> {
    let variables = container["env"].as_array().into_iter().flatten();
    let kept = variables.filter_map(|variable| match variable["name"].as_str()? {
        names::TARGET => Some(json!({"name": names::TARGET})),
        names::BACKUP_NAME | names::RECOVERY_NAME => Some(keep(variable, &["name", "value"])),
        _ => None,
    });
    kept.collect()
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::{Settings, decide};

    /// The objects of a golden case, as a server would have them, and its namespace.
    fn objects(case: &Path) -> (Vec<Value>, String) {
        let files: Vec<PathBuf> = fs::read_dir(case.join("given")).unwrap().map(|file| file.unwrap().path()).collect();
        let (mut objects, mut namespace) = (Vec::new(), "demo".to_owned());
        for file in files {
            let documents: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(&file).unwrap()).unwrap();
            for mut document in documents {
                if document["kind"].is_null() {
                    namespace = document["namespace"].as_str().map_or(namespace, str::to_owned);
                    continue;
                }
                let number = objects.len();
                let is_clusters =
                    ["Namespace", "AgentTemplate", "BackupTemplate"].iter().any(|kind| document["kind"] == *kind);
                let metadata = document["metadata"].as_object_mut().unwrap();
                metadata.entry("uid").or_insert_with(|| json!(format!("uid-{number}")));
                metadata.entry("generation").or_insert_with(|| json!(1));
                if !is_clusters {
                    metadata.entry("namespace").or_insert_with(|| json!("demo"));
                }
                objects.push(document);
            }
        }
        (objects, namespace)
    }

    #[test]
    fn what_is_taken_away_changes_no_decision() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden-operator");
        let (now, settings) = ("2026-11-21T12:00:00Z".parse().unwrap(), Settings::new("holdfast:1"));
        let mut cases = 0;
        for case in fs::read_dir(folder).unwrap() {
            let case = case.unwrap().path();
            let (objects, namespace) = objects(&case);
            let mut trimmed = objects.clone();
            for object in &mut trimmed {
                let (kind, version) =
                    (object["kind"].as_str().unwrap().to_owned(), object["metadata"].get("resourceVersion").cloned());
                trim(&kind, object);
                version.into_iter().for_each(|version| object["metadata"]["resourceVersion"] = version);
            }
            let [whole, trimmed] = [objects, trimmed].map(|objects| decide(&namespace, &objects, now, &settings));
            assert_eq!(trimmed, whole, "{}", case.display());
            cases += 1;
        }
        assert!(cases > 25, "only {cases} cases are left");
    }

    #[test]
    fn a_replica_set_of_a_deployment_is_a_name_between_it_and_its_pods() {
        let template =
            json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
        let mut free = json!({"kind": "ReplicaSet", "metadata": {"name": "a"}, "spec": {"template": template}});
        let mut owned = free.clone();
        owned["metadata"]["ownerReferences"] =
            json!([{"kind": "Deployment", "name": "d", "uid": "1", "controller": true}]);
        [&mut free, &mut owned].into_iter().for_each(|object| trim("ReplicaSet", object));
        assert_eq!(free["spec"]["template"], template);
        assert_eq!(
            owned,
            json!({"kind": "ReplicaSet", "metadata": {"name": "a", "ownerReferences": owned["metadata"]["ownerReferences"]}})
        );
    }
}

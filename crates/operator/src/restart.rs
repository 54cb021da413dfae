//! Restarts of the pods of a ReplicaSet or ReplicationController that nothing controls: Kubernetes keeps their pods as
//! they are when the template changes. One pod goes at a time, by eviction, and the next one only when its replacement
//! is ready.

use holdfast_plan::{ObjectKey, Target, TargetKind};
use serde_json::Value;

use crate::action::Action;
use crate::sidecar::SIDECAR_ANNOTATION;
use crate::world::{World, controller, is_deleted, name, uid};

/// The next pod to be replaced, if one is and the others are well.
pub(crate) fn next(world: &World<'_>, target: &Target, workload: &Value) -> Option<Action> {
    if !matches!(target.kind, TargetKind::ReplicaSet | TargetKind::ReplicationController) {
        return None;
    }
    let wanted = annotation(&workload["spec"]["template"]);
    let owned = |pod: &&Value| controller(pod).is_some_and(|(_, _, owner)| owner == uid(workload));
    let pods: Vec<&Value> = world.all("Pod").filter(owned).filter(|pod| !is_finished(pod)).collect();
    let is_outdated = |pod: &&&Value| annotation(pod) != wanted;
    let replicas = workload["spec"]["replicas"].as_u64().unwrap_or(1);
    let wait = pods.iter().any(|pod| is_deleted(pod))
        || (pods.len() as u64) < replicas
        || pods.iter().any(|pod| annotation(pod) == wanted && !is_ready(pod));
    if wait {
        return None;
    }
    // One that is not ready serves nobody and goes first.
    let pod = pods.iter().filter(is_outdated).min_by_key(|pod| (is_ready(pod), name(pod)))?;
    Some(Action::Evict {
        because: format!("it was made before the pods of {} changed", target.key()),
        object: ObjectKey::new("Pod", world.namespace, name(pod)),
        uid: uid(pod).to_owned(),
    })
}

fn annotation(object: &Value) -> Option<&str> {
    object.pointer("/metadata/annotations")?.get(SIDECAR_ANNOTATION)?.as_str()
}

/// Whether a pod serves.
pub(crate) fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
}

/// Whether the containers of a pod have ended for good.
pub(crate) fn is_finished(pod: &Value) -> bool {
    matches!(crate::world::text(pod, "/status/phase"), "Succeeded" | "Failed")
}

//! Restarts of pods that Kubernetes does not restart when their template changes, by eviction, one at a time.
//!
//! - Those of a ReplicaSet or ReplicationController that nothing controls stay as they are. The next one goes only when
//!   the replacement of the last is ready.
//! - Of a StatefulSet one that is not ready holds up the rollout, even if it is the new template that would mend it: a
//!   recovery that fails before the application starts would keep the workload down after it was corrected or deleted.

use holdfast_plan::{ObjectKey, Target, TargetKind};
use serde_json::Value;

use crate::action::Action;
use crate::sidecar::SIDECAR_ANNOTATION;
use crate::world::{World, controller, failure, hindrance, is_deleted, name, statuses_of_ours, text, uid};

/// The next pod to be replaced, if one is.
pub(crate) fn next(world: &World<'_>, target: &Target, workload: &Value) -> Option<Action> {
    let wanted = annotation(&workload["spec"]["template"]);
    let owned = |pod: &&Value| controller(pod).is_some_and(|(_, _, owner)| owner == uid(workload));
    let pods = || world.all("Pod").filter(owned).filter(|pod| !is_finished(pod));
    let pod = match target.kind {
        TargetKind::ReplicaSet | TargetKind::ReplicationController => {
            next_of_bare(workload, &pods().collect::<Vec<_>>(), wanted)
        }
        TargetKind::StatefulSet => {
            let is_stuck = |pod: &&Value| {
                annotation(pod) != wanted && !is_deleted(pod) && is_held_up(pod) && is_rolled_out(workload, pod)
            };
            pods().filter(is_stuck).min_by_key(|pod| name(pod))
        }
        _ => None,
    }?;
    Some(Action::Evict {
        because: format!("it was made before the pods of {} changed", target.key()),
        object: ObjectKey::new("Pod", world.namespace, name(pod)),
        uid: uid(pod).to_owned(),
    })
}

fn next_of_bare<'p>(workload: &Value, pods: &[&'p Value], wanted: Option<&str>) -> Option<&'p Value> {
    let is_outdated = |pod: &&Value| annotation(pod) != wanted;
    let replicas = workload["spec"]["replicas"].as_u64().unwrap_or(1);
    let wait = pods.iter().any(|pod| is_deleted(pod))
        || (pods.len() as u64) < replicas
        || pods.iter().any(|pod| annotation(pod) == wanted && !is_ready(pod));
    if wait {
        return None;
    }
    // One that is not ready serves nobody and goes first.
    pods.iter().copied().filter(is_outdated).min_by_key(|pod| (is_ready(pod), name(pod)))
}

/// Whether a pod is not ready by a container of ours, which failed or cannot start.
fn is_held_up(pod: &Value) -> bool {
    let has_failed = |status: &Value| hindrance(status).is_some() || failure(status).is_some();
    !is_ready(pod) && statuses_of_ours(pod).any(has_failed)
}

/// Whether a StatefulSet would make this pod anew by its present template.
fn is_rolled_out(workload: &Value, pod: &Value) -> bool {
    let spec = &workload["spec"];
    let number = |path: &str| spec.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let first = number("/ordinals/start") + number("/updateStrategy/rollingUpdate/partition");
    let ordinal = name(pod).rsplit_once('-').and_then(|(_, ordinal)| ordinal.parse::<u64>().ok());
    text(spec, "/updateStrategy/type") != "OnDelete" && ordinal.is_some_and(|ordinal| ordinal >= first)
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
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

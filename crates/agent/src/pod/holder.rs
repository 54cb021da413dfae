//! Whether the pod that holds a lock of a repository is gone, as the API server tells.
//!
//! What removes a lock has to be certain: in doubt, and without an answer, the holder is there.

use holdfast_api::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;

use super::connection::Caller;

/// By how much a clock and a time without fractions may differ.
const DOUBT: SignedDuration = SignedDuration::from_secs(2);

/// Whether nothing in the pod of this name can have written a lock at `time`, or renewed it then.
pub(super) fn is_gone(caller: &Caller, namespace: &str, pod: &str, time: Timestamp) -> bool {
    let pods: Api<Pod> = Api::namespaced(caller.client.clone(), namespace);
    caller.call(pods.get_opt(pod)).is_ok_and(|pod| pod.is_none_or(|pod| has_ended(&pod, time)))
}

/// Whether every container of ours in a pod has ended, or started after `time`.
fn has_ended(pod: &Pod, time: Timestamp) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let mut ours = containers
        .into_iter()
        .flatten()
        .filter(|container| container.env.iter().flatten().any(|variable| variable.name == names::pod::TARGET));
    let statuses: Vec<&ContainerStatus> =
        status.container_statuses.iter().chain(&status.init_container_statuses).flatten().collect();
    let can_hold = |name: &str| {
        let Some(found) = statuses.iter().find(|status| status.name == name) else { return true };
        let state = found.state.as_ref();
        match state.and_then(|state| state.running.as_ref()) {
            Some(running) => running.started_at.as_ref().is_none_or(|start| start.0 <= time + DOUBT),
            None => state.is_none_or(|state| state.terminated.is_none() && state.waiting.is_none()),
        }
    };
    // A pod without any container of ours is another one that took the name.
    !ours.any(|container| can_hold(&container.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(phase: &str, state: Value, expected: bool) {
        let pod = json!({
            "metadata": {"name": "db-0"},
            "spec": {"containers": [{"name": "app"}, {"name": "restic-sidecar", "env": [{"name": "HOLDFAST_TARGET"}]}]},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}}},
                {"name": "restic-sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 1, "state": state},
            ]},
        });
        let time = "2026-11-21T12:00:00Z".parse().unwrap();
        assert_eq!(has_ended(&serde_json::from_value(pod).unwrap(), time), expected, "{phase} {state}");
    }

    #[test]
    fn only_a_container_that_was_there_can_hold_a_lock() {
        let since = |time: &str| json!({"running": {"startedAt": time}});
        check("Running", since("2026-11-21T11:00:00Z"), false);
        check("Running", since("2026-11-21T12:00:01Z"), false);
        check("Running", since("2026-11-21T12:00:03Z"), true);
        check("Running", json!({"waiting": {"reason": "CrashLoopBackOff"}}), true);
        check("Running", json!({"terminated": {"exitCode": 137}}), true);
        check("Running", json!({}), false);
        check("Failed", since("2026-11-21T11:00:00Z"), true);
        check("Unknown", since("2026-11-21T11:00:00Z"), false);
    }
}

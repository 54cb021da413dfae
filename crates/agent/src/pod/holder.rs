//! Whether the pod that holds a lock of a repository is gone, as the API server tells.
//!
//! What removes a lock has to be certain: in doubt, and without an answer, the holder is there.

use holdfast_api::names;
use holdfast_repository::format::lock::LockFile;
use holdfast_repository::is_of_this_system;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning, ContainerStatus, Pod};
use kube::Api;

use super::connection::Caller;

/// By how much the clocks of two machines may differ.
const DOUBT: SignedDuration = SignedDuration::from_secs(2);

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) namespace: String,
    /// The UID of its pod.
    pub(super) uid: String,
    pub(super) node: String,
    /// When its process began: before it took any lock.
    pub(super) started: Timestamp,
}

/// A lock, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Written {
    /// When it was written or renewed.
    time: Timestamp,
    /// Whether that time is of the asker's own clock.
    here: bool,
}

/// Whether nothing in the pod that is named in a lock can have written it, or renewed it then.
pub(super) fn is_gone(caller: &Caller, asker: &Asker, lock: &LockFile) -> bool {
    let pods: Api<Pod> = Api::namespaced(caller.client.clone(), &asker.namespace);
    let written = Written { time: lock.time, here: is_of_this_system(lock) };
    caller.call(pods.get_opt(&lock.hostname)).is_ok_and(|pod| pod.is_none_or(|pod| has_ended(&pod, asker, written)))
}

/// Whether every container of ours in a pod has ended, or started after the lock was written.
fn has_ended(pod: &Pod, asker: &Asker, written: Written) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return true;
    }
    let spec = pod.spec.as_ref();
    let containers = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let ours = containers
        .into_iter()
        .flatten()
        .filter(|container| container.env.iter().flatten().any(|variable| variable.name == names::pod::TARGET));
    let statuses: Vec<&ContainerStatus> =
        status.container_statuses.iter().chain(&status.init_container_statuses).flatten().collect();
    // What a container is at; none is in doubt. A pod without any container of ours is another one that took the name.
    let states: Vec<Option<&ContainerState>> = ours
        .map(|container| statuses.iter().find(|status| status.name == container.name).and_then(|s| s.state.as_ref()))
        .collect();
    let is_known =
        |state: &&ContainerState| state.running.is_some() || state.terminated.is_some() || state.waiting.is_some();
    if !states.iter().all(|state| state.as_ref().is_some_and(is_known)) {
        return false;
    }
    let running: Vec<&ContainerStateRunning> =
        states.into_iter().flatten().filter_map(|s| s.running.as_ref()).collect();
    // The kubelet of that node told when a container started, rounded down to seconds. One that is taken for the holder
    // after a kill and a quick start keeps everybody waiting, so no more is doubted than has to be.
    let same_clock = written.here && spec.and_then(|spec| spec.node_name.as_deref()) == Some(asker.node.as_str());
    let doubt = if same_clock { SignedDuration::ZERO } else { DOUBT };
    // The only one that runs in the asker's own pod is the asker, who knows better.
    let is_asker = same_clock && running.len() == 1 && pod.metadata.uid.as_deref() == Some(asker.uid.as_str());
    running.iter().all(|running| {
        let told = running.started_at.as_ref().map(|start| start.0);
        let started = if is_asker { told.max(Some(asker.started)) } else { told };
        started.is_some_and(|started| started > written.time + doubt)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TIME: &str = "2026-11-21T12:00:00.4Z";

    fn pod(phase: &str, state: &Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "db-0", "uid": "u"},
            "spec": {"nodeName": "n", "containers": [{"name": "app"}, {"name": "restic-sidecar", "env": [{"name": "HOLDFAST_TARGET"}]}]},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}}},
                {"name": "restic-sidecar", "image": "", "imageID": "", "ready": true, "restartCount": 1, "state": state},
            ]},
        });
        serde_json::from_value(pod).unwrap()
    }

    fn asker(uid: &str, node: &str) -> Asker {
        let started = "2026-11-21T12:00:00.7Z".parse().unwrap();
        Asker { namespace: "demo".to_owned(), uid: uid.to_owned(), node: node.to_owned(), started }
    }

    fn check(phase: &str, state: Value, expected: bool) {
        let written = Written { time: TIME.parse().unwrap(), here: false };
        assert_eq!(has_ended(&pod(phase, &state), &asker("other", "other"), written), expected, "{phase} {state}");
    }

    fn since(time: &str) -> Value {
        json!({"running": {"startedAt": format!("2026-11-21T{time}Z")}})
    }

    #[test]
    fn only_a_container_that_was_there_can_hold_a_lock() {
        check("Running", since("11:00:00"), false);
        check("Running", since("12:00:02"), false);
        check("Running", since("12:00:03"), true);
        check("Running", json!({"waiting": {"reason": "CrashLoopBackOff"}}), true);
        check("Running", json!({"terminated": {"exitCode": 137}}), true);
        check("Running", json!({"running": {}}), false);
        check("Running", json!({}), false);
        check("Failed", since("11:00:00"), true);
        check("Unknown", since("11:00:00"), false);
    }

    #[test]
    fn by_one_clock_a_quick_start_leaves_no_doubt() {
        // Who asks, where; when the container started; whether the time of the lock is of this system.
        for (uid, node, start, here, expected) in [
            ("other", "n", "12:00:01", true, true),
            ("other", "n", "12:00:00", true, false),
            ("other", "n", "12:00:01", false, false),
            ("other", "elsewhere", "12:00:01", true, false),
            // In the same second: whole seconds do not tell, but the container that started is the asker's own.
            ("u", "n", "12:00:00", true, true),
            ("u", "n", "12:00:00", false, false),
        ] {
            let written = Written { time: TIME.parse().unwrap(), here };
            let ended = has_ended(&pod("Running", &since(start)), &asker(uid, node), written);
            assert_eq!(ended, expected, "{uid} {node} {start} {here}");
        }
        // Another pod of the name held it, or renewed it, after the asker began.
        let written = Written { time: "2026-11-21T12:00:00.8Z".parse().unwrap(), here: true };
        assert!(!has_ended(&pod("Running", &since("12:00:00")), &asker("u", "n"), written));
    }

    #[test]
    fn a_lock_is_of_this_system_until_its_next_start() {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let here = format!("{}/1", boot.trim());
        for (mark, expected) in [(json!(here), true), (json!("before/1"), false), (Value::Null, false)] {
            let lock = json!({"time": TIME, "exclusive": false, "hostname": "db-0", "username": "", "pid": 1,
                "process_namespace": mark});
            assert_eq!(is_of_this_system(&serde_json::from_value(lock).unwrap()), expected, "{mark}");
        }
    }
}

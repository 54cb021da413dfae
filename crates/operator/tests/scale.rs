//! A namespace with very many objects is decided on in seconds, even without optimization: nothing goes through all
//! objects for each object.

use std::time::{Duration, Instant};

use holdfast_operator::{Action, Settings, decide};
use serde_json::{Value, json};

/// Far above what it takes, far below what a step through all objects for each object would take.
const WITHIN: Duration = Duration::from_secs(60);

const WORKLOADS: usize = 500;
const BACKUPS: usize = 5_000;

fn objects() -> Vec<Value> {
    let metadata = |name: String| {
        let uid = format!("uid-{name}");
        json!({"name": name, "namespace": "demo", "uid": uid, "generation": 1, "resourceVersion": "1"})
    };
    let workload = |number: usize| {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(format!("w{number}")),
            "spec": {
                "selector": {"matchLabels": {"app": format!("w{number}")}},
                "template": {"spec": {
                    "containers": [{"name": "app", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                }},
            },
        })
    };
    let backup = |number: usize| {
        let target = format!("w{}", number % WORKLOADS);
        json!({
            "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup", "metadata": metadata(format!("b{number}")),
            "spec": {
                "schedule": "@every 1h",
                "repository": {"name": format!("r{}", number % WORKLOADS)},
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
                "targetDirectories": [format!("/data/{}", number / WORKLOADS)],
            },
        })
    };
    let repository = |number: usize| {
        let store = json!({"bucket": "b", "prefix": format!("p{number}")});
        json!({
            "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Repository", "metadata": metadata(format!("r{number}")),
            "spec": {"backend": {"storageSecretName": "s", "gcs": store}},
        })
    };
    let all = (0..WORKLOADS).map(workload).chain((0..BACKUPS).map(backup));
    all.chain((0..WORKLOADS).map(repository)).collect()
}

#[test]
fn thousands_of_backups_in_one_namespace() {
    let objects = objects();
    let start = Instant::now();
    let decision = decide("demo", &objects, jiff::Timestamp::UNIX_EPOCH, &Settings::new("holdfast:1"));
    let took = start.elapsed();
    let injected = decision
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Apply { object, .. } if object["kind"] == "Deployment"));
    assert_eq!(injected.count(), WORKLOADS);
    // A Role, a binding and a sidecar for each workload, a status for each Backup and Repository.
    assert_eq!(decision.actions.len(), WORKLOADS * 4 + BACKUPS);
    assert!(took < WITHIN, "{took:?}");
}

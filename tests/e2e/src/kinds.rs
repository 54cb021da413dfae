//! Every kind of workload by the label and a `Restic`: who restarts its pods, which hosts it has, where they are kept.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{REPOSITORY, Test, Value, is_true, test};

/// Keeps its repositories in the claim.
const RESTIC: &str = "
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {name: often}
spec:
  source: {volumeName: data, path: /data}
  destination:
    path: /stashrepo
    repositorySecretName: repository
    volume: {name: restic-volume, persistentVolumeClaim: {claimName: repository}}
  schedule: '*/10 * * * * *'
  retentionPolicy: {keepLastSnapshots: 3}
";

/// Waits until the last run of exactly these hosts of `often` has succeeded.
async fn backed_up(t: &Test, hosts: &[&str]) {
    t.wait("Restic/often", format!("{hosts:?} backed up"), |restic| {
        let all = restic["status"]["hosts"].as_array().into_iter().flatten();
        let done: BTreeSet<&str> =
            all.filter(|host| host["lastSuccess"].is_string()).filter_map(|host| host["host"].as_str()).collect();
        done == hosts.iter().copied().collect() && is_true(restic, "BackedUp")
    })
    .await;
}

/// What restic finds in the repository of a host.
async fn dump(t: &Test, host: &str, file: &str) -> String {
    let repository = format!("{}/{host}", t.namespace);
    t.restic_in_claim(&repository, "check --quiet --read-data").await;
    t.restic_in_claim(&repository, &format!("dump latest {file}")).await
}

#[test]
fn each_node_of_a_daemon_set_has_a_repository_of_its_own() {
    test(async |t| {
        t.operator().await;
        t.apply(REPOSITORY).await;
        t.apply(RESTIC).await;
        t.apply(
            "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agents, labels: {restic.appscode.com/config: often}}
spec:
  selector: {matchLabels: {app: agents}}
  updateStrategy: {rollingUpdate: {maxUnavailable: 2}}
  template:
    metadata: {labels: {app: agents}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: app
        image: $BUSYBOX
        command: [sh, -c, 'echo $NODE > /data/node; exec sleep 86400']
        env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, emptyDir: {}}]
---
# What bears the label and is nobody's to change: a bare Pod, and the ReplicaSet of a Deployment.
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {restic.appscode.com/config: often}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: app, image: $BUSYBOX, command: [sleep, '86400']}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: owned}
spec:
  selector: {matchLabels: {app: owned}}
  template:
    metadata: {labels: {app: owned, restic.appscode.com/config: often}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: $BUSYBOX, command: [sleep, '86400']}]
",
        )
        .await;
        t.containers("Deployment/owned", |_| true).await;
        let (alone, owned) = (t.get("Pod/alone").await, t.list("ReplicaSet", "app=owned").await);
        t.containers("DaemonSet/agents", |names| names == ["app", "restic-sidecar"]).await;
        backed_up(t, &["daemonset.agents.node-1", "daemonset.agents.node-2"]).await;
        for node in ["node-1", "node-2"] {
            assert_eq!(dump(t, &format!("daemonset/agents/{node}"), "/data/node").await, format!("{node}\n"));
        }
        let generation =
            |all: &[Value]| all.iter().map(|one| one["metadata"]["generation"].clone()).collect::<Vec<_>>();
        assert_eq!(generation(&t.list("ReplicaSet", "app=owned").await), generation(&owned));
        assert_eq!(t.get("Pod/alone").await["metadata"]["uid"], alone["metadata"]["uid"]);
    });
}

/// A bare workload with three pods that take a moment to be ready.
fn bare(kind: &str, name: &str) -> Value {
    let (api_version, selector) = match kind {
        "ReplicaSet" => ("apps/v1", json!({"matchLabels": {"app": name}})),
        _ => ("v1", json!({"app": name})),
    };
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "labels": {"restic.appscode.com/config": "often"}},
        "spec": {"replicas": 3, "selector": selector, "template": {"metadata": {"labels": {"app": name}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "app", "image": "$BUSYBOX",
                "command": ["sh", "-c", "echo data > /data/file; sleep 2; touch /tmp/ready; exec sleep 86400"],
                "readinessProbe": {"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1, "timeoutSeconds": 30},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}]}}}})
}

fn has_sidecar(pod: &Value) -> bool {
    pod["spec"]["containers"].as_array().is_some_and(|all| all.iter().any(|one| one["name"] == "restic-sidecar"))
}

/// Whether a container of a pod has ended, or was started anew.
fn has_ended(pod: &Value) -> bool {
    let is_restarted = |status: &Value| status["restartCount"] != 0 || status["state"]["terminated"].is_object();
    let is_leaving = pod["metadata"]["deletionTimestamp"].is_string();
    !is_leaving && pod["status"]["containerStatuses"].as_array().into_iter().flatten().any(is_restarted)
}

/// Waits until three pods are ready and have, or have not, the sidecar; from when three are ready first, no two may
/// be away at once: deleted, or not ready for the first time. Those that are there stay as they are: one may be told
/// as not ready by a probe that is late, and for no other reason. Returns their UIDs.
async fn replaced(t: &Test, app: &str, with_sidecar: bool) -> BTreeSet<String> {
    let (complete, begun) = (Cell::new(false), RefCell::new(BTreeSet::new()));
    let id = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
    let pods = t
        .wait_all("Pod", &format!("app={app}"), "replaced one by one", |pods| {
            let mut begun = begun.borrow_mut();
            begun.extend(pods.iter().filter(|pod| is_true(pod, "Ready")).map(id));
            let is_there = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && begun.contains(&id(pod));
            let there = pods.iter().filter(is_there).count();
            assert!(!pods.iter().any(has_ended), "a container has ended: {pods:#?}");
            assert!(!complete.get() || there >= 2, "only {there} of three pods of {app} are there: {pods:#?}");
            complete.set(complete.get() || there == 3);
            let ready = pods.iter().filter(|pod| is_true(pod, "Ready") && has_sidecar(pod) == with_sidecar);
            pods.len() == 3 && ready.count() == 3
        })
        .await;
    pods.iter().map(id).collect()
}

#[test]
fn pods_that_nobody_restarts_are_restarted_one_at_a_time_within_their_budget() {
    test(async |t| {
        t.operator().await;
        // Workloads first, so that their pods are there before anything protects them.
        for (kind, name) in [("ReplicaSet", "rs"), ("ReplicationController", "rc")] {
            t.apply(&bare(kind, name).to_string()).await;
        }
        let budget = |available: u8| {
            format!(
                "{{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {{name: rs}},
                  spec: {{minAvailable: {available}, selector: {{matchLabels: {{app: rs}}}}}}}}"
            )
        };
        t.apply(&budget(3)).await;
        let (untouched, _) = (replaced(t, "rs", false).await, replaced(t, "rc", false).await);
        t.wait("PodDisruptionBudget/rs", "counting three pods", |budget| budget["status"]["currentHealthy"] == 3).await;
        t.apply(REPOSITORY).await;
        t.apply(RESTIC).await;
        replaced(t, "rc", true).await;
        let rs = t.get("ReplicaSet/rs").await;
        assert!(has_sidecar(&rs["spec"]["template"]), "{rs:#}");
        assert_eq!(replaced(t, "rs", false).await, untouched, "the budget was not respected");
        t.apply(&budget(2)).await;
        replaced(t, "rs", true).await;

        // Of three pods one writes.
        backed_up(t, &["replicaset.rs", "replicationcontroller.rc"]).await;
        assert_eq!(dump(t, "replicaset/rs", "/data/file").await, "data\n");
        assert_eq!(dump(t, "replicationcontroller/rc", "/data/file").await, "data\n");

        // Where the label goes, the sidecar goes, by the same rule.
        t.patch("ReplicationController/rc", &json!({"metadata": {"labels": {"restic.appscode.com/config": null}}}))
            .await;
        replaced(t, "rc", false).await;
    });
}

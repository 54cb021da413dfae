//! The API server, etcd and kubelets stopped and started again.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::Rounds;
use crate::harness::{Moment, Value, container_status, is_true, test_alone};
use crate::platform::{busybox, workload};

#[test]
fn pods_go_on_while_the_api_server_is_down_and_after_a_kubelet_restarts() {
    test_alone(async |t, alone| {
        t.apply(
            "{apiVersion: v1, kind: Pod, metadata: {name: counter}, spec: {nodeName: node-1,
              terminationGracePeriodSeconds: 0, containers: [{name: app, image: $BUSYBOX,
              command: [sh, -c, 'while :; do date +%s; sleep 1; done']}]}}",
        )
        .await;
        t.wait("Pod/counter", "running", |pod| pod["status"]["phase"] == "Running").await;
        let stopped = alone.stop("apiserver");
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(t.try_apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: refused}}").await.is_err());
        let down = start.elapsed().as_secs() as usize;
        drop(stopped);
        alone.restart("kubelet-1");
        let counted = t.until("the log can be read", async || t.try_log("counter", "app").await).await.lines().count();
        assert!(counted >= down, "{counted} lines in {down} s");
        let pod = t.wait("Pod/counter", "running", |pod| pod["status"]["phase"] == "Running").await;
        assert_eq!(container_status(&pod, "app")["restartCount"], json!(0));
    });
}

#[test]
fn all_goes_on_after_the_api_server_and_its_store_restart() {
    test_alone(async |t, alone| {
        t.apply(&workload("Deployment", "web", &busybox("exec sleep 3600", &json!({})), &json!({"replicas": 2}))).await;
        t.wait("Deployment/web", "two pods ready", |web| web["status"]["readyReplicas"] == 2).await;
        let before = t.list("Pod", "app=web").await;
        let watched = t.wait("ConfigMap/late", "made after the restarts", |map| !map.is_null());
        let restarts = async {
            for component in ["apiserver", "etcd"] {
                alone.restart(component);
            }
            t.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: late}}").await;
        };
        // A watch that was open before sees what comes after.
        futures_util::future::join(watched, restarts).await;
        let containers = |pods: &[Value]| -> Vec<Value> {
            pods.iter().map(|pod| container_status(pod, "app")["containerID"].clone()).collect()
        };
        assert_eq!(containers(&t.list("Pod", "app=web").await), containers(&before));
        t.delete(&format!("Pod/{}", before[0]["metadata"]["name"].as_str().unwrap())).await;
        t.wait_all("Pod", "app=web", "a new pod ready beside the old one", |pods| {
            pods.len() == 2 && pods.iter().all(|pod| is_true(pod, "Ready")) && containers(pods) != containers(&before)
        })
        .await;
    });
}

#[test]
fn a_backup_outlives_restarts_of_etcd_and_the_api_server() {
    test_alone(async |t, alone| {
        t.operator().await;
        let store = t.object_store().await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.protect_db("http://front:9000", 1000).await;
        let before = t.life("db-0").await;
        let mut rounds = Rounds::new();
        for (round, component) in ["etcd", "apiserver"].into_iter().enumerate() {
            t.change_data("db-0/app", &mut rounds, round).await;
            gate.hold_at(Moment { after: Some(("PUT", "/locks/")), others: 2 });
            let trigger = format!("while-{component}");
            t.trigger(&trigger, "db").await;
            gate.held().await;
            alone.restart(component);
            gate.open();
            let begun = Instant::now();
            t.until("the API answers", async || {
                t.try_apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: here}}").await
            })
            .await;
            t.condition(&format!("BackupTrigger/{trigger}"), "Complete").await;
            println!("{component} restarted in a backup: told of its success after {:.1?}", begun.elapsed());
        }
        // The API server ends while a run is under way and the run ends while it is away: that is told later, and once.
        t.change_data("db-0/app", &mut rounds, 2).await;
        gate.take();
        gate.hold_at(Moment { after: Some(("PUT", "/locks/")), others: 2 });
        t.trigger("in-between", "db").await;
        gate.held().await;
        let stopped = alone.stop("apiserver");
        gate.open();
        t.until("the run has ended without an API server", async || {
            let requests = gate.take();
            match requests.iter().any(|request| request.starts_with("PUT") && request.contains("/snapshots/")) {
                true => Ok(()),
                false => Err(format!("{requests:#?}")),
            }
        })
        .await;
        drop(stopped);
        let begun = Instant::now();
        t.condition("BackupTrigger/in-between", "Complete").await;
        println!("the end of a run without an API server is told {:.1?} after it is back", begun.elapsed());
        let backup = t.get("Backup/db").await;
        assert_eq!(backup["status"]["hosts"][0]["count"], 3, "one run for each trigger: {backup:#}");
        let snapshots = t.judge(&t.url(store, "store"), &rounds).await;
        assert_eq!(snapshots.len(), 3, "{snapshots:?}");
        let told = |events: &[Value]| events.iter().filter(|event| event["reason"] == "SuccessfulBackup").count();
        let events = t.wait_all("Event", "", "an Event for each run", |events| told(events) >= 3).await;
        assert_eq!(told(&events), 3, "one Event for each run: {events:#?}");
        assert_eq!(t.life("db-0").await, before, "the pod and its containers are those from before");
    });
}

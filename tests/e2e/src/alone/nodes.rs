//! Nodes without a network.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::changes::{is_running, is_told_dead};
use crate::harness::{DB, Flow, is_true, test_alone};

#[test]
fn a_node_that_is_cut_off_is_not_ready_and_comes_back() {
    test_alone(async |t, alone| {
        let cut = alone.cut("node-2");
        t.wait("Node/node-2", "not ready", |node| !is_true(node, "Ready")).await;
        drop(cut);
        t.condition("Node/node-2", "Ready").await;
    });
}

#[test]
fn a_node_lost_in_the_middle_of_a_backup_is_told() {
    test_alone(async |t, alone| {
        // A node without the operator, which is not meant to be lost here.
        let operator = t.operator().await;
        let pods = operator.list("Pod", "app.kubernetes.io/component=operator").await;
        let node = if pods.iter().any(|pod| pod["spec"]["nodeName"] == "node-2") { "node-1" } else { "node-2" };
        let store = t.object_store().await;
        let proxy = t.proxy("front", 9000, t.object_store_address().await).await;
        t.apply(DB).await;
        // It stays on that node, and leaves it at once when it is lost.
        let left = ["unreachable", "not-ready"].map(|taint| {
            json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": 1})
        });
        let pod = json!({"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": left,
            "terminationGracePeriodSeconds": 1});
        t.patch("StatefulSet/db", &json!({"spec": {"template": {"spec": pod}}})).await;
        t.protect("http://front:9000", "db", "StatefulSet/db").await;
        t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("before", "db").await;
        t.condition("BackupTrigger/before", "Complete").await;

        t.sh("db-0", "head -c 20000000 /dev/urandom > /source/data/more").await;
        proxy.set(Flow::Slow(Duration::from_millis(300)));
        t.trigger("during", "db").await;
        is_running(t, "Backup/db").await;
        let uid = t.get("Pod/db-0").await["metadata"]["uid"].clone();
        let cut = alone.cut(node);
        t.wait("Pod/db-0", "to go", |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
        let gone = Instant::now();
        let why = is_told_dead(t, "Backup/db", gone).await;
        assert!(why.contains("its node does not answer"), "{why}");
        assert!(gone.elapsed() < Duration::from_secs(60), "it took {:?}", gone.elapsed());

        drop(cut);
        proxy.set(Flow::Open);
        t.wait("Pod/db-0", "another one, ready", |pod| pod["metadata"]["uid"] != uid && is_true(pod, "Ready")).await;
        t.trigger("after", "db").await;
        t.condition("BackupTrigger/after", "Complete").await;
        t.condition("Backup/db", "BackedUp").await;
        let dump = "--no-lock dump latest /source/data/name";
        assert_eq!(t.restic(&t.url(store, "store"), dump).await, "db-0\n");
        t.restic(&t.url(store, "store"), "--no-lock check --read-data").await;
    });
}

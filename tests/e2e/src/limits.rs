//! What is limited: how many scheduled runs go on at once, and by a namespace what its pods may have.

use serde_json::json;

use crate::harness::{DB, Moment, Value, WEB, is, test};

fn hosts(backup: &Value) -> impl Iterator<Item = &Value> {
    backup["status"]["hosts"].as_array().into_iter().flatten()
}

fn running(backup: &Value) -> usize {
    hosts(backup).filter(|host| host["running"].is_object()).count()
}

#[test]
fn runs_on_one_repository_take_turns_where_it_says_so() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.apply(&DB.replace("replicas: 1", "replicas: 2\n  podManagementPolicy: Parallel")).await;
        t.protect("http://front:9000", "db", "StatefulSet/db").await;
        t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        t.patch("Repository/store", &json!({"spec": {"maxConcurrentRuns": 1}})).await;
        t.wait("Backup/db", "limited", |backup| backup["status"]["limited"] == true).await;
        // A trigger waits for nobody, and both hosts answer it.
        t.trigger("now", "db").await;
        t.condition("BackupTrigger/now", "Complete").await;

        gate.hold_at(Moment { after: None, others: 0 });
        t.patch("Backup/db", &json!({"spec": {"paused": false, "schedule": "@every 1s"}})).await;
        gate.held().await;
        let backup = t
            .wait("Backup/db", "one that runs and one that waits", |backup| {
                assert!(running(backup) <= 1, "{:#}", backup["status"]);
                running(backup) == 1 && hosts(backup).any(|host| host["waitingSince"].is_string())
            })
            .await;
        let waits = |backup: &Value| backup["status"]["conditions"].to_string().contains("wait for their turn");
        t.wait("Backup/db", "said to wait", waits).await;
        let waiting = hosts(&backup).find(|host| host["waitingSince"].is_string()).expect("just seen");
        assert!(waiting["running"].is_null() && waiting["count"] == 1, "{:#}", backup["status"]);

        gate.open();
        t.wait("Backup/db", "three more runs of each host, one at a time", |backup| {
            assert!(running(backup) <= 1, "{:#}", backup["status"]);
            hosts(backup).count() == 2 && hosts(backup).all(|host| host["count"].as_u64() >= Some(4))
        })
        .await;
        // Without the limit nobody waits.
        t.patch("Repository/store", &json!({"spec": {"maxConcurrentRuns": null}})).await;
        t.wait("Backup/db", "not limited", |backup| {
            let status = &backup["status"];
            status["limited"].is_null()
                && status["admitted"].is_null()
                && hosts(backup).all(|host| host["waitingSince"].is_null())
        })
        .await;
        t.patch("Backup/db", &json!({"spec": {"paused": true}})).await;
        t.restic(&t.url(store, "store"), "check --read-data").await;
    });
}

#[test]
fn a_quota_that_refuses_the_sidecar_is_told_and_resources_mend_it() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply("{apiVersion: v1, kind: ResourceQuota, metadata: {name: memory}, spec: {hard: {limits.memory: 1Gi}}}")
            .await;
        let limits = "resources: {limits: {memory: 32Mi}}";
        t.apply(&WEB.replace("image: $BUSYBOX", &format!("image: $BUSYBOX\n        {limits}"))).await;
        t.containers("Deployment/web", |_| true).await;

        t.protect(store, "web", "Deployment/web").await;
        let backup = t.wait("Backup/web", "told", |backup| is(backup, "Ready", "False")).await;
        let why = backup["status"]["conditions"].to_string();
        assert!(why.contains("PodWaits") && why.contains("must specify limits.memory"), "{why}");
        let resources = json!({"containerAttributes": {"resources": {"limits": {"memory": "128Mi"}}}});
        t.patch("Backup/web", &json!({"spec": resources})).await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("now", "web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        t.wait("Backup/web", "ready", |backup| is(backup, "Ready", "True")).await;
    });
}

//! Operators killed: what is asked for is done once.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{DB, Random, Rounds, kills, spread};
use crate::harness::{Test, Value, container_status, test_alone};

/// The longest pause between a request and the operator's end, in milliseconds: a Job is made and runs in it.
const MOMENTS: usize = 4000;

/// A claim on a node that is backed up by Jobs, which the operator makes; `db-0`, which has a sidecar, writes to it. Gives
/// the store.
async fn claim_with_jobs(t: &Test, node: &str) -> &'static str {
    t.operator().await;
    let store = t.object_store().await;
    let pinned = format!("nodeSelector: {{kubernetes.io/hostname: {node}}}\n      containers:");
    t.apply(&DB.replace("containers:", &pinned)).await;
    t.chaos_repository(store, "store").await;
    t.chaos_repository(store, "other").await;
    t.chaos_backup("db", "other", "StatefulSet/db", 1000).await;
    t.chaos_backup("claim", "store", "PersistentVolumeClaim/data", 1000).await;
    let pod = json!({"spec": {"podAttributes": {"nodeSelector": {"kubernetes.io/hostname": node}}}});
    t.patch("Backup/claim", &pod).await;
    t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
    t.condition("Pod/db-0", "Ready").await;
    store
}

/// By what the pods of operators are found.
const OPERATORS: &str = "app.kubernetes.io/name=holdfast";

/// Whether an operator's container runs, in a pod that is to stay.
fn runs(pod: &Value) -> bool {
    let is_to_stay = pod["metadata"]["deletionTimestamp"].is_null();
    is_to_stay && container_status(pod, "operator")["state"]["running"].is_object()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Each trigger was served by one run of one Job, and each run left one snapshot. The workload was left alone, and its
/// sidecar works.
async fn assert_each_once(t: &Test, url: &str, rounds: &Rounds, triggers: usize, before: (Value, Vec<Value>)) {
    assert_eq!(t.life("db-0").await, before, "the pod of the workload and its containers are those from before");
    t.trigger("at-last", "db").await;
    t.condition("BackupTrigger/at-last", "Complete").await;
    let snapshots = t.judge(url, rounds).await;
    assert_eq!(snapshots.len(), triggers, "snapshots and triggers");
    let backup = t.get("Backup/claim").await;
    assert_eq!(backup["status"]["hosts"][0]["count"], triggers, "runs and triggers: {backup:#}");
    let events = t.list("Event", "").await;
    let made: Vec<_> = events
        .iter()
        .filter(|event| event["reason"] == "SuccessfulCreate" && event["involvedObject"]["kind"] == "Job")
        .collect();
    assert_eq!(made.len(), triggers, "pods of Jobs and triggers: {made:#?}");
    let of_claim = events.iter().filter(|event| event["involvedObject"]["name"] == "claim");
    let told = of_claim.filter(|event| event["reason"] == "SuccessfulBackup").count();
    assert_eq!(told, triggers, "Events and triggers: {events:#?}");
}

#[test]
fn an_operator_killed_at_any_moment_does_everything_once() {
    test_alone(async |t, _| {
        let store = claim_with_jobs(t, "node-1").await;
        let operator = t.operator().await;
        let before = t.life("db-0").await;
        let mut random = Random::new("operator");
        let mut rounds = Rounds::new();
        let mut times = Vec::new();
        for round in 0..kills() {
            t.change_data("db-0/app", &mut rounds, round).await;
            let begun = Instant::now();
            t.trigger(&format!("round-{round}"), "claim").await;
            let pause = Duration::from_millis(random.below(MOMENTS) as u64);
            // Not to wait for anything: the moment of the kill is what is tried.
            tokio::time::sleep(pause).await;
            let running = |pods: &[Value]| pods.iter().any(runs);
            let pods = operator.wait_all("Pod", OPERATORS, "one that runs", running).await;
            let pod = pods.iter().find(|pod| runs(pod)).expect("just seen");
            let what = operator.kill(name(pod), "operator").await;
            t.condition(&format!("BackupTrigger/round-{round}"), "Complete").await;
            println!("the operator's {what} killed {pause:?} after the trigger: done after {:.1?}", begun.elapsed());
            times.push(begun.elapsed());
        }
        println!("operator: {} kills; from trigger to success {}", kills(), spread(&times));
        assert_each_once(t, &t.chaos_url(store, "store"), &rounds, kills(), before).await;
    });
}

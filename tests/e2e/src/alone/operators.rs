//! Operators killed, cut off, and two at once: one acts at any time, and what is asked for is done once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chaos::{DB, Random, Rounds, kills, spread, tried_again};
use crate::harness::{Test, Value, container_status, is_true, test_alone};

/// The longest pause between a request and the operator's end, in milliseconds: a Job is made and runs in it.
const MOMENTS: usize = 4000;

/// A claim on a node that is backed up by Jobs, which the operator makes; `db-0`, which has a sidecar, writes to it. Gives
/// the store.
async fn claim_with_jobs(t: &Test, node: &str) -> &'static str {
    t.operator().await;
    let store = t.object_store().await;
    let pinned = format!("nodeSelector: {{kubernetes.io/hostname: {node}}}\n      containers:");
    t.apply(&DB.replace("containers:", &pinned)).await;
    t.repository(store, "store").await;
    t.repository(store, "other").await;
    t.backup("db", "other", "StatefulSet/db", &tried_again(1000)).await;
    t.backup("claim", "store", "PersistentVolumeClaim/data", &tried_again(1000)).await;
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

/// Who leads, by the Lease.
async fn leader(operator: &Test) -> String {
    let lease = operator.get("Lease/holdfast").await;
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
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
    let told = |events: &[Value]| {
        let of_claim = events.iter().filter(|event| event["involvedObject"]["name"] == "claim");
        of_claim.filter(|event| event["reason"] == "SuccessfulBackup").count()
    };
    let events = t.wait_all("Event", "", "Events of all runs", |events| told(events) >= triggers).await;
    assert_eq!(told(&events), triggers, "Events and triggers: {events:#?}");
    let made: Vec<_> = events
        .iter()
        .filter(|event| event["reason"] == "SuccessfulCreate" && event["involvedObject"]["kind"] == "Job")
        .collect();
    assert_eq!(made.len(), triggers, "pods of Jobs and triggers: {made:#?}");
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
        assert_each_once(t, &t.url(store, "store"), &rounds, kills(), before).await;
    });
}

/// Two operators on two nodes, of which the one on another node than the store leads. Gives that node, and the store's.
async fn two_operators(t: &Test, operator: &Test) -> (String, String) {
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "holdfast"}}, "matchLabelKeys": ["pod-template-hash"]}]);
    // One that is cut off stays, so that its log can be read later.
    let stay = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]);
    let pod = json!({"spec": {"topologySpreadConstraints": spread, "tolerations": stay}});
    operator.patch("Deployment/holdfast", &json!({"spec": {"replicas": 2, "template": pod}})).await;
    let store = &t.in_namespace("object-store").list("Pod", "app=object-store").await[0]["spec"]["nodeName"];
    let store = store.as_str().expect("the store runs").to_owned();
    let apart = |pods: &[Value]| {
        let [one, other] = pods else { return false };
        runs(one) && runs(other) && one["spec"]["nodeName"] != other["spec"]["nodeName"]
    };
    let both = operator.wait_all("Pod", OPERATORS, "two on two nodes", apart).await;
    let far = both.iter().find(|pod| pod["spec"]["nodeName"] != *store).expect("two nodes").clone();
    operator
        .until("the operator far from the store leads", async || {
            let leader = leader(operator).await;
            if leader == name(&far) {
                return Ok(());
            }
            // Asked to end, the other one gives the Lease back; the pod that takes its place waits.
            let pods = operator.list("Pod", OPERATORS).await;
            for pod in pods.iter().filter(|pod| runs(pod) && name(pod) == leader) {
                operator.delete(&format!("Pod/{}", name(pod))).await;
            }
            Err(format!("{leader:?} leads"))
        })
        .await;
    operator.wait_all("Pod", OPERATORS, "two on two nodes", apart).await;
    (far["spec"]["nodeName"].as_str().expect("a node").to_owned(), store)
}

/// What operators said of leading, in order: time, pod, words.
async fn terms(operator: &Test) -> Vec<(String, String, String)> {
    let mut terms = Vec::new();
    for pod in operator.list("Pod", OPERATORS).await {
        for line in operator.try_log(name(&pod), "operator").await.unwrap_or_default().lines() {
            if let Some((time, said)) = line.split_once(' ').filter(|(_, said)| said.contains("this operator")) {
                terms.push((time.to_owned(), name(&pod).to_owned(), said.to_owned()));
            }
        }
    }
    terms.sort();
    terms
}

/// The pods whose last word is that they lead.
async fn leaders(operator: &Test) -> Vec<String> {
    let mut last = BTreeMap::new();
    for (_, pod, said) in terms(operator).await {
        last.insert(pod, said.contains("this operator leads"));
    }
    last.into_iter().filter_map(|(pod, leads)| leads.then_some(pod)).collect()
}

#[test]
fn of_two_operators_one_acts() {
    test_alone(async |t, alone| {
        let operator = t.operator().await;
        t.object_store().await;
        let (far, near) = two_operators(t, &operator).await;
        let store = claim_with_jobs(t, &near).await;
        let before = t.life("db-0").await;
        let url = t.url(store, "store");
        let mut rounds = Rounds::new();
        let mut asked = 0;
        let mut ask = async |what: &str| {
            t.change_data("db-0/app", &mut rounds, asked).await;
            asked += 1;
            t.trigger(what, "claim").await;
            t.condition(&format!("BackupTrigger/{what}"), "Complete").await;
        };
        ask("both-live").await;
        let first = leader(&operator).await;
        assert_eq!(leaders(&operator).await, [first.as_str()], "one leads, the one that the Lease names");

        // The leader loses the API server, and the other one takes over, but not before the first has stepped down.
        let cut = alone.cut(&far);
        let begun = Instant::now();
        ask("leader-cut").await;
        println!("the leader cut off: done by the other one after {:.1?}", begun.elapsed());
        let second = leader(&operator).await;
        assert_ne!(second, first);
        drop(cut);
        t.wait(&format!("Node/{far}"), "ready again", |node| is_true(node, "Ready")).await;
        let told = operator.until("both tell", async || both_told(&operator, &first, &second).await);
        let (down, up) = told.await;
        println!("{first} stepped down at {down}, {second} led from {up}");
        assert!(down <= up, "{first} stepped down at {down}, but {second} led from {up}");
        assert_eq!(leaders(&operator).await, [second.as_str()], "the first one does not take it back");

        // The leader is killed: its container is back before its Lease has run out, or the other one takes it.
        operator.kill_processes(&second, "operator", "").await;
        ask("leader-killed").await;
        // And with its pod: the other one leads when the Lease has run out.
        let third = leader(&operator).await;
        operator.kill_pod(&third).await;
        let begun = Instant::now();
        ask("pod-killed").await;
        println!("the leader's pod killed: done by the other one after {:.1?}", begun.elapsed());
        assert_each_once(t, &url, &rounds, asked, before).await;
        let as_before = json!({"spec": {"topologySpreadConstraints": null, "tolerations": null}});
        operator.patch("Deployment/holdfast", &json!({"spec": {"replicas": 1, "template": as_before}})).await;
        operator.containers("Deployment/holdfast", |_| true).await;
    });
}

/// When the one stepped down last, and when the other began to lead, by their logs.
async fn both_told(operator: &Test, old: &str, new: &str) -> Result<(String, String), String> {
    let terms = terms(operator).await;
    let said = |pod: &str, what: &str| {
        let found = terms.iter().rev().find(|(_, of, said)| of == pod && said.contains(what));
        found.map(|(time, ..)| time.clone()).ok_or_else(|| format!("{pod} does not say that it {what}: {terms:#?}"))
    };
    Ok((said(old, "steps down")?, said(new, "leads")?))
}

//! What a backup needs is away for a while: the store, the API server, etcd. It goes on, and is told of once.

use std::time::{Duration, Instant};

use super::Rounds;
use crate::harness::{Flow, Moment, test, test_alone};

/// For how many seconds the store is gone, unless `HOLDFAST_OUTAGE` says otherwise.
const GONE_FOR: u64 = 30;

/// How long the store is to be gone.
fn gone_for() -> Duration {
    let seconds = std::env::var("HOLDFAST_OUTAGE");
    Duration::from_secs(seconds.map_or(GONE_FOR, |count| count.parse().expect("HOLDFAST_OUTAGE is a number")))
}

#[test]
fn a_store_that_is_gone_for_a_while_fails_no_run() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let proxy = t.proxy("front", 9000, t.object_store_address().await).await;
        t.protect_db("http://front:9000", 1000).await;
        let mut rounds = Rounds::new();
        t.change_data("db-0/app", &mut rounds, 1).await;
        t.trigger("before", "db").await;
        t.condition("BackupTrigger/before", "Complete").await;

        t.change_data("db-0/app", &mut rounds, 2).await;
        proxy.set(Flow::Refuse);
        let gone = Instant::now();
        t.trigger("during", "db").await;
        t.wait("BackupTrigger/during", "running", |trigger| trigger["status"]["phase"] == "Running").await;
        // Time has to pass: that nothing happens in it is what is tried.
        while gone.elapsed() < gone_for() {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let trigger = t.get("BackupTrigger/during").await;
            assert_eq!(trigger["status"]["phase"], "Running", "after {:?}: {trigger:#}", gone.elapsed());
        }
        proxy.set(Flow::Open);
        let back = Instant::now();
        t.condition("BackupTrigger/during", "Complete").await;
        println!("a store gone for {:.1?}: the run succeeded {:.1?} after it was back", gone_for(), back.elapsed());
        let backup = t.get("Backup/db").await;
        assert_eq!(backup["status"]["hosts"][0]["count"], 2, "one run for each trigger: {backup:#}");
        let snapshots = t.judge(&t.chaos_url(store, "store"), &rounds).await;
        assert_eq!(snapshots.len(), 2, "{snapshots:?}");
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
        let snapshots = t.judge(&t.chaos_url(store, "store"), &rounds).await;
        assert_eq!(snapshots.len(), 3, "{snapshots:?}");
        let events = t.list("Event", "").await;
        let told = events.iter().filter(|event| event["reason"] == "SuccessfulBackup").count();
        assert_eq!(told, 3, "one Event for each run: {events:#?}");
        assert_eq!(t.life("db-0").await, before, "the pod and its containers are those from before");
    });
}

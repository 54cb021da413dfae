//! The store is away for a while: a backup goes on when it is back, and is told of once.

use std::time::{Duration, Instant};

use super::Rounds;
use crate::harness::{Flow, test};

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
        let snapshots = t.judge(&t.url(store, "store"), &rounds).await;
        assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    });
}

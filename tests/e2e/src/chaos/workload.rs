//! A workload that goes in the middle of its backup, and comes again.

use super::{DB, Rounds};
use crate::harness::{Moment, Value, is, test};

#[test]
fn a_workload_deleted_in_the_middle_of_its_backup_goes_on_when_it_is_back() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.protect_db("http://front:9000", 1000).await;
        let mut rounds = Rounds::new();
        t.change_data("db-0/app", &mut rounds, 1).await;
        t.trigger("one", "db").await;
        let last = t.backed_up("db", "").await;

        t.change_data("db-0/app", &mut rounds, 2).await;
        gate.hold_at(Moment { after: Some(("PUT", "/locks/")), others: 2 });
        t.trigger("two", "db").await;
        gate.held().await;
        let runs = |backup: &Value| backup["status"]["hosts"][0]["running"]["start"].is_string();
        t.wait("Backup/db", "told as running", runs).await;
        t.delete("StatefulSet/db").await;
        t.gone("Pod/db-0").await;
        gate.open();
        t.told("Backup/db", |backup| !runs(backup)).await;
        // The Backup says what it lacks, and waits for it.
        let lacks = |backup: &Value| is(backup, "Ready", "False");
        t.wait("Backup/db", "not ready without its workload", lacks).await;

        t.apply(DB).await;
        t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        t.backed_up("db", &last).await;
        let snapshots = t.judge(&t.chaos_url(store, "store"), &rounds).await;
        assert_eq!(snapshots.len(), 2, "one for each trigger: {snapshots:?}");
    });
}

//! restic beside the agents, on one repository: each reads what the other wrote, waits for its locks, and removes those of
//! nobody.

use serde_json::json;

use super::{Rounds, SUM};
use crate::harness::{Moment, Value, is_true, test};

#[test]
fn restic_beside_the_operator_neither_disturbs_nor_is_disturbed() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let gate = t.gate("front", 9000, t.object_store_address().await).await;
        t.protect_db("http://front:9000", 2).await;
        let mut rounds = Rounds::new();
        let mut last = String::new();
        for round in 1..=2 {
            t.change_data("db-0/app", &mut rounds, round).await;
            t.trigger(&format!("round-{round}"), "db").await;
            last = t.backed_up("db", &last).await;
        }
        // restic restores what the sidecar saved, and saves something of its own.
        let url = t.url(store, "store");
        t.judge(&url, &rounds).await;
        t.sh("restic", "mkdir /tmp/own && head -c 2000000 /dev/urandom > /tmp/own/file").await;
        let sum = t.sh("restic", &format!("cd /tmp/own && {SUM}")).await;
        t.restic(&url, "backup --host somebody --tag own /tmp/own").await;
        let own = t.restic(&url, "--no-lock snapshots --host somebody --json").await;
        let own: Value = serde_json::from_str(&own).expect("JSON of restic");
        let own = own[0]["id"].as_str().expect("one snapshot").to_owned();

        // While restic works, which takes a lock that our own removing has to wait for, the sidecar saves and then waits.
        let slow = format!(
            "restic --no-cache -r '{url}' backup --host somebody --stdin-from-command -- \
             sh -c 'echo > /tmp/begun; while [ ! -e /tmp/end ]; do sleep 1; done; echo saved' > /tmp/said 2>&1 &"
        );
        t.sh("restic", &slow).await;
        t.until("restic works", async || {
            let output = t.exec("restic", &["cat", "/tmp/begun"]).await;
            if output.code == 0 { Ok(()) } else { Err(t.sh("restic", "cat /tmp/said").await) }
        })
        .await;
        t.change_data("db-0/app", &mut rounds, 3).await;
        t.trigger("round-3", "db").await;
        t.until("the sidecar says whom it waits for", async || {
            let log = t.try_log("db-0", "restic-sidecar").await?;
            if log.contains("on restic") && log.contains("waiting") { Ok(()) } else { Err(log) }
        })
        .await;
        t.wait("BackupTrigger/round-3", "running", |trigger| {
            assert!(!is_true(trigger, "Complete") && !is_true(trigger, "Failed"), "it waits: {trigger:#}");
            trigger["status"]["phase"] == "Running"
        })
        .await;
        t.sh("restic", "touch /tmp/end").await;
        last = t.backed_up("db", &last).await;
        let run = t.get("Backup/db").await["status"]["hosts"][0]["runs"][0].clone();
        let notes = run["notes"].to_string();
        assert!(notes.contains("waiting") && notes.contains("restic"), "the run tells whom it waited for: {run:#}");
        // Neither the policy of the Backup nor its prune touched what is not of its host.
        t.restic(&url, &format!("--no-lock restore {own}:/tmp/own --target /tmp/back --quiet")).await;
        assert_eq!(t.sh("restic", &format!("cd /tmp/back && {SUM}; rm -r /tmp/back")).await, sum);
        t.restic(&url, "--no-lock dump --host somebody latest stdin").await;

        // One that is killed while it removes leaves a lock that is in the way of everybody. The next one takes it away and
        // says so.
        t.change_data("db-0/app", &mut rounds, 4).await;
        gate.hold_at(Moment { after: Some(("DELETE", "/snapshots/")), others: 0 });
        t.trigger("round-4", "db").await;
        gate.held().await;
        t.kill("db-0", "restic-sidecar").await;
        gate.open();
        t.backed_up("db", &last).await;
        let backup = t.get("Backup/db").await;
        let notes = backup["status"]["hosts"][0]["runs"][0]["notes"].to_string();
        assert!(notes.contains("removed: ") && notes.contains("on db-0"), "a stale lock is told of: {backup:#}");
        t.wait_all("Event", "", "a word on the lock", |events| {
            events.iter().any(|event| {
                let message = event["message"].to_string();
                let is_of_run = event["involvedObject"]["name"] == json!("db");
                // Why it is stale is told in two ways: the container may have been given the number of the one before.
                is_of_run && message.contains("removed: ") && message.contains("on db-0")
            })
        })
        .await;
        t.restic(&url, "forget --host somebody --keep-last 1 --prune").await;
        t.restic(&url, "check --read-data").await;
        assert_eq!(t.restic(&url, "--no-lock list locks").await, "");
    });
}

//! Full volumes: where a recovery goes to, where a backup comes from.

use serde_json::json;

use super::{DB, Rounds, SUM, tried_again};
use crate::harness::{Value, is_true, test};

#[test]
fn a_full_volume_fails_its_own_recovery_and_nothing_else() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.protect_db(store, 1000).await;
        let mut rounds = Rounds::new();
        t.change_data("db-0/app", &mut rounds, 1).await;
        t.trigger("one", "db").await;
        t.condition("BackupTrigger/one", "Complete").await;

        t.small_claim("small", "1Mi").await;
        t.claim("large").await;
        for claim in ["small", "large"] {
            t.recover(&format!("into-{claim}"), "store", claim, 1).await;
        }
        t.condition("Recovery/into-large", "Complete").await;
        t.look_into("reader", "large", "/data").await;
        assert_eq!(
            Some(t.sh("reader", &format!("cd /data && {SUM}")).await.trim()),
            rounds.get(&1).map(String::as_str)
        );
        let failed = t.wait("Recovery/into-small", "failed", |recovery| is_true(recovery, "Failed")).await;
        let told = failed["status"].to_string();
        assert!(told.contains("No space left on device") && told.contains("/source/data"), "{told}");
        assert_eq!(failed["status"]["phase"], "Failed");
        assert_eq!(failed["status"]["hosts"][0]["count"], 2, "tried once more, as it asks: {failed:#}");
        assert!(failed["status"]["hosts"][0]["running"].is_null());

        // The repository is as it was, and takes the next backup.
        t.trigger("two", "db").await;
        t.condition("BackupTrigger/two", "Complete").await;
        t.judge(&t.url(store, "store"), &rounds).await;
    });
}

#[test]
fn a_full_volume_is_backed_up() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.small_claim("data", "4Mi").await;
        // The same pod, with the claim that is there.
        let (_, set) = DB.split_once("\n---\n").expect("two documents");
        t.apply(set).await;
        t.condition("Pod/db-0", "Ready").await;
        t.repository(store, "store").await;
        t.backup("db", "store", "StatefulSet/db", &tried_again(1000)).await;
        t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        t.condition("Pod/db-0", "Ready").await;
        let bytes = t.fill("db-0/app", "/source/data").await;
        assert!(bytes > 1 << 20, "{bytes}");
        t.trigger("full", "db").await;
        t.condition("BackupTrigger/full", "Complete").await;
        let run = t.get("Backup/db").await["status"]["hosts"][0]["runs"][0].clone();
        assert_eq!(run["bytesTotal"], json!(bytes), "{run:#}");
        assert_eq!(run["error"], Value::Null);
        t.restic(&t.url(store, "store"), "check --read-data").await;
    });
}

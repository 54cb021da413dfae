//! What happens to a workload while it is backed up: it grows and shrinks, rolls out, is deleted. The
//! status tells the truth each time, and the repository stays whole.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{DB, Flow, Test, Value, WEB, WRITE, is, is_true, test};

/// The status of the one host of a Backup.
fn host(backup: &Value) -> &Value {
    &backup["status"]["hosts"][0]
}

/// Waits until the run of a Backup that goes on is told.
pub(crate) async fn is_running(t: &Test, backup: &str) {
    t.wait(backup, "told to be running", |backup| host(backup)["running"].is_object()).await;
}

/// Waits until the run whose pod died is told as failed, and returns why; `from` is when the pod died.
pub(crate) async fn is_told_dead(t: &Test, backup: &str, from: Instant) -> String {
    let backup = t
        .wait(backup, "told as failed", |backup| {
            host(backup)["running"].is_null() && backup["status"]["history"][0]["phase"] == "Failed"
        })
        .await;
    println!("told as failed after {:.1} s", from.elapsed().as_secs_f64());
    assert!(is(&backup, "BackedUp", "False"), "{:#}", backup["status"]);
    backup["status"]["history"][0]["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn pods_of_a_scaled_stateful_set_are_hosts_while_they_are_there() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(DB).await;
        t.protect(store, "db", "StatefulSet/db").await;
        let scale = async |replicas: u8, trigger: &str| {
            t.patch("StatefulSet/db", &json!({"spec": {"replicas": replicas}})).await;
            t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
            t.trigger(trigger, "db").await;
            let trigger = format!("BackupTrigger/{trigger}");
            t.condition(&trigger, "Complete").await;
            // One that stays is for pods that come later, too.
            t.delete(&trigger).await;
            t.gone(&trigger).await;
            t.hosts(store).await
        };
        assert_eq!(scale(1, "one").await, ["db-0"]);
        assert_eq!(scale(3, "three").await, ["db-0", "db-0", "db-1", "db-2"]);
        // Who is not there is not waited for, and keeps what is stored.
        assert_eq!(scale(1, "again").await, ["db-0", "db-0", "db-0", "db-1", "db-2"]);
        t.condition("Backup/db", "BackedUp").await;
        assert_eq!(scale(2, "more").await, ["db-0", "db-0", "db-0", "db-0", "db-1", "db-1", "db-2"]);
        let dump = "--no-lock dump --host db-2 latest /source/data/name";
        assert_eq!(t.restic(&t.url(store, "store"), dump).await, "db-2\n");
        t.restic(&t.url(store, "store"), "check --read-data").await;
    });
}

#[test]
fn a_rollout_in_the_middle_of_a_backup_hands_it_on() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let proxy = t.proxy("front", 9000, t.object_store_address().await).await;
        // The application ends when it is told to, and the sidecar has the time to do so.
        let polite = "command: [sh, -c, \"trap 'exit 0' TERM; sleep 86400 & wait\"]";
        let web = WEB.replace("command: [sleep, '86400']", polite);
        t.apply(&web.replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 30")).await;
        t.protect("http://front:9000", "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        let pod = t.pod_of("app=web").await;
        t.sh(&pod, WRITE).await;
        t.trigger("before", "web").await;
        t.condition("BackupTrigger/before", "Complete").await;

        t.sh(&pod, "head -c 20000000 /dev/urandom > /source/data/more").await;
        proxy.set(Flow::Slow(Duration::from_millis(300)));
        t.trigger("during", "web").await;
        is_running(t, "Backup/web").await;
        t.patch("Deployment/web", &json!({"spec": {"template": {"metadata": {"annotations": {"try": "2"}}}}})).await;
        let start = Instant::now();
        t.gone(&format!("Pod/{pod}")).await;
        assert!(start.elapsed() < Duration::from_secs(25), "the sidecar took {:?} to end", start.elapsed());
        proxy.set(Flow::Open);
        t.condition("BackupTrigger/during", "Complete").await;
        let next = t.pod_of("app=web").await;
        let backup = t.wait("Backup/web", "all well", |backup| is_true(backup, "BackedUp")).await;
        assert_eq!(host(&backup)["pod"], json!(next), "{:#}", backup["status"]);
        assert_eq!(t.hosts(store).await, ["web", "web"]);
        // No lock is left behind: restic would wait for it.
        t.restic(&t.url(store, "store"), "check --read-data").await;
    });
}

#[test]
fn a_workload_deleted_in_the_middle_of_a_backup_is_told() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let proxy = t.proxy("front", 9000, t.object_store_address().await).await;
        t.apply(WEB).await;
        t.protect("http://front:9000", "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        let pod = t.pod_of("app=web").await;
        t.sh(&pod, WRITE).await;
        t.trigger("before", "web").await;
        t.condition("BackupTrigger/before", "Complete").await;

        t.sh(&pod, "head -c 20000000 /dev/urandom > /source/data/more").await;
        proxy.set(Flow::Slow(Duration::from_millis(300)));
        t.trigger("during", "web").await;
        is_running(t, "Backup/web").await;
        t.delete("Deployment/web").await;
        t.gone(&format!("Pod/{pod}")).await;
        let died = Instant::now();
        let why = is_told_dead(t, "Backup/web", died).await;
        assert!(why.contains("the pod"), "{why}");
        assert!(died.elapsed() < Duration::from_secs(60), "it took {:?}", died.elapsed());
        let backup = t.wait("Backup/web", "not ready", |backup| is(backup, "Ready", "False")).await;
        assert!(backup["status"]["conditions"].to_string().contains("WorkloadNotFound"), "{:#}", backup["status"]);
        let trigger = t.wait("BackupTrigger/during", "failed", |trigger| is(trigger, "Failed", "True")).await;
        assert!(trigger["status"].to_string().contains("the pod"), "{:#}", trigger["status"]);
        assert_eq!(t.hosts(store).await, ["web"]);

        // It comes back and goes on; what the dead run left, its lock too, is in nobody's way.
        proxy.set(Flow::Open);
        t.apply(WEB).await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("after", "web").await;
        t.condition("BackupTrigger/after", "Complete").await;
        assert_eq!(t.hosts(store).await, ["web", "web"]);
        t.restic(&t.url(store, "store"), "--no-lock check --read-data").await;
    });
}

//! The sidecar: schedules, triggers, status, events, and what becomes of them when pods and the API server fail.

use std::fs;
use std::time::{Duration, Instant};

use holdfast_api::names::pod as names;
use serde_json::{Value, json};

use super::manifest::{backup, recovery, repository, trigger, workload};
use super::pod::Stage;
use super::proxy::Proxy;
use super::server::Server;

const WATCH: [&str; 3] = ["watch", "--listen=127.0.0.1:0", "--lease-seconds=4"];

fn run<'a>(object: &'a Value, host: &str, number: usize) -> &'a Value {
    let hosts = object["status"]["hosts"].as_array();
    hosts
        .and_then(|hosts| hosts.iter().find(|entry| entry["host"] == host))
        .map_or(&Value::Null, |entry| &entry["runs"][number])
}

fn count(object: &Value) -> i64 {
    let hosts = object["status"]["hosts"].as_array();
    hosts.map_or(0, |hosts| hosts.iter().filter_map(|entry| entry["count"].as_i64()).sum())
}

fn eventually(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(90), "it does not become so");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_trigger_is_served_and_told() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup("db", "StatefulSet/db", "  paused: true\n")]);
    let mut program = stage.start("db-1", "StatefulSet/db", &WATCH);
    stage.until("backup", "db", "known", |object| object["status"]["hosts"][0]["firstSeen"].is_string());
    stage.apply(&[trigger("now", "db")]);
    let served =
        stage.until("backuptrigger", "now", "served", |object| object["status"]["runs"][0]["phase"] == "Succeeded");
    assert_eq!(served["status"]["runs"][0]["host"], "statefulset.db-1");
    let object = stage.until("backup", "db", "run", |object| count(object) == 1);
    let entry = &object["status"]["hosts"][0];
    assert_eq!(
        (&entry["pod"], &entry["podUid"], &entry["node"]),
        (&json!("db-1"), &json!("uid-of-db-1"), &json!("node-1"))
    );
    let first = run(&object, "statefulset.db-1", 0);
    assert_eq!(
        (&first["phase"], &first["filesTotal"], &first["triggers"]),
        (&json!("Succeeded"), &json!(1), &json!(["now"]))
    );
    assert_eq!(first["snapshots"].as_array().map(Vec::len), Some(1));
    let repository = stage.until("repository", "repo", "told", |object| object["status"]["snapshotCount"] == 1);
    assert_eq!(repository["status"]["integrity"], true);
    let event = stage.until("event", "db-1", "there", |object| !object.is_null());
    assert_eq!((&event["reason"], &event["involvedObject"]["kind"]), (&json!("SuccessfulBackup"), &json!("Backup")));
    assert_eq!(event["involvedObject"]["uid"], object["metadata"]["uid"]);
    let metrics = program.metrics();
    let labels = format!("{{namespace=\"{}\",kind=\"Backup\",name=\"db\",host=\"db-1\"}}", stage.namespace);
    for metric in ["stash_appscode_com_backupsession_success", "restic_session_success"] {
        assert!(metrics.contains(&format!("{metric}{labels} 1\n")), "{metrics}");
    }
    assert!(program.terminate().success(), "{}", program.text());
    assert_eq!(fs::read_dir(stage.repository().join("repo/locks")).unwrap().count(), 0);
    // A new pod of the host knows what was done.
    let mut again = stage.start("db-1", "StatefulSet/db", &WATCH);
    stage.apply(&[trigger("again", "db")]);
    let object = stage.until("backup", "db", "run again", |object| count(object) == 2);
    assert_eq!(run(&object, "statefulset.db-1", 0)["triggers"], json!(["again"]));
    again.terminate();
}

#[test]
fn a_mended_secret_needs_no_restart() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[
        workload("DaemonSet", "db"),
        repository(),
        backup("db", "DaemonSet/db", "  schedule: '@every 1h'\n"),
    ]);
    let program = stage.start("db-x", "DaemonSet/db", &WATCH);
    stage.until("backup", "db", "run", |object| count(object) == 1);
    stage.secret("RESTIC_PASSWORD", "wrong");
    stage.apply(&[trigger("now", "db")]);
    let object = stage.until("backup", "db", "failed", |object| count(object) == 2);
    let failed = run(&object, "daemonset.db.node-1", 0);
    let error = failed["error"].as_str().unwrap();
    assert!(failed["phase"] == "Failed" && error.contains("RESTIC_PASSWORD") && error.contains("secret"), "{error}");
    assert!(!error.contains("wrong") || !program.text().contains("correct horse"));
    stage.until("event", "db-2", "there", |object| object["reason"] == "FailedBackup");
    stage.secret("RESTIC_PASSWORD", "correct horse");
    stage.apply(&[trigger("mended", "db")]);
    let object = stage.until("backup", "db", "mended", |object| count(object) >= 3);
    assert_eq!(run(&object, "daemonset.db.node-1", 0)["phase"], "Succeeded");
}

#[test]
fn a_run_whose_pod_died_has_failed_and_is_done_again() {
    let stage = Stage::new();
    // Long enough to be killed in: nothing of it is stored twice.
    fs::File::create(stage.data("large")).unwrap().set_len(200 << 30).unwrap();
    stage.apply(&[
        workload("StatefulSet", "db"),
        repository(),
        backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n  retryConfig: {delay: 1s}\n"),
    ]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    stage.until("backup", "db", "running", |object| object["status"]["hosts"][0]["running"]["start"].is_string());
    program.kill();
    fs::write(stage.data("large"), "now it is small").unwrap();
    let mut again = stage.start("db-0", "StatefulSet/db", &WATCH);
    let object = stage.until("backup", "db", "done again", |object| count(object) == 2);
    let (second, first) = (run(&object, "statefulset.db-0", 0), run(&object, "statefulset.db-0", 1));
    assert_eq!((&second["phase"], &first["phase"]), (&json!("Succeeded"), &json!("Failed")), "{object:#}");
    assert_eq!(first["error"], "the pod ended during the run");
    assert!(object["status"]["hosts"][0]["running"].is_null());
    assert!(again.terminate().success());
}

#[test]
fn what_a_run_stored_before_its_pod_died_is_not_stored_again() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    let backup = backup("db", "StatefulSet/db", "  schedule: '0 0 29 2 *'\n  retryConfig: {delay: 1s}\n");
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup, trigger("now", "db")]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let object = stage.until("backup", "db", "run", |object| count(object) == 1);
    let first = run(&object, "statefulset.db-0", 0).clone();
    let served =
        stage.until("backuptrigger", "now", "served", |object| object["status"]["runs"][0]["phase"] == "Succeeded");
    assert!(program.terminate().success(), "{}", program.text());
    // As if it had been killed before it could tell of its end.
    let cut_off = || {
        let mut host = object["status"]["hosts"][0].clone();
        let running = json!({"start": first["time"], "triggers": ["now"]});
        let news =
            json!({"running": running, "runs": [], "count": 0, "attempts": 1, "lastSuccess": null, "lastEnd": null});
        host.as_object_mut().unwrap().extend(news.as_object().unwrap().clone());
        stage.set_status(&object, "statefulset.db-0", &json!({"hosts": [host]}));
        let mut told = served["status"]["runs"][0].clone();
        told["phase"] = json!("Running");
        stage.set_status(&served, "statefulset.db-0", &json!({"runs": [told]}));
    };
    let snapshots = || fs::read_dir(stage.repository().join("repo/snapshots")).unwrap().count();
    for (content, expected) in [("content", 1), ("other content", 2)] {
        if content != "content" {
            fs::write(stage.data("a"), content).unwrap();
        }
        cut_off();
        let mut again = stage.start("db-0", "StatefulSet/db", &WATCH);
        let object = stage.until("backup", "db", "done again", |object| count(object) == 2);
        let (second, killed) = (run(&object, "statefulset.db-0", 0), run(&object, "statefulset.db-0", 1));
        assert_eq!((&second["phase"], &killed["phase"]), (&json!("Succeeded"), &json!("Failed")), "{object:#}");
        let is_first = second["snapshots"] == first["snapshots"];
        let says_so = second["notes"][0].as_str().is_some_and(|note| note.contains("nothing has changed since"));
        assert_eq!((snapshots(), is_first, says_so), (expected, expected == 1, expected == 1), "{object:#}");
        assert!(again.terminate().success());
    }
}

#[test]
fn a_run_that_is_asked_to_end_leaves_no_trace() {
    let stage = Stage::new();
    fs::File::create(stage.data("large")).unwrap().set_len(200 << 30).unwrap();
    stage.apply(&[
        workload("StatefulSet", "db"),
        repository(),
        backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n"),
    ]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let locks = || fs::read_dir(stage.repository().join("repo/locks")).map_or(0, Iterator::count);
    eventually(|| locks() == 1);
    assert!(program.terminate().success(), "{}", program.text());
    let object = stage.until("backup", "db", "not running", |object| object["status"]["hosts"][0]["running"].is_null());
    assert_eq!((count(&object), locks()), (0, 0));
}

#[test]
fn a_run_that_is_asked_to_end_between_two_snapshots_keeps_the_first() {
    let stage = Stage::new();
    for group in ["first", "second"] {
        fs::create_dir(stage.data(group)).unwrap();
        fs::write(stage.data(group).join("a"), group).unwrap();
    }
    fs::File::create(stage.data("second/large")).unwrap().set_len(200 << 30).unwrap();
    let restic = "apiVersion: stash.appscode.com/v1alpha1\nkind: Restic\nmetadata: {name: all, namespace: NAMESPACE}\nspec:\n  selector: {matchLabels: {app: db}}\n  fileGroups: [{path: /data/first}, {path: /data/second}]\n  schedule: '@every 1h'\n  backend:\n    storageSecretName: secret\n    local: {mountPath: /repo, subPath: repo, persistentVolumeClaim: {claimName: backups}}\n";
    let labelled =
        workload("StatefulSet", "db").replace("{name: db, namespace", "{name: db, labels: {app: db}, namespace");
    stage.apply(&[labelled, restic.to_owned()]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let snapshots = stage.repository().join("repo/statefulset/db-0/snapshots");
    let stored = || fs::read_dir(&snapshots).map_or(0, Iterator::count);
    eventually(|| stored() == 1);
    assert!(program.terminate().success(), "{}", program.text());
    let object = stage.until("restic", "all", "told", |object| object["status"]["hosts"][0]["running"].is_null());
    assert_eq!((count(&object), stored()), (0, 1), "{object:#}");
    fs::write(stage.data("second/large"), "now it is small").unwrap();
    let mut again = stage.start("db-0", "StatefulSet/db", &WATCH);
    let object = stage.until("restic", "all", "run", |object| count(object) == 1);
    let run = run(&object, "statefulset.db-0", 0);
    assert_eq!((&run["phase"], stored()), (&json!("Succeeded"), 2), "{object:#}");
    assert!(run["notes"][0].as_str().is_some_and(|note| note.contains("nothing has changed since")), "{object:#}");
    assert!(object["status"]["hosts"][0]["cutOffSince"].is_null(), "{object:#}");
    assert!(again.terminate().success());
}

#[test]
fn one_pod_of_a_deployment_works_at_a_time() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[
        workload("Deployment", "web"),
        repository(),
        backup("web", "Deployment/web", "  schedule: '@every 1s'\n"),
    ]);
    ["web-1", "web-2"].into_iter().for_each(|pod| stage.pod(pod));
    let mut one = stage.start("web-1", "Deployment/web", &WATCH);
    stage.until("backup", "web", "run", |object| count(object) >= 1);
    let mut two = stage.start("web-2", "Deployment/web", &WATCH);
    let writer = |object: &Value| object["status"]["hosts"][0]["pod"].as_str().unwrap_or_default().to_owned();
    let before = count(&Server::get().object(&stage.namespace, "backup", "web"));
    let object = stage.until("backup", "web", "run more often", |object| count(object) >= before + 2);
    assert_eq!(writer(&object), "web-1");
    assert!(!two.text().contains("saved"), "{}", two.text());
    // Killed, its turn is over when its time is.
    one.kill();
    let object = stage.until("backup", "web", "taken over", |object| {
        writer(object) == "web-2" && object["status"]["hosts"][0]["running"].is_null()
    });
    assert_eq!(object["status"]["hosts"].as_array().map(Vec::len), Some(1));
    // Asked to end, it gives its turn back at once.
    let mut three = stage.start("web-3", "Deployment/web", &["watch", "--listen=127.0.0.1:0", "--lease-seconds=3600"]);
    assert!(two.terminate().success());
    stage.until("backup", "web", "taken over again", |object| writer(object) == "web-3");
    assert!(three.terminate().success());
    let lease = Server::get().object(&stage.namespace, "lease", "holdfast-deployment.web");
    assert!(lease["spec"]["holderIdentity"].is_null(), "{lease:#}");
    // It goes with the last Backup that it is for.
    let owner = &lease["metadata"]["ownerReferences"];
    assert_eq!((&owner[0]["kind"], &owner[0]["uid"]), (&json!("Backup"), &object["metadata"]["uid"]), "{lease:#}");
    assert_eq!(owner.as_array().map(Vec::len), Some(1), "{lease:#}");
}

#[test]
fn the_turn_of_a_pod_that_is_gone_is_not_waited_for() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[
        workload("Deployment", "web"),
        repository(),
        backup("web", "Deployment/web", "  schedule: '@every 1s'\n"),
    ]);
    ["web-1", "web-2"].into_iter().for_each(|pod| stage.pod(pod));
    let watch = ["watch", "--listen=127.0.0.1:0", "--lease-seconds=600"];
    let mut one = stage.start("web-1", "Deployment/web", &watch);
    stage.until("backup", "web", "run", |object| count(object) >= 1);
    let two = stage.start("web-2", "Deployment/web", &watch);
    one.kill();
    Server::get().must(&["delete", "pod", "web-1", "-n", &stage.namespace, "--force", "--grace-period=0"]);
    // Three renewals must have been missed, which are 15 s apart.
    let writer = |object: &Value| object["status"]["hosts"][0]["pod"] == "web-2";
    stage.until("backup", "web", "taken over", writer);
    eventually(|| two.text().contains("saved snapshot"));
}

#[test]
fn an_api_server_that_is_away_stops_no_backup() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[
        workload("StatefulSet", "db"),
        repository(),
        backup("db", "StatefulSet/db", "  schedule: '@every 2s'\n"),
    ]);
    let proxy = Proxy::to(Server::get().port);
    let kubeconfig = Server::get().write_kubeconfig(&format!("through-proxy-{}", stage.namespace), proxy.port);
    let mut program = stage.start_with("db-0", "StatefulSet/db", &WATCH, &kubeconfig);
    stage.until("backup", "db", "run", |object| count(object) >= 1);
    proxy.cut();
    let snapshots = || fs::read_dir(stage.repository().join("repo/snapshots")).unwrap().count();
    let (before, at_cut) = (snapshots(), count(&Server::get().object(&stage.namespace, "backup", "db")));
    eventually(|| snapshots() >= before + 3);
    program.says(&["error:", "tried again"]);
    proxy.mend();
    stage.until("backup", "db", "told of what was done meanwhile", |object| count(object) >= at_cut + 3);
    program.says(&["told again"]);
    assert!(program.terminate().success());
}

#[test]
fn a_recovery_still_to_be_done_holds_the_backup_up() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    let to = "  recoverTo: {workload: {apiVersion: apps/v1, kind: StatefulSet, name: db}}\n";
    stage.apply(&[workload("StatefulSet", "db"), repository(), recovery("back", to)]);
    stage.apply(&[backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n")]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    stage.until("backup", "db", "known", |object| object["status"]["hosts"][0]["firstSeen"].is_string());
    assert!(!stage.repository().join("repo/config").exists());
    Server::get().must(&["delete", "recovery", "back", "-n", &stage.namespace]);
    stage.until("backup", "db", "run", |object| count(object) == 1);
    assert!(program.terminate().success());
}

#[test]
fn a_backup_made_anew_under_the_same_name_has_no_past() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    let text = backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n");
    stage.apply(&[workload("StatefulSet", "db"), repository(), text.clone()]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let old = stage.until("backup", "db", "run", |object| count(object) == 1);
    Server::get().must(&["delete", "backup", "db", "-n", &stage.namespace]);
    stage.apply(&[text]);
    let new = stage.until("backup", "db", "run anew", |object| count(object) == 1);
    assert_ne!(old["metadata"]["uid"], new["metadata"]["uid"]);
    assert!(program.terminate().success());
}

#[test]
fn an_idle_sidecar_is_small_and_writes_nothing() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[
        workload("StatefulSet", "db"),
        repository(),
        backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n"),
    ]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let before = version(&stage.until("backup", "db", "run", |object| count(object) == 1));
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(version(&Server::get().object(&stage.namespace, "backup", "db")), before);
    // What is its own; what is mapped of the program is shared by all pods of a node, and depends on how it was built.
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap().trim();
    let kib: u64 = own.trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 20 << 10, "{own}");
    assert!(program.terminate().success());
}

#[test]
fn a_pod_that_cannot_renew_its_turn_stops_before_another_begins() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[workload("Deployment", "web"), repository()]);
    stage.apply(&[backup("web", "Deployment/web", "  schedule: '@every 1s'\n")]);
    ["web-1", "web-2"].into_iter().for_each(|pod| stage.pod(pod));
    let proxy = Proxy::to(Server::get().port);
    let kubeconfig = Server::get().write_kubeconfig(&format!("through-proxy-{}", stage.namespace), proxy.port);
    let one = stage.start_with("web-1", "Deployment/web", &WATCH, &kubeconfig);
    stage.until("backup", "web", "run", |object| count(object) >= 1);
    let two = stage.start("web-2", "Deployment/web", &WATCH);
    proxy.cut();
    let saved = |text: &str| text.lines().filter(|line| line.contains("saved snapshot")).count();
    eventually(|| saved(&two.text()) >= 1);
    let by_one = saved(&one.text());
    eventually(|| saved(&two.text()) >= 4);
    assert_eq!(saved(&one.text()), by_one, "{}", one.text());
    // Back again, it leaves the work to the other.
    proxy.mend();
    one.says(&["told again"]);
    let by_two = saved(&two.text());
    eventually(|| saved(&two.text()) >= by_two + 2);
    assert_eq!(saved(&one.text()), by_one, "{}", one.text());
    let object = Server::get().object(&stage.namespace, "backup", "web");
    assert_eq!(object["status"]["hosts"][0]["pod"], "web-2", "{object:#}");
}

#[test]
fn a_restic_tells_of_its_own_repository_and_by_its_own_words() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    fs::create_dir_all(stage.root().join("secrets/secret")).unwrap();
    let restic = "apiVersion: stash.appscode.com/v1alpha1\nkind: Restic\nmetadata: {name: all, namespace: NAMESPACE}\nspec:\n  selector: {matchLabels: {app: web}}\n  fileGroups: [{path: /data}]\n  schedule: '@every 1h'\n  backend:\n    storageSecretName: secret\n    local: {mountPath: /repo, persistentVolumeClaim: {claimName: backups}}\n";
    let labelled =
        workload("ReplicaSet", "web").replace("{name: web, namespace", "{name: web, labels: {app: web}, namespace");
    stage.apply(&[labelled, restic.to_owned()]);
    let mut program = stage.start("web-1", "ReplicaSet/web", &WATCH);
    let object = stage.until("restic", "all", "run", |object| count(object) == 1);
    let entry = &object["status"]["hosts"][0];
    assert_eq!(
        (&entry["host"], &entry["repository"]["snapshotCount"]),
        (&json!("replicaset.web"), &json!(1)),
        "{object:#}"
    );
    stage.until("event", "all-1", "there", |event| event["reason"] == "Success");
    // Its snapshots can be recovered by the name that the first generation gives its repository.
    let volume = stage.root().join("target/holdfast-recovered-0");
    fs::create_dir_all(&volume).unwrap();
    let recovery = "apiVersion: stash.appscode.com/v1alpha1\nkind: Recovery\nmetadata: {name: old, namespace: NAMESPACE}\nspec:\n  repository: {name: replicaset.web}\n  paths: [/data]\n  recoveredVolumes: [{mountPath: /data, persistentVolumeClaim: {claimName: copy}}]\n";
    stage.apply(&[recovery.to_owned()]);
    let (code, text) = stage.run("recover-old", "Recovery/old", &["recover", "--recovery-name=old"]);
    assert_eq!((code, fs::read_to_string(volume.join("a")).unwrap_or_default().as_str()), (0, "content"), "{text}");
    assert!(program.terminate().success());
}

#[test]
fn a_repository_of_another_namespace_is_used_where_it_is_allowed() {
    let (stage, other) = (Stage::new(), Stage::new());
    fs::write(stage.data("a"), "content").unwrap();
    let shared = format!("  allowedNamespaces: [{}]\n", stage.namespace);
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: secret, namespace: NAMESPACE}\nstringData: {RESTIC_PASSWORD: of the other}\n";
    other.apply(&[repository() + &shared, secret.to_owned()]);
    let hash = names::hash(&format!("claim/{}/backups", other.namespace));
    fs::create_dir_all(stage.root().join(names::repository_mount(&hash))).unwrap();
    let refers = format!("repository: {{name: repo, namespace: {}}}", other.namespace);
    stage.apply(&[
        workload("StatefulSet", "db"),
        backup("db", "StatefulSet/db", "  schedule: '@every 1h'\n").replace("repository: {name: repo}", &refers),
    ]);
    let mut program = stage.start("db-0", "StatefulSet/db", &WATCH);
    let object = stage.until("backup", "db", "run", |object| count(object) == 1);
    assert_eq!(run(&object, "statefulset.db-0", 0)["phase"], "Succeeded", "{object:#}");
    other.until("repository", "repo", "told", |object| object["status"]["snapshotCount"] == 1);
    assert!(program.terminate().success());
}

//! What init containers and Jobs run.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use holdfast_api::names::pod as names;
use serde_json::{Value, json};

use super::manifest::{backup, recovery, repository, workload};
use super::pod::{Program, Stage};
use super::proxy::Proxy;
use super::server::Server;

const TO_DB: &str = "  recoverTo: {workload: {apiVersion: apps/v1, kind: StatefulSet, name: db}}\n";

/// A StatefulSet with one backup of a file.
fn saved() -> Stage {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup("db", "StatefulSet/db", "")]);
    let (code, text) = stage.run("db-0", "StatefulSet/db", &["backup", "--backup-name=db"]);
    assert_eq!(code, 0, "{text}");
    stage
}

#[test]
fn a_backup_runs_once_and_ends() {
    let stage = Stage::new();
    fs::create_dir_all(stage.root().join("target/holdfast-target")).unwrap();
    fs::write(stage.root().join("target/holdfast-target/a"), "content").unwrap();
    stage.apply(&[repository(), backup("claim", "PersistentVolumeClaim/data", "  paused: true\n")]);
    let flags = [
        "--enable-status-subresource=true",
        "--enable-analytics=$(ENABLE_ANALYSTICS)",
        "--pushgateway-url=$(PUSH_GATEWAY_URL)",
    ];
    let arguments: Vec<&str> = ["backup", "--backup-name=claim"].into_iter().chain(flags).collect();
    let (code, text) = stage.run("backup-claim-1", "PersistentVolumeClaim/data", &arguments);
    assert_eq!(code, 0, "{text}");
    let object = Server::get().object(&stage.namespace, "backup", "claim");
    let entry = &object["status"]["hosts"][0];
    assert_eq!((&entry["host"], &entry["count"]), (&json!("persistentvolumeclaim.data"), &json!(1)), "{object:#}");
    // Of something that is not there.
    let (code, text) = stage.run("backup-none-1", "PersistentVolumeClaim/data", &["backup", "--backup-name=none"]);
    assert!(code == 1 && text.contains("Backup none"), "{text}");
}

#[test]
fn a_failed_backup_fails_its_job() {
    let stage = Stage::new();
    fs::remove_dir_all(stage.root().join("target/data")).unwrap();
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup("db", "StatefulSet/db", "")]);
    let (code, text) = stage.run("db-0", "StatefulSet/db", &["backup", "--backup-name=db"]);
    assert!(code == 1 && text.contains("volume data of the pod is not mounted"), "{text}");
    let object = Server::get().object(&stage.namespace, "backup", "db");
    assert_eq!(object["status"]["hosts"][0]["runs"][0]["phase"], "Failed", "{object:#}");
}

#[test]
fn a_recovery_is_done_once() {
    let stage = saved();
    stage.apply(&[recovery("back", TO_DB)]);
    fs::remove_file(stage.data("a")).unwrap();
    let recover = |pod: &str| stage.run(pod, "StatefulSet/db", &["recover", "--recovery-name=back"]);
    let (code, text) = recover("db-0");
    assert_eq!((code, fs::read_to_string(stage.data("a")).unwrap().as_str()), (0, "content"), "{text}");
    let object = Server::get().object(&stage.namespace, "recovery", "back");
    let entry = &object["status"]["hosts"][0];
    assert_eq!(
        (&entry["host"], &entry["phase"], &entry["count"]),
        (&json!("statefulset.db-0"), &json!("Succeeded"), &json!(1))
    );
    assert_eq!(
        (&entry["stats"][0]["path"], &entry["stats"][0]["filesRestored"]),
        (&json!("/data"), &json!(1)),
        "{object:#}"
    );
    // Again: nothing is touched.
    fs::write(stage.data("a"), "changed since").unwrap();
    let (code, text) = recover("db-0");
    assert_eq!((code, fs::read_to_string(stage.data("a")).unwrap().as_str()), (0, "changed since"), "{text}");
    assert_eq!(Server::get().object(&stage.namespace, "recovery", "back")["status"], object["status"]);
    // Another object of that name is another recovery.
    Server::get().must(&["delete", "recovery", "back", "-n", &stage.namespace]);
    stage.apply(&[recovery("back", &format!("{TO_DB}  overwriteNewer: true\n"))]);
    assert_eq!((recover("db-0").0, fs::read_to_string(stage.data("a")).unwrap().as_str()), (0, "content"));
}

#[test]
fn a_recovery_that_failed_for_good_is_tried_again_once_its_secret_is_mended() {
    let stage = saved();
    stage.apply(&[recovery("back", &format!("{TO_DB}  retryConfig: {{maxRetry: 0}}\n"))]);
    fs::remove_file(stage.data("a")).unwrap();
    stage.secret("RESTIC_PASSWORD", "wrong");
    let mut program = stage.start("db-0", "StatefulSet/db", &["recover", "--recovery-name=back"]);
    let entry = |object: &Value| object["status"]["hosts"][0].clone();
    let failed = stage.until("recovery", "back", "failed", |object| entry(object)["waitsForSecret"] == true);
    assert_eq!((&entry(&failed)["phase"], &entry(&failed)["count"]), (&json!("Failed"), &json!(1)), "{failed:#}");
    program.says(&["Recovery", "waits for another Secret"]);
    // Once for each Secret, not more often.
    let fails_again = |count: u64| {
        stage.until("recovery", "back", "failed again", |object| {
            entry(object)["count"] == count && entry(object)["waitsForSecret"] == true
        })
    };
    stage.secret("RESTIC_PASSWORD", "wrong as well");
    fails_again(2);
    fs::remove_file(stage.root().join(names::secret_mount("secret")).join("RESTIC_PASSWORD")).unwrap();
    let failed = fails_again(3);
    assert!(entry(&failed)["error"].as_str().is_some_and(|error| error.contains("RESTIC_PASSWORD")), "{failed:#}");
    stage.secret("RESTIC_PASSWORD", "correct horse");
    assert!(program.end(Duration::from_secs(90)).success(), "{}", program.text());
    let object = Server::get().object(&stage.namespace, "recovery", "back");
    assert_eq!((&entry(&object)["phase"], &entry(&object)["count"]), (&json!("Succeeded"), &json!(4)), "{object:#}");
    assert!(entry(&object)["waitsForSecret"].is_null() && stage.data("a").exists(), "{object:#}");
}

#[test]
fn a_secret_is_not_waited_for_without_end() {
    let stage = saved();
    stage.apply(&[recovery("back", &format!("{TO_DB}  retryConfig: {{maxRetry: 0}}\n"))]);
    stage.secret("RESTIC_PASSWORD", "wrong");
    let arguments = ["recover", "--recovery-name=back", "--secret-seconds=1"];
    let (code, text) = stage.run("db-0", "StatefulSet/db", &arguments);
    assert_eq!(code, 1, "{text}");
    // A pod that comes later does not know what the Secret was when it was last tried.
    stage.secret("RESTIC_PASSWORD", "correct horse");
    let (code, text) = stage.run("db-0", "StatefulSet/db", &arguments);
    assert_eq!(code, 0, "{text}");
}

/// A recovery that has been done while the API server could not be reached.
fn recovered_untold(stage: &Stage, proxy: &Proxy) -> Program {
    stage.apply(&[recovery("back", &format!("{TO_DB}  retryConfig: {{maxRetry: 0}}\n"))]);
    fs::remove_file(stage.data("a")).unwrap();
    stage.secret("RESTIC_PASSWORD", "wrong");
    let kubeconfig = Server::get().write_kubeconfig(&format!("through-proxy-{}", stage.namespace), proxy.port);
    let program = stage.start_with("db-0", "StatefulSet/db", &["recover", "--recovery-name=back"], &kubeconfig);
    program.says(&["Recovery", "waits for another Secret"]);
    stage.until("recovery", "back", "failed", |object| object["status"]["hosts"][0]["phase"] == "Failed");
    proxy.cut();
    stage.secret("RESTIC_PASSWORD", "correct horse");
    program.says(&["recovered from snapshot"]);
    program
}

#[test]
fn a_recovery_ends_when_the_api_server_knows_of_it() {
    let (stage, proxy) = (saved(), Proxy::to(Server::get().port));
    let mut program = recovered_untold(&stage, &proxy);
    std::thread::sleep(Duration::from_secs(4));
    assert!(program.is_running(), "the application would start, and be recovered again later: {}", program.text());
    proxy.mend();
    assert!(program.end(Duration::from_secs(90)).success(), "{}", program.text());
    let object = Server::get().object(&stage.namespace, "recovery", "back");
    assert_eq!(object["status"]["hosts"][0]["phase"], "Succeeded", "{object:#}");
    assert!(!program.text().contains("could not be told"), "{}", program.text());
}

#[test]
fn told_to_stop_it_does_not_wait_for_the_api_server() {
    let (stage, proxy) = (saved(), Proxy::to(Server::get().port));
    let mut program = recovered_untold(&stage, &proxy);
    assert!(program.is_running(), "{}", program.text());
    program.terminate();
    assert!(program.text().contains("could not be told"), "{}", program.text());
}

#[test]
fn always_is_once_for_each_pod_and_spares_what_is_newer() {
    let stage = saved();
    stage.apply(&[recovery("back", &format!("{TO_DB}  recoveryPolicy: Always\n"))]);
    let recover = |pod: &str| stage.run(pod, "StatefulSet/db", &["recover", "--recovery-name=back"]);
    fs::write(stage.data("a"), "newer").unwrap();
    assert_eq!((recover("db-0").0, fs::read_to_string(stage.data("a")).unwrap().as_str()), (0, "newer"));
    fs::remove_file(stage.data("a")).unwrap();
    // The same pod, its init container started again.
    assert_eq!((recover("db-0").0, stage.data("a").exists()), (0, false));
}

#[test]
fn a_workload_that_was_never_backed_up_starts_under_always_only() {
    let stage = Stage::new();
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup("db", "StatefulSet/db", "")]);
    stage.apply(&[recovery("once", TO_DB), recovery("always", &format!("{TO_DB}  recoveryPolicy: Always\n"))]);
    let (code, text) = stage.run("db-0", "StatefulSet/db", &["recover", "--recovery-name=always"]);
    assert_eq!(code, 0, "{text}");
    let (code, text) = stage.run("db-0", "StatefulSet/db", &["recover", "--recovery-name=once"]);
    assert_eq!(code, 1, "{text}");
    let object = Server::get().object(&stage.namespace, "recovery", "once");
    assert_eq!(object["status"]["hosts"][0]["phase"], "Failed", "{object:#}");
    assert_eq!(object["status"]["hosts"][0]["noSnapshot"], true);
    // Backed up since, and corrected so that it is tried at once.
    fs::write(stage.data("a"), "content").unwrap();
    assert_eq!(stage.run("db-0", "StatefulSet/db", &["backup", "--backup-name=db"]).0, 0);
    fs::remove_file(stage.data("a")).unwrap();
    stage.apply(&[recovery("once", &format!("{TO_DB}  retryConfig: {{delay: 1h}}\n"))]);
    let (code, text) = stage.run("db-0", "StatefulSet/db", &["recover", "--recovery-name=once"]);
    assert_eq!((code, stage.data("a").exists()), (0, true), "{text}");
}

#[test]
fn a_recovery_into_a_claim_takes_the_host_that_it_names() {
    let stage = saved();
    let volume = stage.root().join("target/holdfast-recovered-0");
    fs::create_dir_all(&volume).unwrap();
    let to = "  host: db-0\n  recoverTo: {volume: {mountPath: /data, persistentVolumeClaim: {claimName: copy}}}\n";
    stage.apply(&[recovery("copy", to)]);
    let (code, text) = stage.run("recover-copy", "Recovery/copy", &["recover", "--recovery-name=copy"]);
    assert_eq!((code, fs::read_to_string(volume.join("a")).unwrap().as_str()), (0, "content"), "{text}");
    let object = Server::get().object(&stage.namespace, "recovery", "copy");
    assert_eq!(object["status"]["hosts"][0]["host"], "volume", "{object:#}");
}

#[test]
fn a_repository_is_made_told_of_and_wiped() {
    let stage = Stage::new();
    fs::write(stage.data("a"), "content").unwrap();
    stage.apply(&[workload("StatefulSet", "db"), repository(), backup("db", "StatefulSet/db", "")]);
    let run = |arguments: &[&str]| {
        let (code, text) = stage.run("db-0", "StatefulSet/db", arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}");
    };
    run(&["init", "--backup-name=db"]);
    assert!(stage.repository().join("repo/config").exists());
    run(&["init", "--backup-name=db"]);
    let gateway = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("--pushgateway-url=http://{}", gateway.local_addr().unwrap());
    let pushed = std::thread::spawn(move || {
        let (mut connection, _) = gateway.accept().unwrap();
        let mut request = vec![0; 4096];
        let read = connection.read(&mut request).unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let metrics = stage.root().join("metrics.txt");
    fs::write(&metrics, "size 1\n").unwrap();
    run(&["update-repo-status", "--backup-name=db", &url, &format!("--metrics-dir={}", metrics.display())]);
    let request = pushed.join().unwrap();
    let line = format!("PUT /metrics/job/holdfast/namespace/{}/host/statefulset.db-0", stage.namespace);
    assert!(request.starts_with(&line), "{request}");
    let object = stage.until("repository", "repo", "told", |object| object["status"]["snapshotCount"] == 0);
    assert_eq!(object["status"]["integrity"], true, "{object:#}");
    fs::write(stage.repository().join("repo/somebody's"), "stays").unwrap();
    let (code, text) = stage.run("wipe", "Repository/repo", &["wipe", "--repository-name=repo"]);
    assert_eq!(code, 0, "{text}");
    assert!(!stage.repository().join("repo/config").exists() && stage.repository().join("repo/somebody's").exists());
}

#[test]
fn outside_of_a_pod_the_way_is_told() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["watch", "--target=Deployment/web"])
        .env_remove("POD_NAME")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1) && text.contains("POD_NAME") && text.contains("holdfast standalone"),
        "{text}"
    );
}

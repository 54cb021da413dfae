//! The operator as its users meet it: the documents of both generations, on real workloads, with restic as the judge of
//! what was stored.

use serde_json::json;

use crate::harness::{DB, Flow, LISTING, REPOSITORY, Test, Value, WEB, WRITE, is, is_true, test};

#[test]
fn a_label_protects_a_workload_and_its_removal_ends_it() {
    test(async |t| {
        t.operator().await;
        t.apply(REPOSITORY).await;
        t.apply(WEB).await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha1
kind: Restic
metadata: {name: nightly}
spec:
  source: {volumeName: source-volume, path: /mypath}
  destination:
    path: /stashrepo
    repositorySecretName: repository
    volume: {name: restic-volume, persistentVolumeClaim: {claimName: repository}}
  schedule: '*/10 * * * * *'
  tags: [testing]
  retentionPolicy: {keepLastSnapshots: 10}
",
        )
        .await;
        assert_eq!(t.containers("Deployment/web", |_| true).await, ["app"]);
        let pod = t.pod_of("app=web").await;
        t.sh(&pod, WRITE).await;

        let label = |value: Value| json!({"metadata": {"labels": {"restic.appscode.com/config": value}}});
        t.patch("Deployment/web", &label(json!("nightly"))).await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        let event = t.wait("Event/nightly-1", "there", |event| !event.is_null()).await;
        assert_eq!(
            (&event["reason"], &event["involvedObject"]["name"]),
            (&json!("Success"), &json!("nightly")),
            "{event:#}"
        );

        let counted = |restic: &Value| restic["status"]["backupCount"].as_u64() >= Some(1);
        t.wait("Restic/nightly", "backups counted", counted).await;
        let folder = format!("{}/deployment/web", t.namespace);
        let snapshots = t.restic_in_claim(&folder, "snapshots --json").await;
        let snapshots: Vec<Value> = serde_json::from_str(&snapshots).unwrap();
        let Value::Object(first) = &snapshots[0] else { panic!("{snapshots:#?}") };
        assert_eq!((&first["hostname"], &first["paths"]), (&json!("web"), &json!(["/mypath"])));
        assert!(first["tags"].as_array().unwrap().contains(&json!("testing")), "{first:#?}");
        assert_eq!(t.restic_in_claim(&folder, "dump latest /mypath/deep/note").await, "first\n");

        // A run that fails has its event, too; all at once there is nothing to back up.
        t.sh(&t.pod_of("app=web").await, "rm -r /source/data/*").await;
        let events = t
            .wait_all("Event", "", "the event of a run that failed", |events| {
                events.iter().any(|event| event["reason"] == "Failed")
            })
            .await;
        let failed = events.iter().find(|event| event["reason"] == "Failed").unwrap();
        let count =
            failed["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("nightly-")?.parse::<u32>().ok());
        assert!(count > Some(1) && failed["message"].to_string().contains("hold no file"), "{failed:#}");
        t.wait("Restic/nightly", "told to have failed", |restic| is(restic, "BackedUp", "False")).await;

        t.patch("Deployment/web", &label(Value::Null)).await;
        assert_eq!(t.containers("Deployment/web", |names| names == ["app"]).await, ["app"]);
        let web = t.get("Deployment/web").await;
        assert_eq!(web["spec"]["template"]["spec"]["volumes"].as_array().unwrap().len(), 1, "{web:#}");
        assert!(web["spec"]["template"]["metadata"]["annotations"]["holdfast/sidecar"].is_null(), "{web:#}");
        // Nobody writes any more, and who was stopped in mid-run may have left a lock.
        t.restic_in_claim(&folder, "--no-lock check --read-data").await;
    });
}

#[test]
fn what_a_trigger_backs_up_recovers_into_a_claim_and_into_the_workload() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        let pod = t.pod_of("app=web").await;
        t.sh(&pod, WRITE).await;
        let listing = t.sh(&pod, &format!("cd /source/data && {LISTING}")).await;

        t.protect(store, "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("now", "web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        let counted = |repository: &Value| repository["status"]["snapshotCount"].as_u64() >= Some(1);
        t.wait("Repository/store", "a backup counted", counted).await;
        let repository = t.url(store, "store");
        assert_eq!(t.restic(&repository, "--no-lock dump latest /source/data/deep/note").await, "first\n");

        t.claim("recovered").await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {name: into-claim}
spec:
  repository: {name: store}
  recoveryAgent: {name: stash-volume-recovery}
  paths: [/source/data]
  recoverTo:
    volume: {mountPath: /source/data, persistentVolumeClaim: {claimName: recovered}}
",
        )
        .await;
        t.condition("Recovery/into-claim", "Complete").await;
        assert_eq!(t.sh_in_claim("recovered", LISTING).await, listing);

        let pod = t.pod_of("app=web").await;
        t.sh(&pod, "cd /source/data && rm -r deep random && echo later > later").await;
        t.apply(
            "
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {name: into-workload}
spec:
  repository: {name: store}
  recoveryAgent: {name: stash-volume-recovery}
  recoverTo:
    workload: {apiVersion: apps/v1, kind: Deployment, name: web}
",
        )
        .await;
        t.condition("Recovery/into-workload", "Complete").await;
        // The recovered workload is whole, and what it wrote since the backup is still there.
        let pod = t.pod_of("app=web").await;
        assert_eq!(t.sh(&pod, "cat /source/data/later").await, "later\n");
        t.sh(&pod, "rm /source/data/later").await;
        assert_eq!(t.sh(&pod, &format!("cd /source/data && {LISTING}")).await, listing);
        t.restic(&repository, "--no-lock check --read-data").await;

        // The Backup said which paths there are. Without it the sidecar goes, and what is recovered stays so.
        t.sh(&pod, "rm /source/data/deep/note").await;
        t.delete("Backup/web").await;
        t.containers("Deployment/web", |names| names == ["restic-recover-into-workload", "app"]).await;
        let pod = t.pod_of("app=web").await;
        assert_eq!(t.sh(&pod, "cd /source/data/deep && echo *").await, "er hard\n");
        let recovery = t.get("Recovery/into-workload").await;
        assert!(is_true(&recovery, "Ready") && is_true(&recovery, "Complete"), "{:#}", recovery["status"]);
        let kept = |hosts: &Value| hosts[0]["restored"] == json!(["/source/data"]) && hosts[0]["count"] == 1;
        assert!(kept(&recovery["status"]["hosts"]), "{:#}", recovery["status"]);
    });
}

#[test]
fn of_several_replicas_one_writes() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        t.patch("Deployment/web", &json!({"spec": {"replicas": 3}})).await;
        t.protect(store, "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        let pods = t.list("Pod", "app=web").await;
        t.sh(pods[0]["metadata"]["name"].as_str().unwrap(), WRITE).await;
        t.trigger("now", "web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        t.trigger("again", "web").await;
        t.condition("BackupTrigger/again", "Complete").await;
        assert_eq!(t.hosts(store).await, ["web", "web"]);
    });
}

#[test]
fn each_pod_of_a_stateful_set_is_a_host() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(&DB.replace("replicas: 1", "replicas: 2")).await;
        t.protect(store, "db", "StatefulSet/db").await;
        t.containers("StatefulSet/db", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("now", "db").await;
        t.condition("BackupTrigger/now", "Complete").await;
        assert_eq!(t.hosts(store).await, ["db-0", "db-1"]);
        for pod in ["db-0", "db-1"] {
            let dump = format!("--no-lock dump --host {pod} latest /source/data/name");
            assert_eq!(t.restic(&t.url(store, "store"), &dump).await, format!("{pod}\n"));
        }
    });
}

#[test]
fn an_outage_of_the_store_is_waited_out() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        let proxy = t.proxy("front", 9000, t.object_store_address().await).await;
        t.apply(WEB).await;
        t.sh(&t.pod_of("app=web").await, WRITE).await;
        t.protect("http://front:9000", "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("before", "web").await;
        t.condition("BackupTrigger/before", "Complete").await;

        proxy.set(Flow::Refuse);
        t.trigger("during", "web").await;
        t.wait("BackupTrigger/during", "running", |trigger| trigger["status"]["phase"] == "Running").await;
        proxy.set(Flow::Silent);
        t.wait("Backup/web", "told to be running", |backup| !backup["status"]["hosts"][0]["running"].is_null()).await;
        proxy.set(Flow::Open);
        t.condition("BackupTrigger/during", "Complete").await;
        assert_eq!(t.hosts(store).await, ["web", "web"]);
        t.restic(&t.url(store, "store"), "check --read-data").await;
    });
}

#[test]
fn a_wrong_password_is_told_and_mended_without_a_restart() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        t.sh(&t.pod_of("app=web").await, WRITE).await;
        t.protect(store, "web", "Deployment/web").await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("first", "web").await;
        t.condition("BackupTrigger/first", "Complete").await;
        let right = t.get("Secret/storage").await["data"]["RESTIC_PASSWORD"].clone();
        t.patch("Secret/storage", &json!({"stringData": {"RESTIC_PASSWORD": "another"}})).await;
        // The kubelet brings a changed Secret to the pods within its sync period.
        let ended = async |t: &Test, name: String| {
            t.trigger(&name, "web").await;
            let ended = |trigger: &Value| is(trigger, "Complete", "True") || is(trigger, "Failed", "True");
            t.wait(&format!("BackupTrigger/{name}"), "ended", ended).await
        };
        let mut tries = 0;
        let message = t
            .until("a run fails for the password", async || {
                tries += 1;
                let trigger = ended(t, format!("wrong-{tries}")).await;
                let failed = is(&trigger, "Failed", "True");
                if failed { Ok(trigger["status"].to_string()) } else { Err("it succeeded".to_owned()) }
            })
            .await;
        assert!(message.contains("password"), "{message}");
        assert!(!message.contains("another"), "{message}");
        let pod = t.pod_of("app=web").await;
        t.patch("Secret/storage", &json!({"data": {"RESTIC_PASSWORD": right}})).await;
        t.until("a run succeeds again", async || {
            tries += 1;
            let trigger = ended(t, format!("right-{tries}")).await;
            if is(&trigger, "Complete", "True") { Ok(()) } else { Err(trigger["status"].to_string()) }
        })
        .await;
        assert_eq!(t.pod_of("app=web").await, pod, "the pod was restarted");
    });
}

#[test]
fn nothing_holds_up_the_deletion_of_a_namespace() {
    test(async |t| {
        t.operator().await;
        let store = t.object_store().await;
        t.apply(WEB).await;
        t.sh(&t.pod_of("app=web").await, WRITE).await;
        t.protect(store, "web", "Deployment/web").await;
        t.patch("Repository/store", &json!({"spec": {"deletionPolicy": "WipeOut"}})).await;
        t.containers("Deployment/web", |names| names == ["app", "restic-sidecar"]).await;
        t.trigger("now", "web").await;
        t.condition("BackupTrigger/now", "Complete").await;
        let namespace = format!("Namespace/{}", t.namespace);
        t.delete(&namespace).await;
        t.gone(&namespace).await;
    });
}

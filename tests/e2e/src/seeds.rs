//! The published examples, applied as they are and in their order, each as far as the seed says it goes.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{IMAGE, Test, Value, is, is_true, test};

/// Where one of the examples keeps its repository on the node; nodes share it with this machine.
const HOST_PATH: &str = "/data/stash-test";

/// What says that a folder of that name is of an earlier run and may go.
const MARK: &str = "/data/stash-test/made-by-the-tests-of-holdfast";

const SIDECAR: &str = "restic-sidecar";

/// The folder of the example, which goes afterwards, whatever happened.
struct HostPath {
    had_data: bool,
}

impl HostPath {
    fn new() -> Self {
        let had_data = Path::new("/data").exists();
        if Path::new(MARK).exists() {
            fs::remove_dir_all(HOST_PATH).unwrap();
        }
        let is_free = !Path::new(HOST_PATH).exists();
        assert!(is_free, "{HOST_PATH} is in the way: an example takes this folder, which is somebody's; move it");
        fs::create_dir_all(HOST_PATH).and_then(|()| fs::write(MARK, "")).unwrap();
        Self { had_data }
    }
}

impl Drop for HostPath {
    fn drop(&mut self) {
        let gone = fs::remove_dir_all(HOST_PATH);
        let data = if self.had_data { Ok(()) } else { fs::remove_dir("/data") };
        if let Err(error) = gone.and(data) {
            println!("cannot remove {HOST_PATH}: {error}");
        }
    }
}

#[test]
fn the_published_examples_do_what_the_seeds_say() {
    test(async |t| {
        t.operator().await;
        let demo = t.demo().await;
        let _path = HostPath::new();
        a_label_or_a_selector_ties_workloads_to_a_restic(t, &demo).await;
        the_sidecar_follows_the_restic_and_goes_with_it(&demo).await;
        let pod = a_backup_of_a_workload(t, &demo).await;
        what_is_stored_recovers_into_a_volume(&demo).await;
        databases_are_told_not_to_be_served(&demo).await;
        an_annotation_asks_for_the_default_backup(t, &demo).await;
        what_is_stored_recovers_into_the_workload(&demo, &pod).await;
        t.restic(REPOSITORY, "check --read-data").await;
    });
}

/// Seed 000. Its workloads of every kind, and one that a selector finds.
async fn a_label_or_a_selector_ties_workloads_to_a_restic(t: &Test, demo: &Test) {
    demo.publish(&["000/restic.yaml", "000/workloads.yaml", "000/restic-by-selector.yaml"]).await;
    rolled_out(demo, &["busybox", SIDECAR]).await;
    demo.containers("Deployment/stash-selected", |names| names == ["busybox", SIDECAR]).await;
    let sidecar = sidecar(demo, "Deployment/stash-demo").await;
    assert_eq!(sidecar["args"], json!(["watch", "--target=Deployment/stash-demo"]), "{sidecar:#}");
    // The annotation of the Restic chooses the image.
    assert_eq!(sidecar["image"], "docker.io/holdfast/holdfast:latest", "{sidecar:#}");

    let hosts = [
        "daemonset.stash-demo-ds.node-1",
        "daemonset.stash-demo-ds.node-2",
        "deployment.stash-demo",
        "replicaset.stash-demo-rs",
        "replicationcontroller.stash-demo-rc",
        "statefulset.stash-demo-sts-0",
    ];
    let restic = demo
        .wait("Restic/test-backup", "a run of every host that succeeded", |restic| {
            let done = |host: &Value| host["lastSuccess"].is_string();
            let of = restic["status"]["hosts"].as_array().into_iter().flatten().filter(|host| done(host));
            let mut found: Vec<_> = of.filter_map(|host| host["host"].as_str()).collect();
            found.sort_unstable();
            found == hosts && is_true(restic, "BackedUp") && restic["status"]["backupCount"].as_u64() >= Some(6)
        })
        .await;
    let status = &restic["status"];
    for field in ["firstBackupTime", "lastBackupTime", "lastSuccessfulBackupTime", "lastBackupDuration"] {
        assert!(status[field].is_string(), "no {field} in {status:#}");
    }
    // The first of six fields are the seconds: a run begins with a minute.
    let next = status["nextBackupTime"].as_str().unwrap_or_default();
    assert!(next.ends_with(":00Z"), "{status:#}");
    // But for one that makes up for a start which a busy machine missed.
    let runs = status["history"].as_array().unwrap();
    let is_on_time = |run: &&Value| run["time"].as_str().unwrap()[17..19].parse::<u8>().unwrap() < 30;
    assert!(runs.iter().all(|run| run["phase"] == "Succeeded"), "{runs:#?}");
    assert!(runs.iter().filter(is_on_time).count() * 2 > runs.len(), "{runs:#?}");
    // Each run has an event of its own name.
    let name = |count: u8| format!("test-backup-{count}");
    let events = demo
        .wait_all("Event", "", "the events of the first six runs", |events| {
            (1..=6).all(|count| events.iter().any(|event| event["metadata"]["name"] == name(count)))
        })
        .await;
    let mut of_runs = events.iter().filter(|event| (1..=6).any(|count| event["metadata"]["name"] == name(count)));
    assert!(of_runs.all(|event| event["reason"] == "Success" && event["metadata"]["namespace"] == "demo"));

    demo.condition("Restic/local-restic", "BackedUp").await;
    // The folder of the node has one repository for each workload.
    t.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: reader}}, spec: {{terminationGracePeriodSeconds: 0,
          securityContext: {{runAsUser: 0}}, containers: [{{name: restic, image: 'holdfast.test/restic:1',
          imagePullPolicy: Never, command: [sleep, '86400'], env: [{{name: RESTIC_PASSWORD, value: change-me}}],
          volumeMounts: [{{name: path, mountPath: /repository}}]}}],
          volumes: [{{name: path, hostPath: {{path: {HOST_PATH}/restic-repo}}}}]}}}}"
    ))
    .await;
    t.condition("Pod/reader", "Ready").await;
    let restic = "restic --no-cache --retry-lock 1m -r /repository/demo/deployment/stash-selected";
    let snapshots = t.sh("reader", &format!("{restic} snapshots --json")).await;
    let snapshots: Vec<Value> = serde_json::from_str(&snapshots).unwrap();
    let Value::Object(first) = &snapshots[0] else { panic!("{snapshots:#?}") };
    assert_eq!((&first["hostname"], &first["paths"]), (&json!("stash-selected"), &json!(["/source/data"])));
    assert!(first["tags"].as_array().unwrap().contains(&json!("data")), "{first:#?}");
    t.sh("reader", &format!("{restic} check --read-data")).await;
    t.kill_pod("reader").await;
}

/// The rest of seed 000: another image, and the end of it by label, by selector and by deletion.
async fn the_sidecar_follows_the_restic_and_goes_with_it(demo: &Test) {
    let image = |tag: &str| json!({"metadata": {"annotations": {"restic.appscode.com/image": tag}}});
    demo.patch("Restic/test-backup", &image(env!("CARGO_PKG_VERSION"))).await;
    let is_wanted = |container: &Value| container["name"] == SIDECAR && container["image"] == IMAGE;
    let has = |pod: &Value| pod["spec"]["containers"].as_array().is_some_and(|all| all.iter().any(is_wanted));
    for app in ["stash-demo", "stash-demo-sts", "stash-demo-rs"] {
        demo.wait_all("Pod", &format!("app={app}"), "of the image that the annotation says", |pods| {
            !pods.is_empty() && pods.iter().all(has)
        })
        .await;
    }
    let label = json!({"metadata": {"labels": {"restic.appscode.com/config": null}}});
    demo.patch("Deployment/stash-demo", &label).await;
    demo.containers("Deployment/stash-demo", |names| names == ["busybox"]).await;
    // The others have kept theirs.
    demo.containers("StatefulSet/stash-demo-sts", |names| names == ["busybox", SIDECAR]).await;
    demo.patch("Deployment/stash-selected", &json!({"metadata": {"labels": {"app": "another"}}})).await;
    demo.containers("Deployment/stash-selected", |names| names == ["busybox"]).await;
    demo.wait("Restic/local-restic", "told that nothing is left", |restic| {
        restic["status"]["conditions"].to_string().contains("no workload is protected by it")
    })
    .await;
    demo.delete("Restic/test-backup").await;
    rolled_out(demo, &["busybox"]).await;
    // The second generation has another Deployment of this name.
    for workload in ["DaemonSet/stash-demo-ds", "Deployment/stash-demo"] {
        demo.delete(workload).await;
        demo.gone(workload).await;
    }
}

/// The repository of seed 001, as restic names it.
const REPOSITORY: &str = "gs:stash-backup-repo:/default/deployment/stash-demo";

/// Seed 001: objects of their own for repository and backup. Returns the workload's pod.
async fn a_backup_of_a_workload(t: &Test, demo: &Test) -> String {
    demo.publish(&["001/repository.yaml"]).await;
    t.google(demo).await;
    demo.condition("Repository/stash-backup-repo", "Ready").await;
    demo.publish(&["001/agent-templates-volume.yaml", "001/backup-volume.yaml"]).await;
    demo.condition("Backup/backup-volume-demo", "Ready").await;
    demo.containers("Deployment/stash-demo", |names| names == ["busybox", SIDECAR]).await;
    // The defaults have these names and arguments, and Holdfast's own image.
    demo.wait("AgentTemplate/stash-volume-backup", "the default", |template| {
        let container = &template["spec"]["containers"][0];
        container["image"].as_str().is_some_and(|image| image.contains("/holdfast:"))
            && container["args"].to_string().contains("--backup-name=$(BACKUP_NAME)")
    })
    .await;
    let sidecar = sidecar(demo, "Deployment/stash-demo").await;
    assert_eq!(sidecar["args"], json!(["watch", "--target=Deployment/stash-demo"]), "{sidecar:#}");
    let resources =
        json!({"requests": {"memory": "64Mi", "cpu": "250m"}, "limits": {"memory": "128Mi", "cpu": "500m"}});
    assert_eq!(sidecar["resources"], resources, "{sidecar:#}");
    // The first run is due at once, the next an hour later.
    let due = |backup: &Value| is_true(backup, "BackedUp") && backup["status"]["nextBackupTime"].is_string();
    let backup = demo.wait("Backup/backup-volume-demo", "to have run by its schedule", due).await;
    let hour = |time: &Value| time.as_str().map(|time| (time[11..13].parse::<u8>().unwrap(), time[14..19].to_owned()));
    let (last, next) = (hour(&backup["status"]["lastBackupTime"]), hour(&backup["status"]["nextBackupTime"]));
    assert_eq!(next, last.map(|(hour, rest)| ((hour + 1) % 24, rest)), "{:#}", backup["status"]);

    let pod = fresh(demo).await;
    demo.sh(&pod, "echo first > /source/data/first; echo second > /source/data/second").await;
    demo.publish(&["001/backup-trigger.yaml"]).await;
    let trigger = demo.condition("BackupTrigger/backup-volume-demo-trigger", "Complete").await;
    assert_eq!(trigger["status"]["runs"][0]["host"], "deployment.stash-demo", "{trigger:#}");
    assert_eq!(t.restic(REPOSITORY, "--no-lock dump latest /source/data/first").await, "first\n");
    t.restic(REPOSITORY, "--no-lock check --read-data").await;
    demo.wait("Repository/stash-backup-repo", "what is in it, and that it is whole", |repository| {
        let status = &repository["status"];
        status["snapshotCount"].as_u64() >= Some(2)
            && status["integrity"] == true
            && ["totalSize", "firstBackupTime", "lastBackupTime", "lastCheckTime"].map(|name| status[name].is_string())
                == [true; 4]
    })
    .await;
    demo.wait("Backup/backup-volume-demo", "the run in its history", |backup| {
        let run = &backup["status"]["history"][0];
        run["triggers"] == json!(["backup-volume-demo-trigger"])
            && run["host"] == "deployment.stash-demo"
            && run["filesTotal"] == 2
            && run["snapshots"].as_array().is_some_and(|snapshots| snapshots.len() == 1)
    })
    .await;
    demo.wait_all("Event", "", "an event of the run", |events| {
        let about = |event: &Value| event["involvedObject"]["name"] == "backup-volume-demo";
        events.iter().any(|event| about(event) && event["reason"] == "SuccessfulBackup")
    })
    .await;
    let metrics = demo.http_get(&pod, "127.0.0.1", 56790, "/metrics").await.unwrap();
    for (name, value) in [
        ("stash_appscode_com_backupsession_success", "1"),
        ("restic_session_success", "2"),
        ("stash_appscode_com_repository_integrity", "1"),
        ("stash_appscode_com_repository_snapshot_count", "2"),
    ] {
        let mut lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        assert!(lines.all(|line| line.ends_with(&format!(" {value}"))) && metrics.contains(name), "{name}: {metrics}");
    }
    pod
}

async fn what_is_stored_recovers_into_a_volume(demo: &Test) {
    demo.publish(&["001/recovery-into-volume.yaml"]).await;
    demo.condition("Recovery/recovery-volume-demo", "Complete").await;
    let job = demo.get("Job/recover-recovery-volume-demo").await;
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    let args = ["recover", "--recovery-name=$(RECOVERY_NAME)", "--pushgateway-url=$(PUSH_GATEWAY_URL)"];
    assert_eq!(container["args"].as_array().unwrap()[..3], args.map(Value::from), "{container:#}");
    assert_eq!(demo.sh_in_claim("stash-recovered", "cat first second").await, "first\nsecond\n");
}

/// They are taken and told; nothing else is held up by them.
async fn databases_are_told_not_to_be_served(demo: &Test) {
    demo.publish(&["001/agent-templates-postgres.yaml", "001/backup-database.yaml", "001/recovery-database.yaml"])
        .await;
    demo.publish(&["001/default-backup-database.yaml"]).await;
    for object in ["Backup/backup-database-demo", "Recovery/recovery-database-demo"] {
        let object = demo.wait(object, "said to be not served", |object| is(object, "Ready", "False")).await;
        assert_eq!(object["status"]["conditions"][0]["reason"], "NotServed", "{object:#}");
    }
    demo.wait_all("Event", "", "a word on the default backup of a database", |events| {
        let about = |event: &&Value| event["involvedObject"]["name"] == "quick-postgres-default";
        events.iter().filter(about).any(|event| event["message"].to_string().contains("not yet served"))
    })
    .await;
}

async fn an_annotation_asks_for_the_default_backup(t: &Test, demo: &Test) {
    demo.publish(&["001/default-backup-volume.yaml"]).await;
    demo.condition("Backup/deployment-stash-demo-default", "Ready").await;
    let repository = demo.get("Repository/deployment-stash-demo-default").await;
    assert_eq!(repository["spec"]["backend"]["gcs"]["prefix"], "demo/stash-demo-default", "{repository:#}");
    let backup = demo.get("Backup/deployment-stash-demo-default").await["spec"].take();
    assert_eq!(backup["retentionPolicy"]["keepLast"], 5, "{backup:#}");
    assert_eq!((&backup["schedule"], &backup["targetDirectories"]), (&json!("@every 1h"), &json!(["/source/data"])));
    demo.containers("Deployment/stash-demo-default", |names| names == ["busybox", SIDECAR]).await;
    demo.condition("Backup/deployment-stash-demo-default", "BackedUp").await;
    let restore = "--no-lock restore latest --target /tmp/default";
    t.restic("gs:stash-backup-repo:/demo/stash-demo-default", restore).await;
    assert_eq!(t.sh("restic", "cat /tmp/default/source/data/README.md").await, "more sample data");
}

async fn what_is_stored_recovers_into_the_workload(demo: &Test, pod: &str) {
    demo.sh(pod, "rm /source/data/first").await;
    demo.publish(&["001/recovery-into-workload.yaml"]).await;
    let once = |names: &[String]| names.iter().any(|name| name == "restic-recover-recovery-workload-demo");
    demo.containers("Deployment/stash-demo", once).await;
    demo.condition("Recovery/recovery-workload-demo", "Complete").await;
    let next = fresh(demo).await;
    assert_ne!(next, pod, "the workload was not restarted");
    assert_eq!(demo.sh(&next, "cat /source/data/first").await, "first\n");
    demo.publish(&["001/recovery-always.yaml"]).await;
    let always = |names: &[String]| names.iter().any(|name| name == "restic-recover-recovery-always-demo");
    demo.containers("Deployment/stash-demo", always).await;
    demo.condition("Recovery/recovery-always-demo", "Complete").await;
    // Whenever the workload restarts, it recovers first; what was to be recovered once is not.
    for _ in 0..2 {
        let pod = fresh(demo).await;
        demo.sh(&pod, "rm /source/data/second").await;
        demo.kill_pod(&pod).await;
        let pod = fresh(demo).await;
        assert_eq!(demo.sh(&pod, "cat /source/data/second").await, "second\n");
    }
}

/// Waits until the workloads of seed 000 have these containers in all their pods.
async fn rolled_out(demo: &Test, containers: &[&str]) {
    for workload in ["Deployment/stash-demo", "StatefulSet/stash-demo-sts"] {
        demo.containers(workload, |names| names == containers).await;
    }
    // Their pods are the controller's to restart.
    for app in ["app=stash-demo-rc", "app=stash-demo-rs"] {
        let what = format!("one ready pod with {containers:?}");
        let has = |pod: &Value| {
            let all = pod["spec"]["containers"].as_array().into_iter().flatten();
            all.filter_map(|container| container["name"].as_str()).eq(containers.iter().copied())
        };
        demo.wait_all("Pod", app, &what, |pods| pods.len() == 1 && is_true(&pods[0], "Ready") && has(&pods[0])).await;
    }
    demo.containers("DaemonSet/stash-demo-ds", |names| names == containers).await;
}

/// The sidecar in the template of a workload.
async fn sidecar(demo: &Test, workload: &str) -> Value {
    let workload = demo.get(workload).await;
    let mut containers = workload["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    containers.find(|container| container["name"] == SIDECAR).cloned().unwrap_or_default()
}

/// The one pod of the example's Deployment that is ready and not on its way out.
async fn fresh(demo: &Test) -> String {
    let lives = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null() && is_true(pod, "Ready");
    let pods =
        demo.wait_all("Pod", "app=stash-demo", "one ready pod", |pods| pods.iter().filter(lives).count() == 1).await;
    let pod = pods.iter().find(lives).unwrap();
    pod["metadata"]["name"].as_str().unwrap().to_owned()
}

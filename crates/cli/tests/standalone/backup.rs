//! Backups by manifests, with `--once`.

use std::path::Path;

use super::machine::{Machine, ran};
use super::manifest::{
    backup, backup_of, deployment, deployment_at, host_path, repository, secret, secret_with, trigger, web, workload,
};
use super::servers::noise;

const WEB: &str = "Backup/default/web/deployment.web";

#[test]
fn the_quickstart_saves_what_it_says() {
    let machine = Machine::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart");
    for file in ["notes.yaml", "data/ideas.txt", "data/drafts/first.md"] {
        machine.write(&format!("m/{file}"), std::fs::read(example.join(file)).unwrap());
    }
    machine
        .once()
        .succeeded()
        .says(&["Backup default/notes", "saved snapshot", "2 files"])
        .says(&["done: 1 run succeeded"]);
    let restic =
        super::machine::Restic { password: "quickstart-only-choose-your-own".into(), ..machine.restic("m/repository") };
    restic.check();
    let snapshots = restic.snapshots();
    assert_eq!(snapshots.len(), 1);
    assert_eq!(snapshots[0]["paths"], serde_json::json!(["/data"]));
    assert_eq!(snapshots[0]["hostname"], "notes");
    assert_eq!(snapshots[0]["tags"], serde_json::json!(["backup=default/notes"]));
    restic.assert_holds("/data", &machine.path("m/data"));
    // Nothing is due so soon after.
    machine.once().succeeded().says(&["done: 0 runs succeeded"]);
    assert_eq!(restic.snapshots().len(), 1);
}

#[test]
fn every_kind_of_file_comes_back_as_it_was() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/large", noise(1, 3 << 20));
    machine.write("m/data/empty", "");
    machine.write("m/data/deep/er/file", "text");
    let script = "ln -s deep/er link; ln large hard; mkfifo pipe; mkdir hollow; truncate -s 5M sparse; chmod 4750 empty; \
                  setfattr -n user.mark -v yes large; touch -d 2001-02-03T04:05:06.123456789 deep deep/er/file; \
                  printf x > \"$(printf 'not-\\377-utf8')\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(machine.path("m/data"));
    ran(command).succeeded();
    machine.once().succeeded();
    let restic = machine.restic("m/repo");
    restic.check();
    restic.assert_holds("/data", &machine.path("m/data"));
}

#[test]
fn retention_and_prune_follow_each_backup() {
    let machine = Machine::with(&web("retentionPolicy: {keepLast: 2, prune: true}"));
    let mut sizes = Vec::new();
    for n in 0..4 {
        machine.write("m/data/file", noise(n, 1 << 20));
        machine.manifests("trigger.yaml", &[trigger(&format!("now-{n}"), "web")]);
        machine.once().succeeded();
        sizes.push(machine.state()["repositories"]["default/repo"]["sizeBytes"].as_u64().unwrap());
    }
    let restic = machine.restic("m/repo");
    restic.check();
    assert_eq!(restic.snapshots().len(), 2);
    // Two files of 1 MiB are left, of four.
    assert!(sizes[3] < (5 << 20) / 2, "nothing was pruned: {sizes:?}");
    let state = machine.state();
    let known = &state["repositories"]["default/repo"];
    assert_eq!(known["snapshotCount"], 2);
    assert_eq!(known["snapshotsRemovedOnLastCleanup"], 1);
    assert_eq!(state["runs"][WEB]["history"][0]["forgotten"], 1);
}

#[test]
fn a_trigger_starts_its_backup_exactly_once_also_while_paused() {
    let mut manifests = web("paused: true");
    manifests.push(trigger("now", "web"));
    let machine = Machine::with(&manifests);
    machine.write("m/data/file", "text");
    for _ in 0..3 {
        machine.once().succeeded();
    }
    let restic = machine.restic("m/repo");
    assert_eq!(restic.snapshots().len(), 1);
    assert_eq!(machine.events_of("Backup default/web"), [("web-1".to_owned(), "SuccessfulBackup".to_owned())]);
    machine.manifests("again.yaml", &[trigger("again", "web")]);
    machine.once().succeeded().says(&["done: 1 run succeeded"]);
    machine.once().succeeded().says(&["done: 0 runs succeeded"]);
    assert_eq!(restic.snapshots().len(), 2);
}

#[test]
fn a_missed_run_is_made_once() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    // As if the machine had been off for days.
    machine.edit_state(|state| {
        let history = &mut state["observed"]["backups"][WEB];
        history["lastStart"] = "2026-01-02T03:04:05Z".into();
        history["lastEnd"] = "2026-01-02T03:04:06Z".into();
    });
    machine.once().succeeded().says(&["done: 1 run succeeded"]);
    machine.once().succeeded().says(&["done: 0 runs succeeded"]);
    assert_eq!(machine.restic("m/repo").snapshots().len(), 2);
}

#[test]
fn a_default_backup_is_asked_for_by_annotations() {
    let annotations = "annotations: {stash.appscode.com/backup: \"true\", stash.appscode.com/targetDirectories: \"[/data]\", \
                       stash.appscode.com/backupTemplate: volumes}";
    let template = "apiVersion: stash.appscode.com/v1alpha2\nkind: BackupTemplate\nmetadata: {name: volumes}\nspec:\n  \
                    schedule: '@every 1h'\n  retentionPolicy: {keepLast: 5, prune: true}\n  backend:\n    storageSecretName: secret\n    \
                    local: {mountPath: /r, subPath: '${TARGET_NAMESPACE}/${TARGET_KIND}/${TARGET_NAME}', hostPath: {path: repos}}\n";
    let machine = Machine::with(&[
        secret("secret"),
        template.to_owned(),
        workload("Deployment", "web", annotations, "", &host_path("data")),
    ]);
    machine.write("m/data/file", "text");
    let plan = machine.run(&["plan", "m", "--output", "json"]).succeeded().json();
    let kinds: Vec<_> = plan["generated"].as_array().unwrap().iter().map(|object| object["kind"].clone()).collect();
    assert_eq!(kinds, ["Repository", "Backup"]);
    machine.once().succeeded();
    let location = plan["repositories"][0]["location"].as_str().unwrap();
    assert!(location.ends_with("m/repos/default/deployment/web"), "{location}");
    let restic = machine.restic("m/repos/default/deployment/web");
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
}

#[test]
fn each_pod_of_a_statefulset_is_a_host() {
    let claims = "replicas: 2\n  serviceName: db\n  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
                  resources: {requests: {storage: 1Gi}}}}]";
    let machine = Machine::with(&[
        secret("secret"),
        repository("repo", "repo"),
        workload("StatefulSet", "db", "", claims, ""),
        backup_of("StatefulSet", "db", "db", "repo", "schedule: '@every 1h'"),
    ]);
    // Claims without a volume are folders under --volumes.
    for pod in 0..2 {
        machine.write(&format!("volumes/default/data-db-{pod}/file"), format!("of pod {pod}"));
    }
    machine.run(&["standalone", "m", "--once", "--volumes", "volumes"]).succeeded().says(&["done: 2 runs succeeded"]);
    let restic = machine.restic("m/repo");
    restic.check();
    let mut hosts: Vec<_> = restic.snapshots().iter().map(|snapshot| snapshot["hostname"].clone()).collect();
    hosts.sort_by_key(|host| host.to_string());
    assert_eq!(hosts, ["db-0", "db-1"]);
    assert_eq!(restic.run(&["dump", "latest", "--host", "db-1", "/data/file"]), "of pod 1");
}

#[test]
fn config_maps_and_secrets_are_files() {
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {app.conf: \"port=1\\n\"}\n";
    let machine = Machine::with(&[
        secret("secret"),
        repository("repo", "repo"),
        repository("repo2", "repo2"),
        settings.to_owned(),
        secret_with("keys", "id: abc"),
        deployment("one", "configMap: {name: settings}"),
        deployment("two", "secret: {secretName: keys, defaultMode: 0400}"),
        backup("one", "one", "repo", ""),
        backup("two", "two", "repo2", ""),
    ]);
    machine.once().succeeded();
    let one = machine.restic("m/repo");
    assert_eq!(one.run(&["dump", "latest", "/data/app.conf"]), "port=1\n");
    assert_eq!(machine.restic("m/repo2").run(&["dump", "latest", "/data/id"]), "abc");
    // What is unchanged is not read again, what is changed is.
    machine.manifests("triggers.yaml", &[trigger("again", "one")]);
    machine.manifests(
        "all.yaml",
        &[
            secret("secret"),
            repository("repo", "repo"),
            settings.replace("port=1", "port=2"),
            deployment("one", "configMap: {name: settings}"),
            backup("one", "one", "repo", ""),
        ],
    );
    machine.once().succeeded();
    assert_eq!(one.run(&["dump", "latest", "/data/app.conf"]), "port=2\n");
}

#[test]
fn several_workloads_share_a_repository_and_others_run_beside_it() {
    let mut manifests = vec![secret("secret"), repository("shared", "shared"), repository("own", "own")];
    for n in 0..4 {
        manifests.push(deployment_at(&format!("web-{n}"), &format!("data-{n}")));
        manifests.push(backup(&format!("web-{n}"), &format!("web-{n}"), if n < 3 { "shared" } else { "own" }, ""));
    }
    let machine = Machine::with(&manifests);
    for n in 0..4 {
        machine.write(&format!("m/data-{n}/file"), noise(n, 1 << 20));
    }
    machine.run(&["standalone", "m", "--once", "--slots", "4"]).succeeded().says(&["done: 4 runs succeeded"]);
    let shared = machine.restic("m/shared");
    shared.check();
    assert_eq!(shared.snapshots().len(), 3);
    assert_eq!(machine.restic("m/own").snapshots().len(), 1);
}

#[test]
fn a_repository_is_checked_every_three_days() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    let checks = |machine: &Machine| machine.events_of("Repository default/repo");
    assert_eq!(checks(&machine), [("repo-1".to_owned(), "SuccessfulCheck".to_owned())]);
    machine.manifests("trigger.yaml", &[trigger("one", "web")]);
    machine.once().succeeded();
    assert_eq!(checks(&machine).len(), 1, "it was checked a moment ago");
    machine.edit_state(|state| state["repositories"]["default/repo"]["lastCheck"] = "2026-01-02T03:04:05Z".into());
    machine.manifests("trigger.yaml", &[trigger("two", "web")]);
    machine.once().succeeded();
    assert_eq!(checks(&machine)[1], ("repo-2".to_owned(), "SuccessfulCheck".to_owned()));
}

#[test]
fn damage_that_a_check_finds_is_shown_until_it_is_gone() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", noise(1, 1 << 20));
    machine.once().succeeded();
    let restic = machine.restic("m/repo");
    let pack = restic.run(&["list", "packs"]).lines().next().unwrap().to_owned();
    std::fs::remove_file(machine.path(&format!("m/repo/data/{}/{pack}", &pack[..2]))).unwrap();
    machine.edit_state(|state| state["repositories"]["default/repo"]["lastCheck"] = "2026-01-02T03:04:05Z".into());
    machine.manifests("trigger.yaml", &[trigger("again", "web")]);
    machine.once().exits(1).says(&["Repository default/repo", "damaged", &pack[..8]]);
    assert_eq!(machine.events_of("Repository default/repo")[1].1, "FailedCheck");
    machine.run(&["status", "m"]).says(&["default/repo", "DAMAGED"]);
}

#[test]
fn a_claim_is_backed_up_from_its_local_volume() {
    let volume = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk}\nspec: {capacity: {storage: 1Gi}, \
                  accessModes: [ReadWriteOnce], claimRef: {namespace: default, name: files}, local: {path: disk}}\n";
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: files}\nspec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 1Gi}}}\n";
    let of_claim = backup_of("PersistentVolumeClaim", "files", "files", "repo", "schedule: '@every 1h'");
    let machine = Machine::with(&[
        secret("secret"),
        repository("repo", "repo"),
        volume.to_owned(),
        claim.to_owned(),
        of_claim.replace("apps/v1", "v1").replace("  targetDirectories: [/data]\n", ""),
    ]);
    machine.write("m/disk/file", "text");
    machine.once().succeeded();
    let restic = machine.restic("m/repo");
    let path = restic.snapshots()[0]["paths"][0].as_str().unwrap().to_owned();
    restic.assert_holds(&path, &machine.path("m/disk"));
}

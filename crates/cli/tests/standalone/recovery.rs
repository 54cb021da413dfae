//! Recoveries: into a volume, into a workload's volumes, once or always, and never over newer data.

use std::os::unix::fs::PermissionsExt;

use super::machine::{Machine, assert_same};
use super::manifest::{backup_of, recovery, repository, secret, to_deployment, trigger, web, workload};

/// A machine with one backup of `m/data/file`, made when it said `first`.
fn backed_up() -> Machine {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "first");
    machine.write("m/data/sub/other", "other");
    machine.once().succeeded();
    machine
}

fn touch(machine: &Machine, path: &str, time: &str) {
    let mut command = std::process::Command::new("touch");
    command.args(["-d", time]).arg(machine.path(path));
    super::machine::ran(command).succeeded();
}

#[test]
fn into_a_volume() {
    let machine = backed_up();
    let volume = "volume: {mountPath: /data, hostPath: {path: restored}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "")]);
    machine.once().succeeded().says(&["Recovery default/copy", "recovered from snapshot", "2 files"]);
    assert_same(&machine.path("m/data"), &machine.path("m/restored"));
    assert_eq!(machine.events_of("Recovery default/copy"), [("copy-1".to_owned(), "SuccessfulRecovery".to_owned())]);
    machine.run(&["status", "m"]).succeeded().says(&["Recovery default/copy", "Recovered"]);
}

#[test]
fn of_several_hosts_one_must_be_said() {
    let machine = backed_up();
    machine.restic("m/repo").run(&["rewrite", "--new-host", "other", "latest"]);
    let volume = "volume: {mountPath: /data, hostPath: {path: restored}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "")]);
    machine.once().exits(1).says(&["Recovery default/copy", "several hosts have stored /data: `other`, `web`", "host"]);
    assert!(!machine.path("m/restored/file").exists());
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "host: web")]);
    machine.once().succeeded();
    assert_same(&machine.path("m/data"), &machine.path("m/restored"));
}

#[test]
fn the_folder_itself_gets_its_owner_and_permissions_back() {
    let machine = backed_up();
    let mode = std::fs::Permissions::from_mode(0o750);
    std::fs::set_permissions(machine.path("m/data"), mode).unwrap();
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.once().succeeded();
    std::fs::rename(machine.path("m/data"), machine.path("before")).unwrap();
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), "")]);
    machine.once().succeeded();
    assert_same(&machine.path("before"), &machine.path("m/data"));
}

#[test]
fn of_some_paths_into_a_claim() {
    let machine = backed_up();
    let volume = "volume: {mountPath: /data, persistentVolumeClaim: {claimName: copy}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "paths: [/data/sub]")]);
    machine.run(&["standalone", "m", "--once", "--volumes", "v"]).succeeded();
    let found = super::machine::ran({
        let mut command = std::process::Command::new("find");
        command.arg(machine.path("v")).args(["-type", "f", "-printf", "%P\\n"]);
        command
    });
    assert_eq!(found.stdout.lines().collect::<Vec<_>>().len(), 1, "{}", found.stdout);
    assert!(found.stdout.contains("copy/sub/other"), "{}", found.stdout);
}

#[test]
fn an_include_means_a_path_of_the_snapshot() {
    let machine = backed_up();
    let volume = "volume: {mountPath: /data, hostPath: {path: restored}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "include: [/data/sub]")]);
    machine.once().succeeded().says(&["Recovery default/copy", "1 file,"]);
    assert_eq!(machine.read("m/restored/sub/other"), "other");
    assert!(!machine.path("m/restored/file").exists());
}

#[test]
fn an_include_that_matches_nothing_fails() {
    let machine = backed_up();
    let volume = "volume: {mountPath: /data, hostPath: {path: restored}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "include: [/sub, '*.md']")]);
    let says = ["FAILED", "Recovery default/copy", "`/sub`, `*.md`", "holdfast repo -r", "/repo ls"];
    let ran = machine.once().exits(1).says(&says);
    // The command that is named works, and shows the snapshot that is meant.
    let text = ran.text();
    let (_, command) = text.split_once("`holdfast repo -r ").unwrap();
    let words: Vec<&str> = command.split('`').next().unwrap().split(' ').collect();
    let [repository, ls, snapshot] = words[..] else { panic!("{words:?}") };
    let mut look = machine.command(&["repo", "-r", repository, ls, snapshot]);
    super::machine::ran({
        look.env("RESTIC_PASSWORD", super::machine::PASSWORD);
        look
    })
    .succeeded()
    .says(&["/data/sub/other"]);
    assert_eq!(machine.events_of("Recovery default/copy")[0].1, "FailedRecovery");
    // An include that is right is not made a failure by a file that is there already.
    machine.manifests("recovery.yaml", &[recovery("again", volume, "include: [/data/file]")]);
    machine.once().succeeded();
    machine.manifests("recovery.yaml", &[recovery("more", volume, "include: [/data/file]")]);
    machine.once().succeeded().says(&["not older than in the snapshot: 1"]);
}

#[test]
fn into_a_workload_once_and_before_its_next_backup() {
    let machine = backed_up();
    // The volume is lost: the recovery must come before the backup, which is due as well.
    std::fs::remove_dir_all(machine.path("m/data")).unwrap();
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), ""), trigger("now", "web")]);
    machine.once().succeeded().says(&["done: 2 runs succeeded"]);
    assert_eq!(machine.read("m/data/file"), "first");
    assert_eq!(machine.restic("m/repo").run(&["dump", "latest", "/data/file"]), "first");
    // IfNotRecovered: never again.
    std::fs::remove_file(machine.path("m/data/file")).unwrap();
    machine.once().succeeded();
    assert!(!machine.path("m/data/file").exists());
    assert_eq!(machine.events_of("Recovery default/back").len(), 1);
}

#[test]
fn always_is_done_at_each_start_and_keeps_newer_files() {
    let machine = backed_up();
    touch(&machine, "m/data/file", "2099-01-01");
    machine.write("m/data/file", "newer");
    touch(&machine, "m/data/file", "2099-01-01");
    std::fs::remove_file(machine.path("m/data/sub/other")).unwrap();
    let always = "recoveryPolicy: Always";
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), always)]);
    machine.once().succeeded().says(&["not older than in the snapshot: 1", "overwriteNewer"]);
    assert_eq!((machine.read("m/data/file"), machine.read("m/data/sub/other")), ("newer".into(), "other".into()));
    // Each start is an occasion.
    std::fs::remove_file(machine.path("m/data/sub/other")).unwrap();
    machine.once().succeeded();
    assert_eq!(machine.read("m/data/sub/other"), "other");
    assert_eq!(machine.events_of("Recovery default/back").len(), 2);
    let state = machine.state();
    let runs = &state["runs"]["Recovery/default/back/deployment.web"]["history"];
    assert_eq!(runs[0]["snapshots"].as_array().unwrap().len(), 1, "what was restored is recorded: {runs}");
    // Told to, it overwrites.
    let told = format!("{always}\n  overwriteNewer: true");
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), &told)]);
    machine.once().succeeded();
    assert_eq!(machine.read("m/data/file"), "first");
}

#[test]
fn an_older_file_is_brought_to_the_snapshot() {
    let machine = backed_up();
    machine.write("m/data/file", "stale");
    touch(&machine, "m/data/file", "2001-01-01");
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), "")]);
    machine.once().succeeded();
    assert_eq!(machine.read("m/data/file"), "first");
}

#[test]
fn with_nothing_to_restore_it_fails_and_holds_no_backup_up() {
    let mut manifests = web("");
    manifests.push(recovery("back", &to_deployment("web"), ""));
    let machine = Machine::with(&manifests);
    machine.write("m/data/file", "text");
    machine
        .once()
        .exits(1)
        .says(&["Recovery default/back", "FAILED", "default/repo"])
        .says(&["Backup default/web", "saved"]);
    assert_eq!(machine.read("m/data/file"), "text");
    machine.restic("m/repo").check();
    assert_eq!(machine.events_of("Recovery default/back")[0].1, "FailedRecovery");
}

#[test]
fn a_snapshot_that_is_not_there_restores_nothing_and_fails() {
    let machine = backed_up();
    let volume = "volume: {mountPath: /data, hostPath: {path: restored}}";
    machine.manifests("recovery.yaml", &[recovery("copy", volume, "snapshot: 0123abcd")]);
    machine.once().exits(1).says(&["Recovery default/copy", "FAILED", "0123abcd"]);
    assert!(!machine.path("m/restored").exists());
}

#[test]
fn each_pod_gets_its_own_data() {
    let claims = "replicas: 2\n  serviceName: db\n  volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], \
                  resources: {requests: {storage: 1Gi}}}}]";
    let machine = Machine::with(&[
        secret("secret"),
        repository("repo", "repo"),
        workload("StatefulSet", "db", "", claims, ""),
        backup_of("StatefulSet", "db", "db", "repo", "schedule: '@every 1h'"),
    ]);
    let file = |pod: u32| format!("v/default/data-db-{pod}/file");
    for pod in 0..2 {
        machine.write(&file(pod), format!("of pod {pod}"));
    }
    machine.run(&["standalone", "m", "--once", "--volumes", "v"]).succeeded();
    std::fs::remove_dir_all(machine.path("v")).unwrap();
    let to = "workload: {apiVersion: apps/v1, kind: StatefulSet, name: db}";
    machine.manifests("recovery.yaml", &[recovery("back", to, "")]);
    machine.run(&["standalone", "m", "--once", "--volumes", "v"]).succeeded().says(&["done: 2 runs succeeded"]);
    for pod in 0..2 {
        assert_eq!(machine.read(&file(pod)), format!("of pod {pod}"));
    }
}

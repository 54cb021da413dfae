//! Published manifests as they are, with their repository in a bucket of Google Cloud Storage (an emulator's).

use std::net::SocketAddr;
use std::path::Path;

use super::machine::{Machine, Ran, Restic, assert_same, ran};
use super::manifest::trigger;
use super::servers::{Server, noise};

/// Puts files of the first published example into the folder of manifests.
fn publish(machine: &Machine, files: &[&str]) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/seeds/001");
    for file in files {
        machine.write(&format!("m/{file}"), std::fs::read(examples.join(file)).unwrap());
    }
}

/// `holdfast standalone m --once` with Google at `google`.
fn once(machine: &Machine, google: Option<SocketAddr>) -> Ran {
    let mut command = machine.command(&["standalone", "m", "--once"]);
    command.envs(google.map(|address| ("STORAGE_EMULATOR_HOST", address.to_string())));
    ran(command)
}

#[test]
fn a_published_example_runs_as_it_is() {
    let server = Server::fake_gcs();
    let machine = Machine::new();
    publish(&machine, &["repository.yaml", "agent-templates-volume.yaml", "backup-volume.yaml"]);
    let disk = "apiVersion: v1\nkind: PersistentVolume\nmetadata: {name: disk}\nspec: {capacity: {storage: 1Gi}, \
                accessModes: [ReadWriteOnce], claimRef: {namespace: demo, name: stash-demo-data}, local: {path: disk}}\n";
    machine.manifests("disk.yaml", &[disk.to_owned()]);
    machine.write("m/disk/file", noise(1, 3 << 20));
    // The example's key opens nothing at Google's, and the Secret is the way out.
    once(&machine, None).exits(1).says(&[
        "Backup demo/backup-volume-demo",
        "FAILED",
        "gs:stash-backup-repo:/default/deployment/stash-demo",
        "GOOGLE_SERVICE_ACCOUNT_JSON_KEY has no `client_email`; put the whole file there",
    ]);
    let now = trigger("again", "backup-volume-demo").replace("metadata: {", "metadata: {namespace: demo, ");
    machine.manifests("trigger.yaml", &[now]);
    once(&machine, Some(server.address)).succeeded();

    let restic = Restic {
        repository: "gs:stash-backup-repo:/default/deployment/stash-demo".into(),
        password: "change-me".into(),
        env: vec![
            ("STORAGE_EMULATOR_HOST", server.address.to_string()),
            ("GOOGLE_PROJECT_ID", "my-project".into()),
            ("GOOGLE_ACCESS_TOKEN", "any".into()),
        ],
    };
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
    restic.assert_holds("/source/data", &machine.path("m/disk"));

    std::fs::rename(machine.path("m/disk"), machine.path("before")).unwrap();
    std::fs::create_dir(machine.path("m/disk")).unwrap();
    publish(&machine, &["recovery-into-workload.yaml"]);
    once(&machine, Some(server.address)).succeeded();
    assert_same(&machine.path("before"), &machine.path("m/disk"));
}

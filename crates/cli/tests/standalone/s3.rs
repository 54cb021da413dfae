//! A repository in a bucket, on a real server.

use super::machine::{Machine, Restic, assert_same};
use super::manifest::{backup, deployment_at, recovery, secret_with, to_deployment, trigger};
use super::servers::{KEY, SECRET, Server, noise};

#[test]
fn backup_retention_check_and_recovery_in_a_bucket() {
    let server = Server::minio();
    std::fs::create_dir(server.data().join("bucket")).unwrap();
    let repository = format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {{name: repo}}\nspec:\n  backend:\n    storageSecretName: secret\n    \
         s3: {{endpoint: 'http://{}', bucket: bucket, prefix: a/b, region: us-east-1}}\n",
        server.address
    );
    let keys = format!("RESTIC_PASSWORD: s3 secret, AWS_ACCESS_KEY_ID: {KEY}, AWS_SECRET_ACCESS_KEY: {SECRET}");
    let manifests = [
        secret_with("secret", &keys),
        repository,
        deployment_at("web", "data"),
        backup("web", "web", "repo", "retentionPolicy: {keepLast: 1, prune: true}"),
    ];
    let machine = Machine::with(&manifests);
    machine.write("m/data/file", noise(1, 3 << 20));
    machine.once().succeeded();
    machine.write("m/data/more", "text");
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.once().succeeded().says(&["1 old snapshot"]);
    let restic = Restic {
        repository: format!("s3:http://{}/bucket/a/b", server.address),
        password: "s3 secret".into(),
        env: vec![
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_DEFAULT_REGION", "us-east-1".into()),
        ],
    };
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
    let data = machine.path("m/data");
    restic.assert_holds("/data", &data);
    std::fs::rename(&data, machine.path("before")).unwrap();
    machine.manifests("recovery.yaml", &[recovery("back", &to_deployment("web"), "")]);
    machine.once().succeeded();
    assert_same(&machine.path("before"), &data);
    // Wrong keys: the Secret is the way out.
    let mut wrong = manifests;
    wrong[0] =
        secret_with("secret", "RESTIC_PASSWORD: s3 secret, AWS_ACCESS_KEY_ID: a, AWS_SECRET_ACCESS_KEY: bbbbbbbb");
    machine.manifests("all.yaml", &wrong);
    machine.manifests("trigger.yaml", &[trigger("again", "web")]);
    machine.once().exits(1).says(&["Backup default/web", "FAILED", "default/repo", "keys of the Secret"]);
}

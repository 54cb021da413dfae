//! A repository in a bucket, on a real server.

use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::machine::{Machine, Restic, assert_same, eventually, get, noise, tool};
use super::manifest::{backup, deployment_at, recovery, secret_with, to_deployment, trigger};

const KEY: (&str, &str) = ("holdfast", "not so secret");

/// MinIO; gone when dropped.
struct Server {
    process: Child,
    address: std::net::SocketAddr,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("data/bucket")).unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, console) = (free(), free());
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(tool("minio")).args(["server", "--quiet", "--address"]);
        command.arg(address.to_string()).args(["--console-address", &console.to_string(), "--certs-dir"]);
        command.arg(folder.path().join("certs")).arg(folder.path().join("data"));
        command.env("MINIO_ROOT_USER", KEY.0).env("MINIO_ROOT_PASSWORD", KEY.1).env("MINIO_UPDATE", "off");
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let server = Self { process, address, _folder: folder };
        eventually("the server", || {
            std::net::TcpStream::connect(address).is_ok() && get(address, "/minio/health/ready").0 == 200
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn backup_retention_check_and_recovery_in_a_bucket() {
    let server = Server::start();
    let repository = format!(
        "apiVersion: stash.appscode.com/v1alpha2\nkind: Repository\nmetadata: {{name: repo}}\nspec:\n  backend:\n    storageSecretName: secret\n    \
         s3: {{endpoint: 'http://{}', bucket: bucket, prefix: a/b, region: us-east-1}}\n",
        server.address
    );
    let keys = format!("RESTIC_PASSWORD: s3 secret, AWS_ACCESS_KEY_ID: {}, AWS_SECRET_ACCESS_KEY: {}", KEY.0, KEY.1);
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
            ("AWS_ACCESS_KEY_ID", KEY.0.into()),
            ("AWS_SECRET_ACCESS_KEY", KEY.1.into()),
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

//! A repository on S3, with restic's variables.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bench::{Bench, Run, assert_same, below, tool, wait_until};

const KEY: &str = "holdfast";
const SECRET: &str = "not so secret";

/// A server, gone when it is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let address = free();
        let process = Command::new(tool("minio"))
            .args(["server", "--quiet", "--address", &address.to_string(), "--console-address", &free().to_string()])
            .arg("--certs-dir")
            .arg(folder.join("certs"))
            .arg(folder.join("data"))
            .envs([("MINIO_ROOT_USER", KEY), ("MINIO_ROOT_PASSWORD", SECRET), ("MINIO_UPDATE", "off")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { process, address };
        wait_until("the S3 server listens", || {
            assert!(server.process.try_wait().unwrap().is_none(), "the S3 server ended");
            TcpStream::connect(address).is_ok()
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn both_programs_work_on_one_bucket() {
    let bench = Bench::bare();
    let server = Server::start(&bench.dir.path().join("server"));
    let repository = format!("s3:http://{}/bucket/some/folder", server.address);
    let run = |what: &str, mut command: Command, secret: &str| {
        command
            .env("RESTIC_REPOSITORY", &repository)
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", secret);
        Run::of(what, &[], command)
    };
    let ours = |args: &[&str]| run(&format!("holdfast {args:?}"), bench.command(args), SECRET);
    let theirs = |args: &[&str]| run(&format!("restic {args:?}"), bench.restic_command(args), SECRET);
    let data = bench.data();
    let data = data.to_str().unwrap();

    ours(&["snapshots"]).ended(10).said(&["no repository at", "bucket/some/folder", "hint:"]);
    ours(&["init"]).succeeded();
    run("holdfast with a wrong key", bench.command(&["snapshots"]), "wrong").ended(1).said(&["bucket/some/folder"]);
    ours(&["backup", data]).succeeded();
    theirs(&["check", "--read-data"]).succeeded();
    theirs(&["backup", data]).succeeded();
    assert_eq!(ours(&["snapshots", "--json"]).succeeded().json().as_array().unwrap().len(), 2);
    ours(&["forget", "--keep-last", "1", "--prune", "--max-unused", "0"]).succeeded();
    ours(&["check", "--read-data"]).succeeded();
    theirs(&["check", "--read-data"]).succeeded();
    let target = bench.dir.path().join("restored");
    ours(&["restore", "latest", "--target", target.to_str().unwrap()]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
}

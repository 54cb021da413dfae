//! A repository in Google Cloud Storage (its emulator), with restic's variables.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::bench::{Bench, Run, assert_same, below, tool, wait_until};

/// A server, gone when it is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start() -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(tool("fake-gcs-server"))
            .args(["-backend", "memory", "-log-level", "error", "-scheme", "http", "-host", "127.0.0.1"])
            .args(["-port", &address.port().to_string(), "-public-host", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { process, address };
        wait_until("the server listens", || {
            assert!(server.process.try_wait().unwrap().is_none(), "the server ended");
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
    let server = Server::start();
    let run = |what: &str, mut command: Command| {
        command
            .env("RESTIC_REPOSITORY", "gs:bucket:/some/folder")
            .env("STORAGE_EMULATOR_HOST", server.address.to_string())
            .env("GOOGLE_PROJECT_ID", "project")
            // restic wants one even here.
            .env("GOOGLE_ACCESS_TOKEN", "any");
        Run::of(what, &[], command)
    };
    let ours = |args: &[&str]| run(&format!("holdfast {args:?}"), bench.command(args));
    let theirs = |args: &[&str]| run(&format!("restic {args:?}"), bench.restic_command(args));
    let data = bench.data();
    let data = data.to_str().unwrap();

    ours(&["snapshots"]).ended(10).said(&["no repository at", "gs:bucket:/some/folder", "hint:"]);
    ours(&["init"]).succeeded();
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

//! A repository on S3, with restic's variables.

use std::process::Command;

use crate::bench::{Bench, Run, assert_same, below};
use crate::servers::{KEY, SECRET, Server};

#[test]
fn both_programs_work_on_one_bucket() {
    let bench = Bench::bare();
    let server = Server::minio();
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

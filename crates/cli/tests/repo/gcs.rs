//! A repository in Google Cloud Storage (its emulator), with restic's variables.

use std::process::Command;

use crate::bench::{Bench, Run, assert_same, below};
use crate::servers::Server;

#[test]
fn both_programs_work_on_one_bucket() {
    let bench = Bench::bare();
    let server = Server::fake_gcs();
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

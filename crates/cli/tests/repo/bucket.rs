//! Repositories in buckets, with restic's variables: S3, and Google Cloud Storage as its emulator has it.

use std::process::Command;

use crate::bench::{Bench, Run, assert_same, below};
use crate::servers::{KEY, SECRET, Server};

#[test]
fn both_programs_work_on_one_bucket_of_s3() {
    let server = Server::minio();
    let repository = format!("s3:http://{}/bucket/some/folder", server.address);
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)];
    let bench = Bench::bare();
    both_programs_work(&bench, &repository, &variables);

    let mut command = bench.command(&["snapshots"]);
    command.envs(variables).envs([("RESTIC_REPOSITORY", repository.as_str()), ("AWS_SECRET_ACCESS_KEY", "wrong")]);
    Run::of("holdfast with a wrong key", &[], command).ended(1).said(&["bucket/some/folder"]);
}

#[test]
fn both_programs_work_on_one_bucket_of_google() {
    let server = Server::fake_gcs();
    let variables = [
        ("STORAGE_EMULATOR_HOST", server.address.to_string()),
        ("GOOGLE_PROJECT_ID", "project".to_owned()),
        // restic wants one even here.
        ("GOOGLE_ACCESS_TOKEN", "any".to_owned()),
    ];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    both_programs_work(&Bench::bare(), "gs:bucket:/some/folder", &variables);
}

/// Each reads, checks and goes on with what the other wrote.
#[track_caller]
fn both_programs_work(bench: &Bench, repository: &str, variables: &[(&str, &str)]) {
    let run = |what: String, mut command: Command| {
        command.env("RESTIC_REPOSITORY", repository).envs(variables.iter().copied());
        Run::of(&what, &[], command)
    };
    let ours = |args: &[&str]| run(format!("holdfast {args:?}"), bench.command(args));
    let theirs = |args: &[&str]| run(format!("restic {args:?}"), bench.restic_command(args));
    let data = bench.data();
    let data = data.to_str().unwrap();

    ours(&["snapshots"]).ended(10).said(&["no repository at", "/some/folder", "hint:"]);
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

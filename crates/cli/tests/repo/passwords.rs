//! Where passwords come from, and keys.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::bench::{Bench, PASSWORD, Run};

#[track_caller]
fn check(bench: &Bench, variables: &[(&str, &str)], args: &[&str], input: &str, code: i32, said: &[&str]) {
    let mut command = bench.command(&[args, &["snapshots"]].concat());
    command.env_remove("RESTIC_PASSWORD").envs(variables.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Run::from_output(format!("{variables:?} {args:?}"), child.wait_with_output().unwrap()).ended(code).said(said);
}

#[test]
fn every_way_to_give_a_password() {
    let bench = Bench::new(2);
    let file = bench.dir.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let file = file.to_str().unwrap();
    let command = format!("echo '{PASSWORD}'");
    check(&bench, &[("RESTIC_PASSWORD", PASSWORD)], &[], "", 0, &[]);
    check(&bench, &[("RESTIC_PASSWORD_FILE", file)], &[], "", 0, &[]);
    check(&bench, &[("RESTIC_PASSWORD_FILE", file), ("RESTIC_PASSWORD", "wrong")], &[], "", 0, &[]);
    check(&bench, &[("RESTIC_PASSWORD_COMMAND", &command)], &[], "", 0, &[]);
    check(&bench, &[], &["-p", file], "", 0, &[]);
    check(&bench, &[], &["--password-command", &command], "", 0, &[]);
    check(&bench, &[], &[], &format!("{PASSWORD}\n"), 0, &[]);
    check(&bench, &[], &[], "", 1, &["no password given", "RESTIC_PASSWORD_FILE"]);
    check(&bench, &[], &["-p", "/nowhere"], "", 1, &["/nowhere", "hint:"]);
    check(&bench, &[], &["--password-command", "false"], "", 1, &["false", "hint:"]);
    check(&bench, &[], &["--insecure-no-password"], "", 12, &["wrong password"]);
    std::fs::write(file, "\n").unwrap();
    check(&bench, &[], &["-p", file], "", 1, &["empty", "--insecure-no-password"]);
}

#[test]
fn the_location_may_stand_in_a_file() {
    let bench = Bench::new(2);
    let file = bench.dir.path().join("location");
    std::fs::write(&file, format!("{}\n", bench.repository().display())).unwrap();
    let run = |variables: &[(&str, &str)]| {
        let mut command = bench.command(&["snapshots"]);
        command.env_remove("RESTIC_REPOSITORY").envs(variables.iter().copied());
        Run::of("holdfast", &["snapshots"], command)
    };
    run(&[("RESTIC_REPOSITORY_FILE", file.to_str().unwrap())]).succeeded();
    run(&[]).ended(1).said(&["no repository given", "RESTIC_REPOSITORY"]);
    run(&[("RESTIC_REPOSITORY", "sftp:host:/x")]).ended(1).said(&["sftp", "supported are"]);
}

#[test]
fn a_password_is_asked_for_on_a_terminal_without_being_shown() {
    let bench = Bench::bare();
    let program = env!("CARGO_BIN_EXE_holdfast");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{program} repo init"), "/dev/null"]);
    for (name, value) in bench.command(&[]).get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env_remove("RESTIC_PASSWORD").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("script (of bsdutils) is installed");
    let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    for prompt in ["password for the new repository: ", "the same again: "] {
        while !seen.contains(prompt) {
            let mut byte = [0];
            assert_eq!(screen.read(&mut byte).unwrap(), 1, "no {prompt:?} in {seen:?}");
            seen.push(char::from(byte[0]));
        }
        keys.write_all(b"secrex\x7ft word\n").unwrap();
    }
    screen.read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success(), "{seen}");
    assert!(seen.contains("created repository") && !seen.contains("secre"), "{seen:?}");
    let mut restic = bench.restic_command(&["snapshots"]);
    restic.env("RESTIC_PASSWORD", "secret word");
    Run::of("restic", &["snapshots"], restic).succeeded();
}

#[test]
fn keys_come_change_and_go() {
    let bench = Bench::new(2);
    let file = bench.dir.path().join("new");
    std::fs::write(&file, "second").unwrap();
    let with = |password: &str, args: &[&str]| {
        let mut command = bench.command(args);
        command.env("RESTIC_PASSWORD", password);
        Run::of("holdfast", args, command)
    };
    let restic_with = |password: &str| {
        let mut command = bench.restic_command(&["snapshots"]);
        command.env("RESTIC_PASSWORD", password);
        Run::of("restic", &["snapshots"], command)
    };
    let file = file.to_str().unwrap();
    bench.holdfast(&["key", "add", "--new-password-file", file]).succeeded();
    restic_with("second").succeeded();
    let theirs = bench.restic(&["key", "list", "--json"]).succeeded().json();
    let mut ours = bench.holdfast(&["key", "list", "--json"]).succeeded().json();
    assert_eq!(ours.as_array().unwrap().len(), 2);
    let by_id = |key: &serde_json::Value| key["id"].as_str().unwrap().to_owned();
    let mut theirs = theirs.as_array().unwrap().clone();
    theirs.sort_by_key(by_id);
    ours.as_array_mut().unwrap().sort_by_key(by_id);
    assert_eq!(ours, serde_json::Value::Array(theirs));

    std::fs::write(file, "third").unwrap();
    with("second", &["key", "passwd", "--new-password-file", file]).succeeded();
    restic_with("second").ended(12);
    restic_with("third").succeeded();

    let current = ours.as_array().unwrap().iter().find(|key| key["current"] == true).unwrap();
    let id = current["id"].as_str().unwrap();
    bench.holdfast(&["key", "remove", id]).ended(1).said(&[id, "another password"]);
    with("third", &["key", "remove", &id[..10]]).succeeded();
    bench.holdfast(&["snapshots"]).ended(12);
    with("third", &["key", "remove", "nothing"]).ended(1).said(&["nothing", "key list"]);
    with("third", &["key", "list"]).succeeded();
}

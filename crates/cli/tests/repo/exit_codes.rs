//! Each of restic's exit codes, and what the person reads with it.

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::bench::{Bench, Run};

#[test]
fn a_wrong_command_line_is_1() {
    let bench = Bench::bare();
    for args in
        [&["bogus"][..], &["ls", "--bogus"], &["backup"], &["restore", "latest"], &["prune", "--max-unused", "x"]]
    {
        let theirs = bench.restic(args).code;
        assert_eq!((bench.holdfast(args).code, theirs), (Some(1), Some(1)), "{args:?}");
    }
    let help = bench.holdfast(&["backup", "--help"]).succeeded();
    assert!(
        ["130", "RESTIC_HOST", "--exclude-if-present"].iter().all(|text| help.stdout.contains(text)),
        "{}",
        help.stdout
    );
}

#[test]
fn no_repository_is_10() {
    let bench = Bench::bare();
    for args in [&["snapshots"][..], &["check"], &["backup", "data"], &["unlock"]] {
        bench.restic(args).ended(10);
        bench.holdfast(args).ended(10).said(&["no repository at", bench.repository().to_str().unwrap(), "hint:"]);
    }
    std::fs::create_dir(bench.repository()).unwrap();
    bench.holdfast(&["snapshots"]).ended(10);
    bench.holdfast(&["init"]).succeeded();
    bench.holdfast(&["init"]).ended(1).said(&["already holds a repository"]);
    let json = bench.holdfast(&["-r", "/nowhere", "snapshots", "--json"]).ended(10);
    let json: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!((&json["message_type"], &json["code"]), (&"exit_error".into(), &10.into()));
}

#[test]
fn a_wrong_password_is_12() {
    let bench = Bench::new(2);
    let mut command = bench.command(&["snapshots"]);
    let run = Run::of("holdfast", &["snapshots"], {
        command.env("RESTIC_PASSWORD", "wrong");
        command
    });
    run.ended(12).said(&["wrong password", bench.repository().to_str().unwrap(), "RESTIC_PASSWORD_FILE"]);
}

/// The program under test, run by a user who may not read everything.
fn as_nobody(bench: &Bench, args: &[&str]) -> Command {
    let mut command = bench.command(args);
    if !geteuid().is_root() {
        return command;
    }
    // The build may lie where that user cannot go.
    let copy = bench.dir.path().join("holdfast");
    if !copy.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &copy).unwrap();
        for path in walk(bench.dir.path()) {
            std::os::unix::fs::lchown(&path, Some(65534), Some(65534)).unwrap();
        }
    }
    let mut other = Command::new(copy);
    other.args(command.get_args()).current_dir(bench.dir.path()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other.uid(65534).gid(65534);
    command = other;
    command
}

fn walk(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            found.extend(walk(&entry.unwrap().path()));
        }
    }
    found
}

#[test]
fn unreadable_files_are_3_and_the_rest_is_saved() {
    let bench = Bench::new(2);
    let data = bench.data();
    let run = |args: &[&str]| Run::of("holdfast", args, as_nobody(&bench, args));
    run(&["snapshots"]).succeeded();
    let secret = data.join("folder/text");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o000)).unwrap();
    if geteuid().is_root() {
        chown(&secret, Some(0), Some(0)).unwrap();
    }
    let run = run(&["backup", data.to_str().unwrap()]).ended(3);
    assert!(run.stdout.contains("INCOMPLETE: 1 could not be read"), "{}", run.stdout);
    run.said(&["folder/text", "ermission denied"]);
    let listed = bench.restic(&["ls", "latest"]).succeeded().stdout;
    assert!(listed.contains("/large") && !listed.contains("/folder/text"), "{listed}");
    bench.assert_clean();
}

#[test]
fn a_target_of_another_user_keeps_its_mode_and_takes_the_files() {
    let bench = Bench::new(2);
    let data = bench.data();
    let run = |args: &[&str]| Run::of("holdfast", args, as_nobody(&bench, args));
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o750)).unwrap();
    run(&["backup", data.to_str().unwrap()]).succeeded();
    let target = bench.dir.path().join("volume");
    std::fs::create_dir(&target).unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o2777)).unwrap();
    let folder = format!("latest:{}", data.display());
    let args = ["restore", &*folder, "--target", target.to_str().unwrap(), "--target-metadata"];
    let mode = || target.metadata().unwrap().permissions().mode() & 0o7777;
    let restored = run(&args).succeeded();
    if geteuid().is_root() {
        restored.said(&["volume", "its mode stays 2777, in the snapshot it is 750"]);
        assert_eq!(mode(), 0o2777);
        chown(&target, Some(65534), None).unwrap();
        run(&args).succeeded();
    }
    assert_eq!(mode(), 0o750);
    assert_eq!(std::fs::read(target.join("folder/text")).unwrap(), std::fs::read(data.join("folder/text")).unwrap());
}

#[test]
fn a_missing_path_is_3_and_nothing_but_missing_paths_is_1() {
    let bench = Bench::new(2);
    let data = bench.data();
    let args = ["backup", data.to_str().unwrap(), "/nowhere"];
    bench.restic(&args).ended(3);
    bench.holdfast(&args).ended(3).said(&["/nowhere"]);
    let args = ["backup", "/nowhere", "/nowhere either"];
    bench.restic(&args).ended(1);
    bench.holdfast(&args).ended(1).said(&["/nowhere", "hint:"]);
    assert_eq!(bench.files("snapshots").len(), 2);
}

#[test]
fn an_interrupted_backup_is_130_and_leaves_no_lock() {
    for signal in [Signal::INT, Signal::TERM] {
        let bench = Bench::new(2);
        let mut child = bench.start_locked(bench.command(&["backup", "--stdin"]));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        assert!(bench.files("locks").is_empty() && bench.files("snapshots").is_empty());
        bench.assert_clean();
    }
}

#[test]
fn a_reader_that_leaves_is_no_success_and_leaves_no_lock() {
    let bench = Bench::new(2);
    for number in 0..3000 {
        std::fs::write(bench.data().join(format!("a file with quite a long name, number {number}")), "").unwrap();
    }
    bench.backup(&[]);
    let mut child = bench.command(&["ls", "latest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(141), "{said}");
    assert!(!said.contains("error"), "{said}");
    assert!(bench.files("locks").is_empty());
}

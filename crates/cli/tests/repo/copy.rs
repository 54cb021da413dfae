//! Copies between repositories: with restic's flags and variables, and readable by restic.

use std::path::PathBuf;

use crate::bench::{Bench, PASSWORD, Run, assert_same, below, init};

/// A repository to copy to, beside the bench's own.
struct Other<'a> {
    bench: &'a Bench,
    path: PathBuf,
}

impl<'a> Other<'a> {
    fn new(bench: &'a Bench, version: u32) -> Self {
        let path = bench.dir.path().join("other");
        init(&path, version);
        Self { bench, path }
    }

    fn copy(&self, args: &[&str]) -> Run {
        let mut command = self.bench.command(&[&["copy"], args].concat());
        command.env("RESTIC_REPOSITORY", &self.path).env("RESTIC_FROM_PASSWORD", PASSWORD);
        command.env("RESTIC_FROM_REPOSITORY", self.bench.repository());
        Run::of("copy", args, command)
    }

    fn restic(&self, args: &[&str]) -> Run {
        let mut command = self.bench.restic_command(args);
        command.env("RESTIC_REPOSITORY", &self.path);
        Run::of("restic", args, command)
    }

    fn packs(&self) -> usize {
        let folders = std::fs::read_dir(self.path.join("data")).unwrap();
        folders.map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap().count()).sum()
    }
}

#[test]
fn copies_are_restics_and_made_once() {
    let bench = Bench::new(2);
    let first = bench.backup(&["--tag", "x"]);
    std::fs::write(bench.data().join("folder/text"), "other words").unwrap();
    let second = bench.restic_backup(&["--host", "elsewhere"]);
    // Another format, so that every blob is sealed anew.
    let other = Other::new(&bench, 1);
    let report = other.copy(&["--json", "--tag", "x"]).succeeded().json();
    assert_eq!((&report["snapshots_copied"], &report["snapshots"][0]["from"]), (&1.into(), &first.clone().into()));
    let report = other.copy(&["--json"]).succeeded().json();
    assert_eq!((&report["snapshots_copied"], &report["snapshots_existed"]), (&1.into(), &1.into()), "{report}");
    let copy = report["snapshots"][1]["to"].as_str().unwrap().to_owned();

    let packs = other.packs();
    let run = other.copy(&[]).succeeded();
    assert!(run.stdout.contains("is there already") && run.stdout.contains("copied 0 snapshots"), "{}", run.stdout);
    assert_eq!(other.packs(), packs);

    other.restic(&["check", "--read-data"]).succeeded();
    let listed = other.restic(&["snapshots", "--json"]).succeeded().json();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((&listed[0]["original"], &listed[1]["original"]), (&first.into(), &second.into()));
    let target = bench.dir.path().join("restored");
    other.restic(&["restore", &copy, "--target", target.to_str().unwrap()]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
    // restic takes them for copies of its own.
    let mut again = bench.restic_command(&["copy", "--from-repo", bench.repository().to_str().unwrap()]);
    again.env("RESTIC_REPOSITORY", &other.path).env("RESTIC_FROM_PASSWORD", PASSWORD);
    Run::of("restic", &["copy"], again).succeeded();
    assert_eq!(other.restic(&["snapshots", "--json"]).succeeded().json().as_array().unwrap().len(), 2);
}

#[test]
fn what_is_wrong_with_the_other_repository_is_said() {
    let bench = Bench::new(2);
    bench.backup(&[]);
    let other = Other::new(&bench, 2);
    other.copy(&["0123abcd"]).ended(1).said(&["0123abcd", "hint:"]);
    other.copy(&["--from-repo", "/nowhere"]).ended(10).said(&["/nowhere"]);
    let wrong = bench.dir.path().join("wrong");
    std::fs::write(&wrong, "wrong").unwrap();
    other.copy(&["--from-password-file", wrong.to_str().unwrap()]).ended(12);
    bench.holdfast(&["copy"]).ended(1).said(&["no repository to copy from", "--from-repo"]);
}

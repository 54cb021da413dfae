//! Several programs on one repository: living ones are respected, dead ones are not.

use std::io::Write;
use std::process::{Child, Stdio};

use crate::bench::{Bench, Run};

#[track_caller]
fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    Run::from_output("the backup".into(), output).succeeded();
}

/// While `holder` backs up: removing is 11, reading and adding go on; and once it has ended, removing goes on, too.
#[track_caller]
fn check_living(bench: &Bench, mut holder: Child) {
    let data = bench.data();
    for args in [&["prune"][..], &["forget", "--keep-last", "1"], &["tag", "--add", "x"], &["key", "remove", "abc"]] {
        bench.holdfast(args).ended(11).said(&["locked", &holder.id().to_string(), "--retry-lock"]);
    }
    bench.restic(&["prune"]).ended(11);
    bench.holdfast(&["snapshots"]).succeeded();
    bench.holdfast(&["check"]).succeeded();
    bench.holdfast(&["unlock"]).succeeded();
    bench.holdfast(&["backup", data.to_str().unwrap()]).succeeded();
    assert_eq!(bench.files("locks").len(), 1, "its lock is still there");

    let mut waiting = bench.command(&["prune", "--retry-lock", "5m"]);
    let waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    holder.stdin.take().unwrap().write_all(b"content").unwrap();
    finish(holder);
    finish(waiting);
    bench.assert_clean();
}

#[test]
fn a_living_holdfast_is_11() {
    let bench = Bench::new(2);
    let holder = bench.start_locked(bench.command(&["backup", "--stdin"]));
    check_living(&bench, holder);
}

#[test]
fn a_living_restic_is_11() {
    let bench = Bench::new(2);
    let holder = bench.start_locked(bench.restic_command(&["backup", "--stdin"]));
    check_living(&bench, holder);
}

#[track_caller]
fn check_dead(bench: &Bench, mut holder: Child) {
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(bench.files("locks").len(), 1);
    bench.holdfast(&["prune"]).succeeded().said(&["removed", "its process is gone", &holder.id().to_string()]);
    assert!(bench.files("locks").is_empty());
    bench.assert_clean();
}

#[test]
fn the_lock_of_a_dead_holdfast_is_removed_and_said_so() {
    let bench = Bench::new(2);
    let holder = bench.start_locked(bench.command(&["backup", "--stdin"]));
    check_dead(&bench, holder);
}

#[test]
fn the_lock_of_a_dead_restic_is_for_a_person_to_remove() {
    let bench = Bench::new(2);
    let mut holder = bench.start_locked(bench.restic_command(&["backup", "--stdin"]));
    holder.kill().unwrap();
    holder.wait().unwrap();
    // Its lock does not say in which container its process was: only a person can.
    bench.holdfast(&["prune"]).ended(11).said(&["locked", "unlock"]);
    let run = bench.holdfast(&["unlock"]).succeeded();
    assert!(run.stdout.contains("its process is gone"), "{}", run.stdout);
    bench.holdfast(&["prune"]).succeeded();
    bench.assert_clean();
}

#[test]
fn restic_knows_a_dead_holdfast_by_its_lock() {
    let bench = Bench::new(2);
    let mut holder = bench.start_locked(bench.command(&["backup", "--stdin"]));
    let lock = bench.files("locks")[0].file_name().unwrap().to_str().unwrap().to_owned();
    bench.restic(&["cat", "lock", &lock]).succeeded();
    bench.restic(&["unlock"]).succeeded();
    assert_eq!(bench.files("locks").len(), 1, "it lives");
    holder.kill().unwrap();
    holder.wait().unwrap();
    bench.restic(&["unlock"]).succeeded();
    assert!(bench.files("locks").is_empty());
}

#[test]
fn unlock_removes_dead_locks_and_living_ones_on_demand() {
    let bench = Bench::new(2);
    let mut dead = bench.start_locked(bench.command(&["backup", "--stdin"]));
    dead.kill().unwrap();
    dead.wait().unwrap();
    let run = bench.holdfast(&["unlock"]).succeeded();
    assert!(run.stdout.contains("its process is gone") && run.stdout.contains("removed 1 lock"), "{}", run.stdout);
    let mut living = bench.start_locked(bench.command(&["backup", "--stdin"]));
    assert!(bench.holdfast(&["unlock"]).succeeded().stdout.contains("no lock to remove"));
    assert!(bench.holdfast(&["unlock", "--remove-all"]).succeeded().stdout.contains("removed 1 lock"));
    living.kill().unwrap();
    living.wait().unwrap();
}

#[test]
fn two_backups_at_once() {
    let bench = Bench::new(2);
    let data = bench.data();
    let start = || {
        let mut command = bench.command(&["backup", data.to_str().unwrap()]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let both = [start(), start()];
    both.into_iter().for_each(finish);
    assert_eq!(bench.files("snapshots").len(), 2);
    bench.assert_clean();
}

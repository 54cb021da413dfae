//! What one program backs up, the other restores; in both formats, both ways.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::bench::{Bench, Run, assert_same, below};
use crate::servers::noise;

#[track_caller]
fn check_ours(version: &str) {
    let bench = Bench::bare();
    bench.holdfast(&["init", "--repository-version", version]).succeeded();
    let target = bench.dir.path().join("restored");
    bench.holdfast(&["backup", bench.data().to_str().unwrap()]).succeeded();
    bench.assert_clean();
    bench.restic(&["restore", "latest", "--target", target.to_str().unwrap()]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
}

#[test]
fn restic_restores_what_holdfast_backed_up() {
    check_ours("2");
}

#[test]
fn restic_restores_what_holdfast_backed_up_in_format_1() {
    check_ours("1");
}

/// restic's repository is listed, checked, restored, extended, tidied up; and is still restic's.
#[track_caller]
fn check_theirs(version: &str) {
    let bench = Bench::bare();
    bench.restic(&["init", "--repository-version", version]).succeeded();
    let first = bench.restic_backup(&["--tag", "theirs"]);
    let listed = bench.holdfast(&["snapshots", "--json"]).succeeded().json();
    assert_eq!(listed[0]["id"], *first);
    assert_eq!(listed[0]["tags"][0], "theirs");
    bench.holdfast(&["check", "--read-data"]).succeeded();
    let target = bench.dir.path().join("restored");
    bench.holdfast(&["restore", "latest", "--target", target.to_str().unwrap(), "--verify"]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));

    std::fs::write(bench.data().join("more"), noise(2, 100_000)).unwrap();
    let report = bench.holdfast(&["backup", "--json", bench.data().to_str().unwrap()]).succeeded().json();
    assert_eq!((&report["parent"], &report["files_new"]), (&first.into(), &1.into()), "{report}");
    assert_eq!(report["files_changed"], 0, "{report}");
    bench.assert_clean();

    let report = bench.holdfast(&["forget", "--keep-last", "1", "--prune", "--max-unused", "0", "--json"]).succeeded();
    assert_eq!(report.json_lines()[0]["removed"].as_array().unwrap().len(), 1);
    bench.assert_clean();
    let target = bench.dir.path().join("restored again");
    bench.restic(&["restore", "latest", "--target", target.to_str().unwrap()]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
}

#[test]
fn holdfast_works_on_restics_repository() {
    check_theirs("2");
}

#[test]
fn holdfast_works_on_restics_repository_of_format_1() {
    check_theirs("1");
}

#[test]
fn the_same_folder_is_the_same_tree_and_is_stored_once() {
    let bench = Bench::new(2);
    let theirs = bench.restic_backup(&[]);
    let ours = bench.holdfast(&["backup", "--json", "--force", bench.data().to_str().unwrap()]).succeeded().json();
    assert_eq!(ours["data_blobs"], 0, "{ours}");
    assert_eq!(bench.tree(&theirs), bench.tree(ours["snapshot_id"].as_str().unwrap()));
}

#[test]
fn a_relative_path_begins_with_its_own_name_as_with_restic() {
    let bench = Bench::new(2);
    let data = bench.data();
    let (folder, name) = (data.parent().unwrap(), data.file_name().unwrap().to_str().unwrap());
    let mut restic = bench.restic_command(&["backup", "--json", "--quiet", name]);
    restic.current_dir(folder);
    let theirs = Run::of("restic", &["backup", name], restic).succeeded().json_lines();
    let theirs = theirs.last().unwrap()["snapshot_id"].as_str().unwrap().to_owned();
    let mut holdfast = bench.command(&["backup", "--json", name]);
    holdfast.current_dir(folder);
    let ours = Run::of("holdfast", &["backup", name], holdfast).succeeded().json();
    let tree = |snapshot: &str| bench.restic(&["--quiet", "cat", "tree", snapshot]).succeeded().json();
    assert_eq!(tree(&theirs), tree(ours["snapshot_id"].as_str().unwrap()));
    assert_eq!((&ours["parent"], &ours["files_new"]), (&theirs.into(), &0.into()), "{ours}");
    let listed = bench.holdfast(&["snapshots", "--json", "--path", data.to_str().unwrap()]).succeeded().json();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let listed = bench.holdfast(&["ls", "latest", &format!("/{name}")]).succeeded();
    assert!(listed.lines().iter().any(|line| line.starts_with(&format!("/{name}/"))), "{:?}", listed.lines());
    // Who names `x` and `../x` has to say which is which.
    let twice = folder.join("deeper").join(name);
    std::fs::create_dir_all(&twice).unwrap();
    let mut both = bench.command(&["backup", name, &format!("../{name}")]);
    both.current_dir(folder.join("deeper"));
    Run::of("holdfast", &["backup"], both).ended(1).said(&["two sources", "by their absolute paths"]);
}

#[test]
fn a_restore_is_a_part_or_a_dry_run_or_removes_what_is_too_much() {
    let bench = Bench::new(2);
    let id = bench.backup(&[]);
    let target = bench.dir.path().join("restored");
    let target_text = target.to_str().unwrap();
    let folder = format!("{id}:{}", bench.data().join("folder").display());

    bench.holdfast(&["restore", &folder, "--target", target_text, "--dry-run"]).succeeded();
    assert!(!target.exists());
    bench.holdfast(&["restore", &folder, "--target", target_text]).succeeded();
    assert_same(&bench.data().join("folder"), &target);

    std::fs::write(target.join("too much"), "").unwrap();
    std::fs::write(target.join("text"), "mine").unwrap();
    bench.holdfast(&["restore", &folder, "--target", target_text, "--overwrite", "never"]).succeeded();
    assert_eq!(std::fs::read(target.join("text")).unwrap(), b"mine");
    bench.holdfast(&["restore", &folder, "--target", target_text, "--delete"]).succeeded();
    assert_same(&bench.data().join("folder"), &target);

    let part = bench.dir.path().join("part");
    bench.holdfast(&["restore", &id, "--target", part.to_str().unwrap(), "--iinclude", "TEX?"]).succeeded();
    let data = below(&part, &bench.data());
    assert!(data.join("folder/text").exists() && !data.join("large").exists() && !data.join("folder/deep").exists());

    for (number, flags) in [
        &["--include", "text", "--iinclude", "LARGE"][..],
        &["--iinclude", "TEXT", "--include", "large", "--include", "LINK"],
        &["--exclude", "large", "--iexclude", "TEXT"],
        &["--iexclude", "LARGE", "--exclude", "deep", "--exclude", "TEXT"],
    ]
    .into_iter()
    .enumerate()
    {
        let [ours, theirs] = ["ours", "theirs"].map(|whose| bench.dir.path().join(format!("{whose}-{number}")));
        let args = |target: &std::path::Path| {
            [&["restore", &id, "--target", target.to_str().unwrap()], flags].concat().join("\n")
        };
        bench.holdfast(&args(&ours).lines().collect::<Vec<_>>()).succeeded();
        bench.restic(&args(&theirs).lines().collect::<Vec<_>>()).succeeded();
        assert_same(&below(&theirs, &bench.data()), &below(&ours, &bench.data()));
    }

    let itself = bench.dir.path().join("itself");
    std::fs::set_permissions(bench.data().join("folder"), std::fs::Permissions::from_mode(0o711)).unwrap();
    let folder = format!("{}:{}", bench.backup(&[]), bench.data().join("folder").display());
    let to_itself = ["--target", itself.to_str().unwrap()];
    let looks = |path: &std::path::Path| path.metadata().map(|it| (it.mode() & 0o7777, it.mtime())).unwrap();
    bench.holdfast(&[&["restore", &*folder][..], &to_itself].concat()).succeeded();
    assert_ne!(looks(&itself).0, 0o711);
    bench.holdfast(&[&["restore", &*folder, "--target-metadata"][..], &to_itself].concat()).succeeded();
    assert_eq!(looks(&itself), looks(&bench.data().join("folder")));
    let whole = ["restore", &*id, "--target-metadata", "--target", target_text];
    bench.holdfast(&whole).ended(1).said(&["no metadata of its own", "hint:"]);

    bench.holdfast(&["restore", "latest:/nowhere", "--target", target_text]).ended(1).said(&["nowhere", "hint:"]);
}

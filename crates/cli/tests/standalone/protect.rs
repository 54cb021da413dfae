//! `holdfast protect`: a folder of manifests for someone who has only directories.

use std::os::unix::fs::PermissionsExt;

use super::machine::{Machine, Restic};
use super::servers::noise;

/// A machine with something to protect in `docs`.
fn with_docs() -> Machine {
    let machine = Machine::new();
    machine.write("docs/letter", "text");
    machine.write("docs/deep/large", noise(1, 2 << 20));
    machine
}

fn protect(machine: &Machine, more: &[&str]) -> super::machine::Ran {
    machine.run(&[&["protect", "docs", "--to", "repo", "--dir", "backup"], more].concat())
}

/// The repository, opened by the password that was made.
fn opened(machine: &Machine) -> Restic {
    let secret = machine.read("backup/docs-secret.yaml");
    let password = secret.lines().find_map(|line| line.trim().strip_prefix("RESTIC_PASSWORD:")).unwrap();
    Restic { password: password.trim().trim_matches(['"', '\'']).to_owned(), ..machine.restic("repo") }
}

#[test]
fn what_it_writes_backs_up_and_comes_back() {
    let machine = with_docs();
    protect(&machine, &["--every", "30m", "--keep-last", "2"])
        .succeeded()
        .says(&["wrote", "backup/docs.yaml"])
        .says(&["password", "keep a copy"])
        .says(&["holdfast standalone backup"]);
    let mode = std::fs::metadata(machine.path("backup/docs-secret.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let plan = machine.run(&["plan", "backup", "--json"]).succeeded().json();
    assert_eq!((plan.get("errors"), plan.get("warnings")), (None, None), "{plan}");
    assert_eq!(plan["backups"][0]["schedule"], "@every 30m");
    assert_eq!(plan["backups"][0]["snapshots"][0]["retention"]["policy"]["keepLast"], 2);
    machine.run(&["standalone", "backup", "--once"]).succeeded();
    let restic = opened(&machine);
    restic.check();
    let docs = machine.path("docs").canonicalize().unwrap();
    restic.assert_holds(docs.to_str().unwrap(), &docs);
}

#[test]
fn several_folders_are_one_backup() {
    let machine = with_docs();
    machine.write("photos [2026]/one", "photo");
    let args = ["protect", "docs", "photos [2026]", "docs/deep", "--to", "repo", "--dir", "backup", "--name", "mine"];
    machine.run(&args).succeeded();
    machine.run(&["plan", "backup"]).succeeded();
    machine.run(&["standalone", "backup", "--once"]).succeeded().says(&["done: 1 run succeeded"]).says(&["3 files"]);
}

#[test]
fn nothing_is_overwritten() {
    let machine = with_docs();
    protect(&machine, &[]).succeeded();
    let (manifest, secret) = (machine.read("backup/docs.yaml"), machine.read("backup/docs-secret.yaml"));
    protect(&machine, &[]).exits(1).says(&["backup/docs.yaml exists already"]).says(&["hint", "--name"]);
    // With the manifest gone, the password stays: another one would not open the repository.
    std::fs::remove_file(machine.path("backup/docs.yaml")).unwrap();
    protect(&machine, &[]).succeeded().says(&["stays as it was"]);
    assert_eq!((machine.read("backup/docs.yaml"), machine.read("backup/docs-secret.yaml")), (manifest, secret));
}

#[test]
fn a_repository_with_another_password_is_refused() {
    let machine = with_docs();
    machine.restic("repo").run(&["init"]);
    protect(&machine, &[]).exits(1).says(&["repo holds a repository already"]).says(&["hint"]);
    assert!(!machine.path("backup").exists());
}

#[test]
fn a_repository_within_what_it_protects_is_refused() {
    let machine = with_docs();
    let args = ["protect", "docs", "--to", "docs/repo", "--dir", "backup"];
    machine
        .run(&args)
        .exits(1)
        .says(&["docs/repo lies in", "backed up into itself"])
        .says(&["hint", "choose a place outside"]);
    assert!(!machine.path("backup").exists());
}

#[test]
fn its_own_folder_within_what_it_protects_is_left_out() {
    let machine = with_docs();
    machine.write("docs/my [own]*/note", "not to be saved");
    machine.write("docs/my o/note", "to be saved");
    let args = ["protect", "docs", "--to", "repo", "--dir", "docs/my [own]*"];
    machine.run(&args).succeeded().says(&["docs/my [own]* itself is left out"]);
    machine.run(&["standalone", "docs/my [own]*", "--once"]).succeeded().says(&["3 files"]);
    machine.run(&["protect", "docs", "--to", "repo2", "--dir", "docs"]).exits(1).says(&["another --dir"]);
}

#[test]
fn what_cannot_be_protected_is_said() {
    let machine = with_docs();
    let run = |path: &str, more: &[&str]| {
        machine.run(&[&["protect", path, "--to", "repo", "--dir", "backup"], more].concat())
    };
    run("nowhere", &[]).exits(1).says(&["cannot protect nowhere", "No such file"]).says(&["hint"]);
    run("docs/letter", &[]).exits(1).says(&["docs/letter", "not a folder"]).says(&["hint", "the folder it is in"]);
    run("docs", &["--every", "often"]).exits(1).says(&["--every", "often"]).says(&["hint", "30m"]);
    run("docs", &["--name", "My Docs"]).exits(1).says(&["My Docs"]).says(&["hint", "my-docs"]);
    run("docs", &["--keep-last", "0"]).exits(1).says(&["--keep-last"]);
    machine
        .run(&["protect", "docs", "--to", "ftp:x", "--dir", "backup"])
        .exits(1)
        .says(&["--to", "ftp"])
        .says(&["hint"]);
    assert!(!machine.path("backup").exists(), "nothing is written by a command that fails");
}

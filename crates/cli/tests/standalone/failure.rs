//! What a person sees when something is wrong: the object, the cause and the way out.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::machine::{Machine, ran};
use super::manifest::{backup, repository, secret_with, trigger, web};
use super::servers::noise;

#[test]
fn a_wrong_password() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    let mut manifests = web("");
    manifests[0] = secret_with("secret", "RESTIC_PASSWORD: wrong");
    manifests.push(trigger("now", "web"));
    machine.manifests("all.yaml", &manifests);
    machine.once().exits(1).says(&[
        "Backup default/web",
        "FAILED",
        "repository default/repo",
        "key RESTIC_PASSWORD of Secret default/secret",
        "put the right password there",
        "wrong password",
    ]);
    machine.run(&["status", "m"]).says(&["Backup default/web: ", "key RESTIC_PASSWORD of", "wrong password"]);
    let json = machine.run(&["status", "m", "--json"]).json();
    assert!(json["backups"][0]["lastError"].as_str().unwrap().contains("wrong password"));
}

#[test]
fn ten_mistakes_are_ten_errors_and_the_rest_goes_on() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let bad = [
        backup("one", "nobody", "repo", ""),
        backup("two", "web", "nowhere", ""),
        backup("three", "web", "repo", "").replace("@every 1h", "@evry 1h"),
        backup("four", "web", "repo", "retentionPolicy: {keepLst: 3}"),
        backup("five", "web", "repo", "paused: maybe"),
        backup("six", "web", "repo", "").replace("[/data]", "[/other]"),
        backup("web", "web", "repo", ""),
        repository("eight", "").replace("hostPath: {path: }", "nosuch: {}"),
        trigger("nine", "nobody"),
        backup("ten", "web", "repo", "").replace("kind: Backup", "kind: Bakup"),
    ];
    machine.manifests("bad.yaml", &bad);
    let ran = machine.once().exits(1).says(&["Backup default/web", "saved snapshot"]);
    let errors: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("error: m/bad.yaml:")).collect();
    assert_eq!(errors.len(), 10, "{}", ran.text());
    for (error, words) in [
        ("nobody", ["Backup", "one"]),
        ("nowhere", ["Backup", "two"]),
        ("@evry 1h", ["spec.schedule", "three"]),
        ("keepLst", ["spec.retentionPolicy", "keepLast"]),
        ("maybe", ["spec.paused", "five"]),
        ("/other", ["spec.targetDirectories", "six"]),
        ("Bakup", ["Backup", "kind"]),
    ] {
        let told = errors.iter().any(|line| line.contains(error) && words.iter().all(|word| line.contains(word)));
        assert!(told, "nothing about {error} with {words:?}:\n{}", errors.join("\n"));
    }
    machine.run(&["plan", "m"]).exits(1).says(&["error: m/bad.yaml"]);
    machine.run(&["status", "m"]).exits(1).says(&["error: m/bad.yaml"]);
}

#[test]
fn a_missing_directory_is_not_saved_as_an_empty_one() {
    let machine = Machine::with(&web(""));
    machine.once().exits(1).says(&[
        "FAILED: directory /data",
        "m/data does not exist",
        "create it, or mend the hostPath",
    ]);
    assert!(!machine.path("m/repo").exists(), "no repository is made for nothing");
    assert_eq!(machine.events_of("Backup default/web"), [("web-1".to_owned(), "FailedBackup".to_owned())]);
}

#[test]
fn a_repository_that_has_gone_is_not_made_anew() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    // As when the disk of the backups is not mounted.
    std::fs::rename(machine.path("m/repo"), machine.path("away")).unwrap();
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.once().exits(1).says(&["Backup default/web", "FAILED", "m/repo", "its disk mounted", " init`"]);
    assert!(!machine.path("m/repo").exists());
    std::fs::rename(machine.path("away"), machine.path("m/repo")).unwrap();
    machine.manifests("trigger.yaml", &[trigger("again", "web")]);
    machine.once().succeeded();
    // Another place is a new beginning.
    let mut manifests = web("");
    manifests[1] = repository("repo", "repo2");
    machine.manifests("all.yaml", &manifests);
    machine.manifests("trigger.yaml", &[trigger("elsewhere", "web")]);
    machine.once().succeeded();
    assert_eq!(machine.restic("m/repo2").snapshots().len(), 1);
}

#[test]
fn an_empty_directory_does_not_follow_good_snapshots() {
    let machine = Machine::with(&web("retentionPolicy: {keepLast: 1, prune: true}"));
    machine.write("m/data/file", "text");
    machine.once().succeeded();
    std::fs::remove_file(machine.path("m/data/file")).unwrap();
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.once().exits(1).says(&["Backup default/web", "/data hold no file", "is the volume mounted?"]);
    let restic = machine.restic("m/repo");
    restic.check();
    assert_eq!(restic.snapshots().len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_is_named_and_the_rest_is_saved() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.write("m/data/closed", "text");
    let mode = |path: &str, mode: u32| {
        std::fs::set_permissions(machine.path(path), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("m/data/closed", 0);
    mode("m", 0o777);
    mode("", 0o777);
    // As nobody, to whom permissions apply; the program must be where nobody can run it.
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), machine.path("holdfast")).unwrap();
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() {
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    }
    command.arg(machine.path("holdfast")).args(["standalone", "m", "--once"]).current_dir(machine.path(""));
    ran(command).exits(3).says(&["INCOMPLETE", "closed", "ermission denied"]);
    mode("m/data/closed", 0o600);
    let restic = machine.restic("m/repo");
    restic.check();
    assert_eq!(restic.run(&["dump", "latest", "/data/file"]), "text");
    assert_eq!(machine.events_of("Backup default/web"), [("web-1".to_owned(), "FailedBackup".to_owned())]);
}

#[test]
fn damage_of_the_repository_fails_the_run_and_says_how_to_look() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", noise(1, 1 << 20));
    machine.once().succeeded();
    for index in std::fs::read_dir(machine.path("m/repo/index")).unwrap() {
        let index = index.unwrap().path();
        std::fs::set_permissions(&index, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(index, noise(2, 300)).unwrap();
    }
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.once().exits(1).says(&["Backup default/web", "FAILED", "is damaged", "check --read-data"]);
}

#[test]
fn a_time_out() {
    let machine = Machine::with(&web("timeOut: 1s"));
    std::fs::create_dir(machine.path("m/data")).unwrap();
    std::fs::File::create(machine.path("m/data/large")).unwrap().set_len(64 << 30).unwrap();
    machine.once().exits(1).says(&["Backup default/web", "FAILED", "longer than its timeOut"]);
    machine.restic("m/repo").check();
}

#[test]
fn a_folder_that_is_not_there_or_empty() {
    let machine = Machine::new();
    for command in ["standalone", "plan", "status"] {
        machine
            .run(&[command, "nowhere"])
            .exits(1)
            .says(&["error", "nowhere", "No such file"])
            .says(&["hint", "holdfast protect"]);
    }
    machine.once().exits(1).says(&["nothing is protected"]);
}

#[test]
fn a_state_folder_that_cannot_be_made() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.write("m/.holdfast", "a file");
    machine.once().exits(1).says(&["error", "m/.holdfast"]).says(&["hint", "--state"]);
}

#[test]
fn quiet_tells_errors_only() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let quiet = machine.run(&["standalone", "m", "--once", "--quiet"]).succeeded();
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    std::fs::remove_dir_all(machine.path("m/data")).unwrap();
    machine.manifests("trigger.yaml", &[trigger("now", "web")]);
    machine.run(&["standalone", "m", "--once", "--quiet"]).exits(1).says(&["FAILED", "does not exist"]);
}

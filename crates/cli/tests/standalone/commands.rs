//! `plan`, `status`, `crds`, `completions` and `man`: what they print, and that they touch nothing.

use std::process::{Command, Stdio};

use super::machine::{Machine, ran};
use super::manifest::web;

fn listing(machine: &Machine) -> String {
    let mut command = Command::new("find");
    command.arg(machine.path("m")).args(["-printf", "%p %y %s %T@ %C@\\n"]);
    ran(command).succeeded().stdout
}

#[test]
fn plan_touches_nothing_and_is_the_golden_form() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let before = listing(&machine);
    let ran = machine.run(&["plan", "m"]).succeeded();
    machine.run(&["status", "m"]).succeeded();
    assert_eq!(listing(&machine), before);
    let root = machine.path("m").canonicalize().unwrap();
    let text = ran.stdout.replace(root.to_str().unwrap(), "/m");
    // What is due is so since now.
    let text: String = text.lines().filter(|line| !line.contains("since:")).map(|line| format!("{line}\n")).collect();
    let want = r#"repositories:
- id: default/repo
  location: /m/repo
  volume:
    hostPath: /m/repo
  secret: secret
  env:
    RESTIC_PASSWORD: RESTIC_PASSWORD
backups:
- id: Backup/default/web/deployment.web
  object: Backup default/web
  target: Deployment default/web
  host: web
  repository: default/repo
  snapshots:
  - directories:
    - path: /data
      source:
        hostPath: /m/data
    tags:
    - backup=default/web
  compression: auto
  agent: stash-volume-backup
  schedule: "@every 1h"
  retry:
    triesMax: 3
    delaySeconds: 60
recoveries: []
due:
- id: Backup/default/web/deployment.web
  reason: schedule
"#;
    assert_eq!(text, want);
    let json = machine.run(&["plan", "m", "--output", "json"]).succeeded();
    assert_eq!(json.stdout.lines().count(), 1);
    assert_eq!(json.json()["backups"][0]["host"], "web");
}

#[test]
fn status_is_a_table_or_json() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.run(&["status", "m"]).succeeded().says(&["Backup default/web", "@every 1h", "never", "now"]);
    machine.once().succeeded();
    machine
        .run(&["status", "m"])
        .succeeded()
        .says(&["BACKUP", "HOST", "TARGET", "SCHEDULE", "LAST SUCCESS", "NEXT", "SNAPSHOTS", "SIZE", "LAST ERROR"])
        .says(&["Backup default/web", "web", "Deployment default/web", "@every 1h", "s ago", "in 59m", "1", "4 B"])
        .says(&["default/repo", "/m/repo", "whole"]);
    let json = machine.run(&["status", "m", "--json"]).succeeded().json();
    assert_eq!(json["backups"][0]["history"][0]["outcome"], "Succeeded");
    assert_eq!(json["repositories"][0]["snapshotCount"], 1);
}

#[test]
fn a_manifest_file_will_do() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine.run(&["standalone", "m/all.yaml", "--once"]).succeeded().says(&["saved snapshot"]);
    assert!(machine.path("m/.holdfast/state.json").exists());
    machine.restic("m/repo").check();
}

#[test]
fn a_folder_may_be_named_from_anywhere() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let mut command = machine.command(&["plan", "../../m", "--json"]);
    command.current_dir(machine.path("m/data"));
    let plan = ran(command).succeeded().json();
    let root = machine.path("m").canonicalize().unwrap();
    assert_eq!(plan["repositories"][0]["location"], root.join("repo").to_str().unwrap());
}

#[test]
fn json_of_a_run_is_one_message_a_line() {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    let ran = machine.run(&["standalone", "m", "--once", "--output", "json"]).succeeded();
    let messages: Vec<serde_json::Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = messages.iter().map(|message| message["messageType"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["planned", "started", "ended", "summary"]);
    assert_eq!(ran.stderr, "");
    assert_eq!(messages[2]["run"]["outcome"], "Succeeded");
    let failed = machine.run(&["standalone", "nowhere", "--once", "--output", "json"]).exits(1);
    let message: serde_json::Value = serde_json::from_str(failed.stderr.trim()).unwrap();
    assert!(message["message"].as_str().unwrap().contains("nowhere"), "{message}");
}

#[test]
fn crds_completions_and_man_pages_are_printed() {
    let machine = Machine::new();
    let crds = machine.run(&["crds"]).succeeded();
    assert_eq!(crds.stdout.matches("kind: CustomResourceDefinition").count(), 8);
    assert_eq!(machine.run(&["crds", "--json"]).succeeded().json().as_array().unwrap().len(), 8);
    for shell in ["bash", "zsh", "fish"] {
        let script = machine.run(&["completions", shell]).succeeded().stdout;
        assert!(script.contains("standalone") && script.contains("holdfast"), "{shell}");
    }
    machine.run(&["man", "pages"]).succeeded();
    assert!(machine.read("pages/holdfast-standalone.1").contains(r"\-\-once"));
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let machine = Machine::new();
    let mut child = machine.command(&["crds"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141), "as a program that SIGPIPE ends");
}

#[test]
fn help_names_every_command() {
    let machine = Machine::new();
    let help = machine.run(&["--help"]).succeeded().stdout;
    for command in ["standalone", "plan", "status", "protect", "repo", "crds", "completions", "man"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}:\n{help}");
    }
    machine.run(&["standalone"]).exits(1);
}

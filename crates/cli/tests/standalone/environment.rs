//! Flags by the environment: what counts, what wins, and how a wrong value is told.

use super::machine::{Machine, Ran, ran};
use super::manifest::web;

fn run(machine: &Machine, variables: &[(&str, &str)], args: &[&str]) -> Ran {
    let mut command = machine.command(args);
    command.envs(variables.iter().copied());
    ran(command)
}

fn machine() -> Machine {
    let machine = Machine::with(&web(""));
    machine.write("m/data/file", "text");
    machine
}

#[test]
fn a_switch_takes_yes_and_no() {
    let machine = machine();
    for yes in ["1", "true"] {
        run(&machine, &[("HOLDFAST_ONCE", yes), ("HOLDFAST_VERBOSE", yes)], &["standalone", "m"]).succeeded();
    }
    for no in ["0", "false", ""] {
        let json = run(&machine, &[("HOLDFAST_JSON", no), ("HOLDFAST_QUIET", no)], &["plan", "m", "-v"]).succeeded();
        assert!(json.stdout.starts_with("repositories:"), "{}", json.stdout);
    }
    assert!(run(&machine, &[("HOLDFAST_JSON", "1")], &["plan", "m"]).succeeded().stdout.starts_with('{'));
}

#[test]
fn a_wrong_value_names_its_variable() {
    let machine = machine();
    for (variable, value) in [
        ("HOLDFAST_SLOTS", "many"),
        ("HOLDFAST_SLOTS", "65"),
        ("HOLDFAST_ONCE", "perhaps"),
        ("HOLDFAST_VERBOSE", "much"),
    ] {
        run(&machine, &[(variable, value)], &["standalone", "m", "--listen", "127.0.0.1:0"])
            .exits(1)
            .says(&[variable, value]);
    }
    let given = run(&machine, &[("HOLDFAST_SLOTS", "3")], &["plan", "m", "--slots", "many"]).exits(1);
    assert!(!given.stderr.contains("HOLDFAST_SLOTS"), "{}", given.stderr);
    run(&machine, &[("RESTIC_COMPRESSION", "most")], &["repo", "snapshots"])
        .exits(1)
        .says(&["RESTIC_COMPRESSION", "most"]);
}

#[test]
fn the_command_line_wins() {
    let machine = machine();
    run(&machine, &[("HOLDFAST_SLOTS", "many")], &["plan", "m", "--slots", "3"]).succeeded();
    run(&machine, &[("HOLDFAST_LISTEN", "127.0.0.1:0")], &["standalone", "m", "--once"]).succeeded();
    run(&machine, &[("HOLDFAST_QUIET", "1")], &["plan", "m", "-v"]).succeeded();
    run(&machine, &[("HOLDFAST_QUIET", "1"), ("HOLDFAST_VERBOSE", "1")], &["plan", "m"])
        .exits(1)
        .says(&["HOLDFAST_QUIET", "HOLDFAST_VERBOSE"]);
    machine.write("password", super::machine::PASSWORD);
    let snapshots = ["repo", "-r", "m/repo", "--password-file", "password", "snapshots"];
    run(&machine, &[("RESTIC_PASSWORD_COMMAND", "false")], &snapshots).succeeded();
}

#[test]
fn help_and_man_pages_name_every_variable() {
    let machine = machine();
    run(&machine, &[("HOLDFAST_ONCE", "false")], &["standalone", "--help"]).succeeded().says(&["env: HOLDFAST_ONCE"]);
    machine.run(&["man", "man"]).succeeded();
    assert!(machine.read("man/holdfast-standalone.1").contains("HOLDFAST_ONCE"));
    assert!(machine.read("man/holdfast-repo-backup.1").contains("HOLDFAST_EXCLUDE"));
}

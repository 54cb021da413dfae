//! The stage on a real Kubernetes: builds the tests and the images they use, starts clusters of its own, runs the tests
//! inside them and takes them down, whatever happened. Tests wait most of the time: those that share a cluster run beside
//! each other, and at the same time those that disturb everybody run one by one in another cluster.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};

use super::runner::{self, Summary};
use super::stall::Stalls;
use super::workspace;
use crate::command::{self, cargo};

/// What test workloads run, and what is tested.
const IMAGES: [&str; 6] = ["pause", "busybox", "object-store", "google", "restic", "holdfast"];

/// Some of the tests, and the cluster they have; its name does not meet that of one a person works with.
struct Group {
    cluster: &'static str,
    threads: &'static str,
    tests: Vec<String>,
}

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only tests whose names hold one of these
    filters: Vec<String>,
    /// Leave the clusters up, and in them the namespaces of tests that failed; the next run uses them again
    #[arg(long)]
    keep: bool,
    /// Take the processors away from everything for 2 to 4 s, again and again
    #[arg(long)]
    stall: bool,
    /// More arguments of the test program, such as `--nocapture`
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// The whole stage.
pub(super) fn run(arguments: &Arguments, summary: &mut Summary) -> Result<()> {
    // An interrupt ends the tests, which are in the same process group; the clusters are still to be taken down.
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).context("cannot catch interrupts")?;
    }
    let program = build()?;
    let groups = groups(&chosen(&program, arguments)?);
    command::run(xtask().args(["image", "--debug"]).args(IMAGES))?;
    let stalls = arguments.stall.then(Stalls::begin).transpose()?;
    let ended: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = groups.iter().map(|group| scope.spawn(|| group.run(&program, arguments))).collect();
        started.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    drop(stalls);
    let mut failed = Vec::new();
    for (group, ended) in groups.iter().zip(ended) {
        let Ok((told, outcome)) = ended else { bail!("the thread of {} panicked", group.cluster) };
        summary.add(told);
        failed.extend(outcome.err().map(|error| format!("{}: {error:#}", group.cluster)));
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("\n")) }
}

/// The names of the tests to run.
fn chosen(program: &Path, arguments: &Arguments) -> Result<Vec<String>> {
    let listed = command::output(Command::new(program).args(["--list", "--format", "terse"]).args(&arguments.filters))?;
    let names: Vec<_> = listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("no test on a cluster has a name with {}", arguments.filters.join(" or "));
    }
    Ok(names)
}

/// Tests that share a cluster wait most of the time, so more of them run at once than there are processors. Those that
/// disturb everybody, which are in the module `alone`, have another one, in which they take turns.
fn groups(names: &[String]) -> Vec<Group> {
    let (alone, shared) = names.iter().cloned().partition(|name| name.starts_with("alone::"));
    let groups = [
        Group { cluster: "e2e", threads: "10", tests: shared },
        Group { cluster: "e2e-alone", threads: "1", tests: alone },
    ];
    groups.into_iter().filter(|group| !group.tests.is_empty()).collect()
}

impl Group {
    /// What the tests told, and what went wrong.
    fn run(&self, program: &Path, arguments: &Arguments) -> (Summary, Result<()>) {
        let mut summary = Summary::default();
        let result = self.start().and_then(|()| self.test(program, arguments, &mut summary));
        if arguments.keep {
            eprintln!(
                "a cluster stays up: cargo xtask cluster exec --name {0}, and down --name {0} to end it",
                self.cluster
            );
            return (summary, result);
        }
        let down = command::run(cluster("down").args(["--name", self.cluster]));
        (summary, result.and(down))
    }

    /// A cluster with the images as they are now. It may be up since an earlier run.
    fn start(&self) -> Result<()> {
        let kept = command::output(cluster("status").args(["--name", self.cluster])).is_ok();
        command::run(cluster("up").args(["--name", self.cluster]))?;
        if kept {
            command::run(cluster("image").args(["--name", self.cluster, "--debug"]).args(IMAGES))?;
        }
        Ok(())
    }

    fn test(&self, program: &Path, arguments: &Arguments, summary: &mut Summary) -> Result<()> {
        let mut tests = cluster("exec");
        tests.args(["--name", self.cluster, "--"]).arg(program);
        tests.arg("--exact").args(&self.tests).args(["--test-threads", self.threads]).args(&arguments.more);
        // For the tests that stop and start parts of the cluster.
        tests.env("E2E_XTASK", command::this());
        tests.env("E2E_CLUSTER", self.cluster).env("E2E_KEEP", if arguments.keep { "1" } else { "0" });
        // A failure names its place in the test; the stack below is that of the async runtime.
        tests.env("RUST_BACKTRACE", "0");
        runner::run(tests, self.cluster, &mut std::io::stdout(), summary)
    }
}

/// Builds the test program and tells where it is.
fn build() -> Result<PathBuf> {
    let mut build = workspace(cargo());
    build.args(["test", "--locked", "--package", "holdfast-e2e"]).args(runner::BUILD);
    match &mut runner::programs(&command::stdout(&mut build)?)?[..] {
        [program] => Ok(std::mem::take(&mut program.file)),
        programs => bail!("cargo built {} test programs for holdfast-e2e", programs.len()),
    }
}

fn xtask() -> Command {
    Command::new(command::this())
}

fn cluster(task: &str) -> Command {
    let mut command = xtask();
    command.args(["cluster", task]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_disturb_everybody_have_a_cluster_for_themselves() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let groups_of = |given: &[&str]| {
            groups(&names(given)).into_iter().map(|group| (group.cluster, group.tests)).collect::<Vec<_>>()
        };
        assert_eq!(
            groups_of(&["alone::nodes::cut", "seeds::alone", "faults::full"]),
            [("e2e", names(&["seeds::alone", "faults::full"])), ("e2e-alone", names(&["alone::nodes::cut"]))]
        );
        assert_eq!(groups_of(&["alone::nodes::cut"]), [("e2e-alone", names(&["alone::nodes::cut"]))]);
    }
}

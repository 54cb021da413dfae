//! The stage on a real Kubernetes: builds the tests and the images they use, starts a cluster of its own, runs the tests
//! inside it and takes it down, whatever happened.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::runner::{self, Summary};
use super::workspace;
use crate::command::{self, cargo};

/// The cluster's name: it does not meet the one that a person works with.
const CLUSTER: &str = "e2e";

/// What test workloads run, and what is tested.
const IMAGES: [&str; 6] = ["pause", "busybox", "object-store", "google", "restic", "holdfast"];

/// Tests wait most of the time, so more of them run at once than there are processors.
const THREADS: &str = "8";

#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Only tests whose names hold one of these
    filters: Vec<String>,
    /// Leave the cluster up, and in it the namespaces of tests that failed; the next run uses it again
    #[arg(long)]
    keep: bool,
    /// More arguments of the test program, such as `--nocapture`
    #[arg(last = true)]
    more: Vec<OsString>,
}

/// The whole stage.
pub(super) fn run(arguments: &Arguments, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
    // An interrupt ends the tests, which are in the same process group; the cluster is still to be taken down.
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).context("cannot catch interrupts")?;
    }
    let program = build()?;
    let result = start().and_then(|()| test(&program, arguments, echo, summary));
    if arguments.keep {
        eprintln!("the cluster stays up: cargo xtask cluster exec --name {CLUSTER}, and down to end it");
        return result;
    }
    let down = command::run(cluster("down").args(["--name", CLUSTER]));
    result.and(down)
}

/// A cluster with the images as they are now. It may be up since an earlier run.
fn start() -> Result<()> {
    let kept = command::output(cluster("status").args(["--name", CLUSTER])).is_ok();
    command::run(xtask().args(["image", "--debug"]).args(IMAGES))?;
    command::run(cluster("up").args(["--name", CLUSTER]))?;
    if kept {
        command::run(cluster("image").args(["--name", CLUSTER, "--debug"]).args(IMAGES))?;
    }
    Ok(())
}

fn test(program: &PathBuf, arguments: &Arguments, echo: &mut impl Write, summary: &mut Summary) -> Result<()> {
    let mut tests = cluster("exec");
    tests.args(["--name", CLUSTER, "--"]).arg(program);
    tests.args(&arguments.filters).args(["--test-threads", THREADS]).args(&arguments.more);
    // For the tests that stop and start parts of the cluster.
    tests.env("E2E_XTASK", command::this());
    tests.env("E2E_CLUSTER", CLUSTER).env("E2E_KEEP", if arguments.keep { "1" } else { "0" });
    // A failure names its place in the test; the stack below is that of the async runtime.
    tests.env("RUST_BACKTRACE", "0");
    runner::run(tests, "e2e", echo, summary)
}

/// Builds the test program and tells where it is.
fn build() -> Result<PathBuf> {
    let arguments =
        ["test", "--locked", "--package", "holdfast-e2e", "--no-run", "--message-format", "json-render-diagnostics"];
    let messages = command::stdout(workspace(cargo()).args(arguments))?;
    executable(&messages)?.context("cargo built no test program")
}

/// The program among the messages of cargo.
fn executable(messages: &str) -> Result<Option<PathBuf>> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut found = None;
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).with_context(|| format!("cargo said `{line}`"))?;
        if let Some(program) = message.executable
            && found.replace(program).is_some()
        {
            bail!("cargo built several test programs");
        }
    }
    Ok(found)
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
    fn the_one_program_is_found_among_cargos_messages() {
        let library = r#"{"reason":"compiler-artifact","executable":null}"#;
        let finished = r#"{"reason":"build-finished","success":true}"#;
        let program = |name: &str| format!(r#"{{"reason":"compiler-artifact","executable":"/t/{name}"}}"#);
        let found = executable(&[library, &program("e2e-1"), finished].join("\n"));
        assert_eq!(found.unwrap(), Some(PathBuf::from("/t/e2e-1")));
        assert_eq!(executable(finished).unwrap(), None);
        assert!(executable(&[program("a"), program("b")].join("\n")).is_err());
        assert!(executable("no JSON").is_err());
    }
}

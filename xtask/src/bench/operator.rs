//! `cargo xtask bench operator`: the operator against thousands of objects, on a cluster of its own that is taken down
//! at the end, whatever happened. What measures is `tests/bench`, which runs inside the cluster.

use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use super::engine::{built, holdfast};
use crate::command;

/// The cluster's name: it does not meet the one that a person works with.
const CLUSTER: &str = "bench";

/// Arguments of `cargo xtask bench operator`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many Backups
    #[arg(long, default_value_t = 5000)]
    backups: u32,
    /// How many Deployments they back up
    #[arg(long, default_value_t = 500)]
    workloads: u32,
    /// How many namespaces all are spread over
    #[arg(long, default_value_t = 50)]
    namespaces: u32,
    /// For how many minutes nothing may be written while nothing changes
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// For how many seconds the API server is away
    #[arg(long, default_value_t = 60)]
    outage_seconds: u64,
    /// Leave the cluster up
    #[arg(long)]
    keep: bool,
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut words: Vec<OsString> = vec!["operator".into(), "--program".into(), holdfast()?.into()];
    words.extend(["--xtask".into(), command::this().into(), "--cluster".into(), CLUSTER.into()]);
    for (name, value) in [
        ("backups", arguments.backups.to_string()),
        ("workloads", arguments.workloads.to_string()),
        ("namespaces", arguments.namespaces.to_string()),
        ("minutes", arguments.minutes.to_string()),
        ("outage-seconds", arguments.outage_seconds.to_string()),
    ] {
        words.push(format!("--{name}={value}").into());
    }
    measure(words, arguments.keep)
}

/// Runs what measures, with these arguments, inside a cluster of its own.
pub(super) fn measure(arguments: Vec<OsString>, keep: bool) -> Result<()> {
    // An interrupt ends the measurement, which is in the same process group; the cluster is still to be taken down.
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false))).context("cannot catch interrupts")?;
    }
    let mut words: Vec<OsString> = vec!["--".into(), built("holdfast-bench")?.into()];
    words.extend(arguments);
    let result = cluster("up", &["--nodes", "1"]).and_then(|()| cluster("exec", &words));
    if keep {
        eprintln!("the cluster stays up: cargo xtask cluster exec --name {CLUSTER}, and down to end it");
        return result;
    }
    result.and(cluster("down", &[] as &[&str]))
}

fn cluster(task: &str, more: &[impl AsRef<std::ffi::OsStr>]) -> Result<()> {
    command::run(Command::new(command::this()).args(["cluster", task, "--name", CLUSTER]).args(more))
}

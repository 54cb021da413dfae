//! `cargo xtask bench pod`: the agent in a real pod, from the image of a release, on a cluster of its own that is taken
//! down at the end, whatever happened. What measures is `tests/bench`, which runs inside the cluster.

use std::process::Command;

use anyhow::Result;

use super::operator::measure;
use crate::command;

/// What the pods of the measurement run.
const IMAGES: [&str; 4] = ["pause", "busybox", "object-store", "holdfast"];

/// Arguments of `cargo xtask bench pod`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many small files are backed up
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// How large each is
    #[arg(long, default_value_t = 2048)]
    bytes: u64,
    /// The memory limit of the sidecar and of the Job that recovers
    #[arg(long, default_value = "128Mi")]
    limit: String,
    /// Run the product unoptimised: ready sooner, and no figure to be compared
    #[arg(long)]
    debug: bool,
    /// Leave the cluster up
    #[arg(long)]
    keep: bool,
}

/// The task itself.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { files, bytes, limit, debug, keep } = arguments;
    command::run(Command::new(command::this()).arg("image").args(IMAGES).args(debug.then_some("--debug")))?;
    let words = [format!("--files={files}"), format!("--bytes={bytes}"), format!("--limit={limit}")];
    measure(std::iter::once("pod".into()).chain(words.into_iter().map(Into::into)).collect(), *keep)
}

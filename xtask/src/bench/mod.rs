//! `cargo xtask bench`.

use anyhow::Result;

/// The benchmarks.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {}

/// The task itself.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match *bench {}
}

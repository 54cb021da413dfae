//! `cargo xtask bench`: measurements against the tools people use today. Each makes its own data, runs both sides in
//! turn in the same run on the same machine, and checks what they produced: a fast wrong answer is an error.

mod data;
mod engine;
mod measure;
mod report;

use anyhow::Result;

/// The benchmarks.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// The engine against restic: init, backups, restore, check and prune
    Engine(engine::Arguments),
}

/// The task itself.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Engine(arguments) => engine::run(arguments),
    }
}

//! `cargo xtask bench`: measurements. The engine against the tools people use today: it makes its own data, runs both
//! sides in turn in the same run on the same machine, and checks what they produced: a fast wrong answer is an error. The
//! operator against thousands of objects, and its agent in a pod, on a cluster of their own.

mod data;
mod engine;
mod measure;
mod operator;
mod pod;
mod report;

use anyhow::Result;

/// The benchmarks.
#[derive(clap::Subcommand)]
pub(crate) enum Bench {
    /// The engine against restic: init, backups, restore, check and prune
    Engine(engine::Arguments),
    /// The operator: thousands of objects on a cluster of its own
    Operator(operator::Arguments),
    /// The agent in a pod: at rest, and with a million files within the memory that a Backup gives it
    Pod(pod::Arguments),
}

/// The task itself.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Engine(arguments) => engine::run(arguments),
        Bench::Operator(arguments) => operator::run(arguments),
        Bench::Pod(arguments) => pod::run(arguments),
    }
}

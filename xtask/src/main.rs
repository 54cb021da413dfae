//! `cargo xtask`: what the project needs beside its own code.
//!
//! `tools` installs what tests use, `test` is the one command that says whether a checkout is good, `bench` measures
//! the engine and the operator. It never becomes part of the product: nothing imports it and it imports nothing of ours.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this program talks to the person who runs it")]

mod bench;
mod cache;
mod cluster;
mod command;
mod house;
mod image;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tools, tests and benchmarks of the project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need into the cache; quiet when there is nothing to do
    Tools(tools::Arguments),
    /// Run every check of the project, or only the named stages
    Test(test::Arguments),
    /// Pack container images: the product's, and those of test clusters
    Image(image::Arguments),
    /// A Kubernetes of its own on this machine
    #[command(subcommand)]
    Cluster(cluster::Task),
    /// Measure the engine against restic, and the operator on a cluster
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    if let Err(error) = command::remember_this() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let result = match Arguments::parse().task {
        Task::Tools(arguments) => tools::run(&arguments),
        Task::Test(arguments) => return test::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Bench(bench) => bench::run(&bench),
        Task::Cluster(task) => cluster::run(&task),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

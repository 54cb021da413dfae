//! `holdfast`: the one binary. Reads the command line, runs a subcommand, and turns its outcome into an exit code.

mod args;
mod crds;
mod failure;
mod folder;
mod output;
mod plan;
mod protect;
mod repo;
mod shell;
mod standalone;
mod status;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};
use crate::failure::code;
use crate::output::Output;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no errors; a wrong command line has restic's code for it, not clap's.
            let _ = error.print();
            return if error.use_stderr() { code::FAILED } else { code::SUCCESS }.into();
        }
    };
    let output = Output::new(&args.output);
    let outcome = match args.command {
        Command::Standalone(args) => standalone::run(&args, &output),
        Command::Plan(args) => plan::run(&args, &output),
        Command::Status(args) => status::run(&args, &output),
        Command::Protect(args) => protect::run(&args, &output),
        Command::Repo(repo) => repo::run(repo, &output),
        Command::Crds => crds::run(&output),
        Command::Completions(args) => shell::completions(&args, &output),
        Command::Man(args) => shell::man(&args, &output),
    };
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.code().into()
        }
    }
}

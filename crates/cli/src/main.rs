//! `holdfast`: the one binary. Reads the command line, runs a subcommand, and turns its outcome into an exit code.

mod args;
mod crds;
mod environment;
mod failure;
mod folder;
mod output;
mod plan;
mod pod;
mod protect;
mod repo;
mod run;
mod shell;
mod standalone;
mod status;
mod table;

use std::process::ExitCode;

use crate::args::Command;
use crate::failure::code;
use crate::output::Output;

fn main() -> ExitCode {
    holdfast_repository::memory::return_large_buffers();
    let args = match environment::parse() {
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
        Command::Run(args) => run::run(args, &output),
        Command::Watch(args) => pod::watch(&args, &output),
        Command::Backup(args) => pod::backup(&args, &output),
        Command::Recover(args) => pod::recover(&args, &output),
        Command::Init(args) => pod::init(&args, &output),
        Command::UpdateRepoStatus(args) => pod::update_repo_status(&args, &output),
        Command::UpdateRecoveryStatus(args) => pod::update_recovery_status(&args, &output),
        Command::Wipe(args) => pod::wipe(&args, &output),
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

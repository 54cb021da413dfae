//! The command line's shape.

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::plan::PlanArgs;
use crate::pod::{
    BackupArgs, InitArgs, RecoverArgs, UpdateRecoveryStatusArgs, UpdateRepoStatusArgs, WatchArgs, WipeArgs,
};
use crate::protect::ProtectArgs;
use crate::repo::RepoCommand;
use crate::run::RunArgs;
use crate::shell::{CompletionsArgs, ManArgs};
use crate::standalone::StandaloneArgs;
use crate::status::StatusArgs;

/// Backs up and restores what runs on Kubernetes, and the same on one machine.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a process")]
pub(crate) enum Command {
    /// Protect and restore what a folder of manifests names, on this machine
    ///
    /// Exit codes with --once: 0 all that was due is done, 1 something failed, a manifest has a mistake or nothing is
    /// protected, 3 something was saved or restored only in part, 130 stopped by a signal.
    Standalone(StandaloneArgs),
    /// Print what `standalone` would do with a folder, and touch nothing
    Plan(PlanArgs),
    /// Show what is protected, and how well
    Status(StatusArgs),
    /// Write a folder of manifests that protects some folders
    Protect(ProtectArgs),
    /// Work on a repository, as restic does, with its variables and exit codes
    Repo(RepoCommand),
    /// Run the operator of a Kubernetes cluster
    ///
    /// Exit codes: 0 stopped by a signal, 1 it could not start.
    Run(RunArgs),
    /// Follow the schedules of everything that protects a workload, in a pod of it
    Watch(WatchArgs),
    /// Run a Backup once, in a pod
    Backup(BackupArgs),
    /// Carry out a Recovery, in a pod, unless that was done already
    Recover(RecoverArgs),
    /// Make the repository of a Backup, in a pod, unless it exists
    Init(InitArgs),
    /// Tell how the repository of a Backup stands, and push metrics
    UpdateRepoStatus(UpdateRepoStatusArgs),
    /// Tell that a Recovery is done, and push metrics
    UpdateRecoveryStatus(UpdateRecoveryStatusArgs),
    /// Delete everything in a Repository, for good
    #[command(hide = true)]
    Wipe(WipeArgs),
    /// Print the custom resource definitions for Kubernetes
    Crds,
    /// Print the completions for a shell
    Completions(CompletionsArgs),
    /// Write the man pages into a folder
    Man(ManArgs),
}

/// How to talk.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// What is printed to standard output
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(crate) output: Format,
    /// The same as --output json
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no notes, only errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print every item that is worked on
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The two forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs: JSON documents, one a line
    Json,
}

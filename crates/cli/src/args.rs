//! The command line's shape.

use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::plan::PlanArgs;
use crate::protect::ProtectArgs;
use crate::repo::RepoCommand;
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
    /// Exit codes with --once: 0 all that was due is done, 1 something failed or a manifest has a mistake, 3 something
    /// was saved or restored only in part, 130 stopped by a signal.
    Standalone(StandaloneArgs),
    /// Print what `standalone` would do with a folder, and touch nothing
    Plan(PlanArgs),
    /// Show what is protected, and how well
    Status(StatusArgs),
    /// Write a folder of manifests that protects some folders
    Protect(ProtectArgs),
    /// Work on a repository, as restic does, with its variables and exit codes
    Repo(RepoCommand),
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
    #[arg(short, long, global = true, value_enum, default_value = "text", env = "HOLDFAST_OUTPUT")]
    pub(crate) output: Format,
    /// The same as --output json
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no notes, only errors and results
    #[arg(short, long, global = true, env = "HOLDFAST_QUIET", conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print every item that is worked on
    #[arg(short, long, global = true, env = "HOLDFAST_VERBOSE", action = ArgAction::Count)]
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

//! `holdfast repo …`: work on any repository of restic's format, with restic's flags, variables and exit codes.

mod backup;
mod check;
mod copy;
mod diff;
mod dump;
mod files_from;
mod find;
mod forget;
mod from_repo;
mod init;
mod key;
mod ls;
mod node;
mod open;
mod password;
mod patterns;
mod prune;
mod restore;
mod selection;
mod size;
mod snapshots;
mod stats;
mod tag;
mod unlock;

use clap::{Args, Subcommand};
use holdfast_repository::Monitor;

use self::open::RepoArgs;
use crate::failure::{Failure, Result, code};
use crate::output::Output;

const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  failed, or check found errors
    3  done in part: files could not be read (backup), snapshots could not be removed (forget)
   10  there is no repository
   11  the repository is locked
   12  the password is wrong
  130  stopped by Ctrl-C or SIGTERM

Storage on S3 is asked with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_DEFAULT_REGION, or \
what AWS_PROFILE names; Google Cloud Storage with GOOGLE_ACCESS_TOKEN, the file GOOGLE_APPLICATION_CREDENTIALS, or \
what gcloud or the machine has, and GOOGLE_PROJECT_ID where a bucket is to be made.";

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, mut_subcommands = |command| command.after_help(EXIT_CODES))]
pub(crate) struct RepoCommand {
    #[command(flatten)]
    repo: RepoArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a new repository
    Init(init::InitArgs),
    /// Back up files and folders, or the output of a command
    ///
    /// A path is stored as the absolute path it stands for. What did not change since the snapshot before, by size, times
    /// and inode number, is not read again.
    Backup(backup::BackupArgs),
    /// List snapshots
    Snapshots(snapshots::SnapshotsArgs),
    /// List what is in a snapshot
    Ls(ls::LsArgs),
    /// Find files, folders, or ids in snapshots
    Find(find::FindArgs),
    /// Show what differs between two snapshots
    ///
    /// Prints + for what was added, - removed, M changed content, T changed type, U changed metadata, and ? for content
    /// that changed though nothing says so, as on a failing disk.
    Diff(diff::DiffArgs),
    /// Print a file of a snapshot, or a folder as a tar archive
    Dump(dump::DumpArgs),
    /// Restore a snapshot, or a part of it, to a folder
    Restore(restore::RestoreArgs),
    /// Count what is in snapshots
    Stats(stats::StatsArgs),
    /// Change tags of snapshots
    Tag(tag::TagArgs),
    /// Check whether everything is there and undamaged
    Check(check::CheckArgs),
    /// Copy snapshots of another repository into this one
    ///
    /// A snapshot that was copied before is not copied again, and data that is there already is not written again.
    Copy(copy::CopyArgs),
    /// Remove snapshots, by a policy or by name
    Forget(forget::ForgetArgs),
    /// Remove data that no snapshot needs
    Prune(prune::PruneArgs),
    /// Remove locks that processes left behind
    Unlock(unlock::UnlockArgs),
    /// Manage passwords
    #[command(subcommand)]
    Key(key::KeyAction),
}

pub(crate) fn run(command: RepoCommand, output: &Output) -> Result<u8> {
    let RepoCommand { repo, action } = command;
    match action {
        Action::Init(args) => init::run(&repo, &args, output),
        Action::Backup(args) => backup::run(&repo, args, output),
        Action::Snapshots(args) => snapshots::run(&repo, &args, output),
        Action::Ls(args) => ls::run(&repo, args, output),
        Action::Find(args) => find::run(&repo, args, output),
        Action::Diff(args) => diff::run(&repo, &args, output),
        Action::Dump(args) => dump::run(&repo, &args, output),
        Action::Stats(args) => stats::run(&repo, &args, output),
        Action::Tag(args) => tag::run(&repo, args, output),
        Action::Restore(args) => restore::run(&repo, args, output),
        Action::Check(args) => check::run(&repo, &args, output),
        Action::Copy(args) => copy::run(&repo, &args, output),
        Action::Forget(args) => forget::run(&repo, args, output),
        Action::Prune(args) => prune::run(&repo, &args, output),
        Action::Unlock(args) => unlock::run(&repo, &args, output),
        Action::Key(action) => key::run(&repo, action, output),
    }
}

/// Success, unless something could not be read and was passed over.
fn complete(monitor: &Monitor) -> Result<u8> {
    match monitor.counters().errors.load(std::sync::atomic::Ordering::Relaxed) {
        0 => Ok(code::SUCCESS),
        errors => Err(Failure::with_hint(
            format!("the result is incomplete: {errors} of what it needs could not be read, see above"),
            "`holdfast repo check --read-data` tells what is affected",
        )),
    }
}

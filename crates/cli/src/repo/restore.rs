//! `repo restore`: makes files of a snapshot again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use clap::{Args, ValueEnum};
use holdfast_repository::pattern::{Case, PatternList};
use holdfast_repository::restore::{Overwrite, OwnerLookup, Owners, RestoreOptions, RestoreReport, restore};
use indicatif::{HumanBytes, HumanDuration};
use serde_json::json;

use super::open::RepoArgs;
use super::patterns;
use super::selection::{SelectionArgs, select};
use super::snapshots::local_time;
use crate::failure::{Failure, Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The snapshot, by the beginning of its id, latest or latest~1; with :FOLDER only what is in that folder
    #[arg(value_name = "ID[:FOLDER]")]
    snapshot: String,
    /// The folder to restore to, made if it is missing
    #[arg(short, long, value_name = "FOLDER")]
    target: PathBuf,
    /// Write nothing, and tell what would be written (with --verbose: each item)
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// What happens to files that are there already
    #[arg(long, value_enum, default_value = "always")]
    overwrite: OverwriteArg,
    /// Remove what the snapshot does not have
    #[arg(long)]
    delete: bool,
    /// Read every restored file again and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    /// Leave holes where new files have long runs of zeros
    #[arg(long)]
    sparse: bool,
    /// Give files to the users and groups of the names in the snapshot, not of the numbers
    #[arg(long)]
    ownership_by_name: bool,
    /// Give the target itself the owner, permissions, attributes and times of FOLDER
    #[arg(long)]
    target_metadata: bool,
    #[command(flatten)]
    patterns: PatternArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What to restore")]
struct PatternArgs {
    /// Only what matches; may be given several times
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// As --include, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iinclude: Vec<String>,
    /// A file of patterns, one a line
    #[arg(long, value_name = "FILE")]
    include_file: Vec<PathBuf>,
    /// As --include-file, whatever the case
    #[arg(long, value_name = "FILE")]
    iinclude_file: Vec<PathBuf>,
    /// Not what matches; may be given several times
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// As --exclude, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// A file of patterns, one a line
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// As --exclude-file, whatever the case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OverwriteArg {
    /// They get the snapshot's content, where they differ
    Always,
    /// The same, but equal size and time mean equal content
    IfChanged,
    /// Only files older than the snapshot's are overwritten
    IfNewer,
    /// They stay as they are
    Never,
}

pub(crate) fn run(repo: &RepoArgs, args: RestoreArgs, output: &Output) -> Result<u8> {
    let start = Instant::now();
    let mut options = args.options(repo)?;
    let repository = repo.open()?;
    let progress = output.progress("restoring");
    let selected = select(&repository, &args.snapshot, &args.selection.filter())?;
    let saved = &selected.saved;
    if args.target_metadata {
        options.target_metadata = Some(selected.entry(&repository)?.ok_or_else(|| {
            Failure::with_hint(
                "--target-metadata: a whole snapshot has no metadata of its own",
                "name a folder in it, as latest:/home",
            )
        })?);
    }
    output.note(format!(
        "restoring snapshot {} of {} at {} to {}",
        saved.id.short(),
        saved.snapshot.paths.join(", "),
        local_time(saved.snapshot.time),
        args.target.display()
    ));
    let report = restore(&repository, &selected.tree, &options, progress.monitor())?;
    drop(progress);
    let elapsed = start.elapsed();
    let json = json!({
        "message_type": "summary",
        "snapshot_id": saved.id,
        "target": args.target.to_string_lossy(),
        "dry_run": args.dry_run,
        "files_restored": report.files_restored,
        "files_unchanged": report.files_unchanged,
        "files_skipped": report.skipped,
        "files_deleted": report.removed,
        "dirs": report.dirs,
        "others": report.others,
        "bytes_restored": report.bytes_restored,
        "bytes_unchanged": report.bytes_unchanged,
        "errors": report.errors,
        "seconds_elapsed": elapsed.as_secs_f64(),
    });
    output.result(&json, || format!("{} in {}", text(&report, args.dry_run), HumanDuration(elapsed)))?;
    match report.errors {
        0 => Ok(code::SUCCESS),
        errors => Err(Failure::with_hint(
            format!("the restore is incomplete: {errors} of its items failed, see above"),
            "run it again when the causes are gone: what is right already is not written again",
        )),
    }
}

impl RestoreArgs {
    fn options(&self, repo: &RepoArgs) -> Result<RestoreOptions> {
        let PatternArgs {
            include,
            iinclude,
            include_file,
            iinclude_file,
            exclude,
            iexclude,
            exclude_file,
            iexclude_file,
        } = &self.patterns;
        Ok(RestoreOptions {
            include: lists((include, include_file), (iinclude, iinclude_file))?,
            exclude: lists((exclude, exclude_file), (iexclude, iexclude_file))?,
            overwrite: match self.overwrite {
                OverwriteArg::Always => Overwrite::Always,
                OverwriteArg::IfChanged => Overwrite::IfChanged,
                OverwriteArg::IfNewer => Overwrite::IfNewer,
                OverwriteArg::Never => Overwrite::Never,
            },
            delete: self.delete,
            dry_run: self.dry_run,
            verify: self.verify,
            sparse: self.sparse,
            owners: if self.ownership_by_name { owners_by_name() } else { Owners::Numbers },
            lock: repo.read_lock_options(),
            ..RestoreOptions::new(&self.target)
        })
    }
}

type Given<'a> = (&'a [String], &'a [PathBuf]);

/// A list for each rule for the case of letters.
fn lists(sensitive: Given<'_>, ignoring: Given<'_>) -> Result<Vec<PatternList>> {
    [(sensitive, Case::Sensitive), (ignoring, Case::Ignored)]
        .into_iter()
        .map(|((given, files), case)| patterns::list(&patterns::collect(given, files)?, case))
        .collect()
}

fn owners_by_name() -> Owners {
    Owners::Names(Arc::new(OwnerLookup::new(
        |name| uzers::get_user_by_name(name).map(|user| user.uid()),
        |name| uzers::get_group_by_name(name).map(|group| group.gid()),
    )))
}

fn text(report: &RestoreReport, dry_run: bool) -> String {
    let mut parts = vec![format!(
        "{} {} ({}), {}",
        if dry_run { "would restore" } else { "restored" },
        counted(report.files_restored, "file"),
        HumanBytes(report.bytes_restored),
        counted(report.dirs, "folder")
    )];
    for (count, what) in [
        (report.others, "links and special files"),
        (report.files_unchanged, "right already"),
        (report.skipped, "left as they were"),
        (report.removed, if dry_run { "to be removed" } else { "removed" }),
    ] {
        if count > 0 {
            parts.push(format!("{count} {what}"));
        }
    }
    parts.join(", ")
}

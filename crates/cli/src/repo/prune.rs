//! `repo prune`: removes data that no snapshot needs.

use std::sync::Arc;

use clap::Args;
use holdfast_repository::prune::{MaxUnused, PruneOptions, PruneReport, prune};
use holdfast_repository::{Id, Repository};
use indicatif::HumanBytes;

use super::open::RepoArgs;
use super::size;
use crate::failure::{Failure, Result, code};
use crate::output::{Output, counted};
use crate::table::{number, render, table};

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Remove nothing, and tell what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    limits: PruneLimits,
}

/// How far a prune goes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "How far to prune")]
pub(crate) struct PruneLimits {
    /// How much unneeded data may stay, which costs less than moving what lies beside it: 5%, 500M or unlimited
    #[arg(long, value_name = "LIMIT", default_value = "5%", value_parser = size::parse_max_unused)]
    max_unused: MaxUnused,
    /// Move at most so much data
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    max_repack_size: Option<u64>,
    /// Put packs below this size together
    #[arg(long, value_name = "SIZE", value_parser = size::parse_bytes)]
    repack_smaller_than: Option<u64>,
    /// Move only data of folders
    #[arg(long)]
    repack_cacheable_only: bool,
    /// Compress what is not compressed
    #[arg(long)]
    repack_uncompressed: bool,
}

pub(crate) fn run(repo: &RepoArgs, args: &PruneArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    run_on(&repository, repo, &args.limits, args.dry_run, Vec::new(), output)
}

/// Prunes an open repository. A dry run takes `ignored_snapshots` for removed.
pub(crate) fn run_on(
    repository: &Arc<Repository>,
    repo: &RepoArgs,
    limits: &PruneLimits,
    dry_run: bool,
    ignored_snapshots: Vec<Id>,
    output: &Output,
) -> Result<u8> {
    let defaults = PruneOptions::default();
    let options = PruneOptions {
        max_unused: limits.max_unused,
        max_repack_bytes: limits.max_repack_size,
        small_pack_bytes: limits.repack_smaller_than.unwrap_or(defaults.small_pack_bytes),
        repack_cacheable_only: limits.repack_cacheable_only,
        repack_uncompressed: limits.repack_uncompressed,
        ignored_snapshots,
        dry_run,
        lock: repo.lock_options(),
    };
    let progress = output.progress("pruning");
    let report = prune(repository, &options, progress.monitor())?;
    drop(progress);
    let mut json = serde_json::to_value(report).map_err(Failure::new)?;
    json["message_type"] = "prune_summary".into();
    json["dry_run"] = dry_run.into();
    json["freed_bytes"] = report.freed_bytes().into();
    output.result(&json, || text(&report, dry_run))?;
    match report.failed_removals {
        0 => Ok(code::SUCCESS),
        failed => Err(Failure::with_hint(
            format!("{} could not be removed, see above", counted(failed, "pack")),
            "nothing needs them any more: prune again when the cause is gone",
        )),
    }
}

fn text(report: &PruneReport, dry_run: bool) -> String {
    let mut table = table(&["", "Blobs", "Size"]);
    let mut row = |what: &str, blobs: String, bytes: u64| {
        table.add_row(vec![what.into(), number(blobs), number(HumanBytes(bytes))]);
    };
    row("needed", report.used_blobs.to_string(), report.used_bytes);
    row("not needed", report.unused_blobs.to_string(), report.unused_bytes);
    row("there twice", report.duplicate_blobs.to_string(), report.duplicate_bytes);
    row("in no index", String::new(), report.unindexed_bytes);
    row("not needed, but staying", String::new(), report.remaining_unused_bytes());
    format!(
        "{}\n{} {}, moved the needed data of {}, kept {}\n{} {}",
        render(table),
        if dry_run { "would have removed" } else { "removed" },
        counted(report.removed_packs + report.unindexed_packs, "pack"),
        counted(report.repacked_packs, "other"),
        counted(report.kept_packs, "pack"),
        if dry_run { "this would free" } else { "freed" },
        HumanBytes(report.freed_bytes()),
    )
}

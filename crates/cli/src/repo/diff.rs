//! `repo diff`: shows what differs between two snapshots.

use clap::Args;
use holdfast_repository::browse::{Change, ChangedSide, DiffReport, DiffStats, diff};
use holdfast_repository::format::node::{Node, NodeKind};
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::source::display_path;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::open::RepoArgs;
use super::selection::select;
use crate::failure::{Failure, Result};
use crate::output::{Lines, Output};

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The first snapshot, by the beginning of its id, latest or latest~1; with :FOLDER only that folder
    #[arg(value_name = "ID[:FOLDER]")]
    before: String,
    /// The second
    #[arg(value_name = "ID[:FOLDER]")]
    after: String,
    /// Show also where only metadata changed
    #[arg(long)]
    metadata: bool,
}

pub(crate) fn run(repo: &RepoArgs, args: &DiffArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let monitor = output.monitor();
    let _lock = repo.lock_to_read(&repository, &monitor)?;
    let before = select(&repository, &args.before, &SnapshotFilter::default())?;
    let after = select(&repository, &args.after, &SnapshotFilter::default())?;
    let mut lines = Lines::new();
    let outcome = diff(&repository, &before, &after, args.metadata, &monitor, &mut |change| {
        if output.is_json() {
            let path = path(&change, |path| String::from_utf8_lossy(path).into_owned());
            lines.print(&json!({"message_type": "change", "path": path, "modifier": change.modifier()}).to_string())
        } else {
            lines.print(&format!("{:<4} {}", change.modifier(), path(&change, display_path)))
        }
    });
    let report = lines.finish(outcome)?;
    let mut json = serde_json::to_value(report).map_err(Failure::new)?;
    json["message_type"] = Value::from("statistics");
    json["source_snapshot"] = before.saved.id.to_string().into();
    json["target_snapshot"] = after.saved.id.to_string().into();
    output.result(&json, || text(&report))?;
    super::complete(&monitor)
}

/// The path, with a slash at the end for folders, as restic writes it.
fn path(change: &Change<'_>, show: impl Fn(&[u8]) -> String) -> String {
    let (ChangedSide::Before(node) | ChangedSide::After(node) | ChangedSide::Both(_, node)) = change.side;
    let slash = |node: &Node| if node.kind == NodeKind::Dir { "/" } else { "" };
    format!("{}{}", show(change.path), slash(node))
}

fn text(report: &DiffReport) -> String {
    let side = |stats: &DiffStats| {
        format!(
            "{} files, {} folders, {} others, {} data blobs, {} tree blobs, {}",
            stats.files,
            stats.dirs,
            stats.others,
            stats.data_blobs,
            stats.tree_blobs,
            HumanBytes(stats.bytes)
        )
    };
    format!(
        "\nfiles changed: {}\nadded:   {}\nremoved: {}",
        report.changed_files,
        side(&report.added),
        side(&report.removed)
    )
}

//! `repo snapshots`: lists snapshots, and how snapshots are shown everywhere.

use clap::Args;
use comfy_table::Cell;
use holdfast_repository::Id;
use holdfast_repository::format::snapshot::{GroupBy, GroupKey};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::snapshots::{SavedSnapshot, group};
use indicatif::HumanBytes;
use serde::Serialize;

use super::open::RepoArgs;
use super::selection::{SelectionArgs, select_all};
use crate::failure::Result;
use crate::output::{Output, counted};
use crate::status::local;
use crate::table::{number, render, table};

#[derive(Debug, Args)]
pub(crate) struct SnapshotsArgs {
    /// The snapshots, by the beginning of their ids, or latest [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Show less of each
    #[arg(short, long)]
    compact: bool,
    /// Only the last so many of each host and paths
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
    /// Show groups by host, paths or tags, or several with commas between
    #[arg(short, long, value_name = "GROUP")]
    group_by: Option<GroupBy>,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(crate) fn run(repo: &RepoArgs, args: &SnapshotsArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let monitor = output.monitor();
    let lock = repo.lock_to_read(&repository, &monitor)?;
    let mut saved = select_all(&repository, &args.ids, &args.selection.filter(), &monitor)?;
    drop(lock);
    if let Some(latest) = args.latest {
        saved = keep_latest(saved, latest);
    }
    match args.group_by {
        None => {
            let json: Vec<_> = saved.iter().map(SnapshotJson::new).collect();
            output.result(&json, || listing(&saved, args.compact))?;
        }
        Some(by) => {
            let groups = group(saved, by);
            let json: Vec<_> = groups.iter().map(GroupJson::new).collect();
            output.result(&json, || {
                let group = |(key, saved): &(GroupKey, Vec<SavedSnapshot>)| {
                    format!("snapshots{}\n{}", describe(key), listing(saved, args.compact))
                };
                groups.iter().map(group).collect::<Vec<_>>().join("\n\n")
            })?;
        }
    }
    super::complete(&monitor)
}

/// The last `count` of each host and paths, oldest first.
fn keep_latest(saved: Vec<SavedSnapshot>, count: usize) -> Vec<SavedSnapshot> {
    let mut kept: Vec<_> = group(saved, GroupBy::default())
        .into_iter()
        .flat_map(|(_, mut saved)| saved.split_off(saved.len().saturating_sub(count)))
        .collect();
    kept.sort_by_key(|saved| (saved.snapshot.time, saved.id));
    kept
}

fn listing(saved: &[SavedSnapshot], compact: bool) -> String {
    if saved.is_empty() {
        return "no snapshots".into();
    }
    let rows = saved.iter().map(|saved| (saved, None));
    format!("{}\n{}", snapshot_table(rows, compact), counted(saved.len() as u64, "snapshot"))
}

/// What the snapshots of a group have in common, for the line above them.
pub(crate) fn describe(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if !key.hostname.is_empty() {
        parts.push(format!("host {}", key.hostname));
    }
    for (what, list) in [("tags", &key.tags), ("paths", &key.paths)] {
        if let Some(list) = list {
            parts.push(format!("{what} {}", list.join(", ")));
        }
    }
    if parts.is_empty() { String::new() } else { format!(" of {}", parts.join(", ")) }
}

/// Snapshots as a table, each with the reasons that keep it, if there is a rule that does.
pub(crate) fn snapshot_table<'a>(
    rows: impl Iterator<Item = (&'a SavedSnapshot, Option<&'a [String]>)>,
    compact: bool,
) -> String {
    let rows: Vec<_> = rows.collect();
    let has_reasons = rows.iter().any(|(_, reasons)| reasons.is_some());
    let mut header = vec!["ID", "Time", "Host", "Tags"];
    if has_reasons {
        header.push("Reasons");
    }
    if !compact {
        header.push("Paths");
    }
    header.push("Size");
    let mut table = table(&header);
    for (saved, reasons) in rows {
        let snapshot = &saved.snapshot;
        let tags = snapshot.tags.join(if compact { "\n" } else { "," });
        let mut row: Vec<Cell> =
            vec![saved.id.short().into(), local_time(snapshot.time).into(), (&snapshot.hostname).into(), tags.into()];
        if has_reasons {
            row.push(reasons.unwrap_or_default().join("\n").into());
        }
        if !compact {
            row.push(snapshot.paths.join("\n").into());
        }
        row.push(number(
            snapshot
                .summary
                .as_ref()
                .map_or_else(String::new, |summary| HumanBytes(summary.total_bytes_processed).to_string()),
        ));
        table.add_row(row);
    }
    render(table)
}

/// The time on a clock here.
pub(crate) fn local_time(time: Timestamp) -> String {
    match time.instant() {
        Some(instant) => local(instant),
        None => time.to_string(),
    }
}

/// A snapshot as programs see it.
#[derive(Serialize)]
pub(crate) struct SnapshotJson<'a> {
    #[serde(flatten)]
    saved: &'a SavedSnapshot,
    short_id: String,
}

impl<'a> SnapshotJson<'a> {
    pub(crate) fn new(saved: &'a SavedSnapshot) -> Self {
        Self { saved, short_id: short(&saved.id) }
    }
}

fn short(id: &Id) -> String {
    id.short().to_string()
}

#[derive(Serialize)]
struct GroupJson<'a> {
    group_key: &'a GroupKey,
    snapshots: Vec<SnapshotJson<'a>>,
}

impl<'a> GroupJson<'a> {
    fn new((key, saved): &'a (GroupKey, Vec<SavedSnapshot>)) -> Self {
        Self { group_key: key, snapshots: saved.iter().map(SnapshotJson::new).collect() }
    }
}

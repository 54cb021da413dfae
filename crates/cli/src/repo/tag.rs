//! `repo tag`: changes tags of snapshots.

use clap::Args;
use holdfast_repository::tag::{Retagged, TagChange, TagOptions, tag};
use serde_json::json;

use super::open::RepoArgs;
use super::selection::{SelectionArgs, not_selected};
use crate::failure::{Failure, Result};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct TagArgs {
    /// The snapshots, by the beginning of their ids, or latest [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Add a tag; may be given several times, or as a,b
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    add: Vec<String>,
    /// Remove a tag; may be given several times, or as a,b
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    remove: Vec<String>,
    /// Set the tags to these alone; none if empty
    #[arg(long, value_name = "TAG", value_delimiter = ',', conflicts_with_all = ["add", "remove"])]
    set: Option<Vec<String>>,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(crate) fn run(repo: &RepoArgs, args: TagArgs, output: &Output) -> Result<u8> {
    let change = match args.set {
        Some(tags) => TagChange::Set(tags),
        None if args.add.is_empty() && args.remove.is_empty() => {
            return Err(Failure::with_hint("nothing says what to do with the tags", "give --add, --remove or --set"));
        }
        None => TagChange::Edit { add: args.add, remove: args.remove },
    };
    let repository = repo.open()?;
    let options =
        TagOptions { snapshots: args.ids, filter: args.selection.filter(), change, lock: repo.lock_options() };
    let monitor = output.monitor();
    let retagged = tag(&repository, &options, &monitor).map_err(not_selected)?;
    for Retagged { old, new } in &retagged {
        output.result(&json!({"message_type": "changed", "old_snapshot_id": old, "new_snapshot_id": new}), || {
            format!("snapshot {} is now {}", old.short(), new.short())
        })?;
    }
    let count = retagged.len();
    output.result(&json!({"message_type": "summary", "changed_snapshots": count}), || {
        format!("changed {}", counted(count as u64, "snapshot"))
    })?;
    super::complete(&monitor)
}

//! `repo ls`: lists what is in a snapshot.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use holdfast_repository::browse::{LsOptions, ls};
use serde::Serialize;

use super::node::{NodeJson, line};
use super::open::RepoArgs;
use super::selection::{SelectionArgs, select};
use super::snapshots::{SnapshotJson, local_time};
use crate::failure::{Failure, Result};
use crate::output::{Lines, Output};

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// The snapshot, by the beginning of its id, latest or latest~1; with :FOLDER only what is in that folder
    #[arg(value_name = "ID[:FOLDER]")]
    snapshot: String,
    /// Only these, and what is in them [default: everything]
    #[arg(value_name = "PATH")]
    paths: Vec<OsString>,
    /// Also what is in folders of the folders that are named
    #[arg(long)]
    recursive: bool,
    /// Show permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Show sizes in units that people read
    #[arg(long)]
    human_readable: bool,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(crate) fn run(repo: &RepoArgs, args: LsArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let monitor = output.monitor();
    let _lock = repo.lock_to_read(&repository, &monitor)?;
    let selected = select(&repository, &args.snapshot, &args.selection.filter())?;
    let saved = &selected.saved;
    output.note(format!(
        "snapshot {} of {} at {}",
        saved.id.short(),
        saved.snapshot.paths.join(", "),
        local_time(saved.snapshot.time)
    ));
    let options =
        LsOptions { paths: args.paths.into_iter().map(OsString::into_vec).collect(), recursive: args.recursive };
    let mut lines = Lines::new();
    let outcome = (|| {
        if output.is_json() {
            lines.print(&json_line("snapshot", &SnapshotJson::new(saved)))?;
        }
        ls(&repository, &selected, &options, &monitor, &mut |path, node| {
            if output.is_json() {
                lines.print(&json_line("node", &NodeJson::new(path, node)))
            } else {
                lines.print(&line(path, node, args.long || args.human_readable, args.human_readable))
            }
        })
    })();
    lines.finish(outcome).map_err(|failure| match failure.hint() {
        None if failure.code() == 1 => Failure::hinting(failure, "`holdfast repo find NAME` finds where something is"),
        _ => failure,
    })?;
    super::complete(&monitor)
}

/// A line for programs that says what it is about.
fn json_line(message_type: &'static str, of: &impl Serialize) -> String {
    #[derive(Serialize)]
    struct Message<'a, T> {
        message_type: &'static str,
        struct_type: &'static str,
        #[serde(flatten)]
        of: &'a T,
    }
    serde_json::to_string(&Message { message_type, struct_type: message_type, of }).unwrap_or_default()
}

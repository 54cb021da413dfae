//! `repo copy`: takes snapshots of another repository over into this one.

use std::time::Instant;

use clap::Args;
use holdfast_repository::copy::{CopyOptions, copy};
use indicatif::{HumanBytes, HumanDuration};
use serde_json::json;

use super::from_repo::FromArgs;
use super::open::RepoArgs;
use super::selection::{SelectionArgs, select_all};
use crate::failure::{Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// The other repository's snapshots, by the beginning of their ids, or latest [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(crate) fn run(repo: &RepoArgs, args: &CopyArgs, output: &Output) -> Result<u8> {
    let start = Instant::now();
    let (from, to) = (args.from.open(repo)?, repo.open()?);
    if from.config().chunker_polynomial != to.config().chunker_polynomial {
        output.note(
            "The two repositories cut files at different places: copies share nothing with what is backed up to this one.",
        );
    }
    let progress = output.progress("copying");
    let monitor = progress.monitor();
    let snapshots = select_all(&from, &args.ids, &args.selection.filter(), monitor)?;
    let options = CopyOptions { from_lock: repo.read_lock_options(), to_lock: repo.lock_options() };
    let copied = copy(&from, &to, &snapshots, &options, monitor)?;
    let monitor = monitor.clone();
    drop(progress);
    let existed = copied.iter().filter(|copy| copy.existed).count() as u64;
    let (new, elapsed) = (copied.len() as u64 - existed, start.elapsed());
    let bytes = monitor.counters().bytes.load(std::sync::atomic::Ordering::Relaxed);
    let json = json!({
        "message_type": "summary",
        "snapshots": copied,
        "snapshots_copied": new,
        "snapshots_existed": existed,
        "data_copied": bytes,
        "seconds_elapsed": elapsed.as_secs_f64(),
    });
    output.result(&json, || {
        let mut lines: Vec<String> = copied
            .iter()
            .map(|copy| match copy.existed {
                true => format!("snapshot {} is there already, as {}", copy.from.short(), copy.to.short()),
                false => format!("snapshot {} is copied, as {}", copy.from.short(), copy.to.short()),
            })
            .collect();
        lines.push(format!(
            "copied {} and {} of data in {}; {existed} there already",
            counted(new, "snapshot"),
            HumanBytes(bytes),
            HumanDuration(elapsed)
        ));
        lines.join("\n")
    })?;
    super::complete(&monitor)?;
    Ok(code::SUCCESS)
}

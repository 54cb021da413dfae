//! `repo unlock`: removes locks that processes left behind.

use clap::Args;
use holdfast_repository::unlock;
use serde_json::json;

use super::open::RepoArgs;
use crate::failure::{Result, code};
use crate::output::{Output, counted};

#[derive(Debug, Args)]
pub(crate) struct UnlockArgs {
    /// Remove all locks, even of processes that work on the repository: only when there are none
    #[arg(long)]
    remove_all: bool,
}

pub(crate) fn run(repo: &RepoArgs, args: &UnlockArgs, output: &Output) -> Result<u8> {
    let repository = repo.open()?;
    let removed = unlock(&repository, args.remove_all)?;
    let locks: Vec<_> =
        removed.iter().map(|lock| json!({"id": lock.id, "reason": lock.reason, "lock": lock.lock})).collect();
    output.result(&json!({"message_type": "summary", "removed": locks}), || {
        let mut lines: Vec<String> = removed
            .iter()
            .map(|removed| {
                let lock = &removed.lock;
                format!(
                    "removed lock {}: {} (process {} of {} on {})",
                    removed.id.short(),
                    removed.reason,
                    lock.pid,
                    lock.username,
                    lock.hostname
                )
            })
            .collect();
        lines.push(match removed.len() {
            0 => "no lock to remove".into(),
            count => format!("removed {}", counted(count as u64, "lock")),
        });
        lines.join("\n")
    })?;
    Ok(code::SUCCESS)
}

//! Which snapshots a retention policy keeps, and the removal of the others.
//!
//! Deciding is pure ([`apply_policy`]) and gives restic's answers with restic's reasons. Removing happens under an
//! exclusive lock, one snapshot file after the other; the data stays until a prune.

mod policy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

pub use self::policy::{CalendarDuration, Count, Decision, KeepPolicy, PolicyError, apply_policy};
use crate::format::FileKind;
use crate::format::snapshot::{GroupBy, GroupKey, SnapshotFilter};
use crate::lock::{Lock, LockMode, LockOptions};
use crate::monitor::Counters;
use crate::snapshots::{SavedSnapshot, Snapshots, group, select};
use crate::{Error, Id, Monitor, Repository, Result};

/// What to forget.
#[derive(Debug, Clone, Default)]
pub struct ForgetOptions {
    /// Forget exactly these snapshots, named as for [`crate::snapshots::select`]; the policy is not asked.
    pub snapshots: Vec<String>,
    /// What to keep of the others.
    pub policy: KeepPolicy,
    /// Which snapshots the policy is applied to. Default: all.
    pub filter: SnapshotFilter,
    /// What snapshots have in common that the policy is applied to together. Default: host and paths.
    pub group_by: GroupBy,
    /// Allow a policy without any rule, which keeps nothing. It needs a filter.
    pub allow_remove_all: bool,
    /// Only tell what would be removed.
    pub dry_run: bool,
    /// How the repository is locked.
    pub lock: LockOptions,
}

/// What was, or in a dry run would be, kept and removed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ForgetReport {
    /// The groups that the policy was applied to; none when snapshots were named.
    pub groups: Vec<ForgetGroup>,
    /// Every snapshot that was, or would be, removed.
    pub removed: Vec<Id>,
    /// How many could not be removed; the monitor was told why.
    pub failed: u64,
}

/// What the policy decided on one group.
#[derive(Debug, Clone, Serialize)]
pub struct ForgetGroup {
    /// What its snapshots have in common.
    pub key: GroupKey,
    /// The snapshots, newest first.
    pub decisions: Vec<Decision>,
}

/// Removes the snapshots that are named or that the policy does not keep.
///
/// A snapshot that cannot be read is reported and left alone. Nothing is removed if a listing fails, if the policy
/// has no rule, or if it would leave a group without any snapshot.
pub fn forget(repository: &Arc<Repository>, options: &ForgetOptions, monitor: &Monitor) -> Result<ForgetReport> {
    let lock = Lock::acquire(repository, LockMode::Exclusive, &options.lock, monitor)?;
    let mut report = ForgetReport::default();
    let remove: Vec<Id> = if options.snapshots.is_empty() {
        check_policy(options)?;
        let mut snapshots = Snapshots::load(repository)?.readable(monitor);
        snapshots.retain(|saved| options.filter.matches(&saved.snapshot));
        report.groups = decide(snapshots, options)?;
        let decisions = report.groups.iter().flat_map(|group| &group.decisions);
        decisions.filter(|decision| !decision.keep).map(|decision| decision.saved.id).collect()
    } else {
        options
            .snapshots
            .iter()
            .map(|name| find(repository, name, &options.filter))
            .collect::<Result<BTreeSet<Id>>>()?
            .into_iter()
            .collect()
    };
    if options.dry_run {
        report.removed = remove;
        return Ok(report);
    }
    let counters = monitor.counters();
    Counters::add(&counters.steps_total, remove.len() as u64);
    for id in remove {
        monitor.check()?;
        lock.check()?;
        match repository.remove(&lock, FileKind::Snapshot, &id) {
            Ok(()) => {
                monitor.item("removed", || format!("snapshot {id}"));
                report.removed.push(id);
            }
            Err(Error::Store(error)) => {
                monitor.error(format!("snapshot {}", id.short()), &error);
                report.failed += 1;
            }
            Err(error) => return Err(error),
        }
        Counters::add(&counters.steps, 1);
    }
    Ok(report)
}

/// The snapshot of that name. One that is named by its id need not be readable to be forgotten.
fn find(repository: &Repository, name: &str, filter: &SnapshotFilter) -> Result<Id> {
    if name.starts_with("latest") || name.contains(':') {
        let selected = select(repository, name, filter)?;
        return match selected.folder.is_empty() {
            true => Ok(selected.saved.id),
            false => Err(Error::Selection(format!("{name:?}: a folder of a snapshot cannot be forgotten"))),
        };
    }
    repository.find_id(FileKind::Snapshot, name)
}

fn check_policy(options: &ForgetOptions) -> Result<()> {
    if !options.policy.is_empty() {
        return Ok(());
    }
    if !options.allow_remove_all {
        return Err(Error::Selection("no rule says what to keep: nothing was removed".into()));
    }
    if options.filter == SnapshotFilter::default() {
        let reason = "removing all snapshots needs a filter by host, tag or path: nothing was removed";
        return Err(Error::Selection(reason.into()));
    }
    Ok(())
}

fn decide(snapshots: Vec<SavedSnapshot>, options: &ForgetOptions) -> Result<Vec<ForgetGroup>> {
    let now = jiff::Timestamp::now();
    let mut groups = Vec::new();
    for (key, snapshots) in group(snapshots, options.group_by) {
        let decisions = apply_policy(snapshots, &options.policy, now);
        if !options.policy.is_empty() && decisions.iter().all(|decision| !decision.keep) {
            return Err(Error::Selection(format!(
                "the policy would remove every snapshot of {}: nothing was removed",
                describe(&key)
            )));
        }
        groups.push(ForgetGroup { key, decisions });
    }
    Ok(groups)
}

fn describe(key: &GroupKey) -> String {
    let mut parts = Vec::new();
    if !key.hostname.is_empty() {
        parts.push(format!("host {}", key.hostname));
    }
    for (what, list) in [("paths", &key.paths), ("tags", &key.tags)] {
        if let Some(list) = list {
            parts.push(format!("{what} {}", list.join(", ")));
        }
    }
    if parts.is_empty() { "the repository".into() } else { parts.join(", ") }
}

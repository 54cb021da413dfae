//! Changes the tags of snapshots.
//!
//! A snapshot file never changes: a new one is written, which names the first of its line as its original, and then
//! the old one is removed. Killed in between, both are there.

use std::sync::Arc;

use serde::Serialize;

use crate::format::FileKind;
use crate::format::snapshot::SnapshotFilter;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::snapshots::select_all;
use crate::{Error, Id, Monitor, Repository, Result};

/// What becomes of the tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagChange {
    /// These and no others; none at all for an empty list.
    Set(Vec<String>),
    /// Some come and some go; first come, then go.
    Edit {
        /// Come.
        add: Vec<String>,
        /// Go.
        remove: Vec<String>,
    },
}

/// Whose tags change, and how.
#[derive(Debug, Clone)]
pub struct TagOptions {
    /// The snapshots, named as for [`crate::snapshots::select`]; none for all that fit the filter.
    pub snapshots: Vec<String>,
    /// Which snapshots, if none is named.
    pub filter: SnapshotFilter,
    /// What to do.
    pub change: TagChange,
    /// How the repository is locked.
    pub lock: LockOptions,
}

/// A snapshot that has new tags, and so a new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Retagged {
    /// Its old name.
    pub old: Id,
    /// Its new name.
    pub new: Id,
}

/// Changes tags; returns the snapshots that were replaced. Those that have the tags already stay as they are.
pub fn tag(repository: &Arc<Repository>, options: &TagOptions, monitor: &Monitor) -> Result<Vec<Retagged>> {
    let lock = Lock::acquire(repository, LockMode::Exclusive, &options.lock, monitor)?;
    let mut retagged = Vec::new();
    for saved in select_all(repository, &options.snapshots, &options.filter, monitor)? {
        monitor.check()?;
        lock.check()?;
        let mut snapshot = saved.snapshot;
        let is_changed = match &options.change {
            TagChange::Set(tags) => {
                let before = std::mem::take(&mut snapshot.tags);
                snapshot.add_tags(tags.iter().map(String::as_str).filter(|tag| !tag.is_empty()));
                snapshot.tags != before
            }
            TagChange::Edit { add, remove } => {
                let before = snapshot.tags.clone();
                snapshot.add_tags(add.iter().map(String::as_str));
                snapshot.remove_tags(&remove.iter().map(String::as_str).collect::<Vec<_>>());
                snapshot.tags != before
            }
        };
        if !is_changed {
            continue;
        }
        snapshot.original.get_or_insert(saved.id);
        let json = snapshot.to_json().map_err(|error| Error::damaged("the new snapshot", error))?;
        let new = repository.save_file(FileKind::Snapshot, &json)?;
        repository.remove(&lock, FileKind::Snapshot, &saved.id)?;
        monitor.item("tagged", || format!("snapshot {}", saved.id));
        retagged.push(Retagged { old: saved.id, new });
    }
    Ok(retagged)
}

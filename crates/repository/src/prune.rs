//! Removal of data that no snapshot needs.
//!
//! First a plan is made ([`PrunePlan`]), from the index and the trees of all snapshots; then it is carried out, under
//! an exclusive lock, in an order that leaves a whole repository whatever is killed and when:
//!
//! 1. packs that no index names go: nothing can need them;
//! 2. what is still needed of the packs to be emptied is copied to new packs, which get an index;
//! 3. the remaining entries of the old indexes are written to new ones, then the old indexes are removed;
//! 4. packs that no index names any more go.
//!
//! Anything that cannot be read (a listing, an index, a snapshot, a tree, a needed blob) ends the prune before
//! anything is removed by whose absence it might be harmed.
//!
//! Memory: the index, two bits for each blob, some 50 bytes for each pack, and a bounded number of packs' blobs under
//! way. A copied blob is in the index of the new packs, too.

mod plan;
mod repack;
mod rewrite;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use self::plan::PrunePlan;
pub(crate) use self::plan::header_entry_bytes;
use crate::format::node::NodeKind;
use crate::format::tree;
use crate::format::{BlobKind, FileKind};
use crate::index::Marks;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::monitor::Counters;
use crate::snapshots::{Snapshots, folder_without_tree};
use crate::trees::visit_trees;
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// Unfinished files of this age have no writer any more.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How much unused data may stay: emptying packs costs reading and writing what is still needed in them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnused {
    /// Any amount: only packs without any needed blob go.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
    /// So many per cent of all data in the repository after the prune, below 100.
    Percent(f64),
}

impl Default for MaxUnused {
    /// 5 %, as restic.
    fn default() -> Self {
        Self::Percent(5.0)
    }
}

impl MaxUnused {
    fn bytes(self, used_bytes: u64) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) if percent >= 100.0 => u64::MAX,
            Self::Percent(percent) => (percent.max(0.0) / (100.0 - percent.max(0.0)) * used_bytes as f64) as u64,
        }
    }
}

/// How a prune goes about it.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// How much unused data may stay. Default: 5 %.
    pub max_unused: MaxUnused,
    /// How many bytes of packs are rewritten at most. Default: no limit.
    pub max_repack_bytes: Option<u64>,
    /// Packs below this size in bytes are put together, if there are at least ten. Default: 1 MiB.
    pub small_pack_bytes: u64,
    /// Rewrite only packs of directories, which are those that clients cache.
    pub repack_cacheable_only: bool,
    /// Rewrite packs with uncompressed blobs. Those of directories always are.
    pub repack_uncompressed: bool,
    /// Snapshots to take for removed already: for a dry run after a forget in a dry run.
    pub ignored_snapshots: Vec<Id>,
    /// Only plan.
    pub dry_run: bool,
    /// How the repository is locked.
    pub lock: LockOptions,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            max_unused: MaxUnused::default(),
            max_repack_bytes: None,
            small_pack_bytes: 1 << 20,
            repack_cacheable_only: false,
            repack_uncompressed: false,
            ignored_snapshots: Vec::new(),
            dry_run: false,
            lock: LockOptions::default(),
        }
    }
}

/// What a prune did, or in a dry run would do. Sizes are of sealed blobs as they lie in packs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PruneReport {
    /// Blobs that snapshots need, each once.
    pub used_blobs: u64,
    /// Their bytes.
    pub used_bytes: u64,
    /// Further copies of needed blobs.
    pub duplicate_blobs: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Blobs that no snapshot needs.
    pub unused_blobs: u64,
    /// Their bytes.
    pub unused_bytes: u64,
    /// Bytes of packs that no index names: left-overs of interrupted backups and prunes.
    pub unindexed_bytes: u64,
    /// Such packs.
    pub unindexed_packs: u64,
    /// Packs that stay as they are.
    pub kept_packs: u64,
    /// Packs whose needed blobs move to new packs.
    pub repacked_packs: u64,
    /// Bytes of blobs in them.
    pub repacked_bytes: u64,
    /// Bytes of blobs in them that do not move.
    pub dropped_bytes: u64,
    /// Packs without any needed blob, which go as a whole.
    pub removed_packs: u64,
    /// Bytes of blobs in these.
    pub removed_bytes: u64,
    /// Bytes of packs that stay and hold uncompressed blobs though the format could compress them.
    pub uncompressed_bytes: u64,
    /// Index files that were replaced; 0 in a dry run.
    pub replaced_indexes: u64,
    /// Packs that could not be removed in the end; nothing names them, so the next prune tries again.
    pub failed_removals: u64,
}

impl PruneReport {
    /// Bytes that the repository shrinks by.
    pub fn freed_bytes(&self) -> u64 {
        self.unindexed_bytes + self.removed_bytes + self.dropped_bytes
    }

    /// Bytes of unneeded blobs that stay.
    pub fn remaining_unused_bytes(&self) -> u64 {
        (self.unused_bytes + self.duplicate_bytes).saturating_sub(self.removed_bytes + self.dropped_bytes)
    }
}

/// Removes the data that no snapshot needs.
pub fn prune(repository: &Arc<Repository>, options: &PruneOptions, monitor: &Monitor) -> Result<PruneReport> {
    let lock = Lock::acquire(repository, LockMode::Exclusive, &options.lock, monitor)?;
    // What was known before the lock was taken may have changed since.
    repository.refresh_index();
    let outcome = prune_locked(repository, options, &lock, monitor);
    // Whatever was removed must not be looked for any more.
    repository.refresh_index();
    outcome
}

fn prune_locked(
    repository: &Arc<Repository>,
    options: &PruneOptions,
    lock: &Lock,
    monitor: &Monitor,
) -> Result<PruneReport> {
    let index = repository.index()?;
    let used = mark_used(repository, &index, &options.ignored_snapshots, monitor)?;
    let plan = PrunePlan::new(repository, &index, &used, options)?;
    let mut report = plan.report;
    if options.dry_run {
        return Ok(report);
    }
    match repository.store().remove_leftovers(LEFTOVER_AGE) {
        Ok(0) => {}
        Ok(count) => {
            monitor.note(repository.location(), format!("{count} unfinished files of writers that died were removed"))
        }
        Err(error) => monitor.error(repository.location(), &error),
    }
    if plan.is_nothing() {
        return Ok(report);
    }
    let counters = monitor.counters();
    Counters::add(&counters.steps_total, (plan.unindexed.len() + plan.repack.len() * 2 + plan.remove.len()) as u64);
    report.failed_removals += remove_packs(repository, lock, &plan.unindexed, monitor)?;
    repack::repack(repository, &index, used, &plan, options, lock, monitor)?;
    let gone: HashSet<Id> = plan.remove.iter().chain(&plan.repack).chain(&plan.missing).copied().collect();
    drop(index);
    repository.refresh_index();
    report.replaced_indexes = rewrite::rewrite_indexes(repository, &gone, lock, monitor)?;
    for packs in [&plan.remove, &plan.repack] {
        report.failed_removals += remove_packs(repository, lock, packs, monitor)?;
    }
    Ok(report)
}

/// Removes packs that nothing needs; how many could not be.
fn remove_packs(repository: &Repository, lock: &Lock, packs: &[Id], monitor: &Monitor) -> Result<u64> {
    let mut failed = 0;
    for id in packs {
        monitor.check()?;
        match repository.remove(lock, FileKind::Pack, id) {
            Ok(()) => monitor.item("removed", || format!("pack {id}")),
            Err(Error::Store(error)) => {
                monitor.error(format!("pack {}", id.short()), &error);
                failed += 1;
            }
            Err(error) => return Err(error),
        }
        Counters::add(&monitor.counters().steps, 1);
    }
    Ok(failed)
}

/// Marks every blob that a snapshot needs. Fails if anything cannot be read or is missing.
fn mark_used(repository: &Repository, index: &Index, ignored: &[Id], monitor: &Monitor) -> Result<Marks> {
    let marks = Marks::default();
    let snapshots = Snapshots::load(repository)?.complete()?;
    let snapshots = snapshots.iter().filter(|saved| !ignored.contains(&saved.id));
    mark_trees(repository, index, &marks, snapshots.map(|saved| saved.snapshot.tree), monitor)?;
    Ok(marks)
}

/// Marks every blob that is reached from `roots`, and these. Fails if anything cannot be read or is missing.
pub(crate) fn mark_trees(
    repository: &Repository,
    index: &Index,
    marks: &Marks,
    roots: impl Iterator<Item = Id>,
    monitor: &Monitor,
) -> Result<()> {
    let mark =
        |kind: BlobKind, id: &Id| marks.set(index, kind, id).ok_or(Error::MissingBlob { kind: kind.noun(), id: *id });
    let mut new_roots = Vec::new();
    for root in roots {
        if mark(BlobKind::Tree, &root)? {
            new_roots.push(root);
        }
    }
    visit_trees(new_roots, monitor, &|id, found| {
        let json = repository.load_blob_by(index, BlobKind::Tree, id)?;
        for node in tree::nodes(&json) {
            let node = node.map_err(|error| Error::damaged(format!("tree {id}"), error))?;
            for content in node.content.iter().flatten() {
                mark(BlobKind::Data, content)?;
            }
            match node.subtree {
                Some(subtree) if mark(BlobKind::Tree, &subtree)? => found.push(subtree),
                None if node.kind == NodeKind::Dir => {
                    return Err(Error::damaged(format!("tree {id}"), folder_without_tree(node.display_name())));
                }
                _ => {}
            }
        }
        Counters::add(&monitor.counters().dirs, 1);
        Ok(())
    })
}

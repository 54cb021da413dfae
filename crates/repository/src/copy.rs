//! Copies snapshots, with all they need, to another repository.
//!
//! Every blob is verified when it is read, and sealed anew with the other repository's key. Both should cut files at
//! the same places (the same chunker polynomial), else the copies do not deduplicate with what is backed up there.
//! Nothing is removed anywhere. Killed at any moment, the next copy goes on with what is missing.

use std::sync::Arc;

use serde::Serialize;

use crate::format::node::NodeKind;
use crate::format::tree;
use crate::format::{BlobKind, FileKind};
use crate::index::Marks;
use crate::lock::{Lock, LockMode, LockOptions};
use crate::monitor::Counters;
use crate::pack_writer::PackWriter;
use crate::snapshots::{SavedSnapshot, Snapshots, folder_without_tree};
use crate::trees::visit_trees;
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// A snapshot and its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The snapshot.
    pub from: Id,
    /// Its copy in the other repository.
    pub to: Id,
    /// Whether the copy was there already.
    pub existed: bool,
}

/// How a copy goes about it.
#[derive(Debug, Clone, Default)]
pub struct CopyOptions {
    /// How the repository is locked that is copied from. `None`: not at all, as for a read-only one.
    pub from_lock: Option<LockOptions>,
    /// How the one is locked that is copied to.
    pub to_lock: LockOptions,
}

/// Copies `snapshots` of `from` to `to`. One that was copied before, and says so, is not copied again.
pub fn copy(
    from: &Arc<Repository>,
    to: &Arc<Repository>,
    snapshots: &[SavedSnapshot],
    options: &CopyOptions,
    monitor: &Monitor,
) -> Result<Vec<Copied>> {
    let CopyOptions { from_lock, to_lock } = options;
    let lock_from = |lock| Lock::acquire(from, LockMode::Shared, lock, monitor);
    let from_lock = from_lock.as_ref().map(lock_from).transpose()?;
    let to_lock = Lock::acquire(to, LockMode::Shared, to_lock, monitor)?;
    from.refresh_index();
    to.refresh_index();
    let (from_index, to_index) = (from.index()?, to.index()?);
    let there = Snapshots::load(to)?.readable(monitor);
    let seen = Marks::default();
    let mut copied = Vec::new();
    for saved in snapshots {
        if let Some(copy) = there.iter().find(|other| is_copy(other, saved)) {
            copied.push(Copied { from: saved.id, to: copy.id, existed: true });
            continue;
        }
        let writer = PackWriter::new(to, Arc::clone(&to_index), false)?;
        let run = Run { from, index: &from_index, to_index: &to_index, writer: &writer, seen: &seen, monitor };
        run.copy_tree(saved.snapshot.tree, from_lock.as_ref(), &to_lock)?;
        writer.finish()?;
        to_lock.check()?;
        let mut snapshot = saved.snapshot.clone();
        // The parent is a snapshot of the other repository's.
        snapshot.parent = None;
        snapshot.original.get_or_insert(saved.id);
        let json = snapshot.to_json().map_err(|error| Error::damaged("the new snapshot", error))?;
        let id = to.save_file(FileKind::Snapshot, &json)?;
        monitor.item("copied", || format!("snapshot {}", saved.id));
        copied.push(Copied { from: saved.id, to: id, existed: false });
    }
    Ok(copied)
}

/// Whether `copy` was made of `of`, or both of the same, and neither was changed since.
fn is_copy(copy: &SavedSnapshot, of: &SavedSnapshot) -> bool {
    let origin = |saved: &SavedSnapshot| saved.snapshot.original.unwrap_or(saved.id);
    let (a, b) = (&copy.snapshot, &of.snapshot);
    origin(copy) == origin(of)
        && (a.time, a.tree, &a.hostname, &a.tags, &a.paths) == (b.time, b.tree, &b.hostname, &b.tags, &b.paths)
}

struct Run<'a> {
    from: &'a Repository,
    index: &'a Index,
    to_index: &'a Index,
    writer: &'a PackWriter,
    /// Directories and pieces that were copied, or were there.
    seen: &'a Marks,
    monitor: &'a Monitor,
}

impl Run<'_> {
    fn copy_tree(&self, root: Id, from_lock: Option<&Lock>, to_lock: &Lock) -> Result<()> {
        let roots = if self.is_new(BlobKind::Tree, &root)? { vec![root] } else { Vec::new() };
        // A directory that is there already is entered all the same: a copy that was killed may have left it without
        // what is below.
        visit_trees(roots, self.monitor, &|id, found| {
            from_lock.map_or(Ok(()), Lock::check)?;
            to_lock.check()?;
            let mut encoder = self.writer.encoder()?;
            let json = self.from.load_blob_by(self.index, BlobKind::Tree, id)?;
            for node in tree::nodes(&json) {
                let node = node.map_err(|error| Error::damaged(format!("tree {id}"), error))?;
                for content in node.content.iter().flatten() {
                    if self.is_new(BlobKind::Data, content)? && !self.to_index.contains(BlobKind::Data, content) {
                        let plain = self.from.load_blob_by(self.index, BlobKind::Data, content)?;
                        self.writer.save(&mut encoder, BlobKind::Data, &plain)?;
                        Counters::add(&self.monitor.counters().bytes, plain.len() as u64);
                    }
                }
                match node.subtree {
                    Some(subtree) if self.is_new(BlobKind::Tree, &subtree)? => found.push(subtree),
                    None if node.kind == NodeKind::Dir => {
                        return Err(Error::damaged(format!("tree {id}"), folder_without_tree(node.display_name())));
                    }
                    _ => {}
                }
            }
            self.writer.save(&mut encoder, BlobKind::Tree, &json)?;
            Counters::add(&self.monitor.counters().dirs, 1);
            Ok(())
        })
    }

    fn is_new(&self, kind: BlobKind, id: &Id) -> Result<bool> {
        self.seen.set(self.index, kind, id).ok_or(Error::MissingBlob { kind: kind.noun(), id: *id })
    }
}

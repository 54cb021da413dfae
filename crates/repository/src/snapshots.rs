//! Which snapshots there are, and which of them is meant.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::error::Damage;
use crate::format::FileKind;
use crate::format::node::{Node, NodeKind};
use crate::format::snapshot::{GroupBy, GroupKey, Snapshot, SnapshotFilter};
use crate::repository::in_parallel;
use crate::source::display_path;
use crate::{Error, Id, Monitor, Repository, Result};

/// How many snapshots are read at once: they are small, and waiting for the store is all there is to it.
const LOADERS: usize = 8;

/// A snapshot and its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SavedSnapshot {
    /// The snapshot file.
    pub id: Id,
    /// What stands in it.
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

/// All snapshots of a repository.
#[derive(Debug, Default)]
pub struct Snapshots {
    /// The readable ones, oldest first; those of one instant by id.
    pub saved: Vec<SavedSnapshot>,
    /// Those that could not be read, with the reason.
    pub unreadable: Vec<(Id, Error)>,
}

impl Snapshots {
    /// Reads all snapshots. A listing that fails is an error; a snapshot that cannot be read is in
    /// [`Self::unreadable`].
    pub fn load(repository: &Repository) -> Result<Self> {
        let ids = repository.list(FileKind::Snapshot)?;
        let loaded = Mutex::new(Self::default());
        in_parallel(&ids, LOADERS, |id| {
            let snapshot = repository.load_snapshot(id);
            let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
            match snapshot {
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Ok(snapshot) => loaded.saved.push(SavedSnapshot { id: *id, snapshot }),
                Err(error) => loaded.unreadable.push((*id, error)),
            }
            Ok(())
        })?;
        let mut loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
        loaded.saved.sort_by_key(|saved| (saved.snapshot.time, saved.id));
        loaded.unreadable.sort_by_key(|(id, _)| *id);
        Ok(loaded)
    }

    /// The snapshots, if every one could be read: for decisions that a missing one would make wrong.
    pub fn complete(mut self) -> Result<Vec<SavedSnapshot>> {
        if self.unreadable.is_empty() { Ok(self.saved) } else { Err(self.unreadable.swap_remove(0).1) }
    }

    /// The readable snapshots; `monitor` is told of the others.
    pub fn readable(self, monitor: &Monitor) -> Vec<SavedSnapshot> {
        for (id, error) in &self.unreadable {
            monitor.failed(format!("snapshot {}", id.short()), error);
        }
        self.saved
    }
}

/// A snapshot that was asked for, and the folder in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// The snapshot.
    pub saved: SavedSnapshot,
    /// The folder after the colon of `ID:folder`; empty for all.
    pub folder: Vec<u8>,
    /// The tree of that folder.
    pub tree: Id,
}

impl Selected {
    /// The entry of the folder in the folder above it; none for a whole snapshot, which has no entry.
    pub fn entry(&self, repository: &Repository) -> Result<Option<Node>> {
        let mut names = names(&self.folder);
        let Some(name) = names.next_back() else { return Ok(None) };
        let above = names.collect::<Vec<_>>().join(&b'/');
        let above = folder_tree(repository, &self.saved.snapshot.tree, &above)?;
        Ok(repository.load_tree(&above)?.nodes.into_iter().find(|node| node.name == name))
    }
}

/// Finds the snapshot that `text` names: the beginning of an id, `latest`, or `latest~2` for the second before the
/// latest, and after a colon a folder in it.
///
/// `filter` narrows what `latest` may be. A snapshot that cannot be read makes `latest` an error: it might be the one.
pub fn select(repository: &Repository, text: &str, filter: &SnapshotFilter) -> Result<Selected> {
    let (name, folder) = text.split_once(':').unwrap_or((text, ""));
    let saved = match name.strip_prefix("latest") {
        Some("") => latest(repository, 0, filter)?,
        Some(back) if back.starts_with('~') => {
            let back = back[1..].parse().map_err(|_| {
                Error::Selection(format!("{name:?} names no snapshot: expected a number after `latest~`"))
            })?;
            latest(repository, back, filter)?
        }
        _ => {
            let id = match name.parse() {
                Ok(id) => id,
                Err(_) => repository.find_id(FileKind::Snapshot, name)?,
            };
            SavedSnapshot { id, snapshot: repository.load_snapshot(&id)? }
        }
    };
    let tree = folder_tree(repository, &saved.snapshot.tree, folder.as_bytes()).map_err(|error| match error {
        Error::Selection(reason) => Error::Selection(format!("snapshot {}: {reason}", saved.id.short())),
        error => error,
    })?;
    Ok(Selected { saved, folder: folder.into(), tree })
}

fn latest(repository: &Repository, back: usize, filter: &SnapshotFilter) -> Result<SavedSnapshot> {
    let mut saved = Snapshots::load(repository)?.complete()?;
    saved.retain(|saved| filter.matches(&saved.snapshot));
    let found = saved.len();
    let nth = found.checked_sub(back.saturating_add(1)).map(|place| saved.swap_remove(place));
    nth.ok_or_else(|| {
        let which = if *filter == SnapshotFilter::default() { "" } else { " of those hosts, tags and paths" };
        Error::Selection(match found {
            0 => format!("there is no snapshot{which} in {}", repository.location()),
            _ => format!("there are only {found} snapshots{which}: no `latest~{back}`"),
        })
    })
}

/// Finds every snapshot that `texts` name, each once and oldest first; without texts all that fit `filter`.
pub fn select_all(
    repository: &Repository,
    texts: &[String],
    filter: &SnapshotFilter,
    monitor: &Monitor,
) -> Result<Vec<SavedSnapshot>> {
    if texts.is_empty() {
        let mut saved = Snapshots::load(repository)?.readable(monitor);
        saved.retain(|saved| filter.matches(&saved.snapshot));
        return Ok(saved);
    }
    let mut found = BTreeMap::new();
    for text in texts {
        if text.contains(':') {
            return Err(Error::Selection(format!("{text:?}: a folder of a snapshot cannot be meant here")));
        }
        let saved = select(repository, text, filter)?.saved;
        found.insert((saved.snapshot.time, saved.id), saved);
    }
    Ok(found.into_values().collect())
}

/// Puts snapshots in groups, in the order of their keys; the order within a group stays.
pub fn group(snapshots: Vec<SavedSnapshot>, by: GroupBy) -> Vec<(GroupKey, Vec<SavedSnapshot>)> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for saved in snapshots {
        groups.entry(by.key(&saved.snapshot)).or_default().push(saved);
    }
    groups.into_iter().collect()
}

/// The names of a path, without what means nothing.
fn names(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// The tree of the folder at `path` below `root`; an empty path is the root itself.
pub(crate) fn folder_tree(repository: &Repository, root: &Id, path: &[u8]) -> Result<Id> {
    let mut tree = *root;
    for name in names(path) {
        let content = repository.load_tree(&tree)?;
        let missing = |what: &str| Error::Selection(format!("{}: {} {what}", display_path(path), display_path(name)));
        let node = content.nodes.iter().find(|node| node.name == name).ok_or_else(|| missing("is not there"))?;
        if node.kind != NodeKind::Dir {
            return Err(missing("is no folder"));
        }
        tree = node
            .subtree
            .ok_or_else(|| Error::damaged(format!("tree {tree}"), folder_without_tree(node.display_name())))?;
    }
    Ok(tree)
}

pub(crate) fn folder_without_tree(name: String) -> Damage {
    Damage::Content(format!("the folder {name:?} in it has no tree"))
}

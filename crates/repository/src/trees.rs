//! Going through the directories of snapshots: all there are, on many threads and each once; or one after the other
//! with their paths.

use std::sync::{Condvar, Mutex, PoisonError};
use std::vec::IntoIter;

use crate::format::BlobKind;
use crate::format::node::{Node, NodeKind};
use crate::format::tree::Tree;
use crate::repository::join;
use crate::snapshots::folder_without_tree;
use crate::{Error, Id, Index, Monitor, Repository, Result};

/// How many directories are read at once: for most stores it is waiting, not work.
const READERS: usize = 8;

/// Directories that wait to be visited.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Last in, first out: going deep first keeps it short.
    waiting: Vec<Id>,
    busy: usize,
    failure: Option<Error>,
}

/// Calls `visit` with every directory that is reached from `roots`, from several threads.
///
/// `visit` adds the directories to go on with to the list it is given; it answers for each being visited only once.
/// Its first error ends the visits and is returned.
pub(crate) fn visit_trees(
    roots: Vec<Id>,
    monitor: &Monitor,
    visit: &(dyn Fn(&Id, &mut Vec<Id>) -> Result<()> + Sync),
) -> Result<()> {
    let queue = Queue::default();
    lock(&queue.state).waiting = roots;
    let work = || {
        let mut found = Vec::new();
        while let Some(id) = queue.next() {
            let outcome = monitor.check().and_then(|()| visit(&id, &mut found));
            queue.done(&mut found, outcome);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| join(thread.join()));
    });
    queue.state.into_inner().unwrap_or_else(PoisonError::into_inner).failure.map_or(Ok(()), Err)
}

impl Queue {
    /// The next directory; none once all are done or one has failed.
    fn next(&self) -> Option<Id> {
        let mut state = lock(&self.state);
        loop {
            if state.failure.is_some() {
                return None;
            }
            if let Some(id) = state.waiting.pop() {
                state.busy += 1;
                return Some(id);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, found: &mut Vec<Id>, outcome: Result<()>) {
        let mut state = lock(&self.state);
        state.busy -= 1;
        state.waiting.append(found);
        if let Err(error) = outcome {
            state.failure.get_or_insert(error);
        }
        drop(state);
        self.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to do with a folder that was met on a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Go into it.
    Enter,
    /// Pass it over.
    Skip,
}

/// One step of a [`Walk`].
pub(crate) enum Step<'a> {
    /// An entry, in the order of the tree; a folder's own entries follow it if it is entered.
    Entry { path: &'a [u8], node: &'a Node },
    /// All entries of a folder were visited. The root is left, too.
    Leave { path: &'a [u8], tree: &'a Id },
    /// A folder that cannot be read; the walk goes on behind it.
    Unreadable { path: &'a [u8], error: Error },
}

struct Level {
    tree: Id,
    path_bytes: usize,
    nodes: IntoIter<Node>,
}

/// Goes through all below `root` depth first; `path` is the root's own, `/` or `/folder/…`.
///
/// Holds one directory for each level of depth.
pub(crate) fn walk(
    repository: &Repository,
    index: &Index,
    root: &Id,
    path: &[u8],
    monitor: &Monitor,
    visit: &mut dyn FnMut(Step<'_>) -> Result<Visit>,
) -> Result<()> {
    let mut path = path.strip_suffix(b"/").unwrap_or(path).to_vec();
    let mut levels = Vec::new();
    enter(repository, index, Some(*root), &path, &mut levels, visit)?;
    while let Some(level) = levels.last_mut() {
        monitor.check()?;
        path.truncate(level.path_bytes);
        let Some(node) = level.nodes.next() else {
            visit(Step::Leave { path: shown(&path), tree: &level.tree })?;
            levels.pop();
            continue;
        };
        path.push(b'/');
        path.extend_from_slice(&node.name);
        if visit(Step::Entry { path: &path, node: &node })? == Visit::Enter && node.kind == NodeKind::Dir {
            enter(repository, index, node.subtree, &path, &mut levels, visit)?;
        }
    }
    Ok(())
}

fn enter(
    repository: &Repository,
    index: &Index,
    tree: Option<Id>,
    path: &[u8],
    levels: &mut Vec<Level>,
    visit: &mut dyn FnMut(Step<'_>) -> Result<Visit>,
) -> Result<()> {
    let loaded = match tree {
        Some(id) => repository.load_blob_by(index, BlobKind::Tree, &id).and_then(|json| {
            let tree = Tree::parse(&json).map_err(|error| Error::damaged(format!("tree {id}"), error))?;
            Ok((id, tree))
        }),
        None => {
            let name = String::from_utf8_lossy(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default());
            Err(Error::damaged("a tree", folder_without_tree(name.into_owned())))
        }
    };
    match loaded {
        Ok((tree, Tree { nodes })) => levels.push(Level { tree, path_bytes: path.len(), nodes: nodes.into_iter() }),
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            visit(Step::Unreadable { path: shown(path), error })?;
        }
    }
    Ok(())
}

fn shown(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"/" } else { path }
}

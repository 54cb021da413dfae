//! Directories under way: each is written when the walk has left it and all its entries are known.

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use super::Run;
use crate::error::Damage;
use crate::format::BlobKind;
use crate::format::node::Node;
use crate::format::tree::TreeBuilder;
use crate::monitor::Counters;
use crate::pack_writer::Encoder;
use crate::source::display_path;
use crate::{Error, Id, Result};

/// A directory whose tree is being put together.
pub(super) struct Directory {
    /// Its own entry, to complete in the directory above; none for the snapshot's root.
    up: Option<(Arc<Directory>, u64, Node)>,
    path: Vec<u8>,
    /// Its tree in the parent snapshot.
    before: Option<Id>,
    state: Mutex<State>,
}

struct State {
    tree: TreeBuilder,
    /// Entries that cannot be written yet, since one before them is under way.
    waiting: VecDeque<Slot>,
    /// The number of the first of them.
    first: u64,
    /// The walk may still add entries.
    open: bool,
}

enum Slot {
    UnderWay,
    /// Known now; an entry that could not be read is left out.
    Known(Option<Box<Node>>),
}

pub(super) struct Directories<'a> {
    run: &'a Run<'a>,
    root: Mutex<Option<Id>>,
}

impl<'a> Directories<'a> {
    pub(super) fn new(run: &'a Run<'a>) -> Self {
        Self { run, root: Mutex::new(None) }
    }

    /// The snapshot's root tree, once all is done.
    pub(super) fn root(&self) -> Option<Id> {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a directory.
    pub(super) fn begin(
        &self,
        up: Option<(&Arc<Directory>, Node)>,
        path: Vec<u8>,
        before: Option<Id>,
    ) -> Arc<Directory> {
        let up = up.map(|(above, node)| {
            let slot = above.reserve();
            (Arc::clone(above), slot, node)
        });
        let state = State { tree: TreeBuilder::default(), waiting: VecDeque::new(), first: 0, open: true };
        Arc::new(Directory { up, path, before, state: Mutex::new(state) })
    }

    /// Tells what became of an entry, and writes every directory that this completes.
    pub(super) fn complete(
        &self,
        directory: &Arc<Directory>,
        slot: u64,
        node: Option<Node>,
        encoder: &mut Encoder,
    ) -> Result<()> {
        let tree = directory.set(slot, Slot::Known(node.map(Box::new)))?;
        self.write_completed(directory, tree, encoder)
    }

    /// The walk has left the directory.
    pub(super) fn leave(&self, directory: &Arc<Directory>, encoder: &mut Encoder) -> Result<()> {
        let tree = directory.close()?;
        self.write_completed(directory, tree, encoder)
    }

    fn write_completed(
        &self,
        directory: &Arc<Directory>,
        tree: Option<TreeBuilder>,
        encoder: &mut Encoder,
    ) -> Result<()> {
        let mut directory = Arc::clone(directory);
        let mut completed = tree;
        while let Some(tree) = completed {
            let (id, _) = self.run.writer.save(encoder, BlobKind::Tree, &tree.finish())?;
            let Some((above, slot, node)) = &directory.up else {
                *self.root.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
                return Ok(());
            };
            let counts = &self.run.counts;
            let (counter, action): (&AtomicU64, _) = match directory.before {
                None => (&counts.dirs_new, "new"),
                Some(before) if before == id => (&counts.dirs_unmodified, "unchanged"),
                Some(_) => (&counts.dirs_changed, "modified"),
            };
            Counters::add(counter, 1);
            Counters::add(&self.run.monitor.counters().dirs, 1);
            self.run.monitor.item(action, || format!("{}/", display_path(&directory.path)));
            completed = above.set(*slot, Slot::Known(Some(Box::new(Node { subtree: Some(id), ..node.clone() }))))?;
            directory = Arc::clone(above);
        }
        Ok(())
    }
}

impl Directory {
    /// A place for an entry; the order of the places is the order of the names.
    pub(super) fn reserve(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.push_back(Slot::UnderWay);
        state.first + state.waiting.len() as u64 - 1
    }

    fn set(&self, slot: u64, known: Slot) -> Result<Option<TreeBuilder>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let place = slot - state.first;
        if let Some(place) = state.waiting.get_mut(place as usize) {
            *place = known;
        }
        state.advance(&self.path)
    }

    fn close(&self) -> Result<Option<TreeBuilder>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open = false;
        state.advance(&self.path)
    }
}

impl State {
    /// Writes what can be written, and hands out the tree when that was all.
    fn advance(&mut self, path: &[u8]) -> Result<Option<TreeBuilder>> {
        while let Some(Slot::Known(node)) = self.waiting.front_mut() {
            if let Some(node) = node.take() {
                self.tree.push(&node).map_err(|error| {
                    Error::damaged(format!("the listing of {}", display_path(path)), Damage::Content(error.to_string()))
                })?;
            }
            self.waiting.pop_front();
            self.first += 1;
        }
        let complete = !self.open && self.waiting.is_empty();
        Ok(complete.then(|| std::mem::take(&mut self.tree)))
    }
}

//! What differs between two snapshots.

use std::iter::Peekable;
use std::vec::IntoIter;

use serde::Serialize;

use crate::format::BlobKind;
use crate::format::node::{Node, NodeKind};
use crate::index::Marks;
use crate::snapshots::Selected;
use crate::source::display_path;
use crate::{Id, Index, Monitor, Repository, Result};

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangedSide<'a> {
    /// Only in the first snapshot: it was removed.
    Before(&'a Node),
    /// Only in the second: it was added.
    After(&'a Node),
    /// In both, and not the same.
    Both(&'a Node, &'a Node),
}

/// An entry that differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// Where it is.
    pub side: ChangedSide<'a>,
    /// Its type differs.
    pub kind: bool,
    /// Its content differs.
    pub content: bool,
    /// Its content differs though nothing says that it was changed: the disk may have lost data.
    pub suspicious: bool,
    /// Only its metadata differ (told only where asked for).
    pub metadata: bool,
}

impl Change<'_> {
    /// restic's letters: `+`, `-`, or some of `T`, `M`, `?` and `U`.
    pub fn modifier(&self) -> String {
        match self.side {
            ChangedSide::Before(_) => return "-".into(),
            ChangedSide::After(_) => return "+".into(),
            ChangedSide::Both(..) => {}
        }
        let letters = [(self.kind, 'T'), (self.content, 'M'), (self.suspicious, '?'), (self.metadata, 'U')];
        letters.iter().filter(|(is_on, _)| *is_on).map(|(_, letter)| letter).collect()
    }
}

/// What only one side has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffStats {
    /// Files.
    pub files: u64,
    /// Folders.
    pub dirs: u64,
    /// Links, devices and so on.
    pub others: u64,
    /// Pieces of files.
    pub data_blobs: u64,
    /// Directories.
    pub tree_blobs: u64,
    /// Bytes of these pieces and directories before compression.
    pub bytes: u64,
}

impl DiffStats {
    fn add(&mut self, node: &Node) {
        match node.kind {
            NodeKind::File => self.files += 1,
            NodeKind::Dir => self.dirs += 1,
            _ => self.others += 1,
        }
    }
}

/// How two snapshots differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffReport {
    /// Files whose content differs.
    pub changed_files: u64,
    /// What only the second has.
    pub added: DiffStats,
    /// What only the first has.
    pub removed: DiffStats,
}

struct Level {
    path_bytes: usize,
    before: Peekable<IntoIter<Node>>,
    after: Peekable<IntoIter<Node>>,
}

struct Diff<'a> {
    repository: &'a Repository,
    index: &'a Index,
    monitor: &'a Monitor,
    before: Marks,
    after: Marks,
    report: DiffReport,
}

/// Calls `visit` with every entry that differs; with `metadata` also where only the metadata do.
pub fn diff(
    repository: &Repository,
    before: &Selected,
    after: &Selected,
    metadata: bool,
    monitor: &Monitor,
    visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
) -> Result<DiffReport> {
    let index = repository.index()?;
    let mut diff = Diff {
        repository,
        index: &index,
        monitor,
        before: Marks::default(),
        after: Marks::default(),
        report: DiffReport::default(),
    };
    diff.before.set(&index, BlobKind::Tree, &before.tree);
    diff.after.set(&index, BlobKind::Tree, &after.tree);
    if before.tree != after.tree {
        // The roots are what was asked for: without them there is nothing to compare.
        let roots = [before.tree, after.tree].map(|tree| repository.load_tree(&tree));
        let [before, after] = roots.map(|tree| tree.map(|tree| tree.nodes.into_iter().peekable()));
        diff.run(Level { path_bytes: 0, before: before?, after: after? }, metadata, visit)?;
    }
    diff.count_blobs();
    Ok(diff.report)
}

impl Diff<'_> {
    fn run(&mut self, root: Level, metadata: bool, visit: &mut dyn FnMut(Change<'_>) -> Result<()>) -> Result<()> {
        let mut path = Vec::new();
        let mut levels = vec![root];
        while let Some(level) = levels.last_mut() {
            self.monitor.check()?;
            path.truncate(level.path_bytes);
            // The next name of either side, and who has it.
            let order = match (level.before.peek(), level.after.peek()) {
                (Some(before), Some(after)) => before.name.cmp(&after.name),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (None, None) => {
                    levels.pop();
                    continue;
                }
            };
            let before = if order.is_le() { level.before.next() } else { None };
            let after = if order.is_ge() { level.after.next() } else { None };
            let Some(name) = before.as_ref().or(after.as_ref()).map(|node| &node.name) else { continue };
            path.push(b'/');
            path.extend_from_slice(name);
            self.entry(&path, before.as_ref(), after.as_ref(), metadata, visit)?;
            let dirs = [&before, &after].map(|node| node.as_ref().filter(|node| node.kind == NodeKind::Dir));
            let trees = dirs.map(|node| node.and_then(|node| node.subtree));
            match (before.is_some() && after.is_some(), trees) {
                (true, [Some(before), Some(after)]) if before == after => self.collect(&path, before)?,
                (true, [Some(_), Some(_)]) | (false, [Some(_), None] | [None, Some(_)]) => {
                    let [before, after] = trees.map(|tree| self.nodes(&path, tree));
                    levels.push(Level { path_bytes: path.len(), before, after });
                }
                // A folder that became something else, or the reverse, is told as one change.
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &[u8],
        before: Option<&Node>,
        after: Option<&Node>,
        metadata: bool,
        visit: &mut dyn FnMut(Change<'_>) -> Result<()>,
    ) -> Result<()> {
        before.into_iter().for_each(|node| mark(&self.before, self.index, node));
        after.into_iter().for_each(|node| mark(&self.after, self.index, node));
        let side = match (before, after) {
            (Some(before), Some(after)) => ChangedSide::Both(before, after),
            (Some(before), None) => ChangedSide::Before(before),
            (None, Some(after)) => ChangedSide::After(after),
            (None, None) => return Ok(()),
        };
        let mut change = Change { path, side, kind: false, content: false, suspicious: false, metadata: false };
        match side {
            ChangedSide::Before(node) => self.report.removed.add(node),
            ChangedSide::After(node) => self.report.added.add(node),
            ChangedSide::Both(before, after) => {
                change.kind = before.kind != after.kind;
                let are_files = before.kind == NodeKind::File && after.kind == NodeKind::File;
                if are_files && before.content != after.content {
                    change.content = true;
                    self.report.changed_files += 1;
                    change.suspicious =
                        Node { content: None, ..before.clone() } == Node { content: None, ..after.clone() };
                } else {
                    change.metadata = metadata && before != after;
                }
                if !(change.kind || change.content || change.metadata) {
                    return Ok(());
                }
            }
        }
        visit(change)
    }

    /// The entries of a directory; none, and an error told, if it cannot be read.
    fn nodes(&self, path: &[u8], tree: Option<Id>) -> Peekable<IntoIter<Node>> {
        let nodes = match tree.map(|tree| self.repository.load_tree(&tree)).transpose() {
            Ok(tree) => tree.map(|tree| tree.nodes).unwrap_or_default(),
            Err(error) => {
                self.monitor.failed(display_path(path), &error);
                Vec::new()
            }
        };
        nodes.into_iter().peekable()
    }

    /// Notes that both sides have everything below a directory.
    fn collect(&self, path: &[u8], tree: Id) -> Result<()> {
        let mut waiting = vec![tree];
        while let Some(tree) = waiting.pop() {
            self.monitor.check()?;
            for node in self.nodes(path, Some(tree)) {
                let is_new = |id: &Id| {
                    let seen = [&self.before, &self.after].map(|marks| marks.has(self.index, BlobKind::Tree, id));
                    seen != [true, true]
                };
                waiting.extend(node.subtree.filter(is_new));
                mark(&self.before, self.index, &node);
                mark(&self.after, self.index, &node);
            }
        }
        Ok(())
    }

    fn count_blobs(&mut self) {
        let (before, after, report) = (&self.before, &self.after, &mut self.report);
        // The two sets are of one index: what one has is looked up in the other by the same numbers.
        before.for_each_pair(after, self.index, &mut |blob, is_before, is_after| {
            let side = match (is_before, is_after) {
                (true, false) => &mut report.removed,
                (false, true) => &mut report.added,
                _ => return,
            };
            match blob.kind {
                BlobKind::Data => side.data_blobs += 1,
                BlobKind::Tree => side.tree_blobs += 1,
            }
            side.bytes += u64::from(blob.plain_length());
        });
    }
}

fn mark(marks: &Marks, index: &Index, node: &Node) {
    for id in node.content.iter().flatten() {
        marks.set(index, BlobKind::Data, id);
    }
    if let Some(id) = &node.subtree {
        marks.set(index, BlobKind::Tree, id);
    }
}

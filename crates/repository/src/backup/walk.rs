//! The walk: depth first through the source, in step with the parent snapshot.

use std::iter::Peekable;
use std::sync::Arc;
use std::vec::IntoIter;

use crossbeam_channel::Sender;

use super::dirs::{Directories, Directory};
use super::files::FileJob;
use super::{Run, has_all};
use crate::chunker::CHUNK_MIN;
use crate::format::node::{Node, NodeKind};
use crate::monitor::Counters;
use crate::pack_writer::Encoder;
use crate::source::{DirEntries, Entry, Found, SourceError, display_path};
use crate::{Error, Id, Result};

/// A directory of the parent snapshot, read in step with the source's.
struct Before(Peekable<IntoIter<Node>>);

impl Before {
    /// The node of that name. Names must be asked for in ascending order.
    fn find(&mut self, name: &[u8]) -> Option<Node> {
        while self.0.next_if(|node| node.name.as_slice() < name).is_some() {}
        self.0.next_if(|node| node.name == name)
    }
}

/// A directory that the walk is in.
struct Level {
    directory: Arc<Directory>,
    entries: DirEntries,
    before: Before,
}

struct Walk<'a> {
    run: &'a Run<'a>,
    directories: &'a Directories<'a>,
    small: Sender<FileJob>,
    large: Sender<FileJob>,
    encoder: Encoder,
}

/// Walks through everything; returns when the last file was handed on.
pub(super) fn walk<'a>(
    run: &'a Run<'a>,
    directories: &'a Directories<'a>,
    small: Sender<FileJob>,
    large: Sender<FileJob>,
    parent_tree: Option<Id>,
) -> Result<()> {
    let mut walk = Walk { run, directories, small, large, encoder: run.writer.encoder()? };
    let before = walk.before(parent_tree);
    let entries = run.source.root()?;
    let mut levels = vec![Level { directory: directories.begin(None, Vec::new(), parent_tree), entries, before }];
    while let Some(level) = levels.last_mut() {
        run.monitor.check()?;
        run.lock.check()?;
        run.failure.check()?;
        match level.entries.next() {
            Some(Ok(Found::Entry(entry))) => {
                if let Some(deeper) = walk.visit(level, entry)? {
                    levels.push(deeper);
                }
            }
            Some(Ok(Found::Note(note))) => run.monitor.note(display_path(&note.path), note.to_string()),
            Some(Err(error)) => run.unreadable(&error),
            None => {
                directories.leave(&level.directory, &mut walk.encoder)?;
                levels.pop();
            }
        }
    }
    Ok(())
}

impl Walk<'_> {
    fn visit(&mut self, level: &mut Level, entry: Entry) -> Result<Option<Level>> {
        let before = level.before.find(&entry.node.name);
        match entry.node.kind {
            NodeKind::Dir => return Ok(self.enter(level, entry, before)),
            NodeKind::File => self.file(level, entry, before)?,
            _ => {
                let slot = level.directory.reserve();
                let is_same = before.as_ref().is_some_and(|before| same_entry(before, &entry.node));
                self.found(Change::of(before.as_ref(), is_same), &entry);
                self.directories.complete(&level.directory, slot, Some(entry.node), &mut self.encoder)?;
            }
        }
        Ok(None)
    }

    fn enter(&mut self, level: &Level, entry: Entry, before: Option<Node>) -> Option<Level> {
        let before_tree = before.filter(|before| before.kind == NodeKind::Dir).and_then(|before| before.subtree);
        match self.run.source.read_dir(&entry) {
            Ok(entries) => {
                let before = self.before(before_tree);
                let directory = self.directories.begin(Some((&level.directory, entry.node)), entry.path, before_tree);
                Some(Level { directory, entries, before })
            }
            Err(error) => {
                self.run.unreadable(&error);
                None
            }
        }
    }

    fn file(&mut self, level: &Level, entry: Entry, before: Option<Node>) -> Result<()> {
        let slot = level.directory.reserve();
        let options = self.run.options;
        let unchanged = before.as_ref().filter(|before| {
            let node = &entry.node;
            before.kind == NodeKind::File
                && before.size == node.size
                && before.mtime == node.mtime
                && (options.ignore_ctime || before.ctime == node.ctime)
                && (options.ignore_inode || before.inode == node.inode)
        });
        if let Some(content) = unchanged.and_then(|before| before.content.as_ref()) {
            if has_all(self.run.index, content) {
                self.found(Change::None, &entry);
                let content = Some(content.clone());
                let node = Node { content, ..entry.node };
                return self.directories.complete(&level.directory, slot, Some(node), &mut self.encoder);
            }
            self.run.monitor.note(display_path(&entry.path), "parts of it are missing in the repository: read again");
        }
        let change = Change::of(before.as_ref(), false);
        let queue = if entry.node.size < CHUNK_MIN as u64 { &self.small } else { &self.large };
        let job = FileJob { directory: Arc::clone(&level.directory), slot, change, entry };
        // Nobody takes jobs any more: somebody has failed and said why.
        queue.send(job).map_err(|_| Error::Interrupted)
    }

    /// Counts an entry that need not be read.
    fn found(&self, change: Change, entry: &Entry) {
        self.run.count(change, entry.node.kind, entry.node.size, &entry.path);
        Counters::add(&self.run.monitor.counters().bytes, entry.node.size);
    }

    /// A tree of the parent snapshot; one that cannot be read only makes its files be read again.
    fn before(&self, tree: Option<Id>) -> Before {
        let nodes = tree.and_then(|id| match self.run.repository.load_tree(&id) {
            Ok(tree) => Some(tree.nodes),
            Err(error) => {
                self.run.monitor.failed(format!("tree {} of the parent snapshot", id.short()), &error);
                None
            }
        });
        Before(nodes.unwrap_or_default().into_iter().peekable())
    }
}

/// How an entry compares with that of the parent snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change {
    New,
    Changed,
    None,
}

impl Change {
    fn of(before: Option<&Node>, is_same: bool) -> Self {
        match before {
            None => Self::New,
            Some(_) if is_same => Self::None,
            Some(_) => Self::Changed,
        }
    }
}

fn same_entry(before: &Node, now: &Node) -> bool {
    before.kind == now.kind && before.mtime == now.mtime && before.ctime == now.ctime && before.inode == now.inode
}

impl Run<'_> {
    /// Counts what is in the snapshot: a file only once it was read to its end.
    pub(super) fn count(&self, change: Change, kind: NodeKind, bytes: u64, path: &[u8]) {
        let (counter, action) = match change {
            Change::New => (&self.counts.files_new, "new"),
            Change::Changed => (&self.counts.files_changed, "modified"),
            Change::None => (&self.counts.files_unmodified, "unchanged"),
        };
        if kind == NodeKind::File {
            Counters::add(counter, 1);
            Counters::add(&self.counts.files, 1);
        }
        Counters::add(&self.counts.bytes, bytes);
        Counters::add(&self.monitor.counters().files, 1);
        self.monitor.item(action, || display_path(path));
    }

    /// Something could not be read: the backup goes on without it.
    pub(super) fn unreadable(&self, error: &SourceError) {
        Counters::add(&self.counts.errors, 1);
        self.monitor.error(display_path(&error.path), error);
    }
}

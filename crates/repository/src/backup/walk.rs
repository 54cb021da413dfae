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
                self.count_file(
                    before.as_ref(),
                    before.as_ref().is_some_and(|before| same_entry(before, &entry.node)),
                    &entry,
                );
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
                self.count_file(before.as_ref(), true, &entry);
                let content = Some(content.clone());
                let node = Node { content, ..entry.node };
                return self.directories.complete(&level.directory, slot, Some(node), &mut self.encoder);
            }
            self.run.monitor.note(display_path(&entry.path), "parts of it are missing in the repository: read again");
        }
        self.count_file(before.as_ref(), false, &entry);
        let queue = if entry.node.size < CHUNK_MIN as u64 { &self.small } else { &self.large };
        let job = FileJob { directory: Arc::clone(&level.directory), slot, entry };
        // Nobody takes jobs any more: somebody has failed and said why.
        queue.send(job).map_err(|_| Error::Interrupted)
    }

    fn count_file(&self, before: Option<&Node>, unchanged: bool, entry: &Entry) {
        let counts = &self.run.counts;
        let (counter, action) = match before {
            None => (&counts.files_new, "new"),
            Some(_) if unchanged => (&counts.files_unmodified, "unchanged"),
            Some(_) => (&counts.files_changed, "modified"),
        };
        if entry.node.kind == NodeKind::File {
            Counters::add(counter, 1);
            Counters::add(&counts.files, 1);
        }
        if unchanged || entry.node.kind != NodeKind::File {
            Counters::add(&counts.bytes, entry.node.size);
            Counters::add(&self.run.monitor.counters().files, 1);
            Counters::add(&self.run.monitor.counters().bytes, entry.node.size);
        }
        self.run.monitor.item(action, || display_path(&entry.path));
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

fn same_entry(before: &Node, now: &Node) -> bool {
    before.kind == now.kind && before.mtime == now.mtime && before.ctime == now.ctime && before.inode == now.inode
}

impl Run<'_> {
    /// Something could not be read: the backup goes on without it.
    pub(super) fn unreadable(&self, error: &SourceError) {
        Counters::add(&self.counts.errors, 1);
        self.monitor.error(display_path(&error.path), error);
    }
}

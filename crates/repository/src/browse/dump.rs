//! The content of one file, or of a folder as a tar archive.

use std::io::Write;

use super::plain_path;
use super::tar::TarWriter;
use crate::format::BlobKind;
use crate::format::node::{Node, NodeKind};
use crate::monitor::Counters;
use crate::snapshots::{Selected, folder_tree};
use crate::source::display_path;
use crate::trees::{Step, Visit, walk};
use crate::{Error, Index, Monitor, Repository, Result};

/// Writes the file at `path` of a snapshot, or the folder there as a tar archive whose names are relative to the
/// snapshot's root (or the folder that was selected).
///
/// In an archive, a folder that cannot be read is reported and left out; a file that cannot be read to its end ends
/// the dump with an error, since the archive could not go on.
pub fn dump(
    repository: &Repository,
    snapshot: &Selected,
    path: &[u8],
    out: &mut dyn Write,
    monitor: &Monitor,
) -> Result<()> {
    let path = plain_path(path);
    let index = repository.index()?;
    let dump = Dump { repository, index: &index, monitor };
    let at = path.iter().rposition(|&byte| byte == b'/').unwrap_or_default();
    let (folder, name) = (&path[..at], &path[at + 1..]);
    let tree = folder_tree(repository, &snapshot.tree, folder)?;
    if name.is_empty() {
        let mut tar = TarWriter::new(out);
        dump.folder(&mut tar, &tree, b"/")?;
        return tar.finish().map_err(write_error);
    }
    let tree = repository.load_tree(&tree)?;
    let missing =
        || Error::Selection(format!("{} is not in snapshot {}", display_path(&path), snapshot.saved.id.short()));
    let node = tree.nodes.iter().find(|node| node.name == name).ok_or_else(missing)?;
    match (node.kind, node.subtree) {
        (NodeKind::File, _) => {
            dump.content(node, &path, out)?;
            out.flush().map_err(write_error)
        }
        (NodeKind::Dir, Some(subtree)) => {
            let mut tar = TarWriter::new(out);
            tar.entry(&path, node, 0).map_err(write_error)?;
            dump.folder(&mut tar, &subtree, &path)?;
            tar.finish().map_err(write_error)
        }
        _ => Err(Error::Selection(format!(
            "{} is a {}: only files and folders can be dumped",
            display_path(&path),
            node.kind
        ))),
    }
}

fn write_error(source: std::io::Error) -> Error {
    Error::Io { operation: "write", path: "the output".into(), source }
}

struct Dump<'a> {
    repository: &'a Repository,
    index: &'a Index,
    monitor: &'a Monitor,
}

impl Dump<'_> {
    fn content(&self, node: &Node, path: &[u8], out: &mut dyn Write) -> Result<()> {
        for id in node.content.iter().flatten() {
            self.monitor.check()?;
            let blob = self.repository.load_blob_by(self.index, BlobKind::Data, id)?;
            out.write_all(&blob).map_err(write_error)?;
            Counters::add(&self.monitor.counters().bytes, blob.len() as u64);
        }
        Counters::add(&self.monitor.counters().files, 1);
        self.monitor.item("dumped", || display_path(path));
        Ok(())
    }

    fn folder(&self, tar: &mut TarWriter<'_>, tree: &crate::Id, path: &[u8]) -> Result<()> {
        walk(self.repository, self.index, tree, path, self.monitor, &mut |step| {
            match step {
                Step::Entry { path, node } => self.entry(tar, path, node)?,
                Step::Unreadable { path, error } => self.monitor.failed(display_path(path), &error),
                Step::Leave { .. } => {}
            }
            Ok(Visit::Enter)
        })
    }

    fn entry(&self, tar: &mut TarWriter<'_>, path: &[u8], node: &Node) -> Result<()> {
        match node.kind {
            NodeKind::Socket | NodeKind::Irregular | NodeKind::Unknown => {
                self.monitor.note(display_path(path), format!("left out: no archive can hold a {}", node.kind));
                return Ok(());
            }
            _ => {}
        }
        // The archive needs the size first: that of the content there is, whatever the listing says.
        let mut size_bytes = 0;
        for id in node.content.iter().flatten() {
            match self.index.find(BlobKind::Data, id) {
                Some(place) => size_bytes += u64::from(place.plain_length()),
                None => {
                    self.monitor
                        .failed(display_path(path), &Error::MissingBlob { kind: BlobKind::Data.noun(), id: *id });
                    return Ok(());
                }
            }
        }
        tar.entry(path, node, size_bytes).map_err(write_error)?;
        if node.kind == NodeKind::File {
            self.content(node, path, tar)?;
            tar.pad().map_err(write_error)?;
        }
        Ok(())
    }
}

//! The entries of one directory, one after the other.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use holdfast_repository::format::node::{Node, NodeKind};
use holdfast_repository::source::{Entry, Found, Note, NoteKind, SourceError, SourceErrorKind};
use rustix::fs::{AtFlags, CWD, Stat, readlinkat, statat};

use crate::directory::{Directory, Names};
use crate::file_tree::{Inner, Overlay};
use crate::metadata::{AttributeHolder, extended_attributes, virtual_directory};

/// A directory of the snapshot: what it is on disk, and what else is laid over it. The handle behind
/// [`Entry::parent`].
#[derive(Debug)]
pub(crate) struct Folder {
    /// In the snapshot, or on disk where its roots are named so; empty for `/`.
    pub(crate) path: Vec<u8>,
    /// On disk; none for a directory that leads to roots only.
    pub(crate) directory: Option<Arc<Directory>>,
    /// Roots at or below this directory.
    pub(crate) overlay: Option<Arc<Overlay>>,
    /// The device of the root that this directory belongs to.
    pub(crate) root_device: u64,
}

impl Folder {
    /// The path of an entry.
    pub(crate) fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    pub(crate) fn overlaid(&self, name: &[u8]) -> Option<&Arc<Overlay>> {
        self.overlay.as_ref()?.children.get(name)
    }
}

/// Iterates over the entries of a folder; each is looked at only when it is its turn.
#[derive(Debug)]
pub(crate) struct Listing {
    tree: Arc<Inner>,
    folder: Arc<Folder>,
    names: Names,
    position: usize,
    /// What is to come before the next name.
    pending: Vec<Result<Found, SourceError>>,
    /// When tag files exclude the directory: the names that are left.
    only: Option<Vec<Vec<u8>>>,
}

impl Listing {
    pub(crate) fn new(tree: Arc<Inner>, folder: Arc<Folder>) -> io::Result<Self> {
        let mut names = match &folder.directory {
            Some(directory) => directory.names()?,
            None => Names::default(),
        };
        let mut listing = Self { tree, folder, names: Names::default(), position: 0, pending: Vec::new(), only: None };
        listing.read_tag_files(&names);
        if let Some(overlay) = &listing.folder.overlay {
            overlay.add_names(&mut names);
        }
        listing.names = names;
        Ok(listing)
    }

    /// Finds out which tag files exclude this directory.
    fn read_tag_files(&mut self, names: &Names) {
        let Some(directory) = &self.folder.directory else { return };
        for tag in &self.tree.excludes.tag_files {
            if !names.contains(&tag.name) {
                continue;
            }
            match directory.fd().and_then(|fd| tag.has_header(fd.as_fd())) {
                Ok(true) => match &mut self.only {
                    // Several marks: each excludes the others, but not itself.
                    Some(only) => only.retain(|name| *name == tag.name),
                    None => self.only = Some(vec![tag.name.clone()]),
                },
                Ok(false) => {
                    let note = Note { path: self.folder.join(&tag.name), kind: NoteKind::TagFileWithoutHeader };
                    self.pending.push(Ok(Found::Note(note)));
                }
                Err(error) => self.pending.push(Err(SourceError::new("read", self.folder.join(&tag.name), error))),
            }
        }
    }

    /// Looks at one name; `Ok(None)` when it is left out.
    fn look(&mut self, name: &CStr) -> Result<Option<Found>, SourceError> {
        let folder = self.folder.clone();
        let bytes = name.to_bytes();
        let path = folder.join(bytes);
        if let Some(overlay) = folder.overlaid(bytes) {
            let path = overlay.way.as_ref().map_or(path, |way| way.as_os_str().as_bytes().to_vec());
            return self.look_at_overlay(&folder, overlay, bytes, path);
        }
        let is_left = self.only.as_ref().is_none_or(|only| only.iter().any(|left| left == bytes));
        if !is_left || self.tree.excludes.patterns.iter().any(|list| list.is_match(&path)) {
            return Ok(None);
        }
        let Some(directory) = &folder.directory else { return Ok(None) };
        let result = directory.fd().and_then(|fd| {
            let stat = statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if self.is_left_out(directory, &stat) {
                return Ok(None);
            }
            let mut node = self.tree.reader.node(bytes, &stat);
            if node.kind == NodeKind::Symlink {
                node.link_target = readlinkat(&*fd, name, Vec::new())?.into_bytes();
            }
            Ok(Some((node, fd)))
        });
        match result {
            Ok(None) => Ok(None),
            Ok(Some((node, fd))) => self.found(node, path, &AttributeHolder::Entry(fd.as_fd(), name)),
            Err(error) => Err(SourceError::new("read metadata of", path, error)),
        }
    }

    fn is_left_out(&self, directory: &Directory, stat: &Stat) -> bool {
        let excludes = &self.tree.excludes;
        let is_dir = crate::metadata::kind(stat) == NodeKind::Dir;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let is_too_large = !is_dir && excludes.larger_than_bytes.is_some_and(|limit| size > limit);
        let is_elsewhere = excludes.other_file_systems && stat.st_dev != self.folder.root_device;
        // A directory on another file system is kept when the one it is in is not: it is the mount point.
        let is_mount_point = is_dir && directory.device() == self.folder.root_device;
        is_too_large || is_elsewhere && !is_mount_point
    }

    /// A root, or a directory that leads to one. Neither is ever excluded.
    fn look_at_overlay(
        &mut self,
        folder: &Folder,
        overlay: &Overlay,
        name: &[u8],
        path: Vec<u8>,
    ) -> Result<Option<Found>, SourceError> {
        let failed = |error: rustix::io::Errno| SourceError::new("read metadata of", path.clone(), error.into());
        if let Some(real) = &overlay.real {
            let stat = statat(CWD, real.as_path(), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let mut node = self.tree.reader.node(name, &stat);
            if node.kind == NodeKind::Symlink {
                node.link_target = readlinkat(CWD, real.as_path(), Vec::new()).map_err(failed)?.into_bytes();
            }
            return self.found(node, path, &AttributeHolder::Path(real));
        }
        if let Some(directory) = &folder.directory {
            // Inside a root, on the way to another one that lies over it; it may be there on disk, too.
            let fd = directory.fd().map_err(|error| SourceError::new("open", path.clone(), error))?;
            if let Ok(stat) = statat(&*fd, name, AtFlags::SYMLINK_NOFOLLOW)
                && crate::metadata::kind(&stat) == NodeKind::Dir
            {
                let node = self.tree.reader.node(name, &stat);
                let c_name = CString::new(name).unwrap_or_default();
                return self.found(node, path, &AttributeHolder::Entry(fd.as_fd(), &c_name));
            }
        } else if let Some(real) = &overlay.way {
            // The way to a root that is kept under its own path: links on it are followed, as they were when the
            // root was named.
            let stat = statat(CWD, real.as_path(), AtFlags::empty()).map_err(failed)?;
            let node = self.tree.reader.node(name, &stat);
            return self.found(node, path, &AttributeHolder::Followed(real));
        }
        Ok(Some(Found::Entry(Entry { node: virtual_directory(name), path, parent: self.folder.clone() })))
    }

    fn found(
        &mut self,
        mut node: Node,
        path: Vec<u8>,
        holder: &AttributeHolder<'_>,
    ) -> Result<Option<Found>, SourceError> {
        if node.kind == NodeKind::Socket {
            return Ok(Some(Found::Note(Note { path, kind: NoteKind::Socket })));
        }
        let (attributes, error) = extended_attributes(holder);
        node.extended_attributes = attributes;
        let found = Found::Entry(Entry { node, path: path.clone(), parent: self.folder.clone() });
        let Some(error) = error else { return Ok(Some(found)) };
        let error = SourceError::new("read extended attributes of", path, error);
        if error.kind != SourceErrorKind::Vanished {
            // The error first, then what could be read.
            self.pending.push(Ok(found));
        }
        Err(error)
    }
}

impl Iterator for Listing {
    type Item = Result<Found, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(pending) = self.pending.pop() {
                return Some(pending);
            }
            // A copy, so that the names stay free to be borrowed.
            let name = self.names.get(self.position)?.to_owned();
            self.position += 1;
            if let Some(found) = self.look(&name).transpose() {
                return Some(found);
            }
        }
    }
}

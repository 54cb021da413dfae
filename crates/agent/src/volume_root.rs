//! The folder that a recovery restores into, itself: who owns it and who may enter it is part of the data.
//! A database refuses to start in a directory that others may read.

use std::fs::File;
use std::path::Path;

use holdfast_repository::format::node::{ExtendedAttribute, Node, mode};
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::snapshots::{Selected, select};
use holdfast_repository::{Repository, Result};
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// The entry of a selected folder in the folder above it; none for the root of a snapshot, which has no entry.
pub(crate) fn entry(repository: &Repository, selected: &Selected, path: &str) -> Result<Option<Node>> {
    let (Some(parent), Some(name)) = (Path::new(path).parent(), Path::new(path).file_name()) else { return Ok(None) };
    let above = format!("{}:{}", selected.saved.id, parent.display());
    let above = select(repository, &above, &SnapshotFilter::default())?;
    let nodes = repository.load_tree(&above.tree)?.nodes;
    Ok(nodes.into_iter().find(|node| node.name == name.as_encoded_bytes()))
}

/// Gives a folder the owner, permissions, attributes and times of `node`.
pub(crate) fn apply(node: &Node, folder: &Path) -> std::io::Result<()> {
    let folder = File::open(folder)?;
    let may_not = |error: Errno| match error {
        // Only root may give files away and set what the system guards: others' files belong to whoever restores.
        Errno::PERM | Errno::INVAL | Errno::NOTSUP if !rustix::process::geteuid().is_root() => Ok(()),
        // Not every file system keeps attributes.
        Errno::NOTSUP => Ok(()),
        error => Err(error),
    };
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::fchown(&folder, Some(uid), Some(gid)).or_else(may_not)?;
    rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode::to_unix(node.mode)))?;
    for ExtendedAttribute { name, value } in &node.extended_attributes {
        let value = value.as_deref().unwrap_or_default();
        rustix::fs::fsetxattr(&folder, name.as_slice(), value, XattrFlags::empty()).or_else(may_not)?;
    }
    let time = |time: holdfast_repository::format::time::Timestamp| Timespec {
        tv_sec: time.seconds(),
        tv_nsec: time.nanoseconds().into(),
    };
    let times = Timestamps { last_access: time(node.atime), last_modification: time(node.mtime) };
    Ok(rustix::fs::futimens(&folder, &times)?)
}

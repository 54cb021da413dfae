//! A tree of files on disk, as a backup source.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use holdfast_repository::format::node::NodeKind;
use holdfast_repository::source::{DirEntries, Entry, OpenFile, Source, SourceError, SourceErrorKind, display_path};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::directory::{Directory, DirectoryPool, Names};
use crate::exclude::Excludes;
use crate::listing::{Folder, Listing};
use crate::metadata::{AttributeHolder, NodeReader, extended_attributes, is_unchanged, kind};

/// A directory, file or link to back up, and where it stands in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// In the tree of the snapshot: absolute, without `.`, `..` and double or trailing slashes.
    path: Vec<u8>,
    real: PathBuf,
    /// Whether `path` is that of a container, where one root may be mounted over a part of another.
    is_mapped: bool,
}

impl Root {
    /// A root that has the same path in the snapshot as on disk; `None` unless `real` is absolute. The snapshot holds the
    /// metadata of the directories above it.
    pub fn at(real: &Path) -> Option<Self> {
        let plain = real.is_absolute().then(|| plain(real))?;
        Some(Self { path: plain.as_os_str().as_bytes().to_vec(), real: plain, is_mapped: false })
    }

    /// A root that was named relative to `folder`, which is absolute. As restic does, the snapshot's tree begins at the
    /// first name that is not `..`, and holds the metadata of what was named on the way; its list of paths, messages and
    /// patterns have the whole path on disk.
    pub fn relative(path: &Path, folder: &Path) -> Option<Self> {
        let real = Self::at(&folder.join(path))?.real;
        let path = plain(&Path::new("/").join(path));
        Some(Self { path: path.as_os_str().as_bytes().to_vec(), real, is_mapped: false })
    }

    /// A root whose path in the snapshot, which is absolute and plain, may be another one than on disk. Then the directories
    /// above it are made up: owned by root, mode 0755, times of 1970.
    pub fn mapped(path: Vec<u8>, real: PathBuf) -> Self {
        Self { path, real, is_mapped: true }
    }

    /// How the snapshot's list of paths has it.
    pub fn name(&self) -> &[u8] {
        if self.is_mapped { &self.path } else { self.real.as_os_str().as_bytes() }
    }

    /// Where on disk the first `depth` names of its path are.
    fn way(&self, names: &[&[u8]], depth: usize) -> Option<PathBuf> {
        let is_on_disk = !self.is_mapped || self.path == self.real.as_os_str().as_bytes();
        is_on_disk.then(|| self.real.ancestors().nth(names.len() - depth).map(Path::to_path_buf)).flatten()
    }
}

/// An absolute path without `.` and `..`, which is taken literally, as shells do: it takes back the name before, link or
/// not.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => {
                plain.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// What a [`FileTree`] reads, and how.
#[derive(Debug, Clone, Default)]
pub struct FileTreeOptions {
    /// At least one. A root below another one lies over what is on disk there, as a mount does.
    pub roots: Vec<Root>,
    /// What is left out.
    pub excludes: Excludes,
    /// Record access times. Off by default: every reading would make a new tree.
    pub with_atime: bool,
}

/// A file tree that cannot be backed up at all.
#[derive(Debug, thiserror::Error)]
pub enum FileTreeError {
    /// There are no roots.
    #[error("nothing to back up: no paths given")]
    NoRoots,
    /// A root's path in the snapshot is not usable.
    #[error("{} is not an absolute, plain path", display_path(.0))]
    BadPath(Vec<u8>),
    /// Two roots share a path in the snapshot.
    #[error("two sources for {}: {first} and {second}", display_path(.path))]
    Twice {
        /// The path in the snapshot.
        path: Vec<u8>,
        /// One path on disk.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// Not a single root can be found.
    #[error("nothing to back up: cannot find {}", .path.display())]
    NothingThere {
        /// The first root on disk.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A tree of files on disk.
#[derive(Debug, Clone)]
pub struct FileTree {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    paths: Vec<Vec<u8>>,
    overlay: Arc<Overlay>,
    pub(crate) excludes: Excludes,
    pub(crate) reader: NodeReader,
    pool: Arc<DirectoryPool>,
}

/// The roots, as a tree of their paths in the snapshot.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// There is a root here, and this is where it is on disk.
    pub(crate) real: Option<PathBuf>,
    /// This is a root of the disk, or on the way to one: its path there.
    pub(crate) way: Option<PathBuf>,
    pub(crate) children: BTreeMap<Vec<u8>, Arc<Overlay>>,
}

impl Overlay {
    /// Adds what a listing on disk may not have.
    pub(crate) fn add_names(&self, names: &mut Names) {
        for name in self.children.keys().filter_map(|name| CString::new(name.as_slice()).ok()) {
            names.push(&name);
        }
        names.sort();
    }

    fn insert(&mut self, root: &Root, names: &[&[u8]], depth: usize) -> Result<(), FileTreeError> {
        let way = root.way(names, depth);
        let twice = |first: &Path, second: &Path| {
            let path = [&b"/"[..], &names[..depth].join(&b'/')].concat();
            Err(FileTreeError::Twice { path, first: first.into(), second: second.into() })
        };
        let Some(name) = names.get(depth) else {
            // What is named relative to another folder must not hide a part of this one.
            let is_hidden = !root.is_mapped && !self.children.is_empty();
            let other = self.real.as_ref().or(self.way.as_ref().filter(|_| is_hidden));
            if let Some(other) = other.filter(|other| **other != root.real) {
                return twice(other, &root.real);
            }
            (self.real, self.way) = (Some(root.real.clone()), way);
            return Ok(());
        };
        if let (Some(real), Some(way), false) = (&self.real, &way, root.is_mapped)
            && real != way
        {
            return twice(real, way);
        }
        self.way = self.way.take().or(way);
        let child = self.children.entry(name.to_vec()).or_default();
        match Arc::get_mut(child) {
            Some(child) => child.insert(root, names, depth + 1),
            None => Ok(()),
        }
    }
}

impl FileTree {
    /// Prepares reading. Nothing is read but whether the roots are there: that one is missing shows when it is listed,
    /// that all are missing is an error here.
    pub fn new(options: FileTreeOptions) -> Result<Self, FileTreeError> {
        let FileTreeOptions { roots, excludes, with_atime } = options;
        let mut overlay = Overlay::default();
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for root in &roots {
            overlay.insert(root, &components(&root.path)?, 0)?;
            if !paths.iter().any(|path| path == root.name()) {
                paths.push(root.name().to_vec());
            }
        }
        let mut missing = None;
        for root in &roots {
            match statat(CWD, root.real.as_path(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => {
                    let reader = NodeReader::new(with_atime);
                    let overlay = Arc::new(overlay);
                    let inner = Inner { paths, overlay, excludes, reader, pool: Arc::default() };
                    return Ok(Self { inner: Arc::new(inner) });
                }
                Err(error) => {
                    missing
                        .get_or_insert(FileTreeError::NothingThere { path: root.real.clone(), source: error.into() });
                }
            }
        }
        Err(missing.unwrap_or(FileTreeError::NoRoots))
    }

    fn list(&self, folder: Folder) -> Result<DirEntries, SourceError> {
        let path = if folder.path.is_empty() { b"/".to_vec() } else { folder.path.clone() };
        match Listing::new(self.inner.clone(), Arc::new(folder)) {
            Ok(listing) => Ok(Box::new(listing)),
            Err(error) => Err(SourceError::new("list", path, error)),
        }
    }
}

/// The names of a path in the snapshot.
pub(crate) fn components(path: &[u8]) -> Result<Vec<&[u8]>, FileTreeError> {
    let bad = || FileTreeError::BadPath(path.to_vec());
    let names = path.strip_prefix(b"/").ok_or_else(bad)?;
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names: Vec<_> = names.split(|&byte| byte == b'/').collect();
    let is_bad = |name: &&[u8]| matches!(*name, b"" | b"." | b"..") || name.contains(&0);
    if names.iter().any(is_bad) { Err(bad()) } else { Ok(names) }
}

impl Source for FileTree {
    fn paths(&self) -> Vec<Vec<u8>> {
        self.inner.paths.clone()
    }

    fn root(&self) -> Result<DirEntries, SourceError> {
        let overlay = self.inner.overlay.clone();
        let directory = match &overlay.real {
            Some(real) => {
                let open = Directory::open_path(real.clone(), &self.inner.pool);
                Some(open.map_err(|error| SourceError::new("open", b"/", error))?)
            }
            None => None,
        };
        let root_device = directory.as_ref().map_or(0, |directory| directory.device());
        let path = overlay.way.as_ref().map(|way| way.as_os_str().as_bytes().to_vec());
        let path = path.filter(|path| path != b"/").unwrap_or_default();
        self.list(Folder { path, directory, overlay: Some(overlay), root_device })
    }

    fn read_dir(&self, dir: &Entry) -> Result<DirEntries, SourceError> {
        let (folder, name) = parent_of(dir)?;
        let failed = |error| SourceError::new("open", dir.path.clone(), error);
        let overlay = folder.overlaid(name).cloned();
        let mut root_device = folder.root_device;
        let directory = match (overlay.as_deref(), &folder.directory) {
            (Some(Overlay { real: Some(real), .. }), _) => {
                let directory = Directory::open_path(real.clone(), &self.inner.pool).map_err(failed)?;
                root_device = directory.device();
                Some(directory)
            }
            (overlay, Some(parent)) => match parent.open_child(name) {
                Ok(directory) => Some(directory),
                // On the way to another root, and not there on disk.
                Err(error) if overlay.is_some() && SourceErrorKind::of(&error) == SourceErrorKind::Vanished => None,
                Err(error) => return Err(failed(error)),
            },
            (_, None) => None,
        };
        self.list(Folder { path: dir.path.clone(), directory, overlay, root_device })
    }

    fn open(&self, file: &Entry) -> Result<OpenFile, SourceError> {
        let (folder, name) = parent_of(file)?;
        let failed = |error| SourceError::new("open", file.path.clone(), error);
        let fd = match (folder.overlaid(name).map(Arc::as_ref), &folder.directory) {
            (Some(Overlay { real: Some(real), .. }), _) => open_file(CWD, real.as_os_str().as_bytes()),
            (_, Some(directory)) => directory.fd().and_then(|fd| open_file(fd.as_fd(), name)),
            (_, None) => Err(io::ErrorKind::NotFound.into()),
        }
        .map_err(failed)?;
        let stat = fstat(&fd).map_err(|error| failed(error.into()))?;
        if kind(&stat) != NodeKind::File {
            let error = io::Error::other(format!("it is no longer a regular file but a {}", kind(&stat)));
            return Err(SourceError::of_kind(SourceErrorKind::Vanished, "open", file.path.clone(), error));
        }
        let mut node = if is_unchanged(&file.node, &stat) {
            file.node.clone()
        } else {
            let mut node = self.inner.reader.node(&file.node.name, &stat);
            let (attributes, error) = extended_attributes(&AttributeHolder::Opened(fd.as_fd()));
            if let Some(error) = error {
                return Err(SourceError::new("read extended attributes of", file.path.clone(), error));
            }
            node.extended_attributes = attributes;
            node
        };
        node.content = Some(Vec::new());
        Ok(OpenFile { node, content: Box::new(File::from(fd)) })
    }
}

/// The folder that an entry was listed in, and the entry's name there.
fn parent_of(entry: &Entry) -> Result<(&Folder, &[u8]), SourceError> {
    match entry.parent.downcast_ref::<Folder>() {
        Some(folder) => Ok((folder, &entry.node.name)),
        None => {
            let error = io::Error::other("it is an entry of another source");
            Err(SourceError::new("open", entry.path.clone(), error))
        }
    }
}

/// Opens for reading only what is no link, without waiting for a writer should it have become a FIFO.
fn open_file(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match openat(directory, name, flags | OFlags::NOATIME, Mode::empty()) {
        // Access times may be left alone only by a file's owner and by root.
        Err(Errno::PERM) => openat(directory, name, flags, Mode::empty()),
        result => result,
    };
    fd.map_err(|error| match error {
        Errno::LOOP => io::Error::new(io::ErrorKind::NotFound, "it became a symbolic link"),
        Errno::NXIO => io::Error::new(io::ErrorKind::NotFound, "it became a socket or a device"),
        error => error.into(),
    })
}

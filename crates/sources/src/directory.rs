//! Directories by file descriptor: paths of any length, and a bounded number of descriptors.
//!
//! A directory is found through its parent's descriptor, never by its whole path, so a path may be longer than the
//! system's limit and nothing that is moved or replaced on the way can lead elsewhere. When too many descriptors are
//! open, the oldest is closed; a directory that is needed again is opened anew from the nearest open one above it
//! and must be the same one as before.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, fstat, openat, seek};
use rustix::io::Errno;

/// How many directories are kept open at most, besides those in use at the moment.
const OPEN_DIRECTORIES_MAX: usize = 128;

const LISTING_BUFFER_BYTES: usize = 64 * 1024;

/// An opened directory, which may be closed and opened again behind the scenes.
#[derive(Debug)]
pub(crate) struct Directory {
    place: Place,
    identity: Identity,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    pool: Arc<DirectoryPool>,
}

#[derive(Debug)]
enum Place {
    Path(PathBuf),
    Child { parent: Option<Arc<Directory>>, name: Box<[u8]> },
}

/// What makes a directory the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

/// The directories that are open.
#[derive(Debug, Default)]
pub(crate) struct DirectoryPool {
    open: Mutex<VecDeque<Weak<Directory>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    /// Opens a directory by path; the last component must not be a symbolic link.
    pub(crate) fn open_path(path: PathBuf, pool: &Arc<DirectoryPool>) -> io::Result<Arc<Self>> {
        let fd = open_directory(CWD, path.as_path())?;
        Self::adopt(fd, Place::Path(path), pool)
    }

    /// Opens a directory in this one.
    pub(crate) fn open_child(self: &Arc<Self>, name: &[u8]) -> io::Result<Arc<Self>> {
        let fd = open_directory(self.fd()?.as_fd(), name)?;
        Self::adopt(fd, Place::Child { parent: Some(self.clone()), name: name.into() }, &self.pool)
    }

    fn adopt(fd: OwnedFd, place: Place, pool: &Arc<DirectoryPool>) -> io::Result<Arc<Self>> {
        let identity = identity(fd.as_fd())?;
        let fd = Mutex::new(Some(Arc::new(fd)));
        let directory = Arc::new(Self { place, identity, fd, pool: pool.clone() });
        pool.opened(&directory);
        Ok(directory)
    }

    /// The number of the file system's device.
    pub(crate) fn device(&self) -> u64 {
        self.identity.device
    }

    /// A descriptor to work with; it stays open as long as it is held.
    pub(crate) fn fd(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = &*lock(&self.fd) {
            return Ok(fd.clone());
        }
        let fd = self.reopen()?;
        *lock(&self.fd) = Some(fd.clone());
        self.pool.opened(self);
        Ok(fd)
    }

    fn reopen(&self) -> io::Result<Arc<OwnedFd>> {
        // From the nearest open directory above, step by step: a loop, since trees may be very deep.
        let mut names = Vec::new();
        let mut directory = self;
        let mut fd = loop {
            if let Some(fd) = &*lock(&directory.fd) {
                break fd.clone();
            }
            match &directory.place {
                Place::Path(path) => break Arc::new(open_directory(CWD, path.as_path())?),
                Place::Child { parent: Some(parent), name } => {
                    names.push(name);
                    directory = parent;
                }
                Place::Child { parent: None, .. } => return Err(replaced()),
            }
        };
        for name in names.iter().rev() {
            fd = Arc::new(open_directory(fd.as_fd(), &***name)?);
        }
        if identity(fd.as_fd())? != self.identity {
            return Err(replaced());
        }
        Ok(fd)
    }

    /// The names in the directory, sorted by their bytes. Not to be called by two threads at once: the position in
    /// the listing belongs to the descriptor.
    pub(crate) fn names(self: &Arc<Self>) -> io::Result<Names> {
        let fd = self.fd()?;
        seek(&*fd, SeekFrom::Start(0))?;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BUFFER_BYTES];
        let mut entries = RawDir::new(&*fd, &mut buffer);
        let mut names = Names::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name());
            }
        }
        names.sort();
        Ok(names)
    }
}

impl Drop for Directory {
    /// Lets go of the parents one by one: doing so by recursion would overflow the stack in very deep trees.
    fn drop(&mut self) {
        let mut next = self.place.take_parent();
        while let Some(mut directory) = next.and_then(Arc::into_inner) {
            next = directory.place.take_parent();
        }
    }
}

impl Place {
    fn take_parent(&mut self) -> Option<Arc<Directory>> {
        match self {
            Self::Path(_) => None,
            Self::Child { parent, .. } => parent.take(),
        }
    }
}

const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

fn open_directory(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    // Access times may be left alone only by a file's owner and by root.
    match openat(parent, name, DIRECTORY_FLAGS | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(openat(parent, name, DIRECTORY_FLAGS, Mode::empty())?),
        result => Ok(result?),
    }
}

fn identity(fd: BorrowedFd<'_>) -> io::Result<Identity> {
    let stat = fstat(fd)?;
    Ok(Identity { device: stat.st_dev, inode: stat.st_ino })
}

fn replaced() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the directory was replaced by another one while it was read")
}

impl DirectoryPool {
    fn opened(&self, directory: &Arc<Directory>) {
        let oldest = {
            let mut open = lock(&self.open);
            open.push_back(Arc::downgrade(directory));
            if open.len() > OPEN_DIRECTORIES_MAX { open.pop_front() } else { None }
        };
        if let Some(oldest) = oldest.and_then(|oldest| oldest.upgrade()) {
            lock(&oldest.fd).take();
        }
    }
}

/// Names in one piece of memory, each with a NUL at its end.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Names {
    pub(crate) fn push(&mut self, name: &CStr) {
        self.starts.push(self.bytes.len());
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
    }

    /// Sorts by bytes and leaves out those that are there twice.
    pub(crate) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.starts.sort_unstable_by(|&a, &b| name_at(bytes, a).cmp(name_at(bytes, b)));
        self.starts.dedup_by(|a, b| name_at(bytes, *a) == name_at(bytes, *b));
    }

    pub(crate) fn get(&self, position: usize) -> Option<&CStr> {
        self.starts.get(position).map(|&start| name_at(&self.bytes, start))
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.starts.binary_search_by(|&start| name_at(&self.bytes, start).to_bytes().cmp(name)).is_ok()
    }
}

fn name_at(bytes: &[u8], start: usize) -> &CStr {
    CStr::from_bytes_until_nul(bytes.get(start..).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_deeper_than_the_limit_of_descriptors_and_of_paths() {
        let root = tempfile::tempdir().unwrap();
        let pool = Arc::<DirectoryPool>::default();
        let name = [b'n'; 100];
        let mut directories = vec![Directory::open_path(root.path().into(), &pool).unwrap()];
        for _ in 0..300 {
            let last = directories.last().unwrap();
            rustix::fs::mkdirat(&*last.fd().unwrap(), name.as_slice(), Mode::RWXU).unwrap();
            let child = last.open_child(&name).unwrap();
            directories.push(child);
        }
        let open = directories.iter().filter(|directory| lock(&directory.fd).is_some()).count();
        assert_eq!(open, OPEN_DIRECTORIES_MAX);
        for directory in &directories[..300] {
            assert!(directory.names().unwrap().contains(&name));
        }
        // Too deep for a path: take it apart from below.
        while let Some(directory) = directories.pop() {
            if let Some(parent) = directories.last() {
                drop(directory);
                rustix::fs::unlinkat(&*parent.fd().unwrap(), name.as_slice(), rustix::fs::AtFlags::REMOVEDIR).unwrap();
            }
        }
    }

    #[test]
    fn a_replaced_directory_is_not_taken_for_the_old_one() {
        let root = tempfile::tempdir().unwrap();
        let pool = Arc::<DirectoryPool>::default();
        std::fs::create_dir(root.path().join("a")).unwrap();
        let top = Directory::open_path(root.path().into(), &pool).unwrap();
        let child = top.open_child(b"a").unwrap();
        lock(&child.fd).take();
        std::fs::rename(root.path().join("a"), root.path().join("b")).unwrap();
        std::fs::create_dir(root.path().join("a")).unwrap();
        assert_eq!(child.fd().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn dropping_a_very_deep_chain_needs_no_stack() {
        let pool = Arc::<DirectoryPool>::default();
        let identity = Identity { device: 0, inode: 0 };
        let mut last = None;
        for _ in 0..1_000_000 {
            let place = Place::Child { parent: last, name: Box::default() };
            last = Some(Arc::new(Directory { place, identity, fd: Mutex::default(), pool: pool.clone() }));
        }
        drop(last);
    }

    #[test]
    fn names_are_sorted_by_bytes() {
        let mut names = Names::default();
        for name in [c"b", c"\xff", c"B", c"a-b", c"ab", c"b"] {
            names.push(name);
        }
        names.sort();
        let sorted: Vec<_> = (0..).map_while(|position| names.get(position)).collect();
        assert_eq!(sorted, [c"B", c"a-b", c"ab", c"b", c"\xff"]);
        assert!(names.contains(b"ab") && !names.contains(b"a"));
    }
}

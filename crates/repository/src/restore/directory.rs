//! Directories of the target by file descriptor: paths of any length, a bounded number of descriptors, and no way for
//! a link in the target to lead a write elsewhere.
//!
//! A directory gets its metadata when all in it is done: making entries would change its times again, and its
//! permissions may forbid making them.

use std::collections::VecDeque;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};

use super::Run;
use super::metadata::Metadata;

/// How many directories are kept open at most, besides those in use at the moment.
const OPEN_DIRECTORIES_MAX: usize = 128;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory in the target.
pub(super) struct Directory {
    place: Place,
    identity: (u64, u64),
    /// Made by this restore: nothing stands in it that this restore did not put there.
    pub(super) is_new: bool,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    /// What keeps it from being done: the walk, and every unfinished entry.
    pending: AtomicUsize,
    metadata: Option<Metadata>,
    pool: Arc<Pool>,
}

enum Place {
    Target(Box<Path>),
    Child { parent: Arc<Directory>, name: Box<[u8]> },
}

/// The directories that are open.
#[derive(Default)]
pub(super) struct Pool {
    open: Mutex<VecDeque<Weak<Directory>>>,
}

impl Directory {
    /// Opens the target; it may be reached through links, which its owner chose. When it is done, it gets `metadata`.
    pub(super) fn open_target(path: &Path, is_new: bool, metadata: Option<Metadata>) -> io::Result<Arc<Self>> {
        let fd = openat(CWD, path, FLAGS, Mode::empty())?;
        Self::adopt(fd, Place::Target(path.into()), is_new, metadata, &Arc::default())
    }

    /// Opens a directory in this one, never through a link. When it is done, it gets `metadata`.
    pub(super) fn open_child(
        self: &Arc<Self>,
        name: &[u8],
        is_new: bool,
        metadata: Option<Metadata>,
    ) -> io::Result<Arc<Self>> {
        let fd = openat(&*self.fd()?, name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        let place = Place::Child { parent: Arc::clone(self), name: name.into() };
        let child = Self::adopt(fd, place, is_new, metadata, &self.pool)?;
        self.begin();
        Ok(child)
    }

    fn adopt(
        fd: OwnedFd,
        place: Place,
        is_new: bool,
        metadata: Option<Metadata>,
        pool: &Arc<Pool>,
    ) -> io::Result<Arc<Self>> {
        let identity = identity(&fd)?;
        let fd = Mutex::new(Some(Arc::new(fd)));
        let pending = AtomicUsize::new(1);
        let directory = Arc::new(Self { place, identity, is_new, fd, pending, metadata, pool: Arc::clone(pool) });
        pool.opened(&directory);
        Ok(directory)
    }

    /// A descriptor to work with; it stays open as long as it is held.
    pub(super) fn fd(self: &Arc<Self>) -> io::Result<Arc<OwnedFd>> {
        if let Some(fd) = &*lock(&self.fd) {
            return Ok(Arc::clone(fd));
        }
        let fd = Arc::new(self.reopen()?);
        *lock(&self.fd) = Some(Arc::clone(&fd));
        self.pool.opened(self);
        Ok(fd)
    }

    /// Opens it anew from the nearest open directory above; it must be the same one as before.
    fn reopen(&self) -> io::Result<OwnedFd> {
        let mut names = Vec::new();
        let mut directory = self;
        let start = loop {
            if let Some(fd) = &*lock(&directory.fd) {
                break Arc::clone(fd);
            }
            match &directory.place {
                Place::Target(path) => break Arc::new(openat(CWD, &**path, FLAGS, Mode::empty())?),
                Place::Child { parent, name } => {
                    names.push(name);
                    directory = parent;
                }
            }
        };
        let mut fd = openat(&*start, c".", FLAGS, Mode::empty())?;
        for name in names.iter().rev() {
            fd = openat(&fd, &***name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        }
        if identity(&fd)? == self.identity {
            Ok(fd)
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "the directory was replaced by another one during the restore"))
        }
    }

    /// The path below the target, for messages.
    pub(super) fn path(&self) -> Vec<u8> {
        let (mut names, mut directory) = (Vec::new(), self);
        while let Place::Child { parent, name } = &directory.place {
            names.push(&**name);
            directory = parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        path
    }

    /// The path of an entry, for messages.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path = self.path();
        path.push(b'/');
        path.extend_from_slice(name);
        path
    }

    /// Something in it is begun: it will not be done before [`Self::end`] was called as often.
    pub(super) fn begin(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// Something in it is done. The last one sets the metadata, and so on upwards.
    pub(super) fn end(self: &Arc<Self>, run: &Run<'_>) {
        let mut directory = self;
        while directory.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            if let Some(metadata) = &directory.metadata {
                match directory.fd() {
                    Ok(fd) => metadata.apply_to_fd(run, fd.as_fd(), directory.is_new, &|| directory.path()),
                    Err(error) => run.io_failed("open", &directory.path(), error),
                }
            }
            match &directory.place {
                Place::Child { parent, .. } => directory = parent,
                Place::Target(_) => break,
            }
        }
    }
}

/// Lets go of the parents one by one: doing so by recursion would overflow the stack in very deep trees.
impl Drop for Directory {
    fn drop(&mut self) {
        let nowhere = || Place::Target(Path::new(std::ffi::OsStr::from_bytes(b"")).into());
        let mut place = std::mem::replace(&mut self.place, nowhere());
        while let Place::Child { parent, .. } = place {
            match Arc::into_inner(parent) {
                Some(mut parent) => place = std::mem::replace(&mut parent.place, nowhere()),
                None => break,
            }
        }
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

impl Pool {
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

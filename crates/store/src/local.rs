//! Objects as files of a local directory, laid out as restic lays them out.
//!
//! A file is written beside its final place as `<name>-tmp-<random digits>`, synced, made read-only,
//! moved without ever replacing anything, and then its folder is synced. So an object is there whole or
//! not at all, also after a power cut. Readers, ours and restic's, pass over the temporary files; those
//! of dead writers go by [`LocalStore::remove_leftovers`](Store::remove_leftovers).
//!
//! The store never follows a name out of its directory, never reads a temporary file as an object and
//! never takes an unreadable folder for an empty one.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustix::fs::{self as sys, AtFlags, Dir, FallocateFlags, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;

use crate::{Entry, Error, ErrorKind, Result, Store, name};

/// A store in one directory.
#[derive(Debug)]
pub struct LocalStore {
    path: PathBuf,
    /// Held open: names are resolved against the directory that was opened, whatever its path says later.
    root: OwnedFd,
    file_mode: Mode,
    folder_mode: Mode,
    /// Held for writing while a folder is made, so that nobody relies on a folder that is not yet synced.
    making_folders: RwLock<()>,
}

impl LocalStore {
    /// Opens the store in an existing directory. Fails with [`ErrorKind::NotFound`] when there is none.
    ///
    /// Objects get mode 0400 and folders 0700. Where the group may read the file `config`, it may read
    /// what is written, too (0440 and 0770): restic's rule for repositories shared by a group.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = sys::open(&path, flags, Mode::empty()).map_err(|errno| place_error("open", &path, errno.into()))?;
        let group = sys::statat(&root, "config", AtFlags::empty())
            .is_ok_and(|config| Mode::from_raw_mode(config.st_mode).contains(Mode::RGRP));
        let (group_file, group_folder) = match group {
            true => (Mode::RGRP, Mode::RWXG),
            false => (Mode::empty(), Mode::empty()),
        };
        Ok(Self {
            path,
            root,
            file_mode: Mode::RUSR | group_file,
            folder_mode: Mode::RWXU | group_folder,
            making_folders: RwLock::new(()),
        })
    }

    /// Opens the store in a directory and makes the directory, with mode 0700, where there is none.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        create_folder_durably(&path).map_err(|error| place_error("create", &path, error))?;
        Self::open(path)
    }

    fn error(&self, operation: &'static str, name: &str, source: impl Into<io::Error>) -> Error {
        place_error(operation, &self.path.join(name), source.into())
    }

    fn open_object(&self, name: &str) -> Result<File> {
        name::check("read", name)?;
        sys::openat(&self.root, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
            .map_err(|errno| self.error("read", name, errno))
    }

    fn open_folder(&self, folder: &str) -> rustix::io::Result<OwnedFd> {
        let path = if folder.is_empty() { "." } else { folder };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        sys::openat(&self.root, path, flags, Mode::empty())
    }

    /// Opens a folder for writing into it, and makes it and those above it where they are missing.
    fn ensure_folder(&self, folder: &str) -> rustix::io::Result<OwnedFd> {
        {
            let _no_folder_half_made = (self.making_folders.read()).unwrap_or_else(PoisonError::into_inner);
            match self.open_folder(folder) {
                Err(Errno::NOENT) => {}
                done => return done,
            }
        }
        let _making_folders = (self.making_folders.write()).unwrap_or_else(PoisonError::into_inner);
        let mut parent = self.open_folder("")?;
        for part in folder.split('/') {
            match sys::mkdirat(&parent, part, self.folder_mode) {
                Ok(()) => sync_folder(parent.as_fd())?,
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            parent = sys::openat(&parent, part, flags, Mode::empty())?;
        }
        Ok(parent)
    }

    fn put_file(&self, name: &str, data: &[u8]) -> io::Result<()> {
        let (folder, base) = name.rsplit_once('/').unwrap_or(("", name));
        let folder = self.ensure_folder(folder)?;
        let temporary = Temporary::create(folder.as_fd(), base, data)?;
        match sys::fchmod(&temporary.file, self.file_mode) {
            // File systems without modes: the mode is a courtesy, the content is what counts.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS) => {}
            Err(errno) => return Err(errno.into()),
        }
        temporary.file.sync_all()?;
        temporary.publish(base)?;
        sync_folder(folder.as_fd())?;
        Ok(())
    }

    /// Calls `visit` for every file below `folder`, with the open folder it is in, its whole name and
    /// what it is. Files and folders that vanish meanwhile are passed over: they were deleted.
    fn walk(
        &self,
        folder: &str,
        operation: &'static str,
        visit: &mut dyn FnMut(BorrowedFd<'_>, String, Stat) -> Result<()>,
    ) -> Result<()> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let error = |errno: Errno| self.error(operation, &folder, errno);
            let fd = match self.open_folder(&folder) {
                Err(Errno::NOENT) => continue,
                opened => opened.map_err(error)?,
            };
            for entry in Dir::read_from(&fd).map_err(error)? {
                let entry = entry.map_err(error)?;
                // What is not UTF-8 was not written by a store.
                let Ok(base) = entry.file_name().to_str() else {
                    continue;
                };
                if matches!(base, "." | "..") {
                    continue;
                }
                let name = match folder.as_str() {
                    "" => base.to_owned(),
                    folder => format!("{folder}/{base}"),
                };
                let stat = match sys::statat(&fd, base, AtFlags::empty()) {
                    // Deleted meanwhile, unless it is a link that leads nowhere: that one is damage.
                    Err(Errno::NOENT) if entry.file_type() != FileType::Symlink => continue,
                    stat => stat.map_err(|errno| self.error(operation, &name, errno))?,
                };
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => folders.push(name),
                    _ => visit(fd.as_fd(), name, stat)?,
                }
            }
        }
        // A missing folder is empty; a store that was removed under our feet is not.
        match sys::fstat(&self.root) {
            Ok(stat) if stat.st_nlink > 0 => Ok(()),
            Ok(_) => Err(self.error(operation, "", Errno::NOENT)),
            Err(errno) => Err(self.error(operation, "", errno)),
        }
    }
}

impl Store for LocalStore {
    fn location(&self) -> String {
        self.path.display().to_string()
    }

    fn put(&self, name: &str, data: &[u8]) -> Result<()> {
        name::check("write", name)?;
        self.put_file(name, data).map_err(|error| self.error("write", name, error))
    }

    fn get(&self, name: &str) -> Result<Vec<u8>> {
        let mut file = self.open_object(name)?;
        let read = |file: &mut File| -> io::Result<Vec<u8>> {
            let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
            let mut data = Vec::new();
            data.try_reserve_exact(size)?;
            file.read_to_end(&mut data)?;
            Ok(data)
        };
        read(&mut file).map_err(|error| self.error("read", name, error))
    }

    fn get_range(&self, name: &str, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let file = self.open_object(name)?;
        let read = match offset.checked_add(buffer.len() as u64).map(i64::try_from) {
            Some(Ok(_)) => file.read_exact_at(buffer, offset),
            // Past the end of every file; the system would call it a bad argument.
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| self.error("read", name, error))
    }

    fn size_bytes(&self, name: &str) -> Result<u64> {
        name::check("look up", name)?;
        let stat =
            sys::statat(&self.root, name, AtFlags::empty()).map_err(|errno| self.error("look up", name, errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Err(self.error("look up", name, Errno::ISDIR)),
            _ => Ok(stat.st_size.cast_unsigned()),
        }
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(Entry)) -> Result<()> {
        name::check_folder(prefix)?;
        self.walk(prefix, "list", &mut |_, name, stat| {
            if !name::is_temporary(&name) {
                let size_bytes = stat.st_size.cast_unsigned();
                visit(Entry { name, size_bytes });
            }
            Ok(())
        })
    }

    fn delete(&self, name: &str) -> Result<()> {
        name::check("delete", name)?;
        match sys::unlinkat(&self.root, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.error("delete", name, errno)),
        }
    }

    fn remove_leftovers(&self, age: Duration) -> Result<u64> {
        let Some(limit) = SystemTime::now().checked_sub(age) else {
            return Ok(0);
        };
        let limit = limit.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut removed = 0;
        self.walk("", "clean up", &mut |folder, name, stat| {
            let old = u64::try_from(stat.st_mtime).is_ok_and(|mtime| mtime <= limit);
            if old && name::is_temporary(&name) {
                let base = name.rsplit_once('/').map_or(name.as_str(), |(_, base)| base);
                match sys::unlinkat(folder, base, AtFlags::empty()) {
                    Ok(()) => removed += 1,
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(self.error("clean up", &name, errno)),
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }
}

/// A file being written; gone again when dropped before [`Temporary::publish`].
struct Temporary<'a> {
    folder: BorrowedFd<'a>,
    name: String,
    file: File,
}

impl<'a> Temporary<'a> {
    fn create(folder: BorrowedFd<'a>, base: &str, data: &[u8]) -> io::Result<Self> {
        let temporary = loop {
            let name = format!("{base}{}{}", name::TEMPORARY, rand::random::<u64>());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match sys::openat(folder, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(fd) => {
                    let file = File::from(fd);
                    break Self { folder, name, file };
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        };
        write_all(&temporary.file, data)?;
        Ok(temporary)
    }

    /// Gives the file its final name, unless that is taken.
    fn publish(self, base: &str) -> io::Result<()> {
        let (folder, temporary) = (self.folder, self.name.as_str());
        match sys::renameat_with(folder, temporary, folder, base, RenameFlags::NOREPLACE) {
            // Network and FUSE file systems often cannot rename so; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {}
            done => return Ok(done?),
        }
        match sys::linkat(folder, temporary, folder, base, AtFlags::empty()) {
            // Nor does every file system know hard links (FAT, CIFS). What is left has a gap between
            // looking and renaming, in which another writer's object of the same name could be replaced.
            Err(Errno::PERM | Errno::NOSYS | Errno::NOTSUP) => {}
            // Dropping `self` removes the temporary name.
            done => return Ok(done?),
        }
        match sys::statat(folder, base, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(sys::renameat(folder, temporary, folder, base)?),
            Ok(_) => Err(Errno::EXIST.into()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Nothing to do about a failure: readers pass over the file, and `remove_leftovers` gets it later.
        let _ = sys::unlinkat(self.folder, &self.name, AtFlags::empty());
    }
}

/// From here on it pays to write past the page cache: the data is not read again soon, and copying it
/// into the cache costs a fifth of a backup's time.
const DIRECT_BYTES_MIN: usize = 1 << 20;
/// What `O_DIRECT` wants memory, offsets and lengths aligned to: the largest logical block in use.
const DIRECT_ALIGN: usize = 4096;

fn write_all(file: &File, data: &[u8]) -> io::Result<()> {
    let mut written = 0;
    if data.len() >= DIRECT_BYTES_MIN {
        // One extent instead of many, and a full disk is noticed before anything is written.
        match sys::fallocate(file, FallocateFlags::empty(), 0, data.len() as u64) {
            Ok(()) | Err(Errno::NOTSUP | Errno::NOSYS | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
        if data.as_ptr().addr().is_multiple_of(DIRECT_ALIGN) {
            written = write_direct(file, &data[..data.len() & !(DIRECT_ALIGN - 1)])?;
        }
    }
    file.write_all_at(&data[written..], written as u64)
}

/// Writes as much of the aligned `data` as goes past the page cache, and returns how much that was.
/// The rest is the caller's: a file system that refuses (tmpfs, some FUSE) is no error.
fn write_direct(file: &File, data: &[u8]) -> io::Result<usize> {
    let flags = sys::fcntl_getfl(file)?;
    if sys::fcntl_setfl(file, flags | OFlags::DIRECT).is_err() {
        return Ok(0);
    }
    let mut written = 0;
    let result = loop {
        if written == data.len() || !written.is_multiple_of(DIRECT_ALIGN) {
            break Ok(written);
        }
        match rustix::io::pwrite(file, &data[written..], written as u64) {
            Ok(0) | Err(Errno::INVAL | Errno::NOTSUP) => break Ok(written),
            Ok(bytes) => written += bytes,
            Err(Errno::INTR) => {}
            Err(errno) => break Err(errno.into()),
        }
    };
    sys::fcntl_setfl(file, flags)?;
    result
}

fn create_folder_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if parent != path {
        create_folder_durably(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        // Somebody else made it meanwhile; a file in its place fails when it is opened.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => {
            made?;
            Ok(sync_folder(File::open(parent)?.as_fd())?)
        }
    }
}

/// Makes the names in a folder durable. Some network file systems cannot sync folders and do so by
/// themselves.
fn sync_folder(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    match sys::fsync(folder) {
        Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        done => done,
    }
}

fn place_error(operation: &'static str, path: &Path, source: io::Error) -> Error {
    Error::new(kind_of(&source), operation, path.display().to_string(), source)
}

fn kind_of(error: &io::Error) -> ErrorKind {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return ErrorKind::Truncated;
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => ErrorKind::NotFound,
        Some(Errno::EXIST) => ErrorKind::AlreadyExists,
        Some(Errno::ACCESS | Errno::PERM) => ErrorKind::PermissionDenied,
        Some(Errno::NOSPC | Errno::DQUOT | Errno::ROFS) => ErrorKind::Full,
        Some(Errno::NOTDIR | Errno::NAMETOOLONG) => ErrorKind::InvalidConfig,
        // Network file systems that lost their server for a while.
        Some(Errno::TIMEDOUT | Errno::STALE | Errno::AGAIN | Errno::HOSTDOWN | Errno::HOSTUNREACH) => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests;

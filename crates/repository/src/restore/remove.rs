//! Removing what stands in the target: entries in the way, and those that the snapshot does not have.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, Mode, OFlags, RawDir, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The names in a directory.
pub(super) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<CString>> {
    // A position of its own: descriptors of a directory share theirs when they are copied.
    let fd = openat(directory, c".", FLAGS, Mode::empty())?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(fd, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// Removes an entry that is no directory, or an empty directory.
pub(super) fn remove_one(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?),
        result => Ok(result?),
    }
}

/// Removes an entry with all below it; what is mounted there is left, and an error.
pub(super) fn remove_all(directory: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let stat = statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        if stat.st_dev != fstat(directory)?.st_dev {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another file system is mounted there"));
        }
        let inner = openat(directory, name, FLAGS, Mode::empty())?;
        for name in names(inner.as_fd())? {
            remove_all(inner.as_fd(), name.to_bytes())?;
        }
        return Ok(unlinkat(directory, name, AtFlags::REMOVEDIR)?);
    }
    Ok(unlinkat(directory, name, AtFlags::empty())?)
}
